//! JSON of a request → [`ChatRequest`].

use super::{
    ChatRequest, ResponseFormat, Tool, ToolChoice,
    fields::{Fields, kind},
    messages::{kind_of_function, messages, name},
};
use crate::error::RequestError;
use serde_json::{Map, Value, json};

/// Most functions on offer, and most calls of one message.
pub const MAX_TOOLS: usize = 128;
const MAX_STOPS: usize = 4;

/// Members that change nothing in the answer, or that would tell the provider who asks.
const DROPPED: [&str; 11] = [
    "model",
    "mode",
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "safety_identifier",
    "verbosity",
];

pub(super) fn request(body: &Map<String, Value>) -> Result<ChatRequest, RequestError> {
    let mut fields = Fields::new("", body);
    let messages = messages(&mut fields)?;
    let max_tokens = match (fields.integer("max_tokens")?, fields.integer("max_completion_tokens")?) {
        (Some(_), Some(_)) => {
            return Err(RequestError::invalid(
                "max_tokens",
                "max_tokens and max_completion_tokens exclude each other",
            ));
        }
        (a, b) => a.or(b),
    };
    let max_tokens = match max_tokens.map(u32::try_from) {
        None => None,
        Some(Ok(n)) if n > 0 => Some(n),
        Some(_) => {
            return Err(RequestError::invalid(
                "max_tokens",
                "expected a positive 32-bit integer",
            ));
        }
    };
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let include_usage = match fields.object("stream_options")? {
        None => false,
        Some(_) if !stream => {
            return Err(RequestError::invalid(
                "stream_options",
                "is only allowed with stream: true",
            ));
        }
        Some(options) => {
            let mut options = Fields::new("stream_options", options);
            let wanted = options.boolean("include_usage")?.unwrap_or(false);
            // Padding against an observer of lengths, which streams of this crate do not have.
            options.boolean("include_obfuscation")?;
            options.refuse_others()?;
            wanted
        }
    };
    let request = ChatRequest {
        messages,
        tools: tools(&mut fields)?,
        tool_choice: tool_choice(&mut fields)?,
        parallel_tool_calls: fields.boolean("parallel_tool_calls")?,
        stop: stop(&mut fields)?,
        temperature: fields.number("temperature", 0.0, 2.0)?,
        top_p: fields.number("top_p", 0.0, 1.0)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.filter(|x| *x != 0.0),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.filter(|x| *x != 0.0),
        max_tokens,
        seed: fields.integer("seed")?,
        reasoning_effort: effort(&mut fields)?,
        response_format: response_format(&mut fields)?,
        stream,
        include_usage,
    };
    if let Some(ToolChoice::Function(name)) = &request.tool_choice
        && !request.tools.iter().any(|tool| tool.name == *name)
    {
        return Err(RequestError::invalid(
            "tool_choice",
            format!("no tool is called {name}"),
        ));
    }
    if request.tools.is_empty() && request.tool_choice == Some(ToolChoice::Required) {
        return Err(RequestError::invalid(
            "tool_choice",
            "there are no tools to choose from",
        ));
    }
    refuse_others(&fields)?;
    Ok(request)
}

/// Refuses what would change the answer and is not forwarded, and what nobody knows.
fn refuse_others(fields: &Fields<'_>) -> Result<(), RequestError> {
    for (name, value) in fields.others() {
        // The value that asks for nothing.
        let neutral = match name {
            _ if DROPPED.contains(&name) => true,
            "n" => value == 1,
            "logprobs" => value == false,
            "top_logprobs" => value == 0,
            "logit_bias" => value.as_object().is_some_and(Map::is_empty),
            "functions" => value.as_array().is_some_and(Vec::is_empty),
            "function_call" => value == "none" || value == "auto",
            "modalities" => *value == json!(["text"]),
            "audio" | "prediction" | "web_search_options" | "moderation" => false,
            _ => return Err(RequestError::unknown(name)),
        };
        if !neutral {
            let what = match name {
                "n" => "only one answer per request is served, n must be 1".to_owned(),
                "functions" | "function_call" => format!("{name} is superseded: use tools and tool_choice"),
                _ => format!("{name} is not supported"),
            };
            return Err(RequestError::unsupported(name, what));
        }
    }
    Ok(())
}

