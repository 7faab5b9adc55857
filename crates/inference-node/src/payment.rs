//! What pays for a call: an authorization or permit in the reservations, or a channel. One place knows the difference.

use crate::config::to_amount;
use alloy_primitives::{Address, B256, U256};
use opg_payments::{
    channels::{ChannelError, Channels, Charged, Ticket},
    journal::{Commit, Journal},
    permit2::{Permit, Witness},
    reserve::{Key, Record, Reservations, TransitionError},
    x402::{BatchPayload, ChargeExtra},
};
use opg_primitives::{
    ids::{self, PaymentId, ReceiptId},
    money::Amount,
};
use opg_receipt::{ChannelRecord, PaymentMethod, PaymentRecord, PaymentScheme, SignedReceipt};
use redb::WriteTransaction;

/// A payment that is reserved for one call. The call must end with a receipt or be given up.
#[derive(Debug)]
pub(crate) enum Funding {
    /// An authorization or permit of its own.
    Single {
        /// The reservation.
        record: Record,
        /// The reservation on its way to the disk.
        commit: Commit,
        /// Settlement before work.
        tx: Option<B256>,
    },
    /// Out of a channel.
    Channel {
        /// The running call.
        ticket: Ticket,
        /// As the receipt names it.
        payment: PaymentRecord,
        /// What the header of a stream says, which leaves before the cost is known.
        streaming: Option<ChargeExtra>,
        /// A deposit that came with the call.
        deposit: Option<(B256, Amount)>,
    },
}

impl Funding {
    /// The payment as the receipt names it. `None` if the amount does not fit, which no reservation has.
    pub(crate) fn payment(&self) -> Option<PaymentRecord> {
        match self {
            Self::Single { record, .. } => payment_record(record),
            Self::Channel { payment, .. } => Some(payment.clone()),
        }
    }

    /// Who pays.
    pub(crate) const fn payer(&self) -> Address {
        match self {
            Self::Single { record, .. } => record.authorization.from,
            Self::Channel { payment, .. } => payment.payer,
        }
    }

    /// Unix seconds at which the work must have ended for the payment still to be settled.
    pub(crate) fn deadline(&self) -> u64 {
        match self {
            Self::Single { record, tx: None, .. } => record.authorization.valid_before,
            // Money that is settled or held in escrow has no deadline.
            Self::Single { .. } | Self::Channel { .. } => u64::MAX,
        }
    }

    /// Waits until the reservation is on disk, so that a crash cannot give an answer away twice.
    pub(crate) async fn reserved(&self) -> Result<(), opg_payments::journal::JournalError> {
        match self {
            Self::Single { commit, .. } => commit.clone().durable().await,
            // A call that ran when the process died was charged nothing, and its voucher pays for one call only.
            Self::Channel { .. } => Ok(()),
        }
    }
}

/// A receipt's payment, by the books that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PaidBy {
    /// By the reservation with this key.
    Single(Key),
    /// By the channel with this id.
    Channel(B256),
}

impl PaidBy {
    /// That of a receipt.
    pub(crate) fn of(receipt: &SignedReceipt) -> Self {
        let payment = &receipt.core().payment;
        match payment.method {
            PaymentMethod::Voucher => Self::Channel(payment.nonce),
            PaymentMethod::Permit2 => Self::Single(Key::permit2(payment.payer, U256::from_be_bytes(payment.nonce.0))),
            PaymentMethod::Eip3009 => Self::Single(Key {
                payer: payment.payer,
                nonce: payment.nonce,
            }),
        }
    }

    /// The reservation's key.
    pub(crate) const fn single(self) -> Option<Key> {
        match self {
            Self::Single(key) => Some(key),
            Self::Channel(_) => None,
        }
    }
}

