//! Payment channels: deposits, claims, settlement, withdrawal and refund, each by the rules and against them.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, aliases::U40, keccak256};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use common::{
    Net, assert_reverts, key, sign, who,
    x402::{Channel, DELAY, TestCollector, TestToken, batch_domain, claim_signature, signed},
};
use opg_contracts::{
    BatchSettlement, Erc3009DepositCollector, ExactPermit2Proxy, OPG, Permit2, Permit2DepositCollector, ReceiptLedger,
    UptoPermit2Proxy, addresses,
};

const CHANNELS: Address = addresses::BATCH_SETTLEMENT;

fn open(net: &mut Net, amount: u128) -> Channel {
    let channel = Channel::new("alice", who("payee"), 1);
    net.fund(&channel, amount, 1).unwrap();
    channel
}

#[test]
fn ids_digests_and_the_domain_are_those_of_eip712() {
    let mut net = Net::new();
    let channel = Channel::new("alice", who("payee"), 7);
    let config = channel.config.clone();
    let id = net
        .evm
        .view(CHANNELS, BatchSettlement::getChannelIdCall { config })
        .unwrap();
    assert_eq!(id, channel.id());
    let rows = vec![channel.row(10, 5), Channel::new("bob", who("payee"), 8).row(20, 20)];
    let digest = BatchSettlement::getClaimBatchDigestCall {
        voucherClaims: rows.clone(),
    };
    let digest = net.evm.view(CHANNELS, digest).unwrap();
    let signature = sign(&key("settlement-0"), digest);
    assert_eq!(signature.as_slice(), claim_signature("settlement-0", &rows).as_ref());
    let voucher = BatchSettlement::getVoucherDigestCall {
        channelId: id,
        maxClaimableAmount: 10,
    };
    let digest = net.evm.view(CHANNELS, voucher).unwrap();
    assert_eq!(sign(&key("alice"), digest).as_slice(), channel.voucher(10).as_ref());
    let refund = BatchSettlement::getRefundDigestCall {
        channelId: id,
        nonce: U256::from(3),
        amount: 4,
    };
    let digest = net.evm.view(CHANNELS, refund).unwrap();
    assert_eq!(
        sign(&key("settlement-0"), digest).as_slice(),
        channel.refund_signature(3, 4).as_ref()
    );
    let told = net.evm.view(CHANNELS, BatchSettlement::eip712DomainCall {}).unwrap();
    assert_eq!(told.name, "x402 Batch Settlement");
    assert_eq!(told.version, "1");
    assert_eq!(told.verifyingContract, CHANNELS);
    assert_eq!(told.chainId, U256::from(common::CHAIN_ID));
    assert_eq!(batch_domain().verifying_contract, Some(CHANNELS));
    // An empty batch has a digest too; nobody can claim with it.
    let empty = BatchSettlement::getClaimBatchDigestCall { voucherClaims: vec![] };
    net.evm.view(CHANNELS, empty).unwrap();
}

/// Clients have these addresses built in; constructors refuse to be wired to nothing.
#[test]
fn the_contracts_are_where_clients_look_for_them() {
    let mut net = Net::new();
    for at in [
        "0x000000000022D473030F116dDEE9F6B43aC78BA3",
        "0x402085c248EeA27D92E8b30b2C58ed07f9E20001",
        "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002",
        "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003",
        "0x4020806089470a89826cB9fB1f4059150b550004",
        "0x4020425FAf3B746C082C2f942b4E5159887B0005",
        "0xdAcD51A54883eb67D95FAEb2BBfdC4a9a6BD2a3B",
    ] {
        let at: Address = at.parse().unwrap();
        assert!(!net.evm.code(at).is_empty(), "{at}");
        assert!(addresses::PREDEPLOYS.contains(&at), "{at}");
    }
    let (by_3009, by_permit2) = (
        addresses::ERC3009_DEPOSIT_COLLECTOR,
        addresses::PERMIT2_DEPOSIT_COLLECTOR,
    );
    let call = Erc3009DepositCollector::x402BatchSettlementCall {};
    assert_eq!(net.evm.view(by_3009, call).unwrap(), CHANNELS);
    let call = Permit2DepositCollector::x402BatchSettlementCall {};
    assert_eq!(net.evm.view(by_permit2, call).unwrap(), CHANNELS);
    let call = Permit2DepositCollector::PERMIT2Call {};
    assert_eq!(net.evm.view(by_permit2, call).unwrap(), addresses::PERMIT2);
    let call = ReceiptLedger::channelsCall {};
    assert_eq!(net.evm.view(addresses::RECEIPT_LEDGER, call).unwrap(), CHANNELS);
    let zero = Address::ZERO;
    for (code, arguments) in [
        (&ExactPermit2Proxy::BYTECODE, (zero,).abi_encode()),
        (&UptoPermit2Proxy::BYTECODE, (zero,).abi_encode()),
        (&Erc3009DepositCollector::BYTECODE, (zero,).abi_encode()),
        (
            &Permit2DepositCollector::BYTECODE,
            (zero, addresses::PERMIT2).abi_encode(),
        ),
        (&Permit2DepositCollector::BYTECODE, (CHANNELS, zero).abi_encode()),
    ] {
        let init_code = [code.as_ref(), &arguments].concat();
        assert!(net.evm.construct(who("nowhere"), init_code.into()).is_err());
    }
}

