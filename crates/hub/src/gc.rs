//! Garbage collection: blobs that no commit and no fresh upload refers to, directory objects of deleted repositories, and
//! files without a row.

use crate::{
    db::{DbError, blobs},
    error::Answer,
    state::Hub,
    time::now_ms,
    tree::Hash,
};
use std::{
    collections::HashSet,
    fs::File,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

/// Blobs removed in one transaction.
const BATCH: usize = 500;
/// Pause between collections.
pub(crate) const EVERY: Duration = Duration::from_secs(3600);

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: usize,
    /// Directory objects.
    pub directories: usize,
    /// Files that had no row: left by a crash.
    pub orphans: usize,
    /// Uploaded xorbs that no shard used.
    pub xorbs: usize,
}

/// Removes what nothing refers to and what is older than `hours`.
pub(crate) async fn collect(hub: &Arc<Hub>, hours: u32) -> Answer<Collected> {
    let _collecting = hub.collecting.lock().await;
    let before = now_ms() - i64::from(hours) * 3_600_000;
    let mut collected = Collected::default();
    // A backup under way needs what its snapshot of the database knows: the next collection removes it.
    let Some(_right) = removal(hub).await? else {
        tracing::info!("a backup is being made: garbage is collected after it");
        return Ok(collected);
    };
    // Only a deleted repository leaves directory objects behind, and finding them walks all commits.
    if hub.deleted.swap(false, Ordering::Relaxed) {
        collected.directories = hub.db.write(blobs::sweep_trees).await?;
    }
    loop {
        // No blob is published while rows and files are removed: one that comes again just now keeps its file.
        let _alone = hub.publishing.write().await;
        still_ours(hub).await?;
        let (rows, files) = hub
            .db
            .write(move |tx| {
                let (n, _) = blobs::totals(tx)?;
                let files = blobs::sweep(tx, before, BATCH)?;
                let (left, _) = blobs::totals(tx)?;
                Ok::<_, DbError>((usize::try_from(n - left).unwrap_or(0), files))
            })
            .await?;
        remove(hub, files).await?;
        collected.blobs += rows;
        if rows < BATCH {
            break;
        }
    }
    collected.orphans = orphans(hub).await?;
    let store = Arc::clone(&hub.blobs);
    let age = Duration::from_secs(u64::from(hours) * 3_600);
    collected.xorbs = hub.blocking(move || Ok(store.forget_waiting(age)?)).await?;
    hub.metrics
        .collected
        .inc_by((collected.blobs + collected.orphans) as u64);
    Ok(collected)
}

/// The right to remove.
async fn removal(hub: &Arc<Hub>) -> Answer<Option<File>> {
    let store = Arc::clone(&hub.blobs);
    hub.blocking(move || Ok(store.removal()?)).await
}

/// Fails if the bucket has another hub now. Looked at again before each batch, since collecting takes long.
async fn still_ours(hub: &Arc<Hub>) -> Answer<()> {
    let store = Arc::clone(&hub.blobs);
    hub.blocking(move || Ok(store.check_own()?)).await
}

/// Removes blobs that have no row, and returns how many. Those that are being stored again stay.
async fn remove(hub: &Arc<Hub>, mut dead: Vec<Hash>) -> Answer<usize> {
    {
        let fresh = hub.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        dead.retain(|sha256| !fresh.contains_key(sha256));
    }
    let (count, shared) = (dead.len(), Arc::clone(hub));
    hub.blocking(move || {
        for sha256 in dead {
            shared.blobs.remove(&sha256)?;
            shared.outboards.remove(&sha256)?;
        }
        Ok(())
    })
    .await?;
    Ok(count)
}

/// Removes files that no row knows.
async fn orphans(hub: &Arc<Hub>) -> Answer<usize> {
    let _alone = hub.publishing.write().await;
    still_ours(hub).await?;
    let store = Arc::clone(&hub.blobs);
    let stored = hub.blocking(move || Ok(store.list()?)).await?;
    let dead = unknown(hub, stored).await?;
    let shared = Arc::clone(hub);
    let outboards = hub.blocking(move || Ok(shared.outboards.list()?)).await?;
    let left = unknown(hub, outboards).await?;
    let shared = Arc::clone(hub);
    hub.blocking(move || {
        for sha256 in left {
            shared.outboards.remove(&sha256)?;
        }
        Ok(())
    })
    .await?;
    remove(hub, dead).await
}

/// Those of some blobs that no row knows.
async fn unknown(hub: &Hub, found: Vec<Hash>) -> Answer<Vec<Hash>> {
    let unknown = hub.db.read(move |db| {
        let known: HashSet<Hash> = blobs::known(db, &found)?;
        Ok(found.into_iter().filter(|sha256| !known.contains(sha256)).collect())
    });
    Ok(unknown.await?)
}
