//! A partition in plain memory, and a proxy that does harm where a test wants.
#![allow(dead_code, reason = "every test binary uses its part")]

pub mod proxy;

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use migrator::partition::{
    Description, DestinationMachine, MachineError, Moment, PAGE_SIZE, Region, Share, SourceMachine,
};
use migrator::report::{MigrateRequest, Request};
use migrator::transport::{Address, Listener, Security, Timeouts, Transport};
use migrator::{destination, source};
use partita_rdma::HostMemory;
use proxy::{Proxy, Tamper};

pub const REGIONS: [Region; 2] =
    [Region { address: 0, bytes: 4 << 20 }, Region { address: 0x10_0000_0000, bytes: 67 * PAGE_SIZE as u64 }];
const WORDS_OF_PAGE: usize = PAGE_SIZE / 8;

/// A small seeded generator.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// Less memory, for tests that make many moves.
pub const FEW_PAGES: [Region; 2] = [
    Region { address: 0, bytes: 70 * PAGE_SIZE as u64 },
    Region { address: 0x10_0000_0000, bytes: 5 * PAGE_SIZE as u64 },
];

/// What the memory of a new source holds: about two thirds of the pages something, some of it only at the very end.
pub fn content(regions: &[Region]) -> Vec<Vec<u64>> {
    let mut random = Random(42);
    let fill = |region: &Region| {
        let mut words = vec![0; region.bytes as usize / 8];
        for page in words.chunks_mut(WORDS_OF_PAGE) {
            if random.below(3) == 0 {
                continue;
            }
            let first = if random.below(4) == 0 { WORDS_OF_PAGE - 1 } else { 0 };
            page[first..].iter_mut().for_each(|word| *word = random.below(u64::MAX));
        }
        words
    };
    regions.iter().map(fill).collect()
}

/// A whole page that the program fills with one word.
#[derive(Debug, Clone, Copy)]
pub struct PageWrite {
    pub region: usize,
    pub page: usize,
    pub word: u64,
}

/// A source whose memory can be written while it migrates.
pub struct TestSource {
    regions: Vec<Region>,
    /// Written just before the first pause, when the last round is over: found in the blackout.
    pub late: Mutex<Vec<PageWrite>>,
    /// Written as soon as its page was cleared in the dirty log: found after the round.
    pub in_round: Mutex<Option<PageWrite>>,
    memory: Vec<Vec<AtomicU64>>,
    dirty: Vec<Vec<AtomicU64>>,
    tracking: AtomicBool,
    running: RwLock<bool>,
    in_verb: AtomicBool,
    pub state: Mutex<Vec<u8>>,
    pub facts: Mutex<Vec<u8>>,
    pub fail: Mutex<Option<&'static str>>,
    pub resumes: AtomicUsize,
    /// The part of the time that the program runs.
    pub share: Mutex<Share>,
    /// When the program goes to sleep, after somebody began to wait for that; `None`: never.
    pub sleeps_after: Mutex<Option<Duration>>,
}

impl TestSource {
    pub fn new() -> Self {
        Self::with(&REGIONS)
    }

    pub fn with(regions: &[Region]) -> Self {
        let atomic = |words: Vec<u64>| words.into_iter().map(AtomicU64::new).collect();
        let memory = content(regions).into_iter().map(atomic).collect();
        let bits = |region: &Region| (region.bytes / PAGE_SIZE as u64).div_ceil(64);
        let dirty =
            regions.iter().map(|region| (0..bits(region)).map(|_| AtomicU64::new(0)).collect()).collect();
        Self {
            regions: regions.to_vec(),
            late: Mutex::new(Vec::new()),
            in_round: Mutex::new(None),
            memory,
            dirty,
            tracking: AtomicBool::new(false),
            running: RwLock::new(true),
            in_verb: AtomicBool::new(false),
            facts: Mutex::new(vec![7; 100]),
            state: Mutex::new((0..300_001u32).map(|index| index as u8).collect()),
            fail: Mutex::new(None),
            resumes: AtomicUsize::new(0),
            share: Mutex::new(Share::FULL),
            sleeps_after: Mutex::new(None),
        }
    }

