//! Requests that nobody honest sends: each gets a clear refusal, and nothing half-written stays.

mod common;

use common::{Hub, Place, answer, file, header, large, model, on_all};
use opg_hub::{
    blobs::describe,
    client,
    siwe::{Message, Scope, address_of},
};
use opg_models::{Format, Manifest, ManifestVersion};
use secp256k1::{SECP256K1, SecretKey};
use serde_json::{Value, json};

/// One hub with a repository.
async fn hub(dir: Place, limits: &str) -> (Place, Hub, String, String) {
    let hub = Hub::start(dir.path(), limits);
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "repo").await;
    (dir, hub, token, id)
}

/// An upload link for content.
async fn link(hub: &Hub, token: &str, id: &str, oid: &str, size: usize) -> Value {
    let (status, object) = hub.batch(token, id, (oid, size as u64), &["basic", "multipart"]).await;
    assert_eq!(status, 200, "{object}");
    object
}

async fn uploads_that_are_not_what_they_claim_are_dropped(place: Place) {
    let (dir, hub, token, id) = hub(place, "").await;
    let content = vec![7u8; 300_000];
    let oid = hex::encode(describe(&content).sha256);
    let object = link(&hub, &token, &id, &oid, content.len()).await;
    let url = object["actions"]["upload"]["href"].as_str().unwrap().to_owned();
    let put = |url: String, body: Vec<u8>| answer(hub.http.put(url).body(body));
    let mut wrong = content.clone();
    wrong[123_456] ^= 1;
    assert_eq!(put(url.clone(), wrong).await.1["error"]["code"], "HashMismatch");
    assert_eq!(
        put(url.clone(), content[1..].to_vec()).await.1["error"]["code"],
        "SizeMismatch"
    );
    assert_eq!(
        put(url.clone(), [content.as_slice(), &[1]].concat()).await.1["error"]["code"],
        "SizeMismatch"
    );
    // The link is for one object, size, repository and time.
    for (from, to) in [
        ("size=300000", "size=300001"),
        ("expires=1", "expires=9"),
        ("/lfs/1/", "/lfs/2/"),
        ("signature=", "signature=0"),
    ] {
        let forged = url.replacen(from, to, 1);
        assert_ne!(forged, url);
        assert_eq!(put(forged, content.clone()).await.0, 403, "{from}");
    }
    // A client that leaves half way.
    let host = url.strip_prefix("http://").unwrap();
    let (address, path) = host.split_once('/').unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("PUT /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes())
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, &content[..150_000])
        .await
        .unwrap();
    drop(socket);
    // Nothing of all that can be committed, and nothing lies about.
    let lines = [header("x"), large("a.bin", &oid, content.len())];
    assert_eq!(hub.commit(&token, &id, &lines).await.1["error"]["code"], "BlobMissing");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(std::fs::read_dir(dir.path().join("data/incoming")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.blobs()).map_or(0, |entries| entries.count()), 0);
    // The right bytes are taken.
    assert_eq!(put(url, content.clone()).await.0, 200);
    assert_eq!(hub.commit(&token, &id, &lines).await.0, 200);
    assert_eq!(hub.bytes(&id, "main", "a.bin").await, (200, content));
}

