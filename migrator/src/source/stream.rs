//! One page stream of the source: takes chunks of a round, clears, reads, tells zero pages, sends.

mod onesided;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use partita_rdma::Window;

use super::{Control, SourceError, machine_failed};
use crate::bitmap;
use crate::channel::{Channel, ChannelError, Expect};
use crate::clock;
use crate::codec::Codec;
use crate::pace::{self, Bucket};
use crate::partition::{PAGE_SIZE, SourceMachine};
use crate::policy;
use crate::transport::{Stop, TransportError};
use crate::wire::{
    self, CODEC_BYTES, DATA_PAGES_MAX, EXTENT_BYTES, Extent, Frame, Header, Kind, WireError, ZERO_PAGES_MAX,
};

use onesided::{OneSided, SLOT_PAGES};

/// Words a chunk may span: 64 MiB of memory, so that clearing the log in one call stays short.
const CHUNK_WORDS_MAX: usize = 256;
/// Data runs up to this length are copied together into one write.
const SMALL_RUN_BYTES: usize = 16 * PAGE_SIZE;
/// Pages packed together at least, also under a small cap: fewer pack badly.
const PACKED_PAGES_MIN: usize = 16;
/// Bytes collected before they are written.
const PENDING_BYTES_MAX: usize = 256 * 1024;
/// How long a stream sleeps under the cap before it looks whether it should stop.
const NAP_MAX: Duration = Duration::from_millis(20);

/// What all streams of a migration share.
pub(super) struct Shared<'a> {
    /// Ends every stream soon.
    pub stop: AtomicBool,
    /// The cap no longer counts.
    pub lifted: AtomicBool,
    control: &'a Control,
    requested_bytes_per_s: Option<u64>,
    bucket: Mutex<Bucket>,
    /// Number of the codec, 0 for none.
    codec: AtomicU32,
    sent_bytes: AtomicU64,
    started: Instant,
    gate: Mutex<()>,
}

impl<'a> Shared<'a> {
    pub fn new(control: &'a Control, requested_bytes_per_s: Option<u64>) -> Self {
        Self {
            stop: AtomicBool::new(false),
            lifted: AtomicBool::new(false),
            control,
            requested_bytes_per_s,
            bucket: Mutex::new(Bucket::default()),
            codec: AtomicU32::new(0),
            sent_bytes: AtomicU64::new(0),
            started: clock::now(),
            gate: Mutex::new(()),
        }
    }

    /// How pages are packed from now on.
    pub fn set_codec(&self, codec: Option<Codec>) {
        self.codec.store(codec.map_or(0, |codec| codec as u32), Ordering::Relaxed);
    }

    pub fn codec(&self) -> Option<Codec> {
        Codec::from_number(self.codec.load(Ordering::Relaxed)).ok()
    }

    /// Bytes handed to all connections so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// The cap now, bytes per second.
    pub fn cap(&self) -> Option<u64> {
        let cap = self.control.bandwidth(self.requested_bytes_per_s);
        cap.filter(|_| !self.lifted.load(Ordering::Acquire))
    }

    /// Runs a verb of the machine that must not run beside another one.
    pub fn exclusively<T>(&self, verb: impl FnOnce() -> T) -> T {
        let _held = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        verb()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits until the cap allows `bytes` to go.
    fn pace(&self, bytes: usize) {
        let Some(cap) = self.cap() else { return };
        let now = self.started.elapsed();
        let wait = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).book(now, bytes as u64, cap);
        let until = now.saturating_add(wait);
        // A cap that was raised or lifted meanwhile is noticed after a nap.
        while !self.stopped() && self.cap().is_some_and(|now| now <= cap) {
            match until.saturating_sub(self.started.elapsed()) {
                Duration::ZERO => return,
                left => clock::sleep(left.min(NAP_MAX)),
            }
        }
    }

    /// Most bytes to hand to the connection at a time.
    fn piece_bytes(&self) -> usize {
        self.cap().map_or(PENDING_BYTES_MAX, pace::piece_bytes).clamp(PAGE_SIZE, PENDING_BYTES_MAX)
    }
}

/// The pages of one round, cut into chunks that the streams take one after another.
pub(super) struct Round {
    number: u32,
    last: bool,
    bitmaps: Vec<Vec<u64>>,
    chunks: Vec<(usize, Range<usize>)>,
    taken: AtomicUsize,
    begun: Instant,
    /// For each chunk, when its pages were cleared in the dirty log: microseconds since `begun`, plus one.
    cleared_us: Vec<AtomicU64>,
}

