//! Why there is no evidence.

use opg_evidence::Reject;
use std::{io, path::PathBuf};

/// Why there is no evidence. None of these is answered by using another attester.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// `auto` found nothing.
    #[error(
        "this machine offers no attestation: neither {nsm} nor {tsm} is there; start it inside an enclave or a confidential \
         machine, or name `software` on a development network", nsm = nsm.display(), tsm = tsm.display()
    )]
    NoHardware {
        /// Where the Nitro device would be.
        nsm: PathBuf,
        /// Where the kernel's report interface would be.
        tsm: PathBuf,
    },
    /// Another attester was named than the machine has.
    #[error("the attester {asked} was asked for and this machine has {found}")]
    OtherHardware {
        /// Named.
        asked: &'static str,
        /// Found.
        found: String,
    },
    /// `software` was named and none was set up.
    #[error("the attester `software` needs a development network's seed")]
    NoSoftware,
    /// The kernel's report interface is served by something that this release does not know.
    #[error("the report interface at {path} is served by {got:?}, expected tdx_guest or sev_guest", path = path.display())]
    UnknownProvider {
        /// The interface.
        path: PathBuf,
        /// Its word.
        got: String,
    },
    /// A file of an interface cannot be used.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Somebody else wrote to the report entry between question and answer, every time.
    #[error("the report entry at {path} was changed by another writer {tries} times in a row", path = path.display())]
    Contended {
        /// The interface.
        path: PathBuf,
        /// How often it was tried.
        tries: u32,
    },
    /// An answer is larger than any real one.
    #[error("{what} has more than {limit} bytes")]
    TooLong {
        /// Which answer.
        what: &'static str,
        /// Most bytes accepted.
        limit: usize,
    },
    /// The Nitro security module refused or answered something else.
    #[error("the Nitro security module answers {answer}")]
    Nsm {
        /// Its error word, or what is wrong with the answer.
        answer: String,
    },
    /// The document is not one of its kind.
    #[error("the attester's document is refused: {0}")]
    Document(#[from] Reject),
    /// The document binds something else than asked for.
    #[error("the attester's document does not bind what was asked for")]
    Unbound,
    /// The software attester cannot make its keys.
    #[error("the software attester: {why}")]
    Software {
        /// Its words.
        why: String,
    },
}

impl AttestError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
