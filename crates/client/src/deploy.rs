//! Contracts that belong on the chain where OPG lives (decisions D5), from a plan file.
//!
//! Every contract goes through the deterministic CREATE2 deployer, so its address follows from its code, its constructor's arguments and the
//! plan's salt: the plan is the state, and running it again deploys only what is not there yet. What is at an address must be what the
//! constructor leaves there, which is computed here in an EVM; anything else is an error and nothing is sent.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use alloy_sol_types::SolConstructor;
use opg_contracts::{
    BatchSettlement, Checkpoint, DepositAddress, Erc3009DepositCollector, ExactPermit2Proxy, HomeFeeVault, OPG,
    Payouts, Permit2, Permit2DepositCollector, UniversalSigValidator, UptoPermit2Proxy, addresses, payouts,
    seats::{self, Seat},
    staking::genesis_seats,
};
use opg_genesis::evm::Evm;
use opg_light_client::{Epochs, ProofError, onchain};
use opg_primitives::money::Amount;
use opg_receipt::file::HandOver;
use serde::{Deserialize, Serialize};

use crate::{Client, ClientError, EvmChain, HomeContracts, HomeEntry, NetworkError, Sent, wallet::Wallet};

/// OPG on Base.
pub const CANONICAL_OPG: Address = address!("0xFbC2051AE2265686a469421b2C5A2D5462FbF5eB");
/// Largest plan file.
const MAX_PLAN: u64 = 1 << 16;
/// Most endpoints of a plan.
const MAX_RPC: usize = 16;

/// What is to be deployed where. Read strictly: an unknown field is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name of the home chain, as on the command line: `base`.
    pub home: String,
    /// Its EIP-155 id.
    pub chain_id: u64,
    /// Its JSON-RPC endpoints.
    pub rpc: Vec<String>,
    /// Account that sends the transactions; absent: whichever wallet is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployer: Option<Address>,
    /// Salt of all addresses; absent: a hash of the network's genesis, so that networks do not meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<B256>,
    /// Whether an OPG of no value may be deployed where the canonical one is not.
    #[serde(default)]
    pub development_opg: bool,
    /// Whether x402 contracts are deployed where they are absent.
    #[serde(default)]
    pub x402: bool,
    /// Epoch of the set that the checkpoint contract believes first; 0: the genesis validators.
    #[serde(default)]
    pub epoch: u64,
}

/// Why nothing, or not everything, was deployed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// The plan does not parse, or contradicts itself.
    #[error("plan: {0}")]
    Plan(String),
    /// The wallet is another account than the plan's deployer.
    #[error("the plan's deployer is {expected}, the wallet is {got}; name its key with --key")]
    Deployer {
        /// Of the plan.
        expected: Address,
        /// Of the wallet.
        got: Address,
    },
    /// The deployer contract is missing.
    #[error(
        "chain {chain_id} has no CREATE2 deployer at {}; send its well-known presigned transaction first",
        addresses::CREATE2_DEPLOYER
    )]
    NoDeployer {
        /// The chain.
        chain_id: u64,
    },
    /// There is no OPG, and the plan allows no other.
    #[error(
        "chain {chain_id} has no OPG at {CANONICAL_OPG}; on a development chain, say `\"development_opg\": true` in the plan"
    )]
    NoOpg {
        /// The chain.
        chain_id: u64,
    },
    /// Something is at OPG's address that is not OPG.
    #[error("what is at {CANONICAL_OPG} on chain {chain_id} is not OPG: {what}")]
    NotOpg {
        /// The chain.
        chain_id: u64,
        /// What does not fit.
        what: String,
    },
    /// Other code is at the address.
    #[error(
        "{name}: {address} on chain {chain_id} has other code (hash {got}) than this plan leaves there (hash {expected})"
    )]
    WrongCode {
        /// The contract.
        name: &'static str,
        /// The address.
        address: Address,
        /// The chain.
        chain_id: u64,
        /// Hash of the right code.
        expected: B256,
        /// Hash of what is there.
        got: B256,
    },
    /// The network file has another deployment.
    #[error(
        "{name}: the network file says {recorded}, this plan leads to {planned}; --replace takes the new one, and leaves what the old one holds where it is"
    )]
    Recorded {
        /// The contract.
        name: &'static str,
        /// Of the network file.
        recorded: Address,
        /// Of the plan.
        planned: Address,
    },
    /// A constructor refuses its arguments.
    #[error("{name}: its constructor fails: {reason}")]
    Constructor {
        /// The contract.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The set of the plan's epoch is not proved.
    #[error("validators of epoch {epoch}: {source}")]
    Set {
        /// The epoch.
        epoch: u64,
        /// What does not hold.
        source: ProofError,
    },
    /// The network has not reached the epoch.
    #[error("the network has not reached epoch {epoch}; its newest is {newest}")]
    Epoch {
        /// Of the plan.
        epoch: u64,
        /// Of the network.
        newest: u64,
    },
    /// A chain does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The network file cannot be written.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl DeployError {
    /// Whether the caller's input is at fault.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Plan(_) | Self::Deployer { .. } | Self::NoOpg { .. } | Self::Epoch { .. } => true,
            Self::Client(error) => error.is_input(),
            _ => false,
        }
    }
}

