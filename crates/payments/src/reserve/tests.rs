use super::*;
use alloy_primitives::U256;
use proptest::prelude::*;
use redb::StorageBackend;
use std::{
    io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

const OPG: u128 = opg_primitives::money::WEI_PER_OPG;
const NOW: u64 = 1_000_000;

fn request(payer: u8, nonce: u64, amount: u128) -> Request {
    let authorization = Authorization {
        from: Address::repeat_byte(payer),
        to: Address::repeat_byte(0xee),
        value: U256::from(amount),
        valid_after: 0,
        valid_before: NOW + 60 + nonce,
        nonce: B256::from(U256::from(nonce)),
    };
    Request {
        authorization,
        signature: Bytes::from(vec![1; 65]),
        receipt_id: B256::from(U256::from(nonce + 1)),
        context: Bytes::new(),
        force_settle_first: false,
    }
}

fn open(path: &Path) -> Reservations {
    Reservations::open(Arc::new(Journal::open(path).unwrap()), Caps::default()).unwrap()
}

fn none(_: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(())
}

#[test]
fn a_thousand_copies_at_once_run_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let reservations = open(&dir.path().join("j"));
    let (runs, replays) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..50 {
                    match reservations.reserve(request(1, 7, 1000), NOW) {
                        Ok(reserved) => {
                            runs.fetch_add(1, Ordering::Relaxed);
                            reservations.serve(reserved.key, Amount(900), none).unwrap();
                        }
                        Err(ReserveError::Replayed { receipt_id, .. }) => {
                            assert_eq!(receipt_id, B256::from(U256::from(8)));
                            replays.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                    reservations.prune();
                }
            });
        }
    });
    assert_eq!((runs.into_inner(), replays.into_inner()), (1, 999));
}

#[test]
fn a_replay_after_restart_or_pruning_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let first = open(&path);
    let key = first.reserve(request(1, 1, 5), NOW).unwrap().key;
    first.serve(key, Amount(5), none).unwrap();
    first.settled(key, Some(B256::repeat_byte(1))).unwrap().wait().unwrap();
    first.prune();
    assert!(first.counts().is_empty());
    assert!(matches!(
        first.reserve(request(1, 1, 5), NOW),
        Err(ReserveError::Replayed {
            state: State::Settled,
            tx: Some(_),
            ..
        })
    ));
    drop(first);
    let second = open(&path);
    assert!(matches!(
        second.reserve(request(1, 1, 5), NOW),
        Err(ReserveError::Replayed {
            state: State::Settled,
            ..
        })
    ));
    assert!(
        second.reserve(request(2, 1, 5), NOW).is_ok(),
        "the nonce belongs to its payer"
    );
}

#[test]
fn interrupted_work_is_found_and_ended_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let first = open(&path);
    let reserved = first.reserve(request(1, 1, 5), NOW).unwrap();
    reserved.commit.wait().unwrap();
    drop(first);
    let second = open(&path);
    assert_eq!(second.interrupted().len(), 1);
    assert_eq!(second.interrupted()[0].key(), reserved.key);
    second.fail(reserved.key, none).unwrap().wait().unwrap();
    assert_eq!(second.get(reserved.key).unwrap().unwrap().state(), State::Released);
    drop(second);
    assert!(open(&path).interrupted().is_empty());
}

#[test]
fn caps_decide_and_settlement_frees_them() {
    let dir = tempfile::tempdir().unwrap();
    let reservations = open(&dir.path().join("j"));
    let first = reservations.reserve(request(1, 1, OPG / 10), NOW).unwrap();
    assert_eq!(first.decision, Decision::Serve);
    assert_eq!(
        reservations.reserve(request(1, 2, 1), NOW).unwrap().decision,
        Decision::SettleFirst
    );
    reservations.serve(first.key, Amount(1), none).unwrap();
    // The whole signed amount is at stake until it settles, not only the charge.
    assert_eq!(
        reservations.exposure(first.key.payer, NOW),
        (Amount(OPG / 10), Amount(OPG / 10))
    );
    reservations.sent(first.key, B256::ZERO).unwrap();
    assert_eq!(
        reservations.reserve(request(1, 3, 1), NOW).unwrap().decision,
        Decision::SettleFirst
    );
    reservations.settled(first.key, None).unwrap();
    assert_eq!(
        reservations.exposure(first.key.payer, NOW),
        (Amount::ZERO, Amount::ZERO)
    );
    assert_eq!(
        reservations.reserve(request(1, 4, 1), NOW).unwrap().decision,
        Decision::Serve
    );
    for payer in 2..102 {
        let decision = reservations.reserve(request(payer, 9, OPG / 10), NOW).unwrap().decision;
        let expected = if payer < 101 {
            Decision::Serve
        } else {
            Decision::SettleFirst
        };
        assert_eq!(decision, expected, "{payer}");
    }
}

