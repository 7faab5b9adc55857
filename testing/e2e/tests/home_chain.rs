//! A network whose validators rotate, and a second chain with the id of Base: contracts deployed there from a plan, certificates relayed,
//! a receipt proved by the contract, and a payout paid, all by the command line. Forged certificates, false payouts and wrong code are refused.

use alloy::sol_types::{SolCall as _, SolError as _};
use alloy_primitives::{Address, B256, Bytes, U256};
use opg_client::{EvmChain, Wallet, submit_call};
use opg_contracts::{Checkpoint, HomeFeeVault, OPG as Token};
use opg_e2e::{CommandOutput, Network, OPG_START_TIMEOUT, Opg, PortLock, Rpc, fixtures, opg, port_base, wait_until};
use opg_receipt::{ReceiptFile, file::Finality};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const OPG: u128 = 1_000_000_000_000_000_000;
/// Blocks of an epoch: long enough for a deployment, short enough for a test.
const EPOCH_BLOCKS: u64 = 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("file")).expect("json")
}

fn parse<T: std::str::FromStr>(value: &Value) -> T
where
    T::Err: std::fmt::Debug,
{
    value.as_str().expect("text").parse().expect("value")
}

/// `opg home up`.
struct HomeChain {
    dir: PathBuf,
    user: PathBuf,
    base: u16,
    process: Option<Opg>,
    _ports: PortLock,
}

impl HomeChain {
    fn start(user: &Path) -> Self {
        let (base, ports) = port_base();
        let mut chain = Self {
            dir: user.join("base"),
            user: user.into(),
            base,
            process: None,
            _ports: ports,
        };
        chain.run();
        chain
    }

    fn run(&mut self) {
        let port = self.base.to_string();
        let arguments = ["home", "up", "--dir", text(&self.dir), "--port-base", &port];
        let mut process = Opg::start(&self.user.join("logs"), "home", &self.user, &arguments);
        let starts = process.output().matches("home chain ready").count() + 1;
        process.wait_for("home chain ready", starts, OPG_START_TIMEOUT);
        self.process = Some(process);
    }

    fn stop(&mut self) {
        assert!(self.process.take().expect("running").terminate().success());
    }

    fn rpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.base)
    }

    fn key(&self) -> PathBuf {
        self.dir.join("deployer.key")
    }
}

/// Code that a genesis can put anywhere: a vesting contract.
fn occupy(chain: &mut HomeChain, address: Address) {
    chain.stop();
    let path = chain.dir.join("genesis.json");
    let mut genesis = read_json(&path);
    genesis["vesting"] = json!([{
        "address": address, "beneficiary": Address::repeat_byte(0x42), "at_start": "0", "start": 1_800_000_000u64, "cliff": 0, "duration": 1,
    }]);
    let allocations = genesis["allocations"].as_array_mut().expect("allocations");
    let rest: u128 = parse(&allocations[0]["native"]);
    allocations[0]["native"] = json!((rest - 1).to_string());
    allocations.push(json!({ "label": "squatter", "address": address, "native": "0", "wrapped": "1" }));
    std::fs::write(&path, genesis.to_string()).expect("genesis");
    std::fs::remove_dir_all(chain.dir.join("validator-0/data")).expect("data");
    chain.run();
}

