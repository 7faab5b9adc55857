//! A registered node, model and payer in memory, and receipts that check (tests only).

use super::Rules;
use alloy_primitives::{Address, B256, Bytes, U256};
use ed25519_dalek::SigningKey;
use opg_contracts::{
    StateReader, addresses, slots,
    state::{self, CodeReader},
    x402,
};
use opg_payments::signature::address_of_secret;
use opg_primitives::{
    ids::{Keyset, ModelRoot, keyset_digest, node_id},
    money::{Amount, Price, Usage},
};
use opg_receipt::{Core, SignedReceipt, UsageUnit};
use opg_samples::{Sale, channel_payment, payee, payment};
use secp256k1::SecretKey;
use std::collections::HashMap;

pub(crate) const CHAIN: u64 = 10740;
pub(crate) const MIN_BOND: u128 = 1_000;
pub(crate) const NOW: u64 = 1_000_000;
pub(crate) const ROYALTY: u16 = 500;

/// Storage by (contract, slot), and code.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(
    pub(crate) HashMap<(Address, U256), U256>,
    pub(crate) HashMap<Address, Bytes>,
);

impl CodeReader for Memory {
    fn code(&self, address: Address) -> Result<Bytes, Self::Error> {
        Ok(self.1.get(&address).cloned().unwrap_or_default())
    }
}

impl StateReader for Memory {
    type Error = std::convert::Infallible;

    fn storage(&self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        Ok(self.0.get(&(address, slot)).copied().unwrap_or_default())
    }
}

impl Memory {
    pub(crate) fn set(&mut self, address: Address, slot: U256, value: U256) {
        self.0.insert((address, slot), value);
    }

    pub(crate) fn set_price(&mut self, contract: Address, base: U256, price: &Price) {
        let packed = price.per_call.to_u256() | (price.per_mtok_in.to_u256() << 128);
        self.set(contract, base, packed);
        self.set(contract, base + U256::from(1), price.per_mtok_out.to_u256());
    }
}

fn packed(address: Address, from_bit_160: u64, from_bit_200: u64) -> U256 {
    U256::from_be_slice(address.as_slice()) | (U256::from(from_bit_160) << 160) | (U256::from(from_bit_200) << 200)
}

/// One node, one model, one payer.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) state: Memory,
    pub(crate) rules: Rules,
    pub(crate) receipt_key: SigningKey,
    pub(crate) payer: SecretKey,
    pub(crate) operator: Address,
    pub(crate) keyset: Keyset,
    pub(crate) root: B256,
    pub(crate) price: Price,
}

impl World {
    pub(crate) fn new() -> Self {
        let receipt_key = SigningKey::from_bytes(&[5; 32]);
        let operator = Address::repeat_byte(0x0b);
        let keyset = Keyset {
            node_id: node_id(operator, B256::ZERO),
            receipt_key: receipt_key.verifying_key().to_bytes().into(),
            settlement_key: Address::repeat_byte(0x5e),
            hpke_key: B256::ZERO,
            tls_spki: B256::ZERO,
        };
        let price = Price {
            per_call: Amount(100),
            per_mtok_in: Amount(2_000_000),
            per_mtok_out: Amount(6_000_000),
        };
        let mut world = Self {
            state: Memory::default(),
            rules: Rules::new(CHAIN, MIN_BOND, 600),
            receipt_key,
            payer: SecretKey::from_byte_array(&[9; 32]).unwrap(),
            operator,
            keyset,
            root: B256::repeat_byte(0x77),
            price,
        };
        world.set_keyset(1, 0);
        world.set_node(MIN_BOND, 0);
        world.set_royalty(ROYALTY, ROYALTY, 1);
        let (node, root) = (world.keyset.node_id.0, world.root);
        world
            .state
            .set_price(addresses::NODE_REGISTRY, slots::ask_base(node, root), &price);
        world.set_balance(1_000_000_000);
        world
    }

    pub(crate) fn set_keyset(&mut self, registered_at: u64, revoked_at: u64) {
        let base = slots::keyset_base(keyset_digest(&self.keyset).0);
        let at = addresses::NODE_REGISTRY;
        self.state.set(at, base, self.keyset.node_id.0.into());
        self.state.set(at, base + U256::from(1), self.keyset.receipt_key.into());
        self.state.set(
            at,
            base + U256::from(2),
            packed(self.keyset.settlement_key, registered_at, revoked_at),
        );
    }

    pub(crate) fn set_node(&mut self, bond: u128, inactive_at: u64) {
        let base = slots::node_base(self.keyset.node_id.0);
        self.state
            .set(addresses::NODE_REGISTRY, base, packed(self.operator, 1, inactive_at));
        self.state
            .set(addresses::NODE_REGISTRY, base + U256::from(1), U256::from(bond));
    }

