//! Connections to nodes.

use crate::address::is_public;
use axum::body::Body;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client, Error,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Looks names up, and keeps public addresses only.
#[derive(Debug, Clone, Copy)]
struct Resolver {
    private: bool,
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let private = self.private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let usable: Vec<SocketAddr> = found.filter(|a| private || is_public(a.ip())).collect();
            if usable.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the name has private addresses only",
                ));
            }
            Ok(usable.into_iter())
        })
    }
}

/// Sends requests to nodes and hands bodies through as they come.
#[derive(Debug, Clone)]
pub(crate) struct Outbound(Client<HttpsConnector<HttpConnector<Resolver>>, Body>);

impl Outbound {
    /// TLS by the Web PKI's roots, HTTP/1.1. No redirects, no proxy variables.
    pub(crate) fn new(private: bool, connect: Duration) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new_with_resolver(Resolver { private });
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(64)
            .http1_max_buf_size(256 << 10)
            .build(connector);
        Ok(Self(client))
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        self.0.request(request).await
    }

    /// A small `GET`; at most `limit` bytes of a 200 answer.
    pub(crate) async fn get(&self, url: &str, limit: usize, within: Duration) -> Result<Vec<u8>, String> {
        use http_body_util::{BodyExt as _, Limited};
        let uri: Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
        let request = Request::get(uri)
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        let answer = async {
            let response = self.send(request).await.map_err(|error| cause(&error))?;
            if response.status() != http::StatusCode::OK {
                return Err(format!("HTTP {}", response.status()));
            }
            let body = Limited::new(response.into_body(), limit).collect().await;
            body.map(|body| body.to_bytes().to_vec())
                .map_err(|error| error.to_string())
        };
        match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", within.as_secs())),
        }
    }
}

/// The innermost message: "connection refused" says more than "client error".
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(next) = error.source() {
        error = next;
    }
    error.to_string()
}
