//! The message of the suite: 100 characters of text, a recipient, a small meta.

/// Messages of one call of `sms_outbox_enqueue_many()` and of other set-based statements.
pub(crate) const MANY: u32 = 10_000;

/// The organization that enqueues.
pub(crate) const ORGANIZATION: &str = "shop";

/// The recipient of message `number`.
pub(crate) fn mobile(number: u32) -> String {
    format!("+9665{:08}", number % 100_000_000)
}

/// The text of message `number`.
pub(crate) fn text(number: u32) -> String {
    let start =
        format!("Order {number} is on its way and arrives between 10 and 12. Reply STOP to hear no more of it. ");
    format!("{start:.<100}")
}

/// The meta of message `number`.
pub(crate) fn meta(number: u32) -> String {
    format!("{{\"order\": {number}, \"kind\": \"delivery\"}}")
}

/// So many messages from `first`, as `sms_outbox_enqueue_many()` takes them.
pub(crate) fn array(first: u32, count: u32) -> String {
    let messages: Vec<serde_json::Value> = (first..first + count)
        .map(|number| {
            serde_json::json!({
                "mobile": mobile(number), "message": text(number), "sender": "MyShop",
                "meta": { "order": number, "kind": "delivery" },
            })
        })
        .collect();
    serde_json::Value::Array(messages).to_string()
}
