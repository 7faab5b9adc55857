//! `opg evidence`: attestation documents, judged offline, and vendor collateral for a chain.

mod renew;
mod time;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use opg_client::text::one_line;
use opg_evidence::{
    Anchor, Claims, EvidenceVerifier, Expected, Kind, Policy, Reject, RootGrade, TrustRoots,
    container::{self, Checked, Unwrapped},
    dcap::{self, SgxVerifier, TdxVerifier},
    nitro::NitroVerifier,
    nvidia::NvidiaVerifier,
    pem,
    snp::{Product, SnpVerifier},
};
use serde_json::json;

use crate::{
    args::{EvidenceCommand, EvidenceVerifyArgs},
    failure::Failure,
    output::{Output, facts},
};

/// Largest file read; the crate has a tighter bound for each format.
const MAX_FILE: u64 = container::MAX_FILE as u64;
/// Most files of a collateral folder, and most roots of a file.
const MAX_FILES: usize = 64;

/// Runs an evidence command.
pub(crate) fn run(command: EvidenceCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        EvidenceCommand::Verify(args) => verify(&args, output),
        EvidenceCommand::Renew(args) => crate::block_on(renew::run(args, output)),
    }
}

fn verify(args: &EvidenceVerifyArgs, output: Output) -> Result<ExitCode, Failure> {
    let at = match &args.at {
        Some(text) => time::rfc3339(text).ok_or_else(|| {
            Failure::usage(format!(
                "--at {text:?}: expected a time as RFC 3339 has it, such as 2026-11-21T04:00:00Z"
            ))
        })?,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(Failure::failed)?
            .as_secs(),
    };
    let policy = match &args.policy {
        Some(path) => serde_json::from_slice(&read(path)?)
            .map_err(|error| Failure::usage(format!("--policy {}: {error}", path.display())))?,
        None => Policy::default(),
    };
    let (nonce, bound) = (
        hex("--nonce", args.nonce.as_ref())?,
        hex("--bound", args.bound.as_ref())?,
    );
    let expected = Expected {
        nonce: nonce.as_deref(),
        bound: bound.as_deref(),
        public_key: None,
    };
    let mut question = Question {
        kind: args.kind,
        at,
        policy,
        expected,
        unwrapped: Unwrapped::default(),
        unused: Vec::new(),
    };
    let document = read(&args.file)?;
    let unwrapped = if args.raw {
        Ok(Unwrapped {
            document,
            ..Unwrapped::default()
        })
    } else {
        container::unwrap(args.kind, &document)
    };
    let ready = match unwrapped {
        Ok(unwrapped) => {
            question.unwrapped = unwrapped;
            question.read_beside(&args.collateral)?
        }
        Err(reject) => Err(reject),
    };
    let answer = match (ready, args.development_root.as_slice()) {
        (Err(reject), _) => Answer::refused(reject, None),
        (Ok(()), []) => question.answer(&TrustRoots::pinned())?,
        (Ok(()), files) => question.answer(&development(args.kind, files)?)?,
    };
    let grade = match args.development_root.as_slice() {
        [] => TrustRoots::pinned().grade(),
        _ => TrustRoots::development(Vec::new()).grade(),
    };
    question.show(&answer, grade.as_str(), output)
}

/// What is asked: one document and everything that its verdict depends on.
struct Question<'a> {
    kind: Kind,
    at: u64,
    policy: Policy,
    expected: Expected<'a>,
    unwrapped: Unwrapped,
    /// Files of a collateral folder that nothing uses.
    unused: Vec<String>,
}

/// What is answered.
struct Answer {
    reject: Option<Reject>,
    /// Present where the document's own signatures are good.
    claims: Option<Claims>,
    /// What the companions prove.
    checked: Vec<Checked>,
}

impl Answer {
    const fn refused(reject: Reject, claims: Option<Claims>) -> Self {
        Self {
            reject: Some(reject),
            claims,
            checked: Vec::new(),
        }
    }
}

