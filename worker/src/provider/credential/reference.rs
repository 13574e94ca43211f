//! References to credentials that are kept elsewhere: `env:NAME`, `file:/absolute/path`.
//!
//! Who may install an app writes the reference, and sends what it stands for to an address of their choice. So it must
//! not be a way to read anything: files of the operator's folders for credentials alone, and no variable of the worker's own.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::{env, fs, io};

use io::Read as _;

/// Longest credential.
const LONGEST: usize = 64 * 1024;

/// Variables that hold what is the worker's own: how it logs in, and its settings.
const OWN_NAMES: [&str; 2] = ["DATABASE_URL", "CREDENTIALS_DIRECTORY"];
const OWN_PREFIXES: [&str; 3] = ["PG", "SMS_OUTBOX_", "OTEL_"];

/// A reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// An environment variable of the worker.
    Env(&'a str),
    /// A file on the worker's machine.
    File(&'a str),
}

/// Why a reference gives nothing. It shows the kind of the reference, and neither a path nor a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The variable belongs to the worker itself.
    #[error("refers to an environment variable that is the worker's own; give the credential another name")]
    EnvOwn,
    /// The variable is not there.
    #[error(
        "refers to an environment variable (env:) that is not set for this worker; set it and restart, or correct the name"
    )]
    EnvUnset,
    /// The path is not below a folder for credentials.
    #[error(
        "refers to a file (file:) outside of the folders for credentials; move it there, or name its folder in --credentials-dir"
    )]
    FileOutside,
    /// It cannot be read.
    #[error(
        "refers to a file (file:) that this worker cannot read; look whether it exists, is a file, and may be read by the worker's user"
    )]
    FileUnreadable,
    /// There is nothing in it, or too much, or it is no text.
    #[error("refers to what is no credential: it must be UTF-8 text of 1 to 65536 bytes")]
    NoText,
}

impl<'a> Reference<'a> {
    /// Reads a reference; `None` where the text is none, an error where it begins like one.
    pub fn read(text: &'a str) -> Option<Result<Self, ()>> {
        if let Some(name) = text.strip_prefix("env:") {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let good = (1..=128).contains(&name.len())
                && name.chars().all(word)
                && !name.starts_with(|c: char| c.is_ascii_digit());
            return Some(good.then_some(Self::Env(name)).ok_or(()));
        }
        let path = text.strip_prefix("file:")?;
        Some((path.starts_with('/') && path.len() > 1).then_some(Self::File(path)).ok_or(()))
    }

    /// What it stands for, as it is now.
    pub fn resolve(self, folders: &Folders) -> Result<String, ReferenceError> {
        match self {
            Self::Env(name) => {
                if OWN_NAMES.contains(&name) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                    return Err(ReferenceError::EnvOwn);
                }
                let value = env::var_os(name).ok_or(ReferenceError::EnvUnset)?;
                credential(value.into_encoded_bytes())
            }
            Self::File(path) => folders.read(Path::new(path)),
        }
    }
}

/// Text without the line end that editors and `echo` leave, which belongs to no credential.
fn credential(bytes: Vec<u8>) -> Result<String, ReferenceError> {
    let text = String::from_utf8(bytes).map_err(|_| ReferenceError::NoText)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if (1..=LONGEST).contains(&text.len()) { Ok(text.to_owned()) } else { Err(ReferenceError::NoText) }
}

/// The folders that files may be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders(pub Vec<PathBuf>);

impl FromStr for Folders {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let folders = text.split(',').map(str::trim).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folders: Vec<PathBuf> = folders.collect();
        let good = folders.iter().all(|folder| folder.is_absolute());
        good.then_some(Self(folders)).ok_or("write absolute paths, divided by commas")
    }
}

impl Folders {
    /// Where nothing else is set: `/etc/sms-outbox/credentials`, and the folder of systemd's `LoadCredential=`.
    pub fn usual() -> Self {
        let systemd = env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
        Self([PathBuf::from("/etc/sms-outbox/credentials")].into_iter().chain(systemd.map(PathBuf::from)).collect())
    }

    fn read(&self, path: &Path) -> Result<String, ReferenceError> {
        // By its text first: whether a file elsewhere exists is nobody's business.
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !plain || !self.0.iter().any(|folder| path.starts_with(folder)) {
            return Err(ReferenceError::FileOutside);
        }
        // Then by where its links lead, which may be anywhere within: Kubernetes replaces secrets by such links.
        let real = path.canonicalize().map_err(|_| ReferenceError::FileUnreadable)?;
        let within = |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
        if !self.0.iter().any(within) {
            return Err(ReferenceError::FileOutside);
        }
        read(&real).map_err(|_| ReferenceError::FileUnreadable).and_then(credential)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To open a pipe would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    // Room for a line end, and for one byte that is too much.
    fs::File::open(path)?.take(LONGEST as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}
