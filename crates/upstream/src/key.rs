//! API keys: how one reaches an enclave, and how it is kept there.
//!
//! A key never stands in a configuration file. Its owner seals it to the enclave's attested key ([`seal_api_key`]); only
//! the enclave opens it ([`open_api_key`]), and only as the key of the provider, host and keyset that it was sealed for.
//! The envelope is [`opg_sealed::direct`] under a route that no HTTP request has; inside, the key is padded to one length.
//!
//! The envelope says nothing about its sender: anybody can seal a key of their own to a public key. Whoever takes sealed
//! keys from a network must check first that the sender is the node's operator. A stranger's key would bill the stranger,
//! and show the requests in the stranger's account at the provider.

use crate::provider::Provider;
use opg_sealed::{PrivateKey, PublicKey, SealedError, Suite, direct};
use std::fmt;
use zeroize::Zeroizing;

/// Longest key, bytes. Providers' keys have 39 to 200.
pub const MAX_KEY: usize = 510;
const PADDED: usize = MAX_KEY + 2;

/// Why a sealed key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The envelope does not open: altered, for another enclave, provider, host or operator.
    #[error("the sealed API key does not open: {0}")]
    Sealed(#[from] SealedError),
    /// What is inside is no API key.
    #[error("the API key {0}")]
    Form(&'static str),
}

/// An API key. Wiped when dropped, and never shown.
#[derive(Clone)]
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// Takes a key: 1 to [`MAX_KEY`] bytes of visible ASCII.
    ///
    /// # Errors
    /// [`KeyError::Form`] otherwise.
    pub fn new(key: impl Into<String>) -> Result<Self, KeyError> {
        let key = Zeroizing::new(key.into());
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(KeyError::Form("must have 1 to 510 bytes"));
        }
        if !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(KeyError::Form("must be visible ASCII without spaces"));
        }
        Ok(Self(key))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without this key, should a provider ever repeat it.
    pub(crate) fn scrub(&self, text: &str) -> String {
        text.replace(self.expose(), "[API key]")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// What a sealed key is bound to. Under another binding it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyBinding<'a> {
    /// Chain on which the keyset is registered.
    pub chain_id: u64,
    /// Digest of the attested keyset that holds the key.
    pub keyset: [u8; 32],
    /// Account of the node's operator, who owns the API key.
    pub operator: [u8; 20],
    /// Whose key it is.
    pub provider: Provider,
    /// The one host that it may be sent to, in lower case.
    pub host: &'a str,
}

impl KeyBinding<'_> {
    fn with<T>(&self, use_it: impl FnOnce(&direct::Binding<'_>) -> T) -> T {
        let route = format!("opg/upstream-key/v1 {}", self.host);
        use_it(&direct::Binding {
            chain_id: self.chain_id,
            route: &route,
            model: self.provider.as_str(),
            quote: [0; 32],
            keyset: self.keyset,
            payer: self.operator,
        })
    }
}

/// Seals a key to an enclave. `entropy` must be 32 random bytes, used once.
///
/// # Errors
/// [`KeyError::Sealed`] if the public key or the host's name is unusable.
pub fn seal_api_key(
    key_id: u8,
    enclave: &PublicKey,
    binding: &KeyBinding<'_>,
    key: &ApiKey,
    entropy: &[u8; 32],
) -> Result<Vec<u8>, KeyError> {
    let text = key.expose().as_bytes();
    let mut body = Zeroizing::new(Vec::with_capacity(PADDED));
    body.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(text);
    body.resize(PADDED, 0);
    let sealed = binding.with(|b| direct::seal(key_id, Suite::Aes256Gcm, enclave, b, &body, entropy))?;
    Ok(sealed.0)
}

