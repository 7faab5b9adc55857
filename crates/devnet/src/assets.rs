//! The demo models that every local network serves, inside the binary so that it works from anywhere.
//!
//! They were made for this project; `testing/fixtures` has their provenance.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use alloy_primitives::B256;
use opg_integer_program::{error::ProgramError, program::Program};
use opg_models::{Format, Manifest, ManifestError, ManifestVersion, ModelRoot};
use opg_primitives::money::{Amount, Price};
use opg_zkml::{ParameterSet, PlanError, RegisteredModel};

/// Share of the model's creator in what a call costs, in basis points.
pub const DEMO_ROYALTY_BPS: u16 = 1_000;

/// A model that a local network serves from its first block.
#[derive(Debug, Clone, Copy)]
pub struct DemoModel {
    /// Name in the registry.
    pub name: &'static str,
    /// How its bytes are read.
    pub format: Format,
    /// What it does and where it comes from, for its card.
    pub about: &'static str,
    /// The file itself.
    pub bytes: &'static [u8],
    /// Reference price and the demo node's ask.
    pub price: Price,
    /// Its exact integer program, if answers can be proven.
    pub program: Option<DemoProgram>,
}

/// The exact integer program of a demo model.
#[derive(Debug, Clone, Copy)]
pub struct DemoProgram {
    /// The canonical program, as `opg zk compile` writes it.
    pub bytes: &'static [u8],
    /// How its results compare with the model's, as JSON.
    pub report: &'static str,
}

/// File of a program in the folder of its model.
const PROGRAM_FILE: &str = "model.program";

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
        about: "Reads handwritten digits, 8 by 8 grey levels: a small neural network. Its exact integer program lies beside it, so answers can be proven.",
        bytes: include_bytes!("../../../testing/fixtures/digits/digits_mlp.onnx"),
        price: PER_CALL,
        program: Some(DemoProgram {
            bytes: include_bytes!("../../../testing/fixtures/digits/digits_mlp.program"),
            report: include_str!("../../../testing/fixtures/digits/digits_mlp.report.json"),
        }),
    },
    DemoModel {
        name: "demo/digits-logreg",
        format: Format::Onnx,
        about: "Reads handwritten digits, 8 by 8 grey levels: logistic regression.",
        bytes: include_bytes!("../../../testing/fixtures/digits/logreg.onnx"),
        price: PER_CALL,
        program: None,
    },
    DemoModel {
        name: "demo/digits-gbc",
        format: Format::Onnx,
        about: "Reads handwritten digits, 8 by 8 grey levels: gradient-boosted trees.",
        bytes: include_bytes!("../../../testing/fixtures/digits/gbc.onnx"),
        price: PER_CALL,
        program: None,
    },
    DemoModel {
        name: "demo/tiny-llama",
        format: Format::Gguf,
        about: "A very small language model that writes licence-like English. For trying things out, not for its answers.",
        bytes: include_bytes!("../../../testing/fixtures/tiny-llama/trained-Q8_0.gguf"),
        price: PER_TOKEN,
        program: None,
    },
];

impl DemoModel {
    /// Content root, of the newest version.
    ///
    /// # Errors
    /// Never for the models above; the type of the manifest's encoder.
    pub fn root(&self) -> Result<ModelRoot, ManifestError> {
        Manifest::single(ManifestVersion::NEWEST, self.format, self.bytes).root()
    }

    /// Path of its file below `dir`.
    #[must_use]
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.name).join(self.format.canonical_path())
    }

    /// Path of its program below `dir`, if it has one.
    #[must_use]
    pub fn program_path(&self, dir: &Path) -> Option<PathBuf> {
        self.program.map(|_| dir.join(self.name).join(PROGRAM_FILE))
    }

    /// Its model card.
    fn card(&self) -> String {
        let task = match self.format {
            Format::Gguf => "text-generation",
            _ => "tabular-classification",
        };
        format!(
            "---\npipeline_tag: {task}\ntags:\n- demo\n---\n\n# {}\n\n{}\n\nMade for this project's local networks.\n",
            self.name, self.about
        )
    }

    /// Writes its files below `dir` unless files of these sizes are there. The node checks the content against the
    /// roots when it loads the model.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        write(&self.path(dir), self.bytes)?;
        write(&dir.join(self.name).join("README.md"), self.card().as_bytes())?;
        match (self.program_path(dir), self.program) {
            (Some(path), Some(program)) => write(&path, program.bytes),
            _ => Ok(()),
        }
    }
}

impl DemoProgram {
    /// Root that the program is registered under.
    ///
    /// # Errors
    /// [`DemoProgramError`]: never for the programs above.
    pub fn root(&self) -> Result<B256, DemoProgramError> {
        let program = Program::decode(self.bytes)?;
        Ok(RegisteredModel::new(program, ParameterSet::Bits100)?.root().0.into())
    }
}

/// A demo program is damaged.
#[derive(Debug, thiserror::Error)]
pub enum DemoProgramError {
    /// It cannot be read.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Its weights cannot be committed to.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() == bytes.len() as u64) {
        return Ok(());
    }
    let temporary = path.with_extension("part");
    std::fs::File::create(&temporary)?.write_all(bytes)?;
    std::fs::rename(&temporary, path)
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

    /// The committed program and report are what the compiler makes of the committed model today.
    #[test]
    fn programs_are_those_of_the_models() {
        use opg_integer_program::compile::{Options, compile};
        let samples: serde_json::Value =
            serde_json::from_str(include_str!("../../../testing/fixtures/digits/samples.json")).unwrap();
        let rows = samples["inputs"].as_array().unwrap();
        let calibration: Vec<_> = rows.iter().map(|row| serde_json::json!({ "X": [row] })).collect();
        let calibration = serde_json::to_vec(&calibration).unwrap();
        let mut seen = 0;
        for model in DEMO_MODELS {
            let Some(program) = model.program else { continue };
            let compiled = compile(model.bytes, Some(&calibration), &Options::default()).unwrap();
            assert_eq!(compiled.program.encode(), program.bytes, "{}", model.name);
            assert_eq!(serde_json::to_string(&compiled.report).unwrap(), program.report);
            assert!(!program.root().unwrap().is_zero());
            seen += 1;
        }
        assert_eq!(seen, 1);
    }

    #[test]
    fn the_demo_asks_are_admissible() {
        for model in DEMO_MODELS {
            assert!(model.price.is_admissible_ask(&model.price));
        }
    }
}
