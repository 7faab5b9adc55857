//! One session of ONNX Runtime: in this process, or in a worker's.

use super::{
    library,
    value::{Budget, Data, Output, Tensor},
};
use crate::RuntimeError;
use ort::{
    logging::LogLevel,
    session::{Session, SessionInputValue},
    value::{
        DynValue, DynValueTypeMarker, IntoTensorElementType, PrimitiveTensorElementType, Tensor as OrtTensor,
        TensorElementType, ValueType,
    },
};
use std::{fmt, hash::Hash};

/// Names of a model's inputs and outputs, in its order, as the engine read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
}

/// A model that the engine has loaded.
#[derive(Debug)]
pub(crate) struct Engine {
    session: Session,
    ports: Ports,
}

impl Engine {
    /// Loads a checked file.
    ///
    /// # Errors
    /// [`RuntimeError::Model`] with the engine's reason, or an error of the library.
    pub(crate) fn load(bytes: &[u8], threads: usize) -> Result<Self, RuntimeError> {
        let refuse = |reason: String| RuntimeError::Model { reason };
        let session = Session::builder(library::load()?)
            .map_err(|error| refuse(error.to_string()))?
            .with_intra_threads(threads.max(1))
            .map_err(|error| refuse(error.to_string()))?
            .with_inter_threads(1)
            .map_err(|error| refuse(error.to_string()))?
            // Errors come back as values; a bad call must not fill the node's log.
            .with_log_level(LogLevel::Fatal)
            .map_err(|error| refuse(error.to_string()))?
            // Waiting threads of this session must not burn the cores of the others.
            .with_intra_op_spinning(false)
            .map_err(|error| refuse(error.to_string()))?
            .commit_from_memory(bytes)
            .map_err(|error| refuse(error.to_string()))?;
        let ports = Ports {
            inputs: session.inputs().iter().map(|port| port.name().to_owned()).collect(),
            outputs: session.outputs().iter().map(|port| port.name().to_owned()).collect(),
        };
        Ok(Self { session, ports })
    }

    pub(crate) const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Runs the model on its inputs in order; returns its outputs in order.
    ///
    /// # Errors
    /// [`RuntimeError::Engine`], or [`RuntimeError::OutputTooLarge`] before anything larger is copied.
    pub(crate) fn run(&mut self, inputs: Vec<Tensor>, output_elements: usize) -> Result<Vec<Output>, RuntimeError> {
        let Self { session, ports } = self;
        if inputs.len() != ports.inputs.len() {
            return Err(RuntimeError::engine(format_args!(
                "{} inputs for a model of {}",
                inputs.len(),
                ports.inputs.len()
            )));
        }
        let inputs = ports
            .inputs
            .iter()
            .zip(inputs)
            .map(|(name, input)| Ok((name.as_str(), input.into_value()?)))
            .collect::<ort::Result<Vec<_>>>()
            .map_err(RuntimeError::engine)?;
        let outputs = session.run(inputs).map_err(RuntimeError::engine)?;
        let mut budget = Budget::new(output_elements);
        ports
            .outputs
            .iter()
            .map(|name| {
                let value = outputs
                    .get(name)
                    .ok_or_else(|| RuntimeError::engine(format_args!("no output {name:?}")))?;
                extract(value, &mut budget)
            })
            .collect()
    }
}

impl Tensor {
    /// Hands the elements to the engine without copying (texts are copied by it).
    fn into_value(self) -> ort::Result<SessionInputValue<'static>> {
        fn tensor<T: PrimitiveTensorElementType + fmt::Debug + Clone + 'static>(
            shape: Vec<usize>,
            data: Vec<T>,
        ) -> ort::Result<SessionInputValue<'static>> {
            Ok(OrtTensor::from_array((shape, data))?.into())
        }
        let shape = self.shape;
        match self.data {
            Data::F32(data) => tensor(shape, data),
            Data::F64(data) => tensor(shape, data),
            Data::I8(data) => tensor(shape, data),
            Data::I16(data) => tensor(shape, data),
            Data::I32(data) => tensor(shape, data),
            Data::I64(data) => tensor(shape, data),
            Data::U8(data) => tensor(shape, data),
            Data::U16(data) => tensor(shape, data),
            Data::U32(data) => tensor(shape, data),
            Data::U64(data) => tensor(shape, data),
            Data::Bool(data) => tensor(shape, data),
            Data::Text(data) => Ok(OrtTensor::from_string_array((shape, data.as_slice()))?.into()),
        }
    }
}

