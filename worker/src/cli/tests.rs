//! Golden files of the help, and checks of the definition.

use super::*;

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
}

#[test]
fn help_of_every_command() {
    let mut command = command().term_width(110);
    command.build();
    let mut text = String::new();
    pages(&command, &mut text);
    insta::assert_snapshot!("help", text);
}

fn pages(command: &clap::Command, text: &mut String) {
    let global = |arg: &clap::Arg| arg.is_global_set() && command.get_name() != "sms-outbox";
    // The global options stand on the first page; repeated on each they would bury what differs.
    let mut page = command.clone().mut_args(|arg| if global(&arg) { arg.hide(true) } else { arg });
    text.push_str(&format!("{:=<110}\n{}\n", "", page.render_long_help()));
    command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(|sub| pages(sub, text));
}

#[test]
fn wrong_usage_is_refused_before_anything_is_done() {
    let cases: &[(&[&str], &str)] = &[
        (&["worker", "--concurrency", "0"], "write a whole number from 1 to 10000"),
        (&["worker", "--poll-interval", "1"], "not a duration with a unit"),
        (&["worker", "--http-timeout", "11min"], "write 1s to 10m"),
        (&["worker", "--worker-name", "a b"], "1 to 64 characters"),
        (&["worker", "--concurency", "1"], "'--concurrency'"),
        (&["api", "--listen", "8080"], "write an IP address and a port"),
        (&["api", "--pool-size", "0"], "write a whole number from 1 to 1000"),
        (&["message", "list", "--status", "lost"], "dispatch_timeout"),
        (&["message", "show", "x"], "not a message id"),
        (&["message", "retry", "--certainty", "perhaps"], "not_sent, unknown, possible"),
        (&["message", "resolve", "--app", "1", "--note", "x"], "--sent"),
        (&["message", "resolve", "--app", "1", "--sent", "--not-sent", "--note", "x"], "cannot be used with"),
        (&["message", "resolve", "--app", "1", "--sent"], "--note"),
        (&["enqueue", "--mobile", "05", "--datetime", "garbage"], "write 2026-11-24T09:00:00+03:00"),
        (&["enqueue", "--mobile", "05", "--datetime", "infinity"], "write 2026-11-24T09:00:00+03:00"),
        (&["enqueue", "--mobile", "05", "--meta", "{"], "not JSON"),
        (&["app", "test", "1", "--mobile", "05"], "--yes"),
        (&["--log-level", "a=loud", "status"], "write error, warn, info"),
    ];
    for (words, expected) in cases {
        let error = command().try_get_matches_from([&["sms-outbox"], *words].concat()).expect_err("must be refused");
        assert_eq!(error.exit_code(), i32::from(failure::USAGE));
        assert!(error.to_string().contains(expected), "{words:?}: {error}");
    }
}
