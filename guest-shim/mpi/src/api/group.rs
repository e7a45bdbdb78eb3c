//! Groups.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::c_int;

use super::{api, array, array_mut, count, put};
use crate::error::{Error, class};
use crate::group::{Ranks, expand_ranges};
use crate::handle::Group;
use crate::runtime::request::{PROC_NULL, UNDEFINED};
use crate::runtime::state::with;

fn group(handle: Group) -> Result<Rc<Ranks>, Error> {
    with(|mpi| mpi.group(handle))
}

fn add(ranks: Ranks) -> Group {
    with(|mpi| mpi.add_group(Rc::new(ranks)))
}

const NOT_A_RANK: Error = Error::Invalid(class::RANK, "not a rank of the group");

fn members(numbers: &[c_int]) -> Result<Vec<usize>, Error> {
    numbers.iter().map(|&rank| usize::try_from(rank).map_err(|_| NOT_A_RANK)).collect()
}

fn include(handle: Group, ranks: &[usize]) -> Result<Group, Error> {
    Ok(add(group(handle)?.pick(ranks).ok_or(NOT_A_RANK)?))
}

fn exclude(handle: Group, ranks: &[usize]) -> Result<Group, Error> {
    let all = group(handle)?;
    if ranks.iter().any(|&rank| rank >= all.len()) {
        return Err(NOT_A_RANK);
    }
    Ok(add(all.filter(|rank, _| !ranks.contains(&rank))))
}

fn ranges(triplets: &[[c_int; 3]]) -> Result<Vec<usize>, Error> {
    expand_ranges(triplets)
        .ok_or(Error::Invalid(class::ARG, "a range has a stride of zero or a negative rank"))
}

api! {
    /// Number of members.
    Group_size(handle: Group, size: *mut c_int) {
        put(size, group(handle)?.len() as c_int);
        Ok(())
    }

    /// My rank, if I am a member.
    Group_rank(handle: Group, rank: *mut c_int) {
        let group = group(handle)?;
        let me = with(|mpi| mpi.place.rank);
        put(rank, group.rank_of(me).map_or(UNDEFINED, |rank| rank as c_int));
        Ok(())
    }

    /// The ranks that members of one group have in another.
    Group_translate_ranks(first: Group, number: c_int, ranks: *const c_int, second: Group, results: *mut c_int) {
        let (first, second) = (group(first)?, group(second)?);
        let number = count(number)?;
        for (&rank, result) in array(ranks, number).iter().zip(array_mut(results, number)) {
            *result = if rank == PROC_NULL {
                PROC_NULL
            } else {
                let world = usize::try_from(rank).ok().and_then(|rank| first.world(rank)).ok_or(NOT_A_RANK)?;
                second.rank_of(world).map_or(UNDEFINED, |rank| rank as c_int)
            };
        }
        Ok(())
    }

    /// How two groups compare.
    Group_compare(first: Group, second: Group, result: *mut c_int) {
        put(result, group(first)?.compare(&*group(second)?) as c_int);
        Ok(())
    }

    /// Members of either.
    Group_union(first: Group, second: Group, new: *mut Group) {
        put(new, add(group(first)?.union(&*group(second)?)));
        Ok(())
    }

    /// Members of both.
    Group_intersection(first: Group, second: Group, new: *mut Group) {
        let second = group(second)?;
        put(new, add(group(first)?.filter(|_, world| second.rank_of(world).is_some())));
        Ok(())
    }

    /// Members of the first that are not in the second.
    Group_difference(first: Group, second: Group, new: *mut Group) {
        let second = group(second)?;
        put(new, add(group(first)?.filter(|_, world| second.rank_of(world).is_none())));
        Ok(())
    }

    /// The members named.
    Group_incl(handle: Group, number: c_int, ranks: *const c_int, new: *mut Group) {
        put(new, include(handle, &members(array(ranks, count(number)?))?)?);
        Ok(())
    }

    /// The members not named.
    Group_excl(handle: Group, number: c_int, ranks: *const c_int, new: *mut Group) {
        put(new, exclude(handle, &members(array(ranks, count(number)?))?)?);
        Ok(())
    }

    /// The members in ranges.
    Group_range_incl(handle: Group, number: c_int, triplets: *const [c_int; 3], new: *mut Group) {
        put(new, include(handle, &ranges(array(triplets, count(number)?))?)?);
        Ok(())
    }

    /// The members not in ranges.
    Group_range_excl(handle: Group, number: c_int, triplets: *const [c_int; 3], new: *mut Group) {
        put(new, exclude(handle, &ranges(array(triplets, count(number)?))?)?);
        Ok(())
    }

    /// Ends a group.
    Group_free(handle: *mut Group) {
        group(*handle)?;
        with(|mpi| mpi.remove_group(*handle));
        put(handle, Group::NULL);
        Ok(())
    }
}
