//! `/v1/infer`: tensors in, tensors out.

use std::time::Duration;

use opg_primitives::{
    mode::Mode,
    money::{Amount, Usage},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Authorized, Client, ClientError, Job, Paid, Way,
    answer::{Envelope, same_delivery},
    rpc::read_body,
};

const MAX_ANSWER: usize = 64 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Tensors with a checked receipt.
#[derive(Debug, Clone)]
pub struct Inference {
    /// Output tensors by name.
    pub outputs: Value,
    /// The receipt and what opens it.
    pub paid: Paid,
}

#[derive(Deserialize)]
struct Answer {
    outputs: Value,
    opg: Envelope,
}

impl Job {
    /// A call of `model` with `inputs`, an object of tensors by name.
    pub fn infer(model: &str, inputs: &Value, max_spend: Amount) -> Self {
        Self::infer_in(Mode::None, model, inputs, max_spend)
    }

    /// A call of `model` in a mode. In mode zk the answer is that of the model's exact integer program, a proof of it
    /// follows, and validators see request and answer in the clear.
    pub fn infer_in(mode: Mode, model: &str, inputs: &Value, max_spend: Amount) -> Self {
        let mut body = json!({ "model": model, "inputs": inputs });
        if mode != Mode::None {
            body["mode"] = json!(mode);
        }
        Self {
            model: model.into(),
            path: "/v1/infer",
            body: body.to_string().into_bytes().into(),
            mode,
            max_spend,
            via: Self::via(mode),
            way: Way::default(),
            most: Usage { input: 1, output: 1 },
        }
    }
}

impl Client {
    /// Sends a paid inference and checks the answer's receipt before it gives the answer.
    ///
    /// # Errors
    /// If the node refuses, or its receipt does not prove this answer.
    pub async fn infer(&self, paid: &Authorized) -> Result<Inference, ClientError> {
        let (response, paid) = self.post_paid(paid.clone()).await?;
        let answer = |what: String| ClientError::NodeAnswer { what };
        let bytes = tokio::time::timeout(BODY_TIMEOUT, read_body(response, MAX_ANSWER))
            .await
            .map_err(|_| answer("the body stopped arriving".into()))?
            .map_err(|error| answer(error.to_string()))?;
        let Answer { outputs, opg } = serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()))?;
        same_delivery("response.commitment", &opg.tensors()?, &outputs)?;
        Ok(Inference {
            outputs,
            paid: paid.accept(opg)?,
        })
    }
}
