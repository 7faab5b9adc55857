//! From genesis file to genesis block.

use crate::{
    artifacts::{CHAIN_CONFIG, CREATE2_DEPLOYER_CODE},
    evm::{CallError, Evm},
};
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_genesis::{ChainConfig, Genesis};
use alloy_primitives::{Address, B256, Bytes, U256, Uint, keccak256};
use alloy_sol_types::{SolCall, SolConstructor, SolValue};
use opg_contracts::{
    Airdrop, BatchSettlement, ChainParameters, DepositAddress, Emission, Erc3009DepositCollector, EvidenceRegistry,
    ExactPermit2Proxy, FeatureTiers, FeeVault, GenesisFile, GenesisFileError, Governor, KeyProofs, ModelRegistry,
    Multicall3, NodeRegistry, OPG, Permit2, Permit2DepositCollector, PriceOracle, ReceiptLedger, Slashing, Staking,
    StakingParameters, TEERegistry, Timelock, Treasury, UniversalSigValidator, UptoPermit2Proxy, Vesting, addresses,
    genesis_file::SUPPLY, governance, staking::genesis_seats, supply::STAKING_REWARDS,
};
use opg_primitives::money::Price;
use std::collections::BTreeSet;

/// Base fee of block 0: 1 gwei.
const BASE_FEE: u128 = 1_000_000_000;

/// Why no genesis block could be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenesisError {
    /// The file breaks a rule.
    #[error(transparent)]
    File(#[from] GenesisFileError),
    /// A contract refused a step.
    #[error("genesis: {step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        /// The contract's answer.
        source: CallError,
    },
    /// The result breaks an invariant of block 0.
    #[error("genesis: {what}: expected {expected}, got {got}")]
    Invariant {
        /// Which quantity.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The built-in chain configuration does not parse.
    #[error("genesis: chain configuration: {0}")]
    Config(#[from] serde_json::Error),
}

/// Names the step in the error of a call.
trait Step<T> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, GenesisError>;
}

impl<T> Step<T> for Result<T, CallError> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, GenesisError> {
        self.map_err(|source| GenesisError::Step { step: what(), source })
    }
}

/// Builds the genesis block.
///
/// # Errors
/// [`GenesisError::File`] if the file is not valid, [`GenesisError::Step`] if a contract refuses what the file asks for.
pub fn build(file: &GenesisFile) -> Result<Genesis, GenesisError> {
    let evm = evm(file)?;
    let mut accounts: BTreeSet<Address> = file.allocations.iter().map(|allocation| allocation.address).collect();
    accounts.extend(
        addresses::PREDEPLOYS
            .into_iter()
            // What has no code in this network is no account of block 0.
            .filter(|address| !evm.code(*address).is_empty()),
    );
    accounts.extend(addresses::EIP_SYSTEM_CONTRACTS);
    let alloc = evm.dump(accounts);

    let total = alloc
        .values()
        .fold(U256::ZERO, |sum, account| sum.saturating_add(account.balance));
    if total != U256::from(SUPPLY) {
        return Err(GenesisError::Invariant {
            what: "native coin",
            expected: SUPPLY.to_string(),
            got: total.to_string(),
        });
    }
    let mut config: ChainConfig = serde_json::from_str(CHAIN_CONFIG)?;
    config.chain_id = file.chain_id;
    Ok(Genesis {
        config,
        timestamp: file.timestamp,
        extra_data: Bytes::copy_from_slice(file.digest().as_slice()),
        gas_limit: file.parameters.gas_limit,
        base_fee_per_gas: Some(BASE_FEE),
        alloc,
        ..Genesis::default()
    })
}

/// The EVM with the state of block 0, for tests and tools that want to run contracts on it.
///
/// # Errors
/// As [`build`].
pub fn evm(file: &GenesisFile) -> Result<Evm, GenesisError> {
    file.validate()?;
    let mut evm = Evm::new(file.chain_id, file.timestamp);
    // Commitments need a block number above zero.
    evm.set_number(1);
    deploy(&mut evm, file)?;
    allocate(&mut evm, file)?;
    deploy_buckets(&mut evm, file)?;
    deploy_staking(&mut evm, file)?;
    register_models(&mut evm, file)?;
    register_nodes(&mut evm, file)?;
    check_supply(&mut evm)?;
    Ok(evm)
}

