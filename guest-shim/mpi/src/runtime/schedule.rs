//! A collective operation as a list of steps in rounds: transfers that run together, then local work.
//!
//! The algorithms in `collective` only write schedules; this module carries them out, for blocking and nonblocking calls
//! alike. What a schedule computes depends on the arguments and never on what arrives first.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use crate::arithmetic::{self, Basic, Builtin};
use crate::datatype::Type;
use crate::engine::{Envelope, Mode, Pattern, RequestId};
use crate::error::Error;
use crate::group::Ranks;
use crate::handle::Datatype;
use crate::memory::{Region, Scratch};
use crate::runtime::state::{Mpi, with};

/// A reduction function of the program.
pub type UserFunction = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_int, *mut Datatype);

/// An operation bound to a type.
#[derive(Clone, Copy)]
pub enum Operation {
    /// Predefined.
    Builtin(Builtin, Basic),
    /// The program's.
    User {
        /// The function.
        function: UserFunction,
        /// Whether the order of operands does not matter.
        commutes: bool,
        /// Passed to it.
        datatype: Datatype,
    },
}

impl Operation {
    /// A predefined operation, if it is defined for the type.
    pub fn builtin(builtin: Builtin, basic: Basic) -> Option<Operation> {
        // SAFETY: no elements.
        let defined = matches!(builtin, Builtin::Replace | Builtin::NoOp)
            || unsafe { arithmetic::reduce(builtin, basic, core::ptr::null(), core::ptr::null_mut(), 0) };
        defined.then_some(Operation::Builtin(builtin, basic))
    }

    /// Whether operands may change places.
    pub fn commutes(&self) -> bool {
        match self {
            Operation::Builtin(..) => true,
            Operation::User { commutes, .. } => *commutes,
        }
    }

    /// `inout = input op inout` for `count` elements. Must be called without a borrow of the state.
    ///
    /// # Safety
    /// Both must hold `count` elements of the type.
    pub unsafe fn apply(&self, input: *mut u8, inout: *mut u8, count: usize) {
        match *self {
            Operation::Builtin(builtin, basic) => {
                // SAFETY: as promised by the caller.
                unsafe { arithmetic::reduce(builtin, basic, input, inout, count) };
            }
            Operation::User { function, mut datatype, .. } => {
                let mut count = count as c_int;
                // SAFETY: the program gave this function for this purpose.
                unsafe { function(input.cast(), inout.cast(), &raw mut count, &raw mut datatype) };
            }
        }
    }
}

enum Transfer {
    Send(u32, Region),
    Receive(u32, Region),
}

enum Local {
    Copy { from: Region, to: Region },
    Reduce { operation: Operation, input: *mut u8, inout: *mut u8, count: usize },
    Unpack { of: Rc<Type>, buffer: *mut u8, count: usize, packed: Region },
    CopyElements { of: Rc<Type>, from: *mut u8, to: *mut u8, count: usize },
    Call(Hook),
}

/// Something of the library that happens when a schedule is complete.
pub type Hook = Box<dyn FnOnce()>;

enum Step {
    /// Started without waiting.
    Transfer(Transfer),
    /// Done when all transfers before it are.
    Local(Local),
    /// Passed when all transfers before it are done.
    Round,
}

/// Steps that need no second allocation: what small collectives have.
const STEPS: usize = 12;

/// Elements of a buffer of the program.
#[derive(Clone)]
pub struct View {
    /// Where.
    pub buffer: *mut u8,
    /// How many.
    pub count: usize,
    /// Of what.
    pub of: Rc<Type>,
}

impl View {
    /// Bytes of data.
    pub fn bytes(&self) -> usize {
        self.count * self.of.bytes
    }

    /// The `count` elements from element `offset` on.
    pub fn part(&self, offset: isize, count: usize) -> View {
        let buffer = self.buffer.wrapping_offset(offset.wrapping_mul(self.of.extent));
        View { buffer, count, of: self.of.clone() }
    }
}

/// Writes a schedule.
pub struct Builder {
    /// My rank in the communicator.
    pub rank: usize,
    /// Size of the communicator.
    pub size: usize,
    group: Rc<Ranks>,
    context: u32,
    tag: i32,
    steps: Vec<Step>,
    last: Vec<Local>,
    scratch: Vec<Scratch>,
}

