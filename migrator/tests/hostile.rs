//! Peers that send anything but the protocol: an error, in bounded time, and never a run.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use migrator::destination::{self, Outcome};
use migrator::partition::{PAGE_SIZE, SourceMachine};
use migrator::source;
use migrator::transport::{Listener, Timeouts};
use migrator::wire::{Extent, Frame, HEADER_BYTES, Header, Hello, Kind, Role, Totals, VERSION_MINOR};
use support::{
    CancelOnDrop, PATIENCE, Random, TestDestination, TestSource, assert_goes_on_and_migrates_again, listen,
    request, short_timeouts, timeouts,
};

fn dial(listener: &Listener) -> TcpStream {
    TcpStream::connect(listener.address().to_string().trim_start_matches("tcp:")).unwrap()
}

fn options() -> destination::Options {
    destination::Options { annotation: b"unix:/fabric".to_vec(), timeouts: short_timeouts() }
}

fn pages(kind: Kind, extent: Extent, data: &[u8]) -> Vec<u8> {
    let extent = extent.encode();
    [&Header::seal(kind, &extent, data).unwrap()[..], &extent, data].concat()
}

fn one_page(first_page: u64) -> Extent {
    Extent { region: 0, pages: 1, first_page }
}

#[test]
fn strangers_do_not_keep_a_source_out() {
    let listener = listen();
    let control = destination::Control::new();
    let mut machine = TestDestination::new(true);
    let source = TestSource::new();
    let hello = short_timeouts().hello;
    let options = destination::Options { timeouts: Timeouts { hello, ..timeouts() }, ..options() };
    thread::scope(|scope| {
        let receiving = scope.spawn(|| destination::receive(&listener, &mut machine, &options, &control));
        let _guard = CancelOnDrop(&control);
        let mut random = Random(5);
        for _ in 0..100 {
            let mut stranger = dial(&listener);
            let mut bytes: Vec<u8> = (0..random.below(200)).map(|_| random.below(256) as u8).collect();
            if random.below(2) == 0 && bytes.len() > 32 {
                let hello = Hello { minor: VERSION_MINOR, role: Role::Control, streams: 1, session: [1; 16] };
                bytes[..32].copy_from_slice(&hello.encode());
            }
            let _ = stranger.write_all(&bytes);
            let _ = stranger.shutdown(Shutdown::Write);
        }
        let _silent = dial(&listener);
        let request = request(listener.address(), 2);
        let outcome = source::migrate(&source, &request, &source::Control::new());
        assert!(matches!(outcome, source::Outcome::Moved { .. }), "{outcome:?}");
        assert!(matches!(receiving.join().unwrap(), Outcome::Running { .. }));
    });
}

/// Page streams were greeted one after the other, so each silent connection held up the move for as long as a hello may take.
#[test]
fn silent_connections_do_not_hold_up_the_page_streams() {
    let listener = Arc::new(listen());
    let (silent, queue) = (Arc::new(Mutex::new(Vec::new())), listener.clone());
    let kept = silent.clone();
    let control = destination::Control::new().with_hook(Box::new(move |phase| {
        if phase == destination::Phase::Build {
            // Before ACCEPT, so they are taken before the page streams.
            kept.lock().unwrap().extend((0..8).map(|_| dial(&queue)));
        }
    }));
    let hello = PATIENCE;
    let timeouts = Timeouts { hello, silence: 2 * hello, ..timeouts() };
    let options = destination::Options { timeouts, ..options() };
    let (mut machine, source) = (TestDestination::new(true), TestSource::new());
    let start = Instant::now();
    thread::scope(|scope| {
        let receiving = scope.spawn(|| destination::receive(&listener, &mut machine, &options, &control));
        let _guard = CancelOnDrop(&control);
        let outcome = source::migrate(&source, &request(listener.address(), 3), &source::Control::new());
        assert!(matches!(outcome, source::Outcome::Moved { .. }), "{outcome:?}");
        assert!(matches!(receiving.join().unwrap(), Outcome::Running { .. }));
    });
    assert_eq!(silent.lock().unwrap().len(), 8);
    assert!(start.elapsed() < hello, "{:?}", start.elapsed());
    machine.assert_holds(&source);
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let listener = listen();
    let control = destination::Control::new();
    let mut machine = TestDestination::new(true);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| destination::receive(&listener, &mut machine, &options(), &control));
        let _guard = CancelOnDrop(&control);
        let mut stream = dial(&listener);
        let mut hello =
            Hello { minor: VERSION_MINOR, role: Role::Control, streams: 1, session: [1; 16] }.encode();
        hello[8] = 99;
        stream.write_all(&hello).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let Frame::Refuse { reason } = Frame::decode(Kind::Refuse, &answer[HEADER_BYTES..]).unwrap() else {
            panic!()
        };
        assert!(reason.contains("99") && reason.contains("same release"), "{reason}");
        control.cancel();
        assert!(matches!(receiving.join().unwrap(), Outcome::Failed { .. }));
    });
}

