//! What evidence of a fault is worth (staking.md §7): a pure function of report, network and state, so that every validator comes
//! to the same verdict and refuses a block with another.
//!
//! Classes and what proves them:
//! - equivocation: two conflicting votes, by the keys of the seat that the accused had in that epoch;
//! - wrong inference (D17): two receipts with one number, by the receipt key of one keyset of the accused node; or a receipt of mode zk and
//!   a proof that the program which it names has another answer;
//! - forged evidence: a receipt of the accused node which claims attestation that the registry does not have;
//! - a vote for an invalid proof: a vote to notarize, by the key of the seat that the accused had in that epoch, for a block that names a
//!   proof (ADR 22), and that proof, which does not hold. It is read from data contracts: a report has no room for it.

use crate::pool;
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolEvent as _;
use opg_artefact::{MAX_ARTEFACT_BYTES, ZkArtefact};
use opg_consensus::{BlsPublicKey, Fault, FaultError, Identity, Participant, ProofName, verify_fault, verify_vote};
use opg_contracts::{
    Slashing::{self, Appealed, Reported},
    StateReader, addresses, evidence, seats, slashing,
    state::{self, CodeReader},
};
use opg_execution::Log;
use opg_primitives::{
    hash::{keccak, sha256},
    mode::Mode,
};
use opg_receipt::{ReceiptError, SignedReceipt};

/// What of a network evidence depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    /// Digest of the genesis file: votes are signed for it.
    pub(crate) genesis_digest: B256,
    /// EIP-155 chain id: receipts are signed for it.
    pub(crate) chain_id: u64,
}

/// An accusation: a report, or an appeal, which names the same evidence again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Number of the case.
    pub(crate) id: U256,
    /// Class of the fault.
    pub(crate) class: u8,
    /// Operator of a validator, left-padded, or id of a node.
    pub(crate) subject: B256,
    /// Epoch of a validator's fault.
    pub(crate) epoch: u64,
    /// What is said to prove it.
    pub(crate) evidence: Bytes,
}

impl Report {
    /// What an event of `Slashing` asks validators to judge; `None` for any other event.
    pub(crate) fn of(log: &Log) -> Option<Self> {
        if log.address != addresses::SLASHING {
            return None;
        }
        let topics = || log.topics.iter().copied();
        if let Ok(reported) = Reported::decode_raw_log(topics(), &log.data) {
            return Some(Self {
                id: reported.id,
                class: reported.class,
                subject: reported.subject,
                epoch: reported.epoch,
                evidence: reported.evidence,
            });
        }
        let appealed = Appealed::decode_raw_log(topics(), &log.data).ok()?;
        Some(Self {
            id: appealed.id,
            class: appealed.class,
            subject: appealed.subject,
            epoch: appealed.epoch,
            evidence: appealed.evidence,
        })
    }
}

/// A proven fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proven {
    /// Which one of its class and subject: the same for all evidence of one fault.
    pub(crate) fault: B256,
    /// Fee of the work that was wrong, wei; 0 if there is none.
    pub(crate) fee: u128,
    /// Who paid that; zero if nobody.
    pub(crate) user: Address,
}

