// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Permit2} from "./Permit2.sol";
import {Permit2Proxy} from "./Permit2Proxy.sol";

/// @title ExactPermit2Proxy
/// @notice Spender of x402 `exact` payments through Permit2: always the whole signed amount, to the signed recipient. Anyone may submit.
contract ExactPermit2Proxy is Permit2Proxy {
    /// @notice What a payer signs beside the transfer.
    struct Witness {
        address to;
        uint256 validAfter;
    }

    /// @notice EIP-712 types of the witness, as Permit2 wants them.
    string public constant WITNESS_TYPE_STRING =
        "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)";
    /// @notice Hash of the witness's EIP-712 type.
    bytes32 public constant WITNESS_TYPEHASH = keccak256("Witness(address to,uint256 validAfter)");

    constructor(Permit2 permit2_) Permit2Proxy(permit2_) {}

    /// @notice Settles a payment.
    function settle(
        Permit2.PermitTransferFrom calldata permit,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external nonReentrant {
        _settleExact(permit, owner, witness, signature);
        emit Settled();
    }

    /// @notice Settles a payment after letting Permit2 move the token by an EIP-2612 permit.
    function settleWithPermit(
        EIP2612Permit calldata permit2612,
        Permit2.PermitTransferFrom calldata permit,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external nonReentrant {
        _tryPermit(permit.permitted.token, owner, permit2612, permit.permitted.amount);
        _settleExact(permit, owner, witness, signature);
        emit SettledWithPermit();
    }

    function _settleExact(
        Permit2.PermitTransferFrom calldata permit,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) private {
        _settle(
            permit,
            permit.permitted.amount,
            owner,
            witness.to,
            witness.validAfter,
            keccak256(abi.encode(WITNESS_TYPEHASH, witness.to, witness.validAfter)),
            WITNESS_TYPE_STRING,
            signature
        );
    }
}
