//! Every step of the protocol × every harm: what becomes of both copies, and that memory is right to the byte.
//!
//! The table is `docs/faults.md`; `PARTITA_WRITE_FAULTS=1 cargo test -p migrator --test table` writes it anew.

mod support;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use migrator::transport::{Address, Timeouts, Transport};
use migrator::wire::{Hello, Role, VERSION_MINOR};
use migrator::{destination, source};
use support::proxy::{Harm, Proxy, Step, Tamper};
use support::{FEW_PAGES, PageWrite, Setup, TestDestination, TestSource};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/faults.md");
/// Tells a child process what it is: `source TRANSPORT ADDRESS` or `destination`.
const CHILD: &str = "PARTITA_FAULT_CHILD";
const STREAMS: u8 = 2;
/// Cases run at a time; most of them wait.
const WORKERS: usize = 8;

/// What the program writes so late that the blackout carries it; one page becomes zeros.
const LATE: [PageWrite; 4] = [
    PageWrite { region: 0, page: 3, word: 0x0123_4567_89ab_cdef },
    PageWrite { region: 0, page: 68, word: u64::MAX },
    PageWrite { region: 0, page: 69, word: 0 },
    PageWrite { region: 1, page: 4, word: 1 },
];

/// A column of the table.
struct Column {
    name: &'static str,
    harms: fn(Step) -> Vec<Act>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Wire(Harm),
    KillSource {
        deliver: bool,
    },
    KillDestination {
        deliver: bool,
    },
    /// The destination's agent does not let this epoch be built, or run.
    RefuseGrant,
}

const COLUMNS: [Column; 10] = [
    Column { name: "source killed before", harms: |_| vec![Act::KillSource { deliver: false }] },
    Column { name: "source killed after", harms: |_| vec![Act::KillSource { deliver: true }] },
    Column { name: "destination killed before", harms: |_| vec![Act::KillDestination { deliver: false }] },
    Column { name: "destination killed after", harms: |_| vec![Act::KillDestination { deliver: true }] },
    Column { name: "cut before", harms: |_| vec![Act::Wire(Harm::Cut { deliver: false })] },
    Column { name: "cut after", harms: |_| vec![Act::Wire(Harm::Cut { deliver: true })] },
    Column { name: "stalled", harms: |_| vec![Act::Wire(Harm::Stall)] },
    Column {
        name: "a byte corrupted",
        harms: |step| offsets(step).map(Harm::Corrupt).map(Act::Wire).to_vec(),
    },
    Column { name: "duplicated", harms: |_| vec![Act::Wire(Harm::Duplicate)] },
    Column { name: "overtaken", harms: |_| vec![Act::Wire(Harm::Overtaken)] },
];

/// Every field of a hello, or of a header, and the body's first, middle and last byte (a body of nothing has its
/// checksum there).
fn offsets(step: Step) -> [isize; 8] {
    match step {
        Step::HelloControl | Step::HelloStream => [0, 8, 9, 10, 11, 12, 15, 16],
        Step::Joined | Step::Rdma => [0, 1, 3, 4, 7, 8, 12, 15],
        _ => [0, 3, 4, 7, 8, 16, -4, -1],
    }
}

/// The memory as it must be: computed beside the machine that is tested.
fn model(late: bool) -> Vec<Vec<u8>> {
    let mut words = support::content(&FEW_PAGES);
    for write in LATE.iter().filter(|_| late) {
        words[write.region][write.page * 512..(write.page + 1) * 512].fill(write.word);
    }
    words.iter().map(|region| region.iter().flat_map(|word| word.to_le_bytes()).collect()).collect()
}

fn scripted() -> TestSource {
    let source = TestSource::with(&FEW_PAGES);
    *source.late.lock().unwrap() = LATE.to_vec();
    source
}

fn source_is_model(source: &TestSource) {
    let late = source.late.lock().unwrap().is_empty();
    for (index, region) in model(late).iter().enumerate() {
        assert!(source.bytes(index) == *region, "region {index} of the source differs from the model");
    }
}

fn destination_is_model(machine: &TestDestination) {
    for (index, region) in model(true).into_iter().enumerate().take(machine.memory.len()) {
        assert!(machine.bytes(index) == region, "the destination's memory differs from the model");
    }
    let state: Vec<u8> = (0..300_001u32).map(|index| index as u8).collect();
    assert!(machine.state.as_ref() == Some(&state), "the destination's state differs");
}

