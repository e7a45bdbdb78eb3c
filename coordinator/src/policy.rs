//! What was asked: reads an application's manifest; every error names file, line and key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use control::{
    Component, FileMapping, HostName, Rank, Specification, SpecificationError, Strategy, parse_size,
};
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

const MANIFEST_BYTES_MAX: u64 = 1 << 20;
const MEMORY_DEFAULT: u64 = 256 << 20;

/// A manifest that cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("{}: it cannot be read", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too long to be one.
    #[error("{}: it is longer than {MANIFEST_BYTES_MAX} bytes; is it a manifest?", .0.display())]
    TooLong(PathBuf),
    /// It is not TOML, or has a key that is not known or of the wrong type.
    #[error("{}:{line}: {message}", path.display())]
    Toml {
        /// The manifest.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there, with the key.
        message: String,
    },
    /// A key has an impossible value.
    #[error("{}:{line}: `{key}`: {message}", path.display())]
    Key {
        /// The manifest.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// It is impossible as a whole.
    #[error("{}: {source}", path.display())]
    Specification {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: SpecificationError,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: Spanned<String>,
    ranks: Option<Spanned<u32>>,
    executable: Option<Spanned<PathBuf>>,
    #[serde(default)]
    args: Vec<String>,
    memory: Option<Spanned<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<Spanned<String>>,
    #[serde(default)]
    component: Vec<Spanned<ManifestComponent>>,
    #[serde(default)]
    strategy: Option<Spanned<String>>,
    #[serde(default)]
    pinned: BTreeMap<Spanned<String>, Spanned<String>>,
    migrate: Option<bool>,
    report: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestComponent {
    executable: Spanned<PathBuf>,
    #[serde(default)]
    args: Vec<String>,
    ranks: Spanned<u32>,
    memory: Option<Spanned<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<Spanned<String>>,
}

/// Reads the manifest at `path`; relative paths in it begin at its directory.
pub fn read(path: &Path) -> Result<Specification, PolicyError> {
    let error = |source| PolicyError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(error)?.len() > MANIFEST_BYTES_MAX {
        return Err(PolicyError::TooLong(path.to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(error)?;
    let absolute = std::path::absolute(path).map_err(error)?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    Reader { path, text: &text, directory }.read()
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    directory: &'a Path,
}

impl Reader<'_> {
    fn read(&self) -> Result<Specification, PolicyError> {
        let manifest: Manifest = toml::from_str(self.text).map_err(|error| PolicyError::Toml {
            path: self.path.to_owned(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', " "),
        })?;
        let strategy = self.strategy(manifest.strategy.as_ref())?;
        let specification = Specification {
            components: self.components(&manifest)?,
            strategy,
            pinned: self.pinned(&manifest, strategy)?,
            // A place that somebody chose is kept unless they say otherwise.
            migrate: manifest.migrate.unwrap_or(strategy != Strategy::Pinned),
            report: manifest.report.as_ref().map(|report| self.directory.join(report)),
            name: manifest.name.get_ref().clone(),
        };
        match specification.check() {
            Ok(()) => Ok(specification),
            Err(error @ SpecificationError::Name) => {
                Err(self.key(manifest.name.span().start, "name", &error))
            }
            Err(source) => Err(PolicyError::Specification { path: self.path.to_owned(), source }),
        }
    }

    fn components(&self, manifest: &Manifest) -> Result<Vec<Component>, PolicyError> {
        let whole = manifest.ranks.as_ref().zip(manifest.executable.as_ref());
        let start = manifest.name.span().start;
        if let Some(first) = manifest.component.first() {
            if manifest.executable.is_some() {
                return Err(self.key(
                    first.span().start,
                    "component",
                    &"use either `executable` or [[component]]",
                ));
            }
            let components: Result<Vec<_>, _> =
                manifest.component.iter().map(|it| self.component(it.get_ref(), manifest)).collect();
            let components = components?;
            let sum = components.iter().fold(0_u32, |sum, it| sum.saturating_add(it.ranks));
            if let Some(ranks) = manifest.ranks.as_ref().filter(|ranks| *ranks.get_ref() != sum) {
                let message = format!("the components have {sum} ranks together; correct one of them");
                return Err(self.key(ranks.span().start, "ranks", &message));
            }
            return Ok(components);
        }
        let Some((ranks, executable)) = whole else {
            let missing = if manifest.ranks.is_none() { "ranks" } else { "executable" };
            return Err(self.key(
                start,
                missing,
                &"it is missing; give `ranks` and `executable`, or [[component]]",
            ));
        };
        let component = Component {
            executable: self.executable(executable)?,
            args: manifest.args.clone(),
            ranks: self.ranks(ranks)?,
            memory_bytes: self.memory(manifest.memory.as_ref())?,
            env: manifest.env.clone(),
            files: self.files(&manifest.files)?,
        };
        Ok(vec![component])
    }

    /// What a component does not say, the manifest as a whole says.
    fn component(
        &self,
        component: &ManifestComponent,
        manifest: &Manifest,
    ) -> Result<Component, PolicyError> {
        let mut env = manifest.env.clone();
        env.extend(component.env.clone());
        let mut files = self.files(&manifest.files)?;
        files.extend(self.files(&component.files)?);
        Ok(Component {
            executable: self.executable(&component.executable)?,
            args: component.args.clone(),
            ranks: self.ranks(&component.ranks)?,
            memory_bytes: self.memory(component.memory.as_ref().or(manifest.memory.as_ref()))?,
            env,
            files,
        })
    }

    fn ranks(&self, ranks: &Spanned<u32>) -> Result<u32, PolicyError> {
        if (1..=control::RANKS_MAX).contains(ranks.get_ref()) {
            return Ok(*ranks.get_ref());
        }
        Err(self.key(ranks.span().start, "ranks", &SpecificationError::Ranks))
    }

    fn executable(&self, executable: &Spanned<PathBuf>) -> Result<PathBuf, PolicyError> {
        let path = self.directory.join(executable.get_ref());
        if path.is_file() {
            return Ok(path);
        }
        let message = format!("there is no file {}", path.display());
        Err(self.key(executable.span().start, "executable", &message))
    }

    fn memory(&self, memory: Option<&Spanned<String>>) -> Result<u64, PolicyError> {
        let Some(memory) = memory else { return Ok(MEMORY_DEFAULT) };
        let start = memory.span().start;
        let bytes = parse_size(memory.get_ref()).map_err(|error| self.key(start, "memory", &error))?;
        if bytes == 0 || bytes % (1 << 20) != 0 || bytes > 1 << 40 {
            return Err(self.key(start, "memory", &SpecificationError::Memory));
        }
        Ok(bytes)
    }

    /// `HOST` or `HOST:GUEST`.
    fn files(&self, files: &[Spanned<String>]) -> Result<Vec<FileMapping>, PolicyError> {
        let file = |file: &Spanned<String>| {
            let text = file.get_ref();
            let (host, guest) = text.rsplit_once(':').unwrap_or((text, text));
            let host = self.directory.join(host);
            if host.is_file() {
                return Ok(FileMapping { host, guest: guest.to_owned() });
            }
            let message = format!("there is no file {}", host.display());
            Err(self.key(file.span().start, "files", &message))
        };
        files.iter().map(file).collect()
    }

    fn strategy(&self, strategy: Option<&Spanned<String>>) -> Result<Strategy, PolicyError> {
        let Some(strategy) = strategy else { return Ok(Strategy::Spread) };
        match strategy.get_ref().as_str() {
            "spread" => Ok(Strategy::Spread),
            "pack" => Ok(Strategy::Pack),
            "pinned" => Ok(Strategy::Pinned),
            other => {
                let message = format!("`{other}` is not one of \"spread\", \"pack\", \"pinned\"");
                Err(self.key(strategy.span().start, "strategy", &message))
            }
        }
    }

    fn pinned(
        &self,
        manifest: &Manifest,
        strategy: Strategy,
    ) -> Result<BTreeMap<Rank, HostName>, PolicyError> {
        let mut pinned = BTreeMap::new();
        for (rank, host) in &manifest.pinned {
            let key = format!("pinned.{}", rank.get_ref());
            if strategy != Strategy::Pinned {
                return Err(self.key(rank.span().start, &key, &"[pinned] needs strategy = \"pinned\""));
            }
            let number = rank.get_ref().parse::<Rank>();
            let number = number
                .map_err(|_| self.key(rank.span().start, &key, &"write a rank, such as 0 = \"host\""))?;
            let name = host.get_ref().parse::<HostName>();
            let name = name.map_err(|error| self.key(host.span().start, &key, &error))?;
            pinned.insert(number, name);
        }
        Ok(pinned)
    }

    fn key(&self, position: usize, key: &str, message: &dyn std::fmt::Display) -> PolicyError {
        PolicyError::Key {
            path: self.path.to_owned(),
            line: self.line(position),
            key: key.to_owned(),
            message: message.to_string(),
        }
    }

    fn line(&self, position: usize) -> usize {
        self.text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    fn read_text(text: &str) -> Result<std::result::Result<Specification, String>> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("prog"), b"x")?;
        let path = directory.path().join("app.toml");
        std::fs::write(&path, text)?;
        let shown = format!("{}/", directory.path().display());
        Ok(read(&path).map_err(|error| error.to_string().replace(&shown, "")))
    }

    #[test]
    fn a_manifest_is_read_with_paths_made_absolute() -> Result {
        let text = "name = \"heat\"\nstrategy = \"pinned\"\nmigrate = true\nmemory = \"64M\"\n\
            [[component]]\nexecutable = \"prog\"\nranks = 2\n[[component]]\nexecutable = \"./prog\"\nranks = 1\n\
            memory = \"128M\"\nenv = { A = \"1\" }\n[pinned]\n0 = \"a\"\n2 = \"b\"\n";
        let specification = read_text(text)??;
        assert_eq!(specification.ranks(), 3);
        assert!(specification.components.iter().all(|it| it.executable.is_absolute()));
        assert_eq!(specification.component(1).map(|it| it.memory_bytes), Some(64 << 20));
        assert_eq!(specification.component(2).map(|it| it.memory_bytes), Some(128 << 20));
        assert_eq!(specification.pinned.len(), 2);
        assert!(specification.migrate);
        Ok(())
    }

    #[test]
    fn every_error_names_file_line_and_key() -> Result {
        let cases = [
            ("name = \"x\"\nranks = 0\nexecutable = \"prog\"\n", "app.toml:2: `ranks`"),
            (
                "name = \"x\"\nranks = 1\nexecutable = \"gone\"\n",
                "app.toml:3: `executable`: there is no file",
            ),
            ("name = \"x\"\nranks = 1\n", "app.toml:1: `executable`: it is missing"),
            ("name = \"a b\"\nranks = 1\nexecutable = \"prog\"\n", "app.toml:1: `name`"),
            ("name = \"x\"\nranks = 1\nexecutable = \"prog\"\nmemory = \"1.5M\"\n", "app.toml:4: `memory`"),
            ("name = \"x\"\nranks = 1\nexecutable = \"prog\"\nstrategy = \"x\"\n", "app.toml:4: `strategy`"),
            (
                "name = \"x\"\nranks = 1\nexecutable = \"prog\"\nrank = 2\n",
                "app.toml:4: unknown field `rank`",
            ),
            ("name = \"x\"\nranks = \"1\"\nexecutable = \"prog\"\n", "app.toml:2: invalid type: string"),
            (
                "name = \"x\"\nranks = 1\nexecutable = \"prog\"\n[pinned]\n0 = \"a\"\n",
                "app.toml:5: `pinned.0`",
            ),
            ("name = \"x\"\n\n[[component]\n", "app.toml:3: "),
            (
                "name = \"x\"\nranks = 3\n[[component]]\nexecutable = \"prog\"\nranks = 2\n",
                "app.toml:2: `ranks`",
            ),
        ];
        for (text, expected) in cases {
            let message = read_text(text)?.err().unwrap_or_default();
            assert!(message.starts_with(expected), "{message}\n  instead of {expected}");
        }
        Ok(())
    }
}
