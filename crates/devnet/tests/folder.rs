//! The folder of a network, without starting anything.

use std::{collections::BTreeMap, path::Path};

use opg_client::Network;
use opg_contracts::{GenesisFile, possession_namespace};
use opg_devnet::{Devnet, DevnetError};

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn every_key_and_file_is_there_and_the_genesis_is_sound() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("net");
    let split = Devnet::split(&dir, Some(5), Some(22_000)).unwrap();
    assert_eq!(split.roles.len(), 7);
    let found = files(&dir);
    for name in [
        "genesis.json",
        "network.json",
        "demo.key",
        "models/demo/tiny-llama/model.gguf",
    ] {
        assert!(found.contains_key(name), "{name}");
    }
    for i in 0..5 {
        assert!(found.contains_key(&format!("validator-{i}/config.toml")));
    }
    let genesis = GenesisFile::parse(&found["genesis.json"]).unwrap();
    assert_eq!(genesis.validators.len(), 5);
    for validator in &genesis.validators {
        let context = possession_namespace(genesis.chain_id, validator.operator, 0);
        let bls = opg_consensus::BlsPublicKey(validator.bls.0);
        let proof = &validator.bls_possession.0;
        assert!(opg_consensus::keys::verify_possession(&bls, &context, proof));
        let other = possession_namespace(genesis.chain_id + 1, validator.operator, 0);
        assert!(!opg_consensus::keys::verify_possession(&bls, &other, proof));
    }
    let network = Network::load(&dir).unwrap();
    assert_eq!(network.file.rpc.len(), 5);
    assert_eq!(
        network.wallet().unwrap().unwrap().address(),
        network.file.wallet.unwrap().address
    );
    // No key stands in a file that is meant to be shown.
    let key = String::from_utf8(found["demo.key"].clone()).unwrap();
    for name in [
        "genesis.json",
        "network.json",
        "validator-0/config.toml",
        "inference/config.toml",
    ] {
        assert!(!String::from_utf8_lossy(&found[name]).contains(key.trim().trim_start_matches("0x")));
    }
    let again = Devnet::split(&dir, None, None).unwrap_err();
    assert!(matches!(again, DevnetError::NotEmpty { .. }), "{again}");
}

#[test]
fn an_interrupted_making_is_completed_with_the_same_keys() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("net");
    Devnet::split(&dir, None, None).unwrap();
    let before = files(&dir);
    // As after a crash: the last files are missing, and one role has nothing yet.
    for name in ["genesis.json", "network.json"] {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    std::fs::remove_dir_all(dir.join("validator-3")).unwrap();
    Devnet::split(&dir, None, None).unwrap();
    let after = files(&dir);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for name in ["demo.key", "validator-0/keys.json", "inference/keys.json", "faucet.key"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    assert_ne!(before["validator-3/keys.json"], after["validator-3/keys.json"]);
    GenesisFile::parse(&after["genesis.json"]).unwrap();
}
