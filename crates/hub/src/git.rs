//! Git object ids (SHA-1), without git: blobs, LFS pointers, trees and commits hash to what git itself would compute, so a
//! revision's 40-digit id commits to every byte, name and ancestor. Nothing is trusted because of a SHA-1 alone: content is
//! stored and compared by SHA-256.
//!
//! Source: "Git Internals – Git Objects" of the Git book; git-lfs `docs/spec.md` for pointers.

use sha1::{Digest, Sha1};

/// A git object id.
pub type Oid = [u8; 20];

/// Id of an object of a type and content.
#[must_use]
pub fn object(kind: &str, body: &[u8]) -> Oid {
    let header = format!("{kind} {}\0", body.len());
    Sha1::new().chain_update(header).chain_update(body).finalize().into()
}

/// The pointer file that stands for a large file in a git tree.
#[must_use]
pub fn lfs_pointer(sha256: &[u8; 32], size: u64) -> String {
    format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {size}\n",
        hex::encode(sha256)
    )
}

/// One entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// Name without slashes.
    pub name: &'a str,
    /// A directory, else a regular file. There are no symbolic links and no executables.
    pub directory: bool,
    /// The id of the blob or tree.
    pub oid: Oid,
}

/// Id of a tree. The order of `entries` does not matter.
#[must_use]
pub fn tree(entries: &[TreeEntry<'_>]) -> Oid {
    // Git compares directories as if their name ended in a slash.
    let key = |entry: &TreeEntry<'_>| {
        let mut key = entry.name.as_bytes().to_vec();
        if entry.directory {
            key.push(b'/');
        }
        key
    };
    let mut sorted: Vec<_> = entries.iter().map(|entry| (key(entry), entry)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut body = Vec::new();
    for (_, entry) in sorted {
        body.extend_from_slice(if entry.directory { b"40000 " } else { b"100644 " });
        body.extend_from_slice(entry.name.as_bytes());
        body.push(0);
        body.extend_from_slice(&entry.oid);
    }
    object("tree", &body)
}

/// Id of a commit. `author` is one word (an address or name), `time` Unix seconds.
#[must_use]
pub fn commit(tree: &Oid, parent: Option<&str>, author: &str, time: i64, message: &str) -> String {
    let mut body = format!("tree {}\n", hex::encode(tree));
    if let Some(parent) = parent {
        body.push_str(&format!("parent {parent}\n"));
    }
    for role in ["author", "committer"] {
        body.push_str(&format!("{role} {author} <{author}@hub> {time} +0000\n"));
    }
    body.push('\n');
    body.push_str(message);
    hex::encode(object("commit", body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path, process::Command};

    fn git(dir: &Path, args: &[&str]) -> String {
        let out = Command::new("git")
            .current_dir(dir)
            .args(args)
            .env("GIT_AUTHOR_NAME", "0xaa")
            .env("GIT_AUTHOR_EMAIL", "0xaa@hub")
            .env("GIT_COMMITTER_NAME", "0xaa")
            .env("GIT_COMMITTER_EMAIL", "0xaa@hub")
            .env("GIT_AUTHOR_DATE", "1790000000 +0000")
            .env("GIT_COMMITTER_DATE", "1790000000 +0000")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// Against git itself.
    #[test]
    fn ids_are_those_of_git() {
        if Command::new("git").arg("--version").output().is_err() {
            println!("SKIPPED: git is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        git(at, &["init", "-q"]);
        fs::create_dir(at.join("a")).unwrap();
        // `a.b` sorts before the directory `a` (as `a/`), and after a file called `a` would.
        for (path, content) in [("a/x", "1"), ("a.b", "2"), ("a0", "3"), ("README.md", "# hi\n")] {
            fs::write(at.join(path), content).unwrap();
        }
        git(at, &["add", "-A"]);
        git(at, &["commit", "-q", "-m", "first\n\nbody"]);
        let blob = |content: &str| object("blob", content.as_bytes());
        let file = |name, content| TreeEntry {
            name,
            directory: false,
            oid: blob(content),
        };
        let sub = tree(&[file("x", "1")]);
        let root = tree(&[
            TreeEntry {
                name: "a",
                directory: true,
                oid: sub,
            },
            file("a0", "3"),
            file("a.b", "2"),
            file("README.md", "# hi\n"),
        ]);
        assert_eq!(hex::encode(root), git(at, &["rev-parse", "HEAD^{tree}"]));
        let first = commit(&root, None, "0xaa", 1_790_000_000, "first\n\nbody\n");
        assert_eq!(first, git(at, &["rev-parse", "HEAD"]));
        git(at, &["commit", "-q", "--allow-empty", "-m", "second"]);
        assert_eq!(
            commit(&root, Some(&first), "0xaa", 1_790_000_000, "second\n"),
            git(at, &["rev-parse", "HEAD"])
        );
    }
}
