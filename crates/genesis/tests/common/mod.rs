//! A small network for tests: four validators, two nodes, two models, payers with known keys.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part of it

pub mod staking;
pub mod x402;

use alloy_genesis::Genesis;
use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256, b256, keccak256};
use alloy_sol_types::{Eip712Domain, SolError, SolStruct, SolValue, eip712_domain, sol};
use opg_contracts::{
    AccountAllocation, AskRegistration, FeeVault, GenesisFile, ModelRegistration, ModelRegistry, NodeRegistration, OPG,
    Parameters, PaymentMethod, ReceiptLedger, ValidatorEntry, Windows, addresses,
    genesis_file::SUPPLY,
    state,
    system_tx::{self, BatchEntry, Group},
};
use opg_genesis::evm::{CallError, Evm, Executed};
use opg_primitives::{
    ids::{self, NodeId},
    money::{Amount, Price, WEI_PER_OPG},
};
use secp256k1::{Message, SECP256K1, SecretKey};
use std::sync::OnceLock;

pub const CHAIN_ID: u64 = 10_740;
pub const START: u64 = 1_790_000_000;
pub const MODEL: B256 = b256!("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
pub const OTHER_MODEL: B256 = b256!("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
pub const ROYALTY: u16 = 1_000;
/// A payment and a charge that divide into no round shares.
pub const AMOUNT: u128 = 1_000_003;
pub const CHARGE: u128 = 777_777;

/// A secret key made from a label.
pub fn key(label: &str) -> SecretKey {
    SecretKey::from_slice(keccak256(label).as_slice()).unwrap()
}

pub fn address_of(key: &SecretKey) -> Address {
    let public = key.public_key(SECP256K1).serialize_uncompressed();
    Address::from_slice(&keccak256(&public[1..])[12..])
}

/// The account of a label.
pub fn who(label: &str) -> Address {
    use std::{cell::RefCell, collections::HashMap};
    thread_local! {
        // Long runs name the same accounts a million times.
        static KNOWN: RefCell<HashMap<String, Address>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| match known.get(label) {
        Some(address) => *address,
        None => *known.entry(label.to_owned()).or_insert(address_of(&key(label))),
    })
}

pub fn sign(key: &SecretKey, digest: B256) -> [u8; 65] {
    let signature = SECP256K1.sign_ecdsa_recoverable(&Message::from_digest(digest.0), key);
    let (id, compact) = signature.serialize_compact();
    let mut bytes = [0u8; 65];
    bytes[..64].copy_from_slice(&compact);
    bytes[64] = 27 + u8::try_from(i32::from(id)).unwrap();
    bytes
}

pub fn price() -> Price {
    Price {
        per_call: Amount(1_000),
        per_mtok_in: Amount(4_000_000),
        per_mtok_out: Amount(0),
    }
}

/// The network's genesis file.
pub fn file() -> GenesisFile {
    let validators: Vec<_> = (0..4u8)
        .map(|i| ValidatorEntry {
            name: format!("validator-{i}"),
            identity: B256::repeat_byte(0x10 + i),
            bls: FixedBytes::repeat_byte(0x20 + i),
            bls_possession: FixedBytes::repeat_byte(0x30 + i),
            system: who(&format!("system-{i}")),
            operator: who(&format!("operator-{i}")),
        })
        .collect();
    let bond = Amount(1_000 * WEI_PER_OPG);
    let nodes: Vec<_> = (0..2u8)
        .map(|i| NodeRegistration {
            operator: who(&format!("node-{i}")),
            salt: B256::repeat_byte(i + 1),
            endpoint: format!("http://127.0.0.1:{}", 8610 + u16::from(i)),
            receipt_key: B256::repeat_byte(0x40 + i),
            settlement_key: who(&format!("settlement-{i}")),
            hpke_key: B256::ZERO,
            bond,
        })
        .collect();
    let models: Vec<_> = [(MODEL, "demo/digits", ROYALTY), (OTHER_MODEL, "demo/llama", 0)]
        .into_iter()
        .map(|(root, name, royalty_bps)| ModelRegistration {
            name: name.into(),
            root,
            creator: who("creator"),
            uri: String::new(),
            royalty_bps,
            price: price(),
            programs: vec![],
        })
        .collect();
    let asks = nodes
        .iter()
        .flat_map(|node| {
            models.iter().map(|m| AskRegistration {
                node_id: node.node_id(),
                root: m.root,
                price: price(),
            })
        })
        .collect();
    let mut allocations = Vec::new();
    let mut add = |label: &str, native: u128, wrapped: u128| {
        allocations.push(AccountAllocation {
            label: label.into(),
            address: who(label),
            native: Amount(native * WEI_PER_OPG),
            wrapped: Amount(wrapped * WEI_PER_OPG),
        });
    };
    for i in 0..4 {
        add(&format!("system-{i}"), 1_000, 0);
    }
    for i in 0..2 {
        add(&format!("node-{i}"), 10, 2_000);
    }
    for payer in ["alice", "bob", "carol"] {
        add(payer, 1_000, 100_000);
    }
    let used: u128 = allocations.iter().map(|a| a.native.0 + a.wrapped.0).sum();
    allocations.push(AccountAllocation {
        label: "ecosystem".into(),
        address: who("ecosystem"),
        native: Amount::ZERO,
        wrapped: Amount(SUPPLY - used),
    });
    GenesisFile {
        version: 1,
        vesting: vec![],
        airdrop: None,
        evidence: None,
        chain_id: CHAIN_ID,
        development: true,
        timestamp: START,
        validators,
        parameters: Parameters {
            unbonding: 1_000,
            windows: Windows {
                none: 600,
                tee: 600,
                zk: 0,
                replay: 700,
            },
            ..Parameters::development(who("treasury"))
        },
        allocations,
        nodes,
        models,
        asks,
    }
}

sol!(
    #[derive(Debug)]
    TestWallet,
    "../../contracts/artifacts/TestWallet.json"
);
sol!(
    #[derive(Debug)]
    TestGasBurner,
    "../../contracts/artifacts/TestGasBurner.json"
);
sol!(
    #[derive(Debug)]
    TestReentrant,
    "../../contracts/artifacts/TestReentrant.json"
);
sol!(
    #[derive(Debug)]
    TestRefuser,
    "../../contracts/artifacts/TestRefuser.json"
);
sol!(
    #[derive(Debug)]
    TestForwarder,
    "../../contracts/artifacts/TestForwarder.json"
);

sol! {
    struct TransferWithAuthorization {
        address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce;
    }
    struct ReceiveWithAuthorization {
        address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce;
    }
    struct CancelAuthorization { address authorizer; bytes32 nonce; }
    struct Permit { address owner; address spender; uint256 value; uint256 nonce; uint256 deadline; }
}

pub fn domain() -> Eip712Domain {
    eip712_domain! {
        name: "OpenGradient",
        version: "1",
        chain_id: CHAIN_ID,
        verifying_contract: addresses::OPG,
    }
}

/// A signed payment.
#[derive(Debug, Clone)]
pub struct Payment {
    pub payer: String,
    pub to: Address,
    pub value: u128,
    pub nonce: B256,
    pub signature: Bytes,
}

impl Payment {
    pub fn new(payer: &str, to: Address, value: u128, nonce: B256) -> Self {
        let message = TransferWithAuthorization {
            from: who(payer),
            to,
            value: U256::from(value),
            validAfter: U256::ZERO,
            validBefore: U256::MAX,
            nonce,
        };
        let signature = sign(&key(payer), message.eip712_signing_hash(&domain()))
            .to_vec()
            .into();
        Self {
            payer: payer.into(),
            to,
            value,
            nonce,
            signature,
        }
    }

    pub fn call(&self) -> OPG::transferWithAuthorization_0Call {
        OPG::transferWithAuthorization_0Call {
            from: who(&self.payer),
            to: self.to,
            value: U256::from(self.value),
            validAfter: U256::ZERO,
            validBefore: U256::MAX,
            nonce: self.nonce,
            signature: self.signature.clone(),
        }
    }

    /// The same for the vault to settle, as a payment to `node`.
    pub fn for_vault(&self, node: B256) -> FeeVault::Authorization {
        FeeVault::Authorization {
            from: who(&self.payer),
            nodeId: node,
            value: U256::from(self.value),
            validAfter: U256::ZERO,
            validBefore: U256::MAX,
            nonce: self.nonce,
            signature: self.signature.clone(),
        }
    }
}

/// The network with its genesis state, in the block after genesis.
pub struct Net {
    pub evm: Evm,
    pub nodes: Vec<B256>,
    pub keysets: Vec<B256>,
    pub height: u64,
    /// Who sends system transactions.
    pub proposer: Address,
    block: u64,
}

impl Net {
    pub fn new() -> Self {
        static GENESIS: OnceLock<Genesis> = OnceLock::new();
        let file = file();
        Self::with(&file, GENESIS.get_or_init(|| opg_genesis::build(&file).unwrap()))
    }

    /// The network of another genesis file.
    pub fn of(file: &GenesisFile) -> Self {
        Self::with(file, &opg_genesis::build(file).unwrap())
    }

    pub fn with(file: &GenesisFile, genesis: &Genesis) -> Self {
        let mut evm = Evm::with_genesis(genesis);
        evm.set_coinbase(who("system-0"));
        let nodes: Vec<_> = file.nodes.iter().map(NodeRegistration::node_id).collect();
        let keysets = file
            .nodes
            .iter()
            .map(|node| {
                ids::keyset_digest(&ids::Keyset {
                    node_id: NodeId(node.node_id()),
                    receipt_key: node.receipt_key,
                    settlement_key: node.settlement_key,
                    hpke_key: B256::ZERO,
                    tls_spki: B256::ZERO,
                })
                .0
            })
            .collect();
        Self {
            evm,
            nodes,
            keysets,
            height: 0,
            proposer: who("system-0"),
            block: 1,
        }
    }

    pub fn deposit(&self, node: usize) -> Address {
        deposit_address(self.nodes[node])
    }

    pub fn entry(&self, node: usize, seq: u64, payer: &str, nonce: B256, amount: u128, charge: u128) -> BatchEntry {
        BatchEntry {
            node_id: self.nodes[node],
            keyset: self.keysets[node],
            model_root: MODEL,
            royalty_bps: ROYALTY,
            mode: 0,
            router: None,
            seq,
            method: PaymentMethod::Erc3009,
            payer: who(payer),
            nonce,
            amount,
            charge,
        }
    }

    /// Alice pays node 0, and its receipt number `seq` is recorded.
    pub fn paid_and_recorded(&mut self, seq: u64, amount: u128, charge: u128) -> BatchEntry {
        let to = self.deposit(0);
        self.settle(&Payment::new("alice", to, amount, nonce(seq))).unwrap();
        let entry = self.entry(0, seq, "alice", nonce(seq), amount, charge);
        self.record(&[entry]).unwrap();
        entry
    }

    /// The creator asks for this royalty, and for no price of its own, from now on.
    pub fn set_royalty(&mut self, model: B256, royalty_bps: u16) {
        let terms = ModelRegistry::setTermsCall {
            modelRoot: model,
            royaltyBps: royalty_bps,
            price: ModelRegistry::Price {
                perCall: 0,
                perMtokIn: 0,
                perMtokOut: 0,
            },
        };
        self.evm.call(who("creator"), addresses::MODEL_REGISTRY, terms).unwrap();
    }

    /// Moves to the next block at the same time.
    pub fn next_block(&mut self) {
        self.block += 1;
        self.evm.set_number(self.block);
    }

    /// Moves to the next block, `seconds` later.
    pub fn tick(&mut self, seconds: u64) {
        let now = self.evm.timestamp();
        self.evm.set_timestamp(now + seconds);
    }

    /// Records a batch as the proposer would.
    pub fn record(&mut self, entries: &[BatchEntry]) -> Result<Vec<Executed>, CallError> {
        self.height += 1;
        let count = u32::try_from(entries.len()).unwrap();
        let chunks = system_tx::chunks(entries);
        chunks
            .into_iter()
            .enumerate()
            .map(|(i, groups)| self.record_chunk(count, u32::try_from(i).unwrap(), groups))
            .collect()
    }

    fn record_chunk(&mut self, count: u32, chunk: u32, groups: Vec<Group>) -> Result<Executed, CallError> {
        let data = system_tx::calldata(self.height, root(self.height), count, chunk, groups);
        self.evm.send_with_gas(
            self.proposer,
            addresses::RECEIPT_LEDGER,
            U256::ZERO,
            data,
            system_tx::GAS_LIMIT,
        )
    }

    /// Puts a contract at an address.
    pub fn deploy(&mut self, label: &str, bytecode: &Bytes, arguments: impl SolValue) -> Address {
        let at = who(label);
        self.evm
            .construct(at, [bytecode.as_ref(), &arguments.abi_encode()].concat().into())
            .unwrap();
        at
    }

    pub fn opg(&mut self, account: Address) -> u128 {
        self.evm
            .view(addresses::OPG, OPG::balanceOfCall { account })
            .unwrap()
            .to()
    }

    pub fn credited(&mut self, payee: Address, node: usize) -> u128 {
        let call = FeeVault::creditedCall {
            payee,
            nodeId: self.nodes[node],
        };
        self.evm.view(addresses::FEE_VAULT, call).unwrap().to()
    }

    pub fn withdrawable(&mut self, payee: Address, node: usize) -> u128 {
        let call = FeeVault::withdrawableCall {
            payee,
            nodeId: self.nodes[node],
        };
        self.evm.view(addresses::FEE_VAULT, call).unwrap().to()
    }

    pub fn withdraw(&mut self, payee: Address, node: usize, max: u64) -> Result<u128, CallError> {
        let call = FeeVault::withdrawCall {
            payee,
            nodeId: self.nodes[node],
            max: U256::from(max),
        };
        self.evm
            .call(who("anyone"), addresses::FEE_VAULT, call)
            .map(|amount| amount.to())
    }

    pub fn credit_settled(&mut self, entries: Vec<ReceiptLedger::PendingEntry>) -> u64 {
        let call = ReceiptLedger::creditSettledCall { entries };
        self.evm
            .call(who("anyone"), addresses::RECEIPT_LEDGER, call)
            .unwrap()
            .to()
    }

    /// Asserts the invariants of ledger.md §8 for the given holders and payees.
    #[track_caller]
    pub fn assert_conserved(&mut self, holders: &[Address]) {
        let supply = self.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
        assert!(supply <= self.evm.balance(addresses::OPG), "wrapped OPG is backed");
        let mut contracts = vec![addresses::FEE_VAULT, addresses::NODE_REGISTRY, addresses::INSURANCE];
        contracts.extend(self.nodes.iter().map(|node| deposit_address(*node)));
        let sum: u128 = holders.iter().chain(&contracts).map(|holder| self.opg(*holder)).sum();
        assert_eq!(U256::from(sum), supply, "all balances are known");
        for node in 0..self.nodes.len() {
            let id = self.nodes[node];
            let credits: u128 = holders
                .iter()
                .chain(&[addresses::INSURANCE])
                .map(|h| self.credited(*h, node))
                .sum();
            let outstanding = state::vault_outstanding(&self.evm, id).unwrap().0;
            let held = state::vault_balance(&self.evm, id).unwrap().0 + self.opg(deposit_address(id));
            assert_eq!(credits, outstanding, "credits of node {node}");
            assert!(outstanding <= held, "node {node} owes {outstanding} and holds {held}");
        }
    }

    pub fn settle(&mut self, payment: &Payment) -> Result<(), CallError> {
        self.evm
            .call(who("relayer"), addresses::OPG, payment.call())
            .map(|_| ())
    }
}

pub fn root(height: u64) -> B256 {
    keccak256(height.to_be_bytes())
}

pub fn deposit_address(node: B256) -> Address {
    ids::deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, NodeId(node))
}

pub fn nonce(i: u64) -> B256 {
    keccak256(i.to_le_bytes())
}

/// Asserts that a call reverted with the error `E`.
#[track_caller]
pub fn assert_reverts<E: SolError, T: std::fmt::Debug>(result: Result<T, CallError>) {
    match result {
        Err(CallError::Revert(data)) if data.get(..4) == Some(&E::SELECTOR) => {}
        other => panic!("expected a revert with {}, got {other:?}", E::SIGNATURE),
    }
}

pub fn pending(entry: &BatchEntry, release_at: u64) -> ReceiptLedger::PendingEntry {
    ReceiptLedger::PendingEntry {
        nodeId: entry.node_id,
        modelRoot: entry.model_root,
        creator: who("creator"),
        royaltyBps: entry.royalty_bps,
        mode: entry.mode,
        router: entry.router.unwrap_or_default(),
        payer: entry.payer,
        nonce: entry.nonce,
        amount: entry.amount,
        charge: entry.charge,
        releaseAt: release_at,
        method: entry.method.code(),
    }
}

/// A figure of `cargo xtask bench contracts`: written to a file of its own in the folder that `OPG_BENCH_FIGURES` names, if it names one.
/// Whether a bar is met is written beside it; which bars must be is for the test to say.
pub fn figure(name: &str, gas: u64, bar: Option<u64>) {
    println!("{name}: {gas} gas");
    let Some(folder) = std::env::var_os("OPG_BENCH_FIGURES") else {
        return;
    };
    let bars = bar.map(|bar| serde_json::json!([{ "bar": format!("<= {bar} gas"), "met": gas <= bar }]));
    let mut figure = serde_json::json!({ "name": name, "unit": "gas", "samples": 1, "p50": gas });
    if let Some(bars) = bars {
        figure["bars"] = bars;
    }
    let file = format!("{:x}.json", keccak256(name));
    std::fs::write(std::path::Path::new(&folder).join(file), figure.to_string()).expect("figure");
}
