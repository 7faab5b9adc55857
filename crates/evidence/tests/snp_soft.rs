//! SNP reports of the software attester: what no real firmware would sign, signed, so that only the rule itself is left
//! to refuse it.
#![cfg(feature = "soft")]

mod common;
mod snp_support;

use opg_evidence::{
    Development, EvidenceVerifier, Expected, Policy, Reject, TrustRoots,
    claims::{Claims, Signer},
    snp::{
        Product, SigningKey, SnpCollateral, SnpVerifier, Tcb,
        soft::{SoftEndorsement, SoftPki, SoftSnp, Validity},
    },
};
use snp_support::{hardware, name, real};
use std::sync::OnceLock;

const NOW: u64 = 1_760_000_000;
const VALIDITY: Validity = Validity {
    not_before: 1_750_000_000,
    not_after: 2_000_000_000,
};

fn pki() -> &'static SoftPki {
    static PKI: OnceLock<SoftPki> = OnceLock::new();
    PKI.get_or_init(|| SoftPki::generate_with([7; 32], VALIDITY, 2_048).unwrap())
}

fn roots(product: Product) -> TrustRoots<Development> {
    TrustRoots::development(vec![pki().anchor(product).unwrap()])
}

fn soft(product: Product, raw: &[u8], beside: &SnpCollateral) -> Result<Claims, Reject> {
    SnpVerifier::new()
        .verify(raw, beside, &roots(product), NOW)
        .map(|verdict| verdict.into_claims())
}

fn endorsement(product: Product, key: SigningKey) -> SoftEndorsement {
    let fmc = if product == Product::Turin { 1 } else { 0 };
    let tcb = Tcb {
        fmc,
        bootloader: 4,
        tee: 1,
        snp: 24,
        microcode: 84,
    };
    let mut chip_id = [0; 64];
    chip_id[..product.chip_id_bytes()].fill(0xc1);
    SoftEndorsement {
        key,
        product,
        tcb,
        chip_id,
        validity: VALIDITY,
    }
}

/// Evidence of either grade under the roots of the other.
#[test]
fn grades_do_not_mix() {
    for (sample, raw, beside, at) in real() {
        let outcome = SnpVerifier::new().verify(&raw, &beside, &roots(Product::Milan), at);
        assert_eq!(outcome.unwrap_err().name(), "ROOT_NOT_PINNED", "{sample}");
    }
    let chip = SoftSnp::new(pki(), Product::Milan, [1; 32]).unwrap();
    let outcome = hardware(&chip.quote([9; 64]), chip.collateral(), NOW);
    assert_eq!(name(outcome), "ROOT_NOT_PINNED");
}

/// With keys of AMD's size.
#[test]
fn a_chain_in_full() {
    let pki = SoftPki::generate([6; 32], VALIDITY).unwrap();
    let chip = SoftSnp::new(&pki, Product::Genoa, [1; 32]).unwrap();
    let roots = TrustRoots::development(vec![pki.anchor(Product::Genoa).unwrap()]);
    let verdict = SnpVerifier::new().verify(&chip.quote([9; 64]), chip.collateral(), &roots, NOW);
    assert_eq!(verdict.unwrap().claims().bound.as_ref(), [9; 64]);
}

#[test]
fn development_evidence() {
    for product in Product::ALL {
        let chip = SoftSnp::new(pki(), product, [1; 32]).unwrap();
        let quote = chip.quote([9; 64]);
        assert_eq!(
            quote,
            SoftSnp::new(pki(), product, [1; 32]).unwrap().quote([9; 64]),
            "same seed, same bytes"
        );
        let claims = soft(product, &quote, chip.collateral()).unwrap();
        assert_eq!(claims.bound.as_ref(), [9; 64]);
        assert_eq!(claims.format, format!("snp-v5-{}", product.name().to_lowercase()));
        assert!(matches!(&claims.signer, Signer::ChipId(id) if id.as_ref().len() == product.chip_id_bytes()));
        assert_eq!(name(hardware(&quote, chip.collateral(), NOW)), "ROOT_NOT_PINNED");
        assert_eq!(
            name(soft(
                product,
                &quote,
                SoftSnp::new(pki(), product, [2; 32]).unwrap().collateral()
            )),
            "CHIP_ID"
        );
        let other = if product == Product::Milan {
            Product::Genoa
        } else {
            Product::Milan
        };
        assert_eq!(name(soft(other, &quote, chip.collateral())), "ROOT_NOT_PINNED");
    }
}

