//! `opg hub`: the model hub as its users see it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use opg_hub::{
    backup::{self, BackupError},
    client::sign_in,
    config::HubConfig,
    siwe::Scope,
};
use serde_json::json;

use super::wallet;
use crate::{
    args::{HubCommand, HubScopeArg},
    failure::Failure,
    output::Output,
};

/// Label of a token in the account's list.
const LABEL: &str = "opg hub token";

/// Runs a hub command.
pub(crate) async fn run(command: HubCommand, output: Output) -> Result<ExitCode, Failure> {
    let (hub, scope, days, chain_id, key) = match command {
        HubCommand::Token {
            hub,
            scope,
            days,
            chain_id,
            key,
        } => (hub, scope, days, chain_id, key),
        HubCommand::Backup { config, directory } => return save(&config, directory, output).await,
        HubCommand::Restore { config, directory, .. } => return restore(config.as_deref(), directory, output).await,
    };
    let wallet = wallet(&key, opg_client::Network::discover(None).ok().as_ref())?;
    let scope = match scope {
        HubScopeArg::Read => Scope::Read,
        HubScopeArg::Write => Scope::Write,
    };
    let http = reqwest::Client::new();
    let token = sign_in(&http, &hub, wallet.secret_key(), scope, days, LABEL, chain_id)
        .await
        .map_err(Failure::failed)?;
    let document = json!({
        "token": token.token, "id": token.id, "address": token.address, "scope": token.scope, "expires": token.expires,
    });
    output.result(&document, || token.token.clone())?;
    eprintln!(
        "signs in as {} at {hub} ({}), until {}",
        token.address, token.scope, token.expires
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs work that blocks. What the caller gave wrong is told apart from what failed.
async fn blocking<T, F>(work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, BackupError> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await.map_err(Failure::failed)?;
    done.map_err(|error| match error {
        BackupError::NoHub { .. } | BackupError::NotEmpty { .. } | BackupError::Elsewhere { .. } => {
            Failure::input(error)
        }
        error => Failure::failed(error),
    })
}

async fn save(config: &Path, directory: PathBuf, output: Output) -> Result<ExitCode, Failure> {
    let config = HubConfig::load(config).map_err(Failure::input)?;
    let shown = directory.clone();
    let done = blocking(move || backup::backup(&config, &directory)).await?;
    output.result(&done, || {
        let summary = &done.summary;
        format!(
            "{} repositories, {} blobs of {} bytes, {} of them copied now, as of {}, in {}",
            summary.repositories,
            summary.blobs,
            summary.bytes,
            done.copied,
            summary.created,
            shown.display()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn restore(config: Option<&Path>, directory: PathBuf, output: Output) -> Result<ExitCode, Failure> {
    let Some(config) = config else {
        let summary = blocking(move || backup::verify(&directory)).await?;
        output.result(&summary, || {
            format!(
                "sound: {} repositories, {} blobs of {} bytes, as of {}",
                summary.repositories, summary.blobs, summary.bytes, summary.created
            )
        })?;
        return Ok(ExitCode::SUCCESS);
    };
    let config = HubConfig::load(config).map_err(Failure::input)?;
    let data = config.data_dir.clone();
    let done = blocking(move || backup::restore(&config, &directory)).await?;
    output.result(&done, || {
        format!(
            "{} repositories and {} blobs, as of {}, are in {}",
            done.summary.repositories,
            done.summary.blobs,
            done.summary.created,
            data.display()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
