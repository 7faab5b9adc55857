//! Validator sets that change: the way from the genesis to a receipt of a later epoch, and everything that must not pass for it.

mod common;

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256};
use common::{START, Scheme, World, header, schemes, validators};
use opg_contracts::{
    GenesisFile, addresses,
    seats::{self, Seat},
};
use opg_light_client::{
    CheckpointBook, Epochs, Options, ProofError, Report, Status, StepName, Verdict, onchain, verify as verify_file,
};
use opg_primitives::hash::{keccak, sha256};
use opg_receipt::{
    ReceiptFile,
    file::{Finality, HandOver},
};
use std::sync::OnceLock;

const BLOCKS: u64 = 8;

/// Sets of epochs 0 to 2; the receipt is in block 20, of epoch 2.
struct History {
    world: World,
    sets: Vec<(Vec<Scheme>, Vec<Seat>)>,
}

fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| {
        let mut world = World::new(4, 1);
        world.genesis.parameters.epoch_blocks = BLOCKS;
        // the digest changed, and with it what is signed
        let sets = [(4, 1), (5, 2), (7, 3)].map(|(n, seed)| {
            let (entries, secrets) = validators(n, seed);
            let seats = entries.iter().map(|entry| Seat {
                operator: entry.operator,
                identity: entry.identity,
                bls: entry.bls,
                system: entry.system,
            });
            (schemes(&world.genesis, secrets, ""), seats.collect())
        });
        (world.epoch, world.height, world.proof_height) = (2, 20, 22);
        let sets = sets.to_vec();
        world.schemes = sets[2].0.clone();
        World::register(&mut world, START, 0);
        History { world, sets }
    })
}

impl History {
    /// The last block of an epoch, and the seats it names for the next.
    fn handover(&self, epoch: u64, next: &[Seat]) -> HandOver {
        self.handover_by(epoch, next, |_| {})
    }

    fn handover_by(&self, epoch: u64, next: &[Seat], change: impl FnOnce(&mut World)) -> HandOver {
        let mut world = self.world.clone();
        world.schemes = self.sets[epoch as usize].0.clone();
        world.epoch = epoch;
        world.proof_height = (epoch + 1) * BLOCKS - 1;
        let (staking, slot) = seats::set_hash_slot(epoch + 1);
        let storage = world.storage.entry(staking).or_default();
        storage.insert(slot, seats::hash(next).into());
        storage.insert(U256::from(1), U256::from(epoch));
        change(&mut world);
        HandOver {
            epoch: epoch + 1,
            state: world.prove(&[(staking, vec![slot])]),
            seats: seats::encode(next).into(),
        }
    }

    fn handovers(&self) -> Vec<HandOver> {
        vec![self.handover(0, &self.sets[1].1), self.handover(1, &self.sets[2].1)]
    }

    fn file(&self) -> ReceiptFile {
        let mut file = self.world.file();
        file.handovers = self.handovers();
        file
    }

    fn genesis(&self) -> &GenesisFile {
        &self.world.genesis
    }

    /// The block that begins an epoch: the hash of its last block before.
    fn boundary(&self, epoch: u64) -> B256 {
        let handovers = self.handovers();
        keccak(&handovers[epoch as usize - 1].state.finality.header)
    }
}

fn check(file: &ReceiptFile, options: &Options) -> Report {
    verify_file(file, history().genesis(), options).expect("a usable genesis")
}

fn failed(report: &Report, step: StepName, text: &str) {
    assert_eq!(report.verdict, Verdict::Invalid, "{report:#?}");
    let failure = report.failure().expect("a failed step");
    assert_eq!(failure.name, step, "{failure:?}");
    assert!(failure.detail.contains(text), "{}", failure.detail);
    assert!(report.checkpoints.is_empty(), "nothing of a refused file is kept");
}

