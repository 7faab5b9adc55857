//! Operations that move elements: index maps of the program.

use super::Lower;
use crate::{
    compile::{
        CompileError,
        emit::{Scaled, narrow, round},
    },
    float,
    onnx::ValueId,
    program::{Op, Sort},
    view::ViewMap,
};

impl Lower<'_> {
    pub(super) fn rearrange(
        &mut self,
        id: ValueId,
        x: ValueId,
        number: usize,
        part: usize,
    ) -> Result<Scaled, CompileError> {
        let node = self.node(number)?;
        let refuse = |reason: String| crate::compile::flat::refuse(node, reason);
        let args = self.args(node);
        let shape = self.shape(id)?;
        let mut x = self.value(x)?;
        let own = self.out.shape(x.operand)?;
        let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let map = match node.op.as_str() {
            "Transpose" => {
                let perm: Vec<usize> = match node.ints("perm") {
                    Some(perm) => perm
                        .iter()
                        .map(|at| float::axis(*at, own.len()))
                        .collect::<Result<_, _>>()
                        .map_err(refuse)?,
                    None => (0..own.len()).rev().collect(),
                };
                ViewMap::Transpose {
                    perm: perm.into_iter().map(|at| u8::try_from(at).unwrap_or(u8::MAX)).collect(),
                }
            }
            "Expand" => ViewMap::Broadcast,
            "Slice" => {
                let cuts = float::cuts(&args, &own).map_err(refuse)?;
                ViewMap::Slice {
                    starts: cuts.iter().map(|(start, _, _)| word(*start)).collect(),
                    steps: cuts.iter().map(|(_, step, _)| narrow(*step)).collect(),
                }
            }
            "Split" => {
                let axis = float::axis(node.int("axis").unwrap_or(0), own.len()).map_err(refuse)?;
                let parts = float::parts(&args, own.get(axis).copied().unwrap_or(0)).map_err(refuse)?;
                let before: usize = parts.iter().take(part).sum();
                let start = |at: usize| if at == axis { word(before) } else { 0 };
                ViewMap::Slice {
                    starts: (0..own.len()).map(start).collect(),
                    steps: vec![1; own.len()],
                }
            }
            "Pad" => {
                let margins = float::margins(&args, own.len()).map_err(refuse)?;
                let value = f64::from(float::filler(&args));
                if self.out.ty(x.operand)?.sort == Some(Sort::Acc) {
                    let target = self.target(id, None);
                    x = self.out.rescale(x, target)?;
                }
                let range = self.out.range(x.operand)?;
                // What lies outside the range of the tensor is as good as its end.
                let value = round((value / x.scale).clamp(range.lo.min(0) as f64, range.hi.max(0) as f64));
                ViewMap::Pad {
                    before: margins.iter().map(|(before, _)| word(*before)).collect(),
                    value: narrow(value),
                }
            }
            "Gather" => {
                let axis = float::axis(node.int("axis").unwrap_or(0), own.len()).map_err(refuse)?;
                let dim = own.get(axis).copied().unwrap_or(0);
                let tensor = args
                    .get(1)
                    .ok_or_else(|| refuse("the indices must be constant, or an int64 input".to_owned()))?;
                let list = tensor.as_ints().unwrap_or_default();
                let list = list
                    .iter()
                    .map(|at| float::axis(*at, dim).map(word))
                    .collect::<Result<Vec<_>, _>>();
                let indices = list.map_err(refuse)?;
                // Indices of several dimensions select along one, which is then reshaped.
                let mut flat = own.clone();
                if let Some(slot) = flat.get_mut(axis) {
                    *slot = indices.len();
                }
                let axis = u8::try_from(axis).unwrap_or(u8::MAX);
                let operand = self.out.view(x.operand, ViewMap::Select { axis, indices }, &flat)?;
                return Ok(Scaled {
                    operand: self.out.view(operand, ViewMap::Reshape, &shape)?,
                    scale: x.scale,
                });
            }
            op => return Err(refuse(float::unsupported(op))),
        };
        Ok(Scaled {
            operand: self.out.view(x.operand, map, &shape)?,
            scale: x.scale,
        })
    }

    pub(super) fn concat(&mut self, id: ValueId, number: usize, axis: usize) -> Result<Scaled, CompileError> {
        let node = self.node(number)?;
        let shape = self.shape(id)?;
        let mut parts = Vec::new();
        for source in node.inputs.iter().flatten() {
            parts.push(match self.flat.model.constants.get(source) {
                Some(tensor) => Err(tensor),
                None => Ok(self.act(*source)?),
            });
        }
        let scale = parts.iter().flatten().fold(0f64, |most, part| most.max(part.scale));
        let greatest = self.greatest(id).saturating_mul(2).saturating_add(1);
        let mut sources = Vec::new();
        for part in parts {
            sources.push(match part {
                Ok(part) if part.scale == scale => part.operand,
                // A finer part is brought to the coarsest scale; the factor between the two is not rounded off.
                Ok(part) => self.align(part, scale)?,
                Err(tensor) => {
                    let name = format!("{}.part", self.out.name);
                    self.quantised(&name, tensor, scale, greatest as f64)?
                }
            });
        }
        let map = ViewMap::Concat {
            axis: u8::try_from(axis).unwrap_or(u8::MAX),
        };
        let operand = self.out.push_shaped(Op::View { sources, map }, &shape)?;
        Ok(Scaled { operand, scale })
    }

    /// An activation brought to a coarser scale: the factor is rounded to 20 bits.
    fn align(&mut self, x: Scaled, scale: f64) -> Result<crate::program::Operand, CompileError> {
        let range = self.out.range(x.operand)?;
        let ratio = x.scale / scale;
        let magnitude = range.magnitude().max(1) as f64;
        let shift = (0..=20u8)
            .rev()
            .find(|k| magnitude * ratio * f64::from(1u32 << k) < (1 << 28) as f64)
            .unwrap_or(0);
        let factor = round(ratio * f64::from(1u32 << shift)).max(1);
        let operand = self.out.push(Op::Sum {
            terms: vec![(x.operand, narrow(factor))],
        })?;
        let shift = crate::program::Shift::Tensor(shift);
        self.out.push(Op::Requant {
            x: operand,
            shift,
            lo: narrow(range.lo.min(0)),
            hi: narrow(range.hi.max(0)),
        })
    }

    pub(super) fn embedding(&mut self, id: ValueId, table: ValueId, indices: ValueId) -> Result<Scaled, CompileError> {
        let tensor = self.flat.model.constants.get(&table);
        let tensor = tensor.ok_or_else(|| self.out.refuse("Gather", "the table is not constant"))?;
        let values = tensor.as_floats().unwrap_or_default();
        let most = values
            .iter()
            .fold(1e-6f64, |most, value| most.max(f64::from(*value).abs()));
        let greatest = self.greatest(id).min(32_767);
        let scale = most / greatest as f64;
        let name = format!("{}.table", self.out.name);
        let table = self.quantised(&name, tensor, scale, greatest as f64)?;
        let position = self.flat.model.inputs.iter().position(|input| input.value == indices);
        let position = position.ok_or_else(|| self.out.refuse("Gather", "the indices are not an input"))?;
        let indices = crate::program::Operand::Input(u32::try_from(position).unwrap_or(u32::MAX));
        Ok(Scaled {
            operand: self.out.push(Op::Gather { table, indices })?,
            scale,
        })
    }
}
