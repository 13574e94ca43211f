use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::json;

use super::reference::Folders;
use super::*;
use crate::provider::config::secrets;

const FIELDS: &[Field] = &[
    Field::new("token", Kind::String, "").secret(),
    Field::new("headers", Kind::Object, "").secret(),
    Field::new("url", Kind::String, ""),
];

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("sms-outbox-credentials-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        format!("file:{}", path.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn keys() -> SealingKeys {
    SealingKeys::parse(&SealingKeys::generate("k1")).unwrap()
}

fn resolve(credentials: &Credentials, token: &str) -> Result<String, Fault> {
    let resolved = credentials.resolve("shop", "p", FIELDS, &json!({"token": token})).map_err(|error| {
        assert_eq!(error.field, "token");
        let shown = error.to_string();
        assert!(shown.starts_with("config field \"token\" ") && !shown.contains("canary"), "{shown}");
        error.fault
    })?;
    Ok(resolved["token"].as_str().unwrap().to_owned())
}

#[test]
fn what_a_field_holds_is_told_apart() {
    for (text, held) in [
        ("abc", Held::Plain),
        ("Bearer abc", Held::Plain),
        ("{{ message }}", Held::Plain),
        ("https://user:env:x@h", Held::Plain),
        ("sealed:v1:k-1:AAAA", Held::Sealed("k-1")),
        ("env:TOKEN_1", Held::Reference(Reference::Env("TOKEN_1"))),
        ("file:/run/token", Held::Reference(Reference::File("/run/token"))),
        ("sealed:v2:k:AAAA", Held::Malformed),
        ("sealed:v1:k 1:AAAA", Held::Malformed),
        ("env:", Held::Malformed),
        ("env:1A", Held::Malformed),
        ("env:A-B", Held::Malformed),
        ("file:token", Held::Malformed),
        ("file:/", Held::Malformed),
    ] {
        assert_eq!(Held::of(text, Kind::String), held, "{text}");
    }
    for text in ["Bearer {{ secrets.key }}", "{{-secrets.key}}", "Basic {{ secrets.key|upper }}"] {
        assert_eq!(Held::of(text, Kind::Object), Held::Template, "{text}");
        assert_eq!(Held::of(text, Kind::String), Held::Plain, "{text}");
    }
    assert_eq!(Held::of("secrets.key", Kind::Object), Held::Plain);
}

#[test]
fn what_was_sealed_is_resolved_where_it_belongs() {
    let mut config = json!({"token": "canary-1", "headers": {"A": "canary-2", "B": "{{ secrets.a }}", "C": "env:HOME"}, "url": "env:HOME"});
    let plain = config.clone();
    let credentials = Credentials { keys: keys(), folders: Folders::default() };
    let done = seal_config(&credentials.keys, "shop", "p", FIELDS, &mut config).unwrap();
    assert_eq!(done.sealed, ["token", "headers.A"]);
    assert_eq!(
        done.changed,
        json!({"token": config["token"], "headers": config["headers"]}).as_object().unwrap().clone()
    );
    assert!(!config.to_string().contains("canary") && config["headers"]["B"] == plain["headers"]["B"]);
    let again = seal_config(&credentials.keys, "shop", "p", FIELDS, &mut config).unwrap();
    assert_eq!(again, Sealed::default());

    let resolved = credentials.resolve("shop", "p", FIELDS, &config).unwrap();
    assert_eq!((&resolved["token"], &resolved["headers"]["A"]), (&plain["token"], &plain["headers"]["A"]));
    assert_eq!(resolved["headers"]["C"], std::env::var("HOME").unwrap());
    // A field that is no secret is left as it is.
    assert_eq!(resolved["url"], "env:HOME");
    assert!(secrets(FIELDS, &resolved).contains(&"canary-1"));

    for (organization, slug) in [("other", "p"), ("shop", "q")] {
        let error = credentials.resolve(organization, slug, FIELDS, &config).unwrap_err();
        assert_eq!(error.fault, Fault::Sealed(OpenError::Refused("k1".to_owned())));
    }
    // From one header to another of the same app.
    config["headers"]["B"] = config["headers"]["A"].clone();
    assert_eq!(credentials.resolve("shop", "p", FIELDS, &config).unwrap_err().field, "headers.B");
}

