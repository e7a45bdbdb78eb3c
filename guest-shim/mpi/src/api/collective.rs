//! Collectives, blocking and nonblocking: both are the same schedule.

use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use super::{array, count, put};
use crate::collective::reduce::{Elements, Work};
use crate::collective::{data, reduce};
use crate::error::{Error, class};
use crate::handle::{Comm, Datatype, Op, Request};
use crate::memory::Region;
use crate::runtime::progress;
use crate::runtime::request::{Pending, complete, elements};
use crate::runtime::schedule::{Builder, Schedule, View};
use crate::runtime::state::with;

/// `MPI_IN_PLACE`.
const IN_PLACE: usize = 1;

fn is_in_place(buffer: *const c_void) -> bool {
    buffer as usize == IN_PLACE
}

/// Begins a schedule of a communicator.
pub fn begin(comm: Comm) -> Result<Builder, Error> {
    with(|mpi| {
        let comm = mpi.comm_mut(comm)?;
        comm.sequence = (comm.sequence + 1) & 0x3fff_ffff;
        Ok(Builder::new(comm.group.clone(), comm.rank, comm.context + 1, comm.sequence.cast_signed()))
    })
}

/// Carries out a schedule.
pub fn run(schedule: Schedule) -> Result<(), Error> {
    complete(Pending::Collective(progress::start(schedule))).1
}

fn size_in(comm: Comm) -> Result<usize, Error> {
    with(|mpi| Ok(mpi.comm(comm)?.group.len()))
}

fn rank_in(comm: Comm) -> Result<usize, Error> {
    with(|mpi| Ok(mpi.comm(comm)?.rank))
}

fn root_of(root: c_int, comm: Comm) -> Result<usize, Error> {
    let size = size_in(comm)?;
    usize::try_from(root)
        .ok()
        .filter(|&root| root < size)
        .ok_or(Error::Invalid(class::ROOT, "the root is not a rank of the communicator"))
}

/// A checked buffer.
fn view(buffer: *const c_void, number: c_int, datatype: Datatype) -> Result<View, Error> {
    if is_in_place(buffer) {
        return Err(Error::Invalid(class::BUFFER, "MPI_IN_PLACE is not allowed here"));
    }
    let (count, of) = with(|mpi| elements(mpi, buffer, number, datatype))?;
    Ok(View { buffer: buffer.cast_mut().cast(), count, of })
}

/// Views of `size` blocks of `number` elements in a row.
fn equal_views(
    buffer: *const c_void,
    number: c_int,
    datatype: Datatype,
    size: usize,
) -> Result<Vec<View>, Error> {
    let first = view(buffer, number, datatype)?;
    Ok((0..size).map(|i| first.part((i * first.count).cast_signed(), first.count)).collect())
}

/// Views of blocks with counts and displacements in elements.
fn varying_views(
    buffer: *const c_void,
    counts: &[c_int],
    displacements: &[c_int],
    datatype: Datatype,
) -> Result<Vec<View>, Error> {
    let first = view(buffer, 0, datatype)?;
    if counts.len() != displacements.len() {
        return Err(Error::Invalid(class::ARG, "an array of counts or displacements is null"));
    }
    let block = |(&number, &at): (&c_int, &c_int)| Ok(first.part(at as isize, count(number)?));
    counts.iter().zip(displacements).map(block).collect()
}

/// Defines a blocking and a nonblocking collective by a function that plans both.
macro_rules! collectives {
    ($($blocking:ident $immediate:ident[$comm:ident]($($arg:ident: $type:ty),* $(,)?) $plan:block)*) => { $(
        super::api! {
            /// Blocking collective.
            $blocking($($arg: $type,)* comm: Comm) on comm {
                run(plan::$blocking($($arg,)* comm)?)
            }
            /// Nonblocking collective.
            $immediate($($arg: $type,)* comm: Comm, request: *mut Request) on comm {
                let schedule = plan::$blocking($($arg,)* comm)?;
                let index = progress::start(schedule);
                let handle = with(|mpi| mpi.add_request(comm, Pending::Collective(index)));
                put(request, handle);
                Ok(())
            }
        }
    )*
        mod plan {
            use super::*;
            $(
                /// # Safety
                /// The pointers are what the MPI standard asks for.
                pub unsafe fn $blocking($($arg: $type,)* $comm: Comm) -> Result<Schedule, Error> {
                    #[allow(unused_unsafe)]
                    // SAFETY: as promised by the caller.
                    unsafe { $plan }
                }
            )*
        }
    };
}

