//! The client's upload against a running hub: dedup, resume, one commit, conflicts.

mod common;

use common::{Place, on_all};
use opg_hub::{
    ModelHub,
    client::{ClientError, Folder, FolderError, Session, authorized},
    names::RepoName,
    siwe::Scope,
};
use secp256k1::SecretKey;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn gguf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/fixtures/tiny-llama/trained-Q8_0.gguf")
}

struct Hub {
    hub: ModelHub,
    key: SecretKey,
    name: RepoName,
    folder: PathBuf,
    dir: Place,
}

async fn start(dir: Place) -> Hub {
    let mut config = dir.config(dir.path().join("hub"));
    config.limits.part_bytes = 1 << 20;
    config.limits.file_bytes = 1 << 30;
    let hub = ModelHub::start(config).await.unwrap();
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(gguf(), folder.join("model.gguf")).unwrap();
    Hub {
        hub,
        key: SecretKey::from_byte_array(&[5; 32]).unwrap(),
        name: RepoName::new("maker", "tiny").unwrap(),
        folder,
        dir,
    }
}

async fn session(place: &Hub) -> Session {
    Session::open(
        reqwest::Client::new(),
        place.hub.url(),
        &place.key,
        Scope::Write,
        "test",
        1,
    )
    .await
    .unwrap()
}

async fn a_folder_becomes_one_commit_and_what_is_there_does_not_travel(place: Place) {
    let place = start(place).await;
    let size = std::fs::metadata(gguf()).unwrap().len();
    let session = session(&place).await;
    // The name `maker` is nobody's: it is claimed on the way.
    let folder = Folder::read(&place.folder).unwrap();
    let first = session.push(&place.name, &folder, "one").await.unwrap();
    assert!(
        !first.unchanged && first.sent > size && first.sent < size + 10_000,
        "{first:?}"
    );
    let again = session.push(&place.name, &folder, "two").await.unwrap();
    assert!(
        again.unchanged && again.revision == first.revision && again.sent == 0,
        "{again:?}"
    );
    // Under another name, with a new file beside it: only that travels.
    std::fs::write(place.folder.join("README.md"), "# Tiny\n").unwrap();
    let folder = Folder::read(&place.folder).unwrap();
    let other = RepoName::new("maker", "other").unwrap();
    let copied = session.push(&other, &folder, "copy").await.unwrap();
    assert!(copied.sent < 2_000, "{copied:?}");
    // A file that the folder has no more is not in the next version, and still in the first.
    std::fs::remove_file(place.folder.join("README.md")).unwrap();
    let folder = Folder::read(&place.folder).unwrap();
    session.push(&other, &folder, "less").await.unwrap();
    let at = |revision: &str| format!("{}/maker/other/resolve/{revision}/README.md", place.hub.url());
    assert_eq!(reqwest::get(at("main")).await.unwrap().status(), 404);
    assert_eq!(
        reqwest::get(at(&copied.revision)).await.unwrap().text().await.unwrap(),
        "# Tiny\n"
    );

    // Another model takes the place of the first: its root still leads to the revision that has it.
    let root = folder.model(None).unwrap().1;
    let mut bytes = std::fs::read(gguf()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(place.folder.join("model.gguf"), bytes).unwrap();
    let newer = Folder::read(&place.folder).unwrap();
    let moved = session.push(&other, &newer, "another model").await.unwrap();
    let ask = |query: String| reqwest::get(format!("{}/api/opg/models/maker/other/root{query}", place.hub.url()));
    let newest: Value = ask(String::new()).await.unwrap().json().await.unwrap();
    assert_eq!(newest["revision"], moved.revision);
    assert_ne!(newest["root"], root.to_string());
    let older: Value = ask(format!("?root={root}")).await.unwrap().json().await.unwrap();
    assert_eq!(
        (&older["root"], &older["file"]),
        (&json!(root.to_string()), &json!("model.gguf"))
    );
    assert_ne!(older["revision"], moved.revision);
    assert_eq!(ask(format!("?root={}", "11".repeat(32))).await.unwrap().status(), 404);
    assert_eq!(ask("?root=x".into()).await.unwrap().status(), 400);

    // One title in the card, twice the same, by the hub's reader.
    let marked = session
        .set_card(&other, "deprecated", "old", "Deprecate")
        .await
        .unwrap();
    assert!(!marked.unchanged);
    let same = session
        .set_card(&other, "deprecated", "old", "Deprecate")
        .await
        .unwrap();
    assert!(same.unchanged && same.revision == marked.revision);
    session.close().await.unwrap();

    // Somebody else may neither write there nor take the name.
    let mut place = place;
    place.key = SecretKey::from_byte_array(&[6; 32]).unwrap();
    let stranger = self::session(&place).await;
    let refused = stranger.push(&place.name, &folder, "mine").await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { status: 403 | 409, .. }),
        "{refused}"
    );
    let refused = stranger.delete(&place.name).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 403, .. }), "{refused}");
    place.hub.shutdown().await.unwrap();
}

