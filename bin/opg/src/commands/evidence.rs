//! `opg evidence`: attestation documents, judged offline.

use std::{
    ffi::OsStr,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use opg_client::text::one_line;
use opg_evidence::{
    Accepted, Claims, EvidenceVerifier, Expected, Hardware, Kind, Policy, Reject, TrustRoots,
    dcap::{IntelCollateral, SgxVerifier, TdxVerifier},
    der::unix_seconds,
    nitro::NitroVerifier,
    nvidia::{GpuCertificates, NvidiaVerifier},
    pem,
    snp::{SnpCollateral, SnpVerifier, azure},
};
use serde_json::json;

use crate::{
    args::{EvidenceCommand, EvidenceVerifyArgs},
    failure::Failure,
    output::{Output, facts},
};

/// Largest file read; the crate has a tighter bound for each format.
const MAX_FILE: u64 = 2 << 20;
/// Object identifier 1.3.132.0.34 in DER: a P-384 key (RFC 5480, section 2.1.1.1).
const SECP384R1: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// Most files of a collateral folder.
const MAX_FILES: usize = 64;

/// Runs an evidence command. Nothing here uses the network.
pub(crate) fn run(command: EvidenceCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        EvidenceCommand::Verify(args) => verify(&args, output),
    }
}

fn verify(args: &EvidenceVerifyArgs, output: Output) -> Result<ExitCode, Failure> {
    let at = match &args.at {
        Some(text) => rfc3339(text).ok_or_else(|| {
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
    let (document, unwrapped) = unwrap(args.kind, read(&args.file)?);
    let folder = Folder::open(args.collateral.as_deref())?;
    let checked = match args.kind {
        Kind::Nitro => judge(&NitroVerifier::new(), &document, Ok(()), &policy, at),
        Kind::Tdx => judge(&TdxVerifier, &document, folder.intel()?, &policy, at),
        Kind::Sgx => judge(&SgxVerifier, &document, folder.intel()?, &policy, at),
        Kind::Snp => judge(&SnpVerifier::new(), &document, folder.amd(), &policy, at),
        Kind::NvidiaGpu => judge(&NvidiaVerifier, &document, folder.gpu(), &policy, at),
        other => {
            return Err(Failure::usage(format!(
                "--kind {other}: this version does not verify it"
            )));
        }
    };
    show(args.kind, at, &unwrapped, checked, output)
}

/// Signatures first, then the policy: a refusal by the policy still shows what the document says.
fn judge<V: EvidenceVerifier<Collateral: Sized>>(
    verifier: &V,
    document: &[u8],
    collateral: Result<V::Collateral, Reject>,
    policy: &Policy,
    at: u64,
) -> Result<Accepted<Hardware>, (Reject, Option<Box<Claims>>)> {
    let signed = collateral
        .and_then(|collateral| verifier.verify(document, &collateral, &TrustRoots::pinned(), at))
        .map_err(|reject| (reject, None))?;
    let claims = signed.claims().clone();
    policy
        .judge(signed, &Expected::default(), at)
        .map_err(|reject| (reject, Some(Box::new(claims))))
}

fn show(
    kind: Kind,
    at: u64,
    unwrapped: &[&str],
    checked: Result<Accepted<Hardware>, (Reject, Option<Box<Claims>>)>,
    output: Output,
) -> Result<ExitCode, Failure> {
    let (reject, claims) = match &checked {
        Ok(accepted) => (None, Some(accepted.claims())),
        Err((reject, claims)) => (Some(reject), claims.as_deref()),
    };
    let document = json!({
        "kind": kind, "at": at, "unwrapped": unwrapped, "accepted": reject.is_none(),
        "grade": reject.is_none().then(|| TrustRoots::pinned().grade()),
        "reject": reject.map(|reject| json!({ "code": reject.code(), "name": reject.name(), "reason": reject.to_string() })),
        "signatures_good": claims.is_some(), "claims": claims,
    });
    output.result(&document, || {
        let mut text = match reject {
            None => "ACCEPTED  hardware evidence: signatures, chain and policy\n".to_owned(),
            Some(reject) => format!("REFUSED   {} ({}): {reject}\n", reject.name(), reject.code()),
        };
        for step in unwrapped {
            text.push_str(&format!("unwrapped {step}\n"));
        }
        if let Some(claims) = claims {
            if reject.is_some() {
                text.push_str("The signatures are good; this is what the document says:\n");
            }
            text.push_str(&describe(claims));
        }
        text
    })?;
    Ok(ExitCode::from(u8::from(reject.is_some())))
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

/// Takes the document out of what commonly surrounds it: text encodings, and Azure's wrapper of SNP reports.
fn unwrap(kind: Kind, bytes: Vec<u8>) -> (Vec<u8>, Vec<&'static str>) {
    let mut steps = Vec::new();
    let mut document = bytes;
    let text = || -> Option<Vec<u8>> {
        let text = std::str::from_utf8(&document).ok()?;
        Some(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect())
    };
    if let Some(text) = text().filter(|text| !text.is_empty()) {
        let digits = text.strip_prefix(b"0x").unwrap_or(&text);
        if let Some(bytes) = from_hex(digits) {
            document = bytes;
            steps.push("hexadecimal text");
        } else if let Ok(bytes) = STANDARD.decode(&text) {
            document = bytes;
            steps.push("base64 text");
        }
    }
    if kind == Kind::Snp
        && let Ok((report, runtime)) = azure::split(&document)
        && azure::check_runtime(report, runtime).is_ok()
    {
        document = report.to_vec();
        steps.push("Azure's HCL wrapper; the report binds its runtime data");
    }
    (document, steps)
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: &u8| {
        char::from(*digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(value(high)? << 4 | value(low)?),
        _ => None,
    });
    pairs.collect()
}

/// Files that lie beside a document.
struct Folder {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Folder {
    /// Reads every file of the folder, in the order of the names.
    fn open(folder: Option<&Path>) -> Result<Self, Failure> {
        let Some(folder) = folder else {
            return Ok(Self { files: Vec::new() });
        };
        let cannot = |error: std::io::Error| Failure::usage(format!("--collateral {}: {error}", folder.display()));
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if path.is_file() {
                paths.push(path);
            }
        }
        if paths.len() > MAX_FILES {
            return Err(Failure::usage(format!(
                "--collateral {}: {} files, at most {MAX_FILES} are read; name a folder with the collateral only",
                folder.display(),
                paths.len()
            )));
        }
        paths.sort();
        let files = paths
            .into_iter()
            .map(|path| Ok((path.clone(), read(&path)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(Self { files })
    }

    fn with(&self, extensions: &[&str]) -> impl Iterator<Item = &[u8]> {
        let wanted = |path: &Path| {
            let extension = path
                .extension()
                .and_then(OsStr::to_str)
                .unwrap_or_default()
                .to_ascii_lowercase();
            extensions.contains(&extension.as_str())
        };
        self.files
            .iter()
            .filter(move |(path, _)| wanted(path))
            .map(|(_, bytes)| bytes.as_slice())
    }

    /// The one `*.json` file: TCB information, identity of the quoting enclave, revocation lists.
    fn intel(&self) -> Result<Result<Option<IntelCollateral>, Reject>, Failure> {
        let files: Vec<_> = self.with(&["json"]).collect();
        match files.as_slice() {
            [] => Ok(Ok(None)),
            [one] => Ok(IntelCollateral::from_json(one).map(Some)),
            _ => Err(Failure::usage(
                "--collateral: more than one .json file; which one belongs to the quote?",
            )),
        }
    }

    /// Certificates (`*.pem`, `*.der`, `*.crt`, `*.cer`) and revocation lists (`*.crl`).
    fn amd(&self) -> Result<SnpCollateral, Reject> {
        // The chip's key is on P-384, AMD's authorities have RSA keys: the leaf comes first whatever its file is called.
        let mut certificates = self.certificates()?;
        certificates.sort_by_key(|der| !der.windows(SECP384R1.len()).any(|bytes| bytes == SECP384R1));
        let crls = self.with(&["crl"]).map(<[u8]>::to_vec).collect();
        Ok(SnpCollateral { certificates, crls })
    }

    fn gpu(&self) -> Result<GpuCertificates, Reject> {
        self.certificates().map(GpuCertificates)
    }

    fn certificates(&self) -> Result<Vec<Vec<u8>>, Reject> {
        let mut found = Vec::new();
        for file in self.with(&["pem", "der", "crt", "cer"]) {
            if file.trim_ascii_start().starts_with(b"-----BEGIN") {
                found.extend(pem::certificates(file, MAX_FILES)?);
            } else {
                found.push(file.to_vec());
            }
        }
        Ok(found)
    }
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

/// Unix seconds of `YYYY-MM-DDThh:mm:ss`, with `Z` or an offset (RFC 3339); fractions of a second are cut.
fn rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(19)?;
    let shape = date.bytes().enumerate().all(|(i, byte)| match i {
        4 | 7 => byte == b'-',
        10 => byte == b'T' || byte == b't' || byte == b' ',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<u64>().ok();
    let local = unix_seconds(
        number(0, 4)?,
        number(5, 7)?,
        number(8, 10)?,
        number(11, 13)?,
        number(14, 16)?,
        number(17, 19)?,
    )?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    if !shape {
        return None;
    }
    if zone.eq_ignore_ascii_case("z") {
        return Some(local);
    }
    let (sign, clock) = zone.split_at_checked(1)?;
    let (hours, minutes) = clock.split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if clock.len() != 5 || hours > 23 || minutes > 59 {
        return None;
    }
    let offset = hours * 3_600 + minutes * 60;
    match sign {
        "+" => local.checked_sub(offset),
        "-" => local.checked_add(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339("2026-02-12T17:56:02Z"), Some(1_770_918_962));
        assert_eq!(rfc3339("2026-02-12T18:56:02.250+01:00"), Some(1_770_918_962));
        for wrong in [
            "",
            "2026-02-12",
            "2026-02-12T17:56:02",
            "2026-02-30T00:00:00Z",
            "2026-02-12T17:56:02+1:00",
            "now",
        ] {
            assert_eq!(rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn text_encodings_are_taken_off_and_said() {
        assert_eq!(
            unwrap(Kind::Tdx, b"0x04 00\n02".to_vec()),
            (vec![4, 0, 2], vec!["hexadecimal text"])
        );
        assert_eq!(
            unwrap(Kind::Nitro, b"hEShATgi\n".to_vec()),
            (vec![0x84, 0x44, 0xa1, 1, 0x38, 0x22], vec!["base64 text"])
        );
        assert_eq!(unwrap(Kind::Tdx, vec![4, 0, 2]), (vec![4, 0, 2], vec![]));
    }
}
