//! Sends, receives and requests with the arguments MPI gives them.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use crate::datatype::Type;
use crate::engine::{Completion, Envelope, Mode, Pattern, RequestId, Taken};
use crate::error::{Error, class};
use crate::group::Ranks;
use crate::handle::{Comm, Datatype, Handle, Request};
use crate::memory::{Region, Scratch};
use crate::runtime::progress::{self, wait_until};
use crate::runtime::schedule::Schedule;
use crate::runtime::state::{Mpi, with};

/// `MPI_ANY_SOURCE`.
pub const ANY_SOURCE: c_int = -1;
/// `MPI_ANY_TAG`.
pub const ANY_TAG: c_int = -2;
/// `MPI_PROC_NULL`.
pub const PROC_NULL: c_int = -3;
/// `MPI_UNDEFINED`.
pub const UNDEFINED: c_int = -32766;

/// `MPI_Status` of the ABI; Fortran's has the same layout.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Rank of the sender.
    pub source: c_int,
    /// Tag.
    pub tag: c_int,
    /// Error code (only set by functions that complete several requests).
    pub error: c_int,
    count: [c_int; 2],
    cancelled: c_int,
    reserved: [c_int; 2],
}

impl Status {
    /// The empty status.
    pub const EMPTY: Status = Status::new(ANY_SOURCE, ANY_TAG, 0);
    /// Of a receive from `MPI_PROC_NULL`.
    pub const FROM_NOBODY: Status = Status::new(PROC_NULL, ANY_TAG, 0);

    const fn new(source: c_int, tag: c_int, bytes: u64) -> Status {
        let count = [bytes as c_int, (bytes >> 32) as c_int];
        Status { source, tag, error: 0, count, cancelled: 0, reserved: [0; 2] }
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        u64::from(self.count[0].cast_unsigned()) | u64::from(self.count[1].cast_unsigned()) << 32
    }

    /// Sets the bytes received.
    pub fn set_bytes(&mut self, bytes: u64) {
        *self = Status { count: [bytes as c_int, (bytes >> 32) as c_int], ..*self };
    }

    /// The same with this error code.
    pub fn with_error(mut self, error: c_int) -> Status {
        self.error = error;
        self
    }

    /// Whether the request was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled != 0
    }

    /// Says that the request was cancelled.
    pub fn set_cancelled(&mut self, cancelled: bool) {
        self.cancelled = c_int::from(cancelled);
    }

    /// What a completion looks like to members of `group`.
    pub fn of(completion: &Completion, group: &Ranks) -> Status {
        let source = group.rank_of(completion.source).map_or(ANY_SOURCE, |rank| rank as c_int);
        let mut status = Status::new(source, completion.tag, completion.bytes);
        status.set_cancelled(completion.cancelled);
        status
    }
}

/// Buffer, count, type, peer, tag and communicator of a call.
#[derive(Clone, Copy)]
pub struct Arguments {
    /// Buffer.
    pub buffer: *const c_void,
    /// Elements.
    pub count: c_int,
    /// Their type.
    pub datatype: Datatype,
    /// Destination or source.
    pub peer: c_int,
    /// Tag.
    pub tag: c_int,
    /// Communicator.
    pub comm: Comm,
}

/// How to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendMode {
    /// Standard and ready.
    Standard,
    /// Synchronous.
    Synchronous,
    /// Buffered.
    Buffered,
}

/// Plans a persistent collective.
pub type Plan = Rc<dyn Fn() -> Result<Schedule, Error>>;

/// What a persistent request does when it is started.
#[derive(Clone)]
pub enum Recipe {
    /// A send.
    Send(Arguments, SendMode),
    /// A receive.
    Receive(Arguments),
    /// A collective.
    Collective(Plan),
}

/// Where received bytes go when their type is not one run.
pub struct Unpack {
    packed: Scratch,
    buffer: *mut u8,
    count: usize,
    of: Rc<Type>,
}

/// An operation under way.
pub enum Pending {
    /// Nothing to wait for.
    Nothing(Status),
    /// A send, with its packed data if it had to be packed.
    Send(RequestId, Option<Scratch>),
    /// A receive.
    Receive(RequestId, Rc<Ranks>, Option<Unpack>),
    /// A collective.
    Collective(usize),
    /// An operation of the program.
    Generalized(Generalized),
    /// Two operations that complete together; the status is that of the second.
    Both(Box<(Pending, Pending)>),
}

/// A generalised request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generalized {
    /// `MPI_Grequest_query_function`.
    pub query: usize,
    /// `MPI_Grequest_free_function`.
    pub free: usize,
    /// `MPI_Grequest_cancel_function`.
    pub cancel: usize,
    /// Passed to all three.
    pub extra: usize,
    /// The program says that it is complete.
    pub complete: bool,
}

