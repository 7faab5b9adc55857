//! Server-sent events of a provider (WHATWG HTML, section 9.2), from bytes that arrive in pieces of any size.

use crate::error::AnswerError;

/// Largest event. A whole tool call may stand in one.
pub const MAX_EVENT: usize = 4 << 20;

/// Splits a byte stream into the `data` of its events. Comments, names, ids and retry hints are skipped: every provider
/// repeats the event's name inside its data.
#[derive(Debug, Default)]
pub struct EventReader {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    /// Whether the first line, which may start with a byte order mark, is over.
    past_start: bool,
}

impl EventReader {
    /// Takes bytes and returns the events that they complete.
    ///
    /// # Errors
    /// [`AnswerError::TooLong`] beyond [`MAX_EVENT`], [`AnswerError::Malformed`] for an event that is not UTF-8.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, AnswerError> {
        let mut events = Vec::new();
        for &byte in bytes {
            // CR, LF and CR LF all end a line.
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(&mut events)?,
                _ if self.line.len() + self.data.len() >= MAX_EVENT => {
                    return Err(AnswerError::TooLong {
                        what: "an event",
                        limit: MAX_EVENT,
                    });
                }
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    /// Whether the stream stopped inside an event. Such an event does not count.
    #[must_use]
    pub const fn is_inside_event(&self) -> bool {
        self.has_data || !self.line.is_empty()
    }

    fn end_line(&mut self, events: &mut Vec<String>) -> Result<(), AnswerError> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.past_start, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                let data = std::mem::take(&mut self.data);
                events
                    .push(String::from_utf8(data).map_err(|_| AnswerError::malformed("an event", "it is not UTF-8"))?);
            }
            return Ok(());
        }
        let value = match line.strip_prefix(b"data:") {
            Some(value) => value.strip_prefix(b" ").unwrap_or(value),
            None if line == b"data" => b"",
            None => return Ok(()),
        };
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"\xef\xbb\xbfdata: first\r\n\r\n: comment\r\nevent: x\rdata: {\"a\":1}\r\rid: 7\ndata: two\ndata:lines\ndata\n\n\n\n\
        retry: 5\n\ndata: [DONE]\n\ndata: cut";

    #[test]
    fn events_do_not_depend_on_how_the_bytes_arrive() {
        for size in 1..=STREAM.len() {
            let mut reader = EventReader::default();
            let events: Vec<String> = STREAM
                .chunks(size)
                .flat_map(|part| reader.push(part).unwrap())
                .collect();
            assert_eq!(
                events,
                ["first", "{\"a\":1}", "two\nlines\n", "[DONE]"],
                "pieces of {size}"
            );
            assert!(reader.is_inside_event());
        }
    }

    #[test]
    fn an_endless_event_and_broken_text_are_refused() {
        let mut reader = EventReader::default();
        let endless = (0..2048).find_map(|_| reader.push(&[b'x'; 4096]).err());
        assert!(matches!(endless, Some(AnswerError::TooLong { .. })));
        let mut lines = EventReader::default();
        let endless = (0..2048).find_map(|_| lines.push(&[b"data: ", &[b'x'; 4096][..], b"\n"].concat()).err());
        assert!(matches!(endless, Some(AnswerError::TooLong { .. })));
        assert!(matches!(
            EventReader::default().push(b"data: \xff\n\n"),
            Err(AnswerError::Malformed { .. })
        ));
    }
}
