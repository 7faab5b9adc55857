//! Child processes with the common environment.

use crate::context::Context;
use eyre::{Result, WrapErr, bail, eyre};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// A command that runs in the repository with the environment of a [`Context`].
#[derive(Debug)]
pub(crate) struct Cmd {
    inner: Command,
}

impl Cmd {
    pub(crate) fn new(context: &Context, program: impl AsRef<OsStr>) -> Self {
        let mut inner = Command::new(program);
        inner.current_dir(&context.root).envs(context.env());
        // `cargo run` describes xtask's own package here; a child must not take it for its own.
        for (name, _) in std::env::vars_os() {
            if let Some(text) = name.to_str()
                && (text.starts_with("CARGO_PKG_")
                    || text.starts_with("CARGO_MANIFEST_")
                    || text == "CARGO_PRIMARY_PACKAGE")
            {
                inner.env_remove(text);
            }
        }
        Self { inner }
    }

    pub(crate) fn cargo(context: &Context) -> Self {
        Self::new(context, std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.inner.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.inner.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// Runs it, its output going where ours goes.
    pub(crate) fn run(mut self) -> Result<()> {
        let shown = self.show();
        eprintln!("$ {shown}");
        let status = self
            .inner
            .status()
            .wrap_err_with(|| format!("cannot start `{shown}`"))?;
        if !status.success() {
            bail!("`{shown}` failed ({status})");
        }
        Ok(())
    }

    /// Runs it without showing its output, of which an error has the end.
    pub(crate) fn quiet(mut self) -> Result<()> {
        const LINES: usize = 20;
        let shown = self.show();
        eprintln!("$ {shown}");
        let output = self
            .inner
            .output()
            .wrap_err_with(|| format!("cannot start `{shown}`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.lines().collect();
            let end = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
            bail!("`{shown}` failed ({}):\n{}", output.status, end.join("\n"));
        }
        Ok(())
    }

    /// Runs it, copying one of its streams to ours and showing each line to `line` as well.
    pub(crate) fn watch(mut self, stream: Stream, mut line: impl FnMut(&str)) -> Result<()> {
        let shown = self.show();
        eprintln!("$ {shown}");
        match stream {
            Stream::Out => self.inner.stdout(Stdio::piped()),
            Stream::Err => self.inner.stderr(Stdio::piped()),
        };
        let mut child = self.inner.spawn().wrap_err_with(|| format!("cannot start `{shown}`"))?;
        let source: Box<dyn std::io::Read> = match stream {
            Stream::Out => Box::new(child.stdout.take().ok_or_else(|| eyre!("no stdout"))?),
            Stream::Err => Box::new(child.stderr.take().ok_or_else(|| eyre!("no stderr"))?),
        };
        let mut source = BufReader::new(source);
        let mut raw = Vec::new();
        while source.read_until(b'\n', &mut raw)? > 0 {
            match stream {
                Stream::Out => std::io::stdout().write_all(&raw)?,
                Stream::Err => std::io::stderr().write_all(&raw)?,
            }
            line(&without_colour(&String::from_utf8_lossy(&raw)));
            raw.clear();
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("`{shown}` failed ({status})");
        }
        Ok(())
    }

    /// Replaces this process, so that signals and the exit code are the child's own.
    pub(crate) fn exec(mut self) -> eyre::Report {
        use std::os::unix::process::CommandExt;
        let shown = self.show();
        eprintln!("$ {shown}");
        let error = self.inner.exec();
        eyre!("cannot start `{shown}`: {error}")
    }

    fn show(&self) -> String {
        let program = Path::new(self.inner.get_program());
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
        let mut shown = name.into_owned();
        for arg in self.inner.get_args() {
            shown.push(' ');
            shown.push_str(&shell_quote(&arg.to_string_lossy()));
        }
        shown
    }
}

/// Which stream to watch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// What a short helper program prints, without the newline at the end; `None` if it cannot be
/// started or fails.
pub(crate) fn capture(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Whether `program` can be started with `args` and succeeds.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    capture(program, args).is_some()
}

/// A word as a POSIX shell reads it back.
pub(crate) fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A line without terminal escape sequences and the end of line.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.trim_end().chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // CSI: from `ESC [` to the first letter.
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_a_shell_would_split() {
        assert_eq!(shell_quote("--lib"), "--lib");
        assert_eq!(shell_quote("a b"), "'a b'");
        assert_eq!(shell_quote("it's"), r"'it'\''s'");
        assert_eq!(shell_quote(""), "''");
    }

    #[test]
    fn strips_colours() {
        assert_eq!(
            without_colour("\u{1b}[32;1m  Summary\u{1b}[0m [1.0s]\n"),
            "  Summary [1.0s]"
        );
    }
}
