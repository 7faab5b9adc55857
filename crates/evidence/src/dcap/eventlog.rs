//! Measured-boot event logs and their replay to the four run-time registers of a trust domain.
//!
//! A quote holds only the last value of RTMR0 to RTMR3. An event log says how they came about: each event extends one
//! register, `RTMR = SHA-384(RTMR || digest)`, from zero. A log proves something only when its replay gives exactly the
//! registers of a verified quote ([`check`]), and the text beside a digest only where the digest is computed from it
//! ([`Event::runtime`]): the rest of a log is hearsay.
//!
//! Two carriers are read: a list of [`Event`]s that the caller takes from a JSON log, and the binary log that firmware
//! leaves in the `CCEL` ACPI table ([`ccel`]; TCG, "PC Client Platform Firmware Profile", section 10.2, with the
//! register numbers of the UEFI specification 2.10, section 38.4.1).
//!
//! ```
//! use opg_evidence::dcap::eventlog::{Event, replay};
//!
//! let registers = replay(&[Event::runtime("app-id", b"gateway")])?;
//! assert_eq!(registers[..3], [[0; 48]; 3]);
//! assert_ne!(registers[3], [0; 48]);
//! # Ok::<(), opg_evidence::Reject>(())
//! ```

use crate::{bytes::Reader, claims::Claims, reject::Reject};
use sha2::{Digest, Sha384};

/// Most events of one log.
pub const MAX_EVENTS: usize = 4_096;
/// Most bytes of a binary log; firmware reserves 64 kB.
pub const MAX_LOG: usize = 1_048_576;
/// Type that dstack's guest agent gives to its events of RTMR3 (Dstack-TEE/dstack, `cc-eventlog`).
pub const RUNTIME_EVENT: u32 = 0x0800_0001;

const WHAT: &str = "the event log";
const REGISTERS: [&str; 4] = ["rtmr0", "rtmr1", "rtmr2", "rtmr3"];
/// `TPM_ALG_SHA384`.
const SHA384: u16 = 0x000c;
/// First entry of every log in the crypto-agile format.
const SPECIFICATION: &[u8] = b"Spec ID Event03\0";

/// One extension of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Run-time register, 0 to 3.
    pub register: u8,
    /// Type as logged; nothing vouches for it.
    pub kind: u32,
    /// Digest that extended the register.
    pub digest: [u8; 48],
}

impl Event {
    /// An event of dstack's guest agent in RTMR3, its digest computed from its contents:
    /// `SHA-384(u32le(type) || ":" || name || ":" || payload)`.
    #[must_use]
    pub fn runtime(name: &str, payload: &[u8]) -> Self {
        let digest = Sha384::new()
            .chain_update(RUNTIME_EVENT.to_le_bytes())
            .chain_update(":")
            .chain_update(name)
            .chain_update(":")
            .chain_update(payload)
            .finalize();
        Self {
            register: 3,
            kind: RUNTIME_EVENT,
            digest: digest.into(),
        }
    }
}

/// The registers to which `events` lead from zero.
///
/// # Errors
/// [`Reject::TooLong`] for more than [`MAX_EVENTS`] events, [`Reject::FieldValue`] for a register above 3.
pub fn replay(events: &[Event]) -> Result<[[u8; 48]; 4], Reject> {
    bounded(events.len())?;
    let mut registers = [[0u8; 48]; 4];
    for event in events {
        let register = registers
            .get_mut(usize::from(event.register))
            .ok_or(Reject::FieldValue {
                what: "the register of an event",
                expected: "0 to 3",
                got: u64::from(event.register),
            })?;
        *register = Sha384::new()
            .chain_update(*register)
            .chain_update(event.digest)
            .finalize()
            .into();
    }
    Ok(registers)
}

/// Checks that `events` lead exactly to the run-time registers of a verified quote.
///
/// # Errors
/// [`Reject::EventLog`] naming the first register that differs, [`Reject::RegisterAbsent`] for claims without run-time
/// registers, and the errors of [`replay`].
pub fn check(events: &[Event], claims: &Claims) -> Result<(), Reject> {
    let replayed = replay(events)?;
    for ((number, name), value) in (0u8..).zip(REGISTERS).zip(replayed) {
        let quoted = claims.measurement.get(name).ok_or_else(|| Reject::RegisterAbsent {
            register: name.to_owned(),
        })?;
        if quoted != value {
            return Err(Reject::EventLog { register: number });
        }
    }
    Ok(())
}

