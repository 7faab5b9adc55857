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
/// `ReceiptLedger` with the type of channels that it uses; in a module because `BatchSettlement` names it too.
pub mod receipt_ledger {
    use alloy_sol_types::sol;

    sol!(
        #[derive(Debug, PartialEq, Eq)]
        ReceiptLedger,
        "../../contracts/artifacts/ReceiptLedger.json"
    );
}
pub use receipt_ledger::ReceiptLedger;
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
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Permit2,
    "../../contracts/artifacts/Permit2.json"
);
/// `ExactPermit2Proxy` with the types of Permit2 that it uses; in a module because both proxies name them.
pub mod exact_permit2_proxy {
    use alloy_sol_types::sol;

    sol!(
        #[derive(Debug, PartialEq, Eq)]
        ExactPermit2Proxy,
        "../../contracts/artifacts/ExactPermit2Proxy.json"
    );
}
/// `UptoPermit2Proxy` with the types of Permit2 that it uses; in a module because both proxies name them.
pub mod upto_permit2_proxy {
    use alloy_sol_types::sol;

    sol!(
        #[derive(Debug, PartialEq, Eq)]
        UptoPermit2Proxy,
        "../../contracts/artifacts/UptoPermit2Proxy.json"
    );
}
sol!(
    #[derive(Debug, PartialEq, Eq)]
    BatchSettlement,
    "../../contracts/artifacts/BatchSettlement.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Erc3009DepositCollector,
    "../../contracts/artifacts/Erc3009DepositCollector.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Permit2DepositCollector,
    "../../contracts/artifacts/Permit2DepositCollector.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    UniversalSigValidator,
    "../../contracts/artifacts/UniversalSigValidator.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    KeyProofs,
    "../../contracts/artifacts/KeyProofs.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Emission,
    "../../contracts/artifacts/Emission.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Staking,
    "../../contracts/artifacts/Staking.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Slashing,
    "../../contracts/artifacts/Slashing.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Governor,
    "../../contracts/artifacts/Governor.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Timelock,
    "../../contracts/artifacts/Timelock.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Treasury,
    "../../contracts/artifacts/Treasury.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    ChainParameters,
    "../../contracts/artifacts/ChainParameters.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    FeatureTiers,
    "../../contracts/artifacts/FeatureTiers.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    PriceOracle,
    "../../contracts/artifacts/PriceOracle.json"
);
/// `Checkpoint` with the types of `BLS` that it uses; in a module because other contracts name them too.
pub mod checkpoint {
    use alloy_sol_types::sol;

    sol!(
        #[derive(Debug, PartialEq, Eq)]
        Checkpoint,
        "../../contracts/artifacts/Checkpoint.json"
    );
}
pub use checkpoint::Checkpoint;
sol!(
    #[derive(Debug, PartialEq, Eq)]
    HomeFeeVault,
    "../../contracts/artifacts/HomeFeeVault.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Payouts,
    "../../contracts/artifacts/Payouts.json"
);
