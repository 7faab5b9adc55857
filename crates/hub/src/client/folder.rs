//! A folder of this machine as a version of a model: its files with their hashes, and what the hub's readers say about them.

use crate::{
    blobs::{Hasher, describe},
    card, inspect,
    names::check_path,
    tree::Blob,
    validate::{self, FileKind, Look, ModelFormat, Report, kind_of},
};
use opg_models::{Manifest, ModelRoot};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Most files of a version, as hubs take it by default.
const FILES: usize = 100_000;
/// Deepest folder.
const DEPTH: usize = 32;
const PIECE: usize = 1 << 20;
/// The model card.
pub const CARD: &str = "README.md";

/// Why a folder is not a version of a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A name that hubs refuse, or something that is neither file nor folder.
    #[error("{}: {problem}", path.display())]
    Entry {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file was written to while it was read.
    #[error("{} changed while it was read; try again when it is finished", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Nothing is there, or too much.
    #[error("{} has {files} files; a version has 1 to {FILES}", dir.display())]
    Files {
        /// The folder.
        dir: PathBuf,
        /// How many.
        files: usize,
    },
    /// The card's metadata cannot be read, or a value does not fit into it.
    #[error("README.md: {0}")]
    Card(String),
    /// No file, or several, can be the model that is named on chain.
    #[error("{0}")]
    Model(String),
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Disk(PathBuf),
    Memory(Vec<u8>),
}

/// One file of a version.
#[derive(Debug, Clone)]
pub struct LocalFile {
    /// Size and hashes.
    pub blob: Blob,
    /// What the reader of its format says, for model files.
    pub report: Option<Report>,
    /// The network's newest name of it, if it is a servable ONNX or GGUF file.
    pub named: Option<(ModelRoot, Manifest)>,
    pub(super) content: Content,
}

/// A version that is to be uploaded.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Its files by path.
    pub files: BTreeMap<String, LocalFile>,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

impl Folder {
    /// Reads, hashes and checks everything below `dir` but hidden files and folders. Blocks.
    ///
    /// # Errors
    /// [`FolderError`]; a model file that its reader refuses is no error here: it is uploaded, and nobody serves it.
    pub fn read(dir: &Path) -> Result<Self, FolderError> {
        let mut files = BTreeMap::new();
        let mut pending = vec![(dir.to_owned(), String::new(), 0)];
        while let Some((folder, prefix, depth)) = pending.pop() {
            for entry in fs::read_dir(&folder).map_err(at(&folder))? {
                let entry = entry.map_err(at(&folder))?;
                let (path, name) = (entry.path(), entry.file_name());
                let problem = |problem: &str| FolderError::Entry {
                    path: entry.path(),
                    problem: problem.to_owned(),
                };
                let name = name.to_str().ok_or_else(|| problem("its name is not UTF-8"))?;
                if name.starts_with('.') {
                    continue;
                }
                let inside = format!("{prefix}{name}");
                let kind = entry.file_type().map_err(at(&path))?;
                if kind.is_dir() {
                    if depth == DEPTH {
                        return Err(problem("lies too deep"));
                    }
                    pending.push((path, format!("{inside}/"), depth + 1));
                    continue;
                }
                if !kind.is_file() {
                    return Err(problem("symbolic links and special files do not exist at hubs"));
                }
                check_path(&inside).map_err(|error| problem(&error.to_string()))?;
                if files.len() == FILES {
                    return Err(FolderError::Files {
                        dir: dir.into(),
                        files: FILES + 1,
                    });
                }
                files.insert(inside.clone(), local_file(&inside, path)?);
            }
        }
        if files.is_empty() {
            return Err(FolderError::Files {
                dir: dir.into(),
                files: 0,
            });
        }
        Ok(Self { files })
    }

