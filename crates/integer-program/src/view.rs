//! Index maps: which source element an element of a view is.

use crate::shape::{broadcast_strides, elements, signed, strides};

/// A structured index map. The shape of the result is the shape of the node; sources are row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewMap {
    /// Same elements in the same flat order, other shape.
    Reshape,
    /// Dimension `i` of the result is dimension `perm[i]` of the source.
    Transpose {
        /// A permutation of the dimensions.
        perm: Vec<u8>,
    },
    /// `y[o] = x[start + o * step]` in every dimension.
    Slice {
        /// First position in every dimension.
        starts: Vec<u32>,
        /// Step in every dimension, not 0; negative reads backwards.
        steps: Vec<i32>,
    },
    /// NumPy broadcasting to the shape of the result.
    Broadcast,
    /// Sources one after the other along a dimension.
    Concat {
        /// The dimension.
        axis: u8,
    },
    /// The source with `value` around it.
    Pad {
        /// Elements put before the source in every dimension; what is left of the result's size comes after.
        before: Vec<u32>,
        /// Value of the new elements.
        value: i32,
    },
    /// `y[.., i, ..] = x[.., indices[i], ..]` along a dimension, with indices fixed by the program.
    Select {
        /// The dimension.
        axis: u8,
        /// As many as the result's size in that dimension.
        indices: Vec<u32>,
    },
}

/// Where an element of a view comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Element `index` (flat) of source number `source`.
    Source {
        /// Position in the node's list of sources.
        source: usize,
        /// Flat index in it.
        index: usize,
    },
    /// A constant, from [`ViewMap::Pad`].
    Value(i64),
}

/// An index map with the shapes it was checked for.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    map: &'a ViewMap,
    shape: &'a [usize],
    sources: &'a [&'a [usize]],
}

