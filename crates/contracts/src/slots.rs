//! Storage slots of the contracts.
//!
//! Solidity's layout: the value of key `k` in the mapping at slot `p` is at `keccak256(abi.encode(k, p))`; a struct takes
//! consecutive slots from its base, small fields packed from the low bits up. The slot numbers below are compared with
//! the compiler's storage layout in the artifacts by a test of this crate.

use alloy_primitives::{Address, B256, U256, keccak256};

/// `OPG._balances`.
pub(crate) const OPG_BALANCES: u64 = 0;
/// `OPG._settlements`.
pub(crate) const OPG_SETTLEMENTS: u64 = 11;
/// `NodeRegistry.keysets`.
pub(crate) const NODE_KEYSETS: u64 = 0;
/// `NodeRegistry.nodes`.
pub(crate) const NODE_NODES: u64 = 1;
/// `NodeRegistry.asks`.
pub(crate) const NODE_ASKS: u64 = 2;
/// `ModelRegistry.models`.
pub(crate) const MODEL_MODELS: u64 = 0;
/// `ModelRegistry.programs`.
pub(crate) const MODEL_PROGRAMS: u64 = 2;
/// `FeeVault.balanceOf`.
pub(crate) const VAULT_BALANCES: u64 = 0;
/// `FeeVault.outstanding`.
pub(crate) const VAULT_OUTSTANDING: u64 = 1;
/// `ReceiptLedger.sequences`.
pub(crate) const LEDGER_SEQUENCES: u64 = 0;
/// `ReceiptLedger.spent`.
pub(crate) const LEDGER_SPENT: u64 = 1;
/// `ReceiptLedger.roots`.
pub(crate) const LEDGER_ROOTS: u64 = 2;
/// `Staking.setHash`.
pub(crate) const STAKING_SET_HASH: u64 = 0;
/// `Staking.epoch`.
pub(crate) const STAKING_EPOCH: u64 = 1;
/// `Staking._keys`.
pub(crate) const STAKING_KEYS: u64 = 2;
/// `Staking.keyOfSystem`.
pub(crate) const STAKING_KEY_OF_SYSTEM: u64 = 3;
/// `Staking._sets`.
pub(crate) const STAKING_SETS: u64 = 5;
/// `Staking.validators`.
pub(crate) const STAKING_VALIDATORS: u64 = 6;
/// `Staking.candidates`.
pub(crate) const STAKING_CANDIDATES: u64 = 22;

/// `ReceiptLedger.rules`.
pub(crate) const LEDGER_RULES: u64 = 7;
/// `ChainParameters.current`.
pub(crate) const CHAIN_CURRENT: u64 = 0;
/// `ChainParameters.next`.
pub(crate) const CHAIN_NEXT: u64 = 1;

/// `EvidenceRegistry.evidence`.
pub(crate) const EVIDENCE_RECORDS: u64 = 0;
/// `EvidenceRegistry.latest`.
pub(crate) const EVIDENCE_LATEST: u64 = 1;
/// `EvidenceRegistry.revokedAt`.
pub(crate) const EVIDENCE_REVOKED: u64 = 2;
/// `EvidenceRegistry.epoch` and `epochSince`.
pub(crate) const EVIDENCE_EPOCH: u64 = 4;
/// `EvidenceRegistry.policy`.
pub(crate) const EVIDENCE_POLICY: u64 = 6;
/// `EvidenceRegistry.newest`.
pub(crate) const EVIDENCE_NEWEST: u64 = 8;

/// `OPG`: wrapped balance of an account.
#[must_use]
pub fn opg_balance(account: Address) -> U256 {
    mapping(account.into_word(), U256::from(OPG_BALANCES))
}

/// `OPG`: settlement slot of an authorization (D2).
#[must_use]
pub fn opg_settlement(payer: Address, nonce: B256) -> U256 {
    mapping(nonce, mapping(payer.into_word(), U256::from(OPG_SETTLEMENTS)))
}

/// `NodeRegistry`: base of a keyset record, three slots: node id; receipt key;
/// `settlementKey (160) | registeredAt (40) | revokedAt (40)` from the low bits up.
#[must_use]
pub fn keyset_base(digest: B256) -> U256 {
    mapping(digest, U256::from(NODE_KEYSETS))
}

