//! What differs from run to run, made equal: ids, times, ages, names of workers, and the widths of columns, which follow them.

/// The text with ids, also those within JSON, times, ages and workers masked, without empty lines, and with each run of spaces or hyphens as one.
pub(crate) fn masked(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let mut words: Vec<String> = line.split_whitespace().map(word).collect();
        // 59s, and a moment later 1m 0s.
        words.dedup_by(|one, before| one == AGE && one == before);
        words.join(" ")
    });
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

const AGE: &str = "<age>";

fn word(word: &str) -> String {
    let mut parts = word.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    if let Some(id) = parts.find(|part| is_id(part) || is_request_id(part) || is_reference(part)) {
        return word.replace(id, "<id>");
    }
    let bare = word.trim_end_matches([',', ';', ':', '.']);
    if is_age(bare) {
        return AGE.to_owned();
    }
    if is_worker(bare) {
        return word.replace(bare, "<worker>");
    }
    if is_date(word) {
        return "<time>".to_owned();
    }
    // 18:58:58Z behind a date.
    let clock = |c: char| c.is_ascii_digit() || ":.+Z".contains(c);
    if word.matches(':').count() == 2 && word.chars().all(clock) {
        return "<time>".to_owned();
    }
    if word.len() > 2 && word.chars().all(|c| c == '-' || c == '+') {
        return word.split('+').map(|_| "-").collect::<Vec<_>>().join("+");
    }
    word.to_owned()
}

fn is_id(word: &str) -> bool {
    word.len() == 27
        && word.starts_with('r')
        && word.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

fn is_request_id(word: &str) -> bool {
    word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

/// `r01…-1`: an attempt, as providers get it.
fn is_reference(word: &str) -> bool {
    let parts = word.split_once('-');
    parts.is_some_and(|(id, attempt)| is_id(id) && attempt.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `42ms`, `9s`, `2m`.
fn is_age(word: &str) -> bool {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_lowercase());
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && ["ms", "s", "m", "h", "d"].contains(&&word[digits.len()..])
}

/// `name/03c9fc`, as a worker that runs calls itself.
fn is_worker(word: &str) -> bool {
    let parts = word.rsplit_once('/');
    parts.is_some_and(|(name, instance)| {
        !name.is_empty() && instance.len() == 6 && instance.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn is_date(word: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        word.get(range).is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    word.len() >= 10
        && digits(0..4)
        && digits(5..7)
        && digits(8..10)
        && word.get(4..5) == Some("-")
        && word.get(7..8) == Some("-")
}

#[test]
fn what_differs_from_run_to_run_is_equal() {
    let one = " id | n \n----+---\n r01m84wd39be94sbg97t2cw9nr4 | 1\n\n2026-11-23 18:58:58Z  x";
    let other = " id   | n \n------+---\n r01m84wd4h5ffdvwbvbxbahafct | 1\n2027-01-02 08:00:00Z x";
    assert_eq!(masked(one), masked(other));
    let json = |id: &str| format!("{{\"id\":\"{id}\",\"n\":1}}");
    assert_eq!(masked(&json("r01m84wd39be94sbg97t2cw9nr4")), masked(&json("r01m84wd4h5ffdvwbvbxbahafct")));
    assert_eq!(masked("8d1a9d1e-6ed7-4d52-9a3c-6a2f0b4f1f0e"), "<id>");
    assert_eq!(masked("after 59s, by web/03c9fc: no"), masked("after 1m 0s, by vm-2-af/ffffff: no"));
    assert_eq!(masked("r01m84wd39be94sbg97t2cw9nr4-2"), masked("r01m84wd4h5ffdvwbvbxbahafct-1"));
    assert_ne!(masked("after 9s"), masked("after 9"));
    assert_ne!(masked("kept 9s"), masked("kept -"));
    assert_ne!(masked("sent 1"), masked("sent 2"));
    assert_ne!(masked("sent"), masked("failed"));
}
