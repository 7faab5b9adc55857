//! One network over its whole life: made, stopped, continued. Uses real engines and sockets.

use std::{path::Path, time::Duration};

use opg_client::{Client, ClientError, Job, Network, Wallet};
use opg_devnet::{Devnet, DevnetError, Options};
use opg_primitives::money::Amount;

/// A block of ports below the ephemeral range that no other test of this workspace uses.
const PORT_BASE: u16 = 31_700;
const PATIENCE: Duration = Duration::from_secs(60);

fn options(dir: &Path) -> Options {
    Options {
        dir: Some(dir.into()),
        ephemeral: false,
        validators: None,
        port_base: Some(PORT_BASE),
        parameters: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_network_goes_on_with_the_same_keys_chain_and_money() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("net");
    let running = Devnet::up(options(&dir)).await.unwrap();
    let network = running.network().clone();
    assert_eq!(
        Network::load(&dir).unwrap().file,
        network.file,
        "network.json says what runs"
    );
    let client = Client::new(network.clone()).unwrap();
    assert!(client.full_nodes().await.iter().all(|node| node.height >= Some(1)));
    assert!(client.inference_nodes().await.iter().all(|node| node.healthy));

    // Genesis: every demo model is registered, served and priced; nothing has to be waited for.
    let models = client.models().await.unwrap();
    assert_eq!(models.len(), opg_devnet::DEMO_MODELS.len());
    for model in models {
        assert!(model.served && model.ask == model.reference_price, "{model:?}");
        assert_eq!(model.creator, network.genesis.models[0].creator);
    }

    // Somebody else cannot use the folder meanwhile.
    let second = Devnet::up(options(&dir)).await.map(|_| ()).unwrap_err();
    assert!(matches!(second, DevnetError::Locked { .. }), "{second}");

    // A paid call by the SDK; its receipt can be had again from the node with the secret alone.
    let wallet = network.wallet().unwrap().unwrap();
    let inputs = serde_json::json!({ "X": [vec![0; 64]] });
    let job = Job::infer("demo/digits-mlp", &inputs, Amount::parse_opg("0.01").unwrap());
    let paid = client.quote(job).await.unwrap().authorize(&wallet).unwrap();
    let answer = client.infer(&paid).await.unwrap();
    let file = client.fetch_receipt_file(&answer.paid, PATIENCE, |_| ()).await.unwrap();
    let (url, id) = (&network.file.nodes[0].url, paid.receipt_id().unwrap());
    let secret = answer.paid.secret.clone().unwrap();
    let again = client.fetch_stored_receipt(url, id, &secret, PATIENCE).await.unwrap();
    assert_eq!((again.core, again.quote), (file.core, file.quote));
    assert!(again.opening.is_none() && again.payment.is_some());
    let wrong = "00".repeat(32);
    let refused = client
        .fetch_stored_receipt(url, id, &wrong, PATIENCE)
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            ClientError::NodeRefused { .. } | ClientError::NodeAnswer { .. }
        ),
        "{refused}"
    );

    let receiver = Wallet::random().unwrap().address();
    let (opg, native) = (Amount(5), Amount(7));
    client.faucet(receiver, opg, native).await.unwrap();
    let height = client.height().await.unwrap();
    running.shutdown().await.unwrap();

    let running = Devnet::up(options(&dir)).await.unwrap();
    assert_eq!(running.network().genesis, network.genesis);
    assert_eq!(running.network().file.wallet, network.file.wallet);
    let client = Client::new(running.network().clone()).unwrap();
    assert!(client.height().await.unwrap() > height);
    let balances = client.balances(receiver).await.unwrap();
    assert_eq!((balances.opg, balances.native), (opg, native));
    // All validators tell the same.
    let target = client.height().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut hashes = Vec::new();
    for i in 0..4 {
        let block: serde_json::Value = client
            .rpc()
            .call_at(i, "eth_getBlockByNumber", &(format!("{target:#x}"), false))
            .await
            .unwrap();
        hashes.push(block["hash"].clone());
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    running.shutdown().await.unwrap();
}