fn outputs(b: &mut Builder, views: &[View]) -> Vec<Region> {
    views.iter().map(|view| b.output(view)).collect()
}

fn inputs(b: &mut Builder, views: &[View]) -> Vec<Region> {
    views.iter().map(|view| b.input(view)).collect()
}

/// Gather to `root`: `receive` is empty elsewhere.
fn plan_gather(comm: Comm, send: Option<View>, receive: &[View], root: usize) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    let mine = send.map(|view| b.input(&view));
    let mut blocks = outputs(&mut b, receive);
    if mine.is_none() && b.rank == root {
        blocks[root] = Region::EMPTY;
    }
    data::gather(&mut b, &blocks, mine, root);
    if mine.is_none() && b.rank == root && !receive[root].of.is_one_run() {
        return Err(Error::Invalid(
            class::BUFFER,
            "MPI_IN_PLACE with a type that has gaps is not supported in Gather",
        ));
    }
    Ok(b.finish())
}

/// Scatter from `root`: `send` is empty elsewhere; no `receive` means in place.
fn plan_scatter(comm: Comm, send: &[View], receive: Option<View>, root: usize) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    let blocks = inputs(&mut b, send);
    match receive {
        Some(view) => {
            let mine = b.output(&view);
            let own = blocks.get(root).copied().filter(|_| b.rank == root);
            data::scatter(&mut b, &blocks, mine, own, root);
        }
        None => data::scatter(&mut b, &blocks, Region::EMPTY, None, root),
    }
    Ok(b.finish())
}

fn plan_allgather(comm: Comm, send: Option<View>, receive: &[View]) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    let rank = b.rank;
    let mine = match &send {
        Some(view) => Some(b.input(view)),
        // In place: my block is where it belongs; packed only if it has gaps.
        None if receive[rank].of.is_one_run() => None,
        None => Some(b.input(&receive[rank])),
    };
    let blocks = outputs(&mut b, receive);
    data::allgather(&mut b, &blocks, mine);
    Ok(b.finish())
}

/// `send` is `None` for in place: what is in the receive buffer is sent.
fn plan_alltoall(comm: Comm, send: Option<Vec<View>>, receive: &[View]) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    let outgoing = match &send {
        Some(views) => inputs(&mut b, views),
        None => receive
            .iter()
            .map(|view| {
                let source = b.input(view);
                let copy = b.scratch(source.len());
                source.copy_to(copy);
                copy
            })
            .collect(),
    };
    let incoming = outputs(&mut b, receive);
    data::alltoall(&mut b, &outgoing, &incoming);
    Ok(b.finish())
}

/// What a reduction combines, with the accumulator already holding my contribution.
struct Reduction {
    work: Work,
    accumulator: Elements,
    output: *mut u8,
}

impl Reduction {
    /// `input` is the contribution; the result is wanted at `output` (null: nowhere).
    fn new(
        b: &mut Builder,
        input: *const c_void,
        output: *mut c_void,
        number: usize,
        datatype: Datatype,
        op: Op,
    ) -> Result<Reduction, Error> {
        let of = with(|mpi| mpi.datatype(datatype))?;
        let operation = with(|mpi| mpi.operation(op, datatype))?;
        let work = Work { operation, of, count: number };
        let input = if is_in_place(input) { output.cast_const() } else { input };
        if number > 0 && input.is_null() {
            return Err(Error::Invalid(class::BUFFER, "a buffer is null"));
        }
        let output = output.cast::<u8>();
        let direct = !output.is_null() && work.of.is_one_run();
        let accumulator = if direct { Elements { buffer: output } } else { work.scratch(b) };
        b.copy_elements(&work.of, input.cast_mut().cast(), accumulator.buffer, number);
        b.next_round();
        Ok(Reduction { work, accumulator, output })
    }

