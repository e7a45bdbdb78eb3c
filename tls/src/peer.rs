//! What a verified certificate says about its holder: roles and names.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;

/// The prefix of the URI among a certificate's subject alternative names that states a role.
pub(crate) const URI_PREFIX: &str = "partita:role:";

/// What its holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads everything.
    Viewer,
    /// Submits, stops, moves and drains as well.
    Operator,
    /// Changes rules and stops the cluster as well.
    Admin,
    /// A host: its agent and its partitions.
    Host,
    /// The head node.
    Coordinator,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Operator, Self::Admin, Self::Host, Self::Coordinator];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Host => "host",
            Self::Coordinator => "coordinator",
        }
    }

    /// The URI that states it in a certificate.
    pub fn uri(self) -> String {
        format!("{URI_PREFIX}{}", self.name())
    }

    /// Whether who has this role may do what `needed` may: an admin is an operator, an operator a viewer, nobody else
    /// is anything but himself.
    pub fn includes(self, needed: Self) -> bool {
        let rank = |role| match role {
            Self::Viewer => Some(0),
            Self::Operator => Some(1),
            Self::Admin => Some(2),
            Self::Host | Self::Coordinator => None,
        };
        match (rank(self), rank(needed)) {
            (Some(has), Some(needs)) => has >= needs,
            _ => self == needed,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no role: write viewer, operator, admin, host or coordinator")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let shown = || UnknownRole(text.chars().take(40).collect());
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(shown)
    }
}

/// The holder of a certificate that has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    certificate: CertificateDer<'static>,
    roles: Vec<Role>,
    names: Vec<String>,
}

impl Peer {
    /// Reads the first certificate of a verified chain. Nothing if there is none, or it cannot be read.
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let certificate = chain?.first()?;
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let roles = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(URI_PREFIX)?.parse().ok());
        let roles = roles.collect();
        let names = parsed.valid_dns_names().map(str::to_owned).collect();
        Some(Self { certificate: certificate.clone().into_owned(), roles, names })
    }

    /// The roles it states.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The DNS names it states.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether one of its roles includes `needed`.
    pub fn has(&self, needed: Role) -> bool {
        self.roles.iter().any(|role| role.includes(needed))
    }

    /// Whether it may act as `wanted`: it says so, or it states no role at all (a CA made for that one purpose).
    pub fn may_be(&self, wanted: Role) -> bool {
        self.roles.is_empty() || self.has(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_people_include_each_other_and_hosts_are_no_people() {
        assert!(Role::Admin.includes(Role::Viewer) && Role::Operator.includes(Role::Viewer));
        assert!(!Role::Viewer.includes(Role::Operator) && !Role::Operator.includes(Role::Admin));
        for person in [Role::Viewer, Role::Operator, Role::Admin] {
            assert!(!person.includes(Role::Host) && !Role::Host.includes(person));
            assert!(!Role::Coordinator.includes(person));
        }
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert!(role.includes(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
