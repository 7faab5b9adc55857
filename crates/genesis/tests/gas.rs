//! What system transactions cost, and that the bound by which batches are cut holds.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256};
use common::{Net, Payment, nonce, who};
use opg_contracts::{
    PaymentMethod, addresses, slots,
    system_tx::{self, BatchEntry, ENTRIES_PER_SYSTEM_TX, GAS_LIMIT, MAX_BLOCK_GAS},
};

/// An address that no earlier call has touched.
fn stranger(i: u64) -> Address {
    Address::from_word(nonce(1_000_000 + i))
}

fn entries(net: &Net, count: u64, payer: impl Fn(u64) -> Address) -> Vec<BatchEntry> {
    (0..count)
        .map(|i| BatchEntry {
            payer: payer(i),
            ..net.entry(0, i, "alice", nonce(i), 5_000_000_000_000_000, 4_999_999_999_999_999)
        })
        .collect()
}

/// Marks payments as settled without running every transfer: the slot is all that the ledger looks at.
fn settle(net: &mut Net, entries: &[BatchEntry]) {
    for entry in entries {
        let to = common::deposit_address(entry.node_id);
        let (contract, slot) = entry.method.settlement_slot(entry.payer, entry.nonce);
        let hash = opg_contracts::state::settlement_hash(to, entry.amount);
        net.evm.set_storage(contract, slot, hash.into());
    }
}

/// The same batch, paid by a method; `upto` settles the charge, so there is nothing to refund.
fn by(method: PaymentMethod, batch: Vec<BatchEntry>) -> Vec<BatchEntry> {
    let upto = method == PaymentMethod::UptoPermit2;
    batch
        .into_iter()
        .map(|entry| BatchEntry {
            method,
            charge: if upto { entry.amount } else { entry.charge },
            ..entry
        })
        .collect()
}

/// Records and returns (gas used, gas bound).
fn measure(name: &str, net: &mut Net, entries: &[BatchEntry]) -> (u64, u64) {
    let bound = system_tx::gas_bound(entries);
    let done = net.record(entries).unwrap();
    let used: u64 = done.iter().map(|tx| tx.gas_used).sum();
    let count = entries.len() as u64;
    println!(
        "{name}: {count} entries, {} transactions, {used} gas, {} an entry, bound {bound}",
        done.len(),
        used / count
    );
    assert!(used <= bound, "{name}: bound {bound} is below {used}");
    assert!(done.iter().all(|tx| tx.gas_used <= GAS_LIMIT));
    (used, bound)
}

#[test]
fn pending_entries_of_one_payer() {
    for method in PaymentMethod::ALL {
        let mut net = Net::new();
        let batch = by(method, entries(&net, 500, |_| who("alice")));
        let (used, _) = measure(&format!("pending, {method:?}"), &mut net, &batch);
        assert!(used / 500 <= 30_000);
    }
}

#[test]
fn settled_entries_without_refund() {
    for method in PaymentMethod::ALL {
        let mut net = Net::new();
        let batch: Vec<_> = entries(&net, 500, |_| who("alice"))
            .into_iter()
            .map(|e| BatchEntry { charge: e.amount, ..e })
            .collect();
        let batch = by(method, batch);
        settle(&mut net, &batch);
        let (used, _) = measure(&format!("settled, no refund, {method:?}"), &mut net, &batch);
        assert!(used / 500 <= 29_500);
    }
}

/// Payers in turn: their refunds merge all the same, because entries of a group are sorted by payer.
#[test]
fn settled_entries_of_payers_in_turn() {
    for method in PaymentMethod::ALL {
        let mut net = Net::new();
        let batch = by(method, entries(&net, 500, |i| stranger(i % 8)));
        settle(&mut net, &batch);
        let (used, _) = measure(&format!("settled, eight payers in turn, {method:?}"), &mut net, &batch);
        assert!(used / 500 <= 31_500);
    }
}

#[test]
fn settled_entries_of_one_payer() {
    for method in PaymentMethod::ALL {
        let mut net = Net::new();
        let batch = by(method, entries(&net, 500, |_| who("alice")));
        settle(&mut net, &batch);
        let (used, _) = measure(&format!("settled, one payer, {method:?}"), &mut net, &batch);
        assert!(used / 500 <= 30_000);
    }
}

