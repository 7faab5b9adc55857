//! This validator's feed of the price oracle (`PriceOracle.sol`): once a minute it reads a price from the source that its operator
//! chose, signs it with the system key and sends it from an account that is no system account, because blocks take no ordinary
//! transactions of those (D16).
//!
//! No source is built in: each validator has its own, a file that something else keeps up to date or a command, so that the median is over
//! sources and not over readers of one. A source that fails, is old or says something else than a price means no feed, never a guess. What
//! the contract would refuse (no seat, fed already, the round is over) is not sent.

use crate::{
    config::{OracleConfig, PriceSource, bytes_of},
    shared::Shared,
    system,
};
use alloy_consensus::TxEip1559;
use alloy_primitives::{B256, TxKind, U256};
use alloy_sol_types::{SolCall as _, SolStruct as _, eip712_domain};
use opg_contracts::{PriceOracle, addresses};
use opg_payments::signature::{address_of_secret, sign_digest};
use secp256k1::SecretKey;
use serde_json::json;
use std::{
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

/// Seconds of a round, as in the contract.
const ROUND: u64 = 60;
/// Later in a round a feed may land in the next one.
const LATEST: u64 = 45;
/// Time between two looks.
const POLL: Duration = Duration::from_secs(1);
/// A command has this long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// A source says no more than this, bytes.
const MAX_TEXT: u64 = 1_024;
/// Decimals of a price in USD.
const DECIMALS: usize = 6;
/// Highest price, micro-USD, as in the contract.
const MAX_PRICE: u128 = 1_000_000_000_000;
/// Priority fee, wei.
const TIP: u128 = 1_000_000;

mod eip712 {
    alloy_sol_types::sol! {
        struct PriceFeed {
            uint64 round;
            uint128 price;
        }
    }
}

/// Why there is no feed this time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// The file cannot be read, or the command does not run.
    #[error("{source_name}: {source}")]
    Io {
        source_name: String,
        source: std::io::Error,
    },
    /// The file was written too long ago.
    #[error("{file} was written {seconds} s ago, more than oracle.max_age_secs = {limit}")]
    Old { file: String, seconds: u64, limit: u64 },
    /// The command failed or took too long.
    #[error("{command} {problem}")]
    Command { command: String, problem: String },
    /// What was said is no price.
    #[error("expected a price such as 0.25 (USD of one OPG, at most {DECIMALS} decimals), got {got:?}")]
    NoPrice { got: String },
    /// The chain would refuse the feed, or does not answer.
    #[error("{0}")]
    Chain(String),
}

