//! A small network made by hand: validators that sign with commonware's own scheme, a state trie, blocks, one receipt.
//!
//! Certificates come from an implementation that we did not write, so the light client is not checked against itself.
// Each test binary uses its own part of this module.
#![allow(dead_code, unreachable_pub)]

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256};
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
    bls12381::primitives::{
        group::Private,
        ops::{keypair, sign_proof_of_possession},
        variant::MinSig,
    },
    ed25519,
    sha256::Digest,
};
use commonware_parallel::Sequential;
use commonware_utils::{TestRng, TryCollect as _, non_empty, ordered::BiMap};
use ed25519_dalek::SigningKey;
use opg_contracts::{
    GenesisFile, Parameters, ValidatorEntry, addresses, possession_namespace, slots,
    state::{cancelled_hash, settlement_hash},
};
use opg_payments::signature::{SecretKey, address_of_secret};
use opg_primitives::{
    domain::Tag,
    hash::{keccak, sha256},
    ids::{Keyset, ModelRoot, node_id},
    merkle,
    mode::{Grade, Mode},
    money::{Amount, Price, Usage, WEI_PER_OPG},
};
use opg_receipt::{
    Core, LeafKind, ModeRecord, Quote, QuoteRef, ReceiptFile, RequestCommitments, SignedQuote, SignedReceipt, Times,
    UsageUnit, commit,
    file::{AccountProof, Finality, Inclusion, Leaf, Opening, ProofAfter, SlotProof, StateProof},
    quote::request_digest,
};
use opg_samples::{Sale, payment, proof};
use std::collections::BTreeMap;

pub type Scheme = bls12381_multisig::Scheme<ed25519::PublicKey, MinSig>;

pub const CHAIN: u64 = 10_740;
pub const START: u64 = 1_790_000_000;
pub const HEIGHT: u64 = 5;

#[derive(Clone)]
pub struct World {
    pub genesis: GenesisFile,
    /// In the order of the identities.
    pub schemes: Vec<Scheme>,
    pub node: SigningKey,
    pub payer: SecretKey,
    pub keyset: Keyset,
    /// Storage by account.
    pub storage: BTreeMap<Address, BTreeMap<U256, U256>>,
    /// Asked mode and minimum grade of the receipt.
    pub asked: (Mode, Grade),
    /// Root of the model, asked and served.
    pub model: ModelRoot,
    /// Epoch of all blocks.
    pub epoch: u64,
    /// Height of the receipt's block.
    pub height: u64,
    /// Height of the block whose state is proved.
    pub proof_height: u64,
}

/// Validators with random keys, each with its proof of possession.
pub fn validators(n: u32, seed: u64) -> (Vec<ValidatorEntry>, Vec<(ed25519::PublicKey, Private)>) {
    let mut rng = TestRng::new(seed);
    let mut secrets = Vec::new();
    let entries = (0..n)
        .map(|i| {
            let identity = ed25519::PrivateKey::from_seed(seed * 1_000 + u64::from(i)).public_key();
            let (private, public) = keypair::<_, MinSig>(&mut rng);
            let operator = Address::with_last_byte(0xa0 + i as u8);
            let namespace = possession_namespace(CHAIN, operator, 0);
            let possession = sign_proof_of_possession::<MinSig>(&private, &namespace);
            let entry = ValidatorEntry {
                name: format!("validator-{i}"),
                identity: B256::from_slice(&identity.encode()),
                bls: FixedBytes::from_slice(&public.encode()),
                bls_possession: FixedBytes::from_slice(&possession.encode()),
                system: Address::with_last_byte(0xc0 + i as u8),
                operator,
            };
            secrets.push((identity, private));
            entry
        })
        .collect();
    (entries, secrets)
}

