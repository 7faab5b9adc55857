//! HPKE in base mode (RFC 9180), by the `hpke` crate, with the suite chosen at run time.

use crate::{
    error::SealedError,
    suite::{KEY, Suite},
};
use hpke::{
    Deserializable as _, HpkeError, Kem as _, OpModeR, OpModeS, Serializable as _,
    aead::{AeadCtxR, AeadCtxS, AesGcm128, AesGcm256},
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
    rand_core::{TryCryptoRng, TryRng},
    setup_receiver, setup_sender_with_rng,
};
use sha2::{Digest as _, Sha256};
use std::{convert::Infallible, fmt};
use zeroize::{Zeroize as _, Zeroizing};

type Kem = X25519HkdfSha256;

/// Most bytes of `info`; the library's own bound is 2^16.
const MAX_INFO: usize = 4_096;

/// An X25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; KEY]);

/// An X25519 private key. Lives inside the enclave.
#[derive(Clone)]
pub struct PrivateKey(<Kem as hpke::Kem>::PrivateKey);

impl PrivateKey {
    /// `DeriveKeyPair` of 32 random bytes (RFC 9180, section 7.1.3).
    #[must_use]
    pub fn derive(entropy: &[u8; 32]) -> Self {
        Self(Kem::derive_keypair(entropy).0)
    }

    /// A key that was stored.
    ///
    /// # Errors
    /// [`SealedError::BadKey`].
    pub fn from_bytes(bytes: &[u8; KEY]) -> Result<Self, SealedError> {
        <Kem as hpke::Kem>::PrivateKey::from_bytes(bytes)
            .map(Self)
            .map_err(|_| SealedError::BadKey)
    }

    /// The key for storing, wiped when dropped.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; KEY]> {
        let mut bytes = Zeroizing::new([0; KEY]);
        bytes.copy_from_slice(&self.0.to_bytes());
        bytes
    }

    /// Its public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY];
        bytes.copy_from_slice(&Kem::sk_to_pk(&self.0).to_bytes());
        PublicKey(bytes)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public())
    }
}

/// The caller's random bytes as the generator that the library asks for. It takes 32; what is beyond is their hash
/// chain, so that no byte is given out twice whatever it takes.
struct Once {
    next: [u8; 32],
    used: usize,
}

impl Once {
    const fn new(entropy: &[u8; 32]) -> Self {
        Self {
            next: *entropy,
            used: 0,
        }
    }
}

impl TryRng for Once {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            if self.used == self.next.len() {
                self.next = Sha256::digest(self.next).into();
                self.used = 0;
            }
            *byte = self.next.get(self.used).copied().unwrap_or_default();
            self.used += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Once {}

impl Drop for Once {
    fn drop(&mut self) {
        self.next.zeroize();
    }
}

/// Runs an expression on the context of whichever suite.
macro_rules! each {
    ($of:ident, $value:expr, $context:ident => $body:expr) => {
        match $value {
            $of::Aes128Gcm($context) => $body,
            $of::Aes256Gcm($context) => $body,
        }
    };
}

enum SenderContext {
    Aes128Gcm(Box<AeadCtxS<AesGcm128, HkdfSha256, Kem>>),
    Aes256Gcm(Box<AeadCtxS<AesGcm256, HkdfSha256, Kem>>),
}

enum ReceiverContext {
    Aes128Gcm(Box<AeadCtxR<AesGcm128, HkdfSha256, Kem>>),
    Aes256Gcm(Box<AeadCtxR<AesGcm256, HkdfSha256, Kem>>),
}

/// The sending side of one HPKE context.
pub struct Sender {
    suite: Suite,
    encapsulated: [u8; KEY],
    context: SenderContext,
}

impl Sender {
    /// Sets up a context for the holder of `key`. `entropy` must be random and used once: the same bytes twice give the
    /// same keys, and two messages under them betray each other.
    ///
    /// # Errors
    /// [`SealedError::BadKey`], [`SealedError::TooLong`] for more than 4,096 bytes of `info`.
    pub fn new(suite: Suite, key: &PublicKey, info: &[u8], entropy: &[u8; 32]) -> Result<Self, SealedError> {
        check_info(info)?;
        let key = <Kem as hpke::Kem>::PublicKey::from_bytes(&key.0).map_err(|_| SealedError::BadKey)?;
        let mut random = Once::new(entropy);
        macro_rules! setup {
            ($variant:ident, $aead:ty) => {{
                let (encapsulated, context) =
                    setup_sender_with_rng::<$aead, HkdfSha256, Kem>(&OpModeS::Base, &key, info, &mut random)
                        .map_err(|_| SealedError::BadKey)?;
                (
                    encapsulated.to_bytes(),
                    SenderContext::$variant(Box::new(context)),
                )
            }};
        }
        let (bytes, context) = match suite {
            Suite::Aes128Gcm => setup!(Aes128Gcm, AesGcm128),
            Suite::Aes256Gcm => setup!(Aes256Gcm, AesGcm256),
        };
        let mut encapsulated = [0; KEY];
        encapsulated.copy_from_slice(&bytes);
        Ok(Self {
            suite,
            encapsulated,
            context,
        })
    }

