//! The genesis file: everything that block 0 is built from.
//!
//! It is the only thing that a light client trusts (D12), so it is parsed strictly: unknown or repeated fields, duplicate keys,
//! sums that are off by a wei and values out of bounds are refused with the field's name.

use crate::addresses;
use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256};
use opg_primitives::{
    domain::Tag,
    hash::tagged,
    ids::node_id,
    money::{Amount, MAX_ROYALTY_BPS, Price},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Supply of OPG, wei (D5).
pub const SUPPLY: u128 = 1_000_000_000_000_000_000_000_000_000;
/// Version of the file that this crate reads.
pub const VERSION: u32 = 1;

const MAX_BYTES: usize = 16 << 20;
/// Bounds of `epoch_blocks`, those of the consensus crate.
const MIN_EPOCH_BLOCKS: u64 = 4;
/// See above.
const MAX_EPOCH_BLOCKS: u64 = 1 << 40;
const MAX_VALIDATORS: usize = 100;
const MAX_ITEMS: usize = 10_000;
/// `ModelRegistry.MAX_PROGRAMS`.
const MAX_PROGRAMS: usize = 16;
/// `ModelRegistry.MAX_REPORT`.
const MAX_REPORT: usize = 4_096;
const MAX_TIME: u64 = (1 << 40) - 1;
const MAX_WINDOW: u64 = 90 * 86_400;
/// Longest term of a guardian: three years.
const MAX_GUARDIAN: u64 = 3 * 365 * 86_400;
/// A hundred years.
const MAX_VESTING: u64 = 36_525 * 86_400;
const MIN_GAS_LIMIT: u64 = 2 * crate::system_tx::MAX_BLOCK_GAS;
const MAX_GAS_LIMIT: u64 = 1_000_000_000;
/// Largest integer that JSON readers in every language keep exactly.
const MAX_CHAIN_ID: u64 = (1 << 53) - 1;

/// The genesis file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisFile {
    /// Version of this format: [`VERSION`].
    pub version: u32,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Whether simulated evidence may settle here (D9).
    pub development: bool,
    /// Timestamp of block 0, Unix seconds.
    pub timestamp: u64,
    /// The validators, in any order.
    pub validators: Vec<ValidatorEntry>,
    /// Parameters of contracts and chain.
    pub parameters: Parameters,
    /// Who holds the supply.
    pub allocations: Vec<AccountAllocation>,
    /// Allocations that are contracts which release them by a schedule; not written if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vesting: Vec<VestingSchedule>,
    /// The allocation that is paid out to a published list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airdrop: Option<AirdropAllocation>,
    /// What attestation evidence is judged by; without it no evidence is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceSetup>,
    /// Inference nodes registered in block 0.
    pub nodes: Vec<NodeRegistration>,
    /// Models registered in block 0.
    pub models: Vec<ModelRegistration>,
    /// Asks of those nodes for those models.
    pub asks: Vec<AskRegistration>,
}

/// One validator and its keys (D16).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidatorEntry {
    /// Name for people, unique.
    pub name: String,
    /// Ed25519 network identity.
    pub identity: B256,
    /// BLS12-381 public key, compressed in G2.
    pub bls: FixedBytes<96>,
    /// Proof of possession of the BLS key, compressed in G1.
    pub bls_possession: FixedBytes<48>,
    /// Account that signs system transactions and is coinbase of its blocks.
    pub system: Address,
    /// Account that owns the seat.
    pub operator: Address,
}

/// Parameters that are constructor arguments of the contracts or rules of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Gas limit of every block.
    pub gas_limit: u64,
    /// Least bond of an active node, wei.
    pub min_bond: Amount,
    /// Seconds from a node's deactivation until its bond can be withdrawn.
    pub unbonding: u64,
    /// Escrow windows.
    pub windows: Windows,
    /// Highest royalty that a model may have, basis points.
    pub max_royalty_bps: u16,
    /// Seconds for which a model's former royalty stays valid after a change; also the least time between two changes.
    pub terms_notice: u64,
    /// Seconds after a model's registration in which an earlier commitment still takes it over (D6).
    pub claim_window: u64,
    /// Account of the treasury's share: with governance it may be the treasury contract.
    pub treasury: Address,
    /// Staking and slashing; not written if the validators of this file have no stake. Their set then stays until four others have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staking: Option<StakingParameters>,
    /// Who decides about what may change; without it nobody does, ever. Not written if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governance: Option<Governance>,
    /// Blocks of an epoch of consensus, at least 4; 0, and then not written: the genesis' validators for ever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch_blocks: u64,
}

