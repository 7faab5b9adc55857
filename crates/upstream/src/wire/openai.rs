//! OpenAI's chat completions, as OpenAI, xAI and servers beside the node speak them.
//!
//! An answer is read field by field and written anew, not passed on: nothing that is not understood reaches the client.

use super::State;
use crate::{
    answer::{Answer, CallStart, Delta, Finish, Reported, Usage, call_json},
    error::AnswerError,
    json::{self, array, error, get, index, noted, required, set, text, tokens},
    provider::{Provider, Target},
    request::{ChatRequest, MAX_TOOLS, Message, Part, ResponseFormat, ToolCall, ToolChoice},
};
use serde_json::{Map, Value, json};

pub(crate) fn write(request: &ChatRequest, target: &Target) -> Value {
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("model", Some(json!(target.model)));
    put(
        "messages",
        Some(request.messages.iter().map(message).collect::<Vec<_>>().into()),
    );
    if !request.tools.is_empty() {
        put("tools", Some(tools(request).into()));
        put("tool_choice", request.tool_choice.as_ref().map(tool_choice));
        put("parallel_tool_calls", request.parallel_tool_calls.map(Value::from));
    }
    put("stop", (!request.stop.is_empty()).then(|| json!(request.stop)));
    put("temperature", target.sampled(request.temperature).map(Value::from));
    put("top_p", target.sampled(request.top_p).map(Value::from));
    put("frequency_penalty", request.frequency_penalty.map(Value::from));
    put("presence_penalty", request.presence_penalty.map(Value::from));
    // Servers beside the node know the older name for certain.
    let limit = if target.provider == Provider::Compatible {
        "max_tokens"
    } else {
        "max_completion_tokens"
    };
    put(limit, Some(request.max_tokens.unwrap_or(target.max_tokens).into()));
    put("seed", request.seed.map(Value::from));
    put("reasoning_effort", request.reasoning_effort.as_deref().map(Value::from));
    put("response_format", response_format(&request.response_format));
    if request.stream {
        put("stream", Some(true.into()));
        // Asked for always: the charge depends on it.
        put("stream_options", Some(json!({"include_usage": true})));
    }
    Value::Object(body)
}

