//! Connections cut, damaged or silent at every phase: one side runs or both are paused and say so, never two.

mod support;

use migrator::destination::{self, DestinationError};
use migrator::source::{self, SourceError};
use migrator::wire::Kind;
use support::proxy::Cut;
use support::{Attempt, Setup, TestSource, assert_goes_on_and_migrates_again, assert_moved};

fn with(cut: Cut, source: &TestSource) -> Attempt {
    let hangs = matches!(cut, Cut::Hang { .. });
    let timeouts = if hangs { support::short_timeouts() } else { support::timeouts() };
    Setup { cut: Some(cut), timeouts, ..Setup::new(2) }.run(source)
}

/// Never two; and a source that failed goes on and can migrate again.
#[track_caller]
fn assert_safe(attempt: &Attempt, source: &TestSource, what: &dyn std::fmt::Debug) {
    let (runs_here, runs_there) = (source.is_running(), attempt.machine.ran);
    assert!(!(runs_here && runs_there), "{what:?}: two run");
    assert_eq!(
        runs_here,
        matches!(attempt.source, source::Outcome::Failed { .. }),
        "{what:?}: {:?}",
        attempt.source
    );
    let running = matches!(attempt.destination, destination::Outcome::Running { .. });
    assert_eq!(runs_there, running, "{what:?}: {:?}", attempt.destination);
    if !runs_here && !runs_there {
        assert!(matches!(attempt.source, source::Outcome::InDoubt { .. }), "{what:?}: {:?}", attempt.source);
        assert!(matches!(attempt.destination, destination::Outcome::InDoubt { .. }), "{what:?}");
    }
    if runs_here {
        assert_goes_on_and_migrates_again(source);
    }
}

#[test]
fn a_cut_before_ready_fails_on_both_sides_and_the_source_goes_on() {
    let kinds =
        [Kind::Describe, Kind::Accept, Kind::Joined, Kind::Data, Kind::Zero, Kind::RoundEnd, Kind::RoundAck];
    for kind in kinds.into_iter().chain([Kind::Final, Kind::State]) {
        for deliver in [false, true] {
            let source = TestSource::new();
            let attempt = with(Cut::Frame { kind, nth: 0, deliver }, &source);
            let failed = matches!(attempt.source, source::Outcome::Failed { .. });
            assert!(failed, "{kind} {deliver}: {:?}", attempt.source);
            let failed = matches!(attempt.destination, destination::Outcome::Failed { .. });
            assert!(failed, "{kind} {deliver}: {:?}", attempt.destination);
            assert_safe(&attempt, &source, &(kind, deliver));
        }
    }
}

