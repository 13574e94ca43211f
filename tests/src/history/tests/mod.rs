//! Forged journals: those in which all is well, and from them some for each way in which a rule can be broken, or not be
//! known.

mod files;
mod forge;

use serde_json::{Value, json};

use self::forge::*;
use super::RULES;

#[test]
fn what_is_well_is_counted() {
    let verdict = Journals::good().check();
    assert_eq!(verdict.exit_code(), 0, "{verdict}");
    let counts = "6 committed; 1 canceled, 1 dispatch_timeout, 1 expired, 1 failed, 2 sent; 3 accepted, 1 of them with the answer lost";
    assert_eq!(verdict.counts.to_string(), counts);
    assert_eq!((verdict.counts.lost, verdict.counts.twice, verdict.counts.unclear_expected), (0, 0, 1));
    let text = verdict.to_string();
    for (rule, words) in RULES {
        assert!(text.contains(&format!("{rule:>2} holds  {words}")), "{text}");
    }
}

#[test]
fn rule_1_two_live_attempts() {
    breaks(1, SECOND_TRY, |j| j.message(SECOND_TRY)["attempts"][0]["over_at"] = json!(at(112)));
    breaks(1, SECOND_TRY, |j| j.message(SECOND_TRY)["attempts"][1]["attempt"] = json!(1));
    breaks(1, SECOND_TRY, |j| j.message(SECOND_TRY)["attempts"] = json!([attempt(2, "accepted")]));
    let lease = |number| json!({"lease": {"attempt": number, "started_at": at(15), "expires_at": at(25)}});
    breaks(1, EXPIRED, |j| j.open(EXPIRED, "sending", "lease", lease(2)));
    breaks(1, EXPIRED, |j| j.open(EXPIRED, "sending", "lease", lease(1)));
}

#[test]
fn rule_2_a_request_without_its_claim() {
    breaks(2, SENT, |j| j.request(SENT)["at"] = json!(at(9)));
    breaks(2, CANCELED, |j| j.provider.push(request(CANCELED, 1, false)));
    breaks(2, FAILED, |j| j.provider.push(request(FAILED, 2, false)));
    breaks(2, FAILED, |j| j.provider.push(request(FAILED, 1, false)));
    // On a wire without references.
    holds(|j| j.request(SENT)["reference"] = json!(null));
    breaks(2, SENT, |j| {
        j.request(SENT)["at"] = json!(at(9));
        j.request(SENT)["reference"] = json!(null);
    });
}

/// The message is accepted in both of its attempts.
fn accepted_twice(j: &mut Journals) {
    *j.message(SECOND_TRY) =
        message(SECOND_TRY, "sent", &[attempt(1, "unclear"), attempt(2, "accepted")])["message"].clone();
    j.provider.retain(|line| line["request"]["reference"] != format!("{}-1", id(SECOND_TRY)));
    j.provider.push(request(SECOND_TRY, 1, true));
}

#[test]
fn rule_3_accepted_twice() {
    breaks(3, SECOND_TRY, accepted_twice);
    breaks(3, SENT, |j| j.provider.push(request(SENT, 1, true)));
    holds(|j| {
        accepted_twice(j);
        j.retried(SECOND_TRY, 50);
    });
    // A retry explains what comes after it, and no more.
    breaks(3, SECOND_TRY, |j| {
        accepted_twice(j);
        j.retried(SECOND_TRY, 500);
    });
    breaks(3, SECOND_TRY, |j| {
        accepted_twice(j);
        j.retried(SENT, 50);
    });
    holds(|j| {
        accepted_twice(j);
        j.message(SECOND_TRY)["attempts"][0]["resends"] = json!(true);
    });
    breaks(3, SECOND_TRY, |j| {
        accepted_twice(j);
        j.message(SECOND_TRY)["attempts"][1]["resends"] = json!(true);
    });
    // What is unclear is not tried again either where the second try is refused.
    let refused = |j: &mut Journals| {
        let attempts = [attempt(1, "unclear"), attempt(2, "refused_content")];
        *j.message(SECOND_TRY) = message(SECOND_TRY, "failed", &attempts)["message"].clone();
        j.request(SECOND_TRY)["accepted"] = json!(false);
    };
    breaks(3, SECOND_TRY, refused);
    holds(|j| {
        refused(j);
        j.retried(SECOND_TRY, 50);
    });
    let mut journals = Journals::good();
    accepted_twice(&mut journals);
    assert_eq!(journals.check().counts.twice, 1);
}

/// The same at a provider that deduplicates.
fn deduplicated(j: &mut Journals, window: i64, duplicate: bool) {
    accepted_twice(j);
    let key = |duplicate| json!({"key": id(SECOND_TRY), "window_seconds": window, "duplicate": duplicate});
    for line in &mut j.provider {
        let second = line["request"]["reference"] == format!("{}-2", id(SECOND_TRY));
        if second || line["request"]["reference"] == format!("{}-1", id(SECOND_TRY)) {
            line["request"]["deduplication"] = key(second && duplicate);
            line["request"]["provider_message_id"] = json!("p2");
        }
    }
    j.message(SECOND_TRY)["attempts"][0]["resends"] = json!(true);
}

