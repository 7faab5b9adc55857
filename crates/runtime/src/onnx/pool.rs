//! Things that do one call at a time, shared by callers that wait for one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Pool<T> {
    idle: Mutex<Vec<T>>,
    freed: Condvar,
}

impl<T> Pool<T> {
    pub(crate) const fn new(items: Vec<T>) -> Self {
        Self {
            idle: Mutex::new(items),
            freed: Condvar::new(),
        }
    }

    /// Takes the item that came back last; blocks until there is one.
    pub(crate) fn take(&self) -> Busy<'_, T> {
        let mut idle = self.idle();
        loop {
            if let Some(item) = idle.pop() {
                return Busy {
                    pool: self,
                    item: Some(item),
                    last: false,
                };
            }
            idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The items that nobody uses now.
    pub(crate) fn idle(&self) -> MutexGuard<'_, Vec<T>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An item in use; goes back when dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a, T> {
    pool: &'a Pool<T>,
    item: Option<T>,
    last: bool,
}

impl<T> Busy<'_, T> {
    #[allow(clippy::expect_used, reason = "the item is taken by drop only")]
    pub(crate) fn get(&mut self) -> &mut T {
        self.item.as_mut().expect("an item in use")
    }

    /// Puts it behind all others: it is taken again only when there is nothing better.
    pub(crate) const fn put_last(&mut self) {
        self.last = true;
    }
}

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            let mut idle = self.pool.idle();
            let at = if self.last { 0 } else { idle.len() };
            idle.insert(at, item);
            drop(idle);
            self.pool.freed.notify_one();
        }
    }
}
