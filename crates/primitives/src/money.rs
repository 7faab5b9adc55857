//! Money: amounts in OPG wei, prices, charges and their split (ledger.md §6).

use alloy_primitives::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;

/// One OPG in wei.
pub const WEI_PER_OPG: u128 = 1_000_000_000_000_000_000;

/// Highest royalty that a registry accepts, in basis points (D6).
pub const MAX_ROYALTY_BPS: u16 = 3_000;

const DECIMALS: usize = 18;
const BPS: u64 = 10_000;

/// Why a sum of money could not be computed or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// The result is below zero or above 2^128 − 1 wei.
    #[error("amount out of range in {operation}")]
    Range {
        /// What was computed.
        operation: &'static str,
    },
    /// Not a decimal number of OPG with at most 18 decimals.
    #[error("expected an amount of OPG such as 1.5, got {got:?}")]
    NotOpg {
        /// The text, cut to a bounded length.
        got: String,
    },
    /// Not a decimal number of wei.
    #[error("expected an amount of wei in decimal digits, got {got:?}")]
    NotWei {
        /// The text, cut to a bounded length.
        got: String,
    },
    /// A royalty above the maximum.
    #[error("royalty of {got} basis points, at most {limit} are allowed")]
    Royalty {
        /// Highest accepted royalty.
        limit: u16,
        /// Royalty found.
        got: u16,
    },
}

/// An amount of OPG in wei. JSON: a string of decimal digits. `Display`: OPG, such as `1.5`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amount(pub u128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount.
    pub const MAX: Self = Self(u128::MAX);

    /// Wei.
    #[must_use]
    pub const fn wei(self) -> u128 {
        self.0
    }

    /// Whether it is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Sum, or `None` above the maximum.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Difference, or `None` below zero.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Product, or `None` above the maximum.
    #[must_use]
    pub fn checked_mul(self, factor: u128) -> Option<Self> {
        self.0.checked_mul(factor).map(Self)
    }

    /// Difference, zero where it would be negative.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Sum, the maximum where it would be larger.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Sum of many amounts.
    ///
    /// # Errors
    /// [`MoneyError::Range`] if it does not fit.
    pub fn sum(amounts: impl IntoIterator<Item = Self>) -> Result<Self, MoneyError> {
        amounts
            .into_iter()
            .try_fold(Self::ZERO, Self::checked_add)
            .ok_or(MoneyError::Range { operation: "sum" })
    }

    /// The same number as an EVM word.
    #[must_use]
    pub fn to_u256(self) -> U256 {
        U256::from(self.0)
    }

    /// The 16 big-endian bytes that stand in receipts.
    #[must_use]
    pub const fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From 16 big-endian bytes.
    #[must_use]
    pub const fn from_be_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Reads OPG: digits, optionally a point and 1 to 18 decimals, such as `1.5`.
    ///
    /// # Errors
    /// [`MoneyError::NotOpg`] for any other text, [`MoneyError::Range`] for a number that does not fit.
    pub fn parse_opg(text: &str) -> Result<Self, MoneyError> {
        let bad = || MoneyError::NotOpg {
            got: text.chars().take(60).collect(),
        };
        let range = || MoneyError::Range {
            operation: "reading OPG",
        };
        let (whole, decimals) = match text.split_once('.') {
            Some((_, "")) => return Err(bad()),
            Some(parts) => parts,
            None => (text, ""),
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || decimals.len() > DECIMALS || !digits(whole) || !digits(decimals) {
            return Err(bad());
        }
        // Only digits from here on, so `parse` fails on numbers above u128 alone.
        let wei = format!("{decimals:0<DECIMALS$}").parse::<u128>().map_err(|_| range())?;
        whole
            .parse::<u128>()
            .ok()
            .and_then(|whole| whole.checked_mul(WEI_PER_OPG))
            .and_then(|whole| whole.checked_add(wei))
            .map(Self)
            .ok_or_else(range)
    }

    /// Reads wei: decimal digits without sign, spaces or leading zeros.
    ///
    /// # Errors
    /// [`MoneyError::NotWei`] for any other text or a number that does not fit.
    pub fn parse_wei(text: &str) -> Result<Self, MoneyError> {
        let canonical = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
            && text.len() <= 39;
        canonical
            .then(|| text.parse::<u128>().ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| MoneyError::NotWei {
                got: text.chars().take(60).collect(),
            })
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 / WEI_PER_OPG;
        match self.0 % WEI_PER_OPG {
            0 => f.pad(&whole.to_string()),
            rest => f.pad(format!("{whole}.{rest:0>DECIMALS$}").trim_end_matches('0')),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_wei(&text).map_err(D::Error::custom)
    }
}

impl TryFrom<U256> for Amount {
    type Error = MoneyError;

    fn try_from(value: U256) -> Result<Self, MoneyError> {
        u128::try_from(value).map(Self).map_err(|_| MoneyError::Range {
            operation: "reading a 256-bit amount",
        })
    }
}

/// Price of a model: wei per call and per million units of input and output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Wei per call.
    pub per_call: Amount,
    /// Wei per million units of input.
    pub per_mtok_in: Amount,
    /// Wei per million units of output.
    pub per_mtok_out: Amount,
}

