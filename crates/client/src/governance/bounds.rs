//! Bounds of the contracts (docs/specs/authority.md), so that a value out of its range is refused when it is drafted, not when it is executed
//! after a vote. The contracts check them again; a call that is not known here is not judged.

use alloy_primitives::U256;
use alloy_sol_types::SolInterface as _;
use opg_contracts::{
    ChainParameters::ChainParametersCalls, Emission::EmissionCalls, EvidenceRegistry::EvidenceRegistryCalls,
    FeatureTiers::FeatureTiersCalls, Governor::GovernorCalls, PriceOracle::PriceOracleCalls,
    ReceiptLedger::ReceiptLedgerCalls, Slashing::SlashingCalls, Staking::StakingCalls, Treasury::TreasuryCalls,
    addresses, evidence::MAX_POLICY,
};
use opg_primitives::money::WEI_PER_OPG;

use super::{Call, GovernanceError};

type Checked = Result<(), GovernanceError>;

/// Longest escrow window: `ReceiptLedger.MAX_WINDOW`.
const MAX_WINDOW: u64 = 90 * 86_400;
/// Largest sum of weights: `ReceiptLedger.MAX_WEIGHTS`.
const MAX_WEIGHTS: u64 = 10_000;
const YEAR: u64 = 365 * 86_400;
const MILLION: u64 = 1_000_000;