/// Why evidence proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotProven {
    /// Nothing proves a fault of this class.
    #[error(
        "class {0}: expected 1 (equivocation), 2 (vote for an invalid proof), 4 (forged evidence) or 5 (wrong inference); others are not proven by evidence"
    )]
    Class(u8),
    /// The votes do not prove a fault.
    #[error("votes: {0}")]
    Votes(#[from] FaultError),
    /// The bytes behind the vote and the opening are not an index, a receipt and addresses.
    #[error("expected the index of a proof, a receipt and addresses behind the vote")]
    Proof,
    /// The block does not name such a proof, or for another receipt.
    #[error("the block names no proof {0} for this receipt")]
    Unnamed(usize),
    /// The proof is not published, or not as a whole.
    #[error(
        "the contracts do not hold the proof {expected}, of at most {MAX_ARTEFACT_BYTES} bytes: SHA-256 of what they hold is {got:?}"
    )]
    Unpublished {
        /// The name.
        expected: B256,
        /// Of what the contracts hold; `None` if they hold no data or too much.
        got: Option<B256>,
    },
    /// The proof holds.
    #[error("the proof {0} is valid")]
    Valid(B256),
    /// Another validator signed.
    #[error("the votes are of the seat of {got}, expected that of {expected}")]
    Offender {
        /// The accused.
        expected: B256,
        /// Whose seat it is.
        got: B256,
    },
    /// Not two receipts.
    #[error("expected the length of a receipt in 4 bytes, that receipt, and another one")]
    Receipts,
    /// A receipt does not decode, or its signature is wrong.
    #[error("receipt: {0}")]
    Receipt(#[from] ReceiptError),
    /// A receipt is of another network.
    #[error("receipt of chain {chain_id} and registry {registry}, not of this network")]
    Network {
        /// Chain of the receipt.
        chain_id: u64,
        /// Its registry.
        registry: Address,
    },
    /// No such keyset, or of another node.
    #[error("keyset {keyset} is not one of node {node}")]
    Keyset {
        /// The receipt's keyset.
        keyset: B256,
        /// The accused.
        node: B256,
    },
    /// Two receipts that may both exist.
    #[error("the receipts are no two of one keyset with one number")]
    Distinct,
    /// The receipt claims no answer of a program.
    #[error("the receipt is in mode {0}: it does not say which program has this answer")]
    NoStatement(Mode),
    /// No proof that the receipt's answer is wrong.
    #[error("no proof of another answer: {0}")]
    Contradiction(String),
    /// The receipt claims no attestation.
    #[error("the receipt is in mode {0}: it claims no attestation")]
    NotAttested(Mode),
    /// What the receipt claims is so.
    #[error("the registry has the evidence {0} that the receipt names, with at least its grade")]
    Registered(B256),
}

/// Judges one report by the state after the block that holds it. `Ok(Err(_))` is a verdict too: nothing is proven.
///
/// # Errors
/// The state could not be read.
pub(crate) fn judge<R: CodeReader>(
    state: &R,
    network: &Network,
    report: &Report,
) -> Result<Result<Proven, NotProven>, R::Error> {
    judge_with(state, network, report, None)
}

/// As [`judge`], by a proof at hand if the report does not say where one is published.
///
/// # Errors
/// As [`judge`].
pub(crate) fn judge_with<R: CodeReader>(
    state: &R,
    network: &Network,
    report: &Report,
    artefact: Option<&[u8]>,
) -> Result<Result<Proven, NotProven>, R::Error> {
    match report.class {
        slashing::EQUIVOCATION => equivocation(state, network, report),
        slashing::INVALID_VOTE => invalid_vote(state, network, report, artefact),
        slashing::FORGED_EVIDENCE => forged(state, network, report),
        slashing::WRONG_INFERENCE if slashing::is_about_a_proof(&report.evidence) => {
            contradiction(state, network, report, artefact)
        }
        slashing::WRONG_INFERENCE => wrong(state, network, report),
        other => Ok(Err(NotProven::Class(other))),
    }
}

/// What the system transaction says about a report.
pub(crate) fn verdict(report: &Report, found: &Result<Proven, NotProven>) -> Slashing::Verdict {
    let proven = found.as_ref().ok();
    Slashing::Verdict {
        id: report.id,
        valid: proven.is_some(),
        fault: proven.map_or(B256::ZERO, |proven| proven.fault),
        fee: proven.map_or(0, |proven| proven.fee),
        user: proven.map_or(Address::ZERO, |proven| proven.user),
    }
}

/// Two votes that exclude each other, by the seat of the accused in the epoch that the report names.
fn equivocation<R: StateReader>(
    state: &R,
    network: &Network,
    report: &Report,
) -> Result<Result<Proven, NotProven>, R::Error> {
    let (seats, set) = participants(state, report.epoch)?;
    Ok(
        match verify_fault(network.genesis_digest, report.epoch, &set, &report.evidence) {
            Ok(fault) => convict(report, &seats, &fault),
            Err(error) => Err(error.into()),
        },
    )
}

/// The proof that evidence of a vote for an invalid one is about: its name, and the receipt.
fn accused_proof(
    opening: &opg_consensus::Opening,
    rest: &[u8],
) -> Result<(ProofName, SignedReceipt, Vec<Address>), NotProven> {
    let (index, receipt, parts) = slashing::decode_proof_evidence(rest).ok_or(NotProven::Proof)?;
    let receipt = SignedReceipt::decode(receipt)?;
    let name = opening.proofs.get(index).copied();
    let name = name.filter(|name| name.core_hash == receipt.core_hash());
    Ok((name.ok_or(NotProven::Unnamed(index))?, receipt, parts))
}

