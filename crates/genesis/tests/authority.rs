//! `docs/specs/authority.md` lists every function that changes state, and lists none as open that checks who calls.
#![allow(missing_docs)]

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

type Functions = BTreeSet<(String, String)>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Functions of all contracts that change state.
fn compiled() -> Functions {
    let mut found = Functions::new();
    for entry in fs::read_dir(root().join("contracts/artifacts")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // Actors of tests, and the list of hashes.
        if name.starts_with("Test") || name == "sources.lock" {
            continue;
        }
        let artifact: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for item in artifact["abi"].as_array().unwrap() {
            let changes = matches!(item["stateMutability"].as_str(), Some("nonpayable" | "payable"));
            if item["type"] == "function" && changes {
                found.insert((name.clone(), item["name"].as_str().unwrap().to_owned()));
            }
        }
    }
    found
}

/// The document's entries by section.
fn documented() -> BTreeMap<String, Functions> {
    let text = fs::read_to_string(root().join("docs/specs/authority.md")).unwrap();
    let mut sections: BTreeMap<String, Functions> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let ["", contract, functions, ..] = cells[..] else {
            continue;
        };
        // Names stand in backquotes; heads of tables have none.
        for name in functions.split('`').skip(1).step_by(2) {
            let entry = (contract.to_owned(), name.to_owned());
            let inserted = sections.entry(section.clone()).or_default().insert(entry);
            assert!(inserted, "{contract}.{name} stands twice in {section}");
        }
    }
    sections
}

/// External functions of our sources whose text compares the caller or has a modifier that does.
fn checking() -> Functions {
    let mut found = Functions::new();
    for directory in ["contracts/src", "contracts/src/x402"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "sol") {
                continue;
            }
            let contract = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let source: String = fs::read_to_string(&path)
                .unwrap()
                .lines()
                .map(|line| line.split("//").next().unwrap().to_owned() + "\n")
                .collect();
            for part in source.split("\n    function ").skip(1) {
                let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let body = part.split("\n    modifier ").next().unwrap();
                let head = body.split('{').next().unwrap();
                let flat: String = body.split_whitespace().collect::<Vec<_>>().join(" ");
                let checks = flat.contains(" only")
                    || flat.contains("chunkOf(")
                    || flat.contains("msg.sender ==")
                    || flat.contains("msg.sender !=")
                    || flat.contains("== msg.sender")
                    || flat.contains("!= msg.sender");
                let outside = head.contains("external") || head.contains("public");
                if checks && outside && !head.contains(" view") && !head.contains(" pure") {
                    found.insert((contract.clone(), name));
                }
            }
        }
    }
    found
}

#[test]
fn every_function_is_listed_once() {
    let sections = documented();
    let mut listed = Functions::new();
    for (section, entries) in &sections {
        for entry in entries {
            assert!(
                listed.insert(entry.clone()),
                "{entry:?} stands in {section} and in another section"
            );
        }
    }
    let compiled = compiled();
    let missing: Vec<_> = compiled.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&compiled).collect();
    assert!(missing.is_empty(), "not in docs/specs/authority.md: {missing:?}");
    assert!(
        gone.is_empty(),
        "in docs/specs/authority.md, and in no contract: {gone:?}"
    );
    assert!(compiled.len() > 100, "the artifacts were found");
}

#[test]
fn what_checks_its_caller_is_not_listed_as_open() {
    let sections = documented();
    let open = &sections["Open to anyone"];
    let checking = checking();
    let wrong: Vec<_> = checking.intersection(open).collect();
    assert!(wrong.is_empty(), "these check who calls: {wrong:?}");
    // The scan sees what it has to.
    for (contract, function) in [
        ("ReceiptLedger", "setWeights"),
        ("ReceiptLedger", "record"),
        ("FeeVault", "credit"),
        ("EvidenceRegistry", "setPolicy"),
        ("NodeRegistry", "addBond"),
        ("Vesting", "claim"),
        ("Treasury", "spend"),
    ] {
        assert!(
            checking.contains(&(contract.into(), function.into())),
            "{contract}.{function}"
        );
    }
}

/// Every function that only the timelock may call stands under governance, and governance has no other of our own.
#[test]
fn governance_is_complete() {
    let sections = documented();
    let governance = &sections["Governance"];
    for entry in fs::read_dir(root().join("contracts/src")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(source) = fs::read_to_string(&path) else {
            continue;
        };
        let contract = path.file_stem().unwrap().to_str().unwrap().to_owned();
        for part in source.split("\n    function ").skip(1) {
            let head = part.split('{').next().unwrap();
            if head.contains("onlyGovernance") || head.contains("onlyOwner") {
                let name = part.split('(').next().unwrap().to_owned();
                let entry = (contract.clone(), name);
                assert!(governance.contains(&entry), "{entry:?} is missing under governance");
            }
        }
    }
}
