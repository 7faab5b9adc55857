//! Proofs of possession of a full node's keys, against the contract's own bytecode.

use alloy_primitives::Address;
use opg_consensus::keys::ValidatorKeys;
use opg_contracts::{KeyProofs, ValidatorKeys::KeyRegistration, addresses};
use opg_full_node::{
    Keys,
    config::KeysFile,
    registration::{public_keys, registration},
};
use opg_genesis::evm::Evm;
use std::path::Path;

const CHAIN_ID: u64 = 10_740;

fn keys(system: u8) -> Keys {
    let made = ValidatorKeys::generate();
    let file = KeysFile {
        identity: made.identity.to_hex(),
        bls: made.bls.to_hex(),
        system: hex::encode([system; 32]),
    };
    Keys::decode(&file, Path::new("keys.json")).unwrap()
}

fn check(evm: &mut Evm, operator: Address, keys: &KeyRegistration) -> Result<Vec<u8>, String> {
    let call = KeyProofs::checkCall {
        operator,
        epoch: keys.epoch,
        consensusKey: keys.consensusKey,
        key: keys.blsKey.clone(),
        possession: keys.possession.clone(),
        system: keys.system,
        signature: keys.systemSignature.clone(),
    };
    evm.view(addresses::KEY_PROOFS, call)
        .map(|bytes| bytes.to_vec())
        .map_err(|error| error.to_string())
}

#[test]
fn the_contract_takes_them_for_this_chain_operator_and_epoch_alone() {
    let mut evm = Evm::new(CHAIN_ID, 1_800_000_000);
    evm.construct(addresses::KEY_PROOFS, KeyProofs::BYTECODE.clone())
        .unwrap();
    let (operator, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
    for seed in 1..6 {
        let keys = keys(seed);
        let public = public_keys(&keys, Path::new("keys.json")).unwrap();
        let made = registration(&keys, Path::new("keys.json"), CHAIN_ID, operator, 7).unwrap();
        assert_eq!((made.consensusKey, made.system), (public.identity, public.system));
        // the contract compresses the point itself: the result is the key that seats name
        assert_eq!(check(&mut evm, operator, &made).unwrap(), public.bls.to_vec());
        assert!(check(&mut evm, other, &made).is_err(), "another operator");
        let later = KeyRegistration {
            epoch: 8,
            ..made.clone()
        };
        assert!(check(&mut evm, operator, &later).is_err(), "another epoch");
        let elsewhere = registration(&keys, Path::new("keys.json"), CHAIN_ID + 1, operator, 7).unwrap();
        assert!(check(&mut evm, operator, &elsewhere).is_err(), "another chain");
        // each proof counts for itself
        let half = KeyRegistration {
            possession: elsewhere.possession.clone(),
            ..made.clone()
        };
        assert!(check(&mut evm, operator, &half).is_err(), "BLS");
        let half = KeyRegistration {
            systemSignature: elsewhere.systemSignature,
            ..made
        };
        assert!(check(&mut evm, operator, &half).is_err(), "system");
    }
}
