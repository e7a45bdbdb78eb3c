//! Collectives, blocking, nonblocking and persistent: all three are the same schedule.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use super::intercollective::{self as inter, Role};
use super::{array, count, put};
use crate::collective::reduce::{Elements, Work};
use crate::collective::{data, reduce};
use crate::error::{Error, class};
use crate::handle::{Comm, Datatype, Info, Op, Request};
use crate::memory::Region;
use crate::runtime::progress;
use crate::runtime::request::{Pending, Recipe, complete, elements};
use crate::runtime::schedule::{Builder, Hook, Schedule, View};
use crate::runtime::state::with;

/// `MPI_IN_PLACE`.
const IN_PLACE: usize = 1;

/// Whether a buffer is `MPI_IN_PLACE`.
pub fn is_in_place(buffer: *const c_void) -> bool {
    buffer as usize == IN_PLACE
}

/// Begins a schedule of a communicator; of an intercommunicator, its members are the other group.
pub fn begin(comm: Comm) -> Result<Builder, Error> {
    with(|mpi| {
        let planned = mpi.planned_tag.take();
        let comm = mpi.comm_mut(comm)?;
        let tag = planned.unwrap_or_else(|| comm.next_sequence());
        Ok(Builder::new(comm.peers().clone(), comm.rank, comm.context + 1, tag))
    })
}

/// A request that can be started again and again. Its messages have a tag of their own, since collectives may be started
/// in another order than they were made in.
pub fn persistent(
    comm: Comm,
    plan: impl Fn() -> Result<Schedule, Error> + 'static,
) -> Result<Request, Error> {
    const PERSISTENT: i32 = 0x4000_0000;
    with(|mpi| {
        let tag = mpi.comm_mut(comm)?.next_sequence() | PERSISTENT;
        let plan = move || {
            with(|mpi| mpi.planned_tag = Some(tag));
            let planned = plan();
            with(|mpi| mpi.planned_tag = None);
            planned
        };
        Ok(mpi.add_persistent(comm, Recipe::Collective(Rc::new(plan))))
    })
}

/// Carries out a schedule.
pub fn run(schedule: Schedule) -> Result<(), Error> {
    complete(Pending::Collective(progress::start(schedule))).1
}

/// With how many members data is exchanged.
pub fn size_in(comm: Comm) -> Result<usize, Error> {
    with(|mpi| Ok(mpi.comm(comm)?.peers().len()))
}

