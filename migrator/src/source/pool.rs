//! The threads of the page streams: each gets every round, all must be through before the next one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::Duration;

use super::SourceError;
use super::stream::{PageStream, Round, Sent};
use crate::report::RoundReport;

/// How often the waiting thread looks at everything else.
const TICK: Duration = Duration::from_millis(50);

type Finished = (u8, Result<(Sent, u64), SourceError>);

/// The running streams.
pub(super) struct Pool {
    rounds: Vec<Sender<Arc<Round>>>,
    finished: Receiver<Finished>,
    stream_pages: Vec<u64>,
    round_trip: Duration,
}

impl Pool {
    /// One thread for every stream; they end when the pool is dropped.
    pub fn start<'scope, 'a: 'scope>(scope: &'scope Scope<'scope, '_>, streams: Vec<PageStream<'a>>) -> Self {
        let (done, finished) = channel();
        let stream_pages = vec![0; streams.len()];
        let spawn = |mut stream: PageStream<'a>| {
            let (sender, rounds) = channel::<Arc<Round>>();
            let done = done.clone();
            scope.spawn(move || {
                for round in rounds {
                    // A panic of the machine's code must end the migration, not leave the partition paused for ever.
                    let run = catch_unwind(AssertUnwindSafe(|| stream.run(&round)));
                    let result = run.unwrap_or(Err(SourceError::ThreadLost));
                    let result = result.map(|sent| (sent, stream.pages_total()));
                    let failed = result.is_err();
                    if done.send((stream.number(), result)).is_err() || failed {
                        return;
                    }
                }
            });
            sender
        };
        let rounds = streams.into_iter().map(spawn).collect();
        Self { rounds, finished, stream_pages, round_trip: Duration::MAX }
    }

    /// Hands `round` to every stream, and back.
    pub fn begin(&mut self, round: Round) -> Arc<Round> {
        let round = Arc::new(round);
        for stream in &self.rounds {
            // A stream that is gone has reported why, which `collect` finds.
            let _ = stream.send(round.clone());
        }
        round
    }

    /// Waits until all streams are through the round that was begun. `tick` is called often; its error ends the wait.
    pub fn collect(
        &mut self,
        mut tick: impl FnMut() -> Result<(), SourceError>,
    ) -> Result<RoundReport, SourceError> {
        let mut report = RoundReport::default();
        let mut waiting = self.rounds.len();
        while waiting > 0 {
            match self.finished.recv_timeout(TICK) {
                Ok((stream, result)) => {
                    let (sent, pages_total) = result?;
                    report.pages += sent.pages;
                    report.zero_pages += sent.zero_pages;
                    report.bytes += sent.bytes;
                    report.packed_pages += sent.packed_pages;
                    self.stream_pages[usize::from(stream)] = pages_total;
                    self.round_trip = self.round_trip.min(sent.acknowledged_in.unwrap_or(Duration::MAX));
                    waiting -= 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(SourceError::ThreadLost),
            }
            tick()?;
        }
        Ok(report)
    }

    /// The shortest time in which the end of a round was acknowledged; the longest there is before the first.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Pages each stream sent since its start.
    pub fn stream_pages(&self) -> Vec<u64> {
        self.stream_pages.clone()
    }
}