#[test]
fn a_receipt_of_a_later_epoch_is_reached_from_the_genesis() {
    let history = history();
    let file = history.file();
    let report = check(&file, &Options::default());
    assert_eq!(report.verdict, Verdict::Unproven, "{report:#?}");
    let step = report.step(StepName::Handovers).expect("the step");
    assert_eq!(step.status, Status::Ok);
    assert!(
        step.detail.contains("2 hand-overs lead from the genesis"),
        "{}",
        step.detail
    );
    let finality = report.step(StepName::Finality).expect("the step");
    assert!(finality.detail.contains("6 of 7 validators"), "{}", finality.detail);
    let points: Vec<_> = report.checkpoints.iter().map(|p| (p.epoch, p.height, p.hash)).collect();
    assert_eq!(points, [(1, 7, history.boundary(1)), (2, 15, history.boundary(2))]);
    assert_eq!(report.checkpoints[0].set_hash, seats::hash(&history.sets[1].1));
    // canonical, and read back the same
    assert_eq!(ReceiptFile::parse_strict(&file.to_bytes()), Ok(file));
}

#[test]
fn a_file_without_epochs_is_as_it_was() {
    let world = World::new(4, 1);
    let file = world.file();
    let text = String::from_utf8(file.to_bytes()).expect("text");
    assert!(!text.contains("handovers"));
    assert!(
        !serde_json::to_string(&world.genesis)
            .expect("JSON")
            .contains("epoch_blocks")
    );
    let report = verify_file(&file, &world.genesis, &Options::default()).expect("a genesis");
    assert_eq!(
        (report.verdict, report.step(StepName::Handovers)),
        (Verdict::Unproven, None)
    );
    // and hand-overs in it are decoration
    let mut decorated = file;
    decorated.handovers = history().handovers();
    let report = verify_file(&decorated, &world.genesis, &Options::default()).expect("a genesis");
    assert_eq!(report.failure().map(|step| step.name), Some(StepName::Handovers));
}

#[test]
fn the_list_must_be_whole_and_in_order() {
    let history = history();
    let file = history.file();
    let with = |handovers: Vec<HandOver>| {
        let mut file = file.clone();
        file.handovers = handovers;
        check(&file, &Options::default())
    };
    let all = history.handovers();
    failed(&with(vec![]), StepName::Finality, "the file lacks hand-overs");
    failed(
        &with(vec![all[0].clone()]),
        StepName::Finality,
        "epochs 0 to 1 are known",
    );
    failed(&with(vec![all[1].clone()]), StepName::Handovers, "begin with epoch 2");
    failed(
        &with(vec![all[0].clone(), all[0].clone()]),
        StepName::Handovers,
        "epoch of a hand-over",
    );
    failed(
        &with(vec![all[1].clone(), all[0].clone()]),
        StepName::Handovers,
        "begin with epoch 2",
    );
    let mut renumbered = all.clone();
    renumbered[0].epoch = 0;
    failed(&with(renumbered), StepName::Handovers, "epoch of a hand-over");
    // more than a file may have
    let mut endless = file.clone();
    endless.handovers = vec![all[0].clone(); opg_receipt::file::MAX_HANDOVERS + 1];
    assert!(ReceiptFile::parse_strict(&endless.to_bytes()).is_err());
}

