//! When to go on and when to switch over: pure functions of what was measured, without a clock.
//!
//! The downtime limit is a ceiling, not a goal: rounds go on while another one still shortens the predicted blackout
//! noticeably, even when the limit is met already. A partition whose predicted blackout stays above the limit is
//! given until the time-out, because programs change phase.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dirty::DirtyModel;
use crate::partition::{PAGE_SIZE, Share};

/// A residual of so many pages or fewer is not worth another round.
pub const TINY_PAGES: u64 = 16;
/// After so many rounds within the limit the prediction is not believed any longer.
pub const ROUNDS_MAX: u32 = 30;
/// A round must shorten the predicted blackout by this part of it …
pub const GAIN_PART_MIN: f64 = 0.20;
/// … or by this many seconds.
pub const GAIN_S_MIN: f64 = 0.0005;
/// Part of the sendable pages that a throttled program may make dirty.
pub const THROTTLED_PART: f64 = 0.5;
/// Waiting for a good moment to pause may lengthen the predicted blackout by this part of it.
pub const PATIENCE_PART: f64 = 0.1;
/// A forecast ends after so many rounds.
pub const FORECAST_ROUNDS_MAX: u32 = 10_000;
/// Assumed until a round was long enough to measure: 1 Gbit/s.
pub const BYTES_PER_S_ASSUMED: f64 = 118e6;
/// A round must have sent this many bytes to tell the bandwidth.
pub const BYTES_TO_MEASURE: u64 = 1 << 20;

/// What the caller allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ceiling of the predicted blackout.
    pub downtime: Duration,
    /// When waiting for convergence ends.
    pub timeout: Duration,
    /// What to do then.
    pub on_timeout: OnTimeout,
    /// Others have to come as far first: no switch-over before the time-out.
    pub await_switch: bool,
}

/// What to do when the residual is still too large for the downtime limit at the time-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// Give up; the partition goes on at the source.
    #[default]
    Abort,
    /// Switch over with the downtime it takes.
    Force,
    /// Slow the program down until it converges; give up after the same time once more.
    Throttle,
}

/// What is known after a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Rounds that are over, 1 or more.
    pub rounds: u32,
    /// Pages dirty now.
    pub residual_pages: u64,
    /// How pages become dirty, at the share of the time that the partition runs now.
    pub dirty: DirtyModel,
    /// The most pages per second that became dirty in any round so far: a program that hardly wrote in the last one may go on.
    pub burst_pages_per_s: f64,
    /// That share.
    pub share: Share,
    /// Bytes per second of memory that go out.
    pub bytes_per_s: f64,
    /// Time of the blackout that does not depend on the residual: see [`fixed_cost`].
    pub fixed: Duration,
    /// Time of a round that does not depend on the residual.
    pub round_overhead: Duration,
    /// Since the migration began.
    pub elapsed: Duration,
}

/// Why the rounds ended in a switch-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// Another round would hardly shorten the blackout, which is within the limit.
    Converged,
    /// Almost nothing was dirty.
    Tiny,
    /// Within the limit, and enough rounds were tried.
    RoundsMax,
    /// The time-out passed above the limit and the caller wanted the switch-over all the same.
    Forced,
}

/// Why another round follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoOn {
    /// The predicted blackout still falls.
    Falling,
    /// The predicted blackout is above the limit and does not fall; the program may change.
    AboveLimit,
    /// The time-out is over, and the program is slowed down to this share.
    Throttled(Share),
    /// It could switch over and waits for others; rounds keep the residual small.
    AwaitSwitch,
}

/// What was decided after a round, for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Next {
    /// Another round: the predicted blackout falls.
    Falling,
    /// Another round: it is above the limit and the program may change.
    AboveLimit,
    /// Another round with the program slowed down.
    Throttled,
    /// Another round: it could switch over and waits for others.
    AwaitSwitch,
    /// The switch-over.
    SwitchOver,
    /// The end, without a move.
    GiveUp,
}

