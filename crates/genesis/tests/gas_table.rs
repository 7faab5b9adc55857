//! `docs/specs/gas.md` is what the operations cost, measured. After a change write it anew:
//! `OPG_WRITE_DOCS=1 cargo test --workspace --test gas_table`.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolStruct, SolValue, eip712_domain, sol};
use common::{CHAIN_ID, MODEL, Net, Payment, file, key, nonce, pending, price, sign, who};
use opg_contracts::{
    FeeVault, Governance, Governor, ModelRegistry, NodeRegistry, OPG, Parameters, PriceOracle, ReceiptLedger,
    addresses, system_tx::BatchEntry,
};
use opg_primitives::money::{Amount, WEI_PER_OPG};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

sol! {
    struct PriceFeed { uint64 round; uint128 price; }
}

/// Contracts whose functions are all in the table or among those that are said to be missing.
const CONTRACTS: [&str; 9] = [
    "OPG",
    "NodeRegistry",
    "ModelRegistry",
    "FeeVault",
    "ReceiptLedger",
    "Governor",
    "Timelock",
    "Treasury",
    "PriceOracle",
];

/// Functions that this run does not measure, and where their cost is found.
const ELSEWHERE: [(&str, &str, &str); 8] = [
    (
        "OPG",
        "cancelAuthorization delegateBySig permit receiveWithAuthorization",
        "a signature check more than their plain forms",
    ),
    (
        "OPG",
        "transferFrom withdrawTo",
        "as `transfer` with an allowance; as `withdraw`",
    ),
    ("NodeRegistry", "withdrawBond", "as a transfer of OPG"),
    (
        "NodeRegistry",
        "freeze unfreeze",
        "inside a case of `Slashing`, `tests/slashing.rs`",
    ),
    (
        "ReceiptLedger",
        "creditChannels recordChannels refundChannel requestChannelRefund",
        "`tests/x402_gas.rs`, `tests/x402_ledger.rs`",
    ),
    (
        "ReceiptLedger",
        "dropUnpayable setWeights setClosedWeights setWindows",
        "rare; one slot",
    ),
    (
        "Governor",
        "cancel castVoteBySig castVoteWithReason castVoteWithReasonAndParams castVoteWithReasonAndParamsBySig onERC1155BatchReceived onERC1155Received onERC721Received relay setProposalThreshold setVotingDelay setVotingPeriod updateQuorumNumerator updateTimelock",
        "variants of `castVote`; settings, one slot each",
    ),
    (
        "Timelock",
        "cancel execute executeBatch grantRole onERC1155BatchReceived onERC1155Received onERC721Received renounceRole revokeRole schedule scheduleBatch updateDelay",
        "inside `queue` and `execute` of the governor",
    ),
];

/// Treasury and oracle functions that are measured inside others.
const INSIDE: [(&str, &str, &str); 2] = [
    ("Treasury", "spend spendNative", "inside `execute` of the governor"),
    ("PriceOracle", "setLimits", "one slot"),
];

