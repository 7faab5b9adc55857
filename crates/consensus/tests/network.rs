//! Networks of four validators in one process, over real TCP on localhost, with a toy chain whose
//! "EVM block" is text naming its parent and height.

use alloy_primitives::{B256, Bytes, keccak256};
use opg_consensus::{
    BoxError, BoxFuture, ChainApplication, ChainBlock, Config, ConsensusError, Handle, Peer, ProposeContext,
    ProposedBody, Topic, Verdict, VerifyContext, envelope_digest, keys::ValidatorKeys, start, verify_certificate,
};
use std::{
    collections::{BTreeMap, HashSet},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const GENESIS: B256 = B256::repeat_byte(0x67);
const EVM_GENESIS: B256 = B256::repeat_byte(0xe0);

/// Everything that must survive a restart is in `finalized`; `states` is what a node has executed.
#[derive(Default)]
struct Toy {
    states: Mutex<HashSet<B256>>,
    finalized: Mutex<BTreeMap<u64, B256>>,
    /// Height at which `finalized` fails.
    broken_at: Option<u64>,
    /// Propose what no honest validator accepts.
    liar: bool,
}

fn evm_of(parent: B256, height: u64) -> (B256, Bytes) {
    let evm = Bytes::from(format!("{parent} {height}").into_bytes());
    (keccak256(&evm), evm)
}

impl Toy {
    fn import(&self, block: &ChainBlock, parent: B256) -> Result<(), String> {
        let (hash, evm) = evm_of(parent, block.height);
        if (hash, &evm) != (block.evm_hash, &block.evm) {
            return Err("not the block that follows".into());
        }
        if parent != EVM_GENESIS && !self.states.lock().unwrap().contains(&parent) {
            return Err("parent has no state".into());
        }
        self.states.lock().unwrap().insert(hash);
        Ok(())
    }

    fn import_missing(&self, missing: &[Arc<ChainBlock>]) -> Result<(), BoxError> {
        for block in missing {
            let text = String::from_utf8(block.evm.to_vec())?;
            let parent = text.split(' ').next().unwrap_or_default().parse()?;
            self.import(block, parent)?;
        }
        Ok(())
    }
}

impl ChainApplication for Toy {
    fn has_state(&self, evm_hash: B256) -> BoxFuture<'_, Result<bool, BoxError>> {
        Box::pin(async move { Ok(self.states.lock().unwrap().contains(&evm_hash)) })
    }

    fn propose(&self, context: ProposeContext) -> BoxFuture<'_, Result<Option<ProposedBody>, BoxError>> {
        Box::pin(async move {
            self.import_missing(&context.missing)?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let claimed = context.height + u64::from(self.liar);
            let (evm_hash, evm) = evm_of(context.parent.evm_hash, claimed);
            if !self.liar {
                self.states.lock().unwrap().insert(evm_hash);
            }
            let receipts = vec![Bytes::from(vec![7; 100])];
            Ok(Some(ProposedBody {
                evm_hash,
                evm,
                receipts,
                proofs: Vec::new(),
            }))
        })
    }

    fn verify(&self, context: VerifyContext) -> BoxFuture<'_, Result<Verdict, BoxError>> {
        Box::pin(async move {
            self.import_missing(&context.missing)?;
            let verdict = self.import(&context.block, context.parent.evm_hash);
            Ok(verdict.map_or_else(Verdict::Invalid, |()| Verdict::Valid))
        })
    }

    fn finalized(&self, block: Arc<ChainBlock>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            if self.broken_at == Some(block.height) {
                return Err("the disk is full".into());
            }
            let mut finalized = self.finalized.lock().unwrap();
            let newest = finalized.last_key_value().map_or(0, |(height, _)| *height);
            if block.height > newest + 1 {
                return Err(format!("block {} after {newest}", block.height).into());
            }
            self.states.lock().unwrap().insert(block.evm_hash);
            let before = finalized.insert(block.height, block.evm_hash);
            if before.is_some_and(|before| before != block.evm_hash) {
                return Err("another block is final at this height".into());
            }
            Ok(())
        })
    }

    fn executed_height(&self) -> BoxFuture<'_, Result<u64, BoxError>> {
        Box::pin(async move {
            let finalized = self.finalized.lock().unwrap();
            Ok(finalized.last_key_value().map_or(0, |(height, _)| *height))
        })
    }
}

struct Net {
    dir: TempDir,
    keys: Vec<ValidatorKeys>,
    addresses: Vec<SocketAddr>,
}

impl Net {
    fn new() -> Self {
        // all listeners are held until every port is known, so that the ports differ
        let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        Self {
            dir: tempfile::tempdir().unwrap(),
            keys: (0..4).map(|_| ValidatorKeys::generate()).collect(),
            addresses: listeners.iter().map(|l| l.local_addr().unwrap()).collect(),
        }
    }

