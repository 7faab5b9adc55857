//! Governance: votes, timelock, guardian, and everything that they may change.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, Uint, keccak256};
use alloy_sol_types::{SolCall, SolEvent, sol};
use common::{CHARGE, Net, START, assert_reverts, file, who};
use opg_contracts::{
    ChainParameters, EvidenceRegistry, EvidenceSetup, FeatureTiers, GenesisFile, Governance, Governor, Guardian, OPG,
    Parameters, PriceOracle, ReceiptLedger, Timelock, Treasury, addresses,
    genesis_file::SUPPLY,
    governance::{BlockRules, LedgerRules, block_rules, ledger_rules},
};
use opg_genesis::evm::{CallError, Executed};
use opg_primitives::money::{Amount, WEI_PER_OPG};

sol!(
    #[derive(Debug)]
    TestStaking,
    "../../contracts/artifacts/TestStaking.json"
);

const DELAY: u64 = 10;
const PERIOD: u64 = 100;
const TIMELOCK: u64 = 50;
const GUARDIAN_TERM: u64 = 100_000;
const DEFEATED: u8 = 3;
const SUCCEEDED: u8 = 4;
const QUEUED: u8 = 5;
const EXECUTED: u8 = 7;
const CANCELED: u8 = 2;

fn governed_file() -> GenesisFile {
    let mut file = file();
    file.parameters = Parameters {
        treasury: addresses::TREASURY,
        // Longer than the longest escrow window.
        unbonding: 91 * 86_400,
        governance: Some(Governance {
            voting_delay: DELAY,
            voting_period: PERIOD,
            proposal_threshold: Amount(1_000 * WEI_PER_OPG),
            quorum_bps: 400,
            timelock_delay: TIMELOCK,
            guardian: Some(Guardian {
                account: who("guardian"),
                until: START + GUARDIAN_TERM,
            }),
        }),
        ..file.parameters
    };
    file.evidence = Some(EvidenceSetup {
        owner: addresses::TIMELOCK,
        policy: "{}".into(),
        grace: 60,
        development_roots: vec![],
    });
    file
}

/// A network whose ecosystem fund and Alice vote for themselves.
fn net() -> Net {
    let mut net = Net::of(&governed_file());
    for voter in ["ecosystem", "alice"] {
        delegate(&mut net, voter);
    }
    net.tick(1);
    net
}

/// A call in the name of an account that may be a contract: transactions have no such senders (EIP-3607), so its code steps aside.
fn send_as(net: &mut Net, from: Address, to: Address, data: Vec<u8>) -> Result<Executed, CallError> {
    let code = net.evm.code(from);
    net.evm.set_code(from, Bytes::new());
    let result = net.evm.send(from, to, U256::ZERO, data.into());
    net.evm.set_code(from, code);
    result
}

fn call_as(net: &mut Net, from: Address, to: Address, call: impl SolCall) -> Result<Executed, CallError> {
    send_as(net, from, to, call.abi_encode())
}

fn delegate(net: &mut Net, voter: &str) {
    let call = OPG::delegateCall { delegatee: who(voter) };
    net.evm.call(who(voter), addresses::OPG, call).unwrap();
}

/// An operation of one call.
#[derive(Clone)]
struct Operation {
    target: Address,
    data: Bytes,
    governor: Address,
    timelock: Address,
}

fn operation(target: Address, call: impl SolCall) -> Operation {
    Operation {
        target,
        data: call.abi_encode().into(),
        governor: addresses::GOVERNOR,
        timelock: addresses::TIMELOCK,
    }
}

impl Operation {
    fn description(&self) -> String {
        format!("change {}", keccak256(&self.data))
    }

    fn lists(&self) -> (Vec<Address>, Vec<U256>, Vec<Bytes>, B256) {
        let hash = keccak256(self.description());
        (vec![self.target], vec![U256::ZERO], vec![self.data.clone()], hash)
    }

    fn propose(&self, net: &mut Net, proposer: &str) -> Result<U256, CallError> {
        let (targets, values, calldatas, _) = self.lists();
        let description = self.description();
        let call = Governor::proposeCall {
            targets,
            values,
            calldatas,
            description,
        };
        net.evm.call(who(proposer), self.governor, call)
    }

    fn vote(&self, net: &mut Net, id: U256, voter: &str, support: u8) -> Result<U256, CallError> {
        let call = Governor::castVoteCall {
            proposalId: id,
            support,
        };
        net.evm.call(who(voter), self.governor, call)
    }

    fn queue(&self, net: &mut Net) -> Result<U256, CallError> {
        let (targets, values, calldatas, hash) = self.lists();
        let call = Governor::queueCall {
            targets,
            values,
            calldatas,
            descriptionHash: hash,
        };
        net.evm.call(who("anyone"), self.governor, call)
    }

    fn execute(&self, net: &mut Net) -> Result<U256, CallError> {
        let (targets, values, calldatas, hash) = self.lists();
        let call = Governor::executeCall {
            targets,
            values,
            calldatas,
            descriptionHash: hash,
        };
        net.evm.call(who("anyone"), self.governor, call)
    }

