//! A thousand copies of one payment header, at once, through two gateway processes in front of one node: one execution, one charge and
//! no transaction that reverts, for every scheme. And a second process of the same node, which must not start.
//!
//! Headers are signed by an EIP-712 implementation that is not ours.

use alloy::{
    network::EthereumWallet,
    primitives::{Address, B256, U256, aliases::U40, keccak256},
    providers::ProviderBuilder,
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol,
    sol_types::{Eip712Domain, SolStruct, SolValue as _, eip712_domain},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, future::join_all, stream};
use opg_contracts::addresses;
use opg_e2e::{Network, Opg, Rpc, abi::OPG, wait_until};
use reqwest::Client;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const PATIENCE: Duration = Duration::from_secs(60);
const PATH: &str = "/v1/infer";
const COPIES: usize = 1000;
/// Copies of a header whose channel has to be opened first; each asks the chain several times.
const DEPOSIT_COPIES: usize = 100;
const DEPOSIT: u128 = 50_000_000_000_000_000;

sol! {
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }

    struct ReceiveWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }

    struct TokenPermissions {
        address token;
        uint256 amount;
    }

    struct Witness {
        address to;
        address facilitator;
        uint256 validAfter;
    }

    struct PermitWitnessTransferFrom {
        TokenPermissions permitted;
        address spender;
        uint256 nonce;
        uint256 deadline;
        Witness witness;
    }

    struct ChannelConfig {
        address payer;
        address payerAuthorizer;
        address receiver;
        address receiverAuthorizer;
        address token;
        uint40 withdrawDelay;
        bytes32 salt;
    }

    struct Voucher {
        bytes32 channelId;
        uint128 maxClaimableAmount;
    }
}

