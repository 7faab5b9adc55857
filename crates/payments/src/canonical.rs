//! Addresses that the public clients have built in (payments.md §2): the same on every chain, ours included.

use alloy_primitives::{Address, address};

/// Uniswap's Permit2.
pub const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");
/// Spender of `exact` payments by Permit2.
pub const EXACT_PERMIT2_PROXY: Address = address!("402085c248EeA27D92E8b30b2C58ed07f9E20001");
/// Spender of `upto` payments.
pub const UPTO_PERMIT2_PROXY: Address = address!("4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");
/// The channel contract, `x402BatchSettlement`.
pub const BATCH_SETTLEMENT: Address = address!("4020074e9dF2ce1deE5A9C1b5c3f541D02a10003");
/// Takes channel deposits by ERC-3009 `receiveWithAuthorization`.
pub const ERC3009_DEPOSIT_COLLECTOR: Address = address!("4020806089470a89826cB9fB1f4059150b550004");
/// Takes channel deposits by Permit2.
pub const PERMIT2_DEPOSIT_COLLECTOR: Address = address!("4020425FAf3B746C082C2f942b4E5159887B0005");
/// Universal validator of ERC-6492 signatures.
pub const SIGNATURE_VALIDATOR: Address = address!("dAcD51A54883eb67D95FAEb2BBfdC4a9a6BD2a3B");
