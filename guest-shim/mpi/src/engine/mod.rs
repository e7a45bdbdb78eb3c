//! Point-to-point messages over byte links: matching, eager and rendezvous transfers, progress.
//!
//! The engine knows ranks of the application, contexts, tags and bytes; communicators, datatypes and errors are
//! above it. It does no waiting and reads no clock: [`Engine::progress`] moves what can move and returns. Everything
//! that arrives was written by another trust domain and is checked against the request it claims to belong to.
//!
//! A message up to [`Limits::eager_bytes`] travels whole. A longer one (and every synchronous one) is announced by an
//! Rts in the order of the sends, asked for by a Cts when it is matched, and follows in Data frames that take turns with
//! other transfers and with new messages to the same peer.

mod matching;
mod request;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::memory::Region;
use crate::peer_set::PeerSet;
use crate::wire::{HEADER_BYTES, Header, Kind, Limits};
use matching::{Body, Matching, Unexpected};
use request::{Request, Requests, State};

pub use crate::wire::FrameError;
pub use matching::Pattern;
pub use request::{Completion, RequestId};

/// The rings of one rank as the engine uses them.
pub trait Links {
    /// Why a link cannot be trusted any more.
    type Error;
    /// Bytes that can be written to `peer` now.
    fn room(&mut self, peer: u32) -> Result<usize, Self::Error>;
    /// Writes a frame for which there is room.
    fn write(&mut self, peer: u32, parts: [Region; 2]);
    /// Learns whose bytes may have arrived; to be called before [`next_ready`](Self::next_ready).
    fn look(&mut self);
    /// The first peer from `from` on whose bytes may have arrived and not been consumed.
    fn next_ready(&self, from: u32) -> Option<u32>;
    /// Bytes that have arrived from `peer`.
    fn readable(&mut self, peer: u32) -> Result<usize, Self::Error>;
    /// Copies arrived bytes from `offset` on.
    fn copy(&self, peer: u32, offset: usize, target: Region);
    /// Takes arrived bytes out.
    fn consume(&mut self, peer: u32, bytes: usize);
    /// Wakes whoever has to know of what was written and consumed since the last flush.
    fn flush(&mut self);
}

/// What a peer sent that no correct library sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError<E> {
    /// The link itself is broken.
    Link(u32, E),
    /// Not a frame.
    Frame(u32, FrameError),
    /// A frame for a request that does not exist or does not wait for it.
    Request(u32, Kind),
}

/// How a message is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Complete when the buffer can be used again.
    Standard,
    /// Complete when the receiver has begun to receive.
    Synchronous,
}

/// Context and tag of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Context of the communicator.
    pub context: u32,
    /// Tag.
    pub tag: i32,
}

/// A message taken out of the matching by `mprobe`.
#[derive(Debug)]
pub struct Taken(Unexpected);

enum Out {
    /// The first frame of this send request.
    Send(RequestId),
    /// A frame without payload.
    Control(Header),
}

#[derive(Default)]
struct Peer {
    outbox: VecDeque<Out>,
    /// Sends that have a Cts and take turns.
    transfers: VecDeque<RequestId>,
}

/// All messages of one rank.
pub struct Engine {
    me: u32,
    limits: Limits,
    peers: Vec<Peer>,
    /// For whom something waits to be written.
    output: PeerSet,
    requests: Requests,
    matching: Matching,
    /// Whom a receive has asked for its message, since the last [`Engine::take_asked`].
    asked: Option<u32>,
}

/// Frames taken from one peer before the others have their turn.
const FRAMES_PER_TURN: usize = 32;

impl Engine {
    /// The engine of rank `me` of `ranks`.
    pub fn new(me: u32, ranks: u32, limits: Limits) -> Engine {
        let peers = (0..ranks).map(|_| Peer::default()).collect();
        Engine {
            me,
            limits,
            peers,
            output: PeerSet::new(ranks),
            requests: Requests::default(),
            matching: Matching::default(),
            asked: None,
        }
    }

