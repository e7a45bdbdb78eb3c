//! What is measured: one case by the command line, or many by a suite in a file, with the bars that it should meet.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use migrator::codec::Compression;
use migrator::policy::OnTimeout;
use migrator::report::RequestError;
use migrator::transport::Transport;
use serde::{Deserialize, Serialize};

use super::error::BenchError;
use super::link::Rate;
use super::observe::Observer;
use super::partita;
use super::record::Column;

/// What the partition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Only beats.
    Idle,
    /// Rewrites pages, and beats.
    Writer,
    /// The heat equation on a grid, ranks exchange their edges in every step (tests/apps/heat).
    Stencil,
    /// The program given with --elf.
    #[value(skip)]
    Elf,
}

/// In which order the writer takes its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// One after the other.
    Sequential,
    /// Any.
    Random,
}

impl Order {
    /// As the writer takes it.
    pub fn name(self) -> &'static str {
        if self.is_random() { "random" } else { "sequential" }
    }

    /// Whether it is random.
    pub fn is_random(self) -> bool {
        self == Self::Random
    }
}

/// Pages per second that the writer rewrites; `None`: as many as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WriteRate(Option<u64>);

impl WriteRate {
    /// As the writer takes it: 0 for as fast as it can.
    pub fn pages_per_s(self) -> u64 {
        self.0.unwrap_or(0)
    }
}

impl FromStr for WriteRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Self(None)),
            _ => match text.parse() {
                Ok(rate @ 1..=1_000_000_000) => Ok(Self(Some(rate))),
                _ => Err("write pages per second, 1 to 1000000000, or max".to_owned()),
            },
        }
    }
}

/// Bytes, with K, M or G.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(u64);

impl Size {
    /// How many.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [('K', 10), ('M', 20), ('G', 30)];
        let unit = units.iter().find(|(unit, _)| text.ends_with([*unit, unit.to_ascii_lowercase()]));
        let (digits, shift) = match unit {
            Some((_, shift)) => (text.get(..text.len() - 1).unwrap_or_default(), *shift),
            None => (text, 0),
        };
        let number = digits.parse::<u64>().ok().filter(|number| *number > 0 && *number < 1 << 30);
        number.map(|number| Self(number << shift)).ok_or_else(|| "write a size like 256M or 1G".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "G"), (20, "M"), (10, "K")];
        let fits = |(shift, _): &&(u32, &str)| self.0.trailing_zeros() >= *shift;
        match units.iter().find(fits) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for WriteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => write!(f, "{rate}"),
            None => f.write_str("max"),
        }
    }
}

macro_rules! as_string {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_string!(WriteRate Size);

/// Who else is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// QEMU, with the same writer.
    Qemu,
}

/// One series of migrations.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    /// What it is called; made of the others if empty.
    #[arg(skip)]
    pub name: String,
    /// Migrations; --runs.
    #[arg(skip = 20u32)]
    pub runs: u32,
    /// Bars.
    #[arg(skip)]
    #[serde(rename = "bar")]
    pub bars: Vec<Bar>,
    /// What the partition does
    #[arg(long, value_enum, default_value_t = Workload::Writer, conflicts_with = "elf")]
    pub workload: Workload,
    /// A static ELF to run instead; it must run longer than the benchmark
    #[arg(long, value_name = "PATH")]
    pub elf: Option<PathBuf>,
    /// Partitions of the application; one of them moves (writer: 2 with its partner, stencil: 2)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub np: u32,
    /// The rank that moves, of an ELF
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub rank: u32,
    /// Writer: pages of 4 KiB that it rewrites
    #[arg(long, value_name = "N", default_value_t = 16384)]
    pub pages: u64,
    /// Writer: pages per second, or max
    #[arg(long, value_name = "N|max", default_value = "max")]
    pub rate: WriteRate,
    /// Writer: order of its pages
    #[arg(long, value_enum, default_value_t = Order::Sequential)]
    pub order: Order,
    /// Stencil: cells along an edge of its grid
    #[arg(long, value_name = "CELLS", default_value_t = 64)]
    pub size: u32,
    /// Idle and writer: microseconds from beat to beat
    #[arg(long, value_name = "US", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub beat_us: u64,
    /// Who observes the blackout (default: partner; host with --peer; none for an ELF)
    #[arg(long, value_enum)]
    pub observer: Option<Observer>,
    /// Undisturbed time before and after each move
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub quiet_ms: u64,
    /// Memory of each partition, and of the peer's guest
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub memory: Size,
    /// Page streams of each migration
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub streams: u8,
    /// Cap over all streams, bytes per second
    #[arg(long, value_name = "SIZE")]
    pub bandwidth: Option<Size>,
    /// Whether pages are packed on the wire: auto, none, lz4 or zstd (the writer's are noise, which cannot be)
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = parse_name::<Compression>)]
    pub compression: Compression,
    /// How pages get into the destination's memory: tcp, or rdma (a peer takes tcp)
    #[arg(long, value_name = "HOW", default_value = "tcp", value_parser = parse_name::<Transport>)]
    pub transport: Transport,
    /// Ceiling of the predicted blackout
    #[arg(long, value_name = "MS", default_value_t = 300)]
    pub downtime_limit_ms: u64,
    /// After this many seconds --on-timeout applies
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout_s: u64,
    /// What to do when it does not converge: abort, force or throttle
    #[arg(long, value_name = "WHAT", default_value = "abort", value_parser = parse_name::<OnTimeout>)]
    pub on_timeout: OnTimeout,
    /// Measure another system too, turn by turn with ours
    #[arg(long, value_enum)]
    pub peer: Option<Peer>,
    /// Move between two network namespaces with a link of this rate, like 10gbit (needs root)
    #[arg(long, value_name = "RATE")]
    pub link: Option<Rate>,
    /// Arguments of the ELF
    #[arg(trailing_var_arg = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// A name as the API has it.
