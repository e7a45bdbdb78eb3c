//! Output of a partition on its way to the coordinator: bounded buffers with positions, and the VMM's own lines sorted out.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bytes kept of one stream; the partition's pipe is not read while it is full.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;
/// Bytes of one stream in one report.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// A VMM's own line begins like this; the rest of standard error is the program's.
const VMM_LINE: &[u8] = b"vmm: ";

#[derive(Debug, Default)]
struct State {
    /// Position of the first byte that this process writes; unknown until a partition has arrived.
    base: Option<u64>,
    /// Bytes of this process that the coordinator has.
    acknowledged: u64,
    data: VecDeque<u8>,
    closed: bool,
}

/// One stream of one process.
#[derive(Debug, Default)]
pub(crate) struct OutputBuffer {
    state: Mutex<State>,
    room: Notify,
}

impl OutputBuffer {
    /// A stream whose first byte has position `base`, if that is known.
    pub(crate) fn new(base: Option<u64>) -> Self {
        Self { state: Mutex::new(State { base, ..State::default() }), room: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of `bytes`, waiting for room.
    pub(crate) async fn push(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = {
                let mut state = self.state();
                let taken = bytes.len().min(BUFFER_BYTES.saturating_sub(state.data.len()));
                state.data.extend(&bytes[..taken]);
                taken
            };
            bytes = &bytes[taken..];
            if taken == 0 {
                self.room.notified().await;
            }
        }
    }

    /// Nothing more comes.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// The position of the first byte is known now; the first word counts.
    pub(crate) fn set_base(&self, base: u64) {
        self.state().base.get_or_insert(base);
    }

    /// Is the position of the first byte unknown?
    pub(crate) fn has_no_base(&self) -> bool {
        self.state().base.is_none()
    }

    /// Takes everything out; for a stream that never got a position.
    pub(crate) fn drain(&self) -> Vec<u8> {
        let mut state = self.state();
        let bytes: Vec<u8> = state.data.drain(..).collect();
        state.acknowledged += bytes.len() as u64;
        self.room.notify_one();
        bytes
    }

    /// The oldest bytes the coordinator does not have, with their position.
    pub(crate) fn chunk(&self) -> Option<(u64, Vec<u8>)> {
        let state = self.state();
        if state.data.is_empty() {
            return None;
        }
        Some((state.base? + state.acknowledged, state.data.iter().take(CHUNK_BYTES).copied().collect()))
    }

    /// The coordinator has everything before `next`. Returns whether that was news and more is waiting.
    pub(crate) fn acknowledge(&self, next: u64) -> bool {
        let mut state = self.state();
        let Some(base) = state.base else { return false };
        let news = next.saturating_sub(base + state.acknowledged).min(state.data.len() as u64);
        state.data.drain(..usize::try_from(news).unwrap_or(0));
        state.acknowledged += news;
        self.room.notify_one();
        news > 0 && !state.data.is_empty()
    }

    /// Closed and all of it with the coordinator.
    pub(crate) fn is_done(&self) -> bool {
        let state = self.state();
        state.closed && state.data.is_empty()
    }
}

/// Sorts standard error into the program's bytes and the VMM's lines.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// Start of a line that may become a VMM's.
    held: Vec<u8>,
    place: Place,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    LineStart,
    Program,
    Vmm,
}

impl Splitter {
    /// Sorts `bytes`: (the program's, the VMM's).
    pub(crate) fn split(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut program, mut vmm) = (Vec::new(), Vec::new());
        for &byte in bytes {
            match self.place {
                Place::LineStart => {
                    self.held.push(byte);
                    if !VMM_LINE.starts_with(&self.held) {
                        program.append(&mut self.held);
                        self.place = if byte == b'\n' { Place::LineStart } else { Place::Program };
                    } else if self.held.len() == VMM_LINE.len() {
                        vmm.append(&mut self.held);
                        self.place = Place::Vmm;
                    }
                    continue;
                }
                Place::Program => program.push(byte),
                Place::Vmm => vmm.push(byte),
            }
            if byte == b'\n' {
                self.place = Place::LineStart;
            }
        }
        (program, vmm)
    }

    /// What was held back and now is the program's.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vmm_s_lines_do_not_shift_the_program_s_positions() {
        for step in 1..20 {
            let mut splitter = Splitter::default();
            let (mut program, mut vmm) = (Vec::new(), Vec::new());
            for part in b"a\nvmm: x\n\nvm: b\nvmm: y\nc vmm: d\nvm".chunks(step) {
                let (more_program, more_vmm) = splitter.split(part);
                program.extend(more_program);
                vmm.extend(more_vmm);
            }
            program.extend(splitter.finish());
            assert_eq!(String::from_utf8_lossy(&program), "a\n\nvm: b\nc vmm: d\nvm");
            assert_eq!(String::from_utf8_lossy(&vmm), "vmm: x\nvmm: y\n");
        }
    }

    #[tokio::test]
    async fn a_full_buffer_waits_for_the_coordinator() {
        let buffer = OutputBuffer::new(Some(100));
        buffer.push(&vec![1; BUFFER_BYTES]).await;
        let full = tokio::time::timeout(std::time::Duration::from_millis(20), buffer.push(b"x")).await;
        assert!(full.is_err());
        assert_eq!(buffer.chunk().map(|(offset, data)| (offset, data.len())), Some((100, CHUNK_BYTES)));
        assert!(buffer.acknowledge(103));
        assert!(!buffer.acknowledge(50));
        buffer.push(b"yz").await;
        buffer.close();
        assert!(!buffer.is_done());
        assert!(!buffer.acknowledge(u64::MAX));
        assert!(buffer.is_done());
    }
}
