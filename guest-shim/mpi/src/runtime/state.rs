//! Everything the library knows in this process.
//!
//! A partition has one thread, and MPI_THREAD_MULTIPLE is not offered, so there is one state without a lock. Callbacks of
//! the program (operations, attribute functions, error handlers) may call MPI functions; therefore the state is
//! borrowed in short closures by [`with`], never across a callback.

#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::arithmetic::Builtin;
use crate::constructor::Constructor;
use crate::datatype::{self, Type};
use crate::engine::{Engine, RequestId, Taken};
use crate::error::{Error, class};
use crate::group::Ranks;
use crate::handle::{Comm, Datatype, Errhandler, Group, Handle, Op, Request, Table};
use crate::info::Entries;
use crate::memory::Scratch;
use crate::runtime::request::{Recipe, RequestObject};
use crate::runtime::schedule::{Operation, Schedule, UserFunction};
use crate::sys;
use crate::topology::Topology;
use crate::transport::{Place, Transport};
use crate::wire::Limits;

/// A communicator.
pub struct Communicator {
    /// Its members.
    pub group: Rc<Ranks>,
    /// The other group, in an intercommunicator.
    pub remote: Option<Rc<Ranks>>,
    /// My rank in it (in my group).
    pub rank: usize,
    /// Context of its point-to-point messages; that of its collectives is one more.
    pub context: u32,
    /// Collectives begun on it; the same on all members.
    pub sequence: u32,
    /// Its error handler.
    pub errhandler: Errhandler,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Its name.
    pub name: Vec<u8>,
    /// Its topology, if it has one.
    pub topology: Option<Rc<Topology>>,
    /// Its hints, kept and given back.
    pub info: Entries,
}

/// What can have attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A communicator.
    Comm(Comm),
    /// A datatype.
    Type(Datatype),
}

/// In which language, and with which kind of INTEGER, an attribute was set or a key was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// C.
    C,
    /// Fortran with default INTEGERs (MPI-1).
    Integer,
    /// Fortran with INTEGERs of address size.
    Address,
}

/// An attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// Its key.
    pub key: c_int,
    /// Its value.
    pub value: usize,
    /// Who set it.
    pub language: Language,
    /// Where a value of Fortran is kept for C, which gets it by address.
    pub place: usize,
}

/// A datatype behind a handle.
#[derive(Clone)]
pub struct DatatypeObject {
    /// The type.
    pub of: Rc<Type>,
    /// How it was made.
    pub made: Rc<Constructor>,
}

/// What a program hangs on a datatype, also on a predefined one.
#[derive(Default)]
pub struct TypeExtras {
    /// The name, if it was set.
    pub name: Option<Vec<u8>>,
    /// The attributes.
    pub attributes: Vec<Attribute>,
}

/// Error classes, codes and strings made by the program.
#[derive(Default)]
pub struct ErrorCodes {
    /// Class and string of code [`ErrorCodes::FIRST`] and on.
    pub codes: Vec<Option<(c_int, Vec<u8>)>>,
    /// What MPI_LASTUSEDCODE points to.
    pub last_used: Box<c_int>,
}

impl ErrorCodes {
    /// The first code of the program: one above MPI_ERR_LASTCODE.
    pub const FIRST: c_int = 0x4000;
}

