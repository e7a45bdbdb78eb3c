//! A cluster on this machine: one coordinator and agents, with real partitions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use partita_http::Server;
use serde_json::Value;

use crate::http;
use crate::{Bench, Process, Result, State, binaries, limit, patience, wait_for};

/// The processes. They end with it.
#[derive(Debug)]
pub struct Cluster<'a> {
    bench: &'a Bench,
    /// The system chooses it at the first start.
    port: u16,
    options: Vec<String>,
    coordinator: Option<Process>,
    /// By name.
    pub agents: BTreeMap<String, Process>,
}

impl<'a> Cluster<'a> {
    /// A coordinator with `options` of `serve`, and agents: name, processors, and whether it is on standby.
    pub fn start(bench: &'a Bench, options: &[&str], agents: &[(&str, &str, bool)]) -> Result<Self> {
        Self::start_with(bench, options, agents, &[])
    }

    /// The same with more options for every agent.
    pub fn start_with(
        bench: &'a Bench,
        options: &[&str],
        agents: &[(&str, &str, bool)],
        agent_options: &[&str],
    ) -> Result<Self> {
        let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        // No host is lost for being slow.
        options.push("--host-timeout-s=120".to_owned());
        let mut cluster = Self { bench, port: 0, options, coordinator: None, agents: BTreeMap::new() };
        cluster.start_coordinator()?;
        for (name, cpus, standby) in agents {
            let mut command = bench.command(&binaries::program("agent")?);
            command.args([
                "--name",
                name,
                "--coordinator",
                &cluster.address(),
                "--cpus",
                cpus,
                "--memory",
                "2G",
            ]);
            command.args(["--migrate-address", "127.0.0.1", "--vmm"]).arg(binaries::program("vmm")?);
            command.arg("--state-dir").arg(bench.state().join(name)).args(agent_options);
            if *standby {
                command.arg("--standby");
            }
            cluster.agents.insert((*name).to_owned(), bench.start(command, name)?);
        }
        let count = agents.len();
        wait_for("all hosts", 10, || {
            Ok(cluster.get("/v1/hosts")?.as_array().is_some_and(|hosts| hosts.len() == count).then_some(()))
        })?;
        Ok(cluster)
    }

    fn address(&self) -> String {
        format!("tcp:127.0.0.1:{}", self.port)
    }

    /// Starts the coordinator, again with the same state.
    pub fn start_coordinator(&mut self) -> Result {
        let mut command = self.bench.command(&binaries::program("coordinator")?);
        command
            .args(["serve", "--listen", &self.address(), "--state"])
            .arg(self.bench.path().join("state.redb"));
        command.args(&self.options);
        let mut process = self.bench.start(command, "coordinator")?;
        self.port = wait_for("the coordinator", 10, || {
            if process.status()?.is_some() {
                return Err(format!("it ended\n{}", process.describe()).into());
            }
            let said = String::from_utf8(process.stdout())?;
            let Some((line, _)) = said.split_once('\n') else { return Ok(None) };
            let port = line.strip_prefix("coordinator: listening on tcp:127.0.0.1:");
            Ok(Some(port.ok_or_else(|| format!("it says {line:?}"))?.parse()?))
        })?;
        self.coordinator = Some(process);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill_coordinator(&mut self) -> Result {
        self.coordinator.take().ok_or("no coordinator")?.kill()
    }

    /// Ends agents, then the coordinator, and checks that nothing is left but what is to stay.
    pub fn end(mut self) -> Result {
        for process in self.agents.values_mut() {
            process.signal(nix::sys::signal::Signal::SIGTERM)?;
        }
        for process in self.agents.values_mut() {
            let status = process.wait(10)?;
            if status != 0 {
                return Err(format!("agent ended with {status}\n{}", process.describe()).into());
            }
        }
        self.kill_coordinator()?;
        self.bench.assert_no_processes()?;
        // An agent keeps its file of epochs and its lock; sockets and directories of partitions go.
        let may_stay = |path: &PathBuf| path.is_file() || path.parent() == Some(&self.bench.state());
        let left: Vec<_> = self.bench.files().into_iter().filter(|path| !may_stay(path)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}").into()) }
    }

    /// A client's command.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.bench.command(&binaries::program("coordinator")?);
        command.args(["--coordinator", &self.address()]).args(arguments);
        Ok(command)
    }

