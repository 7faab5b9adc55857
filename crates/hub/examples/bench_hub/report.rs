//! Figures with their bars, a table for people and a file for programs.

use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// What is asked of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

pub(crate) struct Report {
    parts: Vec<String>,
    load: String,
    figures: Vec<Value>,
    notes: Vec<String>,
}

fn first_line(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").map_or_else(
        |_| "unknown".into(),
        |text| text.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
    )
}

impl Report {
    pub(crate) fn new(parts: &[String]) -> Self {
        Self {
            parts: parts.to_vec(),
            load: load(),
            figures: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// One value with what is asked of it.
    pub(crate) fn value(&mut self, name: &str, unit: &str, value: f64, bar: Option<Bar>) {
        self.add(
            json!({"name": name, "unit": unit, "samples": 1, "value": round(value)}),
            value,
            bar,
        );
    }

    /// Times in milliseconds; the bar is for the 99th percentile.
    pub(crate) fn times(&mut self, name: &str, mut milliseconds: Vec<f64>, bar: Option<Bar>) {
        milliseconds.sort_by(f64::total_cmp);
        let at = |q: f64| milliseconds[((milliseconds.len() - 1) as f64 * q).ceil() as usize];
        let figure = json!({
            "name": name, "unit": "ms", "samples": milliseconds.len(),
            "p50": round(at(0.5)), "p99": round(at(0.99)), "max": round(at(1.0)),
        });
        self.add(figure, at(0.99), bar);
    }

    fn add(&mut self, mut figure: Value, measured: f64, bar: Option<Bar>) {
        if let Some(bar) = bar {
            let (text, met) = match bar {
                Bar::AtMost(most) => (format!("<= {most}"), measured <= most),
                Bar::AtLeast(least) => (format!(">= {least}"), measured >= least),
            };
            figure["bar"] = json!({"bar": text, "met": met});
        }
        println!("{figure}");
        self.figures.push(figure);
    }

    /// Something that a reader of the figures must know.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        println!("note: {note}");
        self.notes.push(note);
    }

    /// Writes the file. A run of some parts keeps the others' figures of the file that is there.
    pub(crate) fn finish(mut self, target: &Path, whole: bool) {
        let known = std::fs::read(target)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if let (false, Some(known)) = (whole, known) {
            let mine: Vec<Value> = self.figures.iter().map(|figure| figure["name"].clone()).collect();
            let mut figures = known["figures"].as_array().cloned().unwrap_or_default();
            figures.retain(|figure| !mine.contains(&figure["name"]));
            figures.append(&mut self.figures);
            self.figures = figures;
            let kept = known["notes"].as_array().cloned().unwrap_or_default();
            let kept = kept.iter().filter_map(Value::as_str).map(str::to_owned);
            let mut notes: Vec<String> = kept.filter(|note| !self.notes.contains(note)).collect();
            notes.append(&mut self.notes);
            self.notes = notes;
        }
        let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
        let commit = commit.map_or_else(
            |_| String::new(),
            |out| String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        );
        let command = [&["cargo xtask bench hub".to_owned()], self.parts.as_slice()]
            .concat()
            .join(" ");
        let document = json!({
            "name": "hub",
            "command": command,
            "machine": {
                "cpu": first_line("/proc/cpuinfo", "model name"),
                "cores": std::thread::available_parallelism().map_or(1, usize::from),
                "memory": first_line("/proc/meminfo", "MemTotal"),
                "os": first_line("/etc/os-release", "PRETTY_NAME"),
                "opg": env!("CARGO_PKG_VERSION"),
                "commit": commit,
                "load_before": self.load,
                "load_after": load(),
            },
            "figures": self.figures,
            "notes": self.notes,
        });
        let text = serde_json::to_string_pretty(&document).expect("JSON");
        std::fs::write(target, text + "\n").expect("the file of results");
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
