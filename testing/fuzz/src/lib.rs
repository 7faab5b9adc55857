//! Fuzz targets over everything that reads a stranger's bytes, on the pinned stable toolchain (D19).
//!
//! A [`Target`] has seeds, which code makes anew in every run, and a check: it must not panic, not take long, and not believe what it
//! must not. Inputs are seeds changed by [`mutate`]; one that leads to an outcome that was not seen before (another error, another
//! shape of answer) joins the seeds, so that the next change starts from there. There is no instrumentation: what guides the
//! search are the outcomes, of which the parsers here have many, each with its own error.
//!
//! ```
//! use opg_fuzz::{Run, targets};
//!
//! let target = targets::all().into_iter().find(|target| target.name == "bhttp-request").unwrap();
//! let done = Run::new(7).for_inputs(&target, 200).unwrap();
//! assert_eq!(done.inputs, 200);
//! ```
#![forbid(unsafe_code)]

mod mutate;
mod run;
pub mod targets;

pub use mutate::{Random, mutate};
pub use run::{Done, Failure, Run};

/// Reads one input. Gives what became of it, in a few words without the input's own values; panics if a rule is broken.
pub type Check = Box<dyn Fn(&[u8]) -> String + Send + Sync + std::panic::RefUnwindSafe>;

/// One reader of hostile bytes.
pub struct Target {
    /// Name on the command line.
    pub name: &'static str,
    /// Largest input that is tried, bytes.
    pub limit: usize,
    /// Where the search starts.
    pub seeds: Vec<Vec<u8>>,
    /// What must hold.
    pub check: Check,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("seeds", &self.seeds.len())
            .finish_non_exhaustive()
    }
}
