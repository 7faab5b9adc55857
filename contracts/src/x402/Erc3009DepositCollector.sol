// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {DepositCollector} from "./DepositCollector.sol";

/// @notice The one function of ERC-3009 that the collector uses.
interface IReceiveWithAuthorization {
    /// @notice Moves `value` from `from` to the caller, which must be `to`.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}

/// @title Erc3009DepositCollector
/// @notice Collects deposits by ERC-3009 `ReceiveWithAuthorization` signatures. The nonce `keccak256(abi.encode(channelId, salt))` binds a
/// signature to its channel.
contract Erc3009DepositCollector is DepositCollector {
    using SafeERC20 for IERC20;

    constructor(address settlement) DepositCollector(settlement) {}

    /// @notice Collects a deposit.
    /// @param collectorData `abi.encode(uint256 validAfter, uint256 validBefore, uint256 salt, bytes signature)`
    function collect(
        address payer,
        address token,
        uint256 amount,
        bytes32 channelId,
        bytes calldata collectorData
    ) external override onlyBatchSettlement {
        (uint256 validAfter, uint256 validBefore, uint256 salt, bytes memory signature) =
            abi.decode(collectorData, (uint256, uint256, uint256, bytes));
        IReceiveWithAuthorization(token).receiveWithAuthorization(
            payer,
            address(this),
            amount,
            validAfter,
            validBefore,
            Hashes.efficientKeccak256(channelId, bytes32(salt)),
            signature
        );
        // The authorization can only pay its caller, so the tokens take a second step.
        IERC20(token).safeTransfer(x402BatchSettlement, amount);
    }
}
