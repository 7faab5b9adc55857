//! The `hf-hub` crate, as Rust programs use it: `hf-hub-interop REPOSITORY REVISION FILE…` with `HF_ENDPOINT` and `HF_HOME`
//! set. Prints the commit, the files of the revision, and where each downloaded file lies; a test of the hub compares them.

use hf_hub::{Repo, RepoType, api::sync::ApiBuilder};
use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(name), Some(revision)) = (arguments.next(), arguments.next()) else {
        return Err("usage: hf-hub-interop REPOSITORY REVISION FILE…".into());
    };
    let api = ApiBuilder::from_env()
        .with_progress(false)
        .with_token(env::var("HF_TOKEN").ok())
        .build()?;
    let repository = api.repo(Repo::with_revision(name, RepoType::Model, revision));
    let info = repository.info()?;
    println!("commit\t{}", info.sha);
    for sibling in info.siblings {
        println!("sibling\t{}", sibling.rfilename);
    }
    for file in arguments {
        println!("file\t{file}\t{}", repository.get(&file)?.display());
    }
    Ok(())
}
