use super::*;
use crate::{
    channel::{Deposit, DepositAuthorization, Voucher},
    signature::{SecretKey, address_of_secret},
    x402::{BatchAction, BatchPayload, Identifier, SignedDeposit, SignedVoucher},
};
use alloy_primitives::{Address, U256};
use redb::WriteTransaction;
use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

const NOW: u64 = 1_000_000;
const CHAIN: u64 = 10_740;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_byte_array(&[seed; 32]).unwrap()
}

fn terms() -> ReceiverTerms {
    ReceiverTerms {
        receiver: Address::repeat_byte(3),
        receiver_authorizer: Address::repeat_byte(4),
        token: Address::repeat_byte(5),
        min_withdraw_delay: 3600,
    }
}

fn config(seed: u8) -> ChannelConfig {
    ChannelConfig {
        payer: address_of_secret(&key(seed)),
        payer_authorizer: address_of_secret(&key(seed)),
        receiver: terms().receiver,
        receiver_authorizer: terms().receiver_authorizer,
        token: terms().token,
        withdraw_delay: 3600,
        salt: B256::ZERO,
    }
}

fn payload(seed: u8, ceiling: u128) -> BatchPayload {
    let (config, domain) = (config(seed), Domain::batch_settlement(CHAIN));
    let voucher = Voucher {
        channel_id: config.id(&domain),
        max_claimable: Amount(ceiling),
    };
    let signature = voucher.sign(&domain, &key(seed)).to_vec().into();
    BatchPayload {
        config,
        voucher: SignedVoucher { voucher, signature },
        action: BatchAction::Voucher,
    }
}

fn id(seed: u8) -> B256 {
    config(seed).id(&Domain::batch_settlement(CHAIN))
}

fn balance(wei: u128) -> ChainState {
    ChainState {
        balance: Amount(wei),
        ..ChainState::default()
    }
}

fn open(path: &Path) -> Channels {
    Channels::open(Arc::new(Journal::open(path).unwrap()), CHAIN, terms()).unwrap()
}

fn fresh(dir: &tempfile::TempDir, wei: u128) -> Channels {
    let channels = open(&dir.path().join("j"));
    channels
        .open_channel(config(1), balance(wei), NOW)
        .unwrap()
        .unwrap()
        .wait()
        .unwrap();
    channels
}

fn reserve(channels: &Channels, ceiling: u128, bound: u128, mode: Mode) -> Result<Reserved, ChannelError> {
    let payload = payload(1, ceiling);
    channels.reserve(&Call {
        payload: &payload,
        bound: Amount(bound),
        mode,
        identifier: None,
    })
}

fn none(_: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(())
}

fn commit(channels: &Channels, reserved: &Reserved, charge: u128) -> Charged {
    channels
        .commit(reserved.ticket, Amount(charge), B256::ZERO, NOW, none)
        .unwrap()
}

fn pay(channels: &Channels, bound: u128, charge: u128) -> Charged {
    let base = channels.state(id(1)).unwrap().0.charged_cumulative.unwrap().wei();
    let reserved = reserve(channels, base + bound, bound, Mode::Stock).unwrap();
    commit(channels, &reserved, charge)
}

#[test]
fn a_stock_client_pays_call_by_call_and_a_restart_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 10_000);
    for charge in [100, 40, 0, 70] {
        let charged = pay(&channels, 100, charge);
        assert_eq!(charged.charge, Amount(charge));
        assert_eq!(charged.extra.charged, Amount(charge));
        charged.commit.wait().unwrap();
    }
    drop(channels);
    let channels = open(&dir.path().join("j"));
    let (state, voucher) = channels.state(id(1)).unwrap();
    assert_eq!(state.charged_cumulative, Some(Amount(210)));
    assert_eq!(voucher.unwrap().signed_max_claimable, Amount(240));
    assert_eq!(channels.charged(id(1)), Some(Amount(210)));
    // More than the bound counts as the bound.
    assert_eq!(pay(&channels, 10, 99).charge, Amount(10));
}

