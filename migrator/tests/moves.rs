//! Migrations that succeed, and failures inside the machines, over loopback and plain memory, with both transports.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use migrator::codec::Compression;
use migrator::destination::{self, DestinationError};
use migrator::partition::Moment;
use migrator::policy::{OnTimeout, StopReason};
use migrator::source::{self, Phase, SourceError};
use migrator::transport::{Timeouts, Transport};
use migrator::wire::Kind;
use support::proxy::{Harm, Step, Tamper};
use support::{
    Beside, PATIENCE, PageWrite, Setup, TestDestination, TestSource, assert_goes_on_and_migrates_again,
    assert_moved, resuming_timeouts, timeouts,
};

/// Every test runs over both transports.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod over_tcp {$(
            #[test]
            fn $name() { super::$name(migrator::transport::Transport::Tcp) }
        )*}
        mod over_rdma {$(
            #[test]
            fn $name() { super::$name(migrator::transport::Transport::Rdma) }
        )*}
    };
}

over_both! {
    a_quiet_partition_arrives_byte_for_byte
    machine_facts_of_any_length_arrive
    memory_that_is_not_fresh_gets_its_zero_pages
    a_partition_that_writes_all_the_time_arrives_as_it_was_when_it_paused
    phases_come_in_order_and_progress_is_readable
    a_cancel_in_any_phase_before_the_commit_leaves_the_source_running
    a_cancel_after_the_commit_changes_nothing
    a_cancel_at_the_destination_tells_the_source_why
    a_cancel_at_the_destination_after_ready_does_not_stop_what_may_be_committed
    every_failing_verb_of_the_source_is_rolled_back
    a_source_that_cannot_resume_says_so
    every_failing_verb_of_the_destination_is_told_to_the_source
    a_destination_that_cannot_run_after_the_commit_leaves_both_in_doubt
    the_bandwidth_cap_holds_over_all_streams
    a_broken_pre_copy_goes_on_with_what_the_destination_has
    connections_that_break_while_they_resume_are_resumed_again
    a_program_that_writes_during_a_break_arrives_as_it_was_when_it_paused
    the_pause_waits_for_a_good_moment_as_long_as_it_may
    several_moves_wait_for_each_other_and_switch_over_together
    who_waits_for_others_can_be_cancelled_and_goes_alone_after_the_timeout
    a_cap_that_is_lifted_during_the_move_holds_no_longer
    what_does_not_converge_is_aborted_or_forced_as_asked
    a_program_that_outruns_the_cap_is_throttled_moves_and_is_let_go
    many_short_rounds_do_not_look_like_silence
    thirty_moves_one_after_another
}

fn a_quiet_partition_arrives_byte_for_byte(transport: Transport) {
    for streams in [1, 4, 16] {
        let source = TestSource::new();
        let attempt = Setup::over(transport, streams).run(&source);
        assert_moved(&attempt, &source);
        assert_eq!(attempt.machine.zero_writes.load(SeqCst), 0, "zero pages are not written to fresh memory");
        let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
        assert_eq!(report.stop_reason, Some(StopReason::Tiny));
        assert!(report.rounds[0].zero_pages > 100 && report.blackout_ms > 0.0 && report.total_s > 0.0);
        let memory: u64 = support::REGIONS.iter().map(|region| region.bytes).sum();
        assert!(report.bytes < memory * 3 / 4, "zero pages are elided");
    }
}

fn machine_facts_of_any_length_arrive(transport: Transport) {
    for bytes in [0, 128 << 10, (128 << 10) + 1, 700_000] {
        let source = TestSource::new();
        let facts: Vec<u8> = (0..bytes).map(|index: u32| (index % 251) as u8).collect();
        *source.facts.lock().unwrap() = facts.clone();
        let attempt = Setup::over(transport, 1).run(&source);
        assert_moved(&attempt, &source);
        assert_eq!(attempt.machine.description.unwrap().machine, facts);
    }
}

fn memory_that_is_not_fresh_gets_its_zero_pages(transport: Transport) {
    let source = TestSource::new();
    let setup = Setup { machine: TestDestination::new(false), ..Setup::over(transport, 4) };
    assert_moved(&setup.run(&source), &source);
}

