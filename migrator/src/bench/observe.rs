//! What somebody who stays observes of a partition that moves: beats, the gaps between them, the work they tell of.
//!
//! Two observers give the same windows. The *host* observer is a thread of this process: each byte of the guest's output
//! is a beat (`tests/bench/load.h`). The *partner* is a partition that stays: it prints its windows (`tests/bench/observe.h`).

use std::io::{BufRead, BufReader, ErrorKind, PipeReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use migrator::clock;

/// Length of a window.
pub const WINDOW_US: u64 = 10_000;
/// What one unit of a beat's byte stands for, `PAGES_PER_UNIT` in `tests/bench/load.h`.
const PAGES_PER_UNIT: u64 = 64;
/// Windows kept: more than an hour of them, then the oldest go.
const WINDOWS_MAX: usize = 400_000;
/// Bytes of a line of the partner.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// Buckets of gap lengths: 8 for each power of two.
const BUCKETS: usize = 8 * 64;

/// What came in 10 ms, at least one beat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    /// Time of day at its begin, microseconds since 1970.
    pub begin_us: u64,
    /// Beats.
    pub beats: u64,
    /// Pages that the guest says to have written since the beats before.
    pub pages: u64,
    /// Longest gap that ended here.
    pub gap_max_ns: u64,
    /// How many gaps of which length.
    pub buckets: Vec<(u16, u32)>,
}

/// Bucket of a gap.
fn bucket_of(gap_ns: u64) -> u16 {
    let gap = gap_ns.max(1);
    let exponent = gap.ilog2();
    let part = if exponent >= 3 { gap >> (exponent - 3) } else { gap << (3 - exponent) } & 7;
    (8 * exponent) as u16 + part as u16
}

/// Longest gap that is in a bucket, up to one nanosecond.
fn bucket_end_ns(bucket: u16) -> f64 {
    let (exponent, part) = (i32::from(bucket / 8), f64::from(bucket % 8));
    2f64.powi(exponent) * (1.0 + (part + 1.0) / 8.0)
}

impl Window {
    /// A line of `tests/bench/observe.h`; `None` for any other line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("W ")?.split_ascii_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let mut window = Self {
            begin_us: number()?,
            beats: number()?,
            pages: number()?,
            gap_max_ns: number()?,
            buckets: Vec::new(),
        };
        for entry in words.next().unwrap_or_default().split(',').filter(|entry| !entry.is_empty()) {
            let (bucket, count) = entry.split_once(':')?;
            let bucket: u16 = bucket.parse().ok().filter(|bucket| usize::from(*bucket) < BUCKETS)?;
            window.buckets.push((bucket, count.parse().ok()?));
        }
        words.next().is_none().then_some(window)
    }
}

/// What was seen between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Seen {
    /// Beats.
    pub beats: u64,
    /// Pages written.
    pub pages: u64,
    /// Longest gap, milliseconds.
    pub gap_max_ms: f64,
    /// Length of the interval, seconds.
    pub seconds: f64,
}

/// Everything observed so far; the observer's thread adds to it.
#[derive(Debug, Clone, Default)]
pub struct Observation(Arc<Mutex<Vec<Window>>>);

impl Observation {
    fn lock(&self) -> MutexGuard<'_, Vec<Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, window: Window) {
        let mut windows = self.lock();
        if windows.len() >= WINDOWS_MAX {
            windows.drain(..WINDOWS_MAX / 2);
        }
        windows.push(window);
    }

    /// Up to when it is known what came.
    pub fn known_until_us(&self) -> u64 {
        self.lock().last().map_or(0, |window| window.begin_us + WINDOW_US)
    }

    /// Windows that begin in the interval, which is widened to whole windows; with gaps that end in it.
    pub fn between(&self, begin_us: u64, end_us: u64) -> Seen {
        let begin_us = begin_us - begin_us % WINDOW_US;
        let mut seen = Seen { seconds: end_us.saturating_sub(begin_us) as f64 * 1e-6, ..Seen::default() };
        for window in self.lock().iter().filter(|window| (begin_us..end_us).contains(&window.begin_us)) {
            seen.beats += window.beats;
            seen.pages += window.pages;
            seen.gap_max_ms = seen.gap_max_ms.max(window.gap_max_ns as f64 / 1e6);
        }
        seen
    }

    /// The windows of the interval, in order.
    pub fn windows(&self, begin_us: u64, end_us: u64) -> Vec<Window> {
        let inside = |window: &&Window| (begin_us..end_us).contains(&window.begin_us);
        self.lock().iter().filter(inside).cloned().collect()
    }
}

