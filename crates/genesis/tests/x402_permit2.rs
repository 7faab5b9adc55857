//! Permit2, both halves, and the two payment proxies over it.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{
    Address, B256, Bytes, U256,
    aliases::{U48, U160},
    keccak256,
};
use alloy_sol_types::{SolCall, SolEvent, SolStruct, SolValue};
use common::{
    Net, assert_reverts, key, sign, who,
    x402::{TestSmartWallet, TestToken, permit_transfer, permit2, permit2_domain, signed},
};
use opg_contracts::{
    ExactPermit2Proxy, OPG, Permit2, UptoPermit2Proxy, addresses, exact_permit2_proxy, state, upto_permit2_proxy, x402,
};
use opg_genesis::evm::CallError;

const PERMIT2: Address = addresses::PERMIT2;
const EXACT: Address = addresses::EXACT_PERMIT2_PROXY;
const UPTO: Address = addresses::UPTO_PERMIT2_PROXY;

fn net() -> Net {
    let mut net = Net::new();
    net.approve_permit2("alice");
    net
}

fn to(to: Address, amount: u64) -> Permit2::SignatureTransferDetails {
    Permit2::SignatureTransferDetails {
        to,
        requestedAmount: U256::from(amount),
    }
}

/// Alice's signature of a plain transfer for `spender`.
fn plain(permit: &Permit2::PermitTransferFrom, spender: Address) -> Bytes {
    let message = permit2::plain::PermitTransferFrom {
        permitted: permit2::plain::TokenPermissions {
            token: permit.permitted.token,
            amount: permit.permitted.amount,
        },
        spender,
        nonce: permit.nonce,
        deadline: permit.deadline,
    };
    signed("alice", &message, &permit2_domain())
}

fn transfer(
    net: &mut Net,
    caller: &str,
    permit: &Permit2::PermitTransferFrom,
    details: Permit2::SignatureTransferDetails,
    signature: Bytes,
) -> Result<(), CallError> {
    let call = Permit2::permitTransferFrom_0Call {
        permit_: permit.clone(),
        transferDetails: details,
        owner: who("alice"),
        signature,
    };
    net.evm.call(who(caller), PERMIT2, call).map(|_| ())
}

#[test]
fn a_signed_transfer_goes_once_to_where_its_spender_says() {
    let mut net = net();
    let separator = net.evm.view(PERMIT2, Permit2::DOMAIN_SEPARATORCall {}).unwrap();
    assert_eq!(separator, permit2_domain().separator());
    let permit = permit_transfer(100, 7);
    let signature = plain(&permit, who("bob"));
    // Only the spender, only up to the amount, only before the deadline.
    let stolen = transfer(&mut net, "thief", &permit, to(who("thief"), 100), signature.clone());
    assert_reverts::<Permit2::InvalidSigner, _>(stolen);
    let more = transfer(&mut net, "bob", &permit, to(who("payee"), 101), signature.clone());
    assert_reverts::<Permit2::InvalidAmount, _>(more);
    transfer(&mut net, "bob", &permit, to(who("payee"), 60), signature.clone()).unwrap();
    assert_eq!(net.opg(who("payee")), 60);
    let again = transfer(&mut net, "bob", &permit, to(who("payee"), 40), signature);
    assert_reverts::<Permit2::InvalidNonce, _>(again);
    let expired = Permit2::PermitTransferFrom {
        deadline: U256::from(net.evm.timestamp() - 1),
        ..permit_transfer(100, 8)
    };
    let signature = plain(&expired, who("bob"));
    let late = transfer(&mut net, "bob", &expired, to(who("payee"), 1), signature);
    assert_reverts::<Permit2::SignatureExpired, _>(late);
    // A deadline that is now is in time.
    let now = Permit2::PermitTransferFrom {
        deadline: U256::from(net.evm.timestamp()),
        ..permit_transfer(100, 8)
    };
    let signature = plain(&now, who("bob"));
    transfer(&mut net, "bob", &now, to(who("payee"), 1), signature).unwrap();
}