fn tools(fields: &mut Fields<'_>) -> Result<Vec<Tool>, RequestError> {
    let items = fields.array("tools")?.map(Vec::as_slice).unwrap_or_default();
    if items.len() > MAX_TOOLS {
        return Err(RequestError::invalid(
            "tools",
            format!("expected at most {MAX_TOOLS} tools, got {}", items.len()),
        ));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let mut fields = Fields::of(format!("tools[{i}]"), item)?;
        kind_of_function(&mut fields)?;
        let at = fields.path("function");
        let object = fields
            .object("function")?
            .ok_or_else(|| RequestError::missing(at.clone()))?;
        fields.refuse_others()?;
        let mut function = Fields::new(at, object);
        let tool = Tool {
            name: name(function.path("name"), function.required("name")?)?,
            description: function.text("description")?.map(str::to_owned),
            parameters: function.object("parameters")?.cloned(),
            strict: function.boolean("strict")?,
        };
        function.refuse_others()?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(RequestError::invalid(function.path("name"), "two tools have this name"));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn tool_choice(fields: &mut Fields<'_>) -> Result<Option<ToolChoice>, RequestError> {
    let invalid = || {
        RequestError::invalid(
            "tool_choice",
            "expected none, auto, required or {\"type\": \"function\", \"function\": {\"name\": …}}",
        )
    };
    Ok(match fields.get("tool_choice") {
        None => None,
        Some(Value::String(word)) => Some(match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => return Err(invalid()),
        }),
        Some(Value::Object(object)) => {
            let mut fields = Fields::new("tool_choice", object);
            kind_of_function(&mut fields)?;
            let function = fields.object("function")?.ok_or_else(invalid)?;
            let mut function = Fields::new("tool_choice.function", function);
            Some(ToolChoice::Function(function.required("name")?.to_owned()))
        }
        Some(_) => return Err(invalid()),
    })
}

fn stop(fields: &mut Fields<'_>) -> Result<Vec<String>, RequestError> {
    let one = |v: &Value| match v.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(RequestError::invalid(
            "stop",
            format!("expected texts, got {}", kind(v)),
        )),
    };
    match fields.get("stop") {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() > MAX_STOPS => Err(RequestError::invalid(
            "stop",
            format!("expected at most {MAX_STOPS} texts, got {}", items.len()),
        )),
        Some(Value::Array(items)) => items.iter().map(one).collect(),
        Some(text) => Ok(vec![one(text)?]),
    }
}

fn effort(fields: &mut Fields<'_>) -> Result<Option<String>, RequestError> {
    match fields.text("reasoning_effort")? {
        Some(word) if word.is_empty() || word.len() > 16 || !word.bytes().all(|b| b.is_ascii_lowercase()) => Err(
            RequestError::invalid("reasoning_effort", "expected a word such as low or high"),
        ),
        word => Ok(word.map(str::to_owned)),
    }
}

