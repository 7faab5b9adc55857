//! Request rates: one token bucket per proven account, or per network address where there is none.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most buckets kept; the full ones are dropped first, which changes nothing for their owners.
const BUCKETS: usize = 100_000;

/// Whose bucket it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Account(String),
    Network(IpAddr),
    SignIn(IpAddr),
}

/// The part of an address that one subscriber controls: all of IPv4, the first 64 bits of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<Key, Bucket>>);

impl Rates {
    /// Takes one request of `per_minute`; else how long to wait.
    pub(crate) fn take(&self, key: Key, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let most = f64::from(per_minute);
        let speed = most / 60.0;
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS && !buckets.contains_key(&key) {
            // A bucket that was not touched for a minute is full again.
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < Duration::from_secs(60));
            if buckets.len() >= BUCKETS {
                return Err(Duration::from_secs(60));
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { level: most, at: now });
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.level = (bucket.level + elapsed * speed).min(most);
        bucket.at = now;
        if bucket.level < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.level) / speed));
        }
        bucket.level -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills() {
        let (rates, start) = (Rates::default(), Instant::now());
        let key = || Key::Network(network("2001:db8::1".parse().unwrap()));
        for _ in 0..60 {
            rates.take(key(), 60, start).unwrap();
        }
        let wait = rates.take(key(), 60, start).unwrap_err();
        assert!(wait <= Duration::from_secs(1));
        // A neighbour in the same /64 shares the bucket, another network does not.
        assert!(
            rates
                .take(Key::Network(network("2001:db8::2".parse().unwrap())), 60, start)
                .is_err()
        );
        rates
            .take(Key::Network(network("2001:db8:0:1::2".parse().unwrap())), 60, start)
            .unwrap();
        rates.take(key(), 60, start + Duration::from_secs(1)).unwrap();
    }
}
