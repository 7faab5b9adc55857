//! Receipts that Permit2 pays for through the two x402 proxies: recorded, credited, dropped, refunded, and never twice or to anybody else.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use common::{
    AMOUNT, CHARGE, Net, ROYALTY, assert_reverts, nonce, pending, root, who,
    x402::{Permit2Payment, TestToken, permit2, permit2_domain, signed},
};
use opg_contracts::{
    OPG,
    PaymentMethod::{self, Erc3009, ExactPermit2, UptoPermit2},
    Permit2, ReceiptLedger, addresses, payment_settlement,
    state::{self, Settlement, Spent},
    system_tx::{self, BatchEntry},
};
use opg_genesis::evm::CallError;
use opg_primitives::money::{Amount, split};

const LEDGER: Address = addresses::RECEIPT_LEDGER;
const PERMIT2: [PaymentMethod; 2] = [ExactPermit2, UptoPermit2];

fn net() -> Net {
    let mut net = Net::new();
    for payer in ["alice", "bob"] {
        net.approve_permit2(payer);
    }
    net
}

/// What settles for a charge of `CHARGE`.
fn amount(method: PaymentMethod) -> u128 {
    if method == UptoPermit2 { CHARGE } else { AMOUNT }
}

/// Alice's receipt number `seq` of a node.
fn entry(net: &Net, node: usize, seq: u64, method: PaymentMethod, nonce: B256) -> BatchEntry {
    BatchEntry {
        method,
        ..net.entry(node, seq, "alice", nonce, amount(method), CHARGE)
    }
}

/// Alice pays for such a receipt.
fn pay(net: &mut Net, node: usize, method: PaymentMethod, nonce: B256) {
    let to = net.deposit(node);
    net.pay(method, "alice", to, amount(method), nonce).unwrap();
}

fn spent(net: &Net, entry: &BatchEntry) -> Spent {
    state::read_spent(&net.evm, entry.method.payment_id(entry.payer, entry.nonce).0).unwrap()
}

fn read(net: &Net, entry: &BatchEntry) -> Settlement {
    payment_settlement(&net.evm, entry.method, entry.payer, entry.nonce).unwrap()
}

fn drop(net: &mut Net, entries: Vec<ReceiptLedger::PendingEntry>) -> u64 {
    let call = ReceiptLedger::dropUnpayableCall { entries };
    net.evm.call(who("anyone"), LEDGER, call).unwrap().to()
}

fn cancel(net: &mut Net, payer: &str, nonce: B256) {
    let nonce = U256::from_be_bytes(nonce.0);
    let call = Permit2::invalidateUnorderedNoncesCall {
        wordPos: nonce >> 8,
        mask: U256::ONE << (nonce & U256::from(255)),
    };
    net.evm.call(who(payer), addresses::PERMIT2, call).unwrap();
}

fn request(entry: &BatchEntry) -> ReceiptLedger::requestRefundCall {
    ReceiptLedger::requestRefundCall {
        nodeId: entry.node_id,
        payer: entry.payer,
        nonce: entry.nonce,
        amount: entry.amount,
        method: entry.method.code(),
    }
}

fn refund(entry: &BatchEntry) -> ReceiptLedger::refundCall {
    ReceiptLedger::refundCall {
        nodeId: entry.node_id,
        payer: entry.payer,
        nonce: entry.nonce,
        amount: entry.amount,
        method: entry.method.code(),
    }
}

#[track_caller]
fn assert_conserved(net: &mut Net) {
    let holders = [
        "alice",
        "bob",
        "carol",
        "node-0",
        "node-1",
        "ecosystem",
        "creator",
        "treasury",
        "payee",
    ];
    net.assert_conserved(&holders.map(who));
}

/// Records one group of one entry whatever its method says.
fn record_as(net: &mut Net, entry: BatchEntry, method: u8) -> Result<(), CallError> {
    net.height += 1;
    let mut groups = system_tx::chunks(&[entry]).remove(0);
    groups[0].method = method;
    let data = system_tx::calldata(net.height, root(net.height), 1, 0, groups);
    net.evm.send(who("system-0"), LEDGER, U256::ZERO, data).map(|_| ())
}