/// Length, milliseconds, that the part `part` of all gaps in `windows` does not exceed, to an eighth.
pub fn gap_quantile_ms<'a>(windows: impl IntoIterator<Item = &'a Window>, part: f64) -> Option<f64> {
    let mut counts = [0u64; BUCKETS];
    for (bucket, count) in windows.into_iter().flat_map(|window| &window.buckets) {
        if let Some(sum) = counts.get_mut(usize::from(*bucket)) {
            *sum += u64::from(*count);
        }
    }
    let total: u64 = counts.iter().sum();
    let wanted = (part * total as f64).ceil() as u64;
    let mut sum = 0;
    let reached = |count: &u64| {
        sum += count;
        sum >= wanted
    };
    let bucket = counts.iter().position(reached).filter(|_| total > 0)?;
    Some(bucket_end_ns(bucket as u16) * 1e-6)
}

/// Makes windows of beats.
#[derive(Debug, Default)]
pub struct Windows {
    current: Window,
    last: Option<Duration>,
}

impl Windows {
    /// Beats that came together at `now` (any steady clock) and `realtime_us`; gives the window that they end.
    pub fn beats(&mut self, bytes: &[u8], now: Duration, realtime_us: u64) -> Option<Window> {
        let last = self.last.replace(now);
        let begin_us = realtime_us - realtime_us % WINDOW_US;
        let Some(last) = last else {
            self.current.begin_us = begin_us;
            return None;
        };
        let ended = (begin_us != self.current.begin_us)
            .then(|| std::mem::replace(&mut self.current, Window { begin_us, ..Window::default() }));
        // Of beats that were read together only the first has a gap that says something.
        let gap_ns = u64::try_from(now.saturating_sub(last).as_nanos()).unwrap_or(u64::MAX);
        self.current.gap_max_ns = self.current.gap_max_ns.max(gap_ns);
        self.current.beats += bytes.len() as u64;
        self.current.pages += bytes.iter().map(|byte| u64::from(*byte) * PAGES_PER_UNIT).sum::<u64>();
        let bucket = bucket_of(gap_ns);
        match self.current.buckets.iter_mut().find(|entry| entry.0 == bucket) {
            Some(entry) => entry.1 += 1,
            None => self.current.buckets.push((bucket, 1)),
        }
        ended
    }
}

/// Who observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Observer {
    /// A partition that stays and gets a message with every beat.
    Partner,
    /// This process: each byte of the guest's output is a beat. The only one for both systems of `--peer`.
    Host,
    /// Nobody: only what the source reports.
    None,
}

/// Starts observing what comes through `pipe`, until its end.
pub fn start(observer: Observer, pipe: PipeReader) -> (Observation, JoinHandle<()>) {
    let observation = Observation::default();
    let seen = observation.clone();
    let thread = std::thread::spawn(move || match observer {
        Observer::Partner => read_lines(pipe, &seen),
        Observer::Host => read_beats(pipe, &seen),
        // Somebody has to read what the program prints, or it stops.
        Observer::None => drop(std::io::copy(&mut { pipe }, &mut std::io::sink())),
    });
    (observation, thread)
}

