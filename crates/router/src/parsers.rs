//! What the router reads of strangers' bytes, without the router around it: for fuzzing, and for programs that have to read the
//! same thing.

use crate::{address, model_name::ModelScan, payment};
use alloy_primitives::Address;
use http::{HeaderMap, HeaderValue};
use opg_payments::x402::PAYMENT_SIGNATURE;

/// The outermost `model` of a JSON body that arrives in pieces of `size` bytes; `None` if there is none within the bound that is
/// looked at.
#[must_use]
pub fn model_of(body: &[u8], size: usize) -> Option<String> {
    let mut scanner = ModelScan::default();
    for piece in body.chunks(size.max(1)) {
        scanner.push(piece);
    }
    scanner.found().map(str::to_owned)
}

/// The payee that a `PAYMENT-SIGNATURE` header names; the code of the refusal otherwise.
///
/// # Errors
/// The error code that a client gets.
pub fn payee_of(header: &[u8]) -> Result<Option<Address>, &'static str> {
    let value = HeaderValue::from_bytes(header).map_err(|_| "invalid_header")?;
    let mut headers = HeaderMap::new();
    headers.insert(PAYMENT_SIGNATURE, value);
    payment::payee(&headers).map_err(|error| error.code)
}

/// A node's endpoint as it is registered on chain, in the one form that is used; `private` also takes loopback addresses.
///
/// # Errors
/// Why no request is sent there.
pub fn endpoint(text: &str, private: bool) -> Result<String, &'static str> {
    address::base_url(text, private)
}
