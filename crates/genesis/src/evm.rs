//! An EVM in memory: enough to build a genesis state and to test contracts against it.

use alloy_genesis::{Genesis, GenesisAccount};
use alloy_primitives::{Address, B256, Bytes, Log, U256};
use alloy_sol_types::SolCall;
use opg_contracts::StateReader;
use revm::{
    Context, DatabaseRef, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext, MainnetEvm,
    bytecode::Bytecode,
    context::{BlockEnv, CfgEnv, Journal, TxEnv, result::ExecutionResult},
    database::{CacheDB, EmptyDB},
    primitives::hardfork::SpecId,
    state::AccountInfo,
};
use std::{collections::BTreeMap, fmt};

type Db = CacheDB<EmptyDB>;

/// Gas limit of calls that do not name one.
const UNBOUNDED_GAS: u64 = 1 << 40;

/// What a successful call did.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Returned bytes.
    pub output: Bytes,
    /// Gas used, refunds deducted.
    pub gas_used: u64,
    /// Events.
    pub logs: Vec<Log>,
}

/// Why a call had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The contract reverted with these bytes.
    #[error("reverted with {0}")]
    Revert(Bytes),
    /// Execution stopped: out of gas, invalid opcode and the like.
    #[error("halted: {0}")]
    Halt(String),
    /// The transaction could not start.
    #[error("invalid transaction: {0}")]
    Invalid(String),
    /// The returned bytes are not what the ABI says.
    #[error("undecodable output: {0}")]
    Output(String),
}

/// An EVM on the rules of Osaka with an in-memory state. Calls pay no fees and need no nonces.
pub struct Evm {
    inner: MainnetEvm<Context<BlockEnv, TxEnv, CfgEnv, Db, Journal<Db>, ()>>,
    block: BlockEnv,
}

/// A state that an [`Evm`] can go back to, and that can be read meanwhile.
#[derive(Debug, Clone)]
pub struct Snapshot {
    db: Db,
    block: BlockEnv,
}

impl StateReader for Snapshot {
    type Error = std::convert::Infallible;

    fn storage(&self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        self.db.storage_ref(address, slot)
    }
}

impl fmt::Debug for Evm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evm")
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}

impl Evm {
    /// An empty state on a chain with this id, in a block with number 0 and this timestamp.
    #[must_use]
    pub fn new(chain_id: u64, timestamp: u64) -> Self {
        let block = BlockEnv {
            timestamp: U256::from(timestamp),
            gas_limit: u64::MAX,
            basefee: 0,
            ..BlockEnv::default()
        };
        let inner = Context::mainnet()
            .with_db(Db::default())
            .modify_cfg_chained(|cfg| {
                *cfg = std::mem::take(cfg)
                    .with_spec_and_mainnet_gas_params(SpecId::OSAKA)
                    .with_chain_id(chain_id);
                cfg.disable_nonce_check = true;
                // The cap of EIP-7825 is for transactions; building block 0 is none.
                cfg.tx_gas_limit_cap = Some(u64::MAX);
            })
            .with_block(block.clone())
            .build_mainnet();
        Self { inner, block }
    }

    /// The state of a genesis block, in a block after it.
    #[must_use]
    pub fn with_genesis(genesis: &Genesis) -> Self {
        let mut evm = Self::new(genesis.config.chain_id, genesis.timestamp + 1);
        evm.set_number(1);
        for (address, account) in &genesis.alloc {
            let code = account.code.clone().unwrap_or_default();
            evm.db_mut().insert_account_info(
                *address,
                AccountInfo {
                    balance: account.balance,
                    nonce: account.nonce.unwrap_or_default(),
                    ..AccountInfo::from_bytecode(Bytecode::new_raw(code))
                },
            );
            for (slot, value) in account.storage.iter().flatten() {
                evm.set_storage(*address, (*slot).into(), (*value).into());
            }
        }
        evm
    }

