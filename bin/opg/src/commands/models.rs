//! `opg models`.

use std::process::ExitCode;

use alloy_primitives::B256;
use opg_client::Model;
use opg_primitives::money::{Amount, Price};
use opg_zkml::{ParameterSet, RegisteredModel};
use serde_json::{Value, json};

use super::{client, closed, hub_models, hub_pull, wallet, zk};
use crate::{
    args::ModelsCommand,
    failure::Failure,
    output::{Output, facts, short, table},
};

/// Longest report that the registry takes, bytes (`ModelRegistry.MAX_REPORT`).
const MAX_REPORT: usize = 4_096;

/// Runs a model command.
pub(crate) async fn run(command: ModelsCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        ModelsCommand::Ls { network } => {
            let models = client(&network)?.models().await?;
            output.result(&models, || {
                let mut list = table(["model", "price", "royalty", "root"]);
                for model in &models {
                    list.add_row([
                        model.name.clone(),
                        price(&model.ask),
                        percent(model.royalty_bps),
                        short(model.root),
                    ]);
                }
                list.to_string()
            })?;
        }
        ModelsCommand::Show { model, network } => {
            let client = client(&network)?;
            let model = hub_models::find(&client, &model).await?;
            let programs = client.programs(model.root).await?;
            let earnings = hub_models::earnings(&client, &model.name, model.root).await;
            let mut document = json!(model);
            document["programs"] = json!(programs);
            let deprecated = hub_models::deprecated(&client, &model.name).await;
            if let Some(reason) = &deprecated {
                eprintln!("warning: {} is deprecated: {reason}", model.name);
            }
            document["deprecated"] = json!(deprecated);
            if let Some(earnings) = &earnings {
                document["earnings"] = earnings.clone();
            }
            output.result(&document, || show(&model, &programs, earnings.as_ref()))?;
        }
        ModelsCommand::Push(args) => return hub_models::push(args, output).await,
        ModelsCommand::Pull(args) => return hub_pull::pull(args, output).await,
        ModelsCommand::Deprecate(args) => return hub_models::deprecate(args, output).await,
        ModelsCommand::Rm(args) => return hub_models::remove(args, output).await,
        ModelsCommand::Transfer {
            model,
            to,
            key,
            network,
        } => {
            let client = client(&network)?;
            let wallet = wallet(&key, Some(client.network()))?;
            let model = hub_models::find(&client, &model).await?;
            if model.creator != wallet.address() {
                return Err(Failure::Failed(eyre::eyre!(
                    "{} is not {}'s to give: its creator is {}",
                    model.name,
                    wallet.address(),
                    model.creator
                )));
            }
            let sent = client.transfer_model(&wallet, model.root, to).await?;
            let document = json!({
                "model": model.name, "root": model.root, "from": model.creator, "to": to, "transaction": sent.hash,
                "block": sent.block, "gas_used": sent.gas_used,
            });
            output.result(&document, || {
                facts([
                    ("model", format!("{} ({})", model.name, model.root)),
                    ("creator", to.to_string()),
                    ("transaction", format!("{} in block {}", sent.hash, sent.block)),
                ])
            })?;
        }
        ModelsCommand::RegisterClosed(args) => return closed::register(args, output).await,
        ModelsCommand::RegisterProgram {
            model,
            program,
            report,
            key,
            network,
        } => {
            let client = client(&network)?;
            let wallet = wallet(&key, Some(client.network()))?;
            let program = zk::files::program(&program)?;
            let bytes = zk::files::read(&report, "report", MAX_REPORT)?;
            let report = report_text(&bytes).ok_or_else(|| {
                Failure::usage(format!(
                    "--report: {} is not the report of a program; make one with `opg zk compile --report`",
                    report.display()
                ))
            })?;
            let spinner = output.spinner("committing to the weights");
            let root = RegisteredModel::new(program, ParameterSet::Bits100)
                .map(|model| B256::from(model.root().0))
                .map_err(|error| Failure::usage(error.to_string()))?;
            spinner.set_message("registering");
            let registered = async {
                let model = hub_models::find(&client, &model).await?;
                let sent = client.register_program(&wallet, model.root, root, &report).await?;
                Ok::<_, Failure>((model, sent))
            }
            .await;
            spinner.finish_and_clear();
            let (model, sent) = registered?;
            let document = json!({
                "model": model.name, "root": model.root, "program": root, "transaction": sent.hash, "block": sent.block,
                "gas_used": sent.gas_used,
            });
            output.result(&document, || {
                facts([
                    ("model", format!("{} ({})", model.name, model.root)),
                    ("program", root.to_string()),
                    ("transaction", format!("{} in block {}", sent.hash, sent.block)),
                ])
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A report as it goes on chain: a JSON object in one line.
fn report_text(bytes: &[u8]) -> Option<String> {
    let report: Value = serde_json::from_slice(bytes).ok()?;
    let outputs = report.get("outputs")?.as_array()?;
    (!outputs.is_empty()).then(|| report.to_string())
}

fn show(model: &Model, programs: &[B256], earnings: Option<&Value>) -> String {
    let mut rows = vec![
        ("model", model.name.clone()),
        ("root", model.root.to_string()),
        ("creator", model.creator.to_string()),
        (
            "licence",
            match &model.license {
                Some(license) => format!("{license} (at its registration)"),
                None => "not registered".into(),
            },
        ),
        ("royalty", percent(model.royalty_bps)),
        ("reference price", price(&model.reference_price)),
        ("node's price", price(&model.ask)),
        ("node", format!("{} at {}", model.node, model.url)),
        ("served", if model.served { "yes" } else { "no" }.into()),
    ];
    if let Some(page) = &model.page {
        rows.push(("page", format!("{page} (as registered)")));
    }
    if let Some(modes) = model.details.get("modes").and_then(Value::as_array) {
        let modes: Vec<_> = modes.iter().filter_map(Value::as_str).collect();
        rows.push(("modes", opg_client::text::one_line(&modes.join(", "), 100)));
    }
    for program in programs {
        rows.push(("program", program.to_string()));
    }
    if let Some(earnings) = earnings {
        let opg = |key: &str| {
            let wei = earnings
                .get(key)
                .and_then(Value::as_str)
                .and_then(|text| text.parse().ok());
            Amount(wei.unwrap_or(0))
        };
        let calls = earnings.get("calls").and_then(Value::as_u64).unwrap_or(0);
        let (earned, waiting) = (opg("earned"), opg("waiting"));
        rows.push((
            "earned",
            format!("{earned} OPG by {calls} paid calls, {waiting} OPG not paid in yet"),
        ));
    }
    let details = ["kind", "inputs", "outputs", "context_length", "architecture"];
    for name in details {
        if let Some(value) = model.details.get(name).filter(|value| !value.is_null()) {
            rows.push((name, opg_client::text::one_line(&plain(value), 500)));
        }
    }
    facts(rows)
}

/// A JSON value without the quotes around a text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What is paid to the node; the creator's royalty comes on top.
fn price(price: &Price) -> String {
    let mut parts = Vec::new();
    if !price.per_call.is_zero() {
        parts.push(format!("{} OPG a call", price.per_call));
    }
    if !price.per_mtok_in.is_zero() || !price.per_mtok_out.is_zero() {
        parts.push(format!(
            "{} in, {} out OPG a million tokens",
            price.per_mtok_in, price.per_mtok_out
        ));
    }
    if parts.is_empty() {
        "not offered".into()
    } else {
        parts.join(" + ")
    }
}

fn percent(bps: u16) -> String {
    format!("{}.{:02} %", bps / 100, bps % 100)
}
