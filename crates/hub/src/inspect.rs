//! Runs the validators over stored files and remembers what they found.

use crate::{
    card,
    db::{blobs, repos::Summary},
    error::Answer,
    ingest,
    state::Hub,
    tree::{Blob, Files},
    validate::{self, FileKind, Look, ModelFormat, Report, Settings},
};
use opg_models::{FileEntry, Manifest, ManifestVersion, ModelRoot};
use std::{collections::BTreeSet, sync::Arc};

/// From this size on, only one file is in memory at a time.
const LARGE: u64 = 16 << 20;

/// What the validator of a format has said about a blob, if it was asked.
async fn known(hub: &Hub, blob: &Blob, format: ModelFormat) -> Answer<Option<Report>> {
    let sha256 = blob.sha256;
    let known = hub
        .db
        .read(move |db| blobs::check(db, &sha256, format.report_key()))
        .await?;
    Ok(known.and_then(|text| serde_json::from_str(&text).ok()))
}

/// The newest root of a file, if it is known to be a good model. It is once its commit was looked at.
pub(crate) async fn root(hub: &Hub, blob: &Blob, format: ModelFormat) -> Answer<Option<ModelRoot>> {
    let good = known(hub, blob, format).await?.is_some_and(|report| report.servable);
    Ok(name_model(format, blob).filter(|_| good).map(|(root, _)| root))
}

/// What the validator of a format says about a blob, from the database if it was asked before.
pub(crate) async fn report(hub: &Hub, blob: Blob, format: ModelFormat) -> Answer<Report> {
    if let Some(report) = known(hub, &blob, format).await? {
        return Ok(report);
    }
    let sha256 = blob.sha256;
    let mut need = validate::first_look(format, blob.size);
    let report = loop {
        // One large file at a time, so that memory stays bounded.
        let _alone = if need > LARGE {
            hub.inspecting.acquire().await.ok()
        } else {
            None
        };
        let front = ingest::load(hub, sha256, need).await?;
        let seen = front.len() as u64;
        let look = hub
            .blocking(move || Ok(validate::look(format, &front, blob.size)))
            .await?;
        match look {
            Look::Done(report) => break report,
            Look::More(more) if more > seen => need = more,
            // The blob is shorter than recorded: its file was damaged.
            Look::More(_) => {
                return Err(crate::error::ApiError::internal(
                    "a stored blob is shorter than recorded",
                ));
            }
        }
    };
    let text = serde_json::to_string(&report).map_err(crate::error::ApiError::internal)?;
    hub.db
        .write(move |tx| Ok::<_, crate::error::ApiError>(blobs::set_check(tx, &sha256, format.report_key(), &text)?))
        .await?;
    Ok(report)
}

/// Most folders of a revision whose settings are read.
const FOLDERS: usize = 16;

/// A model of a revision: one file of a data format.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) path: String,
    pub(crate) blob: Blob,
    pub(crate) report: Report,
    /// The network's name of it, and what that name is the hash of; only for formats that the network runs.
    pub(crate) named: Option<(ModelRoot, Manifest)>,
}

impl Model {
    /// Every name of it, the newest version first: any of them may be the one that is registered.
    pub(crate) fn names(&self) -> Vec<(ModelRoot, Manifest)> {
        self.named.iter().flat_map(|(_, manifest)| names(manifest)).collect()
    }
}

/// A manifest and its older versions with their roots.
pub(crate) fn names(manifest: &Manifest) -> Vec<(ModelRoot, Manifest)> {
    manifest
        .versions()
        .filter_map(|manifest| Some((manifest.root().ok()?, manifest)))
        .collect()
}

/// The newest manifest and root of a one-file model. They are those of the same file anywhere: independent of its name here.
pub(crate) fn name_model(format: ModelFormat, blob: &Blob) -> Option<(ModelRoot, Manifest)> {
    let format = format.root_format()?;
    let entry = FileEntry {
        path: format.canonical_path().to_owned(),
        size: blob.size,
        sha256: blob.sha256.into(),
        blake3: Some(blob.blake3.into()),
        git_sha1: Some(blob.git.into()),
    };
    let manifest = Manifest::new(ManifestVersion::NEWEST, format, format.canonical_path(), vec![entry]).ok()?;
    Some((manifest.root().ok()?, manifest))
}

/// What the files beside the models of a folder say.
async fn settings(hub: &Hub, files: &Files, folder: &str) -> Answer<Settings> {
    let load = async |name: &str| {
        let file = files.get(&format!("{folder}{name}"));
        match file.filter(|file| file.blob.size <= validate::SETTINGS_LIMIT) {
            Some(file) => ingest::load(hub, file.blob.sha256, validate::SETTINGS_LIMIT).await,
            None => Ok(Vec::new()),
        }
    };
    let (config, tokenizer) = (load("config.json").await?, load("tokenizer_config.json").await?);
    let template = load("chat_template.jinja").await?;
    hub.blocking(move || Ok(Settings::read(&config, &tokenizer, &template)))
        .await
}

/// Adds what the settings beside models say to what is shown of them. Headers of safetensors say nothing of contexts and chats:
/// the first such model of a folder gets it; the others are parts of it. A file that cannot be read says nothing.
pub(crate) async fn add_settings(hub: &Hub, files: &Files, models: &mut [Model]) {
    let mut folders = BTreeSet::new();
    for model in models {
        if let (ModelFormat::Safetensors, Some(panel)) = (model.report.format, model.report.panel.as_object_mut()) {
            let end = model.path.rfind('/').map_or(0, |at| at + 1);
            let folder = model.path.get(..end).unwrap_or_default();
            if folders.len() < FOLDERS && folders.insert(folder.to_owned()) {
                match settings(hub, files, folder).await {
                    Ok(settings) => settings.add_to(panel),
                    Err(error) => tracing::warn!(?error, folder, "the settings of a model cannot be read"),
                }
            }
        }
    }
}

/// All model files among `files`, at most `limit`, each with its report.
pub(crate) async fn models(hub: &Hub, files: &Files, limit: usize) -> Answer<Vec<Model>> {
    let mut found = Vec::new();
    for (path, file) in files {
        let FileKind::Model(format) = validate::kind_of(path) else {
            continue;
        };
        if found.len() == limit {
            break;
        }
        let report = report(hub, file.blob, format).await?;
        found.push(Model {
            path: path.clone(),
            blob: file.blob,
            named: if report.servable {
                name_model(format, &file.blob)
            } else {
                None
            },
            report,
        });
    }
    Ok(found)
}

/// The card of a revision.
pub(crate) async fn card_text(hub: &Hub, files: &Files) -> Answer<String> {
    let Some(file) = files
        .get("README.md")
        .filter(|file| file.blob.size <= card::CARD_LIMIT as u64)
    else {
        return Ok(String::new());
    };
    let bytes = ingest::load(hub, file.blob.sha256, card::CARD_LIMIT as u64).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What lists show of a revision. Metadata that cannot be read counts as none: a card never blocks a commit.
pub(crate) async fn summarise(hub: &Arc<Hub>, files: &Files) -> Answer<Summary> {
    let text = card_text(hub, files).await?;
    let metadata = card::split(&text)
        .0
        .and_then(|yaml| card::read_yaml(yaml).ok())
        .unwrap_or_default();
    let mut formats = Vec::new();
    for model in models(hub, files, 1_000).await? {
        if model.report.servable && !formats.contains(&model.report.format.as_str()) {
            formats.push(model.report.format.as_str());
        }
    }
    Ok(card::summary(&metadata, &formats))
}
