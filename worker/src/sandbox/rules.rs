//! What the sandbox does with a request: the newest rule that matches, else the recipient's magic number, else accept.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::journal::lock;
use super::wire::Submission;

/// What the sandbox can do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Accepts.
    Accept,
    /// Accepts, and answers late: after `delay_ms`, or a second.
    Delay,
    /// Refuses the recipient.
    RefuseRecipient,
    /// Refuses the text.
    RefuseContent,
    /// Refuses the credentials.
    RefuseAccount,
    /// Says that the balance is empty.
    Balance,
    /// Asks to slow down: for `retry_after` seconds, or one.
    Throttle,
    /// Accepts nothing, and answers 500, or `status`.
    #[serde(rename = "error_500")]
    Error500,
    /// Accepts, and answers 500, or `status`.
    #[serde(rename = "accept_then_500")]
    AcceptThen500,
    /// Resets the connection with the request unread. A rule for it can name no account and no recipient.
    ResetBeforeRead,
    /// Reads the request, accepts nothing, and resets the connection.
    ResetAfterRead,
    /// Accepts, and resets the connection.
    ResetAfterAccept,
    /// Accepts, sends the head of the answer, and then nothing more until the client leaves, or for `delay_ms`.
    StallAfterHeaders,
    /// Accepts, sends half of the answer, and closes.
    Truncate,
    /// Accepts nothing, and answers 200 with a page of HTML.
    Garbage,
    /// Accepts nothing, and redirects to the same path, where a client that follows is counted again.
    Redirect,
}

impl Behaviour {
    /// Every behaviour.
    pub const ALL: [Self; 16] = [
        Self::Accept,
        Self::Delay,
        Self::RefuseRecipient,
        Self::RefuseContent,
        Self::RefuseAccount,
        Self::Balance,
        Self::Throttle,
        Self::Error500,
        Self::AcceptThen500,
        Self::ResetBeforeRead,
        Self::ResetAfterRead,
        Self::ResetAfterAccept,
        Self::StallAfterHeaders,
        Self::Truncate,
        Self::Garbage,
        Self::Redirect,
    ];

    /// Whether a request treated so is accepted, whatever the client gets to see.
    pub fn accepts(self) -> bool {
        matches!(
            self,
            Self::Accept
                | Self::Delay
                | Self::AcceptThen500
                | Self::ResetAfterAccept
                | Self::StallAfterHeaders
                | Self::Truncate
        )
    }
}

/// What the magic endings begin with: with the two digits of [`MAGIC_NUMBERS`] they are six.
pub const MAGIC_PREFIX: &str = "9900";

/// Last two digits of recipients that end in [`MAGIC_PREFIX`] and them, for trying out by hand: `+966500990001` is refused.
pub const MAGIC_NUMBERS: [(&str, Behaviour); 14] = [
    ("01", Behaviour::RefuseRecipient),
    ("02", Behaviour::RefuseContent),
    ("03", Behaviour::RefuseAccount),
    ("04", Behaviour::Balance),
    ("05", Behaviour::Throttle),
    ("06", Behaviour::Error500),
    ("07", Behaviour::AcceptThen500),
    ("08", Behaviour::ResetAfterRead),
    ("09", Behaviour::ResetAfterAccept),
    ("10", Behaviour::StallAfterHeaders),
    ("11", Behaviour::Truncate),
    ("12", Behaviour::Garbage),
    ("13", Behaviour::Redirect),
    ("14", Behaviour::Delay),
];

/// One rule. Without conditions it matches every request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Slug of the provider whose wire the request uses.
    #[serde(default)]
    provider: Option<String>,
    /// The credential that names the account: the bearer token, mora's username, twilio's user of basic authentication.
    #[serde(default)]
    account: Option<String>,
    /// The recipient, or the digits at its end.
    #[serde(default)]
    to: Option<String>,
    /// What to do.
    pub(super) behaviour: Behaviour,
    /// How often; without it always.
    #[serde(default)]
    times: Option<u64>,
    /// Wait before the answer.
    #[serde(default)]
    pub(super) delay_ms: Option<u64>,
    /// HTTP status instead of the behaviour's own.
    #[serde(default)]
    pub(super) status: Option<u16>,
    /// Seconds of `Retry-After`.
    #[serde(default)]
    pub(super) retry_after: Option<u64>,
    /// The provider's error code instead of the behaviour's own.
    #[serde(default)]
    pub(super) code: Option<String>,
}

