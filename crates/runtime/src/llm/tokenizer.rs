//! Byte-level BPE from GGUF metadata, encoded by the `tokenizers` crate.

use super::chat::{END, START};
use crate::RuntimeError;
use opg_models::tokenizer::{BpeVocabulary, TokenKind};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use tokenizers::pipeline::{EncodeOptions, PipelineTokenizer};

/// GPT-2's split into words, as `tokenizers` recognises it.
const GPT2_SPLIT: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The two markers of ChatML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChatMarkers {
    pub(super) start: u32,
    pub(super) end: u32,
}

pub(super) struct Tokenizer {
    pipeline: PipelineTokenizer,
    bytes: Vec<Vec<u8>>,
    begin: Option<u32>,
    ends: BTreeSet<u32>,
    chat: Option<ChatMarkers>,
}

impl Tokenizer {
    pub(super) fn new(vocabulary: BpeVocabulary) -> Result<Self, RuntimeError> {
        // Markers are left out: encoding a user's text can then never produce one. The crate wants ids without gaps
        // in its tables only where merges use them, and markers take part in no merge.
        let tokens: Map<String, Value> = vocabulary
            .tokens
            .iter()
            .zip(&vocabulary.kinds)
            .enumerate()
            .filter(|(_, (_, kind))| **kind == TokenKind::Normal)
            .map(|(id, (token, _))| (token.clone(), json!(id)))
            .collect();
        let config = json!({
            "version": "2.0",
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": {
                "type": "Split", "pattern": { "Regex": GPT2_SPLIT }, "behavior": "Isolated", "invert": false
            },
            "post_processor": null,
            "decoder": { "type": "ByteLevel" },
            "model": {
                "type": "BPE", "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "byte_level": true,
                "vocab": tokens,
                "merges": vocabulary.merges,
            },
        });
        let pipeline = tokenizers::from_json(&config.to_string()).map_err(|error| RuntimeError::Model {
            reason: format!("tokenizer: {error}"),
        })?;
        // A template of another shape than ChatML is not guessed at: such a model takes prompts only.
        let chatml = vocabulary
            .chat_template
            .as_ref()
            .is_none_or(|template| template.contains(START));
        let chat = match (vocabulary.control(START), vocabulary.control(END)) {
            (Some(start), Some(end)) if chatml => Some(ChatMarkers { start, end }),
            _ => None,
        };
        let mut ends = vocabulary.ends.clone();
        ends.extend(chat.map(|markers| markers.end));
        let count = u32::try_from(vocabulary.tokens.len()).unwrap_or(u32::MAX);
        Ok(Self {
            pipeline,
            bytes: (0..count).map(|id| vocabulary.bytes(id)).collect(),
            begin: vocabulary.begin,
            ends,
            chat,
        })
    }

    /// Ids of a text, without any marker.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, RuntimeError> {
        let mut ids = Vec::new();
        self.pipeline
            .encode_into(text, &EncodeOptions::no_specials(), &mut ids)
            .map_err(RuntimeError::engine)?;
        Ok(ids.into_iter().map(u32::from).collect())
    }

    /// Bytes that a token adds to the answer.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Marker that begins every prompt.
    pub(super) const fn begin(&self) -> Option<u32> {
        self.begin
    }

    /// Whether a token ends an answer.
    pub(super) fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    pub(super) const fn chat(&self) -> Option<ChatMarkers> {
        self.chat
    }
}
