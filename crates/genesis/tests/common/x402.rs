//! Signed channels, vouchers, deposits and Permit2 transfers.

use super::{CHAIN_ID, Net, Payment, domain, key, sign, who};
use alloy_primitives::{Address, B256, Bytes, U256, aliases::U40, keccak256};
use alloy_sol_types::{Eip712Domain, SolCall, SolStruct, SolValue, eip712_domain, sol};
use opg_contracts::{
    BatchSettlement::{self, ChannelConfig, VoucherClaim},
    ExactPermit2Proxy, OPG, PaymentMethod, Permit2, UptoPermit2Proxy, addresses,
};
use opg_genesis::evm::{CallError, Executed};

pub const DELAY: u64 = 3_600;

sol!(
    #[derive(Debug)]
    TestToken,
    "../../contracts/artifacts/TestToken.json"
);
sol!(
    #[derive(Debug)]
    TestSmartWallet,
    "../../contracts/artifacts/TestSmartWallet.json"
);
sol!(
    #[derive(Debug)]
    TestCollector,
    "../../contracts/artifacts/TestCollector.json"
);

sol! {
    struct Refund { bytes32 channelId; uint256 nonce; uint128 amount; }
    struct ClaimEntry { bytes32 channelId; uint128 maxClaimableAmount; uint128 totalClaimed; }
    struct ClaimBatch { ClaimEntry[] claims; }
    struct Voucher { bytes32 channelId; uint128 maxClaimableAmount; }
}

/// Messages that Permit2 checks. Each primary type has a module, because names repeat.
pub mod permit2 {
    pub mod plain {
        alloy_sol_types::sol! {
            struct TokenPermissions { address token; uint256 amount; }
            struct PermitTransferFrom { TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; }
            struct PermitBatchTransferFrom {
                TokenPermissions[] permitted; address spender; uint256 nonce; uint256 deadline;
            }
            struct PermitDetails { address token; uint160 amount; uint48 expiration; uint48 nonce; }
            struct PermitSingle { PermitDetails details; address spender; uint256 sigDeadline; }
            struct PermitBatch { PermitDetails[] details; address spender; uint256 sigDeadline; }
        }
    }
    pub mod exact {
        alloy_sol_types::sol! {
            struct TokenPermissions { address token; uint256 amount; }
            struct Witness { address to; uint256 validAfter; }
            struct PermitWitnessTransferFrom {
                TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; Witness witness;
            }
            struct PermitBatchWitnessTransferFrom {
                TokenPermissions[] permitted; address spender; uint256 nonce; uint256 deadline; Witness witness;
            }
        }
    }
    pub mod upto {
        alloy_sol_types::sol! {
            struct TokenPermissions { address token; uint256 amount; }
            struct Witness { address to; address facilitator; uint256 validAfter; }
            struct PermitWitnessTransferFrom {
                TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; Witness witness;
            }
        }
    }
    pub mod deposit {
        alloy_sol_types::sol! {
            struct TokenPermissions { address token; uint256 amount; }
            struct DepositWitness { bytes32 channelId; }
            struct PermitWitnessTransferFrom {
                TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; DepositWitness witness;
            }
        }
    }
}

/// Domain of channels.
pub fn batch_domain() -> Eip712Domain {
    eip712_domain! {
        name: "x402 Batch Settlement",
        version: "1",
        chain_id: CHAIN_ID,
        verifying_contract: addresses::BATCH_SETTLEMENT,
    }
}

/// Domain of Permit2: it has no version.
pub fn permit2_domain() -> Eip712Domain {
    eip712_domain! {
        name: "Permit2",
        chain_id: CHAIN_ID,
        verifying_contract: addresses::PERMIT2,
    }
}

/// A message's signature by a label's key.
pub fn signed(label: &str, message: &impl SolStruct, domain: &Eip712Domain) -> Bytes {
    sign(&key(label), message.eip712_signing_hash(domain)).to_vec().into()
}

/// A channel and the labels of the keys that act for it.
#[derive(Debug, Clone)]
pub struct Channel {
    pub config: ChannelConfig,
    pub payer: String,
    /// Who signs vouchers.
    pub signer: String,
    /// Who signs claims and refunds.
    pub authorizer: String,
}

