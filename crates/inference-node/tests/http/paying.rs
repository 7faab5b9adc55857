//! Paid calls: receipts, replay, exposure, settlement, credits.

use crate::harness::{CHAT, Harness, ONNX, OPG, chat, digits, error, wei};
use alloy_primitives::{Address, B256, Bytes, U256};
use base64::Engine as _;
use opg_contracts::{addresses, slots, system_tx::pending_word};
use opg_inference_node::config::Exposure;
use opg_payments::{
    eip3009::Authorization,
    signature::SecretKey,
    x402::{self, SettleResponse},
};
use opg_primitives::{ids::payment_id, money::Amount};
use opg_receipt::{FinishReason, SignedReceipt, commit};
use serde_json::{Value, json};

const INFER: &str = "/v1/infer";

fn receipt(opg: &Value) -> SignedReceipt {
    SignedReceipt::decode(&opg["receipt"].as_str().unwrap().parse::<Bytes>().unwrap()).unwrap()
}

/// What a client checks: the receipt commits to exactly this request and answer.
fn check(h: &Harness, opg: &Value, body: &str) -> SignedReceipt {
    let receipt = receipt(opg);
    let core = receipt.core();
    core.check_consistency().unwrap();
    let quote = opg_receipt::SignedQuote::decode(&opg["quote"].as_str().unwrap().parse::<Bytes>().unwrap()).unwrap();
    core.check_quote(&quote).unwrap();
    let salt: B256 = opg["salt"].as_str().unwrap().parse().unwrap();
    assert_eq!(core.request.body, commit::request(&salt, body.as_bytes()));
    assert_eq!(
        core.request.params,
        commit::params(&salt, opg["params"].as_str().unwrap())
    );
    let leaves: Vec<B256> = (0..)
        .zip(opg["leaves"].as_array().unwrap())
        .map(|(i, leaf)| {
            let kind = u8::try_from(leaf["kind"].as_u64().unwrap())
                .unwrap()
                .try_into()
                .unwrap();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(leaf["bytes"].as_str().unwrap())
                .unwrap();
            commit::response_leaf(&salt, kind, i, &bytes)
        })
        .collect();
    assert_eq!(core.response.commitment, commit::response(&leaves).unwrap());
    assert_eq!(core.payment.payer, h.payer());
    receipt
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_is_paid_answered_final_settled_and_credited() {
    let h = Harness::start().await;
    let body = digits();
    let offer = h.offer(INFER, &body).await;
    // 0.001 OPG and a tenth of the fee for the creator: ceil(B * 10000 / 9000).
    assert_eq!(wei(offer.amount), (OPG / 1000 * 10_000).div_ceil(9_000));
    let response = h
        .post(INFER, body.to_string(), Some(&h.pay(offer.clone(), |_| {})))
        .await;
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-opg-receipt-id"].to_str().unwrap().to_owned();
    assert_eq!(Some(id.as_str()), offer.extra_str("receiptId"));
    let secret = response.headers()["x-opg-receipt-secret"].to_str().unwrap().to_owned();
    let settle: SettleResponse = x402::decode_header(response.headers()[x402::PAYMENT_RESPONSE].as_bytes()).unwrap();
    assert!(
        settle.success && settle.transaction.is_empty(),
        "inside the cap nothing is settled before the answer"
    );
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["outputs"]["label"], json!([0]));
    assert_eq!(answer["opg"]["secret"], secret.as_str());
    let signed = check(&h, &answer["opg"], &body.to_string());
    let core = signed.core().clone();
    assert_eq!(
        (core.seq, core.prev, core.response.finish),
        (0, B256::ZERO, FinishReason::Stop)
    );
    assert_eq!(core.price.charge, core.payment.amount);
    assert_eq!(core.model.asked, ONNX);

    let payment = payment_id(core.payment.payer, core.payment.nonce).0;
    h.until("credit", |chain| chain.credited.contains(&payment)).await;
    let public = h
        .receipt_until(&id, |r| r["payment_state"] == "settled" && !r["inclusion"].is_null())
        .await;
    assert_eq!(
        (public["state"].as_str(), public["mode"].as_str()),
        (Some("final"), Some("none"))
    );
    assert!(public.get("opg").is_none(), "the core is not for everybody");
    {
        let chain = h.chain.lock();
        assert_eq!(chain.settle_calls, 1);
        assert_eq!(chain.balance(h.payer()), Amount(OPG - core.payment.amount.wei()));
    }

    let open = async |secret: &str| {
        let request = h
            .http
            .get(h.url(&format!("/v1/receipts/{id}")))
            .header("authorization", format!("Bearer {secret}"));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (status, private) = open(&secret).await;
    assert_eq!(status, 200);
    for field in ["receipt", "salt", "params", "leaves", "quote", "charge"] {
        assert_eq!(private["opg"][field], answer["opg"][field], "{field}");
    }
    assert_eq!(open("guess").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_payment_run_exactly_once() {
    let h = Harness::start().await;
    let body = digits();
    let payment = h.pay(h.offer(INFER, &body).await, |_| {});
    let copies = (0..100).map(|_| h.post(INFER, body.to_string(), Some(&payment)));
    let (mut served, mut replayed) = (0, 0);
    for response in futures::future::join_all(copies).await {
        if response.status() == 200 {
            served += 1;
        } else {
            let text = response.text().await.unwrap();
            let body: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(body["error"]["code"], "payment_replayed", "{text}");
            assert!(body["error"]["receipt_id"].as_str().unwrap().starts_with("0x"));
            replayed += 1;
        }
    }
    assert_eq!((served, replayed), (1, 99));
    h.until("settlement", |chain| chain.settle_calls == 1).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(h.chain.lock().receipts.len(), 1);
    assert_eq!(h.chain.lock().settle_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_form_a_chain_without_gaps() {
    let h = Harness::start().await;
    let body = digits();
    let answers = futures::future::join_all((0..20).map(|_| h.paid(INFER, &body))).await;
    let mut receipts = Vec::new();
    for answer in answers {
        assert_eq!(answer.status(), 200);
        receipts.push(receipt(&answer.json::<Value>().await.unwrap()["opg"]));
    }
    receipts.sort_by_key(|r| r.core().seq);
    let mut prev = B256::ZERO;
    for (seq, receipt) in receipts.iter().enumerate() {
        assert_eq!((receipt.core().seq, receipt.core().prev), (seq as u64, prev));
        prev = receipt.core_hash();
    }
    h.until("all final", |chain| {
        chain.receipts.len() == 20 && chain.credited.len() == 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_exposure_the_payment_settles_before_the_work() {
    let h = Harness::with(|c| {
        c.exposure = Exposure {
            per_payer: Amount::ZERO,
            per_node: Amount::ZERO,
        }
    })
    .await;
    let body = digits();
    let response = h.paid(INFER, &body).await;
    assert_eq!(response.status(), 200);
    let settle: SettleResponse = x402::decode_header(response.headers()[x402::PAYMENT_RESPONSE].as_bytes()).unwrap();
    assert_eq!(settle.transaction.len(), 66);
    let core = receipt(&response.json::<Value>().await.unwrap()["opg"]).core().clone();
    assert!(h.chain.lock().is_settled(core.payment.payer, core.payment.nonce));
    h.until("final", |chain| chain.receipts.len() == 1).await;
    assert_eq!(h.chain.lock().settle_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_fails_charges_nothing() {
    let h = Harness::with(|c| c.exposure.per_payer = Amount::ZERO).await;
    let body = digits();
    let payment = h.pay(h.offer(INFER, &body).await, |_| {});
    h.chain.lock().stuck = true;
    let request = h.post(INFER, body.to_string(), Some(&payment));
    // The money leaves between the look at the balance and the settlement.
    let (response, ()) = tokio::join!(request, async {
        h.until("sent", |chain| chain.calls.contains_key("eth_sendRawTransaction"))
            .await;
        let mut chain = h.chain.lock();
        chain.set_balance(h.payer(), Amount::ZERO);
        chain.stuck = false;
    });
    assert_eq!(error(response).await.1, "payment_settlement_failed");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(h.chain.lock().receipts.is_empty());
    let (_, code, _) = error(h.post(INFER, body.to_string(), Some(&payment)).await).await;
    assert_eq!(code, "payment_replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_has_a_receipt_already_is_not_settled() {
    let h = Harness::with(|c| c.exposure.per_payer = Amount::ZERO).await;
    let body = digits();
    // Credited, or pending: by another node, or by this one before it lost its journal.
    for word in [B256::with_last_byte(1), pending_word(B256::repeat_byte(7))] {
        let mut nonce = B256::ZERO;
        let payment = h.pay(h.offer(INFER, &body).await, |a| nonce = a.nonce);
        let spent = slots::spent(payment_id(h.payer(), nonce).0);
        h.chain
            .lock()
            .set(addresses::RECEIPT_LEDGER, spent, U256::from_be_bytes(word.0));
        let (status, code, param) = error(h.post(INFER, body.to_string(), Some(&payment)).await).await;
        assert_eq!(
            (status, code.as_str(), param.as_str()),
            (402, "payment_spent", "payload.authorization.nonce")
        );
        // The reservation is given up, not left running: a copy is refused for what it is.
        let (_, code, _) = error(h.post(INFER, body.to_string(), Some(&payment)).await).await;
        assert_eq!(code, "payment_replayed");
    }
    assert_eq!(h.chain.calls("eth_sendRawTransaction"), 0);
    let chain = h.chain.lock();
    assert_eq!((chain.settle_calls, chain.receipts.len()), (0, 0));
    assert_eq!(chain.balance(h.payer()), Amount(OPG));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_settlement_is_a_third_state_and_is_refunded_when_it_lands() {
    let h = Harness::with(|c| c.exposure.per_payer = Amount::ZERO).await;
    h.chain.lock().stuck = true;
    let body = digits();
    let payment = h.pay(h.offer(INFER, &body).await, |_| {});
    let response = h.post(INFER, body.to_string(), Some(&payment)).await;
    assert_eq!(response.status(), 409);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "settlement_unknown");
    let tx = answer["error"]["transaction"].as_str().unwrap().to_owned();
    let signed = receipt(&answer["error"]["opg"]);
    assert_eq!(
        (signed.core().response.finish, signed.core().price.charge),
        (FinishReason::Error, Amount::ZERO)
    );
    // A repetition is refused with the same transaction, and nothing is sent again.
    let again: Value = h
        .post(INFER, body.to_string(), Some(&payment))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (again["error"]["code"].as_str(), again["error"]["transaction"].as_str()),
        (Some("payment_replayed"), Some(tx.as_str()))
    );
    h.chain.lock().stuck = false;
    let payment = payment_id(signed.core().payment.payer, signed.core().payment.nonce).0;
    h.until("refund", |chain| chain.credited.contains(&payment)).await;
    assert_eq!(h.chain.lock().settle_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_health_and_metrics() {
    let h = Harness::start().await;
    let (_, models) = h.get("/v1/models").await;
    let data = models["data"].as_array().unwrap();
    assert_eq!(data.len(), 2);
    let onnx = data.iter().find(|m| m["id"] == ONNX).unwrap();
    assert_eq!(onnx["signature"]["inputs"][0]["shape"], json!([null, 64]));
    assert_eq!(onnx["price"]["per_call"], (OPG / 1000).to_string());
    assert_eq!(h.get(&format!("/v1/models/{CHAT}")).await.1["kind"], "gguf");
    assert_eq!(
        h.get(&format!("/v1/models/{}", onnx["root"].as_str().unwrap())).await.1["id"],
        ONNX
    );
    assert_eq!(h.get("/health").await.1["status"], "ok");
    assert_eq!(h.paid(INFER, &digits()).await.status(), 200);
    assert_eq!(h.paid("/v1/chat/completions", &chat(false, 4)).await.status(), 200);
    let text = h.metrics().await;
    assert!(
        text.contains("opg_inference_requests_total{route=\"/v1/infer\",status=\"200\"} 1"),
        "{text}"
    );
    assert!(text.contains("opg_inference_added_seconds_count{route=\"/v1/infer\"} 1"));
    let models = h.node.as_ref().unwrap();
    assert_ne!(models.address().port(), 0);
    assert_ne!(h.payer(), Address::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_wallet_pays_before_the_work_and_the_chain_judges_its_signature() {
    let h = Harness::start().await;
    let body = digits();
    let (good, bad) = (Address::repeat_byte(0x51), Address::repeat_byte(0x52));
    for (wallet, accepts) in [(good, true), (bad, false)] {
        let mut chain = h.chain.lock();
        chain.contracts.insert(wallet, accepts);
        chain.set_balance(wallet, Amount(OPG));
    }
    let call = async |from: Address| {
        let offer = h.offer(INFER, &body).await;
        let mut authorization = None;
        h.pay(offer.clone(), |a| authorization = Some(Authorization { from, ..*a }));
        let payment = Harness::header(offer, &authorization.unwrap(), &[7; 100]);
        h.post(INFER, body.to_string(), Some(&payment)).await
    };
    let response = call(good).await;
    assert_eq!(response.status(), 200);
    let settle: SettleResponse = x402::decode_header(response.headers()[x402::PAYMENT_RESPONSE].as_bytes()).unwrap();
    assert_eq!((settle.payer, settle.transaction.len()), (Some(good), 66));
    assert_eq!(error(call(bad).await).await.1, "payment_bad_signature");
}

/// Where tiers count, the account that signs is held to its own, before anything is charged; what cannot be known is refused as such.
#[tokio::test(flavor = "multi_thread")]
async fn payers_are_held_to_their_tier() {
    let mut h = Harness::with(|c| c.limits.feature_tiers = true).await;
    h.chain.lock().tier = (2, 1_000);
    let body = digits();
    for _ in 0..2 {
        assert_eq!(h.paid(INFER, &body).await.status(), 200);
    }
    let asked = h.chain.calls("eth_call");
    let (status, code, _) = error(h.paid(INFER, &body).await).await;
    assert_eq!((status, code.as_str()), (429, "tier_rate"));
    assert_eq!(asked, h.chain.calls("eth_call"), "the tier is remembered");

    // The rate of an account that did not sign is not used up: the payment is refused for its signature.
    let other = Address::repeat_byte(0x77);
    let offer = h.offer(INFER, &body).await;
    let forged = h.pay(offer, |authorization| authorization.from = other);
    let (_, code, _) = error(h.post(INFER, body.to_string(), Some(&forged)).await).await;
    assert_eq!(code, "tier_unauthenticated");

    // Another account, whose tier takes small requests only.
    h.wallet = SecretKey::from_byte_array(&[0x66; 32]).unwrap();
    h.chain.lock().set_balance(h.payer(), Amount(OPG));
    h.chain.lock().tier = (2, 10);
    let (status, code, _) = error(h.paid(INFER, &body).await).await;
    assert_eq!((status, code.as_str()), (413, "tier_request_size"));
    // Only what ran was charged.
    h.until("two receipts", |chain| chain.receipts.len() == 2).await;
    assert_eq!(h.chain.lock().receipts.len(), 2);
}
