//! llama.cpp's `-hf` against a hub: the requests of its versions one by one, and in the heavy run its own code.

mod common;

use common::{Hub, answer, header, large, model, python};
use opg_hub::{blobs::describe, siwe::Scope};
use serde_json::json;
use std::{path::Path, process::Command};

const AGENT: &str = "llama-cpp/b11549-6f5e2a1";

/// A hub with a model in a repository that only its owner sees, or everybody.
async fn hub(dir: &Path, private: bool) -> (Hub, String, String) {
    let hub = Hub::start(dir, "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "tiny").await;
    let content = model();
    let oid = hub.upload(&token, &id, &content).await;
    let lines = [header("x"), large("tiny-Q8_0.gguf", &oid, content.len())];
    assert_eq!(hub.commit(&token, &id, &lines).await.0, 200);
    if private {
        let settings = hub.http.put(hub.at(&format!("/api/models/{id}/settings")));
        let changed = settings.bearer_auth(&token).json(&json!({"private": true}));
        assert_eq!(answer(changed).await.0, 200);
    }
    (hub, id, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn older_versions_ask_for_the_file_of_a_tag() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, id, token) = hub(dir.path(), true).await;
    let ask = |tag: &str| {
        let url = hub.at(&format!("/v2/{id}/manifests/{tag}"));
        hub.http
            .get(url)
            .header("user-agent", AGENT)
            .header("accept", "application/json")
    };
    for tag in ["latest", "Q8_0", "q8_0"] {
        let (status, said) = answer(ask(tag).bearer_auth(&token)).await;
        assert_eq!(
            (status, &said["ggufFile"]["rfilename"]),
            (200, &json!("tiny-Q8_0.gguf")),
            "{tag}"
        );
        assert_eq!(said.get("mmprojFile"), None);
    }
    assert_eq!(answer(ask("Q4_0").bearer_auth(&token)).await.0, 404);
    // Who is nobody does not learn that it exists.
    assert_eq!(answer(ask("latest")).await.0, 404);
    // Then the file, by HEAD and GET, going on where it broke off.
    let url = hub.at(&format!("/{id}/resolve/main/tiny-Q8_0.gguf"));
    let head = hub.http.head(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["accept-ranges"]),
        (200, &"bytes".parse().unwrap())
    );
    assert!(head.headers().contains_key("etag"));
    let rest = hub.http.get(&url).bearer_auth(&token).header("range", "bytes=1000000-");
    let rest = rest.send().await.unwrap();
    assert_eq!(rest.status(), 206);
    assert!(rest.bytes().await.unwrap() == model()[1_000_000..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_versions_list_branches_and_files_and_know_our_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, id, token) = hub(dir.path(), true).await;
    // It sends no token that does not look like this.
    let (front, digits) = token.split_at(3);
    assert!(front == "hf_" && (34..=253).contains(&digits.len()));
    assert!(digits.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let (_, refs) = hub.get(Some(&token), &format!("/api/models/{id}/refs")).await;
    let branch = &refs["branches"][0];
    assert_eq!(branch["name"], "main");
    let commit = branch["targetCommit"].as_str().unwrap();
    assert!(commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let (_, tree) = hub
        .get(Some(&token), &format!("/api/models/{id}/tree/{commit}?recursive=true"))
        .await;
    let file = tree
        .as_array()
        .unwrap()
        .iter()
        .find(|file| file["path"] == "tiny-Q8_0.gguf");
    let file = file.unwrap();
    assert_eq!(file["type"], "file");
    assert_eq!(file["lfs"]["oid"], hex::encode(describe(&model()).sha256));
    let url = hub.at(&format!("/{id}/resolve/{commit}/tiny-Q8_0.gguf"));
    let whole = hub.http.get(&url).bearer_auth(&token).send().await.unwrap();
    assert!(whole.bytes().await.unwrap() == model());
}

/// The program itself, unchanged, built from the sources of a Python package: `llama-cli -hf`, which downloads, loads and answers.
#[tokio::test(flavor = "multi_thread")]
async fn llama_cli_downloads_and_answers() {
    if std::env::var_os("OPG_HEAVY").is_none_or(|value| value != "1") {
        println!("SKIPPED: it is compiled first; cargo xtask test --heavy runs this");
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let Some(python) = python(&here.join("llama-requirements.txt")) else {
        return;
    };
    let built = Command::new(&python).arg(here.join("llama_build.py")).output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    let program = String::from_utf8(built.stdout).unwrap().trim().to_owned();
    let ask = |command: &mut Command| {
        let fixed = ["-p", "1 2 3", "-n", "8", "-st", "-t", "1", "--temp", "0", "--no-warmup"];
        let output = command.args(fixed).stdin(std::process::Stdio::null()).output().unwrap();
        let (said, errors) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(output.status.success(), "{said} {errors}");
        // What it says between the question and the speed.
        let answer = said
            .split_once("> 1 2 3")
            .and_then(|(_, rest)| rest.split_once("[ Prompt:"));
        answer.unwrap_or_else(|| panic!("{said} {errors}")).0.to_owned()
    };
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("model.gguf");
    std::fs::write(&local, model()).unwrap();
    let expected = ask(Command::new(&program).arg("-m").arg(&local));
    assert!(expected.trim().len() >= 8, "{expected:?}");
    for private in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (hub, id, token) = hub(dir.path(), private).await;
        let mut command = Command::new(&program);
        command
            .args(["-hf", &format!("{id}:Q8_0")])
            .env("HF_ENDPOINT", &hub.url)
            .env("HF_HOME", dir.path().join("hf"))
            .env("LLAMA_CACHE", dir.path().join("cache"))
            .env_remove("HF_TOKEN");
        if private {
            // Nobody in particular gets nothing.
            let refused = Command::new(&program)
                .args(["-hf", &format!("{id}:Q8_0"), "-p", "1", "-st"])
                .env("HF_ENDPOINT", &hub.url)
                .env("HF_HOME", dir.path().join("hf"))
                .env("LLAMA_CACHE", dir.path().join("cache"))
                .env_remove("HF_TOKEN")
                .stdin(std::process::Stdio::null())
                .output()
                .unwrap();
            assert!(!refused.status.success());
            command.env("HF_TOKEN", token);
        }
        assert_eq!(ask(&mut command), expected);
    }
}
