//! Attestation documents, what comes with them, and what they travel in. Documents are the software attester's: a change that is
//! accepted must not change who signed what (the identity of evidence), and nothing is accepted under the vendors' roots.

use super::{target, words};
use crate::Target;
use opg_attester::{Attester as _, SoftwareAttester, SoftwareFormat};
use opg_evidence::{
    Claims, EvidenceVerifier, Kind, Policy, Reject, TrustRoots,
    container::{self, Companions},
    dcap::{self, IntelCollateral, TdxVerifier, eventlog},
    nitro::NitroVerifier,
    nvidia::{self, GpuCertificates, NvidiaVerifier},
    pem,
    registration::{Rules, decode_collateral, encode_collateral, judge_collateral},
    roots::Development,
    snp::{
        Product, SnpVerifier,
        soft::{SoftPki, Validity},
    },
};
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const BOUND: [u8; 32] = [9; 32];

struct Good {
    document: Vec<u8>,
    beside: Companions,
    roots: TrustRoots<Development>,
}

fn good(format: SoftwareFormat) -> Good {
    let attester = SoftwareAttester::new(format, [7; 32]).expect("an attester");
    let evidence = attester.attest(&BOUND, NOW).expect("a document");
    Good {
        document: evidence.document,
        beside: evidence.beside,
        roots: TrustRoots::development(attester.development_roots()),
    }
}

/// What is accepted under the development root is the seed's own statement, and under the vendors' roots nothing is.
fn verified<V: EvidenceVerifier<Collateral: Sized>>(
    verifier: &V,
    raw: &[u8],
    collateral: &V::Collateral,
    roots: &TrustRoots<Development>,
    genuine: Option<&Claims>,
) -> String {
    let hardware = verifier.verify(raw, collateral, &TrustRoots::pinned(), NOW);
    assert!(hardware.is_err(), "accepted under a vendor's root");
    let verdict = verifier.verify(raw, collateral, roots, NOW);
    words(verdict, |verdict| {
        let claims = verdict.into_claims();
        if let Some(genuine) = genuine {
            assert_eq!(claims.evidence_id, genuine.evidence_id, "another identity was accepted");
            assert_eq!(claims.bound.as_ref(), genuine.bound.as_ref(), "other bound data");
            assert_eq!(claims.measurement, genuine.measurement, "another measurement");
        }
        "accepted".to_owned()
    })
}

fn accept<V: EvidenceVerifier<Collateral: Sized>>(verifier: &V, good: &Good, collateral: &V::Collateral) -> Claims {
    let verdict = verifier.verify(&good.document, collateral, &good.roots, NOW);
    verdict.expect("the seed is good").into_claims()
}

