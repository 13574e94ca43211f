use super::*;

fn refusal(sqlstate: &str, code: &str, field: &str, message: &str) -> Refusal {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Refusal {
        sqlstate: sqlstate.to_owned(),
        code: given(code),
        field: given(field),
        message: message.to_owned(),
        ..Refusal::default()
    }
}

#[test]
fn what_the_database_refuses_becomes_a_status_and_a_code() {
    for (sqlstate, code, field, expected) in [
        ("22023", "", "mobile", Code::InvalidField),
        ("22P02", "", "", Code::InvalidField),
        ("22P05", "", "", Code::InvalidField),
        ("55000", "no_sms_app", "preferred_provider_slug", Code::NoSmsApp),
        ("55000", "wrong_state", "id", Code::WrongState),
        ("P0002", "not_found", "id", Code::NotFound),
        ("28000", "unauthorized", "", Code::Unauthorized),
        ("42501", "missing_scope", "", Code::MissingScope),
        ("42501", "recipient_suppressed", "mobile", Code::RecipientSuppressed),
        ("53400", "segments_per_day", "", Code::SegmentsPerDay),
        ("40001", "", "", Code::TryAgain),
        ("40P01", "", "", Code::TryAgain),
        ("55P03", "", "", Code::TryAgain),
        ("57014", "", "", Code::TryAgain),
        ("57P01", "", "", Code::DatabaseUnavailable),
        ("53300", "", "", Code::DatabaseUnavailable),
        ("25006", "", "", Code::DatabaseUnavailable),
        // A right that the API's login lacks, and a constraint that should have been checked before, are defects.
        ("42501", "", "", Code::InternalError),
        ("23505", "message_pkey", "", Code::InternalError),
        ("42883", "", "", Code::InternalError),
    ] {
        assert_eq!(Problem::from(refusal(sqlstate, code, field, "words")).code, expected, "{sqlstate} {code}");
    }
}

#[test]
fn fields_are_named_once() {
    let problem = Problem::from(refusal("22023", "", "mobile", "mobile: is empty"));
    assert_eq!(problem.errors, [FieldError { field: "mobile".into(), message: "is empty".into() }]);
    let problem = Problem::from(refusal("22023", "", "mobile", "messages[17].mobile: is empty"));
    assert_eq!(problem.errors[0].field, "messages[17].mobile");
    let problem = Problem::from(refusal("22P02", "", "", "invalid input syntax for type json: \"secret\""));
    assert!(!format!("{problem:?}").contains("secret"));
}

#[test]
fn a_limit_says_when_it_ends() {
    let mut limited = refusal("53400", "messages_per_minute", "", "the limit is reached");
    limited.detail = Some("limit: 60; retry_after_seconds: 37".to_owned());
    assert_eq!(Problem::from(limited).into_response().headers()[header::RETRY_AFTER], "37");
    let away = Problem::from(CallError::Away("refused".to_owned())).into_response();
    assert!(away.headers().contains_key(header::RETRY_AFTER));
}

#[test]
fn codes_are_unique_and_of_their_status() {
    let mut seen = std::collections::HashSet::new();
    for code in Code::ALL {
        assert!(seen.insert(code.text()) && code.meaning().ends_with('.'), "{code:?}");
        assert_eq!(Code::named(code.text()), Some(*code));
        assert!(code.status().is_client_error() || code.status().is_server_error());
    }
    assert!(Code::ALL.windows(2).all(|two| two[0].status() <= two[1].status() || two[1] == Code::NoSmsApp));
}
