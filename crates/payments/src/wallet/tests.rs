use super::*;
use crate::{signature::address_of_secret, x402};
use serde_json::json;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_byte_array(&[seed; 32]).unwrap()
}

fn offer(amount: u128) -> PaymentRequirements {
    let extra = BatchExtra {
        receiver_authorizer: Address::repeat_byte(4),
        withdraw_delay: 3600,
        name: "OpenGradient".into(),
        version: "1".into(),
        by_permit2: false,
        min_deposit: None,
        channel_state: None,
        voucher_state: None,
    };
    PaymentRequirements {
        scheme: BATCH_SETTLEMENT.into(),
        network: x402::network(10_740),
        amount: U256::from(amount),
        asset: Address::repeat_byte(5),
        pay_to: Address::repeat_byte(3),
        max_timeout_seconds: 60,
        extra: Some(extra.to_map()),
    }
}

fn wallet(balance: u128) -> ChannelWallet {
    let payer = address_of_secret(&key(1));
    let mut wallet = ChannelWallet::for_offer(&offer(1), payer, payer, B256::ZERO).unwrap();
    wallet.deposited(Amount(balance));
    wallet
}

fn state(wallet: &ChannelWallet, charged: u128) -> ChannelState {
    ChannelState {
        channel_id: wallet.id(),
        balance: Amount(1000),
        total_claimed: Amount::ZERO,
        withdraw_requested_at: 0,
        refund_nonce: U256::ZERO,
        charged_cumulative: Some(Amount(charged)),
    }
}

fn charge(wallet: &ChannelWallet, charged: u128) -> ChargeExtra {
    ChargeExtra {
        charged: Amount(charged),
        channel_state: state(wallet, 0),
    }
}

#[test]
fn calls_are_signed_ahead_and_counted() {
    let mut w = wallet(1000);
    let first = w.sign_call(Amount(100), false, &key(1)).unwrap();
    assert_eq!(first.voucher.voucher.max_claimable, Amount(100));
    assert!(
        w.sign_call(Amount(100), false, &key(1)).is_err(),
        "a stock server takes one at a time"
    );
    let extra = charge(&w, 101);
    assert!(matches!(
        w.answered(Amount(100), &extra),
        Err(WalletError::Overcharged {
            got: 101,
            limit: 100,
            ..
        })
    ));
    let extra = charge(&w, 40);
    w.answered(Amount(100), &extra).unwrap();
    assert!(w.answered(Amount(100), &extra).is_err(), "one charge a call");
    assert_eq!((w.charged, w.available()), (Amount(40), Amount(960)));
    // Several at once, each ceiling new although money is left under the old ones.
    let ceilings: Vec<_> = (0..3)
        .map(|_| {
            w.sign_call(Amount(10), true, &key(1))
                .unwrap()
                .voucher
                .voucher
                .max_claimable
                .wei()
        })
        .collect();
    assert_eq!(ceilings, [101, 102, 103]);
    assert_eq!(w.available(), Amount(930));
    w.refused(Amount(102));
    assert!(matches!(
        w.sign_call(Amount(941), true, &key(1)),
        Err(WalletError::Balance { missing: 1, .. })
    ));
    assert!(w.sign_refund(None, &key(1)).is_err());
    let restored: ChannelWallet = serde_json::from_slice(&w.to_json().unwrap()).unwrap();
    assert_eq!(restored, w);
}

