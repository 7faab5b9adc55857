//! ABI bindings, generated from the committed artifacts of the compiler.

// The generated items carry the NatSpec of the Solidity sources only in part.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::too_many_arguments
)]

use alloy_sol_types::sol;

sol!(
    #[derive(Debug, PartialEq, Eq)]
    OPG,
    "../../contracts/artifacts/OPG.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    NodeRegistry,
    "../../contracts/artifacts/NodeRegistry.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    ModelRegistry,
    "../../contracts/artifacts/ModelRegistry.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    DepositAddress,
    "../../contracts/artifacts/DepositAddress.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    FeeVault,
    "../../contracts/artifacts/FeeVault.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    ReceiptLedger,
    "../../contracts/artifacts/ReceiptLedger.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    EvidenceRegistry,
    "../../contracts/artifacts/EvidenceRegistry.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    TEERegistry,
    "../../contracts/artifacts/TEERegistry.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Vesting,
    "../../contracts/artifacts/Vesting.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Airdrop,
    "../../contracts/artifacts/Airdrop.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Multicall3,
    "../../contracts/artifacts/Multicall3.json"
);
