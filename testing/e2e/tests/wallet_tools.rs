//! Wallet flows against the JSON-RPC front, by a client that we did not write (alloy): send, estimate, receipt, logs, fees,
//! subscriptions.

use alloy::sol_types::SolEvent as _;
use alloy::{
    network::{EthereumWallet, TransactionBuilder as _},
    providers::{Provider as _, ProviderBuilder},
    rpc::types::{BlockNumberOrTag, Filter, TransactionRequest},
    signers::local::PrivateKeySigner,
};
use alloy_primitives::{Address, U256};
use opg_contracts::addresses;
use opg_e2e::{Network, Rpc, abi::OPG, wait_until};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_sends_estimates_reads_logs_and_confirms_within_seconds() {
    let mut network = Network::start();
    let urls: Vec<String> = network.rpc_urls().into_iter().map(str::to_owned).collect();
    assert_eq!(urls.len(), 4, "one endpoint per validator");

    let signer: PrivateKeySigner = network.demo_key().parse().expect("key");
    let from = signer.address();
    let wallet = EthereumWallet::from(signer);
    // sent through the third node: gossip must bring it to whichever validator leads next
    let provider = ProviderBuilder::new()
        .wallet(wallet)
        .connect_http(urls[2].parse().expect("url"));
    assert_eq!(provider.get_chain_id().await.expect("chain id"), 10_740);

    let to = Address::repeat_byte(0x77);
    let value = U256::from(12_345u64);
    let gas = provider
        .estimate_gas(
            TransactionRequest::default()
                .with_from(from)
                .with_to(to)
                .with_value(value),
        )
        .await
        .expect("estimate");
    assert!(
        (21_000..30_000).contains(&gas),
        "a transfer costs about 21k gas, got {gas}"
    );
    let started = std::time::Instant::now();
    let receipt = provider
        .send_transaction(TransactionRequest::default().with_to(to).with_value(value))
        .await
        .expect("send")
        .with_timeout(Some(Duration::from_secs(20)))
        .get_receipt()
        .await
        .expect("receipt");
    assert!(receipt.status());
    // the poller of the client sleeps whole seconds, hence the margin over one block
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "confirmed after {:?}",
        started.elapsed()
    );
    for url in &urls {
        let other = ProviderBuilder::new().connect_http(url.parse().expect("url"));
        wait_until("balance on every node", Duration::from_secs(5), async || {
            other.get_balance(to).await.is_ok_and(|b| b == value)
        })
        .await;
    }

    // an ERC-20 transfer: revert text of a bad one, then logs of a good one
    let opg = OPG::new(addresses::OPG, &provider);
    let too_much = U256::from(10u8).pow(U256::from(27u8));
    let refused = opg
        .transfer(to, too_much)
        .call()
        .await
        .expect_err("more than the balance");
    assert!(
        refused.as_revert_data().is_some(),
        "a revert carries its data: {refused}"
    );
    let receipt = opg
        .transfer(to, value)
        .send()
        .await
        .expect("send")
        .get_receipt()
        .await
        .expect("receipt of the token transfer");
    let logs = provider
        .get_logs(
            &Filter::new()
                .address(addresses::OPG)
                .event_signature(OPG::Transfer::SIGNATURE_HASH)
                .from_block(BlockNumberOrTag::Number(receipt.block_number.expect("mined"))),
        )
        .await
        .expect("logs");
    let transfer = logs
        .iter()
        .find_map(|l| OPG::Transfer::decode_log(&l.inner).ok())
        .expect("the transfer's log");
    assert_eq!((transfer.from, transfer.to, transfer.value), (from, to, value));

    // fees, history, pool and constants, as wallets ask for them at start
    let rpc = Rpc::new(&urls[0]);
    for (method, params) in [
        ("eth_feeHistory", json!(["0x4", "latest", [25, 75]])),
        ("eth_gasPrice", json!([])),
        ("eth_maxPriorityFeePerGas", json!([])),
        ("eth_accounts", json!([])),
        ("eth_syncing", json!([])),
        ("net_version", json!([])),
        ("net_listening", json!([])),
        ("web3_clientVersion", json!([])),
        ("web3_sha3", json!(["0x68656c6c6f"])),
        ("txpool_status", json!([])),
        ("eth_getBlockByNumber", json!(["finalized", false])),
        ("eth_getProof", json!([addresses::OPG, ["0x0"], "latest"])),
        (
            "debug_traceTransaction",
            json!([receipt.transaction_hash, {"tracer": "callTracer"}]),
        ),
    ] {
        let answer = rpc.try_call(method, params).await;
        assert!(answer.is_ok(), "{method}: {answer:?}");
    }
    // block filters are what several libraries poll with
    let filter = rpc.call("eth_newBlockFilter", json!([])).await;
    wait_until("a new block in the filter", Duration::from_secs(10), async || {
        rpc.call("eth_getFilterChanges", json!([filter]))
            .await
            .as_array()
            .is_some_and(|a| !a.is_empty())
    })
    .await;
    // what does not exist says so
    let unknown = rpc
        .try_call("eth_noSuchMethod", json!([]))
        .await
        .expect_err("no such method");
    assert_eq!(unknown["code"], -32601, "{unknown}");

    let status = network.stop();
    assert!(status.success(), "orderly end: {status}");
}
