//! Chat, whole and streamed, and clients that leave.

use crate::harness::{CHAT, Harness, OPG, chat};
use alloy_primitives::{B256, Bytes};
use opg_primitives::{
    ids::ReceiptId,
    money::{Amount, Price, Usage, charge},
};
use opg_receipt::{FinishReason, SignedReceipt, rolling_hash};
use serde_json::{Value, json};
use std::time::Duration;

const PATH: &str = "/v1/chat/completions";

fn events(text: &str) -> Vec<Value> {
    text.split("\n\n")
        .filter_map(|e| e.strip_prefix("data: "))
        .filter(|e| *e != "[DONE]")
        .map(|e| serde_json::from_str(e).unwrap())
        .collect()
}

fn receipt(opg: &Value) -> SignedReceipt {
    SignedReceipt::decode(&opg["receipt"].as_str().unwrap().parse::<Bytes>().unwrap()).unwrap()
}

fn ask() -> Price {
    Price {
        per_call: Amount(0),
        per_mtok_in: Amount(OPG),
        per_mtok_out: Amount(2 * OPG),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_the_whole_answer_in_parts_and_ends_with_its_receipt() {
    let h = Harness::start().await;
    let whole: Value = h.paid(PATH, &chat(false, 12)).await.json().await.unwrap();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], CHAT);

    let mut body = chat(true, 12);
    body["stream_options"] = json!({"include_usage": true});
    let response = h.paid(PATH, &body).await;
    assert_eq!(response.status(), 200);
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    let id = response.headers()["x-opg-receipt-id"].to_str().unwrap().to_owned();
    let stream = response.text().await.unwrap();
    assert!(stream.ends_with("data: [DONE]\n\n"));
    let events = events(&stream);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let parts: Vec<&str> = events
        .iter()
        .filter_map(|e| e["choices"][0]["delta"]["content"].as_str())
        .filter(|p| !p.is_empty())
        .collect();
    assert_eq!(parts.concat(), text, "the same seed gives the same answer");
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["opg"]["receipt_id"], id.as_str());
    let usage = events.iter().find(|e| e["usage"].is_object()).unwrap();
    assert_eq!(usage["usage"], whole["usage"]);
    let core = receipt(&last["opg"]).core().clone();
    assert_eq!(core.usage.output, whole["usage"]["completion_tokens"].as_u64().unwrap());
    let used = Usage {
        input: core.usage.input,
        output: core.usage.output,
    };
    assert_eq!(core.price.charge, charge(&ask(), used, 1000).unwrap(), "token-exact");
    assert!(core.price.charge < core.payment.amount || core.response.finish == FinishReason::Length);
    let hash = parts
        .iter()
        .fold(B256::ZERO, |hash, part| rolling_hash(hash, part.as_bytes()));
    assert_eq!(
        (core.stream.streamed, core.stream.aborted, core.stream.chunks),
        (true, false, parts.len() as u64)
    );
    assert_eq!(core.stream.rolling_hash, hash);
    h.until("both final", |chain| {
        chain.receipts.len() == 2 && chain.credited.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_pays_for_what_was_generated() {
    let h = Harness::start().await;
    let mut response = h.paid(PATH, &chat(true, 200)).await;
    let id = response.headers()["x-opg-receipt-id"].to_str().unwrap().to_owned();
    let secret = response.headers()["x-opg-receipt-secret"].to_str().unwrap().to_owned();
    // Two chunks, then gone.
    response.chunk().await.unwrap();
    response.chunk().await.unwrap();
    drop(response);
    let found = h.receipt_until(&id, |r| r["state"].is_string()).await;
    let request = h
        .http
        .get(h.url(&format!("/v1/receipts/{id}")))
        .header("authorization", format!("Bearer {secret}"));
    let private: Value = request.send().await.unwrap().json().await.unwrap();
    let core = receipt(&private["opg"]).core().clone();
    if core.response.finish == FinishReason::Cancelled {
        assert!(core.stream.aborted);
        assert!(core.usage.output < 200, "generation stopped");
        let used = Usage {
            input: core.usage.input,
            output: core.usage.output,
        };
        assert_eq!(core.price.charge, charge(&ask(), used, 1000).unwrap());
    } else {
        // The tiny model can be faster than the news of the hang-up.
        assert!(["stop", "length"].contains(&found["finish"].as_str().unwrap()));
    }
    let id = id.parse::<ReceiptId>().unwrap().0;
    h.until("the receipt is final and settled", |chain| {
        chain.receipts.contains_key(&id) && chain.credited.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_a_whole_answer_still_has_a_receipt() {
    let h = Harness::start().await;
    let body = chat(false, 200);
    let payment = h.pay(h.offer(PATH, &body).await, |_| {});
    let request = h.post(PATH, body.to_string(), Some(&payment));
    let _ = tokio::time::timeout(Duration::from_millis(40), request).await;
    h.until("the receipt is final", |chain| chain.receipts.len() == 1).await;
    let core = h.chain.lock().receipts.values().next().unwrap().1.core().clone();
    assert!(!core.stream.streamed);
    assert!([FinishReason::Cancelled, FinishReason::Stop, FinishReason::Length].contains(&core.response.finish));
}
