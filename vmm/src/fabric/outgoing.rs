//! Streams to other partitions: connect, greet, send ring bytes, take acknowledgements; again after every loss.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::address::Address;
use super::links::{Links, OFFER_AGAIN_MAX, OFFER_AGAIN_MIN, Peer, Place};
use super::ring::Direction;
use super::sharing;
use super::socket::Stream;
use super::wire::{HEADER_BYTES, Header, Hello, Kind, WireError};
use crate::memory::MemoryError;

const BACKOFF_MIN: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(100);
/// Longest piece sent at once: short enough that acknowledgements keep coming.
const PIECE_BYTES: u64 = 64 << 10;

/// Why a session ended.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    #[error("the connection is lost")]
    Io(#[from] io::Error),
    #[error("the far end does not keep to the protocol")]
    Wire(#[from] WireError),
    #[error("the far end does not keep to the protocol: {0}")]
    Protocol(&'static str),
    #[error("guest memory")]
    Memory(#[from] MemoryError),
    #[error("the far end refuses: {0}")]
    Refused(String),
    #[error("nobody knows where rank {0} is")]
    Unknown(u32),
    #[error("time to offer the ring again")]
    OfferAgain,
}

/// What a greeting led to.
enum Greeted {
    Welcome { have: u64, limit: u64 },
    Moved,
}

/// Receives exactly `buffer.len()` bytes.
pub(super) async fn receive_exact(stream: &Stream, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let got = stream.receive(rest).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done += got;
    }
    Ok(())
}

/// Sends all of `bytes`.
pub(super) async fn send_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = stream.send(bytes).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Receives a header.
pub(super) async fn receive_header(stream: &Stream) -> Result<Header, SessionError> {
    let mut bytes = [0; HEADER_BYTES];
    receive_exact(stream, &mut bytes).await?;
    Ok(Header::decode(&bytes)?)
}

/// Receives the (bounded) body of a frame as text.
pub(super) async fn receive_text(stream: &Stream, length: u32) -> Result<String, SessionError> {
    let mut bytes = vec![0; length as usize];
    receive_exact(stream, &mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Keeps the stream to `rank` going for ever; aborted when the fabric is frozen.
pub(super) async fn run(links: Rc<Links>, rank: u32) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let peer = links.peer(rank);
        while !peer.announce.get() && peer.written().is_ok_and(|written| written == peer.acknowledged.get()) {
            peer.to_send.notified().await;
        }
        let ended = session(&links, rank).await;
        let taken_back = links.take_back(rank, Direction::Sending).await;
        match ended.and(taken_back) {
            Ok(()) => backoff = BACKOFF_MIN,
            Err(SessionError::OfferAgain) => {}
            Err(error) => {
                tracing::debug!(rank, error = &error as &dyn std::error::Error, "stream interrupted");
                say_distrust(&links, rank, &error);
                if let SessionError::Io(error) = &error {
                    links.say_shortage(error);
                }
                let absent = matches!(&error, SessionError::Io(e)
                    if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused));
                peer.gone.set(absent && links.draining.get());
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Trying again does not help when one side does not trust the other: says so, once for every peer.
fn say_distrust(links: &Links, rank: u32, error: &SessionError) {
    let SessionError::Io(error) = error else { return };
    if error.kind() != io::ErrorKind::InvalidData || links.peer(rank).distrusted.replace(true) {
        return;
    }
    let text = partita_tls::explain_io(error).unwrap_or_else(|| error.to_string());
    let address = links.place(rank).map(|place| place.address.to_string()).unwrap_or_default();
    crate::console::say(format_args!("vmm: rank {}: fabric to rank {rank} at {address}: {text}", links.rank));
}

fn hello(links: &Links, rank: u32, stream: bool) -> Hello {
    Hello {
        application: links.application.clone(),
        from: links.rank,
        epoch: links.epoch.get(),
        to: rank,
        address: links.address.to_string(),
        stream,
    }
}

async fn greet(links: &Links, stream: &Stream, rank: u32, hello: &Hello) -> Result<Greeted, SessionError> {
    send_all(stream, &hello.encode()).await?;
    let header = receive_header(stream).await?;
    match header.kind {
        Kind::Welcome => Ok(Greeted::Welcome { have: header.a, limit: header.b }),
        Kind::Moved => {
            let text = receive_text(stream, header.length).await?;
            let address: Address = text.parse().map_err(|_| SessionError::Protocol("a move to nowhere"))?;
            links.learn(rank, Place { epoch: header.a, address });
            Ok(Greeted::Moved)
        }
        Kind::Refused => Err(SessionError::Refused(receive_text(stream, header.length).await?)),
        _ => Err(SessionError::Protocol("no answer to a greeting")),
    }
}

/// One connection, from connecting to its end. `Ok` means: try again at once.
async fn session(links: &Links, rank: u32) -> Result<(), SessionError> {
    let place = links.place(rank).ok_or(SessionError::Unknown(rank))?;
    let stream = links.connect(rank, &place).await?;
    let Greeted::Welcome { have, limit } = greet(links, &stream, rank, &hello(links, rank, true)).await?
    else {
        return Ok(());
    };
    if !links.acknowledge(rank, have)? {
        return Err(SessionError::Protocol("it has bytes that were never sent"));
    }
    let peer = links.peer(rank);
    if peer.announce.replace(false) && peer.written()? == have {
        // The greeting was the message.
        return Ok(());
    }
    let shares = links.shares && stream.carries_files() && !links.draining.get();
    if shares && sharing::offer(links, rank, &stream).await? {
        peer.offer_again.set(OFFER_AGAIN_MIN);
        match sharing::hold(links, &stream).await? {}
    }
    peer.welcomed.set(true);
    peer.round_trips.borrow_mut().restart();
    let limit = Cell::new(limit);
    let ended = tokio::try_join!(
        send(links, rank, &stream, have, &limit),
        listen(links, rank, &stream, &limit),
        offer_again(peer, shares)
    );
    peer.welcomed.set(false);
    ended.map(|_| ())
}

/// Ends a session after a while so that the next one can begin with an offer.
async fn offer_again(peer: &Peer, shares: bool) -> Result<(), SessionError> {
    if !shares {
        return std::future::pending().await;
    }
    let pause = peer.offer_again.get();
    peer.offer_again.set((pause * 2).min(OFFER_AGAIN_MAX));
    sleep(pause).await;
    Err(SessionError::OfferAgain)
}

async fn send(
    links: &Links,
    rank: u32,
    stream: &Stream,
    mut sent: u64,
    limit: &Cell<u64>,
) -> Result<(), SessionError> {
    let peer = links.peer(rank);
    loop {
        let end = peer.written()?.min(limit.get());
        if end <= sent {
            peer.to_send.notified().await;
            continue;
        }
        let length = (end - sent).min(PIECE_BYTES);
        // From before it is sent: the far end may have it, and have answered, before we run again.
        let since = Instant::now();
        let timed = peer.round_trips.borrow().is_due(since);
        let kind = if timed { Kind::Timed } else { Kind::Data };
        let header = Header { kind, length: length as u32, a: sent, b: peer.sending.messages()? }.encode();
        let total = HEADER_BYTES as u64 + length;
        let mut done = 0;
        while done < total {
            let head = &header[(done as usize).min(HEADER_BYTES)..];
            let data_done = done.saturating_sub(HEADER_BYTES as u64);
            done += stream.send_from(&peer.sending, head, sent + data_done, length - data_done).await?;
        }
        sent += length;
        if timed {
            peer.round_trips.borrow_mut().sent(sent, since);
        }
    }
}

async fn listen(links: &Links, rank: u32, stream: &Stream, limit: &Cell<u64>) -> Result<(), SessionError> {
    loop {
        let header = receive_header(stream).await?;
        if header.kind != Kind::Ack || header.length != 0 {
            return Err(SessionError::Protocol("something else than an acknowledgement"));
        }
        if !links.acknowledge(rank, header.a)? {
            return Err(SessionError::Protocol("it acknowledges what was never sent"));
        }
        let peer = links.peer(rank);
        peer.round_trips.borrow_mut().acknowledged(header.a, Instant::now());
        limit.set(header.b.max(limit.get()));
        peer.to_send.notify_one();
    }
}

/// Tells one peer where the partition went. Follows it when it has moved itself; gives up after `tries`.
pub(super) async fn tell_moved(links: Rc<Links>, rank: u32, place: Place, tries: u32) -> bool {
    let mut backoff = BACKOFF_MIN;
    for _ in 0..tries {
        let Some(target) = links.place(rank) else { return false };
        let message =
            Hello { epoch: place.epoch, address: place.address.to_string(), ..hello(&links, rank, false) };
        let told = async {
            let stream = links.connect(rank, &target).await?;
            greet(&links, &stream, rank, &message).await
        };
        match tokio::time::timeout(Duration::from_secs(2), told).await {
            Ok(Ok(Greeted::Welcome { .. })) => return true,
            // It knows something newer already.
            Ok(Err(SessionError::Refused(_))) => return true,
            Ok(Ok(Greeted::Moved)) => {}
            Ok(Err(_)) | Err(_) => {
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
    false
}