impl Rule {
    pub(super) fn plain(behaviour: Behaviour) -> Self {
        Self {
            provider: None,
            account: None,
            to: None,
            behaviour,
            times: None,
            delay_ms: None,
            status: None,
            retry_after: None,
            code: None,
        }
    }

    /// Why this rule can never work.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.behaviour == Behaviour::ResetBeforeRead && (self.account.is_some() || self.to.is_some()) {
            return Some("reset_before_read knows neither account nor recipient: leave out account and to");
        }
        if self.status.is_some_and(|status| !(200..600).contains(&status)) {
            return Some("status: not an HTTP status from 200 to 599");
        }
        None
    }

    /// The wait before the answer.
    pub(super) fn delay(&self) -> Duration {
        let own = if self.behaviour == Behaviour::Delay { 1000 } else { 0 };
        Duration::from_millis(self.delay_ms.unwrap_or(own))
    }

    fn is_of(&self, slug: &str) -> bool {
        self.provider.as_deref().is_none_or(|provider| provider == slug)
    }

    fn matches(&self, slug: &str, submission: &Submission) -> bool {
        let digits = |number: &str| number.trim_start_matches('+').to_owned();
        self.behaviour != Behaviour::ResetBeforeRead
            && self.is_of(slug)
            && self.account.as_ref().is_none_or(|account| *account == submission.account)
            && self.to.as_ref().is_none_or(|to| digits(&submission.to).ends_with(&digits(to)))
    }
}

/// The rules, newest last.
pub(super) struct Rules {
    magic_numbers: bool,
    rules: Mutex<Vec<Rule>>,
    /// Whether there is any rule, and any that acts before reading: spares the lock, and the look at unread bytes.
    any: AtomicBool,
    before_read: AtomicBool,
}

impl Rules {
    pub(super) fn new(magic_numbers: bool) -> Self {
        Self {
            magic_numbers,
            rules: Mutex::default(),
            any: AtomicBool::new(false),
            before_read: AtomicBool::new(false),
        }
    }

    pub(super) fn add(&self, new: Vec<Rule>) {
        self.change(|rules| rules.extend(new));
    }

    pub(super) fn clear(&self) {
        self.change(Vec::clear);
    }

    pub(super) fn list(&self) -> Vec<Rule> {
        lock(&self.rules).clone()
    }

    fn change<T>(&self, act: impl FnOnce(&mut Vec<Rule>) -> T) -> T {
        let mut rules = lock(&self.rules);
        let result = act(&mut rules);
        self.any.store(!rules.is_empty(), Ordering::Release);
        let before_read = rules.iter().any(|rule| rule.behaviour == Behaviour::ResetBeforeRead);
        self.before_read.store(before_read, Ordering::Release);
        result
    }

    /// Whether unread bytes must be looked at.
    pub(super) fn act_before_read(&self) -> bool {
        self.before_read.load(Ordering::Acquire)
    }

    /// Whether a connection with a request of this wire is reset unread.
    pub(super) fn resets_unread(&self, slug: &str) -> bool {
        self.take(|rule| rule.behaviour == Behaviour::ResetBeforeRead && rule.is_of(slug)).is_some()
    }

    /// The rule for this request.
    pub(super) fn choose(&self, slug: &str, submission: &Submission) -> Rule {
        if self.any.load(Ordering::Acquire)
            && let Some(rule) = self.take(|rule| rule.matches(slug, submission))
        {
            return rule;
        }
        let magic = || {
            let ending = submission.to.get(submission.to.len().checked_sub(6)?..)?.strip_prefix(MAGIC_PREFIX)?;
            MAGIC_NUMBERS.iter().find(|(digits, _)| *digits == ending)
        };
        match self.magic_numbers.then(magic).flatten() {
            Some((_, behaviour)) => Rule::plain(*behaviour),
            None => Rule::plain(Behaviour::Accept),
        }
    }

    /// The newest rule that matches, one of its times used up.
    fn take(&self, matches: impl Fn(&Rule) -> bool) -> Option<Rule> {
        self.change(|rules| {
            let place = rules.iter().rposition(matches)?;
            let rule = rules[place].clone();
            match &mut rules[place].times {
                None => {}
                Some(times) if *times > 1 => *times -= 1,
                Some(_) => {
                    rules.remove(place);
                }
            }
            Some(rule)
        })
    }
}
