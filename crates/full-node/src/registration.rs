//! What a validator shows to the staking contract: its keys, and proofs that it has them (staking.md §3).

use crate::config::{ConfigError, Keys};
use alloy_primitives::{Address, B256, Bytes};
use opg_consensus::keys::{BlsKey, IdentityKey, KeyError, eip2537_key, eip2537_signature, proof_of_possession};
use opg_contracts::{
    ValidatorKeys::KeyRegistration, genesis_file::possession_namespace, staking::system_possession_digest,
};
use opg_payments::signature::address_of_secret;
use secp256k1::{Message, SECP256K1};
use std::path::Path;

/// Public halves of a full node's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKeys {
    /// Ed25519 network identity.
    pub identity: B256,
    /// BLS key, compressed.
    pub bls: alloy_primitives::FixedBytes<96>,
    /// System account.
    pub system: Address,
}

/// The public halves of `keys`; `path` only names the file in errors.
///
/// # Errors
/// [`ConfigError::Field`] naming the key that is none.
pub fn public_keys(keys: &Keys, path: &Path) -> Result<PublicKeys, ConfigError> {
    let (identity, bls) = secrets(keys, path)?;
    Ok(PublicKeys {
        identity: identity.public().0.into(),
        bls: bls.public().0.into(),
        system: address_of_secret(&keys.system),
    })
}

/// Keys with proofs for `operator`, good in `epoch` and the one after it; `path` only names the file in errors.
///
/// # Errors
/// [`ConfigError::Field`] naming the key that is none.
pub fn registration(
    keys: &Keys,
    path: &Path,
    chain_id: u64,
    operator: Address,
    epoch: u64,
) -> Result<KeyRegistration, ConfigError> {
    let (identity, bls) = secrets(keys, path)?;
    let possession = proof_of_possession(&bls, &possession_namespace(chain_id, operator, epoch));
    let digest = system_possession_digest(chain_id, operator, epoch);
    let signed = SECP256K1.sign_ecdsa_recoverable(&Message::from_digest(digest.0), &keys.system);
    let (id, bytes) = signed.serialize_compact();
    let mut signature = bytes.to_vec();
    // r, s, v; only signatures of another curve have more than two candidates.
    signature.push(27 + u8::from(i32::from(id) & 1 == 1));
    let not = wrong(path, "bls");
    Ok(KeyRegistration {
        consensusKey: identity.public().0.into(),
        blsKey: eip2537_key(&bls.public()).map_err(&not)?.to_vec().into(),
        possession: eip2537_signature(&possession).map_err(&not)?.to_vec().into(),
        system: address_of_secret(&keys.system),
        systemSignature: Bytes::from(signature),
        epoch,
    })
}

fn secrets(keys: &Keys, path: &Path) -> Result<(IdentityKey, BlsKey), ConfigError> {
    let identity = IdentityKey::from_bytes(&keys.identity).map_err(wrong(path, "identity"))?;
    let bls = BlsKey::from_bytes(&keys.bls).map_err(wrong(path, "bls"))?;
    Ok((identity, bls))
}

fn wrong(path: &Path, field: &'static str) -> impl Fn(KeyError) -> ConfigError {
    move |_| ConfigError::Field {
        path: path.into(),
        field: field.into(),
        expected: "a usable key".into(),
        got: "an invalid one".into(),
    }
}
