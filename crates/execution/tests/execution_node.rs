//! A node on a real RocksDB folder, driven as consensus drives it. The genesis is a small one with
//! the system contracts of Osaka, funded accounts, and at `0x…0900` a contract that stores
//! `key → word` when called with 64 bytes by caller == tx.origin == coinbase.

mod support;

use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use alloy_rlp::Decodable as _;
use opg_contracts::state::StateReader;
use opg_execution::{BuildRequest, Execution, ExecutionError, PoolRejection};
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc, time::Duration};
use support::{BEACON_ROOTS, LEDGER, Wallet, genesis, open, word};

/// A block with one system transaction that stores `value` at `key`.
fn system_request(
    node: &Execution,
    leader: &Wallet,
    parent: B256,
    timestamp: u64,
    key: u64,
    value: u64,
) -> BuildRequest {
    let data = [word(key), word(value)].concat();
    let nonce = node.nonce_at(parent, leader.address).unwrap();
    let fee = node.base_fee_next(parent).unwrap();
    let system = leader.call(LEDGER, data, nonce, fee, 0, 200_000);
    BuildRequest {
        system_txs: vec![system],
        ..BuildRequest::new(parent, timestamp, leader.address, B256::with_last_byte(7))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_built_imported_elsewhere_finalized_and_kept() {
    let (dirs, [one, two]) = (tempfile::tempdir().unwrap(), [0, 1]);
    let (folder_one, folder_two) = (dirs.path().join("1"), dirs.path().join("2"));
    let builder = open(&folder_one).await;
    let follower = open(&folder_two).await;
    assert_eq!(builder.genesis_hash(), follower.genesis_hash());
    let leaders = [one, two].map(Wallet::validator);
    let user = Wallet::rich();
    let mut news = follower.subscribe_finalized();
    let target = address!("00000000000000000000000000000000000000aa");

    let mut parent = builder.genesis_hash();
    let mut blocks = Vec::new();
    for height in 1..=6u64 {
        let leader = &leaders[height as usize % 2];
        let nonce = builder.nonce_at(parent, user.address).unwrap();
        let sent = builder
            .add_transaction(user.transfer(target, height, nonce, 2_000_000_000, 10))
            .await;
        let request = system_request(&builder, leader, parent, height, height, 100 + height);
        let expected_fee = builder.base_fee_next(parent).unwrap();
        let built = builder.build(request).await.unwrap();
        assert_eq!(
            (built.number, built.transactions, built.parent_hash),
            (height, 2, parent)
        );
        assert!(built.system_gas > 21_000 && built.system_gas + 21_000 == built.gas_used);
        assert_eq!(keccak256(&built.header_rlp), built.hash);

        // an independent decoder agrees on the header
        let header = alloy_consensus::Header::decode(&mut built.header_rlp.as_ref()).unwrap();
        assert_eq!(header.hash_slow(), built.hash);
        assert_eq!(header.base_fee_per_gas, Some(expected_fee));
        assert_eq!(header.parent_beacon_block_root, Some(B256::with_last_byte(7)));
        assert_eq!((header.mix_hash, header.beneficiary), (parent, leader.address));

        // the other node executes it, twice without effect
        let block = Execution::decode(&built.rlp).unwrap();
        assert_eq!(block.sender(0).unwrap(), leader.address);
        assert_eq!(block.sender(1).unwrap(), user.address);
        assert_eq!(block.transaction_hash(1), Some(sent.unwrap()));
        follower.import(block.clone()).await.unwrap();
        follower.import(block.clone()).await.unwrap();
        assert_eq!(
            follower
                .state_at(built.hash)
                .unwrap()
                .storage(LEDGER, U256::from(height))
                .unwrap(),
            U256::from(100 + height)
        );
        for node in [&builder, &follower] {
            assert_eq!(node.receipts_status(built.hash).await.unwrap(), [true, true]);
            assert_eq!(node.head().number, height - 1, "not final yet");
            node.finalize(built.hash).await.unwrap();
            node.finalize(built.hash).await.unwrap();
            assert_eq!((node.head().number, node.head().hash), (height, built.hash));
        }
        assert_eq!(builder.pool_size(), 0);
        let told = news.recv().await.unwrap();
        assert_eq!(told.block.hash(), built.hash);
        assert_eq!(told.header["hash"], json!(built.hash));
        assert_eq!(told.header["number"], json!(format!("{height:#x}")));
        assert_eq!(told.receipts.len(), 2);
        assert!(told.receipts.iter().all(|receipt| receipt.success));
        assert_eq!(told.receipts[1].gas_used, 21_000);
        parent = built.hash;
        blocks.push(built);
    }
    assert!(news.try_recv().is_err(), "each block is told once");
    let known = follower
        .transaction(user_hash(&builder, &blocks[2].hash).await)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(known.location.map(|at| (at.block_number, at.index)), Some((3, 1)));
    assert_eq!(follower.balance_at(parent, target).unwrap(), U256::from(21));
    assert_eq!(follower.block_rlp(4).await.unwrap(), Some(blocks[3].rlp.clone()));
    assert_eq!(
        follower.header_rlp(blocks[4].hash).await.unwrap(),
        Some(blocks[4].header_rlp.clone())
    );
    assert_eq!(follower.block(99).await.unwrap().map(|b| b.hash()), None);

    // orderly stop: all is there again
    builder.shutdown().await.unwrap();
    drop(builder);
    let builder = open(&folder_one).await;
    assert_eq!((builder.head().number, builder.head().hash), (6, parent));
    assert!(builder.has_state(parent).unwrap());
    assert_eq!(
        builder
            .state_at(parent)
            .unwrap()
            .storage(LEDGER, U256::from(6))
            .unwrap(),
        U256::from(106)
    );
    assert_eq!(builder.receipts_status(parent).await.unwrap(), [true, true]);

    // a crash: whatever is missing is delivered again, and what is there does no harm
    drop(follower);
    let follower = open(&folder_two).await;
    assert!(follower.head().number <= 6);
    for block in &blocks {
        follower.import(Execution::decode(&block.rlp).unwrap()).await.unwrap();
        follower.finalize(block.hash).await.unwrap();
    }
    assert_eq!((follower.head().number, follower.head().hash), (6, parent));
    assert_eq!(
        follower
            .state_at(parent)
            .unwrap()
            .storage(LEDGER, U256::from(1))
            .unwrap(),
        U256::from(101)
    );
}

async fn user_hash(node: &Execution, block: &B256) -> B256 {
    node.receipts(*block).await.unwrap()[1].transaction_hash
}

#[tokio::test(flavor = "multi_thread")]
async fn state_older_than_the_disk_is_replayed() {
    // the client writes state to disk when it is 128 blocks deep: this is deeper
    let dir = tempfile::tempdir().unwrap();
    let leader = Wallet::validator(0);
    let node = open(dir.path()).await;
    let mut parent = node.genesis_hash();
    for height in 1..=150 {
        let built = node
            .build(system_request(&node, &leader, parent, height, height, height))
            .await
            .unwrap();
        node.finalize(built.hash).await.unwrap();
        parent = built.hash;
    }
    node.shutdown().await.unwrap();
    drop(node);
    for _ in 0..2 {
        let node = open(dir.path()).await;
        assert_eq!(node.head().hash, parent);
        assert_eq!(
            node.state_at(parent).unwrap().storage(LEDGER, U256::from(1)).unwrap(),
            U256::from(1)
        );
        assert_eq!(node.nonce_at(parent, leader.address).unwrap(), 150);
        assert_eq!(node.receipts_status(parent).await.unwrap(), [true]);
        let head = node.head();
        let request = system_request(&node, &leader, parent, head.timestamp + 1, 1, 2);
        let next = node.build(request).await.unwrap();
        assert_eq!(next.number, 151);
        // dropped without an orderly stop, and the block above never became final
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_transaction_that_fails_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path()).await;
    let leader = Wallet::validator(0);
    let parent = node.genesis_hash();
    let fee = node.base_fee_next(parent).unwrap();
    let good = leader.call(LEDGER, [word(1), word(2)].concat(), 0, fee, 0, 200_000);
    let reverting = leader.call(BEACON_ROOTS, word(12_345).to_vec(), 1, fee, 0, 200_000);
    let wrong_nonce = leader.call(LEDGER, Vec::new(), 5, fee, 0, 200_000);
    let too_much_gas = leader.call(LEDGER, Vec::new(), 1, fee, 0, node.gas_limit());
    let starved = leader.call(LEDGER, [word(9), word(3)].concat(), 1, fee, 0, 30_000);
    let garbage = Bytes::from_static(&[0x02, 0xff]);
    for bad in [reverting, wrong_nonce, too_much_gas, starved, garbage] {
        let mut request = BuildRequest::new(parent, 1, leader.address, B256::ZERO);
        request.system_txs = vec![good.clone(), bad];
        let error = node.build(request).await.unwrap_err();
        assert!(
            matches!(error, ExecutionError::SystemTransaction { index: 1, .. }),
            "{error}"
        );
    }
    let mut request = BuildRequest::new(parent, 0, leader.address, B256::ZERO);
    let error = node.build(request.clone()).await.unwrap_err();
    assert!(
        matches!(error, ExecutionError::Timestamp { parent: 0, got: 0 }),
        "{error}"
    );
    request.timestamp = 1;
    request.parent = B256::repeat_byte(9);
    let error = node.build(request.clone()).await.unwrap_err();
    assert!(
        matches!(error, ExecutionError::UnknownBlock(hash) if hash == request.parent),
        "{error}"
    );

    // none of this left a trace
    request.parent = parent;
    request.system_txs = vec![good];
    let built = node.build(request).await.unwrap();
    assert_eq!(node.receipts_status(built.hash).await.unwrap(), [true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mempool_fills_blocks_by_tip_without_excluded_senders() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path()).await;
    let [rich, v1, v2, leader] = [
        Wallet::rich(),
        Wallet::validator(1),
        Wallet::validator(2),
        Wallet::validator(0),
    ];
    let to = address!("00000000000000000000000000000000000000bb");
    let price = 3_000_000_000;
    let low = node.add_transaction(rich.transfer(to, 1, 0, price, 5)).await.unwrap();
    let after_low = node.add_transaction(rich.transfer(to, 1, 1, price, 900)).await.unwrap();
    let high = node.add_transaction(v1.transfer(to, 1, 0, price, 70)).await.unwrap();
    let system = node.add_transaction(v2.transfer(to, 1, 0, price, 1_000)).await.unwrap();
    assert_eq!(node.pool_size(), 4);
    assert_eq!(
        node.pooled()
            .unwrap()
            .iter()
            .filter(|t| t.sender == rich.address)
            .count(),
        2
    );

    let parent = node.genesis_hash();
    let mut request = BuildRequest::new(parent, 1, leader.address, B256::ZERO);
    request.excluded_senders = Arc::new(HashSet::from([v2.address]));
    let order = async |request: BuildRequest| {
        let built = node.build(request).await.unwrap();
        let block = node.block(built.hash).await.unwrap().unwrap();
        let hashes: Vec<_> = (0..block.transaction_count())
            .map(|i| block.transaction_hash(i).unwrap())
            .collect();
        (built, hashes)
    };
    let (built, hashes) = order(request.clone()).await;
    assert_eq!(hashes, [high, low, after_low]);

    request.timestamp = 2;
    request.minimum_tip = 50;
    assert_eq!(order(request.clone()).await.1, [high], "a nonce is not skipped");
    request.timestamp = 3;
    request.max_block_bytes = 600;
    assert_eq!(order(request.clone()).await.1, Vec::<B256>::new());
    request.timestamp = 4;
    request.max_block_bytes = 4_000_000;
    request.time_limit = Duration::ZERO;
    assert_eq!(order(request).await.1, Vec::<B256>::new());

    node.finalize(built.hash).await.unwrap();
    let left: Vec<_> = node.pooled().unwrap().into_iter().map(|t| t.hash).collect();
    assert_eq!(left, [system]);

    // the same nonce, included through another node: the pooled transaction can never apply again
    let stale = node.add_transaction(rich.transfer(to, 5, 2, price, 1)).await.unwrap();
    let other = open(&dir.path().join("other")).await;
    other.import(Execution::decode(&built.rlp).unwrap()).await.unwrap();
    other.finalize(built.hash).await.unwrap();
    other.add_transaction(rich.transfer(to, 6, 2, price, 1)).await.unwrap();
    let request = BuildRequest::new(built.hash, 5, leader.address, B256::ZERO);
    let next = other.build(request).await.unwrap();
    assert_eq!(next.transactions, 1);
    node.import(Execution::decode(&next.rlp).unwrap()).await.unwrap();
    assert!(
        node.transaction(stale)
            .await
            .unwrap()
            .is_some_and(|t| t.location.is_none())
    );
    node.finalize(next.hash).await.unwrap();
    assert_eq!(node.transaction(stale).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_have_their_own_state_and_only_one_becomes_final() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path()).await;
    let leader = Wallet::validator(0);
    let genesis_hash = node.genesis_hash();
    let left = node
        .build(system_request(&node, &leader, genesis_hash, 1, 1, 10))
        .await
        .unwrap();
    let right = node
        .build(system_request(&node, &leader, genesis_hash, 2, 1, 20))
        .await
        .unwrap();
    let child = node
        .build(system_request(&node, &leader, right.hash, 3, 2, 30))
        .await
        .unwrap();
    let slot = |hash, slot| node.state_at(hash).unwrap().storage(LEDGER, U256::from(slot)).unwrap();
    assert_eq!(
        (slot(left.hash, 1), slot(right.hash, 1), slot(child.hash, 1)),
        (U256::from(10), U256::from(20), U256::from(20))
    );
    assert_eq!(
        (slot(genesis_hash, 1), slot(left.hash, 2), slot(child.hash, 2)),
        (U256::ZERO, U256::ZERO, U256::from(30))
    );
    assert_eq!(node.nonce_at(child.hash, leader.address).unwrap(), 2);
    assert_eq!(node.nonce_at(left.hash, leader.address).unwrap(), 1);
    fn generic<R: StateReader>(reader: &R, slot: u64) -> Option<U256> {
        reader.storage(LEDGER, U256::from(slot)).ok()
    }
    assert_eq!(generic(&node.state_at(child.hash).unwrap(), 2), Some(U256::from(30)));

    // finality may come for the descendant first
    node.finalize(child.hash).await.unwrap();
    assert_eq!(node.head().number, 2);
    node.finalize(right.hash).await.unwrap();
    assert_eq!(node.head().number, 2, "a final block below the head changes nothing");
    let error = node.finalize(left.hash).await.unwrap_err();
    assert!(matches!(error, ExecutionError::Conflict { height: 1, .. }), "{error}");
    assert!(matches!(
        node.state_at(B256::ZERO),
        Err(ExecutionError::UnknownBlock(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_lie_are_refused_as_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path()).await;
    let other = open(&dir.path().join("other")).await;
    let leader = Wallet::validator(0);
    let parent = node.genesis_hash();
    let built = other
        .build(system_request(&other, &leader, parent, 1, 1, 10))
        .await
        .unwrap();
    let child = other
        .build(system_request(&other, &leader, built.hash, 2, 1, 10))
        .await
        .unwrap();
    for field in ["state", "gas", "base fee"] {
        let mut header = alloy_consensus::Header::decode(&mut built.header_rlp.as_ref()).unwrap();
        match field {
            "state" => header.state_root.0[0] ^= 1,
            "gas" => header.gas_used += 1,
            _ => header.base_fee_per_gas = Some(1),
        }
        let block = support::with_header(&built.rlp, &built.header_rlp, &header);
        let block = Execution::decode(&block).unwrap();
        assert_ne!(block.hash(), built.hash);
        let error = node.import(block).await.unwrap_err();
        assert!(error.is_invalid_block(), "{field}: {error}");
    }
    let error = node.import(Execution::decode(&child.rlp).unwrap()).await.unwrap_err();
    assert!(
        matches!(error, ExecutionError::UnknownBlock(_)) && !error.is_invalid_block(),
        "{error}"
    );
    for cut in [0, 1, 40, built.rlp.len() - 1] {
        assert!(Execution::decode(&built.rlp[..cut]).unwrap_err().is_invalid_block());
    }
    let longer = [&built.rlp[..], &[0]].concat();
    assert!(Execution::decode(&longer).is_err());
    node.import(Execution::decode(&built.rlp).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_agrees_with_the_state_and_proves_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path()).await;
    let leader = Wallet::validator(0);
    let built = node
        .build(system_request(&node, &leader, node.genesis_hash(), 1, 3, 33))
        .await
        .unwrap();
    node.finalize(built.hash).await.unwrap();

    let stored = node
        .call("eth_getStorageAt", json!([LEDGER, "0x3", "latest"]))
        .await
        .unwrap();
    assert_eq!(stored, json!(B256::from(word(33))));
    let state = node.state_at(built.hash).unwrap();
    assert_eq!(state.storage(LEDGER, U256::from(3)).unwrap(), U256::from(33));
    let balance = node
        .call("eth_getBalance", json!([leader.address, "latest"]))
        .await
        .unwrap();
    assert_eq!(balance, json!(format!("{:#x}", state.balance(leader.address).unwrap())));
    assert!(state.code_hash(LEDGER).unwrap().is_some());
    assert_eq!(state.code_hash(Address::repeat_byte(0x55)).unwrap(), None);

    let proof = node
        .call("eth_getProof", json!([LEDGER, ["0x3"], "0x1"]))
        .await
        .unwrap();
    support::check_proof(&proof, built.state_root, LEDGER, 3, 33);

    for (method, params, expected) in [
        ("eth_chainId", json!([]), json!("0x29f4")),
        ("eth_blockNumber", json!([]), json!("0x1")),
        ("net_version", json!([]), json!("10740")),
        ("eth_syncing", json!([]), json!(false)),
        ("net_peerCount", json!([]), json!("0x0")),
    ] {
        assert_eq!(node.call(method, params).await, Ok(expected), "{method}");
    }
    let block = node
        .call("eth_getBlockByNumber", json!(["finalized", false]))
        .await
        .unwrap();
    assert_eq!(block["hash"], json!(built.hash));
    let receipts = node.call("eth_getBlockReceipts", json!(["0x1"])).await.unwrap();
    assert_eq!(receipts[0]["status"], json!("0x1"));
    let call = json!([{ "to": LEDGER, "data": format!("0x{}", support::hex(&word(3))) }, "latest"]);
    assert_eq!(node.call("eth_call", call).await.unwrap(), json!(B256::from(word(33))));

    for refused in [
        "debug_setHead",
        "engine_newPayloadV4",
        "admin_peers",
        "testing_buildBlockV1",
        "no_such",
    ] {
        let error = node.call(refused, json!([])).await.unwrap_err();
        assert_eq!(error.code, -32601, "{refused}: {error}");
    }
    let answer = node
        .rpc(json!({ "jsonrpc": "2.0", "id": "x", "method": "eth_chainId" }))
        .await;
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": "x", "result": "0x29f4" }));
    for (request, code) in [
        (json!({ "id": 1 }), -32600),
        (json!({ "id": 1, "method": "eth_chainId", "params": {} }), -32602),
        (
            json!({ "id": 1, "method": "eth_sendRawTransaction", "params": ["0x"] }),
            -32602,
        ),
        (json!("x"), -32600),
    ] {
        assert_eq!(
            node.rpc(request.clone()).await["error"]["code"],
            json!(code),
            "{request}"
        );
    }
    let reverted = json!([{ "to": BEACON_ROOTS, "data": format!("0x{}", support::hex(&word(9))) }, "latest"]);
    let error = node.call("eth_call", reverted).await.unwrap_err();
    assert_eq!(error.code, 3, "{error}");
    let raw = Wallet::rich().transfer(LEDGER, 0, 0, 2_000_000_000, 1);
    let sent = node.call("eth_sendRawTransaction", json!([raw])).await.unwrap();
    assert!(matches!(sent, Value::String(_)) && node.pool_size() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mempool_says_why_it_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path()).await;
    let rich = Wallet::rich();
    let poor = Wallet::from_seed(b"poor");
    let to = Address::repeat_byte(1);
    let price = 2_000_000_000;
    let first = rich.transfer(to, 1, 0, price, 1);
    let hash = node.add_transaction(first.clone()).await.unwrap();
    assert_eq!(hash, keccak256(&first));
    assert_eq!(
        node.add_transaction(first.clone()).await,
        Err(PoolRejection::AlreadyKnown(hash))
    );
    let underpriced = node.add_transaction(rich.transfer(to, 2, 0, price, 1)).await;
    assert_eq!(underpriced, Err(PoolRejection::Underpriced));
    let unfunded = node
        .add_transaction(poor.transfer(to, 1, 0, price, 1))
        .await
        .unwrap_err();
    assert!(matches!(unfunded, PoolRejection::InsufficientFunds(_)), "{unfunded:?}");
    let wrong_chain = node.add_transaction(rich.transfer_on(1, to, 1, 1, price, 1)).await;
    assert_eq!(wrong_chain, Err(PoolRejection::WrongChain { expected: 10_740 }));
    let tip = node.add_transaction(rich.transfer(to, 1, 1, 10, 11)).await.unwrap_err();
    assert!(matches!(tip, PoolRejection::Gas(_)), "{tip:?}");
    let large = rich.call(to, vec![1; 132_000], 1, price, 1, 10_000_000);
    let too_large = node.add_transaction(large).await.unwrap_err();
    assert!(matches!(too_large, PoolRejection::TooLarge { .. }), "{too_large:?}");
    assert_eq!(
        node.add_transaction(Bytes::from_static(&[3, 0xc0])).await,
        Err(PoolRejection::UnsupportedType(3))
    );
    let high_s = node.add_transaction(rich.with_high_s(to, 1, price)).await.unwrap_err();
    assert!(matches!(high_s, PoolRejection::Signature(_)), "{high_s:?}");
    assert_eq!(high_s.code(), -32000);
    let mut padded = first.to_vec();
    padded.push(0);
    let trailing = node.add_transaction(padded.into()).await.unwrap_err();
    assert!(matches!(trailing, PoolRejection::Decode(_)), "{trailing:?}");

    let built = node
        .build(BuildRequest::new(node.genesis_hash(), 1, to, B256::ZERO))
        .await
        .unwrap();
    node.finalize(built.hash).await.unwrap();
    let again = node.add_transaction(rich.transfer(to, 3, 0, price, 1)).await;
    assert_eq!(again, Err(PoolRejection::NonceTooLow));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_belongs_to_one_genesis() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path()).await;
    let ours = node.genesis_hash();
    let block = node.call("eth_getBlockByNumber", json!(["0x0", false])).await.unwrap();
    assert_eq!(block["hash"], json!(ours));
    // the translation loses nothing: the client reads the original file to the same block
    let original: ethrex_common::types::Genesis = serde_json::from_str(include_str!("genesis.json")).unwrap();
    assert_eq!(original.get_block().hash().0, ours.0);
    assert_eq!(node.gas_limit(), 60_000_000);
    node.shutdown().await.unwrap();
    drop(node);
    let mut other = genesis();
    other.timestamp = 1;
    let error = Execution::open(other, dir.path().to_owned()).await.unwrap_err();
    assert!(matches!(error, ExecutionError::WrongGenesis { .. }), "{error}");
    assert_eq!(open(dir.path()).await.genesis_hash(), ours);
}