    /// Starts sending `data` to rank `peer`; the region stays valid until the request is complete.
    pub fn send(&mut self, peer: u32, envelope: Envelope, data: Region, mode: Mode) -> RequestId {
        let state =
            State::SendQueued { whole: mode == Mode::Standard && data.len() <= self.limits.eager_bytes };
        let id = self.requests.insert(Request::new(state, data, peer, envelope));
        if peer == self.me {
            self.send_to_myself(id);
        } else {
            self.queue(peer, Out::Send(id));
        }
        id
    }

    /// Sends a short message at once if nothing is in its way; otherwise does nothing and returns false. Nobody has to
    /// remember a message that is in the ring.
    ///
    /// # Errors
    /// When the peer's ring cannot be trusted.
    pub fn send_now<L: Links>(
        &mut self,
        peer: u32,
        envelope: Envelope,
        data: Region,
        links: &mut L,
    ) -> Result<bool, ProtocolError<L::Error>> {
        let waits = !self.peers[peer as usize].outbox.is_empty();
        if waits || peer == self.me || data.len() > self.limits.eager_bytes {
            return Ok(false);
        }
        let header = Header {
            payload_bytes: data.len() as u32,
            context: envelope.context,
            tag: envelope.tag,
            message_bytes: data.len() as u64,
            ..Header::new(Kind::Eager)
        };
        let room = links.room(peer).map_err(|error| ProtocolError::Link(peer, error))?;
        let fits = header.frame_bytes() <= room;
        if fits {
            write_frame(links, peer, &header, data);
        }
        Ok(fits)
    }

    /// Starts receiving into `data`, which stays valid until the request is complete.
    pub fn receive(&mut self, pattern: Pattern, data: Region) -> RequestId {
        let envelope = Envelope { context: pattern.context, tag: 0 };
        let id = self.requests.insert(Request::new(State::Posted, data, 0, envelope));
        match self.matching.take_unexpected(&pattern) {
            Some(message) => self.deliver(id, message),
            None => self.matching.post(pattern, id),
        }
        id
    }

    /// Receives a message that [`Engine::take`] took.
    pub fn receive_taken(&mut self, message: Taken, data: Region) -> RequestId {
        let envelope = message.0.envelope;
        let id = self.requests.insert(Request::new(State::Posted, data, 0, envelope));
        self.deliver(id, message.0);
        id
    }

    /// The first arrived message that fits, without receiving it.
    pub fn probe(&self, pattern: &Pattern) -> Option<Completion> {
        self.matching.find_unexpected(pattern).map(Unexpected::completion)
    }

    /// Takes the first arrived message that fits out of the matching.
    pub fn take(&mut self, pattern: &Pattern) -> Option<(Taken, Completion)> {
        let message = self.matching.take_unexpected(pattern)?;
        let completion = message.completion();
        Some((Taken(message), completion))
    }

    /// What became of the request, if it is complete.
    pub fn completion(&self, id: RequestId) -> Option<Completion> {
        match self.requests.get(id)?.state {
            State::Done(completion) => Some(completion),
            _ => None,
        }
    }

    /// Whether the request is complete.
    pub fn is_done(&self, id: RequestId) -> bool {
        self.requests.get(id).is_some_and(|request| matches!(request.state, State::Done(_)))
    }

    /// Forgets the request: at once if it is complete, otherwise when it will be.
    pub fn release(&mut self, id: RequestId) {
        self.requests.release(id);
    }

    /// Requests that exist (also released ones that are not complete).
    #[cfg(test)]
    pub fn requests_alive(&self) -> usize {
        self.requests.alive()
    }