impl<'a> View<'a> {
    /// Joins a map with the result's shape and the sources' shapes, or says why they do not fit.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn new(map: &'a ViewMap, shape: &'a [usize], sources: &'a [&'a [usize]]) -> Result<Self, &'static str> {
        elements(shape).ok_or("the result has no elements, too many of them or too many dimensions")?;
        let view = Self { map, shape, sources };
        if let ViewMap::Concat { axis } = map {
            view.check_concat(usize::from(*axis))?;
        } else {
            let [source] = sources else {
                return Err("a view other than a concatenation has one source");
            };
            view.check_single(source)?;
        }
        Ok(view)
    }

    fn check_concat(&self, axis: usize) -> Result<(), &'static str> {
        let total = self.shape.get(axis).ok_or("the axis is not one of the result")?;
        let mut sum = 0usize;
        for source in self.sources {
            let same_rank = source.len() == self.shape.len();
            let same = source
                .iter()
                .zip(self.shape)
                .enumerate()
                .all(|(i, (a, b))| i == axis || a == b);
            if !same_rank || !same {
                return Err("a source differs from the result in another dimension than the axis");
            }
            sum = sum.saturating_add(source.get(axis).copied().unwrap_or(0));
        }
        if sum == *total {
            Ok(())
        } else {
            Err("the sources do not add up to the result's size")
        }
    }

    fn check_single(&self, source: &[usize]) -> Result<(), &'static str> {
        let rank = source.len();
        let same_rank = |len: usize| {
            if len == rank && self.shape.len() == rank {
                Ok(())
            } else {
                Err("one entry per dimension is needed")
            }
        };
        match self.map {
            ViewMap::Reshape => {
                if elements(source) != elements(self.shape) {
                    return Err("the result has another number of elements than the source");
                }
            }
            ViewMap::Broadcast => {
                broadcast_strides(source, self.shape).ok_or("the source does not broadcast to the result")?;
            }
            ViewMap::Transpose { perm } => {
                same_rank(perm.len())?;
                let mut seen = vec![false; rank];
                for (axis, dim) in perm.iter().zip(self.shape) {
                    let axis = usize::from(*axis);
                    let flag = seen
                        .get_mut(axis)
                        .ok_or("the permutation names no dimension of the source")?;
                    if std::mem::replace(flag, true) {
                        return Err("the permutation names a dimension twice");
                    }
                    if source.get(axis) != Some(dim) {
                        return Err("the result's shape is not the permuted one");
                    }
                }
            }
            ViewMap::Slice { starts, steps } => {
                same_rank(starts.len())?;
                same_rank(steps.len())?;
                for (((start, step), size), dim) in starts.iter().zip(steps).zip(self.shape).zip(source) {
                    let last = i64::try_from(size.saturating_sub(1))
                        .ok()
                        .and_then(|last| last.checked_mul(i64::from(*step)))
                        .and_then(|last| last.checked_add(i64::from(*start)))
                        .and_then(|last| usize::try_from(last).ok());
                    if *step == 0 || *start as usize >= *dim || last.is_none_or(|last| last >= *dim) {
                        return Err("the slice reaches outside the source");
                    }
                }
            }
            ViewMap::Pad { before, .. } => {
                same_rank(before.len())?;
                for ((before, dim), size) in before.iter().zip(source).zip(self.shape) {
                    if (*before as usize).checked_add(*dim).is_none_or(|end| end > *size) {
                        return Err("the padded source is larger than the result");
                    }
                }
            }
            ViewMap::Select { axis, indices } => {
                let axis = usize::from(*axis);
                let dim = source.get(axis).ok_or("the axis is not one of the source")?;
                let same = rank == self.shape.len()
                    && source
                        .iter()
                        .zip(self.shape)
                        .enumerate()
                        .all(|(i, (a, b))| i == axis || a == b);
                if !same || self.shape.get(axis) != Some(&indices.len()) {
                    return Err("the result's shape is not the selected one");
                }
                if indices.iter().any(|index| *index as usize >= *dim) {
                    return Err("an index lies outside the source");
                }
            }
            ViewMap::Concat { .. } => return Err("a concatenation is not a view of one source"),
        }
        Ok(())
    }

    /// The map as `offset + sum_i stride_i * o_i` over the result's positions, where it has that form: all but
    /// `Concat`, `Pad` and `Select`.
    #[must_use]
    pub fn affine(&self) -> Option<(i64, Vec<i64>)> {
        let source = *self.sources.first()?;
        match self.map {
            ViewMap::Reshape => Some((0, signed(&strides(self.shape)))),
            ViewMap::Broadcast => Some((0, signed(&broadcast_strides(source, self.shape)?))),
            ViewMap::Transpose { perm } => {
                let own = signed(&strides(source));
                let out: Option<Vec<i64>> = perm.iter().map(|axis| own.get(usize::from(*axis)).copied()).collect();
                Some((0, out?))
            }
            ViewMap::Slice { starts, steps } => {
                let own = signed(&strides(source));
                let offset = own
                    .iter()
                    .zip(starts)
                    .map(|(stride, start)| stride * i64::from(*start))
                    .sum();
                Some((
                    offset,
                    own.iter()
                        .zip(steps)
                        .map(|(stride, step)| stride * i64::from(*step))
                        .collect(),
                ))
            }
            ViewMap::Concat { .. } | ViewMap::Pad { .. } | ViewMap::Select { .. } => None,
        }
    }

    /// Where the element with flat index `output` comes from; `None` if the result has no such element.
    #[must_use]
    pub fn element(&self, output: usize) -> Option<Element> {
        if output >= elements(self.shape)? {
            return None;
        }
        let mut position = Vec::with_capacity(self.shape.len());
        for (stride, dim) in strides(self.shape).into_iter().zip(self.shape) {
            position.push((output / stride) % dim);
        }
        let flat = |shape: &[usize], position: &[usize]| -> usize {
            strides(shape)
                .iter()
                .zip(position)
                .map(|(stride, at)| stride * at)
                .sum()
        };
        match self.map {
            ViewMap::Reshape => Some(Element::Source {
                source: 0,
                index: output,
            }),
            ViewMap::Transpose { .. } | ViewMap::Slice { .. } | ViewMap::Broadcast => {
                let (offset, steps) = self.affine()?;
                let index = steps.iter().zip(&position).try_fold(offset, |sum, (step, at)| {
                    sum.checked_add(step.checked_mul(i64::try_from(*at).ok()?)?)
                })?;
                Some(Element::Source {
                    source: 0,
                    index: usize::try_from(index).ok()?,
                })
            }
            ViewMap::Concat { axis } => {
                let axis = usize::from(*axis);
                let at = position.get_mut(axis)?;
                for (number, shape) in self.sources.iter().enumerate() {
                    let size = *shape.get(axis)?;
                    if *at < size {
                        return Some(Element::Source {
                            source: number,
                            index: flat(shape, &position),
                        });
                    }
                    *at -= size;
                }
                None
            }
            ViewMap::Pad { before, value } => {
                let source = *self.sources.first()?;
                for ((at, before), dim) in position.iter_mut().zip(before).zip(source) {
                    match at.checked_sub(*before as usize) {
                        Some(inside) if inside < *dim => *at = inside,
                        _ => return Some(Element::Value(i64::from(*value))),
                    }
                }
                Some(Element::Source {
                    source: 0,
                    index: flat(source, &position),
                })
            }
            ViewMap::Select { axis, indices } => {
                let source = *self.sources.first()?;
                let at = position.get_mut(usize::from(*axis))?;
                *at = *indices.get(*at)? as usize;
                Some(Element::Source {
                    source: 0,
                    index: flat(source, &position),
                })
            }
        }
    }
}