fn deploy(evm: &mut Evm, file: &GenesisFile) -> Result<(), GenesisError> {
    let p = &file.parameters;
    // Bounded by `GenesisFile::validate`, so the conversions to 40 bits cannot fail.
    let seconds = |value: u64| alloy_primitives::Uint::<40, 1>::saturating_from(value);
    let evidence = file.evidence.as_ref();
    let contracts: [(Address, &str, &Bytes, Vec<u8>); 9] = [
        (addresses::OPG, "OPG", &OPG::BYTECODE, Vec::new()),
        (
            addresses::MODEL_REGISTRY,
            "ModelRegistry",
            &ModelRegistry::BYTECODE,
            ModelRegistry::constructorCall {
                maxRoyaltyBps_: p.max_royalty_bps,
                termsNotice_: seconds(p.terms_notice),
                claimWindow_: seconds(p.claim_window),
            }
            .abi_encode(),
        ),
        (
            addresses::NODE_REGISTRY,
            "NodeRegistry",
            &NodeRegistry::BYTECODE,
            NodeRegistry::constructorCall {
                opg_: addresses::OPG,
                models_: addresses::MODEL_REGISTRY,
                minBond_: p.min_bond.0,
                unbonding_: seconds(p.unbonding),
                slashing_: addresses::SLASHING,
            }
            .abi_encode(),
        ),
        (
            addresses::DEPOSIT_IMPLEMENTATION,
            "DepositAddress",
            &DepositAddress::BYTECODE,
            DepositAddress::constructorCall {
                opg_: addresses::OPG,
                vault_: addresses::FEE_VAULT,
            }
            .abi_encode(),
        ),
        (
            addresses::FEE_VAULT,
            "FeeVault",
            &FeeVault::BYTECODE,
            FeeVault::constructorCall {
                opg_: addresses::OPG,
                implementation_: addresses::DEPOSIT_IMPLEMENTATION,
                ledger_: addresses::RECEIPT_LEDGER,
            }
            .abi_encode(),
        ),
        (
            addresses::RECEIPT_LEDGER,
            "ReceiptLedger",
            &ReceiptLedger::BYTECODE,
            ReceiptLedger::constructorCall {
                opg_: addresses::OPG,
                nodes_: addresses::NODE_REGISTRY,
                models_: addresses::MODEL_REGISTRY,
                vault_: addresses::FEE_VAULT,
                channels_: addresses::BATCH_SETTLEMENT,
                permit2_: addresses::PERMIT2,
                exactProxy_: addresses::EXACT_PERMIT2_PROXY,
                uptoProxy_: addresses::UPTO_PERMIT2_PROXY,
                implementation_: addresses::DEPOSIT_IMPLEMENTATION,
                treasury_: p.treasury,
                windows: p.windows.by_code().map(seconds),
                staking_: addresses::STAKING,
                governance_: addresses::TIMELOCK,
            }
            .abi_encode(),
        ),
        (
            addresses::EVIDENCE_REGISTRY,
            "EvidenceRegistry",
            &EvidenceRegistry::BYTECODE,
            EvidenceRegistry::constructorCall {
                nodes_: addresses::NODE_REGISTRY,
                ledger_: addresses::RECEIPT_LEDGER,
                grace_: seconds(evidence.map_or(0, |setup| setup.grace)),
                // Without a setup nobody can ever set a policy.
                owner_: evidence.map_or(Address::ZERO, |setup| setup.owner),
                policy_: evidence
                    .map(|setup| setup.policy.clone().into_bytes().into())
                    .unwrap_or_default(),
            }
            .abi_encode(),
        ),
        (
            addresses::TEE_REGISTRY,
            "TEERegistry",
            &TEERegistry::BYTECODE,
            TEERegistry::constructorCall {
                evidence_: addresses::EVIDENCE_REGISTRY,
            }
            .abi_encode(),
        ),
        (addresses::MULTICALL3, "Multicall3", &Multicall3::BYTECODE, Vec::new()),
    ];
    for (address, name, bytecode, arguments) in contracts {
        construct(evm, address, name, bytecode, &arguments)?;
    }
    deploy_x402(evm)?;
    deploy_governed(evm, file)?;
    for (address, code) in [
        (addresses::CREATE2_DEPLOYER, &CREATE2_DEPLOYER_CODE),
        (eip4788::BEACON_ROOTS_ADDRESS, &eip4788::BEACON_ROOTS_CODE),
        (eip2935::HISTORY_STORAGE_ADDRESS, &eip2935::HISTORY_STORAGE_CODE),
        (
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
            &eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE,
        ),
        (
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
            &eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE,
        ),
    ] {
        evm.set_code(address, code.clone());
    }
    Ok(())
}

