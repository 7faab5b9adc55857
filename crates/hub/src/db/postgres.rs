//! PostgreSQL: one session that writes, several that read, and what differs from SQLite.
//!
//! The session that writes holds an advisory lock for as long as it lives, so a database has one writer at a time, as a
//! SQLite file has: transactions that read and then write need no retries, and a second hub on the same database is
//! refused. Advisory locks end with their session, so a hub that died leaves none behind.
//!
//! A session that is lost while it is idle is replaced when it is needed next. One that is lost in the middle of a
//! transaction ends the transaction with [`DbError::Unavailable`]: the server has undone it. Only when the connection
//! breaks while a commit is on its way is it not known whether that happened ([`DbError::Uncertain`]).

use super::{DbError, Found, Schema, lock, sql::Value};
use bytes::{BufMut as _, BytesMut};
use postgres::{
    Client, Config, Row, Statement,
    config::{Host, SslMode},
    error::SqlState,
    fallible_iterator::FallibleIterator as _,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use std::{
    collections::HashMap,
    error::Error as _,
    fmt,
    net::IpAddr,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that is silent for so long is given up.
const SILENT: Duration = Duration::from_secs(30);
/// How long the lock of the last process, or of a connection that broke, may still be held: the server notices its end
/// a moment later.
const TAKEOVER: Duration = Duration::from_secs(5);
/// Prepared statements of a session; lists have many shapes.
const STATEMENTS: usize = 256;

/// What every session begins with. A statement that runs into its limit ends its transaction; a session that is left
/// alone in a transaction, or whose client is gone, is ended by the server, and with it its lock.
const SETTINGS: &str = "SET statement_timeout = '60s'; SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '120s'; SET standard_conforming_strings = on; SET jit = off;
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
    SET client_min_messages = warning;";

/// Where a database is, and how it is reached.
#[derive(Clone)]
pub(crate) struct Target {
    config: Config,
    tls: MakeRustlsConnect,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password.
        write!(f, "{self}")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        for (n, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

/// Whether a host is this machine or one of a private network, as far as its name says.
pub(crate) fn is_private(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => host == "localhost",
    }
}

impl Target {
    /// Reads a URL. Servers that are not on this machine or in a private network are reached by TLS, with the public
    /// roots or those of a file.
    ///
    /// # Errors
    /// What is wrong with it, without the URL: it may hold a password.
    pub(crate) fn read(url: &str, password: Option<&str>, roots: Option<&Path>) -> Result<Self, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("must be postgres://user@host:port/database".into());
        }
        let mut config: Config = url.parse().map_err(|error: postgres::Error| reason(&error))?;
        if config.get_hosts().is_empty() || config.get_dbname().is_none() || config.get_user().is_none() {
            return Err("must name user, host and database: postgres://user@host:port/database".into());
        }
        if let (None, Some(password)) = (config.get_password(), password) {
            config.password(password);
        }
        let named =
            |host: &Host| matches!(host, Host::Tcp(name) if name.parse::<IpAddr>().is_err() && !is_private(name));
        let far = |host: &Host| matches!(host, Host::Tcp(name) if !is_private(name));
        if config.get_hosts().iter().any(far) {
            // Behind a name may be a machine of a private network; only the operator knows.
            let chosen = url.contains("sslmode=disable") && config.get_hosts().iter().filter(|h| far(h)).all(named);
            if config.get_ssl_mode() == SslMode::Disable && !chosen {
                return Err("must use TLS for a server outside of private networks; remove sslmode=disable".into());
            }
            if !chosen {
                config.ssl_mode(SslMode::Require);
            }
        }
        config
            .application_name("opg-hub")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(SILENT)
            .keepalives_idle(SILENT)
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        let tls = crate::tls::client(roots).map_err(|error| format!("cannot be reached by TLS: {error}"))?;
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls),
        })
    }
}

/// What the server or the network says, on one line.
fn reason(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// Errors after which the same request can succeed on another connection.
fn is_away(error: &postgres::Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => {
            // Connection exceptions, a server that ends or begins, one that has become a standby.
            code.code().starts_with("08")
                || [
                    SqlState::ADMIN_SHUTDOWN,
                    SqlState::CRASH_SHUTDOWN,
                    SqlState::CANNOT_CONNECT_NOW,
                    SqlState::TOO_MANY_CONNECTIONS,
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                ]
                .contains(code)
        }
    }
}

