//! The token: wrapping, authorizations, permits, votes.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolStruct, SolValue};
use common::{
    CancelAuthorization, Net, Payment, Permit, ReceiveWithAuthorization, TestForwarder, TestReentrant, TestRefuser,
    TestWallet, TransferWithAuthorization, assert_reverts, domain, key, nonce, sign, who,
};
use opg_contracts::{OPG, addresses, state, state::Settlement};
use opg_genesis::evm::CallError;

const AMOUNT: u128 = 5_000;

fn transfer(payer: &str, to: Address, nonce: B256, after: u64, before: u64) -> (TransferWithAuthorization, [u8; 65]) {
    let message = TransferWithAuthorization {
        from: who(payer),
        to,
        value: U256::from(AMOUNT),
        validAfter: U256::from(after),
        validBefore: U256::from(before),
        nonce,
    };
    let signature = sign(&key(payer), message.eip712_signing_hash(&domain()));
    (message, signature)
}

fn relay(net: &mut Net, m: &TransferWithAuthorization, signature: &[u8]) -> Result<(), CallError> {
    let call = OPG::transferWithAuthorization_0Call {
        from: m.from,
        to: m.to,
        value: m.value,
        validAfter: m.validAfter,
        validBefore: m.validBefore,
        nonce: m.nonce,
        signature: Bytes::copy_from_slice(signature),
    };
    net.evm.call(who("relayer"), addresses::OPG, call).map(|_| ())
}

fn vrs(signature: &[u8; 65]) -> (u8, B256, B256) {
    (
        signature[64],
        B256::from_slice(&signature[..32]),
        B256::from_slice(&signature[32..64]),
    )
}

#[test]
fn wraps_and_unwraps_one_to_one() {
    let mut net = Net::new();
    let (alice, before) = (who("alice"), net.opg(who("alice")));
    let native = net.evm.balance(alice);
    net.evm
        .send(alice, addresses::OPG, U256::from(7), Bytes::new())
        .unwrap();
    net.evm
        .send(
            alice,
            addresses::OPG,
            U256::from(5),
            OPG::depositCall {}.abi_encode().into(),
        )
        .unwrap();
    assert_eq!(net.opg(alice), before + 12);
    net.evm
        .call(alice, addresses::OPG, OPG::withdrawCall { amount: U256::from(2) })
        .unwrap();
    let to = who("somebody");
    net.evm
        .call(
            alice,
            addresses::OPG,
            OPG::withdrawToCall {
                to,
                amount: U256::from(10),
            },
        )
        .unwrap();
    assert_eq!((net.opg(alice), net.evm.balance(to)), (before, U256::from(10)));
    assert_eq!(net.evm.balance(alice), native - U256::from(10));
    let supply = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
    assert_eq!(supply, net.evm.balance(addresses::OPG));
    assert_reverts::<OPG::ERC20InsufficientBalance, _>(net.evm.call(
        alice,
        addresses::OPG,
        OPG::withdrawCall { amount: U256::MAX },
    ));
}

#[test]
fn forced_native_coin_is_nobodys() {
    let mut net = Net::new();
    let supply = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
    let backing = net.evm.balance(addresses::OPG);
    // PUSH20 OPG SELFDESTRUCT, with 9 wei.
    let bomb = who("bomb");
    net.evm
        .set_code(bomb, [&[0x73], addresses::OPG.as_slice(), &[0xff]].concat().into());
    net.evm.send(who("alice"), bomb, U256::from(9), Bytes::new()).unwrap();
    assert_eq!(net.evm.balance(addresses::OPG), backing + U256::from(9));
    assert_eq!(net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap(), supply);
}

#[test]
fn unwrapping_cannot_be_reentered() {
    let mut net = Net::new();
    let thief = net.deploy("thief", &TestReentrant::BYTECODE, addresses::OPG);
    for to in [thief, who("victim")] {
        net.evm
            .call(
                who("alice"),
                addresses::OPG,
                OPG::transferCall {
                    to,
                    value: U256::from(100),
                },
            )
            .unwrap();
    }
    net.evm
        .call(
            who("anyone"),
            thief,
            TestReentrant::attackCall {
                amount: U256::from(100),
            },
        )
        .unwrap();
    assert_eq!(net.evm.balance(thief), U256::from(100));
    assert_eq!(net.opg(thief), 0);
    assert!(!net.evm.view(thief, TestReentrant::stolenCall {}).unwrap());
    let supply = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
    assert_eq!(supply, net.evm.balance(addresses::OPG));
}

