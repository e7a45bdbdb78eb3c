//! Sends, receives, probes.

use alloc::boxed::Box;
use core::ffi::{c_int, c_void};

use super::{api, array, array_mut, put, put_status};
use crate::error::{Error, class};
use crate::handle::{Comm, Datatype, Request};
use crate::runtime::progress::{progress, wait_until};
use crate::runtime::request::{
    Arguments, Pending, Recipe, SendMode, Status, UNDEFINED, complete, start_request,
};
use crate::runtime::state::with;

fn send(arguments: &Arguments, mode: SendMode) -> Result<(), Error> {
    let pending = with(|mpi| mpi.start_send(arguments, mode))?;
    complete(pending).1
}

/// # Safety
/// `request` is valid.
unsafe fn isend(arguments: &Arguments, mode: SendMode, request: *mut Request) -> Result<(), Error> {
    let handle = with(|mpi| {
        let pending = mpi.start_send(arguments, mode)?;
        Ok(mpi.add_request(arguments.comm, pending))
    })?;
    // SAFETY: as promised by the caller.
    unsafe { put(request, handle) };
    Ok(())
}

/// # Safety
/// `request` is valid.
unsafe fn persistent(comm: Comm, recipe: Recipe, request: *mut Request) -> Result<(), Error> {
    let handle = with(|mpi| {
        mpi.comm(comm)?;
        Ok(mpi.add_persistent(comm, recipe))
    })?;
    // SAFETY: as promised by the caller.
    unsafe { put(request, handle) };
    Ok(())
}

/// # Safety
/// `status` is null or valid.
unsafe fn finish(pending: Pending, status: *mut Status) -> Result<(), Error> {
    let (found, result) = complete(pending);
    // SAFETY: as promised by the caller.
    unsafe { put_status(status, found) };
    result
}

/// Sends a copy of a buffer and receives into the buffer.
fn replace(send: &Arguments, receive: &Arguments) -> Result<(Pending, Pending), Error> {
    with(|mpi| {
        let send = mpi.start_send_of_copy(send)?;
        Ok((send, mpi.start_receive(receive)?))
    })
}

macro_rules! sends {
    ($($blocking:ident $immediate:ident $init:ident $mode:ident;)*) => { $(
        api! {
            /// Blocking send.
            $blocking(buffer: *const c_void, count: c_int, datatype: Datatype, dest: c_int, tag: c_int, comm: Comm)
            on comm {
                send(&Arguments { buffer, count, datatype, peer: dest, tag, comm }, SendMode::$mode)
            }
            /// Nonblocking send.
            $immediate(buffer: *const c_void, count: c_int, datatype: Datatype, dest: c_int, tag: c_int, comm: Comm,
                request: *mut Request) on comm {
                isend(&Arguments { buffer, count, datatype, peer: dest, tag, comm }, SendMode::$mode, request)
            }
            /// Persistent send.
            $init(buffer: *const c_void, count: c_int, datatype: Datatype, dest: c_int, tag: c_int, comm: Comm,
                request: *mut Request) on comm {
                let arguments = Arguments { buffer, count, datatype, peer: dest, tag, comm };
                persistent(comm, Recipe::Send(arguments, SendMode::$mode), request)
            }
        }
    )* };
}

sends! {
    Send Isend Send_init Standard;
    Rsend Irsend Rsend_init Standard;
    Ssend Issend Ssend_init Synchronous;
    Bsend Ibsend Bsend_init Buffered;
}