#[test]
fn a_channel_lives_from_deposit_to_withdrawal() {
    let mut net = Net::new();
    let (alice, payee) = (who("alice"), who("payee"));
    let start = net.opg(alice);
    let channel = Channel::new("alice", payee, 1);
    let (collector, data) = channel.by_3009(1_000, 1);
    let call = BatchSettlement::depositCall {
        config: channel.config.clone(),
        amount: 1_000,
        collector,
        collectorData: data,
    };
    let done = net.batch_raw(who("relayer"), call).unwrap();
    let created = done
        .logs
        .iter()
        .find_map(|log| BatchSettlement::ChannelCreated::decode_log(log).ok())
        .unwrap();
    assert_eq!(created.channelId, channel.id());
    assert_eq!(created.config, channel.config);
    assert_eq!(net.channel_state(channel.id()), (1_000, 0));
    assert_eq!(net.opg(alice), start - 1_000);
    // A top-up is no second creation.
    net.fund(&channel, 500, 2).unwrap();
    assert_eq!(net.channel_state(channel.id()), (1_500, 0));

    net.claim(payee, vec![channel.row(700, 600)]).unwrap();
    net.claim_signed("settlement-0", vec![channel.row(900, 900)]).unwrap();
    net.claim(who("settlement-0"), vec![channel.row(900, 900)]).unwrap();
    assert_eq!(net.channel_state(channel.id()), (1_500, 900));
    let call = BatchSettlement::receiversCall {
        receiver: payee,
        token: addresses::OPG,
    };
    let receiver = net.evm.view(CHANNELS, call.clone()).unwrap();
    assert_eq!((receiver.totalClaimed, receiver.totalSettled), (900, 0));
    net.settle_receiver(payee, addresses::OPG).unwrap();
    assert_eq!(net.opg(payee), 900);
    net.settle_receiver(payee, addresses::OPG).unwrap();
    assert_eq!(net.opg(payee), 900, "nothing is settled twice");
    let receiver = net.evm.view(CHANNELS, call).unwrap();
    assert_eq!((receiver.totalClaimed, receiver.totalSettled), (900, 900));

    net.initiate(alice, &channel, 600).unwrap();
    net.tick(DELAY);
    net.finalize(alice, &channel).unwrap();
    assert_eq!(net.channel_state(channel.id()), (900, 900));
    assert_eq!(net.opg(alice), start - 900);
    assert_eq!(net.opg(CHANNELS), 0);
}

