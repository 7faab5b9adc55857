//! `opg infer`.

use std::{path::Path, process::ExitCode, time::Duration};

use opg_client::{Client, Job, Paid, Stage, write_atomically};
use opg_primitives::{ids::ReceiptId, mode::Mode};
use opg_receipt::State;
use serde_json::{Value, json};

use super::{authorize, check_mode, client, input_text, sealed, wallet};
use crate::{
    args::{InferArgs, JobArgs},
    failure::Failure,
    output::Output,
};

/// Runs a model on tensors.
pub(crate) async fn run(args: InferArgs, output: Output) -> Result<ExitCode, Failure> {
    let mode = check_mode(args.job.mode, &[Mode::None, Mode::Tee, Mode::Zk])?;
    let text = input_text(&args.input, true)?;
    let inputs: Value =
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("--input is not JSON: {error}")))?;
    if !inputs.is_object() {
        return Err(Failure::usage(
            "--input: expected an object of tensors by name, such as {\"X\": [[0, 1]]}",
        ));
    }
    let client = client(&args.job.network)?;
    let wallet = wallet(&args.job.key, Some(client.network()))?;
    check_receipt_path(&args.job)?;
    if mode == Mode::Zk {
        // D11: said before anything is sent.
        eprintln!("note: in mode zk validators see this request and its answer in the clear");
    }
    let job = sealed(Job::infer_in(mode, &args.model, &inputs, args.job.max_spend), &args.job)?;
    let spinner = output.spinner("paying and running");
    let answer = async {
        let paid = authorize(&client, job, &wallet, args.job.pay).await?;
        Ok::<_, Failure>(client.infer(&paid).await?)
    }
    .await;
    spinner.finish_and_clear();
    let answer = answer?;
    let (standing, failure) = save_receipt(&client, &answer.paid, &args.job, output).await;
    let document =
        json!({ "outputs": answer.outputs, "receipt_id": id(&answer.paid), "opg": summary(&answer.paid, &standing) });
    output.result(&document, || answer.outputs.to_string())?;
    tell(&answer.paid, &standing);
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The receipt's id.
pub(crate) fn id(paid: &Paid) -> ReceiptId {
    paid.receipt.core().receipt_id
}

/// Where a job's receipt stands when the command ends.
pub(crate) struct Standing {
    /// Word of the lifecycle.
    pub(crate) state: State,
    /// Block of the receipt, once final.
    pub(crate) height: Option<u64>,
    /// Receipt file, if one was written.
    pub(crate) file: Option<std::path::PathBuf>,
}

/// Refuses a receipt path that cannot be written, before anything is paid.
pub(crate) fn check_receipt_path(job: &JobArgs) -> Result<(), Failure> {
    let Some(path) = &job.receipt else { return Ok(()) };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        return Err(Failure::usage(format!(
            "--receipt: {} is not a place for a file",
            path.display()
        )));
    }
    Ok(())
}

/// With `--receipt`, waits for finality and settlement and writes the file that proves them. The answer is paid for and
/// must reach the caller also if this fails, so a failure is given beside the standing.
pub(crate) async fn save_receipt(
    client: &Client,
    paid: &Paid,
    job: &JobArgs,
    output: Output,
) -> (Standing, Option<Failure>) {
    // The node has signed and this client has checked; validators have not yet.
    let mut standing = Standing {
        state: State::Executed,
        height: None,
        file: None,
    };
    let Some(path) = &job.receipt else {
        return (standing, None);
    };
    let spinner = output.spinner(match paid.receipt.core().mode.served {
        Mode::Zk => "waiting for the proof",
        _ => "waiting for finality",
    });
    let file = client
        .fetch_receipt_file(paid, Duration::from_secs(job.timeout), |stage| match stage {
            Stage::Proven(bytes) => spinner.set_message(format!("proven in {bytes} bytes; waiting for finality")),
            Stage::Final(block) => {
                (standing.state, standing.height) = (State::Final, Some(block));
                spinner.set_message("final; waiting for settlement");
            }
            Stage::Settled => {
                standing.state = State::Settled;
                spinner.set_message("settled; collecting proofs");
            }
        })
        .await;
    spinner.finish_and_clear();
    let written = match file {
        Ok(file) => write_atomically(path, &file.to_bytes()).map_err(Failure::from),
        Err(error) => Err(error.into()),
    };
    if written.is_ok() {
        standing.file = Some(path.clone());
    }
    (standing, written.err())
}

/// What programs learn about payment and receipt.
pub(crate) fn summary(paid: &Paid, standing: &Standing) -> Value {
    let core = paid.receipt.core();
    json!({
        "receipt_id": core.receipt_id,
        "state": standing.state,
        "mode": core.mode.served,
        "grade": core.mode.grade,
        "node": core.node_id,
        "model_root": core.model.served_root,
        "usage": { "unit": core.usage.unit, "input": core.usage.input, "output": core.usage.output },
        "signed": core.payment.amount,
        "charge": core.price.charge,
        "credited_back": opg_client::answer::refund(&paid.receipt),
        "height": standing.height,
        "secret": paid.secret,
        "receipt_file": standing.file,
    })
}

/// One line about the payment, on stderr so that stdout is the answer alone.
pub(crate) fn tell(paid: &Paid, standing: &Standing) {
    let core = paid.receipt.core();
    let mut line = format!(
        "receipt {}: {}, {} OPG",
        core.receipt_id, standing.state, core.price.charge
    );
    match (core.mode.served, &standing.file) {
        (Mode::None, _) => line.push_str(", unproven (signature only)"),
        (Mode::Zk, Some(_)) => line.push_str(", verified (zk)"),
        (Mode::Zk, None) => line.push_str(", proof to come"),
        (mode, Some(_)) => line.push_str(&format!(", verified ({mode}, {})", core.mode.grade)),
        (mode, None) => line.push_str(&format!(
            ", {mode} ({}), not checked by validators yet",
            core.mode.grade
        )),
    }
    if let Some(file) = &standing.file {
        line.push_str(&format!("; written to {}", file.display()));
    }
    eprintln!("{line}");
}