/// `NodeRegistry`: base of a node, three slots: `operator (160) | registeredAt (40) | inactiveAt (40)`; bond (128);
/// endpoint (string).
#[must_use]
pub fn node_base(node_id: B256) -> U256 {
    mapping(node_id, U256::from(NODE_NODES))
}

/// `NodeRegistry`: base of an ask, two slots: `perCall (128) | perMtokIn (128)`; `perMtokOut (128)`.
#[must_use]
pub fn ask_base(node_id: B256, model_root: B256) -> U256 {
    mapping(model_root, mapping(node_id, U256::from(NODE_ASKS)))
}

/// `ModelRegistry`: base of a model: `creator (160) | royaltyBps (16) | previousRoyaltyBps (16) | changedAt (40)`; price (two
/// slots, as an ask); `registeredAt (40) | committedAt (64)`; name; URI.
#[must_use]
pub fn model_base(model_root: B256) -> U256 {
    mapping(model_root, U256::from(MODEL_MODELS))
}

/// `ModelRegistry`: hash of the registration report of a model's program.
#[must_use]
pub fn model_program(model_root: B256, program: B256) -> U256 {
    mapping(program, mapping(model_root, U256::from(MODEL_PROGRAMS)))
}

/// `FeeVault`: OPG attributed to a node.
#[must_use]
pub fn vault_balance(node_id: B256) -> U256 {
    mapping(node_id, U256::from(VAULT_BALANCES))
}

/// `FeeVault`: `outstanding (128) | today (56) | yesterday (56) | day (16)` from the low bits up: credits of a node that are not yet paid
/// out, and its fees of two days.
#[must_use]
pub fn vault_outstanding(node_id: B256) -> U256 {
    mapping(node_id, U256::from(VAULT_OUTSTANDING))
}

/// `ReceiptLedger`: bitmap of the sequence numbers `256 * word … 256 * word + 255` of a keyset.
#[must_use]
pub fn seq_word(keyset: B256, word: u64) -> U256 {
    mapping(U256::from(word).into(), mapping(keyset, U256::from(LEDGER_SEQUENCES)))
}

/// `ReceiptLedger`: state of a payment.
#[must_use]
pub fn spent(payment_id: B256) -> U256 {
    mapping(payment_id, U256::from(LEDGER_SPENT))
}

/// `ReceiptLedger`: batch root of a height.
#[must_use]
pub fn batch_root(height: u64) -> U256 {
    mapping(U256::from(height).into(), U256::from(LEDGER_ROOTS))
}

/// `EvidenceRegistry`: base of a record, five slots: node id; keyset; measurement; signer;
/// `registeredAt (40) | expiresAt (40) | epoch (40) | kind (8) | grade (8)` from the low bits up.
#[must_use]
pub fn evidence_base(evidence_id: B256) -> U256 {
    mapping(evidence_id, U256::from(EVIDENCE_RECORDS))
}

/// `EvidenceRegistry`: newest evidence of a keyset.
#[must_use]
pub fn evidence_latest(keyset: B256) -> U256 {
    mapping(keyset, U256::from(EVIDENCE_LATEST))
}

/// `EvidenceRegistry`: when a measurement or signer was revoked.
#[must_use]
pub fn evidence_revoked(subject: B256) -> U256 {
    mapping(subject, U256::from(EVIDENCE_REVOKED))
}

/// `EvidenceRegistry`: `epoch (40) | epochSince (40)`, and counters above.
#[must_use]
pub fn evidence_epoch() -> U256 {
    U256::from(EVIDENCE_EPOCH)
}

/// `EvidenceRegistry`: the policy.
#[must_use]
pub fn evidence_policy() -> U256 {
    U256::from(EVIDENCE_POLICY)
}

/// `EvidenceRegistry`: newest version of a part of vendor collateral, `number (64) | issuedAt (40)` from the low bits up.
#[must_use]
pub fn evidence_newest(subject: B256) -> U256 {
    mapping(subject, U256::from(EVIDENCE_NEWEST))
}

