//! `series`: which values over time, and how they are asked for.

use clap::Args;
use control::{ApplicationId, HostName, Rank};

/// What to show.
#[derive(Debug, Args)]
pub struct Series {
    /// Of this host.
    #[arg(long, conflicts_with_all = ["application", "rank"], required_unless_present = "application")]
    host: Option<HostName>,
    /// Of the partitions of this application.
    application: Option<ApplicationId>,
    /// Only of this rank.
    #[arg(long, requires = "application")]
    rank: Option<Rank>,
    /// Only these, such as load,wait; an unknown name is answered with those there are.
    #[arg(long, value_delimiter = ',')]
    names: Vec<String>,
    /// Only what was measured since then, Unix milliseconds.
    #[arg(long, default_value_t = 0)]
    since_ms: u64,
}

impl Series {
    /// The question. Names are checked by the server; here they only must not break the address.
    pub fn path(&self) -> String {
        let plain = |it: &char| it.is_ascii_alphanumeric() || *it == '_';
        let names: Vec<String> = self
            .names
            .iter()
            .map(|name| name.chars().map(|it| if plain(&it) { it } else { '_' }).collect())
            .collect();
        let mut path = format!("/v1/series?since_ms={}&names={}", self.since_ms, names.join(","));
        if let Some(host) = &self.host {
            path.push_str(&format!("&host={host}"));
        }
        if let Some(application) = &self.application {
            path.push_str(&format!("&application={application}"));
        }
        if let Some(rank) = self.rank {
            path.push_str(&format!("&rank={rank}"));
        }
        path
    }
}
