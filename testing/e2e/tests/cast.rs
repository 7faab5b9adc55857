//! Foundry's `cast` against the JSON-RPC front: what a developer types in a terminal.

use opg_contracts::addresses;
use opg_e2e::{Cast, Network};
use serde_json::{Value, json};

#[test]
fn cast_sends_estimates_calls_reads_logs_and_proofs() {
    let mut network = Network::start();
    let Some(cast) = Cast::find(network.rpc_urls()[1]) else {
        return;
    };
    let key = network.demo_key();
    let opg = addresses::OPG.to_string();
    let to = "0x7777777777777777777777777777777777777777";
    assert_eq!(cast.text(&["chain-id"]), "10740");
    assert!(number(&cast.text(&["block-number"])) > 0);
    assert!(cast.text(&["client"]).starts_with("opg"), "{}", cast.text(&["client"]));
    let from = cast.text(&["wallet", "address", "--private-key", &key]);

    // native coin: estimate, send, receipt, balance
    let gas = number(&cast.text(&["estimate", to, "--value", "12345", "--from", &from]));
    assert!((21_000..30_000).contains(&gas), "gas of a transfer: {gas}");
    let receipt = cast.json(&["send", to, "--value", "12345", "--private-key", &key, "--json"]);
    assert_eq!(receipt["status"], json!("0x1"), "{receipt}");
    assert_eq!(cast.text(&["balance", to]), "12345");
    assert!(number(&cast.text(&["nonce", &from])) > 0);

    // the token: call, send, logs, and a revert with its reason
    assert_eq!(cast.text(&["call", &opg, "symbol()(string)"]), "\"OPG\"");
    let receipt = cast.json(&[
        "send",
        &opg,
        "transfer(address,uint256)",
        to,
        "678",
        "--private-key",
        &key,
        "--json",
    ]);
    assert_eq!(receipt["status"], json!("0x1"), "{receipt}");
    assert_eq!(
        cast.text(&["call", &opg, "balanceOf(address)(uint256)", to]),
        "678",
        "the transfer arrived"
    );
    let block = receipt["blockNumber"].as_str().expect("mined").to_owned();
    let logs = cast.json(&[
        "logs",
        "--address",
        &opg,
        "--from-block",
        &block,
        "--to-block",
        &block,
        "--json",
        "Transfer(address indexed,address indexed,uint256)",
    ]);
    let data: Vec<&Value> = logs.as_array().expect("logs").iter().map(|log| &log["data"]).collect();
    assert!(data.contains(&&json!(format!("{:#066x}", 678))), "{logs}");
    let too_much = "1000000000000000000000000000";
    let refused = cast.run(&["call", &opg, "transfer(address,uint256)", to, too_much, "--from", &from]);
    assert_ne!(refused.code(), 0, "more than the balance");
    assert!(
        refused.stderr.contains("revert") && refused.stderr.contains("0xe450d38c"),
        "the error carries ERC20InsufficientBalance: {}",
        refused.stderr
    );

    // wallets that sign typed data, and contracts that read the receipts' root by EIP-4788
    let proof = cast.json(&["proof", &opg, "0x0"]);
    assert_eq!(
        proof["address"].as_str().map(str::to_lowercase),
        Some(opg.to_lowercase()),
        "{proof}"
    );
    let parent = cast.json(&["block", &block, "--json"]);
    let root = parent["parentBeaconBlockRoot"]
        .as_str()
        .expect("EIP-4788 root")
        .to_owned();
    let time = parent["timestamp"]
        .as_str()
        .expect("timestamp")
        .trim_start_matches("0x");
    let beacon_roots = "0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02";
    let stored = cast.text(&["call", beacon_roots, "--data", &format!("0x{time:0>64}")]);
    assert_eq!(stored, root, "the receipts' root as a contract reads it");

    let history = cast.text(&["rpc", "eth_feeHistory", "0x4", "latest", "[25,75]"]);
    assert!(history.contains("baseFeePerGas"), "{history}");
    assert!(cast.text(&["gas-price"]).parse::<u128>().is_ok());
    let transaction = receipt["transactionHash"].as_str().expect("hash");
    assert_eq!(cast.text(&["tx", transaction, "from"]), from);

    let status = network.stop();
    assert!(status.success(), "orderly end: {status}");
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text:?}"))
}
