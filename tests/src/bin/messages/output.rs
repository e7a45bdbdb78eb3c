//! The table, the JSON file, and where the picture goes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use partita_tests::Result;
use partita_tests::machine::Kvm;
use partita_tests::messages::{
    self, Figures, Limit, Measure, Measured, Part, System, Verdict, median_of, ratio,
    with_a_processor_each_us,
};
use serde::Serialize;

use crate::picture;

/// Version of the JSON file.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct File<'a> {
    format: u32,
    program: &'static str,
    version: &'static str,
    #[serde(flatten)]
    measured: &'a Measured,
    medians: BTreeMap<&'static str, Figures>,
    /// Medians of the turns.
    hosts_parts: Vec<Part>,
    hosts_round_trip_with_a_processor_each_us: Option<f64>,
    bars: Vec<Verdict>,
}

/// Writes what is wanted.
pub fn write(measured: &Measured, json: Option<&Path>, svg: Option<&Path>) -> Result {
    let put = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = json {
        put(path, &self::json(measured)?)?;
    }
    if let Some(path) = svg {
        put(path, picture::draw(measured)?.as_bytes())?;
    }
    Ok(())
}

fn medians(measured: &Measured, system: System) -> Figures {
    let of = |measure| Some((measure, median_of(&measured.runs, system, measure)?));
    Measure::ALL.into_iter().filter_map(of).collect()
}

fn hosts_parts(measured: &Measured) -> Vec<Part> {
    let of = |phase| messages::parts(&measured.runs, System::Hosts, phase);
    messages::PHASES.into_iter().flat_map(of).collect()
}

