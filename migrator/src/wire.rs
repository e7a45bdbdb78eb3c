//! The bytes between source and destination: layouts, version and limits (`docs/protocol.md` describes them).
//!
//! Nothing here does I/O. Decoding rejects; it never panics and never allocates more than the bytes it was given
//! account for.

use std::fmt;

use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use partita_rdma::Window;

use crate::codec::{Codec, CodecError};
use crate::partition::{Description, PAGE_SIZE, Region};

/// First bytes of every connection.
pub const MAGIC: [u8; 8] = *b"PARTITAM";
/// Major version of this protocol; both sides must have the same.
pub const VERSION_MAJOR: u8 = 1;
/// Minor version: a destination takes sources of its own and of older ones.
pub const VERSION_MINOR: u8 = 2;
/// What a source says when its pages come as frames: nothing of 1.2 is used then, so a destination of 1.1 takes it.
pub const VERSION_MINOR_FRAMES: u8 = 1;
/// Bytes of a hello.
pub const HELLO_BYTES: usize = 32;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 16;
/// Bytes before the data of a DATA frame, and all of a ZERO frame's body.
pub const EXTENT_BYTES: usize = 16;
/// Bytes between the extent and the packed pages of a PACKED frame.
pub const CODEC_BYTES: usize = 8;
/// Bytes of a WRITTEN frame's body: an extent and a checksum.
pub const WRITTEN_BYTES: usize = EXTENT_BYTES + 8;
/// Bytes of an encoded window: names and addresses are bounded, and 64 regions have their keys.
pub const WINDOW_BYTES_MAX: usize = 4096;
/// Most bytes of bitmap in one HELD frame.
pub const HELD_PIECE_BYTES: usize = 128 * 1024;
/// Page streams of one migration.
pub const STREAMS_MAX: u8 = 16;
/// Pages of one DATA frame.
pub const DATA_PAGES_MAX: u32 = 64;
/// Pages of one ZERO frame.
pub const ZERO_PAGES_MAX: u32 = 1 << 16;
/// Bytes of state in one STATE frame.
pub const STATE_PIECE_BYTES: usize = 256 * 1024;
/// Most bytes of machine facts in one frame; with them a DESCRIBE stays below [`DESCRIPTION_BYTES_MAX`].
pub const MACHINE_PIECE_BYTES: usize = 128 * 1024;
/// Most bytes of a partition's machine facts: its sizes, and the symbols of its program.
pub const MACHINE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a saved state (what the partition's files grew by during the move is in it).
pub const STATE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of an encoded description.
pub const DESCRIPTION_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an application's name.
pub const APPLICATION_BYTES_MAX: usize = 256;
/// Memory regions of a partition.
pub const REGIONS_MAX: usize = 64;
/// Bytes of the destination's annotation.
pub const ANNOTATION_BYTES_MAX: usize = 4096;
/// Bytes of a reason in REFUSE and ABORT.
pub const TEXT_BYTES_MAX: usize = 1024;

/// What is wrong with received bytes, or with something that was to be sent.
#[derive(Debug, Error)]
pub enum WireError {
    /// Not our protocol at all.
    #[error("the other side does not speak the migration protocol")]
    Magic,
    /// Another version.
    #[error(
        "the other side speaks migration protocol {major}.{minor}, this one {VERSION_MAJOR}.0 to \
         {VERSION_MAJOR}.{VERSION_MINOR}: use the same release on both, or the newer one at the destination"
    )]
    Version {
        /// Its major version.
        major: u8,
        /// Its minor version.
        minor: u8,
    },
    /// Packed pages that cannot be unpacked.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A hello with a role, stream or count that does not exist.
    #[error("malformed hello")]
    Hello,
    /// No such frame.
    #[error("unknown frame kind {0:#04x}")]
    Kind(u8),
    /// A frame that exists but does not belong here.
    #[error("frame {kind} is not allowed {wanted}")]
    Unexpected {
        /// The frame.
        kind: Kind,
        /// Where it came.
        wanted: &'static str,
    },
    /// A body longer or shorter than its kind has.
    #[error("frame {kind} of {bytes} bytes is malformed")]
    Length {
        /// The frame.
        kind: Kind,
        /// Bytes of its body.
        bytes: u64,
    },
    /// Bits that must be zero are not.
    #[error("frame {0} has reserved bits set")]
    Reserved(Kind),
    /// The bytes are not those that were sent.
    #[error("frame {0} is damaged: its checksum is wrong")]
    Checksum(Kind),
    /// Pages outside the memory.
    #[error("pages {first_page} + {pages} of region {region} are outside the memory")]
    Extent {
        /// Index of the region.
        region: u32,
        /// First page in it.
        first_page: u64,
        /// Number of pages.
        pages: u32,
    },
    /// A description that cannot be decoded.
    #[error("the description cannot be decoded")]
    Description(#[source] postcard::Error),
    /// A window that cannot be decoded.
    #[error("the window cannot be decoded")]
    WindowBytes(#[source] postcard::Error),
    /// A window that makes no sense.
    #[error(transparent)]
    Window(#[from] partita_rdma::Error),
    /// A description that makes no sense.
    #[error("the description is invalid: {0}")]
    Invalid(&'static str),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that begins, commits and ends.
    Control,
    /// The page stream of this number.
    Pages(u8),
}

/// The first 32 bytes of a connection, from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Minor version that the source speaks.
    pub minor: u8,
    /// What the connection is for.
    pub role: Role,
    /// How many page streams there are.
    pub streams: u8,
    /// Which migration it belongs to.
    pub session: [u8; 16],
}

impl Hello {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let (role, stream) = match self.role {
            Role::Control => (0, 0),
            Role::Pages(stream) => (1, stream),
        };
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8] = VERSION_MAJOR;
        bytes[9] = self.minor;
        bytes[10] = role;
        bytes[11] = stream;
        bytes[12] = self.streams;
        bytes[16..32].copy_from_slice(&self.session);
        let check = hello_check(&bytes);
        bytes[13..16].copy_from_slice(&check);
        bytes
    }

    /// From its bytes.
    ///
    /// # Errors
    /// Foreign, another major or a newer minor version (told apart, so that the other side can be told), or malformed.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, WireError> {
        if bytes[0..8] != MAGIC {
            return Err(WireError::Magic);
        }
        let (major, minor) = (bytes[8], bytes[9]);
        if major != VERSION_MAJOR || minor > VERSION_MINOR {
            return Err(WireError::Version { major, minor });
        }
        let (stream, streams) = (bytes[11], bytes[12]);
        let role = match bytes[10] {
            0 if stream == 0 => Role::Control,
            1 if stream < streams => Role::Pages(stream),
            _ => return Err(WireError::Hello),
        };
        if !(1..=STREAMS_MAX).contains(&streams) || bytes[13..16] != hello_check(bytes) {
            return Err(WireError::Hello);
        }
        let mut session = [0; 16];
        session.copy_from_slice(&bytes[16..32]);
        Ok(Self { minor, role, streams, session })
    }
}

