//! Pictures of a case, as SVG: how long blackouts were, how much work was done when, and what the rounds sent.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::observe::WINDOW_US;
use super::output::{Measured, SystemMeasured};
use super::record::{Run, Slot, System};

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 480;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
const GREY: RGBColor = RGBColor(140, 140, 140);
/// Told apart by people who see colours differently too.
const BLUE: RGBColor = RGBColor(0, 90, 181);
const RED: RGBColor = RGBColor(196, 70, 1);
const SLOT_MS: f64 = WINDOW_US as f64 * 1e-3;
/// Points of a line of the timeline.
const POINTS_MAX: usize = 300;
const MIB: f64 = (1 << 20) as f64;

fn colour(system: System) -> RGBColor {
    match system {
        System::Partita => BLUE,
        System::Qemu => RED,
    }
}

/// File names and pictures of a case; a picture of which nothing is known is left out.
pub fn pictures(measured: &Measured) -> Vec<(String, Result<String, String>)> {
    let case = slug(&measured.case.name);
    let mut pictures = vec![("blackout", draw(|canvas| blackout(canvas, measured)))];
    if measured.systems.values().any(|system| typical(system).is_some_and(|run| !run.timeline.is_empty())) {
        pictures.push(("throughput", draw(|canvas| throughput(canvas, measured))));
    }
    let ours = measured.systems.get(&System::Partita).and_then(typical);
    if let Some(run) = ours.filter(|run| !run.reported.rounds.is_empty()) {
        pictures.push(("rounds", draw(|canvas| rounds(canvas, measured, run))));
    }
    pictures.into_iter().map(|(name, picture)| (format!("{case}{name}.svg"), picture)).collect()
}

/// The name of a case as the begin of a file name.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        match c.is_ascii_alphanumeric() {
            true => slug.push(c.to_ascii_lowercase()),
            false if slug.ends_with('-') || slug.is_empty() => {}
            false => slug.push('-'),
        }
    }
    if !slug.is_empty() && !slug.ends_with('-') {
        slug.push('-');
    }
    slug
}

fn draw(paint: impl FnOnce(&Canvas) -> Drawn) -> Result<String, String> {
    let mut text = String::new();
    {
        let canvas = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        let painted = canvas.fill(&WHITE).map_err(Into::into).and_then(|()| paint(&canvas));
        painted.and_then(|()| Ok(canvas.present()?)).map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// The run with the median blackout.
fn typical(system: &SystemMeasured) -> Option<&Run> {
    let blackout = |run: &&Run| run.observed_ms.unwrap_or(run.reported.blackout_ms);
    let mut runs: Vec<_> = system.runs.iter().collect();
    runs.sort_by(|a, b| blackout(a).total_cmp(&blackout(b)));
    runs.get(runs.len().saturating_sub(1) / 2).copied()
}

/// Title and subtitle; gives the area below them.
fn titled<'a>(canvas: &Canvas<'a>, measured: &Measured, title: &str) -> Result<Canvas<'a>, Box<dyn Error>> {
    let (top, rest) = canvas.split_vertically(54);
    top.draw_text(title, &(FONT, 19).into_font().color(&INK), (24, 12))?;
    let mut subtitle = measured.case.describe();
    if measured.emulated {
        subtitle.push_str(" · EMULATED MACHINE, no speeds");
    }
    top.draw_text(&subtitle, &(FONT, 12).into_font().color(&GREY), (24, 36))?;
    Ok(rest)
}

/// A name at the end of a line, in its colour.
fn label(text: String, at: (i32, i32), colour: RGBColor) -> Text<'static, (i32, i32), String> {
    let style = (FONT, 14).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Center));
    Text::new(text, at, style)
}

/// Names with a line of their colour before each, in a row.
fn legend(canvas: &Canvas, names: &[(String, RGBColor)]) -> Drawn {
    let mut x = 84;
    for (name, colour) in names {
        canvas.draw(&PathElement::new(vec![(x, 12), (x + 22, 12)], colour.stroke_width(3)))?;
        canvas.draw(&label(name.clone(), (x + 28, 12), INK))?;
        x += 28 + 7 * i32::try_from(name.len()).unwrap_or(0) + 24;
    }
    Ok(())
}

fn peer_name(measured: &Measured, system: System) -> String {
    match measured.peer.as_ref().filter(|_| system == System::Qemu) {
        None => "Partita".to_owned(),
        Some(peer) => format!("QEMU {} ({})", peer.version, peer.accelerator),
    }
}

