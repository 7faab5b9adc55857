//! Workers: what holds them in, and what becomes of a call when one fails. Linux, where all of the sandbox exists.
#![cfg(target_os = "linux")]

#[path = "../../models/tests/common/mod.rs"]
mod common;

use common::{Proto, fixture, node, tensor_port};
use opg_runtime::{
    RuntimeError,
    onnx::{OnnxModel, OnnxOptions},
    worker::{Program, Sandbox, WorkerFault, WorkerOptions},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

const WORKER: &str = env!("CARGO_BIN_EXE_opg-engine-worker");

fn options() -> OnnxOptions {
    OnnxOptions {
        worker: WorkerOptions {
            sandbox: Sandbox::Required,
            program: Some(Arc::new(Program::new(WORKER, &[]))),
            memory: 512 << 20,
            ..WorkerOptions::default()
        },
        ..OnnxOptions::default()
    }
}

fn digits() -> OnnxModel {
    OnnxModel::load(&fixture("digits/digits_mlp.onnx"), &options()).unwrap()
}

fn call(model: &OnnxModel, input: &Value) -> Result<Value, RuntimeError> {
    model.run(model.validate(input).unwrap())
}

fn digit() -> Value {
    json!({ "X": [vec![1; 64]] })
}

/// IR version 8, `ai.onnx` 17.
fn model(graph: Proto) -> Vec<u8> {
    let import = Proto::new().bytes(1, "").int(2, 17);
    let model = Proto::new().int(1, 8).message(8, import);
    model.message(7, graph.bytes(2, "g")).0
}

/// `Y = reduce(expand(1.0, S))`: an input of four numbers that asks for any amount of memory and of time.
fn expanding() -> Vec<u8> {
    let one = Proto::new().int(2, 1).bytes(8, "one").bytes(9, 1f32.to_le_bytes());
    let graph = Proto::new()
        .message(1, node("Expand", "", &["one", "S"], &["big"]))
        .message(1, node("ReduceMax", "", &["big"], &["Y"]))
        .message(5, one)
        .message(11, tensor_port("S", 7, &[4]))
        .message(12, tensor_port("Y", 1, &[1, 1, 1, 1]));
    model(graph)
}

/// A loop that adds one for as many rounds as it is told.
fn looping() -> Vec<u8> {
    let scalar = |name: &str, dtype: i64, bytes: &[u8]| Proto::new().int(2, dtype).bytes(8, name).bytes(9, bytes);
    let body = Proto::new()
        .message(1, node("Identity", "", &["go"], &["go_on"]))
        .message(1, node("Add", "", &["sum", "one"], &["next"]))
        .bytes(2, "body")
        .message(5, scalar("one", 1, &1f32.to_le_bytes()))
        .message(11, tensor_port("round", 7, &[]))
        .message(11, tensor_port("go", 9, &[]))
        .message(11, tensor_port("sum", 1, &[]))
        .message(12, tensor_port("go_on", 9, &[]))
        .message(12, tensor_port("next", 1, &[]));
    let body = Proto::new().bytes(1, "body").int(20, 5).message(6, body);
    let graph = Proto::new()
        .message(1, node("Loop", "", &["N", "true", "zero"], &["Y"]).message(5, body))
        .message(5, scalar("true", 9, &[1]))
        .message(5, scalar("zero", 1, &0f32.to_le_bytes()))
        .message(11, tensor_port("N", 7, &[]))
        .message(12, tensor_port("Y", 1, &[]));
    model(graph)
}

fn forever() -> Value {
    json!({ "N": 1_000_000_000_000_i64 })
}

/// Lines `name: value` of a file of a process.
fn of_process(pid: u32, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_else(|| panic!("{name} in {text}"));
    line[name.len()..].trim_matches([':', ' ', '\t']).to_owned()
}

/// Whether a process exists, be it as a zombie.
fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

fn kill(pid: u32) {
    assert!(
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Everything that a worker must not do, tried in a process that locked itself in by the same function.
#[test]
fn a_locked_process_can_do_nothing_but_compute() {
    let output = Command::new(WORKER)
        .args(["probe", &(64 << 20).to_string()])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut outcomes: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let locked = outcomes.remove(0);
    assert_eq!(locked.0, "locked");
    assert!(
        locked.1.contains("seccomp on, no_new_privs on, memory 64 MiB"),
        "{text}"
    );
    let readable = outcomes
        .iter()
        .position(|outcome| outcome.0 == "read /proc/cpuinfo")
        .unwrap();
    assert_eq!(outcomes.remove(readable).1, "DONE", "{text}");
    let memory = outcomes.iter().position(|outcome| outcome.0 == "a terabyte").unwrap();
    assert_eq!(outcomes.remove(memory).1, "OutOfMemory 12", "{text}");
    // Root may start threads in spite of the limit; they are held like the first.
    let thread = outcomes.iter().position(|outcome| outcome.0 == "a thread").unwrap();
    outcomes.remove(thread);
    assert_eq!(outcomes.len(), 24, "{text}");
    for (name, outcome) in outcomes {
        assert!(outcome.starts_with("PermissionDenied "), "{name}: {outcome}\n{text}");
    }
}

#[test]
fn a_worker_is_locked_in_when_it_has_a_model() {
    let model = digits();
    let status = model.engine();
    let protection = status.protection.unwrap();
    assert!(
        status.processes && status.workers == 1 && status.starts == 1,
        "{status:?}"
    );
    assert_eq!(protection.missing(), None);
    let [pid] = model.idle_workers()[..] else { panic!() };
    // What the kernel says, not what the worker does.
    assert_eq!(of_process(pid, "status", "Seccomp"), "2");
    assert_eq!(of_process(pid, "status", "NoNewPrivs"), "1");
    // All threads, those of the library too.
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(
            status.contains("\nSeccomp:\t2\n") && status.contains("\nNoNewPrivs:\t1\n"),
            "{status}"
        );
    }
    assert!(of_process(pid, "limits", "Max core file size").starts_with("0 "));
    assert!(!of_process(pid, "limits", "Max address space").starts_with("unlimited"));
    assert_eq!(
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(),
        "1000"
    );
    assert!(
        !fs::read_to_string(format!("/proc/{pid}/environ"))
            .unwrap()
            .contains("HOME")
    );
    let mut descriptors: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    descriptors.sort();
    assert_eq!(descriptors[..2], ["/dev/null", "/dev/null"]);
    assert!(descriptors.len() == 4 && descriptors[2] == descriptors[3] && descriptors[2].starts_with("socket:"));
    drop(model);
    assert!(!exists(pid), "killed and reaped with its model");
}

#[test]
fn inherited_descriptors_are_closed() {
    // `sh` hands descriptor 9 on, as a library would that forgot to mark it.
    let mut options = options();
    let script = format!("exec 9</etc/passwd; exec {WORKER}");
    options.worker.program = Some(Arc::new(Program::new("/bin/sh", &["-c", &script])));
    let model = OnnxModel::load(&fixture("digits/digits_mlp.onnx"), &options).unwrap();
    let [pid] = model.idle_workers()[..] else { panic!() };
    assert!(!exists_descriptor(pid, 9));
    assert!(call(&model, &digit()).is_ok());
}

fn exists_descriptor(pid: u32, descriptor: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).is_ok()
}

#[test]
fn a_worker_killed_in_a_call_fails_that_call_only() {
    let model = OnnxModel::load(
        &looping(),
        &OnnxOptions {
            sessions: 2,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(call(&model, &json!({ "N": 3 })).unwrap(), json!({ "Y": 3.0 }));
    let before = model.idle_workers();
    assert_eq!(before.len(), 2);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| call(&model, &forever()));
        wait_until("a worker is busy", || model.idle_workers().len() == 1);
        let busy = *before.iter().find(|pid| !model.idle_workers().contains(pid)).unwrap();
        // The other one answers beside it.
        assert_eq!(call(&model, &json!({ "N": 2 })).unwrap(), json!({ "Y": 2.0 }));
        kill(busy);
        let error = running.join().unwrap().unwrap_err();
        assert!(
            matches!(error, RuntimeError::Worker(WorkerFault::Died { .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains("SIGKILL") && error.code() == "engine_failed" && !error.is_client());
        assert!(!exists(busy), "reaped");
    });
    // Both places work again.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(call(&model, &json!({ "N": 5 })).unwrap(), json!({ "Y": 5.0 })));
        }
    });
    assert_eq!((model.engine().died, model.engine().late), (1, 0));
}

