//! The MPI library of a partition: `libmpi.a`.
//!
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod engine;
mod memory;
mod ring;
mod wire;
mod sys;
mod transport;
mod handle;
mod error;
mod datatype;
mod arithmetic;
mod group;
mod state;
mod schedule;
mod progress;
mod request;
mod collective;
mod api;
mod fortran;
