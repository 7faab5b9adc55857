//! `opg up`.

use std::process::ExitCode;

use opg_devnet::{Devnet, DevnetError, Options};
use serde_json::json;

use super::stop_signal;
use crate::{args::UpArgs, demo, failure::Failure, output::Output};

/// Starts a local network and keeps it up until Ctrl-C or SIGTERM, or writes the files of a split one.
pub(crate) async fn run(args: UpArgs, output: Output) -> Result<ExitCode, Failure> {
    if let Some(dir) = &args.split {
        let split = Devnet::split(dir, args.validators, args.port_base, args.parameters.as_deref())?;
        Devnet::stock(dir).await?;
        output.result(&split, || {
            let mut text = format!("network written to {}; start each role with\n", split.dir.display());
            for role in &split.roles {
                text.push_str(&format!(
                    "  opg node {} --config {}\n",
                    role.kind,
                    role.config.display()
                ));
            }
            text
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let spinner = output.spinner("starting the network");
    let options = Options {
        dir: args.dir.clone(),
        ephemeral: args.ephemeral,
        validators: args.validators,
        port_base: args.port_base,
        parameters: args.parameters.clone(),
    };
    // Ctrl-C during start-up ends the process at once; what is on disk is continued by the next start.
    let started = tokio::select! {
        started = Devnet::up(options) => started,
        () = stop_signal() => return Ok(ExitCode::SUCCESS),
    };
    spinner.finish_and_clear();
    let mut running = started?;
    let network = running.network();
    if output.json {
        output.say_json(&json!({ "event": "ready", "dir": network.dir, "start_ms": running.start_time().as_millis(), "network": network.file }))?;
    } else {
        for line in running.description() {
            output.say(&line);
        }
    }
    output.say("network ready");
    let outcome = if args.demo {
        tokio::select! {
            outcome = demo::run(running.network(), output) => outcome,
            () = stop_signal() => {
                running.shutdown().await?;
                return Ok(ExitCode::SUCCESS);
            }
        }
    } else {
        Ok(())
    };
    if let Err(failure) = outcome {
        // A failed demonstration is the command's result: nothing stays up that does not work.
        running.shutdown().await?;
        return Err(failure);
    }
    if args.demo {
        output.say("the network stays up; stop it with Ctrl-C");
    }
    tokio::select! {
        () = stop_signal() => {}
        error = running.failed() => {
            // The first failure is what the user must see; one during the shutdown follows from it.
            let _ = running.shutdown().await;
            return Err(error.into());
        }
    }
    tracing::info!("stopping");
    running.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

impl From<DevnetError> for Failure {
    fn from(error: DevnetError) -> Self {
        if error.is_input() {
            Self::input(error)
        } else {
            Self::failed(error)
        }
    }
}
