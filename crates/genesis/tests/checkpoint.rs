//! `Checkpoint.sol` and `HomeFeeVault.sol`: certificates by commonware, state proofs by alloy, and whoever tries to get around them.
#![allow(missing_docs)]

#[path = "common/bls.rs"]
mod bls;
mod common;
#[path = "common/home.rs"]
mod home;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolConstructor, SolError, SolValue};
use common::{assert_reverts, file, who};
use home::{Certified, SeatEntry, Set, Storage, certify, header, neighbours, prove};
use opg_contracts::{Checkpoint, HomeFeeVault, OPG, addresses, checkpoint::BLS, genesis_file::SUPPLY, slots};
use opg_genesis::evm::{CallError, Evm, Executed};
use opg_primitives::merkle;

const STAKING: Address = Address::with_last_byte(0x99);
const PAYOUTS: Address = Address::with_last_byte(0x98);
const CHECKPOINT: Address = Address::repeat_byte(0xc1);
const VAULT: Address = Address::repeat_byte(0xc2);
const EPOCH: u64 = 3;

/// Base, with the network's light client.
struct Home {
    evm: Evm,
    digest: B256,
    set: Set,
    storage: Storage,
}

fn seats(set: &Set) -> Vec<Checkpoint::Seat> {
    set.seats
        .iter()
        .map(|seat: &SeatEntry| Checkpoint::Seat {
            operator: seat.operator,
            consensusKey: seat.consensusKey,
            blsKey: seat.blsKey.clone(),
            system: seat.system,
        })
        .collect()
}

fn set_hash_slot(epoch: u64) -> U256 {
    keccak256((U256::from(epoch), U256::ZERO).abi_encode()).into()
}

impl Home {
    fn new(count: usize) -> Self {
        Self::deployed(count, |_| {}).unwrap()
    }

    fn deployed(count: usize, edit: impl FnOnce(&mut Checkpoint::constructorCall)) -> Result<Self, CallError> {
        let digest = file().digest();
        let set = Set::new(count, 7, digest);
        let mut evm = Evm::new(8_453, common::START);
        let mut arguments = Checkpoint::constructorCall {
            staking_: STAKING,
            ledger_: addresses::RECEIPT_LEDGER,
            genesisDigest: digest,
            epoch_: EPOCH,
            set: seats(&set),
            order: set.order.clone(),
            ys: set.ys.clone(),
        };
        edit(&mut arguments);
        let code = [Checkpoint::BYTECODE.as_ref(), &arguments.abi_encode()].concat();
        evm.construct(CHECKPOINT, code.into())?;
        let mut storage = Storage::new();
        neighbours(&mut storage, STAKING, 300);
        neighbours(&mut storage, addresses::RECEIPT_LEDGER, 300);
        Ok(Self {
            evm,
            digest,
            set,
            storage,
        })
    }

    fn quorum(&self) -> Vec<usize> {
        (0..self.set.quorum()).collect()
    }

    fn state_root(&self) -> B256 {
        prove(&self.storage, STAKING, U256::ZERO).0
    }

    /// A header of the current state, certified by a bare quorum of the current set.
    fn certified(&self, epoch: u64, number: u64) -> Certified {
        certify(&self.set, &self.quorum(), epoch, &header(number, self.state_root()), 0)
    }

    fn submit(&mut self, certified: &Certified) -> Result<Executed, CallError> {
        let data = submit_call(certified).abi_encode();
        // Points that are no points cost all the gas that is given.
        self.evm
            .send_with_gas(who("relayer"), CHECKPOINT, U256::ZERO, data.into(), 10_000_000)
    }

    fn hand_over(&mut self, next: &Set, slot: U256) -> Result<Executed, CallError> {
        let (_, account, proof) = prove(&self.storage, STAKING, slot);
        let call = Checkpoint::handOverCall {
            accountProof: account,
            slotProof: proof,
            set: seats(next),
            order: next.order.clone(),
            ys: next.ys.clone(),
        };
        self.send_big(call.abi_encode())
    }

