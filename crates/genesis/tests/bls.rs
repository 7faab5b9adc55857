//! `BLS.sol` against the vectors of RFC 9380 and against signatures of commonware and blst.
#![allow(missing_docs)]

#[path = "common/bls.rs"]
mod bls;
mod common;

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use alloy_sol_types::sol;
use bls::{VOTE_DST, packed_key, packed_keys, packed_signature, public, secrets, signature, sum, words};
use common::who;
use opg_consensus::keys::{BlsKey, proof_of_possession};
use opg_contracts::possession_namespace;
use opg_genesis::evm::{CallError, Evm};

sol!(
    #[derive(Debug, PartialEq, Eq)]
    TestBLS,
    "../../contracts/artifacts/TestBLS.json"
);
use TestBLS::*;

const NAMESPACE: &[u8] = b"opg/consensus/v1/00_FINALIZE";
const PAYLOAD: &[u8] = b"a proposal";

fn evm() -> (Evm, Address) {
    let mut evm = Evm::new(1, 1);
    let at = who("bls");
    evm.construct(at, TestBLS::BYTECODE.clone()).unwrap();
    (evm, at)
}

fn g1(coordinates: &[u8; 96]) -> BLS::G1Point {
    let w = words(coordinates);
    BLS::G1Point {
        xHigh: w[0],
        xLow: w[1],
        yHigh: w[2],
        yLow: w[3],
    }
}

fn g2(coordinates: &[u8; 192]) -> BLS::G2Point {
    let w = words(coordinates);
    BLS::G2Point {
        x0High: w[0],
        x0Low: w[1],
        x1High: w[2],
        x1Low: w[3],
        y0High: w[4],
        y0Low: w[5],
        y1High: w[6],
        y1Low: w[7],
    }
}

fn key_point(secret: &commonware_cryptography::bls12381::primitives::group::Private) -> BLS::G2Point {
    g2(&packed_key(&public(secret)))
}

fn verify(evm: &mut Evm, at: Address, signature: &[u8; 96], key: &BLS::G2Point, payload: &[u8]) -> bool {
    let call = verifyCall {
        signature: g1(signature),
        key: key.clone(),
        payload: payload.to_vec().into(),
        suite: VOTE_DST.into(),
    };
    // A precompile that fails takes the gas it was given; 10M are enough for everything that does not.
    let data = alloy_sol_types::SolCall::abi_encode(&call);
    let done = evm
        .send_with_gas(who("anyone"), at, U256::ZERO, data.into(), 10_000_000)
        .unwrap();
    U256::from_be_slice(&done.output) == U256::ONE
}

/// RFC 9380, appendix K.1 (SHA-256, 128 bytes).
#[test]
fn expand_message_is_that_of_the_rfc() {
    let (mut evm, at) = evm();
    let suite = b"QUUX-V01-CS02-with-expander-SHA256-128";
    for (payload, wanted) in [
        (
            "",
            hex!(
                "af84c27ccfd45d41914fdff5df25293e221afc53d8ad2ac06d5e3e29485dadbee0d121587713a3e0dd4d5e69e93eb7cd4f5df4cd103e188cf60cb02edc3edf18eda8576c412b18ffb658e3dd6ec849469b979d444cf7b26911a08e63cf31f9dcc541708d3491184472c2c29bb749d4286b004ceb5ee6b9a7fa5b646c993f0ced"
            ),
        ),
        (
            "abc",
            hex!(
                "abba86a6129e366fc877aab32fc4ffc70120d8996c88aee2fe4b32d6c7b6437a647e6c3163d40b76a73cf6a5674ef1d890f95b664ee0afa5359a5c4e07985635bbecbac65d747d3d2da7ec2b8221b17b0ca9dc8a1ac1c07ea6a1e60583e2cb00058e77b7b72a298425cd1b941ad4ec65e8afc50303a22c0f99b0509b4c895f40"
            ),
        ),
    ] {
        let call = expandMessageCall {
            payload: payload.as_bytes().into(),
            suite: suite.into(),
        };
        let got = evm.view(at, call).unwrap();
        assert_eq!(got.concat(), wanted, "{payload}");
    }
}

