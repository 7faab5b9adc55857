//! Requests a minute by network address, in memory only.
//!
//! Addresses are not kept: a bucket is found by a hash under a key that lives as long as the process.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most buckets; those that are full again go first.
const BUCKETS: usize = 100_000;

/// Buckets of one kind of request.
#[derive(Debug)]
pub(crate) struct Rates {
    per_minute: u32,
    key: RandomState,
    buckets: Mutex<HashMap<u64, (f64, Instant)>>,
}

impl Rates {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            key: RandomState::new(),
            buckets: Mutex::default(),
        }
    }

    /// Takes one request of an address; else how long to wait.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let bucket = self.key.hash_one(network(address));
        let most = f64::from(self.per_minute);
        let speed = most / 60.0;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS && !buckets.contains_key(&bucket) {
            // One that was not touched for a minute is full again.
            buckets.retain(|_, (_, at)| now.saturating_duration_since(*at) < Duration::from_secs(60));
            if buckets.len() >= BUCKETS {
                return Err(Duration::from_secs(60));
            }
        }
        let (level, at) = buckets.entry(bucket).or_insert((most, now));
        let elapsed = now.saturating_duration_since(*at).as_secs_f64();
        *level = (*level + elapsed * speed).min(most);
        *at = now;
        if *level < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *level) / speed));
        }
        *level -= 1.0;
        Ok(())
    }
}

/// What one subscriber controls: an IPv4 address, the first 64 bits of an IPv6 one.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()) | 0xffff_ffff_0000_0000,
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_per_subscriber_that_fills_again() {
        let rates = Rates::new(60);
        let now = Instant::now();
        let (a, b) = ("2606:4700::1".parse().unwrap(), "2606:4700::ffff:2".parse().unwrap());
        for i in 0..60 {
            rates.take(if i % 2 == 0 { a } else { b }, now).unwrap();
        }
        let wait = rates.take(a, now).unwrap_err();
        assert!(wait <= Duration::from_secs(1));
        rates.take("1.2.3.4".parse().unwrap(), now).unwrap();
        rates.take(a, now + Duration::from_secs(1)).unwrap();
        assert!(rates.take(b, now + Duration::from_secs(1)).is_err());
    }

    #[test]
    fn no_address_is_kept() {
        let rates = Rates::new(60);
        rates.take("203.0.113.77".parse().unwrap(), Instant::now()).unwrap();
        assert!(!format!("{:?}", rates.buckets).contains("203"));
    }
}
