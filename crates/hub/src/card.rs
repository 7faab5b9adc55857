//! Model cards: the YAML block at the top of `README.md`, and the Markdown below it.
//!
//! YAML is read into JSON with bounds on size, depth and values; aliases are refused, so a small card cannot grow
//! ("billion laughs"). Markdown is rendered without raw HTML and with links to the web only.

use crate::db::repos::Summary;
use pulldown_cmark::{CowStr, Event as Md, LinkType, Options, Parser as Markdown, Tag as MdTag, TagEnd, html};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Largest card that is read, in bytes.
pub const CARD_LIMIT: usize = 1 << 20;
/// Largest YAML block, in bytes.
pub const YAML_LIMIT: usize = 256 << 10;
const VALUES_LIMIT: usize = 20_000;
const DEPTH_LIMIT: usize = 16;
/// Most tags taken from a card.
const TAGS_LIMIT: usize = 100;

/// Why a card's metadata is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// The block is too large, too deep or has too many values.
    #[error("metadata: more than {limit} {what}")]
    Limit {
        /// What is bounded.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Not YAML.
    #[error("metadata is not YAML: {0}")]
    Yaml(String),
    /// YAML that the hub does not take.
    #[error("metadata: {0}")]
    Unsupported(&'static str),
}

/// Splits a card into its YAML block and its Markdown.
#[must_use]
pub fn split(card: &str) -> (Option<&str>, &str) {
    let card = card.strip_prefix('\u{FEFF}').unwrap_or(card);
    let Some(rest) = card.strip_prefix("---\n").or_else(|| card.strip_prefix("---\r\n")) else {
        return (None, card);
    };
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return (rest.get(..at), rest.get(at + line.len()..).unwrap_or_default());
        }
        at += line.len();
    }
    (None, card)
}

/// One open collection.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// Reads a YAML block as a JSON object.
///
/// # Errors
/// [`CardError`].
pub fn read_yaml(text: &str) -> Result<Map<String, Value>, CardError> {
    if text.len() > YAML_LIMIT {
        return Err(CardError::Limit {
            what: "bytes",
            limit: YAML_LIMIT,
        });
    }
    let mut open: Vec<Open> = Vec::new();
    let mut values = 0;
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|e| CardError::Yaml(e.to_string()))?;
        let value = match event {
            Event::Alias(_) => return Err(CardError::Unsupported("aliases (*name) are not accepted")),
            Event::Scalar(text, style, _, _) => scalar(&text, matches!(style, ScalarStyle::Plain)),
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Map(map, _)) => Value::Object(map),
                None => continue,
            },
            Event::DocumentStart(_) if root.is_some() => return Err(CardError::Unsupported("more than one document")),
            _ => continue,
        };
        values += 1;
        if values > VALUES_LIMIT {
            return Err(CardError::Limit {
                what: "values",
                limit: VALUES_LIMIT,
            });
        }
        if open.len() > DEPTH_LIMIT {
            return Err(CardError::Limit {
                what: "levels",
                limit: DEPTH_LIMIT,
            });
        }
        match open.last_mut() {
            None => root = Some(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, key)) => match key.take() {
                Some(key) => {
                    if map.insert(key, value).is_some() {
                        return Err(CardError::Unsupported("a key occurs twice"));
                    }
                }
                None => match value {
                    Value::String(text) => *key = Some(text),
                    Value::Object(_) | Value::Array(_) => return Err(CardError::Unsupported("a key is not a text")),
                    other => *key = Some(other.to_string()),
                },
            },
        }
    }
    match root {
        Some(Value::Object(map)) => Ok(map),
        None | Some(Value::Null) => Ok(Map::new()),
        Some(_) => Err(CardError::Unsupported("expected a mapping of names to values")),
    }
}

/// The core schema of YAML 1.2.
fn scalar(text: &str, plain: bool) -> Value {
    if !plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            let number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
            let integer = text.parse::<i64>().ok().filter(|_| number).map(Number::from);
            let float = || text.parse::<f64>().ok().filter(|_| number).and_then(Number::from_f64);
            integer
                .or_else(float)
                .map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
    }
}

fn text(map: &Map<String, Value>, key: &str) -> Option<String> {
    let value = map.get(key)?.as_str()?;
    Some(value.chars().filter(|c| !c.is_control()).take(128).collect())
}

fn texts(map: &Map<String, Value>, key: &str) -> Vec<String> {
    let list = match map.get(key) {
        Some(Value::Array(list)) => list.as_slice(),
        Some(value @ Value::String(_)) => std::slice::from_ref(value),
        _ => &[],
    };
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(96).collect();
    list.iter()
        .filter_map(Value::as_str)
        .take(TAGS_LIMIT)
        .map(clean)
        .collect()
}

