//! Published vectors: RFC 9180 (appendix A.1.1), RFC 9458 (appendix A), draft-ietf-ohai-chunked-ohttp-08
//! (appendix A), RFC 9292 (section 5 and its figures).

use opg_sealed::{
    PrivateKey, Receiver, Sender, Suite,
    bhttp::{Field, Request, Response, ResponseDecoder, ResponseEvent},
    ohttp::{Gateway, KeyConfig, START},
};

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
const TEXT: &[u8] = b"Beauty is truth, truth beauty";

struct Hpke {
    suite: Suite,
    ikm_sender: &'static str,
    secret: &'static str,
    public: &'static str,
    encapsulated: &'static str,
    sealed: &'static [&'static str],
    exported: &'static str,
}

const HPKE: [Hpke; 1] = [Hpke {
    suite: Suite::Aes128Gcm,
    ikm_sender: "7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234",
    secret: "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
    public: "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
    encapsulated: "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
    sealed: &[
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        "af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab251c03d0c22a56b8ca42c2063b84",
        "498dfcabd92e8acedc281e85af1cb4e3e31c7dc394a1ca20e173cb72516491588d96a19ad4a683518973dcc180",
    ],
    exported: "3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee",
}];

#[test]
fn rfc_9180() {
    for vector in HPKE {
        let key = PrivateKey::from_bytes(&array(vector.secret)).unwrap();
        assert_eq!(key.public().0, array::<32>(vector.public));
        let info = hex(INFO);
        let mut receiver = Receiver::new(vector.suite, &key, &array(vector.encapsulated), &info).unwrap();
        // The sender's key is derived from the appendix's input keying material, as here from the caller's randomness.
        let mut sender = Sender::new(vector.suite, &key.public(), &info, &array(vector.ikm_sender)).unwrap();
        assert_eq!(sender.encapsulated(), &array::<32>(vector.encapsulated));
        for (count, sealed) in vector.sealed.iter().enumerate() {
            let aad = format!("Count-{count}");
            assert_eq!(sender.seal(aad.as_bytes(), TEXT).unwrap(), hex(sealed));
            assert_eq!(receiver.open(aad.as_bytes(), &hex(sealed)).unwrap(), TEXT);
        }
        for exported in [sender.export(b"", 32), receiver.export(b"", 32)] {
            assert_eq!(exported.unwrap().as_slice(), hex(vector.exported));
        }
    }
}

#[test]
fn rfc_9458() {
    let config = hex("01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003");
    let parsed = KeyConfig::parse(&config).unwrap();
    // The ChaCha20-Poly1305 of the example is not offered here.
    assert_eq!(parsed.suites, [Suite::Aes128Gcm]);
    let key = PrivateKey::from_bytes(&array(
        "3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a",
    ))
    .unwrap();
    assert_eq!(key.public(), parsed.key);
    let gateway = Gateway::new(vec![(1, key)]);
    let sealed = hex(concat!(
        "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e469135906992e",
        "1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525"
    ));
    let (request, answer) = gateway.decapsulate(&sealed).unwrap();
    assert_eq!(request, hex("00034745540568747470730b6578616d706c652e636f6d012f"));
    let request = Request::parse(&request).unwrap();
    assert_eq!(
        (request.method.as_str(), request.authority.as_str()),
        ("GET", "example.com")
    );
    let mut nonce = [0; 32];
    nonce[..16].copy_from_slice(&hex("c789e7151fcba46158ca84b04464910d"));
    let sealed = answer.encapsulate(&hex("0140c8"), &nonce).unwrap();
    assert_eq!(
        sealed,
        hex("c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd")
    );
}

#[test]
fn chunked_draft() {
    let config = hex("010020668eb21aace159803974a4c67f08b4152d29bed10735fd08f98ccdd6fe09570800080001000100010003");
    let parsed = KeyConfig::parse(&config).unwrap();
    let key = PrivateKey::from_bytes(&array(
        "1c190d72acdbe4dbc69e680503bb781a932c70a12c8f3754434c67d8640d8698",
    ))
    .unwrap();
    assert_eq!(key.public(), parsed.key);
    let gateway = Gateway::new(vec![(1, key)]);
    let sealed = hex(concat!(
        "010020000100018811eb457e100811c40a0aa71340a1b81d804bb986f736f2f566a7199761a032",
        "1c2ad24942d4d692563012f2980c8fef437a336b9b2fc938ef77a5834f1d2e33d8fd25577afe31bd1c79d094f76b6250ae6549b473ecd9",
        "50501311001c6c1395d0ef7c1022297966307b8a7f"
    ));
    let (start, chunks) = sealed.split_first_chunk::<START>().unwrap();
    let wanted = hex("00034745540568747470730b6578616d706c652e636f6d012f");
    // Whole, and byte by byte.
    for step in [1, chunks.len()] {
        let (mut opener, _) = gateway.start(start).unwrap();
        let mut request: Vec<u8> = chunks
            .chunks(step)
            .flat_map(|part| opener.push(part).unwrap())
            .flatten()
            .collect();
        request.extend(opener.finish().unwrap());
        assert_eq!(request, wanted);
    }
    let (_, secret) = gateway.start(start).unwrap();
    let mut nonce = [0; 32];
    nonce[..16].copy_from_slice(&hex("bcce7f4cb921309ba5d62edf1769ef09"));
    let (mut response, mut sealer) = secret.sealer(&nonce).unwrap();
    // The example sends one byte, then two, then an empty last chunk.
    response.extend(sealer.chunk(&hex("01")).unwrap());
    response.extend(sealer.chunk(&hex("40c8")).unwrap());
    response.extend(sealer.finish(b"").unwrap());
    assert_eq!(
        response,
        hex(concat!(
            "bcce7f4cb921309ba5d62edf1769ef091179bf1cc87fa0e2c02de4546945aa3d1e4812b348b5bd4c594c16b6170b07b475845d1f32",
            "00ed9d8a796617a5b27265f4d73247f639"
        ))
    );
}