fn extract(value: &DynValue, budget: &mut Budget) -> Result<Output, RuntimeError> {
    match value.dtype() {
        ValueType::Tensor { ty, .. } => Ok(Output::Tensor(tensor(value, *ty, budget)?)),
        ValueType::Sequence(_) => {
            let items = value
                .try_extract_sequence::<DynValueTypeMarker>()
                .map_err(RuntimeError::engine)?;
            budget.take(items.len())?;
            let items = items.iter().map(|item| extract(item, budget));
            Ok(Output::Sequence(items.collect::<Result<_, _>>()?))
        }
        ValueType::Map { key, value: element } => map(value, *key, *element, budget),
        ValueType::Optional(_) => Err(RuntimeError::engine("an optional output")),
    }
}

fn sizes(shape: &[i64]) -> Result<Vec<usize>, RuntimeError> {
    let size = |&size: &i64| usize::try_from(size);
    shape
        .iter()
        .map(size)
        .collect::<Result<_, _>>()
        .map_err(RuntimeError::engine)
}

fn tensor(value: &DynValue, ty: TensorElementType, budget: &mut Budget) -> Result<Tensor, RuntimeError> {
    macro_rules! elements {
        ($($variant:ident => $data:ident;)*) => {
            match ty {
                $(TensorElementType::$variant => {
                    let (shape, data) = value.try_extract_tensor().map_err(RuntimeError::engine)?;
                    let shape = sizes(shape)?;
                    budget.take_shape(&shape)?;
                    Ok(Tensor { shape, data: Data::$data(data.to_vec()) })
                })*
                TensorElementType::String => {
                    let (shape, data) = value.try_extract_strings().map_err(RuntimeError::engine)?;
                    let shape = sizes(shape)?;
                    budget.take_shape(&shape)?;
                    budget.take_text(data.iter().map(String::len).sum())?;
                    Ok(Tensor { shape, data: Data::Text(data) })
                }
                other => Err(RuntimeError::engine(format_args!("an output of type {other}"))),
            }
        };
    }
    elements! {
        Float32 => F32; Float64 => F64; Int8 => I8; Int16 => I16; Int32 => I32; Int64 => I64;
        Uint8 => U8; Uint16 => U16; Uint32 => U32; Uint64 => U64; Bool => Bool;
    }
}

fn map(
    value: &DynValue,
    key: TensorElementType,
    element: TensorElementType,
    budget: &mut Budget,
) -> Result<Output, RuntimeError> {
    fn entries<K, V>(value: &DynValue, budget: &mut Budget, data: fn(Vec<V>) -> Data) -> Result<Output, RuntimeError>
    where
        K: IntoTensorElementType + Clone + Hash + Eq + ToString,
        V: PrimitiveTensorElementType + Clone,
    {
        let pairs = value.try_extract_key_values::<K, V>().map_err(RuntimeError::engine)?;
        budget.take(pairs.len())?;
        let (keys, values): (Vec<String>, Vec<V>) =
            pairs.into_iter().map(|(key, value)| (key.to_string(), value)).unzip();
        budget.take_text(keys.iter().map(String::len).sum())?;
        Ok(Output::Map {
            keys,
            values: data(values),
        })
    }
    use TensorElementType as T;
    match (key, element) {
        (T::Int64, T::Float32) => entries::<i64, f32>(value, budget, Data::F32),
        (T::Int64, T::Float64) => entries::<i64, f64>(value, budget, Data::F64),
        (T::Int64, T::Int64) => entries::<i64, i64>(value, budget, Data::I64),
        (T::String, T::Float32) => entries::<String, f32>(value, budget, Data::F32),
        (T::String, T::Float64) => entries::<String, f64>(value, budget, Data::F64),
        (T::String, T::Int64) => entries::<String, i64>(value, budget, Data::I64),
        (key, element) => Err(RuntimeError::engine(format_args!(
            "an output of type map<{key},{element}>"
        ))),
    }
}
