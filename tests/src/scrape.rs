//! What Prometheus would scrape, read strictly: `promtool` has no word against it, every family has help and type, and no
//! sample comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::patience;
use crate::process::{output, output_of_input};

/// The labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// One answer of a `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// The answer as it came.
    pub text: String,
    /// Type of each family, by name.
    pub families: BTreeMap<String, String>,
    /// The samples of each name.
    pub samples: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Scrape {
    /// Scrapes an address.
    pub async fn of(url: &str) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(patience()).no_proxy().build()?;
        let response = client.get(url).send().await.with_context(|| format!("{url} does not answer"))?;
        ensure!(response.status() == 200, "{url} answers {}", response.status());
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        ensure!(kind.starts_with("text/plain; version=0.0.4"), "the content type is {kind}");
        Self::read(response.text().await?).await
    }

    /// Reads an answer.
    pub async fn read(text: String) -> Result<Self> {
        // It fails for a missing help as well as for a broken line.
        output_of_input(promtool(&["check", "metrics"]).await?, &text).await?;
        let mut scrape = Self { text: text.clone(), ..Self::default() };
        let mut helped = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped.insert(help.split(' ').next().unwrap_or_default().to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').context("a type")?;
                ensure!(helped.contains(name), "{name} has no help");
                ensure!(scrape.families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            } else {
                scrape.take(line).with_context(|| line.to_owned())?;
            }
        }
        Ok(scrape)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').context("no end of labels")?)?),
            None => (series, Labels::new()),
        };
        ensure!(self.family(name).is_some(), "{name} has no type");
        let value: f64 = value.parse()?;
        ensure!(value.is_finite(), "not finite");
        let samples = self.samples.entry(name.to_owned()).or_default();
        ensure!(samples.iter().all(|(other, _)| *other != labels), "the same labels twice");
        samples.push((labels, value));
        Ok(())
    }

    /// The family that a sample of this name belongs to.
    pub fn family(&self, name: &str) -> Option<&str> {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
        let histogram = |name: &str| self.families.get(name).is_some_and(|kind| kind == "histogram");
        let family = parts.into_iter().find(|name| histogram(name)).or(Some(name))?;
        self.families.get_key_value(family).map(|(name, _)| name.as_str())
    }

    /// The sum of the samples of this name that have these labels.
    pub fn sum(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        let has = |labels: &Labels| with.iter().all(|(label, value)| labels.get(*label).is_some_and(|is| is == value));
        let samples = self.samples.get(name).into_iter().flatten();
        // Not `sum`, whose empty result is -0.
        samples.filter(|(labels, _)| has(labels)).fold(0.0, |sum, (_, value)| sum + value)
    }
}

fn labels(mut text: &str) -> Result<Labels> {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").context("a label")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().context("no end of a value")? {
                (place, '"') => break place,
                (_, '\\') => match chars.next().context("no end of a value")?.1 {
                    'n' => value.push('\n'),
                    plain @ ('"' | '\\') => value.push(plain),
                    other => bail!("escaped {other}"),
                },
                (_, plain) => value.push(plain),
            }
        };
        ensure!(labels.insert(name.to_owned(), value).is_none(), "{name} twice");
        text = rest[end + 1..].trim_start_matches(',');
    }
    Ok(labels)
}

/// `promtool` with these arguments. Where it is missing, that is said: what it checks is not skipped.
pub async fn promtool(arguments: &[&str]) -> Result<Command> {
    let of = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        command.args(arguments);
        command
    };
    output(of(&["--version"]))
        .await
        .context("promtool is missing: apt-get install prometheus, as scripts/setup.sh does")?;
    Ok(of(arguments))
}
