//! Payments signed by the public client libraries, byte for byte, against our contracts.
//!
//! `testing/vectors/x402/*.json` are written by the unmodified npm and PyPI packages that each file names. Every signature must be
//! accepted as it is, by the call that a facilitator makes of it.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, aliases::U40, hex};
use alloy_sol_types::SolValue;
use common::{Net, who};
use opg_contracts::{
    BatchSettlement::{self, ChannelConfig, VoucherClaim},
    ExactPermit2Proxy, OPG, UptoPermit2Proxy, addresses, exact_permit2_proxy, state, upto_permit2_proxy, x402,
};
use serde_json::Value;

const FILES: [(&str, &str); 2] = [
    ("npm", include_str!("../../../testing/vectors/x402/npm.json")),
    ("pypi", include_str!("../../../testing/vectors/x402/pypi.json")),
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

fn number(value: &Value) -> U256 {
    match value {
        Value::Number(number) => U256::from(number.as_u64().unwrap()),
        other => text(other).parse().unwrap(),
    }
}

fn address(value: &Value) -> Address {
    text(value).parse().unwrap()
}

fn word(value: &Value) -> B256 {
    text(value).parse().unwrap()
}

fn bytes(value: &Value) -> Bytes {
    hex::decode(text(value)).unwrap().into()
}

fn files() -> impl Iterator<Item = (&'static str, Value, Net)> {
    FILES.into_iter().map(|(name, file)| {
        let file: Value = serde_json::from_str(file).unwrap();
        let mut net = Net::new();
        assert_eq!(file["now"], common::START, "signed for the time of the test network");
        net.approve_permit2("alice");
        (name, file, net)
    })
}

fn config(value: &Value) -> ChannelConfig {
    ChannelConfig {
        payer: address(&value["payer"]),
        payerAuthorizer: address(&value["payerAuthorizer"]),
        receiver: address(&value["receiver"]),
        receiverAuthorizer: address(&value["receiverAuthorizer"]),
        token: address(&value["token"]),
        withdrawDelay: U40::from(number(&value["withdrawDelay"])),
        salt: word(&value["salt"]),
    }
}

#[test]
fn the_files_name_the_versions_they_come_from() {
    for (name, file, _) in files() {
        let versions = file["generator"].as_object().unwrap();
        let wanted: &[(&str, &str)] = match name {
            "npm" => &[("@x402/evm", "2.27.0"), ("@x402/core", "2.27.0"), ("viem", "2.49.3")],
            _ => &[("x402", "2.25.0")],
        };
        for (package, version) in wanted {
            assert_eq!(versions[*package], *version, "{package}");
        }
    }
}

#[test]
fn exact_by_erc3009() {
    for (name, file, mut net) in files() {
        let payload = &file["exact3009"]["payload"];
        let a = &payload["authorization"];
        let call = OPG::transferWithAuthorization_0Call {
            from: address(&a["from"]),
            to: address(&a["to"]),
            value: number(&a["value"]),
            validAfter: number(&a["validAfter"]),
            validBefore: number(&a["validBefore"]),
            nonce: word(&a["nonce"]),
            signature: bytes(&payload["signature"]),
        };
        assert_eq!(call.from, who("alice"), "{name}");
        net.evm.call(who("relayer"), addresses::OPG, call).unwrap();
        assert_eq!(net.opg(who("payee")), 1_000_003, "{name}");
    }
}

#[test]
fn exact_by_permit2() {
    for (name, file, mut net) in files() {
        let payload = &file["exactPermit2"]["payload"];
        let a = &payload["permit2Authorization"];
        assert_eq!(address(&a["spender"]), addresses::EXACT_PERMIT2_PROXY, "{name}");
        let call = ExactPermit2Proxy::settleCall {
            permit: exact_permit2_proxy::Permit2::PermitTransferFrom {
                permitted: exact_permit2_proxy::Permit2::TokenPermissions {
                    token: address(&a["permitted"]["token"]),
                    amount: number(&a["permitted"]["amount"]),
                },
                nonce: number(&a["nonce"]),
                deadline: number(&a["deadline"]),
            },
            owner: address(&a["from"]),
            witness: ExactPermit2Proxy::Witness {
                to: address(&a["witness"]["to"]),
                validAfter: number(&a["witness"]["validAfter"]),
            },
            signature: bytes(&payload["signature"]),
        };
        let slot = x402::settlement_slot(addresses::OPG, call.owner, call.permit.nonce);
        net.evm
            .call(who("relayer"), addresses::EXACT_PERMIT2_PROXY, call)
            .unwrap();
        assert_eq!(net.opg(who("payee")), 1_000_003, "{name}");
        let stored = state::StateReader::storage(&net.evm, addresses::EXACT_PERMIT2_PROXY, slot).unwrap();
        assert_eq!(
            B256::from(stored),
            state::settlement_hash(who("payee"), 1_000_003),
            "{name}"
        );
    }
}

#[test]
fn upto_by_its_facilitator() {
    for (name, file, mut net) in files() {
        let payload = &file["upto"]["payload"];
        let a = &payload["permit2Authorization"];
        assert_eq!(address(&a["spender"]), addresses::UPTO_PERMIT2_PROXY, "{name}");
        let call = UptoPermit2Proxy::settleCall {
            permit: upto_permit2_proxy::Permit2::PermitTransferFrom {
                permitted: upto_permit2_proxy::Permit2::TokenPermissions {
                    token: address(&a["permitted"]["token"]),
                    amount: number(&a["permitted"]["amount"]),
                },
                nonce: number(&a["nonce"]),
                deadline: number(&a["deadline"]),
            },
            amount: U256::from(777_777),
            owner: address(&a["from"]),
            witness: UptoPermit2Proxy::Witness {
                to: address(&a["witness"]["to"]),
                facilitator: address(&a["witness"]["facilitator"]),
                validAfter: number(&a["witness"]["validAfter"]),
            },
            signature: bytes(&payload["signature"]),
        };
        net.evm
            .call(who("facilitator"), addresses::UPTO_PERMIT2_PROXY, call)
            .unwrap();
        assert_eq!(net.opg(who("payee")), 777_777, "{name}");
    }
}

/// Submits the deposit of a payload as a facilitator does.
fn deposit(net: &mut Net, payload: &Value) -> ChannelConfig {
    let config = config(&payload["channelConfig"]);
    let deposit = &payload["deposit"];
    let by_3009 = &deposit["authorization"]["erc3009Authorization"];
    let by_permit2 = &deposit["authorization"]["permit2Authorization"];
    let (collector, data) = if by_3009.is_object() {
        let data = (
            number(&by_3009["validAfter"]),
            number(&by_3009["validBefore"]),
            U256::from_be_bytes(word(&by_3009["salt"]).0),
            bytes(&by_3009["signature"]),
        );
        (addresses::ERC3009_DEPOSIT_COLLECTOR, data.abi_encode_params())
    } else {
        assert_eq!(address(&by_permit2["spender"]), addresses::PERMIT2_DEPOSIT_COLLECTOR);
        let data = (
            number(&by_permit2["nonce"]),
            number(&by_permit2["deadline"]),
            bytes(&by_permit2["signature"]),
            Bytes::new(),
        );
        (addresses::PERMIT2_DEPOSIT_COLLECTOR, data.abi_encode_params())
    };
    let call = BatchSettlement::depositCall {
        config: config.clone(),
        amount: number(&deposit["amount"]).to(),
        collector,
        collectorData: data.into(),
    };
    net.batch(who("relayer"), call).unwrap();
    let id = x402::channel_id(&config, common::CHAIN_ID);
    assert_eq!(id, word(&payload["voucher"]["channelId"]));
    let held = x402::read_channel(&net.evm, id).unwrap();
    assert_eq!(U256::from(held.balance), number(&deposit["amount"]));
    config
}

fn row(payload: &Value, total: u128) -> VoucherClaim {
    VoucherClaim {
        voucher: BatchSettlement::Voucher {
            channel: config(&payload["channelConfig"]),
            maxClaimableAmount: number(&payload["voucher"]["maxClaimableAmount"]).to(),
        },
        signature: bytes(&payload["voucher"]["signature"]),
        totalClaimed: total,
    }
}

#[test]
fn channels_are_funded_and_claimed() {
    for (name, file, mut net) in files() {
        for kind in ["batch3009", "batchPermit2"] {
            let paid = &file[kind];
            deposit(&mut net, &paid["deposit"]["payload"]);
            // The voucher of the deposit, then the next one, which is for the charge so far and one more request.
            net.claim(who("payee"), vec![row(&paid["deposit"]["payload"], 777_777)])
                .unwrap();
            let next = row(&paid["voucher"]["payload"], 1_777_780);
            assert_eq!(next.voucher.maxClaimableAmount, 777_777 + 1_000_003, "{name} {kind}");
            net.claim(who("payee"), vec![next]).unwrap();
        }
        net.settle_receiver(who("payee"), addresses::OPG).unwrap();
        assert_eq!(net.opg(who("payee")), 2 * 1_777_780, "{name}");
    }
}

/// The stock client asks for a refund by a voucher over what was charged: nothing more can be claimed with it.
#[test]
fn refund_vouchers_carry_the_charge_so_far() {
    let (_, file, mut net) = files().next().unwrap();
    for kind in ["batch3009", "batchPermit2"] {
        let paid = &file[kind];
        let refund = &paid["refund"]["payload"];
        assert_eq!(refund["type"], "refund");
        let config = deposit(&mut net, &paid["deposit"]["payload"]);
        net.claim(who("payee"), vec![row(refund, 777_777)]).unwrap();
        let call = BatchSettlement::refundCall {
            config,
            amount: number(&refund["amount"]).to(),
        };
        let before = net.opg(who("alice"));
        net.batch(who("payee"), call).unwrap();
        assert_eq!(net.opg(who("alice")), before + 1_000);
    }
}

/// What the library's receiver side signs is accepted from anybody.
#[test]
fn claim_batches_and_refunds_by_the_receivers_signature() {
    let (_, file, mut net) = files().nth(1).unwrap();
    let total: u128 = text(&file["claimBatch"]["totalClaimed"]).parse().unwrap();
    let mut rows = Vec::new();
    for kind in ["batch3009", "batchPermit2"] {
        deposit(&mut net, &file[kind]["deposit"]["payload"]);
        rows.push(row(&file[kind]["voucher"]["payload"], total));
    }
    let config = rows[0].voucher.channel.clone();
    let call = BatchSettlement::claimWithSignatureCall {
        voucherClaims: rows,
        authorizerSignature: bytes(&file["claimBatch"]["signature"]),
    };
    net.batch(who("anyone"), call).unwrap();
    let id = x402::channel_id(&config, common::CHAIN_ID);
    assert_eq!(x402::read_channel(&net.evm, id).unwrap().total_claimed, total);
    let before = net.opg(who("alice"));
    let call = BatchSettlement::refundWithSignatureCall {
        config,
        amount: 1_000,
        nonce: number(&file["refund"]["nonce"]),
        receiverAuthorizerSignature: bytes(&file["refund"]["signature"]),
    };
    net.batch(who("anyone"), call).unwrap();
    assert_eq!(net.opg(who("alice")), before + 1_000);
    assert_eq!(x402::read_exit(&net.evm, id).unwrap().refund_nonce, 1);
}
