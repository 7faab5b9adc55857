//! What a page says can be pasted: the lines are taken from the page and run, with files whose names a shell would run.

mod common;

use common::{Hub, answer, file, fixture, header, python};
use opg_hub::{client::Token, siwe::Scope};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

async fn page(hub: &Hub, token: &Token, id: &str) -> String {
    let request = hub.http.get(hub.at(&format!("/{id}"))).bearer_auth(&token.token);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.text().await.unwrap()
}

async fn change(hub: &Hub, token: &Token, id: &str, settings: Value) {
    let request = hub.http.put(hub.at(&format!("/api/models/{id}/settings")));
    assert_eq!(answer(request.bearer_auth(&token.token).json(&settings)).await.0, 200);
}

/// The blocks of a page in one language, as a reader copies them.
fn blocks(html: &str, language: &str) -> Vec<String> {
    let open = format!("<pre data-language=\"{language}\">");
    let parts = html.split(open.as_str()).skip(1);
    parts
        .map(|part| {
            let text = part.split("</pre>").next().unwrap();
            let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            text.replace("&amp;", "&")
        })
        .collect()
}

/// Programs in front of those of the machine: they write down how they were called.
fn stubs(dir: &Path, token: &str) -> PathBuf {
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    let said = "#!/bin/sh\n{ echo \"$HF_ENDPOINT\"; printf '%s\\n' \"$@\"; } > called.txt\n";
    let opg = format!("#!/bin/sh\n[ \"$*\" = 'hub token' ] && echo {token}\nexit 0\n");
    for (name, text) in [("llama-cli", said), ("opg", &opg), ("pip", "#!/bin/sh\n")] {
        let path = bin.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

/// All files below a folder, with links followed.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { tree(&path) } else { vec![path] })
        .collect()
}

/// Runs a block in an empty folder of its own, as somebody would who pastes it; gives the folder and what it printed.
async fn pasted(program: &Path, block: &str, path: &str, dir: PathBuf) -> (PathBuf, String) {
    fs::create_dir(&dir).unwrap();
    let mut run = Command::new(program);
    run.arg("-c")
        .arg(block)
        .current_dir(&dir)
        .env_remove("HF_ENDPOINT")
        .env_remove("HF_TOKEN")
        .env("PATH", path)
        .env("HF_HOME", dir.join("home"))
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1");
    let output = tokio::task::spawn_blocking(move || run.output())
        .await
        .unwrap()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}\n{error}");
    (dir, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Pastes every block of a page. Each has to do what it says with this file, and nothing that the file's name says.
async fn paste_all(html: &str, hub: &Hub, token: &Token, (path, content): (&str, &[u8]), llama: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let bin = stubs(dir.path(), &token.token);
    let venv = python(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/requirements.txt"));
    let mut programs = bin.display().to_string();
    if let Some(venv) = venv.as_ref().and_then(|python| python.parent()) {
        programs += &format!(":{}", venv.display());
    }
    programs += &format!(":{}", std::env::var("PATH").unwrap());
    let arrived = |dir: &Path| {
        let found = tree(dir).into_iter().find(|file| file.ends_with(path));
        assert!(found.is_some_and(|file| fs::read(file).unwrap() == content), "{path}");
    };
    let mut kinds = BTreeMap::new();
    for (n, block) in blocks(html, "sh").iter().enumerate() {
        assert!(
            block.starts_with(&format!("export HF_ENDPOINT={}\n", hub.url)),
            "{block}"
        );
        let what = ["pip install", "llama-cli", "/resolve/", "/manifest"]
            .into_iter()
            .find(|what| block.contains(what))
            .unwrap();
        kinds.insert(what, n);
        if venv.is_none() && block.contains("hf download") {
            continue;
        }
        let (folder, said) = pasted(Path::new("/bin/sh"), block, &programs, dir.path().join(n.to_string())).await;
        match what {
            "llama-cli" => {
                let called = fs::read_to_string(folder.join("called.txt")).unwrap();
                let called: Vec<_> = called.lines().collect();
                assert_eq!((called[0], &called[1..]), (hub.url.as_str(), llama));
                if llama[0] == "-m" {
                    assert!(fs::read(folder.join(llama[1])).unwrap() == content);
                }
            }
            "/manifest" => {
                let manifest: Value = serde_json::from_str(&said).unwrap();
                let listed = manifest["models"].as_array().unwrap();
                assert!(listed.iter().any(|model| model["path"] == path), "{manifest}");
            }
            _ => arrived(&folder),
        }
    }
    assert_eq!(kinds.len(), if llama.is_empty() { 3 } else { 4 }, "{kinds:?}");
    let [code] = &blocks(html, "python")[..] else {
        panic!("{html}")
    };
    if let Some(python) = &venv {
        let code = code.replace("hf_...", &token.token);
        let (folder, said) = pasted(python, &code, &programs, dir.path().join("python")).await;
        assert!(fs::read(said.trim_end_matches('\n')).unwrap() == content, "{said}");
        arrived(&folder);
    }
    let pwned: Vec<_> = tree(dir.path())
        .into_iter()
        .filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with("pwned"))
        .collect();
    assert!(pwned.is_empty(), "{pwned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_says_can_be_pasted_whatever_files_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await;
    let (gguf, onnx) = (
        fixture("tiny-llama/trained-Q8_0.gguf"),
        fixture("digits/digits_mlp.onnx"),
    );
    let names = [
        ("one", "x; touch pwned; '$(touch pwned2)'.gguf", vec!["-hf", "OF"]),
        (
            "two",
            "--local-dir=pwned `touch pwned` & #'' ü/-n ! {a,b}[1]~$IFS%20-Q8_0.gguf",
            vec!["-hf", "OF:Q8_0"],
        ),
        ("three", "-o pwned; $(touch pwned).onnx", vec![]),
    ];
    for (repo, path, llama) in names {
        let id = hub.create(&token.token, repo).await;
        let content = if path.ends_with(".gguf") { &gguf } else { &onnx };
        let lines = [header("x"), file(path, content)];
        let (status, commit) = hub.commit(&token.token, &id, &lines).await;
        assert_eq!(status, 200, "{commit}");
        let llama: Vec<_> = llama.into_iter().map(|word| word.replace("OF", &id)).collect();
        let llama: Vec<_> = llama.iter().map(String::as_str).collect();
        let html = page(&hub, &token, &id).await;
        assert!(!html.contains("HF_TOKEN"));
        paste_all(&html, &hub, &token, (path, content), &llama).await;
        for settings in [json!({"private": true}), json!({"private": false, "gated": "manual"})] {
            change(&hub, &token, &id, settings).await;
            let html = page(&hub, &token, &id).await;
            assert_eq!(html.matches("export HF_TOKEN=").count(), blocks(&html, "sh").len());
            paste_all(&html, &hub, &token, (path, content), &llama).await;
        }
    }
    // Where a tag means another file, the file comes by its path.
    let id = hub.create(&token.token, "four").await;
    let path = "z '$(touch pwned)'-Q8_0.gguf";
    let lines = [header("x"), file("a-Q8_0.gguf", b"no model"), file(path, &gguf)];
    assert_eq!(hub.commit(&token.token, &id, &lines).await.0, 200);
    let html = page(&hub, &token, &id).await;
    paste_all(&html, &hub, &token, (path, &gguf), &["-m", &format!("./{path}")]).await;
}