/// The old genesis and an empty chain again.
fn restore(chain: &mut HomeChain, genesis: &[u8]) {
    chain.stop();
    std::fs::write(chain.dir.join("genesis.json"), genesis).expect("genesis");
    std::fs::remove_dir_all(chain.dir.join("validator-0/data")).expect("data");
    chain.run();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_with_its_opg_on_another_chain() {
    let mut network = Network::start_edited(|genesis| genesis["parameters"]["epoch_blocks"] = json!(EPOCH_BLOCKS));
    let (user, dir) = (network.home().to_owned(), network.dir());
    let mut chain = HomeChain::start(&user);
    let (key, url) = (chain.key(), chain.rpc());
    let run =
        |arguments: &[&str]| -> CommandOutput { opg(&user, &[arguments, &["--dir", text(&dir), "--json"]].concat()) };
    let with_key = |arguments: &[&str]| run(&[arguments, &["--key", text(&key)]].concat());
    let ok = |arguments: &[&str]| with_key(arguments).expect_code(0).json();

    // No home chain yet.
    run(&["checkpoint", "show"]).expect_code(2);

    // --- a plan, looked at, refused, carried out
    let plan = user.join("plan.json");
    let write_plan = |edit: &dyn Fn(&mut Value)| {
        let mut value =
            json!({ "home": "base", "chain_id": 8453, "rpc": [url], "development_opg": true, "x402": true });
        edit(&mut value);
        std::fs::write(&plan, value.to_string()).expect("plan");
    };
    let deploy = ["deploy", "--home", "base", "--plan", text(&plan)];
    write_plan(&|plan| plan["development_opg"] = json!(false));
    let refused = with_key(&deploy).expect_code(2);
    assert!(
        refused
            .stderr
            .contains("has no OPG at 0xFbC2051AE2265686a469421b2C5A2D5462FbF5eB"),
        "{}",
        refused.stderr
    );
    write_plan(&|plan| plan["chain_id"] = json!(84532));
    with_key(&deploy).expect_code(2);
    write_plan(&|plan| plan["surprise"] = json!(1));
    with_key(&deploy).expect_code(2);
    write_plan(&|plan| plan["deployer"] = json!(Address::repeat_byte(9)));
    let refused = with_key(&deploy).expect_code(2);
    assert!(refused.stderr.contains("the plan's deployer is"), "{}", refused.stderr);
    write_plan(&|_| {});
    let dry = ok(&[&deploy[..], &["--dry-run"]].concat());
    assert_eq!(dry["missing"], 4, "{dry}");
    let home = Rpc::new(&chain.rpc());
    let step = |document: &Value, name: &str| -> Address {
        let steps = document["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["contract"] == name);
        parse(&step.unwrap_or_else(|| panic!("{name}: {document}"))["address"])
    };
    for step in dry["steps"].as_array().expect("steps") {
        assert!(
            step["standing"] == "missing" && step["gas"].as_u64().is_some_and(|gas| gas > 50_000),
            "{step}"
        );
        let code = home.call("eth_getCode", json!([step["address"], "latest"])).await;
        assert_eq!(code, "0x", "a dry run sends nothing");
    }
    assert!(read_json(&dir.join("network.json")).get("home").is_none());

    // Somebody else's code at one of the addresses: nothing is sent.
    let genesis = std::fs::read(chain.dir.join("genesis.json")).expect("genesis");
    let predicted = step(&dry, "Checkpoint");
    occupy(&mut chain, predicted);
    let refused = with_key(&deploy).expect_code(1);
    assert!(
        refused.stderr.contains(&format!("Checkpoint: {predicted}")) && refused.stderr.contains("has other code"),
        "{}",
        refused.stderr
    );
    let opg_code = home.call("eth_getCode", json!([step(&dry, "OPG"), "latest"])).await;
    assert_eq!(opg_code, "0x", "not even the contracts before it");
    restore(&mut chain, &genesis);

    // The deployer has no native coin on the network, where one contract goes: what was sent before that stays, and the next run goes on.
    let wallet = Wallet::load(&key).expect("key");
    let deployer = wallet.address().to_string();
    let stopped = with_key(&deploy).expect_code(1);
    assert!(
        stopped.stderr.contains("native coin on chain 10740"),
        "{}",
        stopped.stderr
    );
    assert!(
        read_json(&dir.join("network.json")).get("home").is_none(),
        "not before all of it is there"
    );
    run(&["faucet", &deployer, "--gas", "5"]).expect_code(0);
    let done = ok(&deploy);
    let sent: Vec<&Value> = done["sent"]
        .as_array()
        .expect("list")
        .iter()
        .map(|sent| &sent["contract"])
        .collect();
    assert_eq!(sent, ["Payouts", "HomeFeeVault"], "{done}");
    for name in ["OPG", "Checkpoint", "Payouts", "HomeFeeVault"] {
        assert_eq!(step(&done, name), step(&dry, name), "{name} is where the dry run said");
    }
    let entry = read_json(&dir.join("network.json"))["home"].clone();
    assert_eq!(
        (entry["chain_id"].as_u64(), &entry["contracts"]["opgDevelopment"]),
        (Some(8453), &json!(true))
    );
    assert_eq!(parse::<Address>(&entry["contracts"]["checkpoint"]), predicted);
    let permit2: Address = parse(&entry["contracts"]["x402"]["Permit2"]);
    assert_eq!(permit2, opg_contracts::addresses::PERMIT2, "used where it is");
    // A second run finds everything.
    let again = ok(&deploy);
    assert_eq!(
        (&again["missing"], again["sent"].as_array().map(Vec::len)),
        (&json!(0), Some(0)),
        "{again}"
    );
    // Another plan is another deployment, which must be asked for.
    write_plan(&|plan| plan["salt"] = json!(B256::repeat_byte(5)));
    let refused = with_key(&deploy).expect_code(1);
    assert!(refused.stderr.contains("--replace"), "{}", refused.stderr);
    write_plan(&|_| {});

    // --- an epoch later: hand-over and certificate are relayed
    let node = Rpc::new(network.rpc_urls()[0]);
    wait_until("second epoch", Duration::from_secs(180), async || {
        node.height().await > EPOCH_BLOCKS + 2
    })
    .await;
    let relayed = ok(&["checkpoint", "relay"]);
    let kinds: Vec<&str> = relayed["relayed"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|r| r["what"].as_str())
        .collect();
    assert!(
        kinds.contains(&"handover") && kinds.last() == Some(&"certificate"),
        "{relayed}"
    );
    let head = &relayed["checkpoint"];
    assert!(head["epoch"].as_u64() >= Some(1) && head["seats"] == 4, "{head}");
    let height = head["height"].as_u64().expect("height");
    let block = node
        .call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]))
        .await;
    assert_eq!(
        (&block["hash"], &block["stateRoot"]),
        (&head["block_hash"], &head["state_root"])
    );
    assert_eq!(run(&["checkpoint", "show"]).expect_code(0).json()["checkpoint"], *head);

    // --- a receipt is proved by the contract, and verified here from kept checkpoints
    let samples = read_json(&fixtures().join("digits/samples.json"));
    let receipts: Vec<PathBuf> = (0..2)
        .map(|i| {
            let file = user.join(format!("{i}.receipt.json"));
            let input = json!({ "X": [samples["inputs"][i]] }).to_string();
            let arguments = ["infer", "demo/digits-mlp", "--input", &input, "--receipt", text(&file)];
            run(&arguments).expect_code(0);
            file
        })
        .collect();
    for file in &receipts {
        let proved = ok(&["checkpoint", "prove", text(file)]);
        assert_eq!(proved["included"], true, "{proved}");
    }
    // The core of one receipt at the place of the other.
    let parsed = |file: &Path| ReceiptFile::parse_strict(&std::fs::read(file).expect("file")).expect("receipt file");
    let mut mixed = parsed(&receipts[0]);
    mixed.inclusion = parsed(&receipts[1]).inclusion;
    let mixed_file = user.join("mixed.receipt.json");
    std::fs::write(&mixed_file, mixed.to_bytes()).expect("file");
    let refused = with_key(&["checkpoint", "prove", text(&mixed_file)]).expect_code(1);
    assert_eq!(refused.json()["included"], false, "{}", refused.stderr);

    let verify = |file: &Path| {
        opg(
            &user,
            &[
                "receipt",
                "verify",
                text(file),
                "--dir",
                text(&dir),
                "--require",
                "none",
                "--json",
            ],
        )
    };
    let anchor = |report: &Value| -> String {
        let steps = report["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["name"] == "anchor").expect("anchor");
        step["detail"].as_str().expect("detail").to_owned()
    };
    let first = verify(&receipts[0]).expect_code(0).json();
    assert!(anchor(&first).contains("trusted genesis"), "{first}");
    let second = verify(&receipts[0]).expect_code(0).json();
    assert!(anchor(&second).contains("kept checkpoint"), "{second}");

    // --- forged certificates
    let urls = vec![chain.rpc()];
    let evm = EvmChain::connect(urls, 8453).await.expect("home chain");
    let checkpoint: Address = parse(&entry["contracts"]["checkpoint"]);
    let certificate = node.call("og_getCertificate", json!(["latest"])).await;
    let finality = |edit: &dyn Fn(&mut Value)| -> Finality {
        let mut value = json!({
            "header": certificate["header"], "envelopes": certificate["envelopes"],
            "proposal": certificate["proposal"], "certificate": certificate["certificate"],
        });
        edit(&mut value);
        serde_json::from_value(value).expect("certificate")
    };
    let good = submit_call(&finality(&|_| {}), 4).expect("certificate");
    let epoch = evm.view(checkpoint, Checkpoint::epochCall {}).await.expect("epoch");
    let ask = async |call: &Checkpoint::submitCall| -> Result<(), String> {
        let request = json!({ "to": checkpoint, "input": Bytes::from(call.abi_encode()) });
        let result = home.try_call("eth_call", json!([request, "latest"])).await;
        result.map(|_| ()).map_err(|error| error.to_string())
    };
    // The genuine one is taken, unless an epoch has just ended.
    let certified_epoch = u64::from(
        certificate["proposal"]
            .as_str()
            .map_or(0, |p| u8::from_str_radix(&p[2..4], 16).expect("hex")),
    );
    if certified_epoch == epoch {
        ask(&good).await.expect("the genuine certificate");
    }
    let selector = |selector: [u8; 4]| hex(&selector);
    let mut forged = good.clone();
    // A certificate by three that says four signed, and one by another three.
    forged.certified.signers = match forged.certified.signers == U256::from(0xf) {
        true => U256::from(0x7),
        false => U256::from(0xf),
    };
    let error = ask(&forged).await.expect_err("forged signers");
    if certified_epoch == epoch {
        assert!(
            error.contains(&selector(Checkpoint::InvalidSignature::SELECTOR)) || error.contains("InvalidSignature"),
            "{error}"
        );
    }
    let mut forged = good.clone();
    let mut header = forged.certified.header.to_vec();
    // A state root of the forger's.
    header[100] ^= 1;
    forged.certified.header = header.into();
    ask(&forged).await.expect_err("forged header");
    let mut forged = good.clone();
    forged.certified.signers = U256::from(0b11);
    ask(&forged).await.expect_err("too few");
    let before = evm.view(checkpoint, Checkpoint::headCall {}).await.expect("head");
    let sent = evm
        .send(&wallet, checkpoint, U256::ZERO, forged.abi_encode().into())
        .await;
    assert!(sent.is_err(), "nothing is sent that would revert");
    let after = evm.view(checkpoint, Checkpoint::headCall {}).await.expect("head");
    assert_eq!(before.height, after.height);

    // --- payouts: a quorum says the root, it is taken over under a certificate, and deposits of that node pay
    let node_id: B256 = parse(&network.file()["nodes"][0]["id"]);
    let (payee, mallory) = (Address::repeat_byte(0x77), Address::repeat_byte(0x66));
    let list = user.join("payouts.json");
    let entry_of =
        |payee: Address, wei: u128| json!({ "payee": payee, "node_id": node_id, "cumulative": wei.to_string() });
    std::fs::write(
        &list,
        json!([entry_of(payee, 3 * OPG), entry_of(Address::repeat_byte(0x78), OPG)]).to_string(),
    )
    .expect("list");
    let false_list = user.join("false.json");
    std::fs::write(&false_list, json!([entry_of(mallory, 3 * OPG)]).to_string()).expect("list");
    with_key(&["payout", "publish"]).expect_code(1);
    let operator = |i: usize| dir.join(format!("validator-{i}/operator.key"));
    let say = |i: usize, list: &Path| run(&["payout", "say", text(list), "--key", text(&operator(i))]);
    // A stranger, and one validator alone for a false list.
    with_key(&["payout", "say", text(&false_list)]).expect_code(1);
    say(3, &false_list).expect_code(0);
    for i in 0..3 {
        let roots = run(&["payout", "show"]).expect_code(0).json();
        assert_eq!(roots["number"], 0, "{i} of three said it: {roots}");
        say(i, &list).expect_code(0);
    }
    let roots = run(&["payout", "show"]).expect_code(0).json();
    assert_eq!(
        (&roots["number"], parse::<B256>(&roots["vault"])),
        (&json!(1), B256::ZERO),
        "{roots}"
    );
    let claim = |list: &Path, payee: Address| {
        let (payee, id) = (payee.to_string(), node_id.to_string());
        with_key(&["payout", "claim", text(list), "--payee", &payee, "--node", &id])
    };
    // Not before the vault has the root, and not by the false list.
    claim(&list, payee).expect_code(1);
    let published = ok(&["payout", "publish"]);
    assert_eq!(published["root"], roots["network"]);
    assert!(ok(&["payout", "publish"])["transaction"].is_null(), "once");
    claim(&false_list, mallory).expect_code(1);
    let vault: Address = parse(&entry["contracts"]["feeVault"]);
    let stolen = HomeFeeVault::claimCall {
        leaf: HomeFeeVault::Leaf {
            payee: mallory,
            nodeId: node_id,
            cumulative: U256::from(3 * OPG),
        },
        proof: Vec::new(),
    };
    assert!(
        evm.send(&wallet, vault, U256::ZERO, stolen.abi_encode().into())
            .await
            .is_err()
    );
    // Two OPG are paid to the node: the payee gets two now, and the third when there is more.
    let token: Address = parse(&entry["contracts"]["opg"]);
    let deposit = evm
        .view(vault, HomeFeeVault::depositAddressOfCall { nodeId: node_id })
        .await
        .expect("address");
    let pay = async |wei: u128| {
        let wrap = Token::depositCall {}.abi_encode().into();
        evm.send(&wallet, token, U256::from(wei), wrap).await.expect("wrapped");
        let transfer = Token::transferCall {
            to: deposit,
            value: U256::from(wei),
        };
        evm.send(&wallet, token, U256::ZERO, transfer.abi_encode().into())
            .await
            .expect("paid");
    };
    let paid = |output: CommandOutput| parse::<u128>(&output.expect_code(0).json()["paid"]);
    pay(2 * OPG).await;
    assert_eq!(paid(claim(&list, payee)), 2 * OPG);
    assert_eq!(paid(claim(&list, payee)), 0, "nothing twice");
    pay(5 * OPG).await;
    assert_eq!(paid(claim(&list, payee)), OPG, "the rest of what is owed, no more");
    let held = evm
        .view(token, Token::balanceOfCall { account: payee })
        .await
        .expect("balance");
    assert_eq!(held, U256::from(3 * OPG));

    // The network's next start writes its description anew, and keeps what was deployed.
    assert!(network.stop().success());
    network.run();
    assert_eq!(network.file()["home"], entry);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