    /// The model that is named on chain: the only servable ONNX or GGUF file, or the one at `path`.
    ///
    /// # Errors
    /// [`FolderError::Model`] with what there is instead.
    pub fn model(&self, path: Option<&str>) -> Result<(&str, ModelRoot, &Manifest), FolderError> {
        let named = self.files.iter().filter_map(|(path, file)| {
            file.named
                .as_ref()
                .map(|(root, manifest)| (path.as_str(), *root, manifest))
        });
        if let Some(wanted) = path {
            let mut named = named;
            return named.find(|(path, ..)| *path == wanted).ok_or_else(|| {
                let report = self.files.get(wanted).map(|file| file.report.as_ref());
                FolderError::Model(match report {
                    None => format!("the folder has no file {wanted:?}"),
                    Some(Some(Report {
                        problem: Some(problem), ..
                    })) => format!("{wanted}: {problem}"),
                    Some(_) => format!("{wanted}: the network runs ONNX and GGUF"),
                })
            });
        }
        let named: Vec<_> = named.collect();
        match named.as_slice() {
            [only] => Ok(*only),
            [] => {
                let refused = self.files.iter().find_map(|(path, file)| {
                    let problem = file.report.as_ref()?.problem.as_ref()?;
                    Some(format!("{path}: {problem}"))
                });
                Err(FolderError::Model(refused.unwrap_or_else(|| {
                    "the folder has no ONNX or GGUF file, which are what the network runs".into()
                })))
            }
            several => {
                let paths: Vec<_> = several.iter().map(|(path, ..)| *path).collect();
                Err(FolderError::Model(format!(
                    "the folder has several models; choose one with --file: {}",
                    paths.join(", ")
                )))
            }
        }
    }

    /// Sets a value of the card's metadata, for this upload only: the folder's README.md stays as it is.
    ///
    /// # Errors
    /// [`FolderError::Card`] if the metadata cannot be read, or has something else than one value there.
    pub fn set_card(&mut self, key: &str, value: &str) -> Result<(), FolderError> {
        let text = self.card()?;
        let text = with_value(&text, key, value)?;
        self.files.insert(
            CARD.to_owned(),
            LocalFile {
                blob: describe(text.as_bytes()),
                report: None,
                named: None,
                content: Content::Memory(text.into_bytes()),
            },
        );
        Ok(())
    }

    /// The text of the card; empty if there is none.
    fn card(&self) -> Result<String, FolderError> {
        match self.files.get(CARD).map(|file| &file.content) {
            None => Ok(String::new()),
            Some(Content::Memory(bytes)) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            Some(Content::Disk(path)) => {
                if fs::metadata(path).map_err(at(path))?.len() > card::CARD_LIMIT as u64 {
                    return Err(FolderError::Card(format!("has more than {} bytes", card::CARD_LIMIT)));
                }
                fs::read_to_string(path).map_err(at(path))
            }
        }
    }

    /// The licence in the card's metadata; `None` if there is none, or the metadata cannot be read.
    #[must_use]
    pub fn license(&self) -> Option<String> {
        let card = self.card().ok()?;
        let yaml = card::read_yaml(card::split(&card).0?).ok()?;
        Some(yaml.get("license")?.as_str()?.to_owned())
    }

    /// Bytes of all files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files
            .values()
            .fold(0, |sum, file| sum.saturating_add(file.blob.size))
    }
}

/// A card with `key: "value"` in its metadata.
pub(super) fn with_value(text: &str, key: &str, value: &str) -> Result<String, FolderError> {
    let no = |problem: String| FolderError::Card(problem);
    if value.len() > 300 || value.chars().any(char::is_control) {
        return Err(no(format!("{key} must be one line of at most 300 bytes")));
    }
    // A JSON text is a YAML text.
    let line = format!("{key}: {}", serde_json::Value::from(value));
    let (yaml, markdown) = card::split(text);
    let Some(yaml) = yaml else {
        return Ok(format!("---\n{line}\n---\n\n{markdown}"));
    };
    let before = card::read_yaml(yaml).map_err(|error| no(error.to_string()))?;
    let mut lines: Vec<&str> = Vec::new();
    let mut replaced = false;
    for old in yaml.lines() {
        if old
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(':'))
        {
            replaced = true;
            lines.push(&line);
        } else {
            lines.push(old);
        }
    }
    if !replaced {
        lines.push(&line);
    }
    let changed = lines.join("\n");
    // Whatever the line was part of, everything else must mean what it meant.
    let mut expected = before;
    expected.insert(key.to_owned(), value.into());
    if card::read_yaml(&changed).ok().as_ref() != Some(&expected) {
        return Err(no(format!("its {key} is not one value; set it there")));
    }
    Ok(format!("---\n{changed}\n---\n{markdown}"))
}

