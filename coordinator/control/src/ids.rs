//! Names and numbers that identify things in the cluster; text from outside is checked when it becomes one of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// Rank of a partition in its application, from 0.
pub type Rank = u32;
/// Fencing number of a partition's owner: whoever holds the highest granted epoch may run it. The first is 1.
pub type Epoch = u64;
/// Number of a move in the life of the cluster, from 1.
pub type MoveId = u64;

const NAME_BYTES_MAX: usize = 48;

/// A name that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the {what} `{text}` must be 1 to {NAME_BYTES_MAX} of a-z A-Z 0-9 . _ - and begin with a letter or a digit"
)]
pub struct IdError {
    what: &'static str,
    text: String,
}

fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if fits && first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Ok(());
    }
    Err(IdError { what, text: text.chars().take(NAME_BYTES_MAX).collect() })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[schema(value_type = String)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                check($what, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }
    };
}

name!(
    /// An application in this cluster, `NAME-N`; never used twice.
    ApplicationId,
    "application"
);
name!(
    /// A host, as its agent names it.
    HostName,
    "host name"
);
name!(
    /// The cluster: made with the journal. Epochs mean something only within one.
    ClusterId,
    "cluster"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", "..", "../x", "a/b", "a b", ".a", "a\n", &"x".repeat(49)] {
            assert!(bad.parse::<ApplicationId>().is_err(), "{bad:?}");
        }
        assert_eq!("heat-1".parse::<ApplicationId>().map(|id| id.to_string()), Ok("heat-1".to_owned()));
    }
}
