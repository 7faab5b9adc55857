//! The core as deterministic CBOR, one map key after the other.

use super::{
    ChannelRecord, Core, Evidence, FinishReason, MAX_PAYMENT_SIGNATURE, ModeRecord, ModelRef, PaymentMethod,
    PaymentRecord, PaymentScheme, PriceRecord, QuoteRef, RequestCommitments, Response, StreamRecord, Times,
    UsageRecord, UsageUnit, VERSION,
    check::{check_leaves, check_name, check_status},
    upstream::UpstreamRecord,
};
use crate::{
    error::ReceiptError,
    fields::{Fields, as_array, as_uint, write_price},
};
use alloy_primitives::{Address, B256, Bytes};
use opg_primitives::{
    cbor::{Encoder, Limits, Value, decode_strict},
    ids::{KeysetDigest, ModelRoot, NodeId, ReceiptId},
};

impl Core {
    /// Deterministic CBOR, the payload of the COSE message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::with_capacity(1_536);
        let optional = [self.evidence.is_some(), self.router.is_some(), self.upstream.is_some()];
        let optional = optional.into_iter().filter(|is| *is).count();
        e.map(18 + optional);
        e.uint(1).uint(VERSION);
        e.uint(2).uint(self.chain_id);
        e.uint(3).bytes(self.registry.as_slice());
        e.uint(4).bytes(self.node_id.as_ref());
        e.uint(5).bytes(self.keyset.as_ref());
        e.uint(6).uint(self.seq);
        e.uint(7).bytes(self.prev.as_slice());
        e.uint(8).bytes(self.receipt_id.as_ref());
        e.uint(9).map(2);
        e.uint(1)
            .bytes(self.quote.digest.as_slice())
            .uint(2)
            .bytes(self.quote.nonce.as_slice());
        e.uint(10).map(2);
        e.uint(1).bytes(self.request.body.as_slice());
        e.uint(2).bytes(self.request.params.as_slice());
        e.uint(11).map(4);
        e.uint(1)
            .text(&self.model.asked)
            .uint(2)
            .bytes(self.model.asked_root.as_ref());
        e.uint(3).bytes(self.model.served_root.as_ref());
        e.uint(4).bytes(self.model.runtime.as_slice());
        e.uint(12).map(4);
        e.uint(1).bytes(self.response.commitment.as_slice());
        e.uint(2).uint(self.response.leaves.into());
        e.uint(3)
            .text(self.response.finish.as_str())
            .uint(4)
            .uint(self.response.status.into());
        e.uint(13).map(3);
        e.uint(1).text(self.usage.unit.as_str());
        e.uint(2).uint(self.usage.input).uint(3).uint(self.usage.output);
        e.uint(14).map(6);
        write_price(&mut e, &self.price.ask);
        e.uint(4).uint(self.price.royalty_bps.into());
        e.uint(5).bytes(&self.price.charge.to_be_bytes());
        e.uint(6).bytes(self.price.asset.as_slice());
        let payment = &self.payment;
        let window = payment.channel.is_none();
        let optional = usize::from(payment.channel.is_some()) + usize::from(payment.facilitator.is_some());
        e.uint(15).map(7 + 2 * usize::from(window) + optional);
        e.uint(1)
            .text(payment.scheme.as_str())
            .uint(2)
            .text(payment.method.as_str());
        e.uint(3)
            .bytes(payment.payer.as_slice())
            .uint(4)
            .bytes(payment.payee.as_slice());
        e.uint(5).bytes(&payment.amount.to_be_bytes());
        if window {
            e.uint(6).uint(payment.valid_after).uint(7).uint(payment.valid_before);
        }
        e.uint(8)
            .bytes(payment.nonce.as_slice())
            .uint(9)
            .bytes(&payment.signature);
        if let Some(channel) = &payment.channel {
            e.uint(10).map(5);
            e.uint(1).bytes(channel.payer_authorizer.as_slice());
            e.uint(2).bytes(channel.receiver_authorizer.as_slice());
            e.uint(3).uint(channel.withdraw_delay);
            e.uint(4).bytes(channel.salt.as_slice());
            e.uint(5).bytes(&channel.ceiling.to_be_bytes());
        }
        if let Some(facilitator) = &payment.facilitator {
            e.uint(11).bytes(facilitator.as_slice());
        }
        e.uint(16).map(3);
        e.uint(1)
            .uint(self.times.received)
            .uint(2)
            .uint(self.times.first_output);
        e.uint(3).uint(self.times.done);
        e.uint(17).map(4);
        e.uint(1).uint(self.mode.asked.code().into());
        e.uint(2).uint(self.mode.min_grade.code().into());
        e.uint(3).uint(self.mode.served.code().into());
        e.uint(4).uint(self.mode.grade.code().into());
        e.uint(18).map(4);
        e.uint(1).bool(self.stream.streamed).uint(2).uint(self.stream.chunks);
        e.uint(3)
            .bytes(self.stream.rolling_hash.as_slice())
            .uint(4)
            .bool(self.stream.aborted);
        if let Some(evidence) = &self.evidence {
            e.uint(19);
            evidence.encode(&mut e);
        }
        if let Some(router) = &self.router {
            e.uint(20).bytes(router.as_slice());
        }
        if let Some(upstream) = &self.upstream {
            e.uint(21);
            upstream.encode(&mut e);
        }
        e.finish()
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`ReceiptError`] naming the field for anything but the deterministic encoding of a core.
    pub fn decode(payload: &[u8]) -> Result<Self, ReceiptError> {
        let limits = Limits {
            bytes: crate::MAX_BYTES,
            depth: 4,
            items: 256,
            tags: false,
        };
        let value = decode_strict(payload, limits).map_err(|source| ReceiptError::Cbor {
            what: "receipt core",
            source,
        })?;
        let mut f = Fields::of(value, "core")?;
        let version = f.uint(1, "version")?;
        if version != VERSION {
            return Err(ReceiptError::value("version", VERSION, version));
        }
        let core = Self {
            chain_id: f.uint(2, "chain_id")?,
            registry: f.address(3, "registry")?,
            node_id: NodeId(f.b256(4, "node_id")?),
            keyset: KeysetDigest(f.b256(5, "keyset")?),
            seq: f.uint(6, "seq")?,
            prev: f.b256(7, "prev")?,
            receipt_id: ReceiptId(f.b256(8, "receipt_id")?),
            quote: QuoteRef::read(f.map(9, "quote")?)?,
            request: RequestCommitments::read(f.map(10, "request")?)?,
            model: ModelRef::read(f.map(11, "model")?)?,
            response: Response::read(f.map(12, "response")?)?,
            usage: UsageRecord::read(f.map(13, "usage")?)?,
            price: PriceRecord::read(f.map(14, "price")?)?,
            payment: PaymentRecord::read(f.map(15, "payment")?)?,
            times: Times::read(f.map(16, "times")?)?,
            mode: ModeRecord::read(f.map(17, "mode")?)?,
            stream: StreamRecord::read(f.map(18, "stream")?)?,
            evidence: f.optional(19).map(Evidence::read).transpose()?,
            router: f
                .optional(20)
                .map(|value| as_array(value, "router").map(Address::new))
                .transpose()?,
            upstream: f.optional(21).map(UpstreamRecord::read).transpose()?,
        };
        f.end()?;
        Ok(core)
    }
}