async fn parts_that_arrived_before_the_upload_broke_off_are_not_sent_again(place: Place) {
    let place = start(place).await;
    let bytes = std::fs::read(gguf()).unwrap();
    let url = place.hub.url().to_owned();
    let http = reqwest::Client::new();
    // An upload that ends after its second part of four, which was damaged on the way.
    let token = opg_hub::client::sign_in(&http, &url, &place.key, Scope::Write, 1, "test", 1)
        .await
        .unwrap();
    let session = session(&place).await;
    let empty = place.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join("README.md"), "soon").unwrap();
    session
        .push(&place.name, &Folder::read(&empty).unwrap(), "begin")
        .await
        .unwrap();
    let folder = Folder::read(&place.folder).unwrap();
    let oid = hex::encode(folder.files["model.gguf"].blob.sha256);
    let batch = json!({"operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
        "objects": [{"oid": oid, "size": bytes.len()}]});
    let told: Value = http
        .post(format!("{url}/maker/tiny.git/info/lfs/objects/batch"))
        .bearer_auth(&token.token)
        .json(&batch)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let header = &told["objects"][0]["actions"]["upload"]["header"];
    let part = 1 << 20;
    let mut damaged = bytes[part..2 * part].to_vec();
    damaged[7] ^= 1;
    for (number, content) in [("1", bytes[..part].to_vec()), ("2", damaged)] {
        let link = header[number].as_str().unwrap();
        let sent = http.put(link).body(content).send().await.unwrap();
        assert_eq!(sent.status(), 200, "{number}");
    }
    // The first part is good and stays; the damaged one is sent again, with the rest.
    let pushed = session.push(&place.name, &folder, "whole").await.unwrap();
    let rest = (bytes.len() - part) as u64;
    assert!(
        pushed.sent >= rest && pushed.sent < rest + 10_000,
        "{pushed:?} of {rest}"
    );
    let whole = reqwest::get(format!("{url}/maker/tiny/resolve/main/model.gguf"))
        .await
        .unwrap();
    assert!(whole.bytes().await.unwrap() == bytes);
    place.hub.shutdown().await.unwrap();
}

async fn a_private_version_is_read_by_its_account_only(place: Place) {
    let mut place = start(place).await;
    let url = place.hub.url().to_owned();
    let folder = Folder::read(&place.folder).unwrap();
    let session = session(&place).await;
    session.create_private(&place.name).await.unwrap();
    session.push(&place.name, &folder, "one").await.unwrap();
    // Once more is no other thing; what is public stays it.
    session.create_private(&place.name).await.unwrap();
    let open = RepoName::new("maker", "open").unwrap();
    session.push(&open, &folder, "one").await.unwrap();
    let refused = session.create_private(&open).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Public { name } if name == "maker/open"),
        "{refused}"
    );

    let manifest = format!("{url}/api/opg/models/maker/tiny/manifest");
    let status = async |http: &reqwest::Client| http.get(&manifest).send().await.unwrap().status();
    let own = session.client().unwrap();
    assert_eq!(
        (status(&reqwest::Client::new()).await, status(&own).await),
        (reqwest::StatusCode::NOT_FOUND, reqwest::StatusCode::OK)
    );
    // A token that may only read is enough to read, and nobody else's is.
    let reader = Session::open(reqwest::Client::new(), &url, &place.key, Scope::Read, "test", 1);
    let reader = reader.await.unwrap();
    assert_eq!(status(&reader.client().unwrap()).await, 200);
    let refused = reader.push(&open, &folder, "two").await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 403, .. }), "{refused}");
    let closed = reader.client().unwrap();
    reader.close().await.unwrap();
    assert_eq!(status(&closed).await, 401);
    place.key = SecretKey::from_byte_array(&[6; 32]).unwrap();
    let stranger = Session::open(reqwest::Client::new(), &url, &place.key, Scope::Read, "test", 1);
    assert_eq!(status(&stranger.await.unwrap().client().unwrap()).await, 404);
    assert!(matches!(authorized("a\nb"), Err(ClientError::Token)));
    place.hub.shutdown().await.unwrap();
}

#[test]
fn which_file_is_the_model_is_never_guessed() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.gguf", "b.gguf"] {
        std::fs::copy(gguf(), dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("c.gguf"), "no model").unwrap();
    std::fs::write(dir.path().join("d.txt"), "text").unwrap();
    let folder = Folder::read(dir.path()).unwrap();
    let said = |file: Option<&str>| match folder.model(file) {
        Err(FolderError::Model(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(said(None).contains("a.gguf, b.gguf"));
    assert!(said(Some("c.gguf")).starts_with("c.gguf: "));
    assert!(said(Some("d.txt")).contains("ONNX and GGUF"));
    assert!(said(Some("e.gguf")).contains("no file"));
    assert_eq!(folder.model(Some("b.gguf")).unwrap().0, "b.gguf");
}

#[test]
fn the_licence_is_that_of_the_card() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "text").unwrap();
    let of = |card: &str| {
        std::fs::write(dir.path().join("README.md"), card).unwrap();
        Folder::read(dir.path()).unwrap().license()
    };
    assert_eq!(
        of("---\nlicense: apache-2.0\n---\n# Hi\n").as_deref(),
        Some("apache-2.0")
    );
    for card in [
        "",
        "# Hi\n",
        "---\ntags: [a]\n---\n",
        "---\nlicense: [a, b]\n---\n",
        "---\n*a\n---\n",
    ] {
        assert_eq!(of(card), None, "{card:?}");
    }
    let mut folder = Folder::read(dir.path()).unwrap();
    std::fs::remove_file(dir.path().join("README.md")).unwrap();
    assert!(folder.set_card("license", "mit").is_err());
    folder = Folder::read(dir.path()).unwrap();
    folder.set_card("license", "mit").unwrap();
    assert_eq!(folder.license().as_deref(), Some("mit"));
}

on_all!(
    a_folder_becomes_one_commit_and_what_is_there_does_not_travel,
    parts_that_arrived_before_the_upload_broke_off_are_not_sent_again,
    a_private_version_is_read_by_its_account_only,
);