/// My rank.
pub fn rank_in(comm: Comm) -> Result<usize, Error> {
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
pub fn view(buffer: *const c_void, number: c_int, datatype: Datatype) -> Result<View, Error> {
    if is_in_place(buffer) {
        return Err(Error::Invalid(class::BUFFER, "MPI_IN_PLACE is not allowed here"));
    }
    let (count, of) = with(|mpi| elements(mpi, buffer, number, datatype))?;
    Ok(View { buffer: buffer.cast_mut().cast(), count, of })
}

/// Views of `size` blocks of `number` elements in a row.
pub fn equal_views(
    buffer: *const c_void,
    number: c_int,
    datatype: Datatype,
    size: usize,
) -> Result<Vec<View>, Error> {
    let first = view(buffer, number, datatype)?;
    Ok((0..size).map(|i| first.part((i * first.count).cast_signed(), first.count)).collect())
}

/// Views of blocks with counts and displacements in elements.
pub fn varying_views(
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

/// Defines a blocking, a nonblocking and a persistent collective by a function that plans all three.
macro_rules! collectives {
    ($($blocking:ident $immediate:ident $init:ident[$comm:ident]($($arg:ident: $type:ty),* $(,)?) $plan:block)*) => { $(
        super::api! {
            /// Persistent collective.
            $init($($arg: $type,)* comm: Comm, info: Info, request: *mut Request) on comm {
                let _ = info;
                // SAFETY: the program keeps the arguments as they are until it frees the request.
                put(request, persistent(comm, move || unsafe { plan::$blocking($($arg,)* comm) })?);
                Ok(())
            }
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

/// Gather to `root`: `receive` is empty elsewhere. `equal`: all blocks are equally long.
fn plan_gather(
    comm: Comm,
    send: Option<View>,
    receive: &[View],
    equal: bool,
    root: usize,
) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    let bytes = receive.first().or(send.as_ref()).filter(|_| equal).map(View::bytes);
    let mine = send.map(|view| b.input(&view));
    let mut blocks = Vec::new();
    for (from, view) in receive.iter().enumerate() {
        // In place, my block is where it belongs.
        blocks.push(if mine.is_none() && from == root { Region::EMPTY } else { b.output(view) });
    }
    data::gather(&mut b, &blocks, mine, bytes, root);
    Ok(b.finish())
}

/// Scatter from `root`: `send` is empty elsewhere; no `receive` means in place. `equal` as above.
fn plan_scatter(
    comm: Comm,
    send: &[View],
    receive: Option<View>,
    equal: bool,
    root: usize,
) -> Result<Schedule, Error> {
    let mut b = begin(comm)?;
    let bytes = send.first().or(receive.as_ref()).filter(|_| equal).map(View::bytes);
    let blocks = inputs(&mut b, send);
    let mine = receive.map(|view| b.output(&view));
    data::scatter(&mut b, &blocks, mine, bytes, root);
    Ok(b.finish())
}

fn plan_allgather(comm: Comm, send: Option<View>, receive: &[View]) -> Result<Schedule, Error> {
    if inter::is_inter(comm)? {
        return inter::allgather(comm, send, receive);
    }
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

/// `send` is `None` for in place: what is in the receive buffer is sent. `equal` as above.
fn plan_alltoall(
    comm: Comm,
    send: Option<Vec<View>>,
    receive: &[View],
    equal: bool,
) -> Result<Schedule, Error> {
    if inter::is_inter(comm)? {
        return inter::alltoall(comm, &send.unwrap_or_default(), receive);
    }
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
    data::alltoall(&mut b, &outgoing, &incoming, equal);
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
    if inter::is_inter(comm)? {
        return Err(Error::Invalid(class::COMM, "an intercommunicator has no prefix reductions"));
    }
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
    if inter::is_inter(comm)? {
        return inter::reduce_scatter(comm, sendbuf, recvbuf, before..before + mine, total, datatype, op);
    }
    let mut b = begin(comm)?;
    let input = if is_in_place(sendbuf) { recvbuf.cast_const() } else { sendbuf };
    let whole = Reduction::new(&mut b, input, core::ptr::null_mut(), total, datatype, op)?;
    let starts: Vec<usize> = core::iter::once(0)
        .chain(counts.iter().scan(0, |end, &number| {
            *end += usize::try_from(number).unwrap_or(0);
            Some(*end)
        }))
        .collect();
    reduce::reduce_scatter(&mut b, &whole.work, whole.accumulator, |rank| starts[rank]..starts[rank + 1]);
    let start = before.cast_signed() * whole.work.of.extent;
    b.next_round();
    b.copy_elements(&whole.work.of, whole.accumulator.buffer.wrapping_offset(start), recvbuf.cast(), mine);
    Ok(b.finish())
}

collectives! {
    Barrier Ibarrier Barrier_init[comm]() {
        let mut b = begin(comm)?;
        if inter::is_inter(comm)? {
            crate::collective::inter::barrier(&mut b);
        } else {
            data::barrier(&mut b);
        }
        Ok(b.finish())
    }

    Bcast Ibcast Bcast_init[comm](buffer: *mut c_void, number: c_int, datatype: Datatype, root: c_int) {
        if let Some(role) = Role::new(root, comm)? {
            return inter::bcast(comm, || view(buffer, number, datatype), role);
        }
        let (view, root) = (view(buffer, number, datatype)?, root_of(root, comm)?);
        let mut b = begin(comm)?;
        let data = if b.rank == root { b.input(&view) } else { b.output(&view) };
        data::broadcast(&mut b, data, root);
        Ok(b.finish())
    }

    Gather Igather Gather_init[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcount: c_int, recvtype: Datatype, root: c_int) {
        if let Some(role) = Role::new(root, comm)? {
            let size = size_in(comm)?;
            let receive = || equal_views(recvbuf, recvcount, recvtype, size);
            return inter::gather(comm, || view(sendbuf, sendcount, sendtype), receive, role);
        }
        let root = root_of(root, comm)?;
        let receive = if rank_in(comm)? == root {
            equal_views(recvbuf, recvcount, recvtype, size_in(comm)?)?
        } else {
            Vec::new()
        };
        let send = if is_in_place(sendbuf) { None } else { Some(view(sendbuf, sendcount, sendtype)?) };
        plan_gather(comm, send, &receive, true, root)
    }

    Gatherv Igatherv Gatherv_init[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcounts: *const c_int, displs: *const c_int, recvtype: Datatype, root: c_int) {
        if let Some(role) = Role::new(root, comm)? {
            let size = size_in(comm)?;
            let receive = || varying_views(recvbuf, array(recvcounts, size), array(displs, size), recvtype);
            return inter::gather(comm, || view(sendbuf, sendcount, sendtype), receive, role);
        }
        let (root, size) = (root_of(root, comm)?, size_in(comm)?);
        let receive = if rank_in(comm)? == root {
            varying_views(recvbuf, array(recvcounts, size), array(displs, size), recvtype)?
        } else {
            Vec::new()
        };
        let send = if is_in_place(sendbuf) { None } else { Some(view(sendbuf, sendcount, sendtype)?) };
        plan_gather(comm, send, &receive, false, root)
    }

    Scatter Iscatter Scatter_init[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcount: c_int, recvtype: Datatype, root: c_int) {
        if let Some(role) = Role::new(root, comm)? {
            let size = size_in(comm)?;
            let send = || equal_views(sendbuf, sendcount, sendtype, size);
            return inter::scatter(comm, send, || view(recvbuf, recvcount, recvtype), role);
        }
        let root = root_of(root, comm)?;
        let send = if rank_in(comm)? == root {
            equal_views(sendbuf, sendcount, sendtype, size_in(comm)?)?
        } else {
            Vec::new()
        };
        let receive = if is_in_place(recvbuf) { None } else { Some(view(recvbuf, recvcount, recvtype)?) };
        plan_scatter(comm, &send, receive, true, root)
    }

    Scatterv Iscatterv Scatterv_init[comm](sendbuf: *const c_void, sendcounts: *const c_int, displs: *const c_int, sendtype: Datatype,
        recvbuf: *mut c_void, recvcount: c_int, recvtype: Datatype, root: c_int) {
        if let Some(role) = Role::new(root, comm)? {
            let size = size_in(comm)?;
            let send = || varying_views(sendbuf, array(sendcounts, size), array(displs, size), sendtype);
            return inter::scatter(comm, send, || view(recvbuf, recvcount, recvtype), role);
        }
        let (root, size) = (root_of(root, comm)?, size_in(comm)?);
        let send = if rank_in(comm)? == root {
            varying_views(sendbuf, array(sendcounts, size), array(displs, size), sendtype)?
        } else {
            Vec::new()
        };
        let receive = if is_in_place(recvbuf) { None } else { Some(view(recvbuf, recvcount, recvtype)?) };
        plan_scatter(comm, &send, receive, false, root)
    }

    Allgather Iallgather Allgather_init[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcount: c_int, recvtype: Datatype) {
        let receive = equal_views(recvbuf, recvcount, recvtype, size_in(comm)?)?;
        let send = if is_in_place(sendbuf) { None } else { Some(view(sendbuf, sendcount, sendtype)?) };
        plan_allgather(comm, send, &receive)
    }

    Allgatherv Iallgatherv Allgatherv_init[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcounts: *const c_int, displs: *const c_int, recvtype: Datatype) {
        let size = size_in(comm)?;
        let receive = varying_views(recvbuf, array(recvcounts, size), array(displs, size), recvtype)?;
        let send = if is_in_place(sendbuf) { None } else { Some(view(sendbuf, sendcount, sendtype)?) };
        plan_allgather(comm, send, &receive)
    }

    Alltoall Ialltoall Alltoall_init[comm](sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcount: c_int, recvtype: Datatype) {
        let size = size_in(comm)?;
        let receive = equal_views(recvbuf, recvcount, recvtype, size)?;
        let send =
            if is_in_place(sendbuf) { None } else { Some(equal_views(sendbuf, sendcount, sendtype, size)?) };
        plan_alltoall(comm, send, &receive, true)
    }

    Alltoallv Ialltoallv Alltoallv_init[comm](sendbuf: *const c_void, sendcounts: *const c_int, sdispls: *const c_int,
        sendtype: Datatype, recvbuf: *mut c_void, recvcounts: *const c_int, rdispls: *const c_int,
        recvtype: Datatype) {
        let size = size_in(comm)?;
        let receive = varying_views(recvbuf, array(recvcounts, size), array(rdispls, size), recvtype)?;
        let send = if is_in_place(sendbuf) {
            None
        } else {
            Some(varying_views(sendbuf, array(sendcounts, size), array(sdispls, size), sendtype)?)
        };
        plan_alltoall(comm, send, &receive, false)
    }

    Alltoallw Ialltoallw Alltoallw_init[comm](sendbuf: *const c_void, sendcounts: *const c_int, sdispls: *const c_int,
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
        plan_alltoall(comm, send, &receive, false)
    }

    Reduce Ireduce Reduce_init[comm](sendbuf: *const c_void, recvbuf: *mut c_void, number: c_int, datatype: Datatype, op: Op,
        root: c_int) {
        let number = check_reduction(number, datatype, op)?;
        if let Some(role) = Role::new(root, comm)? {
            return inter::reduce(comm, sendbuf, recvbuf, number, datatype, op, role);
        }
        let root = root_of(root, comm)?;
        let mut b = begin(comm)?;
        let output = if b.rank == root { recvbuf } else { core::ptr::null_mut() };
        let reduction = Reduction::new(&mut b, sendbuf, output, number, datatype, op)?;
        reduce::reduce(&mut b, &reduction.work, reduction.accumulator, root);
        reduction.deliver(&mut b);
        Ok(b.finish())
    }

    Allreduce Iallreduce Allreduce_init[comm](sendbuf: *const c_void, recvbuf: *mut c_void, number: c_int, datatype: Datatype, op: Op) {
        let number = check_reduction(number, datatype, op)?;
        if inter::is_inter(comm)? {
            return inter::allreduce(comm, sendbuf, recvbuf, number, datatype, op);
        }
        let mut b = begin(comm)?;
        let reduction = Reduction::new(&mut b, sendbuf, recvbuf, number, datatype, op)?;
        reduce::allreduce(&mut b, &reduction.work, reduction.accumulator);
        reduction.deliver(&mut b);
        Ok(b.finish())
    }

    Scan Iscan Scan_init[comm](sendbuf: *const c_void, recvbuf: *mut c_void, number: c_int, datatype: Datatype, op: Op) {
        plan_scan(comm, sendbuf, recvbuf, number, datatype, op, true)
    }

    Exscan Iexscan Exscan_init[comm](sendbuf: *const c_void, recvbuf: *mut c_void, number: c_int, datatype: Datatype, op: Op) {
        plan_scan(comm, sendbuf, recvbuf, number, datatype, op, false)
    }

    Reduce_scatter Ireduce_scatter Reduce_scatter_init[comm](sendbuf: *const c_void, recvbuf: *mut c_void, recvcounts: *const c_int,
        datatype: Datatype, op: Op) {
        let counts = array(recvcounts, with(|mpi| mpi.comm(comm).map(|of| of.group.len()))?);
        if counts.is_empty() {
            return Err(Error::Invalid(class::ARG, "the array of counts is null"));
        }
        plan_reduce_scatter(comm, sendbuf, recvbuf, counts, datatype, op)
    }

    Reduce_scatter_block Ireduce_scatter_block Reduce_scatter_block_init[comm](sendbuf: *const c_void, recvbuf: *mut c_void, recvcount: c_int,
        datatype: Datatype, op: Op) {
        let counts = alloc::vec![recvcount; with(|mpi| mpi.comm(comm).map(|of| of.group.len()))?];
        plan_reduce_scatter(comm, sendbuf, recvbuf, &counts, datatype, op)
    }
}

/// A blocking barrier, for the library itself.
pub fn barrier(comm: Comm) -> Result<(), Error> {
    // SAFETY: no pointers.
    run(unsafe { plan::Barrier(comm) }?)
}

/// Members get the words that the root has; blocking.
pub fn tell(comm: Comm, words: &mut [u32], root: usize) -> Result<(), Error> {
    let mut b = begin(comm)?;
    // SAFETY: the words outlive the blocking call.
    let data = unsafe { Region::new(words.as_mut_ptr().cast(), words.len() * 4) };
    data::broadcast(&mut b, data, root);
    run(b.finish())
}

/// Members learn a new context of one of them, which is written to `cell`; then `arrive` is called.
///
/// # Safety
/// `cell` must stay valid until the schedule is complete.
pub unsafe fn plan_context(comm: Comm, cell: *mut u32, arrive: Option<Hook>) -> Result<Schedule, Error> {
    let (rank, giver, low) = with(|mpi| {
        let of = mpi.comm(comm)?;
        let low = of.remote.as_ref().map(|remote| of.group.world(0) < remote.world(0));
        let (rank, giver) = (of.rank, of.rank == 0 && low != Some(false));
        Ok((rank, if giver { Some(mpi.new_context()?) } else { None }, low))
    })?;
    let mut b = begin(comm)?;
    // SAFETY: as promised by the caller.
    let data = unsafe { Region::new(cell.cast(), 4) };
    if let Some(context) = giver {
        // SAFETY: as promised by the caller.
        unsafe { cell.write(context) };
    }
    debug_assert_eq!(rank, b.rank);
    match low {
        None => data::broadcast(&mut b, data, 0),
        Some(low) => crate::collective::inter::spread(&mut b, data, low),
    }
    if let Some(arrive) = arrive {
        b.at_end(arrive);
    }
    Ok(b.finish())
}

/// Two numbers of every member of a group.
pub type Pairs = Vec<[c_int; 2]>;

/// Two numbers of every member of my group, and of the other group if there is one; blocking, for the library itself.
pub fn collect(comm: Comm, value: [c_int; 2]) -> Result<(Pairs, Pairs), Error> {
    const BYTES: usize = 8;
    let (mine, peers) = with(|mpi| mpi.comm(comm).map(|of| (of.group.len(), of.peers().len())))?;
    let (mut mine, mut theirs) = (alloc::vec![[0; 2]; mine], alloc::vec![[0; 2]; peers]);
    // SAFETY: everything outlives the blocking calls.
    let region =
        |values: &mut [[c_int; 2]]| unsafe { Region::new(values.as_mut_ptr().cast(), values.len() * BYTES) };
    let mut value = [value];
    let (all, own) = (region(&mut theirs), region(&mut value));
    let blocks: Vec<Region> = (0..peers).map(|rank| all.part(rank * BYTES, BYTES)).collect();
    let mut b = begin(comm)?;
    if !inter::is_inter(comm)? {
        data::allgather(&mut b, &blocks, Some(own));
        run(b.finish())?;
        return Ok((theirs, Vec::new()));
    }
    crate::collective::inter::exchange(&mut b, own, &blocks);
    run(b.finish())?;
    // Rank 0 of the other group knows mine.
    let mut b = begin(comm)?;
    b.receive(0, region(&mut mine));
    if b.rank == 0 {
        crate::collective::inter::send_to_all(&mut b, all);
    }
    run(b.finish())?;
    Ok((mine, theirs))
}