/// Three bytes of checksum over a hello without them; 1.0 had zeros there.
fn hello_check(bytes: &[u8; HELLO_BYTES]) -> [u8; 3] {
    if bytes[9] == 0 {
        return [0; 3];
    }
    let mut plain = *bytes;
    plain[13..16].fill(0);
    let [first, second, third, ..] = xxh3_64(&plain).to_le_bytes();
    [first, second, third]
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Source: what to build.
    Describe = 0x01,
    /// Either side: still here.
    KeepAlive = 0x02,
    /// Source: the totals, after the last page; the state follows.
    Final = 0x03,
    /// Source: a piece of the saved state.
    State = 0x04,
    /// Source: run.
    Commit = 0x05,
    /// Either side, before the commit: it is over.
    Abort = 0x06,
    /// Source, before DESCRIBE: machine facts for which it has no room.
    Machine = 0x07,
    /// Source, since 1.1, first on a new control connection of a migration whose connections broke in a round.
    Resume = 0x08,
    /// Source, since 1.2, before DESCRIBE: pages will be written one-sided.
    Rdma = 0x09,
    /// Destination: the machine is built.
    Accept = 0x11,
    /// Destination: it will not be built.
    Refuse = 0x12,
    /// Destination: a page stream is taken.
    Joined = 0x13,
    /// Destination: everything is here, checked and restored.
    Ready = 0x14,
    /// Destination: it runs.
    Running = 0x15,
    /// Destination, since 1.1: a piece of the bitmap of the pages that came at least once, in answer to RESUME.
    Held = 0x16,
    /// Destination, since 1.2, behind ACCEPT and behind the last HELD if the source asked for it: where pages are written.
    Window = 0x17,
    /// Source: pages with data.
    Data = 0x21,
    /// Source: pages of zeros.
    Zero = 0x22,
    /// Source: the stream has no more pages in this round.
    RoundEnd = 0x23,
    /// Destination: all of the stream's round is in memory.
    RoundAck = 0x24,
    /// Source, since 1.1: pages with data, packed.
    Packed = 0x25,
    /// Source, since 1.2: pages that were written one-sided and are in the memory.
    Written = 0x26,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 22] = [
        Kind::Describe,
        Kind::KeepAlive,
        Kind::Final,
        Kind::State,
        Kind::Commit,
        Kind::Abort,
        Kind::Machine,
        Kind::Accept,
        Kind::Refuse,
        Kind::Joined,
        Kind::Ready,
        Kind::Running,
        Kind::Data,
        Kind::Zero,
        Kind::RoundEnd,
        Kind::RoundAck,
        Kind::Packed,
        Kind::Resume,
        Kind::Held,
        Kind::Rdma,
        Kind::Window,
        Kind::Written,
    ];

    fn from_byte(byte: u8) -> Result<Self, WireError> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte).ok_or(WireError::Kind(byte))
    }

    /// Most bytes its body may have.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::KeepAlive | Self::Joined | Self::Rdma => 0,
            Self::Commit | Self::Ready | Self::Running => 8,
            Self::Describe => DESCRIPTION_BYTES_MAX,
            Self::Final => 24 + 8 * STREAMS_MAX as usize,
            Self::State => STATE_PIECE_BYTES,
            Self::Machine => MACHINE_PIECE_BYTES,
            Self::Abort | Self::Refuse => TEXT_BYTES_MAX,
            Self::Accept => ANNOTATION_BYTES_MAX,
            Self::Data => EXTENT_BYTES + DATA_PAGES_MAX as usize * PAGE_SIZE,
            Self::Packed => EXTENT_BYTES + CODEC_BYTES + DATA_PAGES_MAX as usize * PAGE_SIZE,
            Self::Zero | Self::RoundEnd | Self::RoundAck | Self::Resume => EXTENT_BYTES,
            Self::Held => HELD_PIECE_BYTES,
            Self::Window => WINDOW_BYTES_MAX,
            Self::Written => WRITTEN_BYTES,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// The 16 bytes before every body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Bytes of the body.
    pub length: u32,
    /// XXH3-64 (seed 0) over the header's first 8 bytes and the body.
    pub checksum: u64,
}

