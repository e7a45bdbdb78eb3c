//! Reads an application's manifest, `app.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use control::{
    Communication, Component, FileMapping, Group, HostName, Rank, RankSet, Specification, SpecificationError,
    Strategy,
};
use serde::Deserialize;
use toml::Spanned;

use super::{Document, PolicyError, read_text};

const MEMORY_DEFAULT: u64 = 256 << 20;

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
    load: Option<Spanned<f64>>,
    #[serde(default)]
    group: Vec<ManifestGroup>,
    #[serde(default)]
    communication: Vec<ManifestCommunication>,
    #[serde(default)]
    priority: i32,
    weight: Option<Spanned<f64>>,
    hosts_min: Option<Spanned<u32>>,
    hosts_max: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestGroup {
    ranks: Spanned<String>,
    #[serde(default)]
    split: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestCommunication {
    from: Spanned<String>,
    to: Spanned<String>,
    bytes_per_s: Spanned<String>,
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
    load: Option<Spanned<f64>>,
}

/// Reads the manifest at `path`; relative paths in it begin at its directory.
pub fn read(path: &Path) -> Result<Specification, PolicyError> {
    let text = read_text(path)?;
    let error = |source| PolicyError::Read { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(error)?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    Reader { document: Document { path, text: &text }, directory }.read()
}

struct Reader<'a> {
    document: Document<'a>,
    directory: &'a Path,
}

impl Reader<'_> {
    fn read(&self) -> Result<Specification, PolicyError> {
        let manifest: Manifest = self.document.parse()?;
        let strategy = self.strategy(manifest.strategy.as_ref())?;
        let specification = Specification {
            components: self.components(&manifest)?,
            strategy,
            pinned: self.pinned(&manifest, strategy)?,
            // A place that somebody chose is kept unless they say otherwise.
            migrate: manifest.migrate.unwrap_or(strategy != Strategy::Pinned),
            report: manifest.report.as_ref().map(|report| self.directory.join(report)),
            name: manifest.name.get_ref().clone(),
            groups: self.groups(&manifest)?,
            communication: self.communication(&manifest)?,
            priority: manifest.priority,
            weight: manifest.weight.as_ref().map_or(1.0, |weight| *weight.get_ref()),
            hosts_min: manifest.hosts_min.as_ref().map(|hosts| *hosts.get_ref()),
            hosts_max: manifest.hosts_max.as_ref().map(|hosts| *hosts.get_ref()),
            digests: BTreeMap::new(),
        };
        let path = || self.document.path.to_owned();
        specification.check().map_err(|error| {
            let hosts = || manifest.hosts_min.as_ref().or(manifest.hosts_max.as_ref());
            let at = match &error {
                SpecificationError::Name => Some(("name", manifest.name.span())),
                SpecificationError::Number("weight", _) => {
                    manifest.weight.as_ref().map(|it| ("weight", it.span()))
                }
                SpecificationError::Hosts => hosts().map(|it| ("hosts_min", it.span())),
                _ => None,
            };
            match at {
                Some((key, span)) => self.key(span.start, key, &error),
                None => PolicyError::Specification { path: path(), source: error },
            }
        })?;
        Ok(specification)
    }

    fn key(&self, position: usize, key: &str, message: &dyn std::fmt::Display) -> PolicyError {
        self.document.key(position, key, message)
    }

    fn groups(&self, manifest: &Manifest) -> Result<Vec<Group>, PolicyError> {
        let mut taken = BTreeSet::new();
        let mut groups = Vec::new();
        for it in &manifest.group {
            let ranks = self.rank_set("group.ranks", &it.ranks)?;
            if let Some(rank) = ranks.iter().find(|rank| !taken.insert(*rank)) {
                let message = format!("rank {rank} is in another group already");
                return Err(self.key(it.ranks.span().start, "group.ranks", &message));
            }
            groups.push(Group { ranks, split: it.split });
        }
        Ok(groups)
    }

    fn communication(&self, manifest: &Manifest) -> Result<Vec<Communication>, PolicyError> {
        let read = |it: &ManifestCommunication| {
            Ok(Communication {
                from: self.rank_set("communication.from", &it.from)?,
                to: self.rank_set("communication.to", &it.to)?,
                bytes_per_s: self.document.size("communication.bytes_per_s", &it.bytes_per_s)?,
            })
        };
        manifest.communication.iter().map(read).collect()
    }

    /// Ranks that exist; how many there are is known from the other keys.
    fn rank_set(&self, key: &str, text: &Spanned<String>) -> Result<RankSet, PolicyError> {
        self.document.value(key, text)
    }

    fn load(&self, load: Option<&Spanned<f64>>) -> Result<f64, PolicyError> {
        let Some(load) = load else { return Ok(1.0) };
        if *load.get_ref() > 0.0 && *load.get_ref() <= 1.0 {
            return Ok(*load.get_ref());
        }
        Err(self.key(load.span().start, "load", &SpecificationError::Number("load", 1)))
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
            load: self.load(manifest.load.as_ref())?,
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
            load: self.load(component.load.as_ref().or(manifest.load.as_ref()))?,
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
        let bytes = self.document.size("memory", memory)?;
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
            "balance" => Ok(Strategy::Balance),
            "locality" => Ok(Strategy::Locality),
            other => {
                let message = format!(
                    "`{other}` is not one of \"spread\", \"pack\", \"pinned\", \"balance\", \"locality\""
                );
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
                "name = \"x\"\nranks = 4\nexecutable = \"prog\"\n[[group]]\nranks = \"0-1\"\n[[group]]\nranks = \"1-2\"\n",
                "app.toml:7: `group.ranks`: rank 1 is in another group",
            ),
            ("name = \"x\"\nranks = 4\nexecutable = \"prog\"\nweight = -1.0\n", "app.toml:4: `weight`: "),
            ("name = \"x\"\nranks = 4\nexecutable = \"prog\"\nload = 2\n", "app.toml:4: `load`: "),
            ("name = \"x\"\nranks = 4\nexecutable = \"prog\"\nhosts_min = 5\n", "app.toml:4: `hosts_min`: "),
            (
                "name = \"x\"\nranks = 4\nexecutable = \"prog\"\n[[communication]]\nfrom = \"0\"\nto = \"z\"\nbytes_per_s = \"1M\"\n",
                "app.toml:6: `communication.to`: ",
            ),
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
