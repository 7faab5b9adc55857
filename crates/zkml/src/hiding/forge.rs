//! What tests of the verifier's checks let the prover do wrong. In every other build the prover does nothing wrong.

/// One wrong step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    /// Another root of the proof's own commitment.
    Root,
    /// Another wire in the commitment than in the messages.
    Wire,
    /// A nonce that is no proof of work.
    Nonce,
    /// A difference that makes the product come out that is expected.
    Difference,
    /// A wrong product of wires, and claims that are wrong by as much.
    Triple,
}

/// The wrong step of a run: none, except in tests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Forge {
    #[cfg(test)]
    pub(crate) trick: Option<Trick>,
}

impl Forge {
    #[cfg(test)]
    pub(crate) fn does(self, trick: Trick) -> bool {
        self.trick == Some(trick)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    pub(crate) const fn does(self, _: Trick) -> bool {
        false
    }
}