fn local_file(inside: &str, path: PathBuf) -> Result<LocalFile, FolderError> {
    let changed = || FolderError::Changed { path: path.clone() };
    let mut file = File::open(&path).map_err(at(&path))?;
    let size = file.metadata().map_err(at(&path))?.len();
    let mut hasher = Hasher::new(size);
    let mut piece = vec![0; PIECE];
    loop {
        let n = file.read(&mut piece).map_err(at(&path))?;
        let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        hasher.update(bytes).map_err(|_| changed())?;
    }
    let blob = hasher.finish().map_err(|_| changed())?;
    let report = match kind_of(inside) {
        FileKind::Model(format) => Some(report(&path, format, size)?),
        _ => None,
    };
    let named = report
        .as_ref()
        .filter(|report| report.servable)
        .and_then(|report| inspect::name_model(report.format, &blob));
    Ok(LocalFile {
        blob,
        report,
        named,
        content: Content::Disk(path),
    })
}

/// What the hub would say about a file: the same readers over the same bytes.
fn report(path: &Path, format: ModelFormat, size: u64) -> Result<Report, FolderError> {
    let mut need = validate::first_look(format, size);
    loop {
        let mut front = Vec::new();
        File::open(path)
            .and_then(|file| file.take(need).read_to_end(&mut front))
            .map_err(at(path))?;
        let seen = front.len() as u64;
        match validate::look(format, &front, size) {
            Look::Done(report) => return Ok(report),
            Look::More(more) if more > seen => need = more,
            Look::More(_) => return Err(FolderError::Changed { path: path.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_gets_one_value_and_keeps_the_rest() {
        for (card, expected) in [
            ("", "---\nlicense: \"mit\"\n---\n\n"),
            ("# Model\n", "---\nlicense: \"mit\"\n---\n\n# Model\n"),
            (
                "---\ntags:\n- a\n---\n# Model\n",
                "---\ntags:\n- a\nlicense: \"mit\"\n---\n# Model\n",
            ),
            (
                "---\nlicense: other\ntags: [a]\n---\ntext",
                "---\nlicense: \"mit\"\ntags: [a]\n---\ntext",
            ),
        ] {
            let got = with_value(card, "license", "mit").unwrap();
            assert_eq!(got, expected);
            assert_eq!(
                with_value(&got, "license", "mit").unwrap(),
                got,
                "twice changes nothing"
            );
        }
        // A value over several lines, a line of a nested map, metadata that nobody can read, a value of two lines.
        for card in [
            "---\nlicense:\n- a\n- b\n---\n",
            "---\nlicense: |\n  a\n  b\n---\n",
            "---\n{\n---\n",
        ] {
            assert!(with_value(card, "license", "mit").is_err(), "{card}");
        }
        assert!(with_value("", "license", "a\nb").is_err());
        let tricky = with_value("", "deprecated", "use \"v2\": it's # better").unwrap();
        let yaml = card::split(&tricky).0.unwrap();
        assert_eq!(
            card::read_yaml(yaml).unwrap()["deprecated"],
            "use \"v2\": it's # better"
        );
    }

    #[test]
    fn links_are_refused_and_hidden_files_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join(".git/config"), "secret").unwrap();
        let empty = Folder::read(dir.path()).unwrap_err();
        assert!(matches!(empty, FolderError::Files { files: 0, .. }), "{empty}");
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/model.onnx"), "no model").unwrap();
        let folder = Folder::read(dir.path()).unwrap();
        assert_eq!(folder.files.keys().collect::<Vec<_>>(), ["a/model.onnx"]);
        let refused = folder.model(None).unwrap_err();
        assert!(refused.to_string().starts_with("a/model.onnx: "), "{refused}");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(
            Folder::read(dir.path())
                .unwrap_err()
                .to_string()
                .contains("symbolic links")
        );
    }
}
