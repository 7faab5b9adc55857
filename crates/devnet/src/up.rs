//! A whole network in this process.

use std::{
    net::TcpListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use opg_client::{Client, Network, remember};
use opg_full_node::{FullNode, FullNodeHandle};
use opg_hub::ModelHub;
use opg_inference_node::InferenceNode;
use opg_router::RouterHandle;
use tempfile::TempDir;

use crate::{DevnetError, hub, layout::Layout, lock::DirLock};

/// A slow machine takes seconds; one that needs longer than this does not work.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// What `opg up` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folder of the network; the user's default folder if not given.
    pub dir: Option<PathBuf>,
    /// Use a temporary folder and remove it at the end.
    pub ephemeral: bool,
    /// Number of validators of a new network (4 if not given); an existing one must have this many.
    pub validators: Option<u16>,
    /// First port.
    pub port_base: Option<u16>,
    /// JSON file with parameters of a new network's genesis that differ from the usual ones.
    pub parameters: Option<PathBuf>,
}

/// A running network.
#[derive(Debug)]
pub struct Running {
    network: Network,
    full_nodes: Vec<FullNodeHandle>,
    inference: InferenceNode,
    router: RouterHandle,
    hub: ModelHub,
    started: Duration,
    // Dropped in this order: the lock before the folder it lies in.
    _lock: DirLock,
    _temporary: Option<TempDir>,
}

pub(crate) async fn up(options: Options) -> Result<Running, DevnetError> {
    let start = Instant::now();
    let (dir, temporary) = folder(&options)?;
    std::fs::create_dir_all(&dir).map_err(|source| DevnetError::io(&dir, source))?;
    let lock = DirLock::acquire(&dir)?;
    let fresh = !dir.join("genesis.json").exists();
    let layout = Layout::open_or_create(
        &dir,
        options.validators,
        options.port_base,
        options.parameters.as_deref(),
    )?;
    check_ports(&layout)?;
    tracing::info!(
        elapsed_ms = start.elapsed().as_millis(),
        "keys and configurations are there"
    );

    let mut full_nodes = Vec::new();
    let (hub_config, inference_config) = (layout.hub()?, layout.inference_node()?);
    let full = futures::future::join_all(layout.full_nodes()?.into_iter().map(FullNode::start));
    // Together: the hub gets the demo models, and the inference node gets them from it, while the validators open their databases.
    let inference = async {
        let hub = ModelHub::start(hub_config)
            .await
            .map_err(|error| DevnetError::role("model hub", error))?;
        hub::stock(&hub, &layout.dir).await?;
        tracing::info!(elapsed_ms = start.elapsed().as_millis(), "model hub is started");
        let inference = InferenceNode::start(inference_config)
            .await
            .map_err(|error| DevnetError::role("inference node", error))?;
        Ok::<_, DevnetError>((hub, inference))
    };
    let full = async {
        for (i, node) in full.await.into_iter().enumerate() {
            full_nodes.push(node.map_err(|error| DevnetError::role(format!("validator {i}"), error))?);
        }
        tracing::info!(elapsed_ms = start.elapsed().as_millis(), "validators are started");
        Ok(())
    };
    let ((hub, inference), ()) = futures::try_join!(inference, full)?;
    tracing::info!(elapsed_ms = start.elapsed().as_millis(), "inference node is started");

    let router = opg_router::start(layout.router()?)
        .await
        .map_err(|error| DevnetError::role("router", error))?;

    let network = Network {
        dir: layout.dir.clone(),
        file: layout.network.clone(),
        genesis: layout.genesis.clone(),
    };
    wait_ready(&Client::new(network.clone())?, &router, fresh).await?;
    layout.network.write(&layout.dir)?;
    if let Err(error) = remember(&layout.dir) {
        tracing::warn!(%error, "cannot note this network as the default; use --dir");
    }
    let started = start.elapsed();
    tracing::info!(elapsed_ms = started.as_millis(), "network ready");
    Ok(Running {
        network,
        full_nodes,
        inference,
        router,
        hub,
        started,
        _lock: lock,
        _temporary: temporary,
    })
}

fn folder(options: &Options) -> Result<(PathBuf, Option<TempDir>), DevnetError> {
    if options.ephemeral {
        let temporary = tempfile::Builder::new()
            .prefix("opg-")
            .tempdir()
            .map_err(|source| DevnetError::io(&std::env::temp_dir(), source))?;
        return Ok((temporary.path().to_path_buf(), Some(temporary)));
    }
    let dir = options
        .dir
        .clone()
        .or_else(|| opg_client::user_data_dir().map(|dir| dir.join("network")));
    Ok((dir.unwrap_or_else(|| "opg-network".into()), None))
}