fn timeouts(act: Act) -> Timeouts {
    let waits = matches!(act, Act::Wire(Harm::Stall | Harm::Corrupt(_)));
    let silence = Duration::from_millis(if waits { 3000 } else { 8000 });
    let keep_alive = Duration::from_millis(200);
    let (hello, build) = (silence, silence);
    // Long enough for a loaded machine where it is to be resumed, short where nobody comes back.
    let resume = Duration::from_millis(match act {
        Act::Wire(Harm::Cut { .. }) => 8000,
        Act::Wire(Harm::Stall) => 300,
        _ => 1000,
    });
    Timeouts {
        resume,
        silence,
        frame: silence,
        running: silence,
        hello,
        build,
        keep_alive,
        ..Timeouts::default()
    }
}

/// Starts this test program as one side of a migration.
fn child(role: String) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "side_of_a_migration", "--ignored", "--nocapture"]).env(CHILD, role);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// What [`child`] runs.
#[test]
#[ignore = "a process that the table's test starts and kills"]
fn side_of_a_migration() {
    let role = std::env::var(CHILD).unwrap_or_default();
    if let Some((transport, to)) = role.strip_prefix("source ").and_then(|role| role.split_once(' ')) {
        let transport = if transport == "Rdma" { Transport::Rdma } else { Transport::Tcp };
        let request = request(&to.parse().unwrap(), transport);
        source::migrate(&scripted(), &request, &source::Control::new());
    } else {
        let listener = support::listen();
        println!("\nlistening {}", listener.address());
        let options = options(timeouts(Act::RefuseGrant));
        let control = destination::Control::new();
        destination::receive(&listener, &mut TestDestination::new(true), &options, &control);
    }
    // It stays until it is killed, as a process would whose partition goes on.
    thread::sleep(2 * support::PATIENCE);
}

fn request(to: &Address, transport: Transport) -> migrator::report::Request {
    let request = support::request(to, STREAMS);
    // The rows are frames of plain pages.
    let compression = migrator::codec::Compression::None;
    migrator::report::Request { transport, timeouts: timeouts(Act::RefuseGrant), compression, ..request }
}

fn options(timeouts: Timeouts) -> destination::Options {
    destination::Options { annotation: b"unix:/fabric".to_vec(), timeouts }
}

/// What became of the source and of the destination.
type Ends = (&'static str, &'static str);

fn source_end(source: &TestSource, transport: Transport, outcome: &source::Outcome) -> &'static str {
    source_is_model(source);
    let (end, runs) = match outcome {
        source::Outcome::Moved { .. } => ("moved", false),
        source::Outcome::Failed { .. } => ("**runs**", true),
        source::Outcome::InDoubt { .. } => ("in doubt", false),
    };
    assert_eq!(source.is_running(), runs, "{outcome:?}");
    if runs {
        // It must have lost nothing, and the next move must carry all of it.
        let again = Setup::over(transport, STREAMS).run(source);
        assert!(matches!(again.source, source::Outcome::Moved { .. }), "{:?}", again.source);
        assert!(again.machine.ran && !source.is_running());
        source_is_model(source);
        destination_is_model(&again.machine);
    }
    end
}

fn destination_end(machine: &TestDestination, outcome: &destination::Outcome, waits: bool) -> &'static str {
    let (end, runs) = match outcome {
        _ if waits => ("waits", false),
        destination::Outcome::Running { .. } => ("**runs**", true),
        destination::Outcome::Refused { .. } => ("refused", false),
        destination::Outcome::Failed { .. } => ("gave up", false),
        destination::Outcome::InDoubt { .. } => ("in doubt", false),
    };
    assert_eq!(machine.ran, runs, "{outcome:?}");
    if runs || end == "in doubt" {
        destination_is_model(machine);
    }
    end
}

/// Both sides in this process, with the harm on the wire or in the machine.
fn both_here(transport: Transport, step: Step, act: Act) -> Ends {
    let listener = support::listen();
    let tamper = if let Act::Wire(harm) = act { Some(Tamper::At(step, harm)) } else { None };
    let proxy = tamper.map(|tamper| Proxy::start(listener.address(), tamper));
    let fail = (act == Act::RefuseGrant).then_some(if step == Step::Describe { "build" } else { "run" });
    let mut machine = TestDestination { fail, ..TestDestination::new(true) };
    let source = scripted();
    let to = proxy.as_ref().map_or(listener.address(), Proxy::address);
    let request = migrator::report::Request { timeouts: timeouts(act), ..request(to, transport) };
    let (outcome, (received, waits)) = beside(&listener, &mut machine, timeouts(act), || {
        source::migrate(&source, &request, &source::Control::new())
    });
    assert!(proxy.is_none_or(|proxy| proxy.has_done_it()), "the step did not come");
    let ends = (source_end(&source, transport, &outcome), destination_end(&machine, &received, waits));
    assert!(!(machine.ran && matches!(outcome, source::Outcome::Failed { .. })), "two copies run");
    ends
}

