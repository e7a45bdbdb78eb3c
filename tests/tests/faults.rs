//! Deaths and cut connections at every phase of a migration: before the commit the source goes on, after it never two run.

use partita_tests::partition::{Hold, Receiver, Status};
use partita_tests::proxy::Proxy;
use partita_tests::{
    Bench, Control, Error, Failures, Process, Result, State, binaries, limit, promised, wait_for,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillSource,
    KillDestination,
    Cut,
}

/// What may come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The source goes on and can be moved again.
    SourceRuns,
    /// The destination runs, the source does not.
    DestinationRuns,
    /// The source is paused and says that it is in doubt, and the destination is dead or paused too; or the source goes on.
    Doubt,
    /// The destination is paused and in doubt.
    DestinationInDoubt,
    /// Nobody has it: the one who had it was killed.
    Lost,
}

/// The last line of `longrun` after so many rounds, natively.
fn natively(bench: &Bench, rounds: &str) -> Result<String> {
    let mut command = bench.command(&binaries::guest("native/longrun")?);
    command.arg(rounds);
    let done = bench.run(command, "native", None, 60)?;
    let text = String::from_utf8(done.stdout)?;
    Ok(text.lines().last().ok_or("no result")?.to_owned())
}

/// One scenario: a partition that computes until it is told to end, and a destination.
struct Scene<'a> {
    bench: &'a Bench,
    hold: Hold,
    at_source: bool,
    source: Process,
    control: Control,
    destination: Receiver,
    proxy: Proxy,
}

impl<'a> Scene<'a> {
    fn start(bench: &'a Bench, phase: &str) -> Result<Self> {
        let hold = Hold::new(bench, phase);
        let at_source = phase.starts_with("source:");
        let mut command = bench.vmm(["run", "--memory", "32M", "--state-dir"])?;
        command.arg(bench.state()).arg(binaries::guest("glibc/longrun")?).arg("--until-told");
        if at_source {
            hold.apply(&mut command);
        }
        let source = bench.start(command, "source")?;
        let control = Control::of_rank(bench, 0);
        control.wait_until(&[State::Running], 10).map_err(|e| format!("{e}\n{}", source.describe()))?;
        let destination = Receiver::start(bench, 0, &[], (!at_source).then_some(&hold))?;
        let proxy = Proxy::start(&destination.listen)?;
        Ok(Self { bench, hold, at_source, source, control, destination, proxy })
    }

    /// Migrates, strikes at the held phase, and lets everything go on. The status of `migrate`.
    fn strike(&mut self, fault: Fault) -> Result<Process> {
        let options = ["--timeout-s", "120", "--on-timeout", "force", "--downtime-limit-ms", "2000"];
        let mut migrate = self.control.start_migrate(self.bench, &self.proxy.address(), &options)?;
        self.hold.wait(&mut migrate).map_err(|e| format!("{e}\n{}", self.describe()))?;
        match fault {
            Fault::KillSource => self.source.kill()?,
            Fault::KillDestination => self.destination.process.kill()?,
            Fault::Cut => self.proxy.cut(),
        }
        self.hold.release();
        Ok(migrate)
    }

    fn look(&mut self) -> Result<[Option<Status>; 2]> {
        let mut found = [None, None];
        let pairs =
            [(&mut self.source, &self.control), (&mut self.destination.process, &self.destination.control)];
        for (slot, (process, control)) in found.iter_mut().zip(pairs) {
            if process.status()?.is_none() {
                // It may end between the two questions.
                *slot = control.status().ok();
            }
        }
        Ok(found)
    }

    /// States of source and destination when nothing is under way any more; `None` for ended processes.
    fn settle(&mut self) -> Result<[Option<State>; 2]> {
        let what = "the migration to be over";
        let mut twice = false;
        let states = wait_for(what, 10, || {
            let states = self.look()?.map(|status| status.map(|status| status.state));
            twice |= states == [Some(State::Running); 2];
            let busy = [State::Migrating, State::Receiving, State::Moved, State::Exited];
            Ok((!states.iter().flatten().any(|state| busy.contains(state))).then_some(states))
        });
        let states = states.map_err(|e| format!("{e}\n{}", self.describe()))?;
        if twice {
            return Err(format!("it runs twice\n{}", self.describe()).into());
        }
        if states[1] == Some(State::Waiting) {
            // The connection was cut before it had said what it was: this one waits for another.
            self.destination.process.kill()?;
            return Ok([states[0], None]);
        }
        Ok(states)
    }

    /// Moves the survivor on the source once more, to a fresh destination.
    fn move_again(&mut self) -> Result<Receiver> {
        let next = Receiver::start(self.bench, 1, &[], None)?;
        let options = ["--timeout-s", "120", "--on-timeout", "force", "--downtime-limit-ms", "2000"];
        let mut migrate = self.control.start_migrate(self.bench, &next.listen, &options)?;
        if self.at_source {
            self.hold.wait(&mut migrate)?;
            self.hold.release();
        }
        let status = migrate.wait(30)?;
        if status != 0 {
            return Err(format!("cannot move again: {}\n{}", migrate.stderr(), self.describe()).into());
        }
        Ok(next)
    }

