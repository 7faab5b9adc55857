//! One interface to both databases: values, rows, and what is run in a transaction.
//!
//! Statements are written for both: parameters are `?1`, `?2`, …, integers have 64 bits, truth values are 0 and 1, and
//! text is compared byte by byte. For PostgreSQL the text of a statement is changed in two places only
//! ([`super::postgres::translate`]): how a parameter is written, and the name of `instr`.

use super::{DbError, Found, postgres};
use rusqlite::types::{ToSqlOutput, ValueRef};
use std::{cell::RefCell, ops::Deref};

/// A value that goes into a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Integer(truth.into())
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Refuses text that PostgreSQL cannot hold, with both databases: what one hub takes, every hub takes.
fn check(values: &[Value<'_>]) -> Found<()> {
    let nul = |value: &Value<'_>| matches!(value, Value::Text(text) if text.contains('\0'));
    if values.iter().any(nul) {
        return Err(DbError::Nul);
    }
    Ok(())
}

/// A statement while the rows of another are read: a mistake of this crate, which SQLite would not notice.
fn nested() -> DbError {
    DbError::Damaged("a statement inside of another".into())
}

/// A row of an answer. Columns are counted from 0.
#[derive(Debug)]
pub(crate) struct Row<'r>(Cells<'r>);

#[derive(Debug)]
enum Cells<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r ::postgres::Row),
}

impl Row<'_> {
    /// A column.
    pub(crate) fn get<T: Column>(&self, column: usize) -> Found<T> {
        let cell = match &self.0 {
            Cells::Sqlite(row) => match row.get_ref(column)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Text(text) => {
                    Value::Text(std::str::from_utf8(text).map_err(|error| DbError::Damaged(error.to_string()))?)
                }
                ValueRef::Blob(bytes) => Value::Bytes(bytes),
                ValueRef::Real(_) => return Err(DbError::Damaged(format!("column {column} is no integer"))),
            },
            Cells::Postgres(row) => postgres::cell(row, column)?,
        };
        T::read(cell).ok_or_else(|| {
            let got = match cell {
                Value::Null => "NULL",
                Value::Integer(_) => "an integer",
                Value::Text(_) => "text",
                Value::Bytes(_) => "bytes",
            };
            DbError::Damaged(format!(
                "column {column} holds {got}, not {}",
                std::any::type_name::<T>()
            ))
        })
    }
}