    fn state(&self, net: &mut Net, id: U256) -> u8 {
        net.evm
            .view(self.governor, Governor::stateCall { proposalId: id })
            .unwrap()
    }

    /// Identity of the queued operation in the timelock.
    fn timelock_id(&self, net: &mut Net) -> B256 {
        let (targets, values, payloads, hash) = self.lists();
        let mut governor = [0u8; 32];
        governor[..20].copy_from_slice(self.governor.as_slice());
        let call = Timelock::hashOperationBatchCall {
            targets,
            values,
            payloads,
            predecessor: B256::ZERO,
            salt: B256::from(governor) ^ hash,
        };
        net.evm.view(self.timelock, call).unwrap()
    }

    /// Through the whole procedure up to the queue.
    fn pass(&self, net: &mut Net) -> U256 {
        let id = self.propose(net, "ecosystem").unwrap();
        net.tick(DELAY + 1);
        self.vote(net, id, "ecosystem", 1).unwrap();
        net.tick(PERIOD);
        assert_eq!(self.state(net, id), SUCCEEDED);
        self.queue(net).unwrap();
        id
    }

    fn carry_out(&self, net: &mut Net) {
        let id = self.pass(net);
        net.tick(TIMELOCK);
        self.execute(net).unwrap();
        assert_eq!(self.state(net, id), EXECUTED);
    }
}

fn windows(values: [u64; 4]) -> ReceiptLedger::setWindowsCall {
    ReceiptLedger::setWindowsCall {
        windows: values.map(Uint::<40, 1>::from),
    }
}

#[test]
fn a_change_takes_a_vote_and_its_delays() {
    let mut net = net();
    let op = operation(addresses::RECEIPT_LEDGER, windows([1, 2, 3, 4]));
    let id = op.propose(&mut net, "ecosystem").unwrap();
    // Voting begins after its delay, and ends.
    assert!(op.vote(&mut net, id, "ecosystem", 1).is_err());
    net.tick(DELAY + 1);
    let weight = op.vote(&mut net, id, "ecosystem", 1).unwrap();
    assert!(weight > U256::from(SUPPLY / 2));
    assert!(op.vote(&mut net, id, "ecosystem", 1).is_err(), "one vote each");
    assert!(op.queue(&mut net).is_err(), "the vote is not over");
    net.tick(PERIOD);
    assert!(op.execute(&mut net).is_err(), "not queued");
    op.queue(&mut net).unwrap();
    assert_eq!(op.state(&mut net, id), QUEUED);
    net.tick(TIMELOCK - 1);
    assert!(op.execute(&mut net).is_err(), "one second early");
    assert_eq!(ledger_rules(&net.evm).unwrap().windows, [600, 600, 0, 700]);
    net.tick(1);
    op.execute(&mut net).unwrap();
    assert_eq!(ledger_rules(&net.evm).unwrap().windows, [1, 2, 3, 4]);
    assert!(op.execute(&mut net).is_err(), "once");
    assert_eq!(op.state(&mut net, id), EXECUTED);
}

/// A node's bond is gone after its unbonding: no credit may still wait then.
#[test]
fn escrow_windows_end_before_bonds_are_withdrawn() {
    let mut file = governed_file();
    let unbonding = 1_000;
    file.parameters.unbonding = unbonding;
    let mut net = Net::of(&file);
    let ledger = addresses::RECEIPT_LEDGER;
    let refused = call_as(&mut net, addresses::TIMELOCK, ledger, windows([1, 2, unbonding, 4]));
    assert_reverts::<ReceiptLedger::InvalidWindow, _>(refused);
    call_as(&mut net, addresses::TIMELOCK, ledger, windows([1, 2, unbonding - 1, 4])).unwrap();
    assert_eq!(ledger_rules(&net.evm).unwrap().windows, [1, 2, unbonding - 1, 4]);
}

#[test]
fn votes_are_counted_as_of_the_beginning() {
    let mut net = net();
    let op = operation(addresses::RECEIPT_LEDGER, windows([9, 9, 9, 9]));
    assert!(
        op.propose(&mut net, "bob").is_err(),
        "Bob has not delegated, so he has no votes"
    );
    let id = op.propose(&mut net, "alice").unwrap();
    net.tick(DELAY + 1);
    // Alice votes and sends her OPG to Bob, who can do nothing with it in this vote.
    assert_eq!(
        op.vote(&mut net, id, "alice", 1).unwrap(),
        U256::from(100_000 * WEI_PER_OPG)
    );
    let transfer = OPG::transferCall {
        to: who("bob"),
        value: U256::from(100_000 * WEI_PER_OPG),
    };
    net.evm.call(who("alice"), addresses::OPG, transfer).unwrap();
    delegate(&mut net, "bob");
    assert_eq!(op.vote(&mut net, id, "bob", 1).unwrap(), U256::ZERO);
    net.tick(PERIOD);
    // 100,000 OPG for it and nobody against, but the quorum is 4 % of what is wrapped.
    assert_eq!(op.state(&mut net, id), DEFEATED);
    assert!(op.queue(&mut net).is_err());
}

