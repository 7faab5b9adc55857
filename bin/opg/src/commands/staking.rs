//! `opg validators`, `stake`, `delegate`, `unstake` and `claim`.

use std::process::ExitCode;

use alloy_primitives::Address;
use opg_client::{Client, Positions, Sent, Validator, Wallet};
use opg_primitives::money::Amount;
use serde_json::json;

use super::{client, wallet};
use crate::{
    args::{ClaimArgs, DelegateArgs, PurseArgs, StakeArgs, UnstakeArgs, ValidatorsArgs},
    failure::Failure,
    output::{Output, facts, table},
};

/// `opg validators`.
pub(crate) async fn validators(args: ValidatorsArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(&args.network)?;
    let state = if args.all {
        client.staking_with_former().await?
    } else {
        client.staking().await?
    };
    let positions = match args.account {
        Some(account) => Some((account, client.positions(account).await?, client.block_time().await?)),
        None => None,
    };
    let mut document = json!(state);
    if let Some((account, positions, _)) = &positions {
        document["account"] = json!(account);
        document["positions"] = json!(positions.positions);
        document["unbonding"] = json!(positions.unbonding);
    }
    output.result(&document, || {
        let mut rows = table(["validator", "stake", "own", "commission", "state"]);
        for validator in &state.validators {
            rows.add_row([
                validator.operator.to_string(),
                format!("{} OPG", validator.stake),
                format!("{} OPG", validator.self_stake),
                percent(validator.commission_bps),
                word(validator).to_owned(),
            ]);
        }
        let head = facts([
            ("epoch", state.epoch.to_string()),
            ("staked", format!("{} OPG", state.total_stake)),
            ("least own stake", format!("{} OPG", state.min_self_bond)),
            ("unbonding", duration(state.unbonding_seconds)),
        ]);
        let mut text = format!("{head}\n{rows}\n");
        if let Some((account, positions, now)) = &positions {
            text += &format!("\n{account}\n{}", describe(positions, *now));
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `opg stake`: behind the wallet's own validator.
pub(crate) async fn stake(args: StakeArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.purse)?;
    let operator = wallet.address();
    if client.validator(operator).await?.is_none() {
        return Err(Failure::usage(format!(
            "{operator} is no validator; `opg delegate VALIDATOR {}` stakes behind somebody else's, `opg validators` lists them",
            args.amount
        )));
    }
    lock(&client, &wallet, operator, args.amount, args.dry_run, output).await
}

/// `opg delegate`: behind a validator of somebody else.
pub(crate) async fn delegate(args: DelegateArgs, output: Output) -> Result<ExitCode, Failure> {
    let stake = args.stake;
    let (client, wallet) = account(&stake.purse)?;
    lock(&client, &wallet, args.validator, stake.amount, stake.dry_run, output).await
}

async fn lock(
    client: &Client,
    wallet: &Wallet,
    operator: Address,
    value: Amount,
    dry_run: bool,
    output: Output,
) -> Result<ExitCode, Failure> {
    if value.is_zero() {
        return Err(Failure::usage("the amount must not be zero"));
    }
    let Some(validator) = client.validator(operator).await? else {
        return Err(Failure::usage(format!(
            "{operator} is no validator; `opg validators` lists them"
        )));
    };
    if validator.exited || validator.tombstoned || validator.open_cases != 0 {
        return Err(Failure::usage(format!(
            "{operator} takes no stake: {}",
            word(&validator)
        )));
    }
    let unbonding = client.staking().await?.unbonding_seconds;
    let said = format!(
        "locks {value} OPG behind validator {operator}: it earns with it, less {} commission, is slashed with it, and takes {} to come back after `opg unstake`",
        percent(validator.commission_bps),
        duration(unbonding)
    );
    let mut document = json!({
        "account": wallet.address(), "validator": operator, "amount": value, "unbonding_seconds": unbonding, "dry_run": dry_run,
    });
    if dry_run {
        output.result(&document, || format!("{said}\nnothing was sent: this was a dry run"))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Said before anything is locked.
    eprintln!("{said}");
    let spinner = output.spinner("waiting for the block");
    let sent = client.stake(wallet, operator, value).await;
    spinner.finish_and_clear();
    let sent = sent?;
    document["transaction"] = json!(sent);
    output.result(&document, || {
        format!("staked {value} OPG behind {operator} {}", at(&sent))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `opg unstake`.
pub(crate) async fn unstake(args: UnstakeArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.purse)?;
    let operator = args.validator;
    let positions = client.positions(wallet.address()).await?;
    let held = positions
        .positions
        .iter()
        .find(|position| position.validator == operator)
        .map_or(Amount::ZERO, |position| position.stake);
    // clap lets exactly one of the two through.
    let value = args.amount.unwrap_or(held);
    if value.is_zero() || value > held {
        return Err(Failure::usage(format!(
            "{} has {held} OPG behind {operator}; see `opg validators --account {}`",
            wallet.address(),
            wallet.address()
        )));
    }
    let seconds = client.staking().await?.unbonding_seconds;
    let said = format!(
        "takes {value} OPG from behind {operator}: it earns nothing from now on, can still be slashed for what the validator did before, and can be collected with `opg claim` in {}",
        duration(seconds)
    );
    let mut document = json!({
        "account": wallet.address(), "validator": operator, "amount": value, "unbonding_seconds": seconds, "dry_run": args.dry_run,
    });
    if args.dry_run {
        output.result(&document, || format!("{said}\nnothing was sent: this was a dry run"))?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{said}");
    let spinner = output.spinner("waiting for the block");
    let sent = client.unstake(&wallet, operator, (!args.all).then_some(value)).await;
    spinner.finish_and_clear();
    let sent = sent?;
    document["transaction"] = json!(sent);
    output.result(&document, || format!("{value} OPG unbond {}", at(&sent)))?;
    Ok(ExitCode::SUCCESS)
}

/// `opg claim`: all rewards, and all stake that has unbonded.
pub(crate) async fn claim(args: ClaimArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.purse)?;
    let positions = client.positions(wallet.address()).await?;
    let now = client.block_time().await?;
    let rewards: Vec<_> = positions.positions.iter().filter(|p| !p.rewards.is_zero()).collect();
    let ready: Vec<_> = positions.unbonding.iter().filter(|u| u.ready_at <= now).collect();
    let mut sent = Vec::new();
    if !args.dry_run {
        let spinner = output.spinner("waiting for the block");
        for position in &rewards {
            sent.push(client.claim_rewards(&wallet, position.validator).await?);
        }
        for unbonding in &ready {
            sent.push(client.withdraw_unbonded(&wallet, unbonding.id).await?);
        }
        spinner.finish_and_clear();
    }
    let sum = |amounts: &mut dyn Iterator<Item = Amount>| Amount::sum(amounts).unwrap_or(Amount::MAX);
    let (earned, unbonded) = (
        sum(&mut rewards.iter().map(|p| p.rewards)),
        sum(&mut ready.iter().map(|u| u.amount)),
    );
    let document = json!({
        "account": wallet.address(), "rewards": earned, "unbonded": unbonded, "dry_run": args.dry_run, "transactions": sent,
        "positions": positions.positions, "unbonding": positions.unbonding,
    });
    output.result(&document, || {
        let done = match (args.dry_run, rewards.is_empty() && ready.is_empty()) {
            (_, true) => "nothing to collect".to_owned(),
            (true, false) => format!("{earned} OPG of rewards and {unbonded} OPG unbonded can be collected; nothing was sent: this was a dry run"),
            (false, false) => format!("collected {earned} OPG of rewards and {unbonded} OPG unbonded"),
        };
        format!("{done}\n{}", describe(&positions, now))
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn account(purse: &PurseArgs) -> Result<(Client, Wallet), Failure> {
    let client = client(&purse.network)?;
    let wallet = wallet(&purse.key, Some(client.network()))?;
    Ok((client, wallet))
}

pub(crate) fn at(sent: &Sent) -> String {
    format!("in block {}\ntransaction {}", sent.block, sent.hash)
}

fn describe(positions: &Positions, now: u64) -> String {
    let staked = positions.positions.iter().map(|position| {
        format!(
            "{} OPG behind {}, {} OPG of rewards to claim\n",
            position.stake, position.validator, position.rewards
        )
    });
    let leaving = positions.unbonding.iter().map(|unbonding| {
        let when = match unbonding.ready_at.checked_sub(now) {
            None | Some(0) => "ready for `opg claim`".to_owned(),
            Some(left) => format!("ready in {}", duration(left)),
        };
        format!("{} OPG from behind {}, {when}\n", unbonding.amount, unbonding.validator)
    });
    staked.chain(leaving).collect()
}

/// What a validator is, in one word or a few.
fn word(validator: &Validator) -> &'static str {
    if validator.tombstoned {
        "tombstoned"
    } else if validator.exited {
        "left"
    } else if validator.jailed_until.is_some() {
        "in jail"
    } else if validator.open_cases != 0 {
        "slashing case open"
    } else if validator.seated {
        "seated"
    } else if validator.eligible {
        "candidate"
    } else {
        "own stake too small"
    }
}

/// Basis points as per cent.
pub(super) fn percent(bps: u16) -> String {
    match bps % 100 {
        0 => format!("{} %", bps / 100),
        rest => format!("{}.{rest:02} %", bps / 100),
    }
}

/// Seconds in the largest unit that says them well.
pub(crate) fn duration(seconds: u64) -> String {
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{:.0} min", seconds as f64 / 60.0),
        7_200..172_800 => format!("{:.1} hours", seconds as f64 / HOUR as f64),
        _ => format!("{:.1} days", seconds as f64 / DAY as f64),
    }
}
