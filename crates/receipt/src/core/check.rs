//! What a core says about itself, and about the quote that it names.

use super::{Core, Evidence, FinishReason, MAX_LEAVES, MAX_MODEL_NAME, MAX_PROOF_SECONDS, StreamRecord};
use crate::{commit, error::ReceiptError, quote::SignedQuote};
use opg_primitives::{
    mode::{Grade, Mode},
    money::charge,
};

impl Core {
    /// Checks what the core says about itself, without any state: identifier, receipt chain, text, times, mode,
    /// stream and the arithmetic of the charge. Full nodes and light clients both call this one function.
    ///
    /// # Errors
    /// [`ReceiptError`] naming the first field that contradicts another.
    pub fn check_consistency(&self) -> Result<(), ReceiptError> {
        check_name(&self.model.asked)?;
        check_status(self.response.status)?;
        check_leaves(self.response.leaves)?;
        let id = commit::receipt_id(self.chain_id, &self.node_id, &self.quote.nonce);
        if id != self.receipt_id {
            return Err(ReceiptError::value("receipt_id", id, self.receipt_id));
        }
        if (self.seq == 0) != self.prev.is_zero() {
            return Err(ReceiptError::value("prev", "zero exactly for seq 0", self.prev));
        }
        let times = &self.times;
        if times.received > times.first_output || times.first_output > times.done {
            return Err(ReceiptError::value(
                "times",
                "received <= first output <= done",
                format!("{times:?}"),
            ));
        }
        if !self.stream.streamed && self.stream != StreamRecord::NOT_STREAMED {
            return Err(ReceiptError::value(
                "stream",
                "no chunks for an answer in one body",
                self.stream.chunks,
            ));
        }
        if let Some(channel) = &self.payment.channel {
            if channel.withdraw_delay >= 1 << 40 {
                let field = "payment.channel.withdraw_delay";
                return Err(ReceiptError::value(field, "below 2^40", channel.withdraw_delay));
            }
            if channel.ceiling < self.payment.amount {
                let expected = format!("at least the amount {}", self.payment.amount.wei());
                let field = "payment.channel.ceiling";
                return Err(ReceiptError::value(field, expected, channel.ceiling.wei()));
            }
        } else if self.payment.valid_after >= self.payment.valid_before {
            return Err(ReceiptError::value(
                "payment.valid_before",
                format!("more than valid_after {}", self.payment.valid_after),
                self.payment.valid_before,
            ));
        }
        self.check_mode()?;
        if let Some(upstream) = &self.upstream {
            upstream.check(self)?;
        }
        self.check_charge()
    }

    /// Checks the core against the quote that it names.
    ///
    /// # Errors
    /// [`ReceiptError::Value`] naming the first field of the core that differs from the quote.
    pub fn check_quote(&self, quote: &SignedQuote) -> Result<(), ReceiptError> {
        fn same<T: PartialEq + std::fmt::Debug>(field: &'static str, quoted: &T, got: &T) -> Result<(), ReceiptError> {
            if quoted == got {
                return Ok(());
            }
            Err(ReceiptError::value(
                field,
                format!("{quoted:?} as quoted"),
                format!("{got:?}"),
            ))
        }
        let q = quote.quote();
        same("quote.digest", &quote.digest(), &self.quote.digest)?;
        same("quote.nonce", &q.nonce, &self.quote.nonce)?;
        same("chain_id", &q.chain_id, &self.chain_id)?;
        same("node_id", &q.node_id, &self.node_id)?;
        same("keyset", &q.keyset, &self.keyset)?;
        same("receipt_id", &q.receipt_id, &self.receipt_id)?;
        same("model.asked_root", &q.model_root, &self.model.asked_root)?;
        same("price.ask", &q.ask, &self.price.ask)?;
        same("price.royalty_bps", &q.royalty_bps, &self.price.royalty_bps)?;
        same("price.asset", &q.asset, &self.price.asset)?;
        same("payment.payee", &q.payee, &self.payment.payee)?;
        // What is signed for is what was quoted. Under `exact`, the difference to the charge is credited back.
        same("payment.amount", &q.max_amount, &self.payment.amount)?;
        same("mode.asked", &q.mode_asked, &self.mode.asked)?;
        same("mode.min_grade", &q.min_grade, &self.mode.min_grade)
    }