#[test]
fn deposits_by_permit2_with_and_without_a_permit() {
    let mut net = Net::new();
    let channel = Channel::new("bob", who("payee"), 1);
    // Without an approval it fails; the permit is the approval.
    let bare = channel.by_permit2(500, 9, Bytes::new());
    assert!(net.deposit_with(&channel, 500, bare).is_err());
    let permit = |value: u128, nonce: u64| -> Bytes {
        let message = common::Permit {
            owner: who("bob"),
            spender: addresses::PERMIT2,
            value: U256::from(value),
            nonce: U256::from(nonce),
            deadline: U256::MAX,
        };
        let signature = signed("bob", &message, &common::domain());
        let (r, s) = (B256::from_slice(&signature[..32]), B256::from_slice(&signature[32..64]));
        (U256::from(value), U256::MAX, U256::from(signature[64]), r, s)
            .abi_encode()
            .into()
    };
    let wrong = channel.by_permit2(500, 9, permit(501, 0));
    assert_reverts::<Permit2DepositCollector::Permit2612AmountMismatch, _>(net.deposit_with(&channel, 500, wrong));
    let good = channel.by_permit2(500, 9, permit(500, 0));
    net.deposit_with(&channel, 500, good.clone()).unwrap();
    assert_eq!(net.channel_state(channel.id()), (500, 0));
    // The nonce is spent.
    assert_reverts::<Permit2::InvalidNonce, _>(net.deposit_with(&channel, 500, good));
    // A permit that fails (it is used) is passed over if there is an approval.
    net.approve_permit2("bob");
    let (collector, collector_data) = channel.by_permit2(200, 10, permit(200, 0));
    let call = BatchSettlement::depositCall {
        config: channel.config.clone(),
        amount: 200,
        collector,
        collectorData: collector_data,
    };
    let done = net.batch_raw(who("relayer"), call).unwrap();
    let failed = Permit2DepositCollector::EIP2612PermitFailedWithData::SIGNATURE_HASH;
    assert!(done.logs.iter().any(|log| log.topics()[0] == failed));
    assert_eq!(net.channel_state(channel.id()), (700, 0));
}

#[test]
fn impossible_deposits_revert() {
    let mut net = Net::new();
    let good = Channel::new("alice", who("payee"), 1);
    let data = good.by_3009(5, 1);
    let mut refuse = |change: fn(&mut Channel)| {
        let mut channel = good.clone();
        change(&mut channel);
        net.deposit_with(&channel, 5, data.clone())
    };
    for change in [
        (|c| c.config.payer = Address::ZERO) as fn(&mut Channel),
        |c| c.config.receiver = Address::ZERO,
        |c| c.config.receiverAuthorizer = Address::ZERO,
        |c| c.config.token = Address::ZERO,
    ] {
        assert_reverts::<BatchSettlement::InvalidChannel, _>(refuse(change));
    }
    for change in [(|c| c.config.withdrawDelay = U40::from(899)) as fn(&mut Channel), |c| {
        c.config.withdrawDelay = U40::from(2_592_001)
    }] {
        assert_reverts::<BatchSettlement::WithdrawDelayOutOfRange, _>(refuse(change));
    }
    // The signature names the channel, the amount and the collector.
    for change in [
        (|c| c.config.receiver = who("thief")) as fn(&mut Channel),
        |c| c.config.payerAuthorizer = who("thief"),
        |c| c.config.salt = B256::repeat_byte(9),
    ] {
        assert_reverts::<OPG::InvalidAuthorizationSignature, _>(refuse(change));
    }
    assert_reverts::<OPG::InvalidAuthorizationSignature, _>(net.deposit_with(&good, 6, data.clone()));
    assert_reverts::<BatchSettlement::ZeroDeposit, _>(net.deposit_with(&good, 0, data.clone()));
    assert_reverts::<BatchSettlement::InvalidCollector, _>(net.deposit_with(&good, 5, (Address::ZERO, data.1.clone())));
    assert!(net.deposit_with(&good, 5, (who("nobody"), Bytes::new())).is_err());
    // The two shortest and longest delays are allowed.
    for (salt, delay) in [(10, 900u64), (11, 2_592_000)] {
        let mut channel = Channel::new("alice", who("payee"), salt);
        channel.config.withdrawDelay = U40::from(delay);
        net.fund(&channel, 1, salt).unwrap();
    }
    net.deposit_with(&good, 5, data.clone()).unwrap();
    assert_reverts::<OPG::AuthorizationUsedOrCanceled, _>(net.deposit_with(&good, 5, data));
}

