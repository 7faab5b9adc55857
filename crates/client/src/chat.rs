//! `/v1/chat/completions`: text in, text out, whole or as it is generated.

use std::{collections::VecDeque, time::Duration};

use opg_primitives::{
    mode::Mode,
    money::{Amount, Usage},
};
use opg_receipt::commit::LeafKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Authorized, Client, ClientError, Job, Paid, Way,
    answer::{AnswerError, Envelope, same_delivery},
    rpc::{read_body, root_cause},
    sse::SseParser,
};

const MAX_ANSWER: usize = 64 << 20;
/// Longest silence inside a stream.
const SILENCE: Duration = Duration::from_secs(120);
/// Most calls of one answer.
const MAX_TOOL_CALLS: usize = 1_024;

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
    /// Tools that the model may call, as OpenAI's interface has them. Providers' models take them, the local engines do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// `none`, `auto`, `required`, or one tool by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
}

/// One message of a conversation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text; of a tool, its result.
    pub content: String,
    /// What the assistant called in this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call this is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// What a user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self {
            role: "user".to_owned(),
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// An answer of the assistant, to go on from.
    #[must_use]
    pub fn assistant(answer: &Chat) -> Self {
        Self {
            role: "assistant".to_owned(),
            content: answer.text.clone(),
            tool_calls: answer.tool_calls.clone(),
            tool_call_id: None,
        }
    }

    /// The result of a call.
    pub fn tool(call: &ToolCall, result: impl Into<String>) -> Self {
        Self {
            role: "tool".to_owned(),
            content: result.into(),
            tool_calls: Vec::new(),
            tool_call_id: Some(call.id.clone()),
        }
    }
}

/// A call of a tool, as the model asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its name in this conversation.
    #[serde(default)]
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// What is called.
    #[serde(default)]
    pub function: FunctionCall,
    /// What a provider wants back with the call in the next turn (Google's thought signatures). No receipt commits to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Value>,
}

/// Name and arguments of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The tool.
    #[serde(default)]
    pub name: String,
    /// JSON text, as the model wrote it: it may not be what the tool's schema asks for.
    #[serde(default)]
    pub arguments: String,
}

fn function() -> String {
    "function".to_owned()
}

/// Text with a checked receipt.
#[derive(Debug, Clone)]
pub struct Chat {
    /// The whole answer.
    pub text: String,
    /// Why the model does not answer, where its provider says so apart from the text.
    pub refusal: String,
    /// Tools that the model calls. The receipt commits to each.
    pub tool_calls: Vec<ToolCall>,
    /// The receipt and what opens it.
    pub paid: Paid,
}

/// What was delivered, before it is compared with the receipt.
#[derive(Debug, Default, PartialEq)]
struct Delivered {
    text: String,
    refusal: String,
    tool_calls: Vec<ToolCall>,
}

impl Delivered {
    /// Reads a whole message.
    fn whole(message: &Value) -> Result<Self, ClientError> {
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        let tool_calls = match message.get("tool_calls") {
            None | Some(Value::Null) => Vec::new(),
            Some(calls) => serde_json::from_value(calls.clone()).map_err(|error| ClientError::NodeAnswer {
                what: format!("tool_calls: {error}"),
            })?,
        };
        Ok(Self {
            text: text("content"),
            refusal: text("refusal"),
            tool_calls,
        })
    }

