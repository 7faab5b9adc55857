//! Real documents of the shared sample folder.
// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use sha2::{Digest as _, Sha256};
use std::path::PathBuf;

/// The folder of samples: `OPG_TEE_SAMPLES`, or `shared/tee-samples` beside the repository. Says loudly where it is absent.
pub fn folder() -> Option<PathBuf> {
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

/// One row of the table of expected verdicts.
#[derive(Debug, Clone)]
pub struct Row {
    pub file: String,
    pub variant: String,
    pub kind: String,
    /// Files that belong to it.
    pub companions: Vec<String>,
    pub at: u64,
    pub expect: String,
    pub reason: String,
}

impl Row {
    pub fn names(&self) -> Vec<&str> {
        self.companions.iter().map(String::as_str).collect()
    }
}

/// The rows of the table that `wanted` picks; none where the folder is absent.
///
/// # Panics
/// If the table has another shape, or the folder is there and not one row is picked.
pub fn rows(wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
    let Some(folder) = folder() else { return Vec::new() };
    let table = std::fs::read_to_string(folder.join("expected.tsv")).expect("expected.tsv");
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
    let lines = table.lines().skip(1).filter(|line| !line.is_empty());
    let rows: Vec<Row> = lines.map(parse).filter(wanted).collect();
    assert!(!rows.is_empty(), "the table has such rows");
    rows
}

/// A file of the folder, its hash compared with `PROVENANCE.tsv`.
///
/// # Panics
/// If the file is missing or altered.
pub fn sample(name: &str) -> Option<Vec<u8>> {
    let folder = folder()?;
    let bytes = std::fs::read(folder.join(name)).expect("a sample");
    let provenance = std::fs::read_to_string(folder.join("PROVENANCE.tsv")).expect("PROVENANCE.tsv");
    let row = provenance
        .lines()
        .find(|row| row.split('\t').next() == Some(name))
        .expect("a row of PROVENANCE.tsv");
    let hash = hex::encode(Sha256::digest(&bytes));
    assert_eq!(
        row.split('\t').nth(2),
        Some(hash.as_str()),
        "{name} is not the file that PROVENANCE.tsv names"
    );
    Some(bytes)
}

/// How many mutants to make: `PROPTEST_CASES` where it is set.
pub fn cases(default: usize) -> usize {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// xorshift64*: the same mutants in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % limit.max(1)
    }
}
