//! What verifying a receipt costs, in the units of a block's verification budget (decisions D14, ledger.md §10).

use opg_primitives::mode::Mode;

/// Cost units of a receipt of this mode: 100 µs of one core each, rounded up from measurements (docs/specs/ledger.md §10). A receipt costs the
/// same whether or not a validator has seen it before, so that all of them agree on what fits into a block.
#[must_use]
pub const fn cost(mode: Mode) -> u64 {
    match mode {
        // two signatures
        Mode::None | Mode::Replay => 1,
        // and the record of the evidence, which was verified when it was registered
        Mode::Tee => 2,
        // a proof, by the largest program measured
        Mode::Zk => 600,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least budget that governance can set (`ChainParameters.MIN_VERIFICATION_BUDGET`).
    const LEAST: u64 = 1_000;

    #[test]
    fn one_receipt_of_each_kind_fits_the_least_budget() {
        let all: u64 = [Mode::None, Mode::Tee, Mode::Zk, Mode::Replay].map(cost).iter().sum();
        assert!(all <= LEAST, "{all}");
    }
}
