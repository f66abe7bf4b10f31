//! The commands `status` and `explain`, which ask the running proxy.

use std::{io, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;

use super::{
    USAGE,
    cli::{Explain, Inquiry, Output},
};
use crate::{
    admin, cause,
    handover::inquiry,
    status::{self, Status, UpstreamStatus},
};

/// How long to wait for an answer. A live proxy answers within milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What to try if no proxy answers at the socket.
const HINT: &str = "hint: give the --socket that the proxy was given as `run --socket`.
      On a node of a cluster the socket is inside the proxy's pod:
        kubectl -n trivet-system get pods -l app.kubernetes.io/name=trivet-proxy -o wide
        kubectl -n trivet-system exec POD -- /trivet-proxy status";

/// Prints the whole proxy.
pub(crate) fn status(runtime: &Runtime, inquiry: Inquiry) -> Result<ExitCode> {
    let (output, handover_dir) = (inquiry.output, inquiry.handover_dir.clone());
    let Some(mut status) = ask(runtime, inquiry)? else {
        return Ok(ExitCode::FAILURE);
    };
    if let Some(directory) = handover_dir {
        match runtime.block_on(inquiry::ask(&directory, ANSWER_LIMIT)) {
            Ok(processes) => status.handover = Some(processes),
            Err(error) => eprintln!(
                "trivet-proxy: which process of the node serves is unknown: --handover-dir {}: {}",
                directory.display(),
                cause::chain(&error)
            ),
        }
    }
    print!(
        "{}",
        match output {
            Output::Table => status::overview(&status),
            Output::Json => json(&status)?,
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// Prints why a member is in its state.
pub(crate) fn explain(runtime: &Runtime, explain: Explain) -> Result<ExitCode> {
    let Explain { member, inquiry } = explain;
    let output = inquiry.output;
    let Some(status) = ask(runtime, inquiry)? else {
        return Ok(ExitCode::FAILURE);
    };
    let extras = status.extra_listeners.into_iter();
    let (found, others): (Vec<_>, Vec<_>) = status
        .upstreams
        .into_iter()
        .chain(extras.flat_map(|listener| listener.upstreams))
        .partition(|upstream| upstream.member == member);
    if found.is_empty() {
        eprintln!("{}", unknown(&member, &others));
        return Ok(ExitCode::from(USAGE));
    }
    match output {
        Output::Table => {
            let accounts: Vec<_> = found.iter().map(status::account).collect();
            print!("{}", accounts.join("\n"));
        }
        Output::Json => print!("{}", json(&found)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// The status of the running proxy; none, after a message, if no proxy listens there.
fn ask(runtime: &Runtime, inquiry: Inquiry) -> Result<Option<Status>> {
    let socket = inquiry.socket;
    let answer = runtime.block_on(admin::ask(socket.clone(), "/status", ANSWER_LIMIT));
    let (known, text) = match answer {
        Err(admin::Error::Connect(_, error)) => {
            eprintln!("{}", no_proxy(&socket, &error));
            return Ok(None);
        }
        answer => answer?,
    };
    if !known {
        bail!("the proxy at {} does not answer: {text}", socket.display());
    }
    let status = serde_json::from_str(&text);
    let status = status.with_context(|| format!("failed to read the answer of {}", socket.display()))?;
    Ok(Some(status))
}

fn no_proxy(socket: &Path, error: &io::Error) -> String {
    format!(
        "trivet-proxy: no proxy answers at --socket {}: {error}\n{HINT}",
        socket.display()
    )
}

fn unknown(member: &str, known: &[UpstreamStatus]) -> String {
    let mut names: Vec<_> = known.iter().map(|upstream| upstream.member.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let known = if names.is_empty() {
        "none: there is no document yet".to_owned()
    } else {
        names.join(", ")
    };
    format!("trivet-proxy: MEMBER {member:?} must be one that the proxy knows; it knows {known}")
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).context("failed to print the answer")?;
    Ok(text + "\n")
}
