//! Program output on its way to users: every stream in order and once, bounded in memory.
//!
//! Agents repeat a piece until the position after it is acknowledged. A piece after a gap (the rest of a stream is still at
//! the host that the partition left) is not taken until the gap is filled, nor is one that would push out output which a
//! waiting client has not read: the agents' buffers fill, and the program waits.

use std::collections::{BTreeMap, VecDeque};

use control::{Bytes, Epoch, OutputChunk, OutputEntry, Rank, Stream};

/// Bytes kept per application.
pub const LOG_BYTES_MAX: usize = 8 << 20;
/// After this long a gap is given up: the host that had the bytes is gone.
const GAP_MS_MAX: u64 = 5_000;
/// A client that has not asked for this long is gone.
const WAITER_MS_MAX: u64 = 30_000;
const WAITERS_MAX: usize = 64;

/// Which stream: the VMM's own lines count anew in each process.
type Key = (Rank, Stream, Epoch);

#[derive(Clone, Copy, Debug, Default)]
struct Track {
    next: Option<u64>,
    gap_since_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    cursor: u64,
    asked_ms: u64,
}

/// The output of one application.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: VecDeque<OutputEntry>,
    bytes: usize,
    /// Position of the first kept entry.
    first: u64,
    streams: BTreeMap<Key, Track>,
    waiters: BTreeMap<String, Waiter>,
    /// Earlier output went to an earlier run of the coordinator: streams begin wherever they are.
    resumed: bool,
    truncated: bool,
}

impl Log {
    /// Nothing yet. `resumed` if the application was there before the coordinator was started.
    pub fn new(resumed: bool) -> Self {
        Self { resumed, truncated: resumed, ..Self::default() }
    }

    /// Takes what is new in a piece. Returns the position that its stream has now.
    pub fn accept(&mut self, now_ms: u64, chunk: &OutputChunk) -> u64 {
        let epoch = if chunk.stream == Stream::Vmm { chunk.epoch } else { 0 };
        let key = (chunk.rank, chunk.stream, epoch);
        let mut track = self.streams.get(&key).copied().unwrap_or_default();
        let begin = if self.resumed { chunk.offset } else { 0 };
        let next = *track.next.get_or_insert(begin);
        let end = chunk.offset.saturating_add(chunk.data.0.len() as u64);
        if chunk.offset > next {
            let since = *track.gap_since_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since) < GAP_MS_MAX {
                self.streams.insert(key, track);
                return next;
            }
            self.truncated = true;
        }
        let known = usize::try_from(next.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
        let news = chunk.data.0.get(known..).unwrap_or_default();
        if !news.is_empty() {
            if !self.make_room(now_ms, news.len()) {
                self.streams.insert(key, track);
                return next;
            }
            self.bytes += news.len();
            self.entries.push_back(OutputEntry {
                rank: chunk.rank,
                stream: chunk.stream,
                epoch: chunk.epoch,
                offset: next.max(chunk.offset),
                data: Bytes(news.to_vec()),
            });
        }
        track = Track { next: Some(next.max(end)), gap_since_ms: None };
        self.streams.insert(key, track);
        next.max(end)
    }

    fn make_room(&mut self, now_ms: u64, bytes: usize) -> bool {
        self.waiters.retain(|_, waiter| now_ms.saturating_sub(waiter.asked_ms) < WAITER_MS_MAX);
        let read = self.waiters.values().map(|waiter| waiter.cursor).min().unwrap_or(u64::MAX);
        while self.bytes + bytes > LOG_BYTES_MAX {
            if self.first >= read {
                return false;
            }
            let Some(entry) = self.entries.pop_front() else { return false };
            self.bytes -= entry.data.0.len();
            self.first += 1;
            self.truncated = true;
        }
        true
    }

