//! Content of files: runs of pages in the partition's file area, which the guest cannot reach and which moves as its memory does.
//!
//! What lies in a file's pages behind its end, and in pages that belong to no file, is zero.

use libc::{EFBIG, EIO, ENOSPC};
use partita_abi::PAGE_SIZE;
use serde::{Deserialize, Serialize};

use super::Errno;
use crate::memory::{FILE_AREA_BYTES, FILES_BASE, Memory};

/// A file that grows gets a quarter of what it has in addition, in one piece where there is one, but no more pages than this.
const SPARE_PAGES_MAX: u32 = 256;

/// Consecutive pages of the file area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    first: u32,
    pages: u32,
}

impl Run {
    /// The page behind it; beyond any area if it comes from somebody who lies.
    pub fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.pages)
    }

    fn address(self) -> u64 {
        FILES_BASE + u64::from(self.first) * PAGE_SIZE
    }

    fn bytes(self) -> u64 {
        u64::from(self.pages) * PAGE_SIZE
    }
}

/// The pages between `used`, in ascending order. None if two of them overlap or one does not lie in the area.
pub fn free(mut used: Vec<Run>) -> Option<Vec<Run>> {
    used.sort_unstable();
    let mut gaps = Vec::new();
    let mut from = 0;
    let area = FILE_AREA_BYTES / PAGE_SIZE;
    let sentinel = Run { first: area as u32, pages: 0 };
    for run in used.into_iter().chain([sentinel]) {
        let gap = run.first.checked_sub(from)?;
        if gap > 0 {
            gaps.push(Run { first: from, pages: gap });
        }
        from = u32::try_from(run.end()).ok()?;
    }
    (u64::from(from) == area).then_some(gaps)
}

/// Where the bytes of one file are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    runs: Vec<Run>,
    bytes: u64,
}