    fn config(&self, i: usize) -> Config {
        let participants = self.keys.iter().map(ValidatorKeys::participant).collect();
        let peers = self.keys.iter().zip(&self.addresses);
        let peers = peers.map(|(keys, address)| Peer {
            identity: keys.identity.public(),
            address: *address,
        });
        Config::new(
            self.folder(i),
            self.keys[i].clone(),
            participants,
            GENESIS,
            EVM_GENESIS,
            self.addresses[i],
            peers.collect(),
        )
    }

    fn folder(&self, i: usize) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(format!("v{i}"))
    }

    fn start(&self, i: usize, application: Toy) -> (Handle, Arc<Toy>) {
        let application = Arc::new(application);
        let handle = start(self.config(i), application.clone()).unwrap();
        (handle, application)
    }
}

async fn reach(handle: &Handle, height: u64) {
    let began = Instant::now();
    while handle.finalized_height() < height {
        let stats = handle.stats();
        assert!(began.elapsed() < Duration::from_secs(15), "{handle:?} {stats:?}");
        assert!(handle.failure().is_none(), "{:?}", handle.failure());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_validators_finalize_prove_gossip_and_catch_up() {
    let net = Net::new();
    let mut nodes: Vec<_> = (0..4).map(|i| net.start(i, Toy::default())).collect();
    for (handle, _) in &nodes {
        reach(handle, 5).await;
    }
    let chain = nodes[0].1.finalized.lock().unwrap().clone();
    let common: Vec<_> = chain.range(..=5).collect();
    for (_, application) in &nodes {
        let other = application.finalized.lock().unwrap().clone();
        assert_eq!(other.range(..=5).collect::<Vec<_>>(), common);
    }

    // certificates verify with the engine's own verifier and open to the block
    let participants: Vec<_> = net.keys.iter().map(ValidatorKeys::participant).collect();
    for height in 1..=5 {
        let block = nodes[0].0.block(height).await.unwrap().unwrap();
        let proof = nodes[1].0.finalization(height).await.unwrap().unwrap();
        let digest = verify_certificate(GENESIS, &participants, &proof.proposal, &proof.certificate);
        assert_eq!(digest.unwrap(), envelope_digest(proof.envelopes.last().unwrap()));
        assert_eq!(proof.envelopes[0], block.envelope());
        assert_eq!(proof.envelopes.len() as u64, proof.height - height + 1);
        assert_eq!(proof.certificate.len(), 57);
        for pair in proof.envelopes.windows(2) {
            assert_eq!(pair[1][..32], envelope_digest(&pair[0])[..]);
        }
        let refused = verify_certificate(EVM_GENESIS, &participants, &proof.proposal, &proof.certificate);
        assert!(refused.is_err(), "a certificate of another chain");
        let mut altered = proof.proposal.to_vec();
        *altered.last_mut().unwrap() ^= 1;
        assert!(verify_certificate(GENESIS, &participants, &altered, &proof.certificate).is_err());
    }
    assert_eq!(nodes[0].0.block(1_000_000).await.unwrap(), None);
    assert_eq!(nodes[0].0.finalization(1_000_000).await.unwrap(), None);

    // gossip reaches the three others, whole and in order
    let mut inboxes: Vec<_> = nodes[1..].iter().map(|(handle, _)| handle.gossip().unwrap()).collect();
    assert!(nodes[1].0.gossip().is_none());
    let large = Bytes::from(vec![9; Topic::Transaction.max_bytes()]);
    for i in 0..20u8 {
        nodes[0].0.broadcast(Topic::Receipt, vec![i + 1; 200]).unwrap();
    }
    nodes[0].0.broadcast(Topic::Transaction, large.clone()).unwrap();
    // the largest message of all: it fills a frame
    let proven: Bytes = vec![9; Topic::ProvenReceipt.max_bytes()].into();
    nodes[0].0.broadcast(Topic::ProvenReceipt, proven.clone()).unwrap();
    for inbox in &mut inboxes {
        let (mut receipts, mut transactions, mut proofs) = (Vec::new(), Vec::new(), Vec::new());
        while receipts.len() < 20 || transactions.is_empty() || proofs.is_empty() {
            let next = tokio::time::timeout(Duration::from_secs(5), inbox.recv()).await;
            let message = next.expect("gossip arrives").unwrap();
            assert_eq!(message.from, net.keys[0].identity.public());
            match message.topic {
                Topic::Receipt => receipts.push(message.payload[0]),
                Topic::Transaction => transactions.push(message.payload),
                Topic::ProvenReceipt => proofs.push(message.payload),
                Topic::ProofRequest => panic!("nobody asked"),
            }
        }
        assert_eq!(receipts, (1..=20).collect::<Vec<_>>());
        assert_eq!(transactions, vec![large.clone()]);
        assert_eq!(proofs, vec![proven.clone()]);
    }
    let stats = nodes[0].0.stats();
    assert_eq!((stats.peers, stats.rejections, stats.gossip_dropped), (3, 0, 0));
    assert!(stats.proposals > 0 && !stats.build_to_finalized_ms.is_empty());

    // one stops; three go on; it comes back with its archive and an application that lost everything
    let (stopped, _) = nodes.pop().unwrap();
    stopped.shutdown().await.unwrap();
    assert!(stopped.failure().is_none());
    assert!(matches!(stopped.block(1).await, Err(ConsensusError::Stopped)));
    let there = nodes[0].0.finalized_height();
    reach(&nodes[0].0, there + 3).await;
    let (back, application) = net.start(3, Toy::default());
    let target = nodes[0].0.finalized_height() + 2;
    reach(&back, target).await;
    let finalized = application.finalized.lock().unwrap().clone();
    let reference = nodes[0].1.finalized.lock().unwrap().clone();
    for height in 1..=target {
        assert_eq!(
            finalized.get(&height),
            reference.get(&height).or(finalized.get(&height))
        );
    }
    assert_eq!(finalized.keys().next(), Some(&1), "refilled from the first block");
    for (handle, _) in nodes.into_iter().chain([(back, application)]) {
        handle.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_network_goes_on_within_seconds() {
    let net = Net::new();
    let first: Vec<_> = (0..4).map(|i| net.start(i, Toy::default())).collect();
    for (handle, _) in &first {
        reach(handle, 3).await;
    }
    let mut before = 0;
    let mut kept = Vec::new();
    for (handle, application) in first {
        handle.shutdown().await.unwrap();
        before = before.max(handle.finalized_height());
        kept.push(Arc::into_inner(application).expect("the engine has let go"));
    }
    let began = Instant::now();
    let second: Vec<_> = kept.into_iter().enumerate().map(|(i, toy)| net.start(i, toy)).collect();
    for (handle, application) in &second {
        reach(handle, before + 1).await;
        assert!(application.finalized.lock().unwrap().len() as u64 > before);
    }
    let took = began.elapsed();
    eprintln!("restart to the next block on all validators: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    for (handle, _) in second {
        handle.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_application_stops_its_own_engine_only() {
    let net = Net::new();
    let broken = Toy {
        broken_at: Some(2),
        ..Toy::default()
    };
    let liar = Toy {
        liar: true,
        ..Toy::default()
    };
    let honest: Vec<_> = (0..2).map(|i| net.start(i, Toy::default())).collect();
    let (lying, _) = net.start(2, liar);
    let (failing, _) = net.start(3, broken);
    let failure = tokio::time::timeout(Duration::from_secs(15), failing.stopped()).await;
    let failure = failure.expect("the engine ends").expect("with an error");
    assert!(
        matches!(&*failure, ConsensusError::NotApplied { height: 2, .. }),
        "{failure}"
    );
    assert_eq!(failing.finalized_height(), 1);
    assert!(failing.shutdown().await.is_err());

    // the block was not acknowledged: a repaired application gets it again
    let (repaired, application) = net.start(3, Toy::default());
    reach(&repaired, 3).await;
    assert!(application.finalized.lock().unwrap().contains_key(&2));
    // what the liar proposes is refused, and its views are given up
    reach(&repaired, repaired.finalized_height() + 4).await;
    for (handle, _) in &honest {
        let stats = handle.stats();
        assert!(
            stats.rejections > 0 && stats.nullifications > 0,
            "{stats:?} {:?}",
            lying.stats()
        );
    }
    for (handle, _) in honest {
        handle.shutdown().await.unwrap();
    }
    lying.shutdown().await.unwrap();
    repaired.shutdown().await.unwrap();
}

#[test]
fn a_folder_of_another_chain_is_refused() {
    let net = Net::new();
    std::fs::create_dir_all(net.folder(0)).unwrap();
    std::fs::write(net.folder(0).join("genesis-digest"), "00").unwrap();
    let error = start(net.config(0), Arc::new(Toy::default())).unwrap_err();
    assert!(matches!(error, ConsensusError::Config(_)), "{error}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = net.config(1);
    config.listen = taken.local_addr().unwrap();
    let error = start(config, Arc::new(Toy::default())).unwrap_err();
    assert!(matches!(error, ConsensusError::Config(_)), "{error}");
}