/// Signers of a genesis, in the order of the identities.
pub fn schemes(genesis: &GenesisFile, secrets: Vec<(ed25519::PublicKey, Private)>, suffix: &str) -> Vec<Scheme> {
    use commonware_cryptography::bls12381::primitives::ops::compute_public;
    let namespace = format!("{}{:x}{suffix}", Tag::Consensus, genesis.digest());
    let set: BiMap<_, _> = secrets
        .iter()
        .map(|(identity, private)| (identity.clone(), compute_public::<MinSig>(private)))
        .try_collect()
        .expect("distinct keys");
    let mut secrets = secrets;
    secrets.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
    secrets
        .into_iter()
        .map(|(_, key)| Scheme::signer(namespace.as_bytes(), set.clone(), key).expect("a member"))
        .collect()
}

/// A genesis file with these validators; it allocates nothing, as nobody here builds a chain from it.
pub fn genesis(validators: Vec<ValidatorEntry>) -> GenesisFile {
    GenesisFile {
        version: 1,
        vesting: vec![],
        airdrop: None,
        evidence: None,
        chain_id: CHAIN,
        development: false,
        timestamp: START,
        validators,
        parameters: Parameters::development(Address::with_last_byte(0x99)),
        allocations: Vec::new(),
        nodes: Vec::new(),
        models: Vec::new(),
        asks: Vec::new(),
    }
}

/// Proposal and certificate by some of the signers.
pub fn finalize(schemes: &[Scheme], signers: &[usize], view: u64, digest: B256) -> (Bytes, Bytes) {
    finalize_in(0, schemes, signers, view, digest)
}

/// The same in any epoch.
pub fn finalize_in(epoch: u64, schemes: &[Scheme], signers: &[usize], view: u64, digest: B256) -> (Bytes, Bytes) {
    let proposal = Proposal::new(
        Round::new(Epoch::new(epoch), View::new(view)),
        View::new(view - 1),
        Digest::from(digest.0),
    );
    let votes: Vec<_> = signers
        .iter()
        .map(|i| Finalize::sign(&schemes[*i], proposal.clone()).expect("a vote"))
        .collect();
    let certificate =
        Finalization::from_finalizes(&schemes[0], non_empty![@votes.iter()], &Sequential).expect("a quorum");
    (
        proposal.encode().to_vec().into(),
        certificate.certificate.encode().to_vec().into(),
    )
}

impl World {
    pub fn new(n: u32, seed: u64) -> Self {
        let (entries, secrets) = validators(n, seed);
        let mut genesis = genesis(entries);
        // Any order in the file.
        genesis.validators.reverse();
        let schemes = schemes(&genesis, secrets, "");
        let node = SigningKey::from_bytes(&[3; 32]);
        let payer = SecretKey::from_byte_array(&[4; 32]).expect("a key");
        let keyset = Keyset {
            node_id: node_id(Address::with_last_byte(0x77), B256::with_last_byte(1)),
            receipt_key: B256::new(node.verifying_key().to_bytes()),
            settlement_key: Address::with_last_byte(0x78),
            hpke_key: B256::ZERO,
            tls_spki: B256::ZERO,
        };
        let asked = (Mode::None, Grade::None);
        let mut world = Self {
            genesis,
            schemes,
            node,
            payer,
            keyset,
            storage: BTreeMap::new(),
            asked,
            model: ModelRoot(B256::repeat_byte(7)),
            epoch: 0,
            height: HEIGHT,
            proof_height: 9,
        };
        world.register(START, 0);
        world.settle(world.payee(), world.amount());
        // Neighbours, so that the tries have branches.
        for account in [addresses::OPG, addresses::NODE_REGISTRY, addresses::RECEIPT_LEDGER] {
            for i in 0..3u64 {
                world
                    .storage
                    .entry(account)
                    .or_default()
                    .insert(U256::from(i), U256::from(i + 1));
            }
        }
        world
    }

    pub fn register(&mut self, registered: u64, revoked: u64) {
        let base = slots::keyset_base(self.keyset.digest().0);
        let packed = U256::from_be_slice(self.keyset.settlement_key.as_slice())
            | U256::from(registered) << 160usize
            | U256::from(revoked) << 200usize;
        let registry = self.storage.entry(addresses::NODE_REGISTRY).or_default();
        registry.insert(base, self.keyset.node_id.0.into());
        registry.insert(base + U256::from(1), self.keyset.receipt_key.into());
        registry.insert(base + U256::from(2), packed);
    }

