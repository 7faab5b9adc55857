//! The Nitro security module: one ioctl on `/dev/nsm` that carries a CBOR request and its answer.
//!
//! Interface: `uapi/linux/nsm.h` of the Linux kernel (6.8); messages: AWS, `nsm-api`. The raw ioctl wants
//! `CAP_SYS_ADMIN`, which the first process of an enclave has. Not yet run inside an enclave.

use crate::{Attester, Evidence, error::AttestError};
use opg_evidence::{Kind, UnixSeconds, container::Companions, nitro};
use opg_primitives::{
    cbor::{Encoder, Limits, Value, decode_strict},
    mode::Grade,
};
use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

/// `NSM_RESPONSE_MAX_SIZE`.
const MAX_RESPONSE: usize = 0x3000;

/// The device.
#[derive(Debug)]
pub struct Nsm {
    path: PathBuf,
    device: File,
}

impl Nsm {
    /// Opens the device.
    ///
    /// # Errors
    /// [`AttestError::Io`].
    pub fn open(path: &Path) -> Result<Self, AttestError> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(AttestError::io("cannot open", path))?;
        Ok(Self {
            path: path.to_owned(),
            device,
        })
    }
}

impl Attester for Nsm {
    fn kind(&self) -> Kind {
        Kind::Nitro
    }

    fn grade(&self) -> Grade {
        Grade::Hardware
    }

    fn attest(&self, bound: &[u8; 32], _now: UnixSeconds) -> Result<Evidence, AttestError> {
        let answer = exchange(&self.device, &request(bound)).map_err(AttestError::io("cannot ask", &self.path))?;
        let document = document(&answer)?;
        if !binds(&document, bound)? {
            return Err(AttestError::Unbound);
        }
        Ok(Evidence {
            kind: Kind::Nitro,
            document,
            beside: Companions::default(),
        })
    }
}

/// `{"Attestation": {"user_data": bound, "nonce": null, "public_key": null}}`, in the module's order of fields. The
/// nonce is inside the binding statement.
fn request(bound: &[u8; 32]) -> Vec<u8> {
    let mut cbor = Encoder::with_capacity(96);
    cbor.map(1).text("Attestation").map(3);
    cbor.text("user_data").bytes(bound);
    cbor.text("nonce").null();
    cbor.text("public_key").null();
    cbor.finish()
}

/// The document of `{"Attestation": {"document": bytes}}`.
fn document(answer: &[u8]) -> Result<Vec<u8>, AttestError> {
    let other = |answer: String| AttestError::Nsm { answer };
    let value = decode_strict(answer, Limits::for_bytes(MAX_RESPONSE)).map_err(|error| other(error.to_string()))?;
    match one_entry(value) {
        Some((name, inner)) if name == "Attestation" => match one_entry(inner) {
            Some((name, Value::Bytes(document))) if name == "document" => Ok(document),
            _ => Err(other("an attestation without one document".to_owned())),
        },
        Some((name, Value::Text(word))) if name == "Error" => {
            Err(other(word.chars().take(64).filter(char::is_ascii_graphic).collect()))
        }
        _ => Err(other("something else than an attestation".to_owned())),
    }
}

/// Name and value of a map with one entry.
fn one_entry(value: Value) -> Option<(String, Value)> {
    let Value::Map(entries) = value else { return None };
    match <[(Value, Value); 1]>::try_from(entries) {
        Ok([(Value::Text(name), value)]) => Some((name, value)),
        _ => None,
    }
}

/// Whether the document is one whole CBOR item that holds `bound` as its user data. Not a verification: a check that
/// the module answered the question.
fn binds(document: &[u8], bound: &[u8; 32]) -> Result<bool, AttestError> {
    let whole = nitro::item_length(document)? == document.len();
    // A text key and a byte string of 32 bytes, as CBOR writes them.
    let field = [&b"\x69user_data\x58\x20"[..], bound].concat();
    Ok(whole && document.windows(field.len()).any(|part| part == field))
}

#[cfg(target_os = "linux")]
mod raw {
    use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
    use std::{fs::File, io};

    /// `struct nsm_iovec`.
    #[repr(C)]
    struct Iovec {
        address: u64,
        length: u64,
    }

    /// `struct nsm_raw`.
    #[repr(C)]
    struct Raw {
        request: Iovec,
        response: Iovec,
    }

