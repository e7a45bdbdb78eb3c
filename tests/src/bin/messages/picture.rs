//! The picture: every run as a dot and the median as a line, by measure and system.

use std::error::Error;

use partita_tests::Result;
use partita_tests::machine::Kvm;
use partita_tests::messages::{Measure, Measured, System, median_of};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::output::{figure, kvm_name};

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn Error>>;

const WIDTH: u32 = 900;
const TOP: i32 = 64;
const TITLE: i32 = 30;
const ROW: i32 = 24;
/// Where names end, and the dots begin and end; medians are to the right of them.
const LEFT: i32 = 170;
const RIGHT: i32 = 780;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
const GREY: RGBColor = RGBColor(140, 140, 140);
/// Told apart by people who see colours differently too.
const BLUE: RGBColor = RGBColor(0, 90, 181);
const RED: RGBColor = RGBColor(196, 70, 1);

fn colour(system: System) -> RGBColor {
    match system {
        System::MpichShm | System::MpichTcp => RED,
        _ => BLUE,
    }
}

/// As SVG.
pub fn draw(measured: &Measured) -> Result<String> {
    let rows: i32 = Measure::ALL.into_iter().map(|it| panel_height(measured, it)).sum();
    let mut text = String::new();
    {
        let canvas =
            SVGBackend::with_string(&mut text, (WIDTH, (TOP + rows + 16) as u32)).into_drawing_area();
        paint(&canvas, measured).map_err(|error| format!("the picture: {error}"))?;
    }
    Ok(text)
}

fn systems(measured: &Measured, measure: Measure) -> Vec<System> {
    let has = |system: &System| median_of(&measured.runs, *system, measure).is_some();
    measured.systems().into_iter().filter(has).collect()
}

fn panel_height(measured: &Measured, measure: Measure) -> i32 {
    match systems(measured, measure).len() as i32 {
        0 => 0,
        rows => TITLE + ROW * rows + 8,
    }
}

fn paint(canvas: &Canvas, measured: &Measured) -> Drawn {
    canvas.fill(&WHITE)?;
    let write = |text: &str, size: i32, ink: &RGBColor, at: (i32, i32)| {
        canvas.draw_text(text, &(FONT, size).into_font().color(ink), at)
    };
    write("Messages side by side", 19, &INK, (24, 12))?;
    let turns = measured.plan.turns;
    let machine = &measured.machine;
    let state =
        if machine.kvm == Kvm::Emulated { format!(" · {}", kvm_name(machine.kvm)) } else { String::new() };
    let subtitle = format!(
        "{turns} turns, one dot each; the line is the median; logarithmic · {} processors, {}{state}",
        machine.processors, machine.model
    );
    write(&subtitle, 12, &GREY, (24, 38))?;
    let mut y = TOP;
    for measure in Measure::ALL {
        panel(canvas, measured, measure, y)?;
        y += panel_height(measured, measure);
    }
    Ok(canvas.present()?)
}

fn panel(canvas: &Canvas, measured: &Measured, measure: Measure, top: i32) -> Drawn {
    let style = |ink: &RGBColor, at: HPos| (FONT, 13).into_font().color(ink).pos(Pos::new(at, VPos::Center));
    let systems = systems(measured, measure);
    if systems.is_empty() {
        return Ok(());
    }
    let all =
        || measured.runs.iter().filter_map(|run| run.figures.get(&measure).copied()).filter(|it| *it > 0.0);
    let (low, high) = (all().fold(f64::MAX, f64::min) / 1.2, all().fold(f64::MIN_POSITIVE, f64::max) * 1.2);
    let place = |value: f64| LEFT + (f64::from(RIGHT - LEFT) * (value / low).ln() / (high / low).ln()) as i32;
    canvas.draw_text(measure.title(), &(FONT, 14).into_font().color(&INK), (24, top))?;
    for (index, system) in systems.into_iter().enumerate() {
        let y = top + TITLE + ROW * index as i32 + ROW / 2 - 4;
        canvas.draw_text(system.name(), &style(&INK, HPos::Right), (LEFT - 12, y))?;
        canvas.draw(&PathElement::new([(LEFT, y), (RIGHT, y)], GRID))?;
        let runs = measured.runs.iter().filter(|run| run.system == system);
        for value in runs.filter_map(|run| run.figures.get(&measure)).filter(|it| **it > 0.0) {
            canvas.draw(&Circle::new((place(*value), y), 4, colour(system).mix(0.45).filled()))?;
        }
        if let Some(median) = median_of(&measured.runs, system, measure).filter(|it| *it > 0.0) {
            let x = place(median);
            canvas.draw(&PathElement::new([(x, y - 8), (x, y + 8)], colour(system).stroke_width(2)))?;
            canvas.draw_text(&figure(median), &style(&colour(system), HPos::Left), (RIGHT + 12, y))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::measured;

    #[test]
    fn every_run_is_a_dot_and_every_system_has_its_median() {
        let mut measured = measured();
        let text = draw(&measured).unwrap();
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"), "{text}");
        assert_eq!(text.matches("<circle").count(), measured.runs.len() * Measure::ALL.len());
        for name in ["mpich-shm", "hosts", "8 B round trip [us]", "a processor"] {
            assert!(text.contains(name), "{name}");
        }
        assert!(!text.contains("EMULATED"));
        measured.machine.kvm = Kvm::Emulated;
        assert!(draw(&measured).unwrap().contains("EMULATED"));
        if let Some(directory) = std::env::var_os("PARTITA_KEEP_PICTURES") {
            std::fs::write(std::path::Path::new(&directory).join("messages.svg"), text).unwrap();
        }
    }

    #[test]
    fn a_picture_of_nothing_is_empty() {
        let mut measured = measured();
        measured.runs.clear();
        assert_eq!(draw(&measured).unwrap().matches("<circle").count(), 0);
    }
}
