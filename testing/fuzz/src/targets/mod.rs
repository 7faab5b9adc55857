//! The targets, by crate.

mod evidence;
mod hub;
mod models;
mod receipt;
mod router;
mod sealed;
mod upstream;

use crate::{Check, Target};

/// Every target.
///
/// # Panics
/// If a seed cannot be made: then code has changed that this crate has to follow.
#[must_use]
pub fn all() -> Vec<Target> {
    let mut all = evidence::targets();
    all.extend(hub::targets());
    all.extend(models::targets());
    all.extend(receipt::targets());
    all.extend(router::targets());
    all.extend(sealed::targets());
    all.extend(upstream::targets());
    all
}

fn target(
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    check: impl Fn(&[u8]) -> String + Send + Sync + std::panic::RefUnwindSafe + 'static,
) -> Target {
    let longest = seeds.iter().map(Vec::len).max().unwrap_or(0);
    let check: Check = Box::new(check);
    Target {
        name,
        limit: (2 * longest).max(256),
        seeds,
        check,
    }
}

/// The words of a result: of an error its text, of a good one what `good` makes of it.
fn words<T, E: std::fmt::Display>(result: Result<T, E>, good: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(value) => format!("ok {}", good(value)),
        Err(error) => error.to_string(),
    }
}