impl From<Decision> for Next {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Continue(GoOn::Falling) => Self::Falling,
            Decision::Continue(GoOn::AboveLimit) => Self::AboveLimit,
            Decision::Continue(GoOn::Throttled(_)) => Self::Throttled,
            Decision::Continue(GoOn::AwaitSwitch) => Self::AwaitSwitch,
            Decision::Stop(_) => Self::SwitchOver,
            Decision::Abort => Self::GiveUp,
        }
    }
}

/// What to do after a round, with the predicted blackout it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Another round.
    Continue(GoOn),
    /// Switch over.
    Stop(StopReason),
    /// Give up: above the limit at the time-out.
    Abort,
}

impl fmt::Display for StopReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Converged => "converged",
            Self::Tiny => "tiny",
            Self::RoundsMax => "rounds-max",
            Self::Forced => "forced",
        })
    }
}

/// Decides what follows a round.
pub fn decide(limits: &Limits, seen: &Observation) -> Decision {
    match decide_alone(limits, seen) {
        Decision::Stop(_) if limits.await_switch && seen.elapsed < limits.timeout => {
            Decision::Continue(GoOn::AwaitSwitch)
        }
        decision => decision,
    }
}

/// As if there were no others to wait for.
fn decide_alone(limits: &Limits, seen: &Observation) -> Decision {
    let now = blackout(seen, seen.residual_pages as f64);
    let within_limit = now <= limits.downtime.as_secs_f64();
    if within_limit && seen.residual_pages <= TINY_PAGES {
        return Decision::Stop(StopReason::Tiny);
    }
    if seen.elapsed >= limits.timeout {
        return match limits.on_timeout {
            _ if within_limit => Decision::Stop(StopReason::Converged),
            OnTimeout::Force => Decision::Stop(StopReason::Forced),
            OnTimeout::Throttle if seen.elapsed < 2 * limits.timeout => {
                Decision::Continue(GoOn::Throttled(throttle(seen)))
            }
            OnTimeout::Abort | OnTimeout::Throttle => Decision::Abort,
        };
    }
    if within_limit && seen.rounds >= ROUNDS_MAX {
        return Decision::Stop(StopReason::RoundsMax);
    }
    let gain = now - blackout(seen, residual_after_next_round(seen));
    if gain > GAIN_S_MIN || gain > now * GAIN_PART_MIN {
        Decision::Continue(GoOn::Falling)
    } else if within_limit {
        Decision::Stop(StopReason::Converged)
    } else {
        Decision::Continue(GoOn::AboveLimit)
    }
}

/// The blackout if the switch-over came now.
pub fn predicted_blackout(seen: &Observation) -> Duration {
    Duration::try_from_secs_f64(blackout(seen, seen.residual_pages as f64)).unwrap_or(Duration::MAX)
}

/// Pages that will be dirty after one more round: those written while the residual is sent.
pub fn residual_after_next_round(seen: &Observation) -> f64 {
    seen.dirty.after(seen.round_overhead.as_secs_f64() + seconds_to_send(seen, seen.residual_pages as f64))
}

/// How long the pause may wait for a good moment: as long as it is asked to, unless what the program writes meanwhile would
/// lengthen the blackout by more than [`PATIENCE_PART`].
pub fn patience(asked: Duration, seen: &Observation) -> Duration {
    let pages =
        PATIENCE_PART * blackout(seen, seen.residual_pages as f64) * seen.bytes_per_s / PAGE_SIZE as f64;
    let affordable = Duration::try_from_secs_f64(pages / seen.dirty.pages_per_s.max(seen.burst_pages_per_s))
        .unwrap_or(Duration::MAX);
    asked.min(affordable)
}