fn a_partition_that_writes_all_the_time_arrives_as_it_was_when_it_paused(transport: Transport) {
    for (streams, seed) in [(1, 1), (4, 2), (4, 3)] {
        let source = TestSource::new();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| source.scribble(&stop, 20, seed));
            *source.in_round.lock().unwrap() = Some(PageWrite { region: 0, page: 3, word: seed });
            let attempt = Setup::over(transport, streams).run(&source);
            stop.store(true, SeqCst);
            assert_moved(&attempt, &source);
            let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
            assert!(report.rounds.len() >= 2 && report.rounds[0].dirty_pages_after > 0);
        });
    }
}

fn phases_come_in_order_and_progress_is_readable(transport: Transport) {
    let source = TestSource::new();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let control = source::Control::new().with_hook(Box::new(move |phase| log.lock().unwrap().push(phase)));
    assert_moved(&Setup { control, ..Setup::over(transport, 1) }.run(&source), &source);
    use Phase::{Blackout, Commit, Connect, Done, Prepare, Ready, Round, Saved};
    assert_eq!(*seen.lock().unwrap(), [Connect, Prepare, Round(0), Blackout, Saved, Ready, Commit, Done]);
}

fn a_cancel_in_any_phase_before_the_commit_leaves_the_source_running(transport: Transport) {
    for at in [Phase::Connect, Phase::Prepare, Phase::Round(0), Phase::Blackout, Phase::Saved, Phase::Ready] {
        let source = TestSource::new();
        let attempt = cancelled_at(transport, at, false, &source);
        assert!(
            matches!(attempt.source, source::Outcome::Failed { error: SourceError::Cancelled, .. }),
            "{at:?}: {:?}",
            attempt.source
        );
        assert!(
            matches!(attempt.destination, destination::Outcome::Failed { .. }),
            "{:?}",
            attempt.destination
        );
        assert!(!attempt.machine.ran);
        assert_goes_on_and_migrates_again(&source);
    }
}

fn a_cancel_after_the_commit_changes_nothing(transport: Transport) {
    let source = TestSource::new();
    assert_moved(&cancelled_at(transport, Phase::Commit, false, &source), &source);
}

fn cancelled_at(
    transport: Transport,
    at: Phase,
    at_destination: bool,
    source: &TestSource,
) -> support::Attempt {
    Setup::over(transport, 2).run_held(source, at, |beside| {
        if at_destination {
            beside.destination.cancel();
            // It looks every 100 ms; until then the source waits.
            thread::sleep(Duration::from_secs(1));
        } else {
            beside.source.cancel()
        }
    })
}

fn a_cancel_at_the_destination_tells_the_source_why(transport: Transport) {
    let source = TestSource::new();
    let attempt = cancelled_at(transport, Phase::Round(0), true, &source);
    let source::Outcome::Failed { error: SourceError::Aborted(reason), .. } = attempt.source else {
        panic!("{:?}", attempt.source)
    };
    assert!(reason.contains("cancelled"), "{reason}");
    assert!(matches!(
        attempt.destination,
        destination::Outcome::Failed { error: DestinationError::Cancelled }
    ));
    assert_goes_on_and_migrates_again(&source);
}

fn a_cancel_at_the_destination_after_ready_does_not_stop_what_may_be_committed(transport: Transport) {
    let source = TestSource::new();
    assert_moved(&cancelled_at(transport, Phase::Ready, true, &source), &source);
}

fn every_failing_verb_of_the_source_is_rolled_back(transport: Transport) {
    for verb in ["start_tracking", "dirty", "clear_dirty", "pause", "save", "panic"] {
        let source = TestSource::new();
        *source.fail.lock().unwrap() = Some(verb);
        let attempt = Setup::over(transport, 2).run(&source);
        let source::Outcome::Failed { error, .. } = attempt.source else { panic!("{verb}") };
        assert!(matches!(error, SourceError::Machine { .. } | SourceError::ThreadLost), "{verb}: {error:?}");
        assert!(matches!(attempt.destination, destination::Outcome::Failed { .. }));
        *source.fail.lock().unwrap() = None;
        assert!(source.is_running());
        assert_moved(&Setup::over(transport, 2).run(&source), &source);
    }
}

