//! Payments signed by the unmodified public clients (npm @x402/* 2.27.0, PyPI x402 2.25.0), read, hashed and verified here; and
//! the same payments signed here, byte for byte what those clients sign (both sign deterministically, RFC 6979).

use alloy_primitives::{Address, B256, Bytes, U256};
use opg_payments::{
    channel::{ChannelConfig, ClaimEntry, Refund, claim_batch_digest},
    eip712::Domain,
    signature::{SecretKey, address_of_secret, sign_digest},
    x402::{
        BatchAction, BatchExtra, BatchPayload, ExactPayment, Identifier, PaymentPayload, SignedDeposit, SignedVoucher,
        encode_header, parse_upto, permit_payload, v1,
    },
};
use opg_primitives::money::Amount;
use serde_json::Value;

const FILES: [(&str, &str); 2] = [
    ("npm", include_str!("../../../testing/vectors/x402-payloads/npm.json")),
    ("pypi", include_str!("../../../testing/vectors/x402-payloads/pypi.json")),
];

struct World {
    token: Domain,
    permit2: Domain,
    channels: Domain,
    payer: SecretKey,
    authorizer: SecretKey,
    delegate: SecretKey,
}

fn key(file: &Value, name: &str) -> SecretKey {
    let bytes: B256 = file[name].as_str().unwrap().parse().unwrap();
    SecretKey::from_byte_array(&bytes.0).unwrap()
}

fn world(file: &Value) -> World {
    let token: Address = file["token"].as_str().unwrap().parse().unwrap();
    let chain = file["chain_id"].as_u64().unwrap();
    // The names with which the clients signed are those of our token.
    assert_eq!(file["token_name"], opg_payments::eip3009::OPG_NAME);
    assert_eq!(file["token_version"], opg_payments::eip3009::OPG_VERSION);
    World {
        token: Domain::opg(chain, token),
        permit2: Domain::permit2(chain),
        channels: Domain::batch_settlement(chain),
        payer: key(file, "payer_key"),
        authorizer: key(file, "authorizer_key"),
        delegate: key(file, "delegate_key"),
    }
}

fn batch(world: &World, name: &str, payload: &PaymentPayload) {
    let parsed = BatchPayload::parse(&payload.payload).unwrap();
    parsed.bind(&world.channels).unwrap();
    let extra = BatchExtra::parse(&payload.accepted).unwrap();
    assert_eq!(
        extra.receiver_authorizer,
        address_of_secret(&world.authorizer),
        "{name}"
    );
    assert_eq!(extra.min_deposit, Some(Amount(1_000_000)), "{name}");
    let config = parsed.config;
    assert_eq!(config.payer, address_of_secret(&world.payer), "{name}");
    let signer = if name.ends_with("delegated") {
        &world.delegate
    } else {
        &world.payer
    };
    assert_eq!(config.payer_authorizer, address_of_secret(signer), "{name}");
    let SignedVoucher { voucher, signature } = &parsed.voucher;
    let public = voucher
        .recover(&world.channels, signature, config.payer_authorizer)
        .unwrap();
    voucher.verify(&world.channels, signature, &public).unwrap();
    assert_eq!(
        voucher.sign(&world.channels, signer)[..],
        signature[..],
        "{name}: voucher"
    );
    match &parsed.action {
        BatchAction::Deposit(SignedDeposit { deposit, signature }) => {
            deposit.verify(&world.token, &world.permit2, signature).unwrap();
            let ours = deposit.sign(&world.token, &world.permit2, &world.payer);
            assert_eq!(ours[..], signature[..], "{name}: deposit");
            assert!(
                deposit.valid_at(1_800_000_060) && !deposit.valid_at(1_800_000_121),
                "{name}"
            );
        }
        BatchAction::Refund(amount) => assert_eq!(*amount, Some(Amount(5)), "{name}"),
        BatchAction::Voucher => {}
    }
    assert_eq!(
        parsed.to_value(),
        payload.payload,
        "{name}: the JSON that we would send"
    );
}