#[test]
fn a_new_key_takes_over() {
    let (old, new) = (SealingKeys::generate("old"), SealingKeys::generate("new"));
    let keys = |lines: &[&String]| {
        SealingKeys::parse(&lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap()
    };
    let mut config = json!({"token": "t"});
    seal_config(&keys(&[&old]), "shop", "p", FIELDS, &mut config).unwrap();
    let unknown = seal_config(&keys(&[&new]), "shop", "p", FIELDS, &mut config.clone()).unwrap_err();
    assert_eq!(unknown.fault, Fault::Sealed(OpenError::UnknownKey("old".to_owned())));
    let done = seal_config(&keys(&[&new, &old]), "shop", "p", FIELDS, &mut config).unwrap();
    assert_eq!(done.resealed, ["token"]);
    let late = Credentials { keys: keys(&[&new]), folders: Folders::default() };
    assert_eq!(late.resolve("shop", "p", FIELDS, &config).unwrap(), json!({"token": "t"}));
    // Without a key nothing is sealed, and nothing sealed is lost.
    let before = config.clone();
    assert_eq!(seal_config(&SealingKeys::default(), "shop", "p", FIELDS, &mut config).unwrap(), Sealed::default());
    assert_eq!(config, before);
    let mut plain = json!({"token": "t"});
    assert_eq!(seal_config(&SealingKeys::default(), "shop", "p", FIELDS, &mut plain).unwrap().plain, ["token"]);
}

#[test]
fn files_are_read_anew_and_trimmed() {
    let folder = Folder::new();
    let credentials = Credentials { keys: SealingKeys::default(), folders: Folders(vec![folder.0.clone()]) };
    let path = folder.write("a/token", "one\r\n");
    assert_eq!(resolve(&credentials, &path).as_deref(), Ok("one"));
    folder.write("a/token", " two \n\n");
    assert_eq!(resolve(&credentials, &path).as_deref(), Ok(" two "));
    // As Kubernetes does it.
    symlink("a", folder.0.join("..data")).unwrap();
    symlink("..data/token", folder.0.join("token")).unwrap();
    assert_eq!(resolve(&credentials, &format!("file:{}", folder.0.join("token").display())).as_deref(), Ok(" two "));
    let longest = folder.write("longest", "x".repeat(65_536) + "\r\n");
    assert_eq!(resolve(&credentials, &longest).map(|text| text.len()), Ok(65_536));
}

#[test]
fn a_reference_reads_nothing_else() {
    use ReferenceError::{EnvOwn, EnvUnset, FileOutside, FileUnreadable, NoText};
    let (folder, outside) = (Folder::new(), Folder::new());
    let credentials = Credentials { keys: SealingKeys::default(), folders: Folders(vec![folder.0.clone()]) };
    let canary = outside.write("token", "canary");
    let target = canary.trim_start_matches("file:");
    symlink(target, folder.0.join("link")).unwrap();
    symlink(&outside.0, folder.0.join("folder")).unwrap();
    let here = folder.0.display();
    for (reference, error) in [
        (canary.clone(), FileOutside),
        (format!("file:{here}/link"), FileOutside),
        (format!("file:{here}/folder/token"), FileOutside),
        (format!("file:{here}/../{}/token", outside.0.file_name().unwrap().display()), FileOutside),
        // Whether it exists shows no difference.
        ("file:/etc/passwd".to_owned(), FileOutside),
        ("file:/no/such".to_owned(), FileOutside),
        (format!("file:{here}-not/token"), FileOutside),
        (format!("file:{here}/no-such"), FileUnreadable),
        (format!("file:{here}"), FileUnreadable),
        (folder.write("empty", "\n"), NoText),
        (folder.write("binary", b"\xff\xfe"), NoText),
        (folder.write("long", "x".repeat(65_537)), NoText),
        ("env:SMS_OUTBOX_NO_SUCH".to_owned(), EnvOwn),
        ("env:DATABASE_URL".to_owned(), EnvOwn),
        ("env:PGPASSWORD".to_owned(), EnvOwn),
        ("env:NO_SUCH_VARIABLE_OF_A_TEST".to_owned(), EnvUnset),
    ] {
        assert_eq!(resolve(&credentials, &reference), Err(Fault::Reference(error)), "{reference}");
    }
    assert_eq!(resolve(&Credentials::default(), &canary), Err(Fault::Reference(FileOutside)));
    assert_eq!(resolve(&credentials, "file:relative"), Err(Fault::Malformed));
}
