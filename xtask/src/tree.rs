//! The source tree as a value: which files there are and the text of those that people write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Reading or writing the tree failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory could not be listed.
    #[error("cannot list the source tree")]
    List(#[from] walkdir::Error),
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file, relative to the root.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file, relative to the root.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A TOML file is not what it should be.
    #[error("{path} is not as expected")]
    Toml {
        /// The file, relative to the root.
        path: String,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// There is no `Cargo.toml` at the root, or that of a member is missing.
    #[error("{path} is missing: is --root the root of the workspace?")]
    Missing {
        /// The file, relative to the root.
        path: String,
    },
}

/// A package of the workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Name of the package.
    pub name: String,
    /// Its directory, relative to the root.
    pub directory: String,
    /// Its `Cargo.toml`.
    pub manifest: toml::Table,
}

impl Member {
    /// Path of its `Cargo.toml`, relative to the root.
    pub fn manifest_path(&self) -> String {
        format!("{}/Cargo.toml", self.directory)
    }
}

/// The files of the tree. Paths are relative to the root, with `/` between their parts.
#[derive(Debug, Default)]
pub struct Tree {
    root: PathBuf,
    /// Text of every file that people write.
    pub texts: BTreeMap<String, String>,
    /// Text files that are not UTF-8.
    pub not_utf8: Vec<String>,
    paths: BTreeSet<String>,
    /// The packages of the workspace.
    pub members: Vec<Member>,
}

/// Files with these name endings are text that people write.
const TEXT_EXTENSIONS: [&str; 24] = [
    "rs", "md", "toml", "yml", "yaml", "c", "h", "cc", "cpp", "cxx", "hpp", "f", "f90", "F90", "sh", "py",
    "s", "S", "ld", "lds", "html", "css", "js", "service",
];
/// Files of these names, too.
const TEXT_NAMES: [&str; 6] =
    ["Makefile", "Cargo.lock", "LICENSE", "Dockerfile", ".gitignore", ".gitattributes"];

#[derive(Deserialize)]
struct RootManifest {
    workspace: Workspace,
}

#[derive(Deserialize)]
struct Workspace {
    members: Vec<String>,
}

#[derive(Deserialize)]
struct PackageManifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

impl Tree {
    /// Reads the tree at `root`, leaving out `.git` and every directory whose name begins with `target`.
    pub fn load(root: &Path) -> Result<Self, Error> {
        let mut tree = Self { root: root.to_owned(), ..Self::default() };
        let skipped = |name: &str| name == ".git" || name.starts_with("target");
        let walk = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| {
            entry.depth() == 0
                || !entry.file_type().is_dir()
                || !skipped(&entry.file_name().to_string_lossy())
        }) {
            let entry = entry?;
            let Ok(relative) = entry.path().strip_prefix(root) else { continue };
            let path = relative.to_string_lossy().into_owned();
            if entry.file_type().is_file() && is_text(&path) {
                let bytes =
                    fs::read(entry.path()).map_err(|source| Error::Read { path: path.clone(), source })?;
                match String::from_utf8(bytes) {
                    Ok(text) => drop(tree.texts.insert(path.clone(), text)),
                    Err(_) => tree.not_utf8.push(path.clone()),
                }
            }
            tree.paths.insert(path);
        }
        tree.load_members()?;
        Ok(tree)
    }

    /// A tree from texts, for tests; `members` are the directories of packages.
    #[cfg(test)]
    pub fn from_texts(texts: &[(&str, &str)]) -> Self {
        let texts: BTreeMap<_, _> =
            texts.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        let paths = texts.keys().cloned().collect();
        let mut tree = Self { texts, paths, ..Self::default() };
        tree.load_members().unwrap();
        tree
    }

    fn load_members(&mut self) -> Result<(), Error> {
        let root: RootManifest = self.required_toml("Cargo.toml")?;
        for directory in root.workspace.members {
            let path = format!("{directory}/Cargo.toml");
            let name = self.required_toml::<PackageManifest>(&path)?.package.name;
            let manifest = self.required_toml(&path)?;
            self.members.push(Member { name, directory, manifest });
        }
        Ok(())
    }

    fn required_toml<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.toml(path)?.ok_or_else(|| Error::Missing { path: path.to_owned() })
    }

    /// The value of a TOML file, if there is one at `path`.
    pub fn toml<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.texts.get(path) else { return Ok(None) };
        toml::from_str(text).map(Some).map_err(|source| Error::Toml { path: path.to_owned(), source })
    }

    /// Whether there is a file or a directory at `path`.
    pub fn exists(&self, path: &str) -> bool {
        path.is_empty() || self.paths.contains(path)
    }

    /// The paths directly or indirectly below `directory`.
    pub fn below<'a>(&'a self, directory: &str) -> impl Iterator<Item = &'a String> {
        let prefix = format!("{directory}/");
        self.texts.keys().filter(move |path| path.starts_with(&prefix))
    }

    /// First line (from 1) of the text at `path` that contains `needle`; 1 if none does.
    pub fn line_of(&self, path: &str, needle: &str) -> usize {
        let lines = self.texts.get(path).map(String::as_str).unwrap_or_default().lines();
        lines.zip(1..).find(|(line, _)| line.contains(needle)).map_or(1, |(_, number)| number)
    }

    /// Replaces the file at `path`.
    pub fn write(&self, path: &str, text: &str) -> Result<(), Error> {
        fs::write(self.root.join(path), text).map_err(|source| Error::Write { path: path.to_owned(), source })
    }
}

fn is_text(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    TEXT_NAMES.contains(&name) || TEXT_EXTENSIONS.contains(&extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_directories_and_git_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n"),
            ("a/Cargo.toml", "[package]\nname = \"a\"\n"),
            ("a/src/lib.rs", "//! A.\n"),
            ("target-x/b.rs", "x"),
            (".git/c.rs", "x"),
        ] {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let tree = Tree::load(directory.path()).unwrap();
        assert_eq!(tree.texts.keys().collect::<Vec<_>>(), ["Cargo.toml", "a/Cargo.toml", "a/src/lib.rs"]);
        assert!(tree.exists("a/src") && !tree.exists("target-x"));
        assert_eq!(tree.members[0].name, "a");
    }
}