async fn parts_are_checked_as_a_whole(place: Place) {
    let (dir, hub, token, id) = hub(place, "part_bytes = 1048576\nfile_bytes = 104857600").await;
    let content: Vec<u8> = (0..2_500_000u32).map(|n| (n % 251) as u8).collect();
    let oid = hex::encode(describe(&content).sha256);
    let object = link(&hub, &token, &id, &oid, content.len()).await;
    let upload = &object["actions"]["upload"];
    let complete = upload["href"].as_str().unwrap();
    assert_eq!(upload["header"]["chunk_size"], "1048576");
    let mut tags = Vec::new();
    for (n, part) in content.chunks(1 << 20).enumerate() {
        let url = upload["header"][(n + 1).to_string()].as_str().unwrap();
        let mut part = part.to_vec();
        if n == 1 {
            part[5] ^= 1;
        }
        let response = hub.http.put(url).body(part).send().await.unwrap();
        assert_eq!(response.status(), 200);
        tags.push(response.headers()["etag"].to_str().unwrap().to_owned());
    }
    let finish =
        async |parts: Vec<Value>| answer(hub.http.post(complete).json(&json!({"oid": oid, "parts": parts}))).await;
    let listed = |tags: &[String]| -> Vec<Value> {
        tags.iter()
            .zip(1..)
            .map(|(tag, n)| json!({"partNumber": n, "etag": tag}))
            .collect()
    };
    assert_eq!(finish(listed(&tags[..2])).await.1["error"]["code"], "MissingPart");
    assert_eq!(finish(listed(&tags)).await.1["error"]["code"], "HashMismatch");
    // After a failed check the upload begins again.
    assert_eq!(finish(listed(&tags)).await.1["error"]["code"], "UploadNotFound");
    let url = upload["header"]["3"].as_str().unwrap();
    assert_eq!(
        answer(hub.http.put(url).body(vec![0; 5])).await.1["error"]["code"],
        "SizeMismatch"
    );
    tags.clear();
    for (n, part) in content.chunks(1 << 20).enumerate().rev() {
        let url = upload["header"][(n + 1).to_string()].as_str().unwrap();
        let response = hub.http.put(url).body(part.to_vec()).send().await.unwrap();
        tags.insert(0, response.headers()["etag"].to_str().unwrap().to_owned());
    }
    assert_eq!(finish(listed(&tags)).await.0, 200);
    assert_eq!(finish(listed(&tags)).await.0, 200);
    assert_eq!(
        hub.commit(&token, &id, &[header("x"), large("big.bin", &oid, content.len())])
            .await
            .0,
        200
    );
    assert_eq!(hub.bytes(&id, "main", "big.bin").await.1, content);
    assert_eq!(std::fs::read_dir(dir.path().join("data/incoming")).unwrap().count(), 0);
}

