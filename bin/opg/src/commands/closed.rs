//! Closed models: registering them, pricing them, and giving nodes the API keys that they need.

use std::{
    io::Read as _,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use alloy_primitives::B256;
use opg_client::{Client, NewModel, text::one_line};
use opg_payments::signature::sign_digest;
use opg_primitives::{
    ids::{ModelRoot, NodeId},
    money::Price,
};
use opg_receipt::closed_model_root;
use opg_sealed::PublicKey;
use opg_upstream::{ApiKey, KeyBinding, KeyInjection, MAX_KEY, Provider, Target, UpstreamConfig, seal_api_key};
use serde_json::{Value, json};

use super::{client, wallet};
use crate::{
    args::{InjectKeyArgs, KeyArgs, NetworkArgs, PriceArgs, RegisterClosedArgs},
    failure::Failure,
    output::{Output, facts},
};

/// Under which nodes have their one key.
const KEY_ID: u8 = 1;

impl PriceArgs {
    /// The same as a value.
    pub(crate) const fn price(&self) -> Price {
        Price {
            per_call: self.per_call,
            per_mtok_in: self.per_mtok_in,
            per_mtok_out: self.per_mtok_out,
        }
    }
}

/// Provider and host that the arguments mean.
fn account(provider: &str, host: Option<&str>) -> Result<(Provider, String), Failure> {
    let words = Provider::ALL.map(Provider::as_str).join(", ");
    let provider = Provider::from_word(provider)
        .ok_or_else(|| Failure::usage(format!("--provider: expected one of {words}, got {provider:?}")))?;
    // The same reading of hosts as in a node's configuration.
    let target = Target::new(provider, "-");
    let config = match host {
        Some(host) => UpstreamConfig::at(target, &format!("https://{host}/")),
        None => UpstreamConfig::new(target),
    };
    let config = config.map_err(|error| Failure::usage(format!("--host: {error}")))?;
    Ok((provider, config.endpoint.host))
}

/// `opg models register-closed`.
pub(crate) async fn register(args: RegisterClosedArgs, output: Output) -> Result<ExitCode, Failure> {
    let (provider, host) = account(&args.provider, args.host.as_deref())?;
    let root = closed_model_root(provider.as_str(), &host, &args.model);
    let mut document = json!({"name": args.name, "root": root, "provider": provider.as_str(), "host": host,
        "model": args.model});
    if !args.dry_run {
        let client = client(&args.network)?;
        let wallet = wallet(&args.key, Some(client.network()))?;
        let model = NewModel {
            root,
            name: args.name.clone(),
            uri: String::new(),
            // A provider's model has none.
            royalty_bps: 0,
            price: args.price.price(),
        };
        let spinner = output.spinner("registering");
        let registered = async {
            let sent = client.register_model(&wallet, &model).await?;
            let marked = client.mark_closed(&wallet, provider.as_str(), &host, &args.model);
            Ok::<_, opg_client::ClientError>((sent, marked.await?))
        }
        .await;
        spinner.finish_and_clear();
        let (sent, marked) = registered?;
        document["closed"] = json!(marked.map(|sent| sent.hash));
        document["transaction"] = json!(sent.hash);
        document["block"] = json!(sent.block);
    }
    output.result(&document, || {
        facts([
            ("model", args.name.clone()),
            ("root", root.to_string()),
            ("provider", format!("{provider} at {host}, {}", args.model)),
            (
                "registered",
                match document.get("transaction") {
                    Some(hash) => format!("in block {} ({})", document["block"], hash.as_str().unwrap_or_default()),
                    None => "no (--dry-run)".to_owned(),
                },
            ),
        ])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `opg node ask`.
pub(crate) async fn ask(
    model: &str,
    price: &PriceArgs,
    node: Option<B256>,
    (key, network): (&KeyArgs, &NetworkArgs),
    output: Output,
) -> Result<ExitCode, Failure> {
    let client = client(network)?;
    let wallet = wallet(key, Some(client.network()))?;
    let root = match model.parse::<ModelRoot>() {
        Ok(root) => root,
        Err(_) => client.model(model).await?.root,
    };
    let node = node_id_of(&client, node)?;
    let sent = client.set_ask(&wallet, node, root, &price.price()).await?;
    let document = json!({"node": node, "root": root, "transaction": sent.hash, "block": sent.block});
    output.result(&document, || {
        facts([
            ("node", node.to_string()),
            ("root", root.to_string()),
            ("transaction", format!("{} in block {}", sent.hash, sent.block)),
        ])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The node that is meant: one that joined later is not in the network's file.
pub(super) fn node_id_of(client: &Client, id: Option<B256>) -> Result<NodeId, Failure> {
    match id {
        Some(id) => Ok(NodeId(id)),
        None => Ok(NodeId(node_of(client, None)?.id)),
    }
}

fn node_of(client: &Client, id: Option<B256>) -> Result<opg_client::NodeEntry, Failure> {
    let mut nodes = client
        .network()
        .file
        .nodes
        .iter()
        .filter(|node| node.role == "inference");
    let found = match id {
        Some(id) => nodes.find(|node| node.id == id),
        None => nodes.next(),
    };
    found.cloned().ok_or_else(|| {
        let what = id.map_or_else(|| "no node".to_owned(), |id| format!("no node {id}"));
        Failure::usage(format!("the network has {what}"))
    })
}

/// `opg node inject-key`.
pub(crate) async fn inject_key(args: InjectKeyArgs, output: Output) -> Result<ExitCode, Failure> {
    let (provider, host) = account(&args.provider, args.host.as_deref())?;
    let api_key = read_key(args.api_key_file.as_deref())?;
    let client = client(&args.network)?;
    let wallet = wallet(&args.key, Some(client.network()))?;
    let node = node_of(&client, args.node)?;
    // Only a key that the chain holds evidence of: else the host of the node would read what is sealed.
    let attested = client.attested_key(&node).await?;
    let (chain_id, keyset) = (client.network().genesis.chain_id, attested.keyset.digest());
    let binding = KeyBinding {
        chain_id,
        keyset: keyset.0.0,
        operator: wallet.address().into_array(),
        provider,
        host: &host,
    };
    let enclave = PublicKey(attested.keyset.hpke_key.0);
    let sealed = seal_api_key(KEY_ID, &enclave, &binding, &api_key, &rand::random()).map_err(Failure::failed)?;
    drop(api_key);
    let issued = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let mut injection = KeyInjection::new(provider, host.clone(), issued, sealed);
    let digest = injection.digest(chain_id, &node.id, &keyset.0);
    injection.signature = sign_digest(digest, wallet.secret_key()).to_vec();

    let url = format!("{}/v1/upstream-keys", node.url);
    let answer = reqwest::Client::new()
        .post(&url)
        .json(&injection)
        .send()
        .await
        .map_err(Failure::failed)?;
    let status = answer.status();
    let body: Value = answer.json().await.unwrap_or_default();
    if !status.is_success() {
        let reason = body
            .pointer("/error/message")
            .and_then(Value::as_str)
            .unwrap_or("no reason given");
        return Err(Failure::Failed(eyre::eyre!(
            "the node does not take the key (HTTP {}): {}",
            status.as_u16(),
            one_line(reason, 400)
        )));
    }
    let document = json!({"node": node.id, "keyset": keyset, "grade": attested.grade, "provider": provider.as_str(),
        "host": host, "issued": issued});
    output.result(&document, || {
        facts([
            ("node", node.id.to_string()),
            ("sealed to", format!("keyset {keyset}, evidence {}", attested.grade)),
            ("key for", format!("{provider} at {host}")),
        ])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads an API key; never from the command line, where every process of the machine can see it.
fn read_key(path: Option<&std::path::Path>) -> Result<ApiKey, Failure> {
    let mut text = String::new();
    let limit = MAX_KEY as u64 + 16;
    let read = match path {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)),
        None => std::io::stdin().lock().take(limit).read_to_string(&mut text),
    };
    read.map_err(|error| Failure::usage(format!("cannot read the API key: {error}")))?;
    ApiKey::new(text.trim()).map_err(|error| Failure::usage(error.to_string()))
}
