//! A leader and a validator with real execution, without consensus between them.

use super::*;
use crate::{
    config::Limits,
    index::Index,
    support::{self, receipts},
};
use opg_contracts::GenesisFile;
use opg_primitives::money::Amount;
use tempfile::TempDir;

struct Pair {
    genesis: GenesisFile,
    /// What consensus calls height 0.
    root: Arc<ChainBlock>,
    leader: Chain,
    validator: Chain,
    _dir: TempDir,
}

async fn open(genesis: &GenesisFile, i: u8, dir: &std::path::Path) -> Chain {
    open_with(genesis, opg_genesis::build(genesis).unwrap(), i, dir).await
}

/// With another block 0 than that of the genesis file.
async fn open_with(genesis: &GenesisFile, built: alloy_genesis::Genesis, i: u8, dir: &std::path::Path) -> Chain {
    let folder = dir.join(i.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let execution = Execution::open(built, folder.join("evm")).await.unwrap();
    let index = Index::open(&folder.join("receipts.redb"), genesis.digest()).unwrap();
    let identity = Identity(genesis.validators[usize::from(i)].identity.0);
    let limits = Limits {
        verify_threads: 1,
        ..Limits::default()
    };
    Chain(Arc::new(
        Shared::new(
            genesis.clone(),
            &support::keys(i),
            identity,
            limits,
            execution,
            Arc::new(index),
        )
        .unwrap(),
    ))
}

impl Pair {
    async fn new() -> Self {
        Self::of(support::genesis()).await
    }

    async fn of(genesis: GenesisFile) -> Self {
        let built = opg_genesis::build(&genesis).unwrap();
        Self::with(genesis, built).await
    }

    async fn with(genesis: GenesisFile, built: alloy_genesis::Genesis) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let leader = open_with(&genesis, built.clone(), 0, dir.path()).await;
        let validator = open_with(&genesis, built, 1, dir.path()).await;
        let root = ChainBlock::genesis(genesis.digest(), leader.0.execution.genesis_hash());
        Self {
            root: Arc::new(root),
            genesis,
            leader,
            validator,
            _dir: dir,
        }
    }

    fn submit(&self, seq: u64) -> receipts::Made {
        let made = receipts::make(
            &self.genesis,
            seq,
            if seq == 0 { B256::ZERO } else { B256::repeat_byte(1) },
            Amount(5_000_000),
        );
        let node = &self.leader.0;
        let head = node.execution.head();
        let state = node.execution.state_at(head.hash).unwrap();
        node.pool
            .submit_now(made.receipt.cose(), None, &state, unix_time().as_secs())
            .unwrap();
        made
    }

    async fn propose(&self, parent: &Arc<ChainBlock>) -> ChainBlock {
        self.propose_in(1, parent).await
    }

    async fn propose_in(&self, view: u64, parent: &Arc<ChainBlock>) -> ChainBlock {
        let context = ProposeContext {
            epoch: 0,
            closes_epoch: false,
            view,
            leader: self.leader.0.identity,
            height: parent.height + 1,
            parent: parent.clone(),
            missing: Vec::new(),
        };
        let body = self.leader.propose(context).await.unwrap().unwrap();
        ChainBlock {
            parent: parent.digest(),
            height: parent.height + 1,
            evm_hash: body.evm_hash,
            evm: body.evm,
            receipts: body.receipts,
            proofs: body.proofs,
        }
    }

    async fn judge(&self, parent: &Arc<ChainBlock>, block: ChainBlock) -> Result<Verdict, String> {
        self.judge_as(self.leader.0.identity, parent, block).await
    }

    async fn judge_as(&self, leader: Identity, parent: &Arc<ChainBlock>, block: ChainBlock) -> Result<Verdict, String> {
        self.judge_in((0, 1), leader, parent, block).await
    }

    async fn judge_in(
        &self,
        (epoch, view): (u64, u64),
        leader: Identity,
        parent: &Arc<ChainBlock>,
        block: ChainBlock,
    ) -> Result<Verdict, String> {
        let context = VerifyContext {
            epoch,
            closes_epoch: false,
            view,
            leader,
            parent: parent.clone(),
            missing: Vec::new(),
            block: Arc::new(block),
        };
        self.validator.verify(context).await.map_err(|e| e.to_string())
    }

    /// Why the validator refuses a block for good.
    async fn reason(&self, block: ChainBlock) -> String {
        match self.judge(&self.root, block).await {
            Ok(Verdict::Invalid(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_with_receipts_is_judged_and_executed() {
    let pair = Pair::new().await;
    let made = [pair.submit(0), pair.submit(1), pair.submit(2)];
    let block = pair.propose(&pair.root).await;
    assert_eq!(block.receipts.len(), 3);
    assert_eq!(pair.judge(&pair.root, block.clone()).await, Ok(Verdict::Valid));
    // judged twice, as after a view that timed out
    assert_eq!(pair.judge(&pair.root, block.clone()).await, Ok(Verdict::Valid));

    let block = Arc::new(block);
    for chain in [&pair.leader, &pair.validator] {
        assert_eq!(chain.executed_height().await.unwrap(), 0);
        for _ in 0..2 {
            chain.finalized(block.clone()).await.unwrap(); // redelivery changes nothing
        }
        assert_eq!(chain.executed_height().await.unwrap(), 1);
        assert_eq!(chain.0.pool.size(), (0, 0));
        for made in &made {
            let row = chain
                .0
                .index
                .receipt(made.receipt.core().receipt_id.0)
                .unwrap()
                .unwrap();
            assert_eq!((row.height, row.count, row.core_hash), (1, 3, made.receipt.core_hash()));
        }
        let state = chain.0.execution.state_at(block.evm_hash).unwrap();
        let hashes: Vec<B256> = block
            .receipts
            .iter()
            .map(|r| SignedReceipt::decode(r).unwrap().core_hash())
            .collect();
        assert_eq!(
            opg_contracts::state::batch_root(&state, 1).unwrap(),
            merkle::batch_root_of(1, &hashes)
        );
    }

    // an empty block on top, by the other validator's eyes
    let next = pair.propose(&block).await;
    assert!(next.receipts.is_empty());
    assert_eq!(pair.judge(&block, next).await, Ok(Verdict::Valid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_proposal_gets_no_vote() {
    let pair = Pair::new().await;
    pair.submit(0);
    pair.submit(1);
    let good = pair.propose(&pair.root).await;
    let with = |change: fn(&mut ChainBlock)| {
        let mut block = good.clone();
        change(&mut block);
        block
    };
    let flip = |block: &mut ChainBlock| {
        let mut bytes = block.receipts[1].to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        block.receipts[1] = bytes.into();
    };
    for (block, word) in [
        (with(flip), "receipt 1"),
        (with(|b| b.receipts.truncate(1)), "parent_beacon_block_root"),
        (with(|b| b.receipts.swap(0, 1)), "parent_beacon_block_root"),
        (with(|b| b.receipts.push(b.receipts[0].clone())), "sequence number"),
        (with(|b| b.receipts.clear()), "parent_beacon_block_root"),
        (with(|b| b.evm_hash = B256::ZERO), "EVM hash"),
        (with(|b| b.evm = Bytes::from_static(&[0xc0])), ""),
    ] {
        let reason = pair.reason(block).await;
        assert!(reason.contains(word), "{reason}");
    }
    let other = Identity(pair.genesis.validators[2].identity.0);
    let stolen = pair.judge_as(other, &pair.root, good.clone()).await.unwrap();
    assert!(matches!(stolen, Verdict::Invalid(reason) if reason.contains("coinbase")));
    let stranger = pair
        .judge_as(Identity([1; 32]), &pair.root, good.clone())
        .await
        .unwrap();
    assert!(matches!(stranger, Verdict::Invalid(reason) if reason.contains("not a validator")));
    assert_eq!(
        pair.judge(&pair.root, good).await,
        Ok(Verdict::Valid),
        "the unchanged one passes"
    );
}

/// What a byzantine leader could build: every block below is valid for the EVM.
async fn forge(pair: &Pair, change: impl FnOnce(&mut BuildRequest, u64)) -> ChainBlock {
    let execution = &pair.leader.0.execution;
    let parent = execution.genesis_hash();
    let base_fee = execution.base_fee_next(parent).unwrap();
    let timestamp = unix_time().as_secs().max(execution.head().timestamp + 1);
    let root = batch_root(1, std::iter::empty());
    let mut request = BuildRequest::new(parent, timestamp, pair.leader.0.system_address, root);
    change(&mut request, base_fee);
    let built = execution.build(request).await.unwrap();
    ChainBlock {
        parent: pair.root.digest(),
        height: 1,
        evm_hash: built.hash,
        evm: built.rlp,
        receipts: Vec::new(),
        proofs: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_block_gets_no_vote() {
    let pair = Pair::new().await;
    let honest = forge(&pair, |_, _| {}).await;
    assert_eq!(pair.judge(&pair.root, honest).await, Ok(Verdict::Valid));

    let root = forge(&pair, |r, _| r.beacon_root = B256::repeat_byte(1)).await;
    assert!(pair.reason(root).await.contains("parent_beacon_block_root"));
    let coinbase = forge(&pair, |r, _| r.coinbase = Address::repeat_byte(1)).await;
    assert!(pair.reason(coinbase).await.contains("coinbase"));
    let future = forge(&pair, |r, _| r.timestamp += 100).await;
    let error = pair.judge(&pair.root, future).await.unwrap_err();
    assert!(error.contains("future"), "no verdict for ever, only no vote: {error}");

    // the batch root is there, the system transaction is not
    let made = receipts::make(&pair.genesis, 0, B256::ZERO, Amount(5_000_000));
    let mut silent = forge(&pair, |r, _| {
        r.beacon_root = batch_root(1, std::iter::once(&made.receipt))
    })
    .await;
    silent.receipts = vec![made.receipt.cose().clone()];
    assert!(pair.reason(silent).await.contains("missing"));

    // the leader's key signs something else
    let key = support::secret(0x30);
    let plain = forge(&pair, |r, base_fee| {
        let transaction = alloy_consensus::TxEip1559 {
            chain_id: support::CHAIN,
            gas_limit: 21_000,
            max_fee_per_gas: u128::from(base_fee),
            to: alloy_primitives::TxKind::Call(Address::repeat_byte(9)),
            ..Default::default()
        };
        r.system_txs = vec![system::sign(transaction, &key)];
    })
    .await;
    assert!(pair.reason(plain).await.contains("system account"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_filled_again() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = support::genesis();
    let chain = open(&genesis, 0, dir.path()).await;
    let root = Arc::new(ChainBlock::genesis(genesis.digest(), chain.0.execution.genesis_hash()));
    let context = ProposeContext {
        epoch: 0,
        closes_epoch: false,
        view: 1,
        leader: chain.0.identity,
        height: 1,
        parent: root.clone(),
        missing: Vec::new(),
    };
    let body = chain.propose(context).await.unwrap().unwrap();
    let block = ChainBlock {
        parent: root.digest(),
        height: 1,
        evm_hash: body.evm_hash,
        evm: body.evm,
        receipts: body.receipts,
        proofs: body.proofs,
    };
    let block = Arc::new(block);
    chain.finalized(block.clone()).await.unwrap();
    chain.0.execution.shutdown().await.unwrap();
    drop(chain);
    std::fs::remove_file(dir.path().join("0/receipts.redb")).unwrap();

    let chain = open(&genesis, 0, dir.path()).await;
    assert_eq!(
        chain.executed_height().await.unwrap(),
        0,
        "consensus delivers from there"
    );
    chain.finalized(block).await.unwrap();
    assert_eq!(chain.executed_height().await.unwrap(), 1);
}

/// The capacity that the ledger is built for; how long it takes is measured by `cargo xtask bench ledger`.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_receipts_in_a_block() {
    let pair = Pair::new().await;
    let due = receipts::make(&pair.genesis, 0, B256::ZERO, Amount(5_000_000))
        .receipt
        .core()
        .price
        .charge;
    let made: Vec<_> = (0..2_000u64)
        .map(|seq| {
            receipts::make(
                &pair.genesis,
                seq,
                if seq == 0 { B256::ZERO } else { B256::repeat_byte(1) },
                due,
            )
        })
        .collect();
    let state = pair.leader.0.execution.state_at(pair.root.evm_hash).unwrap();
    let began = Instant::now();
    for one in &made {
        pair.leader
            .0
            .pool
            .submit_now(one.receipt.cose(), None, &state, unix_time().as_secs())
            .unwrap();
    }
    println!(
        "{:.0} receipts/s admitted by one thread",
        made.len() as f64 / began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    let block = pair.propose(&pair.root).await;
    assert_eq!(block.receipts.len(), 2_000);
    println!(
        "{} receipts proposed after {:?} (the wait for the second included)",
        block.receipts.len(),
        began.elapsed()
    );
    let began = Instant::now();
    assert_eq!(pair.judge(&pair.root, block.clone()).await, Ok(Verdict::Valid));
    println!(
        "judged by a validator that had seen none of them in {:?}",
        began.elapsed()
    );
    let began = Instant::now();
    pair.validator.finalized(Arc::new(block)).await.unwrap();
    println!("finalized in {:?}", began.elapsed());
}

/// A validator that has not seen the proof gives no vote and no verdict; when the proof has come, it votes.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_verified_before_the_vote() {
    let pair = Pair::new().await;
    let (receipt, artefact) = receipts::proven(&pair.genesis, 0, B256::ZERO, Amount(5_000_000));
    let submit = |chain: &Chain, artefact: &[u8]| {
        let state = chain.0.execution.state_at(pair.root.evm_hash).unwrap();
        let artefact = Some(Bytes::copy_from_slice(artefact));
        chain
            .0
            .pool
            .submit_now(receipt.cose(), artefact, &state, unix_time().as_secs())
    };
    let mut forged = artefact.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(submit(&pair.leader, &forged).is_err());
    submit(&pair.leader, &artefact).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let block = pair.propose(&pair.root).await;
    assert_eq!(block.receipts.len(), 1);

    let error = pair.judge(&pair.root, block.clone()).await.unwrap_err();
    assert!(error.contains("proof of the answer is missing"), "{error}");
    submit(&pair.validator, &artefact).unwrap();
    assert_eq!(pair.judge(&pair.root, block.clone()).await, Ok(Verdict::Valid));
    pair.validator.finalized(Arc::new(block)).await.unwrap();
    let row = pair
        .validator
        .0
        .index
        .receipt(receipt.core().receipt_id.0)
        .unwrap()
        .unwrap();
    assert_eq!((row.mode, row.grade), (2, 2));
    let kept = pair.validator.0.index.artefact(receipt.core().receipt_id.0).unwrap();
    assert_eq!(kept, Some(artefact.into()));
}

/// A leader names a proof that does not hold: no vote, and whoever voted for it is on record, with evidence that convinces everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_vote_for_an_invalid_proof_is_kept_as_evidence() {
    use crate::slashing::{self, NotProven, Report, judge_with};
    use alloy_primitives::U256;
    use opg_contracts::slashing::INVALID_VOTE;
    use opg_primitives::hash::sha256;

    let pair = Pair::new().await;
    let (receipt, artefact) = receipts::proven(&pair.genesis, 0, B256::ZERO, Amount(5_000_000));
    let submit = |chain: &Chain, artefact: &[u8]| {
        let state = chain.0.execution.state_at(pair.root.evm_hash).unwrap();
        let artefact = Some(Bytes::copy_from_slice(artefact));
        let now = unix_time().as_secs();
        chain.0.pool.submit_now(receipt.cose(), artefact, &state, now)
    };
    submit(&pair.leader, &artefact).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let honest = pair.propose(&pair.root).await;
    let mut forged = artefact.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut block = honest.clone();
    block.proofs[0].artefact = sha256(&forged);

    let vote = |i: u8, digest: B256| Vote {
        epoch: 0,
        view: 1,
        digest,
        bytes: support::votes::notarize(&pair.genesis, i, (0, 1), digest).into(),
    };
    let node = &pair.validator;
    // one vote before the block is judged, one with a signature of somebody else, and one for an honest block
    node.voted(vote(2, block.digest()));
    let mut false_vote = vote(3, block.digest());
    false_vote.bytes = vote(3, B256::ZERO).bytes;
    node.voted(false_vote);
    node.voted(vote(1, honest.digest()));
    let (verdict, ()) = tokio::join!(pair.judge(&pair.root, block.clone()), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(submit(&pair.validator, &forged).is_err());
    });
    assert!(matches!(verdict, Ok(Verdict::Invalid(reason)) if reason.contains("proof")));
    // and one after it
    node.voted(vote(0, block.digest()));
    let mut kept = Vec::new();
    for _ in 0..100 {
        kept = node.0.index.faults(10).unwrap();
        if kept.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut seats: Vec<u64> = kept.iter().map(|fault| u64::from(fault.seat)).collect();
    seats.sort_unstable();
    let mut expected = [0, 2].map(|i| support::votes::seat(&pair.genesis, i));
    expected.sort_unstable();
    assert_eq!(seats, expected, "both voters, and nobody else");

    let state = node.0.execution.state_at(pair.root.evm_hash).unwrap();
    let network = *node.0.evidence.network();
    for fault in &kept {
        assert_eq!((fault.epoch, fault.view, fault.kind), (0, 1, 4));
        let hash = slashing::artefact_of(&fault.evidence).unwrap();
        let held = node.0.index.fault_artefact(hash).unwrap().unwrap();
        assert_eq!((hash, &held[..]), (sha256(&forged), &forged[..]));
        let i = (0..4).find(|i| support::votes::seat(&pair.genesis, *i) == u64::from(fault.seat));
        let report = Report {
            id: U256::ZERO,
            class: INVALID_VOTE,
            subject: pair.genesis.validators[usize::from(i.unwrap())].operator.into_word(),
            epoch: 0,
            evidence: fault.evidence.clone(),
        };
        assert!(judge_with(&state, &network, &report, Some(&held)).unwrap().is_ok());
        let other = judge_with(&state, &network, &report, Some(&artefact)).unwrap();
        assert!(matches!(other, Err(NotProven::Unpublished { .. })));
    }
    // the honest block gets its vote all the same
    submit(&pair.validator, &artefact).unwrap();
    assert_eq!(pair.judge(&pair.root, honest).await, Ok(Verdict::Valid));
}

/// A proof that comes while a block is being judged is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_on_its_way_is_waited_for() {
    let pair = Pair::new().await;
    let (receipt, artefact) = receipts::proven(&pair.genesis, 0, B256::ZERO, Amount(5_000_000));
    let submit = |chain: &Chain| {
        let state = chain.0.execution.state_at(pair.root.evm_hash).unwrap();
        let artefact = Some(Bytes::copy_from_slice(&artefact));
        chain
            .0
            .pool
            .submit_now(receipt.cose(), artefact, &state, unix_time().as_secs())
            .unwrap()
    };
    submit(&pair.leader);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let block = pair.propose(&pair.root).await;
    assert_eq!(block.receipts.len(), 1);
    let (verdict, ()) = tokio::join!(pair.judge(&pair.root, block), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        submit(&pair.validator);
    });
    assert_eq!(verdict, Ok(Verdict::Valid));
}

/// Views 1, 3 and 6 have blocks, and the third block ends the epoch.
#[tokio::test(flavor = "multi_thread")]
async fn views_are_in_the_blocks_and_are_reported_when_the_epoch_ends() {
    use alloy_consensus::{Transaction as _, TxEnvelope};
    use alloy_eips::eip2718::Decodable2718 as _;
    use opg_contracts::{
        addresses,
        seats::{self, SeatReport},
    };

    let mut genesis = support::genesis();
    genesis.parameters.epoch_blocks = 4;
    let pair = Pair::of(genesis).await;
    let leader = pair.leader.0.identity;
    let mut parent = pair.root.clone();
    for view in [1, 3] {
        let block = pair.propose_in(view, &parent).await;
        let evm = Execution::decode(&block.evm).unwrap();
        assert_eq!(evm.extra_data(), view.to_be_bytes());
        // a leader cannot pretend that it proposed in another view
        match pair.judge_in((0, view + 1), leader, &parent, block.clone()).await {
            Ok(Verdict::Invalid(reason)) => assert!(reason.contains("extra_data"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            pair.judge_in((0, view), leader, &parent, block.clone()).await,
            Ok(Verdict::Valid)
        );
        parent = Arc::new(block);
        for chain in [&pair.leader, &pair.validator] {
            chain.finalized(parent.clone()).await.unwrap();
        }
    }
    let last = pair.propose_in(6, &parent).await;
    let evm = Execution::decode(&last.evm).unwrap();
    assert_eq!(evm.transaction_count(), 1, "no receipts: only the end of the epoch");
    let raw = evm.raw_transaction(0).unwrap();
    let transaction = TxEnvelope::decode_2718(&mut raw.as_ref()).unwrap();
    assert_eq!(transaction.to(), Some(addresses::STAKING));
    assert_eq!(transaction.gas_limit(), END_EPOCH_GAS);
    let participants: Vec<_> = pair.leader.0.epochs.seats(0).unwrap().set().participants;
    let of = |view: u64| opg_consensus::leader(&participants, 0, view).unwrap().identity;
    let expected = pair.genesis.validators.iter().map(|v| {
        let count = |views: &[u64]| views.iter().filter(|view| of(**view).0 == v.identity.0).count() as u32;
        SeatReport {
            operator: v.operator,
            led: count(&[1, 3, 6]),
            missed: count(&[2, 4, 5]),
        }
    });
    let expected: Vec<_> = expected.collect();
    assert_eq!(transaction.input(), &seats::end_epoch_calldata(0, &expected));
    assert_eq!(
        pair.judge_in((0, 6), leader, &parent, last.clone()).await,
        Ok(Verdict::Valid)
    );
    // an epoch whose seats nobody has told this node: no vote, and no verdict either
    let unknown = pair.judge_in((9, 6), leader, &parent, last).await;
    assert!(unknown.unwrap_err().contains("epoch 9"));
}

/// Without epochs nothing is added to a block.
#[tokio::test(flavor = "multi_thread")]
async fn without_epochs_headers_carry_no_view() {
    let pair = Pair::new().await;
    let block = pair.propose_in(7, &pair.root).await;
    assert!(Execution::decode(&block.evm).unwrap().extra_data().is_empty());
    assert_eq!(pair.judge(&pair.root, block).await, Ok(Verdict::Valid));
}

/// A network in which somebody reports two faults, one of them false, and the block with both reports.
async fn reported() -> (Pair, Arc<ChainBlock>) {
    use alloy_sol_types::SolCall as _;
    use opg_contracts::{OPG, Slashing, addresses, slashing};

    let pair = Pair::of(support::staked(60)).await;
    let genesis = &pair.genesis;
    let approve = OPG::approveCall {
        spender: addresses::SLASHING,
        value: alloy_primitives::U256::MAX,
    };
    let report = |accused: usize, evidence: Vec<u8>| Slashing::reportCall {
        class: slashing::EQUIVOCATION,
        subject: genesis.validators[accused].operator.into_word(),
        epoch: 0,
        evidence: evidence.into(),
    };
    let votes = support::votes::equivocation(genesis, 3, (0, 7));
    let calls = [
        (addresses::OPG, approve.abi_encode()),
        (addresses::SLASHING, report(3, votes.clone()).abi_encode()),
        // the same votes said to be somebody else's
        (addresses::SLASHING, report(2, votes).abi_encode()),
    ];
    for (nonce, (to, input)) in (0..).zip(calls) {
        let raw = support::signed_call(&support::demo(), nonce, to, input.into());
        pair.leader.0.add_transaction(raw, false).await.unwrap();
    }
    let block = pair.propose(&pair.root).await;
    assert_eq!(Execution::decode(&block.evm).unwrap().transaction_count(), 3);
    assert_eq!(pair.judge(&pair.root, block.clone()).await, Ok(Verdict::Valid));
    let statuses = pair.validator.0.execution.receipts(block.evm_hash).await.unwrap();
    assert!(statuses.iter().all(|receipt| receipt.success));
    (pair, Arc::new(block))
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_judged_in_the_next_block() {
    use alloy_consensus::{Transaction as _, TxEnvelope};
    use alloy_eips::eip2718::Decodable2718 as _;
    use alloy_primitives::U256;
    use opg_contracts::{Slashing, addresses, staking::verdicts_calldata};

    let (pair, parent) = reported().await;
    let block = pair.propose(&parent).await;
    let evm = Execution::decode(&block.evm).unwrap();
    assert_eq!(evm.transaction_count(), 1, "one transaction for both reports");
    let raw = evm.raw_transaction(0).unwrap();
    let transaction = TxEnvelope::decode_2718(&mut raw.as_ref()).unwrap();
    assert_eq!(
        (transaction.to(), transaction.gas_limit()),
        (Some(addresses::SLASHING), VERDICTS_GAS)
    );
    let verdict = |id: u64, valid| Slashing::Verdict {
        id: U256::from(id),
        valid,
        fault: B256::ZERO,
        fee: 0,
        user: Address::ZERO,
    };
    assert_eq!(
        transaction.input(),
        &verdicts_calldata(vec![verdict(0, true), verdict(1, false)])
    );
    assert_eq!(pair.judge(&parent, block.clone()).await, Ok(Verdict::Valid));
    let block = Arc::new(block);
    for chain in [&pair.leader, &pair.validator] {
        for final_block in [&parent, &block] {
            chain.finalized(final_block.clone()).await.unwrap();
        }
    }
    // once: the block after asks for nothing
    let next = pair.propose(&block).await;
    assert_eq!(Execution::decode(&next.evm).unwrap().transaction_count(), 0);
    assert_eq!(pair.judge(&block, next).await, Ok(Verdict::Valid));
}

/// A proposer that leaves verdicts out, turns them round, invents one or changes their gas gets no vote, though each of these blocks is
/// valid for the EVM.
#[tokio::test(flavor = "multi_thread")]
async fn other_verdicts_get_no_vote() {
    use alloy_primitives::U256;
    use opg_contracts::{Slashing, addresses, staking::verdicts_calldata};

    let (pair, parent) = reported().await;
    let verdict = |id: u64, valid| Slashing::Verdict {
        id: U256::from(id),
        valid,
        fault: B256::ZERO,
        fee: 0,
        user: Address::ZERO,
    };
    let execution = &pair.leader.0.execution;
    let leader = pair.leader.0.system_address;
    let nonce = execution.nonce_at(parent.evm_hash, leader).unwrap();
    let base_fee = execution.base_fee_next(parent.evm_hash).unwrap();
    let timestamp = execution.timestamp(parent.evm_hash).await.unwrap() + 1;
    tokio::time::sleep(Duration::from_secs(timestamp).saturating_sub(unix_time())).await;
    let forged = async |verdicts: Option<Vec<Slashing::Verdict>>, gas_limit: u64| {
        let transaction = |verdicts| alloy_consensus::TxEip1559 {
            chain_id: support::CHAIN,
            nonce,
            gas_limit,
            max_fee_per_gas: u128::from(base_fee),
            to: alloy_primitives::TxKind::Call(addresses::SLASHING),
            input: verdicts_calldata(verdicts),
            ..Default::default()
        };
        let root = batch_root(parent.height + 1, std::iter::empty());
        let request = BuildRequest {
            system_txs: verdicts
                .into_iter()
                .map(|verdicts| system::sign(transaction(verdicts), &pair.leader.0.system_key))
                .collect(),
            ..BuildRequest::new(parent.evm_hash, timestamp, leader, root)
        };
        let built = execution.build(request).await.unwrap();
        let block = ChainBlock {
            parent: parent.digest(),
            height: parent.height + 1,
            evm_hash: built.hash,
            evm: built.rlp,
            receipts: Vec::new(),
            proofs: Vec::new(),
        };
        pair.judge(&parent, block).await
    };
    let right = vec![verdict(0, true), verdict(1, false)];
    assert_eq!(forged(Some(right.clone()), VERDICTS_GAS).await, Ok(Verdict::Valid));
    let refused = async |verdicts, gas, word: &str| match forged(verdicts, gas).await {
        Ok(Verdict::Invalid(reason)) => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?}"),
    };
    refused(None, VERDICTS_GAS, "system transaction 0 is missing").await;
    let mut robbed = right.clone();
    robbed[0].fee = 1;
    robbed[0].user = address_of(0);
    for wrong in [
        vec![],
        vec![verdict(0, true)],
        vec![verdict(1, false), verdict(0, true)],
        vec![verdict(0, false), verdict(1, false)],
        vec![verdict(0, true), verdict(1, true)],
        vec![verdict(0, true), verdict(1, false), verdict(2, true)],
        robbed,
    ] {
        refused(Some(wrong), VERDICTS_GAS, "differs from the recomputed one in input").await;
    }
    refused(Some(right), VERDICTS_GAS - 1, "gas_limit").await;
}

fn address_of(i: u8) -> Address {
    support::system_address(i)
}

/// Governance has scheduled another gas limit from height 3 on: until then blocks have that of block 0, then they move to it as fast as the
/// EVM allows. A leader that goes before, later or another way gets no vote.
#[tokio::test(flavor = "multi_thread")]
async fn the_gas_limit_follows_governance_at_its_height() {
    use alloy_primitives::U256;
    use opg_contracts::{addresses, governance::block_rules, slots};

    const OLD: u64 = 120_000_000;
    const STEP: u64 = OLD / 1_024 - 1;
    const NEW: u64 = OLD + STEP + 1_000;
    let genesis = support::genesis();
    let mut built = opg_genesis::build(&genesis).unwrap();
    let storage = &mut built.alloc.get_mut(&addresses::CHAIN_PARAMETERS).unwrap().storage;
    // as `schedule(NEW, 40_000, 3)` leaves it; compared with the contract in crates/genesis/tests/governance.rs
    let next: U256 = [(NEW, 0), (40_000, 64), (3, 128_usize)]
        .map(|(n, shift)| U256::from(n) << shift)
        .into_iter()
        .sum();
    let slot = slots::chain_parameters_next().into();
    storage.get_or_insert_default().insert(slot, next.into());
    let pair = Pair::with(genesis, built).await;
    let mut parent = pair.root.clone();
    for expected in [OLD, OLD, OLD + STEP, NEW, NEW] {
        let height = parent.height + 1;
        let state = pair.validator.0.execution.state_at(parent.evm_hash).unwrap();
        assert_eq!(
            block_rules(&state, height).unwrap().gas_limit,
            if height < 3 { OLD } else { NEW }
        );
        let block = pair.propose(&parent).await;
        assert_eq!(
            Execution::decode(&block.evm).unwrap().gas_limit(),
            expected,
            "block {height}"
        );
        // what the EVM would take as well
        for target in [OLD - 1_000, OLD, OLD + 500, NEW, 2 * OLD] {
            let execution = &pair.leader.0.execution;
            if execution.gas_limit_next(parent.evm_hash, target).unwrap() == expected {
                continue;
            }
            let timestamp = Execution::decode(&block.evm).unwrap().timestamp();
            let root = batch_root(height, std::iter::empty());
            let request = BuildRequest {
                gas_target: Some(target),
                ..BuildRequest::new(parent.evm_hash, timestamp, pair.leader.0.system_address, root)
            };
            let built = execution.build(request).await.unwrap();
            let other = ChainBlock {
                evm_hash: built.hash,
                evm: built.rlp,
                ..block.clone()
            };
            match pair.judge(&parent, other).await {
                Ok(Verdict::Invalid(reason)) => assert!(reason.contains("gas_limit"), "{reason}"),
                other => panic!("height {height}, target {target}: {other:?}"),
            }
        }
        assert_eq!(pair.judge(&parent, block.clone()).await, Ok(Verdict::Valid));
        parent = Arc::new(block);
        for chain in [&pair.leader, &pair.validator] {
            chain.finalized(parent.clone()).await.unwrap();
        }
    }
}

/// What verifying a block's receipts may cost is a rule of the chain: a leader keeps to it, and gets no vote for more.
#[tokio::test(flavor = "multi_thread")]
async fn the_verification_budget_bounds_a_block() {
    use alloy_primitives::U256;
    use opg_contracts::{addresses, slots};

    let genesis = support::genesis();
    let mut built = opg_genesis::build(&genesis).unwrap();
    let storage = &mut built.alloc.get_mut(&addresses::CHAIN_PARAMETERS).unwrap().storage;
    // Room for two receipts without a proof.
    let rules: U256 = [(120_000_000_u64, 0_usize), (2, 64)]
        .map(|(n, shift)| U256::from(n) << shift)
        .into_iter()
        .sum();
    let slot = slots::chain_parameters_current().into();
    storage.get_or_insert_default().insert(slot, rules.into());
    let pair = Pair::with(genesis, built).await;
    let made = [pair.submit(0), pair.submit(1), pair.submit(2)];
    let block = pair.propose(&pair.root).await;
    assert_eq!(block.receipts.len(), 2);
    let third = made
        .iter()
        .map(|made| made.receipt.cose())
        .find(|cose| !block.receipts.contains(cose))
        .unwrap();
    let mut greedy = block.clone();
    greedy.receipts.push(third.clone());
    let reason = pair.reason(greedy).await;
    assert!(
        reason.contains("cost of verifying the receipts: expected at most 2, got 3"),
        "{reason}"
    );
    assert_eq!(pair.judge(&pair.root, block).await, Ok(Verdict::Valid));
}