/// Which of the two chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// Where OPG lives.
    Home,
    /// The network.
    Network,
}

/// One contract of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// Where it goes.
    pub on: On,
    /// Address that follows from the code below.
    pub address: Address,
    /// Constructor and arguments.
    pub init_code: Bytes,
    /// What the constructor leaves.
    pub code: Bytes,
}

impl Step {
    fn new(
        on: On,
        chain_id: u64,
        salt: B256,
        name: &'static str,
        bytecode: &Bytes,
        arguments: &[u8],
    ) -> Result<Self, DeployError> {
        let init_code: Bytes = [bytecode.as_ref(), arguments].concat().into();
        let address = addresses::CREATE2_DEPLOYER.create2_from_code(salt, &init_code);
        let code = constructed(chain_id, name, address, &init_code)?;
        Ok(Self {
            name,
            on,
            address,
            init_code,
            code,
        })
    }
}

/// The code that a constructor leaves at an address.
fn constructed(chain_id: u64, name: &'static str, address: Address, init_code: &Bytes) -> Result<Bytes, DeployError> {
    let mut evm = Evm::new(chain_id, 1);
    evm.construct(address, init_code.clone())
        .map_err(|error| DeployError::Constructor {
            name,
            reason: error.to_string(),
        })?;
    Ok(evm.code(address))
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "standing")]
pub enum Standing {
    /// The right code is there.
    There,
    /// To be sent.
    Missing {
        /// Gas that it would use now.
        gas: u64,
        /// What that costs now, wei of the chain's coin.
        cost: Amount,
    },
}

/// A plan with what the chains say about it.
#[derive(Debug)]
pub struct Deployment {
    salt: B256,
    home: EvmChain,
    network: EvmChain,
    /// The contracts, in the order of deployment, and how far each is.
    pub steps: Vec<(Step, Standing)>,
    /// What the network file will say.
    pub entry: HomeEntry,
}

impl Plan {
    /// Reads a plan (JSON).
    ///
    /// # Errors
    /// [`DeployError::Plan`] naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, DeployError> {
        if bytes.len() as u64 > MAX_PLAN {
            return Err(DeployError::Plan(format!("larger than {MAX_PLAN} bytes")));
        }
        let plan: Self = serde_json::from_slice(bytes).map_err(|error| DeployError::Plan(error.to_string()))?;
        if plan.home.is_empty() || plan.home.len() > 32 || !plan.home.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(DeployError::Plan(
                "field `home`: expected up to 32 letters and digits".into(),
            ));
        }
        if plan.rpc.is_empty() || plan.rpc.len() > MAX_RPC {
            let got = plan.rpc.len();
            return Err(DeployError::Plan(format!(
                "field `rpc`: expected 1 to {MAX_RPC} endpoints, got {got}"
            )));
        }
        Ok(plan)
    }
}

