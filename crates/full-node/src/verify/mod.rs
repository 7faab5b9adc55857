//! What a full node checks before a receipt enters a block (receipt.md §6), as pure functions.
//!
//! A verdict depends on the receipt, the parent block's state and the block's timestamp, on nothing else: every validator
//! reaches the same one (D13). The two signatures depend on the receipt alone once the keyset is known, and a keyset digest
//! commits to its key, so a good signature is good for ever and [`Proven`] carries it from the pool to proposal and vote.

mod cost;
mod reject;
mod view;

pub use cost::cost;
pub use reject::{Reject, Rule};
pub use view::View;

use alloy_primitives::{Address, B256};
use opg_artefact::{ArtefactError, ZkArtefact};
use opg_contracts::{
    BatchSettlement, GenesisFile, PaymentMethod, StateReader, addresses,
    channel_tx::{BatchItem, ChannelEntry},
    payment_settlement,
    state::{self, ModelTerms, Settlement},
    system_tx::BatchEntry,
    x402,
};
use opg_payments::receipt_payment::{self, Domains, PaymentError};
use opg_primitives::{
    ids::deposit_address,
    mode::{Grade, Mode},
    money::{Price, charge},
};
use opg_receipt::{FinishReason, ModeRecord, PaymentRecord, SignedReceipt, commit::receipt_id};
use std::collections::HashSet;

/// Constants of one network that the rules need.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Least bond of an admissible node, wei.
    pub min_bond: u128,
    /// Seconds for which a model's former royalty stays valid after a change.
    pub terms_notice: u64,
    /// Whether simulated evidence counts here (D9).
    pub development: bool,
    /// Seconds for which evidence of an older policy stays good.
    pub evidence_grace: u64,
    domains: Domains,
}

impl Rules {
    /// The rules of a network.
    pub fn new(chain_id: u64, min_bond: u128, terms_notice: u64) -> Self {
        Self {
            chain_id,
            min_bond,
            terms_notice,
            development: false,
            evidence_grace: 0,
            domains: Domains::new(chain_id, addresses::OPG),
        }
    }

    /// The rules of the network of a genesis file.
    pub fn of(genesis: &GenesisFile) -> Self {
        Self {
            development: genesis.development,
            evidence_grace: genesis.evidence.as_ref().map_or(0, |setup| setup.grace),
            ..Self::new(
                genesis.chain_id,
                genesis.parameters.min_bond.0,
                genesis.parameters.terms_notice,
            )
        }
    }
}

/// What of a receipt is known to be good, whatever the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proven {
    /// The COSE signature, by the keyset that the receipt names.
    pub receipt: bool,
    /// The payment authorization, by the payer.
    pub payment: bool,
    /// The proof of the answer, about the program with this root.
    pub program: Option<B256>,
}

/// The key that a receipt's keyset signs with by this state, if there is one. Whether the keyset may still sign is the check's matter.
pub(crate) fn receipt_key<R: StateReader>(view: &View<'_, R>, receipt: &SignedReceipt) -> Option<[u8; 32]> {
    let keyset = view.keyset(receipt.core().keyset.0).ok()??;
    Some(keyset.receipt_key.0)
}

/// A receipt that may enter a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What the ledger records.
    pub entry: BatchItem,
    /// Payment id.
    pub payment_id: B256,
    /// The node's bond, wei.
    pub bond: u128,
    /// Signatures and proof that were checked now or before.
    pub proven: Proven,
}

/// A receipt was refused, or the state could not be read.
#[derive(Debug)]
pub enum CheckError<E> {
    /// It breaks a rule.
    Rejected(Reject),
    /// No verdict: the state is not readable.
    State(E),
}