impl Price {
    /// Whether no component is above the other's.
    #[must_use]
    pub fn is_at_most(&self, other: &Self) -> bool {
        self.per_call <= other.per_call
            && self.per_mtok_in <= other.per_mtok_in
            && self.per_mtok_out <= other.per_mtok_out
    }

    /// Whether `self`, a node's ask, may stand against a creator's `reference` price (ledger.md §4): every component
    /// between a quarter and four times the reference, and zero exactly where the reference is zero.
    #[must_use]
    pub fn is_admissible_ask(&self, reference: &Self) -> bool {
        let within = |ask: Amount, reference: Amount| {
            let (ask, reference) = (ask.to_u256(), reference.to_u256());
            let four = U256::from(4);
            // 128-bit numbers times four stay far below 2^256.
            ask.saturating_mul(four) >= reference && ask <= reference.saturating_mul(four)
        };
        within(self.per_call, reference.per_call)
            && within(self.per_mtok_in, reference.per_mtok_in)
            && within(self.per_mtok_out, reference.per_mtok_out)
    }
}

/// What a call used, in units of the model (tokens, or zero for models priced per call).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Units of input.
    pub input: u64,
    /// Units of output.
    pub output: u64,
}

/// A price in millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UsdPrice {
    /// Micro-USD per call.
    pub per_call: u64,
    /// Micro-USD per million units of input.
    pub per_mtok_in: u64,
    /// Micro-USD per million units of output.
    pub per_mtok_out: u64,
}

impl UsdPrice {
    /// What it is in OPG while one OPG costs `opg` micro-USD; each component is rounded up to a wei.
    ///
    /// # Errors
    /// [`MoneyError::Range`] if OPG costs nothing, or the result does not fit 128 bits.
    pub fn to_opg(&self, opg: u128) -> Result<Price, MoneyError> {
        let operation = "converting micro-USD";
        if opg == 0 {
            return Err(MoneyError::Range { operation });
        }
        // 64 bits times 10^18 stay below 2^124.
        let wei = |micro: u64| {
            let wei = ceil_div(
                U256::from(micro).saturating_mul(U256::from(WEI_PER_OPG)),
                U256::from(opg),
            );
            Amount::try_from(wei).map_err(|_| MoneyError::Range { operation })
        };
        Ok(Price {
            per_call: wei(self.per_call)?,
            per_mtok_in: wei(self.per_mtok_in)?,
            per_mtok_out: wei(self.per_mtok_out)?,
        })
    }
}

/// What a call costs, royalty included and before the cap at the signed amount:
/// `base = per_call + ceil((in·per_mtok_in + out·per_mtok_out) / 10^6)`, `charge = ceil(base·10000 / (10000 − r))`.
///
/// # Errors
/// [`MoneyError::Royalty`] above [`MAX_ROYALTY_BPS`], [`MoneyError::Range`] if the charge does not fit 128 bits.
pub fn charge(price: &Price, usage: Usage, royalty_bps: u16) -> Result<Amount, MoneyError> {
    check_royalty(royalty_bps)?;
    // 64-bit usage times 128-bit prices stays below 2^193, the base below 2^194, the product with 10^4 below 2^208.
    let mega = U256::from(1_000_000u64);
    let units = U256::from(usage.input)
        .saturating_mul(price.per_mtok_in.to_u256())
        .saturating_add(U256::from(usage.output).saturating_mul(price.per_mtok_out.to_u256()));
    let base = price.per_call.to_u256().saturating_add(ceil_div(units, mega));
    let kept = U256::from(BPS.saturating_sub(u64::from(royalty_bps)));
    Amount::try_from(ceil_div(base.saturating_mul(U256::from(BPS)), kept))
        .map_err(|_| MoneyError::Range { operation: "charge" })
}