/// A deposit is signed for a time.
#[test]
fn expired_and_early_deposits_revert() {
    let mut net = Net::new();
    net.approve_permit2("alice");
    let channel = Channel::new("alice", who("payee"), 1);
    let now = net.evm.timestamp();
    let by_3009 = |salt: u64, after: u64, before: u64| {
        let message = common::ReceiveWithAuthorization {
            from: who("alice"),
            to: addresses::ERC3009_DEPOSIT_COLLECTOR,
            value: U256::from(5),
            validAfter: U256::from(after),
            validBefore: U256::from(before),
            nonce: keccak256((channel.id(), U256::from(salt)).abi_encode()),
        };
        let signature = signed("alice", &message, &common::domain());
        let data = (U256::from(after), U256::from(before), U256::from(salt), signature);
        (
            addresses::ERC3009_DEPOSIT_COLLECTOR,
            Bytes::from(data.abi_encode_params()),
        )
    };
    for (after, before) in [(0, now), (now, now + 9)] {
        let result = net.deposit_with(&channel, 5, by_3009(1, after, before));
        assert_reverts::<OPG::AuthorizationNotValidNow, _>(result);
    }
    net.deposit_with(&channel, 5, by_3009(1, now - 1, now + 1)).unwrap();
    // A deadline of Permit2 that has passed, whoever signed what.
    let data = (
        U256::from(1),
        U256::from(now - 1),
        Bytes::from(vec![0; 65]),
        Bytes::new(),
    );
    let expired = (
        addresses::PERMIT2_DEPOSIT_COLLECTOR,
        Bytes::from(data.abi_encode_params()),
    );
    assert_reverts::<Permit2::SignatureExpired, _>(net.deposit_with(&channel, 5, expired));
    // Data that is no data.
    for collector in [
        addresses::ERC3009_DEPOSIT_COLLECTOR,
        addresses::PERMIT2_DEPOSIT_COLLECTOR,
    ] {
        assert!(
            net.deposit_with(&channel, 5, (collector, Bytes::from(vec![1; 31])))
                .is_err()
        );
    }
    assert_eq!(net.channel_state(channel.id()), (5, 0));
}

/// A token that refuses to move leaves everything owed.
#[test]
fn a_failed_payout_is_still_owed() {
    let mut net = Net::new();
    let payee = who("payee");
    let token = net.deploy("token", &TestToken::BYTECODE, ());
    let mut channel = Channel::new("alice", payee, 1);
    channel.config.token = token;
    let mint = TestToken::mintCall {
        to: who("alice"),
        amount: U256::from(1_000),
    };
    net.evm.call(who("alice"), token, mint).unwrap();
    net.fund(&channel, 1_000, 1).unwrap();
    net.claim(payee, vec![channel.row(400, 400)]).unwrap();
    net.initiate(who("alice"), &channel, 100).unwrap();
    net.tick(DELAY);
    let lie = |net: &mut Net, lies: bool| {
        let set = TestToken::setCall {
            fee_: U256::ZERO,
            lies_: lies,
            target_: Address::ZERO,
            data_: Bytes::new(),
        };
        net.evm.call(who("alice"), token, set).unwrap();
    };
    lie(&mut net, true);
    assert!(net.settle_receiver(payee, token).is_err());
    assert!(net.refund(payee, &channel, 5).is_err());
    assert!(net.finalize(who("alice"), &channel).is_err());
    lie(&mut net, false);
    net.settle_receiver(payee, token).unwrap();
    net.refund(payee, &channel, 5).unwrap();
    net.finalize(who("alice"), &channel).unwrap();
    let held = net.evm.view(token, TestToken::balanceOfCall(payee)).unwrap();
    assert_eq!(held, U256::from(400));
    assert_eq!(net.channel_state(channel.id()), (900, 400));
}

/// Only what arrives counts, whatever a collector does.
#[test]
fn a_collector_that_brings_another_amount_is_refused() {
    let mut net = Net::new();
    let collector = net.deploy("collector", &TestCollector::BYTECODE, ());
    let channel = Channel::new("alice", who("payee"), 1);
    let approve = OPG::approveCall {
        spender: collector,
        value: U256::MAX,
    };
    net.evm.call(who("carol"), addresses::OPG, approve).unwrap();
    let set = |net: &mut Net, sponsor: Address, short: u64| {
        let call = TestCollector::setCall {
            sponsor_: sponsor,
            short_: U256::from(short),
            target_: Address::ZERO,
            data_: Bytes::new(),
        };
        net.evm.call(who("carol"), collector, call).unwrap();
    };
    set(&mut net, Address::ZERO, 0);
    let nothing = net.deposit_with(&channel, 100, (collector, Bytes::new()));
    assert_reverts::<BatchSettlement::DepositCollectionFailed, _>(nothing);
    set(&mut net, who("carol"), 1);
    let less = net.deposit_with(&channel, 100, (collector, Bytes::new()));
    assert_reverts::<BatchSettlement::DepositCollectionFailed, _>(less);
    // A sponsor may pay into anybody's channel; it is the channel's payer who gets it back.
    set(&mut net, who("carol"), 0);
    net.deposit_with(&channel, 100, (collector, Bytes::new())).unwrap();
    assert_eq!(net.channel_state(channel.id()), (100, 0));
    assert_reverts::<BatchSettlement::InvalidChannel, _>(net.initiate(who("carol"), &channel, 100));
}