#[test]
fn every_refusal_has_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 1000);
    let refused = |ceiling, bound| reserve(&channels, ceiling, bound, Mode::Stock).unwrap_err();
    let mismatch = refused(101, 100);
    assert_eq!(mismatch.reason(), crate::x402::CUMULATIVE_MISMATCH);
    let ChannelError::Mismatch {
        expected: 100,
        got: 101,
        state,
        voucher: None,
    } = mismatch
    else {
        panic!("{mismatch}")
    };
    assert_eq!(state.charged_cumulative, Some(Amount::ZERO));
    assert_eq!(refused(99, 100).reason(), crate::x402::CUMULATIVE_MISMATCH);
    assert_eq!(refused(1001, 1001).reason(), crate::x402::EXCEEDS_BALANCE);
    let mut forged = payload(1, 100);
    forged.voucher.signature = payload(2, 100).voucher.signature;
    let reason = |payload: &BatchPayload| {
        let call = Call {
            payload,
            bound: Amount(100),
            mode: Mode::Stock,
            identifier: None,
        };
        channels.reserve(&call).unwrap_err().reason()
    };
    assert_eq!(reason(&forged), crate::x402::BAD_VOUCHER_SIGNATURE);
    assert_eq!(reason(&payload(2, 100)), crate::x402::CHANNEL_NOT_FOUND);
    let mut other = payload(1, 100);
    other.config.salt = B256::repeat_byte(1);
    assert_eq!(reason(&other), crate::x402::CHANNEL_ID_MISMATCH);
    let running = reserve(&channels, 100, 100, Mode::Stock).unwrap();
    assert_eq!(refused(100, 100).reason(), crate::x402::CHANNEL_BUSY);
    channels.fail(running.ticket).unwrap();
    assert!(
        channels.fail(running.ticket).is_err()
            && channels
                .commit(running.ticket, Amount(1), B256::ZERO, NOW, none)
                .is_err()
    );
    let mut short = config(9);
    short.withdraw_delay = 900;
    assert_eq!(channels.open_channel(short, balance(1), NOW).unwrap_err().status(), 402);
    // The next mismatch carries the voucher, so that a client can prove to itself that the state is its own.
    let running = reserve(&channels, 100, 100, Mode::Stock).unwrap();
    commit(&channels, &running, 60);
    let ChannelError::Mismatch {
        expected: 160,
        voucher: Some(voucher),
        ..
    } = refused(100, 100)
    else {
        panic!()
    };
    assert_eq!(
        *voucher,
        VoucherState {
            signed_max_claimable: Amount(100),
            signature: payload(1, 100).voucher.signature
        }
    );
}

#[test]
fn a_thousand_copies_of_one_header_run_once() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [Mode::Stock, Mode::StockStream, Mode::Headroom] {
        let dir = dir.path().join(format!("{mode:?}"));
        let channels = open(&dir);
        channels.open_channel(config(1), balance(10_000), NOW).unwrap();
        let payload = payload(1, 100);
        let (runs, refusals) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        match channels.reserve(&Call {
                            payload: &payload,
                            bound: Amount(100),
                            mode,
                            identifier: None,
                        }) {
                            Ok(reserved) => {
                                runs.fetch_add(1, Ordering::Relaxed);
                                std::thread::yield_now();
                                commit(&channels, &reserved, 90);
                            }
                            Err(error) => {
                                assert!(
                                    matches!(
                                        error,
                                        ChannelError::Busy(_)
                                            | ChannelError::Mismatch { .. }
                                            | ChannelError::CeilingUsed { .. }
                                    ),
                                    "{error}"
                                );
                                refusals.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        assert_eq!((runs.into_inner(), refusals.into_inner()), (1, 999), "{mode:?}");
        assert_eq!(channels.charged(id(1)), Some(Amount(90)));
    }
}

#[test]
fn headroom_admits_what_the_ceiling_covers_and_each_ceiling_once() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 10_000);
    let take = |ceiling, bound| reserve(&channels, ceiling, bound, Mode::Headroom);
    let (a, b) = (take(100, 100).unwrap(), take(200, 100).unwrap());
    assert!(matches!(take(200, 100), Err(ChannelError::CeilingUsed { got: 200 })));
    assert!(matches!(
        take(250, 100),
        Err(ChannelError::Headroom {
            ceiling: 250,
            needed: 300
        })
    ));
    assert!(matches!(
        reserve(&channels, 100, 100, Mode::Stock),
        Err(ChannelError::Busy(_))
    ));
    // An older voucher that arrives late is covered by the newer one.
    let c = take(150, 0).unwrap();
    commit(&channels, &b, 30);
    commit(&channels, &a, 100);
    let d = take(201, 70).unwrap();
    commit(&channels, &d, 70);
    channels.fail(c.ticket).unwrap();
    assert_eq!(channels.charged(id(1)), Some(Amount(200)));
    // Stripped of its extension, a used header is not a stock payment either.
    assert!(matches!(
        reserve(&channels, 201, 1, Mode::Stock),
        Err(ChannelError::Mismatch { .. })
    ));
    let last = take(300, 50).unwrap();
    commit(&channels, &last, 1).commit.wait().unwrap();
    drop(channels);
    let channels = open(&dir.path().join("j"));
    assert!(matches!(
        reserve(&channels, 300, 10, Mode::Headroom),
        Err(ChannelError::CeilingUsed { .. })
    ));
    let _ = reserve(&channels, 301, 10, Mode::Headroom).unwrap();
}

