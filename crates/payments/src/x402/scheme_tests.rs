use super::{
    facilitator::{ChannelAction, FacilitatorRequest, MAX_BODY_BYTES},
    *,
};
use crate::{
    channel::{ChannelConfig, Deposit, DepositAuthorization, Voucher},
    eip712::Domain,
    permit2::{Permit, Witness},
    signature::{SecretKey, address_of_secret},
};
use opg_primitives::money::Amount;
use proptest::prelude::*;
use serde_json::json;

fn key() -> SecretKey {
    SecretKey::from_byte_array(&[7; 32]).unwrap()
}

fn config() -> ChannelConfig {
    ChannelConfig {
        payer: address_of_secret(&key()),
        payer_authorizer: address_of_secret(&key()),
        receiver: Address::repeat_byte(3),
        receiver_authorizer: Address::repeat_byte(4),
        token: Address::repeat_byte(5),
        withdraw_delay: 3600,
        salt: B256::ZERO,
    }
}

fn batch(authorization: Option<DepositAuthorization>) -> BatchPayload {
    let domain = Domain::batch_settlement(10_740);
    let config = config();
    let voucher = Voucher {
        channel_id: config.id(&domain),
        max_claimable: Amount(1000),
    };
    let action = authorization.map_or(BatchAction::Voucher, |authorization| {
        let deposit = Deposit::new(&config, &domain, Amount(5000), authorization);
        let signature = deposit.sign(&Domain::opg(10_740, config.token), &Domain::permit2(10_740), &key());
        BatchAction::Deposit(SignedDeposit {
            deposit,
            signature: signature.to_vec().into(),
        })
    });
    let signature = voucher.sign(&domain, &key()).to_vec().into();
    BatchPayload {
        config,
        voucher: SignedVoucher { voucher, signature },
        action,
    }
}

fn payloads() -> Vec<BatchPayload> {
    let erc3009 = DepositAuthorization::Erc3009 {
        valid_after: 0,
        valid_before: 9,
        salt: U256::from(1),
    };
    let permit2 = DepositAuthorization::Permit2 {
        nonce: U256::MAX,
        deadline: 9,
    };
    let mut all = vec![batch(None), batch(Some(erc3009)), batch(Some(permit2))];
    for amount in [None, Some(Amount(3))] {
        all.push(BatchPayload {
            action: BatchAction::Refund(amount),
            ..batch(None)
        });
    }
    all
}

fn permit(witness: Witness) -> Permit {
    Permit {
        from: address_of_secret(&key()),
        token: Address::repeat_byte(5),
        amount: U256::from(9),
        nonce: U256::from(7),
        deadline: 100,
        witness,
    }
}

#[test]
fn channel_payloads_round_trip() {
    for payload in payloads() {
        let value = payload.to_value();
        assert_eq!(BatchPayload::parse(&value).unwrap(), payload, "{value}");
        payload.bind(&Domain::batch_settlement(10_740)).unwrap();
        assert!(payload.bind(&Domain::batch_settlement(1)).is_err());
    }
}

#[test]
fn permit_payloads_round_trip_and_do_not_mix() {
    let to = Address::repeat_byte(2);
    let exact = permit(Witness::Exact { to, valid_after: 1 });
    let upto = permit(Witness::Upto {
        to,
        facilitator: to,
        valid_after: 0,
    });
    let value = permit_payload(&exact, &[1; 65]).unwrap();
    assert_eq!(
        ExactPayment::parse(&value).unwrap(),
        ExactPayment::Permit2(exact, Bytes::from(vec![1; 65]))
    );
    assert!(parse_upto(&value).is_err());
    let value = permit_payload(&upto, &[1; 65]).unwrap();
    assert_eq!(parse_upto(&value).unwrap(), (upto, Bytes::from(vec![1; 65])));
    assert!(ExactPayment::parse(&value).is_err());
    let deposit = permit(Witness::Deposit { channel_id: B256::ZERO });
    assert_eq!(permit_payload(&deposit, &[]), None);
    let delegated = json!({"delegationManager": "0x", "permissionContext": "0x", "delegator": "0x"});
    assert!(
        ExactPayment::parse(&delegated)
            .unwrap_err()
            .to_string()
            .contains("ERC-7710")
    );
}