    /// Runs a client's command with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let done = self.bench.run(self.command(&[arguments, &["--json"]].concat())?, "client", None, 15)?;
        if done.status != 0 {
            return Err(format!("coordinator {arguments:?}: {}", done.stderr).into());
        }
        Ok(serde_json::from_slice(&done.stdout)?)
    }

    /// What its API answers.
    pub fn get(&self, path: &str) -> Result<Value> {
        http::get(&Server::Tcp("127.0.0.1".to_owned(), self.port), path)
    }

    /// Starts `submit --wait`.
    pub fn submit(&self, manifest: &Path) -> Result<Process> {
        self.bench.start(self.command(&["submit", "--wait", &manifest.display().to_string()])?, "submit")
    }

    /// The only application.
    pub fn application(&self) -> Result<Option<Value>> {
        Ok(self.json(&["apps"])?.as_array().and_then(|apps| apps.first().cloned()))
    }

    /// Waits until every rank of all applications runs; process ids of their `vmm`s. Nothing if one of `clients` ends before.
    pub fn wait_running(&self, ranks: usize, clients: &mut [&mut Process]) -> Result<Option<Vec<i32>>> {
        wait_for("every rank to run", 15, || {
            let over = is_over(clients)?;
            let partitions = self.get("/v1/partitions")?;
            let list = partitions.as_array().map(Vec::as_slice).unwrap_or_default();
            let running = list.iter().filter(|it| it["state"] == "running");
            let pids: Vec<_> = running.filter_map(|it| it["pid"].as_i64().map(|pid| pid as i32)).collect();
            let running = pids.len() == ranks;
            Ok((running || over).then(|| running.then_some(pids)))
        })
        .map_err(|e| format!("{e}\n{}", self.describe()).into())
    }

    /// Events so far.
    pub fn events(&self) -> Result<Vec<Value>> {
        Ok(self.json(&["events"])?.as_array().cloned().unwrap_or_default())
    }

    /// Follows the events, from the oldest on.
    pub fn follow(&self) -> Result<Events> {
        let process = self.bench.start(self.command(&["events", "--follow", "--json"])?, "events")?;
        Ok(Events { process })
    }

    /// Sets a policy while the cluster runs.
    pub fn set_policy(&self, text: &str) -> Result {
        let path = self.bench.path().join("policy-set.toml");
        std::fs::write(&path, text)?;
        self.json(&["policy", "set", &path.display().to_string()]).map(drop)
    }

    /// Host of every rank of an application.
    pub fn placement(&self, application: &str) -> Result<BTreeMap<u64, String>> {
        let partitions = self.get("/v1/partitions")?;
        let list = partitions.as_array().map(Vec::as_slice).unwrap_or_default();
        let of_it = list.iter().filter(|it| it["application"] == application);
        let place = |it: &Value| Some((it["rank"].as_u64()?, it["host"].as_str()?.to_owned()));
        Ok(of_it.filter_map(place).collect())
    }

    /// What happened, for messages.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for arguments in [&["events"][..], &["partitions"], &["plan", "--explain"]] {
            let done =
                self.command(arguments).and_then(|command| self.bench.run(command, "client", None, 15));
            text.push_str(
                &done.map_or_else(
                    |e| e.to_string(),
                    |done| String::from_utf8_lossy(&done.stdout).into_owned(),
                ),
            );
        }
        for process in self.agents.values().chain(&self.coordinator) {
            text.push_str(&process.describe());
            text.push('\n');
        }
        text
    }

    /// Control sockets of all partitions on all hosts.
    fn controls(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.bench.files().into_iter();
        files.filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
    }

    /// Ranks to which a rank of an application sends through memory that both map, as its own process says.
    pub fn neighbours(&self, application: &str, rank: u64) -> Result<Vec<u64>> {
        let mut shared = Vec::new();
        for path in self.controls() {
            // APPLICATION.RANK.EPOCH/rank-RANK.sock
            if !path.to_string_lossy().contains(&format!("/{application}.{rank}.")) {
                continue;
            }
            // The process may end at this moment.
            let Ok(counters) = crate::Control::at(&path).counters() else { continue };
            let peers = counters["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let to = peers.iter().filter(|peer| peer["shared"] == true);
            shared.extend(to.filter_map(|peer| peer["rank"].as_u64()));
        }
        Ok(shared)
    }

    /// Looks at all partitions through their own control sockets, without the coordinator: once a later epoch of a rank has
    /// run, no earlier one runs.
    ///
    /// The sockets are asked one after another, so a rank that moves meanwhile may well be seen at both ends, and its
    /// source says "migrating" until the destination has answered the commit. What counts is what an earlier epoch says
    /// *after* a later one has run.
    pub fn assert_one_owner_each(&self) -> Result {
        let mut owners: BTreeMap<String, BTreeMap<u64, PathBuf>> = BTreeMap::new();
        for path in self.controls() {
            let Ok(status) = crate::Control::at(&path).status() else { continue };
            if matches!(status.state, State::Running | State::Migrating) {
                // APPLICATION.RANK.EPOCH/rank-RANK.sock
                let directory = path.parent().and_then(|it| it.file_name()?.to_str()).unwrap_or_default();
                let rank = directory.rsplit_once('.').map_or(directory, |(rank, _)| rank).to_owned();
                if let Some(other) = owners.entry(rank).or_default().insert(status.epoch, path.clone()) {
                    let (epoch, path, other) = (status.epoch, path.display(), other.display());
                    return Err(format!("epoch {epoch} is that of {other} and of {path}").into());
                }
            }
        }
        for (rank, mut epochs) in owners {
            let latest = epochs.pop_last();
            for earlier in epochs.into_values() {
                let what = format!("rank {rank} to be given up by {}", earlier.display());
                wait_for(&what, 30, || {
                    let state = crate::Control::at(&earlier).status().ok().map(|status| status.state);
                    match state {
                        Some(State::Running) => {
                            Err(format!("rank {rank} runs twice: {earlier:?} and {latest:?}").into())
                        }
                        Some(State::Migrating) => Ok(None),
                        // It has given it up, or is gone.
                        _ => Ok(Some(())),
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Waits for a client, looking for ranks that run twice meanwhile.
    pub fn watch(&self, client: &mut Process, seconds: u64) -> Result<i32> {
        let end = std::time::Instant::now() + patience(seconds);
        loop {
            if let Some(status) = client.status()? {
                return Ok(status);
            }
            if std::time::Instant::now() > end {
                return Err(format!(
                    "not over after {:?}\n{}\n{}",
                    patience(seconds),
                    client.describe(),
                    self.describe()
                )
                .into());
            }
            self.assert_one_owner_each()?;
            std::thread::sleep(limit(1) / 4);
        }
    }
}

/// Whether one of `clients` has ended, which has to be well.
fn is_over(clients: &mut [&mut Process]) -> Result<bool> {
    let mut over = false;
    for client in clients {
        match client.status()? {
            None => (),
            Some(0) => over = true,
            Some(status) => return Err(format!("status {status}\n{}", client.describe()).into()),
        }
    }
    Ok(over)
}

/// The events of a cluster as they come.
#[derive(Debug)]
pub struct Events {
    process: Process,
}

impl Events {
    /// All so far.
    pub fn all(&self) -> Result<Vec<Value>> {
        let text = self.process.stdout();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
    }

    /// Waits for the first event behind number `after` that is wanted; nothing if one of `clients` ends before.
    pub fn wait(
        &self,
        what: &str,
        clients: &mut [&mut Process],
        after: u64,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Option<Value>> {
        wait_for(what, 30, || {
            // Looked at first: what it did before its end is in the events.
            let over = is_over(clients)?;
            let found =
                self.all()?.into_iter().find(|it| it["sequence"].as_u64() > Some(after) && is_wanted(it));
            if found.is_none() && !over {
                std::thread::sleep(std::time::Duration::from_millis(100));
                return Ok(None);
            }
            Ok(Some(found))
        })
    }
}
