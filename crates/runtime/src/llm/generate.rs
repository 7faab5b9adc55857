//! The generation loop.

use super::{Llama, request::PreparedGeneration, sample::Sampler, text::TextStream};
use crate::{InputError, RuntimeError};
use opg_primitives::money::Usage;
use std::ops::ControlFlow;

/// Prompt tokens computed in one step. Bounds the memory of attention scores and how late a cancellation is seen.
const PROMPT_CHUNK: usize = 512;

/// Progress of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEvent<'a> {
    /// A part of the prompt was computed.
    Prompt {
        /// Tokens computed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was generated.
    Token {
        /// Its index in the answer, from 0.
        index: usize,
        /// Its id.
        id: u32,
        /// Text that can be shown now: whole characters, possibly none, possibly held back from earlier tokens.
        text: &'a str,
    },
    /// Text that was held back to the end (an incomplete character, the beginning of a stop text).
    Rest {
        /// The text, not empty.
        text: &'a str,
    },
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The model ended it, or a stop text was found.
    Stop,
    /// The longest answer was reached.
    Length,
    /// The caller ended it.
    Cancelled,
}

impl Finish {
    /// Word used in receipts and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An answer. Its text is the concatenation of the texts of all events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The text.
    pub text: String,
    /// Ids of the tokens generated, the one that ended the answer left out.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Prompt tokens and generated tokens. The model's end marker is not counted; tokens of a stop text are.
    pub usage: Usage,
}

pub(super) fn run(
    model: &Llama,
    prepared: PreparedGeneration,
    on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
) -> Result<Generation, RuntimeError> {
    if prepared.model != model.id {
        return Err(InputError::WrongModel.into());
    }
    let sampler = Sampler {
        temperature: prepared.temperature,
        top_p: prepared.top_p,
        seed: prepared.seed,
    };
    let total = prepared.ids.len();
    let mut session = model.session();
    let mut logits = Vec::new();
    let mut stream = TextStream::new(&prepared.stop);
    let mut text = String::new();
    let mut ids = Vec::new();
    let mut finish = None;
    for chunk in prepared.ids.chunks(PROMPT_CHUNK) {
        logits = session.step(chunk)?;
        if on_token(TokenEvent::Prompt {
            done: session.position,
            total,
        })
        .is_break()
        {
            finish = Some(Finish::Cancelled);
            break;
        }
    }
    let mut stopped = false;
    while finish.is_none() {
        let index = ids.len();
        let id = sampler
            .pick(&logits, index as u64)
            .ok_or_else(|| RuntimeError::engine("no logits"))?;
        if model.tokenizer.is_end(id) {
            finish = Some(Finish::Stop);
            break;
        }
        ids.push(id);
        let piece = stream.push(model.tokenizer.bytes(id));
        text.push_str(&piece.text);
        stopped = piece.stopped;
        let flow = on_token(TokenEvent::Token {
            index,
            id,
            text: &piece.text,
        });
        if stopped {
            finish = Some(Finish::Stop);
        } else if flow.is_break() {
            finish = Some(Finish::Cancelled);
        } else if ids.len() >= prepared.max_tokens {
            finish = Some(Finish::Length);
        } else {
            logits = session.step(&[id])?;
        }
    }
    if !stopped {
        let rest = stream.finish();
        if !rest.is_empty() {
            text.push_str(&rest);
            // The answer is at its end: whether the caller wants more makes no difference.
            let _ = on_token(TokenEvent::Rest { text: &rest });
        }
    }
    let usage = Usage {
        input: total as u64,
        output: ids.len() as u64,
    };
    Ok(Generation {
        text,
        ids,
        finish: finish.unwrap_or(Finish::Length),
        usage,
    })
}
