//! What reading needs of kept answers.

use std::{sync::Arc, time::Duration};

use crate::{Answers, Counts, KeptAnswer, Lookup, Offset, Partition, Tallies, UnixMillis};

/// Tries every promise against the answers that `$open` opens, beside the tallies whose version they tell. They keep 100 000 bytes.
#[macro_export]
macro_rules! answers_conformance {
    ($open:path) => {
        $crate::answers_conformance!($open:
            an_answer_is_kept_as_it_is
            the_version_is_that_of_the_tallies
            an_answer_expires
            a_kept_answer_can_be_prolonged
            what_is_kept_is_bounded_and_the_least_lasting_goes_first
            all_can_be_forgotten
            popular_questions_are_noted
            the_tallies_do_not_meet_the_answers
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (answers, tallies, _kept) = $open().await;
            $crate::conformance::answers::$promise(answers, tallies).await;
        }
    )*};
}

type TheAnswers = Arc<dyn Answers>;
type TheTallies = Arc<dyn Tallies>;

const MINUTE: Duration = Duration::from_mins(1);

fn answer(version: u64, body: impl Into<Vec<u8>>) -> KeptAnswer {
    KeptAnswer { version, read_at: UnixMillis(1_795_262_400_123), body: body.into() }
}

async fn kept(answers: &TheAnswers, question: &str) -> Option<KeptAnswer> {
    answers.look_up(question).await.unwrap().kept
}

pub async fn an_answer_is_kept_as_it_is(answers: TheAnswers, _: TheTallies) {
    let question = "votes?name=eq:a+b%00{}*\n\u{1F3B8}";
    assert_eq!(kept(&answers, question).await, None);
    let body: Vec<u8> = (0..=255).collect();
    answers.keep(question, &answer(u64::MAX >> 11, body.clone()), MINUTE).await.unwrap();
    assert_eq!(kept(&answers, question).await, Some(answer(u64::MAX >> 11, body)));
    assert_eq!(kept(&answers, "votes?name=eq:a").await, None);
    answers.keep(question, &answer(7, "new"), MINUTE).await.unwrap();
    assert_eq!(kept(&answers, question).await, Some(answer(7, "new")));
    answers.keep("empty", &answer(1, ""), MINUTE).await.unwrap();
    assert_eq!(kept(&answers, "empty").await, Some(answer(1, "")));
}

pub async fn the_version_is_that_of_the_tallies(answers: TheAnswers, tallies: TheTallies) {
    let before = answers.look_up("q").await.unwrap().version;
    tallies.add(Partition(0), Offset(0), Offset(1), Counts::of(&[super::logged(0, Partition(0), 0)])).await.unwrap();
    let Lookup { version, kept } = answers.look_up("q").await.unwrap();
    assert!(version > before && kept.is_none());
    assert_eq!(tallies.changed(before).await.unwrap(), version);
}

pub async fn an_answer_expires(answers: TheAnswers, _: TheTallies) {
    answers.keep("short", &answer(1, "x"), Duration::from_millis(50)).await.unwrap();
    answers.keep("long", &answer(1, "y"), MINUTE).await.unwrap();
    while kept(&answers, "short").await.is_some() {}
    assert!(kept(&answers, "long").await.is_some());
}

pub async fn a_kept_answer_can_be_prolonged(answers: TheAnswers, _: TheTallies) {
    for question in ["short", "prolonged"] {
        answers.keep(question, &answer(1, "x"), Duration::from_millis(500)).await.unwrap();
    }
    answers.prolong("prolonged", MINUTE).await.unwrap();
    answers.prolong("unknown", MINUTE).await.unwrap();
    while kept(&answers, "short").await.is_some() {}
    assert!(kept(&answers, "prolonged").await.is_some());
    assert_eq!(kept(&answers, "unknown").await, None);
}

pub async fn what_is_kept_is_bounded_and_the_least_lasting_goes_first(answers: TheAnswers, _: TheTallies) {
    let body = vec![b'x'; 10_000];
    for n in 0..30 {
        answers.keep(&format!("q{n}"), &answer(1, body.clone()), MINUTE + Duration::from_secs(n)).await.unwrap();
    }
    let mut left = Vec::new();
    for n in 0..30 {
        if kept(&answers, &format!("q{n}")).await.is_some() {
            left.push(n);
        }
    }
    assert!((5..=10).contains(&left.len()), "{left:?}");
    assert_eq!(left, (30 - left.len() as u64..30).collect::<Vec<_>>());
    // Larger than all that may be kept: it is not, and nothing else has to go for it.
    answers.keep("huge", &answer(1, vec![b'x'; 100_001]), MINUTE).await.unwrap();
    assert_eq!(kept(&answers, "huge").await, None);
    assert!(kept(&answers, "q29").await.is_some());
}

pub async fn all_can_be_forgotten(answers: TheAnswers, tallies: TheTallies) {
    for n in 0..5 {
        answers.keep(&format!("q{n}"), &answer(1, "x"), MINUTE).await.unwrap();
    }
    let version = answers.look_up("q0").await.unwrap().version;
    assert_eq!(answers.forget().await.unwrap(), 5);
    assert_eq!(answers.forget().await.unwrap(), 0);
    assert_eq!(answers.look_up("q0").await.unwrap(), Lookup { version, kept: None });
    assert_eq!(tallies.snapshot().await.unwrap(), crate::Snapshot::default());
}

pub async fn popular_questions_are_noted(answers: TheAnswers, _: TheTallies) {
    assert_eq!(answers.popular().await.unwrap(), []);
    let first = [("a".to_owned(), 1.5), ("b".to_owned(), 9.0)];
    answers.note_popular(&first).await.unwrap();
    assert_eq!(answers.popular().await.unwrap(), [("b".to_owned(), 9.0), ("a".to_owned(), 1.5)]);
    answers.note_popular(&[("c".to_owned(), 4.0)]).await.unwrap();
    assert_eq!(answers.popular().await.unwrap(), [("c".to_owned(), 4.0)]);
    answers.note_popular(&[]).await.unwrap();
    assert_eq!(answers.popular().await.unwrap(), []);
}

pub async fn the_tallies_do_not_meet_the_answers(answers: TheAnswers, tallies: TheTallies) {
    answers.keep("q", &answer(1, "x"), MINUTE).await.unwrap();
    answers.note_popular(&[("q".to_owned(), 1.0)]).await.unwrap();
    let counts = Counts::of(&[super::logged(0, Partition(0), 0)]);
    tallies.add(Partition(0), Offset(0), Offset(1), counts.clone()).await.unwrap();
    assert_eq!(tallies.snapshot().await.unwrap().contests.len(), 1);
    tallies.clear().await.unwrap();
    assert!(kept(&answers, "q").await.is_some());
    answers.forget().await.unwrap();
    tallies.add(Partition(0), Offset(0), Offset(1), counts).await.unwrap();
    assert_eq!(tallies.position(Partition(0)).await.unwrap(), Offset(1));
}
