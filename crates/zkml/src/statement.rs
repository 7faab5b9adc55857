//! What a proof says, and the transcript that binds it.

use opg_integer_program::program::Graph;
use opg_primitives::domain::Tag;

use crate::{
    channel::absorb,
    checks::Checks,
    commit::{Challenger, challenger},
    error::{Check, VerifyError},
    model::ModelRoot,
};

/// One request: the integers of all inputs and of all outputs, in the order of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// One vector per input, row-major.
    pub inputs: Vec<Vec<i64>>,
    /// One vector per output, row-major.
    pub outputs: Vec<Vec<i64>>,
}

/// What ties a proof to its occasion: the same computation proven for another receipt is another proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// Receipt, or all zeros outside the network.
    pub receipt: [u8; 32],
    /// Chosen by the verifier, or all zeros.
    pub nonce: [u8; 32],
    /// Who proves, or all zeros.
    pub prover: [u8; 32],
}

/// "The model with this root gives these outputs for these inputs."
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    /// The requests that one proof covers.
    pub requests: Vec<Request>,
    /// The occasion.
    pub context: Context,
}

impl Statement {
    /// Checks counts and ranges against a graph.
    ///
    /// # Errors
    /// [`VerifyError::Shape`] and [`VerifyError::Value`].
    pub fn check(&self, graph: &Graph) -> Result<(), VerifyError> {
        self.check_with(graph, false)
    }

    /// The same; with secret inputs, requests have none.
    pub(crate) fn check_with(&self, graph: &Graph, secret_inputs: bool) -> Result<(), VerifyError> {
        let shape = |what, expected: usize, got: usize| {
            if expected == got {
                Ok(())
            } else {
                Err(VerifyError::Shape { what, expected, got })
            }
        };
        for request in &self.requests {
            let inputs = if secret_inputs { 0 } else { graph.inputs.len() };
            shape("inputs", inputs, request.inputs.len())?;
            shape("outputs", graph.outputs.len(), request.outputs.len())?;
            for (index, (input, values)) in graph.inputs.iter().zip(&request.inputs).enumerate() {
                shape("input elements", input.shape.iter().product(), values.len())?;
                check_values("input", index, values, input.integer_type().1)?;
            }
            for (index, (output, values)) in graph.outputs.iter().zip(&request.outputs).enumerate() {
                let ty = graph.operand(output.source).ok_or(VerifyError::Shape {
                    what: "outputs",
                    expected: 1,
                    got: 0,
                })?;
                shape("output elements", ty.shape.iter().product(), values.len())?;
                check_values("output", index, values, ty.range)?;
            }
        }
        Ok(())
    }

    /// Inputs (or outputs) of all requests, one vector per input.
    pub(crate) fn gather(&self, count: usize, of: impl Fn(&Request) -> &[Vec<i64>]) -> Vec<Vec<i64>> {
        (0..count)
            .map(|index| {
                self.requests
                    .iter()
                    .flat_map(|request| of(request).get(index).cloned().unwrap_or_default())
                    .collect()
            })
            .collect()
    }

    /// The transcript after the statement and before the first commitment.
    pub(crate) fn transcript(
        &self,
        graph: &Graph,
        protocol: &str,
        profile: u8,
        root: &ModelRoot,
        digest: &[u8; 32],
        checks: Checks,
    ) -> Challenger {
        let mut transcript = challenger();
        if !checks.is_made(Check::Transcript) {
            return transcript;
        }
        absorb(&mut transcript, blake3::hash(protocol.as_bytes()).as_bytes());
        absorb(&mut transcript, &[profile]);
        absorb(&mut transcript, &root.0);
        absorb(&mut transcript, digest);
        let mut io = blake3::Hasher::new_derive_key(Tag::Statement.as_str());
        let mut number = |value: u64| {
            io.update(&value.to_le_bytes());
        };
        number(self.requests.len() as u64);
        for request in &self.requests {
            let inputs = graph.inputs.iter().map(|input| input.shape.as_slice());
            let outputs = graph
                .outputs
                .iter()
                .map(|output| graph.operand(output.source).map_or(&[][..], |operand| operand.shape));
            for (shapes, tensors) in [
                (inputs.collect::<Vec<_>>(), &request.inputs),
                (outputs.collect::<Vec<_>>(), &request.outputs),
            ] {
                number(tensors.len() as u64);
                for (shape, values) in shapes.into_iter().zip(tensors) {
                    number(shape.len() as u64);
                    shape.iter().for_each(|size| number(*size as u64));
                    values.iter().for_each(|value| number(value.cast_unsigned()));
                }
            }
        }
        absorb(&mut transcript, io.finalize().as_bytes());
        absorb(&mut transcript, &self.context.receipt);
        absorb(&mut transcript, &self.context.nonce);
        absorb(&mut transcript, &self.context.prover);
        transcript
    }
}

fn check_values(
    what: &'static str,
    index: usize,
    values: &[i64],
    range: opg_integer_program::range::Range,
) -> Result<(), VerifyError> {
    match values.iter().enumerate().find(|(_, value)| !range.contains(**value)) {
        Some((element, value)) => Err(VerifyError::Value {
            what,
            index,
            element,
            value: *value,
            range,
        }),
        None => Ok(()),
    }
}