impl Header {
    /// The header of a body that is given in two parts.
    ///
    /// # Errors
    /// `Length` when the body is longer than its kind may be.
    pub fn seal(kind: Kind, first: &[u8], second: &[u8]) -> Result<[u8; HEADER_BYTES], WireError> {
        let bytes = first.len() + second.len();
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= kind.body_bytes_max());
        let length = length.ok_or(WireError::Length { kind, bytes: bytes as u64 })?;
        let mut header = [0; HEADER_BYTES];
        header[0] = kind as u8;
        header[4..8].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(&header, first, second);
        header[8..16].copy_from_slice(&checksum.to_le_bytes());
        Ok(header)
    }

    /// From its bytes; the length is within the kind's limit afterwards.
    ///
    /// # Errors
    /// Unknown kind, reserved bits, or a length above the kind's limit.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let kind = Kind::from_byte(bytes[0])?;
        if bytes[1..4] != [0; 3] {
            return Err(WireError::Reserved(kind));
        }
        let length = u32_at(bytes, 4);
        if length as usize > kind.body_bytes_max() {
            return Err(WireError::Length { kind, bytes: length.into() });
        }
        Ok(Self { kind, length, checksum: u64_at(bytes, 8) })
    }

    /// Checks `body` against the checksum.
    ///
    /// # Errors
    /// `Checksum`.
    pub fn verify(&self, body: &[u8]) -> Result<(), WireError> {
        let mut header = [0; HEADER_BYTES];
        header[0] = self.kind as u8;
        header[4..8].copy_from_slice(&self.length.to_le_bytes());
        if checksum(&header, body, &[]) == self.checksum {
            Ok(())
        } else {
            Err(WireError::Checksum(self.kind))
        }
    }
}

