//! Messages of a conversation: text, images, calls of functions and their results.

use super::{
    Image, Message, Part, ToolCall,
    fields::{Fields, kind},
    parse::MAX_TOOLS,
};
use crate::error::RequestError;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::collections::BTreeMap;

/// Most messages of a conversation.
pub const MAX_MESSAGES: usize = 2048;

pub(super) fn messages(fields: &mut Fields<'_>) -> Result<Vec<Message>, RequestError> {
    let items = fields
        .array("messages")?
        .ok_or_else(|| RequestError::missing("messages"))?;
    if items.is_empty() || items.len() > MAX_MESSAGES {
        return Err(RequestError::invalid(
            "messages",
            format!("expected 1 to {MAX_MESSAGES} messages, got {}", items.len()),
        ));
    }
    // Names of the calls so far: a result says which call it answers, some providers want the function's name.
    let mut calls = BTreeMap::new();
    let mut messages = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let message = message(i, item, &calls)?;
        if let Message::Assistant { calls: made, .. } = &message {
            calls.extend(made.iter().map(|call| (call.id.clone(), call.name.clone())));
        }
        messages.push(message);
    }
    Ok(messages)
}

fn message(i: usize, item: &Value, calls: &BTreeMap<String, String>) -> Result<Message, RequestError> {
    let mut fields = Fields::of(format!("messages[{i}]"), item)?;
    let role = fields.required("role")?;
    // A name of the speaker is for people in a conversation of several; providers but one have no place for it.
    fields.text("name")?;
    let message = match role {
        "system" | "developer" => Message::System(text(&mut fields)?.ok_or_else(|| missing_content(&fields))?),
        "user" => Message::User(parts(&mut fields)?),
        "assistant" => {
            let text = text(&mut fields)?;
            let calls = tool_calls(&mut fields)?;
            if fields.text("refusal")?.is_some()
                || fields.get("audio").is_some()
                || fields.get("function_call").is_some()
            {
                let path = fields.path("content");
                return Err(RequestError::unsupported(
                    path,
                    "earlier answers may have text and tool calls only: leave out refusal, audio and function_call",
                ));
            }
            if text.is_none() && calls.is_empty() {
                return Err(missing_content(&fields));
            }
            // Members that other servers add to their answers and clients send back.
            for ignored in ["reasoning_content", "annotations", "reasoning"] {
                fields.get(ignored);
            }
            Message::Assistant {
                text: text.unwrap_or_default(),
                calls,
            }
        }
        "tool" => {
            let call = fields.required("tool_call_id")?.to_owned();
            let path = fields.path("tool_call_id");
            let name = calls
                .get(&call)
                .ok_or_else(|| RequestError::invalid(path, "no earlier message has a tool call with this id"))?
                .clone();
            let text = text(&mut fields)?.ok_or_else(|| missing_content(&fields))?;
            Message::Tool { call, name, text }
        }
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(RequestError::invalid(
                fields.path("role"),
                format!("expected system, developer, user, assistant or tool, got {other:?}"),
            ));
        }
    };
    fields.refuse_others()?;
    Ok(message)
}

fn missing_content(fields: &Fields<'_>) -> RequestError {
    RequestError::missing(fields.path("content"))
}

/// Content that may have text only.
fn text(fields: &mut Fields<'_>) -> Result<Option<String>, RequestError> {
    let path = fields.path("content");
    if fields.get("content").is_none() {
        return Ok(None);
    }
    let mut text = String::new();
    for part in parts(fields)? {
        match part {
            Part::Text(part) => text.push_str(&part),
            Part::Image(_) => return Err(RequestError::unsupported(path, "images are for messages of the user")),
        }
    }
    Ok(Some(text))
}

fn parts(fields: &mut Fields<'_>) -> Result<Vec<Part>, RequestError> {
    let path = fields.path("content");
    match fields.get("content") {
        Some(Value::String(text)) => Ok(vec![Part::Text(text.clone())]),
        Some(Value::Array(items)) => items
            .iter()
            .enumerate()
            .map(|(i, item)| part(format!("{path}[{i}]"), item))
            .collect(),
        Some(other) => Err(RequestError::invalid(
            path,
            format!("expected a string or an array of parts, got {}", kind(other)),
        )),
        None => Err(RequestError::missing(path)),
    }
}