/// A block that is full of the common case: the payments of the exposure cap, not settled yet.
#[test]
fn two_thousand_entries_fit_one_block() {
    for method in PaymentMethod::ALL {
        let mut net = Net::new();
        let batch: Vec<_> = entries(&net, 2_000, |i| stranger(i % 100))
            .into_iter()
            .map(|entry| BatchEntry {
                charge: entry.amount,
                ..entry
            })
            .collect();
        let batch = by(method, batch);
        assert_eq!(system_tx::fitting_prefix(&batch, system_tx::batch_gas(false)), 2_000);
        let (used, _) = measure(&format!("2,000 pending, {method:?}"), &mut net, &batch);
        assert!(used <= MAX_BLOCK_GAS);
    }
}

/// Makes a node and a model exist without registering them.
fn conjure(net: &mut Net, node: B256, model: B256, operator: Address, creator: Address) {
    net.evm.set_storage(
        addresses::NODE_REGISTRY,
        slots::node_base(node),
        operator.into_word().into(),
    );
    net.evm.set_storage(
        addresses::MODEL_REGISTRY,
        slots::model_base(model),
        creator.into_word().into(),
    );
}

/// Nothing is shared: every entry has a node, payer, model, creator, router and bitmap word of its own, and all are credited for
/// the first time.
#[test]
fn the_worst_batch_stays_within_its_bound() {
    for method in PaymentMethod::ALL {
        let mut net = Net::new();
        let batch: Vec<_> = entries(&net, 120, stranger)
            .into_iter()
            .enumerate()
            .map(|(i, entry)| {
                let i = i as u64;
                let (node, model) = (nonce(2_000_000 + i), nonce(3_000_000 + i));
                conjure(&mut net, node, model, stranger(20_000 + i), stranger(30_000 + i));
                BatchEntry {
                    node_id: node,
                    keyset: nonce(4_000_000 + i),
                    model_root: model,
                    router: Some(stranger(10_000 + i)),
                    ..entry
                }
            })
            .collect();
        let batch = by(method, batch);
        settle(&mut net, &batch);
        measure(&format!("nothing shared, {method:?}"), &mut net, &batch);
    }
}

/// One node, every entry on terms of its own.
#[test]
fn many_groups_stay_within_the_bound() {
    for method in PaymentMethod::ALL {
        let mut net = Net::new();
        let batch: Vec<_> = entries(&net, 200, stranger)
            .into_iter()
            .map(|entry| BatchEntry {
                royalty_bps: u16::try_from(entry.seq).unwrap(),
                ..entry
            })
            .collect();
        let batch = by(method, batch);
        settle(&mut net, &batch);
        measure(&format!("groups of one, {method:?}"), &mut net, &batch);
    }
}

/// Methods in turn: entries of three groups on the same terms, whose refunds of one payer merge across groups.
#[test]
fn mixed_methods_stay_within_the_bound() {
    for settled in [false, true] {
        let mut net = Net::new();
        let batch: Vec<_> = entries(&net, 480, |i| stranger(i % 8))
            .into_iter()
            .flat_map(|entry| by(PaymentMethod::ALL[(entry.seq % 3) as usize], vec![entry]))
            .collect();
        if settled {
            settle(&mut net, &batch);
        }
        measure(&format!("mixed methods, settled {settled}"), &mut net, &batch);
        assert_eq!(system_tx::chunks(&batch)[0].len(), 3);
    }
}

/// Calldata with as few zero bytes as entries can have, and sequence numbers that would change the bitmap word each time if
/// entries were in order of payers.
#[test]
fn dense_calldata_and_scattered_sequences_stay_within_the_bound() {
    for (method, refund) in PaymentMethod::ALL.into_iter().flat_map(|m| [(m, 0), (m, 1)]) {
        let mut net = Net::new();
        let base = 0x7f7f_7f7f_7f7f_7000;
        let batch: Vec<_> = entries(&net, 500, stranger)
            .into_iter()
            .map(|entry| {
                let amount = 999_999_999_999_999_999_999_999_999 - u128::from(entry.seq);
                let payer = if refund == 0 {
                    entry.payer
                } else {
                    stranger(entry.seq % 50)
                };
                BatchEntry {
                    seq: base + (entry.seq * 97) % 1_000,
                    amount,
                    charge: amount - refund,
                    payer,
                    ..entry
                }
            })
            .collect();
        let batch = by(method, batch);
        // As they are proposed, and once they are paid.
        measure(&format!("dense and scattered, pending, {method:?}"), &mut net, &batch);
        let mut net = Net::new();
        settle(&mut net, &batch);
        measure(&format!("dense and scattered, settled, {method:?}"), &mut net, &batch);
    }
}

