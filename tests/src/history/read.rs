//! Writes the journals of what runs now, and checks them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;

use super::journal::{Commit, Unclear, Writer};
use super::{Files, Verdict, check_files};
use crate::{Database, Sandbox, paths, run};

/// Who is at work, as of a moment before the messages are read.
const READING: &str = "SELECT json_build_object(
    'at', clock_timestamp(),
    'worker_since', (SELECT min(started_at) FROM sms_outbox.worker_stats WHERE alive),
    'maintained_at', (SELECT max(ran_at) FROM sms_outbox.maintenance WHERE isfinite(ran_at)),
    'retention_seconds', extract(epoch FROM least(sms_outbox.setting('retention_sent')::interval,
                                                  sms_outbox.setting('retention_failed')::interval))::bigint)::text";

/// Places and ledger from the tables themselves, beside what the view makes of them.
const MESSAGES: &str = "SELECT json_build_object(
    'id', o.id::text, 'to', o.mobile, 'text', o.message, 'status', o.dispatch_status, 'waits_for', o.waits_for,
    'due_since', coalesce(s.due_at, r.since),
    'places', array_remove(ARRAY[CASE WHEN r.id IS NOT NULL THEN 'ready' END, CASE WHEN s.id IS NOT NULL THEN 'scheduled' END,
                                 CASE WHEN l.id IS NOT NULL THEN 'lease' END, CASE WHEN e.id IS NOT NULL THEN 'ended' END], NULL),
    'ended_at', e.ended_at,
    'lease', CASE WHEN l.id IS NOT NULL THEN
        json_build_object('attempt', l.attempt, 'started_at', l.started_at, 'expires_at', l.expires_at) END,
    'attempts', coalesce((
        SELECT json_agg(json_build_object(
            'attempt', a.attempt, 'status', a.status, 'started_at', a.started_at, 'finished_at', a.finished_at,
            'over_at', coalesce((SELECT min(v.was_finished_at) FROM sms_outbox.evidence AS v
                                  WHERE v.id = a.id AND v.attempt = a.attempt), a.finished_at),
            'evidence', CASE WHEN a.status = 'accepted' THEN coalesce(
                (SELECT min(v.source) FROM sms_outbox.evidence AS v
                  WHERE v.id = a.id AND v.attempt = a.attempt AND v.verdict = 'accepted' AND v.was_finished_at IS NOT NULL),
                CASE WHEN a.http_status BETWEEN 200 AND 299 THEN 'answer' END) END,
            'provider_message_id', a.provider_message_id,
            'resends', coalesce(p.resend_unclear, false),
            'claim_lost', coalesce(a.error_code = 'claim_lost', false)) ORDER BY a.attempt)
          FROM sms_outbox.attempt AS a LEFT JOIN sms_outbox.organization_app AS p ON p.app_id = a.app_id
         WHERE a.id = o.id), '[]'))::text
  FROM sms_outbox.outbox AS o
  LEFT JOIN sms_outbox.ready AS r ON r.id = o.id
  LEFT JOIN sms_outbox.scheduled AS s ON s.id = o.id
  LEFT JOIN sms_outbox.lease AS l ON l.id = o.id
  LEFT JOIN sms_outbox.ended AS e ON e.id = o.id
 WHERE o.id >= $1::text::sms_outbox.message_id";

/// Before every message.
pub const FIRST: &str = "r00000000000000000000000000";

/// Checks what applications committed against a database and the pretend providers that run. Files that do not agree are
/// kept, and the error says where.
pub async fn check(
    commits: &[Commit],
    unclear: Option<&[Unclear]>,
    database: &Database,
    sandboxes: &[&Sandbox],
) -> Result<Verdict> {
    let folder = run::fresh("history")?;
    fs::create_dir(&folder)?;
    let files = Files {
        commits: folder.join("commits"),
        database: folder.join("database"),
        provider: folder.join("provider"),
        unclear: unclear.map(|_| folder.join("unclear")),
    };
    let mut writer = Writer::create(&files.commits)?;
    commits.iter().try_for_each(|line| writer.line(line))?;
    writer.end()?;
    if let (Some(file), Some(lines)) = (&files.unclear, unclear) {
        let mut writer = Writer::create(file)?;
        lines.iter().try_for_each(|line| writer.line(line))?;
        writer.end()?;
    }
    let mut writer = Writer::create(&files.database)?;
    read_database(database, FIRST, &mut writer).await?;
    writer.end()?;
    let mut writer = Writer::create(&files.provider)?;
    for sandbox in sandboxes {
        read_sandbox(sandbox, 0, &mut writer).await?;
    }
    writer.end()?;
    let verdict = check_files(&files);
    if !verdict.holds() {
        keep(&folder, database.name())?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(verdict)
}

/// Writes one reading of the messages from `first` on.
pub async fn read_database(database: &Database, first: &str, writer: &mut Writer) -> Result<()> {
    let reading: String = database.value(READING, &[]).await?;
    writer.wrapped("reading", &reading)?;
    let rows = database.admin().query_raw(MESSAGES, [first]).await.context("the messages")?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await? {
        writer.wrapped("message", row.try_get(0)?)?;
    }
    Ok(())
}

/// Copies the requests that a pretend provider has noted, but the first `skip`; returns how many there are. A provider that
/// runs must have noted as many as it counts.
pub async fn read_sandbox(sandbox: &Sandbox, skip: u64, writer: &mut Writer) -> Result<u64> {
    let counted = if sandbox.has_ended() { 0 } else { sandbox.noted_before() + sandbox.counts().await?.requests };
    let mut lines = 0;
    if sandbox.journal_file().exists() {
        for line in BufReader::new(File::open(sandbox.journal_file())?).lines() {
            lines += 1;
            if lines > skip {
                writer.wrapped("request", &line?)?;
            }
        }
    }
    ensure!(lines >= counted, "the provider counts {counted} requests and has noted {lines}");
    Ok(lines)
}

/// Copies journals to where they outlive the test.
fn keep(folder: &Path, name: &str) -> Result<PathBuf> {
    let kept = paths::run()?.with_file_name("history-failed").join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&kept)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        fs::copy(entry.path(), kept.join(entry.file_name()))?;
    }
    Ok(kept)
}
