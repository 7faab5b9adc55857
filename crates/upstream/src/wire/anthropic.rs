//! Anthropic's Messages.

use super::State;
use crate::{
    answer::{Answer, CallStart, Delta, Finish, Reported, Usage},
    error::{AnswerError, RequestError},
    json::{self, array, error, get, index, note, noted, required, set, text, tokens},
    provider::Target,
    request::{ChatRequest, MAX_TOOLS, Message, Part, ResponseFormat, ToolCall, ToolChoice},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most content blocks of a streamed answer.
const MAX_BLOCKS: u32 = 4096;
/// Words of `output_config.effort`.
const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];

pub(crate) fn write(request: &ChatRequest, target: &Target) -> Result<Value, RequestError> {
    for (name, there) in [
        ("seed", request.seed.is_some()),
        ("frequency_penalty", request.frequency_penalty.is_some()),
        ("presence_penalty", request.presence_penalty.is_some()),
    ] {
        if there {
            return Err(RequestError::unsupported(
                name,
                format!("Anthropic's models have no {name}"),
            ));
        }
    }
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    let (system, messages) = messages(&request.messages)?;
    put("model", Some(json!(target.model)));
    put(
        "max_tokens",
        Some(json!(request.max_tokens.unwrap_or(target.max_tokens))),
    );
    put("system", system.map(Value::from));
    put("messages", Some(messages.into()));
    put(
        "stop_sequences",
        (!request.stop.is_empty()).then(|| json!(request.stop)),
    );
    if request.temperature.is_some_and(|t| t > 1.0) {
        return Err(RequestError::invalid("temperature", "Anthropic's models take 0 to 1"));
    }
    put("temperature", target.sampled(request.temperature).map(Value::from));
    put("top_p", target.sampled(request.top_p).map(Value::from));
    if !request.tools.is_empty() {
        put("tools", Some(tools(request).into()));
        put("tool_choice", tool_choice(request));
    }
    put("output_config", output_config(request)?);
    put("stream", request.stream.then_some(true.into()));
    Ok(Value::Object(body))
}

fn output_config(request: &ChatRequest) -> Result<Option<Value>, RequestError> {
    let mut config = Map::new();
    match &request.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::JsonObject => {
            return Err(RequestError::unsupported(
                "response_format",
                "Anthropic's models have no json_object: use json_schema",
            ));
        }
        ResponseFormat::JsonSchema { schema, .. } => {
            config.insert("format".into(), json!({"type": "json_schema", "schema": schema}));
        }
    }
    if let Some(effort) = &request.reasoning_effort {
        if !EFFORTS.contains(&effort.as_str()) {
            return Err(RequestError::invalid(
                "reasoning_effort",
                format!("Anthropic's models take {}", EFFORTS.join(", ")),
            ));
        }
        config.insert("effort".into(), json!(effort));
    }
    Ok((!config.is_empty()).then_some(Value::Object(config)))
}

