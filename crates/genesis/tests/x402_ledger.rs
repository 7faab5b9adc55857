//! Receipts that channels pay for: recording, crediting as far as claimed, escrow, attackers, conservation and gas.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall;
use common::{MODEL, Net, OTHER_MODEL, ROYALTY, assert_reverts, nonce, root, who, x402::Channel};
use opg_contracts::{
    ReceiptLedger::{self, ChannelTerms},
    addresses,
    bindings::receipt_ledger,
    channel_tx::{self, BatchItem, ChannelEntry},
    state,
    system_tx::{self, MAX_BLOCK_GAS},
    x402,
};
use opg_genesis::evm::{CallError, Executed};
use opg_primitives::money::{Amount, split};
use std::sync::OnceLock;

const LEDGER: Address = addresses::RECEIPT_LEDGER;

fn channel(net: &Net, payer: &str, node: usize, salt: u64) -> Channel {
    let mut channel = Channel::new(payer, net.deposit(node), salt);
    channel.authorizer = format!("settlement-{node}");
    channel.config.receiverAuthorizer = who(&channel.authorizer);
    channel
}

/// Ids of the nodes and digests of their keysets.
fn ids() -> &'static (Vec<B256>, Vec<B256>) {
    static IDS: OnceLock<(Vec<B256>, Vec<B256>)> = OnceLock::new();
    IDS.get_or_init(|| {
        let net = Net::new();
        (net.nodes, net.keysets)
    })
}

fn entry(node: usize, channel: &Channel, seq: u64, charge: u128) -> ChannelEntry {
    ChannelEntry {
        node_id: ids().0[node],
        keyset: ids().1[node],
        model_root: MODEL,
        royalty_bps: ROYALTY,
        mode: 0,
        router: None,
        channel: channel.config.clone(),
        seq,
        charge,
    }
}

fn terms(entry: &ChannelEntry) -> ChannelTerms {
    ChannelTerms {
        channelId: x402::channel_id(&entry.channel, common::CHAIN_ID),
        nodeId: entry.node_id,
        modelRoot: entry.model_root,
        creator: who("creator"),
        royaltyBps: entry.royalty_bps,
        mode: entry.mode,
        router: entry.router.unwrap_or_default(),
    }
}

/// Records a batch of channel entries as the proposer would.
fn record(net: &mut Net, entries: &[ChannelEntry]) -> Result<Vec<Executed>, CallError> {
    let items: Vec<_> = entries.iter().cloned().map(BatchItem::Channel).collect();
    record_items(net, &items)
}

fn record_items(net: &mut Net, items: &[BatchItem]) -> Result<Vec<Executed>, CallError> {
    net.height += 1;
    channel_tx::transactions(net.height, root(net.height), items)
        .into_iter()
        .map(|data| {
            net.evm
                .send_with_gas(who("system-0"), LEDGER, U256::ZERO, data, system_tx::GAS_LIMIT)
        })
        .collect()
}

fn credit(net: &mut Net, terms: Vec<ChannelTerms>) -> u128 {
    net.evm
        .call(who("anyone"), LEDGER, ReceiptLedger::creditChannelsCall { terms })
        .unwrap()
        .to()
}

/// The node claims `total` of a channel.
fn claim(net: &mut Net, node: usize, channel: &Channel, total: u128) {
    net.claim_signed(&format!("settlement-{node}"), vec![channel.row(total, total)])
        .unwrap();
}

/// (recorded, credited) of a channel, by the contract and by the reader.
fn sums(net: &mut Net, channel: &Channel) -> (u128, u128) {
    let call = ReceiptLedger::channelSumsCall {
        channelId: channel.id(),
    };
    let sums = net.evm.view(LEDGER, call).unwrap();
    let read = x402::read_channel_sums(&net.evm, channel.id()).unwrap();
    assert_eq!((sums.recorded, sums.credited), (read.recorded, read.credited));
    (sums.recorded, sums.credited)
}

fn pending(net: &mut Net, terms: &ChannelTerms) -> (u128, u64) {
    let call = ReceiptLedger::termsHashCall { terms: terms.clone() };
    let hash = net.evm.view(LEDGER, call).unwrap();
    assert_eq!(hash, x402::terms_hash(terms));
    let call = ReceiptLedger::pendingChargesCall { termsHash: hash };
    let pending = net.evm.view(LEDGER, call).unwrap();
    let read = x402::read_pending_charge(&net.evm, terms).unwrap();
    assert_eq!((pending.amount, pending.releaseAt), read);
    read
}

