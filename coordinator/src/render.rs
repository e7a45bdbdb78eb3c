//! Tables and lines for people; scripts use `--json`.

mod monitor;

use control::{
    ApplicationExplanation, ApplicationView, CalibrationView, CandidateView, EventView, GateView,
    HostExplanation, HostView, MoveView, PartitionView, Percentiles, PlanView, PolicyView, ReplayedPlan,
};

use crate::lbaf::Outcome;

pub use monitor::{exported, series, traffic};

/// Columns wide enough for their contents, separated by two spaces.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(head.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

fn maybe<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn lower<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `coordinator apps`.
pub fn applications(views: &[ApplicationView]) -> String {
    let row = |it: &ApplicationView| {
        vec![
            it.id.to_string(),
            it.ranks.to_string(),
            lower(&it.state),
            maybe(it.exit_status, |status| status.to_string()),
            format!("{:.1}", it.seconds),
            it.moves.len().to_string(),
            it.reason.clone().unwrap_or_default(),
        ]
    };
    table(
        &["APPLICATION", "RANKS", "STATE", "STATUS", "SECONDS", "MOVES", "REASON"],
        &views.iter().map(row).collect::<Vec<_>>(),
    )
}

/// `coordinator hosts`.
pub fn hosts(views: &[HostView]) -> String {
    let row = |it: &HostView| {
        vec![
            it.name.to_string(),
            it.lease.as_ref().map_or_else(|| it.state.clone(), |lease| format!("{} to {lease}", it.state)),
            it.cpus.len().to_string(),
            format!("{:.2}", it.load),
            format!("{:.0} %", 100.0 * it.utilisation),
            it.partitions.to_string(),
            format!("{}/{} MiB", it.memory_used_bytes >> 20, it.memory_bytes >> 20),
            maybe(it.silent_s, |seconds| format!("{seconds:.1} s")),
            it.labels.join(","),
        ]
    };
    table(
        &["HOST", "STATE", "CPUS", "LOAD", "BUSY", "PARTITIONS", "MEMORY", "REPORTED", "LABELS"],
        &views.iter().map(row).collect::<Vec<_>>(),
    )
}

/// `coordinator partitions`.
pub fn partitions(views: &[PartitionView]) -> String {
    let row = |it: &PartitionView| {
        let state = match it.exit_status {
            Some(status) => format!("ended ({status})"),
            None => maybe(it.state.as_ref(), lower),
        };
        vec![
            it.application.to_string(),
            it.rank.to_string(),
            it.host.to_string(),
            it.epoch.to_string(),
            state,
            format!("{:.2}", it.load),
            it.progress.to_string(),
            it.moves.to_string(),
            maybe(it.last_blackout_ms, |ms| format!("{ms:.1} ms")),
        ]
    };
    table(
        &["APPLICATION", "RANK", "HOST", "EPOCH", "STATE", "LOAD", "PROGRESS", "MOVES", "LAST BLACKOUT"],
        &views.iter().map(row).collect::<Vec<_>>(),
    )
}

/// One line of `coordinator events`.
pub fn event(it: &EventView) -> String {
    let (seconds, ms) = (it.time_ms / 1000 % 86_400, it.time_ms % 1000);
    let time = format!("{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let about = match (&it.application, it.rank) {
        (Some(application), Some(rank)) => format!("{application} rank {rank}: "),
        (Some(application), None) => format!("{application}: "),
        _ => String::new(),
    };
    let reason = it.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{time}  {about}{}{reason}\n", it.text)
}

/// `coordinator plan`.
pub fn plan(view: &PlanView) -> String {
    let mut text = String::new();
    for it in &view.moves {
        text.push_str(&format!(
            "would move {} rank {} from {} to {}: {}\n",
            it.application, it.rank, it.from, it.to, it.reason
        ));
    }
    if view.moves.is_empty() {
        text.push_str(&format!("{}\n", view.explanation));
    }
    text
}

