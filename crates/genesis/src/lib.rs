//! Builds block 0 from a genesis file.
//!
//! Nothing in block 0 is written by hand: the contracts' constructors run at their final addresses in an EVM, then every balance,
//! node, model and ask of the file enters through the functions that anyone would call later, with all their checks. The
//! resulting code and storage become the genesis allocation. So the state at genesis is one that the contracts could have
//! reached, and the same sources can be deployed by transactions elsewhere.
//!
//! # Invariants
//! - Equal files give equal genesis blocks; the block's `extraData` is the digest of the file.
//! - Native coin sums to exactly 10^27 wei, of which the OPG contract holds what is wrapped.
//!
//! # Example
//! ```no_run
//! let bytes = std::fs::read("genesis.json")?;
//! let file = opg_contracts::GenesisFile::parse(&bytes)?;
//! let genesis = opg_genesis::build(&file)?;
//! assert_eq!(genesis.extra_data.as_ref(), file.digest().as_slice());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`evm::Evm`] is the EVM that does this; tests of other crates use it to run the real contracts.
//!
//! Status: complete for the contracts that exist.

#![forbid(unsafe_code)]

mod artifacts;
mod build;
pub mod evm;

pub use build::{GenesisError, build, evm as genesis_evm};
