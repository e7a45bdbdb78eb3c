//! The one place of this crate that asks what time it is.

use std::time::{Duration, Instant};

/// Now, on the monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Sleeps for `duration`.
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// Milliseconds in `duration`, with their fraction.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
