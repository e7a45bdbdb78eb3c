//! A cluster without processes: the real coordinator state machine, and agents that are a few maps. Time, noise and crashes
//! come from the test, so a failure is repeated from its seed.

use std::collections::BTreeMap;

use control::{
    Action, ApplicationId, Command, CommandResult, CommandsRequest, Component, Counters, End, HostFacts,
    HostName, MoveReport, Outcome, PartitionReport, PartitionState, Rank, Report, Specification,
};
use coordinator::cluster::{Cluster, Settings};

use coordinator::record::Entry;

/// What the functions here return.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
type Key = (ApplicationId, Rank, u64);

/// Milliseconds of one step of the world.
pub const STEP_MS: u64 = 500;

/// A host's agent.
#[derive(Debug, Default)]
struct Agent {
    session: u64,
    received: u64,
    standby: bool,
    processes: BTreeMap<Key, PartitionReport>,
    results: Vec<CommandResult>,
}

/// Everything outside of the coordinator, and its journal.
pub struct World {
    /// The coordinator; it can be dropped and made again from the journal at any time.
    pub cluster: Cluster,
    /// What is on disk.
    pub journal: Vec<Entry>,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Busy processors of a rank of each application if it has a processor of its own.
    pub demand: BTreeMap<String, f64>,
    /// Standard deviation of a sample of load, as a share of it.
    pub noise: f64,
    /// Hooks that were asked for.
    pub hooks: Vec<String>,
    /// What partitions report, by rank; a test may write it before a step.
    pub counters: BTreeMap<(ApplicationId, Rank), Counters>,
    /// Shares of units of work that ranks were given: generation and number.
    pub shares: BTreeMap<(ApplicationId, Rank), (u64, u64)>,
    /// Switch-overs that were waited for: when, and of which rank.
    pub switches: Vec<(u64, Rank)>,
    /// `Migrate` commands whose switch-over waits.
    waiting: BTreeMap<Key, Command>,
    settings: Settings,
    agents: BTreeMap<HostName, Agent>,
    random: u64,
}

/// Options of a coordinator that plans every second.
pub fn settings() -> Settings {
    Settings {
        planner: planner::Settings { sustain_s: 2.0, cooldown_s: 5.0, ..planner::Settings::default() },
        period_ms: 1000,
        host_timeout_ms: 5000,
        activate: true,
        count_steal: false,
        latency_s: None,
    }
}