#[test]
fn a_lost_payment_counts_for_ever_against_its_payer_and_a_day_against_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let reservations = open(&path);
    let reserved = reservations.reserve(request(1, 1, OPG / 10), NOW).unwrap();
    reservations.serve(reserved.key, Amount(1), none).unwrap();
    reservations.defaulted(reserved.key, NOW).unwrap().wait().unwrap();
    drop(reservations);
    let reservations = open(&path);
    let payer = reserved.key.payer;
    assert_eq!(reservations.exposure(payer, NOW), (Amount(OPG / 10), Amount(OPG / 10)));
    assert_eq!(
        reservations.exposure(payer, NOW + DEFAULT_MEMORY),
        (Amount(OPG / 10), Amount::ZERO)
    );
    reservations.settled(reserved.key, None).unwrap();
    assert_eq!(reservations.exposure(payer, NOW), (Amount::ZERO, Amount::ZERO));
}

#[test]
fn an_uncertain_settlement_keeps_its_hash_and_is_not_sent_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let reservations = open(&path);
    let key = reservations.reserve(request(1, 1, 5), NOW).unwrap().key;
    assert!(
        reservations.sent(key, B256::ZERO).is_err(),
        "nothing is owed while the work runs"
    );
    reservations.serve(key, Amount(5), none).unwrap();
    let tx = B256::repeat_byte(7);
    reservations.sent(key, tx).unwrap().wait().unwrap();
    assert!(reservations.sent(key, B256::repeat_byte(8)).is_err());
    assert!(reservations.unsettled(10).is_empty());
    drop(reservations);
    let reservations = open(&path);
    assert_eq!(reservations.uncertain()[0].money, Money::Sent { tx });
    assert!(
        matches!(reservations.reserve(request(1, 1, 5), NOW), Err(ReserveError::Replayed { state: State::Unknown, tx: Some(t), .. }) if t == tx)
    );
    reservations.returned(key).unwrap();
    assert_eq!(reservations.unsettled(10).len(), 1);
    reservations.sent(key, B256::repeat_byte(8)).unwrap();
    reservations.settled(key, Some(B256::repeat_byte(8))).unwrap();
    assert!(reservations.settled(key, None).is_err());
    assert!(reservations.returned(key).is_err());
    assert!(reservations.defaulted(key, NOW).is_err());
}

#[test]
fn settle_first_serves_only_after_settlement() {
    let dir = tempfile::tempdir().unwrap();
    let reservations = open(&dir.path().join("j"));
    let mut forced = request(1, 1, 5);
    forced.force_settle_first = true;
    let reserved = reservations.reserve(forced, NOW).unwrap();
    assert_eq!(reserved.decision, Decision::SettleFirst);
    assert!(reservations.serve(reserved.key, Amount(5), none).is_err());
    reservations.sent(reserved.key, B256::ZERO).unwrap();
    assert!(reservations.serve(reserved.key, Amount(5), none).is_err());
    reservations.settled(reserved.key, Some(B256::ZERO)).unwrap();
    assert_eq!(
        reservations.exposure(reserved.key.payer, NOW),
        (Amount::ZERO, Amount::ZERO)
    );
    reservations.serve(reserved.key, Amount(5), none).unwrap();
    assert!(
        reservations.serve(reserved.key, Amount(5), none).is_err(),
        "served once"
    );
    // Unknown outcome: the work fails, the money is still reconciled.
    let mut forced = request(1, 2, 5);
    forced.force_settle_first = true;
    let key = reservations.reserve(forced, NOW).unwrap().key;
    reservations.sent(key, B256::ZERO).unwrap();
    reservations.fail(key, none).unwrap();
    assert_eq!(reservations.uncertain().len(), 1);
    reservations.returned(key).unwrap();
    assert_eq!(reservations.get(key).unwrap().unwrap().state(), State::Released);
}

