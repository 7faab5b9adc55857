//! What a figure was measured on.

use serde::Serialize;
use std::path::Path;
use std::process::Command;

/// Hardware and software.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: Option<f64>,
    os: String,
    opg: String,
    commit: Option<String>,
    engines: Vec<&'static str>,
}

impl Machine {
    pub(crate) fn of(opg: &Path) -> Self {
        let line = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let cpu = line("/proc/cpuinfo", "model name")
            .or_else(|| output("sysctl", &["-n", "machdep.cpu.brand_string"]))
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let memory = line("/proc/meminfo", "MemTotal")
            .and_then(|text| Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1_048_576.0))
            .or_else(|| Some(output("sysctl", &["-n", "hw.memsize"])?.parse::<f64>().ok()? / 1_073_741_824.0));
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory.map(|gib| (gib * 10.0).round() / 10.0),
            os: line("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| std::env::consts::OS.to_owned()),
            opg: output(&opg.to_string_lossy(), &["--version"]).unwrap_or_else(|| "unknown".into()),
            commit: output("git", &["describe", "--always", "--dirty"]),
            engines: opg_runtime::ENGINES.to_vec(),
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let memory = self.memory_gib.map_or_else(|| "?".into(), |gib| gib.to_string());
        vec![
            format!(
                "machine   {}, {} cores, {memory} GiB, {}",
                self.cpu, self.cores, self.os
            ),
            format!(
                "versions  {}, commit {}",
                self.opg,
                self.commit.as_deref().unwrap_or("unknown")
            ),
        ]
    }
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
