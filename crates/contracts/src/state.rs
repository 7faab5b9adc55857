//! Typed readers of the contracts' storage.
//!
//! A validator checks receipts against a parent state, a light client against Merkle proofs: both have raw slots, not an
//! EVM. Each reader names the contract's storage fields it decodes; `opg-genesis` tests every one against the view
//! function of the real contract.

use crate::{addresses, slots};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolValue;
use opg_primitives::money::{Amount, Price};

/// Read access to one state.
pub trait StateReader {
    /// Why a slot could not be read (missing state, I/O, an absent proof).
    type Error;

    /// The value of a storage slot; zero if the account or the slot does not exist.
    ///
    /// # Errors
    /// Whatever keeps the implementation from answering; never for an unused slot.
    fn storage(&self, address: Address, slot: U256) -> Result<U256, Self::Error>;
}

/// Read access to code at one block, for what is kept in contracts instead of slots.
pub trait CodeReader: StateReader {
    /// The code of an account; empty if there is none.
    ///
    /// # Errors
    /// Whatever keeps the implementation from answering.
    fn code(&self, address: Address) -> Result<Bytes, Self::Error>;
}

impl<R: StateReader + ?Sized> StateReader for &R {
    type Error = R::Error;

    fn storage(&self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        (**self).storage(address, slot)
    }
}

/// A registered keyset (`NodeRegistry.keysets`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysetRecord {
    /// The node it belongs to.
    pub node_id: B256,
    /// Ed25519 key that signs quotes and receipts.
    pub receipt_key: B256,
    /// Account that relays settlements.
    pub settlement_key: Address,
    /// Block timestamp of registration, seconds.
    pub registered_at: u64,
    /// Block timestamp of revocation; `None` while active.
    pub revoked_at: Option<u64>,
}

/// A registered node (`NodeRegistry.nodes`), without its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRecord {
    /// Owner of the node and payee of its share.
    pub operator: Address,
    /// Block timestamp of registration, seconds.
    pub registered_at: u64,
    /// Block timestamp of deactivation; `None` while active.
    pub inactive_at: Option<u64>,
    /// OPG held as bond.
    pub bond: Amount,
}

/// A model's terms (`ModelRegistry.models`), without name and URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelTerms {
    /// Payee of the royalty.
    pub creator: Address,
    /// Royalty in basis points.
    pub royalty_bps: u16,
    /// Royalty before the last change.
    pub previous_royalty_bps: u16,
    /// Block timestamp of the last change, seconds; registration counts as one.
    pub changed_at: u64,
    /// Whether it is proved to be a provider's model.
    pub closed: bool,
    /// Reference price, in wei and wei per million units.
    pub price: Price,
}

impl ModelTerms {
    /// Whether a receipt may carry this royalty in a block with timestamp `now`: the current one, or the one before it
    /// for `notice` seconds after a change, so that a change cannot void work that is under way.
    #[must_use]
    pub fn accepts_royalty(&self, royalty_bps: u16, now: u64, notice: u64) -> bool {
        royalty_bps == self.royalty_bps
            || (royalty_bps == self.previous_royalty_bps && now < self.changed_at.saturating_add(notice))
    }
}

/// State of an ERC-3009 authorization or a Permit2 payment (D2), see [`crate::payment_settlement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Neither used nor cancelled.
    Unused,
    /// Cancelled by its signer, or a Permit2 nonce that is used otherwise; it can never be used.
    Cancelled,
    /// Used; the hash of recipient and value, see [`settlement_hash`].
    Used(B256),
}

impl Settlement {
    /// Whether the authorization has paid exactly `value` to `to`.
    #[must_use]
    pub fn paid(&self, to: Address, value: u128) -> bool {
        *self == Self::Used(settlement_hash(to, value))
    }
}

/// What `OPG` stores for a used authorization: `keccak256(abi.encode(to, value))`.
#[must_use]
pub fn settlement_hash(to: Address, value: u128) -> B256 {
    keccak256((to, U256::from(value)).abi_encode())
}

/// What `OPG` stores for a cancelled authorization: `keccak256("opg/authorization-cancelled/v1")`.
#[must_use]
pub fn cancelled_hash() -> B256 {
    keccak256(opg_primitives::domain::Tag::AuthorizationCancelled.as_str())
}

/// State of a payment in the ledger (`ReceiptLedger.spent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// No receipt has been recorded for this payment.
    Unspent,
    /// A receipt is recorded; it is credited once the payment settles.
    Pending(B256),
    /// A receipt is recorded and credited.
    Credited,
}