#[test]
fn rule_4_a_key_that_takes_effect_twice() {
    breaks(4, SECOND_TRY, |j| deduplicated(j, 3600, false));
    holds(|j| deduplicated(j, 60, false));
}

#[test]
fn rule_5_sent_without_proof() {
    breaks(5, SENT, |j| j.message(SENT)["attempts"][0]["evidence"] = json!(null));
    breaks(5, SENT, |j| j.provider.retain(|line| line["request"]["reference"] != format!("{}-1", id(SENT))));
    breaks(5, SENT, |j| j.request(SENT)["accepted"] = json!(false));
    breaks(5, SENT, |j| j.request(SENT)["provider_message_id"] = json!("p9"));
    breaks(5, CANCELED, |j| {
        j.message(CANCELED)["status"] = json!("sent");
    });
    for proof in ["late answer", "look-up", "receipt", "operator"] {
        holds(|j| j.message(SENT)["attempts"][0]["evidence"] = json!(proof));
    }
}

#[test]
fn rule_6_failed_and_accepted() {
    breaks(6, FAILED, |j| j.request(FAILED)["accepted"] = json!(true));
    breaks(6, FAILED, |j| {
        j.message(FAILED)["attempts"][0]["status"] = json!("unclear");
        j.request(FAILED)["accepted"] = json!(true);
    });
    breaks(6, EXPIRED, |j| j.provider.push(request(EXPIRED, 1, true)));
}

#[test]
fn rule_7_an_answer_on_another_attempt() {
    breaks(7, SECOND_TRY, |j| {
        accepted_twice(j);
        j.retried(SECOND_TRY, 50);
        j.message(SECOND_TRY)["attempts"][1]["provider_message_id"] = json!("p1");
    });
    breaks(7, SECOND_TRY, |j| {
        j.message(SECOND_TRY)["attempts"][0] = attempt(1, "accepted");
        j.message(SECOND_TRY)["attempts"][0]["provider_message_id"] = json!("p2");
    });
}

#[test]
fn rule_8_lost_or_in_two_places() {
    let gone = |number: usize| move |j: &mut Journals| j.database.retain(|line| line["message"]["id"] != id(number));
    for number in [SENT, UNCLEAR, FAILED, CANCELED] {
        breaks(8, number, gone(number));
    }
    breaks(8, ROLLED_BACK, |j| j.database.push(message(ROLLED_BACK, "canceled", &[])));
    breaks(8, ROLLED_BACK, |j| j.provider.push(request(ROLLED_BACK, 1, true)));
    breaks(8, 8, |j| j.database.push(message(8, "canceled", &[])));
    breaks(8, SENT, |j| j.commits.push(enqueued(SENT, "committed")));
    breaks(8, SENT, |j| j.message(SENT)["places"] = json!(["ready"]));
    breaks(8, CANCELED, |j| j.message(CANCELED)["places"] = json!(["ended", "ready"]));
    breaks(8, CANCELED, |j| j.message(CANCELED)["places"] = json!([]));
    breaks(8, CANCELED, |j| j.message(CANCELED)["status"] = json!(null));
    breaks(8, CANCELED, |j| j.message(CANCELED)["status"] = json!("pending"));
    breaks(8, CANCELED, |j| j.message(CANCELED)["ended_at"] = json!(null));
    breaks(8, SENT, |j| j.message(SENT)["text"] = json!("another"));
    breaks(8, SENT, |j| j.request(SENT)["to"] = json!("+966500000009"));
    let mut journals = Journals::good();
    gone(SENT)(&mut journals);
    assert_eq!(journals.check().counts.lost, 1);
    // For nobody's message: no name, but the line.
    let mut journals = Journals::good();
    journals.provider.push(request(9, 1, true));
    let verdict = journals.check();
    assert_eq!((verdict.exit_code(), verdict.broken[0].rule), (1, 8), "{verdict}");
    assert!(verdict.to_string().contains("line 6 of the provider's journal"), "{verdict}");
}

#[test]
fn rule_8_replays_and_doubts() {
    let replayed = |number: usize, text: &str| {
        let mut line = enqueued(number, "committed");
        line["enqueued"]["replay"] = json!(true);
        line["enqueued"]["text"] = json!(text);
        line
    };
    holds(|j| j.commits.extend([replayed(SENT, "text 1"), replayed(SENT, "another under the same key")]));
    breaks(8, ROLLED_BACK, |j| j.commits.push(replayed(ROLLED_BACK, "text 6")));
    // The connection broke at COMMIT: committed or not, but not sent unless committed.
    holds(|j| j.commits.push(enqueued(8, "unknown")));
    holds(|j| {
        j.commits.push(enqueued(8, "unknown"));
        j.database.push(message(8, "canceled", &[]));
    });
    breaks(8, 8, |j| {
        j.commits.push(enqueued(8, "unknown"));
        j.provider.push(request(8, 1, true));
    });
    breaks(8, 8, |j| j.commits.extend([enqueued(8, "unknown"), replayed(8, "text 8")]));
}