fn failure(error: &postgres::Error) -> DbError {
    let reason = reason(error);
    if is_away(error) {
        DbError::Unavailable { reason }
    } else {
        DbError::Postgres { reason }
    }
}

/// A statement as PostgreSQL writes it.
pub(super) fn translate(sql: &str) -> String {
    sql.replace('?', "$").replace("instr(", "strpos(")
}

/// Table definitions as PostgreSQL writes them. Text is compared byte by byte, as SQLite does.
pub(super) fn schema(sql: &str) -> String {
    sql.replace(
        "INTEGER PRIMARY KEY AUTOINCREMENT",
        "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    )
    .replace("INTEGER", "BIGINT")
    .replace("BLOB", "BYTEA")
    .replace("TEXT", "TEXT COLLATE \"C\"")
}

/// A column of a row.
pub(super) fn cell(row: &Row, column: usize) -> Found<Value<'_>> {
    let kind = row.columns().get(column).map(|column| column.type_().clone());
    let damaged = |error: postgres::Error| DbError::Damaged(reason(&error));
    let value = match kind {
        Some(Type::INT8) => row
            .try_get::<_, Option<i64>>(column)
            .map_err(damaged)?
            .map(Value::Integer),
        Some(Type::INT4) => {
            let number = row.try_get::<_, Option<i32>>(column).map_err(damaged)?;
            number.map(|number| Value::Integer(number.into()))
        }
        Some(Type::BOOL) => {
            let truth = row.try_get::<_, Option<bool>>(column).map_err(damaged)?;
            truth.map(|truth| Value::Integer(truth.into()))
        }
        Some(Type::BYTEA) => row
            .try_get::<_, Option<&[u8]>>(column)
            .map_err(damaged)?
            .map(Value::Bytes),
        Some(_) => row
            .try_get::<_, Option<&str>>(column)
            .map_err(damaged)?
            .map(Value::Text),
        None => return Err(DbError::Damaged(format!("no column {column}"))),
    };
    Ok(value.unwrap_or(Value::Null))
}

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let wrong = || format!("a parameter of the type {kind} cannot be {self:?}");
        match (*self, kind) {
            (Value::Null, _) => return Ok(IsNull::Yes),
            (Value::Integer(number), &Type::INT8) => out.put_i64(number),
            (Value::Integer(number), &Type::INT4) => out.put_i32(number.try_into()?),
            (Value::Text(text), &(Type::TEXT | Type::VARCHAR | Type::NAME)) => out.put_slice(text.as_bytes()),
            (Value::Bytes(bytes), &Type::BYTEA) => out.put_slice(bytes),
            _ => return Err(wrong().into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A connection with its prepared statements.
pub(crate) struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
    /// Whether a statement of this transaction has failed: committing it would undo it without a word.
    failed: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("statements", &self.statements.len())
            .finish_non_exhaustive()
    }
}

impl Session {
    fn statement(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let prepared = self.client.prepare(&translate(sql))?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), prepared.clone());
        Ok(prepared)
    }

    fn noted<T>(&mut self, result: Result<T, postgres::Error>) -> Found<T> {
        result.map_err(|error| {
            self.failed = true;
            failure(&error)
        })
    }

    pub(super) fn each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        mut call: impl FnMut(&Row) -> Found<bool>,
    ) -> Found<()> {
        let statement = self.statement(sql);
        let statement = self.noted(statement)?;
        let mut failed = None;
        {
            let rows = self.client.query_raw(&statement, values.iter().copied());
            match rows {
                Err(error) => failed = Some(error),
                Ok(mut rows) => loop {
                    match rows.next() {
                        Ok(Some(row)) => {
                            if !call(&row)? {
                                break;
                            }
                        }
                        Ok(None) => break,
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                },
            }
        }
        self.noted(failed.map_or(Ok(()), Err))
    }

    pub(super) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Found<u64> {
        let statement = self.statement(sql);
        let statement = self.noted(statement)?;
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let done = self.client.execute(&statement, &values);
        self.noted(done)
    }

    /// Runs statements as they are.
    pub(super) fn batch(&mut self, sql: &str) -> Found<()> {
        let done = self.client.batch_execute(sql);
        self.noted(done)
    }

    fn begin(&mut self, how: &str) -> Found<()> {
        self.failed = false;
        self.batch(how)
    }

    fn commit(&mut self) -> Found<()> {
        if self.failed {
            let reason = "a statement of the transaction failed".into();
            return Err(DbError::Postgres { reason });
        }
        match self.batch("COMMIT") {
            Err(DbError::Unavailable { reason }) => Err(DbError::Uncertain { reason }),
            done => done,
        }
    }

    fn text(&mut self, sql: &str) -> Found<String> {
        let row = self.client.query_one(sql, &[]);
        let row = self.noted(row)?;
        row.try_get(0).map_err(|error| failure(&error))
    }
}

