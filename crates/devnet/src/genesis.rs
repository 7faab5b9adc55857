//! The genesis of a local network: who holds what, who validates, which node serves which model at which price.

use alloy_primitives::{Address, B256, keccak256};
use opg_contracts::{
    AccountAllocation, AirdropAllocation, AirdropError, AirdropList, AskRegistration, EvidenceSetup, GenesisFile,
    Governance, ModelRegistration, NodeRegistration, Parameters, ProgramRegistration, StakingParameters,
    ValidatorEntry, VestingSchedule, addresses,
    genesis_file::VERSION,
    supply::{AIRDROP, BUCKETS, ECOSYSTEM, STAKING_REWARDS},
};
use opg_models::ManifestError;
use opg_primitives::money::{Amount, WEI_PER_OPG};
use serde_json::Value;

use crate::assets::{DEMO_MODELS, DEMO_ROYALTY_BPS, DemoProgramError};

/// Chain id of the network (interface.md).
pub const CHAIN_ID: u64 = 10_740;

const MILLION: u128 = 1_000_000 * WEI_PER_OPG;
/// Gas of a validator's system transactions: their base fee is the lowest there is, so this lasts for centuries.
const SYSTEM_NATIVE: u128 = 10_000 * WEI_PER_OPG;

/// Public facts about the accounts of a new network.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    pub(crate) demo: Address,
    pub(crate) faucet: Address,
    pub(crate) creator: Address,
    pub(crate) treasury: Address,
    pub(crate) node_operator: Address,
    pub(crate) settlement_key: Address,
    pub(crate) receipt_key: B256,
    pub(crate) hpke_key: B256,
    pub(crate) evidence: EvidenceSetup,
    pub(crate) endpoint: String,
    pub(crate) validators: Vec<ValidatorEntry>,
}

/// Salt of the node that a local network starts with.
pub(crate) fn node_salt() -> B256 {
    keccak256("opg/devnet/inference-node/0")
}

/// Parameters of a new local network: epochs of ten minutes, and a proposal takes some minutes. What light clients judge the age of
/// their anchor by, the unbonding of stake, is not shortened: an old network would soon be too old for them.
pub(crate) fn parameters() -> Parameters {
    Parameters {
        staking: Some(StakingParameters {
            jail_time: 60,
            appeal_window: 600,
            ..StakingParameters::default()
        }),
        governance: Some(Governance {
            voting_delay: 15,
            voting_period: 120,
            proposal_threshold: Amount(1_000 * WEI_PER_OPG),
            // Of what is wrapped, which is nearly all: 100,000 OPG. The faucet has ten times as much.
            quorum_bps: 1,
            timelock_delay: 30,
            guardian: None,
        }),
        epoch_blocks: 600,
        ..Parameters::development(addresses::TREASURY)
    }
}

/// [`parameters`] with those of a JSON document in their place, which has any of the fields of a genesis file's `parameters`; `null` leaves out
/// staking or governance.
///
/// # Errors
/// What is wrong with which field.
pub(crate) fn parameters_with(document: &str) -> Result<Parameters, serde_json::Error> {
    let mut all = serde_json::to_value(parameters())?;
    let other: serde_json::Map<String, Value> = serde_json::from_str(document)?;
    merge(&mut all, other.into());
    serde_json::from_value(all)
}

