//! How are counts written down? In Prometheus' text format 0.0.4, or in OpenMetrics 1.0 for who asks for it.
//!
//! They differ in little: OpenMetrics names a counter without its `_total` where it explains it, and ends with `# EOF`.

use std::fmt::{Display, Write as _};

/// The form of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// What an `Accept` header asks for: OpenMetrics where it is named and not liked less than plain text.
    pub fn accepted(accept: &str) -> Self {
        let liking = |wanted: &str| {
            let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
            let mut fitting = ranges.filter_map(|mut parts| {
                let named = parts.next()?.eq_ignore_ascii_case(wanted);
                named.then(|| parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0))
            });
            fitting.next().unwrap_or(0.0)
        };
        let open = liking("application/openmetrics-text");
        if open > 0.0 && open >= liking("text/plain") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page that is being written. Writing to a String does not fail.
pub(super) struct Page {
    text: String,
    exposition: Exposition,
}

impl Page {
    pub(super) fn new(exposition: Exposition) -> Self {
        Self { text: String::new(), exposition }
    }

    /// `name` ends with `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str) {
        let family = match self.exposition {
            Exposition::Prometheus => name,
            Exposition::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        self.family(family, "counter", help);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str) {
        self.family(name, "histogram", help);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        self.labels(labels.iter().copied());
        let _ = writeln!(self.text, " {value}");
    }

    pub(super) fn bucket(&mut self, name: &str, labels: &[(&str, &str)], bound: &str, count: u64) {
        let _ = write!(self.text, "{name}_bucket");
        self.labels(labels.iter().copied().chain([("le", bound)]));
        let _ = writeln!(self.text, " {count}");
    }

    fn labels<'l>(&mut self, labels: impl Iterator<Item = (&'l str, &'l str)>) {
        let mut before = '{';
        for (name, value) in labels {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.text, "{before}{name}=\"{value}\"");
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.exposition == Exposition::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}
