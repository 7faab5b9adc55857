//! Requests sealed to a node's attested key: Oblivious HTTP (RFC 9458, chunked), straight to the node or through a relay.
//!
//! The key is that of the keyset which the chain knows, and the chain must hold evidence of the keyset that counts now. Who
//! carries the bytes sees their length and time; a relay sees the client's address and not the request, the node the request and
//! not the client's address. That holds as long as the two do not pool what they see.

use std::{collections::VecDeque, time::Duration};

use crate::{
    Client, ClientError,
    network::NodeEntry,
    pay::{Job, now, refusal},
    rpc::root_cause,
    wallet::random_bytes,
};
use opg_contracts::{EvidenceRegistry, addresses};
use opg_payments::x402::PAYMENT_SIGNATURE;
use opg_primitives::{
    ids::{Keyset, NodeId},
    mode::Grade,
};
use opg_sealed::{
    PublicKey, ResponseOpener, SealedError, Suite,
    bhttp::{self, Field, ResponseDecoder, ResponseEvent},
    ohttp::{self, KeyConfig},
};

/// Identifier under which a node has its key.
const KEY_ID: u8 = 1;
/// Sealed requests are padded to multiples of this many bytes.
const PADDING: usize = 1_024;

/// Time until the head of an answer, as for answers in the clear.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// How a request reaches the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Via {
    /// In the clear to the node, but for the transport's own encryption.
    #[default]
    Plain,
    /// Sealed, straight to the node.
    Sealed,
    /// Sealed, through the relay at this URL.
    Relay(String),
}

/// A key that the chain vouches for.
#[derive(Debug, Clone, Copy)]
pub struct AttestedKey {
    /// The registered keyset.
    pub keyset: Keyset,
    /// Grade of its evidence.
    pub grade: Grade,
}

fn broken(error: SealedError) -> ClientError {
    ClientError::NodeAnswer {
        what: format!("the sealed answer: {error}"),
    }
}

impl Client {
    /// The keyset of a node, if it has a key for sealed requests and evidence on chain that counts now.
    ///
    /// # Errors
    /// [`ClientError::Proof`] if the node's keys are not the registered ones, or not attested.
    pub async fn attested_key(&self, node: &NodeEntry) -> Result<AttestedKey, ClientError> {
        let refuse = |what: String| ClientError::Proof { what };
        let published: Keyset = self.published_keyset(&node.url).await?;
        let digest = published.digest();
        let (registered, keyset) = self
            .keyset(digest, &node.url)
            .await?
            .ok_or_else(|| refuse(format!("keyset {digest} of the node is not registered")))?;
        if keyset.node_id != NodeId(node.id) || registered.revoked {
            return Err(refuse(format!("keyset {digest} is revoked, or another node's")));
        }
        if keyset.hpke_key.is_zero() {
            return Err(refuse("the node has no key for sealed requests".into()));
        }
        let registry = addresses::EVIDENCE_REGISTRY;
        let id = self
            .view(registry, EvidenceRegistry::latestCall { keyset: digest.0 })
            .await?;
        let until = self.view(registry, EvidenceRegistry::validUntilCall { evidenceId: id });
        let record = self.view(registry, EvidenceRegistry::evidenceCall { evidenceId: id });
        let (until, record) = futures::try_join!(until, record)?;
        if until.to::<u64>() < now() {
            return Err(refuse(format!(
                "keyset {digest} has no attestation evidence that counts now"
            )));
        }
        let grade = Grade::from_code(u64::from(record.grade)).unwrap_or(Grade::None);
        if grade == Grade::None || (grade == Grade::Simulated && !self.network().genesis.development) {
            return Err(refuse(format!(
                "evidence of grade {grade} does not count on this chain"
            )));
        }
        Ok(AttestedKey { keyset, grade })
    }

