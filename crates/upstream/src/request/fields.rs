//! Typed access to the members of a request.

use crate::error::RequestError;
use serde_json::{Map, Value};

/// What a JSON value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// An object and where it stands; remembers which members were read, so that the others can be refused.
pub(super) struct Fields<'a> {
    pub(super) at: String,
    object: &'a Map<String, Value>,
    seen: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(at: impl Into<String>, object: &'a Map<String, Value>) -> Self {
        Self {
            at: at.into(),
            object,
            seen: Vec::new(),
        }
    }

    /// The members of `value`, which must be an object.
    pub(super) fn of(at: impl Into<String>, value: &'a Value) -> Result<Self, RequestError> {
        let at = at.into();
        match value.as_object() {
            Some(object) => Ok(Self::new(at, object)),
            None => Err(RequestError::invalid(
                at,
                format!("expected an object, got {}", kind(value)),
            )),
        }
    }

    /// Path of a member.
    pub(super) fn path(&self, name: &str) -> String {
        if self.at.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.at)
        }
    }

    pub(super) fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.seen.push(name);
        self.object.get(name).filter(|v| !v.is_null())
    }

    fn typed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, RequestError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(RequestError::invalid(
                self.path(name),
                format!("expected {expected}, got {}", kind(value)),
            )),
        }
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, RequestError> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, RequestError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(super) fn integer(&mut self, name: &'static str) -> Result<Option<i64>, RequestError> {
        self.typed(name, "an integer", Value::as_i64)
    }

    pub(super) fn array(&mut self, name: &'static str) -> Result<Option<&'a Vec<Value>>, RequestError> {
        self.typed(name, "an array", Value::as_array)
    }

    pub(super) fn object(&mut self, name: &'static str) -> Result<Option<&'a Map<String, Value>>, RequestError> {
        self.typed(name, "an object", Value::as_object)
    }

    /// A number between two bounds, both allowed.
    pub(super) fn number(&mut self, name: &'static str, low: f64, high: f64) -> Result<Option<f64>, RequestError> {
        let found = self.typed(name, "a number", Value::as_f64)?;
        match found {
            Some(x) if !(low..=high).contains(&x) => Err(RequestError::invalid(
                self.path(name),
                format!("expected {low} to {high}, got {x}"),
            )),
            found => Ok(found),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, name: &'static str) -> Result<&'a str, RequestError> {
        self.text(name)?.ok_or_else(|| RequestError::missing(self.path(name)))
    }

    /// Members that were not read, and are not null.
    pub(super) fn others(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + '_ {
        self.object
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .filter(|(name, value)| !self.seen.contains(name) && !value.is_null())
    }

    /// Refuses members that were not read.
    pub(super) fn refuse_others(&self) -> Result<(), RequestError> {
        match self.others().next() {
            Some((name, _)) => Err(RequestError::unknown(&self.path(name))),
            None => Ok(()),
        }
    }
}