fn checksum(header: &[u8; HEADER_BYTES], first: &[u8], second: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&header[..8]);
    hash.update(first);
    hash.update(second);
    hash.digest()
}

/// Checksum of a whole saved state.
pub fn state_checksum(state: &[u8]) -> u64 {
    xxh3_64(state)
}

/// Pages of one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Index of the region.
    pub region: u32,
    /// How many pages.
    pub pages: u32,
    /// The first of them, from 0 within the region.
    pub first_page: u64,
}

impl Extent {
    /// Its bytes.
    pub fn encode(&self) -> [u8; EXTENT_BYTES] {
        let mut bytes = [0; EXTENT_BYTES];
        bytes[0..4].copy_from_slice(&self.region.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.pages.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first_page.to_le_bytes());
        bytes
    }

    /// The extent of a DATA, PACKED, WRITTEN or ZERO body, inside `regions`, and the data behind it.
    ///
    /// # Errors
    /// A length that does not fit the number of pages, or pages outside the memory.
    pub fn decode<'a>(kind: Kind, body: &'a [u8], regions: &[Region]) -> Result<(Self, &'a [u8]), WireError> {
        let malformed = WireError::Length { kind, bytes: body.len() as u64 };
        let Some((head, data)) = body.split_at_checked(EXTENT_BYTES) else { return Err(malformed) };
        let (region, pages, first_page) = (u32_at(head, 0), u32_at(head, 4), u64_at(head, 8));
        let (pages_max, bytes) = match kind {
            Kind::Data => (DATA_PAGES_MAX, u64::from(pages) * PAGE_SIZE as u64),
            Kind::Packed => (DATA_PAGES_MAX, data.len() as u64),
            Kind::Written => (DATA_PAGES_MAX, 8),
            _ => (ZERO_PAGES_MAX, 0),
        };
        if data.len() as u64 != bytes {
            return Err(malformed);
        }
        let inside = regions.get(region as usize).is_some_and(|region| {
            let end = first_page.checked_add(pages.into());
            end.is_some_and(|end| end <= region.bytes / PAGE_SIZE as u64)
        });
        if !inside || pages == 0 || pages > pages_max {
            return Err(WireError::Extent { region, first_page, pages });
        }
        Ok((Self { region, pages, first_page }, data))
    }
}

/// Checksum of pages that were written one-sided: XXH3-64 (seed 0).
pub fn pages_checksum(pages: &[u8]) -> u64 {
    xxh3_64(pages)
}

