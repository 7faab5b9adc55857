// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {BLS} from "./BLS.sol";
import {Ed25519} from "./Ed25519.sol";

/// @title KeyProofs
/// @notice Proofs of possession of a validator's keys over (chain id, operator, epoch): one made for one registration is worth nothing in
/// another (decisions D16).
/// @dev A contract of its own, without state, because {Staking} with the curve's arithmetic is larger than EIP-170 allows.
contract KeyProofs {
    /// @notice Bytes of an uncompressed BLS key.
    uint256 public constant KEY_BYTES = 256;
    /// @notice Bytes of an uncompressed signature.
    uint256 public constant SIGNATURE_BYTES = 128;

    /// @notice The signature is not the system account's.
    error NotSystemKey(address system, address signer);
    /// @notice The proof is not one of possession of the BLS key.
    error NotBlsKey();
    /// @notice The network identity is no Ed25519 public key.
    error NotConsensusKey(bytes32 key);

    /// @notice What the system account signs.
    function systemDigest(address operator, uint64 epoch) public view returns (bytes32) {
        return keccak256(abi.encodePacked("opg/system-possession/v1", uint64(block.chainid), operator, epoch));
    }

    /// @notice Whether a network identity is an Ed25519 public key. A seat with anything else would stop every validator, none of which could
    /// make a set of it.
    function isConsensusKey(bytes32 key) public view returns (bool) {
        return Ed25519.isKey(key);
    }

    /// @notice Reverts unless the network identity is a key and both proofs are good.
    /// @param consensusKey Ed25519 network identity
    /// @param key G2 point of 256 bytes as EIP-2537 has it
    /// @param possession G1 point of 128 bytes as EIP-2537 has it: proof of possession of the BLS key
    /// @param signature r, s, v of the system account over {systemDigest}
    /// @return the BLS key's 96 compressed bytes
    function check(
        address operator,
        uint64 epoch,
        bytes32 consensusKey,
        bytes calldata key,
        bytes calldata possession,
        address system,
        bytes calldata signature
    ) external view returns (bytes memory) {
        require(isConsensusKey(consensusKey), NotConsensusKey(consensusKey));
        (address signer, ECDSA.RecoverError failed,) = ECDSA.tryRecover(systemDigest(operator, epoch), signature);
        require(failed == ECDSA.RecoverError.NoError && signer == system, NotSystemKey(system, signer));
        require(key.length == KEY_BYTES && possession.length == SIGNATURE_BYTES, NotBlsKey());
        BLS.G2Point memory point = abi.decode(key, (BLS.G2Point));
        bytes memory namespace = abi.encodePacked("opg/bls-possession/v1", uint64(block.chainid), operator, epoch);
        require(
            BLS.verifyPossession(point, namespace, abi.decode(possession, (BLS.G1Point))), NotBlsKey()
        );
        return BLS.compress(point);
    }
}