fn parse_name<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

impl Default for Case {
    fn default() -> Self {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            case: Case,
        }
        Only::parse_from(["case"]).case
    }
}

impl Case {
    /// What the partition does.
    pub fn workload(&self) -> Workload {
        if self.elf.is_some() { Workload::Elf } else { self.workload }
    }

    /// Who observes.
    pub fn observer(&self) -> Observer {
        let default = match (self.workload(), self.peer) {
            (Workload::Elf, _) => Observer::None,
            (_, Some(_)) => Observer::Host,
            _ => Observer::Partner,
        };
        self.observer.unwrap_or(default)
    }

    /// Partitions of the application.
    pub fn ranks(&self) -> u32 {
        match (self.workload(), self.observer()) {
            (Workload::Elf, _) => self.np,
            (Workload::Stencil, _) | (_, Observer::Partner) => self.np.max(2),
            _ => 1,
        }
    }

    /// Its workload in one word.
    pub fn workload_name(&self) -> &'static str {
        match self.workload() {
            Workload::Idle => "idle",
            Workload::Writer => "writer",
            Workload::Stencil => "stencil",
            Workload::Elf => "elf",
        }
    }

    /// Pages that are rewritten.
    pub fn written_pages(&self) -> u64 {
        if self.workload() == Workload::Writer { self.pages } else { 0 }
    }

    /// What it is, in words.
    pub fn describe(&self) -> String {
        let work = match self.workload() {
            Workload::Idle => "idle".to_owned(),
            Workload::Stencil => format!("stencil of {0} x {0} cells on {1} ranks", self.size, self.ranks()),
            Workload::Elf => {
                let name = self.elf.as_deref().and_then(Path::file_name).unwrap_or_default();
                format!("{} on {} ranks", name.to_string_lossy(), self.ranks())
            }
            Workload::Writer => {
                let rate =
                    self.rate.0.map_or("as fast as it can".to_owned(), |rate| format!("{rate} pages/s"));
                let mib = self.pages as f64 / 256.0;
                format!("writer of {mib} MiB ({} pages), {rate}, {}", self.pages, self.order.name())
            }
        };
        let cap = self.bandwidth.map(|cap| format!(", at most {cap} B/s")).unwrap_or_default();
        let link = self.link.map(|rate| format!(", link of {rate}")).unwrap_or_default();
        let streams =
            if self.streams == 1 { "1 stream".to_owned() } else { format!("{} streams", self.streams) };
        let rdma = if self.transport == Transport::Rdma { ", RDMA" } else { "" };
        format!(
            "{work}; memory {}, downtime limit {} ms, {streams}{rdma}{cap}{link}",
            self.memory, self.downtime_limit_ms
        )
    }

    /// Whether it can be measured.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> Result<(), BenchError> {
        let wrong = |text: String| Err(BenchError::Usage(text));
        let workload = self.workload();
        if workload == Workload::Elf && self.elf.is_none() {
            return wrong("the workload \"elf\" needs a program: give one with elf".into());
        }
        if !partita::can_observe(workload, self.observer()) {
            return wrong(format!(
                "this workload cannot be observed by {:?}: partner works for idle, writer and stencil, host for idle and writer, none for all",
                self.observer()
            ));
        }
        if self.peer.is_some() && (self.observer() != Observer::Host || workload == Workload::Elf) {
            return wrong(
                "the peer runs idle and writer only, and is observed by host: leave --observer out".into(),
            );
        }
        if self.rank >= self.ranks() || (workload != Workload::Elf && self.rank != 0) {
            return wrong(format!(
                "rank {}: give a rank of the ELF below --np; of other workloads rank 0 moves",
                self.rank
            ));
        }
        // What the guest needs besides its pages.
        let needed = self.written_pages().saturating_mul(4096).saturating_add(32 << 20);
        if needed > self.memory.bytes() {
            return wrong(format!(
                "{} pages do not fit into {}: give more memory (pages and 32 MiB)",
                self.pages, self.memory
            ));
        }
        if self.peer.is_some() && self.memory.bytes() > 3 << 30 {
            return wrong("the peer's guest sees 3 GiB of memory: give at most 3G".into());
        }
        if self.transport == Transport::Rdma
            && matches!(self.compression, Compression::Lz4 | Compression::Zstd)
        {
            return wrong(RequestError::Compression.to_string());
        }
        if self.runs == 0 || self.size == 0 {
            return wrong("runs and size are at least 1".into());
        }
        Ok(())
    }
}

