//! `docs/guarantees.md`: each promise says what it rests on, what happens otherwise, and which tests prove it; and those exist.

use std::fs;

use anyhow::{Context, Result};
use sms_outbox_tests::paths;

const PAGE: &str = "docs/guarantees.md";

/// Promises that lack a part, and tests that are named and are not there.
pub(crate) fn faults() -> Result<Vec<String>> {
    let text = fs::read_to_string(paths::checkout(PAGE))?;
    let (promised, _) = text.split_once("\n## What is not promised\n").context("the page has no end")?;
    let mut faults = Vec::new();
    let mut promises = promised.split("\n### ");
    promises.next();
    for promise in promises {
        let title = promise.lines().next().unwrap_or_default();
        let part = |name: &str| promise.split("\n\n").find_map(|paragraph| paragraph.strip_prefix(name));
        for name in ["**Rests on.** ", "**If that fails.** "] {
            if part(name).is_none() {
                faults.push(format!("{PAGE}: {title}: {name}is missing"));
            }
        }
        let proof = part("**Proof.** ").unwrap_or_default();
        match missing(proof)? {
            Some(named) => faults.extend(named.into_iter().map(|name| format!("{PAGE}: {title}: {name}"))),
            None => faults.push(format!("{PAGE}: {title}: no test is named")),
        }
    }
    Ok(faults)
}

/// Of a proof (a file, then tests of it, and so on) what does not exist; `None` where no test is named at all.
fn missing(proof: &str) -> Result<Option<Vec<String>>> {
    let (mut file, mut source, mut tests, mut missing) = ("", String::new(), 0, Vec::new());
    for name in proof.split('`').skip(1).step_by(2) {
        if name.ends_with(".rs") {
            file = name;
            source = fs::read_to_string(paths::checkout(name)).with_context(|| name.to_owned())?;
        } else {
            tests += 1;
            // A function, or a name that a macro makes a test of.
            let written = [format!("fn {name}("), format!("fn {name}<"), format!("\n    {name}: ")];
            if !written.iter().any(|text| source.contains(text)) {
                missing.push(format!("there is no {name} in {file}"));
            }
        }
    }
    Ok((tests > 0).then_some(missing))
}

#[test]
fn a_proof_that_is_not_there_is_missed() -> Result<()> {
    let here = "`tests/tests/documents/guarantees.rs`: `faults`, `nothing`.";
    assert_eq!(missing(here)?, Some(vec!["there is no nothing in tests/tests/documents/guarantees.rs".to_owned()]));
    assert_eq!(missing("by careful thought")?, None);
    Ok(())
}
