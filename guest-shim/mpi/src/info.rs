//! Infos: ordered lists of keys and values.

use alloc::vec::Vec;

/// `MPI_MAX_INFO_KEY` of the ABI, with the NUL, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// `MPI_MAX_INFO_VAL` of the ABI, with the NUL, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024;

/// Keys and values in the order in which the keys were first set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries(Vec<(Vec<u8>, Vec<u8>)>);

impl Entries {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(of, _)| of == key).map(|(_, value)| &value[..])
    }

    /// The key with this number.
    pub fn key(&self, number: usize) -> Option<&[u8]> {
        self.0.get(number).map(|(key, _)| &key[..])
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        match self.0.iter_mut().find(|(of, _)| of == key) {
            Some(entry) => entry.1 = value.to_vec(),
            None => self.0.push((key.to_vec(), value.to_vec())),
        }
    }

    /// Forgets a key; returns whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let before = self.0.len();
        self.0.retain(|(of, _)| of != key);
        self.0.len() < before
    }

    /// Takes over all keys of another.
    pub fn extend(&mut self, other: &Entries) {
        for (key, value) in &other.0 {
            self.set(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_place_when_they_are_set_again() {
        let mut info = Entries::default();
        for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            info.set(key.as_bytes(), value.as_bytes());
        }
        assert_eq!((info.len(), info.get(b"a"), info.key(0)), (2, Some(&b"3"[..]), Some(&b"a"[..])));
        assert!(info.remove(b"a") && !info.remove(b"a"));
        assert_eq!(info.key(0), Some(&b"b"[..]));
    }
}
