//! Tool calls of a provider's model, end to end: the tools reach the provider, the calls come back whole and streamed, the receipt commits to
//! each, and the conversation goes on with the results. The provider is a stand-in that speaks OpenAI's format behind real TLS.

use opg_client::{ChatEvent, ChatRequest, Client, Job, Message, Network as Known, Wallet};
use opg_e2e::{Network, opg, tls, wait_until};
use opg_primitives::{mode::Mode, money::Amount};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_secs(60);
const API_KEY: &str = "sk-local-1a2b3c4d5e6f";
const HOST: &str = "tools.internal";
const MODEL: &str = "closed/caller";

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

/// Bodies that the provider was sent.
type Seen = Arc<Mutex<Vec<Value>>>;

/// Calls two tools when it is asked, and sums up when it gets results.
async fn provider() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address");
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&shared);
            tokio::spawn(async move { serve(stream, &seen).await });
        }
    });
    (address, seen)
}

async fn serve(mut stream: TcpStream, seen: &Seen) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut piece = [0; 4_096];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))?
            .trim()
            .parse()
            .ok()?;
        if bytes.len() >= end + 4 + length {
            break (head, serde_json::from_slice::<Value>(&bytes[end + 4..]).ok()?);
        }
    };
    let known = head.contains(&format!("authorization: bearer {}", API_KEY.to_ascii_lowercase()));
    let (status, kind, answer) = if known {
        seen.lock().expect("list").push(body.clone());
        let (kind, answer) = answer(&body);
        ("200 OK", kind, answer)
    } else {
        let refused = json!({"error": {"message": "who are you?", "type": "invalid_request_error"}});
        ("401 Unauthorized", "application/json", refused.to_string())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(answer.as_bytes()).await.ok()
}

