//! The coordinator's metrics for Prometheus: what is kept between questions is only how planning went, the rest is counted anew.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use control::{Counters, HostView, Labels, MoveView, PartitionView, Sheet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Bounds of the time for a plan, in seconds.
const PLAN_BOUNDS: [f64; 8] = [0.0001, 0.001, 0.005, 0.02, 0.1, 0.5, 1.5, 5.0];
/// Bounds of blackouts, in seconds.
const BLACKOUT_BOUNDS: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Bounds of durations of moves, in seconds.
const MOVE_BOUNDS: [f64; 8] = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
/// Bounds of predicted / measured.
const RATIO_BOUNDS: [f64; 9] = [0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0, 4.0];

/// How one round of planning went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// max(utilisation) / mean - 1.
    pub imbalance: f64,
    /// Work of the busiest host, now and as predicted after the plan.
    pub work_max: (f64, f64),
    /// Application-seconds that imbalance costs per second.
    pub loss: f64,
    /// Moves in the plan.
    pub moves: usize,
    /// Names of the conditions that held it back.
    pub rejections: Vec<String>,
}

/// What is kept between questions.
#[derive(Debug)]
pub struct Kept {
    seconds: Histogram,
    rejections: Family<Labels, Counter<u64, AtomicU64>>,
    last: Planned,
}

impl Default for Kept {
    fn default() -> Self {
        Self { seconds: Histogram::new(PLAN_BOUNDS), rejections: Family::default(), last: Planned::default() }
    }
}

impl Kept {
    /// Takes note of a round of planning.
    pub fn planned(&mut self, planned: Planned, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        for gate in &planned.rejections {
            self.rejections.get_or_create(&vec![("gate", gate.clone())]).inc();
        }
        self.last = planned;
    }
}

/// A partition with its counters.
#[derive(Clone, Debug)]
pub struct Measured {
    /// As users see it.
    pub view: PartitionView,
    /// As its VMM counts.
    pub counters: Option<Counters>,
}

/// Everything that metrics are made of.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All hosts.
    pub hosts: Vec<HostView>,
    /// Partitions of applications that have not ended.
    pub partitions: Vec<Measured>,
    /// All moves.
    pub moves: Vec<MoveView>,
    /// Records in the journal.
    pub records: u64,
    /// How often the coordinator was started: the fencing token of its commands.
    pub incarnation: u64,
    /// Bytes of the series in memory.
    pub series_bytes: usize,
}

/// The metrics.
pub fn sheet(kept: &Kept, observed: &Observed) -> Sheet {
    let mut sheet = Sheet::new("partita");
    planning(&mut sheet, kept, observed);
    hosts(&mut sheet, &observed.hosts);
    partitions(&mut sheet, &observed.partitions);
    counters(&mut sheet, &observed.partitions);
    moves(&mut sheet, &observed.moves);
    let own = |value: f64| [(Labels::new(), value)];
    sheet.counter("journal_records", "Records in the journal", own(observed.records as f64));
    sheet.gauge(
        "fencing_token",
        "Fencing token of this coordinator's commands",
        own(observed.incarnation as f64),
    );
    sheet.gauge("series_bytes", "Memory of the series", own(observed.series_bytes as f64));
    sheet
}

fn planning(sheet: &mut Sheet, kept: &Kept, observed: &Observed) {
    let last = &kept.last;
    let own = |value: f64| [(Labels::new(), value)];
    sheet.gauge("imbalance", "max(utilisation) / mean - 1 at the last plan", own(last.imbalance));
    let at = |at: &str, value: f64| (vec![("at", at.to_owned())], value);
    let work = [at("now", last.work_max.0), at("planned", last.work_max.1)];
    sheet.gauge(
        "work_max",
        "Work of the busiest host (W_max): busy seconds and cost of traffic per second",
        work,
    );
    sheet.gauge("loss", "Application-seconds that imbalance costs per second", own(last.loss));
    sheet.gauge("planned_moves", "Moves of the last plan", own(last.moves as f64));
    sheet.keep("plan_seconds", "Time for a plan and its explanation", kept.seconds.clone());
    sheet.keep("gate_rejections", "Plans that this gate held back", kept.rejections.clone());
    sheet.gauge(
        "application_time",
        "Utilisation of the hottest host of an application (T_app): what its iterations wait for",
        application_times(observed),
    );
}

fn application_times(observed: &Observed) -> Vec<(Labels, f64)> {
    let mut times: Vec<(Labels, f64)> = Vec::new();
    let utilisation: std::collections::BTreeMap<_, _> =
        observed.hosts.iter().map(|host| (&host.name, host.utilisation)).collect();
    for it in observed.partitions.iter().filter(|it| it.view.exit_status.is_none()) {
        let here = utilisation.get(&it.view.host).copied().unwrap_or(0.0);
        let labels = vec![("application", it.view.application.to_string())];
        // Partitions come application by application.
        match times.last_mut().filter(|(last, _)| *last == labels) {
            Some((_, time)) => *time = time.max(here),
            None => times.push((labels, here)),
        }
    }
    times
}

