//! The kernel's report interface for confidential guests, `configfs-tsm` (Linux 6.7 and later;
//! `Documentation/ABI/testing/configfs-tsm-report`).
//!
//! One report is one folder: make it, write 64 bytes to `inblob`, read the report from `outblob` and what the host gave
//! beside it from `auxblob`, remove the folder. `generation` counts writes: if it is not one more than before, somebody
//! else wrote in between, the report may answer another question, and all is done again in a new folder.

use crate::{Attester, Evidence, error::AttestError, report_data};
use opg_evidence::{
    Kind, UnixSeconds,
    container::{Companions, MAX_TABLE, certificate_table},
    dcap::{MAX_QUOTE, Quote},
    snp,
};
use opg_primitives::mode::Grade;
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Rounds before a contended interface is given up.
const TRIES: u32 = 5;
/// Attributes come with their folder; a file system that fills it later gets this long.
const APPEARANCE: Duration = Duration::from_secs(2);
/// `EBUSY`, which the kernel answers to a write that would make the count of writes wrap.
const EBUSY: i32 = 16;
/// `EWOULDBLOCK`, which it answers where a report was outrun by a write.
const EWOULDBLOCK: i32 = 11;
/// Offset of the report data in every TD report body (TDX module specification, `REPORTDATA`).
const TD_REPORT_DATA: std::ops::Range<usize> = 520..584;

/// Makes names of folders unique inside the process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Who serves the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provider {
    /// `tdx_guest`: reports are TDX quotes.
    TdxGuest,
    /// `sev_guest`: reports are SEV-SNP reports, with the host's certificate table beside them.
    SevGuest,
}

impl Provider {
    const fn limit(self) -> usize {
        match self {
            Self::TdxGuest => MAX_QUOTE,
            // A page is what drivers hand out; the report is shorter.
            Self::SevGuest => 4_096,
        }
    }
}

/// The interface on this machine.
#[derive(Debug)]
pub struct Tsm {
    path: PathBuf,
    provider: Provider,
}

impl Tsm {
    /// Asks who serves the interface.
    ///
    /// # Errors
    /// [`AttestError::Io`], [`AttestError::UnknownProvider`].
    pub fn open(path: &Path) -> Result<Self, AttestError> {
        let entry = Entry::new(path)?;
        let provider = match entry.text("provider")?.as_str() {
            "tdx_guest" => Provider::TdxGuest,
            "sev_guest" => Provider::SevGuest,
            got => {
                return Err(AttestError::UnknownProvider {
                    path: path.to_owned(),
                    got: got.chars().take(64).collect(),
                });
            }
        };
        Ok(Self {
            path: path.to_owned(),
            provider,
        })
    }

    /// Who serves it.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        self.provider
    }

    /// One round: report and auxiliary data, or `None` if somebody else wrote in between.
    fn round(&self, data: &[u8; 64]) -> Result<Option<(Vec<u8>, Vec<u8>)>, AttestError> {
        let entry = Entry::new(&self.path)?;
        let before = entry.generation()?;
        let outrun = |error: &AttestError| {
            matches!(error, AttestError::Io { source, .. }
            if matches!(source.raw_os_error(), Some(EBUSY | EWOULDBLOCK)))
        };
        let answer = entry.write("inblob", data).and_then(|()| {
            let report = entry.read("outblob", self.provider.limit())?;
            let beside = match self.provider {
                Provider::SevGuest if entry.0.join("auxblob").exists() => entry.read("auxblob", MAX_TABLE)?,
                _ => Vec::new(),
            };
            Ok((report, beside))
        });
        match answer {
            Err(error) if outrun(&error) => Ok(None),
            Err(error) => Err(error),
            Ok(answer) => Ok((entry.generation()? == before.wrapping_add(1)).then_some(answer)),
        }
    }
}

impl Attester for Tsm {
    fn kind(&self) -> Kind {
        self.provider.kind()
    }

    fn grade(&self) -> Grade {
        Grade::Hardware
    }

    fn attest(&self, bound: &[u8; 32], _now: UnixSeconds) -> Result<Evidence, AttestError> {
        let data = report_data(bound);
        for _ in 0..TRIES {
            let Some((document, table)) = self.round(&data)? else {
                continue;
            };
            let document = match self.provider {
                Provider::TdxGuest => document,
                // Drivers hand out a page, the rest of it zero.
                Provider::SevGuest => without_padding(document),
            };
            let held = match self.provider {
                Provider::TdxGuest => Quote::parse(&document)?.body.get(TD_REPORT_DATA) == Some(&data[..]),
                Provider::SevGuest => snp::Report::parse(&document)?.report_data == data,
            };
            if !held {
                return Err(AttestError::Unbound);
            }
            let mut beside = Companions::default();
            beside.certificates = certificate_table(&table)?;
            return Ok(Evidence {
                kind: self.kind(),
                document,
                beside,
            });
        }
        Err(AttestError::Contended {
            path: self.path.clone(),
            tries: TRIES,
        })
    }
}

/// Cuts zeros after the end of an SNP report; anything else stays for the parser to refuse.
fn without_padding(mut report: Vec<u8>) -> Vec<u8> {
    let padding = report.get(snp::REPORT_BYTES..).unwrap_or_default();
    if padding.iter().all(|byte| *byte == 0) {
        report.truncate(snp::REPORT_BYTES);
    }
    report
}

/// One report folder, removed when dropped.
#[derive(Debug)]
struct Entry(PathBuf);

impl Entry {
    fn new(path: &Path) -> Result<Self, AttestError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let entry = path.join(format!("opg-{}-{number}", std::process::id()));
        std::fs::create_dir(&entry).map_err(AttestError::io("cannot make", &entry))?;
        let entry = Self(entry);
        let provider = entry.0.join("provider");
        let start = Instant::now();
        while !provider.exists() {
            if start.elapsed() > APPEARANCE {
                let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(AttestError::io("cannot read", provider)(absent));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(entry)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AttestError> {
        let path = self.0.join(name);
        // The kernel takes a binary attribute when the file is closed; one write, so that it is never taken in parts.
        let written = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.flush()));
        written.map_err(AttestError::io("cannot write", path))
    }

    fn read(&self, name: &'static str, limit: usize) -> Result<Vec<u8>, AttestError> {
        let path = self.0.join(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
        read.map_err(AttestError::io("cannot read", path))?;
        if bytes.len() > limit {
            return Err(AttestError::TooLong { what: name, limit });
        }
        Ok(bytes)
    }

    fn text(&self, name: &'static str) -> Result<String, AttestError> {
        let bytes = self.read(name, 128)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    fn generation(&self) -> Result<u64, AttestError> {
        self.text("generation")?.parse().map_err(|_| {
            let odd = std::io::Error::from(std::io::ErrorKind::InvalidData);
            AttestError::io("no number in", self.0.join("generation"))(odd)
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // An entry that stays costs the kernel some memory and nothing else.
        let _ = std::fs::remove_dir(&self.0);
    }
}
