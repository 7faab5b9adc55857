//! Restarts, outages and shutdown: nothing is lost, nothing is charged twice.

use crate::harness::{Harness, chat, digits, error};
use opg_primitives::money::Amount;
use serde_json::Value;
use std::time::Duration;

const INFER: &str = "/v1/infer";

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_replay_protection_the_chain_of_receipts_and_the_outbox() {
    let mut h = Harness::start().await;
    let body = digits();
    let payment = h.pay(h.offer(INFER, &body).await, |_| {});
    let first: Value = h
        .post(INFER, body.to_string(), Some(&payment))
        .await
        .json()
        .await
        .unwrap();
    // The chain is away while the node answers and restarts.
    h.chain.lock().refuse = Some(("payment_funds", true));
    let second = h.paid(INFER, &body).await;
    assert_eq!(second.status(), 200);
    h.restart().await;
    assert_eq!(
        error(h.post(INFER, body.to_string(), Some(&payment)).await).await.1,
        "payment_replayed"
    );
    h.chain.lock().refuse = None;
    let third: Value = h.paid(INFER, &body).await.json().await.unwrap();
    h.until("all three final and credited", |chain| {
        chain.receipts.len() == 3 && chain.credited.len() == 3
    })
    .await;
    let mut seqs: Vec<u64> = h.chain.lock().receipts.values().map(|(_, r)| r.core().seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [0, 1, 2]);
    assert_ne!(first["opg"]["receipt_id"], third["opg"]["receipt_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_chain_known_payers_are_served_and_settled_later() {
    let h = Harness::start().await;
    let body = digits();
    assert_eq!(h.paid(INFER, &body).await.status(), 200);
    h.until("settled", |chain| chain.credited.len() == 1).await;
    h.chain.lock().down = true;
    assert_eq!(h.paid(INFER, &body).await.status(), 200, "a warm payer needs no chain");
    let stranger = Harness {
        wallet: opg_payments::signature::SecretKey::from_byte_array(&[99; 32]).unwrap(),
        ..h
    };
    let refused = error(stranger.paid(INFER, &body).await).await;
    assert_eq!((refused.0, refused.1.as_str()), (503, "chain_unavailable"));
    stranger.chain.lock().down = false;
    stranger.until("both settled", |chain| chain.credited.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_that_moves_its_money_away_is_settled_first_from_then_on() {
    let h = Harness::with(|c| c.limits.payment_seconds = 25).await;
    let body = digits();
    let payment = h.pay(h.offer(INFER, &body).await, |_| {});
    assert_eq!(h.post(INFER, body.to_string(), Some(&payment)).await.status(), 200);
    h.chain.lock().set_balance(h.payer(), Amount::ZERO);
    h.until("a settlement was tried", |chain| chain.settle_calls >= 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let text = h.metrics().await;
    assert!(text.contains("opg_inference_exposure_opg"), "{text}");
    // The money comes back in time: the authorization is still good and is used once.
    h.chain.lock().set_balance(h.payer(), Amount(crate::harness::OPG));
    h.until("settled after all", |chain| chain.credited.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_finishes_the_answer_that_is_being_written() {
    let mut h = Harness::start().await;
    let body = chat(true, 60);
    let response = h.paid("/v1/chat/completions", &body).await;
    let node = h.node.take().unwrap();
    let (text, stopped) = tokio::join!(response.text(), node.shutdown());
    stopped.unwrap();
    assert!(text.unwrap().ends_with("data: [DONE]\n\n"));
    h.restart().await;
    h.until("its receipt is final", |chain| {
        chain.receipts.len() == 1 && chain.credited.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_a_crash_interrupts_ends_with_a_receipt_over_nothing() {
    let mut h = Harness::start().await;
    let body = chat(true, 200);
    let payment = h.pay(h.offer("/v1/chat/completions", &body).await, |_| {});
    let mut response = h.post("/v1/chat/completions", body.to_string(), Some(&payment)).await;
    let id = response.headers()["x-opg-receipt-id"].to_str().unwrap().to_owned();
    response.chunk().await.unwrap();
    // The disk as a crash would leave it: the reservation is there, nothing else. From here on this process is a ghost.
    h.chain.lock().down = true;
    let image = h.config.data_dir.with_file_name("after-crash");
    std::fs::create_dir(&image).unwrap();
    std::fs::copy(h.config.data_dir.join("journal.redb"), image.join("journal.redb")).unwrap();
    drop(response);
    h.node.take().unwrap().shutdown().await.unwrap();

    h.chain.lock().down = false;
    h.config.data_dir = image;
    h.restart().await;
    assert_eq!(
        error(h.post("/v1/chat/completions", body.to_string(), Some(&payment)).await)
            .await
            .1,
        "payment_replayed"
    );
    let receipt = h.receipt_until(&id, |r| r["state"] == "final").await;
    assert_eq!(
        (receipt["finish"].as_str(), receipt["payment_state"].as_str()),
        (Some("error"), Some("released"))
    );
    let chain = h.chain.lock();
    let (_, signed) = chain.receipts.values().next().unwrap();
    assert!(signed.core().price.charge.is_zero());
    assert_eq!(chain.settle_calls, 0, "the signature is never used");
}
