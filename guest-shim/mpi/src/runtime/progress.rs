//! Waiting: everything under way moves in every blocking call.

use alloc::boxed::Box;

use crate::engine::{Envelope, Links, ProtocolError};
use crate::memory::Region;
use crate::ring::RingError;
use crate::runtime::schedule::Schedule;
use crate::runtime::state::{Mpi, fatal, with};
use crate::sys;

impl Mpi {
    /// Writes to a peer what there is room for, without waiting for the next progress.
    pub fn start_transmission(&mut self, peer: u32) {
        if let Err(error) = self.engine.transmit(peer, &mut self.transport) {
            broken(&error);
        }
        self.transport.flush();
    }

    /// Sends a short message without a request; returns whether it could.
    pub fn send_now(&mut self, peer: u32, envelope: Envelope, data: Region) -> bool {
        match self.engine.send_now(peer, envelope, data, &mut self.transport) {
            Ok(sent) => {
                self.transport.flush();
                sent
            }
            Err(error) => broken(&error),
        }
    }
}

fn broken(error: &ProtocolError<RingError>) -> ! {
    match error {
        ProtocolError::Link(peer, RingError { mine, theirs }) => {
            fatal(format_args!("the ring of rank {peer} is damaged: offset {theirs} where {mine} is known"))
        }
        ProtocolError::Frame(peer, frame) => {
            fatal(format_args!("rank {peer} sent what is not a message: {frame:?}"))
        }
        ProtocolError::Request(peer, kind) => {
            fatal(format_args!("rank {peer} sent a {kind:?} frame that no request waits for"))
        }
    }
}

/// Moves messages and collectives; returns whether anything moved.
pub fn progress() -> bool {
    let (mut moved, schedules) = with(|mpi| match mpi.engine.progress(&mut mpi.transport) {
        Ok(moved) => (moved, mpi.schedules.len()),
        Err(error) => broken(&error),
    });
    for index in 0..schedules {
        // A schedule calls functions of the program, so it is not borrowed from the state meanwhile.
        if let Some(mut schedule) = with(|mpi| mpi.schedules[index].take()) {
            moved |= schedule.advance();
            with(|mpi| mpi.schedules[index] = Some(schedule));
        }
    }
    moved
}

/// Starts a schedule; returns its place in the list of schedules.
pub fn start(schedule: Schedule) -> usize {
    let mut schedule = Box::new(schedule);
    schedule.advance();
    with(|mpi| match mpi.schedules.iter().position(Option::is_none) {
        Some(index) => {
            mpi.schedules[index] = Some(schedule);
            index
        }
        None => {
            mpi.schedules.push(Some(schedule));
            mpi.schedules.len() - 1
        }
    })
}

/// Returns when `done` holds: polls as long as that is worth while, then sleeps until something happens.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    if done() {
        return;
    }
    // Since when nothing has come, and since when it has been polled without a sleep.
    let (mut wait_start, mut poll_start) = (None, None);
    let end_wait = |wait_start: &mut Option<u64>| {
        if let Some(start) = wait_start.take() {
            with(|mpi| mpi.transport.add_waited_tsc(sys::time_stamp().wrapping_sub(start)));
        }
    };
    loop {
        let moved = progress();
        if moved {
            end_wait(&mut wait_start);
            if let Some(start) = poll_start.take() {
                with(|mpi| {
                    mpi.transport.spin_was_useful();
                    mpi.transport.add_poll_tsc(sys::time_stamp().wrapping_sub(start));
                });
            }
        }
        if done() {
            if let Some(start) = poll_start {
                with(|mpi| mpi.transport.add_poll_tsc(sys::time_stamp().wrapping_sub(start)));
            }
            return;
        }
        if moved {
            continue;
        }
        let now = sys::time_stamp();
        let start = *poll_start.get_or_insert(now);
        wait_start.get_or_insert(now);
        if now.wrapping_sub(start) < with(|mpi| mpi.transport.spin_tsc()) {
            core::hint::spin_loop();
            continue;
        }
        // Whatever happens after this ends the sleep at once.
        let events = with(|mpi| mpi.transport.prepare_sleep());
        if progress() {
            with(|mpi| mpi.transport.wake());
            end_wait(&mut wait_start);
            continue;
        }
        with(|mpi| {
            let asleep = mpi.transport.sleep(events);
            mpi.transport.wake();
            let waited = sys::time_stamp().wrapping_sub(start);
            mpi.transport.add_poll_tsc(waited.saturating_sub(asleep));
            mpi.transport.slept(waited);
        });
        poll_start = None;
    }
}
