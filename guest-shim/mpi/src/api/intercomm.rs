//! Intercommunicators: two groups that talk to each other.

use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use super::comm::{add, agree_on_context};
use super::{api, collective, put};
use crate::error::{Error, class};
use crate::group::Ranks;
use crate::handle::{Comm, Datatype, Group, Handle};
use crate::runtime::request::{Arguments, SendMode, complete};
use crate::runtime::state::with;

const MPI_BYTE: Datatype = Handle(0x247);
const NOT_INTER: Error = Error::Invalid(class::COMM, "not an intercommunicator");

/// Where the leaders of two groups meet.
struct Meeting {
    peer: Comm,
    leader: c_int,
    tag: c_int,
}

impl Meeting {
    /// Sends words to the other leader and receives as many from it.
    fn exchange(&self, mine: &[u32], number: usize) -> Result<Vec<u32>, Error> {
        let mut theirs = alloc::vec![0u32; number];
        let arguments = |buffer: *const u32, words: usize| Arguments {
            buffer: buffer.cast::<c_void>(),
            count: (words * 4) as c_int,
            datatype: MPI_BYTE,
            peer: self.leader,
            tag: self.tag,
            comm: self.peer,
        };
        let (send, receive) = (arguments(mine.as_ptr(), mine.len()), arguments(theirs.as_mut_ptr(), number));
        let (receive, send) = with(|mpi| {
            let receive = mpi.start_receive(&receive)?;
            Ok((receive, mpi.start_send(&send, SendMode::Standard)?))
        })?;
        complete(send).1?;
        complete(receive).1?;
        Ok(theirs)
    }
}

/// The leaders tell each other their groups and agree on the context that the lower one has made.
fn meet(meeting: &Meeting, group: &Ranks) -> Result<(u32, Vec<u32>), Error> {
    let context = with(|mpi| mpi.new_context())?;
    let first = group.world(0).unwrap_or(0);
    let theirs = meeting.exchange(&[group.len() as u32, context, first], 3)?;
    let ranks: Vec<u32> = (0..group.len()).filter_map(|rank| group.world(rank)).collect();
    let others = meeting.exchange(&ranks, theirs[0] as usize)?;
    Ok((if first < theirs[2] { context } else { theirs[1] }, others))
}

fn create(local: Comm, leader: c_int, meeting: &Meeting) -> Result<Comm, Error> {
    let (group, rank) = with(|mpi| mpi.comm(local).map(|of| (of.group.clone(), of.rank)))?;
    let leader = usize::try_from(leader).ok().filter(|&leader| leader < group.len());
    let leader = leader.ok_or(Error::Invalid(class::RANK, "the leader is not a rank of the communicator"))?;
    // What the leader has learnt, or zero members if it has failed.
    let met = if rank == leader { Some(meet(meeting, &group)) } else { None };
    let mut head = [0u32; 2];
    if let Some(Ok((context, others))) = &met {
        head = [others.len() as u32, *context];
    }
    collective::tell(local, &mut head, leader)?;
    let mut others = match met {
        Some(result) => result?.1,
        None => alloc::vec![0; head[0] as usize],
    };
    if others.is_empty() {
        return Err(Error::Invalid(class::OTHER, "the leaders could not meet"));
    }
    collective::tell(local, &mut others, leader)?;
    let remote = Ranks::new(others);
    if !remote.filter(|_, world| group.rank_of(world).is_some()).is_empty() {
        return Err(Error::Invalid(class::COMM, "the groups of an intercommunicator must not overlap"));
    }
    add(local, (*group).clone(), Some(remote), head[1])
}

/// Both groups in one, the one that says `high` last.
fn merge(comm: Comm, high: bool) -> Result<Comm, Error> {
    let (group, remote) = with(|mpi| mpi.comm(comm).map(|of| (of.group.clone(), of.remote.clone())))?;
    let remote = remote.ok_or(NOT_INTER)?;
    let context = agree_on_context(comm)?;
    let (_, theirs) = collective::collect(comm, [c_int::from(high), 0])?;
    let their_high = theirs[0][0] != 0;
    let first = if high == their_high { group.world(0) < remote.world(0) } else { their_high };
    let all = if first { group.union(&remote) } else { remote.union(&group) };
    add(comm, all, None, context)
}

api! {
    /// Whether there are two groups.
    Comm_test_inter(comm: Comm, flag: *mut c_int) on comm {
        put(flag, c_int::from(with(|mpi| mpi.comm(comm).map(|of| of.remote.is_some()))?));
        Ok(())
    }

    /// Size of the other group.
    Comm_remote_size(comm: Comm, size: *mut c_int) on comm {
        let remote = with(|mpi| mpi.comm(comm).map(|of| of.remote.as_ref().map(|remote| remote.len())))?;
        put(size, remote.ok_or(NOT_INTER)? as c_int);
        Ok(())
    }

    /// The other group.
    Comm_remote_group(comm: Comm, group: *mut Group) on comm {
        let remote = with(|mpi| mpi.comm(comm).map(|of| of.remote.clone()))?.ok_or(NOT_INTER)?;
        put(group, with(|mpi| mpi.add_group(remote)));
        Ok(())
    }

    /// Joins two groups whose leaders can talk.
    Intercomm_create(local: Comm, leader: c_int, peer: Comm, remote_leader: c_int, tag: c_int, new: *mut Comm)
    on local {
        put(new, create(local, leader, &Meeting { peer, leader: remote_leader, tag })?);
        Ok(())
    }

    /// Makes one group of two.
    Intercomm_merge(comm: Comm, high: c_int, new: *mut Comm) on comm {
        put(new, merge(comm, high != 0)?);
        Ok(())
    }
}