/// Replaces what `other` has; objects are gone into.
fn merge(into: &mut Value, other: Value) {
    match (into, other) {
        (Value::Object(into), Value::Object(other)) => {
            for (name, value) in other {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, other) => *into = other,
    }
}

/// Builds and validates the genesis file.
///
/// # Errors
/// If a parameter is out of its range; else never with distinct keys.
pub(crate) fn build(
    accounts: &Accounts,
    timestamp: u64,
    mut parameters: Parameters,
) -> Result<GenesisFile, GenesisSetupError> {
    let mut evidence = accounts.evidence.clone();
    if parameters.governance.is_some() {
        // The only writer of what evidence is judged by.
        evidence.owner = addresses::TIMELOCK;
    } else if parameters.treasury == addresses::TREASURY {
        // Without governance nobody could spend it.
        parameters.treasury = accounts.treasury;
    }
    let bond = parameters.min_bond;
    let mut node = NodeRegistration {
        operator: accounts.node_operator,
        salt: node_salt(),
        endpoint: accounts.endpoint.clone(),
        receipt_key: accounts.receipt_key,
        settlement_key: accounts.settlement_key,
        hpke_key: accounts.hpke_key,
        bond,
    };
    // Ten times the least bond: room for the quota that grows with it.
    node.bond = bond.checked_mul(10).unwrap_or(bond);

    let mut models = Vec::new();
    let mut asks = Vec::new();
    for model in DEMO_MODELS {
        let root = model.root()?.0;
        let mut programs = Vec::new();
        if let Some(program) = model.program {
            programs.push(ProgramRegistration {
                root: program.root()?,
                report: program.report.into(),
            });
        }
        models.push(ModelRegistration {
            name: model.name.into(),
            root,
            creator: accounts.creator,
            uri: String::new(),
            royalty_bps: DEMO_ROYALTY_BPS,
            price: model.price,
            programs,
        });
        asks.push(AskRegistration {
            node_id: node.node_id(),
            root,
            price: model.price,
        });
    }
    let stake = parameters.staking.map_or(Amount::ZERO, |staking| staking.min_self_bond);
    let beneficiary = if parameters.staking.is_some() {
        addresses::EMISSION
    } else {
        accounts.treasury
    };
    let supply = Supply::new(accounts, node.bond, stake, beneficiary, timestamp)?;
    let file = GenesisFile {
        version: VERSION,
        chain_id: CHAIN_ID,
        development: true,
        timestamp,
        allocations: supply.allocations,
        vesting: supply.vesting,
        airdrop: Some(supply.airdrop),
        validators: accounts.validators.clone(),
        parameters,
        evidence: Some(evidence),
        nodes: vec![node],
        models,
        asks,
    };
    file.validate()?;
    Ok(file)
}

/// Why no genesis could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GenesisSetupError {
    #[error("demo model: {0}")]
    Model(#[from] ManifestError),
    #[error("airdrop: {0}")]
    Airdrop(#[from] AirdropError),
    #[error("demo program: {0}")]
    Program(#[from] DemoProgramError),
    #[error(transparent)]
    File(#[from] opg_contracts::GenesisFileError),
}

/// What the network's own accounts start with. It comes out of the Ecosystem bucket (D5).
fn accounts_of_the_network(accounts: &Accounts, bond: Amount, stake: Amount) -> Vec<AccountAllocation> {
    let native = |label: &str, address, native| AccountAllocation {
        label: label.into(),
        address,
        native: Amount(native),
        wrapped: Amount::ZERO,
    };
    let mut list = vec![
        AccountAllocation {
            label: "demo wallet".into(),
            address: accounts.demo,
            native: Amount(1_000 * WEI_PER_OPG),
            wrapped: Amount(10_000 * WEI_PER_OPG),
        },
        AccountAllocation {
            label: "faucet".into(),
            address: accounts.faucet,
            native: Amount(MILLION),
            wrapped: Amount(MILLION),
        },
        AccountAllocation {
            label: "inference node operator".into(),
            address: accounts.node_operator,
            native: Amount(1_000 * WEI_PER_OPG),
            wrapped: bond,
        },
        native("inference node settlement key", accounts.settlement_key, SYSTEM_NATIVE),
        native("model creator", accounts.creator, 1_000 * WEI_PER_OPG),
        native("treasury", accounts.treasury, 1_000 * WEI_PER_OPG),
    ];
    for validator in &accounts.validators {
        list.push(native(
            &format!("{} system", validator.name),
            validator.system,
            SYSTEM_NATIVE,
        ));
        list.push(AccountAllocation {
            label: format!("{} operator", validator.name),
            address: validator.operator,
            native: Amount(1_000 * WEI_PER_OPG),
            // Bonded in block 0.
            wrapped: stake,
        });
    }
    list
}

/// Who holds the supply: the network's accounts, and the buckets as contracts. On a development network the treasury's key is the
/// beneficiary of all of them but the one for staking, and the airdrop's list has the demo wallet and the treasury.
struct Supply {
    allocations: Vec<AccountAllocation>,
    vesting: Vec<VestingSchedule>,
    airdrop: AirdropAllocation,
}

impl Supply {
    /// `rewards` is the beneficiary of the bucket for staking.
    fn new(
        accounts: &Accounts,
        bond: Amount,
        stake: Amount,
        rewards: Address,
        start: u64,
    ) -> Result<Self, GenesisSetupError> {
        let mut allocations = accounts_of_the_network(accounts, bond, stake);
        let spent: u128 = allocations.iter().map(|entry| entry.native.0 + entry.wrapped.0).sum();
        let mut vesting = Vec::new();
        for bucket in &BUCKETS {
            // The Ecosystem bucket has paid for the accounts; they count as released.
            let spent = Amount(if *bucket == ECOSYSTEM { spent } else { 0 });
            allocations.push(AccountAllocation {
                label: bucket.label.into(),
                address: bucket.address,
                native: Amount::ZERO,
                wrapped: bucket.total.saturating_sub(spent),
            });
            if *bucket != AIRDROP {
                let beneficiary = if *bucket == STAKING_REWARDS {
                    rewards
                } else {
                    accounts.treasury
                };
                vesting.push(bucket.schedule(beneficiary, start, spent));
            }
        }
        let list = airdrop_list(accounts, AIRDROP.total)?;
        Ok(Self {
            allocations,
            vesting,
            airdrop: AirdropAllocation {
                address: AIRDROP.address,
                root: list.root(),
            },
        })
    }
}

/// The list of a development network's airdrop of `total`.
fn airdrop_list(accounts: &Accounts, total: Amount) -> Result<AirdropList, AirdropError> {
    let demo = Amount(1_000 * WEI_PER_OPG);
    AirdropList::new([(accounts.demo, demo), (accounts.treasury, total.saturating_sub(demo))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::FixedBytes;

    fn account(n: u8) -> Address {
        Address::repeat_byte(n)
    }

    #[test]
    fn supply_is_exact_for_any_number_of_validators() {
        for count in [1u8, 4, 16] {
            let validators = (0..count)
                .map(|i| ValidatorEntry {
                    name: format!("validator-{i}"),
                    identity: B256::repeat_byte(i + 1),
                    bls: FixedBytes::repeat_byte(i + 1),
                    bls_possession: FixedBytes::repeat_byte(i + 1),
                    system: account(50 + i),
                    operator: account(100 + i),
                })
                .collect();
            let accounts = Accounts {
                demo: account(1),
                faucet: account(2),
                creator: account(3),
                treasury: account(4),
                node_operator: account(5),
                settlement_key: account(6),
                receipt_key: B256::repeat_byte(7),
                hpke_key: B256::repeat_byte(8),
                evidence: EvidenceSetup {
                    owner: account(4),
                    policy: "{}".into(),
                    grace: 3_600,
                    development_roots: Vec::new(),
                },
                endpoint: "http://127.0.0.1:8610".into(),
                validators,
            };
            let file = build(&accounts, 1_800_000_000, parameters()).unwrap();
            assert!(file.development);
            assert_eq!(file.asks.len(), DEMO_MODELS.len());
            // The creator is not the node: the split of a charge is visible.
            assert_ne!(file.models[0].creator, file.nodes[0].operator);
            assert_eq!(GenesisFile::parse(file.to_json().as_bytes()).unwrap(), file);
            assert_eq!(file.parameters.treasury, addresses::TREASURY);
            assert_eq!(file.evidence.as_ref().unwrap().owner, addresses::TIMELOCK);

            // without governance and staking, the keys that a network had before
            let plain = parameters_with(r#"{"governance": null, "staking": null, "epoch_blocks": 0}"#).unwrap();
            let file = build(&accounts, 1_800_000_000, plain).unwrap();
            assert_eq!(file.parameters.treasury, accounts.treasury);
            assert_eq!(file.evidence.unwrap().owner, accounts.treasury);
        }
    }

    #[test]
    fn parameters_are_replaced_one_by_one() {
        let changed = parameters_with(r#"{"epoch_blocks": 6, "governance": {"voting_period": 3}}"#).unwrap();
        let usual = parameters();
        assert_eq!(changed.epoch_blocks, 6);
        let governance = changed.governance.unwrap();
        assert_eq!(governance.voting_period, 3);
        assert_eq!(
            governance.timelock_delay,
            usual.governance.as_ref().unwrap().timelock_delay
        );
        assert_eq!(changed.staking, usual.staking);
        for (wrong, field) in [
            (r#"{"epoch_block": 6}"#, "epoch_block"),
            (r#"{"governance": {"voting_perod": 3}}"#, "voting_perod"),
            (r#"{"epoch_blocks": "six"}"#, "six"),
            ("[]", "sequence"),
            ("{", "EOF"),
        ] {
            let error = parameters_with(wrong).unwrap_err().to_string();
            assert!(error.contains(field), "{wrong}: {error}");
        }
    }
}
