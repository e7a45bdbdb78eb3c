//! Who a process is and whom it talks to: certificates from files, TLS 1.3 with both sides authenticated, roles.
//!
//! ```text
//!   --tls-cert --tls-key --tls-ca        Identity ──▶ client and server configurations of rustls
//!   (PEM files, or PARTITA_TLS_…)           │         that let in only peers of the wanted role
//!                                           ▼
//!   after the handshake: Peer { certificate, roles, names }
//! ```
//!
//! Opens no sockets: whoever has one drives rustls over it, or has `streams` do so (feature `streams`). `docs/security.md` says what is protected against whom.
#![forbid(unsafe_code)]

#[cfg(feature = "authority")]
pub mod authority;
mod explain;
mod identity;
mod peer;
#[cfg(feature = "streams")]
pub mod streams;
mod verify;

pub use explain::{explain, explain_cause, explain_io};
pub use identity::{Identity, IdentityError, Options};
pub use peer::{Peer, Role, UnknownRole};
pub use verify::Wanted;
