// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {BLS} from "../src/BLS.sol";

/// @notice The library's functions, callable.
contract TestBLS {
    function expandMessage(bytes calldata payload, bytes calldata suite) external pure returns (bytes32[4] memory) {
        return BLS.expandMessage(payload, suite);
    }

    function hashToG1(bytes calldata payload, bytes calldata suite) external view returns (BLS.G1Point memory) {
        return BLS.hashToG1(payload, suite);
    }

    function message(bytes calldata namespace, bytes calldata payload) external pure returns (bytes memory) {
        return BLS.message(namespace, payload);
    }

    function compressG1(BLS.G1Point calldata point) external pure returns (bytes memory) {
        return BLS.compress(point);
    }

    function compressG2(BLS.G2Point calldata point) external pure returns (bytes memory) {
        return BLS.compress(point);
    }

    function pack(BLS.G2Point calldata point) external pure returns (bytes memory) {
        return BLS.pack(point);
    }

    function aggregate(bytes calldata keys, uint256 signers) external view returns (BLS.G2Point memory, uint256) {
        return BLS.aggregate(keys, signers);
    }

    function verify(
        BLS.G1Point calldata signature,
        BLS.G2Point calldata key,
        bytes calldata payload,
        bytes calldata suite
    ) external view returns (bool) {
        return BLS.verify(signature, key, payload, suite);
    }

    function verifyPossession(BLS.G2Point calldata key, bytes calldata namespace, BLS.G1Point calldata proof)
        external
        view
        returns (bool)
    {
        return BLS.verifyPossession(key, namespace, proof);
    }

    function negatedGenerator() external pure returns (BLS.G2Point memory) {
        return BLS.negatedGenerator();
    }
}
