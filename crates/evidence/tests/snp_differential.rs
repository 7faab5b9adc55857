//! Our verifier and the crate `sev` on the same mutants of real reports.

mod common;
mod snp_support;

use common::Random;
use opg_evidence::snp::{Product, Report};
use sev::{
    certs::snp::{Certificate, Verifiable},
    firmware::guest::AttestationReport,
    parser::ByteParser,
};
use snp_support::{hardware, real};

/// Why `sev` 8.0.0 accepts a mutant that is refused here. It re-encodes the parsed report before it checks the
/// signature, so it never sees reserved bytes, and it reads 48 of 72 bytes of each scalar.
fn laxity(mutant: &[u8], original: &[u8]) -> Option<&'static str> {
    let parsed = Report::parse(original).unwrap();
    let turin = parsed.product().unwrap() == Some(Product::Turin);
    let tcb_reserved = |at: usize| {
        if turin {
            matches!(at % 8, 4..7)
        } else {
            matches!(at % 8, 2..6)
        }
    };
    let reserved_end = if parsed.version >= 5 { 0x208 } else { 0x1f8 };
    let cpu = if parsed.version >= 3 { 0x18b } else { 0x188 };
    let mut found = None;
    for at in (0..mutant.len()).filter(|at| mutant[*at] != original[*at]) {
        found = Some(match at {
            0x330..0x4a0 => "bytes after the scalars",
            0x2d0..0x2e8 | 0x318..0x330 => "padding of a scalar",
            0x38..0x40 | 0x180..0x188 | 0x1e0..0x1e8 | 0x1f0..0x1f8 if tcb_reserved(at) => {
                "reserved byte of a TCB value"
            }
            0x4c..0x50 | 0x1eb | 0x1ef => "reserved byte",
            _ if (cpu..0x1a0).contains(&at) || (reserved_end..0x2a0).contains(&at) => "reserved byte",
            _ => return None,
        });
    }
    found
}

/// Our verifier and `sev` over seeded mutants of real reports: whatever `sev` accepts and we refuse has a named reason;
/// whatever we accept, it accepts.
#[test]
fn differential_against_sev() {
    let mutants = common::cases(1_500);
    for (name, raw, beside, at) in real() {
        let vek = Certificate::from_der(&beside.certificates[0]).unwrap();
        let theirs =
            |raw: &[u8]| AttestationReport::from_bytes(raw).is_ok_and(|report| (&vek, &report).verify().is_ok());
        assert!(theirs(&raw), "{name}");
        let mut random = Random(0x5eed_0000 + at);
        let (mut both_refuse, mut lax) = (0, std::collections::BTreeMap::new());
        for index in 0..mutants {
            let mut mutant = raw.clone();
            for _ in 0..=random.below(3) {
                let byte = random.below(mutant.len());
                mutant[byte] ^= 1 << random.below(8);
            }
            if mutant == raw {
                continue;
            }
            match (hardware(&mutant, &beside, at), theirs(&mutant)) {
                (Ok(_), _) => panic!("{name}: mutant {index} accepted"),
                (Err(_), false) => both_refuse += 1,
                (Err(reject), true) => {
                    let why = laxity(&mutant, &raw).unwrap_or_else(|| panic!("{name}: mutant {index}: {reject}"));
                    *lax.entry(why).or_insert(0) += 1;
                }
            }
        }
        println!("{name}: both refuse {both_refuse}, only sev accepts {lax:?}");
        assert!(!lax.is_empty(), "the laxities are met, so the comparison looks at them");
    }
}
