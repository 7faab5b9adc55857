// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title IDepositCollector
/// @notice A way to bring a payer's tokens into a channel. The settlement contract calls it and checks afterwards what arrived.
interface IDepositCollector {
    /// @notice Sends exactly `amount` of the payer's `token` to the caller.
    /// @param channelId the channel that the payer must have agreed to pay into
    /// @param collectorData the payer's agreement, in a form of the collector's own
    function collect(
        address payer,
        address token,
        uint256 amount,
        bytes32 channelId,
        bytes calldata collectorData
    ) external;
}

/// @title DepositCollector
/// @notice A collector that works for one settlement contract only: nobody else can use a payer's signature.
abstract contract DepositCollector is IDepositCollector {
    /// @notice The settlement contract.
    // solhint-disable-next-line immutable-vars-naming
    address public immutable x402BatchSettlement;

    /// @notice The caller is not the settlement contract.
    error OnlyX402BatchSettlement();
    /// @notice No settlement contract was named.
    error InvalidX402BatchSettlementAddress();

    modifier onlyBatchSettlement() {
        require(msg.sender == x402BatchSettlement, OnlyX402BatchSettlement());
        _;
    }

    constructor(address settlement) {
        require(settlement != address(0), InvalidX402BatchSettlementAddress());
        x402BatchSettlement = settlement;
    }
}
