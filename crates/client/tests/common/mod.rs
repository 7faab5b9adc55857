//! A small node and full node in one: it quotes, takes payments and signs receipts, honestly or not.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use alloy_primitives::{Address, B256, Bytes, U256, aliases::U40};
use alloy_sol_types::SolCall;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::SigningKey;
use opg_client::{Contracts, Network, NetworkFile, NodeEntry};
use opg_contracts::{GenesisFile, ModelRegistration, ModelRegistry, NodeRegistry, Parameters, addresses};
use opg_payments::x402::{self, PaymentPayload, PaymentRequired, PaymentRequirements, Resource};
use opg_primitives::{
    ids::{Keyset, ModelRoot, NodeId},
    mode::{Grade, Mode},
    money::{Amount, Price, Usage, charge},
};
use opg_receipt::{
    Core, LeafKind, PaymentMethod, PaymentRecord, PaymentScheme, Quote, QuoteRef, RequestCommitments, SignedQuote,
    SignedReceipt, UsageUnit, commit, quote::request_digest, receipt_id,
};
use opg_samples::Sale;
use serde_json::{Value, json};

pub(crate) const CHAIN: u64 = 10_740;
pub(crate) const MODEL: &str = "demo/digits-mlp";
pub(crate) const NODE: NodeId = NodeId(B256::repeat_byte(0x11));
pub(crate) const ROOT: ModelRoot = ModelRoot(B256::repeat_byte(0x22));
const SALT: B256 = B256::repeat_byte(0x55);

/// What a hostile node changes before it signs or sends.
#[derive(Default)]
pub(crate) struct Tricks {
    pub(crate) quote: Option<fn(&mut Quote)>,
    pub(crate) offer: Option<fn(&mut PaymentRequirements)>,
    pub(crate) whole: Option<fn(&mut PaymentRequired)>,
    pub(crate) core: Option<fn(&mut Core)>,
    pub(crate) answer: Option<fn(&mut Value)>,
    pub(crate) quote_key: Option<SigningKey>,
    pub(crate) receipt_key: Option<SigningKey>,
    pub(crate) revoked: bool,
    pub(crate) unregistered: bool,
    pub(crate) refuse: Option<(u16, Value)>,
    pub(crate) redirect: bool,
}

pub(crate) struct Node {
    pub(crate) tricks: Tricks,
    /// Requests that carried a payment.
    pub(crate) paid: AtomicUsize,
    pub(crate) last_payment: Mutex<Option<PaymentPayload>>,
    quotes: Mutex<Vec<SignedQuote>>,
}

fn node_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn ask() -> Price {
    Price {
        per_call: Amount(1_000_000_000_000_000),
        per_mtok_in: Amount(0),
        per_mtok_out: Amount(0),
    }
}

pub(crate) fn keyset() -> Keyset {
    Keyset {
        node_id: NODE,
        receipt_key: B256::from(node_key().verifying_key().to_bytes()),
        settlement_key: Address::repeat_byte(0x33),
        hpke_key: B256::ZERO,
        tls_spki: B256::ZERO,
    }
}

pub(crate) fn payee() -> Address {
    opg_samples::payee(NODE)
}

/// Starts the node and gives a network that names it.
pub(crate) async fn start(tricks: Tricks) -> (Arc<Node>, Network) {
    let node = Arc::new(Node {
        tricks,
        paid: AtomicUsize::new(0),
        last_payment: Mutex::new(None),
        quotes: Mutex::new(Vec::new()),
    });
    let router = Router::new()
        .route("/rpc", post(rpc))
        .route("/v1/infer", post(infer))
        .route("/v1/chat/completions", post(chat))
        .with_state(Arc::clone(&node));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let genesis = GenesisFile {
        version: 1,
        vesting: vec![],
        airdrop: None,
        evidence: None,
        chain_id: CHAIN,
        development: true,
        timestamp: 1,
        validators: vec![],
        parameters: Parameters::development(Address::repeat_byte(0x44)),
        allocations: vec![],
        nodes: vec![],
        models: vec![ModelRegistration {
            name: MODEL.into(),
            root: ROOT.0,
            creator: Address::repeat_byte(0x66),
            uri: String::new(),
            royalty_bps: 1_000,
            price: ask(),
            programs: vec![],
        }],
        asks: vec![],
    };
    let file = NetworkFile {
        chain_id: CHAIN,
        genesis: "genesis.json".into(),
        // The first endpoint is dead: the client must go on to the next.
        rpc: vec!["http://127.0.0.1:9/rpc".into(), format!("{url}/rpc")],
        hub: None,
        router: None,
        metrics: vec![],
        contracts: Contracts::PREDEPLOYED,
        wallet: None,
        faucet: None,
        home: None,
        nodes: vec![NodeEntry {
            role: "inference".into(),
            id: NODE.0,
            url,
            models: vec![MODEL.into()],
        }],
    };
    (
        node,
        Network {
            dir: ".".into(),
            file,
            genesis,
        },
    )
}