    pub fn settle(&mut self, to: Address, amount: Amount) {
        let slot = slots::opg_settlement(self.payer_address(), self.nonce());
        let hash = settlement_hash(to, amount.wei());
        self.storage
            .entry(addresses::OPG)
            .or_default()
            .insert(slot, hash.into());
        let spent = slots::spent(opg_primitives::ids::payment_id(self.payer_address(), self.nonce()).0);
        self.storage
            .entry(addresses::RECEIPT_LEDGER)
            .or_default()
            .insert(spent, U256::from(1));
    }

    pub fn cancel(&mut self) {
        let slot = slots::opg_settlement(self.payer_address(), self.nonce());
        self.storage
            .entry(addresses::OPG)
            .or_default()
            .insert(slot, cancelled_hash().into());
    }

    pub fn payer_address(&self) -> Address {
        address_of_secret(&self.payer)
    }

    pub fn nonce(&self) -> B256 {
        B256::repeat_byte(9)
    }

    pub fn payee(&self) -> Address {
        opg_samples::payee(self.keyset.node_id)
    }

    pub fn amount(&self) -> Amount {
        Amount(WEI_PER_OPG / 100)
    }

    pub fn quote(&self) -> SignedQuote {
        let nonce = B256::repeat_byte(8);
        let quote = Quote {
            chain_id: CHAIN,
            node_id: self.keyset.node_id,
            keyset: self.keyset.digest(),
            nonce,
            receipt_id: commit::receipt_id(CHAIN, &self.keyset.node_id, &nonce),
            request_digest: request_digest("POST", "/v1/infer", BODY),
            model_root: self.model,
            ask: ask(),
            royalty_bps: 1_000,
            max_amount: self.amount(),
            payee: self.payee(),
            asset: addresses::OPG,
            expires: START + 60,
            mode_asked: self.asked.0,
            min_grade: self.asked.1,
        };
        SignedQuote::sign(quote, &self.node).expect("a quote")
    }

    pub fn core(&self) -> Core {
        let quote = self.quote();
        let usage = Usage { input: 1, output: 0 };
        let mode = ModeRecord {
            asked: self.asked.0,
            min_grade: self.asked.1,
            ..ModeRecord::NONE
        };
        let mut core = Sale {
            chain_id: CHAIN,
            keyset: &self.keyset,
            seq: 0,
            model: ("demo/digits-mlp", quote.quote().model_root),
            ask: ask(),
            royalty_bps: 1_000,
            usage: (UsageUnit::Calls, usage),
            payment: payment(
                CHAIN,
                &self.keyset,
                &self.payer,
                self.amount(),
                self.nonce(),
                START + 600,
            ),
        }
        .core();
        core.receipt_id = quote.quote().receipt_id;
        core.quote = QuoteRef {
            digest: quote.digest(),
            nonce: quote.quote().nonce,
        };
        core.request = RequestCommitments {
            body: commit::request(&SALT, BODY),
            params: commit::params(&SALT, "{}"),
        };
        core.response.commitment =
            commit::response(&[commit::response_leaf(&SALT, LeafKind::Tensors, 0, ANSWER)]).expect("one leaf");
        if !mode.is_satisfied() {
            core.price.charge = Amount::ZERO;
        }
        core.times = Times {
            received: START * 1_000,
            first_output: START * 1_000,
            done: START * 1_000 + 1,
        };
        core.mode = mode;
        core
    }

    /// A complete file: inclusion, registration and payment.
    pub fn file(&self) -> ReceiptFile {
        self.file_of(self.core())
    }