/// Opens a sealed key inside the enclave.
///
/// # Errors
/// [`KeyError::Sealed`] for altered bytes, another binding or another enclave's key; [`KeyError::Form`] if the inside is
/// not a padded key.
pub fn open_api_key(keys: &[(u8, &PrivateKey)], binding: &KeyBinding<'_>, sealed: &[u8]) -> Result<ApiKey, KeyError> {
    let opened = binding.with(|b| direct::open(keys, b, sealed))?;
    let body = Zeroizing::new(opened.body);
    let wrong = KeyError::Form("is not sealed in the form of this version");
    let (length, rest) = body.split_first_chunk().ok_or(wrong.clone())?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (text, padding) = rest.split_at_checked(length).ok_or(wrong.clone())?;
    if body.len() != PADDED || padding.iter().any(|b| *b != 0) {
        return Err(wrong);
    }
    ApiKey::new(std::str::from_utf8(text).map_err(|_| wrong)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: KeyBinding<'_> = KeyBinding {
        chain_id: 10_740,
        keyset: [1; 32],
        operator: [2; 20],
        provider: Provider::Anthropic,
        host: "api.anthropic.com",
    };

    #[test]
    fn a_key_opens_for_its_provider_host_and_keyset_only() {
        let enclave = PrivateKey::derive(&[7; 32]);
        let key = ApiKey::new("sk-ant-0123456789").unwrap();
        let sealed = seal_api_key(3, &enclave.public(), &BINDING, &key, &[9; 32]).unwrap();
        let keys = [(3, &enclave)];
        assert_eq!(open_api_key(&keys, &BINDING, &sealed).unwrap().expose(), key.expose());
        let others = [
            KeyBinding {
                provider: Provider::OpenAi,
                ..BINDING
            },
            KeyBinding {
                host: "api.anthropic.com.example",
                ..BINDING
            },
            KeyBinding {
                keyset: [3; 32],
                ..BINDING
            },
            KeyBinding {
                operator: [3; 20],
                ..BINDING
            },
            KeyBinding { chain_id: 1, ..BINDING },
        ];
        for other in others {
            let refused = open_api_key(&keys, &other, &sealed).unwrap_err();
            assert!(
                matches!(refused, KeyError::Sealed(SealedError::Forged { .. })),
                "{refused}"
            );
        }
        let stranger = PrivateKey::derive(&[8; 32]);
        assert!(open_api_key(&[(3, &stranger)], &BINDING, &sealed).is_err());
        // Every byte of the header and some of the rest.
        for at in (0..44).chain((44..sealed.len()).step_by(61)) {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(open_api_key(&keys, &BINDING, &bad).is_err());
            assert!(open_api_key(&keys, &BINDING, &sealed[..at]).is_err());
        }
    }

    #[test]
    fn the_length_of_a_key_does_not_show_and_neither_does_the_key() {
        let enclave = PrivateKey::derive(&[7; 32]).public();
        let seal = |text: &str| {
            let key = ApiKey::new(text).unwrap();
            assert!(!format!("{key:?}").contains(text));
            seal_api_key(1, &enclave, &BINDING, &key, &[9; 32]).unwrap().len()
        };
        assert_eq!(seal("a-short-one"), seal(&"x".repeat(MAX_KEY)));
        for bad in ["", "with space", "line\nbreak", "ü", &"x".repeat(MAX_KEY + 1)] {
            assert!(matches!(ApiKey::new(bad), Err(KeyError::Form(_))), "{bad:?}");
        }
    }

    #[test]
    fn other_contents_of_the_envelope_are_refused() {
        let enclave = PrivateKey::derive(&[7; 32]);
        let mut padded = vec![0u8; PADDED];
        padded[1] = 3;
        padded[2..5].copy_from_slice(b"key");
        let open = |body: &[u8]| {
            let (sealed, _) = BINDING
                .with(|b| direct::seal(1, Suite::Aes256Gcm, &enclave.public(), b, body, &[9; 32]))
                .unwrap();
            open_api_key(&[(1, &enclave)], &BINDING, &sealed)
        };
        assert_eq!(open(&padded).unwrap().expose(), "key");
        let mut longer = padded.clone();
        longer[0] = 0xff;
        let mut dirty = padded.clone();
        dirty[9] = 1;
        for bad in [&[][..], &[0], &padded[..PADDED - 1], &longer, &dirty, &vec![0; PADDED]] {
            assert!(matches!(open(bad), Err(KeyError::Form(_))));
        }
    }
}
