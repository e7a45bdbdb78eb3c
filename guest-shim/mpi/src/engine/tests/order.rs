//! Random schedules of sends, receives, matched probes and cancellations against MPI's rules of matching (MPI 4.1, 3.5).
//!
//! The rules leave open in which order messages of different senders arrive, so there is no single right answer. What is
//! checked is what every right answer has in common; `PARTITA_SEEDS=100000` makes the run longer.

use alloc::format;
use alloc::string::String;

use super::*;

/// A message, in the order of the sends of all ranks.
struct Sent {
    from: u32,
    to: usize,
    envelope: Envelope,
    /// Read by the transfer.
    _data: Scratch,
    id: RequestId,
}

/// A receive, in the order in which they were posted at all ranks; a matched probe that found something is one, too.
struct Received {
    at: usize,
    pattern: Pattern,
    data: Scratch,
    id: RequestId,
    cancelled: bool,
    /// The message that it got.
    message: Option<usize>,
}

impl Received {
    fn accepts(&self, sent: &Sent) -> bool {
        self.at == sent.to
            && self.pattern.context == sent.envelope.context
            && self.pattern.source.is_none_or(|source| source == sent.from)
            && self.pattern.tag.is_none_or(|tag| tag == sent.envelope.tag)
    }
}

const BYTES_MAX: usize = 9000;

