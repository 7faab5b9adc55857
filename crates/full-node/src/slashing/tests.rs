//! Verdicts on a state in memory that has the contracts' layout.

use super::*;
use crate::{
    support::{self, receipts, votes},
    verify::fixture::Memory,
};
use opg_artefact::ZkArtefact;
use opg_contracts::{GenesisFile, slots};
use opg_primitives::{
    mode::Grade,
    money::{Amount, charge},
};
use opg_receipt::{Core, Evidence, ModeRecord};

/// Block 0 as the contracts' constructors leave it, read by nothing but slots.
fn world() -> (GenesisFile, Memory, Network) {
    let genesis = support::genesis();
    let mut memory = Memory::default();
    for (address, account) in opg_genesis::build(&genesis).unwrap().alloc {
        for (slot, value) in account.storage.unwrap_or_default() {
            memory.set(address, slot.into(), value.into());
        }
    }
    let network = Network {
        genesis_digest: genesis.digest(),
        chain_id: genesis.chain_id,
    };
    (genesis, memory, network)
}

fn report(class: u8, subject: B256, epoch: u64, evidence: impl Into<Bytes>) -> Report {
    Report {
        id: U256::from(7),
        class,
        subject,
        epoch,
        evidence: evidence.into(),
    }
}

fn found(memory: &Memory, network: &Network, report: &Report) -> Result<Proven, NotProven> {
    let found = match judge(memory, network, report) {
        Ok(found) => found,
        Err(never) => match never {},
    };
    let said = verdict(report, &found);
    assert_eq!((said.id, said.valid), (U256::from(7), found.is_ok()));
    if found.is_err() {
        assert_eq!((said.fault, said.fee, said.user), (B256::ZERO, 0, Address::ZERO));
    }
    found
}

#[test]
fn two_votes_convict_their_signer_and_nobody_else() {
    let (genesis, memory, network) = world();
    assert_eq!(
        seats::hash(&seats::read_seats(&memory, 0).unwrap()),
        seats::read_set_hash(&memory, 0).unwrap(),
        "seats read slot by slot are those that the contract has committed to"
    );
    let subject = |i: usize| genesis.validators[i].operator.into_word();
    for i in 0..4 {
        let evidence = votes::equivocation(&genesis, i, (0, 9));
        let accused = subject(usize::from(i));
        let good = report(slashing::EQUIVOCATION, accused, 0, evidence.clone());
        let proven = found(&memory, &network, &good).unwrap();
        assert_eq!((proven.fault, proven.fee, proven.user), (B256::ZERO, 0, Address::ZERO));
        for other in (0..4).filter(|other| *other != usize::from(i)) {
            let wrong = report(slashing::EQUIVOCATION, subject(other), 0, evidence.clone());
            assert_eq!(
                found(&memory, &network, &wrong),
                Err(NotProven::Offender {
                    expected: subject(other),
                    got: accused
                })
            );
        }
        // A subject that the contract takes for the same operator would have slashes of its own.
        let mut padded = accused;
        padded[0] = 1;
        let twice = report(slashing::EQUIVOCATION, padded, 0, evidence.clone());
        assert!(matches!(
            found(&memory, &network, &twice),
            Err(NotProven::Offender { .. })
        ));
        // an epoch without a set, and votes of another epoch than the report's
        let later = report(
            slashing::EQUIVOCATION,
            accused,
            1,
            votes::equivocation(&genesis, i, (1, 9)),
        );
        assert!(matches!(
            found(&memory, &network, &later),
            Err(NotProven::Votes(FaultError::Participants(_)))
        ));
        let other_epoch = report(
            slashing::EQUIVOCATION,
            accused,
            0,
            votes::equivocation(&genesis, i, (1, 9)),
        );
        assert!(matches!(
            found(&memory, &network, &other_epoch),
            Err(NotProven::Votes(FaultError::Epoch { .. }))
        ));
        // signed for another network
        let elsewhere = Network {
            genesis_digest: B256::repeat_byte(1),
            ..network
        };
        assert_eq!(
            found(&memory, &elsewhere, &good),
            Err(NotProven::Votes(FaultError::Signature))
        );
    }
    // two votes of different validators, and one vote twice
    let vote = |i, byte| votes::notarize(&genesis, i, (0, 9), B256::repeat_byte(byte));
    for evidence in [
        [vec![1], vote(0, 0xaa), vote(1, 0xbb)].concat(),
        [vec![1], vote(0, 0xaa), vote(0, 0xaa)].concat(),
        vec![1],
        vec![0; slashing::MAX_EVIDENCE],
    ] {
        let report = report(slashing::EQUIVOCATION, subject(0), 0, evidence);
        assert!(matches!(found(&memory, &network, &report), Err(NotProven::Votes(_))));
    }
}

