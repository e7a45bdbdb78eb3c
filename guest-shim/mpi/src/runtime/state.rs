//! Everything the library knows in this process.
//!
//! A partition has one thread, and MPI_THREAD_MULTIPLE is not offered, so there is one state without a lock. Callbacks of
//! the program (operations, attribute functions, error handlers) may call MPI functions; therefore the state is
//! borrowed in short closures by [`with`], never across a callback.

#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::arithmetic::Builtin;
use crate::datatype::{self, Type};
use crate::engine::{Engine, RequestId, Taken};
use crate::error::{Error, class};
use crate::group::Ranks;
use crate::handle::{Comm, Datatype, Errhandler, Group, Handle, Op, Table};
use crate::memory::Scratch;
use crate::runtime::request::RequestObject;
use crate::runtime::schedule::{Operation, Schedule, UserFunction};
use crate::sys;
use crate::transport::{Place, Transport};
use crate::wire::Limits;

/// A communicator.
pub struct Communicator {
    /// Its members.
    pub group: Rc<Ranks>,
    /// My rank in it.
    pub rank: usize,
    /// Context of its point-to-point messages; that of its collectives is one more.
    pub context: u32,
    /// Collectives begun on it; the same on all members.
    pub sequence: u32,
    /// Its error handler.
    pub errhandler: Errhandler,
    /// Its attributes: key and value.
    pub attributes: Vec<(c_int, usize)>,
    /// Its name.
    pub name: Vec<u8>,
}

/// Callbacks of an attribute key.
#[derive(Clone, Copy)]
pub struct Keyval {
    /// The number programs know it by.
    pub number: c_int,
    /// `MPI_Comm_copy_attr_function` or the small number of a predefined one.
    pub copy: usize,
    /// `MPI_Comm_delete_attr_function` or null.
    pub delete: usize,
    /// Passed to both.
    pub extra: usize,
    /// Given back by the program; attributes may still have it.
    pub freed: bool,
}

/// An operation made by the program.
#[derive(Clone, Copy)]
pub struct UserOp {
    /// The function.
    pub function: UserFunction,
    /// Whether the order of operands does not matter.
    pub commutes: bool,
}

/// The buffer for buffered sends.
#[derive(Default)]
pub struct Attached {
    /// What the program gave.
    pub address: usize,
    /// Its size in bytes.
    pub bytes: usize,
    /// Messages on their way, each with its copy of the data.
    pub messages: Vec<(RequestId, Scratch)>,
}

/// The state between MPI_Init and MPI_Finalize.
pub struct Mpi {
    /// Who we are.
    pub place: Place,
    /// The rings.
    pub transport: Transport,
    /// The messages.
    pub engine: Engine,
    comms: Table<Communicator, 1>,
    groups: Table<Rc<Ranks>, 2>,
    datatypes: Table<Rc<Type>, 3>,
    predefined: Vec<Option<Rc<Type>>>,
    /// Operations made by the program.
    pub ops: Table<UserOp, 4>,
    /// Requests.
    pub requests: Table<RequestObject, 5>,
    /// Error handlers made by the program.
    pub errhandlers: Table<usize, 6>,
    /// Messages taken by a matched probe, with the length of each.
    pub messages: Table<(Taken, Comm), 7>,
    /// Lowest context that no communicator here has ever had.
    pub next_context: u32,
    /// Collectives under way.
    pub schedules: Vec<Option<Box<Schedule>>>,
    /// For buffered sends.
    pub attached: Attached,
    /// Attribute keys.
    pub keyvals: Vec<Keyval>,
    /// What Init_thread gave.
    pub thread_level: c_int,
}

impl Mpi {
    /// The state of a process that has just found its rings.
    pub fn new(transport: Transport, place: Place) -> Mpi {
        let limits = Limits::for_ring(place.ring_bytes as usize);
        let mut comms = Table::new();
        let world = Rc::new(Ranks::new((0..place.ranks).collect()));
        let myself = Rc::new(Ranks::new(alloc::vec![place.rank]));
        comms.insert(Communicator::new(world, place.rank as usize, 0, b"MPI_COMM_WORLD"));
        comms.insert(Communicator::new(myself, 0, 2, b"MPI_COMM_SELF"));
        Mpi {
            place,
            transport,
            engine: Engine::new(place.rank, place.ranks, limits),
            comms,
            groups: Table::new(),
            datatypes: Table::new(),
            predefined: datatype::predefined(),
            ops: Table::new(),
            requests: Table::new(),
            errhandlers: Table::new(),
            messages: Table::new(),
            next_context: 4,
            schedules: Vec::new(),
            attached: Attached::default(),
            keyvals: Vec::new(),
            thread_level: 0,
        }
    }

    fn comm_handle(comm: Comm) -> Comm {
        match comm {
            Comm::WORLD => Handle(1 << 28),
            Comm::SELF => Handle(1 << 28 | 1),
            other => other,
        }
    }

    /// The communicator.
    ///
    /// # Errors
    /// When the handle names none.
    pub fn comm(&self, comm: Comm) -> Result<&Communicator, Error> {
        self.comms.get(Self::comm_handle(comm)).ok_or(Error::Invalid(class::COMM, "not a communicator"))
    }

    /// The communicator.
    ///
    /// # Errors
    /// When the handle names none.
    pub fn comm_mut(&mut self, comm: Comm) -> Result<&mut Communicator, Error> {
        self.comms.get_mut(Self::comm_handle(comm)).ok_or(Error::Invalid(class::COMM, "not a communicator"))
    }

