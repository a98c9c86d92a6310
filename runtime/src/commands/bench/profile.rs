//! Shows a profiler that waits for it (`ncu --profile-from-start off`) how one prompt is read, and a few steps of decoding: all
//! of a measurement is more than it can watch.

use candle_core::Device;
use tokio::runtime::Runtime;

use super::load::{Ask, failed};
use crate::commands::CommandError;
use crate::device;
use crate::engine::{Engine, Event, Request, TokenStream};

/// Tokens of one sequence that are waited for meanwhile: whole steps are between the first and the last of them.
const TOKENS: usize = 3;

/// One request of `asks` after all others have been answered, and then all of them together.
///
/// # Errors
/// A request that fails, or what the driver says.
pub fn run(engine: &Engine, device: &Device, runtime: &Runtime, asks: Vec<Ask>) -> Result<(), CommandError> {
    let mut asks = asks.into_iter();
    runtime.block_on(async {
        let Some(alone) = asks.next() else { return Ok(()) };
        device::show(device, true).map_err(|error| failed(&error))?;
        let mut answer = submit(engine, alone)?;
        token(&mut answer).await?;
        device::show(device, false).map_err(|error| failed(&error))?;
        drop(answer);
        let mut answers = asks.map(|ask| submit(engine, ask)).collect::<Result<Vec<_>, _>>()?;
        for answer in &mut answers {
            token(answer).await?;
        }
        device::show(device, true).map_err(|error| failed(&error))?;
        for _ in 0..TOKENS {
            if let Some(answer) = answers.first_mut() {
                token(answer).await?;
            }
        }
        device::show(device, false).map_err(|error| failed(&error))
    })
}

fn submit(engine: &Engine, ask: Ask) -> Result<TokenStream, CommandError> {
    let request = Request { prompt: ask.prompt, max_new_tokens: ask.output_tokens, ..Request::default() };
    engine.submit(request).map_err(|error| failed(&error))
}

async fn token(answer: &mut TokenStream) -> Result<(), CommandError> {
    match answer.next().await {
        Some(Event::Token { .. }) => Ok(()),
        Some(Event::Failed(why)) => Err(failed(&why)),
        _ => Err(failed(&"an answer ended before a profiler had seen it; raise --output-tokens")),
    }
}
