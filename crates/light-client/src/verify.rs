//! The steps of a verification, in order.

use crate::{
    checkpoint::{Anchor, Checkpoint, CheckpointBook, age, newest_anchor},
    checks::{
        Taken, check_genesis, check_keyset, check_opening, check_payment, check_price, check_quote, check_upstream,
    },
    error::ProofError,
    finality::CertifiedBlock,
    handover::Epochs,
    report::{Outcome, Report, Requirement, StepName, Steps, Verdict},
    state::ProvedState,
};
use alloy_primitives::B256;
use opg_artefact::{ArtefactError, ZkArtefact};
use opg_contracts::{
    GenesisFile, PaymentMethod, addresses, evidence, payment_settlement,
    state::{Settlement, Spent, read_keyset, read_program, read_spent},
    x402::{read_channel_standing, read_channel_sums},
};
use opg_evidence::{
    binding::{Binding, attestation_nonce},
    registration::{self, Submission},
};
use opg_primitives::{
    ids::deposit_address,
    merkle,
    mode::{Grade, Mode},
};
use opg_receipt::{Core, ReceiptFile, SignedReceipt, State, file::Finality};

/// What the caller asks and knows. The default asks for the mode that the receipt asked for and knows no time.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Mode that must have been served and, optionally, its lowest grade. Absent: the mode asked for. No grade:
    /// hardware, or simulated if the genesis is a development one (D9).
    pub require: Option<(Mode, Option<Grade>)>,
    /// Unix seconds now, for the age of the trusted point (D12); absent: age is not checked.
    pub now: Option<u64>,
    /// EVM block hash or consensus digest that the caller trusts; it must be one of the blocks of the file. If the file's hand-overs
    /// begin after epoch 1, it must be the block of the first one.
    pub trusted_checkpoint: Option<B256>,
    /// What the caller has verified before.
    pub kept: Option<CheckpointBook>,
    /// Accept a trusted point older than the unbonding period.
    pub accept_old_anchor: bool,
}

/// Verifies receipt files against one genesis file. Checking the validators' keys takes some milliseconds, so keep it
/// for more than one file.
#[derive(Debug, Clone)]
pub struct Verifier<'a> {
    genesis: &'a GenesisFile,
    /// Epoch 0 only.
    epochs: Epochs,
}

/// Verifies the bytes of one file.
///
/// # Errors
/// [`ProofError`] if the genesis file has unusable validator keys; everything about the receipt is in the report.
pub fn verify_bytes(bytes: &[u8], genesis: &GenesisFile, options: &Options) -> Result<Report, ProofError> {
    Ok(Verifier::new(genesis)?.verify_bytes(bytes, options))
}

/// Verifies one file that has been read.
///
/// # Errors
/// As [`verify_bytes`].
pub fn verify(file: &ReceiptFile, genesis: &GenesisFile, options: &Options) -> Result<Report, ProofError> {
    Ok(Verifier::new(genesis)?.verify(file, options))
}

impl<'a> Verifier<'a> {
    /// Reads the validators of a genesis file.
    ///
    /// # Errors
    /// [`ProofError`] if a validator's keys or its proof of possession are not valid.
    pub fn new(genesis: &'a GenesisFile) -> Result<Self, ProofError> {
        Ok(Self {
            genesis,
            epochs: Epochs::from_genesis(genesis)?,
        })
    }

    /// Verifies the bytes of one file.
    #[must_use]
    pub fn verify_bytes(&self, bytes: &[u8], options: &Options) -> Report {
        match ReceiptFile::parse_strict(bytes) {
            Ok(file) => self.verify(&file, options),
            Err(error) => {
                let mut steps = Steps::default();
                steps.record::<()>(StepName::File, Err(error.into()));
                invalid(steps)
            }
        }
    }