/// Parameters of staking and slashing, and the stake of the first validators: each operator's self-bond is taken from its
/// wrapped allocation (staking.md §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StakingParameters {
    /// Least stake of an operator behind itself to be seated, wei; what each validator of this file bonds.
    pub min_self_bond: Amount,
    /// Seconds that stake unbonds.
    pub unbonding: u64,
    /// Seconds in jail for being down.
    pub jail_time: u64,
    /// Most seats of a set.
    pub max_seats: u16,
    /// Most that a commission may change in an epoch, basis points.
    pub commission_step: u16,
    /// Fewest leader views of an epoch from which a seat can count as down.
    pub min_views: u32,
    /// Least part of its leader views that a seat must win, millionths.
    pub min_led_ppm: u32,
    /// Part of the emission for auditors, millionths.
    pub auditors_ppm: u32,
    /// Part of the emission for inference nodes, millionths.
    pub nodes_ppm: u32,
    /// Least bond of whoever reports a fault, wei.
    pub challenger_bond: Amount,
    /// Seconds between a verdict and the slash.
    pub appeal_window: u64,
    /// Least slash for equivocation and votes for invalid proofs, millionths of the stake.
    pub equivocation_ppm: u32,
    /// Slash for being down, millionths of the stake.
    pub downtime_ppm: u32,
    /// Factor on the share of seats with the same fault.
    pub correlation: u8,
}

impl Default for StakingParameters {
    /// The documented defaults (economics.md §5.3, §6.2).
    fn default() -> Self {
        Self {
            min_self_bond: Amount(25_000 * opg_primitives::money::WEI_PER_OPG),
            unbonding: 14 * 86_400,
            jail_time: 600,
            max_seats: 100,
            commission_step: 100,
            min_views: 10,
            min_led_ppm: 50_000,
            auditors_ppm: 200_000,
            nodes_ppm: 100_000,
            challenger_bond: Amount(opg_primitives::money::WEI_PER_OPG),
            appeal_window: 86_400,
            equivocation_ppm: 50_000,
            downtime_ppm: 100,
            correlation: 3,
        }
    }
}

/// Periods and limits of governance (decisions D18: all in seconds), see docs/specs/authority.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Governance {
    /// Seconds between a proposal and its vote.
    pub voting_delay: u64,
    /// Seconds of a vote.
    pub voting_period: u64,
    /// Votes that a proposer needs, wei.
    pub proposal_threshold: Amount,
    /// Part of wrapped OPG that has to vote for a proposal or abstain, basis points.
    pub quorum_bps: u16,
    /// Seconds between the end of a successful vote's queueing and its execution.
    pub timelock_delay: u64,
    /// Who may cancel queued operations for a while; not written if nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guardian: Option<Guardian>,
}

/// Who may cancel what governance has queued, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guardian {
    /// The account.
    pub account: Address,
    /// Unix time from which on it has no power.
    pub until: u64,
}

impl Governance {
    /// Periods of a network that holds real value: a day, five days, two days.
    #[must_use]
    pub const fn standard() -> Self {
        Self {
            voting_delay: 86_400,
            voting_period: 5 * 86_400,
            proposal_threshold: Amount(1_000_000 * opg_primitives::money::WEI_PER_OPG),
            quorum_bps: 400,
            timelock_delay: 2 * 86_400,
            guardian: None,
        }
    }
}

/// For serde.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Parameters {
    /// The documented defaults (decisions.md D4, D6, economics.md §6.2), with a small bond.
    #[must_use]
    pub fn development(treasury: Address) -> Self {
        Self {
            gas_limit: 120_000_000,
            min_bond: Amount(1_000 * opg_primitives::money::WEI_PER_OPG),
            unbonding: 14 * 86_400,
            windows: Windows {
                none: 600,
                tee: 600,
                zk: 0,
                replay: 600,
            },
            max_royalty_bps: MAX_ROYALTY_BPS,
            terms_notice: 600,
            claim_window: 3_600,
            treasury,
            staking: None,
            governance: None,
            epoch_blocks: 0,
        }
    }
}

