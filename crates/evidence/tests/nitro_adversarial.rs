//! Nitro documents that an attacker may hand in, made by the software attester: each breaks one rule and is refused
//! for it.
#![cfg(feature = "soft")]

mod nitro_support;

use nitro_support::{AT, FROM, TO, attester, refusal, request, roots, verify};
use opg_evidence::{
    EvidenceVerifier as _, TrustRoots,
    nitro::NitroVerifier,
    soft::{CertSpec, PROTECTED_ES384, SoftKey, SoftNitro},
    x509::usage,
};
use opg_primitives::cbor::Encoder;

#[test]
fn the_untouched_document_is_accepted() {
    let attester = attester();
    let document = attester.document(&request());
    assert_eq!(document, attester.document(&request()), "deterministic");
    let claims = verify(&attester, &document).expect("good");
    assert!(!claims.debug);
    assert_eq!((claims.not_before, claims.not_after), (FROM, TO));
    let tagged = [&[0xd2], document.as_slice()].concat();
    assert_eq!(
        verify(&attester, &tagged).expect("tag 18").evidence_id,
        claims.evidence_id
    );
}

#[test]
fn chains() {
    let spec = |index: usize, change: fn(&mut CertSpec)| refusal(|attester| change(&mut attester.chain[index].0));
    assert_eq!(spec(1, |ca| ca.authority = Some(false)), "NOT_A_CA");
    assert_eq!(spec(1, |ca| ca.authority = None), "NOT_A_CA");
    assert_eq!(spec(3, |leaf| leaf.authority = Some(true)), "LEAF_IS_CA");
    assert_eq!(spec(1, |ca| ca.path_length = Some(0)), "PATH_LENGTH");
    assert_eq!(spec(2, |ca| ca.key_usage = Some(usage::DIGITAL_SIGNATURE)), "KEY_USAGE");
    assert_eq!(spec(2, |ca| ca.key_usage = None), "KEY_USAGE");
    assert_eq!(spec(3, |leaf| leaf.key_usage = Some(usage::CERT_SIGN)), "KEY_USAGE");
    assert_eq!(spec(2, |ca| ca.not_after = AT - 1), "CERT_EXPIRED");
    assert_eq!(spec(0, |ca| ca.not_before = AT + 1), "CERT_NOT_YET_VALID");
    let extension = |critical| (vec![0x2a, 3, 4], critical, vec![5, 0]);
    assert_eq!(
        refusal(|a| a.chain[3].0.extensions.push(extension(true))),
        "CRITICAL_EXTENSION"
    );
    assert_eq!(
        refusal(|a| a.chain[3].0.extensions.extend([extension(false), extension(false)])),
        "DUPLICATE"
    );
    let big = |length| (vec![0x2a, 3, 4], false, vec![5; length]);
    assert_eq!(refusal(|a| a.chain[3].0.extensions.push(big(1_100))), "FIELD_LENGTH");

    // A chain without authorities.
    assert_eq!(refusal(|a| drop(a.chain.drain(0..3))), "CHAIN_INCOMPLETE");
}

