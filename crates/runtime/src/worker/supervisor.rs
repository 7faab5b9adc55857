//! The workers of one model: as many as it has sessions, started again when they fail.
//!
//! A session has a worker of its own, not a thread in a shared one: a call that ends badly ends only itself, the time and
//! memory of each are bounded by the kernel, and a worker needs no threads, no second socket and no request numbers. What
//! that costs is measured in `docs/adr/0021-engine-workers.md`.

use super::{
    EngineStatus, Program, Protection, Sandbox, WorkerFault, WorkerOptions,
    keeper::{self, Tended},
    process::{Refusal, Worker},
    wire::{self, Failure, Setup},
};
use crate::{
    RuntimeError,
    onnx::{
        engine::Ports,
        library,
        pool::Pool,
        value::{Output, Tensor},
    },
};
use opg_models::onnx::{ValueInfo, ValueType};
use opg_primitives::{B256, hash};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Rest after the second failure in a row; twice as long after each further one.
const FIRST_REST: Duration = Duration::from_millis(100);
/// Longest rest after calls that failed. Each of these workers did start, so others may be served soon.
const REST_AFTER_CALLS: Duration = Duration::from_secs(2);
/// Longest rest of a worker that does not even start.
const REST_AFTER_STARTS: Duration = Duration::from_secs(30);

/// Where the model's bytes come from when a worker is started again.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// From memory.
    Memory(Arc<[u8]>),
    /// From its file, which must still have this hash: nothing of its size stays in memory.
    File { path: PathBuf, sha256: B256 },
}

impl Source {
    fn read(&self) -> Result<Arc<[u8]>, RuntimeError> {
        match self {
            Self::Memory(bytes) => Ok(Arc::clone(bytes)),
            Self::File { path, sha256 } => {
                let bytes = std::fs::read(path).map_err(|source| RuntimeError::Read {
                    path: path.clone(),
                    source,
                })?;
                if hash::sha256(&bytes) != *sha256 {
                    return Err(RuntimeError::Model {
                        reason: format!("{} was changed after it had been loaded", path.display()),
                    });
                }
                Ok(bytes.into())
            }
        }
    }
}

/// The workers of one model.
#[derive(Debug)]
pub(crate) struct Supervisor {
    workers: Arc<Workers>,
}

#[derive(Debug)]
struct Workers {
    pool: Pool<Slot>,
    recipe: Recipe,
    counts: Counts,
}

/// How a worker of this model is made.
#[derive(Debug)]
struct Recipe {
    program: Arc<Program>,
    setup: Setup,
    source: Source,
    ports: Ports,
    outputs: Vec<ValueInfo>,
    load_time: Duration,
    run_time: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    alive: AtomicUsize,
    starts: AtomicU64,
    died: AtomicU64,
    late: AtomicU64,
    nonsense: AtomicU64,
    protection: Mutex<Option<Protection>>,
}