impl<E> From<Reject> for CheckError<E> {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

/// Checks one receipt against `state`, the parent block's, for a block with timestamp `timestamp` (Unix seconds). `artefact` is the
/// proof of its answer, for a mode that has one.
///
/// # Errors
/// The first rule that it breaks, in the order of receipt.md §6, or why the state could not be read.
pub fn check_receipt<R: StateReader>(
    receipt: &SignedReceipt,
    state: &R,
    rules: &Rules,
    timestamp: u64,
    artefact: Option<&[u8]>,
) -> Result<BatchItem, CheckError<R::Error>> {
    check(
        receipt,
        &View::new(state),
        rules,
        timestamp,
        artefact,
        Proven::default(),
    )
    .map(|admitted| admitted.entry)
}

/// As [`check_receipt`], with registry reads shared by the receipts of a block, and without checking again what is `proven`.
///
/// # Errors
/// As [`check_receipt`].
pub fn check<R: StateReader>(
    receipt: &SignedReceipt,
    view: &View<'_, R>,
    rules: &Rules,
    timestamp: u64,
    artefact: Option<&[u8]>,
    proven: Proven,
) -> Result<Admitted, CheckError<R::Error>> {
    let core = receipt.core();
    // 1. Size, canonical form and version were checked by the decoder.
    if core.chain_id != rules.chain_id {
        return refuse(Rule::ChainId, rules.chain_id, core.chain_id);
    }
    if core.registry != addresses::NODE_REGISTRY {
        return refuse(Rule::Registry, addresses::NODE_REGISTRY, core.registry);
    }

    // 2. Who signed.
    let (node_id, keyset_digest) = (core.node_id.0, core.keyset.0);
    let keyset = view.keyset(keyset_digest)?;
    let Some(keyset) = keyset else {
        return refuse(Rule::KeysetUnknown, "a registered keyset", keyset_digest);
    };
    if let Some(at) = keyset.revoked_at {
        return refuse(Rule::KeysetRevoked, "an active keyset", format!("revoked at {at}"));
    }
    if keyset.node_id != node_id {
        return refuse(Rule::KeysetNode, keyset.node_id, node_id);
    }
    let Some(node) = view.node(node_id)? else {
        return refuse(Rule::NodeUnknown, "a registered node", node_id);
    };
    if let Some(at) = node.inactive_at {
        return refuse(Rule::NodeInactive, "an active node", format!("deactivated at {at}"));
    }
    let needed = rules.min_bond.max(view.recent_fees(node_id, timestamp)?);
    if node.bond.0 < needed {
        return refuse(Rule::Bond, format!("at least {needed} wei"), node.bond.0);
    }
    if !proven.receipt && receipt.verify_signature(&keyset.receipt_key.0).is_err() {
        return refuse(
            Rule::Signature,
            format!("a signature by {}", keyset.receipt_key),
            "another signature",
        );
    }

    // 3. Unseen.
    if state::seq_used(view.state(), keyset_digest, core.seq).map_err(CheckError::State)? {
        return refuse(Rule::SeqUsed, "an unused sequence number", core.seq);
    }

    // 4. Payment.
    let payment_proven = if core.payment.channel.is_some() {
        check_channel(receipt, view, rules, proven.payment)?
    } else {
        check_payment(receipt, view, rules, timestamp, proven.payment)?
    };

    // 5. What was served and what it costs.
    check_terms(receipt, view, rules, timestamp)?;

    // 6. Mode and grade.
    check_mode(&core.mode, rules.development)?;
    if core.mode.served != Mode::Zk && artefact.is_some() {
        return refuse(Rule::Evidence, "no proof", "a proof");
    }
    if core.mode.served == Mode::None && core.evidence.is_some() {
        return refuse(Rule::Evidence, "no evidence", "evidence");
    }

    // 7. What the core says about itself, so that everything in a block also passes a light client.
    if let Err(error) = core.check_consistency() {
        return refuse(Rule::Consistency, "fields that agree with each other", error);
    }

    // 8. The evidence: the proof last, because it costs most.
    if core.mode.served == Mode::Tee {
        check_attested(receipt, view, rules, timestamp)?;
    }
    let program = match core.mode.served {
        Mode::None | Mode::Tee | Mode::Replay => None,
        Mode::Zk => Some(check_proof(receipt, view, timestamp, artefact, proven.program)?),
    };

    Ok(Admitted {
        entry: entry(receipt),
        payment_id: core.payment.id().0,
        bond: node.bond.0,
        proven: Proven {
            receipt: true,
            payment: payment_proven,
            program,
        },
    })
}

/// What the ledger records of a receipt.
fn entry(receipt: &SignedReceipt) -> BatchItem {
    let core = receipt.core();
    let payment = &core.payment;
    let (node_id, keyset, model_root) = (core.node_id.0, core.keyset.0, core.model.served_root.0);
    let (royalty_bps, mode) = (core.price.royalty_bps, core.mode.served.code());
    match channel_of(payment) {
        Some(channel) => BatchItem::Channel(ChannelEntry {
            node_id,
            keyset,
            model_root,
            royalty_bps,
            mode,
            router: core.router,
            channel,
            seq: core.seq,
            charge: core.price.charge.0,
        }),
        None => BatchItem::Payment(BatchEntry {
            node_id,
            keyset,
            model_root,
            royalty_bps,
            mode,
            router: core.router,
            seq: core.seq,
            method: PaymentMethod::of(payment).unwrap_or(PaymentMethod::Erc3009),
            payer: payment.payer,
            nonce: payment.nonce,
            amount: payment.due(core.price.charge).0,
            charge: core.price.charge.0,
        }),
    }
}

/// The channel that pays, as the contracts have it.
fn channel_of(payment: &PaymentRecord) -> Option<BatchSettlement::ChannelConfig> {
    let (config, _) = receipt_payment::channel(payment, addresses::OPG)?;
    Some(BatchSettlement::ChannelConfig {
        payer: config.payer,
        payerAuthorizer: config.payer_authorizer,
        receiver: config.receiver,
        receiverAuthorizer: config.receiver_authorizer,
        token: config.token,
        // Below 2^40: the core's consistency is checked before anything is recorded.
        withdrawDelay: alloy_primitives::aliases::U40::saturating_from(config.withdraw_delay),
        salt: config.salt,
    })
}

/// Rule 4 for a channel: it is the node's, its payer's voucher covers the call, and its money covers the voucher and everything that is
/// recorded for it. Returns that the voucher's signature is known to be good now.
fn check_channel<R: StateReader>(
    receipt: &SignedReceipt,
    view: &View<'_, R>,
    rules: &Rules,
    proven: bool,
) -> Result<bool, CheckError<R::Error>> {
    let core = receipt.core();
    let payment = &core.payment;
    check_payee(receipt)?;
    let Some((config, voucher)) = receipt_payment::channel(payment, addresses::OPG) else {
        return refuse(Rule::Channel, "a channel", "none");
    };
    if let Err(error) = config.check_delay() {
        return refuse(Rule::Channel, "a delay that the contract takes", error);
    }
    if !proven && let Err(error) = receipt_payment::verify(payment, addresses::OPG, &rules.domains) {
        return match error {
            PaymentError::ChannelId { expected, got } => refuse(Rule::Channel, expected, got),
            error => refuse(
                Rule::PaymentSignature,
                format!("a voucher signed by {}", config.payer_authorizer),
                error,
            ),
        };
    }
    let id = voucher.channel_id;
    let channel = x402::read_channel(view.state(), id).map_err(CheckError::State)?;
    let ceiling = voucher.max_claimable.0;
    if ceiling > channel.balance {
        return refuse(Rule::ChannelFunds, format!("at most {} wei", channel.balance), ceiling);
    }
    let sums = x402::read_channel_sums(view.state(), id).map_err(CheckError::State)?;
    let recorded = sums.recorded.saturating_add(core.price.charge.0);
    if recorded > channel.balance {
        return refuse(Rule::ChannelSpent, format!("at most {} wei", channel.balance), recorded);
    }
    Ok(true)
}

/// The money goes to the node, in OPG.
fn check_payee<E>(receipt: &SignedReceipt) -> Result<Address, CheckError<E>> {
    let core = receipt.core();
    let payee = deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, core.node_id);
    if core.payment.payee != payee {
        return refuse(Rule::Payee, payee, core.payment.payee);
    }
    if core.price.asset != addresses::OPG {
        return refuse(Rule::Asset, addresses::OPG, core.price.asset);
    }
    Ok(payee)
}

