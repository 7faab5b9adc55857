//! Table of polled filters (`eth_new*Filter`). Bounded, and a filter that nobody polls expires.
//!
//! ethrex has log filters only, without `eth_getFilterLogs`; one table for all three kinds replaces it. A finalized block
//! is never replaced, so a filter is a position in the chain: no log is ever "removed".

use super::message::RpcError;
use alloy_primitives::B256;
use serde_json::Value;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Transactions remembered for one pending-transaction filter between two polls.
const MAX_PENDING: usize = 8_192;

/// What a filter watches.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Hashes of new blocks.
    Blocks,
    /// Hashes of transactions that entered the pool.
    Pending(Vec<B256>),
    /// Logs; the criteria are the parameter of `eth_getLogs`.
    Logs(Box<Value>),
}

/// What a poll has to fetch.
#[derive(Debug, Clone)]
pub(crate) enum Poll {
    /// Hashes of the blocks `from ..= to`; empty if `from > to`.
    Blocks {
        /// First block.
        from: u64,
        /// Last block.
        to: u64,
    },
    /// Logs of the blocks `from ..= to` that meet the criteria.
    Logs {
        /// Parameter of `eth_newFilter`.
        criteria: Box<Value>,
        /// First block.
        from: u64,
        /// Last block.
        to: u64,
    },
    /// These hashes.
    Pending(Vec<B256>),
}

#[derive(Debug)]
struct Filter {
    kind: Kind,
    next: u64,
    polled: Instant,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Filters {
    table: HashMap<u64, Filter>,
    max: usize,
    expiry: Duration,
}

impl Filters {
    /// At most `max` filters, each dropped `expiry` after its last poll.
    pub(crate) fn new(max: usize, expiry: Duration) -> Self {
        Self {
            table: HashMap::new(),
            max,
            expiry,
        }
    }

    /// Adds a filter that starts after block `head`; `id` is random.
    ///
    /// # Errors
    /// The table is full.
    pub(crate) fn add(&mut self, id: u64, kind: Kind, head: u64, now: Instant) -> Result<u64, RpcError> {
        if self.table.len() >= self.max {
            let expiry = self.expiry;
            self.table
                .retain(|_, f| now.saturating_duration_since(f.polled) < expiry);
        }
        if self.table.len() >= self.max {
            let message = format!(
                "too many filters on this node (limit {}): use eth_getLogs, or eth_subscribe over WebSocket",
                self.max
            );
            return Err(RpcError::new(super::message::LIMIT, message));
        }
        self.table.insert(
            id,
            Filter {
                kind,
                next: head + 1,
                polled: now,
            },
        );
        Ok(id)
    }

    /// Removes a filter; whether it was there.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        self.table.remove(&id).is_some()
    }

    /// What is new for a filter up to block `head`; moves it forward.
    ///
    /// # Errors
    /// No such filter.
    pub(crate) fn poll(&mut self, id: u64, head: u64, max_range: u64, now: Instant) -> Result<Poll, RpcError> {
        let expiry = self.expiry;
        let filter = self
            .table
            .get_mut(&id)
            .filter(|f| now.saturating_duration_since(f.polled) < expiry)
            .ok_or_else(not_found)?;
        filter.polled = now;
        let from = filter.next;
        let to = head.min(from.saturating_add(max_range - 1));
        let poll = match &mut filter.kind {
            Kind::Blocks => Poll::Blocks { from, to },
            Kind::Logs(criteria) => Poll::Logs {
                criteria: criteria.clone(),
                from,
                to,
            },
            Kind::Pending(hashes) => Poll::Pending(std::mem::take(hashes)),
        };
        filter.next = from.max(to + 1);
        Ok(poll)
    }

    /// The criteria of a log filter, for `eth_getFilterLogs`.
    ///
    /// # Errors
    /// No such filter, or not a log filter.
    pub(crate) fn criteria(&mut self, id: u64, now: Instant) -> Result<Value, RpcError> {
        let filter = self.table.get_mut(&id).ok_or_else(not_found)?;
        filter.polled = now;
        match &filter.kind {
            Kind::Logs(criteria) => Ok((**criteria).clone()),
            _ => Err(RpcError::field(
                "filter",
                "a log filter",
                "a block or transaction filter",
            )),
        }
    }

    /// A transaction entered the pool.
    pub(crate) fn pending(&mut self, hash: B256) {
        for filter in self.table.values_mut() {
            if let Kind::Pending(hashes) = &mut filter.kind
                && hashes.len() < MAX_PENDING
            {
                hashes.push(hash);
            }
        }
    }

    /// Filters in the table.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

fn not_found() -> RpcError {
    RpcError::new(
        super::message::SERVER_ERROR,
        "filter not found: it never existed, was uninstalled, or expired without a poll",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn blocks_are_reported_once() {
        let (mut filters, now) = (Filters::new(2, Duration::from_secs(5)), Instant::now());
        filters.add(1, Kind::Blocks, 10, now).unwrap();
        assert!(matches!(
            filters.poll(1, 10, 100, now).unwrap(),
            Poll::Blocks { from: 11, to: 10 }
        ));
        assert!(matches!(
            filters.poll(1, 12, 100, now).unwrap(),
            Poll::Blocks { from: 11, to: 12 }
        ));
        assert!(matches!(
            filters.poll(1, 13, 100, now).unwrap(),
            Poll::Blocks { from: 13, to: 13 }
        ));
        // a filter that was not polled for long catches up in steps
        assert!(matches!(
            filters.poll(1, 500, 100, now).unwrap(),
            Poll::Blocks { from: 14, to: 113 }
        ));
        assert!(matches!(
            filters.poll(1, 500, 100, now).unwrap(),
            Poll::Blocks { from: 114, to: 213 }
        ));
    }

    #[test]
    fn the_table_is_bounded_and_expires() {
        let (mut filters, now) = (Filters::new(2, Duration::from_secs(5)), Instant::now());
        filters.add(1, Kind::Blocks, 0, now).unwrap();
        filters
            .add(2, Kind::Logs(Box::new(json!({}))), 0, now + Duration::from_secs(3))
            .unwrap();
        assert!(filters.add(3, Kind::Blocks, 0, now + Duration::from_secs(4)).is_err());
        filters.add(3, Kind::Blocks, 0, now + Duration::from_secs(6)).unwrap();
        assert!(filters.poll(1, 1, 1, now).is_err(), "the unpolled one made room");
        assert!(filters.poll(2, 1, 1, now + Duration::from_secs(9)).is_err(), "expired");
        assert!(filters.remove(3) && !filters.remove(3));
        assert!(filters.len() <= 2);
    }

    #[test]
    fn pending_transactions_are_bounded() {
        let (mut filters, now) = (Filters::new(2, Duration::from_secs(5)), Instant::now());
        filters.add(1, Kind::Pending(vec![]), 0, now).unwrap();
        for i in 0..MAX_PENDING + 5 {
            filters.pending(B256::from(alloy_primitives::U256::from(i)));
        }
        let Poll::Pending(hashes) = filters.poll(1, 0, 1, now).unwrap() else {
            panic!("pending")
        };
        assert_eq!(hashes.len(), MAX_PENDING);
        assert!(matches!(filters.poll(1, 0, 1, now).unwrap(), Poll::Pending(h) if h.is_empty()));
        assert!(filters.criteria(1, now).is_err());
    }
}