#[test]
fn a_claim_after_the_record_is_credited_and_paid_after_the_window() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 1_000_000, 1).unwrap();
    let receipts = [entry(0, &alice, 0, 300_000), entry(0, &alice, 1, 77_777)];
    record(&mut net, &receipts).unwrap();
    for seq in 0..2 {
        assert!(state::seq_used(&net.evm, net.keysets[0], seq).unwrap());
    }
    assert!(!state::seq_used(&net.evm, net.keysets[0], 2).unwrap());
    let terms = terms(&receipts[0]);
    let release = net.evm.timestamp() + 600;
    assert_eq!(pending(&mut net, &terms), (377_777, release));
    assert_eq!(sums(&mut net, &alice), (377_777, 0));
    // Nothing is claimed: nothing is credited.
    assert_eq!(credit(&mut net, vec![terms.clone()]), 0);
    claim(&mut net, 0, &alice, 377_777);
    // Twice in one call: once.
    assert_eq!(credit(&mut net, vec![terms.clone(), terms.clone()]), 377_777);
    assert_eq!(credit(&mut net, vec![terms.clone()]), 0);
    assert_eq!(sums(&mut net, &alice), (377_777, 377_777));
    assert_eq!(pending(&mut net, &terms).0, 0);
    // What was claimed is at the node's deposit address or in the vault before anything is credited.
    let deposit = net.deposit(0);
    assert_eq!(net.opg(deposit), 377_777);
    let shares = split(Amount(377_777), ROYALTY, false, false, true).unwrap();
    for (payee, share) in [
        (who("node-0"), shares.node.0),
        (who("creator"), shares.creator.0),
        (who("treasury"), shares.treasury.0),
        (addresses::INSURANCE, shares.insurance.0),
        (who("alice"), 0),
    ] {
        assert_eq!(net.credited(payee, 0), share);
    }
    net.tick(599);
    assert_eq!(net.withdraw(who("node-0"), 0, 9).unwrap(), 0);
    net.tick(1);
    assert_eq!(net.withdraw(who("node-0"), 0, 9).unwrap(), shares.node.0);
    net.assert_conserved(&holders());
}

#[test]
fn a_record_after_the_claim_is_credited_as_far_as_it_goes() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 1_000_000, 1).unwrap();
    claim(&mut net, 0, &alice, 500);
    let first = entry(0, &alice, 7, 300);
    record(&mut net, std::slice::from_ref(&first)).unwrap();
    assert_eq!(credit(&mut net, vec![terms(&first)]), 300);
    // More is recorded than is claimed: the rest waits.
    record(&mut net, &[entry(0, &alice, 8, 450)]).unwrap();
    assert_eq!(credit(&mut net, vec![terms(&first)]), 200);
    assert_eq!(credit(&mut net, vec![terms(&first)]), 0);
    assert_eq!(sums(&mut net, &alice), (750, 500));
    claim(&mut net, 0, &alice, 749);
    assert_eq!(credit(&mut net, vec![terms(&first)]), 249);
    claim(&mut net, 0, &alice, 900);
    assert_eq!(credit(&mut net, vec![terms(&first)]), 1);
    assert_eq!(sums(&mut net, &alice), (750, 750));
    net.assert_conserved(&holders());
}

/// Charges on different terms share a channel's claims; the sum never exceeds them, whatever the order.
#[test]
fn several_terms_share_what_is_claimed() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 10_000, 1).unwrap();
    let plain = entry(0, &alice, 0, 600);
    let other = ChannelEntry {
        model_root: OTHER_MODEL,
        royalty_bps: 0,
        seq: 1,
        ..plain.clone()
    };
    let routed = ChannelEntry {
        router: Some(who("router")),
        mode: 2,
        seq: 2,
        ..plain.clone()
    };
    record(&mut net, &[plain.clone(), other.clone(), routed.clone()]).unwrap();
    assert_eq!(sums(&mut net, &alice), (1_800, 0));
    claim(&mut net, 0, &alice, 1_000);
    let all = vec![terms(&routed), terms(&plain), terms(&other)];
    assert_eq!(credit(&mut net, all.clone()), 1_000);
    assert_eq!(pending(&mut net, &terms(&routed)).0, 0);
    assert_eq!(pending(&mut net, &terms(&plain)).0, 200);
    assert_eq!(pending(&mut net, &terms(&other)).0, 600);
    // Mode zk has no window: released at once. Its router and its payees can withdraw, the others wait.
    let shares = split(Amount(600), ROYALTY, true, false, true).unwrap();
    assert_eq!(net.withdraw(who("router"), 0, 9).unwrap(), shares.router.0);
    assert_eq!(net.withdrawable(who("node-0"), 0), shares.node.0);
    claim(&mut net, 0, &alice, 5_000);
    assert_eq!(credit(&mut net, all), 800);
    assert_eq!(sums(&mut net, &alice), (1_800, 1_800));
    net.assert_conserved(&holders());
}