/// RFC 9380, appendix J.9.1 (`BLS12381G1_XMD:SHA-256_SSWU_RO_`).
#[test]
fn hashing_to_the_curve_is_that_of_the_rfc() {
    let (mut evm, at) = evm();
    let q128 = format!("q128_{}", "q".repeat(128));
    let a512 = format!("a512_{}", "a".repeat(512));
    for (payload, x, y) in [
        (
            "",
            hex!("052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1"),
            hex!("08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265"),
        ),
        (
            "abc",
            hex!("03567bc5ef9c690c2ab2ecdf6a96ef1c139cc0b2f284dca0a9a7943388a49a3aee664ba5379a7655d3c68900be2f6903"),
            hex!("0b9c15f3fe6e5cf4211f346271d7b01c8f3b28be689c8429c85b67af215533311f0b8dfaaa154fa6b88176c229f2885d"),
        ),
        (
            "abcdef0123456789",
            hex!("11e0b079dea29a68f0383ee94fed1b940995272407e3bb916bbf268c263ddd57a6a27200a784cbc248e84f357ce82d98"),
            hex!("03a87ae2caf14e8ee52e51fa2ed8eefe80f02457004ba4d486d6aa1f517c0889501dc7413753f9599b099ebcbbd2d709"),
        ),
        (
            q128.as_str(),
            hex!("15f68eaa693b95ccb85215dc65fa81038d69629f70aeee0d0f677cf22285e7bf58d7cb86eefe8f2e9bc3f8cb84fac488"),
            hex!("1807a1d50c29f430b8cafc4f8638dfeeadf51211e1602a5f184443076715f91bb90a48ba1e370edce6ae1062f5e6dd38"),
        ),
        (
            a512.as_str(),
            hex!("082aabae8b7dedb0e78aeb619ad3bfd9277a2f77ba7fad20ef6aabdc6c31d19ba5a6d12283553294c1825c4b3ca2dcfe"),
            hex!("05b84ae5a942248eea39e1d91030458c40153f3b654ab7872d779ad1e942856a20c438e8d99bc8abfbf74729ce1f7ac8"),
        ),
    ] {
        let call = hashToG1Call {
            payload: payload.as_bytes().to_vec().into(),
            suite: b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_".into(),
        };
        let mut wanted = [0; 96];
        wanted[..48].copy_from_slice(&x);
        wanted[48..].copy_from_slice(&y);
        assert_eq!(evm.view(at, call).unwrap(), g1(&wanted), "{payload}");
    }
    for length in [0, 256] {
        let call = hashToG1Call {
            payload: Bytes::new(),
            suite: vec![b'x'; length].into(),
        };
        assert!(matches!(evm.view(at, call), Err(CallError::Revert(_))), "{length}");
    }
}

/// `compress` gives what commonware and blst write, for keys and signatures of both signs.
#[test]
fn compression_is_that_of_blst() {
    let (mut evm, at) = evm();
    let mut larger = [false; 2];
    for secret in secrets(12, 1) {
        let key = public(&secret);
        larger[usize::from(key[0] & 0x20 != 0)] = true;
        let point = key_point(&secret);
        let got = evm.view(at, compressG2Call { point: point.clone() }).unwrap();
        assert_eq!(got.as_ref(), key);
        let got = evm.view(at, packCall { point }).unwrap();
        assert_eq!(got.as_ref(), packed_key(&key));
        let vote = signature(&secret, NAMESPACE, PAYLOAD);
        let point = g1(&packed_signature(&vote));
        let got = evm.view(at, compressG1Call { point }).unwrap();
        assert_eq!(got.as_ref(), vote);
    }
    assert_eq!(larger, [true, true], "keys of both signs");
    let infinity = evm.view(at, compressG2Call { point: g2(&[0; 192]) }).unwrap();
    assert_eq!((infinity[0], infinity.len()), (0xc0, 96));
    // The secret key 1 has the generator as its public key.
    let generator = g2(&packed_key(
        &BlsKey::from_bytes(&B256::with_last_byte(1).0).unwrap().public().0,
    ));
    let negated = evm.view(at, negatedGeneratorCall {}).unwrap();
    assert_eq!((negated.x0Low, negated.x1Low), (generator.x0Low, generator.x1Low));
    assert_ne!(negated.y0Low, generator.y0Low);
    let (a, b) = (compressG2Call { point: negated }, compressG2Call { point: generator });
    let (a, b) = (evm.view(at, a).unwrap(), evm.view(at, b).unwrap());
    assert_eq!((a[0] ^ b[0], &a[1..]), (0x20, &b[1..]));
}