/// Compares `pages`, the memory at a WRITTEN frame's extent, with the checksum behind that.
///
/// # Errors
/// `Checksum`.
pub fn verify_written(data: &[u8], pages: &[u8]) -> Result<(), WireError> {
    let same = data == pages_checksum(pages).to_le_bytes();
    if same { Ok(()) } else { Err(WireError::Checksum(Kind::Written)) }
}

/// What is before packed pages: the codec, and zeros.
pub fn encode_codec(codec: Codec) -> [u8; CODEC_BYTES] {
    let mut bytes = [0; CODEC_BYTES];
    bytes[..4].copy_from_slice(&(codec as u32).to_le_bytes());
    bytes
}

/// The pages of a PACKED frame with `extent`, from what is behind its extent, into `pages`.
///
/// # Errors
/// An unknown codec, or bytes that do not make exactly the extent's pages.
pub fn unpack<'a>(extent: Extent, data: &[u8], pages: &'a mut Vec<u8>) -> Result<&'a [u8], WireError> {
    let malformed = WireError::Length { kind: Kind::Packed, bytes: (EXTENT_BYTES + data.len()) as u64 };
    let Some((head, packed)) = data.split_at_checked(CODEC_BYTES) else { return Err(malformed) };
    if u32_at(head, 4) != 0 {
        return Err(WireError::Reserved(Kind::Packed));
    }
    // At most 64 pages, as the extent was checked.
    pages.resize(extent.pages as usize * PAGE_SIZE, 0);
    Codec::from_number(u32_at(head, 0))?.unpack(packed, pages)?;
    Ok(pages)
}

/// What FINAL says: how much was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of the saved state that follows.
    pub state_bytes: u64,
    /// XXH3-64 of all of it.
    pub state_checksum: u64,
    /// Pages each stream sent since its start.
    pub stream_pages: Vec<u64>,
}

/// A frame other than DATA, PACKED, WRITTEN and ZERO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// See [`Kind::Describe`].
    Describe(Description),
    /// See [`Kind::KeepAlive`].
    KeepAlive,
    /// See [`Kind::Final`].
    Final(Totals),
    /// See [`Kind::State`].
    State(Vec<u8>),
    /// See [`Kind::Resume`].
    Resume {
        /// The round that broke, from 0.
        round: u32,
        /// Epoch of the description.
        epoch: u64,
    },
    /// See [`Kind::Held`].
    Held(Vec<u8>),
    /// See [`Kind::Machine`].
    Machine(Vec<u8>),
    /// See [`Kind::Rdma`].
    Rdma,
    /// See [`Kind::Window`].
    Window {
        /// How long registering the memory took.
        registered_us: u64,
        /// What the source has to know to write it.
        window: Window,
    },
    /// See [`Kind::Commit`].
    Commit {
        /// The epoch that the destination owns from now on.
        epoch: u64,
    },
    /// See [`Kind::Abort`].
    Abort {
        /// Why.
        reason: String,
    },
    /// See [`Kind::Accept`].
    Accept {
        /// Opaque to the migrator.
        annotation: Vec<u8>,
    },
    /// See [`Kind::Refuse`].
    Refuse {
        /// Why.
        reason: String,
    },
    /// See [`Kind::Joined`].
    Joined,
    /// See [`Kind::Ready`].
    Ready {
        /// Pages received and checked, over all streams and rounds.
        pages: u64,
    },
    /// See [`Kind::Running`].
    Running {
        /// The epoch it runs in.
        epoch: u64,
    },
    /// See [`Kind::RoundEnd`].
    RoundEnd {
        /// Counted from 0.
        round: u32,
        /// Whether this is the round of the blackout.
        last: bool,
        /// Pages the stream sent since its start.
        pages: u64,
    },
    /// See [`Kind::RoundAck`].
    RoundAck {
        /// The round.
        round: u32,
        /// Pages the stream received since its start.
        pages: u64,
    },
}

