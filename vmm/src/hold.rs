//! Holding a migration at a phase, so that fault-injection tests can kill or cut there.

use std::time::Duration;

/// Holds a migration at the phase named by `PARTITA_HOLD_AT` (as `Debug` prints it, like `Round(0)` or `Ready`) until the
/// file named by `PARTITA_HOLD_FILE`, which is made on entering, is removed: fault-injection tests kill or cut there.
pub fn hold<P: std::fmt::Debug>(side: &str, phase: P) {
    tracing::info!(side, ?phase, "migration");
    let wanted = std::env::var("PARTITA_HOLD_AT").unwrap_or_default();
    let Ok(file) = std::env::var("PARTITA_HOLD_FILE") else { return };
    if wanted != format!("{side}:{phase:?}") || std::fs::write(&file, b"held\n").is_err() {
        return;
    }
    let path = std::path::Path::new(&file);
    // Ten minutes at most: a forgotten hold must not keep a partition for ever.
    for _ in 0..60_000 {
        if !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