fn answer(body: &Value) -> (&'static str, String) {
    let usage = json!({"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52});
    let last = body["messages"]
        .as_array()
        .and_then(|list| list.last())
        .expect("a message");
    let results = last["role"] == "tool";
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "get_time", "arguments": arguments}});
    let calls = [
        call("call_a", "{\"city\":\"Zürich\"}"),
        call("call_b", "{\"city\":\"Lima\"}"),
    ];
    let said = format!("In Zürich it is {}.", last["content"].as_str().unwrap_or_default());
    if body["stream"] != true {
        let (message, finish) = if results {
            (json!({"role": "assistant", "content": said}), "stop")
        } else {
            (
                json!({"role": "assistant", "content": null, "tool_calls": calls}),
                "tool_calls",
            )
        };
        let whole = json!({"id": "chatcmpl-t1", "object": "chat.completion", "created": 1_790_000_000, "model": "caller-1",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage});
        return ("application/json", whole.to_string());
    }
    let mut deltas = vec![json!({"role": "assistant", "content": ""})];
    if results {
        deltas.push(json!({"content": said}));
    } else {
        for (index, call) in calls.iter().enumerate() {
            let arguments = call["function"]["arguments"].as_str().expect("text");
            let (first, second) = arguments.split_at(8);
            deltas.push(
                json!({"tool_calls": [{"index": index, "id": call["id"], "type": "function",
                "function": {"name": "get_time", "arguments": first}}]}),
            );
            deltas.push(json!({"tool_calls": [{"index": index, "function": {"arguments": second}}]}));
        }
    }
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({"id": "chatcmpl-t2", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "caller-1",
            "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let mut stream: String = deltas
        .iter()
        .map(|delta| {
            chunk(
                json!([{"index": 0, "delta": delta, "finish_reason": null}]),
                Value::Null,
            )
        })
        .collect();
    let finish = if results { "stop" } else { "tool_calls" };
    stream += &chunk(json!([{"index": 0, "delta": {}, "finish_reason": finish}]), Value::Null);
    stream += &chunk(json!([]), usage);
    stream += "data: [DONE]\n\n";
    ("text/event-stream", stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_and_the_receipt_commits_to_each_call() {
    let (behind, seen) = provider().await;
    let (address, authority) = tls::proxy(HOST, behind).await;
    let mut network = Network::start();
    let (dir, home) = (network.dir(), network.home().to_owned());
    let home = home.as_path();
    let url = network.node_url().to_owned();
    let genesis = dir.join("genesis.json");
    let run = |arguments: &[&str]| opg(home, &[arguments, &["--dir", text(&dir)]].concat());

    // the model, its price, the node's configuration and the key
    let price = ["--per-mtok-in", "2", "--per-mtok-out", "10"];
    let (creator, operator) = (dir.join("creator.key"), dir.join("inference/operator.key"));
    let register = [
        "models",
        "register-closed",
        MODEL,
        "--provider",
        "compatible",
        "--host",
        HOST,
        "--model",
        "caller",
    ];
    let registered = run(&[&register[..], &price, &["--key", text(&creator), "--json"]].concat())
        .expect_code(0)
        .json();
    let root = registered["root"].as_str().expect("root");
    run(&[&["node", "ask", root][..], &price, &["--key", text(&operator)]].concat()).expect_code(0);
    assert!(network.stop().success(), "orderly end");
    let config = dir.join("inference/config.toml");
    let section = format!(
        "\n[[models]]\nname = \"{MODEL}\"\nkind = \"upstream\"\n[models.upstream]\nprovider = \"compatible\"\nmodel = \"caller\"\n\
         url = \"https://{HOST}/v1\"\naddress = \"{address}\"\nroots = \"\"\"\n{authority}\"\"\"\n"
    );
    let before = std::fs::read_to_string(&config).expect("config");
    std::fs::write(&config, before + &section).expect("config");
    network.run();
    wait_until("the node is attested", PATIENCE, async || {
        let Ok(answer) = reqwest::get(format!("{url}/v1/models")).await else {
            return false;
        };
        let models: Option<Value> = answer.json().await.ok();
        models.is_some_and(|models| !models["data"][0]["attestation"].is_null())
    })
    .await;
    let key_file = home.join("api-key");
    std::fs::write(&key_file, format!("{API_KEY}\n")).expect("key");
    run(&[
        "node",
        "inject-key",
        "--provider",
        "compatible",
        "--host",
        HOST,
        "--key",
        text(&operator),
        "--api-key-file",
        text(&key_file),
    ])
    .expect_code(0);

    // the command: whole and streamed, each with a receipt that verifies offline and has two leaves
    let tools = json!([{"type": "function", "function": {"name": "get_time", "description": "Time in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
    let tools_file = home.join("tools.json");
    std::fs::write(&tools_file, tools.to_string()).expect("tools");
    let mut calls = Vec::new();
    for (name, more) in [
        ("whole.receipt.json", &[][..]),
        ("stream.receipt.json", &["--stream"]),
        ("sealed.receipt.json", &["--stream", "--encrypted"]),
    ] {
        let file = home.join(name);
        let arguments = [
            "chat",
            MODEL,
            "What time is it in Zürich and Lima?",
            "--tools",
            text(&tools_file),
            "--tool-choice",
            "get_time",
            "--mode",
            "tee",
            "--json",
            "--receipt",
            text(&file),
        ];
        let chat = run(&[&arguments[..], more].concat()).expect_code(0);
        let last: Value = serde_json::from_str(chat.stdout.lines().last().expect("a line")).expect("json");
        calls.push(last["tool_calls"].clone());
        assert_eq!(last["text"], "", "{last}");
        opg(
            home,
            &[
                "receipt",
                "verify",
                text(&file),
                "--genesis",
                text(&genesis),
                "--offline",
            ],
        )
        .expect_code(0);
        let shown = opg(home, &["receipt", "show", text(&file), "--json"])
            .expect_code(0)
            .json();
        assert_eq!(shown["core"]["response"]["leaves"], 2, "{shown}");
        assert_eq!(
            shown["core"]["usage"],
            json!({"unit": "tokens", "input": 40, "output": 12}),
            "{shown}"
        );
    }
    let expected = json!([
        {"id": "call_a", "type": "function", "function": {"name": "get_time", "arguments": "{\"city\":\"Zürich\"}"}},
        {"id": "call_b", "type": "function", "function": {"name": "get_time", "arguments": "{\"city\":\"Lima\"}"}},
    ]);
    assert!(calls.iter().all(|got| *got == expected), "{calls:?}");
    let people = run(&["chat", MODEL, "And now?", "--tools", text(&tools_file), "--mode", "tee"]).expect_code(0);
    assert!(
        people.stdout.contains("call get_time {\"city\":\"Lima\"} (call_b)"),
        "{}",
        people.stdout
    );
    for body in seen.lock().expect("list").iter().take(3) {
        assert_eq!(body["tools"], tools, "forwarded as they came");
        assert_eq!(body["tool_choice"]["function"]["name"], "get_time");
    }
    seen.lock().expect("list").clear();

    // the library: the calls go back with their results, and the answer is text
    let known = Known::load(&dir.join("network.json")).expect("network");
    let client = Client::new(known).expect("client");
    let wallet = Wallet::load(&dir.join("demo.key")).expect("wallet");
    let most = Amount::parse_opg("1").expect("amount");
    let mut request = ChatRequest {
        model: MODEL.into(),
        messages: vec![Message::user("What time is it in Zürich and Lima?")],
        max_tokens: 64,
        temperature: None,
        seed: None,
        stream: false,
        tools: tools.as_array().expect("list").clone(),
        tool_choice: None,
    };
    let pay = async |request: &ChatRequest| {
        let job = Job::chat_in(Mode::Tee, request, most);
        client
            .quote(job)
            .await
            .expect("quote")
            .authorize(&wallet)
            .expect("payment")
    };
    let asked = client.chat(&pay(&request).await).await.expect("answer");
    assert_eq!(json!(asked.tool_calls), expected);
    request.messages.push(Message::assistant(&asked));
    for (call, time) in asked.tool_calls.iter().zip(["07:00", "noon"]) {
        request.messages.push(Message::tool(call, time));
    }
    let summed = client.chat(&pay(&request).await).await.expect("answer");
    assert_eq!(
        (summed.text.as_str(), summed.tool_calls.len()),
        ("In Zürich it is noon.", 0)
    );
    request.stream = true;
    let mut stream = client.chat_stream(pay(&request).await).await.expect("stream");
    let mut done = None;
    while let Some(event) = stream.next().await.expect("event") {
        if let ChatEvent::Done(chat) = event {
            done = Some(chat.text);
        }
    }
    assert_eq!(done.as_deref(), Some("In Zürich it is noon."));
    let seen = seen.lock().expect("list");
    let messages = seen.last().expect("a request")["messages"].as_array().expect("list");
    assert_eq!(messages[1]["tool_calls"], expected);
    assert_eq!(
        (&messages[2]["tool_call_id"], &messages[3]["tool_call_id"]),
        (&json!("call_a"), &json!("call_b"))
    );
}
