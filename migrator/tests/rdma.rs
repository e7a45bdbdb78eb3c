//! What only transport rdma can meet: a broken fabric, windows that lie, pages that are told of and not written, refusals.
//! That it moves like TCP is in `moves.rs`, that every step and every harm end as they should in `table.rs`.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use migrator::channel::{Channel, Expect};
use migrator::destination::{self, DestinationError};
use migrator::partition::{PAGE_SIZE, SourceMachine};
use migrator::source::{self, Phase, SourceError};
use migrator::transport::{Connection, Listener, Security, Timeouts, Transport};
use migrator::wire::{
    self, Extent, Frame, HEADER_BYTES, HELLO_BYTES, Header, Hello, Kind, Role, VERSION_MINOR,
};
use partita_rdma::{Key, Window};
use support::proxy::{Fabric, Tamper};
use support::{
    CancelOnDrop, FEW_PAGES, PATIENCE, PageWrite, Random, Setup, TestDestination, TestSource,
    assert_goes_on_and_migrates_again, assert_moved, listen, own_address, request, resuming_timeouts,
    timeouts,
};

fn setup(streams: u8) -> Setup {
    Setup::over(Transport::Rdma, streams)
}

#[test]
fn programs_that_write_at_random_arrive_as_they_were_when_they_paused() {
    let mut random = Random(20_26);
    for turn in 0..12 {
        let source = TestSource::new();
        let stop = AtomicBool::new(false);
        let (streams, pages_per_ms) = (1 + random.below(6) as u8, 1 + random.below(20));
        thread::scope(|scope| {
            scope.spawn(|| source.scribble(&stop, pages_per_ms, turn));
            let zeroed = random.below(2) == 0;
            let machine = TestDestination::new(zeroed);
            let attempt = Setup { machine, ..setup(streams) }.run(&source);
            stop.store(true, SeqCst);
            assert_moved(&attempt, &source);
            let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
            let rdma = report.rdma.unwrap();
            assert!(!rdma.provider.is_empty() && rdma.connected_ms > 0.0, "{rdma:?}");
        });
    }
}

/// Cut in round 0: everything goes on over a new endpoint, and nothing that was under way overtakes.
#[test]
fn a_fabric_that_breaks_in_a_round_is_made_anew() {
    for (bytes, seed) in [(300_000, 1), (1_500_000, 2)] {
        let source = TestSource::new();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| source.scribble(&stop, 10, seed));
            let tamper = Some(Fabric::new(bytes, false, false).tamper());
            let attempt = Setup { tamper, timeouts: resuming_timeouts(), ..setup(2) }.run(&source);
            stop.store(true, SeqCst);
            let source::Outcome::Moved { report, .. } = &attempt.source else {
                panic!("{:?}", attempt.source)
            };
            assert!(report.resumed >= 1, "{bytes}");
            assert!(attempt.machine.ran && !source.is_running());
            attempt.machine.assert_holds(&source);
        });
    }
}

#[test]
fn a_fabric_that_stalls_in_a_round_is_made_anew_after_the_limit() {
    let source = TestSource::new();
    let tamper = Some(Fabric::new(300_000, true, false).tamper());
    let timeouts = Timeouts { silence: Duration::from_secs(5), ..resuming_timeouts() };
    let attempt = Setup { tamper, timeouts, ..setup(2) }.run(&source);
    let source::Outcome::Moved { report, .. } = &attempt.source else { panic!("{:?}", attempt.source) };
    assert!(report.resumed >= 1);
    attempt.machine.assert_holds(&source);
}

/// Connecting took longer than the destination waits for a silent source, so it broke and began anew.
#[test]
fn a_fabric_that_connects_slowly_is_waited_for() {
    let source = TestSource::with(&FEW_PAGES);
    let slow = Duration::from_secs(6);
    let timeouts = Timeouts { silence: slow / 2, ..timeouts() };
    let change: fn(&mut migrator::report::Request) =
        |request| request.timeouts.silence = Duration::from_secs(30);
    let tamper = Some(Fabric::slow(slow).tamper());
    let attempt = Setup { tamper, timeouts, change, ..setup(2) }.run(&source);
    assert_moved(&attempt, &source);
    let source::Outcome::Moved { report, .. } = attempt.source else { unreachable!() };
    assert_eq!(report.resumed, 0);
    assert!(report.rdma.unwrap().connected_ms >= slow.as_secs_f64() * 1000.0);
}

