// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice What {Payouts} asks the staking contract.
interface ISeats {
    /// @notice The current epoch.
    function epoch() external view returns (uint64);

    /// @notice Seats of an epoch.
    function seatCount(uint64 epoch) external view returns (uint256);

    /// @notice Whether an operator has a seat in an epoch.
    function wasSeated(uint64 epoch, address operator) external view returns (bool);
}

/// @title Payouts
/// @notice On the network: the root of all that payees were ever credited, for the chain where OPG lives (decisions D5). A root is in force once a
/// quorum of the current epoch's validators has said it; {HomeFeeVault} reads it under a certified state.
/// @dev It holds no money and has no owner. What a false root could do is bounded on the other chain: per node, what its own deposit address received.
contract Payouts {
    /// @notice Root in force. Slot 0, which the other chain's vault proves.
    bytes32 public root;
    /// @notice Number of the root in force; the first is 1.
    uint64 public number;
    /// @notice The validators.
    ISeats public immutable staking;
    /// @notice What operators said for a number in an epoch; zero is nothing. Nobody says two things.
    mapping(uint64 epoch => mapping(uint64 number => mapping(address operator => bytes32))) public said;
    /// @notice How many said a root.
    mapping(uint64 epoch => mapping(uint64 number => mapping(bytes32 root => uint256))) public count;

    /// @notice A validator's operator said a root.
    event Said(uint64 indexed epoch, uint64 indexed number, address indexed operator, bytes32 root);
    /// @notice Another root is in force.
    event RootSet(uint64 indexed epoch, uint64 indexed number, bytes32 root);

    /// @notice Only operators with a seat in the current epoch.
    error NotSeated(address caller);
    /// @notice A root of this number or a later one is in force, or the number leaves some out.
    error WrongNumber(uint64 given, uint64 expected);
    /// @notice The operator said something for this number already.
    error SaidAlready(bytes32 root);
    /// @notice No root is zero.
    error ZeroRoot();

    constructor(ISeats staking_) {
        staking = staking_;
    }

    /// @notice Says what the next root is. The quorum is that of consensus: `n - floor((n - 1) / 3)` of the epoch's `n` seats.
    /// @param number_ {number} plus one
    function say(uint64 number_, bytes32 root_) external {
        require(root_ != 0, ZeroRoot());
        require(number_ == number + 1, WrongNumber(number_, number + 1));
        uint64 epoch = staking.epoch();
        require(staking.wasSeated(epoch, msg.sender), NotSeated(msg.sender));
        bytes32 before = said[epoch][number_][msg.sender];
        require(before == 0, SaidAlready(before));
        said[epoch][number_][msg.sender] = root_;
        emit Said(epoch, number_, msg.sender, root_);
        uint256 same = ++count[epoch][number_][root_];
        uint256 seats = staking.seatCount(epoch);
        if (same >= seats - (seats - 1) / 3) {
            root = root_;
            number = number_;
            emit RootSet(epoch, number_, root_);
        }
    }
}