/// Changes a core as its node would, and signs it.
fn sign(genesis: &GenesisFile, seq: u64, change: impl FnOnce(&mut Core)) -> Vec<u8> {
    let mut core = receipts::make(genesis, seq, B256::ZERO, Amount(1_000_000_000))
        .receipt
        .core()
        .clone();
    change(&mut core);
    SignedReceipt::sign(core, &support::receipt_key())
        .unwrap()
        .cose()
        .to_vec()
}

#[test]
fn one_number_twice_is_wrong() {
    let (genesis, memory, network) = world();
    let node = genesis.nodes[0].node_id();
    let first = sign(&genesis, 3, |_| {});
    let dearer = sign(&genesis, 3, |core| {
        core.prev = B256::repeat_byte(9);
        core.price.charge = Amount(core.price.charge.0 + 1);
    });
    let fee = SignedReceipt::decode(&dearer).unwrap().core().price.charge.0;
    assert!(
        charge(
            &support::price(),
            opg_primitives::money::Usage { input: 3, output: 5 },
            0
        )
        .unwrap()
        .0 < fee
    );
    let of = |a: &[u8], b: &[u8]| {
        report(
            slashing::WRONG_INFERENCE,
            node,
            0,
            slashing::encode_receipts(a, b).unwrap(),
        )
    };
    let proven = found(&memory, &network, &of(&first, &dearer)).unwrap();
    assert_eq!(
        (proven.fee, proven.user),
        (fee, opg_payments::signature::address_of_secret(&support::demo()))
    );
    // whichever comes first: one fault, one fee
    assert_eq!(found(&memory, &network, &of(&dearer, &first)), Ok(proven));
    // a third receipt of the same number is the same fault; another number is another
    let third = sign(&genesis, 3, |core| core.prev = B256::repeat_byte(8));
    assert_eq!(
        found(&memory, &network, &of(&first, &third)).unwrap().fault,
        proven.fault
    );
    let (a, b) = (
        sign(&genesis, 4, |_| {}),
        sign(&genesis, 4, |core| core.prev = B256::repeat_byte(6)),
    );
    assert_ne!(found(&memory, &network, &of(&a, &b)).unwrap().fault, proven.fault);

    // the same receipt, receipts with different numbers
    assert_eq!(found(&memory, &network, &of(&first, &first)), Err(NotProven::Distinct));
    assert_eq!(found(&memory, &network, &of(&first, &a)), Err(NotProven::Distinct));
    // not the accused's
    let mut stranger = of(&first, &dearer);
    stranger.subject = B256::repeat_byte(1);
    assert!(matches!(
        found(&memory, &network, &stranger),
        Err(NotProven::Keyset { .. })
    ));
    // not of this network: a node may have the same keys in two
    let elsewhere = Network {
        chain_id: network.chain_id + 1,
        ..network
    };
    assert!(matches!(
        found(&memory, &elsewhere, &of(&first, &dearer)),
        Err(NotProven::Network { .. })
    ));
    let registry = sign(&genesis, 3, |core| core.registry = Address::repeat_byte(1));
    assert!(matches!(
        found(&memory, &network, &of(&first, &registry)),
        Err(NotProven::Network { .. })
    ));
    // signed by somebody else: a challenger cannot make the second receipt
    let mut core = SignedReceipt::decode(&dearer).unwrap().core().clone();
    core.prev = B256::repeat_byte(5);
    let forged = SignedReceipt::sign(core, &ed25519_dalek::SigningKey::from_bytes(&[1; 32])).unwrap();
    assert!(matches!(
        found(&memory, &network, &of(&first, forged.cose())),
        Err(NotProven::Receipt(_))
    ));
    for broken in [&[][..], &[0, 0, 0, 9], &[0xff; 40]] {
        let report = report(slashing::WRONG_INFERENCE, node, 0, broken.to_vec());
        assert_eq!(found(&memory, &network, &report), Err(NotProven::Receipts));
    }
}

