//! What `scripts/soak.sh` says.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

/// All of it.
pub(crate) struct Arguments {
    pub(crate) minutes: u64,
    pub(crate) seed: u64,
    /// Messages a second that applications try to reach.
    pub(crate) rate: u64,
    /// No more messages than these: they bound the disk.
    pub(crate) messages: u64,
    /// Where journals are written.
    pub(crate) folder: PathBuf,
    /// The file of the summary.
    pub(crate) summary: PathBuf,
    pub(crate) version: String,
    pub(crate) machine: String,
}

impl Arguments {
    pub(crate) fn read() -> Result<Self> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let mut read = Self {
            minutes: 0,
            seed: 0,
            rate: 0,
            messages: 0,
            folder: PathBuf::new(),
            summary: PathBuf::new(),
            version: String::new(),
            machine: String::new(),
        };
        for pair in words.chunks(2) {
            let [name, value] = pair else { bail!("{}: a value is missing", pair[0]) };
            let number = || value.parse::<u64>().with_context(|| format!("{name}: '{value}' is no whole number"));
            match name.as_str() {
                "--minutes" => read.minutes = number()?,
                "--seed" => read.seed = number()?,
                "--rate" => read.rate = number()?,
                "--messages" => read.messages = number()?,
                "--folder" => read.folder = value.into(),
                "--summary" => read.summary = value.into(),
                "--version" => read.version.clone_from(value),
                "--machine" => read.machine.clone_from(value),
                _ => bail!("{name}: there is no such option"),
            }
        }
        ensure!((1..=1440).contains(&read.minutes), "--minutes: from 1 to 1440");
        ensure!((100..=100_000).contains(&read.rate), "--rate: from 100 to 100000 messages a second");
        ensure!(read.messages > 0, "--messages: more than none");
        ensure!(!read.folder.as_os_str().is_empty() && !read.summary.as_os_str().is_empty(), "--folder and --summary");
        Ok(read)
    }
}
