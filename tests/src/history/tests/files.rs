//! Journals that are not whole, or leave things open: not known, and never fine.

use serde_json::json;

use super::forge::*;
use crate::history::check_files;

#[test]
fn what_cannot_be_told_apart_is_not_known() {
    // Two messages of one number and text, and a request that names neither.
    let mut journals = Journals::good();
    for (kind, lines) in [("enqueued", &mut journals.commits), ("message", &mut journals.database)] {
        let line = lines.iter_mut().find(|line| line[kind]["id"] == id(CANCELED)).unwrap();
        line[kind]["to"] = json!(format!("+96650000000{SENT}"));
        line[kind]["text"] = json!(format!("text {SENT}"));
    }
    assert_eq!(journals.check().exit_code(), 0, "the reference tells");
    journals.request(SENT)["reference"] = json!(null);
    let verdict = journals.check();
    assert!(verdict.to_string().contains("line 1 of the provider's journal fits several messages"), "{verdict}");
    assert_ne!(verdict.exit_code(), 0);
}

#[test]
fn journals_that_are_not_whole_are_not_known() {
    let not_known = |name: &str, change: &dyn Fn(String) -> String| {
        let (journals, folder) = (Journals::good(), Folder::new());
        for (name, lines) in [
            ("commits", &journals.commits),
            ("database", &journals.database),
            ("provider", &journals.provider),
            ("unclear", &journals.unclear),
        ] {
            folder.write(name, lines);
        }
        assert_eq!(check_files(&folder.files()).exit_code(), 0);
        folder.change(name, change);
        let verdict = check_files(&folder.files());
        assert_eq!(verdict.exit_code(), 2, "{name}: {verdict}");
        assert!(verdict.to_string().contains(&format!("journal {name}")), "{verdict}");
    };
    for name in ["commits", "database", "provider", "unclear"] {
        let without = |place: usize| {
            move |text: String| {
                text.lines().enumerate().filter(|(n, _)| *n != place).map(|(_, line)| format!("{line}\n")).collect()
            }
        };
        not_known(name, &without(0));
        // The last line, half of it, garbage in the middle, something after the end, and nothing at all.
        not_known(name, &|text| text[..text.trim_end().rfind('\n').unwrap() + 1].to_owned());
        not_known(name, &|text| text[..text.len() - 5].to_owned());
        not_known(name, &|text| text.replacen('{', "", 1));
        not_known(name, &|text| format!("{text}{}", text.lines().next().unwrap()));
        not_known(name, &|text| format!("{{\"other\": 1}}\n{text}"));
        not_known(name, &|_| String::new());
    }
    let nothing = Journals { commits: vec![], database: vec![reading(0)], provider: vec![], unclear: vec![] };
    assert_eq!(nothing.check().exit_code(), 2);
    is_unknown(|j| j.database.clear());
    let folder = Folder::new();
    assert_eq!(check_files(&folder.files()).exit_code(), 2, "journals that do not exist");
}
