//! Who am I, signing in, tokens, names and organisations.

use super::JsonBody;
use crate::{
    card,
    client::TOKEN_PREFIX,
    db::{
        accounts::{self, Claimed, Role, TokenInfo},
        repos,
    },
    error::{Answer, ApiError},
    names::{RepoKind, check_claim},
    siwe::Message,
    state::{Caller, Hub, Key, too_many},
    time::{iso, now_ms},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use opg_rate_limit::Limit;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{sync::Arc, time::Instant};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Life of a nonce, milliseconds; also how far a message's time may be off.
const NONCE_MS: i64 = 600_000;
/// Most nonces waiting at a time.
const NONCES: i64 = 100_000;
/// Most tokens of an account; most organisations that it founds.
const TOKENS: usize = 100;
const ORGANISATIONS: i64 = 10;

pub(super) async fn whoami(caller: Caller) -> Answer<Json<Value>> {
    let account = caller.account()?;
    let orgs: Vec<Value> = account
        .orgs
        .iter()
        .map(|org| {
            let role = account.spaces.get(org).copied().unwrap_or(Role::Read);
            json!({"type": "org", "id": org, "name": org, "fullname": org, "avatarUrl": "", "roleInOrg": role.as_str(), "isEnterprise": false})
        })
        .collect();
    Ok(Json(json!({
        "type": "user",
        "id": account.address,
        "name": account.name,
        "fullname": account.name,
        "email": null,
        "emailVerified": false,
        "canPay": false,
        "isPro": false,
        "periodEnd": null,
        "avatarUrl": "",
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": {
            "displayName": account.label,
            "role": if account.write { "write" } else { "read" },
            "createdAt": iso(account.token_created),
        }},
    })))
}

/// What the caller's account stores, and may store.
pub(super) async fn usage(State(hub): State<Arc<Hub>>, caller: Caller) -> Answer<Json<crate::quota::Usage>> {
    let (shared, address) = (Arc::clone(&hub), caller.account()?.address.clone());
    let usage = hub
        .db
        .read(move |db| Ok(crate::quota::usage(db, &shared.config, &address)))
        .await?;
    usage.map(Json)
}

#[derive(Debug, Deserialize)]
pub(super) struct Card {
    content: String,
}

