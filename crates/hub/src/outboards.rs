//! Hash trees of large blobs, by which ranges of them are verified. Each is made once, when its file is committed or first asked
//! for in ranges, and can be made again from the blob at any time: no backup has them.

use crate::{
    blobs::BlobError,
    error::{Answer, ApiError},
    state::Hub,
    tree::{Blob, Hash},
};
use opg_model_store::ranges::{is_sound, make_outboard, outboard_length};
use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Semaphore;

const BUFFER: usize = 1 << 20;

/// The directory of outboards.
#[derive(Debug)]
pub(crate) struct Outboards {
    dir: PathBuf,
    /// Taken while one is made: hashing must not take all processors from those who are being answered.
    making: Arc<Semaphore>,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BlobError + '_ {
    |source| BlobError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Outboards {
    /// Opens or makes the directory below the hub's.
    pub(crate) fn open(root: &Path) -> Result<Self, BlobError> {
        let dir = root.join("outboards");
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        Ok(Self {
            dir,
            making: Arc::new(Semaphore::new(1)),
        })
    }

    fn path(&self, sha256: &Hash) -> PathBuf {
        let name = hex::encode(sha256);
        self.dir.join(name.get(..2).unwrap_or_default()).join(&name)
    }

    fn find(path: &Path, size: u64) -> Option<File> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        (length == outboard_length(size)).then_some(file)
    }

    /// The outboard of a blob that lies in a file of its own, made now if it is not there. If the caller goes away, it is made
    /// all the same.
    pub(crate) async fn get(hub: &Arc<Hub>, blob: Blob) -> Answer<File> {
        let path = hub.outboards.path(&blob.sha256);
        let wanted = path.clone();
        let there = hub.blocking(move || Ok(Self::find(&wanted, blob.size))).await?;
        if let Some(file) = there {
            return Ok(file);
        }
        let alone = Arc::clone(&hub.outboards.making).acquire_owned().await;
        let alone = alone.map_err(ApiError::internal)?;
        let (store, metrics) = (Arc::clone(&hub.blobs), Arc::clone(hub));
        hub.blocking(move || {
            let _alone = alone;
            if let Some(file) = Self::find(&path, blob.size) {
                return Ok(file);
            }
            let data = store.open_at(&blob.sha256, 0, blob.size)?;
            let folder = path.parent().unwrap_or(&path);
            fs::create_dir_all(folder).map_err(at(folder))?;
            let temporary = path.with_extension("new");
            let file = File::create(&temporary).map_err(at(&temporary))?;
            let mut writer = BufWriter::with_capacity(BUFFER, file);
            let data = io::BufReader::with_capacity(BUFFER, data);
            let got = make_outboard(data, blob.size, &mut writer).map_err(at(&temporary))?;
            if got != blob.blake3 {
                metrics.metrics.damaged_reads.inc();
                fs::remove_file(&temporary).map_err(at(&temporary))?;
                let name = hex::encode(blob.sha256);
                return Err(ApiError::internal(format!("blob {name} is damaged")));
            }
            let file = writer
                .into_inner()
                .map_err(|error| at(&temporary)(error.into_error()))?;
            file.sync_all().map_err(at(&temporary))?;
            fs::rename(&temporary, &path).map_err(at(&path))?;
            Ok(File::open(&path).map_err(at(&path))?)
        })
        .await
    }

    /// Removes the outboard of a blob if it is damaged, so that the next one that is made is good. Blocks.
    pub(crate) fn examine(&self, blob: &Blob) -> Result<(), BlobError> {
        let path = self.path(&blob.sha256);
        match Self::find(&path, blob.size) {
            Some(file) if !is_sound(blob.blake3, blob.size, &file).map_err(at(&path))? => self.remove(&blob.sha256),
            _ => Ok(()),
        }
    }

    /// Removes the outboard of a blob; not an error if there is none.
    pub(crate) fn remove(&self, sha256: &Hash) -> Result<(), BlobError> {
        let path = self.path(sha256);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// The blobs that have one, in no order. Files of other names, left by a crash, are removed.
    pub(crate) fn list(&self) -> Result<Vec<Hash>, BlobError> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.dir).map_err(at(&self.dir))?.flatten() {
            let folder = folder.path();
            for entry in fs::read_dir(&folder).map_err(at(&folder))?.flatten() {
                let name = entry.file_name();
                match name.to_str().and_then(|name| hex::decode(name).ok()?.try_into().ok()) {
                    Some(hash) => found.push(hash),
                    None => fs::remove_file(entry.path()).map_err(at(&folder))?,
                }
            }
        }
        Ok(found)
    }
}
