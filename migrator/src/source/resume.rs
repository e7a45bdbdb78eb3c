//! Going on with a pre-copy whose connections broke, from what the destination has.

use std::io::ErrorKind;
use std::time::Duration;

use super::{Attempt, SourceError, channel_failed, pages_of, unexpected};
use crate::bitmap;
use crate::channel::{Channel, ChannelError};
use crate::clock;
use crate::partition::Description;
use crate::transport::TransportError;
use crate::wire::{Frame, Kind, Role};

/// How soon a destination that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// What a round is about, kept over a break.
pub(super) struct Work {
    pub number: u32,
    pub bitmaps: Vec<Vec<u64>>,
    pub round_trip: Duration,
}

impl Attempt<'_> {
    /// Whether another connection may carry on after `error`: it broke in a round, with the partition running.
    fn may_resume(&self, error: &SourceError) -> bool {
        let (SourceError::Stream { source, .. } | SourceError::Channel { source, .. }) = error else {
            return false;
        };
        source.is_break()
            && !self.was_paused
            && self.request.timeouts.resume > Duration::ZERO
            && self.report.resumed < self.resumptions_max()
            && !self.control.is_cancelled()
    }

    /// Reaches the destination again after `error` if it may; otherwise that is the error.
    pub(super) fn try_again(
        &mut self,
        session: [u8; 16],
        description: &Description,
        work: &mut Work,
        error: SourceError,
    ) -> Result<(), SourceError> {
        if !self.may_resume(&error) {
            return Err(error);
        }
        tracing::warn!(%error, "the connections broke: resuming");
        if !self.reconnect(session, description, work)? {
            return Err(error);
        }
        self.report.resumed += 1;
        Ok(())
    }

    /// Tries for a bounded time to reach the destination again and to learn what it has; tells whether that went well.
    fn reconnect(
        &mut self,
        session: [u8; 16],
        description: &Description,
        work: &mut Work,
    ) -> Result<bool, SourceError> {
        let start = clock::now();
        while start.elapsed() < self.request.timeouts.resume {
            match self.ask_what_came(session, description, work.number) {
                Ok(held) => {
                    // In round 0 a page goes once: what came of it is the page as it was when its dirty bit was cleared. Of a later
                    // round nobody knows which version came, so all of it goes again.
                    if work.number == 0 {
                        let words = work.bitmaps.iter_mut().flatten();
                        words
                            .zip(held.as_chunks::<8>().0)
                            .for_each(|(word, held)| *word &= !u64::from_le_bytes(*held));
                    }
                    return Ok(true);
                }
                Err(error @ (SourceError::Cancelled | SourceError::Aborted(_))) => return Err(error),
                // Nobody listens there any more: the destination is gone, and not the network.
                Err(SourceError::Channel {
                    source: ChannelError::Transport(TransportError::Connect { source, .. }),
                    ..
                }) if source.kind() == ErrorKind::ConnectionRefused => return Ok(false),
                Err(error) => tracing::debug!(%error, "the destination cannot be reached again yet"),
            }
            clock::sleep(RETRY);
        }
        Ok(false)
    }

    fn ask_what_came(
        &mut self,
        session: [u8; 16],
        description: &Description,
        round: u32,
    ) -> Result<Vec<u8>, SourceError> {
        let doing = "resuming";
        let connection = self.open_connection().map_err(|error| channel_failed(doing)(error.into()))?;
        let mut channel = Channel::new(connection, self.request.timeouts);
        let hello = self.hello(Role::Control, session);
        channel.send_hello(&hello, &|| self.control.is_cancelled()).map_err(channel_failed(doing))?;
        self.channel = Some(channel);
        self.send(&Frame::Resume { round, epoch: self.request.epoch }, doing)?;
        let bytes: usize = pages_of(description).map(|pages| 8 * bitmap::words(pages)).sum();
        let mut held = Vec::new();
        while held.len() < bytes {
            match self.receive(&[Kind::Held], doing, self.request.timeouts.hello)? {
                Frame::Held(piece) if held.len() + piece.len() <= bytes => held.extend(piece),
                other => return Err(unexpected(other.kind(), doing)),
            }
        }
        self.receive_window(description)?;
        Ok(held)
    }
}