/// SHA-256 of the proof that a kept vote for an invalid one is about. The vote's signature is not looked at.
pub(crate) fn artefact_of(evidence: &[u8]) -> Option<B256> {
    let (opening, rest) = opg_consensus::opened(evidence)?;
    Some(accused_proof(&opening, rest).ok()?.0.artefact)
}

/// A vote for a block that names a proof which does not hold. Whether it holds depends on the receipt and on its own bytes alone, and not on
/// what is registered, which changes: an honest vote is never one of these.
fn invalid_vote<R: CodeReader>(
    state: &R,
    network: &Network,
    report: &Report,
    artefact: Option<&[u8]>,
) -> Result<Result<Proven, NotProven>, R::Error> {
    let (seats, set) = participants(state, report.epoch)?;
    let (fault, opening, rest) = match verify_vote(network.genesis_digest, report.epoch, &set, &report.evidence) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error.into())),
    };
    let proven = match convict(report, &seats, &fault) {
        Ok(proven) => proven,
        Err(error) => return Ok(Err(error)),
    };
    let (name, receipt, parts) = match accused_proof(&opening, rest) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    let published = published(state, &parts, artefact)?;
    let got = published.as_ref().map(|bytes| sha256(bytes));
    let Some(artefact) = published.filter(|_| got == Some(name.artefact)) else {
        let expected = name.artefact;
        return Ok(Err(NotProven::Unpublished { expected, got }));
    };
    Ok(match pool::examine(receipt.core(), &artefact) {
        Ok(_) => Err(NotProven::Valid(name.artefact)),
        Err(_) => Ok(proven),
    })
}

