//! One paid request: quote, payment, request (x402 v2, scheme `exact` by ERC-3009).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{B256, Bytes};
use opg_contracts::addresses;
use opg_payments::{
    eip3009::{Authorization, Domain},
    x402::{self, PAYMENT_REQUIRED, PAYMENT_SIGNATURE, PaymentPayload, PaymentRequired},
};
use opg_primitives::{
    ids::{Keyset, NodeId, ReceiptId},
    mode::{Grade, Mode},
    money::Amount,
};
use opg_receipt::{SignedQuote, SignedReceipt, file::Leaf, quote::request_digest};
use serde::Deserialize;

use crate::{
    Client, ClientError,
    answer::{Asked, Envelope},
    confidential::Via,
    network::NodeEntry,
    offer::{self, Expected, Selected},
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
    /// How the request reaches the node.
    pub via: Via,
}

impl Job {
    /// Seals the request to the node's attested key, and sends it through the relay at `relay` if one is named.
    #[must_use]
    pub fn sealed(mut self, relay: Option<String>) -> Self {
        self.via = relay.map_or(Via::Sealed, Via::Relay);
        self
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
}

/// A quote with a signed payment.
#[derive(Debug, Clone)]
pub struct Authorized {
    pub(crate) quoted: Quoted,
    pub(crate) authorization: Authorization,
    pub(crate) signature: Vec<u8>,
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

    /// Signs the payment: an ERC-3009 authorization to the node's deposit address with a random nonce.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn authorize(self, wallet: &Wallet) -> Result<Authorized, ClientError> {
        let authorization = Authorization {
            from: wallet.address(),
            to: self.selected.requirements.pay_to,
            value: self.selected.value(),
            valid_after: 0,
            valid_before: now() + self.selected.requirements.max_timeout_seconds,
            nonce: B256::new(random_bytes()?),
        };
        let domain = Domain::opg(self.selected.quote.quote().chain_id, addresses::OPG);
        let signature = authorization.sign(&domain, wallet.secret_key()).to_vec();
        Ok(Authorized {
            quoted: self,
            authorization,
            signature,
        })
    }
}

impl Authorized {
    /// The id that the receipt will have.
    pub fn receipt_id(&self) -> ReceiptId {
        self.quoted.receipt_id()
    }

    fn header(&self) -> Result<String, ClientError> {
        let accepted = self.quoted.selected.requirements.clone();
        let payload = PaymentPayload::of_exact(accepted, &self.authorization, &self.signature)
            .map_err(|error| ClientError::Http(error.to_string()))?;
        Ok(x402::encode_header(&PaymentPayload {
            resource: Some(self.quoted.offer.resource.clone()),
            extensions: self.quoted.offer.extensions.clone(),
            ..payload
        }))
    }

    /// Checks the receipt in `envelope` against what was asked and paid.
    pub(crate) fn accept(&self, envelope: Envelope) -> Result<Paid, ClientError> {
        let quoted = &self.quoted;
        let receipt = envelope.check(&Asked {
            model: &quoted.job.model,
            body: &quoted.job.body,
            quote: &quoted.selected.quote,
            authorization: &self.authorization,
            signature: &self.signature,
            keyset: &quoted.keyset,
        })?;
        Ok(Paid {
            node: quoted.node.clone(),
            keyset: quoted.keyset,
            quote: quoted.selected.quote.clone(),
            receipt,
            secret: envelope.secret,
            salt: envelope.salt,
            path: quoted.job.path,
            body: quoted.job.body.clone(),
            params: envelope.params,
            leaves: envelope.leaves,
        })
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
        let expected = Expected {
            chain_id: self.network().file.chain_id,
            asset: addresses::OPG,
            node_id,
            payee: self.deposit_address(node_id),
            request: request_digest("POST", job.path, &job.body),
            model: model.root,
            ask: model.ask,
            royalty_bps: model.royalty_bps,
            mode: job.mode,
            min_grade: match job.mode {
                Mode::None => Grade::None,
                // A development chain is made for software attesters (D9).
                Mode::Tee if self.network().genesis.development => Grade::Simulated,
                _ => Grade::Hardware,
            },
            max_spend: job.max_spend,
            now: now(),
        };
        let selected = offer::select(&offer, &expected)?;
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
        })
    }

    /// Sends the paid request. What the node answers is not checked yet.
    pub(crate) async fn post_paid(&self, paid: &Authorized) -> Result<reqwest::Response, ClientError> {
        let header = paid.header()?;
        let response = self
            .post(&paid.quoted.node, &paid.quoted.job, Some(&header), ANSWER_TIMEOUT)
            .await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(response).await)
        }
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
