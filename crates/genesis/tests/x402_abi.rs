//! The contracts have every function, event and error that clients and indexers know of the published ones.
#![allow(missing_docs)]

use serde_json::Value;
use std::collections::BTreeSet;

const CONFIG: &str = "(address,address,address,address,address,uint40,bytes32)";

/// `kind name(types)` of everything in an artifact's ABI, indexed event parameters marked.
fn signatures(artifact: &str) -> BTreeSet<String> {
    fn type_of(parameter: &Value) -> String {
        let name = parameter["type"].as_str().unwrap();
        let Some(suffix) = name.strip_prefix("tuple") else {
            return name.into();
        };
        let parts: Vec<_> = parameter["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(type_of)
            .collect();
        format!("({}){suffix}", parts.join(","))
    }
    let artifact: Value = serde_json::from_str(artifact).unwrap();
    let entries = artifact["abi"].as_array().unwrap();
    let mut found = BTreeSet::new();
    for entry in entries.iter().filter(|entry| entry["type"] != "constructor") {
        let inputs: Vec<_> = entry["inputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|input| {
                let indexed = if input["indexed"] == true { " indexed" } else { "" };
                type_of(input) + indexed
            })
            .collect();
        let (kind, name) = (entry["type"].as_str().unwrap(), entry["name"].as_str().unwrap());
        found.insert(format!("{kind} {name}({})", inputs.join(",")));
    }
    found
}

#[track_caller]
fn assert_has(artifact: &str, published: &[&str]) {
    let found = signatures(artifact);
    for signature in published {
        let signature = signature
            .replace("CLAIMS", &format!("(({CONFIG},uint128),bytes,uint128)[]"))
            .replace("$CONFIG", CONFIG)
            .replace("TRANSFER", "((address,uint256),uint256,uint256)");
        assert!(found.contains(&signature), "{signature} is missing in {found:#?}");
    }
}

#[test]
fn batch_settlement() {
    assert_has(
        include_str!("../../../contracts/artifacts/BatchSettlement.json"),
        &[
            "function deposit($CONFIG,uint128,address,bytes)",
            "function claim(CLAIMS)",
            "function claimWithSignature(CLAIMS,bytes)",
            "function settle(address,address)",
            "function initiateWithdraw($CONFIG,uint128)",
            "function finalizeWithdraw($CONFIG)",
            "function refund($CONFIG,uint128)",
            "function refundWithSignature($CONFIG,uint128,uint256,bytes)",
            "function multicall(bytes[])",
            "function getChannelId($CONFIG)",
            "function getVoucherDigest(bytes32,uint128)",
            "function getRefundDigest(bytes32,uint256,uint128)",
            "function getClaimBatchDigest(CLAIMS)",
            "function channels(bytes32)",
            "function refundNonce(bytes32)",
            "function pendingWithdrawals(bytes32)",
            "function receivers(address,address)",
            "function eip712Domain()",
            "function MIN_WITHDRAW_DELAY()",
            "function MAX_WITHDRAW_DELAY()",
            "function CHANNEL_CONFIG_TYPEHASH()",
            "function VOUCHER_TYPEHASH()",
            "function REFUND_TYPEHASH()",
            "function CLAIM_ENTRY_TYPEHASH()",
            "function CLAIM_BATCH_TYPEHASH()",
            "event ChannelCreated(bytes32 indexed,$CONFIG)",
            "event ChannelClosed(bytes32 indexed,$CONFIG)",
            "event Deposited(bytes32 indexed,address indexed,uint128,uint128)",
            "event Claimed(bytes32 indexed,address indexed,uint128,uint128)",
            "event Settled(address indexed,address indexed,address indexed,uint128)",
            "event Refunded(bytes32 indexed,address indexed,uint128)",
            "event WithdrawInitiated(bytes32 indexed,uint128,uint40)",
            "event WithdrawFinalized(bytes32 indexed,address indexed,uint128)",
            "error InvalidChannel()",
            "error ZeroDeposit()",
            "error DepositOverflow()",
            "error InvalidSignature()",
            "error NotReceiverAuthorizer()",
            "error NotAuthorizedToClaim()",
            "error NotAuthorizedToRefund()",
            "error ClaimExceedsCeiling()",
            "error ClaimExceedsBalance()",
            "error WithdrawalAlreadyPending()",
            "error WithdrawalNotPending()",
            "error NotAuthorizedToFinalizeWithdraw()",
            "error WithdrawDelayNotElapsed()",
            "error NothingToWithdraw()",
            "error WithdrawAmountExceedsAvailable()",
            "error WithdrawDelayOutOfRange()",
            "error EmptyBatch()",
            "error DepositCollectionFailed()",
            "error InvalidCollector()",
            "error InvalidRefundNonce()",
            "error ZeroRefund()",
            "error ReentrancyGuardReentrantCall()",
        ],
    );
}

