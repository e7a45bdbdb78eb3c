//! Communicators.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::{c_char, c_int};

use super::{api, attribute, collective, put};
use crate::error::{Error, class};
use crate::group::{Comparison, Ranks};
use crate::handle::{Comm, Group, Info};
use crate::runtime::request::{SendMode, UNDEFINED};
use crate::runtime::state::{Communicator, with};

/// Members agree on the context of a new communicator. Contexts are never used again; two communicators share one only
/// if no rank is in both.
fn agree_on_context(comm: Comm) -> Result<u32, Error> {
    let lowest = with(|mpi| mpi.next_context);
    let context = collective::agree_on_maximum(comm, lowest)?;
    with(|mpi| mpi.next_context = context + 2);
    Ok(context)
}

fn duplicate(comm: Comm) -> Result<Comm, Error> {
    let context = agree_on_context(comm)?;
    let (new, attributes) = with(|mpi| {
        let old = mpi.comm(comm)?;
        let mut new = Communicator::new(old.group.clone(), old.rank, context, b"");
        new.errhandler = old.errhandler;
        let attributes = old.attributes.clone();
        Ok((mpi.add_comm(new), attributes))
    })?;
    for (key, value) in attributes {
        attribute::copy(comm, new, key, value)?;
    }
    Ok(new)
}

fn add(parent: Comm, ranks: Ranks, context: u32) -> Result<Comm, Error> {
    with(|mpi| {
        let errhandler = mpi.comm(parent)?.errhandler;
        let Some(rank) = ranks.rank_of(mpi.place.rank) else { return Ok(Comm::NULL) };
        let mut new = Communicator::new(Rc::new(ranks), rank, context, b"");
        new.errhandler = errhandler;
        Ok(mpi.add_comm(new))
    })
}

fn split(comm: Comm, color: c_int, key: c_int) -> Result<Comm, Error> {
    if color < 0 && color != UNDEFINED {
        return Err(Error::Invalid(class::ARG, "a color is negative"));
    }
    let context = agree_on_context(comm)?;
    let group = with(|mpi| Ok(mpi.comm(comm)?.group.clone()))?;
    let all = collective::collect(comm, [color, key], group.len())?;
    if color == UNDEFINED {
        return Ok(Comm::NULL);
    }
    let mut members: Vec<(c_int, usize)> =
        all.iter().enumerate().filter(|(_, of)| of[0] == color).map(|(rank, of)| (of[1], rank)).collect();
    members.sort_unstable();
    let ranks: Vec<usize> = members.iter().map(|&(_, rank)| rank).collect();
    add(comm, group.pick(&ranks).unwrap_or_default(), context)
}

fn free(comm: &mut Comm) -> Result<(), Error> {
    if *comm == Comm::WORLD || *comm == Comm::SELF {
        return Err(Error::Invalid(class::COMM, "a predefined communicator cannot be freed"));
    }
    attribute::delete_all(*comm)?;
    with(|mpi| mpi.remove_comm(*comm));
    *comm = Comm::NULL;
    Ok(())
}

/// Copies a name of at most 127 bytes and a NUL.
///
/// # Safety
/// `target` has room for 128 bytes.
unsafe fn put_name(target: *mut c_char, name: &[u8], length: *mut c_int) {
    for (index, byte) in name.iter().chain([&0]).enumerate() {
        // SAFETY: as promised by the caller.
        unsafe { put(target.add(index), byte.cast_signed()) };
    }
    // SAFETY: as promised by the caller.
    unsafe { put(length, name.len() as c_int) };
}

