//! Blobs in a bucket of an S3-compatible server. All calls block, on threads of the runtime that may.
//!
//! A blob is an object `blobs/aa/bb/<sha256>`, uploaded from a whole local file in one request or in parts; an object is
//! there whole or not at all. Beside them lies `hub.json` with the id of the hub whose bucket it is, and of the run that
//! used it last ([`claim`]): a collector in another hub's bucket, or of an old copy of the database, would take for
//! garbage what others need.

mod claim;
mod connect;

pub(crate) use claim::begin;

use crate::{
    blobs::BlobError,
    config::{BlobsConfig, ConfigError},
    tree::{Blob, Hash},
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    BackoffConfig, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    sync::OnceLock,
    time::Duration,
};
use tokio::{runtime::Handle, sync::Semaphore, task::JoinHandle};

/// Size of an upload's part: 10,000 of them, the most that S3 takes, hold the largest file.
const PART: usize = 8 << 20;
/// Parts of one upload that travel at the same time, beside the one that is being read.
const PARTS: usize = 2;
/// Uploads at the same time. With the above at most 96 MiB are in memory.
const UPLOADS: usize = 4;
/// Longest time of a small request with its repetitions, and of a part.
const LIMIT: Duration = Duration::from_secs(300);
/// Longest pause between two pieces of a download.
const PAUSE: Duration = Duration::from_secs(60);

/// A place in a bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    store: AmazonS3,
    prefix: String,
    /// What messages call it.
    shown: String,
    handle: Handle,
    uploads: Semaphore,
    /// The run that this process began.
    run: OnceLock<claim::Run>,
}

/// The parts of `s3://bucket/prefix?endpoint=…&region=…`.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    bucket: String,
    prefix: String,
    endpoint: Option<String>,
    region: Option<String>,
}

impl Url {
    fn read(url: &str) -> Result<Self, String> {
        let rest = url
            .strip_prefix("s3://")
            .ok_or("must be s3://bucket/prefix?endpoint=https://…&region=…")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if bucket.is_empty() || !plain(bucket) {
            return Err("must name a bucket by letters, digits, dots and dashes".into());
        }
        let fine = |part: &str| plain(part) && !part.is_empty() && part != "." && part != "..";
        if !prefix.is_empty() && !prefix.split('/').all(fine) {
            return Err("must have a prefix of letters, digits, dots, dashes and slashes".into());
        }
        let mut read = Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_encoding::percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| "must be UTF-8")?.trim_end_matches('/').to_owned();
            match key {
                "endpoint" => read.endpoint = Some(value),
                "region" => read.region = Some(value),
                _ => return Err(format!("has {key:?}; only endpoint and region are known")),
            }
        }
        if let Some(endpoint) = &read.endpoint {
            let secure = endpoint.starts_with("https://");
            let host = endpoint.strip_prefix("http://").unwrap_or_default();
            let name = match host.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
                _ => host,
            };
            // A name without a dot is one of the local network.
            let near = crate::db::is_private(name) || (!name.is_empty() && !name.contains(['.', ':']));
            if !secure && !near {
                return Err("must have an endpoint with https://, or with http:// in a private network".into());
            }
        }
        Ok(read)
    }
}

/// Which setting is wrong, and how.
fn wrong(field: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        field,
        problem: problem.into(),
    }
}

/// Checks the values.
pub(crate) fn check(config: &BlobsConfig) -> Result<(), ConfigError> {
    Url::read(&config.url).map_err(|problem| wrong("blobs.url", problem))?;
    if config.access_key_id.is_some() != config.secret_access_key.is_some() {
        return Err(wrong(
            "blobs",
            "must have both access_key_id and secret_access_key, or none",
        ));
    }
    Ok(())
}

