// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title UniversalSigValidator
/// @notice Checks a signature of any kind of account (ERC-6492): of a wallet that is not deployed yet, of a contract (ERC-1271), of a key.
/// @dev It calls whatever a signature names, in its own name. So it holds nothing, nobody may ever allow it anything, and no
/// contract of ours calls it: it is for `eth_call` and for deploying a payer's wallet in front of a settlement.
contract UniversalSigValidator {
    /// @dev Last word of a signature that wraps another one with the call that deploys or prepares its wallet.
    bytes32 private constant SUFFIX = 0x6492649264926492649264926492649264926492649264926492649264926492;

    /// @notice The wallet reverted on the signature.
    error ERC1271Revert(bytes reason);
    /// @notice The call that should deploy or prepare the wallet reverted.
    error ERC6492DeployFailed(bytes reason);

    /// @notice Checks a signature and leaves a wallet that it deploys in place.
    function isValidSigWithSideEffects(address signer, bytes32 hash, bytes calldata signature)
        external
        returns (bool)
    {
        return isValidSigImpl(signer, hash, signature, true, false);
    }

    /// @notice Checks a signature without lasting effects.
    function isValidSig(address signer, bytes32 hash, bytes calldata signature) external returns (bool) {
        try this.isValidSigImpl(signer, hash, signature, false, false) returns (bool valid) {
            return valid;
        } catch (bytes memory reason) {
            // With side effects forbidden the answer comes back as a revert with one byte.
            if (reason.length == 1) {
                return reason[0] == 0x01;
            }
            assembly ("memory-safe") {
                revert(add(reason, 32), mload(reason))
            }
        }
    }

    /// @notice Checks a signature: unwrapped if it is wrapped, by the wallet if there is one, else as a key's.
    /// @param allowSideEffects false: a call of a factory is undone, by reverting with one byte that holds the answer
    /// @param tryPrepare make the wrapped call even though the wallet exists
    function isValidSigImpl(
        address signer,
        bytes32 hash,
        bytes calldata signature,
        bool allowSideEffects,
        bool tryPrepare
    ) public returns (bool) {
        uint256 length = signature.length;
        if (length < 32 || bytes32(signature[length - 32:]) != SUFFIX) {
            if (signer.code.length != 0) {
                return _isValidForWallet(signer, hash, signature);
            }
            (address recovered, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(hash, signature);
            return problem == ECDSA.RecoverError.NoError && recovered == signer;
        }
        (address factory, bytes memory factoryCalldata, bytes memory inner) =
            abi.decode(signature[:length - 32], (address, bytes, bytes));
        bool called = signer.code.length == 0 || tryPrepare;
        if (called) {
            (bool success, bytes memory reason) = factory.call(factoryCalldata);
            require(success, ERC6492DeployFailed(reason));
        }
        bool valid;
        // An address that has no code even now is no wallet, though a precompile may answer in its place.
        if (signer.code.length != 0) {
            if (called || tryPrepare) {
                valid = _isValidForWallet(signer, hash, inner);
            } else {
                // A wallet that exists but refuses may need the wrapped call first, for instance to rotate its key.
                try IERC1271(signer).isValidSignature(hash, inner) returns (bytes4 magic) {
                    valid = magic == IERC1271.isValidSignature.selector;
                } catch {}
                if (!valid) {
                    return isValidSigImpl(signer, hash, signature, allowSideEffects, true);
                }
            }
        }
        if (called && !allowSideEffects) {
            assembly ("memory-safe") {
                mstore8(0, valid)
                revert(0, 1)
            }
        }
        return valid;
    }

    function _isValidForWallet(address wallet, bytes32 hash, bytes memory signature) private view returns (bool) {
        try IERC1271(wallet).isValidSignature(hash, signature) returns (bytes4 magic) {
            return magic == IERC1271.isValidSignature.selector;
        } catch (bytes memory reason) {
            revert ERC1271Revert(reason);
        }
    }
}
