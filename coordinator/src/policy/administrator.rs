//! Reads the administrator's `policy.toml`; `docs/policy.md` describes its keys.

use std::path::Path;

use control::{
    Demand, Gates, HostSelector, Limits, Maintenance, Policy, PolicyRule, PolicyValueError, PoolPolicy,
    Quota, Reserve, Selector,
};
use serde::Deserialize;
use toml::Spanned;
use toml::value::{Datetime, Offset};

use super::{Document, PolicyError, read_text};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    affinity: Vec<Spanned<Rule>>,
    #[serde(default)]
    anti_affinity: Vec<Spanned<Rule>>,
    #[serde(default)]
    pin: Vec<Spanned<HostRule>>,
    #[serde(default)]
    forbid: Vec<Spanned<HostRule>>,
    #[serde(default)]
    licence: Vec<Spanned<Licence>>,
    #[serde(default)]
    maintenance: Vec<Window>,
    #[serde(default)]
    reserve: Vec<ReserveOf>,
    #[serde(default)]
    quota: Vec<QuotaOf>,
    #[serde(default)]
    limits: Option<Spanned<Limits>>,
    #[serde(default)]
    gates: Option<Spanned<Gates>>,
    #[serde(default)]
    pool: Option<Spanned<PoolPolicy>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: Option<String>,
    partitions: Vec<Spanned<String>>,
    price: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostRule {
    name: Option<String>,
    partitions: Vec<Spanned<String>>,
    hosts: Vec<Spanned<String>>,
    price: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licence {
    name: Option<String>,
    partitions: Vec<Spanned<String>>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    per_host: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    name: Option<String>,
    hosts: Vec<Spanned<String>>,
    from: Spanned<Datetime>,
    until: Spanned<Datetime>,
    evacuate: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReserveOf {
    hosts: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    processors: f64,
    memory: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaOf {
    application: Spanned<String>,
    moves: Option<u32>,
    hosts: Option<u32>,
    ranks: Option<u32>,
    memory: Option<Spanned<String>>,
}

/// Reads and checks the policy at `path`.
pub fn read_policy(path: &Path) -> Result<Policy, PolicyError> {
    let text = read_text(path)?;
    Reader { document: Document { path, text: &text } }.read()
}

struct Reader<'a> {
    document: Document<'a>,
}

impl Reader<'_> {
    fn read(&self) -> Result<Policy, PolicyError> {
        let file: File = self.document.parse()?;
        let policy = Policy {
            rules: self.rules(&file)?,
            maintenance: file.maintenance.iter().map(|it| self.window(it)).collect::<Result<_, _>>()?,
            reserves: file.reserve.iter().map(|it| self.reserve(it)).collect::<Result<_, _>>()?,
            quotas: file.quota.iter().map(|it| self.quota(it)).collect::<Result<_, _>>()?,
            limits: file.limits.as_ref().map(|it| it.get_ref().clone()).unwrap_or_default(),
            gates: file.gates.as_ref().map(|it| it.get_ref().clone()).unwrap_or_default(),
            pool: file.pool.as_ref().map(|it| it.get_ref().clone()).unwrap_or_default(),
        };
        let Err(error) = policy.check() else { return Ok(policy) };
        Err(self.at(&file, error))
    }

    /// Where in the file the key of a value that is out of range stands.
    fn at(&self, file: &File, error: PolicyValueError) -> PolicyError {
        let name = match &error {
            PolicyValueError::Range(name, ..) | PolicyValueError::TooMuch(name) => *name,
            PolicyValueError::Nobody(_) => "partitions",
            PolicyValueError::Window(_) => "until",
        };
        let tables = [
            file.limits.as_ref().map(Spanned::span),
            file.gates.as_ref().map(Spanned::span),
            file.pool.as_ref().map(Spanned::span),
        ];
        // A table's span begins at its header; `sustain_s` may be in two of them.
        let found = tables.into_iter().flatten().find_map(|span| self.find(span.start, name));
        match found.or_else(|| self.find(0, name)) {
            Some(position) => self.document.key(position, name, &error),
            None => PolicyError::Policy { path: self.document.path.to_owned(), source: error },
        }
    }

    /// The first line from `start` on, within its table, that sets the key.
    fn find(&self, start: usize, key: &str) -> Option<usize> {
        let mut position = start;
        for (index, line) in self.document.text.get(start..)?.split_inclusive('\n').enumerate() {
            if index > 0 && start > 0 && line.starts_with('[') {
                return None;
            }
            let sets = line.trim_start().strip_prefix(key);
            if sets.is_some_and(|rest| rest.trim_start().starts_with('=')) {
                return Some(position);
            }
            position += line.len();
        }
        None
    }

    fn rules(&self, file: &File) -> Result<Vec<PolicyRule>, PolicyError> {
        let mut rules = Vec::new();
        for (kind, list, demand) in [
            ("affinity", &file.affinity, Demand::Together),
            ("anti-affinity", &file.anti_affinity, Demand::Apart),
        ] {
            for rule in list {
                let it = rule.get_ref();
                let name = self.name(it.name.as_ref(), kind, rule.span().start);
                let partitions = self.selectors(&it.partitions, rule.span().start)?;
                self.price(it.price, rule.span().start)?;
                rules.push(PolicyRule { name, partitions, demand: demand.clone(), price: it.price });
            }
        }
        for (kind, list) in [("pin", &file.pin), ("forbid", &file.forbid)] {
            for rule in list {
                let it = rule.get_ref();
                let hosts = self.hosts(&it.hosts)?;
                if hosts.is_empty() {
                    return Err(self.document.key(rule.span().start, "hosts", &"name at least one host"));
                }
                let demand = if kind == "pin" { Demand::On(hosts) } else { Demand::NotOn(hosts) };
                let name = self.name(it.name.as_ref(), kind, rule.span().start);
                let partitions = self.selectors(&it.partitions, rule.span().start)?;
                self.price(it.price, rule.span().start)?;
                rules.push(PolicyRule { name, partitions, demand, price: it.price });
            }
        }
        for rule in &file.licence {
            let it = rule.get_ref();
            if it.per_host == Some(0) || (it.hosts.is_empty() && it.per_host.is_none()) {
                let message = "say which `hosts` have it, or how many partitions may use it `per_host`";
                return Err(self.document.key(rule.span().start, "licence", &message));
            }
            let demand = Demand::Licence { hosts: self.hosts(&it.hosts)?, per_host: it.per_host };
            let name = self.name(it.name.as_ref(), "licence", rule.span().start);
            let partitions = self.selectors(&it.partitions, rule.span().start)?;
            rules.push(PolicyRule { name, partitions, demand, price: None });
        }
        Ok(rules)
    }

    fn name(&self, name: Option<&String>, kind: &str, position: usize) -> String {
        name.cloned().unwrap_or_else(|| format!("{kind} of line {}", self.document.line(position)))
    }

    fn price(&self, price: Option<f64>, position: usize) -> Result<(), PolicyError> {
        if price.is_none_or(|price| price.is_finite() && price >= 0.0) {
            return Ok(());
        }
        let position = self.find(position, "price").unwrap_or(position);
        Err(self.document.key(position, "price", &"it must be a number that is not negative"))
    }

    fn selectors(&self, texts: &[Spanned<String>], position: usize) -> Result<Vec<Selector>, PolicyError> {
        if texts.is_empty() {
            return Err(self.document.key(position, "partitions", &"name at least one application, or *"));
        }
        self.document.values("partitions", texts)
    }

    fn hosts(&self, texts: &[Spanned<String>]) -> Result<Vec<HostSelector>, PolicyError> {
        self.document.values("hosts", texts)
    }

    fn window(&self, it: &Window) -> Result<Maintenance, PolicyError> {
        let from_ms = self.time("from", &it.from)?;
        let until_ms = self.time("until", &it.until)?;
        if until_ms <= from_ms {
            return Err(self.document.key(it.until.span().start, "until", &"it must be after `from`"));
        }
        let name = self.name(it.name.as_ref(), "maintenance", it.from.span().start);
        let evacuate = it.evacuate.unwrap_or(true);
        Ok(Maintenance { name, hosts: self.hosts(&it.hosts)?, from_ms, until_ms, evacuate })
    }

    fn time(&self, key: &str, time: &Spanned<Datetime>) -> Result<u64, PolicyError> {
        unix_ms(time.get_ref()).ok_or_else(|| {
            let message = "write date, time and offset, such as 2026-11-23T22:00:00Z or …T22:00:00+01:00";
            self.document.key(time.span().start, key, &message)
        })
    }

    fn reserve(&self, it: &ReserveOf) -> Result<Reserve, PolicyError> {
        let hosts = match &it.hosts {
            Some(hosts) => self.hosts(hosts)?,
            None => vec![HostSelector::All],
        };
        let memory_bytes = match &it.memory {
            Some(memory) => self.document.size("memory", memory)?,
            None => 0,
        };
        Ok(Reserve { hosts, processors: it.processors, memory_bytes })
    }

    fn quota(&self, it: &QuotaOf) -> Result<Quota, PolicyError> {
        let applications = self.document.value("application", &it.application)?;
        let memory_bytes =
            it.memory.as_ref().map(|memory| self.document.size("memory", memory)).transpose()?;
        Ok(Quota { applications, moves: it.moves, hosts: it.hosts, ranks: it.ranks, memory_bytes })
    }
}

/// Unix milliseconds of a time with date and offset from 1970 on.
fn unix_ms(time: &Datetime) -> Option<u64> {
    let (date, clock) = (time.date?, time.time?);
    let offset_min = match time.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    // Days from the civil calendar: years begin in March, so that the leap day is the last (H. Hinnant's algorithm).
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let minutes = days * 1440 + i64::from(clock.hour) * 60 + i64::from(clock.minute) - offset_min;
    let seconds = minutes * 60 + i64::from(clock.second.unwrap_or(0));
    u64::try_from(seconds).ok().map(|seconds| seconds * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    fn read_text(text: &str) -> Result<std::result::Result<Policy, String>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("policy.toml");
        std::fs::write(&path, text)?;
        let shown = format!("{}/", directory.path().display());
        Ok(read_policy(&path).map_err(|error| error.to_string().replace(&shown, "")))
    }

    /// The example of the documentation is the test of every key.
    #[test]
    fn the_documented_example_is_read() -> Result {
        let document = include_str!("../../../docs/policy.md");
        let example = document.split("```toml policy").nth(1).and_then(|it| it.split("```").next());
        let policy = read_text(example.ok_or("no example")?)??;
        assert!(policy.rules.len() >= 5 && policy.maintenance.len() == 1 && policy.pool.hook.is_some());
        assert_eq!(policy.maintenance[0].from_ms, 1_795_471_200_000);
        assert_eq!(read_text("")??, Policy::default());
        Ok(())
    }

    #[test]
    fn every_error_names_file_line_and_key() -> Result {
        let cases = [
            ("[[affinity]]\npartitions = [\"a b\"]\n", "policy.toml:2: `partitions`: `a b` selects no"),
            ("[[affinity]]\npartitions = []\n", "policy.toml:1: `partitions`: name at least"),
            ("[[pin]]\npartitions = [\"*\"]\nhosts = [\"=\"]\n", "policy.toml:3: `hosts`: `=` selects no"),
            ("[[pin]]\npartitions = [\"*\"]\n", "policy.toml:1: missing field `hosts`"),
            (
                "[[forbid]]\npartitions = [\"*\"]\nhosts = [\"a\"]\nprice = -1\n",
                "policy.toml:4: `price`: it must be",
            ),
            ("[[licence]]\npartitions = [\"*\"]\n", "policy.toml:1: `licence`: say which"),
            (
                "[[maintenance]]\nhosts = [\"a\"]\nfrom = 2026-11-23T22:00:00\nuntil = 2026-11-24T22:00:00Z\n",
                "policy.toml:3: `from`: write date",
            ),
            (
                "[[maintenance]]\nhosts = [\"a\"]\nfrom = 2026-11-24T22:00:00Z\nuntil = 2026-11-23T22:00:00Z\n",
                "policy.toml:4: `until`: it must be after",
            ),
            ("[gates]\nsustain_s = 1\n[pool]\nidle = 2\n", "policy.toml:4: `idle`: "),
            ("[gates]\nz = 1\nkappa = 0\n", "policy.toml:3: `kappa`: "),
            ("[limits]\nmoves_at_once = 0\n", "policy.toml:2: `moves_at_once`: "),
            ("[limits]\nmoves = 0\n", "policy.toml:2: unknown field `moves`"),
            ("[pool]\nhook = \"x.sh\"\n", "policy.toml:2: `hook`: "),
            ("[pool]\nmode = \"x\"\n", "policy.toml:2: unknown variant `x`"),
            ("[[quota]]\napplication = \"*\"\nmemory = \"x\"\n", "policy.toml:3: `memory`: "),
        ];
        for (text, expected) in cases {
            let message = read_text(text)?.err().unwrap_or_default();
            assert!(message.starts_with(expected), "{message}\n  instead of {expected}");
        }
        Ok(())
    }
}
