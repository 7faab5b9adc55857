//! The evidence registry: who may submit, how much, what validators record, what the policy's owner may do, and gas.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, Uint};
use common::{Net, START, assert_reverts, file, who};
use opg_contracts::{
    EvidenceRegistry, EvidenceSetup, NodeRegistry, addresses,
    evidence::{self, EvidenceRecord, Findings, MAX_VERSIONS, Verdict, Version},
};

const REGISTRY: Address = addresses::EVIDENCE_REGISTRY;
const GRACE: u64 = 600;

fn seconds(value: u64) -> Uint<40, 1> {
    Uint::<40, 1>::from(value)
}

/// The network of the other tests with a policy; block 300 of it.
fn net() -> Net {
    let mut file = file();
    file.evidence = Some(EvidenceSetup {
        owner: who("owner"),
        policy: "{\"kinds\":[\"tdx\"]}".into(),
        grace: GRACE,
        development_roots: Vec::new(),
    });
    let mut net = Net::of(&file);
    net.evm.set_number(300);
    net
}

fn submission(net: &Net) -> EvidenceRegistry::submitCall {
    EvidenceRegistry::submitCall {
        keyset: net.keysets[0],
        kind: 2,
        nonceBlock: U256::from(299),
        role: "inference".into(),
        config: B256::repeat_byte(7),
        document: vec![1; 5_000].into(),
        collateral: vec![2; 20_000].into(),
    }
}

fn verdict(net: &Net, id: u8, code: u16) -> Verdict {
    Verdict {
        evidenceId: B256::repeat_byte(id),
        code,
        evidence: EvidenceRegistry::Evidence {
            nodeId: net.nodes[0],
            keyset: net.keysets[0],
            measurement: B256::repeat_byte(0xa0),
            signer: B256::repeat_byte(0xb0),
            registeredAt: seconds(START + 10),
            expiresAt: seconds(START + 10_000),
            epoch: seconds(1),
            kind: 2,
            grade: 1,
        },
    }
}

fn record(net: &mut Net, verdicts: Vec<Verdict>) -> u64 {
    let versions = Vec::new();
    record_all(net, &Findings { verdicts, versions })
}

fn record_all(net: &mut Net, findings: &Findings) -> u64 {
    let system = who("system-0");
    net.evm.set_coinbase(system);
    let done = net.evm.send_with_gas(
        system,
        REGISTRY,
        U256::ZERO,
        evidence::calldata(findings),
        evidence::GAS_LIMIT,
    );
    done.unwrap().gas_used
}

#[test]
fn nodes_submit_bounded_fresh_evidence_of_their_own_keysets() {
    let mut net = net();
    let good = submission(&net);
    // the settlement key and the operator, nobody else
    let refused = net.evm.call(who("stranger"), REGISTRY, good.clone());
    assert_reverts::<EvidenceRegistry::NotOfNode, _>(refused);
    let refused = net.evm.call(who("settlement-1"), REGISTRY, good.clone());
    assert_reverts::<EvidenceRegistry::NotOfNode, _>(refused);
    for (change, what) in [
        (
            EvidenceRegistry::submitCall {
                document: Bytes::new(),
                ..good.clone()
            },
            "no document",
        ),
        (
            EvidenceRegistry::submitCall {
                document: vec![0; 16_385].into(),
                ..good.clone()
            },
            "too long a document",
        ),
        (
            EvidenceRegistry::submitCall {
                collateral: vec![0; 65_537].into(),
                ..good.clone()
            },
            "too much collateral",
        ),
        (
            EvidenceRegistry::submitCall {
                role: String::new(),
                ..good.clone()
            },
            "no role",
        ),
    ] {
        println!("{what}");
        assert_reverts::<EvidenceRegistry::Size, _>(net.evm.call(who("settlement-0"), REGISTRY, change));
    }
    for number in [300, 43, 10_000] {
        let stale = EvidenceRegistry::submitCall {
            nonceBlock: U256::from(number),
            ..good.clone()
        };
        assert_reverts::<EvidenceRegistry::NonceBlock, _>(net.evm.call(who("settlement-0"), REGISTRY, stale));
    }
    let unknown = EvidenceRegistry::submitCall {
        keyset: B256::repeat_byte(9),
        ..good.clone()
    };
    assert_reverts::<EvidenceRegistry::KeysetNotActive, _>(net.evm.call(who("settlement-0"), REGISTRY, unknown));

    net.evm.call(who("settlement-0"), REGISTRY, good.clone()).unwrap();
    // the same node only after a while, another one at once
    assert_reverts::<EvidenceRegistry::TooMany, _>(net.evm.call(who("node-0"), REGISTRY, good.clone()));
    let other = EvidenceRegistry::submitCall {
        keyset: net.keysets[1],
        ..good.clone()
    };
    net.evm.call(who("node-1"), REGISTRY, other).unwrap();
    let now = net.evm.timestamp();
    net.evm.set_timestamp(now + 20);
    net.evm.set_number(301);
    net.evm.call(who("node-0"), REGISTRY, good).unwrap();
}