/// Instructions before the conversation, and the conversation: results of functions stand in messages of the user, and
/// messages of one role that follow each other are one.
fn messages(all: &[Message]) -> Result<(Option<String>, Vec<Value>), RequestError> {
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
        let (role, blocks) = turn(leading + i, message)?;
        match turns.last_mut() {
            Some((last, content)) if *last == role => content.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    turns.retain(|(_, content)| !content.is_empty());
    if turns.is_empty() {
        return Err(RequestError::invalid(
            "messages",
            "needs a message of the user that is not empty",
        ));
    }
    let messages = turns
        .into_iter()
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect();
    Ok(((!system.is_empty()).then(|| system.join("\n\n")), messages))
}

fn turn(i: usize, message: &Message) -> Result<(&'static str, Vec<Value>), RequestError> {
    // Empty text blocks are refused there, and say nothing.
    let texts = |text: &str| (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
    Ok(match message {
        Message::System(text) => ("system", texts(text).into_iter().collect()),
        Message::User(parts) => {
            let block = |part: &Part| match part {
                Part::Text(text) => texts(text),
                Part::Image(image) => {
                    let source = json!({"type": "base64", "media_type": image.media_type, "data": image.base64});
                    Some(json!({"type": "image", "source": source}))
                }
            };
            ("user", parts.iter().filter_map(block).collect())
        }
        Message::Assistant { text, calls } => {
            let mut blocks: Vec<Value> = texts(text).into_iter().collect();
            for (j, call) in calls.iter().enumerate() {
                let input = arguments(i, j, call)?;
                blocks.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
            }
            ("assistant", blocks)
        }
        Message::Tool { call, text, .. } => (
            "user",
            vec![json!({"type": "tool_result", "tool_use_id": call, "content": text})],
        ),
    })
}

/// Arguments of an earlier call as an object; none at all are an empty one.
pub(super) fn arguments(i: usize, j: usize, call: &ToolCall) -> Result<Value, RequestError> {
    let at = || format!("messages[{i}].tool_calls[{j}].function.arguments");
    if call.arguments.trim().is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_str(&call.arguments) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(RequestError::invalid(at(), "expected JSON text of an object")),
        Err(error) => Err(RequestError::invalid(at(), format!("is not JSON text: {error}"))),
    }
}

fn tools(request: &ChatRequest) -> Vec<Value> {
    let tool = |tool: &crate::request::Tool| {
        let mut schema = tool.parameters.clone().unwrap_or_default();
        schema.entry("type").or_insert_with(|| json!("object"));
        let mut value = json!({"name": tool.name, "input_schema": schema});
        if let Some(description) = &tool.description {
            set(&mut value, "description", json!(description));
        }
        if tool.strict == Some(true) {
            set(&mut value, "strict", json!(true));
        }
        value
    };
    request.tools.iter().map(tool).collect()
}

fn tool_choice(request: &ChatRequest) -> Option<Value> {
    let one = request.parallel_tool_calls == Some(false);
    let mut choice = match &request.tool_choice {
        None if !one => return None,
        None | Some(ToolChoice::Auto) => json!({"type": "auto"}),
        Some(ToolChoice::None) => return Some(json!({"type": "none"})),
        Some(ToolChoice::Required) => json!({"type": "any"}),
        Some(ToolChoice::Function(name)) => json!({"type": "tool", "name": name}),
    };
    if one {
        set(&mut choice, "disable_parallel_tool_use", json!(true));
    }
    Some(choice)
}

pub(crate) fn read(value: &Value) -> Result<Answer, AnswerError> {
    let (mut found, mut calls) = (None::<String>, Vec::new());
    for block in array(value, "content")? {
        match required(block, "type")? {
            "text" => found.get_or_insert_default().push_str(required(block, "text")?),
            "tool_use" if calls.len() < MAX_TOOLS => calls.push(ToolCall {
                id: required(block, "id")?.to_owned(),
                name: required(block, "name")?.to_owned(),
                arguments: get(block, "input").map_or_else(|| "{}".into(), Value::to_string),
                signature: None,
            }),
            // Thinking, and kinds of block to come: not part of an OpenAI answer.
            _ => {}
        }
    }
    let usage = get(value, "usage").ok_or_else(|| AnswerError::malformed("usage", "is missing"))?;
    Ok(Answer {
        text: found,
        refusal: None,
        calls,
        finish: finish(required(value, "stop_reason")?),
        usage: Some(add_usage(Usage::default(), usage)?),
        reported: Reported {
            response_id: noted(value, "id"),
            model: noted(value, "model"),
            fingerprint: None,
            finish: noted(value, "stop_reason"),
        },
    })
}

fn finish(word: &str) -> Finish {
    match word {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "refusal" => Finish::ContentFilter,
        _ => Finish::Stop,
    }
}

/// Counts are cumulative: an event replaces what it names. Anthropic counts cached tokens apart from the others.
fn add_usage(before: Usage, usage: &Value) -> Result<Usage, AnswerError> {
    let mut now = before;
    if get(usage, "input_tokens").is_some() {
        let read = tokens(usage, "cache_read_input_tokens")?;
        let written = tokens(usage, "cache_creation_input_tokens")?;
        now.prompt = tokens(usage, "input_tokens")? + read + written;
        now.cached = read;
    }
    if get(usage, "output_tokens").is_some() {
        now.completion = tokens(usage, "output_tokens")?;
    }
    if let Some(details) = get(usage, "output_tokens_details") {
        now.reasoning = tokens(details, "thinking_tokens")?;
    }
    Ok(now)
}

/// What a content block of a stream is.
#[derive(Debug, Clone)]
enum Block {
    Text,
    /// Number of the call, its input as it stood at the start, and whether any of it has come since.
    Call {
        number: u32,
        input: Value,
        given: bool,
    },
    Other,
}

/// Events of one answer.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) state: State,
    blocks: BTreeMap<u32, Block>,
    calls: u32,
    stopped: bool,
}

