//! The bytes between two fabric threads (fabric protocol version [`VERSION`], `docs/protocol-fabric.md`).
//!
//! One connection carries one stream, from the partition that opened it to the other; acknowledgements come back on it.
//! Every frame is a 24-byte header `{kind u32, length u32, a u64, b u64}`, little end first, and `length` bytes.
//!
//! | kind | from | a | b | bytes |
//! |---|---|---|---|---|
//! | HELLO | opener | version | 0 | [`Hello`] |
//! | WELCOME | listener | offset it has | offset it can take up to | |
//! | MOVED | listener | epoch | 0 | where the partition is now |
//! | REFUSED | listener | 0 | 0 | why |
//! | DATA | opener | offset of the first byte | messages written so far | stream bytes |
//! | ACK | listener | offset it has | offset it can take up to | |
//! | OFFER | opener | 0 | 0 | (with two files: memory for the ring, the opener's event) |
//! | TAKEN | listener | 0 | 0 | (with a file: the listener's event) |
//! | LATER | listener | 0 | 0 | |
//! | SHARED | opener | 0 | 0 | |
//! | TIMED | opener | as DATA | as DATA | as DATA; ACK is wanted at once |

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of this protocol; the two ends must agree.
pub const VERSION: u64 = 2;
/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 24;
/// Longest body of anything but stream bytes.
pub const BODY_BYTES_MAX: u32 = 2048;

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Who opens, and why.
    Hello = 1,
    /// The stream may go on from an offset.
    Welcome = 2,
    /// The partition is elsewhere.
    Moved = 3,
    /// The connection is not wanted.
    Refused = 4,
    /// Stream bytes.
    Data = 5,
    /// Progress of the far end.
    Ack = 6,
    /// The ring may be shared.
    Offer = 7,
    /// The listener maps the offered memory.
    Taken = 8,
    /// It does not, for now.
    Later = 9,
    /// The opener maps it too.
    Shared = 10,
    /// Stream bytes that are to be acknowledged at once, for the time that it takes.
    Timed = 11,
}

impl Kind {
    /// Whether stream bytes follow.
    pub fn is_data(self) -> bool {
        matches!(self, Self::Data | Self::Timed)
    }
}

/// A frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bytes that follow.
    pub length: u32,
    /// First number (see the module's table).
    pub a: u64,
    /// Second number.
    pub b: u64,
}

/// What came is not a frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// Unknown kind.
    #[error("frame kind {0} is unknown")]
    Kind(u32),
    /// Too long.
    #[error("a frame of {0} bytes is too long")]
    Length(u32),
    /// The greeting makes no sense.
    #[error("the greeting cannot be read")]
    Hello,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.a.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.b.to_le_bytes());
        bytes
    }

    /// Reads and checks a header; the length of stream bytes is checked against the ring by the caller.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let kind = match u32_at(0) {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Moved,
            4 => Kind::Refused,
            5 => Kind::Data,
            6 => Kind::Ack,
            7 => Kind::Offer,
            8 => Kind::Taken,
            9 => Kind::Later,
            10 => Kind::Shared,
            11 => Kind::Timed,
            other => return Err(WireError::Kind(other)),
        };
        let length = u32_at(4);
        if !kind.is_data() && length > BODY_BYTES_MAX {
            return Err(WireError::Length(length));
        }
        Ok(Self { kind, length, a: u64_at(8), b: u64_at(16) })
    }
}

/// The first thing on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Application of both ends.
    pub application: String,
    /// Rank of the opener.
    pub from: u32,
    /// Epoch of the opener: the owner with the higher one wins.
    pub epoch: u64,
    /// Rank that is meant to listen.
    pub to: u32,
    /// Where the opener listens itself.
    pub address: String,
    /// Whether a stream follows; otherwise the greeting itself is the message.
    pub stream: bool,
}

impl Hello {
    /// Header and body.
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("strings and numbers always serialise");
        let header = Header { kind: Kind::Hello, length: body.len() as u32, a: VERSION, b: 0 };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        postcard::from_bytes(body).map_err(|_| WireError::Hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let ack = Header { kind: Kind::Ack, length: 0, a: 0x0102, b: u64::MAX };
        let mut expected = [0; 24];
        expected[0] = 6;
        (expected[8], expected[9]) = (2, 1);
        expected[16..].fill(0xff);
        assert_eq!(ack.encode(), expected);
        assert_eq!(Header::decode(&expected), Ok(ack));
    }

    #[test]
    fn a_greeting_survives_and_rubbish_is_refused() {
        let hello = Hello {
            application: "a".into(),
            from: 1,
            epoch: 2,
            to: 3,
            address: "unix:/x".into(),
            stream: true,
        };
        let bytes = hello.encode();
        let header = Header::decode(bytes[..24].try_into().unwrap()).unwrap();
        assert_eq!(header.kind, Kind::Hello);
        assert_eq!(Hello::decode(&bytes[24..]), Ok(hello));
        assert_eq!(Hello::decode(&[0xff; 12]), Err(WireError::Hello));
        let mut random = 1u64;
        for _ in 0..10_000 {
            let mut bytes = [0; 24];
            for byte in &mut bytes {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (random >> 60) as u8;
            }
            let _ = Header::decode(&bytes);
            let _ = Hello::decode(&bytes);
        }
    }
}
