//! A streamed answer through a relay that sees opaque bytes: Binary HTTP in chunked Oblivious HTTP, both directions.

use opg_sealed::{
    PrivateKey, SealedError, Suite,
    bhttp::{Field, Request, ResponseDecoder, ResponseEvent, stream},
    ohttp::{self, Client, Gateway, KeyConfig, START},
};

const PROMPT: &[u8] = br#"{"model": "demo/tiny-llama", "stream": true, "messages": ["a secret prompt"]}"#;
const TOKENS: [&[u8]; 3] = [b"data: Hel\n\n", b"data: lo\n\n", b"data: [DONE]\n\n"];

fn request() -> Request {
    Request {
        method: "POST".into(),
        scheme: "https".into(),
        authority: "node.example".into(),
        path: "/v1/chat/completions".into(),
        headers: vec![Field::new("content-type", "application/json").unwrap()],
        body: PROMPT.to_vec(),
        trailers: Vec::new(),
    }
}

fn gateway() -> Gateway {
    Gateway::new(vec![
        (2, PrivateKey::derive(&[8; 32])),
        (1, PrivateKey::derive(&[7; 32])),
    ])
}

/// Whether `part` shows anywhere in what the relay sees.
fn shows(seen: &[u8], part: &[u8]) -> bool {
    seen.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_streamed_chat() {
    let gateway = gateway();
    let keys = KeyConfig::parse_list(&gateway.keys()).unwrap();
    assert_eq!(keys.iter().map(|key| key.key_id).collect::<Vec<_>>(), [2, 1]);
    // The old key still works.
    for config in &keys {
        let client = Client::new(config, Suite::Aes256Gcm).unwrap();
        let (mut sent, mut sealer, mut answer) = client.start(&[9; 32]).unwrap();
        sent.extend(sealer.finish(&request().to_bytes(1_024).unwrap()).unwrap());
        assert!(!shows(&sent, b"secret") && !shows(&sent, b"/v1/chat"));

        let (start, chunks) = sent.split_first_chunk::<START>().unwrap();
        let (mut opener, secret) = gateway.start(start).unwrap();
        let mut bytes = opener.push(chunks).unwrap().concat();
        bytes.extend(opener.finish().unwrap());
        assert_eq!(Request::parse(&bytes).unwrap(), request());

        // Each token is sealed when it is there, and readable when it has arrived.
        let (mut seen, mut sealer) = secret.sealer(&[5; 32]).unwrap();
        let mut decoder = ResponseDecoder::new();
        let kind = [Field::new("content-type", "text/event-stream").unwrap()];
        seen.extend(sealer.chunk(&stream::head(200, &kind).unwrap()).unwrap());
        let mut feed = |bytes: &[u8]| -> Vec<ResponseEvent> {
            let chunks = answer.push(bytes).unwrap();
            chunks.iter().flat_map(|chunk| decoder.push(chunk).unwrap()).collect()
        };
        match feed(&seen).as_slice() {
            [
                ResponseEvent::Head {
                    status: 200, headers, ..
                },
            ] => assert_eq!(headers, &kind),
            other => panic!("{other:?}"),
        }
        for token in TOKENS {
            let chunk = sealer.chunk(&stream::content(token)).unwrap();
            assert!(!shows(&chunk, b"data"));
            assert_eq!(feed(&chunk), [ResponseEvent::Content(token.to_vec())]);
        }
        let end = sealer.finish(&stream::end(&[]).unwrap()).unwrap();
        assert!(feed(&end).is_empty());
        let last = answer.finish().unwrap();
        decoder.push(&last).unwrap();
        assert_eq!(decoder.finish().unwrap(), []);
    }
}

/// A relay that ends the answer early cannot make it look whole.
#[test]
fn a_cut_answer_is_noticed() {
    let gateway = gateway();
    let keys = KeyConfig::parse_list(&gateway.keys()).unwrap();
    let (mut sent, mut sealer, mut answer) = Client::new(&keys[0], Suite::Aes128Gcm)
        .unwrap()
        .start(&[9; 32])
        .unwrap();
    sent.extend(sealer.finish(b"request").unwrap());
    let (_, secret) = gateway.start(sent.first_chunk().unwrap()).unwrap();
    let (mut seen, mut sealer) = secret.sealer(&[5; 32]).unwrap();
    seen.extend(sealer.chunk(&stream::head(200, &[]).unwrap()).unwrap());
    seen.extend(sealer.chunk(&stream::content(TOKENS[0])).unwrap());
    assert_eq!(answer.push(&seen).unwrap().len(), 2);
    assert!(matches!(answer.finish(), Err(SealedError::Truncated { .. })));
}

#[test]
fn requests_are_told_apart() {
    let gateway = gateway();
    let keys = KeyConfig::parse_list(&gateway.keys()).unwrap();
    let seal = |entropy: u8| {
        let client = Client::new(&keys[0], Suite::Aes128Gcm).unwrap();
        client.encapsulate(b"request", &[entropy; 32]).unwrap().0
    };
    let (one, other) = (seal(1), seal(2));
    assert_eq!(ohttp::replay_id(&one), ohttp::replay_id(&seal(1)));
    assert_eq!(ohttp::replay_id(&one), ohttp::replay_id(&one[..START]));
    assert_ne!(ohttp::replay_id(&one), ohttp::replay_id(&other));
    assert!(ohttp::replay_id(&one[..START - 1]).is_err());
    // A message of one form is not one of the other: their labels differ.
    assert!(gateway.decapsulate(&one).is_ok());
    let (start, rest) = one.split_first_chunk::<START>().unwrap();
    let (mut opener, _) = gateway.start(start).unwrap();
    let chunk = [&[u8::try_from(rest.len()).unwrap()], rest].concat();
    assert!(matches!(opener.push(&chunk), Err(SealedError::Forged { .. })));
}

#[test]
fn foreign_keys_and_broken_lists() {
    let gateway = gateway();
    let list = gateway.keys();
    for end in 1..list.len() {
        // Cut between two configurations it is a shorter list.
        assert!(KeyConfig::parse_list(&list[..end]).is_err() || end == list.len() / 2);
    }
    let keys = KeyConfig::parse_list(&list).unwrap();
    let foreign = KeyConfig {
        key_id: 77,
        ..keys[0].clone()
    };
    let (sent, _) = Client::new(&foreign, Suite::Aes128Gcm)
        .unwrap()
        .encapsulate(b"x", &[9; 32])
        .unwrap();
    assert_eq!(
        gateway.decapsulate(&sent).unwrap_err(),
        SealedError::UnknownKey { got: 77 }
    );
    let narrow = KeyConfig {
        suites: vec![Suite::Aes128Gcm],
        ..keys[0].clone()
    };
    assert!(matches!(
        Client::new(&narrow, Suite::Aes256Gcm),
        Err(SealedError::Algorithm { .. })
    ));
    // A key of another KEM is passed over, one without any suite of ours too.
    let mut other = keys[0].to_bytes();
    other[2] = 0x10;
    let length = u16::try_from(other.len()).unwrap().to_be_bytes();
    assert_eq!(
        KeyConfig::parse_list(&[&length[..], &other, &list].concat()).unwrap(),
        keys
    );
}