#[test]
fn a_fabric_that_breaks_every_time_is_given_up() {
    let source = TestSource::new();
    let tamper = Some(Fabric::new(0, false, true).tamper());
    let attempt = Setup { tamper, ..setup(1) }.run(&source);
    let source::Outcome::Failed { report, .. } = &attempt.source else { panic!("{:?}", attempt.source) };
    assert!(report.resumed <= 3, "{}", report.resumed);
    assert!(matches!(attempt.destination, destination::Outcome::Failed { .. }) && !attempt.machine.ran);
    assert_goes_on_and_migrates_again(&source);
}

#[test]
fn a_fabric_that_breaks_or_stalls_in_the_blackout_leaves_the_source_running() {
    for stalls in [false, true] {
        let source = TestSource::with(&FEW_PAGES);
        *source.late.lock().unwrap() = vec![PageWrite { region: 0, page: 3, word: 7 }];
        let fabric = Fabric::new(usize::MAX, stalls, false);
        let armed = fabric.clone();
        let control = source::Control::new().with_hook(Box::new(move |phase| {
            if phase == Phase::Blackout {
                armed.arm();
            }
        }));
        let timeouts = Timeouts { silence: Duration::from_secs(5), ..timeouts() };
        let attempt = Setup { tamper: Some(fabric.tamper()), control, timeouts, ..setup(2) }.run(&source);
        let source::Outcome::Failed { report, error } = &attempt.source else {
            panic!("{:?}", attempt.source)
        };
        assert!(report.blackout_ms > 0.0 && !attempt.machine.ran, "{error}");
        assert_goes_on_and_migrates_again(&source);
    }
}

/// Keys, addresses and providers that are not the destination's: an error in bounded time, and nothing is written anywhere.
#[test]
fn windows_that_lie_end_in_an_error_and_the_source_goes_on() {
    fn every_key(window: &mut Window, change: impl Fn(&mut Key)) {
        window.regions.iter_mut().for_each(change);
    }
    type Lie = fn(&mut Window);
    let lies: [(&str, Lie); 10] = [
        ("another key", |window| every_key(window, |key| key.key ^= 1)),
        ("addresses that wrap around", |window| every_key(window, |key| key.base = u64::MAX - 100)),
        ("addresses behind the memory", |window| every_key(window, |key| key.base += 1 << 30)),
        ("one region less", |window| _ = window.regions.pop()),
        ("one region more", |window| window.regions.push(window.regions[0])),
        ("no region", |window| window.regions.clear()),
        ("a port where nobody listens", |window| window.address[2..4].copy_from_slice(&[0, 1])),
        ("half an address", |window| window.address.truncate(3)),
        ("an address of another kind", |window| window.address[0] = 200),
        ("another provider", |window| window.provider = "verbs;ofi_rxm".to_owned()),
    ];
    for (name, lie) in lies {
        let source = TestSource::with(&FEW_PAGES);
        let tamper = Some(Tamper::Window(Box::new(lie)));
        let timeouts =
            Timeouts { silence: Duration::from_secs(3), resume: Duration::from_secs(1), ..timeouts() };
        let attempt = Setup { tamper, timeouts, ..setup(2) }.run(&source);
        let source::Outcome::Failed { error, .. } = &attempt.source else {
            panic!("{name}: {:?}", attempt.source)
        };
        println!("{name}: {}", migrator::report::one_line(error));
        assert!(matches!(attempt.destination, destination::Outcome::Failed { .. }) && !attempt.machine.ran);
        assert_goes_on_and_migrates_again(&source);
    }
}