/// Escrow windows by mode, seconds from the recording block (D4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Signature only.
    pub none: u64,
    /// Attested keyset.
    pub tee: u64,
    /// Zero-knowledge proof.
    pub zk: u64,
    /// Replayable trace.
    pub replay: u64,
}

impl Windows {
    /// In the order of the mode codes (receipt.md §4).
    #[must_use]
    pub const fn by_code(&self) -> [u64; 4] {
        [self.none, self.tee, self.zk, self.replay]
    }
}

/// Part of the supply held by one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountAllocation {
    /// What the account is, for people.
    pub label: String,
    /// The account.
    pub address: Address,
    /// Native coin, wei.
    pub native: Amount,
    /// Wrapped OPG, wei; bonds of the account's nodes are taken from it.
    pub wrapped: Amount,
}

/// A schedule by which an allocation is released (economics.md §2); a `Vesting` contract at the allocation's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VestingSchedule {
    /// Address of an allocation of this file, which is all wrapped OPG.
    pub address: Address,
    /// Who may claim what is released.
    pub beneficiary: Address,
    /// Part that is free from `start` on, wei.
    pub at_start: Amount,
    /// Unix time at which the schedule begins.
    pub start: u64,
    /// Seconds after `start` in which nothing more is released.
    pub cliff: u64,
    /// Seconds after the cliff over which the rest is released.
    pub duration: u64,
}

impl VestingSchedule {
    /// What is released of `total` until `time` (Unix seconds): the contract's own rule.
    #[must_use]
    pub fn released(&self, total: Amount, time: u64) -> Amount {
        if time < self.start {
            return Amount::ZERO;
        }
        let rest = total.saturating_sub(self.at_start);
        let passed = time.saturating_sub(self.start.saturating_add(self.cliff));
        if passed == 0 || self.duration == 0 {
            return self.at_start;
        }
        let part = rest.to_u256() * U256::from(passed.min(self.duration)) / U256::from(self.duration);
        // At most `rest`, an amount.
        self.at_start.saturating_add(Amount(part.saturating_to()))
    }
}

/// The allocation that is paid out to a published list; an `Airdrop` contract at the allocation's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AirdropAllocation {
    /// Address of an allocation of this file, which is all wrapped OPG.
    pub address: Address,
    /// Root of the list, see [`crate::AirdropList`]; its amounts sum up to the allocation.
    pub root: B256,
}

/// How attestation evidence is judged (docs/evidence.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceSetup {
    /// Who may change the policy and revoke: an account, or the timelock if the file has governance.
    pub owner: Address,
    /// The first policy: a JSON document as text.
    pub policy: String,
    /// Seconds for which evidence stays good after the policy it was accepted by was replaced.
    pub grace: u64,
    /// Root certificates of software attesters, on development chains only: their evidence is `simulated` (D9).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub development_roots: Vec<DevelopmentRoot>,
}

/// A root certificate of a software attester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevelopmentRoot {
    /// Whose format it imitates: `nitro`, `tdx`, `sgx` or `snp`.
    pub kind: String,
    /// Name for people; for `snp` the product: `Milan`, `Genoa`, `Turin`.
    pub label: String,
    /// The certificate (DER).
    pub der: Bytes,
}

/// A node registered in block 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRegistration {
    /// Owner and payee.
    pub operator: Address,
    /// Salt of the node id.
    pub salt: B256,
    /// Base URL.
    pub endpoint: String,
    /// Ed25519 key that signs receipts.
    pub receipt_key: B256,
    /// Account that relays settlements.
    pub settlement_key: Address,
    /// X25519 key that requests are sealed to; not written if there is none.
    #[serde(default, skip_serializing_if = "B256::is_zero")]
    pub hpke_key: B256,
    /// Bond, wei.
    pub bond: Amount,
}

impl NodeRegistration {
    /// The node's id.
    #[must_use]
    pub fn node_id(&self) -> B256 {
        node_id(self.operator, self.salt).0
    }
}

/// A model registered in block 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRegistration {
    /// Display name, such as `demo/digits-mlp`.
    pub name: String,
    /// Content root.
    pub root: B256,
    /// Payee of the royalty.
    pub creator: Address,
    /// Where the files are.
    pub uri: String,
    /// Royalty, basis points.
    pub royalty_bps: u16,
    /// Reference price.
    pub price: Price,
    /// Exact integer programs that proofs about the model may be about; not written if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramRegistration>,
}

