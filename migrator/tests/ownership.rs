//! All reachable states of one move: source, destination and coordinator, with messages lost, doubled, late and overtaken,
//! and each party killed. Source and destination are the transition functions that the real ones use; the coordinator is the
//! rules of `coordinator/src/executor.rs` written down once more.

use std::collections::{HashMap, VecDeque};

use migrator::ownership::{Destination, DestinationEvent, Source, SourceEvent};

/// What may be under way; all of it may be lost, doubled, late, and overtaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    // Source and destination.
    Final,
    Ready,
    Commit,
    Running,
    AbortFromSource,
    AbortFromDestination,
    // Coordinator to the destination's agent.
    Prepare,
    Discard,
    DiscardUnlessHeld,
    Wake,
    // … and back.
    Listening,
    Discarded,
    DestinationRuns,
    Held,
    Woken,
    NotWoken,
    // Coordinator to the source's agent, and back.
    Migrate,
    Resume,
    Moved,
    NotMoved,
    InDoubt,
    Resumed,
}

const MESSAGES: [Message; 22] = [
    Message::Final,
    Message::Ready,
    Message::Commit,
    Message::Running,
    Message::AbortFromSource,
    Message::AbortFromDestination,
    Message::Prepare,
    Message::Discard,
    Message::DiscardUnlessHeld,
    Message::Wake,
    Message::Listening,
    Message::Discarded,
    Message::DestinationRuns,
    Message::Held,
    Message::Woken,
    Message::NotWoken,
    Message::Migrate,
    Message::Resume,
    Message::Moved,
    Message::NotMoved,
    Message::InDoubt,
    Message::Resumed,
];

/// The messages under way, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Messages(u32);

impl Messages {
    fn insert(&mut self, message: Message) {
        self.0 |= 1 << message as u32;
    }

    fn remove(&mut self, message: Message) {
        self.0 &= !(1 << message as u32);
    }

    fn iter(self) -> impl Iterator<Item = Message> {
        MESSAGES.into_iter().filter(move |message| self.0 & (1 << *message as u32) != 0)
    }
}

/// Where the coordinator is with the move; what it has decided survives its death, the rest does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Coordinator {
    Preparing,
    Sending,
    Settling {
        keep: bool,
    },
    Waking,
    Returning,
    Resuming,
    /// The destination has it.
    Done,
    /// The source has it, or nobody.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    /// `None`: killed.
    source: Option<Source>,
    /// A migration was begun, and is over.
    begun: bool,
    over: bool,
    /// `None`: not there (yet, or any more).
    destination: Option<Destination>,
    /// The destination's agent will never start this epoch (again).
    fenced: bool,
    coordinator: Coordinator,
    up: bool,
    messages: Messages,
    /// A source that goes on when COMMIT is not answered: what the search must find.
    careless: bool,
}

/// A successor, and whether it takes a fault (a loss, a kill) to get there.
type Step = (State, bool);

impl State {
    fn initial(careless: bool) -> Self {
        Self {
            source: Some(Source::Runs),
            begun: false,
            over: false,
            destination: None,
            fenced: false,
            coordinator: Coordinator::Preparing,
            up: true,
            messages: Messages::default(),
            careless,
        }
    }

    fn owners(&self) -> usize {
        usize::from(self.source.is_some_and(Source::owns))
            + usize::from(self.destination.is_some_and(Destination::owns))
    }

    fn all_alive(&self) -> bool {
        self.source.is_some() && self.up && (self.destination.is_some() || !self.fenced)
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = *self;
        change(&mut next);
        for message in MESSAGES {
            if next.is_void(message) {
                next.messages.remove(message);
            }
        }
        next
    }

    /// Whether nothing can come of `message` any more, now or later: such a message need not be remembered.
    fn is_void(&self, message: Message) -> bool {
        let decided = matches!(self.coordinator, Coordinator::Done | Coordinator::Failed);
        let asked = self.up && matches!(self.coordinator, Coordinator::Preparing | Coordinator::Sending);
        match message {
            // The connection is closed.
            Message::Ready | Message::Running | Message::AbortFromDestination => {
                self.over || self.source.is_none()
            }
            Message::Final | Message::Commit | Message::AbortFromSource => {
                !matches!(self.destination, Some(Destination::Filling | Destination::Ready))
                    && (self.fenced || self.destination.is_some())
            }
            Message::Prepare => self.fenced || self.destination.is_some(),
            Message::Migrate => self.source.is_none() || (self.begun && !asked),
            Message::Resume => self.source.is_none() || (decided && self.source == Some(Source::Runs)),
            Message::Listening | Message::Moved | Message::NotMoved | Message::InDoubt => !asked,
            Message::Discarded
            | Message::DestinationRuns
            | Message::Held
            | Message::Woken
            | Message::NotWoken
            | Message::Resumed => decided,
            Message::Discard | Message::DiscardUnlessHeld | Message::Wake => {
                decided && (self.destination == Some(Destination::Runs) || self.fenced)
            }
        }
    }

