//! A TCP proxy between source and destination that does harm at a chosen step of the protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use migrator::transport::{Address, Transport};
use migrator::wire::{Frame, HEADER_BYTES, HELLO_BYTES, Kind};
use partita_rdma::Window;

/// How long a frame is held back for others to overtake it, and how long a delivered one may work before a cut.
const HELD: Duration = Duration::from_millis(150);

/// The first time that these bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    HelloControl,
    /// Over RDMA only.
    Rdma,
    Describe,
    Accept,
    /// Over RDMA only.
    Window,
    HelloStream,
    Joined,
    Data,
    Zero,
    RoundEnd,
    RoundAck,
    LastData,
    LastRoundEnd,
    Final,
    State,
    Ready,
    Commit,
    Running,
}

impl Step {
    pub const ALL: [Step; 18] = [
        Step::HelloControl,
        Step::Rdma,
        Step::Describe,
        Step::Accept,
        Step::Window,
        Step::HelloStream,
        Step::Joined,
        Step::Data,
        Step::Zero,
        Step::RoundEnd,
        Step::RoundAck,
        Step::LastData,
        Step::LastRoundEnd,
        Step::Final,
        Step::State,
        Step::Ready,
        Step::Commit,
        Step::Running,
    ];

    /// The steps of a transport.
    pub fn of(transport: Transport) -> impl Iterator<Item = Step> {
        let rdma = transport == Transport::Rdma;
        Self::ALL.into_iter().filter(move |step| rdma || !matches!(step, Step::Rdma | Step::Window))
    }

    fn kind(self) -> Option<Kind> {
        Some(match self {
            Step::HelloControl | Step::HelloStream => return None,
            Step::Rdma => Kind::Rdma,
            Step::Window => Kind::Window,
            Step::Describe => Kind::Describe,
            Step::Accept => Kind::Accept,
            Step::Joined => Kind::Joined,
            Step::Data | Step::LastData => Kind::Data,
            Step::Zero => Kind::Zero,
            Step::RoundEnd | Step::LastRoundEnd => Kind::RoundEnd,
            Step::RoundAck => Kind::RoundAck,
            Step::Final => Kind::Final,
            Step::State => Kind::State,
            Step::Ready => Kind::Ready,
            Step::Commit => Kind::Commit,
            Step::Running => Kind::Running,
        })
    }
}

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Every connection is cut; with `deliver`, just behind the bytes of the step.
    Cut { deliver: bool },
    /// The process given to [`Proxy::set_victim`] is killed; with `deliver`, just behind the bytes of the step.
    Kill { deliver: bool },
    /// From here on nothing passes, but everything stays connected.
    Stall,
    /// A bit of the byte at this offset of the frame is flipped (counted from the end when negative).
    Corrupt(isize),
    /// The bytes come twice.
    Duplicate,
    /// What other connections carry overtakes the bytes.
    Overtaken,
}

/// What the proxy does.
pub enum Tamper {
    At(Step, Harm),
    /// Cuts after so many bytes towards the destination, over all connections.
    Bytes(usize),
    /// The same, but not before this has counted so far: what passed may take a while to get there.
    BytesThen(usize, Arc<AtomicU64>, u64),
    /// Cuts after so many bytes towards the destination, and again when so many frames have passed since, either way.
    BytesThenFrames(usize, usize),
    /// Changes every WINDOW, as a hostile destination would.
    Window(Box<dyn Fn(&mut Window) + Send + Sync>),
    /// None: counts the frames of a kind from the source on.
    Count(Kind, Arc<AtomicUsize>),
}

struct Shared {
    tamper: Tamper,
    done: AtomicBool,
    acks: AtomicUsize,
    passed: AtomicUsize,
    /// Frames that passed since the first cut.
    since: AtomicUsize,
    cutting: AtomicBool,
    bytes: AtomicUsize,
    hung: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
    victim: Mutex<Option<Child>>,
}