#[test]
fn charge_is_capped_and_a_free_answer_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let reservations = open(&dir.path().join("j"));
    let key = reservations.reserve(request(1, 1, 5), NOW).unwrap().key;
    reservations.serve(key, Amount(6), none).unwrap();
    assert_eq!(
        reservations.get(key).unwrap().unwrap().work,
        Work::Served { charge: Amount(5) }
    );
    let key = reservations.reserve(request(1, 2, 5), NOW).unwrap().key;
    reservations.serve(key, Amount::ZERO, none).unwrap();
    assert_eq!(reservations.get(key).unwrap().unwrap().state(), State::Released);
    assert_eq!(reservations.unsettled(10).len(), 1);
    let huge = Request {
        authorization: Authorization {
            value: U256::MAX,
            ..request(1, 3, 5).authorization
        },
        ..request(1, 3, 5)
    };
    assert!(matches!(
        reservations.reserve(huge, NOW),
        Err(ReserveError::Amount { .. })
    ));
}

#[test]
fn permits_are_taken_once_beside_authorizations_and_upto_takes_the_charge() {
    use crate::permit2::Witness;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let reservations = open(&path);
    let to = Address::repeat_byte(0xee);
    let request = |nonce: u64, witness| PermitRequest {
        permit: Permit {
            from: Address::repeat_byte(1),
            token: Address::repeat_byte(5),
            amount: U256::from(1000),
            nonce: U256::from(nonce),
            deadline: NOW + 60,
            witness,
        },
        signature: Bytes::from(vec![1; 65]),
        receipt_id: B256::from(U256::from(nonce + 1)),
        context: Bytes::new(),
        force_settle_first: false,
    };
    let exact = Witness::Exact { to, valid_after: 0 };
    let upto = Witness::Upto {
        to,
        facilitator: to,
        valid_after: 0,
    };
    // The same payer and number by the three ways: Permit2 has one space of nonces, ERC-3009 another.
    let other = reservations.reserve(self::request(1, 7, 5), NOW).unwrap();
    let first = reservations.reserve_permit(request(7, upto), NOW).unwrap();
    assert_ne!(other.key, first.key);
    for witness in [exact, upto] {
        let error = reservations.reserve_permit(request(7, witness), NOW).unwrap_err();
        assert!(matches!(error, ReserveError::Replayed { .. }));
    }
    let second = reservations.reserve_permit(request(8, exact), NOW).unwrap();
    for key in [first.key, second.key] {
        reservations.serve(key, Amount(400), none).unwrap().wait().unwrap();
    }
    let deposit = Witness::Deposit { channel_id: B256::ZERO };
    assert!(matches!(
        reservations.reserve_permit(request(9, deposit), NOW),
        Err(ReserveError::NotAPayment)
    ));
    drop(reservations);
    let reservations = open(&path);
    let record = |key| reservations.get(key).unwrap().unwrap();
    assert_eq!(record(first.key).permit, Some(request(7, upto).permit));
    assert_eq!(
        (record(first.key).due(), record(second.key).due()),
        (Amount(400), Amount(1000))
    );
    assert_eq!(record(first.key).authorization.to, to);
    assert!(matches!(
        reservations.reserve_permit(request(7, upto), NOW),
        Err(ReserveError::Replayed { .. })
    ));
}

#[test]
fn records_written_before_permits_are_read() {
    // What version 0.1 of this crate wrote for an open payment.
    let old = r#"{"authorization":{"from":"0x0101010101010101010101010101010101010101","to":"0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee","value":"5","valid_after":0,"valid_before":1000061,"nonce":"0x0000000000000000000000000000000000000000000000000000000000000001"},"signature":"0x01","amount":"5","receipt_id":"0x0000000000000000000000000000000000000000000000000000000000000002","reserved_at":1000000,"settle_first":false,"context":"0x","work":"running","money":"open"}"#;
    let record: Record = serde_json::from_str(old).unwrap();
    assert_eq!((record.permit, record.state()), (None, State::Reserved));
    assert_eq!(serde_json::to_string(&record).unwrap(), old);
    assert_eq!(record.key(), Key::from(&request(1, 1, 5).authorization));
}

const CHILD: &str = "OPG_PAYMENTS_KILL_CHILD";

