use super::*;
use crate::config::Limits;
use opg_payments::signature::{SecretKey, address_of_secret};

const NOW: u64 = 1_800_000_000;

fn cashier(seed: u8) -> Cashier {
    let node = NodeId(B256::repeat_byte(seed));
    Cashier::new(
        10_740,
        node,
        KeysetDigest(B256::repeat_byte(seed + 1)),
        SigningKey::from_bytes(&[seed; 32]),
        Address::repeat_byte(seed + 2),
        (&Limits::default(), ChannelSettings::default()),
    )
}

fn terms() -> Terms {
    let ask = Price {
        per_call: Amount(1000),
        per_mtok_in: Amount(0),
        per_mtok_out: Amount(0),
    };
    Terms {
        model_root: ModelRoot(B256::repeat_byte(9)),
        ask,
        floating: false,
        royalty_bps: 0,
        max_amount: Amount(1000),
        mode: Mode::None,
        min_grade: Grade::None,
    }
}

const DIGEST: B256 = B256::repeat_byte(5);
const NONCE: B256 = B256::repeat_byte(1);

fn single(cashier: &Cashier, header: &[u8]) -> Single {
    match cashier.verify(header, &terms(), (DIGEST, NONCE), NOW).unwrap() {
        Verified::Single(single) => *single,
        Verified::Channel(call) => panic!("a channel's call: {call:?}"),
    }
}

fn wallet() -> SecretKey {
    SecretKey::from_byte_array(&[3; 32]).unwrap()
}

fn pay(cashier: &Cashier, change: impl FnOnce(&mut PaymentRequirements, &mut Authorization)) -> Vec<u8> {
    let offer = cashier
        .offer(
            &terms(),
            (DIGEST, NONCE),
            "http://n".into(),
            NOW,
            "payment required",
            None,
        )
        .unwrap();
    let exact = |way: &&PaymentRequirements| way.scheme == x402::EXACT;
    let mut accepted = offer.accepts.iter().find(exact).unwrap().clone();
    let mut authorization = Authorization {
        from: address_of_secret(&wallet()),
        to: accepted.pay_to,
        value: accepted.amount,
        valid_after: 0,
        valid_before: NOW + 600,
        nonce: B256::repeat_byte(8),
    };
    change(&mut accepted, &mut authorization);
    let signature = authorization.sign(&cashier.domains.token, &wallet());
    let payload = PaymentPayload::of_exact(accepted, &authorization, &signature).unwrap();
    x402::encode_header(&payload).into_bytes()
}

#[test]
fn a_payment_of_the_quote_is_taken() {
    let c = cashier(1);
    let verified = single(&c, &pay(&c, |_, _| {}));
    assert!(verified.signed_by_payer);
    assert_eq!(verified.amount, Amount(1000));
    assert_eq!(
        verified.quote.quote().receipt_id,
        receipt_id(10_740, &c.node_id, &B256::repeat_byte(1))
    );
}

