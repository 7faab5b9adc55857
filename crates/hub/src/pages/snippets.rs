//! Lines that work when pasted. Names of files come from whoever uploads them and may have any sign that means something
//! to a shell, so every value is quoted for the language that it is written in.

use super::{
    layout::encode_path,
    model::{Standing, View},
};
use crate::{http::llama, inspect::Model, names::RepoKind, validate::ModelFormat};
use maud::{Markup, html};

/// A value as one word of a POSIX shell. Plain words stay as they are.
fn shell(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// A value as a string literal of Python.
fn python(value: &str) -> String {
    let mut literal = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => literal.extend(['\\', c]),
            c if c.is_control() => literal.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => literal.push(c),
        }
    }
    literal.push('"');
    literal
}

/// What the lines are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Shell,
    Python,
}

/// Lines with what they are for.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    title: &'static str,
    language: Language,
    text: String,
}

/// The repository that the lines are about.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    /// The hub's own URL.
    url: &'a str,
    kind: RepoKind,
    /// `owner/name`.
    name: &'a str,
    /// Whether a token is needed.
    closed: bool,
}

impl Source<'_> {
    /// A block whose programs know the hub, and have a token where one is needed.
    fn shell(self, title: &'static str, lines: &[String]) -> Block {
        let mut text = format!("export HF_ENDPOINT={}\n", shell(self.url));
        if self.closed {
            text.push_str("export HF_TOKEN=$(opg hub token)\n");
        }
        text.push_str(&lines.join("\n"));
        Block {
            title,
            language: Language::Shell,
            text,
        }
    }

    /// What `curl` sends where a token is needed.
    const fn bearer(self) -> &'static str {
        if self.closed {
            " -H \"Authorization: Bearer $HF_TOKEN\""
        } else {
            ""
        }
    }

    /// `hf download` of everything.
    fn everything(self) -> Block {
        let kind = match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => " --repo-type dataset",
        };
        let download = format!("hf download {}{kind}", shell(self.name));
        self.shell(
            "Download everything:",
            &["pip install huggingface_hub".into(), download],
        )
    }

    /// `curl` of one file, into the directory where it runs.
    fn one_file(self, path: &str) -> Block {
        let url = format!(
            "{}/{}{}/resolve/main/{}",
            self.url,
            self.kind.url_prefix(),
            self.name,
            encode_path(path)
        );
        let token = self.bearer();
        let folders = if path.contains('/') { " --create-dirs" } else { "" };
        // With a folder in front, a name that begins with a hyphen is no option. -g: braces in a name are its own.
        let to = shell(&format!("./{path}"));
        self.shell(
            "One file:",
            &[format!("curl -fLg{token}{folders} -o {to} {}", shell(&url))],
        )
    }

    /// The same in Python.
    fn one_file_in_python(self, path: &str) -> Block {
        let token = if self.closed {
            "os.environ[\"HF_TOKEN\"] = \"hf_...\"  # of: opg hub token\n"
        } else {
            ""
        };
        let kind = match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => ", repo_type=\"dataset\"",
        };
        let text = format!(
            "import os\nos.environ[\"HF_ENDPOINT\"] = {}\n{token}from huggingface_hub import hf_hub_download\n\
             print(hf_hub_download({}, {}{kind}))",
            python(self.url),
            python(self.name),
            python(path)
        );
        Block {
            title: "One file, in Python:",
            language: Language::Python,
            text,
        }
    }

    /// llama.cpp: by name and tag where that means this file, else from a download.
    fn llama(self, paths: &[&str], file: &str) -> Block {
        let means = |tag: &str| llama::choose(paths, tag) == Some(file);
        let tagged = quantization(file).filter(|tag| means(tag));
        let lines = if let Some(tag) = tagged {
            vec![format!("llama-cli -hf {}", shell(&format!("{}:{tag}", self.name)))]
        } else if means(llama::ANY) {
            vec![format!("llama-cli -hf {}", shell(self.name))]
        } else {
            vec![
                // Behind two hyphens nothing is an option.
                format!("hf download {} --local-dir . -- {}", shell(self.name), shell(file)),
                format!("llama-cli -m {}", shell(&format!("./{file}"))),
            ]
        };
        self.shell("llama.cpp:", &lines)
    }

    /// Hashes of all files, and roots.
    fn names(self) -> Block {
        let token = self.bearer();
        let url = format!("{}/api/opg/models/{}/manifest", self.url, self.name);
        self.shell(
            "Its names on the network, and hashes:",
            &[format!("curl -fg{token} {}", shell(&url))],
        )
    }

    /// A paid answer of a registered model.
    fn paid(self, root: &str, format: ModelFormat) -> Block {
        let mut lines = vec![format!("opg models show {}", shell(root))];
        // The input of other formats is not known here.
        if format == ModelFormat::Gguf {
            lines.push(format!("opg chat {} Hello --max-tokens 32", shell(root)));
        }
        self.shell("Terms and nodes, and a paid, checked answer:", &lines)
    }
}

