//! Whole receipt files: complete, tampered, partial, and against the wrong genesis.

mod common;

use alloy_primitives::{Address, B256, U256};
use common::{HEIGHT, START, World};
use opg_contracts::{addresses, slots};
use opg_light_client::{Options, Report, Status, StepName, Verdict, Verifier, verify_bytes};
use opg_primitives::{
    mode::{Grade, Mode},
    money::Amount,
};
use opg_receipt::{ReceiptFile, State, UpstreamPeer, UpstreamRecord, file::StateProof};
use proptest::prelude::*;
use std::sync::OnceLock;

/// One world with its complete file, made once.
fn world() -> &'static (World, Vec<u8>) {
    static WORLD: OnceLock<(World, Vec<u8>)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let world = World::new(4, 1);
        let bytes = world.file().to_bytes();
        (world, bytes)
    })
}

fn check(world: &World, file: &ReceiptFile) -> Report {
    check_with(world, file, &Options::default())
}

fn check_with(world: &World, file: &ReceiptFile, options: &Options) -> Report {
    verify_bytes(&file.to_bytes(), &world.genesis, options).expect("a usable genesis")
}

/// The step that failed and its detail.
fn failure(report: &Report) -> (StepName, &str) {
    assert_eq!(report.verdict, Verdict::Invalid, "{report:#?}");
    assert_eq!(report.state, None);
    let step = report.failure().expect("a failed step");
    (step.name, &step.detail)
}

fn status(report: &Report, name: StepName) -> Status {
    report
        .step(name)
        .unwrap_or_else(|| panic!("no step {}", name.as_str()))
        .status
}

#[test]
fn a_complete_file_of_mode_none_is_settled_and_unproven() {
    let (world, bytes) = world();
    let options = Options {
        now: Some(START + 100),
        ..Options::default()
    };
    let report = verify_bytes(bytes, &world.genesis, &options).expect("a usable genesis");
    for step in &report.steps {
        let expected = if step.name == StepName::Evidence {
            Status::Skipped
        } else {
            Status::Ok
        };
        assert_eq!(step.status, expected, "{step:?}");
    }
    assert_eq!(report.steps.len(), 15);
    assert_eq!(report.verdict, Verdict::Unproven);
    assert_eq!(report.verdict.to_string(), "UNPROVEN (signature only)");
    assert_eq!(report.verdict.exit_code(), 0);
    assert_eq!((report.state, report.height), (Some(State::Settled), Some(HEIGHT)));
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["verdict"], "unproven");
    assert_eq!(json["state"], "settled");
    assert_eq!(json["steps"][0]["status"], "ok");
}

/// Every byte. A hexadecimal digit is replaced by another one of the same case, so that the file stays canonical and
/// the change must be caught by what the digit means.
#[test]
fn every_changed_byte_is_refused() {
    let (world, good) = world();
    let verifier = Verifier::new(&world.genesis).expect("a usable genesis");
    let threads = 4;
    let deep: usize = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let verifier = &verifier;
                scope.spawn(move || {
                    let mut deep = 0;
                    let mut bytes = good.clone();
                    for at in (thread..good.len()).step_by(threads) {
                        bytes[at] = match good[at] {
                            b'9' => b'a',
                            b'f' => b'0',
                            b'0'..=b'8' | b'a'..=b'e' => good[at] + 1,
                            other => other ^ 1,
                        };
                        let report = verifier.verify_bytes(&bytes, &Options::default());
                        let context = String::from_utf8_lossy(&good[at.saturating_sub(40)..at]);
                        assert_eq!(report.verdict, Verdict::Invalid, "byte {at} after {context}");
                        deep += usize::from(report.steps.len() > 2);
                        bytes[at] = good[at];
                    }
                    deep
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).sum()
    });
    // Most of a file is hexadecimal, so most changes were caught behind the parser.
    assert!(deep > good.len() / 2, "{deep} of {}", good.len());
}

/// One flipped bit in every byte: the parser refuses it, or reads another file. No byte is decoration.
#[test]
fn every_flipped_bit_is_refused_or_changes_the_file() {
    let (_, good) = world();
    let original = ReceiptFile::parse_strict(good).expect("the file");
    let mut bytes = good.clone();
    for at in 0..good.len() {
        bytes[at] ^= 1 << (at % 8);
        if let Ok(file) = ReceiptFile::parse_strict(&bytes) {
            assert_ne!(file, original, "byte {at} is decoration");
        }
        bytes[at] = good[at];
    }
}

