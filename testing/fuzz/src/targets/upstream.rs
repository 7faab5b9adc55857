//! Clients' requests, providers' answers and sealed API keys.

use super::{target, words};
use crate::Target;
use opg_sealed::PrivateKey;
use opg_upstream::{
    ApiKey, ChatRequest, EventReader, Head, KeyBinding, KeyInjection, Provider, StreamReader, Target as Model,
    open_api_key, read_answer, seal_api_key,
};
use serde_json::{Map, Value, json};

pub(super) fn targets() -> Vec<Target> {
    let mut all = Vec::new();
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}});
    let conversation = json!({
        "model": "a/b", "temperature": 0.5, "max_tokens": 16, "stop": ["END"], "stream": true, "tool_choice": "auto",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "12:00"}],
        "tools": [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}]});
    all.push(target(
        "upstream-request",
        vec![conversation.to_string().into_bytes()],
        |bytes| {
            let Ok(object) = serde_json::from_slice::<Map<String, Value>>(bytes) else {
                return "no object".to_owned();
            };
            words(ChatRequest::parse(&object), |request| {
                // A request that was taken is one that a provider gets, or is refused by name; never a panic, never half.
                for provider in Provider::ALL {
                    if let Ok(sent) = Model::new(provider, "model").request(&request) {
                        assert!(
                            serde_json::from_slice::<Value>(&sent.body).is_ok(),
                            "the body is no JSON"
                        );
                    }
                }
                format!("{} messages", request.messages.len())
            })
        },
    ));
    let head = || Head {
        id: "chatcmpl-1".into(),
        created: 1,
        model: "a/b".into(),
    };
    for (provider, name, whole, streamed) in [
        (
            Provider::OpenAi,
            ["upstream-openai", "upstream-openai-stream"],
            openai(),
            openai_stream(),
        ),
        (
            Provider::Anthropic,
            ["upstream-anthropic", "upstream-anthropic-stream"],
            anthropic(),
            anthropic_stream(),
        ),
        (
            Provider::Google,
            ["upstream-google", "upstream-google-stream"],
            google(),
            google_stream(),
        ),
    ] {
        all.push(target(name[0], vec![whole.to_string().into_bytes()], move |body| {
            words(read_answer(provider, body), |answer| {
                assert!(head().whole(&answer).is_object());
                format!("{} calls {}", answer.calls.len(), answer.finish.as_str())
            })
        }));
        all.push(target(name[1], vec![streamed], move |bytes| {
            let read = |size: usize| {
                let mut reader = StreamReader::new(provider);
                let mut deltas = Vec::new();
                for piece in bytes.chunks(size) {
                    deltas.extend(reader.push(piece)?);
                }
                deltas.extend(reader.finish()?);
                for delta in &deltas {
                    assert!(head().chunk(delta).is_object());
                }
                Ok::<_, opg_upstream::AnswerError>(deltas)
            };
            let (whole, pieces) = (read(usize::MAX), read(5));
            assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok(), "it depends on the pieces");
            words(whole, |deltas| {
                let ends = deltas
                    .iter()
                    .filter(|delta| matches!(delta, opg_upstream::Delta::Finish(_)))
                    .count();
                assert_eq!(ends, 1, "a whole stream has one end");
                String::new()
            })
        }));
    }
    all.push(target("upstream-events", vec![openai_stream()], |bytes| {
        let read = |size: usize| {
            let mut reader = EventReader::default();
            let mut events = Vec::new();
            for piece in bytes.chunks(size) {
                events.extend(reader.push(piece)?);
            }
            Ok::<_, opg_upstream::AnswerError>(events)
        };
        let (whole, pieces) = (read(usize::MAX), read(3));
        assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok(), "it depends on the pieces");
        words(whole, |events| format!("{} events", events.len().min(3)))
    }));

    let enclave = PrivateKey::derive(&[7; 32]);
    let binding = KeyBinding {
        chain_id: 10_740,
        keyset: [1; 32],
        operator: [2; 20],
        provider: Provider::OpenAi,
        host: "api.openai.com",
    };
    let key = ApiKey::new("sk-fuzz-0123456789").expect("a key");
    let sealed = seal_api_key(1, &enclave.public(), &binding, &key, &[9; 32]).expect("sealed");
    let known = sealed.clone();
    all.push(target("upstream-sealed-key", vec![sealed.clone()], move |bytes| {
        words(
            open_api_key(&[(1, &PrivateKey::derive(&[7; 32]))], &binding, bytes),
            |_| {
                assert_eq!(bytes, known, "opened what nobody sealed");
                String::new()
            },
        )
    }));
    let injection = KeyInjection::new(Provider::OpenAi, "api.openai.com", 1, sealed);
    let json = serde_json::to_vec(&injection).expect("JSON");
    all.push(target("upstream-key-injection", vec![json], |bytes| {
        words(serde_json::from_slice::<KeyInjection>(bytes), |injection| {
            let lines = injection
                .message(1, &Default::default(), &Default::default())
                .lines()
                .count();
            assert_eq!(lines, 8, "a word pretends to be a line");
            String::new()
        })
    }));
    all
}

