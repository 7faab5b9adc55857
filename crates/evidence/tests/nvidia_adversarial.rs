//! GPU reports: the real one of the sample folder, and everything that an attacker may do to it.

mod common;

use opg_evidence::{
    Claims, Development, EvidenceVerifier as _, Expected, HexBytes, Kind, Policy, Reject, TcbStatus, TrustRoots,
    Verdict,
    nvidia::{GpuCertificates, NvidiaVerifier, composite},
};

const AT: u64 = 1_755_000_000;

fn sample() -> Option<(Vec<u8>, GpuCertificates)> {
    let text = common::sample("nvidia/trustee_nvidia_hopper_coco_report1.txt")?;
    let text = String::from_utf8(text).expect("hexadecimal text");
    let chain = common::sample("nvidia/trustee_nvidia_hopper_coco_certs1.txt")?;
    let chain = GpuCertificates::from_pem(&chain).expect("a PEM chain");
    Some((hex::decode(text.trim()).expect("hexadecimal text"), chain))
}

fn verify(raw: &[u8], chain: &GpuCertificates) -> Result<Verdict<opg_evidence::Hardware>, Reject> {
    NvidiaVerifier.verify(raw, chain, &TrustRoots::pinned(), AT)
}

#[test]
fn a_real_report_is_signed_but_not_appraised() {
    let Some((raw, chain)) = sample() else { return };
    let verdict = verify(&raw, &chain).expect("good signatures");
    let claims = verdict.claims();
    assert_eq!(claims.measurement.0.len(), 64);
    assert_eq!(claims.tcb.status, TcbStatus::RimNotChecked);
    let nonce = claims.nonce.clone().expect("the request's nonce");
    assert!(hex::encode(&nonce).starts_with("87d8e24a"));
    // the trailing zero byte of the buffer is no part of the identity
    let bare = verify(&raw[..raw.len() - 1], &chain).expect("good signatures");
    let longer = verify(&[raw.as_slice(), &[0; 4]].concat(), &chain).expect("good signatures");
    assert_eq!(bare.claims().evidence_id, claims.evidence_id);
    assert_eq!(longer.claims().evidence_id, claims.evidence_id);

    let default = Policy::default().judge(verdict.clone(), &Expected::default(), AT);
    assert_eq!(default.unwrap_err(), Reject::RimNotChecked);
    let mut lenient = Policy::default();
    lenient.tcb_statuses.insert(TcbStatus::RimNotChecked);
    let expected = Expected {
        nonce: Some(nonce.as_ref()),
        ..Expected::default()
    };
    assert!(lenient.judge(verdict.clone(), &expected, AT).is_ok());
    let wrong = Expected {
        nonce: Some(&[0; 32]),
        ..Expected::default()
    };
    assert_eq!(lenient.judge(verdict, &wrong, AT).unwrap_err(), Reject::NonceMismatch);
}

#[test]
fn every_changed_byte_is_refused() {
    let Some((raw, chain)) = sample() else { return };
    // the last byte is padding; signature bytes are part of the walk
    for at in 0..raw.len() - 1 {
        let mut changed = raw.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(verify(&changed, &chain).is_err(), "byte {at}");
    }
}

#[test]
fn lengths_are_exact() {
    let Some((raw, chain)) = sample() else { return };
    for length in 0..raw.len() - 1 {
        let refused = NvidiaVerifier
            .verify(&raw[..length], &chain, &TrustRoots::pinned(), AT)
            .unwrap_err();
        assert!(matches!(refused, Reject::Truncated { .. }), "{length}: {refused}");
    }
    let tail = [raw.as_slice(), &[0, 1]].concat();
    assert!(matches!(
        verify(&tail, &chain).unwrap_err(),
        Reject::TrailingBytes { .. }
    ));
    let huge = vec![0x11; 70_000];
    assert!(matches!(verify(&huge, &chain).unwrap_err(), Reject::TooLong { .. }));
}

