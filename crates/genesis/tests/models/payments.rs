//! Payments, receipts and credits as plain integers: who must get what under everything that anybody can do.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part of it

use crate::common::{Net, ROYALTY, nonce, pending, who};
use alloy_primitives::{Address, B256, U256};
use opg_contracts::{FeeVault, OPG, PaymentMethod, ReceiptLedger, addresses, system_tx::BatchEntry};
use opg_primitives::money::{Amount, split};
use proptest::prelude::*;
use std::collections::BTreeMap;

const PAYERS: [&str; 3] = ["alice", "bob", "carol"];
const PAYEES: [&str; 7] = ["alice", "bob", "carol", "node-0", "node-1", "creator", "treasury"];

/// One payer's authorization and what became of it.
#[derive(Debug, Clone)]
pub struct Job {
    method: PaymentMethod,
    payer: &'static str,
    amount: u128,
    nonce: B256,
    node: usize,
    entry: Option<BatchEntry>,
    release: u64,
    credited: bool,
    settled: bool,
    refunded: bool,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// A payer signs for a node.
    Pay {
        payer: usize,
        node: usize,
        amount: u128,
    },
    /// The relay of a payment, maybe for the second time.
    Settle {
        job: usize,
    },
    /// Receipts for payments that have none, in one batch.
    Record {
        jobs: Vec<usize>,
        charge: u64,
        mode: u8,
        router: bool,
    },
    /// Credits of whatever is pending.
    CreditSettled {
        jobs: Vec<usize>,
    },
    /// Refund of a payment without receipt, asked for or due.
    Refund {
        job: usize,
    },
    /// Somebody tries to have pending entries forgotten.
    Drop {
        jobs: Vec<usize>,
    },
    Withdraw {
        payee: usize,
        node: usize,
        max: u64,
    },
    Sweep {
        node: usize,
    },
    Wrap {
        payer: usize,
        amount: u64,
    },
    Unwrap {
        payer: usize,
        amount: u64,
    },
    Tick {
        seconds: u64,
    },
}

impl Step {
    /// The same about the newest of many jobs instead of the first forty.
    #[must_use]
    pub fn among_the_last(mut self, jobs: usize) -> Self {
        let shift = jobs.saturating_sub(39);
        match &mut self {
            Self::Settle { job } | Self::Refund { job } => *job += shift,
            Self::Record { jobs, .. } | Self::CreditSettled { jobs } | Self::Drop { jobs } => {
                jobs.iter_mut().for_each(|job| *job += shift);
            }
            _ => {}
        }
        self
    }
}

pub fn step() -> impl Strategy<Value = Step> {
    let jobs = || prop::collection::vec(0usize..40, 1..6);
    prop_oneof![
        4 => (0usize..3, 0usize..2, 0u128..=5_000_000_000).prop_map(|(payer, node, amount)| Step::Pay { payer, node, amount }),
        4 => (0usize..40).prop_map(|job| Step::Settle { job }),
        4 => (jobs(), any::<u64>(), 0u8..4, any::<bool>())
            .prop_map(|(jobs, charge, mode, router)| Step::Record { jobs, charge, mode, router }),
        3 => jobs().prop_map(|jobs| Step::CreditSettled { jobs }),
        2 => (0usize..40).prop_map(|job| Step::Refund { job }),
        1 => jobs().prop_map(|jobs| Step::Drop { jobs }),
        1 => Just(Step::Tick { seconds: 86_400 }),
        3 => (0usize..7, 0usize..2, 0u64..4).prop_map(|(payee, node, max)| Step::Withdraw { payee, node, max }),
        1 => (0usize..2).prop_map(|node| Step::Sweep { node }),
        1 => (0usize..3, any::<u64>()).prop_map(|(payer, amount)| Step::Wrap { payer, amount }),
        1 => (0usize..3, any::<u64>()).prop_map(|(payer, amount)| Step::Unwrap { payer, amount }),
        3 => (1u64..900).prop_map(|seconds| Step::Tick { seconds }),
    ]
}

/// The contracts, and beside them a model of who must get what.
pub struct World {
    pub net: Net,
    pub jobs: Vec<Job>,
    seq: u64,
    /// Owed by the model, by (payee, node); what is paid out is taken off.
    owed: BTreeMap<(Address, usize), u128>,
}

impl World {
    pub fn new() -> Self {
        Self::on(Net::new())
    }

    /// On a network of its own or of others.
    pub fn on(mut net: Net) -> Self {
        for payer in PAYERS {
            net.approve_permit2(payer);
        }
        Self {
            net,
            jobs: Vec::new(),
            seq: 0,
            owed: BTreeMap::new(),
        }
    }