    /// Takes in a piece of a stream; the text in it.
    fn take(&mut self, delta: &Value) -> Result<Option<String>, ClientError> {
        let broken = |what: String| ClientError::NodeAnswer { what };
        if let Some(piece) = delta["refusal"].as_str() {
            self.refusal.push_str(piece);
        }
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = piece["index"].as_u64().unwrap_or(u64::MAX);
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let piece: ToolCall =
                serde_json::from_value(piece.clone()).map_err(|error| broken(format!("tool_calls: {error}")))?;
            if index == self.tool_calls.len() && index < MAX_TOOL_CALLS && !piece.function.name.is_empty() {
                self.tool_calls.push(piece);
            } else if let Some(call) = self.tool_calls.get_mut(index) {
                call.function.arguments.push_str(&piece.function.arguments);
            } else {
                return Err(broken(format!(
                    "tool_calls: a piece of call {index} before its beginning"
                )));
            }
        }
        Ok(delta["content"]
            .as_str()
            .filter(|piece| !piece.is_empty())
            .map(|piece| {
                self.text.push_str(piece);
                piece.to_owned()
            }))
    }
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

    /// A chat request in a mode; in mode tee sealed to the node's attested key ([`Self::in_the_clear`] sends it as it is).
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
            via: Self::via(mode),
            way: Way::default(),
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
        let message = body.pointer("/choices/0/message").unwrap_or(&Value::Null);
        let delivered = Delivered::whole(message)?;
        finish(
            &paid,
            delivered,
            body.get_mut("opg").map(Value::take).unwrap_or_default(),
        )
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
            delivered: Delivered::default(),
            opg: None,
            bytes: 0,
            finished: false,
        })
    }
}

fn finish(paid: &Authorized, mut delivered: Delivered, opg: Value) -> Result<Chat, ClientError> {
    let opg: Envelope = serde_json::from_value(opg).map_err(|error| AnswerError::Envelope(error.to_string()))?;
    let committed = Delivered {
        text: opg.text(LeafKind::Text)?,
        refusal: opg.text(LeafKind::Refusal)?,
        tool_calls: opg.each(LeafKind::ToolCall)?,
    };
    let extras: Vec<_> = delivered
        .tool_calls
        .iter_mut()
        .map(|call| call.extra_content.take())
        .collect();
    same_delivery("response.commitment", &committed, &delivered)?;
    let Delivered {
        text,
        refusal,
        mut tool_calls,
    } = delivered;
    for (call, extra) in tool_calls.iter_mut().zip(extras) {
        call.extra_content = extra;
    }
    Ok(Chat {
        text,
        refusal,
        tool_calls,
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
    delivered: Delivered,
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
            let chat = finish(&self.paid, std::mem::take(&mut self.delivered), opg)?;
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
        let delta = event.pointer("/choices/0/delta").unwrap_or(&Value::Null);
        Ok(self.delivered.take(delta)?.map(ChatEvent::Text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, arguments: &str) -> ToolCall {
        ToolCall {
            id: id.into(),
            kind: function(),
            function: FunctionCall {
                name: "get_time".into(),
                arguments: arguments.into(),
            },
            extra_content: None,
        }
    }

    #[test]
    fn pieces_of_calls_are_put_together_and_nothing_else() {
        let mut delivered = Delivered::default();
        let begin = |index: u64, id: &str| json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": "get_time", "arguments": ""}}]});
        let more = |index: u64, text: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]});
        assert_eq!(
            delivered.take(&json!({"role": "assistant", "content": ""})).unwrap(),
            None
        );
        assert_eq!(
            delivered.take(&json!({"content": "Let me see."})).unwrap(),
            Some("Let me see.".into())
        );
        for piece in [
            begin(0, "a"),
            more(0, "{\"zone\":"),
            begin(1, "b"),
            more(0, "1}"),
            more(1, "{}"),
        ] {
            assert_eq!(delivered.take(&piece).unwrap(), None);
        }
        assert_eq!(delivered.tool_calls, [call("a", "{\"zone\":1}"), call("b", "{}")]);
        assert_eq!(delivered.text, "Let me see.");
        for bad in [
            begin(3, "d"),
            more(2, "x"),
            json!({"tool_calls": [{"id": "x"}]}),
            json!({"tool_calls": [7]}),
        ] {
            delivered.take(&bad).unwrap_err();
        }
        let whole = json!({"content": "Let me see.", "tool_calls": delivered.tool_calls});
        assert_eq!(Delivered::whole(&whole).unwrap(), delivered);
    }
}