#[test]
fn signatures_of_all_kinds() {
    let mut net = net();
    let permit = permit_transfer(100, 1);
    let full = plain(&permit, who("bob"));
    // EIP-2098: 64 bytes with the parity in the highest bit of s.
    let mut compact = full[..64].to_vec();
    compact[32] |= (full[64] - 27) << 7;
    for signature in [Bytes::new(), full[..63].to_vec().into()] {
        let result = transfer(&mut net, "bob", &permit, to(who("payee"), 1), signature);
        assert_reverts::<Permit2::InvalidSignatureLength, _>(result);
    }
    let mut broken = full.to_vec();
    broken[64] = 0;
    let result = transfer(&mut net, "bob", &permit, to(who("payee"), 1), broken.into());
    assert_reverts::<Permit2::InvalidSignature, _>(result);
    transfer(&mut net, "bob", &permit, to(who("payee"), 1), compact.into()).unwrap();
    // A smart wallet signs through its owner.
    let wallet = net.deploy("wallet", &TestSmartWallet::BYTECODE, (who("alice"),));
    let fund = OPG::transferCall {
        to: wallet,
        value: U256::from(500),
    };
    net.evm.call(who("alice"), addresses::OPG, fund).unwrap();
    let approve = OPG::approveCall {
        spender: PERMIT2,
        value: U256::MAX,
    };
    let act = TestSmartWallet::forwardCall {
        target: addresses::OPG,
        data: approve.abi_encode().into(),
    };
    net.evm.call(who("alice"), wallet, act).unwrap();
    let permit = permit_transfer(100, 1);
    let call = |signature: Bytes| Permit2::permitTransferFrom_0Call {
        permit_: permit.clone(),
        transferDetails: to(who("payee"), 100),
        owner: wallet,
        signature,
    };
    let thief = {
        let mut s = plain(&permit, who("bob")).to_vec();
        s[1] ^= 1;
        s
    };
    let result = net.evm.call(who("bob"), PERMIT2, call(thief.into()));
    assert_reverts::<Permit2::InvalidContractSignature, _>(result);
    net.evm
        .call(who("bob"), PERMIT2, call(plain(&permit, who("bob"))))
        .unwrap();
    assert_eq!(net.opg(wallet), 400);
}

#[test]
fn nonces_are_bits_that_owners_can_set() {
    let mut net = net();
    let call = Permit2::invalidateUnorderedNoncesCall {
        wordPos: U256::from(2),
        mask: U256::from(0b110),
    };
    net.evm.call(who("alice"), PERMIT2, call).unwrap();
    for (nonce, usable) in [(512, true), (513, false), (514, false), (515, true), (1, true)] {
        let permit = permit_transfer(1, nonce);
        let signature = plain(&permit, who("bob"));
        let result = transfer(&mut net, "bob", &permit, to(who("payee"), 1), signature);
        if usable {
            result.unwrap();
        } else {
            assert_reverts::<Permit2::InvalidNonce, _>(result);
        }
    }
    let word = Permit2::nonceBitmapCall {
        owner: who("alice"),
        word: U256::from(2),
    };
    assert_eq!(net.evm.view(PERMIT2, word).unwrap(), U256::from(0b1111));
    // The largest nonce has a bit as well.
    let permit = Permit2::PermitTransferFrom {
        nonce: U256::MAX,
        ..permit_transfer(1, 0)
    };
    let signature = plain(&permit, who("bob"));
    transfer(&mut net, "bob", &permit, to(who("payee"), 1), signature.clone()).unwrap();
    let again = transfer(&mut net, "bob", &permit, to(who("payee"), 1), signature);
    assert_reverts::<Permit2::InvalidNonce, _>(again);
}

