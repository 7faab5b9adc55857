// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice Price of a model: wei of OPG per call and per million units of input and of output.
struct Price {
    uint128 perCall;
    uint128 perMtokIn;
    uint128 perMtokOut;
}

/// @dev Address of the insurance account: it is credited and never withdraws (decisions D7).
address constant INSURANCE = 0x0000000000000000000000000000000000001007;
