//! A network whose validators have stake, and accounts that can become validators.

use super::{Net, START, file, key, sign, who};
use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use commonware_codec::Encode as _;
use commonware_cryptography::bls12381::primitives::{
    group::Private,
    ops::{compute_public, keypair, sign_proof_of_possession},
    variant::MinSig,
};
use commonware_utils::TestRng;
use opg_consensus::keys::IdentityKey;
use opg_contracts::{
    AccountAllocation, GenesisFile, OPG, Slashing, Staking, StakingParameters, ValidatorKeys, addresses,
    possession_namespace,
    seats::{self, SeatReport},
    staking::{self, Seat},
    supply::STAKING_REWARDS,
};
use opg_genesis::evm::{CallError, Executed};
use opg_primitives::money::{Amount, WEI_PER_OPG};

pub const STAKING: Address = addresses::STAKING;
pub const SLASHING: Address = addresses::SLASHING;
pub const OPG_UNIT: u128 = WEI_PER_OPG;
/// Least self-bond.
pub const BOND: u128 = 25_000 * WEI_PER_OPG;
/// Seconds of an epoch in these tests.
pub const EPOCH: u64 = 1_000;
pub const UNBONDING: u64 = 5_000;
pub const APPEAL: u64 = 200;
pub const JAIL: u64 = 600;
/// Accounts `operator-4` up to this number may become validators.
pub const OPERATORS: usize = 16;

/// The timelock, which is governance here.
pub fn timelock() -> Address {
    "0x000000000000000000000000000000000000100c".parse().unwrap()
}

pub fn parameters() -> StakingParameters {
    StakingParameters {
        unbonding: UNBONDING,
        jail_time: JAIL,
        max_seats: 6,
        min_views: 4,
        appeal_window: APPEAL,
        ..StakingParameters::default()
    }
}

/// The network of the other tests; its validators bond, and the bucket for staking releases.
pub fn staking_file() -> GenesisFile {
    staking_file_with(OPERATORS)
}

pub fn staking_file_with(operators: usize) -> GenesisFile {
    let mut file = file();
    file.parameters.staking = Some(parameters());
    let mut rest = file.allocations.pop().unwrap();
    let mut add = |label: String, address, wrapped: u128| {
        rest.wrapped.0 -= wrapped;
        file.allocations.push(AccountAllocation {
            label,
            address,
            native: Amount::ZERO,
            wrapped: Amount(wrapped),
        });
    };
    for i in 0..operators {
        let label = format!("operator-{i}");
        add(label.clone(), who(&label), 100_000 * WEI_PER_OPG);
    }
    add("staking".into(), STAKING_REWARDS.address, STAKING_REWARDS.total.0);
    file.allocations.push(rest);
    let schedule = STAKING_REWARDS.schedule(addresses::EMISSION, START, Amount::ZERO);
    file.vesting.push(schedule);
    file
}

pub fn staking_net() -> Net {
    use std::sync::OnceLock;
    static GENESIS: OnceLock<alloy_genesis::Genesis> = OnceLock::new();
    let file = staking_file();
    let genesis = GENESIS.get_or_init(|| opg_genesis::build(&file).unwrap());
    let mut net = Net::with(&file, genesis);
    net.approve_all();
    net
}

/// BLS key of a label.
pub fn bls(label: &str) -> Private {
    let seed = u64::from_be_bytes(keccak256(label)[..8].try_into().unwrap());
    keypair::<_, MinSig>(&mut TestRng::new(seed)).0
}

pub fn bls_public(secret: &Private) -> FixedBytes<96> {
    FixedBytes::from_slice(&compute_public::<MinSig>(secret).encode())
}

/// Coordinates of 48 bytes, padded to 64 each as EIP-2537 has them.
fn padded(coordinates: &[&[u8]]) -> Bytes {
    let mut bytes = Vec::new();
    for coordinate in coordinates {
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(coordinate);
    }
    bytes.into()
}

/// A key's point: blst has the imaginary part first, EIP-2537 the real one.
pub fn bls_point(secret: &Private) -> Bytes {
    let raw = blst::min_sig::PublicKey::from_bytes(bls_public(secret).as_slice())
        .unwrap()
        .serialize();
    padded(&[&raw[48..96], &raw[..48], &raw[144..], &raw[96..144]])
}

/// Commonware's proof of possession, as a point.
pub fn bls_possession(secret: &Private, chain_id: u64, operator: Address, epoch: u64) -> Bytes {
    let namespace = possession_namespace(chain_id, operator, epoch);
    let proof = sign_proof_of_possession::<MinSig>(secret, &namespace);
    let raw = blst::min_sig::Signature::from_bytes(&proof.encode())
        .unwrap()
        .serialize();
    padded(&[&raw[..48], &raw[48..]])
}

