//! Bodies of requests on their way to a node: bounded, looked through for the model's name, held only as far as needed.

use crate::{error::ApiError, model_name::ModelScan};
use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, header};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is known about a body while it streams past.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    scan: Mutex<ModelScan>,
    too_large: AtomicBool,
    broken: AtomicBool,
}

impl Passing {
    fn push(&self, bytes: &[u8]) {
        let mut scan = self.0.scan.lock().unwrap_or_else(PoisonError::into_inner);
        if !scan.is_done() {
            scan.push(bytes);
        }
    }

    /// The model's name, if it has passed.
    pub(crate) fn model(&self) -> Option<String> {
        let scan = self.0.scan.lock().unwrap_or_else(PoisonError::into_inner);
        scan.found().map(str::to_owned)
    }

    /// Whether the client's body was at fault: too large, or broken off.
    pub(crate) fn fault(&self, limit: u64) -> Option<ApiError> {
        if self.0.too_large.load(Ordering::Relaxed) {
            return Some(ApiError::too_large(limit));
        }
        let broken = self.0.broken.load(Ordering::Relaxed);
        broken.then(|| {
            ApiError::bad_request(
                "body_incomplete",
                "body",
                "the body ended early or did not arrive in time",
            )
        })
    }
}

/// A body that comes in.
pub(crate) struct Upload {
    stream: BodyDataStream,
    limit: u64,
    idle: Duration,
    taken: u64,
    pub(crate) passing: Passing,
}

/// A body that can be sent.
pub(crate) enum Outgoing {
    /// Whole: may be sent again. The memory that it takes is accounted for until it is dropped.
    Whole(Bytes, Option<OwnedSemaphorePermit>),
    /// Once.
    Once(Body),
}

impl Upload {
    /// # Errors
    /// 413 if the announced length is above `limit`.
    pub(crate) fn new(headers: &HeaderMap, body: Body, limit: u64, idle: Duration) -> Result<Self, ApiError> {
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > limit) {
            return Err(ApiError::too_large(limit));
        }
        Ok(Self {
            stream: body.into_data_stream(),
            limit,
            idle,
            taken: 0,
            passing: Passing::default(),
        })
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let broken = |why: String| {
            self.passing.0.broken.store(true, Ordering::Relaxed);
            Some(Err(io::Error::other(why)))
        };
        match tokio::time::timeout(self.idle, self.stream.next()).await {
            Err(_) => broken("the body did not arrive in time".into()),
            Ok(None) => None,
            Ok(Some(Err(error))) => broken(error.to_string()),
            Ok(Some(Ok(bytes))) => {
                self.taken = self.taken.saturating_add(bytes.len() as u64);
                if self.taken > self.limit {
                    self.passing.0.too_large.store(true, Ordering::Relaxed);
                    return Some(Err(io::Error::other("the body is too large")));
                }
                self.passing.push(&bytes);
                Some(Ok(bytes))
            }
        }
    }

    /// The rest of the body, as it comes.
    pub(crate) fn streaming(self) -> (Body, Passing) {
        let passing = self.passing.clone();
        (Body::from_stream(self.into_stream()), passing)
    }

    fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        // Ends after an error.
        stream::unfold(Some(self), |upload| async move {
            let mut upload = upload?;
            let next = upload.next().await?;
            let rest = next.is_ok().then_some(upload);
            Some((next, rest))
        })
    }

    /// Holds the body until it is whole, or until it is longer than `hold` and the model's name is known.
    ///
    /// # Errors
    /// 413, 400; 503 if too much is held already.
    pub(crate) async fn hold(mut self, hold: usize, memory: &Arc<Semaphore>) -> Result<(Outgoing, Passing), ApiError> {
        let passing = self.passing.clone();
        let mut held: Vec<Bytes> = Vec::new();
        let mut size = 0usize;
        let mut permit: Option<OwnedSemaphorePermit> = None;
        loop {
            match self.next().await {
                None => {
                    let whole = match held.as_slice() {
                        [one] => one.clone(),
                        parts => parts.concat().into(),
                    };
                    return Ok((Outgoing::Whole(whole, permit), passing));
                }
                Some(Err(error)) => {
                    return Err(passing
                        .fault(self.limit)
                        .unwrap_or_else(|| ApiError::bad_request("body_incomplete", "body", error.to_string())));
                }
                Some(Ok(bytes)) => {
                    size = size.saturating_add(bytes.len());
                    let kibibytes = u32::try_from(bytes.len().div_ceil(1024)).unwrap_or(u32::MAX);
                    let more = Arc::clone(memory).try_acquire_many_owned(kibibytes).map_err(|_| {
                        ApiError::unavailable("overloaded", "the router holds as many requests as it can; try again")
                    })?;
                    match &mut permit {
                        Some(permit) => permit.merge(more),
                        None => permit = Some(more),
                    }
                    held.push(bytes);
                }
            }
            let scanned = self
                .passing
                .0
                .scan
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_done();
            if size > hold && scanned {
                let first = stream::iter(held.into_iter().map(Ok));
                let body = Body::from_stream(first.chain(self.into_stream()));
                return Ok((Outgoing::Once(body), passing));
            }
        }
    }
}