#[test]
fn cut_and_extended_files_are_refused() {
    let (world, good) = world();
    let verifier = Verifier::new(&world.genesis).expect("a usable genesis");
    for length in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        let report = verifier.verify_bytes(&good[..length], &Options::default());
        assert_eq!(failure(&report).0, StepName::File);
    }
    let mut longer = good.clone();
    longer.push(b'\n');
    let report = verifier.verify_bytes(&longer, &Options::default());
    assert_eq!(failure(&report).0, StepName::File);
}

proptest! {
    #![proptest_config(opg_samples::cases(150))]

    #[test]
    fn mutated_files_never_pass(
        edits in prop::collection::vec(opg_samples::edit(), 1..4),
    ) {
        let (world, good) = world();
        let verifier = Verifier::new(&world.genesis).expect("a usable genesis");
        let mut bytes = good.clone();
        for edit in edits {
            edit.apply(&mut bytes);
        }
        let report = verifier.verify_bytes(&bytes, &Options::default());
        prop_assert!(!report.verdict.is_success() || bytes == *good);
    }
}

#[test]
fn a_wrong_genesis_is_named() {
    let (world, bytes) = world();
    let options = Options::default();
    let mut other = world.genesis.clone();
    other.timestamp += 1;
    let report = verify_bytes(bytes, &other, &options).expect("usable");
    let (step, detail) = failure(&report);
    assert_eq!(step, StepName::Finality);
    assert!(detail.contains("this genesis file"), "{detail}");

    let strangers = World::new(4, 2);
    let report = verify_bytes(bytes, &strangers.genesis, &options).expect("usable");
    assert_eq!(failure(&report).0, StepName::Finality);

    let mut other = World::new(4, 1);
    other.genesis.chain_id += 1;
    // Its proofs of possession name the chain.
    assert!(verify_bytes(bytes, &other.genesis, &options).is_err());
}

#[test]
fn parts_that_are_left_out_are_skipped_and_said() {
    let (world, _) = world();
    let mut file = world.file();
    file.opening = None;
    file.registration = None;
    file.payment = None;
    let report = check(world, &file);
    for name in [StepName::Opening, StepName::Registration, StepName::Settlement] {
        assert_eq!(status(&report, name), Status::Skipped);
    }
    assert_eq!((report.verdict, report.state), (Verdict::Unproven, Some(State::Final)));

    file.inclusion = None;
    let report = check(world, &file);
    assert_eq!(status(&report, StepName::Finality), Status::Skipped);
    assert_eq!(
        (report.verdict, report.state),
        (Verdict::NotFinal, Some(State::Checked))
    );
    assert_eq!(report.verdict.exit_code(), 1);
}

#[test]
fn requirements_follow_d9() {
    let (world, _) = world();
    let file = world.file();
    let require = |mode, grade| Options {
        require: Some((mode, grade)),
        ..Options::default()
    };
    assert_eq!(
        check_with(world, &file, &require(Mode::None, None)).verdict,
        Verdict::Unproven
    );
    let report = check_with(world, &file, &require(Mode::Tee, Some(Grade::Simulated)));
    assert!(matches!(report.verdict, Verdict::RequirementNotMet { .. }));
    assert_eq!(
        report.verdict.to_string(),
        "REQUIREMENT NOT MET: UNPROVEN (signature only), required tee at simulated"
    );
    assert_eq!(report.verdict.exit_code(), 1);

    // Asked for an attested answer, served without: earns nothing, and fails unless a signature is said to be enough.
    let mut world = World::new(4, 1);
    world.asked = (Mode::Tee, Grade::Hardware);
    let file = world.file();
    let required = |report: Report| match report.verdict {
        Verdict::RequirementNotMet { required, .. } => (required.mode, required.grade),
        other => panic!("{other:?}"),
    };
    assert_eq!(required(check(&world, &file)), (Mode::Tee, Grade::Hardware));
    assert_eq!(
        check_with(&world, &file, &require(Mode::None, None)).verdict,
        Verdict::Unproven
    );
}

