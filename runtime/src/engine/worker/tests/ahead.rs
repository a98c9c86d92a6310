//! Steps that are begun before the last is known: answers are what they are without.

use super::*;

/// Tokens and end of an answer.
async fn answer(mut stream: TokenStream) -> (Vec<u32>, Event) {
    let mut tokens = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("a stream hangs");
        match next.expect("a stream ends without saying why") {
            Event::Token { id, .. } => tokens.push(id),
            end => return (tokens, end),
        }
    }
}

/// A request whose every token is drawn.
fn drawing(seed: u64, max_new_tokens: usize, stop_ids: Vec<u32>) -> Request {
    let sampling = Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() };
    Request { prompt: prompt(vec![DRAWS; 5]), sampling, max_new_tokens, stop_ids, ..Request::default() }
}

/// The answers to `requests` at once, and what the executor was told.
async fn answers(executor: Scripted, requests: Vec<Request>) -> (Vec<(Vec<u32>, Event)>, Vec<String>) {
    let (engine, log) = engine_over(executor, 4, 8);
    let streams: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let mut all = Vec::new();
    for stream in streams {
        all.push(answer(stream).await);
    }
    tokio::time::timeout(Duration::from_secs(2), engine.idle()).await.expect("a sequence runs on");
    let log = log.lock().unwrap().clone();
    (all, log)
}

#[tokio::test]
async fn answers_are_the_same_as_without_and_a_step_is_begun_before_the_last_is_asked_for() {
    let lengths = [30, 1, 7, 13, 2, 21];
    let requests = || lengths.iter().zip(1..).map(|(length, seed)| drawing(seed, *length, Vec::new())).collect();
    let (want, _) = answers(Scripted::default(), requests()).await;
    for ((tokens, end), length) in want.iter().zip(lengths) {
        assert_eq!((tokens.len(), end), (length, &Event::Finished(FinishReason::Length)));
    }
    for (stuck, mixes) in [(false, false), (false, true), (true, false)] {
        let (got, log) = answers(Scripted { ahead: true, stuck, mixes, ..Scripted::default() }, requests()).await;
        assert_eq!(got, want);
        let twice = log.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with("begin "))).count();
        assert!(if stuck { twice == 0 } else { twice > 0 }, "{log:?}");
    }
}

#[tokio::test]
async fn a_stop_id_ends_one_answer_and_changes_no_other() {
    let (want, _) = answers(Scripted::default(), vec![drawing(1, 40, Vec::new()), drawing(2, 40, Vec::new())]).await;
    let stop = want[0].0[9];
    let first = want[0].0.iter().position(|id| *id == stop).unwrap();
    let requests = vec![drawing(1, 40, vec![stop]), drawing(2, 40, Vec::new())];
    let (got, _) = answers(Scripted { ahead: true, ..Scripted::default() }, requests).await;
    assert_eq!(got[0], (want[0].0[..first].to_vec(), Event::Finished(FinishReason::Stop)));
    assert_eq!(got[1], want[1]);
}

#[tokio::test]
async fn whoever_wants_more_than_tokens_is_never_ahead() {
    let told = Request { logprobs: Some(2), ..drawing(1, 12, Vec::new()) };
    let (got, log) = answers(Scripted { ahead: true, ..Scripted::default() }, vec![told]).await;
    assert_eq!(got[0].0.len(), 12);
    assert!(log.iter().any(|line| line == "decode") && !log.iter().any(|line| line.starts_with("begin")), "{log:?}");
}

#[tokio::test]
async fn a_dropped_stream_is_gone_and_what_comes_next_is_served_while_others_run() {
    let (engine, log) = engine_over(Scripted { ahead: true, ..Scripted::default() }, 2, 4);
    let mut running = ask(&engine, WELL, 4, 3000);
    let mut dropped = ask(&engine, WELL, 4, 3000);
    await_decoding(&mut running).await;
    await_decoding(&mut dropped).await;
    drop(dropped);
    assert_eq!(end(ask(&engine, WELL, 4, 5)).await, (5, Event::Finished(FinishReason::Length)));
    drop(running);
    tokio::time::timeout(Duration::from_secs(2), engine.idle()).await.expect("the sequences run on");
    assert!(log.lock().unwrap().iter().any(|line| line == "begin 2"));
    assert!(engine.snapshot().kv_usage.abs() < 1e-9);
    // What was begun for those that are gone is nobody's.
    assert_eq!(end(ask(&engine, WELL, 4, 5)).await, (5, Event::Finished(FinishReason::Length)));
}
