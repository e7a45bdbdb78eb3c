//! Packing pages on the wire: the two codecs, what a sample of pages says of them, and when packing pays (pure).

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock;

/// A codec must promise to be faster than plain pages by this factor.
pub const GAIN_MIN: f64 = 1.15;
/// No codec packs so many bytes per second on one core; above it a sample is not even taken.
pub const PLAIN_BYTES_PER_S_MAX: f64 = 3e9;
/// Level of zstd: higher ones cost more time than a network saves.
const ZSTD_LEVEL: i32 = 1;

/// What the caller allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// The codec that a sample predicts to be fastest, if any beats plain pages; decided anew in every round.
    #[default]
    Auto,
    /// Never.
    None,
    /// LZ4 always, where it makes pages smaller.
    Lz4,
    /// zstd (level 1) always, where it makes pages smaller.
    Zstd,
}

/// How pages are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum Codec {
    /// LZ4 block format.
    Lz4 = 1,
    /// A zstd frame.
    Zstd = 2,
}

/// Packed bytes that cannot be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodecError {
    /// No such codec.
    #[error("there is no codec {0}")]
    Unknown(u32),
    /// The bytes are not of this codec, or do not make the pages they should.
    #[error("bytes packed with {0} do not make the pages they should")]
    Malformed(Codec),
}

impl fmt::Display for Codec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl Codec {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Lz4, Self::Zstd];

    /// From its number on the wire.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn from_number(number: u32) -> Result<Self, CodecError> {
        Self::ALL.into_iter().find(|codec| *codec as u32 == number).ok_or(CodecError::Unknown(number))
    }

    /// Packs `pages` into `packed` and gives the bytes it took; `None` when they do not get smaller.
    pub fn pack(self, pages: &[u8], packed: &mut Vec<u8>) -> Option<usize> {
        let room = match self {
            Self::Lz4 => lz4_flex::block::get_maximum_output_size(pages.len()),
            Self::Zstd => zstd::zstd_safe::compress_bound(pages.len()),
        };
        packed.resize(room, 0);
        let bytes = match self {
            Self::Lz4 => lz4_flex::block::compress_into(pages, packed).ok(),
            Self::Zstd => zstd::bulk::compress_to_buffer(pages, packed, ZSTD_LEVEL).ok(),
        };
        bytes.filter(|bytes| *bytes < pages.len())
    }

    /// Fills all of `pages` from `packed`. Writes nowhere else and allocates nothing that `packed` asks for.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn unpack(self, packed: &[u8], pages: &mut [u8]) -> Result<(), CodecError> {
        let bytes = match self {
            Self::Lz4 => lz4_flex::block::decompress_into(packed, pages).ok(),
            Self::Zstd => zstd::bulk::decompress_to_buffer(packed, pages).ok(),
        };
        bytes.filter(|bytes| *bytes == pages.len()).map(|_| ()).ok_or(CodecError::Malformed(self))
    }
}

/// What a sample says of a codec.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Which.
    pub codec: Codec,
    /// Packed bytes per byte of pages.
    pub ratio: f64,
    /// Bytes of pages that one core packs per second.
    pub bytes_per_s: f64,
}

/// Packs `pieces` of pages with every codec and tells how that went.
pub fn estimate(pieces: &[Vec<u8>]) -> Vec<Estimate> {
    let bytes: usize = pieces.iter().map(Vec::len).sum();
    let mut packed = Vec::new();
    let mut of = |codec: Codec| {
        let start = clock::now();
        let pack = |piece: &Vec<u8>| codec.pack(piece, &mut packed).unwrap_or(piece.len());
        let total: usize = pieces.iter().map(pack).sum();
        let seconds = start.elapsed().as_secs_f64().max(1e-9);
        Estimate { codec, ratio: total as f64 / bytes as f64, bytes_per_s: bytes as f64 / seconds }
    };
    if bytes == 0 { Vec::new() } else { Codec::ALL.map(&mut of).to_vec() }
}

/// The codec that carries most bytes of pages per second over a link of `link_bytes_per_s` with `cores` packing, if it is
/// [`GAIN_MIN`] times as fast as plain pages.
pub fn choose(estimates: &[Estimate], link_bytes_per_s: f64, cores: usize) -> Option<Codec> {
    let speed = |estimate: &Estimate| {
        (link_bytes_per_s / estimate.ratio.max(1e-3)).min(estimate.bytes_per_s * cores.max(1) as f64)
    };
    let best = estimates.iter().max_by(|left, right| speed(left).total_cmp(&speed(right)))?;
    (speed(best) > GAIN_MIN * link_bytes_per_s).then_some(best.codec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| ((at / 7) % 50) as u8).collect()
    }

    #[test]
    fn pages_come_back_and_what_does_not_shrink_is_left_alone() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..65536).map(|_| random()).collect();
        for codec in Codec::ALL {
            let pages = text(65536);
            let mut packed = Vec::new();
            let bytes = codec.pack(&pages, &mut packed).unwrap();
            assert!(bytes < pages.len() / 4);
            let mut back = vec![0xee; pages.len()];
            codec.unpack(&packed[..bytes], &mut back).unwrap();
            assert!(back == pages);
            assert_eq!(codec.pack(&noise, &mut packed), None);
        }
    }

    #[test]
    fn hostile_packed_bytes_are_refused() {
        let pages = text(8192);
        for codec in Codec::ALL {
            let mut packed = Vec::new();
            let bytes = codec.pack(&pages, &mut packed).unwrap();
            packed.truncate(bytes);
            for room in [0, 4096, 8191, 8193, 16384] {
                assert!(codec.unpack(&packed, &mut vec![0; room]).is_err(), "{codec} into {room}");
            }
            let mut back = vec![0; pages.len()];
            for cut in 0..packed.len() {
                assert!(codec.unpack(&packed[..cut], &mut back).is_err(), "{codec} cut at {cut}");
            }
            for at in 0..packed.len() {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x41;
                let _ = codec.unpack(&damaged, &mut back);
            }
        }
        assert!(Codec::from_number(0).is_err() && Codec::from_number(3).is_err());
    }

    #[test]
    fn packing_pays_on_slow_links_only_and_the_faster_codec_wins() {
        let estimates = [
            Estimate { codec: Codec::Lz4, ratio: 0.6, bytes_per_s: 500e6 },
            Estimate { codec: Codec::Zstd, ratio: 0.35, bytes_per_s: 250e6 },
        ];
        assert_eq!(choose(&estimates, 20e6, 1), Some(Codec::Zstd));
        assert_eq!(choose(&estimates, 118e6, 1), Some(Codec::Zstd));
        assert_eq!(choose(&estimates, 250e6, 1), Some(Codec::Lz4));
        assert_eq!(choose(&estimates, 1180e6, 1), None);
        assert_eq!(choose(&estimates, 1180e6, 4), Some(Codec::Lz4));
        let noise = [Estimate { codec: Codec::Lz4, ratio: 1.0, bytes_per_s: 2e9 }];
        assert_eq!((choose(&noise, 20e6, 8), choose(&[], 20e6, 8)), (None, None));
    }

    #[test]
    fn a_sample_tells_text_from_nothing() {
        let estimates = estimate(&[text(16384), text(16384)]);
        assert!(estimates.iter().all(|estimate| estimate.ratio < 0.3 && estimate.bytes_per_s > 0.0));
        assert!(super::estimate(&[]).is_empty());
    }
}
