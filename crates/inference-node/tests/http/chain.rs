//! A full node as far as an inference node sees it: storage slots, transactions, receipts. Checks what it is given.

use alloy::{
    consensus::{Transaction, TxEnvelope},
    eips::eip2718::Decodable2718,
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use axum::{Json, Router, extract::State, routing::post};
use opg_artefact::ZkArtefact;
use opg_contracts::{
    addresses,
    bindings::{FeatureTiers, FeeVault, NodeRegistry, ReceiptLedger},
    slots,
    state::settlement_hash,
    system_tx::pending_word,
};
use opg_payments::eip3009::{Authorization, Domain};
use opg_primitives::{
    ids::{NodeId, deposit_address, payment_id},
    mode::Mode,
    money::{Amount, Price},
};
use opg_receipt::SignedReceipt;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

pub(crate) const CHAIN_ID: u64 = 10_740;
pub(crate) const RELEASE_AT: u64 = 1_900_000_000;
pub(crate) const CREATOR: Address = Address::repeat_byte(0xc1);

#[derive(Default)]
pub(crate) struct Chain {
    slots: HashMap<(Address, U256), U256>,
    pub(crate) height: u64,
    pub(crate) nonces: HashMap<Address, u64>,
    /// Transaction → (block, succeeded).
    mined: HashMap<B256, (u64, bool)>,
    mempool: BTreeMap<B256, Vec<u8>>,
    /// Receipt id → (height, receipt).
    pub(crate) receipts: HashMap<B256, (u64, SignedReceipt)>,
    logs: Vec<(u64, Vec<B256>, Bytes)>,
    pub(crate) settle_calls: usize,
    pub(crate) credited: Vec<B256>,
    pub(crate) calls: HashMap<String, usize>,
    /// Transactions are taken but never mined.
    pub(crate) stuck: bool,
    /// Accounts with code, and whether they accept every signature.
    pub(crate) contracts: HashMap<Address, bool>,
    /// Every request fails.
    pub(crate) down: bool,
    /// Requests a minute and bytes of a request, in the tier of everybody.
    pub(crate) tier: (u32, u32),
    /// `og_submitReceipt` refuses with this rule.
    pub(crate) refuse: Option<(&'static str, bool)>,
}

#[derive(Clone)]
pub(crate) struct FakeChain {
    pub(crate) state: Arc<Mutex<Chain>>,
    pub(crate) url: String,
}

impl FakeChain {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(Chain {
            height: 1,
            ..Chain::default()
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/", post(serve)).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let blocks = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                blocks.lock().unwrap().mine();
            }
        });
        Self { state, url }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Chain> {
        self.state.lock().unwrap()
    }

    pub(crate) fn calls(&self, method: &str) -> usize {
        self.lock().calls.get(method).copied().unwrap_or(0)
    }
}

fn pack(parts: &[(U256, usize)]) -> U256 {
    parts
        .iter()
        .fold(U256::ZERO, |word, (value, shift)| word | (*value << *shift))
}

impl Chain {
    /// Views of the contracts that the node asks besides storage.
    fn view(&self, call: &Value) -> Option<Value> {
        let data: Bytes = call["data"].as_str()?.parse().ok()?;
        let selector = data.get(..4)?;
        let words: Vec<U256> = if selector == NodeRegistry::minBondCall::SELECTOR {
            vec![U256::ZERO]
        } else if selector == FeatureTiers::tierOfCall::SELECTOR {
            let (rate, bytes) = self.tier;
            // number of the tier; threshold, discount, rate, size; weight
            [0, 0, 0, rate, bytes, 0].map(U256::from).to_vec()
        } else {
            return None;
        };
        let bytes: Vec<u8> = words.iter().flat_map(U256::to_be_bytes::<32>).collect();
        Some(json!(Bytes::from(bytes)))
    }

    pub(crate) fn set(&mut self, address: Address, slot: U256, value: U256) {
        self.slots.insert((address, slot), value);
    }

    pub(crate) fn get(&self, address: Address, slot: U256) -> U256 {
        self.slots.get(&(address, slot)).copied().unwrap_or_default()
    }

    pub(crate) fn register_node(&mut self, node: NodeId, operator: Address, keyset: &opg_primitives::ids::Keyset) {
        let word = |a: Address| U256::from_be_bytes(a.into_word().0);
        let at = (U256::from(1), 160);
        let base = slots::node_base(node.0);
        self.set(addresses::NODE_REGISTRY, base, pack(&[(word(operator), 0), at]));
        let bond = U256::from(1_000 * opg_primitives::money::WEI_PER_OPG);
        self.set(addresses::NODE_REGISTRY, base + U256::from(1), bond);
        let base = slots::keyset_base(keyset.digest().0);
        self.set(addresses::NODE_REGISTRY, base, node.0.into());
        self.set(
            addresses::NODE_REGISTRY,
            base + U256::from(1),
            keyset.receipt_key.into(),
        );
        self.set(
            addresses::NODE_REGISTRY,
            base + U256::from(2),
            pack(&[(word(keyset.settlement_key), 0), at]),
        );
    }

    pub(crate) fn register_model(&mut self, node: NodeId, root: B256, price: Price, royalty_bps: u16) {
        let creator = U256::from_be_bytes(CREATOR.into_word().0);
        let model = pack(&[(creator, 0), (U256::from(royalty_bps), 160)]);
        self.set(addresses::MODEL_REGISTRY, slots::model_base(root), model);
        for (address, base) in [
            (addresses::MODEL_REGISTRY, slots::model_base(root) + U256::from(1)),
            (addresses::NODE_REGISTRY, slots::ask_base(node.0, root)),
        ] {
            let first = pack(&[
                (U256::from(price.per_call.wei()), 0),
                (U256::from(price.per_mtok_in.wei()), 128),
            ]);
            self.set(address, base, first);
            self.set(address, base + U256::from(1), U256::from(price.per_mtok_out.wei()));
        }
    }

    pub(crate) fn set_balance(&mut self, account: Address, amount: Amount) {
        self.set(addresses::OPG, slots::opg_balance(account), amount.to_u256());
    }

    pub(crate) fn balance(&self, account: Address) -> Amount {
        Amount(u128::try_from(self.get(addresses::OPG, slots::opg_balance(account))).unwrap())
    }

    pub(crate) fn is_settled(&self, payer: Address, nonce: B256) -> bool {
        !self.get(addresses::OPG, slots::opg_settlement(payer, nonce)).is_zero()
    }

    fn mine(&mut self) {
        if self.down || self.stuck {
            return;
        }
        self.height += 1;
        for (hash, raw) in std::mem::take(&mut self.mempool) {
            let transaction = TxEnvelope::decode_2718(&mut raw.as_slice()).unwrap();
            let signature = transaction.signature().as_bytes();
            let sender = opg_payments::signature::recover(transaction.signature_hash(), &signature).unwrap();
            *self.nonces.entry(sender).or_default() += 1;
            let input = transaction.input().clone();
            let done = match transaction.to() {
                Some(addresses::FEE_VAULT) => self.settle(&input),
                Some(addresses::RECEIPT_LEDGER) => self.credit(&input),
                other => panic!("transaction to {other:?}"),
            };
            assert!(transaction.gas_limit() <= 16_777_216, "EIP-7825");
            self.mined.insert(hash, (self.height, done));
        }
    }

    fn settle(&mut self, input: &[u8]) -> bool {
        self.settle_calls += 1;
        for a in FeeVault::settleCall::abi_decode(input).unwrap().authorizations {
            let to = deposit_address(
                addresses::FEE_VAULT,
                addresses::DEPOSIT_IMPLEMENTATION,
                NodeId(a.nodeId),
            );
            let authorization = Authorization {
                from: a.from,
                to,
                value: a.value,
                valid_after: a.validAfter.to(),
                valid_before: a.validBefore.to(),
                nonce: a.nonce,
            };
            let slot = slots::opg_settlement(a.from, a.nonce);
            let amount = Amount(u128::try_from(a.value).unwrap());
            let ok = authorization
                .verify(&Domain::opg(CHAIN_ID, addresses::OPG), &a.signature)
                .is_ok()
                || self.contracts.get(&a.from) == Some(&true);
            if ok && self.get(addresses::OPG, slot).is_zero() && self.balance(a.from) >= amount {
                self.set(addresses::OPG, slot, settlement_hash(to, amount.wei()).into());
                let (from, vault) = (self.balance(a.from), self.balance(to));
                self.set_balance(a.from, from.saturating_sub(amount));
                self.set_balance(to, vault.saturating_add(amount));
            }
        }
        true
    }

    fn credit(&mut self, input: &[u8]) -> bool {
        for entry in ReceiptLedger::creditSettledCall::abi_decode(input).unwrap().entries {
            let id = payment_id(entry.payer, entry.nonce).0;
            let word = pending_word(keccak256(entry.abi_encode()));
            if self.get(addresses::RECEIPT_LEDGER, slots::spent(id)) == U256::from_be_bytes(word.0)
                && self.is_settled(entry.payer, entry.nonce)
            {
                self.set(addresses::RECEIPT_LEDGER, slots::spent(id), U256::from(1));
                self.credited.push(id);
            }
        }
        true
    }

    /// The proof of a receipt of mode zk, as a full node verifies it.
    fn check_proof(&self, receipt: &SignedReceipt, artefact: &Value) -> Result<(), Value> {
        let refuse = |message: String| json!({"code": -32010, "message": message, "data": {"mayPassLater": false}});
        let core = receipt.core();
        if core.mode.served == Mode::None {
            assert!(artefact.is_null());
            return Ok(());
        }
        let artefact: Bytes = artefact.as_str().expect("a proof").parse().unwrap();
        let artefact = ZkArtefact::decode(&artefact).map_err(|e| refuse(e.to_string()))?;
        let slot = slots::model_program(core.model.served_root.0, artefact.program());
        assert!(!self.get(addresses::MODEL_REGISTRY, slot).is_zero());
        artefact.verify(core).map_err(|e| refuse(e.to_string()))
    }

    /// Records a receipt in the next block, as a system transaction would.
    fn record(&mut self, receipt: SignedReceipt) -> Result<Value, Value> {
        let refuse = |rule: &str, later: bool| json!({"code": -32010, "message": rule, "data": {"rule": rule, "mayPassLater": later}});
        if let Some((rule, later)) = self.refuse {
            return Err(refuse(rule, later));
        }
        let core = receipt.core();
        core.check_consistency().map_err(|e| refuse(&e.to_string(), false))?;
        let key = self.get(
            addresses::NODE_REGISTRY,
            slots::keyset_base(core.keyset.0) + U256::from(1),
        );
        receipt
            .verify_signature(&key.to_be_bytes())
            .map_err(|e| refuse(&e.to_string(), false))?;
        let id = core.receipt_id.0;
        if let Some((height, _)) = self.receipts.get(&id) {
            return Ok(json!({"receiptId": id, "state": "final", "known": true, "height": height}));
        }
        if self.receipts.values().any(|(_, r)| r.core().seq == core.seq) {
            return Err(refuse("seq_used", false));
        }
        let payment = payment_id(core.payment.payer, core.payment.nonce).0;
        let settled = self.is_settled(core.payment.payer, core.payment.nonce);
        let entry = ReceiptLedger::PendingEntry {
            nodeId: core.node_id.0,
            modelRoot: core.model.served_root.0,
            creator: CREATOR,
            royaltyBps: core.price.royalty_bps,
            mode: core.mode.served.code(),
            router: Address::ZERO,
            payer: core.payment.payer,
            nonce: core.payment.nonce,
            amount: core.payment.amount.wei(),
            charge: core.price.charge.wei(),
            releaseAt: RELEASE_AT,
            method: opg_contracts::PaymentMethod::Erc3009.code(),
        };
        let word = if settled {
            U256::from(1)
        } else {
            pending_word(keccak256(entry.abi_encode())).into()
        };
        self.set(addresses::RECEIPT_LEDGER, slots::spent(payment), word);
        let height = self.height + 1;
        if settled {
            self.credited.push(payment);
        } else {
            let event = ReceiptLedger::PaymentsPending {
                nodeId: core.node_id.0,
                modelRoot: core.model.served_root.0,
                creator: CREATOR,
                mode: core.mode.served.code(),
                releaseAt: RELEASE_AT,
                count: U256::from(1),
            };
            let log = event.encode_log_data();
            self.logs.push((height, log.topics().to_vec(), log.data));
        }
        self.receipts.insert(id, (height, receipt));
        Ok(json!({"receiptId": id, "state": "checked", "known": false}))
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        let address = |v: &Value| v.as_str().unwrap().parse::<Address>().unwrap();
        let hash = |v: &Value| v.as_str().unwrap().parse::<B256>().unwrap();
        let number = |n: u64| json!(format!("0x{n:x}"));
        Ok(match method {
            "eth_chainId" => number(CHAIN_ID),
            "eth_blockNumber" => number(self.height),
            "eth_getStorageAt" => {
                let slot: U256 = params[1].as_str().unwrap().parse().unwrap();
                json!(B256::from(self.get(address(&params[0]), slot)))
            }
            "eth_getCode" => json!(if self.contracts.contains_key(&address(&params[0])) {
                "0x6000"
            } else {
                "0x"
            }),
            "eth_call" => {
                if let Some(answer) = self.view(&params[0]) {
                    return Ok(answer);
                }
                // `transferWithAuthorization(address from, …)`, the simulation of a contract wallet's payment.
                let data: Bytes = params[0]["data"].as_str().unwrap().parse().unwrap();
                if self.contracts.get(&Address::from_slice(&data[16..36])) != Some(&true) {
                    return Err(json!({"code": 3, "message": "execution reverted"}));
                }
                json!("0x")
            }
            "eth_getTransactionCount" => number(self.nonces.get(&address(&params[0])).copied().unwrap_or(0)),
            "eth_getBlockByNumber" => json!({"baseFeePerGas": "0x7"}),
            "eth_getTransactionReceipt" => match self.mined.get(&hash(&params[0])) {
                Some((height, ok)) => {
                    json!({"blockNumber": format!("0x{height:x}"), "status": if *ok { "0x1" } else { "0x0" }})
                }
                None => Value::Null,
            },
            "eth_getTransactionByHash" => match self.mempool.get(&hash(&params[0])) {
                Some(_) => json!({"blockNumber": null}),
                None => Value::Null,
            },
            "eth_sendRawTransaction" => {
                let raw: Bytes = params[0].as_str().unwrap().parse().unwrap();
                let id = keccak256(&raw);
                self.mempool.insert(id, raw.to_vec());
                json!(id)
            }
            "eth_getLogs" => {
                let filter = &params[0];
                assert_eq!(filter["fromBlock"], filter["toBlock"]);
                let topics: Vec<B256> = filter["topics"].as_array().unwrap().iter().map(hash).collect();
                let at = |h: &u64| filter["fromBlock"] == format!("0x{h:x}");
                let found = self.logs.iter().filter(|(h, t, _)| at(h) && *t == topics);
                found.map(|(_, _, data)| json!({ "data": data })).collect()
            }
            "og_submitReceipt" => {
                let bytes: Bytes = params[0].as_str().unwrap().parse().unwrap();
                let receipt =
                    SignedReceipt::decode(&bytes).map_err(|e| json!({"code": -32010, "message": e.to_string()}))?;
                self.check_proof(&receipt, &params[1])?;
                return self.record(receipt);
            }
            "og_getReceipt" => match self.receipts.get(&hash(&params[0])) {
                Some((height, _)) if *height <= self.height => json!({"state": "final", "height": height}),
                Some(_) => json!({"state": "checked"}),
                None => Value::Null,
            },
            "og_getInclusionProof" => match self.receipts.get(&hash(&params[0])) {
                Some((height, _)) if *height <= self.height => json!({"height": height, "index": 0}),
                _ => Value::Null,
            },
            other => return Err(json!({"code": -32601, "message": format!("no method {other}")})),
        })
    }
}

async fn serve(State(chain): State<Arc<Mutex<Chain>>>, Json(request): Json<Value>) -> axum::response::Response {
    use axum::response::IntoResponse;
    let mut chain = chain.lock().unwrap();
    if chain.down {
        return axum::http::StatusCode::BAD_GATEWAY.into_response();
    }
    let method = request["method"].as_str().unwrap().to_owned();
    *chain.calls.entry(method.clone()).or_default() += 1;
    let mut answer = json!({"jsonrpc": "2.0", "id": request["id"]});
    match chain.call(&method, &request["params"]) {
        Ok(result) => answer["result"] = result,
        Err(error) => answer["error"] = error,
    }
    Json(answer).into_response()
}
