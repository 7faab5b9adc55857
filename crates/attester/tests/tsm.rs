//! The report interface against a folder that a thread serves as the kernel does: a folder that is made gets its
//! attributes, a write of `inblob` raises `generation`, reading `outblob` makes the report. Reports are those of the
//! software attester, so every byte of them is in the vendors' formats. Not a test on hardware.
//!
//! Attributes that must answer at the moment of reading are named pipes.
#![cfg(target_os = "linux")]

use opg_attester::{
    AttestError, Attester as _, Choice, Paths, Provider, SoftwareAttester, SoftwareFormat, Tsm, detect, open,
};
use opg_evidence::{EvidenceVerifier as _, Kind, TrustRoots, dcap::TdxVerifier, snp::SnpVerifier};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const NOW: u64 = 1_800_000_000;

/// What the thread does with a question.
type Answer = Box<dyn Fn(&[u8]) -> (Vec<u8>, Vec<u8>) + Send + Sync>;

struct Kernel {
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Serves `provider`; the first `outrun` rounds see another writer.
    fn start(provider: &'static str, outrun: u32, answer: Answer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (path, stopped, counted) = (folder.path().to_owned(), stop.clone(), rounds.clone());
        let answer = Arc::new(answer);
        let thread = std::thread::spawn(move || {
            let mut known = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir(&path).unwrap() {
                    let entry = entry.unwrap().path();
                    if known.insert(entry.clone()) {
                        let (answer, counted) = (answer.clone(), counted.clone());
                        fill(&entry, provider);
                        std::thread::spawn(move || {
                            serve(&entry, &answer, &counted, outrun);
                        });
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self {
            folder,
            stop,
            rounds,
            thread: Some(thread),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn left(&self) -> usize {
        std::fs::read_dir(self.path()).unwrap().count()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn fill(entry: &Path, provider: &str) {
    for pipe in ["generation", "inblob", "outblob", "auxblob"] {
        assert!(Command::new("mkfifo").arg(entry.join(pipe)).status().unwrap().success());
    }
    // The last one: with it the entry is complete.
    std::fs::write(entry.join("provider.new"), format!("{provider}\n")).unwrap();
    std::fs::rename(entry.join("provider.new"), entry.join("provider")).unwrap();
}

/// One round of one entry, in the order in which the attributes are used. Opening a pipe waits for the other side.
fn serve(entry: &Path, answer: &Answer, rounds: &AtomicU32, outrun: u32) {
    let path = |name: &str| entry.join(name);
    let Ok(()) = std::fs::write(path("generation"), "0\n") else {
        return;
    };
    let Ok(question) = std::fs::read(path("inblob")) else {
        return;
    };
    let (report, table) = answer(&question);
    std::fs::write(path("outblob"), report).unwrap();
    let round = rounds.fetch_add(1, Ordering::SeqCst);
    if std::fs::read_to_string(path("provider")).unwrap() == "sev_guest\n" {
        std::fs::write(path("auxblob"), table).unwrap();
    }
    let generation = if round < outrun { "2\n" } else { "1\n" };
    let mut pipe = std::fs::OpenOptions::new()
        .write(true)
        .open(path("generation"))
        .unwrap();
    // Open files outlive their names: the folder is empty when the other side removes it, as the kernel's is.
    for name in ["generation", "inblob", "outblob", "auxblob", "provider"] {
        std::fs::remove_file(path(name)).unwrap();
    }
    std::io::Write::write_all(&mut pipe, generation.as_bytes()).unwrap();
}

fn software(format: SoftwareFormat) -> (SoftwareAttester, TrustRoots<opg_evidence::Development>) {
    let attester = SoftwareAttester::new(format, [7; 32]).unwrap();
    let roots = TrustRoots::development(attester.development_roots());
    (attester, roots)
}

/// The software attester's document over the 64 bytes asked for; they must be a digest and zeros.
fn answering(attester: SoftwareAttester) -> impl Fn(&[u8]) -> Vec<u8> + Send + Sync {
    move |question| {
        let (bound, rest) = question.split_first_chunk::<32>().unwrap();
        assert_eq!(rest, [0; 32]);
        attester.attest(bound, NOW).unwrap().document
    }
}

#[test]
fn tdx() {
    let (attester, roots) = software(SoftwareFormat::Tdx);
    let collateral = attester.attest(&[0; 32], NOW).unwrap().beside.intel;
    let quote = answering(attester);
    // Quoting services hand out a fixed buffer.
    let kernel = Kernel::start(
        "tdx_guest",
        0,
        Box::new(move |question| ([quote(question), vec![0; 70]].concat(), Vec::new())),
    );
    let tsm = Tsm::open(kernel.path()).unwrap();
    assert_eq!((tsm.provider(), tsm.kind()), (Provider::TdxGuest, Kind::Tdx));
    let evidence = tsm.attest(&[9; 32], 0).unwrap();
    let verdict = TdxVerifier
        .verify(&evidence.document, &collateral, &roots, NOW)
        .unwrap();
    assert_eq!(verdict.claims().bound.as_ref(), [[9; 32], [0; 32]].concat());
    assert_eq!(kernel.rounds.load(Ordering::SeqCst), 1);
}

#[test]
fn snp_with_the_hosts_certificates() {
    let (attester, roots) = software(SoftwareFormat::Snp);
    let certificates = attester.attest(&[0; 32], NOW).unwrap().beside.certificates;
    let table = table(&certificates);
    let report = answering(attester);
    let kernel = Kernel::start(
        "sev_guest",
        2,
        Box::new(move |question| (report(question), table.clone())),
    );
    let paths = Paths {
        nsm: kernel.path().join("absent/nsm"),
        tsm: kernel.path().to_owned(),
    };
    let tsm = open(Choice::Auto, &paths, None).unwrap();
    assert_eq!(tsm.kind(), Kind::Snp);
    // Two rounds see another writer, the third one counts.
    let evidence = tsm.attest(&[9; 32], 0).unwrap();
    assert_eq!(kernel.rounds.load(Ordering::SeqCst), 3);
    let collateral = evidence.beside.snp().unwrap();
    let verdict = SnpVerifier::new()
        .verify(&evidence.document, &collateral, &roots, NOW)
        .unwrap();
    assert_eq!(verdict.claims().bound.as_ref(), [[9; 32], [0; 32]].concat());
    assert!(matches!(
        open(Choice::Tdx, &paths, None),
        Err(AttestError::OtherHardware { .. })
    ));
}

/// The host's table: VCEK and ASK, with AMD's identifiers as text writes them.
fn table(certificates: &[Vec<u8>]) -> Vec<u8> {
    let ids = ["63da758de6644564adc5f4b93be8accd", "4ab7b379bbac4fe4a02f05aef327c782"];
    let (mut head, mut body) = (Vec::new(), Vec::new());
    for (id, der) in ids.iter().zip(certificates) {
        let byte = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).unwrap();
        head.extend((0..32).step_by(2).map(byte));
        head.extend(u32::try_from(72 + body.len()).unwrap().to_le_bytes());
        head.extend(u32::try_from(der.len()).unwrap().to_le_bytes());
        body.extend(der);
    }
    head.extend([0; 24]);
    [head, body].concat()
}

#[test]
fn an_interface_that_is_always_outrun_is_given_up() {
    let (attester, _) = software(SoftwareFormat::Tdx);
    let quote = answering(attester);
    let kernel = Kernel::start(
        "tdx_guest",
        u32::MAX,
        Box::new(move |question| (quote(question), Vec::new())),
    );
    let tsm = Tsm::open(kernel.path()).unwrap();
    assert!(matches!(
        tsm.attest(&[9; 32], 0),
        Err(AttestError::Contended { tries: 5, .. })
    ));
}

#[test]
fn a_report_that_answers_another_question_is_refused() {
    let (attester, _) = software(SoftwareFormat::Tdx);
    let kernel = Kernel::start(
        "tdx_guest",
        0,
        Box::new(move |_| (attester.attest(&[8; 32], NOW).unwrap().document, Vec::new())),
    );
    let tsm = Tsm::open(kernel.path()).unwrap();
    assert!(matches!(tsm.attest(&[9; 32], 0), Err(AttestError::Unbound)));
}

#[test]
fn broken_reports_are_refused() {
    for (report, tdx) in [
        (vec![], true),
        (vec![4; 700], true),
        (vec![4; 20_000], true),
        (vec![4; 5_000], false),
    ] {
        let kernel = Kernel::start(
            if tdx { "tdx_guest" } else { "sev_guest" },
            0,
            Box::new(move |_| (report.clone(), Vec::new())),
        );
        let tsm = Tsm::open(kernel.path()).unwrap();
        let outcome = tsm.attest(&[9; 32], 0);
        assert!(
            matches!(outcome, Err(AttestError::Document(_) | AttestError::TooLong { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn another_provider_is_named() {
    let kernel = Kernel::start("arm_cca_guest", 0, Box::new(|_| (Vec::new(), Vec::new())));
    let paths = Paths {
        nsm: PathBuf::from("/nonexistent"),
        tsm: kernel.path().to_owned(),
    };
    match detect(&paths) {
        Err(AttestError::UnknownProvider { got, .. }) => assert_eq!(got, "arm_cca_guest"),
        other => panic!("{other:?}"),
    }
}

/// Entries are removed, so that the kernel's memory is not eaten by re-attestation.
#[test]
fn entries_are_removed() {
    let (attester, _) = software(SoftwareFormat::Tdx);
    let quote = answering(attester);
    let kernel = Kernel::start("tdx_guest", 0, Box::new(move |question| (quote(question), Vec::new())));
    let tsm = Tsm::open(kernel.path()).unwrap();
    let before = kernel.left();
    for _ in 0..3 {
        tsm.attest(&[9; 32], 0).unwrap();
    }
    assert_eq!(kernel.left(), before);
}