    fn send_big(&mut self, data: Vec<u8>) -> Result<Executed, CallError> {
        self.evm
            .send_with_gas(who("relayer"), CHECKPOINT, U256::ZERO, data.into(), 16_777_216)
    }

    fn head(&mut self) -> (u64, u64, B256) {
        let head = self.evm.view(CHECKPOINT, Checkpoint::headCall {}).unwrap();
        (head.epoch, head.height, head.stateRoot)
    }
}

fn submit_call(certified: &Certified) -> Checkpoint::submitCall {
    let point = bls::words(&bls::packed_signature(&certified.signature));
    Checkpoint::submitCall {
        certified: Checkpoint::Certified {
            proposal: certified.proposal.clone(),
            envelopes: certified.envelopes.clone(),
            header: certified.header.clone(),
            signers: certified.signers,
            signature: BLS::G1Point {
                xHigh: point[0],
                xLow: point[1],
                yHigh: point[2],
                yLow: point[3],
            },
        },
    }
}

/// Certificates of commonware's scheme, which the native light client of consensus accepts as well, at every size of a set.
#[test]
fn certified_headers_are_taken() {
    for count in [1usize, 4, 7, 100] {
        let mut home = Home::new(count);
        let certified = home.certified(EPOCH, 41);
        let participants: Vec<_> = home
            .set
            .seats
            .iter()
            .map(|seat| opg_consensus::Participant {
                identity: opg_consensus::Identity(seat.consensusKey.0),
                bls: opg_consensus::BlsPublicKey(seat.blsKey.as_ref().try_into().unwrap()),
            })
            .collect();
        opg_consensus::verify_certificate(home.digest, &participants, &certified.proposal, &certified.certificate)
            .unwrap();
        let done = home.submit(&certified).unwrap();
        println!("certificate of {} of {count}: {} gas", home.set.quorum(), done.gas_used);
        assert_eq!(home.head(), (EPOCH, 41, home.state_root()));
        // Everybody, three blocks above.
        let everybody: Vec<_> = (0..count).collect();
        let above = certify(&home.set, &everybody, EPOCH, &header(50, B256::repeat_byte(5)), 3);
        let done = home.submit(&above).unwrap();
        println!(
            "certificate of {count} of {count}, three blocks above: {} gas",
            done.gas_used
        );
        assert_eq!(home.head(), (EPOCH, 50, B256::repeat_byte(5)));
        if count == 100 {
            common::figure(
                "certificate of 100 validators, checked on another chain",
                done.gas_used,
                Some(600_000),
            );
        }
        assert!(done.gas_used <= 600_000, "the bar");
    }
}

#[test]
fn too_few_signers_are_refused() {
    let mut home = Home::new(7);
    let header = header(41, home.state_root());
    for signers in [vec![], vec![0], vec![0, 1, 2, 3], vec![3, 4, 5, 6]] {
        if signers.is_empty() {
            let mut none = home.certified(EPOCH, 41);
            none.signers = U256::ZERO;
            assert_reverts::<Checkpoint::NoQuorum, _>(home.submit(&none));
            continue;
        }
        let few = certify(&home.set, &signers, EPOCH, &header, 0);
        assert_reverts::<Checkpoint::NoQuorum, _>(home.submit(&few));
        // The same signatures under a bitmap that claims more.
        let mut claimed = few.clone();
        claimed.signers = U256::from(0b1_1111);
        assert_reverts::<Checkpoint::InvalidSignature, _>(home.submit(&claimed));
        let mut beyond = few;
        beyond.signers |= U256::ONE << 7;
        assert_reverts::<Checkpoint::Malformed, _>(home.submit(&beyond));
    }
    // Five of seven are a quorum.
    let enough = certify(&home.set, &[1, 2, 4, 5, 6], EPOCH, &header, 0);
    home.submit(&enough).unwrap();
}

