//! The network as another chain sees it: validators that sign with commonware's scheme, states in tries, certified headers.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part of it

use crate::{bls, common};
use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolValue, sol};
use alloy_trie::{
    HashBuilder, Nibbles, TrieAccount,
    proof::{ProofNodes, ProofRetainer},
};
use commonware_codec::Encode as _;
use commonware_consensus::{
    simplex::{
        scheme::bls12381_multisig,
        types::{Finalization, Finalize, Proposal},
    },
    types::{Epoch, Round, View},
};
use commonware_cryptography::{
    Signer as _,
    bls12381::primitives::{group::Private, ops::compute_public, variant::MinSig},
    ed25519,
    sha256::Digest,
};
use commonware_parallel::Sequential;
use commonware_utils::{TryCollect as _, non_empty, ordered::BiMap};
use opg_primitives::{domain::Tag, hash::sha256};
use std::collections::BTreeMap;

sol! {
    struct SeatEntry { address operator; bytes32 consensusKey; bytes blsKey; address system; }
}

pub type Scheme = bls12381_multisig::Scheme<ed25519::PublicKey, MinSig>;
pub type Storage = BTreeMap<Address, BTreeMap<U256, U256>>;

/// A validator set of one epoch.
pub struct Set {
    /// In an order of its own, as a contract keeps it.
    pub seats: Vec<SeatEntry>,
    /// Signers in the order of the identities, which is that of the bitmap.
    pub schemes: Vec<Scheme>,
    /// Position in `seats` of each seat by ascending identity.
    pub order: Bytes,
    /// y coordinates of the keys in that order.
    pub ys: Bytes,
}

impl Set {
    pub fn new(count: usize, seed: u64, genesis_digest: B256) -> Self {
        let secrets = bls::secrets(count, seed);
        let members: Vec<(ed25519::PublicKey, Private)> = secrets
            .into_iter()
            .enumerate()
            .map(|(i, secret)| {
                let identity = ed25519::PrivateKey::from_seed(seed * 1_000 + i as u64).public_key();
                (identity, secret)
            })
            .collect();
        let seats: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(i, (identity, secret))| SeatEntry {
                operator: common::who(&format!("operator-{seed}-{i}")),
                consensusKey: B256::from_slice(&identity.encode()),
                blsKey: bls::public(secret).to_vec().into(),
                system: common::who(&format!("system-{seed}-{i}")),
            })
            .collect();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|i| seats[*i].consensusKey);
        let ys = order.iter().flat_map(|i| {
            let key: [u8; 96] = seats[*i].blsKey.as_ref().try_into().unwrap();
            bls::packed_key(&key)[96..].to_vec()
        });
        let ys: Vec<u8> = ys.collect();
        let namespace = format!("{}{genesis_digest:x}", Tag::Consensus);
        let keys: BiMap<_, _> = members
            .iter()
            .map(|(identity, secret)| (identity.clone(), compute_public::<MinSig>(secret)))
            .try_collect()
            .unwrap();
        let schemes = order
            .iter()
            .map(|i| Scheme::signer(namespace.as_bytes(), keys.clone(), members[*i].1.clone()).unwrap())
            .collect();
        Self {
            seats,
            schemes,
            order: order.iter().map(|i| *i as u8).collect::<Vec<_>>().into(),
            ys: ys.into(),
        }
    }

    pub fn hash(&self) -> B256 {
        keccak256(self.seats.abi_encode())
    }

    pub fn quorum(&self) -> usize {
        self.seats.len() - (self.seats.len() - 1) / 3
    }
}

/// A certified header in its parts.
#[derive(Clone)]
pub struct Certified {
    pub proposal: Bytes,
    pub envelopes: Bytes,
    pub header: Bytes,
    pub signers: U256,
    /// Compressed.
    pub signature: [u8; 48],
    /// As consensus encodes it.
    pub certificate: Bytes,
}