#[test]
fn what_is_paid_is_credited_at_once() {
    for method in PERMIT2 {
        let mut net = net();
        let receipt = entry(&net, 0, 0, method, nonce(0));
        assert_eq!(read(&net, &receipt), Settlement::Unused);
        pay(&mut net, 0, method, nonce(0));
        assert!(read(&net, &receipt).paid(net.deposit(0), amount(method)));
        let done = net.record(&[receipt]).unwrap();
        let waits = ReceiptLedger::PaymentsPending::SIGNATURE_HASH;
        assert!(done[0].logs.iter().all(|log| log.topics()[0] != waits));
        assert_eq!(spent(&net, &receipt), Spent::Credited);
        let shares = split(Amount(CHARGE), ROYALTY, false, false, true).unwrap();
        assert_eq!(net.credited(who("node-0"), 0), shares.node.0);
        assert_eq!(net.credited(who("creator"), 0), shares.creator.0);
        assert_eq!(net.credited(who("alice"), 0), amount(method) - CHARGE);
        assert_conserved(&mut net);
        net.tick(600);
        assert_eq!(net.withdraw(who("node-0"), 0, 9).unwrap(), shares.node.0);
        assert_eq!(net.withdraw(who("alice"), 0, 9).unwrap(), amount(method) - CHARGE);
        assert_conserved(&mut net);
        // Neither the payment nor the receipt counts again.
        let again = entry(&net, 0, 1, method, nonce(0));
        assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[again]));
        let elsewhere = entry(&net, 1, 0, method, nonce(0));
        assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[elsewhere]));
        let waiting = pending(&receipt, net.evm.timestamp());
        assert_eq!(net.credit_settled(vec![waiting.clone()]), 0);
        assert_eq!(drop(&mut net, vec![waiting]), 0);
    }
}

#[test]
fn what_is_recorded_first_waits_for_its_payment() {
    for method in PERMIT2 {
        let mut net = net();
        let receipt = BatchEntry {
            router: Some(who("router")),
            ..entry(&net, 0, 0, method, nonce(0))
        };
        net.record(&[receipt]).unwrap();
        let waiting = pending(&receipt, net.evm.timestamp() + 600);
        let word = system_tx::pending_word(alloy_primitives::keccak256(waiting.abi_encode()));
        assert_eq!(spent(&net, &receipt), Spent::Pending(word));
        let view = ReceiptLedger::pendingHashCall { entry: waiting.clone() };
        assert_eq!(net.evm.view(LEDGER, view).unwrap(), word);
        assert_eq!(net.credit_settled(vec![waiting.clone()]), 0);
        pay(&mut net, 0, method, nonce(0));
        // Under another method it is another entry, even where both would be paid.
        for other in PaymentMethod::ALL.into_iter().filter(|other| *other != method) {
            if other == Erc3009 {
                let to = net.deposit(0);
                net.pay(Erc3009, "alice", to, amount(method), nonce(0)).unwrap();
            }
            let forged = ReceiptLedger::PendingEntry {
                method: other.code(),
                ..waiting.clone()
            };
            assert_eq!(net.credit_settled(vec![forged.clone()]), 0);
            assert_eq!(drop(&mut net, vec![forged]), 0);
        }
        assert_eq!(drop(&mut net, vec![waiting.clone()]), 0, "it is paid");
        assert_eq!(net.credit_settled(vec![waiting.clone(), waiting.clone()]), 1);
        assert_eq!(net.credit_settled(vec![waiting.clone()]), 0);
        assert_eq!(drop(&mut net, vec![waiting]), 0);
        let shares = split(Amount(CHARGE), ROYALTY, true, false, true).unwrap();
        assert_eq!(net.credited(who("node-0"), 0), shares.node.0);
        assert_eq!(net.credited(who("router"), 0), shares.router.0);
        assert_eq!(net.credited(who("alice"), 0), amount(method) - CHARGE);
    }
}