fn part(at: String, item: &Value) -> Result<Part, RequestError> {
    let mut fields = Fields::of(at, item)?;
    let part = match fields.required("type")? {
        "text" => Part::Text(fields.required("text")?.to_owned()),
        "image_url" => {
            let path = fields.path("image_url");
            let object = fields
                .object("image_url")?
                .ok_or_else(|| RequestError::missing(path.clone()))?;
            let mut url = Fields::new(path, object);
            url.text("detail")?;
            let image = image(url.path("url"), url.required("url")?)?;
            url.refuse_others()?;
            Part::Image(image)
        }
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(RequestError::unsupported(
                fields.at,
                format!("parts of type {other:?} are not supported, only text and image_url"),
            ));
        }
    };
    // A hint for caches, not part of the prompt.
    fields.get("cache_control");
    fields.refuse_others()?;
    Ok(part)
}

fn image(at: String, url: &str) -> Result<Image, RequestError> {
    let Some((head, base64)) = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) else {
        return Err(RequestError::unsupported(
            at,
            "images must stand in the request (data:image/png;base64,…): fetching a URL would tell its host about you",
        ));
    };
    let media_type = ["image/png", "image/jpeg", "image/webp", "image/gif"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(head))
        .ok_or_else(|| RequestError::invalid(at.as_str(), "expected image/png, image/jpeg, image/webp or image/gif"))?;
    match STANDARD.decode(base64) {
        Ok(bytes) if !bytes.is_empty() => Ok(Image {
            media_type,
            base64: base64.to_owned(),
        }),
        _ => Err(RequestError::invalid(at, "is not standard base64 of an image")),
    }
}

fn tool_calls(fields: &mut Fields<'_>) -> Result<Vec<ToolCall>, RequestError> {
    let path = fields.path("tool_calls");
    let items = fields.array("tool_calls")?.map(Vec::as_slice).unwrap_or_default();
    if items.len() > MAX_TOOLS {
        return Err(RequestError::invalid(
            path,
            format!("expected at most {MAX_TOOLS} calls"),
        ));
    }
    let call = |(i, item): (usize, &Value)| {
        let mut fields = Fields::of(format!("{path}[{i}]"), item)?;
        kind_of_function(&mut fields)?;
        let at = fields.path("function");
        let object = fields
            .object("function")?
            .ok_or_else(|| RequestError::missing(at.clone()))?;
        let mut function = Fields::new(at, object);
        let call = ToolCall {
            id: fields.required("id")?.to_owned(),
            name: name(function.path("name"), function.required("name")?)?,
            arguments: function.required("arguments")?.to_owned(),
            signature: signature(&mut fields)?,
        };
        // Streamed answers number their calls; clients that put them together keep the number.
        fields.get("index");
        function.refuse_others()?;
        fields.refuse_others()?;
        Ok(call)
    };
    items.iter().enumerate().map(call).collect()
}

fn signature(fields: &mut Fields<'_>) -> Result<Option<String>, RequestError> {
    let path = fields.path("extra_content");
    let Some(extra) = fields.object("extra_content")? else {
        return Ok(None);
    };
    let mut extra = Fields::new(path, extra);
    let path = extra.path("google");
    let Some(google) = extra.object("google")? else {
        return Ok(None);
    };
    Ok(Fields::new(path, google).text("thought_signature")?.map(str::to_owned))
}

pub(super) fn kind_of_function(fields: &mut Fields<'_>) -> Result<(), RequestError> {
    match fields.text("type")? {
        None | Some("function") => Ok(()),
        Some(_) => Err(RequestError::unsupported(
            fields.path("type"),
            "only tools of type function are supported",
        )),
    }
}

/// A function's name, in the form that every provider takes.
pub(super) fn name(at: String, name: &str) -> Result<String, RequestError> {
    let fine = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fine {
        Ok(name.to_owned())
    } else {
        Err(RequestError::invalid(at, "expected 1 to 64 of A-Z a-z 0-9 _ -"))
    }
}
