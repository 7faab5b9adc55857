//! Real SNP reports, changed: nothing is accepted, nothing panics, and each refusal has the name of what was changed.

mod common;
mod snp_support;

use opg_evidence::{
    EvidenceVerifier, TrustRoots,
    snp::{SnpCollateral, SnpVerifier},
};
use snp_support::{AT, collateral, hardware, name, real};

#[test]
fn every_bit_of_the_signed_part_counts() {
    for (name, raw, beside, at) in real() {
        assert!(hardware(&raw, &beside, at).is_ok(), "{name}");
        for bit in 0..0x2a0 * 8 {
            let mut changed = raw.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(hardware(&changed, &beside, at).is_err(), "{name} bit {bit}");
        }
    }
}

#[test]
fn every_bit_of_the_signature_field_counts() {
    for (name, raw, beside, at) in real() {
        for bit in 0x2a0 * 8..0x4a0 * 8 {
            let mut changed = raw.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let reject = hardware(&changed, &beside, at).unwrap_err();
            let in_scalar = matches!((bit / 8 - 0x2a0) % 72, 0..48) && bit / 8 < 0x330;
            assert_eq!(
                reject.name(),
                if in_scalar { "SIGNATURE" } else { "SIG_PADDING" },
                "{name} bit {bit}"
            );
        }
    }
}

#[test]
fn truncated_and_trailing() {
    for (name, raw, beside, at) in real() {
        for end in 0..raw.len() {
            assert_eq!(
                hardware(&raw[..end], &beside, at).unwrap_err().name(),
                "TRUNCATED",
                "{name} cut at {end}"
            );
        }
        for tail in [&[0][..], &[1], &[0; 4096]] {
            let long = [&raw, tail].concat();
            assert_eq!(
                hardware(&long, &beside, at).unwrap_err().name(),
                "TRAILING_BYTES",
                "{name}"
            );
        }
    }
}

/// `(r, n - s)` verifies as well; it is the same evidence.
#[test]
fn twin_signature_has_the_same_identity() {
    for (name, raw, beside, at) in real() {
        let twin = twin(&raw);
        assert_ne!(twin, raw);
        let (a, b) = (
            hardware(&raw, &beside, at).unwrap(),
            hardware(&twin, &beside, at).unwrap(),
        );
        assert_eq!(a.evidence_id, b.evidence_id, "{name}");
    }
}

fn twin(raw: &[u8]) -> Vec<u8> {
    let order =
        hex::decode("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973")
            .unwrap();
    let mut twin = raw.to_vec();
    let mut borrow = 0i32;
    for at in 0..48 {
        let digit = i32::from(order[47 - at]) - i32::from(raw[0x2e8 + at]) - borrow;
        borrow = i32::from(digit < 0);
        twin[0x2e8 + at] = digit.rem_euclid(256) as u8;
    }
    twin
}

#[test]
fn zero_and_huge_scalars() {
    for (_, raw, beside, at) in real() {
        for (field, value) in [(0x2a0, 0), (0x2e8, 0), (0x2a0, 0xff), (0x2e8, 0xff)] {
            let mut changed = raw.clone();
            changed[field..field + 48].fill(value);
            assert_eq!(hardware(&changed, &beside, at).unwrap_err().name(), "SIGNATURE");
        }
    }
}

/// Every bit of leaf and authority certificate: refused, or (the serial of the ARK and the like) not looked at.
#[test]
fn every_byte_of_the_certificates_counts() {
    for (name, raw, beside, at) in real() {
        for (index, der) in beside.certificates.iter().take(2).enumerate() {
            for byte in 0..der.len() {
                let mut changed = beside.clone();
                changed.certificates[index][byte] ^= 1 << (byte % 8);
                assert!(
                    hardware(&raw, &changed, at).is_err(),
                    "{name} certificate {index} byte {byte}"
                );
            }
            for end in (0..der.len()).step_by(13) {
                let mut changed = beside.clone();
                changed.certificates[index].truncate(end);
                assert!(hardware(&raw, &changed, at).is_err());
            }
        }
    }
}

#[test]
fn chains() {
    let cases = real();
    if cases.is_empty() {
        return;
    }
    let (_, milan, good, _) = &cases[0];
    let without = |keep: usize| SnpCollateral {
        certificates: good.certificates[..keep].to_vec(),
        crls: Vec::new(),
    };
    assert_eq!(name(hardware(milan, &without(0), AT)), "NO_VCEK");
    assert_eq!(name(hardware(milan, &without(1), AT)), "CHAIN_INCOMPLETE");
    assert!(
        hardware(milan, &without(2), AT).is_ok(),
        "the root is pinned, not handed in"
    );
    let many = SnpCollateral {
        certificates: vec![good.certificates[0].clone(); 17],
        crls: Vec::new(),
    };
    assert_eq!(name(hardware(milan, &many, AT)), "CHAIN_TOO_LONG");
    // Another chip with the same TCB, a Turin chip, a VLEK.
    let other = collateral(&["snp/trustee_snp_test-vcek.der", "snp/google_milan.testcer"]);
    assert_eq!(name(hardware(milan, &other, AT)), "CHIP_ID");
    let vlek = collateral(&["snp/trustee_snp_test-vlek.der", "snp/google_milanvlek.testcer"]);
    assert_eq!(name(hardware(milan, &vlek, 1_740_000_000)), "SIGNING_KEY");
    let (_, vlek_report, _, _) = &cases[2];
    assert_eq!(name(hardware(vlek_report, good, AT)), "SIGNING_KEY");
    // Years before and after.
    assert_eq!(name(hardware(milan, good, 1_600_000_000)), "CERT_NOT_YET_VALID");
    assert_eq!(name(hardware(milan, good, 1_950_000_000)), "CERT_EXPIRED");
    assert_eq!(name(hardware(milan, good, u64::MAX)), "CERT_EXPIRED");
    let development = SnpVerifier::new().verify(milan, good, &TrustRoots::development(Vec::new()), AT);
    assert_eq!(development.unwrap_err().name(), "ROOT_NOT_PINNED");
}
