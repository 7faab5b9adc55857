//! Writing of DER, PEM and dates, as much as certificates and revocation lists need.

use crate::{claims::UnixSeconds, der::tag, x509};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// One element.
pub(crate) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let bytes = contents.len().to_be_bytes();
    if contents.len() < 0x80 {
        out.extend(bytes.last());
    } else {
        let digits: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
        out.push(0x80 | digits.len() as u8);
        out.extend(digits);
    }
    out.extend_from_slice(contents);
    out
}

/// A sequence of encoded parts.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &parts.concat())
}

/// A non-negative integer from big-endian bytes.
pub(crate) fn integer(big_endian: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = big_endian.iter().copied().skip_while(|byte| *byte == 0).collect();
    let sign: &[u8] = if digits.first().is_none_or(|first| *first >= 0x80) {
        &[0]
    } else {
        &[]
    };
    tlv(tag::INTEGER, &[sign, &digits].concat())
}

/// A bit string of whole bytes.
pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(tag::BIT_STRING, &[&[0], bytes].concat())
}

/// An object identifier from its contents octets.
pub(crate) fn oid(contents: &[u8]) -> Vec<u8> {
    tlv(tag::OID, contents)
}

/// An octet string.
pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    tlv(tag::OCTET_STRING, bytes)
}

/// One extension of a certificate or revocation list.
pub(crate) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[tag::BOOLEAN, 1, 0xff] } else { &[] };
    sequence(&[&oid(id), critical, &octets(value)])
}

/// basicConstraints, critical.
pub(crate) fn basic_constraints(authority: bool, path_length: Option<u8>) -> Vec<u8> {
    let flag: &[u8] = if authority { &[tag::BOOLEAN, 1, 0xff] } else { &[] };
    let path = path_length.map(|limit| integer(&[limit])).unwrap_or_default();
    extension(x509::oid::BASIC_CONSTRAINTS, true, &sequence(&[flag, &path]))
}

/// keyUsage, critical, of the bits of [`x509::usage`]; only the first eight exist there.
pub(crate) fn key_usage(usage: u16) -> Vec<u8> {
    let [high, _] = usage.to_be_bytes();
    let unused = high.trailing_zeros().min(7) as u8;
    extension(x509::oid::KEY_USAGE, true, &tlv(tag::BIT_STRING, &[unused, high]))
}

/// A name of attributes below 2.5.4: the last arc of each and its text.
pub(crate) fn name(attributes: &[(u8, &str)]) -> Vec<u8> {
    let part = |(last, value): &(u8, &str)| {
        let text = tlv(tag::UTF8_STRING, value.as_bytes());
        tlv(tag::SET, &sequence(&[&oid(&[0x55, 0x04, *last]), &text]))
    };
    let parts: Vec<u8> = attributes.iter().flat_map(part).collect();
    tlv(tag::SEQUENCE, &parts)
}

/// A certificate in PEM (RFC 7468).
pub(crate) fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut lines: String = base64
        .chars()
        .enumerate()
        .flat_map(|(at, digit)| (at > 0 && at % 64 == 0).then_some('\n').into_iter().chain([digit]))
        .collect();
    lines.insert_str(0, "-----BEGIN CERTIFICATE-----\n");
    lines.push_str("\n-----END CERTIFICATE-----\n");
    lines
}

/// Gregorian date and time of a Unix second.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    seconds: u64,
}

impl Civil {
    /// Eras of 400 years (146 097 days), years counted from March.
    const fn of(at: UnixSeconds) -> Self {
        let shifted = at / 86_400 + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: year_of_era + era * 400 + (month <= 2) as u64,
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            seconds: at % 86_400,
        }
    }

    const fn clock(&self) -> (u64, u64, u64) {
        (self.seconds / 3_600, self.seconds / 60 % 60, self.seconds % 60)
    }
}

/// UTCTime before 2050, GeneralizedTime from then on (RFC 5280 section 4.1.2.5).
pub(crate) fn time(at: UnixSeconds) -> Vec<u8> {
    let civil = Civil::of(at);
    let (year, (hour, minute, second)) = (civil.year, civil.clock());
    let rest = format!("{:02}{:02}{hour:02}{minute:02}{second:02}Z", civil.month, civil.day);
    if year < 2050 {
        tlv(tag::UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        tlv(tag::GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes())
    }
}

/// `YYYY-MM-DDTHH:MM:SSZ` (RFC 3339).
pub(crate) fn rfc3339(at: UnixSeconds) -> String {
    let civil = Civil::of(at);
    let (hour, minute, second) = civil.clock();
    let Civil { year, month, day, .. } = civil;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// id-ce-cRLNumber, 2.5.29.20.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];

/// What a revocation list says, beside who signs it (RFC 5280 §5.1).
pub(crate) struct List<'a> {
    /// `AlgorithmIdentifier`.
    pub(crate) algorithm: &'a [u8],
    /// Name (DER).
    pub(crate) issuer: &'a [u8],
    /// Serial numbers.
    pub(crate) serials: &'a [u8],
    /// Its number.
    pub(crate) number: u8,
    pub(crate) this_update: UnixSeconds,
    pub(crate) next_update: UnixSeconds,
    /// Extensions after the number.
    pub(crate) more: &'a [u8],
}

impl List<'_> {
    /// The part that is signed.
    pub(crate) fn tbs(&self) -> Vec<u8> {
        let entry = |serial: &u8| sequence(&[&integer(&[*serial]), &time(self.this_update)]);
        let entries: Vec<u8> = self.serials.iter().flat_map(entry).collect();
        // An empty list of entries must be left out (RFC 5280 section 5.1.2.6).
        let entries = if entries.is_empty() {
            entries
        } else {
            sequence(&[&entries])
        };
        let number = extension(CRL_NUMBER, false, &integer(&[self.number]));
        sequence(&[
            &integer(&[1]),
            self.algorithm,
            self.issuer,
            &time(self.this_update),
            &time(self.next_update),
            &entries,
            &tlv(tag::context(0), &sequence(&[&number, self.more])),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::Der;

    #[test]
    fn times_read_back() {
        for at in [
            0,
            951_825_600,
            1_740_000_000,
            2_524_607_999,
            2_524_608_000,
            253_402_300_799,
        ] {
            assert_eq!(Der::new("time", &time(at)).time(), Ok(at));
        }
    }

    #[test]
    fn integers_are_shortest() {
        assert_eq!(integer(&[0, 0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(integer(&[0x7f]), [2, 1, 0x7f]);
        assert_eq!(tlv(4, &[0; 300]).get(..4), Some(&[4, 0x82, 1, 44][..]));
    }

    #[test]
    fn dates_of_json() {
        assert_eq!(rfc3339(951_825_600), "2000-02-29T12:00:00Z");
        assert_eq!(rfc3339(253_402_300_799), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn pem_reads_back() {
        for length in [1, 47, 48, 49, 96, 1_000] {
            let der = vec![0xa5; length];
            let text = pem(&der);
            assert!(text.lines().all(|line| line.len() <= 64), "{length}");
            assert_eq!(crate::pem::certificates(text.as_bytes(), 1).unwrap(), [der]);
        }
    }
}
