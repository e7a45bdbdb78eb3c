//! The journal: every [`Entry`] in order in a store, each hashed together with the hash before it.
//!
//! ```text
//! record: hash (32 bytes) | entry (JSON)
//!         hash = SHA-256( hash before (32 zero bytes at first) | index (u64 LE, from 0) | length (u64 LE) | entry )
//! head:   count (u64 LE) | hash of the last record: a cut-off end is found as well
//! ```
//! A change of any record, also one that keeps it well-formed, is found when the journal is opened. Who can write the file
//! can also write a whole new chain: the head's hash has to be kept elsewhere to exclude that.

use std::path::Path;

use control::ClusterId;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::record::{Entry, Record, VERSION};
use crate::store::embedded::Embedded;
use crate::store::{Store, StoreError};

const HASH_BYTES: usize = 32;
const ENTRY_BYTES_MAX: usize = 16 << 20;

type Hash = [u8; HASH_BYTES];

/// A journal that cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The store failed.
    #[error("the journal")]
    Store(#[from] StoreError),
    /// A record is not what was written.
    #[error("the journal {name} was changed or damaged at record {index}; restore it from a copy")]
    Damaged {
        /// The store.
        name: String,
        /// The first bad record.
        index: u64,
    },
    /// It was written by another version.
    #[error(
        "the journal {name} has version {version}, this program {VERSION}; use the program that wrote it"
    )]
    Version {
        /// The store.
        name: String,
        /// Its version.
        version: u32,
    },
}

/// An open journal. There is one writer: the store sees to it.
#[derive(Debug)]
pub struct Journal {
    store: Box<dyn Store>,
    count: u64,
    hash: Hash,
}

/// The bytes of record `index` after `before`: its hash and the entry.
pub fn seal(before: &Hash, index: u64, entry: &[u8]) -> Vec<u8> {
    let mut bytes = chain(before, index, entry).to_vec();
    bytes.extend_from_slice(entry);
    bytes
}

fn chain(before: &Hash, index: u64, entry: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update(index.to_le_bytes());
    hasher.update((entry.len() as u64).to_le_bytes());
    hasher.update(entry);
    hasher.finalize().into()
}

impl Journal {
    /// Opens or makes the journal in a file, see [`Journal::open_in`].
    pub fn open(
        path: &Path,
        new_cluster: &ClusterId,
        now_ms: u64,
    ) -> Result<(Self, Vec<Entry>), JournalError> {
        Self::open_in(Box::new(Embedded::open(path)?), new_cluster, now_ms)
    }

    /// Checks the whole chain in a store, and returns the entries. A new journal begins with a [`Record::Genesis`] for
    /// `new_cluster`.
    pub fn open_in(
        store: Box<dyn Store>,
        new_cluster: &ClusterId,
        now_ms: u64,
    ) -> Result<(Self, Vec<Entry>), JournalError> {
        let mut journal = Self { store, count: 0, hash: [0; HASH_BYTES] };
        let entries = journal.read()?;
        if let Some(Entry { record: Record::Genesis { version, .. }, .. }) = entries.first()
            && *version != VERSION
        {
            return Err(JournalError::Version { name: journal.store.name(), version: *version });
        }
        if !entries.is_empty() {
            return Ok((journal, entries));
        }
        let first = Record::Genesis { version: VERSION, cluster: new_cluster.clone() };
        let first = vec![Entry { time_ms: now_ms, record: first }];
        journal.append(&first)?;
        Ok((journal, first))
    }

    /// Number of records and hash of the last, to be kept elsewhere.
    pub fn head(&self) -> (u64, Hash) {
        (self.count, self.hash)
    }

    /// Adds entries; they are durable when this returns. If it fails the first of them may be, in whole batches.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let (records_max, bytes_max) = self.store.batch();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            let encoded = control::encode(entry);
            if !batch.is_empty()
                && (batch.len() >= records_max || bytes + encoded.len() + HASH_BYTES > bytes_max)
            {
                self.write(&std::mem::take(&mut batch))?;
                bytes = 0;
            }
            bytes += encoded.len() + HASH_BYTES;
            batch.push(encoded);
        }
        if batch.is_empty() { Ok(()) } else { self.write(&batch) }
    }

    /// What was decided cannot be written: the process ends, as the store sees fit.
    pub fn give_up(&self) -> ! {
        self.store.give_up()
    }

    fn write(&mut self, entries: &[Vec<u8>]) -> Result<(), JournalError> {
        let (mut count, mut hash) = (self.count, self.hash);
        let mut records = Vec::new();
        for entry in entries {
            let sealed = seal(&hash, count, entry);
            hash.copy_from_slice(&sealed[..HASH_BYTES]);
            records.push(sealed);
            count += 1;
        }
        self.store.append(self.count, &records, &head(count, &hash))?;
        (self.count, self.hash) = (count, hash);
        Ok(())
    }

    fn read(&mut self) -> Result<Vec<Entry>, JournalError> {
        let stored = self.store.read()?;
        let mut entries = Vec::new();
        let name = self.store.name();
        for (index, sealed) in stored.records {
            let damaged = || JournalError::Damaged { name: name.clone(), index: entries.len() as u64 };
            let entry = sealed
                .get(HASH_BYTES..)
                .filter(|entry| entry.len() <= ENTRY_BYTES_MAX)
                .ok_or_else(damaged)?;
            let hash = chain(&self.hash, index, entry);
            if index != self.count || sealed.get(..HASH_BYTES) != Some(&hash) {
                return Err(damaged());
            }
            let entry = serde_json::from_slice(entry).map_err(|_| damaged())?;
            entries.push(entry);
            (self.count, self.hash) = (self.count + 1, hash);
        }
        if entries.is_empty() && stored.head.is_none() {
            return Ok(entries);
        }
        if stored.head.as_deref() != Some(head(self.count, &self.hash).as_slice()) {
            return Err(JournalError::Damaged { name, index: self.count });
        }
        Ok(entries)
    }
}

