//! A private PostgreSQL server: started, stopped and killed at will, gone when dropped.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use uuid::Uuid;

use crate::process::{Process, Signal, output, tail};
use crate::small_disk::SmallDisk;
use crate::wait::poll;
use crate::{database, paths, patience, run};

/// A supported major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say all")]
pub enum Major {
    V15 = 15,
    V16 = 16,
    V17 = 17,
    V18 = 18,
}

impl Major {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V15, Self::V16, Self::V17, Self::V18];
}

impl fmt::Display for Major {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", *self as u8)
    }
}

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends the sessions, writes all to disk.
    Fast,
    /// As if the power failed, but for the removal of shared memory: recovery at the next start.
    Immediate,
    /// SIGKILL of the postmaster: its children notice and leave.
    Kill,
}

/// What a cluster shall be like.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    major: Major,
    preload: bool,
    durable: bool,
    other_system: bool,
    small_wal: Option<u32>,
    settings: Vec<(String, String)>,
    scripts: Vec<(String, String)>,
}

impl Options {
    /// Leaves the library out of `shared_preload_libraries`.
    pub fn without_preload(mut self) -> Self {
        self.preload = false;
        self
    }

    /// Real fsync and full page writes, for tests of crashes of the machine.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Another system identifier than the clusters without this: for tests of restoring elsewhere.
    pub fn other_system(mut self) -> Self {
        self.other_system = true;
        self
    }

    /// Puts the WAL on a file system of so many megabytes, where this machine allows that: see [`Cluster::wal_disk`].
    pub fn small_wal(mut self, megabytes: u32) -> Self {
        self.small_wal = Some(megabytes);
        self
    }

    /// A line of `postgresql.conf`.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file beside the extension's install script, for this server alone.
    pub fn script(mut self, name: &str, content: &str) -> Self {
        self.scripts.push((name.to_owned(), content.to_owned()));
        self
    }

    /// Makes the cluster and starts it.
    pub async fn start(self) -> Result<Arc<Cluster>> {
        let mut cluster = Cluster::make(self.major, Uuid::new_v4().simple().to_string())?;
        if !self.scripts.is_empty() {
            cluster.server = cluster.own_server(&self.scripts).await?;
        }
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).arg(paths::template(self.major, self.other_system)?).arg(cluster.data());
        output(copy).await.context("cannot copy the template")?;
        if let Some(megabytes) = self.small_wal {
            cluster.disk = cluster.small_disk(megabytes).await?;
        }
        cluster.configure(&self)?;
        cluster.start().await?;
        Ok(Arc::new(cluster))
    }
}

/// A private PostgreSQL server.
#[derive(Debug)]
pub struct Cluster {
    major: Major,
    /// The programs and files of PostgreSQL.
    server: PathBuf,
    folder: PathBuf,
    /// Who runs the server: never root.
    owner: (u32, u32),
    port: u16,
    password: String,
    postmaster: Mutex<Option<Process>>,
    /// What its WAL lies on. After the postmaster: it goes last.
    disk: Option<SmallDisk>,
}

impl Cluster {
    /// Starts one with the library preloaded and without fsync.
    pub async fn start_new(major: Major) -> Result<Arc<Self>> {
        Self::options(major).start().await
    }

    /// Starts one that is different.
    pub fn options(major: Major) -> Options {
        Options {
            major,
            preload: true,
            durable: false,
            other_system: false,
            small_wal: None,
            settings: Vec::new(),
            scripts: Vec::new(),
        }
    }

