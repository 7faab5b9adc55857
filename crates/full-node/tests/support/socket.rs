//! A WebSocket client of a few lines: small unfragmented text frames are all that the tests need.

use serde_json::Value;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub struct Socket(TcpStream);

impl Socket {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    pub async fn send(&mut self, value: &Value) {
        let body = value.to_string();
        let mut frame = vec![0x81];
        match body.len() {
            n @ 0..=125 => frame.push(0x80 | n as u8),
            n => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(n as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]); // a mask of zeros changes nothing
        frame.extend_from_slice(body.as_bytes());
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next text message.
    pub async fn next(&mut self) -> Value {
        loop {
            let kind = self.0.read_u8().await.unwrap() & 0x0f;
            let len = match self.0.read_u8().await.unwrap() & 0x7f {
                126 => u64::from(self.0.read_u16().await.unwrap()),
                127 => self.0.read_u64().await.unwrap(),
                n => u64::from(n),
            };
            let mut body = vec![0; len as usize];
            self.0.read_exact(&mut body).await.unwrap();
            if kind == 1 {
                return serde_json::from_slice(&body).unwrap();
            }
        }
    }

    /// The answer to a call; events before it are dropped.
    pub async fn call(&mut self, value: &Value) -> Value {
        self.send(value).await;
        loop {
            let message = self.next().await;
            if message.get("id") == value.get("id") {
                return message;
            }
        }
    }
}
