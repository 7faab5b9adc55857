//! Pages, metrics and shutdown of a running hub.

mod common;

use common::{
    Hub, Place, STORES, answer,
    chain::{Chain, Registered},
    file, fixture, header, on_all,
};
use opg_hub::siwe::Scope;
use serde_json::{Value, json};
use std::fs;

const CARD: &str = "---\nlicense: mit\ntags: [digits, \"<b>bold</b>\"]\npipeline_tag: image-classification\n---\n\
    # Digits\n\nA <script>alert(1)</script> classifier.\n\n[bad](javascript:alert(1)) [good](https://example.org)\n";

async fn page(hub: &Hub, path: &str) -> String {
    let response = hub.http.get(hub.at(path)).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let html = response.text().await.unwrap();
    assert!(
        html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>"),
        "{path}"
    );
    assert!(
        !html.contains("<script") && !html.contains("javascript:") && !html.contains("<b>"),
        "{path}"
    );
    // Tags are balanced, but for those that have no end.
    for tag in [
        "div", "main", "section", "aside", "ul", "li", "table", "tr", "td", "p", "a", "h1", "h2", "pre", "code",
    ] {
        let count = |text: &str| html.matches(text).count();
        let open = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
        assert_eq!(open, count(&format!("</{tag}>")), "{path} {tag}");
    }
    html
}

