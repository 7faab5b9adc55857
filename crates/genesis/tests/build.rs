//! Block 0: deterministic, complete, read by ethrex.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256, address, b256, keccak256};
use common::{CHAIN_ID, MODEL, OTHER_MODEL, START, deposit_address, file, price, who};
use opg_contracts::{
    FeeVault, GenesisFile, GenesisFileError, ModelRegistry, Multicall3, NodeRegistry, OPG, ProgramRegistration,
    ReceiptLedger, addresses, genesis_file::SUPPLY, state,
};
use opg_genesis::{GenesisError, evm::Evm};
use opg_primitives::money::{Amount, WEI_PER_OPG};
use std::time::Instant;

#[test]
fn equal_files_give_equal_blocks() {
    let first = opg_genesis::build(&file()).unwrap();
    let start = Instant::now();
    let second = opg_genesis::build(&file()).unwrap();
    println!("build: {:?}", start.elapsed());
    assert_eq!(first, second);
    assert_eq!(
        serde_json::to_string(&first).unwrap(),
        serde_json::to_string(&second).unwrap()
    );
    // The order of lists is part of the file, not of the state they describe.
    let mut shuffled = file();
    shuffled.allocations.reverse();
    shuffled.nodes.reverse();
    shuffled.models.reverse();
    shuffled.asks.reverse();
    assert_eq!(opg_genesis::build(&shuffled).unwrap().alloc, first.alloc);
}

/// Changes whenever the contracts, the file format or the procedure change: then every network starts anew.
#[test]
fn golden_hashes() {
    let genesis: ethrex_common::types::Genesis =
        serde_json::from_value(serde_json::to_value(opg_genesis::build(&file()).unwrap()).unwrap()).unwrap();
    let digest = file().digest();
    let state_root = B256::new(genesis.compute_state_root().0);
    let block = B256::new(genesis.get_block().hash().0);
    println!("digest {digest} state {state_root} block {block}");
    assert_eq!(
        digest,
        b256!("eeeb75ffbd7e385c4f23c201d512dc845359f5ea13f8ce4025cb98d3a62f9f7d")
    );
    assert_eq!(
        state_root,
        b256!("dd4f646c31159a2193c3c28e147bac117b3b489e041621eb99b7942903a21a90")
    );
    assert_eq!(
        block,
        b256!("68fa4df1190473ec93b40047f93dd95e8d2f5163b8e3327a65e3e3f7ad949e53")
    );
}

