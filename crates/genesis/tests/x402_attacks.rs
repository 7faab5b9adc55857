//! Channels under attack: smart wallets, tokens that call back, and everybody trying to take somebody else's money.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use common::{
    Net, TestForwarder, TestGasBurner, TestWallet, assert_reverts, key, sign, who,
    x402::{Channel, DELAY, TestCollector, TestSmartWallet, TestToken, claim_signature},
};
use opg_contracts::{BatchSettlement, OPG, Permit2, UniversalSigValidator, addresses, x402};
use opg_genesis::evm::CallError;

const CHANNELS: Address = addresses::BATCH_SETTLEMENT;
const VALIDATOR: Address = addresses::UNIVERSAL_SIG_VALIDATOR;

/// A channel of a smart wallet that alice owns: no delegated signer, so the wallet itself is asked (ERC-1271).
fn wallet_channel(net: &mut Net, wallet: Address, salt: u64) -> Channel {
    let give = OPG::transferCall {
        to: wallet,
        value: U256::from(5_000),
    };
    net.evm.call(who("alice"), addresses::OPG, give).unwrap();
    let mut channel = Channel::new("alice", who("payee"), salt);
    channel.config.payer = wallet;
    channel.config.payerAuthorizer = Address::ZERO;
    channel
}

#[test]
fn a_smart_wallet_pays_through_a_channel() {
    let mut net = Net::new();
    let payee = who("payee");
    let wallet = net.deploy("wallet", &TestSmartWallet::BYTECODE, (who("alice"),));
    let channel = wallet_channel(&mut net, wallet, 1);
    net.fund(&channel, 1_000, 1).unwrap();
    let forged = Channel {
        signer: "thief".into(),
        ..channel.clone()
    };
    assert_reverts::<BatchSettlement::InvalidSignature, _>(net.claim(payee, vec![forged.row(10, 10)]));
    net.claim(payee, vec![channel.row(300, 300)]).unwrap();
    net.claim_signed("settlement-0", vec![channel.row(400, 400)]).unwrap();
    assert_eq!(net.channel_state(channel.id()), (1_000, 400));
    // Its owner is not the wallet; and with no delegate, the zero address has no rights either.
    assert_reverts::<BatchSettlement::InvalidChannel, _>(net.initiate(who("alice"), &channel, 1));
    let act = |net: &mut Net, data: Vec<u8>| {
        let call = TestSmartWallet::forwardCall {
            target: CHANNELS,
            data: data.into(),
        };
        net.evm.call(who("alice"), wallet, call).unwrap();
    };
    let initiate = BatchSettlement::initiateWithdrawCall {
        config: channel.config.clone(),
        amount: 600,
    };
    act(&mut net, initiate.abi_encode());
    net.tick(DELAY);
    let finalize = BatchSettlement::finalizeWithdrawCall {
        config: channel.config.clone(),
    };
    act(&mut net, finalize.abi_encode());
    assert_eq!(net.opg(wallet), 4_600);
}

/// An account of a key may leave the delegate out as well.
#[test]
fn a_key_without_a_delegate_signs_for_itself() {
    let mut net = Net::new();
    let mut channel = Channel::new("alice", who("payee"), 1);
    channel.config.payerAuthorizer = Address::ZERO;
    net.fund(&channel, 1_000, 1).unwrap();
    net.claim(who("payee"), vec![channel.row(300, 300)]).unwrap();
    let forged = Channel {
        signer: "thief".into(),
        ..channel.clone()
    };
    assert_reverts::<BatchSettlement::InvalidSignature, _>(net.claim(who("payee"), vec![forged.row(400, 400)]));
}

