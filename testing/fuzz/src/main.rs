//! `opg-fuzz [TARGET] [--seconds N] [--seed N]`: runs one fuzz target, or all, side by side on all cores. `opg-fuzz --list` names them.

use opg_fuzz::{Done, Failure, Run, Target, targets};
use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

struct Options {
    name: Option<String>,
    seconds: u64,
    seed: u64,
    list: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        name: None,
        seconds: 20,
        // Another search each time; it is printed, so that it can be repeated.
        seed: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |now| now.as_nanos() as u64),
        list: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64, String> {
            let text = arguments.next().ok_or(format!("{argument} needs a number"))?;
            text.parse().map_err(|_| format!("{argument}: {text:?} is no number"))
        };
        match argument.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            "--list" => options.list = true,
            name if !name.starts_with('-') => options.name = Some(name.to_owned()),
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("opg-fuzz: {problem}");
            return ExitCode::from(2);
        }
    };
    let mut all = targets::all();
    if options.list {
        for target in &all {
            println!("{}", target.name);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(name) = &options.name {
        all.retain(|target| target.name == name);
        if all.is_empty() {
            eprintln!("opg-fuzz: no target {name:?}; --list names them");
            return ExitCode::from(2);
        }
    }
    // The harness reports panics itself, with their input.
    std::panic::set_hook(Box::new(|_| ()));
    let results = run(&all, &options);
    let mut ok = true;
    for (name, result) in results {
        match result {
            Ok(done) => println!("{name:24} {:>10} inputs  {:>4} outcomes", done.inputs, done.outcomes),
            Err(failure) => {
                ok = false;
                println!("{name:24} FAILED: {}", failure.what);
                println!("  input ({} bytes): {}", failure.input.len(), hex(&failure.input));
            }
        }
    }
    println!("seed {}", options.seed);
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(all: &[Target], options: &Options) -> Vec<(&'static str, Result<Done, Failure>)> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(all.len()) {
            scope.spawn(|| {
                while let Some(target) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let time = Duration::from_secs(options.seconds);
                    let result = Run::new(options.seed).for_time(target, time);
                    results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((target.name, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(name, _)| *name);
    results
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
