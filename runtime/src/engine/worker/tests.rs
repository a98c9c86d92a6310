//! The worker over an executor that misbehaves on purpose.

use std::sync::Mutex;
use std::time::Duration;

use super::super::executor::Executor;
use super::super::{Engine, EngineOptions, Sampling, SubmitError, TokenStream};
use super::*;
use crate::precision::Precision;
use crate::prompt::Prompt;

const VOCABULARY: usize = 8;

/// Answers with 3, 3, 3 …; does something else where a prompt says so by its first id.
#[derive(Default)]
struct Scripted {
    prompts: HashMap<SequenceId, u32>,
    log: Arc<Mutex<Vec<String>>>,
}

const WELL: u32 = 0;
const FAILS: u32 = 1;
const NAN: u32 = 2;
const PANICS: u32 = 3;
const NAN_LATER: u32 = 4;
const LOSES_THE_DEVICE: u32 = 5;

impl Scripted {
    fn logits(&self, id: SequenceId, decoding: bool) -> Vec<f32> {
        let mut logits = vec![0.0; VOCABULARY];
        logits[3] = 1.0;
        if self.prompts[&id] == NAN || (decoding && self.prompts[&id] == NAN_LATER) {
            logits[5] = f32::NAN;
        }
        logits
    }
}

impl Executor for Scripted {
    fn begin(&mut self, id: SequenceId, prompt: Prompt, _: usize) {
        self.prompts.insert(id, prompt.ids[0]);
    }

    fn end(&mut self, id: SequenceId) {
        self.log.lock().unwrap().push(format!("end {id}"));
        self.prompts.remove(&id);
    }

    fn encode(&mut self, _: SequenceId, _: usize) -> Result<(), Failure> {
        Ok(())
    }

    fn prefill(
        &mut self,
        id: SequenceId,
        _: usize,
        _: usize,
        rows: usize,
        last: bool,
    ) -> Result<Option<Vec<f32>>, Failure> {
        self.log.lock().unwrap().push(format!("prefill {id} {rows}"));
        match self.prompts[&id] {
            FAILS | LOSES_THE_DEVICE => Err(Failure::Step("told to fail".to_owned())),
            PANICS => panic!("told to panic"),
            _ => Ok(last.then(|| self.logits(id, false))),
        }
    }

    fn decode(&mut self, rows: &[(Decode, u32)]) -> Result<Vec<Vec<f32>>, Failure> {
        std::thread::sleep(Duration::from_millis(2));
        self.log.lock().unwrap().push("decode".to_owned());
        Ok(rows.iter().map(|(row, _)| self.logits(row.id, true)).collect())
    }

    fn lost(&self) -> bool {
        self.prompts.values().any(|prompt| *prompt == LOSES_THE_DEVICE)
    }
}

fn engine(max_concurrency: usize, max_queue: usize) -> (Engine, Arc<Mutex<Vec<String>>>) {
    let executor = Scripted::default();
    let log = Arc::clone(&executor.log);
    let options =
        EngineOptions { max_tokens: 4000, max_concurrency, max_queue, kv_bytes: None, precision: Precision::F32 };
    (Engine::spawn(executor, max_concurrency, &options).unwrap(), log)
}

fn ask(engine: &Engine, what: u32, prompt_tokens: usize, max_new_tokens: usize) -> TokenStream {
    let prompt = Prompt { ids: vec![what; prompt_tokens], ..Prompt::default() };
    let request = Request { prompt, sampling: Sampling::default(), max_new_tokens, stop_ids: Vec::new() };
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
async fn a_failing_sequence_fails_alone() {
    let (engine, _) = engine(3, 3);
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
    let prompt = Prompt { ids: vec![WELL], ..Prompt::default() };
    let request = Request { prompt, sampling: Sampling::default(), max_new_tokens: 1, stop_ids: Vec::new() };
    assert_eq!(engine.submit(request).unwrap_err(), SubmitError::Stopped);
}

#[tokio::test]
async fn a_long_prompt_does_not_stall_a_running_stream() {
    let (engine, log) = engine(2, 2);
    let mut running = ask(&engine, WELL, 4, 3000);
    assert!(matches!(running.next().await, Some(Event::Token { .. })));
    assert_eq!(end(ask(&engine, WELL, 1000, 1)).await.0, 1);
    let log = log.lock().unwrap();
    let chunks: Vec<usize> = (0..log.len()).filter(|i| log[*i].starts_with("prefill 1")).collect();
    assert_eq!(chunks.len(), 8);
    assert!(chunks.windows(2).all(|pair| log[pair[0]..pair[1]].iter().any(|line| line == "decode")), "{log:?}");
}

#[tokio::test]
async fn the_queue_is_bounded_and_counted() {
    let (engine, _) = engine(2, 3);
    let mut streams: Vec<_> = (0..5).map(|_| ask(&engine, WELL, 4, 100)).collect();
    let prompt = Prompt { ids: vec![WELL], ..Prompt::default() };
    let request = Request { prompt, sampling: Sampling::default(), max_new_tokens: 1, stop_ids: Vec::new() };
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
    assert!(matches!(running.next().await, Some(Event::Token { .. })));
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
