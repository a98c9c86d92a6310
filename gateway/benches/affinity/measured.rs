//! What a replica takes: rounded up from `runtime/benches/results/engine-cpu.md` (tiny-llava, one core), where a new
//! picture takes 4.4 ms to pixels, 21.0 ms to visual tokens and 26.5 ms of prefill, and a token 0.59 ms alone and
//! 2.76 ms for eight. Of a kept picture the question alone is read, a few milliseconds; the rounding is against us.

/// Milliseconds until the first token of a picture that is new to an idle replica.
pub const NEW_PICTURE: f64 = 60.0;
/// The same when the replica has it in its caches.
pub const KEPT_PICTURE: f64 = 6.0;
/// Milliseconds of a step that gives one token to one sequence, and those that each further one adds.
pub const STEP: (f64, f64) = (0.6, 0.3);
/// Tokens of an answer.
pub const TOKENS: u32 = 16;
