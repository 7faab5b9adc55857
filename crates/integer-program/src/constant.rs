//! Values of constants: weights and biases.

use crate::range::Range;

/// Bytes of one element of a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Width {
    /// 8 bits, two's complement.
    I8,
    /// 16 bits, two's complement.
    I16,
    /// 32 bits, two's complement; biases.
    I32,
}

impl Width {
    /// Bytes of one element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 => 4,
        }
    }

    /// The narrowest width that holds a range, or `None` beyond 32 bits.
    #[must_use]
    pub fn for_range(range: Range) -> Option<Self> {
        let fits = |bits: u32| Range::new(-(1 << (bits - 1)), (1 << (bits - 1)) - 1).covers(range);
        [(8, Self::I8), (16, Self::I16), (32, Self::I32)]
            .into_iter()
            .find(|(bits, _)| fits(*bits))
            .map(|(_, width)| width)
    }
}

/// The elements of one constant, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConstantData {
    /// 8 bits each.
    I8(Vec<i8>),
    /// 16 bits each.
    I16(Vec<i16>),
    /// 32 bits each.
    I32(Vec<i32>),
}

impl ConstantData {
    /// Stores values in the narrowest width that holds them all; `None` for no values, or one beyond 32 bits.
    #[must_use]
    pub fn pack(values: &[i64]) -> Option<Self> {
        let lo = values.iter().copied().min()?;
        let hi = values.iter().copied().max()?;
        Self::pack_as(values, Width::for_range(Range::new(lo, hi))?)
    }

    /// Stores values in a given width; `None` if one does not fit.
    #[must_use]
    pub fn pack_as(values: &[i64], width: Width) -> Option<Self> {
        Some(match width {
            Width::I8 => Self::I8(values.iter().map(|v| i8::try_from(*v).ok()).collect::<Option<_>>()?),
            Width::I16 => Self::I16(values.iter().map(|v| i16::try_from(*v).ok()).collect::<Option<_>>()?),
            Width::I32 => Self::I32(values.iter().map(|v| i32::try_from(*v).ok()).collect::<Option<_>>()?),
        })
    }

    /// Reads little-endian elements; `None` if the bytes are not whole elements.
    #[must_use]
    pub fn from_le_bytes(bytes: &[u8], width: Width) -> Option<Self> {
        if !bytes.len().is_multiple_of(width.bytes()) {
            return None;
        }
        Some(match width {
            Width::I8 => Self::I8(bytes.iter().map(|byte| byte.cast_signed()).collect()),
            Width::I16 => Self::I16(
                bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|b| i16::from_le_bytes(*b))
                    .collect(),
            ),
            Width::I32 => Self::I32(
                bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| i32::from_le_bytes(*b))
                    .collect(),
            ),
        })
    }

    /// The elements as little-endian bytes.
    #[must_use]
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::I8(values) => values.iter().map(|value| value.cast_unsigned()).collect(),
            Self::I16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// Bytes of one element.
    #[must_use]
    pub const fn width(&self) -> Width {
        match self {
            Self::I8(_) => Width::I8,
            Self::I16(_) => Width::I16,
            Self::I32(_) => Width::I32,
        }
    }

    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::I8(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::I32(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One element.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<i64> {
        match self {
            Self::I8(values) => values.get(index).map(|value| i64::from(*value)),
            Self::I16(values) => values.get(index).map(|value| i64::from(*value)),
            Self::I32(values) => values.get(index).map(|value| i64::from(*value)),
        }
    }

    /// All elements, widened.
    #[must_use]
    pub fn to_i64(&self) -> Vec<i64> {
        match self {
            Self::I8(values) => values.iter().map(|value| i64::from(*value)).collect(),
            Self::I16(values) => values.iter().map(|value| i64::from(*value)).collect(),
            Self::I32(values) => values.iter().map(|value| i64::from(*value)).collect(),
        }
    }

    /// Least and greatest element; `None` if there are none.
    #[must_use]
    pub fn range(&self) -> Option<Range> {
        fn of<T: Copy + Ord + Into<i64>>(values: &[T]) -> Option<Range> {
            let lo = values.iter().copied().min()?;
            let hi = values.iter().copied().max()?;
            Some(Range::new(lo.into(), hi.into()))
        }
        match self {
            Self::I8(values) => of(values),
            Self::I16(values) => of(values),
            Self::I32(values) => of(values),
        }
    }
}

/// Values of all constants of a graph, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Weights {
    /// One entry per constant.
    pub constants: Vec<ConstantData>,
}

impl Weights {
    /// Number of elements of all constants.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.constants.iter().map(ConstantData::len).sum()
    }
}
