//! Our signature layer and `dcap-qvl` on the same mutants of real quotes: neither accepts what the other refuses, but
//! for a few differences that have names.

mod common;

use common::Random;
use dcap_qvl::{QuoteCollateralV3, verify::QuoteVerifier};
use opg_evidence::{
    Kind, Reject, TrustRoots,
    dcap::{self, IntelCollateral},
};
use std::collections::BTreeMap;

const REAL: [(Kind, &str, &str, u64); 3] = [
    (
        Kind::Tdx,
        "tdx/phala_tdx_quote",
        "tdx/phala_tdx_quote_collateral.json",
        1_750_414_563,
    ),
    (
        Kind::Tdx,
        "tdx/phala_tdx_quote_td15ex",
        "tdx/phala_tdx_quote_td15ex_collateral.json",
        1_791_504_586,
    ),
    (
        Kind::Sgx,
        "sgx/phala_sgx_quote",
        "sgx/phala_sgx_quote_collateral.json",
        1_750_416_971,
    ),
];

fn mutate(random: &mut Random, raw: &[u8]) -> Vec<u8> {
    let mut changed = raw.to_vec();
    match random.below(5) {
        0 => changed.extend((0..random.below(4)).map(|_| random.below(256) as u8)),
        1 => changed.truncate(raw.len() - random.below(120)),
        2 => {
            let at = raw.len() - 1 - random.below(200);
            changed[at] ^= 1 << random.below(8);
        }
        3 => {
            let at = random.below(raw.len());
            changed[at] = random.below(256) as u8;
        }
        // Lengths and types lie at the edges of the parts.
        _ => {
            let at = [0, 2, 4, 48, 432, 632, 764][random.below(7)] + random.below(8);
            changed[at] ^= 1 << random.below(8);
        }
    }
    changed
}

/// Why `dcap-qvl` accepts what is refused here.
fn laxity(refused: &Reject) -> Option<&'static str> {
    match refused {
        // It reads no further than the structure's end.
        Reject::TrailingBytes { .. } => Some("bytes after the end"),
        // It takes the root from its caller and never looks at the copy in the quote.
        Reject::RootNotPinned { .. } => Some("another copy of the root"),
        // It reads the type around the quoting enclave's report and compares it with nothing.
        Reject::FieldValue { what, .. } if *what == "the certification data type" => Some("type of the certification"),
        // It finds blocks by other rules.
        Reject::Malformed { what: "a PEM text", .. } => Some("text around the certificates"),
        _ => None,
    }
}

#[test]
fn agrees_with_dcap_qvl_on_mutants() {
    let mutants = common::cases(1_000);
    let (mut both_accept, mut both_refuse, mut lax) = (0, 0, BTreeMap::<&str, u32>::new());
    for (index, (kind, file, beside, at)) in REAL.into_iter().enumerate() {
        let (Some(raw), Some(json)) = (common::sample(file), common::sample(beside)) else {
            return;
        };
        let collateral = IntelCollateral::from_json(&json).expect("collateral");
        let parts: QuoteCollateralV3 =
            serde_json::from_slice(&collateral.to_json().expect("JSON")).expect("the library's own shape");
        let library = QuoteVerifier::new_prod();
        let roots = TrustRoots::pinned();
        let good = dcap::check_signatures(kind, &raw, &roots, at).expect("a good quote");
        assert!(library.verify(&raw, &parts, at).is_ok(), "{file}");
        let mut random = Random(0x5eed_0001 + index as u64);
        for number in 0..mutants {
            let changed = mutate(&mut random, &raw);
            let own = dcap::check_signatures(kind, &changed, &roots, at);
            match (own, library.verify(&changed, &parts, at)) {
                (Ok(claims), Ok(_)) => {
                    assert_eq!(claims.evidence_id, good.evidence_id, "{file}: mutant {number}");
                    both_accept += 1;
                }
                (Err(_), Err(_)) => both_refuse += 1,
                (Err(refused), Ok(_)) => {
                    let why = laxity(&refused).unwrap_or_else(|| panic!("{file}: mutant {number}: {refused}"));
                    *lax.entry(why).or_default() += 1;
                }
                (Ok(_), Err(error)) => panic!("{file}: mutant {number} accepted here alone: {error:#}"),
            }
        }
    }
    println!("both accept {both_accept}, both refuse {both_refuse}, only dcap-qvl accepts {lax:?}");
    assert!(
        both_accept > 0 && both_refuse > mutants,
        "the mutants are of both sorts"
    );
    assert!(lax.contains_key("bytes after the end"), "{lax:?}");
}
