//! One module per command.

pub(crate) mod chat;
pub(crate) mod evidence;
pub(crate) mod infer;
pub(crate) mod models;
pub(crate) mod node;
pub(crate) mod receipt;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod wallet;
pub(crate) mod zk;

use std::{io::Read as _, path::Path};

use opg_client::{Client, Network, Wallet};

use crate::{
    args::{KeyArgs, ModeArg, NetworkArgs},
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

/// Refuses a mode that this version does not serve, before anything is paid.
pub(crate) fn check_mode(mode: ModeArg) -> Result<(), Failure> {
    match mode {
        ModeArg::None => Ok(()),
        // D17's sentence.
        ModeArg::Replay => Err(Failure::usage(
            "--mode replay is refused: float replay and statistical audits come later; use --mode none",
        )),
        ModeArg::Tee | ModeArg::Zk => Err(Failure::usage(
            "this mode is not available on this network yet; available modes: none",
        )),
    }
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