#[test]
fn bundles_put_together_otherwise() {
    let base = attester();
    let certificates = base.certificates();
    let with = |bundle: &[Vec<u8>], leaf: &[u8]| {
        let payload = payload(&base, bundle, leaf, |_| {});
        verify(&base, &base.seal(PROTECTED_ES384, &[0xa0], &payload))
            .expect_err("a refusal")
            .name()
    };
    let leaf = &certificates[3];
    let order = |indices: &[usize]| {
        indices
            .iter()
            .map(|index| certificates[*index].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(with(&order(&[0, 2]), leaf), "CHAIN_NAMES", "missing intermediate");
    assert_eq!(with(&order(&[0, 2, 1]), leaf), "CHAIN_NAMES", "re-ordered");
    assert_eq!(with(&order(&[2, 1, 0]), leaf), "ROOT_NOT_PINNED", "reversed");
    assert_eq!(with(&order(&[1, 2]), leaf), "ROOT_NOT_PINNED", "without the root");
    assert_eq!(with(&order(&[0, 1, 1, 2]), leaf), "DUPLICATE");
    assert_eq!(with(&order(&[0, 0, 1, 2]), leaf), "DUPLICATE");
    assert_eq!(with(&[], leaf), "CHAIN_INCOMPLETE");
    assert_eq!(with(&order(&[0, 1, 2, 0, 1, 2, 0, 1]), leaf), "CHAIN_TOO_LONG");
    assert_eq!(with(&order(&[0]), &certificates[0]), "DUPLICATE", "the root as leaf");

    // A leaf of one's own with the right names under a foreign key, and a self-signed one.
    let (spec, _) = &base.chain[3];
    let own = SoftKey::derive(&[1; 32], "attacker");
    let mut forged = base.clone();
    forged.chain[3].1 = own.clone();
    for (der, name) in [
        (spec.issue(&own, &base.chain[2].0.name, &own), "CERT_SIGNATURE"),
        (spec.issue(&own, &spec.name, &own), "CHAIN_NAMES"),
    ] {
        let payload = payload(&base, &certificates[..3], &der, |_| {});
        let document = forged.seal(PROTECTED_ES384, &[0xa0], &payload);
        assert_eq!(verify(&base, &document).expect_err("a refusal").name(), name);
    }
    // A remembered chain does not let a forged authority or leaf through.
    let mut verifier = NitroVerifier::new();
    verifier
        .remember(&base.document(&request()), &roots(&base), AT)
        .expect("good");
    assert_eq!(verifier.remembered(), 2);
    let der = spec.issue(&own, &base.chain[2].0.name, &own);
    let document = forged.seal(
        PROTECTED_ES384,
        &[0xa0],
        &payload(&base, &certificates[..3], &der, |_| {}),
    );
    let outcome = verifier.verify(&document, &(), &roots(&base), AT);
    assert_eq!(outcome.expect_err("a refusal").name(), "CERT_SIGNATURE");
}

/// A payload with any bundle and leaf; `extra` writes one more key and value (and the map then has ten).
fn payload(attester: &SoftNitro, bundle: &[Vec<u8>], leaf: &[u8], extra: impl Fn(&mut Encoder)) -> Vec<u8> {
    let mut more = Encoder::new();
    extra(&mut more);
    let more = more.finish();
    let mut cbor = Encoder::new();
    cbor.map(6 + usize::from(!more.is_empty()));
    cbor.text("module_id")
        .text("m")
        .text("digest")
        .text("SHA384")
        .text("timestamp")
        .uint(FROM * 1_000);
    cbor.text("pcrs").map(attester.pcrs.len());
    for (index, value) in &attester.pcrs {
        cbor.uint(*index).bytes(value);
    }
    cbor.text("certificate")
        .bytes(leaf)
        .text("cabundle")
        .array(bundle.len());
    for der in bundle {
        cbor.bytes(der);
    }
    [cbor.finish(), more].concat()
}

#[test]
fn cose_and_cbor() {
    let base = attester();
    let certificates = base.certificates();
    let good = base.payload(&request());
    let refused = |protected: &[u8], unprotected: &[u8], payload: &[u8]| {
        verify(&base, &base.seal(protected, unprotected, payload))
            .expect_err("a refusal")
            .name()
    };
    assert_eq!(refused(&[0xa1, 0x01, 0x38, 0x23], &[0xa0], &good), "ALGORITHM", "ES512");
    assert_eq!(refused(&[0xa1, 0x01, 0x26], &[0xa0], &good), "ALGORITHM", "ES256");
    assert_eq!(refused(&[], &[0xa0], &good), "ALGORITHM");
    assert_eq!(
        refused(&[0xa2, 0x01, 0x38, 0x22, 0x04, 0x40], &[0xa0], &good),
        "ALGORITHM",
        "a second header"
    );
    assert_eq!(
        refused(PROTECTED_ES384, &[0xa1, 0x04, 0x40], &good),
        "UNPROTECTED_HEADER"
    );
    assert_eq!(refused(PROTECTED_ES384, &[0xbf, 0xff], &good), "MALFORMED");
    assert_eq!(refused(PROTECTED_ES384, &[0xa0], &[]), "TRUNCATED");
    assert_eq!(
        refused(PROTECTED_ES384, &[0xa0], &[good.as_slice(), &[0]].concat()),
        "TRAILING_BYTES"
    );

    let document = base.document(&request());
    let raw = |bytes: &[u8]| verify(&base, bytes).expect_err("a refusal").name();
    assert_eq!(raw(&[document.as_slice(), &[0]].concat()), "TRAILING_BYTES");
    assert_eq!(raw(&[&[0xd8, 61], document.as_slice()].concat()), "MALFORMED", "tag 61");
    assert_eq!(
        raw(&[&[0xd2, 0xd2], document.as_slice()].concat()),
        "MALFORMED",
        "nested tags"
    );
    assert_eq!(
        raw(&[&[0xd8, 18], document.as_slice()].concat()),
        "NOT_CANONICAL",
        "tag 18 in two bytes"
    );
    assert_eq!(
        raw(&[&[0x9f], &document[1..], &[0xff]].concat()),
        "MALFORMED",
        "indefinite array"
    );
    assert_eq!(raw(&[&[0x98, 4], &document[1..]].concat()), "NOT_CANONICAL");
    assert_eq!(raw(&[0x81; 5_000]), "MALFORMED", "depth bomb");
    assert_eq!(raw(&[0x84, 0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0]), "TRUNCATED", "2^63 bytes");
    assert_eq!(raw(&[0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0]), "MALFORMED");
    assert_eq!(raw(&vec![0; 20_000]), "TOO_LONG");
    // The root is made once: signing it for every length would take minutes.
    let trusted = roots(&base);
    for length in 0..document.len() {
        let outcome = NitroVerifier::new().verify(&document[..length], &(), &trusted, AT);
        assert!(outcome.is_err(), "cut to {length}");
    }

    let extra = |write: fn(&mut Encoder)| {
        let payload = payload(&base, &certificates[..3], &certificates[3], write);
        refused(PROTECTED_ES384, &[0xa0], &payload)
    };
    assert_eq!(
        extra(|cbor| {
            cbor.text("timestamp").uint(1);
        }),
        "DUPLICATE"
    );
    assert_eq!(
        extra(|cbor| {
            cbor.text("surprise").uint(1);
        }),
        "UNKNOWN_FIELD"
    );
    assert_eq!(
        extra(|cbor| {
            cbor.uint(1).uint(1);
        }),
        "MALFORMED",
        "a key that is no text"
    );
    assert_eq!(
        extra(|cbor| {
            cbor.text("nonce").bytes(&[0; 513]);
        }),
        "FIELD_LENGTH"
    );
    assert_eq!(
        extra(|cbor| {
            cbor.text("user_data").bytes(&[0; 513]);
        }),
        "FIELD_LENGTH"
    );
    assert_eq!(
        extra(|cbor| {
            cbor.text("public_key").bytes(&[0; 1_025]);
        }),
        "FIELD_LENGTH"
    );
    assert_eq!(
        extra(|cbor| {
            cbor.text("public_key").bytes(&[]);
        }),
        "FIELD_LENGTH"
    );
    // Bytes that say text but are not UTF-8.
    let mut wrong = payload(&base, &certificates[..3], &certificates[3], |_| {});
    wrong[2] = 0xff;
    assert_eq!(refused(PROTECTED_ES384, &[0xa0], &wrong), "MALFORMED");
}

#[test]
fn registers() {
    let set = |index: u64, length: usize| refusal(|a| drop(a.pcrs.insert(index, vec![1; length])));
    assert_eq!(set(0, 32), "FIELD_LENGTH");
    assert_eq!(set(0, 64), "FIELD_LENGTH");
    assert_eq!(set(0, 96), "FIELD_LENGTH", "two registers in one");
    assert_eq!(set(32, 48), "FIELD_VALUE");
    assert_eq!(set(u64::MAX, 48), "FIELD_VALUE");
    assert_eq!(
        refusal(|a| drop(a.pcrs.remove(&1))),
        "MISSING_FIELD",
        "a zero register left out"
    );
    assert_eq!(refusal(|a| a.pcrs.clear()), "FIELD_VALUE");
    assert_eq!(
        refusal(|a| a.pcrs = (0..33).map(|index| (index, vec![1; 48])).collect()),
        "FIELD_VALUE"
    );
}

#[test]
fn signatures() {
    let base = attester();
    let document = base.document(&request());
    let start = document.len() - 96;
    let with = |bytes: [u8; 96]| verify(&base, &[&document[..start], bytes.as_slice()].concat());
    let mut half = [0u8; 96];
    assert_eq!(with(half).expect_err("r = s = 0").name(), "SIGNATURE");
    half[..48].copy_from_slice(&document[start..start + 48]);
    assert_eq!(with(half).expect_err("s = 0").name(), "SIGNATURE");
    assert_eq!(with([0xff; 96]).expect_err("r, s above the order").name(), "SIGNATURE");
    // (r, n - s) is the same signature to every ECDSA verifier: it may pass, but under the same identity.
    let order =
        hex::decode("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973");
    let mut twin = [0u8; 96];
    twin.copy_from_slice(&document[start..]);
    let mut borrow = 0i16;
    for (at, digit) in order.expect("hexadecimal").iter().enumerate().rev() {
        let difference = i16::from(*digit) - i16::from(twin[48 + at]) - borrow;
        borrow = i16::from(difference < 0);
        twin[48 + at] = difference.rem_euclid(256) as u8;
    }
    assert_ne!(twin, document[start..]);
    let claims = verify(&base, &document).expect("good");
    assert_eq!(with(twin).expect("the twin").evidence_id, claims.evidence_id);
    // DER instead of fixed width.
    let der = [&document[..start - 2], &[0x58, 0x66], &[0x30; 102]].concat();
    assert_eq!(verify(&base, &der).expect_err("DER").name(), "FIELD_LENGTH");
}

#[test]
fn roots_of_the_other_grade() {
    let base = attester();
    let document = base.document(&request());
    let hardware = NitroVerifier::new().verify(&document, &(), &TrustRoots::pinned(), AT);
    assert_eq!(hardware.expect_err("a development chain").name(), "ROOT_NOT_PINNED");
    let other = SoftNitro::new(&[8; 32], FROM, TO);
    assert_eq!(
        verify(&other, &document).expect_err("another development root").name(),
        "ROOT_NOT_PINNED"
    );
}