/// Each case is a first hand-over with one thing wrong, and the error that it must give.
#[test]
fn each_check_of_a_hand_over_catches_its_own() {
    let history = history();
    let next = &history.sets[1].1;
    let good = history.handover(0, next);
    let advance = |handover: &HandOver| {
        let mut epochs = Epochs::from_genesis(history.genesis()).expect("a genesis");
        let result = epochs.advance(handover).map(|_| ());
        assert_eq!(epochs.last(), u64::from(result.is_ok()), "nothing is added on failure");
        result
    };
    assert_eq!(advance(&good), Ok(()));
    let mismatch = |result: Result<(), ProofError>, expected: &str| match result {
        Err(ProofError::Mismatch { what, .. }) => assert_eq!(what, expected),
        other => panic!("{expected}: {other:?}"),
    };

    // certified by the set that it names: a set cannot appoint itself
    let own = history.handover_by(0, next, |world| world.schemes = history.sets[1].0.clone());
    assert!(
        matches!(
            advance(&own),
            Err(ProofError::Mismatch { .. } | ProofError::Malformed { .. })
        ),
        "{:?}",
        advance(&own)
    );
    // certified by strangers in the same number
    let strangers = history.handover_by(0, next, |world| {
        let (_, secrets) = validators(4, 9);
        world.schemes = schemes(&world.genesis, secrets, "");
    });
    assert_eq!(advance(&strangers), Err(ProofError::Signature));
    // by too few
    let few = history.handover_by(0, next, |world| {
        world.schemes.truncate(4);
    });
    let mut short = few;
    let bits = 8;
    let mut certificate = short.state.finality.certificate.to_vec();
    certificate[bits] = 0b0011;
    short.state.finality.certificate = certificate.into();
    assert!(matches!(advance(&short), Err(ProofError::Quorum { got: 2, .. })));
    // votes of another epoch
    let other_epoch = history.handover_by(0, next, |world| world.epoch = 1);
    mismatch(advance(&other_epoch), "epoch of the certificate");
    // not the last block of the epoch, or of another one
    let early = history.handover_by(0, next, |world| world.proof_height -= 1);
    mismatch(advance(&early), "last height of the epoch");
    let late = history.handover_by(0, next, |world| world.proof_height += 1);
    mismatch(advance(&late), "epoch of the certificate");
    // other seats than the state names: one changed, one left out, in another order
    let mut thief = good.clone();
    let mut seats = next.clone();
    seats[0].bls = history.sets[2].1[0].bls;
    thief.seats = seats::encode(&seats).into();
    mismatch(advance(&thief), "hash of the seats");
    thief.seats = seats::encode(&next[1..]).into();
    mismatch(advance(&thief), "hash of the seats");
    let mut seats = next.clone();
    seats.swap(0, 1);
    thief.seats = seats::encode(&seats).into();
    mismatch(advance(&thief), "hash of the seats");
    thief.seats = Bytes::from_static(b"no seats");
    assert!(matches!(advance(&thief), Err(ProofError::Seats(_))));
    // the right seats under a state that does not name them
    let mut unnamed = good.clone();
    unnamed.state.accounts[0].slots[0].value = B256::repeat_byte(1);
    assert!(matches!(advance(&unnamed), Err(ProofError::Trie { .. })));
    // a proof of another slot, of another account, of none, of more than is needed
    let (staking, _) = seats::set_hash_slot(1);
    let of = |wanted: &[(Address, Vec<U256>)]| {
        let mut handover = good.clone();
        handover.state = {
            let mut world = history.world.clone();
            (world.schemes, world.epoch, world.proof_height) = (history.sets[0].0.clone(), 0, 7);
            let storage = world.storage.entry(staking).or_default();
            storage.insert(seats::set_hash_slot(1).1, seats::hash(next).into());
            storage.insert(seats::set_hash_slot(2).1, seats::hash(next).into());
            world.prove(wanted)
        };
        advance(&handover)
    };
    assert_eq!(of(&[(staking, vec![seats::set_hash_slot(1).1])]), Ok(()));
    let elsewhere = of(&[(staking, vec![seats::set_hash_slot(2).1])]);
    assert!(matches!(elsewhere, Err(ProofError::Unproved { .. })), "{elsewhere:?}");
    let other = of(&[(addresses::OPG, vec![U256::from(1)])]);
    assert!(matches!(other, Err(ProofError::Unproved { .. })), "{other:?}");
    let nothing = of(&[]);
    assert!(matches!(nothing, Err(ProofError::Unproved { .. })), "{nothing:?}");
    let more = of(&[(staking, vec![seats::set_hash_slot(1).1, seats::set_hash_slot(2).1])]);
    assert!(matches!(more, Err(ProofError::Unused { .. })), "{more:?}");
    // a header of another block
    let mut headless = good.clone();
    headless.state.finality.header = alloy_rlp::encode(header(7, B256::ZERO, B256::ZERO)).into();
    mismatch(advance(&headless), "EVM block hash");
    // sets that the state names but that are none
    let named = |seats: &[Seat]| advance(&history.handover(0, seats));
    let mut twice = next.clone();
    twice[1].identity = twice[0].identity;
    assert_eq!(
        named(&twice),
        Err(ProofError::ValidatorSet("two validators with the same identity"))
    );
    twice[1].identity = next[1].identity;
    twice[1].bls = twice[0].bls;
    assert_eq!(
        named(&twice),
        Err(ProofError::ValidatorSet("two validators with the same BLS key"))
    );
    let mut no_key = next.clone();
    no_key[3].bls = FixedBytes::repeat_byte(0x11);
    assert_eq!(named(&no_key), Err(ProofError::Seat { seat: 3 }));
    // the point at infinity would sign for nobody, with anybody
    no_key[3].bls = FixedBytes::ZERO;
    no_key[3].bls[0] = 0xc0;
    assert_eq!(named(&no_key), Err(ProofError::Seat { seat: 3 }));
    assert!(matches!(named(&[]), Err(ProofError::Seats(_))));
}

