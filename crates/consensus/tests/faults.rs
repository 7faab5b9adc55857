//! A validator that signs two votes for one view: three honest ones go on, and each proves it to the application.

use alloy_primitives::{B256, Bytes, keccak256};
use commonware_codec::{Copying, DecodeExt as _, Encode as _, varint::UInt};
use commonware_consensus::{
    simplex::{
        scheme::bls12381_multisig,
        types::{Notarize, Proposal, Vote},
    },
    types::{Epoch, Round, View},
};
use commonware_cryptography::{
    ChaCha20Poly1305, Hasher as _, Sha256,
    bls12381::primitives::{
        group::Private,
        ops::compute_public,
        variant::{MinSig, Variant},
    },
    ed25519::{PrivateKey, PublicKey},
    sha256::Digest,
};
use commonware_p2p::{Ingress, Manager as _, Recipients, Sender as _, authenticated::discovery};
use commonware_runtime::{Quota, Runner as _, Supervisor as _, tokio as runtime};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZU32, NZUsize, TryCollect as _, ordered::Set};
use opg_consensus::{
    BoxError, BoxFuture, ChainApplication, ChainBlock, Config, Fault, FaultKind, Handle, Participant, Peer,
    ProposeContext, ProposedBody, Verdict, VerifyContext, keys::ValidatorKeys, start, verify_fault, vote_namespace,
};
use opg_primitives::domain::Tag;
use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const GENESIS: B256 = B256::repeat_byte(0x67);
const EVM_GENESIS: B256 = B256::repeat_byte(0xe0);

/// Accepts every block; keeps what it is told about faults.
#[derive(Default)]
struct Jury {
    height: AtomicU64,
    faults: Mutex<Vec<(Fault, Bytes)>>,
}

impl ChainApplication for Jury {
    fn has_state(&self, _: B256) -> BoxFuture<'_, Result<bool, BoxError>> {
        Box::pin(async { Ok(true) })
    }

    fn propose(&self, context: ProposeContext) -> BoxFuture<'_, Result<Option<ProposedBody>, BoxError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let evm = Bytes::from(format!("{} {}", context.parent.evm_hash, context.height).into_bytes());
            Ok(Some(ProposedBody {
                evm_hash: keccak256(&evm),
                evm,
                receipts: Vec::new(),
                proofs: Vec::new(),
            }))
        })
    }

    fn verify(&self, _: VerifyContext) -> BoxFuture<'_, Result<Verdict, BoxError>> {
        Box::pin(async { Ok(Verdict::Valid) })
    }

    fn finalized(&self, block: Arc<ChainBlock>) -> BoxFuture<'_, Result<(), BoxError>> {
        self.height.fetch_max(block.height, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }

    fn executed_height(&self) -> BoxFuture<'_, Result<u64, BoxError>> {
        Box::pin(async { Ok(self.height.load(Ordering::SeqCst)) })
    }

    fn fault(&self, fault: Fault, evidence: Bytes) {
        self.faults.lock().unwrap().push((fault, evidence));
    }
}