/// A taken port would show much later, as a validator that never connects.
fn check_ports(layout: &Layout) -> Result<(), DevnetError> {
    let mut addresses = vec![
        layout.inference_node()?.listen,
        layout.router()?.listen,
        layout.hub()?.listen,
    ];
    for config in layout.full_nodes()? {
        addresses.extend([config.rpc, config.p2p]);
        addresses.extend(config.metrics);
    }
    for address in addresses {
        TcpListener::bind(address).map_err(|source| DevnetError::Port { address, source })?;
    }
    Ok(())
}

/// Waits until every validator has finalised a block since the start, the inference node is healthy, and the router has found it.
async fn wait_ready(client: &Client, router: &RouterHandle, fresh: bool) -> Result<(), DevnetError> {
    let start = Instant::now();
    let mut first: Option<u64> = fresh.then_some(0);
    loop {
        let (full, inference) = futures::join!(client.full_nodes(), client.inference_nodes());
        let lowest = full.iter().map(|node| node.height).min().flatten();
        if let Some(height) = lowest {
            let first = *first.get_or_insert(height);
            if height > first && inference.iter().all(|node| node.healthy) && router.nodes_up() > 0 {
                return Ok(());
            }
        }
        if start.elapsed() > READY_TIMEOUT {
            let missing = full
                .iter()
                .filter_map(|node| node.error.clone())
                .chain(inference.iter().filter_map(|node| node.error.clone()))
                .next()
                .unwrap_or_else(|| match router.nodes_up() {
                    0 => "the router knows no node that is up".to_owned(),
                    _ => format!("no new block (height {lowest:?})"),
                });
            return Err(DevnetError::NotReady {
                seconds: READY_TIMEOUT.as_secs(),
                missing,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Running {
    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Time from the call to readiness.
    #[must_use]
    pub fn start_time(&self) -> Duration {
        self.started
    }

    /// What runs where, for people.
    #[must_use]
    pub fn description(&self) -> Vec<String> {
        let file = &self.network.file;
        let mut lines = vec![
            format!("network    {} (chain id {})", self.network.dir.display(), file.chain_id),
            format!("JSON-RPC   {}", file.rpc.join(" ")),
        ];
        for node in &file.nodes {
            lines.push(format!("inference  {} ({})", node.url, node.models.join(", ")));
        }
        if let Some(router) = &file.router {
            lines.push(format!("router     {router} (relay of sealed requests at /ohttp)"));
        }
        if let Some(hub) = &file.hub {
            lines.push(format!("model hub  {hub} (HF_ENDPOINT={hub})"));
        }
        if let Some(wallet) = &file.wallet {
            lines.push(format!(
                "wallet     {} (key in {})",
                wallet.address,
                wallet.key_file.display()
            ));
        }
        lines.push(format!("started    in {:.2} s", self.started.as_secs_f64()));
        lines
    }

    /// Resolves when a role stops by itself, with the reason. A network that has lost a role is not healthy, so the
    /// caller shuts the rest down.
    pub async fn failed(&mut self) -> DevnetError {
        let full = self.full_nodes.iter().enumerate().map(|(i, node)| {
            Box::pin(async move { DevnetError::stopped(format!("validator {i}"), node.stopped().await) })
        });
        tokio::select! {
            (error, ..) = futures::future::select_all(full) => error,
            error = self.inference.stopped() => DevnetError::role("inference node", error),
        }
    }

    /// Stops every role in order: the router and the inference node first, so that what it has answered is recorded, then all
    /// validators together.
    ///
    /// # Errors
    /// The first role that did not stop in an orderly way; the others are stopped nevertheless.
    pub async fn shutdown(self) -> Result<(), DevnetError> {
        let router = self.router.shutdown().await;
        let inference = self.inference.shutdown().await;
        let hub = self.hub.shutdown().await;
        let full = futures::future::join_all(self.full_nodes.into_iter().map(FullNodeHandle::shutdown)).await;
        router.map_err(|error| DevnetError::role("router", error))?;
        inference.map_err(|error| DevnetError::role("inference node", error))?;
        hub.map_err(|error| DevnetError::role("model hub", error))?;
        for (i, result) in full.into_iter().enumerate() {
            result.map_err(|error| DevnetError::role(format!("validator {i}"), error))?;
        }
        Ok(())
    }
}
