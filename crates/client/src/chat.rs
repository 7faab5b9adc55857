//! `/v1/chat/completions`: text in, text out, whole or as it is generated.

use std::{collections::VecDeque, time::Duration};

use opg_primitives::{
    mode::Mode,
    money::{Amount, Usage},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Authorized, Client, ClientError, Job, Paid,
    answer::{AnswerError, Envelope, same_delivery},
    confidential::Via,
    rpc::{read_body, root_cause},
    sse::SseParser,
};

const MAX_ANSWER: usize = 64 << 20;
/// Longest silence inside a stream.
const SILENCE: Duration = Duration::from_secs(120);

/// What to ask a language model.
#[derive(Debug, Clone, Serialize)]
pub struct ChatRequest {
    /// The model.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Most tokens to generate; bounds the price.
    pub max_tokens: u32,
    /// Sampling temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Seed of the sampler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether to answer as it is generated.
    pub stream: bool,
}

/// One message of a conversation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// Text with a checked receipt.
#[derive(Debug, Clone)]
pub struct Chat {
    /// The whole answer.
    pub text: String,
    /// The receipt and what opens it.
    pub paid: Paid,
}

/// What arrives while an answer is generated.
#[derive(Debug, Clone)]
pub enum ChatEvent {
    /// More text. Not yet proven: the receipt comes last.
    Text(String),
    /// The end: the whole answer, whose receipt is checked.
    Done(Box<Chat>),
}

impl Job {
    /// A chat request.
    pub fn chat(request: &ChatRequest, max_spend: Amount) -> Self {
        Self::chat_in(Mode::None, request, max_spend)
    }

    /// A chat request in a mode.
    pub fn chat_in(mode: Mode, request: &ChatRequest, max_spend: Amount) -> Self {
        // Strings, integers and a finite float always serialise.
        let mut body = json!(request);
        if mode != Mode::None {
            body["mode"] = json!(mode);
        }
        let body = body.to_string();
        // No tokenizer makes more tokens than the text has bytes; names and braces of the JSON pay for the template's own.
        let most = Usage {
            input: body.len() as u64,
            output: request.max_tokens.into(),
        };
        Self {
            most,
            model: request.model.clone(),
            path: "/v1/chat/completions",
            body: body.into_bytes().into(),
            mode,
            max_spend,
            via: Via::Plain,
        }
    }
}

impl Client {
    /// Sends a paid chat request whose answer comes whole.
    ///
    /// # Errors
    /// If the node refuses, or its receipt does not prove this answer.
    pub async fn chat(&self, paid: &Authorized) -> Result<Chat, ClientError> {
        let (response, paid) = self.post_paid(paid.clone()).await?;
        let answer = |what: String| ClientError::NodeAnswer { what };
        let bytes = tokio::time::timeout(SILENCE, read_body(response, MAX_ANSWER))
            .await
            .map_err(|_| answer("the body stopped arriving".into()))?
            .map_err(|error| answer(error.to_string()))?;
        let mut body: Value = serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()))?;
        let text = body
            .pointer("/choices/0/message/content")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        finish(&paid, text, body.get_mut("opg").map(Value::take).unwrap_or_default())
    }

    /// Sends a paid chat request whose answer comes as it is generated.
    ///
    /// # Errors
    /// If the node refuses the request; what comes later is reported by [`ChatStream::next`].
    pub async fn chat_stream(&self, paid: Authorized) -> Result<ChatStream, ClientError> {
        let (response, paid) = self.post_paid(paid).await?;
        Ok(ChatStream {
            response,
            paid,
            parser: SseParser::default(),
            events: VecDeque::new(),
            text: String::new(),
            opg: None,
            bytes: 0,
            finished: false,
        })
    }
}

fn finish(paid: &Authorized, text: String, opg: Value) -> Result<Chat, ClientError> {
    let opg: Envelope = serde_json::from_value(opg).map_err(|error| AnswerError::Envelope(error.to_string()))?;
    same_delivery("response.commitment", &opg.text()?, &text)?;
    Ok(Chat {
        text,
        paid: paid.accept(opg)?,
    })
}

/// A chat answer that is being generated.
#[derive(Debug)]
pub struct ChatStream {
    response: reqwest::Response,
    paid: Authorized,
    parser: SseParser,
    events: VecDeque<String>,
    text: String,
    opg: Option<Value>,
    bytes: usize,
    finished: bool,
}

impl ChatStream {
    /// The next piece, or the end with the checked receipt; `None` after the end.
    ///
    /// # Errors
    /// If the stream breaks off, is silent for two minutes, or the receipt does not prove what was delivered.
    pub async fn next(&mut self) -> Result<Option<ChatEvent>, ClientError> {
        let broken = |what: String| ClientError::NodeAnswer { what };
        while !self.finished {
            while let Some(event) = self.events.pop_front() {
                if let Some(event) = self.take(&event)? {
                    return Ok(Some(event));
                }
            }
            let chunk = tokio::time::timeout(SILENCE, self.response.chunk())
                .await
                .map_err(|_| broken(format!("the stream was silent for {} s", SILENCE.as_secs())))?
                .map_err(|error| broken(format!("the stream broke off: {}", root_cause(&error))))?;
            let Some(chunk) = chunk else {
                return Err(broken("the stream ended without a receipt".into()));
            };
            self.bytes += chunk.len();
            if self.bytes > MAX_ANSWER {
                return Err(broken(format!("the stream is longer than {MAX_ANSWER} bytes")));
            }
            self.events
                .extend(self.parser.push(&chunk).map_err(|error| broken(error.to_string()))?);
        }
        Ok(None)
    }

    fn take(&mut self, event: &str) -> Result<Option<ChatEvent>, ClientError> {
        if event == "[DONE]" {
            self.finished = true;
            let opg = self.opg.take().unwrap_or_default();
            let chat = finish(&self.paid, std::mem::take(&mut self.text), opg)?;
            return Ok(Some(ChatEvent::Done(Box::new(chat))));
        }
        let mut event: Value = serde_json::from_str(event).map_err(|error| ClientError::NodeAnswer {
            what: format!("event: {error}"),
        })?;
        if let Some(error) = event.get("error") {
            let message = error
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or("the answer failed");
            tracing::warn!(
                message = crate::text::one_line(message, 500),
                "the node reports an error inside the stream"
            );
        }
        if let Some(opg) = event.get_mut("opg") {
            self.opg = Some(opg.take());
        }
        match event.pointer("/choices/0/delta/content").and_then(Value::as_str) {
            Some(piece) if !piece.is_empty() => {
                self.text.push_str(piece);
                Ok(Some(ChatEvent::Text(piece.to_owned())))
            }
            _ => Ok(None),
        }
    }
}