    /// Sends a request sealed, and gives the answer as if it had come in the clear. Its body is authentic piece by piece, and ends
    /// with an error if the end was cut off.
    pub(crate) async fn post_sealed(
        &self,
        node: &NodeEntry,
        job: &Job,
        payment: Option<&str>,
    ) -> Result<reqwest::Response, ClientError> {
        let url = match &job.via {
            Via::Relay(relay) => format!("{}/ohttp/{}", relay.trim_end_matches('/'), node.id),
            Via::Plain | Via::Sealed => format!("{}/ohttp", node.url),
        };
        let key = self.attested_key(node).await?;
        let config = KeyConfig {
            key_id: KEY_ID,
            key: PublicKey(key.keyset.hpke_key.0),
            suites: vec![Suite::Aes256Gcm],
        };
        let mut headers = vec![Field::new("content-type", b"application/json".to_vec()).map_err(broken)?];
        if let Some(header) = payment {
            headers.push(Field::new(PAYMENT_SIGNATURE.to_ascii_lowercase(), header.as_bytes()).map_err(broken)?);
        }
        let request = bhttp::Request {
            method: "POST".into(),
            scheme: "https".into(),
            path: job.path.into(),
            headers,
            body: job.body.to_vec(),
            ..bhttp::Request::default()
        };
        let entropy = random_bytes()?;
        let (mut bytes, mut sealer, opener) = ohttp::Client::new(&config, Suite::Aes256Gcm)
            .and_then(|client| client.start(&entropy))
            .map_err(broken)?;
        let request = request.to_bytes(PADDING).map_err(broken)?;
        bytes.extend(sealer.finish(&request).map_err(broken)?);
        let sent = self.http.post(&url).header("content-type", ohttp::CHUNKED_REQUEST_TYPE);
        let response = sent
            .body(bytes)
            .send()
            .await
            .map_err(|error| ClientError::NodeUnreachable {
                url: url.clone(),
                reason: root_cause(&error),
            })?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let sealed = Sealed {
            response,
            opener,
            decoder: ResponseDecoder::new(),
            ready: VecDeque::new(),
            ended: false,
        };
        // A part that never comes must not keep the caller for ever; the stream after the head has the caller's own bound.
        tokio::time::timeout(HEAD_TIMEOUT, sealed.open())
            .await
            .map_err(|_| ClientError::NodeUnreachable {
                url,
                reason: format!("no answer within {} s", HEAD_TIMEOUT.as_secs()),
            })?
    }
}

/// A sealed answer on its way.
struct Sealed {
    response: reqwest::Response,
    opener: ResponseOpener,
    decoder: ResponseDecoder,
    /// Opened parts of the content that were not handed out yet.
    ready: VecDeque<Vec<u8>>,
    ended: bool,
}

/// Status and header fields of an answer.
type Head = (u16, Vec<Field>);

impl Sealed {
    /// Takes the next piece; gives the head when it is complete. At the end, checks that this is the end.
    async fn advance(&mut self) -> Result<Option<Head>, String> {
        let piece = self.response.chunk().await.map_err(|error| root_cause(&error))?;
        let opened = match piece {
            Some(piece) => self.opener.push(&piece).map_err(|error| error.to_string())?.concat(),
            None => {
                self.ended = true;
                self.opener.finish().map_err(|error| error.to_string())?
            }
        };
        let mut head = None;
        for event in self.decoder.push(&opened).map_err(|error| error.to_string())? {
            match event {
                ResponseEvent::Head { status, headers, .. } => head = Some((status, headers)),
                ResponseEvent::Content(content) => self.ready.push_back(content),
            }
        }
        if self.ended {
            let decoder = std::mem::take(&mut self.decoder);
            decoder.finish().map_err(|error| error.to_string())?;
        }
        Ok(head)
    }

    /// The answer as if it had come in the clear: the head now, the content as it comes.
    async fn open(mut self) -> Result<reqwest::Response, ClientError> {
        let answer = |what: String| ClientError::NodeAnswer {
            what: format!("the sealed answer: {what}"),
        };
        let (status, headers) = loop {
            if self.ended {
                return Err(answer("it ended before its head".into()));
            }
            if let Some(head) = self.advance().await.map_err(answer)? {
                break head;
            }
        };
        let mut built = http::Response::builder().status(status);
        for field in &headers {
            built = built.header(field.name(), field.value());
        }
        let content = futures::stream::try_unfold(self, async |mut sealed: Self| {
            while sealed.ready.is_empty() && !sealed.ended {
                sealed.advance().await.map_err(std::io::Error::other)?;
            }
            Ok::<_, std::io::Error>(sealed.ready.pop_front().map(|part| (part, sealed)))
        });
        let body = reqwest::Body::wrap_stream(content);
        let response = built.body(body).map_err(|error| answer(error.to_string()))?;
        Ok(response.into())
    }
}
