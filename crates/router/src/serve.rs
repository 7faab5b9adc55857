//! Connections of clients.
//!
//! An accept loop of our own, because the one of axum writes every client's address to the log (at level `trace`), and has
//! no time limits: here a head must arrive in time, and a client that stops reading is cut off.

use axum::{Router, body::Body, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Largest head of a request, bytes. A payment header may have 16 KiB.
const MAX_HEAD: usize = 64 << 10;
/// Pause after the system refused a connection, when it has no more descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then until every answer has left.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    stopping: CancellationToken,
    connections: usize,
    idle: Duration,
) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(connections));
    loop {
        let accepted = tokio::select! {
            // More connections wait in the system's queue.
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
            () = stopping.cancelled() => break,
        };
        let (Ok(slot), Ok((tcp, address))) = accepted else {
            tracing::debug!("a connection was not accepted");
            sleep(PAUSE).await;
            continue;
        };
        // Pieces of a stream must not wait for each other's acknowledgement.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        let app = app.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(address));
            app.clone().oneshot(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Timed::new(tcp, idle)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // What goes wrong here is a client's affair.
            let _ = connection.await;
            drop(slot);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// A connection whose writes fail when the other side takes nothing for too long.
struct Timed {
    tcp: TcpStream,
    idle: Duration,
    /// Runs while a write waits.
    clock: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Timed {
    fn new(tcp: TcpStream, idle: Duration) -> Self {
        Self {
            tcp,
            idle,
            clock: Box::pin(sleep(idle)),
            waiting: false,
        }
    }

    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = write(Pin::new(&mut self.tcp), cx) {
            self.waiting = false;
            return Poll::Ready(done);
        }
        if !std::mem::replace(&mut self.waiting, true) {
            self.clock.as_mut().reset(Instant::now() + self.idle);
        }
        ready!(self.clock.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client stopped reading",
        )))
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watched(cx, |tcp, cx| tcp.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watched(cx, |tcp, cx| tcp.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched(cx, AsyncWrite::poll_shutdown)
    }
}
