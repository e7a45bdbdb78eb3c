//! The functions as Fortran calls them: `mpi_send_` and so on, as gfortran names them.
//!
//! Arguments come by reference, handles are INTEGERs with the same numbers as in C, statuses have the layout of C's. The
//! variables MPI_BOTTOM, MPI_IN_PLACE, MPI_STATUS_IGNORE and MPI_STATUSES_IGNORE of `mpif.h` live in a common block, and
//! are known by their addresses. Every pointer argument is what the Fortran binding asks for; that is the safety
//! contract of all of these functions.

#![allow(unsafe_code, clippy::missing_safety_doc, clippy::too_many_arguments, missing_docs)]

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int, c_void};

use crate::api;
use crate::handle::{Datatype, Handle, Request};
use crate::runtime::request::{Status, UNDEFINED};
use crate::runtime::schedule::UserFunction;

/// The common block of `mpif.h`: BOTTOM, IN_PLACE, then STATUS_IGNORE and STATUSES_IGNORE, which are
/// arrays of 8 words, UNWEIGHTED, WEIGHTS_EMPTY, and padding to the alignment that gfortran gives a common block.
#[repr(C, align(32))]
pub struct Sentinels {
    words: UnsafeCell<[c_int; 24]>,
}

// SAFETY: only addresses inside it are used.
unsafe impl Sync for Sentinels {}

#[unsafe(no_mangle)]
pub static mpi_partita_sentinels_: Sentinels = Sentinels { words: UnsafeCell::new([0; 24]) };

const IN_PLACE: usize = 1;
const SUCCESS: c_int = 0;

/// Which word of the common block this is.
fn sentinel(pointer: usize) -> Option<usize> {
    let offset = pointer.wrapping_sub(mpi_partita_sentinels_.words.get() as usize);
    (offset < 80 && offset.is_multiple_of(4)).then_some(offset / 4)
}

fn buffer(pointer: *mut c_void) -> *mut c_void {
    match sentinel(pointer as usize) {
        Some(0) => core::ptr::null_mut(),
        Some(1) => IN_PLACE as *mut c_void,
        _ => pointer,
    }
}

/// `MPI_UNWEIGHTED` and `MPI_WEIGHTS_EMPTY` are pointers with small numbers in C.
fn weights(pointer: *mut c_int) -> *mut c_int {
    match sentinel(pointer as usize) {
        Some(18) => 10 as *mut c_int,
        Some(19) => 11 as *mut c_int,
        _ => pointer,
    }
}

fn status(pointer: *mut Status) -> *mut Status {
    if sentinel(pointer as usize).is_some() { core::ptr::null_mut() } else { pointer }
}

/// A handle that C writes and Fortran keeps as an INTEGER.
struct Out<const KIND: usize> {
    handle: Handle<KIND>,
    fortran: *mut c_int,
}

impl<const KIND: usize> Out<KIND> {
    unsafe fn new(fortran: *mut c_int) -> Self {
        // SAFETY: the program gives an INTEGER.
        Out { handle: Handle(unsafe { *fortran } as usize), fortran }
    }

    fn pointer(&mut self) -> *mut Handle<KIND> {
        &raw mut self.handle
    }
}

impl<const KIND: usize> Drop for Out<KIND> {
    fn drop(&mut self) {
        // SAFETY: as in `new`.
        unsafe { *self.fortran = self.handle.0 as c_int };
    }
}

/// An array of handles, written back when it is dropped.
struct OutArray<const KIND: usize> {
    handles: Vec<Handle<KIND>>,
    fortran: *mut c_int,
}

impl<const KIND: usize> OutArray<KIND> {
    unsafe fn new(fortran: *mut c_int, count: *const c_int) -> Self {
        // SAFETY: the program gives an array of that many INTEGERs.
        let handles =
            unsafe { (0..(*count).max(0) as usize).map(|i| Handle(*fortran.add(i) as usize)).collect() };
        OutArray { handles, fortran }
    }

    fn pointer(&mut self) -> *mut Handle<KIND> {
        self.handles.as_mut_ptr()
    }
}

