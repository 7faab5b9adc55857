//! Points that a client has verified, and how old a point may be (D12).
//!
//! Whoever once had a quorum of an old set can sell its keys after its stake is gone, and sign another past with them. So a chain of
//! hand-overs is worth as much as the newest point from which the client trusts it for another reason: the genesis it was given, a
//! checkpoint it was given, or one that it has verified before. If that point is older than the unbonding period, the client must say so
//! (weak subjectivity).

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

/// Most epochs that a [`CheckpointBook`] remembers.
pub const MAX_REMEMBERED: usize = 4_096;

/// Where an epoch began: the last block of the one before, and the set that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The epoch, 1 or later.
    pub epoch: u64,
    /// Height of the block.
    pub height: u64,
    /// EVM hash of the block.
    pub hash: B256,
    /// Timestamp of the block, Unix seconds.
    pub timestamp: u64,
    /// Hash of the epoch's seats.
    pub set_hash: B256,
}

/// Why verified points are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The book is of another network.
    #[error("the kept checkpoints are of the network with genesis {got}, expected {expected}")]
    Genesis {
        /// Genesis of the file.
        expected: B256,
        /// Genesis of the book.
        got: B256,
    },
    /// Two histories: one of them was signed by validators who broke the rules.
    #[error(
        "epoch {epoch} began at block {kept} when it was verified before, and at block {got} in this file: one of two histories is forged"
    )]
    Conflict {
        /// The epoch.
        epoch: u64,
        /// Block kept.
        kept: B256,
        /// Block shown.
        got: B256,
    },
    /// More points than are ever kept.
    #[error("{got} checkpoints, at most {MAX_REMEMBERED} are kept")]
    TooMany {
        /// Points given.
        got: usize,
    },
    /// The points are not of consecutive epochs.
    #[error("checkpoints must be of consecutive epochs, got {got} after {before}")]
    Order {
        /// An epoch.
        before: u64,
        /// The one after it.
        got: u64,
    },
}

/// What a client has verified of one network, kept between runs. It never forgets its newest point for an older one, and never
/// takes a second history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointBook {
    genesis: B256,
    /// By epoch, ascending.
    points: Vec<Checkpoint>,
}

impl CheckpointBook {
    /// An empty book.
    #[must_use]
    pub const fn new(genesis: B256) -> Self {
        Self {
            genesis,
            points: Vec::new(),
        }
    }

    /// Genesis of the network.
    #[must_use]
    pub const fn genesis(&self) -> B256 {
        self.genesis
    }

    /// Checks a book that was read from somewhere: of this network, its epochs rising, no more than are ever kept.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn validate(&self, genesis: B256) -> Result<(), CheckpointError> {
        self.check(genesis, &[])?;
        if self.points.len() > MAX_REMEMBERED {
            let got = self.points.len();
            return Err(CheckpointError::TooMany { got });
        }
        let mut before = 0;
        for point in &self.points {
            if point.epoch <= before {
                let got = point.epoch;
                return Err(CheckpointError::Order { before, got });
            }
            before = point.epoch;
        }
        Ok(())
    }

    /// The newest point; it only ever moves forward.
    #[must_use]
    pub fn newest(&self) -> Option<&Checkpoint> {
        self.points.last()
    }

    /// The point of an epoch, if it is remembered.
    #[must_use]
    pub fn get(&self, epoch: u64) -> Option<&Checkpoint> {
        let at = self.points.binary_search_by_key(&epoch, |point| point.epoch).ok()?;
        self.points.get(at)
    }

    /// Checks verified points against what is known. A file that ends before the newest point is no contradiction; one
    /// that shows another block for a known epoch is.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn check(&self, genesis: B256, points: &[Checkpoint]) -> Result<(), CheckpointError> {
        if self.genesis != genesis {
            let (expected, got) = (genesis, self.genesis);
            return Err(CheckpointError::Genesis { expected, got });
        }
        let mut before: Option<u64> = None;
        for point in points {
            if let Some(before) = before
                && before.checked_add(1) != Some(point.epoch)
            {
                let got = point.epoch;
                return Err(CheckpointError::Order { before, got });
            }
            before = Some(point.epoch);
            if let Some(kept) = self.get(point.epoch)
                && kept != point
            {
                let (epoch, kept, got) = (point.epoch, kept.hash, point.hash);
                return Err(CheckpointError::Conflict { epoch, kept, got });
            }
        }
        Ok(())
    }

    /// Takes verified points. Only newer ones than all that are known are added; the oldest go when there are too many.
    ///
    /// # Errors
    /// [`CheckpointError`], and then nothing changes.
    pub fn merge(&mut self, genesis: B256, points: &[Checkpoint]) -> Result<(), CheckpointError> {
        self.check(genesis, points)?;
        let newest = self.newest().map_or(0, |point| point.epoch);
        self.points.extend(points.iter().filter(|point| point.epoch > newest));
        let excess = self.points.len().saturating_sub(MAX_REMEMBERED);
        self.points.drain(..excess);
        Ok(())
    }
}

/// A point that is trusted for another reason than the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// What it is: `genesis`, `checkpoint`, `kept checkpoint`.
    pub what: &'static str,
    /// First epoch that rests on it.
    pub epoch: u64,
    /// Its timestamp, Unix seconds.
    pub timestamp: u64,
}