#[derive(Default)]
struct Table {
    rows: Vec<(&'static str, &'static str, &'static str, u64)>,
}

impl Table {
    fn send(
        &mut self,
        net: &mut Net,
        from: Address,
        to: Address,
        (contract, function, what): (&'static str, &'static str, &'static str),
        call: impl SolCall,
    ) -> Bytes {
        let done = net.evm.send(from, to, U256::ZERO, call.abi_encode().into()).unwrap();
        self.rows.push((contract, function, what, done.gas_used));
        done.output
    }

    fn money(&mut self, net: &mut Net) {
        let opg = addresses::OPG;
        let alice = who("alice");
        let deposit = OPG::depositCall {}.abi_encode();
        let done = net.evm.send(alice, opg, U256::from(5), deposit.into()).unwrap();
        self.rows.push(("OPG", "deposit", "", done.gas_used));
        let transfer = |to| OPG::transferCall {
            to,
            value: U256::from(5),
        };
        self.send(
            net,
            alice,
            opg,
            ("OPG", "transfer", "to a new holder"),
            transfer(who("new")),
        );
        self.send(net, alice, opg, ("OPG", "transfer", ""), transfer(who("new")));
        let withdraw = OPG::withdrawCall { amount: U256::from(5) };
        self.send(net, alice, opg, ("OPG", "withdraw", ""), withdraw);
        let approve = OPG::approveCall {
            spender: who("spender"),
            value: U256::MAX,
        };
        self.send(net, alice, opg, ("OPG", "approve", "first"), approve);
        let delegate = OPG::delegateCall { delegatee: alice };
        self.send(net, alice, opg, ("OPG", "delegate", "to oneself"), delegate);
        let to = net.deposit(0);
        for (i, what) in [(1, "first to a node"), (2, "")] {
            let payment = Payment::new("bob", to, 1_000, nonce(i));
            self.send(
                net,
                who("relayer"),
                opg,
                ("OPG", "transferWithAuthorization", what),
                payment.call(),
            );
        }
    }

    fn registries(&mut self, net: &mut Net) {
        let (nodes, carol) = (addresses::NODE_REGISTRY, who("carol"));
        let approve = OPG::approveCall {
            spender: nodes,
            value: U256::MAX,
        };
        net.evm.call(carol, addresses::OPG, approve).unwrap();
        let keyset = |i| NodeRegistry::Keyset {
            receiptKey: B256::repeat_byte(i),
            settlementKey: who("settler"),
            hpkeKey: B256::ZERO,
            tlsSpki: B256::ZERO,
        };
        let register = NodeRegistry::registerCall {
            salt: B256::ZERO,
            endpoint: "http://127.0.0.1:9000".into(),
            keyset: keyset(1),
            bond: 1_000 * WEI_PER_OPG,
        };
        let name = |function| ("NodeRegistry", function, "");
        let id = B256::from_slice(&self.send(net, carol, nodes, name("register"), register));
        let add = NodeRegistry::addKeysetCall {
            nodeId: id,
            keyset: keyset(2),
        };
        let digest = B256::from_slice(&self.send(net, carol, nodes, name("addKeyset"), add));
        let revoke = NodeRegistry::revokeKeysetCall {
            nodeId: id,
            keysetDigest: digest,
        };
        self.send(net, carol, nodes, name("revokeKeyset"), revoke);
        let endpoint = NodeRegistry::setEndpointCall {
            nodeId: id,
            endpoint: "http://127.0.0.1:9001".into(),
        };
        self.send(net, carol, nodes, name("setEndpoint"), endpoint);
        let bond = NodeRegistry::addBondCall { nodeId: id, amount: 1 };
        self.send(net, carol, nodes, name("addBond"), bond);
        let ask = NodeRegistry::setAskCall {
            nodeId: id,
            modelRoot: MODEL,
            ask: NodeRegistry::Price {
                perCall: price().per_call.0,
                perMtokIn: price().per_mtok_in.0,
                perMtokOut: 0,
            },
        };
        self.send(net, carol, nodes, name("setAsk"), ask);
        let leave = NodeRegistry::deactivateCall { nodeId: id };
        self.send(net, carol, nodes, name("deactivate"), leave);

        let models = addresses::MODEL_REGISTRY;
        let closed = || ("openai".to_owned(), "api.openai.com".to_owned(), "gpt-4.1".to_owned());
        let root = opg_receipt::closed_model_root("openai", "api.openai.com", "gpt-4.1").0;
        let commitment = keccak256((root, carol, B256::ZERO).abi_encode());
        let name = |function| ("ModelRegistry", function, "");
        net.evm.set_number(10);
        self.send(
            net,
            carol,
            models,
            name("commit"),
            ModelRegistry::commitCall { commitment },
        );
        net.evm.set_number(12);
        let free = || ModelRegistry::Price {
            perCall: 1,
            perMtokIn: 0,
            perMtokOut: 0,
        };
        let reveal = ModelRegistry::revealCall {
            modelRoot: root,
            salt: B256::ZERO,
            name: "a/model".into(),
            uri: String::new(),
            royaltyBps: 100,
            price: free(),
        };
        self.send(net, carol, models, name("reveal"), reveal);
        let program = ModelRegistry::registerProgramCall {
            modelRoot: root,
            program: B256::repeat_byte(1),
            report: "{}".into(),
        };
        self.send(net, carol, models, name("registerProgram"), program);
        net.tick(3_600);
        let terms = ModelRegistry::setTermsCall {
            modelRoot: root,
            royaltyBps: 200,
            price: free(),
        };
        self.send(net, carol, models, name("setTerms"), terms);
        let (provider, host, model) = closed();
        let mark = ModelRegistry::markClosedCall { provider, host, model };
        self.send(net, carol, models, name("markClosed"), mark);
        let transfer = ModelRegistry::transferCreatorCall {
            modelRoot: root,
            to: who("alice"),
        };
        self.send(net, carol, models, name("transferCreator"), transfer);
    }

    fn receipts(&mut self, net: &mut Net) {
        let (ledger, vault) = (addresses::RECEIPT_LEDGER, addresses::FEE_VAULT);
        let authorization = |i| FeeVault::settleCall {
            authorizations: vec![
                Payment::new(
                    "alice",
                    common::deposit_address(file().nodes[0].node_id()),
                    1_000,
                    nonce(i),
                )
                .for_vault(file().nodes[0].node_id()),
            ],
        };
        for (i, what) in [(100, "first of a node"), (101, "")] {
            self.send(
                net,
                who("relayer"),
                vault,
                ("FeeVault", "settle", what),
                authorization(i),
            );
        }
        let to = net.deposit(0);
        let entries: Vec<BatchEntry> = (0..100)
            .map(|i| net.entry(0, 1_000 + i, "alice", nonce(1_000 + i), 1_000, 900))
            .collect();
        let one = net.entry(0, 1, "alice", nonce(100), 1_000, 900);
        for (batch, what) in [
            (&[one][..], "a settled receipt"),
            (&entries[..], "100 pending receipts"),
        ] {
            let done = net.record(batch).unwrap();
            let gas = done.iter().map(|tx| tx.gas_used).sum();
            self.rows.push(("ReceiptLedger", "record", what, gas));
        }
        let release = net.evm.timestamp() + 600;
        net.settle(&Payment::new("alice", to, 1_000, nonce(1_000))).unwrap();
        let credit = ReceiptLedger::creditSettledCall {
            entries: vec![pending(&entries[0], release)],
        };
        self.send(
            net,
            who("anyone"),
            ledger,
            ("ReceiptLedger", "creditSettled", "one receipt"),
            credit,
        );
        net.settle(&Payment::new("alice", to, 1_000, nonce(5_000))).unwrap();
        let (node, payer, id) = (net.nodes[0], who("alice"), nonce(5_000));
        let ask = ReceiptLedger::requestRefundCall {
            method: 0,
            nodeId: node,
            payer,
            nonce: id,
            amount: 1_000,
        };
        self.send(net, payer, ledger, ("ReceiptLedger", "requestRefund", ""), ask);
        net.tick(86_400);
        let refund = ReceiptLedger::refundCall {
            method: 0,
            nodeId: node,
            payer,
            nonce: id,
            amount: 1_000,
        };
        self.send(net, payer, ledger, ("ReceiptLedger", "refund", ""), refund);
        self.send(
            net,
            payer,
            vault,
            ("FeeVault", "sweep", ""),
            FeeVault::sweepCall { nodeId: node },
        );
        let withdraw = FeeVault::withdrawCall {
            payee: who("creator"),
            nodeId: node,
            max: U256::from(10),
        };
        self.send(net, payer, vault, ("FeeVault", "withdraw", ""), withdraw);
    }

    fn governance(&mut self, net: &mut Net) {
        let governor = addresses::GOVERNOR;
        let fund = who("ecosystem");
        net.evm
            .call(fund, addresses::OPG, OPG::delegateCall { delegatee: fund })
            .unwrap();
        net.tick(1);
        let windows = ReceiptLedger::setWindowsCall {
            windows: [1u64, 2, 3, 4].map(alloy_primitives::Uint::<40, 1>::from),
        };
        let lists = || {
            let data: Bytes = windows.abi_encode().into();
            (vec![addresses::RECEIPT_LEDGER], vec![U256::ZERO], vec![data])
        };
        let name = |function, what| ("Governor", function, what);
        let (targets, values, calldatas) = lists();
        let propose = Governor::proposeCall {
            targets,
            values,
            calldatas,
            description: "change".into(),
        };
        let id = U256::from_be_slice(&self.send(net, fund, governor, name("propose", "one call"), propose));
        net.tick(11);
        let vote = Governor::castVoteCall {
            proposalId: id,
            support: 1,
        };
        self.send(net, fund, governor, name("castVote", "first"), vote);
        net.tick(100);
        let (targets, values, calldatas) = lists();
        let queue = Governor::queueCall {
            targets,
            values,
            calldatas,
            descriptionHash: keccak256("change"),
        };
        self.send(net, fund, governor, name("queue", "one call"), queue);
        net.tick(50);
        let (targets, values, calldatas) = lists();
        let execute = Governor::executeCall {
            targets,
            values,
            calldatas,
            descriptionHash: keccak256("change"),
        };
        self.send(
            net,
            fund,
            governor,
            name("execute", "`ReceiptLedger.setWindows`"),
            execute,
        );
    }

    fn oracle(&mut self, net: &mut Net) {
        let oracle = addresses::PRICE_ORACLE;
        let domain = eip712_domain! {
            name: "OpenGradient PriceOracle",
            version: "1",
            chain_id: CHAIN_ID,
            verifying_contract: oracle,
        };
        for what in [
            "four feeds, the first ever",
            "four feeds and the end of the first round",
            "four feeds and the end of a round",
        ] {
            let round = net.evm.timestamp() / 60;
            let feeds = (0..4).map(|i| {
                let name = format!("system-{i}");
                let price = 250_000 + i;
                let digest = PriceFeed { round, price }.eip712_signing_hash(&domain);
                PriceOracle::Feed {
                    account: who(&name),
                    round,
                    price,
                    signature: sign(&key(&name), digest).to_vec().into(),
                }
            });
            let submit = PriceOracle::submitCall { feeds: feeds.collect() };
            self.send(net, who("anyone"), oracle, ("PriceOracle", "submit", what), submit);
            net.tick(60);
        }
        let poke = PriceOracle::pokeCall {};
        self.send(
            net,
            who("anyone"),
            oracle,
            ("PriceOracle", "poke", "closes a round of four"),
            poke,
        );
    }

    fn to_markdown(&self) -> String {
        let mut text = String::from(
            "# What operations cost\n\nGas of whole transactions, measured by `crates/genesis/tests/gas_table.rs` on the compiled contracts; the test fails if this file says\nsomething else. Checkpoints and BLS signatures have bars in `tests/checkpoint.rs` and `tests/bls.rs`; channels and Permit2 are in x402-contracts.md.\n`cargo xtask bench contracts` writes all of it, with whole batches, checkpoints and ends of epochs, to bench/results/contracts.json.\n\n| contract | function | case | gas |\n|---|---|---|---|\n",
        );
        for (contract, function, what, gas) in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {contract} | `{function}` | {what} | {gas} |");
        }
        text.push_str("\nNot measured here:\n\n| contract | functions | why |\n|---|---|---|\n");
        for (contract, functions, why) in ELSEWHERE.iter().chain(&INSIDE) {
            let list: Vec<_> = functions.split(' ').map(|name| format!("`{name}`")).collect();
            let _ = writeln!(text, "| {contract} | {} | {why} |", list.join(", "));
        }
        text
    }
}

fn measured() -> Table {
    let mut file = file();
    file.parameters = Parameters {
        governance: Some(Governance {
            voting_delay: 10,
            voting_period: 100,
            proposal_threshold: Amount(WEI_PER_OPG),
            quorum_bps: 400,
            timelock_delay: 50,
            guardian: None,
        }),
        ..file.parameters
    };
    let mut table = Table::default();
    let run: [fn(&mut Table, &mut Net); 5] = [
        Table::money,
        Table::registries,
        Table::receipts,
        Table::governance,
        Table::oracle,
    ];
    for part in run {
        // A network of its own for each, so that one part's changes do not change the others' figures.
        part(&mut table, &mut Net::of(&file));
    }
    table
}

#[test]
fn the_document_says_what_is_measured() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/specs/gas.md");
    let table = measured();
    for (contract, function, case, gas) in &table.rows {
        common::figure(format!("{contract}.{function} {case}").trim(), *gas, None);
    }
    let text = table.to_markdown();
    if std::env::var_os("OPG_WRITE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, text, "run it with OPG_WRITE_DOCS=1 and read the difference");
}

#[test]
fn every_function_has_its_cost_somewhere() {
    let table = measured();
    let mut known: BTreeSet<(String, String)> = table
        .rows
        .iter()
        .map(|(contract, function, ..)| ((*contract).into(), (*function).into()))
        .collect();
    for (contract, functions, _) in ELSEWHERE.iter().chain(&INSIDE) {
        known.extend(functions.split(' ').map(|name| ((*contract).into(), name.into())));
    }
    // Only the ledger may credit: it is a part of what recording costs.
    known.insert(("FeeVault".into(), "credit".into()));
    for contract in CONTRACTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../contracts/artifacts/{contract}.json"));
        let artifact: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        for item in artifact["abi"].as_array().unwrap() {
            let changes = matches!(item["stateMutability"].as_str(), Some("nonpayable" | "payable"));
            if item["type"] == "function" && changes {
                let name = item["name"].as_str().unwrap();
                assert!(
                    known.contains(&(contract.into(), name.into())),
                    "{contract}.{name} has no cost"
                );
            }
        }
    }
}