/// Connects with a validator's keys and signs two proposals for each of the first views, without ever listening.
fn equivocate(keys: &ValidatorKeys, set: &[Participant], peers: &[Peer], listen: SocketAddr, stop: Arc<AtomicBool>) {
    let identity = PrivateKey::decode(Copying(&keys.identity.to_bytes())).unwrap();
    let key = |bytes: &[u8; 32]| PublicKey::decode(Copying(bytes)).unwrap();
    let secret = Private::decode(Copying(&keys.bls.to_bytes())).unwrap();
    assert_eq!(compute_public::<MinSig>(&secret).encode().as_ref(), keys.bls.public().0);
    let members = set.iter().map(|p| {
        let bls = <MinSig as Variant>::Public::decode(Copying(&p.bls.0)).unwrap();
        (key(&p.identity.0), bls)
    });
    let members = members.try_collect().unwrap();
    let scheme = bls12381_multisig::Scheme::<PublicKey, MinSig>::signer(&vote_namespace(GENESIS), members, secret);
    let scheme = scheme.expect("a member");
    let everyone: Set<PublicKey> = set.iter().map(|p| key(&p.identity.0)).try_collect().unwrap();
    let peers = peers.iter().filter(|p| p.identity != keys.identity.public());
    let peers = peers.map(|p| (key(&p.identity.0), Ingress::from(p.address))).collect();
    let folder = tempfile::tempdir().unwrap();
    let config = runtime::Config::new().with_storage_directory(folder.path());
    runtime::Runner::new(config).start(async move |context| {
        let handshake = Sake {
            signer: identity,
            synchrony_bound: Duration::from_secs(4),
            max_handshake_age: Duration::from_secs(8),
            version: sake::Version::V1,
        };
        let handshake = Cups::<_, ChaCha20Poly1305>::new(handshake, cups::Version::V1);
        let namespace = [Tag::Network.as_str(), "/", &hex::encode(GENESIS)].concat();
        let mut config = discovery::Config::local(
            handshake,
            namespace.as_bytes(),
            listen,
            listen,
            peers,
            NZUsize!(8),
            16 << 20,
            NZUsize!(4_096),
        );
        config.dial_frequency = Duration::from_millis(100);
        let (mut network, mut oracle) = discovery::Network::new(context.child("network"), config);
        oracle.track(0, everyone);
        let quota = Quota::per_second(NZU32!(500));
        let mut channels: Vec<_> = (0..6).map(|channel| network.register(channel, quota)).collect();
        network.start();
        let votes = &mut channels[0].0;
        let mut view = 1;
        while !stop.load(Ordering::SeqCst) {
            for text in ["one", "other"] {
                let round = Round::new(Epoch::new(0), View::new(view));
                let proposal = Proposal::new(round, View::new(view - 1), Sha256::hash(&[text.as_bytes()]));
                let vote = Notarize::sign(&scheme, proposal).expect("a signer");
                let mut message = UInt(0u64).encode().to_vec();
                message.extend_from_slice(&Vote::<_, Digest>::Notarize(vote).encode());
                let _ = votes.send(Recipients::All, message, false);
            }
            view = view % 40 + 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_double_voter_is_caught_and_the_others_go_on() {
    let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    drop(listeners);
    let keys: Vec<_> = (0..4).map(|_| ValidatorKeys::generate()).collect();
    let set: Vec<_> = keys.iter().map(ValidatorKeys::participant).collect();
    let peers = keys.iter().zip(&addresses);
    let peers: Vec<_> = peers
        .map(|(keys, address)| Peer {
            identity: keys.identity.public(),
            address: *address,
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let traitor = {
        let (keys, set, peers, stop) = (keys[3].clone(), set.clone(), peers.clone(), stop.clone());
        let listen = addresses[3];
        std::thread::spawn(move || equivocate(&keys, &set, &peers, listen, stop))
    };
    let honest: Vec<(Handle, Arc<Jury>)> = (0..3)
        .map(|i| {
            let jury = Arc::new(Jury::default());
            let config = Config::new(
                dir.path().join(i.to_string()),
                keys[i].clone(),
                set.clone(),
                GENESIS,
                EVM_GENESIS,
                addresses[i],
                peers.clone(),
            );
            (start(config, jury.clone()).unwrap(), jury)
        })
        .collect();
    let began = Instant::now();
    while honest.iter().any(|(_, jury)| jury.faults.lock().unwrap().is_empty()) {
        let stats: Vec<_> = honest.iter().map(|(handle, _)| handle.stats()).collect();
        assert!(began.elapsed() < Duration::from_secs(60), "{stats:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::SeqCst);
    traitor.join().unwrap();
    for (handle, jury) in &honest {
        for (fault, evidence) in jury.faults.lock().unwrap().iter() {
            assert_eq!(fault.offender, keys[3].identity.public());
            assert_eq!((fault.kind, fault.epoch), (FaultKind::ConflictingNotarize, 0));
            // whoever was not there comes to the same verdict from bytes and set
            assert_eq!(verify_fault(GENESIS, 0, &set, evidence).as_ref(), Ok(fault));
            assert!(verify_fault(GENESIS, 0, &set[..3], evidence).is_err());
            assert!(verify_fault(EVM_GENESIS, 0, &set, evidence).is_err());
        }
        // three of four are a quorum
        let there = handle.finalized_height();
        let began = Instant::now();
        while handle.finalized_height() < there + 3 {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", handle.stats());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(handle.stats().faults > 0 && handle.failure().is_none());
    }
    for (handle, _) in honest {
        handle.shutdown().await.unwrap();
    }
}
