//! The signature scheme of votes and certificates: BLS12-381 multisignatures, attributable.

use crate::{
    block::from_digest,
    error::{CertificateError, ConsensusError},
    keys::{BlsKey, Participant},
};
use alloy_primitives::{B256, hex::encode};
use commonware_codec::{Copying, Decode, DecodeExt as _};
use commonware_consensus::simplex::{
    scheme::bls12381_multisig,
    types::{Finalization, Proposal},
};
use commonware_cryptography::{
    bls12381::primitives::variant::{MinSig, Variant},
    certificate::Verifier as _,
    ed25519::PublicKey,
    sha256::Digest,
};
use commonware_parallel::Sequential;
use commonware_utils::{TryCollect as _, ordered::BiMap};
use opg_primitives::domain::Tag;

pub(crate) type Scheme = bls12381_multisig::Scheme<PublicKey, MinSig>;
type Keys = BiMap<PublicKey, <MinSig as Variant>::Public>;

/// Namespace of votes: `opg/consensus/v1/` and the genesis digest in lower-case hexadecimal. The
/// engine appends `_NOTARIZE`, `_NULLIFY` or `_FINALIZE`.
pub fn vote_namespace(genesis_digest: B256) -> Vec<u8> {
    [Tag::Consensus.as_str(), &encode(genesis_digest)].concat().into_bytes()
}

fn keys(participants: &[Participant]) -> Result<Keys, ConsensusError> {
    let mut pairs = Vec::with_capacity(participants.len());
    for participant in participants {
        let of = || participant.identity.to_string();
        let identity = participant.identity.key();
        let identity = identity.map_err(|source| ConsensusError::Key { of: of(), source })?;
        let bls = participant.bls.point();
        let bls = bls.map_err(|source| ConsensusError::Key { of: of(), source })?;
        pairs.push((identity, bls));
    }
    if pairs.is_empty() {
        return Err(ConsensusError::Config("the validator set is empty".into()));
    }
    let twice = |_| ConsensusError::Config("two validators share a key".into());
    pairs.into_iter().try_collect().map_err(twice)
}

/// Votes with `key` if the set has it, and only checks votes otherwise.
pub(crate) fn scheme(
    genesis_digest: B256,
    set: &[Participant],
    key: Option<&BlsKey>,
) -> Result<Scheme, ConsensusError> {
    let namespace = vote_namespace(genesis_digest);
    let keys = keys(set)?;
    let signer = key.and_then(|key| Scheme::signer(&namespace, keys.clone(), key.0.clone()));
    Ok(signer.unwrap_or_else(|| Scheme::verifier(&namespace, keys)))
}

/// The participant that leads a view: they take turns in the order of their identities, from one further in each epoch.
/// `None` for an empty set.
pub fn leader(participants: &[Participant], epoch: u64, view: u64) -> Option<Participant> {
    let mut sorted = participants.to_vec();
    sorted.sort_unstable_by_key(|participant| participant.identity);
    let seats = sorted.len() as u128;
    let seat = (u128::from(epoch) + u128::from(view)).checked_rem(seats)?;
    sorted.get(usize::try_from(seat).ok()?).copied()
}

/// Checks a finalization certificate with the engine's own verifier and returns the digest of the
/// final block, which [`crate::envelope_digest`] opens to an EVM block hash.
///
/// # Errors
/// [`CertificateError`].
pub fn verify_certificate(
    genesis_digest: B256,
    participants: &[Participant],
    proposal: &[u8],
    certificate: &[u8],
) -> Result<B256, CertificateError> {
    let scheme = scheme(genesis_digest, participants, None);
    let scheme = scheme.map_err(|e| CertificateError::Participants(e.to_string()))?;
    let proposal =
        Proposal::<Digest>::decode(Copying(proposal)).map_err(|e| CertificateError::Proposal(e.to_string()))?;
    let bound = scheme.certificate_codec_config();
    let certificate =
        Decode::decode_cfg(Copying(certificate), &bound).map_err(|e| CertificateError::Certificate(e.to_string()))?;
    let finalization = Finalization::<Scheme, Digest> { proposal, certificate };
    let mut rng = commonware_utils::sys_rng();
    if !finalization.verify(&mut rng, &scheme, &Sequential) {
        return Err(CertificateError::Invalid);
    }
    Ok(from_digest(&finalization.proposal.payload))
}