type QueryFunction = unsafe extern "C" fn(usize, *mut Status) -> c_int;
type FreeFunction = unsafe extern "C" fn(usize) -> c_int;
type CancelFunction = unsafe extern "C" fn(usize, c_int) -> c_int;

fn check(code: c_int) -> Result<(), Error> {
    if code == class::SUCCESS { Ok(()) } else { Err(Error::Code(code)) }
}

impl Generalized {
    /// Asks the program for the status. Must be called without a borrow of the state, as the two below.
    pub fn query(&self) -> (Status, Result<(), Error>) {
        let mut status = Status::EMPTY;
        // SAFETY: the address was given to MPI_Grequest_start as such a function.
        let code = unsafe {
            let function: QueryFunction = core::mem::transmute(self.query);
            function(self.extra, &raw mut status)
        };
        (status, check(code))
    }

    /// Tells the program that the request ends.
    ///
    /// # Errors
    /// What the program says.
    pub fn free(&self) -> Result<(), Error> {
        // SAFETY: the address was given to MPI_Grequest_start as such a function.
        check(unsafe {
            let function: FreeFunction = core::mem::transmute(self.free);
            function(self.extra)
        })
    }

    fn cancel(&self) -> Result<(), Error> {
        // SAFETY: the address was given to MPI_Grequest_start as such a function.
        check(unsafe {
            let function: CancelFunction = core::mem::transmute(self.cancel);
            function(self.extra, c_int::from(self.complete))
        })
    }
}

/// What a request handle stands for.
pub struct RequestObject {
    /// Communicator, for errors.
    pub comm: Comm,
    /// What is under way; none in an inactive persistent request.
    pub pending: Option<Pending>,
    /// Of a persistent request.
    pub recipe: Option<Recipe>,
}

/// Elements in a buffer: a count that is not negative, a type, a buffer that is there.
///
/// # Errors
/// When they are not.
pub fn elements(
    mpi: &Mpi,
    buffer: *const c_void,
    count: c_int,
    datatype: Datatype,
) -> Result<(usize, Rc<Type>), Error> {
    let elements = usize::try_from(count).map_err(|_| Error::Invalid(class::COUNT, "a count is negative"))?;
    let of = mpi.datatype(datatype)?;
    if buffer.is_null() && elements > 0 && of.bytes > 0 && of.basic.is_some() {
        return Err(Error::Invalid(class::BUFFER, "a buffer is null"));
    }
    of.bytes.checked_mul(elements).ok_or(Error::Invalid(class::COUNT, "a count is too large"))?;
    Ok((elements, of))
}

impl Mpi {
    fn check_tag(tag: c_int) -> Result<i32, Error> {
        if tag >= 0 { Ok(tag) } else { Err(Error::Invalid(class::TAG, "a tag is negative")) }
    }

    /// Starts a send.
    ///
    /// # Errors
    /// When an argument is not valid.
    pub fn start_send(&mut self, arguments: &Arguments, mode: SendMode) -> Result<Pending, Error> {
        let Arguments { buffer, count, datatype, peer, tag, comm } = *arguments;
        let context = self.comm(comm)?.context;
        if peer == PROC_NULL {
            return Ok(Pending::Nothing(Status::EMPTY));
        }
        let (count, of) = elements(self, buffer, count, datatype)?;
        let to = usize::try_from(peer).ok().and_then(|peer| self.comm(comm).ok()?.peers().world(peer));
        let to =
            to.ok_or(Error::Invalid(class::RANK, "the destination is not a rank of the communicator"))?;
        let envelope = Envelope { context, tag: Self::check_tag(tag)? };
        let buffer = buffer.cast_mut().cast::<u8>();
        let engine_mode = if mode == SendMode::Synchronous { Mode::Synchronous } else { Mode::Standard };
        if of.is_one_run() && mode != SendMode::Buffered {
            // SAFETY: the program keeps the buffer until the send is complete.
            let data = unsafe { Region::new(buffer, count * of.bytes) };
            if engine_mode == Mode::Standard && self.send_now(to, envelope, data) {
                return Ok(Pending::Nothing(Status::EMPTY));
            }
            let id = self.engine.send(to, envelope, data, engine_mode);
            self.start_transmission(to);
            return Ok(Pending::Send(id, None));
        }
        let mut packed = Scratch::new(count * of.bytes);
        // SAFETY: the buffer holds these elements.
        unsafe { of.pack(buffer, count, packed.region()) };
        if mode == SendMode::Buffered {
            self.make_buffer_space(packed.region().len())?;
        }
        let id = self.engine.send(to, envelope, packed.region(), engine_mode);
        self.start_transmission(to);
        if mode == SendMode::Buffered {
            self.attached.messages.push((id, packed));
            return Ok(Pending::Nothing(Status::EMPTY));
        }
        Ok(Pending::Send(id, Some(packed)))
    }

