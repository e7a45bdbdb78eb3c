//! Matched probes and receives.

use core::ffi::{c_int, c_void};

use super::{api, put, put_status};
use crate::engine::Pattern;
use crate::error::{Error, class};
use crate::handle::{Comm, Datatype, Message, Request};
use crate::runtime::progress::{progress, wait_until};
use crate::runtime::request::{Arguments, Pending, Status, complete};
use crate::runtime::state::with;

fn take(pattern: &Pattern, comm: Comm) -> Result<Option<(Message, Status)>, Error> {
    with(|mpi| {
        let Some((taken, found)) = mpi.engine.take(pattern) else { return Ok(None) };
        let status = Status::of(&found, mpi.comm(comm)?.peers());
        Ok(Some((mpi.messages.insert((taken, comm)), status)))
    })
}

/// # Safety
/// The buffer has room, the message handle is valid.
unsafe fn start(
    buffer: *mut c_void,
    count: c_int,
    datatype: Datatype,
    message: *mut Message,
) -> Result<(Comm, Pending), Error> {
    // SAFETY: as promised by the caller.
    let handle = unsafe { *message };
    // SAFETY: as promised by the caller.
    unsafe { put(message, Message::NULL) };
    if handle == Message::NO_PROC {
        return Ok((Comm::WORLD, Pending::Nothing(Status::FROM_NOBODY)));
    }
    with(|mpi| {
        let gone = Error::Invalid(class::REQUEST, "not a message");
        let (taken, comm) = mpi.messages.remove(handle).ok_or(gone)?;
        let arguments = Arguments { buffer, count, datatype, peer: 0, tag: 0, comm };
        Ok((comm, mpi.start_matched_receive(taken, &arguments)?))
    })
}

api! {
    /// Waits for a message and takes it.
    Mprobe(source: c_int, tag: c_int, comm: Comm, message: *mut Message, status: *mut Status) on comm {
        let Some(pattern) = with(|mpi| mpi.pattern(source, tag, comm))? else {
            put(message, Message::NO_PROC);
            put_status(status, Status::FROM_NOBODY);
            return Ok(());
        };
        wait_until(|| with(|mpi| mpi.engine.probe(&pattern).is_some()));
        if let Some((handle, found)) = take(&pattern, comm)? {
            put(message, handle);
            put_status(status, found);
        }
        Ok(())
    }

    /// Takes a message if there is one.
    Improbe(source: c_int, tag: c_int, comm: Comm, flag: *mut c_int, message: *mut Message, status: *mut Status)
    on comm {
        let Some(pattern) = with(|mpi| mpi.pattern(source, tag, comm))? else {
            put(flag, 1);
            put(message, Message::NO_PROC);
            put_status(status, Status::FROM_NOBODY);
            return Ok(());
        };
        progress();
        let taken = take(&pattern, comm)?;
        put(flag, c_int::from(taken.is_some()));
        match taken {
            Some((handle, found)) => {
                put(message, handle);
                put_status(status, found);
            }
            None => crate::sys::sched_yield_if_native(),
        }
        Ok(())
    }

    /// Receives a taken message.
    Mrecv(buffer: *mut c_void, number: c_int, datatype: Datatype, message: *mut Message, status: *mut Status) {
        let (comm, pending) = start(buffer, number, datatype, message)?;
        let (found, result) = complete(pending);
        put_status(status, found);
        result.map_err(|error| error.on(comm))
    }

    /// Starts to receive a taken message.
    Imrecv(buffer: *mut c_void, number: c_int, datatype: Datatype, message: *mut Message, request: *mut Request) {
        let (comm, pending) = start(buffer, number, datatype, message)?;
        put(request, with(|mpi| mpi.add_request(comm, pending)));
        Ok(())
    }
}
