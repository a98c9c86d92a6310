//! The worker over an executor that misbehaves on purpose.

use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;

use super::super::{AnswerStart, Engine, EngineOptions, Sampling, Sizes, Stop, SubmitError, TokenStream};
use super::*;
use crate::image::{ImageKey, PreparedImage};
use crate::ops::room_for;
use crate::precision::Precision;
use crate::prompt::Prompt;

mod ahead;
mod answers;
mod leaving;
mod scripted;

use scripted::{DRAWS, FAILS, IMAGE, LOSES_THE_DEVICE, NAN, NAN_LATER, PANICS, Scripted, WELL};

const VOCABULARY: usize = 8;

fn spawn(executor: impl Executor + 'static, max_concurrency: usize, max_queue: usize) -> Engine {
    let options = EngineOptions {
        max_tokens: 4000,
        max_concurrency,
        max_queue,
        kv_bytes: None,
        encoder_cache_bytes: 1 << 20,
        precision: Precision::F32,
    };
    let sizes = Sizes {
        max_tokens: 4000,
        short_tokens: 4000,
        vocabulary: VOCABULARY,
        row_bytes: 4,
        blocks: room_for(max_concurrency, 4000),
    };
    Engine::spawn(executor, sizes, &options).unwrap()
}

fn engine_over(executor: Scripted, max_concurrency: usize, max_queue: usize) -> (Engine, Arc<Mutex<Vec<String>>>) {
    let log = Arc::clone(&executor.log);
    (spawn(executor, max_concurrency, max_queue), log)
}

fn engine(max_concurrency: usize, max_queue: usize) -> (Engine, Arc<Mutex<Vec<String>>>) {
    engine_over(Scripted::default(), max_concurrency, max_queue)
}

fn prompt(ids: Vec<u32>) -> Prompt {
    Prompt { ids, image_token: IMAGE, images: Vec::new() }
}

/// So many answers from their beginning.
fn starts(answers: usize) -> Vec<AnswerStart> {
    (0..answers as u64).map(|number| AnswerStart { number, generated: Vec::new() }).collect()
}

fn ask(engine: &Engine, what: u32, prompt_tokens: usize, max_new_tokens: usize) -> TokenStream {
    let prompt = prompt(vec![what; prompt_tokens]);
    let request =
        Request { prompt, sampling: Sampling::default(), max_new_tokens, stop_ids: Vec::new(), ..Request::default() };
    engine.submit(request).unwrap()
}

async fn end(mut stream: TokenStream) -> (usize, Event) {
    let mut tokens = 0;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("a stream hangs");
        match next.expect("a stream ends without saying why") {
            Event::Token { .. } => tokens += 1,
            end => return (tokens, end),
        }
    }
}

#[tokio::test]
async fn replayed_steps_are_counted_by_who_replays_them() {
    let (engine, log) = engine(1, 1);
    assert_eq!(end(ask(&engine, WELL, 4, 20)).await, (20, Event::Finished(FinishReason::Length)));
    engine.idle().await;
    let decoded = log.lock().unwrap().iter().filter(|line| *line == "decode").count() as u64;
    let counts = engine.snapshot().counts;
    // The last step may be published after the answer's end was sent.
    assert!(decoded > 10 && decoded - counts.graph_hits <= 1 && counts.graph_misses == 2, "{decoded} {counts:?}");
}

#[tokio::test]
async fn a_failing_sequence_fails_alone() {
    for (mixes, ahead) in [(false, false), (true, false), (false, true), (true, true)] {
        fails_alone(Scripted { mixes, ahead, ..Scripted::default() }).await;
    }
}

async fn fails_alone(executor: Scripted) {
    let (engine, _) = engine_over(executor, 3, 3);
    let well = ask(&engine, WELL, 4, 20);
    let fails = ask(&engine, FAILS, 4, 20);
    let nan = ask(&engine, NAN, 4, 20);
    let later = ask(&engine, NAN_LATER, 4, 20);
    assert_eq!(end(fails).await, (0, Event::Failed(Failure::Step("told to fail".to_owned()))));
    assert_eq!(end(nan).await, (0, Event::Failed(Failure::NotFinite)));
    assert_eq!(end(later).await, (1, Event::Failed(Failure::NotFinite)));
    assert_eq!(end(well).await, (20, Event::Finished(FinishReason::Length)));
    engine.idle().await;
    assert!(!engine.snapshot().stopped);
}

