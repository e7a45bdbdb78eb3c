//! Completion of requests.

use core::ffi::c_int;

use super::{Failure, api, array_mut, count, put, put_status};
use crate::error::{Error, class};
use crate::handle::Request;
use crate::runtime::progress::{progress, wait_until};
use crate::runtime::request::{
    Status, UNDEFINED, cancel_request, complete_indices, finish_request, free_request, peek_status,
};
use crate::runtime::state::with;

fn is_complete(request: Request) -> Result<bool, Error> {
    with(|mpi| mpi.request_is_complete(request))
}

/// # Safety
/// `status` is null or valid.
unsafe fn finish(request: &mut Request, status: *mut Status) -> Result<(), Failure> {
    let (found, comm, result) = finish_request(request);
    // SAFETY: as promised by the caller.
    unsafe { put_status(status, found) };
    result.map_err(|error| error.on(comm))
}

/// The place of an element in an array that may be missing (statuses ignored).
fn at(statuses: *mut Status, index: usize) -> *mut Status {
    if statuses.is_null() { statuses } else { statuses.wrapping_add(index) }
}

/// Checks all handles, then waits until `enough` of the requests are complete.
fn wait_for(requests: &[Request], enough: impl Fn(&[Request]) -> bool) -> Result<(), Error> {
    for request in requests {
        is_complete(*request)?;
    }
    wait_until(|| enough(requests));
    Ok(())
}

fn all_complete(requests: &[Request]) -> bool {
    with(|mpi| requests.iter().all(|request| mpi.request_is_complete(*request).unwrap_or(true)))
}

fn any_complete(requests: &[Request]) -> bool {
    with(|mpi| {
        let active = |request: &&Request| mpi.request_is_active(**request);
        let complete = |request: &Request| mpi.request_is_complete(*request).unwrap_or(true);
        requests.iter().filter(active).any(complete) || !requests.iter().any(|r| active(&r))
    })
}

/// # Safety
/// `statuses` is null or has a place for every request.
unsafe fn finish_all(requests: &mut [Request], statuses: *mut Status) -> Result<(), Failure> {
    let mut failed = None;
    for (index, request) in requests.iter_mut().enumerate() {
        let (mut found, comm, result) = finish_request(request);
        if let Err(error) = result {
            found.error = error.class();
            failed = Some((comm, error));
        }
        // SAFETY: as promised by the caller.
        unsafe { put(at(statuses, index), found) };
    }
    match failed {
        None => Ok(()),
        Some((comm, _)) if !statuses.is_null() => Err(Error::InStatus.on(comm)),
        Some((comm, error)) => Err(error.on(comm)),
    }
}

/// Ends the requests with these indices, as Waitsome and Testsome do.
///
/// # Safety
/// The arrays have a place for every request.
unsafe fn finish_some(
    requests: &mut [Request],
    outcount: *mut c_int,
    indices: *mut c_int,
    statuses: *mut Status,
) -> Result<(), Failure> {
    if !with(|mpi| requests.iter().any(|request| mpi.request_is_active(*request))) {
        // SAFETY: as promised by the caller.
        unsafe { put(outcount, UNDEFINED) };
        return Ok(());
    }
    let done = complete_indices(requests)?;
    let mut failed = None;
    for (place, &index) in done.iter().enumerate() {
        let (mut found, comm, result) = finish_request(&mut requests[index]);
        if let Err(error) = result {
            found.error = error.class();
            failed = Some(Error::InStatus.on(comm));
        }
        // SAFETY: as promised by the caller.
        unsafe {
            put(at(statuses, place), found);
            put(indices.wrapping_add(place), index as c_int);
        }
    }
    // SAFETY: as promised by the caller.
    unsafe { put(outcount, done.len() as c_int) };
    failed.map_or(Ok(()), Err)
}

fn first_complete(requests: &[Request]) -> Result<Option<usize>, Error> {
    Ok(complete_indices(requests)?.first().copied())
}

