//! What node and worker say to each other.
//!
//! A frame is its kind (1 byte), the length of its body (8 bytes) and the body; all integers are little-endian. Texts
//! have a length of 4 bytes. A tensor is its ONNX element type (1 byte), its rank (1 byte), its dimensions (8 bytes
//! each) and its elements, row-major: numbers in their own width, `bool` as 0 or 1, texts with their lengths. Both sides
//! are the same executable, so the format has no versions.
//!
//! A reader knows the longest body it accepts before it reads one, grows its buffer only as bytes come, and takes nothing
//! from a body that is not in it.

use super::{Protection, Sandbox};
use crate::{
    RuntimeError,
    onnx::{
        engine::Ports,
        value::{Budget, Data, Output, Tensor},
    },
};
use opg_models::onnx::DType;
use std::{
    io::{self, ErrorKind, Read},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

/// Bytes of a frame before its body.
const HEADER: usize = 9;
/// First piece of a buffer; also what is kept between calls.
const PIECE: usize = 1 << 16;
/// Longest text about a failure.
const REASON: usize = 2_000;
/// Longest name of an input or output, and most of them: `opg-models` accepts less.
const NAME: usize = 1 << 16;
const PORTS: usize = 1 << 12;
/// Items of sequences inside sequences; a model's outputs have one level.
const DEPTH: usize = 4;
/// Longest body of an answer to Setup and Load.
pub(super) const SMALL_ANSWER: usize = 1 << 20;
/// Longest model: protobuf ends at 2 GiB.
pub(super) const MODEL: usize = 1 << 31;

pub(super) const SETUP: u8 = 1;
pub(super) const LOAD: u8 = 2;
pub(super) const RUN: u8 = 3;
pub(super) const READY: u8 = 0x81;
pub(super) const LOADED: u8 = 0x82;
pub(super) const DONE: u8 = 0x83;
pub(super) const FAILED: u8 = 0xff;

/// Why a frame was not read.
#[derive(Debug)]
pub(super) enum FrameError {
    /// The other side closed the socket.
    Closed,
    /// It did so without having read all that was sent.
    Unheard,
    /// The system's reason, a timeout among them.
    Io(io::Error),
    /// What came is not a frame, or a longer one than accepted.
    Malformed(Malformed),
}

/// Bytes that are not what belongs there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

fn malformed<T>(reason: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(reason.into()))
}

/// Reads frames; keeps its buffer.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// Where the last frame ends.
    end: usize,
}

impl Frames {
    /// Reads one frame with a body of at most `limit` bytes, and nothing behind it; returns its kind.
    pub(super) fn read(&mut self, source: &mut impl Read, limit: usize) -> Result<u8, FrameError> {
        let buffer = &mut self.buffer;
        self.end = 0;
        if buffer.len() > PIECE {
            buffer.truncate(PIECE);
            buffer.shrink_to_fit();
        }
        let (mut have, mut need) = (0, None);
        loop {
            match need {
                None => {
                    if let Some(header) = buffer.get(..have).and_then(|read| read.first_chunk::<HEADER>()) {
                        need = Some(frame_length(header, limit).map_err(FrameError::Malformed)?);
                        continue;
                    }
                }
                Some(need) if have == need => break,
                Some(need) if have > need => {
                    return Err(FrameError::Malformed(Malformed(format!(
                        "{} bytes too many",
                        have - need
                    ))));
                }
                Some(_) => {}
            }
            if have == buffer.len() {
                let more = have.max(PIECE);
                let end = need.map_or(PIECE, |need| need.min(have.saturating_add(more)));
                buffer.resize(end.max(have + 1), 0);
            }
            match source.read(buffer.get_mut(have..).unwrap_or_default()) {
                Ok(0) => return Err(FrameError::Closed),
                Ok(count) => have += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(FrameError::Unheard),
                Err(error) => return Err(FrameError::Io(error)),
            }
        }
        self.end = have;
        self.buffer.first().copied().ok_or(FrameError::Closed)
    }

    /// The body of the last frame.
    pub(super) fn body(&self) -> &[u8] {
        self.buffer.get(HEADER..self.end).unwrap_or_default()
    }
}

