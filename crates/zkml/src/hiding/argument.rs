//! The closing argument: what the hidden messages say is true.
//!
//! All claims on committed tensors become one claim at one point (a sumcheck whose messages are hidden like all others).
//! The rows of the stacked polynomial, combined for that point and added to a random row, are sent; so are the wires,
//! added to random wires. Queried columns tie both to the commitments. See `docs/specs/zk-proof.md`, section 5.

use std::collections::BTreeSet;

use p3_challenger::{CanSampleBits, GrindingChallenger};
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing};
use p3_maybe_rayon::prelude::*;

use crate::{
    channel::{Channel, coefficients},
    checks::Checks,
    commit::{Challenger, Digest},
    error::{Check, VerifyError},
    field::{EF, F, dot, eq_table},
    hiding::{
        channel::{End, HidingChannel, Wires},
        code::Code,
        forge::{Forge, Trick},
        form::Form,
        random::{Key, Use},
        stack::Stack,
        tree::{self, Tree},
    },
    layout::Claim,
    proof::{Reader, Writer},
    sumcheck::Table,
};

/// Base field coefficients of an extension element.
const DEGREE: usize = 5;

/// Rows of the extension that hold the wires.
pub(crate) const fn wire_rows(code: &Code, wires: Wires) -> usize {
    let rows = wires.total().div_ceil(code.message());
    if rows == 0 { 1 } else { rows }
}

/// Rows of the commitment that is made for one proof: witness, wires, their masks, and the mask of the opening.
pub(crate) const fn fresh_rows(code: &Code, wires: Wires, witness: usize) -> usize {
    witness + DEGREE * (2 * wire_rows(code, wires) + 1)
}

/// The prover's random elements of one proof.
pub(crate) struct Masks {
    /// The wires, in order.
    pub(crate) wires: Vec<EF>,
    /// Rows with the wires, rows that mask them, one row that masks the opening.
    wire_rows: Vec<Vec<EF>>,
    wire_masks: Vec<Vec<EF>>,
    opening: Vec<EF>,
}

impl Masks {
    pub(crate) fn draw(code: &Code, wires: Wires, key: &Key, forge: Forge) -> Self {
        let mut stream = key.stream(Use::Wires);
        let mut values: Vec<EF> = (0..wires.messages).map(|_| stream.ext()).collect();
        for _ in 0..wires.products {
            for _ in 0..2 {
                let (x, y) = (stream.ext(), stream.ext());
                values.extend([x, y, x * y]);
            }
        }
        debug_assert_eq!(values.len(), wires.total());
        if let (Some(z), true) = (values.get_mut(wires.messages + 2), forge.does(Trick::Triple)) {
            *z += EF::ONE;
        }
        let count = wire_rows(code, wires);
        let wire_rows = (0..count)
            .map(|row| {
                let mut own: Vec<EF> = values
                    .iter()
                    .skip(row * code.message())
                    .take(code.message())
                    .copied()
                    .collect();
                own.resize(code.message(), EF::ZERO);
                own.extend((0..code.tail).map(|_| stream.ext()));
                own
            })
            .collect();
        let mut mask = || (0..code.dimension()).map(|_| stream.ext()).collect::<Vec<EF>>();
        Self {
            wire_masks: (0..count).map(|_| mask()).collect(),
            opening: mask(),
            wires: values,
            wire_rows,
        }
    }

    /// All rows, coefficient by coefficient.
    pub(crate) fn rows(&self) -> Vec<Vec<F>> {
        let all = self.wire_rows.iter().chain(&self.wire_masks).chain([&self.opening]);
        all.flat_map(|row| split(row)).collect()
    }
}

/// A row of the extension as rows of the base field.
pub(crate) fn split(row: &[EF]) -> Vec<Vec<F>> {
    (0..DEGREE)
        .map(|index| {
            let coefficient = |value: &EF| coefficients(value).get(index).copied().unwrap_or(F::ZERO);
            row.iter().map(coefficient).collect()
        })
        .collect()
}

/// What the prover opens.
pub(crate) struct Secrets<'a> {
    /// The stacked polynomial.
    pub(crate) values: Vec<F>,
    /// Rows of every part, with tails.
    pub(crate) rows: [&'a [Vec<F>]; 3],
    pub(crate) masks: &'a Masks,
}

/// What both ends know before the queries.
pub(crate) struct Closed {
    /// Weights of the rows of every part.
    pub(crate) weights: Vec<Vec<EF>>,
    /// What multiplies the combined rows, and the rows with wires.
    pub(crate) challenges: [EF; 2],
    /// The combined rows on their mask.
    pub(crate) opening: Vec<EF>,
    /// The wires on their masks.
    pub(crate) wires: Vec<Vec<EF>>,
    /// What must be zero of the wires.
    pub(crate) residue: EF,
}

