//! What a destination is given before it builds a machine, and the saved state that it sets in one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::partition::{Blueprint, Saved};

fuzz_target!(|data: &[u8]| {
    if let Ok(blueprint) = Blueprint::decode(data) {
        for (address, bytes) in blueprint.regions() {
            assert!(address.checked_add(bytes).is_some());
        }
    }
    let _ = Saved::decode(data);
});
