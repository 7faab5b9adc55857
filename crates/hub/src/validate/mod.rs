//! What a file is, and whether it may ever be loaded.
//!
//! Servable formats are data: ONNX, GGUF and safetensors, and only if their reader accepts the whole header. Formats that
//! carry code (pickle, TorchScript, Keras, archives, scripts, libraries) are stored and marked; nothing loads them, and no
//! scanner is asked whether a pickle is "safe".

mod safetensors;
mod settings;

pub use safetensors::{SafetensorsError, SafetensorsHeader, TensorInfo};
pub use settings::{SETTINGS_LIMIT, Settings};

use opg_models::{
    gguf::{GgufError, GgufHeader, Value as Gguf},
    onnx::OnnxHeader,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Largest ONNX file that is checked: its reader needs all of it in memory.
pub const ONNX_LIMIT: u64 = 512 << 20;
/// Largest GGUF header that is read.
pub const GGUF_HEADER_LIMIT: u64 = 64 << 20;

/// What a path's extension says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A model in a data format.
    Model(ModelFormat),
    /// A format that carries code, with its name.
    Executable(&'static str),
    /// An archive: its members are not looked at.
    Archive,
    /// Anything else: text, configuration, pictures.
    Other,
}

/// Data formats of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelFormat {
    /// ONNX.
    Onnx,
    /// GGUF.
    Gguf,
    /// safetensors.
    Safetensors,
}

impl ModelFormat {
    /// Lower-case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
        }
    }

    /// What a report is remembered under: another word whenever reports of a format say more than before.
    pub(crate) const fn report_key(self) -> &'static str {
        match self {
            Self::Onnx => "onnx-2",
            Self::Gguf | Self::Safetensors => self.as_str(),
        }
    }

    /// The network's format of the content root, where it has one.
    #[must_use]
    pub const fn root_format(self) -> Option<opg_models::Format> {
        match self {
            Self::Onnx => Some(opg_models::Format::Onnx),
            Self::Gguf => Some(opg_models::Format::Gguf),
            Self::Safetensors => None,
        }
    }
}

/// Classifies a path by its extension, without case.
#[must_use]
pub fn kind_of(path: &str) -> FileKind {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        "onnx" => FileKind::Model(ModelFormat::Onnx),
        "gguf" => FileKind::Model(ModelFormat::Gguf),
        "safetensors" => FileKind::Model(ModelFormat::Safetensors),
        "bin" | "pt" | "pth" | "ckpt" | "pkl" | "pickle" | "joblib" | "dill" | "npy" | "npz" | "pdparams" => {
            FileKind::Executable("pickle")
        }
        "h5" | "hdf5" | "keras" => FileKind::Executable("keras"),
        "pb" | "mlmodel" | "mar" | "nemo" | "tflite" | "torchscript" | "ptl" | "pte" => FileKind::Executable("graph"),
        "llamafile" | "so" | "dll" | "dylib" | "exe" | "elf" | "wasm" | "jar" | "class" => {
            FileKind::Executable("binary")
        }
        "py" | "pyc" | "sh" | "bat" | "ps1" | "js" | "mjs" | "rb" | "lua" | "ipynb" => FileKind::Executable("script"),
        "zip" | "tar" | "gz" | "tgz" | "bz2" | "xz" | "zst" | "7z" | "rar" | "whl" => FileKind::Archive,
        _ => FileKind::Other,
    }
}

/// What was found in a file of a model format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The format its name claims.
    pub format: ModelFormat,
    /// Whether the reader of the format accepts it.
    pub servable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// What the header says: parameters, types, operators, context length and so on.
    pub panel: Value,
}

impl Report {
    fn refused(format: ModelFormat, problem: impl std::fmt::Display) -> Self {
        Self {
            format,
            servable: false,
            problem: Some(problem.to_string().chars().take(400).collect()),
            panel: Value::Null,
        }
    }

    const fn accepted(format: ModelFormat, panel: Value) -> Self {
        Self {
            format,
            servable: true,
            problem: None,
            panel,
        }
    }
}

/// Outcome of a look at the front of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// Enough was seen.
    Done(Report),
    /// At least this many bytes of the front are needed.
    More(u64),
}

/// Bytes of the front to begin with.
#[must_use]
pub const fn first_look(format: ModelFormat, size: u64) -> u64 {
    match format {
        ModelFormat::Onnx if size <= ONNX_LIMIT => size,
        ModelFormat::Onnx => 0,
        ModelFormat::Gguf => 1 << 20,
        ModelFormat::Safetensors => 64 << 10,
    }
}

