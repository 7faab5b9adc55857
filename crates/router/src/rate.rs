//! Requests a minute by network address, in memory only.
//!
//! Addresses are not kept: a bucket is found by a hash under a key that lives as long as the process.

use opg_rate_limit::{Buckets, Limit, subscriber};
use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Buckets of one kind of request.
#[derive(Debug)]
pub(crate) struct Rates {
    limit: Limit,
    key: RandomState,
    buckets: Buckets<u64>,
}

impl Rates {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self {
            limit: Limit::per_minute(per_minute),
            key: RandomState::new(),
            buckets: Buckets::default(),
        }
    }

    /// Takes one request of an address; else how long to wait.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.buckets
            .take(self.key.hash_one(subscriber(address)), 1.0, self.limit, now)
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
        // As text, or as its bytes; single digits stand in hashes and times, too.
        let kept = format!("{:?}", rates.buckets);
        for form in ["203.0.113.77", "203, 0, 113, 77", "3405803853"] {
            assert!(!kept.contains(form), "{kept}");
        }
    }
}