/// Reads a keyset; `None` if it is not registered.
///
/// # Errors
/// Those of the reader.
pub fn read_keyset<R: StateReader>(state: &R, digest: B256) -> Result<Option<KeysetRecord>, R::Error> {
    let base = slots::keyset_base(digest);
    let word = |offset: u64| state.storage(addresses::NODE_REGISTRY, base.wrapping_add(U256::from(offset)));
    let packed = word(2)?;
    let registered_at = field(packed, 160, 40);
    if registered_at == 0 {
        return Ok(None);
    }
    Ok(Some(KeysetRecord {
        node_id: word(0)?.into(),
        receipt_key: word(1)?.into(),
        settlement_key: address(packed),
        registered_at,
        revoked_at: some(field(packed, 200, 40)),
    }))
}

/// Reads a node; `None` if it is not registered.
///
/// # Errors
/// Those of the reader.
pub fn read_node<R: StateReader>(state: &R, node_id: B256) -> Result<Option<NodeRecord>, R::Error> {
    let base = slots::node_base(node_id);
    let packed = state.storage(addresses::NODE_REGISTRY, base)?;
    let registered_at = field(packed, 160, 40);
    if registered_at == 0 {
        return Ok(None);
    }
    let bond = state.storage(addresses::NODE_REGISTRY, base.wrapping_add(U256::ONE))?;
    Ok(Some(NodeRecord {
        operator: address(packed),
        registered_at,
        inactive_at: some(field(packed, 200, 40)),
        bond: Amount(low(bond)),
    }))
}

/// Reads a node's ask for a model; all zero if it has none.
///
/// # Errors
/// Those of the reader.
pub fn read_ask<R: StateReader>(state: &R, node_id: B256, model_root: B256) -> Result<Price, R::Error> {
    read_price(state, addresses::NODE_REGISTRY, slots::ask_base(node_id, model_root))
}

/// Reads a model's terms; `None` if the root is not registered.
///
/// # Errors
/// Those of the reader.
pub fn read_model_terms<R: StateReader>(state: &R, model_root: B256) -> Result<Option<ModelTerms>, R::Error> {
    let base = slots::model_base(model_root);
    let packed = state.storage(addresses::MODEL_REGISTRY, base)?;
    let creator = address(packed);
    if creator.is_zero() {
        return Ok(None);
    }
    Ok(Some(ModelTerms {
        creator,
        // Sixteen bits each, by the mask in `field`.
        royalty_bps: field(packed, 160, 16) as u16,
        previous_royalty_bps: field(packed, 176, 16) as u16,
        changed_at: field(packed, 192, 40),
        closed: field(packed, 232, 8) != 0,
        price: read_price(state, addresses::MODEL_REGISTRY, base.wrapping_add(U256::ONE))?,
    }))
}

/// Reads the block of the commitment by which a model was registered, 0 for those of the genesis; `None` if it is not.
///
/// # Errors
/// Those of the reader.
pub fn read_model_committed<R: StateReader>(state: &R, model_root: B256) -> Result<Option<u64>, R::Error> {
    let base = slots::model_base(model_root);
    if address(state.storage(addresses::MODEL_REGISTRY, base)?).is_zero() {
        return Ok(None);
    }
    let packed = state.storage(addresses::MODEL_REGISTRY, base.wrapping_add(U256::from(3)))?;
    Ok(Some(field(packed, 40, 64)))
}

/// Reads the hash of the registration report of a model's program; `None` if it is not registered.
///
/// # Errors
/// Those of the reader.
pub fn read_program<R: StateReader>(state: &R, model_root: B256, program: B256) -> Result<Option<B256>, R::Error> {
    let report = state.storage(addresses::MODEL_REGISTRY, slots::model_program(model_root, program))?;
    Ok((!report.is_zero()).then(|| report.into()))
}

/// Reads what the ledger knows about a payment.
///
/// # Errors
/// Those of the reader.
pub fn read_spent<R: StateReader>(state: &R, payment_id: B256) -> Result<Spent, R::Error> {
    let value = state.storage(addresses::RECEIPT_LEDGER, slots::spent(payment_id))?;
    Ok(match value {
        U256::ZERO => Spent::Unspent,
        U256::ONE => Spent::Credited,
        pending => Spent::Pending(pending.into()),
    })
}

/// Whether a receipt has been recorded for a payment, credited or pending.
///
/// # Errors
/// Those of the reader.
pub fn is_spent<R: StateReader>(state: &R, payment_id: B256) -> Result<bool, R::Error> {
    Ok(read_spent(state, payment_id)? != Spent::Unspent)
}

