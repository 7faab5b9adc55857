// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice What other contracts ask the staking contract.
interface IStaking {
    /// @notice Whether the account sends system transactions of the current epoch's validators.
    function isSystem(address account) external view returns (bool);

    /// @notice Votes of staked OPG that an account has of its own or by delegation, at a time in the past.
    function getPastVotes(address account, uint256 timepoint) external view returns (uint256);

    /// @notice Validators that an account has stake behind.
    function positionsOf(address account) external view returns (address[] memory);

    /// @notice An account's stake behind one of them, wei.
    function stakeOf(address operator, address account) external view returns (uint256);
}
