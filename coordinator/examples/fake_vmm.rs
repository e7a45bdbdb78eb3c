//! A stand-in for `vmm` in tests: speaks `docs/vmm-api.md`, but its partition only counts lines. No KVM is needed.
//!
//! `fake_vmm run … ELF LINES EVERY_MS [FILE]` prints `rank K line I` on stdout (and every tenth on stderr), I from 0 to LINES - 1.
//! `--env` steers it: `LOAD=0.5` (share of time that counts as run time; `LOAD_K` for rank K), `EXIT=3`, `TALK_K=1,2`, `LINES=FILE`,
//! `MIGRATE=fail|in-doubt-lost|in-doubt-delivered|in-doubt-both|die-after-delivery` (once per partition), `MIGRATE_MS=200`,
//! `MIGRATE_UNTIL=FILE` (a move does not get beyond its middle before there is FILE).
//! With a third argument, FILE, it goes on after its lines until there is FILE: no end overtakes a test on a slow machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// What moves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Partition {
    application: String,
    rank: u32,
    ranks: u32,
    epoch: u64,
    env: BTreeMap<String, String>,
    line: u64,
    lines: u64,
    every_ms: u64,
    until: Option<PathBuf>,
    stdout: u64,
    stderr: u64,
    run_ns: u64,
    elapsed_ns: u64,
    migrations: u64,
    troubled: bool,
}

#[derive(Debug)]
struct Machine {
    state: &'static str,
    partition: Partition,
    base: (u64, u64),
    listen: Option<String>,
    fabric: String,
    since: Instant,
}

type Shared = Arc<Mutex<Machine>>;