impl Stream {
    pub(crate) fn event(&mut self, data: &str, deltas: &mut Vec<Delta>) -> Result<(), AnswerError> {
        if self.stopped {
            return Ok(());
        }
        let value = json::parse("an event", data.as_bytes())?;
        if let Some(error) = error(&value) {
            return Err(error);
        }
        match required(&value, "type")? {
            "message_start" => {
                let message = get(&value, "message").unwrap_or(&Value::Null);
                note(&mut self.state.reported.response_id, message, "id");
                note(&mut self.state.reported.model, message, "model");
                self.usage(message)?;
                self.state.start(deltas);
            }
            "content_block_start" => self.block_start(&value, deltas)?,
            "content_block_delta" => self.block_delta(&value, deltas)?,
            "content_block_stop" => {
                let block = self.blocks.get(&index(&value, "index", MAX_BLOCKS)?);
                if let Some(Block::Call {
                    number,
                    input,
                    given: false,
                }) = block
                {
                    let delta = Delta::Call {
                        index: *number,
                        start: None,
                        arguments: input.to_string(),
                    };
                    deltas.push(delta);
                }
            }
            "message_delta" => {
                self.usage(&value)?;
                let delta = get(&value, "delta").unwrap_or(&Value::Null);
                if let Some(word) = text(delta, "stop_reason")? {
                    self.state.reported.finish = noted(delta, "stop_reason");
                    self.state.finish = Some(finish(word));
                }
            }
            "message_stop" => self.stopped = true,
            // `ping`, and events to come.
            _ => {}
        }
        Ok(())
    }

    fn usage(&mut self, holder: &Value) -> Result<(), AnswerError> {
        if let Some(usage) = get(holder, "usage") {
            self.state.usage = Some(add_usage(self.state.usage.unwrap_or_default(), usage)?);
        }
        Ok(())
    }

    fn block_start(&mut self, value: &Value, deltas: &mut Vec<Delta>) -> Result<(), AnswerError> {
        let at = index(value, "index", MAX_BLOCKS)?;
        let start = get(value, "content_block").ok_or_else(|| AnswerError::malformed("content_block", "is missing"))?;
        self.state.start(deltas);
        let block = match required(start, "type")? {
            "text" => {
                State::text(deltas, text(start, "text")?.unwrap_or_default());
                Block::Text
            }
            "tool_use" => {
                let number = self.calls;
                self.calls += 1;
                let start_of_call = CallStart {
                    id: required(start, "id")?.to_owned(),
                    name: required(start, "name")?.to_owned(),
                    signature: None,
                };
                deltas.push(Delta::Call {
                    index: number,
                    start: Some(start_of_call),
                    arguments: String::new(),
                });
                let input = get(start, "input").cloned().unwrap_or_else(|| json!({}));
                Block::Call {
                    number,
                    input,
                    given: false,
                }
            }
            _ => Block::Other,
        };
        self.blocks.insert(at, block);
        Ok(())
    }

    fn block_delta(&mut self, value: &Value, deltas: &mut Vec<Delta>) -> Result<(), AnswerError> {
        let at = index(value, "index", MAX_BLOCKS)?;
        let delta = get(value, "delta").ok_or_else(|| AnswerError::malformed("delta", "is missing"))?;
        let block = self
            .blocks
            .get_mut(&at)
            .ok_or_else(|| AnswerError::malformed("index", "no content block has begun under it"))?;
        match (block, required(delta, "type")?) {
            (Block::Text, "text_delta") => State::text(deltas, required(delta, "text")?),
            (Block::Call { number, given, .. }, "input_json_delta") => {
                let arguments = required(delta, "partial_json")?.to_owned();
                if !arguments.is_empty() {
                    *given = true;
                    deltas.push(Delta::Call {
                        index: *number,
                        start: None,
                        arguments,
                    });
                }
            }
            // Thinking, signatures, citations.
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<Vec<Delta>, AnswerError> {
        if !self.stopped {
            return Err(AnswerError::Truncated {
                missing: "the event message_stop",
            });
        }
        self.state.end("a stop_reason")
    }
}
