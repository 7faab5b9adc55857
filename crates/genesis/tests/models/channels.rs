//! Channels, receipts that they pay for, and refunds as plain integers: every call succeeds or fails as the model says.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part of it

use crate::common::{
    MODEL, Net, ROYALTY, root, who,
    x402::{Channel, DELAY},
};
use alloy_primitives::{Address, Bytes, U256};
use opg_contracts::{
    ReceiptLedger::{self, ChannelTerms},
    addresses,
    bindings::receipt_ledger,
    channel_tx::{self, BatchItem, ChannelEntry},
    system_tx, x402,
};
use proptest::prelude::*;

/// Payer and receiver of each channel; receivers 0 and 1 are nodes, 2 is an account.
const CHANNELS: [(&str, usize); 5] = [("alice", 0), ("alice", 1), ("bob", 0), ("carol", 2), ("carol", 2)];
pub const PAYERS: [&str; 3] = ["alice", "bob", "carol"];

#[derive(Debug, Clone)]
pub enum Step {
    Deposit {
        channel: usize,
        amount: u64,
        permit2: bool,
    },
    /// Rows of one receiver or of several; `forged` takes somebody else's signature for the first.
    Claim {
        rows: Vec<(usize, u64, u64)>,
        signed: bool,
        forged: bool,
    },
    Settle {
        receiver: usize,
    },
    Initiate {
        channel: usize,
        amount: u64,
        thief: bool,
    },
    Finalize {
        channel: usize,
    },
    Refund {
        channel: usize,
        amount: u64,
        signed: bool,
        nonce_error: u64,
    },
    Record {
        channel: usize,
        charge: u64,
        mode: u8,
    },
    Credit {
        channel: usize,
        mode: u8,
    },
    /// Somebody asks for what was claimed beyond all receipts, or has it credited.
    AskBack {
        channel: usize,
    },
    GiveBack {
        channel: usize,
    },
    Withdraw {
        payee: usize,
        node: usize,
    },
    Tick {
        seconds: u64,
    },
}

pub fn step() -> impl Strategy<Value = Step> {
    let channel = || 0usize..CHANNELS.len();
    let amount = || 0u64..3_000;
    prop_oneof![
        4 => (channel(), amount(), any::<bool>())
            .prop_map(|(channel, amount, permit2)| Step::Deposit { channel, amount, permit2 }),
        5 => (prop::collection::vec((channel(), amount(), amount()), 1..4), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(rows, signed, forged)| Step::Claim { rows, signed, forged }),
        2 => (0usize..3).prop_map(|receiver| Step::Settle { receiver }),
        2 => (channel(), amount(), prop::bool::weighted(0.1))
            .prop_map(|(channel, amount, thief)| Step::Initiate { channel, amount, thief }),
        3 => channel().prop_map(|channel| Step::Finalize { channel }),
        2 => (channel(), amount(), any::<bool>(), prop_oneof![4 => Just(0u64), 1 => Just(1)])
            .prop_map(|(channel, amount, signed, nonce_error)| Step::Refund { channel, amount, signed, nonce_error }),
        3 => (0usize..3, amount(), 0u8..4).prop_map(|(channel, charge, mode)| Step::Record { channel, charge, mode }),
        4 => (0usize..3, 0u8..4).prop_map(|(channel, mode)| Step::Credit { channel, mode }),
        2 => (0usize..3).prop_map(|channel| Step::AskBack { channel }),
        2 => (0usize..3).prop_map(|channel| Step::GiveBack { channel }),
        2 => (0usize..4, 0usize..2).prop_map(|(payee, node)| Step::Withdraw { payee, node }),
        3 => prop_oneof![Just(DELAY / 2), Just(DELAY), Just(86_400), 1u64..900].prop_map(|seconds| Step::Tick { seconds }),
    ]
}

#[derive(Debug, Clone, Default)]
struct Model {
    balance: u128,
    claimed: u128,
    exit: Option<(u128, u64)>,
    refund_nonce: u64,
    recorded: u128,
    credited: u128,
    pending: [u128; 4],
    asked: Option<(u128, u64)>,
}

/// The configuration as the ledger's binding names it.
fn ledger_config(channel: &Channel) -> receipt_ledger::BatchSettlement::ChannelConfig {
    let c = channel.config.clone();
    receipt_ledger::BatchSettlement::ChannelConfig {
        payer: c.payer,
        payerAuthorizer: c.payerAuthorizer,
        receiver: c.receiver,
        receiverAuthorizer: c.receiverAuthorizer,
        token: c.token,
        withdrawDelay: c.withdrawDelay,
        salt: c.salt,
    }
}