#[test]
fn other_epochs_networks_and_messages_are_refused() {
    let mut home = Home::new(4);
    for epoch in [EPOCH - 1, EPOCH + 1, 300] {
        let other = home.certified(epoch, 41);
        assert_reverts::<Checkpoint::WrongEpoch, _>(home.submit(&other));
    }
    // The right epoch written over the wrong one is another message.
    let mut rewritten = home.certified(EPOCH + 1, 41);
    let mut proposal = rewritten.proposal.to_vec();
    proposal[0] = EPOCH as u8;
    rewritten.proposal = proposal.into();
    assert_reverts::<Checkpoint::InvalidSignature, _>(home.submit(&rewritten));
    // The same validators on another network.
    let elsewhere = Set::new(4, 7, B256::repeat_byte(0xee));
    let foreign = certify(&elsewhere, &[0, 1, 2], EPOCH, &header(41, home.state_root()), 0);
    assert_reverts::<Checkpoint::InvalidSignature, _>(home.submit(&foreign));
    // Other validators.
    let others = Set::new(4, 8, home.digest);
    let foreign = certify(&others, &[0, 1, 2], EPOCH, &header(41, home.state_root()), 0);
    assert_reverts::<Checkpoint::InvalidSignature, _>(home.submit(&foreign));
    // Infinity as signature.
    let good = home.certified(EPOCH, 41);
    let mut call = submit_call(&good);
    call.certified.signature = BLS::G1Point {
        xHigh: B256::ZERO,
        xLow: B256::ZERO,
        yHigh: B256::ZERO,
        yLow: B256::ZERO,
    };
    let result = home.send_big(call.abi_encode());
    assert_reverts::<Checkpoint::InvalidSignature, _>(result);
    home.submit(&good).unwrap();
}

#[test]
fn replays_and_older_headers_are_refused() {
    let mut home = Home::new(4);
    let (old, new) = (home.certified(EPOCH, 41), home.certified(EPOCH, 42));
    home.submit(&new).unwrap();
    assert_reverts::<Checkpoint::NotNewer, _>(home.submit(&new));
    assert_reverts::<Checkpoint::NotNewer, _>(home.submit(&old));
}

#[test]
fn every_link_from_digest_to_header_is_checked() {
    let mut home = Home::new(4);
    let quorum = home.quorum();
    let good = certify(&home.set, &quorum, EPOCH, &header(41, home.state_root()), 2);
    let mut bad = good.clone();
    bad.header = alloy_rlp::encode(header(41, B256::repeat_byte(0xee))).into();
    assert_reverts::<Checkpoint::Mismatch, _>(home.submit(&bad));
    // A header that claims another height than its envelope, signed by everybody: still refused.
    let lying = Header {
        number: 77,
        ..header(41, home.state_root())
    };
    let mut bad = certify(&home.set, &quorum, EPOCH, &lying, 0);
    let envelope = [
        bad.envelopes[..32].to_vec(),
        41u64.to_be_bytes().to_vec(),
        bad.envelopes[40..].to_vec(),
    ]
    .concat();
    bad.envelopes = envelope.into();
    assert_reverts::<Checkpoint::Mismatch, _>(home.submit(&bad));
    for i in [0, 31, 33, 39, 40, 71, 72, 103, 104, 140, 207, 208, 311] {
        let mut bad = good.clone();
        let mut envelopes = bad.envelopes.to_vec();
        envelopes[i] ^= 1;
        bad.envelopes = envelopes.into();
        assert!(home.submit(&bad).is_err(), "byte {i} of the envelopes");
    }
    for cut in [0, 103, 104, 311] {
        let mut bad = good.clone();
        bad.envelopes = bad.envelopes.slice(..cut);
        assert!(home.submit(&bad).is_err(), "{cut} bytes of envelopes");
    }
    for i in 0..good.proposal.len() {
        let mut bad = good.clone();
        let mut proposal = bad.proposal.to_vec();
        proposal[i] ^= 1;
        bad.proposal = proposal.into();
        assert!(home.submit(&bad).is_err(), "byte {i} of the proposal");
        let mut bad = good.clone();
        bad.proposal = bad.proposal.slice(..i);
        assert!(home.submit(&bad).is_err(), "{i} bytes of the proposal");
    }
    let mut bad = good.clone();
    bad.proposal = [good.proposal.as_ref(), &[0]].concat().into();
    assert_reverts::<Checkpoint::Malformed, _>(home.submit(&bad));
    home.submit(&good).unwrap();
}