/// A source that begins properly over RDMA and then sends `stream` on its page stream; gives how the destination ended.
fn after_a_good_beginning(before: &[Frame], minor: u8, stream: &[u8]) -> destination::Outcome {
    let listener = listen();
    let mut machine = TestDestination::new(true);
    let handle = destination::Control::new();
    let options = destination::Options { annotation: Vec::new(), timeouts: timeouts() };
    let outcome = thread::scope(|scope| {
        let _guard = CancelOnDrop(&handle);
        let receiving = scope.spawn(|| destination::receive(&listener, &mut machine, &options, &handle));
        let dial = |role| {
            let connection =
                Connection::connect(listener.address(), &Security::default(), timeouts().connect);
            let mut channel = Channel::new(connection.unwrap(), timeouts());
            channel.send_hello(&Hello { minor, role, streams: 1, session: [9; 16] }, &|| false).unwrap();
            channel
        };
        let expect = |kind: &'static [Kind]| Expect {
            kinds: kind,
            phase: "in a test",
            silence: timeouts().silence,
            stop: &|| false,
        };
        let mut control = dial(Role::Control);
        for frame in before {
            let _ = control.send(frame, &|| false);
        }
        let description = TestSource::with(&FEW_PAGES).describe(5).unwrap();
        let _ = control.send(&Frame::Describe(description), &|| false);
        if control.receive(expect(&[Kind::Accept])).is_err() {
            handle.cancel();
            return receiving.join().unwrap();
        }
        let window = control.receive(expect(&[Kind::Window]));
        assert!(matches!(window, Ok(Frame::Window { .. })), "{window:?}");
        let mut pages = dial(Role::Pages(0));
        pages.receive(expect(&[Kind::Joined])).unwrap();
        let _ = pages.send_encoded(stream, &[], &|| false);
        receiving.join().unwrap()
    });
    assert!(!machine.ran);
    outcome
}

#[test]
fn pages_that_are_told_of_and_not_written_never_run() {
    let written = |extent: Extent, checksum: u64| {
        let body = [&extent.encode()[..], &checksum.to_le_bytes()].concat();
        [&Header::seal(Kind::Written, &body, &[]).unwrap()[..], &body].concat()
    };
    let page = Extent { region: 0, pages: 1, first_page: 0 };
    let checksum = wire::pages_checksum(&[1; PAGE_SIZE]);
    let data = [&page.encode()[..], &[1; PAGE_SIZE]].concat();
    let data = [&Header::seal(Kind::Data, &data, &[]).unwrap()[..], &data].concat();
    let cases = [
        ("not written", written(page, checksum)),
        ("outside", written(Extent { first_page: 1 << 40, ..page }, checksum)),
        ("too many", written(Extent { pages: 65, ..page }, checksum)),
        ("no region", written(Extent { region: 2, ..page }, checksum)),
        ("pages in a frame", data),
    ];
    for (name, stream) in cases {
        let outcome = after_a_good_beginning(&[Frame::Rdma], VERSION_MINOR, &stream);
        let destination::Outcome::Failed { error } = outcome else { panic!("{name}: {outcome:?}") };
        println!("{name}: {}", migrator::report::one_line(&error));
        assert!(matches!(error, DestinationError::Stream { .. }), "{name}: {error:?}");
    }
    // Asked for twice, too late, or in a version that has it not: the beginning is not understood.
    for (before, minor) in [
        (vec![Frame::Rdma, Frame::Rdma], VERSION_MINOR),
        (vec![Frame::Machine(vec![1]), Frame::Rdma], VERSION_MINOR),
        (vec![Frame::Rdma], 1),
    ] {
        let outcome = after_a_good_beginning(&before, minor, &[]);
        assert!(
            matches!(outcome, destination::Outcome::Failed { error: DestinationError::Cancelled }),
            "{outcome:?}"
        );
    }
}

