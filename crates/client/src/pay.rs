//! One paid request: quote, payment, request (x402 v2: scheme `exact` by ERC-3009 or Permit2, `upto`, or a voucher of a channel).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{B256, Bytes};
use opg_contracts::addresses;
use opg_payments::{
    eip3009::{Authorization, Domain},
    permit2::{Permit, Witness},
    x402::{
        self, BatchPayload, ChargeExtra, PAYMENT_REQUIRED, PAYMENT_SIGNATURE, PaymentPayload, PaymentRequired,
        PaymentRequirements, Resource,
    },
};
use opg_primitives::{
    ids::{Keyset, NodeId, ReceiptId},
    mode::Mode,
    money::{Amount, Usage},
};
use opg_receipt::{ChannelRecord, PaymentMethod, PaymentRecord, PaymentScheme, SignedQuote, SignedReceipt, file::Leaf};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    Client, ClientError,
    answer::{AnswerError, Asked, Envelope},
    channel::check_self_quote,
    confidential::Via,
    network::NodeEntry,
    offer::{self, Expected, Selected},
    purse::Purse,
    registry::Model,
    rpc::{read_body, root_cause},
    text::one_line,
    wallet::{Wallet, random_bytes},
};

/// Time for a 402 answer: no work is done for it.
const QUOTE_TIMEOUT: Duration = Duration::from_secs(15);
/// Time until the headers of a paid answer. Settle-first payments wait for a block, big models for a slot.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_ERROR_BODY: usize = 1 << 16;

/// A request that is going to be paid for.
#[derive(Debug, Clone)]
pub struct Job {
    /// The model, by name or root.
    pub model: String,
    /// Path of the node's API.
    pub(crate) path: &'static str,
    /// The body; the quote and the receipt commit to these bytes.
    pub(crate) body: Bytes,
    /// Mode asked for.
    pub mode: Mode,
    /// Never sign more than this for the call.
    pub max_spend: Amount,
    /// The most that the call can use.
    pub(crate) most: Usage,
    /// How the request reaches the node.
    pub via: Via,
    /// What is signed for a payment of its own.
    pub way: Way,
}

/// What is signed for a payment of its own, which is one without a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Way {
    /// `exact`: an ERC-3009 authorization over the quoted bound; the rest comes back as a credit. Needs nothing else.
    #[default]
    Exact,
    /// `exact` by Permit2: the same for a wallet that lets Permit2 move its OPG.
    Permit,
    /// `upto` by Permit2: only the charge is taken, after the work. Taken by nodes while the payer owes them little.
    Upto,
}

impl Way {
    /// Whether Permit2 moves the money, for which it needs the wallet's allowance.
    #[must_use]
    pub const fn needs_permit2(self) -> bool {
        matches!(self, Self::Permit | Self::Upto)
    }

    /// Scheme of x402.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Exact | Self::Permit => x402::EXACT,
            Self::Upto => x402::UPTO,
        }
    }
}

impl Job {
    /// Seals the request to the node's attested key, and sends it through the relay at `relay` if one is named.
    #[must_use]
    pub fn sealed(mut self, relay: Option<String>) -> Self {
        self.via = relay.map_or(Via::Sealed, Via::Relay);
        self
    }

    /// What is signed if the call is paid without a channel.
    #[must_use]
    pub fn paid_by(mut self, way: Way) -> Self {
        self.way = way;
        self
    }

    /// Sends the request as it is. Jobs of mode tee are sealed unless this is said: their node has an attested key.
    #[must_use]
    pub fn in_the_clear(mut self) -> Self {
        self.via = Via::Plain;
        self
    }

    /// How a request of a mode travels unless its sender says otherwise.
    pub(crate) const fn via(mode: Mode) -> Via {
        match mode {
            Mode::Tee => Via::Sealed,
            _ => Via::Plain,
        }
    }
}

/// An offer that passed every check. Nothing is paid yet.
#[derive(Debug, Clone)]
pub struct Quoted {
    pub(crate) job: Job,
    pub(crate) node: NodeEntry,
    pub(crate) model: Model,
    pub(crate) keyset: Keyset,
    pub(crate) selected: Selected,
    pub(crate) offer: PaymentRequired,
    pub(crate) expected: Box<Expected>,
}

