//! Series and communication matrices for people.

use control::{SeriesAnswer, SeriesView, TrafficPair, TrafficView};

use super::{maybe, table};
use crate::lbaf::export::Exported;

/// Intervals in a picture of a series.
const WIDTH: usize = 60;
/// Applications with more ranks are shown as a list of pairs.
const MATRIX_RANKS: u32 = 16;
/// Pairs in such a list.
const PAIRS: usize = 30;

/// `coordinator series`.
pub fn series(it: &SeriesAnswer) -> String {
    let mut rows = Vec::new();
    for series in &it.series {
        for (name, values) in it.names.iter().zip(&series.values) {
            let known: Vec<f32> = values.iter().flatten().copied().collect();
            let Some(last) = known.last() else { continue };
            let mean = known.iter().map(|it| f64::from(*it)).sum::<f64>() / known.len() as f64;
            let (min, max) =
                known.iter().fold((f32::MAX, f32::MIN), |(min, max), it| (min.min(*it), max.max(*it)));
            rows.push(vec![
                of(series),
                name.clone(),
                number(f64::from(*last)),
                number(mean),
                number(f64::from(min)),
                number(f64::from(max)),
                picture(&values[values.len().saturating_sub(WIDTH)..], max),
            ]);
        }
    }
    let head = format!("LAST {} INTERVALS OF {} s (from 0 to the greatest)", WIDTH, it.period_ms / 1000);
    table(&["OF", "NAME", "NOW", "MEAN", "MIN", "MAX", &head], &rows)
}

/// `coordinator plan --to-lbaf`.
pub fn exported(it: &Exported) -> String {
    format!(
        "{}: {} hosts as ranks, {} partitions as tasks, {} communications; plan it with `coordinator plan --from-lbaf`\n",
        it.directory.display(),
        it.hosts.len(),
        it.tasks,
        it.communications
    )
}

fn of(it: &SeriesView) -> String {
    match (&it.host, &it.application, it.rank) {
        (Some(host), _, _) => format!("host {host}"),
        (_, Some(application), Some(rank)) => format!("{application} rank {rank}"),
        _ => "-".to_owned(),
    }
}

/// A number with three digits and a decimal prefix.
pub fn number(value: f64) -> String {
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match steps.iter().find(|(unit, _)| value.abs() >= *unit) {
        Some((unit, prefix)) => format!("{:.2}{prefix}", value / unit),
        None if value != 0.0 && value.abs() < 0.01 => format!("{value:.5}"),
        None => format!("{value:.3}"),
    }
}

fn picture(values: &[Option<f32>], max: f32) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let level = |value: f32| if max > 0.0 { (value.max(0.0) / max * 7.0).round() as usize } else { 0 };
    values.iter().map(|it| it.map_or(' ', |value| LEVELS[level(value).min(7)])).collect()
}

/// `coordinator traffic`.
pub fn traffic(it: &TrafficView) -> String {
    let mut text = format!(
        "{}: {}B/s between hosts, {}B/s within hosts, {} pairs\n\n",
        it.application,
        number(it.remote_bytes_per_s),
        number(it.local_bytes_per_s),
        it.pairs.len()
    );
    if it.ranks <= MATRIX_RANKS {
        text.push_str(&matrix(it));
        text.push('\n');
    }
    let mut pairs: Vec<&TrafficPair> = it.pairs.iter().collect();
    pairs.sort_by(|a, b| b.bytes_per_s.total_cmp(&a.bytes_per_s));
    let row = |it: &&TrafficPair| {
        vec![
            it.from.to_string(),
            it.to.to_string(),
            if it.remote { "other host" } else { "same host" }.to_owned(),
            number(it.bytes_per_s),
            number(it.bytes as f64),
            it.messages.to_string(),
            maybe(it.round_trip_ns, |ns| format!("{:.1} us", ns as f64 / 1000.0)),
        ]
    };
    text.push_str(&table(
        &["FROM", "TO", "WHERE", "BYTES/S", "BYTES", "MESSAGES", "ROUND TRIP"],
        &pairs.iter().take(PAIRS).map(row).collect::<Vec<_>>(),
    ));
    if pairs.len() > PAIRS {
        text.push_str(&format!("… and {} more; --json has all\n", pairs.len() - PAIRS));
    }
    text
}

fn matrix(it: &TrafficView) -> String {
    let ranks = 0..it.ranks;
    let cell = |from: u32, to: u32| {
        let pair = it.pairs.iter().find(|it| (it.from, it.to) == (from, to));
        pair.map_or_else(|| ".".to_owned(), |pair| number(pair.bytes_per_s))
    };
    let row = |from: u32| {
        let cells = ranks.clone().map(|to| cell(from, to));
        std::iter::once(from.to_string()).chain(cells).collect::<Vec<_>>()
    };
    let head: Vec<String> =
        std::iter::once("B/s FROM\\TO".to_owned()).chain(ranks.clone().map(|to| to.to_string())).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(&head, &ranks.clone().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_drawn_with_its_gaps() -> Result<(), control::IdError> {
        let series = SeriesView {
            host: Some("a".parse()?),
            application: None,
            rank: None,
            first_ms: 0,
            values: vec![vec![Some(0.0), None, Some(0.5), Some(1.0)], vec![None; 4]],
        };
        let names = vec!["load".to_owned(), "sent".to_owned()];
        let text = super::series(&SeriesAnswer { period_ms: 5000, kept: 180, names, series: vec![series] });
        assert!(text.contains("host a  load  1.000  0.500  0.000  1.000  ▁ ▅█"), "{text}");
        assert!(!text.contains("sent"), "what was never measured is not shown");
        Ok(())
    }

    #[test]
    fn a_matrix_shows_who_sends_to_whom() -> Result<(), control::IdError> {
        let pair = TrafficPair {
            from: 0,
            to: 2,
            remote: true,
            bytes_per_s: 1500.0,
            bytes: 3_000_000,
            messages: 7,
            round_trip_ns: Some(8_200),
        };
        let view = TrafficView {
            application: "heat-1".parse()?,
            ranks: 3,
            remote_bytes_per_s: 1500.0,
            local_bytes_per_s: 0.0,
            pairs: vec![pair],
        };
        let text = traffic(&view);
        assert!(text.contains("0            .  .  1.50k"), "{text}");
        assert!(text.contains("other host  1.50k    3.00M  7         8.2 us"), "{text}");
        Ok(())
    }
}