/// Share of runs whose blackout was not longer than so many milliseconds.
fn blackout(canvas: &Canvas, measured: &Measured) -> Drawn {
    let mut series: Vec<(String, RGBColor, Vec<f64>)> = Vec::new();
    for (system, results) in &measured.systems {
        let who = peer_name(measured, *system);
        let observed: Vec<f64> = results.runs.iter().filter_map(|run| run.observed_ms).collect();
        let quiet: Vec<f64> = results.runs.iter().filter_map(|run| run.quiet_ms).collect();
        let source = || results.runs.iter().map(|run| run.reported.blackout_ms).collect();
        if observed.is_empty() {
            series.push((format!("{who}, source"), colour(*system), source()));
            continue;
        }
        series.push((format!("{who}, observed"), colour(*system), observed));
        if *system == System::Partita {
            series.push((format!("{who}, source"), RGBColor(110, 170, 220), source()));
            series.push(("longest gap, no move".to_owned(), GREY, quiet));
        }
    }
    let all = || series.iter().flat_map(|(_, _, values)| values.iter().copied()).filter(|v| *v > 0.0);
    let low = all().fold(f64::MAX, f64::min).min(1e6) / 1.3;
    let high = all().fold(0.0, f64::max).max(low * 2.0) * 1.3;
    let body = titled(canvas, measured, &format!("Blackout of {} migrations", measured.case.runs))?;
    let (names, body) = body.split_vertically(28);
    legend(&names, &series.iter().map(|(name, colour, _)| (name.clone(), *colour)).collect::<Vec<_>>())?;
    let mut chart = ChartBuilder::on(&body)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((low..high).log_scale().with_key_points(ticks(low, high)), 0.0..100.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style((FONT, 13).into_font().color(&INK))
        .x_desc("blackout [ms], logarithmic")
        .y_desc("runs not longer [%]")
        .x_label_formatter(&|ms| tick(*ms))
        .y_label_formatter(&|share| tick(*share))
        .draw()?;
    for (_, colour, mut values) in series {
        values.sort_by(f64::total_cmp);
        chart.draw_series(LineSeries::new(steps(&values, low, high), colour.stroke_width(2)))?;
    }
    Ok(())
}

/// The staircase of sorted values, in percent, within `low` and `high`.
fn steps(values: &[f64], low: f64, high: f64) -> Vec<(f64, f64)> {
    let share = |count: usize| count as f64 * 100.0 / values.len().max(1) as f64;
    let mut points = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let value = value.clamp(low, high);
        points.extend([(value, share(index)), (value, share(index + 1))]);
    }
    points
}

/// Round numbers of a logarithmic axis: 1, 2 and 5 of every decade, or only 1 if there are many.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let steps: &[f64] = if high / low < 1e4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let points = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
    points.filter(|point| (low..=high).contains(point)).collect()
}

/// A round number without what it does not need.
fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Work over time around the order to move, of the median runs.
fn throughput(canvas: &Canvas, measured: &Measured) -> Drawn {
    let runs: Vec<_> =
        measured.systems.iter().filter_map(|(s, results)| Some((*s, typical(results)?))).collect();
    let unit = runs.first().map_or("pages", |(_, run)| run.work_unit);
    let points = || runs.iter().flat_map(|(_, run)| &run.timeline);
    let first = points().map(|slot| slot.at_ms).fold(0.0, f64::min);
    let last = points().map(|slot| slot.at_ms).fold(1.0, f64::max);
    let high =
        runs.iter().flat_map(|(_, run)| means(&run.timeline)).map(|(_, work)| work).fold(1.0, f64::max)
            * 1.08;
    let (scale, prefix) = match high {
        high if high >= 2e6 => (1e6, "million "),
        high if high >= 2e3 => (1e3, "thousand "),
        _ => (1.0, ""),
    };
    let body = titled(canvas, measured, "Throughput around a move (the run with the median blackout)")?;
    let (names, body) = body.split_vertically(28);
    let name = |system: System, run: &Run| {
        let blackout = run.observed_ms.unwrap_or(run.reported.blackout_ms);
        let who = peer_name(measured, system);
        (format!("{who}: move {:.0} ms, blackout {blackout:.1} ms", run.total_ms), colour(system))
    };
    legend(&names, &runs.iter().map(|(system, run)| name(*system, run)).collect::<Vec<_>>())?;
    let mut chart = ChartBuilder::on(&body)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(first..last, 0.0..high / scale)?;
    // Behind the lines: from the order to the end of the move.
    for (system, run) in &runs {
        let area = Rectangle::new(
            [(0.0, 0.0), (run.total_ms.min(last), high / scale)],
            colour(*system).mix(0.10).filled(),
        );
        chart.draw_series([area])?;
    }
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style((FONT, 13).into_font().color(&INK))
        .x_desc("time since the order to move [ms]; shaded: the move")
        .y_desc(format!("{prefix}{unit} per second"))
        .x_label_formatter(&|ms| format!("{ms:.0}"))
        .y_label_formatter(&|work| tick(*work))
        .draw()?;
    for (system, run) in &runs {
        let line = means(&run.timeline).into_iter().map(|(at_ms, work)| (at_ms, work / scale));
        chart.draw_series(LineSeries::new(line, colour(*system).stroke_width(1)))?;
    }
    Ok(())
}