/// Checks a file of `size` bytes from its first bytes. Pure: no I/O, no panic; memory is bounded by a small multiple of
/// `front`.
#[must_use]
pub fn look(format: ModelFormat, front: &[u8], size: u64) -> Look {
    match format {
        ModelFormat::Onnx if size > ONNX_LIMIT => Look::Done(Report::refused(
            format,
            format_args!("ONNX files of more than {ONNX_LIMIT} bytes are not checked, so not served"),
        )),
        ModelFormat::Onnx => Look::Done(match OnnxHeader::parse(front) {
            Ok(header) => Report::accepted(format, onnx_panel(&header)),
            Err(error) => Report::refused(format, error),
        }),
        ModelFormat::Gguf => match GgufHeader::parse(front, size) {
            Ok(header) => Look::Done(Report::accepted(format, gguf_panel(&header))),
            Err(GgufError::Truncated { .. }) if (front.len() as u64) < size.min(GGUF_HEADER_LIMIT) => {
                Look::More((front.len() as u64).saturating_mul(4).min(size).min(GGUF_HEADER_LIMIT))
            }
            Err(error) => Look::Done(Report::refused(format, error)),
        },
        ModelFormat::Safetensors => match SafetensorsHeader::parse(front, size) {
            Ok(header) => Look::Done(Report::accepted(format, safetensors_panel(&header))),
            Err(SafetensorsError::Truncated { needed }) if needed <= size => Look::More(needed),
            Err(error) => Look::Done(Report::refused(format, error)),
        },
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a u64>) -> u64 {
    counts.fold(0, |sum, count| sum.saturating_add(*count))
}

fn onnx_panel(header: &OnnxHeader) -> Value {
    let ports = |ports: &[opg_models::onnx::ValueInfo]| -> Vec<Value> {
        ports
            .iter()
            .take(64)
            .map(|port| json!({"name": port.name, "type": port.ty.to_string()}))
            .collect()
    };
    // Types are written alike for all formats.
    let parameters: BTreeMap<String, u64> = header
        .initializer_elements
        .iter()
        .map(|(dtype, elements)| (dtype.as_str().to_uppercase(), *elements))
        .collect();
    json!({
        "parameters": parameters,
        "total": sum(parameters.values()),
        "ir_version": header.ir_version,
        "producer": header.producer.chars().take(64).collect::<String>(),
        "opsets": header.opsets,
        "operators": header.operators,
        "nodes": header.nodes,
        "weight_bytes": header.initializer_bytes,
        "inputs": ports(&header.inputs),
        "outputs": ports(&header.outputs),
    })
}

fn gguf_panel(header: &GgufHeader) -> Value {
    let mut types: Map<String, Value> = Map::new();
    let mut total = 0u64;
    for tensor in &header.tensors {
        let elements = tensor
            .dims
            .iter()
            .fold(1u64, |product, dim| product.saturating_mul(*dim));
        total = total.saturating_add(elements);
        let name = format!("{:?}", tensor.ty).to_uppercase();
        let sum = types
            .get(&name)
            .and_then(Value::as_u64)
            .unwrap_or(0)
            .saturating_add(elements);
        types.insert(name, sum.into());
    }
    let mut panel = json!({"version": header.version, "total": total, "types": types, "tensors": header.tensors.len()});
    let architecture = header.text("general.architecture").ok();
    let mut set = |key: &str, value: Option<Value>| {
        if let (Some(value), Some(object)) = (value, panel.as_object_mut()) {
            object.insert(key.to_owned(), value);
        }
    };
    let short = |text: &str, most: usize| Value::from(text.chars().take(most).collect::<String>());
    set("architecture", architecture.map(|text| short(text, 64)));
    set("name", header.text("general.name").ok().map(|text| short(text, 200)));
    if let Some(architecture) = architecture {
        let number = |name: &str| match header.metadata.get(&format!("{architecture}.{name}")) {
            Some(Gguf::U32(n)) => Some(Value::from(*n)),
            Some(Gguf::U64(n)) => Some(Value::from(*n)),
            _ => None,
        };
        set("context_length", number("context_length"));
        set("embedding_length", number("embedding_length"));
        set("block_count", number("block_count"));
    }
    set(
        "chat_template",
        header
            .text("tokenizer.chat_template")
            .ok()
            .map(|text| short(text, settings::TEMPLATE_LIMIT)),
    );
    panel
}

fn safetensors_panel(header: &SafetensorsHeader) -> Value {
    let parameters = header.parameters();
    json!({"parameters": parameters, "total": sum(parameters.values()), "tensors": header.tensors.len()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_never_a_model() {
        for path in [
            "pytorch_model.bin",
            "a/b.PKL",
            "x.tar.gz",
            "modeling.py",
            "m.llamafile",
            "w.h5",
            "n.npy",
        ] {
            assert!(
                matches!(kind_of(path), FileKind::Executable(_) | FileKind::Archive),
                "{path}"
            );
        }
        assert_eq!(kind_of("a/Model.GGUF"), FileKind::Model(ModelFormat::Gguf));
        assert_eq!(kind_of("model.safetensors.index.json"), FileKind::Other);
        assert_eq!(kind_of("onnx"), FileKind::Other);
    }

    fn panel(format: ModelFormat, bytes: &[u8]) -> Value {
        let size = bytes.len() as u64;
        let mut need = first_look(format, size).min(size);
        loop {
            match look(format, &bytes[..usize::try_from(need).unwrap()], size) {
                Look::Done(report) => {
                    assert!(report.servable, "{:?}", report.problem);
                    return report.panel;
                }
                Look::More(more) => need = more,
            }
        }
    }

    fn fixture(path: &str) -> Vec<u8> {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testing/fixtures/");
        std::fs::read(format!("{fixtures}{path}")).unwrap()
    }

    #[test]
    fn panels_say_what_is_in_the_files() {
        let onnx = panel(ModelFormat::Onnx, &fixture("digits/digits_mlp.onnx"));
        // 64·64 + 64 + 64·10 + 10.
        assert_eq!(onnx["parameters"]["F32"], 4_810);
        assert!(onnx["total"].as_u64().unwrap() >= 4_810, "{onnx}");

        let bytes = fixture("tiny-llama/trained-Q8_0.gguf");
        let gguf = panel(ModelFormat::Gguf, &bytes);
        assert_eq!(
            (&gguf["architecture"], &gguf["context_length"]),
            (&json!("llama"), &json!(1_024))
        );
        assert_eq!((&gguf["total"], gguf.get("chat_template")), (&json!(3_672_320), None));
        let types = gguf["types"].as_object().unwrap();
        let all: Vec<_> = types.values().filter_map(Value::as_u64).collect();
        assert_eq!(gguf["total"], sum(all.iter()));
        assert!(types.contains_key("Q8_0") && types.contains_key("F32"), "{gguf}");
        // One more text in front, in steps of the alignment.
        let (key, template) = (
            "tokenizer.chat_template",
            "{{ messages[0].text }}".repeat(16) + &"-".repeat(21),
        );
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let entry = [text(key), 8u32.to_le_bytes().to_vec(), text(&template)].concat();
        assert_eq!(entry.len() % 32, 0);
        let entries = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) + 1;
        let with = [&bytes[..16], &entries.to_le_bytes(), &entry, &bytes[24..]].concat();
        assert_eq!(panel(ModelFormat::Gguf, &with)["chat_template"], template);

        let header = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#;
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 32]].concat();
        let mut safetensors = panel(ModelFormat::Safetensors, &file);
        assert_eq!(
            safetensors,
            json!({"parameters": {"BF16": 4, "F32": 6}, "total": 10, "tensors": 2})
        );
        let settings = Settings::read(b"{\"n_ctx\": 77}", b"", b"{{ x }}");
        settings.add_to(safetensors.as_object_mut().unwrap());
        assert_eq!(
            (&safetensors["context_length"], &safetensors["chat_template"]),
            (&json!(77), &json!("{{ x }}"))
        );
        // What a file says itself stays.
        let mut gguf = gguf;
        settings.add_to(gguf.as_object_mut().unwrap());
        assert_eq!(gguf["context_length"], 1_024);
    }

    #[test]
    fn a_pickle_with_another_name_is_refused() {
        let pickle = b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.";
        for format in [ModelFormat::Onnx, ModelFormat::Gguf, ModelFormat::Safetensors] {
            let Look::Done(report) = look(format, pickle, pickle.len() as u64) else {
                panic!("{format:?}")
            };
            assert!(!report.servable && report.problem.is_some());
        }
    }
}