/// One channel's claims never pay for another's receipts, nor one node's for another's.
#[test]
fn channels_and_nodes_do_not_pay_for_each_other() {
    let mut net = Net::new();
    let (a, b) = (channel(&net, "alice", 0, 1), channel(&net, "bob", 0, 2));
    let foreign = channel(&net, "alice", 1, 3);
    for channel in [&a, &b, &foreign] {
        net.fund(channel, 1_000, channel.config.salt[31].into()).unwrap();
    }
    record(&mut net, &[entry(0, &a, 0, 400), entry(0, &b, 1, 500)]).unwrap();
    claim(&mut net, 0, &b, 1_000);
    claim(&mut net, 1, &foreign, 1_000);
    assert_eq!(credit(&mut net, vec![terms(&entry(0, &a, 0, 0))]), 0);
    assert_eq!(credit(&mut net, vec![terms(&entry(0, &b, 0, 0))]), 500);
    // The terms are exactly the recorded ones.
    let good = terms(&entry(0, &a, 0, 0));
    claim(&mut net, 0, &a, 400);
    let forged = [
        ChannelTerms {
            nodeId: net.nodes[1],
            ..good.clone()
        },
        ChannelTerms {
            channelId: b.id(),
            ..good.clone()
        },
        ChannelTerms {
            creator: who("thief"),
            ..good.clone()
        },
        ChannelTerms {
            router: who("thief"),
            ..good.clone()
        },
        ChannelTerms {
            royaltyBps: 3_000,
            ..good.clone()
        },
        ChannelTerms {
            mode: 2,
            ..good.clone()
        },
        ChannelTerms {
            modelRoot: OTHER_MODEL,
            ..good.clone()
        },
    ];
    assert_eq!(credit(&mut net, forged.to_vec()), 0);
    assert_eq!(credit(&mut net, vec![good]), 400);
    net.assert_conserved(&holders());
}

#[test]
fn a_channel_must_pay_the_node_in_opg() {
    let mut net = Net::new();
    let good = channel(&net, "alice", 0, 1);
    for (receiver, token) in [
        (net.deposit(1), addresses::OPG),
        (who("node-0"), addresses::OPG),
        (net.deposit(0), who("worthless")),
    ] {
        let mut foreign = good.clone();
        foreign.config.receiver = receiver;
        foreign.config.token = token;
        let result = record(&mut net, &[entry(0, &foreign, 0, 5)]);
        assert_reverts::<ReceiptLedger::ForeignChannel, _>(result);
    }
    let node = ChannelEntry {
        node_id: nonce(1),
        ..entry(0, &good, 0, 5)
    };
    assert_reverts::<ReceiptLedger::UnknownNode, _>(record(&mut net, std::slice::from_ref(&node)));
    // An unregistered node with a channel to its would-be address.
    let mut ghost = node;
    ghost.channel.receiver = common::deposit_address(nonce(1));
    assert_reverts::<ReceiptLedger::UnknownNode, _>(record(&mut net, &[ghost]));
    let base = entry(0, &good, 0, 5);
    let model = ChannelEntry {
        model_root: nonce(1),
        ..base.clone()
    };
    assert_reverts::<ReceiptLedger::UnknownModel, _>(record(&mut net, &[model]));
    let mode = ChannelEntry {
        mode: 4,
        ..base.clone()
    };
    assert_reverts::<ReceiptLedger::UnknownMode, _>(record(&mut net, &[mode]));
    let royalty = ChannelEntry {
        royalty_bps: 10_001,
        ..base
    };
    assert_reverts::<ReceiptLedger::InvalidRoyalty, _>(record(&mut net, &[royalty]));
}