    /// What the vCPU does: writes, then the page counts as dirty.
    pub fn write(&self, region: usize, word: usize, value: u64) -> bool {
        let running = self.running.read().unwrap();
        if *running {
            self.memory[region][word].store(value, SeqCst);
            if self.tracking.load(SeqCst) {
                let page = word / WORDS_OF_PAGE;
                self.dirty[region][page / 64].fetch_or(1 << (page % 64), SeqCst);
            }
        }
        *running
    }

    fn write_page(&self, PageWrite { region, page, word }: PageWrite) {
        for at in page * WORDS_OF_PAGE..(page + 1) * WORDS_OF_PAGE {
            self.write(region, at, word);
        }
    }

    /// Writes (and zeroes) random pages until `stop`, about `pages_per_ms` of them.
    pub fn scribble(&self, stop: &AtomicBool, pages_per_ms: u64, seed: u64) {
        let mut random = Random(seed);
        while !stop.load(SeqCst) {
            let share = self.share.lock().unwrap().part();
            for _ in 0..(pages_per_ms as f64 * share) as u64 {
                let region = random.below(2) as usize;
                let page = random.below(self.regions[region].bytes / PAGE_SIZE as u64) as usize;
                let zero = random.below(3) == 0;
                for word in page * WORDS_OF_PAGE..(page + 1) * WORDS_OF_PAGE {
                    self.write(region, word, if zero { 0 } else { random.below(u64::MAX) });
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn bytes(&self, region: usize) -> Vec<u8> {
        self.memory[region].iter().flat_map(|word| word.load(SeqCst).to_le_bytes()).collect()
    }

    pub fn is_running(&self) -> bool {
        *self.running.read().unwrap()
    }

    pub fn is_tracking(&self) -> bool {
        self.tracking.load(SeqCst)
    }

    /// One verb at a time, and it fails when a test wants that.
    fn verb<T>(&self, name: &str, run: impl FnOnce() -> T) -> Result<T, MachineError> {
        assert!(!self.in_verb.swap(true, SeqCst), "{name} beside another verb");
        let result = run();
        self.in_verb.store(false, SeqCst);
        if *self.fail.lock().unwrap() == Some(name) {
            Err(format!("{name} fails").into())
        } else {
            Ok(result)
        }
    }
}

impl SourceMachine for TestSource {
    fn describe(&self, epoch: u64) -> Result<Description, MachineError> {
        let regions = self.regions.clone();
        Ok(Description {
            application: "test".into(),
            rank: 3,
            epoch,
            regions,
            machine: self.facts.lock().unwrap().clone(),
        })
    }

    fn start_tracking(&self) -> Result<(), MachineError> {
        self.verb("start_tracking", || {
            self.tracking.store(true, SeqCst);
            for (bits, region) in self.dirty.iter().zip(&self.regions) {
                let full = migrator::bitmap::full(region.bytes / PAGE_SIZE as u64);
                bits.iter().zip(full).for_each(|(word, all)| word.store(all, SeqCst));
            }
        })
    }

    fn stop_tracking(&self) -> Result<(), MachineError> {
        self.verb("stop_tracking", || self.tracking.store(false, SeqCst))
    }

    fn dirty(&self, index: usize, bitmap: &mut [u64]) -> Result<(), MachineError> {
        self.verb("dirty", || {
            assert_eq!(bitmap.len(), self.dirty[index].len());
            bitmap.iter_mut().zip(&self.dirty[index]).for_each(|(word, dirty)| *word |= dirty.load(SeqCst));
        })
    }

    fn clear_dirty(&self, index: usize, first_page: u64, bitmap: &[u64]) -> Result<(), MachineError> {
        self.verb("clear_dirty", || {
            assert!(first_page.is_multiple_of(64) && !bitmap.is_empty());
            let dirty = &self.dirty[index][first_page as usize / 64..][..bitmap.len()];
            bitmap.iter().zip(dirty).for_each(|(word, dirty)| _ = dirty.fetch_and(!word, SeqCst));
            let pages = first_page..first_page + 64 * bitmap.len() as u64;
            let here = |write: &mut PageWrite| write.region == index && pages.contains(&(write.page as u64));
            if let Some(write) = self.in_round.lock().unwrap().take_if(here) {
                self.write_page(write);
            }
        })
    }

    fn read_pages(&self, index: usize, first_page: u64, buffer: &mut [u8]) -> Result<(), MachineError> {
        assert!(buffer.len().is_multiple_of(PAGE_SIZE));
        let words = &self.memory[index][first_page as usize * WORDS_OF_PAGE..];
        buffer.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| {
            bytes.copy_from_slice(&word.load(SeqCst).to_le_bytes());
        });
        if *self.fail.lock().unwrap() == Some("panic") {
            panic!("the machine's code panics");
        }
        Ok(())
    }

    fn await_moment(&self, limit: Duration) -> Option<Moment> {
        assert!(self.is_running());
        let after = self.sleeps_after.lock().unwrap().filter(|after| *after <= limit);
        thread::sleep(after.unwrap_or(limit));
        after.map(|_| Moment::Asleep)
    }

    fn throttle(&self, share: Share) -> Result<(), MachineError> {
        self.verb("throttle", || *self.share.lock().unwrap() = share)
    }

    fn pause(&self) -> Result<(), MachineError> {
        self.verb("pause", || {
            let late = std::mem::take(&mut *self.late.lock().unwrap());
            late.into_iter().for_each(|write| self.write_page(write));
        })?;
        *self.running.write().unwrap() = false;
        Ok(())
    }

    fn resume(&self) -> Result<(), MachineError> {
        self.verb("resume", || ())?;
        assert!(!std::mem::replace(&mut *self.running.write().unwrap(), true), "resumed but was running");
        self.resumes.fetch_add(1, SeqCst);
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, MachineError> {
        assert!(!self.is_running());
        self.verb("save", || self.state.lock().unwrap().clone())
    }
}

/// A destination in plain memory.
pub struct TestDestination {
    pub memory: Vec<HostMemory>,
    /// Its memory may be written one-sided.
    pub opens: bool,
    pub zeroed: bool,
    pub zero_writes: AtomicUsize,
    /// Pages that came in frames, counted when they are in the memory.
    pub written: Arc<AtomicU64>,
    pub populated: AtomicU64,
    pub state: Option<Vec<u8>>,
    pub description: Option<Description>,
    pub ran: bool,
    pub fail: Option<&'static str>,
}

impl TestDestination {
    pub fn new(zeroed: bool) -> Self {
        Self {
            memory: Vec::new(),
            opens: true,
            zeroed,
            zero_writes: AtomicUsize::new(0),
            written: Arc::default(),
            populated: AtomicU64::new(0),
            state: None,
            description: None,
            ran: false,
            fail: None,
        }
    }

    fn verb(&self, name: &str) -> Result<(), MachineError> {
        if self.fail == Some(name) { Err(format!("{name} fails").into()) } else { Ok(()) }
    }

    /// Its memory is the source's, byte for byte.
    #[track_caller]
    pub fn assert_holds(&self, source: &TestSource) {
        for index in 0..self.memory.len() {
            assert!(self.bytes(index) == source.bytes(index), "region {index} differs");
        }
    }

    /// What is in a region.
    pub fn bytes(&self, index: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.memory[index].bytes()];
        self.memory[index].read(0, &mut bytes);
        bytes
    }
}

impl DestinationMachine for TestDestination {
    fn build(&mut self, description: &Description) -> Result<(), MachineError> {
        self.verb("build")?;
        let fill = if self.zeroed { 0 } else { 0xee };
        let build = |region: &Region| {
            let memory = HostMemory::zeroed(region.bytes as usize);
            memory.fill(0, memory.bytes(), fill);
            memory
        };
        self.memory = description.regions.iter().map(build).collect();
        self.description = Some(description.clone());
        Ok(())
    }

    fn is_zeroed(&self) -> bool {
        self.zeroed
    }

    fn memory(&self, index: usize) -> Option<HostMemory> {
        self.memory.get(index).filter(|_| self.opens).cloned()
    }

    fn populate(&self, index: usize, offset: u64, bytes: u64) -> Result<(), MachineError> {
        assert!(offset + bytes <= self.memory[index].bytes() as u64);
        self.populated.fetch_add(bytes, SeqCst);
        self.verb("populate")
    }

    fn write_pages(&self, index: usize, first_page: u64, data: &[u8]) -> Result<(), MachineError> {
        self.memory[index].write(first_page as usize * PAGE_SIZE, data);
        self.written.fetch_add((data.len() / PAGE_SIZE) as u64, SeqCst);
        self.verb("write_pages")
    }

    fn zero_pages(&self, index: usize, first_page: u64, pages: u64) -> Result<(), MachineError> {
        self.zero_writes.fetch_add(1, SeqCst);
        self.memory[index].fill(first_page as usize * PAGE_SIZE, pages as usize * PAGE_SIZE, 0);
        Ok(())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), MachineError> {
        self.verb("restore")?;
        assert!(self.state.replace(state.to_vec()).is_none(), "restored twice");
        Ok(())
    }

    fn run(&mut self) -> Result<(), MachineError> {
        self.verb("run")?;
        assert!(self.state.is_some() && !std::mem::replace(&mut self.ran, true));
        Ok(())
    }
}

/// Ends a destination when the test panics, which would otherwise wait for its thread for ever.
pub struct CancelOnDrop<'a>(pub &'a destination::Control);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Only against hanging: longer than anything takes on a machine that does anything at all.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Long enough for a loaded machine; tests that wait for silence shorten it.
pub fn timeouts() -> Timeouts {
    let silence = Duration::from_secs(30);
    let keep_alive = Duration::from_millis(300);
    Timeouts { silence, running: silence, frame: silence, keep_alive, ..Timeouts::default() }
}

/// For tests in which the source has to come back after a break.
pub fn resuming_timeouts() -> Timeouts {
    Timeouts { resume: PATIENCE, ..timeouts() }
}

/// For tests in which one side is silent on purpose, and the other one no part of what is tested.
pub fn short_timeouts() -> Timeouts {
    let silence = Duration::from_millis(3000);
    let hello = Duration::from_millis(3000);
    Timeouts { silence, running: silence, frame: silence, build: silence, hello, ..timeouts() }
}

pub fn listen() -> Listener {
    Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap(), &Security::default()).unwrap()
}

/// The address of this host's own network interface, if it has one.
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing; the system only chooses the address that it would be sent from.
    socket.connect("192.0.2.200:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
}

pub fn request(to: &Address, streams: u8) -> Request {
    let request = MigrateRequest { streams, ..MigrateRequest::new(to.clone()) }.check(4).unwrap();
    // What is forecast on a loaded machine is not what these tests are about.
    Request { timeouts: timeouts(), downtime_limit: PATIENCE, timeout: PATIENCE, ..request }
}

/// What runs beside a migration: the handles on it, and whether it is over.
pub struct Beside<'a> {
    pub source: &'a source::Control,
    pub destination: &'a destination::Control,
    over: &'a AtomicBool,
}