impl Question<'_> {
    fn answer<G: RootGrade>(&self, roots: &TrustRoots<G>) -> Result<Answer, Failure> {
        let beside = &self.unwrapped.companions;
        Ok(match self.kind {
            Kind::Nitro => self.judge(&NitroVerifier::new(), Ok(()), roots),
            Kind::Tdx => self.judge(&TdxVerifier, Ok(beside.intel.clone()), roots),
            Kind::Sgx => self.judge(&SgxVerifier, Ok(beside.intel.clone()), roots),
            Kind::Snp => self.judge(&SnpVerifier::new(), beside.snp(), roots),
            Kind::NvidiaGpu => self.judge(&NvidiaVerifier, Ok(beside.gpu()), roots),
            other => {
                return Err(Failure::usage(format!(
                    "--kind {other}: this version does not verify it"
                )));
            }
        })
    }

    /// Signatures first, then what lies beside the document, then the policy: a refusal still shows what the document
    /// says.
    fn judge<V: EvidenceVerifier<Collateral: Sized>, G: RootGrade>(
        &self,
        verifier: &V,
        collateral: Result<V::Collateral, Reject>,
        roots: &TrustRoots<G>,
    ) -> Answer {
        let document = &self.unwrapped.document;
        let verdict = collateral.and_then(|collateral| verifier.verify(document, &collateral, roots, self.at));
        let (verdict, claims) = match verdict {
            Ok(verdict) => {
                let claims = verdict.claims().clone();
                (Ok(verdict), claims)
            }
            // Without collateral a quote is never accepted, but its signatures can be judged.
            Err(reject @ (Reject::NoCollateral { .. } | Reject::DebugMode)) => {
                match dcap::check_signatures(self.kind, document, roots, self.at) {
                    Ok(claims) => (Err(reject), claims),
                    Err(_) => return Answer::refused(reject, None),
                }
            }
            Err(reject) => return Answer::refused(reject, None),
        };
        let checked = match self.unwrapped.companions.check(&claims) {
            Ok(checked) => checked,
            Err(reject) => return Answer::refused(reject, Some(claims)),
        };
        let judged = verdict.and_then(|verdict| self.policy.judge(verdict, &self.expected, self.at));
        Answer {
            reject: judged.err(),
            claims: Some(claims),
            checked,
        }
    }

    /// Reads the files that belong to the document. The inner error is a verdict: a file that was recognised and is
    /// broken.
    fn read_beside(&mut self, paths: &[PathBuf]) -> Result<Result<(), Reject>, Failure> {
        for path in paths {
            let cannot = |error: std::io::Error| Failure::usage(format!("--collateral {}: {error}", path.display()));
            let folder = path.is_dir();
            let mut files = Vec::new();
            if folder {
                for entry in std::fs::read_dir(path).map_err(cannot)? {
                    let file = entry.map_err(cannot)?.path();
                    if file.is_file() {
                        files.push(file);
                    }
                }
            } else {
                files.push(path.clone());
            }
            if files.len() > MAX_FILES {
                return Err(Failure::usage(format!(
                    "--collateral {}: {} files, at most {MAX_FILES} are read; name the files that belong to the document",
                    path.display(),
                    files.len()
                )));
            }
            files.sort();
            for file in files {
                match self.unwrapped.companions.add(&read(&file)?) {
                    Ok(Some(_)) => {}
                    Ok(None) if folder => self.unused.push(name(&file)),
                    Ok(None) => {
                        return Err(Failure::usage(format!(
                            "--collateral {}: neither certificates, revocation lists, Intel's collateral, Azure's wrapper, \
                             a TPM quote nor an event log",
                            file.display()
                        )));
                    }
                    Err(reject) => return Ok(Err(reject)),
                }
            }
        }
        Ok(Ok(()))
    }

    fn show(&self, answer: &Answer, grade: &str, output: Output) -> Result<ExitCode, Failure> {
        let Answer {
            reject,
            claims,
            checked,
        } = answer;
        let steps = &self.unwrapped.steps;
        let words: Vec<String> = steps.iter().map(ToString::to_string).collect();
        let document = json!({
            "kind": self.kind, "at": self.at, "accepted": reject.is_none(),
            "grade": reject.is_none().then_some(grade), "roots": grade,
            "unwrapped": steps.iter().zip(&words).map(|(step, words)| json!({ "name": step.name(), "what": words })).collect::<Vec<_>>(),
            "unused": self.unused,
            "reject": reject.as_ref().map(|reject| json!({ "code": reject.code(), "name": reject.name(), "reason": reject.to_string() })),
            "signatures_good": claims.is_some(), "claims": claims, "checked": checked,
        });
        output.result(&document, || {
            let mut text = match reject {
                None if grade == "hardware" => "ACCEPTED  hardware evidence: signatures, chain and policy\n".to_owned(),
                None => format!("ACCEPTED  {grade} evidence: it proves nothing about hardware\n"),
                Some(reject) => format!("REFUSED   {} ({}): {reject}\n", reject.name(), reject.code()),
            };
            for step in words {
                text.push_str(&format!("unwrapped {step}\n"));
            }
            for file in &self.unused {
                text.push_str(&format!("not used  {}\n", one_line(file, 200)));
            }
            if let Some(claims) = claims {
                if reject.is_some() {
                    text.push_str("The document's signatures are good; this is what it says:\n");
                }
                text.push_str(&describe(claims));
            }
            for proven in checked {
                text.push_str(&format!("also checked: {}\n", proof(proven)));
            }
            text
        })?;
        Ok(ExitCode::from(u8::from(reject.is_some())))
    }
}