impl FinishReason {
    fn read(text: &str) -> Result<Self, ReceiptError> {
        [Self::Stop, Self::Length, Self::Cancelled, Self::Error]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| unknown("response.finish", "stop, length, cancelled or error", text))
    }
}

impl QuoteRef {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let quote = Self {
            digest: f.b256(1, "quote.digest")?,
            nonce: f.b256(2, "quote.nonce")?,
        };
        f.end().map(|()| quote)
    }
}

impl RequestCommitments {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let request = Self {
            body: f.b256(1, "request.body")?,
            params: f.b256(2, "request.params")?,
        };
        f.end().map(|()| request)
    }
}

impl ModelRef {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let model = Self {
            asked: f.text(1, "model.asked")?,
            asked_root: ModelRoot(f.b256(2, "model.asked_root")?),
            served_root: ModelRoot(f.b256(3, "model.served_root")?),
            runtime: f.b256(4, "model.runtime")?,
        };
        check_name(&model.asked)?;
        f.end().map(|()| model)
    }
}

impl Response {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let response = Self {
            commitment: f.b256(1, "response.commitment")?,
            leaves: f.small(2, "response.leaves")?,
            finish: FinishReason::read(&f.text(3, "response.finish")?)?,
            status: f.small(4, "response.status")?,
        };
        check_leaves(response.leaves)?;
        check_status(response.status)?;
        f.end().map(|()| response)
    }
}

impl UsageRecord {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let unit = match f.text(1, "usage.unit")?.as_str() {
            "tokens" => UsageUnit::Tokens,
            "calls" => UsageUnit::Calls,
            other => return Err(unknown("usage.unit", "tokens or calls", other)),
        };
        let usage = Self {
            unit,
            input: f.uint(2, "usage.input")?,
            output: f.uint(3, "usage.output")?,
        };
        f.end().map(|()| usage)
    }
}

impl PriceRecord {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let price = Self {
            ask: f.price()?,
            royalty_bps: f.small(4, "price.royalty_bps")?,
            charge: f.amount(5, "price.charge")?,
            asset: f.address(6, "price.asset")?,
        };
        f.end().map(|()| price)
    }
}