/// Callbacks of an attribute key.
#[derive(Clone, Copy)]
pub struct Keyval {
    /// The number programs know it by.
    pub number: c_int,
    /// For datatypes, not for communicators.
    pub of_types: bool,
    /// In which language the callbacks are written.
    pub language: Language,
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
    datatypes: Table<DatatypeObject, 3>,
    predefined: Vec<Option<Rc<Type>>>,
    /// Names and attributes of datatypes, by handle.
    pub type_extras: BTreeMap<usize, TypeExtras>,
    /// Datatypes that the program has freed, but not all that may use them.
    freed_types: Vec<Datatype>,
    /// Operations, as above.
    freed_ops: Vec<Op>,
    /// Requests that can be started again.
    persistent_requests: usize,
    /// Types made by MPI_Type_create_f90_real and its like, which live on.
    pub precise_types: Vec<Datatype>,
    /// Errors of the program.
    pub error_codes: ErrorCodes,
    /// The tag of the persistent collective that is being planned.
    pub planned_tag: Option<i32>,
    /// Operations made by the program.
    pub ops: Table<UserOp, 4>,
    /// Requests.
    pub requests: Table<RequestObject, 5>,
    /// Error handlers made by the program.
    pub errhandlers: Table<usize, 6>,
    /// Messages taken by a matched probe, with the length of each.
    pub messages: Table<(Taken, Comm), 7>,
    /// Contexts that this rank has given to new communicators.
    contexts_given: u32,
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
            contexts_given: 0,
            type_extras: BTreeMap::new(),
            freed_types: Vec::new(),
            freed_ops: Vec::new(),
            persistent_requests: 0,
            precise_types: Vec::new(),
            error_codes: ErrorCodes { codes: Vec::new(), last_used: Box::new(ErrorCodes::FIRST - 1) },
            planned_tag: None,
            schedules: Vec::new(),
            attached: Attached::default(),
            keyvals: Vec::new(),
            thread_level: 0,
        }
    }

    fn comm_handle(comm: Comm) -> Comm {
        match comm {
            Comm::WORLD => Handle::numbered(0),
            Comm::SELF => Handle::numbered(1),
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
            _ => self.datatypes.get(datatype).map(|object| object.of.clone()),
        };
        found.ok_or(Error::Invalid(class::TYPE, "not a datatype"))
    }

    /// How the datatype was made; none if it is predefined.
    pub fn constructor(&self, datatype: Datatype) -> Option<Rc<Constructor>> {
        self.datatypes.get(datatype).map(|object| object.made.clone())
    }

    /// Keeps a datatype.
    pub fn add_datatype(&mut self, datatype: DatatypeObject) -> Datatype {
        self.datatypes.insert(datatype)
    }

    /// Forgets a datatype. While there are persistent requests it may be theirs, and its handle stays valid.
    pub fn remove_datatype(&mut self, datatype: Datatype) {
        self.type_extras.remove(&datatype.0);
        self.freed_types.push(datatype);
        self.forget_freed();
    }

    /// Forgets an operation; as with datatypes.
    pub fn remove_op(&mut self, op: Op) {
        self.freed_ops.push(op);
        self.forget_freed();
    }

    /// Keeps a request that can be started again and again.
    pub fn add_persistent(&mut self, comm: Comm, recipe: Recipe) -> Request {
        self.persistent_requests += 1;
        self.requests.insert(RequestObject { comm, pending: None, recipe: Some(recipe) })
    }

    /// A persistent request has been freed.
    pub fn persistent_is_gone(&mut self) {
        self.persistent_requests -= 1;
        self.forget_freed();
    }

    fn forget_freed(&mut self) {
        if self.persistent_requests > 0 {
            return;
        }
        for datatype in core::mem::take(&mut self.freed_types) {
            self.datatypes.remove(datatype);
        }
        for op in core::mem::take(&mut self.freed_ops) {
            self.ops.remove(op);
        }
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
            remote: None,
            rank,
            context,
            sequence: 0,
            errhandler: Errhandler::ARE_FATAL,
            attributes: Vec::new(),
            name: name.to_vec(),
            topology: None,
            info: Entries::default(),
        }
    }

    /// The tag of the next collective, the same on all members.
    pub fn next_sequence(&mut self) -> i32 {
        self.sequence = (self.sequence + 1) & 0x3fff_ffff;
        self.sequence.cast_signed()
    }

    /// Whom messages on it go to and come from.
    pub fn peers(&self) -> &Rc<Ranks> {
        self.remote.as_ref().unwrap_or(&self.group)
    }
}

impl Mpi {
    /// A context that no communicator anywhere has had: ours, as its upper bits say.
    ///
    /// # Errors
    /// When this rank has given all it has.
    pub fn new_context(&mut self) -> Result<u32, Error> {
        // A context is a giver (0: predefined), a number, and a bit for collectives.
        let giver_bits = u32::BITS - self.place.ranks.leading_zeros();
        let number_bits = u32::BITS - 1 - giver_bits;
        if self.contexts_given + 1 >= 1 << number_bits {
            return Err(Error::Invalid(class::OTHER, "no context is left for another communicator"));
        }
        self.contexts_given += 1;
        Ok((self.place.rank + 1) << (number_bits + 1) | self.contexts_given << 1)
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

struct Infos(UnsafeCell<Table<Entries, 8>>);

// SAFETY: as with `Global`.
unsafe impl Sync for Infos {}

static INFOS: Infos = Infos(UnsafeCell::new(Table::new()));

/// Uses the infos, which exist before MPI_Init and after MPI_Finalize, too.
pub fn with_infos<R>(use_them: impl FnOnce(&mut Table<Entries, 8>) -> R) -> R {
    // SAFETY: one thread, and the closures do not call this again.
    use_them(unsafe { &mut *INFOS.0.get() })
}

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
