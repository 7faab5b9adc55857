//! The network's model hub: its demo models, uploaded as a creator would.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use opg_client::Wallet;
use opg_hub::{
    ModelHub,
    client::{ClientError, Folder, FolderError, Session},
    names::RepoName,
    siwe::Scope,
};
use serde_json::Value;

use crate::{DevnetError, assets::DEMO_MODELS, genesis::CHAIN_ID, layout::Layout, lock::DirLock};

/// Label of the token in the account's list, for as long as the upload takes.
const LABEL: &str = "demo models";

fn failed(error: impl std::fmt::Display) -> DevnetError {
    DevnetError::role("model hub", error)
}

/// Uploads every demo model that the hub does not have, in the creator's name.
pub(crate) async fn stock(hub: &ModelHub, dir: &Path) -> Result<(), DevnetError> {
    let http = reqwest::Client::new();
    let url = format!("http://{}", hub.address());
    let mut missing = Vec::new();
    for model in DEMO_MODELS {
        let root = model.root().map_err(failed)?;
        let asked = http
            .get(format!("{url}/api/opg/models/{}/root", model.name))
            .send()
            .await;
        let known: Value = match asked {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(error) => return Err(failed(error)),
        };
        if known["root"] != root.to_string() {
            missing.push(model);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    // Signing in needs the URL that the hub calls itself.
    let creator = Wallet::load(&dir.join("creator.key"))?;
    let session = Session::open(http, hub.url(), creator.secret_key(), Scope::Write, LABEL, CHAIN_ID)
        .await
        .map_err(failed)?;
    let models = dir.join("models");
    for model in missing {
        model
            .write(&models)
            .map_err(|source| DevnetError::io(&model.path(&models), source))?;
        let folder = models.join(model.name);
        let folder = tokio::task::spawn_blocking(move || Folder::read(&folder))
            .await
            .map_err(failed)?
            .map_err(|error: FolderError| failed(error))?;
        let (owner, name) = model.name.split_once('/').unwrap_or(("demo", model.name));
        let name = RepoName::new(owner, name).map_err(failed)?;
        let pushed = session
            .push(&name, &folder, "Demo model")
            .await
            .map_err(|error: ClientError| failed(format_args!("{name}: {error}")))?;
        tracing::debug!(%name, revision = pushed.revision, "demo model is at the hub");
    }
    // A token that is not revoked ends by itself.
    if let Err(error) = session.close().await {
        tracing::warn!(%error, "the token of the upload is not revoked");
    }
    Ok(())
}

/// The same for a network whose roles are processes of their own and do not run yet.
pub(crate) async fn stock_offline(dir: &Path) -> Result<(), DevnetError> {
    let _lock = DirLock::acquire(dir)?;
    let layout = Layout::open_or_create(dir, None, None, None)?;
    let mut config = layout.hub()?;
    // Any free port: nobody but this function talks to it.
    config.listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    (config.public_url, config.chain) = (None, None);
    let hub = ModelHub::start(config).await.map_err(failed)?;
    let stocked = stock(&hub, &layout.dir).await;
    hub.shutdown().await.map_err(failed)?;
    stocked
}
