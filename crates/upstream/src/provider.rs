//! Who answers, and in which format.

use crate::{
    answer::{Answer, Delta, Reported},
    error::{AnswerError, RequestError},
    json,
    request::ChatRequest,
    sse::EventReader,
    wire::{anthropic, google, openai},
};
use http::HeaderName;
use std::fmt;

/// Largest body of an answer, whole or streamed.
pub const MAX_ANSWER: usize = 64 << 20;

/// A provider, by its wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// OpenAI, chat completions.
    OpenAi,
    /// Anthropic, Messages.
    Anthropic,
    /// Google, Gemini API (`generateContent`).
    Google,
    /// xAI: chat completions, with a count of tokens of its own.
    Xai,
    /// Any server with OpenAI's chat completions that runs beside the node: llama.cpp, vLLM, SGLang.
    Compatible,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 5] = [Self::OpenAi, Self::Anthropic, Self::Google, Self::Xai, Self::Compatible];

    /// The word used in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Xai => "xai",
            Self::Compatible => "compatible",
        }
    }

    /// The provider of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == word)
    }

    /// The provider's own URL; `None` for servers beside the node.
    #[must_use]
    pub const fn base_url(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("https://api.openai.com/v1"),
            Self::Anthropic => Some("https://api.anthropic.com/v1"),
            Self::Google => Some("https://generativelanguage.googleapis.com/v1beta"),
            Self::Xai => Some("https://api.x.ai/v1"),
            Self::Compatible => None,
        }
    }

    /// Identifier of the translation, for facts that are recorded: with the raw bytes, anybody can run it again.
    #[must_use]
    pub const fn transform(self) -> &'static str {
        match self {
            Self::OpenAi => "opg-upstream/openai/1",
            Self::Anthropic => "opg-upstream/anthropic/1",
            Self::Google => "opg-upstream/google/1",
            Self::Xai => "opg-upstream/xai/1",
            Self::Compatible => "opg-upstream/compatible/1",
        }
    }

    /// Header that carries the key: its name, and what stands before the key.
    pub(crate) const fn key_header(self) -> (HeaderName, &'static str) {
        match self {
            Self::Anthropic => (HeaderName::from_static("x-api-key"), ""),
            Self::Google => (HeaderName::from_static("x-goog-api-key"), ""),
            Self::OpenAi | Self::Xai | Self::Compatible => (http::header::AUTHORIZATION, "Bearer "),
        }
    }

    /// Headers that the format needs besides.
    pub(crate) const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Anthropic => &[("anthropic-version", "2023-06-01")],
            _ => &[],
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A model of a provider, and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whose it is.
    pub provider: Provider,
    /// The provider's name of it.
    pub model: String,
    /// Tokens of an answer when the caller names no limit. Anthropic's format has no request without one.
    pub max_tokens: u32,
    /// Whether images may be sent to it.
    pub images: bool,
    /// Whether it takes `temperature` and `top_p`. Many reasoning models answer 400 to them.
    pub sampling: bool,
}

/// A request in the provider's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderRequest {
    /// Path after the base URL, with a slash at its start.
    pub path: String,
    /// The JSON body.
    pub body: Vec<u8>,
}

impl Target {
    /// A text model that takes sampling parameters, with answers of at most 4,096 tokens unless asked otherwise.
    #[must_use]
    pub fn new(provider: Provider, model: impl Into<String>) -> Self {
        Self {
            provider,
            model: model.into(),
            max_tokens: 4096,
            images: false,
            sampling: true,
        }
    }

    /// Translates a request.
    ///
    /// # Errors
    /// [`RequestError`] names what the provider or the model does not have.
    pub fn request(&self, request: &ChatRequest) -> Result<ProviderRequest, RequestError> {
        self.check(request)?;
        let (path, body) = match self.provider {
            Provider::Anthropic => ("/messages".to_owned(), anthropic::write(request, self)?),
            Provider::Google => (
                google::path(&self.model, request.stream)?,
                google::write(request, self)?,
            ),
            Provider::OpenAi | Provider::Xai | Provider::Compatible => {
                ("/chat/completions".to_owned(), openai::write(request, self))
            }
        };
        let body = body.to_string().into_bytes();
        Ok(ProviderRequest { path, body })
    }

