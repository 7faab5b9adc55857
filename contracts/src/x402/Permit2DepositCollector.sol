// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {DepositCollector} from "./DepositCollector.sol";
import {Permit2} from "./Permit2.sol";

/// @title Permit2DepositCollector
/// @notice Collects deposits by Permit2 signatures whose witness names the channel. The tokens go from the payer to the settlement
/// contract directly.
contract Permit2DepositCollector is DepositCollector {
    /// @notice EIP-712 types of the witness, as Permit2 wants them.
    string public constant DEPOSIT_WITNESS_TYPE_STRING =
        "DepositWitness witness)DepositWitness(bytes32 channelId)TokenPermissions(address token,uint256 amount)";
    /// @notice Hash of the witness's EIP-712 type.
    bytes32 public constant DEPOSIT_WITNESS_TYPEHASH = keccak256("DepositWitness(bytes32 channelId)");
    /// @notice The Permit2 contract.
    // solhint-disable-next-line immutable-vars-naming
    Permit2 public immutable PERMIT2;

    /// @notice The permit reverted with a text; the deposit went on.
    event EIP2612PermitFailedWithReason(address indexed token, address indexed owner, string reason);
    /// @notice The permit panicked; the deposit went on.
    event EIP2612PermitFailedWithPanic(address indexed token, address indexed owner, uint256 errorCode);
    /// @notice The permit reverted; the deposit went on.
    event EIP2612PermitFailedWithData(address indexed token, address indexed owner, bytes data);

    /// @notice No Permit2 contract was named.
    error InvalidPermit2Address();
    /// @notice The permit is for another amount than the deposit.
    error Permit2612AmountMismatch();

    constructor(address settlement, Permit2 permit2_) DepositCollector(settlement) {
        require(address(permit2_) != address(0), InvalidPermit2Address());
        PERMIT2 = permit2_;
    }

    /// @notice Collects a deposit.
    /// @param collectorData `abi.encode(uint256 nonce, uint256 deadline, bytes signature, bytes permit2612)`; the last is empty or
    /// `abi.encode(uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s)`, an EIP-2612 permit for Permit2
    function collect(
        address payer,
        address token,
        uint256 amount,
        bytes32 channelId,
        bytes calldata collectorData
    ) external override onlyBatchSettlement {
        (uint256 nonce, uint256 deadline, bytes memory signature, bytes memory permit2612) =
            abi.decode(collectorData, (uint256, uint256, bytes, bytes));
        if (permit2612.length != 0) {
            _tryPermit(payer, token, amount, permit2612);
        }
        PERMIT2.permitWitnessTransferFrom(
            Permit2.PermitTransferFrom({
                permitted: Permit2.TokenPermissions({token: token, amount: amount}), nonce: nonce, deadline: deadline
            }),
            Permit2.SignatureTransferDetails({to: x402BatchSettlement, requestedAmount: amount}),
            payer,
            keccak256(abi.encode(DEPOSIT_WITNESS_TYPEHASH, channelId)),
            DEPOSIT_WITNESS_TYPE_STRING,
            signature
        );
    }

    /// @dev A permit that fails does not stop the deposit: somebody may have submitted it before.
    function _tryPermit(address payer, address token, uint256 amount, bytes memory permit2612) private {
        (uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s) =
            abi.decode(permit2612, (uint256, uint256, uint8, bytes32, bytes32));
        require(value == amount, Permit2612AmountMismatch());
        try IERC20Permit(token).permit(payer, address(PERMIT2), value, deadline, v, r, s) {}
        catch Error(string memory reason) {
            emit EIP2612PermitFailedWithReason(token, payer, reason);
        } catch Panic(uint256 code) {
            emit EIP2612PermitFailedWithPanic(token, payer, code);
        } catch (bytes memory data) {
            emit EIP2612PermitFailedWithData(token, payer, data);
        }
    }
}