impl Client {
    /// Looks at both chains: what of the plan is there, what is missing and what it would cost. Sends nothing. `deployer` is the
    /// account that would.
    ///
    /// # Errors
    /// [`DeployError`]: also if an address of the plan has other code, or if the network file has another deployment and `replace` is not set.
    pub async fn plan_deployment(
        &self,
        plan: &Plan,
        deployer: Address,
        replace: bool,
    ) -> Result<Deployment, DeployError> {
        if let Some(expected) = plan.deployer.filter(|expected| *expected != deployer) {
            return Err(DeployError::Deployer {
                expected,
                got: deployer,
            });
        }
        let network_id = self.network().genesis.chain_id;
        if plan.chain_id == network_id {
            return Err(DeployError::Plan(format!(
                "field `chain_id`: {network_id} is the network itself"
            )));
        }
        let home = EvmChain::connect(plan.rpc.clone(), plan.chain_id).await?;
        let network = EvmChain::connect(self.network().file.rpc.clone(), network_id).await?;
        for chain in [&home, &network] {
            if chain.code(addresses::CREATE2_DEPLOYER).await?.is_empty() {
                let chain_id = chain.chain_id();
                return Err(DeployError::NoDeployer { chain_id });
            }
        }
        let digest = self.network().genesis.digest();
        let salt = plan
            .salt
            .unwrap_or_else(|| keccak256([b"opg/home/v1".as_slice(), digest.as_slice()].concat()));
        let mut list = Steps {
            plan,
            salt,
            steps: Vec::new(),
        };
        let opg = list.opg(&home).await?;
        let x402 = list.x402(&home).await?;
        let set = self.set(plan.epoch).await?;
        let keys = onchain::keys(&set).map_err(|source| DeployError::Set {
            epoch: plan.epoch,
            source,
        })?;
        let checkpoint = Checkpoint::constructorCall {
            staking_: addresses::STAKING,
            ledger_: addresses::RECEIPT_LEDGER,
            genesisDigest: digest,
            epoch_: plan.epoch,
            set: set.iter().map(checkpoint_seat).collect(),
            order: keys.order.into(),
            ys: keys.ys.into(),
        };
        let checkpoint = list.home("Checkpoint", &Checkpoint::BYTECODE, &checkpoint.abi_encode())?;
        let payouts_call = Payouts::constructorCall {
            staking_: addresses::STAKING,
        };
        let step = Step::new(
            On::Network,
            network_id,
            salt,
            "Payouts",
            &Payouts::BYTECODE,
            &payouts_call.abi_encode(),
        )?;
        let payouts = step.address;
        list.steps.push(step);
        let vault = HomeFeeVault::constructorCall {
            opg_: opg,
            checkpoint_: checkpoint,
            payouts_: payouts,
            payoutSlot_: payouts::ROOT_SLOT.into(),
        };
        let fee_vault = list.home("HomeFeeVault", &HomeFeeVault::BYTECODE, &vault.abi_encode())?;
        let entry = HomeEntry {
            name: plan.home.clone(),
            chain_id: plan.chain_id,
            rpc: plan.rpc.clone(),
            contracts: HomeContracts {
                opg,
                opg_development: opg != CANONICAL_OPG,
                checkpoint,
                fee_vault,
                // The vault's constructor creates it: the first creation of an account.
                deposit_implementation: fee_vault.create(1),
                payouts,
                x402,
            },
        };
        if let Some(recorded) = self.network().file.home.as_ref().filter(|_| !replace) {
            same_deployment(&recorded.contracts, &entry.contracts)?;
        }
        let mut steps = Vec::new();
        for step in list.steps {
            let chain = match step.on {
                On::Home => &home,
                On::Network => &network,
            };
            let standing = match stands(chain, &step).await? {
                true => Standing::There,
                false => {
                    let input = calldata(salt, &step);
                    let gas = chain.estimate(deployer, addresses::CREATE2_DEPLOYER, &input).await?;
                    let cost = chain.gas_price().await?.cost(gas);
                    Standing::Missing { gas, cost }
                }
            };
            steps.push((step, standing));
        }
        Ok(Deployment {
            salt,
            home,
            network,
            steps,
            entry,
        })
    }

    /// The seats of an epoch, proved from the genesis.
    async fn set(&self, epoch: u64) -> Result<Vec<Seat>, DeployError> {
        let genesis = &self.network().genesis;
        if epoch == 0 {
            return Ok(genesis_seats(genesis)
                .iter()
                .map(|seat| Seat {
                    operator: seat.operator,
                    identity: seat.consensusKey,
                    bls: alloy_primitives::FixedBytes::try_from(seat.blsKey.as_ref()).unwrap_or_default(),
                    system: seat.system,
                })
                .collect());
        }
        let unproved = |source| DeployError::Set { epoch, source };
        let mut epochs = Epochs::from_genesis(genesis).map_err(unproved)?;
        let handovers: Vec<HandOver> = self.handovers().await?;
        for handover in &handovers {
            epochs.advance(handover).map_err(unproved)?;
            if handover.epoch == epoch {
                return seats::decode(&handover.seats).map_err(|error| unproved(error.into()));
            }
        }
        let newest = epochs.last();
        Err(DeployError::Epoch { epoch, newest })
    }
}

