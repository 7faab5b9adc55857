//! Votes that exclude each other, and votes for a block that names an invalid proof, as evidence that anyone can check.

use crate::{
    application::ChainApplication,
    block::{Opening, from_digest},
    error::FaultError,
    keys::{Identity, Participant},
    scheme::{Scheme, scheme},
    shared::Shared,
};
use alloy_primitives::{B256, Bytes};
use commonware_actor::Feedback;
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::{
    Epochable as _, Reporter, Viewable as _,
    simplex::types::{
        Activity, Attributable as _, ConflictingFinalize, ConflictingNotarize, Notarize, NullifyFinalize,
    },
};
use commonware_cryptography::{certificate::Scheme as _, sha256::Digest};
use commonware_parallel::Sequential;
use std::{fmt, sync::Arc};

/// Most bytes of evidence. Two votes have 48-byte signatures, a proposal of at most 62 bytes and a seat number each.
pub const MAX_FAULT_BYTES: usize = 256;

/// What a validator signed that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// To notarize two proposals.
    ConflictingNotarize,
    /// To finalize two proposals.
    ConflictingFinalize,
    /// To give the view up and to finalize a proposal of it.
    NullifyFinalize,
    /// To notarize a block that names an invalid proof.
    InvalidProof,
}

impl FaultKind {
    /// First byte of the evidence.
    pub const fn code(self) -> u8 {
        match self {
            Self::ConflictingNotarize => 1,
            Self::ConflictingFinalize => 2,
            Self::NullifyFinalize => 3,
            Self::InvalidProof => 4,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConflictingNotarize => "conflicting notarize votes",
            Self::ConflictingFinalize => "conflicting finalize votes",
            Self::NullifyFinalize => "nullify and finalize votes",
            Self::InvalidProof => "a notarize vote for an invalid proof",
        })
    }
}

/// A proven fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    /// What was signed.
    pub kind: FaultKind,
    /// Epoch of the votes.
    pub epoch: u64,
    /// View of the votes.
    pub view: u64,
    /// Position of the offender in the set sorted by identity.
    pub seat: u32,
    /// The offender.
    pub offender: Identity,
}

/// A vote to notarize a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Epoch of the vote.
    pub epoch: u64,
    /// View of the vote.
    pub view: u64,
    /// The block.
    pub digest: B256,
    /// `proposal || seat varint || signature (48)`.
    pub bytes: Bytes,
}

/// `u16 length || vote || opening`: which proofs a validator has voted for. Whether one of them is invalid is for the application to
/// say.
///
/// `None` if the vote is longer than a vote can be.
pub fn encode_vote(vote: &[u8], opening: &Opening) -> Option<Vec<u8>> {
    let length = u16::try_from(vote.len())
        .ok()
        .filter(|length| usize::from(*length) <= MAX_FAULT_BYTES)?;
    Some([&length.to_be_bytes(), vote, &opening.encode()].concat())
}

/// The opening in [`encode_vote`]'s bytes, and what is behind it. The vote is not looked at.
pub fn opened(evidence: &[u8]) -> Option<(Opening, &[u8])> {
    let (length, rest) = evidence.split_first_chunk::<2>()?;
    let (_, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Opening::decode(rest)
}

/// Checks that a validator of the set of `epoch` voted to notarize the block that is opened: a pure function, the same on every node.
/// Returns who, the opening, and the bytes behind it.
///
/// # Errors
/// [`FaultError`] naming the first thing that does not hold.
pub fn verify_vote<'a>(
    genesis_digest: B256,
    epoch: u64,
    participants: &[Participant],
    evidence: &'a [u8],
) -> Result<(Fault, Opening, &'a [u8]), FaultError> {
    let malformed = |what: &str| FaultError::Malformed(what.to_owned());
    let (length, rest) = evidence
        .split_first_chunk::<2>()
        .ok_or_else(|| malformed("no length of a vote"))?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_FAULT_BYTES {
        let (limit, got) = (MAX_FAULT_BYTES, length);
        return Err(FaultError::TooLarge { limit, got });
    }
    let (vote, rest) = rest
        .split_at_checked(length)
        .ok_or_else(|| malformed("the vote is cut short"))?;
    let vote = Notarize::<Scheme, Digest>::decode(Copying(vote)).map_err(|error| malformed(&error.to_string()))?;
    let (opening, rest) = Opening::decode(rest).ok_or_else(|| malformed("no opening of a block"))?;
    if vote.epoch().get() != epoch {
        let (expected, got) = (epoch, vote.epoch().get());
        return Err(FaultError::Epoch { expected, got });
    }
    let digest = opening
        .digest()
        .ok_or_else(|| malformed("the parts are not those of the envelope"))?;
    if from_digest(&vote.proposal.payload) != digest {
        return Err(malformed("the vote is for another block"));
    }
    let scheme = scheme(genesis_digest, participants, None);
    let scheme = scheme.map_err(|error| FaultError::Participants(error.to_string()))?;
    let seat = vote.signer().get();
    let offender = offender(&scheme, seat)?;
    if !vote.verify(&mut commonware_utils::sys_rng(), &scheme, &Sequential) {
        return Err(FaultError::Signature);
    }
    let fault = Fault {
        kind: FaultKind::InvalidProof,
        epoch,
        view: vote.view().get(),
        seat,
        offender,
    };
    Ok((fault, opening, rest))
}