#[test]
fn a_stream_reports_its_bound_and_the_client_gets_the_difference_back() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 100_000);
    let (mut client, mut owed) = (0, 0);
    for (bound, actual) in [(100, 30), (100, 100), (50, 0), (200, 10), (10, 10), (10, 10), (10, 10)] {
        let reserved = reserve(&channels, client + bound, bound, Mode::StockStream).unwrap();
        let (extra, durable) = reserved.streaming.clone().unwrap();
        durable.wait().unwrap();
        // What a stock client does with the header.
        client += extra.charged.wei();
        assert_eq!(extra.channel_state.charged_cumulative, Some(Amount(client)));
        commit(&channels, &reserved, actual);
        owed += actual;
        assert_eq!(channels.charged(id(1)), Some(Amount(owed)));
        assert!(client >= owed && client - owed <= 270, "{client} {owed}");
    }
    // A call that is not a stream uses the credit up first.
    let charged = pay(&channels, 300, 300);
    assert_eq!(charged.extra.charged, Amount(300 - (client - owed)));
    assert_eq!(charged.extra.channel_state.charged_cumulative, channels.charged(id(1)));
}

#[test]
fn an_interrupted_stream_costs_nothing_and_keeps_the_client_in_step() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 10_000);
    let reserved = reserve(&channels, 100, 100, Mode::StockStream).unwrap();
    reserved.streaming.unwrap().1.wait().unwrap();
    drop(channels);
    let channels = open(&dir.path().join("j"));
    assert_eq!(channels.charged(id(1)), Some(Amount::ZERO));
    let charged = pay(&channels, 100, 90);
    assert_eq!((charged.charge, charged.extra.charged), (Amount(90), Amount(1)));
    // All of it was covered by credit, and still the same header is not taken again.
    assert!(matches!(
        reserve(&channels, 200, 100, Mode::Stock),
        Err(ChannelError::Mismatch { expected: 201, .. })
    ));
}

#[test]
fn retries_with_an_identifier_get_the_first_result() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 10_000);
    let identifier = |id, payment| {
        Some(Identifier {
            id: B256::repeat_byte(id),
            payment: B256::repeat_byte(payment),
        })
    };
    let call = |channels: &Channels, id, payment, ceiling| {
        let payload = payload(1, ceiling);
        channels.reserve(&Call {
            payload: &payload,
            bound: Amount(100),
            mode: Mode::Stock,
            identifier: identifier(id, payment),
        })
    };
    let first = call(&channels, 1, 1, 100).unwrap();
    assert!(matches!(call(&channels, 1, 1, 100), Err(ChannelError::Busy(_))));
    assert!(matches!(call(&channels, 1, 2, 100), Err(ChannelError::Conflict)));
    let result = B256::repeat_byte(0xee);
    channels
        .commit(first.ticket, Amount(60), result, NOW, none)
        .unwrap()
        .commit
        .wait()
        .unwrap();
    for reopened in [false, true] {
        let reopened = reopened.then(|| {
            let path = dir.path().join("copy");
            std::fs::copy(dir.path().join("j"), &path).unwrap();
            open(&path)
        });
        let channels = reopened.as_ref().unwrap_or(&channels);
        let Err(ChannelError::Duplicate(done)) = call(channels, 1, 1, 100) else {
            panic!()
        };
        assert_eq!(
            (done.result, done.charged, done.cumulative),
            (result, Amount(60), Amount(60))
        );
        assert_eq!(call(channels, 1, 2, 160).unwrap_err().status(), 409);
    }
    for n in 2..40 {
        let base = channels.charged(id(1)).unwrap().wei();
        let reserved = call(&channels, n, n, base + 100).unwrap();
        commit(&channels, &reserved, 1);
    }
    assert!(matches!(call(&channels, 39, 39, 1), Err(ChannelError::Duplicate(_))));
    // Forgotten, but still not served again: its ceiling is in the past.
    assert!(matches!(call(&channels, 1, 1, 100), Err(ChannelError::Mismatch { .. })));
}

