//! The file with the keys of tokens, read again when it changes: keys rotate without a restart or a signal.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;

use super::keyset::{KeyFault, KeySet};
use super::{AuthError, KeySource};

/// A request a second pays for a look at the file; all others take the keys as they are.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A set of 32 keys is a tenth of it.
const MOST_BYTES: u64 = 1024 * 1024;

/// What tells one version of a file from the next. A file replaced by renaming has another inode.
type Stamp = (u64, u64, u64, i64, i64);

#[derive(Debug)]
pub(super) struct KeyFile {
    source: KeySource,
    algorithms: Vec<Algorithm>,
    keys: RwLock<Arc<KeySet>>,
    look: Mutex<Look>,
}

#[derive(Debug)]
struct Look {
    at: Instant,
    /// `None`: there was no file.
    stamp: Option<Stamp>,
}

impl KeyFile {
    /// Reads the keys; without any there is no start.
    pub(super) fn open(source: KeySource, algorithms: Vec<Algorithm>) -> Result<Self, AuthError> {
        let look = Look { at: Instant::now(), stamp: stamp(source.path()) };
        let keys = read(&source, &algorithms)?;
        if keys.is_empty() {
            return Err(AuthError::Keys { keys: source, fault: KeyFault::NotKeys.to_string() });
        }
        warn_of_rights(&source);
        Ok(Self { source, algorithms, keys: RwLock::new(Arc::new(keys)), look: Mutex::new(look) })
    }

    /// The keys as the file has them, or had them a second ago.
    pub(super) fn current(&self) -> Arc<KeySet> {
        self.current_at(Instant::now())
    }

    #[cfg(test)]
    pub(super) fn look_now(&self) {
        self.look.lock().expect("not poisoned").at -= LOOK_INTERVAL;
        self.current();
    }

    fn current_at(&self, now: Instant) -> Arc<KeySet> {
        // Whoever finds another one looking takes the keys that are there.
        if let Ok(mut look) = self.look.try_lock()
            && now.saturating_duration_since(look.at) >= LOOK_INTERVAL
        {
            look.at = now;
            // The stamp is older than the text: a file that changes in between is read once more, never once less.
            let stamp = stamp(self.source.path());
            if stamp != look.stamp {
                look.stamp = stamp;
                self.reload();
            }
        }
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reload(&self) {
        match read(&self.source, &self.algorithms) {
            Ok(keys) => {
                if keys.is_empty() {
                    tracing::warn!(file = %self.source, "all keys of session tokens were taken away; none is accepted now");
                } else {
                    tracing::info!(file = %self.source, keys = keys.len(), "the keys of session tokens changed");
                }
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            // Said once for each change of the file, since its stamp is noted before.
            Err(error) => {
                tracing::warn!(%error, "the keys of session tokens changed and cannot be used; the old ones stay")
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

fn read(source: &KeySource, algorithms: &[Algorithm]) -> Result<KeySet, AuthError> {
    let unreadable = |fault: String| AuthError::Unreadable { keys: source.clone(), fault };
    let file = std::fs::File::open(source.path()).map_err(|error| unreadable(error.to_string()))?;
    let mut text = String::new();
    // One byte more tells a file that is too large from one that just fits.
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(unreadable("larger than 1 MiB".to_owned()));
    }
    let faulty = |fault: KeyFault| AuthError::Keys { keys: source.clone(), fault: fault.to_string() };
    match source {
        KeySource::Secret(_) => KeySet::secrets(&text, algorithms).map_err(faulty),
        KeySource::Jwks(_) => {
            let (keys, skipped) = KeySet::public(&text, algorithms).map_err(faulty)?;
            for why in skipped {
                tracing::warn!(file = %source, "skipped {why}");
            }
            Ok(keys)
        }
    }
}

/// Who can read a secret can sign tokens, and who can write a set of keys too.
fn warn_of_rights(source: &KeySource) {
    let Ok(mode) = std::fs::metadata(source.path()).map(|found| found.mode()) else {
        return;
    };
    if matches!(source, KeySource::Secret(_)) && mode & 0o004 != 0 {
        tracing::warn!(file = %source, "every user of this machine can read the secret: chmod o-r");
    }
    if mode & 0o002 != 0 {
        tracing::warn!(file = %source, "every user of this machine can change the keys: chmod o-w");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old-0123456789abcdef-0123456789abcdef\n";

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).expect("the file is written");
    }

    /// A file of its own, and its keys with a clock.
    fn opened(name: &str) -> (std::path::PathBuf, KeyFile, impl Fn(u64) -> Instant) {
        let path = std::env::temp_dir().join(format!("sms-outbox-{name}-{}", std::process::id()));
        write(&path, OLD);
        let file = KeyFile::open(KeySource::Secret(path.clone()), vec![Algorithm::HS256]).expect("good keys");
        let start = Instant::now();
        (path, file, move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_changed_file_is_read_again_at_most_once_a_second() {
        let (path, file, at) = opened("changed");
        write(&path, &format!("{OLD}new-0123456789abcdef-0123456789abcdef\n"));
        assert_eq!(file.current_at(at(0)).len(), 1, "too early to look");
        assert_eq!(file.current_at(at(2)).len(), 2);
        let same = file.current_at(at(4));
        assert!(Arc::ptr_eq(&same, &file.current_at(at(6))), "an unchanged file is not read");
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn a_broken_or_missing_file_keeps_the_old_keys() {
        let (path, file, at) = opened("broken");
        for (n, text) in ["short\n", "", "\u{0}\n"].iter().enumerate() {
            write(&path, text);
            assert_eq!(file.current_at(at(10 * (n as u64 + 1))).len(), 1, "{text:?}");
        }
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(file.current_at(at(100)).len(), 1);
        write(&path, &format!("{OLD}{OLD}"));
        assert_eq!(file.current_at(at(110)).len(), 2, "mended");
        std::fs::remove_file(path).expect("removed");
    }
}
