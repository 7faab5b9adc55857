//! Transactions and receipts between validators, beside consensus on a channel of their own.
//!
//! Gossip is best effort: bounded in size, memory and rate, and dropped with a count when a queue is
//! full. Messages are collected for a few milliseconds and sent as one frame,
//! `topic u8 || (u32 length || payload)*`, because the network limits frames, not bytes.

use crate::{keys::Identity, shared::Shared};
use alloy_primitives::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Receiver, Recipients, Sender};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Frames per second that a peer may send. Each slot is reserved in memory at start.
pub(crate) const FRAMES_PER_SECOND: u32 = 512;

/// Largest frame. At least one message of any topic fits.
pub(crate) const MAX_FRAME_BYTES: usize = (1 << 20) + (64 << 10);

/// Pause between frames: at four frames (one per topic) every 10 ms, and greetings, well below
/// [`FRAMES_PER_SECOND`].
const COLLECT: Duration = Duration::from_millis(10);

/// Messages and bytes that wait in each direction.
const QUEUE_MESSAGES: usize = 16_384;
const QUEUE_BYTES: usize = 32 << 20;

/// Greetings show peers that this validator is connected.
const GREETING: Duration = Duration::from_secs(1);
const FIRST_GREETINGS: Duration = Duration::from_millis(100);
const HELLO: u8 = 0;

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A signed EVM transaction, EIP-2718 bytes.
    Transaction,
    /// A signed receipt.
    Receipt,
    /// A signed receipt with the proof of its answer.
    ProvenReceipt,
    /// Core hashes of receipts, each with the hash of the artefact that the sender lacks.
    ProofRequest,
}

impl Topic {
    const ALL: [Self; 4] = [
        Self::Transaction,
        Self::Receipt,
        Self::ProvenReceipt,
        Self::ProofRequest,
    ];

    /// Largest payload, in bytes.
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Transaction => 128 << 10,
            Self::Receipt => 8 << 10,
            Self::ProvenReceipt => (1 << 20) + (32 << 10),
            Self::ProofRequest => 64 * 64,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Transaction => 1,
            Self::Receipt => 2,
            Self::ProvenReceipt => 3,
            Self::ProofRequest => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.code() == code)
    }
}

/// A message from a peer. The peer relayed it; it need not be its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipMessage {
    /// The peer.
    pub from: Identity,
    /// What the payload is.
    pub topic: Topic,
    /// Unchecked bytes, at most [`Topic::max_bytes`] and not empty.
    pub payload: Bytes,
}

/// Why a message is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GossipError {
    /// The payload is empty.
    #[error("the message is empty")]
    Empty,
    /// The payload is longer than the topic allows.
    #[error("message of {got} bytes, at most {limit}")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// Too much waits to be sent; the message was dropped.
    #[error("the gossip queue is full")]
    Full,
    /// Consensus has stopped.
    #[error("consensus has stopped")]
    Stopped,
}

/// A queue bounded in messages and in bytes.
fn queue<T>() -> (QueueSender<T>, QueueReceiver<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES);
    let bytes = Arc::new(AtomicUsize::new(0));
    (
        QueueSender {
            sender,
            bytes: bytes.clone(),
        },
        QueueReceiver { receiver, bytes },
    )
}

pub(crate) struct QueueSender<T> {
    sender: mpsc::Sender<(usize, T)>,
    bytes: Arc<AtomicUsize>,
}

struct QueueReceiver<T> {
    receiver: mpsc::Receiver<(usize, T)>,
    bytes: Arc<AtomicUsize>,
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            bytes: self.bytes.clone(),
        }
    }
}

impl<T> QueueSender<T> {
    fn push(&self, size: usize, item: T) -> Result<(), GossipError> {
        if self.bytes.fetch_add(size, Ordering::AcqRel) + size > QUEUE_BYTES {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            return Err(GossipError::Full);
        }
        self.sender.try_send((size, item)).map_err(|error| {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            match error {
                mpsc::error::TrySendError::Full(_) => GossipError::Full,
                mpsc::error::TrySendError::Closed(_) => GossipError::Stopped,
            }
        })
    }
}