    /// Verifies one file that has been read; its encoding is canonical by construction.
    #[must_use]
    pub fn verify(&self, file: &ReceiptFile, options: &Options) -> Report {
        let mut steps = Steps::default();
        steps.record(StepName::File, Ok(((), "canonical receipt file, version 1".into())));
        let receipt = SignedReceipt::decode(&file.core).map_err(Outcome::from).map(|receipt| {
            let detail = format!("receipt {}", receipt.core().receipt_id);
            (receipt, detail)
        });
        match steps.record(StepName::Core, receipt) {
            Some(receipt) => Run {
                verifier: self,
                file,
                options,
                receipt: &receipt,
                steps,
                certified: Vec::new(),
                recorded: None,
                epochs: self.epochs.clone(),
                anchored: false,
            }
            .all(),
            None => invalid(steps),
        }
    }
}

/// One verification under way.
struct Run<'a> {
    verifier: &'a Verifier<'a>,
    file: &'a ReceiptFile,
    options: &'a Options,
    receipt: &'a SignedReceipt,
    steps: Steps,
    /// Blocks certified so far: the state proofs of one file mostly share one.
    certified: Vec<(&'a Finality, CertifiedBlock)>,
    /// What is recorded for the channel that pays, if the file proves it.
    recorded: Option<u128>,
    /// The sets that the file leads to.
    epochs: Epochs,
    /// Whether they follow from the trusted checkpoint instead of the genesis.
    anchored: bool,
}

impl<'a> Run<'a> {
    fn all(mut self) -> Report {
        let core = self.receipt.core();
        let steps = &mut self.steps;
        steps.record(StepName::Genesis, check_genesis(core, self.verifier.genesis));
        steps.record(StepName::Keyset, check_keyset(self.file, core));
        let signature = self.receipt.verify_signature(&self.file.keyset.receipt_key.0);
        steps.record(
            StepName::Signature,
            signature
                .map_err(Outcome::from)
                .map(|()| ((), format!("Ed25519, keyset {}", core.keyset))),
        );
        let quote = steps.record(StepName::Quote, check_quote(self.file, core));
        steps.record(
            StepName::Opening,
            check_opening(self.file.opening.as_ref(), core, quote.as_ref()),
        );
        steps.record(StepName::Price, check_price(core));
        if let Some(upstream) = &core.upstream {
            steps.record(StepName::Upstream, check_upstream(core, upstream));
        }

        if self.verifier.genesis.parameters.epoch_blocks > 0 || !self.file.handovers.is_empty() {
            let sets = self.check_handovers();
            self.steps.record(StepName::Handovers, sets);
        }
        let included = self.final_block(
            StepName::Finality,
            self.file.inclusion.as_ref().map(|inclusion| &inclusion.finality),
            "the file shows no block: the receipt is not final, or its inclusion was left out",
        );
        let inclusion = self.check_inclusion(included.as_ref());
        self.steps.record(StepName::Inclusion, inclusion);
        let registration = self.check_registration(included.as_ref());
        let registered = self.steps.record(StepName::Registration, registration);
        let settled = self.check_settlement();
        let settled = self.steps.record(StepName::Settlement, settled);
        let payment = self
            .nothing_failed()
            .and_then(|()| check_payment(core, settled.is_some()));
        self.steps.record(StepName::Payment, payment);
        let evidence = self.check_evidence(included.as_ref());
        let proven = self.steps.record(StepName::Evidence, evidence);

        let blocks = [&included, &registered, &settled, &proven];
        let blocks: Vec<&CertifiedBlock> = blocks.into_iter().flatten().collect();
        let age = self.check_anchor(&blocks);
        let old = self.steps.record(StepName::Anchor, age).flatten();
        self.report(included.as_ref(), settled.is_some(), old)
    }

    /// Checks a certified block, as a step of its own or as part of another.
    fn final_block(&mut self, name: StepName, finality: Option<&'a Finality>, absent: &str) -> Option<CertifiedBlock> {
        let result = match finality {
            None => Err(Outcome::skipped(absent)),
            Some(finality) => self.certified(finality).map(|block| {
                let detail = format!(
                    "block {} {} certified by {} of {} validators",
                    block.header.number,
                    block.hash,
                    block.signers,
                    self.epochs.set(block.proposal.epoch).map_or(0, |set| set.len()),
                );
                (block, detail)
            }),
        };
        self.steps.record(name, result)
    }