#[test]
fn collectors_work_for_the_channels_contract_only() {
    let mut net = Net::new();
    let channel = Channel::new("alice", who("payee"), 1);
    let (at, data) = channel.by_3009(5, 1);
    let call = Erc3009DepositCollector::collectCall {
        payer: who("alice"),
        token: addresses::OPG,
        amount: U256::from(5),
        channelId: channel.id(),
        collectorData: data,
    };
    assert_reverts::<Erc3009DepositCollector::OnlyX402BatchSettlement, _>(net.evm.call(who("thief"), at, call));
    net.approve_permit2("alice");
    let (at, data) = channel.by_permit2(5, 1, Bytes::new());
    let call = Permit2DepositCollector::collectCall {
        payer: who("alice"),
        token: addresses::OPG,
        amount: U256::from(5),
        channelId: channel.id(),
        collectorData: data,
    };
    assert_reverts::<Permit2DepositCollector::OnlyX402BatchSettlement, _>(net.evm.call(who("thief"), at, call));
}

#[test]
fn claims_need_both_sides() {
    let mut net = Net::new();
    let channel = open(&mut net, 1_000);
    let payee = who("payee");
    for thief in ["alice", "thief", "relayer"] {
        let result = net.claim(who(thief), vec![channel.row(100, 100)]);
        assert_reverts::<BatchSettlement::NotAuthorizedToClaim, _>(result);
    }
    let empty = net.claim(payee, vec![]);
    assert_reverts::<BatchSettlement::EmptyBatch, _>(empty);
    assert_reverts::<BatchSettlement::EmptyBatch, _>(net.claim_signed("settlement-0", vec![]));
    assert_reverts::<BatchSettlement::ClaimExceedsCeiling, _>(net.claim(payee, vec![channel.row(100, 101)]));
    assert_reverts::<BatchSettlement::ClaimExceedsBalance, _>(net.claim(payee, vec![channel.row(2_000, 1_001)]));
    // A voucher of somebody else, for another channel, another ceiling, or malformed.
    let forged = Channel {
        signer: "thief".into(),
        ..channel.clone()
    };
    assert_reverts::<BatchSettlement::InvalidSignature, _>(net.claim(payee, vec![forged.row(100, 100)]));
    let other = Channel::new("alice", payee, 2);
    for signature in [
        other.voucher(100),
        channel.voucher(99),
        Bytes::new(),
        channel.voucher(100)[..64].to_vec().into(),
        [channel.voucher(100).as_ref(), &[0]].concat().into(),
    ] {
        let mut row = channel.row(100, 100);
        row.signature = signature;
        assert_reverts::<BatchSettlement::InvalidSignature, _>(net.claim(payee, vec![row]));
    }
    // The other half of a signature's mirror pair is refused.
    let mut row = channel.row(100, 100);
    row.signature = mirrored(&row.signature);
    assert_reverts::<BatchSettlement::InvalidSignature, _>(net.claim(payee, vec![row]));
    // By signature: of the authorizer, over exactly these rows.
    assert_reverts::<BatchSettlement::InvalidSignature, _>(net.claim_signed("thief", vec![channel.row(100, 100)]));
    let call = BatchSettlement::claimWithSignatureCall {
        voucherClaims: vec![channel.row(100, 100)],
        authorizerSignature: claim_signature("settlement-0", &[channel.row(100, 99)]),
    };
    assert_reverts::<BatchSettlement::InvalidSignature, _>(net.batch(payee, call));
    let mut foreign = Channel::new("alice", payee, 3);
    foreign.config.receiverAuthorizer = who("thief");
    let mixed = vec![channel.row(100, 100), foreign.row(1, 1)];
    assert_reverts::<BatchSettlement::NotReceiverAuthorizer, _>(net.claim_signed("settlement-0", mixed.clone()));
    assert_reverts::<BatchSettlement::NotAuthorizedToClaim, _>(net.claim(who("settlement-0"), mixed));
    assert_eq!(net.channel_state(channel.id()), (1_000, 0));
}

/// The signature with `s` and parity exchanged for their other valid values.
fn mirrored(signature: &Bytes) -> Bytes {
    use alloy_primitives::uint;
    const N: U256 = uint!(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141_U256);
    let s = N - U256::from_be_slice(&signature[32..64]);
    let v = if signature[64] == 27 { 28 } else { 27 };
    [&signature[..32], &s.to_be_bytes::<32>(), &[v]].concat().into()
}

