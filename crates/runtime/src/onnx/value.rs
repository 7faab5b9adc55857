//! Tensors between JSON, the wire of a worker and the engine.

use crate::RuntimeError;

/// Most dimensions of an output: JSON nests a list for each, and readers bound how deep they follow.
pub(crate) const OUTPUT_RANK_LIMIT: usize = 64;
/// Most bytes of all texts of an answer.
pub(crate) const OUTPUT_TEXT_LIMIT: usize = 64 << 20;

/// Elements of one tensor, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

/// Elements with their shape; the product of the shape is their number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

/// One output of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    Tensor(Tensor),
    Sequence(Vec<Output>),
    /// Keys as texts; values are `F32`, `F64` or `I64`, as many as keys.
    Map {
        keys: Vec<String>,
        values: Data,
    },
}

/// What one answer may still hold. Counts what JSON will hold, so a tensor without elements is not free.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    left: usize,
    text_left: usize,
}

impl Budget {
    pub(crate) const fn new(elements: usize) -> Self {
        Self {
            limit: elements,
            left: elements,
            text_left: OUTPUT_TEXT_LIMIT,
        }
    }

    /// For what was bounded before.
    pub(crate) const fn unbounded() -> Self {
        Self {
            limit: usize::MAX,
            left: usize::MAX,
            text_left: usize::MAX,
        }
    }

    /// Takes elements, map entries or items of a sequence.
    pub(crate) fn take(&mut self, count: usize) -> Result<(), RuntimeError> {
        self.left = self
            .left
            .checked_sub(count)
            .ok_or_else(|| RuntimeError::OutputTooLarge {
                limit: self.limit,
                got: self.limit.saturating_sub(self.left).saturating_add(count),
            })?;
        Ok(())
    }

    /// Takes a tensor of a shape: its elements, and the lists that a dimension of zero leaves.
    pub(crate) fn take_shape(&mut self, shape: &[usize]) -> Result<(), RuntimeError> {
        if shape.len() > OUTPUT_RANK_LIMIT {
            return Err(RuntimeError::engine(format_args!(
                "an output of {} dimensions, at most {OUTPUT_RANK_LIMIT} are returned",
                shape.len()
            )));
        }
        self.take(
            shape
                .iter()
                .fold(1usize, |count, &size| count.saturating_mul(size.max(1))),
        )
    }

    /// Takes the bytes of texts.
    pub(crate) fn take_text(&mut self, bytes: usize) -> Result<(), RuntimeError> {
        self.text_left = self.text_left.checked_sub(bytes).ok_or_else(|| {
            RuntimeError::engine(format_args!(
                "the texts of an answer have more than {OUTPUT_TEXT_LIMIT} bytes"
            ))
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_all_outputs() {
        let mut budget = Budget::new(10);
        assert!(budget.take_shape(&[2, 3]).is_ok());
        let error = budget.take_shape(&[6]).unwrap_err();
        assert_eq!(error.to_string(), "the answer has 12 elements, at most 10 are returned");
    }

    #[test]
    fn lists_without_elements_are_counted() {
        assert!(Budget::new(10).take_shape(&[10, 0]).is_ok());
        assert!(Budget::new(10).take_shape(&[11, 0]).is_err());
        assert!(Budget::new(10).take_shape(&[usize::MAX, usize::MAX, 0]).is_err());
        assert!(Budget::new(10).take_shape(&[1; OUTPUT_RANK_LIMIT + 1]).is_err());
        assert!(Budget::new(10).take_text(OUTPUT_TEXT_LIMIT + 1).is_err());
    }
}
