//! Processor time of a process by the names of its threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

/// Seconds in user and kernel mode by name; threads of one name are added up. A process that is gone has none.
pub fn seconds(pid: i32) -> BTreeMap<String, f64> {
    let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |ticks| ticks as f64);
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let thread = read(&entry.path().join("stat"));
        if let Some((name, ticks)) = thread {
            *all.entry(name).or_insert(0.0) += ticks as f64 / ticks_per_s;
        }
    }
    all
}

fn read(path: &Path) -> Option<(String, u64)> {
    parse(&fs::read_to_string(path).ok()?)
}

/// Name and clock ticks of a line of `/proc/PID/task/TID/stat`, see proc(5): fields 2, 14 and 15.
fn parse(line: &str) -> Option<(String, u64)> {
    let (before, after) = line.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let mut fields = after.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((name.to_owned(), user + system))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_name_may_have_brackets_and_spaces() {
        let line = "7 (a) (b c) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 99";
        assert_eq!(parse(line), Some(("a) (b c".to_owned(), 300)));
        assert_eq!(parse("7 (vcpu) R 1 2"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn time_is_that_of_the_thread_that_spent_it() {
        let worker = std::thread::Builder::new().name("spends".into());
        let spent = worker.spawn(|| {
            let end = Instant::now() + Duration::from_millis(300);
            while Instant::now() < end {}
            seconds(std::process::id() as i32)["spends"]
        });
        let spent = spent.unwrap().join().unwrap();
        assert!(spent > 0.0 && spent < 0.5, "{spent}");
        assert!(seconds(i32::MAX).is_empty());
    }
}
