//! A verified range as the body of an answer.

use crate::ranges::{Encoder, ReadAt};
use bytes::Bytes;
use futures::stream::{self, Stream};
use std::io::{self, Read};
use tokio::task::JoinHandle;

/// Bytes of a piece: small enough to stay in the processor's cache from reading to sending.
const PIECE: usize = 256 << 10;

type Next<D, O> = JoinHandle<io::Result<(Vec<u8>, Encoder<D, O>)>>;

fn begin<D, O>(mut encoder: Encoder<D, O>) -> Next<D, O>
where
    D: Read + Send + 'static,
    O: ReadAt + Send + 'static,
{
    tokio::task::spawn_blocking(move || encoder.piece(PIECE).map(|piece| (piece, encoder)))
}

/// The pieces of an answer. A thread is taken for each piece and not for the whole: a client that reads slowly holds none.
/// The next piece is read while the last one is sent. An error ends the answer before its length, so that the client sees that
/// it is not whole.
pub fn pieces<D, O>(encoder: Encoder<D, O>) -> impl Stream<Item = io::Result<Bytes>>
where
    D: Read + Send + 'static,
    O: ReadAt + Send + 'static,
{
    stream::unfold(Some(begin(encoder)), |next| async move {
        match next?.await.map_err(io::Error::other).flatten() {
            Ok((piece, _)) if piece.is_empty() => None,
            Ok((piece, encoder)) => Some((Ok(piece.into()), Some(begin(encoder)))),
            Err(error) => Some((Err(error), None)),
        }
    })
}
