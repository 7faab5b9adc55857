//! Accounts, claimed names, organisations, nonces and tokens.

use super::Found;
use crate::time::now_ms;
use rusqlite::{Connection, OptionalExtension as _, Transaction};
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

/// The account of a token that is neither expired nor revoked.
pub(crate) fn by_token(db: &Connection, hash: &[u8; 32]) -> Found<Option<Account>> {
    let found = db
        .prepare_cached("SELECT address, scope, label, created FROM tokens WHERE hash = ?1 AND expires > ?2")?
        .query_row((hash, now_ms()), |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get(3)?,
            ))
        })
        .optional()?;
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
    let mut members = db.prepare_cached("SELECT org, role FROM members WHERE address = ?1 ORDER BY org")?;
    let rows = members.query_map([&account.address], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    for row in rows {
        let (org, role) = row?;
        account
            .spaces
            .insert(org.clone(), Role::parse(&role).unwrap_or(Role::Read));
        account.orgs.push(org);
    }
    Ok(Some(account))
}

/// The claimed name of an address, else the address.
pub(crate) fn name_of(db: &Connection, address: &str) -> Found<String> {
    let name = db
        .prepare_cached("SELECT name FROM names WHERE owner = ?1 AND kind = 'user'")?
        .query_row([address], |row| row.get(0))
        .optional()?;
    Ok(name.unwrap_or_else(|| address.to_owned()))
}

/// The address of an account named by address or claimed name.
pub(crate) fn address_of(db: &Connection, user: &str) -> Found<Option<String>> {
    let user = user.to_ascii_lowercase();
    let sql = "SELECT address FROM accounts WHERE address = ?1
               UNION SELECT owner FROM names WHERE name = ?1 AND kind = 'user'";
    Ok(db.query_row(sql, [user], |row| row.get(0)).optional()?)
}

/// Name spaces of an address: itself, its name, its organisations.
pub(crate) fn spaces(db: &Connection, address: &str) -> Found<Vec<String>> {
    let mut spaces = vec![address.to_owned(), name_of(db, address)?];
    let mut statement = db.prepare_cached("SELECT org FROM members WHERE address = ?1")?;
    for org in statement.query_map([address], |row| row.get::<_, String>(0))? {
        spaces.push(org?);
    }
    Ok(spaces)
}

/// Kind (`user`, `org`) and owner of a claimed name.
pub(crate) fn claim_of(db: &Connection, name: &str) -> Found<Option<(String, String)>> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let sql = "SELECT kind, owner FROM names WHERE name = ?1";
    Ok(db.query_row(sql, [name], row).optional()?)
}

/// The account behind a name space: who claimed the name or founded the organisation, else the space itself, an address.
pub(crate) fn owner_of(db: &Connection, space: &str) -> Found<String> {
    Ok(claim_of(db, space)?.map_or_else(|| space.to_owned(), |(_, owner)| owner))
}

/// Members of an organisation with their roles.
pub(crate) fn members(db: &Connection, org: &str) -> Found<Vec<(String, String)>> {
    let mut statement = db.prepare_cached("SELECT address, role FROM members WHERE org = ?1 ORDER BY address")?;
    let rows = statement.query_map([org], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Adds a nonce, and drops expired ones.
pub(crate) fn add_nonce(tx: &Transaction<'_>, nonce: &str, expires: i64) -> Found<()> {
    tx.execute("DELETE FROM nonces WHERE expires < ?1", [now_ms()])?;
    tx.execute("INSERT INTO nonces (nonce, expires) VALUES (?1, ?2)", (nonce, expires))?;
    Ok(())
}

/// Number of nonces that are waiting.
pub(crate) fn nonces(db: &Connection) -> Found<i64> {
    Ok(
        db.query_row("SELECT COUNT(*) FROM nonces WHERE expires >= ?1", [now_ms()], |row| {
            row.get(0)
        })?,
    )
}

/// Takes a nonce: true once.
pub(crate) fn take_nonce(tx: &Transaction<'_>, nonce: &str) -> Found<bool> {
    let gone = tx.execute(
        "DELETE FROM nonces WHERE nonce = ?1 AND expires >= ?2",
        (nonce, now_ms()),
    )?;
    Ok(gone == 1)
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
        (address, token.created),
    )?;
    tx.execute("DELETE FROM tokens WHERE expires < ?1", [token.created])?;
    tx.execute(
        "INSERT INTO tokens (id, hash, address, scope, label, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        (
            &token.id,
            hash,
            address,
            &token.scope,
            &token.label,
            token.created,
            token.expires,
        ),
    )?;
    Ok(())
}

/// Live tokens of an account.
pub(crate) fn tokens(db: &Connection, address: &str) -> Found<Vec<TokenInfo>> {
    let sql =
        "SELECT id, scope, label, created, expires FROM tokens WHERE address = ?1 AND expires > ?2 ORDER BY created";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map((address, now_ms()), |row| {
        Ok(TokenInfo {
            id: row.get(0)?,
            scope: row.get(1)?,
            label: row.get(2)?,
            created: row.get(3)?,
            expires: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Revokes a token of an account: true if it was there.
pub(crate) fn revoke(tx: &Transaction<'_>, address: &str, id: &str) -> Found<bool> {
    Ok(tx.execute("DELETE FROM tokens WHERE address = ?1 AND id = ?2", (address, id))? == 1)
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
    let have: i64 = tx.query_row(sql, (address, kind), |row| row.get(0))?;
    if have >= most {
        return Ok(Claimed::TooMany);
    }
    let sql = "INSERT INTO names (name, kind, owner, created) VALUES (?1, ?2, ?3, ?4)";
    tx.execute(sql, (name, kind, address, now_ms()))?;
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
            (org, address, role.as_str()),
        )?,
        None => tx.execute("DELETE FROM members WHERE org = ?1 AND address = ?2", (org, address))?,
    };
    Ok(())
}