/// Whether a keyset's sequence number is recorded.
///
/// # Errors
/// Those of the reader.
pub fn seq_used<R: StateReader>(state: &R, keyset: B256, seq: u64) -> Result<bool, R::Error> {
    let word = state.storage(addresses::RECEIPT_LEDGER, slots::seq_word(keyset, seq / 256))?;
    Ok(word.bit((seq % 256) as usize))
}

/// The batch root recorded for a height; `None` for an empty batch.
///
/// # Errors
/// Those of the reader.
pub fn batch_root<R: StateReader>(state: &R, height: u64) -> Result<Option<B256>, R::Error> {
    let root = state.storage(addresses::RECEIPT_LEDGER, slots::batch_root(height))?;
    Ok((!root.is_zero()).then(|| root.into()))
}

/// Whether the ledger accepts system transactions of this account: one of the current epoch's set ([`crate::staking`]).
///
/// # Errors
/// Those of the reader.
pub fn is_system<R: StateReader>(state: &R, account: Address) -> Result<bool, R::Error> {
    crate::staking::is_system(state, account)
}

/// State of an authorization (D2).
///
/// # Errors
/// Those of the reader.
pub fn settlement<R: StateReader>(state: &R, payer: Address, nonce: B256) -> Result<Settlement, R::Error> {
    let value = state.storage(addresses::OPG, slots::opg_settlement(payer, nonce))?;
    let value = B256::from(value);
    Ok(if value.is_zero() {
        Settlement::Unused
    } else if value == cancelled_hash() {
        Settlement::Cancelled
    } else {
        Settlement::Used(value)
    })
}

/// Wrapped OPG of an account. The supply is 10^27, so a balance always fits an [`Amount`].
///
/// # Errors
/// Those of the reader.
pub fn opg_balance<R: StateReader>(state: &R, account: Address) -> Result<Amount, R::Error> {
    Ok(Amount(low(state.storage(addresses::OPG, slots::opg_balance(account))?)))
}

/// OPG that the vault has attributed to a node (`FeeVault.balanceOf`).
///
/// # Errors
/// Those of the reader.
pub fn vault_balance<R: StateReader>(state: &R, node_id: B256) -> Result<Amount, R::Error> {
    Ok(Amount(low(
        state.storage(addresses::FEE_VAULT, slots::vault_balance(node_id))?
    )))
}

/// Credits of a node's receipts that have not been paid out (`FeeVault.outstanding`).
///
/// # Errors
/// Those of the reader.
pub fn vault_outstanding<R: StateReader>(state: &R, node_id: B256) -> Result<Amount, R::Error> {
    Ok(Amount(low(
        state.storage(addresses::FEE_VAULT, slots::vault_outstanding(node_id))?
    )))
}

/// Wei in which `FeeVault` counts fees (`FEE_UNIT`).
pub const FEE_UNIT: u128 = 1_000_000_000;

/// Gross fees that a node's receipts were credited with on the UTC day of `timestamp` and the one before, wei (`FeeVault.recentFees`): no
/// less than those of the last 24 hours.
///
/// # Errors
/// Those of the reader.
pub fn vault_recent_fees<R: StateReader>(state: &R, node_id: B256, timestamp: u64) -> Result<u128, R::Error> {
    let word = state.storage(addresses::FEE_VAULT, slots::vault_outstanding(node_id))?;
    // the contract's `uint16` of the day
    let day = (timestamp / 86_400) & 0xffff;
    let (today, yesterday, counted) = (field(word, 128, 56), field(word, 184, 56), field(word, 240, 16));
    let units = if counted == day {
        u128::from(today) + u128::from(yesterday)
    } else if counted + 1 == day {
        u128::from(today)
    } else {
        0
    };
    Ok(units * FEE_UNIT)
}

fn read_price<R: StateReader>(state: &R, contract: Address, base: U256) -> Result<Price, R::Error> {
    let first = state.storage(contract, base)?;
    let second = state.storage(contract, base.wrapping_add(U256::ONE))?;
    Ok(Price {
        per_call: Amount(low(first)),
        per_mtok_in: Amount(low(first >> 128)),
        per_mtok_out: Amount(low(second)),
    })
}

/// `width` bits (at most 64) of a packed word, from bit `shift`.
pub(crate) fn field(word: U256, shift: usize, width: u32) -> u64 {
    let [lowest, ..] = (word >> shift).into_limbs();
    lowest & (u64::MAX >> (64 - width))
}

/// The lower half of a word.
fn low(word: U256) -> u128 {
    let [a, b, ..] = word.into_limbs();
    u128::from(a) | (u128::from(b) << 64)
}

/// The address in the low 160 bits of a word.
fn address(word: U256) -> Address {
    Address::from_word(word.into())
}

pub(crate) fn some(time: u64) -> Option<u64> {
    (time != 0).then_some(time)
}
