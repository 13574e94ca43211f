use super::*;

fn refused(body: &[u8]) -> (Code, String) {
    let problem = checked(body).expect_err("must be refused");
    (problem.code, problem.errors().first().map_or_else(String::new, |error| error.field.clone()))
}

#[test]
fn good_json_is_left_as_it_is() {
    for good in ["{}", " [1, 2.5e3, null, true] ", r#"{"a":{"a":{"a":"\u00e9"}},"b":"x"}"#, "1e30", "\"\""] {
        assert_eq!(checked(good.as_bytes()), Ok(good));
    }
    let deep = format!("{}{}", "[".repeat(32), "]".repeat(32));
    assert!(checked(deep.as_bytes()).is_ok());
}

#[test]
fn what_is_not_json_is_told_with_its_place() {
    for bad in [
        &b""[..],
        b"{",
        b"{}x",
        b"{a:1}",
        b"'a'",
        b"nul",
        b"\xff",
        b"{\"a\":\"\\ud800\"}",
        b"\"\0\"",
        b"\xef\xbb\xbf{}",
    ] {
        assert_eq!(refused(bad).0, Code::NotJson, "{}", String::from_utf8_lossy(bad));
    }
    assert_eq!(refused("[".repeat(1_000_000).as_bytes()).0, Code::InvalidField);
    assert_eq!(refused(r#"{"a":"#.repeat(150_000).as_bytes()).0, Code::InvalidField);
}

#[test]
fn duplicates_and_nul_are_found_at_any_depth() {
    for (body, code, field) in [
        (r#"{"mobile":"1","mobile":"2"}"#, Code::DuplicateField, "mobile"),
        (r#"{"mobile":"1","mobil\u0065":"2"}"#, Code::DuplicateField, "mobile"),
        (r#"{"meta":{"a":[1,{"b":1,"b":1}]}}"#, Code::DuplicateField, "meta.a[1].b"),
        (r#"{"message":"a\u0000b"}"#, Code::InvalidField, "message"),
        (r#"{"meta":{"a\u0000":1}}"#, Code::InvalidField, "meta.a"),
    ] {
        assert_eq!(refused(body.as_bytes()), (code, field.to_owned()), "{body}");
    }
}

#[test]
fn fields_are_taken_by_name_and_kind() {
    let json = r#"{"s":"x","n":1.0,"none":null,"o":{"n": 1.00000000000000000001},"a":[1],"e":""}"#;
    let mut fields = Fields::read(json, &["s", "n", "none", "o", "a", "e"], "").unwrap();
    assert_eq!(fields.text("s").as_deref(), Some("x"));
    assert_eq!((fields.integer("n"), fields.integer("e")), (Some(1), None));
    assert_eq!(fields.text("none"), None);
    assert_eq!(fields.object("o"), Some(r#"{"n": 1.00000000000000000001}"#));
    assert_eq!(fields.array("a").unwrap().len(), 1);
    assert!(fields.end().is_ok());
}

#[test]
fn all_faults_of_an_object_are_told_at_once() {
    let mut fields =
        Fields::read(r#"{"mobil":"1","message":7,"priority":1.5}"#, &["mobile", "message", "priority"], "messages[3]")
            .unwrap();
    assert_eq!((fields.text("mobile"), fields.text("message"), fields.integer("priority")), (None, None, None));
    let problem = fields.end().unwrap_err();
    assert_eq!(problem.code, Code::UnknownField);
    let told: Vec<_> = problem.errors().iter().map(|error| format!("{} {}", error.field, error.message)).collect();
    assert_eq!(
        told,
        [
            "messages[3].mobil is no field here; did you mean mobile?",
            "messages[3].message is not a string",
            "messages[3].priority is not a whole number"
        ]
    );
    for other in ["[]", "7", "null"] {
        assert!(Fields::read(other, &[], "").is_err());
    }
}