#[test]
fn a_refused_unwrapping_changes_nothing() {
    let mut net = Net::new();
    let refuser = net.deploy("refuser", &TestRefuser::BYTECODE, addresses::OPG);
    net.evm
        .call(
            who("alice"),
            addresses::OPG,
            OPG::transferCall {
                to: refuser,
                value: U256::from(3),
            },
        )
        .unwrap();
    let result = net.evm.call(
        who("anyone"),
        refuser,
        TestRefuser::unwrapCall { amount: U256::from(3) },
    );
    assert_reverts::<OPG::NativeTransferFailed, _>(result);
    assert_eq!(net.opg(refuser), 3);
}

#[test]
fn the_token_itself_holds_no_opg() {
    let mut net = Net::new();
    let transfer = OPG::transferCall {
        to: addresses::OPG,
        value: U256::ONE,
    };
    assert_reverts::<OPG::ERC20InvalidReceiver, _>(net.evm.call(who("alice"), addresses::OPG, transfer));
    // Unwrapping to the token would wrap again for the token itself.
    let unwrap = OPG::withdrawToCall {
        to: addresses::OPG,
        amount: U256::ONE,
    };
    assert_reverts::<OPG::NativeTransferFailed, _>(net.evm.call(who("alice"), addresses::OPG, unwrap));
}

#[test]
fn digests_equal_an_independent_implementation() {
    let mut net = Net::new();
    let mut hash = |call: Vec<u8>| {
        B256::from_slice(
            &net.evm
                .send(who("a"), addresses::OPG, U256::ZERO, call.into())
                .unwrap()
                .output,
        )
    };
    assert_eq!(hash(OPG::DOMAIN_SEPARATORCall {}.abi_encode()), domain().separator());
    let m = TransferWithAuthorization {
        from: Address::ZERO,
        to: Address::ZERO,
        value: U256::ZERO,
        validAfter: U256::ZERO,
        validBefore: U256::ZERO,
        nonce: B256::ZERO,
    };
    assert_eq!(
        hash(OPG::TRANSFER_WITH_AUTHORIZATION_TYPEHASHCall {}.abi_encode()),
        m.eip712_type_hash()
    );
    let r = keccak256(ReceiveWithAuthorization::eip712_encode_type().as_bytes());
    assert_eq!(hash(OPG::RECEIVE_WITH_AUTHORIZATION_TYPEHASHCall {}.abi_encode()), r);
    let c = keccak256(CancelAuthorization::eip712_encode_type().as_bytes());
    assert_eq!(hash(OPG::CANCEL_AUTHORIZATION_TYPEHASHCall {}.abi_encode()), c);
    assert_eq!(hash(OPG::CANCELLEDCall {}.abi_encode()), state::cancelled_hash());
}

#[test]
fn transfer_with_authorization_in_both_forms() {
    let mut net = Net::new();
    let (alice, to) = (who("alice"), who("somebody"));
    let before = net.opg(alice);
    let (m, signature) = transfer("alice", to, nonce(1), 0, u64::MAX);
    assert_eq!(state::settlement(&net.evm, alice, m.nonce).unwrap(), Settlement::Unused);
    relay(&mut net, &m, &signature).unwrap();
    assert!(state::settlement(&net.evm, alice, m.nonce).unwrap().paid(to, AMOUNT));
    assert!(
        !state::settlement(&net.evm, alice, m.nonce)
            .unwrap()
            .paid(to, AMOUNT + 1)
    );
    let view = OPG::settlementOfCall {
        payer: alice,
        nonce: m.nonce,
    };
    assert_eq!(
        net.evm.view(addresses::OPG, view).unwrap(),
        keccak256((to, U256::from(AMOUNT)).abi_encode())
    );

    let (m, signature) = transfer("alice", to, nonce(2), 0, u64::MAX);
    let (v, r, s) = vrs(&signature);
    let call = OPG::transferWithAuthorization_1Call {
        from: m.from,
        to: m.to,
        value: m.value,
        validAfter: m.validAfter,
        validBefore: m.validBefore,
        nonce: m.nonce,
        v,
        r,
        s,
    };
    net.evm.call(who("relayer"), addresses::OPG, call).unwrap();
    let state = OPG::authorizationStateCall {
        authorizer: alice,
        nonce: m.nonce,
    };
    assert!(net.evm.view(addresses::OPG, state).unwrap());
    assert_eq!((net.opg(alice), net.opg(to)), (before - 2 * AMOUNT, 2 * AMOUNT));
    assert_eq!(state::opg_balance(&net.evm, to).unwrap().0, 2 * AMOUNT);
}