/// Network identity of a label.
pub fn identity(name: &str) -> B256 {
    let seed = keccak256(format!("identity-of-{name}"));
    IdentityKey::from_bytes(&seed.0).unwrap().public().0.into()
}

/// Keys called `name` for `operator`, with good proofs for `epoch`.
pub fn registration(operator: &str, name: &str, epoch: u64) -> ValidatorKeys::KeyRegistration {
    let secret = bls(name);
    let system = format!("system-of-{name}");
    let digest = staking::system_possession_digest(super::CHAIN_ID, who(operator), epoch);
    ValidatorKeys::KeyRegistration {
        consensusKey: identity(name),
        blsKey: bls_point(&secret),
        possession: bls_possession(&secret, super::CHAIN_ID, who(operator), epoch),
        system: who(&system),
        systemSignature: sign(&key(&system), digest).to_vec().into(),
        epoch,
    }
}

/// The seat of keys called `name`.
pub fn seat(operator: &str, name: &str) -> Seat {
    Seat {
        operator: who(operator),
        consensusKey: identity(name),
        blsKey: bls_public(&bls(name)).to_vec().into(),
        system: who(&format!("system-of-{name}")),
    }
}

impl Net {
    /// Has the usual accounts approve.
    pub fn approve_all(&mut self) {
        for account in ["alice", "bob", "carol"] {
            self.approve(account);
        }
        for i in 0..4 {
            self.approve(&format!("operator-{i}"));
        }
    }

    /// Approves Staking and Slashing to take whatever they ask for.
    pub fn approve(&mut self, account: &str) {
        for spender in [STAKING, SLASHING] {
            let call = OPG::approveCall {
                spender,
                value: U256::MAX,
            };
            self.evm.call(who(account), addresses::OPG, call).unwrap();
        }
    }

    pub fn staking<C: SolCall>(&mut self, from: &str, call: C) -> Result<C::Return, CallError> {
        self.evm.call(who(from), STAKING, call)
    }

    pub fn slashing<C: SolCall>(&mut self, from: &str, call: C) -> Result<C::Return, CallError> {
        self.evm.call(who(from), SLASHING, call)
    }

    pub fn stake(&mut self, from: &str, operator: &str, amount: u128) -> Result<(), CallError> {
        let call = Staking::stakeCall {
            operator: who(operator),
            amount: U256::from(amount),
        };
        self.staking(from, call).map(|_| ())
    }

    pub fn unstake(&mut self, from: &str, operator: &str, amount: u128) -> Result<u64, CallError> {
        let amount = if amount == u128::MAX {
            U256::MAX
        } else {
            U256::from(amount)
        };
        let call = Staking::unstakeCall {
            operator: who(operator),
            amount,
        };
        self.staking(from, call).map(|id| id.to())
    }

    /// Pays out of Staking.
    pub fn withdraw_stake(&mut self, account: &str, id: u64) -> Result<u128, CallError> {
        let call = Staking::withdrawCall {
            account: who(account),
            id: U256::from(id),
        };
        self.staking("anyone", call).map(|amount| amount.to())
    }

    pub fn claim_rewards(&mut self, account: &str, operator: &str) -> Result<u128, CallError> {
        let call = Staking::claimCall {
            operator: who(operator),
        };
        self.staking(account, call).map(|amount| amount.to())
    }

    pub fn stake_of(&mut self, operator: &str) -> u128 {
        let call = Staking::stakeOf_0Call {
            operator: who(operator),
        };
        self.evm.view(STAKING, call).unwrap().to()
    }

    pub fn own_stake(&mut self, operator: &str, account: &str) -> u128 {
        let call = Staking::stakeOf_1Call {
            operator: who(operator),
            account: who(account),
        };
        self.evm.view(STAKING, call).unwrap().to()
    }

    pub fn pending(&mut self, operator: &str, account: &str) -> u128 {
        let call = Staking::pendingRewardsCall {
            operator: who(operator),
            account: who(account),
        };
        self.evm.view(STAKING, call).unwrap().to()
    }

    pub fn votes(&mut self, account: &str) -> u128 {
        let call = Staking::getVotesCall { account: who(account) };
        self.evm.view(STAKING, call).unwrap().to()
    }

    pub fn total_stake(&mut self) -> u128 {
        self.evm.view(STAKING, Staking::totalStakeCall {}).unwrap().to()
    }

    pub fn validator(&mut self, operator: &str) -> Staking::validatorsReturn {
        let call = Staking::validatorsCall {
            operator: who(operator),
        };
        self.evm.view(STAKING, call).unwrap()
    }

    pub fn epoch(&self) -> u64 {
        staking::epoch(&self.evm).unwrap()
    }

    pub fn seats(&mut self, epoch: u64) -> Vec<Seat> {
        self.evm.view(STAKING, Staking::seatsCall { epoch_: epoch }).unwrap()
    }

    /// Operators of the current set.
    pub fn seated(&mut self) -> Vec<Address> {
        let epoch = self.epoch();
        self.seats(epoch).iter().map(|seat| seat.operator).collect()
    }

