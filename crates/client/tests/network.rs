//! Finding and reading a network's description.

use std::path::{Path, PathBuf};

use alloy_primitives::{Address, B256, FixedBytes};
use opg_client::{Contracts, KeyRef, Network, NetworkError, NetworkFile, NodeEntry, Wallet};
use opg_contracts::{AccountAllocation, GenesisFile, Parameters, ValidatorEntry, genesis_file::SUPPLY};
use opg_primitives::money::Amount;

fn genesis() -> GenesisFile {
    let account = |n| Address::repeat_byte(n);
    GenesisFile {
        version: 1,
        vesting: vec![],
        airdrop: None,
        evidence: None,
        chain_id: 10_740,
        development: true,
        timestamp: 1_800_000_000,
        validators: vec![ValidatorEntry {
            name: "validator-0".into(),
            identity: B256::repeat_byte(1),
            bls: FixedBytes::repeat_byte(2),
            bls_possession: FixedBytes::repeat_byte(3),
            system: account(4),
            operator: account(5),
        }],
        parameters: Parameters::development(account(6)),
        allocations: vec![AccountAllocation {
            label: "all".into(),
            address: account(7),
            native: Amount(0),
            wrapped: Amount(SUPPLY),
        }],
        nodes: vec![],
        models: vec![],
        asks: vec![],
    }
}

fn description() -> NetworkFile {
    NetworkFile {
        chain_id: 10_740,
        genesis: PathBuf::from("genesis.json"),
        rpc: vec!["http://127.0.0.1:8545".into()],
        hub: None,
        router: None,
        metrics: vec![],
        contracts: Contracts::of(&genesis()),
        wallet: Some(KeyRef {
            address: Address::repeat_byte(8),
            key_file: "demo.key".into(),
        }),
        faucet: None,
        home: None,
        nodes: vec![NodeEntry {
            role: "inference".into(),
            id: B256::repeat_byte(9),
            url: "http://127.0.0.1:8610".into(),
            models: vec!["demo/a".into()],
        }],
    }
}

fn write(dir: &Path, change: impl FnOnce(&mut NetworkFile)) {
    std::fs::write(dir.join("genesis.json"), genesis().to_json()).unwrap();
    let mut file = description();
    change(&mut file);
    file.write(dir).unwrap();
}

#[test]
fn a_folder_can_be_moved() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), |_| ());
    for path in [dir.path().to_path_buf(), dir.path().join("network.json")] {
        let network = Network::load(&path).unwrap();
        assert_eq!(network.genesis, genesis());
        assert_eq!(network.file.genesis, dir.path().join("genesis.json"));
        assert_eq!(
            network.file.wallet.as_ref().unwrap().key_file,
            dir.path().join("demo.key")
        );
        assert_eq!(network.inference_node("demo/a").unwrap().id, B256::repeat_byte(9));
    }
    let wallet = Wallet::random().unwrap();
    wallet.save(&dir.path().join("demo.key")).unwrap();
    let loaded = Network::load(dir.path()).unwrap().wallet().unwrap().unwrap();
    assert_eq!(loaded.address(), wallet.address());
}

#[test]
fn the_file_is_the_one_of_the_interface() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), |_| ());
    let text = std::fs::read(dir.path().join("network.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        json["contracts"]["receiptLedger"],
        "0x0000000000000000000000000000000000001005"
    );
    assert_eq!(json["wallet"]["key_file"], "demo.key");
    assert!(json.get("faucet").is_none());
    // Roles of later versions do not disturb this one.
    let mut later = json;
    later["router"] = "http://127.0.0.1:8600".into();
    std::fs::write(dir.path().join("network.json"), later.to_string()).unwrap();
    Network::load(dir.path()).unwrap();
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Network::load(dir.path()).unwrap_err();
    assert!(matches!(error, NetworkError::Io { .. }), "{error}");
    write(dir.path(), |file| file.chain_id = 1);
    let error = Network::load(dir.path()).unwrap_err();
    assert!(
        matches!(
            error,
            NetworkError::ChainId {
                expected: 10_740,
                got: 1,
                ..
            }
        ),
        "{error}"
    );
    write(dir.path(), |file| file.rpc.clear());
    assert!(Network::load(dir.path()).unwrap_err().to_string().contains("`rpc`"));
    write(dir.path(), |_| ());
    let short = genesis().to_json().replace("\"wrapped\": \"1", "\"wrapped\": \"2");
    std::fs::write(dir.path().join("genesis.json"), short).unwrap();
    assert!(
        Network::load(dir.path())
            .unwrap_err()
            .to_string()
            .contains("allocations")
    );
    std::fs::write(dir.path().join("network.json"), "{}").unwrap();
    assert!(Network::load(dir.path()).unwrap_err().to_string().contains("chain_id"));
}

#[test]
fn a_description_is_replaced_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), |_| ());
    write(dir.path(), |file| file.rpc.push("http://127.0.0.1:8546".into()));
    assert_eq!(Network::load(dir.path()).unwrap().file.rpc.len(), 2);
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
}