/// What governance decides about, and governance itself if the file has any. The timelock's address is their owner in either case:
/// without code there, nobody has these powers.
fn deploy_governed(evm: &mut Evm, file: &GenesisFile) -> Result<(), GenesisError> {
    let governed = addresses::TIMELOCK;
    let parameters = ChainParameters::constructorCall {
        governance_: governed,
        gasLimit: file.parameters.gas_limit,
        verificationBudget: governance::VERIFICATION_BUDGET,
    };
    let tiers = FeatureTiers::constructorCall {
        governance_: governed,
        opg_: addresses::OPG,
        staking_: addresses::STAKING,
        tiers_: governance::default_tiers(),
    };
    let oracle = PriceOracle::constructorCall {
        governance_: governed,
        validators_: addresses::STAKING,
        minFeeds_: governance::MIN_FEEDS,
        maxAge_: governance::MAX_PRICE_AGE,
    };
    let treasury = Treasury::constructorCall { governance_: governed };
    let contracts: [(Address, &str, &Bytes, Vec<u8>); 4] = [
        (
            addresses::CHAIN_PARAMETERS,
            "ChainParameters",
            &ChainParameters::BYTECODE,
            parameters.abi_encode(),
        ),
        (
            addresses::FEATURE_TIERS,
            "FeatureTiers",
            &FeatureTiers::BYTECODE,
            tiers.abi_encode(),
        ),
        (
            addresses::PRICE_ORACLE,
            "PriceOracle",
            &PriceOracle::BYTECODE,
            oracle.abi_encode(),
        ),
        (
            addresses::TREASURY,
            "Treasury",
            &Treasury::BYTECODE,
            treasury.abi_encode(),
        ),
    ];
    for (address, name, bytecode, arguments) in contracts {
        construct(evm, address, name, bytecode, &arguments)?;
    }
    let Some(g) = &file.parameters.governance else {
        return Ok(());
    };
    let guardian = g.guardian.as_ref();
    let timelock = Timelock::constructorCall {
        delay: U256::from(g.timelock_delay),
        governor: addresses::GOVERNOR,
        guardian_: guardian.map_or(Address::ZERO, |guardian| guardian.account),
        // Bounded by `GenesisFile::validate`, as the periods below are.
        guardianUntil_: Uint::<40, 1>::saturating_from(guardian.map_or(0, |guardian| guardian.until)),
    };
    construct(
        evm,
        addresses::TIMELOCK,
        "Timelock",
        &Timelock::BYTECODE,
        &timelock.abi_encode(),
    )?;
    let governor = Governor::constructorCall {
        opg_: addresses::OPG,
        staking_: addresses::STAKING,
        timelock_: addresses::TIMELOCK,
        settings: Governor::Settings {
            votingDelay: Uint::<48, 1>::saturating_from(g.voting_delay),
            votingPeriod: u32::try_from(g.voting_period).unwrap_or(u32::MAX),
            proposalThreshold: g.proposal_threshold.to_u256(),
            quorumBps: U256::from(g.quorum_bps),
        },
    };
    construct(
        evm,
        addresses::GOVERNOR,
        "Governor",
        &Governor::BYTECODE,
        &governor.abi_encode(),
    )
}

