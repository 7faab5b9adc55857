//! `opg node slash-evidence`: faults that full nodes hold, reports, appeals and cases.

use std::{path::Path, process::ExitCode, sync::atomic::AtomicBool};

use alloy_primitives::{Address, B256, Bytes};
use opg_artefact::ZkArtefact;
use opg_client::{CaseStatus, Client, FaultReport, MAX_CASES, Sent, SlashingCase, Wallet};
use opg_contracts::slashing;
use opg_primitives::money::Amount;
use opg_receipt::{ReceiptFile, SignedReceipt};
use opg_zkml::{ParameterSet, RegisteredModel};
use serde_json::json;

use super::{
    client,
    staking::{account, at, duration},
    zk::files,
};
use crate::{
    args::{NetworkArgs, PurseArgs, ReportArgs, SlashCommand},
    failure::Failure,
    output::{Output, facts, table},
};

/// Runs a command about faults; without one, shows those that the nodes hold.
pub(crate) async fn run(
    command: Option<SlashCommand>,
    network: &NetworkArgs,
    output: Output,
) -> Result<ExitCode, Failure> {
    match command {
        None => held(network, output).await,
        Some(SlashCommand::Report(args)) => report(args, output).await,
        Some(SlashCommand::Downtime { validator, purse }) => downtime(validator, &purse, output).await,
        Some(SlashCommand::Cases { case, network }) => cases(case, &network, output).await,
        Some(SlashCommand::Appeal { case, dry_run, purse }) => appeal(case, dry_run, &purse, output).await,
        Some(SlashCommand::Execute { case, purse }) => finish(case, true, &purse, output).await,
        Some(SlashCommand::Expire { case, purse }) => finish(case, false, &purse, output).await,
        Some(SlashCommand::Withdraw { purse }) => withdraw(&purse, output).await,
    }
}