async fn pages_show_what_the_api_shows(dir: Place) {
    let hub = Hub::start(dir.path(), "");
    assert!(page(&hub, "/").await.contains("No models here"));
    let token = hub.token(1, Scope::Write).await;
    let id = hub.create(&token.token, "digits").await;
    let onnx = fixture("digits/digits_mlp.onnx");
    let lines = [
        header("first <b>version</b>"),
        file("README.md", CARD.as_bytes()),
        file("digits.onnx", &onnx),
        file("weights.pkl", b"\x80\x04."),
        file("broken.safetensors", b"not at all"),
    ];
    let (status, commit) = hub.commit(&token.token, &id, &lines).await;
    assert_eq!(status, 200, "{commit}");
    let oid = commit["commitOid"].as_str().unwrap();
    let tag = hub
        .http
        .post(hub.at(&format!("/api/models/{id}/tag/main")))
        .bearer_auth(&token.token);
    assert_eq!(answer(tag.json(&json!({"tag": "v1.0"}))).await.0, 200);

    let home = page(&hub, "/").await;
    assert!(home.contains(&id) && home.contains("image-classification") && home.contains("&lt;b&gt;"));
    assert!(
        page(&hub, "/models?search=DIGI&filter=digits&format=onnx&sort=likes")
            .await
            .contains(&id)
    );
    assert!(!page(&hub, "/models?search=other").await.contains(&id));
    assert!(!page(&hub, "/models?format=gguf").await.contains(&id));
    assert!(page(&hub, &format!("/{}", token.address)).await.contains(&id));
    let (_, root) = hub.get(None, &format!("/api/opg/models/{id}/root")).await;
    let card = page(&hub, &format!("/{id}")).await;
    for text in [
        root["root"].as_str().unwrap(),
        "<h1>Digits</h1>",
        "Not servable",
        "https://example.org",
        &hub.url,
        "Operators",
    ] {
        assert!(card.contains(text), "{text}");
    }
    let files = page(&hub, &format!("/{id}/tree/main")).await;
    assert!(files.contains("not servable: pickle can run code") && files.contains("checked") && files.contains(oid));
    let versions = page(&hub, &format!("/{id}/commits/main")).await;
    assert!(versions.contains("v1.0") && versions.contains("initial commit") && versions.contains("&lt;b&gt;version"));
    assert!(page(&hub, &format!("/{id}/commit/{oid}")).await.contains("digits.onnx"));
    assert!(page(&hub, "/datasets").await.contains("No data sets here"));

    // Private repositories have no page.
    let settings = hub
        .http
        .put(hub.at(&format!("/api/models/{id}/settings")))
        .bearer_auth(&token.token);
    assert_eq!(answer(settings.json(&json!({"private": true}))).await.0, 200);
    assert_eq!(hub.get(None, &format!("/{id}")).await.0, 404);
    assert!(!page(&hub, "/").await.contains(&id));

    let metrics = hub
        .http
        .get(hub.at("/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in ["opg_hub_commits_total 1", "opg_hub_repositories 1", "# EOF"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // The log is JSON, and holds no token.
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap();
    assert!(
        log.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    assert!(!log.contains(&token.token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_what_the_chain_says() {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::start().await;
    fs::write(dir.path().join(STORES), chain.text()).unwrap();
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await;
    let id = hub.create(&token.token, "digits").await;
    let onnx = fixture("digits/digits_mlp.onnx");
    let lines = [
        header("x"),
        file("digits.onnx", &onnx),
        file("new.onnx", &fixture("digits/gbc.onnx")),
    ];
    assert_eq!(hub.commit(&token.token, &id, &lines).await.0, 200);
    let (_, answer) = hub
        .get(None, &format!("/api/opg/models/{id}/root?file=digits.onnx"))
        .await;
    let root = |version: &str| answer["roots"][version].as_str().unwrap().to_owned();
    let (old, new) = (root("1"), root("2"));
    assert_ne!(old, new);
    // The commitment counts: a reveal may be late.
    let program = alloy_primitives::B256::repeat_byte(0x77);
    let registered = |registered_at, committed_at, name: &str, programs: &[alloy_primitives::B256]| Registered {
        registered_at,
        committed_at,
        name: name.into(),
        programs: programs.to_vec(),
    };
    chain.register(&new, registered(100, 50, "late", &[]));
    chain.register(&old, registered(200, 40, "first", &[program]));
    let (_, said) = hub.get(None, &format!("/api/opg/models/{id}/registration")).await;
    let [listed, unknown] = &said["models"].as_array().unwrap()[..] else {
        panic!("{said}")
    };
    assert_eq!((&listed["root"], &unknown["registration"]), (&json!(old), &Value::Null));
    let terms = &listed["registration"];
    assert_eq!(
        (
            &terms["name"],
            &terms["committed_at"],
            &terms["modes"],
            &terms["programs"]
        ),
        (
            &json!("first"),
            &json!(40),
            &json!(["none", "tee", "zk"]),
            &json!([program])
        )
    );
    let html = page(&hub, &format!("/{id}")).await;
    for text in [
        "Registered as",
        "first",
        &format!("<dt>Content root</dt><dd><code class=\"hash\">{old}</code>"),
        &format!("<dt>Newest root, not registered</dt><dd><code class=\"hash\">{new}</code>"),
        &format!("opg models show {old}"),
        "proven, by 1 registered exact integer program",
        &program.to_string(),
        "not offered by the network yet",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert_eq!(html.matches("Verification modes").count(), 1);

    // Without a program there is nothing to prove.
    let id = hub.create(&token.token, "plain").await;
    let lines = [header("x"), file("model.onnx", &fixture("digits/logreg.onnx"))];
    assert_eq!(hub.commit(&token.token, &id, &lines).await.0, 200);
    let (_, answer) = hub.get(None, &format!("/api/opg/models/{id}/root")).await;
    chain.register(answer["root"].as_str().unwrap(), registered(1, 0, "plain", &[]));
    let (_, said) = hub.get(None, &format!("/api/opg/models/{id}/registration")).await;
    assert_eq!(said["models"][0]["registration"]["modes"], json!(["none", "tee"]));
    let html = page(&hub, &format!("/{id}")).await;
    assert!(html.contains("no exact integer program of it is registered") && !html.contains("Newest root"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_chain_a_page_says_nothing_about_modes() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await;
    let id = hub.create(&token.token, "digits").await;
    let lines = [header("x"), file("digits.onnx", &fixture("digits/digits_mlp.onnx"))];
    assert_eq!(hub.commit(&token.token, &id, &lines).await.0, 200);
    let html = page(&hub, &format!("/{id}")).await;
    assert!(!html.contains("Verification modes") && !html.contains("On the network"));
    let (status, said) = hub.get(None, &format!("/api/opg/models/{id}/registration")).await;
    assert_eq!((status, &said["error"]["code"]), (404, &json!("NoChain")), "{said}");
}

/// A safetensors file of ten numbers.
fn safetensors() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 32]].concat()
}

/// The panel of a file, without tags.
fn panel(html: &str, path: &str) -> String {
    let start = html.find(&format!("<section class=\"panel\"><h2>{path}</h2>")).unwrap();
    let panel = html[start..].split("</section>").next().unwrap();
    let words = panel
        .split('<')
        .map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    words
        .filter(|text| !text.trim().is_empty())
        .collect::<Vec<_>>()
        .join("|")
}

async fn panels_say_what_is_in_the_files(dir: Place) {
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await;
    let id = hub.create(&token.token, "all").await;
    let lines = [
        header("x"),
        file("digits.onnx", &fixture("digits/digits_mlp.onnx")),
        file("tiny.gguf", &fixture("tiny-llama/trained-Q8_0.gguf")),
        file("chat/a.safetensors", &safetensors()),
        file("chat/b.safetensors", &safetensors()),
        file(
            "chat/config.json",
            br#"{"architectures": ["TinyForCausalLM"], "max_position_embeddings": 4096}"#,
        ),
        file(
            "chat/tokenizer_config.json",
            br#"{"chat_template": "{% for m in messages %}<b>{{ m }}</b>{% endfor %}"}"#,
        ),
        file("plain/c.safetensors", &safetensors()),
    ];
    let (status, commit) = hub.commit(&token.token, &id, &lines).await;
    assert_eq!(status, 200, "{commit}");
    let html = page(&hub, &format!("/{id}")).await;
    let onnx = panel(&html, "digits.onnx");
    assert!(
        onnx.contains("|Parameters|4821|Types|F32 |4810| I32 |10| I64 |1"),
        "{onnx}"
    );
    let gguf = panel(&html, "tiny.gguf");
    for text in [
        "|Parameters|3.67 M|",
        "Q8_0 |",
        "|Architecture|llama|",
        "|1024 tokens|",
        "|Chat template|none",
    ] {
        assert!(gguf.contains(text), "{text} in {gguf}");
    }
    let chat = panel(&html, "chat/a.safetensors");
    for text in [
        "|Parameters|10|Types|BF16 |4| F32 |6|",
        "|Architecture|TinyForCausalLM|",
        "|4096 tokens|Chat template|yes|{% for m in messages %}&lt;b&gt;{{ m }}",
    ] {
        assert!(chat.contains(text), "{text} in {chat}");
    }
    // What stands beside a folder's first file is said once, and not of other folders.
    for other in ["chat/b.safetensors", "plain/c.safetensors"] {
        let other = panel(&html, other);
        assert!(
            other.contains("|Parameters|10|") && !other.contains("Chat") && !other.contains("tokens"),
            "{other}"
        );
    }
    let (_, manifest) = hub.get(None, &format!("/api/opg/models/{id}/manifest")).await;
    let models = manifest["models"].as_array().unwrap();
    let chat = models
        .iter()
        .find(|model| model["path"] == "chat/a.safetensors")
        .unwrap();
    assert_eq!(chat["panel"]["context_length"], 4_096);
}

async fn lists_are_made_shorter_by_several_facets(dir: Place) {
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await;
    let mut ids = Vec::new();
    for (name, card) in [
        (
            "one",
            "license: mit\npipeline_tag: text-generation\nlibrary_name: candle\ntags: [a, b]",
        ),
        (
            "two",
            "license: mit\npipeline_tag: text-generation\nlibrary_name: \"x&y\"\ntags: [a]",
        ),
        (
            "three",
            "license: apache-2.0\npipeline_tag: text-generation\ntags: [b]\ndeprecated: \"use <two>\"",
        ),
        ("four", "license: mit\ntags: [a, text-generation]"),
    ] {
        let id = hub.create(&token.token, name).await;
        let card = format!("---\n{card}\n---\n# {name}\n");
        let lines = [header("x"), file("README.md", card.as_bytes())];
        assert_eq!(hub.commit(&token.token, &id, &lines).await.0, 200);
        ids.push(id);
    }
    let found = async |query: &str| {
        let html = page(&hub, &format!("/models?{query}")).await;
        let listed = |id: &&String| html.contains(&format!("<a class=\"name\" href=\"/{id}\">"));
        let names = ids.iter().filter(listed).map(|id| id.split_once('/').unwrap().1);
        names.collect::<Vec<_>>().join(" ")
    };
    for (query, expected) in [
        ("", "one two three four"),
        ("pipeline_tag=text-generation", "one two three"),
        ("license=mit", "one two four"),
        ("license=mit&pipeline_tag=text-generation", "one two"),
        ("license=mit&pipeline_tag=text-generation&library=x%26y", "two"),
        ("filter=a", "one two four"),
        ("filter=a&filter=b", "one"),
        ("filter=b&pipeline_tag=text-generation&license=apache-2.0", "three"),
        ("library=candle&license=apache-2.0", ""),
    ] {
        assert_eq!(found(query).await, expected, "{query}");
    }
    // The links of a list lead to those that fit both, and back.
    let html = page(&hub, "/models?license=mit").await;
    for link in [
        "<a href=\"/models?pipeline_tag=text%2Dgeneration&amp;license=mit\">text-generation <span class=\"soft\">3</span></a>",
        "<a href=\"/models?library=x%26y&amp;license=mit\">x&amp;y <span class=\"soft\">1</span></a>",
        "<a class=\"on\" aria-current=\"true\" href=\"/models\">mit <span class=\"soft\">3</span></a>",
        "<a href=\"/models?filter=b&amp;license=mit\">b <span class=\"soft\">2</span></a>",
    ] {
        assert!(html.contains(link), "{link}");
    }
    assert!(!html.contains("license:mit <span"));
    // The badge is in lists and on the page.
    let badge = "<span class=\"tag bad\" title=\"use &lt;two&gt;\">deprecated</span>";
    assert_eq!(page(&hub, "/models").await.matches(badge).count(), 1);
    let html = page(&hub, &format!("/{}/tree/main", ids[2])).await;
    assert!(html.contains("<span class=\"bad\">deprecated</span>"));
    assert!(
        page(&hub, &format!("/{}", ids[2]))
            .await
            .contains("Deprecated: use &lt;two&gt;")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn private_repositories_count_for_those_who_see_them() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "");
    let (alice, bob) = (hub.token(1, Scope::Write).await, hub.token(2, Scope::Write).await);
    let org = hub.http.put(hub.at("/api/opg/organizations/lab"));
    assert_eq!(answer(org.bearer_auth(&alice.token)).await.0, 200);
    let create = async |body: Value| {
        let (status, said) = hub.post(&alice.token, "/api/repos/create", body).await;
        assert_eq!(status, 200, "{said}");
    };
    for private in [false, true] {
        for kind in ["model", "dataset"] {
            create(json!({"name": format!("a-{private}"), "type": kind, "private": private})).await;
        }
        create(json!({"name": format!("a-{private}"), "organization": "lab", "private": private})).await;
    }
    let user = format!("/api/users/{}/overview", alice.address);
    let numbers = async |token: Option<&str>| {
        let (_, user) = hub.get(token, &user).await;
        let (_, org) = hub.get(token, "/api/organizations/lab/overview").await;
        let number = |value: &Value| value.as_u64().unwrap();
        (
            number(&user["numModels"]),
            number(&user["numDatasets"]),
            number(&org["numModels"]),
        )
    };
    assert_eq!(numbers(None).await, (1, 1, 1));
    assert_eq!(numbers(Some(&bob.token)).await, (1, 1, 1));
    assert_eq!(numbers(Some(&alice.token)).await, (2, 2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_a_running_upload_finish() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "late").await;
    let lines = [header("late"), file("late.txt", b"in time")];
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (head, tail) = body.split_at(40);
    let (head, tail) = (head.to_owned(), tail.to_owned());
    let slow = futures::stream::unfold(0, move |step| {
        let (head, tail) = (head.clone(), tail.clone());
        async move {
            match step {
                0 => Some((Ok::<_, std::io::Error>(head), 1)),
                1 => {
                    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
                    Some((Ok(tail), 2))
                }
                _ => None,
            }
        }
    });
    let url = hub.at(&format!("/api/models/{id}/commit/main"));
    let request = hub
        .http
        .post(url)
        .bearer_auth(&token)
        .body(reqwest::Body::wrap_stream(slow));
    let upload = tokio::spawn(answer(request));
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let status = tokio::task::spawn_blocking(move || hub.terminate()).await.unwrap();
    assert!(status.success());
    let (status, answer) = upload.await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let hub = Hub::start(dir.path(), "");
    assert_eq!(hub.bytes(&id, "main", "late.txt").await, (200, b"in time".to_vec()));
}

on_all!(
    pages_show_what_the_api_shows,
    panels_say_what_is_in_the_files,
    lists_are_made_shorter_by_several_facets,
);