/// What the lists show of a repository: from its card's metadata and the formats of its files.
#[must_use]
pub(crate) fn summary(card: &Map<String, Value>, formats: &[&str]) -> Summary {
    let mut summary = Summary {
        pipeline: text(card, "pipeline_tag"),
        library: text(card, "library_name"),
        license: text(card, "license"),
        card: Value::Object(card.clone()).to_string(),
        formats: formats.join(" "),
        tags: texts(card, "tags"),
    };
    let tags = &mut summary.tags;
    tags.extend(formats.iter().map(|format| (*format).to_owned()));
    tags.extend(summary.pipeline.clone());
    tags.extend(summary.library.clone());
    tags.extend(summary.license.iter().map(|license| format!("license:{license}")));
    tags.extend(texts(card, "language"));
    for (key, prefix) in [
        ("datasets", "dataset"),
        ("base_model", "base_model"),
        ("metrics", "metric"),
    ] {
        tags.extend(texts(card, key).into_iter().map(|value| format!("{prefix}:{value}")));
    }
    tags.retain(|tag| !tag.is_empty());
    tags.sort();
    tags.dedup();
    tags.truncate(4 * TAGS_LIMIT);
    summary
}

/// True for links that a page may carry: the web, mail, or within the hub.
fn safe_link(url: &str) -> bool {
    let lower = url.trim_start().to_ascii_lowercase();
    let scheme = lower.split(['/', '?', '#']).next().unwrap_or_default();
    !lower.starts_with("//")
        && !lower.starts_with('\\')
        && !lower.chars().any(char::is_control)
        && (!scheme.contains(':') || ["http:", "https:", "mailto:"].contains(&scheme) || lower.starts_with("mailto:"))
}

/// Renders Markdown to HTML that is safe to show: raw HTML becomes text, links of other schemes lose their target, images
/// become links (a page of the hub loads nothing from elsewhere).
#[must_use]
pub fn render(markdown: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let clean = |url: CowStr<'_>| {
        if safe_link(&url) {
            CowStr::from(url.into_string())
        } else {
            CowStr::from("#")
        }
    };
    let events = Markdown::new_ext(markdown, options).map(|event| match event {
        Md::Html(text) | Md::InlineHtml(text) => Md::Text(text),
        Md::Start(MdTag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => Md::Start(MdTag::Link {
            // An address in angle brackets gets `mailto:` from the renderer.
            link_type: if link_type == LinkType::Email {
                link_type
            } else {
                LinkType::Inline
            },
            dest_url: clean(dest_url),
            title,
            id,
        }),
        Md::Start(MdTag::Image {
            dest_url, title, id, ..
        }) => Md::Start(MdTag::Link {
            link_type: LinkType::Inline,
            dest_url: clean(dest_url),
            title,
            id,
        }),
        Md::End(TagEnd::Image) => Md::End(TagEnd::Link),
        other => other,
    });
    let mut out = String::with_capacity(markdown.len() + markdown.len() / 2);
    html::push_html(&mut out, events);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_card_is_split_and_read() {
        let card = "---\nlicense: apache-2.0\ntags:\n- a\n- 'b c'\nlanguage: en\nx: {y: [1, 2.5, true, ~]}\nno: \"12\"\n---\n# Hi\n";
        let (yaml, markdown) = split(card);
        assert_eq!(markdown, "# Hi\n");
        let map = read_yaml(yaml.unwrap()).unwrap();
        assert_eq!(map["x"], json!({"y": [1, 2.5, true, null]}));
        assert_eq!(map["no"], "12");
        let summary = summary(&map, &["gguf"]);
        assert_eq!(summary.tags, ["a", "b c", "en", "gguf", "license:apache-2.0"]);
        assert_eq!(split("# no block"), (None, "# no block"));
        assert_eq!(split("---\nnever closed"), (None, "---\nnever closed"));
    }

    #[test]
    fn hostile_yaml_is_refused() {
        let laughs = "a: &a [x, x]\nb: [*a, *a]\n";
        assert_eq!(
            read_yaml(laughs),
            Err(CardError::Unsupported("aliases (*name) are not accepted"))
        );
        assert!(matches!(
            read_yaml(&"[".repeat(10_000)),
            Err(CardError::Limit { .. } | CardError::Yaml(_))
        ));
        assert!(matches!(
            read_yaml(&"- a\n".repeat(30_000)),
            Err(CardError::Limit { .. })
        ));
        assert!(matches!(read_yaml(&"x".repeat(300_000)), Err(CardError::Limit { .. })));
        for bad in ["a: 1\na: 2", "- a", "just text", "a: [", "\t"] {
            assert!(read_yaml(bad).is_err() || read_yaml(bad).unwrap().is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn nothing_in_a_card_runs() {
        let markdown = "<script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n[a](javascript:alert(1)) \
             [b](JaVaScript:alert(1)) [c](data:text/html,x) [d](//evil) ![e](https://evil/x.png) [f](https://ok/) \
             [g](vbscript:x) <javascript:alert(1)> [h](java\tscript:x) [i](\"onmouseover=\"alert(1)) [j][r]\n\n\
             [r]: javascript:alert(1) \"t\" onclick=x\n\n```x\" onload=\"alert(1)\n</pre><script>\n```\n";
        let html = render(markdown);
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        assert!(html.contains("&lt;script&gt;"));
        for (at, _) in html.match_indices("href=\"") {
            let target = html[at + 6..].split('"').next().unwrap();
            assert!(
                target == "#" || target.starts_with("https://") || !target.contains(':'),
                "{target}"
            );
        }
        // Every attribute is one the renderer writes itself.
        for tag in html.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
            for word in tag.split_whitespace().skip(1) {
                assert!(!word.starts_with("on"), "{tag}");
            }
        }
    }
}
