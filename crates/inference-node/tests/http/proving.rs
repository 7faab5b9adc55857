//! Answers of mode zk: the exact integer program answers, a proof follows in the background, and nothing is submitted without it.

use crate::harness::{CHAT, Harness, ONNX, OPG, digits, error};
use alloy_primitives::{Bytes, U256};
use opg_artefact::ZkArtefact;
use opg_contracts::{addresses, slots};
use opg_models::{Format, Manifest, ManifestVersion};
use opg_primitives::{
    mode::{Grade, Mode},
    money::Amount,
};
use opg_receipt::SignedReceipt;
use reqwest::Response;
use serde_json::{Value, json};
use std::time::Duration;

const INFER: &str = "/v1/infer";

fn zk() -> Value {
    let mut body = digits();
    body["mode"] = json!("zk");
    body
}

async fn answer(response: Response) -> (Value, SignedReceipt) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(status, 200, "{body}");
    let bytes: Bytes = body["opg"]["receipt"].as_str().unwrap().parse().unwrap();
    (body, SignedReceipt::decode(&bytes).unwrap())
}

async fn proof(h: &Harness, id: &str, secret: &str) -> Response {
    let url = h.url(&format!("/v1/receipts/{id}/proof"));
    h.http.get(url).bearer_auth(secret).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_proven_and_then_final() {
    let h = Harness::start().await;
    let (_, model) = h.get(&format!("/v1/models/{ONNX}")).await;
    assert_eq!(model["modes"], json!(["none", "zk"]));
    assert_eq!(model["program"], json!(opg_samples::proof::program_root()));

    let (body, receipt) = answer(h.paid(INFER, &zk()).await).await;
    let core = receipt.core();
    assert_eq!((core.mode.asked, core.mode.served), (Mode::Zk, Mode::Zk));
    assert_eq!(
        (core.mode.min_grade, core.mode.grade),
        (Grade::Hardware, Grade::Hardware)
    );
    // The integer program agrees with the model about this digit.
    assert_eq!(body["outputs"]["label"], json!([0]));
    let (id, secret) = (
        body["opg"]["receipt_id"].as_str().unwrap(),
        body["opg"]["secret"].as_str().unwrap(),
    );

    let stored = h.receipt_until(id, |r| r["proof"]["state"] == "proven").await;
    assert_eq!(stored["mode"], "zk");
    let response = proof(&h, id, secret).await;
    assert_eq!(response.status().as_u16(), 200);
    let artefact = response.bytes().await.unwrap();
    ZkArtefact::decode(&artefact).unwrap().verify(core).unwrap();
    assert_eq!(error(proof(&h, id, "00").await).await.0, 401);
    // The chain verified it too, and credits the node.
    h.until("the credit", |chain| chain.credited.len() == 1).await;
    h.receipt_until(id, |r| r["state"] == "final" && r["inclusion"].is_object())
        .await;
    let metrics = h.metrics().await;
    assert!(
        metrics.contains("opg_inference_proofs_total{state=\"proven\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("opg_inference_receipts_total{state=\"verified\"} 1"),
        "{metrics}"
    );

    // Receipts of mode none have no proof, and do not wait for one.
    let (body, receipt) = answer(h.paid(INFER, &digits()).await).await;
    assert_eq!(receipt.core().mode.served, Mode::None);
    let id = body["opg"]["receipt_id"].as_str().unwrap();
    let (status, code, _) = error(proof(&h, id, body["opg"]["secret"].as_str().unwrap()).await).await;
    assert_eq!((status, code.as_str()), (404, "proof_not_found"));
}

/// What was promised before a stop is proven after it.
#[tokio::test(flavor = "multi_thread")]
async fn proofs_go_on_after_a_restart() {
    let mut h = Harness::start().await;
    let mut receipts = Vec::new();
    for _ in 0..4 {
        receipts.push(answer(h.paid(INFER, &zk()).await).await.1);
    }
    h.restart().await;
    for receipt in &receipts {
        let id = receipt.core().receipt_id.to_string();
        h.receipt_until(&id, |r| r["state"] == "final").await;
    }
    assert_eq!(h.chain.lock().receipts.len(), 4);
    let (_, health) = h.get("/health").await;
    assert_eq!(health["proofs_waiting"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proven_is_refused_before_payment() {
    let h = Harness::start().await;
    let post = async |body: Value| error(h.post(INFER, body.to_string(), None).await).await;
    let mut bad = zk();
    bad["inputs"] = json!({"X": [[1]]});
    let (status, code, field) = post(bad).await;
    assert_eq!(
        (status, code.as_str(), field.as_str()),
        (422, "invalid_input", "inputs")
    );
    let mut long = zk();
    long["inputs"]["pad"] = json!("x".repeat(300_000));
    let (status, code, _) = post(long).await;
    assert_eq!((status, code.as_str()), (422, "request_too_large"));
    let chat = json!({"model": CHAT, "mode": "zk", "messages": [{"role": "user", "content": "x"}]});
    let response = h.post("/v1/chat/completions", chat.to_string(), None).await;
    assert_eq!(error(response).await.1, "mode_not_supported");
}

/// A node whose program the chain does not know serves the model, but not in mode zk.
#[tokio::test(flavor = "multi_thread")]
async fn an_unregistered_program_is_not_served() {
    let mut h = Harness::start().await;
    let bytes = std::fs::read(&h.config.models[0].path).unwrap();
    let root = Manifest::single(ManifestVersion::NEWEST, Format::Onnx, &bytes)
        .root()
        .unwrap();
    let slot = slots::model_program(root.0, opg_samples::proof::program_root());
    h.chain.lock().set(addresses::MODEL_REGISTRY, slot, U256::ZERO);
    h.restart().await;
    let (status, code, field) = error(h.post(INFER, zk().to_string(), None).await).await;
    assert_eq!(
        (status, code.as_str(), field.as_str()),
        (400, "mode_not_supported", "mode")
    );
    let (_, model) = h.get(&format!("/v1/models/{ONNX}")).await;
    assert_eq!(model["modes"], json!(["none"]));
}

/// A proof that is not there by its deadline is given up; the receipt never reaches the chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_comes_too_late_is_given_up() {
    let h = Harness::with(|config| config.limits.proof_seconds = 0).await;
    let (body, receipt) = answer(h.paid(INFER, &zk()).await).await;
    let core = receipt.core();
    assert_eq!(core.evidence.unwrap().proof_deadline, Some(core.times.done / 1_000));
    let id = body["opg"]["receipt_id"].as_str().unwrap();
    h.receipt_until(id, |r| r["state"] == "expired").await;
    // Several rounds of settlement later the payment is untouched.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let receipt = h.receipt_until(id, |r| r["payment_state"] == "released").await;
    assert_eq!(receipt["proof"], Value::Null);
    let chain = h.chain.lock();
    assert!(chain.receipts.is_empty());
    assert_eq!((chain.settle_calls, chain.balance(h.payer())), (0, Amount(OPG)));
}
