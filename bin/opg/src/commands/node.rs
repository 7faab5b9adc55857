//! `opg node`: one role in its own process.

use std::{path::Path, process::ExitCode};

use opg_full_node::{FullNode, config::FullNodeConfig};
use opg_hub::{ModelHub, config::HubConfig};
use opg_inference_node::{InferenceNode, config::InferenceNodeConfig};
use opg_router::config::RouterConfig;

use serde_json::json;

use super::{closed, inference_node, slashing, stop_signal, validator};
use crate::{
    args::{NodeCommand, RegisterCommand},
    block_on,
    failure::Failure,
    output::Output,
};

/// Runs a role until it is told to stop, or stops by itself.
pub(crate) fn run(command: NodeCommand, output: Output) -> Result<ExitCode, Failure> {
    block_on(async {
        match command {
            NodeCommand::Full(args) => full(&args.config, output).await,
            NodeCommand::Inference(args) => inference(&args.config, output).await,
            NodeCommand::Router(args) => router(&args.config, output).await,
            NodeCommand::Hub(args) => hub(&args.config, output).await,
            NodeCommand::Init(args) => validator::init(args, output),
            NodeCommand::Register(RegisterCommand::Full(args)) => validator::register(args, output).await,
            NodeCommand::InitInference(args) => inference_node::init(args, output),
            NodeCommand::Register(RegisterCommand::Inference(args)) => inference_node::register(args, output).await,
            NodeCommand::Bond { more, node } => inference_node::bond(more, node, output).await,
            NodeCommand::Heartbeat { node, network } => inference_node::heartbeat(node, &network, output).await,
            NodeCommand::Leave { node } => inference_node::leave(node, output).await,
            NodeCommand::Withdraw { payee, bond, node } => inference_node::withdraw(payee, bond, node, output).await,
            NodeCommand::RotateKeys(args) => validator::rotate_keys(args, output).await,
            NodeCommand::Commission { bps, operator } => validator::commission(bps, operator, output).await,
            NodeCommand::Unjail { operator } => validator::unjail(operator, output).await,
            NodeCommand::Exit { operator } => validator::exit(operator, output).await,
            NodeCommand::InjectKey(args) => closed::inject_key(args, output).await,
            NodeCommand::SlashEvidence { command, network } => slashing::run(command, &network, output).await,
            NodeCommand::Ask {
                model,
                price,
                node,
                key,
                network,
            } => closed::ask(&model, &price, node, (&key, &network), output).await,
        }
    })
}

async fn full(path: &Path, output: Output) -> Result<ExitCode, Failure> {
    let config = FullNodeConfig::load(path).map_err(Failure::input)?;
    let node = FullNode::start(config).await.map_err(Failure::failed)?;
    let document = json!({ "event": "ready", "role": "full", "rpc": node.rpc_url() });
    output.result(&document, || format!("full node ready, JSON-RPC at {}", node.rpc_url()))?;
    tokio::select! {
        () = stop_signal() => {}
        ended = node.stopped() => {
            ended.map_err(Failure::failed)?;
            return Err(Failure::Failed(eyre::eyre!("consensus stopped by itself")));
        }
    }
    node.shutdown().await.map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}

async fn inference(path: &Path, output: Output) -> Result<ExitCode, Failure> {
    let config = InferenceNodeConfig::load(path).map_err(Failure::input)?;
    // The node waits for a full node to answer; a stop must not have to.
    let mut node = tokio::select! {
        node = InferenceNode::start(config) => node.map_err(Failure::failed)?,
        () = stop_signal() => return Ok(ExitCode::SUCCESS),
    };
    let document = json!({ "event": "ready", "role": "inference", "id": node.node_id(), "url": node.url() });
    output.result(&document, || format!("inference node ready at {}", node.url()))?;
    tokio::select! {
        () = stop_signal() => {}
        error = node.stopped() => return Err(Failure::failed(error)),
    }
    node.shutdown().await.map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}

async fn router(path: &Path, output: Output) -> Result<ExitCode, Failure> {
    let config = RouterConfig::load(path).map_err(Failure::input)?;
    let stop = stop_signal();
    tokio::pin!(stop);
    let router = tokio::select! {
        biased;
        () = &mut stop => return Ok(ExitCode::SUCCESS),
        router = opg_router::start(config) => router.map_err(Failure::failed)?,
    };
    let document = json!({ "event": "ready", "role": "router", "url": router.url() });
    output.result(&document, || format!("router ready at {}", router.url()))?;
    stop.await;
    router.shutdown().await.map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}

async fn hub(path: &Path, output: Output) -> Result<ExitCode, Failure> {
    let config = HubConfig::load(path).map_err(Failure::input)?;
    // Waits from here on: a signal right after the hub says it is ready ends it in order, too.
    let stop = stop_signal();
    tokio::pin!(stop);
    let hub = tokio::select! {
        biased;
        () = &mut stop => return Ok(ExitCode::SUCCESS),
        hub = ModelHub::start(config) => hub.map_err(Failure::failed)?,
    };
    let document = json!({ "event": "ready", "role": "hub", "url": hub.url() });
    output.result(&document, || format!("model hub ready at {}", hub.url()))?;
    stop.await;
    hub.shutdown().await.map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}
