//! What the second upload of a nearly equal file moves, with the `huggingface_hub` and `hf_xet` of PyPI.

use crate::{
    process::Hub,
    report::{Bar, Report},
    setting,
};
use std::{path::Path, process::Command};

pub(crate) async fn run(report: &mut Report) {
    let size = setting("OPG_BENCH_DEDUP_BYTES", 512 << 20);
    let dir =
        tempfile::tempdir_in(std::env::var_os("OPG_BENCH_DIR").unwrap_or_else(|| ".".into())).expect("a directory");
    let venv = dir.path().join("venv");
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/requirements.txt");
    let pins = std::fs::read_to_string(&requirements).expect("the pinned packages");
    let pins: Vec<&str> = pins.lines().filter(|line| line.starts_with("h")).collect();
    let worked = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    let python = venv.join("bin/python");
    let there = worked(Command::new("python3").args(["-m", "venv"]).arg(&venv))
        && worked(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(&pins),
        );
    if !there {
        report.note("dedup: SKIPPED, the packages of PyPI cannot be installed here");
        return;
    }
    let hub = Hub::start(dir.path()).await;
    let output = Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bench_hub/dedup.py"))
        .arg(size.to_string())
        .env("HF_ENDPOINT", &hub.url)
        .env("HF_TOKEN", &hub.token.token)
        .env("HF_HOME", dir.path().join("hf"))
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("TMPDIR", dir.path())
        .output()
        .expect("Python");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in text.lines() {
        let [name, moved, size] = line.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        let (moved, size): (f64, f64) = (moved.parse().expect("a number"), size.parse().expect("a number"));
        let bar = (name != "first").then_some(Bar::AtMost(15.0));
        report.value(
            &format!("upload by hf_xet, {name}: moved of its size"),
            "%",
            moved / size * 100.0,
            bar,
        );
    }
    report.value(
        "peak memory of the hub over uploads by hf_xet",
        "MiB",
        hub.peak(),
        Some(Bar::AtMost(200.0)),
    );
    report.note(format!("dedup: {size} bytes of noise; {}; 10 % of the bytes differ from the first version; each is downloaded and compared", pins.join(", ")));
    hub.stop();
}
