//! What channels and Permit2 payments cost. The figures of `docs/specs/x402-contracts.md` come from here.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::SolCall;
use common::{
    Net, who,
    x402::{Channel, claim_signature, permit2, permit2_domain, signed},
};
use opg_contracts::{
    BatchSettlement::{self, VoucherClaim},
    ExactPermit2Proxy, UptoPermit2Proxy, addresses, exact_permit2_proxy, upto_permit2_proxy,
};

const OPG_UNIT: u128 = 1_000_000_000_000_000;

/// Channels of `count` payers to one receiver, each with 1,000 calls claimed before so that no slot is new.
fn channels(net: &mut Net, count: u64) -> Vec<Channel> {
    (0..count)
        .map(|i| {
            let mut channel = Channel::new("alice", who("payee"), i);
            // Keys of their own, so that neither addresses nor signatures repeat.
            channel.signer = format!("delegate-{i}");
            channel.config.payerAuthorizer = who(&channel.signer);
            channel.config.salt = alloy_primitives::keccak256(i.to_be_bytes());
            net.fund(&channel, 10 * OPG_UNIT, i).unwrap();
            channel
        })
        .collect()
}

fn rows(channels: &[Channel], total: u128) -> Vec<VoucherClaim> {
    channels.iter().map(|channel| channel.row(total, total)).collect()
}

fn claim_gas(net: &mut Net, rows: Vec<VoucherClaim>) -> u64 {
    let call = BatchSettlement::claimCall { voucherClaims: rows };
    net.batch_raw(who("payee"), call).unwrap().gas_used
}

fn claim_signed_gas(net: &mut Net, rows: Vec<VoucherClaim>) -> u64 {
    let call = BatchSettlement::claimWithSignatureCall {
        authorizerSignature: claim_signature("settlement-0", &rows),
        voucherClaims: rows,
    };
    net.batch_raw(who("relayer"), call).unwrap().gas_used
}

fn settle_gas(net: &mut Net) -> u64 {
    let call = BatchSettlement::settleCall {
        receiver: who("payee"),
        token: addresses::OPG,
    };
    net.batch_raw(who("anyone"), call).unwrap().gas_used
}

/// The bar: 100 channels, 1,000 calls each, claimed and settled at no more than 30 gas a call.
#[test]
fn a_hundred_channels_of_a_thousand_calls() {
    let mut net = Net::new();
    let channels = channels(&mut net, 100);
    claim_gas(&mut net, rows(&channels, OPG_UNIT));
    settle_gas(&mut net);
    let direct = claim_gas(&mut net, rows(&channels, 2 * OPG_UNIT + 1_234_567));
    let settle = settle_gas(&mut net);
    let signed = claim_signed_gas(&mut net, rows(&channels, 3 * OPG_UNIT + 7_654_321));
    println!(
        "claim of 100: {direct}, {} a channel; by signature: {signed}, {}; settle: {settle}",
        direct / 100,
        signed / 100
    );
    println!(
        "an inference at 100 x 1,000: {:.1} gas; by signature {:.1}",
        (direct + settle) as f64 / 100_000.0,
        (signed + settle) as f64 / 100_000.0
    );
    assert!(direct + settle <= 2_000_000);
    assert!(signed + settle <= 2_150_000);
    assert!(settle <= 60_000);
}

#[test]
fn claims_of_few_and_many() {
    for (count, most) in [(1u64, 50_000), (10, 225_000), (200, 3_900_000)] {
        let mut net = Net::new();
        let channels = channels(&mut net, count);
        claim_gas(&mut net, rows(&channels, OPG_UNIT));
        let direct = claim_gas(&mut net, rows(&channels, 2 * OPG_UNIT + 1_234_567));
        let signed = claim_signed_gas(&mut net, rows(&channels, 3 * OPG_UNIT + 7_654_321));
        println!(
            "claim of {count}: {direct}, {} a channel; by signature {signed}",
            direct / count
        );
        assert!(direct <= most, "{count}: {direct}");
    }
}

