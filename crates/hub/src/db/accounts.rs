//! Accounts, claimed names, organisations, nonces and tokens.

use super::{Connection, Found, Row, Transaction};
use crate::time::now_ms;
use std::collections::BTreeMap;

/// What an account may do in a name space. Ordered: each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Read,
    Write,
    Admin,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

/// A token's owner and rights.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// Lower-case address.
    pub(crate) address: String,
    /// The claimed name, else the address.
    pub(crate) name: String,
    /// Whether the token may change anything.
    pub(crate) write: bool,
    /// Name of the token.
    pub(crate) label: String,
    /// When the token was made.
    pub(crate) token_created: i64,
    /// Name spaces and roles: the address, the name, the organisations.
    pub(crate) spaces: BTreeMap<String, Role>,
    /// The organisations among them.
    pub(crate) orgs: Vec<String>,
}

fn pair(row: &Row<'_>) -> Found<(String, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

/// The account of a token that is neither expired nor revoked.
pub(crate) fn by_token(db: &Connection<'_>, hash: &[u8; 32]) -> Found<Option<Account>> {
    let sql = "SELECT address, scope, label, created FROM tokens WHERE hash = ?1 AND expires > ?2";
    let found = db.optional(sql, &[hash.into(), now_ms().into()], |row| {
        Ok((
            row.get::<String>(0)?,
            row.get::<String>(1)?,
            row.get::<String>(2)?,
            row.get(3)?,
        ))
    })?;
    let Some((address, scope, label, token_created)) = found else {
        return Ok(None);
    };
    let mut account = Account {
        name: name_of(db, &address)?,
        write: scope == "write",
        label,
        token_created,
        spaces: BTreeMap::from([(address.clone(), Role::Admin)]),
        orgs: Vec::new(),
        address,
    };
    account.spaces.insert(account.name.clone(), Role::Admin);
    let sql = "SELECT org, role FROM members WHERE address = ?1 ORDER BY org";
    for (org, role) in db.all(sql, &[(&account.address).into()], pair)? {
        account
            .spaces
            .insert(org.clone(), Role::parse(&role).unwrap_or(Role::Read));
        account.orgs.push(org);
    }
    Ok(Some(account))
}

/// The claimed name of an address, else the address.
pub(crate) fn name_of(db: &Connection<'_>, address: &str) -> Found<String> {
    let sql = "SELECT name FROM names WHERE owner = ?1 AND kind = 'user'";
    let name = db.optional(sql, &[address.into()], |row| row.get(0))?;
    Ok(name.unwrap_or_else(|| address.to_owned()))
}

/// The address of an account named by address or claimed name.
pub(crate) fn address_of(db: &Connection<'_>, user: &str) -> Found<Option<String>> {
    let user = user.to_ascii_lowercase();
    let sql = "SELECT address FROM accounts WHERE address = ?1
               UNION SELECT owner FROM names WHERE name = ?1 AND kind = 'user'";
    db.optional(sql, &[(&user).into()], |row| row.get(0))
}

/// Name spaces of an address: itself, its name, its organisations.
pub(crate) fn spaces(db: &Connection<'_>, address: &str) -> Found<Vec<String>> {
    let mut spaces = vec![address.to_owned(), name_of(db, address)?];
    let sql = "SELECT org FROM members WHERE address = ?1 ORDER BY org";
    spaces.extend(db.all(sql, &[address.into()], |row| row.get::<String>(0))?);
    Ok(spaces)
}

/// Kind (`user`, `org`) and owner of a claimed name.
pub(crate) fn claim_of(db: &Connection<'_>, name: &str) -> Found<Option<(String, String)>> {
    db.optional("SELECT kind, owner FROM names WHERE name = ?1", &[name.into()], pair)
}

/// The account behind a name space: who claimed the name or founded the organisation, else the space itself, an address.
pub(crate) fn owner_of(db: &Connection<'_>, space: &str) -> Found<String> {
    Ok(claim_of(db, space)?.map_or_else(|| space.to_owned(), |(_, owner)| owner))
}

/// Members of an organisation with their roles.
pub(crate) fn members(db: &Connection<'_>, org: &str) -> Found<Vec<(String, String)>> {
    let sql = "SELECT address, role FROM members WHERE org = ?1 ORDER BY address";
    db.all(sql, &[org.into()], pair)
}

/// Adds a nonce, and drops expired ones.
pub(crate) fn add_nonce(tx: &Transaction<'_>, nonce: &str, expires: i64) -> Found<()> {
    tx.execute("DELETE FROM nonces WHERE expires < ?1", &[now_ms().into()])?;
    let sql = "INSERT INTO nonces (nonce, expires) VALUES (?1, ?2)";
    tx.execute(sql, &[nonce.into(), expires.into()])?;
    Ok(())
}

/// Number of nonces that are waiting.
pub(crate) fn nonces(db: &Connection<'_>) -> Found<i64> {
    db.value("SELECT COUNT(*) FROM nonces WHERE expires >= ?1", &[now_ms().into()])
}

/// Takes a nonce: true once.
pub(crate) fn take_nonce(tx: &Transaction<'_>, nonce: &str) -> Found<bool> {
    let sql = "DELETE FROM nonces WHERE nonce = ?1 AND expires >= ?2";
    Ok(tx.execute(sql, &[nonce.into(), now_ms().into()])? == 1)
}

/// A token as its owner sees it.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct TokenInfo {
    pub(crate) id: String,
    pub(crate) scope: String,
    pub(crate) label: String,
    #[serde(skip)]
    pub(crate) created: i64,
    #[serde(skip)]
    pub(crate) expires: i64,
}

