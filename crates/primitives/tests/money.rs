//! Money: conservation, rounding and text forms.

use opg_primitives::money::{Amount, MAX_ROYALTY_BPS, MoneyError, Price, Usage, WEI_PER_OPG, charge, split};
use proptest::prelude::*;

proptest! {
    #![proptest_config(opg_samples::cases(512))]

    #[test]
    fn a_split_conserves_every_wei(
        wei in prop_oneof![any::<u128>(), 0u128..1_000],
        royalty in 0..=MAX_ROYALTY_BPS,
        router: bool,
        auditors: bool,
        creator: bool,
    ) {
        let s = split(Amount(wei), royalty, router, auditors, creator).expect("a split");
        prop_assert_eq!(Amount::sum(s.parts()), Ok(Amount(wei)));
        prop_assert!(router || s.router.is_zero());
        prop_assert!(auditors == s.insurance.is_zero() || s.auditors.0 + s.insurance.0 == 0);
        prop_assert!(creator || s.creator.is_zero());
        // No share is off its exact value by a whole wei.
        let rest = wei - s.creator.0;
        prop_assert!((rest / 90 * 3).abs_diff(s.treasury.0) <= 4);
    }

    #[test]
    fn a_charge_leaves_the_node_its_base(
        per_call in 0u128..1 << 80,
        per_in in 0u128..1 << 80,
        input in 0u64..1 << 40,
        royalty in 0..=MAX_ROYALTY_BPS,
    ) {
        let price = Price {
            per_call: Amount(per_call),
            per_mtok_in: Amount(per_in),
            per_mtok_out: Amount::ZERO,
        };
        let usage = Usage { input, output: 0 };
        let base = charge(&price, usage, 0).expect("a base");
        let full = charge(&price, usage, royalty).expect("a charge");
        let parts = split(full, royalty, false, false, true).expect("a split");
        // What is left after the royalty is at least the base, and less than a wei and its rounding above it.
        let left = full.0 - parts.creator.0;
        prop_assert!(left >= base.0 && left <= base.0 + 2);
    }

    #[test]
    fn text_forms_round_trip(wei: u128) {
        let amount = Amount(wei);
        prop_assert_eq!(Amount::parse_opg(&amount.to_string()), Ok(amount));
        prop_assert_eq!(Amount::parse_wei(&wei.to_string()), Ok(amount));
        let json = serde_json::to_string(&amount).expect("JSON");
        prop_assert_eq!(&json, &format!("\"{wei}\""));
        prop_assert_eq!(serde_json::from_str::<Amount>(&json).expect("an amount"), amount);
    }

    #[test]
    fn reading_amounts_never_panics(text in ".{0,50}") {
        let _ = Amount::parse_opg(&text);
        let _ = Amount::parse_wei(&text);
    }
}

#[test]
fn amounts_in_words() {
    for (text, wei) in [
        ("0", 0),
        ("1.5", 3 * WEI_PER_OPG / 2),
        ("0.000000000000000001", 1),
        ("1000000000", 1_000_000_000 * WEI_PER_OPG),
    ] {
        assert_eq!(Amount::parse_opg(text), Ok(Amount(wei)));
        assert_eq!(Amount(wei).to_string(), text);
    }
    for bad in [
        "",
        ".5",
        "1.",
        "-1",
        "+1",
        "1e3",
        "1,5",
        " 1",
        "0x1",
        "1.0000000000000000000",
        "١",
    ] {
        assert!(
            matches!(Amount::parse_opg(bad), Err(MoneyError::NotOpg { .. })),
            "{bad:?}"
        );
    }
    let huge = "9".repeat(60);
    assert!(matches!(Amount::parse_opg(&huge), Err(MoneyError::Range { .. })));
    for bad in ["", "01", "+1", "1.0", "340282366920938463463374607431768211456"] {
        assert!(
            matches!(Amount::parse_wei(bad), Err(MoneyError::NotWei { .. })),
            "{bad:?}"
        );
    }
    assert!(serde_json::from_str::<Amount>("1").is_err());
}

#[test]
fn bounds_are_errors() {
    let price = Price {
        per_call: Amount::MAX,
        ..Price::default()
    };
    let usage = Usage::default();
    assert_eq!(charge(&price, usage, 0), Ok(Amount::MAX));
    assert!(matches!(charge(&price, usage, 1), Err(MoneyError::Range { .. })));
    assert!(matches!(
        charge(&price, usage, 3_001),
        Err(MoneyError::Royalty { got: 3_001, .. })
    ));
    assert!(split(Amount::MAX, 3_001, true, true, true).is_err());
    assert_eq!(Amount::MAX.checked_add(Amount(1)), None);
    assert!(Amount::sum([Amount::MAX, Amount(1)]).is_err());
}

#[test]
fn asks_stay_within_a_quarter_and_four_times() {
    let reference = Price {
        per_call: Amount(100),
        ..Price::default()
    };
    let ask = |wei| Price {
        per_call: Amount(wei),
        ..Price::default()
    };
    assert!(ask(25).is_admissible_ask(&reference) && ask(400).is_admissible_ask(&reference));
    assert!(!ask(24).is_admissible_ask(&reference) && !ask(401).is_admissible_ask(&reference));
    assert!(!ask(1).is_admissible_ask(&Price::default()));
    assert!(Price::default().is_admissible_ask(&Price::default()));
    assert!(!Price::default().is_admissible_ask(&reference));
}

#[test]
fn micro_usd_become_wei_rounded_up() {
    use opg_primitives::money::UsdPrice;
    let usd = UsdPrice {
        per_call: 500,
        per_mtok_in: 1,
        per_mtok_out: 0,
    };
    // 0.30 USD an OPG
    let price = usd.to_opg(300_000).unwrap();
    assert_eq!(price.per_call.wei(), 1_666_666_666_666_667);
    assert_eq!(price.per_mtok_in.wei(), 3_333_333_333_334);
    assert!(price.per_mtok_out.is_zero());
    // what was paid is worth at least the price, and less than a wei more
    for opg in [1, 7, 999_999, 1_000_000, 1_000_000_000_000] {
        let wei = usd.to_opg(opg).unwrap().per_call.wei();
        let worth = wei * opg;
        let asked = 500 * opg_primitives::money::WEI_PER_OPG;
        assert!(worth >= asked && worth - asked < opg, "{opg}");
    }
    assert!(usd.to_opg(0).is_err());
    let most = UsdPrice {
        per_call: u64::MAX,
        ..usd
    };
    most.to_opg(1).unwrap();
    assert!(price.is_at_most(&price));
    let dearer = Price {
        per_mtok_out: Amount(1),
        ..price
    };
    assert!(price.is_at_most(&dearer) && !dearer.is_at_most(&price));
}
