//! One run of heat in the cluster, and what is seen of it.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use partita_tests::cluster::Cluster;
use partita_tests::placement::{Balanced, HOSTS, MoveSeen, Placement};
use partita_tests::{Bench, Process, Result, binaries, interrupt, patience};
use serde_json::Value;

/// A calibration takes at least this long.
const CALIBRATION_S: f64 = 2.0;
const TICK: Duration = Duration::from_millis(50);

/// heat with its work.
#[derive(Debug, Clone)]
pub struct Program {
    size: u32,
    work: String,
    /// How many.
    pub steps: u64,
    /// Steps after which the work moves on by one rank.
    pub shift: Option<u64>,
    /// About how long it takes where the load is even, in seconds; 0 while nobody knows.
    pub seconds: f64,
}

impl Program {
    /// Without steps.
    pub fn new(size: u32, work: &[u32]) -> Self {
        let work: Vec<_> = work.iter().map(ToString::to_string).collect();
        Self { size, work: work.join(","), steps: 0, shift: None, seconds: 0.0 }
    }

    fn arguments(&self) -> Vec<String> {
        // Both a hundred residuals and the lines that say how far it is cost little.
        let every = (self.steps / 100).max(1);
        let shift = self.shift.map_or(String::new(), |steps| format!("--shift {steps}"));
        let Self { size, work, steps, .. } = self;
        let text = format!("--size {size} --steps {steps} --work {work} --every {every} --progress {shift}");
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Its manifest: it begins as placed.
    fn manifest(&self, bench: &Bench, name: &str, placement: &Placement, may_move: bool) -> Result<PathBuf> {
        let pins =
            placement.0.iter().enumerate().map(|(rank, host)| format!("{rank} = {:?}\n", HOSTS[*host]));
        let text = format!(
            "name = {name:?}\nranks = {}\nexecutable = {:?}\nargs = {:?}\nmemory = \"64M\"\nmigrate = {may_move}\n\
             strategy = \"pinned\"\n[pinned]\n{}",
            placement.0.len(),
            binaries::app("heat")?,
            self.arguments(),
            pins.collect::<String>()
        );
        let path = bench.path().join(format!("{name}.toml"));
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

/// A run that is over.
#[derive(Debug)]
pub struct Done {
    /// As the program says.
    pub steps_per_s: f64,
    /// Everything but its lines of progress.
    pub stdout: String,
    /// When a step was seen to be done: Unix milliseconds.
    seen: Vec<(u64, u64)>,
}

/// The newest line of progress, as a number of steps.
fn steps_done(stdout: &str) -> Option<u64> {
    let line = stdout.lines().rev().find_map(|line| line.strip_prefix("heat: step "))?;
    line.split('/').next()?.parse().ok()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Runs it to its end, for at most `longest`.
fn follow(client: &mut Process, steps: u64, longest: Duration, bar: &ProgressBar) -> Result<Done> {
    let begin = Instant::now();
    let mut seen: Vec<(u64, u64)> = Vec::new();
    bar.set_length(steps);
    bar.set_position(0);
    loop {
        let status = client.status()?;
        let stdout = String::from_utf8_lossy(&client.stdout()).into_owned();
        let done = steps_done(&stdout).unwrap_or(0);
        if done > seen.last().map_or(0, |(step, _)| *step) {
            seen.push((done, now_ms()));
            bar.set_position(done);
        }
        if let Some(status) = status {
            let stderr = client.stderr();
            let seconds =
                stderr.lines().find_map(|line| line.strip_prefix("heat: ")?.strip_suffix(" s")?.parse().ok());
            let seconds: f64 = seconds.filter(|_| status == 0).ok_or_else(|| client.describe())?;
            let result = stdout.lines().filter(|line| !line.starts_with("heat: step ")).collect();
            return Ok(Done { steps_per_s: steps as f64 / seconds.max(0.001), stdout: result, seen });
        }
        if interrupt::is_interrupted() {
            return Err("interrupted".into());
        }
        if begin.elapsed() > longest {
            return Err(format!("not over after {longest:?}\n{}", client.describe()).into());
        }
        std::thread::sleep(TICK);
    }
}

/// Steps per second in a placement, from a run that is long enough to tell.
pub fn calibrate(
    bench: &Bench,
    cluster: &Cluster<'_>,
    program: &Program,
    placement: &Placement,
    bar: &ProgressBar,
) -> Result<f64> {
    bar.set_message("how fast is it");
    let mut program = Program { steps: 10, shift: None, ..program.clone() };
    loop {
        let speed = still(bench, cluster, &program, placement, bar)?.steps_per_s;
        if program.steps as f64 / speed >= CALIBRATION_S {
            return Ok(speed);
        }
        program.steps = (program.steps * 2).max((1.5 * CALIBRATION_S * speed) as u64);
    }
}

/// How long a run may take. On one host it takes twice as long as on two, or as often as the work is uneven; the rest is for noise.
fn longest(program: &Program) -> Duration {
    patience(60) + Duration::from_secs_f64(10.0 * program.seconds)
}

/// A run in which nothing moves.
pub fn still(
    bench: &Bench,
    cluster: &Cluster<'_>,
    program: &Program,
    placement: &Placement,
    bar: &ProgressBar,
) -> Result<Done> {
    let mut client = cluster.submit(&program.manifest(bench, "static", placement, false)?)?;
    follow(&mut client, program.steps, longest(program), bar)
}

/// A run that the coordinator may change; and its standard output.
pub fn balanced(
    bench: &Bench,
    cluster: &Cluster<'_>,
    program: &Program,
    from: &Placement,
    bar: &ProgressBar,
) -> Result<(Balanced, String)> {
    let mut client = cluster.submit(&program.manifest(bench, "balanced", from, true)?)?;
    let done = follow(&mut client, program.steps, longest(program), bar)?;
    let applications = cluster.json(&["apps"])?;
    let application =
        applications.as_array().and_then(|apps| apps.iter().rfind(|it| it["name"] == "balanced"));
    let application = application.ok_or("the coordinator has forgotten the application")?;
    let events = cluster.events()?;
    let (moves, last_ms) = moves(&events, application);
    let balanced = Balanced {
        from: from.clone(),
        steps_per_s: done.steps_per_s,
        settled_steps_per_s: settled(&done.seen, last_ms, program.steps),
        moves,
        failed: failed(&events, application),
    };
    Ok((balanced, done.stdout))
}

/// How moves of an application ended that did not succeed.
fn failed(events: &[Value], application: &Value) -> Vec<String> {
    let of_it = |it: &&Value| {
        it["application"] == application["id"]
            && matches!(it["kind"].as_str(), Some("move-failed" | "move-in-doubt"))
    };
    let text = |it: &Value| {
        let [text, reason] = ["text", "reason"].map(|field| it[field].as_str().unwrap_or_default());
        format!("rank {}: {text}: {reason}", it["rank"])
    };
    events.iter().filter(of_it).map(text).collect()
}

/// Moves of an application, and the end of the last one, in Unix milliseconds.
fn moves(events: &[Value], application: &Value) -> (Vec<MoveSeen>, u64) {
    let end_ms = |id: &Value| {
        let end = format!("move {id} done");
        let event = events.iter().find(|it| it["text"].as_str().is_some_and(|text| text.starts_with(&end)));
        event.and_then(|it| it["time_ms"].as_u64()).unwrap_or(0)
    };
    let submitted_ms = application["submitted_ms"].as_u64().unwrap_or(0);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let done = application["moves"].as_array().map(Vec::as_slice).unwrap_or_default();
    let seen = |it: &Value| MoveSeen {
        rank: it["rank"].as_u64().unwrap_or(0),
        from: text(&it["from"]),
        to: text(&it["to"]),
        done_s: end_ms(&it["id"]).saturating_sub(submitted_ms) as f64 / 1000.0,
        blackout_ms: it["blackout_ms"].as_f64(),
        reason: text(&it["reason"]),
    };
    let last_ms = done.iter().map(|it| end_ms(&it["id"])).max().unwrap_or(0);
    (done.iter().map(seen).collect(), last_ms)
}

/// Steps per second after a time; nothing unless a quarter of all steps came after it.
fn settled(seen: &[(u64, u64)], after_ms: u64, steps: u64) -> Option<f64> {
    let (first, last) = (seen.iter().find(|(_, ms)| *ms >= after_ms)?, seen.last()?);
    let (count, ms) = (last.0 - first.0, last.1 - first.1);
    (count * 4 >= steps && ms > 0).then(|| count as f64 * 1000.0 / ms as f64)
}