#[test]
fn sets_follow_each_other() {
    let mut home = Home::new(4);
    let next = Set::new(5, 9, home.digest);
    // Before the last block of the epoch no state names the next set.
    home.submit(&home.certified(EPOCH, 40)).unwrap();
    assert!(home.hand_over(&next, set_hash_slot(EPOCH + 1)).is_err());
    let staking = home.storage.get_mut(&STAKING).unwrap();
    staking.insert(set_hash_slot(EPOCH), home.set.hash().into());
    staking.insert(set_hash_slot(EPOCH + 1), next.hash().into());
    // Proofs under a state that is not the newest certified one.
    assert!(home.hand_over(&next, set_hash_slot(EPOCH + 1)).is_err());
    home.submit(&home.certified(EPOCH, 41)).unwrap();
    // The current set's own entry is no hand-over.
    let current = Set::new(4, 7, home.digest);
    assert!(home.hand_over(&current, set_hash_slot(EPOCH)).is_err());
    // A set that the state does not name.
    let forged = Set::new(5, 10, home.digest);
    assert_reverts::<Checkpoint::Mismatch, _>(home.hand_over(&forged, set_hash_slot(EPOCH + 1)));
    let done = home.hand_over(&next, set_hash_slot(EPOCH + 1)).unwrap();
    println!("hand-over to 5 seats: {} gas", done.gas_used);
    assert!(home.hand_over(&next, set_hash_slot(EPOCH + 1)).is_err(), "once");
    // From now on the new set signs, and the old one is nobody.
    assert_reverts::<Checkpoint::WrongEpoch, _>({
        let old = home.certified(EPOCH, 42);
        home.submit(&old)
    });
    assert_reverts::<Checkpoint::InvalidSignature, _>({
        // Four of the old five-seat quorum's shape.
        let mut old = certify(&home.set, &[0, 1, 2, 3], EPOCH + 1, &header(42, home.state_root()), 0);
        old.signers = U256::from(0b1111);
        home.submit(&old)
    });
    home.set = next;
    home.submit(&home.certified(EPOCH + 1, 42)).unwrap();
    assert_eq!(home.head().0, EPOCH + 1);
}

/// A hundred seats: the bar for a hand-over is one transaction of Base.
#[test]
fn a_hand_over_to_a_hundred_seats_fits_a_transaction() {
    let mut home = Home::new(100);
    let next = Set::new(100, 9, home.digest);
    let staking = home.storage.get_mut(&STAKING).unwrap();
    staking.insert(set_hash_slot(EPOCH + 1), next.hash().into());
    let last = home.submit(&home.certified(EPOCH, 41)).unwrap();
    let done = home.hand_over(&next, set_hash_slot(EPOCH + 1)).unwrap();
    println!(
        "certificate of 67 of 100: {} gas; hand-over to 100 seats: {} gas",
        last.gas_used, done.gas_used
    );
    common::figure(
        "certificate of 67 of 100 validators, checked on another chain",
        last.gas_used,
        Some(600_000),
    );
    common::figure(
        "hand-over to 100 seats on another chain",
        done.gas_used,
        Some(10_000_000),
    );
    assert!(last.gas_used <= 600_000 && done.gas_used <= 10_000_000);
}