/// A source that begins properly and then sends `control` and `stream`; gives how the destination ended.
fn after_a_good_beginning(control: &[u8], stream: &[u8]) -> Outcome {
    let listener = listen();
    let mut machine = TestDestination::new(true);
    let handle = destination::Control::new();
    let description = TestSource::new().describe(5).unwrap();
    let start = Instant::now();
    let outcome = thread::scope(|scope| {
        let _guard = CancelOnDrop(&handle);
        let receiving = scope.spawn(|| destination::receive(&listener, &mut machine, &options(), &handle));
        let mut near = dial(&listener);
        let session = [9; 16];
        near.write_all(&Hello { minor: VERSION_MINOR, role: Role::Control, streams: 1, session }.encode())
            .unwrap();
        near.write_all(&Frame::Describe(description).encode().unwrap()).unwrap();
        let mut accept = vec![0; HEADER_BYTES + options().annotation.len()];
        near.read_exact(&mut accept).unwrap();
        let mut pages = dial(&listener);
        pages
            .write_all(&Hello { minor: VERSION_MINOR, role: Role::Pages(0), streams: 1, session }.encode())
            .unwrap();
        pages.read_exact(&mut [0; HEADER_BYTES]).unwrap();
        // The destination may close on the first bad byte, so that writing the rest fails.
        let _ = pages.write_all(stream);
        let _ = near.write_all(control);
        let outcome = receiving.join().unwrap();
        let mut rest = Vec::new();
        let _ = near.read_to_end(&mut rest);
        outcome
    });
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert!(!machine.ran);
    outcome
}

#[test]
fn bad_frames_after_a_good_beginning_fail_and_never_run() {
    let page = vec![1; PAGE_SIZE];
    let commit = Frame::Commit { epoch: 5 }.encode().unwrap();
    let totals = |pages| Totals { state_bytes: 0, state_checksum: 0, stream_pages: vec![pages] };
    let last = |pages| Frame::Final(totals(pages)).encode().unwrap();
    let end = |round, last, pages| Frame::RoundEnd { round, last, pages }.encode().unwrap();
    let mut oversized = pages(Kind::Data, one_page(0), &page);
    oversized[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let huge_state = Totals { state_bytes: u64::MAX, ..totals(0) };
    let two_streams = Totals { stream_pages: vec![0, 0], ..totals(0) };
    let whole_end = |round, last| end(round, last, 1 << 10);
    let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("commit in the rounds", commit.clone(), vec![]),
        ("pages on the control connection", pages(Kind::Data, one_page(0), &page), vec![]),
        ("state before final", Frame::State(vec![1]).encode().unwrap(), vec![]),
        ("final on a page stream", vec![], last(0)),
        ("commit on a page stream", vec![], commit),
        ("pages behind the end", vec![], pages(Kind::Data, one_page(1024), &page)),
        ("pages of no region", vec![], pages(Kind::Zero, Extent { region: 9, ..one_page(0) }, &[])),
        ("pages that wrap around", vec![], pages(Kind::Zero, Extent { pages: 2, ..one_page(u64::MAX) }, &[])),
        ("no page at all", vec![], pages(Kind::Zero, Extent { pages: 0, ..one_page(0) }, &[])),
        ("data of another length", vec![], pages(Kind::Data, Extent { pages: 2, ..one_page(0) }, &page)),
        ("an oversized length", vec![], oversized),
        ("a round that never began", vec![], end(1, false, 0)),
        ("a wrong count", vec![], whole_end(0, false)),
        ("an end without all pages", last(0), end(0, true, 0)),
        ("a state too large", Frame::Final(huge_state).encode().unwrap(), end(0, true, 0)),
        ("another number of streams", Frame::Final(two_streams).encode().unwrap(), end(0, true, 0)),
        ("a codec that does not exist", vec![], pages(Kind::Packed, one_page(0), &[9; 20])),
        ("no codec at all", vec![], pages(Kind::Packed, one_page(0), &[])),
        (
            "packed bytes that are none",
            vec![],
            pages(Kind::Packed, one_page(0), &[1, 0, 0, 0, 0, 0, 0, 0, 255, 1]),
        ),
        ("a truncated frame", vec![], pages(Kind::Data, one_page(0), &page)[..100].to_vec()),
        ("a stream that never ends", last(0), vec![]),
    ];
    fail_and_never_run(&cases);
}

