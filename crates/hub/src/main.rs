//! A hub from a configuration file: `opg-model-hub --config FILE`. The product runs the same by `opg node hub`.

use opg_hub::{ModelHub, config::HubConfig};
use std::{error::Error, path::Path};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [flag, file] = args.as_slice() else {
        return Err("usage: opg-model-hub --config FILE".into());
    };
    if flag != "--config" {
        return Err("usage: opg-model-hub --config FILE".into());
    }
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    // Before anyone is told that the hub is up: a signal that comes right then ends it in order, too.
    let mut terminate = signal(SignalKind::terminate())?;
    let hub = ModelHub::start(HubConfig::load(Path::new(file))?).await?;
    println!("hub ready at {}", hub.url());
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    hub.shutdown().await?;
    Ok(())
}