/// Everything up to the queries.
pub(crate) fn close<E: End>(
    channel: &mut HidingChannel<E>,
    code: &Code,
    stack: &Stack,
    claims: &[Claim<Form>],
    secrets: Option<&Secrets<'_>>,
) -> Result<Closed, VerifyError> {
    let gamma = channel.challenge();
    let claim = claims
        .iter()
        .rev()
        .fold(Form::from(EF::ZERO), |sum, claim| sum * gamma + claim.value.clone());
    let layout = &stack.layout;
    let reduced = channel.sumcheck(claim, layout.variables, 2, |_| {
        let values = secrets.map(|secrets| secrets.values.clone()).unwrap_or_default();
        vec![Table::Extension(layout.weights(claims, gamma)), Table::Base(values)]
    })?;
    let value = channel.send(reduced.finals.get(1).copied().unwrap_or(EF::ZERO))?;
    let weight = layout.evaluate(claims, gamma, &reduced.point);
    channel.require(Check::WitnessBatch, value.clone() * weight - reduced.expected);

    // The value is that of the combined rows: with a mask row of its own, whose value is hidden too.
    let (high, low) = reduced.point.split_at(stack.row_variables());
    let weights = stack.row_weights(high);
    let low = eq_table(low, code.message());
    let mask = channel.send(secrets.map_or(EF::ZERO, |secrets| dot(&secrets.masks.opening, &low)))?;
    let opening_challenge = channel.challenge();
    let own = secrets.map(|secrets| combine(secrets, &weights, opening_challenge));
    let opening = exchange_row(channel, code, own.as_deref())?;
    let form = mask + value * opening_challenge - Form::from(dot(&opening, &low));
    channel.require(Check::Evaluation, form);

    triples(channel)?;
    if channel.used != channel.wires {
        return Err(VerifyError::Truncated("the wires"));
    }
    let (wire_challenge, wires, residue) = wires(channel, code, secrets)?;
    Ok(Closed {
        weights,
        challenges: [opening_challenge, wire_challenge],
        opening,
        wires,
        residue,
    })
}

/// The mask row plus a multiple of the combination of all rows.
fn combine(secrets: &Secrets<'_>, weights: &[Vec<EF>], challenge: EF) -> Vec<EF> {
    let mut out = secrets.masks.opening.clone();
    let rows: Vec<(&[F], EF)> = secrets
        .rows
        .iter()
        .zip(weights)
        .flat_map(|(rows, weights)| {
            rows.iter()
                .map(Vec::as_slice)
                .zip(weights.iter().map(|w| *w * challenge))
        })
        .collect();
    out.par_iter_mut().enumerate().for_each(|(at, slot)| {
        for (row, weight) in &rows {
            if let Some(value) = row.get(at) {
                *slot += *weight * *value;
            }
        }
    });
    out
}

fn exchange_row<E: End>(
    channel: &mut HidingChannel<E>,
    code: &Code,
    row: Option<&[EF]>,
) -> Result<Vec<EF>, VerifyError> {
    (0..code.dimension())
        .map(|at| {
            let own = row.and_then(|row| row.get(at)).copied().unwrap_or(EF::ZERO);
            channel.end.exchange(own)
        })
        .collect()
}

/// Sacrifices the second triple of every product: `s (z - xy) - (z' - x'y') = 0` for a challenge `s`.
fn triples<E: End>(channel: &mut HidingChannel<E>) -> Result<(), VerifyError> {
    let s = channel.challenge();
    for product in 0..channel.wires.products {
        let base = channel.triple(product);
        let wire = |offset: usize| Form::wire(base + offset);
        let first = wire(0) * s - wire(3);
        let second = wire(1) - wire(4);
        let u = channel.end.exchange(channel.evaluate(&first))?;
        let v = channel.end.exchange(channel.evaluate(&second))?;
        channel.require(Check::Differences, first - Form::from(u));
        channel.require(Check::Differences, second - Form::from(v));
        let zero = wire(2) * s - wire(5) - wire(3) * v - wire(4) * u - Form::from(u * v);
        channel.require(Check::Triples, zero);
    }
    Ok(())
}

/// All forms that must be zero, as one, on the wires plus a multiple of random ones.
fn wires<E: End>(
    channel: &mut HidingChannel<E>,
    code: &Code,
    secrets: Option<&Secrets<'_>>,
) -> Result<(EF, Vec<Vec<EF>>, EF), VerifyError> {
    let gamma = channel.challenge();
    let mut factors = vec![EF::ZERO; channel.wires.total()];
    let mut constant = EF::ZERO;
    let mut power = EF::ONE;
    for form in std::mem::take(&mut channel.zeros) {
        constant += power * form.constant;
        for (wire, factor) in form.terms {
            if let Some(slot) = factors.get_mut(wire) {
                *slot += power * factor;
            }
        }
        power *= gamma;
    }
    let apply = |rows: &[Vec<EF>]| -> EF {
        let parts = factors.chunks(code.message()).zip(rows);
        parts.map(|(factors, row)| dot(factors, row)).sum()
    };
    let mask = channel
        .end
        .exchange(secrets.map_or(EF::ZERO, |secrets| apply(&secrets.masks.wire_masks)))?;
    let challenge = channel.challenge();
    let mut rows = Vec::new();
    for index in 0..wire_rows(code, channel.wires) {
        let own = secrets.and_then(|secrets| {
            let (wires, mask) = (
                secrets.masks.wire_rows.get(index)?,
                secrets.masks.wire_masks.get(index)?,
            );
            Some(
                wires
                    .iter()
                    .zip(mask)
                    .map(|(wire, mask)| *mask + challenge * *wire)
                    .collect::<Vec<EF>>(),
            )
        });
        rows.push(exchange_row(channel, code, own.as_deref())?);
    }
    // factors * wires + constant = 0.
    let residue = apply(&rows) - mask + challenge * constant;
    Ok((challenge, rows, residue))
}