/// An authorization and a Permit2 transfer with the same nonce are two payments; of the two transfers only one can be made.
#[test]
fn equal_nonces_of_authorizations_and_permit2_are_apart() {
    let mut net = net();
    let n = nonce(0);
    for method in PaymentMethod::ALL {
        let payer = who("alice");
        let id = method.payment_id(payer, n).0;
        let found = match method {
            Erc3009 => net.evm.view(LEDGER, ReceiptLedger::paymentIdOfCall { payer, nonce: n }),
            _ => net
                .evm
                .view(LEDGER, ReceiptLedger::permitPaymentIdOfCall { payer, nonce: n }),
        };
        assert_eq!(found.unwrap(), id);
    }
    pay(&mut net, 0, Erc3009, n);
    pay(&mut net, 0, ExactPermit2, n);
    let batch: Vec<_> = [Erc3009, ExactPermit2]
        .into_iter()
        .zip(0..)
        .map(|(method, seq)| entry(&net, 0, seq, method, n))
        .collect();
    net.record(&batch).unwrap();
    assert_eq!(net.credited(who("alice"), 0), 2 * (AMOUNT - CHARGE));
    let upto = entry(&net, 0, 2, UptoPermit2, n);
    assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[upto]));
    assert_eq!(read(&net, &upto), Settlement::Cancelled);
    let to = net.deposit(0);
    let again = net.pay(UptoPermit2, "alice", to, 1, n);
    assert_reverts::<Permit2::InvalidNonce, _>(again);
    assert_conserved(&mut net);
}

#[test]
fn impossible_entries_revert() {
    let mut net = net();
    for method in PaymentMethod::ALL {
        let good = entry(&net, 0, 0, method, nonce(0));
        let above = BatchEntry {
            charge: good.amount + 1,
            ..good
        };
        assert_reverts::<ReceiptLedger::ChargeAboveAmount, _>(net.record(&[above]));
    }
    let upto = entry(&net, 0, 0, UptoPermit2, nonce(0));
    for charge in [0, CHARGE - 1] {
        let below = BatchEntry { charge, ..upto };
        assert_reverts::<ReceiptLedger::ChargeNotAmount, _>(net.record(&[below]));
        // Paid or not.
        pay(&mut net, 0, UptoPermit2, nonce(u64::try_from(charge).unwrap()));
        let below = BatchEntry {
            nonce: nonce(u64::try_from(charge).unwrap()),
            ..below
        };
        assert_reverts::<ReceiptLedger::ChargeNotAmount, _>(net.record(&[below]));
    }
    for method in [3, 4, 255] {
        assert_reverts::<ReceiptLedger::UnknownMethod, _>(record_as(&mut net, upto, method));
        let waiting = ReceiptLedger::PendingEntry {
            method,
            ..pending(&upto, 0)
        };
        let credit = ReceiptLedger::creditSettledCall {
            entries: vec![waiting.clone()],
        };
        assert_reverts::<ReceiptLedger::UnknownMethod, _>(net.evm.call(who("anyone"), LEDGER, credit));
        let forget = ReceiptLedger::dropUnpayableCall { entries: vec![waiting] };
        assert_reverts::<ReceiptLedger::UnknownMethod, _>(net.evm.call(who("anyone"), LEDGER, forget));
        let ask = ReceiptLedger::requestRefundCall {
            method,
            ..request(&upto)
        };
        assert_reverts::<ReceiptLedger::UnknownMethod, _>(net.evm.call(who("anyone"), LEDGER, ask));
        let take = ReceiptLedger::refundCall {
            method,
            ..refund(&upto)
        };
        assert_reverts::<ReceiptLedger::UnknownMethod, _>(net.evm.call(who("anyone"), LEDGER, take));
        assert!(PaymentMethod::from_code(method).is_none());
    }
    for method in PaymentMethod::ALL {
        assert_eq!(PaymentMethod::from_code(method.code()), Some(method));
    }
}

/// A receipt that names another method than the payment's earns nothing, and makes room for the right one.
#[test]
fn a_forged_method_earns_nothing() {
    for method in PERMIT2 {
        let other = if method == ExactPermit2 {
            UptoPermit2
        } else {
            ExactPermit2
        };
        let mut net = net();
        let right = BatchEntry {
            amount: CHARGE,
            ..entry(&net, 0, 9, method, nonce(0))
        };
        let to = net.deposit(0);
        net.pay(method, "alice", to, CHARGE, nonce(0)).unwrap();
        let forged = [(0, Erc3009), (1, other)].map(|(seq, method)| BatchEntry { method, seq, ..right });
        net.record(&forged).unwrap();
        let waiting = forged.map(|f| pending(&f, net.evm.timestamp() + 600));
        assert_eq!(net.credit_settled(waiting.to_vec()), 0);
        assert_eq!(state::vault_outstanding(&net.evm, net.nodes[0]).unwrap(), Amount::ZERO);
        assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[right]));
        // An authorization with that nonce may still pay; a Permit2 transfer by the other proxy cannot.
        assert_eq!(drop(&mut net, waiting.to_vec()), 1);
        assert!(matches!(spent(&net, &forged[0]), Spent::Pending(_)));
        net.record(&[right]).unwrap();
        assert_eq!(spent(&net, &right), Spent::Credited);
        assert_conserved(&mut net);
    }
}

