// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Price} from "./Types.sol";

/// @title ModelRegistry
/// @notice Who created a model, what royalty they take and which price they suggest. A model is its content root.
/// @dev Registration is commit and reveal: whoever sees a root in a pending transaction cannot get an older commitment to it.
/// A reveal is final once {claimWindow} seconds have passed; until then an older commitment to the same root takes it over, so
/// that delaying somebody's reveal does not steal the model.
contract ModelRegistry {
    /// @notice A registered model. `previousRoyaltyBps` is the royalty before the last change, at `changedAt`; `closed` whether it is a provider's
    /// ({markClosed}).
    struct Model {
        address creator;
        uint16 royaltyBps;
        uint16 previousRoyaltyBps;
        uint40 changedAt;
        bool closed;
        Price price;
        uint40 registeredAt;
        uint64 committedAt;
        string name;
        string uri;
    }

    /// @notice Blocks between commitment and reveal.
    uint256 public constant REVEAL_DELAY = 2;
    /// @notice Longest name, bytes.
    uint256 public constant MAX_NAME = 128;
    /// @notice Longest URI, bytes.
    uint256 public constant MAX_URI = 512;
    /// @notice Longest registration report of a program, bytes.
    uint256 public constant MAX_REPORT = 4096;
    /// @notice Longest provider, host and name of a closed model together, bytes.
    uint256 public constant MAX_CLOSED = 1024;
    /// @notice Most programs of one model.
    uint256 public constant MAX_PROGRAMS = 16;
    /// @notice Highest royalty, basis points of the charge.
    uint16 public immutable maxRoyaltyBps;
    /// @notice Seconds for which the former royalty stays valid in receipts; also the least time between two changes.
    uint40 public immutable termsNotice;
    /// @notice Seconds after registration in which an older commitment takes a model over.
    uint40 public immutable claimWindow;

    /// @notice Models by content root.
    mapping(bytes32 modelRoot => Model) public models;
    /// @notice Block of each open commitment; 0 if there is none.
    mapping(bytes32 commitment => uint64 blockNumber) public commitments;
    /// @notice keccak256 of the registration report of each program that proofs about a model may be about; 0 if there is none.
    mapping(bytes32 modelRoot => mapping(bytes32 program => bytes32 reportHash)) public programs;
    /// @dev Programs of each model, in the order of their registration.
    mapping(bytes32 modelRoot => bytes32[] programs) private _programList;

    /// @notice Somebody committed to registering a model.
    event Committed(bytes32 indexed commitment, address indexed sender);
    /// @notice A model is registered, or taken over by an older commitment.
    event ModelRegistered(
        bytes32 indexed modelRoot, address indexed creator, string name, string uri, uint16 royaltyBps, Price price
    );
    /// @notice The creator changed royalty and reference price.
    event TermsSet(bytes32 indexed modelRoot, uint16 royaltyBps, Price price);
    /// @notice A model is known to be a provider's.
    event ModelClosed(bytes32 indexed modelRoot, string provider, string host, string model);
    /// @notice The model has another creator.
    event CreatorTransferred(bytes32 indexed modelRoot, address indexed from, address indexed to);
    /// @notice The creator registered an exact integer program of the model, with the report of how close it is to the model.
    event ProgramRegistered(bytes32 indexed modelRoot, bytes32 indexed program, string report);

    /// @notice A closed model has no royalty.
    error ClosedRoyalty(bytes32 modelRoot);
    /// @notice No such commitment of the sender.
    error UnknownCommitment(bytes32 commitment);
    /// @notice The commitment is too young.
    error RevealTooEarly(uint256 blockNumber, uint256 earliest);
    /// @notice The model belongs to an older commitment, or its claim window is over.
    error ModelExists(bytes32 modelRoot, address creator);
    /// @notice The royalty is above the maximum.
    error RoyaltyTooHigh(uint16 royaltyBps, uint16 maximum);
    /// @notice The root is zero, or a text is empty or too long.
    error InvalidModel();
    /// @notice Only the model's creator may do this.
    error NotCreator(bytes32 modelRoot, address caller);
    /// @notice The program's root is zero, it is registered already, the model has {MAX_PROGRAMS}, or the report is empty or too long.
    error InvalidProgram();
    /// @notice Terms were changed less than {termsNotice} seconds ago.
    error TermsTooSoon(uint256 earliest);

    constructor(uint16 maxRoyaltyBps_, uint40 termsNotice_, uint40 claimWindow_) {
        maxRoyaltyBps = maxRoyaltyBps_;
        termsNotice = termsNotice_;
        claimWindow = claimWindow_;
    }

    modifier onlyCreator(bytes32 modelRoot) {
        require(models[modelRoot].creator == msg.sender, NotCreator(modelRoot, msg.sender));
        _;
    }

    /// @notice Commits to a root without naming it. Repeating a commitment changes nothing: the oldest counts.
    /// @param commitment `keccak256(abi.encode(modelRoot, creator, salt))`
    function commit(bytes32 commitment) external {
        if (commitments[commitment] == 0) {
            commitments[commitment] = uint64(block.number);
            emit Committed(commitment, msg.sender);
        }
    }

    /// @notice Registers the model that the sender committed to at least {REVEAL_DELAY} blocks ago.
    function reveal(
        bytes32 modelRoot,
        bytes32 salt,
        string calldata name,
        string calldata uri,
        uint16 royaltyBps,
        Price calldata price
    ) external {
        bytes32 commitment = keccak256(abi.encode(modelRoot, msg.sender, salt));
        uint64 committedAt = commitments[commitment];
        require(committedAt != 0, UnknownCommitment(commitment));
        require(
            block.number >= committedAt + REVEAL_DELAY, RevealTooEarly(block.number, committedAt + REVEAL_DELAY)
        );
        uint256 nameLength = bytes(name).length;
        require(
            modelRoot != 0 && nameLength != 0 && nameLength <= MAX_NAME && bytes(uri).length <= MAX_URI,
            InvalidModel()
        );
        _checkRoyalty(royaltyBps);

        Model storage model = models[modelRoot];
        require(!model.closed || royaltyBps == 0, ClosedRoyalty(modelRoot));
        bool first = model.creator == address(0);
        require(
            first || (committedAt < model.committedAt && block.timestamp < uint256(model.registeredAt) + claimWindow),
            ModelExists(modelRoot, model.creator)
        );
        delete commitments[commitment];
        model.previousRoyaltyBps = first ? royaltyBps : model.royaltyBps;
        if (first) {
            model.registeredAt = uint40(block.timestamp);
        }
        model.creator = msg.sender;
        model.royaltyBps = royaltyBps;
        model.changedAt = uint40(block.timestamp);
        model.price = price;
        model.committedAt = committedAt;
        model.name = name;
        model.uri = uri;
        emit ModelRegistered(modelRoot, msg.sender, name, uri, royaltyBps, price);
    }

    /// @notice Changes royalty and reference price. The former royalty stays valid for {termsNotice} seconds, so that work
    /// under way is paid by the terms it was quoted by.
    function setTerms(bytes32 modelRoot, uint16 royaltyBps, Price calldata price) external onlyCreator(modelRoot) {
        _checkRoyalty(royaltyBps);
        Model storage model = models[modelRoot];
        require(!model.closed || royaltyBps == 0, ClosedRoyalty(modelRoot));
        uint256 earliest = uint256(model.changedAt) + termsNotice;
        require(block.timestamp >= earliest, TermsTooSoon(earliest));
        model.previousRoyaltyBps = model.royaltyBps;
        model.royaltyBps = royaltyBps;
        model.changedAt = uint40(block.timestamp);
        model.price = price;
        emit TermsSet(modelRoot, royaltyBps, price);
    }

    /// @notice Says that a model is a provider's, reached through nodes that pay for it. Anyone may, because it is proved: its root is the hash of
    /// what it is called where. Whoever registered it made nothing, so its royalty ends with the usual notice, and its charges are split as
    /// what passes through ({ReceiptLedger.setClosedWeights}).
    function markClosed(string calldata provider, string calldata host, string calldata model) external {
        bytes32 modelRoot = closedRoot(provider, host, model);
        Model storage found = models[modelRoot];
        require(found.creator != address(0) && !found.closed, InvalidModel());
        found.closed = true;
        if (found.royaltyBps != 0) {
            found.previousRoyaltyBps = found.royaltyBps;
            found.royaltyBps = 0;
            found.changedAt = uint40(block.timestamp);
        }
        emit ModelClosed(modelRoot, provider, host, model);
    }

    /// @notice The root of a provider's model (docs/specs/receipt.md): SHA-256 over the tag and the three parts, each behind its length.
    function closedRoot(string calldata provider, string calldata host, string calldata model)
        public
        pure
        returns (bytes32)
    {
        bytes memory tag = "opg/closed-model/v1";
        uint256 length = bytes(provider).length + bytes(host).length + bytes(model).length;
        require(length <= MAX_CLOSED, InvalidModel());
        return sha256(
            bytes.concat(
                bytes1(uint8(tag.length)),
                tag,
                bytes8(uint64(bytes(provider).length)),
                bytes(provider),
                bytes8(uint64(bytes(host).length)),
                bytes(host),
                bytes8(uint64(bytes(model).length)),
                bytes(model)
            )
        );
    }

    /// @notice Gives the model, with its future royalties, to another account.
    function transferCreator(bytes32 modelRoot, address to) external onlyCreator(modelRoot) {
        require(to != address(0), InvalidModel());
        models[modelRoot].creator = to;
        emit CreatorTransferred(modelRoot, msg.sender, to);
    }

    /// @notice Registers an exact integer program of the model. It can neither be changed nor removed: receipts refer to it.
    /// @param program Root that names graph, weights and parameter set of the program
    /// @param report How the program's results compare with the model's, as JSON
    function registerProgram(bytes32 modelRoot, bytes32 program, string calldata report)
        external
        onlyCreator(modelRoot)
    {
        uint256 length = bytes(report).length;
        bytes32[] storage list = _programList[modelRoot];
        require(
            program != 0 && length != 0 && length <= MAX_REPORT && list.length < MAX_PROGRAMS
                && programs[modelRoot][program] == 0,
            InvalidProgram()
        );
        programs[modelRoot][program] = keccak256(bytes(report));
        list.push(program);
        emit ProgramRegistered(modelRoot, program, report);
    }

    /// @notice Roots of the model's programs, in the order of their registration.
    function programsOf(bytes32 modelRoot) external view returns (bytes32[] memory) {
        return _programList[modelRoot];
    }

    /// @notice The model's creator; zero if it is not registered.
    function creatorOf(bytes32 modelRoot) external view returns (address) {
        return models[modelRoot].creator;
    }

    /// @notice The model's creator, zero if it is not registered, and whether it is closed.
    function payeeOf(bytes32 modelRoot) external view returns (address creator, bool closed) {
        Model storage model = models[modelRoot];
        return (model.creator, model.closed);
    }

    /// @notice The creator's reference price; zero if the model is not registered.
    function referencePrice(bytes32 modelRoot) external view returns (Price memory) {
        return models[modelRoot].price;
    }

    function _checkRoyalty(uint16 royaltyBps) private view {
        require(royaltyBps <= maxRoyaltyBps, RoyaltyTooHigh(royaltyBps, maxRoyaltyBps));
    }
}
