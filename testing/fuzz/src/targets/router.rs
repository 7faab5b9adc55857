//! What the router reads of requests, payments and registered endpoints.

use super::{target, words};
use crate::Target;
use opg_router::parsers::{endpoint, model_of, payee_of};
use serde_json::{Value, json};

pub(super) fn targets() -> Vec<Target> {
    let bodies = [
        json!({"model": "demo/echo", "inputs": {"model": "inner"}}),
        json!({"messages": [{"role": "user", "content": "\"model\": \"x\""}], "stream": true, "model": "a/b"}),
    ];
    let payment = json!({"x402Version": 2, "accepted": {"scheme": "exact", "payTo": format!("0x{}", "07".repeat(20))}});
    vec![
        target(
            "router-model",
            bodies.iter().map(|body| body.to_string().into_bytes()).collect(),
            |body| {
                let found = model_of(body, 7);
                assert_eq!(found, model_of(body, usize::MAX), "it depends on the pieces");
                let parsed: Result<Value, _> = serde_json::from_slice(body);
                if let Ok(Value::Object(object)) = &parsed
                    && let Some(found) = &found
                {
                    // A body with the key twice has a first and a last one; every other is read as a parser reads it.
                    let times = body.windows(7).filter(|part| *part == b"\"model\"").count();
                    let plain = !body.contains(&b'\\');
                    assert!(
                        times != 1 || !plain || object["model"] == found.as_str(),
                        "not what a parser reads"
                    );
                }
                format!("{} {}", found.is_some(), parsed.is_ok())
            },
        ),
        target("router-payee", vec![base64(payment.to_string().as_bytes())], |header| {
            words(payee_of(header), |payee| format!("{}", payee.is_some()))
        }),
        target(
            "router-endpoint",
            [
                &b"https://node.example:8443/api/"[..],
                b"http://127.0.0.1:8610",
                b"https://[2001:db8::1]/",
                b"http://user@10.0.0.1?x#y",
            ]
            .map(<[u8]>::to_vec)
            .to_vec(),
            |bytes| {
                let text = String::from_utf8_lossy(bytes);
                let private = endpoint(&text, true);
                let public = endpoint(&text, false);
                assert!(
                    public.is_err() || private == public,
                    "public addresses are taken either way"
                );
                if let Ok(url) = &public {
                    assert_eq!(endpoint(url, false).as_ref(), Ok(url), "the form is not its own form");
                }
                words(public, |_| "public".to_owned())
            },
        ),
    ]
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= three.len() { letter } else { b'=' });
        }
    }
    text
}