/// The quantization that the name of a GGUF file ends in: the tag by which llama.cpp finds it.
fn quantization(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?.strip_suffix(".gguf")?;
    name.rsplit(['-', '.']).find(|word| {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let letters = word.strip_suffix(digits).unwrap_or_default().to_ascii_uppercase();
        ["Q", "IQ", "TQ", "F", "BF", "MXFP"].contains(&letters.as_str())
            && digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// The file to show a download of: a model, or a configuration, or any.
fn main_file<'a>(paths: &[&'a str], models: &'a [Model]) -> Option<&'a str> {
    let servable = models.iter().find(|model| model.report.servable);
    servable
        .map(|model| model.path.as_str())
        .or_else(|| paths.iter().copied().find(|path| *path == "config.json"))
        .or_else(|| paths.iter().copied().find(|path| !path.starts_with('.')))
}

/// The panel with the blocks that fit a repository.
pub(super) fn panel(url: &str, view: &View, models: &[Model], standing: &Standing) -> Markup {
    let name = view.repo.name.to_string();
    let source = Source {
        url,
        kind: view.repo.kind,
        name: &name,
        closed: view.repo.private || view.repo.gated != "false",
    };
    let paths: Vec<&str> = view.files.keys().map(String::as_str).collect();
    let mut blocks = vec![source.everything()];
    if let Some(file) = main_file(&paths, models) {
        blocks.extend([source.one_file(file), source.one_file_in_python(file)]);
    }
    if view.repo.kind == RepoKind::Model {
        let servable = |path: &str| {
            let found = models.iter().find(|model| model.path == path);
            found.is_some_and(|model| model.report.servable && model.report.format == ModelFormat::Gguf)
        };
        let usual = llama::choose(&paths, llama::ANY).filter(|path| servable(path));
        if let Some(file) = usual.or_else(|| paths.iter().copied().find(|path| servable(path))) {
            blocks.push(source.llama(&paths, file));
        }
        if models.iter().any(|model| model.named.is_some()) {
            blocks.push(source.names());
        }
        let registered = models
            .iter()
            .find_map(|model| Some((model, standing.get(&model.path)?)));
        if let Some((model, standing)) = registered {
            blocks.push(source.paid(&standing.root.to_string(), model.report.format));
        }
    }
    html! {
        section class="panel" {
            h2 { "Use it" }
            @if source.closed {
                p class="soft" { "A token of an account with access is needed; " code { "opg hub token" } " makes one." }
            }
            @for block in &blocks {
                p class="soft" { (block.title) }
                pre data-language=(match block.language { Language::Shell => "sh", Language::Python => "python" }) { (block.text) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source<'static> = Source {
        url: "https://hub.example",
        kind: RepoKind::Model,
        name: "alice/tiny",
        closed: false,
    };

    #[test]
    fn words_stay_one_word() {
        for (value, word) in [
            ("https://hub.example:8700", "https://hub.example:8700"),
            ("a-Q8_0.gguf", "a-Q8_0.gguf"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(x)`y`", "'$(x)`y`'"),
            ("it's; rm", r"'it'\''s; rm'"),
            ("~", "'~'"),
            ("{a,b}!c#d&", "'{a,b}!c#d&'"),
            ("ü", "'ü'"),
        ] {
            assert_eq!(shell(value), word);
        }
        for (value, literal) in [
            ("a", r#""a""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("a\n'{x}", r#""a\u000a'{x}""#),
        ] {
            assert_eq!(python(value), literal);
        }
    }

    #[test]
    fn shells_read_back_what_was_quoted() {
        for value in [
            "x; touch pwned; '$(touch pwned2)'.gguf",
            "-n \\ ''' $HOME `id` !! *",
            "#a & b | c > d < e",
        ] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", shell(value))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }

    #[test]
    fn quantizations_are_found_in_names() {
        for (path, tag) in [
            ("tiny-llama-Q8_0.gguf", Some("Q8_0")),
            ("q/model.IQ4_XS-00001-of-00003.gguf", Some("IQ4_XS")),
            ("a-UD-Q4_K_XL.gguf", Some("Q4_K_XL")),
            ("a-bf16.gguf", Some("bf16")),
            ("Qwen3-F.gguf", None),
            ("tiny.gguf", None),
            ("a-Q8_0.onnx", None),
        ] {
            assert_eq!(quantization(path), tag, "{path}");
        }
    }

    #[test]
    fn llama_takes_a_tag_only_where_it_means_the_file() {
        let paths = ["a-F16.gguf", "a-Q8_0.gguf", "b.gguf", "b-Q8_0.gguf"];
        let line = |file: &str| SOURCE.llama(&paths, file).text;
        let head = "export HF_ENDPOINT=https://hub.example\n";
        assert_eq!(line("a-F16.gguf"), format!("{head}llama-cli -hf alice/tiny:F16"));
        assert_eq!(line("a-Q8_0.gguf"), format!("{head}llama-cli -hf alice/tiny:Q8_0"));
        // The tag means another file.
        let local = "hf download alice/tiny --local-dir . -- b-Q8_0.gguf\nllama-cli -m ./b-Q8_0.gguf";
        assert_eq!(line("b-Q8_0.gguf"), format!("{head}{local}"));
        assert!(line("b.gguf").contains("-- b.gguf\n"));
        let only = SOURCE.llama(&["x y.gguf"], "x y.gguf").text;
        assert_eq!(only, format!("{head}llama-cli -hf alice/tiny"));
    }

    #[test]
    fn closed_repositories_need_a_token() {
        let closed = Source { closed: true, ..SOURCE };
        for block in [
            closed.everything(),
            closed.one_file("a"),
            closed.names(),
            closed.llama(&["a.gguf"], "a.gguf"),
        ] {
            assert!(block.text.contains("\nexport HF_TOKEN=$(opg hub token)\n"), "{block:?}");
        }
        assert!(closed.one_file_in_python("a").text.contains("os.environ[\"HF_TOKEN\"]"));
        assert!(!SOURCE.one_file_in_python("a").text.contains("HF_TOKEN"));
        assert!(
            closed
                .one_file("a")
                .text
                .contains("-H \"Authorization: Bearer $HF_TOKEN\"")
        );
    }
}