#[test]
fn an_authorization_works_once_in_its_time_and_as_signed() {
    let mut net = Net::new();
    let to = who("somebody");
    let now = net.evm.timestamp();
    for (after, before) in [(now, u64::MAX), (0, now), (now + 1, now + 9)] {
        let (m, signature) = transfer("alice", to, nonce(1), after, before);
        assert_reverts::<OPG::AuthorizationNotValidNow, _>(relay(&mut net, &m, &signature));
    }
    let (m, signature) = transfer("alice", to, nonce(1), now - 1, now + 1);
    let altered = [
        TransferWithAuthorization {
            to: who("thief"),
            ..m.clone()
        },
        TransferWithAuthorization {
            value: U256::from(AMOUNT + 1),
            ..m.clone()
        },
        TransferWithAuthorization {
            nonce: nonce(2),
            ..m.clone()
        },
        TransferWithAuthorization {
            from: who("bob"),
            ..m.clone()
        },
        TransferWithAuthorization {
            validBefore: U256::MAX,
            ..m.clone()
        },
    ];
    for m in altered {
        assert_reverts::<OPG::InvalidAuthorizationSignature, _>(relay(&mut net, &m, &signature));
    }
    // The other signature of the same key and message (high s), a bare recovery id, and other lengths.
    let order = U256::from_be_bytes(secp256k1::constants::CURVE_ORDER);
    let mut high = signature;
    high[32..64].copy_from_slice(&(order - U256::from_be_slice(&signature[32..64])).to_be_bytes::<32>());
    high[64] = 55 - signature[64];
    let mut bare = signature;
    bare[64] -= 27;
    for bad in [
        &high[..],
        &bare[..],
        &signature[..64],
        &[],
        &[signature.as_slice(), &[0]].concat(),
    ] {
        assert_reverts::<OPG::InvalidAuthorizationSignature, _>(relay(&mut net, &m, bad));
    }
    relay(&mut net, &m, &signature).unwrap();
    assert_reverts::<OPG::AuthorizationUsedOrCanceled, _>(relay(&mut net, &m, &signature));
    // Another authorization under the same nonce is as good as used.
    let (again, signature) = transfer("alice", who("other"), nonce(1), 0, u64::MAX);
    assert_reverts::<OPG::AuthorizationUsedOrCanceled, _>(relay(&mut net, &again, &signature));
    // The same nonce of another payer is another nonce.
    let (other, signature) = transfer("bob", to, nonce(1), 0, u64::MAX);
    relay(&mut net, &other, &signature).unwrap();
}

#[test]
fn an_uncovered_authorization_stays_unused() {
    let mut net = Net::new();
    let (m, signature) = transfer("pauper", who("somebody"), nonce(1), 0, u64::MAX);
    assert_reverts::<OPG::ERC20InsufficientBalance, _>(relay(&mut net, &m, &signature));
    assert_eq!(
        state::settlement(&net.evm, m.from, m.nonce).unwrap(),
        Settlement::Unused
    );
    net.evm
        .call(
            who("alice"),
            addresses::OPG,
            OPG::transferCall {
                to: m.from,
                value: m.value,
            },
        )
        .unwrap();
    relay(&mut net, &m, &signature).unwrap();
}