#[test]
fn a_worker_that_died_idle_is_reaped_and_costs_no_call() {
    let model = digits();
    let expected = call(&model, &digit()).unwrap();
    let [pid] = model.idle_workers()[..] else { panic!() };
    kill(pid);
    // At once: the call notices, and is answered by the next worker.
    assert_eq!(call(&model, &digit()).unwrap(), expected);
    let [second] = model.idle_workers()[..] else { panic!() };
    assert!(second != pid && !exists(pid));
    // After a while: it is not left a zombie.
    kill(second);
    wait_until("reaped without a call", || !exists(second));
    assert_eq!((model.engine().workers, model.engine().died), (0, 2));
    assert_eq!(call(&model, &digit()).unwrap(), expected);
    assert_eq!((model.engine().workers, model.engine().starts), (1, 3));
}

#[test]
fn a_call_that_does_not_end_is_ended() {
    let mut options = options();
    options.worker.run_time = Duration::from_millis(300);
    let model = OnnxModel::load(&looping(), &options).unwrap();
    let start = Instant::now();
    let error = call(&model, &forever()).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(
        matches!(error, RuntimeError::Worker(WorkerFault::Late { .. })),
        "{error:?}"
    );
    assert_eq!(error.code(), "engine_timeout");
    assert_eq!(call(&model, &json!({ "N": 4 })).unwrap(), json!({ "Y": 4.0 }));
    assert_eq!((model.engine().late, model.engine().starts), (1, 2));
    // Again and again: it rests, and says for how long.
    for _ in 0..2 {
        assert!(call(&model, &forever()).is_err());
    }
    let error = call(&model, &json!({ "N": 4 })).unwrap_err();
    assert!(
        matches!(error, RuntimeError::Worker(WorkerFault::Resting { failures: 2, .. })),
        "{error:?}"
    );
    assert_eq!(error.code(), "runtime_unavailable");
    wait_until("it is started again", || call(&model, &json!({ "N": 4 })).is_ok());
}

