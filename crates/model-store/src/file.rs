//! One file from one place, for clients that want to have it and not to share it.

use crate::{
    fetch::{FetchError, Trouble},
    plain::Transfer,
    ranged::Ranged,
    ranges::RANGE_LIMIT,
};
use opg_models::FileEntry;
use reqwest::{Client, Url};
use std::{io, path::Path};

/// Downloads one file of known hash to `to`, beside which the unfinished file lies (`.part`) and from which an interrupted
/// download goes on. If its BLAKE3 is known and the server gives verified ranges, a wrong byte ends the download within one chunk
/// group, and what came before it stays.
///
/// # Errors
/// [`FetchError::Lied`] if other bytes came; `to` is then not touched.
pub async fn fetch_file(http: &Client, url: &str, expected: &FileEntry, to: &Path) -> Result<u64, FetchError> {
    let failed = |reason: String, absent| FetchError::Source {
        url: url.to_owned(),
        reason,
        absent,
    };
    let parsed = Url::parse(url).map_err(|error| failed(error.to_string(), false))?;
    let beside = |suffix: &str| {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        to.with_file_name(name)
    };
    let mut bytes = 0;
    let (ranged, outboard) = (beside(".ranges.part"), beside(".outboard.part"));
    let mut done = Err(Trouble::Unverified);
    let mut part = ranged.clone();
    if expected.blake3.is_some() && expected.size > 0 {
        let transfer = Ranged::open(&ranged, &outboard, expected).await?;
        (bytes, done) = transfer.work(http, &parsed, RANGE_LIMIT).await;
        if done.is_ok() {
            transfer.check(url).await?;
        }
    }
    if matches!(done, Err(Trouble::Unverified)) {
        part = beside(".part");
        let mut transfer = Transfer::new(part.clone(), expected.clone());
        done = transfer.run(http, &parsed, &mut bytes).await;
    }
    match done {
        Ok(()) => {}
        Err(Trouble::Lied(_)) => {
            return Err(FetchError::Lied {
                url: url.to_owned(),
                expected: hex::encode(expected.sha256),
            });
        }
        Err(Trouble::Absent(reason)) => return Err(failed(reason, true)),
        Err(Trouble::Failed(reason)) => return Err(failed(reason, false)),
        Err(Trouble::Unverified) => return Err(failed("gives no file".into(), false)),
        Err(Trouble::Local(error)) => return Err(error),
    }
    tokio::fs::rename(&part, to).await.map_err(|source| FetchError::File {
        path: to.to_owned(),
        source,
    })?;
    for left in [ranged, outboard] {
        match tokio::fs::remove_file(&left).await {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(FetchError::File { path: left, source });
            }
            _ => {}
        }
    }
    Ok(bytes)
}