impl Channel {
    /// A channel whose payer signs its vouchers, in OPG.
    pub fn new(payer: &str, receiver: Address, salt: u64) -> Self {
        Self {
            config: ChannelConfig {
                payer: who(payer),
                payerAuthorizer: who(payer),
                receiver,
                receiverAuthorizer: who("settlement-0"),
                token: addresses::OPG,
                withdrawDelay: U40::from(DELAY),
                salt: B256::from(U256::from(salt)),
            },
            payer: payer.into(),
            signer: payer.into(),
            authorizer: "settlement-0".into(),
        }
    }

    /// The id, computed without the contract.
    pub fn id(&self) -> B256 {
        self.config.eip712_signing_hash(&batch_domain())
    }

    pub fn voucher(&self, max: u128) -> Bytes {
        let message = Voucher {
            channelId: self.id(),
            maxClaimableAmount: max,
        };
        signed(&self.signer, &message, &batch_domain())
    }

    /// A row that claims up to `total` under a voucher for `max`.
    pub fn row(&self, max: u128, total: u128) -> VoucherClaim {
        VoucherClaim {
            voucher: BatchSettlement::Voucher {
                channel: self.config.clone(),
                maxClaimableAmount: max,
            },
            signature: self.voucher(max),
            totalClaimed: total,
        }
    }

    pub fn refund_signature(&self, nonce: u64, amount: u128) -> Bytes {
        let message = Refund {
            channelId: self.id(),
            nonce: U256::from(nonce),
            amount,
        };
        signed(&self.authorizer, &message, &batch_domain())
    }

    /// Collector and its data for a deposit by ERC-3009.
    pub fn by_3009(&self, amount: u128, salt: u64) -> (Address, Bytes) {
        let message = super::ReceiveWithAuthorization {
            from: self.config.payer,
            to: addresses::ERC3009_DEPOSIT_COLLECTOR,
            value: U256::from(amount),
            validAfter: U256::ZERO,
            validBefore: U256::MAX,
            nonce: keccak256((self.id(), U256::from(salt)).abi_encode()),
        };
        let signature = signed(&self.payer, &message, &domain());
        (
            addresses::ERC3009_DEPOSIT_COLLECTOR,
            (U256::ZERO, U256::MAX, U256::from(salt), signature)
                .abi_encode_params()
                .into(),
        )
    }

    /// Collector and its data for a deposit by Permit2, which the payer must have approved.
    pub fn by_permit2(&self, amount: u128, nonce: u64, permit2612: Bytes) -> (Address, Bytes) {
        use permit2::deposit::{DepositWitness, PermitWitnessTransferFrom, TokenPermissions};
        let message = PermitWitnessTransferFrom {
            permitted: TokenPermissions {
                token: self.config.token,
                amount: U256::from(amount),
            },
            spender: addresses::PERMIT2_DEPOSIT_COLLECTOR,
            nonce: U256::from(nonce),
            deadline: U256::MAX,
            witness: DepositWitness { channelId: self.id() },
        };
        let signature = signed(&self.payer, &message, &permit2_domain());
        (
            addresses::PERMIT2_DEPOSIT_COLLECTOR,
            (U256::from(nonce), U256::MAX, signature, permit2612)
                .abi_encode_params()
                .into(),
        )
    }
}

/// What the receiver's authorizer signs for a batch of rows.
pub fn claim_signature(authorizer: &str, rows: &[VoucherClaim]) -> Bytes {
    let claims = rows
        .iter()
        .map(|row| ClaimEntry {
            channelId: row.voucher.channel.eip712_signing_hash(&batch_domain()),
            maxClaimableAmount: row.voucher.maxClaimableAmount,
            totalClaimed: row.totalClaimed,
        })
        .collect();
    signed(authorizer, &ClaimBatch { claims }, &batch_domain())
}

impl Net {
    pub fn approve_permit2(&mut self, label: &str) {
        let call = OPG::approveCall {
            spender: addresses::PERMIT2,
            value: U256::MAX,
        };
        self.evm.call(who(label), addresses::OPG, call).unwrap();
    }

