//! How a datatype was made: what MPI_Type_get_envelope and MPI_Type_get_contents tell.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::c_int;

use crate::datatype::Type;
use crate::handle::Datatype;

/// The constructors, with the values of the MPI ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Combiner {
    Named = 101,
    Dup = 102,
    Contiguous = 103,
    Vector = 104,
    Hvector = 105,
    Indexed = 106,
    Hindexed = 107,
    IndexedBlock = 108,
    HindexedBlock = 109,
    Struct = 110,
    Subarray = 111,
    Darray = 112,
    F90Real = 113,
    F90Complex = 114,
    F90Integer = 115,
    Resized = 116,
}

/// A datatype that another one was made of. It lives on when the program frees its handle.
#[derive(Debug, Clone)]
pub enum Ingredient {
    /// Predefined.
    Predefined(Datatype),
    /// Made by the program.
    Made(Rc<Type>, Rc<Constructor>),
}

/// A constructor and its arguments.
#[derive(Debug)]
pub struct Constructor {
    /// Which.
    pub combiner: Combiner,
    /// The integers, in the order of MPI_Type_get_contents.
    pub integers: Vec<c_int>,
    /// The addresses.
    pub addresses: Vec<isize>,
    /// The datatypes.
    pub types: Vec<Ingredient>,
}
