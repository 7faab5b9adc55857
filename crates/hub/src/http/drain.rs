//! A refusal reaches the client only if it gets to read it: whoever is still sending when the connection closes sees a broken pipe instead of
//! the reason. So what is left of the body of a refused request is read and dropped, as far as that is cheap.

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    http::header,
    middleware::Next,
    response::Response,
};
use futures::{Stream, StreamExt as _};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

/// More than this is not read for somebody who was refused.
const MOST: usize = 4 << 20;
/// Nor for longer than this.
const TIME: Duration = Duration::from_secs(2);

type Place = Arc<Mutex<Option<BodyDataStream>>>;

/// A body that comes back when its reader drops it.
struct Lent {
    body: Option<BodyDataStream>,
    back: Place,
}

impl Stream for Lent {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.body {
            Some(body) => body.poll_next_unpin(context),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

/// After a refusal, reads what the client still sends: at most four MiB, for at most two seconds.
pub(super) async fn refused(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let sends = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    // Such a client waits for the answer before it sends anything.
    if !sends || headers.contains_key(header::EXPECT) {
        return next.run(request).await;
    }
    let back = Place::default();
    let request = request.map(|body| {
        Body::from_stream(Lent {
            body: Some(body.into_data_stream()),
            back: Arc::clone(&back),
        })
    });
    let response = next.run(request).await;
    if !response.status().is_success() {
        let left = back.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut left) = left {
            let drain = async {
                let mut read = 0;
                while let Some(Ok(piece)) = left.next().await {
                    read += piece.len();
                    if read > MOST {
                        break;
                    }
                }
            };
            // What is left after that is the client's loss.
            let _ = tokio::time::timeout(TIME, drain).await;
        }
    }
    response
}
