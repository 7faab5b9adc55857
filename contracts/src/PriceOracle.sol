// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Governed} from "./Governed.sol";

/// @notice Knows the validators' system accounts: the receipt ledger or the staking contract.
interface IValidators {
    /// @notice Whether the account sends system transactions of a current validator.
    function isSystem(address account) external view returns (bool);
}

/// @title PriceOracle
/// @notice Price of one OPG in millionths of a USD: each minute the median of what validators sign, averaged over five minutes.
/// @dev Blocks take no ordinary transactions of system accounts (decisions D16), so validators sign feeds and anyone relays them. A price
/// that leaves the one before by more than a tenth is not taken over until it has stayed for {RECOVERY_ROUNDS} rounds; until then
/// there is no usable price and only what is quoted in OPG or in stable coin can be paid.
contract PriceOracle is Governed, EIP712 {
    /// @notice One validator's price for one round.
    struct Feed {
        address account;
        uint64 round;
        uint128 price;
        bytes signature;
    }

    /// @notice Seconds of a round; its number is the time divided by them.
    uint256 public constant ROUND_SECONDS = 60;
    /// @notice Rounds that a price is averaged over.
    uint256 public constant WINDOW_ROUNDS = 5;
    /// @notice Rounds for which a price that jumped has to stay, each within the limit of the one before, until it is taken over.
    uint16 public constant RECOVERY_ROUNDS = 30;
    /// @notice Largest change from one average to the next, basis points.
    uint256 public constant MAX_CHANGE_BPS = 1_000;
    /// @notice Highest price, a million USD.
    uint128 public constant MAX_PRICE = 1e12;
    /// @notice Most feeds of a round: the largest validator set.
    uint256 public constant MAX_FEEDS = 100;
    /// @notice Hash of the EIP-712 type of a feed.
    bytes32 public constant FEED_TYPEHASH = keccak256("PriceFeed(uint64 round,uint128 price)");
    /// @notice Knows the validators.
    IValidators public immutable validators;

    /// @notice Newest average that was taken over, millionths of a USD; 0 if there is none.
    uint128 public price;
    /// @notice End of the round that it stems from.
    uint40 public updatedAt;
    /// @notice Whether newer averages left it by too much.
    bool public tripped;
    /// @notice Feeds without which a round counts for nothing.
    uint8 public minFeeds;
    /// @notice Seconds after which a price is no longer usable.
    uint32 public maxAge;
    /// @notice Newest average that was not taken over.
    uint128 public candidate;
    /// @notice How many such averages followed each other.
    uint16 public agreeing;
    /// @notice The round that feeds are collected for.
    uint64 public openRound;
    uint8 private _count;
    uint8 private _newest;
    uint128[MAX_FEEDS] private _prices;
    uint128[WINDOW_ROUNDS] private _medians;
    uint64[WINDOW_ROUNDS] private _rounds;
    /// @notice Newest round that each validator has fed.
    mapping(address account => uint64) public lastRound;

    /// @notice A validator's feed counts.
    event Fed(address indexed account, uint64 indexed round, uint128 price);
    /// @notice A round is over. `average` is what the price would be by it.
    event RoundClosed(uint64 indexed round, uint128 median, uint128 average, bool taken);
    /// @notice Governance changed the limits.
    event LimitsSet(uint8 minFeeds, uint32 maxAge);

    /// @notice The feed is for another round.
    error WrongRound(uint64 given, uint64 current);
    /// @notice The account is no current validator's system account.
    error NotValidator(address account);
    /// @notice The signature is not the account's.
    error InvalidSignature(address account);
    /// @notice The price is zero or too high.
    error InvalidPrice(uint128 price);
    /// @notice A limit is out of its range.
    error OutOfRange(uint256 value, uint256 least, uint256 most);
    /// @notice There is no price, it is too old, or it jumped.
    error NoPrice(uint40 updatedAt, bool tripped);

    constructor(address governance_, IValidators validators_, uint8 minFeeds_, uint32 maxAge_)
        Governed(governance_)
        EIP712("OpenGradient PriceOracle", "1")
    {
        validators = validators_;
        _setLimits(minFeeds_, maxAge_);
    }

    /// @notice Changes how many feeds a round needs and how old a price may be.
    function setLimits(uint8 minFeeds_, uint32 maxAge_) external onlyGovernance {
        _setLimits(minFeeds_, maxAge_);
    }

    /// @notice Counts feeds of the current round, one of each validator; one that was counted before is passed over. Anyone may call it.
    function submit(Feed[] calldata feeds) external {
        uint64 round = uint64(block.timestamp / ROUND_SECONDS);
        _closeBefore(round);
        for (uint256 i; i < feeds.length; ++i) {
            Feed calldata feed = feeds[i];
            require(feed.round == round, WrongRound(feed.round, round));
            if (lastRound[feed.account] >= round) {
                continue;
            }
            require(feed.price != 0 && feed.price <= MAX_PRICE, InvalidPrice(feed.price));
            require(validators.isSystem(feed.account), NotValidator(feed.account));
            require(
                ECDSA.recoverCalldata(feedDigest(feed.round, feed.price), feed.signature) == feed.account,
                InvalidSignature(feed.account)
            );
            if (_count == MAX_FEEDS) {
                break;
            }
            lastRound[feed.account] = round;
            _prices[_count++] = feed.price;
            emit Fed(feed.account, round, feed.price);
        }
    }

    /// @notice Closes the last round if it is over. Feeds of a later one do so too.
    function poke() external {
        _closeBefore(uint64(block.timestamp / ROUND_SECONDS));
    }

    /// @notice The price, the end of its newest round, and whether it may be used now.
    function latest() public view returns (uint128, uint40, bool) {
        return (price, updatedAt, price != 0 && !tripped && block.timestamp <= uint256(updatedAt) + maxAge);
    }

    /// @notice The price, or an error if it may not be used.
    function usablePrice() external view returns (uint128) {
        (uint128 value, uint40 time, bool usable) = latest();
        require(usable, NoPrice(time, tripped));
        return value;
    }

    /// @notice What a validator signs.
    function feedDigest(uint64 round, uint128 price_) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(FEED_TYPEHASH, round, price_)));
    }

    function _setLimits(uint8 minFeeds_, uint32 maxAge_) private {
        require(minFeeds_ >= 3 && minFeeds_ <= MAX_FEEDS, OutOfRange(minFeeds_, 3, MAX_FEEDS));
        require(maxAge_ >= ROUND_SECONDS && maxAge_ <= 4 hours, OutOfRange(maxAge_, ROUND_SECONDS, 4 hours));
        minFeeds = minFeeds_;
        maxAge = maxAge_;
        emit LimitsSet(minFeeds_, maxAge_);
    }

    function _closeBefore(uint64 round) private {
        uint64 closing = openRound;
        if (closing >= round) {
            return;
        }
        openRound = round;
        uint256 count = _count;
        _count = 0;
        if (count < minFeeds) {
            return;
        }
        uint128 median = _median(count);
        uint256 slot = (uint256(_newest) + 1) % WINDOW_ROUNDS;
        _newest = uint8(slot);
        _medians[slot] = median;
        _rounds[slot] = closing;
        uint128 average = _average(slot, closing);
        emit RoundClosed(closing, median, average, _take(average, closing));
    }

    /// @dev Breaks the circuit at a jump, and closes it again once the price has stayed where it went.
    function _take(uint128 average, uint64 round) private returns (bool taken) {
        taken = price == 0 || _near(price, average);
        if (!taken) {
            agreeing = tripped && _near(candidate, average) ? agreeing + 1 : 1;
            candidate = average;
            tripped = true;
            taken = agreeing >= RECOVERY_ROUNDS;
        }
        if (taken) {
            price = average;
            updatedAt = uint40((uint256(round) + 1) * ROUND_SECONDS);
            tripped = false;
            agreeing = 0;
        }
    }

    function _near(uint128 former, uint128 value) private pure returns (bool) {
        uint256 distance = value > former ? value - former : former - value;
        return distance * 10_000 <= uint256(former) * MAX_CHANGE_BPS;
    }

    /// @dev The mean of the two in the middle, rounded down, if the number is even.
    function _median(uint256 count) private view returns (uint128) {
        uint128[] memory sorted = new uint128[](count);
        for (uint256 i; i < count; ++i) {
            uint128 value = _prices[i];
            uint256 at_ = i;
            while (at_ != 0 && sorted[at_ - 1] > value) {
                sorted[at_] = sorted[at_ - 1];
                --at_;
            }
            sorted[at_] = value;
        }
        return uint128((uint256(sorted[(count - 1) / 2]) + sorted[count / 2]) / 2);
    }

    /// @dev Mean over time of the last {WINDOW_ROUNDS} rounds: a median counts until the next one. Older ones do not count.
    function _average(uint256 newest, uint64 round) private view returns (uint128) {
        uint256 end = uint256(round) + 1;
        uint256 sum;
        for (uint256 i; i < WINDOW_ROUNDS; ++i) {
            uint256 slot = (newest + WINDOW_ROUNDS - i) % WINDOW_ROUNDS;
            uint256 observed = _rounds[slot];
            if (observed == 0 || observed + WINDOW_ROUNDS <= round) {
                break;
            }
            sum += _medians[slot] * (end - observed);
            end = observed;
        }
        return uint128(sum / (uint256(round) + 1 - end));
    }
}
