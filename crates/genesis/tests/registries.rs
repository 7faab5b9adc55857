//! Nodes, keysets, bonds, asks; models, commitments, terms.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use common::{MODEL, Net, assert_reverts, nonce, price, who};
use opg_contracts::{ModelRegistry, NodeRegistry, OPG, addresses, state};
use opg_genesis::evm::CallError;
use opg_primitives::{
    ids::{self, NodeId},
    money::{Amount, Price, WEI_PER_OPG},
};

const BOND: u128 = 1_000 * WEI_PER_OPG;
const NODES: Address = addresses::NODE_REGISTRY;
const MODELS: Address = addresses::MODEL_REGISTRY;

fn keyset(i: u8) -> NodeRegistry::Keyset {
    NodeRegistry::Keyset {
        receiptKey: B256::repeat_byte(i),
        settlementKey: who("settler"),
        hpkeKey: B256::repeat_byte(i + 1),
        tlsSpki: B256::ZERO,
    }
}

fn digest(node: B256, keyset: &NodeRegistry::Keyset) -> B256 {
    ids::keyset_digest(&ids::Keyset {
        node_id: NodeId(node),
        receipt_key: keyset.receiptKey,
        settlement_key: keyset.settlementKey,
        hpke_key: keyset.hpkeKey,
        tls_spki: keyset.tlsSpki,
    })
    .0
}

fn register(salt: u8, endpoint: &str, keyset: NodeRegistry::Keyset, bond: u128) -> NodeRegistry::registerCall {
    NodeRegistry::registerCall {
        salt: B256::repeat_byte(salt),
        endpoint: endpoint.into(),
        keyset,
        bond,
    }
}

fn approve(net: &mut Net, label: &str, value: u128) {
    let call = OPG::approveCall {
        spender: NODES,
        value: U256::from(value),
    };
    net.evm.call(who(label), addresses::OPG, call).unwrap();
}

/// Sends as the account of a label.
fn by<C: SolCall>(net: &mut Net, label: &str, to: Address, call: C) -> Result<C::Return, CallError> {
    net.evm.call(who(label), to, call)
}

#[test]
fn a_node_registers_with_bond_and_keyset() {
    let mut net = Net::new();
    let before = net.opg(who("alice"));
    approve(&mut net, "alice", BOND);
    let id = by(&mut net, "alice", NODES, register(9, "https://node", keyset(1), BOND)).unwrap();
    assert_eq!(id, ids::node_id(who("alice"), B256::repeat_byte(9)).0);
    assert_eq!(net.opg(who("alice")), before - BOND);
    let node = state::read_node(&net.evm, id).unwrap().unwrap();
    assert_eq!(
        (node.operator, node.registered_at, node.inactive_at, node.bond.0),
        (who("alice"), net.evm.timestamp(), None, BOND)
    );
    let stored = net.evm.view(NODES, NodeRegistry::nodesCall { nodeId: id }).unwrap();
    assert_eq!(
        (stored.operator, stored.endpoint, stored.bond),
        (who("alice"), "https://node".into(), BOND)
    );
    let record = state::read_keyset(&net.evm, digest(id, &keyset(1))).unwrap().unwrap();
    assert_eq!(record.node_id, id);
    assert_eq!(record.receipt_key, B256::repeat_byte(1));
    assert_eq!(record.settlement_key, who("settler"));
    assert_eq!((record.registered_at, record.revoked_at), (net.evm.timestamp(), None));
    let view = net
        .evm
        .view(
            NODES,
            NodeRegistry::keysetDigestOfCall {
                nodeId: id,
                keyset: keyset(1),
            },
        )
        .unwrap();
    assert_eq!(view, digest(id, &keyset(1)));
    assert_eq!(
        net.evm
            .view(NODES, NodeRegistry::operatorOfCall { nodeId: id })
            .unwrap(),
        who("alice")
    );
}

