// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Ed25519
/// @notice Whether 32 bytes decode to a public key (RFC 8032 §5.1.3). Nothing is signed or verified here.
/// @dev A point (x, y) of −x² + y² = 1 + d·x²·y² is encoded as y, little-endian, with the lowest bit of x on top. So y is one of a point
/// exactly if (y² − 1) / (d·y² + 1) is a square; the denominator is never zero, as −1 is a square and d is not.
library Ed25519 {
    uint256 private constant P = (1 << 255) - 19;
    uint256 private constant D = 0x52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3;
    address private constant MODEXP = address(0x05);

    /// @notice A precompile is missing.
    error PrecompileFailed(address precompile);

    /// @notice True for canonical encodings of points other than those with x = 0, which are no keys of anybody.
    function isKey(bytes32 key) internal view returns (bool) {
        uint256 y = _reversed(uint256(key)) & ((1 << 255) - 1);
        if (y >= P) {
            return false;
        }
        uint256 square = mulmod(y, y, P);
        uint256 numerator = addmod(square, P - 1, P);
        uint256 denominator = addmod(mulmod(D, square, P), 1, P);
        // u/v is a square exactly if u·v is: by Euler, if its (p − 1)/2-th power is 1.
        return _power(mulmod(numerator, denominator, P), (P - 1) / 2) == 1;
    }

    function _power(uint256 base, uint256 exponent) private view returns (uint256) {
        (bool success, bytes memory result) =
            MODEXP.staticcall(abi.encode(uint256(32), uint256(32), uint256(32), base, exponent, P));
        require(success && result.length == 32, PrecompileFailed(MODEXP));
        return abi.decode(result, (uint256));
    }

    /// @dev The bytes of a word in the other order.
    function _reversed(uint256 word) private pure returns (uint256 reversed) {
        for (uint256 i; i < 32; ++i) {
            reversed = (reversed << 8) | (word & 0xff);
            word >>= 8;
        }
    }
}