impl Round {
    pub fn new(number: u32, last: bool, bitmaps: Vec<Vec<u64>>, streams: u8) -> Self {
        let pages = bitmaps.iter().map(|bitmap| bitmap::count(bitmap)).sum();
        let target = policy::chunk_pages(pages, streams);
        let cut = |(region, bitmap): (usize, &Vec<u64>)| {
            bitmap::chunks(bitmap, target, CHUNK_WORDS_MAX).into_iter().map(move |words| (region, words))
        };
        let chunks: Vec<_> = bitmaps.iter().enumerate().flat_map(cut).collect();
        let cleared_us = chunks.iter().map(|_| AtomicU64::new(0)).collect();
        let (taken, begun) = (AtomicUsize::new(0), clock::now());
        Self { number, last, bitmaps, chunks, taken, begun, cleared_us }
    }

    /// A chunk's number, region, first page and the bitmap from there on.
    fn take(&self) -> Option<(usize, usize, u64, &[u64])> {
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        let (region, words) = self.chunks.get(index)?;
        Some((index, *region, words.start as u64 * 64, &self.bitmaps[*region][words.clone()]))
    }

    fn note_cleared(&self, chunk: usize) {
        let us = self.begun.elapsed().as_micros() as u64;
        self.cleared_us[chunk].store(us + 1, Ordering::Relaxed);
    }

    /// The chunks whose pages were cleared by now, and for how long they have been: number, region and words of its bitmap.
    pub fn cleared(&self) -> impl Iterator<Item = (usize, usize, Range<usize>, Duration)> {
        let now_us = self.begun.elapsed().as_micros() as u64;
        self.chunks.iter().zip(&self.cleared_us).enumerate().filter_map(move |(index, (chunk, cleared))| {
            let at_us = cleared.load(Ordering::Relaxed).checked_sub(1)?;
            let age = Duration::from_micros(now_us.saturating_sub(at_us));
            Some((index, chunk.0, chunk.1.clone(), age))
        })
    }

    /// All of them: region, first page and the bitmap from there on.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = (usize, u64, &[u64])> {
        self.chunks
            .iter()
            .map(|(region, words)| (*region, words.start as u64 * 64, &self.bitmaps[*region][words.clone()]))
    }
}

/// What a stream sent in a round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub pages: u64,
    pub zero_pages: u64,
    pub packed_pages: u64,
    pub bytes: u64,
    /// From the round's end to its acknowledgement: a round trip at least. None in the last round.
    pub acknowledged_in: Option<Duration>,
}

/// One page stream.
pub(super) struct PageStream<'a> {
    number: u8,
    channel: Channel,
    machine: &'a dyn SourceMachine,
    shared: &'a Shared<'a>,
    silence: Duration,
    /// Where pages go, if not into frames.
    one_sided: Option<OneSided>,
    scratch: Vec<u8>,
    packed: Vec<u8>,
    pending: Vec<u8>,
    zeros: Option<Extent>,
    pages_total: u64,
    sent: Sent,
}

impl<'a> PageStream<'a> {
    pub fn new(
        number: u8,
        channel: Channel,
        machine: &'a dyn SourceMachine,
        shared: &'a Shared<'a>,
        silence: Duration,
    ) -> Self {
        Self {
            number,
            channel,
            machine,
            shared,
            silence,
            one_sided: None,
            scratch: vec![0; DATA_PAGES_MAX as usize * PAGE_SIZE],
            packed: Vec::new(),
            pending: Vec::with_capacity(PENDING_BYTES_MAX + SMALL_RUN_BYTES + 1024),
            zeros: None,
            pages_total: 0,
            sent: Sent::default(),
        }
    }

    /// Its number, from 0.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Has pages written one-sided from now on, into `window`; gives the provider, and whether it proves by delivery-complete.
    pub fn connect_writer(
        &mut self,
        window: &Window,
        insecure: bool,
        stop: Stop,
    ) -> Result<(String, bool), ChannelError> {
        let ip = self.channel.rdma_address(insecure)?;
        let one_sided = self.one_sided.insert(OneSided::connect(ip, window, self.silence, stop)?);
        let (provider, delivery_complete) = one_sided.provider();
        Ok((provider.to_owned(), delivery_complete))
    }

