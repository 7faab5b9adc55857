//! What reads the sources without running them.

use crate::context::Context;
use crate::process::{Cmd, works};
use crate::steps::Steps;

/// Formatting, clippy, documentation and dependency policy, each a step.
pub(crate) fn run(context: &Context, steps: &mut Steps) {
    steps.step("fmt", |_| Cmd::cargo(context).args(["fmt", "--all", "--check"]).run());
    steps.step("clippy", |_| {
        Cmd::cargo(context)
            .args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ])
            .run()
    });
    steps.step("doc", |_| {
        Cmd::cargo(context)
            .args(["doc", "--workspace", "--no-deps", "--locked", "--lib", "--bins"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .run()
    });
    if works("cargo-deny", &["--version"]) {
        steps.step("deny", |_| {
            Cmd::cargo(context)
                .args(["deny", "--locked", "check", "bans", "licenses", "sources"])
                .run()
        });
    } else {
        steps.skip(
            "deny",
            "cargo-deny is not installed (cargo install --locked cargo-deny)",
        );
    }
}