pub(crate) fn checkpoint_seat(seat: &Seat) -> Checkpoint::Seat {
    Checkpoint::Seat {
        operator: seat.operator,
        consensusKey: seat.identity,
        blsKey: seat.bls.to_vec().into(),
        system: seat.system,
    }
}

impl Deployment {
    /// Transactions that are still to be sent.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.steps
            .iter()
            .filter(|(_, standing)| *standing != Standing::There)
            .count()
    }

    /// Sends what is missing, one after the other, and checks what it leaves. `sent` hears of each. What was sent when it fails is
    /// found by the next run.
    ///
    /// # Errors
    /// [`DeployError`].
    pub async fn run(&self, wallet: &Wallet, mut sent: impl FnMut(&Step, &Sent)) -> Result<(), DeployError> {
        for (step, standing) in &self.steps {
            let chain = self.chain(step.on);
            if *standing != Standing::There {
                let input = calldata(self.salt, step);
                let transaction = chain
                    .send(wallet, addresses::CREATE2_DEPLOYER, U256::ZERO, input)
                    .await?;
                sent(step, &transaction);
            }
            if !stands(chain, step).await? {
                return Err(wrong_code(step, chain, &Bytes::new()));
            }
        }
        let contracts = &self.entry.contracts;
        let implementation = DepositAddress::constructorCall {
            opg_: contracts.opg,
            vault_: contracts.fee_vault,
        };
        let (name, address) = ("DepositAddress", contracts.deposit_implementation);
        let init_code: Bytes = [DepositAddress::BYTECODE.as_ref(), &implementation.abi_encode()]
            .concat()
            .into();
        let step = Step {
            name,
            on: On::Home,
            address,
            code: constructed(self.entry.chain_id, name, address, &init_code)?,
            init_code,
        };
        match stands(&self.home, &step).await? {
            true => Ok(()),
            false => Err(wrong_code(&step, &self.home, &Bytes::new())),
        }
    }

    fn chain(&self, on: On) -> &EvmChain {
        match on {
            On::Home => &self.home,
            On::Network => &self.network,
        }
    }

    /// Input of the transaction of a step, for the CREATE2 deployer.
    #[must_use]
    pub fn input(&self, step: &Step) -> Bytes {
        calldata(self.salt, step)
    }
}

fn calldata(salt: B256, step: &Step) -> Bytes {
    [salt.as_slice(), &step.init_code].concat().into()
}

/// Whether a step's code is there; other code is an error.
async fn stands(chain: &EvmChain, step: &Step) -> Result<bool, DeployError> {
    let code = chain.code(step.address).await?;
    match code.is_empty() {
        true => Ok(false),
        false if code == step.code => Ok(true),
        false => Err(wrong_code(step, chain, &code)),
    }
}

fn wrong_code(step: &Step, chain: &EvmChain, code: &Bytes) -> DeployError {
    DeployError::WrongCode {
        name: step.name,
        address: step.address,
        chain_id: chain.chain_id(),
        expected: keccak256(&step.code),
        got: keccak256(code),
    }
}

fn same_deployment(recorded: &HomeContracts, planned: &HomeContracts) -> Result<(), DeployError> {
    for (name, recorded, planned) in [
        ("OPG", recorded.opg, planned.opg),
        ("Checkpoint", recorded.checkpoint, planned.checkpoint),
        ("Payouts", recorded.payouts, planned.payouts),
        ("HomeFeeVault", recorded.fee_vault, planned.fee_vault),
    ] {
        if recorded != planned {
            return Err(DeployError::Recorded {
                name,
                recorded,
                planned,
            });
        }
    }
    Ok(())
}

/// Contracts of a plan as they come together.
struct Steps<'a> {
    plan: &'a Plan,
    salt: B256,
    steps: Vec<Step>,
}

