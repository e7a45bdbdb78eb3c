//! Every path of a move, and that none of them lets both sides run.

use super::*;
use crate::state::MovePhase;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn order() -> Result<Move> {
    Ok(Move {
        application: "a-1".parse()?,
        rank: 0,
        from: "a".parse()?,
        from_epoch: 1,
        to: "b".parse()?,
        epoch: 2,
        reason: String::new(),
        explanation: None,
        phase: MovePhase::Open,
        failure: None,
        time_ms: 0,
        measured: None,
        predicted: None,
    })
}

fn process(epoch: u64, state: PartitionState) -> Result<PartitionReport> {
    Ok(PartitionReport {
        application: "a-1".parse()?,
        rank: 0,
        epoch,
        state,
        sending: false,
        awaits_switch: false,
        detail: None,
        pid: None,
        fabric: None,
        end: None,
        counters: None,
    })
}

fn side(process: Option<&PartitionReport>) -> SideFacts<'_> {
    SideFacts { heard: true, lost: false, process, end: None }
}

fn seen<'a>(order: &'a Move, source: SideFacts<'a>, destination: SideFacts<'a>) -> Facts<'a> {
    Facts { now_ms: 1, order, source, destination, together: false, may_switch: true }
}

fn result(id: u64, epoch: u64, outcome: Outcome) -> Result<CommandResult> {
    Ok(CommandResult { id, application: "a-1".parse()?, rank: 0, epoch, outcome })
}

/// Steps with the outcome of the awaited command.
fn answer(flight: &mut Flight, facts: &Facts<'_>, outcome: Outcome) -> Result<Vec<Effect>> {
    flight.awaited = Some((7, Side::Source));
    Ok(flight.step(facts, Some(&result(7, 0, outcome)?)))
}

fn sending(facts: &Facts<'_>) -> Result<Flight> {
    let (mut flight, effects) = Flight::begin(0, None);
    assert!(matches!(effects[..], [Effect::Command(Side::Destination, Action::PrepareReceive { .. })]));
    let effects = answer(&mut flight, facts, Outcome::Listening { address: "tcp:h:1".into() })?;
    assert!(matches!(effects[..], [Effect::Command(Side::Source, Action::Migrate { epoch: 2, .. })]));
    Ok(flight)
}

fn doubt() -> Outcome {
    Outcome::InDoubt { reason: "no answer".into() }
}

#[test]
fn a_move_is_done_when_the_source_says_so() -> Result {
    let (order, source) = (order()?, process(1, PartitionState::Running)?);
    let facts = seen(&order, side(Some(&source)), side(None));
    let mut flight = sending(&facts)?;
    let effects = answer(&mut flight, &facts, Outcome::Moved(MoveReport::default()))?;
    assert_eq!(effects, [Effect::Done(Some(MoveReport::default()))]);
    Ok(())
}

#[test]
fn moves_of_a_group_switch_over_when_all_have_come_as_far_and_are_told_once() -> Result {
    let (order, mut source) = (order()?, process(1, PartitionState::Running)?);
    let alone = seen(&order, side(Some(&source)), side(None));
    let mut flight = sending(&alone)?;
    assert!(!flight.is_ready(&alone.source));
    source.awaits_switch = true;
    let mut facts =
        Facts { together: true, may_switch: false, ..seen(&order, side(Some(&source)), side(None)) };
    let (mut other, _) = Flight::begin(0, None);
    let effects = answer(&mut other, &facts, Outcome::Listening { address: "tcp:h:1".into() })?;
    assert!(matches!(effects[..], [Effect::Command(_, Action::Migrate { await_switch: true, .. })]));
    assert!(flight.is_ready(&facts.source));
    assert!(flight.step(&facts, None).is_empty(), "others are not there yet");
    facts.may_switch = true;
    assert_eq!(flight.step(&facts, None), [Effect::Switch]);
    assert!(flight.step(&facts, None).is_empty(), "once is enough");
    let effects = answer(&mut flight, &facts, Outcome::Moved(MoveReport::default()))?;
    assert_eq!(effects, [Effect::Done(Some(MoveReport::default()))]);
    // An outcome is not lost because the last report is older.
    let effects = answer(&mut other, &facts, Outcome::Moved(MoveReport::default()))?;
    assert_eq!(effects, [Effect::Done(Some(MoveReport::default()))]);
    // Nobody waits after a restart.
    assert_eq!(Flight::recover(1).step(&facts, None), [Effect::Switch]);
    Ok(())
}