#[test]
fn one_signature_moves_several_tokens() {
    let mut net = net();
    let token = net.deploy("token", &TestToken::BYTECODE, ());
    let mint = TestToken::mintCall {
        to: who("alice"),
        amount: U256::from(1_000),
    };
    net.evm.call(who("alice"), token, mint).unwrap();
    let approve = TestToken::approveCall {
        spender: PERMIT2,
        amount: U256::MAX,
    };
    net.evm.call(who("alice"), token, approve).unwrap();
    let permitted = vec![
        Permit2::TokenPermissions {
            token: addresses::OPG,
            amount: U256::from(10),
        },
        Permit2::TokenPermissions {
            token,
            amount: U256::from(20),
        },
    ];
    let same: Vec<_> = permitted
        .iter()
        .map(|p| permit2::plain::TokenPermissions {
            token: p.token,
            amount: p.amount,
        })
        .collect();
    let message = permit2::plain::PermitBatchTransferFrom {
        permitted: same,
        spender: who("bob"),
        nonce: U256::from(3),
        deadline: U256::MAX,
    };
    let signature = signed("alice", &message, &permit2_domain());
    let call = |details| Permit2::permitTransferFrom_1Call {
        permit_: Permit2::PermitBatchTransferFrom {
            permitted: permitted.clone(),
            nonce: U256::from(3),
            deadline: U256::MAX,
        },
        transferDetails: details,
        owner: who("alice"),
        signature: signature.clone(),
    };
    let payee = who("payee");
    let short = net.evm.call(who("bob"), PERMIT2, call(vec![to(payee, 1)]));
    assert_reverts::<Permit2::LengthMismatch, _>(short);
    let more = net
        .evm
        .call(who("bob"), PERMIT2, call(vec![to(payee, 1), to(payee, 21)]));
    assert_reverts::<Permit2::InvalidAmount, _>(more);
    let thief = net
        .evm
        .call(who("thief"), PERMIT2, call(vec![to(payee, 1), to(payee, 2)]));
    assert_reverts::<Permit2::InvalidSigner, _>(thief);
    net.evm
        .call(who("bob"), PERMIT2, call(vec![to(payee, 10), to(payee, 0)]))
        .unwrap();
    assert_eq!(net.opg(payee), 10);
    let again = net
        .evm
        .call(who("bob"), PERMIT2, call(vec![to(payee, 0), to(payee, 20)]));
    assert_reverts::<Permit2::InvalidNonce, _>(again);
    // With a witness, the witness is signed too.
    let message = permit2::exact::PermitBatchWitnessTransferFrom {
        permitted: vec![permit2::exact::TokenPermissions {
            token: addresses::OPG,
            amount: U256::from(5),
        }],
        spender: who("bob"),
        nonce: U256::from(4),
        deadline: U256::MAX,
        witness: permit2::exact::Witness {
            to: payee,
            validAfter: U256::ZERO,
        },
    };
    let hash = |to: Address| {
        permit2::exact::Witness {
            to,
            validAfter: U256::ZERO,
        }
        .eip712_hash_struct()
    };
    let witnessed = |witness| Permit2::permitWitnessTransferFrom_1Call {
        permit_: Permit2::PermitBatchTransferFrom {
            permitted: vec![Permit2::TokenPermissions {
                token: addresses::OPG,
                amount: U256::from(5),
            }],
            nonce: U256::from(4),
            deadline: U256::MAX,
        },
        transferDetails: vec![to(payee, 5)],
        owner: who("alice"),
        witness,
        witnessTypeString:
            "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)"
                .into(),
        signature: signed("alice", &message, &permit2_domain()),
    };
    let other = net.evm.call(who("bob"), PERMIT2, witnessed(hash(who("thief"))));
    assert_reverts::<Permit2::InvalidSigner, _>(other);
    net.evm.call(who("bob"), PERMIT2, witnessed(hash(payee))).unwrap();
    assert_eq!(net.opg(payee), 15);
}