#[test]
fn memory_is_bounded() {
    let model = OnnxModel::load(&expanding(), &options()).unwrap();
    let ask = |sizes: [i64; 4]| call(&model, &json!({ "S": sizes }));
    assert_eq!(ask([8, 8, 8, 8]).unwrap(), json!({ "Y": [[[[1.0]]]] }));
    // 4 TiB, 16 GiB, and 1 GiB where 512 MiB are allowed.
    for sizes in [[1 << 10; 4], [1 << 8; 4], [1 << 7, 1 << 7, 1 << 7, 1 << 7]] {
        let error = ask(sizes).unwrap_err();
        assert!(
            matches!(error, RuntimeError::Engine { .. } | RuntimeError::Worker(_)),
            "{error:?}"
        );
        println!("{sizes:?}: {error}");
        assert_eq!(ask([1, 2, 3, 4]).unwrap(), json!({ "Y": [[[[1.0]]]] }));
    }
    // The same while the model is loaded: constants are folded then.
    let shape = Proto::new()
        .int(1, 4)
        .int(2, 7)
        .bytes(8, "S")
        .bytes(9, [1i64 << 9; 4].map(i64::to_le_bytes).concat());
    let graph = Proto::new()
        .message(1, node("ConstantOfShape", "", &["S"], &["big"]))
        .message(1, node("ReduceMax", "", &["big"], &["max"]))
        .message(1, node("Add", "", &["X", "max"], &["Y"]))
        .message(5, shape)
        .message(11, tensor_port("X", 1, &[1, 1, 1, 1]))
        .message(12, tensor_port("Y", 1, &[1, 1, 1, 1]));
    match OnnxModel::load(&self::model(graph), &options()) {
        // A later engine may fold less and fail in the call instead.
        Ok(folded) => assert!(call(&folded, &json!({ "X": [[[[0]]]] })).is_err()),
        Err(error) => assert!(
            matches!(error, RuntimeError::Model { .. } | RuntimeError::Worker(_)),
            "{error:?}"
        ),
    }
}

#[test]
fn a_worker_ends_with_the_process_that_started_it() {
    // A node in small: a process that starts a worker, says which, and is killed while the worker computes.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut text = String::new();
    let mut out = child.stdout.take().unwrap();
    let pid: u32 = loop {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{text}");
        text.push(char::from(byte[0]));
        if let Some((_, rest)) = text.split_once("worker ")
            && let Some((pid, _)) = rest.split_once('.')
        {
            break pid.parse().unwrap();
        }
    };
    assert!(exists(pid));
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    wait_until("it computes", || of_process(pid, "status", "State").starts_with('R'));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the kernel ends it", || {
        !exists(pid) || of_process(pid, "status", "State").starts_with('Z')
    });
}

const CHILD: &str = "OPG_TEST_WORKER_PARENT";

/// Does nothing in an ordinary run. In a child process: starts a worker, and calls it without end.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let model = OnnxModel::load(&looping(), &options()).unwrap();
    println!("worker {}.", model.idle_workers()[0]);
    std::io::stdin().read_exact(&mut [0]).unwrap();
    // From a thread that ends: the worker must not end with it.
    let prepared = model.validate(&json!({ "N": 1 })).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| model.run(prepared).unwrap());
    });
    let _ = call(&model, &forever());
}

