//! Who may come in: the first source that begins properly, and then only its own page streams.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::{Control, DestinationError, Options, Session, cancelled_or};
use crate::channel::{Channel, ChannelError, Expect};
use crate::clock;
use crate::partition::Description;
use crate::transport::{Listener, TransportError};
use crate::wire::{Frame, Hello, Kind, MACHINE_BYTES_MAX, Role, STREAMS_MAX, WireError};

/// Connections whose hello is waited for at the same time; more wait to be accepted.
const HANDSHAKES_MAX: usize = 2 * STREAMS_MAX as usize;
/// How often a wait for those who came looks for others, and the other way round.
const HANDSHAKE_TICK: Duration = Duration::from_millis(5);

/// Waits for a source that says hello and describes its partition.
pub(super) fn source<'a>(
    listener: &Listener,
    options: &'a Options,
    control: &'a Control,
) -> Result<(Session<'a>, Description), DestinationError> {
    loop {
        let connection = listener.accept(None, &|| control.is_cancelled()).map_err(accept_failed)?;
        let mut channel = Channel::new(connection, options.timeouts);
        match introduce(&mut channel, options, control) {
            Ok((hello, rdma, description)) => {
                let Hello { minor, streams, session: id, .. } = hello;
                return Ok((
                    Session { channel, id, minor, streams, rdma, options, control, started: clock::now() },
                    description,
                ));
            }
            Err(ChannelError::Transport(TransportError::Stopped)) => return Err(DestinationError::Cancelled),
            Err(error) => {
                tracing::warn!(%error, "dropped a connection that does not begin a migration");
                // A source of another release gets to know why; a stranger gets nothing.
                if matches!(error, ChannelError::Wire(WireError::Version { .. } | WireError::Invalid(_))) {
                    channel.close_with(&Frame::Refuse { reason: error.to_string() });
                }
            }
        }
    }
}

fn introduce(
    channel: &mut Channel,
    options: &Options,
    control: &Control,
) -> Result<(Hello, bool, Description), ChannelError> {
    let stop = || control.is_cancelled();
    let hello = channel.receive_hello(&stop)?;
    if hello.role != Role::Control {
        return Err(WireError::Hello.into());
    }
    let silence = options.timeouts.hello;
    let phase = "at the beginning of a migration";
    let (mut rdma, mut machine) = (false, Vec::new());
    loop {
        let kinds = &[Kind::Rdma, Kind::Machine, Kind::Describe];
        let expect = Expect { kinds, phase, silence, stop: &stop };
        match channel.receive(expect)? {
            Frame::Rdma if hello.minor >= 2 && !rdma && machine.is_empty() => rdma = true,
            Frame::Machine(piece) => machine.extend(piece),
            Frame::Describe(mut description) => {
                machine.append(&mut description.machine);
                return Ok((hello, rdma, Description { machine, ..description }));
            }
            other => return Err(WireError::Unexpected { kind: other.kind(), wanted: phase }.into()),
        }
        if machine.len() as u64 > MACHINE_BYTES_MAX {
            return Err(WireError::Invalid("it has too many machine facts").into());
        }
    }
}

/// Who came when page streams were waited for.
pub(super) enum Arrived {
    /// All of them.
    Streams(Vec<Channel>),
    /// The source itself, anew: its control connection broke as well. It has said hello.
    Source(Channel),
}

/// Waits until `until` for the source of `session` to come back with a new control connection, which may have said hello already;
/// gives that and the round it goes on with.
pub(super) fn again(
    listener: &Listener,
    session: &Session,
    epoch: u64,
    mut greeted: Option<Channel>,
    until: Instant,
) -> Result<(Channel, u32), DestinationError> {
    let timeouts = session.options.timeouts;
    let stop = || session.control.is_cancelled();
    loop {
        let left = until.saturating_duration_since(clock::now());
        if left == Duration::ZERO {
            return Err(accept_failed(TransportError::Silent { limit_ms: timeouts.resume.as_millis() }));
        }
        let (mut channel, greeting) = match greeted.take() {
            Some(channel) => (channel, Ok(())),
            None => {
                let connection = listener.accept(Some(left), &stop).map_err(accept_failed)?;
                let mut channel = Channel::new(connection, timeouts);
                let greeting = greeting(&mut channel, session);
                (channel, greeting)
            }
        };
        let (phase, silence) = ("after a break", timeouts.hello);
        let expect = Expect { kinds: &[Kind::Resume], phase, silence, stop: &stop };
        match greeting.and_then(|()| channel.receive(expect)) {
            Ok(Frame::Resume { round, epoch: named }) if named == epoch => return Ok((channel, round)),
            Ok(_) => tracing::warn!("dropped a connection that resumes another epoch"),
            Err(ChannelError::Transport(TransportError::Stopped)) => return Err(DestinationError::Cancelled),
            Err(error) => tracing::warn!(%error, "dropped a connection that does not resume this migration"),
        }
    }
}

