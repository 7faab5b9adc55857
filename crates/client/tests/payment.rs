//! The 402 flow against honest and hostile nodes: what is paid, what is refused, and that nothing is signed for a refusal.

mod common;

use std::sync::atomic::Ordering;

use alloy_primitives::{Address, U256};
use common::{CHAIN, MODEL, Tricks, payee, start};
use ed25519_dalek::SigningKey;
use opg_client::{ChatEvent, ChatRequest, Client, ClientError, Job, Message, Wallet};
use opg_contracts::addresses;
use opg_payments::eip3009::Domain;
use opg_primitives::{
    ids::{ModelRoot, NodeId},
    money::Amount,
};
use serde_json::json;

fn job() -> Job {
    Job::infer(MODEL, &json!({ "X": [[0.0]] }), Amount::parse_opg("0.01").unwrap())
}

fn other_key() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

#[tokio::test]
async fn an_honest_node_is_paid_once_and_believed() {
    let (node, network) = start(Tricks::default()).await;
    let client = Client::new(network).unwrap();
    let wallet = Wallet::random().unwrap();
    let quoted = client.quote(job()).await.unwrap();
    assert_eq!(quoted.amount(), Amount::parse_opg("0.001111111111111112").unwrap());
    assert_eq!(node.paid.load(Ordering::SeqCst), 0, "a quote pays nothing");

    let answer = client.infer(&quoted.authorize(&wallet).unwrap()).await.unwrap();
    assert_eq!(answer.outputs, json!({ "label": [3] }));
    assert_eq!(answer.paid.receipt.core().payment.payer, wallet.address());
    assert_eq!(node.paid.load(Ordering::SeqCst), 1);

    // What was sent is a payment that the token would accept, to the node's own deposit address.
    let payment = node.last_payment.lock().unwrap().clone().unwrap();
    let (authorization, signature) = payment.exact().unwrap();
    authorization
        .verify(&Domain::opg(CHAIN, addresses::OPG), &signature)
        .unwrap();
    assert_eq!(authorization.to, payee());
    assert_eq!(authorization.from, wallet.address());
    assert_eq!(payment.accepted.amount, authorization.value);
}

#[tokio::test]
async fn nonces_are_never_repeated() {
    let (node, network) = start(Tricks::default()).await;
    let client = Client::new(network).unwrap();
    let wallet = Wallet::random().unwrap();
    let mut nonces = std::collections::HashSet::new();
    for _ in 0..5 {
        let paid = client.quote(job()).await.unwrap().authorize(&wallet).unwrap();
        client.infer(&paid).await.unwrap();
        let payment = node.last_payment.lock().unwrap().clone().unwrap();
        assert!(nonces.insert(payment.exact().unwrap().0.nonce));
    }
}