/// Reads a binary log. It ends at the end of the bytes, or where nothing but 0xff or nothing but zeros is left: firmware
/// hands out the whole reserved area.
///
/// Registers are numbered 1 to 4 there, for RTMR0 to RTMR3. Number 0 would be MRTD, which no event extends, and is
/// refused.
///
/// # Errors
/// [`Reject::TooLong`] beyond [`MAX_LOG`] bytes or [`MAX_EVENTS`] events, [`Reject::Truncated`] for a length past the
/// end, [`Reject::Malformed`] without the first entry, [`Reject::Algorithm`] for other digests than one SHA-384,
/// [`Reject::FieldValue`] for another register.
pub fn ccel(log: &[u8]) -> Result<Vec<Event>, Reject> {
    if log.len() > MAX_LOG {
        return Err(Reject::TooLong {
            what: WHAT,
            limit: MAX_LOG,
            got: log.len(),
        });
    }
    let mut reader = Reader::new(WHAT, log);
    // The first entry has the old form (register, type, SHA-1) and says which algorithms follow.
    reader.take(4 + 4 + 20)?;
    if !sized(&mut reader)?.starts_with(SPECIFICATION) {
        return Err(Reject::Malformed {
            what: WHAT,
            at: 0,
            why: "the first entry is not a specification identifier of version 3",
        });
    }
    let mut events = Vec::new();
    while !ended(reader.rest()) {
        bounded(events.len().saturating_add(1))?;
        let register = reader.u32_le()?;
        let kind = reader.u32_le()?;
        let digests = reader.u32_le()?;
        if digests != 1 || reader.u16_le()? != SHA384 {
            return Err(Reject::Algorithm {
                what: "an event",
                expected: "one SHA-384 digest",
            });
        }
        let digest = *reader.array()?;
        sized(&mut reader)?;
        let register = match register {
            1 => 0,
            2 => 1,
            3 => 2,
            4 => 3,
            _ => {
                return Err(Reject::FieldValue {
                    what: "the register of an event",
                    expected: "1 to 4",
                    got: u64::from(register),
                });
            }
        };
        events.push(Event { register, kind, digest });
    }
    Ok(events)
}

/// Whether only filling is left. Events start with a register of 1 to 4, so the first byte decides before the rest of
/// the area is looked at.
fn ended(rest: &[u8]) -> bool {
    match rest.first() {
        Some(filling @ (0 | 0xff)) => rest.iter().all(|byte| byte == filling),
        Some(_) => false,
        None => true,
    }
}

fn bounded(events: usize) -> Result<(), Reject> {
    if events > MAX_EVENTS {
        return Err(Reject::TooLong {
            what: "the list of events",
            limit: MAX_EVENTS,
            got: events,
        });
    }
    Ok(())
}

fn sized<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Reject> {
    let length = reader.u32_le()?;
    reader.take(usize::try_from(length).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(register: u32, algorithm: u16, digest: [u8; 48], text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(register.to_le_bytes());
        out.extend(0x8000_0001u32.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend(algorithm.to_le_bytes());
        out.extend(digest);
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text);
        out
    }

    fn log(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0; 28];
        out.extend(20u32.to_le_bytes());
        out.extend(SPECIFICATION);
        out.extend([0; 4]);
        out.extend(entries.concat());
        out
    }

    #[test]
    fn a_log_is_read_and_replayed() {
        let text = log(&[
            entry(1, SHA384, [1; 48], b"first"),
            entry(4, SHA384, [2; 48], b""),
            entry(1, SHA384, [3; 48], b"third"),
        ]);
        let events = ccel(&text).unwrap();
        assert_eq!(events.iter().map(|event| event.register).collect::<Vec<_>>(), [0, 3, 0]);
        let once =
            |before: [u8; 48], digest: [u8; 48]| -> [u8; 48] { Sha384::digest([before, digest].concat()).into() };
        let first = once(once([0; 48], [1; 48]), [3; 48]);
        assert_eq!(
            replay(&events).unwrap(),
            [first, [0; 48], [0; 48], once([0; 48], [2; 48])]
        );
        for filling in [0, 0xff] {
            let padded = [text.as_slice(), &[filling; 100]].concat();
            assert_eq!(ccel(&padded).unwrap(), events);
        }
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        let good = log(&[entry(1, SHA384, [1; 48], b"text")]);
        for end in 0..good.len() {
            // Only the log without its one event is whole.
            let empty = log(&[]).len();
            match ccel(&good[..end]) {
                Ok(events) => assert!(end == empty && events.is_empty(), "cut at {end}"),
                Err(reject) => assert!(matches!(reject, Reject::Truncated { .. }), "cut at {end}: {reject}"),
            }
        }
        let name = |text: &[u8]| ccel(text).unwrap_err().name();
        assert_eq!(name(&log(&[entry(0, SHA384, [1; 48], b"")])), "FIELD_VALUE", "MRTD");
        assert_eq!(name(&log(&[entry(5, SHA384, [1; 48], b"")])), "FIELD_VALUE");
        assert_eq!(name(&log(&[entry(1, 0x000b, [1; 48], b"")])), "ALGORITHM", "SHA-256");
        let mut two = good.clone();
        two[28 + 4 + 20 + 8] = 2;
        assert_eq!(name(&two), "ALGORITHM", "two digests");
        let mut other = good.clone();
        other[32] ^= 1;
        assert_eq!(name(&other), "MALFORMED");
        let mut huge = good.clone();
        huge[28..32].fill(0xff);
        assert_eq!(name(&huge), "TRUNCATED");
        let mixed = [good.as_slice(), &[0xff, 0]].concat();
        assert_eq!(name(&mixed), "TRUNCATED", "filling of two kinds");
        assert_eq!(name(&vec![0; MAX_LOG + 1]), "TOO_LONG");
        let many = vec![entry(1, SHA384, [1; 48], b""); MAX_EVENTS + 1];
        assert_eq!(name(&log(&many)), "TOO_LONG");
        assert_eq!(ccel(&log(&many[1..])).unwrap().len(), MAX_EVENTS);
        let event = Event {
            register: 4,
            kind: 0,
            digest: [0; 48],
        };
        assert_eq!(replay(std::slice::from_ref(&event)).unwrap_err().name(), "FIELD_VALUE");
        assert_eq!(replay(&vec![event; MAX_EVENTS + 1]).unwrap_err().name(), "TOO_LONG");
    }
}