pub(super) async fn validate_yaml(_: Caller, JsonBody(body): JsonBody<Card>) -> Response {
    let yaml = card::split(&body.content).0;
    match yaml.map(card::read_yaml) {
        Some(Err(error)) => {
            let errors = json!({"errors": [{"message": error.to_string()}], "warnings": []});
            (StatusCode::BAD_REQUEST, Json(errors)).into_response()
        }
        Some(Ok(map)) if !map.is_empty() => Json(json!({"errors": [], "warnings": []})).into_response(),
        _ => Json(json!({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in the card"}]}))
            .into_response(),
    }
}

fn sign_in_rate(hub: &Hub, caller: &Caller) -> Answer<()> {
    let key = Key::SignIn(caller.network);
    hub.rates
        .take(key, 1.0, Limit::per_minute(hub.config.limits.sign_ins), Instant::now())
        .map_err(too_many)
}

/// A nonce, and what the message must say.
pub(super) async fn nonce(State(hub): State<Arc<Hub>>, caller: Caller) -> Answer<Json<Value>> {
    sign_in_rate(&hub, &caller)?;
    let nonce = hex::encode(rand::random::<[u8; 16]>());
    let stored = nonce.clone();
    hub.db
        .write(move |tx| {
            if accounts::nonces(tx)? >= NONCES {
                return Err(too_many(std::time::Duration::from_secs(60)));
            }
            Ok(accounts::add_nonce(tx, &stored, now_ms() + NONCE_MS)?)
        })
        .await?;
    Ok(Json(json!({
        "nonce": nonce,
        "domain": domain(&hub),
        "uri": hub.public_url,
        "statement": crate::siwe::STATEMENT,
        "scopes": ["read", "write"],
        "max_days": hub.config.limits.token_days,
    })))
}

fn domain(hub: &Hub) -> &str {
    hub.public_url
        .split_once("://")
        .map_or(hub.public_url.as_str(), |(_, host)| host)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    /// The EIP-4361 message.
    message: String,
    /// `0x` and 65 bytes in hexadecimal.
    signature: String,
    /// Name of the token, for its owner.
    #[serde(default)]
    label: String,
}

fn milliseconds(text: &str, field: &'static str) -> Answer<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        ApiError::bad_request("InvalidMessage", format!("{field} is not an RFC 3339 time")).param(field)
    })?;
    Ok(time.unix_timestamp().saturating_mul(1000))
}

/// A token for a signed message.
pub(super) async fn create_token(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    JsonBody(body): JsonBody<SignIn>,
) -> Answer<Json<Value>> {
    sign_in_rate(&hub, &caller)?;
    let no = |message: String| ApiError::bad_request("InvalidMessage", message).param("message");
    let message = Message::parse(&body.message).map_err(|e| no(e.to_string()))?;
    if message.domain != domain(&hub) || message.uri != hub.public_url {
        return Err(no(format!(
            "the message is for {} ({}), this hub is {} ({})",
            message.domain,
            message.uri,
            domain(&hub),
            hub.public_url
        )));
    }
    let now = now_ms();
    let issued = milliseconds(&message.issued_at, "issued_at")?;
    if (issued - now).abs() > NONCE_MS {
        return Err(no(
            "the message was not made within the last 10 minutes; check the clock".into(),
        ));
    }
    let expires = milliseconds(&message.expires_at, "expires_at")?;
    let most = now + i64::from(hub.config.limits.token_days) * 86_400_000 + NONCE_MS;
    if expires <= now || expires > most {
        return Err(no(format!(
            "Expiration Time must be in the next {} days",
            hub.config.limits.token_days
        )));
    }
    let signature = hex::decode(body.signature.strip_prefix("0x").unwrap_or(&body.signature))
        .map_err(|_| ApiError::bad_request("InvalidSignature", "signature is not hexadecimal").param("signature"))?;
    message
        .verify(&signature)
        .map_err(|e| ApiError::unauthorized(e.to_string()).param("signature"))?;

    // llama.cpp sends no others.
    let token = format!("{TOKEN_PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let info = TokenInfo {
        id: hex::encode(rand::random::<[u8; 8]>()),
        scope: message.scope.as_str().to_owned(),
        label: body.label.chars().filter(|c| !c.is_control()).take(64).collect(),
        created: now,
        expires,
    };
    let (address, nonce, stored) = (format!("{:#x}", message.address), message.nonce, info.clone());
    let owner = address.clone();
    hub.db
        .write(move |tx| {
            // After the signature: a nonce is used up only by the wallet that signed it.
            if !accounts::take_nonce(tx, &nonce)? {
                return Err(ApiError::unauthorized(
                    "the nonce was used, is older than 10 minutes, or is not of this hub",
                ));
            }
            if accounts::tokens(tx, &owner)?.len() >= TOKENS {
                return Err(ApiError::forbidden(format!(
                    "the account has {TOKENS} tokens; revoke some"
                )));
            }
            Ok(accounts::add_token(tx, &owner, &hash, &stored)?)
        })
        .await?;
    tracing::info!(address, scope = info.scope, id = info.id, "token made");
    Ok(Json(json!({
        "token": token,
        "id": info.id,
        "address": address,
        "scope": info.scope,
        "expires": iso(expires),
    })))
}

pub(super) async fn tokens(State(hub): State<Arc<Hub>>, caller: Caller) -> Answer<Json<Value>> {
    let address = caller.account()?.address.clone();
    let tokens = hub.db.read(move |db| accounts::tokens(db, &address)).await?;
    let list = tokens.iter().map(|t| {
        json!({"id": t.id, "scope": t.scope, "label": t.label, "created": iso(t.created), "expires": iso(t.expires)})
    });
    Ok(Json(list.collect()))
}

/// Revokes a token. A token that may only read can revoke too: taking rights away needs no right to write.
pub(super) async fn revoke_token(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let address = caller.account()?.address.clone();
    let known = hub
        .db
        .write(move |tx| Ok::<_, ApiError>(accounts::revoke(tx, &address, &id)?))
        .await?;
    if known {
        Ok(Json(json!({"revoked": true})))
    } else {
        Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "TokenNotFound",
            "the account has no token with this id",
        ))
    }
}

async fn take_name(hub: &Hub, caller: &Caller, name: String, kind: &'static str, most: i64) -> Answer<Json<Value>> {
    check_claim(&name)?;
    let address = caller.writer()?.address.clone();
    let answer = json!({"name": name, "kind": kind, "owner": address});
    let result = hub
        .db
        .write(move |tx| Ok::<_, ApiError>(accounts::claim(tx, &address, &name, kind, most)?))
        .await?;
    match result {
        Claimed::Done => Ok(Json(answer)),
        Claimed::Taken => Err(ApiError::new(StatusCode::CONFLICT, "NameTaken", "this name is taken")),
        Claimed::TooMany => Err(ApiError::forbidden(format!("an account may have {most} of these"))),
    }
}