/// `coordinator plan --explain`.
pub fn explained_plan(view: &PlanView) -> String {
    let mut text = hosts(&view.hosts);
    text.push_str(&format!(
        "\nimbalance {:.3} (max / mean - 1), busiest host {:.3} -> {:.3}, loss {:.3} s/s, inputs {} (planner {}, policy {})\n\n",
        view.imbalance, view.work_max.0, view.work_max.1, view.loss, view.inputs_hash, view.policy_version, view.policy
    ));
    text.push_str(&gates(&view.gates));
    if !view.candidates.is_empty() {
        text.push_str("\nbest candidates:\n");
        text.push_str(&candidates(&view.candidates));
    }
    text.push('\n');
    text.push_str(&plan(view));
    text
}

/// `coordinator explain APPLICATION`.
pub fn application(it: &ApplicationExplanation) -> String {
    let mut text = format!(
        "{}: its hottest host works {:.3} s a second, {:.3} is the lowest possible; it loses {:.3} s a second\n\n",
        it.application, it.time, it.lowest_time, it.loss
    );
    text.push_str(&gates(&it.gates));
    for planned in &it.moves {
        text.push_str(&format!("would move rank {} to {}: {}\n", planned.rank, planned.to, planned.reason));
    }
    if let Some(best) = it.candidates.first() {
        text.push_str("\nbest moves of its partitions:\n");
        text.push_str(&candidates(&it.candidates));
        text.push_str("\ngates of the best:\n");
        text.push_str(&gates(&best.gates));
    }
    text.push_str(&format!("\n{} (policy {})\n", it.explanation, it.policy));
    text
}

/// `coordinator explain HOST`.
pub fn host(it: &HostExplanation) -> String {
    let lease = it.lease.as_ref().map(|lease| format!(" to {lease}")).unwrap_or_default();
    let mut text = format!("{}: {}{lease} for {:.0} s: {}\n", it.host, it.state, it.since_s, it.reason);
    if let Some(home) = &it.home {
        text.push_str(&format!("it was leased to {home} first\n"));
    }
    if let Some(closed) = &it.closed {
        text.push_str(&format!("nothing may come: {closed}\n"));
    }
    for decision in &it.decisions {
        text.push_str(&format!("\n{}: {}\n{}", decision.what, decision.verdict, gates(&decision.gates)));
    }
    text.push_str(&format!("\npolicy {}\n", it.policy));
    text
}

/// `coordinator policy show`.
pub fn policy(it: &PolicyView) -> String {
    if it.version == 0 {
        return "no policy was set; `coordinator policy set FILE` sets one\n".to_owned();
    }
    let text = serde_json::to_string_pretty(&it.policy).unwrap_or_default();
    format!("policy {}\n{text}\n", it.version)
}

/// `coordinator events --calibration`.
pub fn calibration(it: &CalibrationView) -> String {
    if it.moves.is_empty() {
        return "no move has been made with a prediction yet\n".to_owned();
    }
    let rows: Vec<Vec<String>> = it
        .moves
        .iter()
        .map(|it| {
            vec![
                it.id.to_string(),
                it.application.to_string(),
                it.rank.to_string(),
                format!("{:.3}", it.predicted.total_s),
                format!("{:.3}", it.actual_total_s),
                format!("{:.2}", it.duration_ratio),
                format!("{:.1}", it.predicted.blackout_ms),
                format!("{:.1}", it.actual_blackout_ms),
                format!("{:.2}", it.blackout_ratio),
            ]
        })
        .collect();
    let head = [
        "MOVE",
        "APPLICATION",
        "RANK",
        "PREDICTED S",
        "ACTUAL S",
        "RATIO",
        "PREDICTED MS",
        "BLACKOUT MS",
        "RATIO",
    ];
    let line = |what: &str, it: &Percentiles| {
        format!(
            "{what}: actual / predicted p50 {:.2}, p90 {:.2}, p99 {:.2}; error p50 {:.0} %, p90 {:.0} %\n",
            it.p50,
            it.p90,
            it.p99,
            100.0 * it.error_p50,
            100.0 * it.error_p90
        )
    };
    let (duration, blackout) = it.cost_factor;
    format!(
        "{}\n{}{}costs are predictions x {duration:.2} (duration) and x {blackout:.2} (blackout)\n",
        table(&head, &rows),
        line("duration", &it.duration),
        line("blackout", &it.blackout),
    )
}