#[test]
fn deposits_withdrawals_and_refunds() {
    let mut net = Net::new();
    net.approve_permit2("alice");
    let measured = |what: &str, most: u64, gas: u64| {
        println!("{what}: {gas}");
        assert!(gas <= most, "{what}: {gas}");
    };
    let channel = Channel::new("alice", who("payee"), 1);
    let deposit = |(collector, data): (alloy_primitives::Address, Bytes)| BatchSettlement::depositCall {
        config: channel.config.clone(),
        amount: OPG_UNIT,
        collector,
        collectorData: data,
    };
    let first = net
        .batch_raw(who("relayer"), deposit(channel.by_3009(OPG_UNIT, 1)))
        .unwrap();
    let second = net
        .batch_raw(who("relayer"), deposit(channel.by_3009(OPG_UNIT, 2)))
        .unwrap();
    let permit2 = deposit(channel.by_permit2(OPG_UNIT, 7, Bytes::new()));
    let by_permit2 = net.batch_raw(who("relayer"), permit2).unwrap();
    let permit2 = deposit(channel.by_permit2(OPG_UNIT, 8, Bytes::new()));
    let by_permit2_again = net.batch_raw(who("relayer"), permit2).unwrap();
    measured("first deposit by 3009", 150_000, first.gas_used);
    measured("deposit by 3009", 110_000, second.gas_used);
    measured("deposit by Permit2, new nonce word", 108_000, by_permit2.gas_used);
    measured("deposit by Permit2", 90_000, by_permit2_again.gas_used);
    let first_claim = claim_gas(&mut net, vec![channel.row(5, 5)]);
    measured("first claim of a receiver", 67_000, first_claim);
    let initiate = BatchSettlement::initiateWithdrawCall {
        config: channel.config.clone(),
        amount: 100,
    };
    let gas = net.batch_raw(who("alice"), initiate).unwrap().gas_used;
    measured("initiateWithdraw", 55_000, gas);
    net.tick(3_600);
    let finalize = BatchSettlement::finalizeWithdrawCall {
        config: channel.config.clone(),
    };
    let gas = net.batch_raw(who("alice"), finalize).unwrap().gas_used;
    measured("finalizeWithdraw", 58_000, gas);
    for what in ["first refund", "refund"] {
        let refund = BatchSettlement::refundCall {
            config: channel.config.clone(),
            amount: 100,
        };
        let gas = net.batch_raw(who("payee"), refund).unwrap().gas_used;
        measured(what, 81_000, gas);
    }
    measured("first settle", 72_000, settle_gas(&mut net));
    claim_gas(&mut net, vec![channel.row(6, 6)]);
    measured("settle", 54_000, settle_gas(&mut net));
}

#[test]
fn exact_payments_by_permit2() {
    let mut net = Net::new();
    net.approve_permit2("alice");
    for i in 0..3u64 {
        let message = permit2::exact::PermitWitnessTransferFrom {
            permitted: permit2::exact::TokenPermissions {
                token: addresses::OPG,
                amount: U256::from(OPG_UNIT),
            },
            spender: addresses::EXACT_PERMIT2_PROXY,
            nonce: U256::from(i),
            deadline: U256::MAX,
            witness: permit2::exact::Witness {
                to: who("payee"),
                validAfter: U256::ZERO,
            },
        };
        let call = ExactPermit2Proxy::settleCall {
            permit: exact_permit2_proxy::Permit2::PermitTransferFrom {
                permitted: exact_permit2_proxy::Permit2::TokenPermissions {
                    token: addresses::OPG,
                    amount: U256::from(OPG_UNIT),
                },
                nonce: U256::from(i),
                deadline: U256::MAX,
            },
            owner: who("alice"),
            witness: ExactPermit2Proxy::Witness {
                to: who("payee"),
                validAfter: U256::ZERO,
            },
            signature: signed("alice", &message, &permit2_domain()),
        };
        let data = call.abi_encode().into();
        let done = net
            .evm
            .send(who("relayer"), addresses::EXACT_PERMIT2_PROXY, U256::ZERO, data)
            .unwrap();
        println!("exact by Permit2 #{i}: {}", done.gas_used);
        assert!(done.gas_used <= if i == 0 { 130_000 } else { 95_000 });
    }
}

#[test]
fn upto_payments() {
    let mut net = Net::new();
    net.approve_permit2("alice");
    let facilitator = who("facilitator");
    for i in 0..3u64 {
        let message = permit2::upto::PermitWitnessTransferFrom {
            permitted: permit2::upto::TokenPermissions {
                token: addresses::OPG,
                amount: U256::from(OPG_UNIT),
            },
            spender: addresses::UPTO_PERMIT2_PROXY,
            nonce: U256::from(i),
            deadline: U256::MAX,
            witness: permit2::upto::Witness {
                to: who("payee"),
                facilitator,
                validAfter: U256::ZERO,
            },
        };
        let call = UptoPermit2Proxy::settleCall {
            permit: upto_permit2_proxy::Permit2::PermitTransferFrom {
                permitted: upto_permit2_proxy::Permit2::TokenPermissions {
                    token: addresses::OPG,
                    amount: U256::from(OPG_UNIT),
                },
                nonce: U256::from(i),
                deadline: U256::MAX,
            },
            amount: U256::from(OPG_UNIT / 3),
            owner: who("alice"),
            witness: UptoPermit2Proxy::Witness {
                to: who("payee"),
                facilitator,
                validAfter: U256::ZERO,
            },
            signature: signed("alice", &message, &permit2_domain()),
        };
        let data = call.abi_encode().into();
        let done = net
            .evm
            .send(facilitator, addresses::UPTO_PERMIT2_PROXY, U256::ZERO, data)
            .unwrap();
        println!("upto #{i}: {}", done.gas_used);
        assert!(done.gas_used <= if i == 0 { 130_000 } else { 95_000 });
    }
}