/// The positions that are read.
fn positions(challenger: &mut Challenger, code: &Code) -> Vec<usize> {
    let drawn: BTreeSet<usize> = (0..code.tail)
        .map(|_| challenger.sample_bits(code.log_length))
        .collect();
    drawn.into_iter().collect()
}

/// The prover's side of the queries.
pub(crate) fn answer(
    challenger: &mut Challenger,
    writer: &mut Writer,
    code: &Code,
    grinding: usize,
    trees: &[&Tree],
    forge: Forge,
) {
    let nonce = if forge.does(Trick::Nonce) {
        let _ = challenger.check_witness(grinding, F::ZERO);
        F::ZERO
    } else {
        challenger.grind(grinding)
    };
    writer.base(nonce);
    let positions = positions(challenger, code);
    for tree in trees {
        tree.open(&positions, writer);
    }
}

/// What the queried columns must lead to: a root, the check that compares it, and the rows under it.
pub(crate) type Expected = (Check, Digest, usize);

/// The verifier's side of the queries.
pub(crate) fn query(
    challenger: &mut Challenger,
    reader: &mut Reader<'_>,
    code: &Code,
    grinding: usize,
    closed: &Closed,
    trees: &[Expected],
    checks: Checks,
) -> Result<(), VerifyError> {
    let nonce = reader.base("the proof of work")?;
    let ground = challenger.check_witness(grinding, nonce);
    checks.require(Check::Grinding, ground, "the proof of work")?;
    let positions = positions(challenger, code);
    columns(reader, code, closed, trees, &positions, checks)
}

/// Checks what was sent against the columns at given positions.
pub(crate) fn columns(
    reader: &mut Reader<'_>,
    code: &Code,
    closed: &Closed,
    trees: &[Expected],
    positions: &[usize],
    checks: Checks,
) -> Result<(), VerifyError> {
    checks.require(Check::Wires, closed.residue == EF::ZERO, "the hidden values")?;
    let mut columns = Vec::with_capacity(trees.len());
    for (check, expected, width) in trees {
        let (rows, root) = tree::read(reader, *width, code.log_length, positions)?;
        checks.require(*check, root == *expected, "the columns' root")?;
        columns.push(rows);
    }
    let [opening_challenge, wire_challenge] = closed.challenges;
    let sent: Vec<Vec<F>> = std::iter::once(&closed.opening)
        .chain(&closed.wires)
        .flat_map(|row| split(row))
        .collect();
    let width = sent.len();
    let symbols = code.encode(&sent);
    for (index, position) in positions.iter().enumerate() {
        let sent = join(
            symbols
                .get(position * width..(position + 1) * width)
                .unwrap_or_default(),
        );
        let column = |part: usize| -> &[F] {
            let rows = columns.get(part).and_then(|rows| rows.get(index));
            rows.map_or(&[], Vec::as_slice)
        };
        let witness = closed.weights.first().map_or(0, Vec::len);
        let masks = join(column(0).get(witness..).unwrap_or_default());
        let (wires, masks) = masks.split_at(closed.wires.len().min(masks.len()));
        let (wire_masks, mask) = masks.split_at(closed.wires.len().min(masks.len()));
        let mut combined = EF::ZERO;
        for (part, weights) in closed.weights.iter().enumerate() {
            combined += weights
                .iter()
                .zip(column(part))
                .map(|(w, value)| *w * *value)
                .sum::<EF>();
        }
        let [opening, sent @ ..] = sent.as_slice() else {
            return Err(VerifyError::Truncated("the columns of an opening"));
        };
        let mask = mask.first().copied().unwrap_or(EF::ZERO);
        let holds = mask + opening_challenge * combined == *opening;
        checks.require(Check::Columns, holds, "a column of the opening")?;
        let wires = wires
            .iter()
            .zip(wire_masks)
            .map(|(wire, mask)| *mask + wire_challenge * *wire);
        let holds = wires.eq(sent.iter().copied());
        checks.require(Check::WireColumns, holds, "a column of the wires")?;
    }
    Ok(())
}

/// Elements of the extension from their coefficients.
pub(crate) fn join(symbols: &[F]) -> Vec<EF> {
    symbols
        .chunks_exact(DEGREE)
        .filter_map(EF::from_basis_coefficients_slice)
        .collect()
}