    /// Starts a send of a copy, so that the buffer can be used at once.
    ///
    /// # Errors
    /// When an argument is not valid.
    pub fn start_send_of_copy(&mut self, arguments: &Arguments) -> Result<Pending, Error> {
        let (count, of) = elements(self, arguments.buffer, arguments.count, arguments.datatype)?;
        let mut copy = Scratch::new(count * of.bytes);
        // SAFETY: the buffer holds these elements.
        unsafe { of.pack(arguments.buffer.cast_mut().cast(), count, copy.region()) };
        let bytes = c_int::try_from(count * of.bytes)
            .map_err(|_| Error::Invalid(class::COUNT, "a count is too large"))?;
        const MPI_BYTE: Datatype = Handle(0x247);
        let buffer = copy.region().pointer().cast_const().cast();
        let send = Arguments { buffer, count: bytes, datatype: MPI_BYTE, ..*arguments };
        Ok(match self.start_send(&send, SendMode::Standard)? {
            Pending::Send(id, None) => Pending::Send(id, Some(copy)),
            pending => pending,
        })
    }

    /// Forgets buffered messages that are gone.
    pub fn collect_buffered(&mut self) {
        let engine = &mut self.engine;
        self.attached.messages.retain(|(id, _)| {
            let gone = engine.completion(*id).is_some();
            if gone {
                engine.release(*id);
            }
            !gone
        });
    }

    fn make_buffer_space(&mut self, bytes: usize) -> Result<(), Error> {
        self.collect_buffered();
        let used: usize = self.attached.messages.iter_mut().map(|(_, data)| data.region().len()).sum();
        let room = self.attached.bytes.saturating_sub(used);
        if bytes > room { Err(Error::NoBufferSpace { needed: bytes, room }) } else { Ok(()) }
    }

    /// What a receive or probe with this source and tag accepts; `None` for `MPI_PROC_NULL`.
    ///
    /// # Errors
    /// When an argument is not valid.
    pub fn pattern(&self, source: c_int, tag: c_int, comm: Comm) -> Result<Option<Pattern>, Error> {
        let comm = self.comm(comm)?;
        if source == PROC_NULL {
            return Ok(None);
        }
        let wrong = Error::Invalid(class::RANK, "the source is not a rank of the communicator");
        let world = match source {
            ANY_SOURCE => None,
            _ => Some(usize::try_from(source).ok().and_then(|rank| comm.peers().world(rank)).ok_or(wrong)?),
        };
        let tag = if tag == ANY_TAG { None } else { Some(Self::check_tag(tag)?) };
        Ok(Some(Pattern { context: comm.context, source: world, tag }))
    }

    /// Starts a receive.
    ///
    /// # Errors
    /// When an argument is not valid.
    pub fn start_receive(&mut self, arguments: &Arguments) -> Result<Pending, Error> {
        let Some(pattern) = self.pattern(arguments.peer, arguments.tag, arguments.comm)? else {
            return Ok(Pending::Nothing(Status::FROM_NOBODY));
        };
        let (data, unpack) = self.receive_buffer(arguments)?;
        let id = self.engine.receive(pattern, data);
        self.after_receive(id, arguments.comm, unpack)
    }

    /// Receives a message that a matched probe took.
    ///
    /// # Errors
    /// When an argument is not valid.
    pub fn start_matched_receive(&mut self, message: Taken, arguments: &Arguments) -> Result<Pending, Error> {
        let (data, unpack) = self.receive_buffer(arguments)?;
        let id = self.engine.receive_taken(message, data);
        self.after_receive(id, arguments.comm, unpack)
    }

    fn receive_buffer(&mut self, arguments: &Arguments) -> Result<(Region, Option<Unpack>), Error> {
        let (count, of) = elements(self, arguments.buffer, arguments.count, arguments.datatype)?;
        let buffer = arguments.buffer.cast_mut().cast::<u8>();
        if of.is_one_run() {
            // SAFETY: the program keeps the buffer until the receive is complete.
            return Ok((unsafe { Region::new(buffer, count * of.bytes) }, None));
        }
        let mut packed = Scratch::new(count * of.bytes);
        Ok((packed.region(), Some(Unpack { packed, buffer, count, of })))
    }

