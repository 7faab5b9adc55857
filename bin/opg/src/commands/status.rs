//! `opg status`.

use std::process::ExitCode;

use opg_client::Client;
use serde_json::json;

use super::client;
use crate::{
    args::StatusArgs,
    failure::Failure,
    output::{Output, facts, short, table},
};

/// Shows every service of the network; exit code 1 if one does not answer.
pub(crate) async fn run(args: StatusArgs, output: Output) -> Result<ExitCode, Failure> {
    let client: Client = client(&args.network)?;
    let network = client.network();
    let (full, inference, hub) = futures::join!(client.full_nodes(), client.inference_nodes(), client.hub());
    let balances = match &network.file.wallet {
        Some(wallet) => client
            .balances(wallet.address)
            .await
            .ok()
            .map(|balances| (wallet.address, balances)),
        None => None,
    };
    let up = full.iter().all(|node| node.error.is_none())
        && inference.iter().all(|node| node.healthy)
        && hub.as_ref().is_none_or(|hub| hub.healthy);
    let mut document = json!({
        "up": up,
        "dir": network.dir,
        "chain_id": network.file.chain_id,
        "full_nodes": full,
        "inference_nodes": inference,
        "wallet": balances.map(|(address, balances)| json!({ "address": address, "opg": balances.opg, "native": balances.native })),
    });
    if let Some(hub) = &hub {
        document["hub"] = json!(hub);
    }
    output.result(&document, || {
        let mut text = facts([
            ("network", network.dir.display().to_string()),
            ("chain id", network.file.chain_id.to_string()),
        ]);
        let mut services = table(["service", "url", "state", "height", "peers"]);
        for (i, node) in full.iter().enumerate() {
            services.add_row([
                format!("full node {i}"),
                node.url.clone(),
                node.error.as_ref().map_or("up".into(), |_| "does not answer".into()),
                node.height.map_or("-".into(), |height| height.to_string()),
                node.peers.map_or("-".into(), |peers| peers.to_string()),
            ]);
        }
        for node in &inference {
            services.add_row([
                format!("inference node {}", short(node.id)),
                node.url.clone(),
                node.error.clone().unwrap_or_else(|| "up".into()),
                "-".into(),
                "-".into(),
            ]);
        }
        if let Some(hub) = &hub {
            services.add_row([
                "model hub".into(),
                hub.url.clone(),
                hub.error.clone().unwrap_or_else(|| "up".into()),
                "-".into(),
                "-".into(),
            ]);
        }
        text.push_str(&format!("{services}\n"));
        if let Some((address, balances)) = balances {
            text.push_str(&format!(
                "wallet {address}: {} OPG, {} native OPG for gas\n",
                balances.opg, balances.native
            ));
        }
        text
    })?;
    Ok(if up { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
