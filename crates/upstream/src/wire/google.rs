//! Google's Gemini API: `generateContent` and `streamGenerateContent?alt=sse`.

use super::{State, anthropic::arguments};
use crate::{
    answer::{Answer, CallStart, Delta, Finish, Reported, Usage},
    error::{AnswerError, RequestError},
    json::{self, array, error, get, note, noted, set, text, tokens},
    provider::Target,
    request::{ChatRequest, MAX_TOOLS, Message, Part, ResponseFormat, ToolCall, ToolChoice},
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// What stands for the signature of a call that has none, because another model made it or the client dropped it.
/// Google documents it for this.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Path of a model's method.
pub(crate) fn path(model: &str, stream: bool) -> Result<String, RequestError> {
    let plain = !model.is_empty()
        && model
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !model.starts_with('.');
    if !plain {
        return Err(RequestError::invalid(
            "model",
            "the configured name cannot stand in a URL",
        ));
    }
    Ok(if stream {
        format!("/models/{model}:streamGenerateContent?alt=sse")
    } else {
        format!("/models/{model}:generateContent")
    })
}

pub(crate) fn write(request: &ChatRequest, target: &Target) -> Result<Value, RequestError> {
    if request.parallel_tool_calls == Some(false) {
        return Err(RequestError::unsupported(
            "parallel_tool_calls",
            "Google's models cannot be held to one call",
        ));
    }
    if request.reasoning_effort.is_some() {
        return Err(RequestError::unsupported(
            "reasoning_effort",
            "is not translated for Google's models",
        ));
    }
    let (system, contents) = contents(&request.messages)?;
    let mut body = Map::new();
    body.insert("contents".into(), contents.into());
    if let Some(system) = system {
        body.insert("systemInstruction".into(), json!({"parts": [{"text": system}]}));
    }
    if !request.tools.is_empty() {
        let declarations: Vec<Value> = request.tools.iter().map(declaration).collect();
        body.insert("tools".into(), json!([{"functionDeclarations": declarations}]));
        if let Some(config) = calling(request) {
            body.insert("toolConfig".into(), json!({"functionCallingConfig": config}));
        }
    }
    body.insert("generationConfig".into(), generation(request, target));
    Ok(Value::Object(body))
}

fn generation(request: &ChatRequest, target: &Target) -> Value {
    let mut config = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(name.to_owned(), value);
        }
    };
    put(
        "maxOutputTokens",
        Some(request.max_tokens.unwrap_or(target.max_tokens).into()),
    );
    put("stopSequences", (!request.stop.is_empty()).then(|| json!(request.stop)));
    put("temperature", target.sampled(request.temperature).map(Value::from));
    put("topP", target.sampled(request.top_p).map(Value::from));
    put("frequencyPenalty", request.frequency_penalty.map(Value::from));
    put("presencePenalty", request.presence_penalty.map(Value::from));
    // 32 bits there; any seed names one.
    put("seed", request.seed.map(|seed| Value::from(seed as i32)));
    if request.response_format != ResponseFormat::Text {
        put("responseMimeType", Some(json!("application/json")));
    }
    if let ResponseFormat::JsonSchema { schema, .. } = &request.response_format {
        put("responseJsonSchema", Some(Value::Object(schema.clone())));
    }
    Value::Object(config)
}

fn declaration(tool: &crate::request::Tool) -> Value {
    let mut value = json!({"name": tool.name});
    if let Some(description) = &tool.description {
        set(&mut value, "description", json!(description));
    }
    if let Some(parameters) = &tool.parameters {
        set(&mut value, "parametersJsonSchema", Value::Object(parameters.clone()));
    }
    value
}

fn calling(request: &ChatRequest) -> Option<Value> {
    let strict = request.tools.iter().any(|tool| tool.strict == Some(true));
    match &request.tool_choice {
        Some(ToolChoice::None) => Some(json!({"mode": "NONE"})),
        Some(ToolChoice::Required) => Some(json!({"mode": "ANY"})),
        Some(ToolChoice::Function(name)) => Some(json!({"mode": "ANY", "allowedFunctionNames": [name]})),
        // Calls or text, and calls that obey the schema.
        None | Some(ToolChoice::Auto) if strict => Some(json!({"mode": "VALIDATED"})),
        Some(ToolChoice::Auto) => Some(json!({"mode": "AUTO"})),
        None => None,
    }
}