    /// The suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The encapsulated key (`enc`), for the receiver.
    #[must_use]
    pub const fn encapsulated(&self) -> &[u8; KEY] {
        &self.encapsulated
    }

    /// Seals the next message.
    ///
    /// # Errors
    /// [`SealedError::Exhausted`].
    pub fn seal(&mut self, aad: &[u8], message: &[u8]) -> Result<Vec<u8>, SealedError> {
        each!(SenderContext, &mut self.context, context => context.seal(message, aad)).map_err(|error| error_of(&error))
    }

    /// A secret of the context (RFC 9180, section 5.3).
    ///
    /// # Errors
    /// [`SealedError::TooLong`] for more than 8,160 bytes.
    pub fn export(&self, label: &[u8], bytes: usize) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        let mut out = Zeroizing::new(vec![0; bytes.min(MAX_EXPORT)]);
        each!(SenderContext, &self.context, context => context.export(label, &mut out))
            .map_err(|error| error_of(&error))?;
        check_export(bytes, out)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// The receiving side of one HPKE context.
pub struct Receiver {
    suite: Suite,
    context: ReceiverContext,
}

impl Receiver {
    /// Sets up the context that a sender encapsulated.
    ///
    /// # Errors
    /// [`SealedError::BadKey`], [`SealedError::TooLong`] for more than 4,096 bytes of `info`.
    pub fn new(suite: Suite, key: &PrivateKey, encapsulated: &[u8; KEY], info: &[u8]) -> Result<Self, SealedError> {
        check_info(info)?;
        let encapsulated =
            <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| SealedError::BadKey)?;
        macro_rules! setup {
            ($variant:ident, $aead:ty) => {
                setup_receiver::<$aead, HkdfSha256, Kem>(&OpModeR::Base, &key.0, &encapsulated, info)
                    .map(|context| ReceiverContext::$variant(Box::new(context)))
            };
        }
        let context = match suite {
            Suite::Aes128Gcm => setup!(Aes128Gcm, AesGcm128),
            Suite::Aes256Gcm => setup!(Aes256Gcm, AesGcm256),
        };
        let context = context.map_err(|_| SealedError::BadKey)?;
        Ok(Self { suite, context })
    }

    /// The suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Opens the next message.
    ///
    /// # Errors
    /// [`SealedError::Forged`], [`SealedError::Exhausted`].
    pub fn open(&mut self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealedError> {
        each!(ReceiverContext, &mut self.context, context => context.open(sealed, aad))
            .map_err(|error| error_of(&error))
    }

    /// A secret of the context, the same as the sender's.
    ///
    /// # Errors
    /// As [`Sender::export`].
    pub fn export(&self, label: &[u8], bytes: usize) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        let mut out = Zeroizing::new(vec![0; bytes.min(MAX_EXPORT)]);
        each!(ReceiverContext, &self.context, context => context.export(label, &mut out))
            .map_err(|error| error_of(&error))?;
        check_export(bytes, out)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// 255 blocks of SHA-256.
const MAX_EXPORT: usize = 255 * 32;

fn check_export(wanted: usize, out: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, SealedError> {
    if wanted > MAX_EXPORT {
        return Err(SealedError::TooLong {
            what: "an exported secret",
            limit: MAX_EXPORT,
            got: wanted,
        });
    }
    Ok(out)
}

const fn check_info(info: &[u8]) -> Result<(), SealedError> {
    if info.len() > MAX_INFO {
        return Err(SealedError::TooLong {
            what: "the HPKE info",
            limit: MAX_INFO,
            got: info.len(),
        });
    }
    Ok(())
}

const fn error_of(error: &HpkeError) -> SealedError {
    match error {
        HpkeError::MessageLimitReached | HpkeError::KdfOutputTooLong => SealedError::Exhausted,
        _ => SealedError::Forged {
            what: "the sealed message",
        },
    }
}
