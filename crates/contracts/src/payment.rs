//! Methods of payment that the ledger knows (ledger.md §7), and where the state says what became of a payment.

use crate::{
    addresses, slots,
    state::{Settlement, StateReader, settlement},
    x402,
};
use alloy_primitives::{Address, B256, U256};
use opg_primitives::ids::{self, PaymentId};
use opg_receipt::{PaymentMethod as Signed, PaymentRecord, PaymentScheme};

/// How a payment that a receipt names is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PaymentMethod {
    /// An ERC-3009 authorization, settled by OPG.
    Erc3009,
    /// A Permit2 transfer of the signed amount, settled by `ExactPermit2Proxy`.
    ExactPermit2,
    /// A Permit2 transfer of at most the signed amount, settled by `UptoPermit2Proxy`. Its amount is the charge.
    UptoPermit2,
}

impl PaymentMethod {
    /// Every method, by rising code.
    pub const ALL: [Self; 3] = [Self::Erc3009, Self::ExactPermit2, Self::UptoPermit2];

    /// That of a receipt's payment; `None` if a channel pays.
    #[must_use]
    pub const fn of(payment: &PaymentRecord) -> Option<Self> {
        match (payment.method, payment.scheme) {
            (Signed::Eip3009, _) => Some(Self::Erc3009),
            (Signed::Permit2, PaymentScheme::Upto) => Some(Self::UptoPermit2),
            (Signed::Permit2, _) => Some(Self::ExactPermit2),
            (Signed::Voucher, _) => None,
        }
    }

    /// The code in the ledger's calldata.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Erc3009 => 0,
            Self::ExactPermit2 => 1,
            Self::UptoPermit2 => 2,
        }
    }

    /// The method of a code; `None` for one that the ledger refuses.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Erc3009),
            1 => Some(Self::ExactPermit2),
            2 => Some(Self::UptoPermit2),
            _ => None,
        }
    }

    /// Id of the payment of `payer` with `nonce` (of Permit2: the number, big-endian). Both Permit2 methods give the same,
    /// because Permit2 takes a nonce once.
    #[must_use]
    pub fn payment_id(self, payer: Address, nonce: B256) -> PaymentId {
        match self {
            Self::Erc3009 => ids::payment_id(payer, nonce),
            Self::ExactPermit2 | Self::UptoPermit2 => ids::permit2_payment_id(payer, nonce),
        }
    }

    /// Contract and slot that hold [`crate::state::settlement_hash`] of recipient and value once the payment is made (D2).
    #[must_use]
    pub fn settlement_slot(self, payer: Address, nonce: B256) -> (Address, U256) {
        let by_permit2 = || x402::settlement_slot(addresses::OPG, payer, nonce.into());
        match self {
            Self::Erc3009 => (addresses::OPG, slots::opg_settlement(payer, nonce)),
            Self::ExactPermit2 => (addresses::EXACT_PERMIT2_PROXY, by_permit2()),
            Self::UptoPermit2 => (addresses::UPTO_PERMIT2_PROXY, by_permit2()),
        }
    }
}

/// State of a payment in OPG by `method`. For the Permit2 methods, [`Settlement::Cancelled`] is a nonce that is used and has not
/// paid OPG by this method: it was invalidated, or spent in another way.
///
/// It reads the slot of [`PaymentMethod::settlement_slot`] and, only if that is zero and the method is one of Permit2, the word of
/// [`x402::permit2_nonces_slot`].
///
/// # Errors
/// Those of the reader.
pub fn payment_settlement<R: StateReader>(
    state: &R,
    method: PaymentMethod,
    payer: Address,
    nonce: B256,
) -> Result<Settlement, R::Error> {
    if method == PaymentMethod::Erc3009 {
        return settlement(state, payer, nonce);
    }
    let (contract, slot) = method.settlement_slot(payer, nonce);
    let paid = state.storage(contract, slot)?;
    if !paid.is_zero() {
        return Ok(Settlement::Used(paid.into()));
    }
    let number = U256::from_be_bytes(nonce.0);
    let word = state.storage(addresses::PERMIT2, x402::permit2_nonces_slot(payer, number >> 8))?;
    // The bit of the number's lowest byte.
    Ok(if word.bit(usize::from(nonce.0[31])) {
        Settlement::Cancelled
    } else {
        Settlement::Unused
    })
}