/// A proof in the file is verified here, not believed: the same check that every validator made before its vote.
#[test]
fn a_proven_answer_is_verified() {
    let world = World::asking_zk(4, 1);
    let file = world.proven_file();
    let report = check(&world, &file);
    let verdict = Verdict::Verified {
        mode: Mode::Zk,
        grade: Grade::Hardware,
    };
    assert_eq!(report.verdict, verdict, "{report:#?}");
    assert_eq!(status(&report, StepName::Evidence), Status::Ok);
    assert_eq!(report.state, Some(State::Settled));

    let broken = |change: &dyn Fn(&mut ReceiptFile)| {
        let mut file = file.clone();
        change(&mut file);
        let report = check(&world, &file);
        assert_eq!(failure(&report).0, StepName::Evidence, "{report:#?}");
        failure(&report).1.to_owned()
    };
    assert!(broken(&|file| file.proof = None).contains("carries no proof"));
    let swap = |at: usize| {
        broken(&|file: &mut ReceiptFile| {
            let proof = file.proof.as_mut().unwrap();
            let mut bytes = proof.artefact.0.to_vec();
            bytes[at] ^= 1;
            proof.artefact = bytes.into();
        })
    };
    let length = file.proof.as_ref().unwrap().artefact.0.len();
    for at in [0, 30, 100, length / 2, length - 1] {
        swap(at);
    }
    // another slot than the program's, and a state in which it is not registered
    let unread = broken(&|file| file.proof.as_mut().unwrap().registration = world.registration());
    assert!(!unread.is_empty());
    let mut unknown = World::asking_zk(4, 1);
    unknown.storage.get_mut(&addresses::MODEL_REGISTRY).unwrap().clear();
    let unregistered = broken(&|file| file.proof.as_mut().unwrap().registration = unknown.program());
    assert!(unregistered.contains("not registered"), "{unregistered}");

    // A proof in a file of mode none is decoration.
    let (none, _) = self::world();
    let mut plain = none.file();
    plain.proof.clone_from(&file.proof);
    let report = check(none, &plain);
    assert_eq!(failure(&report).0, StepName::Evidence);
}

/// The record of a closed model has a step of its own, in words that claim no more than it says.
#[test]
fn the_record_of_a_closed_model_is_shown() {
    let mut world = World::new(4, 1);
    let record = UpstreamRecord {
        provider: "openai".into(),
        host: "api.openai.com".into(),
        port: 443,
        model: "gpt-5.2".into(),
        transform: "opg-upstream/openai/1".into(),
        peer: Some(UpstreamPeer {
            chain: B256::repeat_byte(1),
            spki: B256::repeat_byte(2),
        }),
        request: B256::repeat_byte(3),
        answer: B256::repeat_byte(4),
        answer_bytes: 1_234,
        complete: true,
        response_id: Some("chatcmpl-1".into()),
        reported_model: Some("gpt-5.2-2026-11-01".into()),
    };
    world.model = record.model_root();
    let file_with = |change: &dyn Fn(&mut UpstreamRecord)| {
        let mut core = world.core();
        let mut record = record.clone();
        change(&mut record);
        core.upstream = Some(record);
        world.file_of(core)
    };
    let report = check(&world, &file_with(&|_| ()));
    assert_eq!(
        (report.verdict, report.steps.len()),
        (Verdict::Unproven, 16),
        "{report:#?}"
    );
    let step = report.step(StepName::Upstream).expect("a step");
    for word in [
        "the node says",
        "api.openai.com",
        "gpt-5.2-2026-11-01",
        "chatcmpl-1",
        "1234 bytes",
        "not proven",
    ] {
        assert!(step.detail.contains(word), "{word}: {}", step.detail);
    }
    let plain = check(&world, &file_with(&|record| record.peer = None));
    assert!(
        plain
            .step(StepName::Upstream)
            .expect("a step")
            .detail
            .contains("without TLS")
    );
    // Another host than the registered model's, signed by the node all the same.
    let elsewhere = check(
        &world,
        &file_with(&|record| record.host = "api.openai.com.example".into()),
    );
    assert_eq!(failure(&elsewhere).0, StepName::Price);
    assert_eq!(status(&elsewhere, StepName::Upstream), Status::Failed);
}

#[test]
fn old_anchors_are_said_and_refused_unless_accepted() {
    let (world, _) = world();
    let file = world.file();
    let unbonding = world.genesis.parameters.unbonding;
    let at = |now| Options {
        now: Some(now),
        ..Options::default()
    };
    assert_eq!(
        check_with(world, &file, &at(START + unbonding)).verdict,
        Verdict::Unproven
    );
    let late = START + unbonding + 1;
    let report = check_with(world, &file, &at(late));
    assert_eq!(
        report.verdict,
        Verdict::OldAnchor {
            age: unbonding + 1,
            limit: unbonding
        }
    );
    assert_eq!(report.verdict.exit_code(), 1);
    let accept = Options {
        accept_old_anchor: true,
        ..at(late)
    };
    assert_eq!(check_with(world, &file, &accept).verdict, Verdict::Unproven);
    // A newer block of the file as the trusted point: its EVM hash, or a consensus digest on the way to it.
    let inclusion = file.inclusion.as_ref().expect("included");
    let hash = opg_primitives::hash::keccak(&inclusion.finality.header);
    let digest = opg_primitives::hash::sha256(&inclusion.finality.envelopes[1]);
    for checkpoint in [hash, digest] {
        let newer = Options {
            trusted_checkpoint: Some(checkpoint),
            ..at(late)
        };
        assert_eq!(check_with(world, &file, &newer).verdict, Verdict::Unproven);
    }
    let unknown = Options {
        trusted_checkpoint: Some(B256::ZERO),
        ..at(START)
    };
    let report = check_with(world, &file, &unknown);
    assert_eq!(failure(&report).0, StepName::Anchor);
}