#[test]
fn claimed_attestation_must_be_registered() {
    let (genesis, mut memory, network) = world();
    let node = genesis.nodes[0].node_id();
    let id = B256::repeat_byte(0xe1);
    let claim = |grade, named| {
        sign(&genesis, 3, |core| {
            core.mode = ModeRecord {
                asked: Mode::Tee,
                min_grade: grade,
                served: Mode::Tee,
                grade,
            };
            core.evidence = Some(Evidence {
                evidence_id: named,
                policy_epoch: Some(1),
                ..Evidence::default()
            });
        })
    };
    let of = |receipt: Vec<u8>| report(slashing::FORGED_EVIDENCE, node, 0, receipt);
    let hardware = of(claim(Grade::Hardware, Some(id)));
    let proven = found(&memory, &network, &hardware).unwrap();
    assert!(proven.fee > 0 && proven.user != Address::ZERO);
    let mut register = |keyset: B256, grade: Grade| {
        let base = slots::evidence_base(id);
        memory.set(addresses::EVIDENCE_REGISTRY, base + U256::from(1), keyset.into());
        let packed = U256::from(1) | (U256::from(grade.code()) << 128);
        memory.set(addresses::EVIDENCE_REGISTRY, base + U256::from(4), packed);
        memory.clone()
    };
    let keyset = receipts::keyset(&genesis).digest().0;
    // of another keyset; simulated where hardware is claimed
    assert_eq!(
        found(&register(B256::repeat_byte(2), Grade::Hardware), &network, &hardware),
        Ok(proven)
    );
    assert_eq!(
        found(&register(keyset, Grade::Simulated), &network, &hardware),
        Ok(proven)
    );
    // what is claimed is so
    let registered = register(keyset, Grade::Hardware);
    assert_eq!(found(&registered, &network, &hardware), Err(NotProven::Registered(id)));
    let less = of(claim(Grade::Simulated, Some(id)));
    assert_eq!(found(&registered, &network, &less), Err(NotProven::Registered(id)));
    // a receipt that claims nothing
    let plain = of(sign(&genesis, 3, |_| {}));
    assert_eq!(
        found(&registered, &network, &plain),
        Err(NotProven::NotAttested(Mode::None))
    );
    // not the node's own claim
    let mut stranger = hardware.clone();
    stranger.subject = B256::repeat_byte(1);
    assert!(matches!(
        found(&Memory::default(), &network, &stranger),
        Err(NotProven::Keyset { .. })
    ));
}

#[test]
fn other_classes_are_never_proven() {
    let (genesis, memory, network) = world();
    let evidence = votes::equivocation(&genesis, 0, (0, 9));
    for class in [0, slashing::DOWNTIME, 6, 255] {
        let report = report(class, genesis.validators[0].operator.into_word(), 0, evidence.clone());
        assert_eq!(found(&memory, &network, &report), Err(NotProven::Class(class)));
    }
}

