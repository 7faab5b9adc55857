//! What a receipt's signature costs a full node: alone, prepared, and in batches; beside a batch equation, which consensus cannot use.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ed25519_dalek::{Signature, Signer as _, SigningKey};
use opg_receipt::{PreparedKey, SignedReceipt, verify_batch};
use std::hint::black_box;

#[path = "../tests/common/mod.rs"]
mod common;

/// Receipts of a batch.
const COUNT: usize = 1_024;

fn signatures(c: &mut Criterion) {
    let receipts: Vec<SignedReceipt> = (0..COUNT as u64)
        .map(|seq| {
            let mut core = common::core();
            core.seq = seq;
            SignedReceipt::sign(core, &common::key()).expect("a receipt")
        })
        .collect();
    let public = common::key().verifying_key().to_bytes();
    let mut group = c.benchmark_group("receipt_signature");
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("strict, one by one", |b| {
        b.iter(|| {
            receipts
                .iter()
                .all(|receipt| black_box(receipt).verify_signature(&public).is_ok())
        });
    });
    let key = PreparedKey::new(&public).expect("a key");
    group.bench_function("prepared, one by one", |b| {
        b.iter(|| {
            receipts
                .iter()
                .all(|receipt| black_box(receipt).verify_prepared(&key).is_ok())
        });
    });
    let items: Vec<_> = receipts.iter().map(|receipt| (receipt, &key)).collect();
    assert!(verify_batch(&items).iter().all(Result::is_ok));
    group.bench_function("prepared, batches", |b| b.iter(|| verify_batch(black_box(&items))));
    // eight keysets, whose tables do not fit the inner caches together
    let others: Vec<SigningKey> = (1..=8).map(|i| SigningKey::from_bytes(&[i; 32])).collect();
    let keys: Vec<PreparedKey> = others
        .iter()
        .map(|key| PreparedKey::new(&key.verifying_key().to_bytes()).expect("a key"))
        .collect();
    let mixed: Vec<SignedReceipt> = (0..COUNT)
        .map(|i| {
            let mut core = common::core();
            core.seq = i as u64;
            SignedReceipt::sign(core, &others[i % others.len()]).expect("a receipt")
        })
        .collect();
    let items: Vec<_> = mixed
        .iter()
        .enumerate()
        .map(|(i, receipt)| (receipt, &keys[i % keys.len()]))
        .collect();
    assert!(verify_batch(&items).iter().all(Result::is_ok));
    group.bench_function("prepared, batches of eight keysets", |b| {
        b.iter(|| verify_batch(black_box(&items)))
    });
    // the same bytes under the library's batch equation
    let messages: Vec<Vec<u8>> = receipts.iter().map(|receipt| receipt.cose().to_vec()).collect();
    let signatures: Vec<Signature> = messages.iter().map(|message| common::key().sign(message)).collect();
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let publics = vec![common::key().verifying_key(); COUNT];
    group.bench_function("ed25519-dalek's batch equation of 1,024 (not used)", |b| {
        b.iter(|| ed25519_dalek::verify_batch(black_box(&slices), &signatures, &publics).is_ok());
    });
    group.finish();
    c.bench_function("prepare a key", |b| b.iter(|| PreparedKey::new(black_box(&public))));
}

criterion_group!(benches, signatures);
criterion_main!(benches);
