//! Fixed addresses of the contracts that exist in block 0.

use alloy_primitives::{Address, address};

/// The OPG token: ERC-20 over the native coin.
pub const OPG: Address = address!("0x0000000000000000000000000000000000001001");
/// Nodes, their keysets, bonds and asks.
pub const NODE_REGISTRY: Address = address!("0x0000000000000000000000000000000000001002");
/// Models, their creators, royalties and reference prices.
pub const MODEL_REGISTRY: Address = address!("0x0000000000000000000000000000000000001003");
/// Holds every payment and pays credits.
pub const FEE_VAULT: Address = address!("0x0000000000000000000000000000000000001004");
/// Records verified receipts; written by system transactions only.
pub const RECEIPT_LEDGER: Address = address!("0x0000000000000000000000000000000000001005");
/// Implementation behind every node's deposit address.
pub const DEPOSIT_IMPLEMENTATION: Address = address!("0x0000000000000000000000000000000000001006");
/// Account of the insurance credits: nobody can withdraw from it, refunds will draw on it (D7).
pub const INSURANCE: Address = address!("0x0000000000000000000000000000000000001007");
/// Attestation evidence of keysets, and the policy that it is judged by.
pub const EVIDENCE_REGISTRY: Address = address!("0x0000000000000000000000000000000000001008");
/// Validators, stake, seats and epochs.
pub const STAKING: Address = address!("0x0000000000000000000000000000000000001009");
/// Cases against validators and nodes.
pub const SLASHING: Address = address!("0x000000000000000000000000000000000000100a");
/// Checks proofs of possession of validators' keys.
pub const KEY_PROOFS: Address = address!("0x0000000000000000000000000000000000001011");
/// Divides what the supply's bucket for staking releases.
pub const EMISSION: Address = address!("0x0000000000000000000000000000000000001012");
/// Votes on operations of the timelock; without governance in the genesis file there is no code.
pub const GOVERNOR: Address = address!("0x000000000000000000000000000000000000100b");
/// Holds every power of governance; without governance in the genesis file there is no code, and nobody has these powers.
pub const TIMELOCK: Address = address!("0x000000000000000000000000000000000000100c");
/// What an account's OPG unlocks at gateways.
pub const FEATURE_TIERS: Address = address!("0x000000000000000000000000000000000000100d");
/// Receives the treasury's share and spends it by governance.
pub const TREASURY: Address = address!("0x000000000000000000000000000000000000100e");
/// Price of OPG by the validators' signed feeds.
pub const PRICE_ORACLE: Address = address!("0x000000000000000000000000000000000000100f");
/// Rules of blocks that governance may change.
pub const CHAIN_PARAMETERS: Address = address!("0x0000000000000000000000000000000000001010");
/// View of the same evidence in the ABI of OpenGradient's published clients, at the address that they have built in.
pub const TEE_REGISTRY: Address = address!("0x4e72238852f3c918f4E4e57AeC9280dDB0c80248");
/// Multicall3 at its usual address.
pub const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");
/// The deterministic CREATE2 deployer at its usual address.
pub const CREATE2_DEPLOYER: Address = address!("0x4e59b44847b379578588920cA78FbF26c0B4956C");

/// Permit2, where x402 clients expect it.
pub const PERMIT2: Address = address!("0x000000000022D473030F116dDEE9F6B43aC78BA3");
/// Spender of x402 `exact` payments through Permit2, where clients expect it.
pub const EXACT_PERMIT2_PROXY: Address = address!("0x402085c248EeA27D92E8b30b2C58ed07f9E20001");
/// Spender of x402 `upto` payments, where clients expect it.
pub const UPTO_PERMIT2_PROXY: Address = address!("0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");
/// Payment channels of the x402 scheme `batch-settlement`, where clients expect them.
pub const BATCH_SETTLEMENT: Address = address!("0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003");
/// Brings deposits into channels by ERC-3009 signatures, where clients expect it.
pub const ERC3009_DEPOSIT_COLLECTOR: Address = address!("0x4020806089470a89826cB9fB1f4059150b550004");
/// Brings deposits into channels by Permit2 signatures, where clients expect it.
pub const PERMIT2_DEPOSIT_COLLECTOR: Address = address!("0x4020425FAf3B746C082C2f942b4E5159887B0005");
/// Checks signatures of wallets that may not be deployed yet (ERC-6492), at its usual address.
pub const UNIVERSAL_SIG_VALIDATOR: Address = address!("0xdAcD51A54883eb67D95FAEb2BBfdC4a9a6BD2a3B");

/// Every address that a genesis allocation must not use.
pub const PREDEPLOYS: [Address; 28] = [
    OPG,
    NODE_REGISTRY,
    MODEL_REGISTRY,
    FEE_VAULT,
    RECEIPT_LEDGER,
    DEPOSIT_IMPLEMENTATION,
    INSURANCE,
    EVIDENCE_REGISTRY,
    STAKING,
    SLASHING,
    KEY_PROOFS,
    EMISSION,
    TEE_REGISTRY,
    MULTICALL3,
    CREATE2_DEPLOYER,
    PERMIT2,
    EXACT_PERMIT2_PROXY,
    UPTO_PERMIT2_PROXY,
    BATCH_SETTLEMENT,
    ERC3009_DEPOSIT_COLLECTOR,
    PERMIT2_DEPOSIT_COLLECTOR,
    UNIVERSAL_SIG_VALIDATOR,
    GOVERNOR,
    TIMELOCK,
    FEATURE_TIERS,
    TREASURY,
    PRICE_ORACLE,
    CHAIN_PARAMETERS,
];

/// Contracts that the protocol itself calls: EIP-4788 roots, EIP-2935 hashes, EIP-7002 withdrawals, EIP-7251 consolidations.
pub const EIP_SYSTEM_CONTRACTS: [Address; 4] = [
    address!("0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02"),
    address!("0x0000F90827F1C53a10cb7A02335B175320002935"),
    address!("0x00000961Ef480Eb55e80D19ad83579A64c007002"),
    address!("0x0000BBdDc7CE488642fb579F8B00f3a590007251"),
];