    /// `NSM_IOCTL_RAW`, `_IOWR(0x0A, 0, struct nsm_raw)`.
    const NSM_IOCTL_RAW: Opcode = opcode::read_write::<Raw>(0x0a, 0);

    /// Sends a request and returns the answer.
    pub(super) fn exchange(device: &File, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut response = vec![0u8; super::MAX_RESPONSE];
        let mut message = Raw {
            request: Iovec {
                address: request.as_ptr().expose_provenance() as u64,
                length: request.len() as u64,
            },
            response: Iovec {
                address: response.as_mut_ptr().expose_provenance() as u64,
                length: response.len() as u64,
            },
        };
        // SAFETY: `Raw` has the layout of `struct nsm_raw` (two pairs of 64-bit integers, `repr(C)`), and the opcode holds
        // its size. The kernel reads `request.length` bytes at `request.address` and writes at most `response.length`
        // bytes at `response.address`; both buffers are live, unaliased and of those lengths during the whole call, and
        // any bytes are valid for them. A device that is not the Nitro module does not know the opcode and answers ENOTTY.
        #[allow(unsafe_code)]
        unsafe { ioctl(device, Updater::<NSM_IOCTL_RAW, Raw>::new(&mut message)) }?;
        // The kernel sets the length to that of the answer; a longer one than the buffer is not believed.
        let length = usize::try_from(message.response.length).unwrap_or(usize::MAX);
        if length > response.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        response.truncate(length);
        Ok(response)
    }
}

#[cfg(target_os = "linux")]
use raw::exchange;

#[cfg(not(target_os = "linux"))]
fn exchange(_device: &File, _request: &[u8]) -> std::io::Result<Vec<u8>> {
    Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opg_evidence::soft::{NitroRequest, SoftNitro};

    fn soft_document(user_data: &[u8]) -> Vec<u8> {
        SoftNitro::new(&[7; 32], 1_800_000_000, 1_800_010_800).document(&NitroRequest {
            timestamp_ms: 1_800_000_000_000,
            user_data: Some(user_data.to_vec()),
            ..NitroRequest::default()
        })
    }

    fn answer(document: &[u8]) -> Vec<u8> {
        let mut cbor = Encoder::new();
        cbor.map(1).text("Attestation").map(1).text("document").bytes(document);
        cbor.finish()
    }

    /// Bytes that `cbor2` 6.2.1 (Python) gives for the same map.
    #[test]
    fn the_request_is_the_modules_cbor() {
        let wanted = [
            &b"\xa1\x6bAttestation\xa3\x69user_data\x58\x20"[..],
            &[5; 32],
            b"\x65nonce\xf6\x6apublic_key\xf6",
        ];
        assert_eq!(request(&[5; 32]), wanted.concat());
    }

    #[test]
    fn answers_are_read_strictly() {
        let document = |bytes: &[u8]| super::document(bytes);
        assert_eq!(document(&answer(b"doc")).unwrap(), b"doc");
        let error = document(b"\xa1\x65Error\x6fInvalidArgument").unwrap_err();
        assert!(error.to_string().contains("InvalidArgument"), "{error}");
        let good = answer(b"doc");
        for end in 0..good.len() {
            assert!(document(&good[..end]).is_err());
        }
        assert!(document(&[&good[..], &[0]].concat()).is_err());
        assert!(document(b"\xa1\x6bAttestation\x63doc").is_err());
        assert!(document(b"\x63doc").is_err());
        assert!(document(&[0; MAX_RESPONSE + 1]).is_err());
    }

    /// Documents of the software attester, in the module's own format.
    #[test]
    fn a_document_must_hold_what_was_asked() {
        let good = soft_document(&[5; 32]);
        assert!(binds(&good, &[5; 32]).unwrap());
        assert!(!binds(&good, &[6; 32]).unwrap());
        assert!(!binds(&[&good[..], &[0]].concat(), &[5; 32]).unwrap());
        assert!(binds(&good[..good.len() - 1], &[5; 32]).is_err());
    }

    /// The real system call, on a device that is no Nitro module.
    #[cfg(target_os = "linux")]
    #[test]
    fn another_device_does_not_know_the_call() {
        let nsm = Nsm::open(Path::new("/dev/null")).unwrap();
        match nsm.attest(&[1; 32], 0) {
            Err(AttestError::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(25), "ENOTTY: {source}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            Nsm::open(Path::new("/nonexistent")),
            Err(AttestError::Io { .. })
        ));
    }
}