    /// Certificates cost pairings and state proofs a walk through nodes that a stranger chose: a file that has already
    /// failed gets neither, and its first failure stays the only one.
    fn nothing_failed(&self) -> Result<(), Outcome> {
        match self.steps.first_failure() {
            None => Ok(()),
            Some(name) => Err(Outcome::skipped(format!(
                "not checked, as step {} failed",
                name.as_str()
            ))),
        }
    }

    fn certified(&mut self, finality: &'a Finality) -> Result<CertifiedBlock, Outcome> {
        self.nothing_failed()?;
        if let Some((_, block)) = self.certified.iter().find(|(known, _)| *known == finality) {
            return Ok(block.clone());
        }
        let block = self.epochs.verify(finality)?;
        self.certified.push((finality, block.clone()));
        Ok(block)
    }

    /// The sets of later epochs, from the genesis or from the trusted checkpoint.
    fn check_handovers(&mut self) -> Taken<()> {
        self.nothing_failed()?;
        let genesis = self.verifier.genesis;
        let mut rest = self.file.handovers.as_slice();
        if let Some((first, after)) = rest.split_first()
            && first.epoch > 1
        {
            // A point verified before is as good as one that the caller names.
            let kept = self.options.kept.as_ref().and_then(|book| book.get(first.epoch));
            let trusted = self.options.trusted_checkpoint.or(kept.map(|point| point.hash));
            let trusted = trusted.ok_or_else(|| {
                Outcome::failed(format!(
                    "the hand-overs begin with epoch {}: name the checkpoint they start from, or take a file with all",
                    first.epoch
                ))
            })?;
            self.epochs = Epochs::from_checkpoint(genesis, trusted, first)?;
            self.anchored = true;
            rest = after;
        }
        for handover in rest {
            self.epochs.advance(handover)?;
        }
        if let Some(book) = &self.options.kept {
            let checked = book.check(genesis.digest(), self.epochs.checkpoints());
            checked.map_err(|error| Outcome::failed(error.to_string()))?;
        }
        let from = if self.anchored {
            "the trusted checkpoint"
        } else {
            "the genesis"
        };
        let detail = match self.file.handovers.len() {
            0 => "no hand-over: the validators of the genesis".to_owned(),
            count => format!(
                "{count} hand-overs lead from {from} to the validators of epoch {}",
                self.epochs.last()
            ),
        };
        Ok(((), detail))
    }

    fn check_inclusion(&self, block: Option<&CertifiedBlock>) -> Taken<()> {
        let Some(inclusion) = &self.file.inclusion else {
            return Err(Outcome::skipped("the file shows no inclusion"));
        };
        let Some(block) = block else {
            return Err(Outcome::skipped("there is no certified block to look in"));
        };
        if inclusion.height != block.header.number {
            let what = "inclusion height";
            return Err(Outcome::differs(what, block.header.number, inclusion.height));
        }
        let leaf = merkle::leaf(self.receipt.core_hash());
        let tree = merkle::verify_tree(leaf, inclusion.index, inclusion.count, &inclusion.siblings)
            .map_err(|error| Outcome::failed(error.to_string()))?;
        let root = merkle::batch_root(inclusion.height, inclusion.count, tree);
        match block.header.parent_beacon_block_root {
            Some(header) if header == root => {
                let (index, count) = (inclusion.index, inclusion.count);
                Ok(((), format!("receipt {index} of {count} in block {}", inclusion.height)))
            }
            header => Err(Outcome::differs(
                "batch root",
                header.map_or_else(|| "none in the header".into(), |root| root.to_string()),
                root,
            )),
        }
    }

