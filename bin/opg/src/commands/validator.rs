//! `opg node init`, `register`, `rotate-keys`, `commission`, `unjail` and `exit`: a validator's own commands.

use std::{path::Path, process::ExitCode};

use opg_client::{Client, ClientError, NewValidator, RegistrationError, Sent};
use opg_contracts::ValidatorKeys::KeyRegistration;
use opg_devnet::{Devnet, JoinOptions};
use opg_full_node::{
    ConfigError, FullNodeConfig, Keys, PeerConfig,
    registration::{PublicKeys, public_keys, registration},
};
use serde_json::{Value, json};

use super::{
    client,
    staking::{account, at, duration, percent},
};
use crate::{
    args::{NodeInitArgs, OperatorArgs, RegisterFullArgs, RotateKeysArgs},
    failure::Failure,
    output::Output,
};

/// Keys of a full node whose configuration belongs to the client's network.
struct NodeKeys<'a> {
    keys: Keys,
    file: std::path::PathBuf,
    public: PublicKeys,
    client: &'a Client,
    operator: alloy_primitives::Address,
}

impl<'a> NodeKeys<'a> {
    fn load(client: &'a Client, config: &Path, operator: alloy_primitives::Address) -> Result<Self, Failure> {
        let config = FullNodeConfig::load(config).map_err(Failure::input)?;
        let genesis = opg_client::load_genesis(&config.genesis)?;
        let (of_node, of_network) = (genesis.digest(), client.network().genesis.digest());
        if of_node != of_network {
            return Err(Failure::usage(format!(
                "field `genesis` of the configuration: expected the network's genesis {of_network}, got {of_node}; name the network with --dir"
            )));
        }
        let keys = Keys::load(&config.keys).map_err(Failure::input)?;
        let public = public_keys(&keys, &config.keys).map_err(Failure::input)?;
        Ok(Self {
            keys,
            file: config.keys,
            public,
            client,
            operator,
        })
    }

    /// Keys and proofs for an epoch.
    fn prove(&self, epoch: u64) -> Result<KeyRegistration, ClientError> {
        let chain_id = self.client.network().file.chain_id;
        let made = registration(&self.keys, &self.file, chain_id, self.operator, epoch);
        made.map_err(|error: ConfigError| RegistrationError::Keys(error.to_string()).into())
    }

    fn bls(&self) -> &[u8] {
        self.public.bls.as_slice()
    }

    fn json(&self) -> Value {
        json!({ "identity": self.public.identity, "bls": self.public.bls, "system": self.public.system })
    }
}