async fn held(network: &NetworkArgs, output: Output) -> Result<ExitCode, Failure> {
    let faults = client(network)?.faults().await?;
    output.result(&json!({ "faults": faults }), || {
        if faults.is_empty() {
            return "no full node holds evidence of a fault".to_owned();
        }
        let mut rows = table(["epoch", "view", "validator", "what"]);
        for fault in &faults {
            let operator = fault
                .operator
                .map_or("unknown".to_owned(), |operator| operator.to_string());
            let what = match fault.kind {
                1 => "two notarize votes for one view",
                2 => "two finalize votes for one view",
                3 => "nullify and finalize votes for one view",
                _ => "a vote for an invalid proof",
            };
            rows.add_row([
                fault.epoch.to_string(),
                fault.view.to_string(),
                operator,
                what.to_owned(),
            ]);
        }
        format!("{rows}\nreport one with `opg node slash-evidence report VALIDATOR`")
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn report(args: ReportArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.purse)?;
    let report = wanted(&client, &args, output).await?;
    let bond = client.fault_bond(&report).await?;
    let judgement = client.judge_fault(&report).await?;
    let said = format!(
        "locks {bond} OPG as a bond: it comes back if validators find the fault proven, with 30 % of the slash, and is lost if they do not, one half burned, one half to the accused"
    );
    let mut document = json!({
        "account": wallet.address(), "class": report.class, "subject": report.subject, "epoch": report.epoch,
        "bond": bond, "proven": judgement.proven, "reason": judgement.reason, "dry_run": args.dry_run,
    });
    let published = report.artefact.as_ref().map(|artefact| artefact.len());
    document["publishes_bytes"] = json!(published);
    let said = match published {
        Some(bytes) => format!(
            "{said}\npublishes the proof, {bytes} bytes for good, with the request and the answer in it for everybody to read, in {} transactions of about 5.5M gas each",
            bytes.div_ceil(slashing::MAX_PART)
        ),
        None => said,
    };
    let finding = match &judgement.reason {
        Some(reason) => format!("the full node finds the fault not proven: {reason}"),
        None => "the full node finds the fault proven".to_owned(),
    };
    if args.dry_run {
        output.result(&document, || {
            format!("{finding}\n{said}\nnothing was sent: this was a dry run")
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if !judgement.proven && !args.force {
        return Err(Failure::failed(eyre::eyre!(
            "{finding}; the bond of {bond} OPG would be lost, so nothing was sent (--force sends it all the same)"
        )));
    }
    eprintln!("{said}");
    let spinner = output.spinner("waiting for the block");
    let sent = client.report_fault(&wallet, &report).await;
    spinner.finish_and_clear();
    let (sent, id) = sent?;
    document["case"] = json!(id);
    document["transaction"] = json!(sent);
    output.result(&document, || {
        format!(
            "case {id} is open {}\nthe next block has its verdict: `opg node slash-evidence cases {id}`",
            at(&sent)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The report that the arguments mean.
async fn wanted(client: &Client, args: &ReportArgs, output: Output) -> Result<FaultReport, Failure> {
    if let (Some(node), Some(program)) = (args.node, &args.program) {
        return wrong_answer(node, &args.receipt, program, output).await;
    }
    if let Some(node) = args.node {
        return about_node(node, &args.receipt);
    }
    // clap lets nothing else through.
    let validator = args.validator.unwrap_or_default();
    if let (Some(evidence), Some(epoch)) = (&args.evidence, args.epoch) {
        let evidence = evidence.clone();
        return Ok(match &args.artefact {
            Some(path) => FaultReport::invalid_vote(validator, epoch, evidence, artefact(path)?),
            None => FaultReport::equivocation(validator, epoch, evidence),
        });
    }
    let faults = client.faults().await?;
    let mut found = faults
        .into_iter()
        .filter(|fault| fault.operator == Some(validator) && args.epoch.is_none_or(|epoch| epoch == fault.epoch));
    let fault = found.next_back().ok_or_else(|| {
        Failure::usage(format!(
            "no full node holds evidence against {validator}; `opg node slash-evidence` shows what they hold"
        ))
    })?;
    Ok(client.report_of(validator, fault).await?)
}

/// An invalid proof. It is published as it is, so nothing else must be in it.
fn artefact(path: &Path) -> Result<Bytes, Failure> {
    let cannot = |reason: String| Failure::usage(format!("--artefact {}: {reason}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| cannot(e.to_string()))?.len();
    let limit = opg_artefact::MAX_ARTEFACT_BYTES;
    if size > limit as u64 {
        return Err(cannot(format!("{size} bytes, a proof has at most {limit}")));
    }
    Ok(std::fs::read(path).map_err(|e| cannot(e.to_string()))?.into())
}

/// One receipt proves a claim of attestation that is not registered, two prove a number used twice.
fn about_node(node: B256, receipts: &[std::path::PathBuf]) -> Result<FaultReport, Failure> {
    let read = |path: &Path| receipt_file(path).map(|file| file.core);
    let (class, evidence) = match receipts {
        [claim] => (slashing::FORGED_EVIDENCE, read(claim)?),
        [first, second] => {
            let pair = slashing::encode_receipts(&read(first)?, &read(second)?);
            let pair = pair.ok_or_else(|| Failure::usage("the receipts are too long to be evidence"))?;
            (slashing::WRONG_INFERENCE, pair.into())
        }
        _ => return Err(Failure::usage("--receipt: one receipt file or two")),
    };
    Ok(FaultReport {
        class,
        subject: node,
        epoch: 0,
        evidence,
        artefact: None,
    })
}

fn receipt_file(path: &Path) -> Result<ReceiptFile, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))?;
    ReceiptFile::parse_strict(&bytes).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

/// Proves the answer that the receipt should have, unless it has it.
async fn wrong_answer(
    node: B256,
    receipts: &[std::path::PathBuf],
    program: &Path,
    output: Output,
) -> Result<FaultReport, Failure> {
    let [path] = receipts else {
        return Err(Failure::usage(
            "--program: expected one --receipt, whose answer it proves wrong",
        ));
    };
    let file = receipt_file(path)?;
    let receipt = SignedReceipt::decode(&file.core).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let opening = file.opening.ok_or_else(|| {
        Failure::usage(format!(
            "{} does not hold the request: the payer's copy does",
            path.display()
        ))
    })?;
    let program = files::program(program)?;
    let spinner = output.spinner("proving the right answer");
    let refuted = tokio::task::spawn_blocking(move || {
        let model = RegisteredModel::new(program, ParameterSet::Bits100).map_err(|error| error.to_string())?;
        let (core, body) = (receipt.core(), &opening.body.0);
        let found = ZkArtefact::refute(&AtomicBool::new(false), &model, core, opening.salt, body, &mut |_| {});
        found
            .map(|artefact| artefact.encode())
            .map_err(|error| error.to_string())
    });
    let refuted = refuted.await;
    spinner.finish_and_clear();
    let artefact = refuted
        .map_err(|panic| Failure::failed(eyre::eyre!("the prover ended: {panic}")))?
        .map_err(|reason| Failure::failed(eyre::eyre!("{}: {reason}", path.display())))?;
    FaultReport::wrong_answer(node, &file.core, artefact.into())
        .ok_or_else(|| Failure::usage("the receipt is too long to be evidence"))
}

async fn downtime(validator: Address, purse: &PurseArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(purse)?;
    let spinner = output.spinner("waiting for the block");
    let sent = client.report_downtime(&wallet, validator).await;
    spinner.finish_and_clear();
    let (sent, id) = sent?;
    output.result(
        &json!({ "case": id, "validator": validator, "transaction": sent }),
        || format!("case {id} is open and frozen {}", at(&sent)),
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn cases(case: Option<u64>, network: &NetworkArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(network)?;
    let now = client.block_time().await?;
    if let Some(id) = case {
        let case = one(&client, id).await?;
        let mut document = json!(case);
        document["next"] = json!(next(&case, now));
        output.result(&document, || describe(&case, now))?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = client.slashing_cases().await?;
    output.result(&json!({ "cases": list }), || {
        if list.is_empty() {
            return "no cases".to_owned();
        }
        let mut rows = table(["case", "class", "subject", "epoch", "state"]);
        for case in &list {
            rows.add_row([
                case.id.to_string(),
                class(case.class).to_owned(),
                subject(case),
                case.epoch.to_string(),
                next(case, now),
            ]);
        }
        let more = if list.len() == MAX_CASES {
            "\nolder cases are left out"
        } else {
            ""
        };
        format!("{rows}{more}")
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn appeal(id: u64, dry_run: bool, purse: &PurseArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(purse)?;
    let case = one(&client, id).await?;
    let accused = client.accused(&case).await?;
    if accused != wallet.address() {
        return Err(Failure::usage(format!(
            "only {accused} may appeal against case {id}, this wallet is {}",
            wallet.address()
        )));
    }
    if case.status != CaseStatus::Frozen || case.class == slashing::DOWNTIME {
        return Err(Failure::usage(format!(
            "case {id} takes no appeal: {}",
            next(&case, client.block_time().await?)
        )));
    }
    let said = format!(
        "locks {} OPG as a bond: it comes back if the second verdict is another, and is lost if it stays, one half burned, one half to the challenger",
        case.bond
    );
    let mut document = json!({ "case": id, "bond": case.bond, "dry_run": dry_run });
    if dry_run {
        output.result(&document, || format!("{said}\nnothing was sent: this was a dry run"))?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{said}");
    let spinner = output.spinner("waiting for the block");
    let sent = client.appeal(&wallet, &case).await;
    spinner.finish_and_clear();
    let sent = sent?;
    document["transaction"] = json!(sent);
    output.result(&document, || format!("appealed against case {id} {}", at(&sent)))?;
    Ok(ExitCode::SUCCESS)
}

/// `execute` and `expire`.
async fn finish(id: u64, execute: bool, purse: &PurseArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(purse)?;
    let case = one(&client, id).await?;
    let now = client.block_time().await?;
    let right = match case.status {
        CaseStatus::Frozen => execute,
        CaseStatus::Reported | CaseStatus::Appealed => !execute,
        _ => false,
    };
    if !right || now < case.until {
        return Err(Failure::failed(eyre::eyre!("case {id}: {}", next(&case, now))));
    }
    let spinner = output.spinner("waiting for the block");
    let sent = if execute {
        client.execute_case(&wallet, id).await
    } else {
        client.expire_case(&wallet, id).await
    };
    spinner.finish_and_clear();
    done(&client, id, &sent?, output).await
}

async fn done(client: &Client, id: u64, sent: &Sent, output: Output) -> Result<ExitCode, Failure> {
    let case = one(client, id).await?;
    let document = json!({ "case": id, "status": case.status, "transaction": sent });
    let word = if case.status == CaseStatus::Executed {
        "executed"
    } else {
        "dismissed"
    };
    output.result(&document, || format!("case {id} is {word} {}", at(sent)))?;
    Ok(ExitCode::SUCCESS)
}

async fn withdraw(purse: &PurseArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(purse)?;
    let credit = client.slashing_credit(wallet.address()).await?;
    let mut document = json!({ "account": wallet.address(), "amount": credit, "transaction": null });
    if credit.is_zero() {
        output.result(&document, || "nothing to collect".to_owned())?;
        return Ok(ExitCode::SUCCESS);
    }
    let sent = pay(&client, &wallet, output).await?;
    document["transaction"] = json!(sent);
    output.result(&document, || format!("collected {credit} OPG {}", at(&sent)))?;
    Ok(ExitCode::SUCCESS)
}

async fn pay(client: &Client, wallet: &Wallet, output: Output) -> Result<Sent, Failure> {
    let spinner = output.spinner("waiting for the block");
    let sent = client.withdraw_slashing_credit(wallet).await;
    spinner.finish_and_clear();
    Ok(sent?)
}

async fn one(client: &Client, id: u64) -> Result<SlashingCase, Failure> {
    client.slashing_case(id).await?.ok_or_else(|| {
        Failure::usage(format!(
            "there is no case {id}; `opg node slash-evidence cases` lists them"
        ))
    })
}

fn class(class: u8) -> &'static str {
    match class {
        slashing::EQUIVOCATION => "equivocation",
        slashing::INVALID_VOTE => "vote for an invalid proof",
        slashing::DOWNTIME => "downtime",
        slashing::FORGED_EVIDENCE => "forged evidence",
        slashing::WRONG_INFERENCE => "wrong inference",
        _ => "unknown",
    }
}

fn subject(case: &SlashingCase) -> String {
    if case.class <= slashing::DOWNTIME {
        Address::from_word(case.subject).to_string()
    } else {
        case.subject.to_string()
    }
}

/// Where a case stands and what comes next.
fn next(case: &SlashingCase, now: u64) -> String {
    let left = case.until.saturating_sub(now);
    match (case.status, left) {
        (CaseStatus::Reported, 1..) => "awaits its verdict".to_owned(),
        (CaseStatus::Appealed, 1..) => "awaits its second verdict".to_owned(),
        (CaseStatus::Reported | CaseStatus::Appealed, 0) => "had no verdict in time: `expire` ends it".to_owned(),
        (CaseStatus::Frozen, 0) => "proven: `execute` slashes".to_owned(),
        (CaseStatus::Frozen, left) => format!("proven, can be slashed in {}", duration(left)),
        (CaseStatus::Executed, _) => "slashed".to_owned(),
        (CaseStatus::Dismissed, _) => "ended without a slash".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn describe(case: &SlashingCase, now: u64) -> String {
    let money = |amount: Amount| format!("{amount} OPG");
    let mut rows = vec![
        ("case", case.id.to_string()),
        ("class", class(case.class).to_owned()),
        ("subject", subject(case)),
        ("epoch", case.epoch.to_string()),
        ("state", next(case, now)),
        ("challenger", case.challenger.to_string()),
        ("bond", money(case.bond)),
    ];
    if !case.appeal_bond.is_zero() {
        rows.push(("bond of the appeal", money(case.appeal_bond)));
    }
    if let Some(rate) = case.rate_ppm {
        rows.push((
            "costs now",
            format!("{}.{:04} % of the stake", rate / 10_000, rate % 10_000),
        ));
    }
    if let Some(user) = case.user {
        rows.push(("user", format!("{user}, who paid {}", money(case.fee))));
    }
    facts(rows)
}