    fn describe(&self) -> String {
        format!("{}\n{}", self.source.describe(), self.destination.process.describe())
    }

    /// Lines are numbered from 1 without gap or repetition, and the result is right.
    fn check_output(&self, more: Option<&Receiver>) -> Result {
        let mut bytes = self.source.stdout();
        bytes.extend(self.destination.process.stdout());
        bytes.extend(more.map(|receiver| receiver.process.stdout()).unwrap_or_default());
        let text = String::from_utf8(bytes)?;
        let numbered: Vec<u64> = text
            .lines()
            .filter_map(|line| line.strip_prefix("longrun: line ")?.split(' ').next()?.parse().ok())
            .collect();
        let counts_up = numbered.iter().enumerate().all(|(index, number)| *number == index as u64 + 1);
        let last = text.lines().last().unwrap_or_default();
        let rounds = last.strip_prefix("longrun: rounds ").and_then(|rest| rest.split(' ').next());
        let expected = rounds.map(|rounds| natively(self.bench, rounds)).transpose()?;
        if counts_up && text.lines().count() == numbered.len() + 1 && expected.as_deref() == Some(last) {
            return Ok(());
        }
        Err(format!("output {text:?}, wanted lines in order and at last {expected:?}\n{}", self.describe())
            .into())
    }
}

fn in_doubt_is_said(process: &Process, status: Option<&Status>) -> Result {
    let detail = status.and_then(|status| status.detail.as_deref()).unwrap_or_default();
    if detail.is_empty() || !process.stderr().lines().any(|line| line.contains("in doubt")) {
        return Err(format!("in doubt without saying so: {detail:?}\n{}", process.describe()).into());
    }
    Ok(())
}

fn resume_in_doubt(scene: &Scene<'_>, control: &Control) -> Result {
    let refused = control.order(scene.bench, &["resume"])?;
    let done = control.order(scene.bench, &["resume", "--in-doubt"])?;
    if refused.status == 0 || done.status != 0 {
        return Err(format!("resume: {}, --in-doubt: {} {}", refused.status, done.status, done.stderr).into());
    }
    Ok(())
}

/// What has to happen after the strike; returns a third process, if the partition was moved on to one.
fn resolve(scene: &mut Scene<'_>, expected: Expected, migrate: &mut Process) -> Result<Option<Receiver>> {
    let states = scene.settle()?;
    let status = if scene.source.status()?.is_none() { Some(migrate.wait(15)?) } else { None };
    let told = scene.look()?;
    let wrong = |scene: &Scene<'_>| -> Error {
        format!(
            "expected {expected:?}, found {states:?}, migrate {status:?}: {}\n{}",
            migrate.stderr(),
            scene.describe()
        )
        .into()
    };
    use State::{InDoubt, Running};
    match (expected, states) {
        (Expected::SourceRuns, [Some(Running), None]) if status == Some(1) => scene.move_again().map(Some),
        (Expected::DestinationRuns, [source, Some(Running)]) if source != Some(Running) => {
            if source == Some(InDoubt) {
                in_doubt_is_said(&scene.source, told[0].as_ref())?;
                // Its operator looks at the destination, which runs, and ends it.
                let done = scene.control.order(scene.bench, &["stop"])?;
                if done.status != 0 {
                    return Err(wrong(scene));
                }
            }
            Ok(None)
        }
        (Expected::Doubt, [Some(Running), None]) => Ok(None),
        (Expected::Doubt, [Some(InDoubt), destination @ (None | Some(InDoubt))]) if status == Some(1) => {
            in_doubt_is_said(&scene.source, told[0].as_ref())?;
            if destination.is_some() {
                in_doubt_is_said(&scene.destination.process, told[1].as_ref())?;
                scene.destination.process.kill()?;
            }
            resume_in_doubt(scene, &scene.control.clone())?;
            Ok(None)
        }
        (Expected::DestinationInDoubt, [None, Some(InDoubt)]) => {
            in_doubt_is_said(&scene.destination.process, told[1].as_ref())?;
            resume_in_doubt(scene, &scene.destination.control.clone())?;
            Ok(None)
        }
        (Expected::Lost, [None, None]) => Ok(None),
        // It has received RUNNING and was told of the end; or it has not, and is in doubt for good.
        (Expected::Lost, [Some(InDoubt), None]) => {
            in_doubt_is_said(&scene.source, told[0].as_ref())?;
            scene.source.kill()?;
            Ok(None)
        }
        _ => Err(wrong(scene)),
    }
}