    fn send(&mut self, message: Message) {
        self.messages.insert(message);
    }

    fn successors(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for message in self.messages.iter() {
            let taken = self.with(|state| state.messages.remove(message));
            steps.push((taken, true));
            steps.push((taken.delivered(message), false));
            // It may come again.
            steps.push((self.delivered(message), true));
        }
        self.source_steps(&mut steps);
        self.destination_steps(&mut steps);
        self.coordinator_steps(&mut steps);
        steps
    }

    /// What the source does by itself: go on to the next phase, or lose patience.
    fn source_steps(&self, steps: &mut Vec<Step>) {
        let Some(source) = self.source else { return };
        steps.push((self.with(|state| state.source = None), true));
        if !self.begun || self.over {
            return;
        }
        if source == Source::Runs {
            steps.push((self.with(|state| state.source_event(SourceEvent::Pause)), false));
        }
        if source == Source::Paused {
            steps.push((self.with(|state| state.send(Message::Final)), false));
        }
        if source == Source::Ready {
            steps.push((self.with(|state| state.source_event(SourceEvent::Commit)), false));
        }
        steps.push((self.with(|state| state.source_event(SourceEvent::Lost)), false));
    }

    /// The real transition, and what the source says because of it.
    fn source_event(&mut self, event: SourceEvent) {
        let next = match self.source {
            Some(Source::Committed) if self.careless && event == SourceEvent::Lost => Some(Source::Runs),
            source => source.and_then(|source| source.next(event)),
        };
        let next = next.unwrap_or_else(|| panic!("{event:?} in {self:?}"));
        self.source = Some(next);
        match (event, next) {
            // The fence of the real one: the state is `Committed` before the first byte leaves.
            (SourceEvent::Commit, _) => self.send(Message::Commit),
            (SourceEvent::Running, _) => self.source_is_over(Message::Moved),
            (SourceEvent::Lost, Source::Runs) => {
                self.send(Message::AbortFromSource);
                self.source_is_over(Message::NotMoved);
            }
            (SourceEvent::Lost, _) => self.source_is_over(Message::InDoubt),
            _ => {}
        }
    }

    fn source_is_over(&mut self, outcome: Message) {
        self.over = true;
        self.send(outcome);
    }

    fn destination_steps(&self, steps: &mut Vec<Step>) {
        let Some(destination) = self.destination else { return };
        steps.push((self.with(|state| (state.destination, state.fenced) = (None, true)), true));
        match destination {
            Destination::Filling | Destination::Ready => {
                steps.push((self.with(|state| state.destination_event(DestinationEvent::Lost)), false));
            }
            // The machine starts, or its agent or the kernel refuses.
            Destination::Committed => {
                steps.push((self.with(|state| state.destination_event(DestinationEvent::Started)), false));
                steps.push((self.with(|state| state.destination_event(DestinationEvent::Lost)), false));
            }
            _ => {}
        }
    }

    fn destination_event(&mut self, event: DestinationEvent) {
        let before = self.destination;
        let next = before.and_then(|destination| destination.next(event));
        let next = next.unwrap_or_else(|| panic!("{event:?} in {self:?}"));
        self.destination = Some(next);
        match (event, next) {
            (DestinationEvent::Complete, _) => self.send(Message::Ready),
            (DestinationEvent::Started, _) => self.send(Message::Running),
            (DestinationEvent::Lost, Destination::Discarded) => self.send(Message::AbortFromDestination),
            (DestinationEvent::Lost, _) if before == Some(Destination::Committed) => {
                self.send(Message::AbortFromDestination);
            }
            _ => {}
        }
    }

