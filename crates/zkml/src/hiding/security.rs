//! How sound a hiding proof is.

use crate::{
    checks::Checks,
    error::PlanError,
    field::EF,
    hiding::{argument::wire_rows, model::HidingKey, stack::Stack},
    plan::Plan,
    security::{HASH_BITS, OrderBits as _, Security, Term, walk},
};

/// The soundness of a hiding proof of `batch` requests: the steps of the protocol, and those of the closing argument.
///
/// Rows decode uniquely, so that a commitment stands for one polynomial and one vector of wires: nothing is multiplied
/// by the size of a list.
///
/// # Errors
/// [`PlanError`]: such a proof cannot be made.
pub fn hiding_security(key: &HidingKey, batch: usize, secret_inputs: bool) -> Result<Security, PlanError> {
    let plan = if secret_inputs {
        Plan::with_secret_inputs(&key.graph, batch)?
    } else {
        Plan::new(&key.graph, batch)?
    };
    let code = &key.code;
    let stack = Stack::new(code, &plan)?;
    let count = walk(&key.graph, &plan, Checks::default())?;
    let wires = count.wires(stack.layout.variables);
    let field = EF::order_bits();
    let error = |name, ways: f64| Term {
        name,
        bits: field - ways.max(1.0).log2(),
    };
    let mut terms = count.terms(key.graph.nodes.len());
    let claims = count.claims.iter().sum::<usize>() as f64;
    let variables = stack.layout.variables as f64;
    // Zeros: at most one for every message, and four more and a sacrifice for every product.
    let zeros = (wires.messages + 6 * wires.products) as f64;
    let length = code.length() as f64;
    terms.extend([
        // Its sumcheck has degree 2; its challenge combines all claims.
        error("reduction to one point", 2.0 * variables + claims),
        // One challenge each: the mask of the opening, the sacrifice, the mask of the wires; and the combination.
        error("hidden values", 3.0 + zeros),
        // Proximity: a tensor combination of the rows, the line to the mask, and a line for each row of wires.
        error(
            "proximity of rows",
            length * (2.0 * stack.row_variables() as f64 + 1.0 + wire_rows(code, wires) as f64),
        ),
        // The opening and each row of wires are caught by the same queries.
        Term {
            name: "columns",
            bits: code.query_bits() * code.tail as f64 + key.parameters.grinding_bits() as f64
                - (1.0 + wire_rows(code, wires) as f64).log2(),
        },
    ]);
    let total: f64 = terms.iter().map(|term| (-term.bits).exp2()).sum();
    Ok(Security {
        terms,
        total_bits: -total.log2(),
        grinding_bits: key.parameters.grinding_bits(),
        hash_bits: HASH_BITS,
    })
}