#[test]
fn chains_are_whole_and_end_in_the_pinned_root() {
    let Some((raw, whole)) = sample() else { return };
    let chain = |pick: &[usize]| GpuCertificates(pick.iter().map(|i| whole.0[*i].clone()).collect());
    for pick in [&[0, 1, 2, 3][..], &[4, 3, 2, 1, 0], &[0, 1, 2, 3, 3]] {
        assert_eq!(
            verify(&raw, &chain(pick)).unwrap_err(),
            Reject::RootNotPinned { kind: "gpu" },
            "{pick:?}"
        );
    }
    for pick in [&[4][..], &[0], &[], &[0, 4]] {
        assert!(
            matches!(verify(&raw, &chain(pick)).unwrap_err(), Reject::ChainIncomplete { .. }),
            "{pick:?}"
        );
    }
    assert!(matches!(
        verify(&raw, &chain(&[0, 0, 1, 2, 3, 4])).unwrap_err(),
        Reject::Duplicate { .. }
    ));
    for pick in [&[0, 2, 3, 4][..], &[0, 1, 3, 4], &[0, 1, 2, 4], &[0, 2, 1, 3, 4]] {
        assert!(
            matches!(verify(&raw, &chain(pick)).unwrap_err(), Reject::ChainNames { .. }),
            "{pick:?}"
        );
    }
    // An authority's key is not the device's.
    assert_eq!(verify(&raw, &chain(&[1, 2, 3, 4])).unwrap_err(), Reject::LeafIsCa);
    let development: TrustRoots<Development> = TrustRoots::development(Vec::new());
    let refused = NvidiaVerifier.verify(&raw, &whole, &development, AT).unwrap_err();
    assert_eq!(refused, Reject::RootNotPinned { kind: "gpu" });
    for at in [0, u64::MAX] {
        let refused = NvidiaVerifier
            .verify(&raw, &whole, &TrustRoots::pinned(), at)
            .unwrap_err();
        assert!(
            matches!(refused, Reject::CertNotYetValid { .. } | Reject::CertExpired { .. }),
            "{refused}"
        );
    }
    // Every byte of every certificate counts.
    for (index, der) in whole.0.iter().enumerate() {
        for at in (0..der.len()).step_by(7) {
            let mut changed = whole.clone();
            changed.0[index][at] ^= 1 << (at % 8);
            assert!(verify(&raw, &changed).is_err(), "certificate {index}, byte {at}");
        }
    }
}

#[test]
fn tokens_are_no_evidence() {
    let whole = GpuCertificates::default();
    for (text, name) in [
        ("eyJhbGciOiJub25lIn0.e30.", "UNSIGNED_TOKEN"),
        ("[[\"JWT\", \"eyJhbGciOiJub25lIn0.e30.\"]]", "UNSIGNED_TOKEN"),
        ("{\"measres\": \"success\"}", "WRONG_KIND"),
    ] {
        assert_eq!(verify(text.as_bytes(), &whole).unwrap_err().name(), name, "{text}");
    }
}

#[test]
fn a_machine_vouches_for_its_gpus_and_no_others() {
    let Some((raw, chain)) = sample() else { return };
    let statement = [7; 32];
    let template = verify(&raw, &chain).expect("good signatures").into_claims();
    let gpu = |index: u32| {
        let mut claims = template.clone();
        claims.nonce = Some(HexBytes(composite::gpu_nonce(&statement, index).to_vec()));
        claims.signer = opg_evidence::Signer::Device(HexBytes(vec![index as u8; 32]));
        claims.evidence_id.0[0] ^= index as u8;
        claims
    };
    let cpu = |gpus: &[Claims]| {
        let ids: Vec<_> = gpus.iter().map(|gpu| gpu.evidence_id).collect();
        let mut bound = composite::bound(&statement, &ids).to_vec();
        bound.resize(64, 0);
        Claims {
            kind: Kind::Tdx,
            bound: HexBytes(bound),
            ..template.clone()
        }
    };
    let pair = [gpu(0), gpu(1)];
    assert_eq!(composite::check(&statement, &cpu(&pair), &pair), Ok(()));
    assert_eq!(composite::check(&statement, &cpu(&[]), &[]), Ok(()));
    let mismatch = Err(Reject::BindingMismatch);
    assert_eq!(composite::check(&statement, &cpu(&pair), &pair[..1]), mismatch);
    assert_eq!(composite::check(&statement, &cpu(&pair[..1]), &pair), mismatch);
    assert_eq!(composite::check(&[8; 32], &cpu(&[]), &[]), mismatch);
    let swapped = [pair[1].clone(), pair[0].clone()];
    assert_eq!(
        composite::check(&statement, &cpu(&swapped), &swapped),
        Err(Reject::NonceMismatch)
    );
    let elsewhere = [Claims {
        nonce: template.nonce.clone(),
        ..gpu(0)
    }];
    assert_eq!(
        composite::check(&statement, &cpu(&elsewhere), &elsewhere),
        Err(Reject::NonceMismatch)
    );
    let twice = [
        gpu(0),
        Claims {
            nonce: gpu(1).nonce,
            ..gpu(0)
        },
    ];
    assert!(matches!(
        composite::check(&statement, &cpu(&twice), &twice),
        Err(Reject::Duplicate { .. })
    ));
    let mut padded = cpu(&pair);
    padded.bound.0[63] = 1;
    assert_eq!(composite::check(&statement, &padded, &pair), mismatch);
}
