//! `opg models push`, `deprecate` and `rm`: models at the network's hub, and their registration on chain.

use std::{path::Path, process::ExitCode};

use opg_client::{Client, ModelUri, Network, NewModel, Registered, Wallet};
use opg_hub::{
    client::{ClientError as HubError, Folder, FolderError, Session},
    names::RepoName,
    siwe::Scope,
};
use opg_models::{Manifest, ModelRoot};
use opg_primitives::money::Price;
use serde_json::{Value, json};

use super::{client, wallet};
use crate::{
    args::{DeprecateArgs, HubArgs, PushArgs, RemoveArgs},
    failure::Failure,
    output::{Output, facts},
};

/// Largest answer of a hub, bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Label of the token that a command needs.
const LABEL: &str = "opg models";

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::failed(error)
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        Self::input(error)
    }
}

/// `owner/name` and, behind an `@`, a revision.
pub(super) fn repository(text: &str) -> Result<(RepoName, Option<&str>), Failure> {
    let (name, revision) = match text.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (text, None),
    };
    let (owner, name) = name
        .split_once('/')
        .ok_or_else(|| Failure::usage(format!("expected owner/name, got {text:?}")))?;
    let name = RepoName::new(&owner.to_ascii_lowercase(), name).map_err(Failure::input)?;
    Ok((name, revision))
}

/// The hub that the arguments mean: `--hub` or `HF_ENDPOINT`, else the network's.
pub(super) fn hub_url(args: &HubArgs, network: Option<&Network>) -> Result<String, Failure> {
    let named = args
        .hub
        .clone()
        .or_else(|| network.and_then(|network| network.file.hub.clone()));
    let url = named.ok_or_else(|| Failure::usage("the network has no hub; name one with --hub URL"))?;
    reqwest::Url::parse(&url).map_err(|error| Failure::usage(format!("--hub: {url:?}: {error}")))?;
    Ok(url.trim_end_matches('/').to_owned())
}

async fn read_folder(dir: &Path) -> Result<Folder, Failure> {
    let dir = dir.to_owned();
    let read = tokio::task::spawn_blocking(move || Folder::read(&dir)).await;
    Ok(read.map_err(Failure::failed)??)
}