#[test]
fn a_block_takes_eight_submissions() {
    let mut net = net();
    let good = submission(&net);
    let mut now = net.evm.timestamp();
    for _ in 0..8 {
        net.evm.call(who("node-0"), REGISTRY, good.clone()).unwrap();
        now += 20;
        net.evm.set_timestamp(now);
    }
    assert_reverts::<EvidenceRegistry::TooMany, _>(net.evm.call(who("node-0"), REGISTRY, good.clone()));
    net.evm.set_number(301);
    net.evm.call(who("node-0"), REGISTRY, good).unwrap();
}

/// Keysets cost a transaction, bonds cost money: with many keysets one operator must not get more of a block than with one.
#[test]
fn many_keysets_of_one_node_get_one_place() {
    let mut net = net();
    let good = submission(&net);
    let digests: Vec<B256> = (1..=8_u8)
        .map(|i| {
            let add = NodeRegistry::addKeysetCall {
                nodeId: net.nodes[0],
                keyset: NodeRegistry::Keyset {
                    receiptKey: B256::repeat_byte(0xd0 + i),
                    settlementKey: who("settlement-0"),
                    hpkeKey: B256::ZERO,
                    tlsSpki: B256::ZERO,
                },
            };
            net.evm.call(who("node-0"), addresses::NODE_REGISTRY, add).unwrap()
        })
        .collect();
    let of = |keyset| EvidenceRegistry::submitCall { keyset, ..good.clone() };
    net.evm.call(who("node-0"), REGISTRY, good.clone()).unwrap();
    for keyset in &digests {
        assert_reverts::<EvidenceRegistry::TooMany, _>(net.evm.call(who("node-0"), REGISTRY, of(*keyset)));
    }
    // Seven places are left for others, and neither more blocks nor more keysets bring the first node a second one in its interval.
    net.evm.call(who("node-1"), REGISTRY, of(net.keysets[1])).unwrap();
    let now = net.evm.timestamp();
    net.evm.set_timestamp(now + 19);
    net.evm.set_number(301);
    assert_reverts::<EvidenceRegistry::TooMany, _>(net.evm.call(who("node-0"), REGISTRY, of(digests[0])));
    net.evm.set_timestamp(now + 20);
    net.evm.call(who("node-0"), REGISTRY, of(digests[0])).unwrap();
    assert_reverts::<EvidenceRegistry::TooMany, _>(net.evm.call(who("node-0"), REGISTRY, of(digests[1])));
}

