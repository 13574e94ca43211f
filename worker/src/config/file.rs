//! The configuration file: flat TOML whose keys are the flags with `_` for `-`. Its values become the defaults of the
//! flags, so that a flag wins over the environment, the environment over the file, and all pass the same checks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Command;

/// Prefix of the environment variables.
const PREFIX: &str = "SMS_OUTBOX_";

/// Why a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It was named and cannot be read.
    #[error("{path}: cannot be read: {fault}; correct --config or SMS_OUTBOX_CONFIG")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        fault: String,
    },
    /// It is no TOML.
    #[error("{path}: not TOML, line {line}: {fault}")]
    Syntax {
        /// The file.
        path: String,
        /// Where.
        line: usize,
        /// What is wrong there.
        fault: String,
    },
    /// It sets what does not exist.
    #[error("{path}: {key}: no such setting; {cure}")]
    UnknownKey {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// The nearest one, or where they are listed.
        cure: String,
    },
    /// A table, an array or a date.
    #[error("{path}: {key}: must be a string, a number, true or false")]
    WrongType {
        /// The file.
        path: String,
        /// The key.
        key: String,
    },
}

/// A configuration file that was read.
#[derive(Debug, Default)]
pub struct File {
    path: String,
    values: BTreeMap<String, String>,
}

impl File {
    /// Finds and reads the file: `--config`, else `SMS_OUTBOX_CONFIG`, else the user's, else the machine's; none is fine.
    pub fn find(command: &Command, arguments: &[OsString]) -> Result<Self, FileError> {
        let named = flag(arguments).or_else(|| std::env::var_os("SMS_OUTBOX_CONFIG").filter(|value| !value.is_empty()));
        let path = match named {
            Some(path) => Some(PathBuf::from(path)),
            None => search_path().into_iter().find(|path| path.exists()),
        };
        path.map_or_else(|| Ok(Self::default()), |path| Self::read(command, &path))
    }

    fn read(command: &Command, path: &Path) -> Result<Self, FileError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| FileError::Unreadable { path: shown.clone(), fault: e.to_string() })?;
        Self::parse(command, shown, &text)
    }

    fn parse(command: &Command, path: String, text: &str) -> Result<Self, FileError> {
        // The error's own text would quote the line, and a line may hold the password.
        let table: toml::Table = toml::from_str(text).map_err(|e: toml::de::Error| FileError::Syntax {
            path: path.clone(),
            line: 1 + text[..e.span().map_or(0, |span| span.start.min(text.len()))].matches('\n').count(),
            fault: e.message().to_owned(),
        })?;
        let known = settings(command);
        let mut values = BTreeMap::new();
        for (key, value) in table {
            if !known.contains(&key) {
                let cure = match nearest(&key, &known) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", known.join(", ")),
                };
                return Err(FileError::UnknownKey { path, key, cure });
            }
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                _ => return Err(FileError::WrongType { path, key }),
            };
            values.insert(key, value);
        }
        Ok(Self { path, values })
    }

    /// Makes the file's values the defaults of the flags.
    pub fn defaults(&self, command: Command) -> Command {
        command
            .mut_args(|arg| match setting(&arg).and_then(|key| self.values.get(&key)) {
                Some(value) => arg.default_value(value.clone()),
                None => arg,
            })
            .mut_subcommands(|sub| self.defaults(sub))
    }

    /// Where a refused value came from, if it came from this file: clap names the flag alone.
    pub fn origin(&self, error: &clap::Error) -> Option<String> {
        let context = |kind| match error.get(kind) {
            Some(clap::error::ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let flag = context(clap::error::ContextKind::InvalidArg)?;
        let key = flag.split_whitespace().next()?.trim_start_matches('-').replace('-', "_");
        let value = context(clap::error::ContextKind::InvalidValue)?;
        let keys = [format!("api_{key}"), key];
        let key = keys.iter().find(|key| self.values.get(*key).map(String::as_str) == Some(value))?;
        Some(format!("{key} is set in {}", self.path))
    }
}

/// The value of `--config` before the command line is parsed: its defaults come from that very file.
fn flag(arguments: &[OsString]) -> Option<OsString> {
    let mut arguments = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--config" {
            return arguments.next().cloned();
        }
        if let Some(value) = text.strip_prefix("--config=") {
            return Some(value.into());
        }
    }
    None
}

/// Where a file is looked for; the first that exists is read.
pub fn search_path() -> Vec<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let user = home.map(|home| home.join("sms-outbox/config.toml"));
    user.into_iter().chain([PathBuf::from("/etc/sms-outbox/config.toml")]).collect()
}

/// What may stand in the file: every flag that has an environment variable, but for the file's own name.
pub fn settings(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(setting);
    let mut keys: Vec<String> =
        own.chain(command.get_subcommands().flat_map(settings)).filter(|key| key != "config").collect();
    keys.sort();
    keys.dedup();
    keys
}