fn response_format(fields: &mut Fields<'_>) -> Result<ResponseFormat, RequestError> {
    let Some(object) = fields.object("response_format")? else {
        return Ok(ResponseFormat::Text);
    };
    let mut fields = Fields::new("response_format", object);
    let format = match fields.required("type")? {
        "text" => ResponseFormat::Text,
        "json_object" => ResponseFormat::JsonObject,
        "json_schema" => {
            let at = fields.path("json_schema");
            let object = fields
                .object("json_schema")?
                .ok_or_else(|| RequestError::missing(at.clone()))?;
            let mut inner = Fields::new(at, object);
            let format = ResponseFormat::JsonSchema {
                name: name(inner.path("name"), inner.required("name")?)?,
                description: inner.text("description")?.map(str::to_owned),
                schema: inner
                    .object("schema")?
                    .cloned()
                    .ok_or_else(|| RequestError::missing(inner.path("schema")))?,
                strict: inner.boolean("strict")?,
            };
            inner.refuse_others()?;
            format
        }
        _ => {
            return Err(RequestError::invalid(
                "response_format.type",
                "expected text, json_object or json_schema",
            ));
        }
    };
    fields.refuse_others()?;
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Message, Part},
        *,
    };

    fn parse(value: Value) -> Result<ChatRequest, RequestError> {
        request(value.as_object().unwrap())
    }

    fn with(name: &str, value: Value) -> Result<ChatRequest, RequestError> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        body[name] = value;
        parse(body)
    }

    #[test]
    fn what_is_not_forwarded_is_refused_by_name() {
        for (name, value, code) in [
            ("n", json!(2), "unsupported_parameter"),
            ("logprobs", json!(true), "unsupported_parameter"),
            ("functions", json!([{}]), "unsupported_parameter"),
            ("audio", json!({}), "unsupported_parameter"),
            ("logit_bias", json!({"1": 1}), "unsupported_parameter"),
            ("whatever", json!(1), "unknown_parameter"),
            ("temperature", json!(2.1), "invalid_parameter"),
            ("temperature", json!("1"), "invalid_parameter"),
            ("max_tokens", json!(0), "invalid_parameter"),
            ("max_tokens", json!(-1), "invalid_parameter"),
            ("max_tokens", json!(1u64 << 33), "invalid_parameter"),
            ("stream_options", json!({"include_usage": true}), "invalid_parameter"),
            ("stop", json!(["a", "b", "c", "d", "e"]), "invalid_parameter"),
            ("stop", json!([1]), "invalid_parameter"),
            ("tool_choice", json!("required"), "invalid_parameter"),
            ("response_format", json!({"type": "xml"}), "invalid_parameter"),
            ("reasoning_effort", json!("LOW\n"), "invalid_parameter"),
        ] {
            let error = with(name, value).unwrap_err();
            assert_eq!(
                (error.code, error.param.split('.').next()),
                (code, Some(name)),
                "{error}"
            );
        }
        for (name, value) in [
            ("n", json!(1)),
            ("user", json!("me")),
            ("metadata", json!({"a": "b"})),
            ("logprobs", json!(false)),
            ("temperature", json!(null)),
            ("tools", json!([])),
            ("tool_choice", json!("auto")),
            ("response_format", json!({"type": "text"})),
        ] {
            with(name, value).unwrap();
        }
    }

    #[test]
    fn messages_name_the_part_that_is_wrong() {
        let param = |messages: Value| parse(json!({"messages": messages})).unwrap_err().param;
        assert_eq!(parse(json!({})).unwrap_err().code, "missing_parameter");
        assert_eq!(param(json!([])), "messages");
        assert_eq!(param(json!([1])), "messages[0]");
        assert_eq!(param(json!([{"role": "wizard", "content": "x"}])), "messages[0].role");
        assert_eq!(param(json!([{"role": "assistant"}])), "messages[0].content");
        assert_eq!(
            param(json!([{"role": "user", "content": "x", "who": 1}])),
            "messages[0].who"
        );
        let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        assert_eq!(
            param(
                json!([{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "d", "content": ""}])
            ),
            "messages[1].tool_call_id"
        );
        let image =
            |url: &str| json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]);
        assert_eq!(
            param(image("https://example.com/a.png")),
            "messages[0].content[0].image_url.url"
        );
        assert_eq!(
            param(image("data:image/svg+xml;base64,AAAA")),
            "messages[0].content[0].image_url.url"
        );
        assert_eq!(
            param(image("data:image/png;base64,???")),
            "messages[0].content[0].image_url.url"
        );
        assert_eq!(
            param(json!([{"role": "user", "content": [{"type": "input_audio"}]}])),
            "messages[0].content[0]"
        );
        let read = parse(json!({"messages": image("data:image/PNG;base64,AAAA")})).unwrap();
        let Message::User(parts) = &read.messages[0] else {
            panic!()
        };
        assert!(matches!(&parts[0], Part::Image(image) if image.media_type == "image/png"));
    }
}
