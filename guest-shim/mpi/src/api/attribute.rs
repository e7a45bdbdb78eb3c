//! Attributes of communicators.

use core::ffi::{c_int, c_void};

use super::{api, put};
use crate::error::{Error, class};
use crate::handle::Comm;
use crate::runtime::state::{Keyval, with};

type CopyFunction = unsafe extern "C" fn(Comm, c_int, usize, usize, *mut usize, *mut c_int) -> c_int;
type DeleteFunction = unsafe extern "C" fn(Comm, c_int, usize, usize) -> c_int;

/// `MPI_COMM_DUP_FN`.
const DUP_FN: usize = 1;
/// First key of the program.
const FIRST_KEY: c_int = 1000;

const NOT_A_KEY: Error = Error::Invalid(class::KEYVAL, "not an attribute key");

/// Values of the predefined attributes, which programs get by address.
struct Predefined {
    key: c_int,
    value: c_int,
}

/// MPI_TAG_UB, MPI_IO, MPI_HOST, MPI_WTIME_IS_GLOBAL.
static PREDEFINED: [Predefined; 4] = [
    Predefined { key: 501, value: c_int::MAX },
    Predefined { key: 502, value: -1 },
    Predefined { key: 503, value: -3 },
    Predefined { key: 504, value: 0 },
];

fn keyval(key: c_int) -> Result<Keyval, Error> {
    with(|mpi| mpi.keyvals.iter().copied().find(|keyval| keyval.number == key)).ok_or(NOT_A_KEY)
}

/// Copies an attribute to a duplicate as its key asks.
pub fn copy(from: Comm, to: Comm, key: c_int, value: usize) -> Result<(), Error> {
    let keyval = keyval(key)?;
    let (mut new, mut flag) = (value, 0);
    match keyval.copy {
        0 => {}
        DUP_FN => flag = 1,
        // SAFETY: the address was given to Comm_create_keyval as such a function.
        address => unsafe {
            let function: CopyFunction = core::mem::transmute(address);
            let code = function(from, key, keyval.extra, value, &raw mut new, &raw mut flag);
            if code != class::SUCCESS {
                return Err(Error::Code(code));
            }
        },
    }
    if flag != 0 {
        with(|mpi| mpi.comm_mut(to).map(|comm| comm.attributes.push((key, new))))?;
    }
    Ok(())
}

fn delete(comm: Comm, key: c_int) -> Result<(), Error> {
    let keyval = keyval(key)?;
    let old = with(|mpi| {
        let attributes = &mut mpi.comm_mut(comm)?.attributes;
        let at = attributes.iter().position(|(of, _)| *of == key);
        Ok(at.map(|at| attributes.remove(at).1))
    })?;
    if let Some(value) = old
        && keyval.delete != 0
    {
        // SAFETY: the address was given to Comm_create_keyval as such a function.
        let code = unsafe {
            let function: DeleteFunction = core::mem::transmute(keyval.delete);
            function(comm, key, value, keyval.extra)
        };
        if code != class::SUCCESS {
            return Err(Error::Code(code));
        }
    }
    Ok(())
}

/// Deletes all attributes of a communicator that ends.
pub fn delete_all(comm: Comm) -> Result<(), Error> {
    while let Some((key, _)) = with(|mpi| Ok(mpi.comm(comm)?.attributes.last().copied()))? {
        delete(comm, key)?;
    }
    Ok(())
}

fn create(copy: usize, delete: usize, extra: *mut c_void) -> c_int {
    with(|mpi| {
        let number = FIRST_KEY + mpi.keyvals.len() as c_int;
        mpi.keyvals.push(Keyval { number, copy, delete, extra: extra as usize, freed: false });
        number
    })
}

fn free(key: c_int) -> Result<(), Error> {
    with(|mpi| {
        let keyval = mpi.keyvals.iter_mut().find(|keyval| keyval.number == key).ok_or(NOT_A_KEY)?;
        keyval.freed = true;
        Ok(())
    })
}

fn set(comm: Comm, key: c_int, value: *mut c_void) -> Result<(), Error> {
    if keyval(key)?.freed {
        return Err(NOT_A_KEY);
    }
    delete(comm, key)?;
    with(|mpi| mpi.comm_mut(comm).map(|comm| comm.attributes.push((key, value as usize))))
}

/// # Safety
/// The pointers are valid.
unsafe fn get(comm: Comm, key: c_int, value: *mut c_void, flag: *mut c_int) -> Result<(), Error> {
    let found = match PREDEFINED.iter().find(|attribute| attribute.key == key) {
        Some(attribute) => Some(&raw const attribute.value as usize),
        None if key < FIRST_KEY => None,
        None => {
            keyval(key)?;
            with(|mpi| {
                Ok(mpi.comm(comm)?.attributes.iter().find(|(of, _)| *of == key).map(|(_, value)| *value))
            })?
        }
    };
    // SAFETY: as promised by the caller.
    unsafe {
        put(flag, c_int::from(found.is_some()));
        if let Some(found) = found {
            put(value.cast::<usize>(), found);
        }
    }
    Ok(())
}

api! {
    /// Makes an attribute key.
    Comm_create_keyval(copy: usize, delete: usize, key: *mut c_int, extra: *mut c_void) {
        put(key, create(copy, delete, extra));
        Ok(())
    }

    /// The MPI-1 name of Comm_create_keyval.
    Keyval_create(copy: usize, delete: usize, key: *mut c_int, extra: *mut c_void) {
        put(key, create(copy, delete, extra));
        Ok(())
    }

    /// Ends an attribute key.
    Comm_free_keyval(key: *mut c_int) {
        free(*key)?;
        put(key, 0);
        Ok(())
    }

    /// The MPI-1 name of Comm_free_keyval.
    Keyval_free(key: *mut c_int) {
        free(*key)?;
        put(key, 0);
        Ok(())
    }

    /// Sets an attribute.
    Comm_set_attr(comm: Comm, key: c_int, value: *mut c_void) on comm {
        set(comm, key, value)
    }

    /// The MPI-1 name of Comm_set_attr.
    Attr_put(comm: Comm, key: c_int, value: *mut c_void) on comm {
        set(comm, key, value)
    }

    /// An attribute.
    Comm_get_attr(comm: Comm, key: c_int, value: *mut c_void, flag: *mut c_int) on comm {
        get(comm, key, value, flag)
    }

    /// The MPI-1 name of Comm_get_attr.
    Attr_get(comm: Comm, key: c_int, value: *mut c_void, flag: *mut c_int) on comm {
        get(comm, key, value, flag)
    }

    /// Deletes an attribute.
    Comm_delete_attr(comm: Comm, key: c_int) on comm {
        delete(comm, key)
    }

    /// The MPI-1 name of Comm_delete_attr.
    Attr_delete(comm: Comm, key: c_int) on comm {
        delete(comm, key)
    }
}