fn play(phase: &str, fault: Fault, expected: Expected) -> Result {
    let bench = Bench::new()?;
    let mut scene = Scene::start(&bench, phase)?;
    let mut migrate = scene.strike(fault)?;
    let mut third = resolve(&mut scene, expected, &mut migrate)?;
    bench.say("end\n")?;
    let statuses = [
        Some(scene.source.wait(60)?),
        Some(scene.destination.process.wait(60)?),
        third.as_mut().map(|receiver| receiver.process.wait(60)).transpose()?,
    ];
    bench.assert_no_processes()?;
    if expected == Expected::Lost {
        return Ok(());
    }
    scene.check_output(third.as_ref()).map_err(|e| format!("statuses {statuses:?}: {e}"))?;
    if statuses.contains(&Some(0)) {
        Ok(())
    } else {
        Err(format!("nobody ended with 0: {statuses:?}").into())
    }
}

fn play_all(fault: Fault, cases: &[(&str, Expected)]) -> Result {
    let mut failures = Failures::default();
    for (phase, expected) in cases {
        let start = std::time::Instant::now();
        if let Err(error) = play(phase, fault, *expected) {
            failures.add(format!("{fault:?} at {phase}: {error}"));
        }
        println!("{fault:?} at {phase}: {:.1} s", start.elapsed().as_secs_f64());
    }
    failures.finish()
}

#[test]
fn the_destination_is_killed() -> Result {
    play_all(
        Fault::KillDestination,
        &[
            ("source:Prepare", Expected::SourceRuns),
            ("source:Round(0)", Expected::SourceRuns),
            ("source:Blackout", Expected::SourceRuns),
            ("destination:Verify", Expected::SourceRuns),
            // Nobody can know whether COMMIT arrived.
            ("source:Ready", Expected::Doubt),
            ("destination:Commit", Expected::Doubt),
            ("source:Commit", Expected::Lost),
        ],
    )
}

#[test]
fn the_connection_is_cut() -> Result {
    play_all(
        Fault::Cut,
        &[
            ("source:Prepare", Expected::SourceRuns),
            ("source:Round(0)", Expected::SourceRuns),
            ("source:Blackout", Expected::SourceRuns),
            ("destination:Rounds", Expected::SourceRuns),
            ("source:Ready", Expected::Doubt),
            ("destination:Commit", Expected::DestinationRuns),
            ("source:Commit", Expected::DestinationRuns),
        ],
    )
}

#[test]
fn the_source_is_killed() -> Result {
    play_all(
        Fault::KillSource,
        &[
            ("source:Round(0)", Expected::Lost),
            ("source:Blackout", Expected::Lost),
            // Everything has been sent, so there is a whole copy; only its operator can know that the source is dead.
            ("source:Saved", Expected::DestinationInDoubt),
            ("source:Ready", Expected::DestinationInDoubt),
            ("destination:Commit", Expected::DestinationRuns),
            ("source:Commit", Expected::DestinationRuns),
        ],
    )
}

/// `vmm run` of a storm on two ranks that does not end by itself; every rank runs.
fn start_endless_storm(bench: &Bench) -> Result<Process> {
    let mut command = bench.vmm(["run", "--np", "2", "--memory", "32M", "--state-dir"])?;
    command.arg(bench.state()).arg(binaries::app("storm")?);
    command.args(["--seconds", "3600", "--max-bytes", "10000"]);
    let launcher = bench.start(command, "launcher")?;
    for rank in 0..2 {
        Control::of_rank(bench, rank).wait_until(&[State::Running], 10)?;
    }
    Ok(launcher)
}

#[test]
fn a_killed_rank_ends_the_application() -> Result {
    let bench = Bench::new()?;
    let mut launcher = start_endless_storm(&bench)?;
    let control = Control::of_rank(&bench, 1);
    let pid = control.status()?.pid;
    // What people see is what the tests see.
    let shown = control.order(&bench, &["status"])?;
    let shown_pid = serde_json::from_slice::<serde_json::Value>(&shown.stdout)?["pid"].as_i64();
    if shown.status != 0 || shown_pid != Some(pid.into()) {
        return Err(format!("vmm ctl status: {} {shown_pid:?} {}", shown.status, shown.stderr).into());
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    let start = std::time::Instant::now();
    let status = promised("the end of the application", 5, || launcher.status())
        .map_err(|e| format!("{e}\n{}", launcher.describe()))?;
    println!("ended after {:.2} s (at most {:?})", start.elapsed().as_secs_f64(), limit(5));
    let told = launcher
        .stderr()
        .lines()
        .filter(|line| line.contains("rank 1") && line.contains("killed by signal 9"))
        .count();
    if status != 137 || told != 1 {
        return Err(format!("status {status}, told {told} times\n{}", launcher.describe()).into());
    }
    bench.assert_nothing_left()
}

#[test]
fn a_killed_launcher_takes_its_ranks_along() -> Result {
    let bench = Bench::new()?;
    let mut launcher = start_endless_storm(&bench)?;
    launcher.kill()?;
    bench.assert_no_processes()
}