#[test]
fn only_a_state_with_our_signature_is_adopted() {
    let mut w = wallet(1000);
    let me = address_of_secret(&key(1));
    let voucher = |seed: u8, ceiling: u128| {
        let voucher = Voucher {
            channel_id: wallet(0).id(),
            max_claimable: Amount(ceiling),
        };
        let signature = voucher
            .sign(&Domain::batch_settlement(10_740), &key(seed))
            .to_vec()
            .into();
        VoucherState {
            signed_max_claimable: Amount(ceiling),
            signature,
        }
    };
    let untouched = w.clone();
    let refused = |w: &mut ChannelWallet, charged, shown: Option<&VoucherState>, chain| {
        let state = state(w, charged);
        assert!(w.resynchronise(&state, shown, me, chain).is_err());
        assert_eq!(*w, untouched);
    };
    refused(&mut w, 50, None, None);
    refused(&mut w, 50, Some(&voucher(2, 100)), None);
    refused(&mut w, 101, Some(&voucher(1, 100)), None);
    refused(&mut w, 50, Some(&voucher(1, 100)), Some(Amount(51)));
    refused(&mut w, 50, None, Some(Amount(49)));
    let mut raised = voucher(1, 100);
    raised.signed_max_claimable = Amount(900);
    refused(&mut w, 500, Some(&raised), None);
    let mut foreign = state(&w, 50);
    foreign.channel_id = B256::ZERO;
    assert!(w.resynchronise(&foreign, Some(&voucher(1, 100)), me, None).is_err());
    let good = state(&w, 50);
    w.resynchronise(&good, Some(&voucher(1, 100)), me, Some(Amount(20)))
        .unwrap();
    assert_eq!((w.charged, w.signed), (Amount(50), Amount(100)));
    let next = w.sign_call(Amount(10), false, &key(1)).unwrap();
    assert_eq!(next.voucher.voucher.max_claimable, Amount(60));
}

#[test]
fn offers_for_other_channels_are_named() {
    let w = wallet(0);
    w.check_offer(&offer(5)).unwrap();
    let field = |change: &dyn Fn(&mut PaymentRequirements)| {
        let mut offer = offer(5);
        change(&mut offer);
        match w.check_offer(&offer).unwrap_err() {
            WalletError::OtherChannel { field, .. } => field,
            other => panic!("{other}"),
        }
    };
    let extra = |key: &'static str, value: serde_json::Value| {
        move |o: &mut PaymentRequirements| drop(o.extra.as_mut().unwrap().insert(key.into(), value.clone()))
    };
    assert_eq!(field(&|o| o.scheme = "exact".into()), "scheme");
    assert_eq!(field(&|o| o.network = x402::network(1)), "network");
    assert_eq!(field(&|o| o.asset = Address::ZERO), "asset");
    assert_eq!(field(&|o| o.pay_to = Address::ZERO), "payTo");
    assert_eq!(
        field(&extra("receiverAuthorizer", json!(Address::ZERO))),
        "extra.receiverAuthorizer"
    );
    assert_eq!(field(&extra("withdrawDelay", json!(3601))), "extra.withdrawDelay");
}

#[test]
fn limits_hold_over_their_windows() {
    let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
    let limits = SpendLimits {
        per_call: Some(Amount(50)),
        per_day: Some(Amount(100)),
        per_payee_day: Some(Amount(60)),
        payees: [(b, Amount(70))].into(),
    };
    let mut log = SpendLog::default();
    let refused =
        |log: &mut SpendLog, payee, bound, now| log.book(&limits, payee, Amount(bound), now).unwrap_err().limit;
    assert_eq!(refused(&mut log, a, 51, 0), "per-call");
    assert_eq!(refused(&mut log, a, u128::MAX, 0), "per-call");
    let first = log.book(&limits, a, Amount(50), 100).unwrap();
    assert_eq!(refused(&mut log, a, 11, 200), "daily payee");
    log.settle(first, Amount(30));
    log.book(&limits, a, Amount(30), 200).unwrap();
    log.book(&limits, b, Amount(40), 300).unwrap();
    assert_eq!(refused(&mut log, b, 1, 300), "daily");
    // Neither an earlier clock nor a day less a second frees anything.
    assert_eq!(refused(&mut log, b, 1, 0), "daily");
    assert_eq!(refused(&mut log, b, 1, 100 + DAY_LESS_ONE), "daily");
    let restored: SpendLog = serde_json::from_str(&serde_json::to_string(&log).unwrap()).unwrap();
    assert_eq!(restored, log);
    log.book(&limits, b, Amount(30), 101 + DAY_LESS_ONE).unwrap();
    assert_eq!(refused(&mut log, b, 1, 101 + DAY_LESS_ONE), "daily");
    let refund = log.book(&SpendLimits::default(), a, Amount(u128::MAX), 500).unwrap();
    log.settle(refund, Amount::ZERO);
}

const DAY_LESS_ONE: u64 = 24 * 3600 - 1;