    fn check_registration(&mut self, included: Option<&CertifiedBlock>) -> Taken<CertifiedBlock> {
        let Some(proof) = &self.file.registration else {
            return Err(Outcome::skipped(
                "the file carries no proof of the keyset's registration",
            ));
        };
        let core = self.receipt.core();
        let block = self.certified(&proof.finality)?;
        let state = ProvedState::verify(proof, block.header.state_root)?;
        let record = read_keyset(&state, core.keyset.0)?
            .ok_or_else(|| Outcome::failed(format!("keyset {} is not registered", core.keyset)))?;
        if core.payment.channel.is_some() {
            self.recorded = Some(self.recorded_for_channel(&state, &block, included)?);
        }
        state.all_read()?;
        let keyset = &self.file.keyset;
        if record.node_id != core.node_id.0 {
            return Err(Outcome::differs("node of the keyset", record.node_id, core.node_id));
        }
        if record.receipt_key != keyset.receipt_key {
            let (what, got) = ("registered receipt key", keyset.receipt_key);
            return Err(Outcome::differs(what, record.receipt_key, got));
        }
        if record.settlement_key != keyset.settlement_key {
            let (what, got) = ("registered settlement key", keyset.settlement_key);
            return Err(Outcome::differs(what, record.settlement_key, got));
        }
        // At the time of the block that holds the receipt, or of the proved state if there is none.
        let at = included.unwrap_or(&block).header.timestamp;
        if record.registered_at > at {
            let what = "keyset registered";
            return Err(Outcome::differs(
                what,
                format!("at {at} at the latest"),
                record.registered_at,
            ));
        }
        if let Some(revoked) = record.revoked_at.filter(|revoked| *revoked <= at) {
            let what = "keyset in force";
            return Err(Outcome::differs(
                what,
                format!("at {at}"),
                format!("revoked at {revoked}"),
            ));
        }
        let detail = format!(
            "keyset registered at {} by node {}, proved at block {}",
            record.registered_at, core.node_id, block.header.number
        );
        Ok((block, detail))
    }

    /// What is recorded for the receipt's channel in a state that has its block.
    fn recorded_for_channel(
        &self,
        state: &ProvedState,
        block: &CertifiedBlock,
        included: Option<&CertifiedBlock>,
    ) -> Result<u128, Outcome> {
        let core = self.receipt.core();
        let sums = read_channel_sums(state, core.payment.nonce)?;
        if let Some(included) = included {
            let (at, since) = (block.header.number, included.header.number);
            if at < since {
                let expected = format!("of block {since} or later");
                return Err(Outcome::differs("charges recorded for the channel", expected, at));
            }
            if sums.recorded < core.price.charge.wei() {
                let expected = format!("at least {} wei", core.price.charge.wei());
                return Err(Outcome::differs(
                    "charges recorded for the channel",
                    expected,
                    sums.recorded,
                ));
            }
        }
        Ok(sums.recorded)
    }

    fn check_settlement(&mut self) -> Taken<CertifiedBlock> {
        let Some(proof) = &self.file.payment else {
            let why = "the file carries no proof of settlement: the payment may still be pending";
            return Err(Outcome::skipped(why));
        };
        let payment = &self.receipt.core().payment;
        let block = self.certified(&proof.finality)?;
        let state = ProvedState::verify(proof, block.header.state_root)?;
        if payment.channel.is_some() {
            let detail = self.check_channel(&state, block.header.number)?;
            return Ok((block, detail));
        }
        let method = PaymentMethod::of(payment).ok_or_else(|| Outcome::failed("no such payment"))?;
        let due = payment.due(self.receipt.core().price.charge);
        let settled = payment_settlement(&state, method, payment.payer, payment.nonce)?;
        let spent = read_spent(&state, payment.id().0)?;
        state.all_read()?;
        if !settled.paid(payment.payee, due.wei()) {
            let expected = format!("{due} OPG to {}", payment.payee);
            let got = match settled {
                Settlement::Unused => "not settled".to_owned(),
                Settlement::Cancelled => "cancelled".to_owned(),
                Settlement::Used(hash) => format!("another transfer ({hash})"),
            };
            return Err(Outcome::differs("settlement", expected, got));
        }
        let credited = match spent {
            Spent::Unspent => {
                let (what, expected) = ("ledger entry of the payment", "recorded");
                return Err(Outcome::differs(what, expected, "not recorded"));
            }
            Spent::Pending(_) => "recorded, credit pending",
            Spent::Credited => "credited",
        };
        let detail = format!(
            "{due} OPG settled to the node's deposit address, {credited}, proved at block {}",
            block.header.number
        );
        Ok((block, detail))
    }