/// A connection that is sent away as soon as it is taken: it speaks another version. Its reads do not wait.
fn knock(listener: &migrator::transport::Listener) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", listener.address().port())).unwrap();
    let hello = Hello { minor: VERSION_MINOR, role: Role::Control, streams: 1, session: [0; 16] };
    let mut hello = hello.encode();
    hello[8] = 99;
    stream.write_all(&hello).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Runs a destination beside `act`, and tells whether it still waited for a source when that was over.
fn beside<T: Send>(
    listener: &migrator::transport::Listener,
    machine: &mut TestDestination,
    timeouts: Timeouts,
    act: impl FnOnce() -> T,
) -> (T, (destination::Outcome, bool)) {
    let control = destination::Control::new();
    thread::scope(|scope| {
        let receiving = scope.spawn(|| destination::receive(listener, machine, &options(timeouts), &control));
        let guard = support::CancelOnDrop(&control);
        let result = act();
        let mut last = knock(listener);
        let start = std::time::Instant::now();
        let mut waits = false;
        while !receiving.is_finished() {
            // A connection that was not understood ends within the limit for hellos; then it takes the next one. So when it
            // has sent this last one away and still listens, it made nothing of any before it.
            let sent_away =
                !matches!(last.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock);
            if sent_away && control.progress().phase == destination::Phase::Listen {
                waits = true;
                control.cancel();
            }
            assert!(start.elapsed() < support::PATIENCE, "the destination hangs");
            thread::sleep(Duration::from_millis(2));
        }
        drop(guard);
        (result, (receiving.join().unwrap(), waits))
    })
}

/// The source is a process that is killed.
fn source_killed(transport: Transport, step: Step, deliver: bool) -> Ends {
    let listener = support::listen();
    let proxy = Proxy::start(listener.address(), Tamper::At(step, Harm::Kill { deliver }));
    let mut machine = TestDestination::new(true);
    let timeouts = timeouts(Act::RefuseGrant);
    let ((), (outcome, waits)) = beside(&listener, &mut machine, timeouts, || {
        proxy.set_victim(child(format!("source {transport:?} {}", proxy.address())));
        proxy.await_it();
    });
    ("killed", destination_end(&machine, &outcome, waits))
}

/// The destination is a process that is killed.
fn destination_killed(transport: Transport, step: Step, deliver: bool) -> Ends {
    let mut victim = child("destination".to_owned());
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let listening =
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening ").map(str::to_owned));
    let proxy = Proxy::start(&listening.unwrap().parse().unwrap(), Tamper::At(step, Harm::Kill { deliver }));
    proxy.set_victim(victim);
    let source = scripted();
    let outcome = source::migrate(&source, &request(proxy.address(), transport), &source::Control::new());
    proxy.await_it();
    (source_end(&source, transport, &outcome), "killed")
}

fn run(transport: Transport, step: Step, act: Act) -> Ends {
    match act {
        Act::KillSource { deliver } => source_killed(transport, step, deliver),
        Act::KillDestination { deliver } => destination_killed(transport, step, deliver),
        Act::Wire(_) | Act::RefuseGrant => both_here(transport, step, act),
    }
}

/// All cases, a few at a time, in order.
fn run_all(transport: Transport, cases: &[(Step, Act)]) -> Vec<Ends> {
    let next = AtomicUsize::new(0);
    let ends = Mutex::new(vec![None; cases.len()]);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, SeqCst);
                    let Some((step, act)) = cases.get(index) else { return };
                    let end = std::panic::catch_unwind(|| run(transport, *step, *act));
                    let end = end.unwrap_or_else(|_| panic!("{transport:?}, {step:?}, {act:?}: see above"));
                    ends.lock().unwrap()[index] = Some(end);
                }
            });
        }
    });
    ends.into_inner().unwrap().into_iter().flatten().collect()
}

/// The cell of several harms: each way it ended once, with how many if they differ.
fn cell(ends: &[Ends]) -> String {
    let mut kinds: Vec<(Ends, usize)> = Vec::new();
    for end in ends {
        match kinds.iter_mut().find(|(kind, _)| kind == end) {
            Some((_, count)) => *count += 1,
            None => kinds.push((*end, 1)),
        }
    }
    let text = |((source, destination), count): &(Ends, usize)| {
        let times = if kinds.len() > 1 { format!(" ({count} of {})", ends.len()) } else { String::new() };
        format!("{source} / {destination}{times}")
    };
    kinds.iter().map(text).collect::<Vec<_>>().join("; ")
}

