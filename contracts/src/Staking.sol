// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Emission} from "./Emission.sol";
import {KeyProofs} from "./KeyProofs.sol";
import {StakePools} from "./StakePools.sol";
import {ValidatorKeys} from "./ValidatorKeys.sol";

/// @title Staking
/// @notice Who may validate: anybody with keys and a self-bond registers, stake decides who gets seats, every seat has one vote and the
/// same rewards (decisions D5, D16; docs/specs/staking.md).
/// @dev {endEpoch} is a system transaction: validators recompute its calldata from the views inside the epoch's blocks. Its gas is
/// bounded by {MAX_CANDIDATES}, however many validators are registered.
contract Staking is StakePools {
    /// @notice What one seat did in an epoch: leader views that became blocks, and those that were nullified.
    struct SeatReport {
        address operator;
        uint32 led;
        uint32 missed;
    }

    /// @notice Parameters, all governed.
    /// @param minSelfBond least stake of an operator behind itself to be seated, wei
    /// @param unbonding seconds between {unstake} and {withdraw}
    /// @param jailTime seconds in jail for being down
    /// @param maxSeats most seats of a set
    /// @param commissionStep most that a commission may change in an epoch, basis points
    /// @param minViews fewest leader views of an epoch from which a seat can count as down
    /// @param minLedPpm least part of its leader views that a seat must win not to count as down, millionths
    struct Parameters {
        uint128 minSelfBond;
        uint40 unbonding;
        uint40 jailTime;
        uint16 maxSeats;
        uint16 commissionStep;
        uint32 minViews;
        uint32 minLedPpm;
    }

    /// @notice A validator of block 0, whose proofs were checked by whoever reads the genesis file.
    struct GenesisSeat {
        Seat seat;
        uint128 bond;
    }

    /// @notice Fewest seats of a set; with fewer, the set before stays.
    uint256 internal constant MIN_SEATS = 4;
    /// @notice Most seats of a set, whatever governance says.
    uint256 internal constant MAX_SEATS = 100;
    /// @notice Most validators that {endEpoch} looks at; others get in by outbidding the weakest ({enter}).
    uint256 internal constant MAX_CANDIDATES = 128;
    /// @notice Most seconds of unbonding.
    uint256 internal constant MAX_UNBONDING = 365 days;
    /// @notice Who changes parameters.
    address public immutable governance;
    /// @notice Who freezes and slashes.
    address public immutable slashing;
    /// @notice Where the validators' part of the emission comes from.
    Emission public immutable emission;

    /// @notice The parameters in force.
    Parameters public parameters;
    /// @notice Validators that {endEpoch} looks at.
    address[] public candidates;
    /// @notice When each epoch began.
    mapping(uint64 epoch => uint40) public startedAt;
    /// @notice OPG for the rewards of the coming epochs beside the emission.
    uint256 public fees;

    /// @notice A validator registered.
    event ValidatorRegistered(address indexed operator, uint256 keyId, uint16 commissionBps);
    /// @notice A validator left for ever.
    event ValidatorExited(address indexed operator);
    /// @notice A validator has another commission.
    event CommissionSet(address indexed operator, uint16 commissionBps);
    /// @notice A validator is a candidate, in the place of another one if that is not zero.
    event CandidateEntered(address indexed operator, address indexed displaced);
    /// @notice A validator is no longer a candidate.
    event CandidateLeft(address indexed operator);
    /// @notice A validator is in jail until it asks to leave, which it may from then on.
    event Jailed(address indexed operator, uint40 until);
    /// @notice A validator left the jail.
    event Unjailed(address indexed operator);
    /// @notice A validator is never to be seated again.
    event Tombstoned(address indexed operator);
    /// @notice An epoch ended. `renewed` is false if too few were eligible and the set stays.
    event EpochEnded(uint64 indexed epoch, uint256 rewards, uint256 seats, bool renewed);
    /// @notice Somebody added to the rewards.
    event Funded(address indexed from, uint256 amount);
    /// @notice The parameters changed.
    event ParametersSet(Parameters parameters);

    /// @notice Only governance may do this.
    error NotGovernance(address caller);
    /// @notice Only the slashing contract may do this.
    error NotSlashing(address caller);
    /// @notice Not a system transaction of the block's proposer.
    error NotSystemTransaction(address sender);
    /// @notice Another epoch is current.
    error WrongEpoch(uint64 given, uint64 current);
    /// @notice A parameter is out of its range.
    error OutOfRange(uint256 value, uint256 least, uint256 most);
    /// @notice The operator registered before, also if it has left.
    error AlreadyRegistered(address operator);
    /// @notice The operator is not registered, or has left.
    error NotRegistered(address operator);
    /// @notice The operator's own stake is below the minimum.
    error SelfBondTooSmall(uint256 stake, uint256 minimum);
    /// @notice The commission is above 100 %, changes by too much, or has changed in this epoch.
    error InvalidCommission(uint16 commissionBps);
    /// @notice Not in jail, not yet free to leave it, or never.
    error CannotUnjail(address operator, uint40 until);
    /// @notice The validator is a candidate already, is not eligible, or has no more stake than any candidate.
    error CannotEnter(address operator);
    constructor(
        IERC20 opg_,
        KeyProofs keyProofs_,
        address governance_,
        address slashing_,
        Emission emission_,
        Parameters memory parameters_,
        GenesisSeat[] memory genesis
    ) ValidatorKeys(keyProofs_) StakePools(opg_) {
        governance = governance_;
        slashing = slashing_;
        emission = emission_;
        _setParameters(parameters_);
        startedAt[0] = uint40(block.timestamp);
        uint32[] memory ids = new uint32[](genesis.length);
        for (uint256 i; i < genesis.length; ++i) {
            Seat memory seat = genesis[i].seat;
            _range(seat.blsKey.length, 96, 96);
            ids[i] = _addKeys(seat.operator, seat.consensusKey, seat.blsKey, seat.system);
            _register(seat.operator, ids[i], 0, genesis[i].bond);
        }
        _seat(0, ids);
    }

    modifier onlyGovernance() {
        require(msg.sender == governance, NotGovernance(msg.sender));
        _;
    }

    modifier onlySlashing() {
        require(msg.sender == slashing, NotSlashing(msg.sender));
        _;
    }

    // ------------------------------------------------------------- validators

    /// @notice Registers the sender as a validator with `bond` OPG of its own behind itself, which must be approved to this contract.
    function register(KeyRegistration calldata keys, uint16 commissionBps, uint256 bond) external {
        require(validators[msg.sender].keyId == 0, AlreadyRegistered(msg.sender));
        require(bond >= parameters.minSelfBond, SelfBondTooSmall(bond, parameters.minSelfBond));
        require(commissionBps <= 10_000, InvalidCommission(commissionBps));
        _register(msg.sender, _registerKeys(msg.sender, keys), commissionBps, bond);
    }

    /// @notice Gives the sender's validator other keys, from its next seat on. The ones in use stay so until their epoch ends.
    function rotateKeys(KeyRegistration calldata keys) external {
        Validator storage v = _registered(msg.sender);
        v.keyId = _registerKeys(msg.sender, keys);
    }

    /// @notice Leaves for ever. A current seat lasts until its epoch ends; stake is taken out by {unstake}.
    function exit() external {
        Validator storage v = _registered(msg.sender);
        v.exited = true;
        emit ValidatorExited(msg.sender);
        _removeCandidate(msg.sender);
    }

    /// @notice Sets the sender's commission: once an epoch and by a bounded step.
    function setCommission(uint16 commissionBps) external {
        Validator storage v = _registered(msg.sender);
        uint16 now_ = v.commissionBps;
        uint16 step = commissionBps > now_ ? commissionBps - now_ : now_ - commissionBps;
        require(
            commissionBps <= 10_000 && step <= parameters.commissionStep && v.commissionEpoch != epoch + 1,
            InvalidCommission(commissionBps)
        );
        v.commissionBps = commissionBps;
        v.commissionEpoch = uint32(epoch + 1);
        emit CommissionSet(msg.sender, commissionBps);
    }

    /// @notice Takes the sender's validator out of jail, once its time is over and its self-bond is large enough.
    function unjail() external {
        Validator storage v = _registered(msg.sender);
        uint40 until = v.jailedUntil;
        require(
            until != 0 && block.timestamp >= until && !v.tombstoned && v.openCases == 0,
            CannotUnjail(msg.sender, until)
        );
        uint256 own = stakeOf(msg.sender, msg.sender);
        require(own >= parameters.minSelfBond, SelfBondTooSmall(own, parameters.minSelfBond));
        v.jailedUntil = 0;
        emit Unjailed(msg.sender);
    }

    /// @notice Makes an eligible validator a candidate: at once while there is room, else in the place of the weakest one, which must have
    /// less stake or not be eligible. Anyone may call it.
    function enter(address operator) external {
        Validator storage v = validators[operator];
        uint256 rank = _rank(operator);
        require(rank != 0 && v.candidate == 0, CannotEnter(operator));
        if (candidates.length < MAX_CANDIDATES) {
            _addCandidate(operator);
            return;
        }
        uint256 weakest;
        uint256 least = type(uint256).max;
        for (uint256 i; i < MAX_CANDIDATES; ++i) {
            uint256 other = _rank(candidates[i]);
            if (other < least) {
                (weakest, least) = (i, other);
            }
        }
        // Stake alone decides: an equal one, though registered later or earlier, does not displace.
        require(rank >> 32 > least >> 32, CannotEnter(operator));
        address displaced = candidates[weakest];
        validators[displaced].candidate = 0;
        candidates[weakest] = operator;
        v.candidate = uint8(weakest + 1);
        emit CandidateEntered(operator, displaced);
    }

    /// @notice Number of candidates.
    function candidateCount() external view returns (uint256) {
        return candidates.length;
    }

    /// @notice Whether a validator could be seated now.
    function isEligible(address operator) external view returns (bool) {
        return _rank(operator) != 0;
    }

    // ----------------------------------------------------------------- epochs

    /// @notice Ends an epoch: jails seats that were down, pays the others, and seats the next set.
    /// @dev Must never revert for a system transaction that validators have agreed on, so it checks no more than that and skips
    /// reports about operators it does not know.
    function endEpoch(uint64 epoch_, SeatReport[] calldata report) external {
        require(
            // solhint-disable-next-line avoid-tx-origin
            msg.sender == tx.origin && msg.sender == block.coinbase && isSystem(msg.sender),
            NotSystemTransaction(msg.sender)
        );
        require(epoch_ == epoch, WrongEpoch(epoch_, epoch));
        for (uint256 i; i < report.length; ++i) {
            _judge(report[i], epoch_);
        }
        uint32[] memory old = _sets[epoch_];
        uint256 paid = _pay(old);
        uint32[] memory next = _select();
        bool renewed = next.length >= MIN_SEATS;
        if (!renewed) {
            next = old;
        }
        _seat(epoch_ + 1, next);
        epoch = epoch_ + 1;
        startedAt[epoch_ + 1] = uint40(block.timestamp);
        emit EpochEnded(epoch_, paid, next.length, renewed);
    }

    /// @notice Adds OPG of the sender, which must be approved to this contract, to the rewards of the coming epochs.
    function fund(uint256 amount) external {
        fees += amount;
        emit Funded(msg.sender, amount);
        _take(msg.sender, amount);
    }

    // --------------------------------------------------------------- slashing

    /// @notice Stake that a slash for a fault of this epoch would reach, wei.
    function liable(address operator, uint64 fault) external view returns (uint256) {
        return _liable(operator, fault);
    }

    /// @notice A case about a fault of epoch `fault` begins: nothing that is liable for it can be withdrawn until it ends.
    /// @param until time in jail; 0 for none
    function freeze(address operator, uint64 fault, uint40 until) external onlySlashing {
        Validator storage v = validators[operator];
        if (v.openCases == 0 || fault < v.frozenFrom) {
            v.frozenFrom = uint32(fault);
        }
        ++v.openCases;
        if (until != 0) {
            _jail(operator, until);
        }
    }

    /// @notice A case ends: `ppm` millionths of what is liable go to the slashing contract, or nothing if it was dismissed.
    function unfreeze(address operator, uint64 fault, uint32 ppm, bool tombstone)
        external
        onlySlashing
        returns (uint256 taken)
    {
        Validator storage v = validators[operator];
        --v.openCases;
        if (tombstone && !v.tombstoned) {
            v.tombstoned = true;
            emit Tombstoned(operator);
            _removeCandidate(operator);
        }
        if (ppm != 0) {
            taken = _slash(operator, fault, ppm);
            _give(slashing, taken);
        }
    }

    // ------------------------------------------------------------- governance

    /// @notice Sets the parameters. Stake that unbonds already keeps its time.
    function setParameters(Parameters calldata parameters_) external onlyGovernance {
        _setParameters(parameters_);
    }

    // --------------------------------------------------------------- internal

    function _unbondingTime() internal view override returns (uint40) {
        return parameters.unbonding;
    }

    function _registered(address operator) private view returns (Validator storage v) {
        v = validators[operator];
        require(v.keyId != 0 && !v.exited, NotRegistered(operator));
    }

    function _register(address operator, uint32 id, uint16 commissionBps, uint256 bond) private {
        require(validators[operator].keyId == 0, AlreadyRegistered(operator));
        Validator storage v = validators[operator];
        v.keyId = id;
        v.commissionBps = commissionBps;
        _openPool(operator);
        emit ValidatorRegistered(operator, id, commissionBps);
        if (bond != 0) {
            // Only the validators of block 0 can be without.
            _stake(operator, operator, bond);
        }
        if (candidates.length < MAX_CANDIDATES) {
            _addCandidate(operator);
        }
    }

    function _addCandidate(address operator) private {
        candidates.push(operator);
        validators[operator].candidate = uint8(candidates.length);
        emit CandidateEntered(operator, address(0));
    }

    function _removeCandidate(address operator) private {
        Validator storage v = validators[operator];
        uint8 slot = v.candidate;
        if (slot == 0) {
            return;
        }
        v.candidate = 0;
        address last = candidates[candidates.length - 1];
        candidates.pop();
        if (last != operator) {
            candidates[slot - 1] = last;
            validators[last].candidate = slot;
        }
        emit CandidateLeft(operator);
    }

    /// @dev Zero if not eligible; else stake, and below it what breaks ties: the older keys win.
    function _rank(address operator) private view returns (uint256) {
        Validator storage v = validators[operator];
        if (v.keyId == 0 || v.exited || v.tombstoned || v.jailedUntil != 0) {
            return 0;
        }
        uint256 minimum = parameters.minSelfBond;
        if (stakeOf(operator, operator) < minimum) {
            return 0;
        }
        return stakeOf(operator) << 32 | (type(uint32).max - v.keyId);
    }

    function _judge(SeatReport calldata seat, uint64 epoch_) private {
        Validator storage v = validators[seat.operator];
        uint256 views = uint256(seat.led) + seat.missed;
        if (
            v.keyId != 0 && views != 0 && views >= parameters.minViews
                && uint256(seat.led) * 1e6 < views * parameters.minLedPpm
        ) {
            v.downIn = uint32(epoch_ + 1);
            _jail(seat.operator, uint40(block.timestamp) + parameters.jailTime);
        }
    }

    function _jail(address operator, uint40 until) private {
        Validator storage v = validators[operator];
        if (until > v.jailedUntil) {
            v.jailedUntil = until;
            emit Jailed(operator, until);
        }
    }

    /// @dev Equal parts for all seats. A seat in jail gets nothing; its part stays where it is: emission in the bucket, fees for the next epoch.
    function _pay(uint32[] memory ids) private returns (uint256 paid) {
        uint256 emitted = emission.divide();
        uint256 part = (emitted + fees) / ids.length;
        for (uint256 i; i < ids.length; ++i) {
            address operator = _keys[ids[i]].operator;
            if (validators[operator].jailedUntil == 0 && !validators[operator].tombstoned) {
                paid += _reward(operator, part);
            }
        }
        rewardsHeld += paid;
        // Emission first: what is left of it has no owner, what is left of the fees has.
        uint256 fromBucket = paid < emitted ? paid : emitted;
        fees -= paid - fromBucket;
        if (fromBucket != 0) {
            emission.draw(fromBucket);
        }
    }

    /// @dev The eligible candidates of the highest rank, best first.
    function _select() private view returns (uint32[] memory ids) {
        uint256 count = candidates.length;
        uint256[] memory ranks = new uint256[](count);
        uint256 found;
        for (uint256 i; i < count; ++i) {
            uint256 rank = _rank(candidates[i]);
            if (rank == 0) {
                continue;
            }
            // Insertion keeps the list sorted; at most 128 items.
            uint256 slot = found++;
            while (slot != 0 && ranks[slot - 1] < rank) {
                ranks[slot] = ranks[slot - 1];
                --slot;
            }
            ranks[slot] = rank;
        }
        uint256 most = parameters.maxSeats;
        ids = new uint32[](found < most ? found : most);
        for (uint256 i; i < ids.length; ++i) {
            ids[i] = type(uint32).max - uint32(ranks[i]);
        }
    }

    function _setParameters(Parameters memory p) private {
        _range(p.minSelfBond, 1e18, 1e25);
        _range(p.unbonding, 1, MAX_UNBONDING);
        _range(p.jailTime, 1, MAX_UNBONDING);
        _range(p.maxSeats, MIN_SEATS, MAX_SEATS);
        _range(p.commissionStep, 1, 10_000);
        _range(p.minViews, 1, type(uint32).max);
        _range(p.minLedPpm, 0, 900_000);
        parameters = p;
        emit ParametersSet(p);
    }

    function _range(uint256 value, uint256 least, uint256 most) private pure {
        require(value >= least && value <= most, OutOfRange(value, least, most));
    }
}
