//! Several answers to one prompt, and what requests change in the choice of tokens.

use super::super::super::Steering;
use super::*;

fn several(engine: &Engine, what: u32, prompt_tokens: usize, answers: usize) -> Vec<TokenStream> {
    let request = Request { prompt: prompt(vec![what; prompt_tokens]), max_new_tokens: 3, ..Request::default() };
    engine.submit_several(ClientId::default(), request, starts(answers)).unwrap()
}

#[tokio::test]
async fn further_answers_read_only_what_no_whole_block_of_the_first_holds() {
    let (engine, log) = engine(4, 4);
    for stream in several(&engine, WELL, 70, 4) {
        assert_eq!(end(stream).await, (3, Event::Finished(FinishReason::Length)));
    }
    let read: Vec<String> = log.lock().unwrap().iter().filter(|line| line.starts_with("prefill")).cloned().collect();
    assert_eq!(read, ["prefill 0 70", "prefill 1 6", "prefill 2 6", "prefill 3 6"]);
}

#[tokio::test]
async fn further_answers_come_when_the_first_fails_or_nobody_waits_for_it() {
    let (engine, _) = engine(2, 4);
    for stream in several(&engine, FAILS, 4, 3) {
        assert!(matches!(end(stream).await, (0, Event::Failed(Failure::Step(_)))));
    }
    let busy = ask(&engine, WELL, 4, 400);
    let mut streams = several(&engine, WELL, 4, 3);
    drop(streams.remove(0));
    for stream in streams {
        assert_eq!(end(stream).await, (3, Event::Finished(FinishReason::Length)));
    }
    drop(busy);
    engine.idle().await;
}

#[tokio::test]
async fn all_answers_of_a_request_are_accepted_or_none() {
    let (engine, _) = engine(1, 2);
    assert_eq!(engine.most_answers(), 3);
    let request = || Request { prompt: prompt(vec![WELL; 4]), max_new_tokens: 1, ..Request::default() };
    let submit = |answers| engine.submit_several(ClientId::default(), request(), starts(answers));
    assert!(matches!(submit(4), Err(SubmitError::QueueFull { .. })));
    for stream in submit(3).unwrap() {
        assert_eq!(end(stream).await.0, 1);
    }
}

#[tokio::test]
async fn each_answer_goes_on_from_its_own_tokens_and_none_waits_for_one_that_is_over() {
    let (engine, log) = engine(2, 4);
    let lengths = [(0, 10), (3, 4), (1, 0)];
    let start = |(number, generated)| AnswerStart { number, generated: vec![WELL; generated] };
    let request = Request { prompt: prompt(vec![WELL; 4]), max_new_tokens: 10, ..Request::default() };
    let streams = engine.submit_several(ClientId::default(), request, lengths.map(start).to_vec()).unwrap();
    for (stream, left) in streams.into_iter().zip([0, 6, 10]) {
        assert_eq!(end(stream).await, (left, Event::Finished(FinishReason::Length)));
    }
    let read: Vec<String> = log.lock().unwrap().iter().filter(|line| line.starts_with("prefill")).cloned().collect();
    assert_eq!(read, ["prefill 0 8", "prefill 1 4"]);
}

#[tokio::test]
async fn an_engine_that_dies_tells_those_who_wait_for_a_first_answer_too() {
    let (engine, _) = engine(2, 4);
    for stream in several(&engine, PANICS, 4, 3) {
        assert_eq!(end(stream).await, (0, Event::Failed(Failure::Stopped)));
    }
}

#[tokio::test]
async fn probabilities_are_told_where_they_are_asked_for() {
    let (engine, _) = engine(1, 1);
    let ask = |logprobs| {
        let prompt = prompt(vec![WELL; 4]);
        engine.submit(Request { prompt, max_new_tokens: 1, logprobs, ..Request::default() }).unwrap()
    };
    assert!(matches!(ask(None).next().await, Some(Event::Token { id: 3, logprobs: None })));
    let Some(Event::Token { logprobs: Some(told), .. }) = ask(Some(2)).next().await else { panic!("nothing told") };
    let ids: Vec<u32> = told.top.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [3, 0]);
    let sum = 7.0 + 1f32.exp();
    assert!((told.token - (1f32.exp() / sum).ln()).abs() < 1e-5, "{told:?}");
}

#[tokio::test]
async fn a_bias_decides_and_a_shortest_length_holds_the_end_back() {
    let (engine, _) = engine(1, 1);
    let steering = Steering { bias: vec![(5, 9.0)], min_tokens: 4, ..Steering::default() };
    let request =
        Request { prompt: prompt(vec![WELL; 4]), max_new_tokens: 9, stop_ids: vec![5], steering, ..Request::default() };
    let mut stream = engine.submit(request).unwrap();
    let mut ids = Vec::new();
    let end = loop {
        match stream.next().await.unwrap() {
            Event::Token { id, .. } => ids.push(id),
            end => break end,
        }
    };
    assert_eq!((ids, end), (vec![3; 4], Event::Finished(FinishReason::Stop)));
}