    /// Sends its share of `round`; returns when the destination has it, in the last round when the kernel has it.
    pub fn run(&mut self, round: &Round) -> Result<Sent, SourceError> {
        self.sent = Sent::default();
        while let Some((chunk, region, first_page, words)) = round.take() {
            if !round.last {
                // Cleared before it is read: what is written in between is sent twice, never missed.
                let cleared = self.shared.exclusively(|| {
                    let cleared = self.machine.clear_dirty(region, first_page, words);
                    round.note_cleared(chunk);
                    cleared
                });
                cleared.map_err(machine_failed("clear the dirty log"))?;
            }
            if round.number > 0 {
                self.send_pages(region, first_page, words)?;
                continue;
            }
            let mut touched = words.to_vec();
            let kept = self.machine.keep_touched(region, first_page, &mut touched);
            kept.map_err(machine_failed("tell which pages it has"))?;
            let untouched: Vec<u64> =
                words.iter().zip(&touched).map(|(all, touched)| all & !touched).collect();
            for pages in bitmap::runs(&untouched, first_page, ZERO_PAGES_MAX.into()) {
                let count = (pages.end - pages.start) as u32;
                self.sent.pages += u64::from(count);
                let extent = Extent { region: region as u32, pages: count, first_page: pages.start };
                self.send_zeros(extent).map_err(|error| self.failed(error))?;
            }
            self.send_pages(region, first_page, &touched)?;
        }
        self.end_round(round).map_err(|error| self.failed(error))?;
        self.pages_total += self.sent.pages;
        Ok(self.sent)
    }

    fn failed(&self, source: ChannelError) -> SourceError {
        SourceError::Stream { stream: self.number, source }
    }

    fn end_round(&mut self, round: &Round) -> Result<(), ChannelError> {
        if let Some(mut one_sided) = self.one_sided.take() {
            self.drain(&mut one_sided)?;
            self.one_sided = Some(one_sided);
        }
        self.flush_zeros()?;
        let pages = self.pages_total + self.sent.pages;
        let end = Frame::RoundEnd { round: round.number, last: round.last, pages }.encode()?;
        self.pending.extend(&end);
        // Before the write: the answer may be there when this thread runs again after it.
        let ended = clock::now();
        self.flush(0)?;
        if round.last {
            return Ok(());
        }
        let shared = self.shared;
        loop {
            let expect = Expect {
                kinds: &[Kind::RoundAck, Kind::KeepAlive],
                phase: "waiting for ROUND_ACK",
                silence: self.silence,
                stop: &|| shared.stopped(),
            };
            match self.channel.receive(expect)? {
                Frame::RoundAck { round: number, pages: received }
                    if (number, received) == (round.number, pages) =>
                {
                    self.sent.acknowledged_in = Some(ended.elapsed());
                    return Ok(());
                }
                Frame::KeepAlive => {}
                other => {
                    let wanted = "for this round and number of pages";
                    return Err(WireError::Unexpected { kind: other.kind(), wanted }.into());
                }
            }
        }
    }

    /// Sends the pages of a bitmap that begins at `first_page`.
    fn send_pages(&mut self, region: usize, first_page: u64, words: &[u64]) -> Result<(), SourceError> {
        let run_pages = if self.one_sided.is_some() { SLOT_PAGES } else { DATA_PAGES_MAX.into() };
        bitmap::runs(words, first_page, run_pages).try_for_each(|pages| self.send_run(region, pages))
    }

    /// Reads a run of pages and sends its parts of data and of zeros.
    fn send_run(&mut self, region: usize, pages: Range<u64>) -> Result<(), SourceError> {
        if self.shared.stopped() {
            return Err(self.failed(TransportError::Stopped.into()));
        }
        if let Some(mut one_sided) = self.one_sided.take() {
            let written = self.write_run(&mut one_sided, region, pages);
            self.one_sided = Some(one_sided);
            return written;
        }
        let bytes = (pages.end - pages.start) as usize * PAGE_SIZE;
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = self.machine.read_pages(region, pages.start, &mut scratch[..bytes]);
        let sent = read.map_err(machine_failed("read its memory")).and_then(|()| {
            self.send_parts(region, pages.start, &scratch[..bytes]).map_err(|error| self.failed(error))
        });
        self.scratch = scratch;
        sent
    }

    fn send_parts(&mut self, region: usize, first_page: u64, run: &[u8]) -> Result<(), ChannelError> {
        for (zero, extent) in parts(region, first_page, run) {
            self.sent.pages += u64::from(extent.pages);
            let first_byte = (extent.first_page - first_page) as usize * PAGE_SIZE;
            if zero {
                self.send_zeros(extent)?
            } else {
                self.send_data(extent, &run[first_byte..first_byte + extent.pages as usize * PAGE_SIZE])?
            }
        }
        Ok(())
    }

