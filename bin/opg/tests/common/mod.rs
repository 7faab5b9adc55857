//! What every test of the binary asks of its output.
#![allow(dead_code, unreachable_pub)]

use std::process::Output;

#[track_caller]
pub fn expect(output: &Output, code: i32) -> (String, String) {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(output.status.code(), Some(code), "stdout:\n{stdout}\nstderr:\n{stderr}");
    (stdout, stderr)
}

/// A failure is one line on stderr that says what was wrong, and nothing on stdout.
#[track_caller]
pub fn expect_error(output: &Output, code: i32, words: &[&str]) {
    let (stdout, stderr) = expect(output, code);
    assert!(stdout.is_empty(), "{stdout}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{stderr} does not say {word}");
    }
}
