//! Static analysis of the contracts by Slither, from the Python index: every finding of high or medium impact is in
//! `contracts/static/reviewed.json` with the reason why it is none, or the step fails.

use crate::{
    context::{Context, text},
    npm,
    process::{Cmd, works},
    steps::Steps,
};
use eyre::{OptionExt as _, Result, WrapErr as _, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// A finding as it is reviewed: the check, and the contract with the function or variable that it is about.
type Finding = (String, String);

/// The analysis as a step of `test --heavy` (it takes two minutes): loud, but no failure, where it cannot be installed.
pub(crate) fn step(context: &Context, steps: &mut Steps) {
    match (npm::is_there(), analyser(context)) {
        (false, _) => steps.skip("contract analysis", "no Node.js: the contracts were not analysed"),
        (true, Err(error)) => steps.skip(
            "contract analysis",
            &format!("the contracts were not analysed: {error}"),
        ),
        (true, Ok(slither)) => {
            steps.step("contract analysis", |_| run(context, &slither));
        }
    }
}

/// Slither in a virtual environment of its own, made once for each pinned version.
fn analyser(context: &Context) -> Result<PathBuf> {
    let pins = context.root.join("contracts/static/requirements.txt");
    let venv = context.target_dir.join("slither");
    let (done, wanted) = (venv.join("installed.txt"), std::fs::read_to_string(&pins)?);
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(venv.join("bin/slither"));
    }
    let (venv_path, pins_path) = (text(&venv)?, text(&pins)?);
    ensure!(
        works("python3", &["-m", "venv", &venv_path]),
        "python3 -m venv does not work here"
    );
    let python = text(&venv.join("bin/python"))?;
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        &pins_path,
    ];
    ensure!(
        works(&python, &install),
        "slither cannot be installed; is a package registry reachable?"
    );
    std::fs::write(done, wanted)?;
    Ok(venv.join("bin/slither"))
}

fn run(context: &Context, slither: &Path) -> Result<()> {
    let contracts = context.root.join("contracts");
    npm::install(context, &contracts)?;
    let out = context.target_dir.join("slither/work");
    let shown = text(&out)?;
    Cmd::new(context, "node")
        .args(["static/input.mjs", &shown])
        .dir(&contracts)
        .run()?;
    let report = out.join("findings.json");
    if report.exists() {
        std::fs::remove_file(&report)?;
    }
    let compiler = text(&contracts.join("static/solc"))?;
    // Its exit status says how many findings there are, and its output repeats all of them: the report says what counts.
    let analysis = Cmd::new(context, slither)
        .args([
            "input.json",
            "--compile-force-framework",
            "solc-json",
            "--solc",
            &compiler,
        ])
        .args([
            "--filter-paths",
            "openzeppelin",
            "--exclude-informational",
            "--exclude-optimization",
        ])
        .args(["--exclude-low", "--fail-none", "--json", "findings.json"])
        .dir(&out);
    analysis.quiet()?;
    let read = |path: &Path| -> Result<Value> {
        let bytes = std::fs::read(path).wrap_err_with(|| path.display().to_string())?;
        serde_json::from_slice(&bytes).wrap_err_with(|| path.display().to_string())
    };
    let found = findings(&read(&report)?)?;
    let reviewed = reviewed(&read(&contracts.join("static/reviewed.json"))?)?;
    let list = |findings: Vec<&Finding>| -> String {
        let line = |(check, at): &Finding| format!("\n  {check}: {at}");
        findings.into_iter().map(line).collect()
    };
    let new: Vec<_> = found.difference(&reviewed).collect();
    let gone: Vec<_> = reviewed.difference(&found).collect();
    if !new.is_empty() {
        bail!(
            "findings that nobody has reviewed; repair them, or say in contracts/static/reviewed.json why they are none:{}",
            list(new)
        );
    }
    if !gone.is_empty() {
        bail!(
            "contracts/static/reviewed.json has what is found no more; take it out:{}",
            list(gone)
        );
    }
    println!("{} findings of high or medium impact, all reviewed", found.len());
    Ok(())
}

/// High and medium findings of Slither's report.
fn findings(report: &Value) -> Result<BTreeSet<Finding>> {
    ensure!(report["success"] == true, "slither: {}", report["error"]);
    let list = report["results"]["detectors"].as_array();
    let list = list.ok_or_eyre("slither's report has no list of findings")?;
    list.iter()
        .map(|finding| {
            let check = finding["check"].as_str().ok_or_eyre("a finding without a check")?;
            let elements = finding["elements"]
                .as_array()
                .ok_or_eyre("a finding without elements")?;
            let about = elements
                .iter()
                .find(|element| matches!(element["type"].as_str(), Some("function" | "variable")))
                .or(elements.first())
                .ok_or_eyre("a finding about nothing")?;
            Ok((check.to_owned(), place(about)))
        })
        .collect()
}

/// `Contract.function` or `Contract.function.variable`.
fn place(element: &Value) -> String {
    let name = element["name"].as_str().unwrap_or_default();
    match element["type_specific_fields"].get("parent") {
        Some(parent) if parent.is_object() => format!("{}.{name}", place(parent)),
        _ => name.to_owned(),
    }
}

fn reviewed(list: &Value) -> Result<BTreeSet<Finding>> {
    let mut found = BTreeSet::new();
    for entry in list.as_array().ok_or_eyre("reviewed.json is a list")? {
        let (check, why) = (entry["check"].as_str(), entry["why"].as_str());
        let check = check.ok_or_eyre("an entry of reviewed.json without a check")?;
        ensure!(
            why.is_some_and(|why| !why.is_empty()),
            "reviewed.json: {check} without a reason"
        );
        for place in entry["in"].as_array().into_iter().flatten() {
            found.insert((check.to_owned(), place.as_str().unwrap_or_default().to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn findings_are_named_by_contract_and_function() {
        let contract = json!({ "type": "contract", "name": "Vault" });
        let function =
            json!({ "type": "function", "name": "withdraw", "type_specific_fields": { "parent": contract } });
        let variable = json!({ "type": "variable", "name": "sum", "type_specific_fields": { "parent": function } });
        let node = json!({ "type": "node", "name": "sum += 1", "type_specific_fields": { "parent": function } });
        let report = json!({ "success": true, "results": { "detectors": [
            { "check": "reentrancy", "elements": [node, function] },
            { "check": "uninitialized", "elements": [variable] },
        ] } });
        let expected = [
            ("reentrancy", "Vault.withdraw"),
            ("uninitialized", "Vault.withdraw.sum"),
        ];
        let expected = expected.map(|(check, at)| (check.to_owned(), at.to_owned()));
        assert_eq!(findings(&report).unwrap(), BTreeSet::from(expected));
        assert!(findings(&json!({ "success": false, "error": "no compiler" })).is_err());
        assert!(findings(&json!({ "success": true, "results": {} })).is_err());
    }

    #[test]
    fn what_is_reviewed_has_a_reason() {
        assert!(reviewed(&json!([{ "check": "a", "why": "", "in": ["B.c"] }])).is_err());
        let list = include_str!("../../contracts/static/reviewed.json");
        assert!(!reviewed(&serde_json::from_str(list).unwrap()).unwrap().is_empty());
    }
}