fn a_source_that_cannot_resume_says_so(transport: Transport) {
    let source = TestSource::new();
    *source.fail.lock().unwrap() = Some("resume");
    let machine = TestDestination { fail: Some("restore"), ..TestDestination::new(true) };
    let attempt = Setup { machine, ..Setup::over(transport, 1) }.run(&source);
    assert!(matches!(attempt.source, source::Outcome::Failed { error: SourceError::Resume { .. }, .. }));
}

fn every_failing_verb_of_the_destination_is_told_to_the_source(transport: Transport) {
    for verb in ["build", "populate", "write_pages", "restore"] {
        // Each is asked for over one of them only.
        if (transport == Transport::Rdma && verb == "write_pages")
            || (transport == Transport::Tcp && verb == "populate")
        {
            continue;
        }
        let source = TestSource::new();
        let machine = TestDestination { fail: Some(verb), ..TestDestination::new(true) };
        let attempt = Setup { machine, ..Setup::over(transport, 2) }.run(&source);
        let source::Outcome::Failed { error, .. } = &attempt.source else {
            panic!("{verb}: {:?}", attempt.source)
        };
        assert!(error.to_string().contains(&format!("{verb} fails")), "{verb}: {error:?}");
        let refused = matches!(attempt.destination, destination::Outcome::Refused { .. });
        assert_eq!(refused, verb == "build", "{:?}", attempt.destination);
        assert!(!attempt.machine.ran);
        assert_goes_on_and_migrates_again(&source);
    }
}

fn a_destination_that_cannot_run_after_the_commit_leaves_both_in_doubt(transport: Transport) {
    let source = TestSource::new();
    let machine = TestDestination { fail: Some("run"), ..TestDestination::new(true) };
    let attempt = Setup { machine, ..Setup::over(transport, 1) }.run(&source);
    assert!(matches!(attempt.source, source::Outcome::InDoubt { error: SourceError::Aborted(_), .. }));
    assert!(matches!(
        attempt.destination,
        destination::Outcome::InDoubt { error: DestinationError::Machine { .. }, .. }
    ));
    assert!(!source.is_running() && !attempt.machine.ran);
}

fn the_bandwidth_cap_holds_over_all_streams(transport: Transport) {
    let source = TestSource::new();
    let change: fn(&mut migrator::report::Request) = |request| request.bandwidth_bytes_per_s = Some(8 << 20);
    let attempt = Setup { change, ..Setup::over(transport, 4) }.run(&source);
    assert_moved(&attempt, &source);
    let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
    let round = report.rounds[0];
    let rate = round.bytes as f64 / round.seconds;
    assert!(rate < 1.3 * f64::from(8 << 20), "{rate} bytes/s");
}

/// Cut in the middle of round 0, and again in a later round: only what was missing goes again.
fn a_broken_pre_copy_goes_on_with_what_the_destination_has(transport: Transport) {
    let source = TestSource::new();
    let whole: u64 = support::REGIONS.iter().map(|region| region.bytes / 4096).sum();
    let machine = TestDestination::new(true);
    let tamper = Some(match transport {
        Transport::Tcp => Tamper::BytesThen(2 << 20, machine.written.clone(), whole / 3),
        // One-sided writes are not among the bytes that are counted.
        Transport::Rdma => Tamper::Bytes(6000),
    });
    let attempt =
        Setup { tamper, machine, timeouts: resuming_timeouts(), ..Setup::over(transport, 2) }.run(&source);
    let source::Outcome::Moved { report, .. } = &attempt.source else { panic!("{:?}", attempt.source) };
    assert_eq!(report.resumed, 1);
    let most = if transport == Transport::Tcp { whole * 3 / 4 } else { whole };
    assert!(report.rounds[0].pages < most, "{} of {whole} pages went again", report.rounds[0].pages);
    attempt.machine.assert_holds(&source);
    assert!(attempt.machine.ran && !source.is_running());
}

