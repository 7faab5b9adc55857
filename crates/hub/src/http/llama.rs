//! What llama.cpp's `-hf OWNER/NAME[:TAG]` asks for beyond the routes that everybody uses.
//!
//! Since 2026 it lists branches and files itself, and downloads by commit. Before, it asked
//! `GET /v2/OWNER/NAME/manifests/TAG` which file to load (`common_get_hf_file`), and took it from `main`.

use super::Ctx;
use crate::{
    db::history,
    error::{Answer, ApiError},
    state::Want,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::{Value, json};

/// What llama.cpp asks for if no tag is named.
pub(crate) const ANY: &str = "latest";
/// What is taken then, if it is there.
const USUAL: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// Parts of names of files that go with a model and are none.
const COMPANIONS: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];

/// Whether a path is a model, or the first part of one.
fn is_model(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some(stem) = name.strip_suffix(".gguf") else {
        return false;
    };
    // NAME-00002-of-00003.gguf
    let part = stem.len().checked_sub(15).and_then(|at| stem.get(at..));
    let later = part.is_some_and(|part| {
        let number = |from: usize, to: usize| part.get(from..to).and_then(|digits| digits.parse::<u32>().ok());
        part.starts_with('-')
            && part.get(6..10) == Some("-of-")
            && number(10, 15).is_some()
            && number(1, 6).is_some_and(|part| part > 1)
    });
    !later && !COMPANIONS.iter().any(|word| name.contains(word))
}

/// Whether a path has a tag, in any case, before a point or hyphen.
fn has_tag(path: &str, tag: &str) -> bool {
    let (path, tag) = (path.to_ascii_lowercase(), tag.to_ascii_lowercase());
    path.match_indices(&tag).any(|(at, _)| {
        path.get(at + tag.len()..)
            .is_some_and(|rest| rest.starts_with(['.', '-']))
    })
}

/// The file that a tag means, by llama.cpp's own rule: the first with the tag; without one a usual quantization, or the first.
pub(crate) fn choose<'a>(paths: &[&'a str], tag: &str) -> Option<&'a str> {
    let models = || paths.iter().copied().filter(|path| is_model(path));
    if tag != ANY {
        return models().find(|path| has_tag(path, tag));
    }
    let usual = USUAL.iter().find_map(|tag| models().find(|path| has_tag(path, tag)));
    usual.or_else(|| models().next())
}

/// Which file of `main` to load.
pub(super) async fn manifest(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, tag)): Path<(String, String, String)>,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    let commit = hub.revision(&repo, "main").await?;
    let tree = commit.tree;
    let files = hub.db.read(move |db| history::files(db, &tree)).await?;
    let paths: Vec<&str> = files.keys().map(String::as_str).collect();
    let file = choose(&paths, if tag.is_empty() { ANY } else { &tag }).ok_or_else(|| {
        let message = format!("no GGUF file of {owner}/{name} has the tag {tag:?}");
        ApiError::new(StatusCode::NOT_FOUND, "EntryNotFound", message).param("tag")
    })?;
    let describe = |path: &str| {
        files
            .get(path)
            .map(|file| json!({"rfilename": path, "blobId": hex::encode(file.oid()), "size": file.blob.size,
                "lfs": {"sha256": hex::encode(file.blob.sha256), "size": file.blob.size, "pointerSize": file.pointer().len()}}))
    };
    let projector = paths.iter().copied().find(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.contains("mmproj") && name.ends_with(".gguf")
    });
    let named = [("ggufFile", Some(file)), ("mmprojFile", projector)];
    let named = named
        .into_iter()
        .filter_map(|(key, path)| Some((key.to_owned(), describe(path?)?)));
    Ok(Json(Value::Object(named.collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_means_the_file_that_llama_cpp_means() {
        let paths = [
            "README.md",
            "a-F16-00001-of-00002.gguf",
            "a-F16-00002-of-00002.gguf",
            "a-q8_0.gguf",
            "mmproj-a-Q4_K_M.gguf",
            "q/a-Q4_K_M.gguf",
            "x-IQ4_K.gguf",
        ];
        for (tag, file) in [
            ("latest", Some("q/a-Q4_K_M.gguf")),
            ("Q8_0", Some("a-q8_0.gguf")),
            ("f16", Some("a-F16-00001-of-00002.gguf")),
            ("Q4_K", Some("x-IQ4_K.gguf")),
            ("Q2_K", None),
            ("a-q8_0.gguf", None),
        ] {
            assert_eq!(choose(&paths, tag), file, "{tag}");
        }
        assert_eq!(choose(&["b.gguf", "a-Q8_0.gguf"], "latest"), Some("a-Q8_0.gguf"));
        assert_eq!(choose(&["imatrix.gguf", "b.gguf"], "latest"), Some("b.gguf"));
        assert_eq!(choose(&["b.bin"], "latest"), None);
        // Names that only look like parts.
        for path in ["-of-.gguf", "é-00002-of-0000x.gguf", "00002-of-00003.gguf"] {
            assert!(is_model(path), "{path}");
        }
    }
}
