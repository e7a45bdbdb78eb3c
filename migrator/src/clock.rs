//! The one place of this crate that asks what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on the monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Time of day, microseconds since 1970.
pub fn realtime_us() -> u64 {
    // Before 1970 only on a machine without a clock: then everything happened at 0.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_micros() as u64)
}

/// Sleeps for `duration`.
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// Milliseconds in `duration`, with their fraction.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
