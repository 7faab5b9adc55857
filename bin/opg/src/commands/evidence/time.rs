//! Times on the command line.

use opg_evidence::der::unix_seconds;

/// Unix seconds of `YYYY-MM-DDThh:mm:ss`, with `Z` or an offset (RFC 3339); fractions of a second are cut.
pub(super) fn rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(19)?;
    let shape = date.bytes().enumerate().all(|(i, byte)| match i {
        4 | 7 => byte == b'-',
        10 => byte == b'T' || byte == b't' || byte == b' ',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<u64>().ok();
    let local = unix_seconds(
        number(0, 4)?,
        number(5, 7)?,
        number(8, 10)?,
        number(11, 13)?,
        number(14, 16)?,
        number(17, 19)?,
    )?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    if !shape {
        return None;
    }
    if zone.eq_ignore_ascii_case("z") {
        return Some(local);
    }
    let (sign, clock) = zone.split_at_checked(1)?;
    let (hours, minutes) = clock.split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if clock.len() != 5 || hours > 23 || minutes > 59 {
        return None;
    }
    let offset = hours * 3_600 + minutes * 60;
    match sign {
        "+" => local.checked_sub(offset),
        "-" => local.checked_add(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339("2026-02-12T17:56:02Z"), Some(1_770_918_962));
        assert_eq!(rfc3339("2026-02-12T18:56:02.250+01:00"), Some(1_770_918_962));
        for wrong in [
            "",
            "2026-02-12",
            "2026-02-12T17:56:02",
            "2026-02-30T00:00:00Z",
            "2026-02-12T17:56:02+1:00",
            "now",
        ] {
            assert_eq!(rfc3339(wrong), None, "{wrong}");
        }
    }
}
