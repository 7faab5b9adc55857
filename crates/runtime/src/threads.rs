//! How many threads the language model engine uses.

use candle_core::utils::barrier_pool;

/// Environment variable that candle reads once, at its first matrix product.
pub const THREADS_VARIABLE: &str = "CANDLE_NUM_THREADS";

/// Sets the number of threads of the language model engine for this process.
///
/// candle keeps one process-wide pool whose workers spin while they wait. On cores that are shared with anything else
/// that makes it 10 to 20 times slower, so a node uses 1 and runs several requests beside each other. With 1 thread
/// there is no pool at all, and requests do not wait for each other.
///
/// # Safety
/// Changes the environment: call it at the start of `main`, before any other thread exists. It has no effect after the
/// first model is loaded.
#[allow(unsafe_code)]
#[allow(
    clippy::disallowed_methods,
    reason = "candle reads its thread count from the environment only"
)]
pub unsafe fn pin_engine_threads(threads: usize) {
    // SAFETY: the caller promises that this is the only thread, so nothing reads the environment meanwhile.
    unsafe { std::env::set_var(THREADS_VARIABLE, threads.max(1).to_string()) };
}

/// Threads that the language model engine uses in this process. The first call fixes them.
#[must_use]
pub fn engine_threads() -> usize {
    barrier_pool().n_workers() + 1
}
