//! The head node: takes applications, places their partitions on hosts, and moves them while they run.
//!
//! ```text
//! policy  what was asked (manifest)      view    what agents observed      journal  what was decided, hash-chained
//!    \                                     |  model: loads from counters       |
//!     `------------> cluster <-------------'                                   |
//!                    |  placement, planner (pure)   -> decisions -> record ----'  written before any command is sent
//!                    |  executor (one move), reconcile (applications)
//!                   net (sockets and the clock)
//! ```
//! One thread owns the cluster; every change of what was decided is a [`record::Record`], so that a coordinator that is
//! started again replays the journal and goes on.
#![forbid(unsafe_code)]

pub mod access;
pub mod calibration;
mod certificates;
mod cli;
mod client;
pub mod cluster;
pub mod executor;
pub mod history;
pub mod journal;
pub mod lbaf;
pub mod metrics;
pub mod model;
mod net;
mod openapi;
pub mod output;
pub mod placement;
pub mod policy;
pub mod pool;
pub mod reconcile;
pub mod record;
mod render;
pub mod series;
pub mod shares;
pub mod state;
pub mod store;
mod top;
pub mod view;

pub use cli::main;