impl Bucket {
    /// A bucket that was not asked anything yet. Must be called within a runtime.
    pub(crate) fn new(config: &BlobsConfig) -> Result<Self, ConfigError> {
        check(config)?;
        let url = Url::read(&config.url).map_err(|problem| wrong("blobs.url", problem))?;
        let connector = connect::Connector::new(config.ca.as_deref()).map_err(|problem| wrong("blobs.ca", problem))?;
        let variable = |name| std::env::var(name).ok();
        let secret = config.secret_access_key.as_ref().map(|secret| secret.0.clone());
        let keys = (
            config.access_key_id.clone().or_else(|| variable("AWS_ACCESS_KEY_ID")),
            secret.or_else(|| variable("AWS_SECRET_ACCESS_KEY")),
        );
        let (Some(id), Some(secret)) = keys else {
            let problem = "must have access_key_id and secret_access_key, or the environment AWS_ACCESS_KEY_ID and \
                           AWS_SECRET_ACCESS_KEY";
            return Err(wrong("blobs", problem));
        };
        let shown = format!("s3://{}/{}", url.bucket, url.prefix);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(url.bucket)
            .with_access_key_id(id)
            .with_secret_access_key(secret)
            .with_region(url.region.unwrap_or_else(|| "us-east-1".to_owned()))
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 4,
                retry_timeout: Duration::from_secs(30),
            })
            .with_http_connector(connector);
        if config.access_key_id.is_none()
            && let Some(token) = variable("AWS_SESSION_TOKEN")
        {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = url.endpoint {
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_endpoint(endpoint);
        }
        Ok(Self {
            store: builder.build().map_err(|error| wrong("blobs", error.to_string()))?,
            prefix: url.prefix,
            shown,
            handle: Handle::current(),
            uploads: Semaphore::new(UPLOADS),
            run: OnceLock::new(),
        })
    }

    fn path(&self, below: &str) -> Path {
        Path::from(format!("{}/{below}", self.prefix))
    }

    fn object(&self, sha256: &Hash) -> Path {
        let name = hex::encode(sha256);
        let (a, b) = (name.get(..2).unwrap_or_default(), name.get(2..4).unwrap_or_default());
        self.path(&format!("blobs/{a}/{b}/{name}"))
    }

    fn failure(&self, what: &str, reason: impl std::fmt::Display) -> BlobError {
        BlobError::Store {
            what: format!("{} {what}", self.shown),
            reason: reason.to_string(),
        }
    }

    /// Waits for a request. `None` if there is no such object.
    fn wait<T>(
        &self,
        what: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Option<T>, BlobError> {
        // The timer needs the runtime, so it is made inside.
        match self
            .handle
            .block_on(async { tokio::time::timeout(LIMIT, request).await })
        {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(self.failure(what, error)),
            Err(_) => Err(self.failure(what, format!("no answer in {} s", LIMIT.as_secs()))),
        }
    }

    fn there<T>(&self, what: &str, found: Option<T>) -> Result<T, BlobError> {
        found.ok_or_else(|| self.failure(what, "there is no such object"))
    }

    /// Uploads a whole file as a blob, unless the object is there.
    ///
    /// # Errors
    /// [`BlobError::Hash`] if the file no longer has the bytes that were hashed; then nothing is stored.
    pub(crate) fn publish(&self, file: &mut File, blob: &Blob) -> Result<(), BlobError> {
        let (key, what) = (self.object(&blob.sha256), "upload");
        if self
            .wait(what, self.store.head(&key))?
            .is_some_and(|meta| meta.size == blob.size)
        {
            return Ok(());
        }
        let _slot = self
            .handle
            .block_on(self.uploads.acquire())
            .map_err(|error| self.failure(what, error))?;
        let local = |source: io::Error| self.failure("staged upload", source);
        file.seek(SeekFrom::Start(0)).map_err(local)?;
        let mut hasher = blake3::Hasher::new();
        let next = |file: &mut File, hasher: &mut blake3::Hasher| -> Result<Bytes, BlobError> {
            let mut part = Vec::new();
            file.by_ref().take(PART as u64).read_to_end(&mut part).map_err(local)?;
            hasher.update(&part);
            Ok(part.into())
        };
        let sound = |hasher: &blake3::Hasher| {
            let got = hasher.finalize();
            if *got.as_bytes() == blob.blake3 {
                return Ok(());
            }
            Err(BlobError::Hash {
                expected: hex::encode(blob.blake3),
                got: got.to_hex().to_string(),
            })
        };
        let first = next(file, &mut hasher)?;
        if blob.size <= PART as u64 {
            sound(&hasher)?;
            let done = self.wait(what, self.store.put(&key, first.into()))?;
            return self.there(what, done).map(drop);
        }
        let mut upload = self.there(what, self.wait(what, self.store.put_multipart(&key))?)?;
        let sent = (|| {
            let mut running: VecDeque<JoinHandle<object_store::Result<()>>> = VecDeque::new();
            let mut part = first;
            while !part.is_empty() {
                if running.len() >= PARTS {
                    self.part(running.pop_front())?;
                }
                running.push_back(self.handle.spawn(upload.put_part(part.into())));
                part = next(file, &mut hasher)?;
            }
            while !running.is_empty() {
                self.part(running.pop_front())?;
            }
            sound(&hasher)?;
            let done = self.wait(what, upload.complete())?;
            self.there(what, done).map(drop)
        })();
        if sent.is_err() {
            // What cannot be taken back now is for the bucket's rule for unfinished uploads.
            let _ = self.wait(what, upload.abort());
        }
        sent
    }

    fn part(&self, part: Option<JoinHandle<object_store::Result<()>>>) -> Result<(), BlobError> {
        let Some(part) = part else { return Ok(()) };
        let joined = self.wait("upload", async {
            match part.await {
                Ok(done) => done,
                Err(error) => Err(object_store::Error::from(error)),
            }
        })?;
        self.there("upload", joined)
    }

    /// Opens a blob for reading `length` bytes from a position on.
    pub(crate) fn open_at(&self, sha256: &Hash, start: u64, length: u64) -> Result<Remote, BlobError> {
        let what = "download";
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..start.saturating_add(length))),
            ..GetOptions::default()
        };
        let found = self.wait(what, self.store.get_opts(&self.object(sha256), options))?;
        let stream = self.there(what, found)?.into_stream();
        Ok(Remote {
            handle: self.handle.clone(),
            stream,
            rest: Bytes::new(),
        })
    }

    /// Removes a blob; not an error if it is gone.
    pub(crate) fn remove(&self, sha256: &Hash) -> Result<(), BlobError> {
        self.wait("removal", self.store.delete(&self.object(sha256))).map(drop)
    }

    /// Hashes of all blobs, in no order.
    pub(crate) fn list(&self) -> Result<Vec<Hash>, BlobError> {
        let prefix = self.path("blobs");
        let all = self.store.list(Some(&prefix)).try_filter_map(|meta| async move {
            let name = meta.location.filename().and_then(|name| hex::decode(name).ok());
            Ok(name.and_then(|hash| Hash::try_from(hash).ok()))
        });
        Ok(self.wait("list", all.try_collect())?.unwrap_or_default())
    }
}