/// A call with a signed payment.
#[derive(Debug, Clone)]
pub struct Authorized {
    pub(crate) job: Job,
    pub(crate) node: NodeEntry,
    pub(crate) model: Model,
    pub(crate) keyset: Keyset,
    /// The way to pay, as it is echoed to the node.
    pub(crate) accepted: PaymentRequirements,
    pub(crate) resource: Option<Resource>,
    pub(crate) extensions: Option<Map<String, Value>>,
    /// The accepted quote; absent if the call is paid without asking.
    pub(crate) quote: Option<SignedQuote>,
    pub(crate) expected: Box<Expected>,
    pub(crate) payment: Payment,
    /// Where the call is booked against the payer's limits.
    pub(crate) booked: Option<(Purse, u64)>,
}

/// What was signed.
#[derive(Debug, Clone)]
pub(crate) enum Payment {
    /// An ERC-3009 authorization.
    Exact {
        authorization: Authorization,
        signature: Vec<u8>,
    },
    /// A permit.
    Permit { permit: Permit, signature: Vec<u8> },
    /// A voucher of a channel.
    Channel {
        payload: Box<BatchPayload>,
        /// The most that the call can cost.
        bound: Amount,
        /// To sign again when the node counts differently.
        wallet: Wallet,
    },
}

/// A checked receipt and everything that opens its commitments.
#[derive(Debug, Clone)]
pub struct Paid {
    /// The node that answered.
    pub node: NodeEntry,
    /// Its registered keys.
    pub keyset: Keyset,
    /// The accepted quote.
    pub quote: SignedQuote,
    /// The receipt.
    pub receipt: SignedReceipt,
    /// Bearer secret for `/v1/receipts/{id}`.
    pub secret: Option<String>,
    /// Salt of the commitments.
    pub salt: B256,
    /// Path of the request.
    pub path: &'static str,
    /// Body of the request.
    pub body: Bytes,
    /// Canonical JSON of the effective parameters.
    pub params: String,
    /// Parts of the answer.
    pub leaves: Vec<Leaf>,
}

impl Quoted {
    /// Amount that the payment signs; the charge is never more.
    pub fn amount(&self) -> Amount {
        self.selected.amount
    }

    /// The id that the receipt will have.
    pub fn receipt_id(&self) -> ReceiptId {
        self.selected.quote.quote().receipt_id
    }

    /// The node that is paid.
    pub fn node(&self) -> &NodeEntry {
        &self.node
    }

    /// The model and its terms.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Signs the payment in the job's way, to the node's deposit address and with a random nonce.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn authorize(self, wallet: &Wallet) -> Result<Authorized, ClientError> {
        let way = &self.selected.requirements;
        let deadline = now() + way.max_timeout_seconds;
        let nonce = B256::new(random_bytes()?);
        let chain_id = self.selected.quote.quote().chain_id;
        let payment = if let Some(witness) = self.selected.witness {
            let permit = Permit {
                from: wallet.address(),
                token: way.asset,
                amount: self.selected.value(),
                nonce: nonce.into(),
                deadline,
                witness,
            };
            let signature = permit.sign(&Domain::permit2(chain_id), wallet.secret_key()).to_vec();
            Payment::Permit { permit, signature }
        } else {
            let authorization = Authorization {
                from: wallet.address(),
                to: way.pay_to,
                value: self.selected.value(),
                valid_after: 0,
                valid_before: deadline,
                nonce,
            };
            let domain = Domain::opg(chain_id, addresses::OPG);
            let signature = authorization.sign(&domain, wallet.secret_key()).to_vec();
            Payment::Exact {
                authorization,
                signature,
            }
        };
        Ok(Authorized {
            job: self.job,
            node: self.node,
            model: self.model,
            keyset: self.keyset,
            accepted: self.selected.requirements,
            resource: Some(self.offer.resource),
            extensions: self.offer.extensions,
            quote: Some(self.selected.quote),
            expected: self.expected,
            booked: None,
            payment,
        })
    }

    /// As [`authorize`](Self::authorize), within the limits of the payer's purse.
    ///
    /// # Errors
    /// If a limit forbids it, or the purse cannot be written.
    pub fn authorize_within(self, wallet: &Wallet, purse: &Purse) -> Result<Authorized, ClientError> {
        let booked = purse.book(self.selected.requirements.pay_to, self.selected.amount, now())?;
        let authorized = self.authorize(wallet)?;
        Ok(Authorized {
            booked: Some((purse.clone(), booked)),
            ..authorized
        })
    }
}