impl Counts {
    fn count(&self, fault: &WorkerFault) {
        let counter = match fault {
            WorkerFault::Died { .. } => &self.died,
            WorkerFault::Late { .. } => &self.late,
            WorkerFault::Nonsense { .. } => &self.nonsense,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A place for a worker.
#[derive(Debug, Default)]
struct Slot {
    worker: Option<Worker>,
    failures: u32,
    rest_until: Option<Instant>,
}

impl Supervisor {
    /// Starts the workers and has them load a checked model.
    ///
    /// # Errors
    /// [`RuntimeError::Worker`], [`RuntimeError::Model`] if the engine refuses the model, or an error of the library.
    pub(crate) fn start(
        model: &[u8],
        source: Source,
        ports: Ports,
        outputs: &[ValueInfo],
        program: Arc<Program>,
        options: &crate::onnx::OnnxOptions,
    ) -> Result<Self, RuntimeError> {
        let worker: &WorkerOptions = &options.worker;
        let of_model = (model.len() as u64).saturating_mul(worker.memory_per_byte);
        let workers = Workers {
            pool: Pool::new(Vec::new()),
            recipe: Recipe {
                program,
                setup: Setup {
                    sandbox: worker.sandbox,
                    memory: worker.memory.saturating_add(of_model),
                    threads: options.threads.max(1),
                    output_elements: options.output_elements,
                    library: library::get()?.path.clone(),
                },
                source,
                ports,
                outputs: outputs.to_vec(),
                load_time: worker.load_time,
                run_time: worker.run_time,
            },
            counts: Counts::default(),
        };
        for _ in 0..options.sessions.max(1) {
            let worker = workers.start(model)?;
            workers.pool.idle().push(Slot {
                worker: Some(worker),
                ..Slot::default()
            });
        }
        let workers = Arc::new(workers);
        let tended: Arc<dyn Tended> = Arc::clone(&workers) as _;
        keeper::tend(Arc::downgrade(&tended)).map_err(WorkerFault::Start)?;
        Ok(Self { workers })
    }

    /// Runs the model on checked inputs. Blocks while it computes and while all workers are busy.
    ///
    /// # Errors
    /// [`RuntimeError::Worker`] if the worker failed, [`RuntimeError::Engine`] if it said that the model did, or
    /// [`RuntimeError::OutputTooLarge`].
    pub(crate) fn run(&self, inputs: &[Tensor]) -> Result<Vec<Output>, RuntimeError> {
        let workers = &*self.workers;
        let mut busy = workers.pool.take();
        let slot = busy.get();
        let mut fresh = false;
        loop {
            let worker = match &mut slot.worker {
                Some(worker) => worker,
                None => {
                    if let Err(error) = workers.start_again(slot) {
                        busy.put_last();
                        return Err(error);
                    }
                    fresh = true;
                    continue;
                }
            };
            let recipe = &workers.recipe;
            let limit = recipe.setup.output_elements;
            match worker.run(inputs, recipe.run_time, limit) {
                Ok(outputs) if recipe.declares(&outputs) => {
                    slot.failures = 0;
                    return Ok(outputs);
                }
                Ok(_) => {
                    let fault = WorkerFault::Nonsense {
                        task: super::Task::Run,
                        reason: "outputs of other types than the model declares".into(),
                    };
                    let error = workers.failed(slot, fault, REST_AFTER_CALLS);
                    busy.put_last();
                    return Err(error);
                }
                Err(Refusal::Failed(failure)) => {
                    slot.failures = 0;
                    return Err(recipe.error(failure));
                }
                // It died while nobody called it; the call did not reach it.
                Err(Refusal::Gone(fault)) if !fresh => {
                    workers.failed(slot, fault, Duration::ZERO);
                }
                Err(Refusal::Gone(fault) | Refusal::Fault(fault)) => {
                    let error = workers.failed(slot, fault, REST_AFTER_CALLS);
                    busy.put_last();
                    return Err(error);
                }
            }
        }
    }

    /// What holds the workers in, and what became of them.
    pub(crate) fn status(&self) -> EngineStatus {
        let counts = &self.workers.counts;
        EngineStatus {
            processes: true,
            protection: *counts.protection.lock().unwrap_or_else(PoisonError::into_inner),
            workers: counts.alive.load(Ordering::Relaxed),
            starts: counts.starts.load(Ordering::Relaxed),
            died: counts.died.load(Ordering::Relaxed),
            late: counts.late.load(Ordering::Relaxed),
            nonsense: counts.nonsense.load(Ordering::Relaxed),
        }
    }

    /// Process ids of the workers that nobody uses now.
    pub(crate) fn idle_ids(&self) -> Vec<u32> {
        let idle = self.workers.pool.idle();
        idle.iter()
            .filter_map(|slot| Some(slot.worker.as_ref()?.id()))
            .collect()
    }
}

impl Workers {
    /// Starts a worker and has it load the model.
    fn start(&self, model: &[u8]) -> Result<Worker, RuntimeError> {
        library::get()?.unchanged()?;
        let recipe = &self.recipe;
        let deadline = Instant::now() + recipe.load_time;
        let left = || {
            deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1))
        };
        let counted = |refusal: Refusal| match refusal {
            Refusal::Failed(failure) => recipe.error(failure),
            Refusal::Fault(fault) | Refusal::Gone(fault) => {
                self.counts.count(&fault);
                fault.into()
            }
        };
        let mut worker = Worker::start(&recipe.program)?;
        self.counts.starts.fetch_add(1, Ordering::Relaxed);
        let protection = worker.setup(&recipe.setup, left()).map_err(counted)?;
        if recipe.setup.sandbox == Sandbox::Required
            && let Some(missing) = protection.missing()
        {
            return Err(WorkerFault::NotLocked { missing }.into());
        }
        let ports = worker.load(model, left()).map_err(counted)?;
        if ports != recipe.ports {
            return Err(RuntimeError::Model {
                reason: "engine and file disagree about the signature".into(),
            });
        }
        let mut least = self.counts.protection.lock().unwrap_or_else(PoisonError::into_inner);
        *least = Some(least.map_or(protection, |least| least.least(protection)));
        drop(least);
        self.counts.alive.fetch_add(1, Ordering::Relaxed);
        Ok(worker)
    }

    /// Fills an empty slot, unless it still rests.
    fn start_again(&self, slot: &mut Slot) -> Result<(), RuntimeError> {
        if let Some(until) = slot.rest_until {
            let wait = until.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Err(WorkerFault::Resting {
                    failures: slot.failures,
                    wait,
                }
                .into());
            }
        }
        let started = self.recipe.source.read().and_then(|model| self.start(&model));
        match started {
            Ok(worker) => {
                tracing::info!(pid = worker.id(), "engine worker started again");
                slot.worker = Some(worker);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "engine worker not started");
                slot.rest(REST_AFTER_STARTS);
                Err(error)
            }
        }
    }

    /// Ends the worker of a slot.
    fn failed(&self, slot: &mut Slot, fault: WorkerFault, longest_rest: Duration) -> RuntimeError {
        tracing::error!(%fault, "engine worker failed");
        if slot.worker.take().is_some() {
            self.counts.alive.fetch_sub(1, Ordering::Relaxed);
        }
        self.counts.count(&fault);
        slot.rest(longest_rest);
        fault.into()
    }
}

