//! The steps that need no block: what the file says about itself.

use crate::report::Outcome;
use alloy_primitives::B256;
use opg_contracts::{GenesisFile, addresses};
use opg_payments::receipt_payment::{self, Domains, PaymentError};
use opg_primitives::{
    ids::{deposit_address, keyset_digest},
    mode::{Grade, Mode},
};
use opg_receipt::{Core, ReceiptFile, SignedQuote, UpstreamRecord, commit, file::Opening, quote::request_digest};

/// What a step gives: a value and one line for people.
pub(crate) type Taken<T> = Result<(T, String), Outcome>;

pub(crate) fn check_genesis(core: &Core, genesis: &GenesisFile) -> Taken<()> {
    if core.chain_id != genesis.chain_id {
        return Err(Outcome::differs("chain id", genesis.chain_id, core.chain_id));
    }
    if core.registry != addresses::NODE_REGISTRY {
        return Err(Outcome::differs("registry", addresses::NODE_REGISTRY, core.registry));
    }
    if core.mode.grade == Grade::Simulated && !genesis.development {
        return Err(Outcome::failed(
            "simulated evidence on a chain that is not a development one",
        ));
    }
    let kind = if genesis.development { ", development" } else { "" };
    Ok((
        (),
        format!("chain {}{kind}, genesis {}", genesis.chain_id, genesis.digest()),
    ))
}

pub(crate) fn check_keyset(file: &ReceiptFile, core: &Core) -> Taken<()> {
    let digest = keyset_digest(&file.keyset);
    if digest != core.keyset {
        return Err(Outcome::differs("keyset digest", core.keyset, digest));
    }
    if file.keyset.node_id != core.node_id {
        return Err(Outcome::differs(
            "node of the keyset",
            core.node_id,
            file.keyset.node_id,
        ));
    }
    Ok(((), format!("keys of node {} open the digest", core.node_id)))
}

pub(crate) fn check_quote(file: &ReceiptFile, core: &Core) -> Taken<SignedQuote> {
    let quote = SignedQuote::decode(&file.quote)?;
    quote.verify_signature(&file.keyset.receipt_key.0)?;
    core.check_quote(&quote)?;
    let detail = format!("signed, at most {} OPG, kept by the receipt", quote.quote().max_amount);
    Ok((quote, detail))
}

pub(crate) fn check_opening(opening: Option<&Opening>, core: &Core, quote: Option<&SignedQuote>) -> Taken<()> {
    let Some(opening) = opening else {
        return Err(Outcome::skipped("the holder keeps request and answer private"));
    };
    let salt = &opening.salt;
    let equal = |what: &'static str, expected: B256, got: B256| {
        if expected == got {
            Ok(())
        } else {
            Err(Outcome::differs(what, expected, got))
        }
    };
    equal(
        "request body",
        core.request.body,
        commit::request(salt, &opening.body.0),
    )?;
    equal("parameters", core.request.params, commit::params(salt, &opening.params))?;
    let quote = quote.ok_or_else(|| Outcome::failed("there is no valid quote for this request"))?;
    equal(
        "quoted request",
        quote.quote().request_digest,
        request_digest(&opening.method, &opening.path, &opening.body.0),
    )?;
    if opening.leaves.len() as u64 != u64::from(core.response.leaves) {
        let got = opening.leaves.len();
        return Err(Outcome::differs("parts of the answer", core.response.leaves, got));
    }
    let leaves: Vec<B256> = (0u32..)
        .zip(&opening.leaves)
        .map(|(i, leaf)| commit::response_leaf(salt, leaf.kind, i, &leaf.bytes.0))
        .collect();
    let got = commit::response(&leaves).ok_or_else(|| Outcome::failed("more parts than an answer can have"))?;
    equal("answer", core.response.commitment, got)?;
    let (body, parts) = (opening.body.0.len(), leaves.len());
    Ok((
        (),
        format!("body of {body} bytes and answer of {parts} parts open their commitments"),
    ))
}

pub(crate) fn check_price(core: &Core) -> Taken<()> {
    core.check_consistency()?;
    let (price, usage) = (&core.price, &core.usage);
    Ok((
        (),
        format!(
            "{} OPG for {} in, {} out ({}), royalty {} basis points",
            price.charge,
            usage.input,
            usage.output,
            usage.unit.as_str(),
            price.royalty_bps
        ),
    ))
}

/// The record of a closed model. That it has the form and the root of its core is part of the core's consistency.
pub(crate) fn check_upstream(core: &Core, upstream: &UpstreamRecord) -> Taken<()> {
    core.check_consistency()?;
    let peer = match &upstream.peer {
        Some(peer) => format!(
            "a TLS peer authenticated as {} (certificate chain {})",
            upstream.host, peer.chain
        ),
        None => format!("{} on the node's own machine, without TLS", upstream.host),
    };
    let who = if core.mode.served == Mode::Tee {
        "the attested node"
    } else {
        "the node says that it"
    };
    let cut = if upstream.complete { "" } else { ", which was cut" };
    let said =
        |what: &str, text: &Option<String>| text.as_ref().map(|text| format!(", {what} {text}")).unwrap_or_default();
    Ok((
        (),
        format!(
            "{who} received {} bytes{cut} from {peer}; asked for {} {}{}{}. What the provider ran is not proven",
            upstream.answer_bytes,
            upstream.provider,
            upstream.model,
            said("answered as", &upstream.reported_model),
            said("response", &upstream.response_id),
        ),
    ))
}

pub(crate) fn check_payment(core: &Core, settled: bool) -> Taken<()> {
    let payment = &core.payment;
    if core.price.asset != addresses::OPG {
        return Err(Outcome::differs("asset", addresses::OPG, core.price.asset));
    }
    let payee = deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, core.node_id);
    if payment.payee != payee {
        return Err(Outcome::differs(
            "payee (the node's deposit address)",
            payee,
            payment.payee,
        ));
    }
    let domains = Domains::new(core.chain_id, addresses::OPG);
    match receipt_payment::verify(payment, addresses::OPG, &domains) {
        Ok(()) => {
            let (payer, amount) = (payment.payer, payment.amount);
            let detail = match &payment.channel {
                None => format!("{payer} authorised {amount} OPG to this node"),
                Some(channel) => format!(
                    "{payer} pays at most {amount} OPG from channel {} to this node, under a voucher up to {} OPG",
                    payment.nonce, channel.ceiling
                ),
            };
            Ok(((), detail))
        }
        // A contract payer's signature (ERC-1271) needs the EVM; OPG checked it when the payment settled.
        Err(PaymentError::Signature(_)) if settled && payment.channel.is_none() => Ok((
            (),
            format!("{} is a contract: its settlement proves the payment", payment.payer),
        )),
        Err(error) => Err(Outcome::failed(error.to_string())),
    }
}