#[tokio::test]
async fn a_panic_ends_every_stream_and_refuses_the_next() {
    let (engine, _) = engine(2, 8);
    let running = ask(&engine, WELL, 4, 3000);
    let panics = ask(&engine, PANICS, 4, 20);
    let waiting: Vec<_> = (0..4).map(|_| ask(&engine, WELL, 4, 20)).collect();
    assert!(matches!(end(panics).await.1, Event::Failed(_)));
    assert!(matches!(end(running).await.1, Event::Failed(_)));
    for stream in waiting {
        assert!(matches!(end(stream).await, (0, Event::Failed(_))));
    }
    tokio::time::timeout(Duration::from_secs(5), engine.idle()).await.expect("idle hangs");
    let snapshot = engine.snapshot();
    assert!(snapshot.stopped && snapshot.running == 0 && snapshot.waiting == 0);
    let prompt = prompt(vec![WELL]);
    let request = Request {
        prompt,
        sampling: Sampling::default(),
        max_new_tokens: 1,
        stop_ids: Vec::new(),
        ..Request::default()
    };
    assert_eq!(engine.submit(request).unwrap_err(), SubmitError::Stopped);
}

/// Waits for the second token: the first comes with the end of the prompt.
async fn await_decoding(stream: &mut TokenStream) {
    for _ in 0..2 {
        assert!(matches!(stream.next().await, Some(Event::Token { .. })));
    }
}

#[tokio::test]
async fn a_long_prompt_does_not_stall_a_running_stream() {
    let (engine, log) = engine(2, 2);
    let mut running = ask(&engine, WELL, 4, 3000);
    await_decoding(&mut running).await;
    assert_eq!(end(ask(&engine, WELL, 1000, 1)).await.0, 1);
    let log = log.lock().unwrap();
    let chunks: Vec<usize> = (0..log.len()).filter(|i| log[*i].starts_with("prefill 1")).collect();
    assert_eq!(chunks.len(), 8);
    assert!(chunks.windows(2).all(|pair| log[pair[0]..pair[1]].iter().any(|line| line == "decode")), "{log:?}");
}

#[tokio::test]
async fn what_decodes_is_read_beside_a_prompt_where_that_is_better() {
    let (engine, log) = engine_over(Scripted { mixes: true, ..Scripted::default() }, 2, 2);
    let mut running = ask(&engine, WELL, 4, 3000);
    await_decoding(&mut running).await;
    assert_eq!(end(ask(&engine, WELL, 1000, 1)).await.0, 1);
    let log = log.lock().unwrap().clone();
    let chunks: Vec<usize> = (0..log.len()).filter(|i| log[*i].starts_with("prefill 1")).collect();
    assert_eq!(chunks.len(), 8);
    for pair in chunks.windows(2) {
        assert_eq!(log[pair[0] + 1..pair[1]], ["prefill 0 1"], "{log:?}");
    }
    // Alone again, it has its own steps.
    assert!(matches!(running.next().await, Some(Event::Token { .. })));
}

#[tokio::test]
async fn the_queue_is_bounded_and_counted() {
    let (engine, _) = engine(2, 3);
    let mut streams: Vec<_> = (0..5).map(|_| ask(&engine, WELL, 4, 100)).collect();
    let prompt = prompt(vec![WELL]);
    let request = Request {
        prompt,
        sampling: Sampling::default(),
        max_new_tokens: 1,
        stop_ids: Vec::new(),
        ..Request::default()
    };
    assert_eq!(engine.submit(request).unwrap_err(), SubmitError::QueueFull { retry_after_seconds: 1 });
    assert!(matches!(streams[0].next().await, Some(Event::Token { .. })));
    assert!(matches!(streams[1].next().await, Some(Event::Token { .. })));
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.running, snapshot.waiting, snapshot.capacity), (2, 3, 2));
    assert!(snapshot.kv_usage > 0.0 && snapshot.kv_usage < 1.0);
    for stream in streams {
        end(stream).await;
    }
    engine.idle().await;
    assert_eq!((engine.snapshot().running, engine.snapshot().waiting), (0, 0));
}

