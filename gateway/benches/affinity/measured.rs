//! What a replica takes, as `-- real` measured it: tiny-internvl, 32 bit, one thread of an AMD EPYC, pictures of 192²
//! (four tiles and one of the whole), answers of 16 tokens.

/// Milliseconds until the first token of a picture that is new to an idle replica.
pub const NEW_PICTURE: f64 = 60.0;
/// The same when the replica has it in its caches.
pub const KEPT_PICTURE: f64 = 6.0;
/// Milliseconds of a step that gives one token to one sequence, and those that each further one adds.
pub const STEP: (f64, f64) = (0.6, 0.3);
/// Tokens of an answer.
pub const TOKENS: u32 = 16;
