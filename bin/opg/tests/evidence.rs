//! `opg evidence verify` over every row of the table of expected verdicts, against real public documents.

mod common;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use common::{expect, expect_error};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The folder of samples: `OPG_TEE_SAMPLES`, or `shared/tee-samples` beside the repository. Says loudly where it is absent.
fn samples() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/tee-samples");
    let folder = std::env::var_os("OPG_TEE_SAMPLES").map_or(beside, PathBuf::from);
    if folder.join("expected.tsv").is_file() {
        return Some(folder);
    }
    eprintln!(
        "SKIPPED: no attestation samples at {} (set OPG_TEE_SAMPLES)",
        folder.display()
    );
    None
}

#[derive(Debug, Clone)]
struct Row {
    file: String,
    variant: String,
    kind: String,
    companions: Vec<String>,
    at: u64,
    expect: String,
    reason: String,
}

fn rows(folder: &Path) -> Vec<Row> {
    let table = std::fs::read_to_string(folder.join("expected.tsv")).unwrap();
    let parse = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let names = cells[4].split(';').map(|name| name.trim().to_owned());
        Row {
            file: cells[0].to_owned(),
            variant: cells[1].to_owned(),
            kind: cells[2].to_owned(),
            companions: names.filter(|name| name.contains('/')).collect(),
            at: cells[5].parse().unwrap_or(0),
            expect: cells[6].to_owned(),
            reason: cells[7].to_owned(),
        }
    };
    table
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .map(parse)
        .collect()
}

/// The one table from the reason classes of the sample folder to names of rejects.
fn names(class: &str) -> Vec<&str> {
    match class {
        "MALFORMED" => vec!["MALFORMED", "TRUNCATED", "NOT_CANONICAL", "TRAILING_BYTES", "ALGORITHM"],
        "CHAIN" => vec!["CHAIN_NAMES", "CERT_SIGNATURE", "CHAIN_INCOMPLETE", "ROOT_NOT_PINNED"],
        "CHAIN_BROKEN" => vec!["CHAIN_NAMES", "CERT_SIGNATURE"],
        // A changed reserved byte is refused as such, before the signature is looked at.
        "SIGNATURE" => vec!["SIGNATURE", "RESERVED_NOT_ZERO"],
        other => vec![other],
    }
}

/// One call of the command.
struct Call {
    folder: TempDir,
    args: Vec<String>,
}

impl Call {
    fn new(kind: &str, file: &Path, at: u64) -> Self {
        let args = ["evidence", "verify", "--kind", kind, "--at"]
            .map(str::to_owned)
            .to_vec();
        Self {
            folder: tempfile::tempdir().unwrap(),
            args,
        }
        .with([rfc3339(at), file.display().to_string()])
    }

    fn with<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Writes a file of this call and names it with an option.
    fn file(self, option: &str, name: &str, bytes: &[u8]) -> Self {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        self.with([option.to_owned(), path.display().to_string()])
    }

    fn policy(self, policy: &Value) -> Self {
        self.file("--policy", "policy.json", policy.to_string().as_bytes())
    }

    fn beside(self, files: impl IntoIterator<Item = PathBuf>) -> Self {
        let args = files
            .into_iter()
            .flat_map(|file| ["--collateral".to_owned(), file.display().to_string()]);
        self.with(args.collect::<Vec<_>>())
    }

