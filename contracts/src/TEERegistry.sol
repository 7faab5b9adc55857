// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {EvidenceRegistry} from "./EvidenceRegistry.sol";
import {NodeRegistry} from "./NodeRegistry.sol";

/// @title TEERegistry
/// @notice What {EvidenceRegistry} and {NodeRegistry} know, in the ABI that OpenGradient's published clients read (the shape with ten
/// fields). A view: nothing is stored here and nothing can be written.
/// @dev The clients' "TEE" is a keyset here: its id is the keyset digest, its key the Ed25519 receipt key, as an RFC 8410
/// SubjectPublicKeyInfo. Certificates are not kept on chain, so that field is empty. A heartbeat is the submission of fresh evidence.
contract TEERegistry {
    /// @notice One attested keyset.
    struct TEEInfo {
        address owner;
        address paymentAddress;
        string endpoint;
        bytes publicKey;
        bytes tlsCertificate;
        bytes32 pcrHash;
        uint8 teeType;
        bool enabled;
        uint256 registeredAt;
        uint256 lastHeartbeatAt;
    }

    /// @notice A kind of node.
    struct TEETypeInfo {
        string name;
        uint256 addedAt;
    }

    /// @notice Inference nodes and proxies; the only type that there is.
    uint8 public constant LLM_PROXY = 0;
    /// @notice Most nodes that a list has.
    uint256 public constant MAX_LISTED = 256;
    bytes12 private constant _ED25519_SPKI = hex"302a300506032b6570032100";

    /// @notice Evidence.
    EvidenceRegistry public immutable evidence;
    /// @notice Nodes and keysets.
    NodeRegistry public immutable nodes;

    /// @notice No such type.
    error InvalidTEEType();
    /// @notice No evidence was ever accepted for this keyset.
    error TEENotFound();

    constructor(EvidenceRegistry evidence_) {
        evidence = evidence_;
        nodes = evidence_.nodes();
    }

    /// @notice Whether there is such a type.
    function isValidTEEType(uint8 teeType) public pure returns (bool) {
        return teeType == LLM_PROXY;
    }

    /// @notice All types.
    function getTEETypes() external pure returns (uint8[] memory types, TEETypeInfo[] memory infos) {
        types = new uint8[](1);
        infos = new TEETypeInfo[](1);
        infos[0] = TEETypeInfo("LLMProxy", 0);
    }

    /// @notice Seconds after which evidence counts no more at the latest.
    function heartbeatMaxAge() external pure returns (uint256) {
        return 12 hours;
    }

    /// @notice Attested keysets whose evidence counts now.
    function getActiveTEEs(uint8 teeType) external view returns (TEEInfo[] memory infos) {
        bytes32[] memory ids = getTEEsByType(teeType);
        uint256 count;
        for (uint256 i; i < ids.length; ++i) {
            if (isTEEActive(ids[i])) {
                ids[count++] = ids[i];
            }
        }
        infos = new TEEInfo[](count);
        for (uint256 i; i < count; ++i) {
            infos[i] = getTEE(ids[i]);
        }
    }

    /// @notice Attested keysets that are not revoked.
    function getEnabledTEEs(uint8 teeType) external view returns (bytes32[] memory ids) {
        ids = getTEEsByType(teeType);
        uint256 count;
        for (uint256 i; i < ids.length; ++i) {
            if (isTEEEnabled(ids[i])) {
                ids[count++] = ids[i];
            }
        }
        // solhint-disable-next-line no-inline-assembly
        assembly ("memory-safe") {
            mstore(ids, count)
        }
    }

    /// @notice Keysets that evidence was accepted for, the newest first, at most {MAX_LISTED}.
    function getTEEsByType(uint8 teeType) public view returns (bytes32[] memory ids) {
        require(isValidTEEType(teeType), InvalidTEEType());
        uint256 total = evidence.attestedCount();
        uint256 count = total < MAX_LISTED ? total : MAX_LISTED;
        ids = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            ids[i] = evidence.attested(total - 1 - i);
        }
    }

    /// @notice Whether evidence of the keyset counts now.
    function isTEEActive(bytes32 teeId) public view returns (bool) {
        return isTEEEnabled(teeId) && evidence.validUntil(evidence.latest(teeId)) >= block.timestamp;
    }

    /// @notice Whether the keyset was attested, is not revoked, and its node has not left.
    function isTEEEnabled(bytes32 teeId) public view returns (bool) {
        (bytes32 nodeId,,,, uint40 revokedAt) = nodes.keysets(teeId);
        (,, uint40 inactiveAt,,) = nodes.nodes(nodeId);
        return evidence.latest(teeId) != 0 && revokedAt == 0 && inactiveAt == 0;
    }

    /// @notice One attested keyset.
    function getTEE(bytes32 teeId) public view returns (TEEInfo memory info) {
        bytes32 id = evidence.latest(teeId);
        require(id != 0, TEENotFound());
        (,, bytes32 measurement,, uint40 attestedAt,,,,) = evidence.evidence(id);
        (bytes32 nodeId, bytes32 receiptKey,, uint40 registeredAt,) = nodes.keysets(teeId);
        (address operator,,,, string memory endpoint) = nodes.nodes(nodeId);
        info = TEEInfo({
            owner: operator,
            paymentAddress: evidence.ledger().vault().depositAddressOf(nodeId),
            endpoint: endpoint,
            publicKey: bytes.concat(_ED25519_SPKI, receiptKey),
            tlsCertificate: "",
            pcrHash: measurement,
            teeType: LLM_PROXY,
            enabled: isTEEEnabled(teeId),
            registeredAt: registeredAt,
            lastHeartbeatAt: attestedAt
        });
    }

    /// @notice The key that signs its receipts, as a SubjectPublicKeyInfo (DER).
    function getTEEPublicKey(bytes32 teeId) external view returns (bytes memory) {
        return getTEE(teeId).publicKey;
    }
}
