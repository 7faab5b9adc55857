//! The contracts themselves, as block 0 of a network has them, in an EVM: OPG, the channel contract and its ERC-3009 collector. Beside them runs
//! the [`Model`]: each transaction succeeds in both or in neither, and leaves the same channel.

use super::{Model, Rules, START_TIME, Tx};
use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256, aliases::U40};
use alloy_sol_types::SolCall as _;
use opg_contracts::{
    AccountAllocation, BatchSettlement, GenesisFile, OPG, Parameters, ValidatorEntry, addresses,
    genesis_file::SUPPLY,
    slots,
    state::{self, Settlement, StateReader},
    x402,
};
use opg_genesis::evm::{Evm, Snapshot};
use opg_payments::{
    channel::ChannelConfig,
    channels::{ChainState, ClaimRow, Withdrawal},
    eip712::Domain,
};
use opg_primitives::money::Amount;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, OnceLock},
};

/// Holds all OPG at first.
const BANK: Address = Address::repeat_byte(0xba);

/// Accounts of block 0 that payments by channel need.
const ACCOUNTS: [Address; 4] = [
    addresses::OPG,
    addresses::BATCH_SETTLEMENT,
    addresses::ERC3009_DEPOSIT_COLLECTOR,
    BANK,
];

fn genesis(chain_id: u64) -> &'static alloy_genesis::Genesis {
    static GENESIS: OnceLock<alloy_genesis::Genesis> = OnceLock::new();
    GENESIS.get_or_init(|| {
        let validators = (0..4u8)
            .map(|i| ValidatorEntry {
                name: format!("validator-{i}"),
                identity: B256::repeat_byte(0x10 + i),
                bls: FixedBytes::repeat_byte(0x20 + i),
                bls_possession: FixedBytes::repeat_byte(0x30 + i),
                system: Address::repeat_byte(0x40 + i),
                operator: Address::repeat_byte(0x50 + i),
            })
            .collect();
        let file = GenesisFile {
            version: 1,
            vesting: vec![],
            airdrop: None,
            evidence: None,
            chain_id,
            development: true,
            timestamp: START_TIME - 1,
            validators,
            parameters: Parameters::development(Address::repeat_byte(0x60)),
            allocations: vec![AccountAllocation {
                label: "bank".into(),
                address: BANK,
                native: Amount::ZERO,
                wrapped: Amount(SUPPLY),
            }],
            nodes: vec![],
            models: vec![],
            asks: vec![],
        };
        let mut genesis = opg_genesis::build(&file).expect("a genesis");
        genesis.alloc.retain(|address, _| ACCOUNTS.contains(address));
        genesis
    })
}

/// The state after some transactions.
#[derive(Clone)]
pub(crate) struct Contracts {
    /// One EVM, set back to the state of whoever uses it.
    evm: Rc<RefCell<Evm>>,
    at: Arc<Snapshot>,
    model: Model,
    domain: Domain,
    receiver: Address,
    authorizer: Address,
    configs: BTreeMap<B256, ChannelConfig>,
    payers: Vec<Address>,
}

impl Contracts {
    pub(crate) fn new(chain_id: u64, receiver: Address, authorizer: Address) -> Self {
        let evm = Evm::with_genesis(genesis(chain_id));
        let domain = Domain::batch_settlement(chain_id);
        Self {
            at: Arc::new(evm.snapshot()),
            evm: Rc::new(RefCell::new(evm)),
            model: Model::new(domain),
            domain,
            receiver,
            authorizer,
            configs: BTreeMap::new(),
            payers: Vec::new(),
        }
    }

    fn send(&mut self, from: Address, to: Address, data: Vec<u8>, time: u64) -> bool {
        let mut evm = self.evm.borrow_mut();
        evm.restore(&self.at);
        evm.set_timestamp(time);
        let sent = evm.send(from, to, U256::ZERO, data.into());
        if sent.is_ok() {
            self.at = Arc::new(evm.snapshot());
        }
        sent.is_ok()
    }

    fn opg(&self, who: Address) -> u128 {
        let Ok(balance) = self.at.storage(addresses::OPG, slots::opg_balance(who));
        balance.to()
    }