/// The contracts of x402 payments, at the addresses that clients have built in.
fn deploy_x402(evm: &mut Evm) -> Result<(), GenesisError> {
    let exact = ExactPermit2Proxy::constructorCall {
        permit2_: addresses::PERMIT2,
    };
    let upto = UptoPermit2Proxy::constructorCall {
        permit2_: addresses::PERMIT2,
    };
    let by_authorization = Erc3009DepositCollector::constructorCall {
        settlement: addresses::BATCH_SETTLEMENT,
    };
    let by_permit = Permit2DepositCollector::constructorCall {
        settlement: addresses::BATCH_SETTLEMENT,
        permit2_: addresses::PERMIT2,
    };
    let contracts: [(Address, &str, &Bytes, Vec<u8>); 7] = [
        (addresses::PERMIT2, "Permit2", &Permit2::BYTECODE, Vec::new()),
        (
            addresses::EXACT_PERMIT2_PROXY,
            "ExactPermit2Proxy",
            &ExactPermit2Proxy::BYTECODE,
            exact.abi_encode(),
        ),
        (
            addresses::UPTO_PERMIT2_PROXY,
            "UptoPermit2Proxy",
            &UptoPermit2Proxy::BYTECODE,
            upto.abi_encode(),
        ),
        (
            addresses::BATCH_SETTLEMENT,
            "BatchSettlement",
            &BatchSettlement::BYTECODE,
            Vec::new(),
        ),
        (
            addresses::ERC3009_DEPOSIT_COLLECTOR,
            "Erc3009DepositCollector",
            &Erc3009DepositCollector::BYTECODE,
            by_authorization.abi_encode(),
        ),
        (
            addresses::PERMIT2_DEPOSIT_COLLECTOR,
            "Permit2DepositCollector",
            &Permit2DepositCollector::BYTECODE,
            by_permit.abi_encode(),
        ),
        (
            addresses::UNIVERSAL_SIG_VALIDATOR,
            "UniversalSigValidator",
            &UniversalSigValidator::BYTECODE,
            Vec::new(),
        ),
    ];
    for (address, name, bytecode, arguments) in contracts {
        construct(evm, address, name, bytecode, &arguments)?;
    }
    Ok(())
}

fn construct(
    evm: &mut Evm,
    address: Address,
    name: &str,
    bytecode: &Bytes,
    arguments: &[u8],
) -> Result<(), GenesisError> {
    let init_code = [bytecode.as_ref(), arguments].concat();
    evm.construct(address, init_code.into())
        .step(|| format!("constructor of {name}"))
}

fn allocate(evm: &mut Evm, file: &GenesisFile) -> Result<(), GenesisError> {
    for allocation in &file.allocations {
        let (native, wrapped) = (allocation.native.to_u256(), allocation.wrapped.to_u256());
        evm.set_balance(allocation.address, native + wrapped);
        if !wrapped.is_zero() {
            evm.send(
                allocation.address,
                addresses::OPG,
                wrapped,
                OPG::depositCall {}.abi_encode().into(),
            )
            .step(|| format!("wrapping the allocation of {}", allocation.label))?;
        }
    }
    Ok(())
}

