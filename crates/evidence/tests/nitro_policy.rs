//! What a policy refuses of a Nitro document whose signatures are good.
#![cfg(feature = "soft")]

mod nitro_support;

use nitro_support::{AT, FROM, attester, request, roots};
use opg_evidence::{EvidenceVerifier as _, Expected, Policy, nitro::NitroVerifier, soft::SoftNitro};

#[test]
fn policy() {
    let judge = |attester: &SoftNitro, policy: &Policy, expected: &Expected<'_>, at: u64| {
        let document = attester.document(&request());
        let verdict = NitroVerifier::new()
            .verify(&document, &(), &roots(attester), at)
            .expect("good signatures");
        policy
            .judge(verdict, expected, at)
            .map(|_| ())
            .map_err(|reject| reject.name())
    };
    let (base, plain) = (attester(), Expected::default());
    assert_eq!(judge(&base, &Policy::default(), &plain, AT), Ok(()));
    for zero in 0..3 {
        let mut debug = attester();
        debug.pcrs.insert(zero, vec![0; 48]);
        assert_eq!(
            judge(&debug, &Policy::default(), &plain, AT),
            Err("DEBUG_MODE"),
            "PCR{zero}"
        );
    }
    let wrong = [0u8; 32];
    let nonce = |nonce| Expected {
        nonce: Some(nonce),
        ..plain
    };
    assert_eq!(judge(&base, &Policy::default(), &nonce(&[6; 32]), AT), Ok(()));
    assert_eq!(
        judge(&base, &Policy::default(), &nonce(&wrong), AT),
        Err("NONCE_MISMATCH")
    );
    assert_eq!(
        judge(&base, &Policy::default(), &nonce(&[6; 31]), AT),
        Err("NONCE_MISMATCH")
    );
    let bound = |bound| Expected {
        bound: Some(bound),
        ..plain
    };
    assert_eq!(judge(&base, &Policy::default(), &bound(&[5; 32]), AT), Ok(()));
    assert_eq!(
        judge(&base, &Policy::default(), &bound(&[5; 31]), AT),
        Err("BINDING_MISMATCH"),
        "a prefix"
    );
    assert_eq!(
        judge(&base, &Policy::default(), &bound(&[]), AT),
        Err("BINDING_MISMATCH")
    );
    let key = Expected {
        public_key: Some(&wrong),
        ..plain
    };
    assert_eq!(judge(&base, &Policy::default(), &key, AT), Err("PUBLIC_KEY_MISMATCH"));

    let json = |text: &str| serde_json::from_str::<Policy>(text).expect("a policy");
    let old = json(r#"{"max_age_s": 30}"#);
    assert_eq!(judge(&base, &old, &plain, AT), Err("TOO_OLD"));
    assert_eq!(judge(&base, &old, &plain, FROM + 30), Ok(()));
    assert_eq!(judge(&base, &json(r#"{"kinds": ["tdx"]}"#), &plain, AT), Err("KIND"));
    assert_eq!(
        judge(&base, &json(r#"{"measurements": {"nitro": []}}"#), &plain, AT),
        Err("MEASUREMENT")
    );
    assert_eq!(
        judge(&base, &json(r#"{"measurements": {"nitro": [{}]}}"#), &plain, AT),
        Err("MEASUREMENT")
    );
    let set = |name: &str, value: &[u8]| {
        json(&format!(
            r#"{{"measurements": {{"nitro": [{{"{name}": "{}"}}]}}}}"#,
            hex::encode(value)
        ))
    };
    assert_eq!(judge(&base, &set("pcr0", &base.pcrs[&0]), &plain, AT), Ok(()));
    assert_eq!(
        judge(&base, &set("pcr0", &base.pcrs[&1]), &plain, AT),
        Err("MEASUREMENT")
    );
    assert_eq!(
        judge(&base, &set("pcr0", &base.pcrs[&0][..47]), &plain, AT),
        Err("MEASUREMENT"),
        "a boundary shift"
    );
    assert_eq!(
        judge(&base, &set("pcr31", &[0; 48]), &plain, AT),
        Err("REGISTER_ABSENT")
    );
    let revoked = json(r#"{"revoked_signers": ["module:SOFTWARE-ATTESTER-NOT-HARDWARE"]}"#);
    assert_eq!(judge(&base, &revoked, &plain, AT), Err("SIGNER_REVOKED"));
}