/// `coordinator plan --from-journal`.
pub fn replayed(plans: &[ReplayedPlan]) -> String {
    let mut text = String::new();
    for it in plans.iter().filter(|it| it.differs) {
        let list = |moves: &[String]| if moves.is_empty() { "nothing".to_owned() } else { moves.join(", ") };
        text.push_str(&format!(
            "record {} (busiest host {:.3} -> {:.3})\n  then: {}: {}\n  now:  {}: {}\n",
            it.record,
            it.work_max,
            it.work_max_after,
            list(&it.did),
            it.did_explanation,
            list(&it.would),
            it.would_explanation
        ));
    }
    let count = |differs: &dyn Fn(&ReplayedPlan) -> bool| plans.iter().filter(|it| differs(it)).count();
    text.push_str(&format!(
        "{} plans, {} differ, {} of the same inputs\n",
        plans.len(),
        count(&|it| it.differs),
        count(&|it| it.same_inputs)
    ));
    text
}

/// `coordinator plan --from-lbaf`.
pub fn lbaf(it: &Outcome) -> String {
    format!(
        "phase {}: {} tasks on {} ranks; {} moves ({}) in {:.1} ms\n\
         work_max {:.6} -> {:.6}, imbalance {:.4} -> {:.4}, memory of the fullest rank {} -> {} bytes\n{}\n",
        it.phase,
        it.tasks,
        it.ranks,
        it.moves,
        if it.algorithm.is_empty() { "none" } else { &it.algorithm },
        it.plan_ms,
        it.w_max_before,
        it.w_max_after,
        it.imbalance_before,
        it.imbalance_after,
        it.memory_max_before,
        it.memory_max_after,
        it.explanation
    )
}

fn gates(gates: &[GateView]) -> String {
    let row = |it: &GateView| {
        let pass = if it.pass { "pass" } else { "FAIL" };
        vec![
            it.name.clone(),
            number(it.value),
            format!("{} {}", it.relation, number(it.threshold)),
            pass.to_owned(),
        ]
    };
    table(&["GATE", "VALUE", "ASKED FOR", ""], &gates.iter().map(row).collect::<Vec<_>>())
}

fn number(value: f64) -> String {
    if value >= f64::MAX { "never".to_owned() } else { format!("{value:.3}") }
}

fn candidates(candidates: &[CandidateView]) -> String {
    let change = |(before, after): (f64, f64)| format!("{:.0} -> {:.0} %", 100.0 * before, 100.0 * after);
    let row = |it: &CandidateView| {
        let what = match &it.swap_with {
            None => format!("{} rank {}", it.application, it.rank),
            Some((application, rank)) => {
                format!("{} rank {} for {application} rank {rank}", it.application, it.rank)
            }
        };
        vec![
            what,
            format!("{} {}", it.from, change(it.source_utilisation)),
            format!("{} {}", it.to, change(it.destination_utilisation)),
            format!("{:.3} ± {:.3}", it.gain, it.gain_error),
            maybe(it.payback_s, |seconds| format!("{seconds:.1} s")),
            it.verdict.clone(),
        ]
    };
    table(
        &["MOVE", "SOURCE", "DESTINATION", "GAIN", "PAYS BACK IN", "VERDICT"],
        &candidates.iter().map(row).collect::<Vec<_>>(),
    )
}

/// `coordinator explain MOVE`, and the outcome of `coordinator migrate`.
pub fn one_move(it: &MoveView) -> String {
    let mut text = format!(
        "move {} of {} rank {} from {} to {} (epoch {}): {}\n  why: {}\n",
        it.id, it.application, it.rank, it.from, it.to, it.epoch, it.state, it.reason
    );
    if let Some(measured) = &it.measured {
        text.push_str(&format!(
            "  measured: blackout {:.1} ms, {:.2} s in all, {} rounds, {} bytes, stopped: {}\n",
            measured.blackout_ms, measured.total_s, measured.rounds, measured.bytes, measured.stop_reason
        ));
    }
    if let Some(failure) = &it.failure {
        text.push_str(&format!("  failed: {failure}\n"));
    }
    if let Some(explanation) = &it.explanation {
        text.push_str(&candidates(std::slice::from_ref(explanation)));
        text.push_str(&gates(&explanation.gates));
    }
    text
}
