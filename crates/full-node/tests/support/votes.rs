//! Votes of a validator that breaks the rules, signed by another implementation of BLS than the engine's.

use super::keys;
use alloy_primitives::B256;
use opg_contracts::GenesisFile;

/// Of commonware's signatures.
const SUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// Position of validator `i` of the genesis file in the set sorted by identity.
pub fn seat(genesis: &GenesisFile, i: u8) -> u64 {
    let own = genesis.validators[usize::from(i)].identity;
    genesis.validators.iter().filter(|v| v.identity < own).count() as u64
}

/// A vote of validator `i` to notarize a block with `digest` in a view.
pub fn notarize(genesis: &GenesisFile, i: u8, (epoch, view): (u64, u64), digest: B256) -> Vec<u8> {
    let proposal = [varint(epoch), varint(view), varint(view - 1), digest.to_vec()].concat();
    let namespace = format!("opg/consensus/v1/{}_NOTARIZE", hex::encode(genesis.digest())).into_bytes();
    let message = [varint(namespace.len() as u64), namespace, proposal.clone()].concat();
    let key = blst::min_sig::SecretKey::from_bytes(&keys(i).bls).unwrap();
    let signature = key.sign(&message, SUITE, &[]).compress();
    [proposal, varint(seat(genesis, i)), signature.to_vec()].concat()
}

/// Evidence that validator `i` voted for two blocks in one view.
pub fn equivocation(genesis: &GenesisFile, i: u8, at: (u64, u64)) -> Vec<u8> {
    let vote = |byte| notarize(genesis, i, at, B256::repeat_byte(byte));
    [vec![1], vote(0xaa), vote(0xbb)].concat()
}
