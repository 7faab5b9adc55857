//! Event logs of trust domains, replayed against real and generated quotes.

mod common;

use opg_evidence::{
    Claims, Kind, Reject, TrustRoots, container,
    dcap::{
        self,
        eventlog::{self, Event},
    },
};

/// dstack's report: a quote and its log in JSON.
fn report() -> Option<(Claims, Vec<Event>)> {
    let file = common::sample("tdx/dstack_quote-report.json")?;
    let found = container::unwrap(Kind::Tdx, &file).expect("a quote");
    let claims = dcap::check_signatures(Kind::Tdx, &found.document, &TrustRoots::pinned(), 1_758_076_095)
        .expect("good signatures");
    let events = found.companions.events.expect("a log");
    assert!(events.iter().any(|event| event.kind == eventlog::RUNTIME_EVENT));
    Some((claims, events))
}

#[test]
fn a_real_log_replays_and_a_changed_one_does_not() {
    let Some((claims, events)) = report() else { return };
    assert_eq!(eventlog::check(&events, &claims), Ok(()));
    for index in 0..events.len() {
        let register = events[index].register;
        let differs = Err(Reject::EventLog { register });
        let mut changed = events.clone();
        changed[index].digest[7] ^= 1;
        assert_eq!(eventlog::check(&changed, &claims), differs, "event {index} changed");
        let mut dropped = events.clone();
        dropped.remove(index);
        assert_eq!(eventlog::check(&dropped, &claims), differs, "event {index} left out");
        let mut twice = events.clone();
        twice.insert(index, events[index].clone());
        assert_eq!(eventlog::check(&twice, &claims), differs, "event {index} twice");
        // Two events of one register in the other order.
        let next = (index + 1..events.len()).find(|at| events[*at].register == register);
        if let Some(next) = next.filter(|at| events[*at].digest != events[index].digest) {
            let mut swapped = events.clone();
            swapped.swap(index, next);
            assert_eq!(eventlog::check(&swapped, &claims), differs, "event {index} and {next}");
        }
    }
    let more = [events.as_slice(), &[Event::runtime("late", b"")]].concat();
    assert_eq!(eventlog::check(&more, &claims), Err(Reject::EventLog { register: 3 }));
    let mut bare = claims.clone();
    bare.measurement.0.remove("rtmr2");
    assert_eq!(
        eventlog::check(&events, &bare).unwrap_err().name(),
        "REGISTER_ABSENT",
        "evidence without run-time registers"
    );
}

#[test]
fn a_real_firmware_log_is_read_to_its_end_and_never_past_it() {
    let Some(log) = common::sample("tdx/dstack_ccel.bin") else {
        return;
    };
    let events = eventlog::ccel(&log).expect("a log");
    assert_eq!(events.len(), 18);
    assert!(
        events.iter().all(|event| event.register < 2),
        "firmware extends RTMR0 and RTMR1"
    );
    assert!(
        hex::encode(events[0].digest).starts_with("2b630fa1"),
        "the domain's configuration table"
    );
    let end = log.iter().rposition(|byte| *byte != 0xff).expect("a log") + 1;
    let mut whole = 0;
    for cut in 0..=end {
        // Cut inside an entry it is refused; cut between two it is a shorter log.
        match eventlog::ccel(&log[..cut]) {
            Ok(part) => {
                assert_eq!(part[..], events[..part.len()]);
                whole += 1;
            }
            Err(reject) => assert!(matches!(reject, Reject::Truncated { .. }), "cut at {cut}: {reject}"),
        }
    }
    assert_eq!(whole, events.len() + 1);
    let registers = eventlog::replay(&events).expect("registers");
    assert_eq!(
        registers.map(|register| register == [0; 48]),
        [false, false, true, true]
    );
}

#[cfg(feature = "soft")]
#[test]
fn a_generated_quote_and_its_log() {
    use opg_evidence::{
        EvidenceVerifier as _,
        soft::{SoftTdx, TdxCollateralSpec, TdxRequest},
    };
    const NOW: u64 = 1_800_000_000;
    let events = [Event::runtime("model", b"weights"), Event::runtime("config", b"{}")];
    let platform = SoftTdx::new(&[7; 32], NOW, NOW + 1_000);
    let quote = platform.quote(&TdxRequest {
        rtmr: eventlog::replay(&events).expect("registers"),
        ..TdxRequest::new([1; 64])
    });
    let collateral = Some(platform.collateral(&TdxCollateralSpec::new(NOW, NOW + 1_000)));
    let roots = TrustRoots::development(vec![platform.anchor()]);
    let verdict = dcap::TdxVerifier
        .verify(&quote, &collateral, &roots, NOW)
        .expect("a good quote");
    assert_eq!(eventlog::check(&events, verdict.claims()), Ok(()));
    assert_eq!(
        eventlog::check(&events[..1], verdict.claims()),
        Err(Reject::EventLog { register: 3 })
    );
}