#[test]
fn only_system_transactions_record_and_rust_reads_what_they_wrote() {
    let mut net = net();
    let call = EvidenceRegistry::recordCall {
        verdicts: vec![verdict(&net, 1, 0)],
        versions: Vec::new(),
    };
    for account in ["stranger", "owner", "node-0", "system-0"] {
        net.evm.set_coinbase(who("system-1"));
        let refused = net.evm.call(who(account), REGISTRY, call.clone());
        assert_reverts::<EvidenceRegistry::NotSystemTransaction, _>(refused);
    }
    let (accepted, refused) = (verdict(&net, 1, 0), verdict(&net, 2, 502));
    record(&mut net, vec![accepted.clone(), refused]);
    let id = B256::repeat_byte(1);
    let found = evidence::read(&net.evm, id).unwrap().unwrap();
    assert_eq!(
        found,
        EvidenceRecord {
            node_id: net.nodes[0],
            keyset: net.keysets[0],
            measurement: B256::repeat_byte(0xa0),
            signer: B256::repeat_byte(0xb0),
            registered_at: START + 10,
            expires_at: START + 10_000,
            epoch: 1,
            kind: 2,
            grade: 1,
        }
    );
    assert_eq!(evidence::latest(&net.evm, net.keysets[0]).unwrap(), Some(id));
    assert_eq!(evidence::read(&net.evm, B256::repeat_byte(2)).unwrap(), None);
    // the same document again, with a later verdict, changes nothing
    let mut again = accepted;
    again.evidence.expiresAt = seconds(START + 90_000);
    record(&mut net, vec![again]);
    assert_eq!(evidence::read(&net.evm, id).unwrap(), Some(found));
}

#[test]
fn the_owner_sets_the_policy_and_revokes_and_both_sides_agree_until_when_evidence_counts() {
    let mut net = net();
    let first = verdict(&net, 1, 0);
    record(&mut net, vec![first]);
    let id = B256::repeat_byte(1);
    let until = |net: &mut Net| {
        let record = evidence::read(&net.evm, id).unwrap().unwrap();
        let rust = evidence::valid_until(&net.evm, &record, GRACE).unwrap();
        let solidity = net
            .evm
            .view(REGISTRY, EvidenceRegistry::validUntilCall { evidenceId: id })
            .unwrap();
        assert_eq!(rust.unwrap_or(0), solidity.to::<u64>());
        rust
    };
    assert_eq!(until(&mut net), Some(START + 10_000));
    assert_eq!(evidence::policy(&net.evm).unwrap(), b"{\"kinds\":[\"tdx\"]}");
    assert_eq!(evidence::policy_epoch(&net.evm).unwrap().number, 1);

    let long: Bytes = vec![b'x'; 1_000].into();
    let set = EvidenceRegistry::setPolicyCall { policy_: long.clone() };
    assert_reverts::<EvidenceRegistry::NotOwner, _>(net.evm.call(who("stranger"), REGISTRY, set.clone()));
    net.evm.set_timestamp(START + 100);
    net.evm.call(who("owner"), REGISTRY, set).unwrap();
    assert_eq!(evidence::policy(&net.evm).unwrap(), long.to_vec());
    assert_eq!(evidence::policy_epoch(&net.evm).unwrap().number, 2);
    assert_eq!(
        until(&mut net),
        Some(START + 100 + GRACE),
        "evidence of the policy before lasts for the grace"
    );

    let subjects = [0xa0, 0xb0].map(B256::repeat_byte);
    for subject in subjects {
        let call = EvidenceRegistry::revokeCall { subject };
        assert_reverts::<EvidenceRegistry::NotOwner, _>(net.evm.call(who("node-0"), REGISTRY, call));
    }
    // The signer in a second piece of evidence of another measurement, so that each revocation is seen alone.
    let mut second = verdict(&net, 3, 0);
    second.evidence.measurement = B256::repeat_byte(0xa1);
    record(&mut net, vec![second]);
    let counts = |net: &mut Net, id: u8| {
        let call = EvidenceRegistry::validUntilCall {
            evidenceId: B256::repeat_byte(id),
        };
        !net.evm.view(REGISTRY, call).unwrap().is_zero()
    };
    assert!(counts(&mut net, 1) && counts(&mut net, 3));
    net.evm
        .call(
            who("owner"),
            REGISTRY,
            EvidenceRegistry::revokeCall { subject: subjects[0] },
        )
        .unwrap();
    assert_eq!(until(&mut net), None);
    assert!(counts(&mut net, 3));
    net.evm
        .call(
            who("owner"),
            REGISTRY,
            EvidenceRegistry::revokeCall { subject: subjects[1] },
        )
        .unwrap();
    assert!(!counts(&mut net, 3));
    let hand = EvidenceRegistry::setOwnerCall {
        owner_: who("governor"),
    };
    net.evm.call(who("owner"), REGISTRY, hand.clone()).unwrap();
    assert_reverts::<EvidenceRegistry::NotOwner, _>(net.evm.call(who("owner"), REGISTRY, hand));
}