#[test]
fn memory_that_is_not_in_this_process_is_refused_with_what_to_do() {
    let source = TestSource::new();
    let machine = TestDestination { opens: false, ..TestDestination::new(true) };
    let attempt = Setup { machine, ..setup(1) }.run(&source);
    let source::Outcome::Failed { error: SourceError::Refused(reason), .. } = &attempt.source else {
        panic!("{:?}", attempt.source)
    };
    assert!(reason.contains("--transport tcp"), "{reason}");
    assert!(matches!(attempt.destination, destination::Outcome::Refused { .. }));
    assert_goes_on_and_migrates_again(&source);
}

/// A destination of 1.1 refuses a greeting of 1.2, so a source that needs nothing of 1.2 does not say it.
#[test]
fn an_older_destination_refuses_rdma_before_anything_is_moved_and_takes_tcp() {
    for (transport, minor) in [(Transport::Tcp, 1), (Transport::Rdma, 2)] {
        let source = TestSource::new();
        let older = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = older.local_addr().unwrap().into();
        thread::scope(|scope| {
            let hello = scope.spawn(|| {
                let (mut near, _) = older.accept().unwrap();
                let mut hello = [0; HELLO_BYTES];
                near.read_exact(&mut hello).unwrap();
                let reason = "the other side speaks migration protocol 1.2".to_owned();
                near.write_all(&Frame::Refuse { reason }.encode().unwrap()).unwrap();
                // Until the source has read it and closes.
                let _ = near.read_to_end(&mut vec![0; HEADER_BYTES]);
                hello
            });
            let request = migrator::report::Request { transport, ..request(&address, 1) };
            let outcome = source::migrate(&source, &request, &source::Control::new());
            assert!(
                matches!(outcome, source::Outcome::Failed { error: SourceError::Refused(_), .. }),
                "{outcome:?}"
            );
            assert_eq!(hello.join().unwrap()[9], minor, "{transport:?}");
            assert!(source.is_running());
        });
    }
}

/// Over this host's own network interface, if it has one.
#[test]
fn another_machine_is_reached_only_if_the_network_is_said_to_be_trusted() {
    let Some(ip) = own_address() else { return };
    let trusted = Security { insecure: true, identity: None };
    let address = format!("tcp:{ip}:0").parse().unwrap();
    let listener = Listener::bind(&address, &trusted).unwrap();
    let connection = Connection::connect(listener.address(), &trusted, timeouts().connect).unwrap();
    let refused = connection.rdma_address(false).unwrap_err().to_string();
    assert!(refused.contains("--insecure") && refused.contains("--transport tcp"), "{refused}");
    assert_eq!(connection.rdma_address(true).unwrap(), ip);
    drop(connection);

    let source = TestSource::with(&FEW_PAGES);
    let mut machine = TestDestination::new(true);
    let request = migrator::report::Request {
        transport: Transport::Rdma,
        security: trusted,
        ..request(listener.address(), 2)
    };
    let handle = destination::Control::new();
    let options = destination::Options { annotation: Vec::new(), timeouts: timeouts() };
    thread::scope(|scope| {
        let _guard = CancelOnDrop(&handle);
        let receiving = scope.spawn(|| destination::receive(&listener, &mut machine, &options, &handle));
        let outcome = source::migrate(&source, &request, &source::Control::new());
        assert!(matches!(outcome, source::Outcome::Moved { .. }), "{outcome:?}");
        receiving.join().unwrap();
    });
    machine.assert_holds(&source);
}

#[test]
fn a_cancel_ends_a_stalled_fabric_at_once() {
    let source = TestSource::new();
    let fabric: Arc<Fabric> = Fabric::new(300_000, true, false);
    let timeouts = Timeouts { silence: 2 * PATIENCE, ..timeouts() };
    let start = std::time::Instant::now();
    let setup = Setup { tamper: Some(fabric.tamper()), timeouts, ..setup(2) };
    let attempt = setup.run_with(&source, |beside| {
        if beside.until_phase(Phase::Round(0)) {
            thread::sleep(Duration::from_millis(500));
            beside.source.cancel();
        }
    });
    assert!(
        matches!(attempt.source, source::Outcome::Failed { error: SourceError::Cancelled, .. }),
        "{:?}",
        attempt.source
    );
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert_goes_on_and_migrates_again(&source);
}