    pub fn file_of(&self, core: Core) -> ReceiptFile {
        let receipt = SignedReceipt::sign(core, &self.node).expect("a receipt");
        let mut file = ReceiptFile::new(receipt.cose().clone(), self.keyset, self.quote().cose().clone());
        file.opening = Some(Opening {
            salt: SALT,
            method: "POST".into(),
            path: "/v1/infer".into(),
            body: BODY.to_vec().into(),
            params: "{}".into(),
            leaves: vec![Leaf {
                kind: LeafKind::Tensors,
                bytes: ANSWER.to_vec().into(),
            }],
        });
        file.inclusion = Some(self.inclusion(receipt.core_hash()));
        file.registration = Some(self.registration());
        file.payment = Some(self.payment());
        file
    }

    /// A complete file of mode zk, with a real proof. The world must have been made for it by [`Self::asking_zk`].
    pub fn proven_file(&self) -> ReceiptFile {
        let mut core = self.core();
        let answer = proof::zk(&mut core, 4, START);
        let artefact = proof::artefact(&core, 4, &answer);
        core.price.charge = self.core_charge();
        let mut file = self.file_of(core);
        file.opening = None;
        file.proof = Some(ProofAfter {
            artefact: artefact.into(),
            registration: self.program(),
        });
        file
    }

    /// A world in which requests ask for mode zk and the program of the digits is registered.
    pub fn asking_zk(n: u32, seed: u64) -> Self {
        let mut world = Self::new(n, seed);
        world.asked = (Mode::Zk, Grade::Hardware);
        let slot = slots::model_program(B256::repeat_byte(7), proof::program_root());
        let registry = world.storage.entry(addresses::MODEL_REGISTRY).or_default();
        registry.insert(slot, U256::from(1));
        world
    }

    /// Proof of the program's registration.
    pub fn program(&self) -> StateProof {
        let slot = slots::model_program(B256::repeat_byte(7), proof::program_root());
        self.prove(&[(addresses::MODEL_REGISTRY, vec![slot])])
    }

    /// What a call costs when it is served as asked.
    fn core_charge(&self) -> Amount {
        let usage = Usage { input: 1, output: 0 };
        let due = opg_primitives::money::charge(&ask(), usage, 1_000).expect("a price");
        due.min(self.amount())
    }

    /// Second of three receipts in block 5, certified two blocks above.
    pub fn inclusion(&self, core_hash: B256) -> Inclusion {
        let leaves = [keccak(b"first"), core_hash, keccak(b"third")].map(merkle::leaf);
        let root = merkle::batch_root(self.height, 3, merkle::root(&leaves));
        Inclusion {
            height: self.height,
            index: 1,
            count: 3,
            siblings: merkle::prove(&leaves, 1).expect("a path"),
            finality: self.finality(header(self.height, B256::ZERO, root), 2),
        }
    }

    pub fn registration(&self) -> StateProof {
        let base = slots::keyset_base(self.keyset.digest().0);
        let keys = (0..3).map(|i| base + U256::from(i)).collect();
        self.prove(&[(addresses::NODE_REGISTRY, keys)])
    }

    pub fn payment(&self) -> StateProof {
        let (payer, nonce) = (self.payer_address(), self.nonce());
        let spent = slots::spent(opg_primitives::ids::payment_id(payer, nonce).0);
        self.prove(&[
            (addresses::OPG, vec![slots::opg_settlement(payer, nonce)]),
            (addresses::RECEIPT_LEDGER, vec![spent]),
        ])
    }

