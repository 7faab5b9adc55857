//! What an account may store: the same over all its name spaces, in whatever way bytes come.

mod common;

use common::{Hub, Place, answer, file, header, on_all};
use opg_hub::{blobs::describe, siwe::Scope};
use serde_json::{Value, json};

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut reader = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

/// The upload link of content, or the refusal.
async fn link(hub: &Hub, token: &str, id: &str, content: &[u8]) -> Result<String, (u16, Value)> {
    let oid = hex::encode(describe(content).sha256);
    let (status, object) = hub.batch(token, id, (&oid, content.len() as u64), &["basic"]).await;
    match object["actions"]["upload"]["href"].as_str() {
        Some(href) if status == 200 => Ok(href.to_owned()),
        _ => Err((status, object)),
    }
}

async fn put(hub: &Hub, link: String, content: Vec<u8>) -> (u16, Value) {
    answer(hub.http.put(link).body(content)).await
}

async fn usage(hub: &Hub, token: &str) -> Value {
    hub.get(Some(token), "/api/opg/usage").await.1
}

/// A limit of a million bytes, whichever way they come: announced, begun together, in a commit, in another name space.
async fn bytes_are_bounded_for_an_account(dir: Place) {
    let hub = Hub::start(dir.path(), "owner_bytes = 1000000");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "one").await;
    let (a, b, c) = (noise(1, 600_000), noise(2, 300_000), noise(3, 300_000));
    let first = link(&hub, &token, &id, &a).await.unwrap();
    assert_eq!(put(&hub, first, a.clone()).await.0, 200);
    assert_eq!(usage(&hub, &token).await["bytes"], 600_000);

    // Too much in one request: refused before a byte is sent.
    let (status, refusal) = link(&hub, &token, &id, &noise(9, 400_001)).await.unwrap_err();
    assert_eq!(
        (status, &refusal["error"]["code"]),
        (507, &json!("QuotaReached")),
        "{refusal}"
    );
    assert!(
        refusal.to_string().contains("600000") && refusal.to_string().contains("1000000"),
        "{refusal}"
    );

    // Two uploads that were allowed each for itself: the second is refused when it ends, and nothing of it stays.
    let (one, two) = (
        link(&hub, &token, &id, &b).await.unwrap(),
        link(&hub, &token, &id, &c).await.unwrap(),
    );
    assert_eq!(put(&hub, one, b.clone()).await.0, 200);
    let (status, refusal) = put(&hub, two, c.clone()).await;
    assert_eq!(
        (status, &refusal["error"]["code"]),
        (507, &json!("QuotaReached")),
        "{refusal}"
    );
    assert_eq!(usage(&hub, &token).await["bytes"], 900_000);

    // The same content again costs nothing, here or in an organisation of the account.
    let (status, _) = hub.post(&token, "/api/opg/organizations/quota-club", Value::Null).await;
    assert_ne!(status, 200);
    let found = hub
        .http
        .put(hub.at("/api/opg/organizations/quota-club"))
        .bearer_auth(&token);
    assert_eq!(answer(found).await.0, 200);
    let token = hub.token(1, Scope::Write).await.token;
    let club = hub.create(&token, "quota-club/two").await;
    let oid = hex::encode(describe(&a).sha256);
    let (status, answered) = hub
        .commit(&token, &club, &[header("same"), common::large("a.bin", &oid, a.len())])
        .await;
    assert_eq!(status, 200, "{answered}");
    assert_eq!(usage(&hub, &token).await["bytes"], 900_000);
    // But the organisation has no bytes of its own.
    assert_eq!(link(&hub, &token, &club, &c).await.unwrap_err().0, 507);
    // Nor does a commit bring them in, and the branch stays where it is.
    let lines = [header("inside"), file("c.bin", &c)];
    let before = hub.get(None, &format!("/api/models/{club}")).await.1["sha"].clone();
    let (status, refusal) = hub.commit(&token, &club, &lines).await;
    assert_eq!(
        (status, &refusal["error"]["code"]),
        (507, &json!("QuotaReached")),
        "{refusal}"
    );
    assert_eq!(hub.get(None, &format!("/api/models/{club}")).await.1["sha"], before);

    // Another account has its own.
    let other = hub.token(2, Scope::Write).await.token;
    let theirs = hub.create(&other, "one").await;
    let free = link(&hub, &other, &theirs, &c).await.unwrap();
    assert_eq!(put(&hub, free, c).await.0, 200);
    let metrics = hub.metrics().await;
    assert!(metrics.contains("opg_hub_quota_refusals_total 4"), "{metrics}");
}

async fn repositories_are_bounded_for_an_account_and_some_have_more(dir: Place) {
    let secret = secp256k1::SecretKey::from_byte_array(&[2; 32]).unwrap();
    let rich = opg_hub::siwe::address_of(&secret.public_key(secp256k1::SECP256K1))
        .to_string()
        .to_lowercase();
    let limits = format!("owner_repos = 2\n[quotas.\"{rich}\"]\nrepos = 3\nbytes = 50000");
    let hub = Hub::start(dir.path(), &limits);
    let create = async |token: &str, name: &str, kind: &str| {
        hub.post(token, "/api/repos/create", json!({"name": name, "type": kind}))
            .await
    };
    let token = hub.token(1, Scope::Write).await.token;
    assert_eq!(create(&token, "one", "model").await.0, 200);
    // Models and datasets count together.
    assert_eq!(create(&token, "one", "dataset").await.0, 200);
    let (status, refusal) = create(&token, "two", "model").await;
    assert_eq!(
        (status, &refusal["error"]["code"]),
        (507, &json!("QuotaReached")),
        "{refusal}"
    );
    assert!(refusal.to_string().contains("has 2 repositories"), "{refusal}");
    assert_eq!(usage(&hub, &token).await["repositories"], 2);
    // What is there already is still said to be there.
    assert_eq!(create(&token, "one", "model").await.0, 409);
    // An organisation is no way around, and neither is moving a repository to somebody who is full.
    let found = hub
        .http
        .put(hub.at("/api/opg/organizations/full-club"))
        .bearer_auth(&token);
    assert_eq!(answer(found).await.0, 200);
    let token = hub.token(1, Scope::Write).await.token;
    assert_eq!(create(&token, "full-club/three", "model").await.0, 507);

    let other = hub.token(2, Scope::Write).await;
    assert_eq!(other.address.to_lowercase(), rich);
    for name in ["one", "two", "three"] {
        assert_eq!(create(&other.token, name, "model").await.0, 200, "{name}");
    }
    assert_eq!(create(&other.token, "four", "model").await.0, 507);
    assert_eq!(usage(&hub, &other.token).await["bytesAllowed"], 50_000);
    let join = hub
        .http
        .put(hub.at(&format!("/api/opg/organizations/full-club/members/{}", other.address)))
        .bearer_auth(&token)
        .json(&json!({"role": "write"}));
    assert_eq!(answer(join).await.0, 200);
    let member = hub.token(2, Scope::Write).await.token;
    let from = format!("{}/three", other.address.to_lowercase());
    let body = json!({"fromRepo": from, "toRepo": "full-club/three", "type": "model"});
    let (status, refusal) = hub.post(&member, "/api/repos/move", body).await;
    assert_eq!(
        (status, &refusal["error"]["code"]),
        (507, &json!("QuotaReached")),
        "{refusal}"
    );
    assert_eq!(
        hub.get(None, &format!("/api/models/{from}")).await.1["id"],
        from.as_str()
    );
}

on_all!(
    bytes_are_bounded_for_an_account,
    repositories_are_bounded_for_an_account_and_some_have_more
);