    /// Collects zero pages into long runs; they are sent when the run ends.
    fn send_zeros(&mut self, extent: Extent) -> Result<(), ChannelError> {
        self.sent.zero_pages += u64::from(extent.pages);
        if let Some(zeros) = &mut self.zeros
            && zeros.region == extent.region
            && zeros.first_page + u64::from(zeros.pages) == extent.first_page
            && zeros.pages + extent.pages <= ZERO_PAGES_MAX
        {
            zeros.pages += extent.pages;
            return Ok(());
        }
        self.flush_zeros()?;
        self.zeros = Some(extent);
        Ok(())
    }

    fn flush_zeros(&mut self) -> Result<(), ChannelError> {
        if let Some(extent) = self.zeros.take() {
            let extent = extent.encode();
            self.pending.extend(Header::seal(Kind::Zero, &extent, &[])?);
            self.pending.extend(extent);
            self.flush(self.shared.piece_bytes())?;
        }
        Ok(())
    }

    /// Sends pages, in as many frames as the cap makes of them.
    fn send_data(&mut self, extent: Extent, data: &[u8]) -> Result<(), ChannelError> {
        let (piece_bytes, codec) = (self.shared.piece_bytes(), self.shared.codec());
        let pages = (piece_bytes / PAGE_SIZE).max(if codec.is_some() { PACKED_PAGES_MIN } else { 1 });
        for (number, data) in data.chunks(pages * PAGE_SIZE).enumerate() {
            let extent = Extent {
                pages: (data.len() / PAGE_SIZE) as u32,
                first_page: extent.first_page + (number * pages) as u64,
                ..extent
            };
            if let Some(codec) = codec
                && let Some(bytes) = codec.pack(data, &mut self.packed)
            {
                self.send_packed(extent, codec, bytes)?;
                continue;
            }
            let extent = extent.encode();
            self.pending.extend(Header::seal(Kind::Data, &extent, data)?);
            self.pending.extend(extent);
            if data.len() <= SMALL_RUN_BYTES {
                self.pending.extend(data);
                self.flush(piece_bytes)?;
            } else {
                self.write(data)?;
            }
        }
        Ok(())
    }

    /// Sends the first `bytes` of what was packed.
    fn send_packed(&mut self, extent: Extent, codec: Codec, bytes: usize) -> Result<(), ChannelError> {
        self.sent.packed_pages += u64::from(extent.pages);
        let mut head = [0; EXTENT_BYTES + CODEC_BYTES];
        head[..EXTENT_BYTES].copy_from_slice(&extent.encode());
        head[EXTENT_BYTES..].copy_from_slice(&wire::encode_codec(codec));
        self.pending.extend(Header::seal(Kind::Packed, &head, &self.packed[..bytes])?);
        self.pending.extend(head);
        self.pending.extend(&self.packed[..bytes]);
        self.flush(self.shared.piece_bytes())
    }

    /// Writes what is pending if it is more than `allowed` bytes.
    fn flush(&mut self, allowed: usize) -> Result<(), ChannelError> {
        if self.pending.len() > allowed { self.write(&[]) } else { Ok(()) }
    }

    /// Waits until the cap allows `bytes` to go, and counts them.
    fn book(&mut self, bytes: usize) {
        self.shared.pace(bytes);
        self.sent.bytes += bytes as u64;
        self.shared.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn write(&mut self, data: &[u8]) -> Result<(), ChannelError> {
        let shared = self.shared;
        self.book(self.pending.len() + data.len());
        self.channel.send_encoded(&self.pending, data, &|| shared.stopped())?;
        self.pending.clear();
        Ok(())
    }

    /// Pages sent since the stream's start.
    pub fn pages_total(&self) -> u64 {
        self.pages_total
    }
}

/// The parts of a run of pages, in order: whether all of it is zeros, and where it is.
fn parts(region: usize, first_page: u64, run: &[u8]) -> Vec<(bool, Extent)> {
    let zero: Vec<bool> = run.chunks_exact(PAGE_SIZE).map(bitmap::is_zero).collect();
    let mut first_page = first_page;
    let part = |part: &[bool]| {
        let extent = Extent { region: region as u32, pages: part.len() as u32, first_page };
        first_page += part.len() as u64;
        (part[0], extent)
    };
    zero.chunk_by(|left, right| left == right).map(part).collect()
}