/// `ReceiptLedger`: four escrow windows (40 each), four weights (16 each) and four of closed models (8 each) from the low bits up.
#[must_use]
pub fn ledger_rules() -> U256 {
    U256::from(LEDGER_RULES)
}

/// `ChainParameters`: `gasLimit (64) | verificationBudget (64) | activation (64)` from the low bits up.
#[must_use]
pub fn chain_parameters_current() -> U256 {
    U256::from(CHAIN_CURRENT)
}

/// `ChainParameters`: the same from its activation on.
#[must_use]
pub fn chain_parameters_next() -> U256 {
    U256::from(CHAIN_NEXT)
}

/// Slot of `key` in the mapping at `base`.
pub(crate) fn mapping(key: B256, base: U256) -> U256 {
    let mut bytes = [0u8; 64];
    bytes[..32].copy_from_slice(key.as_slice());
    bytes[32..].copy_from_slice(&base.to_be_bytes::<32>());
    keccak256(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{address, b256};

    /// Slot of a variable in the compiler's storage layout of a contract.
    fn declared(artifact: &str, label: &str) -> u64 {
        let artifact: serde_json::Value = serde_json::from_str(artifact).unwrap();
        let variables = artifact["storageLayout"]["storage"].as_array().unwrap();
        let variable = variables.iter().find(|variable| variable["label"] == label).unwrap();
        assert_eq!(variable["offset"], 0, "{label}");
        variable["slot"].as_str().unwrap().parse().unwrap()
    }

    /// (slot, offset in bytes) of each member of a struct.
    fn members(artifact: &str, name: &str) -> Vec<(String, u64, u64)> {
        let artifact: serde_json::Value = serde_json::from_str(artifact).unwrap();
        artifact["storageLayout"]["types"][format!("t_struct({name})_storage")]["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| {
                let slot = member["slot"].as_str().unwrap().parse().unwrap();
                (
                    member["label"].as_str().unwrap().into(),
                    slot,
                    member["offset"].as_u64().unwrap(),
                )
            })
            .collect()
    }

    fn owned(list: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
        list.iter()
            .map(|(label, slot, offset)| ((*label).into(), *slot, *offset))
            .collect()
    }

    #[test]
    fn slots_are_those_of_the_compiler() {
        let opg = include_str!("../../../contracts/artifacts/OPG.json");
        let nodes = include_str!("../../../contracts/artifacts/NodeRegistry.json");
        let models = include_str!("../../../contracts/artifacts/ModelRegistry.json");
        let vault = include_str!("../../../contracts/artifacts/FeeVault.json");
        let ledger = include_str!("../../../contracts/artifacts/ReceiptLedger.json");
        let evidence = include_str!("../../../contracts/artifacts/EvidenceRegistry.json");
        let staking = include_str!("../../../contracts/artifacts/Staking.json");
        let chain = include_str!("../../../contracts/artifacts/ChainParameters.json");
        for (artifact, label, slot) in [
            (evidence, "evidence", EVIDENCE_RECORDS),
            (evidence, "latest", EVIDENCE_LATEST),
            (evidence, "revokedAt", EVIDENCE_REVOKED),
            (evidence, "epoch", EVIDENCE_EPOCH),
            (evidence, "policy", EVIDENCE_POLICY),
            (evidence, "newest", EVIDENCE_NEWEST),
            (opg, "_balances", OPG_BALANCES),
            (opg, "_settlements", OPG_SETTLEMENTS),
            (nodes, "keysets", NODE_KEYSETS),
            (nodes, "nodes", NODE_NODES),
            (nodes, "asks", NODE_ASKS),
            (models, "models", MODEL_MODELS),
            (models, "programs", MODEL_PROGRAMS),
            (vault, "balanceOf", VAULT_BALANCES),
            (vault, "_books", VAULT_OUTSTANDING),
            (ledger, "sequences", LEDGER_SEQUENCES),
            (ledger, "spent", LEDGER_SPENT),
            (ledger, "roots", LEDGER_ROOTS),
            (staking, "setHash", STAKING_SET_HASH),
            (staking, "epoch", STAKING_EPOCH),
            (staking, "_keys", STAKING_KEYS),
            (staking, "keyOfSystem", STAKING_KEY_OF_SYSTEM),
            (staking, "_sets", STAKING_SETS),
            (staking, "validators", STAKING_VALIDATORS),
            (staking, "candidates", STAKING_CANDIDATES),
            (ledger, "rules", LEDGER_RULES),
            (chain, "current", CHAIN_CURRENT),
            (chain, "next", CHAIN_NEXT),
        ] {
            assert_eq!(declared(artifact, label), slot, "{label}");
        }
        let keyset = [
            ("nodeId", 0, 0),
            ("receiptKey", 1, 0),
            ("settlementKey", 2, 0),
            ("registeredAt", 2, 20),
            ("revokedAt", 2, 25),
        ];
        assert_eq!(members(nodes, "KeysetRecord"), owned(&keyset));
        let node = [
            ("operator", 0, 0),
            ("registeredAt", 0, 20),
            ("inactiveAt", 0, 25),
            ("bond", 1, 0),
            ("endpoint", 2, 0),
        ];
        assert_eq!(members(nodes, "Node"), owned(&node));
        let model = [
            ("creator", 0, 0),
            ("royaltyBps", 0, 20),
            ("previousRoyaltyBps", 0, 22),
            ("changedAt", 0, 24),
            ("closed", 0, 29),
            ("price", 1, 0),
            ("registeredAt", 3, 0),
            ("committedAt", 3, 5),
            ("name", 4, 0),
            ("uri", 5, 0),
        ];
        assert_eq!(members(models, "Model"), owned(&model));
        let record = [
            ("nodeId", 0, 0),
            ("keyset", 1, 0),
            ("measurement", 2, 0),
            ("signer", 3, 0),
            ("registeredAt", 4, 0),
            ("expiresAt", 4, 5),
            ("epoch", 4, 10),
            ("kind", 4, 15),
            ("grade", 4, 16),
        ];
        assert_eq!(members(evidence, "Evidence"), owned(&record));
        let keys = [
            ("operator", 0, 0),
            ("seatedIn", 0, 20),
            ("system", 1, 0),
            ("consensusKey", 2, 0),
            ("bls", 3, 0),
        ];
        assert_eq!(members(staking, "Keys"), owned(&keys));
        let rules = [
            ("windowNone", 0, 0),
            ("windowTee", 0, 5),
            ("windowZk", 0, 10),
            ("windowReplay", 0, 15),
            ("node", 0, 20),
            ("auditors", 0, 22),
            ("treasury", 0, 24),
            ("router", 0, 26),
            ("closedNode", 0, 28),
            ("closedAuditors", 0, 29),
            ("closedTreasury", 0, 30),
            ("closedRouter", 0, 31),
        ];
        assert_eq!(members(ledger, "Rules"), owned(&rules));
        let values = [("gasLimit", 0, 0), ("verificationBudget", 0, 8), ("activation", 0, 16)];
        assert_eq!(members(chain, "Values"), owned(&values));
        let price = [("perCall", 0, 0), ("perMtokIn", 0, 16), ("perMtokOut", 1, 0)];
        assert_eq!(members(nodes, "Price"), owned(&price));
        assert_eq!(members(models, "Price"), owned(&price));
    }

    /// The same slots through the ABI encoder.
    #[test]
    fn mapping_slots_follow_the_abi() {
        let account = address!("0x1111111111111111111111111111111111111111");
        let nonce = b256!("2222222222222222222222222222222222222222222222222222222222222222");
        let encoded = alloy_sol_types::SolValue::abi_encode(&(account, U256::from(OPG_BALANCES)));
        assert_eq!(opg_balance(account), U256::from_be_bytes(keccak256(encoded).0));
        let outer = keccak256(alloy_sol_types::SolValue::abi_encode(&(
            account,
            U256::from(OPG_SETTLEMENTS),
        )));
        let inner = keccak256(alloy_sol_types::SolValue::abi_encode(&(nonce, outer)));
        assert_eq!(opg_settlement(account, nonce), U256::from_be_bytes(inner.0));
    }
}
