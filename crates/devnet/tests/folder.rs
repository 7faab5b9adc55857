//! The folder of a network, without starting anything.

use std::{collections::BTreeMap, path::Path};

use opg_client::Network;
use opg_contracts::{GenesisFile, possession_namespace};
use opg_devnet::{Devnet, DevnetError, JoinOptions, Options};
use opg_full_node::{FullNodeConfig, Keys};

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
    let split = Devnet::split(&dir, Some(5), Some(22_000), None).unwrap();
    assert_eq!(split.roles.len(), 8);
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
    let again = Devnet::split(&dir, None, None, None).unwrap_err();
    assert!(matches!(again, DevnetError::NotEmpty { .. }), "{again}");
}

#[test]
fn an_interrupted_making_is_completed_with_the_same_keys() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("net");
    Devnet::split(&dir, None, None, None).unwrap();
    let before = files(&dir);
    // As after a crash: the last files are missing, and one role has nothing yet.
    for name in ["genesis.json", "network.json"] {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    std::fs::remove_dir_all(dir.join("validator-3")).unwrap();
    Devnet::split(&dir, None, None, None).unwrap();
    let after = files(&dir);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for name in ["demo.key", "validator-0/keys.json", "inference/keys.json", "faucet.key"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    assert_ne!(before["validator-3/keys.json"], after["validator-3/keys.json"]);
    GenesisFile::parse(&after["genesis.json"]).unwrap();
}

#[test]
fn one_more_node_knows_the_others_and_listens_beside_them() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("net");
    let base = 22_600;
    Devnet::split(&dir, None, Some(base), None).unwrap();
    let network = Network::load(&dir).unwrap();
    let out = temp.path().join("fifth");
    let joined = Devnet::join(&network, &out, JoinOptions::default()).unwrap();
    let config = FullNodeConfig::load(&joined.config).unwrap();
    assert_eq!(opg_client::load_genesis(&config.genesis).unwrap(), network.genesis);
    assert_eq!((config.rpc.port(), config.p2p.port()), (base + 4, base + 24));
    let known: Vec<_> = config.peers.iter().map(|peer| peer.address.port()).collect();
    assert_eq!(known, [20, 21, 22, 23].map(|i| base + i));
    assert_eq!(
        config.peers[2].identity,
        network.genesis.validators[2].identity.to_string()[2..]
    );
    let keys = Keys::load(&config.keys).unwrap();
    let others = (0..4).map(|i| Keys::load(&dir.join(format!("validator-{i}/keys.json"))).unwrap().bls);
    assert!(others.into_iter().all(|other| other != keys.bls));
    let again = Devnet::join(&network, &out, JoinOptions::default()).unwrap_err();
    assert!(matches!(again, DevnetError::NodeExists { .. }), "{again}");

    // elsewhere, somebody has to say where the others are
    let far = temp.path().join("far");
    std::fs::create_dir(&far).unwrap();
    for name in ["genesis.json", "network.json"] {
        std::fs::copy(dir.join(name), far.join(name)).unwrap();
    }
    let mut network = network;
    network.dir = far;
    let sixth = temp.path().join("sixth");
    let alone = Devnet::join(&network, &sixth, JoinOptions::default()).unwrap_err();
    assert!(matches!(alone, DevnetError::NoPeers), "{alone}");
    let peers = config.peers[..1].to_vec();
    let named = |rpc| JoinOptions {
        peers: peers.clone(),
        rpc,
        p2p: "127.0.0.1:22700".parse().ok(),
        metrics: None,
    };
    let nowhere = Devnet::join(&network, &sixth, named(None)).unwrap_err();
    assert!(nowhere.to_string().contains("--rpc"), "{nowhere}");
    let joined = Devnet::join(&network, &sixth, named("127.0.0.1:22701".parse().ok())).unwrap();
    assert_eq!(FullNodeConfig::load(&joined.config).unwrap().peers, peers);
}

#[test]
fn parameters_come_from_a_file_and_are_checked() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("parameters.json");
    let dir = temp.path().join("net");
    for (text, named) in [
        (r#"{"governance": {"voting_period": 0}}"#, "voting_period"),
        (r#"{"epoch_blocks": 3}"#, "epoch_blocks"),
        (r#"{"epoch": 3}"#, "epoch"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = Devnet::split(&dir, None, None, Some(&file)).unwrap_err();
        assert!(error.is_input(), "{error}");
        let error = error.to_string();
        assert!(error.contains(named) && error.contains("parameters.json"), "{error}");
    }
    std::fs::write(&file, r#"{"epoch_blocks": 7, "staking": {"unbonding": 90}}"#).unwrap();
    Devnet::split(&dir, None, None, Some(&file)).unwrap();
    let network = Network::load(&dir).unwrap();
    let parameters = network.genesis.parameters;
    assert_eq!(parameters.epoch_blocks, 7);
    assert_eq!(parameters.staking.unwrap().unbonding, 90);
    assert!(parameters.governance.is_some());
    let contracts = network.file.contracts;
    assert!(contracts.governor.is_some() && contracts.staking.is_some() && contracts.treasury.is_some());
    // `opg up` goes on with what is there
    let options = Options {
        dir: Some(dir),
        parameters: Some(file),
        ..Options::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let refused = runtime.block_on(Devnet::up(options)).map(|_| ()).unwrap_err();
    assert!(matches!(refused, DevnetError::ParametersOfExisting { .. }), "{refused}");
}