    fn run(&self, json: bool) -> Output {
        Command::new(env!("CARGO_BIN_EXE_opg"))
            .args(&self.args)
            .args(json.then_some("--json"))
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The JSON answer, after a look that the text for people and the exit code say the same.
    fn answer(&self) -> Value {
        let output = self.run(true);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{:?}: {}", self.args, String::from_utf8_lossy(&output.stderr)));
        let accepted = answer["accepted"].as_bool().unwrap();
        expect(&output, i32::from(!accepted));
        let (text, _) = expect(&self.run(false), i32::from(!accepted));
        assert!(
            text.starts_with(if accepted { "ACCEPTED" } else { "REFUSED" }),
            "{text}"
        );
        if let Some(name) = answer["reject"]["name"].as_str() {
            assert!(text.contains(name), "{text}");
        }
        for step in answer["unwrapped"].as_array().unwrap() {
            assert!(text.contains(step["what"].as_str().unwrap()), "{text}");
        }
        assert_eq!(
            answer["claims"].is_null(),
            !answer["signatures_good"].as_bool().unwrap()
        );
        assert_eq!(answer["grade"].is_null(), !accepted);
        answer
    }
}

/// Unix seconds as RFC 3339 (days to date: H. Hinnant, "chrono-compatible low-level date algorithms").
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

/// How a row is put to the command; `None` where it is not a document that the command takes.
fn call(folder: &Path, row: &Row) -> Option<Call> {
    let path = |name: &str| folder.join(name);
    let beside = || row.companions.iter().map(|name| path(name)).collect::<Vec<_>>();
    let kind = match row.kind.as_str() {
        "nitro" => "nitro",
        "sgx-v3" => "sgx",
        kind if kind.starts_with("tdx-v") || kind == "tdx-azure-vtpm" => "tdx",
        "snp-cert" if row.expect == "REJECT" => {
            // A bad chip certificate shows with the report that it was made for.
            let report = path("snp/trustee_snp_test-report.bin");
            return Some(
                Call::new("snp", &report, row.at)
                    .beside(beside())
                    .beside([path(&row.file)]),
            );
        }
        "snp-cert" | "snp-ca" => return None,
        kind if kind.starts_with("snp-") => "snp",
        "nvidia-h100" | "nvidia-claims" => "gpu",
        "nvidia-cert" => {
            // A chain shows with the report of a GPU.
            let report = path("nvidia/trustee_nvidia_hopper_coco_report1.txt");
            return Some(Call::new("gpu", &report, row.at).beside([path(&row.file)]));
        }
        // A quote of Azure's virtual TPM, or its wrapper alone, shows with the hardware document that vouches for it.
        "tpm-quote" | "azure-hcl" if row.file.starts_with("tdx/") => {
            let quote = path("tdx/trustee_az-tdx-vtpm_td-quote.bin");
            let wrapper = path("tdx/trustee_az-tdx-vtpm_hcl-report.bin");
            let call = Call::new("tdx", &quote, 1_700_000_000).beside([wrapper]);
            return Some(if row.kind == "tpm-quote" {
                call.beside([path(&row.file)])
            } else {
                call
            });
        }
        "tpm-quote" if row.file.starts_with("snp/") => {
            let report = path(&row.companions[0]);
            let beside = [path("snp/trustee_az-snp-vtpm_vcek.pem"), path(&row.file)];
            return Some(Call::new("snp", &report, 1_700_000_000).beside(beside));
        }
        _ => return None,
    };
    let whole = |at| Call::new(kind, &path(&row.file), at).beside(beside());
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(path(&row.file)).unwrap();
        if let Ok(document) = hex_text(&bytes) {
            bytes = document;
        }
        change(&mut bytes);
        let call = Call::new(kind, Path::new("changed"), row.at).beside(beside());
        std::fs::write(call.folder.path().join("changed"), bytes).unwrap();
        call
    };
    Some(match row.variant.as_str() {
        "base" | "late" | "early" | "stale" | "not-yet" | "crypto-only" | "foreign-collateral" | "cross-chip"
        | "invalid-new" | "as-vcek" | "foreign-vcek" | "other-gpu" => whole(row.at),
        "unstripped" => whole(row.at).with(["--raw"]),
        "wrong-nonce" => whole(row.at).with(["--nonce".to_owned(), "00".repeat(20)]),
        "dev-root" => {
            let root = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../crates/evidence/roots/nvidia-device-identity.der"
            );
            whole(row.at).with(["--development-root", root])
        }
        "strict-platform" => whole(row.at).policy(&json!({ "allow_dynamic_platform": false })),
        "lenient" => whole(row.at).policy(&json!({
            "tcb_statuses": ["UpToDate", "ConfigurationAndSWHardeningNeeded"],
            "accepted_advisories": ["INTEL-SA-00289", "INTEL-SA-00615"],
        })),
        "vmpl1-allowed" => whole(row.at).policy(&json!({ "max_vmpl": 1, "allow_vlek": true })),
        "tail-changed" => changed(&|bytes| {
            let at = bytes.len() - 35;
            assert_eq!(std::mem::replace(&mut bytes[at], 1), 0);
        }),
        "reserved-flip" => changed(&|bytes| bytes[0x3a] ^= 1),
        "padding" => changed(&|bytes| bytes[0x2dc] = 1),
        "flip" => changed(&|bytes| bytes[10] ^= 1),
        other => panic!("{}: an unknown variant {other}", row.file),
    })
}

fn hex_text(bytes: &[u8]) -> Result<Vec<u8>, ()> {
    let text = std::str::from_utf8(bytes).map_err(drop)?.trim();
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).map_err(drop)?, 16).map_err(drop))
        .collect()
}