#[test]
fn bad_registrations_are_refused() {
    let mut net = Net::new();
    let endpoint = "https://node";
    let unapproved = by(&mut net, "alice", NODES, register(9, endpoint, keyset(1), BOND));
    assert_reverts::<OPG::ERC20InsufficientAllowance, _>(unapproved);
    approve(&mut net, "alice", 10 * BOND);
    let small = by(&mut net, "alice", NODES, register(9, endpoint, keyset(1), BOND - 1));
    assert_reverts::<NodeRegistry::BondTooSmall, _>(small);
    for bad in ["", &"x".repeat(257)] {
        let result = by(&mut net, "alice", NODES, register(9, bad, keyset(1), BOND));
        assert_reverts::<NodeRegistry::InvalidEndpoint, _>(result);
    }
    for bad in [
        NodeRegistry::Keyset {
            receiptKey: B256::ZERO,
            ..keyset(1)
        },
        NodeRegistry::Keyset {
            settlementKey: Address::ZERO,
            ..keyset(1)
        },
    ] {
        let result = by(&mut net, "alice", NODES, register(9, endpoint, bad, BOND));
        assert_reverts::<NodeRegistry::IncompleteKeyset, _>(result);
    }
    by(&mut net, "alice", NODES, register(9, endpoint, keyset(1), BOND)).unwrap();
    let again = by(&mut net, "alice", NODES, register(9, endpoint, keyset(2), BOND));
    assert_reverts::<NodeRegistry::NodeExists, _>(again);
}

#[test]
fn keysets_come_and_go_by_the_operator_only() {
    let mut net = Net::new();
    let (id, other) = (net.nodes[0], net.nodes[1]);
    let add = |k| NodeRegistry::addKeysetCall {
        nodeId: id,
        keyset: keyset(k),
    };
    assert_reverts::<NodeRegistry::NotOperator, _>(by(&mut net, "node-1", NODES, add(1)));
    let new = by(&mut net, "node-0", NODES, add(1)).unwrap();
    assert_eq!(new, digest(id, &keyset(1)));
    assert_reverts::<NodeRegistry::KeysetExists, _>(by(&mut net, "node-0", NODES, add(1)));
    let revoke = |node, digest| NodeRegistry::revokeKeysetCall {
        nodeId: node,
        keysetDigest: digest,
    };
    assert_reverts::<NodeRegistry::NotOperator, _>(by(&mut net, "node-1", NODES, revoke(id, new)));
    // Another operator cannot revoke it through a node of its own.
    assert_reverts::<NodeRegistry::UnknownKeyset, _>(by(&mut net, "node-1", NODES, revoke(other, new)));
    assert_reverts::<NodeRegistry::UnknownKeyset, _>(by(&mut net, "node-0", NODES, revoke(id, B256::ZERO)));
    net.tick(3);
    by(&mut net, "node-0", NODES, revoke(id, new)).unwrap();
    let record = state::read_keyset(&net.evm, new).unwrap().unwrap();
    assert_eq!(record.revoked_at, Some(net.evm.timestamp()));
    assert_reverts::<NodeRegistry::UnknownKeyset, _>(by(&mut net, "node-0", NODES, revoke(id, new)));
    assert_reverts::<NodeRegistry::KeysetExists, _>(by(&mut net, "node-0", NODES, add(1)));
}

#[test]
fn a_bond_grows_and_leaves_after_unbonding() {
    let mut net = Net::new();
    let id = net.nodes[0];
    approve(&mut net, "node-0", 50);
    let more = NodeRegistry::addBondCall { nodeId: id, amount: 50 };
    assert_reverts::<NodeRegistry::NotOperator, _>(by(&mut net, "alice", NODES, more.clone()));
    by(&mut net, "node-0", NODES, more.clone()).unwrap();
    assert_eq!(state::read_node(&net.evm, id).unwrap().unwrap().bond.0, BOND + 50);
    let withdraw = NodeRegistry::withdrawBondCall { nodeId: id };
    assert_reverts::<NodeRegistry::BondLocked, _>(by(&mut net, "node-0", NODES, withdraw.clone()));
    let leave = NodeRegistry::deactivateCall { nodeId: id };
    assert_reverts::<NodeRegistry::NotOperator, _>(by(&mut net, "alice", NODES, leave.clone()));
    by(&mut net, "node-0", NODES, leave.clone()).unwrap();
    let left = net.evm.timestamp();
    assert_eq!(state::read_node(&net.evm, id).unwrap().unwrap().inactive_at, Some(left));
    net.tick(999);
    assert_reverts::<NodeRegistry::BondLocked, _>(by(&mut net, "node-0", NODES, withdraw.clone()));
    assert_reverts::<NodeRegistry::NodeInactive, _>(by(&mut net, "node-0", NODES, leave));
    assert_reverts::<NodeRegistry::NodeInactive, _>(by(&mut net, "node-0", NODES, more));
    let endpoint = NodeRegistry::setEndpointCall {
        nodeId: id,
        endpoint: "x".into(),
    };
    assert_reverts::<NodeRegistry::NodeInactive, _>(by(&mut net, "node-0", NODES, endpoint));
    let key = NodeRegistry::addKeysetCall {
        nodeId: id,
        keyset: keyset(1),
    };
    assert_reverts::<NodeRegistry::NodeInactive, _>(by(&mut net, "node-0", NODES, key));
    net.tick(1);
    assert_reverts::<NodeRegistry::NotOperator, _>(by(&mut net, "node-1", NODES, withdraw.clone()));
    let before = net.opg(who("node-0"));
    by(&mut net, "node-0", NODES, withdraw.clone()).unwrap();
    assert_eq!(net.opg(who("node-0")), before + BOND + 50);
    assert_reverts::<NodeRegistry::BondLocked, _>(by(&mut net, "node-0", NODES, withdraw));
}