impl PaymentRecord {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let scheme = f.text(1, "payment.scheme")?;
        let method = f.text(2, "payment.method")?;
        let (scheme, method) = match (scheme.as_str(), method.as_str()) {
            ("exact", "eip3009") => (PaymentScheme::Exact, PaymentMethod::Eip3009),
            ("exact", "permit2") => (PaymentScheme::Exact, PaymentMethod::Permit2),
            ("upto", "permit2") => (PaymentScheme::Upto, PaymentMethod::Permit2),
            ("batch-settlement", "voucher") => (PaymentScheme::BatchSettlement, PaymentMethod::Voucher),
            ("exact" | "upto" | "batch-settlement", other) => {
                return Err(unknown(
                    "payment.method",
                    "the scheme's method: eip3009, permit2 or voucher",
                    other,
                ));
            }
            (other, _) => return Err(unknown("payment.scheme", "exact, upto or batch-settlement", other)),
        };
        let voucher = method == PaymentMethod::Voucher;
        let mut payment = Self {
            scheme,
            method,
            payer: f.address(3, "payment.payer")?,
            payee: f.address(4, "payment.payee")?,
            amount: f.amount(5, "payment.amount")?,
            valid_after: 0,
            valid_before: 0,
            nonce: B256::ZERO,
            signature: Bytes::new(),
            channel: None,
            facilitator: None,
        };
        if !voucher {
            payment.valid_after = f.uint(6, "payment.valid_after")?;
            payment.valid_before = f.uint(7, "payment.valid_before")?;
        }
        payment.nonce = f.b256(8, "payment.nonce")?;
        payment.signature = f.bytes(9, "payment.signature", MAX_PAYMENT_SIGNATURE)?.into();
        if voucher {
            payment.channel = Some(ChannelRecord::read(f.map(10, "payment.channel")?)?);
        }
        if scheme == PaymentScheme::Upto {
            payment.facilitator = Some(f.address(11, "payment.facilitator")?);
        }
        f.end().map(|()| payment)
    }
}

impl ChannelRecord {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let channel = Self {
            payer_authorizer: f.address(1, "payment.channel.payer_authorizer")?,
            receiver_authorizer: f.address(2, "payment.channel.receiver_authorizer")?,
            withdraw_delay: f.uint(3, "payment.channel.withdraw_delay")?,
            salt: f.b256(4, "payment.channel.salt")?,
            ceiling: f.amount(5, "payment.channel.ceiling")?,
        };
        f.end().map(|()| channel)
    }
}

impl Times {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let times = Self {
            received: f.uint(1, "times.received")?,
            first_output: f.uint(2, "times.first_output")?,
            done: f.uint(3, "times.done")?,
        };
        f.end().map(|()| times)
    }
}

impl ModeRecord {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let mode = Self {
            asked: f.mode(1, "mode.asked")?,
            min_grade: f.grade(2, "mode.min_grade")?,
            served: f.mode(3, "mode.served")?,
            grade: f.grade(4, "mode.grade")?,
        };
        f.end().map(|()| mode)
    }
}

impl StreamRecord {
    fn read(mut f: Fields) -> Result<Self, ReceiptError> {
        let stream = Self {
            streamed: f.bool(1, "stream.streamed")?,
            chunks: f.uint(2, "stream.chunks")?,
            rolling_hash: f.b256(3, "stream.rolling_hash")?,
            aborted: f.bool(4, "stream.aborted")?,
        };
        f.end().map(|()| stream)
    }
}

impl Evidence {
    fn encode(&self, e: &mut Encoder) {
        let present = [
            self.statement_hash.is_some(),
            self.evidence_id.is_some(),
            self.policy_epoch.is_some(),
            self.proof_deadline.is_some(),
        ];
        e.map(present.into_iter().filter(|is| *is).count());
        if let Some(hash) = &self.statement_hash {
            e.uint(1).bytes(hash.as_slice());
        }
        if let Some(id) = &self.evidence_id {
            e.uint(2).bytes(id.as_slice());
        }
        if let Some(epoch) = self.policy_epoch {
            e.uint(3).uint(epoch);
        }
        if let Some(deadline) = self.proof_deadline {
            e.uint(4).uint(deadline);
        }
    }

    fn read(value: Value) -> Result<Self, ReceiptError> {
        let hash = |value, field| as_array(value, field).map(B256::new);
        let mut f = Fields::of(value, "evidence")?;
        let evidence = Self {
            statement_hash: f
                .optional(1)
                .map(|value| hash(value, "evidence.statement_hash"))
                .transpose()?,
            evidence_id: f
                .optional(2)
                .map(|value| hash(value, "evidence.evidence_id"))
                .transpose()?,
            policy_epoch: f
                .optional(3)
                .map(|value| as_uint(value, "evidence.policy_epoch"))
                .transpose()?,
            proof_deadline: f
                .optional(4)
                .map(|value| as_uint(value, "evidence.proof_deadline"))
                .transpose()?,
        };
        f.end()?;
        if evidence == Self::default() {
            return Err(ReceiptError::value("evidence", "at least one field", "an empty map"));
        }
        Ok(evidence)
    }
}

fn unknown(field: &'static str, expected: &str, got: &str) -> ReceiptError {
    ReceiptError::value(field, expected, got.escape_debug().take(60).collect::<String>())
}