/// A wallet that burns gas or says nothing blocks its own channel only.
#[test]
fn a_hostile_wallet_hurts_nobody_else() {
    let mut net = Net::new();
    let burner = net.deploy("burner", &TestGasBurner::BYTECODE, ());
    let collector = net.deploy("collector", &TestCollector::BYTECODE, ());
    let approve = OPG::approveCall {
        spender: collector,
        value: U256::MAX,
    };
    net.evm.call(who("carol"), addresses::OPG, approve).unwrap();
    let set = TestCollector::setCall {
        sponsor_: who("carol"),
        short_: U256::ZERO,
        target_: Address::ZERO,
        data_: Bytes::new(),
    };
    net.evm.call(who("carol"), collector, set).unwrap();
    let mut hostile = Channel::new("alice", who("payee"), 1);
    hostile.config.payer = burner;
    hostile.config.payerAuthorizer = Address::ZERO;
    net.deposit_with(&hostile, 100, (collector, Bytes::new())).unwrap();
    let good = Channel::new("alice", who("payee"), 2);
    net.fund(&good, 100, 1).unwrap();
    let claim = |rows| BatchSettlement::claimCall { voucherClaims: rows }.abi_encode();
    let send = |net: &mut Net, rows| {
        net.evm
            .send_with_gas(who("payee"), CHANNELS, U256::ZERO, claim(rows).into(), 2_000_000)
    };
    assert!(send(&mut net, vec![good.row(50, 50), hostile.row(50, 50)]).is_err());
    assert_eq!(net.channel_state(good.id()), (100, 0), "a batch is all or nothing");
    send(&mut net, vec![good.row(50, 50)]).unwrap();
}

/// Creation code of alice's wallet and its address behind the CREATE2 deployer.
fn counterfactual() -> (Address, Bytes) {
    let init = [TestWallet::BYTECODE.as_ref(), &(who("alice"),).abi_encode()].concat();
    let salt = B256::repeat_byte(5);
    let address = addresses::CREATE2_DEPLOYER.create2(salt, keccak256(&init));
    (address, [salt.as_slice(), &init].concat().into())
}

/// The wrapper of ERC-6492: how to deploy the wallet, its signature, and the magic word.
fn wrapped(factory: Address, call: &Bytes, inner: &[u8]) -> Bytes {
    let body = (factory, call.clone(), Bytes::copy_from_slice(inner)).abi_encode_params();
    [body, [0x64, 0x92].repeat(16)].concat().into()
}

fn check(net: &mut Net, signer: Address, digest: B256, signature: Bytes) -> Result<bool, CallError> {
    let call = UniversalSigValidator::isValidSigCall {
        signer,
        hash: digest,
        signature,
    };
    net.evm.call(who("anyone"), VALIDATOR, call)
}

