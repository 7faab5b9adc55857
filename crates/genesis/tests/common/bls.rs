//! BLS keys and signatures of commonware and blst, in the encoding of EIP-2537.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part of it

use alloy_primitives::{B256, Bytes};
use blst::min_sig::{PublicKey, Signature};
use commonware_codec::Encode as _;
use commonware_cryptography::bls12381::primitives::{
    group::Private,
    ops::{compute_public, keypair, sign_message},
    variant::MinSig,
};
use commonware_utils::TestRng;

/// Suite of votes.
pub const VOTE_DST: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// Secret keys, the same for the same seed.
pub fn secrets(count: usize, seed: u64) -> Vec<Private> {
    let mut rng = TestRng::new(seed);
    (0..count).map(|_| keypair::<_, MinSig>(&mut rng).0).collect()
}

/// The compressed public key, as in genesis files.
pub fn public(secret: &Private) -> [u8; 96] {
    compute_public::<MinSig>(secret).encode().as_ref().try_into().unwrap()
}

/// A signature by commonware, compressed.
pub fn signature(secret: &Private, namespace: &[u8], message: &[u8]) -> [u8; 48] {
    let signature = sign_message::<MinSig>(secret, namespace, message);
    signature.encode().as_ref().try_into().unwrap()
}

/// Sum of signatures, by blst.
pub fn sum(signatures: &[[u8; 48]]) -> [u8; 48] {
    let all: Vec<_> = signatures
        .iter()
        .map(|bytes| Signature::from_bytes(bytes).unwrap())
        .collect();
    let all: Vec<_> = all.iter().collect();
    let sum = blst::min_sig::AggregateSignature::aggregate(&all, true).unwrap();
    sum.to_signature().to_bytes()
}

/// Four 48-byte coordinates of a key in the order of EIP-2537: x.c0, x.c1, y.c0, y.c1.
pub fn packed_key(compressed: &[u8; 96]) -> [u8; 192] {
    // Zcash's format has the other order.
    let bytes = PublicKey::from_bytes(compressed).unwrap().serialize();
    let mut packed = [0; 192];
    for (to, from) in [(0, 48), (48, 0), (96, 144), (144, 96)] {
        packed[to..to + 48].copy_from_slice(&bytes[from..from + 48]);
    }
    packed
}

/// Words of coordinates, padded to 64 bytes each.
pub fn words(coordinates: &[u8]) -> Vec<B256> {
    coordinates
        .chunks(48)
        .flat_map(|coordinate| {
            let mut padded = [0; 64];
            padded[16..].copy_from_slice(coordinate);
            [B256::from_slice(&padded[..32]), B256::from_slice(&padded[32..])]
        })
        .collect()
}

/// x and y of a signature, 48 bytes each.
pub fn packed_signature(compressed: &[u8; 48]) -> [u8; 96] {
    Signature::from_bytes(compressed).unwrap().serialize()
}

/// Keys of a set one after the other.
pub fn packed_keys(secrets: &[Private]) -> Bytes {
    let keys = secrets.iter().flat_map(|secret| packed_key(&public(secret)));
    keys.collect::<Vec<_>>().into()
}
