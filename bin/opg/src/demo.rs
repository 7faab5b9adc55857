//! What `opg up --demo` shows: one paid job on each engine, every step with its time.

use std::time::{Duration, Instant};

use alloy_primitives::Address;
use opg_client::{
    Authorized, ChatEvent, ChatRequest, Client, Credits, Job, Message, Network, Paid, Quoted, Wallet, text,
};
use opg_contracts::addresses;
use opg_light_client::{Options, verify_bytes};
use opg_primitives::{ids::NodeId, money::Amount};
use serde_json::{Value, json};

use crate::{
    failure::Failure,
    output::{Output, short},
};

const ONNX_MODEL: &str = "demo/digits-mlp";
const CHAT_MODEL: &str = "demo/tiny-llama";
/// The model writes licence-like English and ends at once if it always takes the likeliest token, so this samples, with a seed
/// that gives a sentence.
const PROMPT: &str = "Permission is hereby granted";
const FINALITY: Duration = Duration::from_secs(60);
/// A handwritten zero, 8 by 8 grey levels (the first row of `testing/fixtures/digits/samples.json`).
const DIGIT: [u8; 64] = [
    0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0, 0, 8, 8, 0, 0, 5, 8, 0,
    0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0,
];

/// Runs both jobs.
pub(crate) async fn run(network: &Network, output: Output) -> Result<(), Failure> {
    let client = Client::new(network.clone())?;
    let wallet = network
        .wallet()
        .ok_or_else(|| Failure::Failed(eyre::eyre!("the network has no demo wallet")))??;
    let mut steps = Steps {
        output,
        job: "onnx",
        last: Instant::now(),
    };
    let balances = client.balances(wallet.address()).await?;
    steps.title(&format!("one job on an ONNX model ({ONNX_MODEL})"));
    steps.done(
        "wallet",
        format!("{} with {} OPG", wallet.address(), balances.opg),
        json!({ "address": wallet.address(), "opg": balances.opg }),
    );

    let inputs = json!({ "X": [DIGIT.as_slice()] });
    let quoted = client
        .quote(Job::infer(
            ONNX_MODEL,
            &inputs,
            Amount::parse_opg("0.1").map_err(Failure::failed)?,
        ))
        .await?;
    let (paid, before) = pay(&mut steps, &client, &wallet, quoted).await?;
    let answer = client.infer(&paid).await?;
    let label = answer.outputs.pointer("/label/0").cloned().unwrap_or(Value::Null);
    steps.done(
        "inference",
        format!("the digit is a {label}"),
        json!({ "label": label }),
    );
    prove(&mut steps, &client, &answer.paid, &before).await?;

    steps.job = "llama";
    steps.title(&format!("one chat with a language model ({CHAT_MODEL})"));
    let request = ChatRequest {
        model: CHAT_MODEL.into(),
        messages: vec![Message::user(PROMPT)],
        max_tokens: 24,
        temperature: Some(0.6),
        seed: Some(8),
        stream: true,
        tools: Vec::new(),
        tool_choice: None,
    };
    let quoted = client
        .quote(Job::chat(&request, Amount::parse_opg("0.1").map_err(Failure::failed)?))
        .await?;
    let (paid, before) = pay(&mut steps, &client, &wallet, quoted).await?;
    let mut stream = client.chat_stream(paid).await?;
    let mut first = None;
    let chat = loop {
        match stream.next().await? {
            Some(ChatEvent::Text(_)) => first = first.or_else(|| Some(steps.last.elapsed())),
            Some(ChatEvent::Done(chat)) => break *chat,
            None => return Err(Failure::Failed(eyre::eyre!("the stream ended without an answer"))),
        }
    };
    let first = first.unwrap_or_default().as_millis();
    let usage = &chat.paid.receipt.core().usage;
    steps.done(
        "inference",
        format!(
            "{:?}, {} tokens, the first after {first} ms",
            text::one_line(chat.text.trim(), 60),
            usage.output
        ),
        json!({ "text": chat.text, "first_token_ms": first, "tokens": usage.output }),
    );
    prove(&mut steps, &client, &chat.paid, &before).await
}

