//! Who may ask for what: roles from certificates and tokens against methods and paths.
//!
//! Nobody is asked who he is on a plain connection without tokens, as on one's own machine.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use axum::http::Method;
use partita_tls::{Peer, Role};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// No file of tokens is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;
const HASH_BYTES: usize = 32;

/// A file of tokens that cannot be used.
#[derive(Debug, Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("--tokens {}: cannot read it; `coordinator token` makes such a file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line has another form.
    #[error("--tokens {}, line {line}: write ROLE NAME SHA256, as `coordinator token` does", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
}

/// What the server knows of one token.
#[derive(Debug)]
struct Token {
    role: Role,
    hash: [u8; HASH_BYTES],
}

/// The rules of one server.
#[derive(Debug, Default)]
pub struct Access {
    certificates: bool,
    tokens: Option<Vec<Token>>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody was asked who he is.
    Anyone,
    /// Roles that were proved, and as a host, the names that the certificate has.
    Proved {
        /// The roles.
        roles: Vec<Role>,
        /// Names of hosts; none are stated by a token, which may then speak for any.
        hosts: Option<Vec<String>>,
    },
}

impl Caller {
    /// Whether it may report, and take commands, for the host of this name.
    pub fn may_speak_for(&self, host: &str) -> bool {
        match self {
            Self::Anyone | Self::Proved { hosts: None, .. } => true,
            Self::Proved { hosts: Some(hosts), .. } => hosts.iter().any(|name| name == host),
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nobody knows who asks.
    #[error("the coordinator wants to know who asks: give --tls-cert and --tls-key, or --token-file")]
    Unknown,
    /// The token is not, or not any more, in the coordinator's file.
    #[error("the coordinator does not know this token: ask its administrator for a new one")]
    Token,
    /// The role is not enough.
    #[error("{} may not do this: it takes the role {needed}", Having(roles))]
    Role {
        /// What is needed.
        needed: Role,
        /// What is there.
        roles: Vec<Role>,
    },
}

struct Having<'a>(&'a [Role]);

impl fmt::Display for Having<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => formatter.write_str("a certificate without a role"),
            roles => {
                let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
                write!(formatter, "the role {}", names.join(", "))
            }
        }
    }
}

/// The role that a request takes. What is not listed and not only read is an administrator's.
fn needed(method: &Method, path: &str) -> Role {
    let mut parts = path.trim_start_matches('/').split('/').skip(1);
    match parts.next() {
        Some("agent") => Role::Host,
        _ if method == Method::GET || method == Method::HEAD => Role::Viewer,
        Some("applications" | "moves" | "hosts") => Role::Operator,
        _ => Role::Admin,
    }
}

/// What of a token is kept.
pub fn hash(token: &str) -> [u8; HASH_BYTES] {
    Sha256::digest(token.as_bytes()).into()
}

/// A line of the file for a token with this hash.
pub fn line(role: Role, name: &str, hash: &[u8; HASH_BYTES]) -> String {
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{role} {name} {hash}\n")
}