#[test]
fn a_closed_socket_ends_a_worker() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut worker = Command::new(WORKER)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    drop(ours);
    assert!(worker.wait().unwrap().success());
    // And without a socket it says what it is.
    let output = Command::new(WORKER).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("started by the node"));
}

#[test]
fn what_cannot_be_had_is_an_error_only_if_required() {
    let load = |sandbox, program: Option<Program>| {
        let mut options = options();
        options.worker.sandbox = sandbox;
        options.worker.program = program.map(Arc::new);
        OnnxModel::load(&fixture("digits/digits_mlp.onnx"), &options)
    };
    let error = load(Sandbox::Required, None).unwrap_err();
    assert!(
        error.to_string().contains("best-effort") && error.code() == "runtime_unavailable",
        "{error}"
    );
    assert!(!load(Sandbox::BestEffort, None).unwrap().engine().processes);
    assert!(
        !load(Sandbox::Off, Some(Program::new(WORKER, &[])))
            .unwrap()
            .engine()
            .processes
    );
    assert!(
        load(Sandbox::BestEffort, Some(Program::new(WORKER, &[])))
            .unwrap()
            .engine()
            .processes
    );
    let error = load(Sandbox::BestEffort, Some(Program::new("/nonexistent", &[]))).unwrap_err();
    assert!(
        matches!(error, RuntimeError::Worker(WorkerFault::Start(_))),
        "{error:?}"
    );
    // A program that is no worker.
    let error = load(Sandbox::BestEffort, Some(Program::new("/bin/true", &[]))).unwrap_err();
    assert!(
        matches!(error, RuntimeError::Worker(WorkerFault::Died { .. })),
        "{error:?}"
    );
}

#[test]
fn a_file_that_was_changed_is_not_loaded_again() {
    let path = std::env::temp_dir().join(format!("opg-worker-{}.onnx", std::process::id()));
    fs::write(&path, fixture("digits/digits_mlp.onnx")).unwrap();
    let model = OnnxModel::load_file(&path, &options()).unwrap();
    let expected = call(&model, &digit()).unwrap();
    kill(model.idle_workers()[0]);
    assert_eq!(call(&model, &digit()).unwrap(), expected, "read again");
    fs::write(&path, fixture("digits/logreg.onnx")).unwrap();
    kill(model.idle_workers()[0]);
    let error = call(&model, &digit()).unwrap_err();
    fs::remove_file(&path).unwrap();
    assert!(
        error.to_string().contains("was changed after it had been loaded"),
        "{error}"
    );
}

/// A frame: kind, length, body.
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u64).to_le_bytes(), body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// An output tensor: element type, shape, elements.
fn tensor(code: u8, shape: &[u64], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, code, shape.len() as u8];
    bytes.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
    bytes.extend(elements);
    bytes
}

/// `label` and `probabilities` of the digits.
fn answer(label: &[u8], probabilities: &[u8]) -> Vec<u8> {
    frame(0x83, &[&2u32.to_le_bytes()[..], label, probabilities].concat())
}