/// Several at a time: most of them wait for the destination to lose its patience.
fn fail_and_never_run(cases: &[(impl std::fmt::Debug + Sync, Vec<u8>, Vec<u8>)]) {
    for some in cases.chunks(8) {
        thread::scope(|scope| {
            for (name, control, stream) in some {
                scope.spawn(move || {
                    let outcome = after_a_good_beginning(control, stream);
                    assert!(matches!(outcome, Outcome::Failed { .. }), "{name:?}: {outcome:?}");
                });
            }
        });
    }
}

#[test]
fn random_bytes_after_a_good_beginning_fail_and_never_run() {
    let mut random = Random(11);
    let mut case = |turn: usize| {
        let noise = |random: &mut Random| -> Vec<u8> {
            let mut bytes: Vec<u8> = (0..16 + random.below(400)).map(|_| random.below(256) as u8).collect();
            // Half of them look like frames, so that more than the first byte is reached.
            if turn.is_multiple_of(2) {
                bytes[0] = Kind::ALL[random.below(Kind::ALL.len() as u64) as usize] as u8;
                bytes[1..8].fill(0);
                bytes[4] = random.below(100) as u8;
            }
            bytes
        };
        (turn, noise(&mut random), noise(&mut random))
    };
    fail_and_never_run(&(0..30).map(&mut case).collect::<Vec<_>>());
}

#[test]
fn a_hostile_destination_cannot_keep_the_source() {
    let mut random = Random(3);
    let source = TestSource::new();
    for turn in 0..12 {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().into();
        let mut answer: Vec<u8> = (0..64).map(|_| random.below(256) as u8).collect();
        let annotation = vec![1; 10];
        match turn % 4 {
            0 => answer = Frame::Ready { pages: 0 }.encode().unwrap(),
            1 => answer = Frame::Running { epoch: 5 }.encode().unwrap(),
            2 => answer.splice(..0, Frame::Accept { annotation }.encode().unwrap()).for_each(drop),
            _ => {}
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut near, _) = socket.accept().unwrap();
                let _ = near.write_all(&answer);
                let _ = near.shutdown(Shutdown::Write);
                let _ = near.read_to_end(&mut Vec::new());
            });
            let mut request = request(&address, 1);
            request.timeouts.silence = Duration::from_millis(300);
            request.timeouts.build = Duration::from_millis(300);
            let outcome = source::migrate(&source, &request, &source::Control::new());
            assert!(matches!(outcome, source::Outcome::Failed { .. }), "{turn}: {outcome:?}");
            assert!(source.is_running());
        });
    }
    assert_goes_on_and_migrates_again(&source);
}