impl<const KIND: usize> Drop for OutArray<KIND> {
    fn drop(&mut self) {
        for (index, handle) in self.handles.iter().enumerate() {
            // SAFETY: as in `new`.
            unsafe { *self.fortran.add(index) = handle.0 as c_int };
        }
    }
}

/// An index of C, from 0, becomes one of Fortran, from 1.
unsafe fn count_from_one(index: *mut c_int) {
    // SAFETY: the program gives an INTEGER.
    unsafe {
        if *index != UNDEFINED {
            *index += 1;
        }
    }
}

macro_rules! kind {
    (buf) => { *mut c_void };
    (sta) => { *mut Status };
    (chr) => { *mut c_char };
    (aint) => { *const isize };
    (aout) => { *mut isize };
    (fun) => { UserFunction };
    (adr) => { *mut c_void };
    (cal) => { *mut c_void };
    ($other:ident) => { *mut c_int };
}

macro_rules! convert {
    (buf $x:ident) => {
        buffer($x)
    };
    (adr $x:ident) => {
        $x
    };
    (cal $x:ident) => {
        $x as usize
    };
    (wei $x:ident) => {
        weights($x)
    };
    (sta $x:ident) => {
        status($x)
    };
    (int $x:ident) => {
        *$x
    };
    (han $x:ident) => {
        Handle(*$x as usize)
    };
    (new $x:ident) => {
        Out::new($x).pointer()
    };
    (out $x:ident) => {
        $x
    };
    (aint $x:ident) => {
        *$x
    };
    (aout $x:ident) => {
        $x
    };
    (fun $x:ident) => {
        $x
    };
}

/// `fortran name = c_function(argument: kind, …)`.
macro_rules! fortran {
    ($($name:ident = $module:ident::$function:ident($($arg:ident: $kind:ident),*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: kind!($kind),)* ierror: *mut c_int) {
            // SAFETY: the program gives the arguments that the Fortran binding asks for.
            unsafe { *ierror = api::$module::$function($(convert!($kind $arg)),*) };
        }
    )* };
}

mod attribute;
mod more;
mod text;
mod units;

