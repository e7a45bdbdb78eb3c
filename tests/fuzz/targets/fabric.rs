//! What a far end of the fabric sends: frame headers and greetings. What is taken encodes to what came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::fabric::wire::{HEADER_BYTES, Header, Hello};

fuzz_target!(|data: &[u8]| {
    if let Some(bytes) = data.first_chunk::<HEADER_BYTES>()
        && let Ok(header) = Header::decode(bytes)
    {
        assert_eq!(header.encode(), *bytes);
    }
    if let Ok(hello) = Hello::decode(data) {
        let again = hello.encode();
        let body = again.get(HEADER_BYTES..).expect("a header and a body");
        assert_eq!(Hello::decode(body).expect("our own greeting"), hello);
    }
});
