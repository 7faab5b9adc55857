// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {BlockHeader} from "@openzeppelin/contracts/utils/BlockHeader.sol";
import {Memory} from "@openzeppelin/contracts/utils/Memory.sol";
import {RLP} from "@openzeppelin/contracts/utils/RLP.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {TrieProof} from "@openzeppelin/contracts/utils/cryptography/TrieProof.sol";
import {BLS} from "./BLS.sol";

/// @notice A seat of a validator set, as the staking contract hashes it.
struct Seat {
    address operator;
    bytes32 consensusKey;
    bytes blsKey;
    address system;
}

/// @title Checkpoint
/// @notice Light client of the network on another chain: takes headers that a quorum of validators has finalised, follows the validators
/// from epoch to epoch, and proves storage and receipts under the certified states.
/// @dev It has no owner and trusts the set it was deployed with. Only the newest known set is believed: validators erase an epoch's keys after
/// the hand-over (decisions D12), but if nobody relays for longer than the unbonding period, a set that is no longer bonded could sign
/// anything. What validators sign is `docs/specs/ledger.md` §10; namespace and format must be those of `opg_light_client::certificate`.
contract Checkpoint {
    using RLP for Memory.Slice;

    /// @notice A finalised block with what proves it.
    /// @param proposal what validators signed: varint epoch, view, parent view, digest (32)
    /// @param envelopes 104 bytes of each block from this one up to the signed one
    /// @param header RLP of the EVM header
    /// @param signers bit `i` is validator `i` of the set in the order of its consensus keys
    /// @param signature sum of the signers' signatures
    struct Certified {
        bytes proposal;
        bytes envelopes;
        bytes header;
        uint256 signers;
        BLS.G1Point signature;
    }

    /// @notice The newest certified header.
    struct Head {
        uint64 epoch;
        uint64 height;
        uint64 timestamp;
        bytes32 blockHash;
        bytes32 stateRoot;
    }

    /// @notice Bytes of an envelope: parent digest, height, EVM hash, body hash.
    uint256 public constant ENVELOPE = 104;
    /// @notice Most envelopes.
    uint256 public constant MAX_ENVELOPES = 64;
    /// @notice Most bytes of a header.
    uint256 public constant MAX_HEADER = 4_096;
    /// @notice Largest set: its keys fit into one contract's code.
    uint256 public constant MAX_SEATS = 127;
    /// @notice Staking contract of the network; its first variable maps epochs to hashes of sets.
    address public immutable staking;
    /// @notice Receipt ledger of the network.
    address public immutable ledger;
    /// @notice Slot of the ledger's batch roots.
    uint256 public constant ROOTS_SLOT = 2;

    /// @notice The newest certified header.
    Head public head;
    /// @notice Epoch of the set that is believed.
    uint64 public epoch;
    /// @notice Number of its seats.
    uint16 public seats;
    /// @notice Account whose code is a zero byte and the set's keys, {BLS-PACKED_G2} bytes each, in the order of the bitmap.
    address public keys;
    /// @notice State roots of all certified headers.
    mapping(uint64 height => bytes32) public stateRoots;
    bytes private _namespace;

    /// @notice A header is certified.
    event Certificate(uint64 indexed epoch, uint64 indexed height, bytes32 blockHash, bytes32 stateRoot, uint256 signers);
    /// @notice Another set is believed from now on.
    event HandedOver(uint64 indexed epoch, bytes32 setHash, uint256 seats);

    /// @notice Bytes are not what they should be.
    error Malformed(string what);
    /// @notice Signed by another epoch's set.
    error WrongEpoch(uint64 signed, uint64 current);
    /// @notice Not above the newest certified height.
    error NotNewer(uint64 height, uint64 newest);
    /// @notice Too few signers.
    error NoQuorum(uint256 signers, uint256 needed);
    /// @notice The signers did not sign this.
    error InvalidSignature();
    /// @notice A link between two things does not hold.
    error Mismatch(string what);
    /// @notice No header of this height is certified.
    error NotCertified(uint64 height);

    /// @param genesisDigest digest of the network's genesis file, part of what validators sign
    /// @param epoch_ epoch of the first set
    /// @param set the first set, in any order
    /// @param order position in `set` of each seat in ascending order of consensus keys, a byte each
    /// @param ys y coordinates of the keys in that order, 96 bytes each
    constructor(
        address staking_,
        address ledger_,
        bytes32 genesisDigest,
        uint64 epoch_,
        Seat[] memory set,
        bytes memory order,
        bytes memory ys
    ) {
        staking = staking_;
        ledger = ledger_;
        // The digest in lower-case hexadecimal, without "0x".
        bytes memory digits = bytes(Strings.toHexString(uint256(genesisDigest), 32));
        bytes memory hexDigest = new bytes(64);
        for (uint256 i; i < 64; ++i) {
            hexDigest[i] = digits[i + 2];
        }
        _namespace = bytes.concat("opg/consensus/v1/", hexDigest, "_FINALIZE");
        _believe(epoch_, set, order, ys);
    }

    /// @notice Signers that a certificate needs: `n - floor((n - 1) / 3)`.
    function quorum() public view returns (uint256) {
        return uint256(seats) - (uint256(seats) - 1) / 3;
    }

    /// @notice Takes a finalised header of the current epoch above all before. Anyone may call it.
    function submit(Certified calldata certified) external {
        (uint64 signed, bytes32 digest) = _decodeProposal(certified.proposal);
        require(signed == epoch, WrongEpoch(signed, epoch));
        (uint64 height, bytes32 blockHash) = _followEnvelopes(certified.envelopes, digest);
        require(height > head.height, NotNewer(height, head.height));
        require(certified.header.length <= MAX_HEADER, Malformed("header"));
        require(keccak256(certified.header) == blockHash, Mismatch("block hash"));
        Memory.Slice[] memory fields = BlockHeader.parseHeader(certified.header);
        require(BlockHeader.getNumber(fields) == height, Mismatch("block number"));
        uint256 count = _checkCertificate(certified);
        bytes32 stateRoot = BlockHeader.getStateRoot(fields);
        head = Head(signed, height, uint64(BlockHeader.getTimestamp(fields)), blockHash, stateRoot);
        stateRoots[height] = stateRoot;
        emit Certificate(signed, height, blockHash, stateRoot, count);
    }

    /// @notice Believes the next epoch's set, which the newest certified state names. That is the state of the epoch's last block: no earlier
    /// one has it. Anyone may call it.
    /// @param accountProof `eth_getProof` of the staking contract
    /// @param slotProof the same of `setHash[epoch + 1]`
    function handOver(
        bytes[] calldata accountProof,
        bytes[] calldata slotProof,
        Seat[] calldata set,
        bytes calldata order,
        bytes calldata ys
    ) external {
        uint64 next = epoch + 1;
        bytes32 slot = keccak256(abi.encode(uint256(next), uint256(0)));
        bytes32 setHash = storageAt(head.height, staking, slot, accountProof, slotProof);
        require(keccak256(abi.encode(set)) == setHash, Mismatch("set hash"));
        _believe(next, set, order, ys);
    }

    /// @notice A value of the network's storage, not zero, in the state of a certified header.
    function storageAt(
        uint64 height,
        address account,
        bytes32 slot,
        bytes[] calldata accountProof,
        bytes[] calldata slotProof
    ) public view returns (bytes32) {
        bytes32 root = stateRoots[height];
        require(root != 0, NotCertified(height));
        bytes memory leaf =
            TrieProof.traverse(root, bytes.concat(keccak256(abi.encodePacked(account))), accountProof);
        bytes32 storageRoot = RLP.decodeList(leaf)[2].readBytes32();
        return bytes32(
            RLP.decodeUint256(TrieProof.traverse(storageRoot, bytes.concat(keccak256(abi.encode(slot))), slotProof))
        );
    }

    /// @notice Whether a receipt is in the batch of a block up to a certified one.
    /// @param certified height of a certified header
    /// @param height block of the receipt
    /// @param coreHash keccak256 of the receipt's core
    /// @param index its place in the batch
    /// @param count receipts of the batch
    /// @param path RFC 6962 inclusion path
    function includesReceipt(
        uint64 certified,
        uint64 height,
        bytes32 coreHash,
        uint32 index,
        uint32 count,
        bytes32[] calldata path,
        bytes[] calldata accountProof,
        bytes[] calldata slotProof
    ) external view returns (bool) {
        if (index >= count || height > certified) {
            return false;
        }
        bytes32 node = keccak256(abi.encodePacked(uint8(0), coreHash));
        uint256 at_ = index;
        uint256 last = count - 1;
        for (uint256 i; i < path.length; ++i) {
            if (last == 0) {
                return false;
            }
            if (at_ & 1 == 1 || at_ == last) {
                node = keccak256(abi.encodePacked(uint8(1), path[i], node));
                while (at_ & 1 == 0 && at_ != 0) {
                    at_ >>= 1;
                    last >>= 1;
                }
            } else {
                node = keccak256(abi.encodePacked(uint8(1), node, path[i]));
            }
            at_ >>= 1;
            last >>= 1;
        }
        if (last != 0) {
            return false;
        }
        bytes32 slot = keccak256(abi.encode(uint256(height), ROOTS_SLOT));
        bytes32 root = storageAt(certified, ledger, slot, accountProof, slotProof);
        return root == keccak256(abi.encodePacked(uint8(2), height, count, node));
    }

    /// @dev Three varints and a digest, nothing else.
    function _decodeProposal(bytes calldata proposal) private pure returns (uint64 signed, bytes32 digest) {
        uint256 at_;
        for (uint256 i; i < 3; ++i) {
            uint256 value;
            uint256 shift;
            while (true) {
                require(at_ < proposal.length && shift < 70, Malformed("proposal"));
                uint256 part = uint8(proposal[at_++]);
                value |= (part & 0x7f) << shift;
                shift += 7;
                if (part < 0x80) {
                    break;
                }
            }
            require(value <= type(uint64).max, Malformed("proposal"));
            if (i == 0) {
                signed = uint64(value);
            }
        }
        require(proposal.length == at_ + 32, Malformed("proposal"));
        digest = bytes32(proposal[at_:]);
    }

    /// @dev From the signed digest down to the first envelope: its height and EVM block hash.
    function _followEnvelopes(bytes calldata envelopes, bytes32 digest)
        private
        pure
        returns (uint64 height, bytes32 blockHash)
    {
        uint256 count = envelopes.length / ENVELOPE;
        require(
            envelopes.length % ENVELOPE == 0 && count != 0 && count <= MAX_ENVELOPES, Malformed("envelopes")
        );
        height = uint64(bytes8(envelopes[32:40]));
        blockHash = bytes32(envelopes[40:72]);
        bytes32 below = sha256(envelopes[:ENVELOPE]);
        for (uint256 i = 1; i < count; ++i) {
            bytes calldata envelope = envelopes[i * ENVELOPE:(i + 1) * ENVELOPE];
            require(
                bytes32(envelope[:32]) == below && uint64(bytes8(envelope[32:40])) == height + i, Mismatch("envelope")
            );
            below = sha256(envelope);
        }
        require(below == digest, Mismatch("digest"));
    }

    function _checkCertificate(Certified calldata certified) private view returns (uint256 count) {
        uint256 size = seats;
        require(certified.signers >> size == 0, Malformed("signers"));
        address store = keys;
        bytes memory packed = new bytes(size * BLS.PACKED_G2);
        assembly ("memory-safe") {
            extcodecopy(store, add(packed, 32), 1, mload(packed))
        }
        BLS.G2Point memory sum;
        (sum, count) = BLS.aggregate(packed, certified.signers);
        require(count >= quorum(), NoQuorum(count, quorum()));
        require(
            BLS.verify(certified.signature, sum, BLS.message(_namespace, certified.proposal), BLS.VOTE_DST),
            InvalidSignature()
        );
    }

    /// @dev Stores a set's keys uncompressed, in the order of the consensus keys. That they were proved to be possessed is the staking
    /// contract's work; that the coordinates given here are those of the keys in the set is checked.
    function _believe(uint64 epoch_, Seat[] memory set, bytes memory order, bytes memory ys) private {
        uint256 size = set.length;
        require(
            size != 0 && size <= MAX_SEATS && order.length == size && ys.length == size * 96, Malformed("seats")
        );
        bytes memory all = new bytes(size * BLS.PACKED_G2);
        bytes32 last;
        for (uint256 i; i < size; ++i) {
            require(uint8(order[i]) < size, Malformed("order"));
            Seat memory seat = set[uint8(order[i])];
            // Strictly rising keys, as many as there are seats: every seat once.
            require(i == 0 || seat.consensusKey > last, Malformed("order"));
            last = seat.consensusKey;
            require(seat.blsKey.length == 96, Malformed("key"));
            BLS.G2Point memory point = _point(seat.blsKey, ys, i);
            require(keccak256(BLS.compress(point)) == keccak256(seat.blsKey), Mismatch("key"));
            bytes memory packed = BLS.pack(point);
            assembly ("memory-safe") {
                mcopy(add(add(all, 32), mul(i, 192)), add(packed, 32), 192)
            }
        }
        // Adding all of them up checks that each is on the curve; the key itself was checked to be of the group when it was registered.
        BLS.aggregate(all, (1 << size) - 1);
        epoch = epoch_;
        seats = uint16(size);
        keys = _store(bytes.concat(hex"00", all));
        emit HandedOver(epoch_, keccak256(abi.encode(set)), size);
    }

    /// @dev x from the compressed key without its three marks, y as given.
    function _point(bytes memory key, bytes memory ys, uint256 index) private pure returns (BLS.G2Point memory point) {
        assembly ("memory-safe") {
            let x := add(key, 32)
            let mask := sub(shl(125, 1), 1)
            let y := add(add(ys, 32), mul(index, 96))
            // Compressed: x.c1, then x.c0. In memory: x.c0, x.c1, y.c0, y.c1.
            mstore(point, shr(128, mload(add(x, 48))))
            mstore(add(point, 32), mload(add(x, 64)))
            mstore(add(point, 64), and(shr(128, mload(x)), mask))
            mstore(add(point, 96), mload(add(x, 16)))
            mstore(add(point, 128), shr(128, mload(y)))
            mstore(add(point, 160), mload(add(y, 16)))
            mstore(add(point, 192), shr(128, mload(add(y, 48))))
            mstore(add(point, 224), mload(add(y, 64)))
        }
    }

    /// @dev Creates an account with this code, which begins with STOP.
    function _store(bytes memory code) private returns (address store) {
        // PUSH2 length, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN: ten bytes.
        bytes memory init = abi.encodePacked(hex"61", uint16(code.length), hex"80600a5f395ff3", code);
        assembly ("memory-safe") {
            store := create(0, add(init, 32), mload(init))
        }
        require(store != address(0), Malformed("code"));
    }
}