/// Does nothing in an ordinary run. With a socket as its standard input: a worker that a model has taken over.
#[test]
fn hostile() {
    use std::os::fd::AsFd as _;
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    if socket.peer_addr().is_err() {
        return;
    }
    let Some(how) = std::env::args().next_back() else {
        return;
    };
    let label = tensor(7, &[1], &5i64.to_le_bytes());
    let good = tensor(1, &[1, 10], &[0; 40]);
    loop {
        let mut header = [0; 9];
        if socket.read_exact(&mut header).is_err() {
            return;
        }
        let [kind, length @ ..] = header;
        let mut body = vec![0; u64::from_le_bytes(length) as usize];
        socket.read_exact(&mut body).unwrap();
        let bytes = match (kind, how.as_str()) {
            (1, "unlocked") => frame(0x81, &[0; 11]),
            (1, "setup-nonsense") => frame(0x81, b"what?"),
            (1, _) => frame(0x81, &[&[7, 1, 1][..], &(1u64 << 30).to_le_bytes()].concat()),
            (2, "other-ports") => frame(0x82, &[[1, 0, 0, 0].to_vec(), text("Z"), [0; 4].to_vec()].concat()),
            (2, _) => frame(
                0x82,
                &[
                    [1, 0, 0, 0].to_vec(),
                    text("X"),
                    [2, 0, 0, 0].to_vec(),
                    text("label"),
                    text("probabilities"),
                ]
                .concat(),
            ),
            (_, "good") => answer(&label, &good),
            (_, "garbage") => (0..4096u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
            (_, "endless") => [&[0x83][..], &u64::MAX.to_le_bytes()].concat(),
            (_, "more") => [answer(&label, &good), b"x".to_vec()].concat(),
            (_, "many-elements") => answer(&label, &tensor(1, &[1 << 40, 1 << 40], &[0; 40])),
            (_, "many-lists") => answer(&label, &tensor(1, &[1 << 40, 0], &[])),
            (_, "many-dimensions") => answer(&label, &tensor(1, &[1; 200], &[0; 4])),
            (_, "other-type") => answer(&label, &tensor(7, &[1, 10], &[0; 80])),
            (_, "one-output") => frame(0x83, &[&1u32.to_le_bytes()[..], &label].concat()),
            (_, "not-bool") => answer(&tensor(9, &[1], &[2]), &good),
            (_, "not-text") => answer(&tensor(8, &[1], &[1, 0, 0, 0, 0xff]), &good),
            (_, "reason") => frame(0xff, &[&[0][..], &[0; 8], &text("\x1b[31mforged\nline")].concat()),
            (_, "trickle") => {
                for byte in answer(&label, &good) {
                    if socket.write_all(&[byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(40));
                }
                continue;
            }
            (_, "closes") => {
                socket.shutdown(std::net::Shutdown::Both).unwrap();
                std::thread::sleep(Duration::from_secs(60));
                continue;
            }
            (_, "silent") => {
                std::thread::sleep(Duration::from_secs(60));
                continue;
            }
            (_, other) => panic!("{other}"),
        };
        if socket.write_all(&bytes).is_err() {
            return;
        }
    }
}

#[test]
fn a_worker_that_was_taken_over_gets_nowhere() {
    let load = |how: &str, sandbox| {
        let mut options = options();
        let path = std::env::current_exe().unwrap();
        options.worker.program = Some(Arc::new(Program::new(path, &["--exact", "hostile", how])));
        options.worker.sandbox = sandbox;
        options.worker.run_time = Duration::from_millis(400);
        OnnxModel::load(&fixture("digits/digits_mlp.onnx"), &options)
    };
    let model = load("good", Sandbox::Required).unwrap();
    assert_eq!(call(&model, &digit()).unwrap()["label"], json!([5]));
    for how in [
        "garbage",
        "endless",
        "more",
        "many-elements",
        "many-lists",
        "many-dimensions",
        "other-type",
        "one-output",
        "not-bool",
        "not-text",
    ] {
        let model = load(how, Sandbox::Required).unwrap();
        let [pid] = model.idle_workers()[..] else { panic!() };
        let error = call(&model, &digit()).unwrap_err();
        assert!(
            matches!(error, RuntimeError::Worker(WorkerFault::Nonsense { .. })),
            "{how}: {error:?}"
        );
        assert_eq!((error.code(), model.engine().nonsense), ("engine_failed", 1), "{how}");
        assert!(!exists(pid), "{how}: killed and reaped");
    }
    for how in ["trickle", "silent"] {
        let model = load(how, Sandbox::Required).unwrap();
        let start = Instant::now();
        let error = call(&model, &digit()).unwrap_err();
        assert!(
            matches!(error, RuntimeError::Worker(WorkerFault::Late { .. })),
            "{how}: {error:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(2), "{how}: {:?}", start.elapsed());
    }
    let error = call(&load("closes", Sandbox::Required).unwrap(), &digit()).unwrap_err();
    assert!(
        matches!(error, RuntimeError::Worker(WorkerFault::Died { .. })),
        "{error:?}"
    );
    // What it says goes into the log as one plain line.
    let error = call(&load("reason", Sandbox::Required).unwrap(), &digit()).unwrap_err();
    assert_eq!(error.to_string(), "the engine failed:  [31mforged line");

    let error = load("setup-nonsense", Sandbox::BestEffort).unwrap_err();
    assert!(
        matches!(error, RuntimeError::Worker(WorkerFault::Nonsense { .. })),
        "{error:?}"
    );
    let error = load("other-ports", Sandbox::BestEffort).unwrap_err();
    assert!(matches!(error, RuntimeError::Model { .. }), "{error:?}");
    // A kernel that can lock nothing in.
    let error = load("unlocked", Sandbox::Required).unwrap_err();
    assert!(
        matches!(error, RuntimeError::Worker(WorkerFault::NotLocked { .. })),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("no Landlock (Linux 5.13), no seccomp filters"),
        "{error}"
    );
    let protection = load("unlocked", Sandbox::BestEffort)
        .unwrap()
        .engine()
        .protection
        .unwrap();
    assert_eq!((protection.landlock, protection.seccomp), (0, false));
}