#[test]
fn signatures_of_wallets_that_do_not_exist_yet() {
    let mut net = Net::new();
    let (wallet, deploy) = counterfactual();
    let digest = B256::repeat_byte(0x77);
    let good = wrapped(addresses::CREATE2_DEPLOYER, &deploy, &sign(&key("alice"), digest));
    let bad = wrapped(addresses::CREATE2_DEPLOYER, &deploy, &sign(&key("thief"), digest));
    assert!(check(&mut net, wallet, digest, good.clone()).unwrap());
    assert!(!check(&mut net, wallet, digest, bad.clone()).unwrap());
    assert!(net.evm.code(wallet).is_empty(), "the check left nothing behind");
    // A call that deploys something else, or nothing, or fails.
    assert!(!check(&mut net, who("nobody"), digest, good.clone()).unwrap());
    let nothing = wrapped(who("nobody"), &Bytes::new(), &sign(&key("alice"), digest));
    assert!(!check(&mut net, wallet, digest, nothing).unwrap());
    let failing = wrapped(addresses::OPG, &Bytes::from_static(&[1, 2, 3, 4]), &[]);
    assert_reverts::<UniversalSigValidator::ERC6492DeployFailed, _>(check(&mut net, wallet, digest, failing));
    // The identity precompile answers every call with its input, which starts with the magic value; it is no wallet.
    let identity = Address::with_last_byte(4);
    let fake = wrapped(who("nobody"), &Bytes::new(), &[]);
    assert!(!check(&mut net, identity, digest, fake).unwrap());
    // With effects the wallet stays; afterwards wrapped and plain signatures hold.
    let call = UniversalSigValidator::isValidSigWithSideEffectsCall {
        signer: wallet,
        hash: digest,
        signature: good.clone(),
    };
    assert!(net.evm.call(who("anyone"), VALIDATOR, call).unwrap());
    assert!(!net.evm.code(wallet).is_empty());
    assert!(check(&mut net, wallet, digest, good).unwrap());
    assert!(check(&mut net, wallet, digest, sign(&key("alice"), digest).to_vec().into()).unwrap());
    assert!(!check(&mut net, wallet, digest, sign(&key("thief"), digest).to_vec().into()).unwrap());
    // Wrapped and wrong, for a wallet that exists: the factory is tried again, and cannot deploy twice.
    assert_reverts::<UniversalSigValidator::ERC6492DeployFailed, _>(check(&mut net, wallet, digest, bad));
    // A wallet that reverts is reported, with its reason.
    let empty = check(&mut net, wallet, digest, Bytes::new());
    assert_reverts::<UniversalSigValidator::ERC1271Revert, _>(empty);
    // Keys.
    assert!(check(&mut net, who("bob"), digest, sign(&key("bob"), digest).to_vec().into()).unwrap());
    assert!(
        !check(
            &mut net,
            who("bob"),
            digest,
            sign(&key("alice"), digest).to_vec().into()
        )
        .unwrap()
    );
    assert!(!check(&mut net, who("bob"), digest, Bytes::new()).unwrap());
}

/// A payer without a deployed wallet signs a voucher; the facilitator deploys it on the way to the claim.
#[test]
fn a_wallet_is_deployed_on_the_way_to_a_claim() {
    let mut net = Net::new();
    let (wallet, deploy) = counterfactual();
    let channel = wallet_channel(&mut net, wallet, 9);
    // No code, no signature: neither deposit nor claim.
    assert_reverts::<OPG::InvalidAuthorizationSignature, _>(net.fund(&channel, 1_000, 1));
    let digest = {
        let call = BatchSettlement::getVoucherDigestCall {
            channelId: channel.id(),
            maxClaimableAmount: 700,
        };
        net.evm.view(CHANNELS, call).unwrap()
    };
    let call = UniversalSigValidator::isValidSigWithSideEffectsCall {
        signer: wallet,
        hash: digest,
        signature: wrapped(addresses::CREATE2_DEPLOYER, &deploy, &channel.voucher(700)),
    };
    assert!(net.evm.call(who("facilitator"), VALIDATOR, call).unwrap());
    net.fund(&channel, 1_000, 1).unwrap();
    net.claim(who("payee"), vec![channel.row(700, 700)]).unwrap();
    assert_eq!(net.channel_state(channel.id()), (1_000, 700));
}

/// Sets up a token that calls the channels contract in the middle of each transfer.
fn reentrant_token(net: &mut Net) -> Address {
    let token = net.deploy("token", &TestToken::BYTECODE, ());
    let mint = TestToken::mintCall {
        to: who("alice"),
        amount: U256::from(10_000),
    };
    net.evm.call(who("alice"), token, mint).unwrap();
    token
}

fn aim(net: &mut Net, token: Address, fee: u64, call: Option<Vec<u8>>) {
    let set = TestToken::setCall {
        fee_: U256::from(fee),
        lies_: false,
        target_: if call.is_some() { CHANNELS } else { Address::ZERO },
        data_: call.unwrap_or_default().into(),
    };
    net.evm.call(who("thief"), token, set).unwrap();
}

fn entered(net: &mut Net, token: Address) -> bool {
    net.evm.view(token, TestToken::enteredCall {}).unwrap()
}

