//! A file as it is, hashed while it arrives: of sources that know no verified ranges, and of models whose root commits to
//! SHA-256 alone. What is wrong shows at the end.

use crate::{
    fetch::{ATTEMPTS, FetchError, IDLE_ATTEMPTS, PAUSE, PIECES, Pace, SILENCE, Trouble, cause, refusal},
    write_behind::WriteBehind,
};
use bytes::Bytes;
use opg_models::{FileEntry, FileHasher};
use reqwest::{Client, StatusCode, Url, header};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

const BUFFER: usize = 1 << 20;

/// One file on its way here, from one source or several.
pub(crate) struct Transfer {
    part: PathBuf,
    expected: FileEntry,
    /// Who sent the bytes of the part, as far as this process knows.
    senders: BTreeMap<String, u64>,
    /// Whether some of it came in an earlier run, from whom nobody knows.
    earlier: bool,
}

/// How a stream ended.
struct Written {
    /// Bytes of the part now.
    length: u64,
    /// Whether the source sent more than the file has.
    surplus: bool,
    /// Whether the part is whole and has its hash; it is then flushed.
    good: bool,
}

impl Transfer {
    pub(crate) fn new(part: PathBuf, expected: FileEntry) -> Self {
        let earlier = std::fs::metadata(&part).is_ok_and(|meta| meta.len() > 0);
        Self {
            part,
            expected,
            senders: BTreeMap::new(),
            earlier,
        }
    }

    fn file_error(&self, source: io::Error) -> Trouble {
        Trouble::Local(FetchError::File {
            path: self.part.clone(),
            source,
        })
    }

    /// Begins anew: nothing is known about the bytes that were there.
    async fn discard(&mut self) -> Result<(), Trouble> {
        self.senders.clear();
        self.earlier = false;
        match tokio::fs::remove_file(&self.part).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.file_error(error)),
            _ => Ok(()),
        }
    }

    /// Gets what is missing from one source.
    pub(crate) async fn run(&mut self, http: &Client, url: &Url, bytes: &mut u64) -> Result<(), Trouble> {
        let (mut idle, mut reason) = (0, String::new());
        for _ in 0..ATTEMPTS {
            let have = tokio::fs::metadata(&self.part).await.map_or(0, |meta| meta.len());
            let have = if have > self.expected.size {
                self.discard().await?;
                0
            } else {
                have
            };
            let before = *bytes;
            match self.attempt(http, url, have, bytes).await {
                Ok(written) if written.good => return Ok(()),
                Ok(written) if written.surplus || written.length == self.expected.size => {
                    let alone = !self.earlier && self.senders.keys().all(|sender| sender == url.as_str());
                    self.discard().await?;
                    if alone {
                        return Err(Trouble::Lied(format!(
                            "sent bytes that do not have SHA-256 {}",
                            hex::encode(self.expected.sha256)
                        )));
                    }
                    // Somebody of several sent a wrong byte. This one now sends all of it.
                    tracing::warn!(part = %self.part.display(), "a file that came from several sources is wrong; it is fetched anew from one");
                    continue;
                }
                Ok(_) => reason = "the transfer broke off".into(),
                Err(Trouble::Failed(why)) => reason = why,
                Err(trouble) => return Err(trouble),
            }
            if *bytes > before {
                idle = 0;
            } else {
                idle += 1;
                if idle == IDLE_ATTEMPTS {
                    break;
                }
            }
            sleep(PAUSE).await;
        }
        Err(Trouble::Failed(reason))
    }

    /// One request for everything from `have` on.
    async fn attempt(&mut self, http: &Client, url: &Url, have: u64, bytes: &mut u64) -> Result<Written, Trouble> {
        let mut start = have;
        let mut answer = None;
        // A part that is as long as the file only has to be hashed.
        if have < self.expected.size || have == 0 {
            let mut request = http.get(url.clone());
            if have > 0 {
                request = request.header(header::RANGE, format!("bytes={have}-"));
            }
            let sent = timeout(SILENCE, request.send())
                .await
                .map_err(|_| Trouble::Failed("no answer".into()))?
                .map_err(|error| Trouble::Failed(cause(&error)))?;
            match sent.status() {
                StatusCode::OK => start = 0,
                StatusCode::PARTIAL_CONTENT if have > 0 => {
                    let range = sent.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
                    if !range.is_some_and(|range| range.starts_with(&format!("bytes {have}-"))) {
                        return Err(Trouble::Failed("sent another range than asked for".into()));
                    }
                }
                _ => return Err(refusal(sent).await),
            }
            answer = Some(sent);
        }
        if start == 0 {
            self.discard().await?;
        }
        let (sender, pieces) = mpsc::channel::<Bytes>(PIECES);
        let (part, expected) = (self.part.clone(), self.expected.clone());
        let writer = tokio::task::spawn_blocking(move || write(&part, start, &expected, pieces));
        if let Some(mut answer) = answer {
            let mut pace = Pace::new();
            // An answer that ends early shows as a part that is too short.
            while let Ok(Ok(Some(piece))) = timeout(SILENCE, answer.chunk()).await {
                let length = piece.len() as u64;
                *bytes = bytes.saturating_add(length);
                *self.senders.entry(url.to_string()).or_default() += length;
                if sender.send(piece).await.is_err() {
                    break;
                }
                if !pace.goes_on(length) {
                    break;
                }
            }
        }
        drop(sender);
        writer
            .await
            .map_err(|error| self.file_error(io::Error::other(error)))?
            .map_err(|error| self.file_error(error))
    }
}

/// Hashes what is there, then writes and hashes what comes. Blocks.
fn write(part: &Path, start: u64, expected: &FileEntry, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Written> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(part)?;
    file.set_len(start)?;
    let mut hasher = FileHasher::like(expected);
    if start > 0 {
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = file.read(&mut buffer)?;
            match buffer.get(..n) {
                Some(bytes) if !bytes.is_empty() => hasher.update(bytes),
                _ => break,
            };
        }
    }
    let behind = WriteBehind::new(file.try_clone()?);
    let (mut length, mut surplus) = (start, false);
    while let Some(piece) = pieces.blocking_recv() {
        if length.saturating_add(piece.len() as u64) > expected.size {
            surplus = true;
            break;
        }
        hasher.update(&piece);
        behind.write(&piece, length)?;
        length += piece.len() as u64;
    }
    let good = !surplus && hasher.finish(&expected.path) == *expected;
    if good {
        behind.finish()?;
    }
    Ok(Written { length, surplus, good })
}
