//! Token bucket per client address. Time is an argument, so that the rule can be tested.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Addresses remembered at once; beyond it, full buckets are forgotten first (they carry no information).
const MAX_ADDRESSES: usize = 65_536;

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Limits calls per address: `burst` at once, `per_second` sustained.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: f64,
    burst: f64,
    loopback_factor: f64,
    buckets: HashMap<IpAddr, Bucket>,
}

impl RateLimit {
    /// `per_second` 0 switches the limit off; loopback addresses get `loopback_factor` times as much.
    pub(crate) fn new(per_second: u32, burst: u32, loopback_factor: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second: f64::from(per_second),
            burst,
            loopback_factor: f64::from(loopback_factor.max(1)),
            buckets: HashMap::new(),
        }
    }

    /// Takes `calls` tokens of `address`, or says after what time they would be there.
    ///
    /// # Errors
    /// The time to wait.
    pub(crate) fn take(&mut self, address: IpAddr, calls: usize, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let address = bucket_address(address);
        let factor = if address.is_loopback() {
            self.loopback_factor
        } else {
            1.0
        };
        let (rate, burst) = (self.per_second * factor, self.burst * factor);
        if !self.buckets.contains_key(&address) && self.buckets.len() >= MAX_ADDRESSES {
            self.forget(now);
        }
        let bucket = self.buckets.entry(address).or_insert(Bucket { tokens: burst, at: now });
        bucket.tokens = (bucket.tokens + now.saturating_duration_since(bucket.at).as_secs_f64() * rate).min(burst);
        bucket.at = now;
        // a batch larger than the burst could never pass: it costs a full bucket instead
        let cost = (calls as f64).min(burst);
        if bucket.tokens >= cost {
            bucket.tokens -= cost;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((cost - bucket.tokens) / rate))
        }
    }

    fn forget(&mut self, now: Instant) {
        let (rate, burst) = (self.per_second, self.burst);
        self.buckets
            .retain(|_, b| b.tokens + now.saturating_duration_since(b.at).as_secs_f64() * rate < burst);
        if self.buckets.len() >= MAX_ADDRESSES {
            self.buckets.clear();
        }
    }
}

/// IPv4-mapped addresses count as IPv4; one IPv6 customer owns a /64.
fn bucket_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
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
    fn burst_then_sustained_rate() {
        let (mut limit, start) = (RateLimit::new(10, 20, 1), Instant::now());
        for _ in 0..20 {
            limit.take(ip("10.0.0.1"), 1, start).unwrap();
        }
        let wait = limit.take(ip("10.0.0.1"), 1, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        limit.take(ip("10.0.0.2"), 20, start).unwrap();
        limit.take(ip("10.0.0.1"), 1, start + wait).unwrap();
        assert!(limit.take(ip("10.0.0.1"), 5, start + wait).is_err());
    }

    #[test]
    fn loopback_is_generous_and_zero_is_off() {
        let (mut limit, now) = (RateLimit::new(1, 1, 50), Instant::now());
        assert_eq!(
            (0..100).filter(|_| limit.take(ip("127.0.0.1"), 1, now).is_ok()).count(),
            50
        );
        let mut off = RateLimit::new(0, 1, 1);
        assert!((0..1_000).all(|_| off.take(ip("10.0.0.1"), 1, now).is_ok()));
    }

    #[test]
    fn one_customer_is_one_bucket() {
        let (mut limit, now) = (RateLimit::new(1, 1, 1), Instant::now());
        limit.take(ip("2001:db8::1"), 1, now).unwrap();
        assert!(limit.take(ip("2001:db8::2"), 1, now).is_err());
        limit.take(ip("10.1.1.1"), 1, now).unwrap();
        assert!(limit.take(ip("::ffff:10.1.1.1"), 1, now).is_err());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut limit, now) = (RateLimit::new(1, 2, 1), Instant::now());
        for i in 0..(MAX_ADDRESSES as u32 + 10) {
            limit
                .take(IpAddr::from(i.wrapping_add(0x0b00_0000).to_be_bytes()), 1, now)
                .unwrap();
        }
        assert!(limit.buckets.len() <= MAX_ADDRESSES);
    }
}
