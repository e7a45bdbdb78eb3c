//! How datatypes were made, and datatypes chosen by size or precision.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::c_int;

use super::datatype::of;
use super::{api, array_mut, count, put};
use crate::constructor::{Combiner, Constructor, Ingredient};
use crate::error::{Error, class};
use crate::handle::{Datatype, Handle};
use crate::runtime::request::UNDEFINED;
use crate::runtime::state::{DatatypeObject, with};

fn made(datatype: Datatype) -> Result<Option<Rc<Constructor>>, Error> {
    of(datatype)?;
    Ok(with(|mpi| mpi.constructor(datatype)))
}

/// Size and handle of the predefined types of each class of MPI_Type_match_size.
const INTEGERS: &[(usize, usize)] = &[(1, 0x2c1), (2, 0x2c9), (4, 0x2d1), (8, 0x2d9), (16, 0x2e1)];
const REALS: &[(usize, usize)] = &[(4, 0x2d2), (8, 0x2da), (16, 0x2e2)];
const COMPLEXES: &[(usize, usize)] = &[(8, 0x2db), (16, 0x2e3), (32, 0x2eb)];

/// Decimal range of Fortran's INTEGER kinds, with the type that has it.
const RANGES: &[(c_int, usize)] = &[(2, 0x2c1), (4, 0x2c9), (9, 0x2d1), (18, 0x2d9), (38, 0x2e1)];
/// Decimal precision and exponent range of Fortran's REAL kinds, with the real and the complex type.
const PRECISIONS: &[(c_int, c_int, usize, usize)] =
    &[(6, 37, 0x2d2, 0x2db), (15, 307, 0x2da, 0x2e3), (33, 4931, 0x2e2, 0x2eb)];

/// The same arguments give the same handle, so that programs may compare.
fn precise(combiner: Combiner, integers: Vec<c_int>, base: Option<usize>) -> Result<Datatype, Error> {
    let base = Handle(base.ok_or(Error::Invalid(class::ARG, "no type has this precision or range"))?);
    let of = of(base)?;
    with(|mpi| {
        let known = mpi.precise_types.iter().copied().find(|&datatype| {
            mpi.constructor(datatype)
                .is_some_and(|made| made.combiner == combiner && made.integers == integers)
        });
        Ok(known.unwrap_or_else(|| {
            let made = Rc::new(Constructor { combiner, integers, addresses: Vec::new(), types: Vec::new() });
            let new = mpi.add_datatype(DatatypeObject { of, made });
            mpi.precise_types.push(new);
            new
        }))
    })
}

fn real_kind(precision: c_int, range: c_int) -> Option<&'static (c_int, c_int, usize, usize)> {
    let fits = |kind: &&(c_int, c_int, usize, usize)| {
        (precision == UNDEFINED || precision <= kind.0) && (range == UNDEFINED || range <= kind.1)
    };
    if precision == UNDEFINED && range == UNDEFINED { None } else { PRECISIONS.iter().find(fits) }
}

fn copy<T: Copy>(from: &[T], to: &mut [T]) -> Result<(), Error> {
    let room =
        to.get_mut(..from.len()).ok_or(Error::Invalid(class::ARG, "the arrays have not enough room"))?;
    room.copy_from_slice(from);
    Ok(())
}

api! {
    /// With which function a datatype was made, and how many arguments it had.
    Type_get_envelope(datatype: Datatype, integers: *mut c_int, addresses: *mut c_int, types: *mut c_int,
        combiner: *mut c_int) {
        let made = made(datatype)?;
        let lengths = made.as_ref().map_or([0; 3], |m| [m.integers.len(), m.addresses.len(), m.types.len()]);
        put(integers, lengths[0] as c_int);
        put(addresses, lengths[1] as c_int);
        put(types, lengths[2] as c_int);
        put(combiner, made.map_or(Combiner::Named, |made| made.combiner) as c_int);
        Ok(())
    }

    /// With which arguments a datatype was made. Datatypes of the program come as new handles.
    Type_get_contents(datatype: Datatype, room_integers: c_int, room_addresses: c_int, room_types: c_int,
        integers: *mut c_int, addresses: *mut isize, types: *mut Datatype) {
        let named = Error::Invalid(class::TYPE, "a predefined datatype has no contents");
        let made = made(datatype)?.ok_or(named)?;
        copy(&made.integers, array_mut(integers, count(room_integers)?))?;
        copy(&made.addresses, array_mut(addresses, count(room_addresses)?))?;
        let handle = |ingredient: &Ingredient| match ingredient {
            Ingredient::Predefined(datatype) => *datatype,
            Ingredient::Made(of, made) => {
                with(|mpi| mpi.add_datatype(DatatypeObject { of: of.clone(), made: made.clone() }))
            }
        };
        let room = count(room_types)?;
        if room < made.types.len() {
            return Err(Error::Invalid(class::ARG, "the arrays have not enough room").into());
        }
        let handles: Vec<Datatype> = made.types.iter().map(handle).collect();
        Ok(copy(&handles, array_mut(types, room))?)
    }

    /// The predefined type of a class with this size.
    Type_match_size(kind: c_int, size: c_int, datatype: *mut Datatype) {
        let candidates = match kind {
            192 => INTEGERS,
            193 => REALS,
            194 => COMPLEXES,
            _ => return Err(Error::Invalid(class::ARG, "not a class of types").into()),
        };
        let size = count(size)?;
        let found = candidates.iter().find(|(bytes, _)| *bytes == size).map(|(_, handle)| Handle(*handle));
        put(datatype, found.ok_or(Error::Invalid(class::ARG, "no type of this class has this size"))?);
        Ok(())
    }

    /// The INTEGER type with this decimal range.
    Type_create_f90_integer(range: c_int, new: *mut Datatype) {
        let base = RANGES.iter().find(|(most, _)| range <= *most).map(|(_, handle)| *handle);
        put(new, precise(Combiner::F90Integer, alloc::vec![range], base)?);
        Ok(())
    }

    /// The REAL type with this precision and range.
    Type_create_f90_real(precision: c_int, range: c_int, new: *mut Datatype) {
        let base = real_kind(precision, range).map(|kind| kind.2);
        put(new, precise(Combiner::F90Real, alloc::vec![precision, range], base)?);
        Ok(())
    }

    /// The COMPLEX type with this precision and range.
    Type_create_f90_complex(precision: c_int, range: c_int, new: *mut Datatype) {
        let base = real_kind(precision, range).map(|kind| kind.3);
        put(new, precise(Combiner::F90Complex, alloc::vec![precision, range], base)?);
        Ok(())
    }
}