/// Programs of the file are registered with their models; what the contract would refuse is refused in the file.
#[test]
fn programs_of_the_file_are_registered() {
    let program = |i| ProgramRegistration {
        root: B256::repeat_byte(i),
        report: format!("{{\"n\":{i}}}"),
    };
    let mut with = file();
    with.models[0].programs = vec![program(1), program(2)];
    let evm = Evm::with_genesis(&opg_genesis::build(&with).unwrap());
    for wanted in &with.models[0].programs {
        let report = state::read_program(&evm, with.models[0].root, wanted.root).unwrap();
        assert_eq!(report, Some(keccak256(wanted.report.as_bytes())));
    }
    assert_ne!(with.digest(), file().digest());
    for (programs, field) in [
        (vec![program(0)], "models[0].programs[0].root"),
        (vec![program(1), program(1)], "models[0].programs[1].root"),
        ((1..=17).map(program).collect(), "models[0].programs"),
        (
            vec![ProgramRegistration {
                root: B256::repeat_byte(1),
                report: String::new(),
            }],
            "models[0].programs[0].report",
        ),
    ] {
        let mut bad = file();
        bad.models[0].programs = programs;
        let error = bad.validate().unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn supply_is_exact() {
    let genesis = opg_genesis::build(&file()).unwrap();
    let total = genesis
        .alloc
        .values()
        .fold(U256::ZERO, |sum, account| sum + account.balance);
    assert_eq!(total, U256::from(SUPPLY));
    let holders = genesis
        .alloc
        .iter()
        .filter(|(_, a)| a.code.is_some() && !a.balance.is_zero());
    assert_eq!(
        holders.map(|(address, _)| *address).collect::<Vec<_>>(),
        [addresses::OPG]
    );
    assert_eq!(genesis.timestamp, START);
    assert_eq!(genesis.extra_data.as_ref(), file().digest().as_slice());
    for (address, account) in &genesis.alloc {
        assert_eq!(account.nonce, Some(u64::from(account.code.is_some())), "{address}");
        assert!(account.storage.is_none() || account.code.is_some(), "{address}");
    }
}

#[test]
fn contracts_know_each_other_and_the_parameters() {
    let mut evm = Evm::with_genesis(&opg_genesis::build(&file()).unwrap());
    let (opg, nodes, models) = (addresses::OPG, addresses::NODE_REGISTRY, addresses::MODEL_REGISTRY);
    let (vault, ledger) = (addresses::FEE_VAULT, addresses::RECEIPT_LEDGER);
    assert_eq!(evm.view(opg, OPG::nameCall {}).unwrap(), "OpenGradient");
    assert_eq!(evm.view(opg, OPG::symbolCall {}).unwrap(), "OPG");
    assert_eq!(evm.view(opg, OPG::decimalsCall {}).unwrap(), 18);
    assert_eq!(evm.view(opg, OPG::maxSupplyCall {}).unwrap(), U256::from(SUPPLY));
    assert_eq!(evm.view(opg, OPG::CLOCK_MODECall {}).unwrap(), "mode=timestamp");
    assert_eq!(
        evm.view(opg, OPG::DOMAIN_SEPARATORCall {}).unwrap(),
        common::domain().separator()
    );
    assert_eq!(evm.view(nodes, NodeRegistry::opgCall {}).unwrap(), opg);
    assert_eq!(evm.view(nodes, NodeRegistry::modelsCall {}).unwrap(), models);
    assert_eq!(
        evm.view(nodes, NodeRegistry::minBondCall {}).unwrap(),
        file().parameters.min_bond.0
    );
    assert_eq!(evm.view(models, ModelRegistry::maxRoyaltyBpsCall {}).unwrap(), 3_000);
    assert_eq!(evm.view(vault, FeeVault::ledgerCall {}).unwrap(), ledger);
    assert_eq!(
        evm.view(vault, FeeVault::implementationCall {}).unwrap(),
        addresses::DEPOSIT_IMPLEMENTATION
    );
    assert_eq!(evm.view(ledger, ReceiptLedger::vaultCall {}).unwrap(), vault);
    assert_eq!(
        evm.view(ledger, ReceiptLedger::treasuryCall {}).unwrap(),
        who("treasury")
    );
    for (mode, window) in [600u64, 600, 0, 700].into_iter().enumerate() {
        let call = ReceiptLedger::windowCall {
            mode: u8::try_from(mode).unwrap(),
        };
        assert_eq!(evm.view(ledger, call).unwrap().to::<u64>(), window);
    }
    for node in file().nodes {
        let id = node.node_id();
        assert_eq!(
            evm.view(vault, FeeVault::depositAddressOfCall { nodeId: id }).unwrap(),
            deposit_address(id)
        );
        assert_eq!(state::read_node(&evm, id).unwrap().unwrap().operator, node.operator);
        assert_eq!(state::read_ask(&evm, id, MODEL).unwrap(), price());
        assert_eq!(state::read_ask(&evm, id, OTHER_MODEL).unwrap(), price());
    }
    for validator in file().validators {
        assert!(state::is_system(&evm, validator.system).unwrap());
        assert!(!state::is_system(&evm, validator.operator).unwrap());
    }
}

#[test]
fn multicall_and_create2_deployer_work() {
    let mut evm = Evm::with_genesis(&opg_genesis::build(&file()).unwrap());
    let call3 = |target: Address, allow: bool, data: Vec<u8>| Multicall3::Call3 {
        target,
        allowFailure: allow,
        callData: data.into(),
    };
    use alloy_sol_types::SolCall;
    let calls = vec![
        call3(addresses::OPG, false, OPG::totalSupplyCall {}.abi_encode()),
        call3(
            addresses::OPG,
            true,
            OPG::withdrawCall { amount: U256::ONE }.abi_encode(),
        ),
        call3(addresses::MULTICALL3, false, Multicall3::getChainIdCall {}.abi_encode()),
    ];
    let results = evm
        .view(
            addresses::MULTICALL3,
            Multicall3::aggregate3Call { calls: calls.clone() },
        )
        .unwrap();
    assert_eq!(
        results.iter().map(|r| r.success).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(U256::from_be_slice(&results[2].returnData), U256::from(CHAIN_ID));
    let mut strict = calls;
    strict[1].allowFailure = false;
    assert!(
        evm.view(addresses::MULTICALL3, Multicall3::aggregate3Call { calls: strict })
            .is_err()
    );

    // Init code that returns one STOP byte, deployed where CREATE2 says.
    let init = alloy_primitives::hex!("60015ff3");
    let salt = B256::repeat_byte(7);
    let data = [salt.as_slice(), &init].concat();
    evm.send(who("alice"), addresses::CREATE2_DEPLOYER, U256::ZERO, data.into())
        .unwrap();
    let at = addresses::CREATE2_DEPLOYER.create2_from_code(salt, init);
    assert_eq!(evm.code(at).as_ref(), [0u8]);
    assert_eq!(
        addresses::CREATE2_DEPLOYER,
        address!("0x4e59b44847b379578588920cA78FbF26c0B4956C")
    );
}

/// The shared configuration that ethrex is known to run with.
#[test]
fn chain_configuration_is_complete() {
    let value = serde_json::to_value(opg_genesis::build(&file()).unwrap()).unwrap();
    let config = &value["config"];
    assert_eq!(config["chainId"], CHAIN_ID);
    assert_eq!(config["terminalTotalDifficulty"], 0);
    assert_eq!(config["terminalTotalDifficultyPassed"], true);
    assert_eq!(config["osakaTime"], 0);
    assert_eq!(config["blobSchedule"]["osaka"]["max"], 9);
    assert_eq!(
        config["depositContractAddress"],
        "0x00000000219ab540356cbb839cbe05303d7705fa"
    );
    let parsed: ethrex_common::types::Genesis = serde_json::from_value(value).unwrap();
    assert_eq!(parsed.config.chain_id, CHAIN_ID);
    assert_eq!(parsed.gas_limit, 120_000_000);
}

fn refused(change: impl FnOnce(&mut GenesisFile)) -> String {
    let mut file = file();
    change(&mut file);
    match opg_genesis::build(&file) {
        Err(GenesisError::File(GenesisFileError::Field { field, .. })) => field,
        other => panic!("expected a refused field, got {other:?}"),
    }
}

#[test]
fn bad_files_are_refused_by_field() {
    for (field, change) in [
        ("version", (|f| f.version = 2) as fn(&mut GenesisFile)),
        ("chain_id", |f| f.chain_id = 0),
        ("timestamp", |f| f.timestamp = 0),
        ("timestamp", |f| f.timestamp = 1 << 40),
        ("parameters.gas_limit", |f| f.parameters.gas_limit = 60_000_000),
        ("parameters.max_royalty_bps", |f| f.parameters.max_royalty_bps = 3_001),
        ("parameters.windows.tee", |f| f.parameters.windows.tee = u64::MAX),
        ("parameters.treasury", |f| f.parameters.treasury = addresses::OPG),
        ("parameters.min_bond", |f| f.parameters.min_bond = Amount(u128::MAX)),
        ("validators", |f| f.validators.clear()),
        ("validators[1].identity", |f| {
            f.validators[1].identity = f.validators[0].identity
        }),
        ("validators[1].bls", |f| f.validators[1].bls = f.validators[0].bls),
        ("validators[2].bls_possession", |f| {
            f.validators[2].bls_possession = Default::default()
        }),
        ("validators[3].system", |f| {
            f.validators[3].system = f.validators[0].operator
        }),
        ("validators[0].operator", |f| f.validators[0].operator = Address::ZERO),
        ("validators[1].name", |f| f.validators[1].name = "validator-0".into()),
        ("allocations[0].wrapped", |f| f.allocations[0].wrapped = Amount(1)),
        ("allocations[1].address", |f| {
            f.allocations[1].address = f.allocations[0].address
        }),
        ("allocations[1].address", |f| {
            f.allocations[1].address = addresses::EIP_SYSTEM_CONTRACTS[1]
        }),
        ("allocations", |f| f.allocations[0].native.0 += 1),
        ("allocations", |f| f.allocations[0].native.0 -= 1),
        ("allocations", |f| f.allocations[0].native.0 = u128::MAX),
        ("nodes[0].bond", |f| f.nodes[0].bond = Amount(1)),
        ("nodes[0].bond", |f| f.nodes[0].bond = Amount(2_001 * WEI_PER_OPG)),
        ("nodes[1].receipt_key", |f| {
            f.nodes[1].receipt_key = f.nodes[0].receipt_key
        }),
        ("nodes[1].settlement_key", |f| {
            f.nodes[1].settlement_key = f.validators[0].system
        }),
        ("nodes[0].endpoint", |f| f.nodes[0].endpoint = String::new()),
        ("models[1].root", |f| f.models[1].root = f.models[0].root),
        ("models[0].royalty_bps", |f| f.models[0].royalty_bps = 3_001),
        ("models[0].creator", |f| f.models[0].creator = Address::ZERO),
        ("asks[0].node_id", |f| f.asks[0].node_id = B256::ZERO),
        ("asks[0].root", |f| f.asks[0].root = B256::ZERO),
        ("asks[0].price", |f| f.asks[0].price.per_call = Amount(249)),
        ("asks[0].price", |f| f.asks[0].price.per_call = Amount(4_001)),
        ("asks[0].price", |f| f.asks[0].price.per_mtok_out = Amount(1)),
        ("asks[1].root", |f| f.asks[1] = f.asks[0].clone()),
    ] {
        assert_eq!(refused(change), field);
    }
}

#[test]
fn json_is_strict_and_its_digest_canonical() {
    let json = file().to_json();
    let parsed = GenesisFile::parse(json.as_bytes()).unwrap();
    assert_eq!(parsed, file());
    let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let object = value.as_object_mut().unwrap();
    let first = object.shift_remove("version").unwrap();
    object.insert("version".into(), first);
    let reordered = GenesisFile::parse(value.to_string().as_bytes()).unwrap();
    assert_eq!(reordered.digest(), parsed.digest());
    value["surprise"] = true.into();
    assert!(GenesisFile::parse(value.to_string().as_bytes()).is_err());
    let repeated = json.replacen("\"version\": 1", "\"version\": 1, \"version\": 1", 1);
    assert!(GenesisFile::parse(repeated.as_bytes()).is_err());
    let mut changed = file();
    changed.models[0].uri = "x".into();
    assert_ne!(changed.digest(), parsed.digest());
    assert!(matches!(
        GenesisFile::parse(&vec![b' '; 17 << 20]),
        Err(GenesisFileError::Size { .. })
    ));
}
