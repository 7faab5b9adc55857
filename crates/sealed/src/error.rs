//! Why something is not sealed or not opened.

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealedError {
    /// The message ends early. Of a stream: it was cut, its end is missing.
    #[error("{what} ends early")]
    Truncated {
        /// Which part.
        what: &'static str,
    },
    /// More bytes than accepted.
    #[error("{what} has {got} bytes, at most {limit} are accepted")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Most bytes accepted.
        limit: usize,
        /// Found.
        got: usize,
    },
    /// The form is broken.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// Broken rule.
        why: &'static str,
    },
    /// An algorithm that is not offered.
    #[error("{what} is {got:#06x}, expected {expected}")]
    Algorithm {
        /// Which algorithm.
        what: &'static str,
        /// What is offered.
        expected: &'static str,
        /// Identifier found (RFC 9180, section 7).
        got: u16,
    },
    /// A key identifier that belongs to no key. The client must fetch the current keys.
    #[error("no key has the identifier {got}; fetch the current keys")]
    UnknownKey {
        /// Identifier found.
        got: u8,
    },
    /// A public key that gives no shared secret.
    #[error("the public key gives no shared secret")]
    BadKey,
    /// The authentication failed: changed, for another key or under another binding. Of a stream: also moved, repeated
    /// or left out.
    #[error("{what} does not authenticate: it is altered, out of its place or sealed under other keys")]
    Forged {
        /// Which part.
        what: &'static str,
    },
    /// Use after an end or an error.
    #[error("{what} has already ended")]
    Ended {
        /// What.
        what: &'static str,
    },
    /// A counter is used up; no real stream gets there.
    #[error("the key has sealed all the messages it may")]
    Exhausted,
}
