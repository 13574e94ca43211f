//! Of workers: arrays that do not fit, and isolation levels in which the queue cannot be moved.

use crate::{Bad, bad};

pub(crate) fn workers() -> Vec<Bad> {
    const RANGE: &str = "ARRAY['0'::xid8], ARRAY[sms_outbox.id_floor('epoch')], ARRAY[NULL::xid8]";
    let finish = |ids: &str, statuses: &str, http_statuses: &str| {
        format!(
            "SELECT * FROM sms_outbox.finish('w', {ids}, ARRAY[1::smallint], {statuses}, {http_statuses}, ARRAY[NULL], ARRAY[NULL], ARRAY[NULL], ARRAY[NULL], ARRAY[NULL::float8])"
        )
    };
    let (id, accepted, ok) = (
        "ARRAY['{sent}'::sms_outbox.message_id]",
        "ARRAY['accepted'::sms_outbox.attempt_status]",
        "ARRAY[200::smallint]",
    );
    let mut all = vec![
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[]::smallint[], {RANGE}, 10)"),
            "22023",
            "priorities",
            "the same 1 to 1000 elements",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[0, 1]::smallint[], {RANGE}, 10)"),
            "22023",
            "priorities",
            "the same 1 to 1000 elements",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[1]::smallint[], {RANGE}, 0)"),
            "22023",
            "page",
            "0 is not between 1 and 100000",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[1]::smallint[], {RANGE}, 100001)"),
            "22023",
            "page",
            "100001 is not between 1 and 100000",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[1]::smallint[], {RANGE}, NULL)"),
            "22023",
            "page",
            "is not between 1 and 100000",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.claim('', {id}, ARRAY[1::bigint])"),
            "22023",
            "worker",
            "1 to 100 characters",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.claim('w', {id}, ARRAY[1, 2]::bigint[])"),
            "22023",
            "ids",
            "the same number of elements",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.claim('w', {id}, NULL)"),
            "22023",
            "ids",
            "the same number of elements",
            "",
        ),
        bad(finish(id, accepted, "ARRAY[200, 201]::smallint[]"), "22023", "ids", "the same number of elements", ""),
        bad(finish(id, "NULL", ok), "22023", "ids", "the same number of elements", ""),
        bad(finish(id, accepted, "NULL"), "22023", "ids", "the same number of elements", ""),
        bad(finish(id, "ARRAY[NULL::sms_outbox.attempt_status]", ok), "22023", "statuses", "must not hold NULL", ""),
        bad(finish("ARRAY[NULL::sms_outbox.message_id]", accepted, ok), "22023", "ids", "must not hold NULL", ""),
        bad(finish(id, accepted, ok).replace("'w'", "NULL"), "22023", "worker", "1 to 100 characters", ""),
        bad(finish(id, accepted, ok).replace("'w'", "''"), "22023", "worker", "1 to 100 characters", ""),
        bad("SELECT sms_outbox.heartbeat('', '1', 'h', 0, 0, 0, 0)", "22023", "worker", "1 to 100 characters", ""),
    ];
    // One too many, and a thousand times too many.
    for many in [10_001, 10_000_000] {
        let filled = |element: &str| format!("array_fill({element}, ARRAY[{many}])");
        let ids = filled("'{sent}'::sms_outbox.message_id");
        let told = format!("10000 at most; they have {many} and {many}");
        let claim = format!("SELECT * FROM sms_outbox.claim('w', {ids}, {})", filled("1::bigint"));
        all.push(Bad { sql: claim, state: "22023", column: "ids", fault: told.leak(), cure: "" });
    }
    let ten_thousand_and_one = [
        "'{sent}'::sms_outbox.message_id",
        "1::smallint",
        "'accepted'::sms_outbox.attempt_status",
        "200::smallint",
        "NULL::text",
        "NULL::text",
        "NULL::text",
        "NULL::text",
        "NULL::float8",
    ]
    .map(|element| format!("array_fill({element}, ARRAY[10001])"))
    .join(", ");
    let finish_many = format!("SELECT * FROM sms_outbox.finish('w', {ten_thousand_and_one})");
    all.push(bad(finish_many, "22023", "ids", "10000 at most", ""));
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for call in [
            format!("sms_outbox.claim('w', {id}, ARRAY[1::bigint])"),
            finish(id, accepted, ok).replace("SELECT * FROM ", ""),
            "sms_outbox.cancel('{sent}')".to_owned(),
            "sms_outbox.retry('{sent}')".to_owned(),
            "sms_outbox.release_held()".to_owned(),
            "sms_outbox.run_maintenance()".to_owned(),
            "sms_outbox.forget_bench('sms-outbox-bench:0123456789ab')".to_owned(),
        ] {
            let sql = format!("BEGIN ISOLATION LEVEL {level}; SELECT * FROM {call}");
            all.push(bad(sql, "0A000", "", "moved in READ COMMITTED only", "BEGIN ISOLATION LEVEL READ COMMITTED"));
        }
    }
    all
}