    /// Starts a streaming standby of this one, from a base backup.
    pub async fn standby(&self) -> Result<Arc<Self>> {
        let standby = Self::make(self.major, self.password.clone())?;
        let mut backup = standby.tool("pg_basebackup")?;
        backup.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "--pgdata"]).arg(standby.data());
        backup.arg("--dbname").arg(self.socket_url("postgres", "postgres"));
        output(backup).await?;
        standby
            .append_settings(&[("port", &standby.port.to_string()), ("unix_socket_directories", &standby.sockets())])?;
        standby.start().await?;
        Ok(Arc::new(standby))
    }

    fn make(major: Major, password: String) -> Result<Self> {
        let template = fs::metadata(paths::template(major, false)?)
            .with_context(|| format!("there is no PostgreSQL {major}: run 'make test-build'"))?;
        let owner = (template.uid(), template.gid());
        let folder = run::fresh("pg")?;
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        chown(&folder, Some(owner.0), Some(owner.1))?;
        let server = paths::server(major)?;
        Ok(Self {
            major,
            server,
            folder,
            owner,
            port: free_port()?,
            password,
            postmaster: Mutex::new(None),
            disk: None,
        })
    }

    /// A server tree of this cluster alone, of hard links, with more scripts of the extension. PostgreSQL finds its files
    /// from where its program is.
    async fn own_server(&self, scripts: &[(String, String)]) -> Result<PathBuf> {
        let tree = self.folder.join("server");
        let mut copy = Command::new("cp");
        copy.arg("-al").arg(&self.server).arg(&tree);
        output(copy).await.context("cannot link the server's files")?;
        let mut config = Command::new(tree.join("bin/pg_config"));
        config.arg("--sharedir").env("LD_LIBRARY_PATH", tree.join("lib"));
        let share = PathBuf::from(output(config).await?.trim_end()).join("extension");
        for (name, content) in scripts {
            // Never through a link into the common tree.
            let _ = fs::remove_file(share.join(name));
            fs::write(share.join(name), content)?;
        }
        Ok(tree)
    }

    async fn small_disk(&self, megabytes: u32) -> Result<Option<SmallDisk>> {
        let folder = self.folder.join("wal");
        fs::create_dir(&folder)?;
        chown(&folder, Some(self.owner.0), Some(self.owner.1))?;
        let disk = SmallDisk::mount(&folder, megabytes, self.owner, &self.log_file()).await?;
        if let Some(disk) = &disk {
            disk.take(&self.data().join("pg_wal")).await?;
        }
        Ok(disk)
    }

    fn configure(&self, options: &Options) -> Result<()> {
        let port = self.port.to_string();
        let sockets = self.sockets();
        let mut settings = vec![
            ("port", port.as_str()),
            ("unix_socket_directories", &sockets),
            ("listen_addresses", "127.0.0.1"),
            ("shared_buffers", "16MB"),
            ("max_connections", "200"),
            ("max_prepared_transactions", "10"),
            ("max_wal_size", "256MB"),
            ("log_line_prefix", "%m [%p] %q%a %d %u "),
            ("timezone", "UTC"),
            ("lc_messages", "C"),
        ];
        if options.preload {
            settings.push(("shared_preload_libraries", "sms_outbox"));
        }
        if !options.durable {
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.append_settings(&settings)
    }

    /// Adds lines to `postgresql.conf`; the last one of a name counts. They take effect at the next start or reload.
    pub fn append_settings(&self, settings: &[(&str, &str)]) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.data().join("postgresql.conf"))?;
        for (name, value) in settings {
            writeln!(file, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        Ok(())
    }

    /// Starts the stopped server and waits until it takes connections.
    pub async fn start(&self) -> Result<()> {
        ensure!(self.postmaster().is_none(), "the server runs already");
        let mut command = self.tool("postgres")?;
        command.arg("-D").arg(self.data());
        if let Some(disk) = &self.disk {
            command = disk.enter(&command, self.owner);
        }
        let postmaster = Process::spawn("postgres", command, &self.log_file(), Signal::QUIT)?;
        *self.postmaster() = Some(postmaster);
        let what = format!("PostgreSQL {} takes connections", self.major);
        poll(what, async || self.has_started(), async || self.log_tail()).await?;
        if self.standby_signal() {
            return Ok(());
        }
        let client = database::connect(&self.socket_url("postgres", "postgres")).await?;
        // It can be read while it recovers from an archive.
        let recovered = async || {
            let row = client.query_one("SELECT NOT pg_is_in_recovery()", &[]).await?;
            Ok(row.try_get::<_, bool>(0)?.then_some(()))
        };
        poll("it has recovered", recovered, async || self.log_tail()).await?;
        client.batch_execute(&format!("ALTER ROLE postgres PASSWORD '{}'", self.password)).await?;
        Ok(())
    }

    fn has_started(&self) -> Result<Option<()>> {
        let mut postmaster = self.postmaster();
        let process = postmaster.as_mut().context("it was stopped")?;
        if let Some(status) = process.poll() {
            *postmaster = None;
            bail!("PostgreSQL {} ended at its start ({status}):\n{}", self.major, self.log_tail());
        }
        // The eighth line is written when the server is ready, or a standby reads.
        let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = lock.lines().map(str::trim_end).collect();
        let ours = lines.first().is_some_and(|pid| *pid == process.id().to_string());
        Ok((ours && matches!(lines.get(7), Some(&("ready" | "standby")))).then_some(()))
    }

    /// Stops the server and waits until all of its processes are gone.
    pub async fn stop(&self, how: Stop) -> Result<()> {
        let mut postmaster = self.postmaster().take().context("the server does not run")?;
        postmaster.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        })?;
        postmaster.wait(patience()).await?;
        let gone = async || Ok(self.process_ids().is_empty().then_some(()));
        poll("all processes of the server are gone", gone, async || self.log_tail()).await
    }

    /// Stops and starts it.
    pub async fn restart(&self, how: Stop) -> Result<()> {
        self.stop(how).await?;
        self.start().await
    }

    /// Starts the server where it has ended by itself, as what supervises servers does.
    pub async fn start_if_ended(&self) -> Result<()> {
        let ended = self.postmaster().take_if(|postmaster| !postmaster.is_running()).is_some();
        if ended { self.start().await } else { Ok(()) }
    }

    /// The small file system that its WAL lies on; nothing where this machine allows none.
    pub fn wal_disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// Rereads the configuration, as `pg_ctl reload`.
    pub fn reload(&self) -> Result<()> {
        self.postmaster().as_ref().context("the server does not run")?.signal(Signal::HUP)
    }

    /// Makes a standby the primary, as `pg_ctl promote`.
    pub async fn promote(&self) -> Result<()> {
        let mut promote = self.tool("pg_ctl")?;
        promote.args(["promote", "-w", "-D"]).arg(self.data());
        output(promote).await.map(drop)
    }

    /// The processes that work in its data directory.
    pub fn process_ids(&self) -> Vec<u32> {
        processes_in(&self.data())
    }

    /// A program of this server (`psql`, `pg_dump`, …), run as its owner.
    pub fn tool(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.server.join("bin").join(name));
        command.current_dir(&self.folder).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
        // Its programs find their own libpq; its modules would load the system's, which may be older or missing.
        command.env("LD_LIBRARY_PATH", self.server.join("lib"));
        if rustix::process::geteuid().is_root() {
            command.uid(self.owner.0).gid(self.owner.1);
        }
        Ok(command)
    }

    /// Its major version.
    pub fn major(&self) -> Major {
        self.major
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection string by TCP, as an application or a worker on another host has it.
    pub fn url(&self, database: &str, role: &str) -> String {
        format!("postgresql://{role}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Connection string by the server's socket: no password.
    pub fn socket_url(&self, database: &str, role: &str) -> String {
        let quoted = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
        let (host, database, role) = (quoted(&self.sockets()), quoted(database), quoted(role));
        format!("host='{host}' port={} dbname='{database}' user='{role}'", self.port)
    }

    /// The password of every role that the harness makes.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The file of its log.
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// All that the server has logged.
    pub fn log(&self) -> String {
        fs::read(self.log_file()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        format!("-- log of PostgreSQL {}\n{}", self.major, tail(&self.log_file()))
    }

    /// Lets it run on after the end of this process.
    pub fn keep(&self) {
        if let Some(postmaster) = self.postmaster().as_mut() {
            postmaster.keep();
        }
    }

    fn sockets(&self) -> String {
        self.folder.display().to_string()
    }

    fn standby_signal(&self) -> bool {
        self.data().join("standby.signal").exists()
    }

    fn postmaster(&self) -> MutexGuard<'_, Option<Process>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut postmaster = self.postmaster();
        if postmaster.as_ref().is_some_and(Process::is_kept) {
            return;
        }
        drop(postmaster.take());
        remove_shared_memory(&self.data());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A killed postmaster leaves a few bytes of System V shared memory, named by its lock file.
fn remove_shared_memory(data: &Path) {
    let lock = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    if let Some(id) = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        let _ = Command::new("ipcrm").args(["-m", id]).status();
    }
}

/// The processes whose working directory is `folder`: all those of a server.
pub fn processes_in(folder: &Path) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect()
}

/// A port that nobody listens on, below those that the system gives to outgoing connections.
fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let port = 20_000 + u16::try_from(run::number()? % 12_000)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("1000 ports from 20000 on are in use: end the programs that listen there")
}
