//! What goes to stderr: text for people; one JSON object a line where the log of a role that runs for long is collected.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal as _,
};

use tracing::Level;
use tracing_subscriber::EnvFilter;

/// How this process writes its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// For people.
    Text,
    /// JSON lines.
    Json,
}

impl Log {
    /// Starts the log. A role (`opg node full`, `inference`, `router`, `hub`) says what it does without being asked, and in JSON unless
    /// somebody watches it in a terminal.
    pub(crate) fn start(role: bool, verbose: u8) -> Self {
        // The engines below are talkative: they are heard two steps later than the product.
        let default = match verbose.saturating_add(u8::from(role)) {
            0 => "warn",
            1 => "warn,opg=info",
            2 => "info,opg=debug",
            _ => "debug,opg=trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        let terminal = std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        if role && !terminal {
            log.json().with_span_list(false).init();
            // What the standard library says about a panic is several lines of text.
            std::panic::set_hook(Box::new(|panic| {
                let backtrace = Backtrace::capture();
                let frames = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
                Self::Json.error(&panic.to_string(), frames.as_deref());
            }));
            Self::Json
        } else {
            log.with_ansi(terminal).init();
            Self::Text
        }
    }

    /// Says what ended the command: in the log if that is JSON and has errors in it, else as text.
    pub(crate) fn failure(self, text: &str) {
        self.error(text, None);
    }

    fn error(self, text: &str, backtrace: Option<&str>) {
        if self == Self::Json && tracing::enabled!(Level::ERROR) {
            tracing::error!(backtrace, "{text}");
        } else {
            eprintln!("error: {text}");
        }
    }
}