/// The contracts that hold allocations, over what was allocated to their addresses.
fn deploy_buckets(evm: &mut Evm, file: &GenesisFile) -> Result<(), GenesisError> {
    let seconds = |value: u64| alloy_primitives::Uint::<40, 1>::saturating_from(value);
    let allocated = |address: Address| {
        let found = file.allocations.iter().find(|allocation| allocation.address == address);
        // `validate` has found it.
        found.map_or(U256::ZERO, |allocation| allocation.wrapped.to_u256())
    };
    for schedule in &file.vesting {
        let arguments = Vesting::constructorCall {
            opg_: addresses::OPG,
            beneficiary_: schedule.beneficiary,
            total_: allocated(schedule.address),
            atStart_: schedule.at_start.to_u256(),
            start_: seconds(schedule.start),
            cliff_: seconds(schedule.cliff),
            duration_: seconds(schedule.duration),
        };
        let init_code = [Vesting::BYTECODE.as_ref(), &arguments.abi_encode()].concat();
        evm.construct(schedule.address, init_code.into())
            .step(|| format!("constructor of the vesting contract {}", schedule.address))?;
    }
    if let Some(airdrop) = &file.airdrop {
        let arguments = Airdrop::constructorCall {
            opg_: addresses::OPG,
            root_: airdrop.root,
            total_: allocated(airdrop.address),
        };
        let init_code = [Airdrop::BYTECODE.as_ref(), &arguments.abi_encode()].concat();
        evm.construct(airdrop.address, init_code.into())
            .step(|| "constructor of the airdrop".into())?;
    }
    Ok(())
}

/// Validators with their stake. Without parameters in the file they have none, and the documented defaults hold.
fn deploy_staking(evm: &mut Evm, file: &GenesisFile) -> Result<(), GenesisError> {
    let seconds = |value: u64| alloy_primitives::Uint::<40, 1>::saturating_from(value);
    let p = file.parameters.staking.unwrap_or_default();
    let has_bucket = file
        .vesting
        .iter()
        .any(|schedule| schedule.address == STAKING_REWARDS.address && schedule.beneficiary == addresses::EMISSION);
    let emission = Emission::constructorCall {
        bucket_: if has_bucket {
            STAKING_REWARDS.address
        } else {
            Address::ZERO
        },
        staking_: addresses::STAKING,
        governance_: addresses::TIMELOCK,
        auditorsPpm: p.auditors_ppm,
        nodesPpm: p.nodes_ppm,
    };
    let bond = file.parameters.staking.map_or(0, |p| p.min_self_bond.0);
    for validator in file.validators.iter().filter(|_| bond != 0) {
        let approve = OPG::approveCall {
            spender: addresses::STAKING,
            value: U256::from(bond),
        };
        evm.call(validator.operator, addresses::OPG, approve)
            .step(|| format!("bond of {}", validator.name))?;
    }
    let staking = Staking::constructorCall {
        opg_: addresses::OPG,
        keyProofs_: addresses::KEY_PROOFS,
        governance_: addresses::TIMELOCK,
        slashing_: addresses::SLASHING,
        emission_: addresses::EMISSION,
        parameters_: staking_parameters(&p),
        genesis: genesis_seats(file)
            .into_iter()
            .map(|seat| Staking::GenesisSeat { seat, bond })
            .collect(),
    };
    let slashing = Slashing::constructorCall {
        opg_: addresses::OPG,
        staking_: addresses::STAKING,
        nodes_: addresses::NODE_REGISTRY,
        governance_: addresses::TIMELOCK,
        parameters_: Slashing::Parameters {
            minBond: p.challenger_bond.0,
            appealWindow: seconds(p.appeal_window),
            equivocationPpm: p.equivocation_ppm,
            downtimePpm: p.downtime_ppm,
            correlation: p.correlation,
        },
    };
    for (address, name, bytecode, arguments) in [
        (addresses::KEY_PROOFS, "KeyProofs", &KeyProofs::BYTECODE, Vec::new()),
        (
            addresses::EMISSION,
            "Emission",
            &Emission::BYTECODE,
            emission.abi_encode(),
        ),
        (addresses::STAKING, "Staking", &Staking::BYTECODE, staking.abi_encode()),
        (
            addresses::SLASHING,
            "Slashing",
            &Slashing::BYTECODE,
            slashing.abi_encode(),
        ),
    ] {
        construct(evm, address, name, bytecode, &arguments)?;
    }
    Ok(())
}

