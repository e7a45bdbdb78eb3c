//! Communicators.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::{c_char, c_int};

use super::{api, attribute, collective, info, put, put_text};
use crate::error::{Error, class};
use crate::group::{Comparison, Ranks};
use crate::handle::{Comm, Group, Info, Request};
use crate::runtime::progress;
use crate::runtime::request::{Pending, UNDEFINED};
use crate::runtime::state::{Attribute, Communicator, Owner, with};

/// Members get the context of a new communicator from one of them, which makes every context only once; all communicators
/// that a split makes share one, since no rank is in two of them.
pub fn agree_on_context(comm: Comm) -> Result<u32, Error> {
    let mut context = 0;
    // SAFETY: the number outlives the blocking call.
    collective::run(unsafe { collective::plan_context(comm, &raw mut context, None) }?)?;
    Ok(context)
}

/// A communicator like another, without its attributes.
fn twin(comm: Comm, context: u32) -> Result<(Comm, Vec<Attribute>), Error> {
    with(|mpi| {
        let old = mpi.comm(comm)?;
        let mut new = Communicator::new(old.group.clone(), old.rank, context, b"");
        new.remote = old.remote.clone();
        new.errhandler = old.errhandler;
        new.topology = old.topology.clone();
        new.info = old.info.clone();
        let attributes = old.attributes.clone();
        Ok((mpi.add_comm(new), attributes))
    })
}

fn copy_attributes(comm: Comm, new: Comm, attributes: &[Attribute]) -> Result<(), Error> {
    let result =
        attributes.iter().try_for_each(|of| attribute::copy(Owner::Comm(comm), Owner::Comm(new), *of));
    if result.is_err() {
        with(|mpi| mpi.remove_comm(new));
    }
    result
}

fn duplicate(comm: Comm) -> Result<Comm, Error> {
    let context = agree_on_context(comm)?;
    let (new, attributes) = twin(comm, context)?;
    copy_attributes(comm, new, &attributes)?;
    Ok(new)
}

/// A duplicate whose context comes later: the communicator can be used when the request is complete.
fn duplicate_later(comm: Comm) -> Result<(Comm, Request), Error> {
    let (new, attributes) = twin(comm, u32::MAX)?;
    copy_attributes(comm, new, &attributes)?;
    let cell = Box::into_raw(Box::new(0u32));
    let arrive = Box::new(move || {
        // SAFETY: the number was leaked for this function, which is called once, at the end of the schedule.
        let context = *unsafe { Box::from_raw(cell) };
        let _ = with(|mpi| mpi.comm_mut(new).map(|comm| comm.context = context));
    });
    // SAFETY: the number lives until `arrive` is called.
    let schedule = unsafe { collective::plan_context(comm, cell, Some(arrive)) }?;
    let index = progress::start(schedule);
    Ok((new, with(|mpi| mpi.add_request(comm, Pending::Collective(index)))))
}

/// Adds a communicator of some members, if this process is one.
pub fn add(parent: Comm, ranks: Ranks, remote: Option<Ranks>, context: u32) -> Result<Comm, Error> {
    with(|mpi| {
        let errhandler = mpi.comm(parent)?.errhandler;
        let Some(rank) = ranks.rank_of(mpi.place.rank) else { return Ok(Comm::NULL) };
        if remote.as_ref().is_some_and(Ranks::is_empty) {
            return Ok(Comm::NULL);
        }
        let mut new = Communicator::new(Rc::new(ranks), rank, context, b"");
        new.remote = remote.map(Rc::new);
        new.errhandler = errhandler;
        Ok(mpi.add_comm(new))
    })
}

/// The members of a group with this color, by key and then by rank.
fn of_color(group: &Ranks, all: &[[c_int; 2]], color: c_int) -> Ranks {
    let mut members: Vec<(c_int, usize)> =
        all.iter().enumerate().filter(|(_, of)| of[0] == color).map(|(rank, of)| (of[1], rank)).collect();
    members.sort_unstable();
    let ranks: Vec<usize> = members.iter().map(|&(_, rank)| rank).collect();
    group.pick(&ranks).unwrap_or_default()
}

/// Members of the same color, ordered by key.
pub fn split(comm: Comm, color: c_int, key: c_int) -> Result<Comm, Error> {
    if color < 0 && color != UNDEFINED {
        return Err(Error::Invalid(class::ARG, "a color is negative"));
    }
    let context = agree_on_context(comm)?;
    let (group, remote) = with(|mpi| mpi.comm(comm).map(|of| (of.group.clone(), of.remote.clone())))?;
    let (mine, theirs) = collective::collect(comm, [color, key])?;
    if color == UNDEFINED {
        return Ok(Comm::NULL);
    }
    let remote = remote.map(|remote| of_color(&remote, &theirs, color));
    add(comm, of_color(&group, &mine, color), remote, context)
}

/// A communicator of the members in a group; all members of the old one call.
fn create(comm: Comm, wanted: &Ranks) -> Result<Comm, Error> {
    let (group, remote, me) =
        with(|mpi| mpi.comm(comm).map(|of| (of.group.clone(), of.remote.clone(), mpi.place.rank)))?;
    if !wanted.filter(|_, world| group.rank_of(world).is_none()).is_empty() {
        return Err(Error::Invalid(
            class::GROUP,
            "the group has a member that the communicator does not have",
        ));
    }
    let context = agree_on_context(comm)?;
    let Some(remote) = remote else { return add(comm, wanted.clone(), None, context) };
    let place = wanted.rank_of(me).map_or(UNDEFINED, |place| place as c_int);
    let (_, theirs) = collective::collect(comm, [0, place])?;
    let mut members: Vec<(c_int, usize)> = theirs
        .iter()
        .enumerate()
        .filter(|(_, of)| of[1] != UNDEFINED)
        .map(|(rank, of)| (of[1], rank))
        .collect();
    members.sort_unstable();
    let ranks: Vec<usize> = members.iter().map(|&(_, rank)| rank).collect();
    add(comm, wanted.clone(), Some(remote.pick(&ranks).unwrap_or_default()), context)
}