/// An exact integer program of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramRegistration {
    /// Root that names graph, weights and parameter set.
    pub root: B256,
    /// How the program's results compare with the model's, as JSON.
    pub report: String,
}

/// A node's ask for a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskRegistration {
    /// Id of a node of this file.
    pub node_id: B256,
    /// Root of a model of this file.
    pub root: B256,
    /// The ask.
    pub price: Price,
}

/// Why a genesis file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenesisFileError {
    /// Larger than any legal file.
    #[error("genesis file has {got} bytes, at most {limit} are allowed")]
    Size {
        /// Most bytes.
        limit: usize,
        /// Bytes found.
        got: usize,
    },
    /// Not the JSON of a genesis file.
    #[error("genesis file: {0}")]
    Json(#[from] serde_json::Error),
    /// A field with a value that is not allowed.
    #[error("{field}: expected {expected}, got {got}")]
    Field {
        /// Path of the field, such as `validators[2].system`.
        field: String,
        /// What is allowed.
        expected: String,
        /// What was found.
        got: String,
    },
}

fn bad(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> GenesisFileError {
    GenesisFileError::Field {
        field: field.into(),
        expected: expected.into(),
        got: got.to_string(),
    }
}

type Checked = Result<(), GenesisFileError>;

/// Bytes over which a validator proves possession of its BLS key: chain id, operator and epoch (decisions D16), so that a proof
/// made for one registration is worth nothing in another.
pub fn possession_namespace(chain_id: u64, operator: Address, epoch: u64) -> Vec<u8> {
    let tag = opg_primitives::domain::Tag::BlsPossession.as_str().as_bytes();
    [tag, &chain_id.to_be_bytes(), operator.as_slice(), &epoch.to_be_bytes()].concat()
}

impl GenesisFile {
    /// Parses and validates.
    ///
    /// # Errors
    /// [`GenesisFileError`] naming the first field that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, GenesisFileError> {
        if bytes.len() > MAX_BYTES {
            return Err(GenesisFileError::Size {
                limit: MAX_BYTES,
                got: bytes.len(),
            });
        }
        let file: Self = serde_json::from_slice(bytes)?;
        file.validate()?;
        Ok(file)
    }

    /// The file for people: indented JSON with a final newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Identifies the network: the tagged hash of the canonical (compact, fields in declared order) JSON. It does not depend on
    /// white space or on the order of fields in the file.
    #[must_use]
    pub fn digest(&self) -> B256 {
        // Serialisation of these types (strings, integers, sequences) cannot fail.
        let canonical = serde_json::to_vec(self).unwrap_or_default();
        tagged(Tag::Genesis, &[&canonical])
    }

    /// Checks every rule that does not need cryptography: proofs of possession are checked by `opg-consensus`, which has BLS.
    ///
    /// # Errors
    /// [`GenesisFileError::Field`] for the first field that is wrong.
    pub fn validate(&self) -> Checked {
        if self.version != VERSION {
            return Err(bad("version", VERSION.to_string(), self.version));
        }
        range("chain_id", self.chain_id, 1, MAX_CHAIN_ID)?;
        range("timestamp", self.timestamp, 1, MAX_TIME)?;
        self.validate_parameters()?;
        self.validate_validators()?;
        let wrapped = self.validate_allocations()?;
        self.validate_buckets()?;
        self.validate_evidence()?;
        self.validate_nodes(&wrapped)?;
        self.validate_models()?;
        self.validate_asks()
    }

    fn validate_parameters(&self) -> Checked {
        let p = &self.parameters;
        range("parameters.gas_limit", p.gas_limit, MIN_GAS_LIMIT, MAX_GAS_LIMIT)?;
        range("parameters.unbonding", p.unbonding, 0, 10 * 365 * 86_400)?;
        range("parameters.terms_notice", p.terms_notice, 0, MAX_WINDOW)?;
        range("parameters.claim_window", p.claim_window, 0, MAX_WINDOW)?;
        if p.epoch_blocks != 0 {
            range(
                "parameters.epoch_blocks",
                p.epoch_blocks,
                MIN_EPOCH_BLOCKS,
                MAX_EPOCH_BLOCKS,
            )?;
        }
        range(
            "parameters.max_royalty_bps",
            u64::from(p.max_royalty_bps),
            0,
            u64::from(MAX_ROYALTY_BPS),
        )?;
        for (name, window) in ["none", "tee", "zk", "replay"].into_iter().zip(p.windows.by_code()) {
            range(&format!("parameters.windows.{name}"), window, 0, MAX_WINDOW)?;
        }
        self.validate_staking()?;
        if p.min_bond.0 > SUPPLY {
            return Err(bad("parameters.min_bond", format!("at most {SUPPLY}"), p.min_bond.0));
        }
        if p.governance.is_none() || p.treasury != addresses::TREASURY {
            ordinary("parameters.treasury", p.treasury)?;
        }
        self.validate_governance()
    }

    fn validate_governance(&self) -> Checked {
        let Some(g) = &self.parameters.governance else {
            return Ok(());
        };
        let at = |field: &str| format!("parameters.governance.{field}");
        range(&at("voting_delay"), g.voting_delay, 0, MAX_WINDOW)?;
        range(&at("voting_period"), g.voting_period, 1, MAX_WINDOW)?;
        range(&at("timelock_delay"), g.timelock_delay, 0, MAX_WINDOW)?;
        range(&at("quorum_bps"), u64::from(g.quorum_bps), 1, 10_000)?;
        if g.proposal_threshold.0 > SUPPLY {
            let expected = format!("at most {SUPPLY}");
            return Err(bad(at("proposal_threshold"), expected, g.proposal_threshold.0));
        }
        let Some(guardian) = &g.guardian else { return Ok(()) };
        ordinary(&at("guardian.account"), guardian.account)?;
        let last = self.timestamp.saturating_add(MAX_GUARDIAN);
        range(
            &at("guardian.until"),
            guardian.until,
            self.timestamp,
            last.min(MAX_TIME),
        )
    }

    /// The contracts' own ranges, so that block 0 cannot fail for them.
    fn validate_staking(&self) -> Checked {
        let Some(s) = &self.parameters.staking else {
            return Ok(());
        };
        let unit = opg_primitives::money::WEI_PER_OPG;
        for (name, amount, least, most) in [
            ("min_self_bond", s.min_self_bond.0, unit, 10_000_000 * unit),
            ("challenger_bond", s.challenger_bond.0, 1, 1_000_000 * unit),
        ] {
            if !(least..=most).contains(&amount) {
                let field = format!("parameters.staking.{name}");
                return Err(bad(field, format!("{least} to {most}"), amount));
            }
        }
        let year = 365 * 86_400;
        for (name, value, least, most) in [
            ("unbonding", s.unbonding, 1, year),
            ("jail_time", s.jail_time, 1, year),
            ("max_seats", u64::from(s.max_seats), 4, MAX_VALIDATORS as u64),
            ("commission_step", u64::from(s.commission_step), 1, 10_000),
            ("min_views", u64::from(s.min_views), 1, u64::from(u32::MAX)),
            ("min_led_ppm", u64::from(s.min_led_ppm), 0, 900_000),
            ("auditors_ppm", u64::from(s.auditors_ppm), 0, 1_000_000),
            (
                "nodes_ppm",
                u64::from(s.nodes_ppm),
                0,
                1_000_000 - u64::from(s.auditors_ppm.min(1_000_000)),
            ),
            ("appeal_window", s.appeal_window, 1, 30 * 86_400),
            ("equivocation_ppm", u64::from(s.equivocation_ppm), 1, 1_000_000),
            ("downtime_ppm", u64::from(s.downtime_ppm), 1, 100_000),
            ("correlation", u64::from(s.correlation), 1, 100),
        ] {
            range(&format!("parameters.staking.{name}"), value, least, most)?;
        }
        // A node that leaves must still be there when whoever was paid late finds it cheated, and while that is appealed against.
        let longest = self.parameters.windows.by_code().into_iter().max().unwrap_or_default();
        range(
            "parameters.unbonding",
            self.parameters.unbonding,
            longest.saturating_add(s.appeal_window),
            10 * 365 * 86_400,
        )
    }

    fn validate_validators(&self) -> Checked {
        count("validators", self.validators.len(), 1, MAX_VALIDATORS)?;
        let mut seen = Unique::default();
        for (i, v) in self.validators.iter().enumerate() {
            let at = |field: &str| format!("validators[{i}].{field}");
            text(&at("name"), &v.name, 1, 64)?;
            seen.insert("name", &v.name, &at("name"))?;
            for (field, bytes) in [
                ("identity", v.identity.as_slice()),
                ("bls", v.bls.as_slice()),
                ("bls_possession", v.bls_possession.as_slice()),
            ] {
                if bytes.iter().all(|byte| *byte == 0) {
                    return Err(bad(at(field), "a key", "zero"));
                }
                seen.insert(field, bytes, &at(field))?;
            }
            // One set for both: a system key must have no other use.
            for (field, account) in [("system", v.system), ("operator", v.operator)] {
                ordinary(&at(field), account)?;
                seen.insert("account", account.as_slice(), &at(field))?;
            }
        }
        Ok(())
    }

    /// Kind, label and certificate (DER) of the software attesters' roots.
    pub fn development_roots(&self) -> impl Iterator<Item = (&str, &str, &[u8])> {
        let roots = self.evidence.iter().flat_map(|setup| &setup.development_roots);
        roots.map(|root| (root.kind.as_str(), root.label.as_str(), root.der.as_ref()))
    }

    fn validate_evidence(&self) -> Checked {
        let Some(setup) = &self.evidence else { return Ok(()) };
        if self.parameters.governance.is_none() || setup.owner != addresses::TIMELOCK {
            ordinary("evidence.owner", setup.owner)?;
        }
        text("evidence.policy", &setup.policy, 2, crate::evidence::MAX_POLICY)?;
        range("evidence.grace", setup.grace, 0, MAX_WINDOW)?;
        let roots = &setup.development_roots;
        if !roots.is_empty() && !self.development {
            let expected = "none: this is not a development chain";
            return Err(bad("evidence.development_roots", expected, roots.len()));
        }
        count("evidence.development_roots", roots.len(), 0, 16)?;
        for (i, root) in roots.iter().enumerate() {
            let at = |field: &str| format!("evidence.development_roots[{i}].{field}");
            if !["nitro", "tdx", "sgx", "snp"].contains(&root.kind.as_str()) {
                return Err(bad(at("kind"), "nitro, tdx, sgx or snp", &root.kind));
            }
            text(&at("label"), &root.label, 1, 64)?;
            count(&at("der"), root.der.len(), 1, 8_192)?;
        }
        Ok(())
    }

    /// Returns the wrapped OPG of each account.
    fn validate_allocations(&self) -> Result<BTreeMap<Address, u128>, GenesisFileError> {
        count("allocations", self.allocations.len(), 1, MAX_ITEMS)?;
        let systems: BTreeSet<_> = self.validators.iter().map(|v| v.system).collect();
        let mut wrapped = BTreeMap::new();
        let mut total = 0u128;
        for (i, a) in self.allocations.iter().enumerate() {
            let at = |field: &str| format!("allocations[{i}].{field}");
            text(&at("label"), &a.label, 1, 64)?;
            if !self.is_bucket(a.address) {
                ordinary(&at("address"), a.address)?;
            }
            if systems.contains(&a.address) && !a.wrapped.is_zero() {
                return Err(bad(at("wrapped"), "0 for a system account", a.wrapped.0));
            }
            total = total
                .checked_add(a.native.0)
                .and_then(|sum| sum.checked_add(a.wrapped.0))
                .filter(|sum| *sum <= SUPPLY)
                .ok_or_else(|| bad("allocations", format!("a sum of {SUPPLY}"), "more"))?;
            if wrapped.insert(a.address, a.wrapped.0).is_some() {
                return Err(bad(at("address"), "an address that is not repeated", a.address));
            }
        }
        if total != SUPPLY {
            return Err(bad("allocations", format!("a sum of {SUPPLY}"), total));
        }
        Ok(wrapped)
    }

    /// Whether this is the reserved address of a bucket, with a contract of this file at it.
    fn is_bucket(&self, address: Address) -> bool {
        let mut contracts = self
            .vesting
            .iter()
            .map(|schedule| schedule.address)
            .chain(self.airdrop.iter().map(|airdrop| airdrop.address));
        crate::supply::BUCKETS.iter().any(|bucket| bucket.address == address) && contracts.any(|at| at == address)
    }

    /// Contracts that hold an allocation: exactly this much, and nothing that a key could take.
    fn validate_buckets(&self) -> Checked {
        count("vesting", self.vesting.len(), 0, MAX_ITEMS)?;
        let allocations: BTreeMap<_, _> = self.allocations.iter().map(|a| (a.address, a)).collect();
        let operators = self.nodes.iter().flat_map(|n| [n.operator, n.settlement_key]);
        let validators = self.validators.iter().flat_map(|v| [v.operator, v.system]);
        let keys: BTreeSet<_> = operators.chain(validators).collect();
        let mut contracts = BTreeSet::new();
        let mut holds = |field: String, address: Address| -> Result<Amount, GenesisFileError> {
            let allocation = allocations.get(&address).filter(|a| a.native.is_zero());
            let Some(allocation) = allocation.filter(|_| !keys.contains(&address)) else {
                return Err(bad(field, "an allocation of wrapped OPG that is no key's", address));
            };
            if !contracts.insert(address) {
                return Err(bad(field, "an address that is not repeated", address));
            }
            Ok(allocation.wrapped)
        };
        for (i, v) in self.vesting.iter().enumerate() {
            let at = |field: &str| format!("vesting[{i}].{field}");
            let total = holds(at("address"), v.address)?;
            // Where validators have stake, what is for staking goes to whoever stakes and to nobody else.
            let rewards = v.address == crate::supply::STAKING_REWARDS.address;
            if rewards && self.parameters.staking.is_some() && v.beneficiary != addresses::EMISSION {
                return Err(bad(at("beneficiary"), addresses::EMISSION.to_string(), v.beneficiary));
            }
            if !(rewards && v.beneficiary == addresses::EMISSION) {
                ordinary(&at("beneficiary"), v.beneficiary)?;
            }
            if v.at_start > total {
                return Err(bad(at("at_start"), format!("at most {}", total.0), v.at_start.0));
            }
            range(&at("start"), v.start, 0, MAX_TIME)?;
            range(&at("cliff"), v.cliff, 0, MAX_VESTING)?;
            range(&at("duration"), v.duration, 0, MAX_VESTING)?;
            if v.duration == 0 && v.at_start != total {
                return Err(bad(
                    at("duration"),
                    "more than 0 seconds for what is not free at the start",
                    0,
                ));
            }
        }
        if let Some(airdrop) = &self.airdrop {
            holds("airdrop.address".into(), airdrop.address)?;
            if airdrop.root.is_zero() {
                return Err(bad("airdrop.root", "the root of a list", "zero"));
            }
        }
        let schedules = self.vesting.iter().map(|v| v.beneficiary);
        if let Some(address) = schedules.into_iter().find(|b| contracts.contains(b)) {
            return Err(bad("vesting", "beneficiaries that are no buckets", address));
        }
        Ok(())
    }

    fn validate_nodes(&self, wrapped: &BTreeMap<Address, u128>) -> Checked {
        count("nodes", self.nodes.len(), 0, MAX_ITEMS)?;
        let systems: BTreeSet<_> = self.validators.iter().map(|v| v.system).collect();
        let mut free = wrapped.clone();
        if let Some(staking) = &self.parameters.staking {
            for (i, v) in self.validators.iter().enumerate() {
                let left = free.entry(v.operator).or_default();
                *left = left.checked_sub(staking.min_self_bond.0).ok_or_else(|| {
                    bad(
                        format!("validators[{i}].operator"),
                        format!("an account with {} wei of wrapped OPG to bond", staking.min_self_bond.0),
                        format!("{left} wei"),
                    )
                })?;
            }
        }
        let mut seen = Unique::default();
        for (i, n) in self.nodes.iter().enumerate() {
            let at = |field: &str| format!("nodes[{i}].{field}");
            ordinary(&at("operator"), n.operator)?;
            ordinary(&at("settlement_key"), n.settlement_key)?;
            for (field, account) in [("operator", n.operator), ("settlement_key", n.settlement_key)] {
                if systems.contains(&account) {
                    return Err(bad(at(field), "no validator's system account", account));
                }
            }
            seen.insert("node id", n.node_id().as_slice(), &at("salt"))?;
            text(&at("endpoint"), &n.endpoint, 1, 256)?;
            if n.receipt_key.is_zero() {
                return Err(bad(at("receipt_key"), "a key", "zero"));
            }
            seen.insert("receipt_key", n.receipt_key.as_slice(), &at("receipt_key"))?;
            if n.bond < self.parameters.min_bond {
                return Err(bad(
                    at("bond"),
                    format!("at least {}", self.parameters.min_bond.0),
                    n.bond.0,
                ));
            }
            let left = free.entry(n.operator).or_default();
            *left = left.checked_sub(n.bond.0).ok_or_else(|| {
                bad(
                    at("bond"),
                    format!("at most the operator's wrapped allocation, {left} left"),
                    n.bond.0,
                )
            })?;
        }
        Ok(())
    }

    fn validate_models(&self) -> Checked {
        count("models", self.models.len(), 0, MAX_ITEMS)?;
        let mut seen = Unique::default();
        for (i, m) in self.models.iter().enumerate() {
            let at = |field: &str| format!("models[{i}].{field}");
            text(&at("name"), &m.name, 1, 128)?;
            text(&at("uri"), &m.uri, 0, 512)?;
            ordinary(&at("creator"), m.creator)?;
            if m.root.is_zero() {
                return Err(bad(at("root"), "a content root", "zero"));
            }
            seen.insert("root", m.root.as_slice(), &at("root"))?;
            range(
                &at("royalty_bps"),
                u64::from(m.royalty_bps),
                0,
                u64::from(self.parameters.max_royalty_bps),
            )?;
            count(&at("programs"), m.programs.len(), 0, MAX_PROGRAMS)?;
            for (j, program) in m.programs.iter().enumerate() {
                let at = |field: &str| format!("models[{i}].programs[{j}].{field}");
                if program.root.is_zero() {
                    return Err(bad(at("root"), "the root of a program", "zero"));
                }
                seen.insert("program", [m.root.0, program.root.0].concat(), &at("root"))?;
                text(&at("report"), &program.report, 1, MAX_REPORT)?;
            }
        }
        Ok(())
    }

    fn validate_asks(&self) -> Checked {
        count("asks", self.asks.len(), 0, MAX_ITEMS)?;
        let nodes: BTreeSet<_> = self.nodes.iter().map(NodeRegistration::node_id).collect();
        let models: BTreeMap<_, _> = self.models.iter().map(|m| (m.root, m.price)).collect();
        let mut seen = Unique::default();
        for (i, a) in self.asks.iter().enumerate() {
            let at = |field: &str| format!("asks[{i}].{field}");
            if !nodes.contains(&a.node_id) {
                return Err(bad(at("node_id"), "a node of this file", a.node_id));
            }
            let Some(reference) = models.get(&a.root) else {
                return Err(bad(at("root"), "a model of this file", a.root));
            };
            if !a.price.is_admissible_ask(reference) {
                return Err(bad(
                    at("price"),
                    "each component within a quarter and four times the model's",
                    "less or more",
                ));
            }
            seen.insert("ask", [a.node_id.0, a.root.0].concat(), &at("root"))?;
        }
        Ok(())
    }
}

