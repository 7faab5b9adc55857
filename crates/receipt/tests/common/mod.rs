//! The receipt of the golden vectors.
// Each test binary uses its own part of this module.
#![allow(dead_code, unreachable_pub)]

use ed25519_dalek::SigningKey;
use opg_receipt::{Core, SignedQuote, SignedReceipt};
use opg_vectors::{bytes, load};

pub fn key() -> SigningKey {
    let secret: [u8; 32] = bytes(&load("receipt")["secret"]).try_into().expect("32 bytes");
    SigningKey::from_bytes(&secret)
}

pub fn receipt() -> SignedReceipt {
    SignedReceipt::decode(&bytes(&load("receipt")["receipt"]["cose"])).expect("the golden receipt")
}

pub fn core() -> Core {
    receipt().core().clone()
}

pub fn quote() -> SignedQuote {
    SignedQuote::decode(&bytes(&load("receipt")["quote"]["cose"])).expect("the golden quote")
}
