//! One module per command.

pub(crate) mod channel;
pub(crate) mod chat;
pub(crate) mod closed;
pub(crate) mod deploy;
pub(crate) mod evidence;
pub(crate) mod gov;
pub(crate) mod home;
pub(crate) mod hub;
pub(crate) mod hub_models;
pub(crate) mod hub_pull;
pub(crate) mod infer;
mod inference_node;
pub(crate) mod models;
pub(crate) mod node;
pub(crate) mod receipt;
pub(crate) mod slashing;
pub(crate) mod staking;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod validator;
pub(crate) mod wallet;
pub(crate) mod zk;

use std::{io::Read as _, path::Path};

use opg_client::{Authorized, Client, Job, Network, Purse, Wallet, Way};
use opg_primitives::mode::Mode;

use crate::{
    args::{JobArgs, KeyArgs, ModeArg, NetworkArgs, PayArg},
    failure::Failure,
};

/// Largest prompt or input that is read from a file or stdin; the node accepts less.
const MAX_INPUT: u64 = 32 << 20;

/// A client of the network that the arguments mean.
pub(crate) fn client(network: &NetworkArgs) -> Result<Client, Failure> {
    Ok(Client::new(Network::discover(network.dir.as_deref())?)?)
}

/// The wallet that the arguments mean: `--key` or `OPG_WALLET`, else the demo wallet of the network.
pub(crate) fn wallet(key: &KeyArgs, network: Option<&Network>) -> Result<Wallet, Failure> {
    if let Some(path) = &key.key {
        return Ok(Wallet::load(path)?);
    }
    match network.and_then(Network::wallet) {
        Some(wallet) => Ok(wallet?),
        None => Err(Failure::usage(
            "no wallet named; pass --key FILE or OPG_WALLET=FILE, or make one with `opg wallet new`",
        )),
    }
}

/// The mode of a request; one that the command does not have is refused before anything is paid.
pub(crate) fn check_mode(mode: ModeArg, available: &[Mode]) -> Result<Mode, Failure> {
    let mode = match mode {
        ModeArg::None => Mode::None,
        ModeArg::Zk => Mode::Zk,
        ModeArg::Tee => Mode::Tee,
        // D17's sentence.
        ModeArg::Replay => {
            return Err(Failure::usage(
                "--mode replay is refused: float replay and statistical audits come later; use --mode none",
            ));
        }
    };
    if available.contains(&mode) {
        return Ok(mode);
    }
    let words: Vec<_> = available.iter().map(|mode| mode.as_str()).collect();
    Err(Failure::usage(format!(
        "mode {mode} is not available for this command; available modes: {}",
        words.join(", ")
    )))
}

/// A request as `--encrypted` and `--relay` want it sent. What validators see in the clear cannot be sealed (D11).
pub(crate) fn sealed(job: Job, args: &JobArgs) -> Result<Job, Failure> {
    if !args.encrypted {
        return Ok(job.in_the_clear());
    }
    if job.mode == Mode::Zk {
        return Err(Failure::usage(
            "--encrypted does not go with --mode zk: validators see the request and its answer in the clear",
        ));
    }
    Ok(job.sealed(args.relay.clone()))
}

/// Signs the payment of a call as `--pay` wants it, within the wallet's limits.
pub(crate) async fn authorize(client: &Client, job: Job, wallet: &Wallet, pay: PayArg) -> Result<Authorized, Failure> {
    let purse = Purse::of(client.network(), wallet.address());
    let way = match pay {
        PayArg::Auto | PayArg::Channel | PayArg::Exact => Way::Exact,
        PayArg::Permit => Way::Permit,
        PayArg::Upto => Way::Upto,
    };
    if matches!(pay, PayArg::Auto | PayArg::Channel) {
        match client.authorize_from_channel(job.clone(), wallet, &purse).await? {
            Some(authorized) => return Ok(authorized),
            None if pay == PayArg::Channel => {
                return Err(Failure::usage(format!(
                    "--pay channel: no channel of {} can pay this call; see `opg channel ls`, open one with `opg channel open {} --deposit OPG`",
                    wallet.address(),
                    job.model
                )));
            }
            None => {}
        }
    }
    let quoted = client.quote(job.paid_by(way)).await?;
    if way.needs_permit2() && client.permit2_allowance(wallet.address()).await? < quoted.amount().to_u256() {
        return Err(Failure::usage(format!(
            "Permit2 may not move OPG of {}: allow it once with `opg wallet permit2` (needs gas), or use --pay exact",
            wallet.address()
        )));
    }
    Ok(quoted.authorize_within(wallet, &purse)?)
}

/// Text given as it is, as `@FILE`, or as `-` for stdin.
pub(crate) fn input_text(argument: &str, at_file: bool) -> Result<String, Failure> {
    let read = |name: &str, reader: &mut dyn std::io::Read| {
        let mut text = String::new();
        reader
            .take(MAX_INPUT + 1)
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
        if text.len() as u64 > MAX_INPUT {
            return Err(Failure::usage(format!("{name} is longer than {MAX_INPUT} bytes")));
        }
        Ok(text)
    };
    if argument == "-" {
        return read("stdin", &mut std::io::stdin().lock());
    }
    match argument.strip_prefix('@').filter(|_| at_file) {
        Some(path) => {
            let mut file = std::fs::File::open(Path::new(path))
                .map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))?;
            read(path, &mut file)
        }
        None => Ok(argument.to_owned()),
    }
}

/// Reads a file of at most `max` bytes.
pub(crate) fn read_file(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    match bytes.len() as u64 > max {
        true => Err(Failure::usage(format!("{} is longer than {max} bytes", path.display()))),
        false => Ok(bytes),
    }
}

/// Resolves at Ctrl-C or SIGTERM.
pub(crate) async fn stop_signal() {
    let interrupt = async {
        // Without a handler there is nothing to wait for: the default action ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = async {
            match signal(SignalKind::terminate()) {
                Ok(mut stream) => {
                    stream.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = interrupt => {}
            () = terminate => {}
        }
    }
    #[cfg(not(unix))]
    interrupt.await;
}
