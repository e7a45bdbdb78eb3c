//! Proves: the Rust standard library starts, reads arguments and environment, allocates, tells the time, and a
//! panic is unwound and caught.
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

fn main() {
    println!("hello from Rust");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!("arguments: {arguments:?}");
    println!("HELLO is {:?}", std::env::var("HELLO").ok());
    let mut squares = HashMap::new();
    for i in 0..1000u64 {
        squares.insert(i, i * i);
    }
    println!("sum of squares: {}", squares.values().sum::<u64>());
    let start = Instant::now();
    std::panic::set_hook(Box::new(|info| println!("hook: {}", info.location().map_or(0, |l| l.line()) > 0)));
    let caught = std::panic::catch_unwind(|| panic!("on purpose"));
    println!("panic caught: {}", caught.is_err());
    println!("clock forward: {}", start.elapsed() < Duration::from_secs(3600));
    let dated = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|d| d.as_secs() > 1_500_000_000);
    println!("date after 2017: {dated}");
}
