//! Raw x402 requests against a real network, signed by an EIP-712 implementation that is not ours: replays, wrong payees,
//! underpayment, expiry, and a client that hangs up in the middle of a stream.

use alloy::{
    primitives::{Address, B256, U256},
    providers::ProviderBuilder,
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol,
    sol_types::{SolStruct as _, eip712_domain},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, future::join_all};
use opg_contracts::addresses;
use opg_e2e::{Network, Rpc, abi::OPG, wait_until};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

sol! {
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }
}

struct Shop {
    http: Client,
    node: String,
    signer: PrivateKeySigner,
}

/// What a dishonest or careless client changes.
#[derive(Default)]
struct Twist {
    to: Option<Address>,
    value: Option<U256>,
    valid_before: Option<u64>,
    key: Option<PrivateKeySigner>,
    amount_in_offer: Option<U256>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_secs()
}

impl Shop {
    async fn offer(&self, path: &str, body: &Value) -> Value {
        let answer = self
            .http
            .post(format!("{}{path}", self.node))
            .json(body)
            .send()
            .await
            .expect("402");
        assert_eq!(answer.status(), 402);
        let header = answer.headers()["payment-required"].as_bytes();
        serde_json::from_slice(&STANDARD.decode(header).expect("base64")).expect("json")
    }

    fn pay(&self, offer: &Value, nonce: B256, twist: Twist) -> String {
        let mut accepted = exact(offer).clone();
        if let Some(amount) = twist.amount_in_offer {
            accepted["amount"] = json!(amount.to_string());
        }
        let signer = twist.key.as_ref().unwrap_or(&self.signer);
        let message = TransferWithAuthorization {
            from: self.signer.address(),
            to: twist
                .to
                .unwrap_or_else(|| accepted["payTo"].as_str().expect("payTo").parse().expect("address")),
            value: twist
                .value
                .unwrap_or_else(|| accepted["amount"].as_str().expect("amount").parse().expect("amount")),
            validAfter: U256::ZERO,
            validBefore: U256::from(twist.valid_before.unwrap_or(now() + 300)),
            nonce,
        };
        let domain = eip712_domain! {
            name: "OpenGradient", version: "1", chain_id: 10_740, verifying_contract: addresses::OPG,
        };
        let signature = signer
            .sign_hash_sync(&message.eip712_signing_hash(&domain))
            .expect("signature");
        let payment = json!({
            "x402Version": 2,
            "resource": offer["resource"],
            "accepted": accepted,
            "payload": {
                "signature": format!("0x{}", hex::encode(signature.as_bytes())),
                "authorization": {
                    "from": message.from, "to": message.to, "value": message.value.to_string(),
                    "validAfter": "0", "validBefore": message.validBefore.to_string(), "nonce": message.nonce,
                },
            },
        });
        STANDARD.encode(payment.to_string())
    }

    async fn send(&self, path: &str, body: &Value, header: &str) -> Response {
        let request = self
            .http
            .post(format!("{}{path}", self.node))
            .header("payment-signature", header)
            .json(body);
        request.send().await.expect("answer")
    }
}

/// The way to pay that these tests take: `exact` by EIP-3009.
fn exact(offer: &Value) -> &Value {
    let mut ways = offer["accepts"].as_array().expect("accepts").iter();
    ways.find(|way| way["scheme"] == "exact" && way["extra"]["assetTransferMethod"] != "permit2")
        .unwrap_or_else(|| panic!("no exact in {offer}"))
}

/// Amount of that requirement of an offer.
fn quoted(offer: &Value) -> U256 {
    let amount = exact(offer)["amount"].as_str().expect("amount");
    amount.parse().expect("amount")
}

