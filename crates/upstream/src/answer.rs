//! An answer, independent of who gave it, and its OpenAI form.

use crate::{json::set, request::ToolCall};
use serde_json::{Map, Value, json};

/// Most tokens that a provider can report. More is not a number that anybody charges for.
pub const MAX_TOKENS: u64 = 1 << 32;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// By itself or at a stop text.
    Stop,
    /// At the token limit.
    Length,
    /// To call functions.
    ToolCalls,
    /// The provider withheld content.
    ContentFilter,
}

impl Finish {
    /// OpenAI's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }
}

/// Tokens that the provider counted. What it bills is its own count: nobody else can check it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt: u64,
    /// Of these, read from the provider's cache.
    pub cached: u64,
    /// Tokens of the answer, hidden reasoning included.
    pub completion: u64,
    /// Of these, hidden reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// OpenAI's form.
    #[must_use]
    pub fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt.saturating_add(self.completion),
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        })
    }
}

/// What the provider says about its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// Its identifier of the answer.
    pub response_id: Option<String>,
    /// Its name of the model that answered, often dated.
    pub model: Option<String>,
    /// OpenAI's `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// Its own word for why the answer ended.
    pub finish: Option<String>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub text: Option<String>,
    /// The words with which the model refused, if it does so apart from the text.
    pub refusal: Option<String>,
    /// Functions to call.
    pub calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens; `None` if the provider did not say.
    pub usage: Option<Usage>,
    /// What the provider says about it.
    pub reported: Reported,
}

/// A piece of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// The answer begins.
    Start,
    /// More text.
    Text(String),
    /// More words of a refusal.
    Refusal(String),
    /// A call of a function begins or goes on.
    Call {
        /// Which call, from 0.
        index: u32,
        /// Its id and function, with the first piece.
        start: Option<CallStart>,
        /// More of the arguments' JSON text.
        arguments: String,
    },
    /// The answer ended. Comes only once the provider's stream is known to be whole.
    Finish(Finish),
    /// Tokens. After [`Delta::Finish`], if the provider says.
    Usage(Usage),
}

/// What is known when a call begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallStart {
    /// Identifier that the result names.
    pub id: String,
    /// The function.
    pub name: String,
    /// See [`ToolCall::signature`].
    pub signature: Option<String>,
}

/// What the OpenAI form of an answer says about itself; the node's own, so that clients see one form for every provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// `chatcmpl-…`.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model as it was asked for.
    pub model: String,
}

impl Head {
    fn object(&self, object: &str) -> Map<String, Value> {
        let mut head = Map::new();
        head.insert("id".into(), json!(self.id));
        head.insert("object".into(), json!(object));
        head.insert("created".into(), json!(self.created));
        head.insert("model".into(), json!(self.model));
        head
    }

    /// The `chat.completion` of an answer.
    #[must_use]
    pub fn whole(&self, answer: &Answer) -> Value {
        let mut message = json!({"role": "assistant", "content": answer.text, "refusal": answer.refusal});
        if !answer.calls.is_empty() {
            let calls: Vec<Value> = answer.calls.iter().map(call_json).collect();
            set(&mut message, "tool_calls", json!(calls));
        }
        let mut whole = self.object("chat.completion");
        let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": answer.finish.as_str()});
        whole.insert("choices".into(), json!([choice]));
        if let Some(usage) = answer.usage {
            whole.insert("usage".into(), usage.to_json());
        }
        if let Some(fingerprint) = &answer.reported.fingerprint {
            whole.insert("system_fingerprint".into(), json!(fingerprint));
        }
        Value::Object(whole)
    }

    /// The `chat.completion.chunk` of a piece.
    #[must_use]
    pub fn chunk(&self, delta: &Delta) -> Value {
        let mut chunk = self.object("chat.completion.chunk");
        let (content, finish) = match delta {
            Delta::Start => (json!({"role": "assistant", "content": ""}), None),
            Delta::Text(text) => (json!({"content": text}), None),
            Delta::Refusal(text) => (json!({"refusal": text}), None),
            Delta::Call {
                index,
                start,
                arguments,
            } => {
                let mut call = json!({"index": index});
                if let Some(start) = start {
                    set(&mut call, "id", json!(start.id));
                    set(&mut call, "type", json!("function"));
                    set(
                        &mut call,
                        "function",
                        json!({"name": start.name, "arguments": arguments}),
                    );
                    add_signature(&mut call, start.signature.as_deref());
                } else {
                    set(&mut call, "function", json!({"arguments": arguments}));
                }
                (json!({"tool_calls": [call]}), None)
            }
            Delta::Finish(finish) => (json!({}), Some(finish.as_str())),
            Delta::Usage(usage) => {
                chunk.insert("choices".into(), json!([]));
                chunk.insert("usage".into(), usage.to_json());
                return Value::Object(chunk);
            }
        };
        chunk.insert(
            "choices".into(),
            json!([{"index": 0, "delta": content, "finish_reason": finish}]),
        );
        Value::Object(chunk)
    }
}

/// A call as messages have it.
pub(crate) fn call_json(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    let mut value = json!({"id": call.id, "type": "function", "function": function});
    add_signature(&mut value, call.signature.as_deref());
    value
}

/// Where Google's own OpenAI-compatible interface puts it, so that clients that know it send it back.
fn add_signature(call: &mut Value, signature: Option<&str>) {
    if let Some(signature) = signature {
        set(
            call,
            "extra_content",
            json!({"google": {"thought_signature": signature}}),
        );
    }
}
