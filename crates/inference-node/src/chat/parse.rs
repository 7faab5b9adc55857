//! The request of `/v1/chat/completions`: OpenAI's fields, each served, ignored because it changes nothing, or refused by name.

use crate::{
    body::kind,
    catalogue::Served,
    error::ApiError,
    infer::{asked_mode, not_served},
    node::Node,
};
use opg_primitives::mode::Mode;
use opg_runtime::{
    ModelRuntime, RuntimeError,
    llm::{GenerateRequest, Input, Message, PreparedGeneration, Role},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 2048;
/// Fields that this server does not need and that change nothing in the answer.
const IGNORED: [&str; 10] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "reasoning_effort",
    "verbosity",
    "stream_options",
];

/// A checked request.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) served: Arc<Served>,
    pub(super) asked: String,
    pub(super) mode: Mode,
    pub(super) prepared: PreparedGeneration,
    /// Effective parameters, as the receipt commits to them.
    pub(super) params: Value,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

pub(super) fn parse(node: &Node, object: &Map<String, Value>) -> Result<Parsed, ApiError> {
    let (asked, served) = node.model(object)?;
    let Some(ModelRuntime::Llama(model)) = served.model.runtime() else {
        let message = format!("{asked} is not a language model: use /v1/infer");
        return Err(ApiError::bad_request("model_not_supported", message).param("model"));
    };
    let mode = asked_mode(object)?;
    if mode == Mode::Zk {
        return Err(not_served(&asked, mode));
    }
    let mut fields = Fields {
        object,
        seen: vec!["model", "mode"],
    };
    let messages = messages(fields.get("messages"))?;
    let max_tokens = match (fields.integer("max_tokens")?, fields.integer("max_completion_tokens")?) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "max_tokens",
                "max_tokens and max_completion_tokens exclude each other",
            ));
        }
        (a, b) => a.or(b),
    };
    let limit = i64::from(node.limits.max_tokens);
    let max_tokens = match max_tokens {
        Some(n) if n < 1 || n > limit => return Err(invalid("max_tokens", format!("expected 1 to {limit}, got {n}"))),
        n => n.and_then(|n| usize::try_from(n).ok()),
    };
    let temperature = fields.number("temperature")?.unwrap_or(1.0);
    let top_p = fields.number("top_p")?.unwrap_or(1.0);
    let seed = match fields.integer("seed")? {
        // Any 64-bit integer names a seed; without one the node picks it and the receipt records it.
        Some(seed) => seed as u64,
        None => u64::from(rand::random::<u32>()),
    };
    let stop = stop(fields.get("stop"))?;
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let include_usage = include_usage(fields.get("stream_options"), stream)?;
    fields.refuse_others()?;
    let request = GenerateRequest {
        input: Input::Messages(messages),
        max_tokens: max_tokens.or(Some(node.limits.max_tokens as usize).filter(|n| *n < 256)),
        temperature: temperature as f32,
        top_p: top_p as f32,
        seed,
        stop: stop.clone(),
    };
    let prepared = model.prepare(&request).map_err(|error| runtime(&error))?;
    let params = json!({
        "max_tokens": prepared.max_tokens(),
        "mode": mode.as_str(),
        "seed": seed,
        "stop": stop,
        "stream": stream,
        "temperature": temperature,
        "top_p": top_p,
    });
    Ok(Parsed {
        served: Arc::clone(served),
        asked,
        mode,
        prepared,
        params,
        stream,
        include_usage,
    })
}

fn runtime(error: &RuntimeError) -> ApiError {
    if error.is_client() {
        return ApiError::bad_request(error.code(), error.to_string()).param(error.field());
    }
    crate::work::internal(error)
}

fn invalid(field: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request("invalid_parameter", format!("{field}: {message}")).param(field)
}