/// What a case should give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bar {
    /// The quantity.
    pub column: Column,
    /// Which of its statistics.
    pub statistic: Statistic,
    /// Largest value that meets the bar.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// Largest multiple of the peer's that meets it.
    #[serde(default)]
    pub times_peer: Option<f64>,
}

/// One number of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    /// Median.
    P50,
    /// Nine of ten.
    P90,
    /// 99 of 100.
    P99,
    /// All.
    Max,
}

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    case: Vec<Case>,
}

/// Reads a suite.
///
/// # Errors
/// It cannot be read, is no TOML, has unknown names, or no case.
pub fn read_suite(path: &Path) -> Result<Vec<Case>, BenchError> {
    let remedy = "give a file of cases, like tests/bench/acceptance.toml";
    let missing = |source| BenchError::Missing { path: path.to_owned(), remedy, source };
    let text = fs::read_to_string(path).map_err(missing)?;
    let suite: Suite = toml::from_str(&text)
        .map_err(|source| BenchError::Suite { path: path.to_owned(), source: Box::new(source) })?;
    if suite.case.is_empty() {
        return Err(BenchError::Usage(format!("{}: a suite without [[case]]", path.display())));
    }
    Ok(suite.case)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(text: &str) -> Result<Case, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_suite_has_the_defaults_of_the_command_line() {
        let case = case("pages = 4096\nrate = \"1000\"\nmemory = \"1G\"").unwrap();
        assert_eq!((case.runs, case.downtime_limit_ms, case.beat_us), (20, 300, 40));
        assert_eq!((case.memory.bytes(), case.rate.pages_per_s()), (1 << 30, 1000));
        assert_eq!((case.observer(), case.ranks(), case.written_pages()), (Observer::Partner, 2, 4096));
        assert_eq!(
            case.describe(),
            "writer of 16 MiB (4096 pages), 1000 pages/s, sequential; memory 1G, downtime limit 300 ms, 1 stream"
        );
        assert!(toml::from_str::<Case>("pagse = 1").is_err());
    }

    #[test]
    fn the_transport_is_tcp_unless_it_is_said() {
        assert_eq!(Case::default().transport, Transport::Tcp);
        let rdma = case("transport = \"rdma\"").unwrap();
        rdma.check().unwrap();
        assert!(rdma.describe().contains("1 stream, RDMA"), "{}", rdma.describe());
        assert!(case("transport = \"udp\"").is_err());
    }

    #[test]
    fn the_suite_of_the_acceptance_matrix_can_be_measured() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/acceptance.toml");
        let cases = read_suite(&path).unwrap();
        assert!(cases.len() >= 6);
        for case in &cases {
            case.check().unwrap();
            assert!(case.runs == 20 && !case.name.is_empty() && !case.bars.is_empty(), "{}", case.name);
        }
    }

    #[test]
    fn contradictions_are_refused_with_what_to_do() {
        let wrong = [
            "workload = \"elf\"",
            "workload = \"stencil\"\nobserver = \"host\"",
            "workload = \"stencil\"\npeer = \"qemu\"",
            "elf = \"x\"\nobserver = \"partner\"",
            "rank = 1",
            "pages = 65536",
            "peer = \"qemu\"\nmemory = \"4G\"",
            "transport = \"rdma\"\ncompression = \"lz4\"",
            "runs = 0",
        ];
        for text in wrong {
            let error = case(text).unwrap().check().unwrap_err();
            assert_eq!(error.status(), 2, "{text}");
        }
        case("elf = \"x\"\nnp = 2\nrank = 1").unwrap().check().unwrap();
    }

    #[test]
    fn sizes_and_rates_keep_their_form() {
        for text in ["256M", "1G", "4K", "4097"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["", "M", "0M", "-1", "1T", "99999999999G"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!("max".parse::<WriteRate>().unwrap().pages_per_s(), 0);
        for text in ["0", "", "fast"] {
            assert!(text.parse::<WriteRate>().is_err(), "{text}");
        }
    }
}
