// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {OPG} from "./OPG.sol";
import {NodeRegistry} from "./NodeRegistry.sol";
import {Staking} from "./Staking.sol";
import {INSURANCE} from "./Types.sol";

/// @title Slashing
/// @notice Turns proven faults of validators and nodes into slashes, always in the same order: verdict, freeze, time for an appeal,
/// distribution. Nothing is burned or paid before that time is over (docs/specs/staking.md §7).
/// @dev Nobody is slashed by a decision of some account: a verdict is a system transaction which every validator recomputes from the reported
/// evidence, or a fact that {Staking} has recorded. Governance can only end a case in favour of the accused.
contract Slashing {
    /// @notice A case. `subject` is the operator of a validator or the id of a node.
    /// @param class class of the fault
    /// @param status where it stands
    /// @param epoch epoch of the fault; of a node's fault, the epoch it was reported in
    /// @param until end of the time for an appeal, or of the wait for a verdict
    /// @param challenger who reported it
    /// @param bond what the challenger put up, wei
    /// @param appealBond what the accused put up with its appeal, wei
    /// @param fee fee of the work that was wrong, wei
    /// @param user who paid that
    /// @param evidenceHash hash of the evidence
    struct Case {
        uint8 class;
        uint8 status;
        bool appealed;
        uint64 epoch;
        uint40 until;
        address challenger;
        uint128 bond;
        uint128 appealBond;
        uint128 fee;
        address user;
        bytes32 subject;
        bytes32 evidenceHash;
    }

    /// @notice What validators found about a case that awaits a verdict.
    /// @param id the case
    /// @param valid whether the evidence proves the fault
    /// @param fault which one of its class and subject it is: equal for all evidence of the same fault
    /// @param fee fee of the work that was wrong, wei; 0 if there is none
    /// @param user who paid that; zero if nobody
    struct Verdict {
        uint256 id;
        bool valid;
        bytes32 fault;
        uint128 fee;
        address user;
    }

    /// @notice Parameters, all governed.
    /// @param minBond least bond of a challenger, wei
    /// @param appealWindow seconds between a verdict and its distribution
    /// @param equivocationPpm least part of the stake, millionths, for equivocation and votes for invalid proofs
    /// @param downtimePpm the same for being down
    /// @param correlation factor on the share of seats with the same fault
    struct Parameters {
        uint128 minBond;
        uint40 appealWindow;
        uint32 equivocationPpm;
        uint32 downtimePpm;
        uint8 correlation;
    }

    /// @notice Two votes of one validator that exclude each other.
    uint8 public constant EQUIVOCATION = 1;
    /// @notice A validator's vote for a block with an invalid proof.
    uint8 public constant INVALID_VOTE = 2;
    /// @notice A validator that won too few of its leader views.
    uint8 public constant DOWNTIME = 3;
    /// @notice A node's forged attestation, or a simulated one that says it is not.
    uint8 public constant FORGED_EVIDENCE = 4;
    /// @notice A node's wrong inference, proven: for now two receipts of one keyset with the same number (decisions D17).
    uint8 public constant WRONG_INFERENCE = 5;

    /// @notice The evidence awaits its verdict.
    uint8 public constant REPORTED = 1;
    /// @notice Proven; the bond is frozen until the time for an appeal is over.
    uint8 public constant FROZEN = 2;
    /// @notice The accused asked for a second verdict.
    uint8 public constant APPEALED = 3;
    /// @notice Slashed and distributed.
    uint8 public constant EXECUTED = 4;
    /// @notice Ended without a slash.
    uint8 public constant DISMISSED = 5;

    /// @notice Most bytes of evidence.
    uint256 public constant MAX_EVIDENCE = 16_384;
    /// @notice Most verdicts that the reports and appeals of one block ask for.
    uint256 public constant MAX_PER_BLOCK = 4;
    /// @notice Wrong inference costs at least this many times its fee.
    uint256 public constant FEE_FACTOR = 50;
    /// @notice Proven wrong inferences of one node in one epoch that cost everything.
    uint256 public constant STRIKES = 3;
    /// @notice The token.
    OPG public immutable opg;
    /// @notice Validators and their stake.
    Staking public immutable staking;
    /// @notice Nodes and their bonds.
    NodeRegistry public immutable nodes;
    /// @notice Who changes parameters and may dismiss cases.
    address public immutable governance;

    /// @notice All cases.
    Case[] public cases;
    /// @notice Faults that are judged, by {faultKey}: nobody is slashed twice for one.
    mapping(bytes32 faultKey => bool) public judged;
    /// @notice Subjects with a proven fault of a class in an epoch.
    mapping(uint8 class => mapping(uint64 epoch => uint256)) public faults;
    /// @notice Proven wrong inferences of a node in an epoch.
    mapping(bytes32 nodeId => mapping(uint64 epoch => uint256)) public strikes;
    /// @notice What an account can {withdraw}.
    mapping(address account => uint256) public credits;
    /// @notice OPG burned by slashes and lost bonds, wei.
    uint256 public burned;
    /// @notice The parameters in force.
    Parameters public parameters;
    uint64 private _block;
    uint8 private _count;

    /// @notice Somebody reported a fault. Validators judge the evidence; the next block has their verdict.
    event Reported(
        uint256 indexed id,
        uint8 indexed class,
        bytes32 indexed subject,
        uint64 epoch,
        address challenger,
        uint128 bond,
        bytes evidence
    );
    /// @notice The accused asks for a second verdict on the same evidence.
    event Appealed(uint256 indexed id, uint8 indexed class, bytes32 indexed subject, uint64 epoch, bytes evidence);
    /// @notice A fault is proven and the bond frozen.
    event Frozen(uint256 indexed id, uint8 indexed class, bytes32 indexed subject, uint64 epoch, uint40 until);
    /// @notice A case ended without a slash.
    event Dismissed(uint256 indexed id);
    /// @notice A slash is distributed.
    event Executed(uint256 indexed id, uint256 taken, uint256 burn, uint256 challenger, uint256 user, uint256 insurance);
    /// @notice The parameters changed.
    event ParametersSet(Parameters parameters);
    /// @notice Credits were paid out.
    event Withdrawn(address indexed account, uint256 amount);

    /// @notice Only governance may do this.
    error NotGovernance(address caller);
    /// @notice Not a system transaction of the block's proposer.
    error NotSystemTransaction(address sender);
    /// @notice No class that can be reported.
    error UnknownClass(uint8 class);
    /// @notice Evidence is missing, too long, or not that of the case.
    error InvalidEvidence(uint256 length);
    /// @notice The block has as many reports and appeals as it may.
    error TooMany();
    /// @notice The operator had no seat in that epoch, or the node has no bond.
    error NotAccusable(bytes32 subject, uint64 epoch);
    /// @notice The fault is older than stake unbonds, or of the future.
    error TooOld(uint64 epoch);
    /// @notice The validator was not down, or that was reported before.
    error NotDown(address operator);
    /// @notice Only the accused may appeal.
    error NotAccused(address caller);
    /// @notice The case is not in a state for this, or not yet.
    error WrongState(uint256 id, uint8 status, uint40 until);
    /// @notice A parameter is out of its range.
    error OutOfRange(uint256 value, uint256 least, uint256 most);
    /// @notice The token returned false.
    error TransferFailed();

    constructor(
        OPG opg_,
        Staking staking_,
        NodeRegistry nodes_,
        address governance_,
        Parameters memory parameters_
    ) {
        opg = opg_;
        staking = staking_;
        nodes = nodes_;
        governance = governance_;
        _setParameters(parameters_);
    }

    // ---------------------------------------------------------------- reports

    /// @notice Reports two votes of a validator that exclude each other; the sender's bond must be approved to this contract.
    function reportEquivocation(address operator, uint64 epoch, bytes calldata evidence) external returns (uint256 id) {
        return report(EQUIVOCATION, bytes32(uint256(uint160(operator))), epoch, evidence);
    }

    /// @notice Reports a fault; the sender's bond ({bondFor}) must be approved to this contract.
    /// @param epoch epoch of a validator's fault; of no meaning for a node's
    function report(uint8 class, bytes32 subject, uint64 epoch, bytes calldata evidence) public returns (uint256 id) {
        require(
            class == EQUIVOCATION || class == INVALID_VOTE || class == FORGED_EVIDENCE || class == WRONG_INFERENCE,
            UnknownClass(class)
        );
        require(evidence.length != 0 && evidence.length <= MAX_EVIDENCE, InvalidEvidence(evidence.length));
        _countRequest();
        if (class <= DOWNTIME) {
            address operator = address(uint160(uint256(subject)));
            // One word for one operator: with other bits it would be another subject, with slashes of its own.
            require(
                bytes32(uint256(uint160(operator))) == subject && staking.wasSeated(epoch, operator),
                NotAccusable(subject, epoch)
            );
            _checkAge(epoch);
        } else {
            epoch = staking.epoch();
            (,,, uint128 nodeBond,) = nodes.nodes(subject);
            require(nodeBond != 0, NotAccusable(subject, epoch));
        }
        uint128 bond = bondFor(class, subject, epoch);
        id = _open(class, REPORTED, subject, epoch, bond);
        cases[id].evidenceHash = keccak256(evidence);
        emit Reported(id, class, subject, epoch, msg.sender, bond, evidence);
        _take(bond);
    }

    /// @notice Brings the newest epoch in which a validator was down before this contract. Anyone may; no bond, since it is on record.
    function reportDowntime(address operator) external returns (uint256 id) {
        (,,,,,,,,, uint32 downIn,,,) = staking.validators(operator);
        bytes32 subject = bytes32(uint256(uint160(operator)));
        require(downIn != 0, NotDown(operator));
        bytes32 key = faultKey(DOWNTIME, subject, bytes32(uint256(downIn - 1)));
        require(!judged[key], NotDown(operator));
        _checkAge(downIn - 1);
        judged[key] = true;
        id = _open(DOWNTIME, REPORTED, subject, downIn - 1, 0);
        _freeze(id);
    }

    /// @notice What a challenger has to put up: a tenth of the least slash, and no less than the minimum.
    function bondFor(uint8 class, bytes32 subject, uint64 epoch) public view returns (uint128) {
        uint256 least;
        if (class <= DOWNTIME) {
            least = staking.liable(address(uint160(uint256(subject))), epoch) * parameters.equivocationPpm / 1e6;
        } else {
            (,,, least,) = nodes.nodes(subject);
            least = class == FORGED_EVIDENCE ? least : least / 100;
        }
        least /= 10;
        return uint128(least > parameters.minBond ? least : parameters.minBond);
    }

    /// @notice Identifies a fault: one slash for each.
    function faultKey(uint8 class, bytes32 subject, bytes32 fault) public pure returns (bytes32) {
        return keccak256(abi.encode(class, subject, fault));
    }

    /// @notice Number of cases.
    function caseCount() external view returns (uint256) {
        return cases.length;
    }

    // --------------------------------------------------------------- verdicts

    /// @notice Records the verdicts on all reports and appeals of the block before. Cases that await none are left as they are.
    function recordVerdicts(Verdict[] calldata verdicts) external {
        require(
            // solhint-disable-next-line avoid-tx-origin
            msg.sender == tx.origin && msg.sender == block.coinbase && staking.isSystem(msg.sender),
            NotSystemTransaction(msg.sender)
        );
        for (uint256 i; i < verdicts.length; ++i) {
            Verdict calldata verdict = verdicts[i];
            if (verdict.id >= cases.length) {
                continue;
            }
            Case storage found = cases[verdict.id];
            if (found.status == REPORTED) {
                _first(verdict, found);
            } else if (found.status == APPEALED) {
                _second(verdict, found);
            }
        }
    }

    /// @notice Asks for a second verdict on the same evidence. Only by the accused, once, and with a bond as large as the challenger's,
    /// which is lost if the verdict stays.
    function appeal(uint256 id, bytes calldata evidence) external {
        Case storage found = cases[id];
        require(
            found.status == FROZEN && !found.appealed && found.class != DOWNTIME && block.timestamp < found.until,
            WrongState(id, found.status, found.until)
        );
        require(keccak256(evidence) == found.evidenceHash, InvalidEvidence(evidence.length));
        require(msg.sender == _accused(found.class, found.subject), NotAccused(msg.sender));
        _countRequest();
        found.status = APPEALED;
        found.appealed = true;
        found.appealBond = found.bond;
        emit Appealed(id, found.class, found.subject, found.epoch, evidence);
        _take(found.bond);
    }

    /// @notice Ends a case whose time is over without the verdict that it awaits: everybody has their bonds back. Anyone may call it.
    function expire(uint256 id) external {
        Case storage found = cases[id];
        require(
            (found.status == REPORTED || found.status == APPEALED) && block.timestamp >= found.until,
            WrongState(id, found.status, found.until)
        );
        _dismiss(id, found);
    }

    /// @notice Ends a case in favour of the accused: a fault of the software is not theirs.
    function dismiss(uint256 id) external {
        require(msg.sender == governance, NotGovernance(msg.sender));
        Case storage found = cases[id];
        require(
            found.status == REPORTED || found.status == FROZEN || found.status == APPEALED,
            WrongState(id, found.status, found.until)
        );
        _dismiss(id, found);
    }

    // ----------------------------------------------------------- distribution

    /// @notice Slashes and distributes, once the time for an appeal is over. Anyone may call it.
    function execute(uint256 id) external {
        Case storage found = cases[id];
        require(
            found.status == FROZEN && block.timestamp >= found.until, WrongState(id, found.status, found.until)
        );
        found.status = EXECUTED;
        uint256 taken;
        uint256 nominal;
        if (found.class <= DOWNTIME) {
            address operator = address(uint160(uint256(found.subject)));
            taken = staking.unfreeze(operator, found.epoch, ratePpm(id), found.class == EQUIVOCATION);
            nominal = taken;
        } else {
            bool all = found.class == FORGED_EVIDENCE || strikes[found.subject][found.epoch] >= STRIKES;
            (,,, uint128 bond,) = nodes.nodes(found.subject);
            nominal = bond;
            if (!all) {
                uint256 least = (uint256(bond) + 99) / 100;
                nominal = found.fee * FEE_FACTOR > least ? found.fee * FEE_FACTOR : least;
            }
            taken = nodes.unfreeze(found.subject, nominal, all);
        }
        (uint256 burn, uint256 challenger, uint256 user) = split(nominal, taken);
        uint256 refund = found.user == address(0) ? 0 : 2 * uint256(found.fee);
        refund = refund < user ? refund : user;
        if (refund != 0) {
            credits[found.user] += refund;
        }
        credits[found.challenger] += challenger + found.bond;
        if (found.appealBond != 0) {
            // The appeal failed: half of its bond is burned, half is the challenger's.
            uint256 half = found.appealBond / 2;
            credits[found.challenger] += half;
            burn += found.appealBond - half;
        }
        emit Executed(id, taken, burn, challenger, refund, user - refund);
        _burn(burn);
        _give(INSURANCE, user - refund);
    }

    /// @notice Pays the sender what it has been credited.
    function withdraw() external returns (uint256 amount) {
        amount = credits[msg.sender];
        credits[msg.sender] = 0;
        emit Withdrawn(msg.sender, amount);
        _give(msg.sender, amount);
    }

    /// @notice Part of the stake that a validator's case costs now, millionths: more, the more seats had the same fault in the same epoch or
    /// the ones beside it.
    function ratePpm(uint256 id) public view returns (uint32) {
        Case storage found = cases[id];
        if (found.class == DOWNTIME) {
            return parameters.downtimePpm;
        }
        uint64 epoch = found.epoch;
        mapping(uint64 => uint256) storage count = faults[found.class];
        uint256 same = count[epoch] + count[epoch + 1] + (epoch == 0 ? 0 : count[epoch - 1]);
        uint256 seatCount = staking.seatCount(epoch);
        uint256 rate = (same * parameters.correlation * 1e6 + seatCount - 1) / seatCount;
        if (rate < parameters.equivocationPpm) {
            rate = parameters.equivocationPpm;
        }
        return uint32(rate > 1e6 ? 1e6 : rate);
    }

    /// @notice Divides a slash: burn 5, challenger 3, user 2 of 10, largest remainder, ties in that order. Where less was taken than it should
    /// be, the burn is short first, then the challenger, then the user.
    function split(uint256 nominal, uint256 taken) public pure returns (uint256 burn, uint256 challenger, uint256 user) {
        // What a rest of 0 to 9 wei gives to the challenger and to the user by largest remainder, one hexadecimal digit each.
        uint256 digit = nominal % 10 * 4;
        challenger = nominal / 10 * 3 + (0x3222111100 >> digit & 0xf);
        user = nominal / 10 * 2 + (0x2211111000 >> digit & 0xf);
        if (user > taken) {
            user = taken;
        }
        if (challenger > taken - user) {
            challenger = taken - user;
        }
        burn = taken - user - challenger;
    }

    // ------------------------------------------------------------- governance

    /// @notice Sets the parameters. Cases that are frozen keep their time.
    function setParameters(Parameters calldata parameters_) external {
        require(msg.sender == governance, NotGovernance(msg.sender));
        _setParameters(parameters_);
    }

    // --------------------------------------------------------------- internal

    function _open(uint8 class, uint8 status, bytes32 subject, uint64 epoch, uint128 bond)
        private
        returns (uint256 id)
    {
        id = cases.length;
        Case storage found = cases.push();
        found.class = class;
        found.status = status;
        found.subject = subject;
        found.epoch = epoch;
        found.challenger = msg.sender;
        found.bond = bond;
        found.until = uint40(block.timestamp) + parameters.appealWindow;
    }

    function _first(Verdict calldata verdict, Case storage found) private {
        if (!verdict.valid) {
            // Half of the challenger's bond is burned, half is the accused's.
            uint256 bond = found.bond;
            found.status = DISMISSED;
            found.bond = 0;
            credits[_accused(found.class, found.subject)] += bond / 2;
            emit Dismissed(verdict.id);
            _burn(bond - bond / 2);
            return;
        }
        // A validator has one fault of a class in an epoch, however many votes show it.
        bytes32 fault = found.class <= DOWNTIME ? bytes32(uint256(found.epoch)) : verdict.fault;
        bytes32 key = faultKey(found.class, found.subject, fault);
        if (judged[key]) {
            // True, and known: no second slash, and the bond goes back.
            _close(verdict.id, found);
            return;
        }
        judged[key] = true;
        found.fee = verdict.fee;
        found.user = verdict.user;
        _freeze(verdict.id);
    }

    function _second(Verdict calldata verdict, Case storage found) private {
        if (verdict.valid) {
            found.status = FROZEN;
        } else {
            _dismiss(verdict.id, found);
        }
    }

    function _freeze(uint256 id) private {
        Case storage found = cases[id];
        uint40 until = uint40(block.timestamp) + parameters.appealWindow;
        found.status = FROZEN;
        found.until = until;
        ++faults[found.class][found.epoch];
        if (found.class <= DOWNTIME) {
            // Who was down is in jail already.
            staking.freeze(
                address(uint160(uint256(found.subject))), found.epoch, found.class == DOWNTIME ? 0 : until
            );
        } else {
            ++strikes[found.subject][found.epoch];
            nodes.freeze(found.subject);
        }
        emit Frozen(id, found.class, found.subject, found.epoch, until);
    }

    function _dismiss(uint256 id, Case storage found) private {
        if (found.status != REPORTED) {
            --faults[found.class][found.epoch];
            if (found.class <= DOWNTIME) {
                staking.unfreeze(address(uint160(uint256(found.subject))), found.epoch, 0, false);
            } else {
                --strikes[found.subject][found.epoch];
                nodes.unfreeze(found.subject, 0, false);
            }
        }
        if (found.appealBond != 0) {
            credits[_accused(found.class, found.subject)] += found.appealBond;
            found.appealBond = 0;
        }
        _close(id, found);
    }

    /// @dev Gives the challenger's bond back.
    function _close(uint256 id, Case storage found) private {
        found.status = DISMISSED;
        credits[found.challenger] += found.bond;
        found.bond = 0;
        emit Dismissed(id);
    }

    function _accused(uint8 class, bytes32 subject) private view returns (address) {
        return class <= DOWNTIME ? address(uint160(uint256(subject))) : nodes.operatorOf(subject);
    }

    /// @dev Evidence counts as long as stake that left in the fault's epoch may still unbond.
    function _checkAge(uint64 epoch) private view {
        uint64 current = staking.epoch();
        (, uint40 unbonding,,,,,) = staking.parameters();
        require(
            epoch == current
                || (epoch < current && block.timestamp < uint256(staking.startedAt(epoch + 1)) + unbonding),
            TooOld(epoch)
        );
    }

    /// @dev Every report and appeal of a block asks for one verdict of the next.
    function _countRequest() private {
        _count = _block == block.number ? _count + 1 : 1;
        _block = uint64(block.number);
        require(_count <= MAX_PER_BLOCK, TooMany());
    }

    /// @dev Unwraps it to the zero address: it leaves the supply of OPG and nobody can ever move the coin.
    function _burn(uint256 amount) private {
        if (amount != 0) {
            burned += amount;
            opg.withdrawTo(address(0), amount);
        }
    }

    function _give(address to, uint256 amount) private {
        require(opg.transfer(to, amount), TransferFailed());
    }

    function _take(uint256 amount) private {
        require(opg.transferFrom(msg.sender, address(this), amount), TransferFailed());
    }

    function _setParameters(Parameters memory p) private {
        _range(p.minBond, 1, 1e24);
        _range(p.appealWindow, 1, 30 days);
        _range(p.equivocationPpm, 1, 1e6);
        _range(p.downtimePpm, 1, 100_000);
        _range(p.correlation, 1, 100);
        parameters = p;
        emit ParametersSet(p);
    }

    function _range(uint256 value, uint256 least, uint256 most) private pure {
        require(value >= least && value <= most, OutOfRange(value, least, most));
    }
}
