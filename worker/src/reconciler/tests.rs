use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::message::{AttemptStatus, DispatchStatus, MessageId};
use crate::outbox::memory::{AppRow, MemoryOutbox, NewMessage};
use crate::outbox::{Claim, Finish, Outbox, Outcome};
use crate::provider::Found;

/// A provider that gives these answers, and then none.
struct Scripted(Mutex<VecDeque<Answer>>);

impl LookUp for Scripted {
    async fn look_up(&self, _: &Unclear) -> Answer {
        self.0.lock().unwrap().pop_front().unwrap_or_else(|| Answer::Failed("connection_refused".to_owned()))
    }
}

fn accepted() -> Answer {
    Answer::Found(Found::Accepted { provider_message_id: Some("sb-1".to_owned()), status: None })
}

/// A queue with so many messages whose only attempt is unclear.
async fn unclear(count: usize) -> (MemoryOutbox, Vec<MessageId>) {
    let outbox = MemoryOutbox::new("w");
    let mut app = AppRow::new("shop".into(), "sandbox".into());
    app.looks_up = true;
    let app = outbox.install_app(app, serde_json::json!({}));
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = outbox.enqueue(NewMessage::of("shop"));
        outbox.pass_block_of(app);
        outbox.claim(&[Claim { id, app: Some(app) }]).await.unwrap();
        let outcome = Outcome {
            status: AttemptStatus::Unclear,
            http_status: None,
            error_code: Some("connection_lost".to_owned()),
            error_message: None,
            response: None,
            provider_message_id: None,
            retry_after: None,
        };
        outbox.finish(&[Finish { id, attempt: 1, outcome }]).await.unwrap();
        ids.push(id);
    }
    (outbox, ids)
}

async fn run_rounds(outbox: &MemoryOutbox, answers: Vec<Answer>, rounds: usize) {
    let provider = Scripted(Mutex::new(answers.into()));
    for _ in 0..rounds {
        round(outbox, &provider, Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn each_answer_moves_its_message_or_leaves_it() {
    let answers = vec![
        accepted(),
        Answer::Found(Found::NotSent),
        Answer::Found(Found::Nothing("not listed, which proves nothing")),
    ];
    let (outbox, ids) = unclear(4).await;
    run_rounds(&outbox, answers, 1).await;
    let found: Vec<_> = ids.iter().map(|id| outbox.status(*id).unwrap()).collect();
    use DispatchStatus::*;
    assert_eq!(found, [Sent, Failed, DispatchTimeout, DispatchTimeout]);
}

#[tokio::test]
async fn it_asks_three_times_and_no_more() {
    let (outbox, ids) = unclear(1).await;
    run_rounds(&outbox, vec![], 3).await;
    run_rounds(&outbox, vec![accepted()], 3).await;
    assert_eq!(outbox.status(ids[0]), Some(DispatchStatus::DispatchTimeout));
    let (outbox, ids) = unclear(1).await;
    run_rounds(
        &outbox,
        vec![Answer::Failed("timeout".to_owned()), Answer::Failed("http_500".to_owned()), accepted()],
        3,
    )
    .await;
    assert_eq!(outbox.status(ids[0]), Some(DispatchStatus::Sent));
}

#[tokio::test]
async fn an_answer_waits_for_a_database_that_is_away() {
    struct Away(MemoryOutbox);
    impl LookUp for Away {
        async fn look_up(&self, _: &Unclear) -> Answer {
            self.0.set_away(true);
            let outbox = self.0.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                outbox.set_away(false);
            });
            accepted()
        }
    }
    let (outbox, ids) = unclear(1).await;
    round(&outbox, &Away(outbox.clone()), Duration::ZERO).await.unwrap();
    assert_eq!(outbox.status(ids[0]), Some(DispatchStatus::Sent));
}
