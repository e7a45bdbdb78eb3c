//! Balancing inside applications: watches the units of work of programs that count them, shares them out anew, and keeps moves of
//! partitions and shifts of units from acting at the same time.

use std::collections::BTreeMap;

use control::{Action, ApplicationId, Counters, Epoch, Rank};

use super::{Cluster, REPEAT_MS};
use crate::record::Record;
use crate::shares::{self, Judgement, Lever, REST_EPOCHS, Work};
use crate::state::{Application, Phase};

/// Shorter windows are too noisy to judge by, in milliseconds.
const WINDOW_MS_MIN: u64 = 2_000;
/// A gain of this part of the step is believed at once; a smaller one has to be found in two windows in a row.
const GAIN_PART_LARGE: f64 = 0.25;
/// Every shift for a smaller gain doubles the window, at most so often: what is left is noise more and more likely.
const DOUBLINGS_MAX: u32 = 4;
/// After so many windows in which the hosts were to blame and nothing moved, units are shifted all the same.
const BLAMED_MAX: u32 = 3;

/// Where a rank stood when the window began.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    epoch: Epoch,
    first: u64,
    count: u64,
    generation: u64,
    done: u64,
    cost_ns: u64,
    busy_ns: u64,
}

impl Mark {
    fn of(epoch: Epoch, counters: &Counters) -> Option<Self> {
        let units = counters.units?;
        Some(Self {
            epoch,
            first: units.first,
            count: units.count,
            generation: units.generation,
            done: units.done,
            cost_ns: units.cost_ns,
            busy_ns: counters.run_ns.saturating_sub(counters.poll_ns),
        })
    }

    /// The same place, owner and share: the difference of the two is work of one kind.
    fn continues(&self, before: &Self) -> bool {
        (self.epoch, self.first, self.count, self.generation)
            == (before.epoch, before.first, before.count, before.generation)
            && self.done >= before.done
    }

    /// What was done since then; nothing before every unit was computed once.
    fn work_since(&self, before: &Self, rank: Rank) -> Option<Work> {
        let done = self.done - before.done;
        if done == 0 || done < self.count {
            return None;
        }
        let busy_s = self.busy_ns.saturating_sub(before.busy_ns) as f64 / 1e9;
        let cost_s = self.cost_ns.saturating_sub(before.cost_ns) as f64 / 1e9;
        // Processor time besides the units (copying messages, say) cannot make a unit faster than the program measured.
        let unit_s = busy_s.min(cost_s) / done as f64;
        Some(Work { rank, first: self.first, count: self.count, unit_s, stretch: (cost_s / busy_s).max(1.0) })
    }
}

/// What is known of one application.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    marks: Vec<Mark>,
    since_ms: u64,
    told_ms: BTreeMap<Rank, u64>,
    blamed: u32,
    /// Windows in a row that asked for a shift.
    asked: u32,
    /// Shifts in a row for a small gain.
    small: u32,
    judgement: Option<Judgement>,
}

impl Cluster {
    /// Looks at every application that counts its work in units.
    pub(super) fn share_units(&mut self, now_ms: u64) {
        let running = self.state.applications.iter().filter(|(_, it)| it.phase == Phase::Running);
        let ids: Vec<ApplicationId> = running.map(|(id, _)| id.clone()).collect();
        self.sharing.retain(|id, _| ids.contains(id));
        for id in ids {
            if let Some((total, marks)) = self.marks(&id) {
                let mut sharing = self.sharing.remove(&id).unwrap_or_default();
                self.watch(now_ms, &id, total, marks, &mut sharing);
                self.sharing.insert(id, sharing);
            }
        }
    }

