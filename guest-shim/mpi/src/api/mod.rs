//! The C functions. `PMPI_X` is the function, `MPI_X` a weak second name for it that a profiling library may replace.
//!
//! Every pointer argument is what the MPI standard asks for; that is the safety contract of all of them.

#![allow(
    non_snake_case,
    unsafe_code,
    clippy::missing_safety_doc,
    clippy::too_many_arguments,
    // The closures give the bodies in the macro their `?`.
    clippy::redundant_closure_call
)]

pub mod attribute;
pub mod collective;
pub mod comm;
pub mod constructor;
pub mod datatype;
pub mod environment;
pub mod errhandler;
pub mod error_code;
pub mod generalized;
pub mod group;
pub mod info;
pub mod intercollective;
pub mod intercomm;
pub mod message;
pub mod neighbour;
pub mod operation;
pub mod pack;
pub mod pt2pt;
pub mod request;
pub mod topology;
pub mod type_name;
pub mod units;

use core::ffi::{c_char, c_int};

use crate::error::{Error, class};
use crate::handle::{Comm, Errhandler};
use crate::runtime::request::Status;
use crate::runtime::state::{Phase, fatal, phase, with};

/// An error and the communicator whose handler gets it.
pub struct Failure {
    comm: Comm,
    error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { comm: Comm::WORLD, error }
    }
}

impl Error {
    /// The error of a call on this communicator.
    pub fn on(self, comm: Comm) -> Failure {
        Failure { comm, error: self }
    }
}

/// Writes through a pointer of the program.
///
/// # Safety
/// The pointer is null or valid.
unsafe fn put<T>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        // SAFETY: as promised by the caller.
        unsafe { pointer.write(value) };
    }
}

/// Writes a status unless it is to be ignored. The error field is left alone, as the standard asks (MPI 4.0, 3.2.5), but for
/// the empty status, of which it is a part (3.7.3).
///
/// # Safety
/// The pointer is null or valid.
unsafe fn put_status(pointer: *mut Status, status: Status) {
    if !pointer.is_null() {
        // SAFETY: as promised by the caller.
        unsafe {
            *pointer = if status == Status::EMPTY { status } else { status.with_error((*pointer).error) }
        };
    }
}

/// An array of the program, empty if there is none.
///
/// # Safety
/// `count` elements must be there if `count` is positive.
unsafe fn array<'a, T>(pointer: *const T, count: usize) -> &'a [T] {
    if pointer.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as promised by the caller.
    unsafe { core::slice::from_raw_parts(pointer, count) }
}

/// An array of the program that is written, empty if there is none.
///
/// # Safety
/// `count` elements must be there if `count` is positive.
unsafe fn array_mut<'a, T>(pointer: *mut T, count: usize) -> &'a mut [T] {
    if pointer.is_null() || count == 0 {
        return &mut [];
    }
    // SAFETY: as promised by the caller.
    unsafe { core::slice::from_raw_parts_mut(pointer, count) }
}

/// Copies text and a NUL.
///
/// # Safety
/// `target` has room for it.
unsafe fn put_text(target: *mut c_char, text: &[u8], length: *mut c_int) {
    for (index, byte) in text.iter().chain([&0]).enumerate() {
        // SAFETY: as promised by the caller.
        unsafe { put(target.add(index), byte.cast_signed()) };
    }
    // SAFETY: as promised by the caller.
    unsafe { put(length, text.len() as c_int) };
}

/// A count of the program.
fn count(value: c_int) -> Result<usize, Error> {
    usize::try_from(value).map_err(|_| Error::Invalid(class::COUNT, "a count is negative"))
}

/// Turns the result of a function into its return value, by way of the error handler.
pub fn answer(function: &str, result: Result<(), Failure>) -> c_int {
    let Err(Failure { comm, error }) = result else { return class::SUCCESS };
    if phase() != Phase::Running {
        fatal(format_args!("{function}: {error}"));
    }
    let (handler, user) = with(|mpi| {
        let handler =
            mpi.comm(comm).or_else(|_| mpi.comm(Comm::WORLD)).map_or(Errhandler::ARE_FATAL, |c| c.errhandler);
        (handler, mpi.errhandlers.get(handler).copied())
    });
    if handler == Errhandler::RETURN {
        return error.class();
    }
    match user {
        Some(user) => {
            errhandler::call(user, comm, error.class());
            error.class()
        }
        None => fatal(format_args!("{function}: {error}")),
    }
}

/// Defines `PMPI_name` and its weak second name `MPI_name`.
macro_rules! api {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),* $(,)?) $(on $comm:ident)? $body:block)*) => { $(
        $(#[$doc])*
        #[unsafe(export_name = concat!("PMPI_", stringify!($name)))]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> core::ffi::c_int {
            #[allow(unused_unsafe)]
            // SAFETY: the program gives the pointers that the MPI standard asks for.
            let body = || unsafe { $crate::api::api!(@result $($comm)?; $body) };
            $crate::api::answer(concat!("MPI_", stringify!($name)), body())
        }
        $crate::api::api!(@alias $name);
    )* };
    (@result $comm:ident; $body:block) => {{
        let result: Result<(), $crate::error::Error> = (|| $body)();
        result.map_err(|error| error.on($comm))
    }};
    (@result ; $body:block) => {{
        let result: Result<(), $crate::api::Failure> = (|| $body)();
        result
    }};
    (@alias $name:ident) => {
        #[cfg(any(feature = "guest", feature = "native"))]
        core::arch::global_asm!(
            concat!(".weak MPI_", stringify!($name)),
            concat!(".set MPI_", stringify!($name), ", PMPI_", stringify!($name)),
        );
    };
}
pub(crate) use api;