#[test]
fn signatures_of_commonware_verify() {
    let (mut evm, at) = evm();
    let keys = secrets(2, 2);
    // The length of a namespace takes one byte below 128, two below 16,384.
    for length in [0usize, 1, 28, 127, 128, 300] {
        let namespace = vec![b'n'; length];
        let vote = signature(&keys[0], &namespace, PAYLOAD);
        let call = messageCall {
            namespace: namespace.into(),
            payload: PAYLOAD.into(),
        };
        let signed = evm.view(at, call).unwrap();
        // Another implementation says the same of the bytes and of the suite.
        let outside = blst::min_sig::Signature::from_bytes(&vote).unwrap().verify(
            true,
            &signed,
            VOTE_DST,
            &[],
            &blst::min_sig::PublicKey::from_bytes(&public(&keys[0])).unwrap(),
            true,
        );
        assert_eq!(outside, blst::BLST_ERROR::BLST_SUCCESS);
        let vote = packed_signature(&vote);
        assert!(verify(&mut evm, at, &vote, &key_point(&keys[0]), &signed), "{length}");
        assert!(!verify(&mut evm, at, &vote, &key_point(&keys[1]), &signed));
        let mut other = signed.to_vec();
        *other.last_mut().unwrap() ^= 1;
        assert!(!verify(&mut evm, at, &vote, &key_point(&keys[0]), &other));
    }
}

#[test]
fn what_is_no_signature_does_not_verify() {
    let (mut evm, at) = evm();
    let secret = &secrets(1, 3)[0];
    let signed = [&[NAMESPACE.len() as u8], NAMESPACE, PAYLOAD].concat();
    let good = packed_signature(&signature(secret, NAMESPACE, PAYLOAD));
    let key = key_point(secret);
    assert!(verify(&mut evm, at, &good, &key, &signed));
    // Infinity as signature, as key, and as both, which satisfies the pairing equation.
    assert!(!verify(&mut evm, at, &[0; 96], &key, &signed));
    assert!(!verify(&mut evm, at, &good, &g2(&[0; 192]), &signed));
    assert!(!verify(&mut evm, at, &[0; 96], &g2(&[0; 192]), &signed));
    // Off the curve.
    let mut off = good;
    off[95] ^= 1;
    assert!(!verify(&mut evm, at, &off, &key, &signed));
    // On the curve, outside the group: (0, 2) has order 3.
    let mut outside = [0; 96];
    outside[95] = 2;
    assert!(!verify(&mut evm, at, &outside, &key, &signed));
    // Negated.
    let p = hex!("1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab");
    let mut negated = good;
    let mut borrow = 0i16;
    for i in (0..48).rev() {
        let digit = i16::from(p[i]) - i16::from(good[48 + i]) - borrow;
        borrow = i16::from(digit < 0);
        negated[48 + i] = (digit + 256 * borrow) as u8;
    }
    assert!(!verify(&mut evm, at, &negated, &key, &signed));
    // The suite of proofs of possession.
    let call = verifyCall {
        signature: g1(&good),
        key: key.clone(),
        payload: signed.clone().into(),
        suite: b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_".into(),
    };
    assert!(!evm.view(at, call).unwrap());
    // A coordinate that is not reduced names the same point to a sloppy reader.
    let mut unreduced = good;
    let mut carry = 0u16;
    for i in (0..48).rev() {
        let digit = u16::from(good[i]) + u16::from(p[i]) + carry;
        unreduced[i] = digit as u8;
        carry = digit >> 8;
    }
    if carry == 0 {
        assert!(!verify(&mut evm, at, &unreduced, &key, &signed));
    }
}