fn hosts(sheet: &mut Sheet, hosts: &[HostView]) {
    let mut add = |name: &str, help: &str, value: fn(&HostView) -> f64| {
        let sample = |it: &HostView| (vec![("host", it.name.to_string())], value(it));
        sheet.gauge(name, help, hosts.iter().map(sample));
    };
    add("host_load", "Busy processors of a host", |it| it.load);
    add("host_utilisation", "Load of a host per processor", |it| it.utilisation);
    add("host_cpus", "Processors of a host", |it| it.cpus.len() as f64);
    add("host_memory_bytes", "Memory of a host for partitions", |it| it.memory_bytes as f64);
    add("host_memory_used_bytes", "Memory of the partitions placed on a host", |it| {
        it.memory_used_bytes as f64
    });
    add("host_partitions", "Partitions placed on a host", |it| f64::from(it.partitions));
    add("host_silent_seconds", "Time since a host's last report", |it| it.silent_s.unwrap_or(f64::NAN));
    let state = |it: &HostView| (vec![("host", it.name.to_string()), ("state", it.state.clone())], 1.0);
    sheet.gauge("host_state", "1 for the state that a host is in", hosts.iter().map(state));
}

fn labels(it: &PartitionView) -> Labels {
    vec![
        ("application", it.application.to_string()),
        ("rank", it.rank.to_string()),
        ("host", it.host.to_string()),
    ]
}

fn partitions(sheet: &mut Sheet, partitions: &[Measured]) {
    let mut add = |name: &str, help: &str, value: fn(&PartitionView) -> f64| {
        sheet.gauge(name, help, partitions.iter().map(|it| (labels(&it.view), value(&it.view))));
    };
    add("partition_load", "Busy share of a processor, without polling", |it| it.load);
    add("partition_load_noise", "Standard error of the load", |it| it.noise);
    add("partition_steal", "Share of time ready to run but not running", |it| it.steal);
    add("partition_resident_bytes", "Resident memory of the partition's process", |it| {
        (it.resident_kib << 10) as f64
    });
    add("partition_dirty_pages_per_second", "Pages written per second, if sampled", |it| {
        it.dirty_pages_per_s.unwrap_or(f64::NAN)
    });
}

fn counters(sheet: &mut Sheet, partitions: &[Measured]) {
    let mut add = |name: &str, help: &str, value: fn(&Counters) -> f64| {
        // Not by host: counters move with their partition.
        let sample = |it: &Measured| {
            let mut labels = labels(&it.view);
            labels.truncate(2);
            Some((labels, value(it.counters.as_ref()?)))
        };
        sheet.counter(name, help, partitions.iter().filter_map(sample));
    };
    add("partition_run_seconds", "vCPU on a processor", |it| it.run_ns as f64 / 1e9);
    add("partition_wait_seconds", "vCPU asleep, waiting for data", |it| it.wait_ns as f64 / 1e9);
    add("partition_poll_seconds", "Waiting for messages without being asleep, part of run", |it| {
        it.poll_ns as f64 / 1e9
    });
    add("partition_progress", "Units of work that the program reported", |it| it.progress as f64);
    add("partition_migrations", "Moves made", |it| it.migrations as f64);
    add("partition_blackout_seconds", "Blackouts of all its moves", |it| it.blackout_ns as f64 / 1e9);
    add("partition_sent_bytes", "Bytes sent to peers", |it| {
        it.peers.iter().map(|it| it.bytes_sent as f64).sum()
    });
    add("partition_received_bytes", "Bytes received from peers", |it| {
        it.peers.iter().map(|it| it.bytes_received as f64).sum()
    });
    add("partition_sent_messages", "Messages sent to peers", |it| {
        it.peers.iter().map(|it| it.messages_sent as f64).sum()
    });
}

/// What a move was made for: `user`, `rule` (it had to be made), `imbalance` or `traffic`, whichever gained more.
fn purpose(it: &MoveView) -> &'static str {
    match &it.explanation {
        None => "user",
        Some(it) if it.verdict.starts_with("mandatory") => "rule",
        Some(it) if it.terms.traffic_and_rules > it.terms.load_source + it.terms.load_destination => {
            "traffic"
        }
        Some(_) => "imbalance",
    }
}

