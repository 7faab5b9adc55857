//! Direct requests: bound to everything they name, and byte for byte what an independent implementation makes.

use opg_sealed::{
    PrivateKey, SealedError, Suite,
    direct::{self, Binding, MAX_BODY},
};

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

#[test]
fn another_binding_does_not_open() {
    let key = PrivateKey::derive(&[7; 32]);
    let good = binding();
    for suite in Suite::ALL {
        let (sealed, _) = direct::seal(1, suite, &key.public(), &good, b"prompt", &[9; 32]).unwrap();
        assert_eq!(direct::open(&[(1, &key)], &good, &sealed).unwrap().body, b"prompt");
        for other in [
            Binding { chain_id: 1, ..good },
            Binding {
                route: "POST /v1/completions",
                ..good
            },
            Binding {
                model: "demo/other",
                ..good
            },
            Binding { quote: [0; 32], ..good },
            Binding {
                keyset: [0; 32],
                ..good
            },
            Binding { payer: [0; 20], ..good },
            // The same text at another border.
            Binding {
                route: "POST /v1/chat/completionsdemo",
                model: "/tiny-llama",
                ..good
            },
        ] {
            assert!(matches!(
                direct::open(&[(1, &key)], &other, &sealed),
                Err(SealedError::Forged { .. })
            ));
        }
    }
}

#[test]
fn every_bit_counts() {
    let key = PrivateKey::derive(&[7; 32]);
    let (sealed, _) = direct::seal(1, Suite::Aes128Gcm, &key.public(), &binding(), b"prompt", &[9; 32]).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // The top bit of the encapsulated key: X25519 ignores it, but it is hashed into the keys (RFC 9180, 4.1).
        assert!(direct::open(&[(1, &key)], &binding(), &changed).is_err(), "bit {bit}");
    }
    for end in 0..sealed.len() {
        assert!(direct::open(&[(1, &key)], &binding(), &sealed[..end]).is_err());
    }
    assert!(direct::open(&[(1, &key)], &binding(), &[&sealed[..], &[0]].concat()).is_err());
}

#[test]
fn keys_and_sizes() {
    let (key, other) = (PrivateKey::derive(&[7; 32]), PrivateKey::derive(&[8; 32]));
    let seal =
        |body: &[u8], entropy| direct::seal(2, Suite::ALL[0], &key.public(), &binding(), body, &entropy).unwrap();
    let (sealed, _) = seal(b"prompt", [9; 32]);
    let opened = direct::open(&[(1, &other), (2, &key)], &binding(), &sealed).unwrap();
    assert_eq!(
        direct::open(&[(1, &key)], &binding(), &sealed).unwrap_err(),
        SealedError::UnknownKey { got: 2 }
    );
    assert!(matches!(
        direct::open(&[(2, &other)], &binding(), &sealed),
        Err(SealedError::Forged { .. })
    ));
    // A second request has another replay id; the same bytes have the same.
    let (second, _) = seal(b"prompt", [10; 32]);
    let id = |bytes: &[u8]| direct::open(&[(2, &key)], &binding(), bytes).unwrap().replay_id;
    assert_eq!(opened.replay_id, id(&sealed));
    assert_ne!(opened.replay_id, id(&second));
    // Keys of small order give no secret.
    for bad in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let refused = direct::seal(1, Suite::ALL[0], &opg_sealed::PublicKey(bad), &binding(), b"", &[9; 32]);
        assert_eq!(refused.unwrap_err(), SealedError::BadKey);
    }
    let large = vec![0; MAX_BODY + 1];
    let refused = direct::seal(1, Suite::ALL[0], &key.public(), &binding(), &large, &[9; 32]);
    assert!(matches!(refused, Err(SealedError::TooLong { .. })));
    let long = "m".repeat(257);
    for model in ["", long.as_str()] {
        let odd = Binding { model, ..binding() };
        assert!(direct::seal(1, Suite::ALL[0], &key.public(), &odd, b"", &[9; 32]).is_err());
    }
}

#[test]
fn secrets_do_not_show() {
    let key = PrivateKey::derive(&[7; 32]);
    let shown = format!("{key:?}");
    assert!(!shown.contains(&format!("{:?}", key.to_bytes().as_slice())));
    let (_, secret) = direct::seal(1, Suite::ALL[0], &key.public(), &binding(), b"", &[9; 32]).unwrap();
    assert_eq!(format!("{secret:?}"), "ResponseSecret { suite: Aes256Gcm, .. }");
}

/// Made in Python: HPKE by `pyhpke` 0.6.5 with the ephemeral key of `DeriveKeyPair(09 * 32)`, the binding by a CBOR encoder
/// written there, the keys of the answer by `cryptography`'s HKDF and AEADs. Key of the enclave:
/// `DeriveKeyPair(07 * 32)`; answer: nonce of bytes 08, chunks `Hel`, `lo` and an empty last one.
#[test]
fn python_makes_the_same_bytes() {
    let key = PrivateKey::derive(&[7; 32]);
    for (suite, sealed, answer) in PYTHON {
        let (ours, client) = direct::seal(5, suite, &key.public(), &binding(), b"prompt", &[9; 32]).unwrap();
        assert_eq!(hex::encode(&ours), sealed);
        let opened = direct::open(&[(5, &key)], &binding(), &ours).unwrap();
        let (mut stream, mut sealer) = opened.secret.sealer(&[8; 32]).unwrap();
        stream.extend(sealer.chunk(b"Hel").unwrap());
        stream.extend(sealer.chunk(b"lo").unwrap());
        stream.extend(sealer.finish(b"").unwrap());
        assert_eq!(hex::encode(&stream), answer);
        let mut opener = client.opener();
        assert_eq!(opener.push(&stream).unwrap(), [b"Hel".to_vec(), b"lo".to_vec()]);
        assert_eq!(opener.finish().unwrap(), b"");
    }
}

const PYTHON: [(Suite, &str, &str); 2] = [
    (
        Suite::Aes256Gcm,
        "05002000010002de8923a675d02180cdd7d0097ba404b9e1e2930d5665cba58d1765006361793b842281e00f202bca7a1b905e050e4ca663f6fb4cf531",
        "080808080808080808080808080808080808080808080808080808080808080813323bb2cce6d50862878c77d911ec631dc5744b12cbc2b3d87da9b38771ea52cf8cb0be8b073000593339f52ebbb078117a29ae1ec4b411",
    ),
    (
        Suite::Aes128Gcm,
        "05002000010001de8923a675d02180cdd7d0097ba404b9e1e2930d5665cba58d1765006361793b473faf9492c935e957529dfb7dba2120357cfe16f5b1",
        "0808080808080808080808080808080813a93f7aa859f86d7efb38743d86e7c57b5bd37712eafed2c8248b0476fef790cb26f9d0ec875200d02beda8b26eb392e8f279dee4764ad3",
    ),
];