fn head(count: u64, hash: &Hash) -> Vec<u8> {
    [count.to_le_bytes().as_slice(), hash].concat()
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableTable, TableDefinition};

    use super::*;

    const RECORDS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("records");

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    fn started(incarnation: u64) -> Entry {
        Entry { time_ms: 1_700_000_000_000, record: Record::Started { incarnation } }
    }

    fn written(path: &Path) -> Result<(u64, Hash)> {
        let (mut journal, entries) = Journal::open(path, &"c1".parse()?, 5)?;
        assert_eq!(entries.len(), 1);
        journal.append(&[started(1), started(2)])?;
        Ok(journal.head())
    }

    fn change(path: &Path, change: impl FnOnce(&redb::WriteTransaction) -> Result) -> Result {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        change(&transaction)?;
        transaction.commit()?;
        Ok(())
    }

    #[test]
    fn what_was_written_is_read_again() -> Result {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("j.redb");
        let head = written(&path)?;
        let (journal, entries) = Journal::open(&path, &"c2".parse()?, 9)?;
        assert_eq!(journal.head(), head);
        assert_eq!(entries[1..], [started(1), started(2)]);
        assert!(matches!(&entries[0].record, Record::Genesis { cluster, .. } if cluster.as_str() == "c1"));
        Ok(())
    }

    #[test]
    fn a_changed_record_is_found_even_if_it_is_well_formed() -> Result {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("j.redb");
        written(&path)?;
        change(&path, |transaction| {
            let mut records = transaction.open_table(RECORDS)?;
            let old = records.get(1)?.ok_or("no record 1")?.value().to_vec();
            let text =
                String::from_utf8_lossy(&old[HASH_BYTES..]).replace("\"incarnation\":1", "\"incarnation\":7");
            records.insert(1, [&old[..HASH_BYTES], text.as_bytes()].concat().as_slice())?;
            Ok(())
        })?;
        assert!(matches!(
            Journal::open(&path, &"c2".parse()?, 9),
            Err(JournalError::Damaged { index: 1, .. })
        ));
        Ok(())
    }

    #[test]
    fn a_removed_end_and_a_removed_middle_are_found() -> Result {
        for (removed, found) in [(2, 2), (1, 1), (0, 0)] {
            let directory = tempfile::tempdir()?;
            let path = directory.path().join("j.redb");
            written(&path)?;
            change(&path, |transaction| {
                transaction.open_table(RECORDS)?.remove(removed)?;
                Ok(())
            })?;
            let opened = Journal::open(&path, &"c2".parse()?, 9);
            assert!(
                matches!(opened, Err(JournalError::Damaged { index, .. }) if index == found),
                "{removed}"
            );
        }
        Ok(())
    }

    #[test]
    fn the_bytes_of_a_record_do_not_change() -> Result {
        let entry = Entry {
            time_ms: 1_700_000_000_000,
            record: Record::MoveStarted {
                id: 3,
                application: "heat-1".parse()?,
                rank: 2,
                from: "a".parse()?,
                to: "b".parse()?,
                epoch: 4,
                reason: "asked by a user".into(),
                explanation: None,
                predicted: None,
            },
        };
        let encoded = control::encode(&entry);
        let golden = r#"{"time_ms":1700000000000,"record":{"move-started":{"id":3,"application":"heat-1","rank":2,"from":"a","to":"b","epoch":4,"reason":"asked by a user","explanation":null}}}"#;
        assert_eq!(String::from_utf8_lossy(&encoded), golden);
        let sealed = seal(&[7; HASH_BYTES], 5, &encoded);
        let hash: String = sealed[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, GOLDEN_HASH);
        assert_eq!(&sealed[HASH_BYTES..], encoded);
        Ok(())
    }

    const GOLDEN_HASH: &str = "710d7813f3950111be358e11939334724a4a826ef53701a3823707e383bfd494";
}