#[test]
fn keys_given_with_a_set_are_those_in_it() {
    let reverted = |edit: fn(&mut Checkpoint::constructorCall)| match Home::deployed(4, edit) {
        Err(CallError::Revert(data)) => data.get(..4).map(<[u8]>::to_vec),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    };
    let malformed = Some(Checkpoint::Malformed::SELECTOR.to_vec());
    let mismatch = Some(Checkpoint::Mismatch::SELECTOR.to_vec());
    // Another order, a seat twice, a seat that is not there, too few.
    assert_eq!(
        reverted(|c| {
            let mut order = c.order.to_vec();
            order.swap(0, 1);
            c.order = order.into();
        }),
        malformed
    );
    assert_eq!(
        reverted(|c| {
            let mut order = c.order.to_vec();
            order[1] = order[0];
            c.order = order.into();
        }),
        malformed
    );
    assert_eq!(
        reverted(|c| {
            let mut order = c.order.to_vec();
            order[3] = 4;
            c.order = order.into();
        }),
        malformed
    );
    assert_eq!(reverted(|c| c.order = c.order.slice(..3)), malformed);
    assert_eq!(reverted(|c| c.ys = c.ys.slice(1..)), malformed);
    assert_eq!(reverted(|c| c.set.clear()), malformed);
    // The y of another key, and the other y of the same key.
    let rotated = |c: &mut Checkpoint::constructorCall| {
        let mut ys = c.ys.to_vec();
        ys.rotate_left(96);
        c.ys = ys.into();
    };
    assert!(reverted(rotated).is_some());
    let negated = |c: &mut Checkpoint::constructorCall| {
        let p = alloy_primitives::hex!(
            "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab"
        );
        let mut ys = c.ys.to_vec();
        for part in [0, 48] {
            let mut borrow = 0i16;
            for i in (0..48).rev() {
                let digit = i16::from(p[i]) - i16::from(ys[part + i]) - borrow;
                borrow = i16::from(digit < 0);
                ys[part + i] = (digit + 256 * borrow) as u8;
            }
        }
        c.ys = ys.into();
    };
    assert_eq!(reverted(negated), mismatch);
    assert_eq!(reverted(|_| {}), None);
}

#[test]
fn storage_is_proved_and_forged_proofs_are_not() {
    let mut home = Home::new(4);
    let slot = U256::from_be_bytes(keccak256(5u64.to_be_bytes()).0);
    home.submit(&home.certified(EPOCH, 41)).unwrap();
    let (root, account, proof) = prove(&home.storage, STAKING, slot);
    assert_eq!(home.head().2, root);
    let call = |account_proof: &[Bytes], slot_proof: &[Bytes], height, of, key: U256| Checkpoint::storageAtCall {
        height,
        account: of,
        slot: key.into(),
        accountProof: account_proof.to_vec(),
        slotProof: slot_proof.to_vec(),
    };
    let got = home
        .evm
        .view(CHECKPOINT, call(&account, &proof, 41, STAKING, slot))
        .unwrap();
    assert_eq!(got, B256::with_last_byte(6));
    assert_reverts::<Checkpoint::NotCertified, _>(home.evm.view(CHECKPOINT, call(&account, &proof, 40, STAKING, slot)));
    let mut refused = |account: &[Bytes], proof: &[Bytes], of, key| {
        assert!(home.evm.view(CHECKPOINT, call(account, proof, 41, of, key)).is_err());
    };
    // Another account or slot by the same proof; a proof with a changed, missing or added node; a proof of another state.
    refused(&account, &proof, addresses::RECEIPT_LEDGER, slot);
    refused(&account, &proof, STAKING, slot + U256::ONE);
    for list in [&account, &proof] {
        for i in 0..list.len() {
            let mut changed = list.clone();
            let mut node = changed[i].to_vec();
            *node.last_mut().unwrap() ^= 1;
            changed[i] = node.into();
            let (a, s) = if std::ptr::eq(list, &account) {
                (&changed, &proof)
            } else {
                (&account, &changed)
            };
            refused(a, s, STAKING, slot);
        }
        let (a, s) = if std::ptr::eq(list, &account) {
            (account[1..].to_vec(), proof.clone())
        } else {
            (account.clone(), proof[..proof.len() - 1].to_vec())
        };
        refused(&a, &s, STAKING, slot);
    }
    refused(&[], &[], STAKING, slot);
    let mut other = home.storage.clone();
    other.get_mut(&STAKING).unwrap().insert(slot, U256::from(1_000));
    let (_, forged_account, forged_proof) = prove(&other, STAKING, slot);
    refused(&forged_account, &forged_proof, STAKING, slot);
    refused(&account, &forged_proof, STAKING, slot);
}