#[tokio::test]
async fn a_dropped_stream_is_gone_within_a_step() {
    let (engine, log) = engine(1, 1);
    let mut stream = ask(&engine, WELL, 4, 3000);
    assert!(matches!(stream.next().await, Some(Event::Token { .. })));
    drop(stream);
    tokio::time::timeout(Duration::from_secs(2), engine.idle()).await.expect("the sequence runs on");
    let log = log.lock().unwrap();
    assert_eq!(log.last().map(String::as_str), Some("end 0"));
}

#[tokio::test]
async fn a_dropped_request_leaves_the_queue_while_another_runs() {
    let (engine, log) = engine(1, 4);
    let mut running = ask(&engine, WELL, 4, 3000);
    await_decoding(&mut running).await;
    drop(ask(&engine, WELL, 4, 20));
    let left = async {
        while engine.snapshot().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), left).await.expect("the dropped request waits on");
    assert_eq!(engine.snapshot().running, 1);
    assert!(!log.lock().unwrap().iter().any(|line| line.starts_with("prefill 1")));
}

#[tokio::test]
async fn a_lost_device_ends_the_engine_and_tells_everyone() {
    let (engine, _) = engine(2, 4);
    let running = ask(&engine, WELL, 4, 3000);
    let loses = ask(&engine, LOSES_THE_DEVICE, 4, 3);
    assert!(matches!(end(loses).await.1, Event::Failed(Failure::Step(_))));
    assert_eq!(end(running).await.1, Event::Failed(Failure::Stopped));
    tokio::time::timeout(Duration::from_secs(5), engine.idle()).await.expect("idle hangs");
    assert!(engine.snapshot().stopped);
}

/// Why the engine has ended, which it must say to whoever waits for it.
async fn stop(engine: &Engine) -> Stop {
    tokio::time::timeout(Duration::from_secs(5), engine.stopped()).await.expect("nobody is told that the engine ended")
}

#[tokio::test]
async fn the_end_of_the_engine_is_told_to_who_waits_for_it_and_asks_nothing() {
    for (what, why) in [(LOSES_THE_DEVICE, Stop::DeviceLost), (PANICS, Stop::Fault)] {
        let (engine, _) = engine(2, 4);
        assert_eq!(end(ask(&engine, WELL, 4, 3)).await.0, 3);
        assert_eq!(engine.stopped().now_or_never(), None);
        assert!(matches!(end(ask(&engine, what, 4, 3)).await.1, Event::Failed(_)));
        assert_eq!(stop(&engine).await, why);
        assert!(engine.snapshot().stopped);
    }
}

#[tokio::test]
async fn a_device_that_is_lost_while_nobody_waits_for_its_last_step_ends_the_engine_at_once() {
    // The step behind that which ends the only stream is under way by then.
    let (engine, log) = engine_over(Scripted { ahead: true, lost_after: Some(1), ..Scripted::default() }, 1, 1);
    assert_eq!(end(ask(&engine, NAN_LATER, 4, 20)).await, (1, Event::Failed(Failure::NotFinite)));
    assert_eq!(stop(&engine).await, Stop::DeviceLost);
    assert_eq!(log.lock().unwrap().iter().filter(|line| *line == "begun").count(), 2);
}

/// A picture of so many tiles and as many rows, and a word behind it.
fn ask_about_picture(engine: &Engine, tiles: usize, max_new_tokens: usize) -> TokenStream {
    let pixels = vec![tiles as f32];
    let key = ImageKey::of_pixels(&pixels);
    let image = PreparedImage { tiles, height: 1, width: 1, pixels: pixels.into(), tokens: tiles, kept: None, key };
    let ids = std::iter::repeat_n(IMAGE, tiles).chain([WELL]).collect();
    let prompt = Prompt { images: vec![Arc::new(image)], ..prompt(ids) };
    let request =
        Request { prompt, sampling: Sampling::default(), max_new_tokens, stop_ids: Vec::new(), ..Request::default() };
    engine.submit(request).unwrap()
}

