// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Permit2} from "./Permit2.sol";
import {Permit2Proxy} from "./Permit2Proxy.sol";

/// @title UptoPermit2Proxy
/// @notice Spender of x402 `upto` payments: the facilitator that the payer named chooses the amount, up to the signed one, and only once.
contract UptoPermit2Proxy is Permit2Proxy {
    /// @notice What a payer signs beside the transfer.
    struct Witness {
        address to;
        address facilitator;
        uint256 validAfter;
    }

    /// @notice EIP-712 types of the witness, as Permit2 wants them.
    string public constant WITNESS_TYPE_STRING =
        "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,address facilitator,uint256 validAfter)";
    /// @notice Hash of the witness's EIP-712 type.
    bytes32 public constant WITNESS_TYPEHASH =
        keccak256("Witness(address to,address facilitator,uint256 validAfter)");

    /// @notice The amount is above the signed one.
    error AmountExceedsPermitted();
    /// @notice The caller is not the facilitator that the payer named.
    error UnauthorizedFacilitator();

    constructor(Permit2 permit2_) Permit2Proxy(permit2_) {}

    /// @notice Settles a payment of `amount`.
    function settle(
        Permit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external nonReentrant {
        _settleUpto(permit, amount, owner, witness, signature);
        emit Settled();
    }

    /// @notice Settles a payment of `amount` after letting Permit2 move the token by an EIP-2612 permit.
    function settleWithPermit(
        EIP2612Permit calldata permit2612,
        Permit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external nonReentrant {
        _tryPermit(permit.permitted.token, owner, permit2612, permit.permitted.amount);
        _settleUpto(permit, amount, owner, witness, signature);
        emit SettledWithPermit();
    }

    function _settleUpto(
        Permit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) private {
        require(amount <= permit.permitted.amount, AmountExceedsPermitted());
        require(msg.sender == witness.facilitator, UnauthorizedFacilitator());
        _settle(
            permit,
            amount,
            owner,
            witness.to,
            witness.validAfter,
            keccak256(abi.encode(WITNESS_TYPEHASH, witness.to, witness.facilitator, witness.validAfter)),
            WITNESS_TYPE_STRING,
            signature
        );
    }
}
