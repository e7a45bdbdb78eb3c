//! How a policy or a manifest names several partitions or hosts at once; checked when text becomes one of these.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{ApplicationId, HostName, RANKS_MAX, Rank};

/// Ranges of one selector.
const RANGES_MAX: usize = 256;

/// Text that selects nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SelectorError {
    /// Ranks.
    #[error("`{0}` is no set of ranks; write ranks below {RANKS_MAX} and ranges, such as 0-3,7")]
    Ranks(String),
    /// An application.
    #[error("`{0}` selects no application; write its name or id, or * for all, and perhaps :RANKS")]
    Application(String),
    /// A host.
    #[error("`{0}` selects no host; write a host's name, KEY=VALUE of its labels, or *")]
    Host(String),
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = SelectorError;
            fn try_from(text: String) -> Result<Self, SelectorError> {
                text.parse()
            }
        }

        // In the API it is its text.
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                String::schema()
            }
        }

        impl ToSchema for $name {}

        impl From<$name> for String {
            fn from(it: $name) -> Self {
                it.to_string()
            }
        }
    };
}

/// Some ranks of an application, as ascending ranges with both ends: `0-3,7`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RankSet(Vec<(Rank, Rank)>);

impl RankSet {
    /// Is the rank one of them?
    pub fn contains(&self, rank: Rank) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&rank))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Rank> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The highest.
    pub fn last(&self) -> Rank {
        self.0.last().map_or(0, |(_, last)| *last)
    }
}

impl FromStr for RankSet {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let error = || SelectorError::Ranks(shortened(text));
        let mut ranges = Vec::new();
        for part in text.split(',').take(RANGES_MAX + 1) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<Rank>().ok().filter(|rank| *rank < RANKS_MAX);
            let (first, last) = number(first).zip(number(last)).ok_or_else(error)?;
            if first > last {
                return Err(error());
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let overlap = ranges.windows(2).any(|pair| pair[0].1 >= pair[1].0);
        if ranges.len() > RANGES_MAX || overlap { Err(error()) } else { Ok(Self(ranges)) }
    }
}

impl fmt::Display for RankSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

text!(RankSet);

/// Partitions: `heat` (an application by its name), `heat-3` (by its id) or `*`, and perhaps `:0-3,7`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    /// `None`: every one.
    application: Option<String>,
    ranks: Option<RankSet>,
}

impl Selector {
    /// Does it select this partition of the application with this name in its manifest?
    pub fn selects(&self, id: &ApplicationId, name: &str, rank: Rank) -> bool {
        self.selects_application(id, name) && self.ranks.as_ref().is_none_or(|ranks| ranks.contains(rank))
    }

    /// Does it select any partition of the application?
    pub fn selects_application(&self, id: &ApplicationId, name: &str) -> bool {
        self.application.as_ref().is_none_or(|it| it == name || it == id.as_str())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let (application, ranks) = match text.split_once(':') {
            Some((application, ranks)) => (application, Some(ranks.parse()?)),
            None => (text, None),
        };
        if application == "*" {
            return Ok(Self { application: None, ranks });
        }
        let checked = application.parse::<ApplicationId>();
        checked.map_err(|_| SelectorError::Application(shortened(text)))?;
        Ok(Self { application: Some(application.to_owned()), ranks })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.application.as_deref().unwrap_or("*"))?;
        self.ranks.as_ref().map_or(Ok(()), |ranks| write!(f, ":{ranks}"))
    }
}

text!(Selector);

/// Hosts: a name, `KEY=VALUE` of their labels, or `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostSelector {
    /// Every host.
    All,
    /// One host.
    Name(HostName),
    /// Hosts with this label.
    Label(String, String),
}

impl HostSelector {
    /// Does it select the host with these labels?
    pub fn selects(&self, host: &HostName, labels: &std::collections::BTreeMap<String, String>) -> bool {
        match self {
            HostSelector::All => true,
            HostSelector::Name(name) => name == host,
            HostSelector::Label(key, value) => labels.get(key) == Some(value),
        }
    }
}

impl FromStr for HostSelector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text == "*" {
            return Ok(HostSelector::All);
        }
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() && text.len() <= 256 => {
                Ok(HostSelector::Label(key.to_owned(), value.to_owned()))
            }
            Some(_) => Err(SelectorError::Host(shortened(text))),
            None => text.parse().map(HostSelector::Name).map_err(|_| SelectorError::Host(shortened(text))),
        }
    }
}

impl fmt::Display for HostSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostSelector::All => f.write_str("*"),
            HostSelector::Name(name) => f.write_str(name.as_str()),
            HostSelector::Label(key, value) => write!(f, "{key}={value}"),
        }
    }
}

text!(HostSelector);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_selected_by_name_id_and_rank() -> Result<(), Box<dyn std::error::Error>> {
        let id: ApplicationId = "heat-3".parse()?;
        for (text, rank, selected) in [
            ("heat", 0, true),
            ("heat-3", 9, true),
            ("*:1", 1, true),
            ("heat:0-3,7", 7, true),
            ("heat:0-3,7", 4, false),
            ("other", 0, false),
            ("heat-2", 0, false),
        ] {
            let selector: Selector = text.parse()?;
            assert_eq!(selector.selects(&id, "heat", rank), selected, "{text}");
            assert_eq!(selector.to_string(), text);
        }
        for wrong in ["", "a b", "heat:", "heat:3-1", "heat:0-3,2", "heat:99999", "heat:x"] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn hosts_are_selected_by_name_and_label() -> Result<(), Box<dyn std::error::Error>> {
        let labels = [("rack".to_owned(), "1".to_owned())].into();
        let host: HostName = "a".parse()?;
        for (text, selected) in [("a", true), ("b", false), ("*", true), ("rack=1", true), ("rack=2", false)]
        {
            assert_eq!(text.parse::<HostSelector>()?.selects(&host, &labels), selected, "{text}");
        }
        assert!("=x".parse::<HostSelector>().is_err() && "a b".parse::<HostSelector>().is_err());
        Ok(())
    }
}