/// A token without code, or one that returns false, is a failed transfer.
#[test]
fn tokens_that_do_not_move_are_failures() {
    let mut net = net();
    let liar = net.deploy("liar", &TestToken::BYTECODE, ());
    let set = TestToken::setCall {
        fee_: U256::ZERO,
        lies_: true,
        target_: Address::ZERO,
        data_: Bytes::new(),
    };
    net.evm.call(who("bob"), liar, set).unwrap();
    for token in [liar, who("nobody")] {
        let mut permit = permit_transfer(10, 1);
        permit.permitted.token = token;
        let signature = plain(&permit, who("bob"));
        let result = transfer(&mut net, "bob", &permit, to(who("payee"), 10), signature);
        let Err(CallError::Revert(data)) = result else {
            panic!("{token} moved nothing")
        };
        let reason = String::abi_decode(&data[4..]).unwrap();
        assert_eq!(reason, "TRANSFER_FROM_FAILED");
    }
}

#[test]
fn allowances_by_call() {
    let mut net = net();
    let (alice, bob, payee) = (who("alice"), who("bob"), who("payee"));
    let take = |amount: u64| Permit2::transferFrom_1Call {
        from: alice,
        to: payee,
        amount: U160::from(amount),
        token: addresses::OPG,
    };
    assert_reverts::<Permit2::AllowanceExpired, _>(net.evm.call(bob, PERMIT2, take(1)));
    let approve = |amount: U160, expiration: u64| Permit2::approveCall {
        token: addresses::OPG,
        spender: bob,
        amount,
        expiration: U48::from(expiration),
    };
    let until = net.evm.timestamp() + 10;
    net.evm.call(alice, PERMIT2, approve(U160::from(100), until)).unwrap();
    net.evm.call(bob, PERMIT2, take(60)).unwrap();
    assert_reverts::<Permit2::InsufficientAllowance, _>(net.evm.call(bob, PERMIT2, take(41)));
    assert_reverts::<Permit2::AllowanceExpired, _>(net.evm.call(who("thief"), PERMIT2, take(1)));
    // Several at once share the allowance.
    let details = |amount: u64| Permit2::AllowanceTransferDetails {
        from: alice,
        to: payee,
        amount: U160::from(amount),
        token: addresses::OPG,
    };
    let both = Permit2::transferFrom_0Call {
        transferDetails: vec![details(20), details(21)],
    };
    assert_reverts::<Permit2::InsufficientAllowance, _>(net.evm.call(bob, PERMIT2, both));
    let both = Permit2::transferFrom_0Call {
        transferDetails: vec![details(20), details(20)],
    };
    net.evm.call(bob, PERMIT2, both).unwrap();
    assert_eq!(net.opg(payee), 100);
    // The largest amount never runs out; an expiration of zero is this block.
    net.evm.call(alice, PERMIT2, approve(U160::MAX, 0)).unwrap();
    net.evm.call(bob, PERMIT2, take(5)).unwrap();
    net.evm.call(bob, PERMIT2, take(5)).unwrap();
    net.tick(1);
    assert_reverts::<Permit2::AllowanceExpired, _>(net.evm.call(bob, PERMIT2, take(1)));
    net.evm.call(alice, PERMIT2, approve(U160::MAX, until)).unwrap();
    let lockdown = Permit2::lockdownCall {
        approvals: vec![Permit2::TokenSpenderPair {
            token: addresses::OPG,
            spender: bob,
        }],
    };
    net.evm.call(alice, PERMIT2, lockdown).unwrap();
    assert_reverts::<Permit2::InsufficientAllowance, _>(net.evm.call(bob, PERMIT2, take(1)));
}

