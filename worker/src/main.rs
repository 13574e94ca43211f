//! The command `sms-outbox`.

fn main() {}