/// Rule 4. Returns whether the payer's signature is known to be good now.
fn check_payment<R: StateReader>(
    receipt: &SignedReceipt,
    view: &View<'_, R>,
    rules: &Rules,
    timestamp: u64,
    proven: bool,
) -> Result<bool, CheckError<R::Error>> {
    let core = receipt.core();
    let payment = &core.payment;
    let payee = check_payee(receipt)?;
    let id = payment.id().0;
    if state::is_spent(view.state(), id).map_err(CheckError::State)? {
        return refuse(Rule::PaymentSpent, "an unspent payment", id);
    }
    let Some(method) = PaymentMethod::of(payment) else {
        return refuse(Rule::Channel, "no channel", "a channel");
    };
    let due = payment.due(core.price.charge).0;
    match payment_settlement(view.state(), method, payment.payer, payment.nonce).map_err(CheckError::State)? {
        settled if settled.paid(payee, due) => return Ok(proven),
        Settlement::Unused => {}
        Settlement::Cancelled => return refuse(Rule::PaymentCancelled, "an unused authorization", "a cancelled one"),
        Settlement::Used(got) => {
            return refuse(Rule::PaymentSettled, state::settlement_hash(payee, due), got);
        }
    }
    // ERC-3009 excludes both ends of the window, Permit2 and its proxies include them.
    let inclusive = method != PaymentMethod::Erc3009;
    if timestamp < payment.valid_after || (timestamp == payment.valid_after && !inclusive) {
        return refuse(
            Rule::PaymentEarly,
            format!("a time before {timestamp}"),
            payment.valid_after,
        );
    }
    if timestamp > payment.valid_before || (timestamp == payment.valid_before && !inclusive) {
        return refuse(
            Rule::PaymentExpired,
            format!("a time after {timestamp}"),
            payment.valid_before,
        );
    }
    if !proven && let Err(error) = receipt_payment::verify(payment, addresses::OPG, &rules.domains) {
        return refuse(
            Rule::PaymentSignature,
            format!("a signature by {}", payment.payer),
            error,
        );
    }
    let funds = state::opg_balance(view.state(), payment.payer).map_err(CheckError::State)?;
    if funds < payment.amount {
        return refuse(Rule::PaymentFunds, format!("at most {} wei", funds.0), payment.amount.0);
    }
    Ok(true)
}

