//! Streams: whatever is done to one on its way is noticed, and nothing is given out that was not sealed there.

use opg_sealed::{
    ChunkSealer, MAX_CHUNK, PrivateKey, ResponseOpener, SealedError, Suite,
    direct::{self, Binding},
};
use proptest::prelude::*;

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

/// First bytes of an answer, its sealer, and an opener that has not seen them.
fn pair(suite: Suite, entropy: u8) -> (Vec<u8>, ChunkSealer, ResponseOpener) {
    let key = PrivateKey::derive(&[7; 32]);
    let (sealed, client) = direct::seal(1, suite, &key.public(), &binding(), b"{}", &[entropy; 32]).unwrap();
    let opened = direct::open(&[(1, &key)], &binding(), &sealed).unwrap();
    let (start, sealer) = opened.secret.sealer(&[8; 32]).unwrap();
    (start, sealer, client.opener())
}

/// The parts of an answer: nonce, chunks, last chunk.
fn parts(suite: Suite, texts: &[&[u8]]) -> (Vec<Vec<u8>>, ResponseOpener) {
    let (start, mut sealer, opener) = pair(suite, 9);
    let (last, whole) = texts.split_last().unwrap();
    let mut parts = vec![start];
    parts.extend(whole.iter().map(|text| sealer.chunk(text).unwrap()));
    parts.push(sealer.finish(last).unwrap());
    assert!(matches!(sealer.chunk(b"x"), Err(SealedError::Ended { .. })));
    (parts, opener)
}

/// What a client gives out, and whether the stream was whole.
fn open(mut opener: ResponseOpener, bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), SealedError>) {
    let mut out = Vec::new();
    for part in bytes.chunks(step.max(1)) {
        match opener.push(part) {
            Ok(chunks) => out.extend(chunks.concat()),
            Err(error) => {
                assert!(
                    opener.push(b"more").is_err() && opener.finish().is_err(),
                    "an error is the end"
                );
                return (out, Err(error));
            }
        }
    }
    match opener.finish() {
        Ok(last) => {
            out.extend(last);
            (out, Ok(()))
        }
        Err(error) => (out, Err(error)),
    }
}

const TEXTS: [&[u8]; 5] = [b"one ", b"two ", b"two ", b"three ", b"end"];
const WHOLE: &[u8] = b"one two two three end";

#[test]
fn every_cut_is_noticed() {
    for suite in Suite::ALL {
        let stream = parts(suite, &TEXTS).0.concat();
        for cut in 0..stream.len() {
            let (out, end) = open(parts(suite, &TEXTS).1, &stream[..cut], 3);
            assert!(end.is_err(), "cut at {cut}");
            assert!(WHOLE.starts_with(&out) && out.len() < WHOLE.len());
        }
        let (out, end) = open(parts(suite, &TEXTS).1, &stream, stream.len());
        assert_eq!((out.as_slice(), end), (WHOLE, Ok(())));
    }
}

#[test]
fn every_bit_counts() {
    for suite in Suite::ALL {
        let stream = parts(suite, &TEXTS).0.concat();
        for bit in 0..stream.len() * 8 {
            let mut changed = stream.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let (out, end) = open(parts(suite, &TEXTS).1, &changed, 16);
            // The framing's lengths may have another spelling of the same number, which nothing depends on.
            assert!(end.is_err() || out == WHOLE, "bit {bit}");
            assert!(WHOLE.starts_with(&out));
        }
    }
}

#[test]
fn chunks_have_their_place() {
    let suite = Suite::Aes256Gcm;
    let (good, _) = parts(suite, &TEXTS);
    let refused = |order: &[usize]| {
        let stream: Vec<u8> = order.iter().flat_map(|at| good[*at].clone()).collect();
        let (out, end) = open(parts(suite, &TEXTS).1, &stream, 5);
        assert!(end.is_err(), "{order:?}");
        assert!(WHOLE.starts_with(&out), "{order:?}");
    };
    // Moved, also two chunks with the same text; repeated; left out; the end too early or twice; added after the end.
    for order in [
        &[0, 2, 1, 3, 4, 5][..],
        &[0, 1, 3, 2, 4, 5],
        &[0, 1, 1, 2, 3, 4, 5],
        &[0, 1, 2, 2, 3, 4, 5],
        &[0, 2, 3, 4, 5],
        &[0, 1, 2, 4, 5],
        &[0, 1, 2, 3, 5],
        &[0, 5],
        &[0, 1, 2, 3, 4, 5, 5],
        &[0, 1, 2, 3, 4, 5, 1],
        &[1, 2, 3, 4, 5],
        &[0, 0, 1, 2, 3, 4, 5],
    ] {
        // Two equal texts have different chunks: their places differ.
        refused(order);
    }
    // A byte more after the end.
    let mut stream = good.concat();
    stream.push(0);
    assert!(open(parts(suite, &TEXTS).1, &stream, 9).1.is_err());
}

#[test]
fn an_ordinary_chunk_is_no_end() {
    let suite = Suite::Aes256Gcm;
    let (start, mut sealer, opener) = pair(suite, 9);
    let mut chunk = sealer.chunk(b"not the end").unwrap();
    // The length goes, the mark of the last chunk takes its place.
    chunk[0] = 0;
    let (out, end) = open(opener, &[start, chunk].concat(), 9);
    assert_eq!((out.len(), end), (0, Err(SealedError::Forged { what: "a chunk" })));
}

#[test]
fn answers_belong_to_their_request() {
    let suite = Suite::Aes128Gcm;
    let (stream, _) = parts(suite, &TEXTS);
    let (_, _, other) = pair(suite, 10);
    let (out, end) = open(other, &stream.concat(), 100);
    assert!(out.is_empty() && end.is_err());
}

#[test]
fn large_chunks_are_split_and_larger_ones_refused() {
    let suite = Suite::Aes256Gcm;
    let text: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    for (whole, last) in [
        (&text[..], &b""[..]),
        (b"", &text),
        (&text[..MAX_CHUNK], &text[MAX_CHUNK..]),
    ] {
        let (start, mut sealer, opener) = pair(suite, 9);
        let stream = [start, sealer.chunk(whole).unwrap(), sealer.finish(last).unwrap()].concat();
        let (out, end) = open(opener, &stream, 1_000);
        assert_eq!((out == text, end), (true, Ok(())));
    }
    let (start, _, mut opener) = pair(suite, 9);
    opener.push(&start).unwrap();
    // A length that nobody would seal is refused before anything is kept for it.
    assert!(matches!(
        opener.push(&0xffff_ffff_ffff_ffffu64.to_be_bytes()),
        Err(SealedError::TooLong { .. })
    ));
    let (start, _, mut opener) = pair(suite, 9);
    opener.push(&start).unwrap();
    assert!(matches!(opener.push(&[15]), Err(SealedError::Malformed { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pieces_do_not_matter(
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..12),
        step in 1usize..400,
    ) {
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let (stream, opener) = parts(Suite::Aes256Gcm, &texts);
        let (out, end) = open(opener, &stream.concat(), step);
        prop_assert_eq!((out, end), (texts.concat(), Ok(())));
    }

    /// Arbitrary bytes: refused, never a panic.
    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (start, _, opener) = pair(Suite::Aes128Gcm, 9);
        prop_assert!(open(opener, &[start, bytes.clone()].concat(), 50).1.is_err());
        let key = PrivateKey::derive(&[7; 32]);
        prop_assert!(direct::open(&[(1, &key)], &binding(), &bytes).is_err());
    }
}