#[test]
fn a_cut_in_the_last_round_resumes_the_paused_source() {
    // Two streams: their round ends number 2 and 3 are those of the blackout, as the quiet source needs one round only.
    let source = TestSource::new();
    let attempt = with(Cut::Frame { kind: Kind::RoundEnd, nth: 2, deliver: false }, &source);
    assert!(matches!(attempt.source, source::Outcome::Failed { .. }), "{:?}", attempt.source);
    assert_safe(&attempt, &source, &"last round");
    assert_eq!(source.resumes.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_lost_ready_leaves_the_destination_in_doubt_and_the_source_running() {
    let source = TestSource::new();
    let attempt = with(Cut::Frame { kind: Kind::Ready, nth: 0, deliver: false }, &source);
    assert!(matches!(attempt.source, source::Outcome::Failed { .. }), "{:?}", attempt.source);
    assert!(matches!(attempt.destination, destination::Outcome::InDoubt { .. }), "{:?}", attempt.destination);
    assert_safe(&attempt, &source, &"READY");
}

#[test]
fn a_lost_commit_leaves_both_paused_and_in_doubt() {
    for cut in [
        Cut::Frame { kind: Kind::Ready, nth: 0, deliver: true },
        Cut::Frame { kind: Kind::Commit, nth: 0, deliver: false },
        Cut::Hang { kind: Kind::Commit, nth: 0 },
        Cut::Damage { kind: Kind::Commit, nth: 0 },
    ] {
        let source = TestSource::new();
        let attempt = with(cut, &source);
        assert!(matches!(attempt.source, source::Outcome::InDoubt { .. }), "{cut:?}: {:?}", attempt.source);
        let in_doubt = matches!(attempt.destination, destination::Outcome::InDoubt { .. });
        assert!(in_doubt, "{cut:?}: {:?}", attempt.destination);
        assert!(!source.is_running() && !attempt.machine.ran);
    }
}

#[test]
fn a_lost_running_leaves_one_copy_running_and_the_source_in_doubt() {
    for cut in [
        Cut::Frame { kind: Kind::Commit, nth: 0, deliver: true },
        Cut::Frame { kind: Kind::Running, nth: 0, deliver: false },
        Cut::Hang { kind: Kind::Running, nth: 0 },
        Cut::Damage { kind: Kind::Running, nth: 0 },
    ] {
        let source = TestSource::new();
        let attempt = with(cut, &source);
        assert!(matches!(attempt.source, source::Outcome::InDoubt { .. }), "{cut:?}: {:?}", attempt.source);
        assert!(attempt.machine.ran && !source.is_running());
    }
    let source = TestSource::new();
    assert_moved(&with(Cut::Frame { kind: Kind::Running, nth: 0, deliver: true }, &source), &source);
}

#[test]
fn damaged_frames_are_found_before_ready() {
    for kind in
        [Kind::Describe, Kind::Accept, Kind::Data, Kind::Zero, Kind::RoundEnd, Kind::Final, Kind::State]
    {
        let source = TestSource::new();
        let attempt = with(Cut::Damage { kind, nth: 0 }, &source);
        let source::Outcome::Failed { error, .. } = &attempt.source else {
            panic!("{kind}: {:?}", attempt.source)
        };
        if let SourceError::Aborted(reason) = error {
            assert!(reason.contains("checksum"), "{kind}: {reason}");
        }
        assert!(matches!(attempt.destination, destination::Outcome::Failed { .. }), "{kind}");
        assert_safe(&attempt, &source, &kind);
    }
}

#[test]
fn silence_ends_every_phase_before_ready() {
    for kind in [Kind::Describe, Kind::Joined, Kind::RoundAck, Kind::State, Kind::Ready] {
        let source = TestSource::new();
        let attempt = with(Cut::Hang { kind, nth: 0 }, &source);
        assert!(matches!(attempt.source, source::Outcome::Failed { .. }), "{kind}: {:?}", attempt.source);
        assert!(!attempt.machine.ran);
        assert_safe(&attempt, &source, &kind);
    }
}

#[test]
fn a_cut_after_any_number_of_bytes_is_safe() {
    let mut random = support::Random(2026);
    for _ in 0..25 {
        let source = TestSource::new();
        let bytes = random.below(3_400_000) as usize;
        assert_safe(&with(Cut::Bytes(bytes), &source), &source, &bytes);
    }
}

#[test]
fn a_destination_that_hears_the_abort_after_ready_is_not_in_doubt() {
    let source = TestSource::new();
    let (seen, cancel) = std::sync::mpsc::channel();
    let seen = std::sync::Mutex::new((seen, false));
    let control = source::Control::new().with_hook(Box::new(move |phase| {
        let mut seen = seen.lock().unwrap();
        if phase == source::Phase::Ready && !std::mem::replace(&mut seen.1, true) {
            seen.0.send(()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }));
    let attempt = Setup { control, ..Setup::new(1) }.run_with(&source, move |control, _| {
        cancel.recv().unwrap();
        control.cancel();
    });
    assert!(matches!(attempt.source, source::Outcome::Failed { error: SourceError::Cancelled, .. }));
    assert!(matches!(
        attempt.destination,
        destination::Outcome::Failed { error: DestinationError::Aborted(_) }
    ));
    assert_goes_on_and_migrates_again(&source);
}