async fn hostile_commits_change_nothing(place: Place) {
    let (_dir, hub, token, id) = hub(
        place,
        "commit_operations = 50\nregular_bytes = 100000\nlarge_bytes = 50000\ncommit_bytes = 1000000",
    )
    .await;
    let (status, first) = hub
        .commit(
            &token,
            &id,
            &[header("one"), file("dir/a.txt", b"a"), file("B.txt", b"b")],
        )
        .await;
    assert_eq!(status, 200, "{first}");
    let head = first["commitOid"].as_str().unwrap().to_owned();
    let path = |path: &str| vec![header("x"), file(path, b"x")];
    let symlink = json!({"key": "symlink", "value": {"path": "l", "target": "/etc/passwd"}});
    let many: Vec<Value> = std::iter::once(header("x"))
        .chain((0..60).map(|n| file(&format!("{n}"), b"")))
        .collect();
    let cases: Vec<(&str, Vec<Value>, u16)> = vec![
        ("no header", vec![file("x", b"x")], 400),
        ("two headers", vec![header("x"), header("y")], 400),
        ("empty title", vec![header(" "), file("x", b"x")], 400),
        ("traversal", path("../x"), 400),
        ("traversal inside", path("a/../../x"), 400),
        ("absolute", path("/etc/x"), 400),
        ("git", path(".git/config"), 400),
        ("bidirectional", path("a\u{202e}b"), 400),
        ("zero width", path("a\u{200b}b"), 400),
        ("not normalised", path("e\u{301}"), 400),
        ("nul", path("a\0b"), 400),
        ("a file under a file", path("B.txt/x"), 400),
        ("a file over a directory", path("dir"), 400),
        ("case only", path("b.TXT"), 400),
        ("too long", path(&"x".repeat(300)), 400),
        ("symbolic link", vec![header("x"), symlink], 400),
        (
            "not base64",
            vec![
                header("x"),
                json!({"key": "file", "value": {"path": "x", "content": "%%", "encoding": "base64"}}),
            ],
            400,
        ),
        ("oid too short", vec![header("x"), large("x", "abc", 3)], 400),
        ("unknown oid", vec![header("x"), large("x", &"0".repeat(64), 3)], 400),
        (
            "too large a file",
            vec![header("x"), file("x", &vec![b'x'; 100_001])],
            413,
        ),
        (
            "too large a line",
            vec![header("x"), file("x", &vec![b'x'; 400_000])],
            413,
        ),
        (
            "too large a commit",
            std::iter::once(header("x"))
                .chain((0..12).map(|n| file(&format!("{n}"), &vec![b'x'; 90_000])))
                .collect(),
            413,
        ),
        ("too many operations", many, 413),
        (
            "delete what is not there",
            vec![header("x"), json!({"key": "deletedFile", "value": {"path": "none"}})],
            404,
        ),
        (
            "good, then bad",
            vec![header("x"), file("good.txt", b"x"), file("..", b"x")],
            400,
        ),
    ];
    for (name, lines, expected) in cases {
        let (status, answer) = hub.commit(&token, &id, &lines).await;
        assert_eq!(status, expected, "{name}: {answer}");
        assert!(
            answer["error"]["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{name}"
        );
    }
    let raw = hub
        .http
        .post(hub.at(&format!("/api/models/{id}/commit/main")))
        .bearer_auth(&token);
    assert_eq!(answer(raw.body("[".repeat(100_000))).await.0, 400);
    let (_, info) = hub.get(None, &format!("/api/models/{id}")).await;
    assert_eq!(info["sha"], head.as_str());
    assert_eq!(info["siblings"].as_array().unwrap().len(), 2);
}

async fn paths_cannot_leave_the_hub(place: Place) {
    let (_dir, hub, token, id) = hub(place, "").await;
    hub.commit(
        &token,
        &id,
        &[header("x"), file("a.html", b"<script>alert(1)</script>")],
    )
    .await;
    for path in [
        format!("/{id}/resolve/main/../../../hub.toml"),
        format!("/{id}/resolve/main/%2e%2e/%2e%2e/hub.toml"),
        format!("/{id}/resolve/main/..%2f..%2fhub.toml"),
        format!("/{id}/resolve/main/%00"),
        format!("/{id}/resolve/%2e%2e/a.html"),
        format!("/{id}/raw/main/..%5c..%5chub.toml"),
        "/%2e%2e/%2e%2e/resolve/main/x".into(),
        "/api/models/..%2f..%2fetc/passwd".into(),
    ] {
        let status = hub.http.get(hub.at(&path)).send().await.unwrap().status().as_u16();
        assert!(status == 404 || status == 400, "{path}: {status}");
    }
    // A page in a repository is never shown as one of the hub.
    let response = hub
        .http
        .get(hub.at(&format!("/{id}/resolve/main/a.html")))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert!(
        response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("sandbox")
    );
}

async fn sign_in_is_for_this_hub_once(place: Place) {
    let (place, hub, _, _) = hub(place, "").await;
    let key = SecretKey::from_byte_array(&[9; 32]).unwrap();
    let nonce = async || -> Value { answer(hub.http.post(hub.at("/api/opg/auth/nonce"))).await.1 };
    let good = |nonce: &Value| Message {
        domain: nonce["domain"].as_str().unwrap().into(),
        address: address_of(&key.public_key(SECP256K1)),
        uri: hub.url.clone(),
        chain_id: 1,
        nonce: nonce["nonce"].as_str().unwrap().into(),
        issued_at: now(0),
        expires_at: now(86_400),
        scope: Scope::Write,
    };
    let send = async |message: &Message, signer: &SecretKey| {
        let body = json!({"message": message.to_string(), "signature": hex::encode(message.sign(signer))});
        answer(hub.http.post(hub.at("/api/opg/auth/token")).json(&body)).await
    };
    let given = nonce().await;
    let mut other = good(&given);
    other.domain = "evil.example".into();
    assert_eq!(send(&other, &key).await.0, 400);
    for (issued, expires) in [(-3600, 86_400), (3600, 86_400), (0, -1), (0, 400 * 86_400)] {
        let mut late = good(&given);
        (late.issued_at, late.expires_at) = (now(issued), now(expires));
        assert_eq!(send(&late, &key).await.0, 400, "{issued} {expires}");
    }
    // Another key's signature does not use up the nonce.
    assert_eq!(
        send(&good(&given), &SecretKey::from_byte_array(&[8; 32]).unwrap())
            .await
            .0,
        401
    );
    let message = good(&given);
    let (status, token) = send(&message, &key).await;
    assert_eq!(status, 200, "{token}");
    assert_eq!(send(&message, &key).await.0, 401);
    let mut invented = good(&given);
    invented.nonce = "00".repeat(16);
    assert_eq!(send(&invented, &key).await.0, 401);
    // Revoked is revoked.
    let secret = token["token"].as_str().unwrap();
    assert_eq!(hub.get(Some(secret), "/api/whoami-v2").await.0, 200);
    let url = hub.at(&format!("/api/opg/tokens/{}", token["id"].as_str().unwrap()));
    assert_eq!(answer(hub.http.delete(url).bearer_auth(secret)).await.0, 200);
    assert_eq!(hub.get(Some(secret), "/api/whoami-v2").await.0, 401);
    // The database holds no token.
    assert!(place.holds(token["id"].as_str().unwrap().as_bytes()) && !place.holds(secret.as_bytes()));
}

fn now(offset: i64) -> String {
    use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
    (OffsetDateTime::now_utc() + Duration::seconds(offset))
        .format(&Rfc3339)
        .unwrap()
}

async fn rates_and_names_are_bounded(place: Place) {
    let (_dir, hub, token, id) = hub(place, "anonymous_requests = 20\naccount_requests = 100").await;
    let other = hub.token(2, Scope::Write).await;
    let mut last = 200;
    for _ in 0..40 {
        last = hub.get(None, &format!("/api/models/{id}")).await.0;
    }
    assert_eq!(last, 429);
    // A proven account has its own rate.
    assert_eq!(hub.get(Some(&token), &format!("/api/models/{id}")).await.0, 200);
    let put = |path: &str, token: &str| answer(hub.http.put(hub.at(path)).bearer_auth(token).json(&json!({})));
    assert_eq!(put("/api/opg/names/api", &token).await.0, 400);
    assert_eq!(put("/api/opg/names/alice", &token).await.0, 200);
    assert_eq!(put("/api/opg/names/second", &token).await.0, 403);
    assert_eq!(put("/api/opg/names/alice", &other.token).await.0, 409);
    assert_eq!(put("/api/opg/organizations/lab", &token).await.0, 200);
    let (status, _) = hub
        .post(
            &other.token,
            "/api/repos/create",
            json!({"name": "x", "organization": "lab"}),
        )
        .await;
    assert_eq!(status, 403);
    let member = format!("/api/opg/organizations/lab/members/{}", other.address);
    let add = hub.http.put(hub.at(&member)).json(&json!({"role": "write"}));
    assert_eq!(answer(add.try_clone().unwrap().bearer_auth(&other.token)).await.0, 403);
    assert_eq!(answer(add.bearer_auth(&token)).await.0, 200);
    let (status, made) = hub
        .post(
            &other.token,
            "/api/repos/create",
            json!({"name": "x", "organization": "lab"}),
        )
        .await;
    assert_eq!((status, made["name"].as_str()), (200, Some("lab/x")));
    // Writers do not delete.
    let body = json!({"name": "x", "organization": "lab"});
    let delete = hub.http.delete(hub.at("/api/repos/delete")).json(&body);
    assert_eq!(answer(delete.bearer_auth(&other.token)).await.0, 403);
    let (_, me) = hub.get(Some(&token), "/api/whoami-v2").await;
    assert_eq!(
        (me["name"].as_str(), me["orgs"][0]["name"].as_str()),
        (Some("alice"), Some("lab"))
    );
}

async fn a_changed_byte_on_disk_is_noticed(place: Place) {
    let (dir, hub, token, id) = hub(place, "").await;
    let content = model();
    let blob = describe(&content);
    let oid = hub.upload(&token, &id, &content).await;
    hub.commit(&token, &id, &[header("x"), large("tiny.gguf", &oid, content.len())])
        .await;
    // The hub names the model as the network does.
    let expected = Manifest::single(ManifestVersion::NEWEST, Format::Gguf, &content)
        .root()
        .unwrap();
    let (_, root) = hub.get(None, &format!("/api/opg/models/{id}/root")).await;
    assert_eq!(root["root"], expected.to_string());
    let manifest = hex::decode(root["manifest_cbor"].as_str().unwrap()).unwrap();
    assert_eq!(Manifest::decode(&manifest).unwrap().root().unwrap(), expected);
    let (_, manifest) = hub.get(None, &format!("/api/opg/models/{id}/manifest")).await;
    assert_eq!(manifest["files"][0]["blake3"], hex::encode(blob.blake3));
    assert_eq!(manifest["files"][0]["git_sha1"], hex::encode(blob.git));
    let url = hub.at(&format!("/{id}/resolve/main/tiny.gguf"));
    let name = async |url: &str| {
        let head = hub.http.head(url).send().await.unwrap();
        assert_eq!(head.status(), 200);
        head.headers()
            .get("x-opg-root")
            .map(|root| root.to_str().unwrap().to_owned())
    };
    assert_eq!(name(&url).await, Some(expected.to_string()));
    // Not a file that the network would refuse.
    let broken = [header("x"), file("broken.gguf", &content[..100])];
    assert_eq!(hub.commit(&token, &id, &broken).await.0, 200);
    assert_eq!(name(&hub.at(&format!("/{id}/resolve/main/broken.gguf"))).await, None);
    let to = dir.path().join("got.gguf");
    client::download(&hub.http, &url, None, Format::Gguf, expected, &to)
        .await
        .unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), content);
    std::fs::remove_file(&to).unwrap();

    let stored = dir.blobs().join(&oid[..2]).join(&oid[2..4]).join(&oid);
    let mut damaged = content.clone();
    damaged[2_000_000] ^= 1;
    std::fs::remove_file(&stored).unwrap();
    std::fs::write(&stored, &damaged).unwrap();
    // The hub breaks the download off instead of ending it.
    assert!(hub.http.get(&url).send().await.unwrap().bytes().await.is_err());
    // So with a part that has the byte; of one that has not, nothing is wrong.
    let part = async |first: usize, last: usize| {
        let request = hub.http.get(&url).header("range", format!("bytes={first}-{last}"));
        // The connection may end before the head of the answer is out.
        let response = request.send().await?;
        assert_eq!(response.status(), 206);
        response.bytes().await
    };
    assert!(part(1_999_000, 2_001_000).await.is_err());
    assert!(part(2_000_000, 2_000_000).await.is_err());
    assert_eq!(
        part(1_000_001, 1_900_002).await.unwrap(),
        content[1_000_001..=1_900_002]
    );
    assert_eq!(
        part(2_100_000, 2_100_000).await.unwrap(),
        content[2_100_000..=2_100_000]
    );
    // A hub that serves the wrong byte is caught by the client.
    let liar = axum::Router::new().fallback(move || async move { damaged });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lie = format!("http://{}/x", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, liar).await });
    let result = client::download(&hub.http, &lie, None, Format::Gguf, expected, &to).await;
    assert!(matches!(result, Err(client::ClientError::Root { .. })), "{result:?}");
    assert!(!to.exists());
}

on_all!(
    uploads_that_are_not_what_they_claim_are_dropped,
    parts_are_checked_as_a_whole,
    hostile_commits_change_nothing,
    paths_cannot_leave_the_hub,
    sign_in_is_for_this_hub_once,
    rates_and_names_are_bounded,
    a_changed_byte_on_disk_is_noticed,
);
