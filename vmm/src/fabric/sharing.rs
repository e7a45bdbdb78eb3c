//! Shared rings: two partitions of one host map the same ring, and no VMM carries its bytes.
//!
//! ```text
//!   opener (producer)                       listener (consumer)
//!     OFFER + memory + event ──────────────▶ waits until its guest has read everything, maps the memory
//!     ◀────────────────────── TAKEN + event  (or LATER)
//!     copies what is not read yet, maps it
//!     SHARED ──────────────────────────────▶ wakes its guest
//! ```
//!
//! Each side takes its ring back for itself alone, whenever it likes and without asking: what is in it stays, and what the
//! other side does with the memory is not seen any more. The connection ends with it, and after the next greeting the two
//! go on by offsets, as after any loss. So a freeze, a move and a death need nothing special.

use std::collections::BTreeMap;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use partita_abi::{peer_doorbell, ring_stride};
use vmm_sys_util::eventfd::EventFd;

use super::descriptors::{receive_header, send_header};
use super::links::Links;
use super::outgoing::SessionError;
use super::ring::Direction;
use super::socket::Stream;
use super::wire::{Header, Kind};
use crate::kvm::{Doorbells, KvmError};

/// How long an offer waits for the guest to read what is there.
const TAKE_PATIENCE: Duration = Duration::from_millis(100);
const TAKE_TICK: Duration = Duration::from_millis(1);
const NO_EVENT: &str = "an offer without an event";

fn bare(kind: Kind) -> Header {
    Header { kind, length: 0, a: 0, b: 0 }
}

/// Memory for one ring, which nobody can make shorter.
fn create_memory(ring_bytes: u64) -> std::io::Result<OwnedFd> {
    let file = memfd_create(c"partita-ring", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&file, ring_stride(ring_bytes as u32) as i64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Refuses memory of another size, and memory that its owner could cut off under us.
fn check_memory(file: &OwnedFd, ring_bytes: u64) -> Result<(), SessionError> {
    let size = nix::sys::stat::fstat(file).map_err(std::io::Error::from)?.st_size;
    let seals = fcntl(file, FcntlArg::F_GET_SEALS).unwrap_or(0);
    let sealed = SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK);
    if u64::try_from(size) != Ok(ring_stride(ring_bytes as u32)) || !sealed {
        return Err(SessionError::Protocol("an offer of memory that is no ring"));
    }
    Ok(())
}

fn event_of(file: OwnedFd) -> EventFd {
    // SAFETY: the descriptor is ours and open. If it is no event, KVM refuses to signal it.
    unsafe { EventFd::from_raw_fd(file.into_raw_fd()) }
}

/// The event that ends our guest's sleep, as a file that can be sent.
fn own_event(links: &Links) -> std::io::Result<OwnedFd> {
    let event = links.guest.sleeper.event()?;
    // SAFETY: the clone is ours alone; from here on the `OwnedFd` owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(event.into_raw_fd()) })
}

/// Whom our guest wakes by the doorbells of single peers.
pub(super) struct Wakers {
    doorbells: Doorbells,
    events: Mutex<BTreeMap<u32, EventFd>>,
}

impl Wakers {
    pub(super) fn new(doorbells: Doorbells) -> Arc<Self> {
        Arc::new(Self { doorbells, events: Mutex::default() })
    }

    /// From now on the guest's stores to the doorbell of `rank` wake whoever gave `event`, and nobody else. The guest must not
    /// be running: a store between the old event and the new one would wake nobody.
    fn replace(&self, rank: u32, event: EventFd) -> Result<(), KvmError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = events.remove(&rank) {
            let _ = self.doorbells.unregister(&old, peer_doorbell(rank));
        }
        self.doorbells.register(&event, peer_doorbell(rank))?;
        events.insert(rank, event);
        Ok(())
    }

    /// Forgets everybody; the guest must not be running.
    fn clear(&self) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for (rank, event) in std::mem::take(&mut *events) {
            let _ = self.doorbells.unregister(&event, peer_doorbell(rank));
        }
    }
}

impl Links {
    /// Takes a ring that is shared with `rank` back for our guest alone; nothing when it is not shared. The peer can be woken
    /// until the next freeze or until somebody else becomes that rank: that does no harm.
    pub(super) async fn take_back(&self, rank: u32, direction: Direction) -> Result<(), SessionError> {
        let peer = self.peer(rank);
        let ring = match direction {
            Direction::Sending => peer.sending.clone(),
            Direction::Receiving => peer.receiving.clone(),
        };
        if !ring.is_shared() {
            return Ok(());
        }
        let errand_ring = ring.clone();
        let taken = self.guest.interrupter.between_entries(move || errand_ring.take_back(direction)).await;
        // An ended vCPU does not run either.
        taken.unwrap_or_else(|_| ring.take_back(direction))?;
        match direction {
            Direction::Sending => peer.acknowledged.set(ring.read()?),
            Direction::Receiving => {
                peer.received.set(ring.written()?);
                peer.told.set(peer.received.get());
            }
        }
        Ok(self.raise_sharing()?)
    }