/// What a column can be read as.
pub(crate) trait Column: Sized {
    fn read(cell: Value<'_>) -> Option<Self>;
}

impl Column for i64 {
    fn read(cell: Value<'_>) -> Option<Self> {
        match cell {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }
}

/// A size or a count.
impl Column for u64 {
    fn read(cell: Value<'_>) -> Option<Self> {
        i64::read(cell)?.try_into().ok()
    }
}

impl Column for u16 {
    fn read(cell: Value<'_>) -> Option<Self> {
        i64::read(cell)?.try_into().ok()
    }
}

impl Column for bool {
    fn read(cell: Value<'_>) -> Option<Self> {
        i64::read(cell).map(|number| number != 0)
    }
}

impl Column for String {
    fn read(cell: Value<'_>) -> Option<Self> {
        match cell {
            Value::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }
}

impl Column for Vec<u8> {
    fn read(cell: Value<'_>) -> Option<Self> {
        match cell {
            Value::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        }
    }
}

impl<const N: usize> Column for [u8; N] {
    fn read(cell: Value<'_>) -> Option<Self> {
        match cell {
            Value::Bytes(bytes) => bytes.try_into().ok(),
            _ => None,
        }
    }
}

impl<T: Column> Column for Option<T> {
    fn read(cell: Value<'_>) -> Option<Self> {
        match cell {
            Value::Null => Some(None),
            cell => T::read(cell).map(Some),
        }
    }
}

/// Most rows of one statement.
const ROWS: usize = 256;

/// Cuts a list into pieces whose sizes are powers of two, so that few different statements are prepared.
fn pieces<T>(mut list: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = list.len().min(ROWS).checked_ilog2()?;
        let (piece, rest) = list.split_at_checked(1 << size)?;
        list = rest;
        Some(piece)
    })
}

/// `(?1, ?2), (?3, ?4)` for two rows of two.
fn tuples(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let names: Vec<String> = (1..=columns)
            .map(|column| format!("?{}", row * columns + column))
            .collect();
        format!("({})", names.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// One state of the database, to read.
#[derive(Debug)]
pub(crate) struct Connection<'c>(Kind<'c>);

#[derive(Debug)]
enum Kind<'c> {
    Sqlite(&'c rusqlite::Connection),
    Postgres(RefCell<&'c mut postgres::Session>),
}

impl<'c> Connection<'c> {
    pub(crate) const fn sqlite(connection: &'c rusqlite::Connection) -> Self {
        Self(Kind::Sqlite(connection))
    }

    pub(super) const fn postgres(session: &'c mut postgres::Session) -> Self {
        Self(Kind::Postgres(RefCell::new(session)))
    }

    /// Calls with each row until the call answers false. It must not ask the database again.
    pub(crate) fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut call: impl FnMut(&Row<'_>) -> Found<bool>,
    ) -> Found<()> {
        check(values)?;
        match &self.0 {
            Kind::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    if !call(&Row(Cells::Sqlite(row)))? {
                        break;
                    }
                }
                Ok(())
            }
            Kind::Postgres(session) => session
                .try_borrow_mut()
                .map_err(|_| nested())?
                .each(sql, values, |row| call(&Row(Cells::Postgres(row)))),
        }
    }

    /// All rows.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Found<T>,
    ) -> Found<Vec<T>> {
        let mut found = Vec::new();
        self.each(sql, values, |row| {
            found.push(read(row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// The first row, if there is one.
    pub(crate) fn optional<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Found<T>,
    ) -> Found<Option<T>> {
        let mut found = None;
        self.each(sql, values, |row| {
            found = Some(read(row)?);
            Ok(false)
        })?;
        Ok(found)
    }

    /// All rows whose key is in a list. The statement ends with `IN`.
    pub(crate) fn all_of<T, K>(
        &self,
        sql: &str,
        keys: &[K],
        mut read: impl FnMut(&Row<'_>) -> Found<T>,
    ) -> Found<Vec<T>>
    where
        for<'k> &'k K: Into<Value<'k>>,
    {
        let mut found = Vec::new();
        for piece in pieces(keys) {
            let values: Vec<Value<'_>> = piece.iter().map(Into::into).collect();
            let sql = format!("{sql} {}", tuples(1, piece.len()));
            self.each(&sql, &values, |row| {
                found.push(read(row)?);
                Ok(true)
            })?;
        }
        Ok(found)
    }

    /// The first column of the only row: of a count, a sum.
    pub(crate) fn value<T: Column>(&self, sql: &str, values: &[Value<'_>]) -> Found<T> {
        let found = self.optional(sql, values, |row| row.get(0))?;
        found.ok_or_else(|| DbError::Damaged(format!("no answer to {sql}")))
    }
}

/// A transaction that can write.
#[derive(Debug)]
pub(crate) struct Transaction<'c>(Connection<'c>);

impl<'c> Deref for Transaction<'c> {
    type Target = Connection<'c>;

    fn deref(&self) -> &Connection<'c> {
        &self.0
    }
}

impl<'c> Transaction<'c> {
    pub(super) const fn new(connection: Connection<'c>) -> Self {
        Self(connection)
    }

    /// Inserts rows, many with one statement: with a server each is a journey. `conflict` says what becomes of a row that is
    /// there; unless that is nothing, no two of the rows may be the same one.
    pub(crate) fn insert<const N: usize>(&self, into: &str, rows: &[[Value<'_>; N]], conflict: &str) -> Found<()> {
        for piece in pieces(rows) {
            let sql = format!(
                "INSERT INTO {into} VALUES {} ON CONFLICT {conflict}",
                tuples(piece.len(), N)
            );
            self.execute(&sql, piece.as_flattened())?;
        }
        Ok(())
    }

    /// Runs a statement, and returns how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Found<u64> {
        check(values)?;
        match &self.0.0 {
            Kind::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                Ok(statement.execute(rusqlite::params_from_iter(values))? as u64)
            }
            Kind::Postgres(session) => session.try_borrow_mut().map_err(|_| nested())?.execute(sql, values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_into_few_shapes() {
        let list: Vec<usize> = (0..1_000).collect();
        let sizes: Vec<usize> = pieces(&list).map(<[usize]>::len).collect();
        assert_eq!(sizes, [256, 256, 256, 128, 64, 32, 8]);
        let joined: Vec<usize> = pieces(&list).flatten().copied().collect();
        assert_eq!(joined, list);
        assert_eq!(pieces::<usize>(&[]).count(), 0);
        assert_eq!(tuples(2, 3), "(?1, ?2, ?3), (?4, ?5, ?6)");
    }
}
