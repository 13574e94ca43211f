//! `sms-outbox completions` and `sms-outbox man`: made from the same definition as the help.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

use super::command;
use super::terminal::Terminal;

/// Print completions for a shell
///
/// For bash: sms-outbox completions bash > ~/.local/share/bash-completion/completions/sms-outbox
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands to a directory
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write sms-outbox.1 and one page per command here
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

pub(super) fn completions(terminal: &Terminal, args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "sms-outbox", &mut script);
    terminal.raw(&script)
}

pub(super) fn man(terminal: &Terminal, args: &ManArgs) -> anyhow::Result<()> {
    match &args.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .and_then(|()| clap_mangen::generate_to(command(), directory))
                .with_context(|| format!("--directory: {} cannot be written", directory.display()))?;
            terminal.note(&format!("wrote the pages to {}; read one with: man -l FILE", directory.display()));
            Ok(())
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command()).render(&mut page)?;
            terminal.raw(&page)
        }
    }
}
