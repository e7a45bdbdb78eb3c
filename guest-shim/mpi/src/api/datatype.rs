//! Datatypes.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use super::{api, array, attribute, count, put};
use crate::constructor::{Combiner, Constructor, Ingredient};
use crate::datatype::{Part, Type};
use crate::error::{Error, class};
use crate::handle::Datatype;
use crate::runtime::request::UNDEFINED;
use crate::runtime::state::{DatatypeObject, Owner, with};

/// The type behind a handle.
pub fn of(datatype: Datatype) -> Result<Rc<Type>, Error> {
    with(|mpi| mpi.datatype(datatype))
}

const TOO_LARGE: Error = Error::Invalid(class::ARG, "the datatype is too large");

/// A constructor that has only integers and one type.
fn simple(combiner: Combiner, integers: &[c_int], old: Datatype) -> Constructor {
    made(combiner, integers.to_vec(), Vec::new(), &[old])
}

fn made(combiner: Combiner, integers: Vec<c_int>, addresses: Vec<isize>, types: &[Datatype]) -> Constructor {
    let ingredient = |&datatype: &Datatype| {
        with(|mpi| match (mpi.datatype(datatype), mpi.constructor(datatype)) {
            (Ok(of), Some(made)) => Ingredient::Made(of, made),
            _ => Ingredient::Predefined(datatype),
        })
    };
    let types = types.iter().map(ingredient).collect();
    Constructor { combiner, integers, addresses, types }
}

fn add(new: Option<Type>, made: Constructor) -> Result<Datatype, Error> {
    let of = Rc::new(new.ok_or(TOO_LARGE)?);
    Ok(with(|mpi| mpi.add_datatype(DatatypeObject { of, made: Rc::new(made) })))
}

fn vector(number: c_int, block: c_int, stride_bytes: isize, old: &Type) -> Result<Option<Type>, Error> {
    let (number, block) = (count(number)?, count(block)?);
    stride_bytes.checked_mul(number.cast_signed()).ok_or(TOO_LARGE)?;
    let part = |i: usize| Part { count: block, offset: i.cast_signed() * stride_bytes, of: old };
    Ok(Type::assemble((0..number).map(part)))
}

/// Blocks of one type at displacements in bytes.
fn blocks(
    lengths: &[c_int],
    offsets: impl Iterator<Item = isize>,
    old: &Type,
) -> Result<Option<Type>, Error> {
    for &length in lengths {
        count(length)?;
    }
    let part = |(&length, offset): (&c_int, isize)| Part { count: length as usize, offset, of: old };
    Ok(Type::assemble(lengths.iter().zip(offsets).map(part)))
}

fn structure(lengths: &[c_int], offsets: &[isize], types: &[Datatype]) -> Result<Datatype, Error> {
    for &length in lengths {
        count(length)?;
    }
    let parts = types.iter().map(|&datatype| of(datatype)).collect::<Result<Vec<_>, _>>()?;
    let part = |i: usize| Part { count: lengths[i] as usize, offset: offsets[i], of: &parts[i] };
    let new = Type::assemble((0..parts.len()).map(part)).map(Type::padded);
    let integers = join(types.len(), &[lengths]);
    add(new, made(Combiner::Struct, integers, offsets.to_vec(), types))
}

fn hindexed(lengths: &[c_int], offsets: &[isize], old: Datatype) -> Result<Datatype, Error> {
    let new = blocks(lengths, offsets.iter().copied(), &*of(old)?)?;
    add(new, made(Combiner::Hindexed, join(lengths.len(), &[lengths]), offsets.to_vec(), &[old]))
}

fn hvector(number: c_int, block: c_int, stride: isize, old: Datatype) -> Result<Datatype, Error> {
    let new = vector(number, block, stride, &*of(old)?)?;
    add(new, made(Combiner::Hvector, alloc::vec![number, block], alloc::vec![stride], &[old]))
}

/// A count and arrays in a row, as MPI_Type_get_contents gives them.
fn join(number: usize, arrays: &[&[c_int]]) -> Vec<c_int> {
    let mut all = alloc::vec![number as c_int];
    arrays.iter().for_each(|array| all.extend_from_slice(array));
    all
}

fn subarray(
    sizes: &[c_int],
    subsizes: &[c_int],
    starts: &[c_int],
    fortran: bool,
    old: &Type,
) -> Result<Type, Error> {
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
    Ok(new.resized(0, stride))
}

const ORDER_C: c_int = 12;
const ORDER_FORTRAN: c_int = 15;

fn is_fortran(order: c_int) -> Result<bool, Error> {
    match order {
        ORDER_C => Ok(false),
        ORDER_FORTRAN => Ok(true),
        _ => Err(Error::Invalid(class::ARG, "not an order of dimensions")),
    }
}

/// How one dimension of an array is dealt out.
struct Dealt {
    length: usize,
    kind: c_int,
    argument: c_int,
    processes: usize,
    place: usize,
}