/// Figure 8 of RFC 9292: known length.
const REQUEST: &str = concat!(
    "0003474554056874747073000a2f68656c6c6f2e747874406c0a757365722d6167656e74346375726c2f372e31362e33206c69626375726c",
    "2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f61",
    "63636570742d6c616e677561676506656e2c206d690000"
);
/// Figure 9: the same in the indeterminate form, with ten bytes of padding.
const REQUEST_OPEN: &str = concat!(
    "0203474554056874747073000a2f68656c6c6f2e7478740a757365722d6167656e74346375726c2f372e31362e33206c69626375726c2f37",
    "2e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f616363",
    "6570742d6c616e677561676506656e2c206d6900000000000000000000000000"
);
/// Figure 11: indeterminate, with two informational responses.
const RESPONSE_OPEN: &str = concat!(
    "0340660772756e6e696e670a22736c65657020313522004067046c696e6b233c2f7374796c652e6373733e3b2072656c3d7072656c6f6164",
    "3b2061733d7374796c65046c696e6b243c2f7363726970742e6a733e3b2072656c3d7072656c6f61643b2061733d7363726970740040c804",
    "646174651d4d6f6e2c203237204a756c20323030392031323a32383a353320474d5406736572766572064170616368650d6c6173742d6d6f",
    "6469666965641d5765642c203232204a756c20323030392031393a31353a353620474d5404657461671422333461613338372d642d313536",
    "3865623030220d6163636570742d72616e6765730562797465730e636f6e74656e742d6c656e67746802353104766172790f416363657074",
    "2d456e636f64696e670c636f6e74656e742d747970650a746578742f706c61696e003348656c6c6f20576f726c6421204d7920636f6e7465",
    "6e7420696e636c75646573206120747261696c696e672043524c462e0d0a0000",
);
/// Figure 13: known length, with a trailer.
const RESPONSE: &str =
    "0140c8001d5468697320636f6e74656e7420636f6e7461696e732043524c462e0d0a0d07747261696c65720474657874";

#[test]
fn rfc_9292() {
    let wanted = Request {
        method: "GET".into(),
        scheme: "https".into(),
        authority: String::new(),
        path: "/hello.txt".into(),
        headers: [
            ("user-agent", "curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3"),
            ("host", "www.example.com"),
            ("accept-language", "en, mi"),
        ]
        .map(|(name, value)| Field::new(name, value).unwrap())
        .into(),
        ..Request::default()
    };
    assert_eq!(Request::parse(&hex(REQUEST)).unwrap(), wanted);
    assert_eq!(Request::parse(&hex(REQUEST_OPEN)).unwrap(), wanted);
    assert_eq!(wanted.to_bytes(0).unwrap(), hex(REQUEST));

    let response = Response::parse(&hex(RESPONSE)).unwrap();
    assert_eq!(response.body, b"This content contains CRLF.\r\n");
    assert_eq!(response.trailers, [Field::new("trailer", "text").unwrap()]);
    assert_eq!(response.to_bytes(0).unwrap(), hex(RESPONSE));
}

#[test]
fn rfc_9292_streamed_response() {
    let bytes = hex(RESPONSE_OPEN);
    let whole = Response::parse(&bytes).unwrap();
    assert_eq!(
        whole.informational.iter().map(|it| it.status).collect::<Vec<_>>(),
        [102, 103]
    );
    assert_eq!((whole.status, whole.headers.len()), (200, 8));
    assert!(whole.body.starts_with(b"Hello World! My content"));
    for step in [1, 7, bytes.len()] {
        let mut decoder = ResponseDecoder::new();
        let mut body = Vec::new();
        let mut heads = 0;
        for part in bytes.chunks(step) {
            for event in decoder.push(part).unwrap() {
                match event {
                    ResponseEvent::Head {
                        informational,
                        status,
                        headers,
                    } => {
                        assert_eq!(
                            (&informational, status, &headers),
                            (&whole.informational, 200, &whole.headers)
                        );
                        heads += 1;
                    }
                    ResponseEvent::Content(part) => body.extend(part),
                }
            }
        }
        assert_eq!(
            (decoder.finish().unwrap(), body, heads),
            (Vec::new(), whole.body.clone(), 1)
        );
    }
}