/// Every leaf of every payload, replaced by nonsense, is refused with an error that names it.
#[test]
fn every_wrong_field_is_named() {
    fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, v)| leaves(v, &format!("{path}/{key}"), out)),
            _ => out.push(path.to_owned()),
        }
    }
    type Parse = fn(&Value) -> Result<(), X402Error>;
    let mut samples: Vec<(Value, Parse)> = payloads()
        .iter()
        .map(|p| (p.to_value(), (|v| BatchPayload::parse(v).map(drop)) as Parse))
        .collect();
    let to = Address::repeat_byte(2);
    let exact = permit_payload(&permit(Witness::Exact { to, valid_after: 1 }), &[1; 65]).unwrap();
    samples.push((exact, |v| ExactPayment::parse(v).map(drop)));
    let upto = permit_payload(
        &permit(Witness::Upto {
            to,
            facilitator: to,
            valid_after: 1,
        }),
        &[1; 65],
    )
    .unwrap();
    samples.push((upto, |v| parse_upto(v).map(drop)));
    let channel = payloads()[0].to_value();
    let row = json!({"voucher": {"channel": channel["channelConfig"], "maxClaimableAmount": "5"}, "signature": "0x11", "totalClaimed": "4"});
    let mut checked = 0;
    for (sample, parse) in &samples {
        parse(sample).unwrap();
        let mut paths = Vec::new();
        leaves(sample, "", &mut paths);
        for path in paths {
            for nonsense in [json!("zz"), json!(-1), json!(null), json!([]), json!("0x12zz")] {
                let mut changed = sample.clone();
                *changed.pointer_mut(&path).unwrap() = nonsense.clone();
                // A refund without an amount is a refund of everything.
                if path == "/amount" && nonsense.is_null() {
                    continue;
                }
                let error = parse(&changed).unwrap_err().to_string();
                let name = path.rsplit('/').next().unwrap();
                assert!(error.contains(name), "{path} = {nonsense}: {error}");
                checked += 1;
            }
        }
    }
    assert!(checked > 300, "{checked}");
    for payload in [
        json!({"type": "claim", "claims": [row]}),
        json!({"type": "settle", "receiver": to, "token": to}),
        json!({"type": "refund", "channelConfig": channel["channelConfig"], "amount": "3", "refundNonce": "0", "claims": [row]}),
    ] {
        ChannelAction::parse(&payload).unwrap();
    }
    let too_much = json!({"voucher": {"channel": channel["channelConfig"], "maxClaimableAmount": "5"}, "signature": "0x11", "totalClaimed": "6"});
    assert!(ChannelAction::parse(&json!({"type": "claim", "claims": [too_much]})).is_err());
    let many = vec![row; 101];
    assert!(ChannelAction::parse(&json!({"type": "claim", "claims": many})).is_err());
}

fn envelope() -> Value {
    json!({
        "x402Version": 2,
        "resource": {"url": "http://n/v1/infer"},
        "accepted": {
            "scheme": "batch-settlement", "network": "eip155:10740", "amount": "1000",
            "asset": Address::repeat_byte(5), "payTo": Address::repeat_byte(3), "maxTimeoutSeconds": 60,
        },
        "payload": batch(None).to_value(),
    })
}

#[test]
fn every_wrong_field_of_the_envelope_is_named() {
    let named = |pointer: &str, to: Value| {
        let mut changed = envelope();
        *changed.pointer_mut(pointer).unwrap() = to;
        let error = PaymentPayload::from_header(encode_header(&changed).as_bytes())
            .unwrap_err()
            .to_string();
        let path = pointer[1..].replace('/', ".");
        assert!(error.contains(&path), "{pointer}: {error}");
    };
    named("/x402Version", json!("2"));
    named("/accepted", json!([]));
    named("/accepted/scheme", json!(1));
    named("/accepted/network", json!(null));
    named("/accepted/amount", json!("1.5"));
    named("/accepted/asset", json!("0x12"));
    named("/accepted/payTo", json!(7));
    named("/accepted/maxTimeoutSeconds", json!("60"));
    named("/resource", json!("x"));
    named("/resource/url", json!(1));
    PaymentPayload::from_header(encode_header(&envelope()).as_bytes()).unwrap();
}

#[test]
fn identifiers_are_checked_and_bind_the_payment() {
    let with = |id: Value| {
        let mut payload: PaymentPayload = serde_json::from_value(envelope()).unwrap();
        payload.extensions = Some(
            json!({"payment-identifier": {"info": {"required": false, "id": id}}})
                .as_object()
                .unwrap()
                .clone(),
        );
        payload
    };
    let good = Identifier::of(&with(json!("pay_0123456789abcdef")), true)
        .unwrap()
        .unwrap();
    let mut other = with(json!("pay_0123456789abcdef"));
    other.payload["voucher"]["maxClaimableAmount"] = json!("1001");
    let other = Identifier::of(&other, true).unwrap().unwrap();
    assert_eq!(good.id, other.id);
    assert_ne!(good.payment, other.payment);
    for id in [
        json!("short"),
        json!("a".repeat(129)),
        json!("pay 0123456789abcdef"),
        json!(5),
    ] {
        let error = Identifier::of(&with(id), false).unwrap_err().to_string();
        assert!(error.contains("payment-identifier"), "{error}");
    }
    let plain: PaymentPayload = serde_json::from_value(envelope()).unwrap();
    assert_eq!(Identifier::of(&plain, false).unwrap(), None);
    assert!(Identifier::of(&plain, true).is_err());
    let mut extensions = Map::new();
    extensions.insert(PAYMENT_IDENTIFIER.to_owned(), identifier_offer(true));
    set_identifier(&mut extensions, "pay_0123456789abcdef");
    extensions.insert(HEADROOM.to_owned(), headroom_offer());
    let ours = PaymentPayload {
        extensions: Some(extensions),
        ..plain.clone()
    };
    assert_eq!(Identifier::of(&ours, true).unwrap().map(|i| i.id), Some(good.id));
    assert!(wants_headroom(&ours) && !wants_headroom(&plain));
}

