use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn fault(url: &str) -> String {
    Target::parse(url, "test", LIMIT).map(|t| t.to_string()).expect_err("must be refused").to_string()
}

#[test]
fn no_error_and_no_display_shows_the_password() {
    for url in [
        "postgres://shop:s3cr&t=x@db:bad/sms",
        "host=db user=shop password=a s3cr",
        "s3cr",
        "postgres://shop:s3cr@db/sms?sslmode=s3cr",
        "postgres://shop:s3cr@db/sms?nonsense=s3cr",
    ] {
        let text = fault(url);
        assert!(!text.contains("s3cr"), "{text}");
        assert!(text.starts_with("database_url: "), "{text}");
    }
    let target = Target::parse("postgres://shop:s3cr@db:6000/sms", "test", LIMIT).expect("a good URL");
    assert_eq!(format!("{target} {target:?}"), "db:6000/sms as shop db:6000/sms as shop");
}

#[test]
fn sslmode_has_the_meaning_of_libpq() {
    let mode = |url: &str| tls::split(url).map(|(rest, tls)| (rest, tls.mode)).expect("a good URL");
    assert_eq!(mode("postgres://db/sms"), ("postgres://db/sms".to_owned(), tls::Mode::Prefer));
    assert_eq!(mode("postgres://db/sms?sslmode=disable"), ("postgres://db/sms".to_owned(), tls::Mode::Disable));
    assert_eq!(
        mode("postgres://db/sms?a=1&sslmode=verify-full&b=2"),
        ("postgres://db/sms?a=1&b=2".to_owned(), tls::Mode::VerifyFull)
    );
    assert_eq!(
        mode("host=db password='a sslmode=disable' sslmode=require"),
        ("host=db password='a sslmode=disable'".to_owned(), tls::Mode::Require)
    );
    // A question mark in a password must not hide the mode behind it.
    assert_eq!(
        mode("postgres://shop:a?b@db/sms?sslmode=require"),
        ("postgres://shop:a?b@db/sms".to_owned(), tls::Mode::Require)
    );
    assert!(fault("postgres://db/sms?sslmode=verify-ca").contains("verify-full"));
    assert!(fault("postgres://db/sms?sslmode=require&sslrootcert=/ca.pem").contains("sslmode=verify-full"));
    assert!(fault("postgres://db/sms?sslmode=verify-full&sslrootcert=/no/such.pem").contains("/no/such.pem"));
}

#[test]
fn the_url_wins_over_defaults() {
    let target =
        Target::parse("postgres://db/sms?application_name=mine&connect_timeout=9", "test", LIMIT).expect("a good URL");
    assert_eq!(target.config().get_application_name(), Some("mine"));
    assert_eq!(target.config().get_connect_timeout(), Some(&Duration::from_secs(9)));
}

#[test]
fn a_patch_release_is_the_same_release() {
    assert_eq!(release("0.1.0"), release("0.1.7"));
    assert!(release("0.2.0") > release("0.1.9"));
    assert!(release("0.10.0") > release("0.9.0"));
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_its_cure() {
    // Port 1 of the loopback: nobody listens there.
    let target = Target::parse("postgres://shop:s3cr@127.0.0.1:1/sms", "test", LIMIT).expect("a good URL");
    let text = target.connect().await.map(|_| ()).expect_err("nobody listens").to_string();
    assert!(text.starts_with("cannot reach 127.0.0.1:1/sms as shop: "), "{text}");
    assert!(text.contains("check host and port") && !text.contains("s3cr"), "{text}");
}
