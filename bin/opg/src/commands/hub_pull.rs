//! `opg models pull`: a version of a model from a hub, every byte checked.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use alloy_primitives::B256;
use opg_client::{Client, Registered};
use opg_hub::{
    client::{ClientError as HubError, TOKEN_PREFIX, authorized},
    names::{RepoName, check_path},
    siwe::Scope,
};
use opg_model_store::{FetchError, fetch_file};
use opg_models::{FileEntry, Format, GitId, Manifest, ManifestVersion, ModelRoot};
use serde::Deserialize;
use serde_json::json;

use super::{
    client,
    hub_models::{ask_hub, deprecation, hub_url, in_session, registration_of, repository},
    wallet,
};
use crate::{
    args::PullArgs,
    failure::Failure,
    output::{Output, facts},
};

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::failed(error)
    }
}

#[derive(Deserialize)]
struct Listed {
    revision: String,
    files: Vec<ListedFile>,
}

#[derive(Deserialize)]
struct ListedFile {
    path: String,
    size: u64,
    sha256: B256,
    blake3: B256,
    git_sha1: GitId,
    format: Option<String>,
    servable: bool,
}

/// What is downloaded, from where to where.
struct Order<'a> {
    client: &'a Client,
    hub: &'a str,
    name: &'a RepoName,
    revision: Option<&'a str>,
    /// The model that has to be in it.
    root: Option<ModelRoot>,
    out: &'a Path,
    output: Output,
}

/// What was downloaded.
struct Pulled {
    listed: Listed,
    models: Vec<(String, ModelRoot, Option<Registered>)>,
    /// Bytes that travelled.
    bytes: u64,
    deprecated: Option<String>,
}

