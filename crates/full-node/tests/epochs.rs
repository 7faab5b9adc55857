//! Four full nodes whose epochs are short: seats from the staking contract, reports of views, hand-overs for light clients.

mod support;

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{B256, Bytes, U256};
use opg_contracts::addresses;
use opg_light_client::{CheckpointBook, Epochs, Options, StepName, Verdict, verify};
use opg_primitives::money::Amount;
use opg_receipt::file::{Finality, HandOver, Inclusion};
use serde_json::{Value, json};
use std::time::Duration;
use support::{Network, eventually, receipts};

const BLOCKS: u64 = 6;

async fn handovers(network: &Network, node: usize) -> Vec<HandOver> {
    let answer = network.call(node, "og_getHandovers", json!([])).await;
    serde_json::from_value(answer).unwrap()
}

/// The last transaction of an epoch's last block that the coinbase signed, which must be the end of the epoch; led and missed views.
async fn report(network: &Network, epoch: u64) -> (u64, u64) {
    let height = format!("{:#x}", (epoch + 1) * BLOCKS - 1);
    let block = network.call(0, "eth_getBlockByNumber", json!([height, true])).await;
    let transactions = block["transactions"].as_array().unwrap();
    let system: Vec<&Value> = transactions.iter().filter(|tx| tx["from"] == block["miner"]).collect();
    let last = system.last().expect("an epoch's last block has a system transaction");
    assert_eq!(last["to"], json!(addresses::STAKING));
    let receipt = network
        .call(0, "eth_getTransactionReceipt", json!([last["hash"]]))
        .await;
    assert_eq!(receipt["status"], "0x1");
    let raw = network
        .call(0, "eth_getRawTransactionByHash", json!([last["hash"]]))
        .await;
    let raw: Bytes = serde_json::from_value(raw).unwrap();
    let input = TxEnvelope::decode_2718(&mut raw.as_ref()).unwrap().input().clone();
    // selector, epoch, offset, length, then (operator, led, missed)
    let words: Vec<U256> = input[4..].chunks(32).map(U256::from_be_slice).collect();
    assert_eq!((words[0], words[2]), (U256::from(epoch), U256::from(4)));
    let column = |c: usize| words[3 + c..].iter().step_by(3).map(|w| w.to::<u64>()).sum();
    (column(1), column(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_end_in_state_and_light_clients_follow() {
    let mut genesis = support::genesis();
    genesis.parameters.epoch_blocks = BLOCKS;
    let mut network = Network::start_with(genesis).await;
    // epochs 0 and 1 are over
    network.reach(2 * BLOCKS + 1).await;
    for i in 0..4 {
        let status = network.node(i).status();
        assert!(status.epoch >= 2 && status.seated, "{status:?}");
    }
    // epoch 0 has one block less: the genesis is of it
    assert_eq!(report(&network, 0).await.0, BLOCKS - 1);
    assert_eq!(report(&network, 1).await.0, BLOCKS);

    // a receipt of a later epoch is verified from the genesis alone
    let made = receipts::make(&network.genesis, 0, B256::ZERO, Amount(1_000_000_000));
    let bytes = format!("0x{}", hex::encode(made.receipt.cose()));
    network.call(1, "og_submitReceipt", json!([bytes])).await;
    let id = json!(made.receipt.core().receipt_id);
    let inclusion = eventually("inclusion", 20, async || {
        let answer = network.call(2, "og_getInclusionProof", json!([id])).await;
        serde_json::from_value::<Option<Inclusion>>(answer).unwrap()
    })
    .await;
    let mut file = made.file.clone();
    file.inclusion = Some(inclusion);
    let options = Options::default();
    let without = verify(&file, &network.genesis, &options).unwrap();
    assert_eq!(without.failure().map(|step| step.name), Some(StepName::Finality));
    file.handovers = handovers(&network, 3).await;
    let report_of_file = verify(&file, &network.genesis, &options).unwrap();
    assert_eq!(report_of_file.verdict, Verdict::Unproven, "{report_of_file:#?}");
    let digest = network.genesis.digest();
    let mut book = CheckpointBook::new(digest);
    book.merge(digest, &report_of_file.checkpoints).unwrap();

    // one validator is away for more than an epoch: its views are missed, and it finds its way back
    network.stop(3).await;
    let away = network.node(0).status().epoch + 1;
    eventually("an epoch without node 3", 120, async || {
        (network.node(0).status().epoch > away).then_some(())
    })
    .await;
    let (led, missed) = report(&network, away).await;
    assert!(led == BLOCKS && missed >= 1, "{led} {missed}");
    network.start_one(3).await;
    network.reach(network.height(0)).await;
    eventually("the seat of node 3", 20, async || {
        let (a, b) = (network.node(3).status(), network.node(0).status());
        (a.seated && a.epoch == b.epoch).then_some(())
    })
    .await;

    // all of them, wherever in an epoch they are
    network.stop_all().await;
    network.start_all().await;
    let there = network.height(0);
    tokio::time::timeout(Duration::from_secs(120), async {
        while network.height(0) < there + BLOCKS + 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("the chain goes on");

    // each node gives the same history, and a light client follows it to the newest certificate
    let lists = [handovers(&network, 0).await, handovers(&network, 3).await];
    for list in &lists {
        let mut epochs = Epochs::from_genesis(&network.genesis).unwrap();
        for handover in list {
            epochs.advance(handover).unwrap();
        }
        book.merge(digest, epochs.checkpoints()).unwrap();
        let checkpoint = network.call(1, "og_getCheckpoint", json!([])).await;
        if epochs.last() >= checkpoint["epoch"].as_u64().unwrap() {
            let part = |name: &str| serde_json::from_value(checkpoint[name].clone()).unwrap();
            let finality = Finality {
                header: part("header"),
                envelopes: serde_json::from_value(checkpoint["envelopes"].clone()).unwrap(),
                proposal: part("proposal"),
                certificate: part("certificate"),
            };
            assert_eq!(epochs.verify(&finality).unwrap().proposal.epoch, epochs.last());
        }
    }
    assert!(book.newest().unwrap().epoch >= 4);
    network.stop_all().await;
}