fn free(comm: &mut Comm) -> Result<(), Error> {
    if *comm == Comm::WORLD || *comm == Comm::SELF {
        return Err(Error::Invalid(class::COMM, "a predefined communicator cannot be freed"));
    }
    attribute::delete_all(Owner::Comm(*comm))?;
    with(|mpi| mpi.remove_comm(*comm));
    *comm = Comm::NULL;
    Ok(())
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
        put(new, Comm::NULL);
        put(new, duplicate(comm)?);
        Ok(())
    }

    /// As Comm_dup, with other hints.
    Comm_dup_with_info(comm: Comm, info: Info, new: *mut Comm) on comm {
        let hints = info::hints(info)?;
        let made = duplicate(comm)?;
        with(|mpi| mpi.comm_mut(made).map(|comm| comm.info = hints))?;
        put(new, made);
        Ok(())
    }

    /// As Comm_dup, without waiting.
    Comm_idup(comm: Comm, new: *mut Comm, request: *mut Request) on comm {
        let (made, under_way) = duplicate_later(comm)?;
        put(new, made);
        put(request, under_way);
        Ok(())
    }

    /// As Comm_dup_with_info, without waiting.
    Comm_idup_with_info(comm: Comm, info: Info, new: *mut Comm, request: *mut Request) on comm {
        let hints = info::hints(info)?;
        let (made, under_way) = duplicate_later(comm)?;
        with(|mpi| mpi.comm_mut(made).map(|comm| comm.info = hints))?;
        put(new, made);
        put(request, under_way);
        Ok(())
    }

    /// Adds hints. None changes anything here; those that the standard names are kept.
    Comm_set_info(comm: Comm, info: Info) on comm {
        let hints = info::hints(info)?;
        with(|mpi| mpi.comm_mut(comm).map(|comm| comm.info.extend(&hints)))
    }

    /// The hints.
    Comm_get_info(comm: Comm, used: *mut Info) on comm {
        let hints = with(|mpi| mpi.comm(comm).map(|comm| comm.info.clone()))?;
        put(used, info::add(hints));
        Ok(())
    }

    /// Members of the same color, ordered by key.
    Comm_split(comm: Comm, color: c_int, key: c_int, new: *mut Comm) on comm {
        put(new, split(comm, color, key)?);
        Ok(())
    }

    /// Members that share memory: partitions share none, so everyone is alone, whatever the hints. There is no smaller
    /// piece of hardware than a partition, and none with a name.
    Comm_split_type(comm: Comm, kind: c_int, key: c_int, info: Info, new: *mut Comm) on comm {
        const SHARED: c_int = 221;
        const HW_UNGUIDED: c_int = 222;
        const HW_GUIDED: c_int = 223;
        info::entries(info)?;
        let alone = with(|mpi| Ok(mpi.comm(comm)?.rank))? as c_int;
        let color = match kind {
            SHARED => alone,
            UNDEFINED | HW_UNGUIDED | HW_GUIDED => UNDEFINED,
            _ => return Err(Error::Invalid(class::ARG, "not a kind of split")),
        };
        put(new, split(comm, color, key)?);
        Ok(())
    }

    /// A communicator of some members; all members of the old one call.
    Comm_create(comm: Comm, group: Group, new: *mut Comm) on comm {
        let ranks = with(|mpi| mpi.group(group))?;
        put(new, create(comm, &ranks)?);
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
        collective::barrier(*comm)?;
        Ok(free(&mut *comm)?)
    }

    /// How two communicators compare.
    Comm_compare(first: Comm, second: Comm, result: *mut c_int) on first {
        let comparison = with(|mpi| {
            let (one, other) = (mpi.comm(first)?, mpi.comm(second)?);
            if first == second {
                return Ok(Comparison::Identical);
            }
            let remote = match (&one.remote, &other.remote) {
                (None, None) => Comparison::Identical,
                (Some(one), Some(other)) => one.compare(other),
                _ => Comparison::Unequal,
            };
            let worst = (one.group.compare(&other.group) as c_int).max(remote as c_int);
            Ok(match worst {
                204 => Comparison::Unequal,
                203 => Comparison::Similar,
                _ => Comparison::Congruent,
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
        put_text(name, &found, length);
        Ok(())
    }
}

/// Members of the group agree by messages to the first of them, on a context that nothing else uses.
fn create_group(comm: Comm, ranks: &Ranks, tag: c_int) -> Result<Comm, Error> {
    const CONTEXT_OF_AGREEMENT: u32 = u32::MAX - 1;
    let Some(me) = with(|mpi| Ok(ranks.rank_of(mpi.place.rank)))? else { return Ok(Comm::NULL) };
    let pair = with(|mpi| {
        let members = Rc::new(ranks.clone());
        mpi.add_comm(Communicator::new(members, me, CONTEXT_OF_AGREEMENT - 1, b""))
    });
    with(|mpi| mpi.comm_mut(pair).map(|comm| comm.sequence = tag.cast_unsigned() & 0xffff))?;
    let context = agree_on_context(pair);
    with(|mpi| mpi.remove_comm(pair));
    add(comm, ranks.clone(), None, context?)
}
