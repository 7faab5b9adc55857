//! Cost of one verification, over the real documents of the sample folder (`OPG_TEE_SAMPLES`).

use criterion::{Criterion, criterion_group, criterion_main};
use opg_evidence::{
    EvidenceVerifier as _, Kind, TrustRoots,
    dcap::{self, IntelCollateral, TdxVerifier},
    nitro::{self, NitroVerifier},
    nvidia::{GpuCertificates, NvidiaVerifier},
    pem,
    snp::{SnpCollateral, SnpVerifier},
};
use std::{hint::black_box, path::PathBuf};

fn sample(name: &str) -> Option<Vec<u8>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/tee-samples");
    let folder = std::env::var_os("OPG_TEE_SAMPLES").map_or(beside, PathBuf::from);
    let bytes = std::fs::read(folder.join(name)).ok();
    if bytes.is_none() {
        eprintln!("SKIPPED: no {name} in {}", folder.display());
    }
    bytes
}

fn nitro_documents(criterion: &mut Criterion) {
    let Some(file) = sample("nitro/dstack_nsm-attest_nitro_attestation.bin") else {
        return;
    };
    let length = nitro::item_length(&file[4..]).expect("a CBOR item");
    let (document, at, roots) = (&file[4..4 + length], 1_766_668_537, TrustRoots::pinned());
    let cold = NitroVerifier::new();
    let mut warm = NitroVerifier::new();
    warm.remember(document, &roots, at).expect("a good document");
    criterion.bench_function("nitro::verify/chain=cold", |bench| {
        bench.iter(|| cold.verify(black_box(document), &(), &roots, at).expect("good"));
    });
    criterion.bench_function("nitro::verify/chain=cached", |bench| {
        bench.iter(|| warm.verify(black_box(document), &(), &roots, at).expect("good"));
    });
}

fn tdx_quotes(criterion: &mut Criterion) {
    let (Some(quote), Some(json)) = (
        sample("tdx/phala_tdx_quote"),
        sample("tdx/phala_tdx_quote_collateral.json"),
    ) else {
        return;
    };
    let collateral = Some(IntelCollateral::from_json(&json).expect("collateral"));
    let roots = TrustRoots::pinned();
    criterion.bench_function("tdx::verify/collateral=parsed", |bench| {
        bench.iter(|| {
            TdxVerifier
                .verify(black_box(&quote), &collateral, &roots, 1_750_414_563)
                .expect("good")
        });
    });
    let mut known = collateral.clone().expect("collateral");
    known
        .remember(Kind::Tdx, &quote, &roots, 1_750_414_563)
        .expect("a good quote");
    let known = Some(known);
    criterion.bench_function("tdx::verify/collateral=known, same quote", |bench| {
        bench.iter(|| {
            TdxVerifier
                .verify(black_box(&quote), &known, &roots, 1_750_414_563)
                .expect("good")
        });
    });
    criterion.bench_function("tdx::check_signatures", |bench| {
        bench.iter(|| dcap::check_signatures(Kind::Tdx, black_box(&quote), &roots, 1_750_414_563).expect("good"));
    });
}

fn snp_reports(criterion: &mut Criterion) {
    let (Some(report), Some(vcek), Some(authorities)) = (
        sample("snp/virtee_report_milan.hex"),
        sample("snp/virtee_vcek_milan.der"),
        sample("snp/google_milan.testcer"),
    ) else {
        return;
    };
    let report = hex::decode(String::from_utf8_lossy(&report).trim()).expect("hexadecimal");
    let mut certificates = vec![vcek];
    certificates.extend(pem::certificates(&authorities, 2).expect("PEM"));
    let collateral = SnpCollateral {
        certificates,
        crls: Vec::new(),
    };
    let (at, roots) = (1_700_000_000, TrustRoots::pinned());
    let cold = SnpVerifier::new();
    let mut warm = SnpVerifier::new();
    warm.remember(&collateral, &roots, at).expect("a good chain");
    for (name, verifier) in [("cold", &cold), ("cached", &warm)] {
        criterion.bench_function(&format!("snp::verify/authority={name}"), |bench| {
            bench.iter(|| {
                verifier
                    .verify(black_box(&report), &collateral, &roots, at)
                    .expect("good")
            });
        });
    }
}

fn gpu_reports(criterion: &mut Criterion) {
    let report = sample("nvidia/trustee_nvidia_hopper_coco_report1.txt");
    let chain = sample("nvidia/trustee_nvidia_hopper_coco_certs1.txt");
    let (Some(report), Some(chain)) = (report, chain) else {
        return;
    };
    let report = hex::decode(String::from_utf8_lossy(&report).trim()).expect("hexadecimal");
    let (chain, roots) = (GpuCertificates::from_pem(&chain).expect("PEM"), TrustRoots::pinned());
    criterion.bench_function("gpu::verify", |bench| {
        bench.iter(|| {
            NvidiaVerifier
                .verify(black_box(&report), &chain, &roots, 1_755_000_000)
                .expect("good")
        });
    });
}

criterion_group!(benches, nitro_documents, tdx_quotes, snp_reports, gpu_reports);
criterion_main!(benches);