#[test]
fn a_withdrawal_stops_what_it_could_take_away() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 1000);
    pay(&channels, 100, 100);
    let leaving = |amount| ChainState {
        withdrawal: Some(Withdrawal {
            amount: Amount(amount),
            requested_at: NOW,
        }),
        ..balance(1000)
    };
    assert!(channels.observe(id(1), leaving(700), NOW).unwrap().is_some());
    assert!(
        channels.observe(id(1), leaving(700), NOW + 9).unwrap().is_none(),
        "nothing changed, nothing is written"
    );
    pay(&channels, 100, 100);
    let error = reserve(&channels, 301, 101, Mode::Stock).unwrap_err();
    assert!(
        matches!(
            error,
            ChannelError::Withdrawing {
                got: 301,
                available: 300
            }
        ),
        "{error}"
    );
    let views = channels.views();
    let policy = crate::channel::plan::ClaimPolicy {
        min_value: Amount(u128::MAX),
        max_rows: 100,
    };
    assert_eq!(crate::channel::plan::plan(&views, &policy, NOW)[0].channels, [id(1)]);
}

#[test]
fn claims_have_a_third_state_and_are_totals() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 1000);
    assert_eq!(channels.claim_rows(&[id(1), B256::ZERO]).unwrap(), []);
    // A flipped v passes the check of a known key, and is repaired for the chain.
    pay(&channels, 100, 80);
    let mut flipped = payload(1, 180);
    let mut bytes = flipped.voucher.signature.to_vec();
    let good = bytes.clone();
    bytes[64] = 27 + 28 - bytes[64];
    flipped.voucher.signature = bytes.into();
    let reserved = channels
        .reserve(&Call {
            payload: &flipped,
            bound: Amount(100),
            mode: Mode::Stock,
            identifier: None,
        })
        .unwrap();
    commit(&channels, &reserved, 70);
    let rows = channels.claim_rows(&[id(1)]).unwrap();
    assert_eq!(rows[0].entry, ClaimEntryOf(180, 150).into());
    assert_eq!(rows[0].signature[..], good[..]);
    let tx = B256::repeat_byte(9);
    for commit in channels.claims_sent(&rows, tx).unwrap() {
        commit.wait().unwrap();
    }
    assert!(channels.claims_sent(&rows, tx).is_err());
    pay(&channels, 100, 5);
    assert_eq!(
        channels.claim_rows(&[id(1)]).unwrap(),
        [],
        "not beside a claim whose outcome is not known"
    );
    drop(channels);
    let channels = open(&dir.path().join("j"));
    assert_eq!(
        channels.uncertain_claims(),
        [(id(1), SentClaim { tx, total: Amount(150) })]
    );
    assert!(channels.claim_returned(id(1), B256::ZERO).is_err());
    channels.claim_returned(id(1), tx).unwrap();
    let rows = channels.claim_rows(&[id(1)]).unwrap();
    assert_eq!(rows[0].entry.total_claimed, Amount(155));
    channels.claims_sent(&rows, tx).unwrap();
    channels
        .observe(
            id(1),
            ChainState {
                total_claimed: Amount(155),
                ..balance(1000)
            },
            NOW,
        )
        .unwrap();
    assert_eq!(channels.uncertain_claims(), []);
    assert_eq!(channels.views()[0].unclaimed_since, 0);
    // A reorganisation takes the claim back: it is claimed again.
    channels.observe(id(1), balance(1000), NOW + 5).unwrap();
    assert_eq!(channels.views()[0].unclaimed_since, NOW + 5);
    assert_eq!(
        channels.claim_rows(&[id(1)]).unwrap()[0].entry.total_claimed,
        Amount(155)
    );
}

struct ClaimEntryOf(u128, u128);

impl From<ClaimEntryOf> for crate::channel::ClaimEntry {
    fn from(entry: ClaimEntryOf) -> Self {
        Self {
            channel_id: id(1),
            max_claimable: Amount(entry.0),
            total_claimed: Amount(entry.1),
        }
    }
}

