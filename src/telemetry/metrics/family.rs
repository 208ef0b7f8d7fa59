//! Counts of one kind under one name, one for each combination of the values of its labels.
//!
//! Every combination has its place from the beginning, so counting is an addition at an index. What never happened is
//! not shown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::page::Page;

/// A label and every value that it may have. The last stands for all others, where there are others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    pub(super) name: &'static str,
    pub(super) values: &'static [&'static str],
}

impl Label {
    /// Where a value is in the list.
    pub(super) fn position(&self, value: &str) -> usize {
        self.values.iter().position(|known| *known == value).unwrap_or(self.values.len() - 1)
    }
}

/// The labels of a family: combinations of their values to indexes and back.
#[derive(Debug)]
struct Labels<const N: usize>([Label; N]);

impl<const N: usize> Labels<N> {
    fn combinations(&self) -> usize {
        self.0.iter().map(|label| label.values.len()).product()
    }

    fn index(&self, positions: [usize; N]) -> usize {
        self.0.iter().zip(positions).fold(0, |index, (label, position)| index * label.values.len() + position)
    }

    fn values(&self, mut index: usize) -> [(&'static str, &'static str); N] {
        let mut values = self.0.map(|label| (label.name, ""));
        for (value, label) in values.iter_mut().zip(&self.0).rev() {
            value.1 = label.values[index % label.values.len()];
            index /= label.values.len();
        }
        values
    }
}

fn cells(count: usize) -> Box<[AtomicU64]> {
    std::iter::repeat_with(AtomicU64::default).take(count).collect()
}

/// Numbers that only grow.
#[derive(Debug)]
pub(super) struct Counters<const N: usize> {
    labels: Labels<N>,
    counts: Box<[AtomicU64]>,
}

impl<const N: usize> Counters<N> {
    pub(super) fn new(labels: [Label; N]) -> Self {
        let labels = Labels(labels);
        Self { counts: cells(labels.combinations()), labels }
    }

    pub(super) fn add(&self, positions: [usize; N], more: u64) {
        if more > 0 {
            self.counts[self.labels.index(positions)].fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(super) fn show(&self, page: &mut Page, name: &str, help: &str) {
        page.counter(name, help);
        for (index, count) in self.counts.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            // Without labels there is one, which is there from the start.
            if count > 0 || N == 0 {
                page.sample(name, &self.labels.values(index), count);
            }
        }
    }
}

/// Upper bounds in seconds: from a manifest in memory to a layer of many gigabytes.
const BOUNDS: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];
/// The cells of one histogram: one for each bound, one for what is above all, and the sum in nanoseconds: what is
/// read from memory takes less than 3 microseconds.
const CELLS: usize = BOUNDS.len() + 2;
const SUM: usize = BOUNDS.len() + 1;

/// Durations, counted by how long they were.
#[derive(Debug)]
pub(super) struct Histograms<const N: usize> {
    labels: Labels<N>,
    cells: Box<[AtomicU64]>,
}

impl<const N: usize> Histograms<N> {
    pub(super) fn new(labels: [Label; N]) -> Self {
        let labels = Labels(labels);
        Self { cells: cells(labels.combinations() * CELLS), labels }
    }

    pub(super) fn observe(&self, positions: [usize; N], took: Duration) {
        let first = self.labels.index(positions) * CELLS;
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.cells[first + bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.cells[first + SUM].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(super) fn show(&self, page: &mut Page, name: &str, help: &str) {
        page.histogram(name, help);
        for (index, cells) in self.cells.chunks_exact(CELLS).enumerate() {
            let cells: Vec<u64> = cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
            let all: u64 = cells[..SUM].iter().sum();
            if all == 0 {
                continue;
            }
            let labels = self.labels.values(index);
            let mut below = 0;
            for (bound, count) in BOUNDS.iter().zip(&cells) {
                below += count;
                page.bucket(name, &labels, &format!("{bound:?}"), below);
            }
            page.bucket(name, &labels, "+Inf", all);
            page.sample(&format!("{name}_sum"), &labels, cells[SUM] as f64 / 1e9);
            page.sample(&format!("{name}_count"), &labels, all);
        }
    }
}