const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// The sessions of one hub with one database. All calls block.
#[derive(Debug)]
pub(super) struct Pool {
    target: Target,
    schema: Schema,
    writer: Mutex<Option<Session>>,
    readers: Mutex<Vec<Session>>,
    closed: AtomicBool,
}

impl Pool {
    /// Connects, takes the lock, and makes the tables if they are not there.
    pub(super) fn open(target: Target, schema: Schema) -> Found<Self> {
        let pool = Self {
            target,
            schema,
            writer: Mutex::new(None),
            readers: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        let mut session = pool.writer()?;
        if session.text("SHOW fsync")? == "off" {
            tracing::warn!(database = %pool.target, "the server runs with fsync = off: what is acknowledged can be lost");
        }
        session.begin(WRITE)?;
        let version = pool.migrate(&mut session)?;
        session.commit()?;
        if version != i64::from(pool.schema.version) {
            return Err(DbError::Version {
                place: pool.target.to_string(),
                got: version,
                expected: pool.schema.version,
            });
        }
        *lock(&pool.writer) = Some(session);
        Ok(pool)
    }

    /// Makes the tables if there are none, and gives their version.
    fn migrate(&self, session: &mut Session) -> Found<i64> {
        let (name, version) = (self.schema.name, self.schema.version);
        let there = session.text(&format!("SELECT COALESCE(to_regclass('{name}_schema')::text, '')"))?;
        if there.is_empty() {
            session.batch(&format!("CREATE TABLE {name}_schema (version BIGINT NOT NULL)"))?;
            session.batch(&format!("INSERT INTO {name}_schema (version) VALUES ({version})"))?;
            session.batch(&schema(self.schema.sql))?;
        }
        let version = session.text(&format!("SELECT version::text FROM {name}_schema"))?;
        version
            .parse()
            .map_err(|_| DbError::Damaged(format!("schema version {version:?}")))
    }

    fn connect(&self) -> Found<Session> {
        if self.closed.load(Ordering::Relaxed) {
            let reason = "the hub is stopping".into();
            return Err(DbError::Unavailable { reason });
        }
        // Whatever stops a connection from being made (a wrong password too) may be put right without this process.
        let client = self.target.config.connect(self.target.tls.clone());
        let client = client.map_err(|error| DbError::Unavailable { reason: reason(&error) })?;
        let mut session = Session {
            client,
            statements: HashMap::new(),
            failed: false,
        };
        session.batch(SETTINGS)?;
        let encoding = session.text("SHOW server_encoding")?;
        if encoding != "UTF8" {
            let reason = format!("the database has the encoding {encoding}, the hub needs UTF8");
            return Err(DbError::Postgres { reason });
        }
        match (session.text("SHOW synchronous_commit")?.as_str(), self.schema.durable) {
            // What a hub acknowledges is on disk, whatever the server's default is.
            ("off", true) => session.batch("SET synchronous_commit = on")?,
            (_, false) => session.batch("SET synchronous_commit = off")?,
            _ => {}
        }
        Ok(session)
    }

    /// A session that holds the lock of the one writer.
    fn writer(&self) -> Found<Session> {
        let mut session = self.connect()?;
        // Several hubs may share a database in schemas of their own.
        let place = session.text("SELECT current_database() || '/' || COALESCE(current_schema(), '')")?;
        let digest = blake3::hash(format!("opg/{}/writer/{place}", self.schema.name).as_bytes());
        let key = digest
            .as_bytes()
            .first_chunk::<8>()
            .map_or(0, |bytes| i64::from_be_bytes(*bytes));
        let end = Instant::now() + TAKEOVER;
        while session.text(&format!("SELECT pg_try_advisory_lock({key})::text"))? != "true" {
            if Instant::now() >= end {
                return Err(DbError::Taken {
                    place: self.target.to_string(),
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(session)
    }

    /// Begins a transaction on a session; one that was lost while nobody used it is replaced.
    fn begin(&self, known: Option<Session>, how: &str, fresh: impl Fn() -> Found<Session>) -> Found<Session> {
        if let Some(mut session) = known {
            match session.begin(how) {
                Ok(()) => return Ok(session),
                Err(DbError::Unavailable { reason }) => {
                    tracing::warn!(database = %self.target, reason, "a connection was lost; connecting again");
                }
                Err(error) => return Err(error),
            }
        }
        let mut session = fresh()?;
        session.begin(how)?;
        Ok(session)
    }

    pub(super) fn read<T>(&self, queries: impl FnOnce(&mut Session) -> Found<T>) -> Found<T> {
        let pooled = lock(&self.readers).pop();
        let mut session = self.begin(pooled, READ, || self.connect())?;
        let result = queries(&mut session);
        // A session that does not come out of its transaction is dropped.
        if session.batch("ROLLBACK").is_ok() && !self.closed.load(Ordering::Relaxed) {
            lock(&self.readers).push(session);
        }
        result
    }

    pub(super) fn write<T, E: From<DbError>>(
        &self,
        changes: impl FnOnce(&mut Session) -> Result<T, E>,
    ) -> Result<T, E> {
        // Empty while the session is in use: if the changes panic it is dropped with what it did.
        let mut slot = lock(&self.writer);
        let mut session = self.begin(slot.take(), WRITE, || self.writer())?;
        match changes(&mut session) {
            Ok(value) => {
                let done = session.commit();
                if done.is_ok() || session.batch("ROLLBACK").is_ok() {
                    *slot = Some(session);
                }
                done?;
                Ok(value)
            }
            Err(error) => {
                if session.batch("ROLLBACK").is_ok() {
                    *slot = Some(session);
                }
                Err(error)
            }
        }
    }

    /// Ends all sessions, and with them the lock.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let writer = lock(&self.writer).take();
        if let Some(mut session) = writer {
            // The lock is free when this returns, not when the server notices that the connection is gone.
            let _ = session.batch("SELECT pg_advisory_unlock_all()");
        }
        lock(&self.readers).clear();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let sessions: Vec<Session> = lock(&self.readers).drain(..).chain(lock(&self.writer).take()).collect();
        if !sessions.is_empty() {
            // Ending a session waits for the network, which is not allowed on an async thread.
            std::thread::spawn(move || drop(sessions));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_and_tables_are_translated() {
        assert_eq!(
            translate("SELECT 1 FROM t WHERE instr(a, ?12) > 0 AND b = ?1"),
            "SELECT 1 FROM t WHERE strpos(a, $12) > 0 AND b = $1"
        );
        assert_eq!(
            schema("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a BLOB, b TEXT NOT NULL, c INTEGER)"),
            "CREATE TABLE t (id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, a BYTEA, b TEXT COLLATE \"C\" NOT NULL, \
             c BIGINT)"
        );
    }

    #[test]
    fn urls_name_everything_and_far_servers_get_tls() {
        let read = |url: &str| Target::read(url, None, None);
        for url in [
            "x",
            "mysql://a@b/c",
            "postgres://b/c",
            "postgres://a@/c",
            "postgres://a@b",
            "postgres://a@b/c?x=1",
        ] {
            assert!(read(url).is_err(), "{url}");
        }
        let mode = |url: &str| read(url).unwrap().config.get_ssl_mode();
        assert_eq!(mode("postgres://a@127.0.0.1/c"), SslMode::Prefer);
        assert_eq!(mode("postgres://a@10.1.2.3:5433/c?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://a@db.example/c"), SslMode::Require);
        assert_eq!(mode("postgres://a@db/c?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://a@8.8.8.8/c?sslmode=prefer"), SslMode::Require);
        assert!(read("postgres://a@8.8.8.8/c?sslmode=disable").is_err());
        // A password is never shown, and one from elsewhere does not replace that of the URL.
        let target = Target::read("postgres://a:hidden@127.0.0.1/c", Some("other"), None).unwrap();
        assert!(!format!("{target:?} {target}").contains("hidden"));
        assert_eq!(target.config.get_password(), Some(b"hidden".as_slice()));
        let target = Target::read("postgres://a@127.0.0.1/c", Some("other"), None).unwrap();
        assert_eq!(target.config.get_password(), Some(b"other".as_slice()));
    }
}
