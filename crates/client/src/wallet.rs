//! A wallet: one secp256k1 key in a file that only its owner can read.
//!
//! The file holds the 32-byte key as `0x` and 64 hex digits. It is created with mode 0600 and a file that other
//! users can read is refused. The key itself never reaches a log, an error or a `Debug` text.

use std::{
    fmt,
    fs::OpenOptions,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256, Signature, U256, keccak256};
use rand::TryRngCore as _;
use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};

/// Longest key file that is read: `0x`, 64 digits and some white space.
const MAX_KEY_FILE: u64 = 256;

/// Why a key file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// The file could not be read or written.
    #[error("key file {path}: {source}")]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A key is there already; overwriting it would destroy money.
    #[error("key file {path} exists already and is not overwritten; choose another file with --out")]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// Other users of the machine can read the key.
    #[error("key file {path} has mode {mode:o}, expected 600; run: chmod 600 {path}")]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is not a key. The content itself is not shown.
    #[error("key file {path} does not hold a secp256k1 key (0x and 64 hex digits)")]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Randomness(String),
}

/// A signing key and its address.
#[derive(Clone)]
pub struct Wallet {
    key: SecretKey,
    address: Address,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Wallet {
    /// A new random key, not stored anywhere yet.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn random() -> Result<Self, WalletError> {
        loop {
            // A random scalar is out of range once in 2^128 draws; the loop is for form's sake.
            if let Ok(key) = SecretKey::from_byte_array(&random_bytes()?) {
                return Ok(Self::from_key(key));
            }
        }
    }

    /// The wallet of a key that the caller already holds.
    pub fn from_key(key: SecretKey) -> Self {
        let public = PublicKey::from_secret_key(SECP256K1, &key).serialize_uncompressed();
        let address = Address::from_slice(&keccak256(&public[1..])[12..]);
        Self { key, address }
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// If the file cannot be read, is readable by others, or holds no key.
    pub fn load(path: &Path) -> Result<Self, WalletError> {
        let io = |source| WalletError::Io {
            path: path.into(),
            source,
        };
        let file = std::fs::File::open(path).map_err(io)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(WalletError::Permissions {
                    path: path.into(),
                    mode,
                });
            }
        }
        let mut text = String::new();
        file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(io)?;
        Self::parse(&text).ok_or_else(|| WalletError::Malformed { path: path.into() })
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim();
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        SecretKey::from_byte_array(&bytes).ok().map(Self::from_key)
    }

    /// Writes the key to a new file with mode 0600 and waits until it is on the disk.
    ///
    /// # Errors
    /// If the file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), WalletError> {
        let io = |source| WalletError::Io {
            path: path.into(),
            source,
        };
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let mut file = options.open(path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::AlreadyExists {
                WalletError::Exists { path: path.into() }
            } else {
                io(source)
            }
        })?;
        writeln!(file, "0x{}", hex::encode(self.key.secret_bytes())).map_err(io)?;
        file.sync_all().map_err(io)
    }

    /// The account that this key controls.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The key, for the typed signing functions of `opg-payments`.
    pub fn secret_key(&self) -> &SecretKey {
        &self.key
    }

    /// Signs a 32-byte digest (ECDSA, low s) and gives the recoverable signature that transactions carry.
    pub(crate) fn sign_digest(&self, digest: B256) -> Signature {
        let signed = SECP256K1.sign_ecdsa_recoverable(&Message::from_digest(digest.0), &self.key);
        let (id, bytes) = signed.serialize_compact();
        let (r, s) = bytes.split_at(32);
        Signature::new(U256::from_be_slice(r), U256::from_be_slice(s), i32::from(id) & 1 == 1)
    }
}

/// 32 bytes from the operating system: keys, nonces of authorizations, secrets.
pub(crate) fn random_bytes() -> Result<[u8; 32], WalletError> {
    let mut bytes = [0u8; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| WalletError::Randomness(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key and address of the first account of the well-known "test test … junk" mnemonic.
    const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    const ADDRESS: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

    #[test]
    fn address_of_a_known_key() {
        assert_eq!(Wallet::parse(KEY).unwrap().address().to_string(), ADDRESS);
        assert_eq!(Wallet::parse(&KEY[2..]).unwrap().address().to_string(), ADDRESS);
    }

    #[test]
    fn signatures_recover_to_the_wallet() {
        let wallet = Wallet::random().unwrap();
        for text in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let digest = keccak256(text);
            let signature = wallet.sign_digest(digest);
            assert_eq!(
                signature.recover_address_from_prehash(&digest).unwrap(),
                wallet.address()
            );
        }
    }

    #[test]
    fn files_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/demo.key");
        let wallet = Wallet::random().unwrap();
        wallet.save(&path).unwrap();
        assert_eq!(Wallet::load(&path).unwrap().address(), wallet.address());
        assert!(matches!(wallet.save(&path), Err(WalletError::Exists { .. })));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(Wallet::load(&path), Err(WalletError::Permissions { .. })));
        }
    }

    #[test]
    fn nonsense_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.key");
        for text in ["", "0x", "hello", &format!("0x{}", "00".repeat(32)), &KEY[..60]] {
            std::fs::write(&path, text).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
            let error = Wallet::load(&path).unwrap_err();
            assert!(matches!(error, WalletError::Malformed { .. }), "{text}: {error}");
            assert!(text.len() < 5 || !error.to_string().contains(text));
        }
        assert!(!format!("{:?}", Wallet::parse(KEY).unwrap()).contains("ac0974"));
    }
}