fn read_beats(mut pipe: PipeReader, seen: &Observation) {
    let begin = clock::now();
    let mut windows = Windows::default();
    let mut bytes = [0; 4096];
    loop {
        match pipe.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                let beats = bytes.get(..count).unwrap_or_default();
                windows
                    .beats(beats, begin.elapsed(), clock::realtime_us())
                    .into_iter()
                    .for_each(|w| seen.push(w));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn read_lines(pipe: PipeReader, seen: &Observation) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                Window::parse(text.trim_end()).into_iter().for_each(|window| seen.push(window));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_of_the_partner_are_read_and_others_are_not() {
        let window = Window::parse("W 1790000000010000 250 1200 61000 123:249,126:1").unwrap();
        assert_eq!((window.begin_us, window.beats, window.pages), (1_790_000_000_010_000, 250, 1200));
        assert_eq!((window.gap_max_ns, window.buckets), (61_000, vec![(123, 249), (126, 1)]));
        for line in [
            "",
            "W",
            "W 1 2 3",
            "heat: done",
            "W 1 2 3 4 5",
            "W 1 2 3 4 600:1",
            "W 1 2 3 4 5:6 7",
            "W 1 2 3 -4 ",
        ] {
            assert_eq!(Window::parse(line), None, "{line}");
        }
    }

    #[test]
    fn buckets_hold_their_gaps_to_an_eighth() {
        for gap in [1u64, 2, 7, 8, 9, 1000, 40_000, 41_000, 1 << 40, u64::MAX] {
            let end = bucket_end_ns(bucket_of(gap));
            assert!(gap as f64 <= end && end <= gap as f64 * 1.25 + 1.0, "{gap} {end}");
        }
        assert_eq!(bucket_of(0), 0);
        assert!(usize::from(bucket_of(u64::MAX)) < BUCKETS);
    }

    #[test]
    fn a_gap_is_counted_in_the_window_in_which_it_ends() {
        let mut windows = Windows::default();
        let mut beat = |ms: u64, byte: u8| windows.beats(&[byte], Duration::from_millis(ms), ms * 1000);
        assert_eq!([beat(1, 1), beat(2, 1), beat(9, 0)], [const { None }; 3]);
        let first = beat(31, 2).unwrap();
        assert_eq!((first.begin_us, first.beats, first.pages, first.gap_max_ns), (0, 2, 64, 7_000_000));
        let second = beat(40, 0).unwrap();
        assert_eq!(
            (second.begin_us, second.beats, second.pages, second.gap_max_ns),
            (30_000, 1, 128, 22_000_000)
        );
    }

    #[test]
    fn intervals_and_quantiles_come_from_their_windows() {
        let observation = Observation::default();
        for (begin_us, gap_max_ns, bucket) in [(0, 5, 2u16), (10_000, 900_000, 100), (20_000, 7, 2)] {
            let buckets = vec![(bucket, 1), (16, 98)];
            observation.push(Window { begin_us, beats: 99, pages: 10, gap_max_ns, buckets });
        }
        let seen = observation.between(12_000, 20_000);
        assert_eq!((seen.beats, seen.pages, seen.gap_max_ms, seen.seconds), (99, 10, 0.9, 0.01));
        assert_eq!(observation.known_until_us(), 30_000);
        let windows = observation.windows(0, 30_000);
        assert_eq!(gap_quantile_ms(&windows, 0.5), Some(bucket_end_ns(16) * 1e-6));
        assert_eq!(gap_quantile_ms(&windows, 1.0), Some(bucket_end_ns(100) * 1e-6));
        assert_eq!(gap_quantile_ms(&[], 0.5), None);
    }

    #[test]
    fn a_pipe_is_observed_until_its_end() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (observation, thread) = start(Observer::Partner, reader);
        writer.write_all(b"hello\nW 20000 3 4 5 1:2\nW 30000 3 4 5").unwrap();
        drop(writer);
        thread.join().unwrap();
        assert_eq!(observation.windows(0, u64::MAX).len(), 2);
    }
}