#[tokio::test]
async fn a_picture_of_many_tiles_stalls_no_stream_for_more_than_one_step() {
    let (engine, log) = engine(2, 2);
    let mut running = ask(&engine, WELL, 4, 3000);
    await_decoding(&mut running).await;
    assert_eq!(end(ask_about_picture(&engine, 13, 1)).await.0, 1);
    let counts = engine.snapshot().counts;
    assert_eq!((counts.tiles, counts.tile_steps, counts.encoder_misses), (13, 13, 1));
    let log = log.lock().unwrap();
    let tiles: Vec<usize> = (0..log.len()).filter(|i| log[*i].starts_with("encode 1")).collect();
    assert_eq!(tiles.len(), 13);
    assert!(tiles.windows(2).all(|pair| log[pair[0]..pair[1]].iter().any(|line| line == "decode")), "{log:?}");
}

#[tokio::test]
async fn a_picture_that_cannot_be_seen_fails_its_own_sequences_alone() {
    let (engine, log) = engine_over(Scripted { blind: true, ..Scripted::default() }, 3, 3);
    let well = ask(&engine, WELL, 4, 20);
    let why = Event::Failed(Failure::Step("told to be blind".to_owned()));
    for stream in [ask_about_picture(&engine, 3, 5), ask_about_picture(&engine, 3, 5)] {
        assert_eq!(end(stream).await, (0, why.clone()));
    }
    assert_eq!(end(well).await, (20, Event::Finished(FinishReason::Length)));
    let seen = log.lock().unwrap().iter().filter(|line| line.starts_with("encode")).count();
    assert!(seen >= 2, "the second sequence has its own try");
}

#[tokio::test]
async fn what_a_failed_sequence_computed_is_not_used_again() {
    let (engine, _) = engine(1, 1);
    for _ in 0..2 {
        let mut stream = ask(&engine, NAN_LATER, 100, 20);
        while let Some(event) = stream.next().await {
            assert!(!matches!(event, Event::Finished(_)));
        }
        assert_eq!(stream.cached_tokens(), 0);
    }
    for cached in [0, 96] {
        let mut stream = ask(&engine, WELL, 100, 20);
        while stream.next().await.is_some() {}
        assert_eq!(stream.cached_tokens(), cached);
    }
}

#[tokio::test]
async fn one_client_with_many_requests_delays_another_by_no_more_than_a_batch() {
    let (engine, log) = engine(2, 200);
    let of = |name: &[u8], new: usize| {
        let prompt = prompt(vec![WELL; 4]);
        let request = Request { prompt, max_new_tokens: new, ..Request::default() };
        let client = ClientId::of("test", name);
        engine.submit_several(client, request, starts(1)).unwrap().remove(0)
    };
    let greedy: Vec<_> = (0..100).map(|_| of(b"greedy", 50)).collect();
    let mut greedy = greedy.into_iter();
    let mut first = greedy.next().unwrap();
    assert!(matches!(first.next().await, Some(Event::Token { .. })));
    assert_eq!(end(of(b"modest", 1)).await, (1, Event::Finished(FinishReason::Length)));
    let ended = log.lock().unwrap().iter().filter(|line| line.starts_with("end ")).count();
    assert!(ended <= 2 + 2, "{ended} requests ended first");
    drop(first);
    for stream in greedy {
        end(stream).await;
    }
}

#[tokio::test]
async fn what_was_generated_elsewhere_is_read_and_not_sent_again() {
    let (engine, log) = engine(1, 1);
    for (generated, left) in [(0, 10), (7, 3), (9, 1), (10, 0)] {
        let prompt = prompt(vec![WELL; 4]);
        let request = Request { prompt, max_new_tokens: 10, generated: vec![WELL; generated], ..Request::default() };
        let stream = engine.submit(request).unwrap();
        assert_eq!(end(stream).await, (left, Event::Finished(FinishReason::Length)));
    }
    assert!(log.lock().unwrap().iter().any(|line| line == "prefill 1 11"));
}
