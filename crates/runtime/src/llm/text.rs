//! Turns the bytes of tokens into text that may be shown: whole characters only, and nothing that could turn out to be
//! the beginning of a stop text.

/// Text on its way from tokens to the caller.
#[derive(Debug, Default)]
pub(super) struct TextStream<'a> {
    stops: &'a [String],
    /// Bytes that are not yet a whole character.
    bytes: Vec<u8>,
    /// Characters that are held back because a stop text may begin in them.
    held: String,
}

/// What a token adds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Text that may be shown now.
    pub(super) text: String,
    /// Whether a stop text was found; the stream is at its end then.
    pub(super) stopped: bool,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(stops: &'a [String]) -> Self {
        Self {
            stops,
            ..Self::default()
        }
    }

    /// Adds the bytes of one token.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Piece {
        self.bytes.extend_from_slice(bytes);
        self.whole_characters(false);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            self.bytes.clear();
            return Piece {
                text: std::mem::take(&mut self.held),
                stopped: true,
            };
        }
        let keep = self
            .stops
            .iter()
            .map(|stop| overlap(&self.held, stop))
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Piece {
            text: std::mem::replace(&mut self.held, rest),
            stopped: false,
        }
    }

    /// What is left at the end of an answer; an incomplete character becomes U+FFFD.
    pub(super) fn finish(mut self) -> String {
        self.whole_characters(true);
        self.held
    }

    /// Moves complete characters from `bytes` to `held`. Bytes that can never become a character are replaced by
    /// U+FFFD at once, as `String::from_utf8_lossy` does; bytes that may wait stay, unless this is the end.
    fn whole_characters(&mut self, end: bool) {
        let bytes = std::mem::take(&mut self.bytes);
        for chunk in bytes.utf8_chunks() {
            self.held.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            if !end && bytes.ends_with(invalid) && is_prefix_of_character(invalid) {
                self.bytes = invalid.to_vec();
            } else {
                self.held.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }
}

/// Whether more bytes could make these a character: `utf8_chunks` gives an invalid part at the end of the input either
/// because it is wrong or because it is not finished, and only the latter has no error length.
fn is_prefix_of_character(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.valid_up_to() == 0 && error.error_len().is_none())
}

/// Length of the longest proper prefix of `stop` that `text` ends with.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = stop.len().saturating_sub(1).min(text.len());
    (1..=longest)
        .rev()
        .find(|&length| {
            stop.is_char_boundary(length)
                && text
                    .as_bytes()
                    .ends_with(stop.as_bytes().get(..length).unwrap_or_default())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut stream = TextStream::new(&stops);
        let mut shown = Vec::new();
        for bytes in pieces {
            let piece = stream.push(bytes);
            shown.push(piece.text);
            if piece.stopped {
                return (shown, String::new(), true);
            }
        }
        let rest = stream.finish();
        (shown, rest, false)
    }

    #[test]
    fn characters_are_whole() {
        let snow = "a☃b".as_bytes();
        let (shown, rest, _) = feed(&[], &[&snow[..2], &snow[2..3], &snow[3..]]);
        assert_eq!(shown, ["a", "", "☃b"]);
        assert_eq!(rest, "");
        // Unfinished at the end, wrong in the middle.
        assert_eq!(feed(&[], &[&snow[..3]]), (vec!["a".into()], "\u{fffd}".into(), false));
        assert_eq!(feed(&[], &[b"a\xffb"]).0, ["a\u{fffd}b"]);
    }

    #[test]
    fn any_split_gives_the_lossy_text() {
        let bytes = b"x\xe2\x98\x83y\xf0\x9f\x92\xa9\xc3\xe2\x98z\xff\xed\xa0\x80";
        for split in 0..=bytes.len() {
            for second in split..=bytes.len() {
                let (shown, rest, _) = feed(&[], &[&bytes[..split], &bytes[split..second], &bytes[second..]]);
                assert_eq!(
                    shown.concat() + &rest,
                    String::from_utf8_lossy(bytes),
                    "{split} {second}"
                );
            }
        }
    }

    #[test]
    fn stop_texts_end_the_stream_wherever_they_are_cut() {
        let text = "one ENDé two";
        for split in 0..text.len() {
            let (shown, _, stopped) = feed(&["ENDé"], &[&text.as_bytes()[..split], &text.as_bytes()[split..]]);
            assert!(stopped, "{split}");
            assert_eq!(shown.concat(), "one ", "{split}");
        }
        // The first in the text wins, not the first in the list; a near miss is shown in the end.
        assert_eq!(feed(&["b", "a"], &[b"xaby"]).0, ["x"]);
        let (shown, rest, stopped) = feed(&["END"], &[b"one EN", b"D", b"never"]);
        assert!(stopped && rest.is_empty());
        assert_eq!(shown.concat(), "one ");
        let (shown, rest, stopped) = feed(&["END"], &[b"one EN", b"X EN"]);
        assert_eq!(
            (shown, rest.as_str(), stopped),
            (vec!["one ".into(), "ENX ".into()], "EN", false)
        );
    }
}