#[test]
fn cancelled_means_never() {
    let mut net = Net::new();
    let alice = who("alice");
    let message = CancelAuthorization {
        authorizer: alice,
        nonce: nonce(1),
    };
    let digest = message.eip712_signing_hash(&domain());
    let cancel = |signature: [u8; 65], authorizer| OPG::cancelAuthorization_0Call {
        authorizer,
        nonce: nonce(1),
        v: signature[64],
        r: B256::from_slice(&signature[..32]),
        s: B256::from_slice(&signature[32..64]),
    };
    let forged = cancel(sign(&key("bob"), digest), alice);
    assert_reverts::<OPG::InvalidAuthorizationSignature, _>(net.evm.call(who("bob"), addresses::OPG, forged));
    let call = cancel(sign(&key("alice"), digest), alice);
    net.evm.call(who("relayer"), addresses::OPG, call.clone()).unwrap();
    assert_eq!(
        state::settlement(&net.evm, alice, nonce(1)).unwrap(),
        Settlement::Cancelled
    );
    let (m, signature) = transfer("alice", who("somebody"), nonce(1), 0, u64::MAX);
    assert_reverts::<OPG::AuthorizationUsedOrCanceled, _>(relay(&mut net, &m, &signature));
    assert_reverts::<OPG::AuthorizationUsedOrCanceled, _>(net.evm.call(who("relayer"), addresses::OPG, call));
    // A used one cannot be cancelled.
    let (m, signature) = transfer("alice", who("somebody"), nonce(2), 0, u64::MAX);
    relay(&mut net, &m, &signature).unwrap();
    let digest = CancelAuthorization {
        authorizer: alice,
        nonce: nonce(2),
    }
    .eip712_signing_hash(&domain());
    let late = OPG::cancelAuthorization_1Call {
        authorizer: alice,
        nonce: nonce(2),
        signature: sign(&key("alice"), digest).to_vec().into(),
    };
    assert_reverts::<OPG::AuthorizationUsedOrCanceled, _>(net.evm.call(alice, addresses::OPG, late));
}

#[test]
fn only_the_recipient_receives() {
    let mut net = Net::new();
    let (alice, shop) = (who("alice"), who("shop"));
    let m = ReceiveWithAuthorization {
        from: alice,
        to: shop,
        value: U256::from(AMOUNT),
        validAfter: U256::ZERO,
        validBefore: U256::MAX,
        nonce: nonce(3),
    };
    let signature = sign(&key("alice"), m.eip712_signing_hash(&domain()));
    let (v, r, s) = vrs(&signature);
    let bytes = OPG::receiveWithAuthorization_0Call {
        from: m.from,
        to: m.to,
        value: m.value,
        validAfter: m.validAfter,
        validBefore: m.validBefore,
        nonce: m.nonce,
        signature: signature.to_vec().into(),
    };
    assert_reverts::<OPG::CallerNotRecipient, _>(net.evm.call(who("thief"), addresses::OPG, bytes.clone()));
    // A signature for receiving is none for transferring.
    let t = TransferWithAuthorization {
        from: m.from,
        to: m.to,
        value: m.value,
        validAfter: m.validAfter,
        validBefore: m.validBefore,
        nonce: m.nonce,
    };
    assert_reverts::<OPG::InvalidAuthorizationSignature, _>(relay(&mut net, &t, &signature));
    let words = OPG::receiveWithAuthorization_1Call {
        from: m.from,
        to: m.to,
        value: m.value,
        validAfter: m.validAfter,
        validBefore: m.validBefore,
        nonce: m.nonce,
        v,
        r,
        s,
    };
    net.evm.call(shop, addresses::OPG, words).unwrap();
    assert_eq!(net.opg(shop), AMOUNT);
    assert_reverts::<OPG::AuthorizationUsedOrCanceled, _>(net.evm.call(shop, addresses::OPG, bytes));
}