/// `opg node init`.
pub(crate) fn init(args: NodeInitArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = client(&args.network)?;
    let peers = args.peers.into_iter().map(|peer| PeerConfig {
        identity: peer.identity,
        address: peer.address,
    });
    let options = JoinOptions {
        peers: peers.collect(),
        rpc: args.rpc,
        p2p: args.p2p,
        metrics: args.metrics,
    };
    let joined = Devnet::join(client.network(), &args.out, options)?;
    output.result(&joined, || {
        let (config, key) = (joined.config.display(), joined.operator_key.display());
        format!(
            "full node written to {}; it listens at {} and {}\n\
             operator {}: give it OPG for the bond and native OPG for gas, then\n\
             \x20 opg node full --config {config}\n\
             \x20 opg node register full --config {config} --key {key}\n\
             Validators let it connect from the epoch after its registration on, or as soon as one lists it as a peer.",
            joined.dir.display(),
            joined.rpc,
            joined.p2p,
            joined.operator
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `opg node register full`.
pub(crate) async fn register(args: RegisterFullArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.operator.purse)?;
    let operator = wallet.address();
    let keys = NodeKeys::load(&client, &args.config, operator)?;
    let state = client.staking().await?;
    let terms = NewValidator {
        bond: args.bond.unwrap_or(state.min_self_bond),
        commission_bps: args.commission,
        gas: args.gas,
    };
    let said = format!(
        "registers {operator} as a validator with its keys, for ever: locks {} OPG of its own, which is slashed for its faults and takes {} to come back; keeps {} of the rewards; gives its system account {} up to {} native OPG for gas",
        terms.bond,
        duration(state.unbonding_seconds),
        percent(terms.commission_bps),
        keys.public.system,
        terms.gas
    );
    let document = json!({
        "operator": operator, "bond": terms.bond, "commission_bps": terms.commission_bps, "keys": keys.json(),
        "epoch": state.epoch, "unbonding_seconds": state.unbonding_seconds, "dry_run": args.operator.dry_run,
    });
    if args.operator.dry_run {
        let proven = keys.prove(state.epoch)?;
        client.check_registration(operator, &proven, keys.bls(), &terms).await?;
    }
    let send = client.register_validator(&wallet, &terms, keys.bls(), |epoch| keys.prove(epoch));
    act(&args.operator, output, said, document, send, |sent| {
        format!("registered; it can have a seat from the next epoch on {}", last(sent))
    })
    .await
}

/// `opg node rotate-keys`.
pub(crate) async fn rotate_keys(args: RotateKeysArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.operator.purse)?;
    let operator = wallet.address();
    let keys = NodeKeys::load(&client, &args.config, operator)?;
    client.own_validator(operator).await?;
    let said = format!(
        "gives validator {operator} the keys of {} from its next seat on; the ones in use stay in use until their epoch ends, and nobody can ever register them again",
        keys.file.display()
    );
    let document = json!({ "operator": operator, "keys": keys.json(), "dry_run": args.operator.dry_run });
    let send = client.rotate_keys(&wallet, args.gas, keys.bls(), |epoch| keys.prove(epoch));
    act(&args.operator, output, said, document, send, |sent| {
        format!("the keys change with the next seat {}", last(sent))
    })
    .await
}

/// `opg node commission`.
pub(crate) async fn commission(bps: u16, args: OperatorArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.purse)?;
    let operator = wallet.address();
    let now = client.own_validator(operator).await?.commission_bps;
    let said = format!(
        "lets validator {operator} keep {} of its rewards instead of {}",
        percent(bps),
        percent(now)
    );
    let document = json!({ "operator": operator, "commission_bps": bps, "before_bps": now, "dry_run": args.dry_run });
    let send = async { Ok(vec![client.set_commission(&wallet, bps).await?]) };
    act(&args, output, said, document, send, |sent| {
        format!("the commission is {} {}", percent(bps), last(sent))
    })
    .await
}

/// `opg node unjail`.
pub(crate) async fn unjail(args: OperatorArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.purse)?;
    let operator = wallet.address();
    client.own_validator(operator).await?;
    let said = format!("takes validator {operator} out of jail; it can have a seat from the next epoch on");
    let document = json!({ "operator": operator, "dry_run": args.dry_run });
    let send = async { Ok(vec![client.unjail(&wallet).await?]) };
    act(&args, output, said, document, send, |sent| {
        format!("out of jail {}", last(sent))
    })
    .await
}

/// `opg node exit`.
pub(crate) async fn exit(args: OperatorArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&args.purse)?;
    let operator = wallet.address();
    let validator = client.own_validator(operator).await?;
    let said = format!(
        "takes validator {operator} out of the network for ever: its seat lasts until the epoch ends, the {} OPG behind it earn nothing from then on and are taken out with `opg unstake {operator} --all` by whom they belong to",
        validator.stake
    );
    let document = json!({ "operator": operator, "stake": validator.stake, "dry_run": args.dry_run });
    let send = async { Ok(vec![client.exit_validator(&wallet).await?]) };
    act(&args, output, said, document, send, |sent| {
        format!("left; keep the node running until the epoch is over {}", last(sent))
    })
    .await
}

/// Says what happens, then does it unless it is a dry run.
pub(super) async fn act(
    args: &OperatorArgs,
    output: Output,
    said: String,
    mut document: Value,
    send: impl Future<Output = Result<Vec<Sent>, ClientError>>,
    done: impl FnOnce(&[Sent]) -> String,
) -> Result<ExitCode, Failure> {
    if args.dry_run {
        output.result(&document, || format!("{said}\nnothing was sent: this was a dry run"))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Said before anything is locked or given up.
    eprintln!("{said}");
    let spinner = output.spinner("waiting for the block");
    let sent = send.await;
    spinner.finish_and_clear();
    let sent = sent?;
    document["transactions"] = json!(sent);
    output.result(&document, || done(&sent))?;
    Ok(ExitCode::SUCCESS)
}

fn last(sent: &[Sent]) -> String {
    sent.last().map(at).unwrap_or_default()
}