    /// Puts the result into place.
    fn deliver(&self, b: &mut Builder) {
        if !self.output.is_null() && self.output != self.accumulator.buffer {
            b.next_round();
            b.copy_elements(&self.work.of, self.accumulator.buffer, self.output, self.work.count);
        }
    }
}

fn check_reduction(number: c_int, datatype: Datatype, op: Op) -> Result<usize, Error> {
    with(|mpi| mpi.operation(op, datatype))?;
    count(number)
}

fn plan_scan(
    comm: Comm,
    sendbuf: *const c_void,
    recvbuf: *mut c_void,
    number: c_int,
    datatype: Datatype,
    op: Op,
    inclusive: bool,
) -> Result<Schedule, Error> {
    let number = check_reduction(number, datatype, op)?;
    let mut b = begin(comm)?;
    let input = if is_in_place(sendbuf) { recvbuf.cast_const() } else { sendbuf };
    let partial = Reduction::new(&mut b, input, core::ptr::null_mut(), number, datatype, op)?;
    let work = partial.work;
    let result =
        if work.of.is_one_run() { Elements { buffer: recvbuf.cast() } } else { work.scratch(&mut b) };
    if inclusive {
        b.copy_elements(&work.of, partial.accumulator.buffer, result.buffer, number);
    }
    reduce::scan(&mut b, &work, partial.accumulator, result, inclusive);
    if result.buffer != recvbuf.cast() && (inclusive || b.rank > 0) {
        b.next_round();
        b.copy_elements(&work.of, result.buffer, recvbuf.cast(), number);
    }
    Ok(b.finish())
}

fn plan_reduce_scatter(
    comm: Comm,
    sendbuf: *const c_void,
    recvbuf: *mut c_void,
    counts: &[c_int],
    datatype: Datatype,
    op: Op,
) -> Result<Schedule, Error> {
    let mut total = 0;
    let mut before = 0;
    let rank = rank_in(comm)?;
    for (index, &number) in counts.iter().enumerate() {
        if index == rank {
            before = total;
        }
        total += check_reduction(number, datatype, op)?;
    }
    let mine = count(counts[rank])?;
    let mut b = begin(comm)?;
    let input = if is_in_place(sendbuf) { recvbuf.cast_const() } else { sendbuf };
    let whole = Reduction::new(&mut b, input, core::ptr::null_mut(), total, datatype, op)?;
    reduce::allreduce_far_first(&mut b, &whole.work, whole.accumulator);
    let start = before.cast_signed() * whole.work.of.extent;
    b.next_round();
    b.copy_elements(&whole.work.of, whole.accumulator.buffer.wrapping_offset(start), recvbuf.cast(), mine);
    Ok(b.finish())
}

