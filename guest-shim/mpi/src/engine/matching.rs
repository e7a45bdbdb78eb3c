//! Which receive gets which message.
//!
//! Both queues are kept in order of time. A message goes to the oldest receive that fits it and a receive takes the oldest
//! message that fits it; with messages of one sender arriving in the order of its sends, that is MPI's rule.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Completion, Envelope, RequestId};

/// What a receive or a probe accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// Context of the communicator.
    pub context: u32,
    /// Rank in the application, or any.
    pub source: Option<u32>,
    /// Tag, or any.
    pub tag: Option<i32>,
}

impl Pattern {
    fn accepts(&self, source: u32, envelope: Envelope) -> bool {
        self.context == envelope.context
            && self.source.is_none_or(|wanted| wanted == source)
            && self.tag.is_none_or(|wanted| wanted == envelope.tag)
    }
}

/// Where the bytes of an arrived message are.
#[derive(Debug)]
pub enum Body {
    /// Here.
    Whole(Vec<u8>),
    /// With the sender, whose request this is.
    Announced(u64),
}

/// A message that no receive has asked for yet.
#[derive(Debug)]
pub struct Unexpected {
    /// Rank of the sender in the application.
    pub source: u32,
    /// Context and tag.
    pub envelope: Envelope,
    /// Length of the message.
    pub bytes: u64,
    /// The message.
    pub body: Body,
}

impl Unexpected {
    /// What a probe says of it.
    pub fn completion(&self) -> Completion {
        Completion::received(self.source, self.envelope.tag, self.bytes, usize::MAX)
    }
}

/// The two queues.
#[derive(Default)]
pub struct Matching {
    posted: VecDeque<(Pattern, RequestId)>,
    unexpected: VecDeque<Unexpected>,
}

impl Matching {
    /// A receive that found no message waits.
    pub fn post(&mut self, pattern: Pattern, id: RequestId) {
        self.posted.push_back((pattern, id));
    }

    /// Whether any receive waits.
    pub fn has_posted(&self) -> bool {
        !self.posted.is_empty()
    }

    /// A message that found no receive waits.
    pub fn arrive(&mut self, message: Unexpected) {
        self.unexpected.push_back(message);
    }

    /// The oldest receive that fits, which leaves the queue.
    pub fn take_posted(&mut self, source: u32, envelope: Envelope) -> Option<RequestId> {
        let at = self.posted.iter().position(|(pattern, _)| pattern.accepts(source, envelope))?;
        self.posted.remove(at).map(|(_, id)| id)
    }

    /// The oldest message that fits.
    pub fn find_unexpected(&self, pattern: &Pattern) -> Option<&Unexpected> {
        self.unexpected.iter().find(|message| pattern.accepts(message.source, message.envelope))
    }

    /// The oldest message that fits, which leaves the queue.
    pub fn take_unexpected(&mut self, pattern: &Pattern) -> Option<Unexpected> {
        let at = self.unexpected.iter().position(|m| pattern.accepts(m.source, m.envelope))?;
        self.unexpected.remove(at)
    }

    /// Takes a receive back.
    pub fn withdraw(&mut self, id: RequestId) {
        self.posted.retain(|(_, posted)| *posted != id);
    }

    /// Forgets an announced message that nobody has matched; returns whether there was one.
    pub fn forget_announced(&mut self, source: u32, sender: u64) -> bool {
        let is_it =
            |m: &Unexpected| m.source == source && matches!(m.body, Body::Announced(s) if s == sender);
        match self.unexpected.iter().position(is_it) {
            Some(at) => self.unexpected.remove(at).is_some(),
            None => false,
        }
    }
}