#[test]
fn allowances_by_signature() {
    let mut net = net();
    let (alice, bob, payee) = (who("alice"), who("bob"), who("payee"));
    let far = net.evm.timestamp() + 1_000;
    let details = |nonce: u64| permit2::plain::PermitDetails {
        token: addresses::OPG,
        amount: U160::from(50),
        expiration: U48::from(far),
        nonce: U48::from(nonce),
    };
    let given = |nonce: u64| Permit2::PermitDetails {
        token: addresses::OPG,
        amount: U160::from(50),
        expiration: U48::from(far),
        nonce: U48::from(nonce),
    };
    let single = |nonce: u64, deadline: u64, signer: &str| {
        let message = permit2::plain::PermitSingle {
            details: details(nonce),
            spender: bob,
            sigDeadline: U256::from(deadline),
        };
        Permit2::permit_1Call {
            owner: alice,
            permitSingle: Permit2::PermitSingle {
                details: given(nonce),
                spender: bob,
                sigDeadline: U256::from(deadline),
            },
            signature: signed(signer, &message, &permit2_domain()),
        }
    };
    let past = net.evm.timestamp() - 1;
    assert_reverts::<Permit2::SignatureExpired, _>(net.evm.call(bob, PERMIT2, single(0, past, "alice")));
    assert_reverts::<Permit2::InvalidSigner, _>(net.evm.call(bob, PERMIT2, single(0, far, "bob")));
    assert_reverts::<Permit2::InvalidNonce, _>(net.evm.call(bob, PERMIT2, single(1, far, "alice")));
    net.evm.call(who("anyone"), PERMIT2, single(0, far, "alice")).unwrap();
    assert_reverts::<Permit2::InvalidNonce, _>(net.evm.call(bob, PERMIT2, single(0, far, "alice")));
    let view = Permit2::allowanceCall {
        owner: alice,
        token: addresses::OPG,
        spender: bob,
    };
    let stored = net.evm.view(PERMIT2, view.clone()).unwrap();
    assert_eq!(
        (stored.amount, stored.expiration, stored.nonce),
        (U160::from(50), U48::from(far), U48::from(1))
    );
    // Two in one: nonces follow each other.
    let batch = permit2::plain::PermitBatch {
        details: vec![details(1), details(2)],
        spender: bob,
        sigDeadline: U256::from(far),
    };
    let call = |signer: &str, deadline: u64| Permit2::permit_0Call {
        owner: alice,
        permitBatch: Permit2::PermitBatch {
            details: vec![given(1), given(2)],
            spender: bob,
            sigDeadline: U256::from(deadline),
        },
        signature: signed(signer, &batch, &permit2_domain()),
    };
    assert_reverts::<Permit2::SignatureExpired, _>(net.evm.call(bob, PERMIT2, call("alice", past)));
    assert_reverts::<Permit2::InvalidSigner, _>(net.evm.call(bob, PERMIT2, call("bob", far)));
    net.evm.call(bob, PERMIT2, call("alice", far)).unwrap();
    assert_eq!(net.evm.view(PERMIT2, view.clone()).unwrap().nonce, U48::from(3));
    let take = Permit2::transferFrom_1Call {
        from: alice,
        to: payee,
        amount: U160::from(50),
        token: addresses::OPG,
    };
    net.evm.call(bob, PERMIT2, take).unwrap();
    assert_eq!(net.opg(payee), 50);
    // Skipping nonces: forward only, and not too far.
    let skip = |nonce: u64| Permit2::invalidateNoncesCall {
        token: addresses::OPG,
        spender: bob,
        newNonce: U48::from(nonce),
    };
    assert_reverts::<Permit2::InvalidNonce, _>(net.evm.call(alice, PERMIT2, skip(3)));
    assert_reverts::<Permit2::ExcessiveInvalidation, _>(net.evm.call(alice, PERMIT2, skip(3 + 65_536)));
    net.evm.call(alice, PERMIT2, skip(3 + 65_535)).unwrap();
    assert_reverts::<Permit2::InvalidNonce, _>(net.evm.call(bob, PERMIT2, single(3, far, "alice")));
}

fn exact_signature(amount: u128, nonce: u64, witness: &ExactPermit2Proxy::Witness) -> Bytes {
    let message = permit2::exact::PermitWitnessTransferFrom {
        permitted: permit2::exact::TokenPermissions {
            token: addresses::OPG,
            amount: U256::from(amount),
        },
        spender: EXACT,
        nonce: U256::from(nonce),
        deadline: U256::MAX,
        witness: permit2::exact::Witness {
            to: witness.to,
            validAfter: witness.validAfter,
        },
    };
    signed("alice", &message, &permit2_domain())
}

