//! Text from others, made safe to print.

/// At most `max` characters of `text` on one line: control characters (an answer could move the cursor or recolour a
/// terminal) become spaces.
pub fn one_line(text: &str, max: usize) -> String {
    let mut line: String = text
        .chars()
        .take(max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(max).is_some() {
        line.push('…');
    }
    line
}

/// `text` without the control characters that steer a terminal; line breaks and tabs stay.
pub fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\x1b[31m\nb", 20), "a [31m b");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(printable("a\n\x1b]0;x\x07b\t"), "a\n]0;xb\t");
    }
}