/// Alice signs a token of her own for the node, with the nonce of the payment that she owes.
#[test]
fn a_worthless_token_pays_nothing() {
    for method in PERMIT2 {
        let mut net = net();
        let alice = who("alice");
        let token = net.deploy("token", &TestToken::BYTECODE, ());
        let mint = TestToken::mintCall {
            to: alice,
            amount: U256::from(AMOUNT),
        };
        let approve = TestToken::approveCall {
            spender: addresses::PERMIT2,
            amount: U256::MAX,
        };
        for data in [mint.abi_encode(), approve.abi_encode()] {
            net.evm.send(alice, token, U256::ZERO, data.into()).unwrap();
        }
        let before = entry(&net, 0, 0, method, nonce(0));
        net.record(&[before]).unwrap();
        let payment = Permit2Payment {
            token,
            ..Permit2Payment::new(method, "alice", net.deposit(0), amount(method), nonce(0))
        };
        net.settle_permit2(&payment, amount(method)).unwrap();
        assert_eq!(read(&net, &before), Settlement::Cancelled);
        let waiting = pending(&before, net.evm.timestamp() + 600);
        assert_eq!(net.credit_settled(vec![waiting.clone()]), 0);
        assert_eq!(drop(&mut net, vec![waiting.clone()]), 1);
        assert_eq!(spent(&net, &before), Spent::Unspent);
        assert_reverts::<ReceiptLedger::PaymentNotSettled, _>(net.evm.call(alice, LEDGER, request(&before)));
        let after = entry(&net, 0, 1, method, nonce(0));
        net.record(&[after]).unwrap();
        assert!(matches!(spent(&net, &after), Spent::Pending(_)));
        assert_eq!(state::vault_outstanding(&net.evm, net.nodes[0]).unwrap(), Amount::ZERO);
        assert_conserved(&mut net);
    }
}

/// Cancelled nonces and nonces that another spender used; their neighbours in the bitmap do not matter.
#[test]
fn a_nonce_that_can_never_pay_is_dropped() {
    for method in PERMIT2 {
        // The lowest and the highest bit of a word, the highest word, and nonces as clients draw them.
        for n in [
            B256::ZERO,
            B256::with_last_byte(255),
            B256::repeat_byte(255),
            nonce(7),
            nonce(8),
        ] {
            for cancelled in [true, false] {
                let mut net = net();
                let number = U256::from_be_bytes(n.0);
                let receipt = entry(&net, 0, 0, method, n);
                net.record(&[receipt]).unwrap();
                let waiting = pending(&receipt, net.evm.timestamp() + 600);
                for other in [number.wrapping_add(U256::ONE), number.wrapping_sub(U256::ONE)] {
                    cancel(&mut net, "alice", other.into());
                }
                cancel(&mut net, "bob", n);
                assert_eq!(read(&net, &receipt), Settlement::Unused);
                assert_eq!(drop(&mut net, vec![waiting.clone()]), 0);
                if cancelled {
                    cancel(&mut net, "alice", n);
                } else {
                    spend_otherwise(&mut net, number);
                }
                assert_eq!(read(&net, &receipt), Settlement::Cancelled);
                let to = net.deposit(0);
                let paid = net.pay(method, "alice", to, amount(method), n);
                assert_reverts::<Permit2::InvalidNonce, _>(paid);
                assert_eq!(net.credit_settled(vec![waiting.clone()]), 0);
                let other_terms = ReceiptLedger::PendingEntry {
                    charge: 1,
                    ..waiting.clone()
                };
                assert_eq!(drop(&mut net, vec![other_terms, waiting.clone(), waiting]), 1);
                assert_eq!(spent(&net, &receipt), Spent::Unspent);
                assert_conserved(&mut net);
            }
        }
    }
}

