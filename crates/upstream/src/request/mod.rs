//! An OpenAI chat-completions request, checked and without anything that no provider needs.
//!
//! What names the caller (`user`, `metadata`, `safety_identifier`, `prompt_cache_key`) is dropped, never forwarded: the
//! provider sees the node's account and nothing of who pays.

mod fields;
mod messages;
mod parse;

use serde_json::{Map, Value};

pub use messages::MAX_MESSAGES;
pub use parse::MAX_TOOLS;

/// A checked request.
///
/// ```
/// use opg_upstream::ChatRequest;
/// use serde_json::json;
///
/// let body = json!({"model": "openai/gpt", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.2});
/// let request = ChatRequest::parse(body.as_object().unwrap())?;
/// assert_eq!(request.temperature, Some(0.2));
///
/// let wrong = json!({"model": "m", "messages": [{"role": "user"}]});
/// assert_eq!(ChatRequest::parse(wrong.as_object().unwrap()).unwrap_err().param, "messages[0].content");
/// # Ok::<(), opg_upstream::RequestError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The conversation, 1 to [`MAX_MESSAGES`].
    pub messages: Vec<Message>,
    /// Functions that the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once.
    pub parallel_tool_calls: Option<bool>,
    /// Texts that end the answer, at most four.
    pub stop: Vec<String>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// −2 to 2.
    pub presence_penalty: Option<f64>,
    /// Most tokens of the answer (`max_tokens` or `max_completion_tokens`), at least 1.
    pub max_tokens: Option<u32>,
    /// Seed for sampling.
    pub seed: Option<i64>,
    /// `none` to `xhigh`, as the provider defines it.
    pub reasoning_effort: Option<String>,
    /// Form of the answer.
    pub response_format: ResponseFormat,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Instructions (`system` or `developer`).
    System(String),
    /// The caller.
    User(Vec<Part>),
    /// The model, earlier.
    Assistant {
        /// What it said; may be empty if it called functions.
        text: String,
        /// The functions that it called.
        calls: Vec<ToolCall>,
    },
    /// What a function returned.
    Tool {
        /// The call that it answers.
        call: String,
        /// Name of the function, as the call has it.
        name: String,
        /// What it returned.
        text: String,
    },
}

/// A part of the caller's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// An image inside the request.
    Image(Image),
}

/// An image from a `data:` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `image/png`, `image/jpeg`, `image/webp` or `image/gif`.
    pub media_type: &'static str,
    /// The image in standard base64, checked.
    pub base64: String,
}

/// A function that the model called, or calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Identifier that the result names.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: JSON text, as the model wrote it.
    pub arguments: String,
    /// What Google's models want back with a call (`extra_content.google.thought_signature`).
    pub signature: Option<String>,
}

/// A function on offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub name: String,
    /// For the model.
    pub description: Option<String>,
    /// JSON schema of the arguments.
    pub parameters: Option<Map<String, Value>>,
    /// Whether the arguments must obey the schema.
    pub strict: Option<bool>,
}

/// Whether functions are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// None.
    None,
    /// As the model likes.
    Auto,
    /// At least one.
    Required,
    /// This one.
    Function(String),
}

/// Form of the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseFormat {
    /// Text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON of a schema.
    JsonSchema {
        /// Its name.
        name: String,
        /// For the model.
        description: Option<String>,
        /// The schema.
        schema: Map<String, Value>,
        /// Whether the answer must obey it.
        strict: Option<bool>,
    },
}

impl ChatRequest {
    /// Checks a request body. `model` is not looked at: who serves picks the provider's model.
    ///
    /// # Errors
    /// [`crate::RequestError`] names the field; what would change the answer and is not forwarded is refused by name.
    pub fn parse(body: &Map<String, Value>) -> Result<Self, crate::RequestError> {
        parse::request(body)
    }
}