#[test]
fn contract_wallets_pay_by_their_own_rules() {
    let mut net = Net::new();
    let wallet = net.deploy("wallet", &TestWallet::BYTECODE, who("owner"));
    net.evm
        .call(
            who("alice"),
            addresses::OPG,
            OPG::transferCall {
                to: wallet,
                value: U256::from(AMOUNT),
            },
        )
        .unwrap();
    let m = TransferWithAuthorization {
        from: wallet,
        to: who("somebody"),
        value: U256::from(AMOUNT),
        validAfter: U256::ZERO,
        validBefore: U256::MAX,
        nonce: nonce(1),
    };
    let digest = m.eip712_signing_hash(&domain());
    // Not even the key behind the wallet's own address signs for it.
    for forger in ["thief", "wallet"] {
        let signature = sign(&key(forger), digest);
        assert_reverts::<OPG::InvalidAuthorizationSignature, _>(relay(&mut net, &m, &signature));
    }
    relay(&mut net, &m, &sign(&key("owner"), digest)).unwrap();
    assert_eq!(net.opg(who("somebody")), AMOUNT);
    assert!(
        state::settlement(&net.evm, wallet, nonce(1))
            .unwrap()
            .paid(who("somebody"), AMOUNT)
    );
}

/// An account with delegated code (EIP-7702) has code, so its code decides; the forwarder has no signature check.
#[test]
fn delegated_accounts_follow_contract_rules() {
    let mut net = Net::new();
    let forwarder = net.deploy("forwarder", &TestForwarder::BYTECODE, ());
    let (m, signature) = transfer("alice", who("somebody"), nonce(1), 0, u64::MAX);
    net.evm.set_code(
        who("alice"),
        [&[0xef, 0x01, 0x00], forwarder.as_slice()].concat().into(),
    );
    assert_reverts::<OPG::InvalidAuthorizationSignature, _>(relay(&mut net, &m, &signature));
}

#[test]
fn permits_follow_erc_2612() {
    let mut net = Net::new();
    let (alice, shop) = (who("alice"), who("shop"));
    let deadline = U256::from(net.evm.timestamp() + 10);
    let permit = |nonce: u64| {
        let value = U256::from(AMOUNT);
        let m = Permit {
            owner: alice,
            spender: shop,
            value,
            nonce: U256::from(nonce),
            deadline,
        };
        let (v, r, s) = vrs(&sign(&key("alice"), m.eip712_signing_hash(&domain())));
        OPG::permitCall {
            owner: alice,
            spender: shop,
            value: U256::from(AMOUNT),
            deadline,
            v,
            r,
            s,
        }
    };
    net.evm.call(shop, addresses::OPG, permit(0)).unwrap();
    assert_reverts::<OPG::ERC2612InvalidSigner, _>(net.evm.call(shop, addresses::OPG, permit(0)));
    let pull = OPG::transferFromCall {
        from: alice,
        to: shop,
        value: U256::from(AMOUNT),
    };
    net.evm.call(shop, addresses::OPG, pull.clone()).unwrap();
    assert_reverts::<OPG::ERC20InsufficientAllowance, _>(net.evm.call(shop, addresses::OPG, pull));
    net.tick(11);
    assert_reverts::<OPG::ERC2612ExpiredSignature, _>(net.evm.call(shop, addresses::OPG, permit(1)));
}

#[test]
fn votes_follow_the_clock() {
    let mut net = Net::new();
    let alice = who("alice");
    let held = net.opg(alice);
    net.evm
        .call(
            alice,
            addresses::OPG,
            OPG::delegateCall {
                delegatee: who("delegate"),
            },
        )
        .unwrap();
    let at = net.evm.timestamp();
    net.tick(5);
    let payment = Payment::new("alice", who("somebody"), AMOUNT, nonce(1));
    net.settle(&payment).unwrap();
    let votes = OPG::getVotesCall {
        account: who("delegate"),
    };
    assert_eq!(net.evm.view(addresses::OPG, votes).unwrap(), U256::from(held - AMOUNT));
    let past = OPG::getPastVotesCall {
        account: who("delegate"),
        timepoint: U256::from(at),
    };
    assert_eq!(net.evm.view(addresses::OPG, past).unwrap(), U256::from(held));
    assert_eq!(
        net.evm.view(addresses::OPG, OPG::clockCall {}).unwrap().to::<u64>(),
        at + 5
    );
}