/// The proxies' own types, as their bindings name them.
fn exact_permit(amount: u128, nonce: u64) -> Permit2Transfer {
    Permit2Transfer(permit_transfer(amount, nonce))
}

struct Permit2Transfer(Permit2::PermitTransferFrom);

impl From<Permit2Transfer> for exact_permit2_proxy::Permit2::PermitTransferFrom {
    fn from(Permit2Transfer(p): Permit2Transfer) -> Self {
        SolValue::abi_decode(&p.abi_encode()).unwrap()
    }
}

impl From<Permit2Transfer> for upto_permit2_proxy::Permit2::PermitTransferFrom {
    fn from(Permit2Transfer(p): Permit2Transfer) -> Self {
        SolValue::abi_decode(&p.abi_encode()).unwrap()
    }
}

#[test]
fn exact_pays_the_signed_amount_once_and_leaves_a_proof() {
    let mut net = net();
    let (alice, payee) = (who("alice"), who("payee"));
    let witness = ExactPermit2Proxy::Witness {
        to: payee,
        validAfter: U256::from(net.evm.timestamp() + 5),
    };
    let call = |to: Address, amount: u128, valid_after: U256| ExactPermit2Proxy::settleCall {
        permit: exact_permit(amount, 9).into(),
        owner: alice,
        witness: ExactPermit2Proxy::Witness {
            to,
            validAfter: valid_after,
        },
        signature: exact_signature(700, 9, &witness),
    };
    let after = witness.validAfter;
    let early = net.evm.call(who("relayer"), EXACT, call(payee, 700, after));
    assert_reverts::<ExactPermit2Proxy::PaymentTooEarly, _>(early);
    net.tick(5);
    for (to, amount, after) in [
        (who("thief"), 700, after),
        (payee, 701, after),
        (payee, 699, after),
        (payee, 700, U256::ZERO),
    ] {
        let changed = net.evm.call(who("relayer"), EXACT, call(to, amount, after));
        assert_reverts::<Permit2::InvalidSigner, _>(changed);
    }
    let nowhere = net.evm.call(who("relayer"), EXACT, call(Address::ZERO, 700, after));
    assert_reverts::<ExactPermit2Proxy::InvalidDestination, _>(nowhere);
    let nothing = net.evm.call(who("relayer"), EXACT, call(payee, 0, after));
    assert_reverts::<ExactPermit2Proxy::InvalidAmount, _>(nothing);
    let nobody = ExactPermit2Proxy::settleCall {
        owner: Address::ZERO,
        ..call(payee, 700, after)
    };
    assert_reverts::<ExactPermit2Proxy::InvalidOwner, _>(net.evm.call(who("relayer"), EXACT, nobody));
    // A failed attempt leaves no proof of payment.
    let slot = x402::settlement_slot(addresses::OPG, alice, U256::from(9));
    let stored = |net: &Net| state::StateReader::storage(&net.evm, EXACT, slot).unwrap();
    assert_eq!(stored(&net), U256::ZERO);
    net.evm.call(who("relayer"), EXACT, call(payee, 700, after)).unwrap();
    assert_eq!(net.opg(payee), 700);
    let proof = keccak256((payee, U256::from(700)).abi_encode());
    assert_eq!(B256::from(stored(&net)), proof);
    assert_eq!(state::settlement_hash(payee, 700), proof);
    let view = ExactPermit2Proxy::settlementOfCall {
        token: addresses::OPG,
        payer: alice,
        nonce: U256::from(9),
    };
    assert_eq!(net.evm.view(EXACT, view).unwrap(), proof);
    let again = net.evm.call(who("relayer"), EXACT, call(payee, 700, after));
    assert_reverts::<Permit2::InvalidNonce, _>(again);
}

