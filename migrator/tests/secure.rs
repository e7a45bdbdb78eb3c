//! TLS between two sides: who gets in, who does not and is told why, and that a migration over it is a migration.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use migrator::channel::{Channel, Expect};
use migrator::partition::SourceMachine;
use migrator::transport::{Address, Connection, Listener, Security, Timeouts, Transport, TransportError};
use migrator::wire::{self, Frame, Hello, Kind};
use migrator::{destination, source};
use nix::time::ClockId;
use partita_tls::authority::{Authority, Subject};
use partita_tls::{Options, Role};
use support::*;
use tempfile::TempDir;

const LIMIT: Duration = PATIENCE;
const NEVER: fn() -> bool = || false;

/// A CA in a directory of its own, and what it has signed.
struct Ca {
    authority: Authority,
    directory: TempDir,
}

impl Ca {
    fn new(name: &str) -> Self {
        let ca = Self { authority: Authority::new(name, 1).unwrap(), directory: TempDir::new().unwrap() };
        ca.authority.write(ca.directory.path()).unwrap();
        ca
    }

    /// Files for a process called `name` at `localhost` and nowhere else.
    fn enrol(&self, name: &str, role: Option<Role>) -> Options {
        self.enrol_for(name, role, 1)
    }

    fn enrol_for(&self, name: &str, role: Option<Role>, days: i64) -> Options {
        let subject = Subject { name: name.into(), hosts: vec!["localhost".into()], role, days };
        self.authority.enrol(self.directory.path(), name, &subject).unwrap()
    }
}

fn security(options: &Options) -> Security {
    Security { insecure: false, identity: options.identity().unwrap() }
}

fn listen_as(options: &Options) -> Listener {
    Listener::bind(&"tls:localhost:0".parse().unwrap(), &security(options)).unwrap()
}

fn to(listener: &Listener, scheme: &str, host: &str) -> Address {
    format!("{scheme}:{host}:{}", listener.address().port()).parse().unwrap()
}

/// What both sides say when the one at `address` writes and then reads, and the other reads.
fn meet(listener: &Listener, address: &Address, client: &Security) -> (String, String) {
    let say = |result: Result<(), TransportError>| result.err().map(|e| e.to_string()).unwrap_or_default();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut connection = listener.accept(Some(LIMIT), &NEVER)?;
            connection.read_exact(&mut [0; 32], LIMIT, &NEVER)?;
            connection.write_all(&[7; 16], &[], LIMIT, &NEVER)?;
            connection.linger();
            Ok(())
        });
        let client = Connection::connect(address, client, LIMIT).and_then(|mut connection| {
            connection.write_all(b"PARTITAM", &[0; 24], LIMIT, &NEVER)?;
            connection.read_exact(&mut [0; 16], LIMIT, &NEVER)
        });
        (say(client), say(server.join().unwrap()))
    })
}

#[test]
fn who_does_not_belong_here_is_refused_and_both_sides_say_why() {
    let (ours, foreign) = (Ca::new("ours"), Ca::new("foreign"));
    let host = ours.enrol("host", Some(Role::Host));
    let other = ours.enrol("other", Some(Role::Host));
    let roleless = ours.enrol("roleless", None);
    let stranger = foreign.enrol("stranger", Some(Role::Host));
    let trusting = Options { ca: host.ca.clone(), ..stranger.clone() };
    let viewer = ours.enrol("viewer", Some(Role::Viewer));
    let expired = ours.enrol_for("expired", Some(Role::Host), -3);
    let silent = Options { ca: host.ca.clone(), ..Options::default() };
    let cases: [(&str, &Options, &Options, &str, &str); 9] = [
        ("both belong here", &host, &other, "", ""),
        ("no roles at all", &roleless, &host, "", ""),
        (
            "client of another CA",
            &host,
            &trusting,
            "does not know the CA of our certificate",
            "not signed by the CA",
        ),
        ("server of another CA", &stranger, &host, "not signed by the CA", "does not know the CA of our"),
        ("expired client", &host, &expired, "our certificate (--tls-cert) has expired", "expired 3 days ago"),
        ("expired server", &expired, &host, "expired 3 days ago", "our certificate (--tls-cert) has expired"),
        ("no certificate", &host, &silent, "wants a certificate", "shows no certificate"),
        ("a viewer is no host", &host, &viewer, "has not the role", "states roles, but not the one"),
        ("nor listens as one", &viewer, &host, "not made for this side", "not made for this side"),
    ];
    for (case, server, client, client_says, server_says) in cases {
        let listener = listen_as(server);
        let said = meet(&listener, &to(&listener, "tls", "localhost"), &security(client));
        for (said, expected) in [(&said.0, client_says), (&said.1, server_says)] {
            let fits = if expected.is_empty() { said.is_empty() } else { said.contains(expected) };
            assert!(fits && !said.contains('\n'), "{case}: {said:?} instead of {expected:?}");
        }
    }
}

