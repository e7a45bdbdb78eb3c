//! `coordinator top`: hosts, moves and partitions on one screen, drawn from what the API says; a frame is a pure function.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use control::{ApplicationView, EventView, HostView, MoveView, PartitionView};
use crossterm::event::{Event, KeyCode, KeyModifiers};
use crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, queue};
use serde::Serialize;

/// Width of a bar, in characters.
const BAR: usize = 20;
/// What was decided or happened last, in lines.
const REASONS: usize = 5;

/// What a frame shows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Overview {
    /// All hosts.
    pub hosts: Vec<HostView>,
    /// Partitions of applications that have not ended.
    pub partitions: Vec<PartitionView>,
    /// All applications.
    pub applications: Vec<ApplicationView>,
    /// The newest events, oldest first.
    pub events: Vec<EventView>,
    /// Why there is nothing new, if there is not.
    pub trouble: Option<String>,
}

impl Overview {
    fn moves(&self) -> impl Iterator<Item = &MoveView> {
        let other = self.applications.iter().flat_map(|it| &it.other_moves);
        other.filter(|it| it.state != "failed")
    }
}

fn bar(share: f64) -> String {
    let full = ((share.clamp(0.0, 1.0) * BAR as f64).round() as usize).min(BAR);
    format!("[{}{}]", "|".repeat(full), " ".repeat(BAR - full))
}

/// The lines of a frame; no more than `height`, none wider than `width` characters.
pub fn frame(it: &Overview, width: usize, height: usize) -> Vec<String> {
    let running = it.applications.iter().filter(|app| app.exit_status.is_none()).count();
    let moves: Vec<&MoveView> = it.moves().collect();
    let mut lines = vec![format!(
        "partita  {} hosts, {running} applications, {} partitions, {} moves under way        q: quit",
        it.hosts.len(),
        it.partitions.len(),
        moves.len()
    )];
    if let Some(trouble) = &it.trouble {
        lines.push(format!("! {trouble}"));
    }
    // Every part gets its share of a small screen; partitions take what is left.
    let third = height.saturating_sub(lines.len()) / 3;
    lines.push(String::new());
    lines.push(format!("{:<16} {:<9} {:<22} {:>6} {:>6}  MEMORY", "HOST", "STATE", "LOAD", "BUSY", "PARTS"));
    lines.extend(it.hosts.iter().take(third.max(2)).map(host));
    if it.hosts.len() > third.max(2) {
        lines.push(format!("… {} more hosts", it.hosts.len() - third.max(2)));
    }
    lines.push(String::new());
    for it in moves.iter().take(3) {
        let (id, app, rank) = (it.id, &it.application, it.rank);
        lines.push(format!(
            "move {id}: {app} rank {rank} {} -> {} {}: {}",
            it.from, it.to, it.state, it.reason
        ));
    }
    let newest = it.events.iter().rev().filter(|event| event.reason.is_some() || event.kind == "move-done");
    lines.extend(newest.take(REASONS).map(happened));
    lines.push(String::new());
    lines.push(format!(
        "{:<24} {:>5} {:<16} {:<22} {:<9} {:>9} {:>6}",
        "APPLICATION", "RANK", "HOST", "LOAD", "STATE", "MEMORY", "MOVES"
    ));
    let mut busiest: Vec<&PartitionView> = it.partitions.iter().collect();
    busiest.sort_by(|a, b| {
        b.load.total_cmp(&a.load).then_with(|| (&a.application, a.rank).cmp(&(&b.application, b.rank)))
    });
    lines.extend(busiest.into_iter().map(partition));
    lines.truncate(height);
    lines.into_iter().map(|line| printable(&line, width)).collect()
}

/// Without control characters (reasons have text of programs in them), and not wider than the screen.
fn printable(line: &str, width: usize) -> String {
    line.chars().map(|it| if it.is_control() { ' ' } else { it }).take(width).collect()
}

fn host(it: &HostView) -> String {
    format!(
        "{:<16} {:<9} {} {:>4.0} % {:>6}  {}/{} MiB",
        it.name,
        it.state,
        bar(it.utilisation),
        100.0 * it.utilisation,
        it.partitions,
        it.memory_used_bytes >> 20,
        it.memory_bytes >> 20
    )
}

fn happened(it: &EventView) -> String {
    let about = it.application.as_ref().map(|id| format!("{id}: ")).unwrap_or_default();
    let reason = it.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("· {about}{}{reason}", it.text)
}

