//! Certificates: our verifier against commonware's, on good and hostile input.

mod common;

use alloy_primitives::{Address, B256};
use common::{CHAIN, Scheme, finalize, genesis, schemes, validators};
use commonware_codec::{Copying, Decode as _, DecodeExt as _, Encode as _};
use commonware_consensus::{
    simplex::types::{Finalization, Notarization, Notarize, Proposal as TheirProposal},
    types::{Epoch, Round, View},
};
use commonware_cryptography::sha256::Digest;
use commonware_parallel::Sequential;
use commonware_utils::{non_empty, test_rng};
use opg_light_client::{ProofError, Proposal, ValidatorSet};
use proptest::prelude::*;
use std::sync::OnceLock;

type Certificate = <Scheme as commonware_cryptography::certificate::Verifier>::Certificate;

fn network(n: u32, seed: u64) -> (ValidatorSet, Vec<Scheme>) {
    let (entries, secrets) = validators(n, seed);
    let genesis = genesis(entries);
    let set = ValidatorSet::from_genesis(&genesis).expect("valid keys");
    (set, schemes(&genesis, secrets, ""))
}

fn four() -> &'static (ValidatorSet, Vec<Scheme>, Vec<u8>, Vec<u8>) {
    static FOUR: OnceLock<(ValidatorSet, Vec<Scheme>, Vec<u8>, Vec<u8>)> = OnceLock::new();
    FOUR.get_or_init(|| {
        let (set, schemes) = network(4, 7);
        let (proposal, certificate) = finalize(&schemes, &[0, 2, 3], 300, B256::repeat_byte(1));
        (set, schemes, proposal.to_vec(), certificate.to_vec())
    })
}

/// The engine's own verdict on the same bytes.
fn theirs(scheme: &Scheme, validators: usize, proposal: &[u8], certificate: &[u8]) -> bool {
    let Ok(proposal) = TheirProposal::<Digest>::decode(Copying(proposal)) else {
        return false;
    };
    let Ok(certificate) = Certificate::decode_cfg(Copying(certificate), &validators) else {
        return false;
    };
    let finalization = Finalization::<Scheme, Digest> { proposal, certificate };
    finalization.verify(&mut test_rng(), scheme, &Sequential)
}

#[test]
fn sets_of_every_size_agree_with_the_engine() {
    for n in 1..=9u32 {
        let (set, schemes) = network(n, 20 + u64::from(n));
        let n = n as usize;
        assert_eq!(set.len(), n);
        assert_eq!(set.quorum(), n - (n - 1) / 3);
        for signers in [(0..n).collect::<Vec<_>>(), (0..n).rev().take(set.quorum()).collect()] {
            let digest = B256::repeat_byte(n as u8);
            let (proposal, certificate) = finalize(&schemes, &signers, 1 + n as u64 * 99, digest);
            let (count, decoded) = set.verify(&proposal, &certificate).expect("a quorum");
            assert_eq!(count, signers.len());
            assert_eq!(decoded.digest, digest);
            assert_eq!(decoded.view, 1 + n as u64 * 99);
            assert!(theirs(&schemes[0], n, &proposal, &certificate));
        }
    }
}

#[test]
fn a_quorum_is_needed() {
    let (set, schemes, proposal, certificate) = four();
    // Signers 0, 2 and 3; without one bit there are two, which the engine would not even assemble.
    assert_eq!(certificate[8], 0b1101);
    let mut fewer = certificate.clone();
    fewer[8] = 0b1100;
    assert_eq!(
        set.verify(proposal, &fewer),
        Err(ProofError::Quorum {
            expected: 3,
            got: 2,
            validators: 4
        })
    );
    let mut others = certificate.clone();
    others[8] = 0b1111;
    assert_eq!(set.verify(proposal, &others), Err(ProofError::Signature));
    others[8] = 0b1110;
    assert_eq!(set.verify(proposal, &others), Err(ProofError::Signature));
    assert!(!theirs(&schemes[0], 4, proposal, &others));
}

#[test]
fn certificates_have_one_encoding() {
    let (set, _, proposal, certificate) = four();
    set.verify(proposal, certificate).expect("the certificate");
    let malformed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = certificate.clone();
        change(&mut bytes);
        set.verify(proposal, &bytes).expect_err("malformed")
    };
    for change in [
        (&|bytes: &mut Vec<u8>| bytes.push(0)) as &dyn Fn(&mut Vec<u8>),
        &|bytes| bytes.truncate(56),
        &|bytes| bytes.clear(),
        &|bytes| bytes[8] |= 0x10,
        &|bytes| bytes[9] &= 0x7f,
        // Infinity, and x = all ones.
        &|bytes| {
            bytes[9..].fill(0);
            bytes[9] = 0xc0;
        },
        &|bytes| bytes[9..].fill(0xff),
        &|bytes| {
            bytes.truncate(9);
            bytes.extend([0; 96]);
        },
    ] {
        assert!(matches!(malformed(change), ProofError::Malformed { .. }));
    }
    assert!(matches!(malformed(&|bytes| bytes[7] = 5), ProofError::Mismatch { .. }));
}