/// Totals are cumulative, so a replayed row changes nothing, and a batch may hold anything in any order.
#[test]
fn replayed_and_repeated_rows_change_nothing() {
    let mut net = Net::new();
    let payee = who("payee");
    let channel = open(&mut net, 1_000);
    let other = Channel::new("bob", who("other"), 1);
    net.fund(&other, 300, 1).unwrap();
    let rows = vec![
        channel.row(100, 100),
        channel.row(100, 100),
        channel.row(300, 250),
        channel.row(300, 200),
        other.row(300, 300),
        channel.row(400, 400),
    ];
    net.claim_signed("settlement-0", rows.clone()).unwrap();
    net.claim_signed("settlement-0", rows).unwrap();
    assert_eq!(net.channel_state(channel.id()), (1_000, 400));
    assert_eq!(net.channel_state(other.id()), (300, 300));
    net.settle_receiver(payee, addresses::OPG).unwrap();
    net.settle_receiver(who("other"), addresses::OPG).unwrap();
    assert_eq!((net.opg(payee), net.opg(who("other"))), (400, 300));
    assert_eq!(net.opg(CHANNELS), 600);
    // A passed-over row is not even checked: there is nothing in it to steal.
    let mut stale = channel.row(400, 400);
    stale.signature = Bytes::new();
    net.claim(payee, vec![stale]).unwrap();
}

#[test]
fn withdrawal_follows_its_rules() {
    let mut net = Net::new();
    let alice = who("alice");
    let channel = open(&mut net, 1_000);
    for thief in ["payee", "settlement-0", "thief"] {
        assert_reverts::<BatchSettlement::InvalidChannel, _>(net.initiate(who(thief), &channel, 1));
        let finalize = net.finalize(who(thief), &channel);
        assert_reverts::<BatchSettlement::NotAuthorizedToFinalizeWithdraw, _>(finalize);
    }
    assert_reverts::<BatchSettlement::NothingToWithdraw, _>(net.initiate(alice, &channel, 0));
    assert_reverts::<BatchSettlement::WithdrawAmountExceedsAvailable, _>(net.initiate(alice, &channel, 1_001));
    assert_reverts::<BatchSettlement::WithdrawalNotPending, _>(net.finalize(alice, &channel));
    net.initiate(alice, &channel, 400).unwrap();
    assert_reverts::<BatchSettlement::WithdrawalAlreadyPending, _>(net.initiate(alice, &channel, 1));
    let call = BatchSettlement::pendingWithdrawalsCall {
        channelId: channel.id(),
    };
    let pending = net.evm.view(CHANNELS, call.clone()).unwrap();
    assert_eq!(
        (pending.amount, pending.initiatedAt),
        (400, U40::from(net.evm.timestamp()))
    );
    net.tick(DELAY - 1);
    assert_reverts::<BatchSettlement::WithdrawDelayNotElapsed, _>(net.finalize(alice, &channel));
    net.tick(1);
    let before = net.opg(alice);
    net.finalize(alice, &channel).unwrap();
    assert_reverts::<BatchSettlement::WithdrawalNotPending, _>(net.finalize(alice, &channel));
    assert_eq!(net.opg(alice), before + 400);
    assert_eq!(net.evm.view(CHANNELS, call).unwrap().amount, 0);
    // The delegated signer may ask as well; the money goes to the payer.
    let mut delegated = Channel::new("alice", who("payee"), 2);
    delegated.config.payerAuthorizer = who("delegate");
    delegated.signer = "delegate".into();
    net.fund(&delegated, 100, 1).unwrap();
    net.initiate(who("delegate"), &delegated, 100).unwrap();
    net.tick(DELAY);
    net.finalize(who("delegate"), &delegated).unwrap();
    assert_eq!(net.opg(who("delegate")), 0);
    assert_eq!(net.opg(alice), before + 400);
}