#[test]
fn aggregates_of_some_signers() {
    let (mut evm, at) = evm();
    let all = secrets(100, 4);
    let keys = packed_keys(&all);
    let signed = [&[NAMESPACE.len() as u8], NAMESPACE, PAYLOAD].concat();
    let votes: Vec<_> = all.iter().map(|secret| signature(secret, NAMESPACE, PAYLOAD)).collect();
    for signers in [
        vec![0usize],
        vec![99],
        (0..67).collect(),
        (33..100).collect(),
        (0..100).step_by(3).collect(),
    ] {
        let bits = signers.iter().fold(U256::ZERO, |bits, i| bits | U256::ONE << *i);
        let call = aggregateCall {
            keys: keys.clone(),
            signers: bits,
        };
        let got = evm.view(at, call).unwrap();
        assert_eq!(got._1, U256::from(signers.len()));
        let chosen: Vec<_> = signers.iter().map(|i| votes[*i]).collect();
        let certificate = packed_signature(&sum(&chosen));
        assert!(verify(&mut evm, at, &certificate, &got._0, &signed), "{signers:?}");
        // One signer more or fewer in the bitmap.
        for flipped in [0usize, 50, 99] {
            let call = aggregateCall {
                keys: keys.clone(),
                signers: bits ^ U256::ONE << flipped,
            };
            let other = evm.view(at, call).unwrap();
            assert!(!verify(&mut evm, at, &certificate, &other._0, &signed));
        }
    }
    let none = aggregateCall {
        keys: keys.clone(),
        signers: U256::ZERO,
    };
    let none = evm.view(at, none).unwrap();
    assert_eq!((none._0, none._1), (g2(&[0; 192]), U256::ZERO));
    for bad in [keys[..191].to_vec(), keys[..193].to_vec()] {
        let call = aggregateCall {
            keys: bad.into(),
            signers: U256::ONE,
        };
        assert!(evm.view(at, call).is_err());
    }
    let mut off = keys.to_vec();
    off[191] ^= 1;
    let call = aggregateCall {
        keys: off.into(),
        signers: U256::ONE,
    };
    assert!(evm.view(at, call).is_err(), "a key off the curve");
}

/// A proof of possession as genesis files carry it.
#[test]
fn proofs_of_possession_verify() {
    let (mut evm, at) = evm();
    let (one, two) = (
        BlsKey::from_bytes(&[1; 32]).unwrap(),
        BlsKey::from_bytes(&[2; 32]).unwrap(),
    );
    let namespace = possession_namespace(10_740, who("operator"), 3);
    let proof = proof_of_possession(&one, &namespace);
    let mut check = |key: &BlsKey, namespace: &[u8]| {
        let call = verifyPossessionCall {
            key: g2(&packed_key(&key.public().0)),
            namespace: namespace.to_vec().into(),
            proof: g1(&packed_signature(&proof)),
        };
        evm.view(at, call).unwrap()
    };
    assert!(check(&one, &namespace));
    assert!(!check(&two, &namespace));
    assert!(!check(&one, &possession_namespace(10_740, who("operator"), 4)));
    assert!(!check(&one, &possession_namespace(10_740, who("another"), 3)));
}

/// What a check costs: the figures of `docs/specs/gas.md` and of the staking contract's bounds.
#[test]
fn a_signature_costs_little() {
    let (mut evm, at) = evm();
    let secret = &secrets(1, 5)[0];
    let signed = [&[NAMESPACE.len() as u8], NAMESPACE, PAYLOAD].concat();
    let call = verifyCall {
        signature: g1(&packed_signature(&signature(secret, NAMESPACE, PAYLOAD))),
        key: key_point(secret),
        payload: signed.into(),
        suite: VOTE_DST.into(),
    };
    let data = alloy_sol_types::SolCall::abi_encode(&call);
    let done = evm.send(who("anyone"), at, U256::ZERO, data.into()).unwrap();
    println!("one signature, with its transaction: {}", done.gas_used);
    assert!(done.gas_used < 165_000);
}