impl Authorized {
    /// The id that the receipt will have; a call that is paid without asking learns it from the answer.
    pub fn receipt_id(&self) -> Option<ReceiptId> {
        self.quote.as_ref().map(|quote| quote.quote().receipt_id)
    }

    /// The channel that pays, if one does.
    pub fn channel(&self) -> Option<B256> {
        match &self.payment {
            Payment::Exact { .. } | Payment::Permit { .. } => None,
            Payment::Channel { payload, .. } => Some(payload.voucher.voucher.channel_id),
        }
    }

    fn header(&self) -> Result<String, ClientError> {
        let accepted = self.accepted.clone();
        let (payload, headroom) = match &self.payment {
            Payment::Exact {
                authorization,
                signature,
            } => {
                let payload = PaymentPayload::of_exact(accepted, authorization, signature)
                    .map_err(|error| ClientError::Http(error.to_string()))?;
                (payload, false)
            }
            Payment::Permit { permit, signature } => {
                let payload = PaymentPayload::of_permit(accepted, permit, signature)
                    .ok_or_else(|| ClientError::Http("a permit of a channel's deposit is no payment".into()))?;
                (payload, false)
            }
            Payment::Channel { payload, .. } => (PaymentPayload::of_batch(accepted, payload), true),
        };
        let mut extensions = self.extensions.clone();
        if headroom {
            extensions
                .get_or_insert_default()
                .insert(x402::HEADROOM.into(), x402::headroom_offer());
        }
        Ok(x402::encode_header(&PaymentPayload {
            resource: self.resource.clone(),
            extensions,
            ..payload
        }))
    }

    /// The payment as the receipt must name it.
    fn record(&self) -> PaymentRecord {
        match &self.payment {
            Payment::Exact {
                authorization,
                signature,
            } => PaymentRecord {
                scheme: PaymentScheme::Exact,
                method: PaymentMethod::Eip3009,
                payer: authorization.from,
                payee: authorization.to,
                // The offer's amount was checked to fit.
                amount: Amount::try_from(authorization.value).unwrap_or(Amount::MAX),
                valid_after: authorization.valid_after,
                valid_before: authorization.valid_before,
                nonce: authorization.nonce,
                signature: signature.clone().into(),
                channel: None,
                facilitator: None,
            },
            Payment::Permit { permit, signature } => {
                let (scheme, payee, valid_after, facilitator) = match permit.witness {
                    Witness::Upto {
                        to,
                        facilitator,
                        valid_after,
                    } => (PaymentScheme::Upto, to, valid_after, Some(facilitator)),
                    Witness::Exact { to, valid_after } => (PaymentScheme::Exact, to, valid_after, None),
                    // Never signed here: no receipt names it.
                    Witness::Deposit { .. } => (PaymentScheme::Exact, Default::default(), 0, None),
                };
                PaymentRecord {
                    scheme,
                    method: PaymentMethod::Permit2,
                    payer: permit.from,
                    payee,
                    // The offer's amount was checked to fit.
                    amount: Amount::try_from(permit.amount).unwrap_or(Amount::MAX),
                    valid_after,
                    valid_before: permit.deadline,
                    nonce: permit.nonce.into(),
                    signature: signature.clone().into(),
                    channel: None,
                    facilitator,
                }
            }
            Payment::Channel { payload, bound, .. } => {
                let (config, voucher) = (&payload.config, &payload.voucher);
                PaymentRecord {
                    scheme: PaymentScheme::BatchSettlement,
                    method: PaymentMethod::Voucher,
                    payer: config.payer,
                    payee: config.receiver,
                    amount: *bound,
                    valid_after: 0,
                    valid_before: 0,
                    nonce: voucher.voucher.channel_id,
                    signature: voucher.signature.clone(),
                    channel: Some(ChannelRecord {
                        payer_authorizer: config.payer_authorizer,
                        receiver_authorizer: config.receiver_authorizer,
                        withdraw_delay: config.withdraw_delay,
                        salt: config.salt,
                        ceiling: voucher.voucher.max_claimable,
                    }),
                    facilitator: None,
                }
            }
        }
    }

