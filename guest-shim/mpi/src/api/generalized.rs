//! Generalised requests: operations of the program that complete when it says so.

use super::{api, put};
use crate::error::{Error, class};
use crate::handle::{Comm, Request};
use crate::runtime::request::{Generalized, Pending};
use crate::runtime::state::with;

api! {
    /// Makes a request with functions of the program.
    Grequest_start(query: usize, free: usize, cancel: usize, extra: usize, request: *mut Request) {
        let made = Generalized { query, free, cancel, extra, complete: false };
        put(request, with(|mpi| mpi.add_request(Comm::WORLD, Pending::Generalized(made))));
        Ok(())
    }

    /// Says that the operation is complete.
    Grequest_complete(request: Request) {
        let complete = with(|mpi| match mpi.requests.get_mut(request)?.pending.as_mut()? {
            Pending::Generalized(of) => {
                of.complete = true;
                Some(())
            }
            _ => None,
        });
        Ok(complete.ok_or(Error::Invalid(class::REQUEST, "not a generalised request"))?)
    }
}