/// A vote of validator `i` for a block that names an artefact for a receipt, and a report of it with the proof in data contracts.
fn invalid_vote(
    genesis: &GenesisFile,
    memory: &mut Memory,
    i: u8,
    receipt: &SignedReceipt,
    artefact: &[u8],
    part: usize,
) -> Report {
    let name = |core_hash, artefact| ProofName { core_hash, artefact };
    let mut block = opg_consensus::ChainBlock::genesis(genesis.digest(), B256::ZERO);
    block.height = 9;
    block.proofs = vec![
        name(B256::repeat_byte(7), B256::repeat_byte(8)),
        name(receipt.core_hash(), sha256(artefact)),
    ];
    let vote = votes::notarize(genesis, i, (0, 9), block.digest());
    let mut evidence = opg_consensus::encode_vote(&vote, &block.opening()).unwrap();
    evidence.extend(slashing::encode_proof_evidence(1, receipt.cose()).unwrap());
    for part in artefact.chunks(part) {
        let address = slashing::data_address(&slashing::data_contract(part).unwrap());
        memory.1.insert(address, [&[0], part].concat().into());
        evidence.extend_from_slice(address.as_slice());
    }
    let subject = genesis.validators[usize::from(i)].operator.into_word();
    report(slashing::INVALID_VOTE, subject, 0, evidence)
}

#[test]
fn a_vote_for_an_invalid_proof_convicts_its_signer() {
    let (genesis, mut memory, network) = world();
    let (receipt, artefact) = receipts::proven(&genesis, 0, B256::ZERO, Amount(1_000_000_000));
    let mut forged = artefact.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let garbage = b"no artefact at all".to_vec();
    for (i, bytes) in [(0, &forged), (3, &garbage)] {
        let good = invalid_vote(&genesis, &mut memory, i, &receipt, bytes, slashing::MAX_PART);
        assert!(good.evidence.len() <= slashing::MAX_EVIDENCE);
        assert_eq!(artefact_of(&good.evidence), Some(sha256(bytes)));
        let proven = found(&memory, &network, &good).unwrap();
        assert_eq!((proven.fault, proven.fee, proven.user), (B256::ZERO, 0, Address::ZERO));
        let other = Report {
            subject: genesis.validators[1].operator.into_word(),
            ..good.clone()
        };
        assert!(matches!(
            found(&memory, &network, &other),
            Err(NotProven::Offender { .. })
        ));
    }
    // a valid proof convicts nobody, whether or not its program is registered
    let honest = invalid_vote(&genesis, &mut memory, 1, &receipt, &artefact, 1_000);
    assert_eq!(
        found(&memory, &network, &honest),
        Err(NotProven::Valid(sha256(&artefact)))
    );
    // the same proof for another receipt
    let (second, _) = receipts::proven(&genesis, 1, B256::ZERO, Amount(1_000_000_000));
    let swapped = invalid_vote(&genesis, &mut memory, 1, &second, &artefact, slashing::MAX_PART);
    assert!(found(&memory, &network, &swapped).is_ok());

    let good = invalid_vote(&genesis, &mut memory, 2, &receipt, &forged, slashing::MAX_PART);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut evidence = good.evidence.to_vec();
        change(&mut evidence);
        Report {
            evidence: evidence.into(),
            ..good.clone()
        }
    };
    let receipt_at = good.evidence.len() - 20 * forged.len().div_ceil(slashing::MAX_PART) - 4 - receipt.cose().len();
    let cases: [(&str, Report); 5] = [
        ("a part is missing", changed(&|e| e.truncate(e.len() - 20))),
        (
            "no part",
            changed(&|e| e.truncate(receipt_at + 4 + receipt.cose().len())),
        ),
        ("half an address", changed(&|e| e.truncate(e.len() - 1))),
        ("another proof of the block", changed(&|e| e[receipt_at - 1] = 0)),
        ("no such proof", changed(&|e| e[receipt_at - 1] = 9)),
    ];
    for (what, report) in cases {
        let error = found(&memory, &network, &report).expect_err(what);
        match what {
            "a part is missing" | "no part" => {
                assert!(matches!(error, NotProven::Unpublished { .. }), "{what}: {error}")
            }
            "half an address" => assert_eq!(error, NotProven::Proof),
            _ => assert!(matches!(error, NotProven::Unnamed(_)), "{what}: {error}"),
        }
    }
    // no byte of the evidence can be changed, but those of the receipt's signature: the core is what a proof is about
    let end = receipt_at + 4 + receipt.cose().len();
    for at in (0..good.evidence.len())
        .step_by(37)
        .filter(|at| !(end - 64..end).contains(at))
    {
        assert!(
            found(&memory, &network, &changed(&|e| e[at] ^= 1)).is_err(),
            "byte {at}"
        );
    }
    // parts that hold more than a proof can have are not put together
    let huge = vec![0; MAX_ARTEFACT_BYTES + 1];
    let report = invalid_vote(&genesis, &mut memory, 2, &receipt, &huge, slashing::MAX_PART);
    assert!(matches!(
        found(&memory, &network, &report),
        Err(NotProven::Unpublished { got: None, .. })
    ));
}

