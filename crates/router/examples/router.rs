//! A router from a configuration file: `cargo run -p opg-router --example router -- --config FILE`. The product runs the
//! same by `opg node router --config FILE`.

use opg_router::{config::RouterConfig, start};
use std::{error::Error, path::Path};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let file = match args.as_slice() {
        [flag, file] if flag == "--config" => file,
        _ => return Err("usage: router --config FILE".into()),
    };
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    // Before anyone is told that the router is up: a signal that comes right then ends it in order, too.
    let mut terminate = signal(SignalKind::terminate())?;
    let router = start(RouterConfig::load(Path::new(file))?).await?;
    println!("router ready at {}", router.url());
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    router.shutdown().await?;
    Ok(())
}
