//! Translation of recorded answers and of requests, and what happens to broken ones.

mod common;

use common::{Assembled, PROVIDERS, assemble, conversation, model, read_in, request, stream, whole};
use opg_upstream::{AnswerError, Delta, Finish, Head, Provider, StreamReader, Target, Usage, read_answer};
use proptest::prelude::*;
use serde_json::{Value, json};

fn expected(provider: Provider) -> Assembled {
    let call = |id: &str, name: &str, arguments: &str| (id.to_owned(), name.to_owned(), arguments.to_owned());
    let mut calls = match provider {
        Provider::Anthropic => vec![
            call("toolu_01T1x", "get_weather", ""),
            call("toolu_01T2x", "get_time", "{}"),
        ],
        Provider::Google => vec![call("call_", "get_weather", ""), call("fc-2", "get_time", "{}")],
        _ => vec![call("call_a1", "get_weather", "")],
    };
    calls[0].2 = "{\"city\":\"Zürich\"}".into();
    let usage = match provider {
        Provider::Anthropic => Usage {
            prompt: 57,
            cached: 32,
            completion: 89,
            reasoning: 0,
        },
        _ => Usage {
            prompt: 57,
            cached: 32,
            completion: 21,
            reasoning: 4,
        },
    };
    Assembled {
        text: "Grüße 🌍, \"world\"".into(),
        calls,
        finish: Some(Finish::ToolCalls),
        usage: Some(usage),
    }
}

/// Google's first call has no id: it is derived.
fn normal(mut all: Assembled) -> Assembled {
    for call in &mut all.calls {
        if call.0.starts_with("call_") && call.0.len() == 29 {
            call.0 = "call_".into();
        }
    }
    all
}

#[test]
fn a_stream_reads_the_same_in_pieces_of_any_size() {
    for provider in PROVIDERS {
        let bytes = stream(provider);
        let once = read_in(provider, bytes, bytes.len()).unwrap();
        assert_eq!(normal(assemble(&once)), expected(provider), "{provider}");
        let crlf: Vec<u8> = String::from_utf8(bytes.to_vec())
            .unwrap()
            .replace('\n', "\r\n")
            .into_bytes();
        let commented = [&b": keep-alive\n\n"[..], bytes, b": bye\n"].concat();
        for size in 1..200 {
            assert_eq!(
                read_in(provider, bytes, size).unwrap(),
                once,
                "{provider} in pieces of {size}"
            );
            assert_eq!(
                read_in(provider, &crlf, size).unwrap(),
                once,
                "{provider} with CR LF in pieces of {size}"
            );
            assert_eq!(read_in(provider, &commented, size).unwrap(), once);
        }
        let starts = once.iter().filter(|delta| **delta == Delta::Start).count();
        assert_eq!((starts, &once[0]), (1, &Delta::Start));
    }
}

#[test]
fn whole_answers_say_the_same_as_streams() {
    for provider in PROVIDERS {
        let answer = read_answer(provider, whole(provider)).unwrap();
        let calls = answer
            .calls
            .iter()
            .map(|c| (c.id.clone(), c.name.clone(), c.arguments.clone()))
            .collect();
        let all = Assembled {
            text: answer.text.clone().unwrap(),
            calls,
            finish: Some(answer.finish),
            usage: answer.usage,
        };
        assert_eq!(normal(all), expected(provider), "{provider}");
        let reported = answer.reported;
        assert!(reported.response_id.is_some() && reported.model.is_some() && reported.finish.is_some());
    }
}

#[test]
fn a_cut_stream_is_never_a_whole_answer() {
    for provider in PROVIDERS {
        let bytes = stream(provider);
        let end = bytes.len() - 1;
        for cut in 0..end {
            let mut reader = StreamReader::new(provider);
            let deltas = reader.push(&bytes[..cut]).unwrap();
            assert!(
                !deltas.iter().any(|d| matches!(d, Delta::Finish(_))),
                "{provider} cut at {cut}"
            );
            let end = reader.finish();
            assert!(
                matches!(end, Err(AnswerError::Truncated { .. })),
                "{provider} cut at {cut}: {end:?}"
            );
        }
    }
}

