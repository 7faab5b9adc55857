//! The frame of all pages, and how values are written.

use maud::{DOCTYPE, Markup, html};

/// A page.
pub(super) fn page(title: &str, search: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Model hub" }
                link rel="stylesheet" href="/assets/style.css";
            }
            body {
                header class="top" {
                    div {
                        a class="brand" href="/" { "Model hub" }
                        a href="/" { "Models" }
                        a href="/datasets" { "Datasets" }
                        form action="/models" method="get" role="search" {
                            input type="search" name="search" value=(search) placeholder="Search models" aria-label="Search models" maxlength="200";
                            button { "Search" }
                        }
                    }
                }
                main { (body) }
            }
        }
    }
}

/// `3.94 MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"B");
    while value >= 1000.0
        && let Some(next) = units.next()
    {
        value /= 1000.0;
        unit = next;
    }
    if *unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.2} {unit}")
    }
}

/// `3.67 M`, of things that are counted.
pub(super) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// Date and minute of a time.
pub(super) fn date(ms: i64) -> String {
    crate::time::iso(ms)
        .chars()
        .take(16)
        .map(|c| if c == 'T' { ' ' } else { c })
        .collect()
}

/// A text for a URL's query or path segment.
pub(super) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A path for a URL: slashes stay.
pub(super) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_for_people() {
        assert_eq!(
            [size(0), size(999), size(1_000), size(3_937_920), size(u64::MAX)],
            ["0 B", "999 B", "1.00 kB", "3.94 MB", "18446.74 PB"]
        );
        assert_eq!(
            [count(9_999), count(3_670_016), count(7_000_000_000)],
            ["9999", "3.67 M", "7.00 B"]
        );
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(encode_path("a b/ü"), "a%20b/%C3%BC");
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let text = page("<b>", "\"><script>", &html! { p { ("<img>") } }).into_string();
        assert!(!text.contains("<b>") && !text.contains("<script>") && !text.contains("<img>"));
    }
}
