//! A cluster of real processes on this machine: a coordinator, agents, and stand-ins for `vmm`.
#![allow(dead_code, reason = "every test program uses its own part of it")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// An error of a test.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What a test returns.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Arguments of a coordinator that reacts soon enough for a test.
pub const QUICK: &[&str] = &["--sustain-s=1.5", "--cooldown-s=5", "--period-ms=200", "--host-timeout-s=2"];
/// Arguments of a coordinator that never moves anything by itself.
pub const STILL: &[&str] = &["--imbalance-threshold=1000000", "--host-timeout-s=2"];

/// The processes; they end with it.
pub struct Cluster {
    directory: TempDir,
    /// One for each coordinator.
    ports: Vec<u16>,
    options: Vec<String>,
    coordinators: Vec<Option<Child>>,
    agents: BTreeMap<String, Child>,
    etcd: Option<Etcd>,
}

/// A real etcd of one member.
pub struct Etcd {
    directory: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Etcd {
    fn start(&mut self) -> Result {
        let client = format!("http://127.0.0.1:{}", self.port);
        // No other member: nobody connects to the second address.
        let peer = "http://127.0.0.1:1";
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(&self.directory)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", "http://127.0.0.1:0", "--initial-advertise-peer-urls", peer])
            .args([
                "--initial-cluster",
                &format!("default={peer}"),
                "--logger=zap",
                "--log-outputs=/dev/null",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("etcd cannot be started ({error}); run `make deps`, which installs etcd-server")
            })?;
        self.child = Some(child);
        Ok(())
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that is free now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn example(name: &str) -> PathBuf {
    // The binary is target/PROFILE/coordinator, examples are in target/PROFILE/examples.
    let binary = Path::new(env!("CARGO_BIN_EXE_coordinator"));
    binary.parent().unwrap_or(Path::new("/")).join("examples").join(name)
}

impl Cluster {
    /// A coordinator and agents, each `NAME` or `NAME OPTIONS…`; every host has one processor.
    pub fn start(options: &[&str], agents: &[&str]) -> Result<Self> {
        Self::make(options, 1)?.with_agents(agents)
    }

    /// Two coordinators, the first of which leads, with their journal in an etcd of their own, and agents.
    pub fn start_two(options: &[&str], agents: &[&str]) -> Result<Self> {
        let mut cluster = Self::make(options, 2)?;
        let mut etcd = Etcd { directory: cluster.path().join("etcd"), port: free_port()?, child: None };
        etcd.start()?;
        cluster.etcd = Some(etcd);
        let cluster = cluster.with_agents(agents)?;
        Ok(cluster)
    }

    fn make(options: &[&str], coordinators: usize) -> Result<Self> {
        Ok(Self {
            directory: TempDir::new()?,
            ports: (0..coordinators).map(|_| free_port()).collect::<Result<_>>()?,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            coordinators: (0..coordinators).map(|_| None).collect(),
            agents: BTreeMap::new(),
            etcd: None,
        })
    }

    fn with_agents(self, agents: &[&str]) -> Result<Self> {
        let mut cluster = self.started()?;
        for agent in agents {
            cluster.start_agent(agent)?;
        }
        let count = agents.len();
        cluster.wait("all hosts", 10, |it| {
            Ok(it.json(&["hosts"])?.as_array().is_some_and(|hosts| hosts.len() == count))
        })?;
        Ok(cluster)
    }

    fn started(mut self) -> Result<Self> {
        self.start_coordinator()?;
        for standby in 1..self.coordinators.len() {
            self.launch(standby)?;
        }
        Ok(self)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Addresses of all coordinators.
    fn address(&self) -> String {
        let all: Vec<String> = self.ports.iter().map(|port| format!("tcp:127.0.0.1:{port}")).collect();
        all.join(",")
    }

    /// Starts the first coordinator, again with the same state, and waits until one answers.
    pub fn start_coordinator(&mut self) -> Result {
        self.launch(0)?;
        self.wait("a coordinator", 30, |it| Ok(it.client(&["hosts"])?.status.success()))
    }

    /// Starts a coordinator; does not wait.
    pub fn launch(&mut self, which: usize) -> Result {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.args(["serve", "--listen", &format!("tcp:127.0.0.1:{}", self.ports[which])]);
        match &self.etcd {
            Some(etcd) => {
                command.args(["--standby", "--lease-s=3", "--store", &format!("etcd:{}", etcd.url())])
            }
            None => command.arg("--state").arg(self.path().join("state.redb")),
        };
        let child = command.args(&self.options).stdout(Stdio::null()).spawn()?;
        self.coordinators[which] = Some(child);
        Ok(())
    }

    /// kill -9 of the first.
    pub fn kill_coordinator(&mut self) -> Result {
        self.kill_one(0)
    }

    /// kill -9.
    pub fn kill_one(&mut self, which: usize) -> Result {
        let mut child = self.coordinators[which].take().ok_or("no coordinator")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops or continues a coordinator.
    pub fn signal_one(&self, which: usize, signal: Signal) -> Result {
        let child = self.coordinators[which].as_ref().ok_or("no coordinator")?;
        Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
    }

    /// A client command to this coordinator only.
    pub fn client_of(&self, which: usize, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.args(["--coordinator", &format!("tcp:127.0.0.1:{}", self.ports[which])]);
        Ok(command.args(arguments).output()?)
    }

    /// Which coordinator leads now, if one does.
    pub fn leader(&self) -> Result<Option<usize>> {
        for which in 0..self.ports.len() {
            if self.coordinators[which].is_some() && self.client_of(which, &["hosts"])?.status.success() {
                return Ok(Some(which));
            }
        }
        Ok(None)
    }

    /// The etcd.
    pub fn etcd(&self) -> Result<&Etcd> {
        self.etcd.as_ref().ok_or_else(|| "no etcd".into())
    }

    /// kill -9, and a start with the same data.
    pub fn restart_etcd(&mut self, pause: Duration) -> Result {
        let etcd = self.etcd.as_mut().ok_or("no etcd")?;
        if let Some(mut child) = etcd.child.take() {
            child.kill()?;
            child.wait()?;
        }
        std::thread::sleep(pause);
        etcd.start()
    }

    /// Starts `NAME OPTIONS…`.
    pub fn start_agent(&mut self, agent: &str) -> Result {
        let mut words = agent.split(' ');
        let name = words.next().unwrap_or_default().to_owned();
        let child = Command::new(example("test_agent"))
            .args(["--name", &name, "--coordinator", &self.address(), "--cpus=0", "--memory=4G"])
            .args(["--migrate-address=127.0.0.1", "--vmm"])
            .arg(example("fake_vmm"))
            .arg("--state-dir")
            .arg(self.path().join(&name))
            .args(words)
            .stderr(Stdio::null())
            .spawn()?;
        self.agents.insert(name, child);
        Ok(())
    }

    /// Sends a signal to an agent and waits until it has ended.
    pub fn end_agent(&mut self, name: &str, signal: Signal) -> Result {
        let mut child = self.agents.remove(name).ok_or("no such agent")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        child.wait()?;
        Ok(())
    }

    /// Runs a client command.
    pub fn client(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments).output()?)
    }

    /// A client command to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.args(["--coordinator", &self.address()]).args(arguments);
        command
    }

    /// Runs a client command with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.client(&[arguments, &["--json"]].concat())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until something is so.
    pub fn wait(&self, what: &str, seconds: u64, mut is_so: impl FnMut(&Self) -> Result<bool>) -> Result {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let last = is_so(self);
            if matches!(last, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let events =
                    self.client(&["events"]).map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
                return Err(format!(
                    "not within {seconds} s: {what} ({last:?})\n{}",
                    events.unwrap_or_default()
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks by plain HTTP and reads until `enough` or the end.
    pub fn get(&self, path: &str, header: &str, enough: impl Fn(&str) -> bool) -> Result<String> {
        get(self.ports[0], path, header, enough)
    }

    /// Writes a manifest; `more` is TOML after name and executable.
    pub fn manifest(&self, ranks: u32, lines: u32, every_ms: u32, more: &str) -> Result<PathBuf> {
        self.write_manifest(ranks, &format!("[\"{lines}\", \"{every_ms}\"]"), more)
    }

    /// A manifest whose partitions do not end before [`Cluster::let_end`].
    pub fn held_manifest(&self, ranks: u32, lines: u32, every_ms: u32, more: &str) -> Result<PathBuf> {
        let until = self.until();
        self.write_manifest(ranks, &format!("[\"{lines}\", \"{every_ms}\", \"{}\"]", until.display()), more)
    }

    fn until(&self) -> PathBuf {
        self.path().join("until")
    }

    /// Partitions of a held manifest may end.
    pub fn let_end(&self) -> Result {
        Ok(std::fs::write(self.until(), b"")?)
    }

    fn write_manifest(&self, ranks: u32, arguments: &str, more: &str) -> Result<PathBuf> {
        std::fs::write(self.path().join("prog"), b"x")?;
        let path = self.path().join("app.toml");
        let text = format!(
            "name = \"app\"\nranks = {ranks}\nexecutable = \"prog\"\nargs = {arguments}\nmemory = \"16M\"\n{more}\n"
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Submits without waiting; the application's id.
    pub fn submit(&self, manifest: &Path) -> Result<String> {
        let submitted = self.json(&["submit", &manifest.display().to_string()])?;
        Ok(submitted["application"].as_str().ok_or("no id")?.to_owned())
    }

    /// Starts `submit --wait`.
    pub fn submit_and_wait(&self, manifest: &Path) -> Result<Child> {
        let mut command = self.command(&["submit", "--wait", &manifest.display().to_string()]);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// The application as `apps --json` shows it.
    pub fn app(&self, id: &str) -> Result<Value> {
        let apps = self.json(&["apps"])?;
        let found = apps.as_array().and_then(|apps| apps.iter().find(|app| app["id"] == id));
        Ok(found.ok_or("no such application")?.clone())
    }

    /// Waits for a state of an application.
    pub fn wait_state(&self, id: &str, state: &str, seconds: u64) -> Result<Value> {
        self.wait(&format!("{id} {state}"), seconds, |it| Ok(it.app(id)?["state"] == state))?;
        self.app(id)
    }

    /// Waits until every rank runs.
    pub fn wait_running(&self, id: &str) -> Result {
        self.wait_state(id, "running", 10).map(drop)
    }

    /// A partition as `partitions --json` shows it.
    pub fn partition(&self, rank: u64) -> Result<Value> {
        let partitions = self.json(&["partitions"])?;
        let found = partitions.as_array().and_then(|all| all.iter().find(|it| it["rank"] == rank));
        Ok(found.ok_or("no such partition")?.clone())
    }

    /// Host of every rank, in rank order.
    pub fn placement(&self) -> Result<String> {
        let partitions = self.json(&["partitions"])?;
        let hosts = partitions.as_array().ok_or("no list")?.iter().filter_map(|it| it["host"].as_str());
        Ok(hosts.collect())
    }

    /// Kinds of the events so far.
    pub fn kinds(&self) -> Result<Vec<String>> {
        let events = self.json(&["events"])?;
        let kinds = events.as_array().ok_or("no list")?.iter().filter_map(|it| it["kind"].as_str());
        Ok(kinds.map(str::to_owned).collect())
    }

    /// Command lines of the stand-ins for `vmm` that are alive.
    pub fn vmms(&self) -> Result<Vec<String>> {
        let mine = self.path().display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Ok(line) = std::fs::read(entry?.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains("fake_vmm ") && line.contains(&mine) && !line.contains("--coordinator") {
                found.push(line);
            }
        }
        Ok(found)
    }

    /// Nothing of any partition is left: no process, no directory.
    pub fn wait_nothing_left(&self) -> Result {
        self.wait("nothing left", 10, |it| {
            let hosts = std::fs::read_dir(it.path())?
                .filter_map(std::result::Result::ok)
                .map(|it| it.path().join("p"));
            let left = hosts.filter_map(|it| std::fs::read_dir(it).ok()).flatten().count();
            Ok(left == 0 && it.vmms()?.is_empty())
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.agents.values_mut().chain(self.coordinators.iter_mut().flatten()) {
            // They may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks a server on this machine by plain HTTP and reads until `enough` or the end, ten seconds at most.
pub fn get(port: u16, path: &str, header: &str, enough: impl Fn(&str) -> bool) -> Result<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{header}\r\n")?;
    let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut bytes)?;
        all.extend_from_slice(&bytes[..count]);
        let text = String::from_utf8_lossy(&all);
        if count == 0 || enough(&text) {
            return Ok(text.into_owned());
        }
    }
}

/// Checks what `submit --wait` printed: every line of every rank once and in order.
pub fn assert_lines(output: &Output, ranks: u32, lines: u32) {
    let mut next: BTreeMap<u32, u32> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, rank, _, number] = words[..] else { panic!("a line was torn: {line:?}") };
        let rank = rank.parse().unwrap_or(u32::MAX);
        let expected = next.entry(rank).or_default();
        assert_eq!(number, expected.to_string(), "rank {rank}: a line was lost or doubled");
        *expected += 1;
    }
    assert_eq!(next, (0..ranks).map(|rank| (rank, lines)).collect());
    let errors = String::from_utf8_lossy(&output.stderr);
    let count = errors.lines().filter(|line| line.starts_with("Erank")).count();
    assert_eq!(count, (ranks * lines.div_ceil(10)) as usize, "lines on standard error:\n{errors}");
}