/// Bodies that real firmware would not sign, signed: only the rule itself is left to refuse them.
#[test]
fn signed_but_wrong_bodies() {
    let chip = SoftSnp::new(pki(), Product::Turin, [1; 32]).unwrap();
    let judge = |at: usize, bytes: &[u8]| {
        let mut body = chip.body([9; 64]);
        body[at..at + bytes.len()].copy_from_slice(bytes);
        let verdict = match SnpVerifier::new().verify(&chip.sign(&body), chip.collateral(), &roots(Product::Turin), NOW)
        {
            Ok(verdict) => verdict,
            Err(reject) => return reject.name(),
        };
        let strict = Policy {
            allow_smt: true,
            allow_provisional_firmware: false,
            ..Policy::default()
        };
        strict
            .judge(verdict, &Expected::default(), NOW)
            .map_or_else(|reject| reject.name(), |_| "ACCEPTED")
    };
    assert_eq!(judge(0, &[5]), "ACCEPTED");
    for version in [0, 1, 6, 7, 255] {
        assert_eq!(judge(0, &[version]), "VERSION");
    }
    assert_eq!(judge(0, &[5, 1]), "VERSION");
    assert_eq!(judge(0x0a, &[0x0b]), "DEBUG_MODE", "policy bit 19");
    assert_eq!(judge(0x0a, &[0x07]), "MIGRATION", "policy bit 18");
    assert_eq!(judge(0x0a, &[0x01]), "FIELD_VALUE", "policy bit 17 must be one");
    assert_eq!(judge(0x0b, &[0x04]), "FIELD_VALUE", "policy bit 26 is unknown");
    assert_eq!(judge(0x160, &[0; 32]), "MIGRATION", "a migration agent");
    assert_eq!(judge(0x30, &[1]), "VMPL");
    assert_eq!(judge(0x30, &[4]), "FIELD_VALUE");
    assert_eq!(judge(0x34, &[2]), "ALGORITHM");
    assert_eq!(judge(0x48, &[2]), "FIELD_VALUE", "MASK_CHIP_KEY: nothing is signed");
    assert_eq!(judge(0x48, &[0x1c]), "FIELD_VALUE", "no signing key");
    assert_eq!(judge(0x48, &[4]), "SIGNING_KEY", "says VLEK, certificate is a VCEK");
    assert_eq!(judge(0x188, &[0x19, 0x01]), "GENERATION");
    assert_eq!(
        judge(0x188, &[0x1a, 0x50]),
        "FIELD_VALUE",
        "a processor without a pinned root"
    );
    assert_eq!(judge(0x1a0, &[0; 64]), "CHIP_ID_MASKED");
    assert_eq!(judge(0x1a8, &[1]), "CHIP_ID", "a Turin chip id has eight bytes");
    for at in 0x180..0x188 {
        let expected = if (0x184..0x187).contains(&at) {
            "RESERVED_NOT_ZERO"
        } else {
            "VCEK_TCB"
        };
        assert_eq!(judge(at, &[0x77]), expected, "reported TCB byte {at:#x}");
    }
    assert_eq!(
        judge(0x1e3, &[0]),
        "FIELD_VALUE",
        "committed TCB below the reported one"
    );
    assert_eq!(judge(0x3b, &[0]), "FIELD_VALUE", "current TCB below the committed one");
    assert_eq!(judge(0x3b, &[99]), "PROVISIONAL_FIRMWARE");
    assert_eq!(judge(0x1e8, &[0x2a]), "PROVISIONAL_FIRMWARE");
    let reserved = (0x4c..0x50)
        .chain(0x18b..0x1a0)
        .chain([0x1eb, 0x1ef])
        .chain(0x208..0x2a0);
    for at in reserved.chain([0x49, 0x4a, 0x4b, 0x3c, 0x3d, 0x3e, 0x1e4, 0x1f6]) {
        assert_eq!(judge(at, &[1]), "RESERVED_NOT_ZERO", "byte {at:#x}");
    }
}

