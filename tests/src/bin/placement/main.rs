//! `placement`: how fast a program runs in every placement of its ranks on two hosts of one processor each, and how fast when it
//! begins in the worst one and a coordinator moves it. See docs/bench.md.

mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use partita_tests::cluster::Cluster;
use partita_tests::machine::{load_average, two_processors};
use partita_tests::placement::{self, HOSTS, Load, Measured, Placement, Static};
use partita_tests::{Bench, Result, interrupt, is_emulated};

use run::Program;

/// Speed of every static placement of heat's ranks on two one-processor hosts, and of a run that begins in the worst and is balanced
#[derive(Debug, Parser)]
#[command(name = "placement")]
struct Options {
    /// What the load does: stay, shift, or one after the other
    #[arg(long, value_name = "LOAD", default_value = "both", value_parser = ["fixed", "shifting", "both"])]
    load: String,
    /// Ranks of the program; there are 2^(N-1) placements
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=6))]
    ranks: u16,
    /// Extra work of every rank where the load stays [default: 2 x (N-1), …, 4, 2, 0]
    #[arg(long, value_name = "W0,W1,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(..=1000))]
    work: Option<Vec<u32>>,
    /// The same where it shifts; moves on by one rank at every shift [default: N-2, 0, 0, …: one rank does as much as the others together]
    #[arg(long, value_name = "W0,W1,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(..=1000))]
    shifting_work: Option<Vec<u32>>,
    /// Grid of heat: SIZE x SIZE cells
    #[arg(long, value_name = "SIZE", default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=8192))]
    size: u32,
    /// About how long a run in the evenest placement takes where the load stays, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=36_000))]
    seconds: u64,
    /// About how long the load stays the same where it shifts, in seconds
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=36_000))]
    shift_seconds: u64,
    /// How often every rank has had every part of a load that shifts, at the end of a run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Runs of every static placement, turn by turn; the median counts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    repeats: u64,
    /// Processors of the two hosts
    #[arg(long, value_name = "A,B", default_value = "0,1", value_delimiter = ',', num_args = 1)]
    processors: Vec<u16>,
    /// An option for `coordinator serve`, as in --serve=--sustain-s=2; again for more
    #[arg(long, value_name = "OPTION")]
    serve: Vec<String>,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// End with status 1 unless the balanced runs are as fast as is promised
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    interrupt::measurement("placement", options.check, || measure_all(&options))
}

/// Whether all that was promised was reached.
fn measure_all(options: &Options) -> Result<bool> {
    let [first, second] = two_processors(&options.processors)?.map(|it| it.to_string());
    let bench = Bench::new()?;
    let serve: Vec<&str> = options.serve.iter().map(String::as_str).collect();
    let hosts = [(HOSTS[0], first.as_str(), false), (HOSTS[1], second.as_str(), false)];
    let cluster = Cluster::start(&bench, &serve, &hosts)?;
    let mut measured = Vec::new();
    for load in [Load::Fixed, Load::Shifting] {
        let is_wanted = match load {
            Load::Fixed => options.load != "shifting",
            Load::Shifting => options.load != "fixed",
        };
        if is_wanted {
            let result = measure(options, &bench, &cluster, load)?;
            print(&result);
            measured.push(result);
            // After each, so that what was measured is not lost when the next one fails.
            if let Some(path) = &options.json {
                write(path, &measured)?;
            }
        }
    }
    cluster.end()?;
    Ok(measured.iter().all(|it| it.ratio().is_some_and(|ratio| ratio >= it.bar())))
}