/// Who has a seat.
fn offender(scheme: &Scheme, seat: u32) -> Result<Identity, FaultError> {
    let set = scheme.participants();
    // the library would index the set with it
    let offender = set.iter().nth(seat as usize).ok_or(FaultError::Seat {
        seats: set.len(),
        got: seat,
    })?;
    Ok(Identity::of(offender))
}

enum Votes {
    Notarize(ConflictingNotarize<Scheme, Digest>),
    Finalize(ConflictingFinalize<Scheme, Digest>),
    Nullify(NullifyFinalize<Scheme, Digest>),
}

impl Votes {
    fn of(activity: &Activity<Scheme, Digest>) -> Option<Self> {
        match activity {
            Activity::ConflictingNotarize(votes) => Some(Self::Notarize(votes.clone())),
            Activity::ConflictingFinalize(votes) => Some(Self::Finalize(votes.clone())),
            Activity::NullifyFinalize(votes) => Some(Self::Nullify(votes.clone())),
            _ => None,
        }
    }

    /// `kind u8 || vote || vote` with a vote being `proposal || seat varint || signature (48)`, and
    /// `epoch varint || view varint` in the place of the proposal in a nullify vote.
    fn encode(&self) -> Bytes {
        let (kind, votes) = match self {
            Self::Notarize(votes) => (FaultKind::ConflictingNotarize, votes.encode()),
            Self::Finalize(votes) => (FaultKind::ConflictingFinalize, votes.encode()),
            Self::Nullify(votes) => (FaultKind::NullifyFinalize, votes.encode()),
        };
        let mut bytes = vec![kind.code()];
        bytes.extend_from_slice(&votes);
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, FaultError> {
        let (kind, votes) = bytes
            .split_first()
            .ok_or_else(|| FaultError::Malformed("no bytes".into()))?;
        let input = Copying(votes);
        let decoded = match *kind {
            1 => ConflictingNotarize::decode(input).map(Self::Notarize),
            2 => ConflictingFinalize::decode(input).map(Self::Finalize),
            3 => NullifyFinalize::decode(input).map(Self::Nullify),
            other => return Err(FaultError::Kind(other)),
        };
        decoded.map_err(|error| FaultError::Malformed(error.to_string()))
    }

    fn check(&self, scheme: &Scheme) -> Result<Fault, FaultError> {
        let (kind, epoch, view, signer) = match self {
            Self::Notarize(v) => (FaultKind::ConflictingNotarize, v.epoch(), v.view(), v.signer()),
            Self::Finalize(v) => (FaultKind::ConflictingFinalize, v.epoch(), v.view(), v.signer()),
            Self::Nullify(v) => (FaultKind::NullifyFinalize, v.epoch(), v.view(), v.signer()),
        };
        let seat = signer.get();
        let offender = offender(scheme, seat)?;
        let mut rng = commonware_utils::sys_rng();
        let signed = match self {
            Self::Notarize(votes) => votes.verify(&mut rng, scheme, &Sequential),
            Self::Finalize(votes) => votes.verify(&mut rng, scheme, &Sequential),
            Self::Nullify(votes) => votes.verify(&mut rng, scheme, &Sequential),
        };
        if !signed {
            return Err(FaultError::Signature);
        }
        Ok(Fault {
            kind,
            epoch: epoch.get(),
            view: view.get(),
            seat,
            offender,
        })
    }
}

/// Checks evidence against the set of an epoch: a pure function, the same on every node. `epoch` is that of the set, and the
/// votes must be of it: a validator is judged by the keys it had then.
///
/// # Errors
/// [`FaultError`] naming the first thing that does not hold.
pub fn verify_fault(
    genesis_digest: B256,
    epoch: u64,
    participants: &[Participant],
    evidence: &[u8],
) -> Result<Fault, FaultError> {
    if evidence.len() > MAX_FAULT_BYTES {
        let (limit, got) = (MAX_FAULT_BYTES, evidence.len());
        return Err(FaultError::TooLarge { limit, got });
    }
    let votes = Votes::decode(evidence)?;
    let got = match &votes {
        Votes::Notarize(votes) => votes.epoch(),
        Votes::Finalize(votes) => votes.epoch(),
        Votes::Nullify(votes) => votes.epoch(),
    };
    if got.get() != epoch {
        let (expected, got) = (epoch, got.get());
        return Err(FaultError::Epoch { expected, got });
    }
    let scheme = scheme(genesis_digest, participants, None);
    let scheme = scheme.map_err(|error| FaultError::Participants(error.to_string()))?;
    votes.check(&scheme)
}

/// Hands conflicting votes to the application. What the engine reports is not all verified, so it is checked here.
#[derive(Clone)]
pub(crate) struct Witness {
    pub(crate) scheme: Scheme,
    pub(crate) application: Arc<dyn ChainApplication>,
    pub(crate) shared: Arc<Shared>,
}

impl Reporter for Witness {
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        if let Activity::Notarize(vote) = &activity {
            self.application.voted(Vote {
                epoch: vote.epoch().get(),
                view: vote.view().get(),
                digest: from_digest(&vote.proposal.payload),
                bytes: Bytes::from(vote.encode().to_vec()),
            });
        }
        if let Some(votes) = Votes::of(&activity) {
            match votes.check(&self.scheme) {
                Ok(fault) => {
                    tracing::warn!(kind = %fault.kind, epoch = fault.epoch, view = fault.view, offender = %fault.offender, "fault proven");
                    self.shared.count(|stats| stats.faults += 1);
                    self.application.fault(fault, votes.encode());
                }
                Err(error) => tracing::debug!(%error, "conflicting votes are not proven"),
            }
        }
        Feedback::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::ValidatorKeys;
    use commonware_consensus::{
        simplex::types::{Finalize, Notarize, Nullify, Proposal},
        types::{Epoch, Round, View},
    };
    use commonware_cryptography::{Hasher as _, Sha256};