    fn after_receive(&mut self, id: RequestId, comm: Comm, unpack: Option<Unpack>) -> Result<Pending, Error> {
        // The receive may have matched an announced message: the answer goes out at once.
        if let Some(peer) = self.engine.take_asked() {
            self.start_transmission(peer);
        }
        Ok(Pending::Receive(id, self.comm(comm)?.peers().clone(), unpack))
    }

    /// Whether it is complete.
    pub fn is_complete(&self, pending: &Pending) -> bool {
        match pending {
            Pending::Nothing(_) => true,
            Pending::Send(id, _) | Pending::Receive(id, ..) => self.engine.is_done(*id),
            Pending::Collective(index) => self.schedules[*index].as_ref().is_some_and(|s| s.is_complete()),
            Pending::Generalized(of) => of.complete,
            Pending::Both(both) => self.is_complete(&both.0) && self.is_complete(&both.1),
        }
    }

    /// Ends a complete operation: what its status is and what went wrong.
    pub fn finish(&mut self, pending: Pending) -> (Status, Result<(), Error>) {
        match pending {
            Pending::Nothing(status) => (status, Ok(())),
            Pending::Send(id, _) => {
                let mut status = Status::EMPTY;
                status.set_cancelled(self.engine.completion(id).is_some_and(|done| done.cancelled));
                self.engine.release(id);
                (status, Ok(()))
            }
            Pending::Receive(id, group, unpack) => self.finish_receive(id, &group, unpack),
            Pending::Collective(index) => {
                let failure = self.schedules[index].take().and_then(|schedule| schedule.failure());
                (Status::EMPTY, failure.map_or(Ok(()), Err))
            }
            // Its functions have been called by `finish_request`.
            Pending::Generalized(_) => (Status::EMPTY, Ok(())),
            Pending::Both(both) => {
                let (first, second) = *both;
                let (_, sent) = self.finish(first);
                let (status, received) = self.finish(second);
                (status, sent.and(received))
            }
        }
    }

    fn finish_receive(
        &mut self,
        id: RequestId,
        group: &Ranks,
        unpack: Option<Unpack>,
    ) -> (Status, Result<(), Error>) {
        let Some(done) = self.engine.completion(id) else { return (Status::EMPTY, Ok(())) };
        self.engine.release(id);
        if let Some(mut unpack) = unpack {
            let packed = unpack.packed.region().part(0, done.bytes as usize);
            // SAFETY: the program's buffer has room for the elements.
            unsafe { unpack.of.unpack(unpack.buffer, unpack.count, packed) };
        }
        let truncated = Error::Truncated { message_bytes: done.message_bytes, room_bytes: done.bytes };
        let result = if done.is_truncated() { Err(truncated) } else { Ok(()) };
        (Status::of(&done, group), result)
    }

    /// Whether the request is complete (or null or inactive, which counts as complete).
    ///
    /// # Errors
    /// When the handle names no request.
    pub fn request_is_complete(&self, request: Request) -> Result<bool, Error> {
        if request == Request::NULL {
            return Ok(true);
        }
        let object = self.requests.get(request).ok_or(Error::Invalid(class::REQUEST, "not a request"))?;
        Ok(object.pending.as_ref().is_none_or(|pending| self.is_complete(pending)))
    }

    /// Whether there is anything to wait for.
    pub fn request_is_active(&self, request: Request) -> bool {
        self.requests.get(request).is_some_and(|object| object.pending.is_some())
    }

    /// Ends a complete request that is not generalised.
    fn end_request(&mut self, request: &mut Request) -> (Status, Comm, Result<(), Error>) {
        let Some(object) = self.requests.get_mut(*request) else {
            return (Status::EMPTY, Comm::WORLD, Ok(()));
        };
        let (comm, persistent) = (object.comm, object.recipe.is_some());
        let Some(pending) = object.pending.take() else { return (Status::EMPTY, comm, Ok(())) };
        let (status, result) = self.finish(pending);
        if !persistent {
            self.requests.remove(*request);
            *request = Request::NULL;
        }
        (status, comm, result)
    }

    /// A handle for an operation under way.
    pub fn add_request(&mut self, comm: Comm, pending: Pending) -> Request {
        self.requests.insert(RequestObject { comm, pending: Some(pending), recipe: None })
    }

    /// Lets a request go: it ends by itself. Data that belongs to it is kept until the end of the process.
    fn free_request(&mut self, request: Request) -> Result<(), Error> {
        let object = self.requests.remove(request).ok_or(Error::Invalid(class::REQUEST, "not a request"))?;
        if object.recipe.is_some() {
            self.persistent_is_gone();
        }
        if let Some(pending) = object.pending {
            self.let_go(pending);
        }
        Ok(())
    }