/// Values that must not repeat, by kind.
#[derive(Default)]
struct Unique(BTreeSet<(&'static str, Vec<u8>)>);

impl Unique {
    fn insert(&mut self, kind: &'static str, value: impl AsRef<[u8]>, field: &str) -> Checked {
        let value = value.as_ref();
        if self.0.insert((kind, value.to_vec())) {
            Ok(())
        } else {
            Err(bad(
                field,
                format!("a {kind} that is not repeated"),
                alloy_primitives::hex::encode(value),
            ))
        }
    }
}

fn range(field: &str, value: u64, least: u64, most: u64) -> Checked {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(bad(field, format!("{least} to {most}"), value))
    }
}

fn count(field: &str, len: usize, least: usize, most: usize) -> Checked {
    if (least..=most).contains(&len) {
        Ok(())
    } else {
        Err(bad(field, format!("{least} to {most} items"), len))
    }
}

fn text(field: &str, value: &str, least: usize, most: usize) -> Checked {
    if !(least..=most).contains(&value.len()) {
        return Err(bad(field, format!("{least} to {most} bytes"), value.len()));
    }
    if value.chars().any(char::is_control) {
        return Err(bad(field, "no control characters", format!("{value:?}")));
    }
    Ok(())
}

/// An account that belongs to somebody: not zero, not a precompile, not a predeploy, not a system contract of the chain.
fn ordinary(field: &str, account: Address) -> Checked {
    let low = account.0[..18].iter().all(|byte| *byte == 0);
    if low || addresses::PREDEPLOYS.contains(&account) || addresses::EIP_SYSTEM_CONTRACTS.contains(&account) {
        return Err(bad(field, "an ordinary account", account));
    }
    Ok(())
}
