//! The network's contracts as seen from Rust: addresses, ABI, storage layout, system transactions, genesis file.
//!
//! The Solidity sources are in `/contracts/src`; their rules are `docs/specs/ledger.md`. The bindings come from the
//! committed artifacts in `/contracts/artifacts`, so building this crate needs no Solidity compiler.
//!
//! - [`addresses`] where each predeploy lives;
//! - [`bindings`] the ABI, as `alloy_sol_types` types;
//! - [`slots`] and [`state`] raw storage slots and typed readers, for code that reads state or proofs without an EVM;
//! - [`system_tx`] how a batch of verified receipts becomes the calldata of the ledger's system transactions;
//! - [`channel_tx`] the same for receipts that channels pay for;
//! - [`payment`] methods of payment, and readers of what became of one;
//! - [`x402`] slots, readers and ids of the x402 payment contracts;
//! - [`staking`] epochs, sets and proofs of possession;
//! - [`governance`] readers of what governance decides: rules of blocks, escrow windows, weights of the split;
//! - [`payouts`] what payees were credited, as a tree, for a chain where OPG lives;
//! - [`seats`] the validator set of an epoch as state commits to it;
//! - [`genesis_file`] the one file a network is built from, strictly validated.
//!
//! # Invariants
//! - A storage reader returns what the contract's own view function returns (tested against the real bytecode in
//!   `opg-genesis`).
//! - The calldata of the system transactions is a pure function of the batch; validators recompute it.
//!
//! # Example
//! ```
//! use opg_contracts::{addresses, slots};
//! use alloy_primitives::{Address, B256};
//!
//! // The slot that `eth_getProof` must show to prove that a payment was settled (D2).
//! let slot = slots::opg_settlement(Address::repeat_byte(0x11), B256::repeat_byte(0x22));
//! assert_ne!(slot, slots::opg_balance(Address::repeat_byte(0x11)));
//! assert_eq!(addresses::OPG, "0x0000000000000000000000000000000000001001".parse::<Address>().unwrap());
//! ```
//!
//! Status: payments, channels, receipts, models with their programs, vesting, airdrop, validators' stake, epochs and slashing, governance.

#![forbid(unsafe_code)]

pub mod addresses;
mod airdrop;
pub mod bindings;
pub mod channel_tx;
pub mod evidence;
pub mod genesis_file;
pub mod governance;
pub mod payment;
pub mod payouts;
pub mod seats;
pub mod slashing;
pub mod slots;
pub mod staking;
mod standard_tree;
pub mod state;
pub mod supply;
pub mod system_tx;
pub mod x402;

pub use airdrop::{AirdropError, AirdropList};
pub use bindings::{
    Airdrop, BatchSettlement, ChainParameters, DepositAddress, Emission, Erc3009DepositCollector, EvidenceRegistry,
    FeatureTiers, FeeVault, Governor, HomeFeeVault, KeyProofs, ModelRegistry, Multicall3, NodeRegistry, OPG, Payouts,
    Permit2, Permit2DepositCollector, PriceOracle, ReceiptLedger, Slashing, Staking, TEERegistry, Timelock, Treasury,
    UniversalSigValidator, ValidatorKeys, Vesting,
    checkpoint::{self, Checkpoint},
    exact_permit2_proxy::{self, ExactPermit2Proxy},
    upto_permit2_proxy::{self, UptoPermit2Proxy},
};
pub use genesis_file::{
    AccountAllocation, AirdropAllocation, AskRegistration, DevelopmentRoot, EvidenceSetup, GenesisFile,
    GenesisFileError, Governance, Guardian, ModelRegistration, NodeRegistration, Parameters, ProgramRegistration,
    StakingParameters, ValidatorEntry, VestingSchedule, Windows, possession_namespace,
};
pub use payment::{PaymentMethod, payment_settlement};
pub use state::StateReader;