/// Claims a name for the caller's account. Repositories under the address stay there.
pub(super) async fn claim(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<Json<Value>> {
    take_name(&hub, &caller, name, "user", 1).await
}

/// Founds an organisation, with the caller as its first administrator.
pub(super) async fn found(State(hub): State<Arc<Hub>>, caller: Caller, Path(org): Path<String>) -> Answer<Json<Value>> {
    take_name(&hub, &caller, org, "org", ORGANISATIONS).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    role: String,
}

async fn change_member(
    hub: &Hub,
    caller: &Caller,
    org: String,
    user: String,
    role: Option<Role>,
) -> Answer<Json<Value>> {
    caller.writer()?;
    if caller.role(&org) != Some(Role::Admin) {
        return Err(ApiError::forbidden(format!(
            "only administrators of {org} may change its members"
        )));
    }
    hub.db
        .write(move |tx| {
            if accounts::claim_of(tx, &org)?.is_none_or(|(kind, _)| kind != "org") {
                return Err(ApiError::new(
                    StatusCode::NOT_FOUND,
                    "OrganizationNotFound",
                    "no such organisation",
                ));
            }
            let address = accounts::address_of(tx, &user)?.ok_or_else(|| {
                ApiError::new(
                    StatusCode::NOT_FOUND,
                    "UserNotFound",
                    "no such account; it must sign in once",
                )
            })?;
            let before = accounts::members(tx, &org)?;
            let admins = before
                .iter()
                .filter(|(member, role)| role == "admin" && *member != address)
                .count();
            if admins == 0 && role != Some(Role::Admin) {
                return Err(ApiError::forbidden("an organisation keeps at least one administrator"));
            }
            Ok(accounts::set_member(tx, &org, &address, role)?)
        })
        .await?;
    Ok(Json(json!({"ok": true})))
}

pub(super) async fn set_member(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((org, user)): Path<(String, String)>,
    JsonBody(body): JsonBody<Member>,
) -> Answer<Json<Value>> {
    let role = Role::parse(&body.role)
        .ok_or_else(|| ApiError::bad_request("InvalidRole", "role: expected read, write or admin").param("role"))?;
    change_member(&hub, &caller, org, user, Some(role)).await
}

pub(super) async fn remove_member(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((org, user)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    change_member(&hub, &caller, org, user, None).await
}

fn unknown_user() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "UserNotFound", "no such account")
}

pub(super) async fn user(State(hub): State<Arc<Hub>>, caller: Caller, Path(user): Path<String>) -> Answer<Json<Value>> {
    let found = hub
        .db
        .read(move |db| {
            let Some(address) = accounts::address_of(db, &user)? else {
                return Ok(None);
            };
            let name = accounts::name_of(db, &address)?;
            let sees_private = caller.role(&name).is_some();
            let models = repos::count_in(db, RepoKind::Model, &name, sees_private)?;
            let datasets = repos::count_in(db, RepoKind::Dataset, &name, sees_private)?;
            Ok(Some((address, name, models, datasets)))
        })
        .await?;
    let (address, name, models, datasets) = found.ok_or_else(unknown_user)?;
    Ok(Json(json!({
        "type": "user", "user": name, "fullname": name, "avatarUrl": "", "address": address, "isPro": false,
        "numModels": models, "numDatasets": datasets, "orgs": [],
    })))
}

pub(super) async fn organisation(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(org): Path<String>,
) -> Answer<Json<Value>> {
    let name = org.clone();
    let found = hub
        .db
        .read(move |db| {
            let known = accounts::claim_of(db, &name)?.is_some_and(|(kind, _)| kind == "org");
            let members = accounts::members(db, &name)?.len();
            let models = repos::count_in(db, RepoKind::Model, &name, caller.role(&name).is_some())?;
            Ok(known.then_some((members, models)))
        })
        .await?;
    let (members, models) = found.ok_or_else(unknown_user)?;
    Ok(Json(
        json!({"type": "org", "name": org, "fullname": org, "avatarUrl": "", "numUsers": members, "numModels": models}),
    ))
}

pub(super) async fn members(State(hub): State<Arc<Hub>>, _: Caller, Path(org): Path<String>) -> Answer<Json<Value>> {
    let list = hub
        .db
        .read(move |db| {
            let members = accounts::members(db, &org)?.into_iter();
            members
                .map(|(address, role)| {
                    let name = accounts::name_of(db, &address)?;
                    Ok(json!({"user": name, "fullname": name, "avatarUrl": "", "type": "user", "role": role}))
                })
                .collect::<Result<Vec<_>, crate::db::DbError>>()
        })
        .await?;
    Ok(Json(list.into()))
}