    /// Tries to cancel. The request still has to be completed, and says then whether it was cancelled.
    pub fn cancel(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(id) else { return };
        let (peer, envelope) = (request.peer, request.envelope);
        match request.state {
            State::Posted => {
                self.matching.withdraw(id);
                self.requests.finish(id, Completion::cancelled());
            }
            State::SendQueued { .. } => {
                let outbox = &mut self.peers[peer as usize].outbox;
                outbox.retain(|out| !matches!(out, Out::Send(queued) if *queued == id));
                self.requests.finish(id, Completion::cancelled());
            }
            State::SendAnnounced if peer == self.me => {
                // A message to oneself is announced until it is matched, and matched only when it is complete.
                self.matching.forget_announced(peer, id.to_bits());
                self.requests.finish(id, Completion::cancelled());
            }
            State::SendAnnounced => {
                let header = Header {
                    context: envelope.context,
                    tag: envelope.tag,
                    sender: id.to_bits(),
                    ..Header::new(Kind::Cancel)
                };
                self.queue(peer, Out::Control(header));
            }
            _ => {}
        }
    }

    /// The sender whose announced message a receive has just matched: the answer to it waits to be written.
    pub fn take_asked(&mut self) -> Option<u32> {
        self.asked.take()
    }

    /// Whether anything waits to be written.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Moves everything that can move; returns whether anything did.
    ///
    /// # Errors
    /// When a peer broke the protocol. The engine must not be used any more then.
    pub fn progress<L: Links>(&mut self, links: &mut L) -> Result<bool, ProtocolError<L::Error>> {
        let mut moved = false;
        links.look();
        let mut from = 0;
        while let Some(peer) = links.next_ready(from) {
            moved |= self.take_frames(peer, links)?;
            from = peer + 1;
        }
        let mut from = 0;
        while let Some(peer) = self.output.next(from) {
            moved |= self.transmit(peer, links)?;
            from = peer + 1;
        }
        links.flush();
        Ok(moved)
    }

    /// Writes what can be written to one peer.
    ///
    /// # Errors
    /// When the peer's ring cannot be trusted.
    pub fn transmit<L: Links>(&mut self, peer: u32, links: &mut L) -> Result<bool, ProtocolError<L::Error>> {
        let mut moved = false;
        loop {
            let queues = &self.peers[peer as usize];
            if queues.outbox.is_empty() && queues.transfers.is_empty() {
                self.output.remove(peer);
                return Ok(moved);
            }
            let room = links.room(peer).map_err(|error| ProtocolError::Link(peer, error))?;
            let first = self.transmit_first(peer, room, links);
            let room = if first {
                links.room(peer).map_err(|error| ProtocolError::Link(peer, error))?
            } else {
                room
            };
            let piece = self.transmit_piece(peer, room, links);
            if !first && !piece {
                return Ok(moved);
            }
            moved = true;
        }
    }

    fn queue(&mut self, peer: u32, out: Out) {
        self.peers[peer as usize].outbox.push_back(out);
        self.output.insert(peer);
    }

    /// Writes the oldest frame of the outbox if there is room.
    fn transmit_first<L: Links>(&mut self, peer: u32, room: usize, links: &mut L) -> bool {
        let Some(out) = self.peers[peer as usize].outbox.front() else { return false };
        let (header, payload, id) = match *out {
            Out::Control(header) => (header, Region::EMPTY, None),
            Out::Send(id) => {
                let Some(request) = self.requests.get(id) else { return false };
                let (header, payload) = request.first_frame(id);
                (header, payload, Some(id))
            }
        };
        if header.frame_bytes() > room {
            return false;
        }
        self.peers[peer as usize].outbox.pop_front();
        write_frame(links, peer, &header, payload);
        if let Some(id) = id {
            if header.kind == Kind::Eager {
                self.requests.finish(id, Completion::sent());
            } else if let Some(request) = self.requests.get_mut(id) {
                request.state = State::SendAnnounced;
            }
        }
        true
    }

    /// Writes the next piece of the transfer whose turn it is if there is room.
    fn transmit_piece<L: Links>(&mut self, peer: u32, room: usize, links: &mut L) -> bool {
        let Some(&id) = self.peers[peer as usize].transfers.front() else { return false };
        let chunk_bytes = self.limits.chunk_bytes;
        let Some(request) = self.requests.get_mut(id) else { return false };
        let State::Sending { receiver, sent, accepted } = &mut request.state else { return false };
        let payload = request.data.part(*sent, (*accepted - *sent).min(chunk_bytes));
        let header = Header {
            payload_bytes: payload.len() as u32,
            receiver: *receiver,
            sender: id.to_bits(),
            ..Header::new(Kind::Data)
        };
        if header.frame_bytes() > room {
            return false;
        }
        *sent += payload.len();
        let complete = sent == accepted;
        write_frame(links, peer, &header, payload);
        let transfers = &mut self.peers[peer as usize].transfers;
        transfers.pop_front();
        if complete {
            self.requests.finish(id, Completion::sent());
        } else {
            transfers.push_back(id);
        }
        true
    }

