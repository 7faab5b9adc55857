//! A validator that breaks the rules: it connects with its real keys and signs two proposals for each view.

use commonware_codec::{Copying, DecodeExt as _, Encode as _, varint::UInt};
use commonware_consensus::{
    simplex::{
        scheme::bls12381_multisig,
        types::{Notarize, Proposal, Vote},
    },
    types::{Epoch, Round, View},
};
use commonware_cryptography::{
    ChaCha20Poly1305, Hasher as _, Sha256, Signer as _,
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
use opg_contracts::GenesisFile;
use opg_primitives::domain::Tag;
use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Views for which it votes, over and over: the first ones of the epoch.
const VIEWS: u64 = 20;

/// A traitor that runs until it is dropped.
#[derive(Debug)]
pub struct Equivocator {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the traitor is and whom it talks to.
#[derive(Debug, Clone)]
pub struct Traitor {
    /// The network.
    pub genesis: GenesisFile,
    /// Ed25519 seed of its identity.
    pub identity: [u8; 32],
    /// BLS12-381 secret key.
    pub bls: [u8; 32],
    /// Its own address, and those of the other validators by identity.
    pub listen: SocketAddr,
    /// Identities and addresses of the others.
    pub peers: Vec<([u8; 32], SocketAddr)>,
    /// Identities and BLS keys of the other seats of these epochs.
    pub others: Vec<([u8; 32], Vec<u8>)>,
    /// Epochs of its votes, all with the same seats.
    pub epochs: Range<u64>,
}

impl Equivocator {
    /// Starts it in a thread of its own.
    pub fn start(traitor: Traitor) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        Self {
            stop,
            thread: Some(std::thread::spawn(move || equivocate(&traitor, &until))),
        }
    }
}

impl Drop for Equivocator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn key(bytes: &[u8; 32]) -> PublicKey {
    PublicKey::decode(Copying(bytes)).expect("an identity")
}

/// A validator's scheme for votes: its own secret, and identities and public keys of the other seats.
fn scheme(
    genesis: &GenesisFile,
    identity: &PrivateKey,
    bls: &[u8; 32],
    others: &[([u8; 32], Vec<u8>)],
) -> (Set<PublicKey>, bls12381_multisig::Scheme<PublicKey, MinSig>) {
    let secret = Private::decode(Copying(bls)).expect("a BLS key");
    let own = (identity.public_key(), compute_public::<MinSig>(&secret));
    let others = others.iter().map(|(identity, bls)| {
        let bls = <MinSig as Variant>::Public::decode(Copying(bls.as_slice())).expect("a BLS key");
        (key(identity), bls)
    });
    let members: Vec<_> = others.chain([own]).collect();
    let everyone = members.iter().map(|(identity, _)| identity.clone()).try_collect();
    let members = members.into_iter().try_collect().expect("distinct validators");
    let namespace = [Tag::Consensus.as_str(), &hex::encode(genesis.digest())].concat();
    let scheme = bls12381_multisig::Scheme::<PublicKey, MinSig>::signer(namespace.as_bytes(), members, secret);
    (
        everyone.expect("distinct validators"),
        scheme.expect("one of the seats"),
    )
}

/// A validator's vote to notarize the block with a digest in a view.
///
/// # Panics
/// If the keys are not those of a seat.
pub fn notarize(
    genesis: &GenesisFile,
    (identity, bls): (&[u8; 32], &[u8; 32]),
    others: &[([u8; 32], Vec<u8>)],
    (epoch, view): (u64, u64),
    digest: [u8; 32],
) -> Vec<u8> {
    let identity = PrivateKey::decode(Copying(identity)).expect("an identity key");
    let (_, scheme) = scheme(genesis, &identity, bls, others);
    let round = Round::new(Epoch::new(epoch), View::new(view));
    let proposal = Proposal::new(round, View::new(view - 1), Digest::from(digest));
    let vote = Notarize::sign(&scheme, proposal).expect("a signer");
    vote.encode().to_vec()
}

fn equivocate(traitor: &Traitor, stop: &AtomicBool) {
    let genesis = hex::encode(traitor.genesis.digest());
    let identity = PrivateKey::decode(Copying(&traitor.identity)).expect("an identity key");
    let (everyone, scheme) = scheme(&traitor.genesis, &identity, &traitor.bls, &traitor.others);
    let peers = traitor.peers.iter();
    let peers = peers.map(|(identity, address)| (key(identity), Ingress::from(*address)));
    let peers = peers.collect();
    let folder = tempfile::tempdir().expect("temporary folder");
    let config = runtime::Config::new().with_storage_directory(folder.path());
    runtime::Runner::new(config).start(async move |context| {
        let handshake = Sake {
            signer: identity,
            synchrony_bound: Duration::from_secs(4),
            max_handshake_age: Duration::from_secs(8),
            version: sake::Version::V1,
        };
        let handshake = Cups::<_, ChaCha20Poly1305>::new(handshake, cups::Version::V1);
        let namespace = [Tag::Network.as_str(), "/", &genesis].concat();
        let mut config = discovery::Config::local(
            handshake,
            namespace.as_bytes(),
            traitor.listen,
            traitor.listen,
            peers,
            NZUsize!(128),
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
        let rounds = || {
            traitor
                .epochs
                .clone()
                .flat_map(|epoch| (1..=VIEWS).map(move |view| (epoch, view)))
        };
        for (epoch, view) in std::iter::repeat_with(rounds).flatten() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            for text in ["one", "other"] {
                let round = Round::new(Epoch::new(epoch), View::new(view));
                let proposal = Proposal::new(round, View::new(view - 1), Sha256::hash(&[text.as_bytes()]));
                let vote = Notarize::sign(&scheme, proposal).expect("a signer");
                let mut message = UInt(epoch).encode().to_vec();
                message.extend_from_slice(&Vote::<_, Digest>::Notarize(vote).encode());
                let _ = votes.send(Recipients::All, message, false);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
