// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

/// @title Airdrop
/// @notice Pays each account of a published list its amount, once. The list is a Merkle tree with leaves
/// `keccak256(bytes.concat(keccak256(abi.encode(account, amount))))`, as OpenZeppelin's StandardMerkleTree makes it.
/// @dev Nobody can change the list or take what is not claimed. Anyone may send a claim; it always pays the account of the list.
contract Airdrop {
    using SafeERC20 for IERC20;

    /// @notice The token.
    IERC20 public immutable opg;
    /// @notice Root of the list.
    bytes32 public immutable root;
    /// @notice OPG of the list, wei.
    uint256 public immutable total;

    /// @notice OPG paid out so far, wei.
    uint256 public claimed;
    /// @notice Accounts that have their amount.
    mapping(address account => bool) public isClaimed;

    /// @notice An account got its amount.
    event Claimed(address indexed account, uint256 amount);

    /// @notice The account has its amount already.
    error AlreadyClaimed(address account);
    /// @notice Account and amount are not in the list.
    error NotInList(address account, uint256 amount);

    constructor(IERC20 opg_, bytes32 root_, uint256 total_) {
        opg = opg_;
        root = root_;
        total = total_;
    }

    /// @notice Pays `account` the `amount` that the list has for it.
    function claim(address account, uint256 amount, bytes32[] calldata proof) external {
        require(!isClaimed[account], AlreadyClaimed(account));
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(account, amount))));
        require(MerkleProof.verifyCalldata(proof, root, leaf), NotInList(account, amount));
        isClaimed[account] = true;
        claimed += amount;
        emit Claimed(account, amount);
        opg.safeTransfer(account, amount);
    }
}