fn frame_length(header: &[u8; HEADER], limit: usize) -> Result<usize, Malformed> {
    let [_, length @ ..] = *header;
    match usize::try_from(u64::from_le_bytes(length)) {
        Ok(length) if length <= limit => Ok(HEADER + length),
        _ => malformed(format!(
            "a body of {} bytes, at most {limit} are accepted",
            u64::from_le_bytes(length)
        )),
    }
}

/// A frame under construction; keeps its buffer.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Starts a frame.
    pub(super) fn start(&mut self, kind: u8) -> &mut Self {
        self.bytes.clear();
        self.bytes.shrink_to(PIECE);
        self.bytes.push(kind);
        self.u64(0)
    }

    /// The finished frame.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The frame, followed by `more` bytes that the caller sends behind it.
    pub(super) fn finish(&mut self, more: usize) -> &[u8] {
        let length = (self.bytes.len().saturating_sub(HEADER) + more) as u64;
        if let Some(space) = self.bytes.get_mut(1..HEADER) {
            space.copy_from_slice(&length.to_le_bytes());
        }
        &self.bytes
    }

    fn u8(&mut self, number: u8) -> &mut Self {
        self.bytes.push(number);
        self
    }

    fn u32(&mut self, number: usize) -> &mut Self {
        // What is longer than 4 GiB is refused before it comes here.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        self.u32(text.len());
        self.bytes.extend_from_slice(text);
        self
    }

    pub(super) fn tensor(&mut self, tensor: &Tensor) -> &mut Self {
        self.u8(code(&tensor.data));
        self.u8(u8::try_from(tensor.shape.len()).unwrap_or(u8::MAX));
        for &size in &tensor.shape {
            self.u64(size as u64);
        }
        self.elements(&tensor.data)
    }

    fn elements(&mut self, data: &Data) -> &mut Self {
        macro_rules! numbers {
            ($data:expr, $ty:ty) => {{
                const WIDTH: usize = size_of::<$ty>();
                let start = self.bytes.len();
                self.bytes.resize(start + $data.len() * WIDTH, 0);
                let space = self.bytes.get_mut(start..).unwrap_or_default();
                for (space, number) in space.as_chunks_mut::<WIDTH>().0.iter_mut().zip($data) {
                    *space = number.to_le_bytes();
                }
            }};
        }
        match data {
            Data::F32(data) => numbers!(data, f32),
            Data::F64(data) => numbers!(data, f64),
            Data::I8(data) => numbers!(data, i8),
            Data::I16(data) => numbers!(data, i16),
            Data::I32(data) => numbers!(data, i32),
            Data::I64(data) => numbers!(data, i64),
            Data::U8(data) => self.bytes.extend_from_slice(data),
            Data::U16(data) => numbers!(data, u16),
            Data::U32(data) => numbers!(data, u32),
            Data::U64(data) => numbers!(data, u64),
            Data::Bool(data) => self.bytes.extend(data.iter().map(|&set| u8::from(set))),
            Data::Text(data) => {
                for text in data {
                    self.text(text.as_bytes());
                }
            }
        }
        self
    }

    fn output(&mut self, output: &Output) -> &mut Self {
        match output {
            Output::Tensor(tensor) => self.u8(0).tensor(tensor),
            Output::Sequence(items) => {
                self.u8(1).u32(items.len());
                items.iter().fold(self, Self::output)
            }
            Output::Map { keys, values } => {
                self.u8(2).u8(code(values)).u32(keys.len());
                for key in keys {
                    self.text(key.as_bytes());
                }
                self.elements(values)
            }
        }
    }

    pub(super) fn setup(&mut self, setup: &Setup) -> &[u8] {
        let sandbox = match setup.sandbox {
            Sandbox::Required => 2,
            Sandbox::BestEffort => 1,
            Sandbox::Off => 0,
        };
        self.start(SETUP).u8(sandbox).u64(setup.memory).u32(setup.threads);
        self.u64(setup.output_elements as u64)
            .text(setup.library.as_os_str().as_bytes())
            .finish(0)
    }

    pub(super) fn ready(&mut self, protection: &Protection) -> &[u8] {
        self.start(READY).u8(protection.landlock);
        self.u8(protection.seccomp.into())
            .u8(protection.no_new_privs.into())
            .u64(protection.memory)
            .finish(0)
    }

    pub(super) fn loaded(&mut self, ports: &Ports) -> &[u8] {
        self.start(LOADED);
        for names in [&ports.inputs, &ports.outputs] {
            self.u32(names.len());
            for name in names {
                self.text(name.as_bytes());
            }
        }
        self.finish(0)
    }

    pub(super) fn run(&mut self, inputs: &[Tensor]) -> &[u8] {
        self.start(RUN).u32(inputs.len());
        inputs.iter().fold(&mut *self, Self::tensor).finish(0)
    }

    pub(super) fn done(&mut self, outputs: &[Output]) -> &[u8] {
        self.start(DONE).u32(outputs.len());
        outputs.iter().fold(&mut *self, Self::output).finish(0)
    }

    pub(super) fn failed(&mut self, failure: &Failure) -> &[u8] {
        let (kind, number, text) = match failure {
            Failure::Engine(reason) => (0, 0, reason),
            Failure::Model(reason) => (1, 0, reason),
            Failure::Library(reason) => (2, 0, reason),
            Failure::NotLocked(missing) => (3, 0, missing),
            Failure::TooLarge(elements) => (4, *elements as u64, &String::new()),
        };
        let text: String = text.chars().take(REASON / 4).collect();
        self.start(FAILED).u8(kind).u64(number).text(text.as_bytes()).finish(0)
    }
}

