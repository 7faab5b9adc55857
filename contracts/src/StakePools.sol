// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {ValidatorKeys} from "./ValidatorKeys.sol";

/// @title StakePools
/// @notice Stake behind validators: shares, rewards, unbonding and votes. The part of {Staking} that holds money.
/// @dev A share is worth `index / ONE` wei; the index of a pool starts at ONE and only slashing lowers it. Every division rounds against
/// whoever is paid, so what the contract holds is never less than what it owes (docs/specs/staking.md §4). Amounts are narrowed
/// to 128 bits before the token moves: one above the supply reverts there, and with it everything.
abstract contract StakePools is ValidatorKeys {
    using Checkpoints for Checkpoints.Trace208;

    /// @notice A validator with the pool of stake behind it.
    /// @param keyId number of its newest keys; 0 if it is not registered
    /// @param candidate position among the candidates, from 1; 0 if it is none
    /// @param commissionBps its part of its seat's rewards
    /// @param commissionEpoch epoch of the last change of that
    /// @param jailedUntil when it may leave the jail; 0 if it is in none
    /// @param exited left for ever
    /// @param tombstoned never to be seated again
    /// @param openCases slashing cases that await their end
    /// @param frozenFrom lowest epoch that one of those is about
    /// @param downIn newest epoch in which it was down, plus one
    /// @param shares shares of its pool
    /// @param index value of a share, ONE at first
    /// @param rewardPerShare rewards of one share since the beginning, in units of 2^-96 wei
    struct Validator {
        uint32 keyId;
        uint8 candidate;
        uint16 commissionBps;
        uint32 commissionEpoch;
        uint40 jailedUntil;
        bool exited;
        bool tombstoned;
        uint16 openCases;
        uint32 frozenFrom;
        uint32 downIn;
        uint128 shares;
        uint128 index;
        uint256 rewardPerShare;
    }

    /// @notice Stake of one account behind one validator. `owed` are rewards as of the last change.
    struct Position {
        uint128 shares;
        uint128 owed;
        uint256 rewardPerShare;
    }

    /// @notice What left one pool in the same epoch and waits, with a value of its shares like a pool's.
    struct Bucket {
        uint64 epoch;
        uint40 newest;
        uint128 index;
        uint128 shares;
    }

    /// @notice Part of a bucket that one account waits for.
    struct Unbonding {
        address operator;
        uint32 bucket;
        uint40 readyAt;
        uint128 shares;
    }

    /// @notice Value of a share at first.
    uint256 public constant ONE = 1e27;
    /// @notice Least value of a share of a pool that still takes stake.
    uint256 internal constant MIN_INDEX = ONE / 1e6;
    /// @notice Most validators that one account can have stake behind.
    uint256 internal constant MAX_POSITIONS = 32;
    /// @notice Most validators, ever, that the votes of one account come from.
    uint256 internal constant MAX_VOTE_SOURCES = 64;
    /// @notice Most unbonding buckets of one pool that are not over: bounds what a slash has to visit.
    uint256 internal constant MAX_BUCKETS = 64;
    /// @dev Rewards per share are counted in 2^-96 wei.
    uint256 private constant SCALE = 1 << 96;
    /// @notice The token.
    IERC20 public immutable opg;

    /// @notice Validators by operator.
    mapping(address operator => Validator) public validators;
    /// @notice Stake by validator and account.
    mapping(address operator => mapping(address account => Position)) public positions;
    /// @notice Buckets of each pool, oldest first.
    mapping(address operator => Bucket[]) public buckets;
    /// @notice What each account waits for.
    mapping(address account => Unbonding[]) public unbondings;
    /// @notice Stake of all pools, wei.
    uint256 public totalStake;
    /// @notice What is unbonding from all pools, wei.
    uint256 public totalUnbonding;
    /// @notice Rewards that are distributed and not paid out, wei.
    uint256 public rewardsHeld;
    /// @notice Whether an account takes votes of others.
    mapping(address account => bool) public acceptsVotes;
    mapping(address account => address) private _delegatee;
    mapping(address account => address[]) private _positionsOf;
    mapping(address delegatee => address[]) private _voteSources;
    mapping(address delegatee => mapping(address operator => Checkpoints.Trace208)) private _voteShares;
    mapping(address operator => Checkpoints.Trace208) private _indexAt;
    Checkpoints.Trace208 private _totalAt;

    /// @notice Stake was added.
    event Staked(address indexed operator, address indexed account, uint256 amount, uint256 shares);
    /// @notice Stake began to unbond; `id` is its place in the account's {unbondings}.
    event Unstaked(
        address indexed operator, address indexed account, uint256 amount, uint256 shares, uint256 id, uint40 readyAt
    );
    /// @notice Unbonded stake was paid out.
    event Withdrawn(address indexed account, uint256 indexed id, uint256 amount);
    /// @notice A seat's rewards were distributed.
    event Rewarded(address indexed operator, uint256 amount, uint256 commission);
    /// @notice Rewards were paid out.
    event Claimed(address indexed operator, address indexed account, uint256 amount);
    /// @notice Stake behind a validator was slashed, also what unbonds since `fault`.
    event Slashed(address indexed operator, uint64 indexed fault, uint32 ppm, uint256 amount);
    /// @notice An account's votes go to another.
    event DelegateChanged(address indexed delegator, address indexed fromDelegate, address indexed toDelegate);
    /// @notice An account takes votes of others, or does no longer.
    event AcceptsVotes(address indexed account, bool accepts);

    /// @notice No such validator, or it takes no stake: it left, is tombstoned, has an open case, or lost nearly everything.
    error NoStakeTaken(address operator);
    /// @notice The amount is zero or too small for a share.
    error AmountTooSmall();
    /// @notice More than the account has there.
    error InsufficientStake(uint256 asked, uint256 staked);
    /// @notice The account has stake behind as many validators as it may, or its delegatee has votes from as many as it may.
    error TooManyValidators(address account);
    /// @notice Not ready, frozen by an open case, or paid out.
    error NotReady(uint256 id, uint256 readyAt);
    /// @notice The account does not take votes of others.
    error VotesNotAccepted(address account);
    /// @notice The token returned false.
    error TransferFailed();
    /// @notice Votes are known of the past only.
    error FutureLookup(uint256 timepoint, uint48 clock);

    constructor(IERC20 opg_) {
        opg = opg_;
    }

    /// @notice Stake behind a validator, wei.
    function stakeOf(address operator) public view returns (uint256) {
        Validator storage v = validators[operator];
        return _value(v.shares, v.index);
    }

    /// @notice An account's own stake behind a validator, wei.
    function stakeOf(address operator, address account) public view returns (uint256) {
        return _value(positions[operator][account].shares, validators[operator].index);
    }

    /// @notice Rewards that {claim} would pay now.
    function pendingRewards(address operator, address account) external view returns (uint256) {
        Position storage p = positions[operator][account];
        return p.owed + _accrued(p.shares, validators[operator].rewardPerShare - p.rewardPerShare);
    }

    /// @notice What an unbonding is worth now, wei.
    function unbondingValue(address account, uint256 id) public view returns (uint256) {
        Unbonding storage u = unbondings[account][id];
        return _value(u.shares, buckets[u.operator][u.bucket].index);
    }

    /// @notice Number of an account's unbondings, also of those paid out.
    function unbondingCount(address account) external view returns (uint256) {
        return unbondings[account].length;
    }

    /// @notice Validators that an account has stake behind.
    function positionsOf(address account) external view returns (address[] memory) {
        return _positionsOf[account];
    }

    // ------------------------------------------------------------------ stake

    /// @notice Adds stake behind a validator; `amount` OPG must be approved to this contract.
    function stake(address operator, uint256 amount) external {
        Validator storage v = validators[operator];
        require(
            v.keyId != 0 && !v.exited && !v.tombstoned && v.openCases == 0 && v.index >= MIN_INDEX,
            NoStakeTaken(operator)
        );
        _stake(operator, msg.sender, amount);
    }

    /// @notice Takes `amount` from behind a validator, or everything if it is the highest number. It is slashed for faults of epochs up to
    /// the current one until it is paid out by {withdraw}.
    /// @return id place in the account's {unbondings}
    function unstake(address operator, uint256 amount) external returns (uint256 id) {
        Validator storage v = validators[operator];
        Position storage p = _settle(operator, msg.sender);
        uint256 held = p.shares;
        require(amount != 0 && held != 0, AmountTooSmall());
        uint256 shares = held;
        if (amount != type(uint256).max) {
            uint256 staked = _value(held, v.index);
            require(amount <= staked, InsufficientStake(amount, staked));
            // At most `held`, as `amount` is at most what those are worth.
            shares = Math.mulDiv(amount, ONE, v.index, Math.Rounding.Ceil);
        }
        amount = _value(shares, v.index);
        uint256 before = _value(v.shares, v.index);
        p.shares = uint128(held - shares);
        v.shares -= uint128(shares);
        _setTotal(totalStake + _value(v.shares, v.index) - before);
        if (p.shares == 0) {
            _removePosition(operator, msg.sender);
        }
        _moveVotes(operator, delegates(msg.sender), address(0), shares);
        id = _startUnbonding(operator, amount, shares);
    }

    /// @notice Pays out an unbonding of an account that is ready and not frozen. Anyone may call it.
    function withdraw(address account, uint256 id) external returns (uint256 amount) {
        Unbonding storage u = unbondings[account][id];
        Validator storage v = validators[u.operator];
        Bucket storage b = buckets[u.operator][u.bucket];
        uint128 shares = u.shares;
        require(
            shares != 0 && block.timestamp >= u.readyAt && (v.openCases == 0 || b.epoch < v.frozenFrom),
            NotReady(id, u.readyAt)
        );
        amount = _value(shares, b.index);
        u.shares = 0;
        uint256 before = _value(b.shares, b.index);
        b.shares -= shares;
        totalUnbonding = totalUnbonding + _value(b.shares, b.index) - before;
        emit Withdrawn(account, id, amount);
        _give(account, amount);
    }

    /// @notice Pays the sender its rewards from one validator.
    function claim(address operator) external returns (uint256 amount) {
        Position storage p = _settle(operator, msg.sender);
        amount = p.owed;
        p.owed = 0;
        rewardsHeld -= amount;
        emit Claimed(operator, msg.sender, amount);
        _give(msg.sender, amount);
    }

    // ------------------------------------------------------------------ votes

    /// @notice Who has the votes of an account's stake: itself unless it named another.
    function delegates(address account) public view returns (address) {
        address to = _delegatee[account];
        return to == address(0) ? account : to;
    }

    /// @notice Gives the votes of the sender's stake, present and future, to an account that takes them.
    function delegateVotes(address to) external {
        require(to == msg.sender || acceptsVotes[to], VotesNotAccepted(to));
        address from = delegates(msg.sender);
        _delegatee[msg.sender] = to;
        emit DelegateChanged(msg.sender, from, to);
        address[] storage list = _positionsOf[msg.sender];
        for (uint256 i; i < list.length; ++i) {
            _moveVotes(list[i], from, to, positions[list[i]][msg.sender].shares);
        }
    }

    /// @notice Says whether the sender takes votes of others. Such an account may run out of {MAX_VOTE_SOURCES}.
    function setAcceptsVotes(bool accepts) external {
        acceptsVotes[msg.sender] = accepts;
        emit AcceptsVotes(msg.sender, accepts);
    }

    /// @notice Votes of an account's stake and of what was delegated to it, wei.
    function getVotes(address account) external view returns (uint256) {
        return _votesAt(account, clock());
    }

    /// @notice The same at a time in the past.
    function getPastVotes(address account, uint256 timepoint) external view returns (uint256) {
        return _votesAt(account, _past(timepoint));
    }

    /// @notice All stake at a time in the past.
    function getPastTotalSupply(uint256 timepoint) external view returns (uint256) {
        return _totalAt.upperLookupRecent(_past(timepoint));
    }

    /// @notice Votes are counted by block timestamps (EIP-6372).
    function clock() public view returns (uint48) {
        return uint48(block.timestamp);
    }

    /// @notice Description of {clock}.
    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() external pure returns (string memory) {
        return "mode=timestamp";
    }

    // --------------------------------------------------------------- internal

    /// @dev Seconds that stake unbonds.
    function _unbondingTime() internal view virtual returns (uint40);

    /// @dev A validator's pool begins.
    function _openPool(address operator) internal {
        validators[operator].index = uint128(ONE);
        _indexAt[operator].push(clock(), uint208(ONE));
    }

    function _stake(address operator, address account, uint256 amount) internal {
        Validator storage v = validators[operator];
        uint256 shares = Math.mulDiv(amount, ONE, v.index);
        require(shares != 0, AmountTooSmall());
        Position storage p = _settle(operator, account);
        if (p.shares == 0) {
            address[] storage list = _positionsOf[account];
            require(list.length < MAX_POSITIONS, TooManyValidators(account));
            list.push(operator);
        }
        uint256 before = _value(v.shares, v.index);
        p.shares += uint128(shares);
        v.shares += uint128(shares);
        _setTotal(totalStake + _value(v.shares, v.index) - before);
        _moveVotes(operator, address(0), delegates(account), shares);
        emit Staked(operator, account, amount, shares);
        _take(account, amount);
    }

    /// @dev Gives a seat's rewards to its pool and its operator.
    /// @return what was given: nothing if the pool is empty
    function _reward(address operator, uint256 amount) internal returns (uint256) {
        Validator storage v = validators[operator];
        uint256 shares = v.shares;
        if (shares == 0 || amount == 0) {
            return 0;
        }
        uint256 commission = amount * v.commissionBps / 10_000;
        v.rewardPerShare += Math.mulDiv(amount - commission, SCALE, shares);
        positions[operator][operator].owed += uint128(commission);
        emit Rewarded(operator, amount, commission);
        return amount;
    }

    /// @dev Takes `ppm` millionths, rounded up, of a pool and of what left it in the fault's epoch or later, out of the books.
    function _slash(address operator, uint64 fault, uint32 ppm) internal returns (uint256 taken) {
        Validator storage v = validators[operator];
        uint256 keep = 1e6 - ppm;
        uint256 before = _value(v.shares, v.index);
        v.index = uint128(uint256(v.index) * keep / 1e6);
        taken = before - _value(v.shares, v.index);
        _indexAt[operator].push(clock(), v.index);
        _setTotal(totalStake - taken);
        Bucket[] storage list = buckets[operator];
        uint256 end = list.length > MAX_BUCKETS ? list.length - MAX_BUCKETS : 0;
        uint256 unbonded;
        for (uint256 i = list.length; i > end && list[i - 1].epoch >= fault; --i) {
            Bucket storage b = list[i - 1];
            before = _value(b.shares, b.index);
            b.index = uint128(uint256(b.index) * keep / 1e6);
            unbonded += before - _value(b.shares, b.index);
        }
        totalUnbonding -= unbonded;
        taken += unbonded;
        emit Slashed(operator, fault, ppm, taken);
    }

    /// @dev Stake that a slash for a fault of this epoch would reach, wei.
    function _liable(address operator, uint64 fault) internal view returns (uint256 amount) {
        amount = stakeOf(operator);
        Bucket[] storage list = buckets[operator];
        uint256 end = list.length > MAX_BUCKETS ? list.length - MAX_BUCKETS : 0;
        for (uint256 i = list.length; i > end && list[i - 1].epoch >= fault; --i) {
            amount += _value(list[i - 1].shares, list[i - 1].index);
        }
    }

    /// @dev The last step of whatever calls it.
    function _give(address to, uint256 amount) internal {
        require(opg.transfer(to, amount), TransferFailed());
    }

    /// @dev The last step of whatever calls it.
    function _take(address from, uint256 amount) internal {
        require(opg.transferFrom(from, address(this), amount), TransferFailed());
    }

    function _settle(address operator, address account) private returns (Position storage p) {
        p = positions[operator][account];
        uint256 perShare = validators[operator].rewardPerShare;
        if (p.rewardPerShare != perShare) {
            p.owed += uint128(_accrued(p.shares, perShare - p.rewardPerShare));
            p.rewardPerShare = perShare;
        }
    }

    /// @dev A bucket takes what left in one epoch. Should as many as a slash can visit be under way, the newest takes more, and counts as of
    /// now: nothing escapes a slash by filling the list.
    function _startUnbonding(address operator, uint256 amount, uint256 poolShares) private returns (uint256 id) {
        Bucket[] storage list = buckets[operator];
        uint256 count = list.length;
        uint40 time = _unbondingTime();
        bool fresh = count == 0 || list[count - 1].epoch != epoch;
        if (fresh && count >= MAX_BUCKETS && list[count - MAX_BUCKETS].newest + time > block.timestamp) {
            list[count - 1].epoch = epoch;
            fresh = false;
        }
        if (!fresh && list[count - 1].index < MIN_INDEX) {
            // Slashed to nothing: what comes now has no part in it.
            fresh = true;
        }
        if (fresh) {
            list.push(Bucket(epoch, 0, uint128(ONE), 0));
            ++count;
        }
        Bucket storage b = list[count - 1];
        uint256 shares = Math.mulDiv(amount, ONE, b.index);
        uint256 before = _value(b.shares, b.index);
        b.newest = uint40(block.timestamp);
        b.shares += uint128(shares);
        totalUnbonding = totalUnbonding + _value(b.shares, b.index) - before;
        uint40 readyAt = uint40(block.timestamp) + time;
        id = unbondings[msg.sender].length;
        unbondings[msg.sender].push(Unbonding(operator, uint32(count - 1), readyAt, uint128(shares)));
        emit Unstaked(operator, msg.sender, amount, poolShares, id, readyAt);
    }

    function _removePosition(address operator, address account) private {
        address[] storage list = _positionsOf[account];
        for (uint256 i; i < list.length; ++i) {
            if (list[i] == operator) {
                list[i] = list[list.length - 1];
                list.pop();
                return;
            }
        }
    }

    function _moveVotes(address operator, address from, address to, uint256 shares) private {
        if (from == to) {
            return;
        }
        if (from != address(0)) {
            Checkpoints.Trace208 storage trace = _voteShares[from][operator];
            trace.push(clock(), trace.latest() - uint208(shares));
        }
        if (to != address(0)) {
            Checkpoints.Trace208 storage trace = _voteShares[to][operator];
            if (trace.length() == 0) {
                require(_voteSources[to].length < MAX_VOTE_SOURCES, TooManyValidators(to));
                _voteSources[to].push(operator);
            }
            trace.push(clock(), trace.latest() + uint208(shares));
        }
    }

    function _votesAt(address account, uint48 time) private view returns (uint256 votes) {
        address[] storage list = _voteSources[account];
        for (uint256 i; i < list.length; ++i) {
            uint256 shares = _voteShares[account][list[i]].upperLookupRecent(time);
            if (shares != 0) {
                votes += _value(shares, _indexAt[list[i]].upperLookupRecent(time));
            }
        }
    }

    function _setTotal(uint256 total) private {
        totalStake = total;
        _totalAt.push(clock(), uint208(total));
    }

    function _past(uint256 timepoint) private view returns (uint48) {
        require(timepoint < block.timestamp, FutureLookup(timepoint, clock()));
        return uint48(timepoint);
    }

    function _value(uint256 shares, uint256 index) private pure returns (uint256) {
        return shares * index / ONE;
    }

    function _accrued(uint256 shares, uint256 perShare) private pure returns (uint256) {
        return Math.mulDiv(shares, perShare, SCALE);
    }
}