pub struct World {
    pub net: Net,
    /// The nodes are this one and the next.
    first: usize,
    channels: Vec<Channel>,
    model: Vec<Model>,
    /// (claimed, settled) of each receiver.
    receivers: [(u128, u128); 3],
    /// What each payer has.
    pub payers: [u128; 3],
    salt: u64,
    seq: u64,
}

impl World {
    pub fn new() -> Self {
        Self::on(Net::new(), 0)
    }

    /// On a network of its own or of others, with two of its nodes.
    pub fn on(mut net: Net, first: usize) -> Self {
        let mut channels = Vec::new();
        for (salt, (payer, receiver)) in (0..).zip(CHANNELS) {
            let to = if receiver == 2 {
                who("payee")
            } else {
                net.deposit(first + receiver)
            };
            channels.push(Channel::new(payer, to, salt));
        }
        // The last one has a delegate for its vouchers.
        channels[4].signer = "delegate".into();
        channels[4].config.payerAuthorizer = who("delegate");
        for payer in PAYERS {
            net.approve_permit2(payer);
        }
        let payers = PAYERS.map(|payer| net.opg(who(payer)));
        Self {
            net,
            first,
            model: vec![Model::default(); channels.len()],
            channels,
            receivers: [(0, 0); 3],
            payers,
            salt: 0,
            seq: 0,
        }
    }

    fn payer(&mut self, channel: usize) -> &mut u128 {
        let index = PAYERS.iter().position(|payer| *payer == CHANNELS[channel].0).unwrap();
        &mut self.payers[index]
    }

    fn receiver(&self, index: usize) -> Address {
        if index == 2 {
            who("payee")
        } else {
            self.net.deposit(self.first + index)
        }
    }

    fn claim(&mut self, rows: &[(usize, u64, u64)], signed: bool, forged: bool) {
        let mut calls: Vec<_> = rows
            .iter()
            .map(|(channel, max, total)| self.channels[*channel].row(u128::from(*max), u128::from(*total)))
            .collect();
        if forged {
            calls[0].signature = calls[0].signature.iter().rev().copied().collect::<Vec<_>>().into();
        }
        let mut next = (self.model.clone(), self.receivers);
        let mut good = true;
        for (i, (channel, max, total)) in rows.iter().enumerate() {
            let (max, total) = (u128::from(*max), u128::from(*total));
            let state = &mut next.0[*channel];
            if total <= state.claimed {
                continue;
            }
            if total > max || total > state.balance || (forged && i == 0) {
                good = false;
                break;
            }
            next.1[CHANNELS[*channel].1].0 += total - state.claimed;
            state.claimed = total;
        }
        let result = if signed {
            self.net.claim_signed("settlement-0", calls)
        } else {
            self.net.claim(who("settlement-0"), calls)
        };
        assert_eq!(result.is_ok(), good, "{rows:?} {result:?}");
        if good {
            (self.model, self.receivers) = next;
        }
    }

    fn take_back(&mut self, channel: usize, amount: u128) {
        self.model[channel].balance -= amount;
        *self.payer(channel) += amount;
    }

    fn refund(&mut self, index: usize, amount: u128, signed: bool, nonce_error: u64) {
        let channel = self.channels[index].clone();
        let nonce = self.model[index].refund_nonce + nonce_error;
        let (result, good) = if signed {
            let signature = channel.refund_signature(nonce, amount);
            let result = self.net.refund_signed(&channel, amount, nonce, signature);
            (result, nonce_error == 0 && amount > 0)
        } else {
            (self.net.refund(who("settlement-0"), &channel, amount), amount > 0)
        };
        assert_eq!(result.is_ok(), good, "{result:?}");
        if !good {
            return;
        }
        let model = &mut self.model[index];
        model.refund_nonce += 1;
        let paid = amount.min(model.balance - model.claimed);
        if let Some((announced, at)) = model.exit
            && paid > 0
        {
            model.exit = (paid < announced).then(|| (announced - paid, at));
        }
        self.take_back(index, paid);
    }