/// Rule 5.
fn check_terms<R: StateReader>(
    receipt: &SignedReceipt,
    view: &View<'_, R>,
    rules: &Rules,
    timestamp: u64,
) -> Result<(), CheckError<R::Error>> {
    let core = receipt.core();
    let id = receipt_id(core.chain_id, &core.node_id, &core.quote.nonce);
    if core.receipt_id != id {
        return refuse(Rule::ReceiptId, id, core.receipt_id);
    }
    let root = core.model.served_root;
    if core.model.asked_root != root {
        return refuse(Rule::ModelServed, core.model.asked_root, root);
    }
    let Some(terms) = view.model(root.0)? else {
        return refuse(Rule::ModelUnknown, "a registered model root", root);
    };
    if !terms.accepts_royalty(core.price.royalty_bps, timestamp, rules.terms_notice) {
        return refuse(Rule::Royalty, terms.royalty_bps, core.price.royalty_bps);
    }
    let ask = view.ask(core.node_id.0, root.0)?;
    if !may_ask(&core.price.ask, &ask, &terms, timestamp, rules.terms_notice) {
        return refuse(Rule::Ask, show_price(&ask), show_price(&core.price.ask));
    }
    let due = match charge(&core.price.ask, core.billed_usage(), core.price.royalty_bps) {
        Ok(due) => due.min(core.payment.amount),
        Err(error) => return refuse(Rule::Charge, "a charge of at most 128 bits", error),
    };
    let discount_allowed = matches!(core.response.finish, FinishReason::Error | FinishReason::Cancelled);
    if core.price.charge > due || (core.price.charge < due && !discount_allowed) {
        return refuse(Rule::Charge, due.0, core.price.charge.0);
    }
    Ok(())
}

/// Whether a receipt may carry `asked` where `registered` is the node's ask: that, or less, but no less than the creator allows (ADR 18).
/// For `notice` seconds after a change of the model's terms the lower bound does not count, so that a change cannot void work that is under way.
fn may_ask(asked: &Price, registered: &Price, terms: &ModelTerms, now: u64, notice: u64) -> bool {
    asked == registered
        || (asked.is_at_most(registered)
            && (asked.is_admissible_ask(&terms.price) || now < terms.changed_at.saturating_add(notice)))
}

/// Rule 6: the modes that have a verifier, and what was served is at most what was asked.
fn check_mode<E>(mode: &ModeRecord, development: bool) -> Result<(), CheckError<E>> {
    for got in [mode.asked, mode.served] {
        if got == Mode::Replay {
            return refuse(Rule::Mode, "none, tee or zk", got);
        }
    }
    if mode.asked == Mode::None && mode.served != Mode::None {
        return refuse(Rule::Mode, Mode::None, mode.served);
    }
    for (mode, got) in [(mode.asked, mode.min_grade), (mode.served, mode.grade)] {
        let expected = match mode {
            // Software attesters exist for development only (D9).
            Mode::Tee if got == Grade::Simulated && development => continue,
            Mode::None => Grade::None,
            // A proof needs no hardware: nothing is above it.
            _ => Grade::Hardware,
        };
        if got != expected {
            return refuse(Rule::Grade, expected, got);
        }
    }
    Ok(())
}

