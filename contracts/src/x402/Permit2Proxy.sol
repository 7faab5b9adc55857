// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {Permit2} from "./Permit2.sol";

/// @title Permit2Proxy
/// @notice What the two x402 payment proxies have in common. A payer signs a Permit2 transfer that only the proxy can spend, with the
/// recipient in the witness: whoever submits it can neither redirect nor repeat it.
/// @dev Beyond the published contracts it remembers what each nonce paid (decisions D2): {settlementOf} is one storage slot.
abstract contract Permit2Proxy is ReentrancyGuardTransient {
    /// @notice An EIP-2612 permit that lets Permit2 move the token.
    struct EIP2612Permit {
        uint256 value;
        uint256 deadline;
        bytes32 r;
        bytes32 s;
        uint8 v;
    }

    /// @notice The Permit2 contract.
    // solhint-disable-next-line immutable-vars-naming
    Permit2 public immutable PERMIT2;

    /// @notice `keccak256(abi.encode(to, value))` of the payment that a payer's Permit2 nonce made in `token` through this proxy; zero if it
    /// made none. The same value as in OPG's settlement slots. The token is part of the key, because a payer may sign worthless ones.
    mapping(address token => mapping(address payer => mapping(uint256 nonce => bytes32))) public settlementOf;

    /// @notice A payment was settled.
    event Settled();
    /// @notice A payment was settled after a permit.
    event SettledWithPermit();
    /// @notice The permit reverted with a text; the payment went on.
    event EIP2612PermitFailedWithReason(address indexed token, address indexed owner, string reason);
    /// @notice The permit panicked; the payment went on.
    event EIP2612PermitFailedWithPanic(address indexed token, address indexed owner, uint256 errorCode);
    /// @notice The permit reverted; the payment went on.
    event EIP2612PermitFailedWithData(address indexed token, address indexed owner, bytes data);

    /// @notice No Permit2 contract was named.
    error InvalidPermit2Address();
    /// @notice The recipient is zero.
    error InvalidDestination();
    /// @notice The payment is not valid yet.
    error PaymentTooEarly();
    /// @notice The payer is zero.
    error InvalidOwner();
    /// @notice The amount is zero.
    error InvalidAmount();
    /// @notice The permit is for another amount than the payment.
    error Permit2612AmountMismatch();

    constructor(Permit2 permit2_) {
        require(address(permit2_) != address(0), InvalidPermit2Address());
        PERMIT2 = permit2_;
    }

    function _settle(
        Permit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        address to,
        uint256 validAfter,
        bytes32 witnessHash,
        string memory witnessTypeString,
        bytes calldata signature
    ) internal {
        require(amount != 0, InvalidAmount());
        require(owner != address(0), InvalidOwner());
        require(to != address(0), InvalidDestination());
        require(block.timestamp >= validAfter, PaymentTooEarly());
        // Permit2 accepts each nonce of a payer once, whatever the token, so this slot is written once.
        settlementOf[permit.permitted.token][owner][permit.nonce] =
            Hashes.efficientKeccak256(bytes32(uint256(uint160(to))), bytes32(amount));
        PERMIT2.permitWitnessTransferFrom(
            permit,
            Permit2.SignatureTransferDetails({to: to, requestedAmount: amount}),
            owner,
            witnessHash,
            witnessTypeString,
            signature
        );
    }

    /// @dev A permit that fails does not stop the payment: somebody may have submitted it before.
    function _tryPermit(address token, address owner, EIP2612Permit calldata permit2612, uint256 permitted) internal {
        require(permit2612.value == permitted, Permit2612AmountMismatch());
        try IERC20Permit(token).permit(
            owner, address(PERMIT2), permit2612.value, permit2612.deadline, permit2612.v, permit2612.r, permit2612.s
        ) {} catch Error(string memory reason) {
            emit EIP2612PermitFailedWithReason(token, owner, reason);
        } catch Panic(uint256 code) {
            emit EIP2612PermitFailedWithPanic(token, owner, code);
        } catch (bytes memory data) {
            emit EIP2612PermitFailedWithData(token, owner, data);
        }
    }
}