    /// Slots of accounts in the state of block 9.
    pub fn prove(&self, wanted: &[(Address, Vec<U256>)]) -> StateProof {
        let accounts: BTreeMap<Address, (TrieAccount, BTreeMap<U256, Vec<Bytes>>)> = self
            .storage
            .iter()
            .map(|(address, storage)| {
                let keys = wanted.iter().find(|(wanted, _)| wanted == address);
                let keys = keys.map_or(&[][..], |(_, keys)| keys);
                let hashed = |key: &U256| keccak(&key.to_be_bytes::<32>());
                let leaves = storage.iter().filter(|(_, value)| !value.is_zero());
                let leaves = leaves.map(|(key, value)| (hashed(key), alloy_rlp::encode(*value)));
                let (root, nodes) = trie(leaves.collect(), keys.iter().map(hashed).collect());
                let proofs = keys.iter().map(|key| (*key, path(&nodes, hashed(key)))).collect();
                let account = TrieAccount {
                    storage_root: root,
                    nonce: 1,
                    ..TrieAccount::default()
                };
                (*address, (account, proofs))
            })
            .collect();
        let hashed = |address: &Address| keccak(address.as_slice());
        let leaves = accounts
            .iter()
            .map(|(address, (account, _))| (hashed(address), alloy_rlp::encode(account)));
        let targets = wanted.iter().map(|(address, _)| hashed(address)).collect();
        let (state_root, nodes) = trie(leaves.collect(), targets);
        let proved = wanted.iter().map(|(address, keys)| AccountProof {
            address: *address,
            proof: path(&nodes, hashed(address)),
            slots: keys
                .iter()
                .map(|key| SlotProof {
                    key: (*key).into(),
                    value: self.storage[address].get(key).copied().unwrap_or_default().into(),
                    proof: accounts[address].1[key].clone(),
                })
                .collect(),
        });
        let accounts = proved.collect();
        StateProof {
            finality: self.finality(header(self.proof_height, state_root, B256::ZERO), 0),
            accounts,
        }
    }

    /// A certificate of all but one validator over the block `above` blocks above this header.
    pub fn finality(&self, header: Header, above: u64) -> Finality {
        let rlp: Bytes = alloy_rlp::encode(&header).into();
        let (mut parent, mut hash) = (B256::repeat_byte(1), keccak(&rlp));
        let envelopes: Vec<Bytes> = (0..=above)
            .map(|i| {
                let height = (header.number + i).to_be_bytes();
                let body = B256::with_last_byte(i as u8);
                let envelope: Bytes = [parent.as_slice(), &height, hash.as_slice(), body.as_slice()]
                    .concat()
                    .into();
                (parent, hash) = (sha256(&envelope), keccak(&envelope));
                envelope
            })
            .collect();
        let signers: Vec<usize> = (1..self.schemes.len()).collect();
        // Views from 128 on take two bytes.
        let (proposal, certificate) = finalize_in(self.epoch, &self.schemes, &signers, 200, parent);
        Finality {
            header: rlp,
            envelopes,
            proposal,
            certificate,
        }
    }
}

pub const SALT: B256 = B256::repeat_byte(5);
pub const BODY: &[u8] = br#"{"model":"demo/digits-mlp"}"#;
pub const ANSWER: &[u8] = br#"{"label":[7]}"#;

pub fn ask() -> Price {
    Price {
        per_call: Amount(WEI_PER_OPG / 1_000),
        ..Price::default()
    }
}

/// An Osaka header.
pub fn header(number: u64, state_root: B256, batch_root: B256) -> Header {
    Header {
        number,
        state_root,
        timestamp: START + number,
        gas_limit: 120_000_000,
        base_fee_per_gas: Some(7),
        withdrawals_root: Some(alloy_trie::EMPTY_ROOT_HASH),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(batch_root),
        requests_hash: Some(sha256(b"")),
        ..Header::default()
    }
}

/// Root of a trie and the nodes on the way to some keys.
fn trie(mut leaves: Vec<(B256, Vec<u8>)>, targets: Vec<B256>) -> (B256, ProofNodes) {
    leaves.sort();
    let targets = targets.into_iter().map(Nibbles::unpack).collect();
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(targets));
    for (key, value) in leaves {
        builder.add_leaf(Nibbles::unpack(key), &value);
    }
    (builder.root(), builder.take_proof_nodes())
}

fn path(nodes: &ProofNodes, key: B256) -> Vec<Bytes> {
    let nodes = nodes.matching_nodes_sorted(&Nibbles::unpack(key));
    nodes.into_iter().map(|(_, node)| node).collect()
}
