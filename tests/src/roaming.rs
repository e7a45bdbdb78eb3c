//! An application under `vmm run --np N` whose partitions are moved while it runs.

use std::collections::BTreeSet;

use crate::partition::Receiver;
use crate::{Bench, Control, Process, Result, State, binaries, limit, wait_for};

/// The launcher, where each rank is now, and everybody who ever had one.
#[derive(Debug)]
pub struct Roaming<'a> {
    bench: &'a Bench,
    launcher: Process,
    controls: Vec<Control>,
    owners: Vec<Option<usize>>,
    receivers: Vec<Receiver>,
    started: u32,
    /// Ranks whose process does not share rings.
    apart: BTreeSet<u32>,
    /// Further options of every `migrate`.
    pub options: Vec<&'static str>,
    /// Moves done.
    pub moves: u32,
    /// The good moment at which each was paused; empty: anywhere.
    pub moments: Vec<String>,
    /// Blackout of each move as the source measured it, milliseconds.
    pub blackouts_ms: Vec<f64>,
}

/// A move under way.
#[derive(Debug)]
struct Moving {
    rank: u32,
    shares: bool,
    receiver: Receiver,
    from: Control,
    migrate: Process,
}

impl Moving {
    /// It awaits its switch-over, or has come to an end.
    fn is_ready(&mut self) -> Result<Option<()>> {
        if self.migrate.status()?.is_some() {
            return Ok(Some(()));
        }
        let awaits = self.from.raw_status().is_ok_and(|status| status["awaits_switch"] == true);
        Ok(awaits.then_some(()))
    }
}

impl<'a> Roaming<'a> {
    /// Starts `program` (of the applications) in `ranks` partitions of `memory`.
    pub fn start(
        bench: &'a Bench,
        ranks: u32,
        memory: &str,
        program: &str,
        arguments: &[String],
    ) -> Result<Self> {
        let mut command =
            bench.vmm(["run", "--np", &ranks.to_string(), "--memory", memory, "--state-dir"])?;
        command.arg(bench.state()).arg(binaries::app(program)?).args(arguments);
        let launcher = bench.start(command, program)?;
        let controls: Vec<_> = (0..ranks).map(|rank| Control::of_rank(bench, rank)).collect();
        for control in &controls {
            control.wait_until(&[State::Running], 10).map_err(|e| format!("{e}\n{}", launcher.describe()))?;
        }
        let owners = vec![None; controls.len()];
        Ok(Self {
            bench,
            launcher,
            controls,
            owners,
            receivers: Vec::new(),
            started: 0,
            apart: BTreeSet::new(),
            options: Vec::new(),
            moves: 0,
            moments: Vec::new(),
            blackouts_ms: Vec::new(),
        })
    }

    /// Number of ranks.
    pub fn ranks(&self) -> u32 {
        self.controls.len() as u32
    }

    /// Whether all are where rings are shared: what is left of a program goes quickly there.
    pub fn shares_rings(&self) -> bool {
        self.apart.is_empty()
    }