/// Body of the process that the next test kills; does nothing in an ordinary run.
#[test]
fn kill_child() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let reservations = open(Path::new(&path));
    for nonce in 0.. {
        let reserved = reservations.reserve(request(1, nonce, 1), NOW).unwrap();
        reserved.commit.wait().unwrap();
        println!("reserved {nonce}");
        if nonce % 3 == 0 {
            reservations
                .serve(reserved.key, Amount(1), none)
                .unwrap()
                .wait()
                .unwrap();
            println!("served {nonce}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reserve::tests::kill_child", "--nocapture"])
        .env(CHILD, &path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while seen.len() < 40 {
        let line = lines.next().unwrap().unwrap();
        if line.starts_with("reserved") || line.starts_with("served") {
            seen.push(line);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    seen.extend(
        lines
            .map_while(Result::ok)
            .filter(|l| l.starts_with("reserved") || l.starts_with("served")),
    );
    let reservations = open(&path);
    for line in seen {
        let (word, nonce) = line.split_once(' ').unwrap();
        let Ok(nonce) = nonce.parse::<u64>() else {
            continue;
        };
        let key = Key::from(&request(1, nonce, 1).authorization);
        let record = reservations
            .get(key)
            .unwrap()
            .unwrap_or_else(|| panic!("{line} was lost"));
        assert!(word != "served" || record.state() == State::Served, "{line}");
        assert!(matches!(
            reservations.reserve(request(1, nonce, 1), NOW),
            Err(ReserveError::Replayed { .. })
        ));
    }
}

/// A disk that dies at the n-th operation and keeps an arbitrary subset of what was not synced.
#[derive(Debug, Default, Clone)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    operations: usize,
    dies_at: usize,
}

impl Disk {
    fn after_crash(&self, keep: u64) -> Self {
        let state = self.0.lock().unwrap();
        let mut image = state.synced.clone();
        image.resize(state.current.len().max(image.len()), 0);
        for (i, (offset, data)) in state.unsynced.iter().enumerate() {
            if keep >> (i % 64) & 1 == 1 {
                image[*offset as usize..][..data.len()].copy_from_slice(data);
            }
        }
        Self(Arc::new(Mutex::new(DiskState {
            synced: image.clone(),
            current: image,
            dies_at: usize::MAX,
            ..DiskState::default()
        })))
    }

    fn step(state: &mut DiskState) -> io::Result<()> {
        state.operations += 1;
        if state.operations > state.dies_at {
            Err(io::Error::other("the disk died"))
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let from = state
            .current
            .get(offset as usize..offset as usize + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        Self::step(&mut state)?;
        state.current.resize(len as usize, 0);
        let kept = state
            .unsynced
            .split_off(0)
            .into_iter()
            .filter(|(offset, data)| offset + data.len() as u64 <= len)
            .collect();
        state.unsynced = kept;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        Self::step(&mut state)?;
        state.synced = state.current.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        Self::step(&mut state)?;
        state.current[offset as usize..][..data.len()].copy_from_slice(data);
        state.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}

proptest! {
    #![proptest_config(opg_samples::cases(60))]
    /// Power fails at any write or sync: what was acknowledged is there, and no payment can be taken a second time.
    #[test]
    fn nothing_acknowledged_is_lost_by_a_power_failure(dies_after in 0_usize..400, keep: u64, plan in prop::collection::vec(0_u8..4, 1..40)) {
        let disk = Disk::default();
        disk.0.lock().unwrap().dies_at = usize::MAX;
        let mut acknowledged: Vec<(Key, State)> = Vec::new();
        {
            let journal = Arc::new(Journal::with_backend(disk.clone()).unwrap());
            {
                let mut state = disk.0.lock().unwrap();
                state.dies_at = state.operations + dies_after;
            }
            let reservations = Reservations::open(journal, Caps::default()).unwrap();
            'run: for (nonce, steps) in plan.iter().enumerate() {
                let Ok(reserved) = reservations.reserve(request(1, nonce as u64, 1), NOW) else { break };
                let key = reserved.key;
                if reserved.commit.wait().is_err() { break }
                acknowledged.push((key, State::Reserved));
                let tx = B256::repeat_byte(1);
                for step in 0..*steps {
                    let commit = match step {
                        0 => reservations.serve(key, Amount(1), none),
                        1 => reservations.sent(key, tx),
                        _ => reservations.settled(key, Some(tx)),
                    };
                    if commit.unwrap().wait().is_err() { break 'run }
                    let state = [State::Served, State::Unknown, State::Settled][usize::from(step)];
                    acknowledged.last_mut().unwrap().1 = state;
                }
            }
        }
        let journal = Arc::new(Journal::with_backend(disk.after_crash(keep)).unwrap());
        let reservations = Reservations::open(journal, Caps::default()).unwrap();
        let order = [State::Reserved, State::Served, State::Unknown, State::Settled];
        let rank = |state: State| order.iter().position(|s| *s == state);
        for (key, state) in acknowledged {
            let nonce = u64::try_from(U256::from_be_bytes(key.nonce.0)).unwrap();
            let record = reservations.get(key).unwrap().expect("an acknowledged reservation");
            prop_assert!(rank(record.state()) >= rank(state), "{} < {state}", record.state());
            prop_assert!(matches!(reservations.reserve(request(1, nonce, 1), NOW), Err(ReserveError::Replayed { .. })), "replayed");
        }
    }
}
