//! Closed models and other engines: OpenAI's chat completions in front, the provider's own format behind, and facts about
//! where the bytes came from.
//!
//! ```text
//! client ── OpenAI request ──▶ ChatRequest ── Target::request ──▶ provider's JSON ── TLS that ends here ──▶ provider
//! client ◀── Head::whole/chunk ── Answer, Delta ◀── read_answer, StreamReader ◀── raw bytes, hashed ◀──────┘
//! ```
//!
//! OpenAI, Anthropic (Messages), Google (Gemini API), xAI, and any OpenAI-compatible server beside the node (llama.cpp,
//! vLLM, SGLang). Chat, streams, tools, structured answers, images inside the request.
//!
//! # Invariants
//! - Translation is pure and strict. An answer is read field by field and written anew; what is not understood does not
//!   reach the client. A request that a provider cannot express is refused by name, never changed in silence.
//! - Every byte of a provider is hostile: heads, events, bodies, lists and numbers are bounded, nothing panics.
//! - A stream counts as whole only after the provider's final event; [`Delta::Finish`] does not come before.
//! - What tells who asks (`user`, `metadata`, …) is never forwarded.
//! - The peer is authenticated as the configured host by compiled-in roots on every connection: no resumption, no
//!   redirect, no proxy variable. Plain HTTP only to loopback addresses.
//! - API keys come sealed to the attested key ([`open_api_key`]), are wiped when dropped and never shown.
//!
//! # What facts mean
//! [`Facts`] say which bytes came from a TLS peer that was authenticated as which host. They do not say what the provider
//! ran, and nobody but the provider can.
//!
//! # Example
//! ```
//! use opg_upstream::{ChatRequest, Delta, Finish, Head, Provider, StreamReader, Target, read_answer};
//! use serde_json::{Value, json};
//!
//! let asked = json!({"model": "anthropic/claude", "max_tokens": 64, "messages": [
//!     {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]});
//! let request = ChatRequest::parse(asked.as_object().unwrap())?;
//! let sent = Target::new(Provider::Anthropic, "claude-sonnet-4-5").request(&request)?;
//! let body: Value = serde_json::from_slice(&sent.body)?;
//! assert_eq!((sent.path.as_str(), &body["system"]), ("/messages", &json!("Be brief.")));
//!
//! let raw = br#"{"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
//!     "content": [{"type": "text", "text": "Hello!"}], "stop_reason": "end_turn", "stop_sequence": null,
//!     "usage": {"input_tokens": 12, "output_tokens": 4}}"#;
//! let answer = read_answer(Provider::Anthropic, raw)?;
//! let head = Head { id: "chatcmpl-1".into(), created: 1_790_000_000, model: "anthropic/claude".into() };
//! let whole = head.whole(&answer);
//! assert_eq!(whole["choices"][0]["message"]["content"], "Hello!");
//! assert_eq!(whole["usage"]["total_tokens"], 16);
//! assert_eq!(answer.reported.model.as_deref(), Some("claude-sonnet-4-5-20250929"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Over the network:
//! ```no_run
//! # async fn example(key: opg_upstream::ApiKey, request: opg_upstream::ChatRequest) -> Result<(), Box<dyn std::error::Error>> {
//! use opg_upstream::{Provider, Target, Upstream, UpstreamConfig};
//!
//! let upstream = Upstream::new(UpstreamConfig::new(Target::new(Provider::OpenAi, "gpt-5.2"))?)?;
//! let mut stream = upstream.chat_stream(Some(&key), &request).await?;
//! while let Some(delta) = stream.next().await? {
//!     println!("{delta:?}");
//! }
//! println!("from {}: {:?}", stream.facts().host, stream.facts().raw_sha256);
//! # Ok(())
//! # }
//! ```
//!
//! # Status
//! Complete for chat. Not here: embeddings, `/v1/responses`, audio, more than one answer per request, hidden reasoning as
//! text, certificate transparency and pins.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod answer;
mod client;
mod config;
mod connect;
mod error;
mod facts;
mod injection;
mod json;
mod key;
mod provider;
mod request;
mod sse;
mod status;
mod text;
mod wire;

pub use crate::{
    answer::{Answer, CallStart, Delta, Finish, Head, MAX_TOKENS, Reported, Usage},
    client::{ChatStream, Upstream},
    config::{ConfigError, Deadlines, Endpoint, Roots, UpstreamConfig},
    error::{AnswerError, RequestError, UpstreamError},
    facts::{Facts, Peer, chain_hash},
    injection::{KeyInjection, MAX_SEALED_KEY},
    key::{ApiKey, KeyBinding, KeyError, MAX_KEY, open_api_key, seal_api_key},
    provider::{MAX_ANSWER, Provider, ProviderRequest, StreamReader, Target, read_answer},
    request::{ChatRequest, Image, MAX_MESSAGES, MAX_TOOLS, Message, Part, ResponseFormat, Tool, ToolCall, ToolChoice},
    sse::{EventReader, MAX_EVENT},
};