/// A token calls back in the middle of each movement, with the best call for it. Nothing gets in.
#[test]
fn tokens_cannot_reenter() {
    let mut net = Net::new();
    let token = reentrant_token(&mut net);
    let mut channel = Channel::new("alice", who("payee"), 1);
    channel.config.token = token;
    // The token itself is the receiver and the payer's delegate, so that it may call everything.
    channel.config.receiver = token;
    channel.config.payerAuthorizer = token;
    let id = channel.id();
    let settle = BatchSettlement::settleCall { receiver: token, token }.abi_encode();
    let refund = BatchSettlement::refundCall {
        config: channel.config.clone(),
        amount: 100,
    }
    .abi_encode();
    let finalize = BatchSettlement::finalizeWithdrawCall {
        config: channel.config.clone(),
    }
    .abi_encode();
    let (collector, data) = channel.by_3009(100, 2);
    let deposit = BatchSettlement::depositCall {
        config: channel.config.clone(),
        amount: 100,
        collector,
        collectorData: data,
    }
    .abi_encode();
    let nested = BatchSettlement::multicallCall {
        data: vec![refund.clone().into()],
    }
    .abi_encode();
    let small = BatchSettlement::refundCall {
        config: channel.config.clone(),
        amount: 10,
    }
    .abi_encode();
    net.fund(&channel, 1_000, 1).unwrap();
    net.initiate(who("alice"), &channel, 300).unwrap();
    net.tick(DELAY);
    for inner in [&settle, &refund, &finalize, &deposit, &nested] {
        aim(&mut net, token, 0, Some(inner.clone()));
        let act = TestToken::forwardCall {
            target: CHANNELS,
            data: small.clone().into(),
        };
        net.evm.call(who("thief"), token, act).unwrap();
        assert!(!entered(&mut net, token));
        let (collector, data) = channel.by_3009(10, 3);
        net.deposit_with(&channel, 10, (collector, data)).unwrap();
        assert!(!entered(&mut net, token));
    }
    assert_eq!(net.channel_state(id), (1_000, 0));
    let held = TestToken::balanceOfCall(CHANNELS);
    assert_eq!(net.evm.view(token, held).unwrap(), U256::from(1_000));
    net.finalize(who("alice"), &channel).unwrap();
    assert!(!entered(&mut net, token));
}

/// A collector that calls back sees the guard as well.
#[test]
fn collectors_cannot_reenter() {
    let mut net = Net::new();
    let collector = net.deploy("collector", &TestCollector::BYTECODE, ());
    let victim = Channel::new("alice", who("payee"), 1);
    net.fund(&victim, 1_000, 1).unwrap();
    let mut channel = Channel::new("alice", who("payee"), 2);
    channel.config.receiver = collector;
    let approve = OPG::approveCall {
        spender: collector,
        value: U256::MAX,
    };
    net.evm.call(who("carol"), addresses::OPG, approve).unwrap();
    for inner in [
        BatchSettlement::settleCall {
            receiver: collector,
            token: addresses::OPG,
        }
        .abi_encode(),
        BatchSettlement::refundCall {
            config: channel.config.clone(),
            amount: 50,
        }
        .abi_encode(),
    ] {
        let set = TestCollector::setCall {
            sponsor_: who("carol"),
            short_: U256::ZERO,
            target_: CHANNELS,
            data_: inner.into(),
        };
        net.evm.call(who("thief"), collector, set).unwrap();
        net.deposit_with(&channel, 50, (collector, Bytes::new())).unwrap();
        assert!(!net.evm.view(collector, TestCollector::enteredCall {}).unwrap());
    }
    assert_eq!(net.opg(CHANNELS), 1_100);
}

#[test]
fn tokens_with_a_fee_are_refused() {
    let mut net = Net::new();
    let token = reentrant_token(&mut net);
    let mut channel = Channel::new("alice", who("payee"), 1);
    channel.config.token = token;
    aim(&mut net, token, 1, None);
    assert!(net.fund(&channel, 100, 1).is_err());
    assert_eq!(net.channel_state(channel.id()), (0, 0));
}

