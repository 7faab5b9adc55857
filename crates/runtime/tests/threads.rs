//! The number of engine threads is fixed for a process, so each number gets a process of its own.

#[path = "../../models/tests/common/mod.rs"]
mod common;

use opg_primitives::hash;
use opg_runtime::{
    THREADS_VARIABLE, engine_threads,
    llm::{GenerateRequest, Llama, LlamaOptions},
};
use std::{ops::ControlFlow, process::Command};

const CHILD: &str = "OPG_TEST_ENGINE_THREADS";

/// Does nothing in an ordinary run. In a child process: generates, and prints a digest of all logits and tokens.
#[test]
fn child() {
    let Ok(expected) = std::env::var(CHILD) else { return };
    assert_eq!(engine_threads().to_string(), expected);
    let model = Llama::load_gguf(
        &common::fixture("tiny-llama/trained-Q8_0.gguf"),
        &LlamaOptions::default(),
    )
    .unwrap();
    let mut bytes = Vec::new();
    for prompt in ["The package ", "This program is free software; you can redistribute it"] {
        let request = GenerateRequest {
            temperature: 0.8,
            seed: 3,
            ..GenerateRequest::prompt(prompt).max_tokens(24)
        };
        let answer = model.generate(&request, &mut |_| ControlFlow::Continue(())).unwrap();
        bytes.extend(answer.ids.iter().flat_map(|id| id.to_le_bytes()));
        let mut sequence = model.encode(prompt).unwrap();
        sequence.extend(&answer.ids);
        bytes.extend(
            model
                .logits(&sequence)
                .unwrap()
                .iter()
                .flat_map(|logit| logit.to_le_bytes()),
        );
    }
    println!("digest {}", hash::sha256(&bytes));
}

fn digest(threads: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, threads)
        .env(THREADS_VARIABLE, threads)
        .env("RAYON_NUM_THREADS", threads)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let at = text.find("digest 0x").unwrap_or_else(|| panic!("{text}"));
    text[at..at + 73].to_owned()
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    assert_eq!(digest("1"), digest("2"));
}