#[test]
fn receipts_are_proved_under_the_batch_root() {
    for count in [1usize, 2, 3, 7, 8] {
        let mut home = Home::new(4);
        let cores: Vec<_> = (0..count as u64).map(|i| keccak256(i.to_be_bytes())).collect();
        let root = merkle::batch_root_of(30, &cores).unwrap();
        let slot = slots::batch_root(30);
        let ledger = home.storage.get_mut(&addresses::RECEIPT_LEDGER).unwrap();
        ledger.insert(slot, root.into());
        home.submit(&home.certified(EPOCH, 41)).unwrap();
        let (_, account, proof) = prove(&home.storage, addresses::RECEIPT_LEDGER, slot);
        let leaves: Vec<_> = cores.iter().map(|core| merkle::leaf(*core)).collect();
        for (index, core) in cores.iter().enumerate() {
            let call = |core_hash, index, count, height, path: Vec<B256>| Checkpoint::includesReceiptCall {
                certified: 41,
                height,
                coreHash: core_hash,
                index,
                count,
                path,
                accountProof: account.clone(),
                slotProof: proof.clone(),
            };
            let path = merkle::prove(&leaves, index).unwrap();
            let (i, n) = (index as u32, count as u32);
            let good = call(*core, i, n, 30, path.clone());
            assert!(home.evm.view(CHECKPOINT, good).unwrap(), "{index} of {count}");
            let longer = [path.clone(), vec![B256::ZERO]].concat();
            for bad in [
                call(B256::ZERO, i, n, 30, path.clone()),
                call(*core, i + 1, n, 30, path.clone()),
                call(*core, i, n + 1, 30, path.clone()),
                call(*core, i, i, 30, path.clone()),
                call(*core, i, n, 42, path.clone()),
                call(*core, i, n, 30, longer),
            ] {
                assert!(!home.evm.view(CHECKPOINT, bad).unwrap(), "{index} of {count}");
            }
            // Another block's root is in another slot.
            assert!(home.evm.view(CHECKPOINT, call(*core, i, n, 31, path)).is_err());
        }
    }
}

/// Payees and what they were credited, with the tree of the network's payouts.
struct Payouts {
    leaves: Vec<(Address, B256, u128)>,
}

impl Payouts {
    fn hashes(&self) -> Vec<B256> {
        let mut hashes: Vec<_> = self
            .leaves
            .iter()
            .map(|(payee, node, amount)| keccak256(keccak256((*payee, *node, U256::from(*amount)).abi_encode())))
            .collect();
        hashes.sort();
        hashes
    }

    /// Root and the path of one leaf; two neighbours are hashed in ascending order, a last one alone goes up as it is.
    fn tree(&self, leaf: B256) -> (B256, Vec<B256>) {
        let (mut level, mut at, mut path) = (self.hashes(), leaf, Vec::new());
        while level.len() > 1 {
            let mut next = Vec::new();
            for pair in level.chunks(2) {
                let [a, b] = pair else {
                    next.push(pair[0]);
                    continue;
                };
                let parent = keccak256([a.min(b).0, a.max(b).0].concat());
                if at == *a || at == *b {
                    path.push(if at == *a { *b } else { *a });
                    at = parent;
                }
                next.push(parent);
            }
            level = next;
        }
        (level[0], path)
    }

    fn claim(&self, i: usize) -> HomeFeeVault::claimCall {
        let (payee, node, amount) = self.leaves[i];
        let hash = keccak256(keccak256((payee, node, U256::from(amount)).abi_encode()));
        HomeFeeVault::claimCall {
            leaf: HomeFeeVault::Leaf {
                payee,
                nodeId: node,
                cumulative: U256::from(amount),
            },
            proof: self.tree(hash).1,
        }
    }

