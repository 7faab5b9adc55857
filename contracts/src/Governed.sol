// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Governed
/// @notice A contract with functions that only governance may call: the timelock, after a vote and its delay.
abstract contract Governed {
    /// @notice The timelock. It is fixed; what may change is who proposes to it.
    address public immutable governance;

    /// @notice Only governance may do this.
    error NotGovernance(address caller);

    constructor(address governance_) {
        governance = governance_;
    }

    modifier onlyGovernance() {
        require(msg.sender == governance, NotGovernance(msg.sender));
        _;
    }
}
