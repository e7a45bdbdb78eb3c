//! Kills at random while partitions move: coordinators, agents and etcd; then nothing may be lost and nothing done twice.
//!
//! `CHAOS_SEED=7 CHAOS_MOVES=50 cargo test -p coordinator --test chaos -- --ignored --nocapture` is the whole test; a few
//! moves of one seed are among the tests that always run. Stand-ins for `vmm` write every step that they execute into one
//! file: a step that is there twice was executed by two owners.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{Cluster, Result, STILL};
use coordinator::journal::Journal;
use coordinator::state::{MovePhase, Phase, State};
use coordinator::store::etcd::{Etcd, Options};
use nix::sys::signal::Signal;

const HOSTS: [&str; 3] = ["a", "b", "c"];
const RANKS: u64 = 2;

/// xorshift64*: the same numbers for the same seed everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % count
    }
}

struct Chaos {
    cluster: Cluster,
    random: Random,
    /// The application that is moved, and those that lost a host and may have failed.
    id: String,
    hit: BTreeSet<String>,
    kills: BTreeMap<&'static str, u32>,
}

impl Chaos {
    fn start(seed: u64) -> Result<Self> {
        let cluster = Cluster::start_two(STILL, &HOSTS)?;
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut chaos =
            Self { cluster, random, id: String::new(), hit: BTreeSet::new(), kills: BTreeMap::new() };
        chaos.submit()?;
        Ok(chaos)
    }

    fn submit(&mut self) -> Result {
        let more = format!(
            "[env]\nMIGRATE_MS = \"150\"\nLINES = \"{}\"",
            self.cluster.path().join("lines").display()
        );
        let manifest = self.cluster.held_manifest(u32::try_from(RANKS)?, 1_000_000, 5, &more)?;
        let mut id = String::new();
        self.cluster.wait("it is taken", |it| {
            id = it.submit(&manifest)?;
            Ok(true)
        })?;
        self.cluster.wait_state(&id, "running")?;
        self.id = id;
        Ok(())
    }

