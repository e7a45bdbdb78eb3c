//! What can go wrong with a call.

use std::ops::Range;

/// A call that was not made, or was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Before `mpi::initialize`, or after its universe was dropped.
    #[error("MPI is not running: call this between mpi::initialize() and the end of its universe")]
    NotRunning,
    /// Not on the thread that started MPI.
    #[error("this is not MPI's main thread: make the calls there")]
    OtherThread,
    /// Units that the application has not.
    #[error("units {} to {} are not among {total}: a rank has some of the application's units, numbered from 0", mine.start, mine.end)]
    NoSuchUnits {
        /// Units of the application.
        total: u64,
        /// Those the rank was to have.
        mine: Range<u64>,
    },
    /// More than the interface can count: 2^63 or more.
    #[error("{units} units are too many: at most 2^63 - 1")]
    TooMany {
        /// How many.
        units: u64,
    },
    /// The library refused it, and the program had asked MPI to return errors.
    #[error("{call} was refused: MPI error class {class}")]
    Refused {
        /// The call's name in `partita.h`.
        call: &'static str,
        /// MPI's error class.
        class: i32,
    },
}
