//! Golden bytes and hostile bytes of the wire format.

use super::*;

fn description() -> Description {
    Description {
        application: "demo-1".to_owned(),
        rank: 2,
        epoch: 7,
        regions: vec![
            Region { address: 0, bytes: 0x20_0000 },
            Region { address: 0x10_0000_0000, bytes: 0x1000 },
        ],
        machine: vec![1, 2, 3],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn frames() -> Vec<Frame> {
    let totals = Totals { state_bytes: 5, state_checksum: 0x0102_0304_0506_0708, stream_pages: vec![9, 1] };
    vec![
        Frame::Describe(description()),
        Frame::KeepAlive,
        Frame::Final(totals),
        Frame::State(vec![0xaa; 5]),
        Frame::Machine(vec![0xbb; 3]),
        Frame::Commit { epoch: 7 },
        Frame::Abort { reason: "cancelled".to_owned() },
        Frame::Accept { annotation: b"unix:/x".to_vec() },
        Frame::Refuse { reason: "no AVX".to_owned() },
        Frame::Joined,
        Frame::Ready { pages: 513 },
        Frame::Running { epoch: 7 },
        Frame::RoundEnd { round: 3, last: true, pages: 10 },
        Frame::RoundAck { round: 3, pages: 10 },
    ]
}

/// A changed line here is a changed protocol: raise the major version and say so in `docs/protocol.md`. A new line is a new minor
/// version; then the lines of the one before go to a file of their own, as `golden-1.0.txt`.
#[test]
fn golden_bytes() {
    let hello =
        Hello { minor: VERSION_MINOR, role: Role::Pages(3), streams: 4, session: *b"0123456789abcdef" };
    let mut lines = vec![hex(&hello.encode())];
    lines.extend(frames().iter().map(|frame| hex(&frame.encode().unwrap())));
    let extent = Extent { region: 1, pages: 1, first_page: 0 }.encode();
    let page = [0x5a; PAGE_SIZE];
    lines.push(hex(&Header::seal(Kind::Data, &extent, &page).unwrap()) + &hex(&extent));
    lines.push(hex(&Header::seal(Kind::Zero, &extent, &[]).unwrap()) + &hex(&extent));
    let packed = [&extent[..], &encode_codec(Codec::Lz4), &[0x5a; 3]].concat();
    lines.push(hex(&Header::seal(Kind::Packed, &packed, &[]).unwrap()) + &hex(&packed));
    for frame in [Frame::Resume { round: 1, epoch: 7 }, Frame::Held(vec![0xcc; 8])] {
        let bytes = frame.encode().unwrap();
        assert_eq!(Frame::decode(frame.kind(), &bytes[HEADER_BYTES..]).unwrap(), frame);
        lines.push(hex(&bytes));
    }
    let key = |key, base| partita_rdma::Key { key, base };
    let window = Window {
        provider: "tcp;ofi_rxm".to_owned(),
        format: 2,
        address: vec![0x0a; 16],
        regions: vec![key(1 << 40, 0), key(7, 0x7f00_0000_0000)],
    };
    for frame in [Frame::Rdma, Frame::Window { registered_us: 1500, window }] {
        let bytes = frame.encode().unwrap();
        assert_eq!(Frame::decode(frame.kind(), &bytes[HEADER_BYTES..]).unwrap(), frame);
        lines.push(hex(&bytes));
    }
    let written = [&extent[..], &pages_checksum(&page).to_le_bytes()].concat();
    verify_written(&written[EXTENT_BYTES..], &page).unwrap();
    lines.push(hex(&Header::seal(Kind::Written, &written, &[]).unwrap()) + &hex(&written));
    assert_eq!(lines.join("\n"), include_str!("golden.txt").trim_end());
}

#[test]
fn every_frame_decodes_to_itself() {
    for frame in frames() {
        let bytes = frame.encode().unwrap();
        let (header, body) = bytes.split_at(HEADER_BYTES);
        let header = Header::decode(header.try_into().unwrap()).unwrap();
        assert_eq!(header.length as usize, body.len());
        header.verify(body).unwrap();
        assert_eq!(Frame::decode(header.kind, body).unwrap(), frame);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    for frame in frames() {
        let good = frame.encode().unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (header, body) = bytes.split_at(HEADER_BYTES);
            let Ok(header) = Header::decode(header.try_into().unwrap()) else { continue };
            if header.length as usize == body.len() {
                assert!(header.verify(body).is_err(), "{frame:?}, bit {bit}");
            }
        }
    }
}

#[test]
fn versions_and_roles_that_do_not_exist_are_refused() {
    let hello = Hello { minor: VERSION_MINOR, role: Role::Control, streams: 1, session: [7; 16] };
    let good = hello.encode();
    assert_eq!(Hello::decode(&good).unwrap(), hello);
    let with = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        Hello::decode(&bytes)
    };
    assert!(matches!(with(0, b'X'), Err(WireError::Magic)));
    assert!(matches!(with(8, 2), Err(WireError::Version { major: 2, .. })));
    let newer = VERSION_MINOR + 1;
    assert!(matches!(with(9, newer), Err(WireError::Version { minor, .. }) if minor == newer));
    for (at, byte) in good.iter().enumerate() {
        assert!(with(at, byte ^ 1).is_err(), "{at}");
    }
    for (role, streams) in [(Role::Pages(1), 1), (Role::Control, 0), (Role::Control, 17)] {
        assert!(Hello::decode(&Hello { role, streams, ..hello }.encode()).is_err(), "{role:?} {streams}");
    }
}

/// Every byte that a source of 1.0 or 1.1 may send is understood as it was.
#[test]
fn older_minor_versions_are_understood() {
    let unhex = |line: &str| -> Vec<u8> {
        (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    // Behind the frames: DATA and ZERO, and since 1.1 PACKED, RESUME and HELD.
    let texts = [include_str!("golden-1.0.txt"), include_str!("golden-1.1.txt")];
    for (minor, (text, more)) in texts.into_iter().zip([2, 5]).enumerate() {
        let mut lines = text.lines().map(unhex);
        let hello = Hello::decode(lines.next().unwrap().as_slice().try_into().unwrap()).unwrap();
        assert_eq!((usize::from(hello.minor), hello.role, hello.streams), (minor, Role::Pages(3), 4));
        assert_eq!(hello.session, *b"0123456789abcdef");
        for frame in frames() {
            let bytes = lines.next().unwrap();
            let (header, body) = bytes.split_at(HEADER_BYTES);
            let header = Header::decode(header.try_into().unwrap()).unwrap();
            header.verify(body).unwrap();
            assert_eq!(Frame::decode(header.kind, body).unwrap(), frame);
        }
        assert_eq!(lines.count(), more);
    }
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let good = Window { provider: "x".to_owned(), format: 0, address: vec![1], regions: vec![] };
    let decode =
        |window: &Window| Frame::decode(Kind::Window, &postcard::to_stdvec(&(0u64, window)).unwrap());
    assert!(decode(&good).is_ok());
    for window in [
        Window { provider: "^tcp".to_owned(), ..good.clone() },
        Window { provider: "a b".to_owned(), ..good.clone() },
        Window { provider: String::new(), ..good.clone() },
        Window { address: vec![], ..good.clone() },
        Window { address: vec![0; 257], ..good.clone() },
    ] {
        assert!(matches!(decode(&window), Err(WireError::Window(_))), "{window:?}");
    }
    let mut long = postcard::to_stdvec(&(0u64, &good)).unwrap();
    long.push(0);
    assert!(matches!(Frame::decode(Kind::Window, &long), Err(WireError::Length { .. })));
    let checksum = pages_checksum(&[1; PAGE_SIZE]).to_le_bytes();
    assert!(
        verify_written(&checksum, &[2; PAGE_SIZE]).is_err() && verify_written(&[], &[1; PAGE_SIZE]).is_err()
    );
}

#[test]
fn extents_outside_the_memory_are_refused() {
    let regions = description().regions;
    let body = |region, pages, first_page| Extent { region, pages, first_page }.encode();
    assert!(Extent::decode(Kind::Zero, &body(0, 512, 0), &regions).is_ok());
    for (region, pages, first_page) in [
        (0, 513, 0),
        (0, 1, 512),
        (0, 0, 0),
        (1, 2, 0),
        (2, 1, 0),
        (u32::MAX, 1, 0),
        (0, 2, u64::MAX),
        (0, u32::MAX, 0),
    ] {
        let bytes = body(region, pages, first_page);
        assert!(Extent::decode(Kind::Zero, &bytes, &regions).is_err(), "{region} {pages} {first_page}");
    }
    let mut data = body(0, 2, 0).to_vec();
    data.resize(EXTENT_BYTES + PAGE_SIZE, 0);
    assert!(matches!(Extent::decode(Kind::Data, &data, &regions), Err(WireError::Length { .. })));
    assert!(Extent::decode(Kind::Data, &data[..7], &regions).is_err());
}

#[test]
fn senseless_descriptions_are_refused_on_both_sides() {
    let region = |address, bytes| Region { address, bytes };
    for regions in [
        vec![],
        vec![region(0, 0)],
        vec![region(0, 100)],
        vec![region(100, 4096)],
        vec![region(u64::MAX - 4095, 8192)],
        vec![region(0, 8192), region(4096, 4096)],
        (0..65).map(|index| region(index * 4096, 4096)).collect(),
    ] {
        let description = Description { regions, ..description() };
        assert!(Frame::Describe(description.clone()).encode().is_err());
        let body = postcard::to_stdvec(&description).unwrap();
        assert!(Frame::decode(Kind::Describe, &body).is_err(), "{description:?}");
    }
    let huge = Description { machine: vec![0; DESCRIPTION_BYTES_MAX], ..description() };
    assert!(matches!(Frame::Describe(huge).encode(), Err(WireError::Length { .. })));
}

#[test]
fn texts_are_cut_at_a_character_and_lose_control_characters() {
    let frame = Frame::Abort { reason: "ä".repeat(600) };
    let bytes = frame.encode().unwrap();
    assert!(bytes.len() <= HEADER_BYTES + TEXT_BYTES_MAX);
    let Frame::Abort { reason } = Frame::decode(Kind::Abort, b"a\x1b[31m\nb\xff").unwrap() else { panic!() };
    assert_eq!(reason, "a [31m b\u{fffd}");
}

#[test]
fn random_bodies_never_panic() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    let regions = description().regions;
    for _ in 0..50_000 {
        let kind = Kind::ALL[random() as usize % Kind::ALL.len()];
        let body: Vec<u8> = (0..random() % 80).map(|_| (random() & random()) as u8).collect();
        let _ = Frame::decode(kind, &body);
        let _ = Extent::decode(kind, &body, &regions);
        let header: Vec<u8> = (0..HEADER_BYTES).map(|_| random() as u8).collect();
        if let Ok(header) = Header::decode(header.as_slice().try_into().unwrap()) {
            assert!(header.length as usize <= header.kind.body_bytes_max());
        }
        let mut hello: Vec<u8> = (0..HELLO_BYTES).map(|_| (random() & random()) as u8).collect();
        hello[..8].copy_from_slice(&MAGIC);
        let _ = Hello::decode(hello.as_slice().try_into().unwrap());
    }
}