/// Sequence numbers count once, among channels and payments alike.
#[test]
fn replayed_sequence_numbers_revert() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    let base = entry(0, &alice, 300, 5);
    record(&mut net, std::slice::from_ref(&base)).unwrap();
    assert_reverts::<ReceiptLedger::SequencesUsed, _>(record(&mut net, std::slice::from_ref(&base)));
    // Hidden among fresh ones, and in another channel.
    let fresh = ChannelEntry {
        seq: 301,
        ..base.clone()
    };
    assert_reverts::<ReceiptLedger::SequencesUsed, _>(record(&mut net, &[fresh, base.clone()]));
    let bob = entry(0, &channel(&net, "bob", 0, 2), 300, 5);
    assert_reverts::<ReceiptLedger::SequencesUsed, _>(record(&mut net, &[bob]));
    assert!(!state::seq_used(&net.evm, net.keysets[0], 301).unwrap());
    // A payment with the same number, and the other way round.
    let payment = net.entry(0, 300, "alice", nonce(300), 5, 5);
    assert_reverts::<ReceiptLedger::SequenceUsed, _>(net.record(&[payment]));
    net.record(&[net.entry(0, 9, "alice", nonce(9), 5, 5)]).unwrap();
    let again = ChannelEntry { seq: 9, ..base.clone() };
    assert_reverts::<ReceiptLedger::SequencesUsed, _>(record(&mut net, &[again]));
    // The last number and another keyset.
    let last = ChannelEntry {
        seq: u64::MAX,
        ..base.clone()
    };
    record(&mut net, std::slice::from_ref(&last)).unwrap();
    assert!(state::seq_used(&net.evm, net.keysets[0], u64::MAX).unwrap());
    assert_reverts::<ReceiptLedger::SequencesUsed, _>(record(&mut net, &[last]));
    let other = ChannelEntry {
        keyset: net.keysets[1],
        ..base
    };
    record(&mut net, &[other]).unwrap();
}

#[test]
fn only_system_transactions_record_channels() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    let groups = channel_tx::chunks(&[entry(0, &alice, 0, 5)]).remove(0);
    let data = channel_tx::calldata(1, root(1), 1, 0, groups.clone());
    let mut send = |from: &str, coinbase: &str, data: &alloy_primitives::Bytes| {
        net.evm.set_coinbase(who(coinbase));
        net.evm.send(who(from), LEDGER, U256::ZERO, data.clone()).map(|_| ())
    };
    for (from, coinbase) in [("alice", "system-0"), ("system-1", "system-0"), ("alice", "alice")] {
        assert_reverts::<ReceiptLedger::NotSystemTransaction, _>(send(from, coinbase, &data));
    }
    send("system-0", "system-0", &data).unwrap();
    // A further chunk repeats the root of its height.
    let next = channel_tx::calldata(1, root(2), 1, 1, vec![]);
    assert_reverts::<ReceiptLedger::InvalidRoot, _>(send("system-0", "system-0", &next));
    let next = channel_tx::calldata(1, root(1), 1, 1, vec![]);
    send("system-0", "system-0", &next).unwrap();
    let again = channel_tx::calldata(1, root(1), 1, 0, vec![]);
    assert_reverts::<ReceiptLedger::InvalidRoot, _>(send("system-0", "system-0", &again));
    assert_eq!(groups.len(), 1);
}

/// Both kinds in one batch: one height, one root, chunks in a row.
#[test]
fn a_batch_of_both_kinds() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 1_000, 1).unwrap();
    let to = net.deposit(0);
    net.settle(&common::Payment::new("bob", to, 700, nonce(1))).unwrap();
    let items = [
        BatchItem::Channel(entry(0, &alice, 0, 100)),
        BatchItem::Payment(net.entry(0, 1, "bob", nonce(1), 700, 700)),
        BatchItem::Channel(entry(0, &alice, 2, 100)),
    ];
    let done = record_items(&mut net, &items).unwrap();
    assert_eq!(done.len(), 2);
    assert_eq!(channel_tx::fitting_prefix(&items, MAX_BLOCK_GAS), 3);
    let bound = channel_tx::batch_gas_bound(&items);
    assert!(done.iter().map(|tx| tx.gas_used).sum::<u64>() <= bound);
    claim(&mut net, 0, &alice, 200);
    assert_eq!(credit(&mut net, vec![terms(&entry(0, &alice, 0, 0))]), 200);
    net.assert_conserved(&holders());
}

