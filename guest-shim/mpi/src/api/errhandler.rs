//! Error handlers.

use core::ffi::c_int;

use super::{api, put};
use crate::error::{Error, class};
use crate::handle::{Comm, Errhandler};
use crate::runtime::state::with;

type Function = unsafe extern "C" fn(*mut Comm, *mut c_int, ...);

/// Calls an error handler of the program.
pub fn call(function: usize, mut comm: Comm, mut code: c_int) {
    // SAFETY: the address was given to Comm_create_errhandler as such a function.
    unsafe {
        let function: Function = core::mem::transmute(function);
        function(&raw mut comm, &raw mut code);
    }
}

fn set(comm: Comm, handler: Errhandler) -> Result<(), Error> {
    with(|mpi| {
        let predefined = [Errhandler::ARE_FATAL, Errhandler::ABORT, Errhandler::RETURN].contains(&handler);
        if !predefined && mpi.errhandlers.get(handler).is_none() {
            return Err(Error::Invalid(class::ERRHANDLER, "not an error handler"));
        }
        mpi.comm_mut(comm)?.errhandler = handler;
        Ok(())
    })
}

fn get(comm: Comm) -> Result<Errhandler, Error> {
    with(|mpi| Ok(mpi.comm(comm)?.errhandler))
}

api! {
    /// Makes an error handler of a function.
    Comm_create_errhandler(function: usize, handler: *mut Errhandler) {
        put(handler, with(|mpi| mpi.errhandlers.insert(function)));
        Ok(())
    }

    /// The MPI-1 name of Comm_create_errhandler.
    Errhandler_create(function: usize, handler: *mut Errhandler) {
        put(handler, with(|mpi| mpi.errhandlers.insert(function)));
        Ok(())
    }

    /// Sets the error handler of a communicator.
    Comm_set_errhandler(comm: Comm, handler: Errhandler) on comm {
        set(comm, handler)
    }

    /// The MPI-1 name of Comm_set_errhandler.
    Errhandler_set(comm: Comm, handler: Errhandler) on comm {
        set(comm, handler)
    }

    /// The error handler of a communicator.
    Comm_get_errhandler(comm: Comm, handler: *mut Errhandler) on comm {
        put(handler, get(comm)?);
        Ok(())
    }

    /// The MPI-1 name of Comm_get_errhandler.
    Errhandler_get(comm: Comm, handler: *mut Errhandler) on comm {
        put(handler, get(comm)?);
        Ok(())
    }

    /// Lets go of an error handler. Communicators that have it keep it, so the function stays known.
    Errhandler_free(handler: *mut Errhandler) {
        put(handler, Errhandler::NULL);
        Ok(())
    }

    /// Calls the error handler of a communicator.
    Comm_call_errhandler(comm: Comm, code: c_int) on comm {
        Err(Error::Code(code))
    }
}