async fn rpc(State(node): State<Arc<Node>>, Json(request): Json<Value>) -> Json<Value> {
    let input: Bytes = serde_json::from_value(request["params"][0]["input"].clone()).unwrap();
    let selector: [u8; 4] = input[..4].try_into().unwrap();
    let data = match selector {
        ModelRegistry::modelsCall::SELECTOR => {
            ModelRegistry::modelsCall::abi_encode_returns(&ModelRegistry::modelsReturn {
                closed: false,
                creator: Address::repeat_byte(0x66),
                royaltyBps: 1_000,
                previousRoyaltyBps: 1_000,
                changedAt: U40::from(1),
                price: ModelRegistry::Price {
                    perCall: ask().per_call.0,
                    perMtokIn: 0,
                    perMtokOut: 0,
                },
                registeredAt: U40::from(1),
                committedAt: 0,
                name: MODEL.into(),
                uri: String::new(),
            })
        }
        NodeRegistry::asksCall::SELECTOR => NodeRegistry::asksCall::abi_encode_returns(&NodeRegistry::asksReturn {
            perCall: ask().per_call.0,
            perMtokIn: 0,
            perMtokOut: 0,
        }),
        NodeRegistry::keysetsCall::SELECTOR => {
            NodeRegistry::keysetsCall::abi_encode_returns(&NodeRegistry::keysetsReturn {
                nodeId: NODE.0,
                receiptKey: keyset().receipt_key,
                settlementKey: keyset().settlement_key,
                registeredAt: U40::from(u64::from(!node.tricks.unregistered)),
                revokedAt: U40::from(u64::from(node.tricks.revoked)),
            })
        }
        other => panic!("unexpected call {other:?}"),
    };
    Json(json!({ "jsonrpc": "2.0", "id": request["id"], "result": Bytes::from(data) }))
}

async fn infer(State(node): State<Arc<Node>>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let outputs = json!({ "label": [3] });
    let leaf = serde_json::to_vec(&outputs).unwrap();
    match answer(&node, "/v1/infer", &headers, &body, (LeafKind::Tensors, leaf)) {
        Err(response) => *response,
        Ok(opg) => {
            let mut answer = json!({ "outputs": outputs, "opg": opg });
            if let Some(trick) = node.tricks.answer {
                trick(&mut answer);
            }
            Json(answer).into_response()
        }
    }
}

async fn chat(State(node): State<Arc<Node>>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let pieces = ["Good ", "evening", "."];
    let leaf = pieces.concat().into_bytes();
    match answer(&node, "/v1/chat/completions", &headers, &body, (LeafKind::Text, leaf)) {
        Err(response) => *response,
        Ok(opg) => {
            let mut events: Vec<Value> = pieces
                .iter()
                .map(|piece| json!({ "choices": [{ "delta": { "content": piece } }] }))
                .collect();
            events.push(json!({ "opg": opg }));
            let mut text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
            if node.tricks.answer.is_some() {
                text = text.replace("evening", "morning");
            }
            text.push_str("data: [DONE]\n\n");
            ([("content-type", "text/event-stream")], text).into_response()
        }
    }
}