/// Time and work of the slots, of as many together as the picture has room for.
fn means(timeline: &[Slot]) -> Vec<(f64, f64)> {
    let together = timeline.len().div_ceil(POINTS_MAX).max(1);
    let mean = |slots: &[Slot]| {
        let count = slots.len() as f64;
        let sum = |value: fn(&Slot) -> f64| slots.iter().map(value).sum::<f64>();
        (sum(|slot| slot.at_ms + SLOT_MS / 2.0) / count, sum(|slot| slot.work_per_s) / count)
    };
    timeline.chunks(together).map(mean).collect()
}

/// What each round sent and left, of the median run.
fn rounds(canvas: &Canvas, measured: &Measured, run: &Run) -> Drawn {
    let rounds = &run.reported.rounds;
    let sent: Vec<f64> = rounds.iter().map(|round| round.bytes as f64 / MIB).collect();
    let left: Vec<f64> = rounds.iter().map(|round| round.dirty_pages_after as f64 * 4096.0 / MIB).collect();
    let all = || sent.iter().chain(&left).copied().filter(|mib| *mib > 0.0);
    let high = all().fold(0.01, f64::max) * 2.0;
    let low = (all().fold(f64::MAX, f64::min) / 2.0).clamp(1e-4, high / 10.0);
    let reason = run.reported.stop_reason.as_deref().unwrap_or("unknown");
    let title = format!("Rounds of the run with the median blackout (ended: {reason})");
    let body = titled(canvas, measured, &title)?;
    let (names, body) = body.split_vertically(28);
    legend(&names, &[("sent".to_owned(), BLUE), ("dirty afterwards".to_owned(), RED)])?;
    let count = rounds.len() as f64;
    let mut chart = ChartBuilder::on(&body)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.5..count - 0.5, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style((FONT, 13).into_font().color(&INK))
        .x_labels(rounds.len().clamp(1, 16) * 2 + 1)
        .x_desc("round; the last one is the blackout's")
        .y_desc("MiB, logarithmic")
        .x_label_formatter(&|x| if (x - x.round()).abs() < 1e-6 { format!("{x:.0}") } else { String::new() })
        .y_label_formatter(&|mib| tick(*mib))
        .draw()?;
    let bar = |index: usize, from: f64, to: f64, mib: f64, colour: RGBColor| {
        let x = index as f64;
        Rectangle::new([(x + from, low), (x + to, mib.max(low))], colour.filled())
    };
    chart.draw_series(sent.iter().enumerate().map(|(i, mib)| bar(i, -0.35, 0.0, *mib, BLUE)))?;
    chart.draw_series(left.iter().enumerate().map(|(i, mib)| bar(i, 0.0, 0.35, *mib, RED)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::measured;
    use super::*;

    /// Every element that is opened is closed, in order.
    fn is_well_formed(text: &str) -> bool {
        let mut open = Vec::new();
        for tag in text.split('<').skip(1) {
            let Some((inside, _)) = tag.split_once('>') else { return false };
            let name = inside.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or_default();
            match (inside.starts_with('/'), inside.ends_with('/') || inside.starts_with(['!', '?'])) {
                (true, _) if open.pop() != Some(name.to_owned()) => return false,
                (true, _) | (_, true) => {}
                _ => open.push(name.to_owned()),
            }
        }
        open.is_empty() && text.contains("<svg")
    }

    #[test]
    fn pictures_are_svg_with_names_and_units() {
        let pictures = pictures(&measured());
        let names: Vec<_> = pictures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["64-mib-blackout.svg", "64-mib-throughput.svg", "64-mib-rounds.svg"]);
        for ((name, picture), unit) in pictures.into_iter().zip(["[ms]", "[ms]", "MiB"]) {
            let picture = picture.unwrap();
            assert!(is_well_formed(&picture), "{name}");
            assert!(picture.contains(unit) && picture.contains("writer of 64 MiB"), "{name}");
            if let Some(directory) = std::env::var_os("PARTITA_KEEP_PICTURES") {
                std::fs::write(std::path::Path::new(&directory).join(name), picture).unwrap();
            }
        }
        assert!(!is_well_formed("<svg><g></svg></g>"));
    }

    #[test]
    fn a_case_without_observer_or_rounds_has_fewer_pictures() {
        let mut measured = measured();
        for run in measured.systems.values_mut().flat_map(|system| &mut system.runs) {
            run.observed_ms = None;
            run.quiet_ms = None;
            run.timeline.clear();
            run.reported.rounds.clear();
        }
        let pictures = pictures(&measured);
        assert_eq!(pictures.len(), 1);
        assert!(pictures.into_iter().all(|(_, picture)| picture.is_ok()));
    }

    #[test]
    fn a_logarithmic_axis_has_round_numbers_however_short_it_is() {
        assert_eq!(ticks(1.5, 7.0), [2.0, 5.0]);
        assert_eq!(ticks(0.3, 40.0), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(ticks(0.1, 1e5).len(), 7);
    }

    #[test]
    fn names_of_cases_become_file_names() {
        assert_eq!(slug("64 MiB, 10 ms"), "64-mib-10-ms-");
        assert_eq!(slug(""), "");
        assert_eq!(slug("../x"), "x-");
    }
}
