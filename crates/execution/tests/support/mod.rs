//! Wallets, proofs and block surgery, all by code that shares nothing with the client under test.

use alloy_consensus::{Header, SignableTransaction, TxEip1559};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, address, keccak256};
use alloy_rlp::Encodable as _;
use alloy_trie::{Nibbles, TrieAccount, proof::verify_proof};
use opg_execution::Execution;
use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};
use serde_json::Value;
use std::path::Path;

pub(crate) const LEDGER: Address = address!("0000000000000000000000000000000000000900");
pub(crate) const BEACON_ROOTS: Address = address!("000F3df6D732807Ef1319fB7B8bB8522d0Beac02");
const CHAIN_ID: u64 = 10_740;

pub(crate) fn genesis() -> alloy_genesis::Genesis {
    serde_json::from_str(include_str!("../genesis.json")).unwrap()
}

pub(crate) async fn open(dir: &Path) -> Execution {
    Execution::open(genesis(), dir.to_owned()).await.unwrap()
}

pub(crate) fn word(value: u64) -> [u8; 32] {
    U256::from(value).to_be_bytes()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    alloy_primitives::hex::encode(bytes)
}

pub(crate) struct Wallet {
    key: SecretKey,
    pub(crate) address: Address,
}

impl Wallet {
    pub(crate) fn from_seed(seed: &[u8]) -> Self {
        Self::from_key(keccak256(seed).0)
    }

    fn from_key(bytes: [u8; 32]) -> Self {
        let key = SecretKey::from_byte_array(&bytes).unwrap();
        let point = PublicKey::from_secret_key(SECP256K1, &key).serialize_uncompressed();
        let address = Address::from_slice(&keccak256(&point[1..])[12..]);
        Self { key, address }
    }

    /// First account of the well-known development mnemonic.
    pub(crate) fn rich() -> Self {
        let key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        Self::from_key(key.parse::<B256>().unwrap().0)
    }

    pub(crate) fn validator(index: usize) -> Self {
        Self::from_seed(format!("spike validator {index}").as_bytes())
    }

    pub(crate) fn transfer(&self, to: Address, value: u64, nonce: u64, max_fee: u64, tip: u64) -> Bytes {
        self.transfer_on(CHAIN_ID, to, value, nonce, max_fee, tip)
    }

    pub(crate) fn transfer_on(
        &self,
        chain_id: u64,
        to: Address,
        value: u64,
        nonce: u64,
        max_fee: u64,
        tip: u64,
    ) -> Bytes {
        self.sign(TxEip1559 {
            chain_id,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: max_fee.into(),
            max_priority_fee_per_gas: tip.into(),
            to: TxKind::Call(to),
            value: U256::from(value),
            ..Default::default()
        })
    }

    pub(crate) fn call(&self, to: Address, data: Vec<u8>, nonce: u64, max_fee: u64, tip: u64, gas: u64) -> Bytes {
        self.sign(TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: gas,
            max_fee_per_gas: max_fee.into(),
            max_priority_fee_per_gas: tip.into(),
            to: TxKind::Call(to),
            input: data.into(),
            ..Default::default()
        })
    }

    /// A transfer whose signature is valid mathematically and refused by EIP-2.
    pub(crate) fn with_high_s(&self, to: Address, nonce: u64, max_fee: u64) -> Bytes {
        let transaction = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: max_fee.into(),
            to: TxKind::Call(to),
            ..Default::default()
        };
        let signature = self.signature(transaction.signature_hash());
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let order = U256::from_str_radix(order, 16).unwrap();
        let high = Signature::new(signature.r(), order - signature.s(), !signature.v());
        encode(transaction, high)
    }

    fn sign(&self, transaction: TxEip1559) -> Bytes {
        let signature = self.signature(transaction.signature_hash());
        encode(transaction, signature)
    }

    fn signature(&self, hash: B256) -> Signature {
        let signed = SECP256K1.sign_ecdsa_recoverable(&Message::from_digest(hash.0), &self.key);
        let (parity, rs) = signed.serialize_compact();
        let half = |bytes: &[u8]| U256::from_be_slice(bytes);
        Signature::new(half(&rs[..32]), half(&rs[32..]), i32::from(parity) == 1)
    }
}

fn encode(transaction: TxEip1559, signature: Signature) -> Bytes {
    let mut raw = Vec::new();
    transaction.into_signed(signature).eip2718_encode(&mut raw);
    raw.into()
}

/// The same block under another header.
pub(crate) fn with_header(block: &[u8], old: &[u8], new: &Header) -> Vec<u8> {
    let mut outer = block;
    let payload = alloy_rlp::Header::decode_bytes(&mut outer, true).unwrap();
    let rest = payload.strip_prefix(old).unwrap();
    let mut changed = Vec::new();
    new.encode(&mut changed);
    changed.extend(rest);
    let mut encoded = Vec::new();
    let head = alloy_rlp::Header {
        list: true,
        payload_length: changed.len(),
    };
    head.encode(&mut encoded);
    encoded.extend(changed);
    encoded
}

/// Checks an `eth_getProof` answer of one slot against a state root.
pub(crate) fn check_proof(proof: &Value, state_root: B256, account: Address, slot: u64, value: u64) {
    let nodes = |list: &Value| -> Vec<Bytes> { serde_json::from_value(list.clone()).unwrap() };
    let storage_hash: B256 = serde_json::from_value(proof["storageHash"].clone()).unwrap();
    let record = TrieAccount {
        nonce: serde_json::from_value::<alloy_primitives::U64>(proof["nonce"].clone())
            .unwrap()
            .to(),
        balance: serde_json::from_value(proof["balance"].clone()).unwrap(),
        storage_root: storage_hash,
        code_hash: serde_json::from_value(proof["codeHash"].clone()).unwrap(),
    };
    let path = Nibbles::unpack(keccak256(account));
    let leaf = alloy_rlp::encode(record);
    verify_proof(state_root, path, Some(leaf), &nodes(&proof["accountProof"])).unwrap();
    let path = Nibbles::unpack(keccak256(word(slot)));
    let leaf = alloy_rlp::encode(U256::from(value));
    let storage = &proof["storageProof"][0];
    verify_proof(storage_hash, path, Some(leaf), &nodes(&storage["proof"])).unwrap();
}