impl Steps<'_> {
    fn home(&mut self, name: &'static str, bytecode: &Bytes, arguments: &[u8]) -> Result<Address, DeployError> {
        let step = Step::new(On::Home, self.plan.chain_id, self.salt, name, bytecode, arguments)?;
        let address = step.address;
        self.steps.push(step);
        Ok(address)
    }

    /// The canonical OPG where it exists, else a development one if the plan allows it.
    async fn opg(&mut self, home: &EvmChain) -> Result<Address, DeployError> {
        let chain_id = home.chain_id();
        if home.code(CANONICAL_OPG).await?.is_empty() {
            return match self.plan.development_opg {
                true => self.home("OPG", &OPG::BYTECODE, &[]),
                false => Err(DeployError::NoOpg { chain_id }),
            };
        }
        let not_opg = |what: String| DeployError::NotOpg { chain_id, what };
        let symbol = home.view(CANONICAL_OPG, OPG::symbolCall {}).await;
        let symbol = symbol.map_err(|error| not_opg(error.to_string()))?;
        let decimals = home.view(CANONICAL_OPG, OPG::decimalsCall {}).await;
        let decimals = decimals.map_err(|error| not_opg(error.to_string()))?;
        match symbol == "OPG" && decimals == 18 {
            true => Ok(CANONICAL_OPG),
            false => Err(not_opg(format!(
                "symbol {:?} with {decimals} decimals",
                crate::text::one_line(&symbol, 40)
            ))),
        }
    }

    /// The x402 contracts: where clients expect them if they are there, else our own elsewhere.
    async fn x402(&mut self, home: &EvmChain) -> Result<BTreeMap<String, Address>, DeployError> {
        let mut found = BTreeMap::new();
        if !self.plan.x402 {
            return Ok(found);
        }
        let permit2 = self
            .usual(home, "Permit2", addresses::PERMIT2, &Permit2::BYTECODE, &[])
            .await?;
        let batch = self
            .usual(
                home,
                "BatchSettlement",
                addresses::BATCH_SETTLEMENT,
                &BatchSettlement::BYTECODE,
                &[],
            )
            .await?;
        let exact = ExactPermit2Proxy::constructorCall { permit2_: permit2 }.abi_encode();
        let upto = UptoPermit2Proxy::constructorCall { permit2_: permit2 }.abi_encode();
        let erc3009 = Erc3009DepositCollector::constructorCall { settlement: batch }.abi_encode();
        let collector = Permit2DepositCollector::constructorCall {
            settlement: batch,
            permit2_: permit2,
        }
        .abi_encode();
        found.insert("Permit2".to_owned(), permit2);
        found.insert("BatchSettlement".to_owned(), batch);
        for (name, address, bytecode, arguments) in [
            (
                "ExactPermit2Proxy",
                addresses::EXACT_PERMIT2_PROXY,
                &ExactPermit2Proxy::BYTECODE,
                exact,
            ),
            (
                "UptoPermit2Proxy",
                addresses::UPTO_PERMIT2_PROXY,
                &UptoPermit2Proxy::BYTECODE,
                upto,
            ),
            (
                "Erc3009DepositCollector",
                addresses::ERC3009_DEPOSIT_COLLECTOR,
                &Erc3009DepositCollector::BYTECODE,
                erc3009,
            ),
            (
                "Permit2DepositCollector",
                addresses::PERMIT2_DEPOSIT_COLLECTOR,
                &Permit2DepositCollector::BYTECODE,
                collector,
            ),
            (
                "UniversalSigValidator",
                addresses::UNIVERSAL_SIG_VALIDATOR,
                &UniversalSigValidator::BYTECODE,
                Vec::new(),
            ),
        ] {
            let at = self.usual(home, name, address, bytecode, &arguments).await?;
            found.insert(name.to_owned(), at);
        }
        Ok(found)
    }

    /// A contract at its usual address if there is code; whose implementation that is, is not for us to say.
    async fn usual(
        &mut self,
        home: &EvmChain,
        name: &'static str,
        address: Address,
        bytecode: &Bytes,
        arguments: &[u8],
    ) -> Result<Address, DeployError> {
        match home.code(address).await?.is_empty() {
            true => self.home(name, bytecode, arguments),
            false => Ok(address),
        }
    }
}