/// Each case changes one thing in a file and names the step that must fail.
#[test]
fn each_step_catches_its_own() {
    type Change = fn(&World, &mut ReceiptFile);
    let cases: &[(StepName, Change)] = &[
        (StepName::Keyset, |_, file| {
            file.keyset.hpke_key = B256::with_last_byte(1)
        }),
        (StepName::Signature, |_, file| flip_last(&mut file.core)),
        (StepName::Quote, |_, file| flip_last(&mut file.quote)),
        (StepName::Quote, |world, file| {
            let mut quote = world.quote().quote().clone();
            quote.max_amount.0 += 1;
            let quote = opg_receipt::SignedQuote::sign(quote, &world.node).expect("a quote");
            file.quote = quote.cose().clone();
        }),
        (StepName::Opening, |_, file| opening(file).body = b"{}".to_vec().into()),
        (StepName::Opening, |_, file| opening(file).path.push('x')),
        (StepName::Opening, |_, file| opening(file).params.push(' ')),
        (StepName::Opening, |_, file| opening(file).salt = B256::ZERO),
        (StepName::Opening, |_, file| opening(file).leaves.clear()),
        (StepName::Opening, |_, file| {
            opening(file).leaves[0].kind = opg_receipt::LeafKind::Text;
        }),
        (StepName::Finality, |_, file| {
            flip_last(&mut inclusion(file).finality.certificate)
        }),
        (StepName::Finality, |_, file| {
            flip_last(&mut inclusion(file).finality.proposal)
        }),
        (StepName::Finality, |_, file| {
            flip_last(&mut inclusion(file).finality.header)
        }),
        (StepName::Finality, |_, file| inclusion(file).finality.envelopes.clear()),
        (StepName::Finality, |_, file| {
            drop(inclusion(file).finality.envelopes.pop())
        }),
        (StepName::Finality, |_, file| {
            drop(inclusion(file).finality.envelopes.remove(1))
        }),
        (StepName::Finality, |_, file| {
            inclusion(file).finality.envelopes.swap(0, 1)
        }),
        (StepName::Inclusion, |_, file| inclusion(file).height += 1),
        (StepName::Inclusion, |_, file| inclusion(file).index = 2),
        (StepName::Inclusion, |_, file| inclusion(file).count = 4),
        (StepName::Inclusion, |_, file| inclusion(file).siblings.truncate(1)),
        (StepName::Inclusion, |world, file| {
            // The block of another receipt.
            *inclusion(file) = world.inclusion(B256::ZERO);
        }),
        (StepName::Registration, |world, file| {
            file.registration = Some(world.payment())
        }),
        (StepName::Registration, |_, file| registration(file).accounts.clear()),
        (StepName::Registration, |_, file| {
            drop(registration(file).accounts[0].slots.pop());
        }),
        (StepName::Registration, |_, file| {
            let again = registration(file).accounts[0].slots[0].clone();
            registration(file).accounts[0].slots.push(again);
        }),
        (StepName::Registration, |_, file| {
            let again = registration(file).accounts[0].clone();
            registration(file).accounts.push(again);
        }),
        (StepName::Registration, |world, file| {
            // One slot more than the check reads.
            let base = slots::keyset_base(world.keyset.digest().0);
            let keys = (0..4).map(|i| base + U256::from(i)).collect();
            file.registration = Some(world.prove(&[(addresses::NODE_REGISTRY, keys)]));
        }),
        (StepName::Settlement, |world, file| {
            file.payment = Some(world.registration())
        }),
        (StepName::Settlement, |_, file| {
            file.payment.as_mut().expect("a payment").accounts.swap_remove(1);
        }),
    ];
    let (world, _) = world();
    for (i, (step, change)) in cases.iter().enumerate() {
        let mut file = world.file();
        change(world, &mut file);
        let report = check(world, &file);
        let got = failure(&report);
        assert_eq!(got.0, *step, "case {i}: {got:?}");
    }
}

