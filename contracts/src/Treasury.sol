// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Governed} from "./Governed.sol";

/// @title Treasury
/// @notice Receives the treasury's share of fees (`FeeVault.withdraw(treasury, …)`, which anyone may call) and spends it only by governance.
contract Treasury is Governed {
    using SafeERC20 for IERC20;

    /// @notice Tokens were spent; `token` is zero for native coin.
    event Spent(address indexed token, address indexed to, uint256 amount);

    /// @notice The recipient refused the native coin.
    error NativeTransferFailed(address to);
    /// @notice Zero is no recipient.
    error InvalidRecipient();

    constructor(address governance_) Governed(governance_) {}

    /// @notice Takes native coin.
    receive() external payable {}

    /// @notice Pays tokens.
    function spend(IERC20 token, address to, uint256 amount) external onlyGovernance {
        require(to != address(0), InvalidRecipient());
        emit Spent(address(token), to, amount);
        token.safeTransfer(to, amount);
    }

    /// @notice Pays native coin.
    function spendNative(address to, uint256 amount) external onlyGovernance {
        require(to != address(0), InvalidRecipient());
        emit Spent(address(0), to, amount);
        (bool sent,) = to.call{value: amount}("");
        require(sent, NativeTransferFailed(to));
    }
}