pub struct Proxy {
    address: Address,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn start(to: &Address, tamper: Tamper) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        let to = to.to_string().trim_start_matches("tcp:").to_owned();
        let shared = Arc::new(Shared {
            tamper,
            done: AtomicBool::new(false),
            acks: AtomicUsize::new(0),
            passed: AtomicUsize::new(0),
            since: AtomicUsize::new(0),
            cutting: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            hung: AtomicBool::new(false),
            sockets: Mutex::new(Vec::new()),
            victim: Mutex::new(None),
        });
        let inner = shared.clone();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&to) else { return };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let mut sockets = inner.sockets.lock().unwrap();
                sockets.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                drop(sockets);
                let (back_from, back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                let (forth, back) = (inner.clone(), inner.clone());
                thread::spawn(move || forth.pump(near, far, true));
                thread::spawn(move || back.pump(back_from, back_to, false));
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whom [`Harm::Kill`] kills.
    pub fn set_victim(&self, victim: Child) {
        *self.shared.victim.lock().unwrap() = Some(victim);
    }

    /// Waits until the step came and the harm was done.
    pub fn await_it(&self) {
        let start = Instant::now();
        while !self.has_done_it() || self.shared.victim.lock().unwrap().is_some() {
            assert!(start.elapsed() < super::PATIENCE, "the step did not come");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the step came.
    pub fn has_done_it(&self) -> bool {
        self.shared.done.load(SeqCst)
    }
}

/// What stands between the two ends of a fabric that is TCP below, behind a proxy that changes WINDOW.
pub struct Fabric {
    /// Bytes towards the destination until the harm is done, and whether that was done.
    left: Mutex<Option<usize>>,
    stalls: bool,
    again: bool,
    /// How long the first bytes of a connection take.
    delay: Duration,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Fabric {
    /// Cuts (or stalls) the fabric after `bytes`, or when [`Fabric::arm`] says so; once, or `again` and again.
    pub fn new(bytes: usize, stalls: bool, again: bool) -> Arc<Self> {
        let (left, sockets) = (Mutex::new(Some(bytes)), Mutex::new(Vec::new()));
        Arc::new(Self { left, stalls, again, delay: Duration::ZERO, sockets })
    }

    /// Lets nothing through in the first `delay` of a connection, and then everything.
    pub fn slow(delay: Duration) -> Arc<Self> {
        let (left, sockets) = (Mutex::new(None), Mutex::new(Vec::new()));
        Arc::new(Self { left, stalls: false, again: false, delay, sockets })
    }

    /// What is to be done to each WINDOW: the port in its `sockaddr_in` becomes that of a proxy.
    pub fn tamper(self: &Arc<Self>) -> Tamper {
        let this = self.clone();
        Tamper::Window(Box::new(move |window| {
            let port: &mut [u8; 2] = (&mut window.address[2..4]).try_into().unwrap();
            *port = this.clone().listen(u16::from_be_bytes(*port)).to_be_bytes();
        }))
    }

    pub fn arm(&self) {
        *self.left.lock().unwrap() = Some(0);
    }

    fn listen(self: Arc<Self>, to: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { return };
                let (back_from, back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                let both = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                self.sockets.lock().unwrap().extend(both);
                let this = self.clone();
                thread::spawn(move || this.pump(near, far));
                thread::spawn(move || std::io::copy(&mut &back_from, &mut &back_to));
            }
        });
        port
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        thread::sleep(self.delay);
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let mut left = self.left.lock().unwrap();
            match &mut *left {
                Some(left) if *left >= count => *left -= count,
                None => {}
                Some(_) => {
                    *left = self.again.then_some(0);
                    for socket in self.sockets.lock().unwrap().drain(..).filter(|_| !self.stalls) {
                        let _ = socket.shutdown(Shutdown::Both);
                    }
                    drop(left);
                    while self.stalls && from.read(&mut bytes).is_ok_and(|count| count > 0) {}
                    return;
                }
            }
            drop(left);
            if to.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.kill();
        self.shared.cut_all();
    }
}

impl Shared {
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, forth: bool) {
        let mut hello = vec![0; if forth { HELLO_BYTES } else { 0 }];
        let mut ok =
            from.read_exact(&mut hello).is_ok() && (!forth || self.pass(&mut to, hello, forth, true));
        while ok {
            let mut frame = vec![0; HEADER_BYTES];
            if from.read_exact(&mut frame).is_err() {
                break;
            }
            let length = u32::from_le_bytes(frame[4..8].try_into().unwrap()) as usize;
            frame.resize(HEADER_BYTES + length, 0);
            if from.read_exact(&mut frame[HEADER_BYTES..]).is_err() {
                break;
            }
            ok = self.pass(&mut to, frame, forth, false);
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn is_at(&self, step: Step, bytes: &[u8], hello: bool) -> bool {
        let of_kind = match step.kind() {
            // Over RDMA, what tells of pages.
            Some(Kind::Data) => !hello && (bytes[0] == Kind::Data as u8 || bytes[0] == Kind::Written as u8),
            Some(kind) => !hello && bytes[0] == kind as u8,
            None => hello && (bytes[10] == 0) == (step == Step::HelloControl),
        };
        // The blackout's pages are those behind the acknowledgements of round 0 on both streams.
        of_kind
            && match step {
                Step::LastData => self.acks.load(SeqCst) >= 2,
                Step::LastRoundEnd => bytes[HEADER_BYTES + 4] == 1,
                _ => true,
            }
    }

    fn pass(&self, to: &mut TcpStream, mut bytes: Vec<u8>, forth: bool, hello: bool) -> bool {
        if !hello && bytes[0] == Kind::RoundAck as u8 {
            self.acks.fetch_add(1, SeqCst);
        }
        if let (Tamper::Window(change), false, false) = (&self.tamper, forth, hello)
            && bytes[0] == Kind::Window as u8
            && let Ok(Frame::Window { registered_us, mut window }) =
                Frame::decode(Kind::Window, &bytes[HEADER_BYTES..])
        {
            change(&mut window);
            bytes = Frame::Window { registered_us, window }.encode().unwrap();
        }
        if let Tamper::Count(kind, count) = &self.tamper
            && forth
            && !hello
            && bytes[0] == *kind as u8
        {
            count.fetch_add(1, SeqCst);
        }
        let Tamper::At(step, harm) = self.tamper else { return self.forward(to, &bytes, forth) };
        if !self.is_at(step, &bytes, hello) || self.done.swap(true, SeqCst) {
            return self.forward(to, &bytes, forth);
        }
        match harm {
            Harm::Cut { deliver } | Harm::Kill { deliver } => {
                // Nothing else passes, whatever the delivered bytes bring about.
                self.hung.store(true, SeqCst);
                if deliver {
                    let _ = to.write_all(&bytes);
                    thread::sleep(HELD / 3);
                }
                if matches!(harm, Harm::Kill { .. }) {
                    self.kill_when_known();
                    return self.cut_all();
                }
                let sockets = self.sockets.lock().unwrap();
                cut(&sockets);
                // A new connection, which has to wait for the lock, finds everything as before.
                self.hung.store(false, SeqCst);
                return false;
            }
            Harm::Stall => self.hung.store(true, SeqCst),
            Harm::Corrupt(offset) => {
                let at = if offset < 0 { bytes.len() as isize + offset } else { offset };
                bytes[at as usize] ^= 1;
            }
            Harm::Duplicate => bytes.extend_from_within(..),
            Harm::Overtaken => {
                let (before, start) = (self.passed.load(SeqCst), Instant::now());
                while self.passed.load(SeqCst) < before + 3 && start.elapsed() < HELD {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        self.forward(to, &bytes, forth)
    }

    fn forward(&self, to: &mut TcpStream, bytes: &[u8], forth: bool) -> bool {
        if self.hung.load(SeqCst) {
            return true;
        }
        if let (Tamper::BytesThenFrames(_, frames), true) = (&self.tamper, self.done.load(SeqCst)) {
            // Nothing passes between the frame and the cut.
            let sockets = self.sockets.lock().unwrap();
            let written = to.write_all(bytes).is_ok();
            let last = self.since.fetch_add(1, SeqCst) + 1 == *frames;
            if last {
                cut(&sockets);
            }
            return written && !last;
        }
        let mut pass = bytes.len();
        if let (
            Tamper::Bytes(limit) | Tamper::BytesThen(limit, ..) | Tamper::BytesThenFrames(limit, _),
            true,
            false,
        ) = (&self.tamper, forth, self.done.load(SeqCst))
        {
            let before = self.bytes.fetch_add(bytes.len(), SeqCst);
            pass = pass.min(limit.saturating_sub(before));
        }
        let written = to.write_all(&bytes[..pass]).is_ok();
        self.passed.fetch_add(1, SeqCst);
        if pass == bytes.len() {
            return written;
        }
        // Another connection that is at the limit as well must not cut those that come after the break.
        if self.cutting.swap(true, SeqCst) {
            return false;
        }
        if let Tamper::BytesThen(_, count, enough) = &self.tamper {
            let start = Instant::now();
            while count.load(SeqCst) < *enough && start.elapsed() < super::PATIENCE {
                thread::sleep(Duration::from_millis(1));
            }
        }
        // A new connection, which has to wait for the lock, comes after the cut.
        let sockets = self.sockets.lock().unwrap();
        self.done.store(true, SeqCst);
        cut(&sockets);
        false
    }

    /// Kills the process, which may just have been started and not be known yet.
    fn kill_when_known(&self) {
        while self.victim.lock().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        self.kill();
    }

    fn kill(&self) {
        if let Some(mut victim) = self.victim.lock().unwrap().take() {
            let _ = victim.kill();
            let _ = victim.wait();
        }
    }

    fn cut_all(&self) -> bool {
        cut(&self.sockets.lock().unwrap());
        false
    }
}

fn cut(sockets: &[TcpStream]) {
    for socket in sockets {
        let _ = socket.shutdown(Shutdown::Both);
    }
}