/// `opg models pull`.
pub(crate) async fn pull(args: PullArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(&args.network)?;
    let hub = hub_url(&args.hub, Some(client.network()))?;
    let root: Option<ModelRoot> = args.model.parse().ok();
    let (name, revision) = match root {
        Some(root) => {
            let known = client.registration(root).await?;
            let known = known.ok_or_else(|| Failure::usage(format!("model {root} is not registered")))?;
            let name = repository(&known.name).map_err(|_| {
                Failure::usage(format!(
                    "model {root} is registered as {:?}, which is no name at a hub",
                    known.name
                ))
            })?;
            (name.0, None)
        }
        None => repository(&args.model)?,
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(&name.name));
    let order = Order {
        client: &client,
        hub: &hub,
        name: &name,
        revision,
        root,
        out: &out,
        output,
    };
    let pulled = order.run(&args).await?;
    if let Some(reason) = &pulled.deprecated {
        eprintln!("warning: {name} is deprecated: {reason}");
    }
    let (listed, models, bytes) = (&pulled.listed, &pulled.models, pulled.bytes);
    let document = json!({
        "name": name.to_string(), "revision": listed.revision, "dir": out, "files": listed.files.len(), "received": bytes,
        "deprecated": pulled.deprecated,
        "models": models.iter().map(|(path, root, registered)| json!({"path": path, "root": root, "registration": registered}))
            .collect::<Vec<_>>(),
    });
    output.result(&document, || {
        let mut rows = vec![
            ("model", format!("{name}, revision {}", listed.revision)),
            (
                "files",
                format!("{} in {}, {bytes} bytes received", listed.files.len(), out.display()),
            ),
        ];
        for (path, root, registered) in models {
            rows.push(("root", format!("{root} ({path})")));
            rows.push((
                "creator",
                registered
                    .as_ref()
                    .map_or_else(|| "not registered".into(), |r| r.creator.to_string()),
            ));
        }
        facts(rows)
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Order<'_> {
    /// Downloads as nobody in particular if everybody may, else with the token that was given, else as the wallet's account.
    async fn run(&self, args: &PullArgs) -> Result<Pulled, Failure> {
        let anonymous = reqwest::Client::new();
        let refused = match self.allowed(&anonymous).await {
            Ok(()) => return self.download(&anonymous).await,
            Err(refused) => refused,
        };
        // A private repository is not even said to be there.
        if !matches!(
            &refused,
            HubError::Refused {
                status: 401 | 403 | 404,
                ..
            }
        ) {
            return Err(refused.into());
        }
        if let Some(token) = &args.token {
            if token.starts_with(TOKEN_PREFIX) {
                let http = authorized(token)?;
                let allowed = self.allowed(&http).await;
                allowed.map_err(|error| Failure::Failed(eyre::eyre!("with --token or HF_TOKEN: {error}")))?;
                return self.download(&http).await;
            }
            // Whoever has it in the environment has it for another hub, whose secret it is.
            eprintln!(
                "warning: the token does not begin with {TOKEN_PREFIX}, so it is another service's and was not sent"
            );
        }
        let network = self.client.network();
        let wallet = wallet(&args.key, Some(network))
            .map_err(|failure| Failure::Failed(eyre::eyre!("{refused}; to sign in: {failure}, or give a --token")))?;
        let hub = (self.hub, network.genesis.chain_id);
        in_session(
            hub,
            (&wallet, Scope::Read),
            async |session| -> Result<Pulled, Failure> {
                let http = session.client()?;
                let allowed = self.allowed(&http).await;
                allowed.map_err(|error| Failure::Failed(eyre::eyre!("as {}: {error}", wallet.address())))?;
                self.download(&http).await
            },
        )
        .await
    }

    /// Asks whether the files may be read.
    async fn allowed(&self, http: &reqwest::Client) -> Result<(), HubError> {
        let path = format!("/api/models/{}/auth-check", self.name);
        ask_hub(http, self.hub, &path, &[]).await.map(|_| ())
    }

    async fn download(&self, http: &reqwest::Client) -> Result<Pulled, Failure> {
        let (hub, name) = (self.hub, self.name);
        let path = format!("/api/opg/models/{name}/manifest");
        let listed = ask_hub(http, hub, &path, &[("revision", self.revision.unwrap_or("main"))]).await?;
        let listed: Listed = serde_json::from_value(listed).map_err(Failure::failed)?;
        let mut models = Vec::new();
        for file in &listed.files {
            check_path(&file.path).map_err(Failure::failed)?;
            let format = file.format.as_deref().and_then(|format| format.parse::<Format>().ok());
            if let Some(format) = format.filter(|_| file.servable) {
                // Computed from what will be checked, not taken from the hub.
                let manifest = Manifest::new(
                    ManifestVersion::NEWEST,
                    format,
                    format.canonical_path(),
                    vec![file.entry(format.canonical_path())],
                )
                .map_err(Failure::failed)?;
                let found = match self.root {
                    Some(root) if manifest.with_root(root).is_some() => (root, self.client.registration(root).await?),
                    _ => registration_of(self.client, &manifest).await?,
                };
                models.push((file.path.clone(), found.0, found.1));
            }
        }
        if let Some(root) = self.root
            && !models.iter().any(|(_, got, _)| *got == root)
        {
            return Err(Failure::Failed(eyre::eyre!(
                "revision {} of {name} at {hub} does not have the model {root}; name the revision that has it: {name}@REVISION",
                listed.revision
            )));
        }
        let spinner = self.output.spinner("downloading");
        let mut bytes = 0;
        for file in &listed.files {
            spinner.set_message(file.path.clone());
            bytes += fetch(http, (hub, name, &listed.revision), file, self.out).await?;
        }
        spinner.finish_and_clear();
        Ok(Pulled {
            listed,
            models,
            bytes,
            deprecated: deprecation(http, hub, name).await,
        })
    }
}

impl ListedFile {
    /// What the file has to be.
    fn entry(&self, path: &str) -> FileEntry {
        FileEntry {
            path: path.to_owned(),
            size: self.size,
            sha256: self.sha256,
            blake3: Some(self.blake3),
            git_sha1: Some(self.git_sha1),
        }
    }
}

/// Gets one file unless it is there already; returns the bytes received.
async fn fetch(
    http: &reqwest::Client,
    (hub, name, revision): (&str, &RepoName, &str),
    file: &ListedFile,
    out: &Path,
) -> Result<u64, Failure> {
    let to = out.join(&file.path);
    let (here, expected) = (to.clone(), file.entry(&file.path));
    let wanted = expected.clone();
    let there =
        tokio::task::spawn_blocking(move || std::fs::File::open(here).ok().and_then(|file| hash(file, &wanted).ok()))
            .await
            .map_err(Failure::failed)?;
    if there.as_ref() == Some(&expected) {
        return Ok(0);
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(Failure::input)?;
    }
    let mut url = reqwest::Url::parse(hub).map_err(Failure::input)?;
    url.path_segments_mut()
        .map_err(|()| Failure::usage(format!("--hub: {hub:?} is no URL")))?
        .pop_if_empty()
        .extend([name.owner.as_str(), name.name.as_str(), "resolve", revision])
        .extend(file.path.split('/'));
    Ok(fetch_file(http, url.as_str(), &expected, &to).await?)
}

fn hash(mut file: std::fs::File, like: &FileEntry) -> std::io::Result<FileEntry> {
    use std::io::Read as _;
    let mut hasher = opg_models::FileHasher::like(like);
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            n => hasher.update(&piece[..n]),
        };
    }
    Ok(hasher.finish(&like.path))
}
