//! What is particular to a hub with its metadata in PostgreSQL: one hub to a database, a server that goes away, and texts
//! that it cannot hold.

mod common;

use common::{Hub, Place, file, header};
use opg_hub::{
    DbError, HubError, ModelHub,
    backup::{BackupError, backup, restore},
    config::HubConfig,
    siwe::Scope,
};
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn config(place: &Place) -> HubConfig {
    HubConfig::load(&place.path().join("hub.toml")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_has_one_hub() {
    let Some(place) = Place::postgres() else { return };
    let hub = Hub::start(place.path(), "");
    let other = place.config(place.path().join("elsewhere"));
    let began = Instant::now();
    let refused = ModelHub::start(other.clone()).await.unwrap_err();
    assert!(
        matches!(refused, HubError::Database(DbError::Taken { .. })),
        "{refused}"
    );
    assert!(refused.to_string().contains("in use by another hub"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(20));
    // One that was killed leaves no lock behind.
    hub.kill();
    let second = ModelHub::start(other.clone()).await.unwrap();
    second.shutdown().await.unwrap();
    // And one that ended none for a moment.
    let pool = place.postgres.as_ref().unwrap();
    assert_eq!(
        pool.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            .await,
        "0"
    );
    // Hubs share a database in schemas of their own.
    pool.query("CREATE SCHEMA second").await;
    let third = ModelHub::start(other.clone()).await.unwrap();
    let mut beside = place.config(place.path().join("beside"));
    if let Some(database) = &mut beside.database {
        database.url.0.push_str("?options=-c%20search_path%3Dsecond");
    }
    let fourth = ModelHub::start(beside).await.unwrap();
    third.shutdown().await.unwrap();
    fourth.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_loses_nothing_and_is_found_again() {
    let Some(mut place) = Place::postgres() else { return };
    let hub = Arc::new(Hub::start(place.path(), ""));
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "kept").await;
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    let (mut unavailable, mut round) = (0, 0);
    for signal in ["QUIT", "INT", "QUIT"] {
        let work = tokio::spawn({
            let (hub, token, id) = (Arc::clone(&hub), token.clone(), id.clone());
            async move {
                let (mut done, mut failed) = (Vec::new(), 0);
                let end = Instant::now() + Duration::from_secs(3);
                let mut n = 0;
                while Instant::now() < end {
                    let path = format!("r{round}/{n}.txt");
                    let (status, answer) = hub
                        .commit(&token, &id, &[header("x"), file(&path, path.as_bytes())])
                        .await;
                    match status {
                        200 => done.push((answer["commitOid"].as_str().unwrap().to_owned(), path)),
                        503 => {
                            assert_eq!(answer["error"]["code"], "DatabaseUnavailable", "{answer}");
                            failed += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        other => panic!("{other} {answer}"),
                    }
                    n += 1;
                }
                (done, failed)
            }
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        let server = place.postgres.as_mut().unwrap();
        server.end(signal);
        tokio::time::sleep(Duration::from_millis(300)).await;
        // While the server is away the hub says so, and lives.
        assert_eq!(hub.get(None, "/health").await.0, 503);
        let metrics = hub.http.get(hub.at("/metrics")).send().await.unwrap();
        assert_eq!(metrics.status(), 200);
        assert!(server.run());
        let (done, failed) = work.await.unwrap();
        assert!(!done.is_empty());
        // The last ones were made after the server had come back.
        acknowledged.extend(done);
        unavailable += failed;
        round += 1;
        assert_eq!(hub.get(None, "/health").await.0, 200);
    }
    assert!(unavailable > 0);
    let metrics = hub.metrics().await;
    assert!(
        metrics.contains("opg_hub_unavailable_total{part=\"database\"}"),
        "{metrics}"
    );
    for (commit, path) in &acknowledged {
        assert_eq!(hub.bytes(&id, commit, path).await, (200, path.clone().into_bytes()));
        assert_eq!(hub.bytes(&id, "main", path).await, (200, path.clone().into_bytes()));
    }
    // A session that is ended alone is replaced without anybody noticing.
    let server = place.postgres.as_ref().unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'opg-hub'";
    server.query(end).await;
    assert_eq!(
        hub.commit(&token, &id, &[header("x"), file("after.txt", b"x")]).await.0,
        200
    );
    server.query(end).await;
    assert_eq!(hub.bytes(&id, "main", "after.txt").await, (200, b"x".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_lost_its_database_to_another_does_not_write() {
    let Some(place) = Place::postgres() else { return };
    let first = Hub::start(place.path(), "");
    let token = first.token(1, Scope::Write).await.token;
    let id = first.create(&token, "repo").await;
    // Its sessions end, and before it needs them again somebody else takes the database.
    let server = place.postgres.as_ref().unwrap();
    server
        .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'opg-hub'")
        .await;
    let second = ModelHub::start(place.config(place.path().join("elsewhere")))
        .await
        .unwrap();
    let (status, answer) = first.commit(&token, &id, &[header("x"), file("a.txt", b"a")]).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (503, &json!("DatabaseUnavailable")),
        "{answer}"
    );
    second.shutdown().await.unwrap();
    assert_eq!(
        first.commit(&token, &id, &[header("x"), file("a.txt", b"a")]).await.0,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_refused_with_what_to_do_instead() {
    let Some(place) = Place::postgres() else { return };
    let hub = Hub::start(place.path(), "");
    let target = place.path().join("backup");
    for refused in [
        backup(&config(&place), &target).unwrap_err(),
        restore(&config(&place), &target).unwrap_err(),
    ] {
        assert!(matches!(refused, BackupError::Elsewhere { .. }), "{refused}");
        assert!(refused.to_string().contains("pg_dump"), "{refused}");
    }
    assert!(!target.exists());
    assert!(hub.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let Some(mut place) = Place::postgres() else { return };
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let signer = KeyPair::generate().unwrap();
    let root = authority.self_signed(&signer).unwrap().pem();
    let issuer = Issuer::new(authority, signer);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap().pem();
    place
        .postgres
        .as_mut()
        .unwrap()
        .use_tls(&certificate, &key.serialize_pem());

    let ca = place.path().join("ca.pem");
    std::fs::write(&ca, root).unwrap();
    let mut config = place.config(place.path().join("data"));
    let database = config.database.as_mut().unwrap();
    database.url.0.push_str("?sslmode=require");
    // Nobody public has signed the certificate.
    let refused = ModelHub::start(config.clone()).await.unwrap_err();
    assert!(refused.to_string().to_lowercase().contains("certificate"), "{refused}");
    config.database.as_mut().unwrap().ca = Some(ca.clone());
    let hub = ModelHub::start(config.clone()).await.unwrap();
    let sql =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'opg-hub'";
    assert_eq!(place.postgres.as_ref().unwrap().query(sql).await, "t");
    hub.shutdown().await.unwrap();
    // Another name than the certificate's.
    let database = config.database.as_mut().unwrap();
    database.url.0 = database.url.0.replace("127.0.0.1", "localhost");
    assert!(ModelHub::start(config.clone()).await.is_err());
    // A file without a certificate is named.
    std::fs::write(&ca, "nothing").unwrap();
    let refused = ModelHub::start(config).await.unwrap_err().to_string();
    assert!(refused.contains("ca.pem"), "{refused}");
}

/// With both databases: PostgreSQL cannot hold the character, and the answer must not depend on the database.
async fn nul_characters_are_refused(place: Place) {
    let hub = Hub::start(place.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "repo").await;
    // From a title it is taken out.
    assert_eq!(
        hub.commit(&token, &id, &[header("a\0b"), file("t.txt", b"t")]).await.0,
        200
    );
    let (status, answer) = hub.get(None, "/api/models?search=a%00").await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("InvalidText")),
        "{answer}"
    );
    // In a file it is a byte like any other, and a card that has one blocks no commit.
    let card = "---\ntags: [\"a\\0b\"]\nlicense: \"m\\0\"\nother: \"x\\0y\"\n---\n";
    let lines = [header("x"), file("README.md", card.as_bytes()), file("b.txt", b"\0")];
    assert_eq!(hub.commit(&token, &id, &lines).await.0, 200);
    assert_eq!(hub.bytes(&id, "main", "b.txt").await.1, b"\0");
    let (_, info) = hub.get(None, &format!("/api/models/{id}")).await;
    assert!(info["tags"].as_array().unwrap().contains(&json!("ab")), "{info}");
}

mod both {
    use super::common::Place;

    #[tokio::test(flavor = "multi_thread")]
    async fn nul_characters_are_refused() {
        for place in [Place::sqlite, Place::postgres] {
            if let Some(place) = place() {
                super::nul_characters_are_refused(place).await;
            }
        }
    }
}