/// How a worker is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) sandbox: Sandbox,
    /// Bytes of memory beside what the process has when it is set up.
    pub(super) memory: u64,
    /// Threads of one run.
    pub(super) threads: usize,
    /// Most elements of all outputs of a call.
    pub(super) output_elements: usize,
    /// File of the ONNX Runtime library.
    pub(super) library: PathBuf,
}

/// What a worker could not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Engine(String),
    Model(String),
    Library(String),
    NotLocked(String),
    TooLarge(usize),
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Engine { reason } => Self::Engine(reason),
            RuntimeError::Model { reason } => Self::Model(reason),
            RuntimeError::OutputTooLarge { got, .. } => Self::TooLarge(got),
            RuntimeError::Library { reason, .. } => Self::Library(reason),
            other => Self::Engine(other.to_string()),
        }
    }
}

/// ONNX code of the elements.
const fn code(data: &Data) -> u8 {
    match data {
        Data::F32(_) => 1,
        Data::U8(_) => 2,
        Data::I8(_) => 3,
        Data::U16(_) => 4,
        Data::I16(_) => 5,
        Data::I32(_) => 6,
        Data::I64(_) => 7,
        Data::Text(_) => 8,
        Data::Bool(_) => 9,
        Data::F64(_) => 11,
        Data::U32(_) => 12,
        Data::U64(_) => 13,
    }
}

/// Element type of the elements.
pub(super) fn dtype(data: &Data) -> Option<DType> {
    DType::from_code(i64::from(code(data)))
}

/// Longest body of an answer of so many elements: numbers take up to 8 bytes, in a map 12, in a tensor of their own 19.
pub(super) const fn answer_limit(elements: usize) -> usize {
    elements
        .saturating_mul(24)
        .saturating_add(crate::onnx::value::OUTPUT_TEXT_LIMIT)
        .saturating_add(SMALL_ANSWER)
}