/// The hello of a control connection of `session`.
fn greeting(channel: &mut Channel, session: &Session) -> Result<(), ChannelError> {
    let hello = channel.receive_hello(&|| session.control.is_cancelled())?;
    let same = hello.role == Role::Control && session.is_of(&hello, channel);
    if same { Ok(()) } else { Err(WireError::Hello.into()) }
}

/// Waits for all page streams of `session`, in any order. Who connects and is silent holds up nobody.
pub(super) fn streams(listener: &Listener, session: &Session) -> Result<Arrived, DestinationError> {
    let door = Door { session, claimed: AtomicU32::new(0), closed: AtomicBool::new(false) };
    thread::scope(|scope| {
        let arrived = door.admit_all(scope, listener);
        // The scope ends when the threads that still wait for somebody do.
        door.closed.store(true, Ordering::Release);
        arrived
    })
}

/// Where page streams come in, each on a thread of its own until it has joined.
struct Door<'a> {
    session: &'a Session<'a>,
    /// A bit for every stream that has come.
    claimed: AtomicU32,
    closed: AtomicBool,
}

/// Who a connection was.
enum Guest {
    Stream(u8, Channel),
    /// The source, see [`Arrived::Source`].
    Source(Channel),
    /// Dropped.
    Stranger,
}

impl<'a> Door<'a> {
    fn admit_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        listener: &Listener,
    ) -> Result<Arrived, DestinationError> {
        let (session, limit) = (self.session, self.session.options.timeouts.silence);
        let (done, results) = channel::<Result<Guest, DestinationError>>();
        let start = clock::now();
        let mut joined: Vec<Option<Channel>> = (0..session.streams).map(|_| None).collect();
        let mut under_way = 0;
        loop {
            let missing = joined.iter().filter(|stream| stream.is_none()).count();
            if missing == 0 {
                return Ok(Arrived::Streams(joined.into_iter().flatten().collect()));
            }
            let left = limit.saturating_sub(start.elapsed());
            if left == Duration::ZERO {
                let streams = session.streams;
                return Err(DestinationError::StreamsMissing { missing, streams, doing: "come" });
            }
            // As long as those who came can be all that is missing, nobody else is waited for.
            let patience = if under_way < missing { Duration::ZERO } else { HANDSHAKE_TICK };
            match results.recv_timeout(patience) {
                Ok(result) => {
                    under_way -= 1;
                    match result? {
                        Guest::Stream(number, channel) => joined[usize::from(number)] = Some(channel),
                        Guest::Source(channel) => return Ok(Arrived::Source(channel)),
                        Guest::Stranger => {}
                    }
                    continue;
                }
                Err(_) if under_way >= HANDSHAKES_MAX => continue,
                Err(_) => {}
            }
            let limit = if under_way == 0 { left } else { HANDSHAKE_TICK.min(left) };
            let connection = match listener.accept(Some(limit), &|| session.control.is_cancelled()) {
                Err(TransportError::Silent { .. }) => continue,
                other => other.map_err(accept_failed)?,
            };
            under_way += 1;
            let done = done.clone();
            // Nobody listens any more when all are here.
            scope
                .spawn(move || _ = done.send(self.admit(Channel::new(connection, session.options.timeouts))));
        }
    }

    /// Reads who it is, and lets in a page stream that has not come yet.
    fn admit(&self, mut channel: Channel) -> Result<Guest, DestinationError> {
        let session = self.session;
        let stop = || session.control.is_cancelled() || self.closed.load(Ordering::Acquire);
        match channel.receive_hello(&stop) {
            Ok(hello) if !session.is_of(&hello, &channel) => {
                tracing::warn!("dropped a connection that is not of this migration");
                Ok(Guest::Stranger)
            }
            Ok(Hello { role: Role::Pages(number), .. }) if self.claim(number) => {
                match channel.send(&Frame::Joined, &stop) {
                    Ok(_) => Ok(Guest::Stream(number, channel)),
                    Err(source) => Err(cancelled_or("joining a stream")(source)),
                }
            }
            Ok(Hello { role: Role::Control, .. }) => Ok(Guest::Source(channel)),
            Ok(_) => {
                tracing::warn!("dropped a page stream that has come already");
                Ok(Guest::Stranger)
            }
            Err(ChannelError::Transport(TransportError::Stopped)) => Err(DestinationError::Cancelled),
            Err(error) => {
                tracing::warn!(%error, "dropped a connection that is no page stream");
                Ok(Guest::Stranger)
            }
        }
    }

    /// Whether this is the first with its number, which is below the number of streams.
    fn claim(&self, number: u8) -> bool {
        let bit = 1 << number;
        self.claimed.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }
}

fn accept_failed(error: TransportError) -> DestinationError {
    match error {
        TransportError::Stopped => DestinationError::Cancelled,
        error => DestinationError::Accept(error),
    }
}
