//! Metrics as Prometheus reads them, made anew for every question: nothing is kept, nothing is global.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Content type of the text.
pub const EXPOSITION_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values of the labels of one sample.
pub type Labels = Vec<(&'static str, String)>;

/// Metrics that are being collected. Every name begins with the sheet's prefix.
#[derive(Debug)]
pub struct Sheet {
    registry: Registry,
}

impl Sheet {
    /// Nothing yet.
    pub fn new(prefix: &str) -> Self {
        Self { registry: Registry::with_prefix(prefix) }
    }

    /// A value that rises and falls.
    pub fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in samples {
            if labels.is_empty() {
                // The only one of its name.
                let metric = Gauge::<f64, AtomicU64>::default();
                metric.set(value);
                return self.registry.register(name, help, metric);
            }
            family.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, family);
    }

    /// A value that only rises; `_total` is added to its name.
    pub fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in samples {
            if labels.is_empty() {
                // The only one of its name.
                let metric = Counter::<f64, AtomicU64>::default();
                metric.inc_by(value);
                return self.registry.register(name, help, metric);
            }
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    /// How values are distributed.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[f64],
        values: impl IntoIterator<Item = f64>,
    ) {
        let histogram = Histogram::new(bounds.iter().copied());
        values.into_iter().for_each(|value| histogram.observe(value));
        self.registry.register(name, help, histogram);
    }

    /// A metric that is kept elsewhere.
    pub fn keep(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }

    /// All of it as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_types_labels_and_an_end() -> Result<(), fmt::Error> {
        let mut sheet = Sheet::new("x");
        sheet.gauge("load", "How busy", [(vec![("host", "a\"b".to_owned())], 0.5)]);
        sheet.counter("moves", "Moves", [(vec![], 3.0)]);
        sheet.histogram("plan_seconds", "Planning", &[0.1, 1.0], [0.05, 0.5, 7.0]);
        let text = sheet.text()?;
        assert!(text.contains("# TYPE x_load gauge\nx_load{host=\"a\\\"b\"} 0.5\n"), "{text}");
        assert!(text.contains("x_moves_total 3.0\n"), "{text}");
        assert!(text.contains("x_plan_seconds_bucket{le=\"1.0\"} 2\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        Ok(())
    }
}