/// Takes values from the front of a body.
#[derive(Debug)]
pub(super) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        match self.0.split_at_checked(count) {
            Some((front, rest)) => {
                self.0 = rest;
                Ok(front)
            }
            None => malformed(format!("{count} bytes expected, {} left", self.0.len())),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.0.split_first_chunk() {
            Some((front, rest)) => {
                self.0 = rest;
                Ok(*front)
            }
            None => malformed(format!("{N} bytes expected, {} left", self.0.len())),
        }
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u64()?).or_else(|_| malformed("a size beyond this machine's"))
    }

    /// A count, each of whose items takes at least one byte of this body.
    fn count(&mut self, limit: usize) -> Result<usize, Malformed> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > limit.min(self.0.len()) {
            return malformed(format!("{count} items, at most {limit} in {} bytes", self.0.len()));
        }
        Ok(count)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => malformed(format!("expected 0 or 1, got {other}")),
        }
    }

    fn bytes(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        if length > limit {
            return malformed(format!("a text of {length} bytes, at most {limit} are accepted"));
        }
        self.take(length)
    }

    fn text(&mut self, limit: usize) -> Result<String, Malformed> {
        let bytes = self.bytes(limit)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => malformed(format!("a text that is not UTF-8: {error}")),
        }
    }

    /// That everything was taken.
    fn end(&self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            left => malformed(format!("{left} bytes too many")),
        }
    }

    fn tensor(&mut self, budget: &mut Budget) -> Result<Tensor, Malformed> {
        let code = self.u8()?;
        let rank = self.u8()?;
        let shape = (0..rank).map(|_| self.size()).collect::<Result<Vec<_>, _>>()?;
        budget
            .take_shape(&shape)
            .map_err(|error| Malformed(error.to_string()))?;
        let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
        let Some(count) = count else {
            return malformed("a shape with too many elements");
        };
        let data = self.elements(code, count, budget)?;
        Ok(Tensor { shape, data })
    }

    fn elements(&mut self, code: u8, count: usize, budget: &mut Budget) -> Result<Data, Malformed> {
        macro_rules! numbers {
            ($data:ident, $ty:ty) => {{
                const WIDTH: usize = size_of::<$ty>();
                let bytes = self.take(count.saturating_mul(WIDTH))?;
                Data::$data(
                    bytes
                        .as_chunks::<WIDTH>()
                        .0
                        .iter()
                        .map(|bytes| <$ty>::from_le_bytes(*bytes))
                        .collect(),
                )
            }};
        }
        Ok(match code {
            1 => numbers!(F32, f32),
            2 => numbers!(U8, u8),
            3 => numbers!(I8, i8),
            4 => numbers!(U16, u16),
            5 => numbers!(I16, i16),
            6 => numbers!(I32, i32),
            7 => numbers!(I64, i64),
            8 => Data::Text(self.texts(count, budget)?),
            9 => {
                let bytes = self.take(count)?;
                if let Some(other) = bytes.iter().find(|&&byte| byte > 1) {
                    return malformed(format!("expected 0 or 1, got {other}"));
                }
                Data::Bool(bytes.iter().map(|&byte| byte == 1).collect())
            }
            11 => numbers!(F64, f64),
            12 => numbers!(U32, u32),
            13 => numbers!(U64, u64),
            other => return malformed(format!("elements of type {other}")),
        })
    }

    fn texts(&mut self, count: usize, budget: &mut Budget) -> Result<Vec<String>, Malformed> {
        if count > self.0.len() / 4 {
            return malformed(format!("{count} texts in {} bytes", self.0.len()));
        }
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let text = self.text(u32::MAX as usize)?;
            budget
                .take_text(text.len())
                .map_err(|error| Malformed(error.to_string()))?;
            texts.push(text);
        }
        Ok(texts)
    }

    fn output(&mut self, budget: &mut Budget, depth: usize) -> Result<Output, Malformed> {
        let over = |error: RuntimeError| Malformed(error.to_string());
        match self.u8()? {
            0 => Ok(Output::Tensor(self.tensor(budget)?)),
            1 if depth < DEPTH => {
                let count = self.count(usize::MAX)?;
                budget.take(count).map_err(over)?;
                let items = (0..count).map(|_| self.output(budget, depth + 1));
                Ok(Output::Sequence(items.collect::<Result<_, _>>()?))
            }
            2 => {
                let code = self.u8()?;
                if !matches!(code, 1 | 7 | 11) {
                    return malformed(format!("a map to elements of type {code}"));
                }
                let count = self.count(usize::MAX)?;
                budget.take(count).map_err(over)?;
                Ok(Output::Map {
                    keys: self.texts(count, budget)?,
                    values: self.elements(code, count, budget)?,
                })
            }
            other => malformed(format!("an output of kind {other} at depth {depth}")),
        }
    }

    pub(super) fn setup(mut self) -> Result<Setup, Malformed> {
        let setup = Setup {
            sandbox: match self.u8()? {
                0 => Sandbox::Off,
                1 => Sandbox::BestEffort,
                2 => Sandbox::Required,
                other => return malformed(format!("sandbox {other}")),
            },
            memory: self.u64()?,
            threads: u32::from_le_bytes(self.array()?) as usize,
            output_elements: self.size()?,
            library: std::ffi::OsString::from_vec(self.bytes(NAME)?.to_vec()).into(),
        };
        self.end()?;
        Ok(setup)
    }

    pub(super) fn ready(mut self) -> Result<Protection, Malformed> {
        let protection = Protection {
            landlock: self.u8()?,
            seccomp: self.flag()?,
            no_new_privs: self.flag()?,
            memory: self.u64()?,
        };
        self.end()?;
        Ok(protection)
    }

    pub(super) fn loaded(mut self) -> Result<Ports, Malformed> {
        let mut names = || {
            let count = self.count(PORTS)?;
            (0..count).map(|_| self.text(NAME)).collect::<Result<Vec<_>, _>>()
        };
        let ports = Ports {
            inputs: names()?,
            outputs: names()?,
        };
        self.end()?;
        Ok(ports)
    }

    pub(super) fn run(mut self) -> Result<Vec<Tensor>, Malformed> {
        // The node bounded and checked them before it wrote them.
        let mut budget = Budget::unbounded();
        let count = self.count(PORTS)?;
        let inputs = (0..count)
            .map(|_| self.tensor(&mut budget))
            .collect::<Result<Vec<_>, _>>()?;
        self.end()?;
        Ok(inputs)
    }

    pub(super) fn done(mut self, output_elements: usize) -> Result<Vec<Output>, Malformed> {
        let mut budget = Budget::new(output_elements);
        let count = self.count(PORTS)?;
        let outputs = (0..count)
            .map(|_| self.output(&mut budget, 0))
            .collect::<Result<Vec<_>, _>>()?;
        self.end()?;
        Ok(outputs)
    }

    pub(super) fn failed(mut self) -> Result<Failure, Malformed> {
        let kind = self.u8()?;
        let number = self.size()?;
        // It goes into logs: one line of printable text.
        let text = self.text(REASON)?;
        let text = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>();
        self.end()?;
        Ok(match kind {
            0 => Failure::Engine(text),
            1 => Failure::Model(text),
            2 => Failure::Library(text),
            3 => Failure::NotLocked(text),
            4 => Failure::TooLarge(number),
            other => return malformed(format!("a failure of kind {other}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1_000;

    fn data(count: usize) -> impl Strategy<Value = Data> {
        prop_oneof![
            prop::collection::vec(any::<u32>(), count)
                .prop_map(|bits| Data::F32(bits.into_iter().map(f32::from_bits).filter(|x| !x.is_nan()).collect())),
            prop::collection::vec(-1e300..1e300, count).prop_map(Data::F64),
            prop::collection::vec(any::<i8>(), count).prop_map(Data::I8),
            prop::collection::vec(any::<i16>(), count).prop_map(Data::I16),
            prop::collection::vec(any::<i32>(), count).prop_map(Data::I32),
            prop::collection::vec(any::<i64>(), count).prop_map(Data::I64),
            prop::collection::vec(any::<u8>(), count).prop_map(Data::U8),
            prop::collection::vec(any::<u16>(), count).prop_map(Data::U16),
            prop::collection::vec(any::<u32>(), count).prop_map(Data::U32),
            prop::collection::vec(any::<u64>(), count).prop_map(Data::U64),
            prop::collection::vec(any::<bool>(), count).prop_map(Data::Bool),
            prop::collection::vec(".{0,5}", count).prop_map(Data::Text),
        ]
    }

    /// Elements, as many as come out, as one row.
    fn tensor() -> impl Strategy<Value = Tensor> {
        (0usize..6).prop_flat_map(data).prop_map(|data| {
            let count = match &data {
                Data::F32(data) => data.len(),
                Data::F64(data) => data.len(),
                Data::I8(data) => data.len(),
                Data::I16(data) => data.len(),
                Data::I32(data) => data.len(),
                Data::I64(data) => data.len(),
                Data::U8(data) => data.len(),
                Data::U16(data) => data.len(),
                Data::U32(data) => data.len(),
                Data::U64(data) => data.len(),
                Data::Bool(data) => data.len(),
                Data::Text(data) => data.len(),
            };
            Tensor {
                shape: vec![1, count],
                data,
            }
        })
    }

    fn output() -> impl Strategy<Value = Output> {
        let map = prop::collection::vec((".{0,4}", any::<i64>()), 0..4).prop_map(|entries| {
            let (keys, values) = entries.into_iter().unzip();
            Output::Map {
                keys,
                values: Data::I64(values),
            }
        });
        let plain = prop_oneof![tensor().prop_map(Output::Tensor), map];
        plain.prop_recursive(2, 8, 3, |inner| {
            prop::collection::vec(inner, 0..3).prop_map(Output::Sequence)
        })
    }

    fn read(bytes: &[u8], limit: usize) -> Result<(u8, Vec<u8>), FrameError> {
        let mut frames = Frames::default();
        let kind = frames.read(&mut &*bytes, limit)?;
        Ok((kind, frames.body().to_vec()))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(outputs in prop::collection::vec(output(), 0..4), inputs in prop::collection::vec(tensor(), 0..4)) {
            let mut message = Message::default();
            let (kind, body) = read(message.done(&outputs), usize::MAX >> 1).unwrap();
            prop_assert_eq!(kind, DONE);
            prop_assert_eq!(Body::new(&body).done(LIMIT).unwrap(), outputs);
            let (kind, body) = read(message.run(&inputs), usize::MAX >> 1).unwrap();
            prop_assert_eq!(kind, RUN);
            prop_assert_eq!(Body::new(&body).run().unwrap(), inputs);
        }

        /// Whatever a worker sends is an answer within the bounds or an error; nothing panics, nothing is made of nothing.
        #[test]
        fn nonsense_is_refused(
            outputs in prop::collection::vec(output(), 0..4),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut message = Message::default();
            let mut body = message.done(&outputs)[HEADER..].to_vec();
            for (at, byte) in changes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            body.truncate(cut.index(body.len() + 1));
            if let Ok(outputs) = Body::new(&body).done(LIMIT) {
                let mut again = Message::default();
                prop_assert_eq!(&again.done(&outputs)[HEADER..], &body[..]);
            }
            let _ = Body::new(&body).ready();
            let _ = Body::new(&body).loaded();
            if let Ok(Failure::Engine(text)) = Body::new(&body).failed() {
                prop_assert!(text.len() <= REASON && !text.contains(char::is_control));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, 100);
            let _ = Body::new(&bytes).done(LIMIT);
            let _ = Body::new(&bytes).setup();
        }
    }

    /// One byte with each call, as over a slow link.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(buffer.get_mut(..count).unwrap_or_default())
        }
    }

    #[test]
    fn frames_are_bounded_before_they_are_read() {
        let mut message = Message::default();
        let frame = message.failed(&Failure::Engine("x".repeat(10_000))).to_vec();
        assert_eq!(read(&frame, 1_000).unwrap().0, FAILED);
        assert!(matches!(read(&frame, 100), Err(FrameError::Malformed(_))));
        let mut frames = Frames::default();
        assert_eq!(frames.read(&mut Slow(&frame), 1_000).unwrap(), FAILED);
        // A length that no machine has: nothing is allocated for it.
        let mut endless = vec![DONE];
        endless.extend(u64::MAX.to_le_bytes());
        assert!(matches!(read(&endless, usize::MAX >> 1), Err(FrameError::Malformed(_))));
        let mut long = vec![DONE];
        long.extend((1u64 << 40).to_le_bytes());
        let mut frames = Frames::default();
        assert!(matches!(frames.read(&mut &*long, 1 << 41), Err(FrameError::Closed)));
        assert!(frames.buffer.capacity() <= 2 * PIECE, "it grows as bytes come");
        // More than was said.
        let more = [frame.as_slice(), b"x"].concat();
        assert!(matches!(read(&more, 1_000), Err(FrameError::Malformed(_))));
        assert!(matches!(read(&frame[..20], 1_000), Err(FrameError::Closed)));
    }

    #[test]
    fn setups_and_reports_round_trip() {
        let mut message = Message::default();
        for sandbox in [Sandbox::Required, Sandbox::BestEffort, Sandbox::Off] {
            let setup = Setup {
                sandbox,
                memory: 1 << 40,
                threads: 3,
                output_elements: 77,
                library: "/lib/ö.so".into(),
            };
            let body = message.setup(&setup)[HEADER..].to_vec();
            assert_eq!(Body::new(&body).setup().unwrap(), setup);
        }
        let protection = Protection {
            landlock: 7,
            seccomp: true,
            no_new_privs: false,
            memory: 9,
        };
        let body = message.ready(&protection)[HEADER..].to_vec();
        assert_eq!(Body::new(&body).ready().unwrap(), protection);
        let ports = Ports {
            inputs: vec!["X".into(), String::new()],
            outputs: vec!["Y".into()],
        };
        let body = message.loaded(&ports)[HEADER..].to_vec();
        assert_eq!(Body::new(&body).loaded().unwrap(), ports);
        assert!(Body::new(&body[1..]).loaded().is_err());
    }
}