    /// Sender and calldata.
    fn call(&self, tx: &Tx) -> Option<(Address, Vec<u8>)> {
        Some(match tx {
            Tx::Deposit { config, signed } => {
                let call = BatchSettlement::depositCall {
                    config: contract_config(config),
                    amount: signed.deposit.amount.wei(),
                    collector: signed.deposit.collector().address(),
                    collectorData: signed.deposit.collector_data(&signed.signature),
                };
                (self.authorizer, call.abi_encode())
            }
            Tx::Claim { rows } => (self.authorizer, claim(rows)),
            Tx::Settle => {
                let (receiver, token) = (self.receiver, addresses::OPG);
                (BANK, BatchSettlement::settleCall { receiver, token }.abi_encode())
            }
            Tx::Initiate { id, amount } => {
                let config = self.configs.get(id)?;
                let call = BatchSettlement::initiateWithdrawCall {
                    config: contract_config(config),
                    amount: *amount,
                };
                (config.payer, call.abi_encode())
            }
            Tx::Finalize { id } => {
                let config = self.configs.get(id)?;
                let config_ = contract_config(config);
                let call = BatchSettlement::finalizeWithdrawCall { config: config_ };
                (config.payer, call.abi_encode())
            }
            Tx::Refund { id, plan } => {
                let config = contract_config(self.configs.get(id)?);
                let amount = plan.amount.wei();
                let refund = BatchSettlement::refundCall { config, amount }.abi_encode();
                let claim = plan.claim.as_ref().map(|row| claim(std::slice::from_ref(row)));
                let data: Vec<Bytes> = claim.into_iter().chain([refund]).map(Into::into).collect();
                (self.authorizer, BatchSettlement::multicallCall { data }.abi_encode())
            }
        })
    }
}

fn contract_config(config: &ChannelConfig) -> BatchSettlement::ChannelConfig {
    BatchSettlement::ChannelConfig {
        payer: config.payer,
        payerAuthorizer: config.payer_authorizer,
        receiver: config.receiver,
        receiverAuthorizer: config.receiver_authorizer,
        token: config.token,
        withdrawDelay: U40::from(config.withdraw_delay),
        salt: config.salt,
    }
}

fn claim(rows: &[ClaimRow]) -> Vec<u8> {
    let row = |row: &ClaimRow| BatchSettlement::VoucherClaim {
        voucher: BatchSettlement::Voucher {
            channel: contract_config(&row.config),
            maxClaimableAmount: row.entry.max_claimable.wei(),
        },
        signature: row.signature.clone(),
        totalClaimed: row.entry.total_claimed.wei(),
    };
    let rows = rows.iter().map(row).collect();
    BatchSettlement::claimCall { voucherClaims: rows }.abi_encode()
}

impl Rules for Contracts {
    fn apply(&mut self, tx: &Tx, time: u64) -> bool {
        if let Tx::Deposit { config, .. } = tx {
            self.configs.insert(config.id(&self.domain), *config);
        }
        let done = match self.call(tx) {
            Some((from, data)) => self.send(from, addresses::BATCH_SETTLEMENT, data, time),
            None => false,
        };
        assert_eq!(
            done,
            self.model.apply(tx, time),
            "the contract and its rules differ: {tx:?}"
        );
        for id in self.configs.keys() {
            assert_eq!(self.channel(*id), self.model.channel(*id), "after {tx:?}");
        }
        done
    }

    fn fund(&mut self, who: Address, amount: u128) {
        let call = OPG::transferCall {
            to: who,
            value: U256::from(amount),
        };
        assert!(self.send(BANK, addresses::OPG, call.abi_encode(), START_TIME));
        self.payers.push(who);
        self.model.fund(who, amount);
    }

    fn channel(&self, id: B256) -> ChainState {
        let (Ok(channel), Ok(exit)) = (x402::read_channel(&*self.at, id), x402::read_exit(&*self.at, id));
        ChainState {
            balance: Amount(channel.balance),
            total_claimed: Amount(channel.total_claimed),
            withdrawal: exit.initiated_at.map(|requested_at| Withdrawal {
                amount: Amount(exit.amount),
                requested_at,
            }),
            refund_nonce: U256::from(exit.refund_nonce),
        }
    }

    fn nonce_used(&self, payer: Address, nonce: B256) -> bool {
        let Ok(settlement) = state::settlement(&*self.at, payer, nonce);
        settlement != Settlement::Unused
    }

    fn money(&self, who: Address) -> u128 {
        self.opg(who)
    }

    fn settled(&self) -> u128 {
        self.opg(self.receiver)
    }

    /// Of payers, receiver and channel contract; the contract has exactly what it owes.
    fn total(&self) -> u128 {
        let held = self.opg(addresses::BATCH_SETTLEMENT);
        let Ok(receiver) = x402::read_receiver(&*self.at, self.receiver, addresses::OPG);
        let unclaimed = |id: &B256| {
            let channel = self.channel(*id);
            channel.balance.wei() - channel.total_claimed.wei()
        };
        let owed = self.configs.keys().map(unclaimed).sum::<u128>() + receiver.total_claimed - receiver.total_settled;
        assert_eq!(held, owed, "the contract holds what it owes, to the wei");
        held + self.settled() + self.payers.iter().map(|payer| self.opg(*payer)).sum::<u128>()
    }
}
