//! Starting a VMM process that cannot outlive the agent.

use std::process::Stdio;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use tokio::process::{Child, Command};

/// Starts `command` with its output piped. The kernel kills it when the thread that called this ends, so call it only on
/// the agent's main thread.
pub(crate) fn spawn(mut command: Command) -> std::io::Result<Child> {
    let parent = Pid::this();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Its own process group: Ctrl-C in a terminal reaches the agent alone, which ends the partition in its own way.
    command.process_group(0).kill_on_drop(true);
    let prepare = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The agent may have died before the line above.
        if getppid() == parent { Ok(()) } else { Err(std::io::Error::from(nix::errno::Errno::ESRCH)) }
    };
    // SAFETY: between fork and exec the closure only makes two system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
