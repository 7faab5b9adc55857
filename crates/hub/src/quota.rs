//! What an account may store: bytes and repositories, over all name spaces that are its own (its address, its claimed name,
//! the organisations it founded).
//!
//! A blob counts once for an account, however many of its repositories use it. What was uploaded and not committed counts
//! until it is collected.

use crate::db::Connection;
use crate::{
    config::HubConfig,
    db::{accounts, blobs, repos},
    error::{Answer, ApiError},
};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

/// Bounds for one account that differ from those of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Most bytes; 0 for no bound, absent for `limits.owner_bytes`.
    pub bytes: Option<u64>,
    /// Most repositories, models and datasets together; absent for `limits.owner_repos`.
    pub repos: Option<u64>,
}

/// What an account uses and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    /// `None` without a bound.
    pub(crate) bytes_allowed: Option<u64>,
    pub(crate) repositories: u64,
    pub(crate) repositories_allowed: u64,
}

fn allowed(config: &HubConfig, account: &str) -> (Option<u64>, u64) {
    let own = config.quotas.get(account).copied().unwrap_or_default();
    let bytes = own.bytes.unwrap_or(config.limits.owner_bytes);
    (
        (bytes > 0).then_some(bytes),
        own.repos.unwrap_or(config.limits.owner_repos),
    )
}

/// What an account (an address) uses and may use.
pub(crate) fn usage(db: &Connection<'_>, config: &HubConfig, account: &str) -> Answer<Usage> {
    let (bytes_allowed, repositories_allowed) = allowed(config, account);
    Ok(Usage {
        bytes: blobs::used_by(db, account)?,
        bytes_allowed,
        repositories: repos::count_of(db, account)?,
        repositories_allowed,
    })
}

fn reached(message: String) -> ApiError {
    ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "QuotaReached", message)
}

/// Refuses if the account behind a name space would store more than it may. In a transaction that has stored the bytes
/// already, `more` is 0.
pub(crate) fn check_bytes(db: &Connection<'_>, config: &HubConfig, space: &str, more: u64) -> Answer<()> {
    let account = accounts::owner_of(db, space)?;
    let Some(most) = allowed(config, &account).0 else {
        return Ok(());
    };
    let used = blobs::used_by(db, &account)?;
    if used.saturating_add(more) <= most {
        return Ok(());
    }
    let with = if more > 0 {
        format!("{account} stores {used} bytes, and with {more} more it would have")
    } else {
        format!("with this, {account} would store {used} bytes,")
    };
    Err(reached(format!(
        "{with} more than the {most} it may; what deleted repositories alone had is free after {} h",
        config.limits.garbage_hours.max(1)
    )))
}

/// Refuses if the account behind a name space has more repositories than it may, with the one that this transaction adds.
pub(crate) fn check_created(db: &Connection<'_>, config: &HubConfig, space: &str) -> Answer<()> {
    let account = accounts::owner_of(db, space)?;
    let most = allowed(config, &account).1;
    let have = repos::count_of(db, &account)?;
    if have <= most {
        return Ok(());
    }
    Err(reached(format!(
        "{account} has {} repositories, counting its name and its organisations, and may have {most}; delete one first",
        have - 1
    )))
}
