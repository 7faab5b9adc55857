//! What is read from a disk as the body of an answer.

use bytes::Bytes;
use futures::stream::{self, Stream};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::task::JoinHandle;

/// Bytes of a piece. Waking a thread, and each write to a socket, costs as much as hashing many kilobytes; above this size the
/// processor's caches lose what was read before it is sent.
const PIECE: usize = 1 << 20;

/// Something whose bytes are read one after the other, and checked by whoever reads them.
pub trait Pieces: Send + 'static {
    /// Writes the next bytes to the front of `piece` (1 MiB) and says how many there are; 0 at the end. Blocks.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` if the bytes are not what they should be: the answer is broken off.
    fn fill(&mut self, piece: &mut [u8]) -> io::Result<usize>;
}

/// Buffers that were sent, to be filled again: fresh memory for every piece costs more than reading it.
#[derive(Debug, Default)]
struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        known.unwrap_or_else(|| vec![0; PIECE])
    }
}

/// A filled buffer on its way. It returns to its pool when it was sent.
struct Filled {
    buffer: Vec<u8>,
    length: usize,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let mut pool = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.push(std::mem::take(&mut self.buffer));
    }
}

/// Begins to read the next piece.
fn begin<S: Pieces>(mut source: S, pool: Arc<Pool>) -> JoinHandle<io::Result<(Bytes, S)>> {
    tokio::task::spawn_blocking(move || {
        let mut buffer = pool.take();
        let length = source.fill(&mut buffer)?;
        Ok((Bytes::from_owner(Filled { buffer, length, pool }), source))
    })
}

/// The pieces of an answer. A thread is taken for each piece and not for the whole: a client that reads slowly holds none. The
/// next piece is read while the last one is sent. An error ends the answer before its length, so that the client sees that it is
/// not whole.
pub fn pieces(source: impl Pieces) -> impl Stream<Item = io::Result<Bytes>> {
    let pool = Arc::new(Pool::default());
    let first = begin(source, Arc::clone(&pool));
    stream::unfold(Some(first), move |next| {
        let pool = Arc::clone(&pool);
        async move {
            match next?.await.map_err(io::Error::other).flatten() {
                Ok((piece, _)) if piece.is_empty() => None,
                Ok((piece, source)) => Some((Ok(piece), Some(begin(source, pool)))),
                Err(error) => Some((Err(error), None)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use std::collections::VecDeque;

    /// Gives pieces of these sizes, then its end or an error.
    struct Given {
        sizes: VecDeque<usize>,
        fails: bool,
        filled: u8,
    }

    impl Pieces for Given {
        fn fill(&mut self, piece: &mut [u8]) -> io::Result<usize> {
            let Some(size) = self.sizes.pop_front() else {
                return if self.fails {
                    Err(io::ErrorKind::InvalidData.into())
                } else {
                    Ok(0)
                };
            };
            self.filled = self.filled.wrapping_add(1);
            piece[..size].fill(self.filled);
            Ok(size)
        }
    }

    async fn all(sizes: &[usize], fails: bool) -> Vec<Result<(usize, u8), io::ErrorKind>> {
        let source = Given {
            sizes: sizes.iter().copied().collect(),
            fails,
            filled: 0,
        };
        let pieces =
            pieces(source).map(|piece| piece.map(|bytes| (bytes.len(), bytes[0])).map_err(|error| error.kind()));
        pieces.collect().await
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_an_error_after_what_was_read_before_it() {
        assert_eq!(all(&[], false).await, []);
        assert_eq!(all(&[], true).await, [Err(io::ErrorKind::InvalidData)]);
        let sizes: Vec<usize> = (1..=23).collect();
        let good: Vec<_> = (1..=23).map(|n| Ok((n, n as u8))).collect();
        assert_eq!(all(&sizes, false).await, good);
        let mut bad = good;
        bad.push(Err(io::ErrorKind::InvalidData));
        assert_eq!(all(&sizes, true).await, bad);
    }

    #[tokio::test]
    async fn a_buffer_is_used_again_only_after_its_piece_is_gone() {
        let source = Given {
            sizes: [PIECE; 40].into_iter().collect(),
            fails: false,
            filled: 0,
        };
        let mut stream = std::pin::pin!(pieces(source));
        let mut held = Vec::new();
        let mut addresses = std::collections::HashSet::new();
        for n in 1..=40u8 {
            let piece = stream.next().await.unwrap().unwrap();
            addresses.insert(piece.as_ptr() as usize);
            held.push((n, piece));
            if held.len() > 5 {
                held.remove(0);
            }
            // What is held keeps its bytes, whatever is read meanwhile.
            for (n, piece) in &held {
                assert!(piece.iter().all(|byte| byte == n), "piece {n}");
            }
        }
        assert!(addresses.len() <= 5 + 2, "{} buffers", addresses.len());
    }
}