#[test]
fn quorum_is_a_part_of_wrapped_opg() {
    let mut net = net();
    let before = net.evm.timestamp() - 1;
    let supply = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
    let call = Governor::quorumCall {
        timepoint: U256::from(before),
    };
    assert_eq!(
        net.evm.view(addresses::GOVERNOR, call).unwrap(),
        supply * U256::from(400) / U256::from(10_000)
    );
    // Enough votes, but more against.
    let op = operation(addresses::RECEIPT_LEDGER, windows([9, 9, 9, 9]));
    let id = op.propose(&mut net, "alice").unwrap();
    net.tick(DELAY + 1);
    op.vote(&mut net, id, "alice", 1).unwrap();
    op.vote(&mut net, id, "ecosystem", 0).unwrap();
    net.tick(PERIOD);
    assert_eq!(op.state(&mut net, id), DEFEATED);
}

#[test]
fn the_guardian_can_cancel_and_nothing_else() {
    let mut net = net();
    let op = operation(addresses::RECEIPT_LEDGER, windows([9, 9, 9, 9]));
    let id = op.pass(&mut net);
    let timelock_id = op.timelock_id(&mut net);
    let cancel = Timelock::cancelCall { id: timelock_id };
    for other in ["alice", "ecosystem", "system-0", "operator-0"] {
        let result = net.evm.call(who(other), addresses::TIMELOCK, cancel.clone());
        assert_reverts::<Timelock::AccessControlUnauthorizedAccount, _>(result);
    }
    let schedule = Timelock::scheduleCall {
        target: addresses::TREASURY,
        value: U256::ZERO,
        data: Bytes::new(),
        predecessor: B256::ZERO,
        salt: B256::ZERO,
        delay: U256::from(TIMELOCK),
    };
    for other in ["guardian", "ecosystem"] {
        let result = net.evm.call(who(other), addresses::TIMELOCK, schedule.clone());
        assert_reverts::<Timelock::AccessControlUnauthorizedAccount, _>(result);
    }
    net.evm.call(who("guardian"), addresses::TIMELOCK, cancel).unwrap();
    assert_eq!(op.state(&mut net, id), CANCELED);
    net.tick(TIMELOCK);
    assert!(op.execute(&mut net).is_err());
    assert_eq!(ledger_rules(&net.evm).unwrap().windows, [600, 600, 0, 700]);
}

#[test]
fn the_guardian_s_term_ends() {
    let mut net = net();
    let op = operation(addresses::RECEIPT_LEDGER, windows([9, 9, 9, 9]));
    // Even a grant of governance cannot prolong it.
    let role = net
        .evm
        .view(addresses::TIMELOCK, Timelock::CANCELLER_ROLECall {})
        .unwrap();
    let grant = Timelock::grantRoleCall {
        role,
        account: who("guardian"),
    };
    operation(addresses::TIMELOCK, grant).carry_out(&mut net);
    let now = net.evm.timestamp();
    net.tick(START + GUARDIAN_TERM - now - DELAY - PERIOD - 2);
    op.pass(&mut net);
    let cancel = Timelock::cancelCall {
        id: op.timelock_id(&mut net),
    };
    let mut last = net.evm.timestamp();
    assert_eq!(last, START + GUARDIAN_TERM - 1, "the last second of the term");
    last += 1;
    net.evm.set_timestamp(last);
    let result = net.evm.call(who("guardian"), addresses::TIMELOCK, cancel);
    assert_reverts::<Timelock::AccessControlUnauthorizedAccount, _>(result);
    net.tick(TIMELOCK);
    op.execute(&mut net).unwrap();
}

#[test]
fn the_timelock_has_no_admin_and_one_proposer() {
    let mut net = net();
    let admin = B256::ZERO;
    let proposer = net
        .evm
        .view(addresses::TIMELOCK, Timelock::PROPOSER_ROLECall {})
        .unwrap();
    let executor = net
        .evm
        .view(addresses::TIMELOCK, Timelock::EXECUTOR_ROLECall {})
        .unwrap();
    let mut has = |role, account| {
        net.evm
            .view(addresses::TIMELOCK, Timelock::hasRoleCall { role, account })
            .unwrap()
    };
    assert!(has(admin, addresses::TIMELOCK));
    assert!(has(proposer, addresses::GOVERNOR));
    assert!(has(executor, Address::ZERO), "anyone may execute");
    for account in ["guardian", "ecosystem", "treasury", "system-0"]
        .map(who)
        .into_iter()
        .chain([Address::ZERO])
    {
        assert!(!has(admin, account) && !has(proposer, account));
    }
    assert!(!has(admin, addresses::GOVERNOR));
    // Roles and delay are changed from within alone.
    let grant = Timelock::grantRoleCall {
        role: proposer,
        account: who("mallory"),
    };
    let result = call_as(&mut net, addresses::GOVERNOR, addresses::TIMELOCK, grant);
    assert_reverts::<Timelock::AccessControlUnauthorizedAccount, _>(result);
    let delay = Timelock::updateDelayCall { newDelay: U256::ZERO };
    let result = call_as(&mut net, addresses::GOVERNOR, addresses::TIMELOCK, delay);
    assert_reverts::<Timelock::TimelockUnauthorizedCaller, _>(result);
}