/// Who gets what of one charge. The parts always sum to the charge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Split {
    /// The node's operator.
    pub node: Amount,
    /// The model's creator.
    pub creator: Amount,
    /// Registered auditors.
    pub auditors: Amount,
    /// The treasury.
    pub treasury: Amount,
    /// The router.
    pub router: Amount,
    /// The insurance account: the auditors' share while there are no auditors (D7).
    pub insurance: Amount,
}

impl Split {
    /// All parts, in the order node, creator, auditors, treasury, router, insurance.
    #[must_use]
    pub const fn parts(&self) -> [Amount; 6] {
        [
            self.node,
            self.creator,
            self.auditors,
            self.treasury,
            self.router,
            self.insurance,
        ]
    }
}

/// Splits a charge: `floor(F·r/10000)` to the creator, the rest by weights node 80, auditors 5, treasury 3, router 2 of
/// 90 with the largest remainders rounded up (ties in that order). Without a router its share goes to the node, without
/// auditors theirs goes to the insurance account, without a creator the royalty is zero (D7).
///
/// # Errors
/// [`MoneyError::Royalty`] above [`MAX_ROYALTY_BPS`].
pub fn split(
    charge: Amount,
    royalty_bps: u16,
    has_router: bool,
    has_auditors: bool,
    has_creator: bool,
) -> Result<Split, MoneyError> {
    const WEIGHTS: [u64; 4] = [80, 5, 3, 2];
    const TOTAL: u64 = 90;
    check_royalty(royalty_bps)?;
    let royalty = if has_creator { royalty_bps } else { 0 };
    let range = || MoneyError::Range { operation: "split" };
    let creator = Amount::try_from(
        charge
            .to_u256()
            .saturating_mul(U256::from(royalty))
            .checked_div(U256::from(BPS))
            .ok_or_else(range)?,
    )?;
    let rest = charge.checked_sub(creator).ok_or_else(range)?;

    // share = floor(rest·w/90) and its remainder, without leaving 128 bits: rest = 90·q + m.
    let (q, m) = (rest.0 / u128::from(TOTAL), rest.0 % u128::from(TOTAL));
    let mut shares = WEIGHTS.map(|w| {
        let w = u128::from(w);
        (q * w + m * w / u128::from(TOTAL), m * w % u128::from(TOTAL))
    });
    let mut left = rest.0 - shares.iter().map(|(share, _)| share).sum::<u128>();
    let mut order = [0usize, 1, 2, 3];
    // Stable sort: equal remainders keep the order of the weights.
    order.sort_by_key(|i| std::cmp::Reverse(shares.get(*i).map_or(0, |(_, remainder)| *remainder)));
    for i in order {
        if let (true, Some((share, _))) = (left > 0, shares.get_mut(i)) {
            *share += 1;
            left -= 1;
        }
    }

    let [node, auditors, treasury, router] = shares.map(|(share, _)| Amount(share));
    let mut split = Split {
        node,
        creator,
        auditors,
        treasury,
        router,
        insurance: Amount::ZERO,
    };
    if !has_router {
        split.node = node.saturating_add(router);
        split.router = Amount::ZERO;
    }
    if !has_auditors {
        split.insurance = auditors;
        split.auditors = Amount::ZERO;
    }
    Ok(split)
}

fn check_royalty(got: u16) -> Result<(), MoneyError> {
    if got > MAX_ROYALTY_BPS {
        Err(MoneyError::Royalty {
            limit: MAX_ROYALTY_BPS,
            got,
        })
    } else {
        Ok(())
    }
}

/// `ceil(a / b)`; zero for `b = 0`, which no caller passes.
fn ceil_div(a: U256, b: U256) -> U256 {
    let floor = a.checked_div(b).unwrap_or_default();
    let exact = a.checked_rem(b).unwrap_or_default().is_zero();
    if exact { floor } else { floor.saturating_add(U256::ONE) }
}