    /// A receipt that a channel pays for is settled once as much is claimed and credited as was recorded for the channel with it.
    fn check_channel(&self, state: &ProvedState, height: u64) -> Result<String, Outcome> {
        let core = self.receipt.core();
        let id = core.payment.nonce;
        let standing = read_channel_standing(state, id)?;
        state.all_read()?;
        let recorded = self
            .recorded
            .ok_or_else(|| Outcome::failed("the file does not say what was recorded for the channel"))?;
        if !standing.covers(recorded) {
            let expected = format!("{recorded} wei claimed and credited");
            let got = format!(
                "{} claimed, {} credited",
                standing.channel.total_claimed, standing.sums.credited
            );
            return Err(Outcome::differs("settlement of the channel", expected, got));
        }
        Ok(format!(
            "{} OPG charged to channel {id}, of which the {recorded} wei recorded up to then are claimed and credited, proved at block {height}",
            core.price.charge
        ))
    }

    /// The proof of the answer: about a program that is registered for the model, and about this request and answer.
    fn check_evidence(&mut self, included: Option<&CertifiedBlock>) -> Taken<CertifiedBlock> {
        let core = self.receipt.core();
        let proof = match (core.mode.served, &self.file.proof) {
            (Mode::None, None) => {
                return Err(Outcome::skipped(
                    "mode none: only the node's signature stands behind it",
                ));
            }
            (Mode::None, Some(_)) => return Err(Outcome::failed("mode none, but the file carries a proof")),
            (Mode::Zk, Some(proof)) => proof,
            (Mode::Zk, None) => {
                return Err(Outcome::failed(
                    "the file carries no proof of the answer: fetch the receipt again",
                ));
            }
            (Mode::Tee, None) => return self.check_attestation(included),
            (Mode::Tee, Some(_)) => return Err(Outcome::failed("mode tee, but the file carries a proof")),
            (mode, _) => return Err(Outcome::failed(format!("this version has no verifier for mode {mode}"))),
        };
        self.nothing_failed()?;
        let failed = |error: ArtefactError| Outcome::failed(error.to_string());
        let artefact = ZkArtefact::decode(&proof.artefact.0).map_err(failed)?;
        let deadline = core.evidence.and_then(|evidence| evidence.proof_deadline).unwrap_or(0);
        if let Some(late) = included.map(|block| block.header.timestamp).filter(|at| *at > deadline) {
            return Err(Outcome::differs("deadline of the proof", deadline, late));
        }
        let block = self.certified(&proof.registration.finality)?;
        let state = ProvedState::verify(&proof.registration, block.header.state_root)?;
        let (model, program) = (core.model.served_root, artefact.program());
        let report = read_program(&state, model.0, program)?;
        state.all_read()?;
        if report.is_none() {
            let problem = format!("program {program} is not registered for model {model}");
            return Err(Outcome::failed(problem));
        }
        artefact.verify(core).map_err(failed)?;
        let detail = format!(
            "a proof of {} bytes shows that program {program}, registered for the model, gives this answer to this request",
            artefact.proof_bytes()
        );
        Ok((block, detail))
    }

