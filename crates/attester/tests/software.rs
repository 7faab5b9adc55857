//! Software attesters: every format verifies under its own root as simulated, and under no vendor's.

use opg_attester::{Attester as _, Evidence, SoftwareAttester, SoftwareFormat};
use opg_evidence::{
    Claims, EvidenceVerifier as _, Expected, Kind, Policy, Reject, RootGrade, TrustRoots, dcap::TdxVerifier,
    nitro::NitroVerifier, snp::SnpVerifier,
};

const NOW: u64 = 1_800_000_000;

fn verify<G: RootGrade>(evidence: &Evidence, roots: &TrustRoots<G>, at: u64) -> Result<Claims, Reject> {
    let verdict = match evidence.kind {
        Kind::Nitro => NitroVerifier::new().verify(&evidence.document, &(), roots, at),
        Kind::Tdx => TdxVerifier.verify(&evidence.document, &evidence.beside.intel, roots, at),
        _ => SnpVerifier::new().verify(&evidence.document, &evidence.beside.snp()?, roots, at),
    }?;
    let expected = Expected {
        bound: Some(&[9; 32]),
        ..Expected::default()
    };
    Policy::default()
        .judge(verdict, &expected, at)
        .map(|accepted| accepted.claims().clone())
}

#[test]
fn every_format_is_simulated_and_nothing_else() {
    for format in [SoftwareFormat::Nitro, SoftwareFormat::Tdx, SoftwareFormat::Snp] {
        let attester = SoftwareAttester::new(format, [7; 32]).unwrap();
        assert_eq!(attester.grade().as_str(), "simulated");
        let evidence = attester.attest(&[9; 32], NOW).unwrap();
        assert_eq!(evidence.kind, attester.kind());
        let roots = TrustRoots::development(attester.development_roots());
        verify(&evidence, &roots, NOW + 60).expect("good evidence");
        assert!(verify(&evidence, &TrustRoots::pinned(), NOW + 60).is_err());
        // A later document of the same seed verifies under the same root, one of another seed does not.
        let later = attester.attest(&[9; 32], NOW + 86_400 * 60).unwrap();
        verify(&later, &roots, NOW + 86_400 * 60).expect("the same root");
        let other = SoftwareAttester::new(format, [8; 32])
            .unwrap()
            .attest(&[9; 32], NOW)
            .unwrap();
        assert!(verify(&other, &roots, NOW + 60).is_err());
        let unbound = attester.attest(&[1; 32], NOW).unwrap();
        assert_eq!(verify(&unbound, &roots, NOW).unwrap_err().name(), "BINDING_MISMATCH");
        assert!(!format!("{attester:?}").contains('7'), "no seed in logs");
    }
}

#[test]
fn a_nitro_document_lives_three_hours() {
    let attester = SoftwareAttester::new(SoftwareFormat::Nitro, [7; 32]).unwrap();
    let evidence = attester.attest(&[9; 32], NOW).unwrap();
    let roots = TrustRoots::development(attester.development_roots());
    assert!(verify(&evidence, &roots, NOW + 3 * 3_600).is_ok());
    assert_eq!(
        verify(&evidence, &roots, NOW + 3 * 3_600 + 1).unwrap_err().name(),
        "CERT_EXPIRED"
    );
}
