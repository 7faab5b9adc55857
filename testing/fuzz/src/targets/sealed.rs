//! Sealed requests and answers, and Binary HTTP: nothing opens that was not sealed, and what is read can be written.

use super::{target, words};
use crate::Target;
use opg_sealed::{
    PrivateKey, SealedError, Suite,
    bhttp::{
        Field, Request, Response, ResponseDecoder, ResponseEvent,
        stream::{content, end, head},
    },
    direct,
    ohttp::{self, Client, Gateway, KeyConfig},
};

const BODY: &[u8] = b"{\"model\":\"demo/tiny-llama\",\"messages\":[]}";

fn binding() -> direct::Binding<'static> {
    direct::Binding {
        chain_id: 10_740,
        route: "POST /v1/chat/completions",
        model: "demo/tiny-llama",
        quote: [1; 32],
        keyset: [2; 32],
        payer: [3; 20],
    }
}

fn key() -> PrivateKey {
    PrivateKey::derive(&[7; 32])
}

fn request() -> Request {
    Request {
        method: "POST".into(),
        scheme: "https".into(),
        authority: "node.example".into(),
        path: "/v1/chat/completions".into(),
        headers: vec![Field::new("content-type", "application/json").expect("a field")],
        body: BODY.to_vec(),
        trailers: Vec::new(),
    }
}

pub(super) fn targets() -> Vec<Target> {
    let mut all = Vec::new();
    let sealed = Suite::ALL.map(|suite| {
        let sealed = direct::seal(1, suite, &key().public(), &binding(), BODY, &[9; 32]);
        sealed.expect("sealed").0
    });
    let genuine = sealed.to_vec();
    all.push(target("sealed-direct", sealed.to_vec(), move |bytes| {
        words(direct::open(&[(1, &key())], &binding(), bytes), |opened| {
            assert!(genuine.iter().any(|known| known == bytes), "opened what nobody sealed");
            assert_eq!(opened.body, BODY);
            String::new()
        })
    }));

    let gateway = || Gateway::new(vec![(1, key())]);
    let keys = gateway().keys();
    let config = KeyConfig::parse_list(&keys).expect("own keys").remove(0);
    let suite = config.suites[0];
    all.push(target("ohttp-keys", vec![keys, config.to_bytes()], |bytes| {
        // Suites that nobody here knows are left out, so the bytes need not be the same.
        let one = KeyConfig::parse(bytes).map(|config| {
            assert_eq!(
                KeyConfig::parse(&config.to_bytes()).as_ref(),
                Ok(&config),
                "its own form is another one"
            );
        });
        words(KeyConfig::parse_list(bytes), |list| {
            format!("{} {}", list.len(), one.is_ok())
        })
    }));

    let plain = request().to_bytes(64).expect("bytes");
    let (whole, _) = Client::new(&config, suite)
        .and_then(|client| client.encapsulate(&plain, &[9; 32]))
        .expect("sealed");
    let known = whole.clone();
    all.push(target("ohttp-request", vec![whole], move |bytes| {
        words(gateway().decapsulate(bytes), |(opened, _)| {
            assert!(
                bytes == known && Request::parse(&opened).is_ok(),
                "opened what nobody sealed"
            );
            String::new()
        })
    }));

    let start = || {
        Client::new(&config, suite)
            .and_then(|client| client.start(&[9; 32]))
            .expect("a start")
    };
    let (mut chunked, mut sealer, _) = start();
    for part in plain.chunks(40) {
        chunked.extend(sealer.chunk(part).expect("sealed"));
    }
    chunked.extend(sealer.finish(b"").expect("sealed"));
    let known = chunked.clone();
    all.push(target("ohttp-chunked-request", vec![chunked.clone()], move |bytes| {
        let open = |size: usize| -> Result<Vec<u8>, SealedError> {
            let Some((start, rest)) = bytes.split_first_chunk::<{ ohttp::START }>() else {
                return Err(SealedError::Truncated { what: "the start" });
            };
            let (mut opener, _) = gateway().start(start)?;
            let mut plain = Vec::new();
            for piece in rest.chunks(size) {
                plain.extend(opener.push(piece)?.concat());
            }
            plain.extend(opener.finish()?);
            Ok(plain)
        };
        let opened = open(usize::MAX);
        assert_eq!(opened.is_ok(), open(11).is_ok(), "it depends on the pieces");
        words(opened, |_| {
            assert_eq!(bytes, known, "opened what nobody sealed");
            String::new()
        })
    }));

    // The answer, as a client reads it: chunks that are cut, moved or changed never make a whole.
    let answer = {
        let start: &[u8; ohttp::START] = chunked.first_chunk().expect("a start");
        let (_, secret) = gateway().start(start).expect("own request");
        let (mut bytes, mut sealer) = secret.sealer(&[8; 32]).expect("a sealer");
        for part in [&b"first"[..], b"second", b""] {
            bytes.extend(sealer.chunk(part).expect("sealed"));
        }
        bytes.extend(sealer.finish(b"last").expect("sealed"));
        bytes
    };
    let known = answer.clone();
    let for_answers = config.clone();
    all.push(target("ohttp-chunked-answer", vec![answer], move |bytes| {
        let client = Client::new(&for_answers, suite).and_then(|client| client.start(&[9; 32]));
        let (_, _, mut opener) = client.expect("a start");
        let opened = opener.push(bytes).and_then(|mut parts| {
            parts.push(opener.finish()?);
            Ok(parts.concat())
        });
        words(opened, |plain| {
            assert!(
                bytes == known && plain == b"firstsecondlast",
                "a whole answer that nobody gave"
            );
            String::new()
        })
    }));

    all.push(target(
        "bhttp-request",
        vec![plain, request().to_bytes(0).expect("bytes")],
        |bytes| {
            words(Request::parse(bytes), |request| {
                let again = request.to_bytes(0).expect("what was read can be written");
                assert_eq!(Request::parse(&again).expect("own form"), request);
                format!("{} headers", request.headers.len())
            })
        },
    ));
    let fields = [Field::new("content-type", "text/event-stream").expect("a field")];
    let streamed = [
        head(200, &fields).expect("a head"),
        content(b"data: 1\n\n"),
        content(b"data: [DONE]\n\n"),
        end(&[]).expect("an end"),
    ]
    .concat();
    all.push(target("bhttp-response", vec![streamed], |bytes| {
        let read = |size: usize| {
            let mut decoder = ResponseDecoder::new();
            let mut content = 0;
            for piece in bytes.chunks(size) {
                for event in decoder.push(piece)? {
                    if let ResponseEvent::Content(part) = event {
                        content += part.len();
                    }
                }
            }
            decoder.finish().map(|_| content)
        };
        let (whole, pieces) = (read(usize::MAX), read(3));
        assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok(), "it depends on the pieces");
        let parsed = Response::parse(bytes);
        words(whole, |_| format!("{}", parsed.is_ok()))
    }));
    all
}