#[test]
fn refunds_of_many_payers_stay_within_the_bound() {
    let mut net = Net::new();
    let first = entries(&net, 500, stranger);
    settle(&mut net, &first);
    measure("first refund of 500 payers", &mut net, &first);
    // Later, each payer's newest item moves to the queue, or to the released sum.
    for (round, wait) in [(1u64, 1), (2, 700)] {
        net.tick(wait);
        let again: Vec<_> = first
            .iter()
            .map(|e| BatchEntry {
                seq: e.seq + round * 1_000,
                nonce: nonce(e.seq + round * 100_000_000),
                ..*e
            })
            .collect();
        settle(&mut net, &again);
        measure("next refund of 500 payers", &mut net, &again);
    }
}

#[test]
fn batches_are_cut_by_number_and_by_gas() {
    let net = Net::new();
    assert!(system_tx::chunks(&[]).is_empty());
    let cheap: Vec<_> = entries(&net, 1_100, |_| who("alice"))
        .into_iter()
        .map(|e| BatchEntry { charge: e.amount, ..e })
        .collect();
    let sizes = |batch: &[BatchEntry]| -> Vec<usize> {
        system_tx::chunks(batch)
            .iter()
            .map(|groups| groups.iter().map(|g| g.entries.len()).sum())
            .collect()
    };
    assert_eq!(sizes(&cheap), [ENTRIES_PER_SYSTEM_TX, ENTRIES_PER_SYSTEM_TX, 100]);
    let dear: Vec<_> = entries(&net, 400, stranger)
        .into_iter()
        .map(|e| BatchEntry {
            royalty_bps: u16::try_from(e.seq).unwrap(),
            ..e
        })
        .collect();
    let cut = sizes(&dear);
    assert!(
        cut.len() > 1 && cut.iter().sum::<usize>() == 400 && cut[0] < 100,
        "{cut:?}"
    );
    let fitting = system_tx::fitting_prefix(&dear, system_tx::batch_gas(false));
    assert!(fitting < 400);
    assert!(system_tx::gas_bound(&dear[..fitting]) <= MAX_BLOCK_GAS);
    assert!(system_tx::gas_bound(&dear[..=fitting]) > MAX_BLOCK_GAS);
}

/// Entries of one group that do not follow each other end up in it all the same.
#[test]
fn groups_collect_entries_of_equal_terms() {
    let net = Net::new();
    let a = net.entry(0, 0, "alice", nonce(0), 2, 1);
    let b = net.entry(1, 0, "alice", nonce(1), 2, 1);
    let c = BatchEntry {
        seq: 1,
        nonce: nonce(2),
        ..a
    };
    let chunks = system_tx::chunks(&[a, b, c]);
    assert_eq!(chunks.len(), 1);
    let seqs: Vec<Vec<u64>> = chunks[0]
        .iter()
        .map(|g| g.entries.iter().map(|e| e.seq).collect())
        .collect();
    assert_eq!(seqs, [vec![0, 1], vec![0]]);
}

/// The relay of one payment, for the node that pays for it.
#[test]
fn settlement_costs_what_the_documents_say() {
    let mut net = Net::new();
    let to = net.deposit(0);
    for i in 0..3 {
        let payment = Payment::new("alice", to, 1_000, nonce(i));
        let data = alloy_sol_types::SolCall::abi_encode(&payment.call());
        let done = net
            .evm
            .send(who("relayer"), addresses::OPG, U256::ZERO, data.into())
            .unwrap();
        println!("transferWithAuthorization #{i}: {}", done.gas_used);
        assert!(done.gas_used < 105_000);
    }
}
