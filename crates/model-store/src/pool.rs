//! Buffers that are used again: fresh memory for every megabyte costs as much as reading it.

use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers of one size whose bytes are gone, to be filled again.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// A pool of buffers of `size` bytes.
    pub(crate) fn new(size: usize) -> Arc<Self> {
        let free = Mutex::default();
        Arc::new(Self { size, free })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer, whatever is in it.
    pub(crate) fn take(&self) -> Vec<u8> {
        let known = self.free().pop();
        known.unwrap_or_else(|| vec![0; self.size])
    }

    /// The first `length` bytes of a buffer. It returns to the pool when nobody has them any more.
    pub(crate) fn lend(self: &Arc<Self>, buffer: Vec<u8>, length: usize) -> Bytes {
        let pool = Arc::clone(self);
        Bytes::from_owner(Filled { buffer, length, pool })
    }
}

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
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.free().push(buffer);
    }
}

/// Makes pieces of one size of what arrives in smaller and larger ones. What arrived is free at once, so that whoever reads the
/// socket uses the same buffer again.
#[derive(Debug)]
pub struct Gather {
    pool: Arc<Pool>,
    buffer: Vec<u8>,
    length: usize,
}

impl Default for Gather {
    fn default() -> Self {
        Self {
            pool: Pool::new(Self::PIECE),
            buffer: Vec::new(),
            length: 0,
        }
    }
}

impl Gather {
    /// Bytes of a piece: with the buffer of the socket's reader, what fits a processor's own cache. Pieces four times as large cost
    /// a third more processor time, from the socket to the disk and through three hashes.
    pub const PIECE: usize = 256 << 10;

    /// Takes bytes from the front of `bytes`, and returns a piece if that made one whole; then `bytes` has what is left.
    pub fn add(&mut self, bytes: &mut &[u8]) -> Option<Bytes> {
        if self.buffer.is_empty() && !bytes.is_empty() {
            self.buffer = self.pool.take();
        }
        let room = self.buffer.get_mut(self.length..).unwrap_or_default();
        let (now, later) = bytes.split_at_checked(room.len()).unwrap_or((*bytes, &[]));
        if let Some(room) = room.get_mut(..now.len()) {
            room.copy_from_slice(now);
        }
        self.length += now.len();
        *bytes = later;
        (self.length == Self::PIECE).then(|| self.lend())
    }

    /// What has come since the last piece; `None` if nothing has.
    pub fn rest(&mut self) -> Option<Bytes> {
        (self.length > 0).then(|| self.lend())
    }

    fn lend(&mut self) -> Bytes {
        let length = std::mem::take(&mut self.length);
        self.pool.lend(std::mem::take(&mut self.buffer), length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const PIECE: usize = Gather::PIECE;

    #[test]
    fn pieces_have_the_bytes_in_their_order_and_buffers_are_used_again() {
        for small in [1 << 10, 400_000, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let content: Vec<u8> = (0..10 * PIECE + 13).map(|n| (n * 7 / 5) as u8).collect();
            let (mut gather, mut got, mut addresses) = (Gather::default(), Vec::new(), HashSet::new());
            let mut take = |piece: Bytes| {
                addresses.insert(piece.as_ptr() as usize);
                got.extend_from_slice(&piece);
                piece.len()
            };
            for mut bytes in content.chunks(small) {
                while !bytes.is_empty() {
                    if let Some(piece) = gather.add(&mut bytes) {
                        assert_eq!(take(piece), PIECE);
                    }
                }
            }
            assert_eq!(take(gather.rest().unwrap()), 13);
            assert!(gather.rest().is_none());
            assert!(got == content, "pieces of {small}");
            assert_eq!(addresses.len(), 1, "one buffer is enough if nobody holds one");
        }
        let mut gather = Gather::default();
        assert!(gather.add(&mut &[][..]).is_none());
        assert!(gather.rest().is_none());
    }

    #[test]
    fn what_is_held_is_not_overwritten() {
        let mut gather = Gather::default();
        let held: Vec<Bytes> = (0..5u8)
            .map(|n| gather.add(&mut &vec![n; PIECE][..]).unwrap())
            .collect();
        for (n, piece) in (0..).zip(&held) {
            assert!(piece.iter().all(|byte| *byte == n));
        }
    }
}