#[test]
fn an_error_inside_an_answer_is_an_error() {
    let events = [
        (
            Provider::OpenAi,
            json!({"error": {"message": "The server had an error", "type": "server_error", "code": null}}),
        ),
        (
            Provider::Anthropic,
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        ),
        (
            Provider::Google,
            json!({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}),
        ),
        (Provider::Xai, json!({"error": "Internal\nerror"})),
    ];
    for (provider, event) in events {
        let bytes = stream(provider);
        let middle = bytes.windows(2).position(|w| w == b"\n\n").unwrap() + 2;
        let broken = [
            &bytes[..middle],
            format!("event: error\ndata: {event}\n\n").as_bytes(),
            &bytes[middle..],
        ]
        .concat();
        let refused = read_in(provider, &broken, 64).unwrap_err();
        assert!(matches!(refused, AnswerError::Provider { .. }), "{refused}");
        assert!(!refused.to_string().contains('\n'));
        assert!(matches!(
            read_answer(provider, event.to_string().as_bytes()),
            Err(AnswerError::Provider { .. })
        ));
    }
}

#[test]
fn reasons_to_end() {
    let openai = |word: &str| json!({"choices": [{"message": {"content": "x"}, "finish_reason": word}]});
    let anthropic = |word: &str| json!({"content": [{"type": "text", "text": "x"}], "stop_reason": word, "usage": {"input_tokens": 1, "output_tokens": 1}});
    let google = |word: &str| json!({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": word}]});
    let cases = [
        (Provider::OpenAi, openai("stop"), Finish::Stop),
        (Provider::OpenAi, openai("length"), Finish::Length),
        (Provider::OpenAi, openai("content_filter"), Finish::ContentFilter),
        (Provider::OpenAi, openai("a-new-word"), Finish::Stop),
        (Provider::Anthropic, anthropic("end_turn"), Finish::Stop),
        (Provider::Anthropic, anthropic("stop_sequence"), Finish::Stop),
        (Provider::Anthropic, anthropic("max_tokens"), Finish::Length),
        (
            Provider::Anthropic,
            anthropic("model_context_window_exceeded"),
            Finish::Length,
        ),
        (Provider::Anthropic, anthropic("refusal"), Finish::ContentFilter),
        (Provider::Google, google("STOP"), Finish::Stop),
        (Provider::Google, google("MAX_TOKENS"), Finish::Length),
        (Provider::Google, google("SAFETY"), Finish::ContentFilter),
    ];
    for (provider, value, finish) in cases {
        let answer = read_answer(provider, value.to_string().as_bytes()).unwrap();
        assert_eq!(answer.finish, finish, "{value}");
        assert!(answer.reported.finish.is_some());
    }
    let failed = read_answer(
        Provider::Google,
        google("MALFORMED_FUNCTION_CALL").to_string().as_bytes(),
    );
    assert!(matches!(failed, Err(AnswerError::Provider { code, .. }) if code == "MALFORMED_FUNCTION_CALL"));
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}});
    let answer = read_answer(Provider::Google, blocked.to_string().as_bytes()).unwrap();
    assert_eq!((answer.finish, answer.text), (Finish::ContentFilter, None));
    let deltas = read_in(Provider::Google, format!("data: {blocked}\n\n").as_bytes(), 7).unwrap();
    assert_eq!(assemble(&deltas).finish, Some(Finish::ContentFilter));
}

