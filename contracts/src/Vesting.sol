// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title Vesting
/// @notice One bucket of the supply, released by a schedule that nobody can change: `atStart` at once, the rest linearly over
/// `duration` seconds after `cliff` seconds. Only the beneficiary can claim.
/// @dev The contract holds `total` OPG from block 0 on and delegates to nobody: what is locked has no votes. OPG that somebody sends
/// here later is in no schedule and can never leave.
contract Vesting {
    using SafeERC20 for IERC20;

    /// @notice The token.
    IERC20 public immutable opg;
    /// @notice OPG of the bucket, wei.
    uint256 public immutable total;
    /// @notice Part of it that is free from {start} on.
    uint256 public immutable atStart;
    /// @notice Unix time at which the schedule begins.
    uint40 public immutable start;
    /// @notice Seconds after {start} in which nothing more is released.
    uint40 public immutable cliff;
    /// @notice Seconds after the cliff over which the rest is released.
    uint40 public immutable duration;

    /// @notice Who may claim.
    address public beneficiary;
    /// @notice Who may become beneficiary by accepting.
    address public pendingBeneficiary;
    /// @notice OPG paid out so far, wei.
    uint256 public claimed;

    /// @notice OPG was paid out.
    event Claimed(address indexed beneficiary, address indexed to, uint256 amount);
    /// @notice The beneficiary named a successor, who has to accept.
    event BeneficiaryProposed(address indexed beneficiary, address indexed successor);
    /// @notice The bucket has another beneficiary.
    event BeneficiaryChanged(address indexed from, address indexed to);

    /// @notice Only the beneficiary may do this.
    error NotBeneficiary(address caller);
    /// @notice Only the named successor may do this.
    error NotSuccessor(address caller);
    /// @notice More than what is released and not claimed.
    error NotReleased(uint256 amount, uint256 claimable);
    /// @notice The schedule releases more than the bucket has, or less in the end.
    error InvalidSchedule();
    /// @notice Zero cannot receive.
    error InvalidReceiver();

    constructor(
        IERC20 opg_,
        address beneficiary_,
        uint256 total_,
        uint256 atStart_,
        uint40 start_,
        uint40 cliff_,
        uint40 duration_
    ) {
        require(
            beneficiary_ != address(0) && atStart_ <= total_ && (duration_ != 0 || atStart_ == total_),
            InvalidSchedule()
        );
        opg = opg_;
        beneficiary = beneficiary_;
        total = total_;
        atStart = atStart_;
        start = start_;
        cliff = cliff_;
        duration = duration_;
    }

    /// @notice OPG released until `time`: `A + floor((T - A) * clamp(time - start - cliff, 0, D) / D)`, nothing before {start}.
    function released(uint256 time) public view returns (uint256) {
        if (time < start) {
            return 0;
        }
        uint256 begin = uint256(start) + cliff;
        if (time <= begin || duration == 0) {
            return atStart;
        }
        uint256 passed = Math.min(time - begin, duration);
        return atStart + Math.mulDiv(total - atStart, passed, duration);
    }

    /// @notice OPG that can be claimed now.
    function claimable() public view returns (uint256) {
        return released(block.timestamp) - claimed;
    }

    /// @notice Pays `amount` of what is released to `to`.
    function claim(address to, uint256 amount) external {
        require(msg.sender == beneficiary, NotBeneficiary(msg.sender));
        require(to != address(0) && to != address(this), InvalidReceiver());
        uint256 available = claimable();
        require(amount <= available, NotReleased(amount, available));
        claimed += amount;
        emit Claimed(msg.sender, to, amount);
        opg.safeTransfer(to, amount);
    }

    /// @notice Names a successor; nothing changes until the successor accepts. Zero withdraws the offer.
    function proposeBeneficiary(address successor) external {
        require(msg.sender == beneficiary, NotBeneficiary(msg.sender));
        pendingBeneficiary = successor;
        emit BeneficiaryProposed(msg.sender, successor);
    }

    /// @notice The named successor becomes beneficiary.
    function acceptBeneficiary() external {
        require(msg.sender == pendingBeneficiary, NotSuccessor(msg.sender));
        emit BeneficiaryChanged(beneficiary, msg.sender);
        beneficiary = msg.sender;
        pendingBeneficiary = address(0);
    }
}
