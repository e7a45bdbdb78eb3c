//! The page streams at the destination: check every frame, write it, keep the ledger of what came.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Scope;
use std::time::Duration;

use partita_rdma::HostMemory;

use super::{Control, DestinationError, machine_failed};
use crate::bitmap;
use crate::channel::{Channel, ChannelError, Expect};
use crate::clock;
use crate::partition::{DestinationMachine, PAGE_SIZE, Region};
use crate::transport::{Timeouts, TransportError};
use crate::wire::{self, Extent, Frame, Kind, WireError};

/// Bytes that are made present at a time, so that a stop is noticed soon.
const POPULATE_BYTES: u64 = 16 << 20;
/// How often a stream that waits for the population looks at it.
const POPULATE_TICK: Duration = Duration::from_millis(1);

/// What is known of a region's pages.
struct Ledger {
    /// Came at least once.
    seen: bitmap::Shared,
    /// May hold something else than zeros.
    written: bitmap::Shared,
}

/// The memory while it is being filled.
pub(super) struct Rounds<'a> {
    machine: &'a dyn DestinationMachine,
    regions: &'a [Region],
    /// The same regions, if the source writes them one-sided.
    memory: Option<Vec<HostMemory>>,
    ledgers: Vec<Ledger>,
    control: &'a Control,
    timeouts: Timeouts,
    stopped: AtomicBool,
    populated: AtomicBool,
}

/// What a thread has to say: its stream and the pages received.
type Finished = Result<(u8, u64), DestinationError>;

/// The threads that fill the memory.
pub(super) struct Running {
    finished: Receiver<Finished>,
    streams: u8,
}

impl<'a> Rounds<'a> {
    pub fn new(
        machine: &'a dyn DestinationMachine,
        regions: &'a [Region],
        memory: Option<Vec<HostMemory>>,
        control: &'a Control,
        timeouts: Timeouts,
    ) -> Self {
        let zeroed = machine.is_zeroed();
        let ledger = |region: &Region| {
            let pages = region.bytes / PAGE_SIZE as u64;
            Ledger { seen: bitmap::Shared::new(pages, false), written: bitmap::Shared::new(pages, !zeroed) }
        };
        let ledgers = regions.iter().map(ledger).collect();
        // What one-sided writes go to has to be there; other pages come to be when they are written, and stay away if they hold zeros.
        let (stopped, populated) = (AtomicBool::new(false), AtomicBool::new(memory.is_none()));
        Self { machine, regions, memory, ledgers, control, timeouts, stopped, populated }
    }

    /// Ends all threads soon.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Lets threads be started anew after all were ended.
    pub fn go_on(&self) {
        self.stopped.store(false, Ordering::Release);
    }

    /// After a break of one-sided writes: any page may hold something that nobody told of.
    pub fn distrust(&self) {
        for (ledger, region) in self.ledgers.iter().zip(self.regions) {
            ledger.written.set(0..region.bytes / PAGE_SIZE as u64);
        }
    }

    /// The pages that came at least once, as bytes: bitmaps of whole words, region after region.
    pub fn held(&self) -> Vec<u8> {
        self.ledgers.iter().flat_map(|ledger| ledger.seen.snapshot()).flat_map(u64::to_le_bytes).collect()
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.control.is_cancelled()
    }

    /// Pages that never came.
    pub fn missing(&self) -> u64 {
        self.ledgers.iter().map(|ledger| ledger.seen.missing()).sum()
    }

