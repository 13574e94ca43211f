//! `sms-outbox sandbox`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::sandbox::{self, Options};

/// Run a pretend provider that speaks the wire of every provider, for trying out
///
/// The first line on standard output says where it listens. POST /control/rules tells it how to answer, GET /control/journal what
/// it accepted. Recipients ending in 990001 to 990014 are answered badly, each in its own way (+966500990001: refused).
#[derive(Debug, Args)]
pub(super) struct SandboxArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8025", value_parser = address)]
    listen: SocketAddr,
    /// Also append everything that is accepted to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Also append every request that could cause a send to this file, with what is done with it, before it is done
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,
    /// Answer by the rules alone: no recipient has a meaning by its last digits
    #[arg(long)]
    no_magic_numbers: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8025".to_owned())
}

pub(super) async fn run(args: SandboxArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen: cannot listen on {}; another port, or 0 for a free one", args.listen))?;
    writeln!(io::stdout().lock(), "listening on http://{}", listener.local_addr()?)?;
    let options = Options {
        journal: args.journal,
        requests: args.requests,
        magic_numbers: !args.no_magic_numbers,
        ..Options::default()
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    sandbox::serve(listener, options, stop).await.context("--journal, --requests: cannot be written")
}