fn moves(sheet: &mut Sheet, moves: &[MoveView]) {
    let sample = |it: &MoveView| {
        let state = match it.state.as_str() {
            known @ ("done" | "failed") => known,
            _ => "open",
        };
        (vec![("reason", purpose(it).to_owned()), ("state", state.to_owned())], 1.0)
    };
    let (open, over): (Vec<_>, Vec<_>) =
        moves.iter().map(sample).partition(|(labels, _)| labels[1].1 == "open");
    sheet.counter("moves", "Moves that are over, by reason and outcome", over);
    sheet.gauge("moves_open", "Moves under way", [(Labels::new(), open.len() as f64)]);
    let blackouts = moves.iter().filter_map(|it| it.blackout_ms).map(|ms| ms / 1000.0);
    sheet.histogram("move_blackout_seconds", "Blackout of moves, at the source", &BLACKOUT_BOUNDS, blackouts);
    let totals = moves.iter().filter_map(|it| it.total_s);
    sheet.histogram("move_seconds", "Duration of moves, at the source", &MOVE_BOUNDS, totals);
    let ratio = |it: &MoveView| Some(it.predicted.as_ref()?.total_s / it.total_s.filter(|it| *it > 0.0)?);
    let help = "Predicted duration of moves / measured";
    sheet.histogram("move_prediction_ratio", help, &RATIO_BOUNDS, moves.iter().filter_map(ratio));
    let ratio =
        |it: &MoveView| Some(it.predicted.as_ref()?.blackout_ms / it.blackout_ms.filter(|it| *it > 0.0)?);
    let help = "Predicted blackout of moves / measured";
    sheet.histogram("move_blackout_prediction_ratio", help, &RATIO_BOUNDS, moves.iter().filter_map(ratio));
}

#[cfg(test)]
mod tests {
    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    /// Names of all metrics, with samples or not.
    fn exported() -> Result<std::collections::BTreeSet<String>> {
        // A metric with labels is there with its first sample.
        let host = serde_json::json!({"name": "a", "state": "active", "cpus": [0], "memory_bytes": 1,
            "memory_used_bytes": 0, "partitions": 1, "load": 0.5, "utilisation": 0.5, "silent_s": null, "labels": []});
        let view = serde_json::json!({"application": "x-1", "rank": 0, "host": "a", "epoch": 1, "state": "running",
            "pid": 1, "exit_status": null, "load": 0.5, "steal": 0.0, "progress": 1, "resident_kib": 1,
            "dirty_pages_per_s": null, "moves": 1, "last_blackout_ms": null});
        let moved = serde_json::json!({"id": 1, "application": "x-1", "rank": 0, "from": "b", "to": "a", "epoch": 2,
            "reason": "", "state": "done", "failure": null, "time_ms": 1, "blackout_ms": 2.0, "total_s": 0.5,
            "measured": null, "explanation": null, "predicted": {"total_s": 1.0, "blackout_ms": 1.0}});
        let observed = Observed {
            hosts: vec![serde_json::from_value(host)?],
            partitions: vec![Measured {
                view: serde_json::from_value(view)?,
                counters: Some(Counters::default()),
            }],
            moves: vec![serde_json::from_value(moved)?],
            ..Observed::default()
        };
        let mut kept = Kept::default();
        kept.planned(Planned { rejections: vec!["imbalance".into()], ..Planned::default() }, Duration::ZERO);
        let text = sheet(&kept, &observed).text()?;
        for line in
            ["partita_move_prediction_ratio_sum 2.0", "partita_move_blackout_prediction_ratio_sum 0.5"]
        {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut names = std::collections::BTreeSet::new();
        for line in typed {
            let (name, kind) = line.split_once(' ').ok_or("no type")?;
            match kind {
                "counter" => names.extend([format!("{name}_total")]),
                "histogram" => names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}"))),
                _ => names.extend([name.to_owned()]),
            }
        }
        Ok(names)
    }

    #[test]
    fn the_dashboard_names_only_what_is_exported_and_shows_everything_that_matters() -> Result {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/grafana/partita.json");
        let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let mut named = std::collections::BTreeSet::new();
        for panel in dashboard["panels"].as_array().ok_or("no panels")? {
            assert!(panel["title"].is_string() && panel["gridPos"]["w"].is_u64(), "{panel}");
            for target in panel["targets"].as_array().ok_or("no targets")? {
                let expression = target["expr"].as_str().ok_or("no expression")?;
                let words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
                named.extend(words.filter(|it| it.starts_with("partita_")).map(str::to_owned));
            }
        }
        let exported = exported()?;
        let unknown: Vec<_> = named.difference(&exported).collect();
        assert!(unknown.is_empty(), "{unknown:?} are not among {exported:#?}");
        for wanted in [
            "imbalance",
            "work_max",
            "application_time",
            "moves_total",
            "plan_seconds_bucket",
            "loss",
            "gate_rejections_total",
            "host_load",
            "host_memory_used_bytes",
            "partition_load",
            "move_blackout_seconds_bucket",
        ] {
            assert!(named.contains(&format!("partita_{wanted}")), "no panel shows {wanted}");
        }
        Ok(())
    }

    #[test]
    fn rejections_and_time_of_planning_are_counted() -> Result {
        let mut kept = Kept::default();
        for _ in 0..3 {
            let rejections = vec!["sustained seconds".to_owned()];
            kept.planned(
                Planned { imbalance: 0.5, rejections, ..Planned::default() },
                Duration::from_millis(3),
            );
        }
        let text = sheet(&kept, &Observed::default()).text()?;
        for line in [
            "partita_gate_rejections_total{gate=\"sustained seconds\"} 3",
            "partita_imbalance 0.5",
            "partita_plan_seconds_bucket{le=\"0.005\"} 3",
            "partita_plan_seconds_count 3",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        Ok(())
    }
}