#[test]
fn in_doubt_the_source_resumes_only_after_the_destination_gave_up() -> Result {
    let (order, source) = (order()?, process(1, PartitionState::InDoubt)?);
    let facts = seen(&order, side(Some(&source)), side(None));
    let mut flight = sending(&facts)?;
    let effects = answer(&mut flight, &facts, doubt())?;
    let discard = Action::Discard { keep_in_doubt: false };
    assert_eq!(effects[1..], [Effect::Command(Side::Destination, discard)]);
    assert!(flight.step(&facts, None).is_empty(), "no resume while the destination is silent");
    let effects = answer(&mut flight, &facts, Outcome::Discarded)?;
    assert_eq!(effects, [Effect::Command(Side::Source, Action::Resume)]);
    assert!(matches!(answer(&mut flight, &facts, Outcome::Done)?[..], [Effect::Failed(_)]));
    Ok(())
}

#[test]
fn in_doubt_the_destination_keeps_it_if_it_runs() -> Result {
    let (order, source) = (order()?, process(1, PartitionState::InDoubt)?);
    let facts = seen(&order, side(Some(&source)), side(None));
    let mut flight = sending(&facts)?;
    answer(&mut flight, &facts, doubt())?;
    assert_eq!(answer(&mut flight, &facts, Outcome::Running)?, [Effect::Done(None)]);
    Ok(())
}

#[test]
fn in_doubt_with_a_lost_destination_nobody_runs() -> Result {
    let (order, source) = (order()?, process(1, PartitionState::InDoubt)?);
    let mut facts = seen(&order, side(Some(&source)), side(None));
    let mut flight = sending(&facts)?;
    answer(&mut flight, &facts, doubt())?;
    facts.destination.lost = true;
    assert!(matches!(flight.step(&facts, None)[..], [Effect::Abandon(_)]));
    Ok(())
}

#[test]
fn a_complete_destination_is_woken_when_the_source_is_dead() -> Result {
    let mut source = process(1, PartitionState::Ended)?;
    source.end = Some(End::Killed(9));
    let order = order()?;
    let mut facts = seen(&order, side(Some(&source)), side(None));
    facts.source.end = Some(End::Killed(9));
    let mut flight = sending(&facts)?;
    let effects = answer(&mut flight, &facts, doubt())?;
    let discard = Action::Discard { keep_in_doubt: true };
    assert_eq!(effects[1..], [Effect::Command(Side::Destination, discard)]);
    let effects = answer(&mut flight, &facts, Outcome::HeldInDoubt)?;
    assert_eq!(effects, [Effect::Command(Side::Destination, Action::Resume)]);
    assert_eq!(answer(&mut flight, &facts, Outcome::Done)?, [Effect::Done(None)]);
    Ok(())
}

#[test]
fn after_a_restart_nothing_is_decided_before_both_sides_have_reported() -> Result {
    let (order, running) = (order()?, process(1, PartitionState::Running)?);
    let silent = SideFacts { heard: false, lost: false, process: None, end: None };
    let mut facts = seen(&order, silent, silent);
    let mut flight = Flight::recover(0);
    assert!(flight.step(&facts, None).is_empty());
    facts.source = side(Some(&running));
    assert!(flight.step(&facts, None).is_empty());
    facts.destination = side(None);
    let discard = Action::Discard { keep_in_doubt: false };
    assert_eq!(flight.step(&facts, None), [Effect::Command(Side::Destination, discard)]);
    assert!(matches!(answer(&mut flight, &facts, Outcome::Discarded)?[..], [Effect::Failed(_)]));
    Ok(())
}

#[test]
fn after_a_restart_the_outcome_of_the_old_command_counts() -> Result {
    let (order, mut source) = (order()?, process(1, PartitionState::Migrating)?);
    source.sending = true;
    let facts = seen(&order, side(Some(&source)), side(None));
    let mut flight = Flight::recover(0);
    assert!(flight.step(&facts, None).is_empty(), "it is still being sent");
    let moved = result(99, 1, Outcome::Moved(MoveReport::default()))?;
    assert!(matches!(flight.step(&facts, Some(&moved))[..], [Effect::Done(Some(_))]));
    Ok(())
}
