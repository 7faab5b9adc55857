//! `opg hub`: the model hub as its users see it.

use std::process::ExitCode;

use opg_hub::{client::sign_in, siwe::Scope};
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
    let HubCommand::Token {
        hub,
        scope,
        days,
        chain_id,
        key,
    } = command;
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
