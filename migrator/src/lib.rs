//! Pre-copy live migration of a partition: phases, wire format, policy and transport, without knowing KVM.
//!
//! ```text
//!   source::migrate                                        destination::receive
//!   Connect   hello ─────────────── control ────────────►  Listen
//!   Prepare   DESCRIBE ──────────────────────────────────► Build (machine.build)
//!             ◄──────────────────────────── ACCEPT/REFUSE
//!             hello × N ──────────── page streams ───────► Rounds (populate in parallel)
//!   Round(n)  DATA, ZERO …, ROUND_END ───────────────────►
//!             ◄─────────────────────────────── ROUND_ACK   (every stream, every round but the last)
//!   Blackout  last DATA, ZERO …, ROUND_END(last) ────────►
//!   Saved     FINAL, STATE … ────────────────────────────► Verify (checksums, counts, machine.restore)
//!   Ready     ◄─────────────────────────────────── READY   Ready
//!   Commit    COMMIT ═════════ the commit point ═════════► Running (machine.run)
//!   Done      ◄───────────────────────────────── RUNNING
//! ```
//!
//! With RDMA, WINDOW follows ACCEPT, pages are written one-sided into the destination's memory, and WRITTEN tells of them in place of DATA.
//! Connections that break in a round are made anew, and the round goes on (`RESUME`, `HELD`).
//! `docs/protocol.md` has the bytes. Before COMMIT is sent every error leaves a running, migratable source; after it
//! the source never resumes by itself, so two running copies cannot be.
#![forbid(unsafe_code)]

pub mod bitmap;
pub mod channel;
pub mod clock;
pub mod codec;
pub mod control;
pub mod destination;
pub mod dirty;
pub mod ownership;
pub mod pace;
pub mod partition;
pub mod policy;
pub mod report;
pub mod source;
pub mod transport;
pub mod wire;
