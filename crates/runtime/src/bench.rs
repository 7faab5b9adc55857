//! Bare engine speed, without HTTP, payment or receipts: what the benchmarks subtract.

use crate::{
    RuntimeError,
    llm::{GenerateRequest, Llama},
    onnx::OnnxModel,
};
use serde_json::Value;
use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// Latencies of one operation, sorted.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Sorts samples.
    #[must_use]
    pub fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// The sample at a quantile from 0 to 1 (nearest rank); zero if there is none.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a rank of few samples"
    )]
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = (self.0.len() as f64 * quantile.clamp(0.0, 1.0)).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Median.
    #[must_use]
    pub fn p50(&self) -> Duration {
        self.quantile(0.5)
    }

    /// 99th percentile.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Runs one input again and again, after a tenth of the runs as warm-up. Validation is timed with the run.
///
/// # Errors
/// The first error of a run.
pub fn onnx_latency(model: &OnnxModel, input: &Value, runs: usize) -> Result<Latencies, RuntimeError> {
    for _ in 0..runs / 10 {
        model.run(model.validate(input)?)?;
    }
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        model.run(model.validate(input)?)?;
        samples.push(start.elapsed());
    }
    Ok(Latencies::new(samples))
}

/// Speed of one generation.
#[derive(Debug, Clone, Copy)]
pub struct TokenSpeed {
    /// Prompt tokens per second.
    pub prompt: f64,
    /// Generated tokens per second, from the first to the last.
    pub decode: f64,
    /// Time to the first token.
    pub first: Duration,
    /// Tokens generated.
    pub tokens: usize,
}

/// Runs one request and measures it.
///
/// # Errors
/// The error of the run.
#[allow(clippy::cast_precision_loss, reason = "token counts are small")]
pub fn token_speed(model: &Llama, request: &GenerateRequest) -> Result<TokenSpeed, RuntimeError> {
    let prepared = model.prepare(request)?;
    let prompt = prepared.prompt_tokens();
    let start = Instant::now();
    let mut first = Duration::ZERO;
    let mut tokens = 0usize;
    model.run(prepared, &mut |event| {
        if let crate::llm::TokenEvent::Token { .. } = event {
            if tokens == 0 {
                first = start.elapsed();
            }
            tokens += 1;
        }
        ControlFlow::Continue(())
    })?;
    let rest = start.elapsed().saturating_sub(first).as_secs_f64();
    let rate = |count: usize, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    Ok(TokenSpeed {
        prompt: rate(prompt, first.as_secs_f64()),
        decode: rate(tokens.saturating_sub(1), rest),
        first,
        tokens,
    })
}
