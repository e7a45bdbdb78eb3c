//! Whether the pages of a round are packed: samples them and compares with what the link carries.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::stream::{Round, Shared};
use crate::bitmap;
use crate::codec::{self, Codec, Compression, PLAIN_BYTES_PER_S_MAX};
use crate::partition::{PAGE_SIZE, SourceMachine};
use crate::policy;
use crate::report::{Request, RoundReport};
use crate::transport::Transport;

/// Pieces of a sample, spread over the round.
const PIECES: usize = 16;
/// Pages of a piece.
const PIECE_PAGES: u64 = 8;
/// Time after which the first round tells what the link carries.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// The choice for one round.
pub(super) struct Packing<'a> {
    machine: &'a dyn SourceMachine,
    request: &'a Request,
    shared: &'a Shared<'a>,
    round: &'a Round,
    sent_before: u64,
    decided: bool,
}

impl<'a> Packing<'a> {
    /// Nothing is decided yet: the codec of the round before stays.
    pub fn new(
        machine: &'a dyn SourceMachine,
        request: &'a Request,
        shared: &'a Shared<'a>,
        round: &'a Round,
    ) -> Self {
        Self { machine, request, shared, round, sent_before: shared.sent_bytes(), decided: false }
    }

    /// Decides at once if it is fixed, or if earlier rounds told what the link carries.
    pub fn at_the_beginning(&mut self, rounds: &[RoundReport]) {
        if self.request.transport == Transport::Rdma {
            return self.decide(None);
        }
        match self.request.compression {
            Compression::None => self.decide(None),
            Compression::Lz4 => self.decide(Some(Codec::Lz4)),
            Compression::Zstd => self.decide(Some(Codec::Zstd)),
            Compression::Auto => {
                if let Some(link_bytes_per_s) =
                    policy::link(rounds.iter().map(|round| (round.bytes, round.seconds)))
                {
                    self.choose(link_bytes_per_s);
                }
            }
        }
    }

    /// Decides as soon as a cap or this round itself has told: little that takes long is a busy machine rather than a slow
    /// link.
    pub fn look(&mut self, elapsed: Duration) {
        let sent = self.shared.sent_bytes() - self.sent_before;
        let told = sent >= policy::BYTES_TO_MEASURE || self.shared.cap().is_some();
        if !self.decided && elapsed >= FIRST_LOOK && told {
            self.choose(sent as f64 / elapsed.as_secs_f64());
        }
    }

    fn decide(&mut self, codec: Option<Codec>) {
        self.decided = true;
        self.shared.set_codec(codec);
    }

    /// `link_bytes_per_s` is what went out; a cap below it counts instead.
    fn choose(&mut self, link_bytes_per_s: f64) {
        let cap = self.shared.cap().map_or(f64::INFINITY, |cap| cap as f64);
        let link_bytes_per_s = link_bytes_per_s.min(cap);
        if link_bytes_per_s > PLAIN_BYTES_PER_S_MAX {
            return self.decide(None);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = cores.min(self.request.streams.into());
        // A panic of the machine's code comes up in a stream as well, which ends the migration in order.
        let sample = catch_unwind(AssertUnwindSafe(|| self.sample())).unwrap_or_default();
        self.decide(codec::choose(&codec::estimate(&sample), link_bytes_per_s, cores));
    }

    /// Pages of the round with data in them. A page that cannot be read here will fail where it is sent.
    fn sample(&self) -> Vec<Vec<u8>> {
        let chunks = self.round.chunks();
        let step = chunks.len().div_ceil(PIECES).max(1);
        let read = |(region, first_page, words): (usize, u64, &[u64])| {
            let pages = bitmap::runs(words, first_page, PIECE_PAGES).next()?;
            let mut piece = vec![0; (pages.end - pages.start) as usize * PAGE_SIZE];
            self.machine.read_pages(region, pages.start, &mut piece).ok()?;
            Some(piece).filter(|piece| !bitmap::is_zero(piece))
        };
        chunks.step_by(step).filter_map(read).collect()
    }
}