fn staking_parameters(p: &StakingParameters) -> Staking::Parameters {
    let seconds = |value: u64| alloy_primitives::Uint::<40, 1>::saturating_from(value);
    Staking::Parameters {
        minSelfBond: p.min_self_bond.0,
        unbonding: seconds(p.unbonding),
        jailTime: seconds(p.jail_time),
        maxSeats: p.max_seats,
        commissionStep: p.commission_step,
        minViews: p.min_views,
        minLedPpm: p.min_led_ppm,
    }
}

fn register_models(evm: &mut Evm, file: &GenesisFile) -> Result<(), GenesisError> {
    let salt = B256::ZERO;
    for model in &file.models {
        let commitment = keccak256((model.root, model.creator, salt).abi_encode());
        evm.call(
            model.creator,
            addresses::MODEL_REGISTRY,
            ModelRegistry::commitCall { commitment },
        )
        .step(|| format!("commitment to model {}", model.name))?;
    }
    evm.set_number(3);
    for model in &file.models {
        let call = ModelRegistry::revealCall {
            modelRoot: model.root,
            salt,
            name: model.name.clone(),
            uri: model.uri.clone(),
            royaltyBps: model.royalty_bps,
            price: ModelRegistry::Price {
                perCall: model.price.per_call.0,
                perMtokIn: model.price.per_mtok_in.0,
                perMtokOut: model.price.per_mtok_out.0,
            },
        };
        evm.call(model.creator, addresses::MODEL_REGISTRY, call)
            .step(|| format!("registration of model {}", model.name))?;
        for program in &model.programs {
            let call = ModelRegistry::registerProgramCall {
                modelRoot: model.root,
                program: program.root,
                report: program.report.clone(),
            };
            evm.call(model.creator, addresses::MODEL_REGISTRY, call)
                .step(|| format!("registration of program {} of model {}", program.root, model.name))?;
        }
    }
    Ok(())
}

fn register_nodes(evm: &mut Evm, file: &GenesisFile) -> Result<(), GenesisError> {
    for node in &file.nodes {
        let name = || format!("registration of node {}", node.endpoint);
        let approve = OPG::approveCall {
            spender: addresses::NODE_REGISTRY,
            value: node.bond.to_u256(),
        };
        evm.call(node.operator, addresses::OPG, approve).step(name)?;
        let register = NodeRegistry::registerCall {
            salt: node.salt,
            endpoint: node.endpoint.clone(),
            keyset: NodeRegistry::Keyset {
                receiptKey: node.receipt_key,
                settlementKey: node.settlement_key,
                hpkeKey: node.hpke_key,
                tlsSpki: B256::ZERO,
            },
            bond: node.bond.0,
        };
        evm.call(node.operator, addresses::NODE_REGISTRY, register).step(name)?;
    }
    for ask in &file.asks {
        let operator = file
            .nodes
            .iter()
            .find(|node| node.node_id() == ask.node_id)
            .map(|node| node.operator);
        let call = NodeRegistry::setAskCall {
            nodeId: ask.node_id,
            modelRoot: ask.root,
            ask: node_price(&ask.price),
        };
        // `validate` has found the node; an unknown operator would be refused by the registry.
        evm.call(operator.unwrap_or_default(), addresses::NODE_REGISTRY, call)
            .step(|| format!("ask of node {} for model {}", ask.node_id, ask.root))?;
    }
    Ok(())
}

fn node_price(price: &Price) -> NodeRegistry::Price {
    NodeRegistry::Price {
        perCall: price.per_call.0,
        perMtokIn: price.per_mtok_in.0,
        perMtokOut: price.per_mtok_out.0,
    }
}

/// Wrapped OPG is backed by native coin, wei for wei.
fn check_supply(evm: &mut Evm) -> Result<(), GenesisError> {
    let wrapped = evm
        .view(addresses::OPG, OPG::totalSupplyCall {})
        .step(|| "reading the supply".into())?;
    let backing = evm.balance(addresses::OPG);
    if wrapped != backing {
        return Err(GenesisError::Invariant {
            what: "coin behind wrapped OPG",
            expected: wrapped.to_string(),
            got: backing.to_string(),
        });
    }
    Ok(())
}
