//! What the other side of a migration sends: greetings, frame headers, frames of every kind, extents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use migrator::partition::Region;
use migrator::wire::{self, Extent, Frame, HEADER_BYTES, HELLO_BYTES, Header, Hello, Kind};

const REGIONS: [Region; 2] =
    [Region { address: 0, bytes: 1 << 20 }, Region { address: 1 << 30, bytes: 64 << 10 }];

fuzz_target!(|data: &[u8]| {
    if let Some(bytes) = data.first_chunk::<HELLO_BYTES>()
        && let Ok(hello) = Hello::decode(bytes)
    {
        assert_eq!(Hello::decode(&hello.encode()).expect("our own greeting"), hello);
    }
    if let Some((bytes, body)) = data.split_first_chunk::<HEADER_BYTES>()
        && let Ok(header) = Header::decode(bytes)
    {
        let _ = header.verify(body);
    }
    let Some((first, body)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    if let Ok(frame) = Frame::decode(kind, body) {
        assert_eq!(frame.kind(), kind);
        let _ = frame.encode();
    }
    if let Ok((extent, rest)) = Extent::decode(kind, body, &REGIONS) {
        let region = &REGIONS[extent.region as usize];
        let end = (extent.first_page + u64::from(extent.pages)) * migrator::partition::PAGE_SIZE as u64;
        assert!(end <= region.bytes && rest.len() <= body.len());
        let _ = wire::verify_written(rest, body);
    }
});