#[test]
fn channel_state_and_offer_extra_round_trip() {
    let state = ChannelState {
        channel_id: B256::repeat_byte(1),
        balance: Amount(10),
        total_claimed: Amount(3),
        withdraw_requested_at: 5,
        refund_nonce: U256::from(2),
        charged_cumulative: Some(Amount(4)),
    };
    let extra = BatchExtra {
        receiver_authorizer: Address::repeat_byte(4),
        withdraw_delay: 3600,
        name: "OpenGradient".into(),
        version: "1".into(),
        by_permit2: true,
        min_deposit: Some(Amount(100)),
        channel_state: Some(state),
        voucher_state: Some(VoucherState {
            signed_max_claimable: Amount(9),
            signature: Bytes::from(vec![1; 65]),
        }),
    };
    let offer = PaymentRequirements {
        extra: Some(extra.to_map()),
        ..serde_json::from_value(envelope()["accepted"].clone()).unwrap()
    };
    assert_eq!(BatchExtra::parse(&offer).unwrap(), extra);
    let charge = ChargeExtra {
        charged: Amount(1),
        channel_state: state,
    };
    assert_eq!(ChargeExtra::parse(&charge.to_map()).unwrap(), charge);
}

#[test]
fn version_one_is_offered_on_base_only() {
    let offer = |chain: u64, scheme: &str, method: Option<&str>| PaymentRequirements {
        scheme: scheme.into(),
        network: network(chain),
        extra: Some(
            method
                .map(|m| ("assetTransferMethod".to_owned(), json!(m)))
                .into_iter()
                .collect(),
        ),
        ..serde_json::from_value(envelope()["accepted"].clone()).unwrap()
    };
    let resource = Resource {
        url: "http://n".into(),
        description: None,
        mime_type: None,
    };
    let names = |offers: &[PaymentRequirements]| {
        v1::PaymentRequired::of(offers, &resource, "pay")
            .map(|r| r.accepts.iter().map(|a| a.network.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(&[offer(10_740, EXACT, None)]), None);
    assert_eq!(
        names(&[
            offer(8453, EXACT, None),
            offer(84532, EXACT, None),
            offer(8453, UPTO, None),
            offer(8453, EXACT, Some("permit2"))
        ]),
        Some(vec!["base".into(), "base-sepolia".into()])
    );
    let header = |network: &str| {
        encode_header(
            &json!({"x402Version": 1, "scheme": "exact", "network": network, "payload": {
                "signature": "0x01",
                "authorization": {"from": Address::ZERO, "to": Address::ZERO, "value": "1", "validAfter": "0", "validBefore": "2", "nonce": B256::ZERO},
            }}),
        )
    };
    assert_eq!(
        v1::Payment::from_header(header("base").as_bytes()).unwrap().chain_id,
        8453
    );
    assert!(
        v1::Payment::from_header(header("opg").as_bytes())
            .unwrap_err()
            .to_string()
            .contains("network")
    );
}

#[test]
fn facilitator_requests_are_bounded_and_versioned() {
    let request = |version: u64| {
        serde_json::to_vec(&json!({"x402Version": version, "paymentPayload": envelope(), "paymentRequirements": envelope()["accepted"]})).unwrap()
    };
    FacilitatorRequest::parse(&request(2)).unwrap();
    assert!(matches!(
        FacilitatorRequest::parse(&request(1)),
        Err(X402Error::Version { got: 1 })
    ));
    assert!(matches!(
        FacilitatorRequest::parse(&vec![b' '; MAX_BODY_BYTES + 1]),
        Err(X402Error::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn any_json_never_panics(text in "\\PC{0,80}", pointer in 0_usize..40, number: i64) {
        let sample = payloads()[pointer % 5].to_value();
        let mut paths = ["/type", "/channelConfig/withdrawDelay", "/voucher/signature", "/deposit/authorization", "/voucher"];
        paths.rotate_left(pointer % 5);
        let mut changed = sample;
        if let Some(at) = changed.pointer_mut(paths[0]) {
            *at = if pointer % 2 == 0 { json!(text) } else { json!(number) };
        }
        let _ = BatchPayload::parse(&changed);
        let _ = ChannelAction::parse(&changed);
        let _ = ExactPayment::parse(&changed);
        let _ = parse_upto(&changed);
    }
}
