//! `opg home`, `checkpoint` and `payout`: the chain where OPG lives.

use std::{path::Path, process::ExitCode};

use opg_client::{HomeError, Relayed};
use opg_contracts::payouts::{Payout, PayoutList};
use opg_devnet::RunningHome;
use opg_receipt::{ReceiptFile, file::MAX_FILE_BYTES};
use serde_json::json;

use super::{client, read_file, stop_signal, wallet};
use crate::{
    args::PurseArgs,
    failure::Failure,
    home_args::{CheckpointCommand, HomeCommand, PayoutCommand},
    output::{Output, facts},
};

/// Largest list of payouts that is read.
const MAX_LIST: u64 = 256 << 20;

/// `opg home up`.
pub(crate) async fn run(command: HomeCommand, output: Output) -> Result<ExitCode, Failure> {
    let HomeCommand::Up { dir, port_base } = command;
    let spinner = output.spinner("starting the chain");
    let started = tokio::select! {
        started = RunningHome::up(&dir, port_base) => started,
        () = stop_signal() => return Ok(ExitCode::SUCCESS),
    };
    spinner.finish_and_clear();
    let mut home = started?;
    let document = json!({ "event": "ready", "dir": home.dir(), "rpc": home.rpc(), "chain_id": opg_devnet::HOME_CHAIN_ID, "deployer": home.deployer() });
    if output.json {
        output.say_json(&document)?;
    } else {
        output.say(&format!(
            "chain      {} (chain id {}, for development)\nJSON-RPC   {}\ndeployer   {} (key in {})",
            home.dir().display(),
            opg_devnet::HOME_CHAIN_ID,
            home.rpc(),
            home.deployer().address,
            home.deployer().key_file.display(),
        ));
    }
    output.say("home chain ready");
    tokio::select! {
        () = stop_signal() => {}
        error = home.failed() => {
            // The first failure is what the user must see.
            let _ = home.shutdown().await;
            return Err(error.into());
        }
    }
    home.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

/// `opg checkpoint`.
pub(crate) async fn checkpoint(command: CheckpointCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        CheckpointCommand::Show { network } => {
            let client = client(&network)?;
            let home = client.home().await?;
            let state = home.checkpoint().await?;
            output.result(&json!({ "home": home.entry(), "checkpoint": state }), || {
                describe(&state)
            })?;
        }
        CheckpointCommand::Relay { purse } => {
            let (client, wallet) = account(&purse)?;
            let home = client.home().await?;
            let mut done = Vec::new();
            let spinner = output.spinner("relaying");
            let state = home.relay(&wallet, |relayed| done.push(relayed.clone())).await;
            spinner.finish_and_clear();
            let state = state?;
            output.result(&json!({ "relayed": done, "checkpoint": state }), || {
                format!("{}{}", lines(&done), describe(&state))
            })?;
        }
        CheckpointCommand::Prove { file, purse } => {
            let (client, wallet) = account(&purse)?;
            let home = client.home().await?;
            let bytes = read_file(&file, MAX_FILE_BYTES as u64)?;
            let receipt = ReceiptFile::parse_strict(&bytes)
                .map_err(|error| Failure::Failed(eyre::eyre!("{}: {error}", file.display())))?;
            let mut done = Vec::new();
            let spinner = output.spinner("relaying");
            let proved = home
                .prove(&wallet, &receipt, |relayed| done.push(relayed.clone()))
                .await;
            spinner.finish_and_clear();
            let (height, included) = proved?;
            let document = json!({ "relayed": done, "certified_height": height, "included": included });
            output.result(&document, || {
                let word = if included { "is" } else { "is NOT" };
                format!(
                    "{}the receipt {word} in the network's ledger, says {} on chain {} under block {height}",
                    lines(&done),
                    home.entry().contracts.checkpoint,
                    home.entry().chain_id
                )
            })?;
            if !included {
                return Ok(ExitCode::from(1));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `opg payout`.
pub(crate) async fn payout(command: PayoutCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        PayoutCommand::Show { network } => {
            let client = client(&network)?;
            let roots = client.home().await?.payout_roots().await?;
            output.result(&roots, || {
                facts([
                    ("network", format!("{} (number {})", roots.network, roots.number)),
                    ("vault", format!("{} (of block {})", roots.vault, roots.vault_height)),
                ])
            })?;
        }
        PayoutCommand::Say { list, dry_run, purse } => {
            let (client, wallet) = account(&purse)?;
            let list = read_list(&list)?;
            let (root, entries) = (list.root(), list.entries().len());
            let mut document = json!({ "root": root, "entries": entries, "dry_run": dry_run });
            if dry_run {
                output.result(&document, || {
                    format!("{entries} payouts, root {root}\nnothing was sent: this was a dry run")
                })?;
                return Ok(ExitCode::SUCCESS);
            }
            let (number, sent) = client.home().await?.say_payouts(&wallet, &list).await?;
            document["number"] = json!(number);
            document["transaction"] = json!(sent);
            output.result(&document, || {
                format!("said payout root {number}: {root}, in block {}", sent.block)
            })?;
        }
        PayoutCommand::Publish { purse } => {
            let (client, wallet) = account(&purse)?;
            let home = client.home().await?;
            let mut done = Vec::new();
            let spinner = output.spinner("relaying");
            let published = home
                .publish_payouts(&wallet, |relayed| done.push(relayed.clone()))
                .await;
            spinner.finish_and_clear();
            let (root, sent) = published?;
            let document = json!({ "relayed": done, "root": root, "transaction": sent });
            output.result(&document, || match &sent {
                Some(sent) => format!("{}the vault pays from {root} since block {}", lines(&done), sent.block),
                None => format!("the vault pays from {root} already"),
            })?;
        }
        PayoutCommand::Claim {
            list,
            payee,
            node,
            purse,
        } => {
            let (client, wallet) = account(&purse)?;
            let home = client.home().await?;
            let list = read_list(&list)?;
            let (paid, sent) = home.claim_payout(&wallet, &list, payee, node).await?;
            let document = json!({ "payee": payee, "node": node, "paid": paid, "transaction": sent });
            output.result(&document, || {
                format!("paid {paid} OPG to {payee} from node {node}, in block {}", sent.block)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn account(purse: &PurseArgs) -> Result<(opg_client::Client, opg_client::Wallet), Failure> {
    let client = client(&purse.network)?;
    let wallet = wallet(&purse.key, Some(client.network()))?;
    Ok((client, wallet))
}

fn read_list(path: &Path) -> Result<PayoutList, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let entries: Vec<Payout> = serde_json::from_slice(&read_file(path, MAX_LIST)?).map_err(|error| bad(&error))?;
    PayoutList::new(entries).map_err(|error| bad(&error))
}

fn describe(state: &opg_client::CheckpointState) -> String {
    facts([
        ("epoch", format!("{} ({} seats)", state.epoch, state.seats)),
        ("block", format!("{} {}", state.height, state.block_hash)),
        ("state root", state.state_root.to_string()),
        ("time", state.timestamp.to_string()),
    ])
}

fn lines(done: &[Relayed]) -> String {
    let line = |relayed: &Relayed| match relayed {
        Relayed::Certificate {
            height,
            epoch,
            transaction,
        } => format!(
            "block {height} of epoch {epoch} certified, {} gas\n",
            transaction.gas_used
        ),
        Relayed::Handover {
            epoch,
            seats,
            transaction,
        } => format!(
            "handed over to epoch {epoch} ({seats} seats), {} gas\n",
            transaction.gas_used
        ),
    };
    done.iter().map(line).collect()
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Client(error) => error.into(),
            HomeError::NoHome | HomeError::NoPayout { .. } | HomeError::NotFinal => Self::input(error),
            error => Self::failed(error),
        }
    }
}