/// Certifies a header, `above` blocks below the one that is signed.
pub fn certify(set: &Set, signers: &[usize], epoch: u64, header: &Header, above: u64) -> Certified {
    let rlp: Bytes = alloy_rlp::encode(header).into();
    let (mut parent, mut hash) = (B256::repeat_byte(1), keccak256(&rlp));
    let mut envelopes = Vec::new();
    for i in 0..=above {
        let height = (header.number + i).to_be_bytes();
        let body = B256::with_last_byte(i as u8);
        let envelope = [parent.as_slice(), &height, hash.as_slice(), body.as_slice()].concat();
        (parent, hash) = (sha256(&envelope), keccak256(&envelope));
        envelopes.extend(envelope);
    }
    let proposal = Proposal::new(
        // Views from 128 on take two bytes.
        Round::new(Epoch::new(epoch), View::new(200)),
        View::new(199),
        Digest::from(parent.0),
    );
    let votes: Vec<_> = signers
        .iter()
        .map(|i| Finalize::sign(&set.schemes[*i], proposal.clone()).unwrap())
        .collect();
    let compressed: [u8; 48];
    let certificate: Bytes;
    if signers.len() >= set.quorum() {
        let scheme = &set.schemes[0];
        let finalization = Finalization::from_finalizes(scheme, non_empty![@votes.iter()], &Sequential).unwrap();
        certificate = finalization.certificate.encode().to_vec().into();
        compressed = certificate[certificate.len() - 48..].try_into().unwrap();
    } else {
        // Consensus makes no certificate of too few: an attacker adds the signatures up by other means.
        let parts: Vec<[u8; 48]> = votes
            .iter()
            .map(|vote| {
                let bytes = vote.attestation.encode();
                bytes[bytes.len() - 48..].try_into().unwrap()
            })
            .collect();
        compressed = bls::sum(&parts);
        certificate = Bytes::new();
    }
    Certified {
        proposal: proposal.encode().to_vec().into(),
        envelopes: envelopes.into(),
        header: rlp,
        signers: signers.iter().fold(U256::ZERO, |bits, i| bits | U256::ONE << *i),
        signature: compressed,
        certificate,
    }
}

/// An Osaka header.
pub fn header(number: u64, state_root: B256) -> Header {
    Header {
        number,
        state_root,
        timestamp: common::START + number,
        gas_limit: 120_000_000,
        base_fee_per_gas: Some(7),
        withdrawals_root: Some(alloy_trie::EMPTY_ROOT_HASH),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::repeat_byte(3)),
        requests_hash: Some(sha256(b"")),
        extra_data: Bytes::from(vec![9; 32]),
        ..Header::default()
    }
}

/// Root of a state, with the proof of one slot: of the account, and of the slot in its storage.
pub fn prove(storage: &Storage, account: Address, slot: U256) -> (B256, Vec<Bytes>, Vec<Bytes>) {
    let mut slot_proof = Vec::new();
    let mut leaves = Vec::new();
    for (address, slots) in storage {
        let target = keccak256(slot.to_be_bytes::<32>());
        let pairs = slots.iter().filter(|(_, value)| !value.is_zero());
        let pairs = pairs.map(|(key, value)| (keccak256(key.to_be_bytes::<32>()), alloy_rlp::encode(*value)));
        let (root, nodes) = trie(pairs.collect(), target);
        if *address == account {
            slot_proof = path(&nodes, target);
        }
        let entry = TrieAccount {
            storage_root: root,
            nonce: 1,
            ..TrieAccount::default()
        };
        leaves.push((keccak256(address), alloy_rlp::encode(entry)));
    }
    let target = keccak256(account);
    let (root, nodes) = trie(leaves, target);
    (root, path(&nodes, target), slot_proof)
}

fn trie(mut leaves: Vec<(B256, Vec<u8>)>, target: B256) -> (B256, ProofNodes) {
    leaves.sort();
    let targets = vec![Nibbles::unpack(target)];
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(targets));
    for (key, value) in leaves {
        builder.add_leaf(Nibbles::unpack(key), &value);
    }
    (builder.root(), builder.take_proof_nodes())
}

fn path(nodes: &ProofNodes, key: B256) -> Vec<Bytes> {
    nodes
        .matching_nodes_sorted(&Nibbles::unpack(key))
        .into_iter()
        .map(|(_, node)| node)
        .collect()
}

/// A state with some hundred thousand accounts has paths of about this depth; here there are a few hundred neighbours.
pub fn neighbours(storage: &mut Storage, account: Address, slots: u64) {
    for i in 0..slots {
        let key = U256::from_be_bytes(keccak256(i.to_be_bytes()).0);
        storage.entry(account).or_default().insert(key, U256::from(i + 1));
    }
    for i in 0..slots {
        let other = Address::from_word(keccak256((i, 1u64).abi_encode()));
        storage.entry(other).or_default().insert(U256::ZERO, U256::ONE);
    }
}
