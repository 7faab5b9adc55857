//! Four full nodes whose gas limit governance changes: a real proposal, its vote and its execution, and the same block limits everywhere
//! from the height on that was announced.

mod support;

use alloy_primitives::{Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use opg_contracts::{ChainParameters, Governance, Governor, OPG, addresses};
use opg_payments::signature::address_of_secret;
use opg_primitives::money::{Amount, WEI_PER_OPG};
use serde_json::{Value, json};
use support::{Network, eventually, secret, signed_call};

const OLD: u64 = 120_000_000;
/// One block's step and a bit: the EVM lets the limit change by less than 1/1024 a block.
const NEW: u64 = OLD + OLD / 1_024 - 1 + 5_000;

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gas_limit_that_governance_decides_counts_at_its_height_on_all_validators() {
    // who holds nearly everything decides alone
    let owner = secret(0x45);
    let mut genesis = support::genesis();
    genesis.parameters.governance = Some(Governance {
        voting_delay: 1,
        voting_period: 4,
        timelock_delay: 1,
        ..Governance::standard()
    });
    let account = genesis
        .allocations
        .iter_mut()
        .find(|a| a.address == address_of_secret(&owner));
    let account = account.unwrap();
    account.native = Amount(10 * WEI_PER_OPG);
    account.wrapped = Amount(account.wrapped.0 - 10 * WEI_PER_OPG);
    genesis.validate().unwrap();
    let mut network = Network::start_with(genesis).await;

    let mut nonce = 0;
    let mut send = async |to, input: Vec<u8>| {
        let raw = signed_call(&owner, nonce, to, input.into());
        nonce += 1;
        let hash = network.call(0, "eth_sendRawTransaction", json!([raw])).await;
        let receipt = network.confirmed(0, &hash).await;
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        number(&receipt["blockNumber"])
    };
    let delegate = OPG::delegateCall {
        delegatee: address_of_secret(&owner),
    };
    let height = send(addresses::OPG, delegate.abi_encode()).await;
    // later than vote and execution, which take ten blocks or so
    let activation = height + 60;
    let schedule = ChainParameters::scheduleCall {
        gasLimit: NEW,
        verificationBudget: 40_000,
        activation,
    };
    let (targets, values) = (vec![addresses::CHAIN_PARAMETERS], vec![U256::ZERO]);
    let calldatas = vec![Bytes::from(schedule.abi_encode())];
    let description = "a larger block";
    let propose = Governor::proposeCall {
        targets: targets.clone(),
        values: values.clone(),
        calldatas: calldatas.clone(),
        description: description.into(),
    };
    send(addresses::GOVERNOR, propose.abi_encode()).await;
    let state = async |network: &Network| {
        let id = Governor::getProposalIdCall {
            targets: targets.clone(),
            values: values.clone(),
            calldatas: calldatas.clone(),
            descriptionHash: keccak256(description),
        };
        let call = |input: Vec<u8>| json!([{ "to": addresses::GOVERNOR, "data": Bytes::from(input) }, "latest"]);
        let id = network.call(0, "eth_call", call(id.abi_encode())).await;
        let id: U256 = serde_json::from_value(id).unwrap();
        let state = Governor::stateCall { proposalId: id };
        let state = network.call(0, "eth_call", call(state.abi_encode())).await;
        (id, number(&state))
    };
    let becomes = async |wanted: u64| {
        eventually("the next state of the proposal", 60, async || {
            let (id, state) = state(&network).await;
            (state == wanted).then_some(id)
        })
        .await
    };
    let id = becomes(1).await; // active
    let vote = Governor::castVoteCall {
        proposalId: id,
        support: 1,
    };
    send(addresses::GOVERNOR, vote.abi_encode()).await;
    becomes(4).await; // succeeded
    let queue = Governor::queueCall {
        targets: targets.clone(),
        values: values.clone(),
        calldatas: calldatas.clone(),
        descriptionHash: keccak256(description),
    };
    send(addresses::GOVERNOR, queue.abi_encode()).await;
    becomes(5).await; // queued
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let execute = Governor::executeCall {
        targets: targets.clone(),
        values: values.clone(),
        calldatas: calldatas.clone(),
        descriptionHash: keccak256(description),
    };
    let executed = send(addresses::GOVERNOR, execute.abi_encode()).await;
    assert!(executed + 10 <= activation, "{executed} {activation}");

    eventually("the blocks after the change", 240, async || {
        let there = (0..4).all(|i| network.height(i) > activation + 2);
        there.then_some(())
    })
    .await;
    for (height, expected) in [
        (1, OLD),
        (activation - 1, OLD),
        (activation, OLD + OLD / 1_024 - 1),
        (activation + 1, NEW),
        (activation + 2, NEW),
    ] {
        for i in 0..4 {
            let block = network
                .call(i, "eth_getBlockByNumber", json!([format!("{height:#x}"), false]))
                .await;
            assert_eq!(number(&block["gasLimit"]), expected, "block {height} on node {i}");
        }
    }
    // one that was away and executes the blocks again comes to the same chain
    network.stop(2).await;
    network.start_one(2).await;
    network.reach(network.height(0)).await;
    network.stop_all().await;
}
