//! `opg gov`: propose, vote, queue, execute.

use std::{path::Path, process::ExitCode, time::Duration};

use alloy_primitives::Address;
use opg_client::{
    Call, Change, Client, Draft, GovernanceState, Proposal, ProposalState, Sent, Setting, Support, Wallet,
    text::one_line,
};
use opg_contracts::addresses;
use serde_json::json;

use super::{
    input_text,
    staking::{account, at, duration},
};
use crate::{
    args::{
        GovCommand, GovStepArgs, KeyArgs, NetworkArgs, PoolArg, ProposeArgs, ProposeCommand, PurseArgs, SupportArg,
    },
    failure::Failure,
    output::{Output, facts, table},
};

/// Runs a command of governance.
pub(crate) async fn run(command: GovCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        GovCommand::Ls { id, purse } => ls(id.as_deref(), &purse, output).await,
        GovCommand::Propose(args) => propose(args, output).await,
        GovCommand::Vote {
            id,
            support,
            reason,
            how,
        } => {
            let support = match support {
                SupportArg::For => Support::For,
                SupportArg::Against => Support::Against,
                SupportArg::Abstain => Support::Abstain,
            };
            step(&id, Step::Vote(support, reason), how, output).await
        }
        GovCommand::Queue { id, how } => step(&id, Step::Queue, how, output).await,
        GovCommand::Execute { id, how } => step(&id, Step::Execute, how, output).await,
        GovCommand::Delegate {
            to,
            held_only,
            dry_run,
            purse,
        } => delegate(to, held_only, dry_run, &purse, output).await,
        GovCommand::AcceptVotes { stop, purse } => {
            let (client, wallet) = account(&purse)?;
            let sent = client.accept_votes(&wallet, !stop).await?;
            let document = json!({ "account": wallet.address(), "accepts": !stop, "transaction": sent });
            output.result(&document, || {
                let word = if stop { "no longer takes" } else { "takes" };
                format!("{} {word} votes of others' stake {}", wallet.address(), at(&sent))
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn ls(id: Option<&str>, purse: &PurseArgs, output: Output) -> Result<ExitCode, Failure> {
    let client = super::client(&purse.network)?;
    let state = client.governance().await?;
    if let Some(id) = id {
        let proposal = client.proposal(id).await?;
        output.result(&json!({ "now": state.now, "proposal": proposal }), || {
            show(&proposal, &state)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    // Whoever only looks needs no wallet.
    let votes = match super::wallet(&purse.key, Some(client.network())) {
        Ok(wallet) => Some((wallet.address(), client.votes(wallet.address()).await?)),
        Err(_) if purse.key.key.is_none() => None,
        Err(failure) => return Err(failure),
    };
    let proposals = client.proposals().await?;
    let document = json!({
        "governance": state, "proposals": proposals,
        "account": votes.map(|(account, _)| account), "votes": votes.map(|(_, votes)| votes),
    });
    output.result(&document, || {
        let mut rows = vec![
            (
                "a proposal",
                format!(
                    "needs {} votes, waits {}, is voted on for {}",
                    state.proposal_threshold,
                    duration(state.voting_delay),
                    duration(state.voting_period)
                ),
            ),
            (
                "passes with",
                format!(
                    "more votes for it than against, and {} for it or abstaining",
                    state.quorum
                ),
            ),
            (
                "is executed",
                format!("{} after it is queued", duration(state.timelock_delay)),
            ),
        ];
        if let Some(guardian) = state.guardian {
            rows.push(("guardian", format!("{guardian} may cancel what is queued")));
        }
        if let Some((account, votes)) = &votes {
            let from = format!("{account} has {} ({} from stake)", votes.total(), votes.staked);
            let hint = match votes.held_delegate {
                None => "; its OPG votes after `opg gov delegate`",
                Some(_) => "",
            };
            rows.push(("votes", format!("{from}{hint}")));
        }
        let mut list = table(["proposal", "state", "for", "against", "abstain", "when", "title"]);
        for proposal in &proposals {
            list.add_row([
                proposal.id.to_string().get(..12).unwrap_or_default().to_owned(),
                proposal.state.as_str().into(),
                proposal.votes.yes.to_string(),
                proposal.votes.against.to_string(),
                proposal.votes.abstain.to_string(),
                when(proposal, state.now),
                one_line(proposal.title(), 60),
            ]);
        }
        let list = if proposals.is_empty() {
            "no proposals".to_owned()
        } else {
            list.to_string()
        };
        format!("{}\n{list}", facts(rows))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What a proposal waits for.
fn when(proposal: &Proposal, now: u64) -> String {
    let left = |then: u64| duration(then.saturating_sub(now));
    match proposal.state {
        ProposalState::Pending => format!("vote begins in {}", left(proposal.vote_start + 1)),
        ProposalState::Active => format!("vote ends in {}", left(proposal.vote_end + 1)),
        ProposalState::Succeeded => "can be queued".into(),
        ProposalState::Queued => match proposal.eta {
            Some(eta) if eta > now => format!("executable in {}", left(eta)),
            _ => "can be executed".into(),
        },
        _ => "-".into(),
    }
}

fn show(proposal: &Proposal, state: &GovernanceState) -> String {
    let votes = &proposal.votes;
    let mut text = facts([
        ("proposal", proposal.id.to_string()),
        ("by", format!("{} in block {}", proposal.proposer, proposal.block)),
        (
            "state",
            format!("{}, {}", proposal.state.as_str(), when(proposal, state.now)),
        ),
        (
            "votes",
            format!(
                "{} for, {} against, {} abstain",
                votes.yes, votes.against, votes.abstain
            ),
        ),
        ("quorum", format!("{} for or abstaining", votes.quorum)),
    ]);
    text += "\nwhat it does:\n";
    text += &effects(&proposal.effects);
    text += "\nwhat its author says:\n";
    for line in proposal.description.lines() {
        text += &format!("  {}\n", one_line(line, 400));
    }
    text
}

fn effects(effects: &[String]) -> String {
    let line = |(i, effect): (usize, &String)| format!("  {}. {}\n", i + 1, one_line(effect, 3_000));
    effects.iter().enumerate().map(line).collect()
}

async fn propose(args: ProposeArgs, output: Output) -> Result<ExitCode, Failure> {
    let purse = PurseArgs {
        key: KeyArgs { key: args.key.clone() },
        network: NetworkArgs { dir: args.dir.clone() },
    };
    let (client, wallet) = account(&purse)?;
    let state = client.governance().await?;
    let draft = draft(&client, &args).await?;
    client.check_draft(&draft).await?;
    let effects_ = draft.effects();
    let said = format!(
        "proposes, in the name of {}:\n{}It needs {} votes to be proposed and locks nothing. The vote begins {} after the proposal with the votes that accounts have then, and lasts {}; \
         it passes with more votes for it than against and {} or more for it or abstaining. Then it can be queued, and executed {} later.",
        wallet.address(),
        effects(&effects_),
        state.proposal_threshold,
        duration(state.voting_delay),
        duration(state.voting_period),
        state.quorum,
        duration(state.timelock_delay)
    );
    let mut document = json!({
        "proposer": wallet.address(), "draft": draft, "effects": effects_, "governance": state, "dry_run": args.dry_run,
    });
    if args.dry_run {
        output.result(&document, || format!("{said}\nnothing was sent: this was a dry run"))?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{said}");
    let spinner = output.spinner("waiting for the block");
    let proposed = client.propose(&wallet, &draft).await;
    spinner.finish_and_clear();
    let (sent, id) = proposed?;
    document["id"] = json!(id);
    document["transaction"] = json!(sent);
    output.result(&document, || {
        format!("proposal {id} {}\nvote with `opg gov vote {id} for --wait`", at(&sent))
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn draft(client: &Client, args: &ProposeArgs) -> Result<Draft, Failure> {
    let calls = match change(&args.change)? {
        What::Change(change) => client.calls_of(&change).await?,
        What::Call(call) => vec![call],
        What::Draft(mut draft) => {
            if args.title.is_some() || args.description.is_some() {
                draft.description = describe(args, &draft.effects())?;
            }
            return Ok(draft);
        }
    };
    let effects: Vec<_> = calls.iter().map(Call::describe).collect();
    let description = describe(args, &effects)?;
    Ok(Draft { description, calls })
}

/// Title and reasons.
fn describe(args: &ProposeArgs, effects: &[String]) -> Result<String, Failure> {
    let title = match &args.title {
        Some(title) => title.trim().to_owned(),
        None => effects.join("; "),
    };
    if title.contains('\n') {
        return Err(Failure::usage(
            "--title: expected one line; put the rest into --description",
        ));
    }
    Ok(match &args.description {
        Some(text) => format!("{title}\n\n{}", input_text(text, true)?.trim()),
        None => title,
    })
}

enum What {
    Change(Change),
    Call(Call),
    Draft(Draft),
}

fn read(path: &Path) -> Result<String, Failure> {
    input_text(&format!("@{}", path.display()), true)
}

fn change(command: &ProposeCommand) -> Result<What, Failure> {
    let change = match command {
        ProposeCommand::ChainParameters {
            gas_limit,
            verification_budget,
            at,
        } => Change::ChainParameters {
            gas_limit: *gas_limit,
            verification_budget: *verification_budget,
            at: *at,
        },
        ProposeCommand::FeeSplit {
            node,
            auditors,
            treasury,
            router,
        } => Change::FeeSplit {
            weights: [*node, *auditors, *treasury, *router],
        },
        ProposeCommand::ClosedFeeSplit {
            node,
            auditors,
            treasury,
            router,
        } => Change::ClosedFeeSplit {
            weights: [*node, *auditors, *treasury, *router],
        },
        ProposeCommand::EscrowWindows { none, tee, zk, replay } => Change::EscrowWindows {
            windows: [*none, *tee, *zk, *replay],
        },
        ProposeCommand::Staking {
            min_self_bond,
            unbonding,
            jail_time,
            max_seats,
            commission_step,
            min_views,
            min_led_ppm,
        } => Change::Staking {
            min_self_bond: *min_self_bond,
            unbonding: *unbonding,
            jail_time: *jail_time,
            max_seats: *max_seats,
            commission_step: *commission_step,
            min_views: *min_views,
            min_led_ppm: *min_led_ppm,
        },
        ProposeCommand::Slashing {
            challenger_bond,
            appeal_window,
            equivocation_ppm,
            downtime_ppm,
            correlation,
        } => Change::Slashing {
            challenger_bond: *challenger_bond,
            appeal_window: *appeal_window,
            equivocation_ppm: *equivocation_ppm,
            downtime_ppm: *downtime_ppm,
            correlation: *correlation,
        },
        ProposeCommand::DismissCase { id } => Change::DismissCase { id: *id },
        ProposeCommand::Emission {
            auditors_ppm,
            nodes_ppm,
        } => Change::Emission {
            auditors_ppm: *auditors_ppm,
            nodes_ppm: *nodes_ppm,
        },
        ProposeCommand::EmissionRecipient { pool, to } => Change::EmissionRecipient {
            nodes: *pool == PoolArg::Nodes,
            to: *to,
        },
        ProposeCommand::Spend { to, amount, native } => Change::Spend {
            to: *to,
            amount: *amount,
            token: (!native).then_some(addresses::OPG),
        },
        ProposeCommand::Tier {
            index,
            threshold,
            discount_bps,
            requests_per_minute,
            max_request_bytes,
        } => Change::Tier {
            index: *index,
            threshold: *threshold,
            discount_bps: *discount_bps,
            requests_per_minute: *requests_per_minute,
            max_request_bytes: *max_request_bytes,
        },
        ProposeCommand::Oracle { min_feeds, max_age } => Change::Oracle {
            min_feeds: *min_feeds,
            max_age: *max_age,
        },
        ProposeCommand::EvidencePolicy { file } => Change::EvidencePolicy { policy: read(file)? },
        ProposeCommand::EvidenceRevoke { subject } => Change::EvidenceRevoke { subject: *subject },
        ProposeCommand::Governance {
            delay,
            period,
            threshold,
            quorum_bps,
            timelock_delay,
        } => {
            let settings = [
                delay.map(Setting::VotingDelay),
                period.map(Setting::VotingPeriod),
                threshold.map(Setting::ProposalThreshold),
                quorum_bps.map(Setting::QuorumBps),
                timelock_delay.map(Setting::TimelockDelay),
            ];
            Change::Governance {
                settings: settings.into_iter().flatten().collect(),
            }
        }
        ProposeCommand::Call {
            target,
            calldata,
            signature,
            arguments,
            value,
        } => {
            let call = match (signature, calldata) {
                (Some(signature), _) => {
                    Call::by_signature(*target, *value, signature, arguments).map_err(opg_client::ClientError::from)?
                }
                // clap lets one of the two through.
                (None, calldata) => Call {
                    target: *target,
                    value: *value,
                    calldata: calldata.clone().unwrap_or_default(),
                },
            };
            return Ok(What::Call(call));
        }
        ProposeCommand::Draft { file } => {
            let draft = Draft::from_json(&read(file)?).map_err(opg_client::ClientError::from)?;
            return Ok(What::Draft(draft));
        }
    };
    Ok(What::Change(change))
}

enum Step {
    Vote(Support, String),
    Queue,
    Execute,
}

async fn step(id: &str, step: Step, how: GovStepArgs, output: Output) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(&how.purse)?;
    let proposal = client.proposal(id).await?;
    let id = proposal.id;
    let does = effects(&proposal.effects);
    let (wanted, said) = match &step {
        Step::Vote(support, _) => {
            let word = match support {
                Support::For => "for",
                Support::Against => "against",
                Support::Abstain => "neither for nor against",
            };
            (
                ProposalState::Active,
                format!(
                    "votes {word} proposal {id} with all votes of {}, once and for all; it does:\n{does}",
                    wallet.address()
                ),
            )
        }
        Step::Queue => (
            ProposalState::Succeeded,
            format!(
                "queues proposal {id}: it can be executed {} later; it does:\n{does}",
                duration(client.governance().await?.timelock_delay)
            ),
        ),
        Step::Execute => (ProposalState::Queued, format!("executes proposal {id}:\n{does}")),
    };
    let mut document = json!({
        "account": wallet.address(), "id": id, "effects": proposal.effects, "dry_run": how.dry_run,
    });
    if how.dry_run {
        document["state"] = json!(proposal.state);
        output.result(&document, || {
            format!(
                "{said}it is {} now\nnothing was sent: this was a dry run",
                proposal.state.as_str()
            )
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seconds) = how.wait {
        let spinner = output.spinner("waiting until it is possible");
        let waited = client
            .wait_proposal(&proposal, wanted, Duration::from_secs(seconds))
            .await;
        spinner.finish_and_clear();
        waited?;
    }
    eprint!("{said}");
    let spinner = output.spinner("waiting for the block");
    let outcome = carry_out(&client, &wallet, &proposal, &step).await;
    spinner.finish_and_clear();
    let (sent, line) = outcome?;
    let after = client.proposal(&id.to_string()).await?;
    document["transaction"] = json!(sent);
    document["state"] = json!(after.state);
    document["votes"] = json!(after.votes);
    document["eta"] = json!(after.eta);
    if let Step::Vote(support, _) = step {
        document["support"] = json!(support);
    }
    output.result(&document, || format!("{line} {}", at(&sent)))?;
    Ok(ExitCode::SUCCESS)
}

async fn carry_out(
    client: &Client,
    wallet: &Wallet,
    proposal: &Proposal,
    step: &Step,
) -> Result<(Sent, String), Failure> {
    Ok(match step {
        Step::Vote(support, reason) => {
            let (sent, weight) = client.vote(wallet, proposal, *support, reason).await?;
            (sent, format!("voted with {weight}"))
        }
        Step::Queue => (client.queue_proposal(wallet, proposal).await?, "queued".into()),
        Step::Execute => (client.execute_proposal(wallet, proposal).await?, "executed".into()),
    })
}

async fn delegate(
    to: Option<Address>,
    held_only: bool,
    dry_run: bool,
    purse: &PurseArgs,
    output: Output,
) -> Result<ExitCode, Failure> {
    let (client, wallet) = account(purse)?;
    let from = wallet.address();
    let to = to.unwrap_or(from);
    if to.is_zero() {
        return Err(Failure::usage(
            "TO: expected an account, got zero; votes of nobody cannot be cast",
        ));
    }
    client.governance().await?;
    let whose = if to == from {
        "itself".to_owned()
    } else {
        to.to_string()
    };
    let what = if held_only {
        "the OPG it holds"
    } else {
        "the OPG it holds and has staked"
    };
    let said = format!(
        "gives the votes of {what}, now and later, from {from} to {whose}: nothing moves, and it can be changed at any time; proposals whose vote has begun are not touched"
    );
    let mut document = json!({ "account": from, "to": to, "held_only": held_only, "dry_run": dry_run });
    if dry_run {
        document["votes"] = json!(client.votes(from).await?);
        output.result(&document, || format!("{said}\nnothing was sent: this was a dry run"))?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{said}");
    let spinner = output.spinner("waiting for the block");
    let sent = client.delegate_votes(&wallet, to, !held_only).await;
    spinner.finish_and_clear();
    let sent = sent?;
    let votes = client.votes(to).await?;
    document["transactions"] = json!(sent);
    document["votes"] = json!(votes);
    output.result(&document, || {
        let done = sent.last().map_or_else(|| "was so already".to_owned(), at);
        format!("{to} has {} votes ({} from stake) {done}", votes.total(), votes.staked)
    })?;
    Ok(ExitCode::SUCCESS)
}
