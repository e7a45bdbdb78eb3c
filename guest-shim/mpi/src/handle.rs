//! Handles as programs see them.
//!
//! In C a handle is a pointer to an incomplete struct, in Fortran an INTEGER; both hold the same number here. Predefined
//! handles have the values of the MPI 5.0 ABI (below 0x1000); others are a kind in bits 27 to 30 and an index below,
//! so that they are positive in an INTEGER.

use alloc::vec::Vec;

/// A handle of one kind.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle<const KIND: usize>(pub usize);

/// Communicator.
pub type Comm = Handle<1>;
/// Group.
pub type Group = Handle<2>;
/// Datatype.
pub type Datatype = Handle<3>;
/// Operation of a reduction.
pub type Op = Handle<4>;
/// Request.
pub type Request = Handle<5>;
/// Error handler.
pub type Errhandler = Handle<6>;
/// Matched message.
pub type Message = Handle<7>;
/// Info.
pub type Info = Handle<8>;

impl Comm {
    /// `MPI_COMM_NULL`.
    pub const NULL: Comm = Handle(0x100);
    /// `MPI_COMM_WORLD`.
    pub const WORLD: Comm = Handle(0x101);
    /// `MPI_COMM_SELF`.
    pub const SELF: Comm = Handle(0x102);
}
impl Group {
    /// `MPI_GROUP_NULL`.
    pub const NULL: Group = Handle(0x108);
    /// `MPI_GROUP_EMPTY`.
    pub const EMPTY: Group = Handle(0x109);
}
impl Datatype {
    /// `MPI_DATATYPE_NULL`.
    pub const NULL: Datatype = Handle(0x200);
}
impl Op {
    /// `MPI_OP_NULL`.
    pub const NULL: Op = Handle(0x20);
}
impl Request {
    /// `MPI_REQUEST_NULL`.
    pub const NULL: Request = Handle(0x180);
}
impl Info {
    /// `MPI_INFO_NULL`.
    pub const NULL: Info = Handle(0x130);
    /// `MPI_INFO_ENV`.
    pub const ENV: Info = Handle(0x131);
}
impl Message {
    /// `MPI_MESSAGE_NULL`.
    pub const NULL: Message = Handle(0x128);
    /// `MPI_MESSAGE_NO_PROC`.
    pub const NO_PROC: Message = Handle(0x129);
}
impl Errhandler {
    /// `MPI_ERRHANDLER_NULL`.
    pub const NULL: Errhandler = Handle(0x140);
    /// `MPI_ERRORS_ARE_FATAL`.
    pub const ARE_FATAL: Errhandler = Handle(0x141);
    /// `MPI_ERRORS_ABORT`.
    pub const ABORT: Errhandler = Handle(0x142);
    /// `MPI_ERRORS_RETURN`.
    pub const RETURN: Errhandler = Handle(0x143);
}

const INDEX_BITS: u32 = 27;

/// The objects behind the handles of one kind.
pub struct Table<T, const KIND: usize> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<const KIND: usize> Handle<KIND> {
    /// The handle of the object that was put into its table as the one with this number.
    pub const fn numbered(index: usize) -> Self {
        Handle(KIND << INDEX_BITS | index)
    }
}

impl<T, const KIND: usize> Table<T, KIND> {
    /// Without objects.
    pub const fn new() -> Self {
        Table { places: Vec::new(), free: Vec::new() }
    }

    /// Keeps an object.
    pub fn insert(&mut self, object: T) -> Handle<KIND> {
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index] = Some(object);
                index
            }
            None => {
                self.places.push(Some(object));
                self.places.len() - 1
            }
        };
        Handle::numbered(index)
    }

    fn index(handle: Handle<KIND>) -> Option<usize> {
        (handle.0 >> INDEX_BITS == KIND).then_some(handle.0 & ((1 << INDEX_BITS) - 1))
    }

    /// The object, if the handle names one.
    pub fn get(&self, handle: Handle<KIND>) -> Option<&T> {
        self.places.get(Self::index(handle)?)?.as_ref()
    }

    /// The object, if the handle names one.
    pub fn get_mut(&mut self, handle: Handle<KIND>) -> Option<&mut T> {
        self.places.get_mut(Self::index(handle)?)?.as_mut()
    }

    /// Takes the object out.
    pub fn remove(&mut self, handle: Handle<KIND>) -> Option<T> {
        let index = Self::index(handle)?;
        let object = self.places.get_mut(index)?.take()?;
        self.free.push(index);
        Some(object)
    }
}