#[test]
fn broken_answers_are_refused() {
    let deep = format!("{{\"choices\":{}", "[".repeat(100_000));
    let many: Vec<Value> = (0..200)
        .map(|i| json!({"index": i, "id": "c", "function": {"name": "f"}}))
        .collect();
    let bad: [(Provider, String); 13] = [
        (Provider::OpenAi, "[]".into()),
        (Provider::OpenAi, "{}".into()),
        (Provider::OpenAi, "nonsense".into()),
        (Provider::OpenAi, deep),
        (Provider::OpenAi, json!({"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}).to_string()),
        (Provider::OpenAi, json!({"choices": [{"message": {"content": "x"}, "finish_reason": null}]}).to_string()),
        (Provider::OpenAi, json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": -1}}).to_string()),
        (Provider::OpenAi, json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1u64 << 40}}).to_string()),
        (Provider::Anthropic, json!({"content": [{"type": "text"}], "stop_reason": "end_turn", "usage": {}}).to_string()),
        (Provider::Anthropic, json!({"content": [], "stop_reason": "end_turn"}).to_string()),
        (Provider::Google, json!({"candidates": []}).to_string()),
        (Provider::Google, json!({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": [1]}}]}, "finishReason": "STOP"}]}).to_string()),
        (Provider::Xai, json!({"choices": [{"message": {"tool_calls": [{"id": 3}]}, "finish_reason": "stop"}]}).to_string()),
    ];
    for (provider, body) in bad {
        let refused = read_answer(provider, body.as_bytes());
        assert!(
            matches!(refused, Err(AnswerError::Malformed { .. })),
            "{provider} {}",
            &body[..body.len().min(90)]
        );
    }
    assert!(read_answer(Provider::OpenAi, b"{\"choices\": \"\xff\"}").is_err());
    let chunk = json!({"choices": [{"index": 0, "delta": {"tool_calls": many}}]});
    for event in [
        chunk.to_string(),
        "{".into(),
        "\u{feff}{}".into(),
        json!({"choices": 1}).to_string(),
    ] {
        let refused = read_in(Provider::OpenAi, format!("data: {event}\n\n").as_bytes(), 1000);
        assert!(matches!(refused, Err(AnswerError::Malformed { .. })));
    }
    // A piece of a block that never began.
    let orphan = json!({"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}});
    assert!(read_in(Provider::Anthropic, format!("data: {orphan}\n\n").as_bytes(), 9).is_err());
}

#[test]
fn requests_in_every_format() {
    let asked = request(&conversation());
    let body = |provider| -> Value {
        let sent = Target::new(provider, model(provider)).request(&asked).unwrap();
        let text = String::from_utf8(sent.body.clone()).unwrap();
        assert!(!text.contains("1234567890"), "who asks is not forwarded: {text}");
        serde_json::from_slice(&sent.body).unwrap()
    };
    let openai = body(Provider::OpenAi);
    assert_eq!(openai["max_completion_tokens"], 256);
    assert_eq!(
        openai["messages"][3]["tool_calls"][0]["function"]["arguments"],
        "{\"zone\": \"CET\"}"
    );
    assert_eq!(body(Provider::Compatible)["max_tokens"], 256);

    let anthropic = body(Provider::Anthropic);
    assert_eq!(anthropic["system"], "Be brief.\n\nUse tools.");
    assert_eq!(anthropic["tool_choice"], json!({"type": "any"}));
    assert_eq!(
        anthropic["tools"][1],
        json!({"name": "get_time", "input_schema": {"type": "object"}})
    );
    let roles: Vec<&str> = anthropic["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_eq!(
        anthropic["messages"][2]["content"],
        json!([{"type": "tool_result", "tool_use_id": "call_old1", "content": "12:00"},
            {"type": "text", "text": "And the weather"}, {"type": "text", "text": " in Zürich?"}])
    );

    let google = body(Provider::Google);
    assert_eq!(
        google["systemInstruction"]["parts"][0]["text"],
        "Be brief.\n\nUse tools."
    );
    assert_eq!(
        google["contents"][1]["parts"][0]["functionCall"]["args"],
        json!({"zone": "CET"})
    );
    assert_eq!(
        google["contents"][1]["parts"][0]["thoughtSignature"],
        "skip_thought_signature_validator"
    );
    assert_eq!(
        google["contents"][2]["parts"][0]["functionResponse"]["name"],
        "get_time"
    );
    assert_eq!(google["toolConfig"]["functionCallingConfig"]["mode"], "ANY");
    assert_eq!(google["generationConfig"]["stopSequences"], json!(["END"]));
}

#[test]
fn what_a_provider_lacks_is_refused_by_name() {
    let refuse = |provider, name: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body[name] = value;
        let error = Target::new(provider, model(provider))
            .request(&request(&body))
            .unwrap_err();
        assert!(error.param.starts_with(name), "{error}");
        error.code
    };
    assert_eq!(refuse(Provider::Anthropic, "seed", json!(1)), "unsupported_parameter");
    assert_eq!(
        refuse(Provider::Anthropic, "temperature", json!(1.5)),
        "invalid_parameter"
    );
    assert_eq!(
        refuse(Provider::Anthropic, "presence_penalty", json!(0.5)),
        "unsupported_parameter"
    );
    assert_eq!(
        refuse(Provider::Anthropic, "response_format", json!({"type": "json_object"})),
        "unsupported_parameter"
    );
    assert_eq!(
        refuse(Provider::Google, "parallel_tool_calls", json!(false)),
        "unsupported_parameter"
    );
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]);
    for provider in PROVIDERS {
        assert_eq!(refuse(provider, "messages", image.clone()), "unsupported_parameter");
        let mut seeing = Target::new(provider, model(provider));
        seeing.images = true;
        let sent = seeing.request(&request(&json!({"messages": image}))).unwrap();
        assert!(String::from_utf8(sent.body).unwrap().contains("AAAA"));
        let mut fixed = Target::new(provider, model(provider));
        fixed.sampling = false;
        let warm = request(&json!({"messages": [{"role": "user", "content": "x"}], "temperature": 0.1}));
        assert_eq!(fixed.request(&warm).unwrap_err().param, "temperature");
        let neutral = request(&json!({"messages": [{"role": "user", "content": "x"}], "temperature": 1}));
        assert!(
            !String::from_utf8(fixed.request(&neutral).unwrap().body)
                .unwrap()
                .contains("temperature")
        );
    }
    let wild = Target::new(Provider::Google, "../../v1/files?x=");
    assert_eq!(wild.request(&request(&conversation())).unwrap_err().param, "model");
}

#[test]
fn a_call_of_googles_comes_back_with_its_signature() {
    let answer = read_answer(Provider::Google, whole(Provider::Google)).unwrap();
    let head = Head {
        id: "chatcmpl-1".into(),
        created: 1,
        model: "m".into(),
    };
    let message = head.whole(&answer)["choices"][0]["message"].clone();
    let id = message["tool_calls"][0]["id"].clone();
    let next = json!({"messages": [{"role": "user", "content": "x"}, message, {"role": "tool", "tool_call_id": id, "content": "sun"},
        {"role": "tool", "tool_call_id": "fc-2", "content": "noon"}]});
    let sent = Target::new(Provider::Google, "gemini-3-pro")
        .request(&request(&next))
        .unwrap();
    let body: Value = serde_json::from_slice(&sent.body).unwrap();
    let parts = &body["contents"][1]["parts"];
    assert_eq!(
        (&parts[1]["thoughtSignature"], &parts[2].get("thoughtSignature")),
        (&json!("EpwCCpkCAXLI2nw="), &None)
    );
    let responses = body["contents"][2]["parts"].as_array().unwrap();
    assert_eq!(responses.len(), 2);
    // The same conversation at another provider: signatures stay behind.
    let other = Target::new(Provider::OpenAi, "gpt").request(&request(&next)).unwrap();
    assert!(!String::from_utf8(other.body).unwrap().contains("thought_signature"));
}

proptest! {
    #[test]
    fn pieces_at_any_positions_read_the_same(which in 0..4usize, cuts in prop::collection::vec(0..4000usize, 0..12)) {
        let provider = PROVIDERS[which];
        let bytes = stream(provider);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % bytes.len()).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut reader = StreamReader::new(provider);
        let mut deltas = Vec::new();
        for pair in cuts.windows(2) {
            deltas.extend(reader.push(&bytes[pair[0]..pair[1]]).unwrap());
        }
        deltas.extend(reader.finish().unwrap());
        prop_assert_eq!(deltas, read_in(provider, bytes, bytes.len()).unwrap());
    }

    #[test]
    fn altered_bytes_never_panic(which in 0..4usize, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), size in 1..99usize) {
        let provider = PROVIDERS[which];
        let mut bytes = stream(provider).to_vec();
        let mut body = whole(provider).to_vec();
        for (at, value) in edits {
            let (i, j) = (at.index(bytes.len()), at.index(body.len()));
            bytes[i] = value;
            body[j] = value;
        }
        let _ = read_in(provider, &bytes, size);
        let _ = read_answer(provider, &body);
    }
}
