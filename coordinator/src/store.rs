//! Where the journal's bytes are kept: in a file on the head node, or in etcd when one head node is not enough.
//!
//! ```text
//! journal (chain of hashes) -- Store --> embedded: one file, locked by the process that has it open
//!                                  `---> etcd:     PREFIX/leader  (lease)   who may write: the one who made this key
//!                                                  PREFIX/head              written with every append, compared before
//!                                                  PREFIX/records/INDEX
//! ```
//! Either way there is one writer. In etcd every append is a transaction that holds only while the writer is the leader, so
//! a leader that was replaced can decide nothing any more; its number of starts in the journal, which the next leader
//! raises before it says anything, is the fencing token by which agents refuse it.

pub mod embedded;
pub mod etcd;

use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use etcd::EtcdError;

/// A store that cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file.
    #[error("{} cannot be used; is another coordinator running, or the disk full?", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the embedded store said.
        #[source]
        source: Box<redb::Error>,
    },
    /// etcd.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// What is in a store.
#[derive(Debug, Default)]
pub struct Stored {
    /// Number and bytes of every record, in order.
    pub records: Vec<(u64, Vec<u8>)>,
    /// The head as it was last written.
    pub head: Option<Vec<u8>>,
}

/// Records in order, and a head that changes with each append. There is one writer.
pub trait Store: std::fmt::Debug + Send {
    /// Its name, for people.
    fn name(&self) -> String;

    /// Everything that is in it.
    fn read(&mut self) -> Result<Stored, StoreError>;

    /// Adds records from number `first` on, and replaces the head. It is durable when this returns.
    fn append(&mut self, first: u64, records: &[Vec<u8>], head: &[u8]) -> Result<(), StoreError>;

    /// Most records, and bytes, of one append.
    fn batch(&self) -> (usize, usize) {
        (usize::MAX, usize::MAX)
    }

    /// What was decided cannot be made durable: nobody may act on it, so the process ends. The next start, here or of a
    /// standby, goes on from the journal.
    fn give_up(&self) -> ! {
        std::process::exit(1)
    }
}

/// Which store, as users write it: `file:PATH` or `etcd:URL[,URL…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// A file.
    File(PathBuf),
    /// The members of an etcd cluster.
    Etcd(Vec<String>),
}

impl StoreAddress {
    /// Does what is written stay on this machine?
    pub fn is_loopback(&self) -> bool {
        let host = |url: &String| {
            let rest = url.strip_prefix("http://").unwrap_or(url);
            let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
            control::is_loopback(host.trim_matches(['[', ']']))
        };
        match self {
            StoreAddress::File(_) => true,
            StoreAddress::Etcd(urls) => urls.iter().all(host),
        }
    }
}

/// A store that does not exist.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no store; write file:PATH or etcd:http://HOST:PORT[,http://HOST:PORT…]")]
pub struct StoreAddressError(String);

impl FromStr for StoreAddress {
    type Err = StoreAddressError;
    fn from_str(text: &str) -> Result<Self, StoreAddressError> {
        let error = || StoreAddressError(text.chars().take(200).collect());
        match text.split_once(':').ok_or_else(error)? {
            ("file", path) if !path.is_empty() => Ok(StoreAddress::File(path.into())),
            ("etcd", urls) => {
                let urls: Vec<String> =
                    urls.split(',').map(|url| url.trim_end_matches('/').to_owned()).collect();
                let plain = |url: &String| {
                    let rest = url.strip_prefix("http://").unwrap_or_default();
                    let port = rest.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                    port.is_some() && !rest.contains('/')
                };
                if urls.iter().all(plain) { Ok(StoreAddress::Etcd(urls)) } else { Err(error()) }
            }
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_read_as_people_write_them() {
        assert_eq!("file:/x".parse(), Ok(StoreAddress::File("/x".into())));
        let two = "etcd:http://127.0.0.1:2379,http://[::1]:2379/".parse::<StoreAddress>();
        assert!(two.as_ref().is_ok_and(StoreAddress::is_loopback), "{two:?}");
        let far = "etcd:http://10.0.0.1:2379".parse::<StoreAddress>();
        assert!(far.is_ok_and(|it| !it.is_loopback()));
        for bad in
            ["", "file:", "etcd:", "etcd:127.0.0.1:2379", "etcd:http://x", "etcd:http://x:1/y", "redis:x"]
        {
            assert!(bad.parse::<StoreAddress>().is_err(), "{bad}");
        }
    }
}
