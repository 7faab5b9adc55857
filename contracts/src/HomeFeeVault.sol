// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Checkpoint} from "./Checkpoint.sol";
import {DepositAddress} from "./DepositAddress.sol";
import {INSURANCE} from "./Types.sol";

/// @title HomeFeeVault
/// @notice Holds payments to nodes where OPG lives on another chain than the network, and pays what the network's validators credit
/// (decisions D5): by cumulative amounts per (payee, source node), and per node never more than its own deposit address has received.
/// @dev So a payout root, whoever signed it, can misdirect what one node was paid and nothing that another one was. No function has an owner.
contract HomeFeeVault {
    using SafeERC20 for IERC20;

    /// @notice All that a payee was ever credited from one node's receipts.
    struct Leaf {
        address payee;
        bytes32 nodeId;
        uint256 cumulative;
    }

    /// @notice The token.
    IERC20 public immutable opg;
    /// @notice Certified states of the network.
    Checkpoint public immutable checkpoint;
    /// @notice Contract of the network that holds the root of all leaves.
    address public immutable payouts;
    /// @notice Its slot.
    bytes32 public immutable payoutSlot;
    /// @notice Implementation of the deposit addresses.
    address public immutable implementation;

    /// @notice Root in force, and the certified height it was read at.
    bytes32 public payoutRoot;
    /// @notice Certified height of {payoutRoot}.
    uint64 public rootHeight;
    /// @notice OPG that each node's deposit address received and that is not paid out.
    mapping(bytes32 nodeId => uint256) public balanceOf;
    /// @notice What was paid to each payee from each node.
    mapping(address payee => mapping(bytes32 nodeId => uint256)) public claimed;

    /// @notice Another root is in force.
    event PayoutRootSet(uint64 indexed height, bytes32 root);
    /// @notice OPG moved from a node's deposit address to its balance.
    event Swept(bytes32 indexed nodeId, uint256 amount);
    /// @notice Credits were paid out.
    event Claimed(address indexed payee, bytes32 indexed nodeId, uint256 amount);

    /// @notice A root of this height or a later one is in force.
    error NotNewer(uint64 height, uint64 newest);
    /// @notice The leaf is not under the root.
    error InvalidProof();
    /// @notice The account cannot withdraw.
    error CannotWithdraw(address payee);

    /// @param opg_ the token on this chain
    /// @param payouts_ contract of the network with the root of all leaves, and the slot of it
    constructor(IERC20 opg_, Checkpoint checkpoint_, address payouts_, bytes32 payoutSlot_) {
        opg = opg_;
        checkpoint = checkpoint_;
        payouts = payouts_;
        payoutSlot = payoutSlot_;
        implementation = address(new DepositAddress(opg_, address(this)));
    }

    /// @notice Takes over the payout root of a newer certified state. Anyone may call it.
    function setRoot(uint64 height, bytes[] calldata accountProof, bytes[] calldata slotProof) external {
        require(height > rootHeight, NotNewer(height, rootHeight));
        bytes32 root = checkpoint.storageAt(height, payouts, payoutSlot, accountProof, slotProof);
        payoutRoot = root;
        rootHeight = height;
        emit PayoutRootSet(height, root);
    }

    /// @notice Where payments to a node go, whether or not its code exists yet.
    function depositAddressOf(bytes32 nodeId) public view returns (address) {
        return Clones.predictDeterministicAddress(implementation, nodeId);
    }

    /// @notice Moves what a node's deposit address holds into the node's balance.
    function sweep(bytes32 nodeId) public returns (uint256 amount) {
        address deposit = depositAddressOf(nodeId);
        amount = opg.balanceOf(deposit);
        if (amount == 0) {
            return 0;
        }
        balanceOf[nodeId] += amount;
        emit Swept(nodeId, amount);
        if (deposit.code.length == 0) {
            Clones.cloneDeterministic(implementation, nodeId);
        }
        DepositAddress(deposit).forward(amount);
    }

    /// @notice Pays a payee what it was credited from one node and not yet paid, as far as that node's deposits go. Anyone may call it.
    function claim(Leaf calldata leaf, bytes32[] calldata proof) external returns (uint256 amount) {
        require(leaf.payee != INSURANCE, CannotWithdraw(leaf.payee));
        require(MerkleProof.verifyCalldata(proof, payoutRoot, hashOf(leaf)), InvalidProof());
        sweep(leaf.nodeId);
        uint256 paid = claimed[leaf.payee][leaf.nodeId];
        uint256 held = balanceOf[leaf.nodeId];
        amount = leaf.cumulative > paid ? leaf.cumulative - paid : 0;
        if (amount > held) {
            amount = held;
        }
        if (amount == 0) {
            return 0;
        }
        balanceOf[leaf.nodeId] = held - amount;
        claimed[leaf.payee][leaf.nodeId] = paid + amount;
        emit Claimed(leaf.payee, leaf.nodeId, amount);
        opg.safeTransfer(leaf.payee, amount);
    }

    /// @notice The leaf in the tree (OpenZeppelin's StandardMerkleTree: hashed twice).
    function hashOf(Leaf calldata leaf) public pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(leaf.payee, leaf.nodeId, leaf.cumulative))));
    }
}
