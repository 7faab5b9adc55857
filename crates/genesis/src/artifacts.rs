//! Bytecode that block 0 contains and that no constructor makes.

use alloy_primitives::{Bytes, bytes};

/// Runtime code of the deterministic CREATE2 deployer (Arachnid's proxy): calldata is a 32-byte salt and init code.
pub(crate) static CREATE2_DEPLOYER_CODE: Bytes = bytes!(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3"
);

/// Fork schedule and constants of the chain, as ethrex reads them: every fork up to Osaka from block 0.
pub(crate) const CHAIN_CONFIG: &str = r#"{
  "chainId": 1,
  "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
  "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0,
  "berlinBlock": 0, "londonBlock": 0, "mergeNetsplitBlock": 0,
  "terminalTotalDifficulty": 0, "terminalTotalDifficultyPassed": true,
  "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "osakaTime": 0,
  "depositContractAddress": "0x00000000219ab540356cBB839Cbe05303d7705Fa",
  "blobSchedule": {
    "cancun": { "target": 3, "max": 6, "baseFeeUpdateFraction": 3338477 },
    "prague": { "target": 6, "max": 9, "baseFeeUpdateFraction": 5007716 },
    "osaka": { "target": 6, "max": 9, "baseFeeUpdateFraction": 5007716 }
  }
}"#;
