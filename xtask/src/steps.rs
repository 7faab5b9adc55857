//! A list of timed steps, shown as a table at the end.

use eyre::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Debug)]
enum Outcome {
    Done,
    Failed(String),
    Skipped(String),
}

/// What ran, for how long, and how it ended.
#[derive(Debug)]
pub(crate) struct Steps {
    started: Instant,
    rows: Vec<(String, Outcome, Duration)>,
    /// Tests that passed and failed, over all steps.
    pub(crate) tests: Tests,
}

/// Counts of tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tests {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            rows: Vec::new(),
            tests: Tests::default(),
        }
    }
}

impl Steps {
    /// Runs a step; a failure is noted and the next step still runs.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce(&mut Tests) -> Result<()>) -> bool {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = work(&mut self.tests);
        let ok = result.is_ok();
        let outcome = match result {
            Ok(()) => Outcome::Done,
            Err(error) => {
                eprintln!("xtask: {name}: {error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        self.rows.push((name.to_owned(), outcome, start.elapsed()));
        ok
    }

    /// Runs a step without which nothing else makes sense.
    pub(crate) fn must<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("== {name}");
        let start = Instant::now();
        let value = work()?;
        self.rows.push((name.to_owned(), Outcome::Done, start.elapsed()));
        Ok(value)
    }

    /// Notes a step that the caller ran itself.
    pub(crate) fn done(&mut self, name: &str, time: Duration) {
        self.rows.push((name.to_owned(), Outcome::Done, time));
    }

    /// Notes, loudly, that a step did not run.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("\n== {name}: SKIPPED ({reason})");
        self.rows
            .push((name.to_owned(), Outcome::Skipped(reason.to_owned()), Duration::ZERO));
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints the table and the verdict.
    pub(crate) fn finish(self, task: &str) -> ExitCode {
        let mut failed = Vec::new();
        eprintln!("\n{:<28} {:>8}  result", "step", "time");
        for (name, outcome, time) in &self.rows {
            let result = match outcome {
                Outcome::Done => "ok".to_owned(),
                Outcome::Failed(reason) => {
                    failed.push(name.as_str());
                    format!("FAILED: {}", reason.lines().next().unwrap_or_default())
                }
                Outcome::Skipped(reason) => format!("SKIPPED: {reason}"),
            };
            eprintln!("{name:<28} {:>8}  {result}", clock(*time));
        }
        eprintln!("{:<28} {:>8}", "total", clock(self.elapsed()));
        let Tests {
            passed,
            failed: broken,
            skipped,
        } = self.tests;
        if passed + broken > 0 {
            eprintln!("xtask {task}: {passed} passed, {broken} failed, {skipped} skipped");
        }
        if failed.is_empty() {
            eprintln!("xtask {task}: ok");
            ExitCode::SUCCESS
        } else {
            eprintln!("xtask {task}: FAILED: {}", failed.join(", "));
            ExitCode::FAILURE
        }
    }
}

/// `m:ss`, or seconds with a decimal below one minute.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{}:{:02} m", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_does_not_stop_the_next() {
        let mut steps = Steps::default();
        assert!(!steps.step("first", |_| eyre::bail!("no")));
        assert!(steps.step("second", |tests| {
            tests.passed += 2;
            Ok(())
        }));
        assert_eq!(steps.tests.passed, 2);
        assert_eq!(steps.rows.len(), 2);
        assert!(matches!(steps.rows[0].1, Outcome::Failed(_)));
    }

    #[test]
    fn times_read_well() {
        assert_eq!(clock(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(clock(Duration::from_secs(125)), "2:05 m");
    }
}