/// Everybody who is named anywhere tries everything that is not theirs. Nothing moves but to whom it belongs.
#[test]
fn nobody_takes_anybody_elses_money() {
    let mut net = Net::new();
    let (alice, payee, node) = (who("alice"), who("payee"), who("node-0"));
    let channel = Channel::new("alice", payee, 1);
    net.fund(&channel, 1_000, 1).unwrap();
    let voucher = channel.row(400, 400);
    let people = ["node-0", "router", "facilitator", "thief", "bob"];
    for person in people {
        let me = who(person);
        // Claim for oneself: another receiver is another channel, which is empty and has no voucher.
        let mut mine = channel.clone();
        mine.config.receiver = me;
        mine.config.receiverAuthorizer = me;
        let mut row = mine.row(400, 400);
        row.signature = voucher.signature.clone();
        assert_reverts::<BatchSettlement::ClaimExceedsBalance, _>(net.claim(me, vec![row]));
        assert_reverts::<BatchSettlement::NotAuthorizedToClaim, _>(net.claim(me, vec![voucher.clone()]));
        let call = BatchSettlement::claimWithSignatureCall {
            voucherClaims: vec![voucher.clone()],
            authorizerSignature: claim_signature(person, std::slice::from_ref(&voucher)),
        };
        assert_reverts::<BatchSettlement::InvalidSignature, _>(net.batch(me, call));
        // Take the deposit back.
        assert_reverts::<BatchSettlement::InvalidChannel, _>(net.initiate(me, &channel, 1));
        assert_reverts::<BatchSettlement::NotAuthorizedToRefund, _>(net.refund(me, &channel, 1));
        // Use alice's deposit signature for one's own channel.
        let (collector, data) = channel.by_3009(50, 77);
        assert_reverts::<OPG::InvalidAuthorizationSignature, _>(net.deposit_with(&mine, 50, (collector, data)));
        // Pull tokens out of the contracts.
        for from in [
            CHANNELS,
            addresses::ERC3009_DEPOSIT_COLLECTOR,
            addresses::PERMIT2_DEPOSIT_COLLECTOR,
            addresses::PERMIT2,
        ] {
            let pull = OPG::transferFromCall {
                from,
                to: me,
                value: U256::from(1),
            };
            assert!(net.evm.call(me, addresses::OPG, pull).is_err());
        }
    }
    // A channel of the node is no channel of the payee: claims on one pay nothing out of the other.
    let other = Channel::new("alice", node, 1);
    net.fund(&other, 10, 2).unwrap();
    assert_reverts::<BatchSettlement::ClaimExceedsBalance, _>(net.claim(node, vec![other.row(400, 400)]));
    net.claim(payee, vec![voucher]).unwrap();
    for person in people {
        net.settle_receiver(who(person), addresses::OPG).unwrap();
    }
    assert_eq!(net.opg(CHANNELS), 1_010, "claimed money waits for its receiver");
    net.settle_receiver(payee, addresses::OPG).unwrap();
    assert_eq!(net.opg(payee), 400);
    // The receiver side cannot reach beyond the voucher, nor the payer side below the claim.
    assert_reverts::<BatchSettlement::ClaimExceedsCeiling, _>(net.claim(payee, vec![channel.row(400, 401)]));
    assert_reverts::<BatchSettlement::WithdrawAmountExceedsAvailable, _>(net.initiate(alice, &channel, 601));
}

