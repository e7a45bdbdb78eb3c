//! Datatypes.

use core::ffi::{c_int, c_void};

use super::{api, array, count, put};
use crate::datatype::{Part, Type};
use crate::error::{Error, class};
use crate::handle::{Comm, Datatype};
use crate::memory::Region;
use crate::runtime::request::UNDEFINED;
use crate::runtime::schedule::View;
use crate::runtime::state::with;

fn of(datatype: Datatype) -> Result<alloc::rc::Rc<Type>, Error> {
    with(|mpi| mpi.datatype(datatype))
}

const TOO_LARGE: Error = Error::Invalid(class::ARG, "the datatype is too large");

fn add(new: Option<Type>) -> Result<Datatype, Error> {
    let new = new.ok_or(TOO_LARGE)?;
    Ok(with(|mpi| mpi.add_datatype(new)))
}

fn vector(number: c_int, block: c_int, stride_bytes: isize, old: &Type) -> Result<Datatype, Error> {
    let (number, block) = (count(number)?, count(block)?);
    let last = stride_bytes.checked_mul(number.cast_signed()).ok_or(TOO_LARGE)?;
    let _ = last;
    let part = |i: usize| Part { count: block, offset: i.cast_signed() * stride_bytes, of: old };
    add(Type::assemble((0..number).map(part)))
}

/// Blocks of one type at displacements in bytes.
fn blocks(lengths: &[c_int], offsets: impl Iterator<Item = isize>, old: &Type) -> Result<Datatype, Error> {
    for &length in lengths {
        count(length)?;
    }
    let part = |(&length, offset): (&c_int, isize)| Part { count: length as usize, offset, of: old };
    add(Type::assemble(lengths.iter().zip(offsets).map(part)))
}

fn structure(lengths: &[c_int], offsets: &[isize], types: &[Datatype]) -> Result<Datatype, Error> {
    for &length in lengths {
        count(length)?;
    }
    let types = types.iter().map(|&datatype| of(datatype)).collect::<Result<alloc::vec::Vec<_>, _>>()?;
    let part = |i: usize| Part { count: lengths[i] as usize, offset: offsets[i], of: &types[i] };
    add(Type::assemble((0..types.len()).map(part)).map(Type::padded))
}

fn subarray(
    sizes: &[c_int],
    subsizes: &[c_int],
    starts: &[c_int],
    fortran: bool,
    old: &Type,
) -> Result<Datatype, Error> {
    let mut new = old.clone();
    let mut stride = old.extent;
    let dimensions = sizes.len();
    // The fastest dimension first: the last one in C, the first one in Fortran.
    for step in 0..dimensions {
        let d = if fortran { step } else { dimensions - 1 - step };
        let (size, part, start) = (count(sizes[d])?, count(subsizes[d])?, count(starts[d])?);
        if part == 0 || start + part > size {
            return Err(Error::Invalid(class::ARG, "the part does not fit into the array"));
        }
        let row = |i: usize| Part { count: 1, offset: (start + i).cast_signed() * stride, of: &new };
        new = Type::assemble((0..part).map(row)).ok_or(TOO_LARGE)?;
        stride = stride.checked_mul(size.cast_signed()).ok_or(TOO_LARGE)?;
    }
    add(Some(new.resized(0, stride)))
}

/// The address of a thing is its distance from `MPI_BOTTOM`.
fn address(location: *const c_void) -> isize {
    (location as usize).cast_signed()
}

fn to_int(value: isize) -> c_int {
    c_int::try_from(value).unwrap_or(UNDEFINED)
}