/// A second reading, so many seconds after the first, in which a message is gone.
fn gone_later(j: &mut Journals, number: usize, seconds: i64) {
    let kept: Vec<Value> = j.database[1..].iter().filter(|line| line["message"]["id"] != id(number)).cloned().collect();
    j.database.push(reading(1000 + seconds));
    j.database.extend(kept);
}

#[test]
fn rule_9_gone_before_its_time() {
    let pending = |j: &mut Journals| {
        j.open(CANCELED, "pending", "ready", json!({"waits_for": "app_paused", "due_since": at(0)}));
    };
    breaks(9, CANCELED, |j| {
        pending(j);
        gone_later(j, CANCELED, 60);
    });
    breaks(9, SENT, |j| gone_later(j, SENT, 60));
    holds(|j| gone_later(j, SENT, 4000));
    is_unknown(|j| {
        pending(j);
        gone_later(j, CANCELED, 4000);
    });
}

#[test]
fn rule_10_a_request_after_the_end() {
    breaks(10, CANCELED, |j| {
        *j.message(CANCELED) = message(CANCELED, "canceled", &[attempt(1, "unclear")])["message"].clone();
        j.provider.push(request(CANCELED, 1, false));
        j.request(CANCELED)["at"] = json!(at(301));
    });
    breaks(10, EXPIRED, |j| {
        j.provider.push(request(EXPIRED, 1, false));
        j.request(EXPIRED)["at"] = json!(at(300));
    });
}

#[test]
fn rule_11_due_and_not_tried() {
    let waits = |reason: &str| json!({"waits_for": reason, "due_since": at(300)});
    breaks(11, CANCELED, |j| j.open(CANCELED, "pending", "ready", waits("worker")));
    // Not for long yet, or not for a worker.
    is_unknown(|j| j.open(CANCELED, "pending", "ready", json!({"waits_for": "worker", "due_since": at(950)})));
    is_unknown(|j| j.open(CANCELED, "pending", "ready", waits("app_paused")));
    is_unknown(|j| {
        j.open(CANCELED, "pending", "ready", waits("worker"));
        j.database[0]["reading"]["worker_since"] = json!(null);
    });
    is_unknown(|j| {
        j.open(CANCELED, "pending", "ready", waits("worker"));
        j.database[0]["reading"]["worker_since"] = json!(at(950));
    });
}

#[test]
fn rule_12_a_lease_without_an_end() {
    let lease = |until| json!({"lease": {"attempt": 1, "started_at": at(400), "expires_at": at(until)}});
    breaks(12, CANCELED, |j| j.open(CANCELED, "sending", "lease", lease(410)));
    is_unknown(|j| j.open(CANCELED, "sending", "lease", lease(1010)));
    is_unknown(|j| {
        j.open(CANCELED, "sending", "lease", lease(410));
        j.database[0]["reading"]["maintained_at"] = json!(null);
    });
}

#[test]
fn rule_13_unclear_by_no_fault_and_the_other_way_round() {
    breaks(13, UNCLEAR, |j| j.unclear.clear());
    breaks(13, FAILED, |j| j.unclear.push(json!({"expected": id(FAILED)})));
    // By id, not by count.
    breaks(13, SENT, |j| j.unclear = vec![json!({"expected": id(SENT)})]);
    holds(|j| j.unclear = vec![json!({"possible": id(UNCLEAR)}), json!({"possible": id(FAILED)})]);
}

#[test]
fn late_answers_are_allowed_what_they_are_allowed() {
    // Accepted late, while the attempt lived that an operator had asked for.
    let late = |j: &mut Journals| {
        j.message(SECOND_TRY)["attempts"][0] = attempt(1, "accepted");
        j.message(SECOND_TRY)["attempts"][0]["finished_at"] = json!(at(115));
        j.request(SECOND_TRY)["reference"] = json!(format!("{}-2", id(SECOND_TRY)));
        j.provider.retain(|line| line["request"]["reference"] != format!("{}-1", id(SECOND_TRY)));
        j.provider.push(request(SECOND_TRY, 1, true));
    };
    holds(|j| {
        late(j);
        j.retried(SECOND_TRY, 50);
    });
    breaks(3, SECOND_TRY, late);
    breaks(1, SECOND_TRY, |j| {
        late(j);
        j.retried(SECOND_TRY, 50);
        j.message(SECOND_TRY)["attempts"][0]["over_at"] = json!(at(115));
    });
    // A claim that a failover lost is in the ledger with the time of its answer.
    breaks(2, SENT, |j| j.message(SENT)["attempts"][0]["started_at"] = json!(at(20)));
    holds(|j| {
        j.message(SENT)["attempts"][0]["started_at"] = json!(at(20));
        j.message(SENT)["attempts"][0]["claim_lost"] = json!(true);
    });
}

#[test]
fn what_came_after_the_reading_is_not_known() {
    is_unknown(|j| {
        j.request(FAILED)["at"] = json!(at(1001));
    });
}