impl<T> QueueReceiver<T> {
    fn take(&self, (size, item): (usize, T)) -> T {
        self.bytes.fetch_sub(size, Ordering::AcqRel);
        item
    }

    async fn recv(&mut self) -> Option<T> {
        let entry = self.receiver.recv().await?;
        Some(self.take(entry))
    }

    fn try_recv(&mut self) -> Option<T> {
        let entry = self.receiver.try_recv().ok()?;
        Some(self.take(entry))
    }
}

/// Messages from peers, in order of arrival.
pub struct GossipReceiver(QueueReceiver<GossipMessage>);

impl fmt::Debug for GossipReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GossipReceiver")
    }
}

impl GossipReceiver {
    /// The next message; `None` once consensus has stopped and all are taken. Take messages quickly:
    /// above 16,384 waiting ones, or 32 MiB, new ones are dropped.
    pub async fn recv(&mut self) -> Option<GossipMessage> {
        self.0.recv().await
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<GossipMessage> {
        self.0.try_recv()
    }
}

/// Sending end, kept by the handle.
#[derive(Clone)]
pub(crate) struct Outbox(QueueSender<(Topic, Bytes)>);

impl Outbox {
    pub(crate) fn send(&self, topic: Topic, payload: Bytes) -> Result<(), GossipError> {
        let (got, limit) = (payload.len(), topic.max_bytes());
        if got == 0 {
            return Err(GossipError::Empty);
        }
        if got > limit {
            return Err(GossipError::TooLarge { limit, got });
        }
        self.0.push(got, (topic, payload))
    }
}

/// The engine's ends of both queues.
pub(crate) struct Gossip {
    outgoing: QueueReceiver<(Topic, Bytes)>,
    incoming: QueueSender<GossipMessage>,
    shared: Arc<Shared>,
}

pub(crate) fn gossip(shared: Arc<Shared>) -> (Gossip, Outbox, GossipReceiver) {
    let (outbox, outgoing) = queue();
    let (incoming, inbox) = queue();
    let engine = Gossip {
        outgoing,
        incoming,
        shared,
    };
    (engine, Outbox(outbox), GossipReceiver(inbox))
}

impl Gossip {
    /// Serves the channel until the network ends.
    pub(crate) async fn run(
        self,
        sender: impl Sender<PublicKey = PublicKey>,
        receiver: impl Receiver<PublicKey = PublicKey>,
    ) {
        let Self {
            outgoing,
            incoming,
            shared,
        } = self;
        tokio::join!(
            send(sender.clone(), outgoing, &shared),
            greet(sender, &shared),
            receive(receiver, incoming, &shared),
        );
    }
}

async fn send(
    mut sender: impl Sender<PublicKey = PublicKey>,
    mut outgoing: QueueReceiver<(Topic, Bytes)>,
    shared: &Shared,
) {
    let mut next = outgoing.recv().await;
    while let Some((topic, payload)) = next.take() {
        let mut frames = Topic::ALL.map(|topic| (topic, vec![topic.code()], 0));
        let mut message = Some((topic, payload));
        while let Some((topic, payload)) = message {
            let Some((_, frame, count)) = frames.iter_mut().find(|(of, ..)| *of == topic) else {
                break;
            };
            if frame.len() + 4 + payload.len() > MAX_FRAME_BYTES {
                next = Some((topic, payload));
                break;
            }
            // lengths were bounded on the way in
            frame.extend((payload.len() as u32).to_be_bytes());
            frame.extend_from_slice(&payload);
            *count += 1;
            message = outgoing.try_recv();
        }
        for (_, frame, count) in frames {
            if count > 0 {
                let _ = sender.send(Recipients::All, frame, false);
                shared.count(|stats| stats.gossip_sent += count);
            }
        }
        tokio::time::sleep(COLLECT).await;
        if next.is_none() {
            next = outgoing.recv().await;
        }
    }
}

async fn greet(mut sender: impl Sender<PublicKey = PublicKey>, shared: &Shared) {
    let mut early = 100u32;
    while !shared.has_ended() {
        let _ = sender.send(Recipients::All, vec![HELLO], false);
        early = early.saturating_sub(1);
        let pause = if early > 0 { FIRST_GREETINGS } else { GREETING };
        tokio::time::sleep(pause).await;
    }
}

async fn receive(
    mut receiver: impl Receiver<PublicKey = PublicKey>,
    incoming: QueueSender<GossipMessage>,
    shared: &Shared,
) {
    while let Ok((peer, frame)) = receiver.recv().await {
        let from = Identity::of(&peer);
        shared.heard(from);
        let Some((topic, payloads)) = parse(&Bytes::from(bytes::Bytes::from(frame))) else {
            shared.count(|stats| stats.gossip_malformed += 1);
            continue;
        };
        let (mut received, mut dropped) = (0, 0);
        for payload in payloads {
            received += 1;
            let size = payload.len();
            let message = GossipMessage { from, topic, payload };
            if incoming.push(size, message).is_err() {
                dropped += 1;
            }
        }
        shared.count(|stats| {
            stats.gossip_received += received;
            stats.gossip_dropped += dropped;
        });
    }
}

/// Topic and payloads of a frame; a greeting has none. `None` if any part is malformed.
fn parse(frame: &Bytes) -> Option<(Topic, Vec<Bytes>)> {
    let code = *frame.first()?;
    if code == HELLO {
        return (frame.len() == 1).then(|| (Topic::Transaction, Vec::new()));
    }
    let topic = Topic::from_code(code)?;
    let mut payloads = Vec::new();
    let mut at = 1;
    while at < frame.len() {
        let length = frame.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)? as usize;
        at += 4;
        if length == 0 || length > topic.max_bytes() || length > frame.len() - at {
            return None;
        }
        payloads.push(frame.slice(at..at + length));
        at += length;
    }
    Some((topic, payloads))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(topic: u8, payloads: &[&[u8]]) -> Bytes {
        let mut frame = vec![topic];
        for payload in payloads {
            frame.extend((payload.len() as u32).to_be_bytes());
            frame.extend_from_slice(payload);
        }
        frame.into()
    }

