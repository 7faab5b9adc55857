// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {NodeRegistry} from "./NodeRegistry.sol";
import {ReceiptLedger} from "./ReceiptLedger.sol";

/// @title EvidenceRegistry
/// @notice Attestation evidence of keysets: what nodes submit, what validators found, and the policy that they judge by.
/// @dev Documents are not stored: {submit} puts them into its event. Every validator verifies the submissions of a block natively, with
/// that block's timestamp and the policy of its state, and the next block begins with a system transaction that records all
/// verdicts ({record}). Validators recompute its calldata, so verdicts are consensus data here (decisions D9, D13).
contract EvidenceRegistry {
    /// @notice Accepted evidence.
    /// @param nodeId node of the keyset
    /// @param keyset digest of the keyset that the evidence binds
    /// @param measurement hash of what runs there; can be revoked
    /// @param signer hash of the chip, platform or module that signed; can be revoked
    /// @param registeredAt timestamp of the block with the submission
    /// @param expiresAt last second at which receipts may refer to it
    /// @param epoch policy that accepted it
    /// @param kind 1 Nitro, 2 TDX, 3 SGX, 4 SEV-SNP
    /// @param grade 1 simulated, 2 hardware
    struct Evidence {
        bytes32 nodeId;
        bytes32 keyset;
        bytes32 measurement;
        bytes32 signer;
        uint40 registeredAt;
        uint40 expiresAt;
        uint40 epoch;
        uint8 kind;
        uint8 grade;
    }

    /// @notice What validators found about one submission. `code` is 0 if it is accepted, else the number of the reason.
    struct Verdict {
        bytes32 evidenceId;
        uint16 code;
        Evidence evidence;
    }

    /// @notice Version of a part of vendor collateral.
    /// @param subject which part, see docs/specs/ledger.md §12
    /// @param number the vendor's number
    /// @param issuedAt when the vendor issued it
    struct Version {
        bytes32 subject;
        uint64 number;
        uint40 issuedAt;
    }

    /// @notice The newest version of a part that validators verified.
    struct Newest {
        uint64 number;
        uint40 issuedAt;
    }

    /// @notice Most bytes of a document.
    uint256 public constant MAX_DOCUMENT = 16_384;
    /// @notice Most bytes of what a verifier needs beside it.
    uint256 public constant MAX_COLLATERAL = 65_536;
    /// @notice Most bytes of a policy.
    uint256 public constant MAX_POLICY = 16_384;
    /// @notice Most submissions of one block: verification is bounded work (D14).
    uint256 public constant MAX_PER_BLOCK = 8;
    /// @notice Most collateral of one block that comes without a document.
    uint256 public constant MAX_COLLATERAL_PER_BLOCK = 2;
    /// @notice Least seconds between two submissions of one node, whatever keysets they are of: keysets cost nothing, bonds do.
    uint256 public constant MIN_INTERVAL = 20;
    /// @notice Nodes, keysets and bonds.
    NodeRegistry public immutable nodes;
    /// @notice Knows the accounts that send system transactions.
    ReceiptLedger public immutable ledger;
    /// @notice Seconds for which evidence of an older policy stays good after a change.
    uint40 public immutable grace;

    /// @notice Accepted evidence by identity.
    mapping(bytes32 evidenceId => Evidence) public evidence;
    /// @notice Newest accepted evidence of a keyset.
    mapping(bytes32 keyset => bytes32 evidenceId) public latest;
    /// @notice Measurements and signers whose evidence counts no more, since when.
    mapping(bytes32 subject => uint40 since) public revokedAt;
    /// @notice When evidence of a keyset of this node was last submitted.
    mapping(bytes32 nodeId => uint40) public submittedAt;
    /// @notice Number of the policy, from 1; 0 while there is none and nothing is accepted.
    uint40 public epoch;
    /// @notice When the policy was set.
    uint40 public epochSince;
    uint64 private _block;
    uint8 private _count;
    /// @notice Who may change the policy and revoke.
    address public owner;
    /// @notice The policy, JSON, see docs/evidence.md.
    bytes public policy;
    /// @notice Keysets that evidence was accepted for, in order of their first one.
    bytes32[] public attested;
    /// @notice Newest version of each part of vendor collateral: evidence with an older one is refused.
    mapping(bytes32 subject => Newest) public newest;
    uint64 private _collateralBlock;
    uint8 private _collateralCount;

    /// @notice Evidence to be judged. The nonce that it has to bind follows from `nonceHash`, `nodeId` and `epoch`; the payment
    /// address is the node's deposit address.
    event EvidenceSubmitted(
        bytes32 indexed keyset,
        bytes32 indexed nodeId,
        uint8 kind,
        uint40 epoch,
        bytes32 nonceHash,
        address operator,
        string endpoint,
        string role,
        bytes32 config,
        bytes document,
        bytes collateral
    );
    /// @notice Vendor collateral to be verified; its versions count from the next block on.
    event CollateralSubmitted(uint8 kind, bytes collateral);
    /// @notice There is a newer version of a part of vendor collateral.
    event CollateralRenewed(bytes32 indexed subject, uint64 number, uint40 issuedAt);
    /// @notice Validators accepted evidence.
    event EvidenceAccepted(bytes32 indexed keyset, bytes32 indexed evidenceId, uint8 grade, uint40 expiresAt);
    /// @notice Validators refused evidence.
    event EvidenceRefused(bytes32 indexed keyset, uint16 code);
    /// @notice The policy changed.
    event PolicySet(uint40 indexed epoch, bytes policy);
    /// @notice A measurement or signer counts no more.
    event Revoked(bytes32 indexed subject);
    /// @notice The policy has another owner.
    event OwnerSet(address indexed owner);

    /// @notice Only the owner may do this.
    error NotOwner(address caller);
    /// @notice Not a system transaction of the block's proposer.
    error NotSystemTransaction(address sender);
    /// @notice Only the node's operator or settlement key may submit evidence of its keysets.
    error NotOfNode(bytes32 keyset, address caller);
    /// @notice The keyset is unknown or revoked, or its node has left or has too small a bond.
    error KeysetNotActive(bytes32 keyset);
    /// @notice The block of the nonce is not one of the last 256.
    error NonceBlock(uint256 number);
    /// @notice Bytes are missing or too many.
    error Size(uint256 got, uint256 limit);
    /// @notice The block or the node has as many submissions as it may.
    error TooMany();
    /// @notice Zero is no owner and no subject.
    error Zero();

    constructor(NodeRegistry nodes_, ReceiptLedger ledger_, uint40 grace_, address owner_, bytes memory policy_) {
        nodes = nodes_;
        ledger = ledger_;
        grace = grace_;
        owner = owner_;
        if (policy_.length != 0) {
            _setPolicy(policy_);
        }
    }

    modifier onlyOwner() {
        require(msg.sender == owner, NotOwner(msg.sender));
        _;
    }

    /// @notice Submits evidence of a keyset. The verdict stands in the next block.
    /// @param nonceBlock number of one of the last 256 blocks, whose hash the evidence binds
    /// @param role what the node is: `inference` or `router`
    /// @param config digest of its configuration
    function submit(
        bytes32 keyset,
        uint8 kind,
        uint256 nonceBlock,
        string calldata role,
        bytes32 config,
        bytes calldata document,
        bytes calldata collateral
    ) external {
        require(document.length != 0 && document.length <= MAX_DOCUMENT, Size(document.length, MAX_DOCUMENT));
        require(collateral.length <= MAX_COLLATERAL, Size(collateral.length, MAX_COLLATERAL));
        require(bytes(role).length != 0 && bytes(role).length <= 32, Size(bytes(role).length, 32));
        bytes32 nonceHash = blockhash(nonceBlock);
        require(nonceHash != 0, NonceBlock(nonceBlock));
        (bytes32 nodeId, address operator, string memory endpoint) = _node(keyset);
        _count = _block == block.number ? _count + 1 : 1;
        _block = uint64(block.number);
        require(_count <= MAX_PER_BLOCK && block.timestamp >= submittedAt[nodeId] + MIN_INTERVAL, TooMany());
        submittedAt[nodeId] = uint40(block.timestamp);
        emit EvidenceSubmitted(
            keyset, nodeId, kind, epoch, nonceHash, operator, endpoint, role, config, document, collateral
        );
    }

    /// @notice Hands in newer collateral of a vendor, without a document. Anybody may: vendors sign it.
    /// @param kind 2 TDX, 3 SGX, 4 SEV-SNP
    function submitCollateral(uint8 kind, bytes calldata collateral) external {
        require(collateral.length != 0 && collateral.length <= MAX_COLLATERAL, Size(collateral.length, MAX_COLLATERAL));
        _collateralCount = _collateralBlock == block.number ? _collateralCount + 1 : 1;
        _collateralBlock = uint64(block.number);
        require(_collateralCount <= MAX_COLLATERAL_PER_BLOCK, TooMany());
        emit CollateralSubmitted(kind, collateral);
    }

    /// @notice Records the verdicts on all submissions of the block before, and the versions of the collateral that was verified.
    function record(Verdict[] calldata verdicts, Version[] calldata versions) external {
        require(
            // solhint-disable-next-line avoid-tx-origin
            msg.sender == tx.origin && msg.sender == block.coinbase && ledger.staking().isSystem(msg.sender),
            NotSystemTransaction(msg.sender)
        );
        for (uint256 i; i < verdicts.length; ++i) {
            Verdict calldata verdict = verdicts[i];
            Evidence calldata found = verdict.evidence;
            if (verdict.code != 0) {
                emit EvidenceRefused(found.keyset, verdict.code);
                continue;
            }
            // The same document again, while its nonce is fresh, says nothing new.
            if (evidence[verdict.evidenceId].registeredAt == 0) {
                evidence[verdict.evidenceId] = found;
            }
            if (latest[found.keyset] == 0) {
                attested.push(found.keyset);
            }
            latest[found.keyset] = verdict.evidenceId;
            emit EvidenceAccepted(found.keyset, verdict.evidenceId, found.grade, found.expiresAt);
        }
        for (uint256 i; i < versions.length; ++i) {
            Version calldata version = versions[i];
            Newest memory known = newest[version.subject];
            bool older = version.number < known.number || version.issuedAt < known.issuedAt;
            if (!older && (version.number != known.number || version.issuedAt != known.issuedAt)) {
                newest[version.subject] = Newest(version.number, version.issuedAt);
                emit CollateralRenewed(version.subject, version.number, version.issuedAt);
            }
        }
    }

    /// @notice Until when receipts may refer to evidence, by what is known now; 0 if it is unknown, or it or its keyset is revoked.
    function validUntil(bytes32 evidenceId) public view returns (uint40) {
        Evidence storage found = evidence[evidenceId];
        (,,,, uint40 keysetRevokedAt) = nodes.keysets(found.keyset);
        if (revokedAt[found.measurement] != 0 || revokedAt[found.signer] != 0 || keysetRevokedAt != 0) {
            return 0;
        }
        uint40 changed = epochSince + grace;
        return found.epoch == epoch || changed >= found.expiresAt ? found.expiresAt : changed;
    }

    /// @notice Length of {attested}.
    function attestedCount() external view returns (uint256) {
        return attested.length;
    }

    /// @notice Sets the policy for evidence that is submitted from the next block on.
    function setPolicy(bytes calldata policy_) external onlyOwner {
        _setPolicy(policy_);
    }

    /// @notice Revokes a measurement or a signer at once and for ever.
    function revoke(bytes32 subject) external onlyOwner {
        require(subject != 0, Zero());
        if (revokedAt[subject] == 0) {
            revokedAt[subject] = uint40(block.timestamp);
            emit Revoked(subject);
        }
    }

    /// @notice Hands the policy over.
    function setOwner(address owner_) external onlyOwner {
        require(owner_ != address(0), Zero());
        owner = owner_;
        emit OwnerSet(owner_);
    }

    function _setPolicy(bytes memory policy_) private {
        require(policy_.length != 0 && policy_.length <= MAX_POLICY, Size(policy_.length, MAX_POLICY));
        policy = policy_;
        ++epoch;
        epochSince = uint40(block.timestamp);
        emit PolicySet(epoch, policy_);
    }

    function _node(bytes32 keyset) private view returns (bytes32 nodeId, address operator, string memory endpoint) {
        address settlementKey;
        uint40 keysetRevokedAt;
        uint40 inactiveAt;
        uint128 bond;
        (nodeId,, settlementKey,, keysetRevokedAt) = nodes.keysets(keyset);
        (operator,, inactiveAt, bond, endpoint) = nodes.nodes(nodeId);
        require(
            nodeId != 0 && keysetRevokedAt == 0 && inactiveAt == 0 && bond >= nodes.minBond(), KeysetNotActive(keyset)
        );
        require(msg.sender == operator || msg.sender == settlementKey, NotOfNode(keyset, msg.sender));
    }
}