#[test]
fn a_certificate_is_only_good_for_the_host_that_was_dialled() {
    let ca = Ca::new("ours");
    let listener = listen_as(&ca.enrol("host", Some(Role::Host)));
    let (client, server) =
        meet(&listener, &to(&listener, "tls", "127.0.0.1"), &security(&ca.enrol("b", None)));
    assert!(client.contains("is for localhost, not for 127.0.0.1"), "{client}");
    assert!(server.contains("refuses our certificate"), "{server}");
}

#[test]
fn plain_and_tls_sides_find_out_about_each_other() {
    let ca = Ca::new("ours");
    let host = security(&ca.enrol("host", Some(Role::Host)));
    let secure = listen_as(&ca.enrol("server", Some(Role::Host)));
    let (client, server) = meet(&secure, &to(&secure, "tcp", "localhost"), &host);
    assert!(client.contains("the other side speaks TLS"), "{client}");
    assert!(server.contains("the other side does not speak TLS"), "{server}");
    // A plain side takes what begins TLS for a beginning of its own, finds it wrong and closes.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = format!("tls:localhost:{}", plain.local_addr().unwrap().port()).parse().unwrap();
    let said = thread::scope(|scope| {
        scope.spawn(|| plain.accept().unwrap().0.read_exact(&mut [0; 32]).unwrap());
        Connection::connect(&address, &host, LIMIT).unwrap_err().to_string()
    });
    assert!(said.contains("closed the connection while TLS was set up"), "{said}");
    let nobody = Connection::connect(secure.address(), &Security::default(), LIMIT).unwrap_err().to_string();
    assert!(nobody.contains("needs --tls-cert"), "{nobody}");
}

#[test]
fn who_does_not_finish_a_handshake_costs_one_time_limit_and_then_the_source_comes() {
    let ca = Ca::new("ours");
    let listener = listen_as(&ca.enrol("destination", Some(Role::Host)));
    // The source has no longer either, for each of its connections.
    let timeouts = Timeouts { hello: Duration::from_secs(2), ..timeouts() };
    // One says nothing, one says rubbish, one stops after half a record.
    let mut strangers: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(("127.0.0.1", listener.address().port())).unwrap()).collect();
    strangers[1].write_all(&[0x99; 4096]).unwrap();
    strangers[2].write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    let started = Instant::now();
    let moved = migrate(&listener, &security(&ca.enrol("source", Some(Role::Host))), timeouts);
    moved.assert_moved();
    assert!(started.elapsed() < LIMIT);
}

/// A migration over `listener`, from beginning to end.
struct Migrated {
    source: TestSource,
    attempt: Attempt,
}

impl Migrated {
    #[track_caller]
    fn assert_moved(&self) {
        assert_moved(&self.attempt, &self.source);
    }
}

fn migrate(listener: &Listener, security: &Security, timeouts: Timeouts) -> Migrated {
    migrate_over(Transport::Tcp, listener, security, timeouts)
}