#[test]
fn other_votes_and_networks_do_not_pass() {
    let (set, schemes, proposal, _) = four();
    // A notarization of the same proposal by the same validators.
    let decoded = TheirProposal::<Digest>::decode(Copying(proposal)).expect("a proposal");
    let votes: Vec<_> = schemes
        .iter()
        .map(|scheme| Notarize::sign(scheme, decoded.clone()).expect("a vote"))
        .collect();
    let notarized =
        Notarization::from_notarizes(&schemes[0], non_empty![@votes.iter()], &Sequential).expect("a quorum");
    assert_eq!(
        set.verify(proposal, &notarized.certificate.encode()),
        Err(ProofError::Signature)
    );
    // The same keys under another namespace, which is what another genesis file makes.
    let (entries, secrets) = validators(4, 7);
    let elsewhere = common::schemes(&genesis(entries), secrets, "0");
    let (_, certificate) = finalize(&elsewhere, &[0, 2, 3], 300, B256::repeat_byte(1));
    assert_eq!(set.verify(proposal, &certificate), Err(ProofError::Signature));
}

#[test]
fn keys_without_possession_are_refused() {
    let base = || genesis(validators(4, 7).0);
    let refused = |change: &dyn Fn(&mut opg_contracts::GenesisFile)| {
        let mut file = base();
        change(&mut file);
        ValidatorSet::from_genesis(&file).expect_err("refused")
    };
    let possession = |name: &str| ProofError::Validator {
        name: name.into(),
        what: "proof of possession",
    };
    assert_eq!(
        refused(&|file| file.validators[1].bls_possession = file.validators[0].bls_possession),
        possession("validator-1")
    );
    assert_eq!(
        refused(&|file| file.validators[2].operator = Address::ZERO),
        possession("validator-2")
    );
    assert!(matches!(
        refused(&|file| file.chain_id = CHAIN + 1),
        ProofError::Validator {
            what: "proof of possession",
            ..
        }
    ));
    assert_eq!(
        refused(&|file| file.validators[3].bls.0.fill(0xff)),
        ProofError::Validator {
            name: "validator-3".into(),
            what: "BLS key"
        }
    );
    // Infinity is a point that anyone can sign for.
    assert_eq!(
        refused(&|file| {
            file.validators[3].bls.0.fill(0);
            file.validators[3].bls.0[0] = 0xc0;
        }),
        ProofError::Validator {
            name: "validator-3".into(),
            what: "BLS key"
        }
    );
    // Somebody else's key: its proof names another operator.
    assert_eq!(
        refused(&|file| {
            file.validators[1].bls = file.validators[0].bls;
            file.validators[1].bls_possession = file.validators[0].bls_possession;
        }),
        possession("validator-1")
    );
    assert!(matches!(
        refused(&|file| file.validators[1].identity = file.validators[0].identity),
        ProofError::ValidatorSet(_)
    ));
    assert!(matches!(
        refused(&|file| file.validators.clear()),
        ProofError::ValidatorSet(_)
    ));
}

proptest! {
    #![proptest_config(opg_samples::cases(256))]

    #[test]
    fn proposals_decode_as_the_engine_encodes(
        epoch: u64, view in prop_oneof![any::<u64>(), 0u64..300], parent: u64, digest: [u8; 32],
    ) {
        let theirs = TheirProposal::new(
            Round::new(Epoch::new(epoch), View::new(view)), View::new(parent), Digest::from(digest),
        );
        let ours = Proposal::decode(&theirs.encode());
        let expected = Proposal { epoch, view, parent_view: parent, digest: digest.into() };
        prop_assert_eq!(ours, Ok(expected));
    }

    /// Whatever we read, the engine reads the same, and writes back the same bytes.
    #[test]
    fn hostile_proposals_agree_with_the_engine(
        mut bytes in prop::collection::vec(any::<u8>(), 0..30),
        small in prop::collection::vec(prop_oneof![Just(0x80u8), Just(0), Just(1), Just(0xff)], 0..24),
        tail in any::<[u8; 32]>(),
    ) {
        bytes.truncate(3);
        let bytes: Vec<u8> = small.into_iter().chain(bytes).chain(tail).collect();
        if let Ok(ours) = Proposal::decode(&bytes) {
            let theirs = TheirProposal::<Digest>::decode(Copying(&bytes)).expect("we read it");
            prop_assert_eq!(ours.view, theirs.round.view().get());
            prop_assert_eq!(theirs.encode().to_vec(), bytes);
        }
    }

    /// Never accepted by us and refused by the engine, nor the other way round.
    #[test]
    fn hostile_certificates_agree_with_the_engine(
        at in any::<prop::sample::Index>(), with in any::<u8>(), kind in 0u8..4,
    ) {
        let (set, schemes, proposal, certificate) = four();
        let (mut proposal, mut certificate) = (proposal.clone(), certificate.clone());
        let target = if kind == 3 { &mut proposal } else { &mut certificate };
        let at = at.index(target.len());
        match kind {
            1 => { target.remove(at); }
            2 => target.insert(at, with),
            _ => target[at] = with,
        }
        prop_assert_eq!(
            set.verify(&proposal, &certificate).is_ok(),
            theirs(&schemes[0], 4, &proposal, &certificate)
        );
    }
}
