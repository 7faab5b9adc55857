//! Products.

use super::{Args, Reason};
use crate::{
    program::Window,
    shape::{broadcast, broadcast_strides},
    tensor::{Tensor, count},
};

/// `[.., M, K] x [.., K, N]` with broadcasting of the leading dimensions; one dimension counts as a row or column.
pub(super) fn matmul(args: &Args<'_>) -> Result<Tensor, Reason> {
    let ((a_shape, a), (b_shape, b)) = (args.floats(0)?, args.floats(1)?);
    let refuse = || format!("shapes {a_shape:?} and {b_shape:?} do not multiply");
    let row;
    let left = match a_shape {
        [k] => {
            row = [1, *k];
            &row[..]
        }
        shape => shape,
    };
    let column;
    let right = match b_shape {
        [k] => {
            column = [*k, 1];
            &column[..]
        }
        shape => shape,
    };
    let ([batch_a @ .., m, k], [batch_b @ .., rows, n]) = (left, right) else {
        return Err(refuse());
    };
    let batch = broadcast(batch_a, batch_b).filter(|_| k == rows).ok_or_else(refuse)?;
    let first = offsets(batch_a, &batch).ok_or_else(refuse)?;
    let second = offsets(batch_b, &batch).ok_or_else(refuse)?;
    let mut shape = batch.clone();
    shape.extend([*m, *n]);
    let mut out = Vec::with_capacity(count(&shape).ok_or("the result has too many elements")?);
    for (i, j) in first.into_iter().zip(second) {
        let a = a.get(i * m * k..(i + 1) * m * k).ok_or_else(refuse)?;
        let b = b.get(j * k * n..(j + 1) * k * n).ok_or_else(refuse)?;
        product(a, b, *k, *n, &mut out);
    }
    if a_shape.len() == 1 {
        shape.remove(shape.len().saturating_sub(2));
    }
    if b_shape.len() == 1 {
        shape.pop();
    }
    Ok(Tensor::floats(shape, out))
}

/// For every position of the broadcast batch, the number of the matrix it reads.
fn offsets(own: &[usize], batch: &[usize]) -> Option<Vec<usize>> {
    let steps = crate::shape::signed(&broadcast_strides(own, batch)?);
    crate::shape::Walk::new(batch, &steps, 0)
        .map(|at| usize::try_from(at).ok())
        .collect()
}

fn product(a: &[f32], b: &[f32], k: usize, n: usize, out: &mut Vec<f32>) {
    for row in a.chunks(k.max(1)) {
        let mut sums = vec![0f64; n];
        for (x, weights) in row.iter().zip(b.chunks(n.max(1))) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += f64::from(*x) * f64::from(*weight);
            }
        }
        out.extend(sums.into_iter().map(|sum| sum as f32));
    }
}

/// `alpha * A' * B' + beta * C`.
pub(super) fn gemm(args: &Args<'_>) -> Result<Tensor, Reason> {
    let ((a_shape, a), (b_shape, b)) = (args.floats(0)?, args.floats(1)?);
    let (a_shape, a) = transposed(a_shape, a, args.node.int("transA").unwrap_or(0) != 0)?;
    let (b_shape, b) = transposed(b_shape, b, args.node.int("transB").unwrap_or(0) != 0)?;
    let ([m, k], [rows, n]) = (a_shape, b_shape);
    if k != rows {
        return Err(format!("shapes [{m}, {k}] and [{rows}, {n}] do not multiply"));
    }
    let mut out = Vec::with_capacity(count(&[m, n]).ok_or("the result has too many elements")?);
    product(&a, &b, k, n, &mut out);
    let (alpha, beta) = (
        args.node.float("alpha").unwrap_or(1.0),
        args.node.float("beta").unwrap_or(1.0),
    );
    for value in &mut out {
        *value *= alpha;
    }
    if args.get(2).is_some() {
        let (shape, bias) = args.floats(2)?;
        let steps = broadcast_strides(shape, &[m, n]).ok_or("the bias does not broadcast")?;
        let steps = crate::shape::signed(&steps);
        for (value, at) in out.iter_mut().zip(crate::shape::Walk::new(&[m, n], &steps, 0)) {
            *value += beta
                * usize::try_from(at)
                    .ok()
                    .and_then(|at| bias.get(at))
                    .copied()
                    .unwrap_or(0.0);
        }
    }
    Ok(Tensor::floats(vec![m, n], out))
}

/// A matrix, transposed if asked.
pub(crate) fn transposed(shape: &[usize], values: &[f32], transpose: bool) -> Result<([usize; 2], Vec<f32>), Reason> {
    let [rows, columns] = *shape else {
        return Err(format!("shape {shape:?} is not that of a matrix"));
    };
    if !transpose {
        return Ok(([rows, columns], values.to_vec()));
    }
    let out = (0..columns)
        .flat_map(|c| values.iter().skip(c).step_by(columns.max(1)).copied())
        .collect();
    Ok(([columns, rows], out))
}