fn read_hash(text: &str) -> Option<[u8; HASH_BYTES]> {
    let mut hash = [0; HASH_BYTES];
    if text.len() != 2 * HASH_BYTES || !text.is_ascii() {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(hash)
}

impl Access {
    /// Rules of a server that asks for `certificates`, or of one that asks nobody anything.
    pub fn new(certificates: bool) -> Self {
        Self { certificates, tokens: None }
    }

    /// Takes tokens as well: lines of role, name and hash; `#` begins a comment.
    ///
    /// # Errors
    /// The file cannot be read or has a line of another form.
    pub fn with_tokens(mut self, path: &Path) -> Result<Self, TokensError> {
        let failed = |source| TokensError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        File::open(path).map_err(failed)?.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(role) = words.next() else { continue };
            let wrong = || TokensError::Line { path: path.to_owned(), line: index + 1 };
            let role = role.parse().map_err(|_| wrong())?;
            let hash = words.nth(1).and_then(read_hash).ok_or_else(wrong)?;
            tokens.push(Token { role, hash });
        }
        self.tokens = Some(tokens);
        Ok(self)
    }

    /// Whether who shows no certificate may still prove who he is.
    pub fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// The role of a token. Takes as long for a wrong one as for any other.
    fn role_of(&self, token: &str) -> Option<Role> {
        let hash = hash(token);
        let mut found = None;
        for known in self.tokens.iter().flatten() {
            if bool::from(known.hash.ct_eq(&hash)) {
                found = Some(known.role);
            }
        }
        found
    }

    /// Whether who shows `peer`'s certificate or `token` may ask this, and who that is.
    ///
    /// # Errors
    /// He may not.
    pub fn authorise(
        &self,
        method: &Method,
        path: &str,
        peer: Option<&Peer>,
        token: Option<&str>,
    ) -> Result<Caller, Refusal> {
        if !self.certificates && !self.has_tokens() {
            return Ok(Caller::Anyone);
        }
        let (roles, hosts) = match (token.filter(|_| self.has_tokens()), peer) {
            (Some(token), _) => (vec![self.role_of(token).ok_or(Refusal::Token)?], None),
            (None, Some(peer)) => (peer.roles().to_vec(), Some(peer.names().to_vec())),
            (None, None) => return Err(Refusal::Unknown),
        };
        let needed = needed(method, path);
        if roles.iter().any(|role| role.includes(needed)) {
            Ok(Caller::Proved { roles, hosts })
        } else {
            Err(Refusal::Role { needed, roles })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_takes_a_viewer_acting_an_operator_and_everything_unlisted_an_administrator() {
        let cases = [
            (Method::GET, "/v1/applications", Role::Viewer),
            (Method::GET, "/metrics", Role::Viewer),
            (Method::GET, "/v1/policy", Role::Viewer),
            (Method::POST, "/v1/applications", Role::Operator),
            (Method::POST, "/v1/applications/a/stop", Role::Operator),
            (Method::POST, "/v1/moves", Role::Operator),
            (Method::POST, "/v1/hosts/a/drain", Role::Operator),
            (Method::PUT, "/v1/policy", Role::Admin),
            (Method::POST, "/v1/stop", Role::Admin),
            (Method::DELETE, "/anything", Role::Admin),
            (Method::POST, "/v1/agent/report", Role::Host),
            (Method::GET, "/v1/agent/commands", Role::Host),
        ];
        for (method, path, role) in cases {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
    }

    #[test]
    fn tokens_have_roles_and_only_their_hashes_are_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "# people\n\n{}{}",
            line(Role::Viewer, "v", &hash("one")),
            line(Role::Admin, "a", &hash("two"))
        );
        assert!(!text.contains("one") && !text.contains("two"));
        std::fs::write(file.path(), text).unwrap();
        let access = Access::default().with_tokens(file.path()).unwrap();
        let ask = |method, token| access.authorise(&method, "/v1/moves", None, token);
        assert!(ask(Method::GET, Some("one")).is_ok() && ask(Method::POST, Some("two")).is_ok());
        assert_eq!(ask(Method::GET, Some("three")), Err(Refusal::Token));
        assert_eq!(ask(Method::GET, None), Err(Refusal::Unknown));
        let refused = ask(Method::POST, Some("one")).unwrap_err();
        assert_eq!(refused.to_string(), "the role viewer may not do this: it takes the role operator");
        assert_eq!(Access::default().authorise(&Method::POST, "/v1/moves", None, None), Ok(Caller::Anyone));
        for wrong in ["viewer name", "king name 00", &line(Role::Viewer, "v", &hash("x")).replace('a', "é")]
        {
            std::fs::write(file.path(), wrong).unwrap();
            let error = Access::default().with_tokens(file.path());
            assert!(matches!(error, Err(TokensError::Line { line: 1, .. })), "{wrong}");
        }
    }

    #[test]
    fn a_host_speaks_for_the_names_in_its_certificate_only() {
        let caller = Caller::Proved { roles: vec![Role::Host], hosts: Some(vec!["a".into(), "b".into()]) };
        assert!(caller.may_speak_for("a") && !caller.may_speak_for("c"));
        assert!(Caller::Anyone.may_speak_for("c"));
    }
}