/// Reads fields and remembers which, so that what is left can be refused.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    seen: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.seen.push(name);
        self.object.get(name).filter(|v| !v.is_null())
    }

    fn integer(&mut self, name: &'static str) -> Result<Option<i64>, ApiError> {
        let expected = |v: &Value| invalid(name, format!("expected an integer, got {}", kind(v)));
        self.get(name)
            .map(|v| v.as_i64().ok_or_else(|| expected(v)))
            .transpose()
    }

    fn number(&mut self, name: &'static str) -> Result<Option<f64>, ApiError> {
        let expected = |v: &Value| invalid(name, format!("expected a number, got {}", kind(v)));
        self.get(name)
            .map(|v| v.as_f64().ok_or_else(|| expected(v)))
            .transpose()
    }

    fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        let expected = |v: &Value| invalid(name, format!("expected true or false, got {}", kind(v)));
        self.get(name)
            .map(|v| v.as_bool().ok_or_else(|| expected(v)))
            .transpose()
    }

    /// Refuses what would change the answer and is not served, and what nobody knows.
    fn refuse_others(&self) -> Result<(), ApiError> {
        for (name, value) in self.object {
            let name = name.as_str();
            // The value that asks for nothing.
            let neutral = match name {
                "n" => value == 1,
                "frequency_penalty" | "presence_penalty" => value.as_f64() == Some(0.0),
                "logprobs" => value == false,
                "top_logprobs" => value == 0,
                "logit_bias" => value.as_object().is_some_and(Map::is_empty),
                "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
                "tool_choice" | "function_call" => value == "none" || value == "auto",
                "response_format" => value["type"] == "text",
                "modalities" => value == &json!(["text"]),
                _ if self.seen.contains(&name) || IGNORED.contains(&name) => true,
                _ => {
                    return Err(ApiError::bad_request(
                        "unknown_parameter",
                        format!("unrecognized request argument: {name}"),
                    )
                    .param(name));
                }
            };
            if !neutral && !value.is_null() {
                let what = if name == "n" {
                    "only one answer per request is served, n must be 1".to_owned()
                } else {
                    format!("{name} is not supported by this node")
                };
                return Err(ApiError::bad_request("unsupported_parameter", what).param(name));
            }
        }
        Ok(())
    }
}

fn messages(value: Option<&Value>) -> Result<Vec<Message>, ApiError> {
    let value =
        value.ok_or_else(|| ApiError::bad_request("missing_parameter", "messages is missing").param("messages"))?;
    let items = value
        .as_array()
        .ok_or_else(|| invalid("messages", format!("expected an array, got {}", kind(value))))?;
    if items.is_empty() || items.len() > MAX_MESSAGES {
        return Err(invalid(
            "messages",
            format!("expected 1 to {MAX_MESSAGES} messages, got {}", items.len()),
        ));
    }
    items.iter().enumerate().map(|(i, item)| message(i, item)).collect()
}

fn message(i: usize, item: &Value) -> Result<Message, ApiError> {
    let field = |name: &str| format!("messages[{i}].{name}");
    let object = item.as_object().ok_or_else(|| {
        invalid(
            &format!("messages[{i}]"),
            format!("expected an object, got {}", kind(item)),
        )
    })?;
    let role = match object.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(other) => {
            return Err(invalid(
                &field("role"),
                format!("expected system, user or assistant, got {other:?}"),
            ));
        }
        None => return Err(invalid(&field("role"), "is missing or not a string")),
    };
    if object.get("tool_calls").is_some_and(|v| !v.is_null()) {
        return Err(
            ApiError::bad_request("unsupported_parameter", "tool calls are not supported by this node")
                .param(field("tool_calls")),
        );
    }
    let content = match object.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts
            .iter()
            .enumerate()
            .map(|(j, part)| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text),
                (Some(other), _) if other != "text" => Err(invalid(
                    &field(&format!("content[{j}]")),
                    format!("parts of type {other:?} are not supported, only text"),
                )),
                _ => Err(invalid(
                    &field(&format!("content[{j}]")),
                    "expected {\"type\": \"text\", \"text\": …}",
                )),
            })
            .collect::<Result<String, _>>()?,
        Some(other) => {
            return Err(invalid(
                &field("content"),
                format!("expected a string or an array of parts, got {}", kind(other)),
            ));
        }
        None => return Err(invalid(&field("content"), "is missing")),
    };
    Ok(Message { role, content })
}