    fn let_go(&mut self, pending: Pending) {
        match pending {
            Pending::Send(id, Some(packed)) => self.attached.messages.push((id, packed)),
            Pending::Send(id, None) | Pending::Receive(id, _, None) => self.engine.release(id),
            Pending::Receive(..) => core::mem::forget(pending),
            Pending::Both(both) => {
                self.let_go(both.0);
                self.let_go(both.1);
            }
            Pending::Nothing(_) | Pending::Collective(_) | Pending::Generalized(_) => {}
        }
    }
}

/// Starts a persistent request.
///
/// # Errors
/// When it is none, or under way.
pub fn start_request(request: Request) -> Result<(), Error> {
    let wrong = Error::Invalid(class::REQUEST, "not an inactive persistent request");
    let recipe = with(|mpi| {
        let object = mpi.requests.get(request).ok_or(wrong)?;
        object.recipe.clone().filter(|_| object.pending.is_none()).ok_or(wrong)
    })?;
    let pending = match recipe {
        Recipe::Send(arguments, mode) => with(|mpi| mpi.start_send(&arguments, mode))?,
        Recipe::Receive(arguments) => with(|mpi| mpi.start_receive(&arguments))?,
        Recipe::Collective(plan) => Pending::Collective(progress::start(plan()?)),
    };
    with(|mpi| {
        if let Some(object) = mpi.requests.get_mut(request) {
            object.pending = Some(pending);
        }
    });
    Ok(())
}

/// Waits for an operation and ends it.
pub fn complete(pending: Pending) -> (Status, Result<(), Error>) {
    if let Pending::Nothing(status) = pending {
        return (status, Ok(()));
    }
    wait_until(|| with(|mpi| mpi.is_complete(&pending)));
    with(|mpi| mpi.finish(pending))
}

fn generalized(request: Request) -> Option<Generalized> {
    with(|mpi| match mpi.requests.get(request)?.pending {
        Some(Pending::Generalized(of)) => Some(of),
        _ => None,
    })
}

/// Ends a complete request; the handle becomes null unless it is persistent.
pub fn finish_request(request: &mut Request) -> (Status, Comm, Result<(), Error>) {
    let Some(of) = generalized(*request) else { return with(|mpi| mpi.end_request(request)) };
    let (status, queried) = of.query();
    let freed = of.free();
    let _ = with(|mpi| mpi.end_request(request));
    (status, Comm::WORLD, queried.and(freed))
}

/// The status of a complete request, which stays.
pub fn peek_status(request: Request) -> Status {
    match generalized(request) {
        Some(of) => of.query().0,
        None => with(|mpi| mpi.peek_status(request)),
    }
}

/// Tries to cancel a request.
///
/// # Errors
/// When it cannot be cancelled.
pub fn cancel_request(request: Request) -> Result<(), Error> {
    match generalized(request) {
        Some(of) => of.cancel(),
        None => with(|mpi| mpi.cancel_request(request)),
    }
}

/// Lets a request go.
///
/// # Errors
/// When there is none, or what the program's function says.
pub fn free_request(request: Request) -> Result<(), Error> {
    let of = generalized(request);
    with(|mpi| mpi.free_request(request))?;
    of.map_or(Ok(()), |of| of.free())
}

/// The requests of an array that are complete, by index.
pub fn complete_indices(requests: &[Request]) -> Result<Vec<usize>, Error> {
    with(|mpi| {
        let mut done = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            if mpi.request_is_complete(*request)? && mpi.request_is_active(*request) {
                done.push(index);
            }
        }
        Ok(done)
    })
}

impl Mpi {
    /// The status of a complete request that is not generalised, which stays.
    fn peek_status(&self, request: Request) -> Status {
        match self.requests.get(request).and_then(|object| object.pending.as_ref()) {
            Some(Pending::Nothing(status)) => *status,
            Some(Pending::Receive(id, group, _)) => {
                self.engine.completion(*id).map_or(Status::EMPTY, |done| Status::of(&done, group))
            }
            _ => Status::EMPTY,
        }
    }

    /// Tries to cancel a send or a receive.
    fn cancel_request(&mut self, request: Request) -> Result<(), Error> {
        let object = self.requests.get(request).ok_or(Error::Invalid(class::REQUEST, "not a request"))?;
        match object.pending {
            Some(Pending::Send(id, _) | Pending::Receive(id, ..)) => self.engine.cancel(id),
            Some(Pending::Collective(_)) => {
                return Err(Error::Invalid(class::REQUEST, "a collective cannot be cancelled"));
            }
            _ => {}
        }
        Ok(())
    }
}
