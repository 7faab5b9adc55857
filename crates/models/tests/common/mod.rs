//! Writers for the formats under test, so that tests can make files that no exporter would.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;

/// A file of `testing/fixtures`.
pub(crate) fn fixture(path: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testing/fixtures");
    std::fs::read(root.join(path)).unwrap()
}

/// A protobuf message under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proto(pub Vec<u8>);

impl Proto {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub(crate) fn bytes(mut self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.as_ref().len() as u64);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub(crate) fn message(self, field: u64, message: Self) -> Self {
        self.bytes(field, message.0)
    }
}

/// `ValueInfoProto` of a tensor; a negative dimension is a dynamic one.
pub(crate) fn tensor_port(name: &str, dtype: i64, shape: &[i64]) -> Proto {
    let dims = shape.iter().fold(Proto::new(), |dims, &dim| {
        let entry = if dim < 0 {
            Proto::new().bytes(2, "N")
        } else {
            Proto::new().int(1, dim)
        };
        dims.message(1, entry)
    });
    let tensor = Proto::new().int(1, dtype).message(2, dims);
    Proto::new().bytes(1, name).message(2, Proto::new().message(1, tensor))
}

pub(crate) fn node(operator: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> Proto {
    let node = inputs.iter().fold(Proto::new(), |node, input| node.bytes(1, input));
    let node = outputs.iter().fold(node, |node, output| node.bytes(2, output));
    node.bytes(4, operator).bytes(7, domain)
}

/// A graph `Y = Identity(X)` of f32, to be extended with more fields.
pub(crate) fn identity_graph() -> Proto {
    Proto::new()
        .message(1, node("Identity", "", &["X"], &["Y"]))
        .bytes(2, "g")
        .message(11, tensor_port("X", 1, &[-1, 2]))
        .message(12, tensor_port("Y", 1, &[-1, 2]))
}

/// A model around a graph: IR version 8, operator set 17.
pub(crate) fn model(graph: Proto) -> Proto {
    Proto::new()
        .int(1, 8)
        .message(8, Proto::new().bytes(1, "").int(2, 17))
        .message(7, graph)
}

/// A GGUF header under construction.
#[derive(Debug, Clone)]
pub(crate) struct Gguf {
    pub(crate) version: u32,
    pub(crate) entries: Vec<(String, u32, Vec<u8>)>,
    pub(crate) tensors: Vec<(String, Vec<u64>, u32, u64)>,
}

impl Gguf {
    pub(crate) fn new() -> Self {
        Self {
            version: 3,
            entries: Vec::new(),
            tensors: Vec::new(),
        }
    }

    pub(crate) fn entry(mut self, key: &str, code: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.entries.push((key.into(), code, bytes.into()));
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, text(value))
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, value.to_le_bytes())
    }

    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], code: u32, offset: u64) -> Self {
        self.tensors.push((name.into(), dims.to_vec(), code, offset));
        self
    }

    /// Header, padded, followed by `data` bytes of tensor data.
    pub(crate) fn build(&self, data: usize) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, code, bytes) in &self.entries {
            out.extend(text(key));
            out.extend(code.to_le_bytes());
            out.extend(bytes);
        }
        for (name, dims, code, offset) in &self.tensors {
            out.extend(text(name));
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(code.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        let padded = out.len().next_multiple_of(32);
        out.resize(padded + data, 0);
        out
    }
}

pub(crate) fn text(value: &str) -> Vec<u8> {
    let mut out = (value.len() as u64).to_le_bytes().to_vec();
    out.extend(value.as_bytes());
    out
}
