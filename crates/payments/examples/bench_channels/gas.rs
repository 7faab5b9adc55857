//! Gas of the channel contract's own bytecode, in an EVM on the rules of Osaka with OPG as token: deposits, one claim over all channels, and the settlement.

use crate::{Bench, CHAIN, CHARGE, Figures, Payer, payers};
use alloy_primitives::{Address, B256, FixedBytes, U256, aliases::U40};
use alloy_sol_types::SolCall as _;
use opg_contracts::{
    AccountAllocation, BatchSettlement, GenesisFile, OPG, Parameters, ValidatorEntry, addresses, genesis_file::SUPPLY,
};
use opg_genesis::evm::Evm;
use opg_payments::{channel::Voucher, eip712::Domain, wallet::ChannelWallet, x402::BatchAction};
use opg_primitives::money::Amount;

/// Channels of one claim, and calls of each since the last one.
const ROWS: usize = 100;
const CALLS: u128 = 1000;
const BANK: Address = Address::repeat_byte(0xba);
const START: u64 = 1_000_000;
const DEPOSIT: u128 = 1_000_000_000;

fn evm() -> Result<Evm, Box<dyn std::error::Error + Send + Sync>> {
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
        chain_id: CHAIN,
        development: true,
        timestamp: START - 1,
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
    Ok(Evm::with_genesis(&opg_genesis::build(&file)?))
}

fn config(payer: &Payer) -> BatchSettlement::ChannelConfig {
    let config = payer.config;
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

/// A claim of the first `calls` calls of every channel.
fn claim(payers: &[Payer], domain: &Domain, calls: u128) -> Vec<u8> {
    let row = |payer: &Payer| {
        let voucher = Voucher {
            channel_id: payer.config.id(domain),
            max_claimable: Amount(calls * CHARGE),
        };
        BatchSettlement::VoucherClaim {
            voucher: BatchSettlement::Voucher {
                channel: config(payer),
                maxClaimableAmount: voucher.max_claimable.wei(),
            },
            signature: voucher.sign(domain, &payer.key).to_vec().into(),
            totalClaimed: voucher.max_claimable.wei(),
        }
    };
    let rows = payers.iter().map(row).collect();
    BatchSettlement::claimCall { voucherClaims: rows }.abi_encode()
}

/// Measures and reports per call.
pub(crate) fn measure(figures: &mut Figures) -> Bench {
    let mut evm = evm()?;
    let mut payers = payers();
    payers.truncate(ROWS);
    let (domain, token) = (Domain::batch_settlement(CHAIN), Domain::opg(CHAIN, addresses::OPG));
    let authorizer = payers.first().ok_or("no payers")?.config.receiver_authorizer;
    let receiver = payers.first().ok_or("no payers")?.config.receiver;
    let mut send = |from, to, data: Vec<u8>| evm.send(from, to, U256::ZERO, data.into()).map(|done| done.gas_used);
    let mut deposits = 0;
    for payer in &payers {
        let fund = OPG::transferCall {
            to: payer.config.payer,
            value: U256::from(2 * DEPOSIT),
        };
        send(BANK, addresses::OPG, fund.abi_encode())?;
        let mut wallet = ChannelWallet {
            chain_id: CHAIN,
            config: payer.config,
            balance: Amount::ZERO,
            charged: Amount::ZERO,
            signed: Amount::ZERO,
            in_flight: Vec::new(),
        };
        let authorization = ChannelWallet::erc3009(B256::repeat_byte(7), START, 100_000);
        let amounts = (Amount(DEPOSIT), Amount(1));
        let payload = wallet.sign_deposit(amounts.0, amounts.1, authorization, &token, &payer.key, &payer.key)?;
        let BatchAction::Deposit(signed) = payload.action else {
            return Err("no deposit".into());
        };
        let deposit = BatchSettlement::depositCall {
            config: config(payer),
            amount: signed.deposit.amount.wei(),
            collector: signed.deposit.collector().address(),
            collectorData: signed.deposit.collector_data(&signed.signature),
        };
        deposits += send(authorizer, addresses::BATCH_SETTLEMENT, deposit.abi_encode())?;
    }
    let settle = BatchSettlement::settleCall {
        receiver,
        token: addresses::OPG,
    };
    let calls = ROWS as f64 * CALLS as f64;
    for (round, what) in [(1, "the first claim of these channels"), (2, "every further claim")] {
        let claimed = send(
            authorizer,
            addresses::BATCH_SETTLEMENT,
            claim(&payers, &domain, round * CALLS),
        )?;
        let settled = send(BANK, addresses::BATCH_SETTLEMENT, settle.abi_encode())?;
        let each = (claimed + settled) as f64 / calls;
        println!("gas, {ROWS} channels x {CALLS} calls, {what}: claim {claimed}, settle {settled}: {each:.1} a call");
        let name = format!("claim and settle of {ROWS} channels x {CALLS} calls, {what}");
        figures.one(&name, each, "gas/call", Some(("at most", 30.0)));
    }
    let each = deposits as f64 / ROWS as f64;
    println!(
        "gas, first deposit of a channel by ERC-3009: {each:.0}; {:.1} a call of {CALLS}",
        each / CALLS as f64
    );
    figures.one("first deposit of a channel by ERC-3009", each, "gas", None);
    figures.one(
        &format!("that deposit over {CALLS} calls"),
        each / CALLS as f64,
        "gas/call",
        None,
    );
    Ok(())
}