    fn take_frames<L: Links>(&mut self, peer: u32, links: &mut L) -> Result<bool, ProtocolError<L::Error>> {
        for taken in 0..FRAMES_PER_TURN {
            let readable = links.readable(peer).map_err(|error| ProtocolError::Link(peer, error))?;
            if readable < HEADER_BYTES {
                return Ok(taken > 0);
            }
            let mut bytes = [0; HEADER_BYTES];
            // SAFETY: the array outlives the copy.
            links.copy(peer, 0, unsafe { Region::new(bytes.as_mut_ptr(), HEADER_BYTES) });
            let header = Header::decode(&bytes, self.limits.chunk_bytes)
                .map_err(|error| ProtocolError::Frame(peer, error))?;
            if readable < header.frame_bytes() {
                return Ok(taken > 0);
            }
            self.take_frame(peer, &header, links).map_err(|()| ProtocolError::Request(peer, header.kind))?;
            links.consume(peer, header.frame_bytes());
            // What nobody asks for can stay in the ring: from there it is copied once.
            let is_new = matches!(header.kind, Kind::Eager | Kind::Rts);
            if is_new && !self.matching.has_posted() {
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn take_frame<L: Links>(&mut self, peer: u32, header: &Header, links: &L) -> Result<(), ()> {
        match header.kind {
            Kind::Eager => self.take_eager(peer, header, links),
            Kind::Rts => self.take_rts(peer, header)?,
            Kind::Cts => self.take_cts(peer, header)?,
            Kind::Data => self.take_data(peer, header, links)?,
            Kind::Cancel => {
                if self.matching.forget_announced(peer, header.sender) {
                    let answer = Header { kind: Kind::Cancelled, ..*header };
                    self.queue(peer, Out::Control(answer));
                }
            }
            Kind::Cancelled => {
                let id = RequestId::from_bits(header.sender);
                let request = self.requests.get(id).filter(|request| request.peer == peer).ok_or(())?;
                if !matches!(request.state, State::SendAnnounced) {
                    return Err(());
                }
                self.requests.finish(id, Completion::cancelled());
            }
        }
        Ok(())
    }

    fn take_eager<L: Links>(&mut self, peer: u32, header: &Header, links: &L) {
        let envelope = Envelope { context: header.context, tag: header.tag };
        let bytes = header.payload_bytes as usize;
        if let Some(id) = self.matching.take_posted(peer, envelope) {
            if let Some(request) = self.requests.get(id) {
                links.copy(peer, HEADER_BYTES, request.data.part(0, bytes));
                let room_bytes = request.data.len();
                self.requests.finish(id, Completion::received(peer, envelope.tag, bytes as u64, room_bytes));
            }
            return;
        }
        let mut data = Vec::with_capacity(bytes);
        // SAFETY: the vector has this capacity, outlives the copy, and the copy fills it.
        unsafe {
            links.copy(peer, HEADER_BYTES, Region::new(data.as_mut_ptr(), bytes));
            data.set_len(bytes);
        }
        self.matching.arrive(Unexpected {
            source: peer,
            envelope,
            bytes: bytes as u64,
            body: Body::Whole(data),
        });
    }

    fn take_rts(&mut self, peer: u32, header: &Header) -> Result<(), ()> {
        let envelope = Envelope { context: header.context, tag: header.tag };
        if header.message_bytes > isize::MAX as u64 {
            return Err(());
        }
        let body = Body::Announced(header.sender);
        let message = Unexpected { source: peer, envelope, bytes: header.message_bytes, body };
        match self.matching.take_posted(peer, envelope) {
            Some(id) => self.deliver(id, message),
            None => self.matching.arrive(message),
        }
        Ok(())
    }

    fn take_cts(&mut self, peer: u32, header: &Header) -> Result<(), ()> {
        let id = RequestId::from_bits(header.sender);
        let request = self.requests.get_mut(id).ok_or(())?;
        let waits = matches!(request.state, State::SendAnnounced) && request.peer == peer;
        if !waits || header.message_bytes > request.data.len() as u64 {
            return Err(());
        }
        if header.message_bytes == 0 {
            self.requests.finish(id, Completion::sent());
        } else {
            let accepted = header.message_bytes as usize;
            request.state = State::Sending { receiver: header.receiver, sent: 0, accepted };
            self.peers[peer as usize].transfers.push_back(id);
            self.output.insert(peer);
        }
        Ok(())
    }

    fn take_data<L: Links>(&mut self, peer: u32, header: &Header, links: &L) -> Result<(), ()> {
        let id = RequestId::from_bits(header.receiver);
        let bytes = header.payload_bytes as usize;
        let request = self.requests.get_mut(id).filter(|request| request.peer == peer).ok_or(())?;
        let State::Receiving { sender, received, expected, completion } = &mut request.state else {
            return Err(());
        };
        if *sender != header.sender || bytes == 0 || bytes > *expected - *received {
            return Err(());
        }
        links.copy(peer, HEADER_BYTES, request.data.part(*received, bytes));
        *received += bytes;
        if received == expected {
            let completion = *completion;
            self.requests.finish(id, completion);
        }
        Ok(())
    }

    /// Gives an arrived message to the receive that it matched.
    fn deliver(&mut self, id: RequestId, message: Unexpected) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let (source, envelope) = (message.source, message.envelope);
        let completion = Completion::received(source, envelope.tag, message.bytes, request.data.len());
        let accepted = (message.bytes as usize).min(request.data.len());
        match message.body {
            Body::Whole(mut data) => {
                // SAFETY: the vector outlives the copy.
                unsafe { Region::new(data.as_mut_ptr(), data.len()) }.copy_to(request.data);
                self.requests.finish(id, completion);
            }
            Body::Announced(sender) if source == self.me => {
                let target = request.data;
                let sender = RequestId::from_bits(sender);
                if let Some(sending) = self.requests.get(sender) {
                    sending.data.copy_to(target);
                }
                self.requests.finish(sender, Completion::sent());
                self.requests.finish(id, completion);
            }
            Body::Announced(sender) => {
                request.peer = source;
                request.state = State::Receiving { sender, received: 0, expected: accepted, completion };
                if accepted == 0 {
                    self.requests.finish(id, completion);
                }
                let header = Header {
                    message_bytes: accepted as u64,
                    sender,
                    receiver: id.to_bits(),
                    ..Header::new(Kind::Cts)
                };
                self.queue(source, Out::Control(header));
                self.asked = Some(source);
            }
        }
    }

    fn send_to_myself(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let (envelope, data) = (request.envelope, request.data);
        let whole = matches!(request.state, State::SendQueued { whole: true });
        request.state = State::SendAnnounced;
        let me = self.me;
        let announced = Unexpected {
            source: me,
            envelope,
            bytes: data.len() as u64,
            body: Body::Announced(id.to_bits()),
        };
        if let Some(receiver) = self.matching.take_posted(me, envelope) {
            self.deliver(receiver, announced);
        } else if whole {
            self.matching.arrive(Unexpected { body: Body::Whole(data.to_vec()), ..announced });
            self.requests.finish(id, Completion::sent());
        } else {
            self.matching.arrive(announced);
        }
    }
}

fn write_frame<L: Links>(links: &mut L, peer: u32, header: &Header, payload: Region) {
    let mut bytes = header.encode();
    // SAFETY: the array outlives the write, which only reads it.
    links.write(peer, [unsafe { Region::new(bytes.as_mut_ptr(), HEADER_BYTES) }, payload]);
}
