//! The library between MPI_Init and MPI_Finalize: its state, requests, collectives under way, and waiting.
//!
//! These four belong together and know each other: waiting moves collectives, collectives use the state, the state keeps
//! requests and collectives. Algorithms and the functions of MPI are outside and only use them.

pub mod progress;
pub mod request;
pub mod schedule;
pub mod state;
