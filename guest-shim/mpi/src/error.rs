//! What can go wrong in a call, with its MPI error class.

use core::ffi::c_int;
use core::fmt;

/// An error of an MPI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The argument named is not valid; the class says of what kind.
    Invalid(c_int, &'static str),
    /// A message was longer than the buffer of the receive.
    Truncated {
        /// Bytes of the message.
        message_bytes: u64,
        /// Bytes of the buffer.
        room_bytes: u64,
    },
    /// Some of several requests failed; the statuses say which.
    InStatus,
    /// The buffer for buffered sends is too small.
    NoBufferSpace {
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        room: usize,
    },
    /// A code that a callback of the program returned.
    Code(c_int),
}

/// MPI error classes.
pub mod class {
    #![allow(missing_docs, dead_code)]
    use core::ffi::c_int;
    pub const SUCCESS: c_int = 0;
    pub const BUFFER: c_int = 1;
    pub const COUNT: c_int = 2;
    pub const TYPE: c_int = 3;
    pub const TAG: c_int = 4;
    pub const COMM: c_int = 5;
    pub const RANK: c_int = 6;
    pub const REQUEST: c_int = 7;
    pub const ROOT: c_int = 8;
    pub const GROUP: c_int = 9;
    pub const OP: c_int = 10;
    pub const TOPOLOGY: c_int = 11;
    pub const DIMS: c_int = 12;
    pub const ARG: c_int = 13;
    pub const UNKNOWN: c_int = 14;
    pub const TRUNCATE: c_int = 15;
    pub const OTHER: c_int = 16;
    pub const INTERN: c_int = 17;
    pub const PENDING: c_int = 18;
    pub const IN_STATUS: c_int = 19;
    pub const INFO_KEY: c_int = 31;
    pub const INFO_NOKEY: c_int = 32;
    pub const INFO_VALUE: c_int = 33;
    pub const INFO: c_int = 34;
    pub const KEYVAL: c_int = 36;
    pub const UNSUPPORTED_DATAREP: c_int = 54;
    pub const ERRHANDLER: c_int = 61;
}

/// Names and meanings of the error classes, by class.
const CLASSES: [(&str, &str); 20] = [
    ("MPI_SUCCESS", "no error"),
    ("MPI_ERR_BUFFER", "invalid buffer"),
    ("MPI_ERR_COUNT", "invalid count"),
    ("MPI_ERR_TYPE", "invalid datatype"),
    ("MPI_ERR_TAG", "invalid tag"),
    ("MPI_ERR_COMM", "invalid communicator"),
    ("MPI_ERR_RANK", "invalid rank"),
    ("MPI_ERR_REQUEST", "invalid request"),
    ("MPI_ERR_ROOT", "invalid root"),
    ("MPI_ERR_GROUP", "invalid group"),
    ("MPI_ERR_OP", "invalid reduction operation"),
    ("MPI_ERR_TOPOLOGY", "invalid topology"),
    ("MPI_ERR_DIMS", "invalid dimensions"),
    ("MPI_ERR_ARG", "invalid argument"),
    ("MPI_ERR_UNKNOWN", "unknown error"),
    ("MPI_ERR_TRUNCATE", "message truncated"),
    ("MPI_ERR_OTHER", "other error"),
    ("MPI_ERR_INTERN", "internal error"),
    ("MPI_ERR_PENDING", "request is pending"),
    ("MPI_ERR_IN_STATUS", "the error is in the statuses"),
];

/// Name and meaning of an error class.
pub fn describe(class: c_int) -> (&'static str, &'static str) {
    match class {
        class::INFO_KEY => ("MPI_ERR_INFO_KEY", "invalid key of an info"),
        class::INFO_NOKEY => ("MPI_ERR_INFO_NOKEY", "the info does not have the key"),
        class::INFO_VALUE => ("MPI_ERR_INFO_VALUE", "invalid value of an info"),
        class::INFO => ("MPI_ERR_INFO", "invalid info"),
        class::UNSUPPORTED_DATAREP => ("MPI_ERR_UNSUPPORTED_DATAREP", "unknown data representation"),
        class::KEYVAL => ("MPI_ERR_KEYVAL", "invalid attribute key"),
        class::ERRHANDLER => ("MPI_ERR_ERRHANDLER", "invalid error handler"),
        _ => usize::try_from(class)
            .ok()
            .and_then(|class| CLASSES.get(class).copied())
            .unwrap_or(("MPI_ERR_UNKNOWN", "unknown error")),
    }
}

impl Error {
    /// The MPI error class, which is also the error code.
    pub fn class(&self) -> c_int {
        match self {
            Error::Invalid(class, _) | Error::Code(class) => *class,
            Error::Truncated { .. } => class::TRUNCATE,
            Error::InStatus => class::IN_STATUS,
            Error::NoBufferSpace { .. } => class::BUFFER,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, meaning) = describe(self.class());
        match self {
            Error::Invalid(_, what) => write!(f, "{meaning}: {what} ({name})"),
            Error::Truncated { message_bytes, room_bytes } => {
                write!(f, "message truncated: {message_bytes} bytes arrived, room for {room_bytes} ({name})")
            }
            Error::NoBufferSpace { needed, room } => {
                write!(f, "the attached buffer has {room} bytes, {needed} are needed ({name})")
            }
            _ => write!(f, "{meaning} ({name})"),
        }
    }
}
