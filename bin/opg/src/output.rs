//! What goes to the terminal: documents and tables on stdout, progress and errors on stderr.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Where and how results are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// JSON on stdout instead of text.
    pub(crate) json: bool,
}

impl Output {
    /// Prints one result: `document` for programs, `text` for people.
    pub(crate) fn result<T: Serialize>(self, document: &T, text: impl FnOnce() -> String) -> eyre::Result<()> {
        if self.json {
            self.line(&serde_json::to_string(document)?)
        } else {
            self.line(text().trim_end_matches('\n'))
        }
    }

    /// Prints one line of a JSON stream.
    pub(crate) fn say_json<T: Serialize>(self, document: &T) -> eyre::Result<()> {
        self.line(&serde_json::to_string(document)?)
    }

    /// Prints a line of text for people: on stdout, or on stderr where stdout belongs to JSON.
    pub(crate) fn say(self, text: &str) {
        // A closed pipe must not end a command that is moving money; the exit code still tells the outcome.
        let _ = if self.json {
            writeln!(io::stderr(), "{text}")
        } else {
            self.line(text).map_err(io::Error::other)
        };
    }

    /// Prints a part of a stream at once, without a line break.
    pub(crate) fn piece(self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn line(self, text: &str) -> eyre::Result<()> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            // `opg … | head` is not an error of ours.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    /// A spinner on a terminal, nothing in a pipe.
    pub(crate) fn spinner(self, message: impl Into<String>) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner().with_message(message.into());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// A table with a header row, as wide as the terminal allows.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// A table of names and values.
pub(crate) fn facts<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

/// The first and last digits of a hash, for tables.
pub(crate) fn short(hash: impl ToString) -> String {
    let text = hash.to_string();
    match (text.get(..10), text.get(text.len().saturating_sub(6)..)) {
        (Some(head), Some(tail)) if text.len() > 20 => format!("{head}…{tail}"),
        _ => text,
    }
}