    /// Output after `cursor` (0: from the beginning), about `bytes_max` of it; the cursor after it; whether older output that
    /// was asked for is gone. `waiter` names a client for which output is kept until it has asked for what follows.
    pub fn read(
        &mut self,
        now_ms: u64,
        waiter: Option<&str>,
        cursor: u64,
        bytes_max: usize,
    ) -> (Vec<OutputEntry>, u64, bool) {
        let truncated = cursor < self.first || (cursor == 0 && self.truncated);
        let cursor = cursor.clamp(self.first, self.first + self.entries.len() as u64);
        if let Some(name) =
            waiter.filter(|name| self.waiters.len() < WAITERS_MAX || self.waiters.contains_key(*name))
        {
            self.waiters.insert(name.to_owned(), Waiter { cursor, asked_ms: now_ms });
        }
        let skip = usize::try_from(cursor - self.first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let within = |entry: &&OutputEntry| {
            let fits = bytes < bytes_max;
            bytes += entry.data.0.len();
            fits
        };
        let entries: Vec<OutputEntry> = self.entries.iter().skip(skip).take_while(within).cloned().collect();
        let next = cursor + entries.len() as u64;
        (entries, next, truncated)
    }

    /// Is there output after `cursor`?
    pub fn has_after(&self, cursor: u64) -> bool {
        self.first + self.entries.len() as u64 > cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(epoch: Epoch, offset: u64, text: &[u8]) -> Result<OutputChunk, control::IdError> {
        Ok(OutputChunk {
            application: "a-1".parse()?,
            rank: 0,
            epoch,
            stream: Stream::Stdout,
            offset,
            data: Bytes(text.to_vec()),
        })
    }

    fn text(log: &mut Log) -> String {
        let (entries, _, _) = log.read(0, None, 0, usize::MAX);
        let bytes: Vec<u8> = entries.into_iter().flat_map(|entry| entry.data.0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn repeated_overlapping_and_early_pieces_give_the_stream_once_and_in_order()
    -> Result<(), control::IdError> {
        let mut log = Log::new(false);
        assert_eq!(log.accept(0, &chunk(1, 0, b"abc")?), 3);
        assert_eq!(log.accept(0, &chunk(2, 6, b"ghi")?), 3, "the destination is ahead of the source's rest");
        assert_eq!(log.accept(1, &chunk(1, 0, b"abcdef")?), 6);
        assert_eq!(log.accept(1, &chunk(2, 6, b"ghi")?), 9);
        assert_eq!(log.accept(2, &chunk(2, 6, b"ghi")?), 9);
        assert_eq!(text(&mut log), "abcdefghi");
        assert_eq!(log.accept(10, &chunk(2, 20, b"z")?), 9);
        assert_eq!(log.accept(10 + GAP_MS_MAX, &chunk(2, 20, b"z")?), 21, "a gap that stays is given up");
        Ok(())
    }

    #[test]
    fn a_waiting_client_loses_nothing_and_memory_stays_bounded() -> Result<(), control::IdError> {
        let mut log = Log::new(false);
        let piece = vec![b'x'; 1 << 20];
        let (_, cursor, _) = log.read(0, Some("w"), 0, 1);
        let mut offset = 0;
        while log.accept(1, &chunk(1, offset, &piece)?) > offset {
            offset += piece.len() as u64;
        }
        assert_eq!(offset as usize, LOG_BYTES_MAX, "full: the next piece is not taken");
        let (entries, cursor, truncated) = log.read(1, Some("w"), cursor, 1);
        assert!(entries.len() == 1 && !truncated);
        let _ = log.read(1, Some("w"), cursor, 1);
        assert!(log.accept(2, &chunk(1, offset, &piece)?) > offset, "room was made by reading");
        offset += piece.len() as u64;
        let later = 2 * WAITER_MS_MAX;
        assert!(
            log.accept(later, &chunk(1, offset, &piece)?) > offset,
            "a client that is gone holds nothing up"
        );
        assert!(log.read(later, None, 0, 1).2, "and what was dropped is said");
        Ok(())
    }
}