    /// Registers `operator-i` with keys of its own name.
    pub fn register(&mut self, i: usize, commission: u16, bond: u128) -> Result<(), CallError> {
        let operator = format!("operator-{i}");
        self.approve(&operator);
        let call = Staking::registerCall {
            keys: registration(&operator, &operator, self.epoch()),
            commissionBps: commission,
            bond: U256::from(bond),
        };
        self.staking(&operator, call).map(|_| ())
    }

    /// Sends a system transaction as the first seat of the current set.
    pub fn system(&mut self, to: Address, data: Bytes, gas: u64) -> Result<Executed, CallError> {
        let epoch = self.epoch();
        let system = self.seats(epoch)[0].system;
        self.evm.set_coinbase(system);
        self.evm.send_with_gas(system, to, U256::ZERO, data, gas)
    }

    /// Ends the epoch: everybody led ten views but the given ones, which led and missed so many.
    pub fn end_epoch_with(&mut self, other: &[(&str, u32, u32)]) -> Executed {
        let epoch = self.epoch();
        let seats = self.seats(epoch);
        let report = seats
            .iter()
            .map(|seat| {
                let other = other.iter().find(|(operator, ..)| who(operator) == seat.operator);
                let (led, missed) = other.map_or((10, 0), |(_, led, missed)| (*led, *missed));
                SeatReport {
                    operator: seat.operator,
                    led,
                    missed,
                }
            })
            .collect::<Vec<_>>();
        let data = seats::end_epoch_calldata(epoch, &report);
        self.system(STAKING, data, staking::END_EPOCH_GAS).unwrap()
    }

    pub fn end_epoch(&mut self) -> Executed {
        self.end_epoch_with(&[])
    }

    /// An epoch later.
    pub fn next_epoch(&mut self) -> Executed {
        self.tick(EPOCH);
        self.end_epoch()
    }

    /// Reports a fault of a validator in an epoch, and validators find the evidence to be so.
    pub fn convict(&mut self, class: u8, operator: &str, epoch: u64, valid: bool) -> u64 {
        let id = self
            .report(class, who(operator).into_word(), epoch, b"evidence")
            .unwrap();
        self.verdict(id, valid, B256::ZERO, 0);
        id
    }

    /// A report by `challenger`, in a block of its own.
    pub fn report(&mut self, class: u8, subject: B256, epoch: u64, evidence: &[u8]) -> Result<u64, CallError> {
        self.next_block();
        let call = Slashing::reportCall {
            class,
            subject,
            epoch,
            evidence: evidence.to_vec().into(),
        };
        self.slashing("carol", call).map(|id| id.to())
    }

    pub fn verdict(&mut self, id: u64, valid: bool, fault: B256, fee: u128) -> Executed {
        let verdict = Slashing::Verdict {
            id: U256::from(id),
            valid,
            fault,
            fee,
            user: if fee == 0 { Address::ZERO } else { who("bob") },
        };
        let data = staking::verdicts_calldata(vec![verdict]);
        self.system(SLASHING, data, staking::VERDICTS_GAS).unwrap()
    }

    pub fn execute(&mut self, id: u64) -> Result<(), CallError> {
        let call = Slashing::executeCall { id: U256::from(id) };
        self.slashing("anyone", call).map(|_| ())
    }

    pub fn case(&mut self, id: u64) -> Slashing::casesReturn {
        let call = Slashing::casesCall(U256::from(id));
        self.evm.view(SLASHING, call).unwrap()
    }

    pub fn credit(&mut self, account: &str) -> u128 {
        let call = Slashing::creditsCall { account: who(account) };
        self.evm.view(SLASHING, call).unwrap().to()
    }

    pub fn burned(&mut self) -> u128 {
        self.evm.view(SLASHING, Slashing::burnedCall {}).unwrap().to()
    }

    /// Staking holds what it owes, up to a wei for each of `roundings` divisions.
    #[track_caller]
    pub fn assert_stake_backed(&mut self, roundings: u128) {
        let held = self.opg(STAKING);
        let unbonding: u128 = self.evm.view(STAKING, Staking::totalUnbondingCall {}).unwrap().to();
        let rewards: u128 = self.evm.view(STAKING, Staking::rewardsHeldCall {}).unwrap().to();
        let fees: u128 = self.evm.view(STAKING, Staking::feesCall {}).unwrap().to();
        let owed = self.total_stake() + unbonding + rewards + fees;
        assert!(owed <= held && held - owed <= roundings, "owed {owed}, held {held}");
        let supply = self.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
        assert_eq!(supply, self.evm.balance(addresses::OPG), "wrapped OPG is backed");
    }
}

/// `abi.encode(Seat[])`.
pub fn preimage(seats: &[Seat]) -> Vec<u8> {
    seats.abi_encode()
}