impl Dealt {
    /// The runs of indices that a process has: first index and length.
    fn runs(&self) -> Result<Vec<(usize, usize)>, Error> {
        const NONE: c_int = 16;
        const BLOCK: c_int = 17;
        const CYCLIC: c_int = 18;
        const DEFAULT: c_int = 19;
        let wrong = Error::Invalid(class::ARG, "the distribution of the array is not valid");
        let block = match (self.kind, self.argument) {
            (NONE, _) if self.processes == 1 => self.length,
            (BLOCK, DEFAULT) => self.length.div_ceil(self.processes),
            (CYCLIC, DEFAULT) => 1,
            (BLOCK | CYCLIC, block) if block > 0 => block as usize,
            _ => return Err(wrong),
        };
        if self.kind == BLOCK && block * self.processes < self.length {
            return Err(wrong);
        }
        let starts = (self.place * block..self.length).step_by((block * self.processes).max(1));
        Ok(starts.map(|start| (start, block.min(self.length - start))).collect())
    }
}

/// The part of process `rank` of an array that is dealt out in all dimensions.
fn darray(dims: &mut [Dealt], rank: usize, fortran: bool, old: &Type) -> Result<Type, Error> {
    // Processes are in row-major order, whatever the order of the array is.
    let mut rest = rank;
    for dealt in dims.iter_mut().rev() {
        dealt.place = rest % dealt.processes;
        rest /= dealt.processes;
    }
    let mut new = old.clone();
    let mut stride = old.extent;
    let dimensions = dims.len();
    for step in 0..dimensions {
        let dealt = &dims[if fortran { step } else { dimensions - 1 - step }];
        let element = new.resized(0, stride);
        let runs = dealt.runs()?;
        let parts = runs.iter().map(|&(start, count)| Part {
            count,
            offset: start.cast_signed() * stride,
            of: &element,
        });
        new = Type::assemble(parts).ok_or(TOO_LARGE)?;
        stride = stride.checked_mul(dealt.length.cast_signed()).ok_or(TOO_LARGE)?;
    }
    Ok(new.resized(0, stride))
}

/// The address of a thing is its distance from `MPI_BOTTOM`.
fn address(location: *const c_void) -> isize {
    (location as usize).cast_signed()
}

/// A size as an int, if it is one.
pub fn to_int(value: isize) -> c_int {
    c_int::try_from(value).unwrap_or(UNDEFINED)
}

