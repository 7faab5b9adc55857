//! `opg chat`.

use std::{path::Path, process::ExitCode};

use opg_client::{ChatEvent, ChatRequest, FunctionCall, Job, Message, text};
use opg_primitives::mode::Mode;
use serde_json::{Value, json};

use super::{
    authorize, check_mode, client,
    infer::{check_receipt_path, id, save_receipt, summary, tell},
    input_text, sealed, wallet,
};
use crate::{args::ChatArgs, failure::Failure, output::Output};

/// Asks a language model.
pub(crate) async fn run(args: ChatArgs, output: Output) -> Result<ExitCode, Failure> {
    let mode = check_mode(args.job.mode, &[Mode::None, Mode::Tee])?;
    let prompt = input_text(&args.prompt, false)?;
    if prompt.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty"));
    }
    let client = client(&args.job.network)?;
    let wallet = wallet(&args.job.key, Some(client.network()))?;
    check_receipt_path(&args.job)?;
    let request = ChatRequest {
        model: args.model,
        messages: vec![Message::user(prompt)],
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        seed: args.seed,
        stream: args.stream,
        tools: args.tools.as_deref().map(tools).transpose()?.unwrap_or_default(),
        tool_choice: args.tool_choice.as_deref().map(choice),
    };
    let job = sealed(Job::chat_in(mode, &request, args.job.max_spend), &args.job)?;
    let spinner = output.spinner("paying and waiting for the answer");
    let paid = authorize(&client, job, &wallet, args.job.pay).await?;
    let chat = if args.stream {
        let mut stream = client.chat_stream(paid).await?;
        spinner.finish_and_clear();
        let mut done = None;
        while let Some(event) = stream.next().await? {
            match event {
                ChatEvent::Text(piece) if output.json => output.say_json(&json!({ "delta": piece }))?,
                ChatEvent::Text(piece) => output.piece(&text::printable(&piece)),
                ChatEvent::Done(chat) => done = Some(*chat),
            }
        }
        if !output.json {
            output.piece("\n");
        }
        done.ok_or_else(|| Failure::Failed(eyre::eyre!("the stream ended without an answer")))?
    } else {
        let chat = client.chat(&paid).await;
        spinner.finish_and_clear();
        chat?
    };
    let (standing, failure) = save_receipt(&client, &chat.paid, &args.job, output).await;
    let mut document =
        json!({ "text": chat.text, "receipt_id": id(&chat.paid), "opg": summary(&chat.paid, &standing) });
    if !chat.refusal.is_empty() {
        document["refusal"] = json!(chat.refusal);
    }
    if !chat.tool_calls.is_empty() {
        document["tool_calls"] = json!(chat.tool_calls);
    }
    if output.json || !args.stream {
        output.result(&document, || text::printable(&chat.text))?;
    }
    if !output.json {
        if !chat.refusal.is_empty() {
            output.piece(&format!("refused: {}\n", text::printable(&chat.refusal)));
        }
        for call in &chat.tool_calls {
            let FunctionCall { name, arguments } = &call.function;
            output.piece(&text::printable(&format!("call {name} {arguments} ({})\n", call.id)));
        }
    }
    tell(&chat.paid, &standing);
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The tools of a file: a JSON list in the form of OpenAI's interface.
fn tools(path: &Path) -> Result<Vec<Value>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::usage(format!("--tools {}: {error}", path.display())))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::usage(format!(
            "--tools {}: expected a JSON list of tools: {error}",
            path.display()
        ))
    })
}

/// `none`, `auto`, `required`, or the name of one tool.
fn choice(text: &str) -> Value {
    match text {
        "none" | "auto" | "required" => json!(text),
        name => json!({"type": "function", "function": {"name": name}}),
    }
}
