//! The demo models that every local network serves, inside the binary so that it works from anywhere.
//!
//! They were made for this project; `testing/fixtures` has their provenance.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use opg_models::{Format, Manifest, ManifestError, ModelRoot};
use opg_primitives::money::{Amount, Price};

/// Share of the model's creator in what a call costs, in basis points.
pub const DEMO_ROYALTY_BPS: u16 = 1_000;

/// A model that a local network serves from its first block.
#[derive(Debug, Clone, Copy)]
pub struct DemoModel {
    /// Name in the registry.
    pub name: &'static str,
    /// How its bytes are read.
    pub format: Format,
    /// The file itself.
    pub bytes: &'static [u8],
    /// Reference price and the demo node's ask.
    pub price: Price,
}

const MILLI_OPG: u128 = 1_000_000_000_000_000;

/// Per call: 0.001 OPG.
const PER_CALL: Price = Price {
    per_call: Amount(MILLI_OPG),
    per_mtok_in: Amount(0),
    per_mtok_out: Amount(0),
};
/// Per million tokens: 1 OPG in, 2 OPG out.
const PER_TOKEN: Price = Price {
    per_call: Amount(0),
    per_mtok_in: Amount(1_000 * MILLI_OPG),
    per_mtok_out: Amount(2_000 * MILLI_OPG),
};

/// Every demo model.
pub const DEMO_MODELS: [DemoModel; 4] = [
    DemoModel {
        name: "demo/digits-mlp",
        format: Format::Onnx,
        bytes: include_bytes!("../../../testing/fixtures/digits/digits_mlp.onnx"),
        price: PER_CALL,
    },
    DemoModel {
        name: "demo/digits-logreg",
        format: Format::Onnx,
        bytes: include_bytes!("../../../testing/fixtures/digits/logreg.onnx"),
        price: PER_CALL,
    },
    DemoModel {
        name: "demo/digits-gbc",
        format: Format::Onnx,
        bytes: include_bytes!("../../../testing/fixtures/digits/gbc.onnx"),
        price: PER_CALL,
    },
    DemoModel {
        name: "demo/tiny-llama",
        format: Format::Gguf,
        bytes: include_bytes!("../../../testing/fixtures/tiny-llama/trained-Q8_0.gguf"),
        price: PER_TOKEN,
    },
];

impl DemoModel {
    /// Content root.
    ///
    /// # Errors
    /// Never for the models above; the type of the manifest's encoder.
    pub fn root(&self) -> Result<ModelRoot, ManifestError> {
        Manifest::single(self.format, self.bytes).root()
    }

    /// Path of its file below `dir`.
    #[must_use]
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.name).join(self.format.canonical_path())
    }

    /// Writes the file below `dir` unless one of this size is there. The node checks the content against the root
    /// when it loads the model.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        let path = self.path(dir);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() == self.bytes.len() as u64) {
            return Ok(());
        }
        let temporary = path.with_extension("part");
        std::fs::File::create(&temporary)?.write_all(self.bytes)?;
        std::fs::rename(&temporary, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_distinct_and_files_are_restored() {
        let mut roots: Vec<_> = DEMO_MODELS.iter().map(|model| model.root().unwrap()).collect();
        roots.sort();
        roots.dedup();
        assert_eq!(roots.len(), DEMO_MODELS.len());

        let dir = tempfile::tempdir().unwrap();
        let model = DEMO_MODELS[1];
        model.write(dir.path()).unwrap();
        std::fs::write(model.path(dir.path()), b"half").unwrap();
        model.write(dir.path()).unwrap();
        assert_eq!(std::fs::read(model.path(dir.path())).unwrap(), model.bytes);
    }

    #[test]
    fn the_demo_asks_are_admissible() {
        for model in DEMO_MODELS {
            assert!(model.price.is_admissible_ask(&model.price));
        }
    }
}
