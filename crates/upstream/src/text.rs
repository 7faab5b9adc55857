//! Texts of a provider, made safe to show and to keep.

/// One line of at most `max` characters; control characters become spaces.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    text.chars()
        .take(max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// An identifier or other short word: visible ASCII, at most 256 bytes. Anything else is nothing that this crate records.
pub(crate) fn word(text: &str) -> Option<String> {
    let fine = !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    fine.then(|| text.to_owned())
}
