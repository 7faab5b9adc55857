//! How fast a hub is: large files against the raw disk and loopback of the same run, search and information over many
//! repositories, what a second upload of a nearly equal file moves, and how long a node waits for a model.
//!
//! `cargo xtask bench hub` builds it and the hub, which runs as a process of its own. Arguments: the file for the
//! results, then any of `files`, `many`, `dedup`, `cold` (all without one). `OPG_BENCH_BYTES` and `OPG_BENCH_REPOS` make it smaller.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark ends when something fails"
)]

mod cold;
mod dedup;
mod files;
mod many;
mod process;
mod report;
mod socket;

use report::Report;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let target = arguments
        .next()
        .expect("usage: bench_hub RESULTS.json [files] [many] [dedup] [cold]");
    let parts: Vec<String> = arguments.collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let mut report = Report::new(&parts);
    if wanted("files") {
        files::run(&mut report).await;
    }
    if wanted("many") {
        many::run(&mut report).await;
    }
    if wanted("dedup") {
        dedup::run(&mut report).await;
    }
    if wanted("cold") {
        cold::run(&mut report).await;
    }
    report.finish(target.as_ref(), parts.is_empty());
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}