#[test]
fn eight_verdicts_fit_their_system_transaction() {
    let mut net = net();
    let verdicts: Vec<Verdict> = (1..=8)
        .map(|i| {
            let mut one = verdict(&net, i, 0);
            one.evidence.keyset = B256::repeat_byte(0xc0 + i);
            one
        })
        .collect();
    let versions = (0..MAX_VERSIONS as u64)
        .map(|i| version(B256::from(U256::from(i)), 17, START + i))
        .collect();
    let gas = record_all(&mut net, &Findings { verdicts, versions });
    println!("eight verdicts, forty versions: {gas} gas");
    assert!(gas < evidence::GAS_LIMIT * 9 / 10, "{gas}");
}

fn version(subject: B256, number: u64, issued_at: u64) -> Version {
    Version {
        subject,
        number,
        issuedAt: seconds(issued_at),
    }
}

#[test]
fn versions_of_collateral_only_rise() {
    let mut net = net();
    let subject = B256::repeat_byte(0x5b);
    let newest = |net: &Net| evidence::newest(&net.evm, subject).unwrap();
    assert_eq!(newest(&net), (0, 0));
    for (number, issued_at, expected) in [
        (17, 100, (17, 100)),
        (16, 200, (17, 100)),
        (18, 99, (17, 100)),
        (17, 100, (17, 100)),
        (17, 150, (17, 150)),
        (19, 150, (19, 150)),
        (0, 0, (19, 150)),
    ] {
        let versions = vec![version(subject, number, issued_at)];
        record_all(
            &mut net,
            &Findings {
                verdicts: Vec::new(),
                versions,
            },
        );
        assert_eq!(newest(&net), expected, "after {number} of {issued_at}");
    }
    // both in one transaction: the second of them lowers nothing
    let versions = vec![version(subject, 20, 300), version(subject, 20, 200)];
    record_all(
        &mut net,
        &Findings {
            verdicts: Vec::new(),
            versions,
        },
    );
    assert_eq!(newest(&net), (20, 300));
    // another part has versions of its own
    assert_eq!(evidence::newest(&net.evm, B256::repeat_byte(0x5c)).unwrap(), (0, 0));
    // nobody but the block's own system account
    let forged = EvidenceRegistry::recordCall {
        verdicts: Vec::new(),
        versions: vec![version(subject, 99, 999)],
    };
    assert_reverts::<EvidenceRegistry::NotSystemTransaction, _>(net.evm.call(who("owner"), REGISTRY, forged));
}

#[test]
fn anybody_hands_in_bounded_collateral() {
    let mut net = net();
    let good = EvidenceRegistry::submitCollateralCall {
        kind: 2,
        collateral: vec![1; 20_000].into(),
    };
    for length in [0, 65_537] {
        let bad = EvidenceRegistry::submitCollateralCall {
            kind: 2,
            collateral: vec![1; length].into(),
        };
        assert_reverts::<EvidenceRegistry::Size, _>(net.evm.call(who("stranger"), REGISTRY, bad));
    }
    for _ in 0..evidence::MAX_COLLATERAL_PER_BLOCK {
        net.evm.call(who("stranger"), REGISTRY, good.clone()).unwrap();
    }
    assert_reverts::<EvidenceRegistry::TooMany, _>(net.evm.call(who("stranger"), REGISTRY, good.clone()));
    // they take no node's place
    let document = submission(&net);
    net.evm.call(who("settlement-0"), REGISTRY, document).unwrap();
    net.evm.set_number(301);
    net.evm.call(who("stranger"), REGISTRY, good).unwrap();
}

