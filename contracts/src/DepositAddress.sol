// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title DepositAddress
/// @notice Code behind the address that payments to one node are made out to (decisions D1). The vault clones it (ERC-1167) at an
/// address derived from the node's id. It holds OPG for a while and can only forward it to the vault.
contract DepositAddress {
    /// @notice The token it forwards.
    IERC20 public immutable opg;
    /// @notice The only account it forwards to, and the only one that may ask for it.
    address public immutable vault;

    /// @notice Only the vault may forward, because it counts what arrives.
    error NotVault(address caller);
    /// @notice The token returned false.
    error TransferFailed();

    constructor(IERC20 opg_, address vault_) {
        opg = opg_;
        vault = vault_;
    }

    /// @notice Sends `amount` of the OPG held here to the vault.
    function forward(uint256 amount) external {
        require(msg.sender == vault, NotVault(msg.sender));
        require(opg.transfer(vault, amount), TransferFailed());
    }
}