fortran! {
    mpi_finalize_ = environment::Finalize();
    mpi_initialized_ = environment::Initialized(flag: out);
    mpi_finalized_ = environment::Finalized(flag: out);
    mpi_abort_ = environment::Abort(comm: han, code: int);
    mpi_query_thread_ = environment::Query_thread(provided: out);
    mpi_get_version_ = environment::Get_version(version: out, subversion: out);
    mpi_error_class_ = environment::Error_class(code: int, class: out);

    mpi_send_ = pt2pt::Send(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han);
    mpi_ssend_ = pt2pt::Ssend(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han);
    mpi_rsend_ = pt2pt::Rsend(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han);
    mpi_bsend_ = pt2pt::Bsend(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han);
    mpi_isend_ = pt2pt::Isend(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han, request: new);
    mpi_issend_ = pt2pt::Issend(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han, request: new);
    mpi_irsend_ = pt2pt::Irsend(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han, request: new);
    mpi_ibsend_ = pt2pt::Ibsend(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han, request: new);
    mpi_send_init_ = pt2pt::Send_init(buf: buf, n: int, ty: han, dest: int, tag: int, comm: han, request: new);
    mpi_recv_ = pt2pt::Recv(buf: buf, n: int, ty: han, source: int, tag: int, comm: han, st: sta);
    mpi_irecv_ = pt2pt::Irecv(buf: buf, n: int, ty: han, source: int, tag: int, comm: han, request: new);
    mpi_recv_init_ = pt2pt::Recv_init(buf: buf, n: int, ty: han, source: int, tag: int, comm: han, request: new);
    mpi_sendrecv_ = pt2pt::Sendrecv(sendbuf: buf, sendcount: int, sendtype: han, dest: int, sendtag: int,
        recvbuf: buf, recvcount: int, recvtype: han, source: int, recvtag: int, comm: han, st: sta);
    mpi_sendrecv_replace_ = pt2pt::Sendrecv_replace(buf: buf, n: int, ty: han, dest: int, sendtag: int,
        source: int, recvtag: int, comm: han, st: sta);
    mpi_probe_ = pt2pt::Probe(source: int, tag: int, comm: han, st: sta);
    mpi_iprobe_ = pt2pt::Iprobe(source: int, tag: int, comm: han, flag: out, st: sta);
    mpi_get_count_ = pt2pt::Get_count(st: sta, ty: han, n: out);
    mpi_get_elements_ = pt2pt::Get_elements(st: sta, ty: han, n: out);
    mpi_start_ = pt2pt::Start(request: new);
    mpi_test_cancelled_ = pt2pt::Test_cancelled(st: sta, flag: out);
    mpi_buffer_attach_ = pt2pt::Buffer_attach(buf: adr, size: int);

    mpi_wait_ = request::Wait(request: new, st: sta);
    mpi_test_ = request::Test(request: new, flag: out, st: sta);
    mpi_cancel_ = request::Cancel(request: new);
    mpi_request_free_ = request::Request_free(request: new);

    mpi_barrier_ = collective::Barrier(comm: han);
    mpi_bcast_ = collective::Bcast(buf: buf, n: int, ty: han, root: int, comm: han);
    mpi_gather_ = collective::Gather(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf, recvcount: int,
        recvtype: han, root: int, comm: han);
    mpi_gatherv_ = collective::Gatherv(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf, recvcounts: out,
        displs: out, recvtype: han, root: int, comm: han);
    mpi_scatter_ = collective::Scatter(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf, recvcount: int,
        recvtype: han, root: int, comm: han);
    mpi_scatterv_ = collective::Scatterv(sendbuf: buf, sendcounts: out, displs: out, sendtype: han, recvbuf: buf,
        recvcount: int, recvtype: han, root: int, comm: han);
    mpi_allgather_ = collective::Allgather(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf,
        recvcount: int, recvtype: han, comm: han);
    mpi_allgatherv_ = collective::Allgatherv(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf,
        recvcounts: out, displs: out, recvtype: han, comm: han);
    mpi_alltoall_ = collective::Alltoall(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf, recvcount: int,
        recvtype: han, comm: han);
    mpi_alltoallv_ = collective::Alltoallv(sendbuf: buf, sendcounts: out, sdispls: out, sendtype: han, recvbuf: buf,
        recvcounts: out, rdispls: out, recvtype: han, comm: han);
    mpi_reduce_ = collective::Reduce(sendbuf: buf, recvbuf: buf, n: int, ty: han, op: han, root: int, comm: han);
    mpi_allreduce_ = collective::Allreduce(sendbuf: buf, recvbuf: buf, n: int, ty: han, op: han, comm: han);
    mpi_reduce_scatter_ = collective::Reduce_scatter(sendbuf: buf, recvbuf: buf, recvcounts: out, ty: han, op: han,
        comm: han);
    mpi_reduce_scatter_block_ = collective::Reduce_scatter_block(sendbuf: buf, recvbuf: buf, recvcount: int,
        ty: han, op: han, comm: han);
    mpi_scan_ = collective::Scan(sendbuf: buf, recvbuf: buf, n: int, ty: han, op: han, comm: han);
    mpi_exscan_ = collective::Exscan(sendbuf: buf, recvbuf: buf, n: int, ty: han, op: han, comm: han);
    mpi_ibarrier_ = collective::Ibarrier(comm: han, request: new);
    mpi_ibcast_ = collective::Ibcast(buf: buf, n: int, ty: han, root: int, comm: han, request: new);
    mpi_iallreduce_ = collective::Iallreduce(sendbuf: buf, recvbuf: buf, n: int, ty: han, op: han, comm: han,
        request: new);
    mpi_ireduce_ = collective::Ireduce(sendbuf: buf, recvbuf: buf, n: int, ty: han, op: han, root: int, comm: han,
        request: new);
    mpi_ialltoall_ = collective::Ialltoall(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf,
        recvcount: int, recvtype: han, comm: han, request: new);
    mpi_iallgather_ = collective::Iallgather(sendbuf: buf, sendcount: int, sendtype: han, recvbuf: buf,
        recvcount: int, recvtype: han, comm: han, request: new);

    mpi_op_create_ = operation::Op_create(function: fun, commute: int, op: new);
    mpi_op_free_ = operation::Op_free(op: new);

    mpi_comm_rank_ = comm::Comm_rank(comm: han, rank: out);
    mpi_comm_size_ = comm::Comm_size(comm: han, size: out);
    mpi_comm_dup_ = comm::Comm_dup(comm: han, newcomm: new);
    mpi_comm_split_ = comm::Comm_split(comm: han, color: int, key: int, newcomm: new);
    mpi_comm_create_ = comm::Comm_create(comm: han, group: han, newcomm: new);
    mpi_comm_free_ = comm::Comm_free(comm: new);
    mpi_comm_compare_ = comm::Comm_compare(first: han, second: han, result: out);
    mpi_comm_group_ = comm::Comm_group(comm: han, group: new);
    mpi_comm_test_inter_ = intercomm::Comm_test_inter(comm: han, flag: out);

    mpi_group_size_ = group::Group_size(group: han, size: out);
    mpi_group_rank_ = group::Group_rank(group: han, rank: out);
    mpi_group_incl_ = group::Group_incl(group: han, n: int, ranks: out, new: new);
    mpi_group_excl_ = group::Group_excl(group: han, n: int, ranks: out, new: new);
    mpi_group_translate_ranks_ = group::Group_translate_ranks(first: han, n: int, ranks: out, second: han, results: out);
    mpi_group_free_ = group::Group_free(group: new);

    mpi_type_contiguous_ = datatype::Type_contiguous(n: int, old: han, new: new);
    mpi_type_vector_ = datatype::Type_vector(n: int, block: int, stride: int, old: han, new: new);
    mpi_type_create_hvector_ = datatype::Type_create_hvector(n: int, block: int, stride: aint, old: han, new: new);
    mpi_type_indexed_ = datatype::Type_indexed(n: int, lengths: out, displs: out, old: han, new: new);
    mpi_type_create_hindexed_ = datatype::Type_create_hindexed(n: int, lengths: out, displs: aout, old: han, new: new);
    mpi_type_create_resized_ = datatype::Type_create_resized(old: han, lower: aint, extent: aint, new: new);
    mpi_type_create_subarray_ = datatype::Type_create_subarray(n: int, sizes: out, subsizes: out, starts: out,
        order: int, old: han, new: new);
    mpi_type_commit_ = datatype::Type_commit(ty: new);
    mpi_type_free_ = datatype::Type_free(ty: new);
    mpi_type_size_ = datatype::Type_size(ty: han, size: out);
    mpi_type_get_extent_ = datatype::Type_get_extent(ty: han, lower: aout, extent: aout);
    mpi_get_address_ = datatype::Get_address(location: adr, result: aout);

    mpi_comm_set_errhandler_ = errhandler::Comm_set_errhandler(comm: han, handler: han);
    mpi_comm_get_errhandler_ = errhandler::Comm_get_errhandler(comm: han, handler: new);
    mpi_errhandler_set_ = errhandler::Errhandler_set(comm: han, handler: han);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_init_(ierror: *mut c_int) {
    // SAFETY: the program gives an INTEGER.
    unsafe { *ierror = api::environment::Init(core::ptr::null_mut(), core::ptr::null_mut()) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_init_thread_(required: *mut c_int, provided: *mut c_int, ierror: *mut c_int) {
    let nothing = core::ptr::null_mut();
    // SAFETY: the program gives INTEGERs.
    unsafe { *ierror = api::environment::Init_thread(nothing, nothing.cast(), *required, provided) };
}

#[unsafe(no_mangle)]
pub extern "C" fn mpi_wtime_() -> f64 {
    api::environment::Wtime()
}

#[unsafe(no_mangle)]
pub extern "C" fn mpi_wtick_() -> f64 {
    api::environment::Wtick()
}

/// Fills a CHARACTER variable with text and blanks.
unsafe fn put_text(target: *mut c_char, room: usize, text: &[u8], length: *mut c_int) {
    // SAFETY: the program gives a CHARACTER variable of that length and an INTEGER.
    unsafe {
        for index in 0..room {
            *target.add(index) = text.get(index).copied().unwrap_or(b' ').cast_signed();
        }
        *length = text.len().min(room) as c_int;
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_get_processor_name_(
    name: *mut c_char,
    length: *mut c_int,
    ierror: *mut c_int,
    room: usize,
) {
    let mut text = [0u8; 256];
    let mut bytes = 0;
    // SAFETY: the array has the length that the function may fill.
    unsafe {
        *ierror = api::environment::Get_processor_name(text.as_mut_ptr().cast(), &raw mut bytes);
        put_text(name, room, &text[..bytes as usize], length);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_error_string_(
    code: *const c_int,
    string: *mut c_char,
    length: *mut c_int,
    ierror: *mut c_int,
    room: usize,
) {
    let mut text = [0u8; 512];
    let mut bytes = 0;
    // SAFETY: the array has the length that the function may fill.
    unsafe {
        *ierror = api::environment::Error_string(*code, text.as_mut_ptr().cast(), &raw mut bytes);
        put_text(string, room, &text[..bytes as usize], length);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_buffer_detach_(_buffer: *mut c_void, size: *mut c_int, ierror: *mut c_int) {
    let mut address = 0usize;
    // SAFETY: Fortran cannot take an address back, so it goes nowhere.
    unsafe { *ierror = api::pt2pt::Buffer_detach((&raw mut address).cast(), size) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_type_create_struct_(
    count: *const c_int,
    lengths: *const c_int,
    displs: *const isize,
    types: *mut c_int,
    new: *mut c_int,
    ierror: *mut c_int,
) {
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let types: Vec<Datatype> =
            (0..(*count).max(0) as usize).map(|i| Handle(*types.add(i) as usize)).collect();
        let mut new = Out::new(new);
        *ierror = api::datatype::Type_create_struct(*count, lengths, displs, types.as_ptr(), new.pointer());
    }
}

macro_rules! several {
    ($($name:ident = $function:ident($($arg:ident),*) $(indices $index:ident)?;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(count: *const c_int, requests: *mut c_int, $($arg: *mut c_int,)*
            statuses: *mut Status, ierror: *mut c_int) {
            // SAFETY: the program gives the arguments that the Fortran binding asks for.
            unsafe {
                let mut handles = OutArray::<5>::new(requests, count);
                *ierror = api::request::$function(*count, handles.pointer(), $($arg,)* status(statuses));
                $(count_from_one($index);)?
            }
        }
    )* };
}

several! {
    mpi_waitall_ = Waitall();
    mpi_testall_ = Testall(flag);
    mpi_waitany_ = Waitany(index) indices index;
    mpi_testany_ = Testany(index, flag) indices index;
}

macro_rules! some {
    ($($name:ident = $function:ident;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(count: *const c_int, requests: *mut c_int, outcount: *mut c_int,
            indices: *mut c_int, statuses: *mut Status, ierror: *mut c_int) {
            // SAFETY: the program gives the arguments that the Fortran binding asks for.
            unsafe {
                let mut handles = OutArray::<5>::new(requests, count);
                *ierror = api::request::$function(*count, handles.pointer(), outcount, indices, status(statuses));
                for index in 0..(*outcount).max(0) as usize {
                    count_from_one(indices.add(index));
                }
            }
        }
    )* };
}

some! {
    mpi_waitsome_ = Waitsome;
    mpi_testsome_ = Testsome;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_startall_(count: *const c_int, requests: *mut c_int, ierror: *mut c_int) {
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let mut handles = OutArray::<5>::new(requests, count);
        *ierror = api::pt2pt::Startall(*count, handles.pointer());
    }
}

const _: () = assert!(size_of::<Request>() == 8);