/// Every governed setter refuses everybody but the timelock, its own governor included.
#[test]
fn setters_are_the_timelock_s_alone() {
    let mut net = net();
    let calls: Vec<(Address, Vec<u8>)> = vec![
        (addresses::RECEIPT_LEDGER, windows([1, 1, 1, 1]).abi_encode()),
        (
            addresses::RECEIPT_LEDGER,
            ReceiptLedger::setWeightsCall { weights: [80, 5, 3, 2] }.abi_encode(),
        ),
        (
            addresses::RECEIPT_LEDGER,
            ReceiptLedger::setClosedWeightsCall {
                weights: [204, 1, 1, 2],
            }
            .abi_encode(),
        ),
        (
            addresses::TREASURY,
            Treasury::spendCall {
                token: addresses::OPG,
                to: who("alice"),
                amount: U256::ZERO,
            }
            .abi_encode(),
        ),
        (
            addresses::TREASURY,
            Treasury::spendNativeCall {
                to: who("alice"),
                amount: U256::ZERO,
            }
            .abi_encode(),
        ),
        (
            addresses::CHAIN_PARAMETERS,
            ChainParameters::scheduleCall {
                gasLimit: 120_000_000,
                verificationBudget: 1_000,
                activation: 100,
            }
            .abi_encode(),
        ),
        (
            addresses::FEATURE_TIERS,
            FeatureTiers::setTiersCall {
                tiers_: opg_contracts::governance::default_tiers(),
            }
            .abi_encode(),
        ),
        (
            addresses::PRICE_ORACLE,
            PriceOracle::setLimitsCall {
                minFeeds_: 3,
                maxAge_: 60,
            }
            .abi_encode(),
        ),
    ];
    for (target, data) in calls {
        for caller in [
            who("ecosystem"),
            who("guardian"),
            who("system-0"),
            who("operator-0"),
            addresses::GOVERNOR,
            addresses::TREASURY,
            Address::ZERO,
        ] {
            if caller == target {
                continue;
            }
            match send_as(&mut net, caller, target, data.clone()) {
                Err(CallError::Revert(error)) => {
                    assert_eq!(
                        error.get(..4),
                        Some(&<Treasury::NotGovernance as alloy_sol_types::SolError>::SELECTOR[..])
                    )
                }
                other => panic!("{target} by {caller}: {other:?}"),
            }
        }
        send_as(&mut net, addresses::TIMELOCK, target, data).unwrap();
    }
}

/// Without governance in the file nobody has these powers: there is no code at their owner.
#[test]
fn without_governance_nothing_changes() {
    let net = Net::new();
    for address in [addresses::GOVERNOR, addresses::TIMELOCK] {
        assert!(net.evm.code(address).is_empty());
    }
    for address in [
        addresses::TREASURY,
        addresses::CHAIN_PARAMETERS,
        addresses::FEATURE_TIERS,
        addresses::PRICE_ORACLE,
    ] {
        assert!(!net.evm.code(address).is_empty());
    }
    // An allocation or a treasury at these addresses would be lost.
    let mut bad = file();
    bad.parameters.treasury = addresses::TREASURY;
    assert!(bad.validate().unwrap_err().to_string().contains("parameters.treasury"));
    let mut bad = governed_file();
    bad.parameters.governance = None;
    bad.parameters.treasury = who("treasury");
    assert!(bad.validate().unwrap_err().to_string().contains("evidence.owner"));
}

