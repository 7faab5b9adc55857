//! What is read from a disk as the body of an answer.

use crate::pool::Pool;
use bytes::Bytes;
use futures::stream::{self, Stream};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// Bytes of a piece. Waking a thread, and each write to a socket, costs as much as hashing many kilobytes; above this size the
/// processor's caches lose what was read before it is sent.
const PIECE: usize = 1 << 20;
/// Pieces that are read before somebody asks for them. More would keep a processor from sending that has nothing to send yet.
const AHEAD: usize = 2;

/// Something whose bytes are read one after the other, and checked by whoever reads them.
pub trait Pieces: Send + 'static {
    /// Writes the next bytes to the front of `piece` (1 MiB) and says how many there are; 0 at the end. Blocks.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` if the bytes are not what they should be: the answer is broken off.
    fn fill(&mut self, piece: &mut [u8]) -> io::Result<usize>;
}

/// What lies between the thread that reads and the task that sends.
struct Reading<S> {
    pool: Arc<Pool>,
    state: Mutex<State<S>>,
}

struct State<S> {
    /// What was read, in order; an error is the last.
    ready: VecDeque<io::Result<Bytes>>,
    /// Absent while a thread has it, and at its end.
    source: Option<S>,
    /// Nothing is read any more: everything was, or nobody wants it.
    ended: bool,
    /// The task that waits for a piece.
    waiting: Option<Waker>,
}

impl<S> Reading<S> {
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes who waits for a piece.
fn wake<S>(mut state: MutexGuard<'_, State<S>>) {
    let waiting = state.waiting.take();
    drop(state);
    if let Some(waiting) = waiting {
        waiting.wake();
    }
}

/// The source in the hands of a thread. Dropped with it, by a panic or because no thread could be had, it ends the answer with
/// an error: nobody waits for ever.
struct Turn<S> {
    reading: Arc<Reading<S>>,
    source: Option<S>,
}

impl<S: Pieces> Turn<S> {
    /// Reads until enough is ready.
    fn run(mut self) {
        while let Some(source) = self.source.as_mut() {
            let mut buffer = self.reading.pool.take();
            let piece = match source.fill(&mut buffer) {
                Ok(0) => None,
                Ok(length) => Some(Ok(buffer.filled(length))),
                Err(error) => Some(Err(error)),
            };
            let mut state = self.reading.state();
            state.ended = !matches!(piece, Some(Ok(_)));
            state.ready.extend(piece);
            if state.ended || state.ready.len() >= AHEAD {
                state.source = self.source.take();
            }
            wake(state);
        }
    }
}

impl<S> Drop for Turn<S> {
    fn drop(&mut self) {
        if self.source.is_some() {
            let mut state = self.reading.state();
            state.ended = true;
            state
                .ready
                .push_back(Err(io::Error::other("the thread that read is gone")));
            wake(state);
        }
    }
}

/// The pieces of an answer. A thread reads some of them ahead and is then free: a client that reads slowly holds none. An error
/// ends the answer before its length, so that the client sees that it is not whole.
pub fn pieces(source: impl Pieces) -> impl Stream<Item = io::Result<Bytes>> {
    let reading = Arc::new(Reading {
        pool: Pool::new(PIECE),
        state: Mutex::new(State {
            ready: VecDeque::new(),
            source: Some(source),
            ended: false,
            waiting: None,
        }),
    });
    stream::poll_fn(move |context| {
        let mut state = reading.state();
        let piece = state.ready.pop_front();
        if piece.is_none() && !state.ended {
            state.waiting = Some(context.waker().clone());
        }
        let source = (!state.ended).then(|| state.source.take()).flatten();
        let ended = state.ended;
        drop(state);
        if source.is_some() {
            let turn = Turn {
                reading: Arc::clone(&reading),
                source,
            };
            tokio::task::spawn_blocking(move || turn.run());
        }
        match piece {
            None if !ended => Poll::Pending,
            piece => Poll::Ready(piece),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

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
        assert!(addresses.len() <= 5 + AHEAD + 1, "{} buffers", addresses.len());
    }

    /// Panics at its third piece.
    struct Panics(u8);

    impl Pieces for Panics {
        fn fill(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            assert!(self.0 < 3, "as it should");
            Ok(1)
        }
    }

    #[tokio::test]
    async fn a_thread_that_panics_ends_the_answer_with_an_error() {
        let all: Vec<bool> = pieces(Panics(0)).map(|piece| piece.is_ok()).collect().await;
        assert_eq!(all, [true, true, false]);
    }

    /// Counts how often it was read.
    struct Counts(Arc<AtomicUsize>);

    impl Pieces for Counts {
        fn fill(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(1)
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_a_slow_client_may_leave_lying() {
        let count = Arc::new(AtomicUsize::new(0));
        let mut stream = std::pin::pin!(pieces(Counts(Arc::clone(&count))));
        for taken in 0..5 {
            while count.load(Ordering::SeqCst) < taken + AHEAD && taken > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(count.load(Ordering::SeqCst) <= taken + AHEAD, "{taken}");
            stream.next().await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_source_ends_with_its_answer() {
        let count = Arc::new(AtomicUsize::new(0));
        let mut stream = Box::pin(pieces(Counts(Arc::clone(&count))));
        stream.next().await.unwrap().unwrap();
        drop(stream);
        while Arc::strong_count(&count) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(count.load(Ordering::SeqCst) <= 1 + AHEAD);
    }
}
