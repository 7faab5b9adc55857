//! Four full nodes judge an inference node: two receipts with one number, a claim of attestation that nobody registered, and reports that
//! prove nothing. Every wei of bond and slash is counted.

mod support;

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use opg_consensus::{ChainBlock, ProofName, encode_vote};
use opg_contracts::{NodeRegistry, OPG, Slashing, Staking, addresses, slashing};
use opg_payments::signature::address_of_secret;
use opg_primitives::{
    hash::sha256,
    mode::{Grade, Mode},
    money::{Amount, WEI_PER_OPG},
};
use opg_receipt::{Core, Evidence, ModeRecord, SignedReceipt};
use serde_json::json;
use support::{Network, demo, eventually, receipts, signed_call};

const WINDOW: u64 = 3;

/// A network and the nonce of the account that reports.
struct Court {
    network: Network,
    nonce: u64,
}

impl Court {
    async fn view<C: SolCall>(&self, to: Address, call: C) -> C::Return {
        let input = Bytes::from(call.abi_encode());
        let answer = self
            .network
            .call(1, "eth_call", json!([{ "to": to, "data": input }, "latest"]));
        let bytes: Bytes = serde_json::from_value(answer.await).unwrap();
        C::abi_decode_returns(&bytes).unwrap()
    }

    async fn send<C: SolCall>(&mut self, to: Address, call: C) {
        let raw = signed_call(&demo(), self.nonce, to, call.abi_encode().into());
        self.nonce += 1;
        self.sent(raw).await;
    }

    /// Sends a transaction, and waits until it has succeeded by the eyes of whoever is asked next.
    async fn sent(&self, raw: Bytes) {
        let hash = self.network.call(0, "eth_sendRawTransaction", json!([raw])).await;
        let receipt = self.network.confirmed(0, &hash).await;
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        let block = u64::from_str_radix(&receipt["blockNumber"].as_str().unwrap()[2..], 16).unwrap();
        eventually("the block at the others", 20, async || {
            (0..4).all(|i| self.network.height(i) >= block).then_some(())
        })
        .await;
    }

    /// Reports the node, and waits for what validators say; the case's number and state.
    async fn report(&mut self, class: u8, evidence: Vec<u8>) -> (u64, u8) {
        let subject = self.network.genesis.nodes[0].node_id();
        self.report_about(class, subject, evidence).await
    }

    async fn report_about(&mut self, class: u8, subject: B256, evidence: Vec<u8>) -> (u64, u8) {
        let id: u64 = self.view(addresses::SLASHING, Slashing::caseCountCall {}).await.to();
        let call = Slashing::reportCall {
            class,
            subject,
            epoch: 0,
            evidence: evidence.into(),
        };
        self.send(addresses::SLASHING, call).await;
        let status = eventually("a verdict", 20, async || {
            // the newest state may be a moment behind the receipt of the transaction
            let count = self.view(addresses::SLASHING, Slashing::caseCountCall {}).await;
            if count <= U256::from(id) {
                return None;
            }
            let case = self
                .view(addresses::SLASHING, Slashing::casesCall(U256::from(id)))
                .await;
            (case.status != 1).then_some(case.status)
        });
        (id, status.await)
    }

    async fn execute(&mut self, id: u64) {
        let number = U256::from(id);
        eventually("the end of the time for an appeal", 30, async || {
            let case = self.view(addresses::SLASHING, Slashing::casesCall(number)).await;
            let block = self
                .network
                .call(0, "eth_getBlockByNumber", json!(["latest", false]))
                .await;
            let now = u64::from_str_radix(&block["timestamp"].as_str().unwrap()[2..], 16).unwrap();
            (now >= case.until.to::<u64>()).then_some(())
        })
        .await;
        self.send(addresses::SLASHING, Slashing::executeCall { id: number })
            .await;
    }

    async fn bond(&self) -> u128 {
        let node = self.network.genesis.nodes[0].node_id();
        self.view(addresses::NODE_REGISTRY, NodeRegistry::nodesCall { nodeId: node })
            .await
            .bond
    }

    async fn credit(&self) -> u128 {
        let account = address_of_secret(&demo());
        self.view(addresses::SLASHING, Slashing::creditsCall { account })
            .await
            .to()
    }