    /// One thread for each stream, which begins in `round`, and, for one-sided writes, one that populates.
    pub fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        streams: Vec<Channel>,
        round: u32,
    ) -> Running {
        let (done, finished) = channel::<Finished>();
        let report = move |result: std::thread::Result<Finished>| {
            let result = result.unwrap_or(Err(DestinationError::ThreadLost));
            let failed = result.is_err();
            // Sent before the others are stopped, so that the cause is the first error found. Nobody may want it.
            let _ = done.send(result);
            if failed {
                self.stop();
            }
        };
        let count = streams.len() as u8;
        for (number, channel) in streams.into_iter().enumerate() {
            let report = report.clone();
            let mut stream = Stream {
                number: number as u8,
                channel,
                rounds: self,
                pages: 0,
                round,
                pages_in_hand: Vec::new(),
            };
            scope.spawn(move || report(catch_unwind(AssertUnwindSafe(|| stream.run()))));
        }
        if !self.populated.load(Ordering::Acquire) {
            scope.spawn(move || match catch_unwind(AssertUnwindSafe(|| self.populate())) {
                Ok(Ok(())) => self.populated.store(true, Ordering::Release),
                Ok(Err(error)) => report(Ok(Err(error))),
                Err(panic) => report(Err(panic)),
            });
        }
        Running { finished, streams: count }
    }

    fn populate(&self) -> Result<(), DestinationError> {
        for (index, region) in self.regions.iter().enumerate() {
            for offset in (0..region.bytes).step_by(POPULATE_BYTES as usize) {
                if self.is_stopped() {
                    return Ok(());
                }
                let bytes = POPULATE_BYTES.min(region.bytes - offset);
                self.machine.populate(index, offset, bytes).map_err(machine_failed("populate the memory"))?;
            }
        }
        Ok(())
    }

    /// Writes one frame's pages, which were checked to be inside the memory.
    fn write(&self, kind: Kind, extent: Extent, data: &[u8]) -> Result<(), DestinationError> {
        let index = extent.region as usize;
        let ledger = &self.ledgers[index];
        let pages = extent.first_page..extent.first_page + u64::from(extent.pages);
        ledger.seen.set(pages.clone());
        if kind == Kind::Data {
            ledger.written.set(pages);
            let written = self.machine.write_pages(index, extent.first_page, data);
            return written.map_err(machine_failed("write its memory"));
        }
        for dirty in ledger.written.take(pages) {
            let zeroed = self.machine.zero_pages(index, dirty.start, dirty.end - dirty.start);
            zeroed.map_err(machine_failed("write its memory"))?;
        }
        Ok(())
    }

    /// Compares pages that were written one-sided with their checksum, in the memory itself.
    fn verify(&self, extent: Extent, checksum: &[u8], pages: &mut Vec<u8>) -> Result<(), WireError> {
        let index = extent.region as usize;
        let Some(memory) = self.memory.as_ref().and_then(|memory| memory.get(index)) else {
            return Err(WireError::Unexpected { kind: Kind::Written, wanted: "without RDMA" });
        };
        // At most 64 pages, as the extent was checked.
        pages.resize(extent.pages as usize * PAGE_SIZE, 0);
        memory.read(extent.first_page as usize * PAGE_SIZE, pages);
        wire::verify_written(checksum, pages)?;
        let pages = extent.first_page..extent.first_page + u64::from(extent.pages);
        self.ledgers[index].seen.set(pages.clone());
        self.ledgers[index].written.set(pages);
        Ok(())
    }
}

impl Running {
    /// Waits until every stream is through its last round; gives the pages of each. After a stop, or when the streams
    /// make no end within `limit`, it gives the first error.
    pub fn finish(self, rounds: &Rounds, limit: Duration) -> Result<Vec<u64>, DestinationError> {
        let mut pages = vec![0; usize::from(self.streams)];
        let start = clock::now();
        let mut missing = pages.len();
        while missing > 0 {
            match self.finished.recv_timeout(limit.saturating_sub(start.elapsed())) {
                Ok(Ok((stream, received))) => {
                    pages[usize::from(stream)] = received;
                    missing -= 1;
                }
                Ok(Err(error)) => {
                    rounds.stop();
                    return Err(error);
                }
                Err(RecvTimeoutError::Timeout) => {
                    rounds.stop();
                    let doing = "end their last round";
                    return Err(DestinationError::StreamsMissing { missing, streams: self.streams, doing });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(DestinationError::ThreadLost),
            }
        }
        Ok(pages)
    }
}

/// One page stream.
struct Stream<'a> {
    number: u8,
    channel: Channel,
    rounds: &'a Rounds<'a>,
    pages: u64,
    round: u32,
    /// Unpacked, or read back.
    pages_in_hand: Vec<u8>,
}

