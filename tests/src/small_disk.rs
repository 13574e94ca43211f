//! A small file system for a server's WAL, in a mount namespace of its own: nobody outside sees it, and it goes with the process
//! that holds it. Made by root, or by anybody where user namespaces are allowed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{getegid, geteuid};

use crate::process::{Process, Signal, output};
use crate::wait::poll;

/// A mounted file system. Dropped, it is gone with all that is in it.
#[derive(Debug)]
pub struct SmallDisk {
    keeper: Process,
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one on `folder`, an empty one of `owner`; nothing where this machine allows it to nobody.
    pub(crate) async fn mount(folder: &Path, megabytes: u32, owner: (u32, u32), log: &Path) -> Result<Option<Self>> {
        let mut options = format!("size={megabytes}m,mode=0700");
        let mut command = Command::new("unshare");
        if geteuid().is_root() {
            options.push_str(&format!(",uid={},gid={}", owner.0, owner.1));
        } else {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", "mount -t tmpfs -o \"$1\" tmpfs \"$2\" && exec sleep infinity", "sh"]);
        command.arg(options).arg(folder);
        let mut disk =
            Self { keeper: Process::spawn("small disk", command, log, Signal::KILL)?, folder: folder.to_owned() };
        let mounts = format!("/proc/{}/mounts", disk.keeper.id());
        let line = format!(" {} tmpfs ", folder.display());
        let mounted = async || {
            let there = fs::read_to_string(&mounts).is_ok_and(|mounts| mounts.contains(&line));
            Ok((there || !disk.keeper.is_running()).then_some(there))
        };
        let there = poll("the small disk is mounted", mounted, async || String::new()).await?;
        Ok(there.then_some(disk))
    }

    /// Its files, as seen from here.
    fn seen(&self, name: &str) -> PathBuf {
        let folder = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        PathBuf::from(format!("/proc/{}/root", self.keeper.id())).join(folder).join(name)
    }

    /// Moves the content of a folder onto it, and leaves a link.
    pub(crate) async fn take(&self, folder: &Path) -> Result<()> {
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(folder.join(".")).arg(self.seen(""));
        output(copy).await.context("cannot copy onto the small disk")?;
        fs::remove_dir_all(folder)?;
        std::os::unix::fs::symlink(&self.folder, folder)?;
        Ok(())
    }

    /// The same command where this file system is seen, run by `owner`.
    pub(crate) fn enter(&self, command: &Command, owner: (u32, u32)) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.keeper.id().to_string(), "--mount"]);
        if geteuid().is_root() {
            inside.args(["--", "setpriv", "--clear-groups"]);
            inside.args([format!("--reuid={}", owner.0), format!("--regid={}", owner.1), "--".to_owned()]);
        } else {
            // Root of that namespace, which a server refuses to be: in one more it is itself again.
            inside.args(["--user", "--", "unshare", "--user"]);
            inside.args([
                format!("--map-user={}", geteuid().as_raw()),
                format!("--map-group={}", getegid().as_raw()),
                "--".to_owned(),
            ]);
        }
        inside.arg(command.get_program()).args(command.get_args()).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = OpenOptions::new().create(true).append(true).open(self.seen("ballast"))?;
        let block = vec![0; 65_536];
        while ballast.write_all(&block).is_ok() {}
        Ok(())
    }

    /// Gives it back.
    pub fn clear(&self) -> Result<()> {
        ensure!(self.seen("ballast").exists(), "the disk is not full");
        Ok(fs::remove_file(self.seen("ballast"))?)
    }
}
