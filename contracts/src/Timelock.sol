// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @title Timelock
/// @notice Holds every power of governance. What the governor has queued runs after the delay, started by anyone. Only the governor queues.
/// Until a fixed time a guardian may cancel what is queued, and can do nothing else.
/// @dev No account is its admin: roles and delay change only by an operation that passed through it. That is how a new governor takes over.
contract Timelock is TimelockController {
    /// @notice Who may veto; zero if nobody.
    address public immutable guardian;
    /// @notice From this second on the guardian has no power.
    uint40 public immutable guardianUntil;

    /// @param delay least seconds between queueing and execution
    constructor(uint256 delay, address governor, address guardian_, uint40 guardianUntil_)
        TimelockController(delay, _one(governor), _one(address(0)), address(0))
    {
        guardian = guardian_;
        guardianUntil = guardianUntil_;
        if (guardian_ != address(0)) {
            _grantRole(CANCELLER_ROLE, guardian_);
        }
    }

    /// @notice Whether an account has a role. The guardian's only one ends with its term, whatever was granted since.
    function hasRole(bytes32 role, address account) public view override returns (bool) {
        if (account == guardian && account != address(0) && (role != CANCELLER_ROLE || block.timestamp >= guardianUntil))
        {
            return false;
        }
        return super.hasRole(role, account);
    }

    function _one(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }
}