fn check(row: &Row, answer: &Value) {
    let label = format!("{} {}", row.file, row.variant);
    let name = answer["reject"]["name"].as_str();
    let signed = answer["signatures_good"].as_bool().unwrap();
    let fits = |reason: &str| {
        let name = name.unwrap_or_else(|| panic!("{label}: accepted, expected {reason}"));
        let known = opg_evidence::Reject::ALL.iter().any(|(_, known)| *known == name);
        known && (reason == "ANY" || reason.split('|').any(|class| names(class).contains(&name)))
    };
    let good = match row.expect.as_str() {
        "ACCEPT" => name.is_none() && answer["grade"] == "hardware",
        "REJECT" | "EITHER" => fits(&row.reason),
        "SIG_OK_NO_COLLATERAL" => signed && fits("NO_COLLATERAL"),
        // The signature layer is good; the final refusal is for what the row leaves open.
        "SIG_OK" if row.kind == "nitro" => signed && name == Some("DEBUG_MODE"),
        "SIG_OK" if row.kind.starts_with("nvidia") => signed && name == Some("RIM_NOT_CHECKED"),
        "SIG_OK" => {
            let quoted = answer["checked"]
                .as_array()
                .unwrap()
                .iter()
                .any(|proof| proof.get("tpm_quote").is_some());
            signed && quoted && matches!(name, None | Some("NO_COLLATERAL"))
        }
        "PARSE" if row.kind == "azure-hcl" => {
            let bound = answer["checked"][0].get("runtime_data").is_some();
            signed && bound && name == Some("NO_COLLATERAL")
        }
        // Read without an error; nothing to verify it with.
        "PARSE" => fits(&row.reason),
        // The chain alone: all of it good, the report is refused for the missing reference manifest only.
        "AUX" if row.kind == "nvidia-cert" => signed && name == Some("RIM_NOT_CHECKED"),
        other => panic!("{label}: an unknown expectation {other}"),
    };
    assert!(good, "{label}: expected {} {}, got {answer:#}", row.expect, row.reason);
}

