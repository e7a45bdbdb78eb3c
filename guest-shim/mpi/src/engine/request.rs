//! The requests of the engine and their states.

use alloc::vec::Vec;

use super::Envelope;
use crate::memory::Region;
use crate::wire::{Header, Kind};

/// Names a request. The generation tells a reused place from the request that had it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    index: u32,
    generation: u32,
}

impl RequestId {
    /// As a number for the wire.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// From the wire; may name nothing.
    pub fn from_bits(bits: u64) -> RequestId {
        RequestId { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Rank of the sender in the application (receives).
    pub source: u32,
    /// Tag of the message (receives).
    pub tag: i32,
    /// Length of the message as sent.
    pub message_bytes: u64,
    /// Bytes that are in the buffer now.
    pub bytes: u64,
    /// The request was cancelled; nothing was transferred.
    pub cancelled: bool,
}

impl Completion {
    /// Of a send.
    pub fn sent() -> Completion {
        Completion { source: 0, tag: 0, message_bytes: 0, bytes: 0, cancelled: false }
    }

    /// Of a cancelled request.
    pub fn cancelled() -> Completion {
        Completion { cancelled: true, ..Completion::sent() }
    }

    /// Of a receive with room for `room_bytes`.
    pub fn received(source: u32, tag: i32, message_bytes: u64, room_bytes: usize) -> Completion {
        let bytes = message_bytes.min(room_bytes as u64);
        Completion { source, tag, message_bytes, bytes, cancelled: false }
    }

    /// Whether the message was longer than the buffer.
    pub fn is_truncated(&self) -> bool {
        self.message_bytes > self.bytes
    }
}

/// Where a request is.
#[derive(Debug, Clone, Copy)]
pub enum State {
    /// Its first frame waits for its turn; `whole` if that is the whole message.
    SendQueued { whole: bool },
    /// The receiver knows of it.
    SendAnnounced,
    /// The receiver takes it.
    Sending { receiver: u64, sent: usize, accepted: usize },
    /// In the queue of posted receives (or just about to be).
    Posted,
    /// Matched, waiting for data.
    Receiving { sender: u64, received: usize, expected: usize, completion: Completion },
    /// Over.
    Done(Completion),
}

/// A send or a receive.
#[derive(Debug)]
pub struct Request {
    /// Where it is.
    pub state: State,
    /// The program's bytes.
    pub data: Region,
    /// The other rank (of a receive: once it is matched).
    pub peer: u32,
    /// Context and tag.
    pub envelope: Envelope,
    released: bool,
}

impl Request {
    /// A new request.
    pub fn new(state: State, data: Region, peer: u32, envelope: Envelope) -> Request {
        Request { state, data, peer, envelope, released: false }
    }

    /// Header and payload of the first frame of a send.
    pub fn first_frame(&self, id: RequestId) -> (Header, Region) {
        let whole = matches!(self.state, State::SendQueued { whole: true });
        let header = Header {
            payload_bytes: if whole { self.data.len() as u32 } else { 0 },
            context: self.envelope.context,
            tag: self.envelope.tag,
            message_bytes: self.data.len() as u64,
            sender: id.to_bits(),
            ..Header::new(if whole { Kind::Eager } else { Kind::Rts })
        };
        (header, if whole { self.data } else { Region::EMPTY })
    }
}

#[derive(Default)]
struct Place {
    generation: u32,
    request: Option<Request>,
}

/// All requests.
#[derive(Default)]
pub struct Requests {
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Requests {
    /// Keeps a request.
    pub fn insert(&mut self, request: Request) -> RequestId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.generation = place.generation.wrapping_add(1);
        place.request = Some(request);
        RequestId { index, generation: place.generation }
    }

    /// The request, if it exists.
    pub fn get(&self, id: RequestId) -> Option<&Request> {
        self.places.get(id.index as usize).filter(|place| place.generation == id.generation)?.request.as_ref()
    }

    /// The request, if it exists.
    pub fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation == id.generation { place.request.as_mut() } else { None }
    }

    /// Ends a request; one that the program has released is gone then.
    pub fn finish(&mut self, id: RequestId, completion: Completion) {
        if let Some(request) = self.get_mut(id) {
            request.state = State::Done(completion);
            if request.released {
                self.remove(id);
            }
        }
    }

    /// The program will not ask any more.
    pub fn release(&mut self, id: RequestId) {
        if let Some(request) = self.get_mut(id) {
            request.released = true;
            if matches!(request.state, State::Done(_)) {
                self.remove(id);
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub fn alive(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn remove(&mut self, id: RequestId) {
        self.places[id.index as usize].request = None;
        self.free.push(id.index);
    }
}