    /// The state as it is now, between two calls.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            db: self.db().clone(),
            block: self.block.clone(),
        }
    }

    /// Goes back (or over) to a state: as a chain whose newest blocks are replaced.
    pub fn restore(&mut self, snapshot: &Snapshot) {
        self.db_mut().clone_from(&snapshot.db);
        self.block.clone_from(&snapshot.block);
    }

    fn db(&self) -> &Db {
        &self.inner.ctx.journaled_state.database
    }

    fn db_mut(&mut self) -> &mut Db {
        &mut self.inner.ctx.journaled_state.database
    }

    /// Sends a transaction; its effects stay.
    ///
    /// # Errors
    /// [`CallError`]; a failed transaction changes nothing but its sender's nonce.
    pub fn send(&mut self, from: Address, to: Address, value: U256, data: Bytes) -> Result<Executed, CallError> {
        self.send_with_gas(from, to, value, data, UNBOUNDED_GAS)
    }

    /// [`Self::send`] with a gas limit.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_with_gas(
        &mut self,
        from: Address,
        to: Address,
        value: U256,
        data: Bytes,
        gas_limit: u64,
    ) -> Result<Executed, CallError> {
        self.transact(tx(from, to, value, data, gas_limit)?)
    }

    /// Sends any transaction; its effects stay.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn transact(&mut self, tx: TxEnv) -> Result<Executed, CallError> {
        self.inner.set_block(self.block.clone());
        let result = self
            .inner
            .transact_commit(tx)
            .map_err(|error| CallError::Invalid(error.to_string()))?;
        executed(result)
    }

    /// Calls a function by its ABI; the effects stay.
    ///
    /// # Errors
    /// As [`Self::send`], and [`CallError::Output`].
    pub fn call<C: SolCall>(&mut self, from: Address, to: Address, call: C) -> Result<C::Return, CallError> {
        let done = self.send(from, to, U256::ZERO, call.abi_encode().into())?;
        C::abi_decode_returns(&done.output).map_err(|error| CallError::Output(error.to_string()))
    }

    /// Calls a function by its ABI without effects.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn view<C: SolCall>(&mut self, to: Address, call: C) -> Result<C::Return, CallError> {
        self.inner.set_block(self.block.clone());
        let tx = tx(Address::ZERO, to, U256::ZERO, call.abi_encode().into(), UNBOUNDED_GAS)?;
        let result = self
            .inner
            .transact(tx)
            .map_err(|error| CallError::Invalid(error.to_string()))?;
        let done = executed(result.result)?;
        C::abi_decode_returns(&done.output).map_err(|error| CallError::Output(error.to_string()))
    }

    /// Runs `init_code` at `address` as if it were being created there, and leaves the code it returns.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn construct(&mut self, address: Address, init_code: Bytes) -> Result<(), CallError> {
        self.set_code(address, init_code);
        let runtime = self.send(Address::ZERO, address, U256::ZERO, Bytes::new())?.output;
        self.set_code(address, runtime);
        Ok(())
    }

    /// Replaces an account's code.
    pub fn set_code(&mut self, address: Address, code: Bytes) {
        let bytecode = Bytecode::new_raw(code);
        let mut info = self.account(address);
        info.code_hash = bytecode.hash_slow();
        info.code = Some(bytecode);
        // EIP-161: a contract starts with nonce 1.
        info.nonce = info.nonce.max(1);
        self.db_mut().insert_account_info(address, info);
    }

    /// An account's code; empty if it has none.
    #[must_use]
    pub fn code(&self, address: Address) -> Bytes {
        let info = self.account(address);
        if info.is_empty_code_hash() {
            return Bytes::new();
        }
        self.db()
            .code_by_hash_ref(info.code_hash)
            .map(|code| code.original_bytes())
            .unwrap_or_default()
    }

    /// Replaces an account's native balance.
    pub fn set_balance(&mut self, address: Address, balance: U256) {
        let mut info = self.account(address);
        info.balance = balance;
        self.db_mut().insert_account_info(address, info);
    }

    /// An account's native balance.
    #[must_use]
    pub fn balance(&self, address: Address) -> U256 {
        self.account(address).balance
    }

    /// Replaces a storage slot.
    pub fn set_storage(&mut self, address: Address, slot: U256, value: U256) {
        // An in-memory database has no errors.
        let Ok(()) = self.db_mut().insert_account_storage(address, slot, value);
    }

    /// Number of the block that the next call runs in.
    pub fn set_number(&mut self, number: u64) {
        self.block.number = U256::from(number);
    }

    /// Timestamp of the block that the next call runs in.
    pub fn set_timestamp(&mut self, timestamp: u64) {
        self.block.timestamp = U256::from(timestamp);
    }

    /// Timestamp of the block that the next call runs in.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.block.timestamp.saturating_to()
    }

    /// Coinbase of the block that the next call runs in.
    pub fn set_coinbase(&mut self, coinbase: Address) {
        self.block.beneficiary = coinbase;
    }

    /// Accounts of the given addresses as genesis accounts: code, non-zero storage, balance.
    #[must_use]
    pub fn dump(&self, addresses: impl IntoIterator<Item = Address>) -> BTreeMap<Address, GenesisAccount> {
        addresses
            .into_iter()
            .map(|address| (address, self.dump_account(address)))
            .collect()
    }

    fn dump_account(&self, address: Address) -> GenesisAccount {
        let code = self.code(address);
        let storage: BTreeMap<B256, B256> = self
            .db()
            .cache
            .accounts
            .get(&address)
            .into_iter()
            .flat_map(|account| &account.storage)
            .filter(|(_, value)| !value.is_zero())
            .map(|(slot, value)| ((*slot).into(), (*value).into()))
            .collect();
        GenesisAccount {
            // Calls by ordinary accounts while building are not transactions: their nonces stay 0.
            nonce: Some(u64::from(!code.is_empty())),
            balance: self.balance(address),
            code: (!code.is_empty()).then_some(code),
            storage: (!storage.is_empty()).then_some(storage),
            ..GenesisAccount::default()
        }
    }

    fn account(&self, address: Address) -> AccountInfo {
        let Ok(info) = self.db().basic_ref(address);
        info.unwrap_or_default()
    }
}

impl StateReader for Evm {
    type Error = std::convert::Infallible;

    fn storage(&self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        self.db().storage_ref(address, slot)
    }
}

fn tx(from: Address, to: Address, value: U256, data: Bytes, gas_limit: u64) -> Result<TxEnv, CallError> {
    TxEnv::builder()
        .caller(from)
        .call(to)
        .value(value)
        .data(data)
        .gas_limit(gas_limit)
        .gas_price(0)
        .chain_id(None)
        .build()
        .map_err(|error| CallError::Invalid(format!("{error:?}")))
}

fn executed(result: ExecutionResult) -> Result<Executed, CallError> {
    match result {
        ExecutionResult::Success { gas, logs, output, .. } => Ok(Executed {
            output: output.into_data(),
            gas_used: gas.tx_gas_used(),
            logs,
        }),
        ExecutionResult::Revert { output, .. } => Err(CallError::Revert(output)),
        ExecutionResult::Halt { reason, .. } => Err(CallError::Halt(format!("{reason:?}"))),
    }
}