fn sse(events: &[(&str, Value)]) -> Vec<u8> {
    let mut text = String::new();
    for (name, data) in events {
        if !name.is_empty() {
            text.push_str(&format!("event: {name}\n"));
        }
        text.push_str(&format!("data: {data}\n\n"));
    }
    text.into_bytes()
}

fn openai() -> Value {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    json!({"id": "chatcmpl-9", "object": "chat.completion", "created": 1, "model": "m-2026", "system_fingerprint": "fp",
        "choices": [{"index": 0, "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": "Hi", "refusal": null, "tool_calls": [call]}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
}

fn openai_stream() -> Vec<u8> {
    let chunk = |delta: Value, finish: Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{"}});
    let more = json!({"index": 0, "function": {"arguments": "}"}});
    let usage = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}});
    let mut bytes = sse(&[
        ("", chunk(json!({"role": "assistant", "content": ""}), Value::Null)),
        ("", chunk(json!({"content": "Hi"}), Value::Null)),
        ("", chunk(json!({"tool_calls": [call]}), Value::Null)),
        ("", chunk(json!({"tool_calls": [more]}), Value::Null)),
        ("", chunk(json!({}), json!("tool_calls"))),
        ("", usage),
    ]);
    bytes.extend(b"data: [DONE]\n\n");
    bytes
}

fn anthropic() -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "c-2026", "stop_reason": "tool_use",
        "stop_sequence": null, "content": [{"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}],
        "usage": {"input_tokens": 3, "output_tokens": 2}})
}

fn anthropic_stream() -> Vec<u8> {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 1}});
    let tool = json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}});
    let at = |index: u32, name: &str, key: &str, value: Value| json!({"type": name, "index": index, key: value});
    sse(&[
        ("message_start", json!({"type": "message_start", "message": message})),
        (
            "content_block_start",
            at(
                0,
                "content_block_start",
                "content_block",
                json!({"type": "text", "text": ""}),
            ),
        ),
        (
            "content_block_delta",
            at(
                0,
                "content_block_delta",
                "delta",
                json!({"type": "text_delta", "text": "Hi"}),
            ),
        ),
        ("content_block_stop", json!({"type": "content_block_stop", "index": 0})),
        (
            "content_block_start",
            at(1, "content_block_start", "content_block", tool),
        ),
        (
            "content_block_delta",
            at(
                1,
                "content_block_delta",
                "delta",
                json!({"type": "input_json_delta", "partial_json": "{}"}),
            ),
        ),
        ("content_block_stop", json!({"type": "content_block_stop", "index": 1})),
        (
            "message_delta",
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
                "usage": {"output_tokens": 2}}),
        ),
        ("message_stop", json!({"type": "message_stop"})),
    ])
}

fn google() -> Value {
    json!({"responseId": "r1", "modelVersion": "g-2026", "candidates": [{"index": 0, "finishReason": "STOP",
        "content": {"role": "model", "parts": [{"text": "Hi"}, {"functionCall": {"name": "f", "args": {"a": 1}}}]}}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}})
}

fn google_stream() -> Vec<u8> {
    let mut first = google();
    first["candidates"][0]["finishReason"] = Value::Null;
    sse(&[("", first), ("", google())])
}