    /// Takes all rings back; the guest is paused.
    pub(super) fn take_back_all(&self) -> Result<(), crate::memory::MemoryError> {
        let start = std::time::Instant::now();
        for rank in self.others() {
            let peer = self.peer(rank);
            peer.sending.take_back(Direction::Sending)?;
            peer.receiving.take_back(Direction::Receiving)?;
        }
        self.wakers.clear();
        tracing::debug!(took = ?start.elapsed(), "all rings are private again");
        self.raise_sharing()
    }
}

/// Offers the ring to `rank`, whose far end has everything up to what is acknowledged. True when it is shared.
pub(super) async fn offer(links: &Links, rank: u32, stream: &Stream) -> Result<bool, SessionError> {
    let peer = links.peer(rank);
    let memory = create_memory(peer.sending.bytes())?;
    send_header(stream, &bare(Kind::Offer), &[&memory, &own_event(links)?]).await?;
    let mut files = loop {
        let (header, files) = receive_header(stream).await?;
        match header.kind {
            Kind::Taken => break files,
            Kind::Later => return Ok(false),
            // Sent before it saw the offer; nothing is new in it.
            Kind::Ack => {}
            _ => return Err(SessionError::Protocol("no answer to an offer")),
        }
    };
    let event = files.pop().ok_or(SessionError::Protocol("an offer taken without an event"))?;
    let (ring, wakers, acknowledged) = (peer.sending.clone(), links.wakers.clone(), peer.acknowledged.get());
    let share = move || {
        wakers.replace(rank, event_of(event)).map_err(|_| SessionError::Protocol(NO_EVENT))?;
        Ok::<_, SessionError>(ring.share_as_producer(acknowledged, memory)?)
    };
    let shared = links.guest.interrupter.between_entries(share).await;
    shared.map_err(|_| SessionError::Protocol("the program has ended"))??;
    links.raise_sharing()?;
    send_header(stream, &bare(Kind::Shared), &[]).await?;
    tracing::debug!(rank, "the ring to it is shared");
    Ok(true)
}

/// Answers an offer. True when the ring is shared.
pub(super) async fn take(
    links: &Links,
    rank: u32,
    stream: &Stream,
    files: Vec<OwnedFd>,
) -> Result<bool, SessionError> {
    let Ok([memory, event]) = <[OwnedFd; 2]>::try_from(files) else {
        return Err(SessionError::Protocol("an offer without memory or event"));
    };
    let peer = links.peer(rank);
    check_memory(&memory, peer.receiving.bytes())?;
    let start = tokio::time::Instant::now();
    while !links.shares || peer.receiving.read()? != peer.receiving.written()? {
        if !links.shares || start.elapsed() > TAKE_PATIENCE {
            send_header(stream, &bare(Kind::Later), &[]).await?;
            return Ok(false);
        }
        tokio::time::sleep(TAKE_TICK).await;
    }
    let (ring, wakers) = (peer.receiving.clone(), links.wakers.clone());
    let share = move || {
        wakers.replace(rank, event_of(event)).map_err(|_| SessionError::Protocol(NO_EVENT))?;
        Ok::<_, SessionError>(ring.share_as_consumer(memory)?)
    };
    if !matches!(links.guest.interrupter.between_entries(share).await, Ok(Ok(true))) {
        send_header(stream, &bare(Kind::Later), &[]).await?;
        return Ok(false);
    }
    links.raise_sharing()?;
    send_header(stream, &bare(Kind::Taken), &[&own_event(links)?]).await?;
    Ok(true)
}

/// Returns when the connection of a shared ring ends, with the reason.
pub(super) async fn hold(links: &Links, stream: &Stream) -> Result<std::convert::Infallible, SessionError> {
    loop {
        match receive_header(stream).await?.0.kind {
            // What was put into the ring before it was shared is there now.
            Kind::Shared => links.raise_event()?,
            Kind::Ack => {}
            _ => return Err(SessionError::Protocol("a frame beside a shared ring")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_of_the_right_size_that_cannot_shrink_is_taken() {
        assert!(check_memory(&create_memory(16 << 10).unwrap(), 16 << 10).is_ok());
        assert!(check_memory(&create_memory(32 << 10).unwrap(), 16 << 10).is_err());
        let open = memfd_create(c"open", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&open, ring_stride(16 << 10) as i64).unwrap();
        assert!(check_memory(&open, 16 << 10).is_err());
        let pipe = std::io::pipe().unwrap().0;
        assert!(check_memory(&pipe.into(), 16 << 10).is_err());
    }
}
