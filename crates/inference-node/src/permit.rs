//! Payments by Permit2: the calls that settle them.

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::SolCall as _;
use opg_contracts::{ExactPermit2Proxy, UptoPermit2Proxy, exact_permit2_proxy, upto_permit2_proxy};
use opg_payments::permit2::{Permit, Witness};
use opg_primitives::money::Amount;

/// The call that has `amount` of a permit paid: contract and calldata. `None` for a channel's deposit, which pays nobody.
pub(crate) fn settlement_call(permit: &Permit, amount: Amount, signature: &Bytes) -> Option<(Address, Vec<u8>)> {
    let (deadline, signature) = (U256::from(permit.deadline), signature.clone());
    let data = match permit.witness {
        Witness::Exact { to, valid_after } => ExactPermit2Proxy::settleCall {
            permit: exact_permit2_proxy::Permit2::PermitTransferFrom {
                permitted: exact_permit2_proxy::Permit2::TokenPermissions {
                    token: permit.token,
                    amount: permit.amount,
                },
                nonce: permit.nonce,
                deadline,
            },
            owner: permit.from,
            witness: ExactPermit2Proxy::Witness {
                to,
                validAfter: U256::from(valid_after),
            },
            signature,
        }
        .abi_encode(),
        Witness::Upto {
            to,
            facilitator,
            valid_after,
        } => UptoPermit2Proxy::settleCall {
            permit: upto_permit2_proxy::Permit2::PermitTransferFrom {
                permitted: upto_permit2_proxy::Permit2::TokenPermissions {
                    token: permit.token,
                    amount: permit.amount,
                },
                nonce: permit.nonce,
                deadline,
            },
            amount: amount.to_u256(),
            owner: permit.from,
            witness: UptoPermit2Proxy::Witness {
                to,
                facilitator,
                validAfter: U256::from(valid_after),
            },
            signature,
        }
        .abi_encode(),
        Witness::Deposit { .. } => return None,
    };
    Some((permit.witness.spender(), data))
}