api! {
    /// My rank.
    Comm_rank(comm: Comm, rank: *mut c_int) on comm {
        put(rank, with(|mpi| Ok(mpi.comm(comm)?.rank))? as c_int);
        Ok(())
    }

    /// Number of members.
    Comm_size(comm: Comm, size: *mut c_int) on comm {
        put(size, with(|mpi| Ok(mpi.comm(comm)?.group.len()))? as c_int);
        Ok(())
    }

    /// The same members in another context.
    Comm_dup(comm: Comm, new: *mut Comm) on comm {
        put(new, duplicate(comm)?);
        Ok(())
    }

    /// As Comm_dup; there are no infos.
    Comm_dup_with_info(comm: Comm, info: Info, new: *mut Comm) on comm {
        let _ = info;
        put(new, duplicate(comm)?);
        Ok(())
    }

    /// Members of the same color, ordered by key.
    Comm_split(comm: Comm, color: c_int, key: c_int, new: *mut Comm) on comm {
        put(new, split(comm, color, key)?);
        Ok(())
    }

    /// Members that share memory: partitions share none, so everyone is alone.
    Comm_split_type(comm: Comm, kind: c_int, key: c_int, info: Info, new: *mut Comm) on comm {
        let _ = info;
        let alone = with(|mpi| Ok(mpi.comm(comm)?.rank))? as c_int;
        put(new, split(comm, if kind == UNDEFINED { UNDEFINED } else { alone }, key)?);
        Ok(())
    }

    /// A communicator of some members; all members of the old one call.
    Comm_create(comm: Comm, group: Group, new: *mut Comm) on comm {
        let ranks = with(|mpi| mpi.group(group))?;
        let context = agree_on_context(comm)?;
        put(new, add(comm, (*ranks).clone(), context)?);
        Ok(())
    }

    /// A communicator of some members; only those call.
    Comm_create_group(comm: Comm, group: Group, tag: c_int, new: *mut Comm) on comm {
        let ranks = with(|mpi| mpi.group(group))?;
        put(new, create_group(comm, &ranks, tag)?);
        Ok(())
    }

    /// Ends a communicator.
    Comm_free(comm: *mut Comm) {
        Ok(free(&mut *comm)?)
    }

    /// Ends a communicator when everything on it is done.
    Comm_disconnect(comm: *mut Comm) {
        collective::agree_on_maximum(*comm, 0)?;
        Ok(free(&mut *comm)?)
    }

    /// How two communicators compare.
    Comm_compare(first: Comm, second: Comm, result: *mut c_int) on first {
        let comparison = with(|mpi| {
            let (one, other) = (mpi.comm(first)?, mpi.comm(second)?);
            Ok(match one.group.compare(&other.group) {
                Comparison::Identical if first != second => Comparison::Congruent,
                comparison => comparison,
            })
        })?;
        put(result, comparison as c_int);
        Ok(())
    }

    /// The members.
    Comm_group(comm: Comm, group: *mut Group) on comm {
        let handle = with(|mpi| {
            let members = mpi.comm(comm)?.group.clone();
            Ok(mpi.add_group(members))
        })?;
        put(group, handle);
        Ok(())
    }

    /// There are no intercommunicators.
    Comm_test_inter(comm: Comm, flag: *mut c_int) on comm {
        with(|mpi| mpi.comm(comm).map(|_| ()))?;
        put(flag, 0);
        Ok(())
    }

    /// Nobody has spawned this program.
    Comm_get_parent(parent: *mut Comm) {
        put(parent, Comm::NULL);
        Ok(())
    }

    /// Names a communicator.
    Comm_set_name(comm: Comm, name: *const c_char) on comm {
        let name = core::ffi::CStr::from_ptr(name).to_bytes();
        with(|mpi| {
            mpi.comm_mut(comm)?.name = name[..name.len().min(127)].to_vec();
            Ok(())
        })
    }

    /// The name of a communicator.
    Comm_get_name(comm: Comm, name: *mut c_char, length: *mut c_int) on comm {
        let found = with(|mpi| Ok(mpi.comm(comm)?.name.clone()))?;
        put_name(name, &found, length);
        Ok(())
    }
}

/// Members of the group agree by messages to the first of them, on a context that nothing else uses.
fn create_group(comm: Comm, ranks: &Ranks, tag: c_int) -> Result<Comm, Error> {
    const CONTEXT_OF_AGREEMENT: u32 = u32::MAX - 1;
    let Some(me) = with(|mpi| Ok(ranks.rank_of(mpi.place.rank)))? else { return Ok(Comm::NULL) };
    let lowest = with(|mpi| mpi.next_context);
    let pair = with(|mpi| {
        let members = Rc::new(ranks.clone());
        mpi.add_comm(Communicator::new(members, me, CONTEXT_OF_AGREEMENT - 1, b""))
    });
    with(|mpi| mpi.comm_mut(pair).map(|comm| comm.sequence = tag.cast_unsigned() & 0xffff))?;
    let context = collective::agree_on_maximum(pair, lowest);
    let _ = SendMode::Standard;
    with(|mpi| mpi.remove_comm(pair));
    let context = context?;
    with(|mpi| mpi.next_context = context + 2);
    add(comm, ranks.clone(), context)
}
