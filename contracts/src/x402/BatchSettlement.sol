// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IDepositCollector} from "./DepositCollector.sol";

/// @title BatchSettlement
/// @notice One-way payment channels of the x402 scheme `batch-settlement`. A payer deposits, signs vouchers with a rising ceiling, and the
/// receiver claims any time; what is not claimed the payer withdraws after a delay. Our implementation of the published ABI.
/// @dev A channel is its configuration: the id is its EIP-712 hash, nothing of it is stored. A claimed wei can only go to the receiver,
/// an unclaimed one only to the receiver by the payer's voucher or back to the payer. Nobody else has a say: no owner, no fee, no pause.
/// Tokens that take fees or rebase are not supported; a token can only harm channels of its own.
contract BatchSettlement is EIP712, Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice What makes a channel. `payerAuthorizer` signs vouchers for the payer; if it is zero the payer does, also as a contract.
    struct ChannelConfig {
        address payer;
        address payerAuthorizer;
        address receiver;
        address receiverAuthorizer;
        address token;
        uint40 withdrawDelay;
        bytes32 salt;
    }

    /// @notice Tokens brought into a channel less those taken back, and tokens claimed from it, ever: one slot.
    struct ChannelState {
        uint128 balance;
        uint128 totalClaimed;
    }

    /// @notice A payer's way out, and the counter of refunds: one slot.
    struct ExitState {
        uint128 amount;
        uint40 initiatedAt;
        uint88 refundNonce;
    }

    /// @notice Tokens claimed for a receiver from all its channels, and tokens sent to it, ever: one slot.
    struct ReceiverState {
        uint128 totalClaimed;
        uint128 totalSettled;
    }

    /// @notice A ceiling on what the receiver may claim from a channel, ever.
    struct Voucher {
        ChannelConfig channel;
        uint128 maxClaimableAmount;
    }

    /// @notice A signed voucher and the total that the receiver claims under it.
    struct VoucherClaim {
        Voucher voucher;
        bytes signature;
        uint128 totalClaimed;
    }

    /// @notice Shortest delay between a payer's announcement and its withdrawal.
    uint40 public constant MIN_WITHDRAW_DELAY = 15 minutes;
    /// @notice Longest delay.
    uint40 public constant MAX_WITHDRAW_DELAY = 30 days;
    /// @notice Hash of the EIP-712 type of a channel's configuration.
    bytes32 public constant CHANNEL_CONFIG_TYPEHASH = keccak256(
        "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
    );
    /// @notice Hash of the EIP-712 type of a voucher.
    bytes32 public constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)");
    /// @notice Hash of the EIP-712 type of a refund.
    bytes32 public constant REFUND_TYPEHASH = keccak256("Refund(bytes32 channelId,uint256 nonce,uint128 amount)");
    /// @notice Hash of the EIP-712 type of one row of a batch of claims.
    bytes32 public constant CLAIM_ENTRY_TYPEHASH =
        keccak256("ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)");
    /// @notice Hash of the EIP-712 type of a batch of claims.
    bytes32 public constant CLAIM_BATCH_TYPEHASH = keccak256(
        "ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
    );

    /// @notice State of each channel.
    mapping(bytes32 channelId => ChannelState) public channels;
    mapping(bytes32 channelId => ExitState) private _exits;
    /// @notice State of each receiver in each token.
    mapping(address receiver => mapping(address token => ReceiverState)) public receivers;

    /// @notice A channel got its first deposit.
    event ChannelCreated(bytes32 indexed channelId, ChannelConfig config);
    /// @notice A channel is empty and nothing was ever claimed from it.
    event ChannelClosed(bytes32 indexed channelId, ChannelConfig config);
    /// @notice Tokens came into a channel.
    event Deposited(bytes32 indexed channelId, address indexed sender, uint128 amount, uint128 newBalance);
    /// @notice Tokens of a channel became the receiver's.
    event Claimed(bytes32 indexed channelId, address indexed sender, uint128 claimAmount, uint128 newTotalClaimed);
    /// @notice Claimed tokens were sent to their receiver.
    event Settled(address indexed receiver, address indexed token, address indexed sender, uint128 amount);
    /// @notice The receiver gave tokens of a channel back to the payer.
    event Refunded(bytes32 indexed channelId, address indexed sender, uint128 amount);
    /// @notice A payer announced to take tokens back; before `finalizeAfter` the receiver should claim.
    event WithdrawInitiated(bytes32 indexed channelId, uint128 amount, uint40 finalizeAfter);
    /// @notice A payer took tokens back.
    event WithdrawFinalized(bytes32 indexed channelId, address indexed sender, uint128 amount);

    /// @notice Payer, receiver, receiver's authorizer or token is zero, or the caller is not on the payer's side.
    error InvalidChannel();
    /// @notice The deposit is zero.
    error ZeroDeposit();
    /// @notice The channel would hold more than 128 bits can count.
    error DepositOverflow();
    /// @notice The signature is not that of whom the channel names.
    error InvalidSignature();
    /// @notice A row of the batch names another receiver's authorizer than the first.
    error NotReceiverAuthorizer();
    /// @notice The caller is not on the receiver's side of a channel.
    error NotAuthorizedToClaim();
    /// @notice The caller is not on the receiver's side of the channel.
    error NotAuthorizedToRefund();
    /// @notice The total is above the voucher's ceiling.
    error ClaimExceedsCeiling();
    /// @notice The total is above what the channel holds.
    error ClaimExceedsBalance();
    /// @notice A withdrawal is announced already.
    error WithdrawalAlreadyPending();
    /// @notice No withdrawal is announced.
    error WithdrawalNotPending();
    /// @notice The caller is not on the payer's side of the channel.
    error NotAuthorizedToFinalizeWithdraw();
    /// @notice It is too early.
    error WithdrawDelayNotElapsed();
    /// @notice The amount is zero.
    error NothingToWithdraw();
    /// @notice The amount is above what is not claimed.
    error WithdrawAmountExceedsAvailable();
    /// @notice The delay is not between 15 minutes and 30 days.
    error WithdrawDelayOutOfRange();
    /// @notice The batch has no rows.
    error EmptyBatch();
    /// @notice The collector brought another amount than was to be deposited.
    error DepositCollectionFailed();
    /// @notice No collector was named.
    error InvalidCollector();
    /// @notice The refund was signed for another nonce.
    error InvalidRefundNonce();
    /// @notice The amount is zero.
    error ZeroRefund();

    constructor() EIP712("x402 Batch Settlement", "1") {}

    /// @notice Brings tokens into a channel. Anyone may call it: the collector asks for the payer's signature, or brings somebody else's tokens.
    /// @param collector how to get the tokens; any contract may be one, because only what arrives counts
    function deposit(
        ChannelConfig calldata config,
        uint128 amount,
        address collector,
        bytes calldata collectorData
    ) external nonReentrant {
        require(
            config.payer != address(0) && config.receiver != address(0) && config.receiverAuthorizer != address(0)
                && config.token != address(0),
            InvalidChannel()
        );
        require(
            config.withdrawDelay >= MIN_WITHDRAW_DELAY && config.withdrawDelay <= MAX_WITHDRAW_DELAY,
            WithdrawDelayOutOfRange()
        );
        require(amount != 0, ZeroDeposit());
        require(collector != address(0), InvalidCollector());
        bytes32 channelId = getChannelId(config);
        ChannelState storage channel = channels[channelId];
        uint128 balance = channel.balance;
        require(amount <= type(uint128).max - balance, DepositOverflow());
        if (balance == 0 && channel.totalClaimed == 0) {
            emit ChannelCreated(channelId, config);
        }
        balance += amount;
        channel.balance = balance;
        emit Deposited(channelId, msg.sender, amount, balance);
        uint256 held = IERC20(config.token).balanceOf(address(this));
        IDepositCollector(collector).collect(config.payer, config.token, amount, channelId, collectorData);
        require(IERC20(config.token).balanceOf(address(this)) == held + amount, DepositCollectionFailed());
    }

    /// @notice Claims under vouchers; the caller must be on the receiver's side of every channel. A row that claims no more than was claimed
    /// before is passed over.
    function claim(VoucherClaim[] calldata voucherClaims) external nonReentrant {
        require(voucherClaims.length != 0, EmptyBatch());
        for (uint256 i; i < voucherClaims.length; ++i) {
            require(_isReceiverSide(voucherClaims[i].voucher.channel), NotAuthorizedToClaim());
        }
        _claim(voucherClaims, new bytes32[](0));
    }

    /// @notice Claims under vouchers by the signature of the authorizer that all rows name. Anyone may call it.
    function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature)
        external
        nonReentrant
    {
        require(voucherClaims.length != 0, EmptyBatch());
        address authorizer = voucherClaims[0].voucher.channel.receiverAuthorizer;
        for (uint256 i = 1; i < voucherClaims.length; ++i) {
            require(voucherClaims[i].voucher.channel.receiverAuthorizer == authorizer, NotReceiverAuthorizer());
        }
        (bytes32 digest, bytes32[] memory ids) = _claimBatch(voucherClaims);
        require(
            SignatureChecker.isValidSignatureNowCalldata(authorizer, digest, authorizerSignature), InvalidSignature()
        );
        _claim(voucherClaims, ids);
    }

    /// @notice Sends a receiver all it has claimed in one token. Anyone may call it.
    function settle(address receiver, address token) external nonReentrant {
        ReceiverState storage state = receivers[receiver][token];
        uint128 claimed = state.totalClaimed;
        uint128 amount = claimed - state.totalSettled;
        if (amount == 0) {
            return;
        }
        state.totalSettled = claimed;
        emit Settled(receiver, token, msg.sender, amount);
        IERC20(token).safeTransfer(receiver, amount);
    }

    /// @notice Announces that the payer takes `amount` of what is not claimed back.
    function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        require(_isPayerSide(config), InvalidChannel());
        require(amount != 0, NothingToWithdraw());
        bytes32 channelId = getChannelId(config);
        ExitState storage exit = _exits[channelId];
        require(exit.initiatedAt == 0, WithdrawalAlreadyPending());
        require(amount <= _available(channels[channelId]), WithdrawAmountExceedsAvailable());
        exit.amount = amount;
        exit.initiatedAt = uint40(block.timestamp);
        emit WithdrawInitiated(channelId, amount, uint40(block.timestamp) + config.withdrawDelay);
    }

    /// @notice Sends the payer what it announced to take back, or what the receiver left of it.
    function finalizeWithdraw(ChannelConfig calldata config) external nonReentrant {
        require(_isPayerSide(config), NotAuthorizedToFinalizeWithdraw());
        bytes32 channelId = getChannelId(config);
        ExitState storage exit = _exits[channelId];
        uint256 initiatedAt = exit.initiatedAt;
        require(initiatedAt != 0, WithdrawalNotPending());
        require(block.timestamp >= initiatedAt + config.withdrawDelay, WithdrawDelayNotElapsed());
        ChannelState storage channel = channels[channelId];
        uint128 available = _available(channel);
        uint128 amount = exit.amount > available ? available : exit.amount;
        exit.amount = 0;
        exit.initiatedAt = 0;
        emit WithdrawFinalized(channelId, msg.sender, amount);
        _takeBack(channelId, channel, config, amount);
    }

    /// @notice Gives the payer up to `amount` of what is not claimed back at once; for the receiver's side. It counts the refund nonce up,
    /// even if there is nothing left to give.
    function refund(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        require(_isReceiverSide(config), NotAuthorizedToRefund());
        _refund(getChannelId(config), config, amount);
    }

    /// @notice {refund} by the signature of the receiver's authorizer over the channel's next nonce. Anyone may call it.
    function refundWithSignature(
        ChannelConfig calldata config,
        uint128 amount,
        uint256 nonce,
        bytes calldata receiverAuthorizerSignature
    ) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        require(nonce == _exits[channelId].refundNonce, InvalidRefundNonce());
        require(
            SignatureChecker.isValidSignatureNowCalldata(
                config.receiverAuthorizer, getRefundDigest(channelId, nonce, amount), receiverAuthorizerSignature
            ),
            InvalidSignature()
        );
        _refund(channelId, config, amount);
    }

    /// @notice The withdrawal that a payer has announced; zeros if none.
    function pendingWithdrawals(bytes32 channelId) external view returns (uint128 amount, uint40 initiatedAt) {
        ExitState storage exit = _exits[channelId];
        return (exit.amount, exit.initiatedAt);
    }

    /// @notice The nonce that the next {refundWithSignature} of a channel must be signed for.
    function refundNonce(bytes32 channelId) external view returns (uint256) {
        return _exits[channelId].refundNonce;
    }

    /// @notice Id of a channel: the EIP-712 hash of its configuration, bound to this contract and chain.
    function getChannelId(ChannelConfig calldata config) public view returns (bytes32) {
        return _channelId(_domainSeparatorV4(), config);
    }

    /// @notice What a payer signs as a voucher.
    function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) public view returns (bytes32) {
        return _voucherDigest(_domainSeparatorV4(), channelId, maxClaimableAmount);
    }

    /// @notice What a receiver's authorizer signs to refund.
    function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(REFUND_TYPEHASH, channelId, nonce, amount)));
    }

    /// @notice What a receiver's authorizer signs to claim.
    function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) public view returns (bytes32 digest) {
        (digest,) = _claimBatch(voucherClaims);
    }

    /// @dev Applies the rows. Rows that follow each other with the same receiver and token write its slot once.
    /// @param ids ids of the channels if they are known, else empty
    function _claim(VoucherClaim[] calldata voucherClaims, bytes32[] memory ids) private {
        bytes32 separator = _domainSeparatorV4();
        address receiver;
        address token;
        uint256 sum;
        for (uint256 i; i < voucherClaims.length; ++i) {
            VoucherClaim calldata row = voucherClaims[i];
            ChannelConfig calldata config = row.voucher.channel;
            uint256 delta = _claimRow(separator, ids.length == 0 ? _channelId(separator, config) : ids[i], row);
            if (delta == 0) {
                continue;
            }
            if (config.receiver != receiver || config.token != token) {
                _credit(receiver, token, sum);
                (receiver, token, sum) = (config.receiver, config.token, 0);
            }
            sum += delta;
        }
        _credit(receiver, token, sum);
    }

    /// @return delta what the row adds to the channel's total
    function _claimRow(bytes32 separator, bytes32 channelId, VoucherClaim calldata row)
        private
        returns (uint256 delta)
    {
        ChannelState storage channel = channels[channelId];
        uint128 before = channel.totalClaimed;
        uint128 total = row.totalClaimed;
        if (total <= before) {
            return 0;
        }
        require(total <= row.voucher.maxClaimableAmount, ClaimExceedsCeiling());
        require(total <= channel.balance, ClaimExceedsBalance());
        bytes32 digest = _voucherDigest(separator, channelId, row.voucher.maxClaimableAmount);
        address authorizer = row.voucher.channel.payerAuthorizer;
        if (authorizer != address(0)) {
            (address signer, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(digest, row.signature);
            require(problem == ECDSA.RecoverError.NoError && signer == authorizer, InvalidSignature());
        } else {
            require(
                SignatureChecker.isValidSignatureNowCalldata(row.voucher.channel.payer, digest, row.signature),
                InvalidSignature()
            );
        }
        channel.totalClaimed = total;
        emit Claimed(channelId, msg.sender, total - before, total);
        unchecked {
            return total - before;
        }
    }

    function _credit(address receiver, address token, uint256 amount) private {
        if (amount != 0) {
            ReceiverState storage state = receivers[receiver][token];
            // Only a token that creates more than 128 bits can count gets here; it hurts nobody else.
            uint256 total = state.totalClaimed + amount;
            require(total <= type(uint128).max, ClaimExceedsBalance());
            state.totalClaimed = uint128(total);
        }
    }

    function _refund(bytes32 channelId, ChannelConfig calldata config, uint128 amount) private {
        require(amount != 0, ZeroRefund());
        ExitState memory exit = _exits[channelId];
        ++exit.refundNonce;
        ChannelState storage channel = channels[channelId];
        uint128 available = _available(channel);
        if (amount > available) {
            amount = available;
        }
        if (exit.initiatedAt != 0) {
            if (amount < exit.amount) {
                exit.amount -= amount;
            } else if (amount != 0) {
                exit.amount = 0;
                exit.initiatedAt = 0;
            }
        }
        _exits[channelId] = exit;
        if (amount != 0) {
            emit Refunded(channelId, msg.sender, amount);
            _takeBack(channelId, channel, config, amount);
        }
    }

    /// @dev Sends the payer tokens that the caller has found unclaimed.
    function _takeBack(bytes32 channelId, ChannelState storage channel, ChannelConfig calldata config, uint128 amount)
        private
    {
        channel.balance -= amount;
        if (channel.balance == 0 && channel.totalClaimed == 0) {
            emit ChannelClosed(channelId, config);
        }
        if (amount != 0) {
            IERC20(config.token).safeTransfer(config.payer, amount);
        }
    }

    function _available(ChannelState storage channel) private view returns (uint128) {
        return channel.balance - channel.totalClaimed;
    }

    function _isReceiverSide(ChannelConfig calldata config) private view returns (bool) {
        return msg.sender == config.receiverAuthorizer || msg.sender == config.receiver;
    }

    function _isPayerSide(ChannelConfig calldata config) private view returns (bool) {
        return msg.sender == config.payer || msg.sender == config.payerAuthorizer;
    }

    function _claimBatch(VoucherClaim[] calldata voucherClaims)
        private
        view
        returns (bytes32 digest, bytes32[] memory ids)
    {
        bytes32 separator = _domainSeparatorV4();
        ids = new bytes32[](voucherClaims.length);
        bytes32[] memory hashes = new bytes32[](voucherClaims.length);
        for (uint256 i; i < voucherClaims.length; ++i) {
            VoucherClaim calldata row = voucherClaims[i];
            bytes32 channelId = _channelId(separator, row.voucher.channel);
            ids[i] = channelId;
            hashes[i] = keccak256(
                abi.encode(CLAIM_ENTRY_TYPEHASH, channelId, row.voucher.maxClaimableAmount, row.totalClaimed)
            );
        }
        bytes32 structHash = keccak256(abi.encode(CLAIM_BATCH_TYPEHASH, keccak256(abi.encodePacked(hashes))));
        digest = MessageHashUtils.toTypedDataHash(separator, structHash);
    }

    function _channelId(bytes32 separator, ChannelConfig calldata config) private pure returns (bytes32) {
        return
            MessageHashUtils.toTypedDataHash(separator, keccak256(abi.encode(CHANNEL_CONFIG_TYPEHASH, config)));
    }

    function _voucherDigest(bytes32 separator, bytes32 channelId, uint128 maxClaimableAmount)
        private
        pure
        returns (bytes32)
    {
        return MessageHashUtils.toTypedDataHash(
            separator, keccak256(abi.encode(VOUCHER_TYPEHASH, channelId, maxClaimableAmount))
        );
    }
}
