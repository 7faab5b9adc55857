// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title Permit2
/// @notice Transfers of any ERC-20 by signature, to an owner who approved this contract once. Our implementation of the published ABI
/// of Uniswap's Permit2, both halves: one-time transfers with unordered nonces, and allowances with an expiry.
/// @dev No owner, no fee, no balance of its own: it only ever moves what an owner signed for or allowed. Storage slots are those of the
/// original, so that proofs about one read the same as proofs about the other.
contract Permit2 {
    using SafeERC20 for IERC20;

    /// @notice A token and the most that may be taken of it.
    struct TokenPermissions {
        address token;
        uint256 amount;
    }

    /// @notice One signed transfer.
    struct PermitTransferFrom {
        TokenPermissions permitted;
        uint256 nonce;
        uint256 deadline;
    }

    /// @notice Several transfers under one signature.
    struct PermitBatchTransferFrom {
        TokenPermissions[] permitted;
        uint256 nonce;
        uint256 deadline;
    }

    /// @notice Where the spender sends a signed transfer, and how much of it.
    struct SignatureTransferDetails {
        address to;
        uint256 requestedAmount;
    }

    /// @notice A signed allowance.
    struct PermitDetails {
        address token;
        uint160 amount;
        uint48 expiration;
        uint48 nonce;
    }

    /// @notice One allowance for one spender.
    struct PermitSingle {
        PermitDetails details;
        address spender;
        uint256 sigDeadline;
    }

    /// @notice Several allowances for one spender.
    struct PermitBatch {
        PermitDetails[] details;
        address spender;
        uint256 sigDeadline;
    }

    /// @notice An allowance as it is stored, in one slot.
    struct PackedAllowance {
        uint160 amount;
        uint48 expiration;
        uint48 nonce;
    }

    /// @notice An allowance to take away.
    struct TokenSpenderPair {
        address token;
        address spender;
    }

    /// @notice A transfer out of an allowance.
    struct AllowanceTransferDetails {
        address from;
        address to;
        uint160 amount;
        address token;
    }

    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)");
    bytes32 private constant NAME_HASH = keccak256("Permit2");
    bytes32 private constant TOKEN_PERMISSIONS_TYPEHASH = keccak256("TokenPermissions(address token,uint256 amount)");
    bytes32 private constant TRANSFER_TYPEHASH = keccak256(
        "PermitTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline)TokenPermissions(address token,uint256 amount)"
    );
    bytes32 private constant BATCH_TRANSFER_TYPEHASH = keccak256(
        "PermitBatchTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline)TokenPermissions(address token,uint256 amount)"
    );
    string private constant WITNESS_STUB =
        "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,";
    string private constant BATCH_WITNESS_STUB =
        "PermitBatchWitnessTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline,";
    bytes32 private constant DETAILS_TYPEHASH =
        keccak256("PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)");
    bytes32 private constant SINGLE_TYPEHASH = keccak256(
        "PermitSingle(PermitDetails details,address spender,uint256 sigDeadline)PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)"
    );
    bytes32 private constant BATCH_TYPEHASH = keccak256(
        "PermitBatch(PermitDetails[] details,address spender,uint256 sigDeadline)PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)"
    );

    uint256 private immutable _chainId;
    address private immutable _self;
    bytes32 private immutable _separator;

    /// @notice Used nonces of signed transfers: bit `nonce & 255` of word `nonce >> 8`.
    mapping(address owner => mapping(uint256 word => uint256)) public nonceBitmap;
    /// @notice Allowances.
    mapping(address owner => mapping(address token => mapping(address spender => PackedAllowance))) public allowance;

    /// @notice An owner made nonces of signed transfers unusable.
    event UnorderedNonceInvalidation(address indexed owner, uint256 word, uint256 mask);
    /// @notice An owner made nonces of signed allowances unusable.
    event NonceInvalidation(
        address indexed owner, address indexed token, address indexed spender, uint48 newNonce, uint48 oldNonce
    );
    /// @notice An owner set an allowance by a call.
    event Approval(
        address indexed owner, address indexed token, address indexed spender, uint160 amount, uint48 expiration
    );
    /// @notice An owner set an allowance by a signature.
    event Permit(
        address indexed owner,
        address indexed token,
        address indexed spender,
        uint160 amount,
        uint48 expiration,
        uint48 nonce
    );
    /// @notice An owner took an allowance away.
    event Lockdown(address indexed owner, address token, address spender);

    /// @notice The signature's deadline has passed.
    error SignatureExpired(uint256 signatureDeadline);
    /// @notice The nonce is used, or not the next one.
    error InvalidNonce();
    /// @notice More was asked for than is permitted.
    error InvalidAmount(uint256 maxAmount);
    /// @notice The two lists differ in length.
    error LengthMismatch();
    /// @notice A signature has 64 (EIP-2098) or 65 bytes.
    error InvalidSignatureLength();
    /// @notice Nobody made this signature.
    error InvalidSignature();
    /// @notice Somebody else made this signature.
    error InvalidSigner();
    /// @notice The owner's contract does not accept the signature (ERC-1271).
    error InvalidContractSignature();
    /// @notice The allowance has expired.
    error AllowanceExpired(uint256 deadline);
    /// @notice The allowance is smaller than the transfer.
    error InsufficientAllowance(uint256 amount);
    /// @notice At most 65,535 nonces can be skipped at once.
    error ExcessiveInvalidation();

    constructor() {
        _chainId = block.chainid;
        _self = address(this);
        _separator = _buildSeparator();
    }

    /// @notice Domain separator of this contract on this chain.
    // solhint-disable-next-line func-name-mixedcase
    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        // Code copied to another address, or a forked chain, must not share a separator with the original.
        return block.chainid == _chainId && address(this) == _self ? _separator : _buildSeparator();
    }

    /// @notice Executes a transfer that `owner` signed for the caller.
    function permitTransferFrom(
        PermitTransferFrom calldata permit_,
        SignatureTransferDetails calldata transferDetails,
        address owner,
        bytes calldata signature
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(
                TRANSFER_TYPEHASH, _hashPermitted(permit_.permitted), msg.sender, permit_.nonce, permit_.deadline
            )
        );
        _transferSigned(permit_, transferDetails, owner, structHash, signature);
    }

    /// @notice Executes a transfer that `owner` signed for the caller together with further data.
    /// @param witness hash of the further data
    /// @param witnessTypeString EIP-712 types from the name of the witness on, ending with TokenPermissions
    function permitWitnessTransferFrom(
        PermitTransferFrom calldata permit_,
        SignatureTransferDetails calldata transferDetails,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(abi.encodePacked(WITNESS_STUB, witnessTypeString)),
                _hashPermitted(permit_.permitted),
                msg.sender,
                permit_.nonce,
                permit_.deadline,
                witness
            )
        );
        _transferSigned(permit_, transferDetails, owner, structHash, signature);
    }

    /// @notice Executes several transfers that `owner` signed for the caller. An amount of zero skips one.
    function permitTransferFrom(
        PermitBatchTransferFrom calldata permit_,
        SignatureTransferDetails[] calldata transferDetails,
        address owner,
        bytes calldata signature
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(
                BATCH_TRANSFER_TYPEHASH, _hashPermitted(permit_.permitted), msg.sender, permit_.nonce, permit_.deadline
            )
        );
        _transferSignedBatch(permit_, transferDetails, owner, structHash, signature);
    }

    /// @notice Executes several transfers that `owner` signed for the caller together with further data.
    function permitWitnessTransferFrom(
        PermitBatchTransferFrom calldata permit_,
        SignatureTransferDetails[] calldata transferDetails,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(abi.encodePacked(BATCH_WITNESS_STUB, witnessTypeString)),
                _hashPermitted(permit_.permitted),
                msg.sender,
                permit_.nonce,
                permit_.deadline,
                witness
            )
        );
        _transferSignedBatch(permit_, transferDetails, owner, structHash, signature);
    }

    /// @notice Makes the caller's nonces of signed transfers whose bits are set in `mask` unusable.
    function invalidateUnorderedNonces(uint256 wordPos, uint256 mask) external {
        nonceBitmap[msg.sender][wordPos] |= mask;
        emit UnorderedNonceInvalidation(msg.sender, wordPos, mask);
    }

    /// @notice Allows `spender` to take up to `amount` of the caller's `token` until `expiration`; 0 means this block.
    function approve(address token, address spender, uint160 amount, uint48 expiration) external {
        PackedAllowance storage allowed = allowance[msg.sender][token][spender];
        allowed.amount = amount;
        allowed.expiration = expiration == 0 ? uint48(block.timestamp) : expiration;
        emit Approval(msg.sender, token, spender, amount, expiration);
    }

    /// @notice Sets an allowance that `owner` signed.
    function permit(address owner, PermitSingle calldata permitSingle, bytes calldata signature) external {
        require(block.timestamp <= permitSingle.sigDeadline, SignatureExpired(permitSingle.sigDeadline));
        bytes32 structHash = keccak256(
            abi.encode(
                SINGLE_TYPEHASH, _hashDetails(permitSingle.details), permitSingle.spender, permitSingle.sigDeadline
            )
        );
        _checkSignature(owner, structHash, signature);
        _setAllowance(permitSingle.details, owner, permitSingle.spender);
    }

    /// @notice Sets several allowances that `owner` signed.
    function permit(address owner, PermitBatch calldata permitBatch, bytes calldata signature) external {
        require(block.timestamp <= permitBatch.sigDeadline, SignatureExpired(permitBatch.sigDeadline));
        uint256 count = permitBatch.details.length;
        bytes32[] memory hashes = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            hashes[i] = _hashDetails(permitBatch.details[i]);
        }
        bytes32 structHash = keccak256(
            abi.encode(
                BATCH_TYPEHASH, keccak256(abi.encodePacked(hashes)), permitBatch.spender, permitBatch.sigDeadline
            )
        );
        _checkSignature(owner, structHash, signature);
        for (uint256 i; i < count; ++i) {
            _setAllowance(permitBatch.details[i], owner, permitBatch.spender);
        }
    }

    /// @notice Moves `amount` of `from`'s token out of the caller's allowance.
    function transferFrom(address from, address to, uint160 amount, address token) external {
        _transferAllowed(from, to, amount, token);
    }

    /// @notice Several {transferFrom} in one call.
    function transferFrom(AllowanceTransferDetails[] calldata transferDetails) external {
        for (uint256 i; i < transferDetails.length; ++i) {
            AllowanceTransferDetails calldata details = transferDetails[i];
            _transferAllowed(details.from, details.to, details.amount, details.token);
        }
    }

    /// @notice Takes allowances away that the caller gave.
    function lockdown(TokenSpenderPair[] calldata approvals) external {
        for (uint256 i; i < approvals.length; ++i) {
            TokenSpenderPair calldata pair = approvals[i];
            allowance[msg.sender][pair.token][pair.spender].amount = 0;
            emit Lockdown(msg.sender, pair.token, pair.spender);
        }
    }

    /// @notice Makes allowances that the caller signed with nonces below `newNonce` unusable.
    function invalidateNonces(address token, address spender, uint48 newNonce) external {
        PackedAllowance storage allowed = allowance[msg.sender][token][spender];
        uint48 oldNonce = allowed.nonce;
        require(newNonce > oldNonce, InvalidNonce());
        require(newNonce - oldNonce <= type(uint16).max, ExcessiveInvalidation());
        allowed.nonce = newNonce;
        emit NonceInvalidation(msg.sender, token, spender, newNonce, oldNonce);
    }

    function _transferSigned(
        PermitTransferFrom calldata permit_,
        SignatureTransferDetails calldata details,
        address owner,
        bytes32 structHash,
        bytes calldata signature
    ) private {
        require(block.timestamp <= permit_.deadline, SignatureExpired(permit_.deadline));
        uint256 amount = details.requestedAmount;
        require(amount <= permit_.permitted.amount, InvalidAmount(permit_.permitted.amount));
        _useNonce(owner, permit_.nonce);
        _checkSignature(owner, structHash, signature);
        _move(permit_.permitted.token, owner, details.to, amount);
    }

    function _transferSignedBatch(
        PermitBatchTransferFrom calldata permit_,
        SignatureTransferDetails[] calldata details,
        address owner,
        bytes32 structHash,
        bytes calldata signature
    ) private {
        require(block.timestamp <= permit_.deadline, SignatureExpired(permit_.deadline));
        require(details.length == permit_.permitted.length, LengthMismatch());
        _useNonce(owner, permit_.nonce);
        _checkSignature(owner, structHash, signature);
        for (uint256 i; i < details.length; ++i) {
            TokenPermissions calldata permitted = permit_.permitted[i];
            uint256 amount = details[i].requestedAmount;
            require(amount <= permitted.amount, InvalidAmount(permitted.amount));
            if (amount != 0) {
                _move(permitted.token, owner, details[i].to, amount);
            }
        }
    }

    function _transferAllowed(address from, address to, uint160 amount, address token) private {
        PackedAllowance storage allowed = allowance[from][token][msg.sender];
        require(block.timestamp <= allowed.expiration, AllowanceExpired(allowed.expiration));
        uint160 left = allowed.amount;
        if (left != type(uint160).max) {
            require(amount <= left, InsufficientAllowance(left));
            allowed.amount = left - amount;
        }
        _move(token, from, to, amount);
    }

    function _setAllowance(PermitDetails calldata details, address owner, address spender) private {
        PackedAllowance storage allowed = allowance[owner][details.token][spender];
        uint48 nonce = details.nonce;
        require(allowed.nonce == nonce, InvalidNonce());
        unchecked {
            // The last nonce wraps, as in the original.
            allowed.nonce = nonce + 1;
        }
        allowed.amount = details.amount;
        allowed.expiration = details.expiration == 0 ? uint48(block.timestamp) : details.expiration;
        emit Permit(owner, details.token, spender, details.amount, details.expiration, nonce);
    }

    /// @dev Marks a nonce as used before anything else happens, so that no callback can use it again.
    function _useNonce(address owner, uint256 nonce) private {
        uint256 bit = 1 << (nonce & 255);
        uint256 word = nonceBitmap[owner][nonce >> 8];
        require(word & bit == 0, InvalidNonce());
        nonceBitmap[owner][nonce >> 8] = word | bit;
    }

    /// @dev An owner with code is asked (ERC-1271, by STATICCALL), any other must have signed with 64 or 65 bytes.
    function _checkSignature(address owner, bytes32 structHash, bytes calldata signature) private view {
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), structHash));
        if (owner.code.length != 0) {
            require(
                IERC1271(owner).isValidSignature(digest, signature) == IERC1271.isValidSignature.selector,
                InvalidContractSignature()
            );
            return;
        }
        require(signature.length == 64 || signature.length == 65, InvalidSignatureLength());
        bytes32 r = bytes32(signature[:32]);
        bytes32 s = bytes32(signature[32:64]);
        uint8 v;
        if (signature.length == 65) {
            v = uint8(signature[64]);
        } else {
            v = uint8(uint256(s) >> 255) + 27;
            s = bytes32((uint256(s) << 1) >> 1);
        }
        address signer = ecrecover(digest, v, r, s);
        require(signer != address(0), InvalidSignature());
        require(signer == owner, InvalidSigner());
    }

    /// @dev A token without code fails, where the original takes it for one that returned nothing.
    function _move(address token, address from, address to, uint256 amount) private {
        require(IERC20(token).trySafeTransferFrom(from, to, amount), "TRANSFER_FROM_FAILED");
    }

    function _hashPermitted(TokenPermissions calldata permitted) private pure returns (bytes32) {
        return keccak256(abi.encode(TOKEN_PERMISSIONS_TYPEHASH, permitted.token, permitted.amount));
    }

    function _hashPermitted(TokenPermissions[] calldata permitted) private pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](permitted.length);
        for (uint256 i; i < permitted.length; ++i) {
            hashes[i] = _hashPermitted(permitted[i]);
        }
        return keccak256(abi.encodePacked(hashes));
    }

    function _hashDetails(PermitDetails calldata details) private pure returns (bytes32) {
        return keccak256(
            abi.encode(DETAILS_TYPEHASH, details.token, details.amount, details.expiration, details.nonce)
        );
    }

    function _buildSeparator() private view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPEHASH, NAME_HASH, block.chainid, address(this)));
    }
}
