use super::*;
use proptest::prelude::*;
use serde_json::json;

/// What @x402/fetch 2.27 sends for an offer of ours, with its checksummed addresses and an `extra` key of its own.
fn stock_payload() -> Value {
    json!({
        "x402Version": 2,
        "resource": {"url": "http://127.0.0.1:8610/v1/infer", "description": "", "mimeType": "application/json"},
        "accepted": {
            "scheme": "exact", "network": "eip155:10740", "amount": "1000000000000000",
            "asset": "0x0000000000000000000000000000000000001001", "payTo": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "maxTimeoutSeconds": 120,
            "extra": {"name": "OpenGradient", "version": "1", "receiptId": "0x01", "quote": "abc", "vendorKey": {"deep": [1, 2]}}
        },
        "payload": {
            "signature": format!("0x{}", "ab".repeat(65)),
            "authorization": {
                "from": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "to": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
                "value": "1000000000000000", "validAfter": "0", "validBefore": "1763680000", "nonce": format!("0x{}", "01".repeat(32))
            }
        },
        "extensions": {"offer-receipt": {"info": {}}}
    })
}

#[test]
fn stock_payload_is_read_and_unknown_extra_kept() {
    let header = encode_header(&stock_payload());
    let payload = PaymentPayload::from_header(header.as_bytes()).unwrap();
    assert_eq!(
        payload.accepted.extra.as_ref().unwrap()["vendorKey"],
        json!({"deep": [1, 2]})
    );
    assert_eq!(payload.accepted.extra_str("quote"), Some("abc"));
    let (authorization, signature) = payload.exact().unwrap();
    assert_eq!(authorization.value, U256::from(1_000_000_000_000_000_u64));
    assert_eq!(authorization.valid_before, 1_763_680_000);
    assert_eq!(signature.len(), 65);
    let rebuilt = serde_json::to_value(ExactPayload::new(&authorization, &signature)).unwrap();
    assert_eq!(rebuilt["authorization"]["value"], "1000000000000000");
    assert_eq!(rebuilt["authorization"]["validAfter"], "0");
    assert_eq!(ExactPayload::parse(&rebuilt).unwrap(), (authorization, signature));
}

#[test]
fn required_has_the_exact_bytes_of_the_protocol() {
    let required = PaymentRequired {
        x402_version: 2,
        error: Some("payment required".into()),
        resource: Resource {
            url: "http://n/v1/infer".into(),
            description: None,
            mime_type: Some("application/json".into()),
        },
        accepts: vec![PaymentRequirements {
            scheme: EXACT.into(),
            network: network(10740),
            amount: U256::from(7),
            asset: Address::with_last_byte(1),
            pay_to: Address::with_last_byte(2),
            max_timeout_seconds: 60,
            extra: Some(
                json!({"name": "OpenGradient", "version": "1"})
                    .as_object()
                    .unwrap()
                    .clone(),
            ),
        }],
        extensions: None,
    };
    assert_eq!(
        serde_json::to_string(&required).unwrap(),
        concat!(
            r#"{"x402Version":2,"error":"payment required","resource":{"url":"http://n/v1/infer","mimeType":"application/json"},"#,
            r#""accepts":[{"scheme":"exact","network":"eip155:10740","amount":"7","asset":"0x0000000000000000000000000000000000000001","#,
            r#""payTo":"0x0000000000000000000000000000000000000002","maxTimeoutSeconds":60,"extra":{"name":"OpenGradient","version":"1"}}]}"#
        )
    );
    assert_eq!(
        decode_header::<PaymentRequired>(encode_header(&required).as_bytes()).unwrap(),
        required
    );
}

#[test]
fn match_ignores_extra_and_a_larger_amount_only() {
    let offer = PaymentPayload::from_header(encode_header(&stock_payload()).as_bytes())
        .unwrap()
        .accepted;
    let mut accepted = offer.clone();
    accepted.extra = None;
    accepted.amount += U256::from(1);
    accepted.max_timeout_seconds = 1;
    assert_eq!(offer.matches(&accepted), Ok(()));
    let field = |change: &dyn Fn(&mut PaymentRequirements)| {
        let mut accepted = offer.clone();
        change(&mut accepted);
        offer.matches(&accepted).unwrap_err().field
    };
    assert_eq!(field(&|a| a.scheme = "upto".into()), "scheme");
    assert_eq!(field(&|a| a.network = network(1)), "network");
    assert_eq!(field(&|a| a.asset = Address::ZERO), "asset");
    assert_eq!(field(&|a| a.pay_to = Address::ZERO), "payTo");
    assert_eq!(field(&|a| a.amount -= U256::from(1)), "amount");
}

#[test]
fn bad_headers_are_named() {
    let decode = |bytes: &[u8]| PaymentPayload::from_header(bytes).unwrap_err();
    assert!(
        matches!(decode(&vec![b'A'; MAX_HEADER_BYTES + 1]), X402Error::TooLong { got } if got == MAX_HEADER_BYTES + 1)
    );
    assert!(matches!(decode(b"%%%"), X402Error::Base64(_)));
    assert!(matches!(decode(b"e30="), X402Error::Json(_)));
    let mut v1 = stock_payload();
    v1["x402Version"] = json!(1);
    assert!(matches!(
        decode(encode_header(&v1).as_bytes()),
        X402Error::Version { got: 1 }
    ));
    for amount in [
        json!(5),
        json!("-1"),
        json!("0x10"),
        json!("1.5"),
        json!(""),
        json!("01"),
        json!("9".repeat(79)),
    ] {
        let mut payload = stock_payload();
        payload["accepted"]["amount"] = amount;
        assert!(matches!(decode(encode_header(&payload).as_bytes()), X402Error::Json(_)));
    }
}

#[test]
fn bad_payload_fields_are_named() {
    let field = |path: &[&str], value: Value| {
        let mut payload = stock_payload()["payload"].clone();
        let mut at = &mut payload;
        for key in path {
            at = &mut at[*key];
        }
        *at = value;
        match ExactPayload::parse(&payload).unwrap_err() {
            X402Error::Payload { field, .. } => field,
            other => panic!("{other}"),
        }
    };
    assert_eq!(field(&["signature"], json!("zz")), "signature");
    assert_eq!(field(&["signature"], json!("ab".repeat(2000))), "signature");
    assert_eq!(field(&["authorization"], json!(null)), "authorization");
    assert_eq!(field(&["authorization", "from"], json!("0x12")), "authorization.from");
    assert_eq!(field(&["authorization", "to"], json!("0x12")), "authorization.to");
    assert_eq!(field(&["authorization", "value"], json!("ten")), "authorization.value");
    assert_eq!(
        field(&["authorization", "validAfter"], json!("-1")),
        "authorization.validAfter"
    );
    assert_eq!(
        field(&["authorization", "validBefore"], json!("99999999999999999999999")),
        "authorization.validBefore"
    );
    assert_eq!(field(&["authorization", "nonce"], json!("0x12")), "authorization.nonce");
    assert_eq!(field(&["authorization", "nonce"], json!(5)), "nonce");
}

proptest! {
    #[test]
    fn any_header_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = PaymentPayload::from_header(&bytes);
        let _ = PaymentPayload::from_header(BASE64.encode(&bytes).as_bytes());
    }

    #[test]
    fn decimal_round_trips(bytes: [u8; 32]) {
        let value = U256::from_be_bytes(bytes);
        prop_assert_eq!(decimal::parse(&value.to_string()), Some(value));
    }
}