    fn root(&self) -> B256 {
        self.tree(B256::ZERO).0
    }
}

const NODE_A: B256 = B256::repeat_byte(0xaa);
const NODE_B: B256 = B256::repeat_byte(0xbb);

/// The chain with OPG and the vault.
fn vault_home() -> Home {
    let mut home = Home::new(4);
    home.evm.construct(addresses::OPG, OPG::BYTECODE.clone()).unwrap();
    let payer = who("payer");
    home.evm.set_balance(payer, U256::from(SUPPLY));
    let deposit = OPG::depositCall {}.abi_encode();
    home.evm
        .send(payer, addresses::OPG, U256::from(SUPPLY), deposit.into())
        .unwrap();
    let arguments = HomeFeeVault::constructorCall {
        opg_: addresses::OPG,
        checkpoint_: CHECKPOINT,
        payouts_: PAYOUTS,
        payoutSlot_: B256::ZERO,
    };
    let code = [HomeFeeVault::BYTECODE.as_ref(), &arguments.abi_encode()].concat();
    home.evm.construct(VAULT, code.into()).unwrap();
    home
}

impl Home {
    fn pay(&mut self, node: B256, amount: u128) {
        let to = self
            .evm
            .view(VAULT, HomeFeeVault::depositAddressOfCall { nodeId: node })
            .unwrap();
        let value = U256::from(amount);
        let transfer = OPG::transferCall { to, value };
        self.evm.call(who("payer"), addresses::OPG, transfer).unwrap();
    }

    /// The network's validators certify these payouts at a height.
    fn publish(&mut self, payouts: &Payouts, height: u64) {
        let root = payouts.root();
        self.storage.entry(PAYOUTS).or_default().insert(U256::ZERO, root.into());
        self.submit(&self.certified(EPOCH, height)).unwrap();
        self.set_root(height).unwrap();
    }

    fn set_root(&mut self, height: u64) -> Result<(), CallError> {
        let (_, account, proof) = prove(&self.storage, PAYOUTS, U256::ZERO);
        let call = HomeFeeVault::setRootCall {
            height,
            accountProof: account,
            slotProof: proof,
        };
        self.evm.call(who("relayer"), VAULT, call).map(|_| ())
    }

    fn claim(&mut self, payouts: &Payouts, i: usize) -> Result<u128, CallError> {
        self.evm
            .call(who("anyone"), VAULT, payouts.claim(i))
            .map(|amount| amount.to())
    }

    fn opg(&mut self, account: Address) -> u128 {
        self.evm
            .view(addresses::OPG, OPG::balanceOfCall { account })
            .unwrap()
            .to()
    }
}

#[test]
fn payouts_are_cumulative_per_payee_and_node() {
    let mut home = vault_home();
    home.pay(NODE_A, 1_000);
    home.pay(NODE_B, 500);
    let operator = who("operator");
    let mut payouts = Payouts {
        leaves: vec![
            (operator, NODE_A, 700),
            (who("creator"), NODE_A, 300),
            (operator, NODE_B, 500),
        ],
    };
    assert_reverts::<HomeFeeVault::InvalidProof, _>(home.claim(&payouts, 0));
    home.publish(&payouts, 41);
    assert_eq!(home.claim(&payouts, 0).unwrap(), 700);
    assert_eq!(home.claim(&payouts, 0).unwrap(), 0, "nothing twice");
    assert_eq!(home.claim(&payouts, 2).unwrap(), 500);
    assert_eq!(home.opg(operator), 1_200);
    // More is credited later; an older root does not come back.
    home.pay(NODE_A, 50);
    payouts.leaves[0].2 = 740;
    home.publish(&payouts, 42);
    assert_eq!(home.claim(&payouts, 0).unwrap(), 40);
    assert_eq!(home.claim(&payouts, 1).unwrap(), 300);
    assert_reverts::<HomeFeeVault::NotNewer, _>(home.set_root(42));
    assert_reverts::<HomeFeeVault::NotNewer, _>(home.set_root(41));
    let held = home
        .evm
        .view(VAULT, HomeFeeVault::balanceOfCall { nodeId: NODE_A })
        .unwrap();
    assert_eq!((held, home.opg(VAULT)), (U256::from(10), 10));
}

