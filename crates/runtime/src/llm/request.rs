//! Requests and their checks.

use super::{
    Llama,
    chat::{Message, Role},
};
use crate::{InputError, RuntimeError};

/// Most stop texts of a request.
pub const STOP_TEXTS: usize = 4;
/// Longest stop text, in bytes.
pub const STOP_BYTES: usize = 256;

/// What a model continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A text, continued as it is.
    Prompt(String),
    /// A conversation, answered.
    Messages(Vec<Message>),
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// Prompt or messages.
    pub input: Input,
    /// Longest answer in tokens, at least 1; `None` takes the model's default, or what the context leaves.
    pub max_tokens: Option<usize>,
    /// 0 takes the likeliest token, 1 samples the model's distribution; at most 2.
    pub temperature: f32,
    /// Samples only among the likeliest tokens whose probabilities add up to this; above 0, at most 1.
    pub top_p: f32,
    /// Seed of the sampling. The same request with the same seed gives the same answer.
    pub seed: u64,
    /// The answer ends before the first of these texts.
    pub stop: Vec<String>,
}

impl GenerateRequest {
    /// A greedy request for a prompt.
    #[must_use]
    pub fn prompt(text: impl Into<String>) -> Self {
        Self::new(Input::Prompt(text.into()))
    }

    /// A greedy request for a conversation.
    #[must_use]
    pub const fn messages(messages: Vec<Message>) -> Self {
        Self::new(Input::Messages(messages))
    }

    const fn new(input: Input) -> Self {
        Self {
            input,
            max_tokens: None,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            stop: Vec::new(),
        }
    }

    /// The same request with another answer length.
    #[must_use]
    pub const fn max_tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }
}

/// A request that passed every check for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedGeneration {
    pub(super) model: u64,
    pub(super) ids: Vec<u32>,
    pub(super) max_tokens: usize,
    pub(super) temperature: f32,
    pub(super) top_p: f32,
    pub(super) seed: u64,
    pub(super) stop: Vec<String>,
}

impl PreparedGeneration {
    /// Tokens of the prompt, as billed.
    #[must_use]
    pub const fn prompt_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Most tokens that the answer can have, as billed.
    #[must_use]
    pub const fn max_tokens(&self) -> usize {
        self.max_tokens
    }
}

/// Token ids of an input.
pub(super) fn prompt(model: &Llama, input: &Input) -> Result<Vec<u32>, RuntimeError> {
    let mut ids: Vec<u32> = model.tokenizer.begin().into_iter().collect();
    match input {
        Input::Prompt(text) => {
            check_length(model, "prompt", text.len())?;
            ids.extend(model.encode(text)?);
            if ids.is_empty() {
                return Err(parameter("prompt", "a text", "an empty one"));
            }
        }
        Input::Messages(messages) => {
            let markers = model.tokenizer.chat().ok_or(InputError::NoChat)?;
            if messages.is_empty() {
                return Err(parameter("messages", "at least one message", "none"));
            }
            check_length(
                model,
                "messages",
                messages.iter().map(|message| message.content.len()).sum(),
            )?;
            for message in messages {
                ids.push(markers.start);
                ids.extend(model.encode(&format!("{}\n{}", message.role.as_str(), message.content))?);
                ids.push(markers.end);
                ids.extend(model.encode("\n")?);
            }
            ids.push(markers.start);
            ids.extend(model.encode(&format!("{}\n", Role::Assistant.as_str()))?);
        }
    }
    Ok(ids)
}

/// Refuses texts that cannot fit before they are tokenized: no token of the vocabulary is longer than 1 024 bytes.
fn check_length(model: &Llama, field: &'static str, bytes: usize) -> Result<(), RuntimeError> {
    let least = bytes / 1_024;
    if least > model.context {
        return Err(InputError::Context {
            field,
            limit: model.context,
            prompt: least,
            requested: 1,
        }
        .into());
    }
    Ok(())
}

pub(super) fn prepare(model: &Llama, request: &GenerateRequest) -> Result<PreparedGeneration, RuntimeError> {
    if !(0.0..=2.0).contains(&request.temperature) {
        return Err(parameter("temperature", "0 to 2", request.temperature));
    }
    if !(request.top_p > 0.0 && request.top_p <= 1.0) {
        return Err(parameter("top_p", "more than 0, at most 1", request.top_p));
    }
    if request.max_tokens == Some(0) {
        return Err(parameter("max_tokens", "at least 1", 0));
    }
    if request.stop.len() > STOP_TEXTS {
        return Err(parameter("stop", "at most 4 texts", request.stop.len()));
    }
    if let Some(stop) = request
        .stop
        .iter()
        .find(|stop| stop.is_empty() || stop.len() > STOP_BYTES)
    {
        return Err(parameter(
            "stop",
            "texts of 1 to 256 bytes",
            format_args!("one of {}", stop.len()),
        ));
    }
    let ids = prompt(model, &request.input)?;
    let field = match request.input {
        Input::Prompt(_) => "prompt",
        Input::Messages(_) => "messages",
    };
    let context = |field, requested| InputError::Context {
        field,
        limit: model.context,
        prompt: ids.len(),
        requested,
    };
    let room = match model.context.checked_sub(ids.len()) {
        Some(room) if room > 0 => room,
        _ => return Err(context(field, request.max_tokens.unwrap_or(1)).into()),
    };
    let max_tokens = match request.max_tokens {
        Some(asked) if asked > room => return Err(context("max_tokens", asked).into()),
        Some(asked) => asked,
        None => model.options.default_max_tokens.clamp(1, room),
    };
    Ok(PreparedGeneration {
        model: model.id,
        ids,
        max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        seed: request.seed,
        stop: request.stop.clone(),
    })
}

fn parameter(field: &'static str, expected: &str, got: impl std::fmt::Display) -> RuntimeError {
    InputError::Parameter {
        field,
        expected: expected.to_owned(),
        got: got.to_string(),
    }
    .into()
}