    fn check_mode(&self) -> Result<(), ReceiptError> {
        let mode = &self.mode;
        if (mode.asked == Mode::None) && mode.min_grade != Grade::None {
            return Err(ReceiptError::value(
                "mode.min_grade",
                "none for mode none",
                mode.min_grade,
            ));
        }
        if (mode.served == Mode::None) != (mode.grade == Grade::None) {
            let expected = "none exactly for mode none";
            return Err(ReceiptError::value("mode.grade", expected, mode.grade));
        }
        if (mode.served == Mode::None) != self.evidence.is_none() {
            let got = if self.evidence.is_some() { "present" } else { "absent" };
            return Err(ReceiptError::value("evidence", "absent exactly for mode none", got));
        }
        match (&self.evidence, mode.served) {
            (Some(evidence), Mode::Zk) => self.check_proof_after(evidence),
            (Some(evidence), Mode::Tee) => Self::check_attested(evidence),
            _ => Ok(()),
        }
    }

    /// Registered evidence of the keyset.
    fn check_attested(evidence: &Evidence) -> Result<(), ReceiptError> {
        if evidence.evidence_id.is_none() || evidence.policy_epoch.is_none() {
            let expected = "evidence id and policy epoch for mode tee";
            return Err(ReceiptError::value("evidence", expected, "one of them is absent"));
        }
        Ok(())
    }

    /// A proof after the answer: what it must prove and by when, nothing about attestation.
    fn check_proof_after(&self, evidence: &Evidence) -> Result<(), ReceiptError> {
        if evidence.statement_hash.is_none() {
            return Err(ReceiptError::value(
                "evidence.statement_hash",
                "present for mode zk",
                "absent",
            ));
        }
        if evidence.evidence_id.is_some() || evidence.policy_epoch.is_some() {
            let expected = "no evidence id and no policy epoch for mode zk";
            return Err(ReceiptError::value("evidence", expected, "one of them"));
        }
        let done = self.times.done / 1_000;
        let latest = done.saturating_add(MAX_PROOF_SECONDS);
        match evidence.proof_deadline {
            Some(deadline) if (done..=latest).contains(&deadline) => Ok(()),
            got => Err(ReceiptError::value(
                "evidence.proof_deadline",
                format!("{done} to {latest} for mode zk"),
                got.map_or_else(|| "absent".to_owned(), |at| at.to_string()),
            )),
        }
    }

    /// `charge = min(price of the usage, signed amount)`, less only after an error or a cancellation, and nothing if
    /// less verification was served than asked for.
    fn check_charge(&self) -> Result<(), ReceiptError> {
        let price = &self.price;
        if !self.mode.is_satisfied() && !price.charge.is_zero() {
            let expected = "0, as less verification was served than asked for";
            return Err(ReceiptError::value("price.charge", expected, price.charge.wei()));
        }
        let full = charge(&price.ask, self.billed_usage(), price.royalty_bps)?.min(self.payment.amount);
        let may_be_less =
            !self.mode.is_satisfied() || matches!(self.response.finish, FinishReason::Error | FinishReason::Cancelled);
        if price.charge == full || (may_be_less && price.charge < full) {
            return Ok(());
        }
        Err(ReceiptError::value("price.charge", full.wei(), price.charge.wei()))
    }
}

/// Names are printed on terminals: control characters could rewrite what stands beside them.
pub(super) fn check_name(name: &str) -> Result<(), ReceiptError> {
    if name.len() <= MAX_MODEL_NAME && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let expected = format!("at most {MAX_MODEL_NAME} bytes without control characters");
    Err(ReceiptError::value(
        "model.asked",
        expected,
        name.escape_debug().take(60).collect::<String>(),
    ))
}

pub(super) fn check_status(status: u16) -> Result<(), ReceiptError> {
    if (100..=599).contains(&status) {
        return Ok(());
    }
    Err(ReceiptError::value("response.status", "100 to 599", status))
}

pub(super) fn check_leaves(leaves: u32) -> Result<(), ReceiptError> {
    if leaves <= MAX_LEAVES {
        return Ok(());
    }
    Err(ReceiptError::value(
        "response.leaves",
        format!("at most {MAX_LEAVES}"),
        leaves,
    ))
}
