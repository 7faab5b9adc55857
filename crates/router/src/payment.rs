//! To whom a payment goes: it names its payee (D1), and only that node can take it.

use crate::error::ApiError;
use alloy_primitives::Address;
use http::HeaderMap;
use opg_payments::x402::{PAYMENT_SIGNATURE, decode_header};
use serde_json::Value;

/// The payee of the payment in a request's headers; `None` if there is none.
///
/// Only `accepted.payTo` is read. Whether the payment is good is for the node to say, whatever its scheme.
///
/// # Errors
/// 400 for a header that is no payment.
pub(crate) fn payee(headers: &HeaderMap) -> Result<Option<Address>, ApiError> {
    let mut all = headers.get_all(PAYMENT_SIGNATURE).iter();
    let bad = |why: String| ApiError::bad_request("invalid_payment", "PAYMENT-SIGNATURE", why);
    let Some(header) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(bad("expected one PAYMENT-SIGNATURE header, got several".into()));
    }
    let payment: Value = decode_header(header.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let text = payment.pointer("/accepted/payTo").and_then(Value::as_str);
    let text = text.ok_or_else(|| bad("accepted.payTo is missing: it names the node that is paid".into()))?;
    let address = text
        .parse()
        .map_err(|_| bad("accepted.payTo is not an address".into()))?;
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opg_payments::x402::encode_header;
    use serde_json::json;

    #[test]
    fn payees_of_headers() {
        let of = |values: &[String]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PAYMENT_SIGNATURE, value.parse().unwrap());
            }
            payee(&headers).map_err(|error| error.code)
        };
        assert_eq!(of(&[]), Ok(None));
        let pay = |to: &str| encode_header(&json!({"x402Version": 2, "accepted": {"scheme": "anything", "payTo": to}}));
        let address = Address::repeat_byte(7);
        assert_eq!(of(&[pay(&address.to_string())]), Ok(Some(address)));
        for bad in [
            vec![pay("nobody")],
            vec!["%%%".into()],
            vec![encode_header(&json!([]))],
            vec![pay("0x00"), pay("0x00")],
            vec!["A".repeat(20_000)],
        ] {
            assert_eq!(of(&bad), Err("invalid_payment"));
        }
    }
}
