//! What RDMA adds to the phases: the least protocol version, the window, and a writer for every stream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use super::stream::PageStream;
use super::{Attempt, SourceError, channel_failed, milliseconds};
use crate::channel::Channel;
use crate::clock;
use crate::partition::Description;
use crate::report::RdmaReport;
use crate::transport::{Transport, TransportError};
use crate::wire::{Frame, Hello, Kind, Role, VERSION_MINOR, VERSION_MINOR_FRAMES, WireError};

/// Breaks of one migration after which it is given up. A provider may call a write that the destination never allowed a lost
/// connection, and that does not get better.
const RDMA_RESUMPTIONS_MAX: u32 = 3;
/// Time between two looks at whether all writers are connected.
const CONNECT_LOOK: Duration = Duration::from_millis(1);

impl Attempt<'_> {
    /// The first bytes of a connection, in the oldest version that has what is needed.
    pub(super) fn hello(&self, role: Role, session: [u8; 16]) -> Hello {
        let minor = match self.request.transport {
            Transport::Tcp => VERSION_MINOR_FRAMES,
            Transport::Rdma => VERSION_MINOR,
        };
        Hello { minor, role, streams: self.request.streams, session }
    }

    /// Refuses RDMA to another machine over a network that is not said to be trusted.
    pub(super) fn check_rdma(&self, channel: &Channel) -> Result<(), TransportError> {
        match self.request.transport {
            Transport::Tcp => Ok(()),
            Transport::Rdma => channel.rdma_address(self.request.security.insecure).map(|_| ()),
        }
    }

    /// How often broken connections are made anew.
    pub(super) fn resumptions_max(&self) -> u32 {
        match self.request.transport {
            Transport::Tcp => u32::MAX,
            Transport::Rdma => RDMA_RESUMPTIONS_MAX,
        }
    }

    /// Learns where pages are written, if they are to be written one-sided.
    pub(super) fn receive_window(&mut self, description: &Description) -> Result<(), SourceError> {
        if self.request.transport == Transport::Tcp {
            return Ok(());
        }
        let doing = "waiting for WINDOW";
        let start = clock::now();
        let (registered_us, window) = loop {
            match self.receive(&[Kind::KeepAlive, Kind::Window], doing, self.request.timeouts.silence)? {
                Frame::Window { registered_us, window } => break (registered_us, window),
                // It registers its memory, for which it has as long as for a build.
                _ if start.elapsed() < self.request.timeouts.build => {}
                _ => {
                    let limit_ms = self.request.timeouts.build.as_millis();
                    return Err(channel_failed(doing)(TransportError::Silent { limit_ms }.into()));
                }
            }
        };
        if window.regions.len() != description.regions.len() {
            let error = partita_rdma::Error::Window("it has another number of regions than the memory");
            return Err(channel_failed(doing)(WireError::from(error).into()));
        }
        let report = self.report.rdma.get_or_insert_default();
        report.registered_ms += registered_us as f64 / 1000.0;
        self.window = Some(window);
        Ok(())
    }

    /// Connects a writer for every stream. That may take longer than the destination waits for a silent source.
    pub(super) fn connect_writers(&mut self, streams: &mut [PageStream]) -> Result<(), SourceError> {
        let Some(window) = self.window.clone() else { return Ok(()) };
        let start = clock::now();
        let (control, insecure) = (self.control, self.request.security.insecure);
        let given_up = AtomicBool::new(false);
        let stop = || control.is_cancelled() || given_up.load(Ordering::Acquire);
        let connected: Vec<_> = thread::scope(|scope| {
            let connect =
                |stream: &mut PageStream| (stream.number(), stream.connect_writer(&window, insecure, &stop));
            let threads: Vec<_> =
                streams.iter_mut().map(|stream| scope.spawn(move || connect(stream))).collect();
            while !threads.iter().all(ScopedJoinHandle::is_finished) {
                let kept = self.keep_alive();
                // Ends the threads, for which the scope waits.
                given_up.store(kept.is_err(), Ordering::Release);
                kept?;
                clock::sleep(CONNECT_LOOK);
            }
            Ok(threads.into_iter().map(ScopedJoinHandle::join).collect())
        })?;
        for connected in connected {
            let (number, connected) = connected.map_err(|_| SourceError::ThreadLost)?;
            let (provider, delivery_complete) =
                connected.map_err(|error| self.stream_failed(number, error))?;
            let report = self.report.rdma.get_or_insert_default();
            *report = RdmaReport { provider, delivery_complete, ..*report };
        }
        let report = self.report.rdma.get_or_insert_default();
        report.connected_ms += milliseconds(start.elapsed());
        Ok(())
    }
}
