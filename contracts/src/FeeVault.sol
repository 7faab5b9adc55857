// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {OPG} from "./OPG.sol";
import {DepositAddress} from "./DepositAddress.sol";
import {INSURANCE} from "./Types.sol";

/// @title FeeVault
/// @notice Holds what payers paid to each node and pays out the credits that the ledger gives for that node's receipts. A credit
/// from one node's receipts is paid only from that node's balance (decisions D1).
/// @dev Credits of one (payee, node, mode) form a queue with rising release times: the newest item lies in the account's
/// own slot, older ones in a mapping. Credits past their release time are one sum per (payee, node). No function has an
/// owner; everything but {credit} is open to anyone and can only move money to whom it belongs.
contract FeeVault {
    /// @notice An ERC-3009 authorization that pays a node.
    struct Authorization {
        address from;
        bytes32 nodeId;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
        bytes signature;
    }

    /// @notice One credit that waits for its release.
    struct Item {
        uint128 amount;
        uint64 releaseAt;
    }

    /// @dev `amount` and `releaseAt` are the newest item (amount 0: none); items `head … tail - 1` are older.
    struct Account {
        uint128 amount;
        uint64 releaseAt;
        uint32 head;
        uint32 tail;
    }

    /// @dev What a node owes and what it earned, in one slot, so that counting fees costs no storage of its own. Fees are in units of
    /// {FEE_UNIT}, rounded up for each credit; `day` is the number of the UTC day of `today`.
    struct Book {
        uint128 outstanding;
        uint56 today;
        uint56 yesterday;
        uint16 day;
    }

    /// @notice Unit that fees are counted in, wei.
    uint256 public constant FEE_UNIT = 1e9;
    /// @dev The ledger's lists begin with the shares of a charge: node, creator, treasury, insurance, router. Refunds follow. Shorter lists
    /// are refunds only.
    uint256 private constant SHARES = 5;
    /// @notice Modes of receipts (0 none, 1 tee, 2 zk, 3 replay), each with a queue of its own.
    uint256 public constant MODES = 4;
    /// @notice Gas that one authorization of a batch may use; bounds what a payer's contract can burn.
    uint256 public constant SETTLE_GAS = 400_000;
    /// @notice The token.
    OPG public immutable opg;
    /// @notice Implementation of the deposit addresses.
    address public immutable implementation;
    /// @notice The only account that may credit.
    address public immutable ledger;

    /// @notice OPG attributed to each node and not yet paid out.
    mapping(bytes32 nodeId => uint256) public balanceOf;
    mapping(bytes32 nodeId => Book) private _books;
    mapping(bytes32 key => Account) private _accounts;
    mapping(bytes32 key => mapping(uint256 index => Item)) private _items;
    mapping(address payee => mapping(bytes32 nodeId => uint256)) private _matured;

    /// @notice OPG moved from a node's deposit address to its balance.
    event Swept(bytes32 indexed nodeId, uint256 amount);
    /// @notice An authorization of a batch was not executed.
    event SettlementFailed(address indexed from, bytes32 indexed nonce);
    /// @notice Credits were paid out.
    event Withdrawn(address indexed payee, bytes32 indexed nodeId, uint256 amount);

    /// @notice Only the ledger may credit.
    error NotLedger(address caller);
    /// @notice The account cannot withdraw.
    error CannotWithdraw(address payee);
    /// @notice No such mode.
    error UnknownMode(uint8 mode);
    /// @notice The two lists differ in length.
    error LengthMismatch(uint256 payees, uint256 amounts);
    /// @notice The token returned false.
    error TransferFailed();

    constructor(OPG opg_, address implementation_, address ledger_) {
        opg = opg_;
        implementation = implementation_;
        ledger = ledger_;
    }

    /// @notice Where payments to a node go, whether or not its code exists yet.
    function depositAddressOf(bytes32 nodeId) public view returns (address) {
        return Clones.predictDeterministicAddress(implementation, nodeId);
    }

    /// @notice Moves what a node's deposit address holds into the node's balance.
    function sweep(bytes32 nodeId) public returns (uint256 amount) {
        address deposit = depositAddressOf(nodeId);
        amount = opg.balanceOf(deposit);
        if (amount == 0) {
            return 0;
        }
        balanceOf[nodeId] += amount;
        emit Swept(nodeId, amount);
        if (deposit.code.length == 0) {
            Clones.cloneDeterministic(implementation, nodeId);
        }
        DepositAddress(deposit).forward(amount);
    }

    /// @notice Executes authorizations that pay nodes, then sweeps. One that fails does not stop the others.
    /// @return settled which of them were executed
    function settle(Authorization[] calldata authorizations) external returns (bool[] memory settled) {
        uint256 count = authorizations.length;
        settled = new bool[](count);
        for (uint256 i; i < count; ++i) {
            Authorization calldata a = authorizations[i];
            try opg.transferWithAuthorization{gas: SETTLE_GAS}(
                a.from, depositAddressOf(a.nodeId), a.value, a.validAfter, a.validBefore, a.nonce, a.signature
            ) {
                settled[i] = true;
            } catch {
                emit SettlementFailed(a.from, a.nonce);
            }
        }
        for (uint256 i; i < count; ++i) {
            if (i + 1 == count || authorizations[i + 1].nodeId != authorizations[i].nodeId) {
                sweep(authorizations[i].nodeId);
            }
        }
    }

    /// @notice Credits payees from one node's receipts. The ledger guarantees that the sum has been paid to the node's deposit address.
    /// @dev A credit whose release time is not above that of the newest item in its queue (a payment that settled late) joins that item, so a
    /// queue's release times always rise.
    function credit(
        bytes32 nodeId,
        uint8 mode,
        uint64 releaseAt,
        address[] calldata payees,
        uint256[] calldata amounts
    ) external {
        require(msg.sender == ledger, NotLedger(msg.sender));
        require(mode < MODES, UnknownMode(mode));
        require(payees.length == amounts.length, LengthMismatch(payees.length, amounts.length));
        uint256 total;
        uint256 fees;
        for (uint256 i; i < payees.length; ++i) {
            uint256 amount = amounts[i];
            if (amount == 0) {
                continue;
            }
            total += amount;
            if (i < SHARES && payees.length >= SHARES) {
                fees += amount;
            }
            if (releaseAt <= block.timestamp) {
                _matured[payees[i]][nodeId] += amount;
            } else {
                _enqueue(payees[i], nodeId, mode, releaseAt, uint128(amount));
            }
        }
        _count(nodeId, total, fees);
    }

    /// @notice Pays a payee what is released of its credits from one node, sweeping first. Anyone may call it.
    /// @param max most queue items to look at, so that a long queue can be paid in steps
    function withdraw(address payee, bytes32 nodeId, uint256 max) external returns (uint256 amount) {
        require(payee != INSURANCE, CannotWithdraw(payee));
        sweep(nodeId);
        amount = _matured[payee][nodeId];
        for (uint8 mode; mode < MODES && max != 0; ++mode) {
            uint256 released;
            (released, max) = _dequeue(_key(payee, nodeId, mode), max);
            amount += released;
        }
        // The node's balance covers its credits; should it ever not, the rest stays owed.
        uint256 held = balanceOf[nodeId];
        uint256 owed = amount > held ? amount - held : 0;
        amount -= owed;
        _matured[payee][nodeId] = owed;
        if (amount == 0) {
            return 0;
        }
        balanceOf[nodeId] = held - amount;
        _books[nodeId].outstanding -= uint128(amount);
        emit Withdrawn(payee, nodeId, amount);
        require(opg.transfer(payee, amount), TransferFailed());
    }

    /// @notice Sum of the credits of a node's receipts that are not yet paid out.
    function outstanding(bytes32 nodeId) external view returns (uint256) {
        return _books[nodeId].outstanding;
    }

    /// @notice Gross fees that a node's receipts were credited with on this UTC day and the one before, wei: no less than those of the last
    /// 24 hours, and no more than those of the last 48. Validators hold them against the node's bond (docs/specs/staking.md §8).
    function recentFees(bytes32 nodeId) external view returns (uint256) {
        Book memory book = _turned(nodeId);
        return (uint256(book.today) + book.yesterday) * FEE_UNIT;
    }

    /// @notice All credits of a payee from one node, released or not.
    function credited(address payee, bytes32 nodeId) external view returns (uint256) {
        return _sum(payee, nodeId, type(uint256).max);
    }

    /// @notice What {withdraw} would pay now, given enough `max`.
    function withdrawable(address payee, bytes32 nodeId) external view returns (uint256 amount) {
        if (payee == INSURANCE) {
            return 0;
        }
        amount = _sum(payee, nodeId, block.timestamp);
        uint256 held = balanceOf[nodeId] + opg.balanceOf(depositAddressOf(nodeId));
        return amount > held ? held : amount;
    }

    /// @notice The queue of one payee, node and mode, oldest first, at most `max` items from the oldest.
    function queue(address payee, bytes32 nodeId, uint8 mode, uint256 max) external view returns (Item[] memory items) {
        bytes32 key = _key(payee, nodeId, mode);
        Account memory account = _accounts[key];
        uint256 older = account.tail - account.head;
        uint256 count = older + (account.amount == 0 ? 0 : 1);
        items = new Item[](count < max ? count : max);
        for (uint256 i; i < items.length; ++i) {
            items[i] = i < older ? _items[key][account.head + i] : Item(account.amount, account.releaseAt);
        }
    }

    function _enqueue(address payee, bytes32 nodeId, uint8 mode, uint64 releaseAt, uint128 amount) private {
        bytes32 key = _key(payee, nodeId, mode);
        Account memory account = _accounts[key];
        if (account.amount == 0) {
            account.amount = amount;
            account.releaseAt = releaseAt;
        } else if (releaseAt <= account.releaseAt) {
            account.amount += amount;
        } else {
            if (account.releaseAt <= block.timestamp) {
                _matured[payee][nodeId] += account.amount;
            } else {
                _items[key][account.tail++] = Item(account.amount, account.releaseAt);
            }
            account.amount = amount;
            account.releaseAt = releaseAt;
        }
        _accounts[key] = account;
    }

    function _dequeue(bytes32 key, uint256 max) private returns (uint256 amount, uint256 left) {
        Account memory account = _accounts[key];
        if (account.amount == 0) {
            return (0, max);
        }
        left = max;
        while (left != 0 && account.head != account.tail) {
            Item memory item = _items[key][account.head];
            if (item.releaseAt > block.timestamp) {
                break;
            }
            amount += item.amount;
            delete _items[key][account.head++];
            --left;
        }
        if (left != 0 && account.head == account.tail && account.releaseAt <= block.timestamp) {
            amount += account.amount;
            account.amount = 0;
            account.releaseAt = 0;
            --left;
        }
        if (left != max) {
            _accounts[key] = account;
        }
    }

    /// @dev Sum of what is released by `time`, in all modes.
    function _sum(address payee, bytes32 nodeId, uint256 time) private view returns (uint256 amount) {
        amount = _matured[payee][nodeId];
        for (uint8 mode; mode < MODES; ++mode) {
            bytes32 key = _key(payee, nodeId, mode);
            Account memory account = _accounts[key];
            if (account.releaseAt <= time) {
                amount += account.amount;
            }
            for (uint256 i = account.head; i < account.tail; ++i) {
                Item memory item = _items[key][i];
                if (item.releaseAt > time) {
                    break;
                }
                amount += item.amount;
            }
        }
    }

    function _key(address payee, bytes32 nodeId, uint8 mode) private pure returns (bytes32) {
        return keccak256(abi.encode(payee, nodeId, mode));
    }

    /// @dev A node's book as of today.
    function _turned(bytes32 nodeId) private view returns (Book memory book) {
        book = _books[nodeId];
        uint16 day = uint16(block.timestamp / 1 days);
        if (day != book.day) {
            book.yesterday = day == uint256(book.day) + 1 ? book.today : 0;
            book.today = 0;
            book.day = day;
        }
    }

    /// @dev Adds a credit to a node's book. Fees stop at the top of their field: no credit can fail for them.
    function _count(bytes32 nodeId, uint256 total, uint256 fees) private {
        Book memory book = _turned(nodeId);
        uint256 today = book.today + (fees + FEE_UNIT - 1) / FEE_UNIT;
        book.today = today < type(uint56).max ? uint56(today) : type(uint56).max;
        // Every credit is backed by OPG, of which there are less than 2^90 wei.
        book.outstanding += uint128(total);
        _books[nodeId] = book;
    }
}
