//! One-sided writes into another host's memory, over libfabric: who is written to ([`Target`]) and who writes ([`Writer`]).
//!
//! ```text
//!   Writer (source)                                     Target (destination)
//!   slots: a registered buffer      ◄── Window ───      registered memory; a thread drives the provider
//!   greet  ─── read of 8 bytes ────────────────────►    (it can be reached)
//!   post   ─── write ──────────────────────────────►    memory
//!   event  ◄── complete: visible there
//!                                                       close: nothing can be written any more
//! ```
//!
//! A [`Window`] is what the writer has to know: provider, address, and a key for each region; the caller carries it over.
//! "Complete" is FI_DELIVERY_COMPLETE where the provider has it, and else an ordered read behind the writes, so that
//! what is complete is visible to the target's processors. There is neither encryption nor authentication here: who knows a key can
//! write. All `unsafe` is in `fabric` (calls into C) and `memory` (memory that others change).

mod fabric;
mod memory;
mod target;
mod writer;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use memory::HostMemory;
pub use target::Target;
pub use writer::{Event, Proof, Writer};

/// Bytes of a provider's name, at most.
pub const PROVIDER_BYTES_MAX: usize = 63;
/// Bytes of an endpoint's address, at most.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// What a writer has to know of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// libfabric's name of the provider: `verbs;ofi_rxm`, `efa`, `cxi`, `tcp;ofi_rxm`.
    pub provider: String,
    /// libfabric's number of the address format.
    pub format: u32,
    /// The endpoint's address.
    pub address: Vec<u8>,
    /// Its regions, in the order in which they were given.
    pub regions: Vec<Key>,
}

/// What gives access to a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The remote key.
    pub key: u64,
    /// Address of the region's first byte: a virtual one of the target, or 0 where providers count from the start.
    pub base: u64,
}

/// Why there are no one-sided writes.
#[derive(Debug, Error)]
pub enum Error {
    /// Compiled without libfabric.
    #[error(
        "this program was built without libfabric: install libfabric-dev, `cargo clean -p partita-rdma` and build it \
         again, or use --transport tcp"
    )]
    NotBuilt,
    /// libfabric is not on this host.
    #[error("libfabric cannot be loaded ({0}): install libfabric1 on this host, or use --transport tcp")]
    NotInstalled(String),
    /// No provider for this address.
    #[error(
        "libfabric has no provider for one-sided writes over {ip}{}: look at `fi_info -t FI_EP_RDM` and FI_PROVIDER \
         on this host, or use --transport tcp", wanted(.provider)
    )]
    NoProvider {
        /// The address of this host.
        ip: IpAddr,
        /// What the target uses.
        provider: Option<String>,
    },
    /// A call of libfabric failed.
    #[error("libfabric cannot {what} with provider {provider}: {text} ({code})")]
    Call {
        /// What was asked of it.
        what: &'static str,
        /// The provider.
        provider: String,
        /// libfabric's number.
        code: i32,
        /// libfabric's text.
        text: String,
    },
    /// A window that cannot be one.
    #[error("the other side's window is invalid: {0}")]
    Window(&'static str),
    /// No thread for the target's progress, or no memory.
    #[error("cannot drive the fabric")]
    System(#[from] std::io::Error),
}

fn wanted(provider: &Option<String>) -> String {
    provider
        .as_ref()
        .map(|provider| format!(" with provider {provider}, which the other side uses"))
        .unwrap_or_default()
}

impl Error {
    /// Whether the connection is gone, with nothing wrong otherwise: another endpoint may carry on.
    pub fn is_break(&self) -> bool {
        // EIO is what verbs makes of a peer that does not answer, ECANCELED what ofi_rxm makes of every lost connection.
        const BREAKS: [i32; 11] = [5, 32, 103, 104, 107, 108, 110, 111, 112, 113, 125];
        matches!(self, Self::Call { code, .. } if BREAKS.contains(code))
    }
}

impl Window {
    /// Checks what came from a peer; nothing of it is believed, it only has to be safe to use.
    ///
    /// # Errors
    /// `Window`.
    pub fn check(&self) -> Result<(), Error> {
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b";_-".contains(&byte);
        if !(1..=PROVIDER_BYTES_MAX).contains(&self.provider.len()) || !self.provider.bytes().all(name) {
            return Err(Error::Window("that is no name of a provider"));
        }
        if !(1..=ADDRESS_BYTES_MAX).contains(&self.address.len()) {
            return Err(Error::Window("its address is empty or too long"));
        }
        Ok(())
    }
}
