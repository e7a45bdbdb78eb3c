//! The store in one file of the head node.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Store, StoreError, Stored};

const RECORDS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("records");
const HEAD: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("head");

/// An open file, locked for other processes.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    database: Database,
}

impl Embedded {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(|source| error(path, source.into()))?;
        Ok(Self { path: path.to_owned(), database })
    }

    fn read_all(&self) -> Result<Stored, redb::Error> {
        let transaction = self.database.begin_read()?;
        let records = match transaction.open_table(RECORDS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Stored::default()),
            records => records?,
        };
        let mut stored = Stored::default();
        for item in records.iter()? {
            let (index, sealed) = item?;
            stored.records.push((index.value(), sealed.value().to_vec()));
        }
        stored.head = transaction.open_table(HEAD)?.get("head")?.map(|head| head.value().to_vec());
        Ok(stored)
    }

    fn write(&self, first: u64, records: &[Vec<u8>], head: &[u8]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for (index, record) in (first..).zip(records) {
                table.insert(index, record.as_slice())?;
            }
            transaction.open_table(HEAD)?.insert("head", head)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn error(path: &Path, source: redb::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), source: Box::new(source) }
}

impl Store for Embedded {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&mut self) -> Result<Stored, StoreError> {
        self.read_all().map_err(|source| error(&self.path, source))
    }

    fn append(&mut self, first: u64, records: &[Vec<u8>], head: &[u8]) -> Result<(), StoreError> {
        self.write(first, records, head).map_err(|source| error(&self.path, source))
    }
}