/// The table of a transport, and how many cases it has.
fn table(transport: Transport) -> (String, usize) {
    let mut cases = Vec::new();
    for step in Step::of(transport) {
        cases.extend(COLUMNS.iter().flat_map(|column| (column.harms)(step)).map(|act| (step, act)));
    }
    cases.extend([Step::Describe, Step::Commit].map(|step| (step, Act::RefuseGrant)));
    let ends = run_all(transport, &cases);
    assert_eq!(ends.len(), cases.len());
    for (case, end) in cases.iter().zip(&ends) {
        assert_ne!(*end, ("**runs**", "**runs**"), "{case:?}: two copies run");
        // Bytes that were damaged and mattered never lead to a commit; a hello has no part in the memory.
        if let (step, Act::Wire(Harm::Corrupt(_))) = case
            && *step != Step::Running
        {
            assert_ne!(end.1, "**runs**", "{case:?}: committed in spite of damage");
        }
    }
    let of = |step: Step, harms: Vec<Act>| -> Vec<Ends> {
        let wanted = |case: &&((Step, Act), &Ends)| case.0.0 == step && harms.contains(&case.0.1);
        let all: Vec<_> = cases.iter().copied().zip(&ends).collect();
        all.iter().filter(wanted).map(|case| *case.1).collect()
    };
    let mut text = String::new();
    let names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
    let _ = writeln!(text, "| step | {} | grant refused |", names.join(" | "));
    let _ = writeln!(text, "|---{}|", "|---".repeat(COLUMNS.len() + 1));
    for step in Step::of(transport) {
        let row: Vec<_> = COLUMNS.iter().map(|column| cell(&of(step, (column.harms)(step)))).collect();
        let refused = cell(&of(step, vec![Act::RefuseGrant]));
        let refused = if refused.is_empty() { "–" } else { &refused };
        let _ = writeln!(text, "| {step:?} | {} | {refused} |", row.join(" | "));
    }
    (text, cases.len())
}

const INTRODUCTION: &str = "\
# What becomes of a migration when something breaks

Written by `PARTITA_WRITE_FAULTS=1 cargo test -p migrator --test table`, and checked by `cargo test -p migrator`: real
sockets, real processes killed, a machine of plain memory that writes while it moves (2 page streams, two rounds).
A row is the first time that these bytes pass ([protocol](protocol.md)); *before*: they are lost, *after*: they arrive and
nothing behind them does. *Stalled*: nothing passes any more, everything stays connected (time limits are shortened).
*Corrupted*: a bit of one byte is flipped, at 8 places of the frame in turn. *Overtaken*: other connections' frames pass first.
*Grant refused*: the destination's host does not let the epoch be built, or not let it run.

A cell says what the source is / what the destination is afterwards. **runs**: the partition goes on there. In every case at
most one copy runs; the memory of every copy that runs, was moved or is in doubt equals a model byte for byte; a source that
runs was moved once more, and arrived equal to the model. *In doubt*: paused, complete, until the coordinator or the operator decides.
*waits*: nothing was begun, the next source is welcome. *gave up*: the machine is discarded.

## Pages in frames (TCP)

";

const RDMA: &str = "
## Pages written one-sided (RDMA)

Through libfabric's `tcp;ofi_rxm`. The harm is done to the connections that carry everything but the pages; *Data* is what tells of written pages. What a
broken or stalled endpoint does is in `migrator/tests/rdma.rs`.

";

#[test]
fn every_step_and_every_harm_end_as_documented() {
    let ((tcp, tcp_cases), (rdma, rdma_cases)) = (table(Transport::Tcp), table(Transport::Rdma));
    let cases = tcp_cases + rdma_cases;
    let table = format!("{INTRODUCTION}{tcp}{RDMA}{rdma}\n{cases} cases.\n");
    println!("{table}");
    if std::env::var_os("PARTITA_WRITE_FAULTS").is_some() {
        std::fs::write(DOCUMENT, &table).unwrap();
    }
    let committed = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    for (now, then) in table.lines().zip(committed.lines()) {
        assert_eq!(now, then, "docs/faults.md is not what happens: see the first lines of tests/table.rs");
    }
    assert_eq!(table.len(), committed.len(), "docs/faults.md is not what happens");
}