fn partition(it: &PartitionView) -> String {
    let state = it.state.and_then(|state| serde_json::to_value(state).ok());
    let state = state.and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_else(|| "-".to_owned());
    format!(
        "{:<24} {:>5} {:<16} {} {:<9} {:>5} MiB {:>6}",
        it.application,
        it.rank,
        it.host,
        bar(it.load),
        state,
        it.resident_kib >> 10,
        it.moves
    )
}

/// The screen while `top` runs; as it was before when this is dropped.
struct Screen;

impl Screen {
    fn open() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        crossterm::execute!(std::io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    fn draw(&self, overview: &Overview) -> std::io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut out = std::io::stdout().lock();
        queue!(out, cursor::MoveTo(0, 0))?;
        let lines = frame(overview, usize::from(width), usize::from(height));
        for (row, line) in (0..).zip(&lines) {
            queue!(out, cursor::MoveTo(0, row))?;
            write!(out, "{line}")?;
            queue!(out, terminal::Clear(terminal::ClearType::UntilNewLine))?;
        }
        if lines.len() < usize::from(height) {
            queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
        }
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = crossterm::execute!(std::io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// Was the program told to end within this time?
fn quits(wait: Duration) -> std::io::Result<bool> {
    let end = std::time::Instant::now() + wait;
    while crossterm::event::poll(end.saturating_duration_since(std::time::Instant::now()))? {
        match crossterm::event::read()? {
            Event::Key(key) if key.code == KeyCode::Char('q') || key.code == KeyCode::Esc => return Ok(true),
            Event::Key(key)
                if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) =>
            {
                return Ok(true);
            }
            // The size has changed: draw at once.
            Event::Resize(..) => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

/// Shows what `look` finds, every `period`, until somebody quits.
pub async fn run(mut look: impl AsyncFnMut() -> Overview, period: Duration) -> std::io::Result<()> {
    if !std::io::stdout().is_terminal() {
        return Err(std::io::Error::other("this is no terminal; use --once or --json"));
    }
    let screen = Screen::open()?;
    loop {
        screen.draw(&look().await)?;
        if quits(period)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    fn overview() -> Result<Overview> {
        let host = |name: &str, utilisation: f64| -> Result<HostView> {
            Ok(serde_json::from_value(
                serde_json::json!({"name": name, "state": "active", "cpus": [0], "memory_bytes": 1 << 30,
                "memory_used_bytes": 1 << 28, "partitions": 2, "load": utilisation, "utilisation": utilisation,
                "silent_s": 0.1, "labels": []}),
            )?)
        };
        let partition = |rank: u32, load: f64| -> Result<PartitionView> {
            Ok(serde_json::from_value(
                serde_json::json!({"application": "heat-1", "rank": rank, "host": "a", "epoch": 1,
                "state": "running", "pid": 1, "exit_status": null, "load": load, "steal": 0.0, "progress": 1,
                "resident_kib": 40960, "dirty_pages_per_s": null, "moves": 3, "last_blackout_ms": null}),
            )?)
        };
        let event: EventView = serde_json::from_value(
            serde_json::json!({"sequence": 1, "time_ms": 0, "kind": "move-started",
            "application": "heat-1", "rank": 1, "host": "a", "text": "move 7 from a to b", "reason": "im\u{1b}[2Jbalance"}),
        )?;
        Ok(Overview {
            hosts: vec![host("a", 0.75)?, host("b", 0.0)?],
            partitions: (0..50)
                .map(|rank| partition(rank, f64::from(rank) / 100.0))
                .collect::<Result<_>>()?,
            events: vec![event],
            ..Overview::default()
        })
    }

    #[test]
    fn a_frame_shows_loads_reasons_and_the_busiest_partitions_first() -> Result {
        let lines = frame(&overview()?, 120, 40);
        let text = lines.join("\n");
        assert!(
            text.contains("a                active    [|||||||||||||||     ]   75 %      2  256/1024 MiB"),
            "{text}"
        );
        assert!(
            text.contains("· heat-1: move 7 from a to b (im [2Jbalance)"),
            "no control characters: {text}"
        );
        let first = lines.iter().find(|line| line.starts_with("heat-1 ")).ok_or("no partition")?;
        assert!(first.contains("   49 a") && first.contains("40 MiB      3"), "{first}");
        Ok(())
    }

    #[test]
    fn a_frame_fits_every_screen() -> Result {
        let overview = overview()?;
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            let lines = frame(&overview, width, height);
            assert!(
                lines.len() <= height && lines.iter().all(|line| line.chars().count() <= width),
                "{width}x{height}"
            );
        }
        Ok(())
    }
}