fn connections_that_break_while_they_resume_are_resumed_again(transport: Transport) {
    // Hello, RESUME, HELD, WINDOW, two hellos of streams and their JOINED: each of them is the last that passes. What is under way
    // behind them may be the blackout, in which nothing is resumed.
    for frames in 1..=8 {
        let source = TestSource::new();
        let bytes = if transport == Transport::Tcp { 1 << 20 } else { 6000 };
        let tamper = Some(Tamper::BytesThenFrames(bytes, frames));
        let attempt =
            Setup { tamper, timeouts: resuming_timeouts(), ..Setup::over(transport, 2) }.run(&source);
        let source::Outcome::Moved { report, .. } = &attempt.source else {
            panic!("after {frames} frames: {:?}", attempt.source)
        };
        assert!((1..=2).contains(&report.resumed), "after {frames} frames: {} times", report.resumed);
        attempt.machine.assert_holds(&source);
        assert!(attempt.machine.ran && !source.is_running());
    }
}

fn a_program_that_writes_during_a_break_arrives_as_it_was_when_it_paused(transport: Transport) {
    for (step, seed) in [(Step::Data, 5), (Step::RoundEnd, 6), (Step::RoundAck, 7)] {
        let source = TestSource::new();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| source.scribble(&stop, 20, seed));
            let tamper = Some(Tamper::At(step, Harm::Cut { deliver: seed == 6 }));
            let attempt =
                Setup { tamper, timeouts: resuming_timeouts(), ..Setup::over(transport, 2) }.run(&source);
            stop.store(true, SeqCst);
            let source::Outcome::Moved { report, .. } = &attempt.source else {
                panic!("{:?}", attempt.source)
            };
            assert_eq!(report.resumed, 1, "{step:?}");
            attempt.machine.assert_holds(&source);
        });
    }
}

#[test]
fn packed_pages_arrive_byte_for_byte_and_auto_packs_what_a_slow_link_carries() {
    for compression in [Compression::Lz4, Compression::Zstd, Compression::None] {
        let packed = is_packed(|request| request.bandwidth_bytes_per_s = Some(2 << 20), compression);
        assert_eq!(packed, compression != Compression::None, "{compression:?}");
    }
    // What is a slow link for a processor depends on how much of it there is.
    let slower: [Change; 3] = [
        |request| request.bandwidth_bytes_per_s = Some(2 << 20),
        |request| request.bandwidth_bytes_per_s = Some(1 << 19),
        |request| request.bandwidth_bytes_per_s = Some(1 << 17),
    ];
    assert!(
        slower.into_iter().any(|cap| is_packed(cap, Compression::Auto)),
        "not over the slowest link either"
    );
}

/// Moves a partition with pages like text, and tells whether some of them were packed.
fn is_packed(cap: Change, compression: Compression) -> bool {
    let source = TestSource::new();
    for word in 0..200 * 512 {
        source.write(0, word, word as u64 / 24);
    }
    *CHANGES.lock().unwrap() = (cap, compression);
    let change: fn(&mut migrator::report::Request) = |request| {
        let (cap, compression) = *CHANGES.lock().unwrap();
        cap(request);
        request.compression = compression;
    };
    let attempt = Setup { change, ..Setup::new(2) }.run(&source);
    assert_moved(&attempt, &source);
    let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
    println!("{compression:?}: {:?}", report.rounds);
    report.rounds[0].packed_pages > 0
}

type Change = fn(&mut migrator::report::Request);
/// For a `change`, which captures nothing; of one test only.
static CHANGES: std::sync::Mutex<(Change, Compression)> = std::sync::Mutex::new((|_| (), Compression::Auto));

fn the_pause_waits_for_a_good_moment_as_long_as_it_may(transport: Transport) {
    for (sleeps_after_ms, asleep) in [(Some(3), true), (Some(0), true), (Some(500), false), (None, false)] {
        let source = TestSource::new();
        *source.sleeps_after.lock().unwrap() = sleeps_after_ms.map(Duration::from_millis);
        let change: fn(&mut migrator::report::Request) =
            |request| request.patience = Duration::from_millis(20);
        let attempt = Setup { change, ..Setup::over(transport, 1) }.run(&source);
        assert_moved(&attempt, &source);
        let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
        assert_eq!(report.moment, asleep.then_some(Moment::Asleep), "{sleeps_after_ms:?}");
        let waited_ms = sleeps_after_ms.filter(|_| asleep).unwrap_or(20);
        assert!(report.patience_ms >= waited_ms as f64, "{sleeps_after_ms:?}: {}", report.patience_ms);
    }
}