    const GENESIS: B256 = B256::repeat_byte(3);
    const EPOCH: u64 = 7;

    struct World {
        set: Vec<Participant>,
        scheme: Scheme,
        me: Identity,
    }

    fn world() -> World {
        let keys: Vec<_> = (0..4).map(|_| ValidatorKeys::generate()).collect();
        let set: Vec<_> = keys.iter().map(ValidatorKeys::participant).collect();
        let scheme = scheme(GENESIS, &set, Some(&keys[2].bls)).expect("keys");
        let me = keys[2].identity.public();
        World { set, scheme, me }
    }

    fn proposal(epoch: u64, view: u64, text: &str) -> Proposal<Digest> {
        let round = Round::new(Epoch::new(epoch), View::new(view));
        Proposal::new(round, View::new(view - 1), Sha256::hash(&[text.as_bytes()]))
    }

    fn double_notarize(world: &World, epoch: u64) -> Bytes {
        let vote = |text| Notarize::sign(&world.scheme, proposal(epoch, 9, text)).expect("a signer");
        Votes::Notarize(ConflictingNotarize::new(vote("a"), vote("b"))).encode()
    }

    #[test]
    fn each_kind_proves_its_offender() {
        let world = world();
        let finalize = |text| Finalize::sign(&world.scheme, proposal(EPOCH, 9, text)).expect("a signer");
        let round = Round::new(Epoch::new(EPOCH), View::new(9));
        let nullify = Nullify::sign::<Digest>(&world.scheme, round).expect("a signer");
        let all = [
            (FaultKind::ConflictingNotarize, double_notarize(&world, EPOCH)),
            (
                FaultKind::ConflictingFinalize,
                Votes::Finalize(ConflictingFinalize::new(finalize("a"), finalize("b"))).encode(),
            ),
            (
                FaultKind::NullifyFinalize,
                Votes::Nullify(NullifyFinalize::new(nullify, finalize("a"))).encode(),
            ),
        ];
        for (kind, evidence) in all {
            assert!(evidence.len() <= MAX_FAULT_BYTES && evidence[0] == kind.code());
            let fault = verify_fault(GENESIS, EPOCH, &world.set, &evidence).expect("proven");
            assert_eq!((fault.kind, fault.epoch, fault.view), (kind, EPOCH, 9));
            assert_eq!(fault.offender, world.me);
            let mut sorted = world.set.clone();
            sorted.sort_unstable_by_key(|p| p.identity);
            assert_eq!(sorted[fault.seat as usize].identity, world.me);
        }
    }