#[test]
fn endpoints_change() {
    let mut net = Net::new();
    let call = |endpoint: &str| NodeRegistry::setEndpointCall {
        nodeId: net.nodes[0],
        endpoint: endpoint.into(),
    };
    let (good, empty) = (
        call("https://elsewhere.example/with/a/path/longer/than/31/bytes"),
        call(""),
    );
    assert_reverts::<NodeRegistry::NotOperator, _>(by(&mut net, "alice", NODES, good.clone()));
    assert_reverts::<NodeRegistry::InvalidEndpoint, _>(by(&mut net, "node-0", NODES, empty));
    by(&mut net, "node-0", NODES, good.clone()).unwrap();
    let node = net.nodes[0];
    let stored = net.evm.view(NODES, NodeRegistry::nodesCall { nodeId: node }).unwrap();
    assert_eq!(stored.endpoint, good.endpoint);
}

#[test]
fn asks_stay_near_the_reference() {
    let mut net = Net::new();
    let id = net.nodes[0];
    let ask = |root, a, b, c| NodeRegistry::setAskCall {
        nodeId: id,
        modelRoot: root,
        ask: NodeRegistry::Price {
            perCall: a,
            perMtokIn: b,
            perMtokOut: c,
        },
    };
    for (call, good) in [
        (ask(MODEL, 250, 1_000_000, 0), true),
        (ask(MODEL, 4_000, 16_000_000, 0), true),
        (ask(MODEL, 249, 4_000_000, 0), false),
        (ask(MODEL, 4_001, 4_000_000, 0), false),
        (ask(MODEL, 0, 4_000_000, 0), false),
        (ask(MODEL, 1_000, 16_000_001, 0), false),
        (ask(MODEL, 1_000, u128::MAX, 0), false),
        (ask(MODEL, 1_000, 4_000_000, 1), false),
    ] {
        let asked = Price {
            per_call: Amount(call.ask.perCall),
            per_mtok_in: Amount(call.ask.perMtokIn),
            per_mtok_out: Amount(call.ask.perMtokOut),
        };
        assert_eq!(asked.is_admissible_ask(&price()), good);
        let result = by(&mut net, "node-0", NODES, call);
        if good {
            result.unwrap();
            assert_eq!(state::read_ask(&net.evm, id, MODEL).unwrap(), asked);
        } else {
            assert_reverts::<NodeRegistry::AskOutOfRange, _>(result);
        }
    }
    let unknown = ask(B256::repeat_byte(1), 0, 0, 0);
    assert_reverts::<NodeRegistry::UnknownModel, _>(by(&mut net, "node-0", NODES, unknown));
    assert_reverts::<NodeRegistry::NotOperator, _>(by(&mut net, "node-1", NODES, ask(MODEL, 1_000, 4_000_000, 0)));
}

fn commit(net: &mut Net, creator: &str, root: B256) {
    let commitment = keccak256((root, who(creator), B256::ZERO).abi_encode());
    // Whoever sends it: the commitment names its creator.
    by(net, "anyone", MODELS, ModelRegistry::commitCall { commitment }).unwrap();
}

fn reveal(net: &mut Net, creator: &str, root: B256, royalty: u16) -> Result<(), CallError> {
    let call = ModelRegistry::revealCall {
        modelRoot: root,
        salt: B256::ZERO,
        name: format!("{creator}/model"),
        uri: "https://models.example/a-uri-longer-than-thirty-one-bytes".into(),
        royaltyBps: royalty,
        price: ModelRegistry::Price {
            perCall: 7,
            perMtokIn: 8,
            perMtokOut: u128::MAX,
        },
    };
    by(net, creator, MODELS, call).map(|_| ())
}