impl Content {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its pages.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn room(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes()).sum()
    }

    /// Whether it has pages for all of its bytes, which a saved state may deny. Its runs lie in the area.
    pub fn is_whole(&self) -> bool {
        self.runs.iter().all(|run| run.pages > 0) && self.bytes <= self.room()
    }

    /// Whether it has to be given pages to have `bytes`.
    pub fn lacks(&self, bytes: u64) -> bool {
        bytes > self.room()
    }

    /// Takes pages of `free` until it has room for `bytes`, or a little more: behind its last one if they are free, else the
    /// first ones. Nothing is taken if there are too few.
    pub fn grow(&mut self, bytes: u64, mut free: Vec<Run>) -> Result<(), Errno> {
        let have = (self.room() / PAGE_SIZE) as u32;
        let needed = u32::try_from(bytes.div_ceil(PAGE_SIZE)).map_err(|_| EFBIG)?.saturating_sub(have);
        let available: u32 = free.iter().map(|run| run.pages).sum();
        if needed > available {
            return Err(ENOSPC);
        }
        let end = self.runs.last().map(|run| run.end());
        if let Some(behind) = free.iter().position(|run| Some(u64::from(run.first)) == end) {
            free[..=behind].rotate_right(1);
        }
        let mut wanted = needed.max((have / 4).min(SPARE_PAGES_MAX)).min(available);
        for gap in free {
            let pages = gap.pages.min(wanted);
            match self.runs.last_mut() {
                _ if pages == 0 => break,
                Some(last) if last.end() == u64::from(gap.first) => last.pages += pages,
                _ => self.runs.push(Run { first: gap.first, pages }),
            }
            wanted -= pages;
        }
        Ok(())
    }

    /// Sets its length; for a longer one it must have been [grown](Self::grow). Pages that it does not need are given up.
    pub fn resize(&mut self, memory: &Memory, bytes: u64) -> Result<(), Errno> {
        if bytes < self.bytes {
            let mut kept = bytes.div_ceil(PAGE_SIZE);
            let tail = kept * PAGE_SIZE - bytes;
            self.write(memory, bytes, &[0; PAGE_SIZE as usize][..tail as usize])?;
            for run in &mut self.runs {
                let keep = u64::from(run.pages).min(kept);
                kept -= keep;
                let given_up = Run { first: run.first + keep as u32, pages: run.pages - keep as u32 };
                if given_up.pages > 0 {
                    memory.release(given_up.address(), given_up.bytes()).map_err(|_| EIO)?;
                }
                run.pages = keep as u32;
            }
            self.runs.retain(|run| run.pages > 0);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Calls `act` with the address in the file area, and with the place in `length`, of every piece of the bytes from `at` on.
    fn pieces(
        &self,
        at: u64,
        length: usize,
        mut act: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let (mut begin, mut done) = (0, 0);
        for run in &self.runs {
            let skip = (at + done as u64).saturating_sub(begin);
            if skip < run.bytes() {
                let piece = ((run.bytes() - skip) as usize).min(length - done);
                act(run.address() + skip, done..done + piece)?;
                done += piece;
            }
            if done == length {
                return Ok(());
            }
            begin += run.bytes();
        }
        Err(EIO)
    }

    /// Up to `length` bytes from `at` on.
    pub fn read(&self, memory: &Memory, at: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let left = self.bytes.saturating_sub(at);
        let mut data = vec![0; length.min(usize::try_from(left).unwrap_or(usize::MAX))];
        if !data.is_empty() {
            self.pieces(at, data.len(), |address, place| {
                memory.read(address, &mut data[place]).map_err(|_| EIO)
            })?;
        }
        Ok(data)
    }

    /// Writes where it has pages; its length stays.
    pub fn write(&self, memory: &Memory, at: u64, data: &[u8]) -> Result<(), Errno> {
        if data.is_empty() {
            return Ok(());
        }
        self.pieces(at, data.len(), |address, place| memory.write(address, &data[place]).map_err(|_| EIO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{FILES, Layout};

    fn memory() -> Memory {
        Memory::new(Layout { program_bytes: 4 << 20, ranks: 1, ring_bytes: 16 << 10 }).unwrap()
    }

    fn run(first: u32, pages: u32) -> Run {
        Run { first, pages }
    }

    #[test]
    fn free_pages_are_those_between_and_liars_are_found() {
        let area = (FILE_AREA_BYTES / PAGE_SIZE) as u32;
        assert_eq!(free(vec![run(5, 5), run(0, 2)]), Some(vec![run(2, 3), run(10, area - 10)]));
        assert_eq!(free(vec![run(0, area)]), Some(vec![]));
        for lie in [run(3, 1), run(area - 1, 2), run(area, 1), run(u32::MAX, u32::MAX)] {
            assert_eq!(free(vec![run(0, 5), lie]), None, "{lie:?}");
        }
    }

    #[test]
    fn it_grows_in_place_while_it_can_and_around_others_if_it_must() {
        let mut content = Content { runs: vec![run(4, 8)], bytes: 8 * PAGE_SIZE };
        content.grow(9 * PAGE_SIZE, vec![run(0, 2), run(12, 3)]).unwrap();
        assert_eq!(content.runs, [run(4, 10)], "a quarter in addition, behind it");
        content.grow(13 * PAGE_SIZE, vec![run(0, 2), run(14, 1)]).unwrap();
        assert_eq!(content.runs, [run(4, 11), run(0, 2)]);
        let before = content.clone();
        assert_eq!(content.grow(16 * PAGE_SIZE, vec![run(20, 2)]), Err(ENOSPC));
        assert_eq!(content, before);
    }

    #[test]
    fn bytes_lie_across_runs_and_what_was_cut_off_is_zero() {
        let memory = memory();
        let mut content = Content { runs: vec![run(7, 1), run(2, 2)], bytes: 0 };
        content.resize(&memory, 3 * PAGE_SIZE).unwrap();
        let data: Vec<u8> = (0..2 * PAGE_SIZE + 100).map(|i| (i % 251) as u8 + 1).collect();
        content.write(&memory, 50, &data).unwrap();
        assert_eq!(content.read(&memory, 50, data.len()).unwrap(), data);
        assert_eq!(content.read(&memory, 0, 50).unwrap(), [0; 50]);
        assert_eq!(memory.take_written(FILES)[0], 0b1000_1100);
        content.resize(&memory, 60).unwrap();
        assert_eq!(content.runs, [run(7, 1)]);
        assert_eq!(memory.take_written(FILES)[0], 0b1000_1100, "what was given up has changed, too");
        content.resize(&memory, PAGE_SIZE).unwrap();
        let again = content.read(&memory, 0, usize::MAX).unwrap();
        assert_eq!((again.len() as u64, &again[50..60]), (PAGE_SIZE, &data[..10]));
        assert!(again[60..].iter().all(|byte| *byte == 0));
        assert_eq!(content.write(&memory, PAGE_SIZE - 1, b"ab"), Err(EIO));
    }
}
