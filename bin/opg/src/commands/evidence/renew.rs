//! `opg evidence renew`: newer vendor collateral for a chain.

use std::{process::ExitCode, time::Duration};

use alloy_primitives::B256;
use opg_client::Client;
use opg_evidence::{
    Reject,
    container::Companions,
    registration::{Rules, encode_collateral, judge_collateral},
    versions::{CollateralVersion, Newest},
};
use serde_json::json;

use super::{name, read};
use crate::{
    args::EvidenceRenewArgs,
    commands::{client, wallet},
    failure::Failure,
    output::{Output, table},
};

const POLL: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

/// Checks the collateral as validators will, hands it in, and waits for what they found.
pub(super) async fn run(args: EvidenceRenewArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(&args.purse.network)?;
    let genesis = &client.network().genesis;
    let mut beside = Companions::default();
    for file in &args.files {
        let kept = beside.add(&read(file)?).map_err(|reject| refused(&reject))?;
        if kept.is_none() {
            return Err(Failure::usage(format!(
                "{}: neither Intel's collateral (JSON) nor a revocation list (PEM or DER)",
                name(file)
            )));
        }
    }
    let bytes = encode_collateral(&beside).map_err(|reject| refused(&reject))?;
    let rules = Rules::new(genesis.development, genesis.development_roots());
    let now = client.block_time().await?;
    let versions = judge_collateral(args.kind.code(), &bytes, &rules, now).map_err(|reject| refused(&reject))?;
    let before = newest(&client, &versions).await?;
    let newer = versions
        .iter()
        .zip(&before)
        .filter(|(version, newest)| (**newest).clone().raise(version))
        .count();
    let mut document = json!({
        "kind": args.kind, "versions": list(&versions), "known": known(&before), "newer": newer, "dry_run": args.dry_run,
    });
    if newer == 0 || args.dry_run {
        output.result(&document, || {
            let end = match newer {
                0 => "nothing in it is newer than what the chain has; nothing was sent".to_owned(),
                _ => format!("{newer} parts are newer than what the chain has; nothing was sent: this was a dry run"),
            };
            format!("{}\n{end}", rows(&versions, &before))
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let wallet = wallet(&args.purse.key, Some(client.network()))?;
    let spinner = output.spinner("waiting for the validators' verdict");
    let sent = client
        .submit_collateral(&wallet, args.kind.code(), bytes.into())
        .await?;
    let began = std::time::Instant::now();
    while client.height().await? <= sent.block && began.elapsed() < PATIENCE {
        tokio::time::sleep(POLL).await;
    }
    spinner.finish_and_clear();
    let after = newest(&client, &versions).await?;
    let raised = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .count();
    document["known"] = json!(known(&after));
    document["renewed"] = json!(raised);
    document["transaction"] = json!(sent);
    output.result(&document, || {
        format!(
            "{}\n{raised} parts renewed; evidence with older ones is refused from now on\nin block {}\ntransaction {}",
            rows(&versions, &after),
            sent.block,
            sent.hash
        )
    })?;
    Ok(ExitCode::from(u8::from(raised == 0)))
}

fn refused(reject: &Reject) -> Failure {
    Failure::failed(eyre::eyre!(
        "the collateral is refused: {} ({}): {reject}",
        reject.name(),
        reject.code()
    ))
}

async fn newest(client: &Client, versions: &[CollateralVersion]) -> Result<Vec<Newest>, Failure> {
    let mut found = Vec::with_capacity(versions.len());
    for version in versions {
        let (number, issued_at) = client.newest_collateral(B256::from(version.subject)).await?;
        found.push(Newest { number, issued_at });
    }
    Ok(found)
}

fn list(versions: &[CollateralVersion]) -> Vec<serde_json::Value> {
    let one = |version: &CollateralVersion| json!({ "part": version.part, "subject": B256::from(version.subject), "number": version.number, "issued_at": version.issued_at });
    versions.iter().map(one).collect()
}

fn known(newest: &[Newest]) -> Vec<serde_json::Value> {
    let one = |newest: &Newest| json!({ "number": newest.number, "issued_at": newest.issued_at });
    newest.iter().map(one).collect()
}

fn rows(versions: &[CollateralVersion], newest: &[Newest]) -> String {
    let mut rows = table(["part", "number and date (Unix seconds)", "the chain's"]);
    for (version, newest) in versions.iter().zip(newest) {
        rows.add_row([
            version.part.to_owned(),
            format!("{} of {}", version.number, version.issued_at),
            match newest {
                Newest {
                    number: 0,
                    issued_at: 0,
                } => "none".to_owned(),
                Newest { number, issued_at } => format!("{number} of {issued_at}"),
            },
        ]);
    }
    rows.to_string()
}
