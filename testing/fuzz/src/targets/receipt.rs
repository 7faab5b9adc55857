//! Receipts, quotes and receipt files: one value has one encoding, and a signature belongs to one receipt.

use super::{target, words};
use crate::Target;
use opg_receipt::{Core, ReceiptFile, SignedQuote, SignedReceipt};
use opg_vectors::{RECEIPT_FILE, bytes, load};

pub(super) fn targets() -> Vec<Target> {
    let v = load("receipt");
    let public: [u8; 32] = bytes(&v["public"]).try_into().expect("32 bytes");
    let names = [
        "receipt",
        "with_evidence_and_router",
        "with_upstream",
        "with_bare_upstream",
    ];
    let payloads: Vec<Vec<u8>> = names.iter().map(|name| bytes(&v[name]["payload"])).collect();
    let signed: Vec<Vec<u8>> = names.iter().map(|name| bytes(&v[name]["cose"])).collect();
    let genuine = signed.clone();
    vec![
        target("receipt-core", payloads, |payload| {
            words(Core::decode(payload), |core| {
                assert_eq!(core.encode(), payload, "two encodings of one core");
                words(core.check_consistency(), |()| "consistent".to_owned())
            })
        }),
        target("receipt-signed", signed, move |message| {
            words(SignedReceipt::decode(message), |receipt| {
                assert_eq!(receipt.cose().as_ref(), message, "other bytes are kept");
                let verified = receipt.verify_signature(&public);
                assert!(
                    verified.is_err() || genuine.iter().any(|known| known == message),
                    "a signature over something else"
                );
                words(verified, |()| "verified".to_owned())
            })
        }),
        target("receipt-quote", vec![bytes(&v["quote"]["cose"])], |message| {
            words(SignedQuote::decode(message), |quote| {
                assert_eq!(quote.cose().as_ref(), message, "other bytes are kept");
                String::new()
            })
        }),
        target("receipt-file", vec![RECEIPT_FILE.to_vec()], |file| {
            words(ReceiptFile::parse_strict(file), |parsed| {
                assert_eq!(parsed.to_bytes(), file, "two forms of one file");
                String::new()
            })
        }),
    ]
}