#[test]
fn collectors_and_validator() {
    let collect = "function collect(address,address,uint256,bytes32,bytes)";
    let shared = [
        collect,
        "function x402BatchSettlement()",
        "error OnlyX402BatchSettlement()",
        "error InvalidX402BatchSettlementAddress()",
    ];
    assert_has(
        include_str!("../../../contracts/artifacts/Erc3009DepositCollector.json"),
        &shared,
    );
    let permit2 = include_str!("../../../contracts/artifacts/Permit2DepositCollector.json");
    assert_has(permit2, &shared);
    assert_has(
        permit2,
        &[
            "function PERMIT2()",
            "function DEPOSIT_WITNESS_TYPE_STRING()",
            "function DEPOSIT_WITNESS_TYPEHASH()",
            "error InvalidPermit2Address()",
            "error Permit2612AmountMismatch()",
            "event EIP2612PermitFailedWithReason(address indexed,address indexed,string)",
            "event EIP2612PermitFailedWithPanic(address indexed,address indexed,uint256)",
            "event EIP2612PermitFailedWithData(address indexed,address indexed,bytes)",
        ],
    );
    assert_has(
        include_str!("../../../contracts/artifacts/UniversalSigValidator.json"),
        &[
            "function isValidSig(address,bytes32,bytes)",
            "function isValidSigWithSideEffects(address,bytes32,bytes)",
            "function isValidSigImpl(address,bytes32,bytes,bool,bool)",
            "error ERC1271Revert(bytes)",
            "error ERC6492DeployFailed(bytes)",
        ],
    );
}

#[test]
fn proxies() {
    let shared = [
        "function PERMIT2()",
        "function WITNESS_TYPEHASH()",
        "function WITNESS_TYPE_STRING()",
        "event Settled()",
        "event SettledWithPermit()",
        "event EIP2612PermitFailedWithReason(address indexed,address indexed,string)",
        "event EIP2612PermitFailedWithPanic(address indexed,address indexed,uint256)",
        "event EIP2612PermitFailedWithData(address indexed,address indexed,bytes)",
        "error InvalidAmount()",
        "error InvalidDestination()",
        "error InvalidOwner()",
        "error InvalidPermit2Address()",
        "error PaymentTooEarly()",
        "error Permit2612AmountMismatch()",
        "error ReentrancyGuardReentrantCall()",
    ];
    let exact = include_str!("../../../contracts/artifacts/ExactPermit2Proxy.json");
    let upto = include_str!("../../../contracts/artifacts/UptoPermit2Proxy.json");
    assert_has(exact, &shared);
    assert_has(upto, &shared);
    let permit = "(uint256,uint256,bytes32,bytes32,uint8)";
    let with_permit = format!("function settleWithPermit({permit},TRANSFER,address,(address,uint256),bytes)");
    assert_has(
        exact,
        &[
            "function settle(TRANSFER,address,(address,uint256),bytes)",
            with_permit.as_str(),
        ],
    );
    let with_permit =
        format!("function settleWithPermit({permit},TRANSFER,uint256,address,(address,address,uint256),bytes)");
    assert_has(
        upto,
        &[
            "function settle(TRANSFER,uint256,address,(address,address,uint256),bytes)",
            with_permit.as_str(),
            "error AmountExceedsPermitted()",
            "error UnauthorizedFacilitator()",
        ],
    );
}

#[test]
fn permit2() {
    let batch = "((address,uint256)[],uint256,uint256)";
    let batch_transfer = format!("function permitTransferFrom({batch},(address,uint256)[],address,bytes)");
    let batch_witness =
        format!("function permitWitnessTransferFrom({batch},(address,uint256)[],address,bytes32,string,bytes)");
    assert_has(
        include_str!("../../../contracts/artifacts/Permit2.json"),
        &[
            "function DOMAIN_SEPARATOR()",
            "function permitTransferFrom(TRANSFER,(address,uint256),address,bytes)",
            "function permitWitnessTransferFrom(TRANSFER,(address,uint256),address,bytes32,string,bytes)",
            batch_transfer.as_str(),
            batch_witness.as_str(),
            "function invalidateUnorderedNonces(uint256,uint256)",
            "function nonceBitmap(address,uint256)",
            "function allowance(address,address,address)",
            "function approve(address,address,uint160,uint48)",
            "function permit(address,((address,uint160,uint48,uint48),address,uint256),bytes)",
            "function permit(address,((address,uint160,uint48,uint48)[],address,uint256),bytes)",
            "function transferFrom(address,address,uint160,address)",
            "function transferFrom((address,address,uint160,address)[])",
            "function lockdown((address,address)[])",
            "function invalidateNonces(address,address,uint48)",
            "event UnorderedNonceInvalidation(address indexed,uint256,uint256)",
            "event NonceInvalidation(address indexed,address indexed,address indexed,uint48,uint48)",
            "event Approval(address indexed,address indexed,address indexed,uint160,uint48)",
            "event Permit(address indexed,address indexed,address indexed,uint160,uint48,uint48)",
            "event Lockdown(address indexed,address,address)",
            "error SignatureExpired(uint256)",
            "error InvalidNonce()",
            "error InvalidAmount(uint256)",
            "error LengthMismatch()",
            "error InvalidSignatureLength()",
            "error InvalidSignature()",
            "error InvalidSigner()",
            "error InvalidContractSignature()",
            "error AllowanceExpired(uint256)",
            "error InsufficientAllowance(uint256)",
            "error ExcessiveInvalidation()",
        ],
    );
}