/// The newest of the anchors on which everything rests that was used from epoch `oldest_used` on: a point cannot vouch for what came
/// before it. The genesis vouches for everything.
#[must_use]
pub fn newest_anchor(genesis_timestamp: u64, anchors: &[Anchor], oldest_used: u64) -> Anchor {
    let genesis = Anchor {
        what: "genesis",
        epoch: 0,
        timestamp: genesis_timestamp,
    };
    let usable = anchors.iter().copied().filter(|anchor| anchor.epoch <= oldest_used);
    usable
        .chain([genesis])
        .max_by_key(|anchor| anchor.timestamp)
        .unwrap_or(genesis)
}

/// Age of an anchor in seconds, and whether it is at most the unbonding period.
#[must_use]
pub const fn age(anchor: &Anchor, now: u64, unbonding: u64) -> (u64, bool) {
    let age = now.saturating_sub(anchor.timestamp);
    (age, age <= unbonding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(epoch: u64, hash: u8) -> Checkpoint {
        Checkpoint {
            epoch,
            height: epoch * 10 - 1,
            hash: B256::repeat_byte(hash),
            timestamp: epoch * 1_000,
            set_hash: B256::repeat_byte(9),
        }
    }

    const GENESIS: B256 = B256::repeat_byte(7);

    #[test]
    fn the_newest_point_never_goes_back() {
        let mut book = CheckpointBook::new(GENESIS);
        assert_eq!(book.newest(), None);
        book.merge(GENESIS, &[point(1, 1), point(2, 2), point(3, 3)]).unwrap();
        // a shorter history changes nothing
        book.merge(GENESIS, &[point(1, 1)]).unwrap();
        book.merge(GENESIS, &[]).unwrap();
        assert_eq!(book.newest(), Some(&point(3, 3)));
        book.merge(GENESIS, &[point(3, 3), point(4, 4)]).unwrap();
        assert_eq!(book.newest(), Some(&point(4, 4)));
        assert_eq!(book.get(2), Some(&point(2, 2)));
        // another history is refused whole, however long it is
        let before = book.clone();
        let forged: Vec<_> = (1..20)
            .map(|epoch| point(epoch, if epoch < 4 { epoch as u8 } else { 99 }))
            .collect();
        let conflict = CheckpointError::Conflict {
            epoch: 4,
            kept: B256::repeat_byte(4),
            got: B256::repeat_byte(99),
        };
        assert_eq!(book.merge(GENESIS, &forged), Err(conflict));
        let other_set = Checkpoint {
            set_hash: B256::ZERO,
            ..point(4, 4)
        };
        assert!(matches!(
            book.merge(GENESIS, &[other_set]),
            Err(CheckpointError::Conflict { epoch: 4, .. })
        ));
        let gap = book.merge(GENESIS, &[point(5, 5), point(7, 7)]);
        assert_eq!(gap, Err(CheckpointError::Order { before: 5, got: 7 }));
        assert!(matches!(
            book.merge(B256::ZERO, &[]),
            Err(CheckpointError::Genesis { .. })
        ));
        assert_eq!(book, before);
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = CheckpointBook::new(GENESIS);
        let long: Vec<_> = (1..=MAX_REMEMBERED as u64 + 5).map(|epoch| point(epoch, 1)).collect();
        book.merge(GENESIS, &long).unwrap();
        assert_eq!(
            (book.points.len(), book.get(5), book.get(6)),
            (MAX_REMEMBERED, None, Some(&point(6, 1)))
        );
    }

    #[test]
    fn a_book_that_was_tampered_with_is_refused() {
        let mut book = CheckpointBook::new(GENESIS);
        book.merge(GENESIS, &[point(1, 1), point(2, 2), point(3, 3)]).unwrap();
        assert_eq!(book.validate(GENESIS), Ok(()));
        assert!(matches!(
            book.validate(B256::ZERO),
            Err(CheckpointError::Genesis { .. })
        ));
        let swapped = CheckpointBook {
            genesis: GENESIS,
            points: vec![point(2, 2), point(1, 1)],
        };
        assert_eq!(
            swapped.validate(GENESIS),
            Err(CheckpointError::Order { before: 2, got: 1 })
        );
        let zero = CheckpointBook {
            genesis: GENESIS,
            points: vec![Checkpoint {
                epoch: 0,
                ..point(1, 1)
            }],
        };
        assert!(zero.validate(GENESIS).is_err());
        let long = CheckpointBook {
            genesis: GENESIS,
            points: (1..=MAX_REMEMBERED as u64 + 1).map(|epoch| point(epoch, 1)).collect(),
        };
        assert!(matches!(long.validate(GENESIS), Err(CheckpointError::TooMany { .. })));
    }

    #[test]
    fn an_anchor_vouches_only_for_what_follows_it() {
        let given = Anchor {
            what: "checkpoint",
            epoch: 5,
            timestamp: 5_000,
        };
        assert_eq!(newest_anchor(100, &[given], 5).what, "checkpoint");
        assert_eq!(newest_anchor(100, &[given], 4).what, "genesis");
        assert_eq!(newest_anchor(100, &[], 9).timestamp, 100);
        let kept = Anchor {
            what: "kept checkpoint",
            epoch: 3,
            timestamp: 3_000,
        };
        assert_eq!(newest_anchor(100, &[kept, given], 9), given);
        assert_eq!(newest_anchor(100, &[kept, given], 4), kept);
        assert_eq!(age(&kept, 3_010, 10), (10, true));
        assert_eq!(age(&kept, 3_011, 10), (11, false));
        assert_eq!(age(&kept, 0, 0), (0, true));
    }
}