    /// The evidence of the keyset: registered, in force at the block of the receipt, and good by itself.
    fn check_attestation(&mut self, included: Option<&CertifiedBlock>) -> Taken<CertifiedBlock> {
        let core = self.receipt.core();
        let Some(attestation) = &self.file.attestation else {
            let why = "the file carries no attestation evidence: fetch the receipt again";
            return Err(Outcome::failed(why));
        };
        self.nothing_failed()?;
        let named = core.evidence.unwrap_or_default();
        let id = named.evidence_id.unwrap_or_default();
        let block = self.certified(&attestation.registration.finality)?;
        let state = ProvedState::verify(&attestation.registration, block.header.state_root)?;
        let record =
            evidence::read(&state, id)?.ok_or_else(|| Outcome::failed(format!("evidence {id} is not registered")))?;
        state.all_read()?;
        if record.keyset != core.keyset.0 {
            return Err(Outcome::differs("keyset of the evidence", record.keyset, core.keyset));
        }
        if record.grade != core.mode.grade.code() {
            let (what, got) = ("grade of the evidence", core.mode.grade);
            return Err(Outcome::differs(what, record.grade, got));
        }
        if named.policy_epoch != Some(record.epoch) {
            let got = named.policy_epoch.unwrap_or(0);
            return Err(Outcome::differs("policy epoch of the evidence", record.epoch, got));
        }
        // At the time of the block that holds the receipt, or of the proved state if there is none.
        let at = included.unwrap_or(&block).header.timestamp;
        if !(record.registered_at..=record.expires_at).contains(&at) {
            let expected = format!("{} to {}", record.registered_at, record.expires_at);
            return Err(Outcome::differs("time of the receipt", expected, at));
        }
        // What validators concluded is proven by now. The document itself shows the same to whoever does not take their word.
        let genesis = self.verifier.genesis;
        let payment = deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, core.node_id);
        let binding = Binding {
            keyset: core.keyset.0.0,
            nonce: attestation_nonce(&attestation.nonce_hash.0, &core.node_id.0.0, attestation.epoch),
            chain_id: genesis.chain_id,
            registry: addresses::NODE_REGISTRY.into_array(),
            operator: attestation.operator.into_array(),
            payment: payment.into_array(),
            endpoint: attestation.endpoint.clone(),
            role: attestation.role.clone(),
            config: attestation.config.0,
        };
        let submission = Submission {
            kind: attestation.kind,
            binding: &binding,
            document: &attestation.document.0,
            collateral: &attestation.collateral.0,
        };
        let rules = registration::Rules::new(genesis.development, genesis.development_roots());
        let (claims, grade) = registration::examine(&submission, &rules, record.registered_at)
            .map_err(|reject| Outcome::failed(format!("the attestation document: {reject}")))?;
        if claims.evidence_id.0 != id.0 {
            let got = B256::from(claims.evidence_id.0);
            return Err(Outcome::differs("identity of the document", id, got));
        }
        if grade != core.mode.grade {
            return Err(Outcome::differs("grade of the document", core.mode.grade, grade));
        }
        let detail = format!(
            "{} evidence of grade {grade} binds the keyset, registered at {} under policy {}, in force until {}",
            claims.kind, record.registered_at, record.epoch, record.expires_at
        );
        Ok((block, detail))
    }

    /// Age of the trusted point, if it is too old and that was not accepted.
    fn check_anchor(&self, blocks: &[&CertifiedBlock]) -> Taken<Option<(u64, u64)>> {
        let genesis = self.verifier.genesis;
        let points = self.epochs.checkpoints();
        let mut anchors = Vec::new();
        if let Some(hash) = self.options.trusted_checkpoint {
            let known = blocks
                .iter()
                .find(|block| block.hash == hash || block.digests.contains(&hash))
                .map(|block| Anchor {
                    what: "checkpoint",
                    epoch: block.proposal.epoch,
                    timestamp: block.header.timestamp,
                });
            // The first hand-over may be named by its digest: from it the others follow.
            let point = points.iter().find(|point| point.hash == hash);
            let point = point.or_else(|| points.first().filter(|_| self.anchored));
            let given = known.or_else(|| point.map(|point| anchor_of("checkpoint", point)));
            anchors
                .push(given.ok_or_else(|| Outcome::failed(format!("checkpoint {hash} is none of the file's blocks")))?);
        }
        // Only points on the file's own way count: a newer one that it does not reach says nothing about it.
        if let Some(book) = &self.options.kept {
            let kept = points.iter().filter(|point| book.get(point.epoch) == Some(*point));
            anchors.extend(kept.map(|point| anchor_of("kept checkpoint", point)));
        }
        let oldest_used = blocks.iter().map(|block| block.proposal.epoch).min();
        let Some(now) = self.options.now else {
            return Err(Outcome::skipped("the time is not known, so the age is not checked"));
        };
        let anchor = newest_anchor(genesis.timestamp, &anchors, oldest_used.unwrap_or(u64::MAX));
        if self.anchored && anchor.epoch == 0 {
            return Err(Outcome::failed(
                "the file relies on blocks before the trusted checkpoint",
            ));
        }
        // stake of validators, where they have any: it is what a forged past would cost them
        let parameters = &genesis.parameters;
        let unbonding = parameters
            .staking
            .map_or(parameters.unbonding, |staking| staking.unbonding);
        let (what, limit) = (anchor.what, unbonding);
        let (age, young) = age(&anchor, now, limit);
        if young {
            return Ok((
                None,
                format!("trusted {what} is {age} s old, at most {limit} s are safe"),
            ));
        }
        let detail =
            format!("trusted {what} is {age} s old, more than the unbonding period of {limit} s (weak subjectivity)");
        if self.options.accept_old_anchor {
            return Ok((None, format!("{detail}: accepted as asked")));
        }
        Ok((Some((age, limit)), detail))
    }

    fn report(self, included: Option<&CertifiedBlock>, settled: bool, old: Option<(u64, u64)>) -> Report {
        let core = self.receipt.core();
        let required = requirement(self.options, core, self.verifier.genesis);
        let (served, grade) = (core.mode.served, core.mode.grade);
        let failed = self.steps.first_failure().is_some();
        let met = required.mode == Mode::None || (required.mode == served && grade >= required.grade);
        let verdict = match (failed, included, old) {
            (true, _, _) => Verdict::Invalid,
            (_, None, _) => Verdict::NotFinal,
            (_, _, Some((age, limit))) => Verdict::OldAnchor { age, limit },
            _ if !met => Verdict::RequirementNotMet {
                required,
                served,
                grade,
            },
            _ if served == Mode::None => Verdict::Unproven,
            _ => Verdict::Verified { mode: served, grade },
        };
        let state = match (failed, included, settled) {
            (true, ..) => None,
            (_, Some(_), true) => Some(State::Settled),
            (_, Some(_), false) => Some(State::Final),
            (_, None, _) if served == Mode::None => Some(State::Checked),
            _ => Some(State::Executed),
        };
        Report {
            receipt_id: Some(core.receipt_id),
            mode: Some(served),
            grade: Some(grade),
            state,
            height: included.map(|block| block.header.number),
            checkpoints: if failed {
                Vec::new()
            } else {
                self.epochs.checkpoints().to_vec()
            },
            steps: self.steps.0,
            verdict,
        }
    }
}

fn anchor_of(what: &'static str, point: &Checkpoint) -> Anchor {
    Anchor {
        what,
        epoch: point.epoch,
        timestamp: point.timestamp,
    }
}

/// What must have been served (D9).
fn requirement(options: &Options, core: &Core, genesis: &GenesisFile) -> Requirement {
    let default = match genesis.development {
        true => Grade::Simulated,
        false => Grade::Hardware,
    };
    let (mode, grade) = options.require.unwrap_or((core.mode.asked, None));
    match mode {
        Mode::None => Requirement {
            mode,
            grade: Grade::None,
        },
        _ => Requirement {
            mode,
            grade: grade.unwrap_or(default),
        },
    }
}

fn invalid(steps: Steps) -> Report {
    Report {
        receipt_id: None,
        mode: None,
        grade: None,
        state: None,
        height: None,
        checkpoints: Vec::new(),
        steps: steps.0,
        verdict: Verdict::Invalid,
    }
}
