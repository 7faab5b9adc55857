//! `opg receipt`.

use std::{
    io::Read as _,
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use opg_client::{KeptCheckpoints, KeptError, Network, load_genesis, text::one_line};
use opg_light_client::{Options, Report, Status, Verdict, Verifier};
use opg_primitives::mode::{Grade, Mode};
use opg_receipt::{ReceiptFile, SignedReceipt, UpstreamRecord, file::MAX_FILE_BYTES};
use serde_json::json;

use crate::{
    args::{ReceiptCommand, VerifyArgs},
    failure::Failure,
    output::{Output, facts},
};

/// Runs a receipt command. Nothing here uses the network.
pub(crate) fn run(command: ReceiptCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        ReceiptCommand::Show { file } => show(&file, output),
        ReceiptCommand::Verify(args) => check(&args, output),
    }
}

/// Reads a receipt file, bounded.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    Ok(bytes)
}

fn show(path: &Path, output: Output) -> Result<ExitCode, Failure> {
    let broken = |error| Failure::Failed(eyre::eyre!("{}: {error}", path.display()));
    let file = ReceiptFile::parse_strict(&read(path)?).map_err(broken)?;
    let receipt = SignedReceipt::decode(&file.core).map_err(broken)?;
    let core = receipt.core();
    let document = json!({ "core": core, "core_hash": receipt.core_hash(), "parts": {
        "opening": file.opening.is_some(), "inclusion": file.inclusion.is_some(),
        "registration": file.registration.is_some(), "payment": file.payment.is_some(),
    }, "judged": false });
    output.result(&document, || {
        let place = file.inclusion.as_ref().map_or("not in the file".into(), |inclusion| {
            format!(
                "block {}, receipt {} of {}",
                inclusion.height,
                inclusion.index + 1,
                inclusion.count
            )
        });
        let mut rows = vec![
            ("receipt", core.receipt_id.to_string()),
            ("chain id", core.chain_id.to_string()),
            ("node", core.node_id.to_string()),
            ("sequence", core.seq.to_string()),
            (
                "model",
                format!("{} ({})", one_line(&core.model.asked, 200), core.model.served_root),
            ),
            ("mode, grade", format!("{}, {}", core.mode.served, core.mode.grade)),
            (
                "finish",
                format!("{} (HTTP {})", core.response.finish.as_str(), core.response.status),
            ),
            (
                "usage",
                format!(
                    "{} in, {} out ({})",
                    core.usage.input,
                    core.usage.output,
                    core.usage.unit.as_str()
                ),
            ),
            (
                "signed",
                format!("{} OPG by {}", core.payment.amount, core.payment.payer),
            ),
            ("charge", format!("{} OPG", core.price.charge)),
            ("credited back", format!("{} OPG", opg_client::answer::refund(&receipt))),
        ];
        if let Some(upstream) = &core.upstream {
            rows.extend(upstream_rows(upstream));
        }
        rows.push(("final", place));
        let mut text = facts(rows);
        text.push_str("This is what the file says; `opg receipt verify` judges it.\n");
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the node recorded about the provider of a closed model.
fn upstream_rows(upstream: &UpstreamRecord) -> Vec<(&'static str, String)> {
    let absent = || "not said".to_owned();
    let text = |text: &Option<String>| text.as_ref().map_or_else(absent, |text| one_line(text, 200));
    vec![
        (
            "provider",
            format!("{} at {}:{}", upstream.provider, upstream.host, upstream.port),
        ),
        (
            "TLS peer",
            upstream.peer.as_ref().map_or_else(
                || "none: a server on the node's own machine".to_owned(),
                |peer| format!("certificate chain {}, key {}", peer.chain, peer.spki),
            ),
        ),
        ("asked for", one_line(&upstream.model, 200)),
        ("answered as", text(&upstream.reported_model)),
        ("response id", text(&upstream.response_id)),
        (
            "raw answer",
            format!(
                "{} bytes{}, commitment {}",
                upstream.answer_bytes,
                if upstream.complete { "" } else { " (cut)" },
                upstream.answer
            ),
        ),
        ("translation", one_line(&upstream.transform, 200)),
    ]
}

fn check(args: &VerifyArgs, output: Output) -> Result<ExitCode, Failure> {
    let genesis = match &args.genesis {
        Some(path) => load_genesis(path)?,
        None => {
            Network::discover(args.network.dir.as_deref())
                .map_err(|error| Failure::usage(format!("which genesis? name it with --genesis FILE ({error})")))?
                .genesis
        }
    };
    let require = args.require.as_deref().map(requirement).transpose()?;
    let bytes = read(&args.file)?;
    let kept = match args.no_keep {
        true => None,
        false => KeptCheckpoints::of_user(genesis.digest()),
    };
    let book = kept.as_ref().map(KeptCheckpoints::load).transpose()?;
    let options = Options {
        require,
        now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .map(|now| now.as_secs()),
        trusted_checkpoint: args.trust_checkpoint,
        kept: book,
        accept_old_anchor: args.accept_old_anchor,
    };
    let verifier =
        Verifier::new(&genesis).map_err(|error| Failure::usage(format!("the genesis file is not usable: {error}")))?;
    let report = verifier.verify_bytes(&bytes, &options);
    // What rests on an anchor that is too old is not vouched for, whatever else holds.
    if let Some(kept) =
        kept.filter(|_| report.failure().is_none() && !matches!(report.verdict, Verdict::OldAnchor { .. }))
        && !args.accept_old_anchor
        && let Err(error) = kept.keep(&report.checkpoints)
    {
        match error {
            KeptError::File(error) => eprintln!("warning: this verification is not remembered: {error}"),
            error => return Err(error.into()),
        }
    }
    output.result(&report, || describe(&report))?;
    match report.failure() {
        Some(step) => eprintln!(
            "error: the receipt does not verify: {}: {}",
            step.name.as_str(),
            one_line(&step.detail, 400)
        ),
        None if !report.verdict.is_success() => eprintln!("error: {}", report.verdict),
        None => {}
    }
    Ok(ExitCode::from(report.verdict.exit_code()))
}

/// Every step, then the verdict line.
fn describe(report: &Report) -> String {
    let width = report
        .steps
        .iter()
        .map(|step| step.name.as_str().len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for step in &report.steps {
        let mark = match step.status {
            Status::Ok => "ok  ",
            Status::Failed => "FAIL",
            Status::Skipped => "skip",
        };
        text.push_str(&format!(
            "{mark}  {:width$}  {}\n",
            step.name.as_str(),
            one_line(&step.detail, 400)
        ));
    }
    text.push_str(&report.verdict.to_string());
    text
}

/// `MODE[,GRADE]`.
fn requirement(text: &str) -> Result<(Mode, Option<Grade>), Failure> {
    let (mode, grade) = match text.split_once(',') {
        Some((mode, grade)) => (mode, Some(grade)),
        None => (text, None),
    };
    let wrong = |error| Failure::usage(format!("--require: {error}"));
    let mode = mode.parse::<Mode>().map_err(wrong)?;
    let grade = grade.map(str::parse::<Grade>).transpose().map_err(wrong)?;
    Ok((mode, grade))
}

impl From<KeptError> for Failure {
    fn from(error: KeptError) -> Self {
        Self::failed(error)
    }
}
