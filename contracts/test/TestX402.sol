// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IDepositCollector} from "../src/x402/DepositCollector.sol";
import {TestForwarder, TestWallet} from "./TestActors.sol";

/// @notice A smart wallet that signs and acts for its owner.
contract TestSmartWallet is TestWallet, TestForwarder {
    constructor(address owner_) TestWallet(owner_) {}
}

/// @notice A token that anybody may print, that can keep a fee, lie about success, and call somebody in the middle of a transfer.
contract TestToken is TestForwarder {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;
    uint256 public fee;
    bool public lies;
    address public target;
    bytes public data;
    /// @notice Whether the call in the middle of a transfer succeeded, and what it returned.
    bool public entered;
    bytes public answer;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function set(uint256 fee_, bool lies_, address target_, bytes calldata data_) external {
        fee = fee_;
        lies = lies_;
        target = target_;
        data = data_;
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        return true;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        return _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        allowance[from][msg.sender] -= amount;
        return _move(from, to, amount);
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        bytes calldata
    ) external {
        _move(from, to, value);
    }

    function _move(address from, address to, uint256 amount) private returns (bool) {
        if (lies) {
            return false;
        }
        balanceOf[from] -= amount;
        balanceOf[to] += amount - fee;
        if (target != address(0)) {
            (entered, answer) = target.call(data);
        }
        return true;
    }
}

/// @notice A collector that brings a sponsor's tokens, more or fewer than it was asked for, and calls somebody meanwhile.
contract TestCollector is IDepositCollector {
    address public sponsor;
    uint256 public short;
    address public target;
    bytes public data;
    bool public entered;
    bytes public answer;

    function set(address sponsor_, uint256 short_, address target_, bytes calldata data_) external {
        sponsor = sponsor_;
        short = short_;
        target = target_;
        data = data_;
    }

    function collect(address, address token, uint256 amount, bytes32, bytes calldata) external {
        if (target != address(0)) {
            (entered, answer) = target.call(data);
        }
        if (sponsor != address(0)) {
            IERC20(token).transferFrom(sponsor, msg.sender, amount - short);
        }
    }
}