/// What is added to terms waits a whole window, and takes what was there before with it.
#[test]
fn charges_on_the_same_terms_share_the_latest_release() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 1_000, 1).unwrap();
    let base = entry(0, &alice, 0, 100);
    record(&mut net, std::slice::from_ref(&base)).unwrap();
    net.tick(500);
    record(&mut net, &[ChannelEntry { seq: 1, ..base.clone() }]).unwrap();
    let release = net.evm.timestamp() + 600;
    assert_eq!(pending(&mut net, &terms(&base)), (200, release));
    claim(&mut net, 0, &alice, 200);
    assert_eq!(credit(&mut net, vec![terms(&base)]), 200);
    net.tick(599);
    assert_eq!(net.withdrawable(who("node-0"), 0), 0);
    net.tick(1);
    assert!(net.withdrawable(who("node-0"), 0) > 0);
    // A claim long after the window is released at once.
    record(&mut net, &[ChannelEntry { seq: 2, ..base.clone() }]).unwrap();
    net.tick(10_000);
    claim(&mut net, 0, &alice, 300);
    let before = net.withdrawable(who("node-0"), 0);
    assert_eq!(credit(&mut net, vec![terms(&base)]), 100);
    assert!(net.withdrawable(who("node-0"), 0) > before);
}

/// Terms are those of the recorded receipt, whatever becomes of the model.
#[test]
fn pending_charges_keep_their_creator() {
    use opg_contracts::ModelRegistry;
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 1_000, 1).unwrap();
    let base = entry(0, &alice, 0, 100);
    record(&mut net, std::slice::from_ref(&base)).unwrap();
    let give = ModelRegistry::transferCreatorCall {
        modelRoot: MODEL,
        to: who("heir"),
    };
    net.evm.call(who("creator"), addresses::MODEL_REGISTRY, give).unwrap();
    record(&mut net, &[ChannelEntry { seq: 1, ..base.clone() }]).unwrap();
    claim(&mut net, 0, &alice, 200);
    let old = terms(&base);
    let new = ChannelTerms {
        creator: who("heir"),
        ..old.clone()
    };
    assert_eq!(credit(&mut net, vec![old, new]), 200);
    assert_eq!(
        (net.credited(who("creator"), 0), net.credited(who("heir"), 0)),
        (10, 10)
    );
}

/// A payer withdraws what was never claimed: the ledger has nothing to say about it, and credits nothing for it.
#[test]
fn unclaimed_charges_are_never_credited() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 1_000, 1).unwrap();
    let base = entry(0, &alice, 0, 800);
    record(&mut net, std::slice::from_ref(&base)).unwrap();
    net.initiate(who("alice"), &alice, 1_000).unwrap();
    net.tick(common::x402::DELAY);
    net.finalize(who("alice"), &alice).unwrap();
    assert!(net.claim(who("settlement-0"), vec![alice.row(800, 800)]).is_err());
    assert_eq!(credit(&mut net, vec![terms(&base)]), 0);
    assert_eq!(state::vault_outstanding(&net.evm, net.nodes[0]).unwrap(), Amount::ZERO);
}

/// False charges that sum beyond 128 bits do not stop the chain, and earn nothing.
#[test]
fn absurd_charges_do_not_stop_the_chain() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 1_000, 1).unwrap();
    let base = entry(0, &alice, 0, u128::MAX);
    record(&mut net, std::slice::from_ref(&base)).unwrap();
    record(&mut net, &[ChannelEntry { seq: 1, ..base.clone() }]).unwrap();
    let both = [
        ChannelEntry { seq: 2, ..base.clone() },
        ChannelEntry { seq: 3, ..base.clone() },
    ];
    record(&mut net, &both).unwrap();
    assert_eq!(sums(&mut net, &alice), (u128::MAX, 0));
    claim(&mut net, 0, &alice, 1_000);
    assert_eq!(credit(&mut net, vec![terms(&base)]), 1_000);
    assert_eq!(sums(&mut net, &alice), (u128::MAX, 1_000));
    net.assert_conserved(&holders());
}

