//! Uploading a version in one commit. What the hub has is not sent, and what broke off is sent again from there on.

use super::{
    ClientError, Token, answer, authorized,
    folder::{CARD, Content, Folder, LocalFile, with_value},
    sign_in,
};
use crate::{hasher, names::RepoName, siwe::Scope};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Body, Client, Method, StatusCode};
use secp256k1::SecretKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    io::{self, Read as _, Seek as _, SeekFrom},
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

/// Files of one preupload or batch.
const BATCH: usize = 200;
/// First bytes of a file, by which the hub tells text from binary.
const SAMPLE: u64 = 512;
const ATTEMPTS: u32 = 5;
const PIECE: usize = 256 << 10;
/// Life of the token of one upload, days; it is revoked at the end.
const DAYS: u32 = 1;

/// A signed-in account at a hub.
#[derive(Debug)]
pub struct Session {
    http: Client,
    hub: String,
    token: Token,
}

/// What an upload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// The version's commit.
    pub revision: String,
    /// Whether it was there already: nothing was changed.
    pub unchanged: bool,
    /// Bytes that travelled.
    pub sent: u64,
    /// Files that are new or changed.
    pub changed: usize,
}

#[derive(Deserialize)]
struct Described {
    revision: String,
    files: Vec<DescribedFile>,
}

#[derive(Deserialize)]
struct DescribedFile {
    path: String,
    sha256: String,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "partNumber")]
    number: u64,
    etag: String,
}