    fn check(&self, request: &ChatRequest) -> Result<(), RequestError> {
        use crate::request::{Message, Part};
        let image = |message: &Message| matches!(message, Message::User(parts) if parts.iter().any(|part| matches!(part, Part::Image(_))));
        if let Some(i) = request.messages.iter().position(image).filter(|_| !self.images) {
            return Err(RequestError::unsupported(
                format!("messages[{i}].content"),
                format!("{} does not take images", self.model),
            ));
        }
        for (name, value) in [("temperature", request.temperature), ("top_p", request.top_p)] {
            // 1 is the value that changes nothing.
            if value.is_some_and(|x| x != 1.0) && !self.sampling {
                return Err(RequestError::unsupported(
                    name,
                    format!("{} does not take {name}: leave it out or send 1", self.model),
                ));
            }
        }
        Ok(())
    }

    /// A sampling parameter as it is forwarded.
    pub(crate) fn sampled(&self, value: Option<f64>) -> Option<f64> {
        value.filter(|_| self.sampling)
    }
}

/// Translates a whole answer.
///
/// # Errors
/// [`AnswerError`].
pub fn read_answer(provider: Provider, body: &[u8]) -> Result<Answer, AnswerError> {
    if body.len() > MAX_ANSWER {
        return Err(AnswerError::TooLong {
            what: "the answer",
            limit: MAX_ANSWER,
        });
    }
    let value = json::parse("the answer", body)?;
    if let Some(error) = json::error(&value) {
        return Err(error);
    }
    match provider {
        Provider::Anthropic => anthropic::read(&value),
        Provider::Google => google::read(&value, body),
        Provider::OpenAi | Provider::Xai | Provider::Compatible => openai::read(&value, provider),
    }
}

#[derive(Debug)]
enum Events {
    OpenAi(openai::Stream),
    Anthropic(anthropic::Stream),
    Google(google::Stream),
}

/// Translates a streamed answer, from bytes that arrive in pieces of any size.
///
/// ```
/// use opg_upstream::{AnswerError, Delta, Finish, Provider, StreamReader};
///
/// let stream = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
/// let mut reader = StreamReader::new(Provider::OpenAi);
/// assert_eq!(reader.push(stream)?, [Delta::Start, Delta::Text("Hi".into())]);
/// assert_eq!(reader.finish()?, [Delta::Finish(Finish::Stop)]);
///
/// let mut cut = StreamReader::new(Provider::OpenAi);
/// cut.push(&stream[..90])?;
/// assert_eq!(cut.finish(), Err(AnswerError::Truncated { missing: "the event [DONE]" }));
/// # Ok::<(), AnswerError>(())
/// ```
#[derive(Debug)]
pub struct StreamReader {
    lines: EventReader,
    events: Events,
    taken: usize,
}

impl StreamReader {
    /// A reader of one answer.
    #[must_use]
    pub fn new(provider: Provider) -> Self {
        let events = match provider {
            Provider::Anthropic => Events::Anthropic(anthropic::Stream::default()),
            Provider::Google => Events::Google(google::Stream::default()),
            Provider::OpenAi | Provider::Xai | Provider::Compatible => Events::OpenAi(openai::Stream::new(provider)),
        };
        Self {
            lines: EventReader::default(),
            events,
            taken: 0,
        }
    }

    /// Takes bytes and returns the pieces of the answer that they complete.
    ///
    /// # Errors
    /// [`AnswerError`]. After one, the answer must not be taken for whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Delta>, AnswerError> {
        self.taken = self.taken.saturating_add(bytes.len());
        if self.taken > MAX_ANSWER {
            return Err(AnswerError::TooLong {
                what: "the stream",
                limit: MAX_ANSWER,
            });
        }
        let mut deltas = Vec::new();
        for data in self.lines.push(bytes)? {
            match &mut self.events {
                Events::OpenAi(stream) => stream.event(&data, &mut deltas)?,
                Events::Anthropic(stream) => stream.event(&data, &mut deltas)?,
                Events::Google(stream) => stream.event(&data, &mut deltas)?,
            }
        }
        Ok(deltas)
    }

    /// To be called when the stream has ended. Only now is the answer known to be whole: why it ended, and its usage.
    ///
    /// # Errors
    /// [`AnswerError::Truncated`] if the provider's final event has not come.
    pub fn finish(&mut self) -> Result<Vec<Delta>, AnswerError> {
        match &mut self.events {
            Events::OpenAi(stream) => stream.finish(),
            Events::Anthropic(stream) => stream.finish(),
            Events::Google(stream) => stream.finish(),
        }
    }

    /// What the provider has said about the answer so far.
    #[must_use]
    pub const fn reported(&self) -> &Reported {
        match &self.events {
            Events::OpenAi(stream) => &stream.state.reported,
            Events::Anthropic(stream) => &stream.state.reported,
            Events::Google(stream) => &stream.state.reported,
        }
    }
}