/// A worthless token proves nothing about OPG, whatever nonce it used.
#[test]
fn a_proof_of_payment_names_its_token() {
    let mut net = net();
    let token = net.deploy("token", &TestToken::BYTECODE, ());
    for (call, from) in [
        (
            TestToken::mintCall {
                to: who("alice"),
                amount: U256::from(1_000),
            }
            .abi_encode(),
            who("alice"),
        ),
        (
            TestToken::approveCall {
                spender: PERMIT2,
                amount: U256::MAX,
            }
            .abi_encode(),
            who("alice"),
        ),
    ] {
        net.evm.send(from, token, U256::ZERO, call.into()).unwrap();
    }
    let message = permit2::exact::PermitWitnessTransferFrom {
        permitted: permit2::exact::TokenPermissions {
            token,
            amount: U256::from(700),
        },
        spender: EXACT,
        nonce: U256::from(9),
        deadline: U256::MAX,
        witness: permit2::exact::Witness {
            to: who("payee"),
            validAfter: U256::ZERO,
        },
    };
    let mut permit: exact_permit2_proxy::Permit2::PermitTransferFrom = exact_permit(700, 9).into();
    permit.permitted.token = token;
    let call = ExactPermit2Proxy::settleCall {
        permit,
        owner: who("alice"),
        witness: ExactPermit2Proxy::Witness {
            to: who("payee"),
            validAfter: U256::ZERO,
        },
        signature: signed("alice", &message, &permit2_domain()),
    };
    net.evm.call(who("relayer"), EXACT, call).unwrap();
    let mut read = |token| {
        let view = ExactPermit2Proxy::settlementOfCall {
            token,
            payer: who("alice"),
            nonce: U256::from(9),
        };
        net.evm.view(EXACT, view).unwrap()
    };
    assert_eq!(read(addresses::OPG), B256::ZERO);
    assert_ne!(read(token), B256::ZERO);
}

fn upto_call(net_witness: &UptoPermit2Proxy::Witness, amount: u64, nonce: u64) -> UptoPermit2Proxy::settleCall {
    let message = permit2::upto::PermitWitnessTransferFrom {
        permitted: permit2::upto::TokenPermissions {
            token: addresses::OPG,
            amount: U256::from(1_000),
        },
        spender: UPTO,
        nonce: U256::from(nonce),
        deadline: U256::MAX,
        witness: permit2::upto::Witness {
            to: net_witness.to,
            facilitator: net_witness.facilitator,
            validAfter: net_witness.validAfter,
        },
    };
    UptoPermit2Proxy::settleCall {
        permit: exact_permit(1_000, nonce).into(),
        amount: U256::from(amount),
        owner: who("alice"),
        witness: net_witness.clone(),
        signature: signed("alice", &message, &permit2_domain()),
    }
}

#[test]
fn upto_lets_the_named_facilitator_choose_once() {
    let mut net = net();
    let (payee, facilitator) = (who("payee"), who("facilitator"));
    let witness = UptoPermit2Proxy::Witness {
        to: payee,
        facilitator,
        validAfter: U256::ZERO,
    };
    let call = |amount| upto_call(&witness, amount, 4);
    let thief = net.evm.call(who("thief"), UPTO, call(10));
    assert_reverts::<UptoPermit2Proxy::UnauthorizedFacilitator, _>(thief);
    // Naming oneself breaks the payer's signature.
    let mut renamed = call(10);
    renamed.witness.facilitator = who("thief");
    assert_reverts::<Permit2::InvalidSigner, _>(net.evm.call(who("thief"), UPTO, renamed));
    let mut redirected = call(10);
    redirected.witness.to = facilitator;
    assert_reverts::<Permit2::InvalidSigner, _>(net.evm.call(facilitator, UPTO, redirected));
    let more = net.evm.call(facilitator, UPTO, call(1_001));
    assert_reverts::<UptoPermit2Proxy::AmountExceedsPermitted, _>(more);
    let nothing = net.evm.call(facilitator, UPTO, call(0));
    assert_reverts::<UptoPermit2Proxy::InvalidAmount, _>(nothing);
    net.evm.call(facilitator, UPTO, call(333)).unwrap();
    assert_eq!(net.opg(payee), 333);
    let again = net.evm.call(facilitator, UPTO, call(1));
    assert_reverts::<Permit2::InvalidNonce, _>(again);
    let view = UptoPermit2Proxy::settlementOfCall {
        token: addresses::OPG,
        payer: who("alice"),
        nonce: U256::from(4),
    };
    let proof = state::settlement_hash(payee, 333);
    assert_eq!(net.evm.view(UPTO, view).unwrap(), proof, "the charge, not the ceiling");
}

