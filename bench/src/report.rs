//! Figures: quantiles, bars, a table for people and a file for programs.

use crate::machine::Machine;
use eyre::{Result, WrapErr};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// One benchmark's outcome.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    command: String,
    machine: Machine,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// One measured quantity.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    unit: &'static str,
    samples: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    p50: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bars: Vec<Judged>,
}

/// What is asked of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    P50AtMost(f64),
    P99AtMost(f64),
    MaxAtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Serialize)]
struct Judged {
    bar: String,
    met: bool,
}

impl Report {
    pub(crate) fn new(name: &'static str, opg: &Path) -> Self {
        // The path of the binary says where somebody's home is; its name is enough.
        let mut words = std::env::args().skip(1).peekable();
        let mut command = vec!["cargo xtask bench".to_owned()];
        while let Some(word) = words.next() {
            if word == "--opg" || word == "--results" {
                words.next();
            } else {
                command.push(word);
            }
        }
        Self {
            name,
            command: command.join(" "),
            machine: Machine::of(opg),
            figures: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Times, in milliseconds.
    pub(crate) fn times(&mut self, name: &str, samples: &[Duration], bars: &[Bar]) {
        let samples: Vec<f64> = samples.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        self.samples(name, "ms", &samples, bars);
    }

    /// Any samples.
    pub(crate) fn samples(&mut self, name: &str, unit: &'static str, samples: &[f64], bars: &[Bar]) {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            self.note(format!("{name}: no samples"));
            return;
        }
        let (p50, p99) = (quantile(&sorted, 0.5), quantile(&sorted, 0.99));
        let (min, max) = (quantile(&sorted, 0.0), quantile(&sorted, 1.0));
        self.figures.push(Figure {
            name: name.into(),
            unit,
            samples: sorted.len(),
            min: Some(min),
            p50,
            p99: Some(p99),
            max: Some(max),
            bars: judge(unit, bars, p50, p99, max),
        });
    }

    /// A single value.
    pub(crate) fn value(&mut self, name: &str, unit: &'static str, value: f64, bars: &[Bar]) {
        let bars = judge(unit, bars, value, value, value);
        self.figures.push(Figure {
            name: name.into(),
            unit,
            samples: 1,
            min: None,
            p50: value,
            p99: None,
            max: None,
            bars,
        });
    }

    /// Something that a reader of the figures must know.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn print(&self) {
        println!("\n{}", self.name);
        for line in self.machine.lines() {
            println!("{line}");
        }
        println!("command   {}\n", self.command);
        println!(
            "{:<44} {:>5} {:>10} {:>10} {:>10}  {:<5} bar",
            "figure", "n", "p50", "p99", "max", "unit"
        );
        for figure in &self.figures {
            let optional = |value: Option<f64>| value.map_or_else(String::new, number);
            let bars: Vec<_> = figure
                .bars
                .iter()
                .map(|bar| format!("{} {}", bar.bar, if bar.met { "met" } else { "MISSED" }))
                .collect();
            println!(
                "{:<44} {:>5} {:>10} {:>10} {:>10}  {:<5} {}",
                figure.name,
                figure.samples,
                number(figure.p50),
                optional(figure.p99),
                optional(figure.max),
                figure.unit,
                bars.join(", ")
            );
        }
        for note in &self.notes {
            println!("note: {note}");
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).wrap_err_with(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(format!("{}.json", self.name));
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(&path, text).wrap_err_with(|| format!("cannot write {}", path.display()))
    }
}

fn judge(unit: &str, bars: &[Bar], p50: f64, p99: f64, max: f64) -> Vec<Judged> {
    let judged = |bar: &Bar| match *bar {
        Bar::P50AtMost(limit) => Judged {
            bar: format!("p50 <= {limit} {unit}"),
            met: p50 <= limit,
        },
        Bar::P99AtMost(limit) => Judged {
            bar: format!("p99 <= {limit} {unit}"),
            met: p99 <= limit,
        },
        Bar::MaxAtMost(limit) => Judged {
            bar: format!("max <= {limit} {unit}"),
            met: max <= limit,
        },
        Bar::AtLeast(limit) => Judged {
            bar: format!(">= {limit} {unit}"),
            met: p50 >= limit,
        },
    };
    bars.iter().map(judged).collect()
}

/// Nearest rank of sorted samples.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "few samples"
)]
fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn number(value: f64) -> String {
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        3
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&samples, 0.5), 50.0);
        assert_eq!(quantile(&samples, 0.99), 99.0);
        assert_eq!(quantile(&samples, 1.0), 100.0);
        assert_eq!(quantile(&samples, 0.0), 1.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn bars_look_at_their_own_quantile() {
        let met = |bar| judge("ms", &[bar], 1.0, 2.0, 3.0)[0].met;
        assert!(met(Bar::P50AtMost(1.0)) && !met(Bar::P50AtMost(0.9)));
        assert!(met(Bar::P99AtMost(2.0)) && !met(Bar::P99AtMost(1.9)));
        assert!(met(Bar::MaxAtMost(3.0)) && !met(Bar::MaxAtMost(2.9)));
        assert!(met(Bar::AtLeast(1.0)) && !met(Bar::AtLeast(1.1)));
    }
}