#[test]
fn periods_of_the_file_are_bounded() {
    type Edit = fn(&mut Governance);
    let edits: [(&str, Edit); 6] = [
        ("voting_period", |g| g.voting_period = 0),
        ("voting_delay", |g| g.voting_delay = 91 * 86_400),
        ("timelock_delay", |g| g.timelock_delay = 91 * 86_400),
        ("quorum_bps", |g| g.quorum_bps = 0),
        ("quorum_bps", |g| g.quorum_bps = 10_001),
        ("proposal_threshold", |g| g.proposal_threshold = Amount(SUPPLY + 1)),
    ];
    for (field, edit) in edits {
        let mut bad = governed_file();
        edit(bad.parameters.governance.as_mut().unwrap());
        let error = bad.validate().unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    for (account, until) in [
        (who("guardian"), START - 1),
        (who("guardian"), START + 3 * 365 * 86_400 + 1),
        (addresses::OPG, START + 1),
    ] {
        let mut bad = governed_file();
        bad.parameters.governance.as_mut().unwrap().guardian = Some(Guardian { account, until });
        assert!(bad.validate().unwrap_err().to_string().contains("guardian"));
    }
    let parsed = GenesisFile::parse(governed_file().to_json().as_bytes()).unwrap();
    assert_eq!(parsed, governed_file());
}

#[test]
fn governance_owns_the_evidence_policy() {
    let mut net = net();
    let owner = net
        .evm
        .view(addresses::EVIDENCE_REGISTRY, EvidenceRegistry::ownerCall {})
        .unwrap();
    assert_eq!(owner, addresses::TIMELOCK);
    let set = EvidenceRegistry::setPolicyCall {
        policy_: Bytes::from_static(b"{\"a\":1}"),
    };
    let result = net
        .evm
        .call(who("ecosystem"), addresses::EVIDENCE_REGISTRY, set.clone());
    assert_reverts::<EvidenceRegistry::NotOwner, _>(result);
    operation(addresses::EVIDENCE_REGISTRY, set).carry_out(&mut net);
    assert_eq!(opg_contracts::evidence::policy(&net.evm).unwrap(), b"{\"a\":1}");
}

/// Weights change what is credited from then on; sums stay exact, and the treasury's part goes to the contract.
#[test]
fn weights_of_the_split_are_governed_within_bounds() {
    let mut net = net();
    net.paid_and_recorded(1, CHARGE, CHARGE);
    let treasury = net.credited(addresses::TREASURY, 0);
    assert_eq!(treasury, CHARGE * 9 / 10 * 3 / 90);
    operation(
        addresses::RECEIPT_LEDGER,
        ReceiptLedger::setWeightsCall {
            weights: [6_000, 1_000, 2_000, 1_000],
        },
    )
    .carry_out(&mut net);
    assert_eq!(
        ledger_rules(&net.evm).unwrap(),
        LedgerRules {
            windows: [600, 600, 0, 700],
            weights: [6_000, 1_000, 2_000, 1_000],
            closed_weights: [204, 1, 1, 2],
        }
    );
    net.paid_and_recorded(2, CHARGE, CHARGE);
    assert_eq!(
        net.credited(addresses::TREASURY, 0) - treasury,
        (CHARGE - CHARGE / 10) * 2_000 / 10_000
    );
    // Every split is exact, at every bound.
    for weights in [
        [80u16, 5, 3, 2],
        [6_000, 2_000, 2_000, 0],
        [1, 0, 0, 0],
        [9_998, 1, 1, 0],
        [61, 13, 13, 13],
    ] {
        let set = ReceiptLedger::setWeightsCall { weights };
        call_as(&mut net, addresses::TIMELOCK, addresses::RECEIPT_LEDGER, set).unwrap();
        for charge in [0u128, 1, 7, 89, 91, CHARGE, SUPPLY, u128::MAX] {
            for (royalty, router) in [(0, false), (3_000, true), (10_000, true), (1, true)] {
                let call = ReceiptLedger::splitCall {
                    charge,
                    royaltyBps: royalty,
                    hasRouter: router,
                };
                let s = net.evm.view(addresses::RECEIPT_LEDGER, call).unwrap();
                let sum = s.node + s.creator + s.treasury + s.insurance + s.router;
                assert_eq!(sum, U256::from(charge), "{weights:?} {charge}");
            }
        }
    }
    for weights in [
        [0u16, 0, 0, 0],
        [59, 20, 20, 1],
        [60, 21, 10, 9],
        [60, 10, 21, 9],
        [60, 10, 9, 21],
        [9_999, 1, 1, 0],
        [u16::MAX, 0, 0, 0],
    ] {
        let set = ReceiptLedger::setWeightsCall { weights };
        let result = call_as(&mut net, addresses::TIMELOCK, addresses::RECEIPT_LEDGER, set);
        assert_reverts::<ReceiptLedger::InvalidWeights, _>(result);
    }
    for weights in [
        [0u8, 0, 0, 0],
        [89, 4, 4, 3],
        [90, 6, 2, 2],
        [90, 2, 6, 2],
        [90, 2, 2, 6],
    ] {
        let set = ReceiptLedger::setClosedWeightsCall { weights };
        let result = call_as(&mut net, addresses::TIMELOCK, addresses::RECEIPT_LEDGER, set);
        assert_reverts::<ReceiptLedger::InvalidWeights, _>(result);
    }
    let day = 86_400;
    let longest = windows([0, 90 * day, 0, 1]);
    call_as(&mut net, addresses::TIMELOCK, addresses::RECEIPT_LEDGER, longest).unwrap();
    for i in 0..4 {
        let mut values = [0; 4];
        values[i] = 90 * day + 1;
        let result = call_as(
            &mut net,
            addresses::TIMELOCK,
            addresses::RECEIPT_LEDGER,
            windows(values),
        );
        assert_reverts::<ReceiptLedger::InvalidWindow, _>(result);
    }
}

/// The weights of block 0 are those of the documents and of `opg_primitives`.
#[test]
fn the_first_weights_split_as_before() {
    let mut net = net();
    for charge in [1u128, 89, 1_000_003, SUPPLY] {
        for router in [false, true] {
            let call = ReceiptLedger::splitCall {
                charge,
                royaltyBps: 1_000,
                hasRouter: router,
            };
            let got = net.evm.view(addresses::RECEIPT_LEDGER, call).unwrap();
            let wanted = opg_primitives::money::split(Amount(charge), 1_000, router, false, true).unwrap();
            assert_eq!(got.node, wanted.node.to_u256());
            assert_eq!(got.creator, wanted.creator.to_u256());
            assert_eq!(got.treasury, wanted.treasury.to_u256());
            assert_eq!(got.insurance, wanted.insurance.to_u256());
            assert_eq!(got.router, wanted.router.to_u256());
        }
    }
}

/// A longer window holds receipts recorded after the change, not those before.
#[test]
fn windows_apply_to_later_receipts() {
    let mut net = net();
    let op = operation(addresses::RECEIPT_LEDGER, windows([5_000, 0, 0, 0]));
    op.pass(&mut net);
    net.tick(TIMELOCK - 1);
    net.paid_and_recorded(1, CHARGE, CHARGE);
    net.tick(1);
    op.execute(&mut net).unwrap();
    net.paid_and_recorded(2, CHARGE, CHARGE);
    let half = net.credited(who("creator"), 0) / 2;
    net.tick(600);
    assert_eq!(net.withdrawable(who("creator"), 0), half);
    net.tick(4_400);
    assert_eq!(net.withdrawable(who("creator"), 0), 2 * half);
}

#[test]
fn the_treasury_spends_by_governance() {
    let mut net = net();
    net.paid_and_recorded(1, CHARGE, CHARGE);
    net.tick(600);
    let income = net.withdraw(addresses::TREASURY, 0, 10).unwrap();
    assert!(income > 0 && net.opg(addresses::TREASURY) == income);
    let spend = Treasury::spendCall {
        token: addresses::OPG,
        to: who("grantee"),
        amount: U256::from(income),
    };
    operation(addresses::TREASURY, spend).carry_out(&mut net);
    assert_eq!((net.opg(who("grantee")), net.opg(addresses::TREASURY)), (income, 0));
    // Native coin.
    net.evm
        .send(who("alice"), addresses::TREASURY, U256::from(7), Bytes::new())
        .unwrap();
    let spend = Treasury::spendNativeCall {
        to: who("grantee"),
        amount: U256::from(7),
    };
    operation(addresses::TREASURY, spend).carry_out(&mut net);
    assert_eq!(net.evm.balance(who("grantee")), U256::from(7));
    let nobody = Treasury::spendCall {
        token: addresses::OPG,
        to: Address::ZERO,
        amount: U256::ZERO,
    };
    let result = call_as(&mut net, addresses::TIMELOCK, addresses::TREASURY, nobody);
    assert_reverts::<Treasury::InvalidRecipient, _>(result);
}

#[test]
fn block_rules_change_at_a_height() {
    let mut net = net();
    let limit = file().parameters.gas_limit;
    let first = BlockRules {
        gas_limit: limit,
        verification_budget: 40_000,
    };
    let schedule = |gas_limit, budget, activation| ChainParameters::scheduleCall {
        gasLimit: gas_limit,
        verificationBudget: budget,
        activation,
    };
    let call = |net: &mut Net, call| call_as(net, addresses::TIMELOCK, addresses::CHAIN_PARAMETERS, call);
    assert_eq!(block_rules(&net.evm, 1).unwrap(), first);
    net.evm.set_number(100);
    call(&mut net, schedule(200_000_000, 5_000, 110)).unwrap();
    let second = BlockRules {
        gas_limit: 200_000_000,
        verification_budget: 5_000,
    };
    for (height, wanted) in [(100, first), (109, first), (110, second), (u64::MAX, second)] {
        assert_eq!(block_rules(&net.evm, height).unwrap(), wanted, "{height}");
        let values = net
            .evm
            .view(addresses::CHAIN_PARAMETERS, ChainParameters::valuesAtCall { height })
            .unwrap();
        assert_eq!(values.gasLimit, wanted.gas_limit);
        assert_eq!(values.verificationBudget, wanted.verification_budget);
    }
    // Replaced before it is in force, then followed by another.
    net.evm.set_number(109);
    call(&mut net, schedule(300_000_000, 5_000, 119)).unwrap();
    assert_eq!(block_rules(&net.evm, 118).unwrap(), first);
    net.evm.set_number(119);
    call(&mut net, schedule(400_000_000, 5_000, 130)).unwrap();
    assert_eq!(block_rules(&net.evm, 129).unwrap().gas_limit, 300_000_000);
    assert_eq!(block_rules(&net.evm, 130).unwrap().gas_limit, 400_000_000);
    for bad in [
        schedule(119_999_999, 5_000, 200),
        schedule(1_000_000_001, 5_000, 200),
        schedule(200_000_000, 999, 200),
        schedule(200_000_000, 1_000_000_001, 200),
        schedule(200_000_000, 5_000, 128),
        schedule(200_000_000, 5_000, 10_000_120),
    ] {
        let result = call(&mut net, bad);
        assert_reverts::<ChainParameters::OutOfRange, _>(result);
    }
}

#[test]
fn tiers_count_what_is_held_and_staked() {
    let mut net = net();
    let staking = net.deploy("staking", &TestStaking::BYTECODE, ());
    let tier = |threshold: u128, discount| FeatureTiers::Tier {
        threshold,
        discountBps: discount,
        requestsPerMinute: 10,
        maxRequestBytes: 10,
    };
    let tiers = vec![tier(0, 0), tier(1_000, 100), tier(2_000, 200)];
    let arguments = FeatureTiers::constructorCall {
        governance_: addresses::TIMELOCK,
        opg_: addresses::OPG,
        staking_: staking,
        tiers_: tiers.clone(),
    };
    let at = who("tiers");
    let code = [
        FeatureTiers::BYTECODE.as_ref(),
        &alloy_sol_types::SolConstructor::abi_encode(&arguments),
    ]
    .concat();
    net.evm.construct(at, code.into()).unwrap();
    let of = |net: &mut Net, account: Address| {
        let call = FeatureTiers::tierOfCall { account };
        let got = net.evm.view(at, call).unwrap();
        (got.index.to::<u64>(), got.tier.discountBps, got.weight.to::<u128>())
    };
    let carla = who("carla");
    assert_eq!(of(&mut net, carla), (0, 0, 0));
    let give = |amount: u64| OPG::transferCall {
        to: carla,
        value: U256::from(amount),
    };
    net.evm.call(who("alice"), addresses::OPG, give(999)).unwrap();
    assert_eq!(of(&mut net, carla), (0, 0, 999));
    net.evm.call(who("alice"), addresses::OPG, give(1)).unwrap();
    assert_eq!(of(&mut net, carla), (1, 100, 1_000));
    for (operator, amount) in [("a", 400u64), ("b", 600)] {
        let stake = TestStaking::setStakeCall {
            operator: who(operator),
            account: carla,
            amount: U256::from(amount),
        };
        net.evm.call(who("anyone"), staking, stake).unwrap();
    }
    assert_eq!(of(&mut net, carla), (2, 200, 2_000));
    // Votes that others gave are not hers to pay with.
    let votes = TestStaking::setVotesCall {
        account: carla,
        amount: U256::from(1_000_000),
    };
    net.evm.call(who("anyone"), staking, votes).unwrap();
    assert_eq!(of(&mut net, carla), (2, 200, 2_000));
    // Tiers without order, without a first one, with too large a discount, or too many.
    let with = |edit: fn(&mut Vec<FeatureTiers::Tier>)| {
        let mut changed = tiers.clone();
        edit(&mut changed);
        changed
    };
    for bad in [
        vec![],
        with(|t| t[0].threshold = 1),
        with(|t| t[2].threshold = 1_000),
        with(|t| t[2].discountBps = 99),
        with(|t| t[2].discountBps = 5_001),
        with(|t| t[1].requestsPerMinute = 11),
        with(|t| t[0].maxRequestBytes = 0),
        (0..9).map(|i| tier(i, 0)).collect(),
    ] {
        let call = FeatureTiers::setTiersCall { tiers_: bad };
        let result = call_as(&mut net, addresses::TIMELOCK, at, call);
        assert_reverts::<FeatureTiers::InvalidTiers, _>(result);
    }
    let call = FeatureTiers::setTiersCall {
        tiers_: vec![tier(0, 5_000)],
    };
    call_as(&mut net, addresses::TIMELOCK, at, call).unwrap();
    assert_eq!(of(&mut net, who("nobody")), (0, 5_000, 0));
    // The network's own tiers stand on what is held alone while there is no staking contract.
    let held = FeatureTiers::tierOfCall { account: who("alice") };
    assert_eq!(
        net.evm.view(addresses::FEATURE_TIERS, held).unwrap().index,
        U256::from(2)
    );
}

/// A governor with a staking contract, and its timelock.
fn with_staking(net: &mut Net) -> (Address, Address, Address) {
    let staking = net.deploy("staking", &TestStaking::BYTECODE, ());
    let (governor, timelock) = (who("governor"), who("timelock"));
    let arguments = Timelock::constructorCall {
        delay: U256::from(TIMELOCK),
        governor,
        guardian_: Address::ZERO,
        guardianUntil_: Uint::ZERO,
    };
    let code = [
        Timelock::BYTECODE.as_ref(),
        &alloy_sol_types::SolConstructor::abi_encode(&arguments),
    ]
    .concat();
    net.evm.construct(timelock, code.into()).unwrap();
    construct_governor(net, governor, staking, timelock);
    (governor, timelock, staking)
}

fn construct_governor(net: &mut Net, governor: Address, staking: Address, timelock: Address) {
    let arguments = Governor::constructorCall {
        opg_: addresses::OPG,
        staking_: staking,
        timelock_: timelock,
        settings: Governor::Settings {
            votingDelay: Uint::from(DELAY),
            votingPeriod: PERIOD as u32,
            proposalThreshold: U256::from(1_000 * WEI_PER_OPG),
            quorumBps: U256::from(400),
        },
    };
    let code = [
        Governor::BYTECODE.as_ref(),
        &alloy_sol_types::SolConstructor::abi_encode(&arguments),
    ]
    .concat();
    net.evm.construct(governor, code.into()).unwrap();
}

#[test]
fn staked_votes_count_at_the_same_second() {
    let mut net = net();
    let (governor, timelock, staking) = with_staking(&mut net);
    let op = Operation {
        governor,
        timelock,
        ..operation(who("target"), OPG::totalSupplyCall {})
    };
    let votes = |account: &str, amount: u128| TestStaking::setVotesCall {
        account: who(account),
        amount: U256::from(amount),
    };
    net.evm
        .call(who("anyone"), staking, votes("staker", 60_000_000 * WEI_PER_OPG))
        .unwrap();
    net.evm
        .call(who("anyone"), staking, votes("alice", 5 * WEI_PER_OPG))
        .unwrap();
    net.tick(1);
    let at = net.evm.timestamp() - 1;
    let call = Governor::getVotesCall {
        account: who("alice"),
        timepoint: U256::from(at),
    };
    let both = U256::from(100_005 * WEI_PER_OPG);
    assert_eq!(net.evm.view(governor, call).unwrap(), both, "held and staked");
    // A staker without any OPG proposes, and reaches the quorum alone.
    let id = op.propose(&mut net, "staker").unwrap();
    net.tick(DELAY + 1);
    // What is staked after the beginning does not count.
    net.evm
        .call(who("anyone"), staking, votes("late", 600_000_000 * WEI_PER_OPG))
        .unwrap();
    assert_eq!(op.vote(&mut net, id, "late", 0).unwrap(), U256::ZERO);
    assert_eq!(
        op.vote(&mut net, id, "staker", 1).unwrap(),
        U256::from(60_000_000 * WEI_PER_OPG)
    );
    assert_eq!(op.vote(&mut net, id, "alice", 1).unwrap(), both);
    net.tick(PERIOD);
    assert_eq!(op.state(&mut net, id), SUCCEEDED);
}

/// The only way to replace a part of governance: the timelock gives the role to a new governor, and takes it from the old one.
#[test]
fn a_new_governor_takes_over_through_the_old_one() {
    let mut net = net();
    let staking = net.deploy("staking", &TestStaking::BYTECODE, ());
    let successor = who("governor");
    construct_governor(&mut net, successor, staking, addresses::TIMELOCK);
    let proposer = net
        .evm
        .view(addresses::TIMELOCK, Timelock::PROPOSER_ROLECall {})
        .unwrap();
    let op = Operation {
        governor: successor,
        ..operation(addresses::RECEIPT_LEDGER, windows([7, 7, 7, 7]))
    };
    let id = op.propose(&mut net, "ecosystem").unwrap();
    net.tick(DELAY + 1);
    op.vote(&mut net, id, "ecosystem", 1).unwrap();
    net.tick(PERIOD);
    assert!(op.queue(&mut net).is_err(), "not yet a proposer");
    let grant = Timelock::grantRoleCall {
        role: proposer,
        account: successor,
    };
    operation(addresses::TIMELOCK, grant).carry_out(&mut net);
    let revoke = Timelock::revokeRoleCall {
        role: proposer,
        account: addresses::GOVERNOR,
    };
    operation(addresses::TIMELOCK, revoke).carry_out(&mut net);
    op.queue(&mut net).unwrap();
    net.tick(TIMELOCK);
    op.execute(&mut net).unwrap();
    assert_eq!(ledger_rules(&net.evm).unwrap().windows, [7, 7, 7, 7]);
    // The old one can queue nothing any more.
    let old = operation(addresses::RECEIPT_LEDGER, windows([8, 8, 8, 8]));
    let id = old.propose(&mut net, "ecosystem").unwrap();
    net.tick(DELAY + 1);
    old.vote(&mut net, id, "ecosystem", 1).unwrap();
    net.tick(PERIOD);
    assert!(old.queue(&mut net).is_err());
}

/// Settings of the governor are its own operations.
#[test]
fn settings_change_by_vote_only() {
    let mut net = net();
    let set = Governor::setVotingPeriodCall { newVotingPeriod: 5 };
    for caller in [who("ecosystem"), who("guardian"), Address::ZERO] {
        let result = net.evm.call(caller, addresses::GOVERNOR, set.clone());
        assert_reverts::<Governor::GovernorOnlyExecutor, _>(result);
    }
    operation(addresses::GOVERNOR, set).carry_out(&mut net);
    let period = net
        .evm
        .view(addresses::GOVERNOR, Governor::votingPeriodCall {})
        .unwrap();
    assert_eq!(period, U256::from(5));
}

/// A weighty event for whoever watches: every change says what it is.
#[test]
fn changes_are_events() {
    let mut net = net();
    let change = windows([1, 2, 3, 4]);
    let done = call_as(&mut net, addresses::TIMELOCK, addresses::RECEIPT_LEDGER, change).unwrap();
    let event = ReceiptLedger::WindowsSet::decode_log(&done.logs[0]).unwrap();
    assert_eq!(event.windows.map(|w| w.to::<u64>()), [1, 2, 3, 4]);
}
