// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";

/// @title OPG
/// @notice The network's coin as an ERC-20: native coin is wrapped one to one and back. Adds votes on a timestamp clock, ERC-2612
/// permits and ERC-3009 authorizations whose settlement can be proven by one storage slot.
/// @dev Nobody can mint: `totalSupply` is the native coin deposited and not yet withdrawn. Native coin forced upon the contract
/// (block rewards, self-destruction) is in no balance and can never leave.
contract OPG is ERC20, ERC20Permit, ERC20Votes {
    /// @notice Hash of the EIP-712 type of {transferWithAuthorization}.
    bytes32 public constant TRANSFER_WITH_AUTHORIZATION_TYPEHASH = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    /// @notice Hash of the EIP-712 type of {receiveWithAuthorization}.
    bytes32 public constant RECEIVE_WITH_AUTHORIZATION_TYPEHASH = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    /// @notice Hash of the EIP-712 type of {cancelAuthorization}.
    bytes32 public constant CANCEL_AUTHORIZATION_TYPEHASH =
        keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");
    /// @notice What {settlementOf} returns for a cancelled authorization.
    bytes32 public constant CANCELLED = keccak256("opg/authorization-cancelled/v1");
    /// @notice The whole supply of OPG, wrapped or not.
    uint256 public constant maxSupply = 1e27;

    mapping(address payer => mapping(bytes32 nonce => bytes32)) private _settlements;

    /// @notice An authorization was executed.
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
    /// @notice An authorization was cancelled and can never be executed.
    event AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce);
    /// @notice Native coin was wrapped.
    event Deposit(address indexed account, uint256 amount);
    /// @notice OPG was unwrapped; `to` received native coin.
    event Withdrawal(address indexed account, address indexed to, uint256 amount);

    /// @notice The authorization was used or cancelled before.
    error AuthorizationUsedOrCanceled(address authorizer, bytes32 nonce);
    /// @notice Now is not strictly between the two times.
    error AuthorizationNotValidNow(uint256 validAfter, uint256 validBefore);
    /// @notice The signature is not the authorizer's.
    error InvalidAuthorizationSignature(address authorizer);
    /// @notice Only the recipient may call {receiveWithAuthorization}.
    error CallerNotRecipient(address caller, address to);
    /// @notice The recipient refused the native coin.
    error NativeTransferFailed(address to);

    constructor() ERC20("OpenGradient", "OPG") ERC20Permit("OpenGradient") {}

    /// @notice Wraps the native coin sent along.
    receive() external payable {
        deposit();
    }

    /// @notice Wraps the native coin sent along for the sender.
    function deposit() public payable {
        _mint(msg.sender, msg.value);
        emit Deposit(msg.sender, msg.value);
    }

    /// @notice Unwraps `amount` to the sender.
    function withdraw(uint256 amount) external {
        withdrawTo(msg.sender, amount);
    }

    /// @notice Unwraps `amount` of the sender's OPG and sends the native coin to `to`.
    /// @dev The balance is gone before `to` is called, so calling back gains nothing.
    function withdrawTo(address to, uint256 amount) public {
        _burn(msg.sender, amount);
        emit Withdrawal(msg.sender, to, amount);
        (bool sent,) = to.call{value: amount}("");
        require(sent, NativeTransferFailed(to));
    }

    /// @notice Executes a transfer signed by `from` (ERC-3009). Anyone may relay it.
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        transferWithAuthorization(from, to, value, validAfter, validBefore, nonce, abi.encodePacked(r, s, v));
    }

    /// @notice Executes a transfer signed by `from`, which may be a contract (ERC-1271). Anyone may relay it.
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes memory signature
    ) public {
        _authorize(
            TRANSFER_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce, signature
        );
    }

    /// @notice Executes a transfer signed by `from`; only the recipient may call it.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        receiveWithAuthorization(from, to, value, validAfter, validBefore, nonce, abi.encodePacked(r, s, v));
    }

    /// @notice Executes a transfer signed by `from`, which may be a contract; only the recipient may call it.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes memory signature
    ) public {
        require(to == msg.sender, CallerNotRecipient(msg.sender, to));
        _authorize(RECEIVE_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce, signature);
    }

    /// @notice Cancels an unused authorization by the authorizer's signature.
    function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external {
        cancelAuthorization(authorizer, nonce, abi.encodePacked(r, s, v));
    }

    /// @notice Cancels an unused authorization by the authorizer's signature; the authorizer may be a contract.
    function cancelAuthorization(address authorizer, bytes32 nonce, bytes memory signature) public {
        _checkSignature(authorizer, keccak256(abi.encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce)), signature);
        _use(authorizer, nonce, CANCELLED);
        emit AuthorizationCanceled(authorizer, nonce);
    }

    /// @notice Zero for an unused authorization, {CANCELLED} for a cancelled one, otherwise
    /// `keccak256(abi.encode(to, value))` of the transfer it made.
    function settlementOf(address payer, bytes32 nonce) external view returns (bytes32) {
        return _settlements[payer][nonce];
    }

    /// @notice Whether the authorization is used or cancelled.
    function authorizationState(address authorizer, bytes32 nonce) external view returns (bool) {
        return _settlements[authorizer][nonce] != 0;
    }

    /// @notice Votes are counted by block timestamps.
    function clock() public view override returns (uint48) {
        return uint48(block.timestamp);
    }

    /// @notice Description of {clock} (EIP-6372).
    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    /// @notice Next nonce of {permit} and {delegateBySig}; authorizations have random nonces of their own.
    function nonces(address owner) public view override(ERC20Permit, Nonces) returns (uint256) {
        return super.nonces(owner);
    }

    function _authorize(
        bytes32 typehash,
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes memory signature
    ) private {
        require(
            block.timestamp > validAfter && block.timestamp < validBefore,
            AuthorizationNotValidNow(validAfter, validBefore)
        );
        _checkSignature(
            from, keccak256(abi.encode(typehash, from, to, value, validAfter, validBefore, nonce)), signature
        );
        _use(from, nonce, Hashes.efficientKeccak256(bytes32(uint256(uint160(to))), bytes32(value)));
        emit AuthorizationUsed(from, nonce);
        _transfer(from, to, value);
    }

    /// @dev The signature check may call `signer`, always by STATICCALL: it cannot change anything.
    function _checkSignature(address signer, bytes32 structHash, bytes memory signature) private view {
        require(
            SignatureChecker.isValidSignatureNow(signer, _hashTypedDataV4(structHash), signature),
            InvalidAuthorizationSignature(signer)
        );
    }

    function _use(address authorizer, bytes32 nonce, bytes32 settlement) private {
        require(_settlements[authorizer][nonce] == 0, AuthorizationUsedOrCanceled(authorizer, nonce));
        _settlements[authorizer][nonce] = settlement;
    }

    /// @dev OPG sent to this contract would be lost for ever, and it is always a mistake.
    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Votes) {
        require(to != address(this), ERC20InvalidReceiver(to));
        super._update(from, to, value);
    }

    function _maxSupply() internal pure override returns (uint256) {
        return maxSupply;
    }
}
