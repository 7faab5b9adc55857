// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title BLS
/// @notice BLS12-381 signatures as validators make them: signatures in G1, public keys in G2 (commonware's `MinSig`), hashed to the
/// curve by RFC 9380 (`BLS12381G1_XMD:SHA-256_SSWU_RO_`), checked with the precompiles of EIP-2537.
/// @dev Points are uncompressed, as the precompiles take them: whoever calls decompresses, and {compress} says whether the result is
/// the point that some compressed bytes name. A precompile that is given a point off the curve or outside the group fails and
/// burns the gas it was given: the functions here then return false or revert, with little gas left to the caller.
library BLS {
    /// @notice A point of G1: x, y; each 64 bytes, big-endian, the upper 16 zero. All zero is infinity.
    struct G1Point {
        bytes32 xHigh;
        bytes32 xLow;
        bytes32 yHigh;
        bytes32 yLow;
    }

    /// @notice A point of G2: x and y in Fp2, each its constant part (`c0`) first. All zero is infinity.
    struct G2Point {
        bytes32 x0High;
        bytes32 x0Low;
        bytes32 x1High;
        bytes32 x1Low;
        bytes32 y0High;
        bytes32 y0Low;
        bytes32 y1High;
        bytes32 y1Low;
    }

    /// @notice Suite of votes (`simplex`, variant MinSig).
    bytes internal constant VOTE_DST = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
    /// @notice Suite of proofs of possession.
    bytes internal constant POSSESSION_DST = "BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
    /// @notice Bytes of a point of G2 without padding: `x.c0 || x.c1 || y.c0 || y.c1`, 48 each.
    uint256 internal constant PACKED_G2 = 192;

    address private constant _MODEXP = address(0x05);
    address private constant _G1ADD = address(0x0b);
    address private constant _G2ADD = address(0x0d);
    address private constant _PAIRING = address(0x0f);
    address private constant _MAP_TO_G1 = address(0x10);

    /// @dev The field's prime.
    uint256 private constant _P_HIGH = 0x1a0111ea397fe69a4b1ba7b6434bacd7;
    uint256 private constant _P_LOW = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;
    /// @dev `(p - 1) / 2`: a larger y is the one that compressed points mark.
    uint256 private constant _HALF_HIGH = 0x0d0088f51cbff34d258dd3db21a5d66b;
    uint256 private constant _HALF_LOW = 0xb23ba5c279c2895fb39869507b587b120f55ffff58a9ffffdcff7fffffffd555;

    /// @notice The suite's name has more than 255 bytes, or none.
    error InvalidSuite(uint256 length);
    /// @notice A precompile of EIP-2537 refused its input, or the chain has none.
    error PrecompileFailed(address precompile);
    /// @notice A packed key or a list of them has another length.
    error InvalidLength(uint256 expected, uint256 got);

    /// @notice What a validator signs: `varint(length of namespace) || namespace || payload`, the varint little-endian base 128.
    function message(bytes memory namespace, bytes memory payload) internal pure returns (bytes memory) {
        uint256 length = namespace.length;
        bytes memory prefix;
        while (length >= 0x80) {
            prefix = abi.encodePacked(prefix, uint8(length & 0x7f) | 0x80);
            length >>= 7;
        }
        return abi.encodePacked(prefix, uint8(length), namespace, payload);
    }

    /// @notice RFC 9380 hash_to_curve for G1 with SHA-256.
    /// @param suite domain separation tag, 1 to 255 bytes
    function hashToG1(bytes memory payload, bytes memory suite) internal view returns (G1Point memory point) {
        bytes32[4] memory uniform = expandMessage(payload, suite);
        G1Point memory a = _mapToG1(_reduce(uniform[0], uniform[1]));
        G1Point memory b = _mapToG1(_reduce(uniform[2], uniform[3]));
        // The precompile's map clears the cofactor of each, so their sum needs no more.
        return add(a, b);
    }

    /// @notice RFC 9380 expand_message_xmd with SHA-256 to 128 bytes.
    function expandMessage(bytes memory payload, bytes memory suite) internal pure returns (bytes32[4] memory uniform) {
        require(suite.length != 0 && suite.length <= 255, InvalidSuite(suite.length));
        bytes memory suffix = abi.encodePacked(suite, uint8(suite.length));
        bytes32 b0 = sha256(abi.encodePacked(bytes32(0), bytes32(0), payload, uint16(128), uint8(0), suffix));
        bytes32 previous;
        for (uint256 i; i < 4; ++i) {
            previous = sha256(abi.encodePacked(b0 ^ previous, uint8(i + 1), suffix));
            uniform[i] = previous;
        }
    }

    /// @notice Whether `signature` is the key's on `payload`, hashed with `suite`. Infinity is no signature and no key.
    /// @dev The pairing checks that both points are of the group.
    function verify(
        G1Point memory signature,
        G2Point memory key,
        bytes memory payload,
        bytes memory suite
    ) internal view returns (bool valid) {
        if (isInfinity(signature) || isInfinity(key)) {
            return false;
        }
        G1Point memory hash = hashToG1(payload, suite);
        G2Point memory generator = negatedGenerator();
        address pairing = _PAIRING;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mcopy(input, signature, 128)
            mcopy(add(input, 128), generator, 256)
            mcopy(add(input, 384), hash, 128)
            mcopy(add(input, 512), key, 256)
            valid := staticcall(gas(), pairing, input, 768, 0, 32)
            valid := and(and(valid, eq(returndatasize(), 32)), eq(mload(0), 1))
        }
    }

    /// @notice Whether `proof` shows possession of the key in this context (`opg_contracts::possession_namespace`).
    function verifyPossession(G2Point memory key, bytes memory namespace, G1Point memory proof)
        internal
        view
        returns (bool)
    {
        return verify(proof, key, message(namespace, compress(key)), POSSESSION_DST);
    }

    /// @notice Sum of the keys whose bit is set in `signers`, lowest first; its length is a multiple of {PACKED_G2}.
    /// @dev Bits beyond the last key are the caller's to refuse. The sum is of the group if the keys are: {verify} checks only the sum, so each
    /// key must have been checked before it got into a set (a proof of possession does).
    /// @return sum infinity if no bit is set
    /// @return count how many keys were added
    function aggregate(bytes memory keys, uint256 signers) internal view returns (G2Point memory sum, uint256 count) {
        require(keys.length % PACKED_G2 == 0, InvalidLength(PACKED_G2, keys.length));
        uint256 length = keys.length / PACKED_G2;
        address g2add = _G2ADD;
        bool success = true;
        assembly ("memory-safe") {
            // Two points side by side: the sum so far and the next key.
            let input := mload(0x40)
            mcopy(input, sum, 256)
            let key := add(keys, 32)
            for { let i := 0 } lt(i, length) { i := add(i, 1) } {
                if and(shr(i, signers), 1) {
                    count := add(count, 1)
                    for { let j := 0 } lt(j, 4) { j := add(j, 1) } {
                        let part := mload(add(key, mul(j, 48)))
                        let at := add(add(input, 256), mul(j, 64))
                        mstore(at, shr(128, part))
                        mstore(add(at, 32), mload(add(add(key, mul(j, 48)), 16)))
                    }
                    success := and(success, staticcall(gas(), g2add, input, 512, input, 256))
                    success := and(success, eq(returndatasize(), 256))
                }
                key := add(key, 192)
            }
            mcopy(sum, input, 256)
        }
        require(success, PrecompileFailed(g2add));
    }

    /// @notice Sum of two points of G1, which must be on the curve.
    function add(G1Point memory a, G1Point memory b) internal view returns (G1Point memory sum) {
        address g1add = _G1ADD;
        bool success;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mcopy(input, a, 128)
            mcopy(add(input, 128), b, 128)
            success := staticcall(gas(), g1add, input, 256, sum, 128)
            success := and(success, eq(returndatasize(), 128))
        }
        require(success, PrecompileFailed(g1add));
    }

    /// @notice The 48 bytes of a point of G1 in Zcash's format, which commonware and blst use. The point is not checked.
    function compress(G1Point memory point) internal pure returns (bytes memory) {
        uint256 flags = 0x80;
        if (isInfinity(point)) {
            flags |= 0x40;
        } else if (_isLarger(point.yHigh, point.yLow)) {
            flags |= 0x20;
        }
        return abi.encodePacked(bytes16(uint128(uint256(point.xHigh) | flags << 120)), point.xLow);
    }

    /// @notice The 96 bytes of a point of G2 in Zcash's format. The point is not checked.
    function compress(G2Point memory point) internal pure returns (bytes memory) {
        uint256 flags = 0x80;
        if (isInfinity(point)) {
            flags |= 0x40;
        } else if (
            point.y1High | point.y1Low == 0
                ? _isLarger(point.y0High, point.y0Low)
                : _isLarger(point.y1High, point.y1Low)
        ) {
            flags |= 0x20;
        }
        return abi.encodePacked(
            bytes16(uint128(uint256(point.x1High) | flags << 120)),
            point.x1Low,
            bytes16(uint128(uint256(point.x0High))),
            point.x0Low
        );
    }

    /// @notice {PACKED_G2} bytes of a point of G2.
    function pack(G2Point memory point) internal pure returns (bytes memory) {
        return abi.encodePacked(
            abi.encodePacked(bytes16(uint128(uint256(point.x0High))), point.x0Low),
            abi.encodePacked(bytes16(uint128(uint256(point.x1High))), point.x1Low),
            abi.encodePacked(bytes16(uint128(uint256(point.y0High))), point.y0Low),
            abi.encodePacked(bytes16(uint128(uint256(point.y1High))), point.y1Low)
        );
    }

    /// @notice Whether the point is infinity.
    function isInfinity(G1Point memory point) internal pure returns (bool) {
        return point.xHigh | point.xLow | point.yHigh | point.yLow == 0;
    }

    /// @notice Whether the point is infinity.
    function isInfinity(G2Point memory point) internal pure returns (bool) {
        return (point.x0High | point.x0Low | point.x1High | point.x1Low) == 0
            && (point.y0High | point.y0Low | point.y1High | point.y1Low) == 0;
    }

    /// @notice G2's generator with its y negated.
    function negatedGenerator() internal pure returns (G2Point memory) {
        return G2Point({
            x0High: 0x00000000000000000000000000000000024aa2b2f08f0a91260805272dc51051,
            x0Low: 0xc6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8,
            x1High: 0x0000000000000000000000000000000013e02b6052719f607dacd3a088274f65,
            x1Low: 0x596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e,
            y0High: 0x000000000000000000000000000000000d1b3cc2c7027888be51d9ef691d77bc,
            y0Low: 0xb679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa,
            y1High: 0x0000000000000000000000000000000013fa4d4a0ad8b1ce186ed5061789213d,
            y1Low: 0x993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed
        });
    }

    /// @dev Whether a coordinate is above `(p - 1) / 2`.
    function _isLarger(bytes32 high, bytes32 low) private pure returns (bool) {
        return uint256(high) > _HALF_HIGH || (uint256(high) == _HALF_HIGH && uint256(low) > _HALF_LOW);
    }

    /// @dev A 512-bit number modulo p.
    function _reduce(bytes32 high, bytes32 low) private view returns (bytes32[2] memory element) {
        address modexp = _MODEXP;
        uint256 pHigh = _P_HIGH;
        uint256 pLow = _P_LOW;
        bool success;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, 64)
            mstore(add(input, 32), 1)
            mstore(add(input, 64), 64)
            mstore(add(input, 96), high)
            mstore(add(input, 128), low)
            // The exponent is the byte 1; the modulus follows it, unaligned.
            mstore8(add(input, 160), 1)
            mstore(add(input, 161), pHigh)
            mstore(add(input, 193), pLow)
            success := staticcall(gas(), modexp, input, 225, element, 64)
            success := and(success, eq(returndatasize(), 64))
        }
        require(success, PrecompileFailed(modexp));
    }

    function _mapToG1(bytes32[2] memory element) private view returns (G1Point memory point) {
        address map = _MAP_TO_G1;
        bool success;
        assembly ("memory-safe") {
            success := staticcall(gas(), map, element, 64, point, 128)
            success := and(success, eq(returndatasize(), 128))
        }
        require(success, PrecompileFailed(map));
    }
}