    /// A vote of seat keys[2] for a block that names two proofs.
    fn vote_for_proofs(world: &World, epoch: u64) -> (Vec<u8>, Opening) {
        let name = |byte| crate::ProofName {
            core_hash: B256::repeat_byte(byte),
            artefact: B256::repeat_byte(byte + 1),
        };
        let mut block = crate::ChainBlock::genesis(GENESIS, B256::ZERO);
        block.proofs = vec![name(1), name(5)];
        let round = Round::new(Epoch::new(epoch), View::new(9));
        let proposal = Proposal::new(round, View::new(8), crate::block::to_digest(block.digest()));
        let vote = Notarize::sign(&world.scheme, proposal).expect("a signer");
        (vote.encode().to_vec(), block.opening())
    }

    #[test]
    fn a_vote_for_a_block_shows_the_proofs_it_was_for() {
        let world = world();
        let (vote, opening) = vote_for_proofs(&world, EPOCH);
        let mut evidence = encode_vote(&vote, &opening).expect("a vote");
        let end = evidence.len();
        evidence.extend(b"more");
        let verify = |bytes: &[u8]| {
            let found = verify_vote(GENESIS, EPOCH, &world.set, bytes);
            found.map(|(fault, opening, rest)| (fault, opening, rest.to_vec()))
        };
        let (fault, shown, rest) = verify(&evidence).expect("proven");
        assert_eq!(
            (fault.kind, fault.epoch, fault.view),
            (FaultKind::InvalidProof, EPOCH, 9)
        );
        assert_eq!((fault.offender, &shown), (world.me, &opening));
        assert_eq!(rest, b"more");
        // every bit of vote and opening matters
        for i in 0..end {
            for bit in 0..8 {
                let mut bad = evidence.clone();
                bad[i] ^= 1 << bit;
                assert!(verify(&bad).is_err(), "byte {i} bit {bit}");
            }
            assert!(verify(&evidence[..i]).is_err());
        }
        let (expected, got) = (EPOCH, EPOCH + 1);
        let (late, opening) = vote_for_proofs(&world, got);
        let late = encode_vote(&late, &opening).expect("a vote");
        assert_eq!(verify(&late), Err(FaultError::Epoch { expected, got }));
        assert_eq!(encode_vote(&[0; MAX_FAULT_BYTES + 1], &opening), None);
    }

    #[test]
    fn forged_evidence_is_refused() {
        let world = world();
        let good = double_notarize(&world, EPOCH);
        let verify = |bytes: &[u8]| verify_fault(GENESIS, EPOCH, &world.set, bytes);
        // every single bit matters: a change is refused or names nobody else
        for i in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[i] ^= 1 << bit;
                assert!(verify(&bad).is_err(), "byte {i} bit {bit}");
            }
            assert!(verify(&good[..i]).is_err());
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert!(matches!(verify(&longer), Err(FaultError::Malformed(_))));
        let (limit, got) = (MAX_FAULT_BYTES, MAX_FAULT_BYTES + 1);
        assert_eq!(verify(&vec![1; got]), Err(FaultError::TooLarge { limit, got }));
        assert_eq!(verify(&[9]), Err(FaultError::Kind(9)));
        assert!(matches!(verify(&[]), Err(FaultError::Malformed(_))));
        // right votes, wrong frame
        let wrong_epoch = double_notarize(&world, EPOCH + 1);
        let (expected, got) = (EPOCH, EPOCH + 1);
        assert_eq!(verify(&wrong_epoch), Err(FaultError::Epoch { expected, got }));
        let other_chain = verify_fault(B256::repeat_byte(4), EPOCH, &world.set, &good);
        assert_eq!(other_chain, Err(FaultError::Signature));
        let strangers: Vec<_> = (0..4).map(|_| ValidatorKeys::generate().participant()).collect();
        assert_eq!(
            verify_fault(GENESIS, EPOCH, &strangers, &good),
            Err(FaultError::Signature)
        );
        let smaller = verify_fault(GENESIS, EPOCH, &strangers[..1], &good);
        assert!(
            matches!(smaller, Err(FaultError::Seat { .. } | FaultError::Signature)),
            "{smaller:?}"
        );
        assert!(matches!(
            verify_fault(GENESIS, EPOCH, &[], &good),
            Err(FaultError::Participants(_))
        ));
        // the same vote twice is no fault, and cannot be made to look like one
        let vote = Notarize::sign(&world.scheme, proposal(EPOCH, 9, "a")).expect("a signer");
        let mut twice = vec![1];
        twice.extend_from_slice(&vote.encode());
        twice.extend_from_slice(&vote.encode());
        assert!(matches!(verify(&twice), Err(FaultError::Malformed(_))));
    }
}
