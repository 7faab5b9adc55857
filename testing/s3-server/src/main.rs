//! Somebody else's S3 server (`s3s-fs`) over a directory: `s3-server DIRECTORY ADDRESS ACCESS_KEY SECRET_KEY`. It checks
//! signatures, and says `ready ADDRESS` when it serves. Each folder of the directory is a bucket.

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use std::error::Error;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, address, access, secret] = arguments.as_slice() else {
        return Err("usage: s3-server DIRECTORY ADDRESS ACCESS_KEY SECRET_KEY".into());
    };
    let files = s3s_fs::FileSystem::new(directory).map_err(|error| format!("{directory}: {error:?}"))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(access.as_str(), secret.as_str()));
    let service = service.build();
    let listener = TcpListener::bind(address).await?;
    println!("ready {}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // What ends a connection is the client's to notice.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