/// The share that brings the dirty rate down to [`THROTTLED_PART`] of what can be sent: the more the program exceeds that, the
/// less it runs. A share is never raised again before the end; it would only delay it.
pub fn throttle(seen: &Observation) -> Share {
    let sendable_pages_per_s = seen.bytes_per_s / PAGE_SIZE as f64;
    let factor = THROTTLED_PART * sendable_pages_per_s / seen.dirty.pages_per_s.max(1.0);
    Share::of(seen.share.part() * factor).min(seen.share)
}

/// The time from the beginning to the end of the blackout, if the program goes on like this and the rules decide as they do;
/// without the time it waits for others.
pub fn forecast(limits: &Limits, seen: &Observation) -> Duration {
    let mut at = *seen;
    for _ in 0..FORECAST_ROUNDS_MAX {
        match decide_alone(limits, &at) {
            Decision::Continue(go_on) => {
                let pages = at.residual_pages as f64;
                let seconds = at.round_overhead.as_secs_f64() + seconds_to_send(&at, pages);
                if let GoOn::Throttled(share) = go_on {
                    at.dirty = at.dirty.slowed(share.part() / at.share.part());
                    at.share = share;
                }
                at.residual_pages = at.dirty.after(seconds) as u64;
                at.elapsed =
                    at.elapsed.saturating_add(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
                at.rounds += 1;
            }
            Decision::Stop(_) | Decision::Abort => break,
        }
    }
    at.elapsed.saturating_add(predicted_blackout(&at))
}

/// Seconds of blackout with `pages` left to send.
fn blackout(seen: &Observation, pages: f64) -> f64 {
    seen.fixed.as_secs_f64() + seconds_to_send(seen, pages)
}

fn seconds_to_send(seen: &Observation, pages: f64) -> f64 {
    pages * PAGE_SIZE as f64 / seen.bytes_per_s.max(1.0)
}

/// The part of the blackout that does not depend on the residual: the last harvest, two round trips, what the machine takes.
pub fn fixed_cost(harvest: Duration, round_trip: Duration, switch_cost: Duration) -> Duration {
    harvest + 2 * round_trip + switch_cost
}

/// Bandwidth told by the latest of `rounds` (bytes, seconds) that was long enough, or the assumption.
///
/// Under a bandwidth cap this is the capped rate, so the blackout, where the cap is lifted, is predicted too long
/// rather than too short.
pub fn bandwidth(rounds: impl DoubleEndedIterator<Item = (u64, f64)>) -> f64 {
    rounds
        .rev()
        .find(|(bytes, seconds)| *bytes >= BYTES_TO_MEASURE && *seconds > 0.0)
        .map_or(BYTES_PER_S_ASSUMED, |(bytes, seconds)| bytes as f64 / seconds)
}

/// Bytes per second as most bytes of a round went, from windows of it: a mean weighted by bytes, in which time without data (pages of zeros,
/// memory that is populated) counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    bytes: f64,
    bytes_times_rate: f64,
}

impl Pace {
    /// Adds a window of `seconds` in which `bytes` went.
    pub fn add(&mut self, bytes: u64, seconds: f64) {
        if seconds > 0.0 {
            self.bytes += bytes as f64;
            self.bytes_times_rate += bytes as f64 * bytes as f64 / seconds;
        }
    }

    /// `None` before there were [`BYTES_TO_MEASURE`].
    pub fn bytes_per_s(&self) -> Option<f64> {
        (self.bytes >= BYTES_TO_MEASURE as f64).then(|| self.bytes_times_rate / self.bytes)
    }
}

/// The most that any of `rounds` (bytes, seconds) that was long enough carried per second: a slower one may have been busy
/// packing. `None` before there is one.
pub fn link(rounds: impl Iterator<Item = (u64, f64)>) -> Option<f64> {
    rounds
        .filter(|(bytes, seconds)| *bytes >= BYTES_TO_MEASURE && *seconds > 0.0)
        .map(|(bytes, seconds)| bytes as f64 / seconds)
        .max_by(f64::total_cmp)
}

