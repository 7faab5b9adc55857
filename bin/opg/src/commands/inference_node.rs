//! `opg node init-inference`, `register inference`, `bond`, `heartbeat`, `leave` and `withdraw`: an inference node's operator.

use std::process::ExitCode;

use alloy_primitives::{Address, B256};
use opg_client::{Asset, NewNode, NodeStep, Sent};
use opg_devnet::{Devnet, InferenceOptions};
use opg_inference_node::config::{InferenceNodeConfig, NodeKeys};
use opg_primitives::money::Amount;
use serde_json::json;

use super::{
    client,
    closed::node_id_of,
    staking::{account, at, duration},
    validator::act,
};
use crate::{
    args::{InitInferenceArgs, NetworkArgs, OwnNodeArgs, RegisterInferenceArgs},
    failure::Failure,
    output::{Output, facts},
};

/// `opg node init-inference`.
pub(crate) fn init(args: InitInferenceArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(&args.network)?;
    let options = InferenceOptions {
        models: args.models,
        listen: args.listen,
        public_url: args.public_url,
    };
    let joined = Devnet::join_inference(client.network(), &args.out, options)?;
    output.result(&joined, || {
        let (config, key) = (joined.config.display(), joined.operator_key.display());
        format!(
            "inference node {} written to {}; its URL is {}\n\
             operator {}: give it OPG for the bond and native OPG for gas, then\n\
             \x20 opg node register inference --config {config} --key {key}\n\
             \x20 opg node inference --config {config}",
            joined.id,
            joined.dir.display(),
            joined.url,
            joined.operator
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `opg node register inference`.
pub(crate) async fn register(args: RegisterInferenceArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.operator.purse)?;
    let operator = wallet.address();
    let config = InferenceNodeConfig::load(&args.config).map_err(Failure::input)?;
    let keys = NodeKeys::load(&config.keys).map_err(Failure::input)?;
    let chain_id = client.network().file.chain_id;
    if config.chain_id != chain_id {
        return Err(Failure::usage(format!(
            "field `chain_id` of the configuration: expected the network's {chain_id}, got {}",
            config.chain_id
        )));
    }
    if config.operator != operator {
        return Err(Failure::usage(format!(
            "field `operator` of the configuration: expected the wallet {operator}, got {}; name its key with --key",
            config.operator
        )));
    }
    if config.public_url.is_none() && config.listen.port() == 0 {
        return Err(Failure::usage(
            "field `listen` of the configuration: expected a port, got 0; or say where others reach the node in `public_url`",
        ));
    }
    let node = config.node_id();
    let bond = match args.bond {
        Some(bond) => bond,
        None => client.least_node_bond().await?,
    };
    let wanted = NewNode {
        salt: config.salt,
        endpoint: config.url(),
        keyset: keys.keyset(node),
        bond,
    };
    let steps = client.node_steps(operator, &wanted).await?;
    let mut models = Vec::new();
    for model in &config.models {
        models.push(client.model(&model.name).await?);
    }
    let said = if steps.contains(&NodeStep::Register) {
        format!(
            "registers inference node {node} of {operator} at {}: locks {bond} OPG, which are slashed if it forges evidence or answers wrongly on proof, and come back some time after it has left",
            wanted.endpoint
        )
    } else if steps.is_empty() {
        format!("node {node} is registered as its configuration says")
    } else {
        format!(
            "publishes what has changed of node {node}: keys and URL {}",
            wanted.endpoint
        )
    };
    let document = json!({
        "node": node, "operator": operator, "endpoint": wanted.endpoint, "keyset": wanted.keyset.digest(),
        "bond": steps.contains(&NodeStep::Register).then_some(bond), "steps": steps, "dry_run": args.operator.dry_run,
    });
    let send = async {
        let mut sent = client.register_node(&wallet, &wanted).await?;
        let settlement = keys.settlement_address();
        let has = client.balances(settlement).await?.native;
        let missing = args.gas.saturating_sub(has);
        if !missing.is_zero() {
            sent.push(client.send(&wallet, settlement, missing, Asset::Native).await?);
        }
        for model in &models {
            sent.extend(client.ask_reference(&wallet, node, model).await?);
        }
        Ok(sent)
    };
    act(&args.operator, output, said, document, send, |sent| match sent.last() {
        Some(last) => format!("registered {}", at(last)),
        None => "nothing had to be sent".to_owned(),
    })
    .await
}

/// `opg node bond`.
pub(crate) async fn bond(more: Amount, args: OwnNodeArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.operator.purse)?;
    let node = node_id_of(&client, args.node)?;
    let standing = client.own_node(wallet.address(), node).await?;
    let after = standing.bond.saturating_add(more);
    let said = format!("locks {more} OPG more as the bond of node {node}, which is {after} then");
    let document = json!({
        "node": node, "more": more, "bond": after, "needed": standing.needed_bond, "dry_run": args.operator.dry_run,
    });
    let send = client.add_bond(&wallet, node, more);
    act(&args.operator, output, said, document, send, |sent| {
        format!("the bond is {after} OPG {}", last(sent))
    })
    .await
}

/// `opg node leave`.
pub(crate) async fn leave(args: OwnNodeArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.operator.purse)?;
    let node = node_id_of(&client, args.node)?;
    let standing = client.own_node(wallet.address(), node).await?;
    let unbonding = client.network().genesis.parameters.unbonding;
    let said = format!(
        "takes node {node} out of the network for ever: receipts that are not in a block by then are never paid, and its bond of {} OPG can be withdrawn in {}",
        standing.bond,
        duration(unbonding)
    );
    let document = json!({
        "node": node, "bond": standing.bond, "unbonding_seconds": unbonding, "dry_run": args.operator.dry_run,
    });
    let send = async { Ok(vec![client.leave_node(&wallet, node).await?]) };
    act(&args.operator, output, said, document, send, |sent| {
        format!("left {}; `opg node withdraw --bond` takes the bond out", last(sent))
    })
    .await
}

/// `opg node withdraw`.
pub(crate) async fn withdraw(
    payee: Option<Address>,
    bond: bool,
    args: OwnNodeArgs,
    output: Output,
) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.operator.purse)?;
    let node = node_id_of(&client, args.node)?;
    let payee = payee.unwrap_or(wallet.address());
    if args.operator.dry_run {
        let free = match bond {
            true => client.own_bond(payee, node).await?,
            false => client.credits(payee, node).await?.withdrawable,
        };
        let document = json!({ "node": node, "payee": payee, "amount": free, "bond": bond, "dry_run": true });
        output.result(&document, || {
            format!("pays {payee} {free} OPG from node {node}\nnothing was sent: this was a dry run")
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let spinner = output.spinner("waiting for the block");
    let paid = match bond {
        true => client.withdraw_bond(&wallet, node).await.map(Some),
        false => client.withdraw_credits(&wallet, payee, node).await,
    };
    spinner.finish_and_clear();
    let paid = paid?;
    let amount = paid.as_ref().map_or(Amount::ZERO, |(amount, _)| *amount);
    let transaction = paid.as_ref().map(|(_, sent)| sent);
    let document = json!({ "node": node, "payee": payee, "amount": amount, "bond": bond, "transaction": transaction });
    output.result(&document, || match transaction {
        Some(sent) => format!("{payee} has got {amount} OPG {}", at(sent)),
        None => format!("nothing from node {node} is released for {payee} now; `opg status` shows credits that wait"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `opg node heartbeat`.
pub(crate) async fn heartbeat(node: Option<B256>, network: &NetworkArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(network)?;
    let node = node_id_of(&client, node)?;
    let beat = client.heartbeat(node).await?;
    output.result(&beat, || {
        let standing = &beat.standing;
        let list = facts([
            ("node", standing.id.to_string()),
            ("operator", standing.operator.to_string()),
            ("URL", standing.endpoint.clone()),
            (
                "bond",
                format!("{} OPG, needed {}", standing.bond, standing.needed_bond),
            ),
            ("fees of two days", format!("{} OPG", standing.recent_fees)),
            (
                "keyset",
                beat.keyset.map_or_else(|| "-".into(), |digest| digest.to_string()),
            ),
            ("models", beat.models.join(", ")),
        ]);
        match beat.problems.as_slice() {
            [] => format!("{list}\nit answers, and its receipts count"),
            problems => format!("{list}\n{}", problems.join("\n")),
        }
    })?;
    Ok(ExitCode::from(u8::from(!beat.problems.is_empty())))
}

fn last(sent: &[Sent]) -> String {
    sent.last().map(at).unwrap_or_default()
}
