//! The clock, and times as the API writes them.

use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// Unix time in seconds.
pub(crate) fn now() -> i64 {
    now_ms() / 1000
}

/// `2026-11-21T08:49:06.123Z`, as in Hugging Face's answers.
pub(crate) fn iso(ms: i64) -> String {
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_written_as_clients_read_them() {
        assert_eq!(super::iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(super::iso(1_790_000_000_123), "2026-09-21T14:13:20.123Z");
        assert_eq!(super::iso(i64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