/// What a node claims beyond its receipts goes back to the payer, if no receipts come within a day.
#[test]
fn claims_without_receipts_go_back() {
    let mut net = Net::new();
    let alice = channel(&net, "alice", 0, 1);
    net.fund(&alice, 10_000, 1).unwrap();
    let (node, config) = (net.nodes[0], ledger_config(&alice));
    let request = |node| ReceiptLedger::requestChannelRefundCall {
        nodeId: node,
        channel: config.clone(),
    };
    let refund = |node| ReceiptLedger::refundChannelCall {
        nodeId: node,
        channel: config.clone(),
    };
    let anyone = who("anyone");
    let base = entry(0, &alice, 0, 300);
    record(&mut net, std::slice::from_ref(&base)).unwrap();
    claim(&mut net, 0, &alice, 300);
    assert_reverts::<ReceiptLedger::NothingClaimedTooMuch, _>(net.evm.call(anyone, LEDGER, request(node)));
    assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(anyone, LEDGER, refund(node)));
    claim(&mut net, 0, &alice, 1_000);
    let other = net.nodes[1];
    assert_reverts::<ReceiptLedger::ForeignChannel, _>(net.evm.call(anyone, LEDGER, request(other)));
    net.evm.call(anyone, LEDGER, request(node)).unwrap();
    assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(anyone, LEDGER, request(node)));
    net.tick(86_399);
    assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(anyone, LEDGER, refund(node)));
    // A part of the receipts comes in time; what is claimed after the request is not meant.
    record(
        &mut net,
        &[ChannelEntry {
            seq: 1,
            charge: 250,
            ..base.clone()
        }],
    )
    .unwrap();
    claim(&mut net, 0, &alice, 5_000);
    net.tick(1);
    assert_reverts::<ReceiptLedger::ForeignChannel, _>(net.evm.call(anyone, LEDGER, refund(other)));
    assert_eq!(net.evm.call(anyone, LEDGER, refund(node)).unwrap(), 450);
    assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(anyone, LEDGER, refund(node)));
    assert_eq!(sums(&mut net, &alice), (1_000, 450));
    assert_eq!(net.withdraw(who("alice"), 0, 0).unwrap(), 450);
    // What was recorded keeps its part of the claims.
    assert_eq!(credit(&mut net, vec![terms(&base)]), 550);
    assert_eq!(sums(&mut net, &alice), (1_000, 1_000));
    // Receipts that all come in time leave nothing to refund; a late one finds claims of its own or nothing.
    net.evm.call(anyone, LEDGER, request(node)).unwrap();
    record(
        &mut net,
        &[ChannelEntry {
            seq: 2,
            charge: 4_000,
            ..base.clone()
        }],
    )
    .unwrap();
    net.tick(86_400);
    assert_eq!(net.evm.call(anyone, LEDGER, refund(node)).unwrap(), 0);
    assert_eq!(credit(&mut net, vec![terms(&base)]), 4_000);
    record(
        &mut net,
        &[ChannelEntry {
            seq: 3,
            charge: 9_000,
            ..base.clone()
        }],
    )
    .unwrap();
    assert_eq!(credit(&mut net, vec![terms(&base)]), 0);
    assert_reverts::<ReceiptLedger::NothingClaimedTooMuch, _>(net.evm.call(anyone, LEDGER, request(node)));
    net.assert_conserved(&holders());
}

/// The configuration as the ledger's binding names it.
fn ledger_config(channel: &Channel) -> receipt_ledger::BatchSettlement::ChannelConfig {
    let groups = channel_tx::chunks(&[entry(0, channel, 0, 0)]);
    groups[0][0].channel.clone()
}

fn holders() -> Vec<Address> {
    [
        "alice",
        "bob",
        "carol",
        "node-0",
        "node-1",
        "ecosystem",
        "creator",
        "heir",
        "treasury",
        "router",
        "payee",
    ]
    .map(who)
    .into_iter()
    .chain([addresses::BATCH_SETTLEMENT])
    .collect()
}

/// Makes a node and a model exist without registering them.
fn conjure(net: &mut Net, node: B256, model: B256, operator: Address, creator: Address) {
    let base = opg_contracts::slots::node_base(node);
    net.evm
        .set_storage(addresses::NODE_REGISTRY, base, operator.into_word().into());
    let base = opg_contracts::slots::model_base(model);
    net.evm
        .set_storage(addresses::MODEL_REGISTRY, base, creator.into_word().into());
}

fn measure(what: &str, net: &mut Net, entries: &[ChannelEntry]) -> u64 {
    let bound = channel_tx::gas_bound(entries);
    let done = record(net, entries).unwrap();
    let used = done.iter().map(|tx| tx.gas_used).sum::<u64>();
    println!(
        "{what}: {} receipts, {} transactions, {used} gas, bound {bound}",
        entries.len(),
        done.len()
    );
    assert!(used <= bound, "{what}: bound {bound} is below {used}");
    assert!(done.iter().all(|tx| tx.gas_used <= system_tx::GAS_LIMIT));
    used
}

