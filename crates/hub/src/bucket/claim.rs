//! Whose bucket it is.
//!
//! Each start of a hub is a run with a random id. Database and bucket both remember it, the database first; so a bucket
//! that remembers a run which the database does not know was used since by another copy of the database: one that was
//! restored from a dump, or one that runs elsewhere. Such a hub does not start, and one to which that happens while it
//! runs stops removing.

use super::Bucket;
use crate::{
    blobs::BlobError,
    db::{Db, DbError, Transaction},
};
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What `hub.json` begins with.
const FORMAT: &str = "opg-hub-bucket/1";
const MARKER: &str = "hub.json";
/// Largest marker that is read, bytes.
const MARKER_LIMIT: u64 = 4_096;
/// Key of the runs in the settings.
const RUNS: &str = "bucket_runs";

pub(super) type Run = [u8; 16];

/// The content of `hub.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    format: String,
    /// Id of the hub, 32 bytes in hexadecimal.
    hub: String,
    /// Id of the run, 16 bytes in hexadecimal.
    run: String,
}

impl Bucket {
    fn refused(&self, problem: &str) -> BlobError {
        BlobError::Foreign {
            place: self.shown.clone(),
            problem: problem.to_owned(),
        }
    }

    /// The marker, if there is one.
    fn marker(&self) -> Result<Option<Marker>, BlobError> {
        let path = self.path(MARKER);
        let read = async {
            let found = self.store.get(&path).await?;
            if found.meta.size > MARKER_LIMIT {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        };
        let Some(found) = self.wait("marker", read)? else {
            return Ok(None);
        };
        let marker = found.and_then(|bytes| serde_json::from_slice::<Marker>(&bytes).ok());
        match marker.filter(|marker| marker.format == FORMAT) {
            Some(marker) => Ok(Some(marker)),
            None => Err(self.refused("its hub.json is not of this program")),
        }
    }

    /// The marker of a bucket that this hub may use; `None` for a fresh one.
    fn own_marker(&self, hub: &str, adopt: bool) -> Result<Option<Marker>, BlobError> {
        match self.marker()? {
            Some(marker) if marker.hub == hub => Ok(Some(marker)),
            Some(_) => Err(self.refused("it belongs to another hub; each needs a bucket or a prefix of its own")),
            None => {
                if adopt || self.list()?.is_empty() {
                    return Ok(None);
                }
                Err(self.refused("it holds blobs, but no hub.json that says whose they are; if they are this hub's, start it once with blobs.adopt = true"))
            }
        }
    }

    fn mark(&self, hub: &str, run: Run, mode: PutMode) -> Result<(), BlobError> {
        let marker = Marker {
            format: FORMAT.into(),
            hub: hub.to_owned(),
            run: hex::encode(run),
        };
        let content = serde_json::to_vec(&marker).unwrap_or_default();
        let path = self.path(MARKER);
        match self.wait("marker", self.store.put_opts(&path, content.into(), mode.into()))? {
            Some(_) => Ok(()),
            None => Err(self.refused("there is no such bucket")),
        }
    }

    /// Fails unless this process was the last to begin a run here: without that it may remove nothing.
    pub(crate) fn check_run(&self) -> Result<(), BlobError> {
        let run = self.run.get().map(hex::encode);
        match self.marker()? {
            Some(marker) if Some(&marker.run) == run.as_ref() => Ok(()),
            _ => Err(self.refused("another copy of this hub has begun to use it; nothing is removed from here")),
        }
    }
}

/// The last run that the bucket is known to remember, and the one that was about to begin.
fn runs(tx: &Transaction<'_>) -> Result<Option<[u8; 32]>, DbError> {
    tx.optional("SELECT value FROM settings WHERE key = ?1", &[RUNS.into()], |row| {
        row.get(0)
    })
}

/// Begins a run: refuses a bucket of another hub, and one that another copy of the database has used since.
///
/// # Errors
/// [`crate::HubError::Blobs`], [`crate::HubError::Database`].
pub(crate) fn begin(bucket: &Arc<Bucket>, db: &Db, adopt: bool) -> Result<(), crate::HubError> {
    let hub = hex::encode(db.write_now(|tx| crate::db::secret(tx, "hub_id"))?);
    let marker = bucket.own_marker(&hub, adopt)?;
    let fresh: Run = rand::random();
    let before: Run = match &marker {
        Some(marker) => {
            let mut run = Run::default();
            hex::decode_to_slice(&marker.run, &mut run)
                .map_err(|_| bucket.refused("its hub.json is not of this program"))?;
            run
        }
        None => Run::default(),
    };
    let known = db.write_now(|tx| {
        // Without a marker the database must not know a run either: it would be another bucket than before.
        let known = runs(tx)?.unwrap_or_default();
        let (last, next) = known.split_at(16);
        if !adopt && before != last && before != next {
            return Ok(false);
        }
        let both = [before, fresh].concat();
        tx.execute(
            "INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            &[RUNS.into(), (&both).into()],
        )?;
        Ok::<_, DbError>(true)
    })?;
    if !known {
        let problem = "it is not as this database left it: another copy of the database has used it since, or it is another \
                       bucket; if this is the right copy with the right bucket, start it once with blobs.adopt = true";
        return Err(bucket.refused(problem).into());
    }
    let mode = if marker.is_some() {
        PutMode::Overwrite
    } else {
        PutMode::Create
    };
    bucket.mark(&hub, fresh, mode)?;
    let _ = bucket.run.set(fresh);
    Ok(())
}