fn json(measured: &Measured) -> Result<Vec<u8>> {
    let file = File {
        format: FORMAT,
        program: "messages",
        version: env!("CARGO_PKG_VERSION"),
        measured,
        medians: measured.systems().into_iter().map(|it| (it.name(), medians(measured, it))).collect(),
        hosts_parts: hosts_parts(measured),
        hosts_round_trip_with_a_processor_each_us: with_a_processor_each_us(&measured.runs),
        bars: measured.verdicts(),
    };
    let mut bytes = serde_json::to_vec_pretty(&file)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Three figures or more.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Everything in text.
pub fn table(measured: &Measured) -> String {
    let mut lines = vec![heading(measured), row("", |measure| Some(measure.title().to_owned()))];
    for system in measured.systems() {
        let found = medians(measured, system);
        lines.push(row(system.name(), |measure| found.get(&measure).copied().map(figure)));
        for baseline in [System::MpichShm, System::MpichTcp] {
            let of = |measure| ratio(&measured.runs, measure, system, baseline);
            if baseline != system && Measure::ALL.into_iter().any(|measure| of(measure).is_some()) {
                lines.push(row(&format!("  by {}", baseline.name()), |measure| of(measure).map(figure)));
            }
        }
    }
    lines.extend(parts_lines(measured));
    lines.extend(measured.verdicts().iter().map(verdict_line));
    lines.push(machine_line(measured));
    lines.into_iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn row(name: &str, cell: impl Fn(Measure) -> Option<String>) -> String {
    Measure::ALL.into_iter().fold(format!("{name:<20}"), |mut line, measure| {
        let _ = write!(line, " {:>20}", cell(measure).unwrap_or_default());
        line
    })
}

fn heading(measured: &Measured) -> String {
    let plan = &measured.plan;
    let [first, second] = plan.processors;
    format!(
        "Messages: medians of turns ({}); {} round trips, {} transfers, {} Allreduces, halo of {}x{} cells, {} steps; ranks on processors {first} and {second}",
        plan.turns,
        plan.round_trips,
        plan.transfers,
        plan.allreduces,
        plan.halo_size,
        plan.halo_size,
        plan.halo_steps
    )
}

fn parts_lines(measured: &Measured) -> Vec<String> {
    let mut lines = Vec::new();
    let parts = hosts_parts(measured);
    for phase in messages::PHASES {
        let of_phase: Vec<_> = parts.iter().filter(|part| part.phase == phase).collect();
        let text: Vec<String> = of_phase
            .iter()
            .filter(|part| part.us_per_round > 0.0)
            .map(|part| format!("{} {} {}", part.thread, part.rank, figure(part.us_per_round)))
            .collect();
        if !of_phase.is_empty() {
            lines.push(format!("hosts, us of a processor per {phase}: {}", text.join(", ")));
        }
    }
    if let Some(us) = with_a_processor_each_us(&measured.runs) {
        lines.push(format!(
            "hosts, with a processor for each of the four threads: about {} us a round trip (its fabric threads' time and the partitions' round trip; waking threads not counted)",
            figure(us)
        ));
    }
    lines
}

fn verdict_line(verdict: &Verdict) -> String {
    let bar = verdict.bar;
    let wanted = match bar.limit {
        Limit::AtMost(limit) => format!("at most {limit}"),
        Limit::AtLeast(limit) => format!("at least {limit}"),
    };
    let what = format!("{}, {} by {}", bar.measure.title(), bar.system.name(), bar.baseline.name());
    let Some(ratio) = verdict.ratio else { return format!("bar not known: {what}: {wanted}") };
    let turns = verdict
        .ratios_of_turns
        .map(|[least, most]| format!(" (turns {} to {})", figure(least), figure(most)));
    let said = match verdict.missed_by {
        None => "not judged here".to_owned(),
        Some(missed_by) if missed_by > 0.0 => format!("MISSED by {:.0} %", (missed_by * 100.0).max(1.0)),
        Some(_) => "met".to_owned(),
    };
    format!("bar {said}: {what} is {}{}, {wanted}", figure(ratio), turns.unwrap_or_default())
}

/// What partitions ran on.
pub fn kvm_name(kvm: Kvm) -> &'static str {
    match kvm {
        Kvm::Hardware => "KVM of this machine",
        Kvm::Emulated => "EMULATED MACHINE, no speeds",
        Kvm::None => "no KVM",
    }
}

fn machine_line(measured: &Measured) -> String {
    let machine = &measured.machine;
    let loads: Vec<_> = measured.load_averages.iter().map(|load| format!("{load:.1}")).collect();
    format!(
        "{} processors ({}), {}; load before and after each turn: {}",
        machine.processors,
        machine.model,
        kvm_name(machine.kvm),
        loads.join(" ")
    )
}

#[cfg(test)]
pub mod tests {
    use partita_tests::machine::Machine;
    use partita_tests::messages::{Plan, Run};

    use super::*;

    /// Two turns of three systems.
    pub fn measured() -> Measured {
        let run = |system, turn, factor: f64| Run {
            system,
            turn,
            figures: Measure::ALL.into_iter().map(|measure| (measure, factor * turn as f64)).collect(),
            parts: ["fabric", "vcpu"]
                .into_iter()
                .flat_map(|thread| [(0, thread), (1, thread)])
                .filter(|_| system == System::Hosts)
                .map(|(rank, thread)| Part {
                    phase: "round-trip",
                    rank,
                    thread: thread.into(),
                    us_per_round: 7.0,
                })
                .collect(),
        };
        let turn = |turn| {
            let factors = [(System::MpichShm, 1.0), (System::Partitions, 1.25), (System::Hosts, 90.0)];
            factors.map(|(system, factor)| run(system, turn, factor))
        };
        Measured {
            plan: Plan {
                turns: 2,
                warm_up: 1,
                round_trips: 2,
                transfers: 3,
                allreduces: 4,
                halo_size: 64,
                halo_steps: 5,
                processors: [0, 1],
                host_processors: ["0".into(), "1".into()],
            },
            machine: Machine {
                processors: 2,
                model: "a processor".into(),
                kernel: "6.1".into(),
                kvm: Kvm::Hardware,
                flags: vec!["vmx"],
            },
            load_averages: vec![0.0, 1.0, 2.0],
            runs: [turn(1), turn(2)].concat(),
        }
    }

    #[test]
    fn the_table_says_what_was_measured_and_which_bars_are_met() {
        let text = table(&measured());
        for line in [
            "partitions 1.88 1.88 1.88 1.88 1.88",
            "by mpich-shm 1.25 1.25 1.25 1.25 1.25",
            "hosts, us of a processor per round-trip: fabric 0 7.00, vcpu 0 7.00, fabric 1 7.00, vcpu 1 7.00",
            "bar met: 8 B round trip [us], partitions by mpich-shm is 1.25 (turns 1.25 to 1.25), at most 1.5",
            "bar MISSED by 4 %: halo, 8 ranks [s], partitions by mpich-shm is 1.25 (turns 1.25 to 1.25), at most 1.2",
            "bar not known: 1 MiB [GB/s], hosts by mpich-tcp: at least 0.6",
            "2 processors (a processor), KVM of this machine; load before and after each turn: 0.0 1.0 2.0",
        ] {
            let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.lines().any(|found| squeeze(found) == line), "{line}\n{text}");
        }
        assert!(text.contains("about 15.9 us a round trip"), "{text}");
        assert!(!text.contains("by mpich-tcp  "), "{text}");
    }

    #[test]
    fn nothing_is_judged_in_the_emulated_machine() {
        let mut measured = measured();
        measured.machine.kvm = Kvm::Emulated;
        let text = table(&measured);
        assert!(
            text.contains("bar not judged here: 8 B round trip [us], partitions by mpich-shm is 1.25"),
            "{text}"
        );
        assert!(
            !text.contains("met:") && !text.contains("MISSED") && text.contains("EMULATED MACHINE"),
            "{text}"
        );
    }

    #[test]
    fn json_has_every_run_the_medians_and_the_machine() {
        let value: serde_json::Value = serde_json::from_slice(&json(&measured()).unwrap()).unwrap();
        assert_eq!((&value["format"], &value["machine"]["kvm"]), (&1.into(), &"hardware".into()));
        assert_eq!(value["runs"].as_array().unwrap().len(), 6);
        assert_eq!(value["runs"][1]["system"], "partitions");
        assert_eq!(value["medians"]["partitions"]["round_trip_us"], 1.875);
        assert_eq!(value["bars"][0]["limit"]["at_most"], 1.5);
        assert_eq!(value["bars"][0]["missed_by"], 0.0);
        assert_eq!(value["bars"][1]["ratio"], serde_json::Value::Null);
        assert_eq!(value["hosts_round_trip_with_a_processor_each_us"], 15.875);
        assert_eq!(value["plan"]["turns"], 2);
    }
}