impl Stream<'_> {
    fn run(&mut self) -> Finished {
        let rounds = self.rounds;
        let stop = || rounds.is_stopped();
        let kinds: &[Kind] = match rounds.memory {
            None => &[Kind::Data, Kind::Packed, Kind::Zero, Kind::RoundEnd],
            Some(_) => &[Kind::Written, Kind::Zero, Kind::RoundEnd],
        };
        loop {
            // A stream may be idle for long while others work; the control connection tells whether the source lives.
            let expect = Expect { kinds, phase: "in a round", silence: rounds.timeouts.session, stop: &stop };
            let number = self.number;
            let failed = |source| DestinationError::Stream { stream: number, source };
            let (kind, body) = match self.channel.receive_raw(expect) {
                Err(ChannelError::Transport(TransportError::Stopped)) => {
                    return Err(DestinationError::Cancelled);
                }
                other => other.map_err(failed)?,
            };
            if kind == Kind::RoundEnd {
                let end = Frame::decode(kind, body).map_err(|error| failed(error.into()))?;
                if self.end_round(&end)? {
                    return Ok((self.number, self.pages));
                }
                continue;
            }
            let (extent, data) = Extent::decode(kind, body, rounds.regions)
                .map_err(|error: WireError| failed(error.into()))?;
            match kind {
                Kind::Packed => {
                    let pages = wire::unpack(extent, data, &mut self.pages_in_hand);
                    rounds.write(Kind::Data, extent, pages.map_err(|error| failed(error.into()))?)?;
                }
                Kind::Written => {
                    let verified = rounds.verify(extent, data, &mut self.pages_in_hand);
                    verified.map_err(|error| failed(error.into()))?;
                }
                _ => rounds.write(kind, extent, data)?,
            }
            self.pages += u64::from(extent.pages);
        }
    }

    /// Checks the mark and answers it; tells whether it was the last one.
    fn end_round(&mut self, end: &Frame) -> Result<bool, DestinationError> {
        let &Frame::RoundEnd { round, last, pages: sent } = end else { return Ok(false) };
        if round != self.round || sent != self.pages {
            let (expected, received) = (self.round, self.pages);
            return Err(DestinationError::Miscounted {
                stream: self.number,
                round,
                expected,
                sent,
                received,
            });
        }
        // Nothing may be left to populate in the blackout, so the first round is over when that is.
        self.await_population(last)?;
        if last {
            return Ok(true);
        }
        // Without the control connection there is nothing to go on to: acknowledged, the source would pause and find out only then.
        if self.rounds.is_stopped() {
            return Err(DestinationError::Cancelled);
        }
        self.answer(&Frame::RoundAck { round, pages: sent })?;
        self.round += 1;
        Ok(false)
    }

    fn await_population(&mut self, last: bool) -> Result<(), DestinationError> {
        let mut spoken = clock::now();
        while !self.rounds.populated.load(Ordering::Acquire) {
            if self.rounds.is_stopped() {
                return Err(DestinationError::Cancelled);
            }
            if !last && spoken.elapsed() >= self.rounds.timeouts.keep_alive {
                spoken = clock::now();
                self.answer(&Frame::KeepAlive)?;
            }
            clock::sleep(POPULATE_TICK);
        }
        Ok(())
    }

    fn answer(&mut self, frame: &Frame) -> Result<(), DestinationError> {
        let rounds = self.rounds;
        let sent = self.channel.send(frame, &|| rounds.is_stopped());
        sent.map(|_| ()).map_err(|source| DestinationError::Stream { stream: self.number, source })
    }
}