/// The 402, or the `opg` object of a paid answer.
fn answer(
    node: &Node,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
    leaf: (LeafKind, Vec<u8>),
) -> Result<Value, Box<Response>> {
    if node.tricks.redirect {
        let target = [("location", "http://127.0.0.1:9/")];
        return Err(Box::new((StatusCode::TEMPORARY_REDIRECT, target).into_response()));
    }
    if let Some((status, body)) = &node.tricks.refuse {
        let status = StatusCode::from_u16(*status).unwrap();
        return Err(Box::new((status, Json(body.clone())).into_response()));
    }
    let Some(header) = headers.get(x402::PAYMENT_SIGNATURE) else {
        return Err(Box::new(offer(node, path, body)));
    };
    node.paid.fetch_add(1, Ordering::SeqCst);
    let payment = PaymentPayload::from_header(header.as_bytes()).unwrap();
    let (authorization, signature) = payment.exact().unwrap();
    let quote = node.quotes.lock().unwrap().last().unwrap().clone();
    *node.last_payment.lock().unwrap() = Some(payment);
    let q = quote.quote();
    let params = r#"{"mode":"none"}"#;
    let leaves = [commit::response_leaf(&SALT, leaf.0, 0, &leaf.1)];
    let payment = PaymentRecord {
        channel: None,
        facilitator: None,
        scheme: PaymentScheme::Exact,
        method: PaymentMethod::Eip3009,
        payer: authorization.from,
        payee: authorization.to,
        amount: Amount::try_from(authorization.value).unwrap(),
        valid_after: authorization.valid_after,
        valid_before: authorization.valid_before,
        nonce: authorization.nonce,
        signature,
    };
    let mut core = Sale {
        chain_id: CHAIN,
        keyset: &keyset(),
        seq: 0,
        model: (MODEL, ROOT),
        ask: ask(),
        royalty_bps: 1_000,
        usage: (UsageUnit::Calls, Usage { input: 1, output: 1 }),
        payment,
    }
    .core();
    core.keyset = q.keyset;
    core.receipt_id = q.receipt_id;
    core.quote = QuoteRef {
        digest: quote.digest(),
        nonce: q.nonce,
    };
    core.request = RequestCommitments {
        body: commit::request(&SALT, body),
        params: commit::params(&SALT, params),
    };
    core.response.commitment = commit::response(&leaves).unwrap();
    if let Some(trick) = node.tricks.core {
        trick(&mut core);
    }
    let key = node.tricks.receipt_key.clone().unwrap_or_else(node_key);
    let receipt = SignedReceipt::sign(core, &key).unwrap();
    Ok(json!({
        "receipt_id": receipt.core().receipt_id,
        "receipt": receipt.cose(),
        "quote": quote.cose(),
        "salt": SALT,
        "secret": "s",
        "params": params,
        "leaves": [{ "kind": leaf.0.code(), "bytes": STANDARD.encode(leaf.1) }],
    }))
}

fn offer(node: &Node, path: &str, body: &[u8]) -> Response {
    let nonce = B256::random();
    let mut quote = Quote {
        chain_id: CHAIN,
        node_id: NODE,
        keyset: keyset().digest(),
        nonce,
        receipt_id: receipt_id(CHAIN, &NODE, &nonce),
        request_digest: request_digest("POST", path, body),
        model_root: ROOT,
        ask: ask(),
        royalty_bps: 1_000,
        max_amount: charge(&ask(), Usage { input: 1, output: 1 }, 1_000).unwrap(),
        payee: payee(),
        asset: addresses::OPG,
        expires: u64::MAX / 2,
        mode_asked: Mode::None,
        min_grade: Grade::None,
    };
    if let Some(trick) = node.tricks.quote {
        trick(&mut quote);
        quote.receipt_id = receipt_id(quote.chain_id, &quote.node_id, &quote.nonce);
    }
    let key = node.tricks.quote_key.clone().unwrap_or_else(node_key);
    let signed = SignedQuote::sign(quote, &key).unwrap();
    let q = signed.quote();
    let extra = json!({
        "name": "OpenGradient", "version": "1",
        "receiptId": q.receipt_id, "quote": URL_SAFE_NO_PAD.encode(signed.cose()),
    });
    let mut way = PaymentRequirements {
        scheme: x402::EXACT.into(),
        network: x402::network(q.chain_id),
        amount: U256::from(q.max_amount.0),
        asset: q.asset,
        pay_to: q.payee,
        max_timeout_seconds: 600,
        extra: extra.as_object().cloned(),
    };
    node.quotes.lock().unwrap().push(signed);
    if let Some(trick) = node.tricks.offer {
        trick(&mut way);
    }
    let mut whole = PaymentRequired {
        x402_version: 2,
        error: None,
        resource: Resource {
            url: path.into(),
            description: None,
            mime_type: None,
        },
        accepts: vec![way],
        extensions: None,
    };
    if let Some(trick) = node.tricks.whole {
        trick(&mut whole);
    }
    let mut response = (StatusCode::PAYMENT_REQUIRED, "{}").into_response();
    let header = HeaderValue::from_str(&x402::encode_header(&whole)).unwrap();
    response.headers_mut().insert(x402::PAYMENT_REQUIRED, header);
    response
}
