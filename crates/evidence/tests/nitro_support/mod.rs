//! A software attester of Nitro documents and its verification, for the tests that change one thing of it.
// Each test binary uses a part of it.
#![allow(dead_code)]

use opg_evidence::{
    Claims, Development, EvidenceVerifier as _, Reject, TrustRoots,
    nitro::NitroVerifier,
    soft::{NitroRequest, SoftNitro},
};

pub(crate) const FROM: u64 = 1_800_000_000;
pub(crate) const TO: u64 = FROM + 10_800;
pub(crate) const AT: u64 = FROM + 60;

pub(crate) fn attester() -> SoftNitro {
    SoftNitro::new(&[7; 32], FROM, TO)
}

pub(crate) fn request() -> NitroRequest {
    NitroRequest {
        timestamp_ms: FROM * 1_000,
        user_data: Some(vec![5; 32]),
        nonce: Some(vec![6; 32]),
        public_key: None,
    }
}

pub(crate) fn roots(attester: &SoftNitro) -> TrustRoots<Development> {
    TrustRoots::development(vec![attester.anchor()])
}

pub(crate) fn verify(attester: &SoftNitro, document: &[u8]) -> Result<Claims, Reject> {
    NitroVerifier::new()
        .verify(document, &(), &roots(attester), AT)
        .map(|verdict| verdict.into_claims())
}

/// The name of the refusal of a document made by a changed attester, judged under that attester's own root.
pub(crate) fn refusal(change: impl FnOnce(&mut SoftNitro)) -> &'static str {
    let mut changed = attester();
    change(&mut changed);
    let document = changed.document(&request());
    verify(&changed, &document).expect_err("a refusal").name()
}