/// The bar: 1,000 receipts of 20 channels, and their credits to 100 payees, at no more than 2.5M gas.
#[test]
fn a_thousand_receipts_of_twenty_channels() {
    let mut net = Net::new();
    let mut list = Vec::new();
    for i in 0..20u64 {
        // Five payees of its own for each channel: operator, creator, router; treasury and insurance of each node.
        let (node, model) = (nonce(2_000 + i), nonce(3_000 + i));
        conjure(
            &mut net,
            node,
            model,
            who(&format!("operator {i}")),
            who(&format!("creator {i}")),
        );
        let mut channel = Channel::new("alice", common::deposit_address(node), i);
        channel.config.salt = nonce(i);
        net.fund(&channel, 10_000_000_000_000_000_000, i).unwrap();
        list.push((node, model, channel, who(&format!("router {i}"))));
    }
    let batch = |round: u64| -> Vec<ChannelEntry> {
        (0..1_000u64)
            .map(|k| {
                let (node, model, channel, router) = &list[(k % 20) as usize];
                ChannelEntry {
                    node_id: *node,
                    keyset: *node,
                    model_root: *model,
                    royalty_bps: ROYALTY,
                    mode: 1,
                    router: Some(*router),
                    channel: channel.config.clone(),
                    seq: round * 50 + k / 20,
                    charge: 1_234_567_890_123_457,
                }
            })
            .collect()
    };
    let all: Vec<ChannelTerms> = batch(0)[..20]
        .iter()
        .map(|entry| ChannelTerms {
            creator: {
                let i = list.iter().position(|(node, ..)| *node == entry.node_id).unwrap();
                who(&format!("creator {i}"))
            },
            ..terms(entry)
        })
        .collect();
    let settle_all = |net: &mut Net, total: u128| {
        let rows = list
            .iter()
            .map(|(_, _, channel, _)| channel.row(total, total))
            .collect();
        net.claim_signed("settlement-0", rows).unwrap();
    };
    let credit_gas = |net: &mut Net| {
        let data = ReceiptLedger::creditChannelsCall { terms: all.clone() }.abi_encode();
        let done = net.evm.send(who("anyone"), LEDGER, U256::ZERO, data.into()).unwrap();
        done.gas_used
    };
    let each = 50 * 1_234_567_890_123_457u128;
    let first = measure("first batch of 1,000", &mut net, &batch(0));
    settle_all(&mut net, each);
    println!("first credit of 20 channels: {}", credit_gas(&mut net));
    // Within the window of the first: its credits go to the queue.
    net.tick(10);
    let recorded = measure("1,000 receipts, 20 channels", &mut net, &batch(1));
    settle_all(&mut net, 2 * each);
    let queued = credit_gas(&mut net);
    // After the window: to the released sum.
    net.tick(700);
    let later = measure("1,000 receipts later", &mut net, &batch(2));
    settle_all(&mut net, 3 * each);
    let _ = credit_gas(&mut net);
    net.tick(700);
    measure("1,000 receipts again", &mut net, &batch(3));
    settle_all(&mut net, 4 * each);
    let released = credit_gas(&mut net);
    // Most of that is the channels' money moving to the vault. Where the payees have settled before, as they do with their claims:
    net.tick(700);
    let again = measure("1,000 receipts once more", &mut net, &batch(4));
    settle_all(&mut net, 5 * each);
    let mut moved = 0;
    for (node, ..) in &list {
        let settle = opg_contracts::BatchSettlement::settleCall {
            receiver: common::deposit_address(*node),
            token: addresses::OPG,
        };
        moved += net.batch_raw(who("anyone"), settle).unwrap().gas_used;
    }
    net.tick(700);
    let settled = credit_gas(&mut net);
    println!(
        "credit of 20 channels, 100 payees: {queued} while queued, {released} after the window, {settled} if settled before"
    );
    common::figure("record 1,000 receipts of 20 channels", recorded, Some(2_500_000));
    common::figure(
        "credit them to 100 existing payees, settling 20 channels",
        released,
        None,
    );
    common::figure("settle 20 channels (20 transactions)", moved, None);
    common::figure("credit them to 100 existing payees, settled before", settled, None);
    common::figure("record and credit, settled before", again + settled, Some(2_500_000));
    common::figure("record, settle and credit", recorded + released, Some(2_500_000));
    assert!(first <= 2_500_000 && recorded <= 1_000_000 && later <= 1_000_000);
    assert!(again + settled <= 2_500_000, "the bar: {again} and {settled}");
    assert!(recorded + released <= 3_300_000);
    let wanted = 5 * each * 20;
    let credited: u128 = all
        .iter()
        .map(|t| {
            let call = ReceiptLedger::channelSumsCall { channelId: t.channelId };
            net.evm.view(LEDGER, call).unwrap().credited
        })
        .sum();
    assert_eq!(credited, wanted);
}