    fn is_over(&mut self) -> Result<bool> {
        for receiver in &mut self.receivers {
            if receiver.process.status()?.is_some_and(|status| status != 0) {
                return Ok(true);
            }
        }
        if self.launcher.status()?.is_some_and(|status| status != 0) {
            return Ok(true);
        }
        // A rank has ended: the program is at its end.
        for owner in &self.owners {
            if let Some(receiver) = owner.and_then(|index| self.receivers.get_mut(index))
                && receiver.process.status()?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(self.owners.iter().any(Option::is_none) && self.launcher.status()?.is_some())
    }

    /// Moves each of `ranks` to a fresh process; several of them switch over together. False if the program has come to its
    /// end meanwhile.
    pub fn step(&mut self, ranks: &[u32]) -> Result<bool> {
        self.move_all(ranks, ranks.len() > 1)
    }

    /// Moves each of `ranks` to a fresh process at the same time, but none waits for another. False as for [`Self::step`].
    pub fn step_at_once(&mut self, ranks: &[u32]) -> Result<bool> {
        self.move_all(ranks, false)
    }

    fn move_all(&mut self, ranks: &[u32], together: bool) -> Result<bool> {
        if self.is_over()? {
            return Ok(false);
        }
        let mut moving = Vec::new();
        for rank in ranks {
            moving.push(self.begin(*rank, together)?);
        }
        if together {
            for it in &mut moving {
                wait_for("a move that awaits its switch-over", 30, || it.is_ready())?;
            }
            for it in &moving {
                // One that has failed is found below.
                let _ = it.from.order(self.bench, &["switch"])?;
            }
        }
        let mut all = true;
        for it in moving {
            all &= self.end(it)?;
        }
        Ok(all)
    }

    fn begin(&mut self, rank: u32, together: bool) -> Result<Moving> {
        // Every third process does not share rings, so that streams go in and out of shared memory.
        let number = self.started;
        self.started += 1;
        let shares = number % 3 != 2;
        let rings = if shares { "direct" } else { "proxied" };
        let receiver = Receiver::start(self.bench, number, &["--rings", rings], None)?;
        let from = self.controls[rank as usize].clone();
        // A long limit: the tests are about correctness, and the emulated machine has no bandwidth to speak of.
        let timeout_s = limit(10).as_secs().to_string();
        let mut options =
            vec!["--timeout-s", &timeout_s, "--on-timeout", "force", "--downtime-limit-ms", "2000"];
        options.extend(together.then_some("--await-switch"));
        options.extend(&self.options);
        let migrate = from.start_migrate(self.bench, &receiver.listen, &options)?;
        Ok(Moving { rank, shares, receiver, from, migrate })
    }

    fn end(&mut self, mut moving: Moving) -> Result<bool> {
        let status = moving.migrate.wait(30)?;
        if status != 0 {
            // In order, so that it takes its sockets along.
            if moving.receiver.process.status()?.is_none() {
                moving.receiver.process.signal(nix::sys::signal::Signal::SIGTERM)?;
                moving.receiver.process.wait(5)?;
            }
            // The only good reason is that the program has ended.
            let over = wait_for("the end of the program", 10, || Ok(self.is_over()?.then_some(())));
            let (rank, error) = (moving.rank, moving.migrate.stderr());
            return match over {
                Ok(()) => Ok(false),
                Err(_) => Err(format!("rank {rank} did not move: {error}\n{}", self.describe()).into()),
            };
        }
        let report: serde_json::Value = serde_json::from_slice(&moving.migrate.stdout())?;
        self.blackouts_ms.extend(report.get("blackout_ms").and_then(serde_json::Value::as_f64));
        self.moments.push(report["moment"].as_str().unwrap_or_default().to_owned());
        match moving.shares {
            true => self.apart.remove(&moving.rank),
            false => self.apart.insert(moving.rank),
        };
        self.controls[moving.rank as usize] = moving.receiver.control.clone();
        self.owners[moving.rank as usize] = Some(self.receivers.len());
        self.receivers.push(moving.receiver);
        self.moves += 1;
        match self.untold() {
            // While the program goes on all ranks are somewhere. Telling is given up after so long that its end shows.
            Some(line) if !self.is_over()? => Err(format!("{line}\n{}", self.describe()).into()),
            _ => Ok(true),
        }
    }

    /// What a source said that could not tell all others where its partition went.
    fn untold(&self) -> Option<String> {
        let processes = self.receivers.iter().map(|it| &it.process).chain([&self.launcher]);
        let mut stderrs = processes.map(Process::stderr);
        stderrs.find_map(|text| text.lines().find(|line| line.contains("could not tell")).map(str::to_owned))
    }

    /// Waits for the end of all processes and returns what the program printed; every status has to be 0.
    pub fn finish(&mut self, seconds: u64) -> Result<Vec<u8>> {
        let mut statuses =
            vec![self.launcher.wait(seconds).map_err(|e| format!("{e}\n{}", self.describe()))?];
        for index in 0..self.receivers.len() {
            let status = self.receivers[index].process.wait(seconds);
            statuses.push(status.map_err(|e| format!("{e}\n{}", self.describe()))?);
        }
        if statuses.iter().any(|status| *status != 0) {
            return Err(format!("statuses {statuses:?}\n{}", self.describe()).into());
        }
        // One rank writes, and its processes are here in the order in which they had it.
        let mut output = self.launcher.stdout();
        for receiver in &self.receivers {
            output.extend(receiver.process.stdout());
        }
        Ok(output)
    }

    /// What everybody said.
    pub fn describe(&self) -> String {
        let mut text = format!("after {} moves\n{}", self.moves, self.launcher.describe());
        for receiver in self.receivers.iter().rev().take(6) {
            text.push_str(&format!("\n{}", receiver.process.describe()));
        }
        text
    }
}
