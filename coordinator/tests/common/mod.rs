//! A cluster of real processes on this machine: a coordinator, agents, and stand-ins for `vmm`.
#![allow(dead_code, reason = "every test program uses its own part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
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

/// Arguments of a coordinator that reacts soon enough for a test. No host is lost for being slow.
pub const QUICK: &[&str] = &["--sustain-s=1.5", "--cooldown-s=5", "--period-ms=200", "--host-timeout-s=60"];
/// Arguments of a coordinator that never moves anything by itself. No host is lost for being slow.
pub const STILL: &[&str] = &["--imbalance-threshold=1000000", "--host-timeout-s=60"];
/// Of a leader: longer than a busy machine stops for, as nobody is to take over unless a test wants that.
pub const LEASE: &str = "--lease-s=5";
/// Only against hanging: whatever is waited for takes less than this on a machine that does anything at all.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The processes; they end with it.
pub struct Cluster {
    directory: TempDir,
    /// One for each coordinator.
    ports: Vec<u16>,
    scheme: &'static str,
    options: Vec<String>,
    /// What the clients of this cluster say about who asks.
    user: Vec<String>,
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

/// A port that stays free for whoever binds it by its number: the system gives it to nobody else, neither to a listener nor to
/// a connection, as long as a connection that this side closed first is in TIME_WAIT on it (a minute).
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    drop(listener.accept()?);
    drop(near);
    Ok(listener.local_addr()?.port())
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

    /// The same over TLS, with a user who has certificates or a token.
    pub fn secured(options: &[&str], user: &[String], agents: &[&str]) -> Result<Self> {
        let mut cluster = Self::make(options, 1)?;
        (cluster.scheme, cluster.user) = ("tls", user.to_vec());
        cluster.with_agents(agents)
    }

    /// The same without TLS, but with a user who has a token.
    pub fn guarded(options: &[&str], user: &[String]) -> Result<Self> {
        let mut cluster = Self::make(options, 1)?;
        cluster.user = user.to_vec();
        cluster.with_agents(&[])
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
            scheme: "tcp",
            user: Vec::new(),
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
        cluster.wait("all hosts", |it| {
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
    pub fn address(&self) -> String {
        let all: Vec<String> =
            self.ports.iter().map(|port| format!("{}:127.0.0.1:{port}", self.scheme)).collect();
        all.join(",")
    }

    /// Starts the first coordinator, again with the same state, and waits until one answers.
    pub fn start_coordinator(&mut self) -> Result {
        self.launch(0)?;
        self.wait("a coordinator", |it| Ok(it.client(&["hosts"])?.status.success()))
    }

    /// Starts a coordinator; does not wait.
    pub fn launch(&mut self, which: usize) -> Result {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.args(["serve", "--listen", &format!("{}:127.0.0.1:{}", self.scheme, self.ports[which])]);
        match &self.etcd {
            Some(etcd) => command.args(["--standby", LEASE, "--store", &format!("etcd:{}", etcd.url())]),
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
        command.args(["--coordinator", &self.address()]).args(&self.user).args(arguments);
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
    pub fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> Result<bool>) -> Result {
        self.soon(what, |it| if is_so(it)? { Ok(()) } else { Err("it is not so".into()) })
    }

    /// Asks until there is an answer: a leader may just have gone.
    pub fn soon<T>(&self, what: &str, ask: impl FnMut(&Self) -> Result<T>) -> Result<T> {
        self.within(PATIENCE, what, ask)
    }

    /// Asks for a time; what matters must not be how long that is.
    pub fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        mut ask: impl FnMut(&Self) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let last = match ask(self) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                let events =
                    self.client(&["events"]).map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
                let events = events.unwrap_or_default();
                return Err(format!("not within {limit:?}: {what} ({last})\n{events}").into());
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

    /// For a manifest: moves stay in the middle, sending, until [`Cluster::let_move`].
    pub fn held_moves(&self) -> String {
        format!("MIGRATE_UNTIL = \"{}\"", self.path().join("move").display())
    }

    /// Moves of a manifest with [`Cluster::held_moves`] may go on, and others need not wait.
    pub fn let_move(&self) -> Result {
        Ok(std::fs::write(self.path().join("move"), b"")?)
    }

    /// Waits until one move of an application is as far as this.
    pub fn wait_move(&self, id: &str, state: &str) -> Result {
        self.wait(&format!("a move that is {state}"), |it| {
            let app = it.app(id)?;
            let moves = ["moves", "other_moves"].iter().filter_map(|key| app[key].as_array());
            Ok(moves.flatten().any(|it| it["state"] == state))
        })
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

    /// Waits for a state of an application; gives it as it was then.
    pub fn wait_state(&self, id: &str, state: &str) -> Result<Value> {
        self.soon(&format!("{id} {state}"), |it| it.app_in_state(id, state))
    }

    /// The application, if this is its state.
    pub fn app_in_state(&self, id: &str, state: &str) -> Result<Value> {
        let app = self.app(id)?;
        if app["state"] == state { Ok(app) } else { Err(format!("it is {}", app["state"]).into()) }
    }

    /// Waits until every rank runs.
    pub fn wait_running(&self, id: &str) -> Result {
        self.wait_state(id, "running").map(drop)
    }

    /// Moves a rank, once its host has said that it runs there: after a move that may be a little later.
    pub fn move_rank(&self, id: &str, rank: u64, host: &str) -> Result<Output> {
        self.wait(&format!("rank {rank} runs"), |it| Ok(it.partition(rank)?["state"] == "running"))?;
        self.client(&["migrate", id, &rank.to_string(), host])
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

    /// Every host has reported to the coordinator that is there now.
    pub fn all_heard(&self) -> Result<bool> {
        let hosts = self.json(&["hosts"])?;
        Ok(hosts.as_array().is_some_and(|all| all.iter().all(|host| host["silent_s"].is_number())))
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
        self.wait("nothing left", |it| {
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

/// Asks a server on this machine by plain HTTP and reads until `enough` or the end.
pub fn get(port: u16, path: &str, header: &str, enough: impl Fn(&str) -> bool) -> Result<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
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

/// What an agent says first, on standard error.
pub fn first_line_of_agent(address: &str, name: &str, who: &[String], directory: &Path) -> Result<String> {
    let mut child = Command::new(example("test_agent"))
        .args(["--name", name, "--coordinator", address, "--cpus=0", "--memory=4G"])
        .args(["--migrate-address=127.0.0.1", "--vmm"])
        .arg(example("fake_vmm"))
        .arg("--state-dir")
        .arg(directory.join("another"))
        .args(who)
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let read = BufReader::new(child.stderr.take().ok_or("no stderr")?).read_line(&mut line);
    child.kill()?;
    child.wait()?;
    read?;
    Ok(line)
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
