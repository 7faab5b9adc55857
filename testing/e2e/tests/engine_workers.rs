//! ONNX models of a running node are in processes that the kernel locks in, that may be killed at any time, and that end with it.
#![cfg(target_os = "linux")]

use opg_e2e::{CommandOutput, Network, opg, wait_until};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command, time::Duration};

const MODEL: &str = "demo/digits-mlp";

/// Field `name:` of `/proc/PID/status`; none if there is no such process.
fn status(pid: u32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Workers, zombies too, of the `opg up` that has this folder on its command line.
fn workers(dir: &Path) -> Vec<u32> {
    let command = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let processes = fs::read_dir("/proc").expect("/proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&pid| {
        let parent = status(pid, "PPid").and_then(|parent| parent.parse().ok());
        parent.is_some_and(|parent| command(parent).contains(dir.to_str().expect("utf-8 path")))
    })
    .collect()
}

fn signal(pids: &[u32], signal: &str) {
    let done = Command::new("kill")
        .arg(signal)
        .args(pids.iter().map(u32::to_string))
        .status();
    assert!(done.expect("kill").success());
}

fn infer(network: &Network) -> CommandOutput {
    let input = json!({ "X": [vec![0; 64]] }).to_string();
    let dir = network.dir();
    let dir = dir.to_str().expect("utf-8 path");
    opg(
        network.home(),
        &["infer", MODEL, "--input", &input, "--dir", dir, "--json"],
    )
}

async fn get(network: &Network, path: &str) -> String {
    let answer = reqwest::get(format!("{}{path}", network.node_url())).await;
    answer.expect("an answer").text().await.expect("a body")
}

async fn engine(network: &Network) -> Value {
    let health: Value = serde_json::from_str(&get(network, "/health").await).expect("JSON");
    health["engine"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_locked_in_and_come_back_when_they_are_killed() {
    let mut network = Network::start();
    let dir = network.dir();

    // What the node says, and what the kernel says.
    let said = engine(&network).await;
    assert_eq!(
        (&said["sandbox"], &said["status"]["processes"]),
        (&json!("best-effort"), &json!(true)),
        "{said}"
    );
    assert_eq!(said["status"]["protection"]["seccomp"], json!(true), "{said}");
    let first = workers(&dir);
    assert!(
        !first.is_empty() && said["status"]["workers"] == json!(first.len()),
        "{first:?} {said}"
    );
    for &pid in &first {
        assert_eq!(
            (status(pid, "Seccomp").as_deref(), status(pid, "NoNewPrivs").as_deref()),
            (Some("2"), Some("1"))
        );
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
        assert_eq!(descriptors, 4, "the socket twice, the null device twice");
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("environment");
        assert!(!String::from_utf8_lossy(&environment).contains("HOME="));
    }
    infer(&network).expect_code(0);

    // Killed while nobody calls: nobody notices.
    signal(&first, "-9");
    infer(&network).expect_code(0);
    wait_until("the dead are reaped", Duration::from_secs(10), async || {
        first.iter().all(|&pid| status(pid, "State").is_none())
    })
    .await;

    // Killed while a call waits for it: the call had not been read, and is answered by the next one.
    let second = workers(&dir);
    signal(&second, "-STOP");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| infer(&network));
        std::thread::sleep(Duration::from_millis(1_500));
        signal(&second, "-9");
        waiting.join().expect("a call").expect_code(0);
    });
    let said = engine(&network).await;
    assert!(
        said["status"]["died"].as_u64() >= Some(first.len() as u64 + 1),
        "{said}"
    );
    let metrics = get(&network, "/metrics").await;
    assert!(metrics.contains("opg_inference_engine_locked 1"), "{metrics}");
    assert!(
        metrics.contains("opg_inference_engine_faults_total{state=\"died\"}"),
        "{metrics}"
    );

    // They end with the node.
    let last = workers(&dir);
    assert!(!last.is_empty());
    assert!(network.stop().success());
    wait_until("no worker is left", Duration::from_secs(10), async || {
        last.iter()
            .all(|&pid| status(pid, "State").is_none_or(|state| state.starts_with('Z')))
    })
    .await;
}
