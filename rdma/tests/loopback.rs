//! Writes over loopback, through whatever provider libfabric prefers here (`tcp;ofi_rxm`).

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use partita_rdma::{Error, Event, HostMemory, Key, Proof, Target, Window, Writer};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SLOT: usize = 64 << 10;
/// Only against hanging.
const LIMIT: Duration = Duration::from_secs(120);
/// What is not written after this long is not under way any more.
const UNDER_WAY: Duration = Duration::from_secs(5);

fn target(memory: &[HostMemory]) -> Target {
    Target::open(LOCAL, memory, SLOT).unwrap()
}

/// Polls until `wanted` came.
fn wait(writer: &mut Writer, wanted: Event) {
    let start = Instant::now();
    while writer.event() != Some(wanted) {
        writer.drive(10).unwrap();
        assert!(start.elapsed() < LIMIT, "{wanted:?} did not come");
    }
}

fn greet(writer: &mut Writer) {
    let start = Instant::now();
    while !writer.greet().unwrap() {
        writer.drive(10).unwrap();
        assert!(start.elapsed() < LIMIT, "the target cannot be reached");
    }
    wait(writer, Event::Greeted);
}

/// Writes one slot of `value` to `offset`.
fn write(writer: &mut Writer, value: u8, region: usize, offset: u64) {
    let slot = writer.take().unwrap();
    writer.slot(slot).fill(value);
    while !writer.post(slot, 0..SLOT, region, offset).unwrap() {
        writer.drive(10).unwrap();
    }
    writer.seal(slot, true);
    wait(writer, Event::Visible(slot));
}

#[test]
fn what_is_visible_is_in_the_memory_with_both_proofs() {
    for proof in [Proof::Best, Proof::OrderedRead] {
        let memory = [HostMemory::zeroed(4 * SLOT), HostMemory::zeroed(SLOT)];
        let target = target(&memory);
        let mut writer = Writer::open(LOCAL, target.window().clone(), proof, 4, SLOT).unwrap();
        println!("{:?}", writer.provider());
        assert!(proof == Proof::Best || !writer.provider().1);
        greet(&mut writer);
        let mut bytes = vec![0; SLOT];
        for turn in 1..50 {
            let (region, offset) = if turn % 5 == 4 { (1, 0) } else { (0, turn % 5 * SLOT) };
            write(&mut writer, turn as u8, region, offset as u64);
            memory[region].read(offset, &mut bytes);
            assert!(bytes.iter().all(|byte| *byte == turn as u8), "{turn}");
        }
    }
}

#[test]
fn a_closed_target_cannot_be_written() {
    let memory = [HostMemory::zeroed(SLOT)];
    let mut target = target(&memory);
    let mut writer = Writer::open(LOCAL, target.window().clone(), Proof::Best, 4, SLOT).unwrap();
    greet(&mut writer);
    target.close();
    let slot = writer.take().unwrap();
    writer.slot(slot).fill(7);
    let start = Instant::now();
    let mut posted = false;
    let error = loop {
        let result = if posted { Ok(false) } else { writer.post(slot, 0..SLOT, 0, 0) };
        match result.and_then(|now| {
            posted |= now;
            writer.drive(10)
        }) {
            Err(error) => break Some(error),
            Ok(()) => assert_eq!(writer.event(), None),
        }
        if start.elapsed() > UNDER_WAY {
            break None;
        }
    };
    println!("{error:?}");
    let mut bytes = vec![1; SLOT];
    memory[0].read(0, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn keys_and_addresses_that_are_not_the_targets_end_in_an_error() {
    let memory = [HostMemory::zeroed(4 * SLOT)];
    let target = target(&memory);
    let good = target.window().clone();
    let Key { key, base } = good.regions[0];
    let with = |key, base| Window { regions: vec![Key { key, base }], ..good.clone() };
    for window in [with(key ^ 1, base), with(key, base ^ 1 << 63), with(key, base + 3 * SLOT as u64 + 1)] {
        let mut writer = Writer::open(LOCAL, window, Proof::Best, 1, SLOT).unwrap();
        let slot = writer.take().unwrap();
        writer.slot(slot).fill(9);
        let start = Instant::now();
        let mut posted = false;
        let error = loop {
            assert!(start.elapsed() < LIMIT, "no error");
            let result = if posted { Ok(false) } else { writer.post(slot, 0..SLOT, 0, 0) };
            match result.and_then(|now| {
                posted |= now;
                writer.drive(10)
            }) {
                Err(error) => break error,
                Ok(()) => assert_eq!(writer.event(), None),
            }
        };
        println!("{error}");
    }
    let mut bytes = vec![1; 4 * SLOT];
    memory[0].read(0, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0), "nothing was written");
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let good = target(&[HostMemory::zeroed(SLOT)]).window().clone();
    let cases = [
        Window { provider: "no such".into(), ..good.clone() },
        Window { provider: "nosuch".into(), ..good.clone() },
        Window { provider: String::new(), ..good.clone() },
        Window { provider: "x".repeat(64), ..good.clone() },
        Window { format: u32::MAX, ..good.clone() },
        Window { address: vec![], ..good.clone() },
        Window { address: vec![0; 257], ..good.clone() },
        Window { address: vec![0xff; 256], ..good.clone() },
        Window { address: vec![10, 0], ..good.clone() },
    ];
    for window in cases {
        match Writer::open(LOCAL, window.clone(), Proof::Best, 1, SLOT) {
            Err(error) => println!("{error}"),
            Ok(_) => panic!("{window:?}"),
        }
    }
    let none = Window { regions: vec![], ..good };
    let mut writer = Writer::open(LOCAL, none, Proof::Best, 1, SLOT).unwrap();
    let slot = writer.take().unwrap();
    assert!(matches!(writer.post(slot, 0..1, 0, 0), Err(Error::Window(_))));
}

#[test]
fn a_host_without_this_address_has_no_provider() {
    let error = Target::open("192.0.2.77".parse().unwrap(), &[], SLOT).err().unwrap();
    assert!(error.to_string().contains("fi_info"), "{error}");
}