fn migrate_over(
    transport: Transport,
    listener: &Listener,
    security: &Security,
    timeouts: Timeouts,
) -> Migrated {
    let machine = TestSource::new();
    let mut built = TestDestination::new(true);
    let options = destination::Options { annotation: b"unix:/fabric".to_vec(), timeouts };
    let control = destination::Control::new();
    let (source, destination) = thread::scope(|scope| {
        let receiving = scope.spawn(|| destination::receive(listener, &mut built, &options, &control));
        let _guard = CancelOnDrop(&control);
        let mut request = request(listener.address(), 4);
        request.security = security.clone();
        request.transport = transport;
        let source = source::migrate(&machine, &request, &source::Control::new());
        if !matches!(source, source::Outcome::Moved { .. }) {
            control.cancel();
        }
        (source, receiving.join().unwrap())
    });
    Migrated { source: machine, attempt: Attempt { source, destination, machine: built } }
}

#[test]
fn a_migration_over_tls_is_a_migration_and_a_refused_one_leaves_the_source_running() {
    let (ours, foreign) = (Ca::new("ours"), Ca::new("foreign"));
    let destination = ours.enrol("destination", Some(Role::Host));
    let listener = listen_as(&destination);
    let stranger = Options { ca: destination.ca.clone(), ..foreign.enrol("stranger", Some(Role::Host)) };
    let refused = migrate(&listener, &security(&stranger), timeouts());
    let source::Outcome::Failed { error, .. } = &refused.attempt.source else { panic!() };
    let said = migrator::report::one_line(error);
    assert!(said.contains("does not know the CA of our certificate"), "{said}");
    assert!(refused.source.is_running() && refused.attempt.machine.description.is_none());
    let source = security(&ours.enrol("source", Some(Role::Host)));
    for transport in [Transport::Tcp, Transport::Rdma] {
        migrate_over(transport, &listener, &source, timeouts()).assert_moved();
    }
}

/// RDMA has none of the protection of the connections beside it, so leaving the machine needs the word of both sides.
#[test]
fn rdma_beside_tls_leaves_the_machine_only_if_both_sides_say_insecure() {
    let Some(ip) = own_address() else { return };
    let ca = Ca::new("ours");
    let enrol = |name: &str| {
        let hosts = vec![ip.to_string()];
        let subject = Subject { name: name.into(), hosts, role: Some(Role::Host), days: 1 };
        ca.authority.enrol(ca.directory.path(), name, &subject).unwrap()
    };
    let (here, there) = (security(&enrol("here")), security(&enrol("there")));
    let address = format!("tls:{ip}:0").parse().unwrap();
    for (source_insecure, destination_insecure) in [(false, true), (true, false), (true, true)] {
        let listener =
            Listener::bind(&address, &Security { insecure: destination_insecure, ..there.clone() }).unwrap();
        let source = Security { insecure: source_insecure, ..here.clone() };
        let migrated = migrate_over(Transport::Rdma, &listener, &source, timeouts());
        match &migrated.attempt.source {
            source::Outcome::Failed { error, .. } if !(source_insecure && destination_insecure) => {
                let said = migrator::report::one_line(error);
                assert!(said.contains("--insecure") && said.contains("--transport tcp"), "{said}");
                assert!(migrated.source.is_running() && migrated.attempt.machine.description.is_none());
            }
            _ => migrated.assert_moved(),
        }
    }
}