fn write(path: &Path, measured: &[Measured]) -> Result {
    let json = serde_json::to_vec_pretty(measured)?;
    std::fs::write(path, json).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// Extra work of every rank.
fn work(options: &Options, load: Load) -> Result<Vec<u32>> {
    let ranks = u32::from(options.ranks);
    let given = match load {
        Load::Fixed => options.work.clone(),
        Load::Shifting => options.shifting_work.clone(),
    };
    let default = |rank| match load {
        Load::Fixed => 2 * (ranks - 1 - rank),
        Load::Shifting => {
            if rank == 0 {
                ranks - 2
            } else {
                0
            }
        }
    };
    let work = given.unwrap_or_else(|| (0..ranks).map(default).collect());
    if work.len() != usize::from(options.ranks) {
        return Err(
            format!("{} ranks and work for {}: give one number for each", options.ranks, work.len()).into()
        );
    }
    Ok(work)
}

/// Every placement, then the balanced run from the worst.
fn measure(options: &Options, bench: &Bench, cluster: &Cluster<'_>, load: Load) -> Result<Measured> {
    let before = load_average();
    let work = work(options, load)?;
    let ranks = usize::from(options.ranks);
    let mut program = Program::new(options.size, &work);
    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} steps")?);
    let evenest = Placement::evenest(ranks, &work);
    let speed = run::calibrate(bench, cluster, &program, &evenest, &bar)?;
    program.steps = match load {
        Load::Fixed => ((options.seconds as f64 * speed) as u64).max(1),
        Load::Shifting => {
            let shift = ((options.shift_seconds as f64 * speed) as u64).max(1);
            program.shift = Some(shift);
            shift * options.rounds * u64::from(options.ranks)
        }
    };
    program.seconds = program.steps as f64 / speed;
    let mut statics: Vec<Static> = Placement::all(ranks)
        .into_iter()
        .map(|placement| Static { placement, steps_per_s: Vec::new() })
        .collect();
    let mut outputs = Vec::new();
    for round in 1..=options.repeats {
        for place in &mut statics {
            bar.set_message(format!("{} ({round} of {})", place.placement, options.repeats));
            let done = run::still(bench, cluster, &program, &place.placement, &bar)?;
            bar.suspend(|| eprintln!("placement: {}: {:.3} steps/s", place.placement, done.steps_per_s));
            place.steps_per_s.push(done.steps_per_s);
            outputs.push(done.stdout);
        }
    }
    let worst = placement::worst(&statics).ok_or("no placement was measured")?.placement.clone();
    bar.set_message(format!("balanced, from {worst}"));
    let (balanced, stdout) = run::balanced(bench, cluster, &program, &worst, &bar)?;
    bar.finish_and_clear();
    outputs.push(stdout);
    if outputs.iter().any(|output| *output != outputs[0]) {
        return Err("the program's results differ between placements; this must not be".into());
    }
    Ok(Measured {
        load,
        work,
        steps: program.steps,
        shift_steps: program.shift,
        statics,
        balanced,
        emulated: is_emulated(),
        load_average: [before, load_average()],
    })
}

fn print(measured: &Measured) {
    let what = match measured.shift_steps {
        None => "stays".to_owned(),
        Some(steps) => format!("moves on by one rank every {steps} steps"),
    };
    println!(
        "\nThe load {what}: extra work {:?}, {} steps; all results are equal.",
        measured.work, measured.steps
    );
    let best = placement::best(&measured.statics).map_or(f64::NAN, Static::speed);
    let row = |name: &str, speed: f64| println!("  {name:<34} {speed:>12.3} {:>8.3}", speed / best);
    println!("  {:<34} {:>12} {:>8}", "ranks on a | ranks on b", "steps/s", "of best");
    for place in &measured.statics {
        row(&place.placement.to_string(), place.speed());
    }
    let balanced = &measured.balanced;
    row(&format!("balanced, from {}", balanced.from), balanced.steps_per_s);
    match balanced.settled_steps_per_s {
        Some(speed) if balanced.moves.is_empty() => row("  nothing moved; as it arrived", speed),
        Some(speed) => row("  after the last move", speed),
        None => println!("    after the last move: fewer than a quarter of the steps, too few to say"),
    }
    for it in &balanced.moves {
        let blackout =
            it.blackout_ms.map_or("unknown blackout".into(), |ms| format!("{ms:.1} ms of blackout"));
        println!(
            "    {:.1} s: rank {} from {} to {}, {blackout}: {}",
            it.done_s, it.rank, it.from, it.to, it.reason
        );
    }
    for text in &balanced.failed {
        println!("    {text}");
    }
    let wanted = match measured.load {
        Load::Fixed => "where it settles, by the best static placement",
        Load::Shifting => "the whole run, by the best static placement",
    };
    match measured.ratio() {
        Some(ratio) => println!("  {wanted}: {ratio:.3} (promised: {:.2})", measured.bar()),
        None => println!("  {wanted}: not known (promised: {:.2})", measured.bar()),
    }
    let [before, after] = measured.load_average;
    let note = if measured.emulated { "; an emulated machine: speeds mean little" } else { "" };
    println!("  load of this machine: {before:.1} before, {after:.1} after{note}");
}
