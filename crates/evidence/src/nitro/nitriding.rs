//! User data in the layout of the nitriding proxy, which OpenGradient's gateway documents carry.

use crate::reject::Reject;

/// Two SHA-256 multihashes: `12 20` and 32 bytes, twice.
pub const NITRIDING_BYTES: usize = 68;

/// Keys that a nitriding document binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NitridingUserData {
    /// SHA-256 of the TLS certificate (DER).
    pub tls_certificate: [u8; 32],
    /// SHA-256 of the application's key material (DER of its public key at OpenGradient).
    pub application_key: [u8; 32],
}

impl NitridingUserData {
    /// Parses the 68 bytes.
    ///
    /// # Errors
    /// [`Reject::UserDataLayout`] for anything else.
    pub fn parse(user_data: &[u8]) -> Result<Self, Reject> {
        let refuse = Reject::UserDataLayout {
            expected: "nitriding's: two SHA-256 multihashes (68 bytes)",
        };
        match user_data.split_first_chunk::<34>() {
            Some(([0x12, 0x20, tls @ ..], [0x12, 0x20, key @ ..])) => match <[u8; 32]>::try_from(key) {
                Ok(application_key) => Ok(Self {
                    tls_certificate: *tls,
                    application_key,
                }),
                Err(_) => Err(refuse),
            },
            _ => Err(refuse),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let mut data = [0u8; 68];
        data[..2].copy_from_slice(&[0x12, 0x20]);
        data[34..36].copy_from_slice(&[0x12, 0x20]);
        data[2] = 5;
        data[67] = 9;
        let parsed = NitridingUserData::parse(&data).unwrap();
        assert_eq!((parsed.tls_certificate[0], parsed.application_key[31]), (5, 9));
        assert!(NitridingUserData::parse(&data[..67]).is_err());
        assert!(NitridingUserData::parse(&[data.as_slice(), &[0]].concat()).is_err());
        data[34] = 0x11;
        assert!(NitridingUserData::parse(&data).is_err());
        assert!(NitridingUserData::parse(&[]).is_err());
    }
}