impl Frame {
    /// What kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Describe(_) => Kind::Describe,
            Self::KeepAlive => Kind::KeepAlive,
            Self::Final(_) => Kind::Final,
            Self::State(_) => Kind::State,
            Self::Machine(_) => Kind::Machine,
            Self::Rdma => Kind::Rdma,
            Self::Window { .. } => Kind::Window,
            Self::Resume { .. } => Kind::Resume,
            Self::Held(_) => Kind::Held,
            Self::Commit { .. } => Kind::Commit,
            Self::Abort { .. } => Kind::Abort,
            Self::Accept { .. } => Kind::Accept,
            Self::Refuse { .. } => Kind::Refuse,
            Self::Joined => Kind::Joined,
            Self::Ready { .. } => Kind::Ready,
            Self::Running { .. } => Kind::Running,
            Self::RoundEnd { .. } => Kind::RoundEnd,
            Self::RoundAck { .. } => Kind::RoundAck,
        }
    }

    /// Header and body.
    ///
    /// # Errors
    /// Something in it is above its limit.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let body = match self {
            Self::Describe(description) => {
                check_description(description)?;
                postcard::to_stdvec(description).map_err(WireError::Description)?
            }
            Self::KeepAlive | Self::Joined | Self::Rdma => Vec::new(),
            Self::Window { registered_us, window } => {
                postcard::to_stdvec(&(registered_us, window)).map_err(WireError::WindowBytes)?
            }
            Self::Final(totals) => encode_totals(totals),
            Self::State(bytes)
            | Self::Machine(bytes)
            | Self::Held(bytes)
            | Self::Accept { annotation: bytes } => bytes.clone(),
            Self::Resume { round, epoch } => encode_round(*round, 0, *epoch),
            Self::Commit { epoch: value } | Self::Running { epoch: value } | Self::Ready { pages: value } => {
                value.to_le_bytes().to_vec()
            }
            Self::Abort { reason } | Self::Refuse { reason } => bounded(reason).as_bytes().to_vec(),
            Self::RoundEnd { round, last, pages } => encode_round(*round, (*last).into(), *pages),
            Self::RoundAck { round, pages } => encode_round(*round, 0, *pages),
        };
        let mut frame = Header::seal(self.kind(), &body, &[])?.to_vec();
        frame.extend(body);
        Ok(frame)
    }

    /// From the kind and a body whose length and checksum were verified.
    ///
    /// # Errors
    /// A malformed body; DATA, PACKED, WRITTEN and ZERO are not decoded here and are refused.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, WireError> {
        let malformed = || WireError::Length { kind, bytes: body.len() as u64 };
        let number = || body.try_into().map(u64::from_le_bytes).map_err(|_| malformed());
        Ok(match kind {
            Kind::Describe => {
                let (description, rest) = postcard::take_from_bytes(body).map_err(WireError::Description)?;
                check_description(&description)?;
                if !rest.is_empty() {
                    return Err(malformed());
                }
                Self::Describe(description)
            }
            Kind::KeepAlive if body.is_empty() => Self::KeepAlive,
            Kind::Joined if body.is_empty() => Self::Joined,
            Kind::Rdma if body.is_empty() => Self::Rdma,
            Kind::Window => {
                let ((registered_us, window), rest): ((u64, Window), _) =
                    postcard::take_from_bytes(body).map_err(WireError::WindowBytes)?;
                window.check()?;
                if !rest.is_empty() {
                    return Err(malformed());
                }
                Self::Window { registered_us, window }
            }
            Kind::Final => Self::Final(decode_totals(body).ok_or_else(malformed)?),
            Kind::State if !body.is_empty() => Self::State(body.to_vec()),
            Kind::Machine if !body.is_empty() => Self::Machine(body.to_vec()),
            Kind::Held if !body.is_empty() => Self::Held(body.to_vec()),
            Kind::Resume => match decode_round(body).ok_or_else(malformed)? {
                (round, 0, epoch) => Self::Resume { round, epoch },
                _ => return Err(WireError::Reserved(kind)),
            },
            Kind::Commit => Self::Commit { epoch: number()? },
            Kind::Running => Self::Running { epoch: number()? },
            Kind::Ready => Self::Ready { pages: number()? },
            Kind::Abort => Self::Abort { reason: printable(body) },
            Kind::Refuse => Self::Refuse { reason: printable(body) },
            Kind::Accept => Self::Accept { annotation: body.to_vec() },
            Kind::RoundEnd => match decode_round(body).ok_or_else(malformed)? {
                (round, last @ 0..=1, pages) => Self::RoundEnd { round, last: last == 1, pages },
                _ => return Err(WireError::Reserved(kind)),
            },
            Kind::RoundAck => match decode_round(body).ok_or_else(malformed)? {
                (round, 0, pages) => Self::RoundAck { round, pages },
                _ => return Err(WireError::Reserved(kind)),
            },
            Kind::KeepAlive | Kind::Joined | Kind::Rdma | Kind::State | Kind::Machine | Kind::Held => {
                return Err(malformed());
            }
            Kind::Data | Kind::Packed | Kind::Written | Kind::Zero => {
                return Err(WireError::Unexpected { kind, wanted: "outside a page stream" });
            }
        })
    }
}

