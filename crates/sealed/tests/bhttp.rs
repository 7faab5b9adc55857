//! Binary HTTP with the `bhttp` crate on the other side: it is by an author of the RFC and shares no code with this one.

use opg_sealed::{
    bhttp::{Field, Informational, Request, Response, ResponseDecoder, ResponseEvent, stream},
    ohttp::KeyConfig,
};
use proptest::prelude::*;

fn theirs(bytes: &[u8]) -> bhttp::Message {
    bhttp::Message::read_bhttp(&mut std::io::Cursor::new(bytes)).unwrap()
}

fn fields(list: &[Field]) -> Vec<(Vec<u8>, Vec<u8>)> {
    list.iter()
        .map(|field| (field.name().as_bytes().to_vec(), field.value().to_vec()))
        .collect()
}

fn their_fields(list: &bhttp::FieldSection) -> Vec<(Vec<u8>, Vec<u8>)> {
    list.iter()
        .map(|field| (field.name().to_vec(), field.value().to_vec()))
        .collect()
}

fn any_fields() -> impl Strategy<Value = Vec<Field>> {
    let field = ("[a-z][a-z0-9-]{0,20}", "[ -~]{0,40}").prop_map(|(name, value)| Field::new(name, value).unwrap());
    proptest::collection::vec(field, 0..6)
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn binary_requests(
        (method, path) in ("[A-Z]{3,7}", "/[!-~]{0,60}"),
        headers in any_fields(), body in any_body(), trailers in any_fields(), padding in 0usize..300,
    ) {
        let ours = Request {
            method, scheme: "https".into(), authority: "node.example:8443".into(), path, headers, body, trailers,
        };
        let message = theirs(&ours.to_bytes(padding).unwrap());
        prop_assert_eq!(message.control().method().unwrap(), ours.method.as_bytes());
        prop_assert_eq!(message.control().authority().unwrap(), ours.authority.as_bytes());
        prop_assert_eq!(message.control().path().unwrap(), ours.path.as_bytes());
        prop_assert_eq!(their_fields(message.header()), fields(&ours.headers));
        prop_assert_eq!(message.content(), &ours.body[..]);
        prop_assert_eq!(their_fields(message.trailer()), fields(&ours.trailers));
        for mode in [bhttp::Mode::KnownLength, bhttp::Mode::IndeterminateLength] {
            let mut bytes = Vec::new();
            message.write_bhttp(mode, &mut bytes).unwrap();
            prop_assert_eq!(&Request::parse(&bytes).unwrap(), &ours);
        }
    }

    #[test]
    fn binary_responses(
        status in 200u16..600, early in proptest::option::of((100u16..200, any_fields())),
        headers in any_fields(), body in any_body(), trailers in any_fields(), step in 1usize..60,
    ) {
        let informational = early.map(|(status, headers)| Informational { status, headers }).into_iter().collect();
        let ours = Response { informational, status, headers, body, trailers };
        let message = theirs(&ours.to_bytes(0).unwrap());
        prop_assert_eq!(message.control().status().unwrap().code(), status);
        prop_assert_eq!(message.content(), &ours.body[..]);
        for mode in [bhttp::Mode::KnownLength, bhttp::Mode::IndeterminateLength] {
            let mut bytes = Vec::new();
            message.write_bhttp(mode, &mut bytes).unwrap();
            prop_assert_eq!(&Response::parse(&bytes).unwrap(), &ours);
            prop_assert_eq!(&decoded(&bytes, step), &ours);
        }
        // Written as a stream by us, read whole by them.
        let mut bytes = stream::head(status, &ours.headers).unwrap();
        for part in ours.body.chunks(step) {
            bytes.extend(stream::content(part));
        }
        bytes.extend(stream::end(&ours.trailers).unwrap());
        let message = theirs(&bytes);
        prop_assert_eq!(message.content(), &ours.body[..]);
        prop_assert_eq!(their_fields(message.trailer()), fields(&ours.trailers));
    }

    /// Arbitrary and cut bytes: an answer or an error, never a panic, and the same from both readers of ours.
    #[test]
    fn garbage(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
        let _ = Request::parse(&bytes);
        let whole = Response::parse(&bytes);
        let mut decoder = ResponseDecoder::new();
        let streamed = bytes.chunks(step).try_for_each(|part| decoder.push(part).map(drop));
        if streamed.and_then(|()| decoder.finish()).is_ok() {
            prop_assert!(whole.is_ok());
        }
        let _ = KeyConfig::parse_list(&bytes);
    }
}

fn decoded(bytes: &[u8], step: usize) -> Response {
    let mut decoder = ResponseDecoder::new();
    let mut response = Response::default();
    for part in bytes.chunks(step) {
        for event in decoder.push(part).unwrap() {
            match event {
                ResponseEvent::Head {
                    informational,
                    status,
                    headers,
                } => {
                    response.informational = informational;
                    response.status = status;
                    response.headers = headers;
                }
                ResponseEvent::Content(part) => response.body.extend(part),
            }
        }
    }
    response.trailers = decoder.finish().unwrap();
    response
}