fn lock(machine: &Shared) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Lets simulated time pass.
    fn account(&mut self) {
        let passed = self.since.elapsed();
        self.since = Instant::now();
        let key = format!("LOAD_{}", self.partition.rank);
        let load = self.partition.env.get(&key).or_else(|| self.partition.env.get("LOAD"));
        let load: f64 = load.and_then(|load| load.parse().ok()).unwrap_or(0.1);
        self.partition.elapsed_ns += u64::try_from(passed.as_nanos()).unwrap_or(0);
        if matches!(self.state, "running" | "migrating") {
            self.partition.run_ns += (passed.as_nanos() as f64 * load) as u64;
        }
    }

    fn status(&self) -> Json<Value> {
        Json(json!({
            "application": self.partition.application, "rank": self.partition.rank, "ranks": self.partition.ranks,
            "epoch": self.partition.epoch, "state": self.state, "pid": std::process::id(), "listen": self.listen,
            "fabric": self.fabric, "stdout_base": self.base.0, "stderr_base": self.base.1, "exit_status": null,
            "abi_version": 1, "version": "fake", "detail": null
        }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    let mut env = BTreeMap::new();
    let mut rest = arguments.iter().skip(1).peekable();
    while let Some(name) = rest.next_if(|it| it.starts_with("--")) {
        let Some(value) = rest.next() else { return ExitCode::from(2) };
        match value.split_once('=') {
            Some((key, value)) if name == "--env" => drop(env.insert(key.to_owned(), value.to_owned())),
            _ => drop(options.insert(name.clone(), value.clone())),
        }
    }
    let program: Vec<String> = rest.cloned().collect();
    let option = |name: &str| options.get(name).cloned().unwrap_or_default();
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let receives = arguments.first().is_some_and(|it| it == "receive");
    let rank = u32::try_from(number(&option("--rank"))).unwrap_or(0);
    let (socket, fabric) = if receives {
        (PathBuf::from(option("--api-socket")), option("--fabric"))
    } else {
        let directory = PathBuf::from(option("--state-dir"));
        let fabric = format!("unix:{}", directory.join(format!("rank-{rank}.fabric")).display());
        (directory.join(format!("rank-{rank}.sock")), fabric)
    };
    if program.first().is_some_and(|it| it.ends_with("refused")) {
        eprintln!("vmm: {}: not an ELF file", program[0]);
        return ExitCode::from(2);
    }
    let partition = Partition {
        application: option("--application"),
        rank,
        ranks: u32::try_from(number(&option("--np"))).unwrap_or(1),
        epoch: number(&option("--epoch")),
        env,
        lines: program.get(1).map_or(0, |it| number(it)),
        every_ms: program.get(2).map_or(10, |it| number(it)),
        until: program.get(3).map(PathBuf::from),
        ..Partition::default()
    };
    let state = if receives { "waiting" } else { "running" };
    let machine = Machine {
        state,
        partition,
        base: (0, 0),
        listen: None,
        fabric: fabric.clone(),
        since: Instant::now(),
    };
    let machine = Arc::new(Mutex::new(machine));
    let listener = UnixListener::bind(&socket);
    let _fabric = UnixListener::bind(fabric.trim_start_matches("unix:"));
    let Ok(listener) = listener else { return ExitCode::from(2) };
    let routes = Router::new()
        .route("/v1/status", get(async |State(machine): State<Shared>| lock(&machine).status()))
        .route("/v1/counters", get(counters))
        .route("/v1/resume", post(resume))
        .route("/v1/migrate", post(migrate))
        .route("/v1/peers/{rank}", put(peer))
        .with_state(machine.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    if receives {
        tokio::spawn(receive(machine.clone(), option("--listen")));
    }
    compute(machine).await
}

async fn counters(State(machine): State<Shared>) -> Json<Value> {
    let mut machine = lock(&machine);
    machine.account();
    let it = &machine.partition;
    Json(json!({
        "application": it.application, "rank": it.rank, "epoch": it.epoch, "run_ns": it.run_ns,
        "wait_ns": it.elapsed_ns.saturating_sub(it.run_ns), "poll_ns": 0, "elapsed_ns": it.elapsed_ns,
        "exits": {"mmio": 1, "io": 1, "interrupted": 1, "other": 0}, "syscalls": 1, "dirty_pages_per_s": null,
        "memory_bytes": 1 << 20, "resident_kib": 1000, "progress": it.line, "peers": peers(it),
        "migrations": it.migrations, "blackout_ns": 0
    }))
}

/// As if every line were a message of 100 bytes to each rank that `TALK_K` of rank K lists.
fn peers(it: &Partition) -> Vec<Value> {
    let listed = it.env.get(&format!("TALK_{}", it.rank)).map(String::as_str).unwrap_or_default();
    let ranks = listed.split(',').filter_map(|rank| rank.parse::<u32>().ok());
    ranks
        .map(|rank| {
            json!({"rank": rank, "bytes_sent": 100 * it.line, "bytes_received": 0, "messages_sent": it.line,
                "messages_received": 0, "wait_ns": 0, "shared": false,
                "round_trip": {"median_ns": 12_000, "p99_ns": 20_000, "samples": 4}})
        })
        .collect()
}

async fn resume(State(machine): State<Shared>) -> (StatusCode, Json<Value>) {
    let mut machine = lock(&machine);
    if machine.state != "in-doubt" {
        return (StatusCode::CONFLICT, Json(json!({"error": "it is not in doubt"})));
    }
    machine.state = "running";
    (StatusCode::OK, machine.status())
}

/// Notes what it was told beside its socket, for the tests.
async fn peer(State(machine): State<Shared>, Path(rank): Path<u32>, Json(peer): Json<Value>) -> Json<Value> {
    let note = lock(&machine).partition.env.get("PEERS").cloned();
    if let Some(path) = note {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let line = format!("{} {rank} {}\n", lock(&machine).partition.rank, peer["epoch"]);
        drop(file.map(|mut file| file.write_all(line.as_bytes())));
    }
    Json(json!({}))
}

/// Prints its lines; ends when they are done or the partition has moved away.
async fn compute(machine: Shared) -> ExitCode {
    loop {
        let pause = {
            let mut machine = lock(&machine);
            let it = &mut machine.partition;
            let every = Duration::from_millis(it.every_ms.max(1));
            if matches!(machine.state, "running" | "migrating") {
                let it = &mut machine.partition;
                let may_end = it.until.as_ref().is_none_or(|file| file.exists());
                if it.line >= it.lines && may_end {
                    let status = it.env.get("EXIT").and_then(|it| it.parse().ok()).unwrap_or(0);
                    return ExitCode::from(status);
                }
                if it.line < it.lines && !print_line(it) {
                    return ExitCode::from(1);
                }
            }
            every
        };
        if lock(&machine).state == "moved" {
            let it = lock(&machine).partition.clone();
            eprintln!("vmm: rank {} moved (epoch {})", it.rank, it.epoch + 1);
            tokio::time::sleep(Duration::from_millis(300)).await;
            return ExitCode::SUCCESS;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Prints the next line; false when nobody reads.
fn print_line(partition: &mut Partition) -> bool {
    let text = format!("rank {} line {}\n", partition.rank, partition.line);
    let written = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
    partition.stdout += text.len() as u64;
    if partition.line.is_multiple_of(10) {
        eprint!("E{text}");
        partition.stderr += text.len() as u64 + 1;
    }
    if let Some(path) = partition.env.get("LINES") {
        // One write to the end of a file that all partitions share: a line that is there twice was executed twice.
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let text = format!("{} {} {}\n", partition.application, partition.rank, partition.line);
        drop(file.map(|mut file| file.write_all(text.as_bytes())));
    }
    partition.line += 1;
    written.is_ok()
}

async fn receive(machine: Shared, listen: String) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen.trim_start_matches("tcp:")).await?;
    lock(&machine).listen = Some(format!("tcp:{}", listener.local_addr()?));
    let (mut stream, _) = listener.accept().await?;
    lock(&machine).state = "receiving";
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let Ok((partition, run)) = serde_json::from_slice::<(Partition, bool)>(&bytes) else {
        std::process::exit(1);
    };
    let mut machine = lock(&machine);
    machine.base = (partition.stdout, partition.stderr);
    machine.partition = partition;
    machine.since = Instant::now();
    machine.state = if run { "running" } else { "in-doubt" };
    Ok(())
}

async fn send(to: &str, partition: &Partition, run: bool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to.trim_start_matches("tcp:")).await?;
    // Long enough to be seen.
    let pause = partition.env.get("MIGRATE_MS").and_then(|it| it.parse().ok()).unwrap_or(30);
    tokio::time::sleep(Duration::from_millis(pause)).await;
    stream.write_all(serde_json::to_vec(&(partition, run))?.as_slice()).await?;
    stream.shutdown().await
}

async fn migrate(State(machine): State<Shared>, Json(request): Json<Value>) -> (StatusCode, Json<Value>) {
    let error = |status, text: &str| (status, Json(json!({"error": text})));
    let to = request["to"].as_str().unwrap_or_default().to_owned();
    let (mut moving, trouble) = {
        let mut machine = lock(&machine);
        if machine.state != "running" {
            return error(StatusCode::CONFLICT, "it does not run");
        }
        let it = &mut machine.partition;
        let trouble = it.env.get("MIGRATE").filter(|_| !it.troubled).cloned().unwrap_or_default();
        it.troubled = true;
        (it.clone(), trouble)
    };
    if trouble == "fail" {
        return error(StatusCode::BAD_GATEWAY, "the destination hung up");
    }
    let copy = moving.env.get("MIGRATE_MS").and_then(|it| it.parse().ok()).unwrap_or(0);
    lock(&machine).state = "migrating";
    tokio::time::sleep(Duration::from_millis(copy)).await;
    let until = moving.env.get("MIGRATE_UNTIL").map(PathBuf::from);
    while until.as_ref().is_some_and(|file| !file.exists()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    {
        let mut machine = lock(&machine);
        machine.account();
        machine.state = "paused";
        moving = machine.partition.clone();
    }
    moving.epoch = request["epoch"].as_u64().unwrap_or(0);
    moving.migrations += 1;
    moving.env.remove("MIGRATE_MS");
    if trouble == "program-ends" {
        // As a real one: the answer first, then the process.
        tokio::spawn(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::process::exit(0);
        });
        return error(StatusCode::GONE, "the program ended during the move, with status 0");
    }
    if trouble == "in-doubt-lost" {
        lock(&machine).state = "in-doubt";
        return error(StatusCode::GATEWAY_TIMEOUT, "no answer to the commit");
    }
    let runs = !matches!(trouble.as_str(), "in-doubt-both" | "die-after-delivery");
    let sent = send(&to, &moving, runs).await;
    match trouble.as_str() {
        "in-doubt-delivered" | "in-doubt-both" => {
            lock(&machine).state = "in-doubt";
            error(StatusCode::GATEWAY_TIMEOUT, "no answer to the commit")
        }
        "die-after-delivery" => std::process::exit(9),
        _ if sent.is_err() => {
            lock(&machine).state = "running";
            error(StatusCode::BAD_GATEWAY, "the destination hung up")
        }
        _ => {
            lock(&machine).state = "moved";
            let report = json!({"epoch": moving.epoch, "total_s": 0.05, "blackout_ms": 2.5, "bytes": 1000,
                "stop_reason": "converged", "rounds": [{"pages": 1}]});
            (StatusCode::OK, Json(report))
        }
    }
}
