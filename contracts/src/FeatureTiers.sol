// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Governed} from "./Governed.sol";
import {IStaking} from "./IStaking.sol";

/// @title FeatureTiers
/// @notice What an account's OPG, held and staked, unlocks at gateways. Gateways ask for an address that has proved itself by a signature,
/// never for one that a request merely names.
/// @dev A view for off-chain use: what an account holds can move a block later, so answers are to be cached for minutes, not hours,
/// and nothing on chain may depend on them.
contract FeatureTiers is Governed {
    /// @notice Terms of accounts from some weight on.
    /// @param threshold least OPG held and staked, wei
    /// @param discountBps taken off a gateway's own fee, basis points
    /// @param requestsPerMinute rate limit
    /// @param maxRequestBytes size limit of one request
    struct Tier {
        uint128 threshold;
        uint16 discountBps;
        uint32 requestsPerMinute;
        uint32 maxRequestBytes;
    }

    /// @notice Most tiers.
    uint256 public constant MAX_TIERS = 8;
    /// @notice Highest discount.
    uint16 public constant MAX_DISCOUNT_BPS = 5_000;
    /// @notice The token.
    IERC20 public immutable opg;
    /// @notice Source of stakes; zero if there is none.
    IStaking public immutable staking;

    Tier[] private _tiers;

    /// @notice The tiers changed.
    event TiersSet(Tier[] tiers);

    /// @notice Not one to {MAX_TIERS} tiers, the first from 0 on, each later one from more OPG on and on terms that are nowhere worse.
    error InvalidTiers(uint256 index);

    constructor(address governance_, IERC20 opg_, IStaking staking_, Tier[] memory tiers_) Governed(governance_) {
        opg = opg_;
        staking = staking_;
        _setTiers(tiers_);
    }

    /// @notice Replaces all tiers.
    function setTiers(Tier[] calldata tiers_) external onlyGovernance {
        _setTiers(tiers_);
    }

    /// @notice All tiers, the lowest first.
    function tiers() external view returns (Tier[] memory) {
        return _tiers;
    }

    /// @notice The tier of an account.
    /// @return index number of the tier, from 0
    /// @return tier its terms
    /// @return weight OPG held and staked, wei
    function tierOf(address account) external view returns (uint256 index, Tier memory tier, uint256 weight) {
        weight = weightOf(account);
        index = _tiers.length - 1;
        while (_tiers[index].threshold > weight) {
            --index;
        }
        tier = _tiers[index];
    }

    /// @notice OPG that an account holds and has staked, wei. What is delegated to it by others counts for them.
    function weightOf(address account) public view returns (uint256 weight) {
        weight = opg.balanceOf(account);
        if (address(staking) != address(0)) {
            address[] memory operators = staking.positionsOf(account);
            for (uint256 i; i < operators.length; ++i) {
                weight += staking.stakeOf(operators[i], account);
            }
        }
    }

    function _setTiers(Tier[] memory tiers_) private {
        uint256 count = tiers_.length;
        require(count != 0 && count <= MAX_TIERS && tiers_[0].threshold == 0, InvalidTiers(0));
        delete _tiers;
        for (uint256 i; i < count; ++i) {
            Tier memory tier = tiers_[i];
            bool valid = tier.discountBps <= MAX_DISCOUNT_BPS && tier.requestsPerMinute != 0 && tier.maxRequestBytes != 0;
            if (i != 0) {
                Tier memory lower = tiers_[i - 1];
                valid = valid && tier.threshold > lower.threshold && tier.discountBps >= lower.discountBps
                    && tier.requestsPerMinute >= lower.requestsPerMinute && tier.maxRequestBytes >= lower.maxRequestBytes;
            }
            require(valid, InvalidTiers(i));
            _tiers.push(tier);
        }
        emit TiersSet(tiers_);
    }
}
