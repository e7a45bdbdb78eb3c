//! The fabric: byte streams between partitions, carried by one thread per partition.
//!
//! The guest writes and reads rings; this thread carries what is in a sending ring over a connection to the far end's
//! receiving ring. A sender's ring is its retransmit buffer: a byte leaves it when the far end has it. So a freeze simply
//! drops every connection, and after a thaw or a move the two ends exchange offsets and go on.
//!
//! ```text
//!            thaw                      moved
//!  frozen ──────────▶ running   frozen ──────▶ gone (answers every greeting with the new place)
//!     ▲ ◀───────────────┘ freeze
//! ```

pub mod address;
mod descriptors;
mod incoming;
mod links;
mod outgoing;
mod ring;
mod round_trips;
mod sharing;
pub mod socket;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use vmm_sys_util::eventfd::EventFd;

use crate::kvm::Doorbells;
use crate::memory::{Memory, MemoryError};
use crate::vcpu::{Interrupter, Sleeper};
use address::{Address, Neighbours};
use links::Links;
pub use links::{Directory, Place};
pub use ring::{Direction, Ring};
pub use round_trips::RoundTrip;
use socket::{Bound, Credentials, Listener};

/// How often a peer is asked to take the news of a move before it is given up (about ten seconds).
const MOVED_TRIES: u32 = 100;
/// How long an ended partition waits for a peer that takes none of its last bytes.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// What a fabric needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Application; greetings of others are refused.
    pub application: String,
    /// Rank of this partition.
    pub rank: u32,
    /// Epoch of this owner.
    pub epoch: u64,
    /// The socket to which peers come.
    pub socket: Bound,
    /// If that is one of a network: the socket for partitions of this host, and where theirs are.
    pub beside: Option<(Bound, Neighbours)>,
    /// Where the others are.
    pub directory: Directory,
    /// Share rings with partitions on this machine.
    pub shares: bool,
    /// Who this side is, for `tls:` addresses.
    pub credentials: Option<Credentials>,
}

/// The guest whose rings are served.
pub struct Guest {
    /// Its memory.
    pub memory: Arc<Memory>,
    /// Wakes it.
    pub sleeper: Arc<Sleeper>,
    /// Does things while it does not run.
    pub interrupter: Interrupter,
    /// What it rings.
    pub doorbell: EventFd,
    /// Where more can be had.
    pub doorbells: Doorbells,
}

/// The fabric could not be started or has ended.
#[derive(Debug, Error)]
pub enum FabricError {
    /// The socket could not be made.
    #[error("cannot listen for peers")]
    Listen(#[source] io::Error),
    /// The thread could not be made.
    #[error("cannot start the fabric thread")]
    Thread(#[source] io::Error),
    /// Guest memory could not be reached.
    #[error("cannot reach guest memory")]
    Memory(#[from] MemoryError),
    /// It is gone.
    #[error("the fabric thread has ended")]
    Ended,
}

enum Command {
    Freeze(mpsc::Sender<Result<(), MemoryError>>),
    Thaw { epoch: u64, announce: bool, done: mpsc::Sender<Result<(), MemoryError>> },
    Moved { place: Place, done: mpsc::Sender<Vec<u32>> },
    Learn(u32, Place),
    Replace(Directory),
    Directory(mpsc::Sender<Directory>),
    Routes(mpsc::Sender<Vec<Route>>),
    Drain(mpsc::Sender<bool>),
}

/// How a partition is joined with a peer now.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The peer.
    pub rank: u32,
    /// What we send to it goes through memory that both map.
    pub shared: bool,
    /// Latency of what goes over a connection, once something has.
    pub round_trip: Option<RoundTrip>,
}

/// The handle of a fabric thread. Dropping it ends the thread.
pub struct Fabric {
    commands: Option<UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
    address: Address,
}

impl Fabric {
    /// Starts the thread, frozen.
    pub fn start(guest: Guest, config: Config) -> Result<Self, FabricError> {
        let (commands, receiver) = unbounded_channel();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("fabric".into())
            .stack_size(512 << 10)
            .spawn(move || {
                let runtime =
                    match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
                        Ok(runtime) => runtime,
                        Err(error) => return drop(ready.send(Err(FabricError::Thread(error)))),
                    };
                let local = LocalSet::new();
                local.block_on(&runtime, serve(guest, config, receiver, ready));
            })
            .map_err(FabricError::Thread)?;
        let address = started.recv().map_err(|_| FabricError::Ended)??;
        Ok(Self { commands: Some(commands), thread: Some(thread), address })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Hands a command over; the answer comes later.
    fn begin<T>(
        &self,
        command: impl FnOnce(mpsc::Sender<T>) -> Command,
    ) -> Result<mpsc::Receiver<T>, FabricError> {
        let (reply, answer) = mpsc::channel();
        let commands = self.commands.as_ref().ok_or(FabricError::Ended)?;
        commands.send(command(reply)).map_err(|_| FabricError::Ended)?;
        Ok(answer)
    }

    fn ask<T>(&self, command: impl FnOnce(mpsc::Sender<T>) -> Command) -> Result<T, FabricError> {
        self.begin(command)?.recv().map_err(|_| FabricError::Ended)
    }

    /// Stops touching guest memory; when it returns, nothing here does, and no peer either. The guest must be paused.
    pub fn freeze(&self) -> Result<(), FabricError> {
        self.ask(Command::Freeze)?.map_err(FabricError::Memory)
    }

    /// Goes on from the offsets in guest memory, as the owner of `epoch`. With `announce`, tells everybody where it is.
    pub fn thaw(&self, epoch: u64, announce: bool) -> Result<(), FabricError> {
        self.ask(|done| Command::Thaw { epoch, announce, done })?.map_err(FabricError::Memory)
    }

    /// Sends everybody to `place`. The ranks that could not be told come through what it gives, which may take long and does
    /// not need the fabric.
    pub fn moved(&self, place: Place) -> Result<mpsc::Receiver<Vec<u32>>, FabricError> {
        self.begin(|done| Command::Moved { place, done })
    }

    /// Learns where a peer is.
    pub fn learn(&self, rank: u32, place: Place) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(Command::Learn(rank, place));
        }
    }

