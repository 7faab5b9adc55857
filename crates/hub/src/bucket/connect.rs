//! HTTP/1.1 to the bucket's server, over hyper: the client that `object_store` would bring has no place in this workspace.

use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as Tcp},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use std::{error::Error, io, path::Path, pin::Pin, time::Duration};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the head of an answer: the end of a multipart upload takes servers a while.
const HEAD: Duration = Duration::from_secs(120);
/// Idle connections are closed before servers do it.
const IDLE: Duration = Duration::from_secs(20);

/// Makes connections, and keeps them for the next request.
#[derive(Debug, Clone)]
pub(super) struct Connector(Client<HttpsConnector<Tcp>, HttpRequestBody>);

impl Connector {
    /// # Errors
    /// What is wrong with the file of roots.
    pub(super) fn new(roots: Option<&Path>) -> Result<Self, String> {
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(IDLE));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(crate::tls::client(roots)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        Ok(Self(client.build(https)))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// What went wrong on the way, so that the caller knows whether it may try again.
fn kind(error: &(dyn Error + 'static)) -> HttpErrorKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_timeout() {
                return HttpErrorKind::Timeout;
            }
            if error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted() {
                return HttpErrorKind::Interrupted;
            }
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::TimedOut => HttpErrorKind::Timeout,
                _ => HttpErrorKind::Interrupted,
            };
        }
        next = error.source();
    }
    HttpErrorKind::Unknown
}

impl HttpService for Connector {
    // As `async_trait` writes it, which is all that the trait needs of it.
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answer = tokio::time::timeout(HEAD, self.0.request(request)).await;
            let answer = answer.map_err(|error| HttpError::new(HttpErrorKind::Timeout, error))?;
            let answer = answer.map_err(|error| {
                let kind = if error.is_connect() {
                    HttpErrorKind::Connect
                } else {
                    kind(&error)
                };
                HttpError::new(kind, error)
            })?;
            Ok(answer.map(|body| HttpResponseBody::new(body.map_err(|error| HttpError::new(kind(&error), error)))))
        })
    }
}
