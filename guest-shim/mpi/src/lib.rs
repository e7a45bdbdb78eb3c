//! The MPI library of a partition: `libmpi.a`, which a static Linux program links to run under Partita.
//!
//! ```text
//! api, fortran    the C and Fortran functions: arguments, handles, errors, callbacks of the program
//! collective      algorithms of the collectives, as writers of schedules
//! runtime         state of the library, requests, schedules under way, waiting
//! datatype, constructor, external, arithmetic, group, topology, info, handle, error
//! engine          matching, eager and rendezvous: pure, no clock, no waiting
//! wire, ring      frames; the two ends of a byte ring
//! transport, sys  boot page, doorbell, sleep; the program's libc
//! ```
//!
//! Built with feature `guest` it becomes `libmpi.a`, with `native` `libmpi_native.a` (ordinary processes, no VM), see the
//! `Makefile` one directory up. Without a feature it is only checked and tested.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod api;
mod arithmetic;
mod collective;
mod constructor;
mod datatype;
mod engine;
mod error;
mod external;
mod fortran;
mod group;
mod handle;
mod info;
mod memory;
mod peer_set;
mod ring;
mod runtime;
mod sys;
mod topology;
mod transport;
mod wire;
