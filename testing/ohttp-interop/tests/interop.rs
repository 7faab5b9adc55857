//! Oblivious HTTP with the `ohttp` crate on the other side, whole and chunked, client and gateway. It is by an author of
//! the RFC, with code of its own above the primitives.

use futures::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, executor::block_on, io::Cursor};
use ohttp::{
    ClientRequest, KeyConfig as TheirConfig, Server, SymmetricSuite,
    hpke::{Aead, Kdf, Kem},
};
use opg_sealed::{
    PrivateKey, Suite,
    ohttp::{Client, Gateway, KeyConfig, START},
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    io::Read as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// What is put in before it is read.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<VecDeque<u8>>>);

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut [u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(self.0.borrow_mut().read(out))
    }
}

/// What both sides have: the crate has no AES-256-GCM.
const AEADS: [(Aead, Suite); 1] = [(Aead::Aes128Gcm, Suite::Aes128Gcm)];

fn their_config(aead: Aead) -> TheirConfig {
    TheirConfig::new(3, Kem::X25519Sha256, vec![SymmetricSuite::new(Kdf::HkdfSha256, aead)]).unwrap()
}

/// A gateway of ours, and its configuration with one suite.
fn our_gateway(suite: Suite) -> (Gateway, Vec<u8>) {
    let gateway = Gateway::new(vec![(9, PrivateKey::derive(&[7; 32]))]);
    let mut config = KeyConfig::parse_list(&gateway.keys()).unwrap().remove(0);
    config.suites = vec![suite];
    (gateway, config.to_bytes())
}

#[test]
fn our_client_their_gateway() {
    for (aead, suite) in AEADS {
        let server = Server::new(their_config(aead)).unwrap();
        let list = TheirConfig::encode_list(&[server.config().clone()]).unwrap();
        let configs = KeyConfig::parse_list(&list).unwrap();
        assert_eq!((configs.len(), &configs[0].suites), (1, &vec![suite]));
        let (sealed, waiting) = Client::new(&configs[0], suite)
            .unwrap()
            .encapsulate(b"request", &[9; 32])
            .unwrap();
        let (request, answer) = server.decapsulate(&sealed).unwrap();
        assert_eq!(request, b"request");
        let answer = answer.encapsulate(b"response").unwrap();
        assert_eq!(waiting.decapsulate(&answer).unwrap(), b"response");
    }
}

#[test]
fn their_client_our_gateway() {
    for (_, suite) in AEADS {
        let (gateway, config) = our_gateway(suite);
        let client = ClientRequest::from_encoded_config(&config).unwrap();
        let (sealed, waiting) = client.encapsulate(b"request").unwrap();
        let (request, answer) = gateway.decapsulate(&sealed).unwrap();
        assert_eq!(request, b"request");
        let answer = answer.encapsulate(b"response", &[8; 32]).unwrap();
        assert_eq!(waiting.decapsulate(&answer).unwrap(), b"response");
    }
    assert!(ClientRequest::from_encoded_config_list(&our_gateway(Suite::Aes128Gcm).0.keys()).is_ok());
}

#[test]
fn chunked_both_ways() {
    for (aead, suite) in AEADS {
        block_on(async {
            // Their client streams to our gateway, which streams back.
            let (gateway, config) = our_gateway(suite);
            let mut sent = Vec::new();
            let mut request = ClientRequest::from_encoded_config(&config)
                .unwrap()
                .encapsulate_stream(&mut sent)
                .unwrap();
            request.write_all(b"one ").await.unwrap();
            request.write_all(&[b'x'; 20_000]).await.unwrap();
            request.close().await.unwrap();
            let pipe = Pipe::default();
            let mut waiting = request.response(pipe.clone()).unwrap();
            drop(request);
            let (start, chunks) = sent.split_first_chunk::<START>().unwrap();
            let (mut opener, secret) = gateway.start(start).unwrap();
            let mut got = opener.push(chunks).unwrap().concat();
            got.extend(opener.finish().unwrap());
            assert_eq!(got, [&b"one "[..], &[b'x'; 20_000]].concat());
            let (mut answer, mut sealer) = secret.sealer(&[8; 32]).unwrap();
            answer.extend(sealer.chunk(b"Hel").unwrap());
            answer.extend(sealer.finish(b"lo").unwrap());
            pipe.0.borrow_mut().extend(&answer);
            let mut text = Vec::new();
            waiting.read_to_end(&mut text).await.unwrap();
            assert_eq!(text, b"Hello");

            // Our client streams to their gateway, which streams back.
            let server = Server::new(their_config(aead)).unwrap();
            let config = KeyConfig::parse(&server.config().encode().unwrap()).unwrap();
            let (mut message, mut sealer, mut opener) = Client::new(&config, suite).unwrap().start(&[9; 32]).unwrap();
            message.extend(sealer.chunk(b"one ").unwrap());
            message.extend(sealer.finish(b"two").unwrap());
            let mut source = server.decapsulate_stream(Cursor::new(message));
            let mut got = Vec::new();
            source.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"one two");
            let mut answer = Vec::new();
            let mut sink = source.response(&mut answer).unwrap();
            sink.write_all(b"Hel").await.unwrap();
            sink.write_all(b"lo").await.unwrap();
            sink.close().await.unwrap();
            drop(sink);
            let mut text = opener.push(&answer).unwrap().concat();
            text.extend(opener.finish().unwrap());
            assert_eq!(text, b"Hello");
        });
    }
}
