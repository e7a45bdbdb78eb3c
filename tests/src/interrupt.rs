//! Measurements that signals end, which then clean up.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Result;

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGINT, SIGTERM and SIGHUP are only noted. (Signals that are blocked instead would be so in the programs that are
/// started as well, which could not be told to end.)
pub fn watch() -> Result {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, INTERRUPTED.clone())?;
    }
    Ok(())
}

/// Whether one has come.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// A measurement from its begin to the exit status of its program, `name`: 130 after a signal, 1 if something failed or if what was
/// promised, which is what `measure` says, is missed and that is asked for (`check`).
pub fn measurement(name: &str, check: bool, measure: impl FnOnce() -> Result<bool>) -> ExitCode {
    let done = watch().and_then(|()| measure());
    match done {
        _ if is_interrupted() => ExitCode::from(130),
        Ok(met) => ExitCode::from(u8::from(check && !met)),
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
