// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {KeyProofs} from "./KeyProofs.sol";

/// @title ValidatorKeys
/// @notice Keys of validators and the sets that they form: the part of {Staking} that consensus and light clients read.
/// @dev `setHash` is the first state variable: a light client reads the set of an epoch by one storage proof (docs/specs/staking.md §2).
abstract contract ValidatorKeys {
    /// @notice One seat of a set.
    /// @param operator owner of the seat
    /// @param consensusKey Ed25519 network identity
    /// @param blsKey BLS12-381 key, compressed in G2 (96 bytes)
    /// @param system account that signs system transactions and is coinbase of the seat's blocks
    struct Seat {
        address operator;
        bytes32 consensusKey;
        bytes blsKey;
        address system;
    }

    /// @notice Keys to register and the proofs that the sender has them, over (chain, operator, epoch) (decisions D16).
    /// @param consensusKey Ed25519 network identity
    /// @param blsKey BLS12-381 key, G2 point of 256 bytes as EIP-2537 has it
    /// @param possession proof of possession of the BLS key, G1 point of 128 bytes as EIP-2537 has it
    /// @param system unused account that will sign system transactions
    /// @param systemSignature 65 bytes r, s, v of that account
    /// @param epoch epoch that the proofs name: the current one or the one before
    struct KeyRegistration {
        bytes32 consensusKey;
        bytes blsKey;
        bytes possession;
        address system;
        bytes systemSignature;
        uint64 epoch;
    }

    /// @dev `seatedIn` is the newest epoch with a seat for these keys, plus one; 0 if there was none.
    struct Keys {
        address operator;
        uint64 seatedIn;
        address system;
        bytes32 consensusKey;
        bytes32[3] bls;
    }

    /// @notice Checks proofs of possession.
    KeyProofs public immutable keyProofs;

    /// @notice `keccak256(abi.encode(Seat[]))` of each epoch's set.
    mapping(uint64 epoch => bytes32) public setHash;
    /// @notice The current epoch.
    uint64 public epoch;
    /// @dev Keys in the order of their registration, from index 1.
    Keys[] internal _keys;
    /// @notice Number of the keys that a system account belongs to, for ever; 0 if it is none.
    mapping(address system => uint256) public keyOfSystem;
    /// @notice Consensus keys and hashes of BLS keys that are taken, for ever.
    mapping(bytes32 key => bool) public keyTaken;
    mapping(uint64 epoch => uint32[]) internal _sets;

    /// @notice An operator has new keys, which its next seat uses.
    event KeysRegistered(address indexed operator, uint256 indexed keyId, bytes32 consensusKey, bytes blsKey, address system);

    /// @notice A key was registered before.
    error KeyTaken(bytes32 key);
    /// @notice The system account has code, is an operator's own, or was registered before.
    error SystemAccountUsed(address system);
    /// @notice The proofs name an epoch that is neither the current one nor the one before.
    error ProofEpoch(uint64 given, uint64 current);

    constructor(KeyProofs keyProofs_) {
        keyProofs = keyProofs_;
    }

    /// @notice The set of an epoch; empty if it is not known.
    function seats(uint64 epoch_) public view returns (Seat[] memory list) {
        uint32[] memory ids = _sets[epoch_];
        list = new Seat[](ids.length);
        for (uint256 i; i < ids.length; ++i) {
            Keys storage keys = _keys[ids[i]];
            list[i] = Seat(
                keys.operator,
                keys.consensusKey,
                abi.encodePacked(keys.bls[0], keys.bls[1], keys.bls[2]),
                keys.system
            );
        }
    }

    /// @notice Whether an account signs system transactions in the current epoch.
    function isSystem(address account) public view returns (bool) {
        uint256 id = keyOfSystem[account];
        return id != 0 && _keys[id].seatedIn == epoch + 1;
    }

    /// @notice Whether an operator had a seat in an epoch.
    function wasSeated(uint64 epoch_, address operator) public view returns (bool) {
        uint32[] memory ids = _sets[epoch_];
        for (uint256 i; i < ids.length; ++i) {
            if (_keys[ids[i]].operator == operator) {
                return true;
            }
        }
        return false;
    }

    /// @notice Number of seats of an epoch.
    function seatCount(uint64 epoch_) public view returns (uint256) {
        return _sets[epoch_].length;
    }

    /// @dev Checks the proofs, then the rest.
    function _registerKeys(address operator, KeyRegistration calldata registration) internal returns (uint32) {
        uint64 proven = registration.epoch;
        require(proven == epoch || proven + 1 == epoch, ProofEpoch(proven, epoch));
        bytes memory bls = keyProofs.check(
            operator,
            proven,
            registration.consensusKey,
            registration.blsKey,
            registration.possession,
            registration.system,
            registration.systemSignature
        );
        // That the account sent no transaction yet is checked by the node that proposes the registration: contracts see no nonces.
        require(registration.system.code.length == 0, SystemAccountUsed(registration.system));
        return _addKeys(operator, registration.consensusKey, bls, registration.system);
    }

    function _addKeys(address operator, bytes32 consensusKey, bytes memory bls, address system)
        internal
        returns (uint32 id)
    {
        bytes32 blsHash = keccak256(bls);
        require(consensusKey != 0 && !keyTaken[consensusKey], KeyTaken(consensusKey));
        require(!keyTaken[blsHash], KeyTaken(blsHash));
        require(
            system != address(0) && system != operator && keyOfSystem[system] == 0, SystemAccountUsed(system)
        );
        keyTaken[consensusKey] = true;
        keyTaken[blsHash] = true;
        if (_keys.length == 0) {
            _keys.push();
        }
        id = uint32(_keys.length);
        keyOfSystem[system] = id;
        Keys storage keys = _keys.push();
        keys.operator = operator;
        keys.system = system;
        keys.consensusKey = consensusKey;
        (bytes32 a, bytes32 b, bytes32 c) = abi.decode(bls, (bytes32, bytes32, bytes32));
        keys.bls = [a, b, c];
        emit KeysRegistered(operator, id, consensusKey, bls, system);
    }

    /// @dev Makes `ids` the set of `epoch_`, which must be the current epoch once this transaction ends.
    function _seat(uint64 epoch_, uint32[] memory ids) internal {
        _sets[epoch_] = ids;
        for (uint256 i; i < ids.length; ++i) {
            _keys[ids[i]].seatedIn = epoch_ + 1;
        }
        setHash[epoch_] = keccak256(abi.encode(seats(epoch_)));
    }
}