/// A blob on its way from the bucket.
pub(crate) struct Remote {
    handle: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Remote {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !buffer.is_empty() {
            let stream = &mut self.stream;
            let next = self
                .handle
                .block_on(async { tokio::time::timeout(PAUSE, stream.next()).await });
            match next {
                Ok(Some(Ok(bytes))) => self.rest = bytes,
                Ok(Some(Err(error))) => return Err(io::Error::other(error)),
                Ok(None) => return Ok(0),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let n = self.rest.len().min(buffer.len());
        let taken = self.rest.split_to(n);
        if let Some(target) = buffer.get_mut(..n) {
            target.copy_from_slice(&taken);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_bucket_and_endpoint() {
        let read = Url::read("s3://models/hub/one/?endpoint=http%3A%2F%2F127.0.0.1:9000/&region=eu-1").unwrap();
        let expected = Url {
            bucket: "models".into(),
            prefix: "hub/one".into(),
            endpoint: Some("http://127.0.0.1:9000".into()),
            region: Some("eu-1".into()),
        };
        assert_eq!(read, expected);
        for url in [
            "s3://b",
            "s3://b?endpoint=http://minio:9000",
            "s3://b/p?endpoint=https://s3.example",
            "s3://b?endpoint=http://[::1]:9",
        ] {
            Url::read(url).unwrap();
        }
        for url in [
            "http://b",
            "s3://",
            "s3:///p",
            "s3://b/a//c",
            "s3://b/../c",
            "s3://b?endpoint=http://s3.example",
            "s3://b?endpoint=ftp://127.0.0.1",
            "s3://b?key=x",
        ] {
            assert!(Url::read(url).is_err(), "{url}");
        }
    }
}
