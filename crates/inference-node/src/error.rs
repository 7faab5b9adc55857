//! Errors as clients see them: `{"error":{"message","type","code","param"}}` with the right status.

use alloy_primitives::B256;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use opg_payments::{
    journal::JournalError,
    x402::{self, PaymentRequired, SettleResponse},
};
use serde_json::{Map, Value, json};

/// One error of the HTTP interface.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// Stable machine-readable word.
    pub(crate) code: &'static str,
    /// For people: what was wrong and what to do.
    pub(crate) message: String,
    /// The field that is wrong.
    pub(crate) param: Option<String>,
    /// Further members of the error object, such as the receipt id.
    pub(crate) details: Map<String, Value>,
    /// The offer that goes with a 402.
    pub(crate) offer: Option<Box<PaymentRequired>>,
    /// x402's word for the refusal, on which clients act; the message where there is none.
    pub(crate) x402: Option<&'static str>,
    /// The channel that the refusal is about.
    pub(crate) channel: Option<B256>,
    /// What became of the payment that came with the request.
    pub(crate) settlement: Option<Box<SettleResponse>>,
}

impl ApiError {
    /// An error without a field.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            param: None,
            details: Map::new(),
            offer: None,
            x402: None,
            channel: None,
            settlement: None,
        }
    }

    /// 400: the request is not what the interface defines.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 422: the request is well-formed, its values cannot be worked on.
    pub(crate) fn unprocessable(code: &'static str, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message).param(param)
    }

    /// 402: the payment is missing or refused.
    pub(crate) fn payment(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, code, message)
    }

    /// 503: the node cannot work now; nothing was charged.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// Names the field.
    #[must_use]
    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds a member to the error object.
    #[must_use]
    pub(crate) fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.into(), value.into());
        self
    }

    /// OpenAI's `type` of the error.
    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            402 | 409 => "payment_error",
            404 => "not_found_error",
            401 | 403 => "authentication_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The JSON body.
    #[must_use]
    pub(crate) fn body(&self) -> Value {
        let mut error = json!({"message": self.message, "type": self.kind(), "code": self.code, "param": self.param});
        if let Some(object) = error.as_object_mut() {
            object.extend(self.details.clone());
        }
        let mut body = json!({ "error": error });
        // x402's own `error` is a text and stands in the header; the body keeps the one error shape of this interface.
        if let (Some(offer), Some(body)) = (&self.offer, body.as_object_mut())
            && let Ok(Value::Object(mut offer)) = serde_json::to_value(offer)
        {
            offer.remove("error");
            body.extend(offer);
        }
        body
    }
}

impl From<JournalError> for ApiError {
    fn from(error: JournalError) -> Self {
        tracing::error!(%error, "journal refused a request");
        Self::unavailable(
            "journal_unavailable",
            "the node cannot record payments at the moment; nothing was charged",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(offer) = &self.offer
            && let Ok(value) = HeaderValue::try_from(x402::encode_header(offer))
        {
            headers.insert(x402::PAYMENT_REQUIRED, value);
        }
        if let Some(settlement) = &self.settlement
            && let Ok(value) = HeaderValue::try_from(x402::encode_header(settlement))
        {
            headers.insert(x402::PAYMENT_RESPONSE, value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_four_members() {
        let error = ApiError::unprocessable("wrong_shape", "inputs.x", "expected [1, 64], got [1, 63]")
            .detail("receipt_id", "0x01");
        assert_eq!(
            error.body(),
            json!({"error": {"message": "expected [1, 64], got [1, 63]", "type": "invalid_request_error", "code": "wrong_shape",
                "param": "inputs.x", "receipt_id": "0x01"}})
        );
        assert_eq!(
            ApiError::unavailable("x", "y").into_response().headers()["retry-after"],
            "2"
        );
    }

    #[test]
    fn a_402_has_the_offer_in_header_and_body() {
        let mut error = ApiError::payment("payment_required", "payment required");
        let resource = x402::Resource {
            url: "http://n/v1/infer".into(),
            description: None,
            mime_type: None,
        };
        let offer = PaymentRequired {
            x402_version: 2,
            error: Some("payment required".into()),
            resource,
            accepts: vec![],
            extensions: None,
        };
        error.offer = Some(Box::new(offer.clone()));
        let body = error.body();
        assert_eq!(body["x402Version"], 2);
        assert_eq!(body["error"]["code"], "payment_required");
        let response = error.into_response();
        let header =
            x402::decode_header::<PaymentRequired>(response.headers()[x402::PAYMENT_REQUIRED].as_bytes()).unwrap();
        assert_eq!(header, offer);
    }
}
