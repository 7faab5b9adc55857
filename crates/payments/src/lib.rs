//! Payments over HTTP: x402 version 2 with the schemes `batch-settlement` (channels), `upto` and `exact`, and the engine that takes
//! each payment once.
//!
//! What is signed, without I/O:
//! - [`eip3009`], [`permit2`], [`channel`]: authorizations, permits, and channels with their vouchers, deposits, claims and refunds;
//!   digest, signing, recovery. [`eip712`] and [`signature`] are below them, [`canonical`] has the contracts' addresses.
//! - [`receipt_payment`]: what the payer of a receipt signed.
//! - [`wallet_signature`]: contract wallets (ERC-1271, ERC-6492), whose signatures only a chain can check.
//! - [`x402`]: wire types and headers, compatible with the stock clients; [`x402::facilitator`] between servers; [`x402::v1`] on Base.
//! - [`wallet`]: the payer's side of channels, and its spend limits. [`channel::plan`]: when the receiver claims.
//!
//! The receiver's books (feature `engine`, default): threads and a file, no network.
//! - [`reserve`]: payments by authorization or permit: exactly-once reservation before work, exposure caps (D3), states up to settlement.
//! - [`channels`]: channels: reserve, commit, deposits, claims, refunds.
//! - [`journal`]: one redb file with group commit, shared by them and by receipts so that they survive a crash together.
//!
//! Invariants: of any number of copies of one payment, over threads, processes and restarts, one is served and charged; a charge is on
//! disk before it is acknowledged; a payment or claim whose transaction may have happened keeps its hash and is reconciled, never sent
//! as another; a channel serves only what its safe balance covers; nothing in this crate talks to a network or reads a clock.
//!
//! A payment by authorization:
//! ```
//! use opg_payments::{eip3009::{Authorization, Domain}, journal::Journal, reserve::{Caps, Decision, Request, Reservations}};
//! use opg_payments::signature::{SecretKey, address_of_secret};
//! use opg_primitives::money::Amount;
//! use std::sync::Arc;
//!
//! let key = SecretKey::from_byte_array(&[1; 32])?;
//! let domain = Domain::opg(10740, "0x0000000000000000000000000000000000001001".parse()?);
//! let authorization = Authorization {
//!     from: address_of_secret(&key), to: "0x00000000000000000000000000000000000000aa".parse()?,
//!     value: "1000".parse()?, valid_after: 0, valid_before: 2_000_000_000, nonce: [7; 32].into(),
//! };
//! let signature = authorization.sign(&domain, &key);
//! authorization.verify(&domain, &signature)?;
//!
//! let dir = tempfile::tempdir()?;
//! let reservations = Reservations::open(Arc::new(Journal::open(dir.path().join("journal.redb"))?), Caps::default())?;
//! let request = Request {
//!     authorization, signature: signature.to_vec().into(), receipt_id: [9; 32].into(), context: Default::default(), force_settle_first: false,
//! };
//! let reserved = reservations.reserve(request.clone(), 1_900_000_000)?;
//! assert_eq!(reserved.decision, Decision::Serve);
//! assert!(reservations.reserve(request, 1_900_000_000).is_err(), "the copy is refused");
//! reservations.serve(reserved.key, Amount(900), |_transaction| Ok(()))?.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A call paid from a channel, as the payer signs it and as the node books it:
//! ```
//! # #[cfg(feature = "engine")] {
//! use opg_payments::{channel::ReceiverTerms, channels::{Call, ChainState, Channels, Mode}, journal::Journal, wallet::ChannelWallet};
//! use opg_payments::signature::{SecretKey, address_of_secret};
//! use opg_payments::x402::{self, BatchExtra, BatchPayload, PaymentPayload, PaymentRequirements};
//! use opg_primitives::money::Amount;
//! use std::sync::Arc;
//!
//! // The node's offer, in its 402 answer.
//! let terms = ReceiverTerms {
//!     receiver: "0x00000000000000000000000000000000000000aa".parse()?,
//!     receiver_authorizer: "0x00000000000000000000000000000000000000bb".parse()?,
//!     token: "0x0000000000000000000000000000000000001001".parse()?,
//!     min_withdraw_delay: 3600,
//! };
//! let extra = BatchExtra {
//!     receiver_authorizer: terms.receiver_authorizer, withdraw_delay: 3600, name: "OpenGradient".into(), version: "1".into(),
//!     by_permit2: false, min_deposit: Some(Amount(100_000)), channel_state: None, voucher_state: None,
//! };
//! let offer = PaymentRequirements {
//!     scheme: x402::BATCH_SETTLEMENT.into(), network: x402::network(10740), amount: "1000".parse()?, asset: terms.token,
//!     pay_to: terms.receiver, max_timeout_seconds: 120, extra: Some(extra.to_map()),
//! };
//!
//! // The payer: a wallet whose deposit is confirmed signs the next call.
//! let key = SecretKey::from_byte_array(&[7; 32])?;
//! let payer = address_of_secret(&key);
//! let mut wallet = ChannelWallet::for_offer(&offer, payer, payer, Default::default())?;
//! wallet.deposited(Amount(100_000));
//! let payload = wallet.sign_call(Amount(1000), false, &key)?;
//! let header = x402::encode_header(&PaymentPayload::of_batch(offer.clone(), &payload));
//!
//! // The node: the channel as read from the chain, then the call.
//! let dir = tempfile::tempdir()?;
//! let channels = Channels::open(Arc::new(Journal::open(dir.path().join("journal.redb"))?), 10740, terms)?;
//! channels.open_channel(wallet.config, ChainState { balance: Amount(100_000), ..ChainState::default() }, 1_900_000_000)?;
//! let payment = PaymentPayload::from_header(header.as_bytes())?;
//! offer.matches(&payment.accepted)?;
//! let payload = BatchPayload::parse(&payment.payload)?;
//! let call = Call { payload: &payload, bound: Amount(1000), mode: Mode::Stock, identifier: None };
//! let reserved = channels.reserve(&call)?;
//! assert!(channels.reserve(&call).is_err(), "the copy is refused");
//! let charged = channels.commit(reserved.ticket, Amount(640), Default::default(), 1_900_000_001, |_transaction| Ok(()))?;
//! charged.commit.wait()?;
//!
//! // The payer counts what the answer says.
//! wallet.answered(Amount(1000), &charged.extra)?;
//! assert_eq!(wallet.charged, Amount(640));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Status: complete for accounts with keys. Not here: sending transactions and reading chains (the caller's), serving a channel before
//! its deposit is confirmed, vouchers of contract wallets (`payerAuthorizer` zero), `exact` by ERC-7710.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod channel;
#[cfg(feature = "engine")]
pub mod channels;
pub mod eip3009;
pub mod eip712;
#[cfg(feature = "engine")]
pub mod journal;
pub mod permit2;
pub mod receipt_payment;
#[cfg(feature = "engine")]
pub mod reserve;
pub mod signature;
pub mod wallet;
pub mod wallet_signature;
pub mod x402;