fn contents(all: &[Message]) -> Result<(Option<String>, Vec<Value>), RequestError> {
    let leading = all.iter().take_while(|m| matches!(m, Message::System(_))).count();
    let (first, rest) = all.split_at(leading);
    let system: Vec<&str> = first
        .iter()
        .filter_map(|message| match message {
            Message::System(text) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for (i, message) in rest.iter().enumerate() {
        let (role, parts) = turn(leading + i, message)?;
        match turns.last_mut() {
            Some((last, content)) if *last == role => content.extend(parts),
            _ => turns.push((role, parts)),
        }
    }
    turns.retain(|(_, parts)| !parts.is_empty());
    if turns.is_empty() {
        return Err(RequestError::invalid(
            "messages",
            "needs a message of the user that is not empty",
        ));
    }
    let contents = turns
        .into_iter()
        .map(|(role, parts)| json!({"role": role, "parts": parts}))
        .collect();
    Ok(((!system.is_empty()).then(|| system.join("\n\n")), contents))
}

fn turn(i: usize, message: &Message) -> Result<(&'static str, Vec<Value>), RequestError> {
    let texts = |text: &str| (!text.is_empty()).then(|| json!({"text": text}));
    Ok(match message {
        Message::System(_) => {
            return Err(RequestError::unsupported(
                format!("messages[{i}].role"),
                "Google's models take instructions only before the conversation",
            ));
        }
        Message::User(parts) => {
            let part = |part: &Part| match part {
                Part::Text(text) => texts(text),
                Part::Image(image) => Some(json!({"inlineData": {"mimeType": image.media_type, "data": image.base64}})),
            };
            ("user", parts.iter().filter_map(part).collect())
        }
        Message::Assistant { text, calls } => {
            let mut parts: Vec<Value> = texts(text).into_iter().collect();
            for (j, call) in calls.iter().enumerate() {
                let args = arguments(i, j, call)?;
                let mut part = json!({"functionCall": {"id": call.id, "name": call.name, "args": args}});
                // The first call of a turn carries the signature.
                if let Some(signature) = call.signature.as_deref().or((j == 0).then_some(NO_SIGNATURE)) {
                    set(&mut part, "thoughtSignature", json!(signature));
                }
                parts.push(part);
            }
            ("model", parts)
        }
        Message::Tool { call, name, text } => {
            let response = json!({"id": call, "name": name, "response": {"output": text}});
            ("user", vec![json!({"functionResponse": response})])
        }
    })
}

/// Parts of a candidate.
struct Content {
    text: String,
    calls: Vec<ToolCall>,
}

/// `raw` are the bytes that `value` was read from: ids of calls that have none are derived from them.
fn content(candidate: &Value, value: &Value, raw: &[u8], before: usize) -> Result<Content, AnswerError> {
    let mut found = Content {
        text: String::new(),
        calls: Vec::new(),
    };
    let Some(content) = get(candidate, "content") else {
        return Ok(found);
    };
    for part in array(content, "parts")? {
        // The model's thinking is not part of an OpenAI answer.
        if get(part, "thought").is_some_and(|thought| *thought == json!(true)) {
            continue;
        }
        if let Some(words) = text(part, "text")? {
            found.text.push_str(words);
        }
        if let Some(call) = get(part, "functionCall") {
            let number = before + found.calls.len();
            if number >= MAX_TOOLS {
                return Err(AnswerError::TooLong {
                    what: "the list of calls",
                    limit: MAX_TOOLS,
                });
            }
            let args = get(call, "args").cloned().unwrap_or_else(|| json!({}));
            if !args.is_object() {
                return Err(AnswerError::malformed("args", "expected an object"));
            }
            found.calls.push(ToolCall {
                id: noted(call, "id").unwrap_or_else(|| call_id(value, raw, number)),
                name: json::required(call, "name")?.to_owned(),
                arguments: args.to_string(),
                signature: text(part, "thoughtSignature")?.map(str::to_owned),
            });
        }
    }
    Ok(found)
}

/// An id for a call that has none: the same for the same answer, different in another one.
fn call_id(value: &Value, raw: &[u8], number: usize) -> String {
    let mut hash = Sha256::new();
    match noted(value, "responseId") {
        Some(id) => hash.update(id),
        None => hash.update(raw),
    }
    hash.update(number.to_be_bytes());
    let mut id = hex::encode(hash.finalize());
    id.truncate(24);
    format!("call_{id}")
}

pub(crate) fn read(value: &Value, raw: &[u8]) -> Result<Answer, AnswerError> {
    let mut reported = Reported::default();
    report(&mut reported, value);
    let usage = usage(value)?;
    let Some(candidate) = array(value, "candidates")?.first() else {
        // The prompt itself was blocked.
        let reason = blocked(value).ok_or_else(|| AnswerError::malformed("candidates", "is missing or empty"))?;
        reported.finish = Some(reason);
        return Ok(Answer {
            text: None,
            refusal: None,
            calls: Vec::new(),
            finish: Finish::ContentFilter,
            usage,
            reported,
        });
    };
    let found = content(candidate, value, raw, 0)?;
    reported.finish = noted(candidate, "finishReason");
    let finish = finish(json::required(candidate, "finishReason")?, !found.calls.is_empty())?;
    Ok(Answer {
        text: (!found.text.is_empty()).then_some(found.text),
        refusal: None,
        finish,
        calls: found.calls,
        usage,
        reported,
    })
}

fn report(reported: &mut Reported, value: &Value) {
    note(&mut reported.response_id, value, "responseId");
    note(&mut reported.model, value, "modelVersion");
}

fn blocked(value: &Value) -> Option<String> {
    noted(get(value, "promptFeedback")?, "blockReason")
}

fn finish(word: &str, calls: bool) -> Result<Finish, AnswerError> {
    Ok(match word {
        "MAX_TOKENS" => Finish::Length,
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION"
        | "MODEL_ARMOR" => Finish::ContentFilter,
        // The model failed; what stands there is no answer.
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MALFORMED_RESPONSE"
        | "MISSING_THOUGHT_SIGNATURE" => {
            return Err(AnswerError::Provider {
                code: word.to_owned(),
                message: "the model could not finish its answer".into(),
            });
        }
        _ if calls => Finish::ToolCalls,
        _ => Finish::Stop,
    })
}

fn usage(value: &Value) -> Result<Option<Usage>, AnswerError> {
    let Some(usage) = get(value, "usageMetadata") else {
        return Ok(None);
    };
    let reasoning = tokens(usage, "thoughtsTokenCount")?;
    Ok(Some(Usage {
        prompt: tokens(usage, "promptTokenCount")? + tokens(usage, "toolUsePromptTokenCount")?,
        cached: tokens(usage, "cachedContentTokenCount")?,
        completion: tokens(usage, "candidatesTokenCount")? + reasoning,
        reasoning,
    }))
}

/// Events of one answer.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) state: State,
    calls: usize,
    word: Option<String>,
}

impl Stream {
    pub(crate) fn event(&mut self, data: &str, deltas: &mut Vec<Delta>) -> Result<(), AnswerError> {
        let value = json::parse("an event", data.as_bytes())?;
        if let Some(error) = error(&value) {
            return Err(error);
        }
        report(&mut self.state.reported, &value);
        if let Some(usage) = usage(&value)? {
            self.state.usage = Some(usage);
        }
        if let Some(reason) = blocked(&value) {
            self.state.reported.finish = Some(reason);
            self.state.finish = Some(Finish::ContentFilter);
        }
        let Some(candidate) = array(&value, "candidates")?.first() else {
            return Ok(());
        };
        self.state.start(deltas);
        let found = content(candidate, &value, data.as_bytes(), self.calls)?;
        State::text(deltas, &found.text);
        for call in found.calls {
            let index = u32::try_from(self.calls).unwrap_or(u32::MAX);
            self.calls += 1;
            let start = CallStart {
                id: call.id,
                name: call.name,
                signature: call.signature,
            };
            deltas.push(Delta::Call {
                index,
                start: Some(start),
                arguments: call.arguments,
            });
        }
        if let Some(word) = text(candidate, "finishReason")?.filter(|word| *word != "FINISH_REASON_UNSPECIFIED") {
            self.state.reported.finish = noted(candidate, "finishReason");
            self.word = Some(word.to_owned());
        }
        Ok(())
    }

    /// The format has no final event; the last one with content has a reason why it is the last.
    pub(crate) fn finish(&mut self) -> Result<Vec<Delta>, AnswerError> {
        if let Some(word) = self.word.take() {
            self.state.finish = Some(finish(&word, self.calls > 0)?);
        }
        self.state.end("a finishReason")
    }
}