#[test]
fn deposits_count_after_confirmation_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 0);
    let deposit = Deposit::new(
        &config(1),
        &Domain::batch_settlement(CHAIN),
        Amount(500),
        DepositAuthorization::Erc3009 {
            valid_after: 0,
            valid_before: NOW + 60,
            salt: U256::from(1),
        },
    );
    let (token, permit2) = (Domain::opg(CHAIN, terms().token), Domain::permit2(CHAIN));
    let signed = SignedDeposit {
        deposit,
        signature: deposit.sign(&token, &permit2, &key(1)).to_vec().into(),
    };
    let check = |d: &SignedDeposit| d.deposit.verify(&token, &permit2, &d.signature).is_ok();
    let mut forged = signed.clone();
    forged.deposit.amount = Amount(501);
    assert!(matches!(
        channels.begin_deposit(&forged, check),
        Err(ChannelError::Deposit(_))
    ));
    let (state, durable) = channels.begin_deposit(&signed, check).unwrap();
    assert_eq!(state, DepositState::Pending);
    durable.wait().unwrap();
    assert!(matches!(
        channels.begin_deposit(&forged, |_| true),
        Err(ChannelError::Deposit(_))
    ));
    let nonce = signed.deposit.nonce();
    let tx = B256::repeat_byte(7);
    channels.deposit_sent(id(1), nonce, tx).unwrap().wait().unwrap();
    assert!(channels.deposit_sent(id(1), nonce, tx).is_err());
    assert!(matches!(
        reserve(&channels, 100, 100, Mode::Stock),
        Err(ChannelError::Balance { available: 0, .. })
    ));
    drop(channels);
    let channels = open(&dir.path().join("j"));
    assert_eq!(channels.open_deposits()[0].state, DepositState::Sent { tx });
    assert_eq!(
        channels.begin_deposit(&signed, check).unwrap().0,
        DepositState::Sent { tx }
    );
    // Who knows of another transaction knows nothing of this one: the deposit stays on its way.
    assert!(
        channels
            .deposit_returned(id(1), nonce, B256::repeat_byte(0x77))
            .is_err()
    );
    assert_eq!(channels.deposit(id(1), nonce), Some(DepositState::Sent { tx }));
    channels.deposit_returned(id(1), nonce, tx).unwrap();
    channels.deposit_sent(id(1), nonce, tx).unwrap();
    channels.deposit_confirmed(id(1), nonce, balance(500), NOW).unwrap();
    assert!(channels.deposit_failed(id(1), nonce).is_err());
    assert_eq!(
        channels.begin_deposit(&signed, check).unwrap().0,
        DepositState::Confirmed { tx: Some(tx) }
    );
    assert!(channels.open_deposits().is_empty());
    let _ = reserve(&channels, 100, 100, Mode::Stock).unwrap();
}

#[test]
fn a_refund_gives_back_everything_that_is_not_charged() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 1000);
    let reserved = reserve(&channels, 300, 300, Mode::StockStream).unwrap();
    let refund = |ceiling, amount| BatchPayload {
        action: BatchAction::Refund(amount),
        ..payload(1, ceiling)
    };
    assert!(matches!(
        channels.begin_refund(&refund(300, None)),
        Err(ChannelError::Busy(_))
    ));
    commit(&channels, &reserved, 10);
    assert!(matches!(
        channels.begin_refund(&refund(10, None)),
        Err(ChannelError::Mismatch { .. })
    ));
    for asked in [0, 991] {
        let error = channels.begin_refund(&refund(300, Some(Amount(asked)))).unwrap_err();
        assert!(matches!(error, ChannelError::Refund { left: 990, .. }), "{error}");
    }
    let (plan, _) = channels.begin_refund(&refund(300, None)).unwrap();
    // The client counts 300, owes 10, and gets 990 back.
    assert_eq!(
        (plan.amount, plan.claim.unwrap().entry.total_claimed),
        (Amount(990), Amount(10))
    );
    assert!(matches!(
        reserve(&channels, 400, 100, Mode::Stock),
        Err(ChannelError::Busy(_))
    ));
    channels.refund_sent(id(1), B256::ZERO).unwrap();
    let after = ChainState {
        total_claimed: Amount(10),
        refund_nonce: U256::from(1),
        ..balance(10)
    };
    channels.observe(id(1), after, NOW).unwrap();
    assert!(matches!(
        reserve(&channels, 400, 100, Mode::Stock),
        Err(ChannelError::Balance { .. })
    ));
    assert!(channels.refund_returned(id(1)).is_err());
}

const CHILD: &str = "OPG_CHANNELS_LOCK_CHILD";

/// Body of the second process of the next test; does nothing in an ordinary run.
#[test]
fn lock_child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    match Journal::open(Path::new(&path)) {
        Ok(_) => println!("opened"),
        Err(error) => println!("refused {error}"),
    }
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let channels = fresh(&dir, 1000);
    let second = || {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "channels::tests::lock_child", "--nocapture"])
            .env(CHILD, dir.path().join("j"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = second();
    assert!(said.contains("refused") && !said.contains("opened"), "{said}");
    drop(channels);
    let said = second();
    assert!(said.contains("opened"), "{said}");
}