api! {
    /// Waits for a request.
    Wait(request: *mut Request, status: *mut Status) {
        is_complete(*request)?;
        wait_until(|| is_complete(*request).unwrap_or(true));
        finish(&mut *request, status)
    }

    /// Asks for a request.
    Test(request: *mut Request, flag: *mut c_int, status: *mut Status) {
        let mut done = is_complete(*request)?;
        if !done {
            progress();
            done = is_complete(*request)?;
        }
        put(flag, c_int::from(done));
        if !done {
            crate::sys::sched_yield_if_native();
            return Ok(());
        }
        finish(&mut *request, status)
    }

    /// Waits for all.
    Waitall(number: c_int, requests: *mut Request, statuses: *mut Status) {
        let requests = array_mut(requests, count(number)?);
        wait_for(requests, all_complete)?;
        finish_all(requests, statuses)
    }

    /// Asks for all.
    Testall(number: c_int, requests: *mut Request, flag: *mut c_int, statuses: *mut Status) {
        let requests = array_mut(requests, count(number)?);
        progress();
        for request in requests.iter() {
            is_complete(*request)?;
        }
        let done = all_complete(requests);
        put(flag, c_int::from(done));
        if !done {
            crate::sys::sched_yield_if_native();
            return Ok(());
        }
        finish_all(requests, statuses)
    }

    /// Waits for one of several.
    Waitany(number: c_int, requests: *mut Request, index: *mut c_int, status: *mut Status) {
        let requests = array_mut(requests, count(number)?);
        wait_for(requests, any_complete)?;
        match first_complete(requests)? {
            Some(first) => {
                put(index, first as c_int);
                finish(&mut requests[first], status)
            }
            None => {
                put(index, UNDEFINED);
                put_status(status, Status::EMPTY);
                Ok(())
            }
        }
    }

    /// Asks for one of several.
    Testany(number: c_int, requests: *mut Request, index: *mut c_int, flag: *mut c_int, status: *mut Status) {
        let requests = array_mut(requests, count(number)?);
        progress();
        let active = with(|mpi| requests.iter().any(|request| mpi.request_is_active(*request)));
        let first = first_complete(requests)?;
        put(flag, c_int::from(first.is_some() || !active));
        put(index, first.map_or(UNDEFINED, |first| first as c_int));
        match first {
            Some(first) => finish(&mut requests[first], status),
            None => {
                if active {
                    crate::sys::sched_yield_if_native();
                } else {
                    put_status(status, Status::EMPTY);
                }
                Ok(())
            }
        }
    }

    /// Waits for at least one of several.
    Waitsome(number: c_int, requests: *mut Request, outcount: *mut c_int, indices: *mut c_int, statuses: *mut Status) {
        let requests = array_mut(requests, count(number)?);
        wait_for(requests, any_complete)?;
        finish_some(requests, outcount, indices, statuses)
    }

    /// Asks for any of several.
    Testsome(number: c_int, requests: *mut Request, outcount: *mut c_int, indices: *mut c_int, statuses: *mut Status) {
        let requests = array_mut(requests, count(number)?);
        progress();
        finish_some(requests, outcount, indices, statuses)
    }

    /// Asks for a request without ending it.
    Request_get_status(request: Request, flag: *mut c_int, status: *mut Status) {
        progress();
        let done = is_complete(request)?;
        put(flag, c_int::from(done));
        if done {
            put_status(status, peek_status(request));
        }
        Ok(())
    }

    /// Tries to cancel a request.
    Cancel(request: *mut Request) {
        cancel_request(*request)?;
        progress();
        Ok(())
    }

    /// Lets go of a request.
    Request_free(request: *mut Request) {
        if *request == Request::NULL {
            return Err(Error::Invalid(class::REQUEST, "the request is null").into());
        }
        free_request(*request)?;
        put(request, Request::NULL);
        Ok(())
    }
}
