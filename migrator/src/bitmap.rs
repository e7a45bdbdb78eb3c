//! Bitmaps of pages: one bit a page, 64 pages a word, little end first; and which pages are zeros.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words that hold `pages` bits.
pub fn words(pages: u64) -> usize {
    usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX)
}

/// A bitmap with the bits of all `pages` pages set and no other.
pub fn full(pages: u64) -> Vec<u64> {
    let mut bitmap = vec![u64::MAX; words(pages)];
    mask_tail(&mut bitmap, pages);
    bitmap
}

/// Clears the bits behind the last of `pages` pages, which no one may set.
pub fn mask_tail(bitmap: &mut [u64], pages: u64) {
    let rest = pages % 64;
    if rest != 0
        && let Some(last) = bitmap.get_mut(words(pages) - 1)
    {
        *last &= (1 << rest) - 1;
    }
}

/// Set bits.
pub fn count(bitmap: &[u64]) -> u64 {
    bitmap.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// The runs of consecutive set bits as page ranges, none longer than `pages_max`; bit 0 is page `first_page`.
pub fn runs(bitmap: &[u64], first_page: u64, pages_max: u64) -> impl Iterator<Item = Range<u64>> + '_ {
    debug_assert!(pages_max > 0);
    let mut at = 0u64;
    std::iter::from_fn(move || {
        let start = next(bitmap, at, true)?;
        let limit = start + pages_max;
        let end = next(bitmap, start, false).unwrap_or(bitmap.len() as u64 * 64).min(limit);
        at = end;
        Some(first_page + start..first_page + end)
    })
}

/// The first bit at or after `from` that is set (or, with `set` false, clear).
fn next(bitmap: &[u64], from: u64, set: bool) -> Option<u64> {
    let mut index = (from / 64) as usize;
    let mut mask = u64::MAX << (from % 64);
    while let Some(&word) = bitmap.get(index) {
        let hits = if set { word } else { !word } & mask;
        if hits != 0 {
            return Some(index as u64 * 64 + u64::from(hits.trailing_zeros()));
        }
        mask = u64::MAX;
        index += 1;
    }
    None
}

/// Cuts a bitmap into ranges of words without empty ends: each has about `pages_target` set bits and at most `words_max` words.
pub fn chunks(bitmap: &[u64], pages_target: u64, words_max: usize) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut current: Option<(Range<usize>, u64)> = None;
    for (index, word) in bitmap.iter().enumerate().filter(|(_, word)| **word != 0) {
        let bits = u64::from(word.count_ones());
        current = match current.take() {
            Some((range, pages)) if pages < pages_target && index - range.start < words_max => {
                Some((range.start..index + 1, pages + bits))
            }
            full => {
                chunks.extend(full.map(|(range, _)| range));
                Some((index..index + 1, bits))
            }
        };
    }
    chunks.extend(current.map(|(range, _)| range));
    chunks
}

/// Whether a page is all zeros. The inner loop has no branch and no bounds check, so that it is vectorised; it ends at the
/// first part that is not zero.
pub fn is_zero(page: &[u8]) -> bool {
    let (parts, rest) = page.as_chunks::<256>();
    parts.iter().all(|part| part.iter().fold(0, |sum, byte| sum | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// A bitmap that several threads mark.
#[derive(Debug)]
pub struct Shared {
    words: Vec<AtomicU64>,
    pages: u64,
}

impl Shared {
    /// A bitmap of `pages` pages, all `set` or all clear.
    pub fn new(pages: u64, set: bool) -> Self {
        let words = if set { full(pages) } else { vec![0; words(pages)] };
        Self { words: words.into_iter().map(AtomicU64::new).collect(), pages }
    }

    /// Sets the bits of `pages`, which must be inside the bitmap (others are ignored).
    pub fn set(&self, pages: Range<u64>) {
        for (index, mask) in masks(&pages) {
            if let Some(word) = self.words.get(index) {
                word.fetch_or(mask, Ordering::Relaxed);
            }
        }
    }

    /// Clears the bits of `pages` and gives back those that were set, as runs.
    pub fn take(&self, pages: Range<u64>) -> Vec<Range<u64>> {
        let first_word = pages.start / 64;
        let taken: Vec<u64> = masks(&pages)
            .map(|(index, mask)| match self.words.get(index) {
                Some(word) => word.fetch_and(!mask, Ordering::Relaxed) & mask,
                None => 0,
            })
            .collect();
        runs(&taken, first_word * 64, u64::MAX >> 1).collect()
    }

    /// Its words now.
    pub fn snapshot(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().map(|word| word.load(Ordering::Relaxed))
    }

    /// Pages whose bit is not set.
    pub fn missing(&self) -> u64 {
        self.pages
            - self.words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum::<u64>()
    }
}

/// The words that `pages` touches, each with the bits of it that belong to `pages`.
fn masks(pages: &Range<u64>) -> impl Iterator<Item = (usize, u64)> + use<> {
    let Range { start, end } = pages.clone();
    let last = if start < end { end.div_ceil(64) } else { start / 64 };
    (start / 64..last).map(move |word| {
        let low = start.saturating_sub(word * 64).min(63);
        let high = (end - word * 64).min(64);
        let mask = (u64::MAX << low) & (u64::MAX >> (64 - high));
        (word as usize, mask)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_has_no_bit_behind_the_last_page() {
        for pages in [1, 63, 64, 65, 1000] {
            assert_eq!(count(&full(pages)), pages);
        }
        assert!(full(0).is_empty());
    }

    #[test]
    fn runs_cover_exactly_the_set_bits() {
        let bitmap = [0xf000_0000_0000_0001, 0x3, 0, 1 << 63];
        let found: Vec<_> = runs(&bitmap, 1000, 64).collect();
        assert_eq!(found, [1000..1001, 1060..1066, 1255..1256]);
        let split: Vec<_> = runs(&full(130), 0, 64).collect();
        assert_eq!(split, [0..64, 64..128, 128..130]);
    }

    #[test]
    fn chunks_lose_no_page_and_have_no_empty_ends() {
        let mut bitmap = vec![0u64; 300];
        for bit in (0..300 * 64).filter(|bit| bit % 7 == 0 && !(64 * 40..64 * 90).contains(bit)) {
            bitmap[bit / 64] |= 1 << (bit % 64);
        }
        let chunks = chunks(&bitmap, 30, 16);
        assert_eq!(chunks.iter().map(|range| count(&bitmap[range.clone()])).sum::<u64>(), count(&bitmap));
        for range in &chunks {
            assert!(bitmap[range.start] != 0 && bitmap[range.end - 1] != 0 && range.len() <= 16);
        }
        assert!(chunks.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }

    #[test]
    fn a_page_with_one_bit_anywhere_is_not_zero() {
        let mut page = vec![0; 4096 + 100];
        assert!(is_zero(&page) && is_zero(&[]));
        for at in 0..page.len() {
            page[at] = 0x10;
            assert!(!is_zero(&page), "{at}");
            page[at] = 0;
        }
    }

    #[test]
    fn shared_takes_back_what_was_set() {
        let shared = Shared::new(200, false);
        shared.set(60..130);
        shared.set(199..200);
        assert_eq!(shared.missing(), 129);
        assert_eq!(shared.take(50..70).as_slice(), std::slice::from_ref(&(60..70)));
        assert_eq!(shared.take(0..200), [70..130, 199..200]);
        assert_eq!(shared.take(5..5), []);
        assert_eq!(Shared::new(200, true).missing(), 0);
    }
}
