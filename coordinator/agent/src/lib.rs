//! The node agent: starts, watches and moves the partitions of one host, and tells the coordinator about them.
//!
//! ```text
//!            reports, outcomes, output                status, counters, migrate
//! coordinator <----------------------- link <-> host ---------------------------> vmm run | vmm receive
//!            -----------------------> command                                      (children, die with the agent)
//!                   commands             |
//!                                     epochs (file): the highest epoch seen per partition
//! ```
//! Nothing outlives the agent: the kernel kills its children when it dies.

mod child;
mod cli;
mod command;
mod epochs;
mod host;
mod link;
mod metrics;
mod output;
mod partition;
mod vmm_api;

pub use cli::main;
