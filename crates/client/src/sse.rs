//! Server-sent events, read from a stream of bytes with a bound on every event.

/// Largest event; one token with its log-probabilities is far below.
const MAX_EVENT: usize = 1 << 20;

/// An event longer than [`MAX_EVENT`], or one that is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event stream is broken: {0}")]
pub(crate) struct SseError(&'static str);

/// Splits a byte stream into the `data` of its events. Comments, names, ids and retry hints are skipped.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
}

impl SseParser {
    /// Takes in a chunk and gives the events that it completes.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<Vec<String>, SseError> {
        let mut events = Vec::new();
        for &byte in chunk {
            // CR, LF and CR LF all end a line.
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(&mut events)?,
                _ if self.line.len() + self.data.len() >= MAX_EVENT => {
                    return Err(SseError("an event is longer than 1 MiB"));
                }
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, events: &mut Vec<String>) -> Result<(), SseError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                let data = std::mem::take(&mut self.data);
                events.push(String::from_utf8(data).map_err(|_| SseError("an event is not UTF-8"))?);
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\r\ndata: {\"a\":1}\r\n\r\nevent: x\ndata: two\ndata:lines\n\n\n\ndata: [DONE]\n\ndata: cut";

    #[test]
    fn events_do_not_depend_on_how_the_bytes_arrive() {
        for size in 1..=STREAM.len() {
            let mut parser = SseParser::default();
            let events: Vec<String> = STREAM
                .chunks(size)
                .flat_map(|chunk| parser.push(chunk).unwrap())
                .collect();
            assert_eq!(events, ["{\"a\":1}", "two\nlines", "[DONE]"], "chunks of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::default();
        let chunk = [b'x'; 4096];
        let refused = (0..1024).any(|_| parser.push(&chunk).is_err());
        assert!(refused);
        assert!(SseParser::default().push(b"data: \xff\n\n").is_err());
    }
}