    /// Keeps a new communicator.
    pub fn add_comm(&mut self, comm: Communicator) -> Comm {
        self.comms.insert(comm)
    }

    /// Forgets a communicator.
    pub fn remove_comm(&mut self, comm: Comm) {
        self.comms.remove(comm);
    }

    /// The group.
    ///
    /// # Errors
    /// When the handle names none.
    pub fn group(&self, group: Group) -> Result<Rc<Ranks>, Error> {
        if group == Group::EMPTY {
            return Ok(Rc::new(Ranks::default()));
        }
        self.groups.get(group).cloned().ok_or(Error::Invalid(class::GROUP, "not a group"))
    }

    /// Keeps a group; the empty one has a handle of its own.
    pub fn add_group(&mut self, group: Rc<Ranks>) -> Group {
        if group.is_empty() { Group::EMPTY } else { self.groups.insert(group) }
    }

    /// Forgets a group.
    pub fn remove_group(&mut self, group: Group) {
        self.groups.remove(group);
    }

    /// The datatype.
    ///
    /// # Errors
    /// When the handle names none.
    pub fn datatype(&self, datatype: Datatype) -> Result<Rc<Type>, Error> {
        let found = match datatype.0 {
            0x200..0x300 => self.predefined[datatype.0 & 0xff].clone(),
            _ => self.datatypes.get(datatype).cloned(),
        };
        found.ok_or(Error::Invalid(class::TYPE, "not a datatype"))
    }

    /// Keeps a datatype.
    pub fn add_datatype(&mut self, datatype: Type) -> Datatype {
        self.datatypes.insert(Rc::new(datatype))
    }

    /// Forgets a datatype; false when it is predefined or unknown.
    pub fn remove_datatype(&mut self, datatype: Datatype) -> bool {
        self.datatypes.remove(datatype).is_some()
    }

    /// The operation on elements of this type.
    ///
    /// # Errors
    /// When there is no such operation or it is not defined for the type.
    pub fn operation(&self, op: Op, datatype: Datatype) -> Result<Operation, Error> {
        if let Some(user) = self.ops.get(op) {
            return Ok(Operation::User { function: user.function, commutes: user.commutes, datatype });
        }
        let builtin = Builtin::from_handle(op.0).ok_or(Error::Invalid(class::OP, "not an operation"))?;
        let basic = self.datatype(datatype)?.basic;
        basic
            .and_then(|basic| Operation::builtin(builtin, basic))
            .ok_or(Error::Invalid(class::OP, "the operation is not defined for this datatype"))
    }
}

impl Communicator {
    /// A communicator without attributes.
    pub fn new(group: Rc<Ranks>, rank: usize, context: u32, name: &[u8]) -> Communicator {
        Communicator {
            group,
            rank,
            context,
            sequence: 0,
            errhandler: Errhandler::ARE_FATAL,
            attributes: Vec::new(),
            name: name.to_vec(),
        }
    }
}

/// Where the process is between start and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before MPI_Init.
    Before,
    /// Between.
    Running,
    /// After MPI_Finalize.
    After,
}

struct Global {
    phase: AtomicU32,
    mpi: UnsafeCell<Option<Mpi>>,
}

// SAFETY: only one thread calls MPI (the thread level offered is MPI_THREAD_SERIALIZED at most).
unsafe impl Sync for Global {}

static GLOBAL: Global = Global { phase: AtomicU32::new(0), mpi: UnsafeCell::new(None) };

/// Where the process is.
pub fn phase() -> Phase {
    match GLOBAL.phase.load(Ordering::Relaxed) {
        0 => Phase::Before,
        1 => Phase::Running,
        _ => Phase::After,
    }
}

/// MPI_Init has found the rings.
pub fn begin(mpi: Mpi) {
    // SAFETY: nothing is borrowed before the first phase begins.
    unsafe { *GLOBAL.mpi.get() = Some(mpi) };
    GLOBAL.phase.store(1, Ordering::Relaxed);
}

/// MPI_Finalize is done.
pub fn end() {
    GLOBAL.phase.store(2, Ordering::Relaxed);
}

/// Uses the state. The closure must not call the program's functions.
pub fn with<R>(use_it: impl FnOnce(&mut Mpi) -> R) -> R {
    // SAFETY: one thread, and closures given to `with` do not call `with` or the program, so this is the only borrow.
    match unsafe { &mut *GLOBAL.mpi.get() } {
        Some(mpi) if phase() == Phase::Running => use_it(mpi),
        _ => {
            let when = if phase() == Phase::After { "after MPI_Finalize" } else { "before MPI_Init" };
            sys::print_error(&format!("MPI: a function was called {when}\n"));
            sys::exit_group(1)
        }
    }
}

/// Ends the process because its peers or its rings cannot be trusted any more, or the program made a fatal error.
pub fn fatal(what: core::fmt::Arguments<'_>) -> ! {
    // SAFETY: a read of plain numbers; the process ends here.
    let rank = unsafe { (*GLOBAL.mpi.get()).as_ref().map(|mpi| mpi.place.rank) };
    let line = match rank {
        Some(rank) => format!("MPI: rank {rank}: {what}\n"),
        None => format!("MPI: {what}\n"),
    };
    sys::print_error(&line);
    sys::exit_group(1)
}