/// A setting is named as its environment variable: the flag, with `api_` before it where it is one of `sms-outbox api`.
fn setting(arg: &clap::Arg) -> Option<String> {
    let name = arg.get_env()?.to_str()?;
    Some(name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase())
}

fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let near = known.iter().map(|name| (strsim::jaro_winkler(key, name), name)).filter(|(likeness, _)| *likeness > 0.8);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.as_str())
}

/// Environment variables that look like a misspelt setting. They are told, not refused: container platforms put names
/// such as `SMS_OUTBOX_SERVICE_HOST` there by themselves.
pub fn misspelt(command: &Command, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut known = settings(command);
    known.push("config".to_owned());
    let keys = names.filter_map(|name| name.strip_prefix(PREFIX).map(str::to_ascii_lowercase));
    keys.filter(|key| !known.contains(key))
        .filter_map(|key| {
            let near = nearest(&key, &known)?;
            Some(format!("{PREFIX}{} is no setting; did you mean {PREFIX}{}?", key.to_uppercase(), near.to_uppercase()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn parse(text: &str) -> Result<File, FileError> {
        File::parse(&command(), "c.toml".to_owned(), text)
    }

    fn concurrency(file: &File, arguments: &[&str]) -> Result<usize, String> {
        let matches = file
            .defaults(command())
            .try_get_matches_from(arguments)
            .map_err(|e| format!("{}{}", e.render(), file.origin(&e).unwrap_or_default()))?;
        let worker = matches.subcommand_matches("worker").expect("worker was asked for");
        Ok(*worker.get_one("concurrency").expect("has a default"))
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = parse("concurrency = 7").expect("good");
        assert_eq!(concurrency(&file, &["sms-outbox", "worker", "--concurrency", "9"]), Ok(9));
        assert_eq!(concurrency(&file, &["sms-outbox", "worker"]), Ok(7));
        assert_eq!(concurrency(&File::default(), &["sms-outbox", "worker"]), Ok(256));
    }

    #[test]
    fn the_files_values_are_checked_like_flags_and_the_file_is_named() {
        let file = parse("concurrency = 0").expect("read, not yet checked");
        let error = concurrency(&file, &["sms-outbox", "worker"]).expect_err("below the bound");
        assert!(error.contains("--concurrency") && error.ends_with("concurrency is set in c.toml"), "{error}");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest() {
        let error = parse("concurency = 7").expect_err("misspelt").to_string();
        assert_eq!(error, "c.toml: concurency: no such setting; did you mean concurrency?");
        let error = parse("zzz = 7").expect_err("unknown").to_string();
        assert!(error.contains("database_url") && error.contains("poll_interval"), "{error}");
        assert!(parse("[worker]\nconcurrency = 7").is_err());
        assert!(parse("database_url = ['a']").expect_err("an array").to_string().contains("must be a string"));
    }

    #[test]
    fn a_broken_file_is_told_without_its_text() {
        let error = parse("concurrency = 7\ndatabase_url = \"postgres://u:s3cr").expect_err("no end quote").to_string();
        assert!(error.starts_with("c.toml: not TOML, line 2: ") && !error.contains("s3cr"), "{error}");
    }

    #[test]
    fn the_configuration_file_is_found_by_its_flag() {
        let found = |words: &[&str]| flag(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(found(&["worker", "--config", "a"]), Some("a".into()));
        assert_eq!(found(&["--config=b", "worker"]), Some("b".into()));
        assert_eq!(found(&["enqueue", "--", "--config", "a"]), None);
    }

    #[test]
    fn each_setting_has_one_name() {
        fn check(command: &Command) {
            for arg in command.get_arguments() {
                let (Some(env), Some(long)) = (arg.get_env(), arg.get_long()) else {
                    continue;
                };
                let name = long.replace('-', "_").to_uppercase();
                let api = command.get_name() == "api" && !arg.is_global_set() && !name.starts_with("JWT_");
                let prefix = if api { "SMS_OUTBOX_API_" } else { PREFIX };
                let expected = if name == "DATABASE_URL" { name } else { format!("{prefix}{name}") };
                assert_eq!(env.to_str(), Some(expected.as_str()));
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }

    #[test]
    fn a_misspelt_variable_is_told() {
        let names = ["SMS_OUTBOX_CONCURENCY", "SMS_OUTBOX_CONCURRENCY", "SMS_OUTBOX_SERVICE_HOST", "PATH"];
        let told = misspelt(&command(), names.iter().map(|name| (*name).to_owned()));
        assert_eq!(told, ["SMS_OUTBOX_CONCURENCY is no setting; did you mean SMS_OUTBOX_CONCURRENCY?"]);
    }
}
