//! The data format "external32" of the MPI standard: big endian, IEEE numbers, fixed sizes.

use alloc::vec::Vec;

use crate::datatype::size_of_kind;

/// How a basic element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Numbers of this many bytes each, turned round.
    Plain(usize),
    /// An integer of 8 bytes here and 4 there; signed or not.
    Shortened(bool),
    /// A wide character: 4 bytes here and 2 there.
    Wide,
    /// x87 extended numbers, which become IEEE quadruple ones.
    Extended,
}

/// The format of a predefined type, and how many numbers it is made of.
fn format(kind: u8) -> (Format, usize) {
    match kind {
        0x0a => (Format::Shortened(true), 1),
        0x0e => (Format::Shortened(false), 1),
        0x3c => (Format::Wide, 1),
        0x20 => (Format::Extended, 1),
        0x24 | 0x25 => (Format::Extended, 2),
        0x12 | 0x13 | 0x16 | 0x17 | 0x1b | 0x1d | 0xdb | 0xe3 | 0xeb | 0xd3 => {
            (Format::Plain(size_of_kind(kind) / 2), 2)
        }
        _ => (Format::Plain(size_of_kind(kind)), 1),
    }
}

impl Format {
    fn bytes(self) -> usize {
        match self {
            Format::Plain(bytes) => bytes,
            Format::Shortened(_) => 4,
            Format::Wide => 2,
            Format::Extended => 16,
        }
    }

    fn native_bytes(self) -> usize {
        match self {
            Format::Plain(bytes) => bytes,
            Format::Shortened(_) => 8,
            Format::Wide => 4,
            Format::Extended => 16,
        }
    }

    fn encode(self, native: &[u8], out: &mut Vec<u8>) {
        match self {
            Format::Extended => out.extend_from_slice(&quadruple(native)),
            _ => out.extend(native[..self.bytes()].iter().rev()),
        }
    }

    fn decode(self, stored: &[u8], out: &mut Vec<u8>) {
        if self == Format::Extended {
            return out.extend_from_slice(&extended(stored));
        }
        out.extend(stored.iter().rev());
        let negative = self == Format::Shortened(true) && stored[0] & 0x80 != 0;
        let fill = if negative { 0xff } else { 0 };
        out.extend((self.bytes()..self.native_bytes()).map(|_| fill));
    }
}

/// Bytes of one element in this format.
pub fn size(signature: &[(u8, usize)]) -> usize {
    signature
        .iter()
        .map(|&(kind, count)| {
            let (format, numbers) = format(kind);
            format.bytes() * numbers * count
        })
        .sum()
}

/// The formats of the numbers of one element.
fn numbers(signature: &[(u8, usize)]) -> impl Iterator<Item = Format> + Clone + '_ {
    signature.iter().flat_map(|&(kind, count)| {
        let (format, numbers) = format(kind);
        core::iter::repeat_n(format, numbers * count)
    })
}

/// Turns elements in a row into the external format. What is not a whole number at the end is left out.
pub fn encode(signature: &[(u8, usize)], native: &[u8]) -> Vec<u8> {
    convert(signature, native, Format::native_bytes, Format::encode)
}

/// The reverse of [`encode`].
pub fn decode(signature: &[(u8, usize)], stored: &[u8]) -> Vec<u8> {
    convert(signature, stored, Format::bytes, Format::decode)
}

fn convert(
    signature: &[(u8, usize)],
    input: &[u8],
    bytes: impl Fn(Format) -> usize,
    step: impl Fn(Format, &[u8], &mut Vec<u8>),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let mut rest = input;
    if size(signature) == 0 {
        return out;
    }
    for format in numbers(signature).cycle() {
        let Some((number, after)) =
            rest.split_at_checked(bytes(format)).filter(|(number, _)| !number.is_empty())
        else {
            break;
        };
        step(format, number, &mut out);
        rest = after;
    }
    out
}

/// An x87 extended number as a big-endian IEEE quadruple one. The exponents are the same; the leading bit is implied.
fn quadruple(native: &[u8]) -> [u8; 16] {
    let mantissa = u64::from_le_bytes(native[..8].try_into().unwrap_or_default());
    let top = u16::from_le_bytes([native[8], native[9]]);
    (u128::from(top) << 112 | u128::from(mantissa << 1) << 48).to_be_bytes()
}

fn extended(stored: &[u8]) -> [u8; 16] {
    let bits = u128::from_be_bytes(stored.try_into().unwrap_or_default());
    let top = (bits >> 112) as u16;
    let leading = if top & 0x7fff == 0 { 0 } else { 1 << 63 };
    let mantissa = (bits >> 49) as u64 & !(1 << 63) | leading;
    let mut native = [0; 16];
    native[..8].copy_from_slice(&mantissa.to_le_bytes());
    native[8..10].copy_from_slice(&top.to_le_bytes());
    native
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let signature = [(0x09, 1), (0x0a, 1), (0x20, 1), (0x12, 1)];
        let mut native = Vec::new();
        native.extend_from_slice(&(-7i32).to_le_bytes());
        native.extend_from_slice(&(-9i64).to_le_bytes());
        // 1.5 as an x87 number.
        native.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0x3f, 0, 0, 0, 0, 0, 0]);
        native.extend_from_slice(&1.25f32.to_le_bytes());
        native.extend_from_slice(&(-2.5f32).to_le_bytes());
        let twice = [native.clone(), native].concat();
        let stored = encode(&signature, &twice);
        assert_eq!((stored.len(), size(&signature)), (64, 32));
        assert_eq!(stored[..8], [0xff, 0xff, 0xff, 0xf9, 0xff, 0xff, 0xff, 0xf7]);
        assert_eq!(stored[8..11], [0x3f, 0xff, 0x80]);
        assert_eq!(decode(&signature, &stored), twice);
    }
}
