//! Names from outside: repositories, revisions and paths. What is accepted here cannot leave a directory, hide in a
//! terminal, or name two things.

use std::fmt;
use unicode_normalization::is_nfc;

/// Longest owner or repository name, in bytes.
pub const NAME_LIMIT: usize = 96;
/// Longest path of a file, in bytes.
pub const PATH_LIMIT: usize = 1_024;
/// Longest component of a path, in bytes: what file systems take.
pub const COMPONENT_LIMIT: usize = 255;
/// Most components of a path.
pub const DEPTH_LIMIT: usize = 32;
/// Longest name of a branch or tag, in bytes.
pub const REF_LIMIT: usize = 255;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {got:?} is not accepted: {reason}")]
pub struct NameError {
    /// What kind of name it is.
    pub what: &'static str,
    /// The name, cut to a bounded length.
    pub got: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

fn refuse(what: &'static str, got: &str, reason: &'static str) -> NameError {
    let got = got.chars().take(80).collect();
    NameError { what, got, reason }
}

/// What a repository holds. The kinds have separate name spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl RepoKind {
    /// Word of the API's `type` field and of the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }

    /// Prefix of the paths outside `/api`.
    #[must_use]
    pub const fn url_prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }

    /// The kind of an API word; absent means model.
    ///
    /// # Errors
    /// [`NameError`] for every other word, `space` included: the hub runs no applications.
    pub fn parse(text: Option<&str>) -> Result<Self, NameError> {
        match text {
            None | Some("model") => Ok(Self::Model),
            Some("dataset") => Ok(Self::Dataset),
            Some(other) => Err(refuse("repository type", other, "expected model or dataset")),
        }
    }
}

/// `owner/name` of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepoName {
    /// Name space: a wallet address in lower case, or a claimed name.
    pub owner: String,
    /// Name within it.
    pub name: String,
}