/// The permit of scheme exact: its witness names no facilitator.
mod exact_permit {
    alloy::sol! {
        struct TokenPermissions {
            address token;
            uint256 amount;
        }

        struct Witness {
            address to;
            uint256 validAfter;
        }

        struct PermitWitnessTransferFrom {
            TokenPermissions permitted;
            address spender;
            uint256 nonce;
            uint256 deadline;
            Witness witness;
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_secs()
}

fn opg_domain() -> Eip712Domain {
    eip712_domain! { name: "OpenGradient", version: "1", chain_id: 10_740, verifying_contract: addresses::OPG, }
}

fn channel_domain() -> Eip712Domain {
    eip712_domain! {
        name: "x402 Batch Settlement", version: "1", chain_id: 10_740, verifying_contract: addresses::BATCH_SETTLEMENT,
    }
}

fn address(value: &Value) -> Address {
    value.as_str().expect("address").parse().expect("address")
}

fn wei(value: &Value) -> u128 {
    value.as_str().expect("amount").parse().expect("amount")
}

/// Two gateway processes of strangers, a payer, and what the chain and the node say about it.
struct World {
    network: Network,
    rpc: Rpc,
    gateways: Vec<(Opg, String)>,
    _ports: opg_e2e::PortLock,
    http: Client,
    signer: PrivateKeySigner,
    body: Value,
}

/// What became of all copies.
struct Outcome {
    /// Receipts of copies that were answered.
    served: Vec<String>,
    /// Refusals by code.
    refused: BTreeMap<String, usize>,
    /// Copies that were told to come again, all of which did.
    again: usize,
}

impl World {
    async fn start() -> Self {
        let network = Network::start();
        let rpc = Rpc::new(network.rpc_urls()[0]);
        let (base, ports) = opg_e2e::port_base();
        let home = network.home();
        let urls: Vec<String> = network.rpc_urls().into_iter().map(|url| format!("\"{url}\"")).collect();
        let genesis = network.dir().join("genesis.json");
        let mut gateways = Vec::new();
        for n in 0..2 {
            let (port, config) = (base + n, home.join(format!("router-{n}.toml")));
            let settings = format!(
                "listen = \"127.0.0.1:{port}\"\nchain_id = 10740\nrpc = [{}]\ngenesis = \"{}\"\nprivate_endpoints = true\n[limits]\nrequests_per_minute = 10000000\n",
                urls.join(", "),
                text(&genesis)
            );
            std::fs::write(&config, settings).expect("config");
            let name = format!("router-{n}");
            let arguments = ["node", "router", "--config", text(&config)];
            let mut router = Opg::start(&home.join("logs"), &name, home, &arguments);
            router.wait_for("router ready", 1, PATIENCE);
            gateways.push((router, format!("http://127.0.0.1:{port}")));
        }
        let world = Self {
            rpc,
            gateways,
            _ports: ports,
            http: Client::builder().no_proxy().timeout(PATIENCE).build().expect("client"),
            signer: network.demo_key().parse().expect("key"),
            body: json!({"model": "demo/digits-mlp", "inputs": {"X": [vec![0; 64]]}}),
            network,
        };
        for (_, url) in &world.gateways {
            wait_until("the router knows the node", PATIENCE, async || {
                let health = world.http.get(format!("{url}/health")).send().await;
                health.is_ok_and(|health| health.status().is_success())
            })
            .await;
        }
        world
    }

    /// What the node asks for the request, through the first gateway.
    async fn offer(&self) -> Value {
        let answer = self.http.post(format!("{}{PATH}", self.gateways[0].1)).json(&self.body);
        let answer = answer.send().await.expect("402");
        assert_eq!(answer.status(), 402);
        let header = answer.headers()["payment-required"].as_bytes();
        serde_json::from_slice(&STANDARD.decode(header).expect("base64")).expect("json")
    }

    async fn way(&self, scheme: &str) -> (Value, Value) {
        self.way_by(scheme, scheme == "upto").await
    }

    async fn way_by(&self, scheme: &str, permit2: bool) -> (Value, Value) {
        let offer = self.offer().await;
        let mut ways = offer["accepts"].as_array().expect("accepts").iter();
        let way = ways
            .find(|way| way["scheme"] == scheme && (way["extra"]["assetTransferMethod"] == "permit2") == permit2)
            .unwrap_or_else(|| panic!("no {scheme} in {offer}"))
            .clone();
        (offer["resource"].clone(), way)
    }

    fn sign(&self, message: &impl SolStruct, domain: &Eip712Domain) -> String {
        let hash = message.eip712_signing_hash(domain);
        let signature = self.signer.sign_hash_sync(&hash).expect("signature");
        format!("0x{}", hex::encode(signature.as_bytes()))
    }

    fn header((resource, accepted): (Value, Value), payload: Value) -> String {
        let payment = json!({"x402Version": 2, "resource": resource, "accepted": accepted, "payload": payload});
        STANDARD.encode(payment.to_string())
    }

    async fn exact(&self) -> String {
        let way = self.way("exact").await;
        let message = TransferWithAuthorization {
            from: self.signer.address(),
            to: address(&way.1["payTo"]),
            value: U256::from(wei(&way.1["amount"])),
            validAfter: U256::ZERO,
            validBefore: U256::from(now() + 300),
            nonce: B256::random(),
        };
        let payload = json!({
            "signature": self.sign(&message, &opg_domain()),
            "authorization": {
                "from": message.from, "to": message.to, "value": message.value.to_string(),
                "validAfter": "0", "validBefore": message.validBefore.to_string(), "nonce": message.nonce,
            },
        });
        Self::header(way, payload)
    }

    async fn exact_by_permit(&self) -> String {
        let way = self.way_by("exact", true).await;
        let message = exact_permit::PermitWitnessTransferFrom {
            permitted: exact_permit::TokenPermissions {
                token: address(&way.1["asset"]),
                amount: U256::from(wei(&way.1["amount"])),
            },
            spender: addresses::EXACT_PERMIT2_PROXY,
            nonce: U256::from_be_bytes(B256::random().0),
            deadline: U256::from(now() + 300),
            witness: exact_permit::Witness {
                to: address(&way.1["payTo"]),
                validAfter: U256::ZERO,
            },
        };
        let domain = eip712_domain! { name: "Permit2", chain_id: 10_740, verifying_contract: addresses::PERMIT2, };
        let payload = json!({
            "signature": self.sign(&message, &domain),
            "permit2Authorization": {
                "permitted": {"token": message.permitted.token, "amount": message.permitted.amount.to_string()},
                "from": self.signer.address(), "spender": message.spender, "nonce": message.nonce.to_string(),
                "deadline": message.deadline.to_string(), "witness": {"to": message.witness.to, "validAfter": "0"},
            },
        });
        Self::header(way, payload)
    }

    async fn upto(&self) -> String {
        let way = self.way("upto").await;
        let message = PermitWitnessTransferFrom {
            permitted: TokenPermissions {
                token: address(&way.1["asset"]),
                amount: U256::from(wei(&way.1["amount"])),
            },
            spender: addresses::UPTO_PERMIT2_PROXY,
            nonce: U256::from_be_bytes(B256::random().0),
            deadline: U256::from(now() + 300),
            witness: Witness {
                to: address(&way.1["payTo"]),
                facilitator: address(&way.1["extra"]["facilitatorAddress"]),
                validAfter: U256::ZERO,
            },
        };
        let domain = eip712_domain! { name: "Permit2", chain_id: 10_740, verifying_contract: addresses::PERMIT2, };
        let payload = json!({
            "signature": self.sign(&message, &domain),
            "permit2Authorization": {
                "permitted": {"token": message.permitted.token, "amount": message.permitted.amount.to_string()},
                "from": self.signer.address(), "spender": message.spender, "nonce": message.nonce.to_string(),
                "deadline": message.deadline.to_string(),
                "witness": {"to": message.witness.to, "facilitator": message.witness.facilitator, "validAfter": "0"},
            },
        });
        Self::header(way, payload)
    }

    /// A call out of a channel whose reported charges are `charged`, with the deposit that opens it if `open`.
    async fn channel(&self, salt: B256, charged: u128, open: bool) -> String {
        let way = self.way("batch-settlement").await;
        let extra = &way.1["extra"];
        let payer = self.signer.address();
        let config = ChannelConfig {
            payer,
            payerAuthorizer: payer,
            receiver: address(&way.1["payTo"]),
            receiverAuthorizer: address(&extra["receiverAuthorizer"]),
            token: address(&way.1["asset"]),
            withdrawDelay: U40::from(extra["withdrawDelay"].as_u64().expect("delay")),
            salt,
        };
        let voucher = Voucher {
            channelId: config.eip712_signing_hash(&channel_domain()),
            maxClaimableAmount: charged + wei(&way.1["amount"]),
        };
        let mut payload = json!({
            "type": "voucher",
            "channelConfig": {
                "payer": payer, "payerAuthorizer": payer, "receiver": config.receiver,
                "receiverAuthorizer": config.receiverAuthorizer, "token": config.token,
                "withdrawDelay": config.withdrawDelay.to::<u64>(), "salt": salt,
            },
            "voucher": {
                "channelId": voucher.channelId, "maxClaimableAmount": voucher.maxClaimableAmount.to_string(),
                "signature": self.sign(&voucher, &channel_domain()),
            },
        });
        if open {
            let deposit_salt = B256::random();
            let message = ReceiveWithAuthorization {
                from: payer,
                to: addresses::ERC3009_DEPOSIT_COLLECTOR,
                value: U256::from(DEPOSIT),
                validAfter: U256::ZERO,
                validBefore: U256::from(now() + 300),
                nonce: keccak256((voucher.channelId, deposit_salt).abi_encode()),
            };
            payload["type"] = json!("deposit");
            payload["deposit"] = json!({
                "amount": DEPOSIT.to_string(),
                "authorization": {"erc3009Authorization": {
                    "validAfter": "0", "validBefore": message.validBefore.to_string(), "salt": deposit_salt,
                    "signature": self.sign(&message, &opg_domain()),
                }},
            });
        }
        Self::header(way, payload)
    }

    /// Sends `copies` of a header at once, half of them through each gateway, until each has a final answer.
    async fn replay(&self, header: &str, copies: usize) -> Outcome {
        let answers = stream::iter(0..copies)
            .map(|n| self.one(header, &self.gateways[n % 2].1))
            .buffer_unordered(copies)
            .collect::<Vec<_>>()
            .await;
        let mut outcome = Outcome {
            served: Vec::new(),
            refused: BTreeMap::new(),
            again: 0,
        };
        for (answer, again) in answers {
            outcome.again += again;
            match answer {
                Ok(receipt) => outcome.served.push(receipt),
                Err(code) => *outcome.refused.entry(code).or_default() += 1,
            }
        }
        eprintln!(
            "{copies} copies: {} served, refused {:?}, {} asked to come again",
            outcome.served.len(),
            outcome.refused,
            outcome.again
        );
        outcome
    }

    async fn one(&self, header: &str, gateway: &str) -> (Result<String, String>, usize) {
        let mut again = 0;
        loop {
            let request = self.http.post(format!("{gateway}{PATH}")).json(&self.body);
            let answer = request
                .header("payment-signature", header)
                .send()
                .await
                .expect("an answer");
            let status = answer.status().as_u16();
            if status == 200 {
                let id = answer.headers()["x-opg-receipt-id"].to_str().expect("text");
                return (Ok(id.to_owned()), again);
            }
            // Too many at once, or a deposit that is not in a block yet: nothing was decided about this copy.
            if status == 503 {
                again += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            let error: Value = answer.json().await.expect("json error");
            assert_eq!(status, 402, "{error}");
            let code = error["error"]["code"].as_str().expect("code");
            return (Err(code.to_owned()), again);
        }
    }

    async fn balance(&self) -> u128 {
        let provider = ProviderBuilder::new().connect_http(self.network.rpc_urls()[0].parse().expect("url"));
        let opg = OPG::new(addresses::OPG, &provider);
        opg.balanceOf(self.signer.address()).call().await.expect("balance").to()
    }

    /// Calls that the node has executed.
    async fn executed(&self) -> u64 {
        let url = format!("{}/metrics", self.network.node_url());
        let metrics = self
            .http
            .get(url)
            .send()
            .await
            .expect("metrics")
            .text()
            .await
            .expect("text");
        let line = metrics
            .lines()
            .find(|line| line.starts_with("opg_inference_receipts_total{state=\"executed\"}"));
        line.map_or(0, |line| {
            line.rsplit(' ').next().expect("value").parse().expect("number")
        })
    }

    /// The receipt is final and its payment settled: what the chain says it charged.
    async fn settled(&self, id: &str) -> u128 {
        wait_until(&format!("{id} is credited"), PATIENCE, async || {
            let found = self.rpc.try_call("og_getReceipt", json!([id])).await;
            found.is_ok_and(|found| found["payment"]["credited"] == true)
        })
        .await;
        wei(&self.rpc.call("og_getReceipt", json!([id])).await["payment"]["charge"])
    }

    /// What a call on a channel costs, as the chain has recorded it; it is claimed later.
    async fn recorded(&self, id: &str) -> u128 {
        wait_until(&format!("{id} is recorded"), PATIENCE, async || {
            let found = self.rpc.try_call("og_getReceipt", json!([id])).await;
            found.is_ok_and(|found| found["payment"]["charge"].is_string())
        })
        .await;
        wei(&self.rpc.call("og_getReceipt", json!([id])).await["payment"]["charge"])
    }

    /// Transactions to `to` since block `from`.
    async fn sent_to(&self, from: u64, to: Address) -> usize {
        let mut count = 0;
        for height in from..=self.rpc.height().await {
            let (.., receipts) = self.rpc.fingerprint(height).await;
            let receipts = receipts.as_array().expect("receipts");
            count += receipts.iter().filter(|receipt| address(&receipt["to"]) == to).count();
        }
        count
    }

    /// Every transaction since block `from` has succeeded; their number.
    async fn all_succeeded(&self, from: u64) -> usize {
        let mut count = 0;
        for height in from..=self.rpc.height().await {
            let (.., receipts) = self.rpc.fingerprint(height).await;
            for receipt in receipts.as_array().expect("receipts") {
                assert_eq!(receipt["status"], "0x1", "a transaction reverted: {receipt}");
                count += 1;
            }
        }
        count
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_copies_through_two_processes_buy_one_run() {
    let world = World::start().await;
    let provider = ProviderBuilder::new()
        .wallet(EthereumWallet::from(world.signer.clone()))
        .connect_http(world.network.rpc_urls()[0].parse().expect("url"));
    let approved = OPG::new(addresses::OPG, &provider)
        .approve(addresses::PERMIT2, U256::MAX)
        .send()
        .await;
    assert!(approved.expect("sent").get_receipt().await.expect("mined").status());
    let from = world.rpc.height().await;

    // one payment of its own: by authorization the bound is taken, by permit the charge
    for scheme in ["exact", "upto"] {
        let (before, runs) = (world.balance().await, world.executed().await);
        let header = match scheme {
            "exact" => world.exact().await,
            _ => world.upto().await,
        };
        let bound = wei(&world.way(scheme).await.1["amount"]);
        let outcome = world.replay(&header, COPIES).await;
        assert_eq!(outcome.served.len(), 1, "{scheme}: exactly one copy is answered");
        assert_eq!(
            outcome.refused.keys().collect::<Vec<_>>(),
            ["payment_replayed"],
            "{scheme}"
        );
        assert_eq!(world.executed().await - runs, 1, "{scheme}: exactly one execution");
        let charge = world.settled(&outcome.served[0]).await;
        let taken = if scheme == "upto" { charge } else { bound };
        assert!(charge > 0 && charge <= bound);
        assert_eq!(before - world.balance().await, taken, "{scheme}: charged once");
        // long after it was settled
        let late = world.replay(&header, 20).await;
        assert!(late.served.is_empty(), "{scheme}");
    }

    // permits of scheme exact that come together are settled together
    let before = world.balance().await;
    let start = world.rpc.height().await;
    let bound = wei(&world.way_by("exact", true).await.1["amount"]);
    let mut headers = Vec::new();
    for _ in 0..6 {
        headers.push(world.exact_by_permit().await);
    }
    let answers = join_all(headers.iter().map(|header| world.one(header, &world.gateways[0].1))).await;
    for (answer, _) in &answers {
        world.settled(answer.as_ref().expect("answered")).await;
    }
    assert_eq!(before - world.balance().await, 6 * bound, "each is charged once");
    let together = world.sent_to(start, addresses::MULTICALL3).await;
    let alone = world.sent_to(start, addresses::EXACT_PERMIT2_PROXY).await;
    assert!(
        together > 0 && together + alone < 6,
        "{together} together, {alone} alone"
    );

    // a channel: the header that opens it, then a voucher
    let salt = B256::random();
    let (before, runs) = (world.balance().await, world.executed().await);
    let mut charged = 0;
    for (header, copies) in [(true, DEPOSIT_COPIES), (false, COPIES)] {
        let header = world.channel(salt, charged, header).await;
        let outcome = world.replay(&header, copies).await;
        assert_eq!(outcome.served.len(), 1, "exactly one copy is answered");
        let known = ["channel_busy", "channel_out_of_step", "deposit_refused"];
        assert!(
            outcome.refused.keys().all(|code| known.contains(&code.as_str())),
            "{:?}",
            outcome.refused
        );
        charged += world.recorded(&outcome.served[0]).await;
        assert_eq!(before - world.balance().await, DEPOSIT, "one deposit");
    }
    assert_eq!(world.executed().await - runs, 2, "one execution of each header");
    let transactions = world.all_succeeded(from).await;
    eprintln!("{transactions} transactions, none reverted");
}

/// Neither on the same data folder nor, with the same keys, on another: what guards a payment is one journal.
#[test]
fn a_second_process_of_the_same_node_does_not_start() {
    let network = Network::start();
    let (home, dir) = (network.home(), network.dir());
    let config = std::fs::read_to_string(dir.join("inference/config.toml")).expect("config");
    let (port, _lock) = opg_e2e::port_base();
    let mut other = String::new();
    for line in config.lines() {
        if line.starts_with("listen =") {
            other += &format!("listen = \"127.0.0.1:{port}\"\n");
        } else {
            other += &format!("{line}\n");
        }
    }
    let second = dir.join("inference/second.toml");
    let start = |text_of: &str| {
        std::fs::write(&second, text_of).expect("config");
        opg_e2e::opg(home, &["node", "inference", "--config", text(&second)])
    };
    let same = start(&other);
    assert_ne!(same.code(), 0);
    let said = format!("{}{}", same.stdout, same.stderr);
    assert!(said.contains("another process"), "{said}");
    // with a journal of its own it would know nothing of what the first one has served
    let line = config
        .lines()
        .find(|line| line.starts_with("data_dir ="))
        .expect("data_dir");
    let apart = start(&other.replace(line, "data_dir = \"elsewhere\""));
    assert_ne!(apart.code(), 0);
    let said = format!("{}{}", apart.stdout, apart.stderr);
    assert!(said.contains("another process serves with this key file"), "{said}");
    assert!(
        !dir.join("inference/elsewhere/journal.redb").exists(),
        "nothing was written"
    );
}