    /// What the coordinator does by itself: die, come back, say again what it said, and see what agents report.
    fn coordinator_steps(&self, steps: &mut Vec<Step>) {
        if !self.up {
            // It knows from its journal that the move is open, or how it ended; nothing else.
            let recovered = match self.coordinator {
                ended @ (Coordinator::Done | Coordinator::Failed) => ended,
                _ => Coordinator::Settling { keep: self.source.is_none() },
            };
            steps.push((self.with(|state| (state.up, state.coordinator) = (true, recovered)), false));
            return;
        }
        steps.push((self.with(|state| state.up = false), true));
        let again = match self.coordinator {
            Coordinator::Preparing => Some(Message::Prepare),
            Coordinator::Sending => Some(Message::Migrate),
            Coordinator::Settling { keep: true } => Some(Message::DiscardUnlessHeld),
            Coordinator::Settling { keep: false } => Some(Message::Discard),
            Coordinator::Waking => Some(Message::Wake),
            Coordinator::Resuming => Some(Message::Resume),
            _ => None,
        };
        steps.extend(again.map(|message| (self.with(|state| state.send(message)), false)));
        let settle =
            |state: &mut Self| state.coordinator = Coordinator::Settling { keep: state.source.is_none() };
        if matches!(
            self.coordinator,
            Coordinator::Preparing | Coordinator::Sending | Coordinator::Settling { .. }
        ) {
            // A time-out, a lost host, a source that is reported dead.
            steps.push((self.with(settle), false));
        }
        if self.coordinator == Coordinator::Returning {
            let next = match self.source {
                Some(Source::InDoubt) => Some(Coordinator::Resuming),
                Some(Source::Runs) | None => Some(Coordinator::Failed),
                _ => None,
            };
            steps.extend(next.map(|next| (self.with(|state| state.coordinator = next), false)));
        }
    }

    fn delivered(&self, message: Message) -> Self {
        self.with(|state| state.deliver(message))
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Final | Message::Commit | Message::AbortFromSource => self.at_destination(message),
            Message::Ready | Message::Running | Message::AbortFromDestination => self.at_source(message),
            Message::Prepare | Message::Discard | Message::DiscardUnlessHeld | Message::Wake => {
                self.at_destination_agent(message)
            }
            Message::Migrate | Message::Resume => self.at_source_agent(message),
            _ if self.up => self.at_coordinator(message),
            _ => {}
        }
    }

    /// A frame at the destination: the one that belongs there, or a broken protocol.
    fn at_destination(&mut self, message: Message) {
        use Destination as At;
        let event = match (self.destination, message) {
            (Some(At::Filling), Message::Final) => DestinationEvent::Complete,
            (Some(At::Ready), Message::Commit) => DestinationEvent::Commit,
            (Some(At::Filling | At::Ready), Message::AbortFromSource) => DestinationEvent::Abort,
            (Some(At::Filling | At::Ready), _) => DestinationEvent::Lost,
            // Nobody reads the connection any more.
            _ => return,
        };
        self.destination_event(event);
    }

    fn at_source(&mut self, message: Message) {
        let Some(source) = self.source.filter(|_| self.begun && !self.over) else { return };
        self.source_event(match (source, message) {
            (Source::Paused, Message::Ready) => SourceEvent::Ready,
            (Source::Committed, Message::Running) => SourceEvent::Running,
            _ => SourceEvent::Lost,
        });
    }

    fn at_destination_agent(&mut self, message: Message) {
        match (message, self.destination) {
            (Message::Prepare, None) if !self.fenced => {
                self.destination = Some(Destination::Filling);
                self.send(Message::Listening);
            }
            (Message::Discard | Message::DiscardUnlessHeld, Some(Destination::Runs)) => {
                self.send(Message::DestinationRuns)
            }
            (Message::DiscardUnlessHeld, Some(Destination::InDoubt)) => self.send(Message::Held),
            (Message::Discard | Message::DiscardUnlessHeld, destination) => {
                // It never starts again, and is killed if it is there; between two frames that is the same as `Revoked`.
                if let Some(destination) = destination {
                    let dead = destination.next(DestinationEvent::Revoked).unwrap_or(Destination::Discarded);
                    assert_eq!(dead, Destination::Discarded);
                }
                let killed = self.destination.is_none() && self.fenced;
                self.destination = (!killed).then_some(Destination::Discarded);
                self.fenced = true;
                self.send(Message::Discarded);
            }
            (Message::Wake, Some(Destination::InDoubt)) => {
                self.destination_event(DestinationEvent::SourceGone);
                self.send(Message::Woken);
            }
            (Message::Wake, Some(Destination::Runs)) => self.send(Message::Woken),
            (Message::Wake, _) => self.send(Message::NotWoken),
            _ => {}
        }
    }

    fn at_source_agent(&mut self, message: Message) {
        match (message, self.source) {
            (Message::Migrate, Some(Source::Runs)) if !self.begun => self.begun = true,
            // A command that comes twice finds no listener there.
            (Message::Migrate, Some(Source::Runs)) if self.over => self.send(Message::NotMoved),
            (Message::Resume, Some(Source::InDoubt)) => {
                self.source_event(SourceEvent::Revoked);
                self.send(Message::Resumed);
            }
            (Message::Resume, Some(Source::Runs)) => self.send(Message::Resumed),
            _ => {}
        }
    }

    fn at_coordinator(&mut self, message: Message) {
        use Coordinator as At;
        let settling = At::Settling { keep: self.source.is_none() };
        self.coordinator = match (self.coordinator, message) {
            (At::Preparing, Message::Listening) => At::Sending,
            (At::Sending, Message::Moved) => At::Done,
            (At::Sending, Message::NotMoved | Message::InDoubt) => settling,
            (At::Settling { .. }, Message::DestinationRuns) => At::Done,
            (At::Settling { keep: true }, Message::Held) => At::Waking,
            (At::Settling { .. }, Message::Discarded) => At::Returning,
            (At::Waking, Message::Woken) => At::Done,
            (At::Waking, Message::NotWoken) => settling,
            (At::Resuming, Message::Resumed) => At::Failed,
            (other, _) => other,
        };
    }
}