    async fn opg(&self, account: Address) -> u128 {
        self.view(addresses::OPG, OPG::balanceOfCall { account }).await.to()
    }

    /// Publishes data by the CREATE2 deployer; the addresses of its parts.
    async fn publish(&mut self, data: &[u8]) -> Vec<Address> {
        let mut parts = Vec::new();
        for part in data.chunks(slashing::MAX_PART) {
            let init_code = slashing::data_contract(part).unwrap();
            let address = slashing::data_address(&init_code);
            parts.push(address);
            let code = json!(format!("0x00{}", hex::encode(part)));
            if self.network.call(0, "eth_getCode", json!([address, "latest"])).await == code {
                // the same part of another proof
                continue;
            }
            let input = [B256::ZERO.as_slice(), &init_code].concat();
            let raw = signed_call(&demo(), self.nonce, addresses::CREATE2_DEPLOYER, input.into());
            self.nonce += 1;
            self.sent(raw).await;
            let there = self.network.call(1, "eth_getCode", json!([address, "latest"])).await;
            assert_eq!(there, code);
        }
        parts
    }

    fn signed(&self, seq: u64, change: impl FnOnce(&mut Core)) -> SignedReceipt {
        let made = receipts::make(&self.network.genesis, seq, B256::ZERO, Amount(1_000_000_000));
        let mut core = made.receipt.core().clone();
        change(&mut core);
        SignedReceipt::sign(core, &support::receipt_key()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_pays_for_what_its_own_receipts_prove() {
    let mut court = Court {
        network: Network::start_with(support::staked(WINDOW)).await,
        nonce: 0,
    };
    let approve = OPG::approveCall {
        spender: addresses::SLASHING,
        value: U256::MAX,
    };
    court.send(addresses::OPG, approve).await;
    let bond = 1_000 * WEI_PER_OPG;
    assert_eq!(court.bond().await, bond);
    let (frozen, dismissed) = (2, 5);

    // one number twice
    let first = court.signed(9, |_| {});
    let second = court.signed(9, |core| core.prev = B256::repeat_byte(3));
    let fee = first.core().price.charge.0;
    let pair = |a: &SignedReceipt, b: &SignedReceipt| slashing::encode_receipts(a.cose(), b.cose()).unwrap();
    let (id, status) = court.report(slashing::WRONG_INFERENCE, pair(&first, &second)).await;
    assert_eq!(status, frozen);
    assert_eq!(court.bond().await, bond, "nothing is taken yet");
    let insurance = court.opg(addresses::INSURANCE).await;
    court.execute(id).await;
    // the least slash, a hundredth: half burned, three tenths for the challenger, two fees for the payer, which is the same account here
    let slash = bond / 100;
    assert_eq!(court.bond().await, bond - slash);
    let earned = slash / 10 * 3 + 2 * fee;
    assert_eq!(court.credit().await, earned + WEI_PER_OPG, "and the bond");
    assert_eq!(
        court.opg(addresses::INSURANCE).await - insurance,
        slash / 10 * 2 - 2 * fee
    );
    let burned: u128 = court.view(addresses::SLASHING, Slashing::burnedCall {}).await.to();
    assert_eq!(burned, slash / 2);
    // with less than the least bond, no receipt of the node is taken
    let late = json!([format!("0x{}", hex::encode(court.signed(10, |_| {}).cose()))]);
    let refused = court.network.error(2, "og_submitReceipt", late).await;
    assert!(refused["message"].as_str().unwrap().contains("bond"), "{refused}");

    // the same number again, with other words: known, and no second slash
    let third = court.signed(9, |core| core.prev = B256::repeat_byte(4));
    let (_, status) = court.report(slashing::WRONG_INFERENCE, pair(&third, &first)).await;
    assert_eq!((status, court.bond().await), (dismissed, bond - slash));
    assert_eq!(
        court.credit().await,
        earned + 2 * WEI_PER_OPG,
        "the second bond came back"
    );

    // receipts that prove nothing cost their bond, half of which is the operator's
    let operator = court.network.genesis.nodes[0].operator;
    let other = court.signed(11, |_| {});
    let (_, status) = court.report(slashing::WRONG_INFERENCE, pair(&first, &other)).await;
    assert_eq!((status, court.credit().await), (dismissed, earned + 2 * WEI_PER_OPG));
    let account = operator;
    let credit = court.view(addresses::SLASHING, Slashing::creditsCall { account }).await;
    assert_eq!(credit.to::<u128>(), WEI_PER_OPG / 2);
    let (_, status) = court.report(slashing::FORGED_EVIDENCE, other.cose().to_vec()).await;
    assert_eq!((status, court.bond().await), (dismissed, bond - slash));

    // a claim of attestation that the registry does not know costs everything
    let claim = court.signed(12, |core| {
        core.mode = ModeRecord {
            asked: Mode::Tee,
            min_grade: Grade::Hardware,
            served: Mode::Tee,
            grade: Grade::Hardware,
        };
        core.evidence = Some(Evidence {
            evidence_id: Some(B256::repeat_byte(0xee)),
            policy_epoch: Some(1),
            ..Evidence::default()
        });
    });
    let (id, status) = court.report(slashing::FORGED_EVIDENCE, claim.cose().to_vec()).await;
    assert_eq!(status, frozen);
    court.execute(id).await;
    assert_eq!(court.bond().await, 0);
    let node = court.network.genesis.nodes[0].node_id();
    let left = court
        .view(addresses::NODE_REGISTRY, NodeRegistry::nodesCall { nodeId: node })
        .await;
    assert!(left.inactiveAt.to::<u64>() > 0, "it has left for ever");

    // all four executed the same
    let there = court.network.height(0);
    court.network.reach(there).await;
    court.network.stop_all().await;
}

/// A validator signs a vote for a block that names a proof which does not hold. The proof is published, four validators read it from their
/// states, and the vote costs stake. The same vote for a proof that holds costs the reporter's bond.
#[tokio::test(flavor = "multi_thread")]
async fn a_validator_pays_for_its_vote_for_an_invalid_proof() {
    let mut court = Court {
        network: Network::start_with(support::staked(WINDOW)).await,
        nonce: 0,
    };
    let approve = OPG::approveCall {
        spender: addresses::SLASHING,
        value: U256::MAX,
    };
    court.send(addresses::OPG, approve).await;
    let genesis = court.network.genesis.clone();
    let (receipt, artefact) = receipts::proven(&genesis, 0, B256::ZERO, Amount(5_000_000));
    let mut forged = artefact.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let operator = genesis.validators[2].operator;
    let (frozen, dismissed) = (2, 5);
    let liable = Staking::liableCall { operator, fault: 0 };
    let before = court.view(addresses::STAKING, liable.clone()).await;

    let mut reported = Vec::new();
    for proof in [&artefact, &forged] {
        let mut block = ChainBlock::genesis(genesis.digest(), B256::repeat_byte(9));
        block.height = 3;
        block.proofs = vec![ProofName {
            core_hash: receipt.core_hash(),
            artefact: sha256(proof),
        }];
        let vote = support::votes::notarize(&genesis, 2, (0, 9), block.digest());
        let mut evidence = encode_vote(&vote, &block.opening()).unwrap();
        evidence.extend(slashing::encode_proof_evidence(0, receipt.cose()).unwrap());
        for part in court.publish(proof).await {
            evidence.extend_from_slice(part.as_slice());
        }
        let asked = json!([
            slashing::INVALID_VOTE,
            operator.into_word(),
            0,
            Bytes::from(evidence.clone())
        ]);
        let judged = court.network.call(1, "og_judgeFault", asked).await;
        assert_eq!(judged["proven"], proof == &forged, "{judged}");
        let subject = operator.into_word();
        reported.push(court.report_about(slashing::INVALID_VOTE, subject, evidence).await);
    }
    assert_eq!((reported[0].1, reported[1].1), (dismissed, frozen));
    let now = court.view(addresses::STAKING, liable.clone()).await;
    assert_eq!(now, before, "nothing is taken yet");
    court.execute(reported[1].0).await;
    // one seat of four: three quarters
    let left = court.view(addresses::STAKING, liable).await;
    assert_eq!(left, before / U256::from(4));

    let there = court.network.height(0);
    court.network.reach(there).await;
    court.network.stop_all().await;
}