/// What the contracts hold, or what is at hand if none are named.
fn published<R: CodeReader>(
    state: &R,
    parts: &[Address],
    artefact: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, R::Error> {
    match artefact.filter(|_| parts.is_empty()) {
        Some(artefact) => Ok(Some(artefact.to_vec())),
        None => slashing::published(state, parts, MAX_ARTEFACT_BYTES),
    }
}

/// A receipt of mode zk, and a proof that its program has another answer to its request.
fn contradiction<R: CodeReader>(
    state: &R,
    network: &Network,
    report: &Report,
    artefact: Option<&[u8]>,
) -> Result<Result<Proven, NotProven>, R::Error> {
    let Some((0, receipt, parts)) = slashing::decode_proof_evidence(&report.evidence) else {
        return Ok(Err(NotProven::Proof));
    };
    let receipt = match signed(state, network, report.subject, receipt)? {
        Ok(receipt) => receipt,
        Err(error) => return Ok(Err(error)),
    };
    let core = receipt.core();
    if core.mode.served != Mode::Zk {
        return Ok(Err(NotProven::NoStatement(core.mode.served)));
    }
    let Some(artefact) = published(state, &parts, artefact)? else {
        return Ok(Err(NotProven::Contradiction("the contracts hold no proof".into())));
    };
    let found = ZkArtefact::decode(&artefact).and_then(|artefact| {
        artefact.contradicts(core)?;
        Ok(artefact.program())
    });
    let program = match found {
        Ok(program) => program,
        Err(error) => return Ok(Err(NotProven::Contradiction(error.to_string()))),
    };
    // A program is registered once and for good. A receipt that names another one is refused, and nobody has to answer for it.
    if state::read_program(state, core.model.served_root.0, program)?.is_none() {
        return Ok(Err(NotProven::Contradiction(format!(
            "{program} is no program of the model"
        ))));
    }
    Ok(Ok(Proven {
        fault: keccak(&[core.keyset.0.as_slice(), &core.seq.to_be_bytes()].concat()),
        fee: core.price.charge.0,
        user: core.payment.payer,
    }))
}

/// The seats of an epoch, and what consensus needs to know of them.
fn participants<R: StateReader>(state: &R, epoch: u64) -> Result<(Vec<seats::Seat>, Vec<Participant>), R::Error> {
    let seats = seats::read_seats(state, epoch)?;
    let participant = |seat: &seats::Seat| Participant {
        identity: Identity(seat.identity.0),
        bls: BlsPublicKey(seat.bls.0),
    };
    let set = seats.iter().map(participant).collect();
    Ok((seats, set))
}

/// Whether the accused is who signed.
fn convict(report: &Report, seats: &[seats::Seat], fault: &Fault) -> Result<Proven, NotProven> {
    let offender = seats.iter().find(|seat| seat.identity.0 == fault.offender.0);
    // The whole word: an address with something above it would be another subject, with slashes of its own.
    let (expected, got) = (
        report.subject,
        offender.map_or(B256::ZERO, |seat| seat.operator.into_word()),
    );
    if expected != got {
        return Err(NotProven::Offender { expected, got });
    }
    Ok(Proven {
        fault: B256::from(U256::from(report.epoch)),
        fee: 0,
        user: Address::ZERO,
    })
}

/// Two receipts of one keyset with one number. The dearer one counts as the wrong one.
fn wrong<R: StateReader>(state: &R, network: &Network, report: &Report) -> Result<Result<Proven, NotProven>, R::Error> {
    let Some((first, second)) = slashing::decode_receipts(&report.evidence) else {
        return Ok(Err(NotProven::Receipts));
    };
    let first = match signed(state, network, report.subject, first)? {
        Ok(receipt) => receipt,
        Err(error) => return Ok(Err(error)),
    };
    let second = match signed(state, network, report.subject, second)? {
        Ok(receipt) => receipt,
        Err(error) => return Ok(Err(error)),
    };
    let (a, b) = (first.core(), second.core());
    if (a.keyset, a.seq) != (b.keyset, b.seq) || first.core_hash() == second.core_hash() {
        return Ok(Err(NotProven::Distinct));
    }
    let rank = |receipt: &SignedReceipt| (receipt.core().price.charge.0, receipt.core_hash());
    let dearer = if rank(&first) > rank(&second) { a } else { b };
    Ok(Ok(Proven {
        fault: keccak(&[a.keyset.0.as_slice(), &a.seq.to_be_bytes()].concat()),
        fee: dearer.price.charge.0,
        user: dearer.payment.payer,
    }))
}

/// A receipt in mode tee about evidence that the registry does not have, has for another keyset, or with a lower grade. Records are
/// never changed or removed, so what an honest node found in the registry is still there.
fn forged<R: StateReader>(
    state: &R,
    network: &Network,
    report: &Report,
) -> Result<Result<Proven, NotProven>, R::Error> {
    let receipt = match signed(state, network, report.subject, &report.evidence)? {
        Ok(receipt) => receipt,
        Err(error) => return Ok(Err(error)),
    };
    let core = receipt.core();
    if core.mode.served != Mode::Tee {
        return Ok(Err(NotProven::NotAttested(core.mode.served)));
    }
    let id = core.evidence.and_then(|named| named.evidence_id).unwrap_or_default();
    if let Some(record) = evidence::read(state, id)?
        && record.keyset == core.keyset.0
        && record.grade >= core.mode.grade.code()
    {
        return Ok(Err(NotProven::Registered(id)));
    }
    Ok(Ok(Proven {
        fault: keccak(&[core.keyset.0.as_slice(), id.as_slice()].concat()),
        fee: core.price.charge.0,
        user: core.payment.payer,
    }))
}

/// A receipt of this network that a keyset of the node signed; also if the keyset is revoked by now.
fn signed<R: StateReader>(
    state: &R,
    network: &Network,
    node: B256,
    bytes: &[u8],
) -> Result<Result<SignedReceipt, NotProven>, R::Error> {
    let receipt = match SignedReceipt::decode(bytes) {
        Ok(receipt) => receipt,
        Err(error) => return Ok(Err(error.into())),
    };
    let core = receipt.core();
    let (chain_id, registry, keyset) = (core.chain_id, core.registry, core.keyset.0);
    if chain_id != network.chain_id || registry != addresses::NODE_REGISTRY {
        return Ok(Err(NotProven::Network { chain_id, registry }));
    }
    let record = state::read_keyset(state, keyset)?.filter(|record| record.node_id == node && core.node_id.0 == node);
    let Some(record) = record else {
        return Ok(Err(NotProven::Keyset { keyset, node }));
    };
    if let Err(error) = receipt.verify_signature(&record.receipt_key.0) {
        return Ok(Err(error.into()));
    }
    Ok(Ok(receipt))
}

#[cfg(test)]
mod tests;