/// Bob has never approved Permit2: his permit does.
#[test]
fn a_first_payment_brings_its_own_approval() {
    let mut net = net();
    let bob = who("bob");
    let witness = permit2::exact::Witness {
        to: who("payee"),
        validAfter: U256::ZERO,
    };
    let message = permit2::exact::PermitWitnessTransferFrom {
        permitted: permit2::exact::TokenPermissions {
            token: addresses::OPG,
            amount: U256::from(50),
        },
        spender: EXACT,
        nonce: U256::from(1),
        deadline: U256::MAX,
        witness,
    };
    let approval = |value: u64| {
        let message = common::Permit {
            owner: bob,
            spender: PERMIT2,
            value: U256::from(value),
            nonce: U256::ZERO,
            deadline: U256::MAX,
        };
        let signature = sign(&key("bob"), message.eip712_signing_hash(&common::domain()));
        exact_permit2_proxy::Permit2Proxy::EIP2612Permit {
            value: U256::from(value),
            deadline: U256::MAX,
            r: B256::from_slice(&signature[..32]),
            s: B256::from_slice(&signature[32..64]),
            v: signature[64],
        }
    };
    let call = |value: u64| ExactPermit2Proxy::settleWithPermitCall {
        permit2612: approval(value),
        permit: exact_permit(50, 1).into(),
        owner: bob,
        witness: ExactPermit2Proxy::Witness {
            to: who("payee"),
            validAfter: U256::ZERO,
        },
        signature: signed("bob", &message, &permit2_domain()),
    };
    let wrong = net.evm.call(who("relayer"), EXACT, call(51));
    assert_reverts::<ExactPermit2Proxy::Permit2612AmountMismatch, _>(wrong);
    // Somebody submits the permit first: the payment succeeds all the same, with an event.
    let permit = approval(50);
    let first = OPG::permitCall {
        owner: bob,
        spender: PERMIT2,
        value: permit.value,
        deadline: permit.deadline,
        v: permit.v,
        r: permit.r,
        s: permit.s,
    };
    net.evm.call(who("thief"), addresses::OPG, first).unwrap();
    let data = call(50).abi_encode();
    let done = net.evm.send(who("relayer"), EXACT, U256::ZERO, data.into()).unwrap();
    let failed = ExactPermit2Proxy::EIP2612PermitFailedWithData::SIGNATURE_HASH;
    assert!(done.logs.iter().any(|log| log.topics()[0] == failed));
    assert_eq!(net.opg(who("payee")), 50);
}

#[test]
fn constants_are_the_published_ones() {
    let mut net = Net::new();
    let hash = |text: &str| keccak256(text);
    let exact = net.evm.view(EXACT, ExactPermit2Proxy::WITNESS_TYPEHASHCall {}).unwrap();
    assert_eq!(exact, hash("Witness(address to,uint256 validAfter)"));
    let upto = net.evm.view(UPTO, UptoPermit2Proxy::WITNESS_TYPEHASHCall {}).unwrap();
    assert_eq!(upto, hash("Witness(address to,address facilitator,uint256 validAfter)"));
    let text = net
        .evm
        .view(UPTO, UptoPermit2Proxy::WITNESS_TYPE_STRINGCall {})
        .unwrap();
    assert_eq!(
        text,
        "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,address facilitator,uint256 validAfter)"
    );
    for (proxy, at) in [
        (net.evm.view(EXACT, ExactPermit2Proxy::PERMIT2Call {}).unwrap(), EXACT),
        (net.evm.view(UPTO, UptoPermit2Proxy::PERMIT2Call {}).unwrap(), UPTO),
    ] {
        assert_eq!(proxy, PERMIT2, "{at}");
    }
}