    /// Where all ranks stand, if all have units of the same whole and none is on its way.
    fn marks(&self, id: &ApplicationId) -> Option<(u64, Vec<Mark>)> {
        let application = self.state.applications.get(id)?;
        let mut total = None;
        let mark = |(rank, owner): (Rank, &crate::state::Ownership)| {
            let report = self.view.process(&owner.host, &(id.clone(), rank, owner.epoch))?;
            let counters = report.counters.as_ref().filter(|_| owner.moving.is_none())?;
            let of = counters.units?.total;
            (*total.get_or_insert(of) == of).then(|| Mark::of(owner.epoch, counters))?
        };
        let marks: Vec<Mark> = (0..).zip(&application.partitions).map(mark).collect::<Option<_>>()?;
        Some((total?, marks))
    }

    /// One look at an application: compares where its ranks stand with where they stood a window ago.
    fn watch(
        &mut self,
        now_ms: u64,
        id: &ApplicationId,
        total: u64,
        marks: Vec<Mark>,
        sharing: &mut Sharing,
    ) {
        self.tell_shares(now_ms, id, &marks, sharing);
        let pairs = || marks.iter().zip(&sharing.marks);
        if marks.len() != sharing.marks.len() || !pairs().all(|(now, before)| now.continues(before)) {
            self.start_again(now_ms, id, marks, sharing);
            return;
        }
        let window_ms = self.window_ms() << sharing.small.min(DOUBLINGS_MAX);
        if now_ms.saturating_sub(sharing.since_ms) < window_ms {
            return;
        }
        let works = (0..).zip(pairs()).map(|(rank, (now, before))| now.work_since(before, rank));
        let Some(works) = works.collect::<Option<Vec<Work>>>() else { return };
        (sharing.marks, sharing.since_ms) = (marks, now_ms);
        let movable = sharing.blamed < BLAMED_MAX && self.can_move(id);
        if let Some(judgement) = shares::judge(total, &works, movable) {
            self.follow(now_ms, id, &judgement, &works, sharing);
            sharing.judgement = Some(judgement);
        }
    }

    /// Something is not as it was when the window began: the next one begins.
    fn start_again(&mut self, now_ms: u64, id: &ApplicationId, marks: Vec<Mark>, sharing: &mut Sharing) {
        let pairs = || marks.iter().zip(&sharing.marks);
        let has_moved =
            marks.len() == sharing.marks.len() && pairs().any(|(now, before)| now.epoch != before.epoch);
        let is_shared_anew = pairs().any(|(now, before)| now.count != before.count);
        if has_moved {
            sharing.blamed = 0;
        }
        if is_shared_anew {
            self.model.forget(id);
        }
        (sharing.marks, sharing.since_ms) = (marks, now_ms);
    }

    /// Pulls the lever that a window asks for, the units only when it is worth it.
    fn follow(
        &mut self,
        now_ms: u64,
        id: &ApplicationId,
        judgement: &Judgement,
        works: &[Work],
        sharing: &mut Sharing,
    ) {
        match judgement.lever {
            Lever::None => (sharing.blamed, sharing.asked) = (0, 0),
            Lever::Partitions => (sharing.blamed, sharing.asked) = (sharing.blamed + 1, 0),
            Lever::Units => {
                sharing.asked += 1;
                let large = judgement.gain_part() >= GAIN_PART_LARGE;
                if large || sharing.asked > 1 {
                    (sharing.blamed, sharing.asked) = (0, 0);
                    sharing.small = if large { 0 } else { sharing.small + 1 };
                    self.record_shares(now_ms, id, judgement, works);
                }
            }
        }
    }

    /// What is judged by, in milliseconds.
    fn window_ms(&self) -> u64 {
        (REST_EPOCHS * self.settings.period_ms).max(WINDOW_MS_MIN)
    }

    fn can_move(&self, id: &ApplicationId) -> bool {
        let movable = self.state.applications.get(id).is_some_and(|it| it.specification.migrate);
        movable && self.state.hosts.values().filter(|host| host.is_in_use()).count() > 1
    }

    fn record_shares(&mut self, now_ms: u64, id: &ApplicationId, judgement: &Judgement, works: &[Work]) {
        let generation = self.shared(id).map_or(1, |(generation, _)| generation + 1);
        self.record(
            now_ms,
            Record::UnitsShared {
                application: id.clone(),
                generation,
                targets: judgement.targets.clone(),
                speeds_ppm: shares::speeds_ppm(works),
                reason: judgement.text(),
            },
        );
    }

