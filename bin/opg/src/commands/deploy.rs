//! `opg deploy`: contracts on the chain where OPG lives, from a plan file.

use std::process::ExitCode;

use alloy_primitives::keccak256;
use opg_client::{DeployError, Deployment, On, Plan, Standing};
use serde_json::{Value, json};

use super::{client, read_file, wallet};
use crate::{failure::Failure, home_args::DeployArgs, output::Output};

/// Most bytes of a plan that are read; the parser's bound is lower.
const MAX_PLAN: u64 = 1 << 17;

/// Runs `opg deploy`.
pub(crate) async fn run(args: DeployArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(&args.purse.network)?;
    let wallet = wallet(&args.purse.key, Some(client.network()))?;
    let plan = Plan::parse(&read_file(&args.plan, MAX_PLAN)?)?;
    if plan.home != args.home {
        return Err(Failure::usage(format!(
            "--home {}: the plan is for {}",
            args.home, plan.home
        )));
    }
    let spinner = output.spinner("asking both chains");
    let deployment = client.plan_deployment(&plan, wallet.address(), args.replace).await;
    spinner.finish_and_clear();
    let deployment = deployment?;
    let mut document = json!({
        "home": deployment.entry, "deployer": wallet.address(), "dry_run": args.dry_run, "missing": deployment.missing(),
        "steps": deployment.steps.iter().map(|(step, standing)| {
            let mut entry = json!({ "contract": step.name, "chain": step.on, "address": step.address });
            if let (Some(entry), Value::Object(standing)) = (entry.as_object_mut(), json!(standing)) {
                entry.extend(standing);
            }
            entry
        }).collect::<Vec<_>>(),
    });
    if args.dry_run {
        output.result(&document, || {
            format!("{}nothing was sent: this was a dry run", describe(&deployment))
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    // Said before anything is paid.
    eprint!("{}", describe(&deployment));
    let spinner = output.spinner("deploying");
    let mut sent = Vec::new();
    let done = deployment
        .run(&wallet, |step, transaction| {
            spinner.println(format!("{} {} in {}", step.name, step.address, transaction.hash));
            sent.push(json!({ "contract": step.name, "address": step.address, "transaction": transaction }));
        })
        .await;
    spinner.finish_and_clear();
    done?;
    let mut file = client.network().file.clone();
    file.home = Some(deployment.entry.clone());
    let path = file.write(&client.network().dir)?;
    document["sent"] = json!(sent);
    output.result(&document, || {
        let contracts = &deployment.entry.contracts;
        format!(
            "{} of {} contracts sent, all checked; addresses are in {}\nOPG         {}{}\nCheckpoint  {}\nvault       {}\npayouts     {} (on the network)",
            sent.len(),
            deployment.steps.len(),
            path.display(),
            contracts.opg,
            development(&deployment),
            contracts.checkpoint,
            contracts.fee_vault,
            contracts.payouts,
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn development(deployment: &Deployment) -> &'static str {
    match deployment.entry.contracts.opg_development {
        true => " (development OPG: this chain has no canonical one, and this one has no value)",
        false => " (canonical)",
    }
}

/// Every transaction of a plan, or that there is none.
fn describe(deployment: &Deployment) -> String {
    let mut text = format!(
        "home chain {} (id {}), OPG {}{}\n",
        deployment.entry.name,
        deployment.entry.chain_id,
        deployment.entry.contracts.opg,
        development(deployment)
    );
    for (step, standing) in &deployment.steps {
        let chain = match step.on {
            On::Home => "home chain",
            On::Network => "network",
        };
        text += &match standing {
            Standing::There => format!("  {:24} {}  is there with the right code\n", step.name, step.address),
            Standing::Missing { gas, cost } => format!(
                "  {:24} {}  to be sent on the {chain}: {} bytes, input hash {}, {gas} gas, {cost} of its coin now\n",
                step.name,
                step.address,
                deployment.input(step).len(),
                keccak256(deployment.input(step)),
            ),
        };
    }
    text
}

impl From<DeployError> for Failure {
    fn from(error: DeployError) -> Self {
        match error.is_input() {
            true => Self::input(error),
            false => Self::failed(error),
        }
    }
}