/// Credits of everyone who may get a share, before the job.
type Shares = Vec<(&'static str, Address, Credits)>;

async fn pay(
    steps: &mut Steps,
    client: &Client,
    wallet: &Wallet,
    quoted: Quoted,
) -> Result<(Authorized, Shares), Failure> {
    steps.done(
        "quote",
        format!(
            "402, at most {} OPG, receipt {}",
            quoted.amount(),
            short(quoted.receipt_id())
        ),
        json!({ "amount": quoted.amount(), "receipt_id": quoted.receipt_id(), "node": quoted.node().id }),
    );
    let before = shares(
        client,
        quoted.model().creator,
        NodeId(quoted.node().id),
        wallet.address(),
    )
    .await?;
    steps.last = Instant::now();
    let node = client.deposit_address(NodeId(quoted.node().id));
    let paid = quoted.authorize(wallet)?;
    steps.done(
        "payment",
        format!("x402 exact, signed to the node's deposit address {}", short(node)),
        json!({ "payee": node }),
    );
    Ok((paid, before))
}

/// From the signed receipt to the verdict of the offline check.
async fn prove(steps: &mut Steps, client: &Client, paid: &Paid, before: &Shares) -> Result<(), Failure> {
    let core = paid.receipt.core();
    steps.done(
        "receipt",
        format!(
            "signed by the node, sequence {}, charge {} OPG; checked by the client",
            core.seq, core.price.charge
        ),
        json!({ "receipt_id": core.receipt_id, "seq": core.seq, "charge": core.price.charge }),
    );
    let started = Instant::now();
    let nodes = client.rpc().urls().len();
    futures::future::try_join_all((0..nodes).map(|i| client.wait_checked_at(i, core.receipt_id, FINALITY))).await?;
    steps.done(
        "verified",
        format!("signature, payment, price and sequence, by {nodes} full nodes, each for itself"),
        json!({ "full_nodes": nodes }),
    );
    let height = client.wait_final(core.receipt_id, FINALITY).await?.height;
    steps.done(
        "final",
        format!(
            "in block {height}, {} ms after the receipt",
            started.elapsed().as_millis()
        ),
        json!({ "height": height, "ms_after_receipt": started.elapsed().as_millis() }),
    );
    let file = client.fetch_receipt_file(paid, FINALITY, |_| ()).await?;
    let creator = before
        .iter()
        .find(|(name, ..)| *name == "creator")
        .map(|(_, address, _)| *address);
    let after = shares(client, creator.unwrap_or_default(), core.node_id, core.payment.payer).await?;
    let mut credits = Vec::new();
    for ((name, _, before), (.., after)) in before.iter().zip(&after) {
        let gained = after.credited.saturating_sub(before.credited);
        if !gained.is_zero() {
            credits.push((*name, gained));
        }
    }
    let text: Vec<_> = credits
        .iter()
        .map(|(name, amount)| format!("{name} {amount}"))
        .collect();
    steps.done(
        "settled",
        format!("credited in OPG: {}", text.join(", ")),
        json!({ "credits": credits.iter().map(|(name, amount)| json!({ "to": name, "amount": amount })).collect::<Vec<_>>() }),
    );
    // From bytes, as another machine would read them.
    let bytes = file.to_bytes();
    steps.last = Instant::now();
    let report = verify_bytes(&bytes, &client.network().genesis, &Options::default()).map_err(Failure::failed)?;
    steps.done(
        "offline check",
        format!(
            "{} ({} steps, {} bytes)",
            report.verdict,
            report.steps.len(),
            bytes.len()
        ),
        json!({ "verdict": report.verdict.to_string(), "steps": report.steps.len(), "bytes": bytes.len() }),
    );
    match report.failure() {
        None if report.verdict.is_success() => Ok(()),
        None => Err(Failure::Failed(eyre::eyre!(
            "the receipt is not proven: {}",
            report.verdict
        ))),
        Some(step) => Err(Failure::Failed(eyre::eyre!(
            "the receipt does not verify: {}: {}",
            step.name.as_str(),
            step.detail
        ))),
    }
}

async fn shares(client: &Client, creator: Address, node: NodeId, payer: Address) -> Result<Shares, Failure> {
    let genesis = &client.network().genesis;
    let operator = genesis
        .nodes
        .iter()
        .find(|entry| entry.node_id() == node.0)
        .map(|entry| entry.operator);
    let accounts = [
        ("node", operator.unwrap_or_default()),
        ("creator", creator),
        ("treasury", genesis.parameters.treasury),
        ("insurance", addresses::INSURANCE),
        ("payer (back)", payer),
    ];
    let read = accounts
        .into_iter()
        .map(|(name, address)| async move { Ok::<_, Failure>((name, address, client.credits(address, node).await?)) });
    futures::future::try_join_all(read).await
}

/// Prints steps with the time since the one before.
struct Steps {
    output: Output,
    job: &'static str,
    last: Instant,
}

impl Steps {
    fn title(&mut self, title: &str) {
        if !self.output.json {
            self.output.say(&format!("\n{title}"));
        }
        self.last = Instant::now();
    }

    fn done(&mut self, step: &str, line: String, detail: Value) {
        let elapsed = self.last.elapsed();
        if self.output.json {
            let document = json!({ "event": "step", "job": self.job, "step": step, "ms": elapsed.as_secs_f64() * 1e3, "detail": detail });
            // A reader that went away does not stop the network.
            let _ = self.output.say_json(&document);
        } else {
            self.output.say(&format!(
                "  {:<13} {:>8.1} ms  {line}",
                step,
                elapsed.as_secs_f64() * 1e3
            ));
        }
        self.last = Instant::now();
    }
}
