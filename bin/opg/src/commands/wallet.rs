//! `opg wallet` and `opg faucet`.

use std::{path::PathBuf, process::ExitCode};

use alloy_primitives::U256;
use opg_client::{Asset, Client, Network, Purse, Wallet};
use opg_primitives::{ids::NodeId, money::Amount};
use serde_json::json;

use super::{client, staking::percent, wallet};
use crate::{
    args::{FaucetArgs, WalletCommand},
    failure::Failure,
    output::{Output, facts},
};

/// Runs a wallet command.
pub(crate) async fn run(command: WalletCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        WalletCommand::New { out } => new(out, output)?,
        WalletCommand::Show { key, network } => {
            let network = Network::discover(network.dir.as_deref()).ok();
            let address = wallet(&key, network.as_ref())?.address();
            output.result(&json!({ "address": address }), || address.to_string())?;
        }
        WalletCommand::Balance { address, key, network } => {
            let client = client(&network)?;
            let address = match address {
                Some(address) => address,
                None => wallet(&key, Some(client.network()))?.address(),
            };
            balance(&client, address, output).await?;
        }
        WalletCommand::Tier { address, key, network } => {
            let client = client(&network)?;
            let address = match address {
                Some(address) => address,
                None => wallet(&key, Some(client.network()))?.address(),
            };
            let tier = client.tier(address).await?;
            output.result(&tier, || {
                facts([
                    ("account", address.to_string()),
                    ("OPG held and staked", tier.weight.to_string()),
                    ("tier", format!("{}, from {} OPG on", tier.index, tier.threshold)),
                    ("requests a minute", tier.requests_per_minute.to_string()),
                    ("bytes of a request", tier.max_request_bytes.to_string()),
                    ("discount", percent(tier.discount_bps)),
                ])
            })?;
        }
        WalletCommand::Limits {
            per_call,
            per_day,
            per_payee,
            purse,
        } => {
            let client = client(&purse.network)?;
            let address = wallet(&purse.key, Some(client.network()))?.address();
            let purse = Purse::of(client.network(), address);
            let mut limits = purse.limits()?;
            if per_call.is_some() || per_day.is_some() || per_payee.is_some() {
                limits.per_call = per_call.map_or(limits.per_call, |limit| limit.0);
                limits.per_day = per_day.map_or(limits.per_day, |limit| limit.0);
                limits.per_payee_day = per_payee.map_or(limits.per_payee_day, |limit| limit.0);
                purse.set_limits(limits.clone())?;
            }
            let shown = |limit: Option<Amount>| limit.map_or("none".to_owned(), |limit| format!("{limit} OPG"));
            output.result(&json!({ "address": address, "limits": limits }), || {
                facts([
                    ("one call", shown(limits.per_call)),
                    ("24 hours", shown(limits.per_day)),
                    ("one node, 24 hours", shown(limits.per_payee_day)),
                ])
            })?;
        }
        WalletCommand::Permit2 { revoke, key, network } => {
            let client = client(&network)?;
            let wallet = wallet(&key, Some(client.network()))?;
            let value = if revoke { U256::ZERO } else { U256::MAX };
            let spinner = output.spinner("waiting for the block");
            let sent = client.allow_permit2(&wallet, value).await;
            spinner.finish_and_clear();
            let sent = sent?;
            output.result(
                &json!({ "address": wallet.address(), "permit2": !revoke, "transaction": sent }),
                || {
                    let may = if revoke { "may not move" } else { "may move" };
                    format!(
                        "Permit2 {may} OPG of {} by its signatures, since block {}\ntransaction {}",
                        wallet.address(),
                        sent.block,
                        sent.hash
                    )
                },
            )?;
        }
        WalletCommand::Send {
            to,
            amount,
            native,
            key,
            network,
        } => {
            let client = client(&network)?;
            let wallet = wallet(&key, Some(client.network()))?;
            let asset = if native { Asset::Native } else { Asset::Opg };
            let spinner = output.spinner("waiting for the block");
            let sent = client.send(&wallet, to, amount, asset).await;
            spinner.finish_and_clear();
            let sent = sent?;
            output.result(
                &json!({ "from": wallet.address(), "to": to, "amount": amount, "asset": if native { "native" } else { "OPG" }, "transaction": sent }),
                || format!("sent {amount} {} to {to} in block {}\ntransaction {}", if native { "native OPG" } else { "OPG" }, sent.block, sent.hash),
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `opg faucet`.
pub(crate) async fn faucet(args: FaucetArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(&args.network)?;
    let spinner = output.spinner("waiting for the block");
    let sent = client.faucet(args.address, args.amount, args.gas).await;
    spinner.finish_and_clear();
    let sent = sent?;
    output.result(
        &json!({ "to": args.address, "opg": args.amount, "native": args.gas, "transactions": sent }),
        || {
            let block = sent.iter().map(|sent| sent.block).max().unwrap_or_default();
            format!(
                "sent {} OPG and {} native OPG for gas to {} in block {block}",
                args.amount, args.gas, args.address
            )
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

fn new(out: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let path = match out {
        Some(path) => path,
        None => opg_client::user_data_dir()
            .ok_or_else(|| Failure::usage("this user has no data folder; name a file with --out FILE"))?
            .join("wallet.key"),
    };
    let wallet = Wallet::random()?;
    wallet.save(&path)?;
    let address = wallet.address();
    output.result(&json!({ "address": address, "key_file": path }), || {
        format!(
            "{address}\nkey file {} (keep it; use it with --key or OPG_WALLET)",
            path.display()
        )
    })?;
    Ok(())
}

async fn balance(client: &Client, address: alloy_primitives::Address, output: Output) -> Result<(), Failure> {
    let balances = client.balances(address).await?;
    let mut credits = Vec::new();
    for node in &client.network().file.nodes {
        let credit = client.credits(address, NodeId(node.id)).await?;
        if !credit.credited.is_zero() {
            credits.push((node.id, credit));
        }
    }
    let document = json!({
        "address": address,
        "opg": balances.opg,
        "native": balances.native,
        "credits": credits.iter().map(|(node, credit)| json!({
            "node": node, "credited": credit.credited, "withdrawable": credit.withdrawable,
        })).collect::<Vec<_>>(),
    });
    output.result(&document, || {
        let credited = |f: fn(&opg_client::Credits) -> Amount| {
            Amount::sum(credits.iter().map(|(_, credit)| f(credit))).unwrap_or(Amount::MAX)
        };
        let mut rows = vec![
            ("address", address.to_string()),
            ("OPG", balances.opg.to_string()),
            ("native OPG (gas)", balances.native.to_string()),
        ];
        if !credits.is_empty() {
            rows.push(("credits", format!("{} OPG", credited(|c| c.credited))));
            rows.push(("withdrawable now", format!("{} OPG", credited(|c| c.withdrawable))));
        }
        facts(rows)
    })?;
    Ok(())
}
