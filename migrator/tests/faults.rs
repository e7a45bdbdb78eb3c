//! Connections cut anywhere, and an abort at the last moment; `table.rs` has every step and every harm.

mod support;

use migrator::destination::{self, DestinationError};
use migrator::source::{self, SourceError};
use support::proxy::Tamper;
use support::{Attempt, FEW_PAGES, Setup, TestSource, assert_goes_on_and_migrates_again};

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
fn a_cut_after_any_number_of_bytes_is_safe() {
    let mut random = support::Random(2026);
    for _ in 0..25 {
        let source = TestSource::with(&FEW_PAGES);
        let bytes = random.below(520_000) as usize;
        let tamper = Some(Tamper::Bytes(bytes));
        assert_safe(&Setup { tamper, ..Setup::new(2) }.run(&source), &source, &bytes);
    }
}

#[test]
fn a_destination_that_hears_the_abort_after_ready_is_not_in_doubt() {
    let source = TestSource::new();
    let attempt = Setup::new(1).run_held(&source, source::Phase::Ready, |beside| beside.source.cancel());
    assert!(
        matches!(attempt.source, source::Outcome::Failed { error: SourceError::Cancelled, .. }),
        "{:?}",
        attempt.source
    );
    assert!(matches!(
        attempt.destination,
        destination::Outcome::Failed { error: DestinationError::Aborted(_) }
    ));
    assert_goes_on_and_migrates_again(&source);
}