#[test]
fn every_wrong_payment_has_its_code_and_field() {
    let c = cashier(1);
    let refused = |header: Vec<u8>, now| {
        let error = c.verify(&header, &terms(), (DIGEST, NONCE), now).unwrap_err();
        (error.status.as_u16(), error.code, error.param.unwrap_or_default())
    };
    let with =
        |change: &dyn Fn(&mut PaymentRequirements, &mut Authorization)| refused(pay(&c, |r, a| change(r, a)), NOW);
    let field = |name: &str| format!("payload.authorization.{name}");
    assert_eq!(
        with(&|_, a| a.to = Address::ZERO),
        (402, "payment_wrong_payee", field("to"))
    );
    assert_eq!(
        with(&|_, a| a.value -= U256::from(1)),
        (402, "payment_underpaid", field("value"))
    );
    assert_eq!(
        with(&|_, a| a.value += U256::from(1)),
        (402, "payment_overpaid", field("value"))
    );
    assert_eq!(
        with(&|_, a| a.valid_before = NOW),
        (402, "payment_expired", field("validBefore"))
    );
    assert_eq!(
        with(&|_, a| a.valid_before = NOW + 19),
        (402, "payment_expired", field("validBefore"))
    );
    assert_eq!(
        with(&|_, a| a.valid_after = NOW),
        (402, "payment_not_yet_valid", field("validAfter"))
    );
    assert_eq!(
        with(&|r, _| r.network = "eip155:1".into()),
        (402, "payment_wrong_network", "accepted.network".into())
    );
    assert_eq!(
        with(&|r, _| r.asset = Address::ZERO),
        (402, "payment_wrong_asset", "accepted.asset".into())
    );
    assert_eq!(
        with(&|r, _| r.pay_to = Address::ZERO),
        (402, "payment_wrong_payee", "accepted.payTo".into())
    );
    assert_eq!(
        with(&|r, _| r.scheme = "deferred".into()),
        (402, "payment_wrong_scheme", "accepted.scheme".into())
    );
    assert_eq!(
        with(&|r, _| r.amount = U256::ZERO),
        (402, "payment_underpaid", "accepted.amount".into())
    );
    let quote = "accepted.extra.quote".to_owned();
    assert_eq!(
        with(&|r, _| r.extra = None),
        (402, "payment_quote_invalid", quote.clone())
    );
    let replace = |text: &str| {
        with(&|r, _| {
            drop(
                r.extra
                    .as_mut()
                    .unwrap()
                    .insert("quote".into(), Value::String(text.into())),
            )
        })
    };
    assert_eq!(replace("!!"), (402, "payment_quote_invalid", quote.clone()));
    assert_eq!(replace("AAAA"), (402, "payment_quote_invalid", quote.clone()));
    assert_eq!(
        replace(&"A".repeat(5000)),
        (402, "payment_quote_invalid", quote.clone())
    );
    assert_eq!(
        refused(pay(&c, |_, a| a.valid_before = NOW + 6000), NOW + 120),
        (402, "payment_expired", quote.clone())
    );
    assert_eq!(
        refused(b"%".to_vec(), NOW),
        (400, "payment_malformed", "PAYMENT-SIGNATURE".into())
    );
    assert_eq!(
        refused(vec![b'A'; 20_000], NOW),
        (400, "payment_malformed", "PAYMENT-SIGNATURE".into())
    );
}

#[test]
fn quotes_of_other_nodes_requests_and_prices_are_refused() {
    let (c, other) = (cashier(1), cashier(7));
    let error = c
        .verify(&pay(&other, |_, _| {}), &terms(), (DIGEST, NONCE), NOW)
        .unwrap_err();
    assert_eq!(error.code, "payment_wrong_payee");
    let error = c
        .verify(&pay(&c, |_, _| {}), &terms(), (B256::ZERO, NONCE), NOW)
        .unwrap_err();
    assert_eq!(error.code, "payment_wrong_request");
    let dearer = Terms {
        ask: Price {
            per_call: Amount(2000),
            ..terms().ask
        },
        ..terms()
    };
    assert_eq!(
        c.verify(&pay(&c, |_, _| {}), &dearer, (DIGEST, NONCE), NOW)
            .unwrap_err()
            .code,
        "payment_quote_stale"
    );
    // Where the ask follows a price in USD, a quote holds for its time.
    let moved = Terms {
        floating: true,
        max_amount: Amount(2000),
        ..dearer
    };
    let kept = c.verify(&pay(&c, |_, _| {}), &moved, (DIGEST, NONCE), NOW).unwrap();
    let Verified::Single(kept) = kept else {
        panic!("an authorization")
    };
    assert_eq!(
        (kept.amount, kept.quote.quote().ask.per_call),
        (Amount(1000), Amount(1000))
    );
    let expired = NOW + Limits::default().quote_seconds;
    assert_eq!(
        c.verify(&pay(&c, |_, _| {}), &moved, (DIGEST, NONCE), expired)
            .unwrap_err()
            .code,
        "payment_expired"
    );
    // A quote with this node's id that it did not sign.
    let forger = Cashier {
        key: SigningKey::from_bytes(&[99; 32]),
        ..cashier(1)
    };
    assert_eq!(
        c.verify(&pay(&forger, |_, _| {}), &terms(), (DIGEST, NONCE), NOW)
            .unwrap_err()
            .code,
        "payment_quote_invalid"
    );
}

#[test]
fn a_signature_for_another_chain_is_not_the_payers() {
    let c = cashier(1);
    let elsewhere = Cashier {
        domains: Domains::new(8453, addresses::OPG),
        ..cashier(1)
    };
    assert!(!single(&c, &pay(&elsewhere, |_, _| {})).signed_by_payer);
}