/// Checks what every description must fulfil, whoever made it.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_description(description: &Description) -> Result<(), WireError> {
    let page = PAGE_SIZE as u64;
    if description.application.len() > APPLICATION_BYTES_MAX {
        return Err(WireError::Invalid("the application's name is too long"));
    }
    if description.regions.is_empty() || description.regions.len() > REGIONS_MAX {
        return Err(WireError::Invalid("it has no memory region, or too many"));
    }
    let mut ranges = Vec::with_capacity(description.regions.len());
    for region in &description.regions {
        if region.bytes == 0 || !region.bytes.is_multiple_of(page) || !region.address.is_multiple_of(page) {
            return Err(WireError::Invalid("a memory region is not made of whole pages"));
        }
        let end = region.address.checked_add(region.bytes);
        ranges.push((region.address, end.ok_or(WireError::Invalid("a memory region wraps around"))?));
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(WireError::Invalid("memory regions overlap"));
    }
    Ok(())
}

fn encode_totals(totals: &Totals) -> Vec<u8> {
    let mut body = Vec::with_capacity(24 + 8 * totals.stream_pages.len());
    body.extend(totals.state_bytes.to_le_bytes());
    body.extend(totals.state_checksum.to_le_bytes());
    body.extend((totals.stream_pages.len() as u64).to_le_bytes());
    body.extend(totals.stream_pages.iter().flat_map(|pages| pages.to_le_bytes()));
    body
}

fn decode_totals(body: &[u8]) -> Option<Totals> {
    let (head, pages) = body.split_at_checked(24)?;
    let (state_bytes, streams) = (u64_at(head, 0), u64_at(head, 16));
    if !(1..=u64::from(STREAMS_MAX)).contains(&streams)
        || pages.len() as u64 != 8 * streams
        || state_bytes > STATE_BYTES_MAX
    {
        return None;
    }
    let stream_pages = pages.chunks_exact(8).map(|bytes| u64_at(bytes, 0)).collect();
    Some(Totals { state_bytes, state_checksum: u64_at(head, 8), stream_pages })
}

fn encode_round(round: u32, flags: u32, pages: u64) -> Vec<u8> {
    [&round.to_le_bytes()[..], &flags.to_le_bytes(), &pages.to_le_bytes()].concat()
}

fn decode_round(body: &[u8]) -> Option<(u32, u32, u64)> {
    (body.len() == EXTENT_BYTES).then(|| (u32_at(body, 0), u32_at(body, 4), u64_at(body, 8)))
}

/// As much of `text` as a frame may carry.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// A peer's text as one harmless line for logs and terminals.
fn printable(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

// The offsets below are constants or were checked against the slice's length by the callers.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
