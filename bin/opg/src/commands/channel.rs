//! `opg channel`.

use std::process::ExitCode;

use alloy_primitives::B256;
use opg_client::{Channel, Client, Purse, Wallet};
use opg_primitives::money::Amount;
use serde_json::{Value, json};

use super::{client, wallet};
use crate::{
    args::{ChannelCommand, ChannelId, PurseArgs},
    failure::Failure,
    output::{Output, facts},
};

/// A payer's account, its client and its purse.
struct Payer {
    client: Client,
    wallet: Wallet,
    purse: Purse,
}

impl Payer {
    fn of(args: &PurseArgs) -> Result<Self, Failure> {
        let client = client(&args.network)?;
        let wallet = wallet(&args.key, Some(client.network()))?;
        let purse = Purse::of(client.network(), wallet.address());
        Ok(Self { client, wallet, purse })
    }

    /// The channel that an id, or the beginning of one, means.
    fn channel(&self, wanted: &ChannelId) -> Result<Channel, Failure> {
        let channels = self.purse.channels()?;
        let mut found = channels
            .into_iter()
            .filter(|channel| format!("{:x}", channel.id()).starts_with(&wanted.0));
        match (found.next(), found.next()) {
            (Some(channel), None) => Ok(channel),
            (None, _) => Err(Failure::usage(format!(
                "no channel {} in the purse of {}; see `opg channel ls`",
                wanted.0,
                self.wallet.address()
            ))),
            (Some(_), Some(_)) => Err(Failure::usage(format!(
                "{} is the beginning of several channels",
                wanted.0
            ))),
        }
    }
}

/// Runs a channel command.
pub(crate) async fn run(command: ChannelCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        ChannelCommand::Open {
            model,
            deposit,
            dry_run,
            purse,
        } => open(&Payer::of(&purse)?, &model, deposit, dry_run, output).await?,
        ChannelCommand::TopUp { channel, amount, purse } => {
            let payer = Payer::of(&purse)?;
            let id = payer.channel(&channel)?.id();
            let spinner = output.spinner("the node carries the deposit to the chain");
            let sent = payer.client.deposit(id, amount, &payer.wallet, &payer.purse).await;
            spinner.finish_and_clear();
            let transaction = sent?;
            output.result(
                &json!({ "channel_id": id, "deposited": amount, "transaction": transaction }),
                || format!("deposited {amount} OPG into channel {id}\ntransaction {transaction}"),
            )?;
        }
        ChannelCommand::Close {
            channel,
            withdraw,
            finish,
            purse,
        } => close(&Payer::of(&purse)?, &channel, withdraw, finish, output).await?,
        ChannelCommand::Ls { purse } => list(&Payer::of(&purse)?, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(payer: &Payer, model: &str, deposit: Amount, dry_run: bool, output: Output) -> Result<(), Failure> {
    let offer = payer.client.channel_offer(model).await?;
    if deposit < offer.min_deposit {
        return Err(Failure::usage(format!(
            "--deposit {deposit}: this node carries {} OPG or more to the chain",
            offer.min_deposit
        )));
    }
    let hours = offer.withdraw_delay as f64 / 3_600.0;
    let said = format!(
        "locks {deposit} OPG for node {}: it can take what its receipts charge; what is left comes back with `opg channel close`, or without the node {hours:.2} hours after `opg channel close --withdraw`",
        offer.node.id
    );
    if dry_run {
        output.result(
            &json!({ "dry_run": true, "node": offer.node.id, "deposit": deposit, "withdraw_delay": offer.withdraw_delay, "min_deposit": offer.min_deposit }),
            || format!("{said}\nnothing was signed: this was a dry run"),
        )?;
        return Ok(());
    }
    // Said before anything is locked.
    eprintln!("{said}");
    let spinner = output.spinner("the node carries the deposit to the chain");
    let opened = payer
        .client
        .open_channel(&offer, deposit, &payer.wallet, &payer.purse)
        .await;
    spinner.finish_and_clear();
    let channel = opened?;
    output.result(&describe(&channel), || {
        format!(
            "channel {} to node {} holds {} OPG\ncalls of this node's models are paid out of it from now on (--pay exact pays each call apart)",
            channel.id(),
            channel.node,
            channel.wallet.balance
        )
    })?;
    Ok(())
}

async fn close(payer: &Payer, wanted: &ChannelId, withdraw: bool, finish: bool, output: Output) -> Result<(), Failure> {
    let channel = payer.channel(wanted)?;
    let id = channel.id();
    let spinner = output.spinner("waiting for the block");
    if withdraw || finish {
        let sent = if withdraw {
            payer.client.start_withdrawal(&channel, &payer.wallet).await
        } else {
            payer.client.finish_withdrawal(&channel, &payer.wallet).await
        };
        spinner.finish_and_clear();
        let sent = sent?;
        if finish {
            payer.client.forget_channel(id, &payer.purse)?;
        }
        let delay = channel.wallet.config.withdraw_delay;
        return Ok(output.result(
            &json!({ "channel_id": id, "transaction": sent, "withdraw_delay": delay, "finished": finish }),
            || match finish {
                true => format!("channel {id}: what was not claimed is back\ntransaction {}", sent.hash),
                false => format!(
                    "channel {id}: withdrawal announced; run `opg channel close {id} --finish` in {delay} seconds\ntransaction {}",
                    sent.hash
                ),
            },
        )?);
    }
    let closed = payer.client.close_channel(id, &payer.wallet, &payer.purse).await;
    spinner.finish_and_clear();
    let (transaction, amount) = closed?;
    output.result(
        &json!({ "channel_id": id, "refunded": amount, "transaction": transaction }),
        || format!("channel {id}: {amount} OPG are back\ntransaction {transaction}"),
    )?;
    Ok(())
}

fn list(payer: &Payer, output: Output) -> Result<(), Failure> {
    let channels = payer.purse.channels()?;
    let document: Vec<Value> = channels.iter().map(describe).collect();
    output.result(
        &json!({ "payer": payer.wallet.address(), "channels": document }),
        || {
            if channels.is_empty() {
                return format!(
                    "{} has no channels; open one with `opg channel open MODEL --deposit OPG`",
                    payer.wallet.address()
                );
            }
            let rows = |channel: &Channel| {
                facts([
                    ("channel", channel.id().to_string()),
                    ("node", channel.node.to_string()),
                    ("deposited", format!("{} OPG", channel.wallet.balance)),
                    ("charged", format!("{} OPG", channel.wallet.charged)),
                    ("available", format!("{} OPG", channel.wallet.available())),
                    ("calls in flight", channel.wallet.in_flight.len().to_string()),
                ])
            };
            channels.iter().map(rows).collect::<Vec<_>>().join("\n")
        },
    )?;
    Ok(())
}

fn describe(channel: &Channel) -> Value {
    let wallet = &channel.wallet;
    let id: B256 = channel.id();
    json!({
        "channel_id": id,
        "node": channel.node,
        "receiver": wallet.config.receiver,
        "deposited": wallet.balance,
        "charged": wallet.charged,
        "signed": wallet.signed,
        "available": wallet.available(),
        "in_flight": wallet.in_flight.len(),
        "withdraw_delay": wallet.config.withdraw_delay,
        "opened_at": channel.opened_at,
    })
}
