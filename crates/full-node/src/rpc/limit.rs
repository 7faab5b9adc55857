//! Calls a second by client address.

use opg_rate_limit::{Buckets, Limit, subscriber};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// Limits calls per address: `burst` at once, `per_second` sustained.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// None: no limit.
    limit: Option<Limit>,
    loopback_factor: f64,
    buckets: Buckets<IpAddr>,
}

impl RateLimit {
    /// `per_second` 0 switches the limit off; loopback addresses get `loopback_factor` times as much.
    pub(crate) fn new(per_second: u32, burst: u32, loopback_factor: u32) -> Self {
        let limit = Limit {
            rate: f64::from(per_second),
            burst: f64::from(burst.max(1)),
        };
        Self {
            limit: (per_second != 0).then_some(limit),
            loopback_factor: f64::from(loopback_factor.max(1)),
            buckets: Buckets::default(),
        }
    }

    /// Takes `calls` tokens of `address`, or says after what time they would be there. A batch larger than the burst costs a full bucket.
    ///
    /// # Errors
    /// The time to wait.
    pub(crate) fn take(&self, address: IpAddr, calls: usize, now: Instant) -> Result<(), Duration> {
        let Some(limit) = self.limit else { return Ok(()) };
        let address = subscriber(address);
        let factor = if address.is_loopback() {
            self.loopback_factor
        } else {
            1.0
        };
        let limit = Limit {
            rate: limit.rate * factor,
            burst: limit.burst * factor,
        };
        self.buckets.take(address, calls as f64, limit, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_is_generous_and_zero_is_off() {
        let (limit, now) = (RateLimit::new(1, 1, 50), Instant::now());
        assert_eq!(
            (0..100).filter(|_| limit.take(ip("127.0.0.1"), 1, now).is_ok()).count(),
            50
        );
        let off = RateLimit::new(0, 1, 1);
        assert!((0..1_000).all(|_| off.take(ip("10.0.0.1"), 1, now).is_ok()));
    }

    #[test]
    fn one_customer_is_one_bucket_and_a_batch_costs_its_calls() {
        let (limit, now) = (RateLimit::new(10, 20, 1), Instant::now());
        limit.take(ip("2001:db8::1"), 20, now).unwrap();
        assert!(limit.take(ip("2001:db8::2"), 1, now).is_err());
        limit.take(ip("10.1.1.1"), 15, now).unwrap();
        limit.take(ip("::ffff:10.1.1.1"), 5, now).unwrap();
        let wait = limit.take(ip("10.1.1.1"), 1, now).unwrap_err();
        limit.take(ip("10.1.1.1"), 1, now + wait).unwrap();
        limit.take(ip("10.1.1.2"), 1_000, now).unwrap();
    }
}
