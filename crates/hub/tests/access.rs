//! Private and gated repositories over HTTP: what docs/hub.md says, and that refusals name the call that helps.

mod common;

use common::{Hub, answer, file, header};
use opg_hub::siwe::Scope;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_call_that_asks_for_access() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "");
    let owner = hub.token(7, Scope::Write).await;
    let other = hub.token(8, Scope::Read).await;
    let id = hub.create(&owner.token, "digits").await;
    let (status, _) = hub
        .commit(&owner.token, &id, &[header("one"), file("a.txt", b"a")])
        .await;
    assert_eq!(status, 200);
    let settings = hub.http.put(hub.at(&format!("/api/models/{id}/settings")));
    let gated = settings.bearer_auth(&owner.token).json(&json!({"gated": "manual"}));
    assert_eq!(answer(gated).await, (200, json!({"gated": "manual", "private": false})));

    let path = format!("/{id}/resolve/main/a.txt");
    let said = |answer: &Value| answer["error"]["message"].as_str().unwrap().to_owned();
    let (status, refused) = hub.get(None, &path).await;
    assert_eq!((status, &refused["error"]["code"]), (401, &json!("GatedRepo")));
    assert!(said(&refused).contains(&format!("POST /{id}/ask-access")), "{refused}");
    let (status, refused) = hub.get(Some(&other.token), &path).await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("GatedRepo")));
    // The call stands in the message as it has to be made.
    let message = said(&refused);
    let call = message.split_once("POST ").unwrap().1;
    let call = call.split([',', ' ']).next().unwrap();
    let asked = hub.post(&other.token, call, Value::Null).await;
    assert_eq!(asked, (200, json!({"status": "pending"})));
    let (_, refused) = hub.get(Some(&other.token), &path).await;
    assert!(said(&refused).contains("waits for its owner"), "{refused}");

    let requests = format!("/api/models/{id}/user-access-request");
    let (_, pending) = hub.get(Some(&owner.token), &format!("{requests}/pending")).await;
    assert_eq!(pending[0]["user"]["user"], other.address, "{pending}");
    let decision = json!({"user": other.address, "status": "accepted"});
    let (status, done) = hub.post(&owner.token, &format!("{requests}/handle"), decision).await;
    assert_eq!(status, 200, "{done}");
    let file = hub
        .http
        .get(hub.at(&path))
        .bearer_auth(&other.token)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (file.status().as_u16(), file.text().await.unwrap().as_str()),
        (200, "a")
    );

    // Moved, it is there under both names, and its refusals name the new one.
    let moved = json!({"fromRepo": id, "toRepo": format!("{}/numerals", owner.address)});
    assert_eq!(hub.post(&owner.token, "/api/repos/move", moved).await.0, 200);
    let (_, refused) = hub.get(None, &path).await;
    assert!(
        said(&refused).contains(&format!("POST /{}/numerals/ask-access", owner.address)),
        "{refused}"
    );
}