async fn refused(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let error: Value = answer.json().await.expect("json error");
    (
        status,
        error["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("code in {error}"))
            .to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn one_payment_buys_one_run_and_a_cut_stream_is_billed_for_what_came() {
    let mut network = Network::start();
    let rpc_url = network.rpc_urls()[0].to_owned();
    let rpc_url = rpc_url.as_str();
    let rpc = Rpc::new(rpc_url);
    let shop = Shop {
        http: Client::new(),
        node: network.node_url().into(),
        signer: network.demo_key().parse().expect("key"),
    };
    let provider = ProviderBuilder::new().connect_http(rpc_url.parse().expect("url"));
    let opg = OPG::new(addresses::OPG, &provider);
    let payer = shop.signer.address();
    let start = opg.balanceOf(payer).call().await.expect("balance");

    let path = "/v1/infer";
    let body = json!({"model": "demo/digits-mlp", "inputs": {"X": [vec![0; 64]]}});
    let offer = shop.offer(path, &body).await;
    let amount = quoted(&offer);
    assert_eq!(exact(&offer)["network"], "eip155:10740");

    // refusals, each with its code; none of them may cost anything
    let elsewhere = Address::repeat_byte(0x66);
    let nonce = || B256::random();
    for (name, twist) in [
        (
            "another payee",
            Twist {
                to: Some(elsewhere),
                ..Twist::default()
            },
        ),
        (
            "underpaid",
            Twist {
                value: Some(amount - U256::from(1u8)),
                ..Twist::default()
            },
        ),
        (
            "cheaper offer",
            Twist {
                amount_in_offer: Some(amount - U256::from(1u8)),
                ..Twist::default()
            },
        ),
        (
            "expired",
            Twist {
                valid_before: Some(now() - 1),
                ..Twist::default()
            },
        ),
        (
            "signed by another key",
            Twist {
                key: Some(PrivateKeySigner::random()),
                ..Twist::default()
            },
        ),
    ] {
        let header = shop.pay(&offer, nonce(), twist);
        let (status, code) = refused(shop.send(path, &body, &header).await).await;
        assert_eq!(status, 402, "{name}: {code}");
        assert!(code.starts_with("payment") || code.contains("quote"), "{name}: {code}");
    }
    let (status, code) = refused(shop.send(path, &body, "!!!").await).await;
    assert!(matches!(status, 400 | 402), "garbage header: {status} {code}");
    // the quote is for this body; another body needs another quote
    let header = shop.pay(&offer, nonce(), Twist::default());
    let mut other = body.clone();
    other["inputs"]["X"][0][0] = json!(7);
    let (status, code) = refused(shop.send(path, &other, &header).await).await;
    assert_eq!(status, 402, "{code}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        opg.balanceOf(payer).call().await.expect("balance"),
        start,
        "refusals are free"
    );

    // fifty copies of one paid request at once: one run, one receipt, one charge
    let answers = join_all((0..50).map(|_| shop.send(path, &body, &header))).await;
    let mut served = Vec::new();
    for answer in answers {
        if answer.status() == 200 {
            served.push(answer.headers()["x-opg-receipt-id"].to_str().expect("text").to_owned());
        } else {
            let (status, code) = refused(answer).await;
            assert_eq!((status, code.as_str()), (402, "payment_replayed"));
        }
    }
    assert_eq!(served.len(), 1, "exactly one run");
    wait_until("settled on chain", Duration::from_secs(30), async || {
        opg.balanceOf(payer).call().await.is_ok_and(|b| b == start - amount)
    })
    .await;
    let (status, code) = refused(shop.send(path, &body, &header).await).await;
    assert_eq!(
        (status, code.as_str()),
        (402, "payment_replayed"),
        "also after settlement"
    );

    // a client that hangs up in mid-stream
    let path = "/v1/chat/completions";
    let body = json!({
        "model": "demo/tiny-llama", "stream": true, "max_tokens": 900, "temperature": 0,
        "messages": [{"role": "user", "content": "The licence says that"}],
    });
    let offer = shop.offer(path, &body).await;
    let bound: u128 = quoted(&offer).to();
    let header = shop.pay(&offer, nonce(), Twist::default());
    let answer = shop.send(path, &body, &header).await;
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["x-opg-receipt-id"].to_str().expect("text").to_owned();
    let secret = answer.headers()["x-opg-receipt-secret"]
        .to_str()
        .expect("text")
        .to_owned();
    let mut stream = answer.bytes_stream();
    for _ in 0..3 {
        stream.next().await.expect("a piece").expect("bytes");
    }
    drop(stream);
    let url = format!("{}/v1/receipts/{id}", shop.node);
    wait_until("the receipt of the cut stream", Duration::from_secs(30), async || {
        let answer = shop.http.get(&url).bearer_auth(&secret).send().await.expect("answer");
        answer.status() == 200
            && answer
                .json::<Value>()
                .await
                .is_ok_and(|r| r["opg"]["receipt"].is_string())
    })
    .await;
    let receipt: Value = shop
        .http
        .get(&url)
        .bearer_auth(&secret)
        .send()
        .await
        .expect("answer")
        .json()
        .await
        .expect("json");
    let cose = hex::decode(
        receipt["opg"]["receipt"]
            .as_str()
            .expect("hex")
            .trim_start_matches("0x"),
    )
    .expect("hex");
    let signed = opg_receipt::SignedReceipt::decode(&cose).expect("receipt");
    let core = signed.core();
    assert!(core.stream.aborted, "the receipt says that the stream was cut");
    assert!(
        core.usage.output >= 1 && core.usage.output < 900,
        "billed for {} tokens",
        core.usage.output
    );
    assert!(
        core.price.charge.wei() > 0 && core.price.charge.wei() < bound,
        "charge {} of {bound}",
        core.price.charge.wei()
    );
    // anyone may see the state, only the holder of the secret the core
    let public: Value = shop
        .http
        .get(&url)
        .send()
        .await
        .expect("answer")
        .json()
        .await
        .expect("json");
    assert!(public["opg"].is_null() && public["state"].is_string(), "{public}");
    wait_until(
        "the cut stream's receipt is final",
        Duration::from_secs(30),
        async || {
            rpc.try_call("og_getReceipt", json!([id]))
                .await
                .is_ok_and(|r| r["state"] != "checked" && r["state"].is_string())
        },
    )
    .await;
    assert!(network.stop().success());
}
