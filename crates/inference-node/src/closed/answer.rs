//! From a provider's answer to the parts of a receipt.

use alloy_primitives::B256;
use opg_primitives::money::Usage;
use opg_receipt::{
    LeafKind, UpstreamPeer, UpstreamRecord, commit,
    core::upstream::{MAX_UPSTREAM_TEXT, answer_commitment, request_commitment},
};
use opg_upstream::{Answer, Delta, Facts, Finish, Target, ToolCall};
use serde_json::{Value, json};

/// An answer as it comes.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) text: String,
    pub(super) refusal: String,
    pub(super) calls: Vec<ToolCall>,
    pub(super) finish: Option<Finish>,
    pub(super) usage: Option<opg_upstream::Usage>,
}

impl Collected {
    /// Takes a piece in.
    pub(super) fn take(&mut self, delta: &Delta) {
        match delta {
            Delta::Start => {}
            Delta::Text(text) => self.text.push_str(text),
            Delta::Refusal(text) => self.refusal.push_str(text),
            Delta::Call {
                index,
                start,
                arguments,
            } => {
                if let Some(start) = start {
                    self.calls.push(ToolCall {
                        id: start.id.clone(),
                        name: start.name.clone(),
                        arguments: String::new(),
                        signature: start.signature.clone(),
                    });
                }
                if let Some(call) = self.calls.get_mut(*index as usize) {
                    call.arguments.push_str(arguments);
                }
            }
            Delta::Finish(finish) => self.finish = Some(*finish),
            Delta::Usage(usage) => self.usage = Some(*usage),
        }
    }

    /// What the receipt commits to: the text, the refusal, then every call.
    pub(super) fn leaves(&self) -> Vec<(LeafKind, Vec<u8>)> {
        let mut leaves = Vec::new();
        if !self.text.is_empty() || (self.refusal.is_empty() && self.calls.is_empty()) {
            leaves.push((LeafKind::Text, self.text.clone().into_bytes()));
        }
        if !self.refusal.is_empty() {
            leaves.push((LeafKind::Refusal, self.refusal.clone().into_bytes()));
        }
        leaves.extend(
            self.calls
                .iter()
                .map(|call| (LeafKind::ToolCall, call_json(call).into_bytes())),
        );
        leaves
    }

    /// Tokens that the provider counted; nothing where it did not say.
    pub(super) fn billed(&self) -> Usage {
        self.usage.map_or(Usage { input: 0, output: 0 }, |usage| Usage {
            input: usage.prompt,
            output: usage.completion,
        })
    }
}

impl From<&Answer> for Collected {
    fn from(answer: &Answer) -> Self {
        Self {
            text: answer.text.clone().unwrap_or_default(),
            refusal: answer.refusal.clone().unwrap_or_default(),
            calls: answer.calls.clone(),
            finish: Some(answer.finish),
            usage: answer.usage,
        }
    }
}

/// A call as clients know it, in one spelling.
fn call_json(call: &ToolCall) -> String {
    let value: Value =
        json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}});
    commit::canonical_json(&value)
}

/// The bytes of a piece that the rolling hash of a stream covers; nothing for what carries no content.
pub(super) fn content(delta: &Delta) -> Option<Vec<u8>> {
    match delta {
        Delta::Text(text) | Delta::Refusal(text) if !text.is_empty() => Some(text.clone().into_bytes()),
        Delta::Call {
            index,
            start,
            arguments,
        } => {
            let start = start.as_ref().map(|start| json!([start.id, start.name]));
            Some(json!([index, start, arguments]).to_string().into_bytes())
        }
        _ => None,
    }
}

/// What the receipt says about the exchange.
pub(super) fn record(facts: &Facts, target: &Target, salt: &B256) -> UpstreamRecord {
    let sha256 = |hash: [u8; 32]| B256::from(hash);
    let short = |text: &Option<String>| {
        text.clone()
            .filter(|text| (1..=MAX_UPSTREAM_TEXT).contains(&text.len()))
    };
    UpstreamRecord {
        provider: target.provider.as_str().to_owned(),
        host: facts.host.clone(),
        port: facts.port,
        model: target.model.clone(),
        transform: facts.transform.to_owned(),
        peer: facts.peer.as_ref().map(|peer| UpstreamPeer {
            chain: sha256(peer.chain_sha256),
            spki: sha256(peer.spki_sha256),
        }),
        request: request_commitment(salt, &sha256(facts.request_sha256)),
        answer: answer_commitment(salt, &sha256(facts.raw_sha256)),
        answer_bytes: facts.raw_bytes,
        complete: facts.complete,
        response_id: short(&facts.reported.response_id),
        reported_model: short(&facts.reported.model),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opg_upstream::{Provider, StreamReader, read_answer};

    const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../upstream/tests/recorded/");

    fn read(name: &str) -> Vec<u8> {
        std::fs::read(format!("{RECORDED}{name}")).unwrap()
    }

    /// Text and tool calls of every provider are the same leaves, whole and streamed.
    #[test]
    fn streamed_and_whole_answers_commit_to_the_same_parts() {
        for (provider, name) in [
            (Provider::OpenAi, "openai"),
            (Provider::Anthropic, "anthropic"),
            (Provider::Google, "google"),
            (Provider::Xai, "xai"),
        ] {
            let whole = Collected::from(&read_answer(provider, &read(&format!("{name}.json"))).unwrap());
            let mut streamed = Collected::default();
            let mut reader = StreamReader::new(provider);
            let mut deltas = reader.push(&read(&format!("{name}.sse"))).unwrap();
            deltas.extend(reader.finish().unwrap());
            for delta in &deltas {
                streamed.take(delta);
            }
            let kinds: Vec<LeafKind> = whole.leaves().iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds[0], LeafKind::Text, "{name}");
            assert!(kinds.contains(&LeafKind::ToolCall), "{name}: {kinds:?}");
            let names = |all: &Collected| -> Vec<(String, String)> {
                let calls = all.calls.iter();
                calls
                    .map(|call| (call.name.clone(), call.arguments.replace(' ', "")))
                    .collect()
            };
            assert_eq!(
                (&whole.text, names(&whole)),
                (&streamed.text, names(&streamed)),
                "{name}"
            );
            assert!(whole.billed().input > 0 && whole.billed().output > 0, "{name}");
            assert!(deltas.iter().filter_map(content).count() >= 3, "{name}");
        }
    }

    #[test]
    fn a_text_that_looks_like_a_call_is_another_leaf() {
        let call = ToolCall {
            id: "call_1".into(),
            name: "get_time".into(),
            arguments: "{}".into(),
            signature: None,
        };
        let called = Collected {
            calls: vec![call.clone()],
            ..Collected::default()
        };
        let said = Collected {
            text: call_json(&call),
            ..Collected::default()
        };
        let hashes = |all: &Collected| -> Vec<B256> {
            let leaves = all.leaves();
            let leaves = (0_u32..).zip(&leaves);
            leaves
                .map(|(i, (kind, bytes))| commit::response_leaf(&B256::ZERO, *kind, i, bytes))
                .collect()
        };
        assert_ne!(hashes(&called), hashes(&said));
        assert_eq!(
            called.leaves()[0].1,
            said.leaves()[0].1,
            "the same bytes under another kind"
        );
    }
}