/// The published clients' selectors and what they read.
#[test]
fn published_clients_find_attested_nodes() {
    use alloy_sol_types::SolCall as _;
    use opg_contracts::TEERegistry as Tee;
    for (selector, expected) in [
        (Tee::getActiveTEEsCall::SELECTOR, 0x4b60_14da_u32),
        (Tee::getEnabledTEEsCall::SELECTOR, 0x63b8_6b89),
        (Tee::getTEEsByTypeCall::SELECTOR, 0xb826_44b7),
        (Tee::getTEECall::SELECTOR, 0x418b_207d),
        (Tee::isTEEActiveCall::SELECTOR, 0xa3bf_31f1),
        (Tee::isTEEEnabledCall::SELECTOR, 0x927d_3c95),
        (Tee::isValidTEETypeCall::SELECTOR, 0xe10a_2ea4),
        (Tee::getTEETypesCall::SELECTOR, 0x971c_fbf1),
        (Tee::heartbeatMaxAgeCall::SELECTOR, 0x8726_7aca),
    ] {
        assert_eq!(u32::from_be_bytes(selector), expected);
    }
    let mut net = net();
    let tee = addresses::TEE_REGISTRY;
    let active = Tee::getActiveTEEsCall { teeType: 0 };
    assert!(net.evm.view(tee, active.clone()).unwrap().is_empty());
    assert_reverts::<Tee::InvalidTEEType, _>(net.evm.view(tee, Tee::getActiveTEEsCall { teeType: 1 }));
    let first = verdict(&net, 1, 0);
    record(&mut net, vec![first]);
    net.evm.set_timestamp(START + 20);
    let found = net.evm.view(tee, active.clone()).unwrap();
    let [info] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (info.owner, info.paymentAddress, info.endpoint.as_str(), info.enabled),
        (who("node-0"), net.deposit(0), "http://127.0.0.1:8610", true)
    );
    // RFC 8410, section 10.1: the same twelve bytes before the key.
    let spki = [&alloy_primitives::hex!("302a300506032b6570032100")[..], &[0x40; 32]].concat();
    assert_eq!(info.publicKey, Bytes::from(spki));
    let keyset = net.keysets[0];
    assert!(net.evm.view(tee, Tee::isTEEActiveCall { teeId: keyset }).unwrap());
    net.evm.set_timestamp(START + 10_001);
    assert!(!net.evm.view(tee, Tee::isTEEActiveCall { teeId: keyset }).unwrap());
    assert!(net.evm.view(tee, Tee::isTEEEnabledCall { teeId: keyset }).unwrap());
    assert!(net.evm.view(tee, active).unwrap().is_empty());
    assert_eq!(
        net.evm.view(tee, Tee::getEnabledTEEsCall { teeType: 0 }).unwrap(),
        [keyset]
    );
    let unknown = Tee::getTEECall {
        teeId: B256::repeat_byte(9),
    };
    assert_reverts::<Tee::TEENotFound, _>(net.evm.view(tee, unknown));
}

#[test]
fn without_a_setup_there_is_no_policy_and_no_owner() {
    let mut net = Net::of(&file());
    assert_eq!(evidence::policy_epoch(&net.evm).unwrap().number, 0);
    assert_eq!(evidence::policy(&net.evm).unwrap(), Vec::<u8>::new());
    let set = EvidenceRegistry::setPolicyCall {
        policy_: b"{}".to_vec().into(),
    };
    assert_reverts::<EvidenceRegistry::NotOwner, _>(net.evm.call(who("owner"), REGISTRY, set));
}

#[test]
fn development_roots_need_a_development_chain() {
    let mut file = file();
    let root = opg_contracts::DevelopmentRoot {
        kind: "tdx".into(),
        label: "software".into(),
        der: vec![1].into(),
    };
    file.evidence = Some(EvidenceSetup {
        owner: who("owner"),
        policy: "{}".into(),
        grace: 0,
        development_roots: vec![root],
    });
    file.development = true;
    file.validate().unwrap();
    file.development = false;
    let refused = file.validate().unwrap_err().to_string();
    assert!(refused.contains("evidence.development_roots"), "{refused}");
}