impl World {
    /// Hosts of one processor each; `NAME+` is in reserve.
    pub fn new(hosts: &[&str], seed: u64) -> Result<Self> {
        let now_ms = 1_800_000_000_000;
        let settings = settings();
        let mut agents = BTreeMap::new();
        for host in hosts {
            let agent = Agent { session: 1, standby: host.ends_with('+'), ..Agent::default() };
            agents.insert(host.trim_end_matches('+').parse()?, agent);
        }
        let cluster = Cluster::resume(settings, "c1".parse()?, &[], now_ms);
        let mut world = Self {
            cluster,
            journal: Vec::new(),
            now_ms,
            demand: BTreeMap::new(),
            noise: 0.0,
            hooks: Vec::new(),
            shares: BTreeMap::new(),
            switches: Vec::new(),
            waiting: BTreeMap::new(),
            settings,
            agents,
            counters: BTreeMap::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        world.step()?;
        Ok(world)
    }

    /// An application of `ranks` ranks of 16 MiB.
    pub fn application(name: &str, ranks: u32) -> Specification {
        let component = Component {
            executable: "/x".into(),
            args: vec![],
            ranks,
            memory_bytes: 16 << 20,
            env: BTreeMap::new(),
            files: vec![],
            load: 1.0,
        };
        Specification { name: name.into(), components: vec![component], ..Specification::default() }
    }

    /// kill -9 and a new start: all that is left is the journal.
    pub fn restart(&mut self) -> Result {
        self.cluster = Cluster::resume(self.settings, "c1".parse()?, &self.journal, self.now_ms);
        self.flush();
        Ok(())
    }

    /// Host of every rank, as those of the application's processes that run say.
    pub fn placement(&self, id: &ApplicationId) -> String {
        let mut at: BTreeMap<Rank, Vec<&str>> = BTreeMap::new();
        for (host, agent) in &self.agents {
            for (_, rank, _) in
                agent.processes.iter().filter(|(key, it)| runs(it) && key.0 == *id).map(|it| it.0)
            {
                at.entry(*rank).or_default().push(host.as_str());
            }
        }
        assert!(at.values().all(|hosts| hosts.len() == 1), "two owners: {at:?}");
        at.into_values().flatten().collect()
    }

    /// State of a host, with the application that has it.
    pub fn host(&self, name: &str) -> String {
        let views = self.cluster.hosts(self.now_ms);
        let view = views.into_iter().find(|it| it.name.as_str() == name);
        let lease = |it: &control::HostView| it.lease.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
        view.map(|it| format!("{}{}", it.state, lease(&it))).unwrap_or_default()
    }

    /// Ends the processes of an application well.
    pub fn finish(&mut self, id: &ApplicationId) {
        for agent in self.agents.values_mut() {
            for (_, it) in agent.processes.iter_mut().filter(|(key, it)| key.0 == *id && runs(it)) {
                (it.state, it.end) = (PartitionState::Ended, Some(End::Exited(0)));
            }
        }
    }

    /// Lets `steps` steps pass.
    pub fn run(&mut self, steps: usize) -> Result {
        (0..steps).try_for_each(|_| self.step())
    }

    /// Lets time pass until something is so.
    pub fn until(&mut self, what: &str, steps: usize, is_so: impl Fn(&Self) -> bool) -> Result {
        for _ in 0..steps {
            if is_so(self) {
                return Ok(());
            }
            self.step()?;
        }
        let events = self.cluster.events(0).events;
        let lines: Vec<String> =
            events.iter().map(|it| format!("{} {:?}", it.text, it.reason)).rev().take(25).collect();
        Err(format!("not within {steps} steps: {what}\n{}", lines.join("\n")).into())
    }

    /// One step: agents report and obey, time passes, hooks succeed.
    pub fn step(&mut self) -> Result {
        self.now_ms += STEP_MS;
        self.work();
        let names: Vec<HostName> = self.agents.keys().cloned().collect();
        for name in names {
            let report = self.report(&name)?;
            self.cluster.report(self.now_ms, &report)?;
            self.flush();
            if let Some(agent) = self.agents.get_mut(&name) {
                agent.results.clear();
                agent.processes.retain(|_, it| it.end.is_none());
            }
            self.obey(&name)?;
        }
        self.cluster.tick(self.now_ms);
        self.flush();
        for hook in self.cluster.take_hooks() {
            self.hooks.push(format!("{} {}", hook.host, hook.action.name()));
            self.cluster.hook_ended(self.now_ms, &hook.host, hook.action, Ok(()));
        }
        self.flush();
        Ok(())
    }

    /// The journal gets what was decided, then commands may go out.
    fn flush(&mut self) {
        let outbox = self.cluster.take_outbox();
        self.journal.extend(outbox.entries);
        self.cluster.release(outbox.commands);
    }

    fn normal(&mut self) -> f64 {
        let mut next = || {
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
        };
        (0..12).map(|_| next()).sum::<f64>() - 6.0
    }

    /// Partitions compute: a host's only processor is shared by demand.
    fn work(&mut self) {
        let mut shares = Vec::new();
        for agent in self.agents.values() {
            let here: Vec<&Key> =
                agent.processes.iter().filter(|(_, it)| runs(it)).map(|(key, _)| key).collect();
            let demand = |key: &Key| {
                let name = key.0.as_str().rsplit_once('-').map_or("", |(name, _)| name);
                self.demand.get(name).copied().unwrap_or(0.0)
            };
            let total: f64 = here.iter().map(|key| demand(key)).sum();
            for key in here {
                let run = demand(key) / total.max(1.0);
                shares.push(((key.0.clone(), key.1), run, (1.0 - demand(key)).max(0.0)));
            }
        }
        for (key, run, idle) in shares {
            let run = (run * (1.0 + self.noise * self.normal())).clamp(0.0, 1.0);
            let idle = idle.min(1.0 - run);
            let it = self.counters.entry(key).or_default();
            it.run_ns += (run * STEP_MS as f64 * 1e6) as u64;
            it.wait_ns += (idle * STEP_MS as f64 * 1e6) as u64;
            it.elapsed_ns += STEP_MS * 1_000_000;
        }
    }

    fn report(&self, name: &HostName) -> Result<Report> {
        let agent = self.agents.get(name).ok_or("no such agent")?;
        let partitions = agent.processes.iter().map(|((id, rank, _), it)| {
            let counters = self.counters.get(&(id.clone(), *rank)).cloned().filter(|_| runs(it));
            PartitionReport { counters, ..it.clone() }
        });
        Ok(Report {
            protocol: control::PROTOCOL,
            host: name.clone(),
            session: agent.session,
            cluster: None,
            facts: HostFacts {
                cpus: vec![0],
                memory_bytes: 1 << 30,
                standby: agent.standby,
                labels: BTreeMap::new(),
                migrate_address: "127.0.0.1".into(),
                fabric_address: None,
                state_directory: "/s".into(),
                version: "test".into(),
            },
            partitions: partitions.collect(),
            results: agent.results.clone(),
            output: vec![],
        })
    }

    fn obey(&mut self, name: &HostName) -> Result {
        let (session, received) = {
            let agent = self.agents.get(name).ok_or("no such agent")?;
            (agent.session, agent.received)
        };
        let request = CommandsRequest { protocol: control::PROTOCOL, host: name.clone(), session, received };
        for command in self.cluster.commands(&request)? {
            let agent = self.agents.get_mut(name).ok_or("no such agent")?;
            agent.received = agent.received.max(command.id);
            self.obey_one(name, command)?;
        }
        Ok(())
    }

    fn obey_one(&mut self, name: &HostName, command: Command) -> Result {
        let key = (command.application.clone(), command.rank, command.epoch);
        if let Action::Migrate { await_switch: true, .. } = &command.action {
            let agent = self.agents.get_mut(name).ok_or("no such agent")?;
            if let Some(it) = agent.processes.get_mut(&key) {
                (it.sending, it.awaits_switch) = (true, true);
            }
            self.waiting.insert(key, command);
            return Ok(());
        }
        if let (Action::Switch, Some(migrate)) = (&command.action, self.waiting.remove(&key)) {
            self.switches.push((self.now_ms, key.1));
            self.finish_command(name, migrate)?;
        }
        self.finish_command(name, command)
    }

    fn finish_command(&mut self, name: &HostName, command: Command) -> Result {
        let outcome = self.carry_out(name, &command)?;
        let agent = self.agents.get_mut(name).ok_or("no such agent")?;
        let Command { id, application, rank, epoch, .. } = command;
        agent.results.push(CommandResult { id, application, rank, epoch, outcome });
        Ok(())
    }

    fn carry_out(&mut self, name: &HostName, command: &Command) -> Result<Outcome> {
        let key = (command.application.clone(), command.rank, command.epoch);
        if let Action::Migrate { to, epoch, .. } = &command.action {
            return self.migrate(name, &key, to, *epoch);
        }
        let agent = self.agents.get_mut(name).ok_or("no such agent")?;
        let made = |state| PartitionReport {
            application: key.0.clone(),
            rank: key.1,
            epoch: key.2,
            state,
            sending: false,
            awaits_switch: false,
            detail: None,
            pid: Some(1),
            fabric: None,
            end: None,
            counters: None,
        };
        match &command.action {
            Action::Start(_) => {
                agent.processes.entry(key.clone()).or_insert_with(|| made(PartitionState::Running));
            }
            Action::PrepareReceive { .. } => {
                agent.processes.insert(key.clone(), made(PartitionState::Waiting));
                return Ok(Outcome::Listening { address: name.to_string() });
            }
            Action::Discard { .. } => {
                if agent.processes.get(&key).is_some_and(runs) {
                    return Ok(Outcome::Running);
                }
                agent.processes.remove(&key);
                return Ok(Outcome::Discarded);
            }
            Action::Share { generation, target, .. } => {
                self.shares.insert((key.0.clone(), key.1), (*generation, *target));
            }
            Action::Kill => drop(agent.processes.remove(&key)),
            Action::EndApplication => agent.processes.retain(|it, _| it.0 != key.0),
            Action::Resume | Action::SetPeers(_) | Action::Switch | Action::Migrate { .. } => {}
        }
        Ok(Outcome::Done)
    }

    fn migrate(&mut self, from: &HostName, key: &Key, to: &str, epoch: u64) -> Result<Outcome> {
        let there = (key.0.clone(), key.1, epoch);
        let arrives =
            |agent: &mut Agent| agent.processes.get_mut(&there).map(|it| it.state = PartitionState::Running);
        let target = self.agents.get_mut(&to.parse::<HostName>()?);
        if target.and_then(arrives).is_none() {
            return Ok(Outcome::NotMoved { reason: "nobody listens".into() });
        }
        let source = self.agents.get_mut(from).ok_or("no such agent")?;
        if let Some(it) = source.processes.get_mut(key) {
            (it.state, it.end) = (PartitionState::Moved, Some(End::Moved));
        }
        let total_s = 0.2;
        let measured =
            MoveReport { total_s, blackout_ms: 5.0, bytes: 16 << 20, rounds: 2, stop_reason: "x".into() };
        Ok(Outcome::Moved(measured))
    }
}

fn runs(it: &PartitionReport) -> bool {
    it.state == PartitionState::Running
}
