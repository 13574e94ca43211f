//! `sms-outbox sandbox`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use crate::sandbox;

/// Run a pretend provider that speaks the wire of every provider, for trying out
///
/// The first line on standard output says where it listens. PUT /control/rules tells it how to answer, GET /control/journal what
/// it accepted.
#[derive(Debug, Args)]
pub(super) struct SandboxArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8025")]
    listen: SocketAddr,
    /// Also append everything that is accepted to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

pub(super) async fn run(args: SandboxArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen: cannot listen on {}; another port, or 0 for a free one", args.listen))?;
    writeln!(io::stdout().lock(), "listening on http://{}", listener.local_addr()?)?;
    sandbox::serve(listener, args.journal).await
}