    /// The node's fees of two days, in units of `FeeVault.FEE_UNIT`, as they were counted on `day`.
    pub(crate) fn set_fees(&mut self, today: u64, yesterday: u64, day: u64) {
        let word = (U256::from(today) << 128) | (U256::from(yesterday) << 184) | (U256::from(day) << 240);
        let slot = slots::vault_outstanding(self.keyset.node_id.0);
        self.state.set(addresses::FEE_VAULT, slot, word);
    }

    pub(crate) fn set_royalty(&mut self, now: u16, before: u16, changed_at: u64) {
        let base = slots::model_base(self.root);
        let terms = U256::from_be_slice(Address::repeat_byte(0xc0).as_slice())
            | (U256::from(now) << 160)
            | (U256::from(before) << 176)
            | (U256::from(changed_at) << 192);
        self.state.set(addresses::MODEL_REGISTRY, base, terms);
        let price = self.price;
        self.state
            .set_price(addresses::MODEL_REGISTRY, base + U256::from(1), &price);
    }

    /// The model's reference price, changed last at this time.
    pub(crate) fn set_model_at(&mut self, reference: &Price, changed_at: u64) {
        self.set_royalty(ROYALTY, ROYALTY, changed_at);
        let base = slots::model_base(self.root);
        self.state
            .set_price(addresses::MODEL_REGISTRY, base + U256::from(1), reference);
    }

    pub(crate) fn set_program(&mut self, program: B256) {
        let slot = slots::model_program(self.root, program);
        self.state.set(addresses::MODEL_REGISTRY, slot, U256::from(1));
    }

    pub(crate) fn payer_address(&self) -> Address {
        address_of_secret(&self.payer)
    }

    pub(crate) fn set_balance(&mut self, wei: u128) {
        let slot = slots::opg_balance(self.payer_address());
        self.state.set(addresses::OPG, slot, U256::from(wei));
    }

    pub(crate) fn deposit(&self) -> Address {
        payee(self.keyset.node_id)
    }

    /// The payment of `receipt` is settled as `amount` to `to`.
    pub(crate) fn settle(&mut self, core: &Core, to: Address, amount: u128) {
        let slot = slots::opg_settlement(core.payment.payer, core.payment.nonce);
        self.state
            .set(addresses::OPG, slot, state::settlement_hash(to, amount).into());
    }

    /// A core that checks; `seq` also makes nonces unique.
    pub(crate) fn core(&self, seq: u64) -> Core {
        let nonce = B256::from(U256::from(seq + 1));
        let usage = Usage { input: 10, output: 20 };
        Sale {
            chain_id: CHAIN,
            keyset: &self.keyset,
            seq,
            model: ("demo/digits-mlp", ModelRoot(self.root)),
            ask: self.price,
            royalty_bps: ROYALTY,
            usage: (UsageUnit::Tokens, usage),
            payment: payment(CHAIN, &self.keyset, &self.payer, Amount(1_000), nonce, NOW + 600),
        }
        .core()
    }

    /// A core that a channel of the payer pays for, under a voucher up to 5,000 wei.
    pub(crate) fn channel_core(&self, seq: u64) -> Core {
        let payment = channel_payment(CHAIN, &self.keyset, &self.payer, Amount(1_000), Amount(5_000));
        Sale {
            chain_id: CHAIN,
            keyset: &self.keyset,
            seq,
            model: ("demo/digits-mlp", ModelRoot(self.root)),
            ask: self.price,
            royalty_bps: ROYALTY,
            usage: (UsageUnit::Tokens, Usage { input: 10, output: 20 }),
            payment,
        }
        .core()
    }

    /// A channel that holds `balance`, of which `claimed` is claimed, with `recorded` charged by receipts.
    pub(crate) fn set_channel(&mut self, id: B256, balance: u128, claimed: u128, recorded: u128) {
        let halves = |low: u128, high: u128| U256::from(low) | (U256::from(high) << 128);
        let (channel, sums) = (x402::channel_slot(id), x402::channel_sums_slot(id));
        self.state
            .set(addresses::BATCH_SETTLEMENT, channel, halves(balance, claimed));
        self.state.set(addresses::RECEIPT_LEDGER, sums, halves(recorded, 0));
    }

    /// Signs the payment.
    pub(crate) fn pay(&self, core: &mut Core) {
        opg_samples::sign(CHAIN, &mut core.payment, &self.payer);
    }

    pub(crate) fn sign(&self, core: Core) -> SignedReceipt {
        SignedReceipt::sign(core, &self.receipt_key).unwrap()
    }

    pub(crate) fn receipt(&self, seq: u64) -> SignedReceipt {
        self.sign(self.core(seq))
    }
}