fn stop(value: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let one = |v: &Value| {
        v.as_str()
            .map(str::to_owned)
            .ok_or_else(|| invalid("stop", format!("expected texts, got {}", kind(v))))
    };
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() > opg_runtime::llm::STOP_TEXTS => Err(invalid(
            "stop",
            format!(
                "expected at most {} texts, got {}",
                opg_runtime::llm::STOP_TEXTS,
                items.len()
            ),
        )),
        Some(Value::Array(items)) => items.iter().map(one).collect(),
        Some(text) => Ok(vec![one(text)?]),
    }
}

fn include_usage(options: Option<&Value>, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = options else { return Ok(false) };
    if !stream {
        return Err(invalid("stream_options", "is only allowed with stream: true"));
    }
    let object = options
        .as_object()
        .ok_or_else(|| invalid("stream_options", format!("expected an object, got {}", kind(options))))?;
    match object.get("include_usage") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(wanted)) => Ok(*wanted),
        Some(other) => Err(invalid(
            "stream_options.include_usage",
            format!("expected true or false, got {}", kind(other)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(body: Value) -> (&'static str, String) {
        let object = body.as_object().unwrap();
        let error = Fields {
            object,
            seen: vec!["model", "messages"],
        }
        .refuse_others()
        .unwrap_err();
        (error.code, error.param.unwrap())
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        assert_eq!(refuse(json!({"n": 2})), ("unsupported_parameter", "n".into()));
        assert_eq!(
            refuse(json!({"tools": [{}]})),
            ("unsupported_parameter", "tools".into())
        );
        assert_eq!(
            refuse(json!({"logprobs": true})),
            ("unsupported_parameter", "logprobs".into())
        );
        assert_eq!(
            refuse(json!({"response_format": {"type": "json_object"}})),
            ("unsupported_parameter", "response_format".into())
        );
        assert_eq!(refuse(json!({"foo": 1})), ("unknown_parameter", "foo".into()));
        let neutral = json!({"n": 1, "tools": [], "frequency_penalty": 0, "logit_bias": {}, "user": "u", "response_format": {"type": "text"},
            "presence_penalty": null});
        assert!(
            Fields {
                object: neutral.as_object().unwrap(),
                seen: vec![]
            }
            .refuse_others()
            .is_ok()
        );
    }

    #[test]
    fn messages_name_the_part_that_is_wrong() {
        let param = |value: Value| messages(Some(&value)).unwrap_err().param.unwrap();
        assert_eq!(messages(None).unwrap_err().code, "missing_parameter");
        assert_eq!(param(json!("x")), "messages");
        assert_eq!(param(json!([])), "messages");
        assert_eq!(param(json!([1])), "messages[0]");
        assert_eq!(
            param(json!([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}])),
            "messages[1].role"
        );
        assert_eq!(param(json!([{"role": "user"}])), "messages[0].content");
        assert_eq!(
            param(json!([{"role": "user", "content": [{"type": "image_url"}]}])),
            "messages[0].content[0]"
        );
        let good = json!([{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
        let good = messages(Some(&good)).unwrap();
        assert_eq!((good[0].role, good[1].content.as_str()), (Role::System, "ab"));
    }

    #[test]
    fn stop_and_stream_options() {
        assert_eq!(stop(Some(&json!("x"))).unwrap(), ["x"]);
        assert_eq!(stop(Some(&json!(["x", "y"]))).unwrap(), ["x", "y"]);
        assert!(stop(Some(&json!(["x", 1]))).is_err());
        assert!(stop(Some(&json!(["a", "b", "c", "d", "e"]))).is_err());
        assert!(include_usage(Some(&json!({"include_usage": true})), true).unwrap());
        assert!(include_usage(Some(&json!({"include_usage": true})), false).is_err());
        assert!(include_usage(Some(&json!(1)), true).is_err());
    }
}