/// Reads USD of one OPG as micro-USD.
pub(crate) fn parse_price(text: &str) -> Result<u128, FeedError> {
    let bad = || FeedError::NoPrice {
        got: text.trim().chars().take(40).collect(),
    };
    let trimmed = text.trim();
    let (whole, decimals) = trimmed.split_once('.').unwrap_or((trimmed, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 7 || decimals.len() > DECIMALS || !digits(whole) || !digits(decimals) {
        return Err(bad());
    }
    if trimmed.ends_with('.') {
        return Err(bad());
    }
    let micro: u128 = format!("{whole}{decimals:0<DECIMALS$}").parse().map_err(|_| bad())?;
    if micro == 0 || micro > MAX_PRICE {
        return Err(bad());
    }
    Ok(micro)
}

async fn read(config: &OracleConfig) -> Result<u128, FeedError> {
    let text = match &config.source {
        PriceSource::File(path) => read_file(path, config.max_age_secs).await?,
        PriceSource::Command(command) => run_command(command).await?,
    };
    parse_price(&text)
}

async fn read_file(path: &Path, limit: u64) -> Result<String, FeedError> {
    let io = |source| FeedError::Io {
        source_name: path.display().to_string(),
        source,
    };
    let file = tokio::fs::File::open(path).await.map_err(io)?;
    let written = file.metadata().await.and_then(|data| data.modified()).map_err(io)?;
    // A file from the future is as new as can be.
    let seconds = SystemTime::now().duration_since(written).unwrap_or_default().as_secs();
    if seconds > limit {
        return Err(FeedError::Old {
            file: path.display().to_string(),
            seconds,
            limit,
        });
    }
    let mut text = String::new();
    file.take(MAX_TEXT).read_to_string(&mut text).await.map_err(io)?;
    Ok(text)
}

async fn run_command(command: &[String]) -> Result<String, FeedError> {
    let name = command.first().cloned().unwrap_or_default();
    let failed = |problem: String| FeedError::Command {
        command: name.clone(),
        problem,
    };
    let mut child = tokio::process::Command::new(&name)
        .args(command.iter().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| FeedError::Io {
            source_name: name.clone(),
            source,
        })?;
    let out = child.stdout.take();
    let run = async {
        let mut text = String::new();
        if let Some(out) = out {
            out.take(MAX_TEXT).read_to_string(&mut text).await?;
        }
        Ok::<_, std::io::Error>((text, child.wait().await?))
    };
    let (text, status) = tokio::time::timeout(COMMAND_TIMEOUT, run)
        .await
        .map_err(|_| failed(format!("did not end within {} s", COMMAND_TIMEOUT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(format!("ended with {status}")));
    }
    Ok(text)
}

/// What the oracle takes from a validator for a round.
pub(crate) fn sign_feed(key: &SecretKey, chain_id: u64, round: u64, price: u128) -> PriceOracle::Feed {
    let domain = eip712_domain! {
        name: "OpenGradient PriceOracle",
        version: "1",
        chain_id: chain_id,
        verifying_contract: addresses::PRICE_ORACLE,
    };
    let digest = eip712::PriceFeed { round, price }.eip712_signing_hash(&domain);
    PriceOracle::Feed {
        account: address_of_secret(key),
        round,
        price,
        signature: sign_digest(digest, key).to_vec().into(),
    }
}

/// Reads the account that sends feeds and pays for them: a file with 64 hex digits.
pub(crate) fn load_relayer(path: &Path) -> Result<SecretKey, FeedError> {
    let text = std::fs::read_to_string(path).map_err(|source| FeedError::Io {
        source_name: path.display().to_string(),
        source,
    })?;
    let bytes = bytes_of::<32>(text.trim());
    let key = bytes.and_then(|bytes| SecretKey::from_byte_array(&bytes).ok());
    key.ok_or_else(|| FeedError::Chain(format!("{}: expected a secret key of 64 hex digits", path.display())))
}

/// Feeds each round once, until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, config: OracleConfig, relayer: SecretKey, stop: CancellationToken) {
    let mut fed = 0;
    let mut told = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let round = now / ROUND;
        if round == fed || now % ROUND > LATEST {
            continue;
        }
        match feed(&shared, &config, &relayer, round).await {
            Ok(Some((hash, price))) => {
                fed = round;
                told.clear();
                tracing::info!(round, price, %hash, "price fed to the oracle");
            }
            // The chain is not in this round yet.
            Ok(None) => {}
            Err(error) => {
                // The same trouble is told once, and tried again within the round.
                let text = error.to_string();
                if text != told {
                    tracing::warn!(round, %error, "no price is fed to the oracle");
                    told = text;
                }
            }
        }
    }
}

async fn feed(
    shared: &Shared,
    config: &OracleConfig,
    relayer: &SecretKey,
    round: u64,
) -> Result<Option<(B256, u128)>, FeedError> {
    let chain = |error: &dyn std::fmt::Display| FeedError::Chain(error.to_string());
    let head = shared.execution.head();
    let timestamp = shared.execution.timestamp(head.hash).await.map_err(|e| chain(&e))?;
    if timestamp / ROUND != round {
        return Ok(None);
    }
    let price = read(config).await?;
    let chain_id = shared.execution.chain_id();
    let call = PriceOracle::submitCall {
        feeds: vec![sign_feed(&shared.system_key, chain_id, round, price)],
    };
    let data = alloy_primitives::Bytes::from(call.abi_encode());
    let from = address_of_secret(relayer);
    // What would revert is not paid for.
    let estimate = json!([{"from": from, "to": addresses::PRICE_ORACLE, "data": data}]);
    let estimated = shared.execution.call("eth_estimateGas", estimate).await;
    let estimated =
        estimated.map_err(|error| FeedError::Chain(format!("the oracle refuses the feed: {}", error.to_json())))?;
    let gas: Option<U256> = estimated.as_str().and_then(|text| text.parse().ok());
    let gas = gas.and_then(|gas| u64::try_from(gas).ok());
    let gas = gas.ok_or_else(|| FeedError::Chain(format!("eth_estimateGas: {estimated}")))?;
    let nonce = shared.execution.nonce_at(head.hash, from).map_err(|e| chain(&e))?;
    let base_fee = shared.execution.base_fee_next(head.hash).map_err(|e| chain(&e))?;
    let transaction = TxEip1559 {
        chain_id,
        nonce,
        gas_limit: gas.saturating_add(gas / 2),
        max_fee_per_gas: u128::from(base_fee).saturating_mul(4) + TIP,
        max_priority_fee_per_gas: TIP,
        to: TxKind::Call(addresses::PRICE_ORACLE),
        value: U256::ZERO,
        access_list: Default::default(),
        input: data,
    };
    let raw = system::sign(transaction, relayer);
    let hash = shared.add_transaction(raw, true).await.map_err(|e| chain(&e))?;
    Ok(Some((hash, price)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(source: PriceSource) -> OracleConfig {
        OracleConfig {
            source,
            relayer: "relayer.key".into(),
            max_age_secs: 300,
        }
    }

    #[test]
    fn prices_are_decimal_usd() {
        for (text, micro) in [
            ("0.25\n", 250_000),
            ("1", 1_000_000),
            (" 12.345678 ", 12_345_678),
            ("0.000001", 1),
            ("1000000", MAX_PRICE),
        ] {
            assert_eq!(parse_price(text).unwrap(), micro, "{text:?}");
        }
        for text in [
            "",
            "0",
            "0.0000001",
            "-1",
            "1e3",
            "1,5",
            ".5",
            "5.",
            "1000000.000001",
            "0.25 USD",
            "0.1.2",
            "99999999",
        ] {
            assert!(matches!(parse_price(text), Err(FeedError::NoPrice { .. })), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_source_that_fails_or_is_old_gives_no_price() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("price");
        let of_file = config(PriceSource::File(path.clone()));
        assert!(matches!(read(&of_file).await, Err(FeedError::Io { .. })));
        std::fs::write(&path, "0.31\n").unwrap();
        assert_eq!(read(&of_file).await.unwrap(), 310_000);
        let old = SystemTime::now() - Duration::from_secs(302);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert!(matches!(read(&of_file).await, Err(FeedError::Old { .. })));
        let of = |command: &str| config(PriceSource::Command(vec!["sh".into(), "-c".into(), command.into()]));
        assert_eq!(read(&of("echo 0.5")).await.unwrap(), 500_000);
        assert!(matches!(
            read(&of("echo 0.5; exit 3")).await,
            Err(FeedError::Command { .. })
        ));
        assert!(matches!(
            read(&of("yes 1")).await,
            Err(FeedError::NoPrice { .. } | FeedError::Command { .. })
        ));
        let missing = config(PriceSource::Command(vec!["opg-no-such-command".into()]));
        assert!(matches!(read(&missing).await, Err(FeedError::Io { .. })));
    }
}