    /// Checks the receipt in `envelope` against what was asked and paid, and books what was charged.
    pub(crate) fn accept(&self, envelope: Envelope) -> Result<Paid, ClientError> {
        let quote = match &self.quote {
            Some(quote) => quote.clone(),
            None => self.self_quote(&envelope)?,
        };
        let checked = envelope.check(&Asked {
            model: &self.job.model,
            body: &self.job.body,
            quote: &quote,
            payment: &self.record(),
            keyset: &self.keyset,
        });
        // What was charged is booked whether or not the answer is believed.
        self.book_answer(&envelope, checked.as_ref().ok())?;
        Ok(Paid {
            node: self.node.clone(),
            keyset: self.keyset,
            quote,
            receipt: checked?,
            secret: envelope.secret,
            salt: envelope.salt,
            path: self.job.path,
            body: self.job.body.clone(),
            params: envelope.params,
            leaves: envelope.leaves,
        })
    }

    /// The quote that the node made by itself: what it promises may not differ from what was asked.
    fn self_quote(&self, envelope: &Envelope) -> Result<SignedQuote, ClientError> {
        let bytes = envelope
            .quote
            .as_deref()
            .ok_or_else(|| AnswerError::Envelope("no quote".into()))?;
        let quote = SignedQuote::decode(bytes).map_err(AnswerError::Receipt)?;
        quote
            .verify_signature(&self.keyset.receipt_key.0)
            .map_err(AnswerError::Receipt)?;
        let Payment::Channel { bound, .. } = &self.payment else {
            return Err(AnswerError::Envelope("a quote that was not asked for".into()).into());
        };
        check_self_quote(&quote, *bound, &self.expected)?;
        Ok(quote)
    }

    fn book_answer(&self, envelope: &Envelope, receipt: Option<&SignedReceipt>) -> Result<(), ClientError> {
        let Some((purse, booked)) = &self.booked else {
            return Ok(());
        };
        if let Some(receipt) = receipt {
            purse.spent(*booked, receipt.core().price.charge)?;
        }
        let Payment::Channel { payload, .. } = &self.payment else {
            return Ok(());
        };
        let voucher = &payload.voucher.voucher;
        match envelope.payment.as_ref().map(ChargeExtra::parse) {
            Some(Ok(extra)) => purse.answered(voucher.channel_id, voucher.max_claimable, &extra),
            // A failure is charged nothing, and says nothing about the channel.
            None => purse.refused(voucher.channel_id, voucher.max_claimable),
            Some(Err(error)) => Err(AnswerError::Envelope(format!("payment: {error}")).into()),
        }
    }

    /// The node refused the call: nothing was charged.
    fn refused(&self) -> Result<(), ClientError> {
        let Some((purse, booked)) = &self.booked else {
            return Ok(());
        };
        purse.spent(*booked, Amount::ZERO)?;
        if let Payment::Channel { payload, .. } = &self.payment {
            let voucher = &payload.voucher.voucher;
            purse.refused(voucher.channel_id, voucher.max_claimable)?;
        }
        Ok(())
    }
}