/// The payer announces everything while a voucher is out: a claim within the delay wins, a later one finds what is left.
#[test]
fn a_withdrawal_races_a_claim() {
    let mut net = Net::new();
    let (alice, payee) = (who("alice"), who("payee"));
    // The claim lands first: only the rest is paid back.
    let channel = open(&mut net, 1_000);
    net.initiate(alice, &channel, 1_000).unwrap();
    net.tick(DELAY);
    net.claim(payee, vec![channel.row(900, 900)]).unwrap();
    let before = net.opg(alice);
    net.finalize(alice, &channel).unwrap();
    assert_eq!(net.opg(alice), before + 100);
    net.settle_receiver(payee, addresses::OPG).unwrap();
    assert_eq!(net.opg(payee), 900);
    assert_eq!(net.channel_state(channel.id()), (900, 900));
    // The claim comes too late.
    let late = Channel::new("alice", payee, 2);
    net.fund(&late, 1_000, 1).unwrap();
    net.claim(payee, vec![late.row(300, 300)]).unwrap();
    net.initiate(alice, &late, 700).unwrap();
    net.tick(DELAY);
    net.finalize(alice, &late).unwrap();
    assert_reverts::<BatchSettlement::ClaimExceedsBalance, _>(net.claim(payee, vec![late.row(900, 900)]));
    assert_eq!(net.channel_state(late.id()), (300, 300));
    // A deposit makes the voucher worth something again.
    net.fund(&late, 600, 2).unwrap();
    net.claim(payee, vec![late.row(900, 900)]).unwrap();
    // Claims may eat an announced withdrawal whole.
    let eaten = Channel::new("alice", payee, 3);
    net.fund(&eaten, 50, 1).unwrap();
    net.initiate(alice, &eaten, 50).unwrap();
    net.claim(payee, vec![eaten.row(50, 50)]).unwrap();
    net.tick(DELAY);
    let before = net.opg(alice);
    net.finalize(alice, &eaten).unwrap();
    assert_eq!(net.opg(alice), before);
}

#[test]
fn refunds_follow_their_rules() {
    let mut net = Net::new();
    let (alice, payee) = (who("alice"), who("payee"));
    let channel = open(&mut net, 1_000);
    net.claim(payee, vec![channel.row(300, 300)]).unwrap();
    let start = net.opg(alice);
    for thief in ["alice", "thief"] {
        assert_reverts::<BatchSettlement::NotAuthorizedToRefund, _>(net.refund(who(thief), &channel, 1));
    }
    assert_reverts::<BatchSettlement::ZeroRefund, _>(net.refund(payee, &channel, 0));
    net.refund(payee, &channel, 100).unwrap();
    net.refund(who("settlement-0"), &channel, 100).unwrap();
    assert_eq!(net.opg(alice), start + 200);
    // By signature: nonce 2 is next, once, for this amount.
    let nonce = |net: &mut Net| -> u64 {
        let call = BatchSettlement::refundNonceCall {
            channelId: channel.id(),
        };
        net.evm.view(CHANNELS, call).unwrap().to()
    };
    assert_eq!(nonce(&mut net), 2);
    let signature = channel.refund_signature(2, 50);
    for (amount, number) in [(50, 1), (50, 3)] {
        let result = net.refund_signed(&channel, amount, number, signature.clone());
        assert_reverts::<BatchSettlement::InvalidRefundNonce, _>(result);
    }
    assert_reverts::<BatchSettlement::InvalidSignature, _>(net.refund_signed(&channel, 51, 2, signature.clone()));
    let forged = Channel {
        authorizer: "thief".into(),
        ..channel.clone()
    };
    let result = net.refund_signed(&channel, 50, 2, forged.refund_signature(2, 50));
    assert_reverts::<BatchSettlement::InvalidSignature, _>(result);
    net.refund_signed(&channel, 50, 2, signature.clone()).unwrap();
    assert_reverts::<BatchSettlement::InvalidRefundNonce, _>(net.refund_signed(&channel, 50, 2, signature));
    assert_eq!(net.opg(alice), start + 250);
    // More than is left gives what is left; with nothing left only the nonce moves.
    net.refund(payee, &channel, 10_000).unwrap();
    assert_eq!(net.opg(alice), start + 700);
    net.refund(payee, &channel, 10_000).unwrap();
    assert_eq!(net.opg(alice), start + 700);
    assert_eq!(nonce(&mut net), 5);
    assert_eq!(net.channel_state(channel.id()), (300, 300));
}