    /// One move, and something that is killed at some time during it.
    fn step(&mut self) -> Result {
        let app = self.cluster.soon("the application", |it| it.app(&self.id))?;
        if app["exit_status"].is_number() {
            self.submit()?;
        }
        let rank = self.random.below(RANKS);
        let from = self.cluster.soon("where it is", |_| self.host_of(rank))?;
        let others: Vec<&str> = HOSTS.into_iter().filter(|host| *host != from).collect();
        let to = others[usize::try_from(self.random.below(others.len() as u64))?];
        let mut order = self.cluster.command(&["migrate", &self.id, &rank.to_string(), to]);
        let mut order =
            order.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(self.random.below(400)));
        let leader = self.cluster.leader()?;
        match self.random.below(6) {
            0 | 1 => self.kill_coordinator("leader", leader)?,
            2 => self.kill_coordinator("standby", leader.map(|leader| 1 - leader))?,
            3 => {
                *self.kills.entry("etcd").or_default() += 1;
                let pause = Duration::from_millis(self.random.below(1_000));
                self.cluster.restart_etcd(pause)?;
            }
            4 => {
                *self.kills.entry("agent").or_default() += 1;
                let host = HOSTS[usize::try_from(self.random.below(3))?];
                // Whoever is there, or on the way there, dies with it.
                self.hit.insert(self.id.clone());
                self.cluster.end_agent(host, Signal::SIGKILL)?;
                self.cluster.start_agent(host)?;
            }
            _ => {}
        }
        // Its outcome is not known if it lost its coordinator; the state tells.
        order.wait()?;
        let hit = self.hit.contains(&self.id);
        let id = self.id.clone();
        self.cluster.wait("the move is over", |it| {
            let app = it.app(&id)?;
            let open = |moves: &serde_json::Value| {
                moves.as_array().is_some_and(|all| all.iter().any(|it| it["state"] != "failed"))
            };
            let over = app["exit_status"].is_number();
            Ok(!open(&app["other_moves"]) && (over && hit || app["state"] == "running"))
        })?;
        self.compare()
    }

    fn host_of(&self, rank: u64) -> Result<String> {
        let partitions = self.cluster.json(&["partitions"])?;
        let all = partitions.as_array().ok_or("no list")?;
        let found = all.iter().find(|it| it["application"] == self.id.as_str() && it["rank"] == rank);
        Ok(found.and_then(|it| it["host"].as_str()).ok_or("it is nowhere")?.to_owned())
    }

    /// Moves so far, of all applications.
    fn moves(&self) -> Result<usize> {
        let apps = self.cluster.soon("all applications", |it| it.json(&["apps"]))?;
        let count = |app: &serde_json::Value, key: &str| app[key].as_array().map_or(0, Vec::len);
        let all = apps.as_array().ok_or("no list")?.iter();
        Ok(all.map(|app| count(app, "moves") + count(app, "other_moves")).sum())
    }

    fn kill_coordinator(&mut self, what: &'static str, which: Option<usize>) -> Result {
        let Some(which) = which else { return Ok(()) };
        *self.kills.entry(what).or_default() += 1;
        self.cluster.kill_one(which)?;
        self.cluster.launch(which)
    }

    /// What the coordinator says is what runs.
    fn compare(&self) -> Result {
        self.cluster.wait("state equals what runs", |it| {
            let partitions = it.json(&["partitions"])?;
            let mut known = BTreeSet::new();
            for partition in partitions.as_array().ok_or("no list")? {
                if partition["exit_status"].is_null() && partition["state"] == "running" {
                    known.insert(partition["pid"].as_i64().ok_or("no pid")?);
                }
            }
            let there = it.vmms()?.len();
            // Every partition of what is not over runs, and nothing else does.
            if known.len() == there && partitions.as_array().is_some_and(|all| all.len() == there) {
                Ok(true)
            } else {
                Err(format!("{known:?}, {there} processes").into())
            }
        })
    }

    /// Lets everything end, and checks what was executed and what was written.
    fn finish(mut self) -> Result {
        // What is stopped is said to be over when its hosts have said so, which is after the last process has ended.
        let apps = self.cluster.soon("everything is over", |it| {
            let apps = it.json(&["apps"])?;
            let is_over = |app: &&serde_json::Value| app["state"] == "done" || app["state"] == "failed";
            let live: Vec<_> = apps.as_array().ok_or("no list")?.iter().filter(|app| !is_over(app)).collect();
            for app in &live {
                // Also one whose submission a killed leader had no time to answer.
                it.client(&["stop", app["id"].as_str().ok_or("no id")?])?;
            }
            if live.is_empty() { Ok(apps) } else { Err(apps.to_string().into()) }
        })?;
        self.cluster.wait_nothing_left()?;
        let text = std::fs::read_to_string(self.cluster.path().join("lines"))?;
        let mut executed: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [application, rank, step] = words[..] else { return Err(format!("{line:?}").into()) };
            executed.entry((application, rank)).or_default().push(step.parse()?);
        }
        assert!(!executed.is_empty());
        for (who, steps) in &executed {
            let expected: Vec<u64> = (0..steps.len() as u64).collect();
            assert!(
                *steps == expected,
                "{who:?}: a step was lost, or executed twice: {:?}",
                steps.iter().zip(&expected).find(|(a, b)| a != b)
            );
        }
        for app in apps.as_array().ok_or("no list")? {
            let id = app["id"].as_str().unwrap_or_default();
            let stopped = app["exit_status"] == 143;
            assert!(stopped || self.hit.contains(id), "it was lost: {app}");
        }
        self.check_journal(apps.as_array().map_or(0, Vec::len))
    }

    /// Reads the journal as the next leader would: opening it verifies the chain.
    fn check_journal(&mut self, applications: usize) -> Result {
        for which in 0..2 {
            self.cluster.kill_one(which)?;
        }
        let options = Options {
            endpoints: vec![self.cluster.etcd()?.url()],
            prefix: "partita".into(),
            lease_s: 30,
            standby: false,
            identity: "the test".into(),
        };
        // The lease of the one that was killed may last longer than a campaign.
        let store = self.cluster.soon("to lead", |_| Ok(Etcd::campaign(options.clone())?))?;
        let (_, entries) = Journal::open_in(Box::new(store), &"none".parse()?, 0)?;
        let mut state = State::default();
        entries.iter().for_each(|entry| state.apply(entry));
        assert_eq!(state.applications.len(), applications);
        assert!(state.applications.values().all(|it| it.phase == Phase::Ended));
        let over = |phase| matches!(phase, MovePhase::Done | MovePhase::Failed);
        assert!(state.moves.values().all(|it| over(it.phase)));
        let done = state.moves.values().filter(|it| it.phase == MovePhase::Done).count();
        println!(
            "{} moves ({done} done), {} records, {} starts, kills {:?}, {applications} applications, {} of them hit",
            state.moves.len(),
            entries.len(),
            state.incarnation,
            self.kills,
            self.hit.len()
        );
        Ok(())
    }
}

fn run(seed: u64, moves: usize) -> Result {
    let mut chaos = Chaos::start(seed)?;
    // Some orders do not become moves: what takes them may be killed before it has decided.
    for step in 0..4 * moves {
        let name = |error| format!("seed {seed}, step {step}: {error}");
        chaos.step().map_err(name)?;
        if chaos.moves().map_err(name)? >= moves {
            return chaos.finish();
        }
    }
    Err(format!("seed {seed}: fewer than {moves} moves").into())
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn a_few_moves_among_kills() -> Result {
    run(number("CHAOS_SEED", 3), 4)
}

#[test]
#[ignore = "minutes; see the top of this file"]
fn fifty_moves_among_kills() -> Result {
    run(number("CHAOS_SEED", 1), number("CHAOS_MOVES", 50))
}
