//! Pays calls of a node with the unmodified public Rust client of x402, `x402-reqwest`.
//!
//! ```text
//! x402-reqwest-client SCHEME URL KEY CALLS
//! ```
//! SCHEME is exact or upto. Each call prints one JSON line: status, the answer's receipt id and charge, and what the client was told about
//! the payment.

use alloy_signer_local::PrivateKeySigner;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::sync::Arc;
use x402_chain_eip155::{V2Eip155ExactClient, V2Eip155UptoClient};
use x402_reqwest::{ReqwestWithPayments as _, ReqwestWithPaymentsBuild as _, X402Client};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scheme, url, key, calls] = arguments.as_slice() else {
        return Err("SCHEME URL KEY CALLS".into());
    };
    let signer: Arc<PrivateKeySigner> = Arc::new(key.parse()?);
    let client = match scheme.as_str() {
        "exact" => X402Client::new().register(V2Eip155ExactClient::new(signer)),
        "upto" => X402Client::new().register(V2Eip155UptoClient::new(signer)),
        other => return Err(format!("no scheme {other:?}").into()),
    };
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .with_payments(client)
        .build();
    let body = json!({"model": "demo/digits-mlp", "inputs": {"X": [vec![0.0; 64]]}}).to_string();
    for _ in 0..calls.parse::<usize>()? {
        let answer = http
            .post(format!("{url}/v1/infer"))
            .header("content-type", "application/json")
            .body(body.clone())
            .send()
            .await?;
        let told = answer.headers().get("payment-response").cloned();
        let told = told.map(|header| STANDARD.decode(header.as_bytes())).transpose()?;
        let told: Option<Value> = told.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await?;
        let line = json!({
            "status": status,
            "receipt_id": answer["opg"]["receipt_id"],
            "charge": answer["opg"]["charge"],
            "error": answer["error"],
            "payment": told,
        });
        println!("{line}");
    }
    Ok(())
}