api! {
    /// Elements in a row.
    Type_contiguous(number: c_int, old: Datatype, new: *mut Datatype) {
        let old = of(old)?;
        put(new, add(Type::assemble([Part { count: count(number)?, offset: 0, of: &old }].into_iter()))?);
        Ok(())
    }

    /// Blocks at a stride in elements.
    Type_vector(number: c_int, block: c_int, stride: c_int, old: Datatype, new: *mut Datatype) {
        let old = of(old)?;
        let stride = (stride as isize).checked_mul(old.extent).ok_or(TOO_LARGE)?;
        put(new, vector(number, block, stride, &old)?);
        Ok(())
    }

    /// Blocks at a stride in bytes.
    Type_create_hvector(number: c_int, block: c_int, stride: isize, old: Datatype, new: *mut Datatype) {
        put(new, vector(number, block, stride, &*of(old)?)?);
        Ok(())
    }

    /// The MPI-1 name of Type_create_hvector.
    Type_hvector(number: c_int, block: c_int, stride: isize, old: Datatype, new: *mut Datatype) {
        put(new, vector(number, block, stride, &*of(old)?)?);
        Ok(())
    }

    /// Blocks at displacements in elements.
    Type_indexed(number: c_int, lengths: *const c_int, displs: *const c_int, old: Datatype, new: *mut Datatype) {
        let (number, old) = (count(number)?, of(old)?);
        let offsets = array(displs, number).iter().map(|&at| at as isize * old.extent);
        put(new, blocks(array(lengths, number), offsets, &old)?);
        Ok(())
    }

    /// Blocks at displacements in bytes.
    Type_create_hindexed(number: c_int, lengths: *const c_int, displs: *const isize, old: Datatype,
        new: *mut Datatype) {
        let number = count(number)?;
        put(new, blocks(array(lengths, number), array(displs, number).iter().copied(), &*of(old)?)?);
        Ok(())
    }

    /// The MPI-1 name of Type_create_hindexed.
    Type_hindexed(number: c_int, lengths: *const c_int, displs: *const isize, old: Datatype, new: *mut Datatype) {
        let number = count(number)?;
        put(new, blocks(array(lengths, number), array(displs, number).iter().copied(), &*of(old)?)?);
        Ok(())
    }

    /// Equal blocks at displacements in elements.
    Type_create_indexed_block(number: c_int, block: c_int, displs: *const c_int, old: Datatype, new: *mut Datatype) {
        let (number, old) = (count(number)?, of(old)?);
        let offsets = array(displs, number).iter().map(|&at| at as isize * old.extent);
        put(new, blocks(&alloc::vec![block; number], offsets, &old)?);
        Ok(())
    }

    /// Equal blocks at displacements in bytes.
    Type_create_hindexed_block(number: c_int, block: c_int, displs: *const isize, old: Datatype,
        new: *mut Datatype) {
        let number = count(number)?;
        let lengths = alloc::vec![block; number];
        put(new, blocks(&lengths, array(displs, number).iter().copied(), &*of(old)?)?);
        Ok(())
    }

    /// Blocks of different types.
    Type_create_struct(number: c_int, lengths: *const c_int, displs: *const isize, types: *const Datatype,
        new: *mut Datatype) {
        let number = count(number)?;
        put(new, structure(array(lengths, number), array(displs, number), array(types, number))?);
        Ok(())
    }

    /// The MPI-1 name of Type_create_struct.
    Type_struct(number: c_int, lengths: *const c_int, displs: *const isize, types: *const Datatype,
        new: *mut Datatype) {
        let number = count(number)?;
        put(new, structure(array(lengths, number), array(displs, number), array(types, number))?);
        Ok(())
    }

    /// A part of an array of several dimensions.
    Type_create_subarray(dimensions: c_int, sizes: *const c_int, subsizes: *const c_int, starts: *const c_int,
        order: c_int, old: Datatype, new: *mut Datatype) {
        const ORDER_FORTRAN: c_int = 15;
        let n = count(dimensions)?;
        let fortran = order == ORDER_FORTRAN;
        put(new, subarray(array(sizes, n), array(subsizes, n), array(starts, n), fortran, &*of(old)?)?);
        Ok(())
    }

    /// The same data with other bounds.
    Type_create_resized(old: Datatype, lower: isize, extent: isize, new: *mut Datatype) {
        put(new, add(Some(of(old)?.resized(lower, extent)))?);
        Ok(())
    }

    /// A copy.
    Type_dup(old: Datatype, new: *mut Datatype) {
        put(new, add(Some((*of(old)?).clone()))?);
        Ok(())
    }

    /// Nothing to be done.
    Type_commit(datatype: *mut Datatype) {
        of(*datatype)?;
        Ok(())
    }

    /// Ends a datatype; what uses it goes on.
    Type_free(datatype: *mut Datatype) {
        if !with(|mpi| mpi.remove_datatype(*datatype)) {
            return Err(Error::Invalid(class::TYPE, "not a datatype of the program").into());
        }
        put(datatype, Datatype::NULL);
        Ok(())
    }

    /// Bytes of data.
    Type_size(datatype: Datatype, size: *mut c_int) {
        put(size, to_int(of(datatype)?.bytes.cast_signed()));
        Ok(())
    }

    /// Bytes of data.
    Type_size_x(datatype: Datatype, size: *mut i64) {
        put(size, of(datatype)?.bytes as i64);
        Ok(())
    }

    /// Lower bound and extent.
    Type_get_extent(datatype: Datatype, lower: *mut isize, extent: *mut isize) {
        let of = of(datatype)?;
        put(lower, of.lower);
        put(extent, of.extent);
        Ok(())
    }

    /// Lower bound and extent.
    Type_get_extent_x(datatype: Datatype, lower: *mut i64, extent: *mut i64) {
        let of = of(datatype)?;
        put(lower, of.lower as i64);
        put(extent, of.extent as i64);
        Ok(())
    }

    /// First byte and length of the data with its gaps.
    Type_get_true_extent(datatype: Datatype, lower: *mut isize, extent: *mut isize) {
        let bounds = of(datatype)?.true_bounds();
        put(lower, bounds.0);
        put(extent, bounds.1);
        Ok(())
    }

    /// First byte and length of the data with its gaps.
    Type_get_true_extent_x(datatype: Datatype, lower: *mut i64, extent: *mut i64) {
        let bounds = of(datatype)?.true_bounds();
        put(lower, bounds.0 as i64);
        put(extent, bounds.1 as i64);
        Ok(())
    }

    /// The MPI-1 extent.
    Type_extent(datatype: Datatype, extent: *mut isize) {
        put(extent, of(datatype)?.extent);
        Ok(())
    }

    /// The MPI-1 lower bound.
    Type_lb(datatype: Datatype, lower: *mut isize) {
        put(lower, of(datatype)?.lower);
        Ok(())
    }

    /// The MPI-1 upper bound.
    Type_ub(datatype: Datatype, upper: *mut isize) {
        let of = of(datatype)?;
        put(upper, of.lower + of.extent);
        Ok(())
    }

    /// An address as a displacement.
    Get_address(location: *const c_void, result: *mut isize) {
        put(result, address(location));
        Ok(())
    }

    /// The MPI-1 name of Get_address.
    Address(location: *mut c_void, result: *mut isize) {
        put(result, address(location));
        Ok(())
    }

    /// Puts data in a row.
    Pack(input: *const c_void, number: c_int, datatype: Datatype, output: *mut c_void, size: c_int,
        position: *mut c_int, comm: Comm) on comm {
        let view = View { buffer: input.cast_mut().cast(), count: count(number)?, of: of(datatype)? };
        let (at, size) = (count(*position)?, count(size)?);
        if at + view.bytes() > size {
            return Err(Error::Invalid(class::ARG, "the buffer is too small to pack into"));
        }
        view.of.pack(view.buffer, view.count, Region::new(output.cast::<u8>().add(at), view.bytes()));
        put(position, (at + view.bytes()) as c_int);
        Ok(())
    }

    /// The reverse of Pack.
    Unpack(input: *const c_void, size: c_int, position: *mut c_int, output: *mut c_void, number: c_int,
        datatype: Datatype, comm: Comm) on comm {
        let view = View { buffer: output.cast(), count: count(number)?, of: of(datatype)? };
        let (at, size) = (count(*position)?, count(size)?);
        if at + view.bytes() > size {
            return Err(Error::Invalid(class::ARG, "there is not so much to unpack"));
        }
        let packed = Region::new(input.cast_mut().cast::<u8>().add(at), view.bytes());
        view.of.unpack(view.buffer, view.count, packed);
        put(position, (at + view.bytes()) as c_int);
        Ok(())
    }

    /// Bytes that Pack needs.
    Pack_size(number: c_int, datatype: Datatype, comm: Comm, size: *mut c_int) on comm {
        put(size, to_int((count(number)? * of(datatype)?.bytes).cast_signed()));
        Ok(())
    }
}
