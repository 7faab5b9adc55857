// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IStaking} from "../src/IStaking.sol";

/// @notice Stakes and votes as a test sets them; votes are the same at all times from `since` on.
contract TestStaking is IStaking {
    mapping(address account => uint256) public votes;
    mapping(address account => uint256) public since;
    mapping(address account => address[]) private _operators;
    mapping(address operator => mapping(address account => uint256)) private _stakes;
    mapping(address account => bool) public isSystem;

    function setVotes(address account, uint256 amount) external {
        votes[account] = amount;
        since[account] = block.timestamp;
    }

    function setStake(address operator, address account, uint256 amount) external {
        _operators[account].push(operator);
        _stakes[operator][account] = amount;
    }

    function setSystem(address account, bool is_) external {
        isSystem[account] = is_;
    }

    function getPastVotes(address account, uint256 timepoint) external view returns (uint256) {
        return timepoint >= since[account] ? votes[account] : 0;
    }

    function positionsOf(address account) external view returns (address[] memory) {
        return _operators[account];
    }

    function stakeOf(address operator, address account) external view returns (uint256) {
        return _stakes[operator][account];
    }
}