#[test]
fn cores_that_lie_are_caught() {
    type Change = fn(&mut opg_receipt::Core);
    let cases: &[(StepName, Change)] = &[
        (StepName::Genesis, |core| core.registry = Address::ZERO),
        (StepName::Price, |core| core.price.charge.0 += 1),
        (StepName::Quote, |core| core.payment.payee = Address::ZERO),
        (StepName::Quote, |core| core.price.royalty_bps = 0),
    ];
    let (world, _) = world();
    for (step, change) in cases {
        let mut core = world.core();
        change(&mut core);
        let report = check(world, &world.file_of(core));
        assert_eq!(failure(&report).0, *step);
    }
    // A payment signature by nobody: refused, unless the settlement shows that OPG accepted it (contract payers).
    let mut core = world.core();
    core.payment.signature = vec![1; 90].into();
    let mut file = world.file_of(core);
    assert_eq!(check(world, &file).verdict, Verdict::Unproven);
    file.payment = None;
    let report = check(world, &file);
    assert_eq!(failure(&report).0, StepName::Payment);
}

#[test]
fn registrations_that_do_not_fit_are_refused() {
    let case = |change: fn(&mut World)| {
        let mut world = World::new(4, 1);
        change(&mut world);
        let report = check(&world, &world.file());
        report.failure().map(|step| (step.name, step.detail.clone()))
    };
    // Revoked after the block with the receipt: it was in force then.
    assert_eq!(case(|world| world.register(START, START + HEIGHT + 1)), None);
    for (change, word) in [
        (
            (|world| world.register(START, START + HEIGHT)) as fn(&mut World),
            "revoked",
        ),
        (|world| world.register(START + HEIGHT + 1, 0), "registered"),
        (|world| world.register(0, 0), "not registered"),
        (
            |world| {
                let base = slots::keyset_base(world.keyset.digest().0);
                let registry = world.storage.get_mut(&addresses::NODE_REGISTRY).expect("there");
                registry.insert(base + U256::from(1), U256::from(1));
            },
            "receipt key",
        ),
    ] {
        let (step, detail) = case(change).expect("refused");
        assert_eq!(step, StepName::Registration);
        assert!(detail.contains(word), "{detail}");
    }
}

#[test]
fn settlements_that_do_not_pay_are_refused() {
    let slot = |world: &World| slots::opg_settlement(world.payer_address(), world.nonce());
    let cases: [(&str, fn(&mut World)); 4] = [
        ("another transfer", |world| world.settle(Address::ZERO, world.amount())),
        ("another transfer", |world| world.settle(world.payee(), Amount(1))),
        ("cancelled", World::cancel),
        ("not recorded", |world| {
            let id = opg_primitives::ids::payment_id(world.payer_address(), world.nonce());
            let ledger = world.storage.get_mut(&addresses::RECEIPT_LEDGER).expect("there");
            ledger.remove(&slots::spent(id.0));
        }),
    ];
    for (word, change) in cases {
        let mut world = World::new(4, 1);
        change(&mut world);
        let report = check(&world, &world.file());
        let (step, detail) = failure(&report);
        assert_eq!(step, StepName::Settlement);
        assert!(detail.contains(word), "{detail}");
    }
    // An unused slot is proved absent.
    let mut world = World::new(4, 1);
    let unused = slot(&world);
    world.storage.get_mut(&addresses::OPG).expect("there").remove(&unused);
    let report = check(&world, &world.file());
    assert!(failure(&report).1.contains("not settled"));
    // A recorded receipt whose credit waits for the payment, seen just after it settled.
    let mut world = World::new(4, 1);
    let id = opg_primitives::ids::payment_id(world.payer_address(), world.nonce());
    let ledger = world.storage.get_mut(&addresses::RECEIPT_LEDGER).expect("there");
    ledger.insert(slots::spent(id.0), U256::from(1) << 255usize);
    let report = check(&world, &world.file());
    assert!(
        report
            .step(StepName::Settlement)
            .expect("a step")
            .detail
            .contains("pending")
    );
    assert_eq!(report.verdict, Verdict::Unproven);
}

fn flip_last(bytes: &mut alloy_primitives::Bytes) {
    let mut copy = bytes.to_vec();
    *copy.last_mut().expect("bytes") ^= 1;
    *bytes = copy.into();
}

fn opening(file: &mut ReceiptFile) -> &mut opg_receipt::file::Opening {
    file.opening.as_mut().expect("an opening")
}

fn inclusion(file: &mut ReceiptFile) -> &mut opg_receipt::file::Inclusion {
    file.inclusion.as_mut().expect("an inclusion")
}

fn registration(file: &mut ReceiptFile) -> &mut StateProof {
    file.registration.as_mut().expect("a registration")
}