collectives! {
    Barrier Ibarrier[comm]() {
        let mut b = begin(comm)?;
        data::barrier(&mut b);
        Ok(b.finish())
    }

    Bcast Ibcast[comm](buffer: *mut c_void, number: c_int, datatype: Datatype, root: c_int) {
        let (view, root) = (view(buffer, number, datatype)?, root_of(root, comm)?);
        let mut b = begin(comm)?;
        let data = if b.rank == root { b.input(&view) } else { b.output(&view) };
        data::broadcast(&mut b, data, root);
        Ok(b.finish())
    }

    Gather Igather[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcount: c_int, recvtype: Datatype, root: c_int) {
        let root = root_of(root, comm)?;
        let receive = if rank_in(comm)? == root {
            equal_views(recvbuf, recvcount, recvtype, size_in(comm)?)?
        } else {
            Vec::new()
        };
        let send = if is_in_place(sendbuf) { None } else { Some(view(sendbuf, sendcount, sendtype)?) };
        plan_gather(comm, send, &receive, root)
    }

    Gatherv Igatherv[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcounts: *const c_int, displs: *const c_int, recvtype: Datatype, root: c_int) {
        let (root, size) = (root_of(root, comm)?, size_in(comm)?);
        let receive = if rank_in(comm)? == root {
            varying_views(recvbuf, array(recvcounts, size), array(displs, size), recvtype)?
        } else {
            Vec::new()
        };
        let send = if is_in_place(sendbuf) { None } else { Some(view(sendbuf, sendcount, sendtype)?) };
        plan_gather(comm, send, &receive, root)
    }

    Scatter Iscatter[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcount: c_int, recvtype: Datatype, root: c_int) {
        let root = root_of(root, comm)?;
        let send = if rank_in(comm)? == root {
            equal_views(sendbuf, sendcount, sendtype, size_in(comm)?)?
        } else {
            Vec::new()
        };
        let receive = if is_in_place(recvbuf) { None } else { Some(view(recvbuf, recvcount, recvtype)?) };
        plan_scatter(comm, &send, receive, root)
    }

    Scatterv Iscatterv[comm](sendbuf: *const c_void, sendcounts: *const c_int, displs: *const c_int, sendtype: Datatype,
        recvbuf: *mut c_void, recvcount: c_int, recvtype: Datatype, root: c_int) {
        let (root, size) = (root_of(root, comm)?, size_in(comm)?);
        let send = if rank_in(comm)? == root {
            varying_views(sendbuf, array(sendcounts, size), array(displs, size), sendtype)?
        } else {
            Vec::new()
        };
        let receive = if is_in_place(recvbuf) { None } else { Some(view(recvbuf, recvcount, recvtype)?) };
        plan_scatter(comm, &send, receive, root)
    }

    Allgather Iallgather[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcount: c_int, recvtype: Datatype) {
        let receive = equal_views(recvbuf, recvcount, recvtype, size_in(comm)?)?;
        let send = if is_in_place(sendbuf) { None } else { Some(view(sendbuf, sendcount, sendtype)?) };
        plan_allgather(comm, send, &receive)
    }

    Allgatherv Iallgatherv[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcounts: *const c_int, displs: *const c_int, recvtype: Datatype) {
        let size = size_in(comm)?;
        let receive = varying_views(recvbuf, array(recvcounts, size), array(displs, size), recvtype)?;
        let send = if is_in_place(sendbuf) { None } else { Some(view(sendbuf, sendcount, sendtype)?) };
        plan_allgather(comm, send, &receive)
    }

    Alltoall Ialltoall[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcount: c_int, recvtype: Datatype) {
        let size = size_in(comm)?;
        let receive = equal_views(recvbuf, recvcount, recvtype, size)?;
        let send =
            if is_in_place(sendbuf) { None } else { Some(equal_views(sendbuf, sendcount, sendtype, size)?) };
        plan_alltoall(comm, send, &receive)
    }

    Alltoallv Ialltoallv[comm](sendbuf: *const c_void, sendcounts: *const c_int, sdispls: *const c_int,
        sendtype: Datatype, recvbuf: *mut c_void, recvcounts: *const c_int, rdispls: *const c_int,
        recvtype: Datatype) {
        let size = size_in(comm)?;
        let receive = varying_views(recvbuf, array(recvcounts, size), array(rdispls, size), recvtype)?;
        let send = if is_in_place(sendbuf) {
            None
        } else {
            Some(varying_views(sendbuf, array(sendcounts, size), array(sdispls, size), sendtype)?)
        };
        plan_alltoall(comm, send, &receive)
    }

    Alltoallw Ialltoallw[comm](sendbuf: *const c_void, sendcounts: *const c_int, sdispls: *const c_int,
        sendtypes: *const Datatype, recvbuf: *mut c_void, recvcounts: *const c_int, rdispls: *const c_int,
        recvtypes: *const Datatype) {
        let size = size_in(comm)?;
        // Displacements are in bytes here.
        let views = |buffer: *const c_void, counts, displacements, types| {
            let (counts, displacements) = (array(counts, size), array(displacements, size));
            let types: &[Datatype] = array(types, size);
            (0..size)
                .map(|i| view(buffer.wrapping_byte_offset(displacements[i] as isize), counts[i], types[i]))
                .collect::<Result<Vec<_>, Error>>()
        };
        let receive = views(recvbuf.cast_const(), recvcounts, rdispls, recvtypes)?;
        let send =
            if is_in_place(sendbuf) { None } else { Some(views(sendbuf, sendcounts, sdispls, sendtypes)?) };
        plan_alltoall(comm, send, &receive)
    }

    Reduce Ireduce[comm](sendbuf: *const c_void, recvbuf: *mut c_void, number: c_int, datatype: Datatype, op: Op,
        root: c_int) {
        let root = root_of(root, comm)?;
        let number = check_reduction(number, datatype, op)?;
        let mut b = begin(comm)?;
        let output = if b.rank == root { recvbuf } else { core::ptr::null_mut() };
        let reduction = Reduction::new(&mut b, sendbuf, output, number, datatype, op)?;
        reduce::reduce(&mut b, &reduction.work, reduction.accumulator, root);
        reduction.deliver(&mut b);
        Ok(b.finish())
    }

    Allreduce Iallreduce[comm](sendbuf: *const c_void, recvbuf: *mut c_void, number: c_int, datatype: Datatype, op: Op) {
        let number = check_reduction(number, datatype, op)?;
        let mut b = begin(comm)?;
        let reduction = Reduction::new(&mut b, sendbuf, recvbuf, number, datatype, op)?;
        reduce::allreduce(&mut b, &reduction.work, reduction.accumulator);
        reduction.deliver(&mut b);
        Ok(b.finish())
    }

    Scan Iscan[comm](sendbuf: *const c_void, recvbuf: *mut c_void, number: c_int, datatype: Datatype, op: Op) {
        plan_scan(comm, sendbuf, recvbuf, number, datatype, op, true)
    }

    Exscan Iexscan[comm](sendbuf: *const c_void, recvbuf: *mut c_void, number: c_int, datatype: Datatype, op: Op) {
        plan_scan(comm, sendbuf, recvbuf, number, datatype, op, false)
    }

    Reduce_scatter Ireduce_scatter[comm](sendbuf: *const c_void, recvbuf: *mut c_void, recvcounts: *const c_int,
        datatype: Datatype, op: Op) {
        let counts = array(recvcounts, size_in(comm)?);
        if counts.is_empty() {
            return Err(Error::Invalid(class::ARG, "the array of counts is null"));
        }
        plan_reduce_scatter(comm, sendbuf, recvbuf, counts, datatype, op)
    }

    Reduce_scatter_block Ireduce_scatter_block[comm](sendbuf: *const c_void, recvbuf: *mut c_void, recvcount: c_int,
        datatype: Datatype, op: Op) {
        let counts = alloc::vec![recvcount; size_in(comm)?];
        plan_reduce_scatter(comm, sendbuf, recvbuf, &counts, datatype, op)
    }
}

/// A blocking allreduce of one number, for the library itself.
pub fn agree_on_maximum(comm: Comm, value: u32) -> Result<u32, Error> {
    let mut value = i64::from(value);
    let buffer: *mut c_void = (&raw mut value).cast();
    const MPI_INT64_T: Datatype = crate::handle::Handle(0x258);
    const MPI_MAX: Op = crate::handle::Handle(0x23);
    // SAFETY: the number outlives the blocking call.
    run(unsafe { plan::Allreduce(IN_PLACE as *const c_void, buffer, 1, MPI_INT64_T, MPI_MAX, comm) }?)?;
    Ok(value as u32)
}

/// A blocking allgather of the bytes of one value, for the library itself.
pub fn collect<T: Copy>(comm: Comm, value: T, size: usize) -> Result<Vec<T>, Error> {
    let mut values = alloc::vec![value; size];
    const MPI_BYTE: Datatype = crate::handle::Handle(0x247);
    let bytes = core::mem::size_of::<T>() as c_int;
    let (mine, all) = ((&raw const value).cast(), values.as_mut_ptr().cast());
    // SAFETY: both outlive the blocking call.
    run(unsafe { plan::Allgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, comm) }?)?;
    Ok(values)
}