    /// Number and time of the newest sharing-out.
    fn shared(&self, id: &ApplicationId) -> Option<(u64, u64)> {
        let shared = self.state.applications.get(id)?.shared.as_ref()?;
        Some((shared.generation, shared.time_ms))
    }

    /// Tells every rank its share until it says that it has it: what was told may be lost with an agent, or in a move.
    fn tell_shares(&mut self, now_ms: u64, id: &ApplicationId, marks: &[Mark], sharing: &mut Sharing) {
        let Some(application) = self.state.applications.get(id) else { return };
        let Some(shared) = application.shared.clone() else { return };
        let owners: Vec<_> = application.partitions.iter().map(|it| (it.host.clone(), it.epoch)).collect();
        for (rank, ((host, epoch), mark)) in (0..).zip(owners.into_iter().zip(marks)) {
            let at = rank as usize;
            let (Some(&target), Some(&speed_ppm)) = (shared.targets.get(at), shared.speeds_ppm.get(at))
            else {
                continue;
            };
            let waits =
                sharing.told_ms.get(&rank).is_some_and(|told| now_ms.saturating_sub(*told) < REPEAT_MS);
            // A share of the generation before was told long ago, or is of no use any more.
            let newer = shared.time_ms > sharing.told_ms.get(&rank).copied().unwrap_or(0);
            if mark.generation < shared.generation && (newer || !waits) {
                sharing.told_ms.insert(rank, now_ms);
                let share = Action::Share { generation: shared.generation, target, speed_ppm };
                self.command(&host, &(id.clone(), rank, epoch), share);
            }
        }
    }

    /// Seconds for which partitions stay where they are because units were shifted, or may have to be before anything moves.
    pub(super) fn units_rest_s(&self, now_ms: u64, id: &ApplicationId, application: &Application) -> f64 {
        let since_ms = match (self.shared(id), self.sharing.get(id)) {
            (Some((_, time_ms)), _) => time_ms,
            // Not judged yet.
            (None, Some(sharing)) if sharing.judgement.is_none() => application.submitted_ms,
            _ => return 0.0,
        };
        (since_ms + 2 * self.window_ms()).saturating_sub(now_ms) as f64 / 1000.0
    }

    /// What was found about the units of an application, in a line.
    pub(super) fn units_text(&self, id: &ApplicationId) -> Option<String> {
        let sharing = self.sharing.get(id)?;
        let shared = self.shared(id).map_or(String::new(), |(n, _)| format!(" (shared out {n} times)"));
        Some(match &sharing.judgement {
            Some(judgement) => format!("units{shared}: {}", judgement.text()),
            None => format!("units{shared}: not every rank has computed all of its units yet"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_costs_is_told_apart_from_what_its_host_adds() {
        let mark = |done, cost_s: f64, busy_s: f64| Mark {
            epoch: 1,
            first: 0,
            count: 10,
            generation: 0,
            done,
            cost_ns: (cost_s * 1e9) as u64,
            busy_ns: (busy_s * 1e9) as u64,
        };
        let before = mark(100, 50.0, 40.0);
        assert_eq!(mark(109, 60.0, 50.0).work_since(&before, 3), None, "not all units");
        // Twenty units: twenty seconds of the processor, thirty on the clock.
        let work = mark(120, 80.0, 60.0).work_since(&before, 3).unwrap();
        assert_eq!((work.rank, work.unit_s, work.stretch), (3, 1.0, 1.5));
        // More processor time than the program put down to units.
        let work = mark(120, 60.0, 60.0).work_since(&before, 3).unwrap();
        assert_eq!((work.unit_s, work.stretch), (0.5, 1.0));
        assert!(mark(120, 80.0, 60.0).continues(&before));
        assert!(
            !Mark { count: 11, ..before }.continues(&before)
                && !Mark { epoch: 2, ..before }.continues(&before)
        );
    }
}