impl Client {
    /// Asks for a quote and checks it: chain, asset, payee, amount, and the node's signature. Nothing is paid.
    ///
    /// # Errors
    /// If the node refuses the request, or its offer is not acceptable.
    pub async fn quote(&self, job: Job) -> Result<Quoted, ClientError> {
        let node = self.node_for(&job.model)?;
        let node_id = NodeId(node.id);
        let request = self.post(&node, &job, None, QUOTE_TIMEOUT);
        let (model, response) = futures::join!(self.terms(&node, &job.model), request);
        let (model, response) = (model?, response?);
        if response.status().as_u16() != 402 {
            if response.status().is_success() {
                // A node that works for nothing leaves no receipt; this client does not take answers without one.
                return Err(ClientError::NodeAnswer {
                    what: "served without payment or receipt".into(),
                });
            }
            return Err(refusal(response).await);
        }
        let header = response
            .headers()
            .get(PAYMENT_REQUIRED)
            .ok_or_else(|| offer::OfferError::Unreadable(format!("no {PAYMENT_REQUIRED} header")))?;
        let offer: PaymentRequired =
            x402::decode_header(header.as_bytes()).map_err(|error| offer::OfferError::Unreadable(error.to_string()))?;
        let expected = self.expected(&job, &node, &model);
        let selected = offer::select(&offer, &expected, job.way)?;
        let digest = selected.quote.quote().keyset;
        let known = self.keyset(digest, &node.url).await?;
        selected.check_signature(known.as_ref().map(|(registered, _)| registered), node_id)?;
        let Some((_, keyset)) = known else {
            return Err(offer::OfferError::Keyset {
                keyset: digest,
                problem: "is not registered",
            }
            .into());
        };
        Ok(Quoted {
            job,
            node,
            model,
            keyset,
            selected,
            offer,
            expected: Box::new(expected),
        })
    }

    /// Sends the paid request; the call as it was taken comes back with the answer, because a voucher is signed again if the node
    /// counts differently. What the node answers is not checked yet.
    pub(crate) async fn post_paid(&self, paid: Authorized) -> Result<(reqwest::Response, Authorized), ClientError> {
        let response = self.send_paid(&paid).await?;
        if response.status().is_success() {
            return Ok((response, paid));
        }
        let offer = response
            .headers()
            .get(PAYMENT_REQUIRED)
            .and_then(|header| x402::decode_header::<PaymentRequired>(header.as_bytes()).ok());
        // A node that fails after the work says so in a receipt over nothing; a transport error is no refusal.
        paid.refused()?;
        let Some(again) = self.signed_again(&paid, offer).await? else {
            return Err(refusal(response).await);
        };
        let response = self.send_paid(&again).await?;
        if response.status().is_success() {
            return Ok((response, again));
        }
        again.refused()?;
        Err(refusal(response).await)
    }

    async fn send_paid(&self, paid: &Authorized) -> Result<reqwest::Response, ClientError> {
        let header = paid.header()?;
        self.post(&paid.node, &paid.job, Some(&header), ANSWER_TIMEOUT).await
    }

    async fn post(
        &self,
        node: &NodeEntry,
        job: &Job,
        payment: Option<&str>,
        timeout: Duration,
    ) -> Result<reqwest::Response, ClientError> {
        if job.via != Via::Plain {
            return self.post_sealed(node, job, payment).await;
        }
        let mut request = self
            .http
            .post(format!("{}{}", node.url, job.path))
            .header("content-type", "application/json")
            .body(job.body.to_vec());
        if let Some(header) = payment {
            request = request.header(PAYMENT_SIGNATURE, header);
        }
        // The bound is on the headers: a stream may take as long as it takes.
        let unreachable = |reason| ClientError::NodeUnreachable {
            url: node.url.clone(),
            reason,
        };
        tokio::time::timeout(timeout, request.send())
            .await
            .map_err(|_| unreachable(format!("no answer within {} s", timeout.as_secs())))?
            .map_err(|error| unreachable(root_cause(&error)))
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    message: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    param: Option<String>,
}

/// The house error object of a refusal.
pub(crate) async fn refusal(response: reqwest::Response) -> ClientError {
    let status = response.status().as_u16();
    let body = read_body(response, MAX_ERROR_BODY).await.unwrap_or_default();
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(ErrorBody { error }) => ClientError::NodeRefused {
            status,
            message: one_line(&error.message, 500),
            code: one_line(error.code.as_deref().unwrap_or("no code"), 80),
            param: error.param.map(|param| one_line(&param, 120)),
        },
        Err(_) => ClientError::NodeRefused {
            status,
            message: one_line(&String::from_utf8_lossy(&body), 200),
            code: "no code".into(),
            param: None,
        },
    }
}

/// The client's clock, Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
