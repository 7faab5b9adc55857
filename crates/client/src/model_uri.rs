//! What a registration says beside root and terms: where its repository is, and the licence it was published under
//! (docs/specs/model.md, section 4).

/// Longest URI that the registry takes, bytes (`ModelRegistry.MAX_URI`).
const MAX_URI: usize = 512;
/// Longest licence, bytes.
const MAX_LICENSE: usize = 100;
const LICENSE: &str = "#license=";

/// Where a model is published, and under which licence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUri {
    /// URL of its repository's page at a hub.
    pub page: String,
    /// An SPDX expression, or a word as the card's metadata has it.
    pub license: Option<String>,
}

/// Characters of licences: those of SPDX expressions.
fn is_license(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-.+_:() ".contains(c);
    !text.is_empty() && text.len() <= MAX_LICENSE && text.chars().all(fits)
}

impl ModelUri {
    /// As it is registered. `None` if a part cannot stand in it, or it is longer than the registry takes.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let text = match &self.license {
            Some(license) if is_license(license) => format!("{}{LICENSE}{}", self.page, license.replace(' ', "%20")),
            Some(_) => return None,
            None => self.page.clone(),
        };
        // Whatever is written is read back the same.
        (Self::read(&text).as_ref() == Some(self)).then_some(text)
    }

    /// Reads what somebody has registered. `None` for everything that [`text`](Self::text) does not write.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_URI || !text.chars().all(|c| c.is_ascii_graphic()) {
            return None;
        }
        let (page, license) = match text.split_once(LICENSE) {
            Some((page, license)) if !license.contains(' ') => (page, Some(license.replace("%20", " "))),
            Some(_) => return None,
            None => (text, None),
        };
        let rest = page.strip_prefix("https://").or_else(|| page.strip_prefix("http://"))?;
        if rest.is_empty() || page.contains('#') || license.as_ref().is_some_and(|license| !is_license(license)) {
            return None;
        }
        Some(Self {
            page: page.to_owned(),
            license,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(license: Option<&str>) -> ModelUri {
        ModelUri {
            page: "https://hub.example/maker/digits".into(),
            license: license.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (license, text) in [
            (None, "https://hub.example/maker/digits"),
            (Some("mit"), "https://hub.example/maker/digits#license=mit"),
            (
                Some("(MIT OR Apache-2.0) AND GPL-2.0+"),
                "https://hub.example/maker/digits#license=(MIT%20OR%20Apache-2.0)%20AND%20GPL-2.0+",
            ),
        ] {
            assert_eq!(uri(license).text().as_deref(), Some(text));
            assert_eq!(ModelUri::read(text), Some(uri(license)));
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let long = "x".repeat(MAX_LICENSE + 1);
        for license in ["", "a#b", "a%20b", "mit\u{202e}", "mit\n", "ümit", &long] {
            assert_eq!(uri(Some(license)).text(), None, "{license:?}");
        }
        for page in [
            "",
            "https://",
            "ftp://a/b/c",
            "hub.example/a/b",
            "https://a/b c",
            "https://a/b#c",
        ] {
            let page = page.to_owned();
            assert_eq!(ModelUri { page, license: None }.text(), None);
        }
        let page = format!("https://{}", "a".repeat(MAX_URI));
        assert_eq!(ModelUri { page, license: None }.text(), None);
    }

    #[test]
    fn what_strangers_write_is_not_shown() {
        for text in [
            "",
            "javascript:alert(1)",
            "https://a/b\u{1b}[31m",
            "https://a/b\u{202e}",
            "https://a/b#license=",
            "https://a/b#license=mit#license=gpl",
            "https://a/b#license=<script>",
            "https://a/b#license=mit%0aroot",
            "https://a/b#x#license=mit",
            &format!("https://a/b#license={}", "m".repeat(101)),
            &format!("https://{}", "a".repeat(600)),
        ] {
            assert_eq!(ModelUri::read(text), None, "{text:?}");
        }
    }
}
