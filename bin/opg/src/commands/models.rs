//! `opg models`.

use std::process::ExitCode;

use opg_client::Model;
use opg_primitives::money::Price;

use super::client;
use crate::{
    args::ModelsCommand,
    failure::Failure,
    output::{Output, facts, short, table},
};

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
            let model = client(&network)?.model(&model).await?;
            output.result(&model, || show(&model))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(model: &Model) -> String {
    let mut rows = vec![
        ("model", model.name.clone()),
        ("root", model.root.to_string()),
        ("creator", model.creator.to_string()),
        ("royalty", percent(model.royalty_bps)),
        ("reference price", price(&model.reference_price)),
        ("node's price", price(&model.ask)),
        ("node", format!("{} at {}", model.node, model.url)),
        ("served", if model.served { "yes" } else { "no" }.into()),
    ];
    let details = ["kind", "inputs", "outputs", "context_length", "architecture"];
    for name in details {
        if let Some(value) = model.details.get(name).filter(|value| !value.is_null()) {
            rows.push((name, opg_client::text::one_line(&plain(value), 500)));
        }
    }
    facts(rows)
}

/// A JSON value without the quotes around a text.
fn plain(value: &serde_json::Value) -> String {
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
