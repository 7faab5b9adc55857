// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Governed} from "./Governed.sol";

/// @title ChainParameters
/// @notice Rules of blocks that governance may change within bounds, each change from a height on that is known before.
/// @dev Full nodes read both slots from the state of the parent block: what counts at height `h` is {valuesAt}(h). The values of block 0
/// are the genesis file's.
contract ChainParameters is Governed {
    /// @notice Rules from a height on; one slot.
    /// @param gasLimit gas limit of a block
    /// @param verificationBudget cost units of receipts and proofs that a block may hold (decisions D14; docs/specs/ledger.md §10 has the units)
    /// @param activation first height they count at
    struct Values {
        uint64 gasLimit;
        uint64 verificationBudget;
        uint64 activation;
    }

    /// @notice Least gas limit: system transactions take up to half of it (decisions D15).
    uint64 public constant MIN_GAS_LIMIT = 120_000_000;
    /// @notice Highest gas limit.
    uint64 public constant MAX_GAS_LIMIT = 1_000_000_000;
    /// @notice Least verification budget: one receipt of each kind must fit.
    uint64 public constant MIN_VERIFICATION_BUDGET = 1_000;
    /// @notice Highest verification budget.
    uint64 public constant MAX_VERIFICATION_BUDGET = 1_000_000_000;
    /// @notice Least blocks between a change and its activation.
    uint64 public constant MIN_NOTICE = 10;
    /// @notice Most blocks between a change and its activation.
    uint64 public constant MAX_NOTICE = 10_000_000;

    /// @notice In force until {next} is.
    Values public current;
    /// @notice In force from its activation on; no activation if nothing is to change.
    Values public next;

    /// @notice A change is coming, in the place of any that was not yet in force.
    event ParametersScheduled(uint64 gasLimit, uint64 verificationBudget, uint64 activation);

    /// @notice A value is out of its range.
    error OutOfRange(uint256 value, uint256 least, uint256 most);

    constructor(address governance_, uint64 gasLimit, uint64 verificationBudget)
        Governed(governance_)
    {
        _check(gasLimit, verificationBudget);
        current = Values(gasLimit, verificationBudget, 0);
    }

    /// @notice Schedules a change. One that is scheduled and not yet in force is replaced.
    function schedule(uint64 gasLimit, uint64 verificationBudget, uint64 activation)
        external
        onlyGovernance
    {
        _check(gasLimit, verificationBudget);
        _range(activation, block.number + MIN_NOTICE, block.number + MAX_NOTICE);
        if (next.activation != 0 && next.activation <= block.number) {
            current = next;
        }
        next = Values(gasLimit, verificationBudget, activation);
        emit ParametersScheduled(gasLimit, verificationBudget, activation);
    }

    /// @notice What counts at a height, by what is known now.
    function valuesAt(uint64 height) external view returns (Values memory) {
        return next.activation != 0 && height >= next.activation ? next : current;
    }

    function _check(uint64 gasLimit, uint64 verificationBudget) private pure {
        _range(gasLimit, MIN_GAS_LIMIT, MAX_GAS_LIMIT);
        _range(verificationBudget, MIN_VERIFICATION_BUDGET, MAX_VERIFICATION_BUDGET);
    }

    function _range(uint256 value, uint256 least, uint256 most) private pure {
        require(value >= least && value <= most, OutOfRange(value, least, most));
    }
}