impl Builder {
    /// A schedule for members of a group, on the context and tag of this collective.
    pub fn new(group: Rc<Ranks>, rank: usize, context: u32, tag: i32) -> Builder {
        Builder {
            rank,
            size: group.len(),
            group,
            context,
            tag,
            steps: Vec::with_capacity(STEPS),
            last: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Memory that lives as long as the schedule.
    pub fn scratch(&mut self, bytes: usize) -> Region {
        let mut scratch = Scratch::new(bytes);
        let region = scratch.region();
        self.scratch.push(scratch);
        region
    }

    /// Everything after this happens after everything before it.
    pub fn next_round(&mut self) {
        self.steps.push(Step::Round);
    }

    fn transfer(&mut self, transfer: Transfer) {
        self.steps.push(Step::Transfer(transfer));
    }

    fn local(&mut self, local: Local) {
        self.steps.push(Step::Local(local));
    }

    /// Sends to member `to`, together with the other transfers of the round.
    pub fn send(&mut self, to: usize, data: Region) {
        if let Some(world) = self.group.world(to) {
            self.transfer(Transfer::Send(world, data));
        }
    }

    /// Receives from member `from`, together with the other transfers of the round.
    pub fn receive(&mut self, from: usize, data: Region) {
        if let Some(world) = self.group.world(from) {
            self.transfer(Transfer::Receive(world, data));
        }
    }

    /// Copies when the transfers of the round are done.
    pub fn copy(&mut self, from: Region, to: Region) {
        self.local(Local::Copy { from, to });
    }

    /// `inout = input op inout` when the transfers of the round are done.
    pub fn reduce(&mut self, operation: Operation, input: *mut u8, inout: *mut u8, count: usize) {
        self.local(Local::Reduce { operation, input, inout, count });
    }

    /// Copies elements, not the gaps between them, when the transfers of the round are done.
    pub fn copy_elements(&mut self, of: &Rc<Type>, from: *mut u8, to: *mut u8, count: usize) {
        self.local(Local::CopyElements { of: of.clone(), from, to, count });
    }

    /// The data of a view in a row, as it is now.
    pub fn input(&mut self, view: &View) -> Region {
        if view.of.is_one_run() {
            // SAFETY: the program keeps its buffer alone until the collective is complete.
            return unsafe { Region::new(view.buffer, view.bytes()) };
        }
        let packed = self.scratch(view.bytes());
        // SAFETY: the view is a buffer of the program.
        unsafe { view.of.pack(view.buffer, view.count, packed) };
        packed
    }

    /// Room for the data of a view in a row, which is put into place when the schedule is complete.
    pub fn output(&mut self, view: &View) -> Region {
        if view.of.is_one_run() {
            // SAFETY: as in `input`.
            return unsafe { Region::new(view.buffer, view.bytes()) };
        }
        let packed = self.scratch(view.bytes());
        let unpack = Local::Unpack { of: view.of.clone(), buffer: view.buffer, count: view.count, packed };
        self.last.push(unpack);
        packed
    }

    /// Calls a function of the library when the schedule is complete.
    pub fn at_end(&mut self, hook: Hook) {
        self.last.push(Local::Call(hook));
    }

    /// The schedule.
    pub fn finish(mut self) -> Schedule {
        self.steps.extend(self.last.into_iter().map(Step::Local));
        Schedule {
            steps: self.steps,
            next: 0,
            context: self.context,
            tag: self.tag,
            waiting: Vec::new(),
            _scratch: self.scratch,
            failure: None,
        }
    }
}

/// A collective under way.
pub struct Schedule {
    steps: Vec<Step>,
    /// The first step that has not begun.
    next: usize,
    context: u32,
    tag: i32,
    waiting: Vec<RequestId>,
    _scratch: Vec<Scratch>,
    failure: Option<Error>,
}

impl Schedule {
    /// Goes on as far as possible; returns whether anything happened. Must be called without a borrow of the state.
    pub fn advance(&mut self) -> bool {
        let begun = self.next;
        while let Some(step) = self.steps.get_mut(self.next) {
            if !matches!(step, Step::Transfer(_)) && !self.waiting.is_empty() {
                if !with(|mpi| self.collect(mpi)) {
                    break;
                }
                continue;
            }
            self.next += 1;
            match core::mem::replace(step, Step::Round) {
                Step::Transfer(transfer) => with(|mpi| self.start(mpi, transfer)),
                Step::Local(local) => local.carry_out(),
                Step::Round => {}
            }
        }
        if !self.waiting.is_empty() {
            with(|mpi| self.collect(mpi));
        }
        self.next != begun
    }

    /// Whether it is complete.
    pub fn is_complete(&self) -> bool {
        self.next == self.steps.len() && self.waiting.is_empty()
    }

    /// What went wrong, if anything.
    pub fn failure(&self) -> Option<Error> {
        self.failure
    }

    fn start(&mut self, mpi: &mut Mpi, transfer: Transfer) {
        let envelope = Envelope { context: self.context, tag: self.tag };
        let id = match transfer {
            Transfer::Send(to, data) if mpi.send_now(to, envelope, data) => return,
            Transfer::Send(to, data) => {
                let id = mpi.engine.send(to, envelope, data, Mode::Standard);
                mpi.start_transmission(to);
                id
            }
            Transfer::Receive(from, data) => {
                let pattern = Pattern { context: self.context, source: Some(from), tag: Some(self.tag) };
                let id = mpi.engine.receive(pattern, data);
                if let Some(peer) = mpi.engine.take_asked() {
                    mpi.start_transmission(peer);
                }
                id
            }
        };
        self.waiting.push(id);
    }

    /// Whether all transfers that have begun are done.
    fn collect(&mut self, mpi: &mut Mpi) -> bool {
        let failure = &mut self.failure;
        self.waiting.retain(|&id| match mpi.engine.completion(id) {
            None => true,
            Some(done) => {
                if done.is_truncated() {
                    *failure =
                        Some(Error::Truncated { message_bytes: done.message_bytes, room_bytes: done.bytes });
                }
                mpi.engine.release(id);
                false
            }
        });
        self.waiting.is_empty()
    }
}

impl Local {
    fn carry_out(self) {
        match self {
            Local::Copy { from, to } => {
                from.copy_to(to);
            }
            // SAFETY: the algorithms give buffers of `count` elements.
            Local::Reduce { operation, input, inout, count } => unsafe {
                operation.apply(input, inout, count)
            },
            // SAFETY: the buffer is the program's and has room for the elements.
            Local::Unpack { of, buffer, count, packed } => unsafe {
                of.unpack(buffer, count, packed);
            },
            Local::Call(hook) => hook(),
            Local::CopyElements { of, from, to, count } if of.is_one_run() => {
                // SAFETY: the algorithms give buffers of `count` elements.
                unsafe { Region::new(from, of.bytes * count).copy_to(Region::new(to, of.bytes * count)) };
            }
            Local::CopyElements { of, from, to, count } => {
                let mut packed = Scratch::new(of.bytes * count);
                // SAFETY: the algorithms give buffers of `count` elements.
                unsafe {
                    of.pack(from, count, packed.region());
                    of.unpack(to, count, packed.region());
                }
            }
        }
    }
}