#[test]
fn page_streams_have_to_come_from_whom_the_partition_came_from() {
    let ca = Ca::new("ours");
    let listener = listen_as(&ca.enrol("destination", Some(Role::Host)));
    let [first, second] = ["first", "second"].map(|name| security(&ca.enrol(name, Some(Role::Host))));
    let connect = |security| {
        Channel::new(Connection::connect(listener.address(), security, LIMIT).unwrap(), timeouts())
    };
    let expect = |kinds| Expect { kinds, phase: "test", silence: LIMIT, stop: &NEVER };
    let mut built = TestDestination::new(true);
    let options = destination::Options { annotation: Vec::new(), timeouts: timeouts() };
    let cancel = destination::Control::new();
    thread::scope(|scope| {
        let receiving = scope.spawn(|| destination::receive(&listener, &mut built, &options, &cancel));
        let _guard = CancelOnDrop(&cancel);
        let hello = |role| Hello { minor: wire::VERSION_MINOR, role, streams: 2, session: [5; 16] };
        let mut control = connect(&first);
        control.send_hello(&hello(wire::Role::Control), &NEVER).unwrap();
        let description = TestSource::new().describe(2).unwrap();
        control.send(&Frame::Describe(description), &NEVER).unwrap();
        control.receive(expect(&[Kind::Accept])).unwrap();
        let join = |number, security| {
            let mut stream = connect(security);
            stream.send_hello(&hello(wire::Role::Pages(number)), &NEVER).unwrap();
            stream.receive(expect(&[Kind::Joined])).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(join(0, &first), Ok(()));
        assert!(join(1, &second).unwrap_err().contains("closed the connection"));
        drop(control);
        // The stream that was refused is not waited for.
        cancel.cancel();
        assert!(matches!(receiving.join().unwrap(), destination::Outcome::Failed { .. }));
    });
}

/// Sends `bytes` over one connection in frames of 256 KiB; gives wall-clock and processor seconds of both sides.
fn send(listener: &Listener, security: &Security, bytes: usize) -> (f64, f64) {
    const FRAME_BYTES: usize = 256 << 10;
    let processor = || Duration::from(ClockId::CLOCK_PROCESS_CPUTIME_ID.now().unwrap()).as_secs_f64();
    let data: Vec<u8> = (0..FRAME_BYTES).map(|index| (index * 31) as u8).collect();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut connection = listener.accept(Some(LIMIT), &NEVER).unwrap();
            let mut frame = vec![0; FRAME_BYTES];
            for _ in 0..bytes / FRAME_BYTES {
                connection.read_exact(&mut frame, LIMIT, &NEVER).unwrap();
            }
            connection.write_all(&[1], &[], LIMIT, &NEVER).unwrap();
        });
        let mut connection = Connection::connect(listener.address(), security, LIMIT).unwrap();
        let (wall, used) = (Instant::now(), processor());
        for _ in 0..bytes / FRAME_BYTES {
            connection.write_all(&data[..16], &data[16..], LIMIT, &NEVER).unwrap();
        }
        connection.read_exact(&mut [0], LIMIT, &NEVER).unwrap();
        let cost = (wall.elapsed().as_secs_f64(), processor() - used);
        receiver.join().unwrap();
        cost
    })
}

#[test]
#[ignore = "a measurement: cargo test --release -p migrator --test secure -- --ignored --nocapture"]
fn cost_of_tls() {
    const BYTES: usize = 512 << 20;
    let ca = Ca::new("ours");
    let host = ca.enrol("host", Some(Role::Host));
    let secure = listen_as(&host);
    let plain = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap(), &Security::default()).unwrap();
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (listener, costs) in [&plain, &secure].into_iter().zip(&mut costs) {
            costs.push(send(listener, &security(&host), BYTES));
        }
    }
    let gib = BYTES as f64 / f64::from(1 << 30);
    for (name, costs) in ["plain", "TLS"].into_iter().zip(&mut costs) {
        let mut median = |of: fn(&(f64, f64)) -> f64| {
            costs.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&costs[costs.len() / 2])
        };
        let (wall, processor) = (median(|cost| cost.0), median(|cost| cost.1));
        println!(
            "{name}: {:.2} GiB/s, {:.2} processor seconds per GiB (both sides)",
            gib / wall,
            processor / gib
        );
    }
    let start = Instant::now();
    for _ in 0..20 {
        meet(&secure, secure.address(), &security(&host));
    }
    println!("connection with handshake: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0 / 20.0);
}