fn message(message: &Message) -> Value {
    match message {
        Message::System(text) => json!({"role": "system", "content": text}),
        Message::User(parts) => match parts.as_slice() {
            [Part::Text(text)] => json!({"role": "user", "content": text}),
            parts => {
                let part = |part: &Part| match part {
                    Part::Text(text) => json!({"type": "text", "text": text}),
                    Part::Image(image) => {
                        let url = format!("data:{};base64,{}", image.media_type, image.base64);
                        json!({"type": "image_url", "image_url": {"url": url}})
                    }
                };
                json!({"role": "user", "content": parts.iter().map(part).collect::<Vec<_>>()})
            }
        },
        Message::Assistant { text, calls } if calls.is_empty() => json!({"role": "assistant", "content": text}),
        Message::Assistant { text, calls } => {
            let content = (!text.is_empty()).then_some(text);
            let calls: Vec<Value> = calls
                .iter()
                // Signatures are Google's.
                .map(|call| call_json(&ToolCall { signature: None, ..call.clone() }))
                .collect();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
        Message::Tool { call, text, .. } => json!({"role": "tool", "tool_call_id": call, "content": text}),
    }
}

fn tools(request: &ChatRequest) -> Vec<Value> {
    let tool = |tool: &crate::request::Tool| {
        let mut function = json!({"name": tool.name});
        if let Some(description) = &tool.description {
            set(&mut function, "description", json!(description));
        }
        if let Some(parameters) = &tool.parameters {
            set(&mut function, "parameters", Value::Object(parameters.clone()));
        }
        if let Some(strict) = tool.strict {
            set(&mut function, "strict", json!(strict));
        }
        json!({"type": "function", "function": function})
    };
    request.tools.iter().map(tool).collect()
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::None => json!("none"),
        ToolChoice::Auto => json!("auto"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Function(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

fn response_format(format: &ResponseFormat) -> Option<Value> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(json!({"type": "json_object"})),
        ResponseFormat::JsonSchema {
            name,
            description,
            schema,
            strict,
        } => {
            let mut inner = json!({"name": name, "schema": schema});
            if let Some(description) = description {
                set(&mut inner, "description", json!(description));
            }
            if let Some(strict) = strict {
                set(&mut inner, "strict", json!(strict));
            }
            Some(json!({"type": "json_schema", "json_schema": inner}))
        }
    }
}

pub(crate) fn read(value: &Value, provider: Provider) -> Result<Answer, AnswerError> {
    let choice = array(value, "choices")?
        .first()
        .ok_or_else(|| AnswerError::malformed("choices", "is missing or empty"))?;
    let message = get(choice, "message").ok_or_else(|| AnswerError::malformed("message", "is missing"))?;
    let mut calls = Vec::new();
    for call in array(message, "tool_calls")?.iter().take(MAX_TOOLS) {
        let function = get(call, "function").ok_or_else(|| AnswerError::malformed("function", "is missing"))?;
        calls.push(ToolCall {
            id: required(call, "id")?.to_owned(),
            name: required(function, "name")?.to_owned(),
            arguments: text(function, "arguments")?.unwrap_or("{}").to_owned(),
            signature: None,
        });
    }
    let mut reported = Reported::default();
    json::openai_reported(&mut reported, value);
    reported.finish = noted(choice, "finish_reason");
    Ok(Answer {
        text: text(message, "content")?.map(str::to_owned),
        refusal: text(message, "refusal")?.map(str::to_owned),
        finish: finish(required(choice, "finish_reason")?, !calls.is_empty()),
        calls,
        usage: usage(value, provider)?,
        reported,
    })
}

/// A word that is not known ends an answer like `stop` does; the facts keep the word itself.
fn finish(word: &str, calls: bool) -> Finish {
    match word {
        "length" => Finish::Length,
        "content_filter" => Finish::ContentFilter,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        // Some servers say `stop` after a call that was forced.
        _ if calls => Finish::ToolCalls,
        _ => Finish::Stop,
    }
}

fn usage(value: &Value, provider: Provider) -> Result<Option<Usage>, AnswerError> {
    let Some(usage) = get(value, "usage") else {
        return Ok(None);
    };
    let of = |details: &str, name: &str| get(usage, details).map_or(Ok(0), |details| tokens(details, name));
    let mut found = Usage {
        prompt: tokens(usage, "prompt_tokens")?,
        cached: of("prompt_tokens_details", "cached_tokens")?,
        completion: tokens(usage, "completion_tokens")?,
        reasoning: of("completion_tokens_details", "reasoning_tokens")?,
    };
    if provider == Provider::Xai {
        // xAI leaves hidden reasoning out of `completion_tokens`, bills it, and has it in the total.
        let total = tokens(usage, "total_tokens")?;
        found.completion = found.completion.max(total.saturating_sub(found.prompt));
    }
    Ok(Some(found))
}

/// Events of one answer.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) state: State,
    provider: Provider,
    /// Calls that have begun.
    calls: Vec<u32>,
    done: bool,
}

impl Stream {
    pub(crate) fn new(provider: Provider) -> Self {
        Self {
            state: State::default(),
            provider,
            calls: Vec::new(),
            done: false,
        }
    }

    pub(crate) fn event(&mut self, data: &str, deltas: &mut Vec<Delta>) -> Result<(), AnswerError> {
        if self.done {
            return Ok(());
        }
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let value = json::parse("an event", data.as_bytes())?;
        if let Some(error) = error(&value) {
            return Err(error);
        }
        json::openai_reported(&mut self.state.reported, &value);
        if let Some(usage) = usage(&value, self.provider)? {
            self.state.usage = Some(usage);
        }
        for choice in array(&value, "choices")? {
            // One answer was asked for; a second one would be nobody's.
            if get(choice, "index").is_some_and(|i| *i != json!(0)) {
                continue;
            }
            self.state.start(deltas);
            if let Some(delta) = get(choice, "delta") {
                self.delta(delta, deltas)?;
            }
            if let Some(word) = text(choice, "finish_reason")? {
                self.state.reported.finish = noted(choice, "finish_reason");
                self.state.finish = Some(finish(word, !self.calls.is_empty()));
            }
        }
        Ok(())
    }

    fn delta(&mut self, delta: &Value, deltas: &mut Vec<Delta>) -> Result<(), AnswerError> {
        State::text(deltas, text(delta, "content")?.unwrap_or_default());
        if let Some(words) = text(delta, "refusal")?.filter(|words| !words.is_empty()) {
            deltas.push(Delta::Refusal(words.to_owned()));
        }
        for call in array(delta, "tool_calls")? {
            let index = index(call, "index", MAX_TOOLS as u32)?;
            let function = get(call, "function").unwrap_or(&Value::Null);
            let arguments = text(function, "arguments")?.unwrap_or_default().to_owned();
            let start = if self.calls.contains(&index) {
                None
            } else {
                self.calls.push(index);
                Some(CallStart {
                    id: required(call, "id")?.to_owned(),
                    name: required(function, "name")?.to_owned(),
                    signature: None,
                })
            };
            deltas.push(Delta::Call {
                index,
                start,
                arguments,
            });
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<Vec<Delta>, AnswerError> {
        if !self.done {
            return Err(AnswerError::Truncated {
                missing: "the event [DONE]",
            });
        }
        self.state.end("a finish_reason")
    }
}