impl RepoName {
    /// Checks both parts.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(owner: &str, name: &str) -> Result<Self, NameError> {
        check_name("owner", owner)?;
        check_name("repository name", name)?;
        if name.ends_with(".git") {
            return Err(refuse("repository name", name, "must not end in .git"));
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Reads `owner/name`.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (owner, name) = text
            .split_once('/')
            .ok_or_else(|| refuse("repository", text, "expected owner/name"))?;
        Self::new(owner, name)
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Checks an owner's or a repository's name: the rules of `huggingface_hub`, so that each accepted name can be used there.
///
/// # Errors
/// [`NameError`].
pub fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > NAME_LIMIT {
        return Err(refuse(what, name, "must have 1 to 96 characters"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(refuse(
            what,
            name,
            "may only have ASCII letters, digits, '.', '_' and '-'",
        ));
    }
    if name.contains("--") || name.contains("..") {
        return Err(refuse(what, name, "must not contain \"--\" or \"..\""));
    }
    if name.starts_with(['.', '-']) || name.ends_with(['.', '-']) {
        return Err(refuse(what, name, "must not start or end with '.' or '-'"));
    }
    Ok(())
}

/// First path components that are the hub's own, and therefore no owner.
const RESERVED: [&str; 16] = [
    "api", "assets", "datasets", "docs", "health", "lfs", "metrics", "models", "new", "search", "settings", "spaces",
    "static", "v1", "v2", "xet",
];

/// Checks a name that an account wants to claim as its name space. Lower case only, so that two owners never differ in
/// case; not in the shape of an address; not a path of the hub.
///
/// # Errors
/// [`NameError`].
pub fn check_claim(name: &str) -> Result<(), NameError> {
    check_name("name", name)?;
    if name.len() < 2 || name.len() > 42 {
        return Err(refuse("name", name, "must have 2 to 42 characters"));
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(refuse("name", name, "must be lower case"));
    }
    if name.starts_with("0x") {
        return Err(refuse("name", name, "must not look like an address"));
    }
    if RESERVED.contains(&name) {
        return Err(refuse("name", name, "is reserved"));
    }
    Ok(())
}

/// True for characters that a reader cannot see or that change the order in which others are shown: controls, zero-width
/// characters, bidirectional marks (the "Trojan Source" set), separators, private use, unassigned specials, tags and
/// variation selectors.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00AD | 0x034F | 0x061C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
            | 0x2028..=0x202E | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xD800..=0xF8FF | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
            | 0xFFF0..=0xFFFF | 0x1D173..=0x1D17A | 0xE0000..=0x10_FFFF)
        || (c.is_whitespace() && c != ' ')
}

/// Checks the path of a file.
///
/// # Errors
/// [`NameError`] with the first rule broken.
pub fn check_path(path: &str) -> Result<(), NameError> {
    let no = |reason| Err(refuse("path", path, reason));
    if path.is_empty() || path.len() > PATH_LIMIT {
        return no("must have 1 to 1024 bytes");
    }
    if path.chars().any(hidden) {
        return no("has a control, zero-width or bidirectional character");
    }
    if path.contains(['\\', ':', '*', '?', '"', '<', '>', '|']) {
        return no("has a character that some file systems refuse: one of \\ : * ? \" < > |");
    }
    if !is_nfc(path) {
        return no("is not in Unicode normalisation form C");
    }
    if path.split('/').count() > DEPTH_LIMIT {
        return no("has more than 32 components");
    }
    for component in path.split('/') {
        if component.is_empty() {
            return no("has an empty component or is absolute");
        }
        if component == "." || component == ".." {
            return no("has a component \".\" or \"..\"");
        }
        if component.len() > COMPONENT_LIMIT {
            return no("has a component of more than 255 bytes");
        }
        if component.eq_ignore_ascii_case(".git") {
            return no("has a component \".git\"");
        }
        if component.ends_with(['.', ' ']) || component.starts_with(' ') {
            return no("has a component that starts with a space, or ends with a space or dot");
        }
    }
    Ok(())
}

/// Checks the name of a branch or tag: the rules of `git check-ref-format`, no commit id, ASCII.
///
/// # Errors
/// [`NameError`].
pub fn check_ref(what: &'static str, name: &str) -> Result<(), NameError> {
    let no = |reason| Err(refuse(what, name, reason));
    if name.is_empty() || name.len() > REF_LIMIT {
        return no("must have 1 to 255 characters");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-/+@=,".contains(&b))
    {
        return no("may only have ASCII letters, digits and . _ - / + @ = ,");
    }
    if name.starts_with("refs/") {
        return no("must not start with refs/");
    }
    if name.contains("..") || name.contains("@{") || name.contains("//") {
        return no("must not contain \"..\", \"@{\" or \"//\"");
    }
    if name == "@" || name.starts_with(['-', '/', '.']) || name.ends_with(['/', '.']) {
        return no("must not be \"@\", start with '-', '/' or '.', or end with '/' or '.'");
    }
    if name
        .split('/')
        .any(|part| part.starts_with('.') || part.ends_with(".lock"))
    {
        return no("has a component that starts with '.' or ends with .lock");
    }
    if is_oid(name) {
        return no("looks like a commit id");
    }
    Ok(())
}

/// True for 40 lower-case hexadecimal digits.
#[must_use]
pub fn is_oid(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted() {
        for path in [
            "README.md",
            ".gitattributes",
            "a/b c/ü.bin",
            "model-00001-of-00002.safetensors",
            "日本/語.txt",
        ] {
            check_path(path).unwrap();
        }
        for name in ["main", "v1.0", "feature/x", "release-2026+1"] {
            check_ref("branch", name).unwrap();
        }
        RepoName::parse("0x00000000000000000000000000000000000000aa/tiny-llama_1.0").unwrap();
    }

    #[test]
    fn hostile_paths_are_refused() {
        let long = "a".repeat(256);
        let deep = "a/".repeat(33) + "a";
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\\..\\b",
            "C:x",
            "a\0b",
            "a\nb",
            ".git/config",
            "a/.GIT/hooks/x",
            "model\u{202E}xtx.bin",
            "a\u{200B}b",
            "a\u{FEFF}",
            "e\u{301}.txt",
            "a ",
            "a.",
            " a",
            "a\u{2028}b",
            "\u{E0041}",
            "a\u{a0}b",
            &long,
            &deep,
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in [
            "x", "a/b/c", "a/", "/b", "a/..", "a/.b", "a/b--c", "a/b.git", "ä/b", "a/b c", "a/b%2e",
        ] {
            assert!(RepoName::parse(name).is_err(), "{name}");
        }
        for name in [
            "",
            "a..b",
            "-x",
            "refs/heads/x",
            "a b",
            "x.lock",
            "a~1",
            "x^",
            "@{",
            &"a".repeat(40),
        ] {
            assert!(check_ref("branch", name).is_err(), "{name}");
        }
        for name in ["API", "api", "0xabc", "a", "x..y"] {
            assert!(check_claim(name).is_err(), "{name}");
        }
    }
}