impl Slot {
    /// The first failure costs no time, each further one in a row twice as much as the one before.
    fn rest(&mut self, longest: Duration) {
        self.failures = self.failures.saturating_add(1);
        let doublings = self.failures.saturating_sub(2).min(16);
        let rest = if self.failures < 2 {
            Duration::ZERO
        } else {
            FIRST_REST * (1 << doublings)
        };
        self.rest_until = Some(Instant::now() + rest.min(longest));
    }
}

impl Tended for Workers {
    fn tend(&self) {
        for slot in self.pool.idle().iter_mut() {
            let ended = slot.worker.as_mut().and_then(Worker::has_ended);
            if let Some(how) = ended {
                let task = super::Task::Run;
                self.failed(slot, WorkerFault::Died { task, how }, Duration::ZERO);
            }
        }
    }
}

impl Recipe {
    /// Whether outputs have the kinds that the file declares. A worker that was taken over could send others.
    fn declares(&self, outputs: &[Output]) -> bool {
        fn fits(output: &Output, ty: &ValueType) -> bool {
            match (output, ty) {
                (Output::Tensor(tensor), ValueType::Tensor { dtype, .. }) => wire::dtype(&tensor.data) == Some(*dtype),
                (Output::Sequence(items), ValueType::Sequence(item)) => items.iter().all(|output| fits(output, item)),
                (Output::Map { values, .. }, ValueType::Map { value, .. }) => {
                    matches!(&**value, ValueType::Tensor { dtype, .. } if wire::dtype(values) == Some(*dtype))
                }
                _ => false,
            }
        }
        outputs.len() == self.outputs.len()
            && outputs
                .iter()
                .zip(&self.outputs)
                .all(|(output, info)| fits(output, &info.ty))
    }

    fn error(&self, failure: Failure) -> RuntimeError {
        match failure {
            Failure::Engine(reason) => RuntimeError::Engine { reason },
            Failure::Model(reason) => RuntimeError::Model { reason },
            Failure::Library(reason) => RuntimeError::Library {
                path: self.setup.library.clone(),
                reason,
            },
            Failure::NotLocked(missing) => WorkerFault::NotLocked { missing }.into(),
            Failure::TooLarge(got) => RuntimeError::OutputTooLarge {
                limit: self.setup.output_elements,
                got,
            },
        }
    }
}
