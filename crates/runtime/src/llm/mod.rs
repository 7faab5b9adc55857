//! Language models of the Llama architecture, from GGUF, through candle on CPU.
//!
//! The weights are loaded once and shared. A generation has its own key/value cache and nothing else that changes, so
//! several may run at the same time (see [`crate::pin_engine_threads`]). The tokenizer is rebuilt from the file's
//! metadata. Chats use ChatML if the model has its two markers; a user's text never becomes a marker.
//!
//! Sampling is specified, not delegated: [`sample`] makes the same choice from the same logits everywhere.

mod chat;
mod generate;
mod request;
pub mod sample;
mod text;
mod tokenizer;

pub use chat::{Message, Role};
pub use generate::{Finish, Generation, TokenEvent};
pub use request::{GenerateRequest, Input, PreparedGeneration, STOP_BYTES, STOP_TEXTS};

use crate::RuntimeError;
use candle_core::{Device, Tensor, quantized::gguf_file};
use candle_transformers::models::quantized_llama::{MAX_SEQ_LEN, ModelWeights};
use opg_models::{gguf::GgufHeader, llama::LlamaConfig, tokenizer::BpeVocabulary};
use std::{
    fmt,
    io::Cursor,
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};
use tokenizer::Tokenizer;

/// How a language model is loaded and what it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LlamaOptions {
    /// Longest prompt plus answer in tokens; the model's own context if that is shorter.
    pub context: usize,
    /// Answer length when a request names none.
    pub default_max_tokens: usize,
}

impl Default for LlamaOptions {
    fn default() -> Self {
        Self {
            context: MAX_SEQ_LEN,
            default_max_tokens: 256,
        }
    }
}

/// A loaded model.
pub struct Llama {
    id: u64,
    config: LlamaConfig,
    options: LlamaOptions,
    context: usize,
    tokenizer: Tokenizer,
    /// Never run itself: its cache stays empty, so a clone is a fresh generation that shares the weights.
    weights: ModelWeights,
}

impl fmt::Debug for Llama {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Llama")
            .field("config", &self.config)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Llama {
    /// Checks a GGUF file and loads it.
    ///
    /// # Errors
    /// [`RuntimeError::Gguf`] naming what is not accepted, [`RuntimeError::Model`] if the engine refuses it or its
    /// weights give something that is not a number.
    pub fn load_gguf(bytes: &[u8], options: &LlamaOptions) -> Result<Self, RuntimeError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let header = GgufHeader::parse(bytes, bytes.len() as u64)?;
        let config = LlamaConfig::read(&header)?;
        let tokenizer = Tokenizer::new(BpeVocabulary::read(&header)?)?;
        let refuse = |error: candle_core::Error| RuntimeError::Model {
            reason: error.to_string(),
        };
        let mut reader = Cursor::new(bytes);
        let content = gguf_file::Content::read(&mut reader).map_err(refuse)?;
        let weights = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).map_err(refuse)?;
        let context = (config.context as usize).min(options.context).min(MAX_SEQ_LEN);
        let model = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            config,
            options: *options,
            context,
            tokenizer,
            weights,
        };
        // One step now: a model that cannot compute must not be found out by a paying client.
        let logits = model.session().step(&[0])?;
        if logits.len() != model.config.vocabulary as usize {
            return Err(RuntimeError::Model {
                reason: format!("{} logits for {} tokens", logits.len(), model.config.vocabulary),
            });
        }
        tracing::info!(
            layers = model.config.layers,
            width = model.config.width,
            context,
            threads = crate::engine_threads(),
            "language model loaded"
        );
        Ok(model)
    }

    /// Reads, checks and loads a GGUF file.
    ///
    /// # Errors
    /// [`RuntimeError::Read`], or as [`Llama::load_gguf`].
    pub fn load_gguf_file(path: &Path, options: &LlamaOptions) -> Result<Self, RuntimeError> {
        let bytes = std::fs::read(path).map_err(|source| RuntimeError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::load_gguf(&bytes, options)
    }

    /// Hyperparameters.
    #[must_use]
    pub const fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Longest prompt plus answer, in tokens.
    #[must_use]
    pub const fn context_length(&self) -> usize {
        self.context
    }

    /// Whether the model can be asked with messages.
    #[must_use]
    pub fn has_chat(&self) -> bool {
        self.tokenizer.chat().is_some()
    }

    /// Token ids of a text. Text that looks like a marker stays text.
    ///
    /// # Errors
    /// [`RuntimeError::Engine`] if the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, RuntimeError> {
        self.tokenizer.encode(text)
    }

    /// Text of token ids; markers have none, and incomplete UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.tokenizer.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tokens of a prompt made of messages, chat markers included.
    ///
    /// # Errors
    /// [`crate::InputError::NoChat`] without chat markers, or a parameter error for no or empty messages.
    pub fn count_prompt_tokens(&self, messages: &[Message]) -> Result<usize, RuntimeError> {
        Ok(request::prompt(self, &Input::Messages(messages.to_vec()))?.len())
    }

    /// Checks a request and counts its prompt. Does not touch the engine: a node calls it before it takes a payment.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] naming the field.
    pub fn prepare(&self, request: &GenerateRequest) -> Result<PreparedGeneration, RuntimeError> {
        request::prepare(self, request)
    }

    /// Generates an answer, token by token. Blocks; `on_token` is called for every step and ends the generation by
    /// returning [`ControlFlow::Break`] (what was generated until then is the answer, and is billed).
    ///
    /// # Errors
    /// [`RuntimeError::Engine`] if the engine fails, [`crate::InputError::WrongModel`] for a request that was prepared
    /// for another model.
    pub fn run(
        &self,
        prepared: PreparedGeneration,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, RuntimeError> {
        generate::run(self, prepared, on_token)
    }

    /// [`Llama::prepare`] and [`Llama::run`] in one.
    ///
    /// # Errors
    /// Those of both.
    pub fn generate(
        &self,
        request: &GenerateRequest,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, RuntimeError> {
        self.run(self.prepare(request)?, on_token)
    }

    /// Logits after a list of tokens: one value for each token of the vocabulary. For audits and tests.
    ///
    /// # Errors
    /// [`RuntimeError::Engine`] if the engine fails or the list is empty or longer than the context.
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<f32>, RuntimeError> {
        if ids.is_empty() || ids.len() > self.context || ids.iter().any(|&id| id >= self.config.vocabulary) {
            return Err(RuntimeError::engine("expected 1 to context tokens of the vocabulary"));
        }
        self.session().step(ids)
    }

    fn session(&self) -> Session {
        Session {
            weights: self.weights.clone(),
            position: 0,
        }
    }
}

/// One generation: shared weights, own cache.
struct Session {
    weights: ModelWeights,
    position: usize,
}

impl Session {
    /// Adds tokens and returns the logits after the last.
    fn step(&mut self, ids: &[u32]) -> Result<Vec<f32>, RuntimeError> {
        let input = Tensor::new(ids, &Device::Cpu)
            .and_then(|input| input.unsqueeze(0))
            .map_err(RuntimeError::engine)?;
        let logits = self
            .weights
            .forward(&input, self.position)
            .and_then(|logits| logits.squeeze(0)?.to_vec1::<f32>())
            .map_err(RuntimeError::engine)?;
        self.position += ids.len();
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(RuntimeError::engine("the model gave a logit that is not finite"));
        }
        Ok(logits)
    }
}