    /// Replaces the directory (a restored partition brings its own).
    pub fn replace_directory(&self, directory: Directory) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(Command::Replace(directory));
        }
    }

    /// Where everybody is, as far as known.
    pub fn directory(&self) -> Result<Directory, FabricError> {
        self.ask(Command::Directory)
    }

    /// How the partition is joined with every peer.
    pub fn routes(&self) -> Result<Vec<Route>, FabricError> {
        self.ask(Command::Routes)
    }

    /// Waits until everything sent has arrived, as long as there is hope. False if something is left.
    pub fn drain(&self) -> Result<bool, FabricError> {
        self.ask(Command::Drain)
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Tasks = Rc<RefCell<Vec<tokio::task::JoinHandle<()>>>>;

async fn serve(
    guest: Guest,
    config: Config,
    mut commands: UnboundedReceiver<Command>,
    ready: mpsc::Sender<Result<Address, FabricError>>,
) {
    let setup = async {
        let address = config.socket.address().map_err(FabricError::Listen)?;
        let beside = config.beside.iter().map(|(socket, _)| socket);
        let listeners: Result<Vec<_>, _> = beside.chain([&config.socket]).map(Listener::open).collect();
        let links = Rc::new(Links::new(guest, &config, address.clone())?);
        Ok((listeners.map_err(FabricError::Listen)?, address, links))
    };
    let (listeners, links) = match setup.await {
        Ok((listeners, address, links)) => {
            let _ = ready.send(Ok(address));
            (listeners, links)
        }
        Err(error) => return drop(ready.send(Err(error))),
    };
    let tasks: Tasks = Rc::default();
    let accept = |listener| spawn_local(accept(links.clone(), listener, tasks.clone()));
    let accepting: Vec<_> = listeners.into_iter().map(accept).collect();
    let mut watch = None;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Freeze(done) => {
                links.frozen.set(true);
                stop(&tasks, &mut watch).await;
                let _ = done.send(links.take_back_all());
            }
            Command::Thaw { epoch, announce, done } => {
                let _ = done.send(thaw(&links, &tasks, epoch, announce));
                watch.get_or_insert_with(|| spawn_local(watch_doorbell(links.clone())));
            }
            Command::Moved { place, done } => {
                *links.moved.borrow_mut() = Some(place.clone());
                links.verdict.notify_waiters();
                spawn_local(tell_everybody(links.clone(), place, done));
            }
            Command::Learn(rank, place) => links.learn(rank, place),
            Command::Replace(directory) => *links.directory.borrow_mut() = directory,
            Command::Directory(reply) => drop(reply.send(links.directory.borrow().clone())),
            Command::Routes(reply) => drop(reply.send(links.routes())),
            Command::Drain(done) => {
                links.draining.set(true);
                spawn_local(drain(links.clone(), done));
            }
        }
    }
    stop(&tasks, &mut watch).await;
    for accept in accepting {
        accept.abort();
        let _ = accept.await;
    }
}