/// All validators together sign that a stranger earned everything at one node: that node's deposits go, and not a wei of another's.
#[test]
fn a_false_root_takes_nothing_from_another_node() {
    let mut home = vault_home();
    home.pay(NODE_A, 1_000);
    home.pay(NODE_B, 500);
    let honest = Payouts {
        leaves: vec![(who("operator"), NODE_B, 500), (who("x"), NODE_A, 1)],
    };
    let false_root = Payouts {
        leaves: vec![
            (who("mallory"), NODE_A, u128::MAX),
            (who("mallory"), B256::ZERO, u128::MAX),
        ],
    };
    home.publish(&false_root, 41);
    assert_eq!(home.claim(&false_root, 0).unwrap(), 1_000, "all of A");
    assert_eq!(home.claim(&false_root, 0).unwrap(), 0);
    assert_eq!(home.claim(&false_root, 1).unwrap(), 0, "a node without deposits");
    assert_eq!(home.opg(who("mallory")), 1_000);
    home.publish(&honest, 42);
    assert_eq!(home.claim(&honest, 0).unwrap(), 500, "B is whole");
    // What comes to A later still goes to the false claim only while such a root is in force.
    home.pay(NODE_A, 70);
    assert_eq!(home.claim(&honest, 1).unwrap(), 1);
}

#[test]
fn claims_above_the_deposits_wait_for_deposits() {
    let mut home = vault_home();
    home.pay(NODE_A, 100);
    let payouts = Payouts {
        leaves: vec![(who("operator"), NODE_A, 250), (who("creator"), NODE_A, 30)],
    };
    home.publish(&payouts, 41);
    assert_eq!(home.claim(&payouts, 0).unwrap(), 100);
    assert_eq!(home.claim(&payouts, 1).unwrap(), 0);
    home.pay(NODE_A, 160);
    assert_eq!(home.claim(&payouts, 1).unwrap(), 30);
    assert_eq!(home.claim(&payouts, 0).unwrap(), 130);
    home.pay(NODE_A, 500);
    assert_eq!(
        home.claim(&payouts, 0).unwrap(),
        20,
        "the rest of what is owed, no more"
    );
    // Deposits of one node do not serve credits of another.
    home.pay(NODE_B, 1_000);
    assert_eq!(home.claim(&payouts, 0).unwrap(), 0);
}

#[test]
fn leaves_that_are_not_there_are_refused() {
    let mut home = vault_home();
    home.pay(NODE_A, 1_000);
    home.pay(NODE_B, 1_000);
    let payouts = Payouts {
        leaves: vec![
            (who("operator"), NODE_A, 700),
            (who("creator"), NODE_A, 300),
            (addresses::INSURANCE, NODE_B, 10),
        ],
    };
    home.publish(&payouts, 41);
    for edit in [
        (|c: &mut HomeFeeVault::claimCall| c.leaf.payee = who("mallory")) as fn(&mut HomeFeeVault::claimCall),
        |c| c.leaf.nodeId = NODE_B,
        |c| c.leaf.cumulative += U256::ONE,
        |c| c.proof.clear(),
        |c| c.proof.push(B256::ZERO),
    ] {
        let mut call = payouts.claim(0);
        edit(&mut call);
        let result = home.evm.call(who("anyone"), VAULT, call);
        assert_reverts::<HomeFeeVault::InvalidProof, _>(result);
    }
    assert_reverts::<HomeFeeVault::CannotWithdraw, _>(home.claim(&payouts, 2));
    // A payout root that no certified state has.
    home.storage
        .entry(PAYOUTS)
        .or_default()
        .insert(U256::ZERO, U256::from(666));
    assert!(home.set_root(41).is_err());
    assert!(home.set_root(99).is_err());
}
