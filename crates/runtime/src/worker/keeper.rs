//! The thread that starts all workers, and notices those that died while nobody called them.
//!
//! A worker asks the kernel to be killed when its parent ends (`PR_SET_PDEATHSIG`). What the kernel means by parent is the
//! *thread* that started it, and the threads that make calls come and go. So one thread starts all of them, and lives as
//! long as the process.

use std::{
    io,
    process::{Child, Command},
    sync::{
        Mutex, OnceLock, PoisonError, Weak,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

/// How often workers that nobody calls are looked at.
const ROUND: Duration = Duration::from_secs(1);

/// Has workers that may have died unnoticed.
pub(super) trait Tended: Send + Sync {
    /// Reaps those that died.
    fn tend(&self);
}

enum Order {
    Start(Box<Command>, SyncSender<io::Result<Child>>),
    Tend(Weak<dyn Tended>),
}

static KEEPER: OnceLock<Sender<Order>> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

fn keeper() -> io::Result<&'static Sender<Order>> {
    if let Some(keeper) = KEEPER.get() {
        return Ok(keeper);
    }
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(keeper) = KEEPER.get() {
        return Ok(keeper);
    }
    let (orders, received) = channel();
    std::thread::Builder::new()
        .name("engine-keeper".into())
        .spawn(move || keep(&received))?;
    Ok(KEEPER.get_or_init(|| orders))
}

fn keep(orders: &Receiver<Order>) {
    let mut tended: Vec<Weak<dyn Tended>> = Vec::new();
    loop {
        match orders.recv_timeout(ROUND) {
            Ok(Order::Start(mut command, answer)) => {
                if let Err(unheard) = answer.send(command.spawn())
                    && let Ok(mut child) = unheard.0
                {
                    // Its socket went with the caller: it ends by itself.
                    let _ = child.wait();
                }
            }
            Ok(Order::Tend(pool)) => tended.push(pool),
            Err(RecvTimeoutError::Timeout) => tended.retain(|pool| {
                let pool = pool.upgrade();
                pool.inspect(|pool| pool.tend()).is_some()
            }),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Starts a process from the keeper's thread.
///
/// # Errors
/// The system's reason.
pub(super) fn start(command: Command) -> io::Result<Child> {
    let (answer, child) = sync_channel(1);
    let gone = || io::Error::other("the thread that starts workers has ended");
    keeper()?
        .send(Order::Start(Box::new(command), answer))
        .map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Looks after workers until they are dropped.
///
/// # Errors
/// The keeper's thread cannot be started.
pub(super) fn tend(pool: Weak<dyn Tended>) -> io::Result<()> {
    let gone = || io::Error::other("the thread that starts workers has ended");
    keeper()?.send(Order::Tend(pool)).map_err(|_| gone())
}