    /// A call of the channels contract.
    pub fn batch<C: SolCall>(&mut self, from: Address, call: C) -> Result<C::Return, CallError> {
        self.evm.call(from, addresses::BATCH_SETTLEMENT, call)
    }

    /// The same, for its gas and events.
    pub fn batch_raw<C: SolCall>(&mut self, from: Address, call: C) -> Result<Executed, CallError> {
        let data = call.abi_encode().into();
        self.evm.send(from, addresses::BATCH_SETTLEMENT, U256::ZERO, data)
    }

    pub fn deposit_with(
        &mut self,
        channel: &Channel,
        amount: u128,
        collector: (Address, Bytes),
    ) -> Result<(), CallError> {
        let call = BatchSettlement::depositCall {
            config: channel.config.clone(),
            amount,
            collector: collector.0,
            collectorData: collector.1,
        };
        self.batch(who("relayer"), call).map(|_| ())
    }

    /// A deposit by ERC-3009.
    pub fn fund(&mut self, channel: &Channel, amount: u128, salt: u64) -> Result<(), CallError> {
        self.deposit_with(channel, amount, channel.by_3009(amount, salt))
    }

    /// A claim sent by an account.
    pub fn claim(&mut self, from: Address, rows: Vec<VoucherClaim>) -> Result<(), CallError> {
        self.batch(from, BatchSettlement::claimCall { voucherClaims: rows })
            .map(|_| ())
    }

    /// A claim by signature, sent by a stranger.
    pub fn claim_signed(&mut self, authorizer: &str, rows: Vec<VoucherClaim>) -> Result<(), CallError> {
        let call = BatchSettlement::claimWithSignatureCall {
            authorizerSignature: claim_signature(authorizer, &rows),
            voucherClaims: rows,
        };
        self.batch(who("relayer"), call).map(|_| ())
    }

    pub fn settle_receiver(&mut self, receiver: Address, token: Address) -> Result<(), CallError> {
        self.batch(who("anyone"), BatchSettlement::settleCall { receiver, token })
            .map(|_| ())
    }

    /// (balance, total claimed) of a channel.
    pub fn channel_state(&mut self, id: B256) -> (u128, u128) {
        let call = BatchSettlement::channelsCall { channelId: id };
        let state = self.evm.view(addresses::BATCH_SETTLEMENT, call).unwrap();
        (state.balance, state.totalClaimed)
    }

    pub fn initiate(&mut self, from: Address, channel: &Channel, amount: u128) -> Result<(), CallError> {
        let call = BatchSettlement::initiateWithdrawCall {
            config: channel.config.clone(),
            amount,
        };
        self.batch(from, call).map(|_| ())
    }

    pub fn finalize(&mut self, from: Address, channel: &Channel) -> Result<(), CallError> {
        let call = BatchSettlement::finalizeWithdrawCall {
            config: channel.config.clone(),
        };
        self.batch(from, call).map(|_| ())
    }

    pub fn refund(&mut self, from: Address, channel: &Channel, amount: u128) -> Result<(), CallError> {
        let call = BatchSettlement::refundCall {
            config: channel.config.clone(),
            amount,
        };
        self.batch(from, call).map(|_| ())
    }

    pub fn refund_signed(
        &mut self,
        channel: &Channel,
        amount: u128,
        nonce: u64,
        signature: Bytes,
    ) -> Result<(), CallError> {
        let call = BatchSettlement::refundWithSignatureCall {
            config: channel.config.clone(),
            amount,
            nonce: U256::from(nonce),
            receiverAuthorizerSignature: signature,
        };
        self.batch(who("anyone"), call).map(|_| ())
    }
}

/// A Permit2 transfer in OPG of `amount` with a nonce, valid for ever.
pub fn permit_transfer(amount: u128, nonce: u64) -> Permit2::PermitTransferFrom {
    Permit2::PermitTransferFrom {
        permitted: Permit2::TokenPermissions {
            token: addresses::OPG,
            amount: U256::from(amount),
        },
        nonce: U256::from(nonce),
        deadline: U256::MAX,
    }
}

