//! Every bad input: the right status, a code, the field, and nothing charged.

use crate::harness::{CHAT, Harness, ONNX, chat, digits, error, now};
use alloy_primitives::{Address, U256};
use serde_json::{Value, json};

const INFER: &str = "/v1/infer";
const COMPLETIONS: &str = "/v1/chat/completions";

fn expect(got: (u16, String, String), status: u16, code: &str, param: &str) {
    assert_eq!((got.0, got.1.as_str(), got.2.as_str()), (status, code, param));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_served_are_refused_before_the_price() {
    let h = Harness::start().await;
    let infer = async |body: String| error(h.post(INFER, body, None).await).await;
    let inputs = async |x: Value| infer(json!({"model": ONNX, "inputs": x}).to_string()).await;
    expect(infer(String::new()).await, 400, "empty_body", "body");
    expect(infer("{".into()).await, 400, "invalid_json", "body");
    expect(infer("[]".into()).await, 400, "invalid_json", "body");
    expect(
        infer(json!({"inputs": {}}).to_string()).await,
        400,
        "missing_parameter",
        "model",
    );
    expect(
        infer(json!({"model": 5, "inputs": {}}).to_string()).await,
        400,
        "invalid_parameter",
        "model",
    );
    expect(
        infer(json!({"model": "demo/nothing", "inputs": {}}).to_string()).await,
        404,
        "model_not_found",
        "model",
    );
    expect(
        infer(json!({"model": CHAT, "inputs": {}}).to_string()).await,
        400,
        "model_not_supported",
        "model",
    );
    expect(
        infer(json!({"model": ONNX}).to_string()).await,
        400,
        "missing_parameter",
        "inputs",
    );
    expect(
        infer(json!({"model": ONNX, "inputs": {}, "x": 1}).to_string()).await,
        400,
        "unknown_parameter",
        "x",
    );
    for mode in ["replay", "magic"] {
        let body = json!({"model": ONNX, "inputs": {}, "mode": mode}).to_string();
        expect(infer(body).await, 400, "mode_not_supported", "mode");
    }
    expect(inputs(json!([1])).await, 422, "invalid_input", "inputs");
    expect(inputs(json!({})).await, 422, "missing_input", "inputs.X");
    expect(
        inputs(json!({"X": [vec![0.5; 63]]})).await,
        422,
        "wrong_shape",
        "inputs.X",
    );
    let got = inputs(json!({"X": [vec![json!("a"); 64]]})).await;
    assert_eq!((got.0, got.1.as_str()), (422, "wrong_dtype"));
    assert!(got.2.starts_with("inputs.X["), "{}", got.2);
    let nan = format!(
        "{{\"model\":\"{ONNX}\",\"inputs\":{{\"X\":[[NaN{}]]}}}}",
        ",0".repeat(63)
    );
    expect(infer(nan).await, 422, "not_finite", "inputs.X[0][0]");

    let completions = async |body: Value| error(h.post(COMPLETIONS, body.to_string(), None).await).await;
    let with = |name: &str, value: Value| {
        let mut body = chat(false, 4);
        body[name] = value;
        body
    };
    expect(
        completions(with("model", json!(ONNX))).await,
        400,
        "model_not_supported",
        "model",
    );
    expect(
        completions(with("messages", json!([]))).await,
        400,
        "invalid_parameter",
        "messages",
    );
    expect(
        completions(with("n", json!(2))).await,
        400,
        "unsupported_parameter",
        "n",
    );
    expect(
        completions(with("max_tokens", json!(0))).await,
        400,
        "invalid_parameter",
        "max_tokens",
    );
    expect(
        completions(with("max_tokens", json!(1_000_000))).await,
        400,
        "invalid_parameter",
        "max_tokens",
    );
    expect(
        completions(with("temperature", json!(9))).await,
        400,
        "invalid_parameter",
        "temperature",
    );
    expect(
        completions(with("tools", json!([{}]))).await,
        400,
        "unsupported_parameter",
        "tools",
    );
    expect(
        completions(with("nonsense", json!(1))).await,
        400,
        "unknown_parameter",
        "nonsense",
    );
    let long = json!([{"role": "user", "content": "a b c d ".repeat(20_000)}]);
    expect(
        completions(with("messages", long)).await,
        400,
        "context_length_exceeded",
        "messages",
    );

    let (status, body) = h.get("/v1/receipts/xyz").await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("invalid_receipt_id")));
    let (status, body) = h.get(&format!("/v1/receipts/0x{}", "12".repeat(32))).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("receipt_not_found")));
    assert_eq!(h.get("/nothing").await.0, 404);
    assert_eq!(h.get(INFER).await.0, 405);
    assert_eq!(
        h.chain.calls("eth_sendRawTransaction") + h.chain.calls("og_submitReceipt"),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_are_refused_and_not_kept() {
    let h = Harness::start().await;
    let body = vec![b' '; 100 << 20];
    expect(
        error(h.post(INFER, body, None).await).await,
        413,
        "body_too_large",
        "body",
    );
    // Without a declared length.
    let chunk = axum::body::Bytes::from(vec![b' '; 1 << 20]);
    let chunks = futures::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    expect(
        error(h.post(INFER, reqwest::Body::wrap_stream(chunks), None).await).await,
        413,
        "body_too_large",
        "body",
    );
    assert_eq!(h.get("/health").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_that_do_not_pay_are_refused_and_never_charged() {
    let h = Harness::start().await;
    let body = digits();
    let refused = async |payment: &str| error(h.post(INFER, body.to_string(), Some(payment)).await).await;
    let authorization = |name: &str| format!("payload.authorization.{name}");
    let offer = h.offer(INFER, &body).await;
    let with = |change: &dyn Fn(&mut opg_payments::eip3009::Authorization)| h.pay(offer.clone(), |a| change(a));

    expect(refused("%%%").await, 400, "payment_malformed", "PAYMENT-SIGNATURE");
    expect(
        refused(&"A".repeat(17_000)).await,
        400,
        "payment_malformed",
        "PAYMENT-SIGNATURE",
    );
    expect(
        refused(&with(&|a| a.value -= U256::from(1))).await,
        402,
        "payment_underpaid",
        &authorization("value"),
    );
    expect(
        refused(&with(&|a| a.valid_before = now() - 1)).await,
        402,
        "payment_expired",
        &authorization("validBefore"),
    );
    expect(
        refused(&with(&|a| a.valid_before = now() + 5)).await,
        402,
        "payment_expired",
        &authorization("validBefore"),
    );
    expect(
        refused(&with(&|a| a.valid_after = now() + 100)).await,
        402,
        "payment_not_yet_valid",
        &authorization("validAfter"),
    );
    expect(
        refused(&with(&|a| a.to = Address::repeat_byte(9))).await,
        402,
        "payment_wrong_payee",
        &authorization("to"),
    );
    // Somebody else's money.
    expect(
        refused(&with(&|a| a.from = Address::repeat_byte(9))).await,
        402,
        "payment_bad_signature",
        "payload.signature",
    );

    // A quote for another body, and a good payment shown with another body.
    let mut other = body.clone();
    other["inputs"]["X"][0][0] = json!(0.25);
    let elsewhere = h.pay(h.offer(INFER, &other).await, |_| {});
    expect(
        refused(&elsewhere).await,
        402,
        "payment_wrong_request",
        "accepted.extra.quote",
    );

    // Another node's quote.
    let second = Harness::with(|c| c.operator = Address::repeat_byte(0x77)).await;
    let theirs = h.pay(second.offer(INFER, &body).await, |_| {});
    let response = h.post(INFER, body.to_string(), Some(&theirs)).await;
    assert!(
        response.headers().contains_key("payment-required"),
        "a refused payment comes with a fresh offer"
    );
    assert!(response.headers().contains_key("payment-response"));
    expect(error(response).await, 402, "payment_wrong_payee", "accepted.payTo");

    // Not enough money.
    h.chain.lock().set_balance(h.payer(), opg_primitives::money::Amount(5));
    let poor = Harness::start().await;
    poor.chain
        .lock()
        .set_balance(poor.payer(), opg_primitives::money::Amount(5));
    let payment = poor.pay(poor.offer(INFER, &body).await, |_| {});
    let got = error(poor.post(INFER, body.to_string(), Some(&payment)).await).await;
    expect(got, 402, "payment_insufficient_funds", &authorization("from"));

    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(
        h.chain.calls("eth_sendRawTransaction") + h.chain.calls("og_submitReceipt"),
        0,
        "nothing was charged"
    );
}