/// Pages a stream takes at a time, so that every stream gets several chunks even in a small round.
pub fn chunk_pages(round_pages: u64, streams: u8) -> u64 {
    (round_pages / (u64::from(streams) * 4)).clamp(64, 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        downtime: Duration::from_millis(300),
        timeout: Duration::from_secs(60),
        on_timeout: OnTimeout::Abort,
        await_switch: false,
    };

    fn seen(residual_pages: u64, dirty_pages_per_s: f64) -> Observation {
        Observation {
            rounds: 3,
            residual_pages,
            dirty: DirtyModel::linear(dirty_pages_per_s),
            burst_pages_per_s: 0.0,
            share: Share::FULL,
            bytes_per_s: 1e9,
            fixed: Duration::from_millis(2),
            round_overhead: Duration::from_millis(1),
            elapsed: Duration::from_secs(1),
        }
    }

    #[test]
    fn goes_on_below_the_limit_while_the_blackout_still_falls() {
        // 10,000 pages are 41 ms: far below 300 ms, and a round would bring it to almost nothing.
        assert_eq!(decide(&LIMITS, &seen(10_000, 1000.0)), Decision::Continue(GoOn::Falling));
    }

    #[test]
    fn who_waits_for_others_does_not_switch_over_before_the_timeout() {
        let waits = Limits { await_switch: true, ..LIMITS };
        assert_eq!(decide(&waits, &seen(10_000, 1000.0)), Decision::Continue(GoOn::Falling));
        assert_eq!(decide(&waits, &seen(5, 1000.0)), Decision::Continue(GoOn::AwaitSwitch));
        let late = Observation { elapsed: LIMITS.timeout, ..seen(5, 1000.0) };
        assert_eq!(decide(&waits, &late), Decision::Stop(StopReason::Tiny));
        assert_eq!(forecast(&waits, &seen(5, 1000.0)), forecast(&LIMITS, &seen(5, 1000.0)));
    }

    #[test]
    fn the_pause_waits_for_a_good_moment_only_while_that_is_cheap() {
        let asked = Duration::from_millis(10);
        // A tenth of 2 ms at 1 GB/s is 49 pages.
        assert_eq!(patience(asked, &seen(0, 0.0)), asked);
        assert_eq!(patience(asked, &seen(0, 1000.0)), asked);
        let short = patience(asked, &seen(0, 100_000.0)).as_secs_f64();
        assert!((short - 0.000_488).abs() < 0.000_001, "{short}");
        let quiet_just_now = Observation { burst_pages_per_s: 100_000.0, ..seen(0, 10.0) };
        assert_eq!(patience(asked, &quiet_just_now), patience(asked, &seen(0, 100_000.0)));
        assert_eq!(patience(Duration::ZERO, &seen(0, 0.0)), Duration::ZERO);
        assert!(patience(asked, &seen(0, f64::INFINITY)).is_zero());
    }

    #[test]
    fn stops_when_a_round_gains_nothing() {
        // Dirtied as fast as sent: 244,140 pages/s at 1 GB/s.
        assert_eq!(decide(&LIMITS, &seen(10_000, 244_140.0)), Decision::Stop(StopReason::Converged));
        assert_eq!(decide(&LIMITS, &seen(5, 1000.0)), Decision::Stop(StopReason::Tiny));
        let late = Observation { rounds: ROUNDS_MAX, ..seen(10_000, 1000.0) };
        assert_eq!(decide(&LIMITS, &late), Decision::Stop(StopReason::RoundsMax));
    }

    #[test]
    fn above_the_limit_it_waits_for_the_timeout_and_then_does_what_was_asked() {
        let hopeless = seen(1_000_000, 1e6);
        assert_eq!(decide(&LIMITS, &hopeless), Decision::Continue(GoOn::AboveLimit));
        let late = Observation { elapsed: Duration::from_secs(60), ..hopeless };
        assert_eq!(decide(&LIMITS, &late), Decision::Abort);
        assert_eq!(
            decide(&Limits { on_timeout: OnTimeout::Force, ..LIMITS }, &late),
            Decision::Stop(StopReason::Forced)
        );
        let late_but_fine = Observation { elapsed: Duration::from_secs(60), ..seen(10_000, 1000.0) };
        assert_eq!(decide(&LIMITS, &late_but_fine), Decision::Stop(StopReason::Converged));
    }

    #[test]
    fn a_program_that_dirties_faster_than_the_link_is_slowed_until_it_converges_or_given_up() {
        let limits = Limits { on_timeout: OnTimeout::Throttle, ..LIMITS };
        // Four times what 1 GB/s carries.
        let hopeless = Observation { elapsed: Duration::from_secs(60), ..seen(1_000_000, 976_562.0) };
        let Decision::Continue(GoOn::Throttled(share)) = decide(&limits, &hopeless) else { panic!() };
        assert!((share.part() - 0.125).abs() < 0.01, "{share:?}");
        let slowed = Observation { dirty: hopeless.dirty.slowed(share.part()), share, ..hopeless };
        assert!(residual_after_next_round(&slowed) < 0.6 * slowed.residual_pages as f64);
        assert!(forecast(&limits, &hopeless) < Duration::from_secs(75), "{:?}", forecast(&limits, &hopeless));
        let late = Observation { elapsed: Duration::from_secs(120), ..hopeless };
        assert_eq!(decide(&limits, &late), Decision::Abort);
        let endless = Observation { dirty: DirtyModel::linear(1e12), ..hopeless };
        assert_eq!(throttle(&endless), Share::LEAST);
    }

    #[test]
    fn a_working_set_that_is_written_through_is_not_waited_for() {
        // 65,536 pages of which all are written in every round: a line would promise a blackout that falls or grows for ever.
        let dirty = DirtyModel { pages_per_s: 2e6, working_set_pages: 65_536.0 };
        let saturated = Observation { dirty, ..seen(65_000, 0.0) };
        assert_eq!(decide(&LIMITS, &saturated), Decision::Stop(StopReason::Converged));
        let total = forecast(&LIMITS, &saturated).as_secs_f64();
        assert!((total - (1.0 + 0.002 + 65_000.0 * 4096.0 / 1e9)).abs() < 1e-6, "{total}");
    }

    /// Known after round 0, this is the difference between a total of three seconds and one at the time-out.
    #[test]
    fn a_working_set_that_a_slow_link_cannot_carry_in_time_is_forecast_to_wait_for_the_timeout() {
        let saturated = DirtyModel { pages_per_s: 1e6, working_set_pages: 16_384.0 };
        let slow = Observation { bytes_per_s: 100e6, ..seen(16_384, 0.0) };
        let forced = Limits { on_timeout: OnTimeout::Force, timeout: Duration::from_secs(5), ..LIMITS };
        let total = forecast(&forced, &Observation { dirty: saturated, ..slow }).as_secs_f64();
        assert!((5.0..6.5).contains(&total), "{total}");
        // What the last window alone says: 16,384 pages in a round of 1.3 s, half of what the link carries.
        let line = DirtyModel::linear(12_600.0);
        assert!(forecast(&forced, &Observation { dirty: line, ..slow }).as_secs_f64() < 3.0);
    }

    #[test]
    fn the_fixed_cost_counts_against_the_limit() {
        let limits = Limits { downtime: Duration::from_millis(1), ..LIMITS };
        assert_ne!(decide(&limits, &seen(1, 0.0)), Decision::Stop(StopReason::Tiny));
    }

    #[test]
    fn never_switches_over_above_the_limit_unless_forced_and_never_aborts_below_it() {
        let mut state = 7u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % bound
        };
        for _ in 0..20_000 {
            let magnitude = random(30);
            let observation = Observation {
                rounds: random(40) as u32 + 1,
                residual_pages: random(1 << magnitude),
                dirty: DirtyModel {
                    pages_per_s: random(1 << 20) as f64,
                    working_set_pages: random(1 << 20) as f64,
                },
                burst_pages_per_s: random(1 << 20) as f64,
                share: Share::of(random(1000) as f64 / 1000.0),
                bytes_per_s: random(1 << 34) as f64,
                fixed: Duration::from_micros(random(400_000)),
                round_overhead: Duration::from_micros(random(50_000)),
                elapsed: Duration::from_millis(random(120_000)),
            };
            let on_timeout = [OnTimeout::Abort, OnTimeout::Force, OnTimeout::Throttle][random(3) as usize];
            let await_switch = random(2) == 1;
            let limits = Limits { on_timeout, await_switch, ..LIMITS };
            assert!(patience(Duration::from_secs(1), &observation) <= Duration::from_secs(1));
            assert!(forecast(&limits, &observation) >= observation.elapsed);
            let above = predicted_blackout(&observation) > limits.downtime + Duration::from_nanos(2);
            match decide(&limits, &observation) {
                Decision::Stop(StopReason::Forced) => assert_eq!(on_timeout, OnTimeout::Force),
                Decision::Stop(_) => {
                    assert!(!above, "{observation:?}");
                    assert!(!await_switch || observation.elapsed >= limits.timeout);
                }
                Decision::Abort => {
                    assert!(on_timeout != OnTimeout::Force && observation.elapsed >= limits.timeout);
                }
                Decision::Continue(GoOn::Throttled(share)) => {
                    assert!(on_timeout == OnTimeout::Throttle && observation.elapsed >= limits.timeout);
                    assert!(share <= observation.share && share >= Share::LEAST);
                }
                Decision::Continue(GoOn::AboveLimit) => assert!(observation.elapsed < limits.timeout),
                Decision::Continue(GoOn::Falling) => assert!(observation.elapsed < limits.timeout),
                Decision::Continue(GoOn::AwaitSwitch) => {
                    assert!(await_switch && !above && observation.elapsed < limits.timeout);
                }
            }
        }
    }

    #[test]
    fn predictions_grow_with_residual_and_dirty_rate_and_shrink_with_bandwidth() {
        for pages in [0u64, 10, 1000, 100_000] {
            let base = seen(pages, 1000.0);
            assert!(predicted_blackout(&seen(pages + 1, 1000.0)) > predicted_blackout(&base));
            assert!(residual_after_next_round(&seen(pages, 2000.0)) > residual_after_next_round(&base));
            let faster = Observation { bytes_per_s: 2e9, ..base };
            assert!(predicted_blackout(&faster) <= predicted_blackout(&base));
            assert!(residual_after_next_round(&faster) <= residual_after_next_round(&base));
        }
    }

    #[test]
    fn bandwidth_is_told_by_the_last_round_that_was_long_enough() {
        assert_eq!(bandwidth([(1 << 30, 1.0), (2 << 20, 0.5), (100, 0.001)].into_iter()), 4194304.0);
        assert_eq!(bandwidth([(100, 0.001)].into_iter()), BYTES_PER_S_ASSUMED);
    }

    #[test]
    fn time_without_data_does_not_slow_the_pace() {
        let mut pace = Pace::default();
        pace.add(500_000, 0.005);
        assert_eq!(pace.bytes_per_s(), None);
        (0..9).for_each(|_| pace.add(5_000_000, 0.05));
        (0..100).for_each(|_| pace.add(1_000, 0.05));
        pace.add(1_000_000, 0.0);
        let rate = pace.bytes_per_s().unwrap();
        assert!((rate / 100e6 - 1.0).abs() < 0.01, "{rate}");
    }

    #[test]
    fn chunks_are_small_enough_for_every_stream_in_a_small_round() {
        assert_eq!(chunk_pages(100, 4), 64);
        assert_eq!(chunk_pages(4096, 4), 256);
        assert_eq!(chunk_pages(1 << 20, 1), 1024);
    }
}
