//! What worker and API count, under traffic: the numbers add up with what the provider saw, fit the list, and show nobody.

mod api;
#[path = "../shop/mod.rs"]
mod shop;
mod worker;

use anyhow::{Context, Result, ensure};
use api::{a_database_that_is_away_is_told, requests_and_the_database_are_counted};
use sms_outbox_tests::on_majors;
use sms_outbox_tests::scrape::Scrape;
use sms_outbox_worker::metrics::catalog::{Kind, Source, all};
use worker::{
    lost_connections_are_counted, numbers_add_up_with_what_the_provider_saw, the_trace_is_logged_and_not_given_away,
};

on_majors! { ends:
    numbers_add_up_with_what_the_provider_saw, the_trace_is_logged_and_not_given_away, requests_and_the_database_are_counted,
    a_database_that_is_away_is_told, lost_connections_are_counted,
}

/// Every family is of the list, with its type, help and labels.
pub(crate) fn fits_the_list(scrape: &Scrape, sources: &[Source]) -> Result<()> {
    for (name, kind) in &scrape.families {
        let metric = all().find(|metric| metric.name == name).with_context(|| format!("{name} is on no list"))?;
        ensure!(
            sources.contains(&metric.source) || name == "sms_outbox_build_info",
            "{name} is of {:?}",
            metric.source
        );
        let word = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        ensure!(kind == word && scrape.text.contains(&format!("# HELP {name} {}\n", metric.help)), "{name}");
    }
    for (name, samples) in &scrape.samples {
        let family = scrape.family(name).context("a family")?;
        let metric = all().find(|metric| metric.name == family).context("listed")?;
        for (labels, _) in samples {
            let mut names: Vec<&str> = labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            let mut listed = metric.labels.to_vec();
            names.sort_unstable();
            listed.sort_unstable();
            ensure!(names == listed, "{name} has {names:?}, and {listed:?} are listed");
        }
    }
    Ok(())
}

/// Neither numbers nor texts nor the organization of [`Shop`].
pub(crate) fn shows_nobody(text: &str) -> Result<()> {
    for hidden in ["96650", "text ", "shop", "sandbox-account", "MyShop"] {
        ensure!(!text.contains(hidden), "{hidden:?} is in\n{text}");
    }
    Ok(())
}
