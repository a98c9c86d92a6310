//! The table.

use crate::load::Sample;

/// One kind of request by one way; each figure of every round.
pub struct Row {
    what: &'static str,
    side: &'static str,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Processor time of the process between, in microseconds a request.
    processor: Vec<f64>,
}

pub fn head() {
    println!("| bodies | way | p50 ms | p99 ms | over direct p50 | over direct p99 | processor µs a request |");
    println!("|---|---|---|---|---|---|---|");
}

impl Row {
    pub fn new(what: &'static str, side: &'static str) -> Self {
        Self { what, side, p50: Vec::new(), p99: Vec::new(), processor: Vec::new() }
    }

    pub fn add(&mut self, sample: &Sample, processor_seconds: Option<f64>) {
        self.p50.push(sample.quantile(0.5));
        self.p99.push(sample.quantile(0.99));
        self.processor.extend(processor_seconds.map(|seconds| seconds * 1e6 / f64::from(sample.asked)));
    }

    /// Differences are those of the same round.
    pub fn print(&self, direct: &Self) {
        let over = |mine: &[f64], base: &[f64]| median(mine.iter().zip(base).map(|(mine, base)| mine - base).collect());
        let processor =
            if self.processor.is_empty() { "–".to_owned() } else { format!("{:.0}", median(self.processor.clone())) };
        let (p50, p99) = (median(self.p50.clone()), median(self.p99.clone()));
        let (over50, over99) = (over(&self.p50, &direct.p50), over(&self.p99, &direct.p99));
        println!("| {} | {} | {p50:.2} | {p99:.2} | {over50:.2} | {over99:.2} | {processor} |", self.what, self.side);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
