//! What sealing adds to a request, and to a chunk of its answer.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opg_sealed::{
    PrivateKey, Suite,
    bhttp::{Field, Request},
    direct::{self, Binding},
    ohttp::{Client, Gateway, KeyConfig},
};
use std::hint::black_box;

/// A chat request of some turns.
const BODY: usize = 4_096;
/// A chunk of a streamed answer: one event with a token.
const TOKEN: usize = 220;

fn binding() -> Binding<'static> {
    Binding {
        chain_id: 10_740,
        route: "POST /v1/chat/completions",
        model: "demo/tiny-llama",
        quote: [1; 32],
        keyset: [2; 32],
        payer: [3; 20],
    }
}

fn requests(c: &mut Criterion) {
    let key = PrivateKey::derive(&[7; 32]);
    let (public, body) = (key.public(), vec![b'x'; BODY]);
    let mut group = c.benchmark_group("direct_4KiB");
    for suite in Suite::ALL {
        group.bench_function(format!("seal/{suite:?}"), |b| {
            b.iter(|| direct::seal(1, suite, &public, &binding(), black_box(&body), &[9; 32]).unwrap());
        });
        let (sealed, _) = direct::seal(1, suite, &public, &binding(), &body, &[9; 32]).unwrap();
        group.bench_function(format!("open/{suite:?}"), |b| {
            b.iter(|| direct::open(&[(1, &key)], &binding(), black_box(&sealed)).unwrap());
        });
    }
    group.finish();

    let gateway = Gateway::new(vec![(1, key)]);
    let keys = KeyConfig::parse_list(&gateway.keys()).unwrap();
    let request = Request {
        method: "POST".into(),
        scheme: "https".into(),
        authority: "node.example".into(),
        path: "/v1/chat/completions".into(),
        headers: vec![Field::new("content-type", "application/json").unwrap()],
        body,
        trailers: Vec::new(),
    };
    let mut group = c.benchmark_group("ohttp_4KiB");
    group.bench_function("encapsulate", |b| {
        b.iter(|| {
            let bytes = black_box(&request).to_bytes(1_024).unwrap();
            Client::new(&keys[0], Suite::Aes128Gcm)
                .unwrap()
                .encapsulate(&bytes, &[9; 32])
                .unwrap()
        });
    });
    let bytes = request.to_bytes(1_024).unwrap();
    let (sealed, _) = Client::new(&keys[0], Suite::Aes128Gcm)
        .unwrap()
        .encapsulate(&bytes, &[9; 32])
        .unwrap();
    group.bench_function("decapsulate", |b| {
        b.iter(|| Request::parse(&gateway.decapsulate(black_box(&sealed)).unwrap().0).unwrap());
    });
    group.finish();
}

fn chunks(c: &mut Criterion) {
    let key = PrivateKey::derive(&[7; 32]);
    let mut group = c.benchmark_group("chunk_220B");
    group.throughput(Throughput::Elements(1));
    for suite in Suite::ALL {
        let pair = || {
            let (sealed, client) = direct::seal(1, suite, &key.public(), &binding(), b"", &[9; 32]).unwrap();
            let server = direct::open(&[(1, &key)], &binding(), &sealed).unwrap().secret;
            let (start, sealer) = server.sealer(&[8; 32]).unwrap();
            let mut opener = client.opener();
            opener.push(&start).unwrap();
            (sealer, opener)
        };
        let (mut sealer, mut opener) = pair();
        group.bench_function(format!("seal_and_open/{suite:?}"), |b| {
            b.iter(|| opener.push(&sealer.chunk(black_box(&[b'x'; TOKEN])).unwrap()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, requests, chunks);
criterion_main!(benches);
