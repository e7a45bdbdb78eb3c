//! Streams from other partitions: take the greeting, put bytes into the ring, acknowledge.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::address::Address;
use super::descriptors;
use super::links::{Links, Peer, Place};
use super::outgoing::{SessionError, receive_exact, receive_header, send_all};
use super::ring::Direction;
use super::sharing;
use super::socket::{Accepted, Stream};
use super::wire::{Header, Hello, Kind, VERSION};

/// How long bytes may wait for their acknowledgement, if there are few of them and nobody times it.
const LEISURE: Duration = Duration::from_millis(1);
/// How long a new connection may take to say who it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves one accepted connection to its end.
pub(super) async fn run(links: Rc<Links>, accepted: Accepted) {
    let stream = match accepted.prove().await {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "the fabric refuses a connection"),
    };
    if let Err(error) = serve(&links, &stream).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "incoming stream ended");
    }
}

async fn serve(links: &Links, stream: &Stream) -> Result<(), SessionError> {
    let hello = tokio::time::timeout(GREETING_TIMEOUT, receive_hello(stream))
        .await
        .map_err(|_| SessionError::Protocol("no greeting"))??;
    links.until_thawed().await;
    let checked = check(links, &hello);
    if checked.is_ok() {
        let address: Address =
            hello.address.parse().map_err(|_| SessionError::Protocol("an address that is none"))?;
        // Even if we have moved: we may still have to tell it where, and its old process may be gone by then.
        links.learn(hello.from, Place { epoch: hello.epoch, address });
    }
    let moved = links.moved.borrow().clone();
    if let Some(place) = moved {
        let text = place.address.to_string();
        return answer(stream, Kind::Moved, place.epoch, &text).await;
    }
    if let Err(why) = checked {
        return answer(stream, Kind::Refused, 0, why).await;
    }
    let peer = links.peer(hello.from);
    if !hello.stream {
        peer.to_send.notify_one();
        return welcome(links, stream, hello.from).await;
    }
    let number = peer.incoming.get() + 1;
    peer.incoming.set(number);
    peer.to_acknowledge.notify_waiters();
    links.take_back(hello.from, Direction::Receiving).await?;
    welcome(links, stream, hello.from).await?;
    let ended = take_in(links, hello.from, stream, number).await;
    if peer.incoming.get() == number {
        peer.told.set(peer.received.get());
        links.take_back(hello.from, Direction::Receiving).await?;
    }
    ended
}

/// The stream itself, carried by us or, if the opener offers that and the ring is empty, through shared memory.
async fn take_in(links: &Links, rank: u32, stream: &Stream, number: u64) -> Result<(), SessionError> {
    let mut first = None;
    if stream.carries_files() {
        let (header, files) = descriptors::receive_header(stream).await?;
        if header.kind != Kind::Offer {
            first = Some(header);
        } else if sharing::take(links, rank, stream, files).await? {
            match sharing::hold(links, stream).await? {}
        }
    }
    tokio::try_join!(receive(links, rank, stream, number, first), acknowledge(links, rank, stream, number))
        .map(|_| ())
}

async fn receive_hello(stream: &Stream) -> Result<Hello, SessionError> {
    let header = receive_header(stream).await?;
    if header.kind != Kind::Hello || header.a != VERSION {
        return Err(SessionError::Protocol("no greeting of this version"));
    }
    let mut body = vec![0; header.length as usize];
    receive_exact(stream, &mut body).await?;
    Ok(Hello::decode(&body)?)
}

fn check(links: &Links, hello: &Hello) -> Result<(), &'static str> {
    if hello.application != links.application {
        return Err("another application");
    }
    if hello.to != links.rank {
        return Err("another rank listens here");
    }
    if hello.from == links.rank || hello.from as usize >= links.peers.len() {
        return Err("no such rank in this application");
    }
    if links.place(hello.from).is_some_and(|known| hello.epoch < known.epoch) {
        return Err("this epoch of the partition is over");
    }
    Ok(())
}

async fn answer(stream: &Stream, kind: Kind, a: u64, text: &str) -> Result<(), SessionError> {
    let mut bytes = Header { kind, length: text.len() as u32, a, b: 0 }.encode().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    Ok(send_all(stream, &bytes).await?)
}

/// Says from where the stream goes on and how far it may go.
async fn welcome(links: &Links, stream: &Stream, rank: u32) -> Result<(), SessionError> {
    progress(links, stream, rank, Kind::Welcome).await
}

async fn progress(links: &Links, stream: &Stream, rank: u32, kind: Kind) -> Result<(), SessionError> {
    let peer = links.peer(rank);
    let limit = peer.limit()?;
    peer.announced.set(limit);
    let received = peer.received.get();
    let header = Header { kind, length: 0, a: received, b: limit };
    send_all(stream, &header.encode()).await?;
    peer.told.set(received);
    Ok(())
}

async fn receive(
    links: &Links,
    rank: u32,
    stream: &Stream,
    number: u64,
    mut first: Option<Header>,
) -> Result<(), SessionError> {
    let peer = links.peer(rank);
    loop {
        let header = match first.take() {
            Some(header) => header,
            None => receive_header(stream).await?,
        };
        if peer.incoming.get() != number {
            return Err(SessionError::Protocol("replaced by a newer connection"));
        }
        let end = header.a.checked_add(u64::from(header.length));
        let fits = header.a == peer.received.get() && end.is_some_and(|end| end <= peer.announced.get());
        if !header.kind.is_data() || header.length == 0 || !fits {
            return Err(SessionError::Protocol("bytes that do not fit the stream"));
        }
        let mut left = u64::from(header.length);
        while left > 0 {
            let offset = peer.received.get();
            let is_newest = || peer.incoming.get() == number;
            let got = stream.receive_into(&peer.receiving, offset, left, is_newest).await?;
            if got == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            left -= got;
            peer.received.set(offset + got);
            peer.receiving.set_messages(header.b)?;
            peer.receiving.set_written(offset + got)?;
            links.raise_arrival(rank)?;
        }
        if header.kind == Kind::Timed || peer.unacknowledged() >= peer.receiving.bytes() / 8 {
            peer.to_acknowledge.notify_one();
        } else {
            peer.arrived.notify_one();
        }
    }
}

/// Until bytes have waited long enough for their acknowledgement.
async fn overdue(peer: &Peer) {
    while peer.unacknowledged() == 0 {
        peer.arrived.notified().await;
    }
    tokio::time::sleep(LEISURE).await;
}

async fn acknowledge(links: &Links, rank: u32, stream: &Stream, number: u64) -> Result<(), SessionError> {
    let peer = links.peer(rank);
    loop {
        tokio::select! {
            () = peer.to_acknowledge.notified() => {}
            () = overdue(peer) => {}
        }
        if peer.incoming.get() != number {
            // Whoever replaced us has to hear of it too.
            peer.to_acknowledge.notify_one();
            return Err(SessionError::Protocol("replaced by a newer connection"));
        }
        progress(links, stream, rank, Kind::Ack).await?;
    }
}