/// Steps of a window from `strides`, `pads`, `dilations` and `auto_pad`, with ONNX's defaults. One spatial dimension
/// counts as the second of two.
pub(crate) fn window(
    node: &crate::onnx::OnnxNode,
    size: [usize; 2],
    kernel: [usize; 2],
    flat: bool,
) -> Result<Window, Reason> {
    let number = |value: &i64| u32::try_from(*value).map_err(|_| format!("an attribute has the value {value}"));
    let pair = |name: &str| -> Result<[u32; 2], Reason> {
        match node.ints(name) {
            None => Ok([1, 1]),
            Some([x]) if flat => Ok([1, number(x)?]),
            Some([y, x]) if !flat => Ok([number(y)?, number(x)?]),
            Some(other) => Err(format!("{name} {other:?} has not one entry per spatial dimension")),
        }
    };
    let (strides, dilations) = (pair("strides")?, pair("dilations")?);
    let mut pads = match node.ints("pads") {
        None => [0; 4],
        Some([left, right]) if flat => [0, number(left)?, 0, number(right)?],
        Some([a, b, c, d]) if !flat => [number(a)?, number(b)?, number(c)?, number(d)?],
        Some(other) => return Err(format!("pads {other:?} has not two entries per spatial dimension")),
    };
    let automatic = node.text("auto_pad").unwrap_or("NOTSET");
    match automatic {
        "NOTSET" | "VALID" => {}
        "SAME_UPPER" | "SAME_LOWER" => {
            for at in 0..2 {
                let get = |values: [u32; 2]| values.get(at).copied().unwrap_or(1) as usize;
                let (stride, dilation) = (get(strides).max(1), get(dilations));
                let (size, kernel) = (size.get(at).copied().unwrap_or(1), kernel.get(at).copied().unwrap_or(1));
                let out = size.div_ceil(stride);
                let reach = (kernel.saturating_sub(1)).saturating_mul(dilation) + 1;
                let total = ((out.saturating_sub(1)) * stride)
                    .saturating_add(reach)
                    .saturating_sub(size);
                let small = total / 2;
                let (before, after) = if automatic == "SAME_UPPER" {
                    (small, total - small)
                } else {
                    (total - small, small)
                };
                for (slot, value) in [(at, before), (at + 2, after)] {
                    if let Some(pad) = pads.get_mut(slot) {
                        *pad = u32::try_from(value).unwrap_or(u32::MAX);
                    }
                }
            }
        }
        other => return Err(format!("auto_pad {other:?} is not known")),
    }
    if strides.contains(&0) || dilations.contains(&0) {
        return Err("strides and dilations must be at least 1".to_owned());
    }
    Ok(Window {
        strides,
        pads,
        dilations,
    })
}

/// Four dimensions of an image or kernel; three have one row.
pub(crate) fn image(shape: &[usize]) -> Result<([usize; 4], bool), Reason> {
    match *shape {
        [n, c, h, w] => Ok(([n, c, h, w], false)),
        [n, c, w] => Ok(([n, c, 1, w], true)),
        _ => Err(format!("shape {shape:?}: one or two spatial dimensions are supported")),
    }
}

pub(super) fn conv(args: &Args<'_>) -> Result<Tensor, Reason> {
    let ((x_shape, x), (w_shape, w)) = (args.floats(0)?, args.floats(1)?);
    let ([batch, channels, height, width], flat) = image(x_shape)?;
    let ([out_channels, per_group, rows, columns], _) = image(w_shape)?;
    let groups = usize::try_from(args.node.int("group").unwrap_or(1)).unwrap_or(0);
    if groups == 0 || per_group.checked_mul(groups) != Some(channels) || out_channels % groups != 0 {
        return Err(format!(
            "{groups} groups do not fit {channels} channels and kernel {w_shape:?}"
        ));
    }
    let window = window(args.node, [height, width], [rows, columns], flat)?;
    let [out_height, out_width] = window
        .output([height, width], [rows, columns])
        .ok_or("the kernel is larger than the image")?;
    let bias = if args.get(2).is_some() { args.floats(2)?.1 } else { &[] };
    let shape = if flat {
        vec![batch, out_channels, out_width]
    } else {
        vec![batch, out_channels, out_height, out_width]
    };
    let mut out = Vec::with_capacity(count(&shape).ok_or("the result has too many elements")?);
    let [top, left, _, _] = window.pads.map(|pad| pad as usize);
    let [down, across] = window.strides.map(|step| step as usize);
    let [dilate_down, dilate_across] = window.dilations.map(|step| step as usize);
    for n in 0..batch {
        for o in 0..out_channels {
            let first = o / (out_channels / groups) * per_group;
            for i in 0..out_height {
                for j in 0..out_width {
                    let mut sum = f64::from(bias.get(o).copied().unwrap_or(0.0));
                    for c in 0..per_group {
                        for u in 0..rows {
                            let Some(y) = (i * down + u * dilate_down).checked_sub(top).filter(|y| *y < height) else {
                                continue;
                            };
                            for v in 0..columns {
                                let z = (j * across + v * dilate_across)
                                    .checked_sub(left)
                                    .filter(|z| *z < width);
                                let Some(z) = z else { continue };
                                let value = x.get(((n * channels + first + c) * height + y) * width + z);
                                let weight = w.get(((o * per_group + c) * rows + u) * columns + v);
                                sum += f64::from(value.copied().unwrap_or(0.0))
                                    * f64::from(weight.copied().unwrap_or(0.0));
                            }
                        }
                    }
                    out.push(sum as f32);
                }
            }
        }
    }
    Ok(Tensor::floats(shape, out))
}
