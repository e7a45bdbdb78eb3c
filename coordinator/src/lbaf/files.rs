//! The files of an LBAF problem: found, decompressed, read as JSON, and written again.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{LbafError, RANKS_MAX};

/// Longest file, decompressed, in bytes.
pub const FILE_BYTES_MAX: u64 = 512 << 20;

/// One rank's file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    content: Value,
    /// `metadata.rank_alpha`, by which LBAF scales this rank's loads; 1 if it is not there.
    pub alpha: f64,
}

/// A phase in a file.
#[derive(Clone, Copy, Debug)]
pub struct Phase<'a> {
    content: &'a Value,
    /// Its position in `phases`.
    pub position: usize,
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl<'a> Phase<'a> {
    /// Its tasks.
    pub fn tasks(&self) -> &'a [Value] {
        list(self.content, "tasks")
    }

    /// A copy of a task.
    pub fn task(&self, index: usize) -> Value {
        self.tasks().get(index).cloned().unwrap_or_default()
    }

    /// Its communications.
    pub fn communications(&self) -> &'a [Value] {
        list(self.content, "communications")
    }
}

impl File {
    /// An error about a key of this file.
    pub fn error(&self, key: &str, message: &str) -> LbafError {
        LbafError::Key { path: self.path.clone(), key: key.to_owned(), message: message.to_owned() }
    }

    /// The number at a key, from 0 to `max`.
    pub fn number(&self, value: Option<&Value>, key: &str, max: f64) -> Result<f64, LbafError> {
        let value = value.ok_or_else(|| self.error(key, "it is missing"))?;
        let number = value.as_f64().ok_or_else(|| self.error(key, "it is not a number"))?;
        if number.is_finite() && (0.0..=max).contains(&number) {
            return Ok(number);
        }
        Err(self.error(key, &format!("{number} is out of range (0 to {max:e})")))
    }

    /// The phase of this number.
    pub fn phase(&self, number: u64) -> Result<Phase<'_>, LbafError> {
        let phases = list(&self.content, "phases");
        let id = |phase: &Value| phase.get("id").and_then(Value::as_u64);
        let found = phases.iter().position(|phase| id(phase) == Some(number));
        let position = found.ok_or_else(|| {
            let there: Vec<String> = phases.iter().filter_map(id).map(|id| id.to_string()).collect();
            self.error("phases", &format!("phase {number} is not among them ({})", there.join(", ")))
        })?;
        Ok(Phase { content: &phases[position], position })
    }

    fn read(path: &Path) -> Result<Self, LbafError> {
        let error = |source| LbafError::Io { path: path.to_owned(), what: "read", source };
        let file = std::fs::File::open(path).map_err(error)?;
        let mut bytes = Vec::new();
        let compressed = path.extension().is_some_and(|it| it == "br");
        let count = if compressed {
            brotli::Decompressor::new(file, 64 << 10).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
        } else {
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
        };
        if count.map_err(error)? as u64 > FILE_BYTES_MAX {
            return Err(LbafError::TooLong(path.to_owned()));
        }
        let content: Value = serde_json::from_slice(&bytes)
            .map_err(|source| LbafError::Json { path: path.to_owned(), source })?;
        let mut file = Self { path: path.to_owned(), content, alpha: 1.0 };
        if !file.content.get("phases").is_some_and(Value::is_array) {
            return Err(file.error("phases", "it is missing, or not a list"));
        }
        if let Some(alpha) = file.content.get("metadata").and_then(|it| it.get("rank_alpha")) {
            file.alpha = file.number(Some(alpha), "metadata.rank_alpha", 1e9)?;
        }
        Ok(file)
    }
}

/// `(NAME, RANK)` of a file `NAME.RANK.json` or `NAME.RANK.json.br`.
fn split_name(path: &Path) -> Option<(String, usize)> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".br").unwrap_or(name).strip_suffix(".json")?;
    let (stem, rank) = name.rsplit_once('.')?;
    Some((stem.to_owned(), rank.parse().ok()?))
}

/// The files of all ranks, in their order. Of several data sets in one directory the one with the shortest name is read.
pub fn read_all(directory: &Path) -> Result<Vec<File>, LbafError> {
    let error = |source| LbafError::Io { path: directory.to_owned(), what: "read", source };
    let mut sets: BTreeMap<(usize, String), BTreeMap<usize, PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if let Some((stem, rank)) = split_name(&path) {
            // Of two forms of one file the plain one is read.
            let place =
                sets.entry((stem.len(), stem)).or_default().entry(rank).or_insert_with(|| path.clone());
            if path.extension().is_some_and(|it| it == "json") {
                *place = path;
            }
        }
    }
    let Some((_, ranks)) = sets.into_iter().next() else {
        return Err(LbafError::NoFiles(directory.to_owned()));
    };
    if ranks.len() > RANKS_MAX {
        return Err(LbafError::TooMany(directory.to_owned()));
    }
    if let Some(missing) = (0..ranks.len()).find(|rank| !ranks.contains_key(rank)) {
        return Err(LbafError::Missing { path: directory.to_owned(), there: ranks.len(), missing });
    }
    ranks.into_values().map(|path| File::read(&path)).collect()
}

/// Writes the files again, with other tasks and communications in one phase.
pub fn write_all(
    directory: &Path,
    files: &[File],
    phase: u64,
    tasks: Vec<Vec<Value>>,
    communications: Vec<Vec<Value>>,
) -> Result<(), LbafError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| LbafError::Io { path, what: "written", source }
    };
    std::fs::create_dir_all(directory).map_err(error(directory))?;
    for ((file, tasks), communications) in files.iter().zip(tasks).zip(communications) {
        let position = file.phase(phase)?.position;
        let mut content = file.content.clone();
        let place = &mut content["phases"][position];
        if place.get("communications").is_some() || !communications.is_empty() {
            place["communications"] = Value::Array(communications);
        }
        place["tasks"] = Value::Array(tasks);
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = directory.join(name.strip_suffix(".br").unwrap_or(&name));
        std::fs::write(&path, content.to_string()).map_err(error(&path))?;
    }
    Ok(())
}
