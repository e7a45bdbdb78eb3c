//! What agents, the coordinator and clients send each other.
#![no_main]

use control::{Commands, CommandsRequest, Message, MigrateOrder, Report, Specification, decode};
use libfuzzer_sys::fuzz_target;

fn take<T: Message>(data: &[u8]) {
    let _ = decode::<T>(data);
}

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    match first % 5 {
        0 => take::<Commands>(body),
        1 => take::<CommandsRequest>(body),
        2 => take::<Report>(body),
        3 => take::<Specification>(body),
        _ => take::<MigrateOrder>(body),
    }
});