/// Neither key passes for the other, whichever authority signed it.
#[test]
fn vcek_and_vlek_do_not_mix() {
    let product = Product::Milan;
    let vlek = SoftSnp::with(pki(), endorsement(product, SigningKey::Vlek), [3; 32]).unwrap();
    let vcek = SoftSnp::with(pki(), endorsement(product, SigningKey::Vcek), [3; 32]).unwrap();
    let claims = soft(product, &vlek.quote([1; 64]), vlek.collateral()).unwrap();
    assert!(matches!(claims.signer, Signer::Vlek(_)));
    // The same key under both certificates, so only names and flags tell them apart.
    assert_eq!(
        name(soft(product, &vlek.quote([1; 64]), vcek.collateral())),
        "SIGNING_KEY"
    );
    assert_eq!(
        name(soft(product, &vcek.quote([1; 64]), vlek.collateral())),
        "SIGNING_KEY"
    );
    let swapped = |leaf: &SoftSnp, authority: &SoftSnp| {
        SnpCollateral::new(
            leaf.collateral().certificates[0].clone(),
            authority.collateral().certificates[1].clone(),
        )
    };
    assert_eq!(
        name(soft(product, &vlek.quote([1; 64]), &swapped(&vlek, &vcek))),
        "CERT_SIGNATURE"
    );
    assert_eq!(
        name(soft(product, &vcek.quote([1; 64]), &swapped(&vcek, &vlek))),
        "CERT_SIGNATURE"
    );
    // A VLEK report that names a chip.
    let mut body = vlek.body([1; 64]);
    body[0x1a0] = 1;
    assert_eq!(name(soft(product, &vlek.sign(&body), vlek.collateral())), "CHIP_ID");
}

/// A certificate for every other TCB component, and for dates around the verdict.
#[test]
fn endorsement_certificates() {
    let product = Product::Turin;
    let good = endorsement(product, SigningKey::Vcek);
    let quote = SoftSnp::with(pki(), good.clone(), [4; 32]).unwrap().quote([1; 64]);
    let under = |changed: SoftEndorsement| {
        let beside = SoftSnp::with(pki(), changed, [4; 32]).unwrap().collateral().clone();
        name(soft(product, &quote, &beside))
    };
    assert_eq!(under(good.clone()), "ACCEPTED");
    let changes: [fn(&mut Tcb); 5] = [
        |t| t.fmc += 1,
        |t| t.bootloader += 1,
        |t| t.tee += 1,
        |t| t.snp += 1,
        |t| t.microcode += 1,
    ];
    for change in changes {
        let mut changed = good.clone();
        change(&mut changed.tcb);
        assert_eq!(under(changed), "VCEK_TCB");
    }
    let mut other = good.clone();
    other.chip_id[7] ^= 1;
    assert_eq!(under(other), "CHIP_ID");
    for (not_before, not_after, expected) in [
        (NOW, NOW, "ACCEPTED"),
        (NOW + 1, NOW + 2, "CERT_NOT_YET_VALID"),
        (NOW - 2, NOW - 1, "CERT_EXPIRED"),
        (NOW + 1, NOW - 1, "CERT_NOT_YET_VALID"),
    ] {
        let mut dated = good.clone();
        dated.validity = Validity { not_before, not_after };
        assert_eq!(under(dated), expected);
    }
}
