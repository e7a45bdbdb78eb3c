//! Sets of peers that are gone through in order, for thousands of peers of whom few are in the set.

use alloc::vec;
use alloc::vec::Vec;

use partita_abi::peer_bit;

/// Ranks below a fixed number.
#[derive(Debug, Clone)]
pub struct PeerSet {
    ranks: u32,
    words: Vec<u64>,
}

impl PeerSet {
    /// Nobody of `ranks`.
    pub fn new(ranks: u32) -> PeerSet {
        PeerSet { ranks, words: vec![0; (ranks as usize).div_ceil(64)] }
    }

    /// Adds a peer.
    pub fn insert(&mut self, peer: u32) {
        let (index, bit) = peer_bit(peer);
        self.words[index] |= bit;
    }

    /// Takes a peer out.
    pub fn remove(&mut self, peer: u32) {
        let (index, bit) = peer_bit(peer);
        self.words[index] &= !bit;
    }

    /// Takes everybody out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds everybody.
    pub fn fill(&mut self) {
        for index in 0..self.words.len() {
            self.add_word(index, u64::MAX);
        }
    }

    /// Adds the peers of `bits`, of which the lowest is number `64 * index`; bits beyond the last peer are nobody.
    pub fn add_word(&mut self, index: usize, bits: u64) {
        let beyond = (64 * (index as u32 + 1)).saturating_sub(self.ranks).min(64);
        self.words[index] |= bits & u64::MAX.checked_shr(beyond).unwrap_or(0);
    }

    /// Words of the set.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The first peer from `from` on that is in it or in `other`, a set of as many ranks.
    pub fn next_with(&self, other: &PeerSet, from: u32) -> Option<u32> {
        let (mut index, mut mask) = (from as usize / 64, u64::MAX << (from % 64));
        while index < self.words.len() {
            let word = (self.words[index] | other.words[index]) & mask;
            if word != 0 {
                return Some(64 * index as u32 + word.trailing_zeros());
            }
            (index, mask) = (index + 1, u64::MAX);
        }
        None
    }

    /// The first peer from `from` on.
    pub fn next(&self, from: u32) -> Option<u32> {
        self.next_with(self, from)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        core::iter::successors(self.next(0), |peer| self.next(peer + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(set: &PeerSet) -> Vec<u32> {
        set.iter().collect()
    }

    #[test]
    fn peers_are_found_in_order_across_words() {
        let mut set = PeerSet::new(200);
        assert_eq!((set.is_empty(), set.next(0)), (true, None));
        for peer in [199, 0, 64, 63, 130] {
            set.insert(peer);
        }
        assert_eq!(all(&set), [0, 63, 64, 130, 199]);
        set.remove(64);
        assert_eq!(set.next(64), Some(130));
        let mut other = PeerSet::new(200);
        other.insert(70);
        assert_eq!((set.next_with(&other, 64), other.next_with(&set, 71)), (Some(70), Some(130)));
        set.clear();
        assert!(set.is_empty());
    }

    #[test]
    fn bits_beyond_the_last_peer_are_nobody() {
        for ranks in [1, 63, 64, 65, 128, 4096] {
            let mut set = PeerSet::new(ranks);
            set.fill();
            assert_eq!(all(&set).len() as u32, ranks);
            assert_eq!(set.next(ranks), None);
        }
    }
}
