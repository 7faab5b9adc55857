//! What payers' OPG, held and staked, unlocks here: the feature tiers of the network (`FeatureTiers`), asked for the account that signed the
//! payment and never for one that a request merely names.

use crate::{chain::Chain, error::ApiError};
use alloy_primitives::Address;
use axum::http::StatusCode;
use opg_contracts::FeatureTiers::Tier;
use opg_rate_limit::{Buckets, Limit};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a tier is remembered: what an account holds can move a block later, and nothing of value depends on it.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Accounts remembered.
const MAX_ACCOUNTS: usize = 50_000;

/// Tiers of payers, and how often they called lately.
#[derive(Debug)]
pub(crate) struct Tiers {
    chain: Chain,
    known: Mutex<HashMap<Address, (Tier, Instant)>>,
    calls: Buckets<Address>,
}

impl Tiers {
    pub(crate) fn new(chain: Chain) -> Self {
        Self {
            chain,
            known: Mutex::default(),
            calls: Buckets::default(),
        }
    }

    /// Lets a request of this size by this account pass, or says what its tier allows.
    pub(crate) async fn admit(&self, account: Address, bytes: usize) -> Result<(), ApiError> {
        let tier = self.of(account).await?;
        let most = tier.maxRequestBytes as usize;
        if bytes > most {
            let message = format!(
                "the request has {bytes} bytes, the tier of {account} allows {most}; nothing was charged. OPG held and staked raises it: `opg wallet tier` shows it."
            );
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "tier_request_size",
                message,
            ));
        }
        let limit = Limit::per_minute(tier.requestsPerMinute);
        self.calls.take(account, 1.0, limit, Instant::now()).map_err(|wait| {
            let (count, seconds) = (tier.requestsPerMinute, wait.as_secs() + 1);
            let message = format!(
                "quota reached: the tier of {account} allows {count} requests a minute; try again in {seconds} s. Nothing was charged."
            );
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "tier_rate", message).detail("retry_after_seconds", seconds)
        })
    }

    async fn of(&self, account: Address) -> Result<Tier, ApiError> {
        if let Some((tier, at)) = self.lock().get(&account)
            && at.elapsed() < REMEMBERED
        {
            return Ok(tier.clone());
        }
        // Not known is not free: nobody gets a tier because no full node answers.
        let tier = self.chain.tier(account).await.map_err(|error| {
            tracing::warn!(%error, "tier cannot be read");
            let message = "no full node answers, so the payer's tier is not known; nothing was charged";
            ApiError::unavailable("chain_unavailable", message)
        })?;
        let mut known = self.lock();
        if known.len() >= MAX_ACCOUNTS {
            known.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        }
        if known.len() < MAX_ACCOUNTS {
            known.insert(account, (tier.clone(), Instant::now()));
        }
        Ok(tier)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, (Tier, Instant)>> {
        // A record is put in whole, or not at all.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