#[test]
fn keys_of_an_old_set_certify_no_later_block() {
    let history = history();
    let mut old = history.world.clone();
    old.schemes = history.sets[0].0.clone();
    let mut file = history.file();
    // with the epoch of the block, and with their own
    for (epoch, text) in [(2, "validators in the certificate"), (0, "epoch of the certificate")] {
        old.epoch = epoch;
        let forged: Finality = old.file().inclusion.expect("included").finality;
        file.inclusion.as_mut().expect("included").finality = forged;
        let report = check(&file, &Options::default());
        assert_eq!(report.failure().map(|step| step.name), Some(StepName::Finality));
        let detail = &report.failure().expect("a failure").detail;
        assert!(detail.contains(text) || detail.contains("malformed"), "{detail}");
    }
}

#[test]
fn a_trusted_checkpoint_replaces_what_came_before_it() {
    let history = history();
    let mut file = history.file();
    file.handovers.remove(0);
    let boundary = history.boundary(2);
    let with = |checkpoint| Options {
        trusted_checkpoint: Some(checkpoint),
        now: Some(START + 30),
        ..Options::default()
    };
    let report = check(&file, &with(boundary));
    assert_eq!(report.verdict, Verdict::Unproven, "{report:#?}");
    let step = report.step(StepName::Handovers).expect("the step");
    assert!(step.detail.contains("from the trusted checkpoint"), "{}", step.detail);
    let digest = sha256(&file.handovers[0].state.finality.envelopes[0]);
    assert_eq!(check(&file, &with(digest)).verdict, Verdict::Unproven);
    // another block, or no checkpoint
    failed(
        &check(&file, &with(B256::repeat_byte(1))),
        StepName::Handovers,
        "hash of the checkpoint",
    );
    failed(
        &check(&file, &with(history.boundary(1))),
        StepName::Handovers,
        "hash of the checkpoint",
    );
    failed(
        &check(&file, &Options::default()),
        StepName::Handovers,
        "name the checkpoint",
    );
    // trust in the block does not extend to seats that it does not name
    file.handovers[0].seats = seats::encode(&history.sets[1].1).into();
    failed(&check(&file, &with(boundary)), StepName::Handovers, "hash of the seats");
}

#[test]
fn an_old_genesis_is_said_unless_something_newer_is_known() {
    let history = history();
    let file = history.file();
    let unbonding = history.genesis().parameters.unbonding;
    // block 15 has the timestamp START + 15
    let late = START + unbonding + 10;
    let at = |now| Options {
        now: Some(now),
        ..Options::default()
    };
    assert_eq!(check(&file, &at(START + unbonding)).verdict, Verdict::Unproven);
    let report = check(&file, &at(late));
    let (age, limit) = (unbonding + 10, unbonding);
    assert_eq!(report.verdict, Verdict::OldAnchor { age, limit });
    let accept = Options {
        accept_old_anchor: true,
        ..at(late)
    };
    assert_eq!(check(&file, &accept).verdict, Verdict::Unproven);
    // a checkpoint on the way: the last block of epoch 1
    let newer = Options {
        trusted_checkpoint: Some(history.boundary(2)),
        ..at(late)
    };
    assert_eq!(check(&file, &newer).verdict, Verdict::Unproven);
    // but one that is too old as well does not help
    let older = Options {
        trusted_checkpoint: Some(history.boundary(1)),
        ..at(late)
    };
    assert!(matches!(check(&file, &older).verdict, Verdict::OldAnchor { .. }));
    let unknown = Options {
        trusted_checkpoint: Some(B256::ZERO),
        ..at(START)
    };
    failed(&check(&file, &unknown), StepName::Anchor, "none of the file's blocks");
}