    fn terms(&self, index: usize, mode: u8) -> ChannelTerms {
        ChannelTerms {
            channelId: self.channels[index].id(),
            nodeId: self.net.nodes[self.first + CHANNELS[index].1],
            modelRoot: MODEL,
            creator: who("creator"),
            royaltyBps: ROYALTY,
            mode,
            router: Address::ZERO,
        }
    }

    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Deposit {
                channel,
                amount,
                permit2,
            } => {
                self.salt += 1;
                let (amount, c) = (u128::from(*amount), self.channels[*channel].clone());
                let how = if *permit2 {
                    c.by_permit2(amount, self.salt, Bytes::new())
                } else {
                    c.by_3009(amount, self.salt)
                };
                let result = self.net.deposit_with(&c, amount, how.clone());
                let good = amount > 0 && amount <= *self.payer(*channel);
                assert_eq!(result.is_ok(), good, "{result:?}");
                assert!(
                    self.net.deposit_with(&c, amount, how).is_err(),
                    "a deposit is signed for once"
                );
                if !good {
                    return;
                }
                self.model[*channel].balance += amount;
                *self.payer(*channel) -= amount;
            }
            Step::Claim { rows, signed, forged } => self.claim(rows, *signed, *forged),
            Step::Settle { receiver } => {
                let to = self.receiver(*receiver);
                self.net.settle_receiver(to, addresses::OPG).unwrap();
                self.receivers[*receiver].1 = self.receivers[*receiver].0;
            }
            Step::Initiate { channel, amount, thief } => {
                let (amount, c) = (u128::from(*amount), self.channels[*channel].clone());
                let model = &mut self.model[*channel];
                let good = !thief && amount > 0 && model.exit.is_none() && amount <= model.balance - model.claimed;
                let from = if *thief { who("thief") } else { c.config.payer };
                let result = self.net.initiate(from, &c, amount);
                assert_eq!(result.is_ok(), good, "{result:?}");
                if good {
                    model.exit = Some((amount, self.net.evm.timestamp()));
                }
            }
            Step::Finalize { channel } => {
                let c = self.channels[*channel].clone();
                let now = self.net.evm.timestamp();
                let model = &mut self.model[*channel];
                let due = model.exit.filter(|(_, at)| now >= at + DELAY);
                let result = self.net.finalize(c.config.payerAuthorizer, &c);
                assert_eq!(result.is_ok(), due.is_some(), "{result:?}");
                if let Some((announced, _)) = due {
                    model.exit = None;
                    let paid = announced.min(model.balance - model.claimed);
                    self.take_back(*channel, paid);
                }
            }
            Step::Refund {
                channel,
                amount,
                signed,
                nonce_error,
            } => self.refund(*channel, u128::from(*amount), *signed, *nonce_error),
            Step::Record { channel, charge, mode } => self.record(*channel, u128::from(*charge), *mode),
            Step::Credit { channel, mode } => {
                let terms = vec![self.terms(*channel, *mode)];
                let call = ReceiptLedger::creditChannelsCall { terms };
                let credited: u128 = self
                    .net
                    .evm
                    .call(who("anyone"), addresses::RECEIPT_LEDGER, call)
                    .unwrap()
                    .to();
                let node = CHANNELS[*channel].1;
                self.receivers[node].1 = self.receivers[node].0;
                let model = &mut self.model[*channel];
                let pending = &mut model.pending[usize::from(*mode)];
                assert_eq!(credited, (*pending).min(model.claimed - model.credited));
                *pending -= credited;
                model.credited += credited;
            }
            Step::AskBack { channel } => {
                let call = ReceiptLedger::requestChannelRefundCall {
                    nodeId: self.net.nodes[self.first + CHANNELS[*channel].1],
                    channel: ledger_config(&self.channels[*channel]),
                };
                let result = self.net.evm.call(who("anyone"), addresses::RECEIPT_LEDGER, call);
                let model = &mut self.model[*channel];
                let good = model.asked.is_none() && model.claimed > model.recorded;
                assert_eq!(result.is_ok(), good);
                if good {
                    model.asked = Some((model.claimed, self.net.evm.timestamp() + 86_400));
                }
            }
            Step::GiveBack { channel } => {
                let node = CHANNELS[*channel].1;
                let call = ReceiptLedger::refundChannelCall {
                    nodeId: self.net.nodes[self.first + node],
                    channel: ledger_config(&self.channels[*channel]),
                };
                let result = self.net.evm.call(who("anyone"), addresses::RECEIPT_LEDGER, call);
                let now = self.net.evm.timestamp();
                let model = &mut self.model[*channel];
                let due = model.asked.filter(|(_, due)| now >= *due);
                assert_eq!(result.is_ok(), due.is_some());
                if let Some((claimed, _)) = due {
                    model.asked = None;
                    let amount = claimed.saturating_sub(model.recorded);
                    assert_eq!(result.unwrap(), amount);
                    model.recorded += amount;
                    model.credited += amount;
                    if amount > 0 {
                        self.receivers[node].1 = self.receivers[node].0;
                    }
                }
            }
            Step::Withdraw { payee, node } => {
                let payee = match payee {
                    0 | 1 => who(&format!("node-{}", self.first + payee)),
                    2 => who("creator"),
                    _ => who("treasury"),
                };
                let before = self.net.opg(payee);
                let paid = self.net.withdraw(payee, self.first + *node, 3).unwrap();
                assert_eq!(self.net.opg(payee), before + paid);
            }
            Step::Tick { seconds } => self.net.tick(*seconds),
        }
    }

    fn record(&mut self, index: usize, charge: u128, mode: u8) {
        let node = CHANNELS[index].1;
        let entry = ChannelEntry {
            node_id: self.net.nodes[self.first + node],
            keyset: self.net.keysets[self.first + node],
            model_root: MODEL,
            royalty_bps: ROYALTY,
            mode,
            router: None,
            channel: self.channels[index].config.clone(),
            seq: self.seq,
            charge,
        };
        self.seq += 1;
        self.net.height += 1;
        let (height, root) = (self.net.height, root(self.net.height));
        for data in channel_tx::transactions(height, root, &[BatchItem::Channel(entry)]) {
            let gas = system_tx::GAS_LIMIT;
            self.net
                .evm
                .send_with_gas(self.net.proposer, addresses::RECEIPT_LEDGER, U256::ZERO, data, gas)
                .unwrap();
        }
        self.model[index].recorded += charge;
        self.model[index].pending[usize::from(mode)] += charge;
    }

    /// The contracts are where the model is.
    pub fn check(&mut self) {
        self.check_model();
        self.check_conserved();
    }

    /// Every channel, receiver and payer is as the model says.
    pub fn check_model(&mut self) {
        let mut held = 0;
        for (channel, model) in self.channels.iter().zip(&self.model) {
            let id = channel.id();
            let state = x402::read_channel(&self.net.evm, id).unwrap();
            assert_eq!((state.balance, state.total_claimed), (model.balance, model.claimed));
            let exit = x402::read_exit(&self.net.evm, id).unwrap();
            assert_eq!(exit.initiated_at, model.exit.map(|(_, at)| at));
            assert_eq!(exit.amount, model.exit.map_or(0, |(amount, _)| amount));
            assert_eq!(exit.refund_nonce, u128::from(model.refund_nonce));
            let call = ReceiptLedger::channelSumsCall { channelId: id };
            let sums = self.net.evm.view(addresses::RECEIPT_LEDGER, call).unwrap();
            assert_eq!((sums.recorded, sums.credited), (model.recorded, model.credited));
            assert!(model.credited <= model.claimed && model.claimed <= model.balance);
            held += model.balance - model.claimed;
        }
        for (index, (claimed, settled)) in self.receivers.into_iter().enumerate() {
            let state = x402::read_receiver(&self.net.evm, self.receiver(index), addresses::OPG).unwrap();
            assert_eq!((state.total_claimed, state.total_settled), (claimed, settled));
            held += claimed - settled;
        }
        assert_eq!(
            self.net.opg(addresses::BATCH_SETTLEMENT),
            held,
            "the contract holds what it owes"
        );
        assert_eq!(self.net.opg(who("payee")), self.receivers[2].1);
        for (payer, amount) in PAYERS.into_iter().zip(self.payers) {
            assert_eq!(self.net.opg(who(payer)), amount, "{payer}");
        }
        for contract in [
            addresses::ERC3009_DEPOSIT_COLLECTOR,
            addresses::PERMIT2_DEPOSIT_COLLECTOR,
        ] {
            assert_eq!(self.net.opg(contract), 0);
        }
    }

    fn check_conserved(&mut self) {
        let mut holders: Vec<_> = [
            "alice",
            "bob",
            "carol",
            "node-0",
            "node-1",
            "ecosystem",
            "creator",
            "treasury",
            "payee",
        ]
        .map(who)
        .into();
        holders.push(addresses::BATCH_SETTLEMENT);
        self.net.assert_conserved(&holders);
    }

    /// Everybody goes home: each channel is empty, and each wei is with whom it belongs.
    pub fn wind_up(&mut self) {
        self.go_home();
        self.check();
    }

    /// Empties every channel.
    pub fn go_home(&mut self) {
        for index in 0..self.channels.len() {
            self.net.tick(DELAY);
            self.apply(&Step::Finalize { channel: index });
            let left = self.model[index].balance - self.model[index].claimed;
            if left > 0 {
                self.apply(&Step::Initiate {
                    channel: index,
                    amount: left.try_into().unwrap(),
                    thief: false,
                });
                self.net.tick(DELAY);
                self.apply(&Step::Finalize { channel: index });
            }
        }
        for receiver in 0..3 {
            self.apply(&Step::Settle { receiver });
        }
        self.check_model();
        assert_eq!(self.net.opg(addresses::BATCH_SETTLEMENT), 0);
    }
}
