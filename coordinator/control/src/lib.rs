//! What the agents, the coordinator and its clients say to each other: ids, reports, commands and answers, as JSON values.
//!
//! Nothing here does I/O. Every message is decoded by [`decode`], which bounds its size and refuses fields it does not know,
//! and then checked by its `validate`, so that what the rest of the program handles is well-formed.
#![forbid(unsafe_code)]

mod bytes;
mod calibration;
mod command;
mod exposition;
mod fabric;
mod ids;
mod measurement;
mod message;
mod monitor;
mod policy;
mod query;
mod report;
mod selector;
mod specification;
mod text;

pub use bytes::Bytes;
pub use calibration::{CalibrationMove, CalibrationView, Percentiles};
pub use command::{Action, Command, CommandResult, Commands, CommandsRequest, Outcome, Peer, Start};
pub use exposition::{EXPOSITION_TYPE, Labels, Sheet};
pub use fabric::{fabric_address, neighbours, partition_directory};
pub use ids::{ApplicationId, ClusterId, Epoch, HostName, IdError, MoveId, Rank};
pub use measurement::{MoveReport, Prediction};
pub use message::{Message, MessageError, decode, encode};
pub use monitor::{SeriesAnswer, SeriesView, TrafficPair, TrafficView};
pub use policy::{
    Demand, Gates, HookAction, HostAction, HostOrder, HostState, Limits, Maintenance, Policy, PolicyRule,
    PolicyValueError, PolicyView, PoolMode, PoolPolicy, Quota, Reserve,
};
pub use query::{
    AlternativeView, ApplicationExplanation, ApplicationState, ApplicationView, CandidateView, DecisionView,
    ErrorBody, EventView, EventsAnswer, GainTerms, GateView, HostExplanation, HostView, MigrateOrder,
    MoveView, OutputAnswer, OutputEntry, PartitionView, PlanView, PlannedMove, ReplayedPlan, Submitted,
};
pub use report::{
    Answer, Counters, End, HostFacts, OutputChunk, PartitionReport, PartitionState, PeerTraffic, Report,
    Stream, StreamPosition, Units,
};
pub use selector::{HostSelector, RankSet, Selector, SelectorError};
pub use specification::{
    Communication, Component, FileMapping, Group, Specification, SpecificationError, Strategy,
};
pub use text::{TcpAddress, TextError, is_loopback, one_line, parse_cpus, parse_size};

/// Version of the messages; both ends must have the same.
pub const PROTOCOL: u32 = 2;
/// Most bytes of one message.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Most ranks of one application.
pub const RANKS_MAX: u32 = 4096;
/// Most partitions one host reports.
pub const PARTITIONS_MAX: usize = 4096;
/// Most bytes of program output in one report.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