/// Nothing is shared, and no byte of calldata is zero that need not be.
#[test]
fn the_worst_batch_of_channels_stays_within_its_bound() {
    let mut net = Net::new();
    let base: Vec<_> = (0..400u64)
        .map(|i| {
            let (node, model) = (nonce(2_000_000 + i), nonce(3_000_000 + i));
            conjure(&mut net, node, model, who("node-0"), who("creator"));
            let mut channel = Channel::new("alice", common::deposit_address(node), i);
            channel.config.salt = nonce(i);
            channel.config.withdrawDelay = alloy_primitives::aliases::U40::from(2_592_000);
            ChannelEntry {
                node_id: node,
                keyset: nonce(4_000_000 + i),
                model_root: model,
                royalty_bps: 2_999,
                mode: 3,
                router: Some(who("router")),
                channel: channel.config,
                seq: 0x7f7f_7f7f_7f7f_7f7f - i * 977,
                charge: u128::MAX / 3,
            }
        })
        .collect();
    measure("nothing shared", &mut net, &base);
    // Every group touches several words, half of them shared with the group before.
    let scattered: Vec<_> = base[..60]
        .iter()
        .enumerate()
        .flat_map(|(i, entry)| {
            (0..20u64).map(move |k| ChannelEntry {
                keyset: nonce(5_000_000 + i as u64 / 2),
                seq: (1 << 62) + 256 * k + 2 * (i as u64 % 100) + (k % 2),
                charge: 1,
                ..entry.clone()
            })
        })
        .collect();
    measure("scattered sequence numbers", &mut net, &scattered);
    // Dense words: 256 numbers of one channel in each.
    let dense: Vec<_> = (0..2_560u64)
        .map(|k| ChannelEntry {
            keyset: nonce(6_000_000),
            seq: (1 << 63) + k,
            charge: 1,
            ..base[0].clone()
        })
        .collect();
    measure("dense words", &mut net, &dense);
}

#[test]
fn batches_of_channels_are_cut_by_gas() {
    let net = Net::new();
    assert!(channel_tx::chunks(&[]).is_empty());
    assert!(channel_tx::transactions(1, root(1), &[]).is_empty());
    assert_eq!(channel_tx::fitting_prefix(&[], MAX_BLOCK_GAS), 0);
    let alice = channel(&net, "alice", 0, 1);
    let many: Vec<_> = (0..1_200u64)
        .map(|i| {
            let mut entry = entry(0, &alice, i * 256, 1);
            entry.channel.salt = nonce(i);
            entry
        })
        .collect();
    let chunks = channel_tx::chunks(&many);
    assert!(chunks.len() > 1);
    assert_eq!(chunks.iter().map(Vec::len).sum::<usize>(), 1_200);
    let items: Vec<_> = many.iter().cloned().map(BatchItem::Channel).collect();
    let fitting = channel_tx::fitting_prefix(&items, MAX_BLOCK_GAS);
    assert!(fitting < 1_200);
    assert!(channel_tx::batch_gas_bound(&items[..fitting]) <= MAX_BLOCK_GAS);
    assert!(channel_tx::batch_gas_bound(&items[..=fitting]) > MAX_BLOCK_GAS);
    // Half the budget, and a batch of payments alone.
    assert!(channel_tx::fitting_prefix(&items, MAX_BLOCK_GAS / 2) < fitting);
    let payments: Vec<_> = (0..2_500u64)
        .map(|i| BatchItem::Payment(net.entry(0, i, "alice", nonce(i), 5, 5)))
        .collect();
    let fitting = channel_tx::fitting_prefix(&payments, MAX_BLOCK_GAS);
    assert!(channel_tx::batch_gas_bound(&payments[..fitting]) <= MAX_BLOCK_GAS);
    assert!(channel_tx::batch_gas_bound(&payments[..=fitting]) > MAX_BLOCK_GAS);
}
