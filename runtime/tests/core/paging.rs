//! What is found in a cache, what is read again after a preemption, and what is computed beside others gives the tokens
//! that are computed alone, in every case.

use vlm_runtime::engine::{ENCODER_CACHE_BYTES, Engine, EngineOptions, Event, Request, Sampling, TokenStream};
use vlm_runtime::ops::{BLOCK_TOKENS, blocks_for};
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::Prompt;

use crate::cases::{CASES, Case};

fn engine(case: &Case, max_tokens: usize, blocks: Option<usize>) -> Engine {
    let block = case.checkpoint.config().text.kv_bytes_per_token(4) * BLOCK_TOKENS as u64;
    let options = EngineOptions {
        max_tokens,
        max_concurrency: 4,
        max_queue: 4,
        // One more, which no sequence owns.
        kv_bytes: blocks.map(|blocks| (blocks as u64 + 1) * block),
        encoder_cache_bytes: ENCODER_CACHE_BYTES,
        precision: Precision::F32,
    };
    Engine::start(&case.checkpoint, options).unwrap()
}

fn ask(engine: &Engine, prompt: Prompt, max_new_tokens: usize) -> TokenStream {
    let request =
        Request { prompt, sampling: Sampling::default(), max_new_tokens, stop_ids: Vec::new(), ..Request::default() };
    engine.submit(request).unwrap()
}

/// The tokens, and how many of the prompt's were cached.
async fn collect(mut stream: TokenStream) -> (Vec<u32>, usize) {
    let mut ids = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Event::Token { id, .. } => ids.push(id),
            Event::Finished(_) => {}
            Event::Failed(why) => panic!("{why}"),
        }
    }
    (ids, stream.cached_tokens())
}

#[tokio::test]
async fn a_repeated_prompt_is_neither_seen_nor_read_again() {
    for case in &*CASES {
        let (name, greedy, length) = (case.name, &case.facts.greedy_ids, case.facts.input_ids.len());
        let engine = engine(case, 300, None);
        let first = collect(ask(&engine, case.prompt(), greedy.len())).await;
        assert_eq!((&first.0, first.1), (greedy, 0), "{name}");
        let seen = engine.snapshot().counts;
        assert!(seen.tiles > 0, "{name}");
        let again = collect(ask(&engine, case.prompt(), greedy.len())).await;
        assert_eq!(again, (greedy.clone(), (length - 1) / BLOCK_TOKENS * BLOCK_TOKENS), "{name}");
        let then = engine.snapshot().counts;
        assert_eq!(then.found_tokens, again.1 as u64, "{name}");
        let last = case.prompt().ids.iter().rposition(|id| *id == case.facts.image_token_id).unwrap();
        if last < again.1 {
            assert_eq!((then.tiles, then.encoder_hits), (seen.tiles, 0), "{name}");
        }
    }
}

#[tokio::test]
async fn a_picture_in_another_place_is_not_seen_again() {
    for case in &*CASES {
        let other = |word: u32| {
            let mut prompt = case.prompt();
            prompt.ids.insert(1, word);
            prompt
        };
        let alone = collect(ask(&engine(case, 300, None), other(7), 12)).await;
        let engine = engine(case, 300, None);
        collect(ask(&engine, case.prompt(), 12)).await;
        let seen = engine.snapshot().counts;
        assert_eq!(collect(ask(&engine, other(7), 12)).await, alone, "{}", case.name);
        let then = engine.snapshot().counts;
        assert_eq!((then.tiles, then.found_tokens), (seen.tiles, 0), "{}", case.name);
        assert_eq!(then.encoder_hits, seen.encoder_hits + case.prompt().images.len() as u64, "{}", case.name);
    }
}

/// Three texts that grow until there are no blocks left for the case that came last.
#[tokio::test]
async fn a_preempted_sequence_gives_the_same_tokens() {
    const NEW: usize = 60;
    let text = |n: u32, image_token: u32| Prompt {
        ids: (0..10).map(|i| (29 * i + 7 * n) % 250 + 3).collect(),
        image_token,
        images: Vec::new(),
    };
    for case in &*CASES {
        let (length, image_token) = (case.facts.input_ids.len(), case.facts.image_token_id);
        let max_tokens = length + NEW;
        let roomy = engine(case, max_tokens, None);
        let mut alone = Vec::new();
        for n in 0..3 {
            alone.push(collect(ask(&roomy, text(n, image_token), NEW)).await.0);
        }
        alone.push(collect(ask(&roomy, case.prompt(), NEW)).await.0);
        assert!(alone[3].starts_with(&case.facts.greedy_ids), "{}", case.name);
        assert_eq!(roomy.snapshot().counts.preemptions, 0);

        let tight = engine(case, max_tokens, Some(6 + blocks_for(length)));
        let mut streams: Vec<TokenStream> = (0..3).map(|n| ask(&tight, text(n, image_token), NEW)).collect();
        streams.push(ask(&tight, case.prompt(), NEW));
        for (n, stream) in streams.into_iter().enumerate() {
            assert_eq!(collect(stream).await.0, alone[n], "{}, sequence {n}", case.name);
        }
        let counts = tight.snapshot().counts;
        assert!(counts.preemptions > 0 && counts.read_again_tokens > 0, "{}: {counts:?}", case.name);
        tight.idle().await;
        assert!(tight.snapshot().kv_usage.abs() < 1e-9, "{}", case.name);
    }
}
