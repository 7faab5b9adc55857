//! Token buckets: how often one caller may do something.
//!
//! Purpose: the one rule by which full nodes, routers, inference nodes and hubs limit requests, whether callers are told apart by network
//! address or by a proven account.
//!
//! # Invariants
//! - A bucket holds at most its burst and fills at its rate; what a caller is refused costs nothing.
//! - Memory is bounded: beyond [`MOST`] callers, those whose buckets are full again are forgotten, which changes nothing for them; if that is
//!   not enough, new callers wait.
//! - Time is an argument, and a clock that goes back gives nothing away.
//!
//! # Example
//! ```
//! use opg_rate_limit::{Buckets, Limit};
//! use std::time::{Duration, Instant};
//!
//! let (buckets, now) = (Buckets::default(), Instant::now());
//! let limit = Limit::per_minute(2);
//! assert_eq!(buckets.take("somebody", 1.0, limit, now), Ok(()));
//! assert_eq!(buckets.take("somebody", 1.0, limit, now), Ok(()));
//! assert_eq!(buckets.take("somebody", 1.0, limit, now), Err(Duration::from_secs(30)));
//! assert_eq!(buckets.take("somebody else", 1.0, limit, now), Ok(()));
//! ```
//!
//! # Status
//! Complete. Limits of one process: several behind one name add up.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most callers remembered at once.
pub const MOST: usize = 100_000;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Tokens a second, more than 0.
    pub rate: f64,
    /// Most tokens.
    pub burst: f64,
}

impl Limit {
    /// So many a minute, all of them at once if they were not used.
    #[must_use]
    pub fn per_minute(count: u32) -> Self {
        let burst = f64::from(count.max(1));
        Self {
            rate: burst / 60.0,
            burst,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    /// Seconds until an empty one is full again.
    fills: Duration,
    at: Instant,
}

/// Buckets of callers of one kind.
#[derive(Debug)]
pub struct Buckets<K>(Mutex<HashMap<K, Bucket>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Buckets<K> {
    /// Takes `cost` tokens of a caller. What costs more than the burst takes a full bucket: it could never pass otherwise.
    ///
    /// # Errors
    /// How long to wait until they are there.
    pub fn take(&self, caller: K, cost: f64, limit: Limit, now: Instant) -> Result<(), Duration> {
        let Limit { rate, burst } = limit;
        let fills = Duration::try_from_secs_f64(burst / rate).unwrap_or(Duration::MAX);
        // Numbers only: a panic elsewhere left them as they were.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST && !buckets.contains_key(&caller) {
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < bucket.fills);
            if buckets.len() >= MOST {
                return Err(fills.min(Duration::from_secs(60)));
            }
        }
        let bucket = buckets.entry(caller).or_insert(Bucket {
            tokens: burst,
            fills,
            at: now,
        });
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * rate).min(burst);
        bucket.fills = fills;
        bucket.at = bucket.at.max(now);
        let cost = cost.min(burst);
        if bucket.tokens < cost {
            return Err(Duration::try_from_secs_f64((cost - bucket.tokens) / rate).unwrap_or(Duration::MAX));
        }
        bucket.tokens -= cost;
        Ok(())
    }

    /// Callers remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The part of an address that one subscriber controls: an IPv4 address (mapped ones too), the first 64 bits of an IPv6 one, loopback itself.
#[must_use]
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let first = u128::from(v6) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(first))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (buckets, start) = (Buckets::default(), Instant::now());
        let limit = Limit {
            rate: 10.0,
            burst: 20.0,
        };
        for _ in 0..20 {
            buckets.take("a", 1.0, limit, start).unwrap();
        }
        let wait = buckets.take("a", 1.0, limit, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        buckets.take("b", 20.0, limit, start).unwrap();
        buckets.take("a", 1.0, limit, start + wait).unwrap();
        assert!(buckets.take("a", 5.0, limit, start + wait).is_err());
        // Refused, nothing is taken; half a second later five are there.
        buckets
            .take("a", 5.0, limit, start + wait + Duration::from_millis(500))
            .unwrap();
        // More than a bucket holds is a full bucket.
        let later = start + Duration::from_secs(60);
        buckets.take("a", 1_000.0, limit, later).unwrap();
        assert!(buckets.take("a", 1.0, limit, later).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let (buckets, start) = (Buckets::default(), Instant::now());
        let limit = Limit::per_minute(1);
        let later = start + Duration::from_secs(60);
        buckets.take("a", 1.0, limit, later).unwrap();
        assert!(buckets.take("a", 1.0, limit, start).is_err());
        assert!(buckets.take("a", 1.0, limit, later).is_err(), "the minute counts once");
        buckets.take("a", 1.0, limit, later + Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn memory_is_bounded() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let limit = Limit::per_minute(60);
        for caller in 0..MOST {
            buckets.take(caller, 1.0, limit, now).unwrap();
        }
        assert!(
            buckets.take(MOST, 1.0, limit, now).is_err(),
            "nobody is forgotten who has something to lose"
        );
        buckets.take(0, 1.0, limit, now).unwrap();
        assert_eq!(buckets.len(), MOST);
        buckets.take(MOST, 1.0, limit, now + Duration::from_secs(60)).unwrap();
        assert_eq!(buckets.len(), 1);
    }

    #[test]
    fn one_subscriber_is_one_caller() {
        assert_eq!(subscriber(ip("2001:db8::1")), subscriber(ip("2001:db8::ffff:2")));
        assert_ne!(subscriber(ip("2001:db8::1")), subscriber(ip("2001:db8:0:1::1")));
        assert_eq!(subscriber(ip("::ffff:10.1.1.1")), ip("10.1.1.1"));
        assert_ne!(subscriber(ip("10.1.1.1")), subscriber(ip("10.1.1.2")));
        assert!(subscriber(ip("::1")).is_loopback());
    }
}
