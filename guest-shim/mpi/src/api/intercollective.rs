//! What the collectives do on intercommunicators.

use alloc::vec::Vec;
use core::ffi::{c_int, c_void};
use core::ops::Range;

use super::collective::{begin, is_in_place};
use crate::collective::inter;
use crate::collective::reduce::{Elements, Work};
use crate::error::{Error, class};
use crate::handle::{Comm, Datatype, Op};
use crate::memory::Region;
use crate::runtime::request::PROC_NULL;
use crate::runtime::schedule::{Builder, Schedule, View};
use crate::runtime::state::with;

/// `MPI_ROOT`.
const ROOT: c_int = -4;

/// What this process does in a collective with a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The root.
    Root,
    /// In the root's group, with nothing to do.
    Idle,
    /// In the other group; the root has this rank.
    Peer(usize),
}

impl Role {
    /// The role of this process; none if the communicator has one group.
    pub fn new(root: c_int, comm: Comm) -> Result<Option<Role>, Error> {
        let Some(size) = with(|mpi| mpi.comm(comm).map(|of| of.remote.as_ref().map(|remote| remote.len())))?
        else {
            return Ok(None);
        };
        match root {
            ROOT => Ok(Some(Role::Root)),
            PROC_NULL => Ok(Some(Role::Idle)),
            _ => match usize::try_from(root) {
                Ok(root) if root < size => Ok(Some(Role::Peer(root))),
                _ => Err(Error::Invalid(class::ROOT, "the root is not a rank of the other group")),
            },
        }
    }
}

/// Whether a communicator has two groups.
pub fn is_inter(comm: Comm) -> Result<bool, Error> {
    with(|mpi| mpi.comm(comm).map(|of| of.remote.is_some()))
}

/// Broadcast.
pub fn bcast(comm: Comm, view: impl Fn() -> Result<View, Error>, role: Role) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    match role {
        Role::Root => {
            let data = b.input(&view()?);
            inter::send_to_all(&mut b, data);
        }
        Role::Peer(root) => {
            let data = b.output(&view()?);
            b.receive(root, data);
        }
        Role::Idle => {}
    }
    Ok(b.finish())
}

/// Gather and Gatherv.
pub fn gather(
    comm: Comm,
    send: impl Fn() -> Result<View, Error>,
    receive: impl Fn() -> Result<Vec<View>, Error>,
    role: Role,
) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    match role {
        Role::Root => {
            let blocks = outputs(&mut b, &receive()?);
            inter::receive_blocks(&mut b, &blocks);
        }
        Role::Peer(root) => {
            let data = b.input(&send()?);
            b.send(root, data);
        }
        Role::Idle => {}
    }
    Ok(b.finish())
}

/// Scatter and Scatterv.
pub fn scatter(
    comm: Comm,
    send: impl Fn() -> Result<Vec<View>, Error>,
    receive: impl Fn() -> Result<View, Error>,
    role: Role,
) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    match role {
        Role::Root => {
            let blocks = inputs(&mut b, &send()?);
            inter::send_blocks(&mut b, &blocks);
        }
        Role::Peer(root) => {
            let data = b.output(&receive()?);
            b.receive(root, data);
        }
        Role::Idle => {}
    }
    Ok(b.finish())
}

/// Allgather and Allgatherv.
pub fn allgather(comm: Comm, send: Option<View>, receive: &[View]) -> Result<Schedule, Error> {
    let send = send.ok_or(Error::Invalid(class::BUFFER, "an intercommunicator knows no MPI_IN_PLACE"))?;
    let mut b = begin(comm)?;
    let (mine, blocks) = (b.input(&send), outputs(&mut b, receive));
    inter::exchange(&mut b, mine, &blocks);
    Ok(b.finish())
}

/// Alltoall, Alltoallv and Alltoallw.
pub fn alltoall(comm: Comm, send: &[View], receive: &[View]) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    let (outgoing, incoming) = (inputs(&mut b, send), outputs(&mut b, receive));
    inter::send_blocks(&mut b, &outgoing);
    inter::receive_blocks(&mut b, &incoming);
    Ok(b.finish())
}

fn outputs(b: &mut Builder, views: &[View]) -> Vec<Region> {
    views.iter().map(|view| b.output(view)).collect()
}

fn inputs(b: &mut Builder, views: &[View]) -> Vec<Region> {
    views.iter().map(|view| b.input(view)).collect()
}

fn work(number: usize, datatype: Datatype, op: Op) -> Result<Work, Error> {
    let (of, operation) = with(|mpi| Ok((mpi.datatype(datatype)?, mpi.operation(op, datatype)?)))?;
    Ok(Work { operation, of, count: number })
}

/// My contribution, in memory with the gaps of its type.
fn contribution(b: &mut Builder, work: &Work, input: *const c_void) -> Result<Region, Error> {
    if is_in_place(input) {
        return Err(Error::Invalid(class::BUFFER, "an intercommunicator knows no MPI_IN_PLACE"));
    }
    let copy = work.scratch(b);
    b.copy_elements(&work.of, input.cast_mut().cast(), copy.buffer, work.count);
    b.next_round();
    Ok(work.span(copy))
}

/// Reduce.
pub fn reduce(
    comm: Comm,
    input: *const c_void,
    output: *mut c_void,
    number: usize,
    datatype: Datatype,
    op: Op,
    role: Role,
) -> Result<Schedule, Error> {
    let work = work(number, datatype, op)?;
    let mut b = begin(comm)?;
    match role {
        Role::Root => inter::combine(&mut b, &work, Elements { buffer: output.cast() }),
        Role::Peer(root) => {
            let mine = contribution(&mut b, &work, input)?;
            b.send(root, mine);
        }
        Role::Idle => {}
    }
    Ok(b.finish())
}

/// Allreduce.
pub fn allreduce(
    comm: Comm,
    input: *const c_void,
    output: *mut c_void,
    number: usize,
    datatype: Datatype,
    op: Op,
) -> Result<Schedule, Error> {
    let work = work(number, datatype, op)?;
    let mut b = begin(comm)?;
    let mine = contribution(&mut b, &work, input)?;
    inter::send_to_all(&mut b, mine);
    inter::combine(&mut b, &work, Elements { buffer: output.cast() });
    Ok(b.finish())
}

/// Reduce_scatter and Reduce_scatter_block: `mine` is my part of the `total` elements.
pub fn reduce_scatter(
    comm: Comm,
    input: *const c_void,
    output: *mut c_void,
    mine: Range<usize>,
    total: usize,
    datatype: Datatype,
    op: Op,
) -> Result<Schedule, Error> {
    let work = work(total, datatype, op)?;
    let mut b = begin(comm)?;
    let contribution = contribution(&mut b, &work, input)?;
    inter::send_to_all(&mut b, contribution);
    let whole = work.scratch(&mut b);
    inter::combine(&mut b, &work, whole);
    let start = mine.start.cast_signed() * work.of.extent;
    b.next_round();
    b.copy_elements(&work.of, whole.buffer.wrapping_offset(start), output.cast(), mine.len());
    Ok(b.finish())
}