/// Stores a token, and the account if it is new.
pub(crate) fn add_token(tx: &Transaction<'_>, address: &str, hash: &[u8; 32], token: &TokenInfo) -> Found<()> {
    tx.execute(
        "INSERT INTO accounts (address, created) VALUES (?1, ?2) ON CONFLICT (address) DO NOTHING",
        &[address.into(), token.created.into()],
    )?;
    tx.execute("DELETE FROM tokens WHERE expires < ?1", &[token.created.into()])?;
    tx.execute(
        "INSERT INTO tokens (id, hash, address, scope, label, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        &[
            (&token.id).into(),
            hash.into(),
            address.into(),
            (&token.scope).into(),
            (&token.label).into(),
            token.created.into(),
            token.expires.into(),
        ],
    )?;
    Ok(())
}

/// Live tokens of an account.
pub(crate) fn tokens(db: &Connection<'_>, address: &str) -> Found<Vec<TokenInfo>> {
    let sql = "SELECT id, scope, label, created, expires FROM tokens WHERE address = ?1 AND expires > ?2 ORDER BY created, id";
    db.all(sql, &[address.into(), now_ms().into()], |row| {
        Ok(TokenInfo {
            id: row.get(0)?,
            scope: row.get(1)?,
            label: row.get(2)?,
            created: row.get(3)?,
            expires: row.get(4)?,
        })
    })
}

/// Revokes a token of an account: true if it was there.
pub(crate) fn revoke(tx: &Transaction<'_>, address: &str, id: &str) -> Found<bool> {
    let sql = "DELETE FROM tokens WHERE address = ?1 AND id = ?2";
    Ok(tx.execute(sql, &[address.into(), id.into()])? == 1)
}

/// Outcome of claiming a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    Done,
    /// Someone has it.
    Taken,
    /// The account has as many as it may.
    TooMany,
}

/// Claims a name for an account (`user`), or founds an organisation (`org`).
pub(crate) fn claim(tx: &Transaction<'_>, address: &str, name: &str, kind: &str, most: i64) -> Found<Claimed> {
    if claim_of(tx, name)?.is_some() {
        return Ok(Claimed::Taken);
    }
    let sql = "SELECT COUNT(*) FROM names WHERE owner = ?1 AND kind = ?2";
    let have: i64 = tx.value(sql, &[address.into(), kind.into()])?;
    if have >= most {
        return Ok(Claimed::TooMany);
    }
    let sql = "INSERT INTO names (name, kind, owner, created) VALUES (?1, ?2, ?3, ?4)";
    tx.execute(sql, &[name.into(), kind.into(), address.into(), now_ms().into()])?;
    if kind == "org" {
        set_member(tx, name, address, Some(Role::Admin))?;
    }
    Ok(Claimed::Done)
}

/// Adds, changes or removes a member.
pub(crate) fn set_member(tx: &Transaction<'_>, org: &str, address: &str, role: Option<Role>) -> Found<()> {
    match role {
        Some(role) => tx.execute(
            "INSERT INTO members (org, address, role) VALUES (?1, ?2, ?3)
             ON CONFLICT (org, address) DO UPDATE SET role = excluded.role",
            &[org.into(), address.into(), role.as_str().into()],
        )?,
        None => tx.execute(
            "DELETE FROM members WHERE org = ?1 AND address = ?2",
            &[org.into(), address.into()],
        )?,
    };
    Ok(())
}