struct Run {
    world: World,
    random: Random,
    sent: Vec<Sent>,
    received: Vec<Received>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let world = World::new(1 + random.below(4) as usize);
        Run { world, random, sent: Vec::new(), received: Vec::new() }
    }

    fn rank(&mut self) -> usize {
        self.random.below(self.world.engines.len() as u64) as usize
    }

    fn envelope(&mut self) -> Envelope {
        Envelope { context: 2 + self.random.below(2) as u32, tag: self.random.below(3) as i32 }
    }

    fn pattern(&mut self) -> Pattern {
        let Envelope { context, tag } = self.envelope();
        let source = self.rank() as u32;
        let (any_source, any_tag) = (self.random.below(2) == 0, self.random.below(2) == 0);
        Pattern { context, source: (!any_source).then_some(source), tag: (!any_tag).then_some(tag) }
    }

    fn send(&mut self) {
        let (from, to, envelope) = (self.rank(), self.rank(), self.envelope());
        let bytes = [8, 40, 2500, BYTES_MAX][self.random.below(4) as usize];
        let mode = if self.random.below(4) == 0 { Mode::Synchronous } else { Mode::Standard };
        let mut data = Scratch::new(bytes);
        let number = (self.sent.len() as u64).to_le_bytes();
        // SAFETY: only read by the copy.
        unsafe { Region::new(number.as_ptr().cast_mut(), 8) }.copy_to(data.region());
        let id = self.world.engines[from].send(to as u32, envelope, data.region(), mode);
        self.sent.push(Sent { from: from as u32, to, envelope, _data: data, id });
    }

    fn receive(&mut self) {
        let (at, pattern) = (self.rank(), self.pattern());
        let mut data = Scratch::new(BYTES_MAX);
        let id = self.world.engines[at].receive(pattern, data.region());
        self.received.push(Received { at, pattern, data, id, cancelled: false, message: None });
    }

    fn probe_and_receive(&mut self) {
        let (at, pattern) = (self.rank(), self.pattern());
        let engine = &mut self.world.engines[at];
        let probed = engine.probe(&pattern);
        let taken = engine.take(&pattern);
        assert_eq!(probed, taken.as_ref().map(|(_, completion)| *completion), "a probe tells of another");
        let Some((message, _)) = taken else { return };
        let mut data = Scratch::new(BYTES_MAX);
        let id = engine.receive_taken(message, data.region());
        self.received.push(Received { at, pattern, data, id, cancelled: false, message: None });
    }

    fn cancel(&mut self) {
        let number = self.received.len() as u64;
        if number > 0 {
            let received = &self.received[self.random.below(number) as usize];
            self.world.engines[received.at].cancel(received.id);
        }
    }

    fn carry_out(&mut self) {
        for _ in 0..40 + self.random.below(120) {
            match self.random.below(16) {
                0..5 => self.send(),
                5..9 => self.receive(),
                9 => self.probe_and_receive(),
                10 => self.cancel(),
                _ => {
                    let rank = self.rank();
                    self.world.step(rank);
                }
            }
        }
        self.world.settle();
        for received in &mut self.received {
            let Some(done) = self.world.engines[received.at].completion(received.id) else { continue };
            received.cancelled = done.cancelled;
            if !done.cancelled {
                let number = received.data.region().part(0, 8).to_vec();
                received.message = number.try_into().ok().map(|bytes| u64::from_le_bytes(bytes) as usize);
            }
        }
    }

    /// The rule that was broken, if any.
    fn verdict(&self) -> Result<(), String> {
        let mut receiver_of = alloc::vec![None; self.sent.len()];
        for (number, received) in self.received.iter().enumerate() {
            let Some(message) = received.message else { continue };
            if !self.sent.get(message).is_some_and(|sent| received.accepts(sent)) {
                return Err(format!("receive {number} got message {message}, which does not fit"));
            }
            if let Some(other) = receiver_of[message].replace(number) {
                return Err(format!("receives {other} and {number} both got message {message}"));
            }
        }
        for (number, received) in self.received.iter().enumerate().filter(|(_, r)| !r.cancelled) {
            self.check_messages(number, received, &receiver_of)?;
            self.check_earlier(number, received)?;
        }
        self.check_sends(&receiver_of)
    }

    /// Messages do not overtake each other, and none stays where a receive waits for it.
    fn check_messages(
        &self,
        number: usize,
        received: &Received,
        receiver_of: &[Option<usize>],
    ) -> Result<(), String> {
        for (message, sent) in self.sent.iter().enumerate().filter(|(_, sent)| received.accepts(sent)) {
            let taken = receiver_of[message];
            match received.message {
                None if taken.is_none() => {
                    return Err(format!("receive {number} waits, and message {message} fits"));
                }
                // It could have had the older one, unless that was gone already.
                Some(got)
                    if message < got
                        && sent.from == self.sent[got].from
                        && taken.is_none_or(|other| other > number) =>
                {
                    return Err(format!("receive {number} got message {got}, which overtook {message}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An earlier receive that fits the message, too, has got one itself.
    fn check_earlier(&self, number: usize, received: &Received) -> Result<(), String> {
        let Some(message) = received.message else { return Ok(()) };
        let sent = &self.sent[message];
        let passed_over =
            |other: &Received| !other.cancelled && other.message.is_none() && other.accepts(sent);
        match self.received[..number].iter().position(passed_over) {
            Some(other) => Err(format!("message {message} went to receive {number} before {other}")),
            None => Ok(()),
        }
    }

    /// What was received has been sent, says the sender.
    fn check_sends(&self, receiver_of: &[Option<usize>]) -> Result<(), String> {
        for (message, sent) in self.sent.iter().enumerate() {
            let complete = self.world.engines[sent.from as usize].completion(sent.id).is_some();
            if receiver_of[message].is_some() && !complete {
                return Err(format!("message {message} was received, and its send hangs"));
            }
        }
        Ok(())
    }
}

#[test]
fn random_schedules_obey_the_rules_of_matching() {
    let seeds = std::env::var("PARTITA_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let (mut matched, mut cancelled) = (0, 0);
    for seed in 0..seeds {
        let mut run = Run::new(seed);
        run.carry_out();
        if let Err(rule) = run.verdict() {
            panic!("seed {seed}: {rule}");
        }
        matched += run.received.iter().filter(|received| received.message.is_some()).count();
        cancelled += run.received.iter().filter(|received| received.cancelled).count();
    }
    // The schedules are not empty.
    assert!(matched as u64 > 10 * seeds && cancelled > 0, "{matched} matched, {cancelled} cancelled");
}

/// The check itself finds an overtaking and a receive that was passed over.
#[test]
fn a_broken_rule_is_found() {
    let mut run = Run::new(1);
    run.world = World::new(2);
    for _ in 0..2 {
        let mut data = Scratch::new(8);
        let id = run.world.engines[0].send(1, ENVELOPE, data.region(), Mode::Standard);
        run.sent.push(Sent { from: 0, to: 1, envelope: ENVELOPE, _data: data, id });
    }
    for message in [1, 0] {
        let mut data = Scratch::new(8);
        let id = run.world.engines[1].receive(any(2), data.region());
        let message = Some(message);
        run.received.push(Received { at: 1, pattern: any(2), data, id, cancelled: false, message });
    }
    run.world.settle();
    assert!(run.verdict().unwrap_err().contains("overtook"));
    run.received[0].message = None;
    assert!(run.verdict().is_err());
    (run.received[0].message, run.received[1].message) = (Some(0), Some(1));
    assert_eq!(run.verdict(), Ok(()));
}