/// A refund is taken off an announced withdrawal, and ends it when it covers it.
#[test]
fn a_refund_reduces_an_announced_withdrawal() {
    let mut net = Net::new();
    let (alice, payee) = (who("alice"), who("payee"));
    let channel = open(&mut net, 1_000);
    let pending = |net: &mut Net| {
        let call = BatchSettlement::pendingWithdrawalsCall {
            channelId: channel.id(),
        };
        let state = net.evm.view(CHANNELS, call).unwrap();
        (state.amount, state.initiatedAt.is_zero())
    };
    net.initiate(alice, &channel, 600).unwrap();
    net.refund(payee, &channel, 200).unwrap();
    assert_eq!(pending(&mut net), (400, false));
    net.refund(payee, &channel, 400).unwrap();
    assert_eq!(pending(&mut net), (0, true));
    net.tick(DELAY);
    assert_reverts::<BatchSettlement::WithdrawalNotPending, _>(net.finalize(alice, &channel));
    let done = net.batch_raw(
        payee,
        BatchSettlement::refundCall {
            config: channel.config.clone(),
            amount: 400,
        },
    );
    // Empty and never claimed from: closed, and open again with the next deposit.
    let closed = BatchSettlement::ChannelClosed::SIGNATURE_HASH;
    assert!(done.unwrap().logs.iter().any(|log| log.topics()[0] == closed));
    assert_eq!(net.channel_state(channel.id()), (0, 0));
    net.fund(&channel, 5, 2).unwrap();
    assert_eq!(net.channel_state(channel.id()), (5, 0));
}

#[test]
fn several_calls_go_in_one() {
    let mut net = Net::new();
    let payee = who("payee");
    let channel = open(&mut net, 1_000);
    let claim = BatchSettlement::claimCall {
        voucherClaims: vec![channel.row(400, 400)],
    };
    let settle = BatchSettlement::settleCall {
        receiver: payee,
        token: addresses::OPG,
    };
    let refund = BatchSettlement::refundCall {
        config: channel.config.clone(),
        amount: 600,
    };
    let data = vec![
        claim.abi_encode().into(),
        settle.abi_encode().into(),
        refund.abi_encode().into(),
    ];
    net.batch(payee, BatchSettlement::multicallCall { data: data.clone() })
        .unwrap();
    assert_eq!(net.opg(payee), 400);
    assert_eq!(net.channel_state(channel.id()), (400, 400));
    // One that fails undoes all, and the caller is still the caller.
    assert!(
        net.batch(who("thief"), BatchSettlement::multicallCall { data })
            .is_err()
    );
}

/// Two channels that differ in one field share nothing, and neither do two chains.
#[test]
fn every_field_makes_another_channel() {
    let base = Channel::new("alice", who("payee"), 1);
    let changes: [fn(&mut Channel); 7] = [
        |c| c.config.payer = who("bob"),
        |c| c.config.payerAuthorizer = who("bob"),
        |c| c.config.receiver = who("bob"),
        |c| c.config.receiverAuthorizer = who("bob"),
        |c| c.config.token = who("bob"),
        |c| c.config.withdrawDelay = U40::from(901),
        |c| c.config.salt = B256::repeat_byte(7),
    ];
    for change in changes {
        let mut other = base.clone();
        change(&mut other);
        assert_ne!(other.id(), base.id());
    }
}

/// Balances of a worthless token stay in channels of that token.
#[test]
fn tokens_do_not_mix() {
    let mut net = Net::new();
    let payee = who("payee");
    open(&mut net, 1_000);
    let token = net.deploy("token", &TestToken::BYTECODE, ());
    let mut channel = Channel::new("alice", payee, 2);
    channel.config.token = token;
    let mint = TestToken::mintCall {
        to: who("alice"),
        amount: U256::from(u128::MAX),
    };
    net.evm.call(who("alice"), token, mint.clone()).unwrap();
    net.fund(&channel, u128::MAX, 1).unwrap();
    net.claim(payee, vec![channel.row(u128::MAX, u128::MAX)]).unwrap();
    net.settle_receiver(payee, addresses::OPG).unwrap();
    assert_eq!(net.opg(payee), 0);
    // More than 128 bits of it is refused without harm to others.
    net.evm.call(who("alice"), token, mint).unwrap();
    assert_reverts::<BatchSettlement::DepositOverflow, _>(net.fund(&channel, 1, 2));
    let mut second = channel.clone();
    second.config.salt = B256::repeat_byte(3);
    net.fund(&second, 1, 3).unwrap();
    assert_reverts::<BatchSettlement::ClaimExceedsBalance, _>(net.claim(payee, vec![second.row(1, 1)]));
}