    #[test]
    fn frames_parse_back() {
        let parsed = parse(&frame(2, &[b"one", b"two"]));
        let payloads = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        assert_eq!(parsed, Some((Topic::Receipt, payloads)));
        assert_eq!(parse(&frame(HELLO, &[])).map(|(_, p)| p.len()), Some(0));
    }

    #[test]
    fn malformed_frames_are_refused_whole() {
        let large = vec![1; Topic::Receipt.max_bytes() + 1];
        let cut = frame(1, &[b"payload"]).slice(..8);
        let bad = [
            Bytes::new(),
            frame(HELLO, &[b"x"]),
            frame(9, &[b"x"]),
            frame(1, &[b""]),
            frame(2, &[&large]),
            cut,
        ];
        for frame in bad {
            assert_eq!(parse(&frame), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes.into());
        }
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_recovers() {
        let (sender, mut receiver) = queue::<u8>();
        assert_eq!(sender.push(QUEUE_BYTES, 1), Ok(()));
        assert_eq!(sender.push(1, 2), Err(GossipError::Full));
        assert_eq!(receiver.recv().await, Some(1));
        assert_eq!(sender.push(1, 3), Ok(()));
        for _ in 1..QUEUE_MESSAGES {
            assert_eq!(sender.push(1, 3), Ok(()));
        }
        assert_eq!(sender.push(1, 3), Err(GossipError::Full));
        drop(receiver);
        assert_eq!(sender.push(1, 3), Err(GossipError::Stopped));
    }

    #[test]
    fn payloads_are_bounded_by_topic() {
        let (_engine, outbox, _inbox) = gossip(Arc::new(Shared::new()));
        let limit = Topic::Receipt.max_bytes();
        assert_eq!(outbox.send(Topic::Receipt, vec![0; limit].into()), Ok(()));
        let got = limit + 1;
        let refused = Err(GossipError::TooLarge { limit, got });
        assert_eq!(outbox.send(Topic::Receipt, vec![0; got].into()), refused);
        assert_eq!(outbox.send(Topic::Transaction, vec![0; got].into()), Ok(()));
        assert_eq!(outbox.send(Topic::Receipt, Bytes::new()), Err(GossipError::Empty));
    }
}