fn proof(checked: &Checked) -> String {
    match checked {
        Checked::RuntimeData { user_data } => {
            format!("the report binds Azure's runtime data; user data {user_data:?}")
        }
        Checked::TpmQuote { registers, extra_data } => {
            format!("the virtual TPM signed registers {registers:?} and the bytes {extra_data:?}")
        }
        Checked::EventLog { events } => format!("the log of {events} events replays to the run-time registers"),
        other => format!("{other:?}"),
    }
}

/// Roots of software attesters, in PEM or DER.
fn development(kind: Kind, files: &[PathBuf]) -> Result<TrustRoots<opg_evidence::Development>, Failure> {
    let mut anchors = Vec::new();
    for path in files {
        let wrong = |reject: Reject| Failure::usage(format!("--development-root {}: {reject}", path.display()));
        let bytes = read(path)?;
        let ders = if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            pem::certificates(&bytes, MAX_FILES).map_err(wrong)?
        } else {
            vec![bytes]
        };
        for der in ders {
            opg_evidence::x509::Certificate::parse(&der).map_err(wrong)?;
            match kind {
                // A root of AMD's is looked up by the product of the chip.
                Kind::Snp => anchors.extend(
                    [Product::Milan, Product::Genoa, Product::Turin]
                        .map(|product| Anchor::new(kind, product.name(), der.clone())),
                ),
                _ => anchors.push(Anchor::new(kind, name(path), der)),
            }
        }
    }
    Ok(TrustRoots::development(anchors))
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn hex(option: &str, text: Option<&String>) -> Result<Option<Vec<u8>>, Failure> {
    let decode = |text: &String| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let value = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        };
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(pair).collect();
        bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| {
            Failure::usage(format!(
                "{option} {text:?}: expected hexadecimal digits, two for each byte"
            ))
        })
    };
    text.map(decode).transpose()
}

fn describe(claims: &Claims) -> String {
    let hex = |bytes: &[u8]| {
        if bytes.is_empty() {
            "none".to_owned()
        } else {
            format!("{bytes:02x?}").replace(['[', ']', ',', ' '], "")
        }
    };
    let set = |flag: Option<bool>| {
        flag.map_or("not said", |flag| if flag { "yes" } else { "no" })
            .to_owned()
    };
    let mut rows = vec![
        ("format", claims.format.clone()),
        ("evidence id", claims.evidence_id.to_string()),
        (
            "valid",
            format!("{} to {} (Unix seconds)", claims.not_before, claims.not_after),
        ),
        ("signer", one_line(&claims.signer.revocation_key(), 200)),
        ("debug", set(Some(claims.debug))),
        ("TCB", claims.tcb.status.as_str().to_owned()),
        (
            "advisories",
            if claims.tcb.advisories.is_empty() {
                "none".to_owned()
            } else {
                claims.tcb.advisories.join(", ")
            },
        ),
        ("bound data", hex(claims.bound.as_ref())),
        (
            "nonce",
            claims
                .nonce
                .as_ref()
                .map_or("none".to_owned(), |nonce| hex(nonce.as_ref())),
        ),
    ];
    if claims.smt.is_some() {
        rows.push(("threads share cores", set(claims.smt)));
    }
    if let Some(vmpl) = claims.vmpl {
        rows.push(("privilege level", vmpl.to_string()));
    }
    let zero = |value: &[u8]| value.iter().all(|byte| *byte == 0);
    let registers = claims.measurement.0.iter().filter(|(_, value)| !zero(value.as_ref()));
    let mut text = facts(rows);
    text.push_str("measurement registers that are not zero\n");
    text.push_str(&facts(
        registers.map(|(name, value)| (name.as_str(), hex(value.as_ref()))),
    ));
    text
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::usage(format!(
            "{} is longer than {MAX_FILE} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}