/// Every reachable state with its successors, by number.
fn explore(careless: bool) -> (Vec<State>, Vec<Vec<(usize, bool)>>) {
    let mut numbers = HashMap::from([(State::initial(careless), 0)]);
    let mut states = vec![State::initial(careless)];
    let mut edges = Vec::new();
    let mut queue = VecDeque::from([0]);
    while let Some(number) = queue.pop_front() {
        let mut next = Vec::new();
        for (state, fault) in states[number].successors() {
            let known = numbers.get(&state).copied();
            let to = known.unwrap_or_else(|| {
                numbers.insert(state, states.len());
                states.push(state);
                queue.push_back(states.len() - 1);
                states.len() - 1
            });
            next.push((to, fault));
        }
        edges.push(next);
    }
    (states, edges)
}

/// The states from which one of `goals` can be reached without any fault.
fn can_reach(edges: &[Vec<(usize, bool)>], goals: impl Iterator<Item = usize>) -> Vec<bool> {
    let mut before = vec![Vec::new(); edges.len()];
    for (from, next) in edges.iter().enumerate() {
        next.iter().filter(|(_, fault)| !fault).for_each(|(to, _)| before[*to].push(from));
    }
    let mut reaches = vec![false; edges.len()];
    let mut queue: VecDeque<usize> = goals.collect();
    while let Some(state) = queue.pop_front() {
        if !std::mem::replace(&mut reaches[state], true) {
            queue.extend(&before[state]);
        }
    }
    reaches
}

#[test]
fn no_reachable_state_has_two_owners_and_every_live_one_leads_to_one() {
    let (states, edges) = explore(false);
    for state in &states {
        assert!(state.owners() <= 1, "two owners: {state:?}");
    }
    let settled = |state: &State| {
        state.owners() == 1 && matches!(state.coordinator, Coordinator::Done | Coordinator::Failed)
    };
    let goals = states.iter().enumerate().filter(|(_, state)| settled(state)).map(|(number, _)| number);
    let reaches = can_reach(&edges, goals);
    let mut alive = 0;
    for (state, reaches) in states.iter().zip(&reaches).filter(|(state, _)| state.all_alive()) {
        alive += 1;
        assert!(*reaches, "no way to exactly one owner: {state:?}");
    }
    let transitions: usize = edges.iter().map(Vec::len).sum();
    println!("{} states, {transitions} transitions, {alive} with all parties alive", states.len());
    assert!(states.len() > 5_000, "the exploration is not what it was: {} states", states.len());
}

#[test]
fn the_search_finds_the_two_owners_of_a_careless_source() {
    let (states, _) = explore(true);
    assert!(states.iter().any(|state| state.owners() == 2));
}

#[test]
fn every_transition_out_of_the_commit_needs_an_answer_or_a_proof() {
    use SourceEvent::{Commit, Lost, Pause, Ready, Revoked, Running, Superseded};
    for event in [Pause, Ready, Commit, Running, Lost, Revoked, Superseded] {
        for from in [Source::Committed, Source::InDoubt] {
            let resumes = from.next(event).is_some_and(Source::owns);
            assert_eq!(resumes, (from, event) == (Source::InDoubt, Revoked), "{from:?} {event:?}");
        }
    }
    assert!(
        !Source::Moved.owns()
            && [Pause, Ready, Commit, Running, Lost, Revoked, Superseded]
                .iter()
                .all(|event| Source::Moved.next(*event).is_none())
    );
}