#[test]
fn a_model_is_committed_then_revealed() {
    let mut net = Net::new();
    let root = nonce(1);
    assert_reverts::<ModelRegistry::UnknownCommitment, _>(reveal(&mut net, "alice", root, 500));
    net.evm.set_number(10);
    commit(&mut net, "alice", root);
    for number in [10, 11] {
        net.evm.set_number(number);
        assert_reverts::<ModelRegistry::RevealTooEarly, _>(reveal(&mut net, "alice", root, 500));
    }
    net.evm.set_number(12);
    // Who sees the reveal cannot use the commitment.
    assert_reverts::<ModelRegistry::UnknownCommitment, _>(reveal(&mut net, "bob", root, 500));
    assert_reverts::<ModelRegistry::RoyaltyTooHigh, _>(reveal(&mut net, "alice", root, 3_001));
    reveal(&mut net, "alice", root, 500).unwrap();
    let terms = state::read_model_terms(&net.evm, root).unwrap().unwrap();
    assert_eq!(
        (terms.creator, terms.royalty_bps, terms.previous_royalty_bps),
        (who("alice"), 500, 500)
    );
    assert_eq!(terms.changed_at, net.evm.timestamp());
    assert_eq!(
        terms.price,
        Price {
            per_call: Amount(7),
            per_mtok_in: Amount(8),
            per_mtok_out: Amount(u128::MAX)
        }
    );
    let stored = net
        .evm
        .view(MODELS, ModelRegistry::modelsCall { modelRoot: root })
        .unwrap();
    assert_eq!((stored.creator, stored.name.as_str()), (who("alice"), "alice/model"));
    assert_eq!((stored.committedAt, stored.royaltyBps), (10, 500));
    // The commitment is used up.
    assert_reverts::<ModelRegistry::UnknownCommitment, _>(reveal(&mut net, "alice", root, 500));
    assert!(state::read_model_terms(&net.evm, nonce(2)).unwrap().is_none());
}

#[test]
fn repeating_a_commitment_does_not_renew_it() {
    let mut net = Net::new();
    net.evm.set_number(10);
    commit(&mut net, "alice", nonce(1));
    net.evm.set_number(12);
    commit(&mut net, "alice", nonce(1));
    reveal(&mut net, "alice", nonce(1), 0).unwrap();
}

#[test]
fn the_oldest_commitment_wins_within_the_claim_window() {
    let mut net = Net::new();
    let root = nonce(1);
    for (number, creator) in [(10, "alice"), (11, "bob"), (12, "carol")] {
        net.evm.set_number(number);
        commit(&mut net, creator, root);
    }
    net.evm.set_number(20);
    reveal(&mut net, "bob", root, 100).unwrap();
    assert_reverts::<ModelRegistry::ModelExists, _>(reveal(&mut net, "carol", root, 0));
    net.tick(3_599);
    reveal(&mut net, "alice", root, 200).unwrap();
    let terms = state::read_model_terms(&net.evm, root).unwrap().unwrap();
    assert_eq!(
        (terms.creator, terms.royalty_bps, terms.previous_royalty_bps),
        (who("alice"), 200, 100)
    );
    // Nobody moves the end of the window.
    net.evm.set_number(5);
    commit(&mut net, "carol", root);
}

#[test]
fn after_the_claim_window_a_registration_is_final() {
    let mut net = Net::new();
    let root = nonce(1);
    for (number, creator) in [(10, "alice"), (11, "bob")] {
        net.evm.set_number(number);
        commit(&mut net, creator, root);
    }
    net.evm.set_number(20);
    reveal(&mut net, "bob", root, 100).unwrap();
    net.tick(3_600);
    assert_reverts::<ModelRegistry::ModelExists, _>(reveal(&mut net, "alice", root, 0));
}

#[test]
fn texts_of_models_are_bounded() {
    let mut net = Net::new();
    net.evm.set_number(10);
    commit(&mut net, "alice", nonce(1));
    commit(&mut net, "alice", B256::ZERO);
    net.evm.set_number(12);
    for (root, name, uri) in [
        (nonce(1), String::new(), String::new()),
        (nonce(1), "n".repeat(129), String::new()),
        (nonce(1), "n".into(), "u".repeat(513)),
        (B256::ZERO, "n".into(), String::new()),
    ] {
        let call = ModelRegistry::revealCall {
            modelRoot: root,
            salt: B256::ZERO,
            name,
            uri,
            royaltyBps: 0,
            price: ModelRegistry::Price {
                perCall: 0,
                perMtokIn: 0,
                perMtokOut: 0,
            },
        };
        assert_reverts::<ModelRegistry::InvalidModel, _>(by(&mut net, "alice", MODELS, call));
    }
}

