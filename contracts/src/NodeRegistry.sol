// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Price} from "./Types.sol";
import {ModelRegistry} from "./ModelRegistry.sol";

/// @title NodeRegistry
/// @notice Inference nodes, the keysets that sign for them, their bonds and what they ask for each model.
/// @dev A receipt is admissible if its keyset is not revoked, its node is active and the node's bond is at least {minBond};
/// validators read these fields from storage, so the layout is part of the interface.
contract NodeRegistry {
    /// @notice Keys that one node publishes together; unused ones are zero.
    /// @param receiptKey Ed25519 key that signs quotes and receipts
    /// @param settlementKey account that relays settlements
    /// @param hpkeKey X25519 key that requests are encrypted to
    /// @param tlsSpki SHA-256 of the TLS certificate's public key
    struct Keyset {
        bytes32 receiptKey;
        address settlementKey;
        bytes32 hpkeKey;
        bytes32 tlsSpki;
    }

    /// @notice A registered keyset; `revokedAt` is 0 while it is active.
    struct KeysetRecord {
        bytes32 nodeId;
        bytes32 receiptKey;
        address settlementKey;
        uint40 registeredAt;
        uint40 revokedAt;
    }

    /// @notice A registered node; `inactiveAt` is 0 while it is active.
    struct Node {
        address operator;
        uint40 registeredAt;
        uint40 inactiveAt;
        uint128 bond;
        string endpoint;
    }

    /// @notice Longest endpoint, bytes.
    uint256 public constant MAX_ENDPOINT = 256;
    /// @notice The token that bonds are held in.
    IERC20 public immutable opg;
    /// @notice Source of reference prices.
    ModelRegistry public immutable models;
    /// @notice Least bond of a node whose receipts are admissible.
    uint128 public immutable minBond;
    /// @notice Seconds between {deactivate} and {withdrawBond}.
    uint40 public immutable unbonding;
    /// @notice Freezes and slashes bonds.
    address public immutable slashing;

    /// @notice Keysets by digest.
    mapping(bytes32 keysetDigest => KeysetRecord) public keysets;
    /// @notice Nodes by id.
    mapping(bytes32 nodeId => Node) public nodes;
    /// @notice What a node asks for a model; zero for a model that it does not serve.
    mapping(bytes32 nodeId => mapping(bytes32 modelRoot => Price)) public asks;
    /// @notice Slashing cases against a node that await their end; its bond stays until then.
    mapping(bytes32 nodeId => uint256) public openCases;

    /// @notice A node registered.
    event NodeRegistered(bytes32 indexed nodeId, address indexed operator, string endpoint, uint128 bond);
    /// @notice A node published a keyset.
    event KeysetAdded(bytes32 indexed nodeId, bytes32 indexed keysetDigest, Keyset keyset);
    /// @notice A keyset is revoked; receipts signed by it are no longer admissible.
    event KeysetRevoked(bytes32 indexed nodeId, bytes32 indexed keysetDigest);
    /// @notice A node changed its endpoint.
    event EndpointSet(bytes32 indexed nodeId, string endpoint);
    /// @notice A node's bond grew.
    event BondAdded(bytes32 indexed nodeId, uint128 amount);
    /// @notice A node left.
    event NodeDeactivated(bytes32 indexed nodeId);
    /// @notice A node that left took its bond back.
    event BondWithdrawn(bytes32 indexed nodeId, uint128 amount);
    /// @notice A node's bond was slashed.
    event BondSlashed(bytes32 indexed nodeId, uint128 amount);
    /// @notice A node set its ask for a model.
    event AskSet(bytes32 indexed nodeId, bytes32 indexed modelRoot, Price ask);

    /// @notice Only the node's operator may do this.
    error NotOperator(bytes32 nodeId, address caller);
    /// @notice Only the slashing contract may do this.
    error NotSlashing(address caller);
    /// @notice The id is taken.
    error NodeExists(bytes32 nodeId);
    /// @notice The node has left.
    error NodeInactive(bytes32 nodeId);
    /// @notice The digest is taken, also by a revoked keyset.
    error KeysetExists(bytes32 keysetDigest);
    /// @notice No active keyset of this node has that digest.
    error UnknownKeyset(bytes32 nodeId, bytes32 keysetDigest);
    /// @notice Receipt key and settlement key are required.
    error IncompleteKeyset();
    /// @notice The endpoint is empty or too long.
    error InvalidEndpoint(uint256 length);
    /// @notice The bond is below the minimum.
    error BondTooSmall(uint128 bond, uint128 minimum);
    /// @notice The bond is not free yet, or there is none.
    error BondLocked(uint256 until);
    /// @notice No such model.
    error UnknownModel(bytes32 modelRoot);
    /// @notice A component of the ask is not within a quarter and four times the reference, or not zero where that is zero.
    error AskOutOfRange(uint128 ask, uint128 suggested);
    /// @notice The token returned false.
    error TransferFailed();

    constructor(IERC20 opg_, ModelRegistry models_, uint128 minBond_, uint40 unbonding_, address slashing_) {
        opg = opg_;
        models = models_;
        minBond = minBond_;
        unbonding = unbonding_;
        slashing = slashing_;
    }

    modifier onlyOperator(bytes32 nodeId) {
        require(nodes[nodeId].operator == msg.sender, NotOperator(nodeId, msg.sender));
        _;
    }

    modifier onlySlashing() {
        require(msg.sender == slashing, NotSlashing(msg.sender));
        _;
    }

    modifier onlyActive(bytes32 nodeId) {
        require(nodes[nodeId].inactiveAt == 0, NodeInactive(nodeId));
        _;
    }

    /// @notice Registers a node of the sender with its first keyset. `bond` OPG must be approved to this contract.
    /// @return nodeId `keccak256(abi.encode(sender, salt))`
    function register(bytes32 salt, string calldata endpoint, Keyset calldata keyset, uint128 bond)
        external
        returns (bytes32 nodeId)
    {
        nodeId = keccak256(abi.encode(msg.sender, salt));
        require(nodes[nodeId].operator == address(0), NodeExists(nodeId));
        require(bond >= minBond, BondTooSmall(bond, minBond));
        _checkEndpoint(endpoint);
        nodes[nodeId] = Node(msg.sender, uint40(block.timestamp), 0, bond, endpoint);
        emit NodeRegistered(nodeId, msg.sender, endpoint, bond);
        _addKeyset(nodeId, keyset);
        require(opg.transferFrom(msg.sender, address(this), bond), TransferFailed());
    }

    /// @notice Publishes another keyset.
    function addKeyset(bytes32 nodeId, Keyset calldata keyset)
        external
        onlyOperator(nodeId)
        onlyActive(nodeId)
        returns (bytes32 keysetDigest)
    {
        return _addKeyset(nodeId, keyset);
    }

    /// @notice Revokes a keyset for ever.
    function revokeKeyset(bytes32 nodeId, bytes32 keysetDigest) external onlyOperator(nodeId) {
        KeysetRecord storage record = keysets[keysetDigest];
        require(
            record.registeredAt != 0 && record.nodeId == nodeId && record.revokedAt == 0,
            UnknownKeyset(nodeId, keysetDigest)
        );
        record.revokedAt = uint40(block.timestamp);
        emit KeysetRevoked(nodeId, keysetDigest);
    }

    /// @notice Changes the node's base URL.
    function setEndpoint(bytes32 nodeId, string calldata endpoint) external onlyOperator(nodeId) onlyActive(nodeId) {
        _checkEndpoint(endpoint);
        nodes[nodeId].endpoint = endpoint;
        emit EndpointSet(nodeId, endpoint);
    }

    /// @notice Adds to the bond; `amount` OPG must be approved to this contract.
    function addBond(bytes32 nodeId, uint128 amount) external onlyOperator(nodeId) onlyActive(nodeId) {
        nodes[nodeId].bond += amount;
        emit BondAdded(nodeId, amount);
        require(opg.transferFrom(msg.sender, address(this), amount), TransferFailed());
    }

    /// @notice Leaves for ever: no receipt of this node is admissible from now on, and the bond starts to unbond.
    function deactivate(bytes32 nodeId) external onlyOperator(nodeId) onlyActive(nodeId) {
        nodes[nodeId].inactiveAt = uint40(block.timestamp);
        emit NodeDeactivated(nodeId);
    }

    /// @notice Pays the bond of a node that left back to its operator, unless a case against it is open.
    function withdrawBond(bytes32 nodeId) external onlyOperator(nodeId) {
        Node storage node = nodes[nodeId];
        uint256 until = node.inactiveAt == 0 ? type(uint256).max : uint256(node.inactiveAt) + unbonding;
        uint128 amount = node.bond;
        require(block.timestamp >= until && amount != 0 && openCases[nodeId] == 0, BondLocked(until));
        node.bond = 0;
        emit BondWithdrawn(nodeId, amount);
        require(opg.transfer(msg.sender, amount), TransferFailed());
    }

    /// @notice A case against a node begins.
    function freeze(bytes32 nodeId) external onlySlashing {
        ++openCases[nodeId];
    }

    /// @notice A case against a node ends: `amount` of its bond, or all if there is less, goes to the slashing contract.
    /// @param deactivated whether the node leaves for ever as well
    function unfreeze(bytes32 nodeId, uint256 amount, bool deactivated) external onlySlashing returns (uint128 taken) {
        Node storage node = nodes[nodeId];
        --openCases[nodeId];
        taken = amount < node.bond ? uint128(amount) : node.bond;
        if (deactivated && node.inactiveAt == 0) {
            node.inactiveAt = uint40(block.timestamp);
            emit NodeDeactivated(nodeId);
        }
        if (taken != 0) {
            node.bond -= taken;
            emit BondSlashed(nodeId, taken);
            require(opg.transfer(slashing, taken), TransferFailed());
        }
    }

    /// @notice Sets what the node asks for a model, within a quarter and four times the creator's reference price.
    function setAsk(bytes32 nodeId, bytes32 modelRoot, Price calldata ask)
        external
        onlyOperator(nodeId)
        onlyActive(nodeId)
    {
        Price memory suggested = models.referencePrice(modelRoot);
        require(models.creatorOf(modelRoot) != address(0), UnknownModel(modelRoot));
        _checkAsk(ask.perCall, suggested.perCall);
        _checkAsk(ask.perMtokIn, suggested.perMtokIn);
        _checkAsk(ask.perMtokOut, suggested.perMtokOut);
        asks[nodeId][modelRoot] = ask;
        emit AskSet(nodeId, modelRoot, ask);
    }

    /// @notice The node's operator; zero if the node does not exist.
    function operatorOf(bytes32 nodeId) external view returns (address) {
        return nodes[nodeId].operator;
    }

    /// @notice Digest of a keyset of a node.
    function keysetDigestOf(bytes32 nodeId, Keyset calldata keyset) public pure returns (bytes32) {
        return keccak256(
            abi.encode(nodeId, keyset.receiptKey, keyset.settlementKey, keyset.hpkeKey, keyset.tlsSpki)
        );
    }

    function _addKeyset(bytes32 nodeId, Keyset calldata keyset) private returns (bytes32 digest) {
        require(keyset.receiptKey != 0 && keyset.settlementKey != address(0), IncompleteKeyset());
        digest = keysetDigestOf(nodeId, keyset);
        require(keysets[digest].registeredAt == 0, KeysetExists(digest));
        keysets[digest] =
            KeysetRecord(nodeId, keyset.receiptKey, keyset.settlementKey, uint40(block.timestamp), 0);
        emit KeysetAdded(nodeId, digest, keyset);
    }

    function _checkEndpoint(string calldata endpoint) private pure {
        uint256 length = bytes(endpoint).length;
        require(length != 0 && length <= MAX_ENDPOINT, InvalidEndpoint(length));
    }

    function _checkAsk(uint128 ask, uint128 suggested) private pure {
        // Widened before the product: four times a uint128 does not fit one.
        require(
            uint256(ask) * 4 >= suggested && ask <= uint256(suggested) * 4, AskOutOfRange(ask, suggested)
        );
    }
}