api! {
    /// Elements in a row.
    Type_contiguous(number: c_int, old: Datatype, new: *mut Datatype) {
        let part = Part { count: count(number)?, offset: 0, of: &*of(old)? };
        let made = simple(Combiner::Contiguous, &[number], old);
        put(new, add(Type::assemble([part].into_iter()), made)?);
        Ok(())
    }

    /// Blocks at a stride in elements.
    Type_vector(number: c_int, block: c_int, stride: c_int, old: Datatype, new: *mut Datatype) {
        let of = of(old)?;
        let stride_bytes = (stride as isize).checked_mul(of.extent).ok_or(TOO_LARGE)?;
        let made = simple(Combiner::Vector, &[number, block, stride], old);
        put(new, add(vector(number, block, stride_bytes, &of)?, made)?);
        Ok(())
    }

    /// Blocks at a stride in bytes.
    Type_create_hvector(number: c_int, block: c_int, stride: isize, old: Datatype, new: *mut Datatype) {
        put(new, hvector(number, block, stride, old)?);
        Ok(())
    }

    /// The MPI-1 name of Type_create_hvector.
    Type_hvector(number: c_int, block: c_int, stride: isize, old: Datatype, new: *mut Datatype) {
        put(new, hvector(number, block, stride, old)?);
        Ok(())
    }

    /// Blocks at displacements in elements.
    Type_indexed(number: c_int, lengths: *const c_int, displs: *const c_int, old: Datatype, new: *mut Datatype) {
        let (number, of) = (count(number)?, of(old)?);
        let (lengths, displs) = (array(lengths, number), array(displs, number));
        let offsets = displs.iter().map(|&at| at as isize * of.extent);
        let made = simple(Combiner::Indexed, &join(number, &[lengths, displs]), old);
        put(new, add(blocks(lengths, offsets, &of)?, made)?);
        Ok(())
    }

    /// Blocks at displacements in bytes.
    Type_create_hindexed(number: c_int, lengths: *const c_int, displs: *const isize, old: Datatype,
        new: *mut Datatype) {
        let number = count(number)?;
        put(new, hindexed(array(lengths, number), array(displs, number), old)?);
        Ok(())
    }

    /// The MPI-1 name of Type_create_hindexed.
    Type_hindexed(number: c_int, lengths: *const c_int, displs: *const isize, old: Datatype, new: *mut Datatype) {
        let number = count(number)?;
        put(new, hindexed(array(lengths, number), array(displs, number), old)?);
        Ok(())
    }

    /// Equal blocks at displacements in elements.
    Type_create_indexed_block(number: c_int, block: c_int, displs: *const c_int, old: Datatype, new: *mut Datatype) {
        let (number, of) = (count(number)?, of(old)?);
        let displs = array(displs, number);
        let offsets = displs.iter().map(|&at| at as isize * of.extent);
        let made = simple(Combiner::IndexedBlock, &join(number, &[&[block], displs]), old);
        put(new, add(blocks(&alloc::vec![block; number], offsets, &of)?, made)?);
        Ok(())
    }

    /// Equal blocks at displacements in bytes.
    Type_create_hindexed_block(number: c_int, block: c_int, displs: *const isize, old: Datatype,
        new: *mut Datatype) {
        let number = count(number)?;
        let displs = array(displs, number);
        let made = made(Combiner::HindexedBlock, join(number, &[&[block]]), displs.to_vec(), &[old]);
        put(new, add(blocks(&alloc::vec![block; number], displs.iter().copied(), &*of(old)?)?, made)?);
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
        let n = count(dimensions)?;
        let (sizes, subsizes, starts) = (array(sizes, n), array(subsizes, n), array(starts, n));
        let part = subarray(sizes, subsizes, starts, is_fortran(order)?, &*of(old)?)?;
        let made = simple(Combiner::Subarray, &join(n, &[sizes, subsizes, starts, &[order]]), old);
        put(new, add(Some(part), made)?);
        Ok(())
    }

    /// The part of a process of an array that is dealt out.
    Type_create_darray(size: c_int, rank: c_int, dimensions: c_int, gsizes: *const c_int, distribs: *const c_int,
        dargs: *const c_int, psizes: *const c_int, order: c_int, old: Datatype, new: *mut Datatype) {
        let wrong = Error::Invalid(class::ARG, "the grid of processes is not valid");
        let n = count(dimensions)?;
        let (gsizes, distribs) = (array(gsizes, n), array(distribs, n));
        let (dargs, psizes) = (array(dargs, n), array(psizes, n));
        let mut dims = Vec::new();
        for i in 0..n {
            let processes = usize::try_from(psizes[i]).ok().filter(|&processes| processes > 0).ok_or(wrong)?;
            let (length, kind, argument) = (count(gsizes[i])?, distribs[i], dargs[i]);
            dims.push(Dealt { length, kind, argument, processes, place: 0 });
        }
        let grid = dims.iter().try_fold(1usize, |all, dealt| all.checked_mul(dealt.processes));
        let rank_number = usize::try_from(rank).ok().filter(|_| rank < size).ok_or(wrong)?;
        if grid != usize::try_from(size).ok() {
            return Err(wrong.into());
        }
        let part = darray(&mut dims, rank_number, is_fortran(order)?, &*of(old)?)?;
        let mut integers = alloc::vec![size, rank];
        integers.extend(join(n, &[gsizes, distribs, dargs, psizes, &[order]]));
        put(new, add(Some(part), simple(Combiner::Darray, &integers, old))?);
        Ok(())
    }

    /// The same data with other bounds.
    Type_create_resized(old: Datatype, lower: isize, extent: isize, new: *mut Datatype) {
        let made = made(Combiner::Resized, Vec::new(), alloc::vec![lower, extent], &[old]);
        put(new, add(Some(of(old)?.resized(lower, extent)), made)?);
        Ok(())
    }

    /// A copy, with the attributes that want to be copied.
    Type_dup(old: Datatype, new: *mut Datatype) {
        let made = add(Some((*of(old)?).clone()), simple(Combiner::Dup, &[], old))?;
        let attributes = with(|mpi| mpi.type_extras.get(&old.0).map(|extras| extras.attributes.clone()));
        for attribute in attributes.unwrap_or_default() {
            let copied = attribute::copy(Owner::Type(old), Owner::Type(made), attribute);
            if let Err(error) = copied {
                with(|mpi| mpi.remove_datatype(made));
                put(new, Datatype::NULL);
                return Err(error.into());
            }
        }
        put(new, made);
        Ok(())
    }

    /// Nothing to be done.
    Type_commit(datatype: *mut Datatype) {
        of(*datatype)?;
        Ok(())
    }

    /// Ends a datatype; what uses it goes on.
    Type_free(datatype: *mut Datatype) {
        let own = with(|mpi| mpi.constructor(*datatype));
        let f90 = [Combiner::F90Integer, Combiner::F90Real, Combiner::F90Complex];
        if own.is_none_or(|made| f90.contains(&made.combiner)) {
            return Err(Error::Invalid(class::TYPE, "not a datatype of the program").into());
        }
        attribute::delete_all(Owner::Type(*datatype))?;
        with(|mpi| mpi.remove_datatype(*datatype));
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
}
