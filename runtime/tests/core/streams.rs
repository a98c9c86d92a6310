//! The engine as its clients see it: many at once, cancelled, refused, drained.

use std::time::Duration;

use vlm_runtime::engine::{
    ENCODER_CACHE_BYTES, Engine, EngineOptions, Event, FinishReason, Request, Sampling, SubmitError, TokenStream,
};
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::Prompt;

use crate::fixture::{Fixture, POSITIONS};

fn engine(fixture: &Fixture, max_concurrency: usize, max_queue: usize) -> Engine {
    let options = EngineOptions {
        max_tokens: POSITIONS,
        max_concurrency,
        max_queue,
        kv_bytes: None,
        encoder_cache_bytes: ENCODER_CACHE_BYTES,
        precision: Precision::F32,
    };
    Engine::start(&fixture.checkpoint, options).unwrap()
}

fn request(prompt: Prompt, max_new_tokens: usize) -> Request {
    Request { prompt, sampling: Sampling::default(), max_new_tokens, stop_ids: Vec::new(), ..Request::default() }
}

async fn collect(mut stream: TokenStream) -> (Vec<u32>, Event) {
    let mut ids = Vec::new();
    loop {
        match stream.next().await.expect("the stream ends without saying why") {
            Event::Token { id, .. } => ids.push(id),
            end => return (ids, end),
        }
    }
}

#[tokio::test]
async fn requests_at_once_get_what_each_gets_alone() {
    let fixture = Fixture::open();
    let questions =
        ["What is shown in this image?", "Hi", "Count the dots, please.", "红色?", "a", "Why?", "Left or right"];
    let prompt = |n: usize| fixture.ask(n.is_multiple_of(2).then(|| fixture.image()), questions[n]);
    let mut alone = Vec::new();
    for n in 0..questions.len() {
        let engine = engine(&fixture, 1, 0);
        alone.push(collect(engine.submit(request(prompt(n), 10 + n)).unwrap()).await);
    }
    let together = engine(&fixture, 3, 16);
    let streams: Vec<_> = (0..questions.len()).map(|n| together.submit(request(prompt(n), 10 + n)).unwrap()).collect();
    for (n, stream) in streams.into_iter().enumerate() {
        assert_eq!(collect(stream).await, alone[n], "{}", questions[n]);
    }
    together.idle().await;
    let snapshot = together.snapshot();
    assert_eq!((snapshot.running, snapshot.waiting, snapshot.capacity), (0, 0, 3));
    assert!(snapshot.completions_per_second.is_some() && !snapshot.stopped);
}

#[tokio::test]
async fn a_stop_id_ends_the_answer_and_is_not_part_of_it() {
    let fixture = Fixture::open();
    let greedy = fixture.ids("greedy_ids");
    let engine = engine(&fixture, 1, 0);
    let stopping = Request { stop_ids: vec![greedy[2]], ..request(fixture.prompt(), 10) };
    let (ids, end) = collect(engine.submit(stopping).unwrap()).await;
    assert_eq!((ids.as_slice(), end), (&greedy[..2], Event::Finished(FinishReason::Stop)));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answer_and_another_another() {
    let fixture = Fixture::open();
    let engine = engine(&fixture, 4, 4);
    let sampled = |seed| Request {
        sampling: Sampling { temperature: 1.5, top_p: 0.95, seed: Some(seed), ..Sampling::default() },
        ..request(fixture.prompt(), 24)
    };
    let (a, b, c) =
        (engine.submit(sampled(1)).unwrap(), engine.submit(sampled(1)).unwrap(), engine.submit(sampled(2)).unwrap());
    let (a, b, c) = (collect(a).await.0, collect(b).await.0, collect(c).await.0);
    assert_eq!(a, b);
    assert_ne!(a, c);
}

#[tokio::test]
async fn a_dropped_stream_frees_its_place() {
    let fixture = Fixture::open();
    let engine = engine(&fixture, 1, 1);
    let long = || request(fixture.ask(None, "Hi"), 200);
    let mut first = engine.submit(long()).unwrap();
    assert!(matches!(first.next().await, Some(Event::Token { .. })));
    let waiting = engine.submit(long()).unwrap();
    let refused = engine.submit(long()).unwrap_err();
    assert!(matches!(refused, SubmitError::QueueFull { retry_after_seconds: 1..=60 }), "{refused}");
    drop(first);
    drop(waiting);
    tokio::time::timeout(Duration::from_secs(5), engine.idle()).await.expect("cancelled sequences run on");
    assert!(engine.snapshot().kv_usage.abs() < 1e-9);
    assert_eq!(collect(engine.submit(long()).unwrap()).await.0.len(), 200);
}

#[tokio::test]
async fn draining_finishes_what_was_accepted_and_refuses_the_rest() {
    let fixture = Fixture::open();
    let engine = engine(&fixture, 1, 4);
    let streams: Vec<_> = (0..3).map(|_| engine.submit(request(fixture.prompt(), 20)).unwrap()).collect();
    engine.drain();
    assert_eq!(engine.submit(request(fixture.prompt(), 1)).unwrap_err(), SubmitError::Draining);
    for stream in streams {
        assert_eq!(collect(stream).await.0.len(), 20);
    }
    tokio::time::timeout(Duration::from_secs(5), engine.idle()).await.unwrap();
}

#[tokio::test]
async fn what_can_never_run_is_refused_at_once() {
    let fixture = Fixture::open();
    let engine = engine(&fixture, 1, 4);
    let prompt = fixture.prompt();
    let (text, images) = (prompt.ids.len() - 16, 16);
    let refused = engine.submit(request(prompt, POSITIONS)).unwrap_err();
    assert_eq!(refused, SubmitError::TooLong { text, images, answer: POSITIONS, limit: POSITIONS });
    let empty = Prompt { ids: Vec::new(), ..Prompt::default() };
    assert_eq!(engine.submit(request(empty, 1)).unwrap_err(), SubmitError::Empty);
}

#[tokio::test]
async fn a_prompt_that_the_model_refuses_fails_alone() {
    let fixture = Fixture::open();
    let engine = engine(&fixture, 2, 4);
    let foreign = Prompt { ids: vec![1, 100_000], ..Prompt::default() };
    let missing = Prompt { images: Vec::new(), ..fixture.prompt() };
    let good = engine.submit(request(fixture.prompt(), 12)).unwrap();
    for bad in [foreign, missing] {
        let (ids, end) = collect(engine.submit(request(bad, 12)).unwrap()).await;
        assert!(ids.is_empty() && matches!(end, Event::Failed(_)), "{end:?}");
    }
    assert_eq!(collect(good).await.0, fixture.ids("greedy_ids"));
}