/// Whether the values of a known call are in their ranges at a height, for a network with this unbonding of nodes.
pub(super) fn check(call: &Call, height: u64, unbonding: u64) -> Checked {
    let data = &call.calldata;
    match call.target {
        addresses::RECEIPT_LEDGER => match ReceiptLedgerCalls::abi_decode(data) {
            Ok(ReceiptLedgerCalls::setWindows(call)) => {
                // A bond is still there when its node's last credits are released.
                let most = MAX_WINDOW.min(unbonding.saturating_sub(1));
                let mut windows = call.windows.iter();
                windows.try_for_each(|window| range("escrow window", window.to::<u64>(), 0, most))
            }
            Ok(ReceiptLedgerCalls::setWeights(call)) => weights(call.weights, MAX_WEIGHTS, 60, 20),
            Ok(ReceiptLedgerCalls::setClosedWeights(call)) => weights(call.weights.map(u16::from), MAX_WEIGHTS, 90, 5),
            _ => Ok(()),
        },
        addresses::TREASURY => {
            let to = match TreasuryCalls::abi_decode(data) {
                Ok(TreasuryCalls::spend(call)) => call.to,
                Ok(TreasuryCalls::spendNative(call)) => call.to,
                _ => return Ok(()),
            };
            if to.is_zero() {
                return Err(GovernanceError::field("to", "an account", "zero"));
            }
            Ok(())
        }
        addresses::CHAIN_PARAMETERS => match ChainParametersCalls::abi_decode(data) {
            Ok(ChainParametersCalls::schedule(call)) => {
                range("gas limit", call.gasLimit, 120 * MILLION, 1_000 * MILLION)?;
                range("verification budget", call.verificationBudget, 1_000, 1_000 * MILLION)?;
                let (least, most) = (height.saturating_add(10), height.saturating_add(10 * MILLION));
                range("activation height", call.activation, least, most)
            }
            _ => Ok(()),
        },
        addresses::FEATURE_TIERS => tiers(data),
        addresses::PRICE_ORACLE => match PriceOracleCalls::abi_decode(data) {
            Ok(PriceOracleCalls::setLimits(call)) => {
                range("min feeds", call.minFeeds_.into(), 3, 100)?;
                range("max age", call.maxAge_.into(), 60, 4 * 3_600)
            }
            _ => Ok(()),
        },
        addresses::STAKING => match StakingCalls::abi_decode(data) {
            Ok(StakingCalls::setParameters(call)) => {
                let p = call.parameters_;
                wei("min self bond", p.minSelfBond, WEI_PER_OPG, 10_000_000 * WEI_PER_OPG)?;
                range("unbonding", p.unbonding.to(), 1, YEAR)?;
                range("jail time", p.jailTime.to(), 1, YEAR)?;
                range("max seats", p.maxSeats.into(), 4, 100)?;
                range("commission step", p.commissionStep.into(), 1, 10_000)?;
                range("min views", p.minViews.into(), 1, u32::MAX.into())?;
                range("min led ppm", p.minLedPpm.into(), 0, 900_000)
            }
            _ => Ok(()),
        },
        addresses::SLASHING => match SlashingCalls::abi_decode(data) {
            Ok(SlashingCalls::setParameters(call)) => {
                let p = call.parameters_;
                wei("challenger bond", p.minBond, 1, 1_000_000 * WEI_PER_OPG)?;
                range("appeal window", p.appealWindow.to(), 1, 30 * 86_400)?;
                range("equivocation ppm", p.equivocationPpm.into(), 1, MILLION)?;
                range("downtime ppm", p.downtimePpm.into(), 1, 100_000)?;
                range("correlation", p.correlation.into(), 1, 100)
            }
            _ => Ok(()),
        },
        addresses::EMISSION => match EmissionCalls::abi_decode(data) {
            Ok(EmissionCalls::setParts(call)) => {
                let sum = u64::from(call.auditorsPpm) + u64::from(call.nodesPpm);
                range("auditors ppm + nodes ppm", sum, 0, MILLION)
            }
            _ => Ok(()),
        },
        addresses::EVIDENCE_REGISTRY => match EvidenceRegistryCalls::abi_decode(data) {
            Ok(EvidenceRegistryCalls::setPolicy(call)) => {
                range("policy (bytes)", call.policy_.len() as u64, 1, MAX_POLICY as u64)
            }
            Ok(EvidenceRegistryCalls::revoke(call)) if call.subject.is_zero() => {
                Err(GovernanceError::field("subject", "a measurement or signer", "zero"))
            }
            _ => Ok(()),
        },
        addresses::GOVERNOR => match GovernorCalls::abi_decode(data) {
            Ok(GovernorCalls::setVotingPeriod(call)) => {
                range("period", call.newVotingPeriod.into(), 1, u32::MAX.into())
            }
            Ok(GovernorCalls::updateQuorumNumerator(call)) if call.newQuorumNumerator > U256::from(10_000) => Err(
                GovernanceError::field("quorum", "at most 10000 bps", call.newQuorumNumerator),
            ),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Weights whose node has `least` per cent or more, and nobody else over `most`.
fn weights(weights: [u16; 4], largest: u64, least: u64, most: u64) -> Checked {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    range("sum of the weights", total, 1, largest)?;
    for (name, weight) in ["node", "auditors", "treasury", "router"].into_iter().zip(weights) {
        let percent = u64::from(weight) * 100;
        let good = if name == "node" {
            percent >= least * total
        } else {
            percent <= most * total
        };
        if !good {
            let expected = if name == "node" {
                format!("{least} % of the sum or more")
            } else {
                format!("{most} % of the sum at most")
            };
            return Err(GovernanceError::field(name, expected, format!("{weight} of {total}")));
        }
    }
    Ok(())
}

fn tiers(data: &[u8]) -> Checked {
    let Ok(FeatureTiersCalls::setTiers(call)) = FeatureTiersCalls::abi_decode(data) else {
        return Ok(());
    };
    range("number of tiers", call.tiers_.len() as u64, 1, 8)?;
    let mut below: Option<&opg_contracts::FeatureTiers::Tier> = None;
    for tier in &call.tiers_ {
        range("discount bps", tier.discountBps.into(), 0, 5_000)?;
        range("requests per minute", tier.requestsPerMinute.into(), 1, u32::MAX.into())?;
        range("max request bytes", tier.maxRequestBytes.into(), 1, u32::MAX.into())?;
        let good = below.map_or(tier.threshold == 0, |below| {
            tier.threshold > below.threshold
                && tier.discountBps >= below.discountBps
                && tier.requestsPerMinute >= below.requestsPerMinute
                && tier.maxRequestBytes >= below.maxRequestBytes
        });
        if !good {
            let expected = "the first tier from 0 OPG on, each later one from more on and nowhere worse";
            return Err(GovernanceError::field("tiers", expected, call_text(&call.tiers_)));
        }
        below = Some(tier);
    }
    Ok(())
}

fn call_text(tiers: &[opg_contracts::FeatureTiers::Tier]) -> String {
    let thresholds: Vec<_> = tiers
        .iter()
        .map(|tier| opg_primitives::money::Amount(tier.threshold).to_string())
        .collect();
    format!("thresholds {} OPG", thresholds.join(", "))
}

fn range(field: &'static str, value: u64, least: u64, most: u64) -> Checked {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(GovernanceError::field(field, format!("{least} to {most}"), value))
}

fn wei(field: &'static str, value: u128, least: u128, most: u128) -> Checked {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(GovernanceError::field(
        field,
        format!("{least} to {most} wei"),
        format!("{value} wei"),
    ))
}
