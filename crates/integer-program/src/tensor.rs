//! Float and integer tensors of the compiler: what ONNX files hold and what the float evaluator computes.

use crate::shape::MAX_RANK;

/// Most elements of one tensor of the compiler: 512 MiB of binary32.
pub(crate) const MAX_ELEMENTS: usize = 1 << 27;

/// Elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    /// Real numbers.
    Float(Vec<f32>),
    /// Integers and truth values.
    Int(Vec<i64>),
    /// Texts: class labels.
    Text(Vec<String>),
}

/// A row-major tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    /// Dimensions; a dimension of 0 makes an empty tensor.
    pub(crate) shape: Vec<usize>,
    /// As many elements as the shape has.
    pub(crate) data: Data,
}

/// Elements of a shape, zero allowed; `None` beyond the limits.
#[must_use]
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    if shape.len() > MAX_RANK {
        return None;
    }
    shape.iter().try_fold(1usize, |count, dim| {
        count.checked_mul(*dim).filter(|count| *count <= MAX_ELEMENTS)
    })
}

impl Tensor {
    /// A tensor of real numbers.
    #[must_use]
    pub(crate) const fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self {
            shape,
            data: Data::Float(values),
        }
    }

    /// A tensor of integers.
    #[must_use]
    pub(crate) const fn ints(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self {
            shape,
            data: Data::Int(values),
        }
    }

    /// A real scalar.
    #[must_use]
    pub(crate) fn scalar(value: f32) -> Self {
        Self::floats(Vec::new(), vec![value])
    }

    /// Number of elements.
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        match &self.data {
            Data::Float(values) => values.len(),
            Data::Int(values) => values.len(),
            Data::Text(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The real numbers, or `None` for another type.
    #[must_use]
    pub(crate) fn as_floats(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Float(values) => Some(values),
            _ => None,
        }
    }

    /// The integers, or `None` for another type.
    #[must_use]
    pub(crate) fn as_ints(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Int(values) => Some(values),
            _ => None,
        }
    }

    /// The only element as a real number, or `None` if there is not exactly one.
    #[must_use]
    pub(crate) fn single(&self) -> Option<f32> {
        match &self.data {
            Data::Float(values) => match values.as_slice() {
                [value] => Some(*value),
                _ => None,
            },
            Data::Int(values) => match values.as_slice() {
                [value] => Some(*value as f32),
                _ => None,
            },
            Data::Text(_) => None,
        }
    }
}
