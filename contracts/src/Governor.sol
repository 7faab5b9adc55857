// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Governor as BaseGovernor} from "@openzeppelin/contracts/governance/Governor.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {GovernorCountingSimple} from "@openzeppelin/contracts/governance/extensions/GovernorCountingSimple.sol";
import {GovernorSettings} from "@openzeppelin/contracts/governance/extensions/GovernorSettings.sol";
import {GovernorTimelockControl} from "@openzeppelin/contracts/governance/extensions/GovernorTimelockControl.sol";
import {GovernorVotes} from "@openzeppelin/contracts/governance/extensions/GovernorVotes.sol";
import {
    GovernorVotesQuorumFraction
} from "@openzeppelin/contracts/governance/extensions/GovernorVotesQuorumFraction.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {IStaking} from "./IStaking.sol";

/// @title Governor
/// @notice Votes of OPG holders and stakers on operations of the timelock. Weight is OPG's votes plus staked votes at the same second;
/// all periods are seconds (decisions D5, D18).
/// @dev The staking contract holds the OPG staked with it and never delegates it, so nothing counts twice; for the same reason the
/// quorum is a part of wrapped OPG alone, which contains what is staked.
contract Governor is
    BaseGovernor,
    GovernorSettings,
    GovernorCountingSimple,
    GovernorVotes,
    GovernorVotesQuorumFraction,
    GovernorTimelockControl
{
    /// @notice What a network's genesis chooses.
    /// @param votingDelay seconds between a proposal and the vote, whose weights are those of its beginning
    /// @param votingPeriod seconds of the vote
    /// @param proposalThreshold votes that a proposer needs, wei
    /// @param quorumBps part of wrapped OPG that has to vote for or abstain, basis points
    struct Settings {
        uint48 votingDelay;
        uint32 votingPeriod;
        uint256 proposalThreshold;
        uint256 quorumBps;
    }

    /// @notice Source of staked votes; zero if there is none.
    IStaking public immutable staking;

    constructor(IVotes opg_, IStaking staking_, TimelockController timelock_, Settings memory settings)
        BaseGovernor("OpenGradient Governor")
        GovernorSettings(settings.votingDelay, settings.votingPeriod, settings.proposalThreshold)
        GovernorVotes(opg_)
        GovernorVotesQuorumFraction(settings.quorumBps)
        GovernorTimelockControl(timelock_)
    {
        staking = staking_;
    }

    /// @notice The quorum is counted in basis points.
    function quorumDenominator() public pure override returns (uint256) {
        return 10_000;
    }

    /// @notice Seconds between a proposal and its vote.
    function votingDelay() public view override(BaseGovernor, GovernorSettings) returns (uint256) {
        return super.votingDelay();
    }

    /// @notice Seconds of a vote.
    function votingPeriod() public view override(BaseGovernor, GovernorSettings) returns (uint256) {
        return super.votingPeriod();
    }

    /// @notice Votes that a proposer needs, wei.
    function proposalThreshold() public view override(BaseGovernor, GovernorSettings) returns (uint256) {
        return super.proposalThreshold();
    }

    /// @notice Votes that a proposal needs for it or abstaining, wei.
    function quorum(uint256 timepoint)
        public
        view
        override(BaseGovernor, GovernorVotesQuorumFraction)
        returns (uint256)
    {
        return super.quorum(timepoint);
    }

    /// @notice Votes are counted by block timestamps.
    function clock() public view override(BaseGovernor, GovernorVotes) returns (uint48) {
        return super.clock();
    }

    /// @notice Description of {clock} (EIP-6372).
    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public view override(BaseGovernor, GovernorVotes) returns (string memory) {
        return super.CLOCK_MODE();
    }

    /// @notice State of a proposal.
    function state(uint256 proposalId)
        public
        view
        override(BaseGovernor, GovernorTimelockControl)
        returns (ProposalState)
    {
        return super.state(proposalId);
    }

    /// @notice Every proposal goes through the timelock.
    function proposalNeedsQueuing(uint256 proposalId)
        public
        view
        override(BaseGovernor, GovernorTimelockControl)
        returns (bool)
    {
        return super.proposalNeedsQueuing(proposalId);
    }

    function _getVotes(address account, uint256 timepoint, bytes memory params)
        internal
        view
        override(BaseGovernor, GovernorVotes)
        returns (uint256 votes)
    {
        votes = super._getVotes(account, timepoint, params);
        if (address(staking) != address(0)) {
            votes += staking.getPastVotes(account, timepoint);
        }
    }

    function _queueOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(BaseGovernor, GovernorTimelockControl) returns (uint48) {
        return super._queueOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _executeOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(BaseGovernor, GovernorTimelockControl) {
        super._executeOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _cancel(
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(BaseGovernor, GovernorTimelockControl) returns (uint256) {
        return super._cancel(targets, values, calldatas, descriptionHash);
    }

    function _executor() internal view override(BaseGovernor, GovernorTimelockControl) returns (address) {
        return super._executor();
    }
}
