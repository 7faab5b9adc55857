// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {OPG} from "../src/OPG.sol";

/// @notice A smart wallet with one owner (ERC-1271).
contract TestWallet {
    address public immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    receive() external payable {}

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        address signer =
            ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(signature[32:64]));
        return signer == owner ? this.isValidSignature.selector : bytes4(0);
    }
}

/// @notice A wallet whose signature check burns all gas that it gets.
contract TestGasBurner {
    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        uint256 x = 1;
        while (x != 0) {
            x = uint256(keccak256(abi.encode(x, msg.sender))) | 1;
        }
        return 0;
    }
}

/// @notice A holder that unwraps and tries to unwrap the same OPG again from inside.
contract TestReentrant {
    OPG public immutable opg;
    uint256 public entered;
    bool public stolen;

    constructor(OPG opg_) {
        opg = opg_;
    }

    receive() external payable {
        ++entered;
        if (entered == 1) {
            try opg.withdraw(msg.value) {
                stolen = true;
            } catch {}
        }
    }

    function attack(uint256 amount) external {
        opg.withdraw(amount);
    }
}

/// @notice Refuses native coin.
contract TestRefuser {
    OPG public immutable opg;

    constructor(OPG opg_) {
        opg = opg_;
    }

    function unwrap(uint256 amount) external {
        opg.withdraw(amount);
    }
}

/// @notice Calls whatever it is told to; stands for the delegate of an EIP-7702 account.
contract TestForwarder {
    function forward(address target, bytes calldata data) external payable returns (bytes memory) {
        (bool success, bytes memory result) = target.call{value: msg.value}(data);
        if (!success) {
            assembly {
                revert(add(result, 32), mload(result))
            }
        }
        return result;
    }
}
