// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Vesting} from "./Vesting.sol";

/// @title Emission
/// @notice Beneficiary of the supply's bucket for staking: divides what it releases among validators with their delegators, auditors and
/// inference nodes. Nothing is minted, and what nobody gets stays in the bucket (decisions D7, docs/specs/staking.md §6).
contract Emission {
    /// @notice The bucket; zero if the network has none, and then nothing is ever emitted.
    Vesting public immutable bucket;
    /// @notice Pays validators and delegators.
    address public immutable staking;
    /// @notice Who changes the division.
    address public immutable governance;

    /// @notice What the bucket had released when it was last divided.
    uint256 public divided;
    /// @notice Millionths of the emission for auditors (0) and inference nodes (1); the rest is for validators.
    uint32[2] public parts;
    /// @notice What is set aside in the bucket for each of them.
    uint256[2] public setAside;
    /// @notice Who gets that; zero as long as nobody does.
    address[2] public recipients;
    /// @notice The validators' part of the last epoch that is not paid yet. What is not paid before the next one has no owner.
    uint256 public current;

    /// @notice What was set aside was paid out.
    event Released(uint256 indexed pool, address indexed to, uint256 amount);
    /// @notice The division changed.
    event PartsSet(uint32 auditorsPpm, uint32 nodesPpm);
    /// @notice What is set aside for a pool goes to an account from now on.
    event RecipientSet(uint256 indexed pool, address indexed to);

    /// @notice Only governance may do this.
    error NotGovernance(address caller);
    /// @notice Only the staking contract may do this.
    error NotStaking(address caller);
    /// @notice The parts are more than the whole.
    error OutOfRange(uint256 sum);
    /// @notice No such pool, or nobody gets what is set aside for it.
    error NoRecipient(uint256 pool);
    /// @notice More than the validators' part of the epoch.
    error TooMuch(uint256 asked, uint256 left);

    constructor(Vesting bucket_, address staking_, address governance_, uint32 auditorsPpm, uint32 nodesPpm) {
        bucket = bucket_;
        staking = staking_;
        governance = governance_;
        _setParts(auditorsPpm, nodesPpm);
    }

    /// @notice Divides what the bucket released since the last time.
    /// @return validators the part for this epoch's seats
    function divide() external returns (uint256 validators) {
        require(msg.sender == staking, NotStaking(msg.sender));
        if (address(bucket) == address(0)) {
            return 0;
        }
        uint256 released = bucket.released(block.timestamp);
        uint256 fresh = released - divided;
        divided = released;
        uint256 auditors = fresh * parts[0] / 1e6;
        uint256 nodes = fresh * parts[1] / 1e6;
        setAside[0] += auditors;
        setAside[1] += nodes;
        validators = fresh - auditors - nodes;
        current = validators;
    }

    /// @notice Sends `amount` of the validators' part to the staking contract.
    function draw(uint256 amount) external {
        require(msg.sender == staking, NotStaking(msg.sender));
        require(amount <= current, TooMuch(amount, current));
        current -= amount;
        bucket.claim(staking, amount);
    }

    /// @notice Pays what is set aside for a pool to whom governance named for it. Anyone may call it.
    function release(uint256 pool) external returns (uint256 amount) {
        require(pool < 2 && recipients[pool] != address(0), NoRecipient(pool));
        amount = setAside[pool];
        setAside[pool] = 0;
        emit Released(pool, recipients[pool], amount);
        bucket.claim(recipients[pool], amount);
    }

    /// @notice Changes the division of what is released from now on.
    function setParts(uint32 auditorsPpm, uint32 nodesPpm) external {
        require(msg.sender == governance, NotGovernance(msg.sender));
        _setParts(auditorsPpm, nodesPpm);
    }

    /// @notice Names who gets what is set aside: pool 0 auditors, 1 inference nodes. Zero: nobody.
    function setRecipient(uint256 pool, address to) external {
        require(msg.sender == governance, NotGovernance(msg.sender));
        require(pool < 2, NoRecipient(pool));
        recipients[pool] = to;
        emit RecipientSet(pool, to);
    }

    function _setParts(uint32 auditorsPpm, uint32 nodesPpm) private {
        uint256 sum = uint256(auditorsPpm) + nodesPpm;
        require(sum <= 1e6, OutOfRange(sum));
        parts = [auditorsPpm, nodesPpm];
        emit PartsSet(auditorsPpm, nodesPpm);
    }
}