#[test]
fn terms_change_with_notice_and_by_the_creator() {
    let mut net = Net::new();
    let set = |royalty| ModelRegistry::setTermsCall {
        modelRoot: MODEL,
        royaltyBps: royalty,
        price: ModelRegistry::Price {
            perCall: 9,
            perMtokIn: 9,
            perMtokOut: 9,
        },
    };
    assert_reverts::<ModelRegistry::NotCreator, _>(by(&mut net, "alice", MODELS, set(1)));
    assert_reverts::<ModelRegistry::TermsTooSoon, _>(by(&mut net, "creator", MODELS, set(1)));
    net.tick(600);
    assert_reverts::<ModelRegistry::RoyaltyTooHigh, _>(by(&mut net, "creator", MODELS, set(3_001)));
    by(&mut net, "creator", MODELS, set(2_000)).unwrap();
    let now = net.evm.timestamp();
    let terms = state::read_model_terms(&net.evm, MODEL).unwrap().unwrap();
    assert_eq!(
        (terms.royalty_bps, terms.previous_royalty_bps, terms.changed_at),
        (2_000, 1_000, now)
    );
    assert!(terms.accepts_royalty(2_000, now, 600) && terms.accepts_royalty(1_000, now + 599, 600));
    assert!(!terms.accepts_royalty(1_000, now + 600, 600) && !terms.accepts_royalty(1_500, now, 600));
    net.tick(599);
    assert_reverts::<ModelRegistry::TermsTooSoon, _>(by(&mut net, "creator", MODELS, set(0)));

    let give = |to| ModelRegistry::transferCreatorCall { modelRoot: MODEL, to };
    assert_reverts::<ModelRegistry::NotCreator, _>(by(&mut net, "alice", MODELS, give(who("alice"))));
    assert_reverts::<ModelRegistry::InvalidModel, _>(by(&mut net, "creator", MODELS, give(Address::ZERO)));
    by(&mut net, "creator", MODELS, give(who("alice"))).unwrap();
    assert_eq!(
        state::read_model_terms(&net.evm, MODEL).unwrap().unwrap().creator,
        who("alice")
    );
    assert_reverts::<ModelRegistry::NotCreator, _>(by(&mut net, "creator", MODELS, give(who("creator"))));
}

/// Programs are added by the creator and stay for ever: receipts refer to them.
#[test]
fn programs_are_registered_once_by_the_creator() {
    let mut net = Net::new();
    let register = |program: B256, report: &str| ModelRegistry::registerProgramCall {
        modelRoot: MODEL,
        program,
        report: report.into(),
    };
    let program = B256::repeat_byte(0x2a);
    assert_reverts::<ModelRegistry::NotCreator, _>(by(&mut net, "alice", MODELS, register(program, "{}")));
    for (root, report) in [
        (B256::ZERO, "{}".to_owned()),
        (program, String::new()),
        (program, "x".repeat(4_097)),
    ] {
        assert_reverts::<ModelRegistry::InvalidProgram, _>(by(&mut net, "creator", MODELS, register(root, &report)));
    }
    assert_eq!(state::read_program(&net.evm, MODEL, program).unwrap(), None);
    let longest = "x".repeat(4_096);
    by(&mut net, "creator", MODELS, register(program, &longest)).unwrap();
    assert_eq!(
        state::read_program(&net.evm, MODEL, program).unwrap(),
        Some(keccak256(longest.as_bytes()))
    );
    assert_eq!(
        state::read_program(&net.evm, program, MODEL).unwrap(),
        None,
        "of this model only"
    );
    assert_reverts::<ModelRegistry::InvalidProgram, _>(by(&mut net, "creator", MODELS, register(program, "{}")));
    for i in 1..16 {
        by(&mut net, "creator", MODELS, register(B256::repeat_byte(i), "{}")).unwrap();
    }
    let list = net
        .evm
        .view(MODELS, ModelRegistry::programsOfCall { modelRoot: MODEL })
        .unwrap();
    assert_eq!((list.len(), list[0]), (16, program));
    assert_reverts::<ModelRegistry::InvalidProgram, _>(by(
        &mut net,
        "creator",
        MODELS,
        register(B256::repeat_byte(0x2b), "{}"),
    ));
}