/// The payer's delegate signs vouchers and may start the way out; it never receives anything.
#[test]
fn a_delegate_gets_no_money() {
    let mut net = Net::new();
    let mut channel = Channel::new("alice", who("payee"), 1);
    channel.config.payerAuthorizer = who("delegate");
    channel.signer = "delegate".into();
    net.fund(&channel, 1_000, 1).unwrap();
    // The payer's own voucher does not count once there is a delegate.
    let own = Channel {
        signer: "alice".into(),
        ..channel.clone()
    };
    assert_reverts::<BatchSettlement::InvalidSignature, _>(net.claim(who("payee"), vec![own.row(1, 1)]));
    net.claim(who("payee"), vec![channel.row(200, 200)]).unwrap();
    net.initiate(who("delegate"), &channel, 800).unwrap();
    net.tick(DELAY);
    let before = net.opg(who("alice"));
    net.finalize(who("delegate"), &channel).unwrap();
    assert_eq!(net.opg(who("alice")), before + 800);
    assert_eq!(net.opg(who("delegate")), 0);
}

/// Somebody submits a payer's deposit first, with everything else of their own: it is the same deposit.
#[test]
fn a_submitted_deposit_can_only_be_the_signed_one() {
    let mut net = Net::new();
    let channel = Channel::new("alice", who("payee"), 1);
    let signed = channel.by_3009(100, 1);
    // The authorization pays the collector, which pays on only when the channels contract calls it.
    let (collector, data) = signed.clone();
    let values = <(U256, U256, U256, Bytes)>::abi_decode_params(&data).unwrap();
    let direct = OPG::receiveWithAuthorization_0Call {
        from: who("alice"),
        to: collector,
        value: U256::from(100),
        validAfter: values.0,
        validBefore: values.1,
        nonce: keccak256((channel.id(), values.2).abi_encode()),
        signature: values.3.clone(),
    };
    assert_reverts::<OPG::CallerNotRecipient, _>(net.evm.call(who("thief"), addresses::OPG, direct));
    let transfer = OPG::transferWithAuthorization_0Call {
        from: who("alice"),
        to: collector,
        value: U256::from(100),
        validAfter: values.0,
        validBefore: values.1,
        nonce: keccak256((channel.id(), values.2).abi_encode()),
        signature: values.3,
    };
    let result = net.evm.call(who("thief"), addresses::OPG, transfer);
    assert_reverts::<OPG::InvalidAuthorizationSignature, _>(result);
    net.deposit_with(&channel, 100, signed).unwrap();
    assert_eq!(x402::read_channel(&net.evm, channel.id()).unwrap().balance, 100);
}

/// A contract that forwards calls (an account delegated by EIP-7702, say) has its own name, not its caller's.
#[test]
fn forwarded_calls_have_the_forwarders_rights() {
    let mut net = Net::new();
    let forwarder = net.deploy("forwarder", &TestForwarder::BYTECODE, ());
    let channel = Channel::new("alice", who("payee"), 1);
    net.fund(&channel, 100, 1).unwrap();
    let claim = BatchSettlement::claimCall {
        voucherClaims: vec![channel.row(50, 50)],
    };
    let call = TestForwarder::forwardCall {
        target: CHANNELS,
        data: claim.abi_encode().into(),
    };
    assert_reverts::<BatchSettlement::NotAuthorizedToClaim, _>(net.evm.call(who("payee"), forwarder, call));
}

/// Signatures are bound to chain and contract: the same code elsewhere has other ids and another separator.
#[test]
fn copies_at_other_addresses_have_other_domains() {
    let mut net = Net::new();
    for (label, original) in [("copy-0", addresses::PERMIT2), ("copy-1", CHANNELS)] {
        let code = net.evm.code(original);
        net.evm.set_code(who(label), code);
    }
    let copied = net.evm.view(who("copy-0"), Permit2::DOMAIN_SEPARATORCall {}).unwrap();
    let original = net
        .evm
        .view(addresses::PERMIT2, Permit2::DOMAIN_SEPARATORCall {})
        .unwrap();
    assert_ne!(copied, original);
    let channel = Channel::new("alice", who("payee"), 1);
    let call = BatchSettlement::getChannelIdCall {
        config: channel.config.clone(),
    };
    assert_ne!(net.evm.view(who("copy-1"), call).unwrap(), channel.id());
    assert_ne!(x402::channel_id(&channel.config, 8453), channel.id());
}
