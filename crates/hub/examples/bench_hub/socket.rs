//! HTTP over a plain socket: what a client costs at least.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

const BUFFER: usize = 1 << 20;

/// Begins a request. The answer ends with the connection.
fn begin(url: &str, method: &str, header: &str) -> TcpStream {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (address, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(address).expect("a connection");
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{header}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a reader");
    stream
}

/// Reads an answer to its end: its head, and how many bytes follow it.
fn read(mut stream: TcpStream) -> (String, u64) {
    let mut buffer = vec![0; BUFFER];
    let (mut got, mut head, mut body) = (0, None, 0);
    loop {
        let n = stream.read(&mut buffer[got..]).expect("bytes");
        if n == 0 {
            break;
        }
        if head.is_some() {
            body += n as u64;
            continue;
        }
        got += n;
        if let Some(end) = buffer[..got].windows(4).position(|end| end == b"\r\n\r\n") {
            head = Some(String::from_utf8_lossy(&buffer[..end]).into_owned());
            body = (got - end - 4) as u64;
            got = 0;
        }
    }
    let head = head.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (head, body)
}

/// Reads what is at a URL to its end and returns how many bytes it has.
pub(crate) fn get(url: &str, token: &str) -> u64 {
    read(begin(url, "GET", &format!("Authorization: Bearer {token}"))).1
}

/// Sends `size` bytes to a URL and returns the tag of what was stored, if it has one.
pub(crate) fn put(url: &str, size: u64, send: impl FnOnce(&mut TcpStream)) -> Option<String> {
    let mut stream = begin(url, "PUT", &format!("Content-Length: {size}"));
    send(&mut stream);
    let (head, _) = read(stream);
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("etag"))
        .map(|(_, tag)| tag.to_owned())
}
