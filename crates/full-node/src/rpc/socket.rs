//! WebSocket: the same calls as over HTTP, and `eth_subscribe`.

use super::{
    Front, logs,
    message::{self, Batch, Call, LIMIT, Params, RpcError, UNSUPPORTED, answer, hex_value, number, quantity},
};
use alloy_primitives::B256;
use axum::{
    extract::{
        WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use futures::{SinkExt as _, StreamExt as _};
use logs::Criteria;
use opg_execution::FinalizedBlock;
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::{broadcast, mpsc};

/// Answers and events that may wait for a slow client before it is disconnected.
const MAX_WAITING: usize = 1_024;
/// Calls of one connection that run at once.
const MAX_RUNNING: usize = 32;
/// A connection without traffic gets a ping after this time, and is closed when no answer came by the next.
const PING: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq)]
enum Subscription {
    Heads,
    Logs(Criteria),
    Pending,
    Syncing,
}

impl Front {
    pub(super) fn upgrade(self: &Arc<Self>, socket: WebSocketUpgrade, address: IpAddr) -> Response {
        let Ok(permit) = self.sockets.clone().try_acquire_owned() else {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                "too many WebSocket connections on this node",
            )
                .into_response();
        };
        let (front, max) = (self.clone(), self.node.limits.rpc_og_body);
        socket
            .max_message_size(max)
            .max_frame_size(max)
            .on_upgrade(move |socket| async move {
                front.node.metrics.ws_connections.inc();
                front.converse(socket, address).await;
                front.node.metrics.ws_connections.dec();
                drop(permit);
            })
    }

    async fn converse(self: &Arc<Self>, socket: WebSocket, address: IpAddr) {
        let (mut sink, mut stream) = socket.split();
        let (out, mut waiting) = mpsc::channel::<Value>(MAX_WAITING);
        let (mut finalized, mut pending) = (self.node.execution.subscribe_finalized(), self.node.pending.subscribe());
        let mut subscriptions: BTreeMap<u64, Subscription> = BTreeMap::new();
        let running = Arc::new(tokio::sync::Semaphore::new(MAX_RUNNING));
        let mut ping = tokio::time::interval(PING);
        let mut silent = 0;
        loop {
            let event = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    let _ = sink.send(Message::Close(None)).await;
                    return;
                }
                Some(value) = waiting.recv() => {
                    if sink.send(Message::Text(value.to_string().into())).await.is_err() {
                        return;
                    }
                    continue;
                }
                block = finalized.recv() => match block {
                    Ok(block) => block_events(&subscriptions, &block),
                    // a client that misses events must know: close, it will connect again
                    Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => return,
                },
                hash = pending.recv() => match hash {
                    Ok(hash) => pending_events(&subscriptions, hash),
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                incoming = stream.next() => {
                    let Some(Ok(incoming)) = incoming else { return };
                    silent = 0;
                    let body = match &incoming {
                        Message::Text(text) => text.as_bytes(),
                        Message::Binary(bytes) => bytes.as_ref(),
                        Message::Close(_) => return,
                        Message::Ping(_) | Message::Pong(_) => continue,
                    };
                    match self.admit(address, self.cost(body)) {
                        Err((_, error)) => vec![answer(Value::Null, Err(error))],
                        Ok(()) => match self.own_call(body, &mut subscriptions) {
                            Some(answers) => answers,
                            None => {
                                // calls run beside the events, a bounded number of them
                                let Ok(permit) = running.clone().acquire_owned().await else { return };
                                let (front, out, body) = (self.clone(), out.clone(), body.to_vec());
                                tokio::spawn(async move {
                                    if let Some(answer) = front.handle(&body).await {
                                        let _ = out.send(answer).await; // the connection may be gone
                                    }
                                    drop(permit);
                                });
                                continue;
                            }
                        },
                    }
                }
                _ = ping.tick() => {
                    silent += 1;
                    if silent > 2 || sink.send(Message::Ping(Default::default())).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            for value in event {
                let sent = tokio::time::timeout(PING, sink.send(Message::Text(value.to_string().into()))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }

    /// Handles a single `eth_subscribe` or `eth_unsubscribe`; `None` for everything else.
    fn own_call(&self, body: &[u8], subscriptions: &mut BTreeMap<u64, Subscription>) -> Option<Vec<Value>> {
        if body.len() > self.node.limits.rpc_body {
            return None;
        }
        let Ok(Batch::Single(Ok(Call { id, method, params }))) = message::parse(body, 1) else {
            return None;
        };
        let id = id.unwrap_or(Value::Null);
        match method.as_str() {
            "eth_subscribe" => Some(match self.subscribe(&Params(&params), subscriptions) {
                Ok((subscription, Subscription::Syncing)) => {
                    vec![
                        answer(id, Ok(quantity(subscription))),
                        event(subscription, Value::Bool(false)),
                    ]
                }
                Ok((subscription, _)) => vec![answer(id, Ok(quantity(subscription)))],
                Err(error) => vec![answer(id, Err(error))],
            }),
            "eth_unsubscribe" => {
                let result = match params.first().and_then(number) {
                    Some(subscription) => Ok(Value::Bool(subscriptions.remove(&subscription).is_some())),
                    None => Err(RpcError::field(
                        "subscription",
                        "a subscription id",
                        params.first().map_or("nothing".into(), Value::to_string),
                    )),
                };
                Some(vec![answer(id, result)])
            }
            _ => None,
        }
    }

    fn subscribe(
        &self,
        p: &Params<'_>,
        subscriptions: &mut BTreeMap<u64, Subscription>,
    ) -> Result<(u64, Subscription), RpcError> {
        let max = self.node.limits.ws_subscriptions;
        if subscriptions.len() >= max {
            return Err(RpcError::new(
                LIMIT,
                format!("at most {max} subscriptions for one connection"),
            ));
        }
        let subscription = parse_subscription(p)?;
        let id = super::eth::random_id()?;
        subscriptions.insert(id, subscription.clone());
        Ok((id, subscription))
    }
}

fn parse_subscription(p: &Params<'_>) -> Result<Subscription, RpcError> {
    p.at_most(2)?;
    match p.text(0, "subscription")? {
        "newHeads" => Ok(Subscription::Heads),
        "logs" => Ok(Subscription::Logs(Criteria::parse(p.get(1))?)),
        "newPendingTransactions" if p.get(1) == Some(&Value::Bool(true)) => Err(RpcError::with_field(
            UNSUPPORTED,
            "full pending transactions are not available",
            "params[1]",
            "false or nothing; fetch by eth_getTransactionByHash",
            "true",
        )),
        "newPendingTransactions" => Ok(Subscription::Pending),
        "syncing" => Ok(Subscription::Syncing),
        other => Err(RpcError::field(
            "subscription",
            "newHeads, logs, newPendingTransactions or syncing",
            other,
        )),
    }
}

fn event(subscription: u64, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": "eth_subscription", "params": { "subscription": quantity(subscription), "result": result } })
}

fn block_events(subscriptions: &BTreeMap<u64, Subscription>, block: &FinalizedBlock) -> Vec<Value> {
    let mut events = Vec::new();
    for (id, subscription) in subscriptions {
        match subscription {
            Subscription::Heads => events.push(event(*id, block.header.clone())),
            Subscription::Logs(criteria) => {
                events.extend(logs::matching(block, criteria).into_iter().map(|log| event(*id, log)))
            }
            Subscription::Pending | Subscription::Syncing => {}
        }
    }
    events
}

fn pending_events(subscriptions: &BTreeMap<u64, Subscription>, hash: B256) -> Vec<Value> {
    subscriptions
        .iter()
        .filter(|(_, s)| **s == Subscription::Pending)
        .map(|(id, _)| event(*id, hex_value(hash)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_parsed_or_refused_by_name() {
        let parse = |values: &[Value]| parse_subscription(&Params(values));
        assert_eq!(parse(&[json!("newHeads")]).unwrap(), Subscription::Heads);
        assert_eq!(
            parse(&[json!("newPendingTransactions"), json!(false)]).unwrap(),
            Subscription::Pending
        );
        assert_eq!(
            parse(&[json!("logs"), json!({})]).unwrap(),
            Subscription::Logs(Criteria::default())
        );
        assert_eq!(
            parse(&[json!("newPendingTransactions"), json!(true)]).unwrap_err().code,
            UNSUPPORTED
        );
        for bad in [
            vec![],
            vec![json!(5)],
            vec![json!("heads")],
            vec![json!("logs"), json!({ "address": "x" })],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pending_events_go_to_their_subscribers() {
        let subscriptions = [(5, Subscription::Pending), (6, Subscription::Heads)].into();
        let events = pending_events(&subscriptions, B256::repeat_byte(1));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["params"]["subscription"], json!("0x5"));
    }
}
