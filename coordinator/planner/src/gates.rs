//! The conditions that a move has to meet: each a value against a threshold, in one list for search and explanation.

use control::GateView;

use super::layout::{Layout, Step, Trial};

/// A condition.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    value: f64,
    threshold: f64,
    at_least: bool,
}

impl Gate {
    /// `value >= threshold`.
    pub fn at_least(name: &'static str, value: f64, threshold: f64) -> Self {
        Self { name, value, threshold, at_least: true }
    }

    /// `value <= threshold`.
    pub fn at_most(name: &'static str, value: f64, threshold: f64) -> Self {
        Self { name, value, threshold, at_least: false }
    }

    /// Is it met?
    pub fn passes(&self) -> bool {
        if self.at_least { self.value >= self.threshold } else { self.value <= self.threshold }
    }

    /// As users see it.
    pub fn view(&self) -> GateView {
        // JSON has no infinity.
        let finite = |value: f64| value.clamp(f64::MIN, f64::MAX);
        GateView {
            name: self.name.to_owned(),
            value: finite(self.value),
            threshold: finite(self.threshold),
            relation: if self.at_least { ">=" } else { "<=" }.to_owned(),
            pass: self.passes(),
        }
    }

    /// Why it is not met, for people.
    pub fn failure(&self) -> String {
        let opposite = if self.at_least { "below" } else { "above" };
        if self.value >= f64::MAX {
            return format!("{}: never", self.name);
        }
        format!("{} {:.3} is {opposite} {:.3}", self.name, self.value, self.threshold)
    }
}

/// Predicted seconds after which steps have paid for themselves; infinite if never.
pub fn payback_s(layout: &Layout<'_>, steps: &[Step], trial: &Trial) -> f64 {
    let cost: f64 = steps.iter().map(|(partition, _)| layout.problem.cost_s(*partition as usize)).sum();
    // Whoever waits for the busier host goes faster by this many seconds per second.
    let rate = if trial.before > 0.0 { 1.0 - trial.after / trial.before } else { 0.0 };
    if cost <= 0.0 {
        0.0
    } else if rate > 0.0 {
        cost / rate
    } else {
        f64::INFINITY
    }
}

/// The conditions for making these steps together.
pub fn gates(layout: &Layout<'_>, steps: &[Step], trial: &Trial) -> [Gate; 10] {
    let snapshot = layout.problem.snapshot;
    let settings = &snapshot.settings;
    let partitions = || steps.iter().map(|(partition, _)| &snapshot.partitions[*partition as usize]);
    let fixed = partitions().filter(|it| it.fixed.is_some()).count();
    let closed = |host: u32| {
        let host = &snapshot.hosts[host as usize];
        host.closed.is_some() || host.evacuate
    };
    let closed = steps.iter().filter(|(_, target)| closed(*target)).count();
    let samples = partitions().map(|it| it.samples).min().unwrap_or(0);
    let cooling = partitions().map(|it| it.cooling_s).fold(0.0, f64::max);
    let memory = match steps {
        [(partition, target)] => {
            let mib = |bytes: u64| (bytes >> 20) as f64;
            let (needed, there) = (
                layout.memory_with(*partition as usize, *target as usize),
                snapshot.hosts[*target as usize].memory,
            );
            // Shown in MiB, decided in bytes.
            let over =
                if trial.fits { mib(needed).min(mib(there)) } else { mib(needed).max(mib(there) + 1.0) };
            Gate::at_most("memory MiB of the destination", over, mib(there))
        }
        _ => Gate::at_most("memory of the destinations exceeded", f64::from(u8::from(!trial.fits)), 0.0),
    };
    let least = layout.problem.least_gain * steps.len() as f64 + settings.significance * trial.error;
    let payback_max = settings.horizon_s / settings.payback_factor;
    [
        Gate::at_most("partitions that may not move", fixed as f64, 0.0),
        Gate::at_most("destinations that are closed", closed as f64, 0.0),
        Gate::at_most("hard rules broken", f64::from(u8::from(trial.broken.is_some())), 0.0),
        memory,
        Gate::at_most("reserves touched", f64::from(u8::from(!trial.leaves_reserve)), 0.0),
        Gate::at_least("load samples", f64::from(samples), f64::from(settings.least_samples)),
        Gate::at_most("busiest of the hosts after", trial.after, trial.before),
        Gate::at_least("gain", trial.gain, least),
        Gate::at_most("cooling seconds", cooling, 0.0),
        Gate::at_most("payback seconds", payback_s(layout, steps, trial), payback_max),
    ]
}

/// Are all conditions met? Cheap ones first: this is the inner loop of the search.
pub fn pass(layout: &Layout<'_>, steps: &[Step], trial: &Trial) -> bool {
    trial.gain > 0.0
        && trial.fits
        && trial.after <= trial.before
        && gates(layout, steps, trial).iter().all(Gate::passes)
}

/// What hinders these steps: the name of a rule, why a partition may not move, or the first condition not met.
pub fn verdict(layout: &Layout<'_>, steps: &[Step], trial: &Trial) -> Option<String> {
    let snapshot = layout.problem.snapshot;
    let failed = gates(layout, steps, trial).into_iter().find(|gate| !gate.passes())?;
    let fixed = || steps.iter().find_map(|(it, _)| snapshot.partitions[*it as usize].fixed);
    let closed = || {
        steps.iter().find_map(|(_, host)| {
            let host = &snapshot.hosts[*host as usize];
            let why = host.closed.clone().or_else(|| host.evacuate.then(|| "it is to be emptied".into()));
            why.map(|why| format!("{} takes nothing: {why}", host.name))
        })
    };
    let text = match failed.name {
        "partitions that may not move" => fixed().map(str::to_owned),
        "destinations that are closed" => closed(),
        "hard rules broken" => {
            trial.broken.map(|rule| format!("rule {}", snapshot.rules[rule as usize].name))
        }
        _ => None,
    };
    Some(text.unwrap_or_else(|| failed.failure()))
}