impl Beside<'_> {
    /// Waits until something is so; false if the migration came to its end before, which tells why.
    pub fn until(&self, is_so: impl Fn() -> bool) -> bool {
        loop {
            // Looked at first: what was so before the end counts.
            let over = self.over.load(SeqCst);
            if is_so() {
                return true;
            }
            if over {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for a phase of the source that does not pass by itself.
    pub fn until_phase(&self, phase: source::Phase) -> bool {
        self.until(|| self.source.progress().phase == phase)
    }
}

/// One migration from beginning to end, over a proxy that does harm as told.
pub struct Attempt {
    pub source: source::Outcome,
    pub destination: destination::Outcome,
    pub machine: TestDestination,
}

pub struct Setup {
    pub transport: Transport,
    pub streams: u8,
    pub tamper: Option<Tamper>,
    pub machine: TestDestination,
    pub control: source::Control,
    pub destination_control: destination::Control,
    pub change: fn(&mut Request),
    pub timeouts: Timeouts,
}

impl Setup {
    pub fn new(streams: u8) -> Self {
        Self::over(Transport::Tcp, streams)
    }

    pub fn over(transport: Transport, streams: u8) -> Self {
        Self {
            transport,
            streams,
            tamper: None,
            machine: TestDestination::new(true),
            control: source::Control::new(),
            destination_control: destination::Control::new(),
            change: |_| {},
            timeouts: timeouts(),
        }
    }

    pub fn run(self, machine: &TestSource) -> Attempt {
        self.run_with(machine, |_| ())
    }

    /// Runs, and holds the source at a phase while `act` does something on another thread.
    pub fn run_held(
        self,
        machine: &TestSource,
        at: source::Phase,
        act: impl FnOnce(&Beside<'_>) + Send,
    ) -> Attempt {
        // The hook cannot name the control that it lives in.
        let (held, may_go): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let (is_held, goes) = (held.clone(), may_go.clone());
        let control = source::Control::new().with_hook(Box::new(move |phase| {
            if phase == at {
                is_held.store(true, SeqCst);
                while !goes.load(SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }));
        Self { control, ..self }.run_with(machine, |beside| {
            if beside.until(|| held.load(SeqCst)) {
                act(beside);
            }
            may_go.store(true, SeqCst);
        })
    }

    /// Runs with `beside` on another thread.
    pub fn run_with(self, machine: &TestSource, beside: impl FnOnce(&Beside<'_>) + Send) -> Attempt {
        let Self {
            transport,
            streams,
            tamper,
            machine: mut built,
            control,
            destination_control,
            change,
            timeouts,
        } = self;
        let listener = listen();
        let proxy = tamper.map(|tamper| Proxy::start(listener.address(), tamper));
        let to = proxy.as_ref().map_or(listener.address(), Proxy::address).clone();
        let mut request = request(&to, streams);
        request.timeouts = timeouts;
        request.transport = transport;
        change(&mut request);
        let options = destination::Options { annotation: b"unix:/fabric".to_vec(), timeouts };
        let over = AtomicBool::new(false);
        let (source, destination) = thread::scope(|scope| {
            let receiving =
                scope.spawn(|| destination::receive(&listener, &mut built, &options, &destination_control));
            let _guard = CancelOnDrop(&destination_control);
            let handles = Beside { source: &control, destination: &destination_control, over: &over };
            scope.spawn(move || beside(&handles));
            let source = source::migrate(machine, &request, &control);
            over.store(true, SeqCst);
            let start = Instant::now();
            while !receiving.is_finished() && start.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
                if destination_control.progress().phase == destination::Phase::Listen {
                    destination_control.cancel();
                }
            }
            assert!(receiving.is_finished(), "the destination hangs after {source:?}");
            (source, receiving.join().unwrap())
        });
        Attempt { source, destination, machine: built }
    }
}

/// Asserts that everything arrived, byte for byte, and runs exactly once.
#[track_caller]
pub fn assert_moved(attempt: &Attempt, source: &TestSource) {
    let source::Outcome::Moved { report, annotation } = &attempt.source else {
        panic!("{:?}", attempt.source)
    };
    assert_eq!(annotation, b"unix:/fabric");
    assert!(matches!(&attempt.destination, destination::Outcome::Running { told: Ok(()), .. }));
    assert!(attempt.machine.ran && !source.is_running());
    attempt.machine.assert_holds(source);
    assert_eq!(attempt.machine.state.as_ref(), Some(&*source.state.lock().unwrap()));
    let pages: u64 = source.regions.iter().map(|region| region.bytes / PAGE_SIZE as u64).sum();
    assert_eq!(report.rounds[0].pages, pages, "round 0 sends everything");
    // Only what is written one-sided has to be there beforehand.
    let populated = if report.rdma.is_some() { pages * PAGE_SIZE as u64 } else { 0 };
    assert_eq!(attempt.machine.populated.load(SeqCst), populated);
}

/// Asserts that the source goes on, and that a second migration then succeeds although dirty bits were consumed.
#[track_caller]
pub fn assert_goes_on_and_migrates_again(source: &TestSource) {
    assert!(source.is_running() && !source.is_tracking());
    assert_moved(&Setup::new(2).run(source), source);
}