    fn owe(&mut self, job: usize) {
        let job = &mut self.jobs[job];
        job.credited = true;
        let (entry, node) = (job.entry.unwrap(), job.node);
        let s = split(Amount(entry.charge), ROYALTY, entry.router.is_some(), false, true).unwrap();
        let operator = who(if node == 0 { "node-0" } else { "node-1" });
        for (payee, amount) in [
            (operator, s.node.0),
            (who("creator"), s.creator.0),
            (who("treasury"), s.treasury.0),
            (addresses::INSURANCE, s.insurance.0),
            (who("router"), s.router.0),
            (entry.payer, entry.amount - entry.charge),
        ] {
            *self.owed.entry((payee, node)).or_default() += amount;
        }
    }

    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Pay { payer, node, amount } => {
                // Every other job is paid by Permit2, with the nonce that the authorization before it has.
                let index = self.jobs.len();
                let job = Job {
                    method: [
                        PaymentMethod::Erc3009,
                        PaymentMethod::ExactPermit2,
                        PaymentMethod::Erc3009,
                        PaymentMethod::UptoPermit2,
                    ][index % 4],
                    payer: PAYERS[*payer],
                    amount: *amount,
                    nonce: nonce(index as u64 / 2),
                    node: *node,
                    entry: None,
                    release: 0,
                    credited: false,
                    settled: false,
                    refunded: false,
                };
                self.jobs.push(job);
            }
            Step::Settle { job } => {
                let Some(job) = self.jobs.get_mut(*job) else { return };
                let to = self.net.deposit(job.node);
                let paid = self.net.pay(job.method, job.payer, to, job.amount, job.nonce);
                let first = paid.is_ok();
                assert!(!(first && job.settled), "settled twice");
                job.settled |= first;
            }
            Step::Record {
                jobs,
                charge,
                mode,
                router,
            } => self.record(jobs, *charge, *mode, *router),
            Step::CreditSettled { jobs } => self.credit(jobs),
            Step::Refund { job } => self.refund(*job),
            Step::Drop { jobs } => {
                // Nothing here was paid elsewhere or cancelled, so nothing may be dropped.
                let entries = jobs.iter().filter_map(|job| self.jobs.get(*job));
                let entries = entries
                    .filter_map(|job| Some(pending(&job.entry?, job.release)))
                    .collect();
                let call = ReceiptLedger::dropUnpayableCall { entries };
                let dropped = self
                    .net
                    .evm
                    .call(who("anyone"), addresses::RECEIPT_LEDGER, call)
                    .unwrap();
                assert_eq!(dropped, U256::ZERO);
            }
            Step::Withdraw { payee, node, max } => self.withdraw(who(PAYEES[*payee]), *node, *max),
            Step::Sweep { node } => {
                let call = FeeVault::sweepCall {
                    nodeId: self.net.nodes[*node],
                };
                self.net.evm.call(who("anyone"), addresses::FEE_VAULT, call).unwrap();
            }
            Step::Wrap { payer, amount } => {
                let from = who(PAYERS[*payer]);
                let _ = self
                    .net
                    .evm
                    .send(from, addresses::OPG, U256::from(*amount), Default::default());
            }
            Step::Unwrap { payer, amount } => {
                let call = OPG::withdrawCall {
                    amount: U256::from(*amount),
                };
                let _ = self.net.evm.call(who(PAYERS[*payer]), addresses::OPG, call);
            }
            Step::Tick { seconds } => self.net.tick(*seconds),
        }
    }

    fn refund(&mut self, index: usize) {
        let Some(job) = self.jobs.get(index) else { return };
        let (payer, nonce, amount) = (who(job.payer), job.nonce, job.amount);
        let (node, method) = (job.node, job.method.code());
        let request = ReceiptLedger::requestRefundCall {
            nodeId: self.net.nodes[node],
            payer,
            nonce,
            amount,
            method,
        };
        let asked = self
            .net
            .evm
            .call(who("anyone"), addresses::RECEIPT_LEDGER, request)
            .is_ok();
        assert!(!asked || (job.settled && job.entry.is_none()));
        let refund = ReceiptLedger::refundCall {
            nodeId: self.net.nodes[node],
            payer,
            nonce,
            amount,
            method,
        };
        if self
            .net
            .evm
            .call(who("anyone"), addresses::RECEIPT_LEDGER, refund)
            .is_ok()
        {
            let job = &mut self.jobs[index];
            assert!(job.settled && !job.refunded && job.entry.is_none());
            job.refunded = true;
            *self.owed.entry((payer, node)).or_default() += amount;
        }
    }

    fn record(&mut self, jobs: &[usize], charge: u64, mode: u8, router: bool) {
        let mut chosen: Vec<usize> = jobs
            .iter()
            .copied()
            .filter(|job| self.jobs.get(*job).is_some_and(|j| j.entry.is_none() && !j.refunded))
            .collect();
        chosen.sort_unstable();
        chosen.dedup();
        if chosen.is_empty() {
            return;
        }
        let windows = [600, 600, 0, 700];
        let mut batch = Vec::new();
        for job in &chosen {
            let job = &mut self.jobs[*job];
            let amount = job.amount;
            let charge = match job.method {
                PaymentMethod::UptoPermit2 => amount,
                _ => u128::from(charge).min(amount),
            };
            let entry = self.net.entry(job.node, self.seq, job.payer, job.nonce, amount, charge);
            let entry = BatchEntry {
                method: job.method,
                mode,
                router: router.then(|| who("router")),
                ..entry
            };
            self.seq += 1;
            job.entry = Some(entry);
            job.release = self.net.evm.timestamp() + windows[usize::from(mode)];
            batch.push(entry);
        }
        self.net.record(&batch).unwrap();
        for job in chosen {
            if self.jobs[job].settled {
                self.owe(job);
            }
        }
    }

    fn credit(&mut self, jobs: &[usize]) {
        let chosen: Vec<usize> = jobs
            .iter()
            .copied()
            .filter(|job| self.jobs.get(*job).is_some_and(|j| j.entry.is_some()))
            .collect();
        let entries = chosen
            .iter()
            .map(|job| pending(&self.jobs[*job].entry.unwrap(), self.jobs[*job].release));
        let entries = entries.collect();
        let mut expected = Vec::new();
        for job in chosen {
            if self.jobs[job].settled && !self.jobs[job].credited && !expected.contains(&job) {
                expected.push(job);
            }
        }
        assert_eq!(self.net.credit_settled(entries), expected.len() as u64);
        for job in expected {
            self.owe(job);
        }
    }

    fn withdraw(&mut self, payee: Address, node: usize, max: u64) {
        let can = self.net.withdrawable(payee, node);
        let before = self.net.opg(payee);
        let paid = self.net.withdraw(payee, node, max).unwrap();
        assert!(paid <= can, "paid {paid} of {can}");
        assert_eq!(self.net.opg(payee), before + paid);
        let owed = self.owed.entry((payee, node)).or_default();
        *owed = owed.checked_sub(paid).expect("paid more than owed");
    }

    pub fn check(&mut self) {
        let mut holders: Vec<Address> = PAYEES.map(who).into();
        holders.extend([who("ecosystem"), who("router")]);
        self.net.assert_conserved(&holders);
        self.check_owed();
    }

    /// Every credit is what the model says.
    pub fn check_owed(&mut self) {
        for ((payee, node), owed) in self.owed.clone() {
            assert_eq!(self.net.credited(payee, node), owed);
        }
    }

    /// Everything is paid out in the end, and what stays is what nobody may take.
    pub fn finish(&mut self) {
        self.pay_out();
        self.check();
        self.check_rest();
    }

    /// Everything that is owed is paid.
    pub fn pay_out(&mut self) {
        let all: Vec<usize> = (0..self.jobs.len()).collect();
        self.credit(&all);
        self.net.tick(10_000);
        for (payee, node) in self.owed.keys().copied().collect::<Vec<_>>() {
            if payee != addresses::INSURANCE {
                self.withdraw(payee, node, u64::MAX);
                assert_eq!(self.owed[&(payee, node)], 0);
            }
        }
    }

    /// What the vault still holds for nodes is what nobody may take.
    pub fn check_rest(&mut self) {
        for node in 0..2 {
            let call = FeeVault::sweepCall {
                nodeId: self.net.nodes[node],
            };
            self.net.evm.call(who("anyone"), addresses::FEE_VAULT, call).unwrap();
            let unclaimed: u128 = self
                .jobs
                .iter()
                .filter(|job| job.node == node && job.settled && !job.credited && !job.refunded)
                .map(|job| job.amount)
                .sum();
            let insured = self.net.credited(addresses::INSURANCE, node);
            let held = opg_contracts::state::vault_balance(&self.net.evm, self.net.nodes[node])
                .unwrap()
                .0;
            assert_eq!(held, unclaimed + insured, "node {node}");
        }
    }
}
