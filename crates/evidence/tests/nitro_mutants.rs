//! A real Nitro document, changed: none of the changed ones is accepted, here or by a second implementation.

mod common;

use common::Random;
use opg_evidence::{
    EvidenceVerifier as _, TrustRoots,
    nitro::{self, NitroVerifier},
};

/// One changed bit at every offset.
#[test]
fn every_changed_byte_of_a_real_document_is_refused() {
    let Some((document, at)) = real() else { return };
    let mut verifier = NitroVerifier::new();
    let id = verifier
        .remember(&document, &TrustRoots::pinned(), at)
        .expect("good")
        .claims()
        .evidence_id;
    let mut changed = document.clone();
    for offset in 0..document.len() {
        let bit = 1 << (offset % 8);
        changed[offset] ^= bit;
        let outcome = verifier.verify(&changed, &(), &TrustRoots::pinned(), at);
        assert!(
            outcome.is_err(),
            "byte {offset} accepted (identity kept: {})",
            outcome.is_ok_and(|v| v.claims().evidence_id == id)
        );
        changed[offset] ^= bit;
    }
}

fn real() -> Option<(Vec<u8>, u64)> {
    let file = common::sample("nitro/dstack_nsm-attest_nitro_attestation.bin")?;
    let length = nitro::item_length(&file[4..]).expect("a CBOR item");
    Some((file[4..4 + length].to_vec(), 1_766_668_537))
}

fn mutate(random: &mut Random, document: &[u8]) -> Vec<u8> {
    let mut bytes = document.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at.max(1)),
            3 => bytes.insert(at, random.below(256) as u8),
            4 => drop(bytes.remove(at)),
            _ => {
                let end = (at + random.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, part);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// The second implementation: whatever it refuses we refuse, and neither accepts a mutant.
#[test]
fn agrees_with_nitro_attest_on_mutants() {
    let Some((document, at)) = real() else { return };
    let time = time::OffsetDateTime::from_unix_timestamp(at as i64).expect("a time");
    let theirs = |bytes: &[u8]| {
        nitro_attest::UnparsedAttestationDoc::from(bytes)
            .parse_and_verify(time)
            .is_ok()
    };
    let ours = |bytes: &[u8]| {
        NitroVerifier::new()
            .verify(bytes, &(), &TrustRoots::pinned(), at)
            .is_ok()
    };
    assert!(theirs(&document) && ours(&document));
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut compared = 0;
    while compared < common::cases(2_000) {
        let mutant = mutate(&mut random, &document);
        if mutant == document {
            continue;
        }
        compared += 1;
        let (own, other) = (ours(&mutant), theirs(&mutant));
        assert!(!own, "mutant {compared} accepted");
        assert!(!other, "mutant {compared} accepted by nitro_attest alone");
    }
}
