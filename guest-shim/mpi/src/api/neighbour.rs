//! Collectives among the neighbours of a topology.

use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use super::collective::{begin, equal_views, persistent, rank_in, run, varying_views, view};
use super::{array, put, topology};
use crate::error::Error;
use crate::handle::{Comm, Datatype, Info, Request};
use crate::runtime::progress;
use crate::runtime::request::Pending;
use crate::runtime::schedule::{Schedule, View};
use crate::runtime::state::with;
use crate::topology::Topology;

/// Number of edges in and out.
fn degrees(comm: Comm) -> Result<(usize, usize), Error> {
    let (sources, destinations) = topology::of(comm)?.neighbours(rank_in(comm)?);
    Ok((sources.len(), destinations.len()))
}

/// Sends a view to every edge out and receives one from every edge in.
fn plan_exchange(comm: Comm, send: &[View], receive: &[View]) -> Result<Schedule, Error> {
    let topology = topology::of(comm)?;
    let (sources, destinations) = topology.neighbours(rank_in(comm)?);
    let mut b = begin(comm)?;
    for (to, view) in destinations.iter().zip(send) {
        if let Some(to) = *to {
            let data = b.input(view);
            b.send(to, data);
        }
    }
    // A ring of two or one has one rank on both sides of a dimension: what it sends downwards first arrives from above.
    let grid = matches!(*topology, Topology::Cart(_));
    for place in 0..sources.len() {
        let place = if grid { place ^ 1 } else { place };
        if let Some(from) = sources[place] {
            let data = b.output(&receive[place]);
            b.receive(from, data);
        }
    }
    Ok(b.finish())
}

macro_rules! neighbours {
    ($($blocking:ident $immediate:ident $init:ident[$comm:ident]($($arg:ident: $type:ty),* $(,)?) $plan:block)*) => { $(
        super::api! {
            /// Blocking neighbourhood collective.
            $blocking($($arg: $type,)* comm: Comm) on comm {
                run(plan::$blocking($($arg,)* comm)?)
            }
            /// Nonblocking neighbourhood collective.
            $immediate($($arg: $type,)* comm: Comm, request: *mut Request) on comm {
                let index = progress::start(plan::$blocking($($arg,)* comm)?);
                put(request, with(|mpi| mpi.add_request(comm, Pending::Collective(index))));
                Ok(())
            }
            /// Persistent neighbourhood collective.
            $init($($arg: $type,)* comm: Comm, info: Info, request: *mut Request) on comm {
                let _ = info;
                // SAFETY: the program keeps the arguments as they are until it frees the request.
                put(request, persistent(comm, move || unsafe { plan::$blocking($($arg,)* comm) })?);
                Ok(())
            }
        }
    )*
        mod plan {
            use super::*;
            $(
                /// # Safety
                /// The pointers are what the MPI standard asks for.
                pub unsafe fn $blocking($($arg: $type,)* $comm: Comm) -> Result<Schedule, Error> {
                    #[allow(unused_unsafe)]
                    // SAFETY: as promised by the caller.
                    unsafe { $plan }
                }
            )*
        }
    };
}

neighbours! {
    Neighbor_allgather Ineighbor_allgather Neighbor_allgather_init[comm](sendbuf: *const c_void, sendcount: c_int,
        sendtype: Datatype, recvbuf: *mut c_void, recvcount: c_int, recvtype: Datatype) {
        let (inside, outside) = degrees(comm)?;
        let send = alloc::vec![view(sendbuf, sendcount, sendtype)?; outside];
        plan_exchange(comm, &send, &equal_views(recvbuf, recvcount, recvtype, inside)?)
    }

    Neighbor_allgatherv Ineighbor_allgatherv Neighbor_allgatherv_init[comm](sendbuf: *const c_void, sendcount: c_int,
        sendtype: Datatype, recvbuf: *mut c_void, recvcounts: *const c_int, displs: *const c_int,
        recvtype: Datatype) {
        let (inside, outside) = degrees(comm)?;
        let send = alloc::vec![view(sendbuf, sendcount, sendtype)?; outside];
        let receive = varying_views(recvbuf, array(recvcounts, inside), array(displs, inside), recvtype)?;
        plan_exchange(comm, &send, &receive)
    }

    Neighbor_alltoall Ineighbor_alltoall Neighbor_alltoall_init[comm](sendbuf: *const c_void, sendcount: c_int,
        sendtype: Datatype, recvbuf: *mut c_void, recvcount: c_int, recvtype: Datatype) {
        let (inside, outside) = degrees(comm)?;
        let send = equal_views(sendbuf, sendcount, sendtype, outside)?;
        plan_exchange(comm, &send, &equal_views(recvbuf, recvcount, recvtype, inside)?)
    }

    Neighbor_alltoallv Ineighbor_alltoallv Neighbor_alltoallv_init[comm](sendbuf: *const c_void,
        sendcounts: *const c_int, sdispls: *const c_int, sendtype: Datatype, recvbuf: *mut c_void,
        recvcounts: *const c_int, rdispls: *const c_int, recvtype: Datatype) {
        let (inside, outside) = degrees(comm)?;
        let send = varying_views(sendbuf, array(sendcounts, outside), array(sdispls, outside), sendtype)?;
        let receive = varying_views(recvbuf, array(recvcounts, inside), array(rdispls, inside), recvtype)?;
        plan_exchange(comm, &send, &receive)
    }

    Neighbor_alltoallw Ineighbor_alltoallw Neighbor_alltoallw_init[comm](sendbuf: *const c_void,
        sendcounts: *const c_int, sdispls: *const isize, sendtypes: *const Datatype, recvbuf: *mut c_void,
        recvcounts: *const c_int, rdispls: *const isize, recvtypes: *const Datatype) {
        let (inside, outside) = degrees(comm)?;
        let views = |buffer: *const c_void, counts, displacements, types, number| {
            let (counts, displacements): (&[c_int], &[isize]) = (array(counts, number), array(displacements, number));
            let types: &[Datatype] = array(types, number);
            (0..number)
                .map(|i| view(buffer.wrapping_byte_offset(displacements[i]), counts[i], types[i]))
                .collect::<Result<Vec<_>, Error>>()
        };
        let send = views(sendbuf, sendcounts, sdispls, sendtypes, outside)?;
        plan_exchange(comm, &send, &views(recvbuf.cast_const(), recvcounts, rdispls, recvtypes, inside)?)
    }
}