fn several_moves_wait_for_each_other_and_switch_over_together(transport: Transport) {
    let change: fn(&mut migrator::report::Request) = |request| request.await_switch = true;
    let sources = [TestSource::new(), TestSource::new(), TestSource::new()];
    let (waiting, may_switch) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let switch_together = |beside: &Beside<'_>| {
            if beside.until(|| beside.source.awaits_switch()) {
                waiting.fetch_add(1, SeqCst);
                beside.until(|| may_switch.load(SeqCst));
                beside.source.switch();
            }
        };
        let setup = || Setup { change, ..Setup::over(transport, 2) };
        let moving: Vec<_> = sources
            .iter()
            .map(|source| scope.spawn(move || setup().run_with(source, switch_together)))
            .collect();
        // One that is over before the others switch has failed, and says why below.
        while waiting.load(SeqCst) < sources.len() && !moving.iter().any(|it| it.is_finished()) {
            thread::sleep(Duration::from_millis(1));
        }
        // What is written while they wait arrives as well.
        for (number, source) in sources.iter().enumerate() {
            (0..40 * 512).for_each(|word| _ = source.write(0, word, (word * (number + 2)) as u64));
        }
        thread::sleep(Duration::from_millis(300));
        let all_run = sources.iter().all(TestSource::is_running);
        may_switch.store(true, SeqCst);
        for (moving, source) in moving.into_iter().zip(&sources) {
            let attempt = moving.join().unwrap();
            assert_moved(&attempt, source);
            let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
            let waits = report.rounds.iter().filter(|round| round.awaits_switch()).count();
            assert!((1..=2).contains(&waits), "{:?}", report.rounds);
        }
        assert!(all_run, "nobody goes before the others");
    });
}

fn who_waits_for_others_can_be_cancelled_and_goes_alone_after_the_timeout(transport: Transport) {
    let change: fn(&mut migrator::report::Request) = |request| {
        request.await_switch = true;
        request.timeout = Duration::from_secs(2);
        // A loaded machine may need longer than that for the first round.
        request.on_timeout = OnTimeout::Force;
    };
    let source = TestSource::new();
    // Connecting for RDMA may take seconds on a loaded machine, and after the time-out nobody waits.
    let patient: fn(&mut migrator::report::Request) = |request| request.await_switch = true;
    let attempt = Setup { change: patient, ..Setup::over(transport, 1) }.run_with(&source, |beside| {
        if beside.until_phase(Phase::AwaitSwitch) {
            beside.source.cancel();
        }
    });
    assert!(
        matches!(attempt.source, source::Outcome::Failed { error: source::SourceError::Cancelled, .. }),
        "{:?}",
        attempt.source
    );
    assert_goes_on_and_migrates_again(&source);
    let source = TestSource::new();
    let start = std::time::Instant::now();
    assert_moved(&Setup { change, ..Setup::over(transport, 1) }.run(&source), &source);
    assert!(start.elapsed() >= Duration::from_secs(2));
}