/// Bob, whom Alice allowed it, pays somebody in OPG under her nonce, not through a proxy.
fn spend_otherwise(net: &mut Net, nonce: U256) {
    let permitted = permit2::plain::TokenPermissions {
        token: addresses::OPG,
        amount: U256::from(5),
    };
    let message = permit2::plain::PermitTransferFrom {
        permitted,
        spender: who("bob"),
        nonce,
        deadline: U256::MAX,
    };
    let call = Permit2::permitTransferFrom_0Call {
        permit_: Permit2::PermitTransferFrom {
            permitted: Permit2::TokenPermissions {
                token: addresses::OPG,
                amount: U256::from(5),
            },
            nonce,
            deadline: U256::MAX,
        },
        transferDetails: Permit2::SignatureTransferDetails {
            to: who("payee"),
            requestedAmount: U256::from(5),
        },
        owner: who("alice"),
        signature: signed("alice", &message, &permit2_domain()),
    };
    net.evm.call(who("bob"), addresses::PERMIT2, call).unwrap();
}

/// Node 0 claims a payment to node 1, before and after it is made.
#[test]
fn a_payment_to_another_node_is_not_credited() {
    for method in PERMIT2 {
        for paid_first in [true, false] {
            let mut net = net();
            let stolen = entry(&net, 0, 0, method, nonce(0));
            if paid_first {
                pay(&mut net, 1, method, nonce(0));
            }
            net.record(&[stolen]).unwrap();
            if !paid_first {
                pay(&mut net, 1, method, nonce(0));
            }
            let waiting = pending(&stolen, net.evm.timestamp() + 600);
            let renamed = ReceiptLedger::PendingEntry {
                nodeId: net.nodes[1],
                ..waiting.clone()
            };
            assert_eq!(net.credit_settled(vec![waiting.clone(), renamed]), 0);
            assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.evm.call(who("alice"), LEDGER, request(&stolen)));
            let right = entry(&net, 1, 0, method, nonce(0));
            assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[right]));
            assert_eq!(drop(&mut net, vec![waiting]), 1);
            net.record(&[right]).unwrap();
            assert_eq!(state::vault_outstanding(&net.evm, net.nodes[0]).unwrap(), Amount::ZERO);
            assert_eq!(
                state::vault_outstanding(&net.evm, net.nodes[1]).unwrap(),
                Amount(amount(method))
            );
            assert_conserved(&mut net);
        }
    }
}

/// A node settles another amount than the receipt says: the receipt earns nothing, and the payer gets back what was settled.
#[test]
fn upto_settled_with_another_amount_earns_nothing() {
    for value in [CHARGE - 1, CHARGE + 1, AMOUNT] {
        let mut net = net();
        let receipt = entry(&net, 0, 0, UptoPermit2, nonce(0));
        net.record(&[receipt]).unwrap();
        let payment = Permit2Payment::new(UptoPermit2, "alice", net.deposit(0), AMOUNT, nonce(0));
        net.settle_permit2(&payment, value).unwrap();
        let waiting = pending(&receipt, net.evm.timestamp() + 600);
        assert_eq!(net.credit_settled(vec![waiting.clone()]), 0);
        assert_eq!(drop(&mut net, vec![waiting]), 1);
        let settled = BatchEntry {
            amount: value,
            ..receipt
        };
        net.evm.call(who("anyone"), LEDGER, request(&settled)).unwrap();
        net.tick(86_400);
        net.evm.call(who("anyone"), LEDGER, refund(&settled)).unwrap();
        assert_eq!(net.withdraw(who("alice"), 0, 0).unwrap(), value);
        assert_conserved(&mut net);
    }
    // A payer's ceiling does not matter, only what is settled.
    let mut net = net();
    let payment = Permit2Payment::new(UptoPermit2, "alice", net.deposit(0), AMOUNT, nonce(0));
    net.settle_permit2(&payment, CHARGE).unwrap();
    let receipt = entry(&net, 0, 0, UptoPermit2, nonce(0));
    net.record(&[receipt]).unwrap();
    assert_eq!(spent(&net, &receipt), Spent::Credited);
}