/// Id under which the ledger knows a reserved payment.
pub(crate) fn payment_id(record: &Record) -> PaymentId {
    match &record.permit {
        Some(permit) => ids::permit2_payment_id(permit.from, B256::from(permit.nonce)),
        None => ids::payment_id(record.authorization.from, record.authorization.nonce),
    }
}

/// What a reservation says about the payment, as the receipt names it.
fn payment_record(record: &Record) -> Option<PaymentRecord> {
    let authorization = &record.authorization;
    let signature = record.signature.clone();
    let Some(permit) = &record.permit else {
        return Some(PaymentRecord {
            scheme: PaymentScheme::Exact,
            method: PaymentMethod::Eip3009,
            payer: authorization.from,
            payee: authorization.to,
            amount: to_amount(authorization.value)?,
            valid_after: authorization.valid_after,
            valid_before: authorization.valid_before,
            nonce: authorization.nonce,
            signature,
            channel: None,
            facilitator: None,
        });
    };
    let Permit {
        from,
        amount,
        nonce,
        deadline,
        witness,
        ..
    } = *permit;
    let (scheme, payee, valid_after, facilitator) = match witness {
        Witness::Exact { to, valid_after } => (PaymentScheme::Exact, to, valid_after, None),
        Witness::Upto {
            to,
            facilitator,
            valid_after,
        } => (PaymentScheme::Upto, to, valid_after, Some(facilitator)),
        Witness::Deposit { .. } => return None,
    };
    Some(PaymentRecord {
        scheme,
        method: PaymentMethod::Permit2,
        payer: from,
        payee,
        amount: to_amount(amount)?,
        valid_after,
        valid_before: deadline,
        nonce: B256::from(nonce),
        signature,
        channel: None,
        facilitator,
    })
}

/// What a channel's payment says, as the receipt names it; the call costs at most `bound`.
pub(crate) fn channel_record(payload: &BatchPayload, bound: Amount) -> PaymentRecord {
    let (config, voucher) = (&payload.config, &payload.voucher);
    PaymentRecord {
        scheme: PaymentScheme::BatchSettlement,
        method: PaymentMethod::Voucher,
        payer: config.payer,
        payee: config.receiver,
        amount: bound,
        valid_after: 0,
        valid_before: 0,
        nonce: voucher.voucher.channel_id,
        signature: voucher.signature.clone(),
        channel: Some(ChannelRecord {
            payer_authorizer: config.payer_authorizer,
            receiver_authorizer: config.receiver_authorizer,
            withdraw_delay: config.withdraw_delay,
            salt: config.salt,
            ceiling: voucher.voucher.max_claimable,
        }),
        facilitator: None,
    }
}

/// Why the end of a call could not be booked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BookError {
    #[error(transparent)]
    Reservation(#[from] TransitionError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Where the end of calls is booked.
pub(crate) struct Books<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) reservations: &'a Reservations,
    pub(crate) channels: &'a Channels,
}

impl Books<'_> {
    /// Ends a call: served for `charge`, or failed. `extra` (the receipt) is written in the same transaction.
    pub(crate) fn end(
        &self,
        funding: &Funding,
        charge: Option<Amount>,
        receipt: ReceiptId,
        now: u64,
        extra: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<(Commit, Option<ChargeExtra>), BookError> {
        Ok(match (funding, charge) {
            (Funding::Single { record, .. }, Some(charge)) => {
                (self.reservations.serve(record.key(), charge, extra)?, None)
            }
            (Funding::Single { record, .. }, None) => (self.reservations.fail(record.key(), extra)?, None),
            (Funding::Channel { ticket, .. }, Some(charge)) => {
                let Charged { extra, commit, .. } = self.channels.commit(*ticket, charge, receipt.0, now, extra)?;
                (commit, Some(extra))
            }
            // Nothing is charged and the identifier stays free, so that the call may be repeated.
            (Funding::Channel { ticket, .. }, None) => {
                self.channels.fail(*ticket)?;
                (self.journal.write(extra), None)
            }
        })
    }
}