/// Every hostile offer is refused with the field named, and no payment leaves the client.
#[tokio::test]
async fn hostile_offers_are_refused_before_anything_is_signed() {
    let thief = |way: &mut opg_payments::x402::PaymentRequirements| way.pay_to = Address::repeat_byte(0xbb);
    let cases: Vec<(&str, Tricks)> = vec![
        (
            "payTo",
            Tricks {
                offer: Some(thief),
                ..Tricks::default()
            },
        ),
        (
            "payTo",
            Tricks {
                quote: Some(|q| q.payee = Address::repeat_byte(0xbb)),
                ..Tricks::default()
            },
        ),
        (
            "0.01 OPG",
            Tricks {
                quote: Some(|q| q.max_amount = Amount::parse_opg("0.02").unwrap()),
                ..Tricks::default()
            },
        ),
        (
            "0.01 OPG",
            Tricks {
                offer: Some(|w| w.amount = U256::from(u128::MAX)),
                ..Tricks::default()
            },
        ),
        (
            "amount",
            Tricks {
                offer: Some(|w| w.amount = U256::MAX),
                ..Tricks::default()
            },
        ),
        (
            "max_amount",
            Tricks {
                offer: Some(|w| w.amount += U256::ONE),
                ..Tricks::default()
            },
        ),
        (
            "asset",
            Tricks {
                offer: Some(|w| w.asset = Address::repeat_byte(0xcc)),
                ..Tricks::default()
            },
        ),
        (
            "asset",
            Tricks {
                quote: Some(|q| q.asset = Address::repeat_byte(0xcc)),
                ..Tricks::default()
            },
        ),
        (
            "network",
            Tricks {
                offer: Some(|w| w.network = "eip155:8453".into()),
                ..Tricks::default()
            },
        ),
        (
            "network",
            Tricks {
                quote: Some(|q| q.chain_id = 8453),
                ..Tricks::default()
            },
        ),
        (
            "scheme",
            Tricks {
                offer: Some(|w| w.scheme = "upto".into()),
                ..Tricks::default()
            },
        ),
        (
            "x402Version",
            Tricks {
                whole: Some(|o| o.x402_version = 1),
                ..Tricks::default()
            },
        ),
        (
            "scheme",
            Tricks {
                whole: Some(|o| o.accepts.clear()),
                ..Tricks::default()
            },
        ),
        (
            "maxTimeoutSeconds",
            Tricks {
                offer: Some(|w| w.max_timeout_seconds = 1 << 40),
                ..Tricks::default()
            },
        ),
        (
            "extra.name",
            Tricks {
                offer: Some(|w| set(w, "name", "USD Coin")),
                ..Tricks::default()
            },
        ),
        (
            "extra.assetTransferMethod",
            Tricks {
                offer: Some(|w| set(w, "assetTransferMethod", "permit2")),
                ..Tricks::default()
            },
        ),
        (
            "extra.quote",
            Tricks {
                offer: Some(|w| w.extra.as_mut().unwrap().remove("quote").map_or((), drop)),
                ..Tricks::default()
            },
        ),
        (
            "extra.quote",
            Tricks {
                offer: Some(|w| set(w, "quote", "AAAA")),
                ..Tricks::default()
            },
        ),
        (
            "extra.receiptId",
            Tricks {
                offer: Some(|w| set(w, "receiptId", &format!("0x{}", "99".repeat(32)))),
                ..Tricks::default()
            },
        ),
        (
            "signature",
            Tricks {
                quote_key: Some(other_key()),
                ..Tricks::default()
            },
        ),
        (
            "keyset",
            Tricks {
                revoked: true,
                ..Tricks::default()
            },
        ),
        (
            "not registered",
            Tricks {
                unregistered: true,
                ..Tricks::default()
            },
        ),
        (
            "node_id",
            Tricks {
                quote: Some(|q| q.node_id = NodeId([9; 32].into())),
                ..Tricks::default()
            },
        ),
        (
            "request",
            Tricks {
                quote: Some(|q| q.request_digest = [9; 32].into()),
                ..Tricks::default()
            },
        ),
        (
            "model",
            Tricks {
                quote: Some(|q| q.model_root = ModelRoot([9; 32].into())),
                ..Tricks::default()
            },
        ),
        (
            "per_call",
            Tricks {
                quote: Some(|q| q.ask.per_call.0 += 1),
                ..Tricks::default()
            },
        ),
        (
            "royalty_bps",
            Tricks {
                quote: Some(|q| q.royalty_bps = 3_000),
                ..Tricks::default()
            },
        ),
        (
            "expired",
            Tricks {
                quote: Some(|q| q.expires = 1),
                ..Tricks::default()
            },
        ),
        (
            "mode",
            Tricks {
                quote: Some(|q| q.mode_asked = opg_primitives::mode::Mode::Tee),
                ..Tricks::default()
            },
        ),
    ];
    for (i, (word, tricks)) in cases.into_iter().enumerate() {
        let (node, network) = start(tricks).await;
        let client = Client::new(network).unwrap();
        let error = client.quote(job()).await.map(|quoted| quoted.amount()).unwrap_err();
        assert!(matches!(error, ClientError::Offer(_)), "case {i}: {error}");
        assert!(
            error.to_string().contains(word),
            "case {i}: {error} does not name {word}"
        );
        assert!(error.to_string().contains("nothing was paid"));
        assert_eq!(node.paid.load(Ordering::SeqCst), 0, "case {i}");
    }
}

fn set(way: &mut opg_payments::x402::PaymentRequirements, key: &str, value: &str) {
    way.extra.as_mut().unwrap().insert(key.into(), value.into());
}

