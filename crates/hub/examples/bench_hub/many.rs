//! Search and information over 100,000 repositories, over HTTP.

use crate::{
    process::Hub,
    report::{Bar, Report},
    setting,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::{Connection, params};
use serde_json::json;
use std::{path::Path, time::Instant};

const WORDS: [&str; 24] = [
    "llama",
    "mistral",
    "qwen",
    "bert",
    "digits",
    "fraud",
    "whisper",
    "clip",
    "vision",
    "coder",
    "chat",
    "instruct",
    "tiny",
    "base",
    "large",
    "multilingual",
    "legal",
    "medical",
    "speech",
    "ranker",
    "guard",
    "router",
    "math",
    "finance",
];
const OWNERS: u64 = 1_000;
const SEARCHES: u64 = 2_000;
const INFOS: u64 = 5_000;

/// The n-th repository's name: the same in every run.
fn name(n: u64) -> String {
    let word = |k: u64| WORDS[(mix(n.wrapping_mul(3) + k) % WORDS.len() as u64) as usize];
    format!("{}-{}-{}-{n}", word(0), word(1), word(2))
}

fn owner(n: u64) -> String {
    format!("0x{:040x}", mix(n % OWNERS))
}

/// A fixed shuffling of numbers (SplitMix64).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Copies the rows of one repository, which came through the API, under other names, cards' tags and times.
fn fill(database: &Path, template: &str, count: u64) {
    let mut db = Connection::open(database).expect("the database");
    let tx = db.transaction().expect("a transaction");
    let from: i64 = tx
        .query_row("SELECT id FROM repos WHERE folded = ?1", [template], |row| row.get(0))
        .expect("the template");
    for n in 0..count {
        let (owner, name) = (owner(n), name(n));
        let time = 1_700_000_000_000 + i64::try_from(mix(n) % 60_000_000_000).expect("small");
        let pipeline = [
            "text-generation",
            "image-classification",
            "tabular-classification",
            "fill-mask",
        ][(mix(n + 9) % 4) as usize];
        tx.execute(
            "INSERT INTO repos (kind, owner, name, folded, created, updated, private, gated, head, likes, pipeline, library, license, card, formats)
             SELECT kind, ?2, ?3, ?4, ?5, ?5, ?6, gated, head, ?7, ?8, library, license, card, formats FROM repos WHERE id = ?1",
            params![from, owner, name, format!("{owner}/{name}"), time, mix(n + 1).is_multiple_of(50), i64::try_from(mix(n + 2) % 500).expect("small"), pipeline],
        )
        .expect("a repository");
        let id = tx.last_insert_rowid();
        for sql in [
            "INSERT INTO refs (repo, kind, name, oid, message) SELECT ?2, kind, name, oid, message FROM refs WHERE repo = ?1",
            "INSERT INTO commits (repo, oid, parent, tree, author, title, body, time) SELECT ?2, oid, parent, tree, author, title, body, time FROM commits WHERE repo = ?1",
            "INSERT INTO blob_refs (repo, sha256, committed, created) SELECT ?2, sha256, committed, created FROM blob_refs WHERE repo = ?1",
            "INSERT INTO tags (repo, tag) SELECT ?2, tag FROM tags WHERE repo = ?1",
        ] {
            tx.prepare_cached(sql)
                .expect(sql)
                .execute(params![from, id])
                .expect(sql);
        }
        for k in 0..3 {
            let tag = format!("topic-{}", mix(n * 7 + k) % 200);
            tx.execute(
                "INSERT INTO tags (repo, tag) VALUES (?1, ?2) ON CONFLICT (repo, tag) DO NOTHING",
                params![id, tag],
            )
            .expect("a tag");
        }
    }
    tx.commit().expect("all of it");
}

/// The n-th search: what people type, what pages ask, and what matches nothing.
fn search(n: u64, count: u64) -> String {
    let word = |k: u64| WORDS[(mix(n * 5 + k) % WORDS.len() as u64) as usize];
    let some = mix(n) % count;
    match n % 12 {
        0 => format!("search={}", word(0)),
        1 => format!("search={}+{}", word(0), word(1)),
        2 => format!("search={}", name(some)),
        3 => format!("search=no-such-model-{n}"),
        4 => format!("filter=topic-{}", mix(n) % 200),
        5 => format!("filter=topic-{}&filter=license:apache-2.0&sort=likes", mix(n) % 200),
        6 => format!("author={}", owner(some)),
        7 => "sort=likes&limit=20&full=true".into(),
        8 => format!("pipeline_tag=text-generation&search={}&sort=createdAt", word(0)),
        9 => format!("search={}&limit=30&cursor={}", word(0), mix(n) % 3_000),
        10 => format!("filter=topic-{}&search={}", mix(n) % 200, word(0)),
        _ => format!("search=-{some}"),
    }
}

pub(crate) async fn run(report: &mut Report) {
    let count = setting("OPG_BENCH_REPOS", 100_000);
    let dir =
        tempfile::tempdir_in(std::env::var_os("OPG_BENCH_DIR").unwrap_or_else(|| ".".into())).expect("a directory");
    let hub = Hub::start(dir.path()).await;
    let id = hub.create("template").await;
    let card = "---\nlicense: apache-2.0\nlibrary_name: onnx\npipeline_tag: tabular-classification\ntags:\n- demo\n---\n# A model\n";
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/fixtures");
    let model = std::fs::read(fixtures.join("digits/digits_mlp.onnx")).expect("the fixture");
    let file = |path: &str, content: &[u8]| json!({"key": "file", "value": {"path": path, "content": STANDARD.encode(content), "encoding": "base64"}});
    let lines = [
        json!({"key": "header", "value": {"summary": "model"}}),
        file("README.md", card.as_bytes()),
        file("config.json", br#"{"model_type": "digits"}"#),
        file("onnx/model.onnx", &model),
    ];
    hub.commit(&id, &lines).await;
    hub.stop();
    let start = Instant::now();
    fill(&dir.path().join("data/hub.sqlite"), &id, count);
    println!("{count} repositories in {:.1} s", start.elapsed().as_secs_f64());

    let hub = Hub::start(dir.path()).await;
    let get = async |path: String| -> (f64, serde_json::Value) {
        let start = Instant::now();
        let answer = hub
            .http
            .get(format!("{}{path}", hub.url))
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let bytes = answer.bytes().await.expect("a body");
        let took = start.elapsed().as_secs_f64() * 1e3;
        assert!(status.is_success(), "{path}: {status}");
        (took, serde_json::from_slice(&bytes).expect("JSON"))
    };
    // A hub that serves has its pages in memory; the first requests of each kind are not counted.
    for n in 0..24 {
        get(format!("/api/models?{}", search(n, count))).await;
    }
    let (mut times, mut hits) = (Vec::new(), 0);
    for n in 24..24 + SEARCHES {
        let (took, found) = get(format!("/api/models?{}", search(n, count))).await;
        hits += found.as_array().expect("a list").len();
        times.push(took);
    }
    assert!(hits as u64 > SEARCHES, "the searches find repositories: {hits}");
    report.times("search among 100,000 repositories", times, Some(Bar::AtMost(50.0)));
    let mut times = Vec::new();
    for n in 0..INFOS {
        let some = mix(n) % count;
        // One in fifty is private.
        if mix(some + 1).is_multiple_of(50) {
            continue;
        }
        let (took, info) = get(format!("/api/models/{}/{}", owner(some), name(some))).await;
        assert_eq!(info["siblings"].as_array().expect("files").len(), 3, "{info}");
        times.push(took);
    }
    report.times(
        "information about one of 100,000 repositories",
        times,
        Some(Bar::AtMost(5.0)),
    );
    report.value(
        "peak memory of the hub over searches",
        "MiB",
        hub.peak(),
        Some(Bar::AtMost(200.0)),
    );
    report.note(format!(
        "many: {count} repositories of {OWNERS} owners in one database; one came through the API, the others are copies of its rows under other \
         names, tags, likes and times; one client, one request after the other; searches by words, tags, author, sorting, pages, and without a match"
    ));
    hub.stop();
}