#[test]
fn what_the_public_clients_sign_is_what_this_crate_signs() {
    for (file_name, text) in FILES {
        let file: Value = serde_json::from_str(text).unwrap();
        let world = world(&file);
        let mut schemes = std::collections::BTreeMap::new();
        for vector in file["vectors"].as_array().unwrap() {
            let name = format!("{file_name} {}", vector["name"].as_str().unwrap());
            let header = vector["header"].as_str().unwrap();
            if name.ends_with("v1-exact") {
                version_one(&world, &name, header, vector);
                continue;
            }
            let payload = PaymentPayload::from_header(header.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            payload.accepted.matches(&payload.accepted).unwrap();
            *schemes.entry(payload.accepted.scheme.clone()).or_insert(0) += 1;
            match payload.accepted.scheme.as_str() {
                "exact" => match ExactPayment::parse(&payload.payload).unwrap() {
                    ExactPayment::Eip3009(authorization, signature) => {
                        authorization.verify(&world.token, &signature).unwrap();
                        let ours = authorization.sign(&world.token, &world.payer);
                        assert_eq!(ours[..], signature[..], "{name}");
                        assert_eq!(authorization.valid_before, 1_800_000_120, "{name}");
                    }
                    ExactPayment::Permit2(permit, signature) => {
                        permit.verify(&world.permit2, &signature).unwrap();
                        assert_eq!(permit.sign(&world.permit2, &world.payer)[..], signature[..], "{name}");
                        assert_eq!(permit_payload(&permit, &signature).unwrap(), payload.payload, "{name}");
                    }
                },
                "upto" => {
                    let (permit, signature) = parse_upto(&payload.payload).unwrap();
                    permit.verify(&world.permit2, &signature).unwrap();
                    assert_eq!(permit.sign(&world.permit2, &world.payer)[..], signature[..], "{name}");
                    assert_eq!(permit_payload(&permit, &signature).unwrap(), payload.payload, "{name}");
                }
                "batch-settlement" => batch(&world, &name, &payload),
                other => panic!("{name}: {other}"),
            }
            let identifier = Identifier::of(&payload, name.ends_with("payment-identifier")).unwrap();
            assert_eq!(identifier.is_some(), name.ends_with("payment-identifier"), "{name}");
            let again = PaymentPayload::from_header(encode_header(&payload).as_bytes()).unwrap();
            assert_eq!(again, payload, "{name}");
        }
        assert_eq!(
            schemes.keys().collect::<Vec<_>>(),
            ["batch-settlement", "exact", "upto"],
            "{file_name}"
        );
        assert!(schemes["batch-settlement"] >= 4, "{file_name}");
    }
}

fn version_one(world: &World, name: &str, header: &str, vector: &Value) {
    let payment = v1::Payment::from_header(header.as_bytes()).unwrap();
    assert_eq!(payment.chain_id, 84532);
    let usdc = "0x036CbD53842c5426634e7929541eC2318f3dCF7e".parse().unwrap();
    let domain = Domain::new("USDC", "2", 84532, usdc);
    payment.authorization.verify(&domain, &payment.signature).unwrap();
    assert_eq!(
        payment.authorization.sign(&domain, &world.payer)[..],
        payment.signature[..],
        "{name}"
    );
    assert_eq!(vector["payload"]["network"], "base-sepolia");
}

#[test]
fn claims_and_refunds_are_signed_as_the_public_server_signs_them() {
    let file: Value = serde_json::from_str(FILES[1].1).unwrap();
    let world = world(&file);
    let receiver = &file["receiver"];
    let config: ChannelConfig = serde_json::from_value(receiver["channelConfig"].clone()).unwrap();
    let channel_id = config.id(&world.channels);
    assert_eq!(receiver["channelId"], channel_id.to_string());
    let amount = |value: &Value| Amount(value.as_str().unwrap().parse().unwrap());
    let entries: Vec<_> = receiver["claims"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| ClaimEntry {
            channel_id,
            max_claimable: amount(&row["maxClaimableAmount"]),
            total_claimed: amount(&row["totalClaimed"]),
        })
        .collect();
    assert_eq!(entries.len(), 3);
    let signature = |name: &str| receiver[name].as_str().unwrap().parse::<Bytes>().unwrap();
    let ours = sign_digest(claim_batch_digest(&world.channels, &entries), &world.authorizer);
    assert_eq!(ours[..], signature("claimSignature")[..]);
    let refund = Refund {
        channel_id,
        nonce: U256::from(7),
        amount: amount(&receiver["refund"]["amount"]),
    };
    let ours = sign_digest(refund.digest(&world.channels), &world.authorizer);
    assert_eq!(ours[..], signature("refundSignature")[..]);
}