pub(super) fn targets() -> Vec<Target> {
    let mut all = Vec::new();

    let nitro = good(SoftwareFormat::Nitro);
    let claims = accept(&NitroVerifier::new(), &nitro, &());
    let roots = nitro.roots.clone();
    all.push(target("evidence-nitro", vec![nitro.document.clone()], move |raw| {
        verified(&NitroVerifier::new(), raw, &(), &roots, Some(&claims))
    }));

    // With all that the good quote teaches, so that the parsers behind the signatures are reached fast.
    let tdx = good(SoftwareFormat::Tdx);
    let mut intel = tdx.beside.intel.clone().expect("collateral");
    intel
        .remember(Kind::Tdx, &tdx.document, &tdx.roots, NOW)
        .expect("the seed is good");
    let collateral = Some(intel.clone());
    let claims = accept(&TdxVerifier, &tdx, &collateral);
    let roots = tdx.roots.clone();
    all.push(target("evidence-tdx", vec![tdx.document.clone()], move |raw| {
        let own = dcap::check_signatures(Kind::Tdx, raw, &roots, NOW);
        let found = verified(&TdxVerifier, raw, &collateral, &roots, Some(&claims));
        // Two readers of one format: what the whole judgement accepts, the signature layer does.
        assert!(own.is_ok() || !found.starts_with("ok"), "accepted, but {own:?}");
        found
    }));
    let (quote, roots) = (tdx.document.clone(), tdx.roots.clone());
    let json = intel.to_json().expect("JSON");
    let known = intel.known().clone();
    all.push(target("evidence-tdx-collateral", vec![json], move |bytes| {
        words(IntelCollateral::from_json(bytes), |collateral| {
            let plain = Some(collateral.clone());
            let knowing = Some(collateral.with_known(known.clone()));
            let answers = [plain, knowing].map(|collateral| {
                let verdict = TdxVerifier.verify(&quote, &collateral, &roots, NOW);
                verdict.map(opg_evidence::Verdict::into_claims)
            });
            assert_eq!(answers[0], answers[1], "what is known changes the verdict");
            let [plain, _] = answers;
            words(plain, |_| "accepted".to_owned())
        })
    }));

    // Handed in alone: whatever is accepted has exactly the versions that were signed.
    let anchor = tdx.roots.of(Kind::Tdx).next().expect("a root").clone();
    let rules = Rules::new(true, [(Kind::Tdx.as_str(), anchor.label(), anchor.der())]);
    let alone = encode_collateral(&tdx.beside).expect("collateral");
    let signed = judge_collateral(Kind::Tdx.code(), &alone, &rules, NOW).expect("the seed is good");
    all.push(target("evidence-collateral-alone", vec![alone], move |bytes| {
        words(judge_collateral(Kind::Tdx.code(), bytes, &rules, NOW), |versions| {
            assert_eq!(versions, signed, "other versions than were signed");
            versions.len().to_string()
        })
    }));

    let snp = good(SoftwareFormat::Snp);
    let collateral = snp.beside.snp().expect("certificates");
    let mut verifier = SnpVerifier::new();
    verifier
        .remember(&collateral, &snp.roots, NOW)
        .expect("the seed's chain is good");
    let claims = accept(&verifier, &snp, &collateral);
    let roots = snp.roots.clone();
    all.push(target("evidence-snp", vec![snp.document.clone()], move |raw| {
        verified(&verifier, raw, &collateral, &roots, Some(&claims))
    }));
    let (report, roots) = (snp.document.clone(), snp.roots.clone());
    let certificates = snp.beside.certificates.clone();
    all.push(target("evidence-snp-certificate", certificates.clone(), move |der| {
        // One certificate of the chain is the stranger's.
        let mut outcome = String::new();
        for at in 0..certificates.len() {
            let mut beside = Companions::default();
            beside.certificates.clone_from(&certificates);
            if let Some(place) = beside.certificates.get_mut(at) {
                *place = der.to_vec();
            }
            let verdict = beside
                .snp()
                .and_then(|collateral| SnpVerifier::new().verify(&report, &collateral, &roots, NOW).map(|_| ()));
            outcome = words(verdict, |()| "accepted".to_owned());
        }
        outcome
    }));

    // A list of one of AMD's roots.
    let dates = Validity {
        not_before: NOW - 86_400,
        not_after: NOW + 86_400,
    };
    let pki = SoftPki::generate_with([7; 32], dates, 2_048).expect("keys");
    let root = pki.anchor(Product::Milan).expect("a root");
    let rules = Rules::new(true, [(Kind::Snp.as_str(), root.label(), root.der())]);
    let mut beside = Companions::default();
    let list = pki.revocation_list(Product::Milan, &[3, 9], 7, dates).expect("a list");
    beside.lists.push(list);
    let alone = encode_collateral(&beside).expect("a list");
    let signed = judge_collateral(Kind::Snp.code(), &alone, &rules, NOW).expect("the seed is good");
    all.push(target("evidence-snp-list", vec![alone], move |bytes| {
        words(judge_collateral(Kind::Snp.code(), bytes, &rules, NOW), |versions| {
            assert!(
                versions.iter().all(|version| signed.contains(version)),
                "another list was accepted"
            );
            versions.len().to_string()
        })
    }));

    all.push(target("evidence-container", containers(&tdx, &snp), |file| {
        let mut outcomes = String::new();
        for kind in Kind::ALL {
            let found = container::unwrap(kind, file).map(|unwrapped| {
                assert!(unwrapped.document.len() <= file.len() + 4_096, "grew");
                unwrapped
                    .steps
                    .iter()
                    .map(container::Step::name)
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            outcomes.push_str(&found.unwrap_or_else(|reject| reject.name().to_owned()));
            outcomes.push(' ');
        }
        format!("ok {outcomes}")
    }));
    let listed = [&tdx, &snp].map(|good| encode_collateral(&good.beside).expect("a list"));
    all.push(target("evidence-collateral-list", listed.to_vec(), |bytes| {
        words(decode_collateral(bytes), |beside| {
            // Certificates are told apart by what they are, so only their number has to stay.
            let again = encode_collateral(&beside).and_then(|bytes| decode_collateral(&bytes));
            let again = again.expect("what was read can be written and read");
            assert_eq!(
                (again.certificates.len(), again.lists.len()),
                (beside.certificates.len(), beside.lists.len())
            );
            format!("{} certificates", beside.certificates.len())
        })
    }));
    let policy = json!({"kinds": ["tdx"], "measurements": {"tdx": [{"mrtd": "00".repeat(48)}]}, "min_eval_number": 18,
        "tcb_statuses": ["UpToDate"], "allow_dynamic_platform": false, "validity_s": 60});
    all.push(target(
        "evidence-policy",
        vec![policy.to_string().into_bytes()],
        |bytes| {
            words(serde_json::from_slice::<Policy>(bytes), |policy| {
                let written = serde_json::to_vec(&policy).expect("a policy has a JSON form");
                assert_eq!(serde_json::from_slice::<Policy>(&written).expect("own form"), policy);
                String::new()
            })
        },
    ));
    all.push(target("evidence-event-log", vec![event_log()], |log| {
        words(eventlog::ccel(log), |events| {
            let replayed = eventlog::replay(&events);
            words(replayed, |_| "replayed".to_owned())
        })
    }));
    all.push(target("evidence-gpu", vec![gpu_report()], |raw| {
        let verdict = NvidiaVerifier.verify(raw, &GpuCertificates::default(), &TrustRoots::pinned(), NOW);
        assert!(verdict.is_err(), "accepted without a chain");
        words(nvidia::Report::parse(raw), |report| {
            format!("{} measurements", report.measurements.len())
        })
    }));
    let text = pem_text(&snp.beside.certificates);
    all.push(target("evidence-pem", vec![text], |text| {
        let read: Result<_, Reject> = pem::certificates(text, 8).and_then(|certificates| {
            pem::lists(text, 8)?;
            Ok(certificates)
        });
        words(read, |certificates| {
            assert!(certificates.len() <= 8);
            format!("{} certificates", certificates.len())
        })
    }));
    all
}

fn containers(tdx: &Good, snp: &Good) -> Vec<Vec<u8>> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let quote = hex(&tdx.document);
    vec![
        quote.clone().into_bytes(),
        format!("0x{quote}\n").into_bytes(),
        json!({"quote": quote, "event_log": "[]", "vm_config": ""})
            .to_string()
            .into_bytes(),
        snp.document.clone(),
        hex(&snp.document).into_bytes(),
    ]
}

/// A firmware log of TCG's form: its specification event, and one measurement.
fn event_log() -> Vec<u8> {
    let mut log = Vec::new();
    let u32s = |log: &mut Vec<u8>, values: &[u32]| {
        for value in values {
            log.extend(value.to_le_bytes());
        }
    };
    // TCG_PCR_EVENT: register, EV_NO_ACTION, SHA-1 of zeros, then the list of algorithms (SHA-384).
    u32s(&mut log, &[0, 3]);
    log.extend([0; 20]);
    let mut header = b"Spec ID Event03\0".to_vec();
    u32s(&mut header, &[0]);
    header.extend([0, 2, 0, 2]);
    u32s(&mut header, &[1]);
    header.extend(0x000c_u16.to_le_bytes());
    header.extend(48_u16.to_le_bytes());
    header.push(0);
    u32s(&mut log, &[header.len() as u32]);
    log.extend(header);
    // TCG_PCR_EVENT2: register 1, an event, one digest.
    u32s(&mut log, &[1, 0x8000_0001, 1]);
    log.extend(0x000c_u16.to_le_bytes());
    log.extend([5; 48]);
    u32s(&mut log, &[4]);
    log.extend(b"data");
    log
}

/// SPDM's request and answer with nothing measured.
fn gpu_report() -> Vec<u8> {
    let mut report = vec![0x11, 0xe0, 0x01, 0xff];
    report.extend([7; 32]);
    report.push(0);
    report.extend([0x11, 0x60, 0, 0, 1, 9, 0, 0]);
    report.extend([1, 1, 5, 0, 1, 2, 0, 0xaa, 0xbb]);
    report.extend([3; 32]);
    report.extend([0, 0]);
    report.extend([4; 96]);
    report
}

fn pem_text(certificates: &[Vec<u8>]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for der in certificates {
        text.extend(b"-----BEGIN CERTIFICATE-----\n");
        for line in der.chunks(48) {
            for three in line.chunks(3) {
                let bits =
                    three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
                for i in 0..4 {
                    let letter = LETTERS[(bits >> (18 - 6 * i)) as usize & 63];
                    text.push(if i <= three.len() { letter } else { b'=' });
                }
            }
            text.push(b'\n');
        }
        text.extend(b"-----END CERTIFICATE-----\n");
    }
    text
}