async fn stop(tasks: &Tasks, watch: &mut Option<tokio::task::JoinHandle<()>>) {
    let all: Vec<_> = tasks.borrow_mut().drain(..).chain(watch.take()).collect();
    for task in &all {
        task.abort();
    }
    for task in all {
        let _ = task.await;
    }
}

fn thaw(links: &Rc<Links>, tasks: &Tasks, epoch: u64, announce: bool) -> Result<(), MemoryError> {
    links.load()?;
    links.epoch.set(epoch);
    links.frozen.set(false);
    links.verdict.notify_waiters();
    for rank in links.others() {
        links.peer(rank).announce.set(announce);
        tasks.borrow_mut().push(spawn_local(outgoing::run(links.clone(), rank)));
    }
    let waking = links.clone();
    tasks.borrow_mut().push(spawn_local(async move { waking.wake_after_arrivals().await }));
    links.set_asleep(true)?;
    // A partition that arrives asleep has to look again: what it waited for may have come meanwhile.
    links.name_everybody()
}

async fn accept(links: Rc<Links>, listener: Listener, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                let task = spawn_local(incoming::run(links.clone(), accepted));
                let mut tasks = tasks.borrow_mut();
                tasks.retain(|task| !task.is_finished());
                tasks.push(task);
            }
            // Out of descriptors, most likely: give others time to close some.
            Err(error) => {
                links.say_shortage(&error);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Looks at the rings whenever the guest rings, and for a moment afterwards, so that a busy guest need not ring again.
async fn watch_doorbell(links: Rc<Links>) {
    let seen: Vec<Cell<u64>> = links.peers.iter().map(|p| Cell::new(p.acknowledged.get())).collect();
    let watch = async {
        // A descriptor of its own, so that this task can be aborted and made again.
        let bell = links.guest.doorbell.try_clone()?;
        // SAFETY: an `EventFd` owns its descriptor and keeps it until it is dropped, which `AsyncFd` does.
        let bell = unsafe { AsyncFd::register(bell)? };
        loop {
            links.set_asleep(true).map_err(io::Error::other)?;
            if !links.scan(&seen).map_err(io::Error::other)? {
                let mut guard = bell.readable().await?;
                guard.clear_ready();
                let mut count = 0u64;
                // SAFETY: reads eight bytes into `count`; an empty event answers EAGAIN.
                unsafe { libc::read(bell.get_ref().as_raw_fd(), (&raw mut count).cast(), 8) };
                links.set_asleep(false).map_err(io::Error::other)?;
            }
            while links.scan(&seen).map_err(io::Error::other)? {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
        }
    };
    let result: io::Result<()> = watch.await;
    if let Err(error) = result {
        tracing::error!(%error, "the fabric does not hear its doorbell any more");
    }
}

async fn tell_everybody(links: Rc<Links>, place: Place, done: mpsc::Sender<Vec<u32>>) {
    let tellers: Vec<_> = links
        .others()
        .map(|rank| {
            (rank, spawn_local(outgoing::tell_moved(links.clone(), rank, place.clone(), MOVED_TRIES)))
        })
        .collect();
    let mut untold = Vec::new();
    for (rank, teller) in tellers {
        if !teller.await.unwrap_or(false) {
            untold.push(rank);
        }
    }
    let _ = done.send(untold);
}

/// Gives up when those who could take bytes have taken none for a while: they have no room and their programs do not read.
async fn drain(links: Rc<Links>, done: mpsc::Sender<bool>) {
    let mut arrived = links.acknowledged_bytes();
    let mut since = tokio::time::Instant::now();
    while !links.drained() {
        let now = links.acknowledged_bytes();
        if now != arrived || links.is_waited_for() {
            arrived = now;
            since = tokio::time::Instant::now();
        }
        if since.elapsed() > DRAIN_PATIENCE {
            let _ = done.send(false);
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _ = done.send(true);
}