#[test]
fn an_answer_that_is_not_the_programs_is_wrong() {
    let (genesis, mut memory, network) = world();
    let node = genesis.nodes[0].node_id();
    let program = opg_samples::proof::program_root();
    let honest = receipts::proven(&genesis, 3, B256::ZERO, Amount(1_000_000_000)).0;
    let mut core = honest.core().clone();
    core.response.commitment = B256::repeat_byte(0x66);
    let statement = opg_artefact::statement(&core, &program);
    core.evidence.as_mut().unwrap().statement_hash = Some(statement);
    let salt = opg_samples::proof::SALT;
    let never = std::sync::atomic::AtomicBool::new(false);
    let body = opg_samples::proof::body(3);
    let right = ZkArtefact::refute(&never, opg_samples::proof::program(), &core, salt, &body, &mut |_| {});
    let right = right.unwrap().encode();
    let wrong = SignedReceipt::sign(core, &support::receipt_key()).unwrap();
    let of = |receipt: &SignedReceipt, parts: &[Address]| {
        let mut evidence = slashing::encode_proof_evidence(0, receipt.cose()).unwrap();
        parts
            .iter()
            .for_each(|part| evidence.extend_from_slice(part.as_slice()));
        report(slashing::WRONG_INFERENCE, node, 0, evidence)
    };
    let publish = |memory: &mut Memory, proof: &[u8]| {
        let parts = proof.chunks(slashing::MAX_PART);
        let mut put = |part: &[u8]| {
            let address = slashing::data_address(&slashing::data_contract(part).unwrap());
            memory.1.insert(address, [&[0], part].concat().into());
            address
        };
        parts.map(&mut put).collect::<Vec<_>>()
    };
    let parts = publish(&mut memory, &right);
    let root = wrong.core().model.served_root.0;
    let slot = slots::model_program(root, program);
    memory.set(addresses::MODEL_REGISTRY, slot, U256::ZERO);
    assert!(
        matches!(found(&memory, &network, &of(&wrong, &parts)), Err(NotProven::Contradiction(reason)) if reason.contains("no program")),
    );
    memory.set(addresses::MODEL_REGISTRY, slot, U256::from(1));
    let proven = found(&memory, &network, &of(&wrong, &parts)).unwrap();
    let payer = opg_payments::signature::address_of_secret(&support::demo());
    assert_eq!((proven.fee, proven.user), (wrong.core().price.charge.0, payer));
    // the same number twice is the same fault of the same receipt
    let fault = keccak(&[wrong.core().keyset.0.as_slice(), &3u64.to_be_bytes()].concat());
    assert_eq!(proven.fault, fault);

    // an honest answer, no proof, half of one, a receipt without a statement, another node's
    let contradiction = |report: &Report| matches!(found(&memory, &network, report), Err(NotProven::Contradiction(_)));
    assert!(contradiction(&of(&honest, &parts)));
    assert!(contradiction(&of(&wrong, &[])));
    assert!(contradiction(&of(&wrong, &parts[1..])));
    let plain = SignedReceipt::decode(&sign(&genesis, 4, |_| {})).unwrap();
    assert_eq!(
        found(&memory, &network, &of(&plain, &parts)),
        Err(NotProven::NoStatement(Mode::None))
    );
    let mut stranger = of(&wrong, &parts);
    stranger.subject = B256::repeat_byte(1);
    assert!(matches!(
        found(&memory, &network, &stranger),
        Err(NotProven::Keyset { .. })
    ));
}
