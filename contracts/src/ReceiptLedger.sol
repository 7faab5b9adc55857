// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {OPG} from "./OPG.sol";
import {FeeVault} from "./FeeVault.sol";
import {ModelRegistry} from "./ModelRegistry.sol";
import {NodeRegistry} from "./NodeRegistry.sol";
import {ValidatorKeys} from "./ValidatorKeys.sol";
import {Governed} from "./Governed.sol";
import {BatchSettlement} from "./x402/BatchSettlement.sol";
import {Permit2} from "./x402/Permit2.sol";
import {Permit2Proxy} from "./x402/Permit2Proxy.sol";
import {INSURANCE} from "./Types.sol";

/// @title ReceiptLedger
/// @notice Records receipts that consensus has verified: marks their sequence numbers and payments as used, keeps each block's batch
/// root and credits everyone their share of settled payments.
/// @dev {record} runs in system transactions only. Validators recompute its calldata from receipts they have checked, so
/// charges, royalties and modes are consensus data here; what this contract enforces by itself is that no sequence number
/// and no payment counts twice and that nothing is credited that was not paid to that very node (decisions D1, D2, D15).
contract ReceiptLedger is Governed {
    /// @notice One receipt: its sequence number, and the payer, nonce, value and charge of its payment.
    struct Entry {
        uint64 seq;
        address payer;
        bytes32 nonce;
        uint128 amount;
        uint128 charge;
    }

    /// @notice Receipts of one node, keyset and model on the same terms, paid by the same method (see {permitPaymentIdOf}). `router` is zero
    /// if there was none.
    struct Group {
        bytes32 nodeId;
        bytes32 keyset;
        bytes32 modelRoot;
        uint16 royaltyBps;
        uint8 mode;
        address router;
        uint8 method;
        Entry[] entries;
    }

    /// @notice A recorded receipt whose payment had not settled, on the terms that held when it was recorded.
    struct PendingEntry {
        bytes32 nodeId;
        bytes32 modelRoot;
        address creator;
        uint16 royaltyBps;
        uint8 mode;
        address router;
        address payer;
        bytes32 nonce;
        uint128 amount;
        uint128 charge;
        uint64 releaseAt;
        uint8 method;
    }

    /// @notice Parts of a charge; they always sum to it.
    struct Shares {
        uint256 node;
        uint256 creator;
        uint256 treasury;
        uint256 insurance;
        uint256 router;
    }

    /// @notice Some sequence numbers of a keyset: bit `i` of `bits` is number `256 * word + i`.
    struct SeqWord {
        uint64 word;
        uint256 bits;
    }

    /// @notice Receipts of one node, keyset and model on the same terms that one channel pays for. `charge` is the sum of theirs.
    struct ChannelGroup {
        bytes32 nodeId;
        bytes32 keyset;
        bytes32 modelRoot;
        uint16 royaltyBps;
        uint8 mode;
        address router;
        BatchSettlement.ChannelConfig channel;
        SeqWord[] words;
        uint128 charge;
    }

    /// @notice On what terms charges of one channel are shared; `creator` is the model's when they were recorded.
    struct ChannelTerms {
        bytes32 channelId;
        bytes32 nodeId;
        bytes32 modelRoot;
        address creator;
        uint16 royaltyBps;
        uint8 mode;
        address router;
    }

    /// @notice Charges recorded for a channel and those of them that are credited, ever: one slot.
    struct ChannelSums {
        uint128 recorded;
        uint128 credited;
    }

    /// @notice Charges of one channel on the same terms that wait for the payee's claim: one slot.
    struct PendingCharge {
        uint128 amount;
        uint64 releaseAt;
    }

    /// @notice A payer's request to have back what was claimed beyond all receipts: the claims at that time, and when it is due.
    struct ChannelRefund {
        uint128 claimed;
        uint40 due;
    }

    /// @notice What governance may change, within bounds; one slot. Windows are seconds of escrow by mode; then come the weights
    /// by which a charge without its royalty is shared, and those for closed models, whose price passes through to their provider.
    struct Rules {
        uint40 windowNone;
        uint40 windowTee;
        uint40 windowZk;
        uint40 windowReplay;
        uint16 node;
        uint16 auditors;
        uint16 treasury;
        uint16 router;
        uint8 closedNode;
        uint8 closedAuditors;
        uint8 closedTreasury;
        uint8 closedRouter;
    }

    /// @notice Longest escrow window.
    uint40 public constant MAX_WINDOW = 90 days;
    /// @notice Highest sum of the weights.
    uint256 public constant MAX_WEIGHTS = 10_000;
    /// @notice Least part of the node, percent of the weights.
    uint256 public constant MIN_NODE_PERCENT = 60;
    /// @notice Most that auditors, treasury and router each get, percent of the weights.
    uint256 public constant MAX_OTHER_PERCENT = 20;
    /// @notice The same for closed models.
    uint256 public constant MIN_CLOSED_NODE_PERCENT = 90;
    /// @notice The same for closed models.
    uint256 public constant MAX_CLOSED_OTHER_PERCENT = 5;
    /// @notice Mark of a payment whose receipt is credited.
    bytes32 public constant CREDITED = bytes32(uint256(1));
    /// @notice Seconds that a node has, after a payer asked for a refund, to bring the receipt of the payment.
    uint40 public constant REFUND_DELAY = 1 days;
    /// @dev Payment methods: an ERC-3009 authorization settled by {opg}, a Permit2 transfer settled by {exactProxy}, one settled by {uptoProxy}.
    uint8 private constant ERC3009 = 0;
    uint8 private constant EXACT_PERMIT2 = 1;
    uint8 private constant UPTO_PERMIT2 = 2;
    /// @dev First word under the id of a Permit2 payment.
    bytes32 private constant PERMIT2_PAYMENT = keccak256("opg/payments/permit2");
    /// @notice The token.
    OPG public immutable opg;
    /// @notice Operators of nodes.
    NodeRegistry public immutable nodes;
    /// @notice Creators of models.
    ModelRegistry public immutable models;
    /// @notice Holder of payments and credits.
    FeeVault public immutable vault;
    /// @notice Payment channels.
    BatchSettlement public immutable channels;
    /// @notice Knows which Permit2 nonces are used.
    Permit2 public immutable permit2;
    /// @notice Settles Permit2 payments of the signed amount.
    Permit2Proxy public immutable exactProxy;
    /// @notice Settles Permit2 payments of at most the signed amount: of the charge.
    Permit2Proxy public immutable uptoProxy;
    /// @notice Knows the accounts whose system transactions are accepted: those of the current epoch's set.
    ValidatorKeys public immutable staking;
    /// @notice Implementation of the deposit addresses.
    address public immutable implementation;
    /// @notice Account of the treasury's share.
    address public immutable treasury;

    /// @notice Bitmaps of the sequence numbers recorded for each keyset, 256 a word.
    mapping(bytes32 keyset => mapping(uint256 word => uint256)) public sequences;
    /// @notice Zero for a payment without receipt, {CREDITED} for a credited one, otherwise the {pendingHash} of its entry.
    mapping(bytes32 paymentId => bytes32) public spent;
    /// @notice Batch root of each height; zero for an empty batch.
    mapping(uint64 height => bytes32) public roots;
    /// @notice When a payment without receipt can be refunded; 0 if nobody asked for it.
    mapping(bytes32 paymentId => uint40) public refundAt;
    /// @notice What each channel was charged.
    mapping(bytes32 channelId => ChannelSums) public channelSums;
    /// @notice What waits for a claim, by {termsHash}.
    mapping(bytes32 termsHash => PendingCharge) public pendingCharges;
    /// @notice Refunds asked for, by channel; zeros if none.
    mapping(bytes32 channelId => ChannelRefund) public channelRefunds;
    /// @notice Escrow windows and weights in force.
    Rules public rules;

    /// @notice A chunk of a block's batch is recorded. `count` is the number of receipts in the whole batch.
    event BatchRecorded(uint64 indexed height, bytes32 indexed batchRoot, uint32 count, uint32 chunk);
    /// @notice Some receipts of a group are recorded whose payment has not settled. With the receipts themselves this is all that
    /// {creditSettled} needs; {spent} says which they are.
    event PaymentsPending(
        bytes32 indexed nodeId, bytes32 indexed modelRoot, address creator, uint8 mode, uint64 releaseAt, uint256 count
    );
    /// @notice A pending receipt is credited.
    event PaymentCredited(bytes32 indexed paymentId);
    /// @notice A pending receipt is forgotten, because its payment went elsewhere or was cancelled.
    event PaymentDropped(bytes32 indexed paymentId);
    /// @notice Somebody asked to refund a payment that has no receipt.
    event RefundRequested(bytes32 indexed paymentId, bytes32 indexed nodeId, address indexed payer, uint40 refundAt);
    /// @notice A payment that got no receipt in time went back to its payer.
    event Refunded(bytes32 indexed paymentId);

    /// @notice Charges are recorded for a channel. This is all that {creditChannels} needs.
    event ChannelCharged(
        bytes32 indexed channelId,
        bytes32 indexed nodeId,
        bytes32 indexed modelRoot,
        address creator,
        uint16 royaltyBps,
        uint8 mode,
        address router,
        uint128 charge,
        uint64 releaseAt
    );
    /// @notice Charges of a channel are credited.
    event ChannelCredited(bytes32 indexed channelId, bytes32 indexed nodeId, uint128 amount);
    /// @notice Somebody asked to refund what was claimed from a channel beyond its receipts.
    event ChannelRefundRequested(bytes32 indexed channelId, bytes32 indexed nodeId, uint128 claimed, uint40 due);
    /// @notice What was claimed from a channel beyond its receipts went back to its payer.
    event ChannelRefunded(bytes32 indexed channelId, bytes32 indexed nodeId, uint128 amount);

    /// @notice Not a system transaction of the block's proposer.
    error NotSystemTransaction(address sender);
    /// @notice The root is zero, or not the one that this height began with.
    error InvalidRoot(uint64 height, bytes32 recorded, bytes32 given);
    /// @notice The sequence number is recorded already.
    error SequenceUsed(bytes32 keyset, uint64 seq);
    /// @notice These sequence numbers are recorded already.
    error SequencesUsed(bytes32 keyset, uint64 word, uint256 bits);
    /// @notice The channel does not pay OPG to the deposit address of the node.
    error ForeignChannel(bytes32 nodeId, address receiver, address token);
    /// @notice No more was claimed from the channel than was charged.
    error NothingClaimedTooMuch(bytes32 channelId, uint128 claimed, uint128 recorded);
    /// @notice The payment has a receipt already.
    error PaymentSpent(bytes32 paymentId);
    /// @notice The payment has not reached the node, or not with this amount.
    error PaymentNotSettled(bytes32 paymentId);
    /// @notice No refund was asked for, it is not due yet, or it was asked for before.
    error RefundNotDue(bytes32 paymentId, uint40 refundAt);
    /// @notice The charge is above the payment.
    error ChargeAboveAmount(uint128 charge, uint128 amount);
    /// @notice The payment settles the charge itself, so they must be equal.
    error ChargeNotAmount(uint128 charge, uint128 amount);
    /// @notice The royalty is above 100 %.
    error InvalidRoyalty(uint16 royaltyBps);
    /// @notice No such node.
    error UnknownNode(bytes32 nodeId);
    /// @notice No such model.
    error UnknownModel(bytes32 modelRoot);
    /// @notice No such mode.
    error UnknownMode(uint8 mode);
    /// @notice No such payment method.
    error UnknownMethod(uint8 method);
    /// @notice A window is longer than {MAX_WINDOW}.
    error InvalidWindow(uint40 window);
    /// @notice The weights break a bound.
    error InvalidWeights(uint16 node, uint16 auditors, uint16 treasury, uint16 router);

    /// @notice Receipts recorded from now on wait for other times.
    event WindowsSet(uint40[4] windows);
    /// @notice Charges credited from now on are shared by other weights.
    event WeightsSet(uint16[4] weights);
    /// @notice Charges of closed models credited from now on are shared by other weights.
    event ClosedWeightsSet(uint8[4] weights);

    /// @param windows escrow windows in seconds by mode: none, tee, zk, replay
    constructor(
        OPG opg_,
        NodeRegistry nodes_,
        ModelRegistry models_,
        FeeVault vault_,
        BatchSettlement channels_,
        Permit2 permit2_,
        Permit2Proxy exactProxy_,
        Permit2Proxy uptoProxy_,
        address implementation_,
        address treasury_,
        uint40[4] memory windows,
        ValidatorKeys staking_,
        address governance_
    ) Governed(governance_) {
        opg = opg_;
        nodes = nodes_;
        models = models_;
        vault = vault_;
        channels = channels_;
        permit2 = permit2_;
        exactProxy = exactProxy_;
        uptoProxy = uptoProxy_;
        implementation = implementation_;
        treasury = treasury_;
        staking = staking_;
        _setWindows(windows);
        _setWeights([uint16(80), 5, 3, 2]);
        // What the provider costs and 4 % of it: node 2, router 1, auditors and treasury a half each.
        _setClosedWeights([204, 1, 1, 2]);
    }

    /// @dev The origin test keeps out calls in the proposer's name from a delegated account (EIP-7702): only a transaction that the
    /// proposer signed itself passes, and validators refuse all of those but the recomputed ones.
    modifier chunkOf(uint64 height, bytes32 batchRoot, uint32 count, uint32 chunk) {
        require(
            // solhint-disable-next-line avoid-tx-origin
            msg.sender == tx.origin && msg.sender == block.coinbase && staking.isSystem(msg.sender),
            NotSystemTransaction(msg.sender)
        );
        bytes32 recorded = roots[height];
        require(
            batchRoot != 0 && recorded == (chunk == 0 ? bytes32(0) : batchRoot),
            InvalidRoot(height, recorded, batchRoot)
        );
        if (chunk == 0) {
            roots[height] = batchRoot;
        }
        emit BatchRecorded(height, batchRoot, count, chunk);
        _;
    }

    /// @notice Records one chunk of a block's batch. Any violation reverts, and a block whose system transaction reverts is invalid.
    function record(uint64 height, bytes32 batchRoot, uint32 count, uint32 chunk, Group[] calldata groups)
        external
        chunkOf(height, batchRoot, count, chunk)
    {
        for (uint256 i; i < groups.length; ++i) {
            _recordGroup(groups[i]);
        }
    }

    /// @notice Records one chunk of a block's batch that channels pay for. It credits nothing, so that its cost is known beforehand:
    /// {creditChannels} does, once the payee has claimed.
    function recordChannels(
        uint64 height,
        bytes32 batchRoot,
        uint32 count,
        uint32 chunk,
        ChannelGroup[] calldata groups
    ) external chunkOf(height, batchRoot, count, chunk) {
        bytes32 separator = _channelSeparator();
        for (uint256 i; i < groups.length; ++i) {
            _recordChannelGroup(separator, groups[i]);
        }
    }

    /// @notice Credits what was recorded for channels, as far as the payee has claimed it from them; first has it sent what it
    /// has claimed, so that credits never exceed money that has arrived. Anyone may call it.
    /// @return credited sum of the charges credited
    function creditChannels(ChannelTerms[] calldata terms) external returns (uint256 credited) {
        bytes32 nodeId;
        for (uint256 i; i < terms.length; ++i) {
            if (i == 0 || terms[i].nodeId != nodeId) {
                nodeId = terms[i].nodeId;
                channels.settle(_depositAddress(nodeId), address(opg));
            }
            credited += _creditChannel(terms[i]);
        }
    }

    /// @notice Credits pending entries whose payment has settled since; the others are left as they are. Anyone may call it.
    /// @return credits number of entries credited
    function creditSettled(PendingEntry[] calldata entries) external returns (uint256 credits) {
        for (uint256 i; i < entries.length; ++i) {
            PendingEntry calldata entry = entries[i];
            bytes32 paymentId = _paymentId(entry.method, entry.payer, entry.nonce);
            if (
                spent[paymentId] != pendingHash(entry)
                    || _settlement(entry.method, entry.payer, entry.nonce)
                        != _expected(_depositAddress(entry.nodeId), entry.amount)
            ) {
                continue;
            }
            spent[paymentId] = CREDITED;
            emit PaymentCredited(paymentId);
            ++credits;
            Shares memory shares =
                splitOf(entry.modelRoot, entry.charge, entry.royaltyBps, entry.router != address(0));
            (address[] memory payees, uint256[] memory amounts) = _credits(1);
            payees[5] = entry.payer;
            amounts[5] = entry.amount - entry.charge;
            _fill(payees, amounts, nodes.operatorOf(entry.nodeId), entry.creator, entry.router, shares);
            vault.credit(entry.nodeId, entry.mode, entry.releaseAt, payees, amounts);
        }
    }

    /// @notice Forgets pending entries whose payment can never settle, because its authorization paid somebody else or was cancelled, or
    /// its Permit2 nonce is used without a payment in OPG by the entry's proxy; the others are left as they are. A payer who signs one nonce for two nodes can have the wrong receipt recorded first: this
    /// makes room for the right one. Anyone may call it.
    /// @return dropped number of entries forgotten
    function dropUnpayable(PendingEntry[] calldata entries) external returns (uint256 dropped) {
        for (uint256 i; i < entries.length; ++i) {
            PendingEntry calldata entry = entries[i];
            bytes32 paymentId = _paymentId(entry.method, entry.payer, entry.nonce);
            if (spent[paymentId] != pendingHash(entry) || !_unpayable(entry)) {
                continue;
            }
            delete spent[paymentId];
            emit PaymentDropped(paymentId);
            ++dropped;
        }
    }

    /// @notice Asks for the refund of a settled payment for which the node brought no receipt. The node has {REFUND_DELAY} seconds to bring
    /// it. Anyone may ask; the money can only go to the payer.
    function requestRefund(bytes32 nodeId, address payer, bytes32 nonce, uint128 amount, uint8 method) external {
        bytes32 paymentId = _unspentAndSettled(nodeId, payer, nonce, amount, method);
        require(refundAt[paymentId] == 0, RefundNotDue(paymentId, refundAt[paymentId]));
        uint40 due = uint40(block.timestamp) + REFUND_DELAY;
        refundAt[paymentId] = due;
        emit RefundRequested(paymentId, nodeId, payer, due);
    }

    /// @notice Credits the payer with a payment for which no receipt came in time. Anyone may call it.
    function refund(bytes32 nodeId, address payer, bytes32 nonce, uint128 amount, uint8 method) external {
        bytes32 paymentId = _unspentAndSettled(nodeId, payer, nonce, amount, method);
        uint40 due = refundAt[paymentId];
        require(due != 0 && block.timestamp >= due, RefundNotDue(paymentId, due));
        spent[paymentId] = CREDITED;
        delete refundAt[paymentId];
        emit Refunded(paymentId);
        address[] memory payees = new address[](1);
        uint256[] memory amounts = new uint256[](1);
        payees[0] = payer;
        amounts[0] = amount;
        vault.credit(nodeId, 0, 0, payees, amounts);
    }

    /// @notice Asks for the refund of what a node has claimed from a channel beyond all receipts. The node has {REFUND_DELAY} seconds to bring
    /// receipts for what it had claimed by now. Anyone may ask; the money can only go to the payer.
    function requestChannelRefund(bytes32 nodeId, BatchSettlement.ChannelConfig calldata channel) external {
        bytes32 channelId = _ownChannel(_channelSeparator(), nodeId, channel);
        require(channelRefunds[channelId].due == 0, RefundNotDue(channelId, channelRefunds[channelId].due));
        (, uint128 claimed) = channels.channels(channelId);
        uint128 recorded = channelSums[channelId].recorded;
        require(claimed > recorded, NothingClaimedTooMuch(channelId, claimed, recorded));
        uint40 due = uint40(block.timestamp) + REFUND_DELAY;
        channelRefunds[channelId] = ChannelRefund(claimed, due);
        emit ChannelRefundRequested(channelId, nodeId, claimed, due);
    }

    /// @notice Credits the payer with what was claimed by the time of the request and has no receipts even now. Anyone may call it.
    /// @dev The refund counts as a charge that is credited: what is recorded and waits keeps its part of the claims.
    /// @return amount the refund; 0 if the receipts came in time
    function refundChannel(bytes32 nodeId, BatchSettlement.ChannelConfig calldata channel)
        external
        returns (uint128 amount)
    {
        bytes32 channelId = _ownChannel(_channelSeparator(), nodeId, channel);
        ChannelRefund memory asked = channelRefunds[channelId];
        require(asked.due != 0 && block.timestamp >= asked.due, RefundNotDue(channelId, asked.due));
        delete channelRefunds[channelId];
        ChannelSums memory sums = channelSums[channelId];
        if (asked.claimed <= sums.recorded) {
            return 0;
        }
        amount = asked.claimed - sums.recorded;
        channelSums[channelId] = ChannelSums(asked.claimed, sums.credited + amount);
        emit ChannelRefunded(channelId, nodeId, amount);
        channels.settle(channel.receiver, address(opg));
        address[] memory payees = new address[](1);
        uint256[] memory amounts = new uint256[](1);
        payees[0] = channel.payer;
        amounts[0] = amount;
        vault.credit(nodeId, 0, 0, payees, amounts);
    }

    /// @notice Changes the escrow windows of receipts recorded from now on, by mode: none, tee, zk, replay. Each is shorter than the
    /// unbonding of nodes: a bond is still there when its node's last credits are released.
    function setWindows(uint40[4] calldata windows) external onlyGovernance {
        uint40 unbonding = nodes.unbonding();
        for (uint256 i; i < 4; ++i) {
            require(windows[i] < unbonding, InvalidWindow(windows[i]));
        }
        _setWindows(windows);
    }

    /// @notice Changes the weights of node, auditors, treasury and router for charges credited from now on.
    function setWeights(uint16[4] calldata weights) external onlyGovernance {
        _setWeights(weights);
    }

    /// @notice Changes the weights of node, auditors, treasury and router for charges of closed models credited from now on.
    function setClosedWeights(uint8[4] calldata weights) external onlyGovernance {
        _setClosedWeights(weights);
    }

    /// @notice Splits a charge for any model, as {split} does for those that are not closed.
    function splitOf(bytes32 modelRoot, uint128 charge, uint16 royaltyBps, bool hasRouter)
        public
        view
        returns (Shares memory shares)
    {
        require(royaltyBps <= 10_000, InvalidRoyalty(royaltyBps));
        (, bool closed) = models.payeeOf(modelRoot);
        _addShares(shares, _weights(closed), charge, royaltyBps, hasRouter);
    }

    /// @notice Splits a charge (docs/specs/ledger.md §6): the royalty to the creator; the rest by the weights of {rules} to node, auditors,
    /// treasury and router, the wei that division leaves to the largest remainders. There are no auditors yet, so their share
    /// goes to the insurance account; without a router its share goes to the node.
    function split(uint128 charge, uint16 royaltyBps, bool hasRouter) public view returns (Shares memory shares) {
        require(royaltyBps <= 10_000, InvalidRoyalty(royaltyBps));
        _addShares(shares, _weights(false), charge, royaltyBps, hasRouter);
    }

    /// @notice What {spent} holds for an entry that waits for its payment: its hash with the highest bit set and the lowest cleared, which
    /// is neither zero nor {CREDITED}.
    function pendingHash(PendingEntry memory entry) public pure returns (bytes32) {
        bytes32 entryHash;
        assembly ("memory-safe") {
            // In memory the twelve static fields lie as abi.encode would write them.
            entryHash := keccak256(entry, 384)
        }
        return bytes32((uint256(entryHash) | (1 << 255)) & ~uint256(1));
    }

    /// @notice Key of {pendingCharges}: `keccak256(abi.encode(terms))`.
    function termsHash(ChannelTerms memory terms) public pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            // In memory the seven static fields lie as abi.encode would write them.
            hash := keccak256(terms, 224)
        }
    }

    /// @notice Identifies the payment of one authorization: `keccak256(abi.encode(payer, nonce))`.
    function paymentIdOf(address payer, bytes32 nonce) public pure returns (bytes32) {
        return Hashes.efficientKeccak256(bytes32(uint256(uint160(payer))), nonce);
    }

    /// @notice Identifies the payment of one Permit2 nonce, which either proxy takes once:
    /// `keccak256(abi.encode(keccak256("opg/payments/permit2"), payer, nonce))`. Three words, so that no nonce of an authorization, which
    /// its payer may choose, makes the two meet.
    function permitPaymentIdOf(address payer, bytes32 nonce) public pure returns (bytes32) {
        return keccak256(abi.encode(PERMIT2_PAYMENT, payer, nonce));
    }

    /// @dev Id of a payment by method.
    function _paymentId(uint8 method, address payer, bytes32 nonce) private pure returns (bytes32) {
        if (method == ERC3009) return paymentIdOf(payer, nonce);
        require(method <= UPTO_PERMIT2, UnknownMethod(method));
        return permitPaymentIdOf(payer, nonce);
    }

    /// @notice Escrow window of a mode, seconds.
    function window(uint8 mode) public view returns (uint40) {
        if (mode == 0) return rules.windowNone;
        if (mode == 1) return rules.windowTee;
        if (mode == 2) return rules.windowZk;
        if (mode == 3) return rules.windowReplay;
        revert UnknownMode(mode);
    }

    function _recordGroup(Group calldata group) private {
        PendingEntry memory terms;
        terms.nodeId = group.nodeId;
        terms.modelRoot = group.modelRoot;
        terms.royaltyBps = group.royaltyBps;
        terms.mode = group.mode;
        terms.router = group.router;
        terms.method = group.method;
        terms.releaseAt = uint64(block.timestamp) + window(group.mode);
        bool closed;
        (terms.creator, closed) = models.payeeOf(group.modelRoot);
        require(terms.creator != address(0), UnknownModel(group.modelRoot));
        address operator = nodes.operatorOf(group.nodeId);
        require(operator != address(0), UnknownNode(group.nodeId));
        (address[] memory payees, uint256[] memory amounts) = _credits(group.entries.length);
        (Shares memory sums, uint256 used) =
            _recordEntries(group, terms, _weights(closed), payees, amounts);
        if (used == 0) {
            return;
        }
        _fill(payees, amounts, operator, terms.creator, group.router, sums);
        assembly ("memory-safe") {
            mstore(payees, used)
            mstore(amounts, used)
        }
        vault.credit(group.nodeId, group.mode, terms.releaseAt, payees, amounts);
    }

    function _recordChannelGroup(bytes32 separator, ChannelGroup calldata group) private {
        require(group.royaltyBps <= 10_000, InvalidRoyalty(group.royaltyBps));
        require(nodes.operatorOf(group.nodeId) != address(0), UnknownNode(group.nodeId));
        ChannelTerms memory terms;
        terms.channelId = _ownChannel(separator, group.nodeId, group.channel);
        terms.nodeId = group.nodeId;
        terms.modelRoot = group.modelRoot;
        terms.creator = models.creatorOf(group.modelRoot);
        terms.royaltyBps = group.royaltyBps;
        terms.mode = group.mode;
        terms.router = group.router;
        require(terms.creator != address(0), UnknownModel(group.modelRoot));
        mapping(uint256 word => uint256) storage bitmap = sequences[group.keyset];
        for (uint256 i; i < group.words.length; ++i) {
            SeqWord calldata seq = group.words[i];
            uint256 word = bitmap[seq.word];
            require(word & seq.bits == 0, SequencesUsed(group.keyset, seq.word, word & seq.bits));
            bitmap[seq.word] = word | seq.bits;
        }
        ChannelSums storage sums = channelSums[terms.channelId];
        sums.recorded = _saturated(sums.recorded, group.charge);
        // Charges on the same terms share one release time, the latest: whatever is added waits a whole window.
        uint64 releaseAt = uint64(block.timestamp) + window(group.mode);
        PendingCharge storage pending = pendingCharges[termsHash(terms)];
        pending.amount = _saturated(pending.amount, group.charge);
        pending.releaseAt = releaseAt;
        emit ChannelCharged(
            terms.channelId,
            terms.nodeId,
            terms.modelRoot,
            terms.creator,
            terms.royaltyBps,
            terms.mode,
            terms.router,
            group.charge,
            releaseAt
        );
    }

    /// @dev Money goes as far as the channel's claims; which terms are credited first does not change who holds it.
    function _creditChannel(ChannelTerms calldata terms) private returns (uint128 amount) {
        PendingCharge storage pending = pendingCharges[termsHash(terms)];
        amount = pending.amount;
        if (amount == 0) {
            return 0;
        }
        ChannelSums storage sums = channelSums[terms.channelId];
        (, uint128 claimed) = channels.channels(terms.channelId);
        uint128 left = claimed - sums.credited;
        if (amount > left) {
            amount = left;
        }
        if (amount == 0) {
            return 0;
        }
        sums.credited += amount;
        pending.amount -= amount;
        emit ChannelCredited(terms.channelId, terms.nodeId, amount);
        (address[] memory payees, uint256[] memory amounts) = _credits(0);
        _fill(
            payees,
            amounts,
            nodes.operatorOf(terms.nodeId),
            terms.creator,
            terms.router,
            splitOf(terms.modelRoot, amount, terms.royaltyBps, terms.router != address(0))
        );
        vault.credit(terms.nodeId, terms.mode, pending.releaseAt, payees, amounts);
    }

    /// @dev A sum that stops at the top: no charge, however false, can make a system transaction revert. OPG never gets there.
    function _saturated(uint128 sum, uint128 added) private pure returns (uint128) {
        unchecked {
            uint128 next = sum + added;
            return next < sum ? type(uint128).max : next;
        }
    }

    /// @dev The domain separator of {channels}, computed here to spare a call for each group.
    function _channelSeparator() private view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("x402 Batch Settlement"),
                keccak256("1"),
                block.chainid,
                address(channels)
            )
        );
    }

    /// @dev {BatchSettlement.getChannelId} of a channel that must pay the node in OPG.
    function _ownChannel(bytes32 separator, bytes32 nodeId, BatchSettlement.ChannelConfig calldata config)
        private
        view
        returns (bytes32)
    {
        require(
            config.receiver == _depositAddress(nodeId) && config.token == address(opg),
            ForeignChannel(nodeId, config.receiver, config.token)
        );
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
                ),
                config
            )
        );
        return MessageHashUtils.toTypedDataHash(separator, structHash);
    }

    /// @dev Records all entries of a group. Refunds go into the lists from index 5 on, one for each run of entries of the same payer.
    /// This loop decides how many receipts fit a block, hence the unchecked arithmetic and the hand-made slots.
    /// @return sums shares of all credited entries
    /// @return used length of the lists, 0 if no entry was credited
    function _recordEntries(
        Group calldata group,
        PendingEntry memory terms,
        uint256[5] memory weights,
        address[] memory payees,
        uint256[] memory amounts
    ) private returns (Shares memory sums, uint256 used) {
        require(group.royaltyBps <= 10_000, InvalidRoyalty(group.royaltyBps));
        mapping(uint256 word => uint256) storage bitmap = sequences[group.keyset];
        Entry[] calldata entries = group.entries;
        address deposit = _depositAddress(group.nodeId);
        uint256 wordIndex = type(uint256).max;
        uint256 word;
        uint256 credits;
        for (uint256 i; i < entries.length;) {
            Entry calldata entry = entries[i];
            {
                uint256 seq = entry.seq;
                if (seq >> 8 != wordIndex) {
                    if (i != 0) {
                        bitmap[wordIndex] = word;
                    }
                    wordIndex = seq >> 8;
                    word = bitmap[wordIndex];
                }
                uint256 bit = 1 << (seq & 255);
                require(word & bit == 0, SequenceUsed(group.keyset, uint64(seq)));
                word |= bit;
            }
            terms.payer = entry.payer;
            terms.nonce = entry.nonce;
            uint128 amount = entry.amount;
            uint128 charge = entry.charge;
            terms.amount = amount;
            terms.charge = charge;
            if (charge != amount) {
                require(charge < amount, ChargeAboveAmount(charge, amount));
                require(terms.method != UPTO_PERMIT2, ChargeNotAmount(charge, amount));
            }
            if (_recordPayment(deposit, terms)) {
                unchecked {
                    if (credits++ == 0) {
                        used = 5;
                    }
                    _addShares(sums, weights, charge, terms.royaltyBps, terms.router != address(0));
                    if (charge != amount) {
                        if (used == 5 || payees[used - 1] != terms.payer) {
                            payees[used++] = terms.payer;
                        }
                        amounts[used - 1] += amount - charge;
                    }
                }
            }
            unchecked {
                ++i;
            }
        }
        if (entries.length != 0) {
            bitmap[wordIndex] = word;
        }
        if (credits != entries.length) {
            emit PaymentsPending(
                group.nodeId, group.modelRoot, terms.creator, group.mode, terms.releaseAt, entries.length - credits
            );
        }
    }

    /// @dev Marks the payment of `entry` as spent.
    /// @return settled whether the payment has settled, so that the entry is to be credited now
    function _recordPayment(address deposit, PendingEntry memory entry) private returns (bool settled) {
        (address payer, bytes32 nonce, uint8 method) = (entry.payer, entry.nonce, entry.method);
        bytes32 paymentId = _paymentId(method, payer, nonce);
        bytes32 slot;
        bytes32 previous;
        assembly {
            slot := spent.slot
        }
        slot = Hashes.efficientKeccak256(paymentId, slot);
        assembly {
            previous := sload(slot)
        }
        require(previous == 0, PaymentSpent(paymentId));
        // Nothing is settled for work that costs nothing, so nothing is waited for.
        settled = (method == UPTO_PERMIT2 && entry.amount == 0)
            || _settlement(method, payer, nonce) == _expected(deposit, entry.amount);
        bytes32 mark = settled ? CREDITED : pendingHash(entry);
        assembly {
            sstore(slot, mark)
        }
    }

    /// @dev Lists of credits: five shares, then room for `refunds`.
    function _credits(uint256 refunds) private pure returns (address[] memory payees, uint256[] memory amounts) {
        payees = new address[](5 + refunds);
        amounts = new uint256[](5 + refunds);
    }

    function _fill(
        address[] memory payees,
        uint256[] memory amounts,
        address operator,
        address creator,
        address router,
        Shares memory shares
    ) private view {
        payees[0] = operator;
        amounts[0] = shares.node;
        payees[1] = creator;
        amounts[1] = shares.creator;
        payees[2] = treasury;
        amounts[2] = shares.treasury;
        payees[3] = INSURANCE;
        amounts[3] = shares.insurance;
        payees[4] = router;
        amounts[4] = shares.router;
    }

    /// @dev Id of a payment that reached the node and has no receipt.
    function _unspentAndSettled(bytes32 nodeId, address payer, bytes32 nonce, uint128 amount, uint8 method)
        private
        view
        returns (bytes32 paymentId)
    {
        paymentId = _paymentId(method, payer, nonce);
        require(spent[paymentId] == 0, PaymentSpent(paymentId));
        require(
            _settlement(method, payer, nonce) == _expected(_depositAddress(nodeId), amount),
            PaymentNotSettled(paymentId)
        );
    }

    /// @dev What {OPG.settlementOf} returns once the authorization has paid `amount` to `deposit`.
    function _expected(address deposit, uint128 amount) private pure returns (bytes32) {
        return Hashes.efficientKeccak256(bytes32(uint256(uint160(deposit))), bytes32(uint256(amount)));
    }

    /// @dev Whether the payment of an entry can never settle.
    function _unpayable(PendingEntry calldata entry) private view returns (bool) {
        bytes32 settlement = _settlement(entry.method, entry.payer, entry.nonce);
        if (settlement != 0) {
            return settlement != _expected(_depositAddress(entry.nodeId), entry.amount);
        }
        if (entry.method == ERC3009) {
            return false;
        }
        // The proxy writes its slot before Permit2 takes the nonce: one that is taken and has no slot paid otherwise, or nothing.
        uint256 nonce = uint256(entry.nonce);
        return permit2.nonceBitmap(entry.payer, nonce >> 8) & (1 << (nonce & 255)) != 0;
    }

    /// @dev {OPG.settlementOf} or {Permit2Proxy.settlementOf} without the copies that a high-level call makes. The method is a known one.
    function _settlement(uint8 method, address payer, bytes32 nonce) private view returns (bytes32 settlement) {
        address token = address(opg);
        bytes4 selector = OPG.settlementOf.selector;
        if (method == ERC3009) {
            assembly ("memory-safe") {
                let pointer := mload(0x40)
                mstore(pointer, selector)
                mstore(add(pointer, 4), payer)
                mstore(add(pointer, 36), nonce)
                let success := staticcall(gas(), token, pointer, 68, 0, 32)
                // Short of gas, the call fails here and nowhere else: never take that for "not settled".
                if iszero(and(success, gt(returndatasize(), 31))) { revert(0, 0) }
                settlement := mload(0)
            }
            return settlement;
        }
        selector = exactProxy.settlementOf.selector;
        address proxy = address(method == EXACT_PERMIT2 ? exactProxy : uptoProxy);
        assembly ("memory-safe") {
            let pointer := mload(0x40)
            mstore(pointer, selector)
            mstore(add(pointer, 4), token)
            mstore(add(pointer, 36), payer)
            mstore(add(pointer, 68), nonce)
            let success := staticcall(gas(), proxy, pointer, 100, 0, 32)
            // As above.
            if iszero(and(success, gt(returndatasize(), 31))) { revert(0, 0) }
            settlement := mload(0)
        }
    }

    function _depositAddress(bytes32 nodeId) private view returns (address) {
        return Clones.predictDeterministicAddress(implementation, nodeId, address(vault));
    }

    /// @dev Adds the shares of one charge to `sums`. Every product is below 2^142, every part at most the charge, and charges of settled
    /// payments sum to at most the supply: nothing can overflow.
    function _addShares(
        Shares memory sums,
        uint256[5] memory weights,
        uint128 charge,
        uint16 royaltyBps,
        bool hasRouter
    ) private pure {
        unchecked {
            uint256 creator = uint256(charge) * royaltyBps / 10_000;
            uint256 rest = charge - creator;
            uint256 node;
            uint256 insurance;
            uint256 treasuryShare;
            uint256 router;
            uint256 a;
            uint256 b;
            uint256 c;
            uint256 d;
            assembly ("memory-safe") {
                // Quotients and remainders; the total is never zero.
                let total := mload(add(weights, 128))
                let product := mul(rest, mload(weights))
                node := div(product, total)
                a := mod(product, total)
                product := mul(rest, mload(add(weights, 32)))
                insurance := div(product, total)
                b := mod(product, total)
                product := mul(rest, mload(add(weights, 64)))
                treasuryShare := div(product, total)
                c := mod(product, total)
                product := mul(rest, mload(add(weights, 96)))
                router := div(product, total)
                d := mod(product, total)
            }
            uint256 left = rest - node - insurance - treasuryShare - router;
            if (left != 0) {
                // Remainders made distinct: among equal ones the share listed first is the larger.
                a = a * 4 + 3;
                b = b * 4 + 2;
                c = c * 4 + 1;
                d = d * 4;
                if (_rank(a, b, c, d) < left) ++node;
                if (_rank(b, a, c, d) < left) ++insurance;
                if (_rank(c, a, b, d) < left) ++treasuryShare;
                if (_rank(d, a, b, c) < left) ++router;
            }
            sums.creator += creator;
            sums.insurance += insurance;
            sums.treasury += treasuryShare;
            if (hasRouter) {
                sums.node += node;
                sums.router += router;
            } else {
                sums.node += node + router;
            }
        }
    }

    /// @dev The four weights and their sum.
    function _weights(bool closed) private view returns (uint256[5] memory weights) {
        Rules memory r = rules;
        weights = closed
            ? [uint256(r.closedNode), r.closedAuditors, r.closedTreasury, r.closedRouter, 0]
            : [uint256(r.node), r.auditors, r.treasury, r.router, 0];
        weights[4] = weights[0] + weights[1] + weights[2] + weights[3];
    }

    function _setWindows(uint40[4] memory windows) private {
        for (uint256 i; i < 4; ++i) {
            require(windows[i] <= MAX_WINDOW, InvalidWindow(windows[i]));
        }
        rules.windowNone = windows[0];
        rules.windowTee = windows[1];
        rules.windowZk = windows[2];
        rules.windowReplay = windows[3];
        emit WindowsSet(windows);
    }

    /// @dev Bounds keep the largest part with whoever does the work, and every division defined.
    function _setWeights(uint16[4] memory weights) private {
        uint256 total = uint256(weights[0]) + weights[1] + weights[2] + weights[3];
        bool valid = total != 0 && total <= MAX_WEIGHTS && uint256(weights[0]) * 100 >= total * MIN_NODE_PERCENT;
        for (uint256 i = 1; i < 4; ++i) {
            valid = valid && uint256(weights[i]) * 100 <= total * MAX_OTHER_PERCENT;
        }
        require(valid, InvalidWeights(weights[0], weights[1], weights[2], weights[3]));
        rules.node = weights[0];
        rules.auditors = weights[1];
        rules.treasury = weights[2];
        rules.router = weights[3];
        emit WeightsSet(weights);
    }

    /// @dev The node passes nearly all of it on to the provider.
    function _setClosedWeights(uint8[4] memory weights) private {
        uint256 total = uint256(weights[0]) + weights[1] + weights[2] + weights[3];
        bool valid = total != 0 && uint256(weights[0]) * 100 >= total * MIN_CLOSED_NODE_PERCENT;
        for (uint256 i = 1; i < 4; ++i) {
            valid = valid && uint256(weights[i]) * 100 <= total * MAX_CLOSED_OTHER_PERCENT;
        }
        require(valid, InvalidWeights(weights[0], weights[1], weights[2], weights[3]));
        rules.closedNode = weights[0];
        rules.closedAuditors = weights[1];
        rules.closedTreasury = weights[2];
        rules.closedRouter = weights[3];
        emit ClosedWeightsSet(weights);
    }

    /// @dev How many of the others are larger.
    function _rank(uint256 x, uint256 p, uint256 q, uint256 r) private pure returns (uint256 rank) {
        assembly {
            rank := add(add(gt(p, x), gt(q, x)), gt(r, x))
        }
    }
}
