//! Closed integer intervals: what is proven about every element of a tensor.

/// `lo..=hi`, the set that every element of a tensor is proven to lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// Least value.
    pub lo: i64,
    /// Greatest value.
    pub hi: i64,
}

impl Range {
    /// The interval `lo..=hi`.
    #[must_use]
    pub const fn new(lo: i64, hi: i64) -> Self {
        Self { lo, hi }
    }

    /// One value.
    #[must_use]
    pub const fn point(value: i64) -> Self {
        Self { lo: value, hi: value }
    }

    /// Whether the interval is not empty.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        self.lo <= self.hi
    }

    /// Number of values, saturating.
    #[must_use]
    pub const fn width(self) -> u64 {
        if self.lo > self.hi {
            return 0;
        }
        self.hi.abs_diff(self.lo).saturating_add(1)
    }

    /// Whether `value` lies inside.
    #[must_use]
    pub const fn contains(self, value: i64) -> bool {
        self.lo <= value && value <= self.hi
    }

    /// Whether `other` lies inside.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.lo <= other.lo && other.hi <= self.hi
    }

    /// Greatest absolute value, saturating.
    #[must_use]
    pub const fn magnitude(self) -> i64 {
        let lo = self.lo.saturating_abs();
        let hi = self.hi.saturating_abs();
        if lo > hi { lo } else { hi }
    }

    /// Smallest interval that covers both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self::new(self.lo.min(other.lo), self.hi.max(other.hi))
    }

    /// Sums of one value of each, saturating.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::new(self.lo.saturating_add(other.lo), self.hi.saturating_add(other.hi))
    }

    /// Products of one value of each, saturating.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        let products = [
            self.lo.saturating_mul(other.lo),
            self.lo.saturating_mul(other.hi),
            self.hi.saturating_mul(other.lo),
            self.hi.saturating_mul(other.hi),
        ];
        products.iter().fold(Self::new(i64::MAX, i64::MIN), |range, product| {
            range.hull(Self::point(*product))
        })
    }

    /// Squares of the values, saturating.
    #[must_use]
    pub fn squared(self) -> Self {
        let all = self.times(self);
        let least = if self.contains(0) {
            0
        } else {
            self.lo.saturating_abs().min(self.hi.saturating_abs())
        };
        Self::new(least.saturating_mul(least), all.hi)
    }

    /// Sums of `count` values, saturating.
    #[must_use]
    pub fn repeated(self, count: usize) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Self::new(self.lo.saturating_mul(count), self.hi.saturating_mul(count))
    }

    /// Each value moved into `lo..=hi`.
    #[must_use]
    pub fn clamped(self, lo: i64, hi: i64) -> Self {
        Self::new(self.lo.clamp(lo, hi.max(lo)), self.hi.clamp(lo, hi.max(lo)))
    }
}