/// A payment through one of the proxies, signed by a label's key. The facilitator of `upto` is the account "relayer".
#[derive(Debug, Clone)]
pub struct Permit2Payment {
    /// One of the two Permit2 methods.
    pub method: PaymentMethod,
    pub payer: String,
    pub token: Address,
    pub to: Address,
    /// The signed amount.
    pub permitted: u128,
    pub nonce: B256,
}

impl Permit2Payment {
    pub fn new(method: PaymentMethod, payer: &str, to: Address, permitted: u128, nonce: B256) -> Self {
        Self {
            method,
            payer: payer.into(),
            token: addresses::OPG,
            to,
            permitted,
            nonce,
        }
    }

    /// The proxy, and the calldata that settles `amount` by it; `exact` always settles the signed amount.
    pub fn call(&self, amount: u128) -> (Address, Bytes) {
        let (nonce, permitted) = (U256::from_be_bytes(self.nonce.0), U256::from(self.permitted));
        let permit = Permit2::PermitTransferFrom {
            permitted: Permit2::TokenPermissions {
                token: self.token,
                amount: permitted,
            },
            nonce,
            deadline: U256::MAX,
        };
        let permit = permit.abi_encode();
        match self.method {
            PaymentMethod::Erc3009 => panic!("not a Permit2 payment"),
            PaymentMethod::ExactPermit2 => {
                let message = permit2::exact::PermitWitnessTransferFrom {
                    permitted: permit2::exact::TokenPermissions {
                        token: self.token,
                        amount: permitted,
                    },
                    spender: addresses::EXACT_PERMIT2_PROXY,
                    nonce,
                    deadline: U256::MAX,
                    witness: permit2::exact::Witness {
                        to: self.to,
                        validAfter: U256::ZERO,
                    },
                };
                let call = ExactPermit2Proxy::settleCall {
                    permit: SolValue::abi_decode(&permit).unwrap(),
                    owner: who(&self.payer),
                    witness: ExactPermit2Proxy::Witness {
                        to: self.to,
                        validAfter: U256::ZERO,
                    },
                    signature: signed(&self.payer, &message, &permit2_domain()),
                };
                (addresses::EXACT_PERMIT2_PROXY, call.abi_encode().into())
            }
            PaymentMethod::UptoPermit2 => {
                let message = permit2::upto::PermitWitnessTransferFrom {
                    permitted: permit2::upto::TokenPermissions {
                        token: self.token,
                        amount: permitted,
                    },
                    spender: addresses::UPTO_PERMIT2_PROXY,
                    nonce,
                    deadline: U256::MAX,
                    witness: permit2::upto::Witness {
                        to: self.to,
                        facilitator: who("relayer"),
                        validAfter: U256::ZERO,
                    },
                };
                let call = UptoPermit2Proxy::settleCall {
                    permit: SolValue::abi_decode(&permit).unwrap(),
                    amount: U256::from(amount),
                    owner: who(&self.payer),
                    witness: UptoPermit2Proxy::Witness {
                        to: self.to,
                        facilitator: who("relayer"),
                        validAfter: U256::ZERO,
                    },
                    signature: signed(&self.payer, &message, &permit2_domain()),
                };
                (addresses::UPTO_PERMIT2_PROXY, call.abi_encode().into())
            }
        }
    }
}

impl Net {
    /// Settles `amount` of a Permit2 payment.
    pub fn settle_permit2(&mut self, payment: &Permit2Payment, amount: u128) -> Result<(), CallError> {
        let (proxy, data) = payment.call(amount);
        self.evm.send(who("relayer"), proxy, U256::ZERO, data).map(|_| ())
    }

    /// Signs and settles a payment by any method.
    pub fn pay(
        &mut self,
        method: PaymentMethod,
        payer: &str,
        to: Address,
        amount: u128,
        nonce: B256,
    ) -> Result<(), CallError> {
        match method {
            PaymentMethod::Erc3009 => self.settle(&Payment::new(payer, to, amount, nonce)),
            PaymentMethod::ExactPermit2 | PaymentMethod::UptoPermit2 => {
                self.settle_permit2(&Permit2Payment::new(method, payer, to, amount, nonce), amount)
            }
        }
    }
}