fn a_cap_that_is_lifted_during_the_move_holds_no_longer(transport: Transport) {
    let source = TestSource::new();
    // At this rate it would take five minutes.
    let change: fn(&mut migrator::report::Request) = |request| {
        request.bandwidth_bytes_per_s = Some(10_000);
        request.compression = Compression::None;
    };
    let start = std::time::Instant::now();
    let attempt = Setup { change, ..Setup::over(transport, 2) }.run_with(&source, |beside| {
        if beside.until_phase(Phase::Round(0)) {
            thread::sleep(Duration::from_millis(300));
            beside.source.set_bandwidth(None);
        }
    });
    assert_moved(&attempt, &source);
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

fn what_does_not_converge_is_aborted_or_forced_as_asked(transport: Transport) {
    let stop = AtomicBool::new(false);
    let source = TestSource::new();
    thread::scope(|scope| {
        scope.spawn(|| source.scribble(&stop, 50, 9));
        let limit: fn(&mut migrator::report::Request) = |request| {
            request.downtime_limit = Duration::ZERO;
            request.timeout = Duration::from_millis(500);
        };
        let attempt = Setup { change: limit, ..Setup::over(transport, 1) }.run(&source);
        let source::Outcome::Failed { error, .. } = attempt.source else { panic!("{:?}", attempt.source) };
        assert!(
            matches!(error, SourceError::NotConverging { .. } | SourceError::TimedOut { .. }),
            "{error:?}"
        );
        assert!(source.is_running() && !source.is_tracking());
        let force: fn(&mut migrator::report::Request) = |request| {
            request.downtime_limit = Duration::ZERO;
            request.timeout = Duration::from_millis(500);
            request.on_timeout = OnTimeout::Force;
        };
        let attempt = Setup { change: force, ..Setup::over(transport, 1) }.run(&source);
        stop.store(true, SeqCst);
        assert_moved(&attempt, &source);
        let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
        assert_eq!(report.stop_reason, Some(StopReason::Forced));
    });
}

fn a_program_that_outruns_the_cap_is_throttled_moves_and_is_let_go(transport: Transport) {
    // A loaded machine may need all of the time for the first round, or write too little: then more time, and a lower cap.
    let attempts: [Change; 3] = [
        |request| throttle(request, 2, 2 << 20),
        |request| throttle(request, 10, 1 << 20),
        |request| throttle(request, 40, 1 << 19),
    ];
    for change in attempts {
        if is_throttled_and_let_go(transport, change) {
            return;
        }
    }
    panic!("it was never throttled");
}

fn throttle(request: &mut migrator::report::Request, timeout_s: u64, bytes_per_s: u64) {
    request.timeout = Duration::from_secs(timeout_s);
    request.bandwidth_bytes_per_s = Some(bytes_per_s);
    request.compression = Compression::None;
    request.downtime_limit = Duration::from_millis(150);
    request.on_timeout = OnTimeout::Throttle;
}

/// One move of a program that writes much; false if it was over, one way or the other, before there was a reason to throttle.
fn is_throttled_and_let_go(transport: Transport, change: Change) -> bool {
    let stop = AtomicBool::new(false);
    let source = TestSource::new();
    thread::scope(|scope| {
        scope.spawn(|| source.scribble(&stop, 16, 11));
        let attempt = Setup { change, ..Setup::over(transport, 1) }.run(&source);
        stop.store(true, SeqCst);
        assert_eq!(*source.share.lock().unwrap(), migrator::partition::Share::FULL);
        let report = match &attempt.source {
            source::Outcome::Moved { report, .. } => {
                assert_moved(&attempt, &source);
                let prediction = report.prediction.unwrap();
                assert_eq!(prediction.actual_blackout_ms, report.blackout_ms);
                assert!(prediction.predicted_total_s > 0.0 && prediction.predicted_blackout_ms <= 150.0);
                report
            }
            // A loaded machine may be too slow even so.
            source::Outcome::Failed { report, .. } => {
                assert!(source.is_running());
                report
            }
            other => panic!("{other:?}"),
        };
        let Some(brownout) = &report.brownout else { return false };
        assert!(brownout.least_share.part() < 1.0 && brownout.seconds > 0.0, "{brownout:?}");
        true
    })
}

/// Each round began the keep-alive anew, so a source with many short rounds said nothing on the control connection.
fn many_short_rounds_do_not_look_like_silence(transport: Transport) {
    let stop = AtomicBool::new(false);
    let source = TestSource::new();
    thread::scope(|scope| {
        scope.spawn(|| source.scribble(&stop, 1, 4));
        let change: fn(&mut migrator::report::Request) = |request| {
            request.downtime_limit = Duration::ZERO;
            request.timeout = Duration::from_secs(2);
            request.on_timeout = OnTimeout::Force;
        };
        let said = Arc::new(AtomicUsize::new(0));
        let tamper = Some(Tamper::Count(Kind::KeepAlive, said.clone()));
        let timeouts = Timeouts { keep_alive: Duration::from_millis(200), ..timeouts() };
        let attempt = Setup { change, timeouts, tamper, ..Setup::over(transport, 1) }.run(&source);
        stop.store(true, SeqCst);
        assert_moved(&attempt, &source);
        assert!(said.load(SeqCst) > 0, "it was silent");
    });
}

fn thirty_moves_one_after_another(transport: Transport) {
    for turn in 0..30 {
        let source = TestSource::new();
        assert_moved(&Setup::over(transport, 1 + turn % 4).run(&source), &source);
    }
}
