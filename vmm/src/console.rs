//! Lines for people on standard error.

use std::fmt;
use std::io::{self, Write};

/// Writes one line in one piece: several partitions share a terminal. Nobody can be told when that fails.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