#[test]
fn a_payment_without_a_receipt_goes_back() {
    for method in PERMIT2 {
        let mut net = net();
        let (alice, anyone) = (who("alice"), who("anyone"));
        let payment = entry(&net, 0, 0, method, nonce(0));
        assert_reverts::<ReceiptLedger::PaymentNotSettled, _>(net.evm.call(anyone, LEDGER, request(&payment)));
        pay(&mut net, 0, method, nonce(0));
        pay(&mut net, 0, method, nonce(1));
        let wrong = PaymentMethod::ALL.into_iter().filter(|other| *other != method);
        for wrong in wrong
            .map(|method| BatchEntry { method, ..payment })
            .chain([
                BatchEntry {
                    amount: payment.amount + 1,
                    ..payment
                },
                BatchEntry {
                    payer: who("bob"),
                    ..payment
                },
                BatchEntry {
                    node_id: net.nodes[1],
                    ..payment
                },
            ])
            .collect::<Vec<_>>()
        {
            assert_reverts::<ReceiptLedger::PaymentNotSettled, _>(net.evm.call(anyone, LEDGER, request(&wrong)));
        }
        let late = BatchEntry {
            nonce: nonce(1),
            ..payment
        };
        assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(anyone, LEDGER, refund(&payment)));
        for asked in [&payment, &late] {
            net.evm.call(anyone, LEDGER, request(asked)).unwrap();
            assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(anyone, LEDGER, request(asked)));
        }
        net.tick(86_399);
        assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(anyone, LEDGER, refund(&payment)));
        // The node brings the receipt of the second in time.
        net.record(&[late]).unwrap();
        net.tick(1);
        assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.evm.call(anyone, LEDGER, refund(&late)));
        let other = BatchEntry {
            method: Erc3009,
            ..payment
        };
        assert_reverts::<ReceiptLedger::PaymentNotSettled, _>(net.evm.call(anyone, LEDGER, refund(&other)));
        net.evm.call(anyone, LEDGER, refund(&payment)).unwrap();
        assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.evm.call(anyone, LEDGER, refund(&payment)));
        assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.evm.call(anyone, LEDGER, request(&payment)));
        let before = net.opg(alice);
        assert_eq!(net.withdraw(alice, 0, 0).unwrap(), amount(method));
        assert_eq!(net.opg(alice), before + amount(method));
        let too_late = BatchEntry { seq: 5, ..payment };
        assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[too_late]));
        assert_conserved(&mut net);
    }
}

/// Whatever gas a caller leaves: a paid entry is never taken for unpaid, nor a payable one for unpayable.
#[test]
fn short_of_gas_nothing_is_dropped() {
    for method in PERMIT2 {
        for paid in [true, false] {
            let mut net = net();
            let receipt = entry(&net, 0, 0, method, nonce(0));
            net.record(&[receipt]).unwrap();
            if paid {
                pay(&mut net, 0, method, nonce(0));
            }
            let waiting = pending(&receipt, net.evm.timestamp() + 600);
            let data = ReceiptLedger::dropUnpayableCall {
                entries: vec![waiting.clone()],
            }
            .abi_encode();
            let (mut failed, mut done) = (0, 0);
            for gas in (26_000..60_000).step_by(499) {
                match net
                    .evm
                    .send_with_gas(who("thief"), LEDGER, U256::ZERO, data.clone().into(), gas)
                {
                    Ok(_) => done += 1,
                    Err(_) => failed += 1,
                }
            }
            assert!(failed > 5 && done > 5, "{failed} {done}");
            assert!(matches!(spent(&net, &receipt), Spent::Pending(_)));
            if !paid {
                pay(&mut net, 0, method, nonce(0));
            }
            assert_eq!(net.credit_settled(vec![waiting]), 1);
        }
    }
}

/// The ledger's own addresses, and its readers against the proxies' views.
#[test]
fn the_ledger_knows_permit2_and_the_proxies() {
    let mut net = net();
    let view = net.evm.view(LEDGER, ReceiptLedger::permit2Call {}).unwrap();
    assert_eq!(view, addresses::PERMIT2);
    let view = net.evm.view(LEDGER, ReceiptLedger::exactProxyCall {}).unwrap();
    assert_eq!(view, addresses::EXACT_PERMIT2_PROXY);
    let view = net.evm.view(LEDGER, ReceiptLedger::uptoProxyCall {}).unwrap();
    assert_eq!(view, addresses::UPTO_PERMIT2_PROXY);
    // An authorization's state comes from OPG alone: a used Permit2 nonce says nothing about it.
    cancel(&mut net, "alice", nonce(0));
    let authorization = entry(&net, 0, 0, Erc3009, nonce(0));
    assert_eq!(read(&net, &authorization), Settlement::Unused);
    pay(&mut net, 0, Erc3009, nonce(0));
    assert!(read(&net, &authorization).paid(net.deposit(0), AMOUNT));
    let view = OPG::settlementOfCall {
        payer: who("alice"),
        nonce: nonce(0),
    };
    let stored = net.evm.view(addresses::OPG, view).unwrap();
    assert_eq!(read(&net, &authorization), Settlement::Used(stored));
}
