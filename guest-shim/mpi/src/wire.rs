//! The frames that ranks write into each other's rings (wire version [`WIRE_VERSION`], private to this library).
//!
//! All ranks of an application link the same library, so the version is checked and never negotiated. A frame
//! is a header of [`HEADER_BYTES`] bytes, little end first, and a payload padded to a multiple of eight:
//!
//! ```text
//!  0  u8   kind             1  u8  wire version       2  u16  zero
//!  4  u32  payload bytes    8  u32 context           12  i32  tag
//! 16  u64  message bytes (Eager, Rts: of the whole message; Cts: how many of them the receiver takes)
//! 24  u64  sender's request      32  u64  receiver's request
//! ```
//!
//! Eager and Rts frames of one sender keep the order of the program's sends; that is what makes messages
//! non-overtaking. Data frames of several messages may be interleaved with them and with each other.

/// Version of the frame layout and of the meaning of its kinds.
pub const WIRE_VERSION: u8 = 1;
/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 40;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole message.
    Eager,
    /// Request to send: the message follows when the receiver has asked for it.
    Rts,
    /// Clear to send: the receiver has a buffer and takes so many bytes.
    Cts,
    /// The next piece of a message after its Cts.
    Data,
    /// The sender wants to take an Rts back.
    Cancel,
    /// The receiver had not matched that Rts and has forgotten it.
    Cancelled,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Eager,
            2 => Kind::Rts,
            3 => Kind::Cts,
            4 => Kind::Data,
            5 => Kind::Cancel,
            6 => Kind::Cancelled,
            _ => return None,
        })
    }

    fn to_byte(self) -> u8 {
        match self {
            Kind::Eager => 1,
            Kind::Rts => 2,
            Kind::Cts => 3,
            Kind::Data => 4,
            Kind::Cancel => 5,
            Kind::Cancelled => 6,
        }
    }
}

/// A decoded frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Bytes of payload after the header, without padding.
    pub payload_bytes: u32,
    /// Context of the communicator.
    pub context: u32,
    /// Tag of the message.
    pub tag: i32,
    /// Bytes of the whole message, or (Cts) the bytes that the receiver takes.
    pub message_bytes: u64,
    /// Request of the sender of the message.
    pub sender: u64,
    /// Request of the receiver of the message.
    pub receiver: u64,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The version byte is another library's.
    Version(u8),
    /// No such kind.
    Kind(u8),
    /// The payload is longer than any this library writes.
    TooLong(u32),
    /// A whole message whose length is not the length of its payload.
    Length,
}

impl Header {
    /// A header without payload, message or requests.
    pub fn new(kind: Kind) -> Header {
        Header { kind, payload_bytes: 0, context: 0, tag: 0, message_bytes: 0, sender: 0, receiver: 0 }
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind.to_byte();
        bytes[1] = WIRE_VERSION;
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.context.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.tag.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.message_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sender.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.receiver.to_le_bytes());
        bytes
    }

    /// Reads a header that another rank wrote.
    ///
    /// # Errors
    /// When the bytes cannot be a frame of this library whose payload is at most `payload_bytes_max` long.
    pub fn decode(bytes: &[u8; HEADER_BYTES], payload_bytes_max: usize) -> Result<Header, FrameError> {
        if bytes[1] != WIRE_VERSION {
            return Err(FrameError::Version(bytes[1]));
        }
        let kind = Kind::from_byte(bytes[0]).ok_or(FrameError::Kind(bytes[0]))?;
        let header = Header {
            kind,
            payload_bytes: u32_at(bytes, 4),
            context: u32_at(bytes, 8),
            tag: u32_at(bytes, 12).cast_signed(),
            message_bytes: u64_at(bytes, 16),
            sender: u64_at(bytes, 24),
            receiver: u64_at(bytes, 32),
        };
        let carries = matches!(kind, Kind::Eager | Kind::Data);
        if header.payload_bytes as usize > payload_bytes_max || (!carries && header.payload_bytes != 0) {
            return Err(FrameError::TooLong(header.payload_bytes));
        }
        if kind == Kind::Eager && header.message_bytes != u64::from(header.payload_bytes) {
            return Err(FrameError::Length);
        }
        Ok(header)
    }

    /// Bytes that the whole frame occupies in a ring.
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes as usize)
    }
}

/// Bytes in a ring of a frame with this payload.
pub fn frame_bytes(payload_bytes: usize) -> usize {
    HEADER_BYTES + payload_bytes.next_multiple_of(8)
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Sizes that follow from the size of the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest message sent whole, in bytes.
    pub eager_bytes: usize,
    /// Most payload of any frame, in bytes.
    pub chunk_bytes: usize,
}

impl Limits {
    /// Limits for rings of `ring_bytes`: four of the largest frames fit in a ring, so that a transfer is a
    /// pipeline and several transfers can take turns.
    pub fn for_ring(ring_bytes: usize) -> Limits {
        let chunk_bytes = (ring_bytes / 4).min(64 << 10) - HEADER_BYTES;
        Limits { eager_bytes: (ring_bytes / 8).min(16 << 10), chunk_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = Header {
            kind: Kind::Data,
            payload_bytes: 77,
            context: 5,
            tag: -3,
            message_bytes: 1 << 40,
            sender: u64::MAX,
            receiver: 9,
        };
        assert_eq!(Header::decode(&header.encode(), 77), Ok(header));
        assert_eq!(header.frame_bytes(), 40 + 80);
    }

    #[test]
    fn a_lying_header_is_refused() {
        let good = Header { payload_bytes: 8, message_bytes: 8, ..Header::new(Kind::Eager) };
        assert_eq!(Header::decode(&good.encode(), 7), Err(FrameError::TooLong(8)));
        let wrong = Header { message_bytes: 9, ..good };
        assert_eq!(Header::decode(&wrong.encode(), 64), Err(FrameError::Length));
        let with_payload = Header { payload_bytes: 8, ..Header::new(Kind::Cts) };
        assert_eq!(Header::decode(&with_payload.encode(), 64), Err(FrameError::TooLong(8)));
        let mut bytes = good.encode();
        bytes[0] = 99;
        assert_eq!(Header::decode(&bytes, 64), Err(FrameError::Kind(99)));
        bytes[1] = 0;
        assert_eq!(Header::decode(&bytes, 64), Err(FrameError::Version(0)));
    }

    #[test]
    fn the_largest_frame_fits_four_times_into_every_ring() {
        for shift in 14..=20 {
            let limits = Limits::for_ring(1 << shift);
            assert!(4 * frame_bytes(limits.chunk_bytes) <= 1 << shift);
            assert!(limits.eager_bytes <= limits.chunk_bytes);
        }
    }
}