#[test]
fn what_was_verified_before_is_kept_and_a_second_history_refused() {
    let history = history();
    let file = history.file();
    let digest = history.genesis().digest();
    let first = check(&file, &Options::default());
    let mut book = CheckpointBook::new(digest);
    book.merge(digest, &first.checkpoints).expect("a new book");
    // it counts as a trusted point later
    let late = START + history.genesis().parameters.unbonding + 10;
    let kept = |book: &CheckpointBook| Options {
        now: Some(late),
        kept: Some(book.clone()),
        ..Options::default()
    };
    let report = check(&file, &kept(&book));
    assert_eq!(report.verdict, Verdict::Unproven);
    assert!(
        report
            .step(StepName::Anchor)
            .expect("the step")
            .detail
            .contains("kept checkpoint")
    );
    // validators of epoch 0 sell their keys and appoint another set
    let mut forged = history.file();
    forged.handovers = vec![history.handover(0, &history.sets[2].1)];
    let report = check(&forged, &kept(&book));
    failed(&report, StepName::Handovers, "one of two histories is forged");
    // a client that knows nothing sees how old its trust is
    assert!(matches!(
        check(&file, &kept(&CheckpointBook::new(digest))).verdict,
        Verdict::OldAnchor { .. }
    ));
    let foreign = check(&file, &kept(&CheckpointBook::new(B256::ZERO)));
    failed(&foreign, StepName::Handovers, "network with genesis");
    let json = serde_json::to_string(&book).expect("JSON");
    assert_eq!(serde_json::from_str::<CheckpointBook>(&json).expect("a book"), book);
}

/// A file that begins at a point which was verified before needs nothing from before it; one that begins anywhere else does.
#[test]
fn a_kept_checkpoint_replaces_what_came_before_it() {
    let history = history();
    let digest = history.genesis().digest();
    let mut book = CheckpointBook::new(digest);
    let first = check(&history.file(), &Options::default());
    book.merge(digest, &first.checkpoints).expect("a new book");
    let kept = |book: &CheckpointBook| Options {
        now: Some(START + 30),
        kept: Some(book.clone()),
        ..Options::default()
    };
    let mut file = history.file();
    file.handovers.remove(0);
    assert_eq!(check(&file, &kept(&book)).verdict, Verdict::Unproven);
    let unknown = check(&file, &kept(&CheckpointBook::new(digest)));
    failed(&unknown, StepName::Handovers, "name the checkpoint");
    // Another block for that epoch, whoever signed it, is not where the book says that it began.
    let mut forged = history.file();
    forged.handovers = vec![history.handover_by(1, &history.sets[2].1, |world| {
        world
            .storage
            .entry(Address::repeat_byte(9))
            .or_default()
            .insert(U256::ZERO, U256::ONE);
    })];
    failed(
        &check(&forged, &kept(&book)),
        StepName::Handovers,
        "hash of the checkpoint",
    );
}