#[test]
fn every_row_of_the_table() {
    let Some(folder) = samples() else { return };
    let rows = rows(&folder);
    let (mut ids, mut left) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
    let mut judged = 0;
    for row in &rows {
        let Some(call) = call(&folder, row) else {
            *left.entry(format!("{} {}", row.kind, row.expect)).or_default() += 1;
            continue;
        };
        let answer = call.answer();
        check(row, &answer);
        if row.variant == "base" {
            ids.insert(row.file.as_str(), answer["claims"]["evidence_id"].clone());
        }
        judged += 1;
    }
    // What is no document of a kind of evidence: parts of collateral (they show inside whole collateral and as companions
    // of other rows), an event log without its quote, TPM quotes whose key nothing vouches for.
    let expected = [
        ("ccel PARSE", 1),
        ("sgx-collateral AUX", 1),
        ("snp-ca AUX", 7),
        ("snp-cert AUX", 8),
        ("tdx-collateral AUX", 7),
        ("tpm-quote PARSE", 1),
        ("tpm-quote SIG_OK", 1),
    ];
    assert_eq!(left, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    assert_eq!(judged + left.values().sum::<usize>(), rows.len());
    println!("{judged} of {} rows through the command", rows.len());
    for [one, other] in [
        [
            "nitro/dstack_nsm-attest_nitro_attestation.bin",
            "nitro/dstack_nsm-qvl_nitro_attestation.bin",
        ],
        [
            "tdx/trustee_az-tdx-vtpm_evidence-v0.json",
            "tdx/trustee_az-tdx-vtpm_td-quote.bin",
        ],
    ] {
        assert!(ids[one].is_string());
        assert_eq!(ids[one], ids[other], "the same statement in two wrappers");
    }
}

#[test]
fn layers_that_were_taken_off_are_said() {
    let Some(folder) = samples() else { return };
    let steps = |kind: &str, file: &str| {
        let answer = Call::new(kind, &folder.join(file), 1_770_000_000).answer();
        let steps = answer["unwrapped"].as_array().unwrap();
        steps
            .iter()
            .map(|step| step["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(steps("nitro", "nitro/opengradient_attestation_doc.b64"), ["base64"]);
    assert_eq!(
        steps("nitro", "nitro/dstack_nsm-attest_nitro_attestation.bin"),
        ["dstack"]
    );
    assert_eq!(
        steps("tdx", "tdx/phala_quote-from-tappd.hex"),
        ["hexadecimal", "zero-padding"]
    );
    assert_eq!(
        steps("tdx", "tdx/openpcc_gce_tdx_report.txt"),
        ["report-block", "zero-padding"]
    );
    assert_eq!(
        steps("tdx", "tdx/dstack_tdx-lite-attestation.json"),
        ["json-dstack-attestation", "dstack", "zero-padding"]
    );
    assert_eq!(
        steps("snp", "snp/openpcc_azure_sevsnp_report.txt"),
        ["report-block", "azure-hcl"]
    );
    assert_eq!(steps("snp", "snp/msft_turin_attestation_report.bin"), [""; 0]);
}

#[test]
fn what_lies_beside_a_document_is_tied_to_it() {
    let Some(folder) = samples() else { return };
    let path = |name: &str| folder.join(name);
    // The log of dstack's quote replays to its registers; the firmware log of another machine does not.
    let quote = path("tdx/dstack_quote-report.json");
    let answer = Call::new("tdx", &quote, 1_758_076_095).answer();
    assert_eq!(answer["checked"], json!([{ "event_log": { "events": 28 } }]));
    let answer = Call::new("tdx", &path("tdx/phala_tdx_quote"), 1_750_414_563)
        .beside([path("tdx/dstack_ccel.bin")])
        .answer();
    assert_eq!(answer["reject"]["name"], "EVENT_LOG");
    // A TPM quote of another machine, and one without the wrapper that vouches for its key.
    let tpm = path("snp/trustee_az-snp-vtpm_tpm-quote-v1.json");
    let td = path("tdx/trustee_az-tdx-vtpm_td-quote.bin");
    let answer = Call::new("tdx", &td, 1_700_000_000)
        .beside([path("tdx/trustee_az-tdx-vtpm_hcl-report.bin"), tpm.clone()])
        .answer();
    assert_eq!(answer["reject"]["name"], "SIGNATURE");
    let answer = Call::new("tdx", &td, 1_700_000_000).beside([tpm]).answer();
    assert_eq!(answer["reject"]["name"], "MISSING_FIELD");
    // The wrapper of another machine.
    let answer = Call::new("tdx", &path("tdx/phala_tdx_quote"), 1_750_414_563)
        .beside([path("tdx/trustee_az-tdx-vtpm_hcl-report.bin")])
        .answer();
    assert_eq!(answer["reject"]["name"], "INNER_HASH");
}

#[test]
fn a_folder_gives_what_belongs_and_names_the_rest() {
    let Some(folder) = samples() else { return };
    let call = Call::new("snp", &folder.join("snp/virtee_report_milan.hex"), 1_700_000_000);
    let beside = call.folder.path().join("beside");
    std::fs::create_dir(&beside).unwrap();
    for name in ["virtee_vcek_milan.der", "google_milan.testcer"] {
        std::fs::copy(folder.join("snp").join(name), beside.join(name)).unwrap();
    }
    std::fs::write(beside.join("README"), "notes").unwrap();
    let call = call.beside([beside]);
    let answer = call.answer();
    assert_eq!(
        (&answer["accepted"], &answer["unused"]),
        (&json!(true), &json!(["README"]))
    );
    // The same certificates as a bound value's companions: the report binds zeros only.
    let answer = call.with(["--bound", "01"]).answer();
    assert_eq!(answer["reject"]["name"], "BINDING_MISMATCH");
}

#[test]
fn bad_usage_is_refused() {
    let Some(folder) = samples() else { return };
    let document = folder.join("nitro/opengradient_attestation_doc.b64");
    let call = || Call::new("nitro", &document, 1_770_918_962);
    for (call, words) in [
        (call().with(["--nonce", "0"]), "--nonce"),
        (call().with(["--bound", "xy"]), "--bound"),
        (
            call().file("--policy", "policy.json", b"{\"allow_debug\": true}"),
            "allow_debug",
        ),
        (call().file("--collateral", "notes", b"notes"), "neither certificates"),
        (call().with(["--collateral", "absent"]), "absent"),
        (
            call().file("--development-root", "root.der", b"notes"),
            "--development-root",
        ),
    ] {
        expect_error(&call.run(false), 2, &[words]);
    }
    let good = call()
        .with(["--nonce", "0x0123456789abcdef0123456789abcdef01234567"])
        .answer();
    assert_eq!(good["accepted"], true);
    let at = Call::new("nitro", Path::new("absent"), 0);
    expect_error(&at.run(false), 2, &["absent"]);
}