/// A paid answer whose receipt does not prove it is not returned.
#[tokio::test]
async fn hostile_answers_are_not_believed() {
    let cases: Vec<(&str, Tricks)> = vec![
        (
            "signature",
            Tricks {
                receipt_key: Some(other_key()),
                ..Tricks::default()
            },
        ),
        (
            "served_root",
            Tricks {
                core: Some(|c| c.model.served_root = ModelRoot([9; 32].into())),
                ..Tricks::default()
            },
        ),
        (
            "model.asked",
            Tricks {
                core: Some(|c| c.model.asked = "demo/other".into()),
                ..Tricks::default()
            },
        ),
        (
            "price.charge",
            Tricks {
                core: Some(|c| c.price.charge.0 -= 1),
                ..Tricks::default()
            },
        ),
        (
            "payment.nonce",
            Tricks {
                core: Some(|c| c.payment.nonce = [9; 32].into()),
                ..Tricks::default()
            },
        ),
        (
            "payment.payer",
            Tricks {
                core: Some(|c| c.payment.payer = Address::repeat_byte(9)),
                ..Tricks::default()
            },
        ),
        (
            "payment.signature",
            Tricks {
                core: Some(|c| c.payment.signature = vec![1].into()),
                ..Tricks::default()
            },
        ),
        (
            "request.body",
            Tricks {
                core: Some(|c| c.request.body = [9; 32].into()),
                ..Tricks::default()
            },
        ),
        (
            "request.params",
            Tricks {
                core: Some(|c| c.request.params = [9; 32].into()),
                ..Tricks::default()
            },
        ),
        (
            "response.commitment",
            Tricks {
                core: Some(|c| c.response.commitment = [9; 32].into()),
                ..Tricks::default()
            },
        ),
        (
            "registry",
            Tricks {
                core: Some(|c| c.registry = Address::repeat_byte(9)),
                ..Tricks::default()
            },
        ),
        (
            "response.commitment",
            Tricks {
                answer: Some(|a| a["outputs"]["label"][0] = json!(4)),
                ..Tricks::default()
            },
        ),
        (
            "receipt",
            Tricks {
                answer: Some(|a| a["opg"]["receipt"] = json!("0x00")),
                ..Tricks::default()
            },
        ),
        (
            "receipt",
            Tricks {
                answer: Some(|a| a["opg"] = json!({})),
                ..Tricks::default()
            },
        ),
    ];
    for (i, (word, tricks)) in cases.into_iter().enumerate() {
        let (_, network) = start(tricks).await;
        let client = Client::new(network).unwrap();
        let paid = client
            .quote(job())
            .await
            .unwrap()
            .authorize(&Wallet::random().unwrap())
            .unwrap();
        let error = client.infer(&paid).await.map(|answer| answer.outputs).unwrap_err();
        assert!(
            matches!(error, ClientError::Answer(_) | ClientError::NodeAnswer { .. }),
            "case {i}: {error}"
        );
        assert!(
            error.to_string().contains(word),
            "case {i}: {error} does not name {word}"
        );
        assert!(!error.is_input(), "case {i}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_a_checked_receipt_or_an_error() {
    let request = ChatRequest {
        model: MODEL.into(),
        messages: vec![Message::user("Hello")],
        max_tokens: 8,
        temperature: None,
        seed: None,
        stream: true,
        tools: Vec::new(),
        tool_choice: None,
    };
    for lies in [false, true] {
        let answer = lies.then_some((|_| ()) as fn(&mut serde_json::Value));
        let (_, network) = start(Tricks {
            answer,
            ..Tricks::default()
        })
        .await;
        let client = Client::new(network).unwrap();
        let job = Job::chat(&request, Amount::parse_opg("0.01").unwrap());
        let paid = client
            .quote(job)
            .await
            .unwrap()
            .authorize(&Wallet::random().unwrap())
            .unwrap();
        let mut stream = client.chat_stream(paid).await.unwrap();
        let (mut text, mut outcome) = (String::new(), None);
        while outcome.is_none() {
            match stream.next().await {
                Ok(Some(ChatEvent::Text(piece))) => text.push_str(&piece),
                Ok(Some(ChatEvent::Done(chat))) => outcome = Some(Ok(chat.text)),
                Ok(None) => panic!("ended without an outcome"),
                Err(error) => outcome = Some(Err(error)),
            }
        }
        match outcome.unwrap() {
            Ok(whole) => assert!(!lies && whole == "Good evening." && text == whole),
            Err(error) => assert!(lies && matches!(error, ClientError::Answer(_)), "{error}"),
        }
    }
}

#[tokio::test]
async fn refusals_keep_the_nodes_words_and_tell_whose_fault_it_is() {
    let error = |message: &str| json!({ "error": { "message": message, "type": "t", "code": "wrong_shape", "param": "inputs.X" } });
    for (status, input) in [
        (404, true),
        (413, true),
        (422, true),
        (402, false),
        (429, false),
        (503, false),
    ] {
        let (_, network) = start(Tricks {
            refuse: Some((status, error("bad\u{1b}[31m"))),
            ..Tricks::default()
        })
        .await;
        let refused = Client::new(network)
            .unwrap()
            .quote(job())
            .await
            .map(|_| ())
            .unwrap_err();
        if status == 402 {
            // A 402 without an offer is not an offer.
            assert!(matches!(refused, ClientError::Offer(_)), "{refused}");
            continue;
        }
        assert_eq!(refused.is_input(), input, "{status}");
        let text = refused.to_string();
        assert!(
            text.contains("wrong_shape") && text.contains("inputs.X") && !text.contains('\u{1b}'),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_payment_is_not_led_to_another_server() {
    let (_, network) = start(Tricks {
        redirect: true,
        ..Tricks::default()
    })
    .await;
    let error = Client::new(network)
        .unwrap()
        .quote(job())
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, ClientError::NodeRefused { status: 307, .. }), "{error}");
}

#[tokio::test]
async fn a_dead_network_is_named() {
    let (_, mut network) = start(Tricks::default()).await;
    network.file.nodes[0].url = "http://127.0.0.1:9".into();
    let error = Client::new(network.clone())
        .unwrap()
        .quote(job())
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, ClientError::NodeUnreachable { .. }), "{error}");
    network.file.rpc.pop();
    let error = Client::new(network).unwrap().height().await.unwrap_err();
    assert!(error.to_string().contains("http://127.0.0.1:9"), "{error}");
}