/// A JSON document of the hub, within bounds.
pub(super) async fn ask_hub(
    http: &reqwest::Client,
    url: &str,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Value, HubError> {
    let not_understood = |reason: String| HubError::Answer(reason);
    let asked = format!("{url}{path}");
    let asked = reqwest::Url::parse_with_params(&asked, query).map_err(|error| not_understood(error.to_string()))?;
    let mut answer = http.get(asked.clone()).send().await?;
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if bytes.len() + piece.len() > MAX_ANSWER {
            return Err(not_understood(format!("{asked}: more than {MAX_ANSWER} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if !answer.status().is_success() {
        let reason = document.pointer("/error/message").and_then(Value::as_str);
        return Err(HubError::Refused {
            status: answer.status().as_u16(),
            message: opg_client::text::one_line(reason.unwrap_or("no reason given"), 400),
        });
    }
    Ok(document)
}

/// Why a model should not be used any more, if its owner says so at the hub.
pub(super) async fn deprecation(http: &reqwest::Client, hub: &str, name: &RepoName) -> Option<String> {
    let query = [("expand", "cardData")];
    let about = ask_hub(http, hub, &format!("/api/models/{name}"), &query).await.ok()?;
    let reason = about.pointer("/cardData/deprecated")?.as_str()?;
    Some(opg_client::text::one_line(reason, 300))
}

/// `opg models push`.
pub(crate) async fn push(args: PushArgs, output: Output) -> Result<ExitCode, Failure> {
    let (name, revision) = repository(&args.name)?;
    if revision.is_some() {
        return Err(Failure::usage("a push makes a revision; leave out what follows the @"));
    }
    let spinner = output.spinner("hashing and checking the files");
    let read = read_folder(&args.folder).await;
    spinner.finish_and_clear();
    let mut folder = read?;
    if let Some(license) = &args.license {
        folder.set_card("license", license)?;
    }
    let (file, mut root, manifest) = folder.model(args.file.as_deref())?;
    let (file, price, manifest) = (file.to_owned(), args.price.price(), manifest.clone());
    let mut document = json!({
        "name": name.to_string(), "file": file, "root": root, "files": folder.files.len(), "bytes": folder.size(),
        "price": price, "royalty_bps": args.royalty_bps,
    });
    if args.dry_run {
        output.result(&document, || {
            facts([
                ("model", format!("{name}, {file}")),
                ("root", root.to_string()),
                ("files", format!("{}, {} bytes", folder.files.len(), folder.size())),
                ("uploaded", "no (--dry-run)".to_owned()),
            ])
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = client(&args.network)?;
    let wallet = wallet(&args.key, Some(client.network()))?;
    let hub = hub_url(&args.hub, Some(client.network()))?;
    let (registered_root, before) = registration_of(&client, &manifest).await?;
    // Who was first with these bytes has them under the root of that time (D6).
    root = registered_root;
    document["root"] = json!(root);
    if before.is_none() && costs_nothing(&price) && !args.free {
        return Err(Failure::usage(
            "a new model needs a price: --price (OPG a call), or --per-mtok-in and --per-mtok-out; --free if it is to cost nothing",
        ));
    }
    let spinner = output.spinner(format!("uploading to {hub}"));
    let chain_id = client.network().genesis.chain_id;
    let pushed = in_session((&hub, chain_id), (&wallet, Scope::Write), async |session| {
        if args.private {
            session.create_private(&name).await?;
        }
        session.push(&name, &folder, &args.message).await
    })
    .await;
    spinner.set_message("registering");
    let uri = match &before {
        None if !args.no_register => uri(&hub, &name, &folder),
        _ => String::new(),
    };
    let registered = match &pushed {
        Ok(_) => {
            let named = (root, name.to_string(), uri);
            register(&client, &wallet, &args, named, (before, &price)).await
        }
        Err(_) => Ok((Registration::Kept, None)),
    };
    spinner.finish_and_clear();
    let pushed = pushed?;
    document["hub"] = json!(hub);
    document["revision"] = json!(pushed.revision);
    document["unchanged"] = json!(pushed.unchanged);
    document["sent"] = json!(pushed.sent);
    let (registration, sent) = registered.map_err(|failure| {
        // The upload is done, and the next run does not repeat it.
        let text = format!(
            "uploaded as revision {}, but not registered: {failure}",
            pushed.revision
        );
        match failure {
            Failure::Input(_) => Failure::usage(text),
            Failure::Failed(_) => Failure::Failed(eyre::eyre!(text)),
        }
    })?;
    document["registration"] = json!(registration.word());
    if let Some(sent) = &sent {
        document["transaction"] = json!(sent.hash);
        document["block"] = json!(sent.block);
    }
    output.result(&document, || {
        let mut rows = vec![
            ("model", format!("{name}, {file}")),
            ("root", root.to_string()),
            (
                "revision",
                match pushed.unchanged {
                    true => format!("{} (already there)", pushed.revision),
                    false => format!("{} ({} bytes sent)", pushed.revision, pushed.sent),
                },
            ),
            ("page", format!("{hub}/{name}")),
            ("registered", registration.sentence()),
        ];
        if let Some(sent) = &sent {
            rows.push(("transaction", format!("{} in block {}", sent.hash, sent.block)));
        }
        facts(rows)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the registration says beside root and terms: where the repository is, and its licence.
fn uri(hub: &str, name: &RepoName, folder: &Folder) -> String {
    let page = format!("{hub}/{name}");
    let license = folder.license();
    let whole = ModelUri { page, license };
    if let Some(text) = whole.text() {
        return text;
    }
    if let Some(license) = &whole.license {
        let license = opg_client::text::one_line(license, 120);
        eprintln!(
            "warning: the licence {license:?} is no SPDX expression of up to 100 characters: it is registered without"
        );
    }
    ModelUri { license: None, ..whole }.text().unwrap_or_default()
}

/// The root that a model is registered under, with its registration: under several, the first that was. The newest root, and
/// no registration, if it is under none.
pub(super) async fn registration_of(
    client: &Client,
    manifest: &Manifest,
) -> Result<(ModelRoot, Option<Registered>), Failure> {
    let newest = manifest.root().map_err(Failure::failed)?;
    let mut first: Option<(ModelRoot, Registered)> = None;
    for version in manifest.versions() {
        let root = version.root().map_err(Failure::failed)?;
        if let Some(found) = client.registration(root).await?
            && first
                .as_ref()
                .is_none_or(|(_, first)| found.committed_at < first.committed_at)
        {
            first = Some((root, found));
        }
    }
    Ok(first.map_or((newest, None), |(root, found)| (root, Some(found))))
}

/// What a push did on chain.
enum Registration {
    /// The root is new.
    New,
    /// Its creator has changed the terms.
    Terms,
    /// Nothing had to be done.
    Kept,
    /// Somebody else has registered these bytes: the upload shares that record (D6).
    Shared(Registered),
    /// Not wanted.
    Skipped,
}

impl Registration {
    const fn word(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Terms => "terms",
            Self::Kept => "kept",
            Self::Shared(_) => "shared",
            Self::Skipped => "skipped",
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::New => "now".into(),
            Self::Terms => "already there; price and royalty changed".into(),
            Self::Kept => "already there".into(),
            Self::Shared(other) => format!("by {} before: royalties go there", other.creator),
            Self::Skipped => "no (--no-register)".into(),
        }
    }
}

const fn costs_nothing(price: &Price) -> bool {
    price.per_call.is_zero() && price.per_mtok_in.is_zero() && price.per_mtok_out.is_zero()
}

async fn register(
    client: &Client,
    wallet: &Wallet,
    args: &PushArgs,
    (root, name, uri): (ModelRoot, String, String),
    (before, price): (Option<Registered>, &Price),
) -> Result<(Registration, Option<opg_client::Sent>), Failure> {
    if args.no_register {
        return Ok((Registration::Skipped, None));
    }
    match before {
        None => {
            let model = NewModel {
                root,
                name,
                uri,
                royalty_bps: args.royalty_bps.unwrap_or(0),
                price: *price,
            };
            let sent = client.register_model(wallet, &model).await?;
            Ok((Registration::New, Some(sent)))
        }
        Some(other) if other.creator != wallet.address() => Ok((Registration::Shared(other), None)),
        Some(own) => {
            // What is not named stays.
            let price = if costs_nothing(price) && !args.free {
                own.price
            } else {
                *price
            };
            let royalty_bps = args.royalty_bps.unwrap_or(own.royalty_bps);
            if (price, royalty_bps) == (own.price, own.royalty_bps) {
                return Ok((Registration::Kept, None));
            }
            let sent = client.set_terms(wallet, root, royalty_bps, &price).await?;
            Ok((Registration::Terms, Some(sent)))
        }
    }
}

/// Signs in, does something, and revokes the token whatever came of it.
pub(super) async fn in_session<T, E>(
    (hub, chain_id): (&str, u64),
    (wallet, scope): (&Wallet, Scope),
    work: impl AsyncFnOnce(&Session) -> Result<T, E>,
) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let http = reqwest::Client::new();
    let session = Session::open(http, hub, wallet.secret_key(), scope, LABEL, chain_id).await?;
    let done = work(&session).await;
    if let Err(error) = session.close().await {
        tracing::warn!(%error, "the token of this command is not revoked; it ends within a day");
    }
    Ok(done?)
}

/// `opg models deprecate`.
pub(crate) async fn deprecate(args: DeprecateArgs, output: Output) -> Result<ExitCode, Failure> {
    let (name, _) = repository(&args.name)?;
    let network = Network::discover(args.network.dir.as_deref())?;
    let (wallet, hub) = (wallet(&args.key, Some(&network))?, hub_url(&args.hub, Some(&network))?);
    let pushed = in_session(
        (&hub, network.genesis.chain_id),
        (&wallet, Scope::Write),
        async |session| {
            session
                .set_card(&name, "deprecated", &args.reason, "Deprecate this model")
                .await
        },
    )
    .await?;
    let document = json!({"name": name.to_string(), "hub": hub, "deprecated": args.reason, "revision": pushed.revision,
        "unchanged": pushed.unchanged});
    output.result(&document, || {
        facts([
            ("model", name.to_string()),
            ("deprecated", args.reason.clone()),
            ("revision", pushed.revision.clone()),
        ])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `opg models rm`.
pub(crate) async fn remove(args: RemoveArgs, output: Output) -> Result<ExitCode, Failure> {
    let (name, revision) = repository(&args.name)?;
    if revision.is_some() {
        return Err(Failure::usage(
            "revisions are immutable; only a whole repository can be removed",
        ));
    }
    if !args.yes {
        return Err(Failure::usage(format!(
            "this deletes {name} with all its revisions from the hub, and nodes that have not fetched it cannot; its registration on \
             chain stays. Repeat with --yes, or say that it is out of date with `opg models deprecate`"
        )));
    }
    let network = Network::discover(args.network.dir.as_deref())?;
    let (wallet, hub) = (wallet(&args.key, Some(&network))?, hub_url(&args.hub, Some(&network))?);
    in_session(
        (&hub, network.genesis.chain_id),
        (&wallet, Scope::Write),
        async |session| session.delete(&name).await,
    )
    .await?;
    let document = json!({"name": name.to_string(), "hub": hub, "removed": true});
    output.result(&document, || {
        format!("{name} is removed from {hub}; its registration on chain stays")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What a model's owner says at the network's hub against using it.
pub(crate) async fn deprecated(client: &Client, name: &str) -> Option<String> {
    let hub = client.network().file.hub.as_deref()?;
    let (name, _) = repository(name).ok()?;
    deprecation(&reqwest::Client::new(), hub, &name).await
}

/// A registered model, by name or root. Names that no node lists, and that are not of the genesis, are looked up at the hub.
pub(crate) async fn find(client: &Client, asked: &str) -> Result<opg_client::Model, Failure> {
    match client.model(asked).await {
        Err(opg_client::ClientError::UnknownModel { model }) => {
            let root = root_at_hub(client, &model).await;
            let unknown = opg_client::ClientError::UnknownModel { model };
            Ok(client.model(&root.ok_or(unknown)?.to_string()).await?)
        }
        other => Ok(other?),
    }
}

/// The root of a model by its name at the network's hub, if there is one and it knows the name. The registry has to agree.
async fn root_at_hub(client: &Client, asked: &str) -> Option<ModelRoot> {
    let hub = client.network().file.hub.as_deref()?;
    let (name, revision) = repository(asked).ok()?;
    let query = [("revision", revision.unwrap_or("main"))];
    let http = reqwest::Client::new();
    let answer = ask_hub(&http, hub, &format!("/api/opg/models/{name}/root"), &query)
        .await
        .ok()?;
    let newest: ModelRoot = answer.get("root")?.as_str()?.parse().ok()?;
    // Hubs of one version of manifests list no others.
    let others = answer.get("roots").and_then(Value::as_object);
    let others = others.into_iter().flat_map(|roots| roots.values());
    let others = others.filter_map(|root| root.as_str()?.parse::<ModelRoot>().ok());
    for root in std::iter::once(newest).chain(others) {
        if client.registration(root).await.is_ok_and(|found| found.is_some()) {
            return Some(root);
        }
    }
    Some(newest)
}

/// What the network's hub says that a model has earned; `None` where it does not know.
pub(crate) async fn earnings(client: &Client, name: &str, root: ModelRoot) -> Option<Value> {
    let hub = client.network().file.hub.as_deref()?;
    let (name, _) = repository(name).ok()?;
    let http = reqwest::Client::new();
    let answer = ask_hub(&http, hub, &format!("/api/opg/models/{name}/earnings"), &[])
        .await
        .ok()?;
    let models = answer.get("models")?.as_array()?;
    let own = models.iter().find(|model| {
        let text = model.get("root").and_then(Value::as_str);
        text.and_then(|text| text.parse::<ModelRoot>().ok()) == Some(root)
    })?;
    let of = |key: &str| own.get(key).cloned().unwrap_or_default();
    Some(json!({
        "calls": of("calls"), "charged": of("charged"), "earned": of("earned"), "waiting": of("waiting"),
        "block": answer.get("block"),
    }))
}
