//! Shapes: element counts, row-major strides, broadcasting.

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// Most elements of one tensor.
pub const MAX_ELEMENTS: usize = 1 << 28;

/// Number of elements, or `None` above [`MAX_ELEMENTS`], for a zero dimension, or above [`MAX_RANK`] dimensions.
///
/// ```
/// use opg_integer_program::shape::elements;
/// assert_eq!(elements(&[2, 3]), Some(6));
/// assert_eq!(elements(&[]), Some(1));
/// assert_eq!(elements(&[4, 0]), None);
/// ```
#[must_use]
pub fn elements(shape: &[usize]) -> Option<usize> {
    if shape.len() > MAX_RANK {
        return None;
    }
    shape.iter().try_fold(1usize, |count, dim| match dim {
        0 => None,
        dim => count.checked_mul(*dim).filter(|count| *count <= MAX_ELEMENTS),
    })
}

/// Row-major strides in elements: the last dimension has stride 1.
#[must_use]
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    let mut step = 1usize;
    for (stride, dim) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(*dim);
    }
    strides
}

/// Strides that read a tensor of `shape` as if it had the shape `target` (NumPy broadcasting: aligned at the last
/// dimension, a dimension of 1 repeats with stride 0), or `None` if it cannot be.
#[must_use]
pub fn broadcast_strides(shape: &[usize], target: &[usize]) -> Option<Vec<usize>> {
    let missing = target.len().checked_sub(shape.len())?;
    let own = strides(shape);
    let mut out = vec![0; missing];
    for ((dim, stride), want) in shape.iter().zip(own).zip(target.iter().skip(missing)) {
        out.push(match dim {
            dim if dim == want => {
                if *dim == 1 {
                    0
                } else {
                    stride
                }
            }
            1 => 0,
            _ => return None,
        });
    }
    Some(out)
}

/// The shape that two shapes broadcast to, or `None`.
#[must_use]
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], i: usize| -> usize {
        (i + shape.len())
            .checked_sub(rank)
            .and_then(|i| shape.get(i))
            .copied()
            .unwrap_or(1)
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Walks all positions of `shape` in row-major order and yields, for strides of that shape, the flat index
/// `offset + sum(position * stride)`.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    shape: &'a [usize],
    strides: &'a [i64],
    position: Vec<usize>,
    next: i64,
    left: usize,
}

impl<'a> Walk<'a> {
    /// A walk over `shape`; dimensions without a stride count as stride 0.
    #[must_use]
    pub fn new(shape: &'a [usize], strides: &'a [i64], offset: i64) -> Self {
        Self {
            shape,
            strides,
            position: vec![0; shape.len()],
            next: offset,
            left: elements(shape).unwrap_or(0),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        self.left = self.left.checked_sub(1)?;
        let now = self.next;
        for (axis, position) in self.position.iter_mut().enumerate().rev() {
            let stride = self.strides.get(axis).copied().unwrap_or(0);
            *position += 1;
            self.next = self.next.wrapping_add(stride);
            if *position < self.shape.get(axis).copied().unwrap_or(0) {
                break;
            }
            let back = i64::try_from(*position).unwrap_or(i64::MAX).wrapping_mul(stride);
            self.next = self.next.wrapping_sub(back);
            *position = 0;
        }
        Some(now)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Strides as signed numbers, for [`Walk`].
#[must_use]
pub fn signed(strides: &[usize]) -> Vec<i64> {
    strides
        .iter()
        .map(|stride| i64::try_from(*stride).unwrap_or(i64::MAX))
        .collect()
}