/// The form that a contract takes has the same signers, signature and keys; what is no certificate of so many has no form.
#[test]
fn certificates_and_sets_have_a_form_for_contracts() {
    let history = history();
    for (epoch, handover) in history.handovers().iter().enumerate() {
        let (schemes, seats) = &history.sets[epoch];
        let finality = &handover.state.finality;
        let certificate = &finality.certificate;
        let signatures = onchain::signatures(finality, schemes.len()).expect("a certificate");
        assert_eq!(signatures.signers, U256::from(certificate[8]), "the bitmap's one byte");
        let mut point = [0; 96];
        point[..48].copy_from_slice(&signatures.x);
        point[48..].copy_from_slice(&signatures.y);
        let compressed = blst::min_sig::Signature::deserialize(&point)
            .expect("a point")
            .compress();
        assert_eq!(compressed[..], certificate[9..]);
        for seats in [0, 9, 128, usize::MAX / 2] {
            assert!(onchain::signatures(finality, seats).is_err(), "{seats} seats");
        }
        for cut in 0..certificate.len() {
            let mut shorter = finality.clone();
            shorter.certificate = certificate.slice(..cut);
            assert!(onchain::signatures(&shorter, schemes.len()).is_err(), "{cut} bytes");
        }
        let keys = onchain::keys(seats).expect("keys");
        assert_eq!((keys.order.len(), keys.ys.len()), (seats.len(), 96 * seats.len()));
        let sorted: Vec<_> = keys.order.iter().map(|at| seats[usize::from(*at)]).collect();
        assert!(sorted.windows(2).all(|pair| pair[0].identity < pair[1].identity));
        for (seat, y) in sorted.iter().zip(keys.ys.chunks(96)) {
            let raw = blst::min_sig::PublicKey::from_bytes(seat.bls.as_slice())
                .expect("a key")
                .serialize();
            assert_eq!(([&raw[144..], &raw[96..144]].concat()), y, "the real part first");
        }
        let mut broken = seats.clone();
        broken[1].bls = FixedBytes::ZERO;
        assert_eq!(onchain::keys(&broken), Err(ProofError::Seat { seat: 1 }));
        assert!(onchain::keys(&[]).is_err());
        assert!(onchain::keys(&vec![seats[0]; 128]).is_err());
    }
}

/// Every digit of the hand-overs. One is replaced by another of the same case, so that the file stays canonical.
#[test]
fn every_changed_digit_of_a_hand_over_is_refused() {
    let history = history();
    let bytes = history.file().to_bytes();
    let text = std::str::from_utf8(&bytes).expect("text");
    let start = text.find("\"handovers\"").expect("a list");
    let digits = (start..bytes.len()).filter(|i| bytes[*i].is_ascii_hexdigit() && !bytes[*i].is_ascii_uppercase());
    let mut tried = 0;
    for at in digits.step_by(17) {
        let mut changed = bytes.clone();
        changed[at] = match changed[at] {
            b'f' => b'a',
            b'9' => b'0',
            digit => digit + 1,
        };
        let report =
            opg_light_client::verify_bytes(&changed, history.genesis(), &Options::default()).expect("a genesis");
        assert_eq!(
            report.verdict,
            Verdict::Invalid,
            "byte {at}: {}",
            &text[at - 20..at + 5]
        );
        tried += 1;
    }
    assert!(tried > 500, "{tried}");
}

/// Against a second implementation, in Python.
#[test]
fn sets_are_encoded_and_found_as_specified() {
    let v: serde_json::Value = serde_json::from_str(include_str!("../../../testing/vectors/seats.json")).expect("JSON");
    let of = |value: &serde_json::Value, name: &str| value[name].as_str().expect("text").to_owned();
    let list = v["seats"].as_array().expect("a list").iter().map(|seat| Seat {
        operator: of(seat, "operator").parse().expect("an address"),
        identity: of(seat, "consensusKey").parse().expect("a word"),
        bls: of(seat, "blsKey").parse().expect("96 bytes"),
        system: of(seat, "system").parse().expect("an address"),
    });
    let list: Vec<_> = list.collect();
    let encoded: Bytes = of(&v, "encoded").parse().expect("bytes");
    assert_eq!(seats::encode(&list), encoded);
    assert_eq!(seats::decode(&encoded), Ok(list.clone()));
    assert_eq!(seats::hash(&list), of(&v, "set_hash").parse::<B256>().expect("a word"));
    for (epoch, name) in [(1, "slot_of_epoch_1"), (1 << 40, "slot_of_epoch_2_to_the_40")] {
        let slot: B256 = of(&v, name).parse().expect("a word");
        assert_eq!(seats::set_hash_slot(epoch).1, U256::from_be_bytes(slot.0));
    }
}
