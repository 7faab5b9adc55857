//! Connections to one provider: TCP, TLS that ends here, HTTP/1.1, and the ones kept for the next request.

use crate::{
    config::{ConfigError, Roots, UpstreamConfig, bad},
    error::UpstreamError,
    facts::Peer,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring, pki_types::ServerName};
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Connections that were idle for longer are not used again: servers close theirs at about this time.
const KEEP: Duration = Duration::from_secs(30);
/// Largest head of an answer, bytes.
const MAX_HEAD: usize = 64 << 10;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    pub(crate) peer: Option<Arc<Peer>>,
    /// Whether it has served a request before, so that the server may have closed it meanwhile.
    pub(crate) used: bool,
}

/// Makes and keeps connections.
pub(crate) struct Connector {
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<VecDeque<(Connection, Instant)>>,
    keep: usize,
}

/// Verified TLS 1.2 and 1.3, without resumption: every connection shows its certificates anew.
fn tls_config(roots: &Roots) -> Result<ClientConfig, ConfigError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::WebPki => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::Only(roots) => {
            for root in roots {
                store
                    .add(root.clone())
                    .map_err(|error| bad("roots", error.to_string()))?;
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad("tls", error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("tls", &self.tls.is_some())
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

impl Connector {
    pub(crate) fn new(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        let tls = if config.endpoint.tls {
            let name = ServerName::try_from(config.endpoint.name().to_owned())
                .map_err(|error| bad("url", format!("host: {error}")))?;
            Some((TlsConnector::from(Arc::new(tls_config(&config.roots)?)), name))
        } else {
            None
        };
        Ok(Self {
            tls,
            idle: Mutex::default(),
            keep: config.idle_connections,
        })
    }

    /// A kept connection, the newest first.
    pub(crate) fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| since.elapsed() < KEEP && !connection.sender.is_closed());
        idle.pop_back().map(|(connection, _)| connection)
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn keep(&self, mut connection: Connection) {
        connection.used = true;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.sender.is_closed() || self.keep == 0 {
            return;
        }
        while idle.len() >= self.keep {
            idle.pop_front();
        }
        idle.push_back((connection, Instant::now()));
    }

    /// A new connection. No deadline: the caller has one.
    pub(crate) async fn open(&self, config: &UpstreamConfig) -> Result<Connection, UpstreamError> {
        let host = &config.endpoint.host;
        let connect = |reason: String| UpstreamError::Connect {
            host: host.clone(),
            reason,
        };
        let tcp = match config.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect((config.endpoint.name(), config.endpoint.port)).await,
        };
        let tcp = tcp.map_err(|error| connect(error.to_string()))?;
        // Small requests must not wait for each other's acknowledgement.
        tcp.set_nodelay(true).map_err(|error| connect(error.to_string()))?;
        let Some((tls, name)) = &self.tls else {
            let address = tcp.peer_addr().map_err(|error| connect(error.to_string()))?;
            if !address.ip().is_loopback() {
                return Err(connect(
                    "plain HTTP is for servers on this machine; use https://".into(),
                ));
            }
            return handshake(tcp, None, host).await;
        };
        let not_authentic = |reason: String| UpstreamError::Tls {
            host: host.clone(),
            reason,
        };
        let stream = tls
            .connect(name.clone(), tcp)
            .await
            .map_err(|error| not_authentic(error.to_string()))?;
        let (_, tls) = stream.get_ref();
        let peer = Peer::new(
            tls.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default(),
            tls.negotiated_cipher_suite()
                .map(|suite| format!("{:?}", suite.suite()))
                .unwrap_or_default(),
            tls.peer_certificates().unwrap_or_default(),
        )
        .map_err(not_authentic)?;
        handshake(stream, Some(Arc::new(peer)), host).await
    }
}

async fn handshake<S>(stream: S, peer: Option<Arc<Peer>>, host: &str) -> Result<Connection, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| UpstreamError::Connect {
            host: host.to_owned(),
            reason: error.to_string(),
        })?;
    // Moves bytes until the connection ends; what goes wrong is reported to the request that is running.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a provider ended");
        }
    });
    Ok(Connection {
        sender,
        peer,
        used: false,
    })
}