/// Rule 8 for mode tee: the keyset's evidence, as validators found it and as the policy stands now.
fn check_attested<R: StateReader>(
    receipt: &SignedReceipt,
    view: &View<'_, R>,
    rules: &Rules,
    timestamp: u64,
) -> Result<(), CheckError<R::Error>> {
    let core = receipt.core();
    let named = core.evidence.unwrap_or_default();
    let id = named.evidence_id.unwrap_or_default();
    let Some((record, until)) = view.evidence(id, rules.evidence_grace)? else {
        return refuse(Rule::EvidenceUnknown, "registered evidence", id);
    };
    if record.keyset != core.keyset.0 {
        return refuse(Rule::EvidenceKeyset, core.keyset, record.keyset);
    }
    if u64::from(record.grade) != u64::from(core.mode.grade.code()) {
        return refuse(Rule::EvidenceGrade, record.grade, core.mode.grade);
    }
    if named.policy_epoch != Some(record.epoch) {
        let got = named.policy_epoch.unwrap_or(0);
        return refuse(Rule::EvidenceEpoch, record.epoch, got);
    }
    match until {
        None => refuse(Rule::EvidenceRevoked, "evidence that counts", "revoked evidence"),
        Some(until) if timestamp > until => refuse(Rule::EvidenceExpired, format!("a block until {until}"), timestamp),
        Some(_) => Ok(()),
    }
}

/// Rule 8. Returns the root of the program that the proof is about.
fn check_proof<R: StateReader>(
    receipt: &SignedReceipt,
    view: &View<'_, R>,
    timestamp: u64,
    artefact: Option<&[u8]>,
    proven: Option<B256>,
) -> Result<B256, CheckError<R::Error>> {
    let core = receipt.core();
    let deadline = core.evidence.and_then(|evidence| evidence.proof_deadline).unwrap_or(0);
    if timestamp > deadline {
        return refuse(Rule::EvidenceLate, format!("a block before {deadline}"), timestamp);
    }
    let model = core.model.served_root.0;
    let registered = |program| match view.program(model, program)? {
        Some(_) => Ok(program),
        None => refuse(Rule::ProgramUnknown, "a program of the model", program),
    };
    if let Some(program) = proven {
        return registered(program);
    }
    let Some(artefact) = artefact else {
        return refuse(Rule::EvidenceMissing, "a proof", "none");
    };
    let invalid = |error: ArtefactError| Reject::new(Rule::EvidenceInvalid, "a proof of the statement", error);
    let artefact = ZkArtefact::decode(artefact).map_err(invalid)?;
    let program = registered(artefact.program())?;
    artefact.verify(core).map_err(invalid)?;
    Ok(program)
}

fn show_price(price: &Price) -> String {
    format!(
        "{} + {}/{} per million in/out",
        price.per_call.0, price.per_mtok_in.0, price.per_mtok_out.0
    )
}

fn refuse<T, E>(rule: Rule, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Result<T, CheckError<E>> {
    Err(Reject::new(rule, expected, got).into())
}

/// Finds two entries of one batch with the same sequence number or payment.
///
/// # Errors
/// Position of the second one, and the rule.
pub fn check_unique<'a>(entries: impl IntoIterator<Item = &'a BatchItem>) -> Result<(), (usize, Reject)> {
    let mut sequences: HashSet<(B256, u64)> = HashSet::new();
    let mut payments: HashSet<B256> = HashSet::new();
    for (at, entry) in entries.into_iter().enumerate() {
        if !sequences.insert((entry.keyset(), entry.seq())) {
            let reject = Reject::new(Rule::SeqDuplicate, "each sequence number once", entry.seq());
            return Err((at, reject));
        }
        if let Some(payment) = entry.payment()
            && !payments.insert(payment.method.payment_id(payment.payer, payment.nonce).0)
        {
            return Err((
                at,
                Reject::new(Rule::PaymentDuplicate, "each payment once", payment.nonce),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