api! {
    /// Blocking receive.
    Recv(buffer: *mut c_void, count: c_int, datatype: Datatype, source: c_int, tag: c_int, comm: Comm,
        status: *mut Status) on comm {
        let pending =
            with(|mpi| mpi.start_receive(&Arguments { buffer, count, datatype, peer: source, tag, comm }))?;
        finish(pending, status)
    }

    /// Nonblocking receive.
    Irecv(buffer: *mut c_void, count: c_int, datatype: Datatype, source: c_int, tag: c_int, comm: Comm,
        request: *mut Request) on comm {
        let handle = with(|mpi| {
            let pending = mpi.start_receive(&Arguments { buffer, count, datatype, peer: source, tag, comm })?;
            Ok(mpi.add_request(comm, pending))
        })?;
        put(request, handle);
        Ok(())
    }

    /// Persistent receive.
    Recv_init(buffer: *mut c_void, count: c_int, datatype: Datatype, source: c_int, tag: c_int, comm: Comm,
        request: *mut Request) on comm {
        let arguments = Arguments { buffer, count, datatype, peer: source, tag, comm };
        persistent(comm, Recipe::Receive(arguments), request)
    }

    /// Sends and receives at the same time.
    Sendrecv(sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, dest: c_int, sendtag: c_int,
        recvbuf: *mut c_void, recvcount: c_int, recvtype: Datatype, source: c_int, recvtag: c_int, comm: Comm,
        status: *mut Status) on comm {
        let receive = Arguments {
            buffer: recvbuf, count: recvcount, datatype: recvtype, peer: source, tag: recvtag, comm,
        };
        let send = Arguments {
            buffer: sendbuf, count: sendcount, datatype: sendtype, peer: dest, tag: sendtag, comm,
        };
        let (receive, send) = with(|mpi| {
            let receive = mpi.start_receive(&receive)?;
            Ok((receive, mpi.start_send(&send, SendMode::Standard)?))
        })?;
        let sent = complete(send).1;
        finish(receive, status)?;
        sent
    }

    /// Sends and receives at the same time, without waiting.
    Isendrecv(sendbuf: *const c_void, sendcount: c_int, sendtype: Datatype, dest: c_int, sendtag: c_int,
        recvbuf: *mut c_void, recvcount: c_int, recvtype: Datatype, source: c_int, recvtag: c_int, comm: Comm,
        request: *mut Request) on comm {
        let receive = Arguments {
            buffer: recvbuf, count: recvcount, datatype: recvtype, peer: source, tag: recvtag, comm,
        };
        let send = Arguments {
            buffer: sendbuf, count: sendcount, datatype: sendtype, peer: dest, tag: sendtag, comm,
        };
        let handle = with(|mpi| {
            let receive = mpi.start_receive(&receive)?;
            let send = mpi.start_send(&send, SendMode::Standard)?;
            Ok(mpi.add_request(comm, Pending::Both(Box::new((send, receive)))))
        })?;
        put(request, handle);
        Ok(())
    }

    /// Sends a buffer and receives into it.
    Sendrecv_replace(buffer: *mut c_void, count: c_int, datatype: Datatype, dest: c_int, sendtag: c_int,
        source: c_int, recvtag: c_int, comm: Comm, status: *mut Status) on comm {
        let send = Arguments { buffer, count, datatype, peer: dest, tag: sendtag, comm };
        let receive = Arguments { buffer, count, datatype, peer: source, tag: recvtag, comm };
        let (send, receive) = replace(&send, &receive)?;
        let sent = complete(send).1;
        finish(receive, status)?;
        sent
    }

    /// As Sendrecv_replace, without waiting.
    Isendrecv_replace(buffer: *mut c_void, count: c_int, datatype: Datatype, dest: c_int, sendtag: c_int,
        source: c_int, recvtag: c_int, comm: Comm, request: *mut Request) on comm {
        let send = Arguments { buffer, count, datatype, peer: dest, tag: sendtag, comm };
        let receive = Arguments { buffer, count, datatype, peer: source, tag: recvtag, comm };
        let both = replace(&send, &receive)?;
        put(request, with(|mpi| mpi.add_request(comm, Pending::Both(Box::new(both)))));
        Ok(())
    }

    /// Waits for a message without receiving it.
    Probe(source: c_int, tag: c_int, comm: Comm, status: *mut Status) on comm {
        let Some(pattern) = with(|mpi| mpi.pattern(source, tag, comm))? else {
            put_status(status, Status::FROM_NOBODY);
            return Ok(());
        };
        let mut found = None;
        wait_until(|| {
            found = with(|mpi| mpi.engine.probe(&pattern));
            found.is_some()
        });
        if let Some(found) = found {
            put_status(status, with(|mpi| Ok(Status::of(&found, mpi.comm(comm)?.peers())))?);
        }
        Ok(())
    }

    /// Asks for a message without receiving it.
    Iprobe(source: c_int, tag: c_int, comm: Comm, flag: *mut c_int, status: *mut Status) on comm {
        let Some(pattern) = with(|mpi| mpi.pattern(source, tag, comm))? else {
            put(flag, 1);
            put_status(status, Status::FROM_NOBODY);
            return Ok(());
        };
        progress();
        let found = with(|mpi| mpi.engine.probe(&pattern));
        put(flag, c_int::from(found.is_some()));
        match found {
            Some(found) => put_status(status, with(|mpi| Ok(Status::of(&found, mpi.comm(comm)?.peers())))?),
            None => crate::sys::sched_yield_if_native(),
        }
        Ok(())
    }

    /// Elements received.
    Get_count(status: *const Status, datatype: Datatype, number: *mut c_int) {
        let of = with(|mpi| mpi.datatype(datatype))?;
        let bytes = (*status).bytes();
        let elements = match of.bytes as u64 {
            0 if bytes == 0 => 0,
            0 => UNDEFINED,
            size if bytes.is_multiple_of(size) => c_int::try_from(bytes / size).unwrap_or(UNDEFINED),
            _ => UNDEFINED,
        };
        put(number, elements);
        Ok(())
    }

    /// Basic elements received; undefined if the message ends inside of one.
    Get_elements(status: *const Status, datatype: Datatype, number: *mut c_int) {
        let of = with(|mpi| mpi.datatype(datatype))?;
        let elements = of.basic_elements((*status).bytes());
        put(number, elements.and_then(|elements| c_int::try_from(elements).ok()).unwrap_or(UNDEFINED));
        Ok(())
    }

    /// As Get_elements, in a large number.
    Get_elements_x(status: *const Status, datatype: Datatype, number: *mut i64) {
        let of = with(|mpi| mpi.datatype(datatype))?;
        let elements = of.basic_elements((*status).bytes());
        put(number, elements.and_then(|elements| i64::try_from(elements).ok()).unwrap_or(i64::from(UNDEFINED)));
        Ok(())
    }

    /// Gives the library a buffer for buffered sends.
    Buffer_attach(buffer: *mut c_void, size: c_int) {
        let bytes = super::count(size)?;
        with(|mpi| {
            if mpi.attached.address != 0 {
                return Err(Error::Invalid(class::BUFFER, "a buffer is attached already"));
            }
            mpi.attached.address = buffer as usize;
            mpi.attached.bytes = bytes;
            Ok(())
        })?;
        Ok(())
    }

    /// Takes the buffer back when all buffered messages are gone.
    Buffer_detach(buffer: *mut c_void, size: *mut c_int) {
        wait_until(|| with(|mpi| {
            mpi.collect_buffered();
            mpi.attached.messages.is_empty()
        }));
        let (address, bytes) = with(|mpi| {
            let was = (mpi.attached.address, mpi.attached.bytes);
            mpi.attached.address = 0;
            mpi.attached.bytes = 0;
            was
        });
        put(buffer.cast::<usize>(), address);
        put(size, bytes as c_int);
        Ok(())
    }

    /// Starts a persistent request.
    Start(request: *mut Request) {
        Ok(start_request(*request)?)
    }

    /// Starts persistent requests.
    Startall(number: c_int, requests: *mut Request) {
        for request in array_mut(requests, super::count(number)?) {
            start_request(*request)?;
        }
        Ok(())
    }

    /// Sets what Get_count and Get_elements say of a status.
    Status_set_elements(status: *mut Status, datatype: Datatype, number: c_int) {
        let of = with(|mpi| mpi.datatype(datatype))?;
        (*status).set_bytes(of.bytes_of_basic(super::count(number)? as u64));
        Ok(())
    }

    /// As Status_set_elements, with a large number.
    Status_set_elements_x(status: *mut Status, datatype: Datatype, number: i64) {
        let of = with(|mpi| mpi.datatype(datatype))?;
        let number = u64::try_from(number).map_err(|_| Error::Invalid(class::COUNT, "a count is negative"))?;
        (*status).set_bytes(of.bytes_of_basic(number));
        Ok(())
    }

    /// Marks a status as that of a cancelled request.
    Status_set_cancelled(status: *mut Status, flag: c_int) {
        (*status).set_cancelled(flag != 0);
        Ok(())
    }

    /// Whether the request was cancelled.
    Test_cancelled(status: *const Status, flag: *mut c_int) {
        let _ = array(status, 1);
        put(flag, c_int::from((*status).is_cancelled()));
        Ok(())
    }
}