impl Session {
    /// Signs in with a wallet's key, for as long as this value is needed: [`close`](Self::close) revokes the token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open(
        http: Client,
        hub: &str,
        key: &SecretKey,
        scope: Scope,
        label: &str,
        chain_id: u64,
    ) -> Result<Self, ClientError> {
        let hub = hub.trim_end_matches('/').to_owned();
        let token = sign_in(&http, &hub, key, scope, DAYS, label, chain_id).await?;
        Ok(Self { http, hub, token })
    }

    /// A client whose requests are those of this account, until [`close`](Self::close).
    ///
    /// # Errors
    /// [`ClientError::Token`] if the hub has given something that is no token.
    pub fn client(&self) -> Result<Client, ClientError> {
        authorized(&self.token.token)
    }

    /// Revokes the token.
    ///
    /// # Errors
    /// If the hub is away; the token then ends by itself.
    pub async fn close(self) -> Result<(), ClientError> {
        let path = format!("/api/opg/tokens/{}", self.token.id);
        self.call(Method::DELETE, &path, None).await.map(|_| ())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.hub))
            .bearer_auth(&self.token.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let text = answer(request.send().await?).await?.bytes().await?;
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    }

    /// Makes the repository, for its members only, unless there is a private one already.
    ///
    /// # Errors
    /// [`ClientError::Public`] if it is there for everybody: what was public does not become a secret by one more upload.
    pub async fn create_private(&self, name: &RepoName) -> Result<(), ClientError> {
        self.create(name, true).await?;
        let there = self.call(Method::GET, &format!("/api/models/{name}"), None).await?;
        match at(&there, "/private").as_bool() {
            Some(true) => Ok(()),
            _ => Err(ClientError::Public { name: name.to_string() }),
        }
    }

    /// Makes the repository unless it is there; claims the owner's name if nobody has it.
    async fn create(&self, name: &RepoName, private: bool) -> Result<(), ClientError> {
        let body = json!({"name": name.to_string(), "type": "model", "private": private});
        let made = self.call(Method::POST, "/api/repos/create", Some(&body)).await;
        match made {
            Err(ClientError::Refused { status: 403, .. }) => {
                self.call(Method::PUT, &format!("/api/opg/names/{}", name.owner), None)
                    .await?;
                let again = self.call(Method::POST, "/api/repos/create", Some(&body)).await;
                exists_is_fine(again)
            }
            other => exists_is_fine(other),
        }
    }

    /// Makes `folder` the newest version of a model, in one commit: files that it does not have are not in the version, older
    /// versions stay. Nothing happens if it is that already.
    ///
    /// # Errors
    /// [`ClientError`]; a status of 412 means that somebody else has made a version meanwhile.
    pub async fn push(&self, name: &RepoName, folder: &Folder, summary: &str) -> Result<Pushed, ClientError> {
        self.create(name, false).await?;
        let described = self
            .call(Method::GET, &format!("/api/opg/models/{name}/manifest"), None)
            .await?;
        let there: Described = read(described)?;
        let before: BTreeMap<&str, &str> = there
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.sha256.as_str()))
            .collect();
        let changed: Vec<(&str, &LocalFile)> = folder
            .files
            .iter()
            .filter(|(path, file)| before.get(path.as_str()).copied() != Some(&hex::encode(file.blob.sha256)))
            .map(|(path, file)| (path.as_str(), file))
            .collect();
        let deleted: Vec<&str> = before
            .keys()
            .filter(|path| !folder.files.contains_key(**path))
            .copied()
            .collect();
        if changed.is_empty() && deleted.is_empty() {
            return Ok(Pushed {
                revision: there.revision,
                unchanged: true,
                sent: 0,
                changed: 0,
            });
        }
        let mut sent = 0;
        let mut lines = vec![json!({"key": "header", "value": {"summary": summary, "parentCommit": there.revision}})];
        for batch in changed.chunks(BATCH) {
            sent += self.upload(name, batch, &mut lines).await?;
        }
        lines.extend(
            deleted
                .iter()
                .map(|path| json!({"key": "deletedFile", "value": {"path": path}})),
        );
        self.commit(name, &lines, changed.len() + deleted.len(), sent).await
    }

    /// Makes a commit of these lines.
    async fn commit(&self, name: &RepoName, lines: &[Value], changed: usize, sent: u64) -> Result<Pushed, ClientError> {
        let mut body = String::new();
        for line in lines {
            body.push_str(&line.to_string());
            body.push('\n');
        }
        let sent = sent + body.len() as u64;
        let request = self
            .http
            .post(format!("{}/api/models/{name}/commit/main", self.hub))
            .bearer_auth(&self.token.token)
            .header(reqwest::header::CONTENT_TYPE, "application/x-ndjson")
            .body(body);
        let made: Value = answer(request.send().await?).await?.json().await?;
        let revision = at(&made, "/commitOid").as_str().unwrap_or_default().to_owned();
        if revision.is_empty() {
            return Err(ClientError::Answer("a commit without an id".into()));
        }
        Ok(Pushed {
            revision,
            unchanged: false,
            sent,
            changed,
        })
    }

    /// Sets a value in the metadata of a model's card, in a commit of its own.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Folder`] if the card's metadata cannot be read.
    pub async fn set_card(
        &self,
        name: &RepoName,
        key: &str,
        value: &str,
        summary: &str,
    ) -> Result<Pushed, ClientError> {
        let described = self
            .call(Method::GET, &format!("/api/opg/models/{name}/manifest"), None)
            .await?;
        let there: Described = read(described)?;
        let mut before = String::new();
        if there.files.iter().any(|file| file.path == CARD) {
            let url = format!("{}/{name}/resolve/{}/{CARD}", self.hub, there.revision);
            let mut card = answer(self.http.get(url).bearer_auth(&self.token.token).send().await?).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = card.chunk().await? {
                bytes.extend_from_slice(&piece);
                if bytes.len() > crate::card::CARD_LIMIT {
                    return Err(ClientError::Answer("a card that is too large".into()));
                }
            }
            before = String::from_utf8_lossy(&bytes).into_owned();
        }
        let after = with_value(&before, key, value)?;
        if after == before {
            return Ok(Pushed {
                revision: there.revision,
                unchanged: true,
                sent: 0,
                changed: 0,
            });
        }
        let lines = [
            json!({"key": "header", "value": {"summary": summary, "parentCommit": there.revision}}),
            json!({"key": "file", "value": {"path": CARD, "content": STANDARD.encode(after), "encoding": "base64"}}),
        ];
        self.commit(name, &lines, 1, 0).await
    }

    /// Deletes a repository with all its versions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, name: &RepoName) -> Result<(), ClientError> {
        let body = json!({"name": name.name, "organization": name.owner, "type": "model"});
        self.call(Method::DELETE, "/api/repos/delete", Some(&body))
            .await
            .map(|_| ())
    }

    /// Sends one batch of files, and adds their lines to the commit.
    async fn upload(
        &self,
        name: &RepoName,
        batch: &[(&str, &LocalFile)],
        lines: &mut Vec<Value>,
    ) -> Result<u64, ClientError> {
        let mut files = Vec::new();
        for (path, file) in batch {
            let sample = front(file, SAMPLE).map_err(|source| failed(path, source))?;
            files.push(json!({"path": path, "size": file.blob.size, "sample": STANDARD.encode(sample)}));
        }
        let url = format!("/api/models/{name}/preupload/main");
        let modes = self.call(Method::POST, &url, Some(&json!({"files": files}))).await?;
        let apart: Vec<&str> = at(&modes, "/files")
            .as_array()
            .into_iter()
            .flatten()
            .filter(|file| at(file, "/uploadMode") == "lfs")
            .filter_map(|file| at(file, "/path").as_str())
            .collect();
        let mut objects = Vec::new();
        for (path, file) in batch {
            if apart.contains(path) {
                let oid = hex::encode(file.blob.sha256);
                objects.push(json!({"oid": oid, "size": file.blob.size}));
                lines.push(json!({"key": "lfsFile",
                    "value": {"path": path, "algo": "sha256", "oid": oid, "size": file.blob.size}}));
            } else {
                let content = front(file, u64::MAX).map_err(|source| failed(path, source))?;
                lines.push(json!({"key": "file",
                    "value": {"path": path, "content": STANDARD.encode(content), "encoding": "base64"}}));
            }
        }
        if objects.is_empty() {
            return Ok(0);
        }
        let url = format!("/{name}.git/info/lfs/objects/batch");
        let asked = json!({"operation": "upload", "transfers": ["basic", "multipart"], "objects": objects,
            "hash_algo": "sha256"});
        let told = self.call(Method::POST, &url, Some(&asked)).await?;
        let mut sent = 0;
        for object in at(&told, "/objects").as_array().into_iter().flatten() {
            let oid = at(object, "/oid").as_str().unwrap_or_default();
            let file = batch.iter().find(|(_, file)| hex::encode(file.blob.sha256) == oid);
            let Some((path, file)) = file else { continue };
            if let Some(message) = object.pointer("/error/message").and_then(Value::as_str) {
                return Err(ClientError::Refused {
                    status: at(object, "/error/code")
                        .as_u64()
                        .unwrap_or(422)
                        .try_into()
                        .unwrap_or(422),
                    message: format!("{path}: {}", message.chars().take(200).collect::<String>()),
                });
            }
            let upload = at(object, "/actions/upload");
            let Some(href) = at(upload, "/href").as_str() else {
                // The hub has it.
                continue;
            };
            sent += match upload["header"]
                .as_object()
                .filter(|header| header.contains_key("chunk_size"))
            {
                Some(header) => self.send_parts(path, file, oid, href, header).await?,
                None => self.send(path, file, href, 0, file.blob.size).await?.0,
            };
        }
        Ok(sent)
    }

    /// Sends a file in parts; those that the hub has from an upload that broke off are not sent again.
    async fn send_parts(
        &self,
        path: &str,
        file: &LocalFile,
        oid: &str,
        href: &str,
        header: &Map<String, Value>,
    ) -> Result<u64, ClientError> {
        let each: u64 = header
            .get("chunk_size")
            .and_then(Value::as_str)
            .and_then(|size| size.parse().ok())
            .filter(|size| *size > 0)
            .ok_or_else(|| ClientError::Answer("an upload in parts without their size".into()))?;
        let known: Vec<Part> = match self.http.get(href).send().await {
            Ok(told) if told.status() == StatusCode::OK => {
                let told: Value = told.json().await?;
                serde_json::from_value(at(&told, "/parts").clone()).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let (mut sent, mut parts) = (0, Vec::new());
        for number in 1..=file.blob.size.div_ceil(each) {
            let start = (number - 1) * each;
            let size = each.min(file.blob.size - start);
            let there = known.iter().find(|part| part.number == number);
            let etag = match there {
                Some(part) if tag(file, start, size).map_err(|e| failed(path, e))?.as_ref() == Some(&part.etag) => {
                    part.etag.clone()
                }
                _ => {
                    let url = header.get(&number.to_string()).and_then(Value::as_str);
                    let url = url.ok_or_else(|| ClientError::Answer(format!("no link for part {number}")))?;
                    let (bytes, etag) = self.send(path, file, url, start, size).await?;
                    sent += bytes;
                    etag
                }
            };
            parts.push(json!({"partNumber": number, "etag": etag}));
        }
        let body = json!({"oid": oid, "parts": parts});
        answer(self.http.post(href).json(&body).send().await?).await?;
        Ok(sent)
    }

    /// Sends `size` bytes of a file from `start` on, again if the connection breaks; returns the bytes that travelled, and the tag
    /// of the answer.
    async fn send(
        &self,
        path: &str,
        file: &LocalFile,
        url: &str,
        start: u64,
        size: u64,
    ) -> Result<(u64, String), ClientError> {
        let mut attempt = 0;
        loop {
            let body = match &file.content {
                Content::Memory(bytes) => Body::from(bytes.clone()),
                Content::Disk(from) => {
                    let mut file = tokio::fs::File::open(from).await.map_err(|e| failed(path, e))?;
                    file.seek(SeekFrom::Start(start)).await.map_err(|e| failed(path, e))?;
                    Body::wrap_stream(ReaderStream::with_capacity(file.take(size), PIECE))
                }
            };
            let request = self
                .http
                .put(url)
                .header(reqwest::header::CONTENT_LENGTH, size)
                .body(body);
            attempt += 1;
            let result = match request.send().await {
                Ok(response) => answer(response).await,
                Err(error) => Err(error.into()),
            };
            match result {
                Ok(response) => {
                    let etag = response.headers().get("etag").and_then(|tag| tag.to_str().ok());
                    return Ok((size, etag.unwrap_or_default().trim_matches('"').to_owned()));
                }
                Err(error) if attempt < ATTEMPTS && error.may_pass() => {
                    tracing::warn!(path, attempt, %error, "upload broke off; sending again");
                    tokio::time::sleep(Duration::from_millis(250 << attempt)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn exists_is_fine(made: Result<Value, ClientError>) -> Result<(), ClientError> {
    match made {
        Ok(_) | Err(ClientError::Refused { status: 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A member of an answer; null if it is not there.
fn at<'a>(answer: &'a Value, pointer: &str) -> &'a Value {
    answer.pointer(pointer).unwrap_or(&Value::Null)
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|error| ClientError::Answer(error.to_string()))
}

fn failed(path: &str, source: io::Error) -> ClientError {
    ClientError::File {
        path: path.to_owned(),
        source,
    }
}

/// The first bytes of a file.
fn front(file: &LocalFile, limit: u64) -> io::Result<Vec<u8>> {
    match &file.content {
        Content::Memory(bytes) => {
            let end = usize::try_from(limit).unwrap_or(usize::MAX).min(bytes.len());
            Ok(bytes.get(..end).unwrap_or_default().to_vec())
        }
        Content::Disk(path) => {
            let mut bytes = Vec::new();
            // No more than was hashed: what is sent inside a commit was small.
            std::fs::File::open(path)?
                .take(limit.min(file.blob.size))
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        }
    }
}

/// The tag by which a hub knows a part, if it is one that has a tag: its chaining value in the tree of the file's BLAKE3.
fn tag(file: &LocalFile, start: u64, size: u64) -> io::Result<Option<String>> {
    let Some(mut hasher) = hasher::part_hasher(start, size) else {
        return Ok(None);
    };
    let read = match &file.content {
        Content::Memory(bytes) => {
            let from = usize::try_from(start).unwrap_or(usize::MAX);
            let count = usize::try_from(size).unwrap_or(usize::MAX);
            let part = bytes.get(from..from.saturating_add(count)).unwrap_or_default();
            hasher.update(part);
            part.len() as u64
        }
        Content::Disk(path) => {
            let mut file = std::fs::File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            io::copy(&mut file.take(size), &mut hasher)?
        }
    };
    Ok((read == size).then(|| hex::encode(hasher::finish_part(&hasher))))
}
