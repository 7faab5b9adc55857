//! Where the hub of a test keeps its data. Tests that are written for any place run once with each.

use super::{bucket::Bucket, postgres::Postgres};
use opg_hub::config::{DatabaseConfig, HubConfig, Secret};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A directory, and the servers that keep what is not in it.
pub struct Place {
    dir: tempfile::TempDir,
    pub postgres: Option<Postgres>,
    pub bucket: Option<Bucket>,
}

/// What a hub's configuration says about its stores, beside `hub.toml`.
pub const STORES: &str = "stores.toml";

impl Place {
    /// Metadata in SQLite, blobs in the directory.
    pub fn sqlite() -> Option<Self> {
        Some(Self {
            dir: tempfile::tempdir().unwrap(),
            postgres: None,
            bucket: None,
        })
    }

    /// Metadata in PostgreSQL, blobs in the directory. `None`, loudly, where there is no server.
    pub fn postgres() -> Option<Self> {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            postgres: Some(Postgres::start()?),
            bucket: None,
        };
        place.write();
        Some(place)
    }

    /// Metadata in SQLite, blobs in a bucket. `None`, loudly, where there is no server.
    pub fn bucket() -> Option<Self> {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            postgres: None,
            bucket: Some(Bucket::start()?),
        };
        place.write();
        Some(place)
    }

    fn write(&self) {
        let mut text = String::new();
        if let Some(postgres) = &self.postgres {
            text += &format!("[database]\nurl = {:?}\n", postgres.url());
        }
        if let Some(bucket) = &self.bucket {
            text += &bucket.text();
        }
        fs::write(self.dir.path().join(STORES), text).unwrap();
    }

    /// Where published blobs lie, below two levels of folders.
    pub fn blobs(&self) -> PathBuf {
        match &self.bucket {
            Some(bucket) => bucket.folder().join("blobs"),
            None => self.path().join("data/blobs"),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A configuration over these stores.
    pub fn config(&self, data: PathBuf) -> HubConfig {
        let mut config = HubConfig::new(([127, 0, 0, 1], 0).into(), data);
        config.database = self.postgres.as_ref().map(|postgres| DatabaseConfig {
            url: Secret(postgres.url()),
            ca: None,
        });
        config.blobs = self.bucket.as_ref().map(Bucket::config);
        config
    }

    /// Whether a file of the database holds these bytes.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        fn search(path: &Path, bytes: &[u8]) -> bool {
            if path.is_dir() {
                return fs::read_dir(path)
                    .unwrap()
                    .flatten()
                    .any(|entry| search(&entry.path(), bytes));
            }
            // Servers remove files at any time.
            let content = fs::read(path).unwrap_or_default();
            content.windows(bytes.len()).any(|window| window == bytes)
        }
        match &self.postgres {
            Some(postgres) => search(&postgres.data(), bytes),
            None => ["hub.sqlite", "hub.sqlite-wal"]
                .iter()
                .any(|file| search(&self.path().join("data").join(file), bytes)),
        }
    }
}

/// Makes a test of each function for each place.
#[allow(unused_macros, reason = "every test file uses a part of this")]
macro_rules! on_all {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let place = super::common::Place::sqlite().unwrap();
                super::$name(place).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(place) = super::common::Place::postgres() {
                    super::$name(place).await;
                }
            })*
        }

        mod bucket {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(place) = super::common::Place::bucket() {
                    super::$name(place).await;
                }
            })*
        }
    };
}
pub(crate) use on_all;
